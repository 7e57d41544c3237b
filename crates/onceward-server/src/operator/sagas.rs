//! Sagas over the API: started with one document, listed, told whole, and what a person does about one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Extension, FromRequest, Path, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use onceward::core::exchange::{is_credential, is_forwarded};
use onceward::core::id::OperationId;
use onceward::core::operation::Operation;
use onceward::core::saga::{
    Ask, Body, Definition, Leg, NotASaga, Standing as Stands, Step, Template, Word, first_not_kept,
};
use onceward::core::trace::TraceContext;
use onceward::edge;
use onceward::store::{Query, Standing};
use onceward::{Kept, NewSaga, Saga, Started};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::handler::{
    Act, Answer, Asked, Because, Said, given, id_of, invalid, key_of, limit_of, reasoned, some,
    unread,
};
use super::operations::risks;
use crate::access::{Caller, check_route};
use crate::body::headers_of;
use crate::gateway::{self, LABEL_BYTES_MAX, check_sendable};
use crate::node::Node;
use crate::problem::Problem;
use crate::view::View;
use crate::{shape, units};

/// The paths.
pub(super) fn router() -> Router<Arc<Node>> {
    Router::new()
        .route("/v1/sagas", get(list).post(start))
        .route("/v1/sagas/{id}", get(show))
        .route("/v1/sagas/{id}/pause", post(pause))
        .route("/v1/sagas/{id}/resume", post(resume))
        .route("/v1/sagas/{id}/retry", post(retry))
        .route("/v1/sagas/{id}/cancel", post(cancel))
        .route("/v1/sagas/{id}/resolve", post(resolve))
}

/// As of a call; whoever asks for more has so many.
const ATTEMPTS_MAX: u32 = 100;
const SUBJECT_MAX: usize = 255;

/// A document whose numbers are kept as they are written: it is written again, and parts of it are sent.
#[derive(Debug)]
struct Exactly<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Exactly<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let (head, body) = request.into_parts();
        let whole = Request::from_parts(head.clone(), body);
        let bytes = Bytes::from_request(whole, state).await;
        let bytes = bytes.map_err(|why| unread(why.status(), why.body_text()))?;
        let again = Request::from_parts(head, bytes.clone().into());
        let Said(said) = Said::from_request(again, state).await?;
        match first_not_kept(&bytes) {
            None => Ok(Self(said)),
            Some(number) => Err(invalid(format!(
                "the number {number} is not kept as it is written: write it as a text"
            ))),
        }
    }
}

/// A saga as its caller writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    key: Option<String>,
    label: Option<String>,
    /// What it is about.
    subject: Option<String>,
    /// What templates take from `input`.
    #[serde(default)]
    input: Value,
    /// `unwind`, or `stop`.
    on_failure: Option<String>,
    steps: Vec<StepDocument>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StepDocument {
    name: String,
    to: String,
    method: Option<String>,
    path: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<Value>,
    body_base64: Option<String>,
    attempts_max: Option<u32>,
    within: Option<String>,
    #[serde(default)]
    pivot: bool,
    compensate: Option<AskDocument>,
}

/// A request that is to be made.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AskDocument {
    /// Where the step goes, unless it says otherwise.
    to: Option<String>,
    method: Option<String>,
    path: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<Value>,
    body_base64: Option<String>,
    attempts_max: Option<u32>,
    within: Option<String>,
}

impl StepDocument {
    fn split(self) -> (String, String, AskDocument, bool, Option<AskDocument>) {
        let ask = AskDocument {
            to: None,
            method: self.method,
            path: self.path,
            headers: self.headers,
            body: self.body,
            body_base64: self.body_base64,
            attempts_max: self.attempts_max,
            within: self.within,
        };
        (self.name, self.to, ask, self.pivot, self.compensate)
    }
}

/// Reads requests for one caller.
struct Reading<'a> {
    node: &'a View,
    caller: &'a Caller,
}

