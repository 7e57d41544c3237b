//! What a provider says by itself of an operation: a webhook that names it. It ends a doubt; of what is
//! still under way it is kept, and heard where that ends in doubt.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onceward_core::id::OperationId;
use onceward_core::operation::{Operation, Outcome, Source, State};
use onceward_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Proof, names};
use crate::engine::{Engine, RACES_MAX};
use crate::setting;
use crate::store::{Query, Standing, StoreError, Way, Which};

/// What the setting of a testimony is called that waits for its operation: its id follows.
const PREFIX: &str = "testimony/";

/// Operations and testimonies read at once.
const PAGE: usize = 256;

/// Operations under way that one testimony is held against, at most.
const LOOKED_AT_MAX: usize = 20_000;

/// While some wait, they are looked at this often: their operation may be another node's.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Where nodes share a ledger, one that kept some may be gone.
const LOOK_FOR_OTHERS_EVERY: Duration = Duration::from_mins(1);

/// What a provider says of an operation.
#[derive(Debug, Clone)]
pub struct Testimony {
    /// Whose operations it is about; without it, anybody's.
    pub tenant: Option<String>,
    /// The route by which the operation went to the provider.
    pub route: String,
    /// What the provider calls it.
    pub named: Named,
    /// What it says.
    pub says: Says,
    /// The status that the operation is done with.
    pub status: Option<u16>,
    /// Who says so: `source/NAME`.
    pub who: String,
    /// What was said, in a line without values; behind a line break the evidence, which no log has.
    pub reason: String,
}

/// By what an operation is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// Its key, its key at the upstream, its id, or its label.
    Key(String),
    /// What an answer said that it made.
    Made {
        /// The name that the route gives it.
        name: String,
        /// What it is called.
        id: String,
    },
}

/// What is said of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Says {
    /// It was done.
    Done,
    /// It was done, and did not succeed: it has ended.
    Failed,
    /// It was not done: it may be sent again.
    NotDone,
}

impl Says {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "found",
            Self::Failed => "failed",
            Self::NotDone => "absent",
        }
    }
}

/// What came of a testimony.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Heard {
    /// Operations whose doubt it ended.
    pub ended: Vec<OperationId>,
    /// Operations that are under way: it is kept for them.
    pub kept: Vec<OperationId>,
}

/// A testimony that waits for its operation, as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    says: Says,
    status: Option<u16>,
    who: String,
    reason: String,
}

impl Engine {
    /// Hears what a provider says. When this returns, either the doubt is over, or what was said is
    /// on disk for when it begins; hearing the same again changes nothing.
    pub async fn testify(self: &Arc<Self>, testimony: &Testimony) -> Result<Heard, StoreError> {
        let kept = Kept {
            says: testimony.says,
            status: testimony.status,
            who: testimony.who.clone(),
            reason: testimony.reason.clone(),
        };
        let mut heard = Heard::default();
        for operation in self.open_ones(testimony).await? {
            if self.end_doubt(operation.id, &kept).await? {
                heard.ended.push(operation.id);
                continue;
            }
            let name = setting::name_of(PREFIX, operation.id);
            let sealed = self.secrets.seal(&setting::encode(&kept)?, name.as_bytes());
            self.store.set(name, Some(Bytes::from(sealed))).await?;
            // It may have come into doubt before that was written.
            if self.end_doubt(operation.id, &kept).await? {
                heard.ended.push(operation.id);
            } else {
                heard.kept.push(operation.id);
            }
        }
        if !heard.kept.is_empty() {
            self.doubts.testimony_kept().notify_one();
        }
        Ok(heard)
    }

