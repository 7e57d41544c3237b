//! The inbound edge: a provider's webhook on `/in/{source}` is verified before anything else, becomes an
//! accepted call under the provider's own id, and is answered as soon as it is on disk.
//!
//! A provider has no use for a refusal that will never change: what was received before, in whatever
//! shape, is answered as done. Only what cannot be taken now is refused, so that it comes again.

pub(crate) mod rejects;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use onceward::core::condition::{self, Condition};
use onceward::core::event::{EventType, TypePattern};
use onceward::core::exchange::{self, Headers};
use onceward::core::hex;
use onceward::core::key::Key;
use onceward::core::operation::Operation;
use onceward::secret::{is_same, sha256};
use onceward::webhook::{Delivery, Document, Place, Scheme, Verified, Verifier};
use onceward::{Answer as Answered, Aside, Call, CallOptions, Named, Refusal, Says, Testimony};
use serde_json::{Value, json};
use url::form_urlencoded;

use self::rejects::{Buckets, Reason, Refused};
use crate::access::TENANT;
use crate::body::{Body, headers_of};
use crate::gateway::{check_sendable, is_of_a_caller, next_hop, read_body};
use crate::node::Node;
use crate::problem::Problem;
use crate::telemetry::traces::{self, Traced};
use crate::telemetry::webhooks;
use crate::{shape, units};

/// How much is kept of a webhook that is evidence.
const EVIDENCE_BYTES_MAX: usize = 500;

/// The longest value that a handshake sends back.
const ECHO_BYTES_MAX: usize = 1024;

/// The longest label.
const LABEL_BYTES_MAX: usize = 200;

/// The longest subject.
const SUBJECT_BYTES_MAX: usize = 255;

/// A configured place for the webhooks of one provider.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) name: String,
    /// Whose its webhooks are.
    pub(crate) tenant: String,
    pub(crate) verifier: Verifier,
    /// Where its webhooks go; nowhere, where it only resolves.
    pub(crate) route: Option<String>,
    /// The path and query there.
    pub(crate) target: String,
    /// Within what their ids are unique.
    pub(crate) scope: String,
    pub(crate) ids: Ids,
    pub(crate) subject: Option<Place>,
    pub(crate) sequence: Option<Place>,
    /// Which its provider's events are delivered; all where there is none.
    pub(crate) types: Vec<TypePattern>,
    pub(crate) methods: Vec<Method>,
    /// The URL that the provider calls, where that is not what we see.
    pub(crate) url: Option<String>,
    pub(crate) body_bytes_max: usize,
    pub(crate) handshake: Option<Handshake>,
    pub(crate) rejects_max: usize,
    pub(crate) resolve: Option<Resolve>,
    pub(crate) answer: Answer,
}

/// Where webhooks have their id: places to try, the parts of each together; none where equal content
/// is one webhook.
#[derive(Debug)]
pub(crate) struct Ids {
    pub(crate) places: Vec<Vec<Place>>,
}

/// How a provider asks whether it may send here: by a value in the query that it wants back.
pub(crate) struct Handshake {
    pub(crate) echo: String,
    /// The parameter and value that show who asks.
    pub(crate) token: Option<(String, String)>,
}

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshake").field("echo", &self.echo).finish_non_exhaustive()
    }
}

/// Which operations in doubt its webhooks are evidence for.
#[derive(Debug)]
pub(crate) struct Resolve {
    pub(crate) route: String,
    pub(crate) named: Place,
    /// The name of an id that an answer gave; else it is a key.
    pub(crate) made: Option<String>,
    pub(crate) found: Option<Condition>,
    pub(crate) failed: Option<Condition>,
    pub(crate) absent: Option<Condition>,
    pub(crate) status: Option<u16>,
}

/// What a provider is answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
    pub(crate) content_type: HeaderValue,
}

impl Default for Answer {
    fn default() -> Self {
        let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
        Self { status: 200, body: Bytes::new(), content_type }
    }
}

