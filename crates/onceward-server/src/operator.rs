//! The JSON API for people and for the command line: what the ledger holds, and what a person
//! does about it.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Extension, Path, Query as UrlQuery, State};
use axum::response::IntoResponse;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Response, StatusCode};
use onceward::core::exchange::{Headers, Response as Given};
use onceward::core::id::OperationId;
use onceward::core::key::{Key, Scope, ScopeKind};
use onceward::core::operation::{Forgotten, Operation};
use onceward::core::policy::Order;
use onceward::core::risk::Risk;
use onceward::core::time::Timestamp;
use onceward::store::{Page, Query, Standing, Which};
use onceward::wire;
use onceward::{Bar, Person, Refusal, Resolution};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::access::Caller;
use crate::body::Body;
use crate::gateway::{Document, TENANT, lines, response_document};
use crate::node::Node;
use crate::page;
use crate::problem::Problem;
use crate::shape;

mod advice;
mod claims;
mod doubt;
mod keys;
mod outbox;
mod sources;

/// How many a page has where nothing says, and at most.
const LIMIT: usize = 50;
const LIMIT_MAX: usize = 1000;

impl IntoResponse for Problem {
    fn into_response(self) -> axum::response::Response {
        let mut response = self.response::<Body>().map(axum::body::Body::new);
        // A page shows it to a browser in its own way.
        response.extensions_mut().insert(self);
        response
    }
}

type Answer = Result<Json<Value>, Problem>;

/// The API's paths.
pub(crate) fn router() -> Router<Arc<Node>> {
    Router::new()
        .route("/v1/operations", get(list).post(send))
        .route("/v1/operations/{id}", get(show))
        .route("/v1/operations/{id}/request", get(show_request))
        .route("/v1/operations/{id}/response", get(show_response))
        .route("/v1/operations/{id}/evidence", get(evidence::show))
        .route("/v1/operations/{id}/redeliver", post(redeliver))
        .route("/v1/operations/{id}/resend", post(resend::resend))
        .route("/v1/operations/{id}/cancel", post(cancel))
        .route("/v1/operations/{id}/resolve", post(resolve))
        .route("/v1/bulk", get(bulk::list).post(bulk::begin))
        .route("/v1/bulk/{name}", get(bulk::show))
        .route("/v1/bulk/{name}/stop", post(bulk::stop))
        .route("/v1/audit", get(audit::list))
        .route("/v1/keys/{route}/{key}", get(show_key).delete(forget))
        .merge(keys::router())
        .merge(claims::router())
        .route("/v1/explain", post(explain))
        .route("/v1/routes", get(routes))
        .route("/v1/routes/{route}/advice", get(advice::advice))
        .route("/v1/routes/{route}/pause", post(pause))
        .route("/v1/routes/{route}/resume", post(resume))
        .route("/v1/stats", get(stats))
        .merge(doubt::router())
        .merge(outbox::router())
        .merge(sources::router())
        .route("/v1/backup", post(backup))
        .route("/v1/release", post(release))
        .route("/v1/access", get(access_list).post(access_create))
        .route("/v1/access/{prefix}", delete(access_revoke))
        .method_not_allowed_fallback(page::not_allowed)
}

fn read<T>(document: Result<Json<T>, JsonRejection>) -> Result<T, Problem> {
    document
        .map(|Json(document)| document)
        .map_err(|rejection| Problem::new("request-invalid", rejection.body_text()))
}

fn id_of(text: &str) -> Result<OperationId, Problem> {
    text.parse().map_err(|error: onceward::core::id::NotAnId| {
        Problem::new("request-invalid", format!("{text:?} is {error}"))
    })
}

/// A time as RFC 3339 has it.
pub(crate) fn instant(text: &str) -> Result<Timestamp, Problem> {
    let at: Result<jiff::Timestamp, _> = text.parse();
    at.map(|at| Timestamp::from_micros(at.as_microsecond())).map_err(|_| {
        Problem::new("request-invalid", format!("{text:?} is no time: write 2026-01-31T12:00:00Z"))
    })
}

/// `order:ord_123`, or `ord_123` whatever its name.
fn made_of(text: &str) -> (Option<String>, String) {
    match text.split_once(':') {
        Some((name, id)) => (Some(name.to_owned()), id.to_owned()),
        None => (None, text.to_owned()),
    }
}

