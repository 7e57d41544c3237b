//! Claims over HTTP: the ledger as a service for somebody's own handlers, one key at a time or many
//! at once.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Extension, Path};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, header};
use onceward::core::admission::is_expired;
use onceward::core::claim::{fence_of, has_lapsed};
use onceward::core::exchange::Response as Kept;
use onceward::core::key::Key;
use onceward::core::operation::{Death, Fence, Operation, State as Life};
use onceward::core::policy::Effects;
use onceward::{Beginning, Begun, ClaimKey, Ended, Engine, GivenBack, Refusal};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::task::JoinSet;

use super::handler::{Answer, all, invalid, key_of, person, unread};
use super::keys::Forget;
use super::operations::shown;
use crate::access::Caller;
use crate::config::claims::described;
use crate::node::Node;
use crate::problem::Problem;
use crate::view::View;
use crate::{shape, units};

/// Claims in one request, at most.
const MANY_MAX: usize = 1000;

/// The largest request: each is in memory as a whole.
const BYTES_MAX: usize = 8 << 20;

/// How long a begin waits for somebody else's outcome, at most.
const WAIT_MAX: Duration = Duration::from_mins(1);

/// What a claim is about, its holder, its nonce and its reason: at most so long.
const TEXT_BYTES_MAX: usize = 1024;

const JSON: &str = "application/json";

/// The paths of claims.
pub(super) fn router() -> Router<Arc<Node>> {
    Router::new()
        .route("/v1/claims", get(rules))
        // `{key}` is a verb where it is posted to: begin, complete, release or renew.
        .route("/v1/claims/{scope}/{key}", get(show).post(many).delete(forget))
        .route("/v1/claims/{scope}/{key}/{verb}", post(one))
        .layer(DefaultBodyLimit::max(BYTES_MAX))
}

/// A word about a claim as it is written: alone, or as one of many with its key.
trait Written: DeserializeOwned {
    /// What is not said beside many of them.
    const NOT_BESIDE: &[&str] = &["lease", "effects", "holder"];

    /// Its key, where it is one of many.
    fn take_key(&mut self) -> Option<String>;

    /// The same with what is said beside many of them for all.
    fn beside(self, _: Beside) -> Result<Self, Problem> {
        Ok(self)
    }

    fn read(self) -> Result<Word, Problem>;
}

/// What a begin says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Begin {
    key: Option<String>,
    lease: Option<String>,
    /// A text, or any JSON value: it is compared by what it says.
    fingerprint: Option<Value>,
    effects: Option<String>,
    holder: Option<String>,
    nonce: Option<String>,
    wait: Option<String>,
}

/// How it ended.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Complete {
    key: Option<String>,
    fence: u64,
    /// Any JSON value, kept as it is written.
    outcome: Option<Box<RawValue>>,
    outcome_base64: Option<String>,
    content_type: Option<String>,
    ok: Option<bool>,
}

/// Why it is given back.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Release {
    key: Option<String>,
    fence: u64,
    reason: Option<String>,
    retry_after: Option<String>,
    #[serde(default)]
    may_have_executed: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Renew {
    key: Option<String>,
    fence: u64,
    lease: Option<String>,
}

/// The same word about many, and what is said beside them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Many<T> {
    claims: Vec<T>,
    lease: Option<String>,
    effects: Option<String>,
    holder: Option<String>,
}

/// What holds for all of many: only a begin has more to say, and a renewal its lease.
#[derive(Debug, Clone)]
struct Beside {
    lease: Option<String>,
    effects: Option<String>,
    holder: Option<String>,
}

impl Beside {
    fn leave_out(&self, names: &[&str]) -> Result<(), Problem> {
        let said = [("lease", &self.lease), ("effects", &self.effects), ("holder", &self.holder)];
        match said.iter().find(|(name, said)| said.is_some() && names.contains(name)) {
            Some((name, _)) => Err(invalid(format!("{name} belongs to begin"))),
            None => Ok(()),
        }
    }
}

