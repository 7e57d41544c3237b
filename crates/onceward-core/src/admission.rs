//! What a second arrival of a key gets. The fingerprint is compared before the state is looked
//! at, and expiry is judged here by time, not by whether a sweeper has been.

use crate::fingerprint::{Fingerprint, Part};
use crate::operation::{Death, Forgotten, Operation, State};
use crate::policy::{OnDead, OnExpired, Policy};
use crate::time::Timestamp;

/// The decision on an arrival whose key is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// The key is free again: a new operation takes its place.
    Fresh,
    /// The key was used for another request, which differs in these parts.
    Mismatch(Vec<Part>),
    /// The outcome is known: answer from memory.
    Replay,
    /// It is under way: wait for its outcome.
    Join,
    /// Nobody knows whether it was done.
    InDoubt,
    /// It is dead and may run again under the same operation.
    Revive,
    /// It is dead and too old to be sent again safely: it has to go into doubt.
    TooLate,
    /// It is dead; the stored failure is the answer.
    ReplayFailure,
    /// A person gave it up.
    Cancelled,
    /// Its window is over.
    Expired,
    /// A person dropped the key and wants it refused.
    Invalidated,
}

/// Decides on an arrival with `fingerprint` whose key belongs to `known`.
pub fn admit(
    known: &Operation,
    fingerprint: &Fingerprint,
    policy: &Policy,
    now: Timestamp,
) -> Admission {
    match known.forgotten {
        Some(Forgotten::Refuse) if !is_tombstone_over(known, now) => return Admission::Invalidated,
        Some(Forgotten::New | Forgotten::Refuse) => return Admission::Fresh,
        None => {}
    }
    let expired = is_expired(known, now);
    if expired
        && (is_tombstone_over(known, now)
            || leaves_no_tombstone(known)
            || policy.on_expired == OnExpired::Execute)
    {
        return Admission::Fresh;
    }
    let differing = known.fingerprint.differs_from(fingerprint);
    if !differing.is_empty() {
        return Admission::Mismatch(differing);
    }
    if expired {
        return Admission::Expired;
    }
    match known.state {
        State::Pending { .. } | State::Delivering => Admission::Join,
        State::InDoubt => Admission::InDoubt,
        State::Done | State::Dead(Death::Superseded) => Admission::Replay,
        State::Dead(Death::Cancelled) => Admission::Cancelled,
        State::Dead(_) if known.outcome.is_some() => Admission::Replay,
        State::Dead(_) if policy.on_dead == OnDead::Replay => Admission::ReplayFailure,
        State::Dead(_) if known.send_by.is_some_and(|send_by| now >= send_by) => Admission::TooLate,
        State::Dead(_) => Admission::Revive,
    }
}

/// Whether the window of `known` is over. What has not ended never expires.
pub fn is_expired(known: &Operation, now: Timestamp) -> bool {
    known.state.is_ended() && known.key_expires_at().is_some_and(|at| now >= at)
}

/// Whether nothing of `known` has to be kept any more.
pub fn is_tombstone_over(known: &Operation, now: Timestamp) -> bool {
    is_expired(known, now)
        && known.key_expires_at().is_some_and(|at| now >= at.plus(known.tombstone))
}

/// Whether `known` is over, and what is left of it still says that its key was used.
pub fn leaves_its_mark(known: &Operation, now: Timestamp) -> bool {
    is_expired(known, now)
        && known.forgotten.is_none()
        && !is_tombstone_over(known, now)
        && !leaves_no_tombstone(known)
}

/// When the request and the answers of `known` are dropped, where that is before its window is over.
/// What may still be sent again keeps its request.
pub fn bodies_over_at(known: &Operation) -> Option<Timestamp> {
    let is_final = match known.state {
        State::Done | State::Dead(Death::Cancelled) => true,
        State::Dead(_) => known.outcome.is_some(),
        State::Pending { .. } | State::Delivering | State::InDoubt => false,
    };
    let over_at = known.ended_at?.plus(known.retain.filter(|_| is_final)?);
    known.key_expires_at().filter(|expires_at| over_at < *expires_at).map(|_| over_at)
}

/// Whether the request and the answers of `known` are to be gone, while its key stays.
pub fn are_bodies_over(known: &Operation, now: Timestamp) -> bool {
    bodies_over_at(known).is_some_and(|at| now >= at)
}

/// Whether there is more left of `known` than its mark.
pub fn is_more_than_its_mark(known: &Operation) -> bool {
    known.request.is_some() || !known.attempts.is_empty()
}

/// An operation of which provably nothing was done leaves no mark: its key is as good as new.
pub fn leaves_no_tombstone(known: &Operation) -> bool {
    matches!(known.state, State::Dead(Death::Refused | Death::Unsent))
        && known.outcome.is_none()
        && known.served.is_empty()
}
