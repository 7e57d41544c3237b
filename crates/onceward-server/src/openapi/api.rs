//! What the document says of each endpoint of the API; the table of endpoints takes it from here.

use super::described::Shape::{Events, Json, Lines, Metrics, Text};
use super::described::{Described, about};

/// What a list of operations is asked for.
const FILTER: &[&str] = &[
    "state",
    "inRoute",
    "kind",
    "inScope",
    "principal",
    "hasKey",
    "label",
    "subject",
    "text",
    "status",
    "attemptsMin",
    "noStatus",
    "deadFor",
    "error",
    "errorIs",
    "noError",
    "parent",
    "made",
    "after",
    "before",
    "cursor",
    "limit",
];

/// What a call may ask of us.
pub(super) const OPTIONS: &[&str] = &[
    "idempotencyKey",
    "prefer",
    "delay",
    "notBefore",
    "deadline",
    "timeout",
    "attemptsMax",
    "labelled",
    "effects",
    "flowKey",
    "about",
    "sequence",
    "callback",
    "partOf",
    "contract",
];

/// What an answer says of its operation.
const OF_OPERATION: &[&str] =
    &["Onceward-Operation", "Onceward-State", "Onceward-Attempts", "Onceward-Key-Expires"];

const OF_SENT: &[&str] = &[
    "Onceward-Operation",
    "Onceward-State",
    "Onceward-Attempts",
    "Onceward-Key-Expires",
    "Onceward-Superseded-By",
    "Onceward-Duplicate-Of",
    "Onceward-Suspect-Of",
    "Location",
];

/// What a call's answer says, whatever way it came.
pub(super) const OF_CALL: &[&str] = &[
    "Idempotency-Key",
    "Idempotent-Replayed",
    "Onceward-Operation",
    "Onceward-State",
    "Onceward-Attempts",
    "Onceward-Key-Expires",
    "Onceward-Key-Made",
    "Onceward-Advice",
    "Onceward-Duplicate-Of",
    "Onceward-Suspect-Of",
    "Onceward-Superseded-By",
];

/// How a call is refused.
pub(super) const OF_CALLS: &[&str] = &[
    "key-invalid",
    "key-required",
    "key-mismatch",
    "in-progress",
    "outcome-unknown",
    "key-expired",
    "key-invalidated",
    "cancelled",
    "response-not-retained",
    "upstream-unreachable",
    "no-answer",
    "still-working",
    "route-unknown",
    "url-invalid",
    "egress-refused",
    "body-too-large",
    "option-invalid",
    "limit",
    "breaker-open",
    "upstream-held",
    "route-paused",
    "outside-hours",
    "draining",
    "quarantine",
    "loop",
    "operation-conflict",
    "operation-open",
];

/// How an act of a person is.
const OF_ACTS: &[&str] = &[
    "not-found",
    "operation-open",
    "operation-conflict",
    "approval-wanted",
    "risk-unaccepted",
    "draining",
];

const OF_KEYS: &[&str] =
    &["not-found", "key-invalid", "operation-open", "operation-conflict", "approval-wanted"];

pub(crate) const LIST_OPERATIONS: &[Described] =
    &[about("Operations", "listOperations", "List operations, the newest first")
        .takes(FILTER)
        .gives(&[(200, Json("OperationPage"))])];

pub(crate) const GROUP_DEAD_LETTERS: &[Described] = &[about(
    "Operations",
    "groupDeadLetters",
    "Tell the causes of the newest dead letters, the commonest first",
)
.gives(&[(200, Json("DeadLetterGroups"))])];

pub(crate) const FOLLOW: &[Described] = &[about(
    "Operations",
    "followChanges",
    "Follow what changes, as a stream of events: what to read again",
)
.takes(&["inRoute", "forSeconds"])
.gives(&[(200, Events)])
.refuses(&["limit", "draining"])];

pub(crate) const SEND: &[Described] =
    &[about("Operations", "send", "Send a call, in one document, and have its answer in one")
        .takes(&["idempotencyKey"])
        .reads("Call")
        .gives(&[(200, Json("OperationAnswered")), (202, Json("Operation"))])
        .says(OF_SENT)
        .refuses(OF_CALLS)];

