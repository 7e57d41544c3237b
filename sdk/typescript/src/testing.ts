/**
 * A gateway in memory, for tests: no server, no disk, the same answers. It has the two scripted
 * upstreams of `onceward serve` (`demo` and `demo-unsafe`, with `?script=503,drop,201`), and whatever
 * routes a test gives it.
 *
 * ```ts
 * const gateway = new FakeGateway();
 * const onceward = new Onceward({ fetch: gateway.fetch });
 * ```
 *
 * It has no time: pauses between attempts are none, leases end where a test says so, and windows
 * never do; only a key that is given back for later is free no earlier than that.
 *
 * @module
 */

import { meaning } from "./handling.js";
import { isSafe, newKey, readKey } from "./keys.js";
import type { Advice, Effects, OperationStory, State } from "./shapes.js";
import { FakeClaims } from "./testing/claims.js";
import { refuse } from "./testing/refuse.js";
import { fromBase64, sha256, toBase64 } from "./units.js";

/** A request as an upstream gets it. */
export interface UpstreamRequest {
  method: string;
  /** Path and query. */
  path: string;
  headers: Headers;
  body: Uint8Array<ArrayBuffer>;
}

/** What an upstream does: it answers, or throws where no answer comes. */
export type Upstream = (request: UpstreamRequest) => Response | Promise<Response>;

/** A route of the double. */
export interface FakeRoute {
  upstream: Upstream;
  /** What a second arrival would do; by the method where nothing is said. */
  effects?: Effects;
}

/** Thrown by an upstream that was not reached: provably nothing was sent. */
export class UnsentError extends Error {}

/** Attempts for a caller who waits, and for nobody. */
const HELD_MAX = 3;
const ACCEPTED_MAX = 12;

type Bytes = Uint8Array<ArrayBuffer>;

interface Kept {
  status: number;
  headers: [string, string][];
  body: Bytes;
}

interface Operation {
  id: string;
  route: string;
  key: string;
  fingerprint: string;
  parts: Record<string, string>;
  request: UpstreamRequest;
  effects: Effects;
  mode: "held" | "accepted";
  state: State;
  attempts: { status: number | null; isUnsent: boolean; mayHaveExecuted: boolean }[];
  outcome: Kept | undefined;
  /** The last answer, which is none to keep. */
  last: Kept | undefined;
  told: boolean;
  running: Promise<void> | undefined;
}

const KEPT = new Set([
  "content-type",
  "location",
  "etag",
  "link",
  "content-encoding",
  "last-modified",
]);

/** A gateway in memory. */
export class FakeGateway {
  readonly #routes = new Map<string, FakeRoute>();
  readonly #operations = new Map<string, Operation>();
  readonly #byKey = new Map<string, Operation>();
  readonly #claims = new FakeClaims(() => this.#newOperation());
  #made = 0;

  constructor(options: { routes?: Record<string, FakeRoute> } = {}) {
    this.#routes.set("demo", { upstream: demo(true), effects: "keyed" });
    this.#routes.set("demo-unsafe", { upstream: demo(false), effects: "non-idempotent" });
    for (const [name, route] of Object.entries(options.routes ?? {})) this.#routes.set(name, route);
  }

  /** What a client is given in the place of `fetch`. */
  readonly fetch: typeof fetch = async (input, init) => {
    const request = new Request(input, init);
    request.signal.throwIfAborted();
    const body = new Uint8Array(await request.arrayBuffer());
    const url = new URL(request.url);
    if (url.pathname.startsWith("/to/")) return this.#call(request, url, body);
    const [, version, kind, ...rest] = url.pathname.split("/").map(decodeURIComponent);
    if (version === "v1" && kind === "operations" && rest[0] !== undefined) {
      return this.#tell(rest[0], rest[1]);
    }
    if (version === "v1" && kind === "claims" && rest.length >= 2) {
      const words = body.length > 0 ? JSON.parse(new TextDecoder().decode(body)) : {};
      return this.#claims.answer(rest[0] ?? "", rest[1] ?? "", rest[2], words);
    }
    return refuse(
      "not-found",
      404,
      "fix-request",
      "There is no such thing",
      "It is not in the double.",
    );
  };

