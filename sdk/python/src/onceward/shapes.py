"""What the gateway says and is told, made by `sdk/shapes.py` of the document of its API."""

from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

#: What is left to do
Advice: TypeAlias = Literal["same-key", "wait", "new-key", "fix-request", "escalate"]

#: What `type` ends in
ProblemCode: TypeAlias = Literal[
    "approval-wanted",
    "body-too-large",
    "breaker-open",
    "cancelled",
    "draining",
    "egress-refused",
    "fence-stale",
    "forbidden",
    "gone-wrong",
    "in-progress",
    "key-expired",
    "key-invalid",
    "key-invalidated",
    "key-mismatch",
    "key-required",
    "ledger-full",
    "ledger-unavailable",
    "limit",
    "login-refused",
    "loop",
    "media-type-unsupported",
    "method-not-allowed",
    "no-answer",
    "no-outcome",
    "not-found",
    "operation-conflict",
    "operation-open",
    "option-invalid",
    "outcome-unknown",
    "outside-hours",
    "quarantine",
    "reauthorize-failed",
    "request-invalid",
    "response-not-retained",
    "risk-unaccepted",
    "route-paused",
    "route-unknown",
    "source-unknown",
    "still-working",
    "unauthenticated",
    "upgrade-refused",
    "upstream-held",
    "upstream-unreachable",
    "url-invalid",
    "webhook-rejected",
]

State: TypeAlias = Literal["pending", "delivering", "in_doubt", "done", "dead"]

#: RFC 3339; answers are in UTC and have milliseconds
Time: TypeAlias = str

OperationId: TypeAlias = str

RiskName: TypeAlias = Literal["safe", "same-key", "unknown", "window-over", "done-already"]


class Problem(TypedDict):
    """A refusal (RFC 9457). A refused request has sent nothing, except where it says that nobody can know."""

    advice: Advice
    code: ProblemCode
    #: What happened
    detail: str
    #: Of key-mismatch
    differs: NotRequired[list[str]]
    ended: NotRequired[State]
    #: Where the route's callers read another shape: what a Stripe SDK throws on
    error: NotRequired[dict[str, Any]]
    evidence: NotRequired[str | None]
    expired_at: NotRequired[str]
    instance: NotRequired[str]
    #: Which limit of a tenant's is reached
    limit: NotRequired[
        Literal[
            "rate",
            "concurrency_max",
            "backlog_max",
            "keys_max",
            "kept_bytes_max",
        ]
    ]
    made_at: NotRequired[Time]
    ok: NotRequired[bool | None]
    operation: NotRequired[OperationId]
    original_status: NotRequired[int | None]
    #: Of key-mismatch: the JSON pointers that differ
    paths: NotRequired[list[str]]
    #: What a person said
    reason: NotRequired[str]
    risk: NotRequired[RiskName]
    source: NotRequired[str | None]
    state: NotRequired[State]
    status: int
    title: str
    type: str
    used_at: NotRequired[Time]
    what: NotRequired[str]


class Act(TypedDict):
    """What a person did"""

    at: Time
    deed: NotRequired[
        Literal[
            "redelivered",
            "cancelled",
            "resolved_done",
            "resolved_not_sent",
            "forgot",
            "extended",
            "rotated",
            "resent",
            "retried",
        ]
    ]
    reason: str
    who: str


class Timings(TypedDict):
    """How long each phase of an attempt took, in milliseconds; `null` where it did not come to one. Where it broke off, the last phase that has a time is the one that it broke off in. Claims, and attempts of releases that did not measure, have none"""

    #: Reading the rest of the answer; of a mail, the good-bye
    body: float | None
    #: Opening a connection, or waiting for one that another call opens
    connect: float | None
    #: Waiting for the head of the answer; of a mail, for the reply to its end
    head: float | None
    #: Looking up the upstream's address (DNS)
    resolve: float | None
    #: Whether its connection had carried requests before, so that none was opened
    reused: bool
    #: Writing the request; over HTTP/2 it is within `head`. Of a mail, all up to the dot that ends it
    send: float | None
    #: Agreeing on TLS
    tls: float | None
    #: Waiting for the route's access token
    token: float | None


class Attempt(TypedDict):
    ended_at: str | None
    #: `unsent`: provably nothing was sent; `unanswered`: it may have been executed
    ending: Literal["answered", "truncated", "unsent", "unanswered"] | None
    error: str | None
    #: Whether its answer is kept
    excerpt: bool
    may_have_executed: bool
    #: Numbered from 1
    n: int
    #: How far it got
    reached: Literal["nothing", "resolved", "connected", "secured", "sent", "head", "body"] | None
    started_at: Time
    status: int | None
    timings: NotRequired[Timings | None]

#: What a second arrival at the upstream would do
Effects: TypeAlias = Literal["idempotent", "keyed", "non-idempotent"]

Kind: TypeAlias = Literal[
    "call",
    "unique",
    "callback",
    "claim",
    "event",
    "delivery",
    "saga",
    "step",
]

Mode: TypeAlias = Literal["held", "accepted"]


class OperationLooks(TypedDict):
    """How often the upstream was asked what became of it"""

    absent: int
    made: int
    next: str | None


