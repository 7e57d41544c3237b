import assert from "node:assert/strict";
import { test } from "node:test";
import { newKey, Onceward, UnreachableError, VERSION } from "../src/index.js";
import { keyField, readKey } from "../src/keys.js";
import { retryAfterMs } from "../src/retry.js";
import { duration, readDuration } from "../src/units.js";
import { claim, QUICK, refusal, scripted } from "./scripted.js";

test("every call of one intent has one key and the same bytes", async () => {
  const { fetch, asked } = scripted([
    new TypeError("fetch failed"),
    refusal(503, "same-key", "draining"),
    new Response("a proxy's", { status: 502 }),
  ]);
  const once = new Onceward({ fetch, retry: QUICK });
  const answer = await once.send({ to: "pay/charges", body: { b: 1, a: [2] } });
  assert.equal(answer.text(), "done");
  assert.equal(asked.length, 4);
  const keys = asked.map((request) => request.headers.get("idempotency-key"));
  assert.deepEqual(new Set(keys), new Set([answer.key]));
  const bodies = await Promise.all(asked.map((request) => request.text()));
  assert.deepEqual(new Set(bodies), new Set(['{"b":1,"a":[2]}']));
});

test("what only another request can mend, or only a person, is asked once", async () => {
  for (const [status, advice, code] of [
    [400, "fix-request", "option-invalid"],
    [409, "new-key", "key-mismatch"],
    [504, "escalate", "outcome-unknown"],
  ] as const) {
    const { fetch, asked } = scripted([refusal(status, advice, code)]);
    const once = new Onceward({ fetch, retry: QUICK });
    await assert.rejects(once.send({ to: "pay" }), { advice });
    assert.equal(asked.length, 1, code);
  }
});

test("what passes by without a key is not asked again for an upstream's own answer", async () => {
  const { fetch, asked } = scripted([new Response("no", { status: 503 })]);
  const once = new Onceward({ fetch, retry: QUICK });
  assert.equal((await once.send({ to: "pay", method: "GET" })).status, 503);
  assert.equal(asked.length, 1);
});

test("no call comes earlier than it was asked for, and none where that is too late", async () => {
  const { fetch, asked } = scripted([refusal(503, "same-key", "limit", { "retry-after": "1" })]);
  const once = new Onceward({ fetch, retry: QUICK });
  const began = Date.now();
  await once.send({ to: "pay" });
  assert.ok(Date.now() - began >= 995);
  assert.equal(asked.length, 2);
  const late = scripted([refusal(503, "same-key", "limit", { "retry-after": "3600" })]);
  await assert.rejects(new Onceward({ fetch: late.fetch }).send({ to: "pay" }), {
    retryAfterMs: 3_600_000,
    name: "UnavailableError",
  });
  assert.equal(late.asked.length, 1);
});

test("attempts have an end, and what is known is said", async () => {
  const answers = () => Array.from({ length: 9 }, () => new TypeError("no way"));
  const { fetch, asked } = scripted(answers());
  const once = new Onceward({ fetch, retry: { ...QUICK, attemptsMax: 3 } });
  await assert.rejects(once.send({ to: "pay", key: "k-1" }), (error) => {
    assert.ok(error instanceof UnreachableError);
    assert.equal(error.key, "k-1");
    assert.match(error.message, /no way/);
    return true;
  });
  assert.equal(asked.length, 3);
});

test("who gives up is heard at once", async () => {
  const { fetch, asked } = scripted([refusal(503, "same-key", "limit", { "retry-after": "60" })]);
  const leaving = new AbortController();
  const once = new Onceward({
    retry: QUICK,
    fetch: async (input, init) => {
      setTimeout(() => leaving.abort(), 5);
      return fetch(input, init);
    },
  });
  await assert.rejects(once.send({ to: "pay", signal: leaving.signal }), { name: "AbortError" });
  assert.equal(asked.length, 1);
});

test("a call that hangs is made again, and ended", async () => {
  let calls = 0;
  const hanging: typeof fetch = (_, init) =>
    new Promise((_done, fail) => {
      calls += 1;
      init?.signal?.addEventListener("abort", () => fail(init.signal?.reason));
    });
  const retry = { ...QUICK, attemptsMax: 2, timeoutMs: 20 };
  const once = new Onceward({ fetch: hanging, retry });
  await assert.rejects(once.send({ to: "pay" }), UnreachableError);
  assert.equal(calls, 2);
});

