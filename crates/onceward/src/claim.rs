//! Claims: the ledger as a service for somebody's own handler, in any language. It begins an effect
//! under a key, has it in hand for a time, and says how it ended; whoever begins it beside or after
//! that learns so, and does nothing.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use onceward_core::attempt::{Attempt, Ending};
use onceward_core::claim::{self, Begin, ClaimEvent, ClaimRule, UNCOMPARED, Word};
use onceward_core::exchange::{Headers, Request, Response};
use onceward_core::fingerprint::{Fingerprint, FingerprintRule, Part};
use onceward_core::key::{Key, KeyDigest, Scope, ScopeKind};
use onceward_core::operation::{Event, Fence, Operation, State};
use onceward_core::policy::Effects;
use onceward_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::detached::Detached;
use crate::engine::{Engine, RACES_MAX};
use crate::observe::{ClaimTurn, Fact, Repeat};
use crate::refusal::Refusal;
use crate::replay::replay;
use crate::store::{Birth, Remembered, Slot, StoreError, Which, Write};
use crate::wire;

mod lapse;

pub(crate) use lapse::{Leases, look_for_lapses};

/// The shortest lease: what is shorter lapses on its way.
const LEASE_MIN: Duration = Duration::from_millis(100);

/// The method of a claim's request: it is none of HTTP's, because nothing is sent.
const METHOD: &str = "CLAIM";

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
    answer: Option<(Slot, Bytes)>,
    turn: Option<ClaimTurn>,
}

