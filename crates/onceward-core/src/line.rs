//! The line of those about one subject: whose turn it is, who waits, and what is superseded.
//!
//! One at a time has the turn. Those that wait stand in the order of their sequence, those without
//! one before the others and in the order in which they came. An older one than one that was done,
//! or that may have been, is superseded: sent after it, it could land on top of it.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::id::OperationId;
use crate::operation::{Death, EXHAUSTED_WINDOW, Operation, State};
use crate::time::Timestamp;

/// Where an operation stands in its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Its place in the caller's own order.
    pub sequence: Option<u64>,
    /// Which.
    pub id: OperationId,
}

impl Place {
    /// The place of an operation that has a subject.
    pub fn of(operation: &Operation) -> Option<Self> {
        let subject = operation.subject.as_ref()?;
        Some(Self { sequence: subject.sequence, id: operation.id })
    }
}

/// Who has the turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Turn {
    /// Nobody.
    #[default]
    Free,
    /// This one, until it comes to rest.
    Of(Place),
    /// It is being taken back from this one. Whoever completes that has to write the operation
    /// anew first, so that a turn that somebody gives it late is refused by its fence.
    BackFrom(Place),
}

/// One that came to rest without being done, and those behind it wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Which.
    pub place: Place,
    /// They wait until then.
    pub until: Timestamp,
}

/// A line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Line {
    /// Who has the turn.
    pub turn: Turn,
    /// The newest one that was done, or may have been.
    pub newest: Option<Place>,
    /// The highest sequence that has had its end, however that was.
    pub passed: Option<u64>,
    /// Who keeps those behind it from going.
    pub block: Option<Block>,
    /// Who waits, first come first.
    pub waiting: Vec<Place>,
    /// Nobody asks for what was newest any more.
    pub ends_at: Timestamp,
}

/// What a line needs next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nobody waits.
    Rest,
    /// These are superseded by that one.
    Supersede(Vec<Place>, OperationId),
    /// This one has the turn: whether it has ended has to be looked at.
    Look(Place),
    /// The turn of this one has to be taken back to the end.
    TakeBack(Place),
    /// It is this one's turn.
    Go(Place),
    /// This one is first and may not go before that time.
    Wait(Place, Timestamp),
}

/// How one of a line came to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Whether it was done, or may have been.
    pub counts: bool,
    /// Until when those behind it wait.
    pub blocks_until: Option<Timestamp>,
    /// When its key and its mark are forgotten.
    pub forgotten_at: Timestamp,
}

impl End {
    /// How `operation` came to rest; nothing where it has not. A dead one and one in doubt keep
    /// others waiting for `block_max` from its end, unless a person gave it up.
    pub fn of(operation: &Operation, block_max: Duration, now: Timestamp) -> Option<Self> {
        let kept = operation.window.max(EXHAUSTED_WINDOW);
        let ended = operation.attempts.last().and_then(|attempt| attempt.ended.as_ref());
        let ended_at = operation.ended_at.or_else(|| Some(ended?.at)).unwrap_or(now);
        let forgotten_at = ended_at.plus(kept).plus(operation.tombstone);
        let may_have = operation.may_have_executed();
        let until = Some(ended_at.plus(block_max)).filter(|until| *until > now);
        let (counts, blocks_until) = match operation.state {
            State::Pending { .. } | State::Delivering => return None,
            State::Done => (may_have || operation.outcome.as_ref().is_none_or(|it| it.ok), None),
            State::InDoubt => (true, until),
            State::Dead(Death::Superseded) => (false, None),
            State::Dead(Death::Cancelled) => (may_have, None),
            State::Dead(_) => (may_have, until),
        };
        Some(Self { counts, blocks_until, forgotten_at })
    }
}

