//! The outbound edge: a caller's request on `/to/…` becomes a call, and what the engine answers becomes
//! a response. What it asks of us is in `options`, as others'
//! callers write it in `upstash`, and a call in one JSON document in `document`.

mod document;
mod options;
mod upstash;

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, Version, header,
};
use hyper::body::{Body as _, Incoming};
use onceward::core::exchange;
use onceward::core::operation::Operation;
use onceward::core::policy::{ErrorShape, KeyFrom, Mode, Policy, is_safe};
use onceward::core::upstream_key::KeyPlace;
use onceward::edge::{self, Pace, refuse, tell_aside, tell_of};
use onceward::route::Route;
use onceward::upstream::{Egress, Upload, parse_ad_hoc};
use onceward::{Answer, Answered, Call, CallOptions, Engine, Passing, Pieces};
use url::Url;

use crate::access::{Caller, check_route};
use crate::body::{Body, Kept, header_map, headers_of};
use crate::problem::Problem;
use crate::shape;
use crate::telemetry::traces::{self, Traced};

pub(crate) use self::document::{Document, lines, response_document};
pub(crate) use self::options::{LABEL_BYTES_MAX, key_of, next_hop, options_of, refuse_options};

/// The largest body that is read before it is passed on.
const WHOLE_BYTES_MAX: u64 = 64 << 10;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What the gateway needs.
#[derive(Debug, Clone)]
pub(crate) struct Gateway {
    pub(crate) engine: Arc<Engine>,
    pub(crate) egress: Arc<Egress>,
    /// How fast a body that is read whole has to come.
    pub(crate) pace: Pace,
}

/// An answer that is being made: on the heap, so that a connection which asks for nothing holds no
/// room for one.
pub(crate) type Answering = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// Where a request goes: a route, or the origin of an ad hoc upstream; and its path and query.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) route: String,
    pub(crate) target: String,
}

/// What an edge makes of a request's head: where it goes, who asks, and what is asked of us.
#[derive(Debug)]
pub(crate) struct Entrance {
    pub(crate) place: Place,
    pub(crate) tenant: String,
    pub(crate) principal: String,
    pub(crate) options: CallOptions,
}

/// Marks an answer of ours that only says that a call was taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Receipt;

impl Gateway {
    /// Answers `ANY /to/{route}/{path}` and `ANY /to/https://host/path`.
    pub(crate) fn handle(&self, head: Parts, body: Incoming, caller: Caller) -> Answering {
        match self.entrance(&head, caller) {
            Ok(entrance) => self.enter(head, body, entrance),
            // Nothing was made of it, a key neither.
            Err(problem) => refused(&problem, echo_of(&head.headers)),
        }
    }

    /// Answers a request, whatever edge it came in by.
    pub(crate) fn enter(
        &self,
        mut head: Parts,
        body: Incoming,
        mut entrance: Entrance,
    ) -> Answering {
        let (route, path) = match self.way(&mut head, &mut entrance) {
            Ok(way) => way,
            Err(problem) => return refused(&problem, echo_of(&head.headers)),
        };
        let has_key = entrance.options.key.is_some();
        if !has_key && route.passes(head.method.as_str(), &entrance.place.target, &head.headers) {
            // What passes by its head alone goes on before its body is there.
            return self.pass(route, path, head, body, entrance);
        }
        Box::pin(self.clone().receive(route, head, body, entrance))
    }

    /// Which shape our refusals take for the callers of the route that `uri` names.
    pub(crate) fn error_shape(&self, method: &Method, uri: &Uri) -> ErrorShape {
        let written = uri.path_and_query().map_or("", PathAndQuery::as_str);
        let (route, target) = named(written.strip_prefix("/to/").unwrap_or_default());
        let routes = self.engine.routes();
        if let Some(route) = routes.get(route) {
            return route.policy_for(method.as_str(), &target).error_shape;
        }
        self.error_shape_of_unknown()
    }

