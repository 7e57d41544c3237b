/**
 * Handlers of one's own that run once for a key: what Express and fetch-style handlers share. The
 * outcome is in the ledger before it is answered; a duplicate gets it from there.
 */

import {
  type Claims,
  claimBusy,
  claimInDoubt,
  type Granted,
  type Hold,
  NotDoneError,
} from "./claims.js";
import { Onceward } from "./client.js";
import {
  FenceStaleError,
  OncewardError,
  ProblemError,
  problem,
  UnavailableError,
  UnreachableError,
} from "./errors.js";
import { isSafe, keyField, readKey } from "./keys.js";
import type { Claim, Effects, Problem } from "./shapes.js";
import { fromBase64, sha256, toBase64 } from "./units.js";

/** What holds for the handlers behind a middleware; `R` is a request as they get it. */
export interface HandlerOptions<R> {
  /** The gateway's client; one by the environment where nothing is said. */
  client?: Onceward;
  /** What the handlers are called together: keys are unique within it. */
  scope: string;
  /**
   * Who asks, by a name that stays: keys of one are nothing to another. Without it all callers are
   * one, and whoever has a key and the request gets its answer.
   */
  principal?: (request: R) => string | undefined | Promise<string | undefined>;
  /** What a request with an effect and without a key meets: it passes by, where nothing is said. */
  keyMissing?: "pass" | "require";
  /** What a second run would do; by the method where nothing is said: PUT and DELETE are idempotent. */
  effects?: Effects;
  /** How long the handler may be silent before it counts as lost, in milliseconds. */
  leaseMs?: number;
  /** How long a duplicate waits for the first, in milliseconds: 10 seconds where nothing is said. */
  waitMs?: number;
  /** The largest body of a request, in bytes: 1 MiB where nothing is said. */
  bodyBytesMax?: number;
  /** The largest body of an answer that is kept, in bytes: 512 KiB where nothing is said. */
  responseBytesMax?: number;
}

export const BODY_BYTES_MAX = 1024 * 1024;
export const RESPONSE_BYTES_MAX = 512 * 1024;
const WAIT_MS = 10_000;

/** A handler that has not answered by then, its caller gone perhaps, is lost: its lease may end. */
const HOLD_MS_MAX = 15 * 60_000;

type Bytes = Uint8Array<ArrayBuffer>;

/** An answer, whole. */
export interface Reply {
  status: number;
  headers: [string, string][];
  body: Bytes;
}

/** What is looked at of a request. */
export interface Head {
  method: string;
  /** Path and query. */
  path: string;
  contentType: string | undefined;
  /** The key's header, as it came. */
  key: string | undefined;
}

/** What becomes of a request: it passes by, is answered at once, or is run. */
export type Admission =
  | { is: "passed" }
  | { is: "answered"; reply: Reply }
  | { is: "run"; run: Run };

/** Headers of an answer that are kept: what belongs to one moment or one session is not. */
const KEPT = new Set([
  "content-type",
  "content-language",
  "content-encoding",
  "content-disposition",
  "content-location",
  "location",
  "etag",
  "last-modified",
  "link",
  "allow",
  "deprecation",
  "sunset",
]);

/** An outcome as it lies in the ledger. */
interface Kept {
  status: number;
  headers: [string, string][];
  body_base64: string | null;
}

/** What a status says of the effect. */
export function meaning(status: number, hasRetryAfter: boolean): "final" | "refused" | "ambiguous" {
  if ([501, 505, 506, 508, 510, 511].includes(status)) return "refused";
  if (status >= 500) return "ambiguous";
  if (status < 400) return "final";
  const isForNow = [401, 403, 407, 408, 421, 423, 425, 426, 428, 429, 431].includes(status);
  return isForNow || hasRetryAfter ? "refused" : "final";
}

/** Admits requests, and settles what was run of them. */
export class Handling<R> {
  readonly #claims: Claims;

  constructor(readonly options: HandlerOptions<R>) {
    const { client = new Onceward(), scope, leaseMs } = options;
    this.#claims = client.claims(scope, leaseMs === undefined ? {} : { leaseMs });
  }

