//! What the gateway says and is told, made by `sdk/shapes.py` of the document of its API.

#![expect(missing_docs, reason = "the document says of a member what there is to say")]

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::words::words;

words! {
    /// What is left to do.
    pub enum Advice {
        SameKey = "same-key",
        Wait = "wait",
        NewKey = "new-key",
        FixRequest = "fix-request",
        Escalate = "escalate",
    }
}

words! {
    /// What `type` ends in.
    pub enum ProblemCode {
        ApprovalWanted = "approval-wanted",
        BodyTooLarge = "body-too-large",
        BreakerOpen = "breaker-open",
        Cancelled = "cancelled",
        Draining = "draining",
        EgressRefused = "egress-refused",
        FenceStale = "fence-stale",
        Forbidden = "forbidden",
        GoneWrong = "gone-wrong",
        InProgress = "in-progress",
        KeyExpired = "key-expired",
        KeyInvalid = "key-invalid",
        KeyInvalidated = "key-invalidated",
        KeyMismatch = "key-mismatch",
        KeyRequired = "key-required",
        LedgerFull = "ledger-full",
        LedgerUnavailable = "ledger-unavailable",
        Limit = "limit",
        LoginRefused = "login-refused",
        Loop = "loop",
        MediaTypeUnsupported = "media-type-unsupported",
        MethodNotAllowed = "method-not-allowed",
        NoAnswer = "no-answer",
        NoOutcome = "no-outcome",
        NotFound = "not-found",
        OperationConflict = "operation-conflict",
        OperationOpen = "operation-open",
        OptionInvalid = "option-invalid",
        OutcomeUnknown = "outcome-unknown",
        OutsideHours = "outside-hours",
        Quarantine = "quarantine",
        ReauthorizeFailed = "reauthorize-failed",
        RequestInvalid = "request-invalid",
        ResponseNotRetained = "response-not-retained",
        RiskUnaccepted = "risk-unaccepted",
        RoutePaused = "route-paused",
        RouteUnknown = "route-unknown",
        SourceUnknown = "source-unknown",
        StillWorking = "still-working",
        Unauthenticated = "unauthenticated",
        UpgradeRefused = "upgrade-refused",
        UpstreamHeld = "upstream-held",
        UpstreamUnreachable = "upstream-unreachable",
        UrlInvalid = "url-invalid",
        WebhookRejected = "webhook-rejected",
    }
}

words! {
    /// `State`, as the API writes it.
    pub enum State {
        Pending = "pending",
        Delivering = "delivering",
        InDoubt = "in_doubt",
        Done = "done",
        Dead = "dead",
    }
}

words! {
    /// `RiskName`, as the API writes it.
    pub enum RiskName {
        Safe = "safe",
        SameKey = "same-key",
        Unknown = "unknown",
        WindowOver = "window-over",
        DoneAlready = "done-already",
    }
}

words! {
    /// Which limit of a tenant's is reached.
    pub enum ProblemLimit {
        Rate = "rate",
        ConcurrencyMax = "concurrency_max",
        BacklogMax = "backlog_max",
        KeysMax = "keys_max",
        KeptBytesMax = "kept_bytes_max",
    }
}

/// A refusal (RFC 9457). A refused request has sent nothing, except where it says that nobody can know.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Problem {
    pub advice: Advice,
    pub code: ProblemCode,
    /// What happened.
    pub detail: String,
    /// Of key-mismatch.
    pub differs: Option<Vec<String>>,
    pub ended: Option<State>,
    /// Where the route's callers read another shape: what a Stripe SDK throws on.
    pub error: Option<BTreeMap<String, Value>>,
    pub evidence: Option<String>,
    pub expired_at: Option<String>,
    pub instance: Option<String>,
    /// Which limit of a tenant's is reached.
    pub limit: Option<ProblemLimit>,
    pub made_at: Option<String>,
    pub ok: Option<bool>,
    pub operation: Option<String>,
    pub original_status: Option<u16>,
    /// Of key-mismatch: the JSON pointers that differ.
    pub paths: Option<Vec<String>>,
    /// What a person said.
    pub reason: Option<String>,
    pub risk: Option<RiskName>,
    pub source: Option<String>,
    pub state: Option<State>,
    pub status: u16,
    pub title: String,
    pub r#type: String,
    pub used_at: Option<String>,
    pub what: Option<String>,
}