const ALIEN = { message: "bad gateway" };

test("only what the gateway says is an answer of the API's", async () => {
  for (const status of [200, 404, 500]) {
    const answers = Array.from({ length: 5 }, () => Response.json(ALIEN, { status }));
    const once = new Onceward({ fetch: scripted(answers).fetch, retry: QUICK });
    const mails = once.claims("mails");
    for (const ask of [
      () => mails.complete("a", 7, 1),
      () => mails.renew("a", 7),
      () => mails.get("a"),
      () => once.operation("op_1"),
      () => once.response("op_1"),
    ]) {
      await assert.rejects(ask, { name: "AnswerUnreadableError", advice: "escalate" });
    }
  }
  const { fetch } = scripted([claim("acquired"), new Response("<html>")]);
  const mails = new Onceward({ fetch, retry: QUICK }).claims("mails");
  for (let n = 0; n < 2; n += 1) {
    await assert.rejects(mails.complete("a", 7, 1), { name: "AnswerUnreadableError" });
  }
});

test("a claim is told again behind a proxy that is there alone", async () => {
  const { fetch, asked } = scripted([new Response("<html>", { status: 502 }), claim("done")]);
  const mails = new Onceward({ fetch, retry: QUICK }).claims("mails");
  assert.equal((await mails.complete("a", 7, 1)).status, "done");
  assert.equal(asked.length, 2);
});

test("what makes something new is posted again under one key, or not at all", async () => {
  const post = async (answers: (Response | Error)[], path: string, body: unknown) => {
    const { fetch, asked } = scripted(answers);
    const once = new Onceward({ fetch, retry: QUICK });
    const told = await once.ask("POST", path, body).catch((error: unknown) => error);
    return { told, keys: asked.map((request) => request.headers.get("idempotency-key")) };
  };
  const lost = () => [new TypeError("lost"), new Response("", { status: 502 }), Response.json({})];
  for (const path of ["events", "sagas", "operations", "operations/op_1/resend"]) {
    const { told, keys } = await post(lost(), `/v1/${path}`, {});
    assert.deepEqual([told, keys.length, new Set(keys).size], [{}, 3, 1], path);
    assert.ok(keys[0]);
  }
  const named = await post(lost(), "/v1/events", { key: "k" });
  assert.deepEqual(named, { told: {}, keys: [null, null, null] });
  for (const answer of [new TypeError("lost"), Response.json(ALIEN, { status: 502 })]) {
    const { told, keys } = await post([answer], "/v1/bulk", {});
    assert.equal((told as Error).name, "OutcomeUnknownError");
    assert.equal(keys.length, 1);
  }
  const advised = [refusal(503, "same-key", "draining"), Response.json({})];
  assert.equal((await post(advised, "/v1/bulk", {})).keys.length, 2);
});

test("a proxy's answer that is left at the end is no answer", async () => {
  const away = Array.from({ length: 10 }, () => new Response("<html>", { status: 502 }));
  const once = new Onceward({ fetch: scripted(away).fetch, retry: QUICK });
  const odd = scripted([Response.json(ALIEN, { status: 500 })]);
  const call = { to: "pay", key: "k" };
  for (const make of [
    () => once.send(call),
    () => once.accept(call),
    () => new Onceward({ fetch: odd.fetch }).accept(call),
  ]) {
    await assert.rejects(make, { name: "UnreachableError", advice: "same-key", key: "k" });
  }
});

test("a key that is given as a header is told as the gateway reads it", async () => {
  const once = new Onceward({ fetch: scripted([]).fetch });
  const given = (field: string) => ({ to: "pay", headers: { "idempotency-key": field } });
  assert.equal((await once.send(given('"a \\"b\\""'))).key, 'a "b"');
  await assert.rejects(once.send(given("a, b")), TypeError);
});

test("an upstream's own problem is its answer", async () => {
  const own = new Response('{"type":"urn:onceward:problem:limit"}', {
    status: 422,
    headers: { "content-type": "application/problem+json", "onceward-operation": "op_1" },
  });
  const { fetch } = scripted([own]);
  assert.equal((await new Onceward({ fetch }).send({ to: "pay" })).status, 422);
});

