//! What happened lately, counted over all nodes: operations that died and late duplicates, by tenant
//! and route. A process counts what it sees, and writes its own row of the ledger when it looks; who
//! asks adds the rows up. A crash loses what came since the last look, a clean stop nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use onceward::core::operation::{Operation, State};
use onceward::core::time::Timestamp;
use onceward::observe::{Fact, Observer, Repeat};
use onceward::store::{Store, StoreError};
use serde::{Deserialize, Serialize};

use super::OWN_ROUTES;
use super::rule::{Alert, Kind, Measure, Rules};
use crate::shape;
use crate::telemetry::label;

/// What the rows are called.
const PREFIX: &str = "alerts/recent/";

/// Into how many parts the time of a rule is cut.
const PARTS: u32 = 60;

/// Tenants and routes that are counted apart; what is beyond is not counted.
const SERIES_MAX: usize = 500;

/// Of what is counted how much, and when.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Series {
    kind: Kind,
    tenant: String,
    route: String,
    /// The beginning of each part, in milliseconds since 1970, and how many.
    parts: VecDeque<(u64, u64)>,
}

/// What this process counted.
#[derive(Default)]
pub(crate) struct Recent(Mutex<Counted>);

#[derive(Default)]
struct Counted {
    /// The time of each rule; of what has none nothing is counted.
    within: BTreeMap<Kind, Duration>,
    series: Vec<Series>,
    is_dirty: bool,
}

/// Counts, and passes on what it is told.
pub(crate) struct Counting {
    pub(crate) recent: Arc<Recent>,
    pub(crate) next: Arc<dyn Observer>,
}

impl Observer for Counting {
    fn observe(&self, fact: Fact<'_>) {
        match &fact {
            Fact::Rested(operation) if is_dead_letter(operation) => {
                self.recent.count(Kind::DeadLetters, &operation.scope.tenant, &operation.route);
            }
            Fact::Duplicate(operation, Repeat::Late) => {
                self.recent.count(Kind::LateDuplicates, &operation.scope.tenant, &operation.route);
            }
            Fact::TooOld { tenant, route } => {
                self.recent.count(Kind::LateDuplicates, tenant, route);
            }
            _ => {}
        }
        self.next.observe(fact);
    }
}

fn is_dead_letter(operation: &Operation) -> bool {
    matches!(operation.state, State::Dead(_)) && !operation.told
}

impl Recent {
    /// Counts by these rules from now on.
    pub(super) fn follow(&self, rules: Option<&Rules>) {
        let counts = |kind: &Kind| matches!(kind, Kind::DeadLetters | Kind::LateDuplicates);
        let of = rules.iter().flat_map(|rules| &rules.of).filter(|(kind, _)| counts(kind));
        self.lock().within = of.map(|(kind, rule)| (*kind, rule.within)).collect();
    }

    fn count(&self, kind: Kind, tenant: &str, route: &str) {
        // A notice that died is told of to nobody who could not be told of anything.
        if route.starts_with(OWN_ROUTES) {
            return;
        }
        self.lock().count(kind, tenant, label(route), shape::now());
    }

    /// Writes what was counted since it was written.
    pub(super) async fn save(&self, store: &dyn Store, session: u64) -> Result<(), StoreError> {
        let Some(series) = self.lock().changed(shape::now()) else { return Ok(()) };
        let row = serde_json::to_vec(&series).unwrap_or_default().into();
        let row = (!series.is_empty()).then_some(row);
        let saved = store.set(format!("{PREFIX}{session:016x}"), row).await;
        if saved.is_err() {
            self.lock().is_dirty = true;
        }
        saved
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        // A count that a panic cut off is a count less.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    fn count(&mut self, kind: Kind, tenant: &str, route: &str, now: Timestamp) {
        let Some(within) = self.within.get(&kind) else { return };
        let part = u64::try_from((*within / PARTS).as_millis()).unwrap_or(u64::MAX).max(1);
        let begin = now.as_millis() / part * part;
        let is_it = |it: &&mut Series| it.kind == kind && it.tenant == tenant && it.route == route;
        self.is_dirty = true;
        if let Some(series) = self.series.iter_mut().find(is_it) {
            match series.parts.back_mut() {
                Some((last, count)) if *last == begin => *count += 1,
                _ => series.parts.push_back((begin, 1)),
            }
        } else if self.series.len() < SERIES_MAX {
            let parts = VecDeque::from([(begin, 1)]);
            let (tenant, route) = (tenant.to_owned(), route.to_owned());
            self.series.push(Series { kind, tenant, route, parts });
        }
    }

    /// What there is, where it is something else than was written.
    fn changed(&mut self, now: Timestamp) -> Option<Vec<Series>> {
        let had = !self.series.is_empty();
        prune(&mut self.series, &self.within, now);
        let is_over = had && self.series.is_empty();
        if !self.is_dirty && !is_over {
            return None;
        }
        self.is_dirty = false;
        Some(self.series.clone())
    }
}

/// Leaves out what is over.
fn prune(series: &mut Vec<Series>, within: &BTreeMap<Kind, Duration>, now: Timestamp) {
    for one in &mut *series {
        let within = within.get(&one.kind).copied().unwrap_or_default();
        let from = now.minus(within).as_millis();
        while one.parts.front().is_some_and(|(begin, _)| *begin < from) {
            one.parts.pop_front();
        }
    }
    series.retain(|one| !one.parts.is_empty());
}

/// What all nodes counted within the time of each rule.
pub(super) async fn measures(
    store: &dyn Store,
    rules: &Rules,
    now: Timestamp,
) -> Result<Vec<Measure>, StoreError> {
    let within: BTreeMap<_, _> = rules.of.iter().map(|(kind, rule)| (*kind, rule.within)).collect();
    let mut sums: BTreeMap<Alert, u64> = BTreeMap::new();
    for (name, value) in store.settings(PREFIX.to_owned()).await? {
        let mut series: Vec<Series> = serde_json::from_slice(&value).unwrap_or_default();
        prune(&mut series, &within, now);
        if series.is_empty() {
            // Its process is gone, or is about to take it away itself.
            store.swap(name, Some(value), None).await?;
        }
        for one in series {
            let alert = Alert {
                kind: one.kind,
                tenant: Some(one.tenant),
                route: Some(one.route),
                node: None,
            };
            *sums.entry(alert).or_default() +=
                one.parts.iter().map(|(_, count)| count).sum::<u64>();
        }
    }
    Ok(sums.into_iter().map(|(alert, value)| Measure { alert, value }).collect())
}
