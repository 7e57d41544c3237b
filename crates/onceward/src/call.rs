//! What an edge hands in, and what it is once it was read: the nouns between an edge, the verbs
//! and the engine.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, Method};
use onceward_core::exchange::Request;
use onceward_core::fingerprint::Fingerprint;
use onceward_core::id::OperationId;
use onceward_core::key::{Key, KeyDigest, Scope};
use onceward_core::operation::Operation;
use onceward_core::policy::{Effects, Mode, Order, Policy};
use onceward_core::time::Timestamp;
use onceward_core::trace::TraceContext;

use crate::mail::Mail;
use crate::observe::Repeat;
use crate::route::Route;
use crate::secret::Secrets;
use crate::upstream::{Upload, Upstream};

/// A request as an edge hands it in.
#[derive(Debug, Clone)]
pub struct Call {
    /// Whose data this is.
    pub tenant: String,
    /// Who asks: a stable name, never a credential.
    pub principal: String,
    /// The route's name, or the origin of an ad hoc upstream.
    pub route: String,
    /// The request, all of its headers as they came.
    pub request: Request,
    /// What the request asks of us.
    pub options: CallOptions,
}

/// A request that passes without a record, as an edge hands it in: nothing of it is kept, so its body
/// may still be on its way.
#[derive(Debug)]
pub struct Passing {
    /// Whose data this is.
    pub tenant: String,
    /// The route, [which lets it pass](Route::passes).
    pub route: Arc<Route>,
    /// The method.
    pub method: Method,
    /// Path and query, beginning with `/`.
    pub path: PathAndQuery,
    /// Its header lines as they came.
    pub headers: HeaderMap,
    /// The body.
    pub upload: Upload,
    /// Whose share of the route it counts against.
    pub flow: Option<String>,
    /// What the edge says upstream, each in place of what the caller said by that name.
    pub said: HeaderMap,
}

/// What a request asks of us.
#[derive(Debug, Clone, Default)]
pub struct CallOptions {
    /// `Prefer: respond-async` (RFC 7240).
    pub respond_async: bool,
    /// `Prefer: wait=N`, or what the route says: how long a caller waits before 202 or 409.
    pub wait: Option<Duration>,
    /// No attempt before this.
    pub not_before: Option<Timestamp>,
    /// No attempt begins after this.
    pub deadline: Option<Timestamp>,
    /// Attempts of a run, at most.
    pub attempts_max: Option<u32>,
    /// How long an attempt may take, where that is less than the route says.
    pub timeout: Option<Duration>,
    /// What the caller calls it.
    pub label: Option<String>,
    /// What a second arrival would do; for ad hoc upstreams only.
    pub effects: Option<Effects>,
    /// A key that came another way than in a header.
    pub key: Option<String>,
    /// Whose share of the route it counts against.
    pub flow: Option<String>,
    /// What it is about: those about the same have an order, where the route or a sequence says so.
    pub subject: Option<String>,
    /// Its place among those about the same.
    pub sequence: Option<u64>,
    /// By which way it came, where that is no call: `source/NAME`, `outbox/NAME`.
    pub via: Option<String>,
    /// The name of its scope, where that is not its route's.
    pub scope: Option<String>,
    /// A second identity of it, and how long that holds: in the place of its route's.
    pub identity: Option<(String, Duration)>,
    /// Whom to tell when it ends.
    pub callback: Option<String>,
    /// The operation that it is part of, as its caller says.
    pub parent: Option<OperationId>,
    /// What the edge says upstream, each in place of what the caller said by that name: who asked,
    /// and by which way.
    pub headers: HeaderMap,
    /// Whether its trace is told, where that was decided before it has an id: then it gets one that says so.
    pub sampled: Option<bool>,
    /// By what it is done, where that is nothing that its route names.
    pub handler: Option<Handler>,
    /// Where the engine says what else there is to say.
    pub aside: Arc<Aside>,
}

/// What does a call in this process: attempts for its caller go to it, and not by the engine's own
/// door. What is to be done without that caller cannot, and finds nobody.
#[derive(Clone)]
pub struct Handler(pub Arc<dyn Upstream>);

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handler(…)")
    }
}

