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
    /// Whether what was lacking was lacking here: an access token, a slot, time.
    pub(crate) is_ours: bool,
    /// Whether nothing was tried, and it is to be taken anew: it is no attempt then.
    pub(crate) is_put_off: bool,
    /// The answer: whole, or as far as it came.
    pub(crate) response: Option<Response>,
    /// The recipients of a mail that have it now, by their place in its request.
    pub(crate) served: Vec<u16>,
    /// What follows of an answer that is larger than what is kept.
    pub(crate) rest: Option<Box<dyn AnswerBody>>,
    /// How long each of its phases took, as far as that was measured.
    pub(crate) timings: Timings,
}

impl Delivered {
    /// An answer, and what there is to say of it.
    pub(crate) fn answered(
        response: Response,
        note: Option<String>,
        rest: Option<Box<dyn AnswerBody>>,
        timings: Timings,
    ) -> Self {
        Self {
            ending: Ending::Answered,
            reached: Reached::Body,
            status: Some(response.status),
            error: note,
            permanent: false,
            is_ours: false,
            is_put_off: false,
            response: Some(response),
            served: Vec::new(),
            rest,
            timings,
        }
    }

    /// Nothing was sent, because of something here, and trying again cannot help.
    pub(crate) fn not_sent(why: &str) -> Self {
        Self {
            ending: Ending::Unsent,
            reached: Reached::Nothing,
            status: None,
            error: Some(why.to_owned()),
            permanent: true,
            is_ours: true,
            is_put_off: false,
            response: None,
            served: Vec::new(),
            rest: None,
            timings: Timings::default(),
        }
    }

    /// Whether it says nothing of whom it was for, who was not asked: what was lacking was lacking here, or the
    /// address was refused here, before it was dialled or once it was known.
    pub(crate) fn says_nothing(&self) -> bool {
        let is_near = matches!(self.reached, Reached::Nothing | Reached::Resolved);
        self.is_ours || self.permanent && self.ending == Ending::Unsent && is_near
    }
}