    /// Who misspells a route must not take our refusal for an answer either.
    pub(crate) fn error_shape_of_unknown(&self) -> ErrorShape {
        let routes = self.engine.routes();
        let mut shapes = routes.named.values().map(|route| route.policy.error_shape);
        shapes.find(|shape| *shape != ErrorShape::Problem).unwrap_or(ErrorShape::Problem)
    }

    /// What a request on `/to/…` says of itself.
    fn entrance(&self, head: &Parts, caller: Caller) -> Result<Entrance, Problem> {
        let written = head.uri.path_and_query().map_or("", |written| written.as_str());
        let place = self.place(written.strip_prefix("/to/").unwrap_or_default())?;
        check_route(&caller, &place.route)?;
        let Caller { tenant, principal, .. } = caller;
        let mut options = options_of(&head.headers)?;
        traces::watch(head.extensions.get::<Traced>(), &mut options);
        Ok(Entrance { place, tenant, principal, options })
    }

    /// The route that a request goes by, and the path and query that go upstream.
    fn way(
        &self,
        head: &mut Parts,
        entrance: &mut Entrance,
    ) -> Result<(Arc<Route>, PathAndQuery), Problem> {
        refuse_upgrade(&head.headers)?;
        let path = check_sendable(&head.method, &entrance.place.target)?;
        let route = self.engine.find_route_for(&entrance.tenant, &entrance.place.route)?;
        if route.upstash {
            let policy = route.policy_for(head.method.as_str(), &entrance.place.target);
            let keys = &policy.key_headers;
            upstash::heed(&mut head.headers, &head.method, keys, &mut entrance.options)?;
        }
        self.check_callback(&mut entrance.options)?;
        Ok((route, path))
    }

    /// Passes a request on without a record.
    fn pass(
        &self,
        route: Arc<Route>,
        path: PathAndQuery,
        head: Parts,
        body: Incoming,
        entrance: Entrance,
    ) -> Answering {
        let echo = echo_of(&head.headers);
        let (upload, unread) = match whole_bytes_max(&head, &body, route.body_bytes_max) {
            Some(0) => (Upload::default(), None),
            Some(bytes_max) => (Upload::default(), Some((body, bytes_max))),
            None => (Upload::streamed(body), None),
        };
        let Parts { method, mut headers, extensions, .. } = head;
        traces::pass_on(extensions.get::<Traced>(), &mut headers);
        let Entrance { tenant, options: CallOptions { flow, headers: said, .. }, .. } = entrance;
        let passing = Passing { tenant, route, method, path, headers, upload, flow, said };
        Box::pin(passed(Arc::clone(&self.engine), self.pace, passing, unread, echo))
    }

    /// Receives a request whole, and answers with what its operation came to.
    async fn receive(
        self,
        route: Arc<Route>,
        head: Parts,
        body: Incoming,
        entrance: Entrance,
    ) -> Response<Body> {
        let Entrance { place, tenant, principal, options } = entrance;
        let echo = echo_of(&head.headers);
        let aside = Arc::clone(&options.aside);
        let body = match read_body(body, route.body_bytes_max, self.pace).await {
            Ok(body) => body,
            Err(problem) => return refuse(&problem, echo, true),
        };
        let mut headers = headers_of(&head.headers);
        headers.0.retain(|(name, _)| !name.starts_with("onceward-"));
        let request = exchange::Request {
            method: head.method.as_str().to_owned(),
            target: place.target,
            headers,
            body,
        };
        drop(head);
        let policy = route.policy_for(&request.method, &request.target);
        let key_given = options.key.is_some() || has_key(&request, policy);
        let call = Call { tenant, principal, route: place.route, request, options };
        let mut response = match self.engine.call(call).await {
            Ok(answer) => respond(answer, echo, key_given, &self.engine),
            Err(refusal) => refuse(&refusal.into(), echo, key_given),
        };
        tell_aside(response.headers_mut(), &aside);
        response
    }