class OperationOutcome(TypedDict):
    ok: bool
    #: Whether its answer is kept
    retained: bool
    #: Who says so
    source: NotRequired[
        Literal[
            "upstream",
            "late_answer",
            "truncated",
            "too_large",
            "inferred",
            "person",
            "lookup",
            "webhook",
            "holder",
            "steps",
        ]
    ]
    status: int | None


class OperationRisk(TypedDict):
    """What a redelivery could do"""

    name: RiskName
    why: str


class OperationSubject(TypedDict):
    name: str
    sequence: int | None


class OperationUpstreamKey(TypedDict):
    """The key that the upstream dedupes by, and where it takes it"""

    place: str
    value: str


class Operation(TypedDict):
    """One intended effect, and what has become of it"""

    #: What people did, the oldest first
    acts: list[Act]
    #: Operations that turned out to be this one
    aliases: list[OperationId]
    attempts: list[Attempt]
    callback: str | None
    created_at: Time
    #: When its next attempt may begin
    due_at: str | None
    effects: Effects
    ended_at: str | None
    flow: str | None
    #: What the next use of its key meets
    forgotten: Literal["refuse", "new"] | None
    id: OperationId
    #: What it is found by: what its answer made, and of a mail what it says itself
    ids: dict[str, str]
    key: str
    key_expires_at: str | None
    kind: Kind
    label: str | None
    #: Of claims
    lease_until: str | None
    #: How often the upstream was asked what became of it
    looks: OperationLooks | None
    method: str
    mode: Mode
    #: Whether its outcome is what its route calls a success
    ok: bool | None
    outcome: OperationOutcome | None
    parent: str | None
    path: str
    #: Who asked
    principal: str
    #: Why it is dead
    reason: NotRequired[
        Literal[
            "refused",
            "exhausted",
            "unsent",
            "cancelled",
            "owner_gone",
            "superseded",
        ] | None
    ]
    #: Whether sending it again is safe
    retry: str
    #: What a redelivery could do
    risk: OperationRisk | None
    #: Where it goes
    route: str
    #: Within what its key is unique
    scope: str
    #: Past it, the upstream may have forgotten its key
    send_by: str | None
    state: State
    subject: OperationSubject | None
    superseded_by: str | None
    tenant: str
    #: Whether a caller was told of its end
    told: bool
    #: Its trace (W3C Trace Context): its caller's, or where traces are told its own
    trace: NotRequired[str | None]
    #: The key that the upstream dedupes by, and where it takes it
    upstream_key: OperationUpstreamKey | None
    #: The way it came in, where that was no call
    via: str | None


class OperationStoryDuplicates(TypedDict):
    count: int
    last: list[Time]


class OperationStory(Operation):
    """An operation, told whole"""

    #: The one about the same subject that is before it
    blocked_by: NotRequired[str | None]
    #: How many wait behind it
    blocks: NotRequired[int]
    duplicates: OperationStoryDuplicates

#: Header lines in order, each its name and its value
HeaderLines: TypeAlias = list[list[str]]


class Answer(TypedDict):
    #: The body, where it is text
    body: str | None
    #: The body, where it is not
    body_base64: str | None
    #: In evidence
    body_sha256: NotRequired[str]
    #: Whether this is only its beginning
    cut: NotRequired[bool]
    #: Whether it is what the last attempt brought
    excerpt: NotRequired[bool]
    headers: HeaderLines
    status: int

#: Numbers with ms, s, m (or min), h or d, added up
Duration: TypeAlias = str

PerhapsDuration: TypeAlias = Duration | None


class Begin(TypedDict):
    effects: NotRequired[Literal["idempotent", "keyed", "non-idempotent"] | None]
    #: What must be equal for the same: a text, or any JSON value, of up to 1,024 bytes
    fingerprint: NotRequired[Any]
    #: Who has it in hand
    holder: NotRequired[str | None]
    #: How long it is in hand
    lease: NotRequired[PerhapsDuration]
    #: The same begin again, after an answer that was lost
    nonce: NotRequired[str | None]
    #: How long somebody else's outcome is waited for, up to a minute
    wait: NotRequired[PerhapsDuration]

#: Grows with each begin, so that who lost a claim cannot end it
Fence: TypeAlias = int

PerhapsBase64: TypeAlias = str | None


class Complete(TypedDict):
    #: Of outcome_base64
    content_type: NotRequired[str | None]
    fence: Fence
    ok: NotRequired[bool | None]
    #: Any JSON value, kept as it is written
    outcome: NotRequired[Any]
    outcome_base64: NotRequired[PerhapsBase64]


class Release(TypedDict):
    fence: Fence
    may_have_executed: NotRequired[bool]
    reason: NotRequired[str | None]
    retry_after: NotRequired[PerhapsDuration]


class Renew(TypedDict):
    fence: Fence
    lease: NotRequired[PerhapsDuration]


class Claim(TypedDict):
    attempt: int
    content_type: NotRequired[str]
    effects: Effects
    fence: NotRequired[int]
    holder: NotRequired[str]
    key: str
    key_expires_at: NotRequired[Time]
    lease_until: NotRequired[Time]
    ok: NotRequired[bool]
    operation: OperationId
    outcome: NotRequired[Any]
    outcome_base64: NotRequired[str]
    retry_after_ms: NotRequired[int]
    status: Literal["acquired", "busy", "done", "in_doubt", "released", "lapsed", "expired"]
