//! Answers from memory: what a key gets that is known.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use onceward_core::admission::{self, Admission};
use onceward_core::fingerprint::{Fingerprint, Part, differing_paths, is_same_body};
use onceward_core::key::KeyDigest;
use onceward_core::operation::{Death, Operation, State};

use super::{Answer, Answered, Engine};
use crate::alias::Holder;
use crate::call::Arrival;
use crate::judgement;
use crate::mail;
use crate::observe::{Fact, Repeat};
use crate::order;
use crate::refusal::Refusal;
use crate::replay::{replay, replay_failure};
use crate::store::{Asked, StoreError};
use crate::wire::{self, Credentials};

/// How many JSON paths a mismatch names.
const PATHS_MAX: usize = 10;

/// Which keys were settled by this process lately: asked before the ledger is, so that a
/// duplicate needs no write and a fresh call no look-up. It may forget, and may be wrong the
/// harmless way.
pub(crate) struct Recent(Vec<AtomicU64>);

impl Recent {
    const PLACES: usize = 1 << 16;

    pub(super) fn new() -> Self {
        Self((0..Self::PLACES).map(|_| AtomicU64::new(0)).collect())
    }

    fn place(&self, key: KeyDigest) -> (&AtomicU64, u64) {
        let (high, low) = key.0.split_at(8);
        let number =
            |bytes: &[u8]| bytes.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        (&self.0[number(high) as usize % Self::PLACES], number(low))
    }

    pub(crate) fn add(&self, key: KeyDigest) {
        let (place, mark) = self.place(key);
        place.store(mark, Ordering::Relaxed);
    }

    pub(crate) fn has(&self, key: KeyDigest) -> bool {
        let (place, mark) = self.place(key);
        place.load(Ordering::Relaxed) == mark
    }
}

impl Engine {
    pub(crate) fn note_asked(&self, known: &Operation, repeat: Repeat) {
        self.observer.observe(Fact::Duplicate(known, repeat));
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.entry(known.id).or_default().add(&Asked { count: 1, times: vec![self.clock.now()] });
    }

