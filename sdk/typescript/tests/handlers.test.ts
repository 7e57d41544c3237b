/** Handlers of one's own that run once for a key, on a real gateway's ledger. */

import assert from "node:assert/strict";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { after, afterEach, before, describe, test } from "node:test";
import express, { type Request as Asked, type Response as Told } from "express";
import { onceExpress } from "../src/express.js";
import { type HandlerOptions, NotDoneError, Onceward, onceHandler } from "../src/index.js";
import { FakeGateway } from "../src/testing.js";
import { refusal } from "./scripted.js";
import { fresh, Gateway } from "./world.js";

const RETRY = { baseMs: 1, capMs: 5, attemptsMax: 2 };

let gateway: Gateway;
let ofGateway: Onceward;
/** Whose ledger the handlers are on. */
let client: Onceward;
before(async () => {
  gateway = await Gateway.start();
  ofGateway = new Onceward({ url: gateway.url, retry: RETRY });
  client = ofGateway;
});
after(() => gateway.stop());

/** What a handler does in a test: it answers, or throws. */
type Effect = (
  run: number,
) => Promise<{ status: number; body: string; headers?: Record<string, string> }>;

interface Api {
  runs: number;
  post(key: string | undefined, body?: string, headers?: Record<string, string>): Promise<Response>;
  close(): void;
}

type Start = (effect: Effect, options?: Partial<HandlerOptions<never>>) => Promise<Api>;

/** The same handler behind Express. */
const byExpress: Start = async (effect, options = {}) => {
  const app = express();
  app.use(express.json());
  app.use(onceExpress({ client, scope: "orders", ...options } as unknown as HandlerOptions<Asked>));
  const api = { runs: 0 } as Api;
  app.post("/orders", async (_: Asked, response: Told) => {
    api.runs += 1;
    const { status, body, headers = {} } = await effect(api.runs);
    response.status(status).set({ "x-other": "1", ...headers });
    response.write(body.slice(0, 3));
    response.end(body.slice(3));
  });
  app.use((error: Error, _: Asked, response: Told, __: unknown) => {
    response.status(500).json({ error: error.message });
  });
  const server = await new Promise<Server>((up) => {
    const starting: Server = app.listen(0, "127.0.0.1", () => up(starting));
  });
  const { port } = server.address() as AddressInfo;
  api.post = (key, body = '{"qty":1}', headers = {}) => {
    const all: Record<string, string> = { "content-type": "application/json", ...headers };
    if (key !== undefined) all["idempotency-key"] = key;
    return fetch(`http://127.0.0.1:${port}/orders`, { method: "POST", body, headers: all });
  };
  api.close = () => {
    server.closeAllConnections();
    server.close();
  };
  return api;
};

/** The same handler as a function of a request. */
const byFetch: Start = async (effect, options = {}) => {
  const api = { runs: 0, close: () => {} } as Api;
  const handler = onceHandler(
    { client, scope: "orders", ...options } as HandlerOptions<Request>,
    async (request) => {
      assert.equal(await request.text(), '{"qty":1}'.slice(0, 9));
      api.runs += 1;
      const { status, body, headers = {} } = await effect(api.runs);
      return new Response(body, { status, headers: { "x-other": "1", ...headers } });
    },
  );
  api.post = async (key, body = '{"qty":1}', headers = {}) => {
    const all: Record<string, string> = { "content-type": "application/json", ...headers };
    if (key !== undefined) all["idempotency-key"] = key;
    try {
      return await handler(
        new Request("http://api/orders", { method: "POST", body, headers: all }),
      );
    } catch (error) {
      return Response.json({ error: (error as Error).message }, { status: 500 });
    }
  };
  return api;
};

const created: Effect = async (run) => ({
  status: 201,
  body: JSON.stringify({ order: run }),
  headers: { location: `/orders/${run}`, "content-type": "application/json" },
});