pub(crate) const EXPLAIN: &[Described] =
    &[about("Operations", "explain", "Show what a call would be; nothing is sent")
        .reads("Call")
        .gives(&[(200, Json("Explained"))])
        .refuses(&[
            "key-invalid",
            "key-required",
            "route-unknown",
            "url-invalid",
            "egress-refused",
            "option-invalid",
            "loop",
            "key-expired",
            "body-too-large",
        ])];

pub(crate) const GET_OPERATION: &[Described] =
    &[about("Operations", "getOperation", "Tell an operation's story")
        .gives(&[(200, Json("OperationStory"))])];

pub(crate) const GET_REQUEST: &[Described] =
    &[about("Operations", "getRequest", "Show what was asked, without its credentials")
        .gives(&[(200, Json("Asked"))])
        .refuses(&["no-outcome"])];

pub(crate) const GET_RESPONSE: &[Described] =
    &[about("Operations", "getResponse", "Show the answer, or what the last attempt brought")
        .gives(&[(200, Json("Answer"))])
        .refuses(&["no-outcome"])];

pub(crate) const GET_EVIDENCE: &[Described] =
    &[about("Operations", "getEvidence", "Show everything that the ledger knows, with a digest")
        .gives(&[(200, Json("Evidence"))])
        .refuses(&["gone-wrong"])];

pub(crate) const REDELIVER: &[Described] =
    &[about("Operations", "redeliver", "Send an operation again, on purpose")
        .reads("Redeliver")
        .gives(&[(200, Json("OperationStory"))])
        .refuses(OF_ACTS)];

pub(crate) const RESEND: &[Described] =
    &[about("Operations", "resend", "Ask anew what it asked, changed: a new operation")
        .takes(&["idempotencyKey"])
        .reads("Resend")
        .gives(&[(201, Json("OperationStory"))])
        .says(&["Location"])
        .refuses(&[
            "not-found",
            "operation-open",
            "operation-conflict",
            "approval-wanted",
            "risk-unaccepted",
            "draining",
            "key-invalid",
            "key-required",
            "key-mismatch",
            "in-progress",
            "no-outcome",
            "route-unknown",
            "key-expired",
            "key-invalidated",
            "limit",
            "body-too-large",
        ])];

pub(crate) const CANCEL: &[Described] =
    &[about("Operations", "cancel", "Give a pending operation up")
        .reads("Because")
        .gives(&[(200, Json("OperationStory"))])
        .refuses(OF_ACTS)];

pub(crate) const RETRY: &[Described] =
    &[about("Operations", "retry", "Have the attempt that a pending operation waits for now")
        .reads("Because")
        .gives(&[(200, Json("OperationStory"))])
        .refuses(&["not-found", "operation-conflict", "draining"])];

pub(crate) const RESOLVE: &[Described] =
    &[about("Operations", "resolve", "Say what became of an operation in doubt")
        .reads("Resolve")
        .gives(&[(200, Json("OperationStory"))])
        .refuses(OF_ACTS)];

pub(crate) const LOOK_UP: &[Described] =
    &[about("Operations", "lookUp", "Ask the upstream now what became of an operation in doubt")
        .gives(&[(200, Json("OperationFound"))])
        .refuses(&[
            "operation-conflict",
            "operation-open",
            "quarantine",
            "limit",
            "breaker-open",
            "upstream-held",
            "route-paused",
            "outside-hours",
            "route-unknown",
        ])];

pub(crate) const GET_KEY: &[Described] = &[about("Keys", "getKey", "Show the operation of a key")
    .takes(&["whose"])
    .gives(&[(200, Json("OperationStory"))])
    .refuses(&["not-found", "key-invalid"])];

pub(crate) const FORGET_KEY: &[Described] =
    &[about("Keys", "forgetKey", "Drop a key before its time")
        .reads("Forget")
        .gives(&[(200, Json("OperationStory"))])
        .refuses(OF_KEYS)];

pub(crate) const EXTEND_KEY: &[Described] = &[about("Keys", "extendKey", "Make a key last longer")
    .reads("Extend")
    .gives(&[(200, Json("OperationStory"))])
    .refuses(OF_KEYS)];

pub(crate) const ROTATE_KEY: &[Described] =
    &[about("Keys", "rotateKey", "Give an operation another key beside its own")
        .reads("RotateKey")
        .gives(&[(200, Json("OperationStory"))])
        .refuses(OF_KEYS)];

