/** One line for code that has a client already, against a real gateway. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import axios from "axios";
import { Onceward, onceAxios, onceFetch } from "../src/index.js";
import { fresh, Gateway } from "./world.js";

const API = "https://api.example";
const RETRY = { baseMs: 1, capMs: 5 };

let gateway: Gateway;
let client: Onceward;
before(async () => {
  gateway = await Gateway.start();
  client = new Onceward({ url: gateway.url, retry: RETRY });
});
after(() => gateway.stop());

const charged = async () =>
  (await client.send({ to: "demo/effects", method: "GET" })).json<{ count: number }>().count;

test("a fetch goes through the gateway, and what fails on the way comes to one effect", async () => {
  const fetch = onceFetch({ client, routes: { [API]: "demo" } });
  const earlier = await charged();
  const script = "503,503,503,drop,201";
  const init = {
    method: "POST",
    body: JSON.stringify({ qty: 1 }),
    headers: { "idempotency-key": fresh("k") },
  };
  const first = await fetch(`${API}/orders?script=${script}`, init);
  assert.equal(first.status, 201);
  assert.equal((await charged()) - earlier, 1);
  const second = await fetch(new Request(`${API}/orders?script=${script}`, init));
  assert.equal(second.headers.get("idempotent-replayed"), "true");
  assert.equal(await second.text(), await first.text());
});

test("a fetch to anywhere else is left alone", async () => {
  const fetch = onceFetch({ client, routes: { [API]: "demo" } });
  const response = await fetch(`${gateway.url}/healthz`);
  assert.equal(response.status, 200);
  assert.equal(response.headers.has("onceward-operation"), false);
});

test("the key of a fetch can be made of what it is about", async () => {
  const key = fresh("cart");
  const fetch = onceFetch({
    client,
    routes: { [API]: "demo" },
    key: ({ url }) => `${key}${url.pathname}`,
  });
  const send = () => fetch(`${API}/orders`, { method: "POST", body: "a" });
  assert.equal((await send()).headers.get("idempotency-key"), `${key}/orders`);
  assert.equal((await send()).headers.get("idempotent-replayed"), "true");
});

test("a refusal of the gateway's is a response, with its advice", async () => {
  const fetch = onceFetch({ client, routes: { [API]: "nowhere" } });
  const response = await fetch(`${API}/orders`, { method: "POST", body: "a" });
  assert.equal(response.status, 404);
  assert.equal(response.headers.get("onceward-advice"), "fix-request");
});

test("a fetch throws as it always does where nothing answers", async () => {
  const away = new Onceward({ url: "http://127.0.0.1:1", retry: { ...RETRY, attemptsMax: 2 } });
  const fetch = onceFetch({ client: away, routes: { [API]: "demo" } });
  await assert.rejects(fetch(`${API}/orders`, { method: "POST", body: "a" }), TypeError);
});

test("a stream is passed on for as long as it comes", async () => {
  const slow: typeof globalThis.fetch = async (_, init) => {
    const body = new ReadableStream({
      async start(stream) {
        for (const piece of ["a", "b", "c"]) {
          await new Promise((next) => setTimeout(next, 30));
          if (init?.signal?.aborted) return stream.error(init.signal.reason);
          stream.enqueue(new TextEncoder().encode(piece));
        }
        stream.close();
      },
    });
    return new Response(body, { headers: { "onceward-operation": "op_1" } });
  };
  const impatient = new Onceward({ fetch: slow, retry: { timeoutMs: 20 } });
  const fetch = onceFetch({ client: impatient, routes: { [API]: "demo" } });
  assert.equal(await (await fetch(`${API}/chat`, { method: "POST", body: "a" })).text(), "abc");
});

test("an axios goes through the gateway, and what fails on the way comes to one effect", async () => {
  const api = onceAxios(axios.create({ baseURL: API }), { client, routes: { [API]: "demo" } });
  const earlier = await charged();
  const config = {
    params: { script: "503,503,503,drop,201" },
    headers: { "Idempotency-Key": fresh("k") },
  };
  const first = await api.post("/orders", { qty: 1 }, config);
  assert.equal(first.status, 201);
  assert.equal(first.data.charged, true);
  assert.equal((await charged()) - earlier, 1);
  const second = await api.post("/orders", { qty: 1 }, config);
  assert.equal(second.headers["idempotent-replayed"], "true");
  assert.deepEqual(second.data, first.data);
});

test("an axios without a key has one made, and one that reads has none", async () => {
  const api = onceAxios(axios.create({ baseURL: API }), { client, routes: { [API]: "demo" } });
  const written = await api.post("/orders", { qty: 1 });
  assert.match(written.headers["idempotency-key"], /^[0-9a-f-]{36}$/);
  assert.equal(written.headers["onceward-key-made"], undefined);
  assert.equal((await api.get("/effects")).headers["idempotency-key"], undefined);
});

test("an axios throws as it always does where the gateway refuses", async () => {
  const api = onceAxios(axios.create({ baseURL: API }), {
    client,
    routes: { [API]: "demo-unsafe" },
  });
  await assert.rejects(api.post("/orders?script=drop", "a"), (error) => {
    assert.ok(axios.isAxiosError(error));
    assert.equal(error.response?.status, 504);
    assert.equal(error.response?.data.code, "outcome-unknown");
    return true;
  });
});

test("an axios to anywhere else is left alone", async () => {
  const api = onceAxios(axios.create(), { client, routes: { [API]: "demo" } });
  assert.equal((await api.get(`${gateway.url}/healthz`)).status, 200);
});
