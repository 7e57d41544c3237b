//! The outbound edge: a caller's request on `/to/…` or in one JSON document becomes a call, and
//! what the engine answers becomes a response.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header,
};
use hyper::body::{Body as _, Incoming};
use onceward::core::condition::Condition;
use onceward::core::exchange::{self, Headers};
use onceward::core::lookup::LookupRule;
use onceward::core::operation::Operation;
use onceward::core::policy::{
    Effects, ErrorShape, KeyFrom, Mode, Policy, UpstreamKeyValue, is_safe,
};
use onceward::core::time::Timestamp;
use onceward::core::upstream_key::KeyPlace;
use onceward::edge::{self, refuse, tell_aside, tell_of};
use onceward::store::Store;
use onceward::upstream::{Egress, Upload, parse_ad_hoc};
use onceward::{Answer, Answered, Call, CallOptions, Engine, Passing, Refusal};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::access::Caller;
use crate::body::{Body, Kept, header_map, headers_of};
use crate::problem::Problem;
use crate::{shape, units};

/// The largest body that is read before it is passed on.
const WHOLE_BYTES_MAX: u64 = 64 << 10;

/// The one tenant that there is.
pub(crate) const TENANT: &str = "default";

/// What the gateway needs.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) engine: Arc<Engine>,
    pub(crate) egress: Arc<Egress>,
}

/// What came of a call.
#[expect(clippy::large_enum_variant, reason = "one lives a moment, for one call")]
enum Called {
    /// It passed without a record.
    Passed(Response<Body>),
    /// It was received whole; and whether its key was the caller's.
    Received(Result<Answer, Refusal>, bool),
}

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
    pub(crate) principal: String,
    pub(crate) options: CallOptions,
}

/// Marks an answer of ours that only says that a call was taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Receipt;

impl Gateway {
    /// Answers `ANY /to/{route}/{path}` and `ANY /to/https://host/path`.
    pub(crate) async fn handle(
        &self,
        request: Request<Incoming>,
        caller: Caller,
    ) -> Response<Body> {
        let (head, body) = request.into_parts();
        match self.entrance(&head, caller) {
            Ok(entrance) => self.enter(head, body, entrance).await,
            // Nothing was made of it, a key neither.
            Err(problem) => refuse(&problem, echo_of(&head.headers), true),
        }
    }

    /// Answers a request, whatever edge it came in by.
    pub(crate) async fn enter(
        &self,
        head: Parts,
        body: Incoming,
        entrance: Entrance,
    ) -> Response<Body> {
        let echo = echo_of(&head.headers);
        let aside = Arc::clone(&entrance.options.aside);
        let mut response = match self.call(head, body, entrance).await {
            Ok(Called::Passed(response)) => return response,
            Ok(Called::Received(Ok(answer), key_given)) => {
                respond(answer, echo, key_given, self.engine.store())
            }
            Ok(Called::Received(Err(refusal), key_given)) => {
                refuse(&refusal.into(), echo, key_given)
            }
            Err(problem) => refuse(&problem, echo, true),
        };
        tell_aside(response.headers_mut(), &aside);
        response
    }

    /// Which shape our refusals take for the callers of the route that `uri` names.
    pub(crate) fn error_shape(&self, method: &Method, uri: &Uri) -> ErrorShape {
        let written = uri.path_and_query().map_or("", PathAndQuery::as_str);
        let (route, target) = named(written.strip_prefix("/to/").unwrap_or_default());
        let routes = self.engine.routes();
        if let Some(route) = routes.get(route) {
            return route.policy_for(method.as_str(), &target).error_shape;
        }
        // Who misspells a route must not take our refusal for an answer either.
        let mut shapes = routes.named.values().map(|route| route.policy.error_shape);
        shapes.find(|shape| *shape != ErrorShape::Problem).unwrap_or(ErrorShape::Problem)
    }

    /// What a request on `/to/…` says of itself.
    fn entrance(&self, head: &Parts, caller: Caller) -> Result<Entrance, Problem> {
        let written = head.uri.path_and_query().map_or("", |written| written.as_str());
        let place = self.place(written.strip_prefix("/to/").unwrap_or_default())?;
        Ok(Entrance { place, principal: caller.principal, options: options_of(&head.headers)? })
    }

