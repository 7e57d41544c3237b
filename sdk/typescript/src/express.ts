/** Express (and Connect): a middleware before handlers that are to run once for a key. */

import type { Keyed } from "./handler.js";
import {
  BODY_BYTES_MAX,
  type HandlerOptions,
  Handling,
  RESPONSE_BYTES_MAX,
  type Reply,
  type Run,
  tooLarge,
} from "./handling.js";

/** What is used of a request of Express's. */
export interface ExpressRequest {
  method: string;
  url: string;
  originalUrl?: string;
  headers: Record<string, string | string[] | undefined>;
  body?: unknown;
  rawBody?: unknown;
  /** What a handler learns of its key. */
  onceward?: Keyed;
}

/** What is used of a response of Express's. */
export interface ExpressResponse {
  statusCode: number;
  headersSent: boolean;
  // biome-ignore-start lint/suspicious/noExplicitAny: the overloads are node's.
  write: any;
  end: any;
  writeHead: any;
  flushHeaders: any;
  // biome-ignore-end lint/suspicious/noExplicitAny: the overloads are node's.
  getHeaders(): Record<string, number | string | string[] | undefined>;
  setHeader(name: string, value: number | string | readonly string[]): unknown;
  hasHeader(name: string): boolean;
}

/**
 * Has what comes after it run once for each `Idempotency-Key`; whoever repeats the request gets its
 * answer. Put it behind what authenticates and behind the body's parser, which it needs.
 */
export function onceExpress<R extends ExpressRequest>(
  options: HandlerOptions<R>,
): (request: R, response: ExpressResponse, next: (error?: unknown) => void) => Promise<void> {
  const handling = new Handling(options);
  const bodyBytesMax = options.bodyBytesMax ?? BODY_BYTES_MAX;
  return async (request, response, next) => {
    try {
      const head = {
        method: request.method,
        path: request.originalUrl ?? request.url,
        contentType: lineOf(request, "content-type"),
        key: lineOf(request, "idempotency-key"),
      };
      if (!handling.concerns(head)) return next();
      const body = bodyOf(request);
      if (body.length > bodyBytesMax) return send(response, tooLarge(bodyBytesMax));
      const admission = await handling.admit(request, head, body);
      if (admission.is === "passed") return next();
      if (admission.is === "answered") return send(response, admission.reply);
      const { run } = admission;
      request.onceward = { key: run.key, operation: run.operation, fence: run.fence };
      new Held(response, run, options.responseBytesMax ?? RESPONSE_BYTES_MAX);
      return next();
    } catch (error) {
      return next(error);
    }
  };
}

function lineOf(request: ExpressRequest, name: string): string | undefined {
  const value = request.headers[name];
  return Array.isArray(value) ? value.join(", ") : value;
}

/** The body as it came where that is kept, else as its parser read it. */
function bodyOf(request: ExpressRequest): Uint8Array<ArrayBuffer> {
  const { body, rawBody, headers } = request;
  const raw = rawBody ?? body;
  if (raw instanceof Uint8Array) return Uint8Array.from(raw);
  const text = typeof raw === "string" ? raw : JSON.stringify(raw);
  const length = headers["content-length"];
  const hasBody = headers["transfer-encoding"] !== undefined || (length ?? "0") !== "0";
  if (text === undefined) {
    if (hasBody) {
      throw new Error(
        "the body is not read yet, so nobody can tell whether a key comes with the same request: put express.json() or express.raw({ type: '*/*' }) before onceExpress",
      );
    }
    return new Uint8Array();
  }
  return new TextEncoder().encode(text);
}

/** Sends a whole answer; what stands before the middleware has set its own headers already. */
function send(response: ExpressResponse, reply: Reply): void {
  response.statusCode = reply.status;
  for (const [name, value] of reply.headers) response.setHeader(name, value);
  response.end(reply.body);
}

/** A response whose handler has written, and which goes out once the ledger knows its outcome. */
class Held {
  #pieces: Uint8Array[] = [];
  #bytes = 0;
  #isTooLarge = false;
  #isOver = false;
  readonly #own: { write: ExpressResponse["write"]; end: ExpressResponse["end"] };
  readonly #writeHead: ExpressResponse["writeHead"];

