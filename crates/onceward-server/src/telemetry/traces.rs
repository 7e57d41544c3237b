//! Traces (OpenTelemetry): which spans there are, and what each says. docs/traces.md has them in a table.
//!
//! A span is written once, when it has ended, of what is known then. Ids follow from the operation's, and so
//! a process that takes an operation up after a crash goes on with its trace. Calls are in `arriving`.

mod arriving;

use std::borrow::Cow;
use std::str;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use onceward::Engine;
use onceward::core::attempt::{Attempt, Ending, Phase};
use onceward::core::id::OperationId;
use onceward::core::key::ScopeKind;
use onceward::core::operation::{Deed, Operation, Source, State};
use onceward::core::policy::Mode;
use onceward::core::time::Timestamp;
use onceward::core::trace::{Place, Sampling, TraceContext};
use onceward::observe::Fact;
use onceward::secret::random;
use onceward::upstream::Upstream;
use tracing::info;

use super::label;
use super::otlp::{Attributes, Collector, Kind, Outgoing, Span};
use crate::config::{IN_URL, TelemetryConfig};

pub(crate) use self::arriving::{Traced, arrive, pass_on, watch};

/// What is told of traces by this process; nothing before it serves.
static TRACES: OnceLock<Traces> = OnceLock::new();

struct Traces {
    /// Nothing where nobody is told of any.
    telling: Option<Telling>,
    /// Where a person looks at a trace.
    url: Option<String>,
}

struct Telling {
    sampling: Sampling,
    outgoing: Outgoing,
    /// It knows where routes lead.
    engine: OnceLock<Weak<Engine>>,
}

/// Begins to tell of traces, where the configuration says to whom.
pub(crate) fn begin(config: &TelemetryConfig, upstream: &Arc<dyn Upstream>) {
    let telling = config.traces.as_ref().map(|exporter| {
        info!(collector = exporter.place(), "traces are told");
        let what = "spans of traces";
        let collector = Collector::of(what, exporter, &config.resource, Arc::clone(upstream));
        Telling {
            sampling: config.sampling,
            outgoing: Outgoing::to(collector, config.batches),
            engine: OnceLock::new(),
        }
    });
    // A process serves once.
    let _ = TRACES.set(Traces { telling, url: config.trace_url.clone() });
}

/// Has the engine tell upstreams of their spans.
pub(crate) fn follow(engine: &Arc<Engine>) {
    if let Some(telling) = telling() {
        let _ = telling.engine.set(Arc::downgrade(engine));
        engine.set_sampling(telling.sampling);
    }
}

/// Sends what waits.
pub(crate) async fn finish() {
    if let Some(telling) = telling() {
        telling.outgoing.finish().await;
    }
}

fn telling() -> Option<&'static Telling> {
    TRACES.get()?.telling.as_ref()
}

/// The trace of an operation: its caller's, or where traces are told its own.
pub(crate) fn trace_of(operation: &Operation) -> Option<TraceContext> {
    match telling() {
        Some(telling) => Some(telling.sampling.of(operation)),
        None => operation.trace,
    }
}

/// The id of an operation's trace.
pub(crate) fn trace_id(operation: &Operation) -> Option<String> {
    trace_of(operation).map(|context| context.trace_id())
}

/// The id of an operation's trace, where somebody tells of it.
pub(super) fn exemplar(operation: &Operation) -> Option<u128> {
    trace_of(operation).filter(TraceContext::is_sampled).map(|context| context.trace)
}

/// Where a person looks at a trace, where somebody tells of it.
pub(crate) fn url_of(context: &TraceContext) -> Option<String> {
    let url = TRACES.get()?.url.as_ref().filter(|_| context.is_sampled())?;
    Some(url.replace(IN_URL, &context.trace_id()))
}

/// Tells of a fact.
pub(super) fn observe(fact: &Fact<'_>) {
    let Some(telling) = telling() else { return };
    let (Fact::Remembered(operation)
    | Fact::Attempted(operation, _)
    | Fact::Rested(operation)
    | Fact::Acted(operation)
    | Fact::Looked(operation, ..)) = fact
    else {
        return;
    };
    let context = telling.sampling.of(operation);
    if !context.is_sampled() {
        return;
    }
    match fact {
        Fact::Attempted(_, attempt) => telling.attempted(operation, attempt, context),
        Fact::Remembered(_) => telling.remembered(operation, context),
        Fact::Rested(_) => telling.rested(operation, context),
        Fact::Acted(_) => {
            if let Some(act) = operation.acts.last() {
                let by = ("onceward.principal", &*act.who);
                telling.instant(operation, act.deed.name(), by, context);
            }
        }
        Fact::Looked(_, finding, _) => {
            let found = ("onceward.finding", finding.name());
            telling.instant(operation, "look up", found, context);
        }
        _ => {}
    }
}

