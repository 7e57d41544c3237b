/** The gateway is killed while it is used: nothing is lost, and nothing is done twice. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Onceward } from "../src/index.js";
import { fresh, Gateway } from "./world.js";

let gateway: Gateway;
let once: Onceward;
before(async () => {
  gateway = await Gateway.start();
  const retry = { attemptsMax: 10_000, baseMs: 5, capMs: 20 };
  once = new Onceward({ url: gateway.url, retry });
});
after(() => gateway.stop());

test("a call that meets no gateway is made with its key until there is one", async () => {
  const known = { to: "demo/orders", key: fresh("order"), body: { qty: 1 } };
  const first = await once.send(known);
  await gateway.kill();
  const waiting = [once.send(known), once.send({ to: "demo/orders", body: { qty: 2 } })] as const;
  await gateway.startAgain();
  const [again, other] = await Promise.all(waiting);
  assert.equal(again.replayed, true);
  assert.deepEqual(again.bytes, first.bytes);
  assert.equal(other.status, 201);
  assert.equal((await once.operation(other.operation ?? "")).key, other.key);
});

test("an effect whose gateway dies meanwhile is run once, and all get its outcome", async () => {
  const mails = once.claims("mails");
  const key = fresh("welcome");
  let runs = 0;
  let isBack = Promise.resolve();
  const effect = async () => {
    runs += 1;
    await gateway.kill();
    // What is said next is said into the dark, until somebody hears it.
    isBack = gateway.startAgain();
    return { mail: runs };
  };
  assert.deepEqual(await mails.once(key, effect), { mail: 1 });
  assert.deepEqual(await mails.once(key, effect), { mail: 1 });
  assert.equal(runs, 1);
  await isBack;
});

test("an accepted call goes on after a kill", async () => {
  const accepted = await once.accept({ to: "demo/orders", key: fresh("order"), body: "a" });
  await gateway.kill();
  const waiting = accepted.wait();
  await gateway.startAgain();
  assert.equal((await waiting).state, "done");
});