  /** Whether a request is one for us: it has an effect, and a key or the want of one. */
  concerns(head: Head): boolean {
    if (isSafe(head.method)) return false;
    return head.key !== undefined || this.options.keyMissing === "require";
  }

  async admit(request: R, head: Head, body: Bytes): Promise<Admission> {
    if (!this.concerns(head)) return { is: "passed" };
    if (head.key === undefined) {
      return answered(
        problem(
          "key-required",
          400,
          "fix-request",
          "This route wants an Idempotency-Key",
          "Send one of your own making: it names one intended effect.",
        ),
      );
    }
    const key = readKey(head.key);
    if (key === undefined) {
      const title = "The idempotency key cannot be read";
      const detail = "Write 1 to 255 visible letters, quoted or without spaces, commas and quotes.";
      return answered(problem("key-invalid", 400, "fix-request", title, detail));
    }
    const name = await nameOf(key, this.options.principal, request);
    const about = `${head.method.toUpperCase()}\n${head.path}\n${head.contentType ?? ""}\n`;
    const fingerprint = await sha256(joined(new TextEncoder().encode(about), body));
    let granted: Granted;
    try {
      granted = await this.#claims.take(name, {
        fingerprint,
        effects: this.options.effects ?? effectsOf(head.method),
        waitMs: this.options.waitMs ?? WAIT_MS,
      });
    } catch (error) {
      return answered(refusalOf(error), key);
    }
    const { claim } = granted;
    if (claim.status === "acquired") {
      const hold = this.#claims.hold(granted, this.options.leaseMs, HOLD_MS_MAX);
      return { is: "run", run: new Run(claim, hold, key) };
    }
    if (claim.status === "done") return replayed(claim, key);
    if (claim.status === "in_doubt") return answered(told(claimInDoubt(claim)), key);
    return answered(told(claimBusy(claim, claim.retry_after_ms)), key, claim.retry_after_ms);
  }
}

/** A handler that has a key in hand. */
export class Run {
  constructor(
    private readonly claim: Claim,
    private readonly hold: Hold,
    /** The key as the caller gave it. */
    readonly key: string,
  ) {}

  /** The operation's id: a good key for what the handler does elsewhere. */
  get operation(): string {
    return this.claim.operation;
  }

  /** Grows with each run of a key. */
  get fence(): number {
    return this.hold.held.fence;
  }

  /** Says that the handler threw. */
  async failed(error: unknown): Promise<void> {
    await this.hold.giveBack(error);
  }

  /** Writes down how it ended, and gives what is to be answered. A body of null was too large to keep. */
  async settle(reply: Reply, isTooLarge = false): Promise<Reply> {
    const { status, headers } = reply;
    const hasRetryAfter = headers.some(([name]) => name.toLowerCase() === "retry-after");
    const means = meaning(status, hasRetryAfter);
    try {
      if (means === "final") {
        const kept: Kept = {
          status,
          headers: headers.filter(([name]) => KEPT.has(name.toLowerCase())),
          body_base64: isTooLarge ? null : toBase64(reply.body),
        };
        // It stays in hand until that is heard.
        await this.hold.complete(kept);
        return this.#told(reply, "done");
      }
      if (means === "refused") {
        const why = `the handler answered ${status}: nothing was done`;
        await this.hold.giveBack(new NotDoneError(why));
        return this.#told(reply, "dead", "same-key");
      }
      await this.hold.giveBack(new Error(`the handler answered ${status}`));
      const isHarmless = this.claim.effects !== "non-idempotent";
      return isHarmless
        ? this.#told(reply, "dead", "same-key")
        : this.#told(reply, "in_doubt", "escalate");
    } catch (error) {
      if (!(error instanceof OncewardError)) throw error;
      return replyOf(lost(error), this.key);
    } finally {
      this.hold.stop();
    }
  }

  #told(reply: Reply, state: string, advice?: string): Reply {
    const headers: [string, string][] = [...reply.headers];
    headers.push(["Idempotency-Key", keyField(this.key)], ["Idempotent-Replayed", "false"]);
    headers.push(["Onceward-Operation", this.operation], ["Onceward-State", state]);
    if (advice) headers.push(["Onceward-Advice", advice]);
    return { ...reply, headers };
  }
}