/// The sources of this moment.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    named: RwLock<Arc<BTreeMap<String, Arc<Source>>>>,
    pub(crate) buckets: Mutex<Buckets>,
}

impl Sources {
    pub(crate) fn new(named: BTreeMap<String, Arc<Source>>) -> Self {
        Self { named: RwLock::new(Arc::new(named)), buckets: Mutex::default() }
    }

    /// All of them, by name.
    pub(crate) fn all(&self) -> Arc<BTreeMap<String, Arc<Source>>> {
        Arc::clone(&self.named.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes them: webhooks from now on meet the new ones.
    pub(crate) fn set(&self, named: BTreeMap<String, Arc<Source>>) {
        *self.named.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(named);
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Source>> {
        self.all().get(name).cloned()
    }
}

/// A webhook that was read.
struct Webhook {
    method: Method,
    uri: Uri,
    /// The URL that the provider called.
    url: String,
    headers: Headers,
    body: Bytes,
    /// Where it is told what became of it.
    traced: Option<Traced>,
}

impl Webhook {
    fn delivery(&self) -> Delivery<'_> {
        Delivery { url: &self.url, headers: &self.headers, body: &self.body }
    }
}

/// What tells a webhook from others.
struct Identity {
    key: Key,
    /// Whether its provider signed that.
    is_signed: bool,
    /// The digest of what was signed.
    signed: Option<[u8; 32]>,
}

/// What became of a webhook that was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    /// It is in the ledger, and new.
    Accepted,
    /// It was received before.
    Duplicate,
    /// What was signed was received before, under another id that nobody signed.
    SuspectedReplay,
    /// Its id was received before, with other content.
    Mismatch,
    /// It was received longer ago than ids are remembered.
    Expired,
    /// It goes nowhere: it is evidence.
    Heard,
    /// It only asked whether it may be sent.
    Handshake,
    /// It is of a type that is not delivered.
    Unwanted,
}

impl Came {
    /// The word for it in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::SuspectedReplay => "suspected_replay",
            Self::Mismatch => "mismatch",
            Self::Expired => "expired",
            Self::Heard => "heard",
            Self::Handshake => "handshake",
            Self::Unwanted => "unwanted",
        }
    }
}

/// Answers `/in/{source}`.
pub(crate) async fn receive(node: &Arc<Node>, request: Request<Incoming>) -> Response<Body> {
    let name = request.uri().path().strip_prefix("/in/").unwrap_or_default();
    let Some(source) = node.sources.get(name.strip_suffix('/').unwrap_or(name)) else {
        let why = "No source has this name; add [sources.NAME] to the configuration.";
        return Problem::new("source-unknown", why).response();
    };
    if let Some(traced) = request.extensions().get::<Traced>() {
        traced.came_to(&source.name);
    }
    let refused = match take(node, &source, request).await {
        Ok(response) => return response,
        Err(refused) => refused,
    };
    let Refused { mut problem, code, why, webhook } = *refused;
    if problem.code == "limit" || (problem.status >= 500 && problem.code != "loop") {
        // Whatever it is for others, a provider is to come again.
        problem.status = 503;
        webhooks::unavailable(&source.name, problem.code);
    } else {
        let reason = Reason { code, why: &why, status: problem.status };
        let is_kept = rejects::keep(node, &source, &reason, webhook).await;
        webhooks::rejected(&source.name, code, &why, is_kept);
    }
    problem.response()
}

type Taken = Result<Response<Body>, Box<Refused>>;

