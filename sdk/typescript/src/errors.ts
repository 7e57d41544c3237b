/** What goes wrong, typed by what is left to do about it. */

import type { Answer } from "./answer.js";
import type { Advice, Problem, ProblemCode } from "./shapes.js";

/** Whatever this package throws by itself. */
export class OncewardError extends Error {
  constructor(
    message: string,
    /** What is left to do. */
    readonly advice: Advice,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** No answer of the gateway's came. The same call with the same key is safe. */
export class UnreachableError extends OncewardError {
  constructor(
    message: string,
    /** The key that the call was made with: make it again with that one. */
    readonly key: string | undefined,
    options?: ErrorOptions,
  ) {
    super(message, "same-key", options);
  }
}

/** An answer is larger than what is read of one. */
export class AnswerTooLargeError extends OncewardError {
  constructor(
    readonly bytesMax: number,
    /** The key that the call was made with: its outcome lies under that one. */
    readonly key?: string,
  ) {
    super(`the answer is larger than ${bytesMax} bytes; the call itself was made`, "escalate");
  }
}

/** An answer is none of the API's: another server's, perhaps. What it was asked may have been done. */
export class AnswerUnreadableError extends OncewardError {
  constructor(
    why: string,
    /** The key that the call was made with, where it had one. */
    readonly key?: string,
    options?: ErrorOptions,
  ) {
    super(`the answer cannot be read: ${why}`, "escalate", options);
  }
}

/** What was waited for did not come in time; it goes on by itself. */
export class WaitTimeoutError extends OncewardError {
  constructor(message: string) {
    super(message, "wait");
  }
}

/** What a problem came with. */
export interface ProblemContext {
  key?: string | undefined;
  /** In milliseconds. */
  retryAfterMs?: number | undefined;
  /** The upstream's own answer, where that is what says so. */
  answer?: Answer | undefined;
}

/** A refusal (RFC 9457). Which subclass it is, its code says. */
export class ProblemError extends OncewardError {
  /** The idempotency key of the call, where it had one. */
  readonly key: string | undefined;
  /** When the gateway asks to be asked again, in milliseconds from now. */
  readonly retryAfterMs: number | undefined;
  /** The upstream's answer that left it open, where one came. */
  readonly answer: Answer | undefined;

  constructor(
    /** The document as it came. */
    readonly problem: Problem,
    context: ProblemContext = {},
  ) {
    super(`${problem.code}: ${problem.title}. ${problem.detail}`, problem.advice);
    this.key = context.key;
    this.retryAfterMs = context.retryAfterMs;
    this.answer = context.answer;
  }

  /** What happened, as a word that stays. */
  get code(): ProblemCode {
    return this.problem.code;
  }

  /** The status of its answer. */
  get status(): number {
    return this.problem.status;
  }

  /** The operation that it is about. */
  get operation(): string | undefined {
    return this.problem.operation;
  }
}

/** It was sent, and nobody knows whether it was done. Never send it again under a new key. */
export class OutcomeUnknownError extends ProblemError {}

/** The first call with this key is under way. */
export class InProgressError extends ProblemError {}

/** The key was used for another request; `problem.differs` says where. */
export class KeyMismatchError extends ProblemError {}

/** The key was used once and opens nothing any more: its window is over, or a person ended it. */
export class KeyExpiredError extends ProblemError {}

/** It was done, and its answer is not kept. */
export class ResponseNotRetainedError extends ProblemError {}

/** Of a claim: somebody else has it in hand by now. Nothing was changed. */
export class FenceStaleError extends ProblemError {}

/** Not now: nothing is known to have gone wrong for good, and the same key may be sent again. */
export class UnavailableError extends ProblemError {}

/** The request has to be another one. Nothing was sent. */
export class RefusedError extends ProblemError {}

const BY_CODE: Partial<Record<ProblemCode, typeof ProblemError>> = {
  "outcome-unknown": OutcomeUnknownError,
  "in-progress": InProgressError,
  "still-working": InProgressError,
  "key-mismatch": KeyMismatchError,
  "key-expired": KeyExpiredError,
  "key-invalidated": KeyExpiredError,
  cancelled: KeyExpiredError,
  "response-not-retained": ResponseNotRetainedError,
  "fence-stale": FenceStaleError,
};

/** The error for a problem: by its code, else by its advice, so that codes of later releases fit too. */
export function errorOf(problem: Problem, context: ProblemContext = {}): ProblemError {
  const named = BY_CODE[problem.code];
  if (named) return new named(problem, context);
  if (problem.advice === "same-key") return new UnavailableError(problem, context);
  if (problem.advice === "fix-request") return new RefusedError(problem, context);
  return new ProblemError(problem, context);
}

const TYPE = "urn:onceward:problem:";

/** The problem in a document, if it is one of ours. */
export function problemIn(document: unknown): Problem | undefined {
  if (typeof document !== "object" || document === null) return undefined;
  const { type, code, advice } = document as Partial<Problem>;
  const isOurs = typeof type === "string" && type.startsWith(TYPE);
  return isOurs && code !== undefined && advice !== undefined ? (document as Problem) : undefined;
}

/** A problem that this side says. */
export function problem(
  code: ProblemCode,
  status: number,
  advice: Advice,
  title: string,
  detail: string,
): Problem {
  return { type: TYPE + code, title, status, detail, code, advice };
}
