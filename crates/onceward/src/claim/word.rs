//! The word of whoever has a claim in hand, or had it last: done, given back, or for longer.

use std::sync::Arc;
use std::time::Duration;

use onceward_core::claim::{self, ClaimEvent, Word};
use onceward_core::exchange::{Headers, Response};
use onceward_core::operation::{Fence, Operation};

use super::{Brought, ClaimKey, Ended, GivenBack, Said, lease_of};
use crate::engine::{Engine, RACES_MAX};
use crate::observe::ClaimTurn;
use crate::refusal::Refusal;
use crate::replay::replay;
use crate::store::Which;

impl Engine {
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
        let brought = Some(Brought::Outcome(response.clone()));
        let said = Said { event, brought, turn: Some(ClaimTurn::Done) };
        let (claim, worth) = self.say(which, fence, claim::complete, said).await?;
        if worth == Word::Holds {
            return Ok(claim);
        }
        let is_same = match replay(&*self.store, &claim, &self.secrets).await? {
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
            let said = Said { event, brought: None, turn: Some(ClaimTurn::Lapsed) };
            self.say(which, fence, claim::give_up, said).await?
        } else {
            let event = ClaimEvent::Released { why, free_at };
            let said = Said { event, brought: None, turn: Some(ClaimTurn::Released) };
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
        let said = Said { event, brought: None, turn: None };
        let (claim, _) = self.say(which, fence, claim::renew, said).await?;
        Ok(claim)
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
}
