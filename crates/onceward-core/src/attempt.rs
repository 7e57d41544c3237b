//! One try at the upstream, and how it ended.

use std::time::Duration;

use crate::lease::Session;
use crate::time::Timestamp;

/// One try, numbered from 1. It is in the ledger before the first byte leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Its number; redeliveries count on.
    pub n: u32,
    /// Whose it is; of a claim, the fence that its holder was given.
    pub by: Session,
    /// When it was allowed to start.
    pub started_at: Timestamp,
    /// How it ended; nothing while it runs.
    pub ended: Option<Ended>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// When.
    pub at: Timestamp,
    /// In which of three ways.
    pub ending: Ending,
    /// How far it got.
    pub reached: Reached,
    /// The status of the answer, where one came.
    pub status: Option<u16>,
    /// What went wrong, in words for a person; never a body, never a credential.
    pub error: Option<String>,
    /// Whether the upstream may have done what was asked.
    pub may_have_executed: bool,
    /// Where the answer is kept, where it is.
    pub answer: Option<BodyRef>,
    /// How long each of its phases took, as far as that was measured.
    pub timings: Timings,
}

/// The three ways in which an attempt ends. "Timeout" is none of them: it is unsent or unanswered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// A whole response came.
    Answered,
    /// A response began and broke off: its status is known, its body is not.
    Truncated,
    /// Provably nothing was sent.
    Unsent,
    /// It may have been executed; nobody can know.
    Unanswered,
}

impl Ending {
    /// The word for it in answers and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Truncated => "truncated",
            Self::Unsent => "unsent",
            Self::Unanswered => "unanswered",
        }
    }
}

/// How far an attempt got, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reached {
    /// Not even a name was resolved.
    Nothing,
    /// The upstream's address is known.
    Resolved,
    /// A connection is open.
    Connected,
    /// TLS is agreed.
    Secured,
    /// Some of the request was written.
    Sent,
    /// The head of an answer came.
    Head,
    /// The whole answer came.
    Body,
}

impl Reached {
    /// All of them, in order.
    pub const ALL: [Self; 7] = [
        Self::Nothing,
        Self::Resolved,
        Self::Connected,
        Self::Secured,
        Self::Sent,
        Self::Head,
        Self::Body,
    ];

    /// The word for it in answers and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Resolved => "resolved",
            Self::Connected => "connected",
            Self::Secured => "secured",
            Self::Sent => "sent",
            Self::Head => "head",
            Self::Body => "body",
        }
    }
}

/// What an attempt spends its time on, in order. Where one broke off, the last phase that it came to
/// is the one that it broke off in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Waiting for an access token of ours.
    Token,
    /// Looking up the upstream's address (DNS).
    Resolve,
    /// Opening a connection, or waiting for one that somebody else opens.
    Connect,
    /// Agreeing on TLS.
    Tls,
    /// Writing the request to its connection. Over HTTP/2, where many share one, it is within `Head`.
    Send,
    /// Waiting for the head of an answer.
    Head,
    /// Reading the rest of it.
    Body,
}

impl Phase {
    /// All of them, in order.
    pub const ALL: [Self; 7] =
        [Self::Token, Self::Resolve, Self::Connect, Self::Tls, Self::Send, Self::Head, Self::Body];

    /// The word for it in answers and traces.
    pub fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Send => "send",
            Self::Head => "head",
            Self::Body => "body",
        }
    }
}

/// How long each phase of an attempt took, in whole microseconds, begun ones counted: so a phase that
/// was come to is never nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// By the place of the phase; nothing where it was not come to.
    micros: [u64; Phase::ALL.len()],
    /// Whether its connection had carried requests before, so that none was opened for it.
    pub reused: bool,
}

impl Timings {
    /// No phase yet; `reused` where its connection had carried requests before.
    pub fn new(reused: bool) -> Self {
        Self { reused, ..Self::default() }
    }

    /// Adds what `phase` took, or took again.
    pub fn add(&mut self, phase: Phase, took: Duration) {
        let micros = &mut self.micros[phase as usize];
        let more = u64::try_from(took.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX);
        *micros = micros.saturating_add(more.max(1));
    }

    /// How long `phase` took; nothing where the attempt did not come to it, or nobody measured.
    pub fn of(&self, phase: Phase) -> Option<Duration> {
        let micros = self.micros[phase as usize];
        (micros > 0).then(|| Duration::from_micros(micros))
    }

    /// Each phase that the attempt came to, in order, and how long it took.
    pub fn each(&self) -> impl Iterator<Item = (Phase, Duration)> + '_ {
        Phase::ALL.into_iter().filter_map(|phase| Some((phase, self.of(phase)?)))
    }

    /// All phases together.
    pub fn sum(&self) -> Duration {
        self.each().map(|(_, took)| took).fold(Duration::ZERO, Duration::saturating_add)
    }

    /// Whether nobody measured anything.
    pub fn is_empty(&self) -> bool {
        self.each().next().is_none()
    }
}

/// Where a store keeps a request or an answer. Only the store reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyRef {
    /// The segment or table that holds it.
    pub segment: u32,
    /// The place in it.
    pub offset: u32,
    /// Its length in bytes.
    pub length: u32,
    /// The CRC-32 of its bytes.
    pub crc: u32,
}

impl Attempt {
    /// Whether the upstream may have done what was asked. It may where the attempt still runs.
    pub fn may_have_executed(&self) -> bool {
        self.ended.as_ref().is_none_or(|ended| ended.may_have_executed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_that_was_come_to_is_never_nothing_and_adds_up() {
        let mut timings = Timings::default();
        assert!(timings.is_empty());
        timings.add(Phase::Send, Duration::ZERO);
        timings.add(Phase::Head, Duration::from_nanos(1_001));
        timings.add(Phase::Head, Duration::from_micros(3));
        let told: Vec<_> = timings.each().map(|(phase, took)| (phase, took.as_micros())).collect();
        assert_eq!(told, [(Phase::Send, 1), (Phase::Head, 5)]);
        assert_eq!(timings.sum(), Duration::from_micros(6));
        assert_eq!(timings.of(Phase::Resolve), None);
        timings.add(Phase::Head, Duration::MAX);
        assert_eq!(timings.of(Phase::Head), Some(Duration::from_micros(u64::MAX)));
    }

    #[test]
    fn phases_stand_in_order() {
        for (place, phase) in Phase::ALL.into_iter().enumerate() {
            assert_eq!(phase as usize, place, "{}", phase.name());
        }
    }
}