pub(crate) const REVOKE_KEYS: &[Described] =
    &[about("Keys", "revokeKeys", "Drop all keys of a caller whose operations have ended")
        .reads("RevokeKeys")
        .gives(&[(200, Json("Revoked"))])
        .refuses(&["approval-wanted", "operation-conflict"])];

pub(crate) const LIST_APPROVALS: &[Described] =
    &[about("Keys", "listApprovals", "List what waits for a second person")
        .gives(&[(200, Json("ApprovalList"))])];

pub(crate) const LIST_CLAIM_RULES: &[Described] =
    &[about("Claims", "listClaimRules", "List what is configured of scopes")
        .gives(&[(200, Json("ClaimRuleList"))])];

const OF_CLAIMS: &[&str] = &[
    "not-found",
    "key-invalid",
    "key-mismatch",
    "fence-stale",
    "key-expired",
    "key-invalidated",
    "operation-conflict",
    "operation-open",
    "in-progress",
    "limit",
    "quarantine",
    "draining",
];

/// How many claims at once are refused, all together.
const OF_MANY: &[&str] = &["quarantine", "draining", "not-found"];

pub(crate) const GET_CLAIM: &[Described] =
    &[about("Claims", "getClaim", "Show how a claim stands")
        .gives(&[(200, Json("Claim"))])
        .refuses(&["not-found", "key-invalid"])];

pub(crate) const FORGET_CLAIM: &[Described] = &[about("Claims", "forgetClaim", "Drop a claim")
    .reads("ForgetClaim")
    .gives(&[(200, Json("OperationStory"))])
    .refuses(OF_KEYS)];

const fn word(id: &'static str, summary: &'static str, word: &'static str) -> Described {
    about("Claims", id, summary).says(OF_OPERATION).refuses(OF_CLAIMS).at("{verb}", word)
}

pub(crate) const CLAIM: &[Described] = &[
    word("beginClaim", "Begin: whoever gets it does the work", "begin")
        .may_read("Begin")
        .gives(&[(200, Json("Claim"))]),
    word("completeClaim", "Say how it ended", "complete")
        .reads("Complete")
        .gives(&[(200, Json("Claim"))]),
    word("releaseClaim", "Give it back", "release").reads("Release").gives(&[(200, Json("Claim"))]),
    word("renewClaim", "Keep it in hand for longer", "renew")
        .reads("Renew")
        .gives(&[(200, Json("Claim"))]),
];

const fn words(id: &'static str, summary: &'static str, word: &'static str) -> Described {
    about("Claims", id, summary)
        .gives(&[(200, Json("ClaimsTold"))])
        .refuses(OF_MANY)
        .at("{key}", word)
}

pub(crate) const CLAIM_MANY: &[Described] = &[
    words("beginClaims", "Begin many", "begin").reads("BeginMany"),
    words("completeClaims", "Say how many ended", "complete").reads("CompleteMany"),
    words("releaseClaims", "Give many back", "release").reads("ReleaseMany"),
    words("renewClaims", "Keep many in hand for longer", "renew").reads("RenewMany"),
];

pub(crate) const LIST_SAGAS: &[Described] =
    &[about("Sagas", "listSagas", "List sagas, the newest first: 100 at most at once")
        .takes(&["sagaState", "hasKey", "label", "principal", "cursor", "limit"])
        .gives(&[(200, Json("SagaPage"))])];

pub(crate) const START_SAGA: &[Described] = &[about(
    "Sagas",
    "startSaga",
    "Start a saga: steps in order, undone in reverse where one fails",
)
.takes(&["idempotencyKey"])
.reads("SagaWanted")
.gives(&[(200, Json("Saga")), (202, Json("Saga"))])
.says(OF_STARTED)
.refuses(&[
    "key-invalid",
    "key-mismatch",
    "key-expired",
    "key-invalidated",
    "route-unknown",
    "url-invalid",
    "egress-refused",
    "body-too-large",
    "limit",
    "option-invalid",
    "quarantine",
    "draining",
])];

const OF_STARTED: &[&str] = &[
    "Idempotency-Key",
    "Idempotent-Replayed",
    "Onceward-Operation",
    "Onceward-State",
    "Onceward-Attempts",
    "Onceward-Key-Expires",
    "Onceward-Key-Made",
    "Location",
];

