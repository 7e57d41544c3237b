//! Calls: a span each, from the head of the request to the head of its answer.
//!
//! Whether a call is told of is decided when its head has come, so that one that is not carries nothing
//! along. What it makes has an id that says the same.

use std::borrow::Cow;
use std::cell::Cell;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock, Weak};
use std::time::SystemTime;

use http::header::{Entry, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version};
use onceward::core::trace::{self, Place, Sampling, TraceContext};
use onceward::secret::random;
use onceward::{Aside, CallOptions};

use super::{Attributes, Kind, Span, Telling, method, say_id, telling};
use crate::config::Guard;
use crate::listening::Peer;

// As names, so that no call has them read.
const TRACEPARENT: HeaderName = HeaderName::from_static(trace::TRACEPARENT);
const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const OPERATION: HeaderName = HeaderName::from_static("onceward-operation");
const STATE: HeaderName = HeaderName::from_static("onceward-state");

thread_local! {
    /// What the next ids are made of. They have to differ, and may be guessed: no call waits for the
    /// generator of secrets.
    static IDS: Cell<[u64; 2]> =
        Cell::new([u64::from_le_bytes(random()), u64::from_le_bytes(random())]);
}

/// The two halves of a trace's id that begins here.
fn new_id() -> (u64, u64) {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let state = IDS.get().map(|state| state.wrapping_add(STEP));
    IDS.set(state);
    (trace::spread(state[0]), trace::spread(state[1]))
}

/// The first span of a call with this id, in its caller's trace or in one of its own.
fn begin(
    sampling: Sampling,
    caller: Option<TraceContext>,
    (high, low): (u64, u64),
) -> TraceContext {
    let trace = u128::from(high) << 64 | u128::from(low);
    let span = trace::spread(high ^ low.rotate_left(32)).max(1);
    sampling.begin(caller, trace.max(1)).with_span(span)
}

fn caller_of(headers: &HeaderMap) -> Option<TraceContext> {
    TraceContext::of_lines(headers.get_all(TRACEPARENT).iter().map(HeaderValue::as_bytes))
}

/// What goes along with the head of a request that may be told of.
#[derive(Debug, Clone)]
pub(crate) struct Traced(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    aside: Arc<Aside>,
    caller: Option<TraceContext>,
    sampling: Sampling,
    /// The span of a call that made no operation.
    own: TraceContext,
    /// The source that it is for.
    source: OnceLock<String>,
}

impl Traced {
    /// It is for this source, which is there.
    pub(crate) fn came_to(&self, source: &str) {
        let _ = self.0.source.set(source.to_owned());
    }
}

/// Has the engine say what it does with a call, and give what it makes an id by which that is told of where
/// the call is.
pub(crate) fn watch(traced: Option<&Traced>, options: &mut CallOptions) {
    if let Some(Traced(shared)) = traced {
        options.aside = Arc::clone(&shared.aside);
    }
    let is_told = traced.is_some_and(|traced| traced.0.own.is_sampled());
    options.sampled = telling().map(|_| is_told);
}

/// Tells whoever a request passes on to where it comes from.
pub(crate) fn pass_on(traced: Option<&Traced>, headers: &mut HeaderMap) {
    let Some(Telling { sampling, .. }) = telling() else { return };
    let said = headers.entry(TRACEPARENT);
    let context = if let Some(Traced(shared)) = traced {
        shared.own
    } else {
        // Nobody tells of it here, and whoever comes after is told that.
        let caller = match &said {
            Entry::Occupied(lines) => {
                TraceContext::of_lines(lines.iter().map(HeaderValue::as_bytes))
            }
            Entry::Vacant(_) => None,
        };
        if caller.is_some_and(|caller| !caller.is_sampled()) {
            return;
        }
        let (high, low) = new_id();
        begin(*sampling, caller, (high, sampling.steered(low, false)))
    };
    let Ok(value) = HeaderValue::from_bytes(&context.text()) else { return };
    match said {
        Entry::Occupied(mut lines) => {
            lines.insert(value);
        }
        Entry::Vacant(place) => {
            place.insert(value);
        }
    }
}

impl Shared {
    /// The call's span: in the trace of the operation that it made, where it made one.
    fn context(&self) -> TraceContext {
        let Some((made, from)) = self.aside.made.get() else { return self.own };
        self.sampling.begin(*from, made.as_u128()).with_span(Place::Call.span(*made))
    }

