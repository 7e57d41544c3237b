//! What a handler's answer is in the ledger, and what callers of a handler are answered.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Error, Refusal, problem};
use crate::keys::key_field;
use crate::shapes::{Advice, Problem, ProblemCode};
use crate::units::from_base64;

/// Headers of an answer that are kept: what belongs to one moment or one session is not.
const KEPT: [&str; 12] = [
    "content-type",
    "content-language",
    "content-encoding",
    "content-disposition",
    "content-location",
    "location",
    "etag",
    "last-modified",
    "link",
    "allow",
    "deprecation",
    "sunset",
];

/// An outcome as it lies in the ledger; all SDKs write it alike.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    status: u16,
    headers: Vec<(String, String)>,
    /// Nothing where it was too large to keep.
    body_base64: Option<String>,
}

impl Kept {
    pub(super) fn of(status: StatusCode, headers: &HeaderMap, body: Option<&Bytes>) -> Self {
        let is_kept = |name: &HeaderName| KEPT.contains(&name.as_str());
        let lines = headers.iter().filter(|(name, _)| is_kept(name));
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            value.to_str().ok().map(|value| (name.to_string(), value.to_owned()))
        };
        let body_base64 = body.map(|body| STANDARD.encode(body));
        Self { status: status.as_u16(), headers: lines.filter_map(line).collect(), body_base64 }
    }

    pub(super) fn into_value(self) -> Value {
        let Self { status, headers, body_base64 } = self;
        json!({ "status": status, "headers": headers, "body_base64": body_base64 })
    }

    /// The answer that an outcome says; nothing where it is none of a handler, or was not kept.
    pub(super) fn answer(outcome: Value) -> Option<Response<Bytes>> {
        let kept: Self = serde_json::from_value(outcome).ok()?;
        let mut answer = Response::new(from_base64(&kept.body_base64?)?.into());
        *answer.status_mut() = kept.status.try_into().ok()?;
        for (name, value) in kept.headers {
            let line = (HeaderName::try_from(name), HeaderValue::try_from(value));
            if let (Ok(name), Ok(value)) = line {
                answer.headers_mut().append(name, value);
            }
        }
        Some(answer)
    }
}

/// What is said of a keyed request beside its answer.
pub(super) struct Told<'a> {
    pub(super) key: &'a str,
    pub(super) operation: Option<&'a str>,
    pub(super) state: Option<&'static str>,
    pub(super) advice: Option<&'static str>,
    pub(super) is_replay: bool,
}

impl<'a> Told<'a> {
    /// Of a refusal: where it lies in the gateway is nobody's business, and its advice stands already.
    pub(super) fn of(key: &'a str) -> Self {
        Self { key, operation: None, state: None, advice: None, is_replay: false }
    }

    pub(super) fn write(&self, headers: &mut HeaderMap) {
        let field = key_field(self.key).ok();
        let mut set = |name: &'static str, value: Option<&str>| {
            if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
                headers.insert(name, value);
            }
        };
        set("idempotency-key", field.as_deref());
        set("idempotent-replayed", Some(if self.is_replay { "true" } else { "false" }));
        set("onceward-operation", self.operation);
        set("onceward-state", self.state);
        set("onceward-advice", self.advice);
    }
}

/// A refusal, as callers of a handler get it: where it lies in the gateway is none of their business.
pub(super) fn refused(refusal: &Refusal) -> Response<Bytes> {
    let Problem { code, status, advice, title, detail, differs, .. } = refusal.problem();
    let said = problem(code.clone(), *status, advice.clone(), title, detail.clone());
    let mut answer = told(&Problem { differs: differs.clone(), ..said });
    if let Some(wait) = refusal.retry_after() {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        answer.headers_mut().insert("retry-after", seconds.into());
    }
    answer
}

/// A problem of this side's, as an answer.
pub(super) fn refuse(
    code: ProblemCode,
    status: u16,
    advice: Advice,
    title: &str,
    detail: &str,
) -> Response<Bytes> {
    told(&problem(code, status, advice, title, detail))
}

fn told(said: &Problem) -> Response<Bytes> {
    let mut document = json!({
        "type": said.r#type, "title": said.title, "status": said.status, "detail": said.detail,
        "code": said.code, "advice": said.advice,
    });
    if let Some(differs) = &said.differs {
        document["differs"] = json!(differs);
    }
    let mut answer = Response::new(document.to_string().into());
    *answer.status_mut() = said.status.try_into().unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = answer.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/problem+json"));
    headers.insert("cache-control", HeaderValue::from_static("no-store"));
    if let Ok(advice) = HeaderValue::try_from(said.advice.as_str()) {
        headers.insert("onceward-advice", advice);
    }
    if said.status == 503 {
        headers.insert("retry-after", HeaderValue::from_static("1"));
    }
    answer
}

/// What a caller gets where the claim was not begun; an error that only whoever runs the handler can
/// mend says no more.
pub(super) fn not_begun(error: &Error) -> Response<Bytes> {
    match error {
        Error::KeyMismatch(refusal) | Error::KeyExpired(refusal) => refused(refusal),
        Error::Unreachable { .. } | Error::Unavailable(_) => {
            let detail =
                "The ledger could not be asked; nothing was done. Ask again with the same key.";
            let code = ProblemCode::LedgerUnavailable;
            refuse(code, 503, Advice::SameKey, "The ledger cannot be used", detail)
        }
        _ => {
            let detail = "The ledger did not take it; nothing was done.";
            let code = ProblemCode::GoneWrong;
            refuse(code, 500, Advice::Escalate, "Something went wrong here", detail)
        }
    }
}

/// What a caller gets where the handler ran, and the ledger could not be told how it ended.
pub(super) fn lost(error: &Error) -> Response<Bytes> {
    if let Error::FenceStale(refusal) = error {
        return refused(refusal);
    }
    unknown("The handler ran, and its outcome could not be written down.")
}

/// Nobody knows.
pub(super) fn unknown(detail: &str) -> Response<Bytes> {
    let code = ProblemCode::OutcomeUnknown;
    refuse(code, 504, Advice::Escalate, "Nobody knows whether it was done", detail)
}

/// It is done, and there is nothing to give.
pub(super) fn not_retained() -> Response<Bytes> {
    let title = "It was done, and its answer is not retained";
    let code = ProblemCode::ResponseNotRetained;
    refuse(code, 409, Advice::Escalate, title, "Its outcome is known, but not its answer.")
}
