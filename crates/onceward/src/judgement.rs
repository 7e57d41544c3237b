//! The core's decisions, as the engine and the stores ask for them: the same, except where a build
//! for tests breaks a promise on purpose.

use onceward_core::admission::{self, Admission};
use onceward_core::attempt::Ended;
use onceward_core::exchange::{self, Headers};
use onceward_core::fingerprint::Fingerprint;
use onceward_core::operation::{Death, Operation};
use onceward_core::policy::{Effects, Policy};
use onceward_core::time::Timestamp;
use onceward_core::verdict::{self, Brought, Verdict};

use crate::sabotage::Sabotage;

/// What an arrival gets whose key belongs to `known`.
pub(crate) fn admit(
    known: &Operation,
    print: &Fingerprint,
    policy: &Policy,
    now: Timestamp,
) -> Admission {
    let early = known.ended_at.filter(|_| Sabotage::ExpiredEarly.is_on());
    let now = early.map_or(now, |ended_at| now.plus(ended_at.since(known.created_at)));
    let print = if Sabotage::MismatchIgnored.is_on() { &known.fingerprint } else { print };
    match admission::admit(known, print, policy, now) {
        Admission::Join if Sabotage::WaiterExecutes.is_on() => Admission::Fresh,
        admission => admission,
    }
}

/// What follows the attempt of `operation` that `ended`.
pub(crate) fn decide(
    operation: &Operation,
    policy: &Policy,
    ended: &Ended,
    mut brought: Brought<'_>,
    now: Timestamp,
) -> Verdict {
    brought.headers = brought.headers.filter(|_| !Sabotage::RetryAfterIgnored.is_on());
    match verdict::decide(operation, policy, ended, brought, now) {
        Verdict::Doubt if Sabotage::DoubtResent.is_on() => Verdict::Retry { due: now },
        Verdict::Retry { .. } if Sabotage::NoJitter.is_on() => {
            Verdict::Retry { due: now.plus(policy.backoff(operation.mode).base) }
        }
        Verdict::Finish(outcome) if !outcome.ok && Sabotage::OnlySuccessStored.is_on() => {
            Verdict::Bury(Death::Refused, None)
        }
        verdict => verdict,
    }
}

/// What follows for an operation that is due, where its next attempt may not start any more.
pub(crate) fn decide_unstarted(
    operation: &Operation,
    policy: &Policy,
    now: Timestamp,
) -> Option<Verdict> {
    verdict::decide_unstarted(operation, policy, now)
        .filter(|verdict| *verdict != Verdict::Doubt || !Sabotage::StaleKeySent.is_on())
}

/// What follows for an operation whose owner is gone.
pub(crate) fn decide_orphan(
    operation: &Operation,
    policy: &Policy,
    ended: Option<&Ended>,
    now: Timestamp,
) -> Option<Verdict> {
    if Sabotage::OrphanResent.is_on() {
        let mut harmless = operation.clone();
        harmless.intent_mut().effects = Effects::Idempotent;
        return verdict::decide_orphan(&harmless, policy, ended, now);
    }
    verdict::decide_orphan(operation, policy, ended, now)
}

/// The part of an answer's headers that is kept with an outcome.
pub(crate) fn kept(headers: &Headers, more: &[String]) -> Headers {
    if Sabotage::SetCookieReplayed.is_on() {
        return headers.clone();
    }
    exchange::kept(headers, more)
}

/// Whether the window of `known` is over.
pub(crate) fn is_expired(known: &Operation, now: Timestamp) -> bool {
    if Sabotage::SweepUnguarded.is_on() {
        return now >= known.created_at.plus(known.window);
    }
    admission::is_expired(known, now)
}