    /// The span that it comes from.
    fn origin(&self) -> Option<TraceContext> {
        self.aside.made.get().map_or(self.caller, |(_, from)| *from)
    }

    /// What else it has to do with: the operation that was known, or a caller in another trace.
    fn link(&self) -> Option<TraceContext> {
        self.known().or_else(|| self.caller.filter(|caller| Some(*caller) != self.origin()))
    }

    /// The span of the operation that the call's key was known of.
    fn known(&self) -> Option<TraceContext> {
        let (known, from) = self.aside.known.get()?;
        let begun = self.sampling.begin(*from, known.as_u128());
        Some(begun.with_span(Place::Remember.span(*known)))
    }
}

/// A call that is being answered; it is told of when it ends, and where its caller hangs up, too.
pub(crate) struct Arriving {
    telling: &'static Telling,
    shared: Arc<Shared>,
    begun: SystemTime,
    method: Method,
    uri: Uri,
    version: Version,
    host: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    client: IpAddr,
    is_secured: bool,
    guard: Option<Arc<Guard>>,
    answer: Option<Answer>,
}

/// What an answer said.
struct Answer {
    status: u16,
    key: Option<HeaderValue>,
    operation: Option<HeaderValue>,
    state: Option<HeaderValue>,
}

/// Begins to tell of a request on its way to a guard or to the main listener, where that is told of at all.
pub(crate) fn arrive<B>(
    request: &mut Request<B>,
    peer: &Peer,
    guard: Option<&Arc<Guard>>,
) -> Option<Box<Arriving>> {
    let telling = telling()?;
    let path = request.uri().path();
    let is_document = guard.is_none() && path == "/v1/operations";
    let is_call = guard.is_some()
        || path.starts_with("/to/")
        || path.starts_with("/in/")
        || is_document && request.method() == Method::POST;
    if !is_call {
        return None;
    }
    let headers = request.headers();
    let caller = caller_of(headers);
    let own = begin(telling.sampling, caller, new_id());
    // What a document has to be sent may come from another span than its request.
    if !own.is_sampled() && !is_document {
        return None;
    }
    let shared = Arc::new(Shared {
        aside: Arc::default(),
        caller,
        sampling: telling.sampling,
        own,
        source: OnceLock::new(),
    });
    let arriving = Arriving {
        telling,
        begun: SystemTime::now(),
        method: request.method().clone(),
        uri: request.uri().clone(),
        version: request.version(),
        host: headers.get(HOST).cloned(),
        user_agent: headers.get(USER_AGENT).cloned(),
        client: peer.address.ip(),
        is_secured: peer.is_secured,
        guard: guard.cloned(),
        answer: None,
        shared: Arc::clone(&shared),
    };
    request.extensions_mut().insert(Traced(shared));
    Some(Box::new(arriving))
}

fn text(value: Option<&HeaderValue>) -> Option<&str> {
    value.and_then(|value| value.to_str().ok())
}

impl Arriving {
    /// Its answer is on its way.
    pub(crate) fn answered<B>(mut self: Box<Self>, response: &Response<B>) {
        if !self.shared.context().is_sampled() {
            return;
        }
        let said = |name: HeaderName| response.headers().get(name).cloned();
        self.answer = Some(Answer {
            status: response.status().as_u16(),
            key: said(KEY),
            operation: said(OPERATION),
            state: said(STATE),
        });
    }

