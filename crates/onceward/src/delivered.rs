//! What an attempt brought: the noun between deliver and settle.

use onceward_core::attempt::{Ending, Reached, Timings};
use onceward_core::exchange::Response;

use crate::upstream::AnswerBody;

/// What an attempt brought.
pub(crate) struct Delivered {
    pub(crate) ending: Ending,
    pub(crate) reached: Reached,
    pub(crate) status: Option<u16>,
    pub(crate) error: Option<String>,
    /// Whether trying again cannot help.
    pub(crate) permanent: bool,
    /// The answer: whole, or as far as it came.
    pub(crate) response: Option<Response>,
    /// The recipients of a mail that have it now, by their place in its request.
    pub(crate) served: Vec<u16>,
    /// What follows of an answer that is larger than what is kept.
    pub(crate) rest: Option<Box<dyn AnswerBody>>,
    /// How long each of its phases took, as far as that was measured.
    pub(crate) timings: Timings,
}
