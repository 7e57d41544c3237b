//! One try at the upstream, and how it ended.

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
