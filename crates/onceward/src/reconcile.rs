//! On a schedule, what the ledger did is held against what the provider lists. Nothing is sent by
//! it; what does not agree is kept as a report, counted and logged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onceward_core::operation::{Operation, State};
use onceward_core::reconcile::{Known, ReconcileRule, compare, name_of};
use onceward_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::doubt::{cut, names};
use crate::engine::Engine;
use crate::gates::{Entrant, Slot};
use crate::observe::Fact;
use crate::refusal::Refusal;
use crate::route::Route;
use crate::setting;
use crate::store::{Lane, Query, StoreError};

/// What the setting of a route's last report is called.
const REPORT: &str = "reconcile/";

/// What the setting of whose turn it is is called.
const TURN: &str = "reconciling/";

/// How often it is looked whether it is time.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Pages of a list, at most, and items in all.
const PAGES_MAX: usize = 200;
const ITEMS_MAX: usize = 50_000;

/// Operations that are compared at once, at most.
const OPERATIONS_MAX: usize = 50_000;
const PAGE: usize = 500;

/// How much a report tells of each kind.
const TOLD_MAX: usize = 50;
const VALUE_BYTES_MAX: usize = 200;

/// How often a gate that is shut is tried for one page.
const ENTRIES_MAX: usize = 20;

/// How the ledger and a provider's list agreed last.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// When, in microseconds since 1970.
    at: i64,
    since: i64,
    until: i64,
    /// Items that were listed.
    pub listed: u64,
    /// Operations that they were compared with.
    pub operations: u64,
    /// How many were done here and are not listed, and the first of them: id and key.
    pub missing: (u64, Vec<(String, String)>),
    /// How many are listed and not known here, and the first of them.
    pub unknown: (u64, Vec<String>),
    /// How many differ, and the first of them: id, place, here, there.
    pub differing: (u64, Vec<(String, String, String, String)>),
    /// Whether all of it was compared, and not only as much as is read at once.
    pub is_complete: bool,
    /// Why it was not compared, where it was not; the next then begins where this should have.
    pub error: Option<String>,
}

impl Report {
    /// When it was made.
    pub fn at(&self) -> Timestamp {
        Timestamp::from_micros(self.at)
    }

    /// The period that was compared.
    pub fn period(&self) -> (Timestamp, Timestamp) {
        (Timestamp::from_micros(self.since), Timestamp::from_micros(self.until))
    }
}

/// Compares each route that says how, whenever it is time, for ever.
pub(crate) async fn reconcile(engine: Arc<Engine>) {
    let mut done: BTreeMap<String, i64> = BTreeMap::new();
    while !engine.is_halted() {
        let now = engine.clock.now();
        let mut next = now.plus(LOOK_EVERY);
        for route in engine.routes().named.values() {
            let Some(rule) = route.reconcile.clone() else { continue };
            let every = rule.every.as_micros().max(1) as i64;
            let turn = now.as_micros().div_euclid(every);
            next = next.min(Timestamp::from_micros((turn + 1).saturating_mul(every)));
            if done.insert(route.name.clone(), turn) == Some(turn) {
                continue;
            }
            let (own, route) = (Arc::clone(&engine), Arc::clone(route));
            engine.go_on_with(async move {
                if let Err(error) = take_turn(&own, &route, &rule, turn).await
                    && !error.may_pass()
                {
                    own.heed(error);
                }
            });
        }
        engine.clock.sleep_until(next).await;
    }
}

/// Compares a route, unless another node has this turn; a turn that a crash cut off is made up for
/// by the next, which begins where the last report ended.
async fn take_turn(
    engine: &Engine,
    route: &Route,
    rule: &ReconcileRule,
    turn: i64,
) -> Result<(), StoreError> {
    let prefix = format!("{TURN}{}/", route.name);
    let name = format!("{prefix}{turn}");
    let ours = Bytes::copy_from_slice(&engine.session.0.to_le_bytes());
    if engine.store.offer(name.clone(), ours.clone()).await? != ours {
        return Ok(());
    }
    for (older, _) in engine.store.settings(prefix).await? {
        if older != name {
            engine.store.set(older, None).await?;
        }
    }
    let before = engine.report(&route.name).await?;
    let report = compared(engine, route, rule, before.as_ref()).await?;
    let name = format!("{REPORT}{}", route.name);
    engine.store.set(name, Some(setting::encode(&report)?)).await?;
    engine.observer.observe(Fact::Reconciled(&route.name, &report));
    Ok(())
}

