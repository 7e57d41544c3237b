/** How long a claim is in hand, and what an effect is told whose words are not heard. */

import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import {
  type Held,
  Onceward,
  ProblemError,
  UnreachableError,
  UnwrittenError,
} from "../src/index.js";
import { claim, QUICK, refusal, scripted } from "./scripted.js";

/** Claims of a gateway that answers each word as a test says, or never. */
function saying(answer: (verb: string, body: string) => Response | undefined) {
  const fetch: typeof globalThis.fetch = async (input, init) => {
    const { pathname } = new URL(String(input));
    const said = answer(pathname.slice(pathname.lastIndexOf("/") + 1), String(init?.body ?? ""));
    if (said) return said;
    return new Promise((_, fail) => {
      init?.signal?.addEventListener("abort", () => fail(init.signal?.reason));
    });
  };
  return new Onceward({ fetch, retry: QUICK });
}

/** Until `it` has ended: timers of the client hold no process, so this one does. */
async function alive<T>(it: Promise<T>): Promise<T> {
  const timer = setInterval(() => {}, 10);
  return it.finally(() => clearInterval(timer));
}

function lost({ signal }: Held): Promise<unknown> {
  return alive(
    new Promise((done) => {
      signal.addEventListener("abort", () => done(signal.reason), { once: true });
    }),
  );
}

test("a lease is renewed by what was granted and not by what was asked", async () => {
  let renewals = 0;
  let heard = () => {};
  const often = new Promise<void>((done) => {
    heard = done;
  });
  const once = saying((verb, body) => {
    if (verb === "complete") return claim("done");
    if (verb === "renew") {
      assert.equal(JSON.parse(body).lease, "3h");
      renewals += 1;
      if (renewals === 4) heard();
    }
    return claim("acquired", 600);
  });
  const mails = once.claims("mails", { leaseMs: 3 * 3_600_000 });
  await mails.once("a", async ({ signal }) => {
    await alive(often);
    assert.equal(signal.aborted, false);
  });
});

test("a claim is lost with its lease, at once where the gateway says so, and not by a refusal else", async () => {
  for (const [said, why] of [
    [undefined, /is over/],
    [() => refusal(401, "fix-request", "unauthenticated"), /is over/],
    [() => refusal(404, "fix-request", "not-found"), /not-found/],
    [() => refusal(409, "escalate", "fence-stale"), /fence-stale/],
  ] as const) {
    const once = saying((verb) => {
      if (verb === "begin") return claim("acquired");
      return verb === "complete" ? claim("done") : said?.();
    });
    let reason: unknown;
    await once.claims("mails", { leaseMs: 200 }).once("a", async (held) => {
      reason = await lost(held);
    });
    assert.match(String(reason), why);
  }
});

test("an effect that ran and was not written down is told as that", async () => {
  const { fetch } = scripted([
    claim("acquired"),
    Response.json({ message: "no" }, { status: 500 }),
  ]);
  const mails = new Onceward({ fetch, retry: QUICK }).claims("mails");
  await assert.rejects(
    mails.once("a", () => 1),
    (error) => {
      assert.ok(error instanceof UnwrittenError);
      assert.deepEqual([error.key, error.fence, error.advice], ["a", 7, "escalate"]);
      assert.match(String(error.cause), /has the status 500/);
      return true;
    },
  );
});

test("what the ledger will never take leaves a doubt at once", async () => {
  const words: [string, unknown][] = [];
  const once = saying((verb, body) => {
    words.push([verb, JSON.parse(body).may_have_executed]);
    if (verb === "complete") return refusal(413, "fix-request", "body-too-large");
    return claim(verb === "release" ? "in_doubt" : "acquired");
  });
  const mails = once.claims("mails");
  await assert.rejects(
    mails.once("a", () => 1),
    (error) => error instanceof UnwrittenError && error.cause instanceof ProblemError,
  );
  assert.deepEqual(words.slice(1), [
    ["complete", undefined],
    ["release", true],
  ]);
  for (const odd of [1n, () => 1]) {
    words.length = 0;
    await assert.rejects(
      mails.once("a", () => odd as unknown),
      (error) => error instanceof UnwrittenError && error.cause instanceof TypeError,
    );
    assert.deepEqual(words.slice(1), [["release", true]]);
  }
});

test("an outcome that comes after somebody else has begun is refused and told as that", async () => {
  const { fetch } = scripted([claim("acquired"), refusal(409, "escalate", "fence-stale")]);
  const mails = new Onceward({ fetch, retry: QUICK }).claims("mails");
  await assert.rejects(
    mails.once("a", () => 1),
    { name: "FenceStaleError" },
  );
});

/** Claims whose begin is so long on its way, by a clock that goes on as this says; and the words that came. */
function slow(t: TestContext, late: number, renewal?: () => Response) {
  const clock = { at: 0 };
  t.mock.method(performance, "now", () => clock.at);
  const words: string[] = [];
  const once = saying((verb) => {
    words.push(verb);
    if (verb === "begin") clock.at += late;
    if (verb === "renew" && renewal) return renewal();
    const stands: Record<string, string> = { complete: "done", release: "released" };
    return claim(stands[verb] ?? "acquired", 30_000);
  });
  return { mails: once.claims("mails", { leaseMs: 30_000 }), words, clock };
}

test("a lease is counted from its asking, and not from its answer", async (t) => {
  const { mails, words, clock } = slow(t, 9_000);
  t.mock.timers.enable({ apis: ["setTimeout"] });
  await mails.once("a", ({ signal }) => {
    assert.equal(signal.aborted, false);
    clock.at += 22_000;
    t.mock.timers.tick(22_000);
    assert.match(String(signal.reason), /is over/);
  });
  assert.deepEqual([words[0], words.at(-1)], ["begin", "complete"]);
});

test("what was begun late is renewed before anything runs", async (t) => {
  const { mails, words } = slow(t, 25_000);
  await mails.once("a", ({ signal }) => {
    assert.deepEqual([words, signal.aborted], [["begin", "renew"], false]);
  });
  assert.deepEqual(words, ["begin", "renew", "complete"]);
});

test("what was begun too late is given back, and does not run", async (t) => {
  const stale = () => refusal(409, "escalate", "fence-stale");
  const { mails, words } = slow(t, 40_000, stale);
  await assert.rejects(
    mails.once("a", () => assert.fail("it ran")),
    (error) => error instanceof UnreachableError && error.key === "a",
  );
  assert.deepEqual(words, ["begin", "renew", "release"]);
});

test("no lease is counted as longer than its answer can mean", async () => {
  // Its `Date` is cut to the second: what was granted may be 29.2 seconds.
  const mails = saying(() => claim("acquired", 30_100)).claims("mails", { leaseMs: 30_000 });
  const { leaseMs } = await mails.beginFor("a");
  assert.ok(leaseMs <= 29_200, String(leaseMs));
});