  constructor(
    private readonly response: ExpressResponse,
    private readonly run: Run,
    private readonly bytesMax: number,
  ) {
    this.#own = { write: response.write.bind(response), end: response.end.bind(response) };
    this.#writeHead = response.writeHead.bind(response);
    response.write = (piece: unknown, coding?: unknown, done?: unknown) =>
      this.#write(piece, coding, done);
    response.end = (piece?: unknown, coding?: unknown, done?: unknown) =>
      this.#end(piece, coding, done);
    response.writeHead = (status: number, ...more: unknown[]) => this.#head(status, more);
    // The head waits for the ledger too.
    response.flushHeaders = () => undefined;
  }

  #head(status: number, more: unknown[]): ExpressResponse {
    // Once it is over, node writes the head by itself.
    if (this.#isOver) return this.#writeHead(status, ...more);
    this.response.statusCode = status;
    const headers = more.find((it) => typeof it === "object" && it !== null) ?? {};
    const pairs = Array.isArray(headers) ? pairsOf(headers) : Object.entries(headers);
    for (const [name, value] of pairs) this.response.setHeader(name, value);
    return this.response;
  }

  #write(piece: unknown, coding: unknown, done: unknown): boolean {
    const callback = [coding, done].find((it) => typeof it === "function") as
      | (() => void)
      | undefined;
    this.#take(piece, coding);
    callback?.();
    return true;
  }

  #take(piece: unknown, coding: unknown): void {
    if (piece === undefined || piece === null || typeof piece === "function") return;
    const bytes =
      typeof piece === "string"
        ? Uint8Array.from(
            Buffer.from(piece, typeof coding === "string" ? (coding as BufferEncoding) : "utf8"),
          )
        : Uint8Array.from(piece as Uint8Array);
    this.#pieces.push(bytes);
    this.#bytes += bytes.length;
    if (this.#bytes > this.bytesMax) this.#overflow();
  }

  /** What is too large to keep goes out as it comes: it would have to be held in memory else. */
  #overflow(): void {
    if (!this.#isTooLarge) {
      this.#isTooLarge = true;
      this.#isOver = true;
      this.response.writeHead = this.#writeHead;
    }
    for (const piece of this.#pieces) this.#own.write(piece);
    this.#pieces = [];
  }

  #end(piece: unknown, coding: unknown, done: unknown): ExpressResponse {
    const callback = [piece, coding, done].find((it) => typeof it === "function");
    this.#take(piece, coding);
    void this.#settle(callback as (() => void) | undefined);
    return this.response;
  }

  async #settle(callback: (() => void) | undefined): Promise<void> {
    const { response, run } = this;
    const whole = new Uint8Array(this.#isTooLarge ? 0 : this.#bytes);
    let at = 0;
    for (const piece of this.#pieces) {
      whole.set(piece, at);
      at += piece.length;
    }
    const headers: [string, string][] = [];
    for (const [name, value] of Object.entries(response.getHeaders())) {
      for (const one of Array.isArray(value) ? value : [value]) headers.push([name, String(one)]);
    }
    const asked = { status: response.statusCode, headers, body: whole };
    const reply = await run.settle(asked, this.#isTooLarge);
    this.#isOver = true;
    if (this.#isTooLarge) {
      this.#own.end(callback);
      return;
    }
    const isOther = reply.body !== whole;
    response.statusCode = reply.status;
    for (const [name, value] of reply.headers.slice(isOther ? 0 : headers.length)) {
      response.setHeader(name, value);
    }
    if (isOther) response.setHeader("Content-Length", reply.body.length);
    this.#own.end(reply.body, callback);
  }
}

/** A flat list of names and values, two by two. */
function pairsOf(list: unknown[]): [string, string][] {
  if (Array.isArray(list[0])) return list as [string, string][];
  return list.flatMap(
    (name, at) =>
      (at % 2 === 0 ? [[String(name), String(list[at + 1])]] : []) as [string, string][],
  );
}
