//! What follows an attempt: finish, retry, doubt, or bury. One table of statuses decides.

use std::time::Duration;

use crate::attempt::{Ended, Ending};
use crate::backoff;
use crate::exchange::Headers;
use crate::hint::Hint;
use crate::operation::{Death, Operation, Outcome, Source, State};
use crate::policy::{Effects, Meaning, Mode, Policy};
use crate::time::Timestamp;

/// The decision after an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// This is the final answer.
    Finish(Outcome),
    /// Another attempt, when it is due.
    Retry {
        /// When it may start.
        due: Timestamp,
    },
    /// It may have been executed, and a second arrival would be a second effect.
    Doubt,
    /// No further attempt; with the outcome where there is a final one.
    Bury(Death, Option<Outcome>),
}

/// What an answer means: its hint first, then the one table of statuses.
///
/// A hint touches an ambiguous answer only where it says that nothing was done, and never what
/// meets the caller's intent. Where asking again may help, a refusal is one for now; where it does
/// not, what was not processed is not asked again.
pub fn meaning(status: u16, policy: &Policy, hint: Hint) -> Meaning {
    match (by_table(status, policy, hint.wait.is_some()), hint.again) {
        (Meaning::Refused, Some(true)) => Meaning::NotProcessed,
        (Meaning::Ambiguous, Some(true)) if hint.nothing_done => Meaning::NotProcessed,
        (Meaning::Final, Some(true)) if is_refusal(status, policy) => Meaning::NotProcessed,
        (Meaning::NotProcessed, Some(false)) => Meaning::Refused,
        (meaning, _) => meaning,
    }
}

/// Whether a final `status` is a 4xx that says no.
fn is_refusal(status: u16, policy: &Policy) -> bool {
    (400..500).contains(&status) && !policy.is_success(status)
}

/// The one table of statuses. `retry_after` tells whether the answer asked to come back later.
///
/// 408, 421, 425 and 429 are "not processed" by their definitions (RFC 9110, RFC 8470, RFC 6585);
/// 500, 502, 503, 504, 507 and 52x say nothing about the effect; 501, 505, 506, 508, 510 and 511
/// are refusals before it. What the route says of a status goes before all of that.
fn by_table(status: u16, policy: &Policy, retry_after: bool) -> Meaning {
    if policy.success.contains(&status) {
        return Meaning::Final;
    }
    if let Some(meaning) = policy.statuses.get(&status) {
        return *meaning;
    }
    match status {
        408 | 421 | 425 | 429 => Meaning::NotProcessed,
        401 | 403 | 407 | 423 | 426 | 428 | 431 | 501 | 505 | 506 | 508 | 510 | 511 => {
            Meaning::Refused
        }
        400..500 if retry_after => Meaning::Refused,
        500.. => Meaning::Ambiguous,
        _ => Meaning::Final,
    }
}

/// What an attempt brought, beside its [`Ended`].
#[derive(Debug, Clone, Copy)]
pub struct Brought<'a> {
    /// The answer's headers, where one came.
    pub headers: Option<&'a Headers>,
    /// Whether trying again cannot help (a refused address, a certificate that does not hold).
    pub permanent: bool,
    /// Whether the answer is larger than what is kept.
    pub too_large: bool,
    /// Whether a retry may be made now for a caller who waits.
    pub may_retry: bool,
}

/// Whether the attempt that ended so may have been executed.
pub fn may_have_executed(ending: Ending, status: Option<u16>, policy: &Policy, hint: Hint) -> bool {
    match ending {
        Ending::Unsent => false,
        Ending::Unanswered => true,
        Ending::Answered | Ending::Truncated => {
            status.is_none_or(|status| match meaning(status, policy, hint) {
                // A refusal does nothing; a 5xx is final only because the route says so.
                Meaning::Final => policy.is_success(status) || !(400..500).contains(&status),
                Meaning::Refused | Meaning::NotProcessed => false,
                Meaning::Ambiguous => true,
            })
        }
    }
}