  /** Waits until nothing is under way. */
  async settled(): Promise<void> {
    for (const operation of this.#operations.values()) await operation.running;
  }

  /** Says what became of an operation in doubt, as a person does. */
  resolve(
    id: string,
    as: "done" | "not-sent",
    answer: { status?: number; body?: string } = {},
  ): void {
    const operation = this.#operations.get(id);
    if (operation?.state !== "in_doubt") throw new Error(`${id} is not in doubt`);
    if (as === "not-sent") {
      operation.state = "dead";
      operation.last = undefined;
      return;
    }
    operation.state = "done";
    operation.outcome = {
      status: answer.status ?? 200,
      headers: [],
      body: new TextEncoder().encode(answer.body ?? ""),
    };
  }

  /** Ends the lease of a claim, as time does. */
  lapse(scope: string, key: string): void {
    this.#claims.lapse(scope, key);
  }

  async #call(request: Request, url: URL, body: Bytes): Promise<Response> {
    const [name = "", ...rest] = url.pathname.slice("/to/".length).split("/");
    const route = this.#routes.get(name);
    if (!route) {
      const detail = `No route is called ${JSON.stringify(name)}.`;
      return refuse("route-unknown", 404, "fix-request", "There is no such route", detail);
    }
    const headers = new Headers();
    for (const [header, value] of request.headers) {
      if (!header.startsWith("onceward-") && header !== "prefer") headers.append(header, value);
    }
    const asked = {
      method: request.method,
      path: `/${rest.join("/")}${url.search}`,
      headers,
      body,
    };
    const field = request.headers.get("idempotency-key");
    if (isSafe(request.method) && field === null) return route.upstream(asked);
    const key = field === null ? newKey() : readKey(field);
    if (key === undefined) {
      const detail = "Nothing was sent.";
      return refuse(
        "key-invalid",
        400,
        "fix-request",
        "The idempotency key cannot be read",
        detail,
      );
    }
    if (field === null) headers.set("idempotency-key", key);
    const isAccepted = /\brespond-async\b/.test(request.headers.get("prefer") ?? "");
    const waits = /\bwait=\d/.test(request.headers.get("prefer") ?? "");
    const parts = {
      method: request.method,
      path: url.pathname,
      query: url.search,
      "content-type": headers.get("content-type") ?? "",
      body: await sha256(body),
    };
    const fingerprint = JSON.stringify(parts);
    let operation = this.#byKey.get(`${name}/${key}`);
    const isKnown = operation !== undefined;
    if (operation && operation.fingerprint !== fingerprint) return mismatch(operation, parts);
    if (!operation) {
      operation = this.#remember(name, key, route, asked, parts, isAccepted);
    }
    const mayRun =
      operation.state === "pending" || (operation.state === "dead" && !operation.outcome);
    if (mayRun && !operation.running) this.#run(operation, route, isAccepted);
    const isRemembered = operation.state === "delivering" && isAccepted && !waits;
    if (isRemembered) return answerOf({ ...operation }, true, false, field === null);
    await operation.running;
    return answerOf(operation, isAccepted, isKnown && !mayRun, field === null);
  }

  #newOperation(): string {
    this.#made += 1;
    return `op_0${this.#made.toString().padStart(25, "0")}`;
  }

  #remember(
    route: string,
    key: string,
    { effects }: FakeRoute,
    request: UpstreamRequest,
    parts: Record<string, string>,
    isAccepted: boolean,
  ): Operation {
    const byMethod = ["PUT", "DELETE"].includes(request.method) ? "idempotent" : "non-idempotent";
    const operation: Operation = {
      id: this.#newOperation(),
      route,
      key,
      fingerprint: JSON.stringify(parts),
      parts,
      request,
      effects: effects ?? byMethod,
      mode: isAccepted ? "accepted" : "held",
      state: "pending",
      attempts: [],
      outcome: undefined,
      last: undefined,
      told: false,
      running: undefined,
    };
    this.#operations.set(operation.id, operation);
    this.#byKey.set(`${route}/${key}`, operation);
    return operation;
  }

  #run(operation: Operation, route: FakeRoute, isAccepted: boolean): void {
    operation.state = "delivering";
    operation.told = !isAccepted;
    const done = this.#deliver(operation, route, isAccepted ? ACCEPTED_MAX : HELD_MAX);
    operation.running = done.finally(() => {
      operation.running = undefined;
    });
  }

  async #deliver(operation: Operation, route: FakeRoute, attemptsMax: number): Promise<void> {
    const isHarmless = operation.effects !== "non-idempotent";
    for (let attempt = 1; ; attempt += 1) {
      const met = await meet(route.upstream, operation.request);
      const means = met.kept ? meaning(met.kept.status, hasRetryAfter(met.kept)) : "ambiguous";
      operation.last = met.kept;
      operation.attempts.push({
        status: met.kept?.status ?? null,
        isUnsent: met.isUnsent,
        mayHaveExecuted: !met.isUnsent && means !== "refused",
      });
      if (met.kept && means === "final") {
        operation.outcome = met.kept;
        const isDeadLetter = operation.mode === "accepted" && met.kept.status >= 400;
        operation.state = isDeadLetter ? "dead" : "done";
        return;
      }
      const isNotProcessed = met.isUnsent || [408, 421, 425, 429].includes(met.kept?.status ?? 0);
      const mayRunAgain = isNotProcessed || (means === "ambiguous" && isHarmless);
      if (mayRunAgain && attempt < attemptsMax) continue;
      const isOpen = !isNotProcessed && means === "ambiguous" && !isHarmless;
      operation.state = isOpen ? "in_doubt" : "dead";
      return;
    }
  }

  #tell(id: string, part: string | undefined): Response {
    const operation = this.#operations.get(id);
    if (!operation) {
      const detail = `No operation ${id} is in the ledger.`;
      return refuse("not-found", 404, "fix-request", "There is no such thing", detail);
    }
    if (part === undefined) return Response.json(storyOf(operation));
    const kept = operation.outcome ?? operation.last;
    if (part !== "response" || !kept) {
      return refuse("no-outcome", 404, "wait", "There is no answer to show", "It has none yet.");
    }
    const { status, headers, body } = kept;
    return Response.json({
      status,
      headers,
      body: new TextDecoder().decode(body),
      body_base64: null,
    });
  }
}