/// Where the operations stand that a filter's words name.
pub(crate) fn standing_of(state: &str) -> Result<Vec<Standing>, Problem> {
    Ok(match state {
        "pending" => vec![Standing::Pending, Standing::Held],
        "delivering" => vec![Standing::Delivering],
        "in_doubt" => vec![Standing::InDoubt],
        "done" => vec![Standing::Done],
        "dead" => vec![Standing::DeadLetter, Standing::Told],
        "dead_letter" => vec![Standing::DeadLetter],
        "forgotten" => vec![Standing::Tombstone],
        other => {
            return Err(Problem::new(
                "request-invalid",
                format!(
                    "state {other:?}: pending, delivering, in_doubt, done, dead, dead_letter or forgotten"
                ),
            ));
        }
    })
}

/// The kind of a key by its word.
fn kind_of(word: &str) -> Result<ScopeKind, Problem> {
    let named = ScopeKind::ALL.into_iter().find(|kind| kind.name() == word);
    named.ok_or_else(|| {
        let why = format!("kind {word:?}: call, unique, callback or claim");
        Problem::new("request-invalid", why)
    })
}

/// What a list is asked for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Filter {
    pub(crate) state: Option<String>,
    pub(crate) route: Option<String>,
    /// `call`, `unique`, `callback` or `claim`.
    pub(crate) kind: Option<String>,
    pub(crate) scope: Option<String>,
    pub(crate) principal: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) label: Option<String>,
    pub(crate) subject: Option<String>,
    pub(crate) text: Option<String>,
    /// Of the last answer.
    pub(crate) status: Option<u16>,
    pub(crate) parent: Option<String>,
    /// What its answer made: `NAME:ID`, or `ID` whatever its name.
    pub(crate) id: Option<String>,
    /// Came then or later.
    pub(crate) after: Option<String>,
    /// Came earlier.
    pub(crate) before: Option<String>,
    pub(crate) cursor: Option<String>,
    pub(crate) limit: Option<usize>,
}

