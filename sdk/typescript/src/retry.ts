/** When the same call is made again: by what the gateway advises, never by guessing. */

import { OncewardError, UnreachableError } from "./errors.js";

/** How often and how long a call is made again. All of it with one key. */
export interface RetryPolicy {
  /** Calls, the first one counted. */
  attemptsMax: number;
  /** No further call begins later than this after the first one. In milliseconds. */
  horizonMs: number;
  /** The first pause; each further one is twice as long, and up to half of it is left to chance. */
  baseMs: number;
  /** The longest pause that this side chooses. */
  capMs: number;
  /** How long one call may take, to its answer's head where that is passed on. The gateway answers within a minute where nothing else is configured. */
  timeoutMs: number;
}

/** What holds where nothing is said. */
export const RETRY: RetryPolicy = {
  attemptsMax: 5,
  horizonMs: 120_000,
  baseMs: 200,
  capMs: 5_000,
  timeoutMs: 75_000,
};

/** The longest that a timer takes. */
export const TIMER_MS_MAX = 2 ** 31 - 1;

/** The statuses that whatever stands between us and the gateway says of itself. */
const BETWEEN = [429, 502, 503, 504];

/** What is asked for in `Retry-After`, in milliseconds: seconds, or a date. */
export function retryAfterMs(headers: Headers, now = Date.now()): number | undefined {
  const text = headers.get("retry-after")?.trim();
  if (!text) return undefined;
  if (/^\d{1,9}$/.test(text)) return Number(text) * 1000;
  const at = Date.parse(text);
  return Number.isNaN(at) ? undefined : Math.max(0, at - now);
}

/**
 * Whether an answer may be of a proxy before the gateway, which knows nothing of the call: every
 * keyed answer of the gateway's names its operation.
 */
export function isForeign(response: { status: number; headers: Headers }): boolean {
  const { status, headers } = response;
  const isOurs = headers.has("onceward-advice") || headers.has("onceward-operation");
  return BETWEEN.includes(status) && !isOurs;
}

/** Whether the same call may bring more than this answer. */
export function mayHelp(response: Response, isSafe: boolean): boolean {
  const advice = response.headers.get("onceward-advice");
  if (advice !== null) {
    return response.status >= 400 && (advice === "same-key" || advice === "wait");
  }
  return isSafe && isForeign(response);
}

/** Waits, unless `signal` ends it. */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(
      () => {
        signal?.removeEventListener("abort", end);
        resolve();
      },
      Math.min(ms, TIMER_MS_MAX),
    );
    if (signal?.aborted) end();
    else signal?.addEventListener("abort", end, { once: true });
  });
}

/** What is made again. */
export interface Retried {
  key: string | undefined;
  /** Whether it may be made again where no answer came. */
  isRepeatable: boolean;
  /** Whether a second arrival changes nothing, as of what has a key. */
  isSafe?: boolean;
  policy: RetryPolicy;
  signal?: AbortSignal | undefined;
}

/**
 * Makes a call until its answer cannot get better by making it again. `ask` makes it with the key
 * and the bytes that it had the first time; whoever draws a key does so before this.
 */
export async function retrying(
  ask: (signal: AbortSignal) => Promise<Response>,
  { key, isRepeatable, isSafe = key !== undefined, policy, signal }: Retried,
): Promise<Response> {
  const end = Date.now() + policy.horizonMs;
  for (let attempt = 1; ; attempt += 1) {
    signal?.throwIfAborted();
    let answer: Response | undefined;
    let failure: unknown;
    // It ends with the answer: a body that is passed on may come for hours.
    const late = new AbortController();
    const limitMs = Math.min(policy.timeoutMs, TIMER_MS_MAX);
    const timer = setTimeout(() => late.abort(timedOut(limitMs)), limitMs);
    try {
      answer = await ask(signal ? AbortSignal.any([signal, late.signal]) : late.signal);
    } catch (error) {
      signal?.throwIfAborted();
      if (error instanceof OncewardError) throw error;
      failure = error;
    } finally {
      clearTimeout(timer);
    }
    if (answer && !mayHelp(answer, isSafe)) return answer;
    const drawn = Math.min(policy.capMs, policy.baseMs * 2 ** (attempt - 1));
    const wait = Math.max(
      drawn * (0.5 + Math.random() / 2),
      (answer && retryAfterMs(answer.headers)) ?? 0,
    );
    const isLast =
      attempt >= policy.attemptsMax || Date.now() + wait > end || (!answer && !isRepeatable);
    if (isLast) {
      if (answer) return answer;
      throw new UnreachableError(`no answer came: ${said(failure)}`, key, { cause: failure });
    }
    // What is not read would keep its connection.
    if (answer && !answer.bodyUsed) await answer.body?.cancel();
    await pause(wait, signal);
  }
}

function timedOut(ms: number): DOMException {
  return new DOMException(`no answer within ${ms} ms`, "TimeoutError");
}

/** An error's words; `fetch` says what happened in its cause. */
function said(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? `${error.message} (${error.cause.message})` : error.message;
}
