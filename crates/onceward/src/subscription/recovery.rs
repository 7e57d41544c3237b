//! Recovering a receiver that was away: what failed is sent again, and what was missed is delivered yet.

use std::sync::Arc;
use std::time::Duration;

use onceward_core::event::Event;
use onceward_core::id::OperationId;
use onceward_core::key::ScopeKind;
use onceward_core::operation::Operation;
use onceward_core::time::Timestamp;

use super::route_name;
use crate::bulk::{Bulk, BulkDeed, BulkOrder};
use crate::engine::Engine;
use crate::people::Person;
use crate::refusal::Refusal;
use crate::store::{Query, Standing};

/// Dead letters of a receiver are sent again at this rate, a second: its gate spares it besides.
const REDELIVER_RATE: u32 = 100;

/// Events that one step looks at.
const EVENTS: usize = 500;

/// What one step of looking for missed events came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Missed {
    /// Events that were looked at.
    pub looked_at: u64,
    /// Deliveries that were made of them: the others were there, or are not wanted.
    pub born: u64,
    /// Where to go on, where there may be more.
    pub next: Option<OperationId>,
}

impl Engine {
    /// Sends again all that failed at a receiver since then. A delivery fails for good when its table of
    /// delays is over: so those of events that are older by that much are meant too.
    pub async fn recover_failed(
        self: &Arc<Self>,
        name: &str,
        since: Timestamp,
        person: &Person,
    ) -> Result<Bulk, Refusal> {
        let found = self.subscription(name).await?.ok_or(Refusal::NotFound)?;
        let tried: Duration = found.wish.delays.iter().sum();
        // Each delay may be a fifth longer; and each attempt takes time.
        let since = since.minus(tried + tried / 4 + Duration::from_hours(1));
        self.begin_bulk(BulkOrder {
            deed: BulkDeed::Redeliver,
            filter: Query {
                standing: vec![Standing::DeadLetter],
                tenant: Some(found.tenant),
                route: Some(route_name(name)),
                since: Some(since),
                ..Query::default()
            },
            selected: Vec::new(),
            taken: Vec::new(),
            rate: REDELIVER_RATE,
            person: person.clone(),
        })
        .await
    }

    /// Delivers the events since then that the subscription wants as it is now and that never went to it: one
    /// step, from the newest before `before` on. Done twice it delivers nothing twice.
    pub async fn recover_missed(
        self: &Arc<Self>,
        name: &str,
        since: Timestamp,
        before: Option<OperationId>,
        person: &Person,
    ) -> Result<Missed, Refusal> {
        let found = self.subscription(name).await?.ok_or(Refusal::NotFound)?;
        // Each step is a deed of its own: a first one may begin anywhere.
        self.note(person, "recovered what was missed", name).await?;
        let page = self
            .store
            .list(Query {
                tenant: Some(found.tenant),
                kind: Some(ScopeKind::Event),
                since: Some(since),
                before,
                limit: EVENTS,
                ..Query::default()
            })
            .await?;
        let mut missed = Missed { next: page.next, ..Missed::default() };
        for operation in &page.operations {
            missed.looked_at += 1;
            // A test was for one receiver alone.
            if operation.via.is_some() || self.as_kept(operation.clone()).request.is_none() {
                continue;
            }
            missed.born += u64::from(self.deliver_missed(name, operation).await?);
        }
        Ok(missed)
    }

    async fn deliver_missed(
        self: &Arc<Self>,
        name: &str,
        operation: &Operation,
    ) -> Result<bool, Refusal> {
        let request = self.request_of(operation).await?;
        let Ok(event) = Event::read(crate::event::form_of(&request), request.body) else {
            return Ok(false);
        };
        let Some(known) = self.subscriptions.of_route(&route_name(name)) else {
            return Err(Refusal::NotFound);
        };
        if !known.subscription.wish.selection.wants(&event) {
            return Ok(false);
        }
        let payload = event.payload(operation.created_at);
        self.bear_delivery(operation, &event, &payload, &known).await
    }
}
