//! When an upstream is asked what became of operations in doubt: whenever one is due, for as long as
//! its route says how, and whenever a person wants to know.

use std::sync::Arc;
use std::time::Duration;

use onceward_core::id::OperationId;
use onceward_core::lookup::{self, Finding};
use onceward_core::operation::{Operation, State};
use onceward_core::time::Timestamp;
use tokio::task::JoinSet;

use super::lookup::rule_of;
use crate::engine::Engine;
use crate::gates::Entrant;
use crate::reconcile::reconcile;
use crate::refusal::Refusal;
use crate::route::Route;
use crate::store::{Lane, Page, Query, Standing, StoreError, Which};

/// Operations read at once.
const PAGE: usize = 100;

/// Looks of a route under way at once.
const AT_ONCE_MAX: usize = 8;

/// Operations that a person has looked for at once.
const ASKED_MAX: usize = 1000;

/// What was heard of nothing else is looked for this often: another node may have left it.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(30);

/// How long a route is left alone whose gate is shut for nobody knows how long.
const SHUT_PAUSE: Duration = Duration::from_secs(5);

/// For each operation in doubt that was read, where they are many; in all at most.
const READ_PAUSE: Duration = Duration::from_millis(1);
const READ_PAUSE_MAX: Duration = Duration::from_secs(10);

/// What became of the looks that a person asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Tally {
    /// Found: they are done.
    pub found: u32,
    /// Not known there.
    pub absent: u32,
    /// Nothing was learnt.
    pub unknown: u32,
    /// Still to be asked: too many at once, or the route's gate is shut.
    pub left: u32,
}

/// Looks for what is in doubt on each route that says how, for ever; where none says so, nothing is
/// asked and nothing wakes.
pub(crate) async fn look(engine: Arc<Engine>) {
    let changed = engine.doubts.routes_changed();
    let mut reconciles = false;
    loop {
        if engine.is_halted() {
            return;
        }
        for route in engine.routes().named.values().filter(|route| has_lookup(route)) {
            if let Some(woken) = engine.doubts.begin(&route.name) {
                tokio::spawn(look_on_route(Arc::clone(&engine), route.name.clone(), woken));
            }
        }
        if !reconciles && engine.routes().named.values().any(|route| route.reconcile.is_some()) {
            reconciles = true;
            tokio::spawn(reconcile(Arc::clone(&engine)));
        }
        changed.notified().await;
    }
}

fn has_lookup(route: &Route) -> bool {
    route.policies().any(|policy| policy.lookup.is_some())
}

/// Looks for what is in doubt on one route, as long as it says how.
async fn look_on_route(engine: Arc<Engine>, name: String, woken: Arc<tokio::sync::Notify>) {
    while !engine.is_halted() {
        let Some(route) = engine.route(&name).filter(|route| has_lookup(route)) else {
            break;
        };
        let (next, read) = match pass(&engine, &route).await {
            Ok(done) => done,
            Err(error) if error.may_pass() => (engine.clock.now().plus(SHUT_PAUSE), 0),
            Err(error) => {
                engine.heed(error);
                break;
            }
        };
        // Where much is in doubt, it is not all read again for each that is new.
        if read > PAGE {
            let pause = (READ_PAUSE * read as u32).min(READ_PAUSE_MAX);
            engine.clock.sleep_until(engine.clock.now().plus(pause)).await;
        }
        tokio::select! {
            biased;
            () = woken.notified() => {}
            () = engine.clock.sleep_until(next) => {}
        }
    }
    engine.doubts.end(&name);
}

/// Looks for everything that is due on a route; tells when to do so again, and how much was read.
async fn pass(engine: &Arc<Engine>, route: &Arc<Route>) -> Result<(Timestamp, usize), StoreError> {
    let mut next = engine.clock.now().plus(LOOK_AT_LEAST_EVERY);
    let mut looks = JoinSet::new();
    let (mut before, mut read) = (None, 0);
    'pages: loop {
        let page = in_doubt(engine, &route.name, before).await?;
        read += page.operations.len();
        for operation in page.operations {
            let Some(rule) = rule_of(route, &operation) else { continue };
            let now = engine.clock.now();
            match lookup::due(&operation) {
                None => continue,
                Some(due) if due > now => {
                    next = next.min(due);
                    continue;
                }
                Some(_) => {}
            }
            if looks.len() >= AT_ONCE_MAX {
                next = next.min(ended(looks.join_next().await)?);
            }
            let slot = match engine.gate_of(route).try_enter(&entrant(&operation), now) {
                Ok(slot) => slot,
                Err(barred) => {
                    next = next.min(barred.until.unwrap_or_else(|| now.plus(SHUT_PAUSE)));
                    break 'pages;
                }
            };
            let (engine, route) = (Arc::clone(engine), Arc::clone(route));
            let run = engine.begin();
            looks.spawn(async move {
                let _run = run;
                let looked = engine.look_for(&operation, &route, &rule, slot).await?;
                Ok(looked.and_then(|(operation, _)| lookup::due(&operation)))
            });
        }
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    while !looks.is_empty() {
        next = next.min(ended(looks.join_next().await)?);
    }
    Ok((next, read))
}