/// By which means the attempts of one run go.
#[derive(Debug, Clone, Default)]
pub(crate) struct Means {
    /// How long each may take, where that is less than the route says.
    pub(crate) timeout: Option<Duration>,
    /// What they go to, where that is not the route's upstream.
    pub(crate) handler: Option<Handler>,
}

impl Means {
    pub(crate) fn of(options: &CallOptions) -> Self {
        Self { timeout: options.timeout, handler: options.handler.clone() }
    }
}

/// What there is to say of a call beside its answer.
#[derive(Debug, Default)]
pub struct Aside {
    /// The operation whose effect this is, where that has another key.
    pub duplicate_of: OnceLock<OperationId>,
    /// What it got as a duplicate, where it is one.
    pub repeat: OnceLock<Repeat>,
    /// The operation that it made, where its key was new, and the span that one comes from: another than
    /// the call's where what is to be sent says so.
    pub made: OnceLock<(OperationId, Option<TraceContext>)>,
    /// The operation that its key was known of, where it was, and the span that one came from.
    pub known: OnceLock<(OperationId, Option<TraceContext>)>,
    /// The operation that had the same request under another key a short while ago.
    pub suspect_of: OnceLock<OperationId>,
}

/// A request received and not yet remembered.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Within what its key is unique.
    pub scope: Scope,
    /// The key.
    pub key: Key,
    /// What it is found by.
    pub(crate) digest: KeyDigest,
    /// Whether the key was made here: it protects our retries and not the caller's.
    pub key_made: bool,
    /// When it says that it was first made; nothing where its route does not ask.
    pub made_at: Option<Timestamp>,
    /// What counts as the same.
    pub fingerprint: Fingerprint,
    /// What a second arrival at the upstream would do.
    pub effects: Effects,
    /// Who waits.
    pub mode: Mode,
    /// What goes upstream.
    pub request: Arc<Request>,
    /// The mail that it is, where its route leads to a mail server: what goes there is made of it when it
    /// is remembered.
    pub mail: Option<Box<Mail>>,
    /// The policy that governs it.
    pub policy: Arc<Policy>,
    /// The route.
    pub route: Arc<Route>,
    /// What it asks of us.
    pub options: CallOptions,
    /// The span that it comes from, where its caller says so.
    pub trace: Option<TraceContext>,
}

impl Aside {
    /// Takes note that the call's key was known, and what it got. Nobody else does.
    pub(crate) fn note_known(&self, known: &Operation, repeat: Repeat) {
        let _ = self.known.set((known.id, known.trace));
        let _ = self.repeat.set(repeat);
    }
}

impl Arrival {
    /// What the engine asks for by itself: accepted, under a key that it made, and no mail.
    pub(crate) fn of_ours(
        scope: Scope,
        key: Key,
        request: Arc<Request>,
        effects: Effects,
        policy: Arc<Policy>,
        route: Arc<Route>,
        secrets: &Secrets,
    ) -> Self {
        Self {
            digest: scope.digest(&key),
            fingerprint: Fingerprint::of(&request, &policy.fingerprint, secrets.fingerprint()),
            scope,
            key,
            key_made: true,
            made_at: None,
            effects,
            mode: Mode::Accepted,
            request,
            mail: None,
            policy,
            route,
            options: CallOptions::default(),
            trace: None,
        }
    }

    /// The request as every attempt of the operation `id` sends it.
    pub(crate) fn remembered(&self, id: OperationId, now: Timestamp) -> Arc<Request> {
        match &self.mail {
            None => Arc::clone(&self.request),
            Some(mail) => Arc::new(mail.remembered(&self.request, id, now)),
        }
    }

    /// Whether it waits for its turn among those about the same.
    pub fn is_in_order(&self) -> bool {
        let CallOptions { subject, sequence, .. } = &self.options;
        subject.is_some() && (sequence.is_some() || self.policy.order == Order::Subject)
    }
}

/// What a request is.
#[derive(Debug, Clone)]
pub enum Received {
    /// It has an effect and a key: it is remembered.
    Keyed(Box<Arrival>),
    /// It only reads, or its route lets it pass: no record.
    Pass(Arc<Request>),
}