    /// What is open of a route and has that name.
    async fn open_ones(&self, testimony: &Testimony) -> Result<Vec<Operation>, StoreError> {
        let is_named = |operation: &Operation| match &testimony.named {
            Named::Key(key) => names(operation).contains(key),
            Named::Made { name, id } => {
                operation.ids.iter().any(|(is, called)| is == name && called == id)
            }
        };
        let (mut found, mut before, mut looked_at) = (Vec::new(), None, 0);
        loop {
            let query = Query {
                // What waits in the ledger comes into doubt only by another attempt.
                standing: vec![Standing::InDoubt, Standing::Delivering, Standing::Held],
                tenant: testimony.tenant.clone(),
                route: Some(testimony.route.clone()),
                before,
                limit: PAGE,
                ..Query::default()
            };
            let page = self.store.list(query).await?;
            looked_at += page.operations.len();
            found.extend(page.operations.into_iter().filter(is_named));
            before = page.next;
            if before.is_none() || looked_at >= LOOKED_AT_MAX {
                return Ok(found);
            }
        }
    }

    /// Ends an operation's doubt by what was said; tells whether it was in doubt.
    async fn end_doubt(self: &Arc<Self>, id: OperationId, said: &Kept) -> Result<bool, StoreError> {
        for _ in 0..RACES_MAX {
            let Some(operation) = self.store.find(Which::Id(id)).await? else { return Ok(false) };
            if operation.state != State::InDoubt {
                return Ok(false);
            }
            let now = self.clock.now();
            let (_, policy) = self.route_of(&operation);
            let outcome =
                |ok| Outcome { status: said.status, ok, source: Source::Webhook, answer: None };
            let done = match said.says {
                Says::Done => Some(outcome(true)),
                Says::Failed => Some(outcome(false)),
                Says::NotDone => None,
            };
            let proof = Proof { done, who: said.who.clone(), reason: said.reason.clone() };
            let is_given_up = self.is_given_up(&operation).await?;
            let next = proof.ends(&operation, &policy, is_given_up, now);
            if let Some(written) = self.write(next, None, true).await? {
                self.acted(&written).await;
                return Ok(true);
            }
        }
        Err(StoreError::Away(format!("{id} is written by many at once")))
    }

    /// Looks at all that was said and waits; tells whether something still does.
    async fn hear_kept(self: &Arc<Self>) -> Result<bool, StoreError> {
        let (mut from, mut waits) = (None, false);
        loop {
            let page =
                self.store.settings_from(PREFIX.to_owned(), from.clone(), Way::Up, PAGE).await?;
            for (name, sealed) in &page {
                let id = setting::id_of(PREFIX, name)?;
                let row = self.secrets.open(sealed, name.as_bytes());
                let said =
                    setting::decode(name, &row.map_err(|error| setting::damaged(name, error))?)?;
                let is_over = self.end_doubt(id, &said).await?
                    || self.store.find(Which::Id(id)).await?.is_none_or(|it| it.state.is_ended());
                if is_over {
                    self.store.set(name.clone(), None).await?;
                } else {
                    waits = true;
                }
                from = Some(name.clone());
            }
            if page.len() < PAGE {
                return Ok(waits);
            }
        }
    }
}

/// Hears what was said of operations before they came into doubt, for ever; where nothing was, nothing
/// is asked.
pub(crate) async fn hear(engine: Arc<Engine>) {
    let (kept, came) = (engine.doubts.testimony_kept(), engine.doubts.came());
    while !engine.is_halted() {
        let waits = match engine.hear_kept().await {
            Ok(waits) => waits,
            Err(error) if engine.goes_on_after(&error) => true,
            Err(_) => return,
        };
        let next = match (waits, engine.store.is_shared()) {
            (true, _) => Some(LOOK_EVERY),
            (false, true) => Some(LOOK_FOR_OTHERS_EVERY),
            (false, false) => None,
        };
        let until = next.map(|next| engine.clock.now().plus(next));
        let until = until.unwrap_or(Timestamp::from_micros(i64::MAX));
        tokio::select! {
            () = kept.notified() => {}
            () = came.notified(), if waits => {}
            () = engine.clock.sleep_until(until) => {}
        }
    }
}
