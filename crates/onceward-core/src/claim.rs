//! The ledger as a service: a handler of somebody's own begins an effect, has it in hand for a time,
//! and says how it ended. Nobody has it in hand beside another, and what is done stays done.

use std::time::Duration;

use crate::admission::{is_expired, is_more_than_its_mark, is_tombstone_over, leaves_no_tombstone};
use crate::attempt::{Attempt, Ended, Ending, Reached, Timings};
use crate::fingerprint::Fingerprint;
use crate::key::ScopeKind;
use crate::lease::Session;
use crate::operation::{Death, Fence, Forgotten, Illegal, Operation, Outcome, Source, State, Step};
use crate::policy::{Effects, Policy};
use crate::time::Timestamp;
use crate::verdict::Verdict;

/// Acquisitions that are kept of one claim: a message that always fails comes back for ever.
pub const ATTEMPTS_KEPT: usize = 64;

/// What a begin compares that says nothing of what it is about: it equals everything.
pub const UNCOMPARED: Fingerprint = Fingerprint { version: 0, parts: [[0; 16]; 4] };

/// What holds for the claims of a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRule {
    /// What running the effect again would do, where a begin says nothing.
    pub effects: Effects,
    /// How long a claim is in hand where its begin or its renewal says nothing.
    pub lease: Duration,
    /// How long at most.
    pub lease_max: Duration,
    /// How long the outcome is told, from completion.
    pub window: Duration,
    /// How long the mark of the used key stays after that.
    pub tombstone: Duration,
    /// Whether each begin has to say what it is about.
    pub fingerprint_required: bool,
    /// The largest outcome, in bytes.
    pub outcome_bytes_max: usize,
}

impl Default for ClaimRule {
    fn default() -> Self {
        let Policy { window, tombstone, .. } = Policy::default();
        Self {
            effects: Effects::NonIdempotent,
            lease: Duration::from_secs(30),
            lease_max: Duration::from_hours(1),
            window,
            tombstone,
            fingerprint_required: false,
            outcome_bytes_max: 1 << 20,
        }
    }
}

/// A fact in a claim's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimEvent {
    /// Somebody has it in hand from now on.
    Begun {
        /// Until when.
        lease_until: Timestamp,
        /// What they call themselves.
        holder: Option<String>,
    },
    /// Who has it in hand has it for longer.
    Renewed {
        /// Until when.
        lease_until: Timestamp,
    },
    /// Who has it in hand, or had it last, says that it is done.
    Completed {
        /// Its status, where it has one.
        status: Option<u16>,
        /// Whether it is as it was wanted.
        ok: bool,
    },
    /// Who has it in hand, or had it last, did nothing and gives it back.
    Released {
        /// Why, in their words.
        why: Option<String>,
        /// From when on it may be begun again.
        free_at: Timestamp,
    },
    /// It may have been done, and nobody says so: its lease is over, or its holder does not know.
    Lapsed {
        /// In words for a person.
        why: String,
    },
}

/// What a begin of a key gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// The key is free again: a new claim takes its place.
    Fresh,
    /// Whoever begins has it in hand.
    Acquire,
    /// Somebody has it in hand, or it was given back for later.
    Busy {
        /// Until when, as it stands.
        until: Timestamp,
    },
    /// Its lease is over, and running it again could be a second effect: it has to go into doubt.
    Lapse,
    /// Nobody knows whether it was done.
    InDoubt,
    /// It is done.
    Done,
    /// The key was used for something else.
    Mismatch,
    /// Its window is over.
    Expired,
    /// A person dropped the key and wants it refused.
    Invalidated,
}

/// What a word about how it ended, under some fence, is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// It comes from who has it in hand, or had it last: it is believed.
    Holds,
    /// It was said before.
    Said,
    /// Somebody else has had it in hand since, or a person has decided.
    Stale,
}