impl Engine {
    /// How a route and its provider's list agreed last; nothing where they were never compared.
    pub async fn reconciled(&self, route: &str) -> Result<Option<Report>, Refusal> {
        self.find_route(route)?;
        Ok(self.report(route).await?)
    }

    async fn report(&self, route: &str) -> Result<Option<Report>, StoreError> {
        let name = format!("{REPORT}{route}");
        let kept = self.store.setting(name.clone()).await?;
        kept.map(|value| setting::decode(&name, &value)).transpose()
    }
}

/// The report on the time since the last.
async fn compared(
    engine: &Engine,
    route: &Route,
    rule: &ReconcileRule,
    before: Option<&Report>,
) -> Result<Report, StoreError> {
    let now = engine.clock.now();
    let until = now.minus(rule.settle);
    let since = before.map_or_else(|| until.minus(rule.every), |before| before.period().1);
    let mut report = Report {
        at: now.as_micros(),
        since: since.as_micros(),
        until: until.as_micros(),
        is_complete: true,
        ..Report::default()
    };
    // What was done just before the period may be listed within it.
    let (items, is_whole) = match listed(engine, route, rule, since.minus(rule.settle), until).await
    {
        Ok(items) => items,
        Err(error) => {
            report.until = report.since;
            report.error = Some(error);
            return Ok(report);
        }
    };
    let (operations, is_all) = operations(engine, route, since).await?;
    let known = knowns(engine, rule, &operations, &items, since, until).await?;
    let found = compare(rule, &known, &items);
    report.is_complete = is_whole && is_all;
    report.listed = items.len() as u64;
    report.operations = known.len() as u64;
    // What was not read whole is not known to be missing or unknown.
    if is_whole {
        let told = found.missing.iter().take(TOLD_MAX).map(|place| {
            let operation = &operations[*place];
            (operation.id.to_string(), operation.key.as_str().to_owned())
        });
        report.missing = (found.missing.len() as u64, told.collect());
    }
    if is_all {
        let told = found.unknown.iter().take(TOLD_MAX).map(|name| cut(name, VALUE_BYTES_MAX));
        report.unknown = (found.unknown.len() as u64, told.collect());
    }
    let told = found.differing.iter().take(TOLD_MAX).map(|it| {
        let id = operations[it.operation].id.to_string();
        (id, it.place.clone(), cut(&it.here, VALUE_BYTES_MAX), cut(&it.there, VALUE_BYTES_MAX))
    });
    report.differing = (found.differing.len() as u64, told.collect());
    Ok(report)
}

/// The operations that may be listed, the newest first, and whether these are all: whatever an
/// accepted one waited for, it was remembered within the horizon before.
async fn operations(
    engine: &Engine,
    route: &Route,
    since: Timestamp,
) -> Result<(Vec<Operation>, bool), StoreError> {
    let horizons = route.policies().map(|policy| policy.accepted.horizon);
    let horizon = horizons.max().unwrap_or_default();
    let oldest = since.minus(horizon);
    let mut operations: Vec<Operation> = Vec::new();
    let mut before = None;
    loop {
        let route = Some(route.name.clone());
        let query = Query { route, since: Some(oldest), before, limit: PAGE, ..Query::default() };
        let page = engine.store.list(query).await?;
        operations.extend(page.operations);
        before = page.next;
        if before.is_none() {
            return Ok((operations, true));
        }
        if operations.len() >= OPERATIONS_MAX {
            return Ok((operations, false));
        }
    }
}

async fn knowns(
    engine: &Engine,
    rule: &ReconcileRule,
    operations: &[Operation],
    items: &BTreeMap<String, Value>,
    since: Timestamp,
    until: Timestamp,
) -> Result<Vec<Known>, StoreError> {
    let mut known = Vec::with_capacity(operations.len());
    for operation in operations {
        let names = names(operation);
        let is_listed = names.iter().any(|name| items.contains_key(name));
        let body = if is_listed && !rule.equal.is_empty() && operation.request.is_some() {
            serde_json::from_slice(&engine.request_of(operation).await?.body).ok()
        } else {
            None
        };
        let is_in_period = operation.ended_at.is_some_and(|at| at >= since && at < until);
        let is_ok = operation.outcome.as_ref().is_some_and(|outcome| outcome.ok);
        let is_due = operation.state == State::Done && is_ok && is_in_period;
        known.push(Known { names, state: operation.state.name(), is_due, body });
    }
    Ok(known)
}

