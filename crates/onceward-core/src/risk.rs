//! What sending an operation again by hand could do: shown before a person decides, and asked for
//! by name where it could do harm.

use crate::operation::{Operation, State};
use crate::policy::Effects;
use crate::time::Timestamp;

/// What a redelivery could do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Risk {
    /// Nothing was done at the upstream, or repeating it is harmless.
    Safe,
    /// It may have been done, and the upstream dedupes by the key that goes with it.
    SameKey,
    /// It may have been done, and a second arrival would be a second effect.
    Unknown,
    /// It may have been done, and the upstream may have forgotten the key.
    WindowOver,
    /// It was done.
    DoneAlready,
}

impl Risk {
    /// All of them, the harmless ones first.
    pub const ALL: [Self; 5] =
        [Self::Safe, Self::SameKey, Self::Unknown, Self::WindowOver, Self::DoneAlready];

    /// The word for it in answers and requests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Safe => "safe",
            Self::SameKey => "same-key",
            Self::Unknown => "unknown",
            Self::WindowOver => "window-over",
            Self::DoneAlready => "done-already",
        }
    }

    /// Reads the word.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|risk| risk.name() == name)
    }

    /// What a redelivery could do, in a sentence.
    pub fn words(self) -> &'static str {
        match self {
            Self::Safe => "Nothing was done at the upstream, or doing it again is harmless.",
            Self::SameKey => {
                "It may have been done; the upstream dedupes by the key that goes with it."
            }
            Self::Unknown => {
                "It may have been done, and nobody knows: sending it again could do it twice."
            }
            Self::WindowOver => {
                "It may have been done, and the upstream may have forgotten the key by now: sending it again could do it twice."
            }
            Self::DoneAlready => {
                "It was done: only edit and resend, which makes a new operation, sends it again."
            }
        }
    }

    /// Whether a second effect is possible, so that a person has to say that they take it.
    pub fn wants_a_word(self) -> bool {
        match self {
            Self::Safe | Self::SameKey => false,
            Self::Unknown | Self::WindowOver | Self::DoneAlready => true,
        }
    }

    /// Whether a person can take it: what is done is not sent again under its key.
    pub fn can_be_taken(self) -> bool {
        self != Self::DoneAlready
    }
}

/// What asking anew what `operation` asked could do: that goes under another key, by which no upstream dedupes.
pub fn risk_anew(operation: &Operation) -> Risk {
    if operation.state == State::Done {
        return Risk::DoneAlready;
    }
    match operation.effects {
        _ if !operation.may_have_executed() => Risk::Safe,
        Effects::Idempotent => Risk::Safe,
        Effects::Keyed | Effects::NonIdempotent => Risk::Unknown,
    }
}

/// What sending `operation` again at `now` could do.
pub fn risk(operation: &Operation, now: Timestamp) -> Risk {
    if operation.state == State::Done {
        return Risk::DoneAlready;
    }
    if !operation.may_have_executed() {
        return Risk::Safe;
    }
    match operation.effects {
        Effects::Idempotent => Risk::Safe,
        Effects::Keyed if operation.send_by.is_some_and(|send_by| now >= send_by) => {
            Risk::WindowOver
        }
        Effects::Keyed => Risk::SameKey,
        Effects::NonIdempotent => Risk::Unknown,
    }
}
