//! What came back, as values: nothing here has sent anything.

use std::time::Duration;

use bytes::Bytes;
use onceward::core::exchange::Headers;

use super::ask::Ask;

/// What one request brought.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Answer(Answer),
    /// No answer, and why.
    Lost(String),
}

/// An answer as it came.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Headers,
    /// The body, as far as it is kept.
    pub(crate) body: Bytes,
    /// How long the body was, in bytes.
    pub(crate) length: u64,
    /// Why its body broke off, where it did.
    pub(crate) cut: Option<String>,
    /// From the first byte sent to the last byte read.
    pub(crate) took: Duration,
}

/// A request of a script, and what it brought.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    /// The step of the script.
    pub(crate) act: usize,
    pub(crate) ask: Ask,
    pub(crate) reply: Reply,
}

/// All that was seen of one case.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observed {
    /// In the order of the script.
    pub(crate) heard: Vec<Heard>,
    pub(crate) effects: Effects,
}

/// How many effects a case had.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Effects {
    /// So many.
    Counted(u64),
    /// So many are seen in the answers; those of answers that did not come are not among them.
    AtLeast(u64),
    /// Nobody could count.
    #[default]
    Unknown,
}

impl Effects {
    /// The number, exact or not.
    pub(crate) fn seen(self) -> Option<u64> {
        match self {
            Self::Counted(seen) | Self::AtLeast(seen) => Some(seen),
            Self::Unknown => None,
        }
    }
}

impl Reply {
    pub(crate) fn answer(&self) -> Option<&Answer> {
        match self {
            Self::Answer(answer) => Some(answer),
            Self::Lost(_) => None,
        }
    }

    /// An answer of success.
    pub(crate) fn success(&self) -> Option<&Answer> {
        self.answer().filter(|answer| answer.is_success())
    }

    /// The status, or why there is none.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Answer(Answer { status, cut: Some(cut), .. }) => format!("{status}, but {cut}"),
            Self::Answer(answer) => answer.status.to_string(),
            Self::Lost(why) => format!("no answer ({why})"),
        }
    }
}

impl Answer {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// A refusal that blames the request.
    pub(crate) fn is_refusal(&self) -> bool {
        (400..500).contains(&self.status)
    }

    /// Whether the same request may bring something else soon.
    pub(crate) fn says_wait(&self) -> bool {
        matches!(self.status, 409 | 423 | 425 | 429 | 503)
    }

    /// Whether it calls itself a replay, in one of the names that are in use.
    pub(crate) fn is_marked(&self) -> bool {
        [
            "idempotent-replayed",
            "idempotency-replayed",
            "x-idempotency-replayed",
            "idempotency-replay",
        ]
        .iter()
        .any(|name| self.headers.text(name).is_some_and(|value| value.eq_ignore_ascii_case("true")))
    }

    /// Whether it only says that there will be an outcome.
    pub(crate) fn is_promise(&self) -> bool {
        self.status == 202
    }

    /// Whether status and body are the same; a promise agrees with what became of it.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let promised = self.is_success() && other.is_success();
        let promised = promised && (self.is_promise() || other.is_promise());
        let same =
            self.status == other.status && self.length == other.length && self.body == other.body;
        (same || promised) && self.cut.is_none()
    }
}

impl Observed {
    /// The replies of one step.
    pub(crate) fn of(&self, act: usize) -> impl Iterator<Item = &Reply> {
        self.heard.iter().filter(move |heard| heard.act == act).map(|heard| &heard.reply)
    }

    /// The first reply of one step.
    pub(crate) fn at(&self, act: usize) -> Option<&Reply> {
        self.of(act).next()
    }

    /// Every answer.
    pub(crate) fn answers(&self) -> impl Iterator<Item = &Answer> {
        self.heard.iter().filter_map(|heard| heard.reply.answer())
    }

    /// Every answer of success.
    pub(crate) fn successes(&self) -> impl Iterator<Item = &Answer> {
        self.answers().filter(|answer| answer.is_success())
    }

    /// Whether an answer did not come.
    pub(crate) fn has_lost(&self) -> bool {
        self.heard.iter().any(|heard| heard.reply.answer().is_none())
    }

    /// The replies in words, in order.
    pub(crate) fn words(&self) -> String {
        self.heard.iter().map(|heard| heard.reply.words()).collect::<Vec<_>>().join(", ")
    }
}
