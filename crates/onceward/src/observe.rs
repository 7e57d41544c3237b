//! Facts for whoever counts and logs: the engine tells, the edge decides what becomes of it.

use onceward_core::attempt::Attempt;
use onceward_core::breaker::Turn;
use onceward_core::id::OperationId;
use onceward_core::lookup::Finding;
use onceward_core::operation::Operation;
use onceward_core::saga::Standing;

use crate::people::Person;
use crate::reconcile::Report;
use crate::store::Swept;
use crate::upstream::Fault;

/// Something that happened.
#[derive(Debug, Clone, Copy)]
pub enum Fact<'a> {
    /// A new operation is in the ledger.
    Remembered(&'a Operation),
    /// An attempt ended; the operation is as it is after the verdict.
    Attempted(&'a Operation, &'a Attempt),
    /// An operation came to rest: done, dead or in doubt.
    Rested(&'a Operation),
    /// A key was asked for again and answered without the upstream.
    Duplicate(&'a Operation, Repeat),
    /// A new operation has the request that this one had under another key a short while ago; the
    /// how manieth since.
    Suspected(&'a Operation, OperationId, u32),
    /// A call was refused whose key says by itself that it is older than keys are kept.
    TooOld {
        /// Whose call.
        tenant: &'a str,
        /// Its route.
        route: &'a str,
    },
    /// An attempt met a fault on purpose.
    Injected(&'a Operation, Fault),
    /// Somebody's own handler did this to a claim, or learnt this of it.
    Claimed(&'a Operation, ClaimTurn),
    /// A saga moved on; where it came to stand, if it stood elsewhere before.
    Saga(&'a Operation, Option<Standing>),
    /// Whoever had it in hand was gone, or taken for gone, and what had to follow was decided here.
    Orphaned(&'a Operation),
    /// A person acted.
    Acted(&'a Operation),
    /// The upstream was asked what became of an operation in doubt: what came of it, in words
    /// without values of the request or the answer.
    Looked(&'a Operation, Finding, &'a str),
    /// A route was held against its provider's list.
    Reconciled(&'a str, &'a Report),
    /// The breaker of a route opened or closed.
    Breaker(&'a str, Turn),
    /// A route is paused from now on, or goes on.
    Paused(&'a str, bool),
    /// A person did this to a route.
    Steered(&'a str, &'static str, &'a Person),
    /// What was over was forgotten.
    Swept(&'a Swept),
    /// Something of ours did not work; what it was about goes on.
    Trouble(&'a str),
}

/// What a duplicate got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// The stored answer.
    Replayed,
    /// The winner's answer, after waiting for it.
    Joined,
    /// A refusal: under way, in doubt.
    Refused,
    /// A refusal, since it is another request.
    Mismatch,
    /// A refusal after the window.
    Late,
    /// It runs again under the same operation.
    Revived,
}

impl Repeat {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Replayed, Self::Joined, Self::Refused, Self::Mismatch, Self::Late, Self::Revived];

    /// The word for it in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Replayed => "replayed",
            Self::Joined => "joined",
            Self::Refused => "refused",
            Self::Mismatch => "mismatch",
            Self::Late => "late",
            Self::Revived => "revived",
        }
    }
}

/// A turn in a claim's life, or what somebody learnt who wanted one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimTurn {
    /// Somebody has it in hand from now on.
    Begun,
    /// It is done.
    Done,
    /// It was given back undone.
    Released,
    /// Its lease was over, or its holder did not know how it ended.
    Lapsed,
    /// Somebody else had it in hand.
    Busy,
    /// It was done already, and its outcome was told.
    Told,
    /// A word under an old fence was refused.
    Stale,
}

impl ClaimTurn {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Begun,
        Self::Done,
        Self::Released,
        Self::Lapsed,
        Self::Busy,
        Self::Told,
        Self::Stale,
    ];

    /// The word for it in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Done => "done",
            Self::Released => "released",
            Self::Lapsed => "lapsed",
            Self::Busy => "busy",
            Self::Told => "told",
            Self::Stale => "stale",
        }
    }
}

/// Whoever wants to know. Called on the hot path: it has to be quick and must not block.
pub trait Observer: Send + Sync + 'static {
    /// Takes note.
    fn observe(&self, fact: Fact<'_>);
}

/// Nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn observe(&self, _: Fact<'_>) {}
}