async function meet(
  upstream: Upstream,
  request: UpstreamRequest,
): Promise<{ kept: Kept | undefined; isUnsent: boolean }> {
  try {
    const response = await upstream({ ...request, headers: new Headers(request.headers) });
    const body = new Uint8Array(await response.arrayBuffer());
    return {
      kept: { status: response.status, headers: [...response.headers], body },
      isUnsent: false,
    };
  } catch (error) {
    return { kept: undefined, isUnsent: error instanceof UnsentError };
  }
}

function hasRetryAfter(kept: Kept): boolean {
  return kept.headers.some(([name]) => name === "retry-after");
}

function mismatch(operation: Operation, parts: Record<string, string>): Response {
  const differs = Object.keys(parts).filter((part) => parts[part] !== operation.parts[part]);
  const detail = `It differs in: ${differs.join(", ")}. Nothing was sent; a new intent needs a new key.`;
  const title = "The key was used for another request";
  return refuse("key-mismatch", 409, "new-key", title, detail, {
    differs,
    paths: [],
    operation: operation.id,
  });
}

/** What whoever asks is answered, by where the operation stands. */
function answerOf(
  operation: Operation,
  isAccepted: boolean,
  isReplay: boolean,
  isMade: boolean,
): Response {
  const { state, outcome, last, key, id } = operation;
  const headers = new Headers({
    "onceward-operation": id,
    "onceward-state": state,
    "onceward-attempts": String(operation.attempts.length),
    "idempotency-key": key,
  });
  if (isMade) headers.set("onceward-key-made", "true");
  const advice = adviceOf(operation);
  if (advice) headers.set("onceward-advice", advice);
  const kept = outcome ?? (isReplay && state === "in_doubt" ? undefined : last);
  if ((state === "pending" || state === "delivering") && isAccepted) {
    headers.set("location", `/v1/operations/${id}`);
    headers.set("idempotent-replayed", "false");
    return Response.json(storyOf(operation), { status: 202, headers });
  }
  if (state === "in_doubt" && !kept) {
    headers.set("idempotent-replayed", "false");
    const title = "Nobody knows whether it was done";
    const detail = "The request was sent and no answer says whether it was done.";
    const status = isReplay ? 409 : 504;
    return refuse(
      "outcome-unknown",
      status,
      "escalate",
      title,
      detail,
      { operation: id, state },
      headers,
    );
  }
  if (!kept) {
    const isUnsent = operation.attempts.every((attempt) => attempt.isUnsent);
    headers.set("retry-after", "1");
    headers.set("idempotent-replayed", "false");
    return isUnsent
      ? refuse(
          "upstream-unreachable",
          503,
          "same-key",
          "The upstream was not reached; nothing was sent",
          "No attempt sent anything.",
          { operation: id, state },
          headers,
        )
      : refuse(
          "no-answer",
          504,
          "same-key",
          "The upstream gave no answer",
          "The same key goes on under the same operation.",
          { operation: id, state },
          headers,
        );
  }
  headers.set("idempotent-replayed", String(isReplay && outcome !== undefined));
  for (const [name, value] of kept.headers) {
    if (!isReplay || KEPT.has(name)) headers.set(name, value);
  }
  const hasBody = ![204, 304].includes(kept.status);
  return new Response(hasBody ? kept.body : null, { status: kept.status, headers });
}

