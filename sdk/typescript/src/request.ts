/** A call as it goes to the gateway: its address, its headers and its bytes, all made once. */

import { isSafe, keyField, newKey, readKey } from "./keys.js";
import { duration } from "./units.js";

/** What a body may be: text and bytes as they stand, a form's parameters, or anything as JSON. */
export type Body = unknown;

/** What headers may be written as; `fetch`'s own name for it is not known everywhere. */
export type HeaderLines = Headers | Record<string, string> | [string, string][];

/** A body as it goes out. */
export type Bytes = string | Uint8Array<ArrayBuffer>;

/** A call through the gateway. */
export interface Call {
  /** A route, with or without a path; or a URL, where the gateway lets callers name one. */
  to: string;
  /** Path and query at the upstream, percent-encoded. */
  path?: string;
  /** POST where nothing is said. */
  method?: string;
  headers?: HeaderLines;
  /** Text and bytes as they stand, `URLSearchParams` as a form, anything else as JSON. */
  body?: Body;
  /**
   * The idempotency key: the name of one intended effect. Give one that you keep, so that it
   * outlives this process too; without one, a key is made that protects the retries of this call.
   */
  key?: string;
  /** A word for people and filters. */
  label?: string;
  /** What it is about, and its place among those about the same. */
  subject?: string;
  sequence?: number;
  /** Calls of one flow take turns fairly with those of others. */
  flowKey?: string;
  /** No attempt begins before that much time is over, in milliseconds. */
  delayMs?: number;
  /** No attempt begins after. */
  deadline?: Date;
  /** Who is told of its end. */
  callback?: string;
  /** The operation that it follows from. */
  parent?: string;
  /** Of a URL: what a second arrival would do. */
  effects?: "idempotent" | "keyed" | "non-idempotent";
  signal?: AbortSignal;
}

/** A call, made ready. */
export interface Prepared {
  url: string;
  method: string;
  headers: Headers;
  body: Bytes | null;
  key: string | undefined;
}

/** The address of what is called: what a URL's rules would change is refused, since it could lead elsewhere. */
export function addressOf(base: string, to: string, path = ""): string {
  if (to === "") throw new TypeError("`to` is empty: name a route, as in `demo` or `demo/orders`");
  if (path !== "" && !/^[/?]/.test(path)) {
    throw new TypeError(`the path ${JSON.stringify(path)} does not begin with a slash`);
  }
  const target = (path.startsWith("/") ? to.replace(/\/$/, "") : to) + path;
  if (/[\s\\#]/.test(target)) {
    throw new TypeError("an address has no space, backslash or `#`: percent-encode them");
  }
  const [way = ""] = target.split("?", 1);
  const isDots = (part: string) => /^(\.|%2e){1,2}$/i.test(part);
  if (way.split("/").some(isDots)) {
    throw new TypeError("an address has no `.` or `..` between its slashes");
  }
  return `${base}/to/${target.replace(/^\//, "")}`;
}

/** What a body is as bytes, and its type: made once, so that every call has the same. */
export function bodyOf(body: Body): { bytes: Bytes | null; type: string | undefined } {
  if (body === undefined || body === null) return { bytes: null, type: undefined };
  if (typeof body === "string") return { bytes: body, type: undefined };
  if (body instanceof Uint8Array) return { bytes: Uint8Array.from(body), type: undefined };
  if (body instanceof ArrayBuffer) return { bytes: new Uint8Array(body), type: undefined };
  if (body instanceof URLSearchParams) {
    return { bytes: body.toString(), type: "application/x-www-form-urlencoded;charset=UTF-8" };
  }
  const isOnce = [globalThis.ReadableStream, globalThis.FormData, globalThis.Blob].some(
    (kind) => kind !== undefined && body instanceof kind,
  );
  if (isOnce) {
    throw new TypeError(
      "a stream, a FormData or a Blob is not the same bytes each time: give its bytes, as in `new Uint8Array(await new Response(body).arrayBuffer())`",
    );
  }
  const text = JSON.stringify(body);
  if (text === undefined) throw new TypeError(`a ${typeof body} is no body`);
  return { bytes: text, type: "application/json" };
}

/** The call with all that it is sent with each time; a key is drawn here, and nowhere later. */
export function prepared(base: string, call: Call): Prepared {
  const method = (call.method ?? "POST").toUpperCase();
  const headers = new Headers(call.headers);
  const { bytes, type } = bodyOf(call.body);
  if (type !== undefined && !headers.has("content-type")) headers.set("content-type", type);
  let key = call.key;
  const field = key === undefined ? headers.get("idempotency-key") : null;
  // As the gateway reads it: `"a"` and `a` are one key.
  const given = field === null ? undefined : readKey(field);
  if (field !== null && given === undefined) {
    throw new TypeError("the header Idempotency-Key cannot be read as a key");
  }
  if (key === undefined && given === undefined && !isSafe(method)) key = newKey();
  if (key !== undefined) headers.set("idempotency-key", keyField(key));
  const options: [string, string | number | undefined][] = [
    ["label", call.label],
    ["subject", call.subject],
    ["sequence", call.sequence],
    ["flow-key", call.flowKey],
    ["delay", call.delayMs === undefined ? undefined : duration(call.delayMs)],
    ["deadline", call.deadline?.toISOString()],
    ["callback", call.callback],
    ["parent", call.parent],
    ["effects", call.effects],
  ];
  for (const [name, value] of options) {
    if (value !== undefined) headers.set(`onceward-${name}`, String(value));
  }
  const url = addressOf(base, call.to, call.path);
  return { url, method, headers, body: bytes, key: key ?? given };
}
