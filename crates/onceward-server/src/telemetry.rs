//! Every log line and every metric, in one place. Keys are logged; bodies, credentials and
//! header values never are. Traces are in `traces`.

use std::sync::Arc;
use std::time::Duration;

use onceward::core::attempt::Ending;
use onceward::core::breaker::Turn;
use onceward::core::key::ScopeKind;
use onceward::core::operation::{Death, Deed, Forgotten, Operation, State};
use onceward::core::saga::Standing as Stands;
use onceward::observe::{ClaimTurn, Fact, Observer, Repeat};
use onceward::store::{Condition, ToldCommit};
use onceward::tally::{KeysAhead, name_of};
use onceward::upstream::Fault;
use onceward::{Bar, Person, Report, Standing};
use tracing::{debug, error, info, warn};

use self::metrics::{Counter, Counters, Gauges, METRICS};
use crate::operator::standing_name;

mod metrics;
mod otlp;
pub(crate) mod outbox;
pub(crate) mod push;
pub(crate) mod traces;
pub(crate) mod webhooks;

/// How long the last of what is told may take at the end.
const FINISH: Duration = Duration::from_secs(3);

/// What is looked up when the metrics are read.
pub(crate) struct Now {
    pub(crate) condition: Condition,
    /// What stands before each configured upstream.
    pub(crate) routes: Vec<(String, Standing)>,
    /// For how long the first of what is due has been.
    pub(crate) oldest_due: Duration,
    /// For how long the first of what is in doubt has been known.
    pub(crate) in_doubt_age: Duration,
    /// How many keys there are, and how many of them end soon.
    pub(crate) keys: KeysAhead,
    /// How many sagas that have not ended stand where.
    pub(crate) sagas: Vec<(Stands, u64)>,
    /// How many subscriptions there are of each kind.
    pub(crate) subscriptions: Vec<(&'static str, u64)>,
    /// Bytes of room where the ledger is, where it is on a disk of this machine.
    pub(crate) free: Option<u64>,
}

/// Counters that the hot path moves are looked up once.
pub(crate) struct Telemetry {
    remembered: Arc<Counter>,
    duplicates: [(Repeat, Arc<Counter>); 6],
    attempts: [(Ending, Arc<Counter>); 4],
    rested: [(&'static str, Arc<Counter>); 3],
    recovered: Arc<Counter>,
    faults: [(Fault, Arc<Counter>); 5],
    claims: [(ClaimTurn, Arc<Counter>); 7],
    sagas: [(Stands, Arc<Counter>); 7],
}

impl Telemetry {
    /// What is counted without labels, or under few, is there from the start.
    pub(crate) fn new() -> Self {
        let metrics = &*METRICS;
        metrics.build.of([("version", env!("CARGO_PKG_VERSION"))]).set(1.0);
        let of = |counters: &Counters, name, value: &str| counters.of([(name, value)]);
        drop(metrics.superseded.of([]));
        drop(metrics.leases_lost.of([]));
        drop(metrics.commit_seconds.of([]));
        drop(metrics.events.of([]));
        for state in ["done", "dead"] {
            of(&metrics.deliveries, "state", state);
        }
        for event in ["expired", "removed", "forgotten", "invalidated", "extended", "rotated"] {
            of(&metrics.keys, "event", event);
        }
        Self {
            remembered: metrics.operations.of([]),
            duplicates: Repeat::ALL
                .map(|repeat| (repeat, of(&metrics.duplicates, "answer", repeat.name()))),
            attempts: [Ending::Answered, Ending::Truncated, Ending::Unsent, Ending::Unanswered]
                .map(|ending| (ending, of(&metrics.attempts, "ending", ending.name()))),
            rested: ["done", "dead", "in_doubt"]
                .map(|state| (state, of(&metrics.rested, "state", state))),
            recovered: metrics.recovered.of([]),
            claims: ClaimTurn::ALL.map(|turn| (turn, of(&metrics.claims, "event", turn.name()))),
            sagas: Stands::ALL.map(|at| (at, of(&metrics.sagas, "state", at.name()))),
            faults: Fault::ALL.map(|fault| (fault, of(&metrics.faults, "fault", fault.name()))),
        }
    }

    /// Whoever is told how long durable writes took.
    pub(crate) fn of_commits() -> ToldCommit {
        let seconds = METRICS.commit_seconds.of([]);
        Box::new(move |took| seconds.observe(took, None))
    }

    /// Has the gauges tell what is now.
    pub(crate) fn gauge(now: &Now) {
        let Now { condition, routes, oldest_due, in_doubt_age, keys, sagas, subscriptions, free } =
            now;
        let metrics = &*METRICS;
        // Those of routes that are gone go with them.
        let of_routes = |gauges: &Gauges, level: fn(&Standing) -> f64| {
            let levels = routes.iter().map(|(route, at)| ([("route", route.as_str())], level(at)));
            gauges.set_all(levels);
        };
        of_routes(&metrics.breaker, |standing| match standing.breaker {
            "open" => 2.0,
            "half_open" => 1.0,
            _ => 0.0,
        });
        of_routes(&metrics.paused, |at| f64::from(u8::from(at.bar == Some(Bar::Paused))));
        of_routes(&metrics.under_way, |standing| standing.busy as f64);
        metrics.differences.keep(|of| routes.iter().any(|(route, _)| label(route) == of));
        for (standing, count) in &condition.counts {
            metrics.standing.of([("standing", standing_name(*standing))]).set(*count as f64);
        }
        metrics.ledger_bytes.of([]).set(condition.bytes as f64);
        metrics.ledger_commits.of([]).set(condition.commits as f64);
        metrics.oldest_due.of([]).set(oldest_due.as_secs_f64());
        metrics.in_doubt_age.of([]).set(in_doubt_age.as_secs_f64());
        metrics.keys_kept.of([]).set(keys.kept as f64);
        metrics.keys_expiring.of([]).set(keys.expiring as f64);
        metrics.tombstones.of([]).set(keys.tombstones as f64);
        for (standing, count) in sagas {
            metrics.sagas_open.of([("state", standing.name())]).set(*count as f64);
        }
        for (state, count) in subscriptions {
            metrics.subscriptions.of([("state", state)]).set(*count as f64);
        }
        if let Some(free) = free {
            metrics.ledger_free.of([]).set(*free as f64);
        }
    }

    /// The metrics of this moment, and their content type; `is_open` is whether they are read as
    /// OpenMetrics.
    pub(crate) fn render(is_open: bool) -> (&'static str, String) {
        METRICS.render(is_open)
    }

    fn count_late(route: &str) {
        METRICS.late_duplicates.of([("route", label(route))]).inc();
    }

    fn count<K: PartialEq>(counters: &[(K, Arc<Counter>)], key: &K) {
        if let Some((_, counter)) = counters.iter().find(|(other, _)| other == key) {
            counter.inc();
        }
    }
}

/// How a route and its provider's list agree.
fn reconciled(route: &str, report: &Report) {
    if let Some(error) = &report.error {
        warn!(route, error, "not reconciled: its list could not be read");
        return;
    }
    let (missing, unknown, differing) = (report.missing.0, report.unknown.0, report.differing.0);
    for (kind, count) in [("missing", missing), ("unknown", unknown), ("differing", differing)] {
        METRICS.differences.of([("route", label(route)), ("kind", kind)]).set(count as f64);
    }
    let (listed, operations) = (report.listed, report.operations);
    if missing + unknown + differing == 0 {
        info!(route, listed, operations, "reconciled: all agrees");
    } else {
        warn!(route, listed, operations, missing, unknown, differing, "reconciled: not all agrees");
    }
}

/// A route as a label, by the name that statistics have for it: origins are many, and one label; so are
/// subscriptions, and claims, which have none.
pub(crate) fn label(route: &str) -> &str {
    name_of(route)
}

fn keys(event: &str, count: u32) {
    METRICS.keys.of([("event", event)]).inc_by(count.into());
}

/// The members that every line about an operation has.
macro_rules! about {
    ($level:ident, $operation:expr, $($more:tt)*) => {
        $level!(
            operation = %$operation.id,
            trace = traces::trace_id($operation),
            key = $operation.key.as_str(),
            route = $operation.route,
            state = $operation.state.name(),
            $($more)*
        )
    };
}

impl Observer for Telemetry {
    fn observe(&self, fact: Fact<'_>) {
        traces::observe(&fact);
        match fact {
            Fact::Remembered(operation) => {
                self.remembered.inc();
                if operation.scope.kind == ScopeKind::Event {
                    METRICS.events.of([]).inc();
                }
                about!(debug, operation, mode = operation.mode.name(), "remembered");
            }
            Fact::Attempted(operation, attempt) => {
                let Some(ended) = &attempt.ended else { return };
                Self::count(&self.attempts, &ended.ending);
                let (ending, reached) = (ended.ending.name(), ended.reached.name());
                let lasted = ended.at.since(attempt.started_at);
                let millis = lasted.as_millis() as u64;
                // How long somebody had a claim in hand is no attempt at an upstream.
                if operation.scope.kind != ScopeKind::Claim {
                    let labels = [("route", label(&operation.route)), ("ending", ending)];
                    let seconds = METRICS.attempt_seconds.of(labels);
                    seconds.observe(lasted, traces::exemplar(operation));
                }
                // What works is told once, at rest; what does not is told at each attempt.
                if operation.state == State::Done {
                    about!(
                        debug,
                        operation,
                        attempt = attempt.n,
                        ending,
                        reached,
                        status = ended.status,
                        millis,
                        "attempted"
                    );
                } else {
                    let error = ended.error.as_deref();
                    about!(
                        info,
                        operation,
                        attempt = attempt.n,
                        ending,
                        reached,
                        status = ended.status,
                        millis,
                        error,
                        "attempted"
                    );
                }
            }
            Fact::Rested(operation) => self.rested(operation),
            Fact::Duplicate(operation, repeat) => {
                Self::count(&self.duplicates, &repeat);
                if repeat == Repeat::Late {
                    Self::count_late(&operation.route);
                    about!(warn, operation, "late duplicate");
                } else {
                    about!(debug, operation, answer = repeat.name(), "duplicate");
                }
            }
            Fact::Suspected(operation, first, again) => {
                METRICS.suspected.of([("route", label(&operation.route))]).inc();
                // A flood of them is told once, and counted.
                if again == 1 {
                    about!(warn, operation, first = %first, "suspected double: the same request under another key");
                } else {
                    about!(debug, operation, first = %first, again, "suspected double");
                }
            }
            Fact::TooOld { tenant, route } => {
                Self::count_late(route);
                warn!(tenant, route, "late duplicate, by the time that its key bears");
            }
            Fact::Injected(operation, fault) => {
                Self::count(&self.faults, &fault);
                let attempt = operation.attempts_made();
                about!(info, operation, attempt, fault = fault.name(), "chaos: a fault on purpose");
            }
            Fact::Claimed(claim, turn) => self.claimed(claim, turn),
            Fact::Saga(saga, Some(standing)) => self.moved(saga, standing),
            Fact::Saga(_, None) => {}
            Fact::Orphaned(operation) => {
                METRICS.leases_lost.of([]).inc();
                about!(info, operation, "whoever had it in hand is gone");
            }
            Fact::Acted(operation) => {
                let Some(act) = operation.acts.last() else { return };
                match act.deed {
                    Deed::Forgot if operation.forgotten == Some(Forgotten::Refuse) => {
                        keys("invalidated", 1);
                    }
                    Deed::Forgot => keys("forgotten", 1),
                    Deed::Extended => keys("extended", 1),
                    Deed::Rotated => keys("rotated", 1),
                    _ => {}
                }
                // What follows a line break is evidence, and may be somebody's data.
                let reason = act.reason.lines().next();
                about!(info, operation, deed = act.deed.name(), who = act.who, reason, "acted");
            }
            Fact::Looked(operation, finding, told) => {
                METRICS.lookups.of([("finding", finding.name())]).inc();
                about!(info, operation, finding = finding.name(), told, "looked for");
            }
            Fact::Reconciled(route, report) => reconciled(route, report),
            Fact::Breaker(route, turn) => match turn {
                Turn::Opened(until) => {
                    METRICS.breaker_opened.of([("route", label(route))]).inc();
                    let until = crate::shape::time(until);
                    warn!(route, until, "breaker opened: work is held back");
                }
                Turn::Closed => info!(route, "breaker closed: work goes on, slowly at first"),
            },
            Fact::Paused(route, true) => warn!(route, "paused by a person: work is held back"),
            Fact::Paused(route, false) => info!(route, "resumed: work goes on, slowly at first"),
            Fact::Steered(route, deed, Person { who, reason }) => {
                info!(route, deed, who, reason, "acted");
            }
            Fact::Swept(swept) => {
                keys("expired", swept.forgotten);
                keys("removed", swept.removed);
            }
            Fact::Trouble(what) => error!("{what}"),
        }
    }
}

impl Telemetry {
    fn claimed(&self, claim: &Operation, turn: ClaimTurn) {
        Self::count(&self.claims, &turn);
        let (scope, attempt) = (claim.scope.name.as_str(), claim.attempts_made());
        let (holder, event) = (claim.label.as_deref(), turn.name());
        match turn {
            ClaimTurn::Lapsed | ClaimTurn::Stale => {
                about!(warn, claim, scope, attempt, holder, event, "claim");
            }
            ClaimTurn::Released => about!(info, claim, scope, attempt, holder, event, "claim"),
            ClaimTurn::Begun | ClaimTurn::Done | ClaimTurn::Busy | ClaimTurn::Told => {
                about!(debug, claim, scope, attempt, holder, event, "claim");
            }
        }
    }

    fn moved(&self, saga: &Operation, standing: Stands) {
        Self::count(&self.sagas, &standing);
        let saga_state = standing.name();
        match standing {
            Stands::Stuck => {
                about!(warn, saga, saga_state, "saga: only a person can say how to go on");
            }
            Stands::InDoubt | Stands::Unwinding | Stands::Unwound => {
                about!(info, saga, saga_state, "saga");
            }
            Stands::Running | Stands::Paused | Stands::Done => {
                about!(debug, saga, saga_state, "saga");
            }
        }
    }

    fn rested(&self, operation: &Operation) {
        Self::count(&self.rested, &operation.state.name());
        if operation.scope.kind == ScopeKind::Delivery {
            METRICS.deliveries.of([("state", operation.state.name())]).inc();
        }
        let attempts = operation.attempts_made();
        let since = operation.run.since;
        let lasted = operation.ended_at.map(|at| at.since(since));
        if let Some(lasted) = lasted {
            let (mode, state) = (operation.mode.name(), operation.state.name());
            let seconds = METRICS.operation_seconds.of([("mode", mode), ("state", state)]);
            seconds.observe(lasted, traces::exemplar(operation));
        }
        match operation.state {
            State::Dead(Death::Superseded) => {
                METRICS.superseded.of([]).inc();
            }
            State::Dead(death) if !operation.told => {
                let labels = [("route", label(&operation.route)), ("reason", death.name())];
                METRICS.dead_letters.of(labels).inc();
            }
            State::Done if attempts > 1 => {
                self.recovered.inc();
            }
            _ => {}
        }
        let status = operation.outcome.as_ref().and_then(|outcome| outcome.status);
        match operation.state {
            State::InDoubt => {
                about!(warn, operation, attempts, "in doubt: a person has to resolve it");
            }
            State::Dead(death) if !operation.told => {
                about!(warn, operation, attempts, reason = death.name(), status, "dead letter");
            }
            State::Dead(death) => about!(
                info,
                operation,
                attempts,
                reason = death.name(),
                status,
                "dead, and the caller was told"
            ),
            _ if attempts > 1 => about!(info, operation, attempts, status, "done after retries"),
            _ => about!(debug, operation, attempts, status, "done"),
        }
    }
}