impl Filter {
    /// Its words as they stand in an address, without the place and the number.
    pub(crate) fn words(&self) -> [(&'static str, Option<String>); 12] {
        let given = |field: &Option<String>| field.clone().filter(|value| !value.is_empty());
        [
            ("state", given(&self.state)),
            ("route", given(&self.route)),
            ("key", given(&self.key)),
            ("label", given(&self.label)),
            ("text", given(&self.text)),
            ("status", self.status.map(|status| status.to_string())),
            ("parent", given(&self.parent)),
            ("id", given(&self.id)),
            ("after", given(&self.after)),
            ("before", given(&self.before)),
            ("kind", given(&self.kind)),
            ("scope", given(&self.scope)),
        ]
    }

    /// Whether it leaves anything out.
    pub(crate) fn is_set(&self) -> bool {
        self.words().iter().any(|(_, value)| value.is_some())
    }

    /// The store's query.
    pub(crate) fn query(&self) -> Result<Query, Problem> {
        let given = |field: &Option<String>| field.clone().filter(|value| !value.is_empty());
        let limit = self.limit.unwrap_or(LIMIT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(Problem::new(
                "request-invalid",
                format!("limit lies between 1 and {LIMIT_MAX}"),
            ));
        }
        let standing =
            given(&self.state).map_or_else(|| Ok(Vec::new()), |state| standing_of(&state))?;
        let before = given(&self.cursor).map(|cursor| id_of(&cursor)).transpose()?;
        Ok(Query {
            standing,
            tenant: Some(TENANT.to_owned()),
            route: given(&self.route),
            kind: given(&self.kind).map(|kind| kind_of(&kind)).transpose()?,
            scope: given(&self.scope),
            principal: given(&self.principal),
            key: given(&self.key),
            label: given(&self.label),
            subject: given(&self.subject),
            text: given(&self.text),
            status: self.status,
            parent: given(&self.parent).map(|parent| id_of(&parent)).transpose()?,
            made: given(&self.id).map(|id| made_of(&id)),
            since: given(&self.after).map(|at| instant(&at)).transpose()?,
            until: given(&self.before).map(|at| instant(&at)).transpose()?,
            before,
            limit,
        })
    }
}

/// The cursor that goes on behind `page`.
pub(crate) fn cursor(page: &Page) -> Option<String> {
    page.next.map(|id| id.to_string())
}

async fn list(
    State(node): State<Arc<Node>>,
    filter: Result<UrlQuery<Filter>, QueryRejection>,
) -> Answer {
    let UrlQuery(filter) =
        filter.map_err(|rejection| Problem::new("request-invalid", rejection.body_text()))?;
    let page = node.engine.store().list(filter.query()?).await?;
    let data: Vec<_> =
        page.operations.iter().map(|operation| shape::operation(operation, None)).collect();
    Ok(Json(json!({"data": data, "next": cursor(&page)})))
}

/// The operation of this id.
pub(crate) async fn find(node: &Node, id: &str) -> Result<Operation, Problem> {
    let found = node.engine.store().find(Which::Id(id_of(id)?)).await?;
    found
        .map(|operation| node.engine.as_kept(operation))
        .filter(|operation| operation.scope.tenant == TENANT)
        .ok_or_else(|| Problem::new("not-found", format!("No operation {id} is in the ledger.")))
}

async fn shown(node: &Node, operation: &Operation) -> Answer {
    let asked = node.engine.store().asked(operation.id).await?;
    let mut shown = shape::operation(operation, Some(&asked));
    if let Some(place) = node.engine.in_line(operation).await? {
        shown["blocked_by"] = json!(place.blocked_by.map(|id| id.to_string()));
        shown["blocks"] = json!(place.behind);
    }
    Ok(Json(shown))
}

async fn show(State(node): State<Arc<Node>>, Path(id): Path<String>) -> Answer {
    let operation = find(&node, &id).await?;
    shown(&node, &operation).await
}

async fn show_request(State(node): State<Arc<Node>>, Path(id): Path<String>) -> Answer {
    let operation = find(&node, &id).await?;
    let kept = operation
        .request
        .ok_or_else(|| Problem::new("no-outcome", "The request was forgotten with its window."))?;
    // Credentials stay sealed: nobody reads them here.
    let request = wire::decode_request(&node.engine.store().body(kept).await?, operation.id, None)?;
    let body = node.engine.redacted(&operation, &request.body);
    let shown = response_document(0, &request.headers, &body);
    Ok(Json(json!({
        "method": request.method, "path": request.target, "headers": lines(&request.headers),
        "body": shown["body"], "body_base64": shown["body_base64"],
    })))
}

async fn show_response(State(node): State<Arc<Node>>, Path(id): Path<String>) -> Answer {
    let operation = find(&node, &id).await?;
    let shown = response_of(&node, &operation).await?;
    shown.map(Json).ok_or_else(|| {
        Problem::new("no-outcome", "No answer is kept: it has not come, or it is not retained.")
    })
}

/// The outcome's answer, or else what the last attempt brought.
pub(crate) async fn response_of(
    node: &Node,
    operation: &Operation,
) -> Result<Option<Value>, Problem> {
    let store = node.engine.store();
    if let Some(kept) = operation.outcome.as_ref().and_then(|outcome| outcome.answer) {
        let response = wire::decode_response(&store.body(kept).await?)?;
        let body = node.engine.redacted(operation, &response.body);
        return Ok(Some(response_document(response.status, &response.headers, &body)));
    }
    let last = operation.attempts.iter().rev().find_map(|attempt| attempt.ended.as_ref()?.answer);
    let Some(kept) = last else { return Ok(None) };
    let (response, cut) =
        wire::decode_excerpt(&store.body(kept).await?, operation.id, node.engine.secrets())?;
    let body = node.engine.redacted(operation, &response.body);
    let mut shown = response_document(response.status, &response.headers, &body);
    shown["excerpt"] = json!(true);
    shown["cut"] = json!(cut);
    Ok(Some(shown))
}

/// Why a person acts: asked of every change.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Because {
    reason: String,
}

pub(crate) fn person(caller: &Caller, reason: &str) -> Result<Person, Problem> {
    let reason = reason.trim();
    if reason.is_empty() || reason.len() > 1000 {
        return Err(Problem::new(
            "request-invalid",
            "reason: say why, in up to 1000 bytes; it stays with the operation.",
        ));
    }
    Ok(Person { who: caller.who(), reason: reason.to_owned() })
}

/// Why, and which risk is taken.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Redeliver {
    reason: String,
    /// `accepted`, or the name of one.
    risk: Option<String>,
}