/// Everything that the provider lists of a time, by name, and whether that is all of it.
async fn listed(
    engine: &Engine,
    route: &Route,
    rule: &ReconcileRule,
    since: Timestamp,
    until: Timestamp,
) -> Result<(BTreeMap<String, Value>, bool), String> {
    let mut items = BTreeMap::new();
    let times = Times::of(since, until);
    let mut target =
        rule.get.fill(|name| times.of_name(name), None).map_err(|it| it.to_string())?;
    for _ in 0..PAGES_MAX {
        let mut slot = enter(engine, route).await?;
        slot.spend();
        let answer = engine.get(route, target.clone(), &mut slot).await?;
        drop(slot);
        if !(200..300).contains(&answer.status) {
            return Err(format!(
                "GET {} answered {}",
                cut(&target, VALUE_BYTES_MAX),
                answer.status
            ));
        }
        let page: Value = serde_json::from_slice(&answer.body).map_err(|_| {
            format!("GET {} answered what is no JSON", cut(&target, VALUE_BYTES_MAX))
        })?;
        let listed = page.pointer(&rule.items).and_then(Value::as_array);
        let listed = listed.ok_or_else(|| {
            format!("GET {} has no list at {}", cut(&target, VALUE_BYTES_MAX), rule.items)
        })?;
        for item in listed {
            if let Some(name) = item.pointer(&rule.key).and_then(name_of) {
                items.insert(name, item.clone());
            }
        }
        if items.len() >= ITEMS_MAX {
            return Ok((items, false));
        }
        let next = rule.next.as_ref().and_then(|next| page.pointer(next)).and_then(name_of);
        let Some(next) = next else { return Ok((items, true)) };
        let following = following(route, rule, &times, &next)?;
        if following == target {
            return Err(format!(
                "GET {} names itself as the next page",
                cut(&target, VALUE_BYTES_MAX)
            ));
        }
        target = following;
    }
    Ok((items, false))
}

/// Path and query of the next page: by its cursor, or at its address, which has to be this upstream's.
fn following(
    route: &Route,
    rule: &ReconcileRule,
    times: &Times,
    next: &str,
) -> Result<String, String> {
    if let Some(template) = &rule.get_next {
        let value = |name: &str| if name == "cursor" { Some(next) } else { times.of_name(name) };
        return template.fill(value, None).map_err(|error| error.to_string());
    }
    let base = &route.target.base;
    let url = base.join(next).ok().filter(|url| url.origin() == base.origin());
    let url = url.ok_or_else(|| "the next page is at another address".to_owned())?;
    let path =
        url.path().strip_prefix(base.path().trim_end_matches('/')).unwrap_or_else(|| url.path());
    Ok(url.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}")))
}

/// A slot for one page, waited for where the gate is shut.
async fn enter(engine: &Engine, route: &Route) -> Result<Slot, String> {
    let lane = Lane { route: route.name.clone(), ..Lane::default() };
    let entrant = Entrant { lane: lane.into(), is_harmless: true, is_backlog: true };
    for _ in 0..ENTRIES_MAX {
        match engine.gate_of(route).try_enter(&entrant, engine.clock.now()) {
            Ok(slot) => return Ok(slot),
            Err(barred) => {
                let pause = engine.clock.now().plus(Duration::from_secs(5));
                engine.clock.sleep_until(barred.until.unwrap_or(pause)).await;
            }
        }
    }
    Err("nothing may go to its upstream now".to_owned())
}

/// A period as texts that a template can have.
struct Times([(&'static str, String); 4]);

impl Times {
    fn of(since: Timestamp, until: Timestamp) -> Self {
        let seconds = |at: Timestamp| (at.as_micros().div_euclid(1_000_000)).to_string();
        Self([
            ("since", rfc3339(since)),
            ("since_unix", seconds(since)),
            ("until", rfc3339(until)),
            ("until_unix", seconds(until)),
        ])
    }

    fn of_name(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, text)| text.as_str())
    }
}

/// RFC 3339 in UTC, to the second.
fn rfc3339(at: Timestamp) -> String {
    let text = at.rfc3339();
    text.split_once('.').map_or_else(|| text.clone(), |(seconds, _)| format!("{seconds}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_rfc_3339_has_it() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_767_225_600, "2026-01-01T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(Timestamp::from_micros(seconds * 1_000_000)), text);
        }
    }
}