    /// Reads what stands behind `/to/`.
    pub(crate) fn place(&self, rest: &str) -> Result<Place, Problem> {
        let is_url = ["http:/", "https:/"].iter().any(|scheme| {
            rest.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        });
        if is_url {
            return self.ad_hoc(rest);
        }
        let (route, target) = named(rest);
        if route.is_empty() {
            return Err(Problem::new("route-unknown", "Name a route: /to/{route}/{path}."));
        }
        Ok(Place { route: route.to_owned(), target })
    }

    /// Refuses what others' callers write, in a call that has members of its own for it.
    pub(crate) fn refuse_aliases(&self, route: &str, headers: &HeaderMap) -> Result<(), Problem> {
        let is_heeded = self.engine.route(route).is_some_and(|route| route.upstash);
        if is_heeded { upstash::refuse(headers) } else { Ok(()) }
    }

    /// Whether whoever is to be told can be: the same holds for it as for a URL that is called.
    pub(crate) fn check_callback(&self, options: &mut CallOptions) -> Result<(), Problem> {
        let Some(url) = options.callback.take() else { return Ok(()) };
        if !self.engine.has_teller() {
            return Err(Problem::new(
                "option-invalid",
                "onceward-callback: callbacks are signed, and no callbacks.secret is configured; nothing was sent.",
            ));
        }
        options.callback = Some(self.admitted(&url)?.to_string());
        Ok(())
    }

    /// A URL that callers may reach.
    pub(crate) fn admitted(&self, text: &str) -> Result<Url, Problem> {
        let url = parse_ad_hoc(text)
            .map_err(|refusal| Problem::new("url-invalid", refusal.to_string()))?;
        self.egress
            .admits_url(&url)
            .map_err(|refusal| Problem::new("egress-refused", refusal.to_string()))?;
        Ok(url)
    }

    fn ad_hoc(&self, text: &str) -> Result<Place, Problem> {
        let url = self.admitted(text)?;
        Ok(Place { route: url.origin().ascii_serialization(), target: target_of(&url) })
    }
}

/// The answer to what passes, once what is to be read of its body before it goes on was read.
async fn passed(
    engine: Arc<Engine>,
    pace: Pace,
    mut passing: Passing,
    unread: Option<(Incoming, usize)>,
    echo: Option<HeaderValue>,
) -> Response<Body> {
    if let Some((body, bytes_max)) = unread {
        match read_body(body, bytes_max, pace).await {
            Ok(body) => passing.upload = Upload::whole(body),
            Err(problem) => return refuse(&problem, echo, true),
        }
    }
    match engine.pass(passing).await {
        Ok(response) => response.map(Body::Download),
        Err(refusal) => refuse(&refusal.into(), echo, true),
    }
}

/// A route's name, and the path and query behind it.
fn named(rest: &str) -> (&str, String) {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (route, target) = rest.split_at(end);
    let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    (route, target)
}

/// What could never be sent is not remembered: a tunnel is no request, and a path has to stand on
/// a request line as it is.
pub(crate) fn check_sendable(method: &Method, target: &str) -> Result<PathAndQuery, Problem> {
    if *method == Method::CONNECT {
        return Err(Problem::new("request-invalid", "CONNECT opens a tunnel, and sends nothing."));
    }
    let path = PathAndQuery::try_from(target).ok().filter(|_| !target.contains('#'));
    path.ok_or_else(|| {
        Problem::new(
            "request-invalid",
            format!("{target:?} cannot stand on a request line: percent-encode it"),
        )
    })
}

fn target_of(url: &Url) -> String {
    match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    }
}

/// A connection that leaves HTTP has no requests that could be told apart. HTTP/2 over an upgrade is
/// only offered, and an offer may be passed over (RFC 9110, section 7.8).
fn refuse_upgrade(headers: &HeaderMap) -> Result<(), Problem> {
    let is_offer = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"h2c");
    if headers.get_all(header::UPGRADE).iter().all(is_offer) {
        return Ok(());
    }
    Err(Problem::new(
        "upgrade-refused",
        "Only HTTP goes through, and this asks to leave it (Upgrade), as WebSockets do; nothing was sent.",
    ))
}

