/** Fetch-style handlers (Hono, Next.js, Deno, Bun, workers) that run once for a key. */

import { readBody } from "./answer.js";
import { AnswerTooLargeError } from "./errors.js";
import {
  BODY_BYTES_MAX,
  type HandlerOptions,
  Handling,
  RESPONSE_BYTES_MAX,
  type Reply,
  tooLarge,
} from "./handling.js";

/** What a handler is told beside its request. */
export interface Keyed {
  /** The caller's key. */
  key: string;
  /** The operation's id: a good key for what the handler does elsewhere. */
  operation: string;
  /** Grows with each run of a key. */
  fence: number;
}

/** Has `handler` run once for each `Idempotency-Key`; whoever repeats the request gets its answer. */
export function onceHandler(
  options: HandlerOptions<Request>,
  handler: (request: Request, keyed?: Keyed) => Response | Promise<Response>,
): (request: Request) => Promise<Response> {
  const handling = new Handling(options);
  const bodyBytesMax = options.bodyBytesMax ?? BODY_BYTES_MAX;
  const responseBytesMax = options.responseBytesMax ?? RESPONSE_BYTES_MAX;
  return async (request) => {
    const url = new URL(request.url);
    const head = {
      method: request.method,
      path: url.pathname + url.search,
      contentType: request.headers.get("content-type") ?? undefined,
      key: request.headers.get("idempotency-key") ?? undefined,
    };
    if (!handling.concerns(head)) return handler(request);
    let body: Uint8Array<ArrayBuffer>;
    try {
      body = await readBody(request as unknown as Response, bodyBytesMax);
    } catch (error) {
      if (error instanceof AnswerTooLargeError) return responseOf(tooLarge(bodyBytesMax));
      throw error;
    }
    const admission = await handling.admit(request, head, body);
    if (admission.is === "answered") return responseOf(admission.reply);
    const { url: where, method, headers: lines } = request;
    const again = { method, headers: lines, body: request.body ? body : null };
    if (admission.is === "passed") {
      return handler(new Request(where, { ...again, signal: request.signal }));
    }
    const { run } = admission;
    const { key, operation, fence } = run;
    let response: Response;
    try {
      // Without its caller's signal: what is under way goes on where the caller hangs up.
      response = await handler(new Request(where, again), { key, operation, fence });
    } catch (error) {
      await run.failed(error);
      throw error;
    }
    const { status } = response;
    const headers = [...response.headers];
    const copy = response.clone();
    try {
      const whole = await readBody(response, responseBytesMax);
      await copy.body?.cancel();
      return responseOf(await run.settle({ status, headers, body: whole }));
    } catch (error) {
      if (!(error instanceof AnswerTooLargeError)) {
        await run.failed(error);
        throw error;
      }
      // It is not kept, and goes out as it comes, once the ledger knows that it was made.
      const settled = await run.settle({ status, headers, body: new Uint8Array() }, true);
      return settled.status === status
        ? new Response(copy.body, { status, headers: settled.headers })
        : responseOf(settled);
    }
  };
}

function responseOf(reply: Reply): Response {
  const hasBody = ![101, 204, 205, 304].includes(reply.status);
  const headers = new Headers();
  for (const [name, value] of reply.headers) headers.append(name, value);
  return new Response(hasBody ? reply.body : null, { status: reply.status, headers });
}