words! {
    /// `ActDeed`, as the API writes it.
    pub enum ActDeed {
        Redelivered = "redelivered",
        Cancelled = "cancelled",
        ResolvedDone = "resolved_done",
        ResolvedNotSent = "resolved_not_sent",
        Forgot = "forgot",
        Extended = "extended",
        Rotated = "rotated",
        Resent = "resent",
        Retried = "retried",
    }
}

/// What a person did.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Act {
    pub at: String,
    pub deed: ActDeed,
    pub reason: String,
    pub who: String,
}

/// How long each phase of an attempt took, in milliseconds; `null` where it did not come to one. Where it broke off, the last phase that has a time is the one that it broke off in. Claims, and attempts of releases that did not measure, have none.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Timings {
    /// Reading the rest of the answer; of a mail, the good-bye.
    pub body: Option<f64>,
    /// Opening a connection, or waiting for one that another call opens.
    pub connect: Option<f64>,
    /// Waiting for the head of the answer; of a mail, for the reply to its end.
    pub head: Option<f64>,
    /// Looking up the upstream's address (DNS).
    pub resolve: Option<f64>,
    /// Whether its connection had carried requests before, so that none was opened.
    pub reused: bool,
    /// Writing the request; over HTTP/2 it is within `head`. Of a mail, all up to the dot that ends it.
    pub send: Option<f64>,
    /// Agreeing on TLS.
    pub tls: Option<f64>,
    /// Waiting for the route's access token.
    pub token: Option<f64>,
}

words! {
    /// `unsent`: provably nothing was sent; `unanswered`: it may have been executed.
    pub enum AttemptEnding {
        Answered = "answered",
        Truncated = "truncated",
        Unsent = "unsent",
        Unanswered = "unanswered",
    }
}

words! {
    /// How far it got.
    pub enum AttemptReached {
        Nothing = "nothing",
        Resolved = "resolved",
        Connected = "connected",
        Secured = "secured",
        Sent = "sent",
        Head = "head",
        Body = "body",
    }
}

/// `Attempt`, as the API writes it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Attempt {
    pub ended_at: Option<String>,
    /// `unsent`: provably nothing was sent; `unanswered`: it may have been executed.
    pub ending: Option<AttemptEnding>,
    pub error: Option<String>,
    /// Whether its answer is kept.
    pub excerpt: bool,
    pub may_have_executed: bool,
    /// Numbered from 1.
    pub n: u64,
    /// How far it got.
    pub reached: Option<AttemptReached>,
    pub started_at: String,
    pub status: Option<u16>,
    pub timings: Option<Timings>,
}

words! {
    /// What a second arrival at the upstream would do.
    pub enum Effects {
        Idempotent = "idempotent",
        Keyed = "keyed",
        NonIdempotent = "non-idempotent",
    }
}

words! {
    /// `Kind`, as the API writes it.
    pub enum Kind {
        Call = "call",
        Unique = "unique",
        Callback = "callback",
        Claim = "claim",
        Event = "event",
        Delivery = "delivery",
        Saga = "saga",
        Step = "step",
    }
}

words! {
    /// `Mode`, as the API writes it.
    pub enum Mode {
        Held = "held",
        Accepted = "accepted",
    }
}

words! {
    /// What the next use of its key meets.
    pub enum OperationForgotten {
        Refuse = "refuse",
        New = "new",
    }
}

/// How often the upstream was asked what became of it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct OperationLooks {
    pub absent: u64,
    pub made: u64,
    pub next: Option<String>,
}

words! {
    /// Who says so.
    pub enum OperationOutcomeSource {
        Upstream = "upstream",
        LateAnswer = "late_answer",
        Truncated = "truncated",
        TooLarge = "too_large",
        Inferred = "inferred",
        Person = "person",
        Lookup = "lookup",
        Webhook = "webhook",
        Holder = "holder",
        Steps = "steps",
    }
}

/// `OperationOutcome`, as the API writes it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct OperationOutcome {
    pub ok: bool,
    /// Whether its answer is kept.
    pub retained: bool,
    /// Who says so.
    pub source: OperationOutcomeSource,
    pub status: Option<u16>,
}

words! {
    /// Why it is dead.
    pub enum OperationReason {
        Refused = "refused",
        Exhausted = "exhausted",
        Unsent = "unsent",
        Cancelled = "cancelled",
        OwnerGone = "owner_gone",
        Superseded = "superseded",
    }
}

