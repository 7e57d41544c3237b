/** The client: calls through the gateway, and what became of them. */

import { ANSWER_BYTES_MAX, Answer, documentOf, readBody } from "./answer.js";
import { Claims, type ClaimsOptions } from "./claims.js";
import {
  AnswerUnreadableError,
  errorOf,
  OncewardError,
  OutcomeUnknownError,
  problem,
  problemIn,
  RefusedError,
  UnreachableError,
  WaitTimeoutError,
} from "./errors.js";
import { isSafe, newKey } from "./keys.js";
import { type Call, type Prepared, prepared } from "./request.js";
import {
  isForeign,
  pause,
  RETRY,
  type RetryPolicy,
  retryAfterMs,
  retrying,
  TIMER_MS_MAX,
} from "./retry.js";
import type { Answer as KeptAnswer, OperationStory } from "./shapes.js";
import { USER_AGENT } from "./version.js";

/** Where the gateway listens where nothing says otherwise. */
const URL_DEFAULT = "http://127.0.0.1:7077";

/** How often an operation is looked at that is waited for: at first, and at the most. */
const LOOK_MS = 100;
const LOOK_MS_MAX = 5_000;

/** How long a look may take at least, so that it can come back where no time is left. */
const LOOK_MS_LAST = 1_000;

/** How long an operation is waited for where nothing is said. */
const WAIT_MS = 60_000;

/** What a client is made of; nothing is required. */
export interface OncewardOptions {
  /** The gateway's address; `ONCEWARD_URL` of the environment where nothing is said. */
  url?: string;
  /** An access key (`ow_…`); `ONCEWARD_ACCESS_KEY` of the environment where nothing is said. */
  accessKey?: string;
  /** How often and how long calls are made again. */
  retry?: Partial<RetryPolicy>;
  /** What stands in for `fetch`: a double, or one with a proxy or certificates of your own. */
  fetch?: typeof fetch;
}

/** A call that is on disk: it goes on by itself. */
export interface Accepted {
  /** The operation's id. */
  operation: string;
  key: string | undefined;
  /** The outcome, where it was there in time. */
  answer: Answer | undefined;
  /** Waits for its end. */
  wait(options?: WaitOptions): Promise<OperationStory>;
}

/** How an operation is waited for. */
export interface WaitOptions {
  /** In milliseconds; a minute where nothing is said. */
  timeoutMs?: number;
  signal?: AbortSignal;
}

/** How the rest of the API is asked. */
export interface AskOptions {
  signal?: AbortSignal | undefined;
  /** Beyond the time that the gateway itself was asked to wait, in milliseconds. */
  extraMs?: number;
  /** Whether a second arrival changes nothing, as of what has a fence; by the method and the path where nothing is said. */
  isSafe?: boolean;
}

/** A client of one gateway. */
export class Onceward {
  /** The gateway's address, without a slash at its end. */
  readonly url: string;
  readonly #accessKey: string | undefined;
  readonly #retry: RetryPolicy;
  readonly #fetch: typeof fetch;

