//! A second person for what is risky: what one asks for is kept, and done when another asks for the
//! same. Every act of a person goes through here, whatever edge it came by.

use std::sync::PoisonError;
use std::time::Duration;

use onceward_core::id::OperationId;
use onceward_core::operation::{Act, Deed, Operation};
use onceward_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::people::Person;
use crate::refusal::Refusal;
use crate::setting;
use crate::store::StoreError;

/// What the setting of an act that waits is called.
const PREFIX: &str = "approval/";

/// How long what one person asked for waits for another.
const LASTS: Duration = Duration::from_hours(24);

/// An act that waits for a second person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// On which operation.
    pub operation: OperationId,
    /// What, and how.
    pub what: String,
    /// When it was asked for.
    pub at: Timestamp,
    /// By whom.
    pub who: String,
    /// In that person's words.
    pub reason: String,
}

#[derive(Serialize, Deserialize)]
struct WantedRow {
    operation: u128,
    what: String,
    at: i64,
    who: String,
    reason: String,
}

/// What makes two acts the same: the deed, and what would come of it.
fn what_of(deed: Deed, next: &Operation) -> String {
    let detail = match deed {
        Deed::Forgot => next.forgotten.map(|then| format!("{then:?}").to_lowercase()),
        Deed::Extended => next.key_expires_at().map(|at| at.as_micros().to_string()),
        Deed::ResolvedDone => {
            let status = next.outcome.as_ref().and_then(|outcome| outcome.status);
            status.map(|status| status.to_string())
        }
        _ => None,
    };
    detail.map_or_else(|| deed.name().to_owned(), |detail| format!("{} {detail}", deed.name()))
}

impl Engine {
    /// From now on these deeds want two persons.
    pub fn set_approved(&self, deeds: Vec<Deed>) {
        *self.approved.write().unwrap_or_else(PoisonError::into_inner) = deeds;
    }

    pub(crate) fn wants_two(&self, deed: Deed) -> bool {
        // What is asked anew is sent again all the same, under another key.
        let deed = if deed == Deed::Resent { Deed::Redelivered } else { deed };
        self.approved.read().unwrap_or_else(PoisonError::into_inner).contains(&deed)
    }

    /// The act that may be done now: `act` itself, or with the word of whoever asked first. Where it
    /// wants another person, that is kept, and it is a refusal.
    pub(crate) async fn approve(
        &self,
        operation: &Operation,
        what: &str,
        act: &Act,
    ) -> Result<Act, Refusal> {
        // Another name of an operation does nothing by itself.
        if operation.alias_of.is_some() || !self.wants_two(act.deed) {
            return Ok(act.clone());
        }
        let name = name_of(operation.id, act.deed);
        let first = self.store.setting(name.clone()).await?.and_then(|kept| read(&name, &kept));
        let first = first.filter(|first| first.what == what && act.at < first.at.plus(LASTS));
        match first {
            Some(first) if first.who != act.who => {
                let reason =
                    format!("{} (asked for by {}: {})", act.reason, first.who, first.reason);
                Ok(Act { reason, ..act.clone() })
            }
            first => {
                let row = WantedRow {
                    operation: operation.id.as_u128(),
                    what: what.to_owned(),
                    at: act.at.as_micros(),
                    who: act.who.clone(),
                    reason: act.reason.clone(),
                };
                if first.is_none() {
                    self.store.set(name, Some(setting::encode(&row)?)).await?;
                }
                let operation = Box::new(operation.clone());
                Err(Refusal::SecondWanted { operation, who: row.who, what: row.what })
            }
        }
    }

    /// The same; that it waits for another person's word is noted.
    pub(crate) async fn approve_noting(
        &self,
        operation: &Operation,
        what: &str,
        act: &Act,
    ) -> Result<Act, Refusal> {
        let approved = self.approve(operation, what, act).await;
        if let Err(refusal) = &approved {
            self.note_wanted(refusal, act).await?;
        }
        approved
    }

    /// As [`Self::approve`] for the act that made `next` of `operation`; tells the deed that is done with it, where
    /// it waited for nothing any more.
    pub(crate) async fn approve_last(
        &self,
        operation: &Operation,
        next: &mut Operation,
    ) -> Result<Option<Deed>, Refusal> {
        let Some(act) = next.acts.last() else { return Ok(None) };
        // What gives it another key is asked about before that is there.
        if act.deed == Deed::Rotated {
            return Ok(Some(act.deed));
        }
        let act = self.approve(operation, &what_of(act.deed, next), act).await?;
        let deed = act.deed;
        if let Some(last) = next.acts.last_mut() {
            *last = act;
        }
        Ok(Some(deed))
    }

    /// That a person asked for what wants another one's word too is a deed of its own.
    pub(crate) async fn note_wanted(&self, refusal: &Refusal, act: &Act) -> Result<(), StoreError> {
        let Refusal::SecondWanted { operation, what, .. } = refusal else { return Ok(()) };
        let person = Person { who: act.who.clone(), reason: act.reason.clone() };
        let deed = format!("asked for: {what}");
        self.note(&person, &deed, &operation.id.to_string()).await.map(drop)
    }

    /// What waited is done.
    pub(crate) async fn settle_approval(&self, id: OperationId, deed: Deed) -> Result<(), Refusal> {
        let name = name_of(id, deed);
        if self.wants_two(deed) && self.store.setting(name.clone()).await?.is_some() {
            self.store.set(name, None).await?;
        }
        Ok(())
    }

    /// What waits for a second person.
    pub async fn wanted(&self) -> Result<Vec<Wanted>, Refusal> {
        let now = self.clock.now();
        let all = self.store.settings(PREFIX.to_owned()).await?;
        let wanted = all.iter().filter_map(|(name, kept)| read(name, kept));
        Ok(wanted.filter(|wanted| now < wanted.at.plus(LASTS)).collect())
    }
}

fn name_of(id: OperationId, deed: Deed) -> String {
    format!("{PREFIX}{id}/{}", deed.name())
}

/// What cannot be read is asked for anew.
fn read(name: &str, kept: &[u8]) -> Option<Wanted> {
    let row: WantedRow = setting::decode(name, kept).ok()?;
    Some(Wanted {
        operation: OperationId::from_u128(row.operation),
        what: row.what,
        at: Timestamp::from_micros(row.at),
        who: row.who,
        reason: row.reason,
    })
}
