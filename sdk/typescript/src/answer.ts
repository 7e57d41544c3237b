/** What a call comes to: the upstream's answer, and what the gateway says of its operation. */

import { AnswerTooLargeError, AnswerUnreadableError } from "./errors.js";
import type { Advice, State } from "./shapes.js";

/** The largest answer that is read, in bytes. */
export const ANSWER_BYTES_MAX = 64 * 1024 * 1024;

/** The upstream's answer: of now, or from the ledger. */
export class Answer {
  constructor(
    readonly status: number,
    readonly headers: Headers,
    /** The body, as it came. */
    readonly bytes: Uint8Array<ArrayBuffer>,
    /** The idempotency key that the call was made with. */
    readonly key: string | undefined,
  ) {}

  /** Whether the status is a 2xx. */
  get ok(): boolean {
    return this.status >= 200 && this.status < 300;
  }

  /** The operation's id; nothing where the call passed without a record. */
  get operation(): string | undefined {
    return this.headers.get("onceward-operation") ?? undefined;
  }

  /** Where the operation stands. */
  get state(): State | undefined {
    return (this.headers.get("onceward-state") as State | null) ?? undefined;
  }

  /** Whether it is on disk and goes on by itself, and this is not the upstream's answer. */
  get isAccepted(): boolean {
    return this.status === 202 && (this.state === "pending" || this.state === "delivering");
  }

  /** Whether it came from the ledger: the upstream was not asked. */
  get replayed(): boolean {
    return this.headers.get("idempotent-replayed") === "true";
  }

  /** How many attempts were made at the upstream. */
  get attempts(): number | undefined {
    const text = this.headers.get("onceward-attempts");
    return text === null ? undefined : Number(text);
  }

  /** What is left to do, where something is. */
  get advice(): Advice | undefined {
    return (this.headers.get("onceward-advice") as Advice | null) ?? undefined;
  }

  /** The body as text. */
  text(): string {
    return new TextDecoder().decode(this.bytes);
  }

  /** The body as JSON. */
  json<T = unknown>(): T {
    return JSON.parse(this.text()) as T;
  }
}

/** The document that an answer of the API's is. */
export function documentOf<T>(answer: Answer): T {
  try {
    return answer.json<T>();
  } catch (cause) {
    throw new AnswerUnreadableError("it is no JSON", answer.key, { cause });
  }
}

/** The whole body of `response`, which is bounded. */
export async function readBody(
  response: Response,
  bytesMax = ANSWER_BYTES_MAX,
  key?: string,
): Promise<Uint8Array<ArrayBuffer>> {
  if (!response.body) return new Uint8Array();
  const reader = response.body.getReader();
  const pieces: Uint8Array[] = [];
  let length = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    length += value.length;
    if (length > bytesMax) {
      // Not waited for: where the stream has a second reader, it ends with the last of them.
      void reader.cancel();
      throw new AnswerTooLargeError(bytesMax, key);
    }
    pieces.push(value);
  }
  const whole = new Uint8Array(length);
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}
