/** What holds of the gateway holds of its double: the same tests, against both. */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import {
  EffectFailedError,
  FenceStaleError,
  InProgressError,
  KeyMismatchError,
  NotDoneError,
  Onceward,
  OutcomeUnknownError,
  ProblemError,
  RefusedError,
  UnavailableError,
  UnwrittenError,
} from "../src/index.js";
import { FakeGateway } from "../src/testing.js";
import { fresh, Gateway } from "./world.js";

/** Quick enough for tests, and often enough that the gateway's own advice decides. */
const RETRY = { attemptsMax: 2, baseMs: 1, capMs: 5 };

function contract(
  name: string,
  start: () => Promise<{ once: Onceward; stop: () => Promise<void> }>,
) {
  describe(name, () => {
    let once: Onceward;
    let stop = async () => {};
    before(async () => {
      ({ once, stop } = await start());
    });
    after(() => stop());

    test("a call is answered by its upstream, and its repeat from memory", async () => {
      const call = { to: "demo/orders", key: fresh("order"), body: { qty: 1 } };
      const first = await once.send(call);
      assert.equal(first.status, 201);
      assert.equal(first.ok, true);
      assert.equal(first.state, "done");
      assert.equal(first.replayed, false);
      const second = await once.send(call);
      assert.equal(second.replayed, true);
      assert.equal(second.operation, first.operation);
      assert.deepEqual(second.bytes, first.bytes);
      assert.equal(second.headers.get("content-type"), first.headers.get("content-type"));
    });

    test("attempts that fail and lose their answer come to one effect", async () => {
      const count = async () =>
        (await once.send({ to: "demo/effects", method: "GET" })).json<{ count: number }>();
      const { count: earlier } = await count();
      const key = fresh("order");
      const answer = await once.send({ to: "demo/orders?script=503,drop,201", key, body: "a" });
      assert.equal(answer.status, 201);
      assert.equal(answer.attempts, 3);
      assert.equal((await count()).count, earlier + 1);
    });

    test("a call without a key gets one, and a call that only reads does not", async () => {
      const written = await once.send({ to: "demo", path: "/orders", body: "a" });
      assert.match(written.key ?? "", /^[0-9a-f-]{36}$/);
      assert.equal(written.headers.get("idempotency-key"), written.key);
      const read = await once.send({ to: "demo", path: "/effects", method: "GET" });
      assert.equal(read.key, undefined);
      assert.equal(read.operation, undefined);
    });

    test("the same key with another request is refused, and says where it differs", async () => {
      const key = fresh("order");
      await once.send({ to: "demo/orders", key, body: "a" });
      await assert.rejects(once.send({ to: "demo/orders", key, body: "b" }), (error) => {
        assert.ok(error instanceof KeyMismatchError);
        assert.equal(error.code, "key-mismatch");
        assert.equal(error.advice, "new-key");
        assert.deepEqual(error.problem.differs, ["body"]);
        assert.equal(error.key, key);
        return true;
      });
    });

    test("what lost its answer is in doubt where a second arrival is a second effect", async () => {
      const call = { to: "demo-unsafe/orders?script=drop", key: fresh("order"), body: "a" };
      for (const status of [504, 409]) {
        await assert.rejects(once.send(call), (error) => {
          assert.ok(error instanceof OutcomeUnknownError);
          assert.equal(error.advice, "escalate");
          assert.equal(error.status, status);
          assert.match(error.operation ?? "", /^op_/);
          return true;
        });
      }
    });

    test("an ambiguous answer of the upstream's own is in doubt too, and comes with the error", async () => {
      const call = { to: "demo-unsafe/orders?script=500", key: fresh("order"), body: "a" };
      await assert.rejects(once.send(call), (error) => {
        assert.ok(error instanceof OutcomeUnknownError);
        assert.equal(error.answer?.status, 500);
        return true;
      });
    });

    test("a refusal of the upstream's is its answer, and is kept", async () => {
      const call = { to: "demo/orders?script=404", key: fresh("order"), body: "a" };
      const first = await once.send(call);
      assert.equal(first.status, 404);
      assert.equal(first.ok, false);
      assert.equal((await once.send(call)).replayed, true);
    });

    test("what can be tried again is, with the same key, under the same operation", async () => {
      const script = Array(5).fill("503").join(",");
      const key = fresh("order");
      const answer = await once.send({ to: `demo/orders?script=${script},201`, key, body: "a" });
      assert.equal(answer.status, 201);
      assert.equal(answer.attempts, 6);
    });

    test("a call that is accepted goes on by itself", async () => {
      const key = fresh("order");
      const accepted = await once.accept({ to: "demo/orders", key, body: { qty: 1 } });
      assert.equal(accepted.key, key);
      const story = await accepted.wait();
      assert.equal(story.state, "done");
      assert.equal(story.ok, true);
      assert.equal(story.key, key);
      const kept = await once.response(story.id);
      assert.equal(kept.status, 201);
      const again = await once.accept({ to: "demo/orders", key, body: { qty: 1 } });
      assert.equal(again.answer?.replayed, true);
      assert.equal(again.operation, accepted.operation);
    });

    test("an accepted call that is refused is a dead letter with its outcome", async () => {
      const accepted = await once.accept({
        to: "demo/orders?script=404",
        key: fresh("order"),
        body: "a",
      });
      const story = await accepted.wait();
      assert.equal(story.state, "dead");
      assert.equal(story.ok, false);
      assert.equal(story.outcome?.status, 404);
      assert.equal(story.told, false);
    });

    test("waiting for what is in doubt says so", async () => {
      const call = { to: "demo-unsafe/orders?script=drop", key: fresh("order"), body: "a" };
      const accepted = await once.accept(call);
      await assert.rejects(accepted.wait(), OutcomeUnknownError);
    });

    test("a route that is not there is refused", async () => {
      await assert.rejects(once.send({ to: "nowhere/orders", body: "a" }), (error) => {
        assert.ok(error instanceof RefusedError);
        assert.equal(error.code, "route-unknown");
        return true;
      });
    });

    test("an operation that is not there is refused", async () => {
      const id = "op_01kb2n9f5nep3b8m6wq6r9t2vx";
      await assert.rejects(once.operation(id), (error) => {
        return error instanceof ProblemError && error.code === "not-found";
      });
    });

    test("an effect is run once, and all get its outcome", async () => {
      const claims = once.claims("mails");
      const key = fresh("welcome");
      let runs = 0;
      const send = () => claims.once(key, () => ({ mail: `m-${++runs}` }));
      assert.deepEqual(await send(), { mail: "m-1" });
      assert.deepEqual(await send(), { mail: "m-1" });
      assert.equal(runs, 1);
    });

    test("who comes while an effect runs waits for its outcome", async () => {
      const claims = once.claims("mails");
      const key = fresh("welcome");
      let runs = 0;
      let go = () => {};
      const gate = new Promise<void>((open) => {
        go = open;
      });
      const begun = new Promise<void>((isBegun) => {
        void claims.once(key, async () => {
          runs += 1;
          isBegun();
          await gate;
          return runs;
        });
      });
      await begun;
      const second = claims.once(key, () => ++runs);
      go();
      assert.equal(await second, 1);
    });

    test("an effect that says that nothing was done frees its key", async () => {
      const claims = once.claims("mails");
      const key = fresh("welcome");
      const busy = new NotDoneError("the mail server is busy");
      await assert.rejects(
        claims.once(key, () => {
          throw busy;
        }),
        (error) => error === busy,
      );
      assert.equal(await claims.once(key, () => "sent"), "sent");
    });

    test("an effect that throws is in doubt, and harmless ones run again", async () => {
      const claims = once.claims("mails");
      for (const effects of ["non-idempotent", "idempotent"] as const) {
        const key = fresh("welcome");
        const fail = () => {
          throw new Error("who knows");
        };
        await assert.rejects(claims.once(key, fail, { effects }), /who knows/);
        const again = claims.once(key, () => "sent", { effects });
        if (effects === "idempotent") assert.equal(await again, "sent");
        else await assert.rejects(again, OutcomeUnknownError);
      }
    });

    test("a claim in somebody's hand is busy, and the same begin again is not", async () => {
      const claims = once.claims("mails");
      const key = fresh("welcome");
      const first = await claims.begin(key, { nonce: "a" });
      assert.equal(first.status, "acquired");
      const again = await claims.begin(key, { nonce: "a" });
      assert.equal(again.fence, first.fence);
      assert.equal((await claims.begin(key)).status, "busy");
      await assert.rejects(
        claims.once(key, () => 1, { waitMs: 0 }),
        InProgressError,
      );
    });

    test("a claim is completed once, and the same words again change nothing", async () => {
      const claims = once.claims("mails");
      const key = fresh("welcome");
      const { fence = 0 } = await claims.begin(key);
      assert.equal((await claims.renew(key, fence, { leaseMs: 90_500 })).status, "acquired");
      assert.equal((await claims.complete(key, fence, { mail: 1 })).status, "done");
      assert.equal((await claims.complete(key, fence, { mail: 1 })).status, "done");
      await assert.rejects(claims.complete(key, fence, { mail: 2 }), FenceStaleError);
      await assert.rejects(claims.complete(key, fence - 1, { mail: 1 }), FenceStaleError);
      assert.deepEqual((await claims.get(key)).outcome, { mail: 1 });
    });

    test("a word that comes late is weighed by what became of the claim", async () => {
      const claims = once.claims("mails");
      const isStale = { name: "FenceStaleError" };
      // Its holder did not know, and then it did.
      let key = fresh("welcome");
      let { fence = 0 } = await claims.begin(key, { effects: "idempotent" });
      for (let n = 0; n < 2; n += 1) {
        const given = await claims.release(key, fence, { mayHaveExecuted: true });
        assert.equal(given.status, "released");
      }
      assert.equal((await claims.get(key)).status, "lapsed");
      await assert.rejects(claims.renew(key, fence), isStale);
      assert.equal((await claims.complete(key, fence, 1)).status, "done");
      // In doubt, and then it knows that nothing was done.
      key = fresh("welcome");
      ({ fence = 0 } = await claims.begin(key));
      const given = await claims.release(key, fence, { mayHaveExecuted: true });
      assert.equal(given.status, "in_doubt");
      for (let n = 0; n < 2; n += 1) {
        assert.equal((await claims.release(key, fence)).status, "released");
      }
      await assert.rejects(claims.complete(key, fence, 1), isStale);
      await assert.rejects(claims.release(key, fence, { mayHaveExecuted: true }), isStale);
    });

    test("what a first begin says is remembered, and later ones change nothing of it", async () => {
      const claims = once.claims("mails");
      const key = fresh("welcome");
      const first = await claims.begin(key);
      await claims.release(key, first.fence ?? 0, { reason: "no time" });
      const second = await claims.begin(key, { effects: "idempotent", fingerprint: "anna" });
      assert.equal(second.effects, "non-idempotent");
      assert.ok((second.fence ?? 0) > (first.fence ?? 0));
      assert.deepEqual([first.attempt, second.attempt], [1, 2]);
      assert.equal(second.operation, first.operation);
      await claims.release(key, second.fence ?? 0, { mayHaveExecuted: true });
      const other = await claims.begin(key, { fingerprint: "otto" });
      assert.equal(other.status, "in_doubt", "the first said nothing of what it is about");
    });

    test("what is given back for later is busy until then", async () => {
      const claims = once.claims("mails");
      const key = fresh("welcome");
      const { fence = 0 } = await claims.begin(key);
      await claims.release(key, fence, { retryAfterMs: 3_600_000 });
      const busy = await claims.begin(key);
      assert.equal(busy.status, "busy");
      assert.ok((busy.retry_after_ms ?? 0) > 3_000_000);
      const soon = fresh("welcome");
      const later = await claims.begin(soon);
      await claims.release(soon, later.fence ?? 0, { retryAfterMs: 20 });
      assert.equal(await claims.once(soon, () => "sent"), "sent");
    });

    test("only who has a claim in hand is told its fence, and others who that is", async () => {
      const claims = once.claims("mails", { holder: "worker-1" });
      const key = fresh("welcome");
      const { fence } = await claims.begin(key);
      assert.ok((fence ?? 0) > 0);
      const busy = await claims.begin(key);
      assert.deepEqual([busy.fence, busy.holder], [undefined, "worker-1"]);
      assert.equal((await claims.get(key)).status, "busy");
      await assert.rejects(claims.get(fresh("welcome")), { code: "not-found" });
      await assert.rejects(claims.complete(fresh("welcome"), 1), { code: "not-found" });
    });

    test("a begin that waits is told what became of it", async () => {
      const claims = once.claims("mails");
      const key = fresh("welcome");
      const { fence = 0 } = await claims.begin(key);
      const waiting = claims.begin(key, { waitMs: 60_000 });
      await claims.complete(key, fence, { mail: 1 });
      assert.deepEqual((await waiting).outcome, { mail: 1 });
    });

    test("an outcome that cannot be written leaves a doubt at once", async () => {
      const claims = once.claims("mails");
      const key = fresh("welcome");
      // JSON has no such numbers.
      await assert.rejects(
        claims.once(key, () => 1n),
        UnwrittenError,
      );
      assert.equal((await claims.get(key)).status, "in_doubt");
    });

    test("what did not succeed is told to all as that", async () => {
      const claims = once.claims("mails");
      const key = fresh("welcome");
      const { fence = 0 } = await claims.begin(key);
      await claims.complete(key, fence, { why: "no such mailbox" }, { ok: false });
      await assert.rejects(
        claims.once(key, () => 1),
        (error) => {
          assert.ok(error instanceof EffectFailedError);
          assert.deepEqual(error.outcome, { why: "no such mailbox" });
          return true;
        },
      );
    });

    test("the key of a claim is compared by what it is about", async () => {
      const claims = once.claims("mails");
      const key = fresh("welcome");
      await claims.begin(key, { fingerprint: { to: "anna" } });
      await assert.rejects(claims.begin(key, { fingerprint: { to: "otto" } }), (error) => {
        assert.ok(error instanceof KeyMismatchError);
        assert.deepEqual(error.problem.differs, ["fingerprint"]);
        return true;
      });
    });
  });
}

contract("the gateway", async () => {
  const gateway = await Gateway.start();
  return { once: new Onceward({ url: gateway.url, retry: RETRY }), stop: () => gateway.stop() };
});

contract("the double", async () => {
  const once = new Onceward({ fetch: new FakeGateway().fetch, retry: RETRY });
  return { once, stop: async () => {} };
});

test("a gateway that is not there is told from one that refuses", async () => {
  const once = new Onceward({ url: "http://127.0.0.1:1", retry: RETRY });
  await assert.rejects(once.send({ to: "demo/orders", key: "k", body: "a" }), (error) => {
    assert.equal((error as Error).name, "UnreachableError");
    assert.ok(!(error instanceof UnavailableError));
    return true;
  });
});