/// Decides on a begin of what is `known` by its key.
pub fn begin(known: &Operation, print: &Fingerprint, now: Timestamp) -> Begin {
    match known.forgotten {
        Some(Forgotten::Refuse) if !is_tombstone_over(known, now) => return Begin::Invalidated,
        Some(Forgotten::New | Forgotten::Refuse) => return Begin::Fresh,
        None => {}
    }
    // Where a node whose clock is ahead has left only the mark, it is over for all.
    let expired =
        is_expired(known, now) || (known.state.is_ended() && !is_more_than_its_mark(known));
    if expired && (is_tombstone_over(known, now) || leaves_no_tombstone(known)) {
        return Begin::Fresh;
    }
    let is_compared = *print != UNCOMPARED && known.fingerprint != UNCOMPARED;
    if is_compared && !known.fingerprint.differs_from(print).is_empty() {
        return Begin::Mismatch;
    }
    if expired {
        return Begin::Expired;
    }
    let busy = known.lease_until.filter(|until| now < *until);
    match known.state {
        State::Delivering | State::Dead(_) if busy.is_some() => {
            Begin::Busy { until: busy.unwrap_or(now) }
        }
        State::Delivering if known.effects == Effects::NonIdempotent => Begin::Lapse,
        State::Pending { .. } | State::Delivering | State::Dead(_) => Begin::Acquire,
        State::InDoubt => Begin::InDoubt,
        State::Done => Begin::Done,
    }
}

/// What it is worth that somebody with `fence` calls `known` done.
pub fn complete(known: &Operation, fence: Fence) -> Word {
    if fence_of(known) != Some(fence) {
        return Word::Stale;
    }
    match known.state {
        State::Delivering | State::InDoubt | State::Dead(Death::OwnerGone) => Word::Holds,
        State::Done if by_its_holder(known) => Word::Said,
        State::Done | State::Pending { .. } | State::Dead(_) => Word::Stale,
    }
}

/// What it is worth that somebody with `fence` gives `known` back.
pub fn release(known: &Operation, fence: Fence) -> Word {
    if fence_of(known) != Some(fence) {
        return Word::Stale;
    }
    match known.state {
        State::Delivering | State::InDoubt => Word::Holds,
        State::Dead(Death::Unsent | Death::OwnerGone) => Word::Said,
        State::Done | State::Pending { .. } | State::Dead(_) => Word::Stale,
    }
}

/// What it is worth that somebody with `fence` does not know whether `known` was done.
pub fn give_up(known: &Operation, fence: Fence) -> Word {
    if fence_of(known) != Some(fence) {
        return Word::Stale;
    }
    match known.state {
        State::Delivering => Word::Holds,
        State::InDoubt | State::Dead(Death::OwnerGone) => Word::Said,
        State::Done | State::Pending { .. } | State::Dead(_) => Word::Stale,
    }
}

/// What it is worth that somebody with `fence` wants `known` for longer.
pub fn renew(known: &Operation, fence: Fence) -> Word {
    let holds = known.state == State::Delivering && fence_of(known) == Some(fence);
    if holds { Word::Holds } else { Word::Stale }
}

/// The fence of who has it in hand, or had it last; nothing where nobody had.
pub fn fence_of(claim: &Operation) -> Option<Fence> {
    claim.attempts.last().map(|attempt| Fence(attempt.by.0))
}

/// The fence that a key begins with. It is no smaller than any that the key had before it was
/// forgotten: no claim is written once in a millisecond for as long as it lives.
pub fn first_fence(now: Timestamp) -> Fence {
    Fence(now.as_millis())
}

/// Whether somebody has had `claim` in hand for longer than they said.
pub fn has_lapsed(claim: &Operation, now: Timestamp) -> bool {
    claim.scope.kind == ScopeKind::Claim
        && claim.state == State::Delivering
        && claim.lease_until.is_none_or(|until| now >= until)
}

fn by_its_holder(claim: &Operation) -> bool {
    let source = claim.outcome.as_ref().map(|outcome| outcome.source);
    matches!(source, Some(Source::Holder | Source::LateAnswer))
}

