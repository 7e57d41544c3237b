//! Claims: the ledger as a service for somebody's own handler, in any language. It begins an effect
//! under a key, has it in hand for a time, and says how it ended; whoever begins it beside or after
//! that learns so, and does nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use onceward_core::attempt::{Attempt, Ending};
use onceward_core::claim::{ClaimEvent, ClaimRule};
use onceward_core::exchange::Response;
use onceward_core::key::{Key, KeyDigest, Scope, ScopeKind};
use onceward_core::operation::{Event, Operation, State};
use onceward_core::policy::Effects;
use onceward_core::time::Timestamp;

use crate::engine::Engine;
use crate::observe::{ClaimTurn, Fact};
use crate::refusal::Refusal;
use crate::replay::replay;
use crate::store::{Slot, Which};
use crate::wire::{self, Sealing};

mod begin;
mod lapse;
mod word;

pub(crate) use lapse::{Leases, look_for_lapses};

/// The shortest lease: what is shorter lapses on its way.
const LEASE_MIN: Duration = Duration::from_millis(100);

/// Whose claim it is, and of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimKey {
    /// Whose data.
    pub tenant: String,
    /// Within what the key is unique: a name of the handlers that share it.
    pub scope: String,
    /// The key: a message's id, an order's number.
    pub key: Key,
}

impl ClaimKey {
    /// The scope as the ledger has it: handlers do not differ in it, so that they meet.
    pub fn scope(&self) -> Scope {
        Scope {
            kind: ScopeKind::Claim,
            tenant: self.tenant.clone(),
            name: self.scope.clone(),
            principal: String::new(),
        }
    }

    fn digest(&self) -> KeyDigest {
        self.scope().digest(&self.key)
    }
}

/// What a begin says.
#[derive(Debug, Clone, Default)]
pub struct Beginning {
    /// For how long it is in hand; within the scope's bounds.
    pub lease: Option<Duration>,
    /// What it is about: the same key with another is refused.
    pub fingerprint: Option<Bytes>,
    /// What running it again would do; remembered with the first begin of the key.
    pub effects: Option<Effects>,
    /// What whoever begins calls themselves, for people.
    pub holder: Option<String>,
    /// Drawn anew for each begin: the same begin, said again because its answer was lost, gets the
    /// same fence.
    pub nonce: Option<String>,
    /// How long it waits for somebody else's outcome.
    pub wait: Duration,
}

/// What a begin got.
#[derive(Debug, Clone)]
pub enum Begun {
    /// Whoever began has it in hand, and does it now.
    Acquired(Box<Operation>),
    /// Somebody else has it in hand, or it was given back for later: until then, as it stands.
    Busy(Box<Operation>, Timestamp),
    /// It is done; nothing where its outcome is not kept.
    Done(Box<Operation>, Option<Response>),
    /// Nobody knows whether it was done: a person finds out.
    InDoubt(Box<Operation>),
}

/// How a claim ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Whether it is as it was wanted.
    pub ok: bool,
    /// What every later begin gets, byte for byte.
    pub outcome: Bytes,
    /// Its media type.
    pub content_type: Option<String>,
}

/// Why a claim is given back.
#[derive(Debug, Clone, Default)]
pub struct GivenBack {
    /// In its holder's words.
    pub reason: Option<String>,
    /// For how long nobody begins it.
    pub retry_after: Duration,
    /// Whether it may have been done all the same: then it is free only where doing it again does
    /// no harm, and else in doubt.
    pub may_have_executed: bool,
}

/// What holds for claims, by the names of their scopes.
#[derive(Debug, Default)]
pub(crate) struct Rules(RwLock<Arc<BTreeMap<String, ClaimRule>>>);

/// What somebody says of a claim, what is kept with it, and what is told when it is written.
#[derive(Debug, Clone)]
struct Said {
    event: ClaimEvent,
    brought: Option<Brought>,
    turn: Option<ClaimTurn>,
}