    /// Its way in: as few of them as there are routes and sources, whatever callers write.
    fn route(&self) -> Option<Cow<'static, str>> {
        let path = self.uri.path();
        if self.guard.is_some() {
            return None;
        }
        if path.starts_with("/in/") {
            let source = self.shared.source.get().map_or("{source}", String::as_str);
            return Some(format!("/in/{source}").into());
        }
        let Some(rest) = path.strip_prefix("/to/") else { return Some("/v1/operations".into()) };
        let (name, is_there) = self.named(rest);
        let is_url = ["http:", "https:"].iter().any(|scheme| name.eq_ignore_ascii_case(scheme));
        let name = match (is_url, is_there) {
            (true, _) => "{url}",
            (false, true) => name,
            (false, false) => "{route}",
        };
        Some(format!("/to/{name}/{{path}}").into())
    }

    /// The route that stands behind `/to/`, and whether it is there.
    fn named<'a>(&self, rest: &'a str) -> (&'a str, bool) {
        let name = rest.split('/').next().unwrap_or_default();
        let engine = self.telling.engine.get().and_then(Weak::upgrade);
        (name, engine.is_some_and(|engine| engine.routes().named.contains_key(name)))
    }

    /// Its path; of an address of a caller's that may have a login in it no more than its way in.
    fn path<'a>(&'a self, route: Option<&'a str>) -> &'a str {
        let path = self.uri.path();
        let rest = path.strip_prefix("/to/").filter(|_| self.guard.is_none());
        let may_tell =
            |rest: &str| !rest.contains('@') && !rest.contains("%40") || self.named(rest).1;
        if rest.is_none_or(may_tell) { path } else { route.unwrap_or_default() }
    }

    /// Whom it was addressed to.
    fn say_host(&self, said: &mut Attributes<'_>) {
        let of_uri = || self.uri.authority().map(http::uri::Authority::as_str);
        let Some(host) = text(self.host.as_ref()).or_else(of_uri) else { return };
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, port.parse::<u16>().ok()),
            _ => (host, None),
        };
        said.say("server.address", name);
        if let Some(port) = port {
            said.number("server.port", port);
        }
    }

    /// What is known of it as HTTP.
    fn say_request(&self, route: Option<&str>, said: &mut Attributes<'_>) {
        said.say("http.request.method", method(self.method.as_str()));
        said.say("url.path", self.path(route));
        said.say("url.scheme", if self.is_secured { "https" } else { "http" });
        if let Some(route) = route {
            said.say("http.route", route);
        }
        self.say_host(said);
        let version = match self.version {
            Version::HTTP_10 => "1.0",
            Version::HTTP_2 => "2",
            _ => "1.1",
        };
        said.say("network.protocol.version", version);
        said.say("client.address", &self.client.to_canonical().to_string());
        if let Some(agent) = text(self.user_agent.as_ref()) {
            said.say("user_agent.original", agent);
        }
    }

    /// What became of it.
    fn say_answer(&self, said: &mut Attributes<'_>) {
        let Aside { made, known, repeat, .. } = &*self.shared.aside;
        let named = self.answer.as_ref().and_then(|answer| text(answer.operation.as_ref()));
        match (made.get().or_else(|| known.get()), named) {
            (Some((id, _)), _) => say_id(*id, said),
            (None, Some(named)) => said.say("onceward.operation", named),
            (None, None) => {}
        }
        if let Some(repeat) = repeat.get() {
            said.say("onceward.duplicate", repeat.name());
        }
        let Some(answer) = &self.answer else {
            return said.say("error.type", "hung_up");
        };
        if let Some(key) = text(answer.key.as_ref()) {
            // As RFC 8941 writes a string.
            let quoted = key.strip_prefix('"').and_then(|key| key.strip_suffix('"'));
            said.say("idempotency.key", quoted.unwrap_or(key));
        }
        if let Some(state) = text(answer.state.as_ref()) {
            said.say("onceward.state", state);
        }
        said.number("http.response.status_code", answer.status);
        if answer.status >= 500 {
            said.say("error.type", &answer.status.to_string());
        }
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let context = self.shared.context();
        if !context.is_sampled() {
            return;
        }
        let parent = self.shared.origin().map_or(0, |origin| origin.span);
        let route = self.route();
        let guard = self.guard.as_ref().map(|guard| guard.route.as_str());
        let span = Span {
            context,
            parent,
            is_parent_remote: parent != 0,
            kind: Kind::Server,
            name: [method(self.method.as_str()), guard.or(route.as_deref()).unwrap_or_default()],
            begun: self.begun,
            ended: SystemTime::now(),
            link: self.shared.link(),
            error: match &self.answer {
                None => Some("the caller hung up".into()),
                Some(Answer { status, .. }) if *status >= 500 => Some(status.to_string().into()),
                Some(_) => None,
            },
        };
        self.telling.outgoing.tell(&span, |said| {
            self.say_request(route.as_deref(), said);
            if let Some(guard) = guard {
                said.say("onceward.route", guard);
            }
            self.say_answer(said);
        });
    }
}
