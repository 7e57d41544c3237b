//! Leases that are over: noticed without anybody who begins, so that a handler that died is seen.

use std::sync::Arc;
use std::time::Duration;

use onceward_core::claim::has_lapsed;
use onceward_core::key::ScopeKind;
use onceward_core::operation::{Operation, State};

use crate::agenda::Agenda;
use crate::engine::Engine;
use crate::refusal::Refusal;
use crate::store::{Query, Standing, Which};

/// How often the ledger is looked through for leases that other processes gave.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// Claims on one page of a look, and how long it rests behind each.
const PAGE: usize = 500;
const PAGE_PAUSE: Duration = Duration::from_millis(100);

/// When the leases end that this process gave.
#[derive(Debug, Default)]
pub(crate) struct Leases(Agenda);

impl Leases {
    /// Keeps in mind until when `claim` is in hand, where it is.
    pub(crate) fn note(&self, claim: &Operation) {
        if let Some(until) = claim.lease_until.filter(|_| claim.state == State::Delivering) {
            self.0.note(until, claim.id);
        }
    }

    /// The lease of `claim`, as it was, is of no matter any more.
    pub(crate) fn forget(&self, claim: &Operation) {
        if let Some(until) = claim.lease_until {
            self.0.forget(until, claim.id);
        }
    }
}

/// Writes the lapses of leases that are over, for ever.
pub(crate) async fn look_for_lapses(engine: Arc<Engine>) {
    let mut look_at = engine.clock.now();
    loop {
        let now = engine.clock.now();
        let mut looked = engine.lapse_known().await;
        if looked.is_ok() && now >= look_at {
            look_at = now.plus(LOOK_EVERY);
            looked = engine.lapse_unknown().await;
        }
        // What is full or away now is looked at again.
        if let Err(Refusal::Ledger(error)) = looked
            && !engine.goes_on_after(&error)
        {
            return;
        }
        let next = engine.leases.0.first().map_or(look_at, |first| look_at.min(first));
        tokio::select! {
            () = engine.clock.sleep_until(next) => {}
            () = engine.leases.0.earlier() => {}
        }
    }
}

impl Engine {
    /// The lapses of leases that this process gave.
    async fn lapse_known(self: &Arc<Self>) -> Result<(), Refusal> {
        while let Some(id) = self.leases.0.due(self.clock.now()) {
            if let Some(claim) = self.store.find(Which::Id(id)).await? {
                self.lapse_if_over(&claim).await?;
            }
        }
        Ok(())
    }

    /// The lapses of leases that others gave, and of those that were too many to keep in mind.
    async fn lapse_unknown(self: &Arc<Self>) -> Result<(), Refusal> {
        let mut query = Query {
            standing: vec![Standing::Delivering],
            kind: Some(ScopeKind::Claim),
            limit: PAGE,
            ..Query::default()
        };
        loop {
            let page = self.store.list(query.clone()).await?;
            for claim in &page.operations {
                self.lapse_if_over(claim).await?;
            }
            if page.next.is_none() {
                return Ok(());
            }
            query.before = page.next;
            self.clock.sleep_until(self.clock.now().plus(PAGE_PAUSE)).await;
        }
    }

    async fn lapse_if_over(self: &Arc<Self>, claim: &Operation) -> Result<(), Refusal> {
        if has_lapsed(claim, self.clock.now()) {
            self.lapse(claim).await?;
        } else {
            self.leases.note(claim);
        }
        Ok(())
    }
}