async fn take(node: &Arc<Node>, source: &Source, request: Request<Incoming>) -> Taken {
    let (head, body) = request.into_parts();
    let refuse = |problem: Problem, code| Refused::before(problem, code);
    if let Some(echo) = source.handshake.as_ref().and_then(|it| it.wants(&head.uri)) {
        return match echo {
            Ok(echo) => {
                webhooks::received(&source.name, Came::Handshake);
                Ok(text(echo))
            }
            Err(why) => Err(refuse(Problem::new("webhook-rejected", why), "handshake")),
        };
    }
    if !source.methods.contains(&head.method) {
        let methods: Vec<_> = source.methods.iter().map(Method::as_str).collect();
        let methods = methods.join(", ");
        let why = format!("This source takes {methods}.");
        let mut response = Problem::new("method-not-allowed", why).response();
        if let Ok(methods) = HeaderValue::from_str(&methods) {
            response.headers_mut().insert(header::ALLOW, methods);
        }
        return Ok(response);
    }
    if node.is_quarantined() {
        let why = "The ledger was restored, and takes nothing until it is released.";
        return Err(refuse(Problem::new("quarantine", why), "quarantine"));
    }
    // Nothing shows who sent it, and a page of the web's could have made a browser do so.
    let is_browser =
        head.headers.contains_key(header::ORIGIN) || head.headers.contains_key("sec-fetch-site");
    if *source.verifier.scheme() == Scheme::None && is_browser {
        let why = "It comes from a browser, and nothing is signed.";
        return Err(refuse(Problem::new("webhook-rejected", why), "from_a_browser"));
    }
    let headers = headers_of(&head.headers);
    let url = url_of(source, &head.uri, &headers);
    let traced = head.extensions.get().cloned();
    let mut webhook =
        Webhook { method: head.method, uri: head.uri, url, headers, body: Bytes::new(), traced };
    webhook.body = match read_body(body, source.body_bytes_max, node.gateway.pace).await {
        Ok(body) => body,
        Err(problem) => return Err(Refused::of(problem, "body", webhook)),
    };
    match source.verifier.verify(webhook.delivery(), shape::now()) {
        Ok(verified) => Box::pin(remember(node, source, webhook, &verified)).await,
        Err(rejection) => {
            let detail = format!("{rejection}; nothing was taken.");
            let problem = Problem::new("webhook-rejected", detail);
            Err(Refused::why(problem, rejection.code(), rejection.to_string(), webhook))
        }
    }
}

/// What the provider called, as far as can be known.
fn url_of(source: &Source, uri: &Uri, headers: &Headers) -> String {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    match &source.url {
        Some(url) => format!("{url}{query}"),
        // Providers that sign a URL send over https; a proxy before us may have taken that off.
        None => {
            format!("https://{}{}{query}", headers.text("host").unwrap_or_default(), uri.path())
        }
    }
}

/// A webhook that was verified.
async fn remember(
    node: &Arc<Node>,
    source: &Source,
    webhook: Webhook,
    verified: &Verified,
) -> Taken {
    let document = Document::new(webhook.delivery());
    if let Some(challenge) = source.challenge(&document) {
        webhooks::received(&source.name, Came::Handshake);
        return Ok(text(challenge));
    }
    let identity = source.identify(&document, verified, &webhook.body);
    let testimony = source.testimony(node, &document, &webhook);
    let mut operation = None;
    let is_wanted = source.wants(&document);
    let mut came = if is_wanted { Came::Heard } else { Came::Unwanted };
    if let Some(route) = source.route.as_ref().filter(|_| is_wanted) {
        let call = source.call(node, route, &webhook, &document, &identity);
        let call = match call {
            Ok(mut call) => {
                traces::watch(webhook.traced.as_ref(), &mut call.options);
                call
            }
            Err(problem) => {
                drop(document);
                return Err(Refused::of(problem, "request", webhook));
            }
        };
        let aside = Arc::clone(&call.options.aside);
        let answer = Box::pin(node.engine.call(call)).await;
        // Where its caller's attempts are over nobody would make another, and its provider would not
        // send it again.
        if let Ok(Answered::Accepted(known)) = &answer
            && is_of_a_caller(known)
        {
            let why = "A caller has it under way; send it again, and be told what came of it.";
            let mut problem = Problem::new("in-progress", why);
            problem.status = 503;
            drop(document);
            return Err(Refused::of(problem, "under_way", webhook));
        }
        (came, operation) = match came_of(answer, &aside, identity.is_signed) {
            Ok(came) => came,
            Err(refusal) => {
                drop(document);
                return Err(Refused::of(Problem::from(refusal), "refused_by_route", webhook));
            }
        };
    }
    // Evidence again where it comes again: the first time it may not have been heard.
    if let Some(testimony) = testimony {
        match node.engine.testify(&testimony).await {
            Ok(heard) => webhooks::heard(&source.name, &testimony, &heard),
            Err(error) => {
                drop(document);
                return Err(Refused::of(Problem::from(error), "ledger", webhook));
            }
        }
    }
    drop(document);
    webhooks::received(&source.name, came);
    note(node, source, came, operation.as_ref(), webhook).await;
    Ok(source.answer(operation.as_ref(), came))
}

