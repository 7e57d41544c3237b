//! A gateway in memory, for tests: no server, no disk, the same answers.
//!
//! It has the two scripted upstreams of `onceward serve` (`demo` and `demo-unsafe`, with
//! `?script=503,drop,201`), and whatever routes a test gives it.
//!
//! ```
//! use bytes::Bytes;
//! use http::Response;
//! use onceward_client::testing::{FakeGateway, FakeRoute};
//! use onceward_client::{Call, Onceward};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bank = FakeRoute::new(|_request| Ok(Response::new(Bytes::from_static(b"paid"))));
//! let onceward = Onceward::builder().transport(FakeGateway::new().route("bank", bank)).build()?;
//! let answer = onceward.send(Call::to("bank/payments").key("invoice-7").body("100")).await?;
//! assert_eq!(answer.text(), "paid");
//! # Ok(())
//! # }
//! ```
//!
//! It has no time: pauses between attempts are none, accepted calls are made before their 202 is back,
//! leases end where a test says so, and windows never do.

mod claims;
mod demo;
mod operation;
mod sign;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use form_urlencoded::parse;
use http::{HeaderMap, Method, Request, Response};
use serde_json::{Value, json};

use crate::call::KEY;
use crate::keys::{is_safe, new_key, read_key};
use crate::shapes::Effects;
use crate::transport::{Answering, Transport, TransportError};
use claims::Claims;
use operation::{ACCEPTED_MAX, HELD_MAX, Operation, Parts, Phase};

pub use sign::sign_webhook;

/// Why an upstream of a test gives no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FakeFault {
    /// It was not reached: provably nothing was sent.
    Unsent,
    /// It may have been executed, and no answer came.
    Unanswered,
}

/// What an upstream does.
type Upstream = dyn Fn(&Request<Bytes>) -> Result<Response<Bytes>, FakeFault> + Send + Sync;

/// A route of the double.
#[derive(Clone)]
#[must_use = "it goes nowhere before a gateway has it"]
pub struct FakeRoute {
    upstream: Arc<Upstream>,
    effects: Option<Effects>,
}

impl fmt::Debug for FakeRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeRoute").field("effects", &self.effects).finish_non_exhaustive()
    }
}

impl FakeRoute {
    /// To an upstream that answers so.
    pub fn new(
        upstream: impl Fn(&Request<Bytes>) -> Result<Response<Bytes>, FakeFault> + Send + Sync + 'static,
    ) -> Self {
        Self { upstream: Arc::new(upstream), effects: None }
    }

    /// What a second arrival would do; by the method where nothing is said.
    pub fn effects(mut self, effects: Effects) -> Self {
        self.effects = Some(effects);
        self
    }

    fn effects_of(&self, method: &Method) -> Effects {
        let by_method = || match *method {
            Method::PUT | Method::DELETE => Effects::Idempotent,
            _ => Effects::NonIdempotent,
        };
        self.effects.clone().unwrap_or_else(by_method)
    }
}

/// A gateway in memory: what a client is given as its transport. Its clones are one gateway.
#[derive(Debug, Clone)]
#[must_use = "nobody asks it before a client has it"]
pub struct FakeGateway {
    memory: Arc<Mutex<Memory>>,
}

#[derive(Debug, Default)]
struct Memory {
    routes: HashMap<String, FakeRoute>,
    operations: HashMap<String, Operation>,
    by_key: HashMap<(String, String), String>,
    claims: Claims,
    made: u64,
}

impl FakeGateway {
    /// One that has `demo`, which dedupes by the key, and `demo-unsafe`, which does not.
    pub fn new() -> Self {
        let demo = FakeRoute::new(demo::scripted(true)).effects(Effects::Keyed);
        let unsafe_one = FakeRoute::new(demo::scripted(false)).effects(Effects::NonIdempotent);
        Self { memory: Arc::default() }.route("demo", demo).route("demo-unsafe", unsafe_one)
    }

    /// With one more route.
    pub fn route(self, name: impl Into<String>, route: FakeRoute) -> Self {
        self.memory().routes.insert(name.into(), route);
        self
    }

    /// Says that an operation in doubt was done, as a person does, and what is answered from then on.
    ///
    /// # Panics
    ///
    /// Where it is not in doubt.
    pub fn resolve_done(&self, operation: &str, answer: Response<Bytes>) {
        self.memory().in_doubt(operation).end(Phase::Done, Some(answer));
    }

