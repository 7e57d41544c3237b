//! Every log line and every metric, in one place. Keys are logged; bodies, credentials and
//! header values never are.

use metrics::{Counter, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use onceward::core::attempt::Ending;
use onceward::core::breaker::Turn;
use onceward::core::operation::{Death, Operation, State};
use onceward::observe::{ClaimTurn, Fact, Observer, Repeat};
use onceward::store::Condition;
use onceward::upstream::Fault;
use onceward::{Bar, Person, Report, Standing};
use tracing::{debug, error, info, warn};

use crate::operator::standing_name;

pub(crate) mod outbox;
pub(crate) mod webhooks;

/// Counters that the hot path moves are looked up once.
pub(crate) struct Telemetry {
    prometheus: PrometheusHandle,
    remembered: Counter,
    duplicates: [(Repeat, Counter); 5],
    superseded: Counter,
    attempts: [(Ending, Counter); 4],
    rested: [(&'static str, Counter); 3],
    faults: [(Fault, Counter); 5],
    claims: [(ClaimTurn, Counter); 7],
}

impl Telemetry {
    /// Installs the process's one recorder.
    pub(crate) fn install() -> Result<Self, String> {
        let prometheus =
            PrometheusBuilder::new().install_recorder().map_err(|error| error.to_string())?;
        describe_counter!("onceward_operations_total", "Operations remembered.");
        describe_counter!(
            "onceward_duplicates_total",
            "Calls whose key was known, by what they got."
        );
        describe_counter!("onceward_late_duplicates_total", "Calls whose key's window was over.");
        describe_counter!(
            "onceward_superseded_total",
            "Operations that were not sent because a newer one about the same was done."
        );
        describe_counter!(
            "onceward_suspected_doubles_total",
            "New operations with the request of another one, under another key."
        );
        describe_counter!(
            "onceward_claims_total",
            "Claims, by what somebody did to them or learnt."
        );
        describe_counter!("onceward_attempts_total", "Attempts, by how they ended.");
        describe_counter!("onceward_rested_total", "Operations that came to rest, by state.");
        describe_counter!(
            "onceward_chaos_faults_total",
            "Faults on purpose that attempts met, by kind."
        );
        webhooks::describe();
        describe_counter!("onceward_breaker_opened_total", "Times that a breaker opened.");
        describe_counter!(
            "onceward_lookups_total",
            "Times that an upstream was asked what became of an operation, by what it knew."
        );
        describe_gauge!(
            "onceward_reconcile_differences",
            "What did not agree with the provider's list the last time, by kind."
        );
        describe_gauge!(
            "onceward_breaker_state",
            "The breaker of a route: 0 closed, 1 half-open, 2 open."
        );
        describe_gauge!("onceward_route_paused", "Whether a person paused the route.");
        describe_gauge!("onceward_calls_under_way", "Calls to a route's upstream under way.");
        describe_gauge!(
            "onceward_operations",
            "Operations in the ledger that are not done, by where they stand."
        );
        describe_gauge!("onceward_ledger_bytes", "The ledger's size on disk.");
        describe_gauge!(
            "onceward_ledger_commits",
            "Durable writes since the start, each for a group."
        );
        outbox::describe();
        gauge!("onceward_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        let duplicate = |repeat: Repeat| {
            (repeat, counter!("onceward_duplicates_total", "answer" => repeat.name()))
        };
        let attempt = |ending: Ending| {
            (ending, counter!("onceward_attempts_total", "ending" => ending.name()))
        };
        let rested =
            |state: &'static str| (state, counter!("onceward_rested_total", "state" => state));
        Ok(Self {
            prometheus,
            remembered: counter!("onceward_operations_total"),
            duplicates: [
                Repeat::Replayed,
                Repeat::Joined,
                Repeat::Refused,
                Repeat::Late,
                Repeat::Revived,
            ]
            .map(duplicate),
            superseded: counter!("onceward_superseded_total"),
            attempts: [Ending::Answered, Ending::Truncated, Ending::Unsent, Ending::Unanswered]
                .map(attempt),
            rested: ["done", "dead", "in_doubt"].map(rested),
            claims: ClaimTurn::ALL
                .map(|turn| (turn, counter!("onceward_claims_total", "event" => turn.name()))),
            faults: Fault::ALL.map(|fault| {
                (fault, counter!("onceward_chaos_faults_total", "fault" => fault.name()))
            }),
        })
    }

    /// The metrics as Prometheus reads them; `routes` are the configured ones.
    pub(crate) fn render(&self, condition: &Condition, routes: &[(String, Standing)]) -> String {
        for (route, standing) in routes {
            let state = match standing.breaker {
                "open" => 2.0,
                "half_open" => 1.0,
                _ => 0.0,
            };
            let is_paused = standing.bar == Some(Bar::Paused);
            gauge!("onceward_breaker_state", "route" => route.clone()).set(state);
            gauge!("onceward_route_paused", "route" => route.clone())
                .set(f64::from(u8::from(is_paused)));
            gauge!("onceward_calls_under_way", "route" => route.clone()).set(standing.busy as f64);
        }
        for (standing, count) in &condition.counts {
            gauge!("onceward_operations", "standing" => standing_name(*standing))
                .set(*count as f64);
        }
        gauge!("onceward_ledger_bytes").set(condition.bytes as f64);
        gauge!("onceward_ledger_commits").set(condition.commits as f64);
        self.prometheus.run_upkeep();
        self.prometheus.render()
    }

    fn count_late(route: &str) {
        counter!("onceward_late_duplicates_total", "route" => label(route)).increment(1);
    }

    fn count<K: PartialEq>(counters: &[(K, Counter)], key: &K) {
        if let Some((_, counter)) = counters.iter().find(|(other, _)| other == key) {
            counter.increment(1);
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
        gauge!("onceward_reconcile_differences", "route" => label(route), "kind" => kind)
            .set(count as f64);
    }
    let (listed, operations) = (report.listed, report.operations);
    if missing + unknown + differing == 0 {
        info!(route, listed, operations, "reconciled: all agrees");
    } else {
        warn!(route, listed, operations, missing, unknown, differing, "reconciled: not all agrees");
    }
}

/// A route as a label: origins are many, and one label.
fn label(route: &str) -> String {
    if route.contains("://") { "ad_hoc".to_owned() } else { route.to_owned() }
}

/// The members that every line about an operation has.
macro_rules! about {
    ($level:ident, $operation:expr, $($more:tt)*) => {
        $level!(
            operation = %$operation.id,
            key = $operation.key.as_str(),
            route = $operation.route,
            state = $operation.state.name(),
            $($more)*
        )
    };
}

impl Observer for Telemetry {
    fn observe(&self, fact: Fact<'_>) {
        match fact {
            Fact::Remembered(operation) => {
                self.remembered.increment(1);
                about!(debug, operation, mode = operation.mode.name(), "remembered");
            }
            Fact::Attempted(operation, attempt) => {
                let Some(ended) = &attempt.ended else { return };
                Self::count(&self.attempts, &ended.ending);
                let (ending, reached) = (ended.ending.name(), ended.reached.name());
                let millis = ended.at.since(attempt.started_at).as_millis() as u64;
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
                counter!("onceward_suspected_doubles_total", "route" => label(&operation.route))
                    .increment(1);
                // A flood of them is told once, and counted.
                if again == 1 {
                    about!(warn, operation, first = %first, "suspected double: the same request under another key");
                } else {
                    about!(debug, operation, first = %first, again, "suspected double");
                }
            }
            Fact::TooOld(route) => {
                Self::count_late(route);
                warn!(route, "late duplicate, by the time that its key bears");
            }
            Fact::Injected(operation, fault) => {
                Self::count(&self.faults, &fault);
                let attempt = operation.attempts_made();
                about!(info, operation, attempt, fault = fault.name(), "chaos: a fault on purpose");
            }
            Fact::Claimed(claim, turn) => self.claimed(claim, turn),
            Fact::Acted(operation) => {
                let Some(act) = operation.acts.last() else { return };
                // What follows a line break is evidence, and may be somebody's data.
                let reason = act.reason.lines().next();
                about!(info, operation, deed = act.deed.name(), who = act.who, reason, "acted");
            }
            Fact::Looked(operation, finding, told) => {
                counter!("onceward_lookups_total", "finding" => finding.name()).increment(1);
                about!(info, operation, finding = finding.name(), told, "looked for");
            }
            Fact::Reconciled(route, report) => reconciled(route, report),
            Fact::Breaker(route, turn) => match turn {
                Turn::Opened(until) => {
                    counter!("onceward_breaker_opened_total", "route" => label(route)).increment(1);
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

    fn rested(&self, operation: &Operation) {
        Self::count(&self.rested, &operation.state.name());
        let attempts = operation.attempts_made();
        if operation.state == State::Dead(Death::Superseded) {
            self.superseded.increment(1);
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