/// What was acknowledged and not delivered is kept too, for whoever looks for it.
async fn note(
    node: &Arc<Node>,
    source: &Source,
    came: Came,
    operation: Option<&Operation>,
    webhook: Webhook,
) {
    let why = match came {
        Came::Mismatch => "its id was received before, with other content: that was delivered",
        Came::SuspectedReplay => {
            "what was signed was received before, under another id that nobody signed"
        }
        Came::Accepted
        | Came::Duplicate
        | Came::Expired
        | Came::Heard
        | Came::Handshake
        | Came::Unwanted => return,
    };
    let why = match operation {
        Some(operation) => format!("{why} ({})", operation.id),
        None => why.to_owned(),
    };
    let reason = Reason { code: came.name(), why: &why, status: source.answer.status };
    let is_kept = rejects::keep(node, source, &reason, Some(webhook)).await;
    webhooks::set_aside(&source.name, came, operation, is_kept);
}

/// What the engine's answer means to a provider.
fn came_of(
    answer: Result<Answered, Refusal>,
    aside: &Aside,
    is_signed: bool,
) -> Result<(Came, Option<Operation>), Refusal> {
    let again = || match aside.duplicate_of.get() {
        Some(_) if !is_signed => Came::SuspectedReplay,
        _ => Came::Duplicate,
    };
    let known = |new: Came| if aside.repeat.get().is_some() { again() } else { new };
    match answer {
        Ok(Answered::Accepted(operation)) => Ok((known(Came::Accepted), Some(*operation))),
        Ok(Answered::Upstream(answered)) => Ok((known(Came::Accepted), Some(answered.operation))),
        // No method of a source only reads.
        Ok(Answered::Passed { .. }) => Ok((Came::Accepted, None)),
        Err(Refusal::KeyMismatch { operation, .. }) => Ok((Came::Mismatch, Some(*operation))),
        Err(Refusal::KeyExpired(operation) | Refusal::KeyInvalidated(operation)) => {
            Ok((Came::Expired, Some(*operation)))
        }
        Err(
            Refusal::InProgress(operation)
            | Refusal::OutcomeUnknown { operation, .. }
            | Refusal::Cancelled(operation)
            | Refusal::ResponseNotRetained(operation)
            | Refusal::UpstreamUnreachable(operation)
            | Refusal::NoAnswer(operation)
            | Refusal::StillWorking(operation),
        ) => Ok((again(), Some(*operation))),
        Err(Refusal::KeyTooOld(_)) => Ok((Came::Expired, None)),
        Err(refusal) => Err(refusal),
    }
}

impl Source {
    /// What tells a webhook from others.
    fn identify(&self, document: &Document<'_>, verified: &Verified, body: &[u8]) -> Identity {
        let signed = verified.signed;
        let parts = |places: &Vec<Place>| {
            let parts: Option<Vec<String>> = places.iter().map(|at| document.at(at)).collect();
            parts.map(|parts| parts.join(":"))
        };
        // Whoever saw a webhook can leave out an id that nobody signed: then it is told by another
        // place, or by its content, and is the same webhook all the same.
        let mut is_signed = true;
        let found = self.ids.places.iter().find_map(|places| {
            is_signed &= places.iter().all(|at| self.covers(at));
            parts(places)
        });
        let content =
            || format!("content-{}", hex::encode(&signed.unwrap_or_else(|| sha256(body))));
        let text = found.unwrap_or_else(content);
        // An id that cannot be a key as it stands is one by its digest.
        let digest = || Key::new(&format!("sha256-{}", hex::encode(&sha256(text.as_bytes()))));
        let key = Key::new(&text).or_else(|_| digest());
        Identity { key: key.unwrap_or_else(|_| std::process::abort()), is_signed, signed }
    }