function handlers(name: string, start: Start, clientOf: () => Onceward) {
  describe(name, () => {
    before(() => {
      client = clientOf();
    });
    after(() => {
      client = ofGateway;
    });
    const open: Api[] = [];
    const started: Start = async (effect, options) => {
      const api = await start(effect, options);
      open.push(api);
      return api;
    };
    afterEach(() => {
      for (const api of open.splice(0)) api.close();
    });

    test("a handler runs once, and a duplicate gets its answer", async () => {
      const api = await started(created);
      const key = fresh("k");
      const first = await api.post(key);
      assert.equal(first.status, 201);
      assert.equal(first.headers.get("idempotent-replayed"), "false");
      assert.equal(first.headers.get("x-other"), "1");
      const second = await api.post(key);
      assert.equal(second.status, 201);
      assert.equal(second.headers.get("idempotent-replayed"), "true");
      assert.equal(second.headers.get("location"), "/orders/1");
      assert.equal(second.headers.get("content-type"), first.headers.get("content-type"));
      assert.equal(second.headers.get("idempotency-key"), key);
      assert.equal(await second.text(), await first.text());
      assert.equal(api.runs, 1);
    });

    test("who comes while it runs waits for its answer", async () => {
      let go = () => {};
      const gate = new Promise<void>((opened) => {
        go = opened;
      });
      const api = await started(async (run) => {
        await gate;
        return created(run);
      });
      const key = fresh("k");
      const both = [api.post(key), api.post(key)];
      go();
      const [a, b] = await Promise.all(both);
      assert.equal(await a?.text(), await b?.text());
      assert.equal(api.runs, 1);
    });

    test("the same key with another request is refused", async () => {
      const api = await started(created);
      const key = fresh("k");
      await api.post(key);
      const other = await api.post(key, '{"qty":2}');
      assert.equal(other.status, 409);
      const said = (await other.json()) as Record<string, unknown>;
      assert.equal(said["code"], "key-mismatch");
      assert.equal(said["operation"], undefined, "where it lies is none of a caller's business");
      assert.equal(api.runs, 1);
    });

    test("what has no key passes by, or is refused where one is wanted", async () => {
      const lax = await started(created);
      assert.equal((await lax.post(undefined)).status, 201);
      assert.equal((await lax.post(undefined)).status, 201);
      assert.equal(lax.runs, 2);
      const strict = await started(created, { keyMissing: "require" });
      assert.equal((await strict.post(undefined)).status, 400);
      assert.equal((await strict.post("a b")).status, 400);
      assert.equal(strict.runs, 0);
    });

    test("keys of one caller are nothing to another", async () => {
      const principal = (request: { headers: unknown }) => {
        const { headers } = request as { headers: Headers | Record<string, string> };
        return headers instanceof Headers
          ? (headers.get("x-user") ?? undefined)
          : headers["x-user"];
      };
      const api = await started(created, { principal } as Partial<HandlerOptions<never>>);
      const key = fresh("k");
      for (const user of ["anna", "otto", "anna", "a/b"])
        await api.post(key, undefined, { "x-user": user });
      assert.equal(api.runs, 3);
      await api.post(`anna/${key}`);
      assert.equal(api.runs, 4, "who has no name gets nobody's answer");
    });

    test("a handler that fails is in doubt where a second run is a second effect", async () => {
      const fail: Effect = async (run) => {
        if (run === 1) throw new Error("who knows");
        return created(run);
      };
      const api = await started(fail);
      const key = fresh("k");
      assert.equal((await api.post(key)).status, 500);
      const again = await api.post(key);
      assert.equal(again.status, 409);
      assert.equal(((await again.json()) as { code: string }).code, "outcome-unknown");
      assert.equal(api.runs, 1);
      const harmless = await started(fail, { effects: "idempotent" });
      const other = fresh("k");
      assert.equal((await harmless.post(other)).status, 500);
      assert.equal((await harmless.post(other)).status, 201);
    });

    test("an answer that says that nothing was done frees the key", async () => {
      const api = await started(async (run) =>
        run === 1 ? { status: 429, body: "busy" } : created(run),
      );
      const key = fresh("k");
      const first = await api.post(key);
      assert.equal(first.status, 429);
      assert.equal(first.headers.get("onceward-advice"), "same-key");
      assert.equal((await api.post(key)).status, 201);
    });

    test("an answer that is too large is given once, and known to be gone after", async () => {
      const large = "x".repeat(100_000);
      const api = await started(async () => ({ status: 200, body: large }), {
        responseBytesMax: 1000,
      });
      const key = fresh("k");
      assert.equal(await (await api.post(key)).text(), large);
      const again = await api.post(key);
      assert.equal(((await again.json()) as { code: string }).code, "response-not-retained");
      assert.equal(api.runs, 1);
    });

    test("a body that is too large is refused before anything runs", async () => {
      const api = await started(created, { bodyBytesMax: 4 });
      assert.equal((await api.post(fresh("k"))).status, 413);
      assert.equal(api.runs, 0);
    });

    test("what the ledger will not take of a handler is unknown, and in doubt at once", async () => {
      const gateway = new FakeGateway();
      const refusing: typeof fetch = async (input, init) => {
        const isEnd = String(input).endsWith("/complete");
        return isEnd ? refusal(413, "fix-request", "body-too-large") : gateway.fetch(input, init);
      };
      const api = await started(created, { client: new Onceward({ fetch: refusing }) });
      const key = fresh("k");
      for (const status of [504, 409]) {
        const answer = await api.post(key);
        assert.equal(answer.status, status);
        assert.equal(answer.headers.get("onceward-advice"), "escalate");
        assert.equal(((await answer.json()) as { code: string }).code, "outcome-unknown");
      }
      assert.equal(api.runs, 1);
    });

    test("a handler that was given up meanwhile is told as that", async () => {
      const gateway = new FakeGateway();
      const own = new Onceward({ fetch: gateway.fetch });
      const key = fresh("k");
      const slow: Effect = async (run) => {
        gateway.lapse("orders", key);
        await own.claims("orders").begin(key);
        return created(run);
      };
      const api = await started(slow, { client: own, effects: "idempotent" });
      const answer = await api.post(key);
      assert.equal(answer.status, 409);
      assert.equal(((await answer.json()) as { code: string }).code, "fence-stale");
    });

    test("where the ledger is away nothing runs", async () => {
      const away = new Onceward({ url: "http://127.0.0.1:1", retry: { attemptsMax: 1 } });
      const api = await started(created, { client: away });
      const answer = await api.post(fresh("k"));
      assert.equal(answer.status, 503);
      assert.equal(answer.headers.get("onceward-advice"), "same-key");
      assert.equal(api.runs, 0);
    });
  });
}

