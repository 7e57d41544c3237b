//! Traces (OpenTelemetry): which spans there are, and what each says. docs/traces.md has them in a table.
//!
//! A span is written once, when it has ended, of what is known then. Ids follow from the operation's, and so
//! a process that takes an operation up after a crash goes on with its trace. Calls are in `arriving`.

mod arriving;

use std::borrow::Cow;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use onceward::Engine;
use onceward::core::attempt::{Attempt, Ending, Phase};
use onceward::core::key::ScopeKind;
use onceward::core::operation::{Deed, Operation, Source, State};
use onceward::core::policy::Mode;
use onceward::core::time::Timestamp;
use onceward::core::trace::{Place, Sampling, TraceContext};
use onceward::observe::Fact;
use onceward::secret::random;
use onceward::upstream::Upstream;
use opentelemetry::trace::{
    Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use tracing::info;

use super::label;
use super::otlp::Outgoing;
use crate::config::{IN_URL, TelemetryConfig};
use crate::exit::Exit;

pub(crate) use self::arriving::{Traced, arrive};

/// What is told of traces by this process; nothing before it serves.
static TRACES: OnceLock<Traces> = OnceLock::new();

/// How long the last spans may take at the end.
const FINISH: Duration = Duration::from_secs(3);

struct Traces {
    /// Nothing where nobody is told of any.
    telling: Option<Telling>,
    /// Where a person looks at a trace.
    url: Option<String>,
}

struct Telling {
    sampling: Sampling,
    outgoing: Outgoing,
    scope: InstrumentationScope,
    /// It knows where routes lead.
    engine: OnceLock<Weak<Engine>>,
}

/// Begins to tell of traces, where the configuration says to whom.
pub(crate) fn begin(config: &TelemetryConfig, upstream: &Arc<dyn Upstream>) -> Result<(), Exit> {
    let telling = config.traces.as_ref().map(|url| {
        let outgoing = Outgoing::to(url, Arc::clone(upstream))
            .map_err(|why| Exit::config(format!("traces cannot be told to {url}: {why}")))?;
        let scope = InstrumentationScope::builder("onceward")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        info!(collector = %url, "traces are told");
        Ok::<_, Exit>(Telling {
            sampling: config.sampling,
            outgoing,
            scope,
            engine: OnceLock::new(),
        })
    });
    let traces = Traces { telling: telling.transpose()?, url: config.trace_url.clone() };
    // A process serves once.
    let _ = TRACES.set(traces);
    Ok(())
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
    let Some(telling) = telling() else { return };
    // It waits for a thread.
    let _ = tokio::task::spawn_blocking(|| telling.outgoing.finish(FINISH)).await;
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
pub(super) fn exemplar(operation: &Operation) -> Option<String> {
    trace_of(operation).filter(TraceContext::is_sampled).map(|context| context.trace_id())
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
                let by = KeyValue::new("onceward.principal", act.who.clone());
                telling.instant(operation, act.deed.name(), by, context);
            }
        }
        Fact::Looked(_, finding, _) => {
            let found = KeyValue::new("onceward.finding", finding.name());
            telling.instant(operation, "look up", found, context);
        }
        _ => {}
    }
}

/// A span that has ended.
struct Span {
    context: TraceContext,
    /// 0 where it has none.
    parent: u64,
    is_parent_remote: bool,
    kind: SpanKind,
    name: Cow<'static, str>,
    begun: SystemTime,
    ended: SystemTime,
    attributes: Vec<KeyValue>,
    link: Option<TraceContext>,
    /// What went wrong, where something did.
    error: Option<Cow<'static, str>>,
}

impl Telling {
    fn tell(&self, span: impl FnOnce() -> Span) {
        let Some(place) = self.outgoing.place() else { return };
        let span = span();
        let mut links = SpanLinks::default();
        links.links.extend(span.link.map(|to| Link::with_context(span_context(to))));
        place.take(SpanData {
            span_context: span_context(span.context),
            parent_span_id: SpanId::from(span.parent),
            parent_span_is_remote: span.is_parent_remote,
            span_kind: span.kind,
            name: span.name,
            start_time: span.begun,
            end_time: span.ended.max(span.begun),
            attributes: span.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status: span.error.map_or(Status::Unset, |description| Status::Error { description }),
            instrumentation_scope: self.scope.clone(),
        });
    }

    /// On its way to the ledger. Where nobody waits for its attempts, somebody else takes it from there.
    fn remembered(&self, operation: &Operation, context: TraceContext) {
        let (parent, is_parent_remote) = origin(operation, context);
        let is_accepted = operation.mode == Mode::Accepted;
        self.tell(|| Span {
            context: context.with_span(Place::Remember.span(operation.id)),
            parent,
            is_parent_remote,
            kind: if is_accepted { SpanKind::Producer } else { SpanKind::Internal },
            name: named("remember", operation),
            begun: at(operation.created_at),
            ended: SystemTime::now(),
            attributes: about(operation),
            link: None,
            error: None,
        });
    }

