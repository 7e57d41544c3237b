/** A `fetch` that goes through the gateway: one line for SDKs and code that take one. */

import { Onceward } from "./client.js";
import { UnreachableError } from "./errors.js";
import { isSafe } from "./keys.js";

/** Which calls go through the gateway, and under which keys. */
export interface HookOptions {
  /** The gateway's client; one by the environment where nothing is said. */
  client?: Onceward;
  /** The route for each origin: `{ "https://api.stripe.com": "stripe" }`. Other origins are left alone. */
  routes: Record<string, string>;
  /**
   * The key of a call. A call's own `Idempotency-Key` goes before it; where neither says, a key is
   * made that protects the retries of this one call.
   */
  key?: (call: { url: URL; method: string }) => string | undefined;
}

/** Where a call goes, if it goes through the gateway. */
export function routeOf(url: URL, options: HookOptions): { to: string; path: string } | undefined {
  const to = options.routes[url.origin];
  return to === undefined ? undefined : { to, path: url.pathname + url.search };
}

/** The key that the caller of a hook chose. */
export function chosenKey(url: URL, method: string, options: HookOptions): string | undefined {
  return isSafe(method) ? undefined : options.key?.({ url, method });
}

/**
 * A `fetch` whose calls to the origins of `routes` go through the gateway, again with the same key
 * as long as that helps. Answers are as they come: refusals of the gateway are responses with
 * `Onceward-Advice`, and redirects are not followed.
 */
export function onceFetch(options: HookOptions): typeof fetch {
  const client = options.client ?? new Onceward();
  return async (input, init) => {
    const url = new URL(input instanceof Request ? input.url : input);
    const route = routeOf(url, options);
    if (!route) return globalThis.fetch(input, init);
    const request = new Request(input, init);
    const { method, headers, signal } = request;
    // Read once: each call has the same bytes.
    const body = request.body ? new Uint8Array(await request.arrayBuffer()) : null;
    const key = headers.has("idempotency-key") ? undefined : chosenKey(url, method, options);
    const ready = client.prepare({
      ...route,
      method,
      headers,
      body,
      ...(key === undefined ? {} : { key }),
    });
    try {
      return await client.pass(ready, signal, ready.key !== undefined || isSafe(method));
    } catch (error) {
      // Whoever has a fetch knows its errors, and none of ours.
      throw error instanceof UnreachableError ? error.cause : error;
    }
  };
}
