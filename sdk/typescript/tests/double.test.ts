/** What only the double can: upstreams of a test's own, and ends that a test decides. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Onceward, OutcomeUnknownError, UnavailableError } from "../src/index.js";
import { FakeGateway, UnsentError, type Upstream } from "../src/testing.js";

const RETRY = { attemptsMax: 2, baseMs: 1, capMs: 2 };

function started(upstream: Upstream = () => new Response("done")) {
  const gateway = new FakeGateway({ routes: { bank: { upstream } } });
  return { gateway, once: new Onceward({ fetch: gateway.fetch, retry: RETRY }) };
}

async function inDoubt(once: Onceward): Promise<string> {
  const error = await once
    .send({ to: "demo-unsafe/orders?script=drop,201", key: "k" })
    .catch((it) => it);
  assert.ok(error instanceof OutcomeUnknownError);
  return error.operation ?? "";
}

test("a doubt that is resolved as done is answered so from then on", async () => {
  const { gateway, once } = started();
  gateway.resolve(await inDoubt(once), "done", { status: 201, body: "in the books" });
  const answer = await once.send({ to: "demo-unsafe/orders?script=drop,201", key: "k" });
  assert.deepEqual([answer.status, answer.text(), answer.replayed], [201, "in the books", true]);
});

test("a doubt that is resolved as not sent lets the same key run", async () => {
  const { gateway, once } = started();
  gateway.resolve(await inDoubt(once), "not-sent");
  const answer = await once.send({ to: "demo-unsafe/orders?script=drop,201", key: "k" });
  assert.deepEqual([answer.status, answer.replayed, answer.attempts], [201, false, 2]);
  assert.throws(() => gateway.resolve(answer.operation ?? "", "done"), /not in doubt/);
});

test("an upstream that was not reached has done nothing, whatever its effects", async () => {
  let calls = 0;
  const { once } = started(() => {
    calls += 1;
    if (calls <= 6) throw new UnsentError("connection refused");
    return new Response("done");
  });
  await assert.rejects(once.send({ to: "bank/payments", key: "k" }), UnavailableError);
  assert.equal((await once.send({ to: "bank/payments", key: "k" })).text(), "done");
});

test("two calls with one key at the same moment are one", async () => {
  let calls = 0;
  const { once } = started(async () => {
    calls += 1;
    await Promise.resolve();
    return new Response(`call ${calls}`);
  });
  const call = { to: "bank/payments", key: "k" };
  const [a, b] = await Promise.all([once.send(call), once.send(call)]);
  assert.equal(a.text(), b.text());
  assert.equal(calls, 1);
});

test("a lease that ends leaves a doubt, or a key that is free where that is harmless", async () => {
  const { gateway, once } = started();
  const claims = once.claims("mails");
  await claims.begin("a");
  gateway.lapse("mails", "a");
  assert.equal((await claims.begin("a")).status, "in_doubt");
  const first = await claims.begin("b", { effects: "idempotent" });
  gateway.lapse("mails", "b");
  const second = await claims.begin("b");
  assert.equal(second.status, "acquired");
  assert.ok((second.fence ?? 0) > (first.fence ?? 0));
  assert.throws(() => gateway.lapse("mails", "a"), /in nobody's hand/);
});

test("what is accepted can be waited for", async () => {
  const { gateway, once } = started();
  const accepted = await once.accept({ to: "bank/payments", key: "k" });
  await gateway.settled();
  assert.equal((await once.operation(accepted.operation)).state, "done");
});