    /// An attempt, and its verdict on the way to the ledger.
    fn attempted(&self, operation: &Operation, attempt: &Attempt, context: TraceContext) {
        let Some(ended) = &attempt.ended else { return };
        let parent = around(operation, context);
        let is_claim = operation.scope.kind == ScopeKind::Claim;
        let error = match (ended.ending, ended.status) {
            (Ending::Answered, Some(status)) if status >= 400 => Some(status.to_string()),
            (Ending::Answered, _) => None,
            (ending, _) => Some(ending.name().to_owned()),
        };
        self.tell(|| {
            let mut attributes = about(operation);
            let mut say =
                |key: &'static str, value: Value| attributes.push(KeyValue::new(key, value));
            say("onceward.attempt", i64::from(attempt.n).into());
            say("onceward.ending", ended.ending.name().into());
            say("onceward.reached", ended.reached.name().into());
            if let Some(error) = &error {
                say("error.type", error.clone().into());
            }
            if !is_claim {
                say("http.request.method", method(&operation.method));
                if !ended.timings.is_empty() {
                    say("onceward.connection.reused", ended.timings.reused.into());
                }
                for (phase, took) in ended.timings.each() {
                    say(said_of(phase), (took.as_micros() as f64 / 1000.0).into());
                }
                if attempt.n > 1 {
                    say("http.request.resend_count", i64::from(attempt.n - 1).into());
                }
                if let Some(status) = ended.status {
                    say("http.response.status_code", i64::from(status).into());
                }
                self.say_where(operation, say);
            }
            Span {
                context: context.with_span(Place::Attempt(attempt.n).span(operation.id)),
                parent,
                is_parent_remote: false,
                kind: if is_claim { SpanKind::Consumer } else { SpanKind::Client },
                name: if is_claim {
                    named("claim", operation)
                } else {
                    format!("{} {}", method(&operation.method), label(&operation.route)).into()
                },
                begun: at(attempt.started_at),
                ended: at(ended.at),
                attributes,
                link: None,
                error: error
                    .as_ref()
                    .map(|error| ended.error.clone().unwrap_or_else(|| error.clone()).into()),
            }
        });
        self.tell(|| Span {
            context: context.with_span(Place::Settle(attempt.n).span(operation.id)),
            parent,
            is_parent_remote: false,
            kind: SpanKind::Internal,
            name: named("settle", operation),
            begun: at(ended.at),
            ended: SystemTime::now(),
            attributes: about(operation),
            link: None,
            error: None,
        });
    }

    /// Where an attempt went. What stands in a query may be a secret, and is not told.
    fn say_where(&self, operation: &Operation, mut say: impl FnMut(&'static str, Value)) {
        let engine = self.engine.get().and_then(Weak::upgrade);
        let Some(route) = engine.and_then(|engine| engine.route(&operation.route)) else { return };
        let base = &route.target.base;
        if let Some(host) = base.host_str() {
            say("server.address", host.to_owned().into());
        }
        if let Some(port) = base.port_or_known_default() {
            say("server.port", i64::from(port).into());
        }
        let path = operation.target.split('?').next().unwrap_or_default();
        let before = base.as_str().trim_end_matches('/');
        say("url.full", format!("{before}{path}").into());
    }

    /// A run of attempts that nobody waited for; or how a doubt ended.
    fn rested(&self, operation: &Operation, context: TraceContext) {
        let source = operation.outcome.as_ref().map(|outcome| outcome.source);
        let is_told = |source: &Source| {
            matches!(source, Source::Person | Source::Lookup | Source::Webhook | Source::LateAnswer)
        };
        if let Some(source) = source.filter(is_told) {
            let source = KeyValue::new("onceward.source", source.name());
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
        self.tell(|| {
            let mut attributes = about(operation);
            let made = i64::from(operation.attempts_in_run());
            attributes.push(KeyValue::new("onceward.attempts", made));
            attributes.extend(error.map(|error| KeyValue::new("error.type", error)));
            Span {
                context: context.with_span(Place::Run(operation.run.before).span(operation.id)),
                parent: Place::Remember.span(operation.id),
                is_parent_remote: false,
                kind: SpanKind::Consumer,
                name: named("deliver", operation),
                begun: at(operation.run.since),
                ended: operation.ended_at.map_or_else(SystemTime::now, at),
                attributes,
                link: None,
                error: error.map(Cow::Borrowed),
            }
        });
    }

    /// Something that took no time.
    fn instant(&self, operation: &Operation, what: &str, more: KeyValue, context: TraceContext) {
        let now = SystemTime::now();
        self.tell(|| {
            let mut attributes = about(operation);
            attributes.push(more);
            Span {
                context: context.with_span(u64::from_le_bytes(random()).max(1)),
                parent: Place::Remember.span(operation.id),
                is_parent_remote: false,
                kind: SpanKind::Internal,
                name: named(what, operation),
                begun: now,
                ended: now,
                attributes,
                link: None,
                error: None,
            }
        });
    }
}

fn span_context(context: TraceContext) -> SpanContext {
    let flags = TraceFlags::new(context.flags);
    let trace = TraceId::from(context.trace);
    SpanContext::new(trace, SpanId::from(context.span), flags, false, TraceState::default())
}

fn at(time: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(time.as_micros().max(0) as u64)
}

fn named(what: &str, operation: &Operation) -> Cow<'static, str> {
    let of = if operation.scope.kind == ScopeKind::Claim {
        &operation.scope.name
    } else {
        label(&operation.route)
    };
    format!("{what} {of}").into()
}

/// What every span about an operation says.
fn about(operation: &Operation) -> Vec<KeyValue> {
    let mut said = Vec::with_capacity(16);
    said.push(KeyValue::new("idempotency.key", operation.key.as_str().to_owned()));
    said.push(KeyValue::new("onceward.operation", operation.id.to_string()));
    said.push(KeyValue::new("onceward.route", label(&operation.route).to_owned()));
    said.push(KeyValue::new("onceward.state", operation.state.name()));
    said
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
fn method(method: &str) -> Value {
    let known =
        ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"];
    known.iter().find(|known| **known == method).map_or("_OTHER", |known| known).into()
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
