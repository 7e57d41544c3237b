/** What the gateway says and is told, made by `sdk/shapes.py` of the document of its API. */

/** What is left to do */
export type Advice = "same-key" | "wait" | "new-key" | "fix-request" | "escalate";

/** What `type` ends in */
export type ProblemCode =
  | "approval-wanted"
  | "body-too-large"
  | "breaker-open"
  | "cancelled"
  | "draining"
  | "egress-refused"
  | "fence-stale"
  | "forbidden"
  | "gone-wrong"
  | "in-progress"
  | "key-expired"
  | "key-invalid"
  | "key-invalidated"
  | "key-mismatch"
  | "key-required"
  | "ledger-full"
  | "ledger-unavailable"
  | "limit"
  | "login-refused"
  | "loop"
  | "media-type-unsupported"
  | "method-not-allowed"
  | "no-answer"
  | "no-outcome"
  | "not-found"
  | "operation-conflict"
  | "operation-open"
  | "option-invalid"
  | "outcome-unknown"
  | "outside-hours"
  | "quarantine"
  | "reauthorize-failed"
  | "request-invalid"
  | "response-not-retained"
  | "risk-unaccepted"
  | "route-paused"
  | "route-unknown"
  | "source-unknown"
  | "still-working"
  | "unauthenticated"
  | "upgrade-refused"
  | "upstream-held"
  | "upstream-unreachable"
  | "url-invalid"
  | "webhook-rejected";

export type State = "pending" | "delivering" | "in_doubt" | "done" | "dead";

/** RFC 3339; answers are in UTC and have milliseconds */
export type Time = string;

export type OperationId = string;

export type RiskName = "safe" | "same-key" | "unknown" | "window-over" | "done-already";

/** A refusal (RFC 9457). A refused request has sent nothing, except where it says that nobody can know. */
export interface Problem {
  advice: Advice;
  code: ProblemCode;
  /** What happened */
  detail: string;
  /** Of key-mismatch */
  differs?: string[];
  ended?: State;
  /** Where the route's callers read another shape: what a Stripe SDK throws on */
  error?: Record<string, unknown>;
  evidence?: string | null;
  expired_at?: string;
  instance?: string;
  /** Which limit of a tenant's is reached */
  limit?: "rate" | "concurrency_max" | "backlog_max" | "keys_max" | "kept_bytes_max";
  made_at?: Time;
  ok?: boolean | null;
  operation?: OperationId;
  original_status?: number | null;
  /** Of key-mismatch: the JSON pointers that differ */
  paths?: string[];
  /** What a person said */
  reason?: string;
  risk?: RiskName;
  source?: string | null;
  state?: State;
  status: number;
  title: string;
  type: string;
  used_at?: Time;
  what?: string;
}

/** What a person did */
export interface Act {
  at: Time;
  deed:
    | "redelivered"
    | "cancelled"
    | "resolved_done"
    | "resolved_not_sent"
    | "forgot"
    | "extended"
    | "rotated"
    | "resent"
    | "retried";
  reason: string;
  who: string;
}

/** How long each phase of an attempt took, in milliseconds; `null` where it did not come to one. Where it broke off, the last phase that has a time is the one that it broke off in. Claims, and attempts of releases that did not measure, have none */
export interface Timings {
  /** Reading the rest of the answer; of a mail, the good-bye */
  body: number | null;
  /** Opening a connection, or waiting for one that another call opens */
  connect: number | null;
  /** Waiting for the head of the answer; of a mail, for the reply to its end */
  head: number | null;
  /** Looking up the upstream's address (DNS) */
  resolve: number | null;
  /** Whether its connection had carried requests before, so that none was opened */
  reused: boolean;
  /** Writing the request; over HTTP/2 it is within `head`. Of a mail, all up to the dot that ends it */
  send: number | null;
  /** Agreeing on TLS */
  tls: number | null;
  /** Waiting for the route's access token */
  token: number | null;
}

export interface Attempt {
  ended_at: string | null;
  /** `unsent`: provably nothing was sent; `unanswered`: it may have been executed */
  ending: "answered" | "truncated" | "unsent" | "unanswered" | null;
  error: string | null;
  /** Whether its answer is kept */
  excerpt: boolean;
  may_have_executed: boolean;
  /** Numbered from 1 */
  n: number;
  /** How far it got */
  reached: "nothing" | "resolved" | "connected" | "secured" | "sent" | "head" | "body" | null;
  started_at: Time;
  status: number | null;
  timings?: Timings | null;
}

/** What a second arrival at the upstream would do */
export type Effects = "idempotent" | "keyed" | "non-idempotent";

export type Kind =
  | "call"
  | "unique"
  | "callback"
  | "claim"
  | "event"
  | "delivery"
  | "saga"
  | "step";

export type Mode = "held" | "accepted";

/** How often the upstream was asked what became of it */
export interface OperationLooks {
  absent: number;
  made: number;
  next: string | null;
}

