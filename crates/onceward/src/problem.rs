//! Every refusal as callers read it: its status, its advice and its words, in one table (RFC 9457).
//! All edges have it, the gateway's and a handler's.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use onceward_core::fingerprint::Part;
use onceward_core::id::OperationId;
use onceward_core::key::ScopeKind;
use onceward_core::operation::{Deed, Operation, State};
use onceward_core::time::Timestamp;
use serde_json::{Value, json};

use crate::edge;
use crate::gates::Bar;
use crate::refusal::Refusal;
use crate::store::StoreError;

/// A refusal as it goes out.
#[derive(Debug, Clone)]
pub struct Problem {
    /// What `type` ends in.
    pub code: &'static str,
    /// The status of its response.
    pub status: u16,
    /// What happened, for this call.
    pub detail: String,
    /// What is left to do: `same-key`, `wait`, `new-key`, `fix-request` or `escalate`.
    pub advice: &'static str,
    /// When to come back.
    pub retry_after: Option<Duration>,
    /// The operation that it is about.
    pub operation: Option<Box<Operation>>,
    /// Whether that has a page of its own, as it has at the gateway.
    pub has_page: bool,
    /// Further members.
    pub more: Vec<(&'static str, Value)>,
}

/// Where the gateway shows an operation.
pub fn instance_of(id: OperationId) -> String {
    format!("/v1/operations/{id}")
}

/// What stands in for a code that the table has not.
const GONE_WRONG: (&str, u16, &str, &str) =
    ("gone-wrong", 500, "escalate", "Something of ours went wrong");

/// The table: code, status, advice, title.
const TABLE: &[(&str, u16, &str, &str)] = &[
    ("key-invalid", 400, "fix-request", "The idempotency key cannot be read"),
    ("key-required", 400, "fix-request", "This route wants an Idempotency-Key"),
    ("key-mismatch", 409, "new-key", "The key was used for another request"),
    ("fence-stale", 409, "escalate", "Its holder has it in hand no more"),
    ("in-progress", 409, "wait", "The first call with this key is under way"),
    ("outcome-unknown", 409, "escalate", "Nobody knows whether it was done"),
    ("key-expired", 410, "new-key", "The key was used, and its window is over"),
    ("key-invalidated", 410, "new-key", "The key was dropped"),
    ("cancelled", 410, "new-key", "The operation was given up"),
    ("response-not-retained", 409, "escalate", "It was done, and its answer is not retained"),
    ("upstream-unreachable", 503, "same-key", "The upstream was not reached; nothing was sent"),
    ("no-answer", 504, "same-key", "The upstream gave no answer"),
    ("still-working", 504, "same-key", "The upstream is still at work"),
    ("route-unknown", 404, "fix-request", "There is no such route"),
    ("url-invalid", 400, "fix-request", "The URL cannot be used"),
    ("egress-refused", 403, "fix-request", "This address is not open to callers"),
    ("body-too-large", 413, "fix-request", "The body is larger than is taken"),
    ("media-type-unsupported", 415, "fix-request", "The body is of another type than is read"),
    ("option-invalid", 400, "fix-request", "A request option cannot be read"),
    ("request-invalid", 400, "fix-request", "The request cannot be read"),
    ("limit", 503, "same-key", "Too much at once"),
    ("breaker-open", 503, "same-key", "The upstream fails, and is left alone for a while"),
    ("upstream-held", 503, "same-key", "The upstream asked to be left alone for a while"),
    ("route-paused", 503, "same-key", "A person paused this route"),
    ("ledger-unavailable", 503, "same-key", "The ledger cannot be used"),
    ("ledger-full", 507, "same-key", "The ledger has no room"),
    ("draining", 503, "same-key", "The gateway is ending"),
    (
        "quarantine",
        503,
        "same-key",
        "The ledger was restored and sends nothing until it is released",
    ),
    ("operation-conflict", 409, "fix-request", "That cannot be done now"),
    ("risk-unaccepted", 409, "fix-request", "It could be done twice, and nobody took that risk"),
    ("operation-open", 409, "wait", "The operation has not ended"),
    ("not-found", 404, "fix-request", "There is no such thing"),
    ("method-not-allowed", 405, "fix-request", "This method does not belong here"),
    ("unauthenticated", 401, "fix-request", "An access key is needed"),
    ("forbidden", 403, "fix-request", "This is not allowed from there, or with this key"),
    ("login-refused", 403, "fix-request", "Nobody was logged in"),
    GONE_WRONG,
    ("no-outcome", 404, "wait", "There is no answer to show"),
    ("outside-hours", 503, "same-key", "This route sends at other hours"),
    ("loop", 508, "fix-request", "The request has come round"),
    ("upgrade-refused", 501, "fix-request", "Only HTTP goes through"),
    ("source-unknown", 404, "fix-request", "There is no such source"),
    ("webhook-rejected", 400, "fix-request", "The webhook is not taken"),
    ("approval-wanted", 409, "wait", "Another person has to ask for the same"),
    (
        "reauthorize-failed",
        503,
        "same-key",
        "Nobody could say whether this caller may have the answer",
    ),
];

/// Of the table: what is told only to whoever asks the rest of the gateway. Every other code may meet
/// a caller of a route.
const OF_NO_CALL: [&str; 12] = [
    "fence-stale",
    "media-type-unsupported",
    "risk-unaccepted",
    "operation-open",
    "not-found",
    "method-not-allowed",
    "login-refused",
    "gone-wrong",
    "no-outcome",
    "source-unknown",
    "webhook-rejected",
    "approval-wanted",
];

impl Problem {
    /// The problem of this code, with its detail. A code that the table has not is `gone-wrong`.
    pub fn new(code: &str, detail: impl Into<String>) -> Self {
        let found = TABLE.iter().find(|(known, ..)| *known == code);
        let (code, status, advice, _) = found.copied().unwrap_or(GONE_WRONG);
        Self {
            code,
            status,
            detail: detail.into(),
            advice,
            retry_after: None,
            operation: None,
            has_page: true,
            more: Vec::new(),
        }
    }