/// The risks that a word takes: all that can be, or the one that it names.
pub(crate) fn risks(word: Option<&str>) -> Result<Vec<Risk>, Problem> {
    let can_be = Risk::ALL.into_iter().filter(|risk| risk.wants_a_word() && risk.can_be_taken());
    match word {
        None | Some("") => Ok(Vec::new()),
        Some("accepted") => Ok(can_be.collect()),
        Some(name) => {
            let named: Vec<Risk> = can_be.filter(|risk| risk.name() == name).collect();
            if named.is_empty() {
                let why = format!("risk {name:?}: unknown, window-over or accepted");
                return Err(Problem::new("request-invalid", why));
            }
            Ok(named)
        }
    }
}

async fn redeliver(
    State(node): State<Arc<Node>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    document: Result<Json<Redeliver>, JsonRejection>,
) -> Answer {
    let document = read(document)?;
    let person = person(&caller, &document.reason)?;
    let taken = risks(document.risk.as_deref())?;
    let id = find(&node, &id).await?.id;
    let operation = node.engine.redeliver_at_risk(id, &person, &taken).await?;
    shown(&node, &operation).await
}

async fn cancel(
    State(node): State<Arc<Node>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    because: Result<Json<Because>, JsonRejection>,
) -> Answer {
    let person = person(&caller, &read(because)?.reason)?;
    let operation = node.engine.cancel(find(&node, &id).await?.id, &person).await?;
    shown(&node, &operation).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resolve {
    /// `done` or `not-sent`.
    r#as: String,
    reason: String,
    /// The answer that duplicates shall get.
    status: Option<u16>,
    body: Option<String>,
    body_base64: Option<String>,
}

async fn resolve(
    State(node): State<Arc<Node>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    document: Result<Json<Resolve>, JsonRejection>,
) -> Answer {
    let document = read(document)?;
    let person = person(&caller, &document.reason)?;
    let resolution =
        resolution(&document.r#as, document.status, document.body, document.body_base64)?;
    let operation = node.engine.resolve(find(&node, &id).await?.id, &resolution, &person).await?;
    shown(&node, &operation).await
}

/// The answer that a person gave, with the type that its body has.
fn given(status: u16, body: bytes::Bytes) -> Given {
    let mut headers = Headers::default();
    if serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok() {
        headers.set("content-type", "application/json");
    } else if !body.is_empty() && std::str::from_utf8(&body).is_ok() {
        headers.set("content-type", "text/plain; charset=utf-8");
    }
    Given { status, headers, body, trailers: Headers::default() }
}

/// What a person said became of it.
pub(crate) fn resolution(
    word: &str,
    status: Option<u16>,
    body: Option<String>,
    base64: Option<String>,
) -> Result<Resolution, Problem> {
    let invalid = |why: &str| Problem::new("request-invalid", why);
    match word {
        "not-sent" => Ok(Resolution::NotSent),
        "done" => {
            if status.is_some_and(|status| !(200..600).contains(&status)) {
                return Err(invalid("status lies between 200 and 599"));
            }
            if status.is_none() && (body.is_some() || base64.is_some()) {
                return Err(invalid("a body needs a status"));
            }
            let body = match base64 {
                Some(coded) => Some(
                    STANDARD.decode(coded).map_err(|_| invalid("body_base64 is no base64"))?.into(),
                ),
                None => body.map(Into::into),
            };
            Ok(Resolution::Done(status.map(|status| given(status, body.unwrap_or_default()))))
        }
        _ => Err(invalid("as: `done` or `not-sent`")),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Principal {
    /// Whose key, where an operator looks for another caller's.
    principal: Option<String>,
}

/// The scope of a caller's keys on `route`; of another's, where an operator looks for those.
fn scope_of(node: &Node, caller: &Caller, route: &str, principal: Option<&str>) -> Scope {
    node.engine.scope_of(TENANT, route, principal.unwrap_or(&caller.principal))
}

fn key_of(text: &str) -> Result<Key, Problem> {
    Key::new(text).map_err(|error| Problem::new("key-invalid", error.to_string()))
}

async fn show_key(
    State(node): State<Arc<Node>>,
    Extension(caller): Extension<Caller>,
    Path((route, key)): Path<(String, String)>,
    UrlQuery(whose): UrlQuery<Principal>,
) -> Answer {
    let scope = scope_of(&node, &caller, &route, whose.principal.as_deref());
    let operation = match node.engine.operation_of(&scope, &key_of(&key)?).await {
        Err(Refusal::NotFound) => {
            return Err(Problem::new("not-found", "No operation has this key on this route."));
        }
        found => found?,
    };
    shown(&node, &operation).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Forget {
    reason: String,
    /// `refuse` or `new`.
    then: Option<String>,
    principal: Option<String>,
}

impl Forget {
    fn then(&self) -> Result<Forgotten, Problem> {
        match self.then.as_deref() {
            None | Some("refuse") => Ok(Forgotten::Refuse),
            Some("new") => Ok(Forgotten::New),
            Some(_) => Err(Problem::new("request-invalid", "then: `refuse` or `new`")),
        }
    }
}

async fn forget(
    State(node): State<Arc<Node>>,
    Extension(caller): Extension<Caller>,
    Path((route, key)): Path<(String, String)>,
    document: Result<Json<Forget>, JsonRejection>,
) -> Answer {
    let document = read(document)?;
    let then = document.then()?;
    let person = person(&caller, &document.reason)?;
    let scope = scope_of(&node, &caller, &route, document.principal.as_deref());
    let operation = node.engine.forget(&scope, &key_of(&key)?, then, &person).await?;
    shown(&node, &operation).await
}

async fn send(
    State(node): State<Arc<Node>>,
    Extension(caller): Extension<Caller>,
    headers: http::HeaderMap,
    document: Result<Json<Document>, JsonRejection>,
) -> Result<Response<axum::body::Body>, Problem> {
    let mut document = read(document)?;
    document.take_key(&headers)?;
    Ok(node.gateway.send(document, caller).await?.map(axum::body::Body::new))
}

async fn explain(
    State(node): State<Arc<Node>>,
    Extension(caller): Extension<Caller>,
    document: Result<Json<Document>, JsonRejection>,
) -> Answer {
    Ok(Json(node.gateway.explain(read(document)?, caller)?))
}

async fn routes(State(node): State<Arc<Node>>) -> Answer {
    let (routes, guards) = (node.engine.routes(), node.guards.all());
    let shown: Vec<_> = routes
        .named
        .values()
        .map(|route| {
            let guard = guards.get(&route.name);
            json!({
                "name": route.name,
                "listen": guard.map(|guard| &guard.listen),
                "host": guard.map(|guard| &guard.hosts),
                "upstream": route.target.base.as_str(),
                "effects": route.policy.effects.map(onceward::core::policy::Effects::name),
                "mode": route.policy.mode.name(),
                "window": crate::units::show(route.policy.window),
                "rules": route.rules.len(),
                "concurrency_max": route.protection.slots_max,
                "flow": json!({"concurrency_max": route.protection.flow.slots_max}),
                "order": match route.policy.order {
                    Order::None => "none",
                    Order::Subject => "subject",
                },
                "gate": gate(&node, &route.name),
                "lookup": route.policy.lookup.as_ref().map(|rule| rule.get.as_str()),
                "hours": route.policy.hours.as_ref().map(onceward::core::hours::Hours::as_str),
                "chaos": route.chaos.as_ref().map(|chaos| {
                    let of = chaos.percentages().map(|(fault, percent)| (fault.name().to_owned(), json!(percent)));
                    let mut shown = serde_json::Map::from_iter(of);
                    shown.insert("seed".to_owned(), json!(chaos.seed));
                    shown
                }),
            })
        })
        .collect();
    Ok(Json(json!({"data": shown, "next": null})))
}

/// What stands before a route's upstream at this node.
fn gate(node: &Node, route: &str) -> Value {
    let paused = node.engine.paused();
    let paused = paused.get(route).map(
        |pause| json!({"at": shape::time(pause.at), "who": pause.who, "reason": pause.reason}),
    );
    node.engine.standing(route).map_or(Value::Null, |standing| {
        json!({
            "breaker": standing.breaker,
            "held_by": standing.bar.map(Bar::name),
            "until": standing.until.map(shape::time),
            "under_way": standing.busy,
            "waiting": standing.waiting,
            "paused": paused,
        })
    })
}

async fn pause(
    State(node): State<Arc<Node>>,
    Extension(caller): Extension<Caller>,
    Path(route): Path<String>,
    because: Result<Json<Because>, JsonRejection>,
) -> Answer {
    let person = person(&caller, &read(because)?.reason)?;
    node.engine.pause(&route, &person).await?;
    Ok(Json(gate(&node, &route)))
}

async fn resume(
    State(node): State<Arc<Node>>,
    Extension(caller): Extension<Caller>,
    Path(route): Path<String>,
    because: Result<Json<Because>, JsonRejection>,
) -> Answer {
    let person = person(&caller, &read(because)?.reason)?;
    node.engine.resume(&route, &person).await?;
    Ok(Json(gate(&node, &route)))
}

/// The name of a standing in counts.
pub(crate) fn standing_name(standing: Standing) -> &'static str {
    match standing {
        Standing::Pending => "pending",
        Standing::Held => "pending_held",
        Standing::Delivering => "delivering",
        Standing::InDoubt => "in_doubt",
        Standing::Done => "done",
        Standing::DeadLetter => "dead_letters",
        Standing::Told => "dead_told",
        Standing::Tombstone => "forgotten",
    }
}

async fn stats(State(node): State<Arc<Node>>) -> Answer {
    let condition = node.engine.store().condition().await?;
    let counts: serde_json::Map<String, Value> = condition
        .counts
        .iter()
        .map(|(standing, count)| (standing_name(*standing).to_owned(), json!(count)))
        .collect();
    Ok(Json(json!({
        "operations": counts,
        "ledger": {"bytes": condition.bytes, "commits": condition.commits},
        "quarantined": node.is_quarantined(),
        "version": env!("CARGO_PKG_VERSION"),
    })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BackupTo {
    to: PathBuf,
}

async fn backup(
    State(node): State<Arc<Node>>,
    document: Result<Json<BackupTo>, JsonRejection>,
) -> Answer {
    let to = read(document)?.to;
    if !to.is_absolute() {
        return Err(Problem::new(
            "request-invalid",
            "to: an absolute path on the gateway's machine",
        ));
    }
    node.backup(&to).await?;
    Ok(Json(json!({"backup": to})))
}

async fn release(State(node): State<Arc<Node>>, Extension(caller): Extension<Caller>) -> Answer {
    let person = Person { who: caller.who(), reason: String::new() };
    if node.is_quarantined() {
        node.engine.note(&person, "released the ledger", "quarantine").await?;
    }
    let judged = node.release().await?;
    Ok(Json(json!({"quarantined": false, "recovered": judged})))
}

async fn access_list(State(node): State<Arc<Node>>) -> Answer {
    let keys: Vec<_> = node
        .access
        .list()
        .iter()
        .map(|key| json!({"name": key.name, "prefix": key.prefix, "created_at": key.created_at}))
        .collect();
    Ok(Json(json!({"data": keys, "next": null})))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewAccess {
    name: String,
    #[serde(default)]
    reason: String,
}

/// Why, where somebody says.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Perhaps {
    #[serde(default)]
    reason: String,
}

async fn access_create(
    State(node): State<Arc<Node>>,
    Extension(caller): Extension<Caller>,
    document: Result<Json<NewAccess>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let NewAccess { name, reason } = read(document)?;
    let fits = !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte));
    if !fits {
        return Err(Problem::new(
            "request-invalid",
            "name: letters, digits, `-`, `_`, `.` and `@`, at most 64: it stands in the scope of the caller's keys",
        ));
    }
    let person = Person { who: caller.who(), reason };
    node.engine.note(&person, "made an access key", &name).await?;
    let now = shape::time(shape::now());
    let (key, kept) = node.access.create(&name, now).await?;
    Ok((
        StatusCode::CREATED,
        Json(
            json!({"key": key, "name": kept.name, "prefix": kept.prefix, "created_at": kept.created_at}),
        ),
    ))
}

async fn access_revoke(
    State(node): State<Arc<Node>>,
    Extension(caller): Extension<Caller>,
    Path(prefix): Path<String>,
    perhaps: Option<Json<Perhaps>>,
) -> Answer {
    let Json(Perhaps { reason }) = perhaps.unwrap_or_default();
    let named = node.access.list().into_iter().find(|key| key.prefix == prefix);
    if let Some(key) = named {
        let about = format!("{} ({prefix})", key.name);
        let person = Person { who: caller.who(), reason };
        node.engine.note(&person, "revoked an access key", &about).await?;
    }
    if node.access.revoke(&prefix).await? {
        return Ok(Json(json!({"revoked": prefix})));
    }
    Err(Problem::new("not-found", format!("No access key begins with {prefix:?}.")))
}

/// A body for what axum answers.
pub(crate) fn from_axum(response: axum::response::Response) -> Response<Body> {
    response.map(Body::Axum)
}

pub(crate) mod audit;
pub(crate) mod bulk;
mod evidence;
mod resend;

pub(crate) use resend::check_target;

#[cfg(test)]
mod fuzz;