/// An answer that is no more than a refusal.
fn refused(problem: &Problem, echo: Option<HeaderValue>) -> Answering {
    Box::pin(ready(refuse(problem, echo, true)))
}

/// How much of the body of what passes is read before it goes on; nothing where it goes on as it comes.
/// A small one is read first, so that it can be sent again where nothing was sent, and so is what a
/// method that only reads brings without saying how much it is. Over HTTP/2 even a small one may have
/// trailers behind it.
fn whole_bytes_max(head: &Parts, body: &Incoming, bytes_max: usize) -> Option<usize> {
    match body.size_hint().exact() {
        Some(0) => Some(0),
        Some(length) if length <= WHOLE_BYTES_MAX && head.version < Version::HTTP_2 => {
            Some(length as usize)
        }
        None if is_safe(head.method.as_str()) => Some(bytes_max),
        _ => None,
    }
}

/// The whole body of a request, which has to keep pace.
pub(crate) async fn read_body(
    body: Incoming,
    bytes_max: usize,
    pace: Pace,
) -> Result<Bytes, Problem> {
    edge::read_body(body, bytes_max, pace).await.map_err(Problem::from)
}

/// Whether somebody waits for it, and it is tried again only for as long as they do.
pub(crate) fn is_of_a_caller(operation: &Operation) -> bool {
    operation.mode == Mode::Held && !operation.state.is_ended()
}

/// Whether the caller brought a key, in a header or in the body.
fn has_key(request: &exchange::Request, policy: &Policy) -> bool {
    let in_body = |pointer: &String| {
        let own = KeyPlace::Json(pointer.clone()).own(request);
        own.is_ok_and(|key| key.is_some())
    };
    policy.key_from != KeyFrom::Headers
        || policy.key_headers.iter().any(|name| request.headers.get(name).is_some())
        || policy.key_pointer.as_ref().is_some_and(in_body)
}

/// The key's header as it was received, for the echo.
fn echo_of(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(IDEMPOTENCY_KEY).cloned()
}

pub(crate) fn respond(
    answer: Answer,
    echo: Option<HeaderValue>,
    key_given: bool,
    engine: &Arc<Engine>,
) -> Response<Body> {
    match answer {
        Answer::Passed { status, headers, body } => {
            let mut response = Response::new(Body::stream(Bytes::new(), body));
            *response.status_mut() =
                StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
            *response.headers_mut() = header_map(&headers);
            response
        }
        Answer::Accepted(operation) => {
            let shown =
                serde_json::to_vec(&shape::operation(&operation, None, true)).unwrap_or_default();
            let mut response = Response::new(Body::full(shown.into()));
            *response.status_mut() = StatusCode::ACCEPTED;
            response.extensions_mut().insert(Receipt);
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert("preference-applied", HeaderValue::from_static("respond-async"));
            if let Ok(location) = HeaderValue::from_str(&shape::url_of(operation.id)) {
                headers.insert(header::LOCATION, location);
            }
            tell_of(headers, &operation, echo, key_given, false);
            response
        }
        Answer::Upstream(answered) => {
            let Answered { operation, response: kept, rest, replayed } = *answered;
            let length = kept.body.len();
            let is_large = Kept::is_worth_it(length);
            let pieces = is_large.then(|| Pieces::of(engine, &operation)).flatten();
            let body = match (rest, pieces) {
                (Some(rest), _) => Body::stream(kept.body, rest),
                (None, Some(pieces)) => Body::Kept(Kept::new(pieces, length)),
                (None, None) => Body::full(kept.body),
            };
            let mut response = Response::new(body);
            *response.status_mut() =
                StatusCode::from_u16(kept.status).unwrap_or(StatusCode::BAD_GATEWAY);
            *response.headers_mut() = header_map(&kept.headers);
            if replayed {
                response
                    .headers_mut()
                    .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            }
            tell_of(response.headers_mut(), &operation, echo, key_given, replayed);
            response
        }
    }
}