pub(crate) const GET_SAGA: &[Described] =
    &[about("Sagas", "getSaga", "Tell how far a saga came, step by step")
        .gives(&[(200, Json("SagaStory"))])];

const fn of_saga(id: &'static str, summary: &'static str) -> Described {
    about("Sagas", id, summary).gives(&[(200, Json("SagaStory"))]).refuses(&[
        "not-found",
        "operation-conflict",
        "limit",
    ])
}

/// The same for what may want a second person.
const fn of_saga_by_two(id: &'static str, summary: &'static str) -> Described {
    about("Sagas", id, summary).gives(&[(200, Json("SagaStory"))]).refuses(&[
        "not-found",
        "operation-conflict",
        "limit",
        "approval-wanted",
    ])
}

pub(crate) const PAUSE_SAGA: &[Described] =
    &[of_saga("pauseSaga", "Begin no further step of a saga").reads("Because")];

pub(crate) const RESUME_SAGA: &[Described] =
    &[of_saga("resumeSaga", "Let a paused saga go on").reads("Because")];

pub(crate) const RETRY_SAGA: &[Described] =
    &[of_saga_by_two("retrySaga", "Try the step anew at which a saga is stuck")
        .reads("Redeliver")
        .refuses(&[
            "not-found",
            "operation-conflict",
            "limit",
            "approval-wanted",
            "risk-unaccepted",
        ])];

pub(crate) const CANCEL_SAGA: &[Described] =
    &[of_saga_by_two("cancelSaga", "Undo what a saga has done").reads("Because")];

pub(crate) const RESOLVE_SAGA: &[Described] =
    &[of_saga_by_two("resolveSaga", "Say what became of the step at which a saga is stuck")
        .reads("ResolveSaga")];

pub(crate) const LIST_ROUTES: &[Described] =
    &[about("Routes", "listRoutes", "List the routes, and what stands before their upstreams")
        .gives(&[(200, Json("RouteList"))])];

pub(crate) const GET_ADVICE: &[Described] =
    &[about("Routes", "getAdvice", "Show what a route's window and retries should be")
        .gives(&[(200, Json("RouteAdvice"))])];

pub(crate) const GET_CONTRACT: &[Described] = &[about(
    "Routes",
    "getContract",
    "Show how callers of a route retry: keys, windows, statuses, problems",
)
.gives(&[(200, Json("RouteContract"))])
.refuses(&["route-unknown"])];

pub(crate) const PAUSE: &[Described] =
    &[about("Routes", "pauseRoute", "Send nothing through a route; what it accepts waits")
        .reads("Because")
        .gives(&[(200, Json("Gate"))])
        .refuses(&["route-unknown", "operation-conflict"])];

pub(crate) const RESUME: &[Described] =
    &[about("Routes", "resumeRoute", "Let a paused route go on, slowly at first")
        .reads("Because")
        .gives(&[(200, Json("Gate"))])
        .refuses(&["route-unknown", "operation-conflict"])];

pub(crate) const PROBE: &[Described] =
    &[about("Routes", "probeRoute", "Ask the upstream of an open breaker now, by probes")
        .reads("Because")
        .gives(&[(200, Json("Gate"))])
        .refuses(&["route-unknown", "quarantine", "draining"])];

pub(crate) const LOOK_UP_ON_ROUTE: &[Described] =
    &[about("Routes", "lookUpOnRoute", "Ask the upstream about all that is in doubt on a route")
        .gives(&[(200, Json("Tally"))])
        .refuses(&["route-unknown", "operation-conflict", "quarantine"])];

pub(crate) const GET_RECONCILIATION: &[Described] =
    &[about("Routes", "getReconciliation", "Show how a provider's list compares with the ledger")
        .gives(&[(200, Json("Reconciliation"))])
        .refuses(&["not-found"])];

pub(crate) const RESOLVE_BY_LIST: &[Described] =
    &[about("Operations", "resolveByList", "Resolve what is in doubt by a provider's list")
        .reads("ResolveByList")
        .gives(&[(200, Json("Sifted"))])
        .refuses(&["route-unknown", "operation-conflict"])];

pub(crate) const LIST_FILTERS: &[Described] =
    &[about("Filters", "listFilters", "List the saved filters, by name")
        .gives(&[(200, Json("SavedFilterList"))])];

