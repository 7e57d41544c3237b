//! What goes wrong, typed by what is left to do about it.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use serde_json::Value;

use crate::answer::Answer;
use crate::call::InvalidCall;
use crate::claims::NotDone;
use crate::shapes::{Advice, Problem, ProblemCode, State};

/// An error of any kind: what an effect of one's own may end in.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Why there is no answer, or no outcome.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It was sent, and nobody knows whether it was done. Never send it again under a new key.
    #[error("{0}")]
    OutcomeUnknown(Refusal),
    /// The first call with this key is under way.
    #[error("{0}")]
    InProgress(Refusal),
    /// The key was used for another request; [`Problem::differs`] says where.
    #[error("{0}")]
    KeyMismatch(Refusal),
    /// The key was used once and opens nothing any more: its window is over, or a person ended it.
    #[error("{0}")]
    KeyExpired(Refusal),
    /// It was done, and its answer is not kept.
    #[error("{0}")]
    ResponseNotRetained(Refusal),
    /// Of a claim: somebody else has it in hand by now. Nothing was changed.
    #[error("{0}")]
    FenceStale(Refusal),
    /// Not now: nothing is known to have gone wrong for good, and the same key may be sent again.
    #[error("{0}")]
    Unavailable(Refusal),
    /// The request has to be another one. Nothing was sent.
    #[error("{0}")]
    Refused(Refusal),
    /// Any other refusal of the gateway's.
    #[error("{0}")]
    Problem(Refusal),
    /// No answer of the gateway's came. The same call with the same key is safe.
    #[error("no answer came: {source}")]
    #[non_exhaustive]
    Unreachable {
        /// The key that the call was made with: make it again with that one.
        key: Option<String>,
        /// What the last attempt met.
        source: BoxError,
    },
    /// An answer is larger than what is read of one; the call itself was made.
    #[error("the answer is larger than {bytes_max} bytes; the call itself was made")]
    #[non_exhaustive]
    AnswerTooLarge {
        /// The key that the call was made with: its outcome lies under that one.
        key: Option<String>,
        /// What is read of an answer, in bytes.
        bytes_max: usize,
    },
    /// An answer is not what the API says that it is: another server's, perhaps. What it was asked may
    /// have been done.
    #[error("the answer cannot be read: {source}")]
    #[non_exhaustive]
    AnswerUnreadable {
        /// The key that the call was made with, where it had one.
        key: Option<String>,
        /// Why not.
        source: BoxError,
    },
    /// What was waited for did not come in time; it goes on by itself.
    #[error("{operation} is {state} still")]
    #[non_exhaustive]
    WaitTimeout {
        /// The operation.
        operation: String,
        /// Where it stood last.
        state: State,
    },
    /// The call cannot be made so. Nothing was sent.
    #[error("{0}")]
    Invalid(#[from] InvalidCall),
    /// The effect of a claim says that nothing was done: its key is free again.
    #[error("{0}")]
    NotDone(NotDone),
    /// The effect of a claim failed, and may have been done.
    #[error("the effect failed: {0}")]
    Effect(#[source] BoxError),
    /// The effect of a claim was done, and did not succeed: that is its outcome, and all get it.
    #[error("{key} has ended, and did not succeed")]
    #[non_exhaustive]
    EffectFailed {
        /// The claim's key.
        key: String,
        /// What was said of it.
        outcome: Value,
    },
    /// The effect was done, and its outcome is not what is asked for.
    #[error("the outcome of {key} cannot be read or written: {source}")]
    #[non_exhaustive]
    Outcome {
        /// The claim's key.
        key: String,
        /// Why not.
        source: serde_json::Error,
    },
    /// The effect of a claim ran, and no answer says that its outcome is written. It is in doubt once its
    /// lease is over, or free to be begun anew where that is harmless, or done where the answer alone was
    /// lost. A `complete` with this fence is believed until somebody has begun it since, or a person has
    /// decided.
    #[error("the effect of {key} ran, and its outcome is not written down: {source}")]
    #[non_exhaustive]
    Unwritten {
        /// The claim's key.
        key: String,
        /// The fence that it was run under.
        fence: u64,
        /// Why not.
        source: Box<Self>,
    },
}

impl Error {
    /// What is left to do.
    pub fn advice(&self) -> Advice {
        match self {
            Self::Unreachable { .. } | Self::NotDone(_) => Advice::SameKey,
            Self::WaitTimeout { .. } => Advice::Wait,
            Self::EffectFailed { .. } => Advice::NewKey,
            Self::Invalid(_) => Advice::FixRequest,
            _ => {
                self.refusal().map_or(Advice::Escalate, |refusal| refusal.problem().advice.clone())
            }
        }
    }

    /// What the gateway said, where it did.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::OutcomeUnknown(refusal)
            | Self::InProgress(refusal)
            | Self::KeyMismatch(refusal)
            | Self::KeyExpired(refusal)
            | Self::ResponseNotRetained(refusal)
            | Self::FenceStale(refusal)
            | Self::Unavailable(refusal)
            | Self::Refused(refusal)
            | Self::Problem(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// What happened, as a word that stays; of the gateway's refusals.
    pub fn code(&self) -> Option<&ProblemCode> {
        self.refusal().map(|refusal| &refusal.problem().code)
    }

    /// The operation that a refusal is about.
    pub fn operation(&self) -> Option<&str> {
        self.refusal()?.problem().operation.as_deref()
    }

    /// The idempotency key of the call, where it had one.
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Unreachable { key, .. }
            | Self::AnswerTooLarge { key, .. }
            | Self::AnswerUnreadable { key, .. } => key.as_deref(),
            Self::EffectFailed { key, .. }
            | Self::Outcome { key, .. }
            | Self::Unwritten { key, .. } => Some(key),
            _ => self.refusal()?.key(),
        }
    }

    /// When it may be asked again, where that was said.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::NotDone(not_done) => not_done.retry_after(),
            _ => self.refusal()?.retry_after(),
        }
    }
}