impl Line {
    /// What the line of `subject` is called: 32 digits, the same for all of a tenant's on a route.
    pub fn name(tenant: &str, route: &str, subject: &str) -> String {
        let mut digest = Sha256::new();
        for part in [tenant, route, subject] {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        let digest: [u8; 32] = digest.finalize().into();
        let number =
            digest[..16].iter().fold(0u128, |number, byte| number << 8 | u128::from(*byte));
        format!("{number:032x}")
    }

    /// Whether this one is in the line.
    pub fn has(&self, id: OperationId) -> bool {
        self.head().is_some_and(|head| head.id == id)
            || self.waiting.iter().any(|place| place.id == id)
    }

    /// Who has the turn, or has it still.
    pub fn head(&self) -> Option<Place> {
        match self.turn {
            Turn::Free => None,
            Turn::Of(head) | Turn::BackFrom(head) => Some(head),
        }
    }

    /// One joins those that wait; tells whether it was not among them.
    pub fn join(&mut self, place: Place) -> bool {
        if self.has(place.id) {
            return false;
        }
        // Whoever is there again keeps nobody waiting by having ended.
        self.block = self.block.filter(|block| block.place.id != place.id);
        let at = self.waiting.partition_point(|other| *other < place);
        self.waiting.insert(at, place);
        true
    }

    /// One leaves without an end: it is gone.
    pub fn leave(&mut self, id: OperationId) {
        self.waiting.retain(|place| place.id != id);
        if self.head().is_some_and(|head| head.id == id) {
            self.turn = Turn::Free;
        }
        self.block = self.block.filter(|block| block.place.id != id);
    }

    /// One came to rest.
    pub fn end(&mut self, place: Place, end: End) {
        self.leave(place.id);
        if let Some(sequence) = place.sequence {
            self.passed = self.passed.max(Some(sequence));
            if end.counts && self.newest.is_none_or(|newest| newest.sequence <= place.sequence) {
                self.newest = Some(place);
            }
            self.ends_at = self.ends_at.max(end.forgotten_at);
        }
        let Some(until) = end.blocks_until else { return };
        // One that stands before the other keeps more of them waiting, and for longer.
        if self.block.is_none_or(|block| place < block.place || block.until <= until) {
            self.block = Some(Block { place, until });
        }
    }

    /// What is next at `now`; `gap_max` is how long one waits for those before it in the caller's
    /// count that have not come.
    pub fn next(&self, gap_max: Duration, now: Timestamp) -> Step {
        if let Some(newest) = self.newest {
            let is_old =
                |place: &&Place| place.sequence.is_some() && place.sequence < newest.sequence;
            let old: Vec<Place> = self.waiting.iter().filter(is_old).copied().collect();
            if !old.is_empty() {
                return Step::Supersede(old, newest.id);
            }
        }
        match self.turn {
            Turn::BackFrom(head) => return Step::TakeBack(head),
            Turn::Of(head) => return Step::Look(head),
            Turn::Free => {}
        }
        let Some(&first) = self.waiting.first() else { return Step::Rest };
        let blocked = self.block.filter(|block| block.place < first).map(|block| block.until);
        let is_awaited = !gap_max.is_zero() && self.has_gap_before(first);
        let gap = is_awaited.then(|| first.id.made_at().plus(gap_max));
        match blocked.max(gap).filter(|until| *until > now) {
            Some(until) => Step::Wait(first, until),
            None => Step::Go(first),
        }
    }

    /// Whether there is one before it in the caller's count that has had no end.
    fn has_gap_before(&self, place: Place) -> bool {
        let expected = self.passed.map_or(1, |passed| passed.saturating_add(1));
        place.sequence.is_some_and(|sequence| sequence > expected)
    }

    /// Who keeps `id` from going: the one whose turn it is, the one that ended without being done,
    /// or the one that waits right before it.
    pub fn before(&self, id: OperationId, now: Timestamp) -> Option<OperationId> {
        let at = self.waiting.iter().position(|place| place.id == id)?;
        let block = self.block.filter(|block| block.until > now && block.place < self.waiting[at]);
        let previous = at.checked_sub(1).map(|before| self.waiting[before]);
        let before = self.head().or_else(|| block.map(|block| block.place)).or(previous);
        before.map(|place| place.id)
    }

    /// How many wait because of `id`.
    pub fn behind(&self, id: OperationId, now: Timestamp) -> usize {
        if self.head().is_some_and(|head| head.id == id) {
            return self.waiting.len();
        }
        match self.block {
            Some(block) if block.place.id == id && block.until > now => {
                self.waiting.iter().filter(|place| **place > block.place).count()
            }
            _ => 0,
        }
    }

    /// Whether nothing of the line has to be kept at `now`.
    pub fn is_over(&self, now: Timestamp) -> bool {
        let has_memory = self.newest.is_some() || self.passed.is_some();
        self.turn == Turn::Free
            && self.waiting.is_empty()
            && self.block.is_none_or(|block| block.until <= now)
            && (!has_memory || self.ends_at <= now)
    }
}