function adviceOf(operation: Operation): Advice | undefined {
  switch (operation.state) {
    case "pending":
    case "delivering":
      return "wait";
    case "in_doubt":
      return "escalate";
    case "dead":
      return operation.outcome ? undefined : "same-key";
    default:
      return undefined;
  }
}

function storyOf(operation: Operation): OperationStory {
  const { id, route, key, state, mode, effects, outcome, request } = operation;
  const at = new Date(0).toISOString();
  const ok = outcome ? outcome.status < 400 : null;
  return {
    id,
    tenant: "default",
    principal: "",
    route,
    kind: "call",
    scope: route,
    via: null,
    key,
    state,
    mode,
    effects,
    ok,
    told: operation.told,
    reason: state === "dead" ? (outcome ? "refused" : "exhausted") : null,
    method: request.method,
    path: request.path,
    label: null,
    flow: null,
    subject: null,
    superseded_by: null,
    created_at: at,
    due_at: null,
    ended_at: state === "done" || state === "dead" ? at : null,
    send_by: null,
    lease_until: null,
    key_expires_at: null,
    upstream_key: null,
    attempts: operation.attempts.map(({ status, isUnsent, mayHaveExecuted }, n) => ({
      n: n + 1,
      started_at: at,
      ended_at: at,
      ending: status !== null ? "answered" : isUnsent ? "unsent" : "unanswered",
      reached: null,
      status,
      error: null,
      may_have_executed: mayHaveExecuted,
      excerpt: false,
    })),
    outcome: outcome
      ? { status: outcome.status, ok: ok ?? false, source: "upstream", retained: true }
      : null,
    forgotten: null,
    aliases: [],
    acts: [],
    looks: null,
    retry: "",
    risk: null,
    parent: null,
    callback: null,
    ids: {},
    duplicates: { count: 0, last: [] },
  };
}

/** A scripted upstream: what each call with a key meets, and how often it was charged. */
function demo(dedupes: boolean): Upstream {
  let effects = 0;
  let calls = 0;
  const seen = new Map<string, { calls: number; charge: number | undefined }>();
  return ({ method, path, headers }) => {
    const url = new URL(path, "http://demo");
    if (url.pathname === "/effects" || method === "GET")
      return Response.json({ count: effects, calls });
    calls += 1;
    const key = headers.get("idempotency-key") ?? "";
    const known = seen.get(key) ?? { calls: 0, charge: undefined };
    const steps = (url.searchParams.get("script") ?? "201").split(",").map((step) => step.trim());
    const step = steps[known.calls] ?? steps.at(-1) ?? "201";
    const status = Number(step);
    const isCharged = step === "drop" || (status >= 200 && status < 300);
    let charge = dedupes ? known.charge : undefined;
    if (isCharged && charge === undefined) {
      effects += 1;
      charge = effects;
    }
    seen.set(key, { calls: known.calls + 1, charge: charge ?? known.charge });
    if (step === "drop") throw new Error("the script drops the answer");
    if (status === 204) return new Response(null, { status });
    if (isCharged) return Response.json({ charged: true, order: charge }, { status });
    return Response.json({ charged: false, error: "as the script says" }, { status });
  };
}

/** Signs a webhook as Standard Webhooks have it: the headers that it is sent with. */
export async function signWebhook(
  payload: string | Uint8Array,
  secret: string,
  options: { id?: string; at?: Date } = {},
): Promise<Record<string, string>> {
  const bytes = fromBase64(secret.replace(/^whsec_/, ""));
  if (!bytes) throw new TypeError("the secret is not `whsec_` and base64");
  const id = options.id ?? `msg_${newKey()}`;
  const time = String(Math.floor((options.at ?? new Date()).getTime() / 1000));
  const head = new TextEncoder().encode(`${id}.${time}.`);
  const body = typeof payload === "string" ? new TextEncoder().encode(payload) : payload;
  const signed = new Uint8Array(head.length + body.length);
  signed.set(head);
  signed.set(body, head.length);
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("raw", bytes, algorithm, false, ["sign"]);
  const signature = new Uint8Array(await crypto.subtle.sign("HMAC", key, signed));
  return {
    "webhook-id": id,
    "webhook-timestamp": time,
    "webhook-signature": `v1,${toBase64(signature)}`,
  };
}