    /// What came of a call.
    async fn call(
        &self,
        head: Parts,
        body: Incoming,
        entrance: Entrance,
    ) -> Result<Called, Problem> {
        refuse_upgrade(&head.headers)?;
        let Entrance { place, principal, mut options } = entrance;
        let path = check_sendable(&head.method, &place.target)?;
        let route = self
            .engine
            .routes()
            .get(&place.route)
            .ok_or_else(|| Problem::from(Refusal::RouteUnknown(place.route.clone())))?;
        self.check_callback(&mut options)?;
        if route.passes(head.method.as_str(), &place.target, &head.headers) {
            // What passes by its head alone goes on before its body is there.
            let upload = upload(&head, body, route.body_bytes_max).await?;
            let Parts { method, headers, .. } = head;
            let tenant = TENANT.to_owned();
            let passing = Passing { tenant, route, method, path, headers, upload, options };
            let response = self.engine.pass(passing).await?;
            return Ok(Called::Passed(response.map(Body::Download)));
        }
        let body = read_body(body, route.body_bytes_max).await?;
        let mut headers = headers_of(&head.headers);
        headers.0.retain(|(name, _)| !name.starts_with("onceward-"));
        let request = exchange::Request {
            method: head.method.as_str().to_owned(),
            target: place.target,
            headers,
            body,
        };
        let policy = route.policy_for(&request.method, &request.target);
        let key_given = has_key(&request, policy);
        let call =
            Call { tenant: TENANT.to_owned(), principal, route: place.route, request, options };
        Ok(Called::Received(Box::pin(self.engine.call(call)).await, key_given))
    }