impl Reading<'_> {
    fn ask(&self, document: AskDocument, to: &str, place: &str) -> Result<Ask, Problem> {
        let wrong = |why: String| invalid(format!("{place}: {why}"));
        let to = document.to.as_deref().unwrap_or(to);
        if to.contains("{{") {
            return Err(wrong("to: templates stand in path, headers and body".to_owned()));
        }
        let gateway::Place { route, target } = self.node.gateway.place(to)?;
        check_route(self.caller, &route)?;
        self.node.engine.find_route_for(&self.caller.tenant, &route)?;
        let method = document.method.unwrap_or_else(|| "POST".to_owned());
        let method: Method =
            method.parse().map_err(|_| wrong(format!("{method:?} is no method")))?;
        let path = document.path.unwrap_or(target);
        if !path.starts_with('/') {
            return Err(wrong(format!("path {path:?} begins with no slash")));
        }
        let template = |what: &str, text: &str| {
            Template::read(text).map_err(|why| wrong(format!("{what}: {why}")))
        };
        let path = template("path", &path)?;
        // Whatever comes of its templates is percent-encoded.
        let filled = path.fill_path(|_| Some(json!("x"))).map_err(|why| wrong(why.to_string()))?;
        check_sendable(&method, &filled)?;
        let policy = self
            .node
            .engine
            .route(&route)
            .map(|route| Arc::clone(route.policy_for(method.as_str(), &filled)));
        let sealed = policy.as_ref().map_or(&[][..], |policy| &policy.seal_headers);
        let mut headers = Vec::with_capacity(document.headers.len());
        for (name, value) in document.headers {
            let name: HeaderName =
                name.parse().map_err(|_| wrong(format!("{name:?} is no header name")))?;
            if is_credential(name.as_str(), sealed) {
                return Err(wrong(format!(
                    "{name}: credentials belong to the route (set_headers): a saga outlives its caller's"
                )));
            }
            if !is_forwarded(name.as_str()) {
                return Err(wrong(format!("{name} does not travel to an upstream")));
            }
            let is_field = |text: &str| HeaderValue::from_str(text).is_ok();
            if !is_field(&value) {
                return Err(wrong(format!("the value of {name} cannot stand in a header")));
            }
            headers.push((name.as_str().to_owned(), template(name.as_str(), &value)?));
        }
        let body = match (document.body, document.body_base64) {
            (Some(Value::Null) | None, None) => Body::Empty,
            (Some(Value::Null) | None, Some(coded)) => {
                let bytes = STANDARD.decode(coded);
                Body::Bytes(bytes.map_err(|_| wrong("body_base64 is no base64".to_owned()))?.into())
            }
            (Some(_), Some(_)) => {
                return Err(wrong("give body or body_base64, not both".to_owned()));
            }
            (Some(Value::String(text)), None) => Body::Text(template("body", &text)?),
            (Some(document), None) => Body::Json(document),
        };
        if document.attempts_max == Some(0) {
            return Err(wrong("attempts_max: at least 1".to_owned()));
        }
        let attempts_max = document.attempts_max.map(|max| max.min(ATTEMPTS_MAX));
        let within = document.within.as_deref().map(units::duration).transpose();
        let within = within.map_err(|why| wrong(format!("within: {why}")))?;
        if within == Some(Duration::ZERO) {
            return Err(wrong("within: longer than no time".to_owned()));
        }
        let method = method.as_str().to_owned();
        Ok(Ask { route, method, path, headers, body, attempts_max, within })
    }

    fn definition(&self, document: Document) -> Result<Definition, Problem> {
        let waits = match document.on_failure.as_deref() {
            None | Some("unwind") => false,
            Some("stop") => true,
            Some(other) => {
                return Err(invalid(format!("on_failure {other:?}: `unwind` or `stop`")));
            }
        };
        let mut steps = Vec::with_capacity(document.steps.len());
        for (at, step) in document.steps.into_iter().enumerate() {
            let (name, to, ask, is_pivot, undo) = step.split();
            let place = format!("steps[{at}]");
            let ask = self.ask(ask, &to, &place)?;
            let undo = undo.map(|undo| self.ask(undo, &to, &format!("{place}.compensate")));
            steps.push(Step { name, ask, undo: undo.transpose()?, is_pivot });
        }
        let definition = Definition { steps, input: document.input, stops: waits };
        definition.check().map_err(|why: NotASaga| invalid(why.to_string()))
    }
}