    /// Writes the counts of duplicates that are still in memory.
    pub async fn flush_asked(&self) -> Result<(), StoreError> {
        let asked = std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner));
        if asked.is_empty() {
            return Ok(());
        }
        self.store.note_asked(asked.into_iter().collect()).await
    }

    /// The decision on an arrival whose key is known. Bodies are compared as bytes first; where
    /// nothing else differs, by what they say. Where the route's rule is another one than the key
    /// was first used under, both requests are compared under the one of now.
    pub(super) async fn admit(
        &self,
        holder: &Holder,
        arrival: &Arrival,
    ) -> Result<Admission, Refusal> {
        let Holder { owner, named } = holder;
        let named = named.as_ref().map(|named| {
            let mut named = named.clone();
            if named.fingerprint != owner.fingerprint {
                named.intent_mut().fingerprint = owner.fingerprint;
            }
            named
        });
        let known = named.as_ref().unwrap_or(owner);
        let decide = |print| judgement::admit(known, print, &arrival.policy, self.clock.now());
        if owner.via != arrival.options.via {
            // One business event looks different on each of its ways: its key is all there is of it.
            return Ok(decide(&owner.fingerprint));
        }
        let admission = decide(&arrival.fingerprint);
        let Admission::Mismatch(parts) = &admission else { return Ok(admission) };
        let rule = &arrival.policy.fingerprint;
        let (before, now) = (&owner.fingerprint, &arrival.fingerprint);
        let Some(kept) = owner.request else {
            // All that is left to compare is what every rule counts.
            let is_same = before.version != now.version && before.parts[0] == now.parts[0];
            return Ok(if is_same { decide(before) } else { admission });
        };
        let kept = self.store.body_of(owner, kept).await?;
        let read = |credentials| wire::decode_request(&kept, owner.id, &self.secrets, credentials);
        let mut parts = parts.clone();
        if arrival.mail.is_some() && before.version != now.version {
            // What was posted is not kept: what is posted now is compared by the rule of then.
            let (asked, secret) = (&arrival.request, self.secrets.fingerprint());
            let then = mail::fingerprint_of_then(asked, &read(Credentials::Left)?, secret);
            return Ok(if then == Some(*before) {
                decide(before)
            } else {
                Admission::Mismatch(vec![Part::Body])
            });
        }
        if parts != [Part::Body] {
            let Ok(stored) = read(Credentials::Opened) else {
                return Ok(admission);
            };
            parts = Fingerprint::of(&stored, rule, self.secrets.fingerprint()).differs_from(now);
        }
        let is_same = match parts[..] {
            [] => true,
            [Part::Body] => {
                let stored = read(Credentials::Left)?;
                is_same_body(&stored, &arrival.request, rule)
            }
            _ => false,
        };
        Ok(if is_same { decide(before) } else { Admission::Mismatch(parts) })
    }

    /// What a duplicate gets; the upstream is not asked.
    pub(crate) async fn answer_known(
        &self,
        known: Box<Operation>,
        admission: Admission,
        arrival: &Arrival,
    ) -> Result<Answer, Refusal> {
        let repeat = match admission {
            Admission::Replay | Admission::ReplayFailure => Repeat::Replayed,
            Admission::Join => Repeat::Joined,
            Admission::Expired => Repeat::Late,
            Admission::Mismatch(_) => Repeat::Mismatch,
            _ => Repeat::Refused,
        };
        self.note_asked(&known, repeat);
        arrival.options.aside.note_known(&known, repeat);
        if admission == Admission::Replay {
            self.recent.add(arrival.digest);
        }
        if admission == Admission::Join && !known.is_first() {
            // Its process may have ended before its line had it; what comes after it must not pass.
            Box::pin(self.advance(&known)).await;
        }
        match admission {
            Admission::Mismatch(parts) => self.mismatch(known, parts, arrival).await,
            Admission::Join if arrival.options.respond_async && arrival.options.wait.is_none() => {
                Ok(Answer::Accepted(known))
            }
            Admission::Join => {
                let until = self.clock.now().plus(Self::wait_of(arrival));
                match self.wait_and_answer(known, until, false).await {
                    Err(Refusal::InProgress(operation)) if arrival.options.respond_async => {
                        Ok(Answer::Accepted(operation))
                    }
                    answer => answer,
                }
            }
            Admission::Replay | Admission::ReplayFailure | Admission::InDoubt => {
                self.answer_at_rest(known, false).await
            }
            Admission::Cancelled => Err(Refusal::Cancelled(known)),
            Admission::Expired => Err(Refusal::KeyExpired(known)),
            Admission::Invalidated => Err(Refusal::KeyInvalidated(known)),
            Admission::Fresh | Admission::Revive | Admission::TooLate => {
                Err(Refusal::InProgress(known))
            }
        }
    }

    async fn mismatch(
        &self,
        known: Box<Operation>,
        parts: Vec<Part>,
        arrival: &Arrival,
    ) -> Result<Answer, Refusal> {
        let mut paths = Vec::new();
        if let (true, Some(request)) = (parts.contains(&Part::Body), known.request) {
            let kept = self.store.body_of(&known, request).await?;
            let stored = wire::decode_request(&kept, known.id, &self.secrets, Credentials::Left)?;
            paths = differing_paths(&stored.body, &arrival.request.body, PATHS_MAX);
            let seen = |path| arrival.policy.redact.path(path);
            paths = paths.into_iter().map(seen).collect::<BTreeSet<_>>().into_iter().collect();
        }
        let status = arrival.policy.mismatch_status;
        Err(Refusal::KeyMismatch { operation: known, parts, paths, status })
    }

    /// The answer from memory for an operation that came to rest.
    pub(super) async fn answer_at_rest(
        &self,
        operation: Box<Operation>,
        first: bool,
    ) -> Result<Answer, Refusal> {
        let from_memory = |operation: Box<Operation>, response| {
            Ok(Answer::Upstream(Box::new(Answered {
                operation: *operation,
                response,
                rest: None,
                replayed: !first,
            })))
        };
        match operation.state {
            State::InDoubt => Err(Refusal::OutcomeUnknown { operation, first }),
            State::Pending { .. } | State::Delivering => Err(Refusal::InProgress(operation)),
            State::Done | State::Dead(_)
                if admission::are_bodies_over(&operation, self.clock.now()) =>
            {
                Err(Refusal::ResponseNotRetained(operation))
            }
            State::Done | State::Dead(_) if operation.outcome.is_some() => {
                match replay(&*self.store, &operation, &self.secrets).await? {
                    Some(response) => from_memory(operation, response),
                    None => Err(Refusal::ResponseNotRetained(operation)),
                }
            }
            State::Done => Err(Refusal::ResponseNotRetained(operation)),
            State::Dead(Death::Cancelled) => Err(Refusal::Cancelled(operation)),
            State::Dead(Death::Superseded) => from_memory(operation, order::superseded()),
            State::Dead(death) => {
                match replay_failure(&*self.store, &operation, &self.secrets).await? {
                    Some(response) => from_memory(operation, response),
                    None if death == Death::Unsent => Err(Refusal::UpstreamUnreachable(operation)),
                    None => Err(Refusal::NoAnswer(operation)),
                }
            }
        }
    }
}