/** The claim's key: whose it is stands before it, written so that no other name can look like it. */
async function nameOf<R>(
  key: string,
  principal: HandlerOptions<R>["principal"],
  request: R,
): Promise<string> {
  if (!principal) return key;
  const name = `${encodeURIComponent((await principal(request)) ?? "")}/${key}`;
  return name.length <= 255 ? name : `@sha256/${await sha256(new TextEncoder().encode(name))}`;
}

function effectsOf(method: string): Effects {
  return ["PUT", "DELETE"].includes(method.toUpperCase()) ? "idempotent" : "non-idempotent";
}

/** What a refusal is to the caller of a handler; what only whoever runs it can mend is thrown. */
function refusalOf(error: unknown): Problem {
  if (error instanceof UnreachableError || error instanceof UnavailableError) {
    const detail = "The ledger could not be asked; nothing was done. Ask again with the same key.";
    return problem("ledger-unavailable", 503, "same-key", "The ledger cannot be used", detail);
  }
  const isCallers =
    error instanceof ProblemError &&
    ["key-mismatch", "key-expired", "key-invalidated", "key-invalid"].includes(error.code);
  if (isCallers) return told(error);
  throw error;
}

/** The handler ran, and the ledger could not be told. */
function lost(error: OncewardError): Problem {
  if (error instanceof FenceStaleError) return told(error);
  const title = "Nobody knows whether it was done";
  const detail = "The handler ran, and its outcome could not be written down.";
  return problem("outcome-unknown", 504, "escalate", title, detail);
}

/** A problem as callers of a handler get it: where it lies in the gateway is none of their business. */
function told(error: ProblemError): Problem {
  const { operation: _, instance: __, ...rest } = error.problem;
  return rest;
}

function answered(said: Problem, key?: string, retryAfterMs?: number): Admission {
  return { is: "answered", reply: replyOf(said, key, retryAfterMs) };
}

/** A problem as a whole answer. */
export function replyOf(said: Problem, key?: string, retryAfterMs?: number): Reply {
  const headers: [string, string][] = [
    ["Content-Type", "application/problem+json"],
    ["Cache-Control", "no-store"],
    ["Onceward-Advice", said.advice],
  ];
  const wait = retryAfterMs ?? (said.status === 503 ? 1000 : undefined);
  if (wait !== undefined) headers.push(["Retry-After", String(Math.ceil(wait / 1000))]);
  if (key !== undefined) {
    headers.push(["Idempotency-Key", keyField(key)], ["Idempotent-Replayed", "false"]);
  }
  return { status: said.status, headers, body: new TextEncoder().encode(JSON.stringify(said)) };
}

function replayed(claim: Claim, key: string): Admission {
  const kept = claim.outcome as Kept | undefined;
  const body = typeof kept?.body_base64 === "string" ? fromBase64(kept.body_base64) : undefined;
  if (typeof kept?.status !== "number" || !body) {
    const title = "It was done, and its answer is not retained";
    const detail = "Its outcome is known, but not its answer.";
    return answered(problem("response-not-retained", 409, "escalate", title, detail), key);
  }
  const headers: [string, string][] = [...kept.headers];
  headers.push(["Idempotency-Key", keyField(key)], ["Idempotent-Replayed", "true"]);
  headers.push(["Onceward-Operation", claim.operation], ["Onceward-State", "done"]);
  return { is: "answered", reply: { status: kept.status, headers, body } };
}

/** What a body that is too large gets. */
export function tooLarge(bytesMax: number): Reply {
  const detail = `It takes ${bytesMax} bytes; nothing was done.`;
  return replyOf(
    problem("body-too-large", 413, "fix-request", "The body is larger than is taken", detail),
  );
}

function joined(a: Bytes, b: Bytes): Bytes {
  const whole = new Uint8Array(a.length + b.length);
  whole.set(a);
  whole.set(b, a.length);
  return whole;
}