impl Telling {
    /// On its way to the ledger. Where nobody waits for its attempts, somebody else takes it from there.
    fn remembered(&self, operation: &Operation, context: TraceContext) {
        let (parent, is_parent_remote) = origin(operation, context);
        let is_accepted = operation.mode == Mode::Accepted;
        let span = Span {
            parent,
            is_parent_remote,
            kind: if is_accepted { Kind::Producer } else { Kind::Internal },
            begun: at(operation.created_at),
            ..of_operation("remember", operation, Place::Remember, context)
        };
        self.outgoing.tell(&span, |said| about(operation, said));
    }

    /// An attempt, and its verdict on the way to the ledger.
    fn attempted(&self, operation: &Operation, attempt: &Attempt, context: TraceContext) {
        let Some(ended) = &attempt.ended else { return };
        let parent = around(operation, context);
        let is_claim = operation.scope.kind == ScopeKind::Claim;
        let error: Option<Cow<'_, str>> = match (ended.ending, ended.status) {
            (Ending::Answered, Some(status)) if status >= 400 => Some(status.to_string().into()),
            (Ending::Answered, _) => None,
            (ending, _) => Some(ending.name().into()),
        };
        let method = method(&operation.method);
        let whole = of_operation("claim", operation, Place::Attempt(attempt.n), context);
        let span = Span {
            parent,
            kind: if is_claim { Kind::Consumer } else { Kind::Client },
            name: if is_claim { whole.name } else { [method, label(&operation.route)] },
            begun: at(attempt.started_at),
            ended: at(ended.at),
            error: error.as_deref().map(|kind| ended.error.as_deref().unwrap_or(kind).into()),
            ..whole
        };
        self.outgoing.tell(&span, |said| {
            about(operation, said);
            said.number("onceward.attempt", attempt.n);
            said.say("onceward.ending", ended.ending.name());
            said.say("onceward.reached", ended.reached.name());
            if let Some(error) = &error {
                said.say("error.type", error);
            }
            if is_claim {
                return;
            }
            for (phase, took) in ended.timings.each() {
                said.fraction(said_of(phase), took.as_micros() as f64 / 1000.0);
            }
            if !ended.timings.is_empty() {
                said.truth("onceward.connection.reused", ended.timings.reused);
            }
            said.say("http.request.method", method);
            if attempt.n > 1 {
                said.number("http.request.resend_count", attempt.n - 1);
            }
            if let Some(status) = ended.status {
                said.number("http.response.status_code", status);
            }
            self.say_where(operation, said);
        });
        let settling = Span {
            parent,
            begun: at(ended.at),
            ..of_operation("settle", operation, Place::Settle(attempt.n), context)
        };
        self.outgoing.tell(&settling, |said| about(operation, said));
    }

    /// Where an attempt went. What stands in a query may be a secret, and is not told.
    fn say_where(&self, operation: &Operation, said: &mut Attributes<'_>) {
        let engine = self.engine.get().and_then(Weak::upgrade);
        let Some(route) = engine.and_then(|engine| engine.route(&operation.route)) else { return };
        let base = &route.target.base;
        if let Some(host) = base.host_str() {
            said.say("server.address", host);
        }
        if let Some(port) = base.port_or_known_default() {
            said.number("server.port", port);
        }
        let path = operation.target.split('?').next().unwrap_or_default();
        said.joined("url.full", &[base.as_str().trim_end_matches('/'), path]);
    }

    /// A run of attempts that nobody waited for; or how a doubt ended.
    fn rested(&self, operation: &Operation, context: TraceContext) {
        let source = operation.outcome.as_ref().map(|outcome| outcome.source);
        let is_told = |source: &Source| {
            matches!(source, Source::Person | Source::Lookup | Source::Webhook | Source::LateAnswer)
        };
        if let Some(source) = source.filter(is_told) {
            let source = ("onceward.source", source.name());
            return self.instant(operation, "resolve", source, context);
        }
        if operation.mode != Mode::Accepted || operation.scope.kind == ScopeKind::Claim {
            return;
        }
        let error = match operation.state {
            State::Done | State::Pending { .. } | State::Delivering => None,
            State::InDoubt => Some("in_doubt"),
            State::Dead(death) => Some(death.name()),
        };
        let run = Place::Run(operation.run.before);
        let whole = of_operation("deliver", operation, run, context);
        let span = Span {
            parent: Place::Remember.span(operation.id),
            kind: Kind::Consumer,
            begun: at(operation.run.since),
            ended: operation.ended_at.map_or(whole.ended, at),
            error: error.map(Cow::Borrowed),
            ..whole
        };
        self.outgoing.tell(&span, |said| {
            about(operation, said);
            said.number("onceward.attempts", operation.attempts_in_run());
            if let Some(error) = error {
                said.say("error.type", error);
            }
        });
    }

    /// Something that took no time.
    fn instant(
        &self,
        operation: &Operation,
        what: &str,
        (key, value): (&str, &str),
        context: TraceContext,
    ) {
        let span = Span {
            context: context.with_span(u64::from_le_bytes(random()).max(1)),
            parent: Place::Remember.span(operation.id),
            ..of_operation(what, operation, Place::Remember, context)
        };
        self.outgoing.tell(&span, |said| {
            about(operation, said);
            said.say(key, value);
        });
    }
}