impl Operation {
    /// Changes a claim as `event` says.
    pub(crate) fn claim(&mut self, event: ClaimEvent, now: Timestamp) -> Result<(), Illegal> {
        if self.scope.kind != ScopeKind::Claim {
            return Err(Illegal { from: "no claim", to: "claimed" });
        }
        match event {
            ClaimEvent::Begun { lease_until, holder } => self.begin(lease_until, holder, now),
            ClaimEvent::Renewed { lease_until } => {
                if self.state != State::Delivering {
                    return Err(Illegal { from: self.state.name(), to: "renewed" });
                }
                self.lease_until = Some(lease_until);
                Ok(())
            }
            ClaimEvent::Completed { status, ok } => {
                let is_late = self.state != State::Delivering;
                self.state = self.state.after(Step::Prove)?;
                self.end_last(Ending::Answered, status, None, now)?;
                let source = if is_late { Source::LateAnswer } else { Source::Holder };
                self.outcome = Some(Outcome { status, ok, source, answer: None });
                self.ended_at = Some(now);
                Ok(())
            }
            ClaimEvent::Released { why, free_at } => {
                if !matches!(self.state, State::Delivering | State::InDoubt) {
                    return Err(Illegal { from: self.state.name(), to: "released" });
                }
                self.end_last(Ending::Unsent, None, why, now)?;
                self.lease_until = (free_at > now).then_some(free_at);
                self.rule(Verdict::Bury(Death::Unsent, None), now)
            }
            ClaimEvent::Lapsed { why } => self.lapse(why, now),
        }
    }

    fn begin(
        &mut self,
        lease_until: Timestamp,
        holder: Option<String>,
        now: Timestamp,
    ) -> Result<(), Illegal> {
        if has_lapsed(self, now) {
            self.lapse("its lease was over when another began".to_owned(), now)?;
        }
        if let State::Dead(_) = self.state {
            self.revive(now, self.mode, None, now)?;
        }
        if self.effects == Effects::NonIdempotent && self.may_have_executed() {
            return Err(Illegal { from: "perhaps done", to: Step::Start.name() });
        }
        self.state = self.state.after(Step::Start)?;
        let n = self.attempts_made() + 1;
        let surplus = (self.attempts.len() + 1).saturating_sub(ATTEMPTS_KEPT);
        self.attempts.drain(..surplus);
        // In a claim it is the fence of this write that tells whose an attempt is: processes come and go.
        let by = Session(self.fence.0 + 1);
        self.attempts.push(Attempt { n, by, started_at: now, ended: None });
        self.lease_until = Some(lease_until);
        self.label = holder;
        Ok(())
    }

    fn lapse(&mut self, why: String, now: Timestamp) -> Result<(), Illegal> {
        if self.state != State::Delivering {
            return Err(Illegal { from: self.state.name(), to: "lapsed" });
        }
        self.end_last(Ending::Unanswered, None, Some(why), now)?;
        match self.effects {
            Effects::NonIdempotent => self.rule(Verdict::Doubt, now),
            Effects::Idempotent | Effects::Keyed => {
                self.rule(Verdict::Bury(Death::OwnerGone, None), now)
            }
        }
    }

    fn end_last(
        &mut self,
        ending: Ending,
        status: Option<u16>,
        error: Option<String>,
        now: Timestamp,
    ) -> Result<(), Illegal> {
        let illegal = Illegal { from: "never begun", to: "ended" };
        let attempt = self.attempts.last_mut().ok_or(illegal)?;
        attempt.ended = Some(Ended {
            at: now,
            ending,
            reached: if ending == Ending::Answered { Reached::Body } else { Reached::Nothing },
            status,
            error,
            may_have_executed: ending != Ending::Unsent,
            answer: None,
            timings: Timings::default(),
        });
        self.lease_until = None;
        Ok(())
    }
}