/// Decides what follows the attempt of `operation` that `ended`. The operation has that attempt
/// as its last one: still running, or in doubt, where this is late evidence.
pub fn decide(
    operation: &Operation,
    policy: &Policy,
    ended: &Ended,
    brought: Brought<'_>,
    now: Timestamp,
) -> Verdict {
    let hint =
        brought.headers.map_or_else(Hint::default, |headers| Hint::of(headers, &policy.hints, now));
    let may_retry = brought.may_retry;
    let case = Case { operation, policy, ended, asked: hint.wait, may_retry, now };
    let status = match ended.ending {
        Ending::Unsent if brought.permanent => return case.give_up(),
        Ending::Unsent => return case.again(),
        Ending::Unanswered => return case.again_or_doubt(),
        Ending::Answered | Ending::Truncated => match ended.status {
            Some(status) => status,
            None => return case.again_or_doubt(),
        },
    };
    match meaning(status, policy, hint) {
        // That asking again may help does not say which attempt it was that worked.
        Meaning::NotProcessed if hint.again == Some(true) && case.is_unlisted_echo(status) => {
            case.read_echo(status)
        }
        Meaning::NotProcessed => case.again(),
        Meaning::Ambiguous if hint.again == Some(false) => case.stop_or_doubt(),
        Meaning::Ambiguous => case.again_or_doubt(),
        // This attempt did nothing, an earlier one may have: its key is not free so soon.
        Meaning::Refused if case.was_maybe_executed_before() => case.give_up(),
        Meaning::Refused => Verdict::Bury(Death::Refused, None),
        Meaning::Final if case.is_echo(status) => case.read_echo(status),
        // The effect is known, only its answer is lost: what may be repeated is asked again.
        Meaning::Final
            if ended.ending == Ending::Truncated
                && operation.effects != Effects::NonIdempotent
                && case.may_try() =>
        {
            case.again()
        }
        Meaning::Final => {
            let source = match (ended.ending, brought.too_large) {
                (Ending::Truncated, _) => Source::Truncated,
                (_, false) if operation.state == State::InDoubt => Source::LateAnswer,
                (_, true) => Source::TooLarge,
                (_, false) => Source::Upstream,
            };
            case.conclude(
                status,
                policy.is_success(status) || case.is_gone_as_wanted(status),
                source,
            )
        }
    }
}

/// What follows for an operation that is due, where its next attempt may not start any more.
pub fn decide_unstarted(operation: &Operation, policy: &Policy, now: Timestamp) -> Option<Verdict> {
    if operation.send_by.is_some_and(|send_by| now >= send_by) {
        return Some(Verdict::Doubt);
    }
    let too_late = operation.deadline.is_some_and(|deadline| now > deadline);
    // What was never tried in this run is tried once, however long we were away.
    let over = too_late || (operation.attempts_in_run() > 0 && now > ends_at(operation, policy));
    if over {
        return Some(Verdict::Bury(death(operation, false), None));
    }
    // It may have waited past the end of the hours that it was due in.
    let due = policy.opening(operation.mode, now);
    (due > now).then_some(Verdict::Retry { due })
}

/// What follows for an operation whose owner is gone: a held caller waits no more, and what was
/// under way is judged as unanswered. Nothing where it only has to go on.
pub fn decide_orphan(
    operation: &Operation,
    policy: &Policy,
    ended: Option<&Ended>,
    now: Timestamp,
) -> Option<Verdict> {
    match (ended, operation.mode) {
        (Some(_), _) if operation.effects == Effects::NonIdempotent => Some(Verdict::Doubt),
        (_, Mode::Held) => Some(Verdict::Bury(Death::OwnerGone, None)),
        (Some(ended), Mode::Accepted) => {
            let case = Case { operation, policy, ended, asked: None, may_retry: true, now };
            Some(case.again())
        }
        (None, Mode::Accepted) => None,
    }
}

/// What follows for an operation whose caller waits and whose next attempt may not be made now.
pub fn decide_barred(operation: &Operation, now: Timestamp) -> Verdict {
    if operation.send_by.is_some_and(|send_by| now >= send_by) {
        return Verdict::Doubt;
    }
    Verdict::Bury(death(operation, false), None)
}

/// When the present run of attempts ends: none begins later.
pub fn ends_at(operation: &Operation, policy: &Policy) -> Timestamp {
    let horizon = operation.run.since.plus(policy.backoff(operation.mode).horizon);
    operation.deadline.map_or(horizon, |deadline| deadline.min(horizon))
}

/// Why an operation that is given up is dead; `executed` tells of an attempt not yet in it.
fn death(operation: &Operation, sent: bool) -> Death {
    let ever_sent = |ended: &Ended| ended.ending != Ending::Unsent;
    let sent = sent
        || operation.attempts.iter().filter_map(|attempt| attempt.ended.as_ref()).any(ever_sent);
    if sent { Death::Exhausted } else { Death::Unsent }
}

struct Case<'a> {
    operation: &'a Operation,
    policy: &'a Policy,
    ended: &'a Ended,
    asked: Option<Duration>,
    may_retry: bool,
    now: Timestamp,
}