  constructor(options: OncewardOptions = {}) {
    const environment = environmentOf();
    const url = options.url ?? environment["ONCEWARD_URL"] ?? URL_DEFAULT;
    if (!/^https?:\/\//.test(url)) {
      throw new TypeError(
        `${JSON.stringify(url)} is no address of a gateway: write ${URL_DEFAULT}`,
      );
    }
    if (/^https?:\/\/[^/?#]*@/.test(url)) {
      throw new TypeError(
        "the gateway's address has a name or a password in it, which nobody would send: give an accessKey",
      );
    }
    this.url = url.replace(/\/+$/, "");
    this.#accessKey = options.accessKey ?? environment["ONCEWARD_ACCESS_KEY"];
    this.#retry = { ...RETRY, ...options.retry };
    const given = options.fetch;
    this.#fetch = given ?? ((input, init) => globalThis.fetch(input, init));
  }

  /**
   * Makes a call and waits for the upstream's answer, whatever its status. It is made again, with
   * the same key, as long as the gateway says that this helps.
   *
   * @throws {OutcomeUnknownError} nobody knows whether it was done.
   * @throws {ProblemError} the gateway refused it; which error, the problem's code says.
   * @throws {UnreachableError} no answer of the gateway's came; the same key is safe.
   */
  async send(call: Call): Promise<Answer> {
    return this.#make(this.prepare(call), call.signal);
  }

  /**
   * Has a call remembered, and made without anybody who waits. What comes back is on disk.
   *
   * @param options.waitMs waits so long for an outcome that comes soon.
   */
  async accept(call: Call, options: { waitMs?: number } = {}): Promise<Accepted> {
    const { waitMs } = options;
    if (waitMs !== undefined && !(Number.isFinite(waitMs) && waitMs >= 0)) {
      throw new TypeError(`${waitMs} is no time to wait in milliseconds`);
    }
    const ready = this.prepare(call);
    const wait = waitMs === undefined ? "" : `, wait=${Math.ceil(waitMs / 1000)}`;
    ready.headers.set("prefer", `respond-async${wait}`);
    const answer = await this.#make(ready, call.signal, waitMs);
    const operation = answer.operation;
    if (operation === undefined && ready.key !== undefined) {
      throw new UnreachableError(
        `no answer came: ${answer.status} is not the gateway's`,
        ready.key,
      );
    }
    if (operation === undefined) {
      const why = `The upstream answered ${answer.status}, and no operation was remembered: a call by ${ready.method} passes without a record where it has no key.`;
      throw new RefusedError(
        problem("request-invalid", 400, "fix-request", "It was not accepted", why),
      );
    }
    return {
      operation,
      key: ready.key,
      answer: answer.isAccepted ? undefined : answer,
      wait: (waiting) => this.wait(operation, waiting),
    };
  }

  /** The story of an operation. */
  async operation(id: string, options: AskOptions = {}): Promise<OperationStory> {
    const path = `/v1/operations/${encodeURIComponent(id)}`;
    const story = await this.ask<OperationStory | null>("GET", path, undefined, options);
    if (!story?.id) throw new AnswerUnreadableError("it is no operation");
    return story;
  }

  /** The answer that is kept of an operation. */
  async response(id: string, options: AskOptions = {}): Promise<KeptAnswer> {
    const path = `/v1/operations/${encodeURIComponent(id)}/response`;
    const kept = await this.ask<KeptAnswer | null>("GET", path, undefined, options);
    if (!kept?.status) throw new AnswerUnreadableError("it is none that is kept");
    return kept;
  }

  /**
   * Waits until an operation has ended: `done`, or `dead`.
   *
   * @throws {OutcomeUnknownError} it is in doubt, and only a person can tell.
   * @throws {WaitTimeoutError} it has not ended in time; it goes on by itself.
   */
  async wait(id: string, options: WaitOptions = {}): Promise<OperationStory> {
    const end = Date.now() + (options.timeoutMs ?? WAIT_MS);
    for (let look = LOOK_MS; ; look = Math.min(2 * look, LOOK_MS_MAX)) {
      const story = await this.#look(id, end - Date.now(), options.signal);
      if (story.state === "done" || story.state === "dead") return story;
      // Where the upstream is asked what it knows, the doubt may end by itself.
      if (story.state === "in_doubt" && !story.looks?.next) throw inDoubt(story.id, story.key);
      const left = end - Date.now();
      if (left <= 0) throw new WaitTimeoutError(`${id} is ${story.state} still`);
      await pause(Math.min(look, left), options.signal);
    }
  }

  /** How an operation stands; to learn that, a look takes as long as is left, and a moment at least. */
  async #look(id: string, leftMs: number, signal?: AbortSignal): Promise<OperationStory> {
    const limitMs = Math.min(Math.max(leftMs, LOOK_MS_LAST), TIMER_MS_MAX);
    const late = AbortSignal.timeout(limitMs);
    try {
      return await this.operation(id, { signal: signal ? AbortSignal.any([signal, late]) : late });
    } catch (cause) {
      if (!late.aborted || signal?.aborted || cause instanceof OncewardError) throw cause;
      throw new UnreachableError(`no answer came within ${limitMs} ms`, undefined, { cause });
    }
  }

  /** The ledger as a service for one's own handlers: keys are unique within `scope`. */
  claims(scope: string, options: ClaimsOptions = {}): Claims {
    return new Claims(this, scope, options);
  }

  /** A call with all that it is sent with: for whoever sends it by other means. */
  prepare(call: Call): Prepared {
    const ready = prepared(this.url, call);
    this.#introduce(ready.headers);
    return ready;
  }

  /**
   * Asks the rest of the API, and gives the document that it answers.
   *
   * What makes something new under a key (events, operations, sagas, an operation sent again) gets an
   * `Idempotency-Key` for its repeats where the body has no `key`; any other POST that may have
   * arrived is not made again unless the gateway advises it.
   *
   * @throws {OutcomeUnknownError} such a POST had no answer of the gateway's.
   * @throws {AnswerUnreadableError} what came is no answer of the API's.
   */
  async ask<T>(method: string, path: string, body: unknown, options: AskOptions = {}): Promise<T> {
    return documentOf<T>(await this.askFor(method, path, body, options));
  }

