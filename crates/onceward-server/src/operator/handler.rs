//! What every handler of the API shares: how it is asked, who asks, and how lists are answered.

use axum::Json;
use axum::extract::{Form, FromRequest, FromRequestParts, OptionalFromRequest, Query, Request};
use axum::response::IntoResponse;
use http::request::Parts;
use http::{Response, StatusCode};
use http_body::Body as _;
use onceward::Person;
use onceward::core::id::{NotAnId, OperationId};
use onceward::core::key::Key;
use onceward::core::time::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::access::Caller;
use crate::body::Body;
use crate::problem::Problem;

/// How many a page has where nothing says, and at most.
const LIMIT: usize = 50;
pub(crate) const LIMIT_MAX: usize = 1000;

/// The longest reason, in bytes.
pub(crate) const REASON_BYTES_MAX: usize = 1000;

/// What a handler answers.
pub(super) type Answer = Result<Json<Value>, Problem>;

impl IntoResponse for Problem {
    fn into_response(self) -> axum::response::Response {
        let mut response = self.response::<Body>().map(axum::body::Body::new);
        // A page shows it to a browser in its own way.
        response.extensions_mut().insert(self);
        response
    }
}

/// A body for what axum answers.
pub(crate) fn from_axum(response: axum::response::Response) -> Response<Body> {
    response.map(Body::Axum)
}

/// A request that asks for what cannot be.
pub(crate) fn invalid(why: impl Into<String>) -> Problem {
    Problem::new("request-invalid", why)
}

/// A document of JSON.
#[derive(Debug)]
pub(super) struct Said<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Said<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let read = <Json<T> as FromRequest<S>>::from_request(request, state).await;
        read.map(|Json(said)| Self(said))
            .map_err(|rejection| unread(rejection.status(), rejection.body_text()))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> OptionalFromRequest<S> for Said<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Problem> {
        if request.body().is_end_stream() {
            return Ok(None);
        }
        <Self as FromRequest<S>>::from_request(request, state).await.map(Some)
    }
}

/// Why a document cannot be read.
pub(super) fn unread(status: StatusCode, why: String) -> Problem {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new("body-too-large", why),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Problem::new("media-type-unsupported", why),
        _ => invalid(why),
    }
}

/// What the query of an address says.
#[derive(Debug)]
pub(crate) struct Asked<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = Query::from_request_parts(parts, state).await;
        read.map(|Query(asked)| Self(asked)).map_err(|rejection| invalid(rejection.body_text()))
    }
}

/// What a person does, and why: a change that a document of JSON asks for.
#[derive(Debug)]
pub(super) struct Act<T>(pub(super) Person, pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Reasoned> FromRequest<S> for Act<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let caller = caller_of(&request)?;
        let Said(said) = <Said<T> as FromRequest<S>>::from_request(request, state).await?;
        Ok(Self(person(&caller, said.reason())?, said))
    }
}

/// The same, asked for by a form of a page of ours.
#[derive(Debug)]
pub(crate) struct Sent<T>(pub(crate) Person, pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Reasoned> FromRequest<S> for Sent<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let caller = caller_of(&request)?;
        let Filled(said) = Filled::<T>::from_request(request, state).await?;
        Ok(Self(person(&caller, said.reason())?, said))
    }
}

/// A form of a page of ours that needs no reason.
#[derive(Debug)]
pub(crate) struct Filled<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Filled<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let read = Form::from_request(request, state).await;
        read.map(|Form(said)| Self(said)).map_err(|rejection| invalid(rejection.body_text()))
    }
}

/// What says why.
pub(crate) trait Reasoned {
    fn reason(&self) -> &str;
}

/// Documents that say why in their `reason`.
macro_rules! reasoned {
    ($($document:ty),+ $(,)?) => {
        $(impl $crate::operator::Reasoned for $document {
            fn reason(&self) -> &str {
                &self.reason
            }
        })+
    };
}
pub(crate) use reasoned;

/// Why, and nothing else.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Because {
    reason: String,
}

reasoned!(Because);

fn caller_of(request: &Request) -> Result<Caller, Problem> {
    // `serve` admits every request before it is routed.
    let caller = request.extensions().get::<Caller>().cloned();
    caller.ok_or_else(|| Problem::new("unauthenticated", "Nobody was admitted."))
}

/// Who acts, and why; that stays with what is done.
pub(super) fn person(caller: &Caller, reason: &str) -> Result<Person, Problem> {
    let reason = reason.trim();
    if reason.is_empty() || reason.len() > REASON_BYTES_MAX {
        return Err(invalid(format!(
            "reason: say why, in up to {REASON_BYTES_MAX} bytes; it stays with the operation."
        )));
    }
    Ok(Person { who: caller.who(), reason: reason.to_owned() })
}

/// A list that is whole.
pub(super) fn all(data: impl Iterator<Item = Value>) -> Json<Value> {
    some(data, None)
}

/// A part of a list, and where the next begins.
pub(super) fn some(data: impl Iterator<Item = Value>, next: Option<OperationId>) -> Json<Value> {
    let data: Vec<_> = data.collect();
    Json(json!({"data": data, "next": next.map(|next| next.to_string())}))
}

/// How many are wanted at most.
pub(super) fn limit_of(limit: Option<usize>) -> Result<usize, Problem> {
    let limit = limit.unwrap_or(LIMIT);
    if (1..=LIMIT_MAX).contains(&limit) {
        return Ok(limit);
    }
    Err(invalid(format!("limit lies between 1 and {LIMIT_MAX}")))
}

/// What a field says; a form sends those that are left empty too.
pub(crate) fn given(field: Option<&String>) -> Option<&str> {
    field.map(String::as_str).filter(|said| !said.is_empty())
}

/// The id of an operation.
pub(crate) fn id_of(text: &str) -> Result<OperationId, Problem> {
    text.parse().map_err(|error: NotAnId| invalid(format!("{text:?} is {error}")))
}

/// A time as RFC 3339 has it; `of` says of what, with a colon, where that is not plain.
pub(super) fn instant(of: &str, text: &str) -> Result<Timestamp, Problem> {
    let at: Result<jiff::Timestamp, _> = text.parse();
    at.map(|at| Timestamp::from_micros(at.as_microsecond()))
        .map_err(|_| invalid(format!("{of}{text:?} is no time: write 2026-01-31T12:00:00Z")))
}

pub(super) fn key_of(text: &str) -> Result<Key, Problem> {
    Key::new(text).map_err(|error| Problem::new("key-invalid", error.to_string()))
}