/// When the operation whose look ended is due again.
fn ended(
    look: Option<Result<Result<Option<Timestamp>, StoreError>, tokio::task::JoinError>>,
) -> Result<Timestamp, StoreError> {
    let never = Timestamp::from_micros(i64::MAX);
    match look {
        Some(Ok(Ok(due))) => Ok(due.unwrap_or(never)),
        // What is full or away now is looked for when its claim is over.
        Some(Ok(Err(error))) if !error.may_pass() => Err(error),
        _ => Ok(never),
    }
}

async fn in_doubt(
    engine: &Engine,
    route: &str,
    before: Option<OperationId>,
) -> Result<Page, StoreError> {
    let query = Query {
        standing: vec![Standing::InDoubt],
        route: Some(route.to_owned()),
        before,
        limit: PAGE,
        ..Query::default()
    };
    engine.store.list(query).await
}

/// A lookup reads and changes nothing, so it may be a probe.
fn entrant(operation: &Operation) -> Entrant {
    Entrant { lane: Lane::of(operation).into(), is_harmless: true, is_backlog: true }
}

impl Engine {
    /// Asks the upstream now what became of an operation in doubt; tells where it stands then.
    pub async fn look_again(
        self: &Arc<Self>,
        id: OperationId,
    ) -> Result<(Operation, Finding), Refusal> {
        let operation = self.store.find(Which::Id(id)).await?.ok_or(Refusal::NotFound)?;
        if operation.state != State::InDoubt {
            let why = format!("it is {}, not in doubt", operation.state.name());
            return Err(Refusal::conflict(&operation, why));
        }
        let route = self.route(&operation.route);
        let rule = route.as_ref().and_then(|route| rule_of(route, &operation));
        let (Some(route), Some(rule)) = (route, rule) else {
            let why = "its route says no lookup, so nobody can be asked";
            return Err(Refusal::conflict(&operation, why));
        };
        let slot = self
            .gate_of(&route)
            .try_enter(&entrant(&operation), self.clock.now())
            .map_err(|barred| self.barred(barred, &route))?;
        let engine = Arc::clone(self);
        // Whoever asked may go away meanwhile; what was claimed is looked for all the same.
        self.see_through(async move {
            let looked = engine.look_for(&operation, &route, &rule, slot).await;
            let moved_on =
                || Refusal::conflict(&operation, "it has moved on meanwhile: look at it");
            looked.map_err(|error| engine.heed(error))?.ok_or_else(moved_on)
        })
        .await
    }

    /// Asks the upstream now about everything that is in doubt on a route.
    pub async fn look_again_on(self: &Arc<Self>, name: &str) -> Result<Tally, Refusal> {
        let route = self.find_route(name)?;
        let mut tally = Tally::default();
        let (mut before, mut asked) = (None, 0);
        loop {
            let page = in_doubt(self, name, before).await?;
            for operation in page.operations {
                if rule_of(&route, &operation).is_none() {
                    continue;
                }
                asked += 1;
                if asked > ASKED_MAX {
                    tally.left += 1;
                    continue;
                }
                match self.look_again(operation.id).await {
                    Ok((_, Finding::Found)) => tally.found += 1,
                    Ok((_, Finding::Absent)) => tally.absent += 1,
                    Ok((_, Finding::Unknown)) => tally.unknown += 1,
                    Err(Refusal::Barred { .. } | Refusal::Limit { .. }) => tally.left += 1,
                    // Somebody else was faster.
                    Err(Refusal::Conflict { .. } | Refusal::NotFound) => {}
                    Err(refusal) => return Err(refusal),
                }
            }
            before = page.next;
            if before.is_none() {
                return Ok(tally);
            }
        }
    }
}
