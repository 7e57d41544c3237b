/** axios through the gateway: interceptors, so that an instance stays what it is. */

import { Onceward } from "./client.js";
import { chosenKey, type HookOptions, routeOf } from "./fetch.js";
import { isSafe } from "./keys.js";
import { mayHelp, pause, RETRY, retryAfterMs } from "./retry.js";

/** What is used of a request's configuration. */
interface AxiosConfig {
  url?: string | undefined;
  baseURL?: string | undefined;
  params?: unknown;
  method?: string | undefined;
  maxRedirects?: number;
  signal?: unknown;
  // biome-ignore lint/suspicious/noExplicitAny: its class is axios's, which is no dependency.
  headers: any;
}

interface AxiosAnswer {
  status: number;
  headers: unknown;
  config: AxiosConfig;
}

/** What is used of an instance of axios. */
export interface AxiosLike {
  interceptors: {
    // biome-ignore lint/suspicious/noExplicitAny: the types are axios's, which is no dependency.
    request: { use(done: (config: any) => any): number };
    // biome-ignore lint/suspicious/noExplicitAny: as above.
    response: { use(done: (answer: any) => any, failed: (error: any) => any): number };
  };
  // biome-ignore lint/suspicious/noExplicitAny: as above.
  getUri(config: any): string;
  // biome-ignore lint/suspicious/noExplicitAny: as above.
  request(config: any): Promise<any>;
}

/** What is kept with a request over its repeats; axios carries members along that it does not know. */
const MARK = "oncewardCall";

interface Mark {
  key: string | undefined;
  attempts: number;
  end: number;
}

/**
 * Has the calls of `instance` to the origins of `routes` go through the gateway, again with the
 * same key as long as that helps. Redirects are not followed: they are the outcome.
 */
export function onceAxios<T extends AxiosLike>(instance: T, options: HookOptions): T {
  const client = options.client ?? new Onceward();
  instance.interceptors.request.use((config: AxiosConfig & { [MARK]?: Mark }) => {
    if (config[MARK]) {
      config[MARK].attempts += 1;
      return config;
    }
    const url = new URL(instance.getUri(config));
    const route = routeOf(url, options);
    if (!route) return config;
    const method = (config.method ?? "get").toUpperCase();
    const own: unknown = config.headers.get("idempotency-key");
    const key = typeof own === "string" ? own : chosenKey(url, method, options);
    const headers: Record<string, string> =
      typeof own === "string" ? { "idempotency-key": own } : {};
    const ready = client.prepare({
      ...route,
      method,
      headers,
      ...(key === undefined || typeof own === "string" ? {} : { key }),
    });
    for (const [name, value] of ready.headers) {
      if (name !== "user-agent") config.headers.set(name, value);
    }
    Object.assign(config, {
      url: ready.url,
      baseURL: undefined,
      params: undefined,
      maxRedirects: 0,
    });
    config[MARK] = { key: ready.key, attempts: 1, end: Date.now() + RETRY.horizonMs };
    return config;
  });

  const again = async (
    config: (AxiosConfig & { [MARK]?: Mark }) | undefined,
    answer?: AxiosAnswer,
  ) => {
    const mark = config?.[MARK];
    if (!config || !mark || (config.signal as AbortSignal | undefined)?.aborted) return undefined;
    const isRepeatable = mark.key !== undefined || isSafe(config.method ?? "get");
    const headers = new Headers();
    for (const [name, value] of Object.entries((answer?.headers ?? {}) as object)) {
      if (value !== null && value !== undefined) headers.set(name, String(value));
    }
    const helps = answer
      ? mayHelp(
          new Response(null, { status: Math.max(200, answer.status), headers }),
          mark.key !== undefined,
        )
      : isRepeatable;
    const drawn = Math.min(RETRY.capMs, RETRY.baseMs * 2 ** (mark.attempts - 1));
    const wait = Math.max(drawn * (0.5 + Math.random() / 2), retryAfterMs(headers) ?? 0);
    if (!helps || mark.attempts >= RETRY.attemptsMax || Date.now() + wait > mark.end)
      return undefined;
    await pause(wait, config.signal as AbortSignal | undefined);
    return instance.request(config);
  };
  instance.interceptors.response.use(
    async (answer: AxiosAnswer) => (await again(answer.config, answer)) ?? answer,
    async (error: { config?: AxiosConfig; response?: AxiosAnswer }) => {
      const answer = await again(error.config, error.response);
      if (answer === undefined) throw error;
      return answer;
    },
  );
  return instance;
}