/// What is kept with it.
#[derive(Debug, Clone)]
enum Brought {
    /// A begin.
    Begin(Slot, Bytes),
    /// An outcome.
    Outcome(Response),
}

impl Engine {
    /// Sets what holds for claims, by the names of their scopes.
    pub fn set_claims(&self, rules: BTreeMap<String, ClaimRule>) {
        *self.claims.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }

    /// What holds for the claims of `scope`.
    pub fn claim_rule(&self, scope: &str) -> ClaimRule {
        let rules = self.claims.0.read().unwrap_or_else(PoisonError::into_inner);
        rules.get(scope).cloned().unwrap_or_default()
    }

    /// The scopes of claims for which something is said.
    pub fn claim_rules(&self) -> Arc<BTreeMap<String, ClaimRule>> {
        Arc::clone(&self.claims.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A claim as it stands, and its outcome where one is kept.
    pub async fn claim(&self, which: &ClaimKey) -> Result<(Operation, Option<Response>), Refusal> {
        let found = self.store.find(Which::Key(which.digest())).await?.ok_or(Refusal::NotFound)?;
        let outcome = replay(&*self.store, &found, &self.secrets).await?;
        Ok((found, outcome))
    }

    /// Writes what follows for `claim`, and tells of it; nothing where somebody was faster.
    async fn change(
        self: &Arc<Self>,
        claim: &Operation,
        said: Said,
        now: Timestamp,
    ) -> Result<Option<Operation>, Refusal> {
        let Said { event, brought, turn } = said;
        let answer = brought.map(|brought| match brought {
            Brought::Begin(slot, begin) => (slot, begin),
            Brought::Outcome(outcome) => {
                let sealing = Sealing::plain(self.seals_bodies());
                let (kept, id) = (&outcome.headers, claim.id);
                (Slot::Outcome, wire::encode_response(&outcome, kept, id, &self.secrets, sealing))
            }
        });
        let decided = claim.after(Event::Claim(event), now);
        let visible = decided.as_ref().is_ok_and(|claim| claim.state == State::InDoubt);
        let (engine, before) = (Arc::clone(self), claim.clone());
        self.see_through(async move {
            let written = engine.write(decided, answer, visible).await;
            let Some(changed) = written.map_err(|error| engine.heed(error))? else {
                return Ok(None);
            };
            engine.leases.forget(&before);
            engine.changed(&changed);
            if let Some(turn) = turn {
                engine.tell(&changed, turn);
            }
            Ok(Some(changed))
        })
        .await
    }

    /// What follows from a claim's new state for others.
    fn changed(&self, claim: &Operation) {
        if claim.state == State::Delivering {
            return self.leases.note(claim);
        }
        let ended = |attempt: &Attempt| attempt.ended.as_ref().map(|ended| ended.ending);
        // What was given back undone is no news.
        let news = claim.attempts.last().filter(|last| ended(last) != Some(Ending::Unsent));
        if let Some(attempt) = news {
            self.observer.observe(Fact::Attempted(claim, attempt));
        }
        if matches!(claim.state, State::Done | State::InDoubt) {
            self.rested(claim);
        }
        if claim.state == State::Done {
            self.recent.add(claim.scope.digest(&claim.key));
        }
        self.waiters.wake(claim.id);
    }

    /// What is written where its lease is over; nothing where somebody was faster.
    async fn lapse(self: &Arc<Self>, claim: &Operation) -> Result<Option<Operation>, Refusal> {
        let why = "its lease was over, and its holder was silent".to_owned();
        let event = ClaimEvent::Lapsed { why };
        let said = Said { event, brought: None, turn: Some(ClaimTurn::Lapsed) };
        self.change(claim, said, self.clock.now()).await
    }

    fn tell(&self, claim: &Operation, turn: ClaimTurn) {
        self.observer.observe(Fact::Claimed(claim, turn));
    }
}

/// The lease that is asked for, within what the scope allows.
fn lease_of(rule: &ClaimRule, asked: Option<Duration>) -> Duration {
    asked.unwrap_or(rule.lease).min(rule.lease_max).max(LEASE_MIN)
}