  /** The same, and its answer as it came. */
  async askFor(
    method: string,
    path: string,
    body: unknown,
    options: AskOptions = {},
  ): Promise<Answer> {
    const headers = new Headers({ accept: "application/json" });
    this.#introduce(headers);
    if (body !== undefined) headers.set("content-type", "application/json");
    const bytes = body === undefined ? null : JSON.stringify(body);
    const isKeyed = method.toUpperCase() === "POST" && takesKey(path);
    const isNamed = typeof (body as { key?: unknown } | null | undefined)?.key === "string";
    const key = isKeyed && !isNamed ? newKey() : undefined;
    if (key !== undefined) headers.set("idempotency-key", key);
    const isDelete = method.toUpperCase() === "DELETE";
    const isAlike = options.isSafe || isKeyed || isDelete || isSafe(method);
    const ready = { url: this.url + path, method, headers, body: bytes, key };
    const unheard = (what: string, cause?: unknown) => {
      const title = "Nobody knows whether it was done";
      const detail = `${method} ${path} had no answer of the gateway's: ${what}.`;
      const said = problem("outcome-unknown", 504, "escalate", title, detail);
      return Object.assign(new OutcomeUnknownError(said), { cause });
    };
    let answer: Answer;
    try {
      answer = await this.#answer(ready, options.signal, options.extraMs, isAlike);
    } catch (error) {
      throw error instanceof UnreachableError && !isAlike ? unheard(error.message, error) : error;
    }
    throwProblem(answer);
    if (!answer.ok) {
      // Refusals of the gateway's are problems: this is another's word.
      const said = `it has the status ${answer.status}`;
      throw !isAlike && answer.status >= 500 ? unheard(said) : new AnswerUnreadableError(said, key);
    }
    return answer;
  }

  /** Makes a call as it stands, again while that helps, and gives the response as it came. */
  async pass(ready: Prepared, signal?: AbortSignal, isRepeatable = true): Promise<Response> {
    const ask = (limit: AbortSignal) => this.#fetch(ready.url, initOf(ready, limit));
    return retrying(ask, { key: ready.key, isRepeatable, policy: this.#retry, signal });
  }

  async #make(ready: Prepared, signal?: AbortSignal, extraMs = 0): Promise<Answer> {
    const answer = await this.#answer(ready, signal, extraMs);
    throwProblem(answer);
    if (answer.state === "in_doubt") {
      throw inDoubt(answer.operation, answer.key, answer);
    }
    return answer;
  }

  async #answer(
    ready: Prepared,
    signal?: AbortSignal,
    extraMs = 0,
    isAlike = ready.key !== undefined,
  ): Promise<Answer> {
    let bytes: Uint8Array<ArrayBuffer> = new Uint8Array();
    const ask = async (limit: AbortSignal) => {
      const response = await this.#fetch(ready.url, initOf(ready, limit));
      bytes = await readBody(response, ANSWER_BYTES_MAX, ready.key);
      return response;
    };
    const policy = { ...this.#retry, timeoutMs: this.#retry.timeoutMs + extraMs };
    const { key } = ready;
    const isRepeatable = isAlike || isSafe(ready.method);
    const how = { key, isRepeatable, isSafe: isAlike, policy, signal };
    const response = await retrying(ask, how);
    if (isAlike && isForeign(response)) {
      const said = `no answer came: ${response.status} of what stands before the gateway`;
      throw new UnreachableError(said, key);
    }
    return new Answer(response.status, response.headers, bytes, key);
  }

  #introduce(headers: Headers): void {
    if (this.#accessKey && !headers.has("onceward-authorization")) {
      headers.set("onceward-authorization", `Bearer ${this.#accessKey}`);
    }
    // A browser names itself, and would have to ask whether a page may do so.
    const isBrowser = "document" in globalThis || "WorkerGlobalScope" in globalThis;
    if (!isBrowser && !headers.has("user-agent")) headers.set("user-agent", USER_AGENT);
  }
}

/** Whether what is posted there makes one thing for one key, whatever arrives twice. */
function takesKey(path: string): boolean {
  return /^\/v1\/(events|sagas|operations(\/[^/?]+\/resend)?)(\?|$)/.test(path);
}

function initOf(ready: Prepared, signal: AbortSignal): RequestInit {
  const { method, headers, body } = ready;
  // A redirect is the outcome, and whoever called decides about it.
  return { method, headers, body, signal, redirect: "manual" };
}

/** Throws where the answer is a refusal of the gateway's: an upstream's own problems are its answers. */
function throwProblem(answer: Answer): void {
  const { headers, key } = answer;
  if (answer.status < 400 || !headers.get("content-type")?.includes("json")) return;
  // The gateway takes this header off what upstreams say.
  if (!headers.has("onceward-advice")) return;
  let document: unknown;
  try {
    document = answer.json();
  } catch {
    return;
  }
  const found = problemIn(document);
  if (found) throw errorOf(found, { key, retryAfterMs: retryAfterMs(headers) });
}

function inDoubt(operation?: string, key?: string, answer?: Answer): OncewardError {
  const detail = answer
    ? `The upstream answered ${answer.status}, which does not say whether it was done.`
    : "No answer says whether it was done.";
  const title = "Nobody knows whether it was done";
  const said = problem("outcome-unknown", answer?.status ?? 409, "escalate", title, detail);
  if (operation !== undefined) said.operation = operation;
  said.state = "in_doubt";
  return new OutcomeUnknownError(said, { key, answer });
}

/** The environment, where there is one: a browser has none. */
function environmentOf(): Record<string, string | undefined> {
  const { process } = globalThis as { process?: { env?: Record<string, string | undefined> } };
  return process?.env ?? {};
}