    /// Every code with its status and its advice, and its title.
    pub fn all() -> impl Iterator<Item = (&'static str, u16, &'static str, &'static str)> {
        TABLE.iter().copied()
    }

    /// The same of the codes that a caller of a route may meet.
    pub fn of_calls() -> impl Iterator<Item = (&'static str, u16, &'static str, &'static str)> {
        Self::all().filter(|(code, ..)| !OF_NO_CALL.contains(code))
    }

    /// It is about this operation.
    #[must_use]
    pub fn about(mut self, operation: Box<Operation>) -> Self {
        self.operation = Some(operation);
        self
    }

    /// With this status, where that is not the table's.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// With the time after which to come back.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// With a further member.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: Value) -> Self {
        self.more.push((name, value));
        self
    }

    /// What it is, in a line.
    pub fn title(&self) -> &'static str {
        TABLE.iter().find(|(code, ..)| *code == self.code).map_or("", |(.., title)| title)
    }

    /// Where its operation is looked at.
    pub fn instance(&self) -> Option<String> {
        let operation = self.operation.as_ref().filter(|_| self.has_page)?;
        Some(instance_of(operation.id))
    }

    /// The document.
    pub fn document(&self) -> Value {
        let mut document = json!({
            "type": format!("urn:onceward:problem:{}", self.code),
            "title": self.title(),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "advice": self.advice,
        });
        if let Some(operation) = &self.operation {
            document["operation"] = json!(operation.id.to_string());
            document["state"] = json!(operation.state.name());
        }
        if let Some(instance) = self.instance() {
            document["instance"] = json!(instance);
        }
        for (name, value) in &self.more {
            document[*name] = value.clone();
        }
        document
    }

    /// The response. It has the problem among its extensions, for whoever gives it another shape.
    pub fn response<B: From<Bytes>>(&self) -> Response<B> {
        let body = serde_json::to_vec(&self.document()).unwrap_or_default();
        let mut response = Response::new(B::from(body.into()));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert("onceward-advice", HeaderValue::from_static(self.advice));
        if let Some(wait) = self.retry_after {
            // Never earlier than meant: seconds are rounded up.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == 401 {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"onceward\""),
            );
        }
        if let Some(operation) = &self.operation {
            edge::describe(headers, operation);
        }
        response.extensions_mut().insert(Arc::new(self.clone()));
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let detail = error.to_string();
        match error {
            StoreError::Full(_) => {
                Self::new("ledger-full", detail).retry_after(Duration::from_secs(5))
            }
            StoreError::Stale => Self::new("operation-conflict", detail),
            StoreError::Away(_) | StoreError::Unavailable(_) | StoreError::Damaged(_) => {
                Self::new("ledger-unavailable", detail).retry_after(Duration::from_secs(2))
            }
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let second = Duration::from_secs(1);
        match refusal {
            Refusal::KeyInvalid(error) => Self::new("key-invalid", format!("{error}: nothing was sent")),
            Refusal::KeyRequired(None) => Self::new("key-required", "Send an Idempotency-Key of your own making: it names one intended effect."),
            Refusal::KeyRequired(Some(why)) => Self::new("key-required", format!("On this route the key is made of the request, and {why}; nothing was sent.")),
            Refusal::KeyWeak(why) => Self::new("key-invalid", format!("{why}; nothing was sent.")),
            Refusal::KeyTooOld(made_at) => {
                let made_at = made_at.rfc3339();
                Self::new("key-expired", format!("It was made at {made_at}, and what was done with a key of that age is forgotten. Nothing was sent now."))
                    .with("made_at", json!(made_at))
            }
            Refusal::NoPlaceForKey { place, why } => Self::new("request-invalid", format!("The upstream takes its key at {place}, and {why}. Nothing was sent.")),
            Refusal::MailInvalid(why) => Self::new("request-invalid", format!("This route sends mails: {why}. Nothing was sent.")),
            Refusal::KeyMismatch { operation, parts, paths, status } => {
                let is_claim = operation.scope.kind == ScopeKind::Claim;
                let name = |part: &Part| if is_claim { "fingerprint" } else { part.name() };
                let names: Vec<_> = parts.iter().map(name).collect();
                Self::new("key-mismatch", format!("It differs in: {}. Nothing was sent; a new intent needs a new key.", names.join(", ")))
                    .status(status)
                    .with("differs", json!(names))
                    .with("paths", json!(paths))
                    .about(operation)
            }
            Refusal::FenceStale(operation) => {
                let stands = operation.state.name().replace('_', " ");
                Self::new("fence-stale", format!("Somebody has begun it since, or it has ended otherwise: it is {stands}. Nothing was changed."))
                    .about(operation)
            }
            Refusal::InProgress(operation) => {
                Self::new("in-progress", "Ask again with the same key to get its outcome.").retry_after(second).about(operation)
            }
            Refusal::OutcomeUnknown { operation, first } if operation.looks.next.is_some() => {
                let next = operation.looks.next.map(Timestamp::rfc3339).unwrap_or_default();
                let detail = format!("The request was sent and no answer says whether it was done. The upstream is asked again at {next}.");
                Self { advice: "wait", ..Self::new("outcome-unknown", detail) }.status(if first { 504 } else { 409 }).about(operation)
            }
            Refusal::OutcomeUnknown { operation, first } => Self::new(
                "outcome-unknown",
                "The request was sent and no answer says whether it was done. It will not be sent again by itself; a person resolves it.",
            )
            .status(if first { 504 } else { 409 })
            .about(operation),
            Refusal::KeyExpired(operation) => {
                let when = operation.key_expires_at().map(Timestamp::rfc3339).unwrap_or_default();
                Self::new("key-expired", format!("Its operation ended {}, and its outcome was forgotten at {when}. Nothing was sent now.", operation.state.name()))
                    .with("used_at", json!(operation.created_at.rfc3339()))
                    .with("ended", json!(operation.state.name()))
                    .with("expired_at", json!(when))
                    .about(operation)
            }
            Refusal::KeyInvalidated(operation) => {
                let reason = operation.acts.last().map(|act| act.reason.clone()).unwrap_or_default();
                Self::new("key-invalidated", format!("A person dropped it: {reason}. Nothing was sent now.")).with("reason", json!(reason)).about(operation)
            }
            Refusal::Cancelled(operation) => {
                let reason = operation.acts.last().map(|act| act.reason.clone()).unwrap_or_default();
                Self::new("cancelled", format!("A person gave it up: {reason}. Nothing was sent now.")).with("reason", json!(reason)).about(operation)
            }
            Refusal::ResponseNotRetained(operation) => {
                let outcome = operation.outcome.as_ref();
                Self::new("response-not-retained", "Its outcome is known, but not its answer; look at the operation.")
                    .with("original_status", json!(outcome.and_then(|outcome| outcome.status)))
                    .with("ok", json!(outcome.map(|outcome| outcome.ok)))
                    .with("source", json!(outcome.map(|outcome| outcome.source.name())))
                    .with("evidence", json!(evidence(&operation)))
                    .about(operation)
            }
            Refusal::UpstreamUnreachable(operation) => {
                let why = last_error(&operation);
                Self::new("upstream-unreachable", format!("No attempt sent anything: {why}. The same key may run again.")).retry_after(second).about(operation)
            }
            Refusal::NoAnswer(operation) => {
                let why = last_error(&operation);
                Self::new("no-answer", format!("{why}. The same key goes on under the same operation.")).retry_after(second).about(operation)
            }
            Refusal::StillWorking(operation) => {
                Self::new("still-working", "Ask again with the same key to get its outcome.").retry_after(second).about(operation)
            }
            Refusal::PassFailed { error, unsent: true } => Self::new("upstream-unreachable", error),
            Refusal::PassFailed { error, unsent: false } => Self::new("no-answer", error),
            Refusal::RouteUnknown(name) => Self::new("route-unknown", format!("No route is called {name:?}; add [routes.{name}] to the configuration.")),
            Refusal::BodyTooLarge { bytes_max } => Self::new("body-too-large", format!("This route takes {bytes_max} bytes; nothing was sent.")),
            Refusal::TenantLimit { tenant, what, retry_after } => {
                let detail = format!("{what} of the tenant {tenant} is reached; nothing was sent.");
                let mut problem = Self::new("limit", detail).retry_after(retry_after);
                problem.status = 429;
                problem.more.push(("limit", Value::from(what)));
                problem
            }
            Refusal::Limit { what, retry_after } => Self::new("limit", format!("{what}; nothing was sent.")).retry_after(retry_after),
            Refusal::Barred { why, retry_after } => {
                let (code, detail) = match why {
                    Bar::Paused => ("route-paused", "Nothing was sent. Accepted calls wait until it is resumed."),
                    Bar::OutsideHours => ("outside-hours", "Nothing was sent. Accepted calls wait for its hours."),
                    Bar::UpstreamAsked => ("upstream-held", "Nothing was sent. Accepted calls wait."),
                    _ => ("breaker-open", "Nothing was sent. Accepted calls wait until the upstream answers again."),
                };
                Self::new(code, detail).retry_after(retry_after)
            }
            Refusal::Ledger(error) => error.into(),
            Refusal::Conflict { operation, why } => {
                let code = if operation.state.is_ended() || operation.state == State::InDoubt { "operation-conflict" } else { "operation-open" };
                Self::new(code, why).about(operation)
            }
            Refusal::SecondWanted { operation, who, what } => {
                Self::new("approval-wanted", format!("{who} asked for it ({what}); within a day, another person who asks for the same has it done.")).with("what", json!(what)).about(operation)
            }
            Refusal::RiskUnaccepted { operation, risk } => {
                let first = if operation.state == State::InDoubt { " An operation in doubt is resolved first: say whether it was done." } else { "" };
                Self::new("risk-unaccepted", format!("{} Nothing was sent.{first} Whoever wants it sent all the same says so: risk {:?}.", risk.words(), risk.name()))
                    .with("risk", json!(risk.name()))
                    .about(operation)
            }
            Refusal::NotFound => Self::new("not-found", "It was never there, or it has been forgotten."),
            Refusal::Draining => Self::new("draining", "Nothing was sent; ask again.").retry_after(second),
        }
    }
}

/// What a person or a lookup said that resolved it.
fn evidence(operation: &Operation) -> Option<String> {
    let act = operation.acts.iter().rfind(|act| act.deed == Deed::ResolvedDone);
    act.map(|act| act.reason.clone())
}

fn last_error(operation: &Operation) -> String {
    let ended = operation.attempts.last().and_then(|attempt| attempt.ended.as_ref());
    ended
        .and_then(|ended| ended.error.clone())
        .unwrap_or_else(|| "the upstream gave no usable answer".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_the_table_once_with_an_advice_that_is_known() {
        let mut codes: Vec<_> = TABLE.iter().map(|(code, ..)| code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), TABLE.len());
        assert!(OF_NO_CALL.iter().all(|code| codes.contains(&code)));
        for (code, status, advice, _) in TABLE {
            assert!((400..600).contains(status), "{code}");
            assert!(
                ["same-key", "wait", "new-key", "fix-request", "escalate"].contains(advice),
                "{code}"
            );
        }
    }
}