    fn covers(&self, place: &Place) -> bool {
        self.verifier.scheme().covers(place)
    }

    /// What Slack asks before it sends anything.
    fn challenge(&self, document: &Document<'_>) -> Option<String> {
        let json = document.json().filter(|_| *self.verifier.scheme() == Scheme::Slack)?;
        let challenge = json["challenge"].as_str().filter(|it| it.len() <= ECHO_BYTES_MAX)?;
        (json["type"] == "url_verification").then(|| challenge.to_owned())
    }

    fn call(
        &self,
        node: &Node,
        route: &str,
        webhook: &Webhook,
        document: &Document<'_>,
        identity: &Identity,
    ) -> Result<Call, Problem> {
        let Identity { key, is_signed, signed } = identity;
        let target = match webhook.uri.query() {
            None => self.target.clone(),
            Some(query) if self.target.contains('?') => format!("{}&{query}", self.target),
            Some(query) => format!("{}?{query}", self.target),
        };
        check_sendable(&webhook.method, &target)?;
        let is_sent_on = webhook.headers.get("onceward-attempt").is_some();
        let hop = next_hop(webhook.headers.text("onceward-hop"), is_sent_on)?;
        let found = node.engine.route(route);
        let policy = found.as_ref().map(|it| it.policy_for(webhook.method.as_str(), &target));
        let window = policy.map_or(Duration::ZERO, |policy| policy.window);
        // Whoever saw a webhook could send it again under another id, where nobody signed that.
        let digest = signed.filter(|_| !is_signed);
        let identity = digest.map(|digest| (format!("signed/{}", hex::encode(&digest)), window));
        let mut headers = webhook.headers.clone();
        headers.0.retain(|(name, _)| !name.starts_with("onceward-"));
        if headers.get("webhook-id").is_none() {
            headers.set("webhook-id", key.to_field());
        }
        let subject = self.subject.as_ref().and_then(|at| document.at(at));
        let subject = subject.map(|subject| short_subject(&subject));
        let sequence = self.sequence.as_ref().and_then(|at| sequence_of(&document.at(at)?));
        let hop = hop.map(|hop| (HeaderName::from_static("onceward-hop"), hop));
        let options = CallOptions {
            headers: hop.into_iter().collect(),
            respond_async: true,
            key: Some(key.as_str().to_owned()),
            via: Some(self.via()),
            scope: Some(self.scope.clone()),
            sequence: sequence.filter(|_| subject.is_some()),
            subject,
            label: self.label(document),
            identity,
            ..CallOptions::default()
        };
        Ok(Call {
            tenant: self.tenant.clone(),
            principal: String::new(),
            route: route.to_owned(),
            request: exchange::Request {
                method: webhook.method.as_str().to_owned(),
                target,
                headers,
                body: webhook.body.clone(),
            },
            options,
        })
    }

    /// What its provider calls this kind of webhook.
    fn label(&self, document: &Document<'_>) -> Option<String> {
        let place = match self.verifier.scheme() {
            Scheme::Github => Place::Header("x-github-event".to_owned()),
            Scheme::Shopify => Place::Header("x-shopify-topic".to_owned()),
            Scheme::Slack => Place::Json("/event/type".to_owned()),
            Scheme::StandardWebhooks | Scheme::Svix | Scheme::Stripe => {
                Place::Json("/type".to_owned())
            }
            Scheme::Twilio | Scheme::Hmac(_) | Scheme::None => return None,
        };
        document.at(&place).filter(|label| label.len() <= LABEL_BYTES_MAX)
    }

