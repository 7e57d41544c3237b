//! The main listener: which part of the house a request is for, and who may ask that.

use std::future::{self, Future};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use onceward::edge::Paced;
use tower_service::Service as _;

use crate::access::{self, Arrival, Caller, Page};
use crate::body::Body;
use crate::contract;
use crate::gateway::Answering;
use crate::guard;
use crate::listening::Peer;
use crate::node::Node;
use crate::problem::{self, Problem};
use crate::telemetry::{Telemetry, traces};
use crate::{head, operator, page, source};

/// What answers the requests of one connection to the main listener.
pub(crate) struct Front {
    pub(crate) node: Arc<Node>,
    pub(crate) pages: axum::Router,
    pub(crate) peer: Peer,
}

/// Answers one request, whatever it is for; a refusal in the shape that its callers read.
pub(crate) fn answer(
    front: &Arc<Front>,
    mut request: Request<Incoming>,
) -> impl Future<Output = Response<Body>> + Send + use<> {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let version = request.version();
    let front = Arc::clone(front);
    let mut arriving = None;
    let answering = match front.node.guards.of_host(&request) {
        None => {
            arriving = traces::arrive(&mut request, &front.peer, None);
            answer_plainly(&front, request)
        }
        Some(guard) => guard::answer(&front.node, guard, request, &front.peer),
    };
    async move {
        let mut response = answering.await;
        problem::dress(&mut response, |problem| {
            let gateway = &front.node.gateway;
            // A route that is there, and not for this key, is told as one that is not.
            match problem.code {
                "route-unknown" => gateway.error_shape_of_unknown(),
                _ => gateway.error_shape(&method, &uri),
            }
        });
        front.node.part(&mut response, version);
        if let Some(arriving) = arriving {
            arriving.answered(&response);
        }
        response
    }
}

fn answer_plainly(front: &Arc<Front>, request: Request<Incoming>) -> Answering {
    let node = &front.node;
    if let Some(refusal) = head::refuse(&request) {
        return at_once(refusal);
    }
    let path = request.uri().path();
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if !reads && matches!(path, "/healthz" | "/readyz" | "/metrics") {
        return at_once(not_allowed());
    }
    match path {
        "/healthz" => return at_once(plain(200, "ok\n")),
        "/readyz" if node.is_draining() => return at_once(plain(503, "draining\n")),
        "/readyz" if node.is_quarantined() => return at_once(plain(503, "quarantine\n")),
        "/readyz" => {
            let node = Arc::clone(node);
            return Box::pin(async move { ready(&node).await });
        }
        // Who sends it is shown by its signature, and not by a key or a session of ours.
        _ if path.starts_with("/in/") => {
            let node = Arc::clone(node);
            return Box::pin(async move { source::receive(&node, request).await });
        }
        _ => {}
    }
    match Page::of(&node.access, &request) {
        Some(page) => of_page(front, request, page),
        None => admitted(front, request).unwrap_or_else(|refused| refused.answer()),
    }
}

/// Answers a page whose origin some access key names, so that a browser lets it read that.
fn of_page(front: &Arc<Front>, request: Request<Incoming>, page: Page) -> Answering {
    if let Some(response) = page.preflight(request.headers()) {
        return at_once(response);
    }
    let answering = match admitted(front, request) {
        Ok(answering) => answering,
        // A key that is for other pages, or for none: this one reads nothing.
        Err(refused) if refused.problem.code == "forbidden" => return refused.answer(),
        Err(refused) => refused.answer(),
    };
    Box::pin(async move {
        let mut response = answering.await;
        page.tell(response.headers_mut());
        response
    })
}

/// Who is not admitted.
struct Refused {
    problem: Problem,
    head: http::request::Parts,
}

impl Refused {
    fn answer(self: Box<Self>) -> Answering {
        at_once(page::refused(&self.head, &self.problem))
    }
}

/// Answers whoever may ask.
fn admitted(front: &Arc<Front>, request: Request<Incoming>) -> Result<Answering, Box<Refused>> {
    let (mut head, body) = request.into_parts();
    let looks = access::looks(&head);
    let (caller, arrival) = match front.node.access.admit(&mut head, &front.peer, looks) {
        Ok(admitted) => admitted,
        Err(problem) => return Err(Box::new(Refused { problem, head })),
    };
    match contract::held(&head.headers, caller.contract.as_deref()) {
        Ok(None) => Ok(part_of(front, head, body, caller, arrival)),
        Ok(Some(version)) => {
            let answering = part_of(front, head, body, caller, arrival);
            Ok(Box::pin(async move {
                let mut response = answering.await;
                contract::tell(&mut response, version);
                response
            }))
        }
        Err(problem) => Ok(at_once(problem.response())),
    }
}

/// What a request is for, once its caller is known.
fn part_of(
    front: &Arc<Front>,
    mut head: http::request::Parts,
    body: Incoming,
    caller: Caller,
    arrival: Arrival,
) -> Answering {
    let node = &front.node;
    let is_call = is_call(head.uri.path());
    let is_metrics = head.uri.path() == "/metrics";
    // What is routed is looked at by `authorise`.
    let endpoint =
        if is_call { Some(&access::CALL) } else { is_metrics.then_some(&access::METRICS) };
    if let Some(Err(problem)) = endpoint.map(|endpoint| endpoint.admit(&caller)) {
        return at_once(problem.response());
    }
    if is_metrics {
        let node = Arc::clone(node);
        let accepts = head.headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
        let is_open = accepts.is_some_and(|it| it.contains("application/openmetrics-text"));
        return Box::pin(async move { metrics(&node, is_open).await });
    }
    let path = head.uri.path();
    let asks = path == "/v1/operations" || path.ends_with("/lookup");
    let sends = is_call || (head.method == Method::POST && asks);
    if sends && node.is_quarantined() {
        let why = "Nothing was sent; `onceward restore --release` lets it send.";
        return at_once(Problem::new("quarantine", why).response());
    }
    if is_call {
        return node.gateway.handle(head, body, caller);
    }
    // Over HTTP/2 it stands in the URI, and pages tell of it.
    if let (false, Some(authority)) = (head.headers.contains_key(HOST), head.uri.authority())
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        head.headers.insert(HOST, host);
    }
    head.extensions.insert(caller);
    head.extensions.insert(arrival);
    let body = Paced::new(body, node.gateway.pace);
    let mut pages = front.pages.clone();
    Box::pin(async move {
        match pages.call(Request::from_parts(head, body)).await {
            Ok(response) => operator::from_axum(response),
            Err(never) => match never {},
        }
    })
}

/// Probes and metrics are read.
fn not_allowed() -> Response<Body> {
    let mut response = Problem::new("method-not-allowed", "It is read: GET or HEAD.").response();
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET,HEAD"));
    response
}

fn is_call(path: &str) -> bool {
    path.starts_with("/to/") || path == "/to"
}

fn at_once(response: Response<Body>) -> Answering {
    Box::pin(future::ready(response))
}

async fn metrics(node: &Node, is_open: bool) -> Response<Body> {
    if let Err(error) = node.gauge().await {
        return Problem::from(error).response();
    }
    let (content_type, text) = Telemetry::render(is_open);
    let mut response = plain(200, &text);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

async fn ready(node: &Node) -> Response<Body> {
    // A durable write is what readiness means.
    match node.engine.store().set("ready".to_owned(), Some(Bytes::from_static(b"1"))).await {
        Ok(()) => plain(200, "ready\n"),
        Err(error) => Problem::from(error).response(),
    }
}

pub(crate) fn plain(status: u16, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::full(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