test("a call says who makes it and what it wants", async () => {
  const { fetch, asked } = scripted([]);
  const once = new Onceward({ fetch, url: "http://gateway/once/", accessKey: "ow_1" });
  await once.send({
    to: "pay",
    path: "/charges?a=1",
    key: 'with "quotes"',
    label: "charge",
    subject: "order/1",
    sequence: 2,
    delayMs: 90_500,
    headers: { authorization: "Bearer sk_1" },
    body: new URLSearchParams({ a: "1" }),
  });
  const [request] = asked;
  assert.ok(request);
  assert.equal(request.url, "http://gateway/once/to/pay/charges?a=1");
  const { headers } = request;
  assert.equal(headers.get("idempotency-key"), '"with \\"quotes\\""');
  assert.equal(headers.get("onceward-authorization"), "Bearer ow_1");
  assert.equal(headers.get("authorization"), "Bearer sk_1");
  assert.equal(headers.get("user-agent"), `onceward-js/${VERSION}`);
  assert.equal(headers.get("onceward-delay"), "1m 30s 500ms");
  assert.equal(headers.get("onceward-sequence"), "2");
  assert.equal(headers.get("content-type"), "application/x-www-form-urlencoded;charset=UTF-8");
});

test("an address that a URL's rules would change is refused before anything is sent", async () => {
  const { fetch, asked } = scripted([]);
  const once = new Onceward({ fetch });
  for (const to of ["", "pay/../../v1/access", "pay/%2e%2E/x", "pay/a#b", "pay\\x", "pay/a b"]) {
    await assert.rejects(once.send({ to }), TypeError, to);
  }
  await assert.rejects(once.send({ to: "pay", path: "charges" }), /begin with a slash/);
  await assert.rejects(once.send({ to: "pay", key: "" }), /it is empty/);
  await assert.rejects(once.send({ to: "pay", body: new FormData() }), /not the same bytes/);
  assert.equal(asked.length, 0);
});

test("an address of a gateway has no password, and no wait is without an end", async () => {
  assert.throws(() => new Onceward({ url: "http://anna:s3cret@gateway" }), /access/i);
  const { fetch, asked } = scripted([]);
  const once = new Onceward({ fetch });
  await assert.rejects(once.accept({ to: "pay" }, { waitMs: Number.POSITIVE_INFINITY }), TypeError);
  assert.equal(asked.length, 0);
});

test("an operation is waited for no longer than was said, whatever its looks take", async () => {
  const hanging: typeof fetch = (_, init) =>
    new Promise((_done, fail) => {
      // Nothing else holds this process.
      const alive = setInterval(() => {}, 10);
      init?.signal?.addEventListener("abort", () => {
        clearInterval(alive);
        fail(init.signal?.reason);
      });
    });
  const once = new Onceward({ fetch: hanging });
  await assert.rejects(once.wait("op_1", { timeoutMs: 0 }), {
    name: "UnreachableError",
    message: /within 1000 ms/,
  });
});

test("a URL of an upstream stands in the place of a route", async () => {
  const { fetch, asked } = scripted([]);
  await new Onceward({ fetch }).send({ to: "https://api.example/a", path: "?b=1" });
  assert.equal(asked[0]?.url, "http://127.0.0.1:7077/to/https://api.example/a?b=1");
});

test("keys, durations and dates are written and read as the gateway does", () => {
  assert.notEqual(newKey(), newKey());
  for (const key of ["a", 'a "b" \\c', "a,b", "order/1"]) assert.equal(readKey(keyField(key)), key);
  for (const field of ["", '"a', 'a"b', "a b", "a, b", "é", "x".repeat(256)]) {
    assert.equal(readKey(field), undefined, field);
  }
  assert.equal(readKey(' "a" ;x=1'), "a");
  assert.equal(duration(0), "0ms");
  assert.equal(duration(3 * 86_400_000 + 5), "3d 5ms");
  for (const ms of [0, 5, 90_500, 3 * 86_400_000 + 5]) assert.equal(readDuration(duration(ms)), ms);
  for (const text of ["", "5", "s", "5y", null]) assert.equal(readDuration(text), undefined);
  const now = Date.parse("2026-01-01T00:00:00Z");
  const wait = (text: string) => retryAfterMs(new Headers({ "retry-after": text }), now);
  assert.equal(wait("7"), 7000);
  assert.equal(wait("Thu, 01 Jan 2026 00:00:09 GMT"), 9000);
  assert.equal(wait("Wed, 31 Dec 2025 00:00:00 GMT"), 0);
  assert.equal(wait("soon"), undefined);
});