/// A span of an operation's that took no time, within its process alone.
fn of_operation<'a>(
    what: &'a str,
    operation: &'a Operation,
    place: Place,
    context: TraceContext,
) -> Span<'a> {
    let now = SystemTime::now();
    let of = if operation.scope.kind == ScopeKind::Claim {
        &operation.scope.name
    } else {
        label(&operation.route)
    };
    Span {
        context: context.with_span(place.span(operation.id)),
        parent: 0,
        is_parent_remote: false,
        kind: Kind::Internal,
        name: [what, of],
        begun: now,
        ended: now,
        link: None,
        error: None,
    }
}

fn at(time: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(time.as_micros().max(0) as u64)
}

/// What every span about an operation says.
fn about(operation: &Operation, said: &mut Attributes<'_>) {
    said.say("idempotency.key", operation.key.as_str());
    say_id(operation.id, said);
    said.say("onceward.route", label(&operation.route));
    said.say("onceward.state", operation.state.name());
}

fn say_id(id: OperationId, said: &mut Attributes<'_>) {
    said.say("onceward.operation", str::from_utf8(&id.text()).unwrap_or_default());
}

/// What says how long an attempt's phase took, in milliseconds.
fn said_of(phase: Phase) -> &'static str {
    match phase {
        Phase::Token => "onceward.phase.token",
        Phase::Resolve => "onceward.phase.resolve",
        Phase::Connect => "onceward.phase.connect",
        Phase::Tls => "onceward.phase.tls",
        Phase::Send => "onceward.phase.send",
        Phase::Head => "onceward.phase.head",
        Phase::Body => "onceward.phase.body",
    }
}

/// A method that everybody knows; the names of others could be as many as callers like.
fn method(method: &str) -> &'static str {
    let known =
        ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"];
    known.into_iter().find(|known| *known == method).unwrap_or("_OTHER")
}

/// The span that an operation came from, and whether another process tells of it: the call that made it,
/// where it was made by one that is told of here.
fn origin(operation: &Operation, context: TraceContext) -> (u64, bool) {
    // What is made of a row or of an alert comes by no request.
    let is_by_request = operation.via.as_ref().is_none_or(|via| via.starts_with("source/"));
    let is_resent = operation.acts.iter().any(|act| act.deed == Deed::Resent);
    match operation.scope.kind {
        ScopeKind::Call if is_by_request && !is_resent => (Place::Call.span(operation.id), false),
        // The span of a callback's operation, of a delivery's event and of a step's saga is one of ours.
        ScopeKind::Callback | ScopeKind::Delivery | ScopeKind::Step => (context.span, false),
        _ => (context.span, context.span != 0),
    }
}

/// The span that attempts are within.
fn around(operation: &Operation, context: TraceContext) -> u64 {
    match (operation.scope.kind, operation.mode) {
        (ScopeKind::Claim, _) => Place::Remember.span(operation.id),
        (_, Mode::Accepted) => Place::Run(operation.run.before).span(operation.id),
        (_, Mode::Held) => origin(operation, context).0,
    }
}