for (const [name, start] of [
  ["Express", byExpress],
  ["a fetch-style handler", byFetch],
] as const) {
  handlers(name, start, () => ofGateway);
  // What holds of the gateway holds of its double.
  handlers(`${name}, on the double`, start, () => {
    return new Onceward({ fetch: new FakeGateway().fetch, retry: RETRY });
  });
}

test("a handler that knows that nothing was done says so by what it throws", async () => {
  let runs = 0;
  const handler = onceHandler({ client, scope: "orders" }, () => {
    runs += 1;
    if (runs === 1) throw new NotDoneError("the bank is closed");
    return new Response("done");
  });
  const key = fresh("k");
  const ask = () =>
    handler(new Request("http://api/", { method: "POST", headers: { "idempotency-key": key } }));
  await assert.rejects(ask(), NotDoneError);
  assert.equal(await (await ask()).text(), "done");
});

test("a caller that hangs up breaks off nothing that the handler does by its request", async () => {
  const caller = new AbortController();
  const handler = onceHandler({ client, scope: "orders" }, async (request) => {
    caller.abort();
    request.signal.throwIfAborted();
    return new Response("done");
  });
  const ask = (signal: AbortSignal | null) => {
    const headers = { "idempotency-key": key };
    return handler(new Request("http://api/", { method: "POST", headers, signal }));
  };
  const key = fresh("k");
  await ask(caller.signal);
  const again = await ask(null);
  assert.equal(again.headers.get("idempotent-replayed"), "true");
  assert.equal(await again.text(), "done");
});

test("a body that nobody has read is told, with the mend", async () => {
  const app = express();
  app.use(onceExpress({ client, scope: "orders" }));
  app.use((error: Error, _: Asked, response: Told, __: unknown) => {
    response.status(500).send(error.message);
  });
  const server = await new Promise<Server>((up) => {
    const starting: Server = app.listen(0, "127.0.0.1", () => up(starting));
  });
  const { port } = server.address() as AddressInfo;
  const headers = { "idempotency-key": fresh("k") };
  const answer = await fetch(`http://127.0.0.1:${port}/`, { method: "POST", body: "a", headers });
  assert.match(await answer.text(), /put express\.json\(\)/);
  server.closeAllConnections();
  server.close();
});