pub(crate) const SAVE_FILTER: &[Described] =
    &[about("Filters", "saveFilter", "Save a filter under a name, in the place of another of it")
        .reads("SavedFilterWanted")
        .gives(&[(200, Json("SavedFilter"))])
        .refuses(&["limit"])];

pub(crate) const DELETE_FILTER: &[Described] =
    &[about("Filters", "deleteFilter", "Delete a saved filter")
        .may_read("Perhaps")
        .gives(&[(200, Json("SavedFilterDeleted"))])
        .refuses(&["not-found"])];

pub(crate) const LIST_BULKS: &[Described] =
    &[about("Bulk", "listBulks", "List bulks").gives(&[(200, Json("BulkList"))])];

pub(crate) const BEGIN_BULK: &[Described] = &[about(
    "Bulk",
    "beginBulk",
    "Act on all operations that match, or that are named; with dry_run, only plan it",
)
.reads("BulkOrder")
.gives(&[(200, Json("BulkPlan")), (202, Json("Bulk"))])
.refuses(&["quarantine", "operation-conflict", "limit", "approval-wanted"])];

pub(crate) const GET_BULK: &[Described] = &[about("Bulk", "getBulk", "Show how far a bulk is")
    .gives(&[(200, Json("Bulk"))])
    .refuses(&["not-found"])];

pub(crate) const STOP_BULK: &[Described] = &[about("Bulk", "stopBulk", "Stop a bulk")
    .reads("Because")
    .gives(&[(200, Json("Bulk"))])
    .refuses(&["not-found", "operation-conflict"])];

pub(crate) const LIST_EVENTS: &[Described] =
    &[about("Events", "listEvents", "List what was published, the newest first")
        .takes(&["eventType", "subject", "hasKey", "after", "before", "cursor", "limit"])
        .gives(&[(200, Json("EventPage"))])];

pub(crate) const PUBLISH: &[Described] = &[about(
    "Events",
    "publish",
    "Publish an event: this form, or a CloudEvent 1.0 as application/cloudevents+json",
)
.takes(&["idempotencyKey"])
.reads("EventWanted")
.gives(&[(202, Json("EventPublished"))])
.says(&["Location"])
.refuses(OF_PUBLISHING)];

/// How an event is refused.
const OF_PUBLISHING: &[&str] = &[
    "body-too-large",
    "option-invalid",
    "key-invalid",
    "key-mismatch",
    "key-expired",
    "key-invalidated",
    "cancelled",
    "response-not-retained",
    "limit",
    "draining",
    "quarantine",
];

pub(crate) const GET_EVENT: &[Described] =
    &[about("Events", "getEvent", "Show an event, and how its deliveries stand")
        .gives(&[(200, Json("EventStory"))])
        .refuses(&["not-found"])];

pub(crate) const LIST_SUBSCRIPTIONS: &[Described] =
    &[about("Events", "listSubscriptions", "List who is told of which events, the oldest first")
        .takes(&["behindSubscription", "limit"])
        .gives(&[(200, Json("SubscriptionList"))])];

pub(crate) const SUBSCRIBE: &[Described] =
    &[about("Events", "subscribe", "Have events delivered; the secret is shown this once")
        .reads("SubscriptionWanted")
        .gives(&[(201, Json("SubscriptionMade"))])
        .refuses(&["url-invalid", "egress-refused", "route-unknown", "limit", "body-too-large"])];

pub(crate) const GET_SUBSCRIPTION: &[Described] =
    &[about("Events", "getSubscription", "Show a subscription, and how its receiver does")
        .gives(&[(200, Json("Subscription"))])
        .refuses(&["not-found"])];

pub(crate) const CHANGE_SUBSCRIPTION: &[Described] = &[about(
    "Events",
    "changeSubscription",
    "Change what is said: events that are fanned out from now on go by it",
)
.reads("SubscriptionChange")
.gives(&[(200, Json("Subscription"))])
.refuses(&["not-found", "url-invalid", "egress-refused", "route-unknown", "body-too-large"])];

pub(crate) const END_SUBSCRIPTION: &[Described] =
    &[about("Events", "endSubscription", "End a subscription, and give up what waits for it")
        .may_read("Perhaps")
        .gives(&[(200, Json("SubscriptionEnded"))])
        .refuses(&["not-found", "draining"])];