async fn start(
    node: View,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Exactly(document): Exactly<Document>,
) -> Result<Response, Problem> {
    node.check_released("Nothing was begun; `onceward restore --release` lets sagas begin.")?;
    gateway::refuse_options(&headers)?;
    let caller = node.acting(caller);
    let key = match &document.key {
        Some(key) => Some(key.clone()),
        None => gateway::key_of(&headers)?,
    };
    let key = key.map(|key| key_of(&key)).transpose()?;
    let label = document.label.clone();
    if label.as_ref().is_some_and(|label| label.len() > LABEL_BYTES_MAX) {
        return Err(invalid(format!("label: at most {LABEL_BYTES_MAX} bytes")));
    }
    let subject = document.subject.clone();
    if subject.as_ref().is_some_and(|it| it.is_empty() || it.chars().count() > SUBJECT_MAX) {
        return Err(invalid(format!("subject: 1 to {SUBJECT_MAX} characters")));
    }
    let definition = Reading { node: &node, caller: &caller }.definition(document)?;
    let started = node.engine.start_saga(NewSaga {
        tenant: caller.tenant,
        principal: caller.principal,
        key,
        label,
        subject,
        definition,
        callback: None,
        trace: TraceContext::of(&headers_of(&headers)),
    });
    let Started { saga, is_known, key_made } = started.await?;
    let status = if is_known { StatusCode::OK } else { StatusCode::ACCEPTED };
    let mut response = (status, Json(summary(&saga))).into_response();
    let headers = response.headers_mut();
    edge::describe(headers, &saga.operation);
    let word = |is: bool| HeaderValue::from_static(if is { "true" } else { "false" });
    headers.insert("idempotent-replayed", word(is_known));
    if let Ok(key) = HeaderValue::from_str(&saga.operation.key.to_field()) {
        headers.insert("idempotency-key", key);
    }
    if key_made {
        headers.insert("onceward-key-made", word(true));
    }
    if let Ok(location) = HeaderValue::from_str(&url_of(saga.operation.id)) {
        headers.insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Where a saga is looked at.
fn url_of(id: OperationId) -> String {
    format!("/v1/sagas/{id}")
}

/// What a list is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    state: Option<String>,
    key: Option<String>,
    label: Option<String>,
    principal: Option<String>,
    cursor: Option<String>,
    limit: Option<usize>,
    /// Read by whoever looks at the ledger.
    #[serde(rename = "tenant")]
    _tenant: Option<String>,
}

/// Sagas that stand at `state`, from a page of all.
pub(crate) async fn page(
    node: &View,
    state: Option<Stands>,
    query: Query,
) -> Result<(Vec<Saga>, Option<OperationId>), Problem> {
    let standing = match state {
        None => Vec::new(),
        Some(state) if state.is_ended() => vec![Standing::Done, Standing::Tombstone],
        Some(_) => vec![Standing::Delivering],
    };
    let (mut sagas, next) = node.sagas(Query { standing, ..query }).await?;
    // A page may have few and still a next.
    sagas.retain(|saga| state.is_none_or(|state| saga.standing() == state));
    Ok((sagas, next))
}

/// Where a saga stands, by the word for it.
pub(crate) fn state_of(word: Option<&str>) -> Result<Option<Stands>, Problem> {
    let Some(word) = word else { return Ok(None) };
    let named = Stands::ALL.into_iter().find(|stands| stands.name() == word);
    let all = Stands::ALL.map(Stands::name).join(", ");
    named.map(Some).ok_or_else(|| invalid(format!("state {word:?}: {all}")))
}

async fn list(node: View, Asked(wanted): Asked<Wanted>) -> Answer {
    let state = state_of(given(wanted.state.as_ref()))?;
    let word = |word: &Option<String>| given(word.as_ref()).map(str::to_owned);
    let query = Query {
        key: word(&wanted.key),
        label: word(&wanted.label),
        principal: word(&wanted.principal),
        before: given(wanted.cursor.as_ref()).map(id_of).transpose()?,
        limit: limit_of(wanted.limit)?,
        ..Query::default()
    };
    let (sagas, next) = page(&node, state, query).await?;
    Ok(some(sagas.iter().map(summary), next))
}

async fn shown(node: &View, saga: &Saga) -> Answer {
    let steps = node.engine.steps_of(saga).await?;
    Ok(Json(story(saga, &steps)))
}

async fn show(node: View, Path(id): Path<String>) -> Answer {
    let saga = node.saga(&id).await?;
    shown(&node, &saga).await
}

async fn pause(node: View, Path(id): Path<String>, Act(person, _): Act<Because>) -> Answer {
    let saga = node.engine.pause_saga(node.saga(&id).await?.operation.id, &person).await?;
    shown(&node, &saga).await
}

async fn resume(node: View, Path(id): Path<String>, Act(person, _): Act<Because>) -> Answer {
    let saga = node.engine.resume_saga(node.saga(&id).await?.operation.id, &person).await?;
    shown(&node, &saga).await
}

async fn cancel(node: View, Path(id): Path<String>, Act(person, _): Act<Because>) -> Answer {
    let saga = node.engine.cancel_saga(node.saga(&id).await?.operation.id, &person).await?;
    shown(&node, &saga).await
}

/// Why, and which risk is taken.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Retry {
    reason: String,
    /// `accepted`, or the name of one.
    risk: Option<String>,
}