/// What holds for all of many is not said of one of them.
fn not_of_one(said: &[(&str, &Option<String>)]) -> Result<(), Problem> {
    match said.iter().find(|(_, said)| said.is_some()) {
        Some((name, _)) => Err(invalid(format!("{name} is said beside claims, for all of them"))),
        None => Ok(()),
    }
}

/// A word about one claim, read.
#[derive(Debug, Clone)]
enum Word {
    Begin(Beginning),
    Complete(Fence, Ended),
    Release(Fence, GivenBack),
    Renew(Fence, Option<Duration>),
}

/// What is told of a claim; an outcome goes out as it was written.
#[derive(Debug, Default, Serialize)]
struct Told {
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ok: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    holder: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effects: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Value>,
}

#[derive(Debug, Serialize)]
struct AllTold {
    data: Vec<Told>,
}

/// A document, whatever its media type is called: a page of another origin was refused before.
fn read<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, Problem> {
    let body = body.map_err(|rejection| unread(rejection.status(), rejection.body_text()))?;
    let document = if body.is_empty() { &b"{}"[..] } else { &body };
    if document.trim_ascii_start().first() != Some(&b'{') {
        return Err(invalid("the body is no JSON object"));
    }
    serde_json::from_slice(document).map_err(|error| invalid(error.to_string()))
}

fn span(name: &str, text: Option<&str>) -> Result<Option<Duration>, Problem> {
    let read = |text| units::duration(text).map_err(|why| invalid(format!("{name}: {why}")));
    text.map(read).transpose()
}

fn short(name: &str, text: Option<String>) -> Result<Option<String>, Problem> {
    match text {
        Some(text) if text.len() > TEXT_BYTES_MAX => {
            Err(invalid(format!("{name}: at most {TEXT_BYTES_MAX} bytes")))
        }
        text => Ok(text),
    }
}

fn effects_of(word: Option<&str>) -> Result<Option<Effects>, Problem> {
    let all = [Effects::Idempotent, Effects::Keyed, Effects::NonIdempotent];
    let read = |word: &str| {
        let named = all.into_iter().find(|effects| effects.name() == word);
        named.ok_or_else(|| invalid("effects: `idempotent`, `keyed` or `non-idempotent`"))
    };
    word.map(read).transpose()
}

/// What is compared: a text's bytes, or canonical JSON.
fn about(value: Option<Value>) -> Result<Option<Bytes>, Problem> {
    let bytes = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.into_bytes(),
        Some(value) => value.to_string().into_bytes(),
    };
    if bytes.len() > TEXT_BYTES_MAX {
        return Err(invalid(format!(
            "fingerprint: at most {TEXT_BYTES_MAX} bytes; send a digest of what is larger"
        )));
    }
    Ok(Some(bytes.into()))
}

impl Written for Begin {
    const NOT_BESIDE: &[&str] = &[];

    fn take_key(&mut self) -> Option<String> {
        self.key.take()
    }

    fn beside(self, all: Beside) -> Result<Self, Problem> {
        not_of_one(&[
            ("lease", &self.lease),
            ("effects", &self.effects),
            ("holder", &self.holder),
            ("wait", &self.wait),
        ])?;
        let Beside { lease, effects, holder } = all;
        Ok(Self { lease, effects, holder, ..self })
    }

    fn read(self) -> Result<Word, Problem> {
        let wait = span("wait", self.wait.as_deref())?.unwrap_or_default();
        Ok(Word::Begin(Beginning {
            lease: span("lease", self.lease.as_deref())?,
            fingerprint: about(self.fingerprint)?,
            effects: effects_of(self.effects.as_deref())?,
            holder: short("holder", self.holder)?,
            nonce: short("nonce", self.nonce)?,
            wait: wait.min(WAIT_MAX),
        }))
    }
}

impl Written for Complete {
    fn take_key(&mut self) -> Option<String> {
        self.key.take()
    }