    /// Says that an operation in doubt was not sent: its key may run.
    ///
    /// # Panics
    ///
    /// Where it is not in doubt.
    pub fn resolve_not_sent(&self, operation: &str) {
        self.memory().in_doubt(operation).end(Phase::Dead, None);
    }

    /// Ends the lease of a claim, as time does.
    ///
    /// # Panics
    ///
    /// Where it is in nobody's hand.
    pub fn lapse(&self, scope: &str, key: &str) {
        let is_lapsed = self.memory().claims.lapse(scope, key);
        assert!(is_lapsed, "{key} is in nobody's hand");
    }

    /// A test that failed within an upstream has said so already.
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for FakeGateway {
    fn default() -> Self {
        Self::new()
    }
}

impl Transport for FakeGateway {
    fn call(&self, request: Request<Bytes>) -> Answering<'_> {
        let answer = self.memory().handle(&request);
        Box::pin(std::future::ready(Ok::<_, TransportError>(answer)))
    }
}

impl Memory {
    fn handle(&mut self, request: &Request<Bytes>) -> Response<Bytes> {
        let path = request.uri().path();
        if let Some(target) = path.strip_prefix("/to/") {
            return self.call(request, target);
        }
        let parts: Vec<_> = path.split('/').skip(2).map(decoded).collect();
        match parts.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["operations", id] => self.tell(id, false),
            ["operations", id, "response"] => self.tell(id, true),
            ["claims", scope, key] => self.claims.get(scope, key),
            ["claims", scope, key, verb] => {
                let words = serde_json::from_slice(request.body()).unwrap_or_default();
                self.made += 1;
                self.claims.said(scope, key, verb, &words, self.made)
            }
            _ => nothing_there("It is not in the double."),
        }
    }

    fn call(&mut self, request: &Request<Bytes>, target: &str) -> Response<Bytes> {
        let (name, rest) = target.split_once('/').unwrap_or((target, ""));
        let Some(route) = self.routes.get(name).cloned() else {
            let detail = format!("No route is called {name:?}.");
            return refuse("route-unknown", 404, "fix-request", "There is no such route", &detail);
        };
        let field = request.headers().get(KEY);
        let query = request.uri().query();
        let mut asked = upstream_request(request, name, rest, query);
        if is_safe(request.method()) && field.is_none() {
            // What passes without a record is answered as it is, or not at all.
            return (route.upstream)(&asked).unwrap_or_else(|_| plain(502));
        }
        let read = field.map(|field| field.to_str().ok().and_then(read_key));
        let key = match read {
            None => new_key(),
            Some(Some(key)) => key,
            Some(None) => {
                let title = "The idempotency key cannot be read";
                return refuse("key-invalid", 400, "fix-request", title, "Nothing was sent.");
            }
        };
        let said = |name| header(request.headers(), name);
        let prefer = said("prefer");
        let is_accepted = prefer.contains("respond-async");
        let parts = Parts {
            method: request.method().to_string(),
            path: rest.to_owned(),
            query: query.unwrap_or_default().to_owned(),
            content_type: said("content-type").to_owned(),
            body: request.body().clone(),
        };
        let place = (name.to_owned(), key.clone());
        let known = self.by_key.get(&place).cloned();
        if let Some(operation) = known.as_ref().and_then(|id| self.operations.get(id)) {
            let differs = operation.parts.differing(&parts);
            if !differs.is_empty() {
                return mismatch(&operation.id, &differs);
            }
        }
        let id = known.clone().unwrap_or_else(|| {
            self.made += 1;
            let id = format!("op_{:026}", self.made);
            if let Ok(value) = key.parse() {
                asked.headers_mut().insert(KEY, value);
            }
            let effects = route.effects_of(request.method());
            let operation = Operation::new(&id, (name, &key), parts, asked, effects, is_accepted);
            self.operations.insert(id.clone(), operation);
            self.by_key.insert(place, id.clone());
            id
        });
        let Some(operation) = self.operations.get_mut(&id) else {
            return nothing_there("It is not in the double.");
        };
        let may_run = operation.may_run();
        let mut answer = None;
        if may_run {
            // Whoever does not wait is answered as if it were still to be made.
            let is_left = is_accepted && !prefer.contains("wait=");
            answer = is_left.then(|| operation.answer(true, false));
            let attempts_max = if is_accepted { ACCEPTED_MAX } else { HELD_MAX };
            operation.deliver(&*route.upstream, attempts_max);
        }
        let is_replay = known.is_some() && !may_run;
        let mut answer = answer.unwrap_or_else(|| operation.answer(is_accepted, is_replay));
        if field.is_none() {
            set(&mut answer, "onceward-key-made", "true");
        }
        answer
    }

    fn tell(&self, id: &str, of_answer: bool) -> Response<Bytes> {
        let Some(operation) = self.operations.get(id) else {
            return nothing_there(&format!("No operation {id} is in the ledger."));
        };
        if !of_answer {
            return said(200, &operation.story());
        }
        match operation.kept() {
            Some(kept) => said(200, &operation::shown(kept)),
            None => {
                refuse("no-outcome", 404, "wait", "There is no answer to show", "It has none yet.")
            }
        }
    }

    fn in_doubt(&mut self, operation: &str) -> &mut Operation {
        let found = self.operations.get_mut(operation);
        found
            .filter(|it| it.phase == Phase::InDoubt)
            .unwrap_or_else(|| panic!("{operation} is not in doubt"))
    }
}

