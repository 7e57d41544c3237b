//! The service before a handler: what has a key goes by the engine, everything else passes by.

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request};
use onceward_core::exchange;
use onceward_core::key::TENANT;
use onceward_core::policy::{KeyMissing, is_safe};
use tower_service::Service;

use super::Principal;
use super::body::{Body, BoxError};
use super::handler::{Handler, Inside};
use crate::call::{self, Aside, Call, CallOptions};
use crate::edge::{self, Pace, header_map, headers_of};
use crate::engine::{Answer, Answered, Engine};
use crate::problem::Problem;
use crate::refusal::Refusal;
use crate::route::Route;

/// A service that [`OncewardLayer`](super::OncewardLayer) made of another.
#[derive(Clone)]
pub struct OncewardService<S> {
    inner: S,
    shared: Arc<Shared>,
}

struct Shared {
    engine: Arc<Engine>,
    route: Arc<Route>,
    principal: Principal,
}

impl<S: fmt::Debug> fmt::Debug for OncewardService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("OncewardService");
        shown.field("route", &self.shared.route.name).field("inner", &self.inner).finish()
    }
}

impl<S> OncewardService<S> {
    pub(super) fn new(
        inner: S,
        engine: Arc<Engine>,
        route: Arc<Route>,
        principal: Principal,
    ) -> Self {
        Self { inner, shared: Arc::new(Shared { engine, route, principal }) }
    }

    /// The service behind.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S, B, R> Service<Request<B>> for OncewardService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + From<Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<Body<R>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that said that it is ready goes, another one stays.
        let next = self.inner.clone();
        let mut ready = mem::replace(&mut self.inner, next);
        if self.shared.lets_pass(&request) {
            let passing = ready.call(request);
            return Box::pin(async move { Ok(passing.await?.map(Body::new)) });
        }
        let (head, body) = request.into_parts();
        let inside = Inside(Arc::clone(&self.shared.route));
        let handler = Handler::<S, B>::new(ready, head.clone(), inside);
        let handler = call::Handler(Arc::new(handler));
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { Ok(shared.answer(head, body, handler).await) })
    }
}

impl Shared {
    /// Whether it needs no record: it only reads, has no key where none is wanted, or has one.
    fn lets_pass<B>(&self, request: &Request<B>) -> bool {
        let policy = &self.route.policy;
        let has_key = || policy.key_headers.iter().any(|name| request.headers().contains_key(name));
        let is_ours = |inside: &Inside| inside.0.name == self.route.name;
        is_safe(request.method().as_str())
            || *request.method() == Method::CONNECT
            || (policy.key_missing == KeyMissing::Pass && !has_key())
            || request.extensions().get::<Inside>().is_some_and(is_ours)
    }

    async fn answer<B, R>(
        &self,
        head: request::Parts,
        body: B,
        handler: call::Handler,
    ) -> Response<Body<R>>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let echo = head.headers.get("idempotency-key").cloned();
        let key_given =
            self.route.policy.key_headers.iter().any(|name| head.headers.contains_key(name));
        let aside = Arc::new(Aside::default());
        let body = match edge::read_body(body, self.route.body_bytes_max, Pace::default()).await {
            Ok(body) => body,
            Err(problem) => return edge::refuse(&problem, echo, true),
        };
        let options = CallOptions {
            wait: wait_of(&head),
            handler: Some(handler),
            aside: Arc::clone(&aside),
            ..CallOptions::default()
        };
        let call = Call {
            tenant: TENANT.to_owned(),
            principal: (self.principal)(&head),
            route: self.route.name.clone(),
            request: exchange::Request {
                method: head.method.as_str().to_owned(),
                target: head.uri.path_and_query().map_or("/", PathAndQuery::as_str).to_owned(),
                headers: headers_of(&head.headers),
                body,
            },
            options,
        };
        // Whoever stops waits until it is answered.
        let _run = self.engine.begin();
        let mut response = match self.engine.call(call).await {
            Ok(answer) => respond(answer, echo, key_given),
            Err(refusal) => {
                let nothing_known = matches!(refusal, Refusal::KeyInvalid(_));
                let problem = Problem { has_page: false, ..refusal.into() };
                edge::refuse(&problem, echo, key_given || nothing_known)
            }
        };
        edge::tell_aside(response.headers_mut(), &aside);
        response
    }
}

/// `Prefer: wait=N` (RFC 7240); what cannot be read is passed over, and so is `respond-async`: who
/// asks a handler waits for it.
fn wait_of(head: &request::Parts) -> Option<Duration> {
    let lines = head.headers.get_all("prefer").iter().filter_map(|line| line.to_str().ok());
    let mut preferences =
        lines.flat_map(|line| line.split(',')).filter_map(|it| it.split_once('='));
    let wait = preferences.find(|(name, _)| name.trim().eq_ignore_ascii_case("wait"))?;
    wait.1.trim().parse().ok().map(Duration::from_secs)
}

fn respond<R>(answer: Answer, echo: Option<HeaderValue>, key_given: bool) -> Response<Body<R>> {
    let status = |status| StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    match answer {
        Answer::Upstream(answered) => {
            let Answered { operation, response: kept, rest, replayed } = *answered;
            let body = match rest {
                Some(rest) => Body::rest(kept.body, rest),
                None => Body::from(kept.body),
            };
            let mut response = Response::new(body);
            *response.status_mut() = status(kept.status);
            let headers = response.headers_mut();
            *headers = header_map(&kept.headers);
            if replayed {
                headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            }
            edge::tell_of(headers, &operation, echo, key_given, replayed);
            response
        }
        // Whoever shares the ledger made it one that is done while nobody waits.
        Answer::Accepted(operation) => {
            let problem = Problem { has_page: false, ..Refusal::InProgress(operation).into() };
            edge::refuse(&problem, echo, key_given)
        }
        Answer::Passed { status: code, headers, body } => {
            let mut response = Response::new(Body::rest(Bytes::new(), body));
            *response.status_mut() = status(code);
            *response.headers_mut() = header_map(&headers);
            response
        }
    }
}