    fn read(self) -> Result<Word, Problem> {
        let (outcome, content_type) = match (self.outcome, self.outcome_base64) {
            (Some(_), Some(_)) => return Err(invalid("outcome or outcome_base64, not both")),
            (None, Some(coded)) => {
                let bytes = STANDARD.decode(coded);
                let bytes = bytes.map_err(|_| invalid("outcome_base64 is no base64"))?;
                (bytes, self.content_type.or_else(|| Some("application/octet-stream".to_owned())))
            }
            (Some(_), None) if self.content_type.is_some() => {
                return Err(invalid("content_type belongs to outcome_base64"));
            }
            (Some(json), None) => (json.get().as_bytes().to_vec(), Some(JSON.to_owned())),
            (None, None) => (b"null".to_vec(), Some(JSON.to_owned())),
        };
        let is_printable = |text: &String| text.bytes().all(|it| (0x20..=0x7e).contains(&it));
        let is_field = |text: &String| is_printable(text) && text.len() <= 255;
        if content_type.as_ref().is_some_and(|text| !is_field(text)) {
            return Err(invalid("content_type is no media type"));
        }
        let ok = self.ok.unwrap_or(true);
        Ok(Word::Complete(Fence(self.fence), Ended { ok, outcome: outcome.into(), content_type }))
    }
}

impl Written for Release {
    fn take_key(&mut self) -> Option<String> {
        self.key.take()
    }

    fn read(self) -> Result<Word, Problem> {
        let retry_after = span("retry_after", self.retry_after.as_deref())?.unwrap_or_default();
        if self.may_have_executed && self.retry_after.is_some() {
            return Err(invalid("retry_after belongs to what was not done"));
        }
        let back = GivenBack {
            reason: short("reason", self.reason)?,
            retry_after,
            may_have_executed: self.may_have_executed,
        };
        Ok(Word::Release(Fence(self.fence), back))
    }
}

impl Written for Renew {
    const NOT_BESIDE: &[&str] = &["effects", "holder"];

    fn take_key(&mut self) -> Option<String> {
        self.key.take()
    }

    fn beside(self, all: Beside) -> Result<Self, Problem> {
        not_of_one(&[("lease", &self.lease)])?;
        Ok(Self { lease: all.lease, ..self })
    }

    fn read(self) -> Result<Word, Problem> {
        Ok(Word::Renew(Fence(self.fence), span("lease", self.lease.as_deref())?))
    }
}

fn unknown_verb(verb: &str) -> Problem {
    let why = format!("{verb:?} is nothing to do with a claim: begin, complete, release or renew");
    Problem::new("not-found", why)
}

/// A word about one claim: its key stands in the path.
fn one_of<T: Written>(body: Result<Bytes, BytesRejection>) -> Result<Word, Problem> {
    let mut written: T = read(body)?;
    if written.take_key().is_some() {
        return Err(invalid("unknown field `key`: it stands in the path"));
    }
    written.read()
}

fn word_about_one(verb: &str, body: Result<Bytes, BytesRejection>) -> Result<Word, Problem> {
    match verb {
        "begin" => one_of::<Begin>(body),
        "complete" => one_of::<Complete>(body),
        "release" => one_of::<Release>(body),
        "renew" => one_of::<Renew>(body),
        other => Err(unknown_verb(other)),
    }
}

/// The word about each of many; one that cannot be read is told with its key.
type Each = Vec<(String, Result<Word, Problem>)>;

fn each_of<T: Written>(body: Result<Bytes, BytesRejection>) -> Result<Each, Problem> {
    let Many { claims, lease, effects, holder } = read::<Many<T>>(body)?;
    let beside = Beside { lease, effects, holder };
    beside.leave_out(T::NOT_BESIDE)?;
    let mut each = Vec::with_capacity(claims.len());
    for mut written in claims {
        let key = written.take_key().ok_or_else(|| invalid("missing field `key`"))?;
        each.push((key, written.beside(beside.clone())?.read()));
    }
    Ok(each)
}