/// The request as the upstream gets it: without what is said to the gateway alone.
fn upstream_request(
    request: &Request<Bytes>,
    name: &str,
    rest: &str,
    query: Option<&str>,
) -> Request<Bytes> {
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let mut asked = Request::new(request.body().clone());
    *asked.method_mut() = request.method().clone();
    if let Ok(url) = format!("http://{name}/{rest}{query}").parse() {
        *asked.uri_mut() = url;
    }
    let is_theirs = |name: &str| !name.starts_with("onceward-");
    let lines = request.headers().iter().filter(|(name, _)| is_theirs(name.as_str()));
    asked.headers_mut().extend(lines.map(|(name, value)| (name.clone(), value.clone())));
    asked
}

fn decoded(part: &str) -> String {
    // What stands in a path is no form: a plus is one there.
    let part = part.replace('+', "%2B");
    parse(part.as_bytes()).next().map(|(name, _)| name.into_owned()).unwrap_or_default()
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn set(answer: &mut Response<Bytes>, name: &'static str, value: &str) {
    if let Ok(value) = value.parse() {
        answer.headers_mut().insert(name, value);
    }
}

fn plain(status: u16) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::new());
    *answer.status_mut() = status.try_into().unwrap_or_default();
    answer
}

/// A document, as an answer.
fn said(status: u16, document: &Value) -> Response<Bytes> {
    let mut answer = plain(status);
    *answer.body_mut() = document.to_string().into();
    set(&mut answer, "content-type", "application/json");
    answer
}

fn refuse(code: &str, status: u16, advice: &str, title: &str, detail: &str) -> Response<Bytes> {
    refuse_with(code, status, advice, title, detail, json!({}))
}

/// A problem as an answer, with more members.
fn refuse_with(
    code: &str,
    status: u16,
    advice: &str,
    title: &str,
    detail: &str,
    mut more: Value,
) -> Response<Bytes> {
    more["type"] = format!("urn:onceward:problem:{code}").into();
    for (name, word) in [("code", code), ("advice", advice), ("title", title), ("detail", detail)] {
        more[name] = word.into();
    }
    more["status"] = status.into();
    let mut answer = said(status, &more);
    set(&mut answer, "content-type", "application/problem+json");
    set(&mut answer, "onceward-advice", advice);
    answer
}

fn nothing_there(detail: &str) -> Response<Bytes> {
    refuse("not-found", 404, "fix-request", "There is no such thing", detail)
}

const MISMATCH: &str = "The key was used for another request";

fn mismatch(operation: &str, differs: &[&str]) -> Response<Bytes> {
    let parts = differs.join(", ");
    let detail = format!("It differs in: {parts}. Nothing was sent; a new intent needs a new key.");
    let more = json!({ "differs": differs, "paths": [], "operation": operation });
    refuse_with("key-mismatch", 409, "new-key", MISMATCH, &detail, more)
}