    /// Whether it is of a type that is delivered, as one is whose type cannot be read.
    fn wants(&self, document: &Document<'_>) -> bool {
        if self.types.is_empty() {
            return true;
        }
        let kind = self.label(document).and_then(|label| EventType::new(&label).ok());
        kind.is_none_or(|kind| self.types.iter().any(|wanted| wanted.matches(&kind)))
    }

    /// What a webhook says of an operation of a route's.
    fn testimony(
        &self,
        node: &Node,
        document: &Document<'_>,
        webhook: &Webhook,
    ) -> Option<Testimony> {
        let rule = self.resolve.as_ref()?;
        let given =
            condition::Given { status: None, headers: &webhook.headers, document: document.json() };
        let holds = |it: &Option<Condition>| it.as_ref().is_some_and(|it| it.holds(given));
        let says = if holds(&rule.found) {
            Says::Done
        } else if holds(&rule.failed) {
            Says::Failed
        } else if holds(&rule.absent) {
            Says::NotDone
        } else {
            return None;
        };
        let named = document.at(&rule.named)?;
        let named = match &rule.made {
            Some(name) => Named::Made { name: name.clone(), id: named },
            None => Named::Key(named),
        };
        let mut redact = rejects::redaction_of(node, self, webhook.method.as_str());
        if let Some(route) = node.engine.route(&rule.route) {
            redact.add(&route.policy.redact);
        }
        let seen = redact.body(webhook.headers.text("content-type"), &webhook.body);
        let text = String::from_utf8_lossy(seen.as_ref().unwrap_or(&webhook.body));
        let end = text.floor_char_boundary(EVIDENCE_BYTES_MAX);
        let more = if end < text.len() { "…" } else { "" };
        let reason = format!("a webhook says: {}\n{}{more}", says.name(), &text[..end]);
        let who = self.via();
        let status = rule.status.filter(|_| says == Says::Done);
        // What a provider made is one operation's; a key is one tenant's.
        let is_anybodys = self.tenant == TENANT && rule.made.is_some();
        let tenant = (!is_anybodys).then(|| self.tenant.clone());
        let route = rule.route.clone();
        Some(Testimony { tenant, route, named, says, status, who, reason })
    }

    fn answer(&self, operation: Option<&Operation>, came: Came) -> Response<Body> {
        let mut response = Response::new(Body::full(self.answer.body.clone()));
        *response.status_mut() = StatusCode::from_u16(self.answer.status).unwrap_or(StatusCode::OK);
        let headers = response.headers_mut();
        if !self.answer.body.is_empty() {
            headers.insert(header::CONTENT_TYPE, self.answer.content_type.clone());
        }
        let replayed = if came == Came::Accepted { "false" } else { "true" };
        headers.insert("idempotent-replayed", HeaderValue::from_static(replayed));
        if let Some(operation) = operation {
            shape::describe(headers, operation);
        }
        response
    }

    /// The source as people see it: its secrets are counted.
    pub(crate) fn described(&self) -> Value {
        let verifier = &self.verifier;
        let ids = self.ids.places.iter().map(|places| {
            let places: Vec<_> = places.iter().map(ToString::to_string).collect();
            places.join(" and ")
        });
        json!({
            "name": self.name,
            "tenant": self.tenant,
            "path": format!("/in/{}", self.name),
            "scheme": verifier.scheme().name(),
            "headers": verifier.scheme().headers(),
            "secrets": verifier.secrets(),
            "tolerance": units::show(verifier.tolerance()),
            "route": self.route,
            "target": self.route.as_ref().map(|_| &self.target),
            "scope": self.scope,
            "id": ids.collect::<Vec<_>>(),
            "id_signed": self.ids.places.first().is_none_or(|it| it.iter().all(|at| self.covers(at))),
            "subject": self.subject.as_ref().map(ToString::to_string),
            "sequence": self.sequence.as_ref().map(ToString::to_string),
            "types": self.types.iter().map(TypePattern::as_str).collect::<Vec<_>>(),
            "methods": self.methods.iter().map(Method::as_str).collect::<Vec<_>>(),
            "handshake": self.handshake.as_ref().map(|it| &it.echo),
            "resolves": self.resolve.as_ref().map(|it| &it.route),
            "body_bytes_max": self.body_bytes_max,
            "rejects_max": self.rejects_max,
            "answer": self.answer.status,
        })
    }