fn words_about_many(verb: &str, body: Result<Bytes, BytesRejection>) -> Result<Each, Problem> {
    match verb {
        "begin" => each_of::<Begin>(body),
        "complete" => each_of::<Complete>(body),
        "release" => each_of::<Release>(body),
        "renew" => each_of::<Renew>(body),
        other => Err(unknown_verb(other)),
    }
}

fn check_scope(scope: &str) -> Result<(), Problem> {
    Key::new(scope).map(drop).map_err(|error| {
        let why = error.to_string().replace("the key", "it");
        invalid(format!("the scope {scope:?}: {why}"))
    })
}

fn claim_of(tenant: &str, scope: &str, key: &str) -> Result<ClaimKey, Problem> {
    check_scope(scope)?;
    Ok(ClaimKey { tenant: tenant.to_owned(), scope: scope.to_owned(), key: key_of(key)? })
}

/// What a restored ledger does not know may have been done by others: nobody begins before a person
/// has looked. Whoever had something in hand may say how it ended.
fn refuse_begins(node: &Node, verb: &str) -> Result<(), Problem> {
    if verb != "begin" {
        return Ok(());
    }
    node.check_released("Nothing was begun; `onceward restore --release` lets handlers begin.")
}

async fn one(
    node: View,
    Path((scope, key, verb)): Path<(String, String, String)>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let which = claim_of(node.tenant(), &scope, &key)?;
    refuse_begins(&node, &verb)?;
    let word = word_about_one(&verb, body)?;
    let (told, claim) = say(&node.engine, &which, word).await?;
    let mut response = Json(&told).into_response();
    shape::describe(response.headers_mut(), &claim);
    if let Some(millis) = told.retry_after_ms {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(millis.div_ceil(1000).max(1)));
    }
    Ok(response)
}

/// All at once, so that they share their durable writes; told in the order in which they came.
async fn many(
    node: View,
    Path((scope, verb)): Path<(String, String)>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    refuse_begins(&node, &verb)?;
    check_scope(&scope)?;
    let words = words_about_many(&verb, body)?;
    if words.is_empty() || words.len() > MANY_MAX {
        return Err(invalid(format!("claims: between 1 and {MANY_MAX} at once")));
    }
    let mut saying = JoinSet::new();
    let mut data: Vec<Told> = Vec::with_capacity(words.len());
    for (place, (key, word)) in words.into_iter().enumerate() {
        data.push(Told { key: key.clone(), ..Told::default() });
        let (engine, scope) = (Arc::clone(&node.engine), scope.clone());
        let tenant = node.tenant().to_owned();
        saying.spawn(async move {
            let said = async {
                let which = claim_of(&tenant, &scope, &key)?;
                say(&engine, &which, word?).await
            };
            (place, said.await)
        });
    }
    while let Some(said) = saying.join_next().await {
        let Ok((place, said)) = said else {
            return Err(Problem::from(Refusal::Draining));
        };
        match said {
            Ok((told, _)) => data[place] = told,
            Err(problem) => data[place].problem = Some(problem.document()),
        }
    }
    Ok(Json(AllTold { data }).into_response())
}