/// A refusal (RFC 9457), and what it came with.
#[derive(Debug, Clone)]
pub struct Refusal(Box<Told>);

#[derive(Debug, Clone)]
struct Told {
    problem: Problem,
    key: Option<String>,
    retry_after: Option<Duration>,
    answer: Option<Answer>,
}

impl Refusal {
    pub(crate) fn new(problem: Problem, key: Option<String>) -> Self {
        Self(Box::new(Told { problem, key, retry_after: None, answer: None }))
    }

    pub(crate) fn after(mut self, retry_after: Option<Duration>) -> Self {
        self.0.retry_after = retry_after;
        self
    }

    pub(crate) fn answered(mut self, answer: Option<Answer>) -> Self {
        self.0.answer = answer;
        self
    }

    /// The document as it came.
    pub fn problem(&self) -> &Problem {
        &self.0.problem
    }

    /// The idempotency key of the call, where it had one.
    pub fn key(&self) -> Option<&str> {
        self.0.key.as_deref()
    }

    /// When the gateway asks to be asked again, from now.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The upstream's own answer that left it open, where one came.
    pub fn answer(&self) -> Option<&Answer> {
        self.0.answer.as_ref()
    }

    /// The error: by its code, else by its advice, so that codes of later releases fit too.
    pub(crate) fn into_error(self) -> Error {
        let Problem { code, advice, .. } = self.problem();
        match (code, advice) {
            (ProblemCode::OutcomeUnknown, _) => Error::OutcomeUnknown(self),
            (ProblemCode::InProgress | ProblemCode::StillWorking, _) => Error::InProgress(self),
            (ProblemCode::KeyMismatch, _) => Error::KeyMismatch(self),
            (ProblemCode::KeyExpired | ProblemCode::KeyInvalidated | ProblemCode::Cancelled, _) => {
                Error::KeyExpired(self)
            }
            (ProblemCode::ResponseNotRetained, _) => Error::ResponseNotRetained(self),
            (ProblemCode::FenceStale, _) => Error::FenceStale(self),
            (_, Advice::SameKey) => Error::Unavailable(self),
            (_, Advice::FixRequest) => Error::Refused(self),
            _ => Error::Problem(self),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { code, title, detail, .. } = self.problem();
        write!(f, "{code}: {title}. {detail}")
    }
}

const TYPE: &str = "urn:onceward:problem:";

/// The problem in an answer, if it is a refusal of the gateway's: an upstream's own are its answers.
pub(crate) fn problem_in(answer: &Answer) -> Option<Problem> {
    let is_json = answer.header("content-type").is_some_and(|kind| kind.contains("json"));
    // The gateway takes the header of its advice off what upstreams say.
    if answer.status().as_u16() < 400 || !is_json || answer.advice().is_none() {
        return None;
    }
    let problem: Problem = answer.json().ok()?;
    problem.r#type.starts_with(TYPE).then_some(problem)
}

/// A problem that this side says.
pub(crate) fn problem(
    code: ProblemCode,
    status: u16,
    advice: Advice,
    title: &str,
    detail: impl Into<String>,
) -> Problem {
    Problem {
        r#type: format!("{TYPE}{code}"),
        title: title.to_owned(),
        detail: detail.into(),
        status,
        code,
        advice,
        ..Problem::default()
    }
}

/// What is in doubt is told as the gateway tells it.
pub(crate) fn in_doubt(
    operation: Option<&str>,
    key: Option<&str>,
    answer: Option<Answer>,
) -> Error {
    let (status, detail) = match &answer {
        Some(answer) => {
            let status = answer.status().as_u16();
            let said =
                format!("The upstream answered {status}: that does not say whether it was done.");
            (status, said)
        }
        None => (409, "No answer says whether it was done.".to_owned()),
    };
    let title = "Nobody knows whether it was done";
    let code = ProblemCode::OutcomeUnknown;
    let mut said = problem(code, status, Advice::Escalate, title, detail);
    said.operation = operation.map(str::to_owned);
    said.state = Some(State::InDoubt);
    Error::OutcomeUnknown(Refusal::new(said, key.map(str::to_owned)).answered(answer))
}
