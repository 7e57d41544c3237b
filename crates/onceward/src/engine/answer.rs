//! What a call gets: an answer of the upstream's, a receipt, or what passed through.

use std::fmt;

use onceward_core::exchange::{Headers, Response};
use onceward_core::operation::Operation;

use crate::upstream::AnswerBody;

/// What a call gets.
pub enum Answer {
    /// An answer of the upstream's, of this call or from memory.
    Upstream(Box<Answered>),
    /// It is on disk and will be delivered.
    Accepted(Box<Operation>),
    /// It passed through without a record.
    Passed {
        /// The status.
        status: u16,
        /// The headers, as they came.
        headers: Headers,
        /// The body, as it comes.
        body: Box<dyn AnswerBody>,
    },
}

/// An answer of the upstream's.
pub struct Answered {
    /// The operation, as it stands.
    pub operation: Operation,
    /// The answer.
    pub response: Response,
    /// What follows of a large one.
    pub rest: Option<Box<dyn AnswerBody>>,
    /// Whether it comes from memory.
    pub replayed: bool,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upstream(answered) => answered.fmt(f),
            Self::Accepted(operation) => f.debug_tuple("Accepted").field(&operation.id).finish(),
            Self::Passed { status, .. } => {
                f.debug_struct("Passed").field("status", status).finish_non_exhaustive()
            }
        }
    }
}

impl fmt::Debug for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Answered");
        shown.field("operation", &self.operation.id).field("status", &self.response.status);
        shown.field("replayed", &self.replayed).finish_non_exhaustive()
    }
}
