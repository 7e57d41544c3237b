/**
 * Calls that are safe to retry.
 *
 * ```ts
 * import { Onceward } from "onceward";
 *
 * const onceward = new Onceward();
 * const answer = await onceward.send({ to: "demo/orders", key: "order-1", body: { qty: 1 } });
 * ```
 *
 * @module
 */

export { Answer } from "./answer.js";
export { type AxiosLike, onceAxios } from "./axios.js";
export {
  type BeginOptions,
  Claims,
  type ClaimsOptions,
  EffectFailedError,
  type Held,
  NotDoneError,
  type OnceOptions,
  UnwrittenError,
} from "./claims.js";
export {
  type Accepted,
  type AskOptions,
  Onceward,
  type OncewardOptions,
  type WaitOptions,
} from "./client.js";
export {
  AnswerTooLargeError,
  AnswerUnreadableError,
  FenceStaleError,
  InProgressError,
  KeyExpiredError,
  KeyMismatchError,
  OncewardError,
  OutcomeUnknownError,
  ProblemError,
  RefusedError,
  ResponseNotRetainedError,
  UnavailableError,
  UnreachableError,
  WaitTimeoutError,
} from "./errors.js";
export { type HookOptions, onceFetch } from "./fetch.js";
export { onceHandler } from "./handler.js";
export type { HandlerOptions } from "./handling.js";
export { newKey } from "./keys.js";
export type { Body, Bytes, Call, HeaderLines, Prepared } from "./request.js";
export type { RetryPolicy } from "./retry.js";
export type {
  Advice,
  Answer as KeptAnswer,
  Attempt,
  Claim,
  Effects,
  OperationStory,
  Problem,
  ProblemCode,
  State,
} from "./shapes.js";
export { VERSION } from "./version.js";
export {
  type Verified,
  type VerifyOptions,
  verifyWebhook,
  WebhookRejectedError,
  type WebhookScheme,
} from "./webhooks.js";
