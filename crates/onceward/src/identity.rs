//! A second identity of an effect: what a route calls one effect has one operation, whatever keys
//! its callers choose.
//!
//! The identity is a key of its own kind, owned by another name of the operation that is about to be
//! born. It is written before that, so that of two callers one finds the other's. Where a process
//! ended in between, the name stands for nothing, and the next caller takes it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onceward_core::admission::{self, Admission, is_expired};
use onceward_core::exchange::{Headers, Request};
use onceward_core::id::OperationId;
use onceward_core::key::{Key, KeyDigest, Scope, ScopeKind};
use onceward_core::operation::{Forgotten, Operation, State};
use onceward_core::time::Timestamp;
use tokio::sync::{Mutex, MutexGuard};

use crate::alias::{self, Holder, Name};
use crate::call::Arrival;
use crate::engine::{Answer, Engine};
use crate::judgement;
use crate::refusal::Refusal;
use crate::store::{Birth, Remembered, StoreError, Which, digest_of};
use crate::wire::Sealing;

/// Second identities of a node that can be taken at once.
const TURNS: usize = 64;

/// How often one is tried that others write too.
const TRIES: usize = 40;

/// Between two looks at what another node is about to write.
const LOOK: Duration = Duration::from_millis(50);

/// One of another node's whose operation was not born for so long is nobody's: longer than a
/// write of the ledger is waited for.
const ABANDONED: Duration = Duration::from_mins(1);

/// One that is older than this is looked at again before anything is born under it.
const FRESH: Duration = Duration::from_secs(10);

/// The second identity of a call.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    scope: Scope,
    name: Key,
    within: Duration,
}

/// Whoever has the same takes turns: what is between an identity and a birth is not seen by others of
/// this process.
pub(crate) struct Turns(Vec<Mutex<()>>);

impl Default for Turns {
    fn default() -> Self {
        Self((0..TURNS).map(|_| Mutex::default()).collect())
    }
}

impl Turns {
    async fn take(&self, identity: KeyDigest) -> MutexGuard<'_, ()> {
        self.0[usize::from(identity.0[0]) % TURNS].lock().await
    }
}

impl Engine {
    /// The second identity of `arrival`, where its edge or its route knows one.
    pub(crate) fn identity_of(&self, arrival: &Arrival) -> Option<Identity> {
        self.identity_within(&arrival.scope, arrival)
    }

    /// The same, within what calls of `scope` share.
    pub(crate) fn identity_within(&self, scope: &Scope, arrival: &Arrival) -> Option<Identity> {
        let (name, within) = match (&arrival.options.identity, &arrival.policy.unique) {
            (Some((name, within)), _) => (name.clone(), *within),
            (None, Some(rule)) => {
                (rule.name.render(&arrival.request, self.clock.now()).ok()?, rule.within)
            }
            (None, None) => return None,
        };
        // Never in clear: it may be whose it is.
        let name = Key::new(&self.secrets.name(name.as_bytes())).ok()?;
        let scope = Scope { kind: ScopeKind::Unique, ..scope.clone() };
        Some(Identity { scope, name, within })
    }

    /// Writes `newborn` under `identity`; what is known already under it, or under its own key, is
    /// returned instead.
    pub(crate) async fn write_identified(
        &self,
        newborn: Box<Birth>,
        identity: Identity,
    ) -> Result<Remembered, StoreError> {
        let _turn = self.turns.take(identity.scope.digest(&identity.name)).await;
        let own = digest_of(&newborn.operation);
        let mut replaces: Option<Operation> = None;
        for _ in 0..TRIES {
            if newborn.replaces.is_none()
                && let Some(known) = self.store.find(Which::Key(own)).await?
            {
                return Ok(Remembered::Known(known));
            }
            let now = self.clock.now();
            let name = self.birth_of(&identity, &newborn.operation, replaces.take().as_ref(), now);
            let known = match self.store.remember(name).await {
                Ok(Remembered::Fresh(name)) => {
                    if self.is_still_ours(&name).await? {
                        return self.write_birth(newborn).await;
                    }
                    continue;
                }
                Ok(Remembered::Known(known)) => known,
                Err(StoreError::Stale) => continue,
                Err(error) => return Err(error),
            };
            let Holder { owner, named } = self.follow(Box::new(known)).await?;
            match named {
                _ if is_expired(&owner, now) => replaces = Some(*owner),
                Some(named) if leaves_room(&named) || self.is_undone(&named).await? => {
                    replaces = Some(*owner);
                }
                Some(named) => return Ok(Remembered::Known(*named)),
                None if !self.store.is_shared() || owner.created_at.plus(ABANDONED) <= now => {
                    replaces = Some(*owner);
                }
                None => self.clock.sleep_until(now.plus(LOOK)).await,
            }
        }
        Err(StoreError::Away("another call for the same effect is being remembered".to_owned()))
    }