    /// What a careful reader would ask about.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let name = &self.name;
        if *self.verifier.scheme() == Scheme::None {
            warnings.push(format!("[sources.{name}] verifies nothing: whoever knows its address can send whatever they want."));
        }
        if *self.verifier.scheme() == Scheme::Twilio && self.url.is_none() {
            warnings.push(format!("[sources.{name}] verifies the URL that Twilio called, and takes it from the Host header: say url = \"https://hooks.example.com/in/{name}\" where a proxy changes that."));
        }
        let schemes_with_time = !matches!(
            self.verifier.scheme(),
            Scheme::Github | Scheme::Shopify | Scheme::Twilio | Scheme::None
        );
        if schemes_with_time && self.verifier.tolerance() > Duration::from_hours(1) {
            warnings.push(format!("[sources.{name}] takes webhooks that were signed {} ago: whoever saw one can send it for as long.", units::show(self.verifier.tolerance())));
        }
        warnings
    }
}

impl Handshake {
    /// What is to be sent back, where a request asks for that, or why it is not.
    fn wants(&self, uri: &Uri) -> Option<Result<String, &'static str>> {
        let query = uri.query()?;
        let value = |wanted: &str| {
            let mut pairs = form_urlencoded::parse(query.as_bytes());
            pairs.find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned())
        };
        let echo = value(&self.echo).filter(|echo| echo.len() <= ECHO_BYTES_MAX)?;
        let is_theirs = self.token.as_ref().is_none_or(|(name, token)| {
            value(name).is_some_and(|given| is_same(given.as_bytes(), token.as_bytes()))
        });
        Some(if is_theirs { Ok(echo) } else { Err("The handshake's token is another one.") })
    }
}

/// Text that no browser takes for anything else.
fn text(text: String) -> Response<Body> {
    let mut response = Response::new(Body::full(text.into()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A whole number, or a time, which counts in microseconds.
fn sequence_of(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok();
    }
    let at: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(at.as_microsecond()).ok()
}

/// A subject that is too long, or has what no header has, is one by its digest.
fn short_subject(text: &str) -> String {
    let fits =
        text.len() <= SUBJECT_BYTES_MAX && text.bytes().all(|it| (0x20..=0x7e).contains(&it));
    if fits { text.to_owned() } else { format!("sha256-{}", hex::encode(&sha256(text.as_bytes()))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_is_a_number_or_a_time() {
        assert_eq!(sequence_of("17"), Some(17));
        assert_eq!(sequence_of("1970-01-01T00:00:01.5Z"), Some(1_500_000));
        for text in ["", "-1", "1.5", "soon", "99999999999999999999999"] {
            assert_eq!(sequence_of(text), None, "{text}");
        }
    }

    #[test]
    fn a_handshake_gives_back_what_whoever_has_the_token_sent() {
        let handshake = Handshake {
            echo: "hub.challenge".to_owned(),
            token: Some(("hub.verify_token".to_owned(), "t".to_owned())),
        };
        let wants = |uri: &str| handshake.wants(&uri.parse().unwrap());
        let good = wants("/in/a?hub.mode=subscribe&hub.verify_token=t&hub.challenge=a%20b");
        assert_eq!(good, Some(Ok("a b".to_owned())));
        assert!(wants("/in/a?hub.verify_token=u&hub.challenge=1").unwrap().is_err());
        assert!(wants("/in/a?hub.challenge=1").unwrap().is_err());
        assert_eq!(wants("/in/a?hub.verify_token=t"), None);
        assert_eq!(wants("/in/a"), None);
        assert!(!format!("{handshake:?}").contains("\"t\""));
    }
}
