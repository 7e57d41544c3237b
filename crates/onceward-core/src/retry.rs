//! Whether a call that no ledger remembers is sent again: what a client's own retries ask.
//!
//! The same table of statuses decides as for an operation, with less to go by: what the client did
//! is known only while it waits.

use std::time::Duration;

use crate::attempt::Ending;
use crate::backoff;
use crate::exchange::Headers;
use crate::hint::Hint;
use crate::id::OperationId;
use crate::policy::{Effects, Meaning, Policy};
use crate::time::Timestamp;
use crate::verdict;

/// A call and how it stands.
#[derive(Debug, Clone, Copy)]
pub struct Tried {
    /// What a second arrival would do.
    pub effects: Effects,
    /// By what its delays are drawn.
    pub id: OperationId,
    /// When it began.
    pub since: Timestamp,
    /// Attempts made, the last one counted.
    pub attempts: u32,
    /// Whether one before the last may have been executed.
    pub maybe_executed: bool,
}

/// How its last attempt ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    /// How.
    pub ending: Ending,
    /// The answer, where its head came.
    pub answer: Option<(u16, &'a Headers)>,
}

/// How long to wait before the next attempt; nothing where there is none.
pub fn decide(
    tried: &Tried,
    policy: &Policy,
    ended: &Ended<'_>,
    now: Timestamp,
) -> Option<Duration> {
    let hint = ended
        .answer
        .map_or_else(Hint::default, |(_, headers)| Hint::of(headers, &policy.hints, now));
    if tried.attempts >= policy.held.attempts_max || !may_go_again(tried, policy, ended, hint) {
        return None;
    }
    let delay = backoff::delay(&policy.held, tried.id, tried.attempts, hint.wait);
    let end = tried.since.plus(policy.held.horizon);
    (now.plus(delay) <= end).then_some(delay)
}

/// Whether a second arrival is harmless now, and of use.
fn may_go_again(tried: &Tried, policy: &Policy, ended: &Ended<'_>, hint: Hint) -> bool {
    let is_harmless = tried.effects != Effects::NonIdempotent;
    let status = match (ended.ending, ended.answer) {
        (Ending::Unsent, _) => return true,
        (Ending::Unanswered, _) | (_, None) => return is_harmless,
        (Ending::Answered | Ending::Truncated, Some((status, _))) => status,
    };
    match verdict::meaning(status, policy, hint) {
        Meaning::NotProcessed => true,
        Meaning::Ambiguous => is_harmless && hint.again != Some(false),
        // An upstream that dedupes answers so while the first of two is under way.
        Meaning::Final if status == 409 && tried.effects == Effects::Keyed => tried.maybe_executed,
        Meaning::Final => ended.ending == Ending::Truncated && is_harmless,
        Meaning::Refused => false,
    }
}

/// Whether the attempt that ended so may have been executed.
pub fn may_have_executed(policy: &Policy, ended: &Ended<'_>, now: Timestamp) -> bool {
    let hint = ended
        .answer
        .map_or_else(Hint::default, |(_, headers)| Hint::of(headers, &policy.hints, now));
    verdict::may_have_executed(ended.ending, ended.answer.map(|(status, _)| status), policy, hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn tried(effects: Effects, attempts: u32) -> Tried {
        Tried {
            effects,
            id: OperationId::from_u128(7),
            since: Timestamp::default(),
            attempts,
            maybe_executed: false,
        }
    }

    fn again(effects: Effects, status: u16) -> bool {
        let headers = Headers::default();
        let ended = Ended { ending: Ending::Answered, answer: Some((status, &headers)) };
        decide(&tried(effects, 1), &Policy::default(), &ended, Timestamp::default()).is_some()
    }

    #[test]
    fn what_was_done_or_refused_is_not_asked_again_and_what_is_open_only_where_it_is_harmless() {
        for (status, harmless, risky) in [
            (200, false, false),
            (302, false, false),
            (400, false, false),
            (401, false, false),
            (409, false, false),
            (429, true, true),
            (408, true, true),
            (500, true, false),
            (503, true, false),
            (501, false, false),
        ] {
            assert_eq!(again(Effects::Idempotent, status), harmless, "{status}");
            assert_eq!(again(Effects::Keyed, status), harmless, "{status}");
            assert_eq!(again(Effects::NonIdempotent, status), risky, "{status}");
        }
    }

    #[test]
    fn a_conflict_after_an_attempt_that_may_have_worked_is_the_first_one_under_way() {
        let headers = Headers::default();
        let ended = Ended { ending: Ending::Answered, answer: Some((409, &headers)) };
        let before = Tried { maybe_executed: true, ..tried(Effects::Keyed, 2) };
        let policy = Policy::default();
        assert!(decide(&before, &policy, &ended, Timestamp::default()).is_some());
        let other = Tried { effects: Effects::Idempotent, ..before };
        assert_eq!(decide(&other, &policy, &ended, Timestamp::default()), None);
    }

    #[test]
    fn no_attempt_begins_behind_the_horizon_and_none_before_it_was_asked_for() {
        let headers = |wait: &'static str| {
            Headers(vec![("retry-after".to_owned(), Bytes::from_static(wait.as_bytes()))])
        };
        let (soon, late) = (headers("3"), headers("30"));
        let asks = |headers| {
            let ended = Ended { ending: Ending::Answered, answer: Some((503, headers)) };
            let tried = tried(Effects::Idempotent, 1);
            decide(&tried, &Policy::default(), &ended, Timestamp::default())
        };
        assert!(asks(&soon).is_some_and(|wait| wait >= Duration::from_secs(3)));
        assert_eq!(asks(&late), None);
    }

    proptest! {
        /// However it ends and whatever it says: a second effect is never risked.
        #[test]
        fn what_may_have_been_executed_is_never_followed_where_a_second_arrival_is_an_effect(
            ending in 0usize..4, status in 100u16..600, line in "[a-z0-9 ]{0,8}", attempts in 1u32..4
        ) {
            let ending =
                [Ending::Unsent, Ending::Unanswered, Ending::Answered, Ending::Truncated][ending];
            let headers = Headers(vec![("retry-after".to_owned(), line.into())]);
            let answer = matches!(ending, Ending::Answered | Ending::Truncated)
                .then_some((status, &headers));
            let (policy, now) = (Policy::default(), Timestamp::default());
            let ended = Ended { ending, answer };
            let next = decide(&tried(Effects::NonIdempotent, attempts), &policy, &ended, now);
            prop_assert!(next.is_none() || !may_have_executed(&policy, &ended, now));
            prop_assert!(next.is_none() || attempts < policy.held.attempts_max);
        }
    }
}