    fn birth_of(
        &self,
        identity: &Identity,
        newborn: &Operation,
        replaces: Option<&Operation>,
        now: Timestamp,
    ) -> Birth {
        // It is found by its name alone, and compared with nothing.
        let request = Request {
            method: newborn.method.clone(),
            target: String::new(),
            headers: Headers::default(),
            body: Bytes::new(),
        };
        let name = Name {
            id: self.next_id(now),
            scope: identity.scope.clone(),
            key: identity.name.clone(),
            request: &request,
            fingerprint: newborn.fingerprint,
            ended_at: now,
            window: identity.within,
            tombstone: Duration::ZERO,
        };
        alias::birth(name, newborn.id, replaces, &self.secrets, Sealing::plain(false), now)
    }

    /// Whether nobody can have taken a claim for abandoned, or nobody has.
    async fn is_still_ours(&self, name: &Operation) -> Result<bool, StoreError> {
        if self.clock.now() < name.created_at.plus(FRESH) {
            return Ok(true);
        }
        let holds = self.store.find(Which::Key(digest_of(name))).await?;
        Ok(holds.is_some_and(|holds| holds.id == name.id))
    }

    /// Answers a call whose effect is that of `known`, which has another key. From now on the call's
    /// key is another name of it, so that it stays one when `within` is over.
    pub(crate) async fn answer_twin(
        self: &Arc<Self>,
        known: Box<Operation>,
        arrival: &Arrival,
        replaces: Option<&Operation>,
    ) -> Result<Answer, Refusal> {
        let now = self.clock.now();
        let policy = &arrival.policy;
        if !arrival.key_made {
            let name = Name {
                id: self.next_id(now),
                scope: arrival.scope.clone(),
                key: arrival.key.clone(),
                request: &arrival.request,
                fingerprint: arrival.fingerprint,
                // It may not have ended yet, so its end is bounded instead of known.
                ended_at: known.ended_at.unwrap_or_else(|| now.plus(policy.accepted.horizon)),
                window: known.window,
                tombstone: known.tombstone,
            };
            let name =
                alias::birth(name, known.id, replaces, &self.secrets, Sealing::of(policy), now);
            match self.store.remember(name).await {
                Ok(_) | Err(StoreError::Stale) => {}
                Err(error) => return Err(self.heed(error)),
            }
        }
        let admission = match judgement::admit(&known, &known.fingerprint, policy, now) {
            // Whoever wants it run again asks with its own key.
            Admission::Fresh | Admission::Revive | Admission::TooLate => Admission::ReplayFailure,
            admission => admission,
        };
        self.answer_known(known, admission, arrival).await
    }
}

/// Whether another call may have the effect: a person said so, or provably nothing was done.
fn leaves_room(named: &Operation) -> bool {
    named.forgotten == Some(Forgotten::New)
        || admission::leaves_no_tombstone(named)
        || (matches!(named.state, State::Dead(_))
            && !named.may_have_executed()
            && named.outcome.is_none())
}

/// Whether `owner` was found under another key than `arrival` has, and is no name of it.
pub(crate) fn is_twin(owner: &Operation, digest: KeyDigest) -> Option<OperationId> {
    (digest_of(owner) != digest).then_some(owner.id)
}