    /// Reads what stands behind `/to/`.
    fn place(&self, rest: &str) -> Result<Place, Problem> {
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
    fn admitted(&self, text: &str) -> Result<Url, Problem> {
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

    /// Reads a call from one JSON document.
    fn call_of(&self, document: Document, caller: Caller) -> Result<(Call, bool), Problem> {
        let invalid = |why: String| Problem::new("request-invalid", why);
        let mut place = self.place(&document.to)?;
        if let Some(path) = document.path {
            if !path.starts_with('/') {
                return Err(invalid(format!("path {path:?} begins with no slash")));
            }
            place.target = path;
        }
        let method: Method = document
            .method
            .parse()
            .map_err(|_| invalid(format!("{:?} is no method", document.method)))?;
        check_sendable(&method, &place.target)?;
        let mut headers = HeaderMap::new();
        for (name, value) in document.headers {
            let name: HeaderName =
                name.parse().map_err(|_| invalid(format!("{name:?} is no header name")))?;
            headers.insert(
                name.clone(),
                value.parse().map_err(|_| {
                    invalid(format!("the value of {name} cannot stand in a header"))
                })?,
            );
        }
        let body = match (document.body, document.body_base64) {
            (Some(_), Some(_)) => {
                return Err(invalid("give body or body_base64, not both".to_owned()));
            }
            (None, Some(coded)) => STANDARD
                .decode(coded)
                .map_err(|error| invalid(format!("body_base64: {error}")))?
                .into(),
            (Some(Value::String(text)), None) => Bytes::from(text),
            (Some(value), None) => {
                headers
                    .entry(header::CONTENT_TYPE)
                    .or_insert(HeaderValue::from_static("application/json"));
                serde_json::to_vec(&value).map_err(|error| invalid(error.to_string()))?.into()
            }
            (None, None) => Bytes::new(),
        };
        for (name, value) in [
            ("onceward-subject", document.subject),
            ("onceward-sequence", document.sequence.map(|sequence| sequence.to_string())),
            ("onceward-flow-key", document.flow_key),
        ] {
            let Some(value) = value else { continue };
            let value = HeaderValue::from_str(&value)
                .map_err(|_| invalid(format!("{name} {value:?} cannot stand in a header")))?;
            headers.insert(name, value);
        }
        let mut options = options_of(&headers)?;
        self.check_callback(&mut options)?;
        options.respond_async |= document.mode.as_deref() == Some("accepted");
        options.label = document.label.or(options.label);
        options.key = document.key;
        if let Some(wait) = document.wait {
            options.wait =
                Some(units::duration(&wait).map_err(|why| Problem::new("option-invalid", why))?);
        }
        let key_given = options.key.is_some() || headers.contains_key("idempotency-key");
        let mut headers = headers_of(&headers);
        headers.0.retain(|(name, _)| !name.starts_with("onceward-"));
        let request = exchange::Request {
            method: method.as_str().to_owned(),
            target: place.target,
            headers,
            body,
        };
        Ok((
            Call {
                tenant: TENANT.to_owned(),
                principal: caller.principal,
                route: place.route,
                request,
                options,
            },
            key_given,
        ))
    }

    /// Answers `POST /v1/operations`: the same pipeline, its answer in one document.
    pub(crate) async fn send(
        &self,
        document: Document,
        caller: Caller,
    ) -> Result<Response<Body>, Problem> {
        let (call, _) = self.call_of(document, caller)?;
        let aside = Arc::clone(&call.options.aside);
        let (status, shown, operation) = match self.engine.call(call).await? {
            Answer::Accepted(operation) => {
                (StatusCode::ACCEPTED, shape::operation(&operation, None), *operation)
            }
            Answer::Upstream(answered) => {
                let Answered { operation, response, rest, replayed } = *answered;
                let mut shown = shape::operation(&operation, None);
                shown["replayed"] = json!(replayed);
                shown["response"] =
                    response_document(response.status, &response.headers, &response.body);
                if rest.is_some() {
                    shown["response"]["cut"] = json!(true);
                }
                (StatusCode::OK, shown, operation)
            }
            Answer::Passed { .. } => {
                return Err(Problem::new(
                    "request-invalid",
                    "a method that only reads has no operation: send it through /to",
                ));
            }
        };
        let mut response =
            Response::new(Body::full(serde_json::to_vec(&shown).unwrap_or_default().into()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        shape::describe(headers, &operation);
        tell_aside(headers, &aside);
        if let Ok(location) = HeaderValue::from_str(&shape::url_of(operation.id)) {
            headers.insert(header::LOCATION, location);
        }
        Ok(response)
    }

    /// Answers `POST /v1/explain`: what the call would be; nothing is sent.
    pub(crate) fn explain(&self, document: Document, caller: Caller) -> Result<Value, Problem> {
        let (call, key_given) = self.call_of(document, caller)?;
        let route = call.route.clone();
        let arrival = match self.engine.explain(call)? {
            onceward::Received::Pass(request) => {
                return Ok(
                    json!({"route": route, "method": request.method, "record": false, "why": "it only reads, or its route lets it pass without a key"}),
                );
            }
            onceward::Received::Keyed(arrival) => arrival,
        };
        let retried = |unsafe_too: bool| match arrival.effects {
            Effects::NonIdempotent if unsafe_too => "in doubt, never sent again by itself",
            _ => "retried",
        };
        let parts =
            onceward::core::fingerprint::Part::ALL.map(onceward::core::fingerprint::Part::name);
        let hex = |digest: [u8; 16]| format!("{:032x}", u128::from_be_bytes(digest));
        Ok(json!({
            "route": route,
            "record": true,
            "key": arrival.key.as_str(),
            "key_given": key_given,
            "mode": arrival.mode.name(),
            "flow": arrival.options.flow,
            "subject": shape::subject(arrival.options.subject.as_deref(), arrival.options.sequence),
            "in_order": arrival.is_in_order(),
            "effects": arrival.effects.name(),
            "effects_said": arrival.policy.effects.is_some() || arrival.options.effects.is_some(),
            "fingerprint": parts.iter().zip(arrival.fingerprint.parts).map(|(part, digest)| json!({"part": part, "digest": hex(digest)})).collect::<Vec<_>>(),
            "window": units::show(arrival.policy.window),
            "attempts_max": arrival.policy.backoff(arrival.mode).attempts_max,
            "after": {
                "unsent": "retried",
                "408, 421, 425, 429": "retried",
                "no answer": retried(true),
                "500, 502, 503, 504, 507, 52x": retried(true),
                "401, 403 and other refusals": "returned, and the same key may run again",
                "other 4xx": "final, and replayed",
            },
            "lookup": arrival.policy.lookup.as_ref().map(|rule| lookup(&arrival, rule)),
            "hours": arrival.policy.hours.as_ref().map(onceward::core::hours::Hours::as_str),
        }))
    }
}

/// What would be asked of the upstream about an operation in doubt.
fn lookup(arrival: &onceward::Arrival, rule: &LookupRule) -> Value {
    let body: Option<Value> = serde_json::from_slice(&arrival.request.body).ok();
    let value = |name: &str| match name {
        // A derived key and the operation's id are known once it is remembered.
        "key" => Some(arrival.key.as_str()),
        "upstream_key" if arrival.policy.upstream_key.value == UpstreamKeyValue::Passthrough => {
            Some(arrival.key.as_str())
        }
        _ => None,
    };
    let asks = rule.get.fill(value, body.as_ref());
    json!({
        "get": rule.get.as_str(),
        "asks": asks.as_ref().ok(),
        "why_not": asks.as_ref().err().map(ToString::to_string),
        "found": rule.found.source(),
        "absent": rule.absent.as_ref().map(Condition::source),
        "settle": units::show(rule.settle),
        "when": rule.when.name(),
    })
}

/// A call in one document.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Document {
    /// A route, with or without a path, or an ad hoc URL.
    to: String,
    #[serde(default = "post")]
    method: String,
    path: Option<String>,
    #[serde(default)]
    headers: std::collections::BTreeMap<String, String>,
    /// Text as it stands; anything else as JSON.
    body: Option<Value>,
    body_base64: Option<String>,
    key: Option<String>,
    /// `held` or `accepted`.
    mode: Option<String>,
    wait: Option<String>,
    label: Option<String>,
    subject: Option<String>,
    sequence: Option<u64>,
    flow_key: Option<String>,
}

impl Document {
    /// The key may stand in the document or in the request's own header.
    pub(crate) fn take_key(&mut self, headers: &HeaderMap) -> Result<(), Problem> {
        if self.key.is_some() {
            return Ok(());
        }
        self.key = key_of(headers)?;
        Ok(())
    }
}

/// A route's name, and the path and query behind it.
fn named(rest: &str) -> (&str, String) {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (route, target) = rest.split_at(end);
    let slash = if target.starts_with('/') { "" } else { "/" };
    (route, format!("{slash}{target}"))
}

/// The key in a request's own header.
pub(crate) fn key_of(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let lines = headers.get_all("idempotency-key").iter().map(HeaderValue::as_bytes);
    let key = onceward::core::key::Key::from_field(lines)
        .map_err(|error| Problem::from(Refusal::KeyInvalid(error)))?;
    Ok(key.map(|key| key.as_str().to_owned()))
}

fn post() -> String {
    "POST".to_owned()
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

/// The body of what passes. A small one is read first, so that it can be sent again where nothing was
/// sent, and so is what a method that only reads brings without saying how much it is; any other goes
/// on as it comes. Over HTTP/2 even a small one may have trailers behind it.
async fn upload(head: &Parts, body: Incoming, bytes_max: usize) -> Result<Upload, Problem> {
    match body.size_hint().exact() {
        Some(0) => Ok(Upload::default()),
        Some(length) if length <= WHOLE_BYTES_MAX && head.version < Version::HTTP_2 => {
            read_body(body, length as usize).await.map(Upload::whole)
        }
        None if is_safe(head.method.as_str()) => {
            read_body(body, bytes_max).await.map(Upload::whole)
        }
        _ => Ok(Upload::streamed(body)),
    }
}

pub(crate) async fn read_body(body: Incoming, bytes_max: usize) -> Result<Bytes, Problem> {
    edge::read_body(body, bytes_max).await.map_err(Problem::from)
}

/// What a request asks of us.
pub(crate) fn options_of(headers: &HeaderMap) -> Result<CallOptions, Problem> {
    let mut options = CallOptions::default();
    for prefer in headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok()) {
        for preference in prefer.split(',').map(str::trim) {
            let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "respond-async" => options.respond_async = true,
                // An unreadable preference is passed over (RFC 7240, section 2).
                "wait" => {
                    options.wait =
                        options.wait.or_else(|| value.trim().parse().ok().map(Duration::from_secs));
                }
                _ => {}
            }
        }
    }
    for (name, value) in headers {
        let Some(option) = name.as_str().strip_prefix("onceward-") else { continue };
        let invalid = |why: String| {
            Problem::new("option-invalid", format!("{name}: {why}; nothing was sent."))
        };
        let value = value.to_str().map_err(|_| invalid("it is not text".to_owned()))?.trim();
        let span = || units::duration(value).map_err(invalid);
        let instant = || {
            value
                .parse::<jiff::Timestamp>()
                .map_err(|_| invalid(format!("{value:?} is no time: write 2026-01-31T12:00:00Z")))
        };
        let micros = |at: jiff::Timestamp| Timestamp::from_micros(at.as_microsecond());
        match option {
            "delay" => options.not_before = Some(shape::now().plus(span()?)),
            "not-before" => options.not_before = Some(micros(instant()?)),
            "deadline" => options.deadline = Some(micros(instant()?)),
            "timeout" => options.timeout = Some(span()?),
            "attempts-max" => {
                let number = value.parse().ok().filter(|number| (1..=100).contains(number));
                options.attempts_max = Some(
                    number
                        .ok_or_else(|| invalid(format!("{value:?} is no number from 1 to 100")))?,
                );
            }
            "label" if value.len() > 200 => {
                return Err(invalid("it is longer than 200 bytes".to_owned()));
            }
            "label" => options.label = Some(value.to_owned()),
            "effects" => {
                let effects = Effects::from_name(value);
                options.effects = Some(effects.ok_or_else(|| {
                    invalid("write idempotent, keyed or non-idempotent".to_owned())
                })?);
            }
            "flow-key" => {
                let is_visible = value.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
                if value.is_empty() || value.len() > 255 || !is_visible {
                    return Err(invalid("write 1 to 255 visible ASCII characters".to_owned()));
                }
                options.flow = Some(value.to_owned());
            }
            "subject" if value.is_empty() || value.len() > 255 => {
                return Err(invalid("write 1 to 255 characters".to_owned()));
            }
            "subject" => options.subject = Some(value.to_owned()),
            "sequence" => {
                let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
                let number = value.parse().ok().filter(|_| is_number);
                options.sequence = Some(
                    number
                        .ok_or_else(|| invalid(format!("{value:?} is no whole number from 0")))?,
                );
            }
            "callback" => options.callback = Some(value.to_owned()),
            // Set by a gateway before us about its own operation.
            "attempt" | "operation" | "authorization" => {}
            _ => return Err(invalid("there is no such option".to_owned())),
        }
    }
    if options.sequence.is_some() && options.subject.is_none() {
        return Err(Problem::new(
            "option-invalid",
            "Onceward-Sequence counts within an Onceward-Subject, and there is none; nothing was sent.",
        ));
    }
    let waits = options.not_before.is_some_and(|at| at > shape::now());
    if waits && !options.respond_async {
        return Err(Problem::new(
            "option-invalid",
            "A call that is held cannot be delayed: send `Prefer: respond-async` with it; nothing was sent.",
        ));
    }
    Ok(options)
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
    headers.get("idempotency-key").cloned()
}

pub(crate) fn respond(
    answer: Answer,
    echo: Option<HeaderValue>,
    key_given: bool,
    store: &Arc<dyn Store>,
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
            let shown = serde_json::to_vec(&shape::operation(&operation, None)).unwrap_or_default();
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
            let in_ledger = operation.outcome.as_ref().and_then(|outcome| outcome.answer);
            let body = match (rest, in_ledger) {
                (Some(rest), _) => Body::stream(kept.body, rest),
                (None, Some(answer)) if Kept::is_worth_it(length) => {
                    Body::Kept(Kept::new(Arc::clone(store), answer, length))
                }
                (None, _) => Body::full(kept.body),
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

/// A response in one document: text where it is text.
pub(crate) fn response_document(status: u16, headers: &Headers, body: &Bytes) -> Value {
    let (body, base64) = match std::str::from_utf8(body) {
        Ok(text) => (Some(text), None),
        Err(_) => (None, Some(STANDARD.encode(body))),
    };
    json!({"status": status, "headers": lines(headers), "body": body, "body_base64": base64})
}

/// Header lines as pairs, in order.
pub(crate) fn lines(headers: &Headers) -> Value {
    headers.0.iter().map(|(name, value)| json!([name, String::from_utf8_lossy(value)])).collect()
}
