//! A begin: whoever gets the claim does it, and whoever does not learns why.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onceward_core::claim::{self, Begin, ClaimEvent, ClaimRule, UNCOMPARED};
use onceward_core::exchange::{Headers, Request};
use onceward_core::fingerprint::{Fingerprint, FingerprintRule, Part};
use onceward_core::operation::{Event, Fence, Intent, Operation, State};
use onceward_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Beginning, Begun, Brought, ClaimKey, Said, lease_of};
use crate::engine::{Engine, RACES_MAX};
use crate::observe::{ClaimTurn, Fact, Repeat};
use crate::refusal::Refusal;
use crate::replay::replay;
use crate::store::{Birth, Remembered, Slot, StoreError, Which};
use crate::tenants::Wanted;
use crate::wire::{self, Sealing};

/// The method of a claim's request: it is none of HTTP's, because nothing is sent.
const METHOD: &str = "CLAIM";

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
        let bytes = beginning.fingerprint.as_ref().map_or(0, |print| print.len() as u64);
        let wanted = Wanted { bytes: Some(bytes), may_wait: false };
        let admitted = self.admit_tenant(&which.tenant, wanted).await?;
        let (mut share, full) = match admitted {
            // A handler's work is no call of ours.
            Ok(admitted) => (admitted.map(|(share, _)| share), None),
            Err(full) => (None, Some(full)),
        };
        for _ in 0..RACES_MAX {
            let now = self.clock.now();
            let claim = if let Some(claim) = known.take() {
                claim
            } else if let Some(full) = &full {
                let found = self.store.find(Which::Key(digest)).await?;
                match found.filter(|_| replaces.is_none()) {
                    Some(claim) => claim,
                    None => return Err(full.refusal(&which.tenant)),
                }
            } else {
                let old = replaces.take();
                let newborn = self.birth_of_claim(which, beginning, print, rule, old, now);
                match self.remember_claim(newborn).await? {
                    Some(Remembered::Fresh(claim)) => {
                        if let Some(share) = &mut share {
                            share.spend();
                        }
                        return Ok(Begun::Acquired(Box::new(claim)));
                    }
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
                    let brought = Some(Brought::Begin(kept.0, kept.1));
                    let said = Said { event, brought, turn };
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
                    let outcome = replay(&*self.store, &claim, &self.secrets).await?;
                    return Ok(Begun::Done(Box::new(claim), outcome));
                }
                Begin::InDoubt => {
                    self.note_asked(&claim, Repeat::Refused);
                    return Ok(Begun::InDoubt(Box::new(claim)));
                }
                Begin::Mismatch => {
                    self.note_asked(&claim, Repeat::Mismatch);
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
            let remembered = match engine.store.remember(newborn).await {
                Err(StoreError::Stale) => return Ok(None),
                done => done.map_err(|error| engine.heed(error))?,
            };
            if let Remembered::Fresh(claim) = &remembered {
                engine.observer.observe(Fact::Remembered(claim));
                engine.leases.note(claim);
                engine.tell(claim, ClaimTurn::Begun);
            }
            Ok(Some(remembered))
        })
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
        let intent = Intent {
            effects: beginning.effects.unwrap_or(rule.effects),
            // It goes nowhere.
            route: String::new(),
            method: METHOD.to_owned(),
            target: format!("{}/{}", which.scope, which.key),
            tombstone: rule.tombstone,
            ..Intent::new(self.next_id(now), which.scope(), which.key.clone(), print, now)
        };
        let mut operation = Operation {
            fence: claim::first_fence(now).max(after_the_last),
            window: rule.window,
            ..Operation::new(intent)
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
        let sealing = Sealing::plain(self.seals_bodies());
        (Slot::Request, wire::encode_request(&request, claim.id, &self.secrets, sealing))
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