export interface OperationOutcome {
  ok: boolean;
  /** Whether its answer is kept */
  retained: boolean;
  /** Who says so */
  source:
    | "upstream"
    | "late_answer"
    | "truncated"
    | "too_large"
    | "inferred"
    | "person"
    | "lookup"
    | "webhook"
    | "holder"
    | "steps";
  status: number | null;
}

/** What a redelivery could do */
export interface OperationRisk {
  name: RiskName;
  why: string;
}

export interface OperationSubject {
  name: string;
  sequence: number | null;
}

/** The key that the upstream dedupes by, and where it takes it */
export interface OperationUpstreamKey {
  place: string;
  value: string;
}

/** One intended effect, and what has become of it */
export interface Operation {
  /** What people did, the oldest first */
  acts: Act[];
  /** Operations that turned out to be this one */
  aliases: OperationId[];
  attempts: Attempt[];
  callback: string | null;
  created_at: Time;
  /** When its next attempt may begin */
  due_at: string | null;
  effects: Effects;
  ended_at: string | null;
  flow: string | null;
  /** What the next use of its key meets */
  forgotten: "refuse" | "new" | null;
  id: OperationId;
  /** What it is found by: what its answer made, and of a mail what it says itself */
  ids: Record<string, string>;
  key: string;
  key_expires_at: string | null;
  kind: Kind;
  label: string | null;
  /** Of claims */
  lease_until: string | null;
  /** How often the upstream was asked what became of it */
  looks: OperationLooks | null;
  method: string;
  mode: Mode;
  /** Whether its outcome is what its route calls a success */
  ok: boolean | null;
  outcome: OperationOutcome | null;
  parent: string | null;
  path: string;
  /** Who asked */
  principal: string;
  /** Why it is dead */
  reason: "refused" | "exhausted" | "unsent" | "cancelled" | "owner_gone" | "superseded" | null;
  /** Whether sending it again is safe */
  retry: string;
  /** What a redelivery could do */
  risk: OperationRisk | null;
  /** Where it goes */
  route: string;
  /** Within what its key is unique */
  scope: string;
  /** Past it, the upstream may have forgotten its key */
  send_by: string | null;
  state: State;
  subject: OperationSubject | null;
  superseded_by: string | null;
  tenant: string;
  /** Whether a caller was told of its end */
  told: boolean;
  /** Its trace (W3C Trace Context): its caller's, or where traces are told its own */
  trace?: string | null;
  /** The key that the upstream dedupes by, and where it takes it */
  upstream_key: OperationUpstreamKey | null;
  /** The way it came in, where that was no call */
  via: string | null;
}

export interface OperationStoryDuplicates {
  count: number;
  last: Time[];
}

/** An operation, told whole */
export interface OperationStory extends Operation {
  /** The one about the same subject that is before it */
  blocked_by?: string | null;
  /** How many wait behind it */
  blocks?: number;
  duplicates: OperationStoryDuplicates;
}

/** Header lines in order, each its name and its value */
export type HeaderLines = string[][];

export interface Answer {
  /** The body, where it is text */
  body: string | null;
  /** The body, where it is not */
  body_base64: string | null;
  /** In evidence */
  body_sha256?: string;
  /** Whether this is only its beginning */
  cut?: boolean;
  /** Whether it is what the last attempt brought */
  excerpt?: boolean;
  headers: HeaderLines;
  status: number;
}

/** Numbers with ms, s, m (or min), h or d, added up */
export type Duration = string;

export type PerhapsDuration = Duration | null;

export interface Begin {
  effects?: "idempotent" | "keyed" | "non-idempotent" | null;
  /** What must be equal for the same: a text, or any JSON value, of up to 1,024 bytes */
  fingerprint?: unknown;
  /** Who has it in hand */
  holder?: string | null;
  /** How long it is in hand */
  lease?: PerhapsDuration;
  /** The same begin again, after an answer that was lost */
  nonce?: string | null;
  /** How long somebody else's outcome is waited for, up to a minute */
  wait?: PerhapsDuration;
}

/** Grows with each begin, so that who lost a claim cannot end it */
export type Fence = number;

export type PerhapsBase64 = string | null;

export interface Complete {
  /** Of outcome_base64 */
  content_type?: string | null;
  fence: Fence;
  ok?: boolean | null;
  /** Any JSON value, kept as it is written */
  outcome?: unknown;
  outcome_base64?: PerhapsBase64;
}

export interface Release {
  fence: Fence;
  may_have_executed?: boolean;
  reason?: string | null;
  retry_after?: PerhapsDuration;
}

export interface Renew {
  fence: Fence;
  lease?: PerhapsDuration;
}

export interface Claim {
  attempt: number;
  content_type?: string;
  effects: Effects;
  fence?: number;
  holder?: string;
  key: string;
  key_expires_at?: Time;
  lease_until?: Time;
  ok?: boolean;
  operation: OperationId;
  outcome?: unknown;
  outcome_base64?: string;
  retry_after_ms?: number;
  status: "acquired" | "busy" | "done" | "in_doubt" | "released" | "lapsed" | "expired";
}
