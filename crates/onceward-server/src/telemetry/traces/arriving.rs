//! Calls: a span each, from the head of the request to the head of its answer.

use std::borrow::Cow;
use std::cell::Cell;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock, Weak};
use std::time::SystemTime;

use http::header::{HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version};
use onceward::Aside;
use onceward::core::trace::{self, Place, Sampling, TraceContext};
use onceward::secret::random;
use opentelemetry::trace::SpanKind;
use opentelemetry::{KeyValue, Value};

use super::{Span, Telling, method, telling};
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

/// A trace that begins here, and its first span.
fn new_ids() -> (u128, u64) {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let [high, low] = IDS.get().map(|state| state.wrapping_add(STEP));
    IDS.set([high, low]);
    let (high, low) = (trace::spread(high), trace::spread(low));
    let trace = u128::from(high) << 64 | u128::from(low);
    (trace.max(1), trace::spread(high ^ low.rotate_left(32)).max(1))
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
    own: OnceLock<TraceContext>,
    /// The source that it is for.
    source: OnceLock<String>,
}

impl Traced {
    /// Where the engine says what it did with the call.
    pub(crate) fn aside(&self) -> Arc<Aside> {
        Arc::clone(&self.0.aside)
    }

    /// It is for this source, which is there.
    pub(crate) fn came_to(&self, source: &str) {
        let _ = self.0.source.set(source.to_owned());
    }

    /// Tells whoever a request passes on to where it comes from.
    pub(crate) fn pass_on(&self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::from_bytes(&self.0.own().text()) {
            headers.insert(TRACEPARENT, value);
        }
    }
}

impl Shared {
    fn own(&self) -> TraceContext {
        *self.own.get_or_init(|| {
            let (trace, span) = new_ids();
            self.sampling.begin(self.caller, trace).with_span(span)
        })
    }

    /// The call's span: in the trace of the operation that it made, where it made one.
    fn context(&self) -> TraceContext {
        let Some((made, from)) = self.aside.made.get() else { return self.own() };
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
    let is_call = guard.is_some()
        || path.starts_with("/to/")
        || path.starts_with("/in/")
        || path == "/v1/operations" && request.method() == Method::POST;
    if !is_call {
        return None;
    }
    let headers = request.headers();
    let lines = headers.get_all(TRACEPARENT).iter();
    let shared = Arc::new(Shared {
        aside: Arc::default(),
        caller: TraceContext::of_lines(lines.map(HeaderValue::as_bytes)),
        sampling: telling.sampling,
        own: OnceLock::new(),
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
        let name = match name.to_ascii_lowercase().as_str() {
            "http:" | "https:" => "{url}",
            _ if is_there => name,
            _ => "{route}",
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
    fn path(&self, route: Option<&str>) -> String {
        let path = self.uri.path();
        let rest = path.strip_prefix("/to/").filter(|_| self.guard.is_none());
        let may_tell =
            |rest: &str| self.named(rest).1 || !rest.contains('@') && !rest.contains("%40");
        if rest.is_none_or(may_tell) { path } else { route.unwrap_or_default() }.to_owned()
    }

    /// Whom it was addressed to.
    fn say_host(&self, say: &mut impl FnMut(&'static str, Value)) {
        let of_uri = || self.uri.authority().map(http::uri::Authority::as_str);
        let Some(host) = text(self.host.as_ref()).or_else(of_uri) else { return };
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, port.parse::<u16>().ok()),
            _ => (host, None),
        };
        say("server.address", name.to_owned().into());
        if let Some(port) = port {
            say("server.port", i64::from(port).into());
        }
    }

    /// What is known of it as HTTP.
    fn say_request(&self, route: Option<&str>, say: &mut impl FnMut(&'static str, Value)) {
        say("http.request.method", method(self.method.as_str()));
        say("url.path", self.path(route).into());
        say("url.scheme", if self.is_secured { "https" } else { "http" }.into());
        if let Some(route) = route {
            say("http.route", route.to_owned().into());
        }
        self.say_host(say);
        let version = match self.version {
            Version::HTTP_10 => "1.0",
            Version::HTTP_2 => "2",
            _ => "1.1",
        };
        say("network.protocol.version", version.into());
        say("client.address", self.client.to_canonical().to_string().into());
        if let Some(agent) = text(self.user_agent.as_ref()) {
            say("user_agent.original", agent.to_owned().into());
        }
    }

    /// What became of it.
    fn say_answer(&self, say: &mut impl FnMut(&'static str, Value)) {
        let Aside { made, known, repeat, .. } = &*self.shared.aside;
        let id = made.get().or_else(|| known.get()).map(|(id, _)| id);
        let named = self.answer.as_ref().and_then(|answer| text(answer.operation.as_ref()));
        if let Some(id) = id.map(ToString::to_string).or_else(|| named.map(str::to_owned)) {
            say("onceward.operation", id.into());
        }
        if let Some(repeat) = repeat.get() {
            say("onceward.duplicate", repeat.name().into());
        }
        let Some(answer) = &self.answer else {
            return say("error.type", "hung_up".into());
        };
        if let Some(key) = text(answer.key.as_ref()) {
            // As RFC 8941 writes a string.
            let quoted = key.strip_prefix('"').and_then(|key| key.strip_suffix('"'));
            say("idempotency.key", quoted.unwrap_or(key).to_owned().into());
        }
        if let Some(state) = text(answer.state.as_ref()) {
            say("onceward.state", state.to_owned().into());
        }
        say("http.response.status_code", i64::from(answer.status).into());
        if answer.status >= 500 {
            say("error.type", answer.status.to_string().into());
        }
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let context = self.shared.context();
        if !context.is_sampled() {
            return;
        }
        self.telling.tell(|| {
            let parent = self.shared.origin().map_or(0, |origin| origin.span);
            let route = self.route();
            let guard = self.guard.as_ref().map(|guard| guard.route.as_str());
            let mut attributes = Vec::with_capacity(20);
            let mut say = |key: &'static str, value| attributes.push(KeyValue::new(key, value));
            self.say_request(route.as_deref(), &mut say);
            if let Some(guard) = guard {
                say("onceward.route", guard.to_owned().into());
            }
            self.say_answer(&mut say);
            let target = guard.or(route.as_deref()).unwrap_or_default();
            Span {
                context,
                parent,
                is_parent_remote: parent != 0,
                kind: SpanKind::Server,
                name: format!("{} {target}", method(self.method.as_str())).into(),
                begun: self.begun,
                ended: SystemTime::now(),
                attributes,
                link: self.shared.link(),
                error: match &self.answer {
                    None => Some("the caller hung up".into()),
                    Some(Answer { status, .. }) if *status >= 500 => {
                        Some(status.to_string().into())
                    }
                    Some(_) => None,
                },
            }
        });
    }
}