pub(crate) const PAUSE_RECEIVER: &[Described] = &[about(
    "Events",
    "pauseSubscription",
    "Send it nothing until it is resumed; what comes waits",
)
.reads("Because")
.gives(&[(200, Json("Subscription"))])
.refuses(&["not-found", "route-unknown"])];

pub(crate) const RESUME_RECEIVER: &[Described] =
    &[about("Events", "resumeSubscription", "Let what waits go on, slowly at first")
        .reads("Because")
        .gives(&[(200, Json("Subscription"))])
        .refuses(&["not-found"])];

pub(crate) const ROTATE_SIGNING: &[Described] = &[about(
    "Events",
    "rotateSigningSecret",
    "Sign with another secret, and with those before it for a while; it is shown this once",
)
.may_read("SigningRotation")
.gives(&[(201, Json("SubscriptionMade"))])
.refuses(&["not-found"])];

pub(crate) const TEST_RECEIVER: &[Described] =
    &[about("Events", "testSubscription", "Publish an event that goes to this one alone")
        .may_read("TestWanted")
        .gives(&[(202, Json("EventPublished"))])
        .says(&["Location"])
        .refuses(&["not-found", "draining", "quarantine", "limit", "body-too-large"])];

pub(crate) const RECOVER: &[Described] = &[about(
    "Events",
    "recoverSubscription",
    "Send again all that failed since then, or deliver what was missed",
)
.reads("Recovery")
.gives(&[(200, Json("Recovered")), (202, Json("Recovered"))])
.refuses(&["not-found", "draining", "quarantine"])];

pub(crate) const LIST_OUTBOXES: &[Described] =
    &[about("Outbox", "listOutboxes", "List the outboxes, and how far behind they are")
        .gives(&[(200, Json("OutboxList"))])];

pub(crate) const GET_OUTBOX: &[Described] =
    &[about("Outbox", "getOutbox", "Show an outbox, and what of it is parked")
        .gives(&[(200, Json("OutboxStory"))])
        .refuses(&["not-found"])];

pub(crate) const RETRY_PARKED: &[Described] =
    &[about("Outbox", "retryParked", "Give parked rows free again")
        .reads("RetryParked")
        .gives(&[(200, Json("Retried"))])
        .refuses(&["not-found"])];

pub(crate) const LIST_SOURCES: &[Described] =
    &[about("Sources", "listSources", "List where webhooks come in")
        .gives(&[(200, Json("SourceList"))])];

pub(crate) const GET_SOURCE: &[Described] = &[about("Sources", "getSource", "Show a source")
    .gives(&[(200, Json("Source"))])
    .refuses(&["source-unknown"])];

pub(crate) const LIST_REJECTS: &[Described] = &[about(
    "Sources",
    "listRejects",
    "List the last webhooks that a source did not take, and why",
)
.takes(&["limit"])
.gives(&[(200, Json("RejectList"))])
.refuses(&["source-unknown"])];

pub(crate) const LIST_ALERTS: &[Described] =
    &[about("Alerts", "listAlerts", "List the alerts that fire, since when, and who was told")
        .gives(&[(200, Json("AlertList"))])];

pub(crate) const TEST_ALERTS: &[Described] =
    &[about("Alerts", "testAlerts", "Send a test to a receiver of alerts")
        .reads("AlertTest")
        .gives(&[(200, Json("AlertTested"))])
        .refuses(&["not-found"])];

pub(crate) const GET_STATS: &[Described] =
    &[about("Ledger", "getStats", "Count what stands where now, and what calls came to over time")
        .takes(&["over"])
        .gives(&[(200, Json("Stats"))])];

pub(crate) const LIST_DUPLICATES: &[Described] = &[about(
    "Ledger",
    "listDuplicates",
    "List the last calls whose key was known, the newest first: a sample where they are many",
)
.takes(&["seen", "limit"])
.gives(&[(200, Json("DuplicatePage"))])];

pub(crate) const LIST_SUSPECTS: &[Described] = &[about(
    "Ledger",
    "listSuspects",
    "List the last suspected doubles, the newest first: the same request under another key, soon after",
)
.takes(&["seen", "limit"])
.gives(&[(200, Json("SuspectPage"))])];