/// The request of a claim: its begin, for people and for whoever says it again.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    holder: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<Cow<'a, str>>,
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

    /// Begins what has the key `which`: whoever acquires it does it now, and nobody else does.
    pub async fn begin_claim(
        self: &Arc<Self>,
        which: &ClaimKey,
        beginning: &Beginning,
    ) -> Result<Begun, Refusal> {
        let rule = self.claim_rule(&which.scope);
        if rule.fingerprint_required && beginning.fingerprint.is_none() {
            let why =
                format!("the claims of {:?} say what they are about: fingerprint", which.scope);
            return Err(Refusal::KeyWeak(why));
        }
        let until = self.clock.now().plus(beginning.wait);
        loop {
            if self.is_halted() {
                return Err(Refusal::Draining);
            }
            let begun = self.begin_now(which, beginning, &rule).await?;
            let Begun::Busy(claim, free_at) = &begun else { return Ok(begun) };
            if until <= self.clock.now() || !self.wait_for_claim(claim, *free_at, until).await? {
                self.tell(claim, ClaimTurn::Busy);
                self.note_asked(claim, Repeat::Refused);
                return Ok(begun);
            }
        }
    }

    /// Says that it is done, and how it ended; the same words again change nothing.
    pub async fn complete_claim(
        self: &Arc<Self>,
        which: &ClaimKey,
        fence: Fence,
        ended: &Ended,
    ) -> Result<Operation, Refusal> {
        let bytes_max = self.claim_rule(&which.scope).outcome_bytes_max;
        if ended.outcome.len() > bytes_max {
            return Err(Refusal::BodyTooLarge { bytes_max });
        }
        let mut headers = Headers::default();
        if let Some(kind) = &ended.content_type {
            headers.set("content-type", kind.clone());
        }
        let response = Response {
            status: if ended.ok { 200 } else { 500 },
            headers,
            body: ended.outcome.clone(),
            trailers: Headers::default(),
        };
        let event = ClaimEvent::Completed { status: None, ok: ended.ok };
        let answer = (Slot::Outcome, wire::encode_response(&response, &response.headers));
        let said = Said { event, answer: Some(answer), turn: Some(ClaimTurn::Done) };
        let (claim, worth) = self.say(which, fence, claim::complete, said).await?;
        if worth == Word::Holds {
            return Ok(claim);
        }
        let is_same = match replay(&*self.store, &claim).await? {
            Some(kept) => kept == response,
            // Nothing is left to compare.
            None => true,
        };
        if is_same { Ok(claim) } else { Err(self.stale(claim)) }
    }

    /// Gives it back: nothing was done, or its holder does not know.
    pub async fn release_claim(
        self: &Arc<Self>,
        which: &ClaimKey,
        fence: Fence,
        back: &GivenBack,
    ) -> Result<Operation, Refusal> {
        let free_at = self.clock.now().plus(back.retry_after);
        let why = back.reason.clone();
        let (claim, _) = if back.may_have_executed {
            let why = why.unwrap_or_else(|| "its holder does not know whether it was done".into());
            let event = ClaimEvent::Lapsed { why };
            let said = Said { event, answer: None, turn: Some(ClaimTurn::Lapsed) };
            self.say(which, fence, claim::give_up, said).await?
        } else {
            let event = ClaimEvent::Released { why, free_at };
            let said = Said { event, answer: None, turn: Some(ClaimTurn::Released) };
            self.say(which, fence, claim::release, said).await?
        };
        Ok(claim)
    }

    /// Has it in hand for longer, from now on.
    pub async fn renew_claim(
        self: &Arc<Self>,
        which: &ClaimKey,
        fence: Fence,
        lease: Option<Duration>,
    ) -> Result<Operation, Refusal> {
        let rule = self.claim_rule(&which.scope);
        let lease_until = self.clock.now().plus(lease_of(&rule, lease));
        let event = ClaimEvent::Renewed { lease_until };
        let said = Said { event, answer: None, turn: None };
        let (claim, _) = self.say(which, fence, claim::renew, said).await?;
        Ok(claim)
    }

    /// A claim as it stands, and its outcome where one is kept.
    pub async fn claim(&self, which: &ClaimKey) -> Result<(Operation, Option<Response>), Refusal> {
        let found = self.store.find(Which::Key(which.digest())).await?.ok_or(Refusal::NotFound)?;
        let outcome = replay(&*self.store, &found).await?;
        Ok((found, outcome))
    }

    /// What a begin gets now; a race that is lost is run again.
    async fn begin_now(
        self: &Arc<Self>,
        which: &ClaimKey,
        beginning: &Beginning,
        rule: &ClaimRule,
    ) -> Result<Begun, Refusal> {
        let digest = which.digest();
        let print = self.print_of(beginning);
        let mut known = if self.recent.has(digest) { self.store.recall(digest) } else { None };
        let mut replaces = None;
        for _ in 0..RACES_MAX {
            let now = self.clock.now();
            let claim = if let Some(claim) = known.take() {
                claim
            } else {
                let old = replaces.take();
                let newborn = self.birth_of_claim(which, beginning, print, rule, old, now);
                match self.remember_claim(newborn).await? {
                    Some(Remembered::Fresh(claim)) => return Ok(Begun::Acquired(Box::new(claim))),
                    Some(Remembered::Known(claim)) => claim,
                    None => continue,
                }
            };
            match claim::begin(&claim, &print, now) {
                Begin::Fresh => replaces = Some(claim),
                Begin::Acquire => {
                    let lease_until = now.plus(lease_of(rule, beginning.lease));
                    let holder = beginning.holder.clone();
                    let event = ClaimEvent::Begun { lease_until, holder };
                    let kept = self.request_of_claim(&claim, beginning);
                    let turn = Some(ClaimTurn::Begun);
                    let said = Said { event, answer: Some(kept), turn };
                    if let Some(ours) = self.change(&claim, said, now).await? {
                        self.note_asked(&claim, Repeat::Revived);
                        return Ok(Begun::Acquired(Box::new(ours)));
                    }
                }
                Begin::Lapse => {
                    if let Some(doubtful) = self.lapse(&claim).await? {
                        return Ok(Begun::InDoubt(Box::new(doubtful)));
                    }
                }
                Begin::Busy { .. } if self.is_said_again(&claim, beginning).await? => {
                    return Ok(Begun::Acquired(Box::new(claim)));
                }
                Begin::Busy { until } => return Ok(Begun::Busy(Box::new(claim), until)),
                Begin::Done => {
                    self.note_asked(&claim, Repeat::Replayed);
                    self.recent.add(digest);
                    self.tell(&claim, ClaimTurn::Told);
                    let outcome = replay(&*self.store, &claim).await?;
                    return Ok(Begun::Done(Box::new(claim), outcome));
                }
                Begin::InDoubt => {
                    self.note_asked(&claim, Repeat::Refused);
                    return Ok(Begun::InDoubt(Box::new(claim)));
                }
                Begin::Mismatch => {
                    self.note_asked(&claim, Repeat::Refused);
                    return Err(Refusal::KeyMismatch {
                        operation: Box::new(claim),
                        parts: vec![Part::Body],
                        paths: Vec::new(),
                        status: 409,
                    });
                }
                Begin::Expired => {
                    self.note_asked(&claim, Repeat::Late);
                    return Err(Refusal::KeyExpired(Box::new(claim)));
                }
                Begin::Invalidated => {
                    self.note_asked(&claim, Repeat::Refused);
                    return Err(Refusal::KeyInvalidated(Box::new(claim)));
                }
            }
        }
        Err(Refusal::Limit {
            what: "too many begins race for this key".to_owned(),
            retry_after: Duration::from_secs(1),
        })
    }

    /// Writes a new claim, and tells of it; nothing where the key's last one has moved on.
    async fn remember_claim(
        self: &Arc<Self>,
        newborn: Birth,
    ) -> Result<Option<Remembered>, Refusal> {
        let engine = Arc::clone(self);
        self.see_through(async move {
            let remembered = engine.written(engine.store.remember(newborn).await)?;
            if let Some(Remembered::Fresh(claim)) = &remembered {
                engine.observer.observe(Fact::Remembered(claim));
                engine.leases.note(claim);
                engine.tell(claim, ClaimTurn::Begun);
            }
            Ok(remembered)
        })
        .await
    }

    /// Does it to its end: whoever hangs up meanwhile leaves nothing half done.
    async fn see_through<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        let run = self.begin();
        Detached::begin(Box::pin(async move {
            let _run = run;
            work.await
        }))
        .await
    }

    /// Waits until `claim` has come to rest, at most until its lease is over or `until`; tells whether
    /// a begin may get something else now.
    async fn wait_for_claim(
        &self,
        claim: &Operation,
        free_at: Timestamp,
        until: Timestamp,
    ) -> Result<bool, Refusal> {
        let mut timer = self.clock.sleep_until(free_at.min(until));
        loop {
            let woken = self.waiters.join(claim.id);
            let found = self.store.find(Which::Id(claim.id)).await?;
            let is_as_it_was = found.is_some_and(|found| {
                found.state == claim.state && claim::fence_of(&found) == claim::fence_of(claim)
            });
            if !is_as_it_was {
                return Ok(true);
            }
            // As many wait as may.
            let Some(woken) = woken else { return Ok(false) };
            tokio::select! {
                biased;
                _ = woken => return Ok(true),
                () = &mut timer => return Ok(free_at < until),
                () = self.look_elsewhere(claim) => {}
            }
        }
    }

    /// Somebody's word about a claim, under their fence: the claim after it, where it holds.
    async fn say(
        self: &Arc<Self>,
        which: &ClaimKey,
        fence: Fence,
        worth: fn(&Operation, Fence) -> Word,
        said: Said,
    ) -> Result<(Operation, Word), Refusal> {
        for _ in 0..RACES_MAX {
            let claim =
                self.store.find(Which::Key(which.digest())).await?.ok_or(Refusal::NotFound)?;
            match worth(&claim, fence) {
                Word::Stale => return Err(self.stale(claim)),
                Word::Said => return Ok((claim, Word::Said)),
                Word::Holds => {
                    let now = self.clock.now();
                    if let Some(changed) = self.change(&claim, said.clone(), now).await? {
                        return Ok((changed, Word::Holds));
                    }
                }
            }
        }
        Err(Refusal::Limit {
            what: "too many write this claim at once".to_owned(),
            retry_after: Duration::from_secs(1),
        })
    }

    fn stale(&self, claim: Operation) -> Refusal {
        self.tell(&claim, ClaimTurn::Stale);
        Refusal::FenceStale(Box::new(claim))
    }

    /// Writes what follows for `claim`, and tells of it; nothing where somebody was faster.
    async fn change(
        self: &Arc<Self>,
        claim: &Operation,
        said: Said,
        now: Timestamp,
    ) -> Result<Option<Operation>, Refusal> {
        let Said { event, answer, turn } = said;
        let Ok(operation) = claim.after(Event::Claim(event), now) else { return Ok(None) };
        let visible = operation.state == State::InDoubt;
        let write = Write { operation, answer, visible };
        let (engine, before) = (Arc::clone(self), claim.clone());
        self.see_through(async move {
            let written = engine.store.commit(write).await;
            let Some(changed) = engine.written(written)? else { return Ok(None) };
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
        let said = Said { event, answer: None, turn: Some(ClaimTurn::Lapsed) };
        self.change(claim, said, self.clock.now()).await
    }

    /// What was written; nothing where somebody was faster.
    fn written<T>(&self, written: Result<T, StoreError>) -> Result<Option<T>, Refusal> {
        match written {
            Ok(written) => Ok(Some(written)),
            Err(StoreError::Stale) => Ok(None),
            Err(error) => Err(self.heed(error)),
        }
    }

    fn tell(&self, claim: &Operation, turn: ClaimTurn) {
        self.observer.observe(Fact::Claimed(claim, turn));
    }

    fn birth_of_claim(
        &self,
        which: &ClaimKey,
        beginning: &Beginning,
        print: Fingerprint,
        rule: &ClaimRule,
        replaces: Option<Operation>,
        now: Timestamp,
    ) -> Birth {
        // Nodes' clocks differ a little, and a person may free a key at once.
        let after_the_last = replaces.as_ref().map_or(Fence(0), |old| Fence(old.fence.0 + 1));
        let mut operation = Operation {
            fence: claim::first_fence(now).max(after_the_last),
            effects: beginning.effects.unwrap_or(rule.effects),
            // It goes nowhere.
            route: String::new(),
            method: METHOD.to_owned(),
            target: format!("{}/{}", which.scope, which.key),
            window: rule.window,
            tombstone: rule.tombstone,
            ..Operation::new(self.next_id(now), which.scope(), which.key.clone(), print, now)
        };
        let lease_until = now.plus(lease_of(rule, beginning.lease));
        let event = ClaimEvent::Begun { lease_until, holder: beginning.holder.clone() };
        // From pending it may be begun.
        if let Ok(begun) = operation.after(Event::Claim(event), now) {
            operation = begun;
        }
        let (_, request) = self.request_of_claim(&operation, beginning);
        let replaces = replaces.map(|old| (old.id, old.fence));
        Birth { operation, request, replaces }
    }

    /// The begin of `claim` as it is kept.
    fn request_of_claim(&self, claim: &Operation, beginning: &Beginning) -> (Slot, Bytes) {
        let print = beginning.fingerprint.as_deref().map(|print| std::str::from_utf8(print));
        let kept = Kept {
            holder: beginning.holder.as_deref().map(Cow::Borrowed),
            nonce: beginning.nonce.as_deref().map(Cow::Borrowed),
            fingerprint: print.and_then(Result::ok).map(Cow::Borrowed),
        };
        let mut headers = Headers::default();
        headers.set("content-type", "application/json");
        let request = Request {
            method: claim.method.clone(),
            target: claim.target.clone(),
            headers,
            body: serde_json::to_vec(&kept).unwrap_or_default().into(),
        };
        (Slot::Request, wire::encode_request(&request, claim.id, &self.secrets, &[]))
    }

    /// Whether `beginning` is the one that has `claim` in hand, said again.
    async fn is_said_again(
        &self,
        claim: &Operation,
        beginning: &Beginning,
    ) -> Result<bool, Refusal> {
        // An empty one was not drawn: everybody's would be the same.
        let drawn = beginning.nonce.as_deref().filter(|nonce| !nonce.is_empty());
        let Some(nonce) = drawn else { return Ok(false) };
        if claim.state != State::Delivering {
            return Ok(false);
        }
        let request = self.request_of(claim).await?;
        let kept: Result<Kept<'_>, _> = serde_json::from_slice(&request.body);
        Ok(kept.is_ok_and(|kept| kept.nonce.as_deref() == Some(nonce)))
    }

    fn print_of(&self, beginning: &Beginning) -> Fingerprint {
        let Some(about) = &beginning.fingerprint else { return UNCOMPARED };
        let request = Request {
            method: METHOD.to_owned(),
            target: String::new(),
            headers: Headers::default(),
            body: about.clone(),
        };
        Fingerprint::of(&request, &FingerprintRule::default(), self.secrets.fingerprint())
    }
}

/// The lease that is asked for, within what the scope allows.
fn lease_of(rule: &ClaimRule, asked: Option<Duration>) -> Duration {
    asked.unwrap_or(rule.lease).min(rule.lease_max).max(LEASE_MIN)
}