impl Case<'_> {
    /// When another attempt would be due, where the run's limits allow one.
    fn due_in_run(&self) -> Option<Timestamp> {
        let operation = self.operation;
        let backoff = self.policy.backoff(operation.mode);
        let made = operation.attempts_in_run();
        let due = self.now.plus(backoff::delay(backoff, operation.id, made, self.asked));
        let due = self.policy.opening(operation.mode, due);
        let attempts_max = operation.attempts_max.unwrap_or(backoff.attempts_max);
        let may = self.may_retry && made < attempts_max && due <= ends_at(operation, self.policy);
        may.then_some(due)
    }

    /// When another attempt is due, where the upstream is sure to know our key then.
    fn next_due(&self) -> Option<Timestamp> {
        let is_known = |due: &Timestamp| self.send_by().is_none_or(|send_by| *due < send_by);
        self.due_in_run().filter(is_known)
    }

    fn may_try(&self) -> bool {
        self.next_due().is_some()
    }

    /// Until when the upstream is sure to know our key, this attempt counted.
    fn send_by(&self) -> Option<Timestamp> {
        let first = self.ended.may_have_executed && self.operation.effects == Effects::Keyed;
        let from_now = || {
            let started_at = self.operation.attempts.last()?.started_at;
            Some(started_at.plus(self.operation.upstream_window.mul_f64(0.8)))
        };
        self.operation.send_by.or_else(|| if first { from_now() } else { None })
    }

    /// Another attempt where limits allow one: nothing stands against it.
    fn again(&self) -> Verdict {
        self.next_due().map_or_else(|| self.give_up(), |due| Verdict::Retry { due })
    }

    /// Another attempt where a second arrival does no harm; doubt where it could.
    fn again_or_doubt(&self) -> Verdict {
        match self.operation.effects {
            Effects::Idempotent | Effects::Keyed => self.again(),
            Effects::NonIdempotent => Verdict::Doubt,
        }
    }

    /// No further attempt, because the upstream says that none helps; doubt where it may have been
    /// executed and the same key could not run again without harm.
    fn stop_or_doubt(&self) -> Verdict {
        match self.operation.effects {
            Effects::Idempotent | Effects::Keyed => self.give_up(),
            Effects::NonIdempotent => Verdict::Doubt,
        }
    }

    /// No further attempt. Past the upstream's key window nobody may send again, so what may
    /// have been executed is in doubt; else the same key may run again, and it is dead.
    fn give_up(&self) -> Verdict {
        let is_past = |send_by| {
            // Nobody asks again for an accepted one, so its next attempt decides, not now.
            let next = self.due_in_run().filter(|_| self.operation.mode == Mode::Accepted);
            next.unwrap_or(self.now) >= send_by
        };
        if self.send_by().is_some_and(is_past) {
            return Verdict::Doubt;
        }
        Verdict::Bury(death(self.operation, self.ended.ending != Ending::Unsent), None)
    }

    fn conclude(&self, status: u16, ok: bool, source: Source) -> Verdict {
        let outcome = Outcome { status: Some(status), ok, source, answer: None };
        match self.operation.mode {
            // The caller gets the answer, whatever it says; nobody would see an accepted one's.
            Mode::Accepted if !ok => Verdict::Bury(Death::Refused, Some(outcome)),
            Mode::Held | Mode::Accepted => Verdict::Finish(outcome),
        }
    }

    fn was_maybe_executed_before(&self) -> bool {
        let before = self.operation.attempts.len().saturating_sub(1);
        !self.operation.served.is_empty()
            || self.operation.attempts[..before]
                .iter()
                .any(crate::attempt::Attempt::may_have_executed)
    }

    /// Whether a DELETE's 404 or 410 says that what was asked is so.
    fn is_gone_as_wanted(&self, status: u16) -> bool {
        self.operation.method == "DELETE"
            && matches!(status, 404 | 410)
            && (self.policy.delete_gone || self.was_maybe_executed_before())
    }

    /// Whether a refusal may be there only because an earlier attempt worked.
    fn is_echo(&self, status: u16) -> bool {
        let deleted = self.operation.method == "DELETE" && matches!(status, 404 | 410);
        self.was_maybe_executed_before() && (deleted || matches!(status, 409 | 412))
    }

    /// Whether only the usual reading of the status says that it is an echo.
    fn is_unlisted_echo(&self, status: u16) -> bool {
        self.is_echo(status) && !self.policy.statuses.contains_key(&status)
    }

    /// A DELETE that finds nothing has been done. An upstream that dedupes answers 409 while the
    /// first of two is under way. Else nobody can tell which attempt wrote (RFC 9110, 13.1.1).
    fn read_echo(&self, status: u16) -> Verdict {
        match (status, self.operation.effects) {
            (404 | 410, _) => self.conclude(status, true, Source::Inferred),
            (409, Effects::Keyed) => self.again(),
            _ => Verdict::Doubt,
        }
    }
}