pub(crate) const LIST_AUDIT: &[Described] =
    &[about("Ledger", "listAudit", "List what people did, with who and why, the newest first")
        .takes(&["who", "toWhat", "after", "place", "limit"])
        .gives(&[(200, Json("NotePage"))])];

pub(crate) const VERIFY_AUDIT: &[Described] = &[about(
    "Ledger",
    "verifyAudit",
    "Walk along the chain of the audit, and tell where it breaks",
)
.takes(&["expect"])
.gives(&[(200, Json("AuditVerified"))])];

pub(crate) const EXPORT_AUDIT: &[Described] =
    &[about("Ledger", "exportAudit", "Get the lines of the audit's chain, byte for byte")
        .takes(&["behind", "limit"])
        .gives(&[(200, Lines)])];

pub(crate) const ERASE: &[Described] = &[about(
    "Keys",
    "erase",
    "Erase for good what is kept of a subject, a caller or a key; a mark stays that refuses late duplicates",
)
.reads("Erasure")
.gives(&[(200, Json("Erased"))])
.refuses(&["not-found", "operation-conflict"])];

pub(crate) const BACK_UP: &[Described] =
    &[about("Ledger", "backUp", "Copy the ledger and its master key, while they are in use")
        .reads("BackupTo")
        .gives(&[(200, Json("BackedUp"))])
        .refuses(&["operation-conflict"])];

pub(crate) const RELEASE: &[Described] =
    &[about("Ledger", "release", "Let a restored ledger send")
        .may_read("Perhaps")
        .gives(&[(200, Json("Released"))])
        .refuses(&["operation-conflict"])];

pub(crate) const GET_REKEY: &[Described] =
    &[about("Ledger", "getMasterKeys", "Show which master keys wrap the ledger's own")
        .gives(&[(200, Json("MasterKeys"))])];

pub(crate) const REKEY: &[Described] = &[about(
    "Ledger",
    "rekey",
    "Give the ledger a new master key while it is in use, or take the old ones away",
)
.reads("Rekeying")
.gives(&[(200, Json("MasterKeys"))])
.refuses(&["operation-conflict", "gone-wrong"])];

pub(crate) const LIST_ACCESS: &[Described] =
    &[about("Access", "listAccessKeys", "List the access keys")
        .gives(&[(200, Json("AccessKeyList"))])];

pub(crate) const CREATE_ACCESS: &[Described] =
    &[about("Access", "createAccessKey", "Make an access key; it is shown this once")
        .reads("AccessKeyWanted")
        .gives(&[(201, Json("AccessKeyMade"))])];

pub(crate) const REVOKE_ACCESS: &[Described] =
    &[about("Access", "revokeAccessKey", "Revoke an access key")
        .may_read("Perhaps")
        .gives(&[(200, Json("AccessKeyRevoked"))])
        .refuses(&["not-found"])];

pub(crate) const ROTATE_ACCESS: &[Described] = &[about(
    "Access",
    "rotateAccessKey",
    "Make another key of the same name; the old one goes on for a while",
)
.reads("AccessKeyRotation")
.gives(&[(201, Json("AccessKeyRotated"))])
.refuses(&["not-found"])];

pub(crate) const LIST_SESSIONS: &[Described] =
    &[about("Access", "listSessions", "List who is logged in to the pages")
        .gives(&[(200, Json("SessionList"))])];

pub(crate) const END_SESSION: &[Described] = &[about("Access", "endSession", "End a session")
    .may_read("Perhaps")
    .gives(&[(200, Json("SessionEnded"))])
    .refuses(&["not-found"])];

pub(crate) const GET_DOCUMENT: &[Described] =
    &[about("Health", "getOpenApi", "This document").gives(&[(200, Json("Document"))])];

pub(crate) const GET_METRICS: &[Described] =
    &[about("Health", "getMetrics", "Metrics, as Prometheus reads them").gives(&[(200, Metrics)])];

pub(super) const GET_HEALTH: Described =
    about("Health", "getHealth", "Whether the process answers").gives(&[(200, Text)]);

pub(super) const GET_READY: Described =
    about("Health", "getReadiness", "Whether it takes calls: it can write, and is not ending")
        .gives(&[(200, Text), (503, Text)])
        .refuses(&["ledger-unavailable", "ledger-full"]);
