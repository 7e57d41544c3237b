//! Leases that are over: noticed without anybody who begins, so that a handler that died is seen.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use onceward_core::claim::has_lapsed;
use onceward_core::id::OperationId;
use onceward_core::key::ScopeKind;
use onceward_core::operation::{Operation, State};
use onceward_core::time::Timestamp;
use tokio::sync::Notify;

use crate::engine::Engine;
use crate::refusal::Refusal;
use crate::store::{Query, Standing, Which};

/// Leases that one process keeps in mind; what is more is found with the next look.
const LEASES_MAX: usize = 64 * 1024;

/// How often the ledger is looked through for leases that other processes gave.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// Claims on one page of a look, and how long it rests behind each.
const PAGE: usize = 500;
const PAGE_PAUSE: Duration = Duration::from_millis(100);

/// When the leases end that this process gave: a hint, the ledger is the truth.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    ends: Mutex<BTreeSet<(Timestamp, OperationId)>>,
    /// Woken when one was given that ends before all others.
    earlier: Notify,
}

impl Leases {
    fn ends(&self) -> MutexGuard<'_, BTreeSet<(Timestamp, OperationId)>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps in mind until when `claim` is in hand, where it is.
    pub(crate) fn note(&self, claim: &Operation) {
        let Some(until) = claim.lease_until.filter(|_| claim.state == State::Delivering) else {
            return;
        };
        let mut ends = self.ends();
        if ends.len() >= LEASES_MAX {
            return;
        }
        let is_first = ends.first().is_none_or(|(first, _)| until < *first);
        ends.insert((until, claim.id));
        drop(ends);
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// The lease of `claim`, as it was, is of no matter any more.
    pub(crate) fn forget(&self, claim: &Operation) {
        if let Some(until) = claim.lease_until {
            self.ends().remove(&(until, claim.id));
        }
    }

    /// A claim whose lease is over by now.
    fn over(&self, now: Timestamp) -> Option<OperationId> {
        let mut ends = self.ends();
        let (until, id) = ends.first().copied().filter(|(until, _)| *until <= now)?;
        ends.remove(&(until, id));
        Some(id)
    }

    /// When the first of them is over, where that is before `at`.
    fn first_before(&self, at: Timestamp) -> Timestamp {
        self.ends().first().map_or(at, |(until, _)| at.min(*until))
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
        let next = engine.leases.first_before(look_at);
        tokio::select! {
            () = engine.clock.sleep_until(next) => {}
            () = engine.leases.earlier.notified() => {}
        }
    }
}

impl Engine {
    /// The lapses of leases that this process gave.
    async fn lapse_known(self: &Arc<Self>) -> Result<(), Refusal> {
        while let Some(id) = self.leases.over(self.clock.now()) {
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
