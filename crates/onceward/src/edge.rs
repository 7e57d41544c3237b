//! What every edge shares: headers as the ledger keeps them, and what an answer says of its operation.

mod pace;

use std::error::Error;
use std::pin::pin;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use onceward_core::exchange::Headers;
use onceward_core::operation::{Death, Operation, State};

use crate::call::Aside;
use crate::problem::Problem;
use crate::refusal::Refusal;
use crate::sabotage::Sabotage;

use self::pace::TooSlow;
pub use self::pace::{Pace, Paced};

/// Header lines as hyper takes them; a line that is no header any more is left out.
pub fn header_map(headers: &Headers) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(headers.0.len());
    for (name, value) in &headers.0 {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_maybe_shared(value.clone()))
        {
            map.append(name, value);
        }
    }
    map
}

/// Header lines as the ledger keeps them.
pub fn headers_of(map: &HeaderMap) -> Headers {
    Headers(
        map.iter()
            .map(|(name, value)| {
                (name.as_str().to_owned(), Bytes::copy_from_slice(value.as_bytes()))
            })
            .collect(),
    )
}

/// The whole body of a request, which is compared and remembered; it has to keep pace.
pub async fn read_body<B>(body: B, bytes_max: usize, pace: Pace) -> Result<Bytes, Problem>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let unread = |why: &str| Problem::new("request-invalid", why);
    let limit = if Sabotage::UnboundedBody.is_on() { usize::MAX } else { bytes_max };
    let body = pin!(body);
    match Limited::new(Paced::new(body, pace), limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Refusal::BodyTooLarge { bytes_max }.into())
        }
        Err(error) if error.is::<TooSlow>() => {
            Err(unread("The body came too slowly; nothing was sent.").status(408))
        }
        Err(_) => Err(unread("The body broke off; nothing was sent.")),
    }
}

/// The headers that tell about an operation.
pub fn describe(headers: &mut HeaderMap, operation: &Operation) {
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set("onceward-operation", &operation.id.to_string());
    set("onceward-state", operation.state.name());
    set("onceward-attempts", &operation.attempts_made().to_string());
    if let Some(at) = operation.key_expires_at() {
        set("onceward-key-expires", &at.http_date());
    }
    if let Some(newer) = operation.subject.as_ref().and_then(|subject| subject.superseded_by) {
        set("onceward-superseded-by", &newer.to_string());
    }
}

/// What every keyed answer says about its operation.
pub fn tell_of(
    headers: &mut HeaderMap,
    operation: &Operation,
    echo: Option<HeaderValue>,
    key_given: bool,
    replayed: bool,
) {
    describe(headers, operation);
    headers.insert(
        "idempotent-replayed",
        HeaderValue::from_static(if replayed { "true" } else { "false" }),
    );
    if let Some(key) = echo.or_else(|| HeaderValue::from_str(operation.key.as_str()).ok()) {
        headers.insert("idempotency-key", key);
    }
    if !key_given {
        headers.insert("onceward-key-made", HeaderValue::from_static("true"));
    }
    let advice = match operation.state {
        State::Pending { .. } | State::Delivering => Some("wait"),
        State::InDoubt => Some("escalate"),
        State::Dead(Death::Superseded) => None,
        State::Dead(_) if operation.outcome.is_none() => Some("same-key"),
        State::Done | State::Dead(_) => None,
    };
    if let Some(advice) = advice {
        headers.insert("onceward-advice", HeaderValue::from_static(advice));
    }
}

/// A refusal as a response; `echo` is the key as it came, and `key_given` whether it did.
pub fn refuse<B: From<Bytes>>(
    problem: &Problem,
    echo: Option<HeaderValue>,
    key_given: bool,
) -> Response<B> {
    let mut response = problem.response();
    // Whoever is to ask again has to know the key, above all one that was made here.
    let made = || HeaderValue::from_str(problem.operation.as_ref()?.key.as_str()).ok();
    if let Some(key) = echo.or_else(made) {
        response.headers_mut().insert("idempotency-key", key);
        if !key_given {
            response.headers_mut().insert("onceward-key-made", HeaderValue::from_static("true"));
        }
    }
    if problem.operation.is_some() {
        response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("false"));
    }
    let is_open = problem.code == "in-progress" || problem.code == "still-working";
    if let Some(instance) = problem.instance().filter(|_| is_open)
        && let Ok(location) = HeaderValue::try_from(instance)
    {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// What there is to say beside an answer.
pub fn tell_aside(headers: &mut HeaderMap, aside: &Aside) {
    for (name, operation) in [
        ("onceward-duplicate-of", aside.duplicate_of.get()),
        ("onceward-suspect-of", aside.suspect_of.get()),
    ] {
        let value = operation.and_then(|id| HeaderValue::from_str(&id.to_string()).ok());
        if let Some(value) = value {
            headers.insert(name, value);
        }
    }
}