/// What a redelivery could do.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct OperationRisk {
    pub name: RiskName,
    pub why: String,
}

/// `OperationSubject`, as the API writes it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct OperationSubject {
    pub name: String,
    pub sequence: Option<u64>,
}

/// The key that the upstream dedupes by, and where it takes it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct OperationUpstreamKey {
    pub place: String,
    pub value: String,
}

/// `OperationStoryDuplicates`, as the API writes it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct OperationStoryDuplicates {
    pub count: u64,
    pub last: Vec<String>,
}

/// An operation, told whole.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct OperationStory {
    /// What people did, the oldest first.
    pub acts: Vec<Act>,
    /// Operations that turned out to be this one.
    pub aliases: Vec<String>,
    pub attempts: Vec<Attempt>,
    pub callback: Option<String>,
    pub created_at: String,
    /// When its next attempt may begin.
    pub due_at: Option<String>,
    pub effects: Effects,
    pub ended_at: Option<String>,
    pub flow: Option<String>,
    /// What the next use of its key meets.
    pub forgotten: Option<OperationForgotten>,
    pub id: String,
    /// What it is found by: what its answer made, and of a mail what it says itself.
    pub ids: BTreeMap<String, String>,
    pub key: String,
    pub key_expires_at: Option<String>,
    pub kind: Kind,
    pub label: Option<String>,
    /// Of claims.
    pub lease_until: Option<String>,
    /// How often the upstream was asked what became of it.
    pub looks: Option<OperationLooks>,
    pub method: String,
    pub mode: Mode,
    /// Whether its outcome is what its route calls a success.
    pub ok: Option<bool>,
    pub outcome: Option<OperationOutcome>,
    pub parent: Option<String>,
    pub path: String,
    /// Who asked.
    pub principal: String,
    /// Why it is dead.
    pub reason: Option<OperationReason>,
    /// Whether sending it again is safe.
    pub retry: String,
    /// What a redelivery could do.
    pub risk: Option<OperationRisk>,
    /// Where it goes.
    pub route: String,
    /// Within what its key is unique.
    pub scope: String,
    /// Past it, the upstream may have forgotten its key.
    pub send_by: Option<String>,
    pub state: State,
    pub subject: Option<OperationSubject>,
    pub superseded_by: Option<String>,
    pub tenant: String,
    /// Whether a caller was told of its end.
    pub told: bool,
    /// Its trace (W3C Trace Context): its caller's, or where traces are told its own.
    pub trace: Option<String>,
    /// The key that the upstream dedupes by, and where it takes it.
    pub upstream_key: Option<OperationUpstreamKey>,
    /// The way it came in, where that was no call.
    pub via: Option<String>,
    /// The one about the same subject that is before it.
    pub blocked_by: Option<String>,
    /// How many wait behind it.
    pub blocks: Option<u64>,
    pub duplicates: OperationStoryDuplicates,
}

/// `Answer`, as the API writes it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Answer {
    /// The body, where it is text.
    pub body: Option<String>,
    /// The body, where it is not.
    pub body_base64: Option<String>,
    /// In evidence.
    pub body_sha256: Option<String>,
    /// Whether this is only its beginning.
    pub cut: Option<bool>,
    /// Whether it is what the last attempt brought.
    pub excerpt: Option<bool>,
    pub headers: Vec<Vec<String>>,
    pub status: u16,
}

words! {
    /// `ClaimStatus`, as the API writes it.
    pub enum ClaimStatus {
        Acquired = "acquired",
        Busy = "busy",
        Done = "done",
        InDoubt = "in_doubt",
        Released = "released",
        Lapsed = "lapsed",
        Expired = "expired",
    }
}

/// `Claim`, as the API writes it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Claim {
    pub attempt: u64,
    pub content_type: Option<String>,
    pub effects: Effects,
    pub fence: Option<u64>,
    pub holder: Option<String>,
    pub key: String,
    pub key_expires_at: Option<String>,
    pub lease_until: Option<String>,
    pub ok: Option<bool>,
    pub operation: String,
    pub outcome: Option<Value>,
    pub outcome_base64: Option<String>,
    pub retry_after_ms: Option<u64>,
    pub status: ClaimStatus,
}