async fn retry(node: View, Path(id): Path<String>, Act(person, said): Act<Retry>) -> Answer {
    let taken = risks(said.risk.as_deref())?;
    let id = node.saga(&id).await?.operation.id;
    let saga = node.engine.retry_saga(id, &person, &taken).await?;
    shown(&node, &saga).await
}

/// What became of what a saga is stuck at.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resolve {
    /// `NAME`, or `NAME/undo`.
    step: String,
    /// `done` or `not-done`.
    r#as: String,
    reason: String,
}

reasoned!(Retry, Resolve);

/// What a person says has become of it.
pub(crate) fn word_of(word: &str) -> Result<Word, Problem> {
    match word {
        "done" => Ok(Word::Done),
        "not-done" => Ok(Word::NotDone),
        _ => Err(invalid("as: `done` or `not-done`")),
    }
}

async fn resolve(node: View, Path(id): Path<String>, Act(person, said): Act<Resolve>) -> Answer {
    let word = word_of(&said.r#as)?;
    let id = node.saga(&id).await?.operation.id;
    let saga = node.engine.settle_saga(id, &person, &said.step, word).await?;
    shown(&node, &saga).await
}

/// A saga in a line.
pub(crate) fn summary(saga: &Saga) -> Value {
    let operation = &saga.operation;
    let legs = saga.kept.as_ref().map_or(&[][..], |kept| &kept.progress.legs);
    let count = |leg: Leg| legs.iter().filter(|other| **other == leg).count();
    json!({
        "id": operation.id.to_string(),
        "tenant": operation.scope.tenant,
        "principal": operation.scope.principal,
        "key": operation.key.as_str(),
        "label": operation.label,
        "subject": operation.subject.as_ref().map(|subject| &subject.name),
        "state": saga.standing().name(),
        "ok": operation.outcome.as_ref().map(|outcome| outcome.ok),
        "at": saga.at_hand(),
        "why": saga.kept.as_ref().and_then(Kept::why),
        "progress": {
            "steps": legs.len(),
            "done": count(Leg::Done),
            "undone": count(Leg::Undone),
        },
        "created_at": shape::time(operation.created_at),
        "ended_at": operation.ended_at.map(shape::time),
        "key_expires_at": operation.key_expires_at().map(shape::time),
    })
}

/// The same with its steps; what they ask and were answered is at their operations.
fn story(saga: &Saga, found: &[(Option<Operation>, Option<Operation>)]) -> Value {
    let mut story = summary(saga);
    let Some(kept) = &saga.kept else {
        story["steps"] = json!([]);
        story["deeds"] = json!([]);
        story["paused"] = json!(false);
        story["on_failure"] = Value::Null;
        return story;
    };
    let asked = |ask: &Ask, operation: Option<&Operation>| {
        json!({
            "to": ask.route,
            "method": ask.method,
            "path": ask.path.as_str(),
            "operation": operation.map(|it| it.id.to_string()),
            "operation_state": operation.map(|it| it.state.name()),
        })
    };
    let steps = kept.definition.steps.iter().zip(&kept.progress.legs).enumerate();
    let steps = steps.map(|(at, (step, leg))| {
        let (ask, undo) = found.get(at).map_or((None, None), |it| (it.0.as_ref(), it.1.as_ref()));
        let mut shown = asked(&step.ask, ask);
        shown["name"] = json!(step.name);
        shown["state"] = json!(leg.name());
        shown["pivot"] = json!(step.is_pivot);
        shown["compensate"] = step.undo.as_ref().map_or(Value::Null, |it| asked(it, undo));
        shown
    });
    story["steps"] = steps.collect();
    story["deeds"] = kept
        .deeds
        .iter()
        .map(|deed| {
            json!({
                "deed": deed.deed, "at": shape::time(deed.at), "who": deed.who, "reason": deed.reason,
            })
        })
        .collect();
    story["paused"] = json!(kept.progress.is_paused);
    story["on_failure"] = json!(if kept.definition.stops { "stop" } else { "unwind" });
    story
}
