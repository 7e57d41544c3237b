//! 4\. The verdict on an attempt, and the one write that says so.

use bytes::Bytes;
use onceward_core::attempt::{Ended, Ending};
use onceward_core::hint::Hint;
use onceward_core::ids::ids_of;
use onceward_core::operation::{Event, Illegal, Operation, is_said_by_a_mail};
use onceward_core::policy::Policy;
use onceward_core::time::Timestamp;
use onceward_core::verdict::{self, Brought, Verdict};

use crate::delivered::Delivered;
use crate::judgement;
use crate::secret::Secrets;
use crate::store::{Slot, Write};
use crate::wire::{self, Sealing};

/// The longest account of what went wrong that is kept.
const ERROR_BYTES_MAX: usize = 500;

/// What becomes of `operation`, whose running attempt brought `delivered`; `may_retry` where a
/// retry may be made for a caller who waits.
pub(crate) fn settle(
    operation: &Operation,
    policy: &Policy,
    delivered: &Delivered,
    may_retry: bool,
    secrets: &Secrets,
    now: Timestamp,
) -> Result<Write, Illegal> {
    let headers = delivered.response.as_ref().map(|response| &response.headers);
    let hint = headers.map_or_else(Hint::default, |headers| Hint::of(headers, &policy.hints, now));
    let mut error = delivered.error.clone();
    if let Some(error) = &mut error {
        error.truncate(error.floor_char_boundary(ERROR_BYTES_MAX));
    }
    let ended = Ended {
        at: now,
        ending: delivered.ending,
        reached: delivered.reached,
        status: delivered.status,
        error,
        // A mail that some have is done for them, whatever became of it for the others.
        may_have_executed: !delivered.served.is_empty()
            || verdict::may_have_executed(delivered.ending, delivered.status, policy, hint),
        answer: None,
        timings: delivered.timings,
    };
    let brought = Brought {
        headers,
        permanent: delivered.permanent,
        too_large: delivered.rest.is_some(),
        may_retry,
    };
    let verdict = if delivered.is_put_off {
        Verdict::Retry { due: now }
    } else {
        judgement::decide(operation, policy, &ended, brought, now)
    };
    let answer = answer_to_keep(operation, policy, delivered, &verdict, secrets);
    let mut operation = operation.after(Event::Ended(ended, verdict), now)?;
    if delivered.is_put_off {
        // It takes none of those that it may have.
        operation.attempts.pop();
    }
    if let (Some((Slot::Outcome, _)), Some(response)) = (&answer, &delivered.response) {
        let mut made = ids_of(&policy.ids, &response.body);
        // What a mail says of itself, no answer says otherwise.
        if operation.is_mail() {
            made.retain(|(name, _)| !is_said_by_a_mail(name));
        }
        operation.ids.retain(|(name, _)| made.iter().all(|(other, _)| other != name));
        operation.ids.extend(made);
    }
    if !delivered.served.is_empty() {
        operation.served.clone_from(&delivered.served);
    }
    Ok(Write { operation, answer, visible: false })
}

/// A final answer is kept whole for replay; any other as an excerpt for people.
fn answer_to_keep(
    operation: &Operation,
    policy: &Policy,
    delivered: &Delivered,
    verdict: &Verdict,
    secrets: &Secrets,
) -> Option<(Slot, Bytes)> {
    let response = delivered.response.as_ref()?;
    let (id, n) = (operation.id, operation.attempts.last()?.n);
    let is_outcome = matches!(verdict, Verdict::Finish(_) | Verdict::Bury(_, Some(_)));
    let is_whole = delivered.ending == Ending::Answered && delivered.rest.is_none();
    match (is_outcome, is_whole) {
        (true, true) => {
            let kept = judgement::kept(&response.headers, &policy.keep_headers);
            Some((
                Slot::Outcome,
                wire::encode_response(response, &kept, id, secrets, Sealing::of(policy)),
            ))
        }
        // A part never poses as the whole.
        (true, false) => None,
        (false, _) => {
            // What people are not to see is not kept for them; and what was changed is no answer.
            let excerpt = if policy.redact.is_empty() {
                wire::encode_excerpt(response, is_whole, id, n, secrets)
            } else {
                let (seen, is_less) = policy.redact.response(response.clone());
                wire::encode_excerpt(&seen, is_whole && !is_less, id, n, secrets)
            };
            Some((Slot::Attempt, excerpt))
        }
    }
}

#[cfg(test)]
mod tests {
    use onceward_core::lease::Session;
    use onceward_core::operation::State;
    use onceward_core::policy::Mode;

    use super::*;
    use crate::store::contract;

    #[test]
    fn what_is_put_off_may_be_tried_as_often_as_before() {
        let now = Timestamp::from_micros(9_000_000);
        let mut taken = contract::operation(7, "k", "pay", Mode::Accepted);
        taken.attempts_max = Some(1);
        taken.state = State::Pending { due: now };
        let taken = taken.after(Event::Started(Session(1)), now).unwrap();
        assert_eq!(taken.attempts_in_run(), 1);
        let unsent =
            |is_put_off| Delivered { permanent: false, is_put_off, ..Delivered::not_sent("why") };
        let after = |is_put_off| {
            let (policy, secrets) = (Policy::default(), Secrets::new([7; 32]));
            let settled = settle(&taken, &policy, &unsent(is_put_off), true, &secrets, now);
            settled.unwrap().operation
        };
        assert!(matches!(after(false).state, State::Dead(_)), "it was its last attempt");
        let put_off = after(true);
        assert_eq!((put_off.state, put_off.attempts_in_run()), (State::Pending { due: now }, 0));
    }
}