/// Says it, and what came of it.
async fn say(
    engine: &Arc<Engine>,
    which: &ClaimKey,
    word: Word,
) -> Result<(Told, Operation), Problem> {
    let (status, claim, outcome, until) = match word {
        Word::Begin(beginning) => {
            if engine.claim_rule(&which.scope).fingerprint_required
                && beginning.fingerprint.is_none()
            {
                let scope = &which.scope;
                return Err(invalid(format!(
                    "the claims of {scope:?} say what they are about: fingerprint"
                )));
            }
            match engine.begin_claim(which, &beginning).await? {
                Begun::Acquired(claim) => ("acquired", claim, None, None),
                Begun::Busy(claim, until) => ("busy", claim, None, Some(until)),
                Begun::Done(claim, outcome) => ("done", claim, outcome, None),
                Begun::InDoubt(claim) => ("in_doubt", claim, None, None),
            }
        }
        Word::Complete(fence, ended) => {
            let claim = engine.complete_claim(which, fence, &ended).await?;
            ("done", Box::new(claim), None, None)
        }
        Word::Release(fence, back) => {
            let claim = engine.release_claim(which, fence, &back).await?;
            let status = if claim.state == Life::InDoubt { "in_doubt" } else { "released" };
            (status, Box::new(claim), None, None)
        }
        Word::Renew(fence, lease) => {
            let claim = engine.renew_claim(which, fence, lease).await?;
            ("acquired", Box::new(claim), None, None)
        }
    };
    let now = shape::now();
    let mut told = told(status, &claim, outcome);
    if status == "busy" {
        // Only who has it in hand knows its fence.
        told.fence = None;
    }
    told.retry_after_ms =
        until.map(|until| u64::try_from(until.since(now).as_millis()).unwrap_or(u64::MAX).max(1));
    Ok((told, *claim))
}

/// A claim with how it stands.
fn told(status: &'static str, claim: &Operation, outcome: Option<Kept>) -> Told {
    let is_in_hand = claim.state == Life::Delivering;
    let mut told = Told {
        key: claim.key.as_str().to_owned(),
        status: Some(status),
        fence: is_in_hand.then(|| fence_of(claim).map(|fence| fence.0)).flatten(),
        lease_until: claim.lease_until.filter(|_| is_in_hand).map(shape::time),
        ok: claim.outcome.as_ref().map(|outcome| outcome.ok),
        key_expires_at: claim.key_expires_at().map(shape::time),
        holder: claim.label.clone().filter(|_| is_in_hand),
        attempt: Some(claim.attempts_made()),
        effects: Some(claim.effects.name()),
        operation: Some(claim.id.to_string()),
        ..Told::default()
    };
    let Some(Kept { headers, body, .. }) = outcome else { return told };
    let kind = headers.text("content-type");
    let json = (kind == Some(JSON)).then(|| serde_json::from_slice(&body).ok()).flatten();
    if json.is_none() {
        told.content_type = kind.map(str::to_owned);
        told.outcome_base64 = Some(STANDARD.encode(&body));
    }
    told.outcome = json;
    told
}

async fn show(
    node: View,
    Path((scope, key)): Path<(String, String)>,
) -> Result<Json<Told>, Problem> {
    let found = node.engine.claim(&claim_of(node.tenant(), &scope, &key)?).await;
    let (claim, outcome) = match found {
        Err(Refusal::NotFound) => {
            return Err(Problem::new(
                "not-found",
                "Nobody has begun it, or it has been forgotten.",
            ));
        }
        found => found?,
    };
    let now = shape::now();
    let status = match claim.state {
        _ if is_expired(&claim, now) => "expired",
        Life::Delivering if has_lapsed(&claim, now) => "lapsed",
        Life::Pending { .. } | Life::Delivering => "busy",
        Life::InDoubt => "in_doubt",
        Life::Done => "done",
        Life::Dead(Death::OwnerGone) => "lapsed",
        Life::Dead(_) => "released",
    };
    Ok(Json(told(status, &claim, outcome)))
}

async fn forget(
    node: View,
    Extension(caller): Extension<Caller>,
    Path((scope, key)): Path<(String, String)>,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let document: Forget = read(body)?;
    if document.principal.is_some() {
        return Err(invalid("principal: handlers do not differ in a scope of claims"));
    }
    let then = document.then()?;
    let which = claim_of(node.tenant(), &scope, &key)?;
    let person = person(&caller, &document.reason)?;
    let forgotten = node.engine.forget(&which.scope(), &which.key, then, &person).await?;
    shown(&node, &forgotten).await
}

/// What is said of scopes; the others have what holds without a word.
async fn rules(node: View) -> Json<Value> {
    let rules = node.engine.claim_rules();
    all(rules.iter().map(|(scope, rule)| described(scope, rule)))
}
