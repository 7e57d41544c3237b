//! Every refusal there is, as a value; an edge gives it a status and words.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use onceward_core::fingerprint::Part;
use onceward_core::key::KeyError;
use onceward_core::operation::Operation;
use onceward_core::risk::Risk;
use onceward_core::time::Timestamp;
use onceward_core::upstream_key::NoPlace;

use crate::gates::Bar;
use crate::problem::Problem;
use crate::store::StoreError;

/// Why a call gets no answer of its upstream's. A refused request has sent nothing, except where
/// the refusal says that nobody can know.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// The key cannot be read.
    KeyInvalid(KeyError),
    /// The route wants a key and there is none: what the request lacks for it, where it is made of it.
    KeyRequired(Option<String>),
    /// The key is not what the route wants: why.
    KeyWeak(String),
    /// Nothing is known of the key, and by its own time it is older than keys are kept: when it was
    /// made.
    KeyTooOld(Timestamp),
    /// The upstream takes its key in a place that the request has not.
    NoPlaceForKey {
        /// Which place.
        place: String,
        /// Why there is none.
        why: NoPlace,
    },
    /// What was posted is no mail that can be sent: why.
    MailInvalid(String),
    /// The key was used for another request.
    KeyMismatch {
        /// The operation that has the key.
        operation: Box<Operation>,
        /// The parts that differ.
        parts: Vec<Part>,
        /// The places in the JSON body that differ.
        paths: Vec<String>,
        /// The status that the route wants it refused with.
        status: u16,
    },
    /// Whoever says it has not the claim in hand any more: somebody began it since, or a person has
    /// decided.
    FenceStale(Box<Operation>),
    /// The first call is under way and did not end in time.
    InProgress(Box<Operation>),
    /// Nobody knows whether it was done; `first` where this call is the one that sent it.
    OutcomeUnknown {
        /// The operation in doubt.
        operation: Box<Operation>,
        /// Whether this call sent it.
        first: bool,
    },
    /// The window is over.
    KeyExpired(Box<Operation>),
    /// A person dropped the key.
    KeyInvalidated(Box<Operation>),
    /// A person gave the operation up.
    Cancelled(Box<Operation>),
    /// It was done, and its answer is not retained.
    ResponseNotRetained(Box<Operation>),
    /// No attempt reached the upstream.
    UpstreamUnreachable(Box<Operation>),
    /// Attempts were made and none was answered; the same key may run again.
    NoAnswer(Box<Operation>),
    /// The caller would wait longer than it is let.
    StillWorking(Box<Operation>),
    /// A call without a record got no answer.
    PassFailed {
        /// What went wrong.
        error: String,
        /// Whether provably nothing was sent.
        unsent: bool,
    },
    /// There is no such route.
    RouteUnknown(String),
    /// The body is larger than the route takes.
    BodyTooLarge {
        /// The limit in bytes.
        bytes_max: usize,
    },
    /// Too many calls at once.
    Limit {
        /// Which limit.
        what: String,
        /// When to come back.
        retry_after: Duration,
    },
    /// The tenant has as much as it may have.
    TenantLimit {
        /// Whose limit it is.
        tenant: String,
        /// Which, as the configuration calls it.
        what: &'static str,
        /// When to come back.
        retry_after: Duration,
    },
    /// Nothing may go to the upstream now.
    Barred {
        /// Why.
        why: Bar,
        /// When to come back.
        retry_after: Duration,
    },
    /// The ledger cannot take it.
    Ledger(StoreError),
    /// What a person wants cannot follow from where the operation stands.
    Conflict {
        /// The operation.
        operation: Box<Operation>,
        /// Why not.
        why: String,
    },
    /// What a person wants is kept, and done when another asks for the same.
    SecondWanted {
        /// The operation.
        operation: Box<Operation>,
        /// Who asked.
        who: String,
        /// For what.
        what: String,
    },
    /// What a person wants could be a second effect, and that risk was not taken.
    RiskUnaccepted {
        /// The operation.
        operation: Box<Operation>,
        /// Which risk.
        risk: Risk,
    },
    /// There is no such operation or key.
    NotFound,
    /// The gateway is ending.
    Draining,
}

impl Refusal {
    /// What a person wants cannot follow from where `operation` stands, and why.
    pub(crate) fn conflict(operation: &Operation, why: impl Into<String>) -> Self {
        Self::Conflict { operation: Box::new(operation.clone()), why: why.into() }
    }
}

/// What its problem says of it.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Problem::from(self.clone()).detail)
    }
}

impl Error for Refusal {}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Ledger(error)
    }
}
