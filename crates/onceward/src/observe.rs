//! Facts for whoever counts and logs: the engine tells, the edge decides what becomes of it.

use onceward_core::attempt::Attempt;
use onceward_core::breaker::Turn;
use onceward_core::id::OperationId;
use onceward_core::lookup::Finding;
use onceward_core::operation::Operation;

use crate::people::Person;
use crate::reconcile::Report;
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
    /// A call was refused whose key says by itself that it is older than keys are kept: its route.
    TooOld(&'a str),
    /// An attempt met a fault on purpose.
    Injected(&'a Operation, Fault),
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
    /// A refusal: under way, in doubt, mismatch.
    Refused,
    /// A refusal after the window.
    Late,
    /// It runs again under the same operation.
    Revived,
}

impl Repeat {
    /// The word for it in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Replayed => "replayed",
            Self::Joined => "joined",
            Self::Refused => "refused",
            Self::Late => "late",
            Self::Revived => "revived",
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
