//! The same request again under another key, soon after: told, and never refused. In memory, of
//! this node alone, and bounded: it may forget.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use onceward_core::id::OperationId;
use onceward_core::key::{KeyDigest, Scope};
use onceward_core::operation::Operation;
use onceward_core::time::Timestamp;

use crate::call::{Arrival, Aside};
use crate::engine::Engine;
use crate::observe::Fact;

/// Requests that are remembered, at most.
const REQUESTS_MAX: usize = 1 << 16;

/// Which requests there were lately.
#[derive(Debug, Default)]
pub(crate) struct Suspects(Mutex<Lately>);

#[derive(Debug, Default)]
struct Lately {
    first: HashMap<u128, First>,
    /// By when they came.
    order: VecDeque<(Timestamp, u128)>,
}

#[derive(Debug)]
struct First {
    at: Timestamp,
    operation: OperationId,
    key: KeyDigest,
    again: u32,
}

/// That a new operation is to be compared with those of a while ago.
pub(crate) struct Watch {
    whose: u64,
    key: KeyDigest,
    within: Duration,
    now: Timestamp,
    aside: Arc<Aside>,
}

impl Watch {
    /// What the route of `arrival` wants; nothing where it wants none.
    pub(crate) fn of(arrival: &Arrival, now: Timestamp) -> Option<Self> {
        Self::within(&arrival.scope, arrival, now)
    }

    /// The same, compared with the calls of `scope`.
    pub(crate) fn within(scope: &Scope, arrival: &Arrival, now: Timestamp) -> Option<Self> {
        let within = arrival.policy.suspect_within;
        (!within.is_zero()).then(|| Self {
            whose: hashed(scope),
            key: arrival.digest,
            within,
            now,
            aside: Arc::clone(&arrival.options.aside),
        })
    }
}

impl Engine {
    /// Tells where another operation had the same request under another key a short while ago.
    pub(crate) fn suspect(&self, operation: &Operation, watch: &Watch) {
        if let Some((first, again)) = self.suspects.note(operation, watch) {
            self.observer.observe(Fact::Suspected(operation, first, again));
            // Nobody else sets it.
            let _ = watch.aside.suspect_of.set(first);
        }
    }
}

impl Suspects {
    /// Takes note of a new operation; tells the first one that has the same request and another key,
    /// and how many there were since.
    pub(crate) fn note(&self, operation: &Operation, watch: &Watch) -> Option<(OperationId, u32)> {
        let Watch { whose, key, within, now, .. } = *watch;
        let mut lately = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let request = request_of(whose, operation);
        if let Some(first) = lately.first.get_mut(&request)
            && now < first.at.plus(within)
        {
            if first.key == key {
                return None;
            }
            first.again += 1;
            return Some((first.operation, first.again));
        }
        let first = First { at: now, operation: operation.id, key, again: 0 };
        lately.first.insert(request, first);
        lately.order.push_back((now, request));
        while lately.order.len() > REQUESTS_MAX {
            let Some((at, request)) = lately.order.pop_front() else { break };
            // A later one may have taken its place.
            if lately.first.get(&request).is_some_and(|first| first.at == at) {
                lately.first.remove(&request);
            }
        }
        None
    }
}

/// Whose request it is. A scope is no secret, and taken for another it costs a word too many.
fn hashed(scope: &Scope) -> u64 {
    let mut hasher = DefaultHasher::new();
    scope.hash(&mut hasher);
    hasher.finish()
}

/// Whose request, and which. The parts of a fingerprint are digests, each with a meaning of its own.
fn request_of(whose: u64, operation: &Operation) -> u128 {
    let parts = operation.fingerprint.parts.iter().zip([1u32, 3, 5, 7]);
    parts.fold(whose.into(), |mixed, (part, turn)| {
        mixed ^ u128::from_be_bytes(*part).rotate_left(turn)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::operation;
    use crate::store::digest_of;
    use onceward_core::policy::Mode;

    const WITHIN: Duration = Duration::from_mins(10);

    fn watch(operation: &Operation, now: Timestamp) -> Watch {
        let (whose, key) = (hashed(&operation.scope), digest_of(operation));
        Watch { whose, key, within: WITHIN, now, aside: Arc::default() }
    }

    #[test]
    fn the_same_request_under_another_key_is_told_for_a_while() {
        let suspects = Suspects::default();
        let at = |minutes: i64| Timestamp::from_micros(minutes * 60_000_000);
        let (one, other) = (operation(1, "a", "r", Mode::Held), operation(2, "b", "r", Mode::Held));
        let mut unlike = operation(3, "c", "r", Mode::Held);
        unlike.intent_mut().fingerprint.parts[3][0] ^= 1;
        let elsewhere = operation(4, "d", "other", Mode::Held);
        assert_eq!(suspects.note(&one, &watch(&one, at(0))), None);
        assert_eq!(suspects.note(&one, &watch(&one, at(1))), None, "the same key is a duplicate");
        assert_eq!(suspects.note(&other, &watch(&other, at(2))), Some((one.id, 1)));
        assert_eq!(suspects.note(&other, &watch(&other, at(9))), Some((one.id, 2)));
        assert_eq!(suspects.note(&unlike, &watch(&unlike, at(9))), None);
        assert_eq!(suspects.note(&elsewhere, &watch(&elsewhere, at(9))), None);
        assert_eq!(suspects.note(&other, &watch(&other, at(10))), None, "it is long ago");
        assert_eq!(suspects.note(&one, &watch(&one, at(11))), Some((other.id, 1)));
    }

    #[test]
    fn it_forgets_the_oldest_before_it_grows() {
        let suspects = Suspects::default();
        for n in 0..=REQUESTS_MAX as u64 {
            let mut made = operation(n, "a", "r", Mode::Held);
            made.intent_mut().fingerprint.parts[3][..8].copy_from_slice(&n.to_be_bytes());
            suspects.note(&made, &watch(&made, Timestamp::from_micros(0)));
        }
        assert_eq!(suspects.0.lock().unwrap().first.len(), REQUESTS_MAX);
    }
}
