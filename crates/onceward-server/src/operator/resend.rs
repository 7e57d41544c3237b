//! Edit and resend: what an operation asked is asked anew, changed, by an operation of its own.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::Path;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use onceward::Edit;
use serde::Deserialize;
use serde_json::Value;

use super::handler::{Act, invalid, reasoned};
use super::operations::{risks, shown};
use crate::gateway::check_sendable;
use crate::problem::Problem;
use crate::shape;
use crate::view::View;

/// What is asked otherwise; what it does not name stays as it was.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resend {
    reason: String,
    path: Option<String>,
    /// `null` leaves a header out.
    #[serde(default)]
    headers: BTreeMap<String, Option<String>>,
    /// Text as it stands; anything else as JSON.
    body: Option<Value>,
    body_base64: Option<String>,
    /// The new operation's key; without it one is made.
    key: Option<String>,
    /// `accepted`, or the name of the risk that is taken.
    risk: Option<String>,
}

reasoned!(Resend);

pub(super) async fn resend(
    node: View,
    Path(id): Path<String>,
    asked: HeaderMap,
    Act(person, document): Act<Resend>,
) -> Result<(StatusCode, HeaderMap, Json<Value>), Problem> {
    let taken = risks(document.risk.as_deref())?;
    let original = node.find(&id).await?;
    if let Some(path) = &document.path {
        check_target(&original.method, path)?;
    }
    let edit = Edit {
        key: match document.key {
            Some(key) => Some(key),
            None => crate::gateway::key_of(&asked)?,
        },
        target: document.path,
        headers: headers(document.headers)?,
        body: body(document.body, document.body_base64)?,
    };
    let made = node.engine.resend_at_risk(original.id, edit, &person, &taken).await?;
    let mut headers = HeaderMap::new();
    if let Ok(location) = HeaderValue::from_str(&shape::url_of(made.id)) {
        headers.insert(header::LOCATION, location);
    }
    Ok((StatusCode::CREATED, headers, shown(&node, &made).await?))
}

/// Whether this path could be sent.
pub(crate) fn check_target(method: &str, path: &str) -> Result<(), Problem> {
    if !path.starts_with('/') {
        return Err(invalid(format!("path {path:?} begins with no slash")));
    }
    let method = Method::from_bytes(method.as_bytes()).unwrap_or(Method::POST);
    check_sendable(&method, path).map(drop)
}

fn headers(
    given: BTreeMap<String, Option<String>>,
) -> Result<Vec<(String, Option<Bytes>)>, Problem> {
    let read = |(name, value): (String, Option<String>)| {
        let parsed: HeaderName =
            name.parse().map_err(|_| invalid(format!("{name:?} is no header name")))?;
        let stands = |value: &String| HeaderValue::from_str(value).is_ok();
        if value.as_ref().is_some_and(|value| !stands(value)) {
            return Err(invalid(format!("the value of {parsed} cannot stand in a header")));
        }
        Ok((parsed.as_str().to_owned(), value.map(Bytes::from)))
    };
    given.into_iter().map(read).collect()
}

fn body(body: Option<Value>, base64: Option<String>) -> Result<Option<Bytes>, Problem> {
    match (body, base64) {
        (Some(_), Some(_)) => Err(invalid("give body or body_base64, not both")),
        (None, Some(coded)) => STANDARD
            .decode(coded)
            .map(|body| Some(body.into()))
            .map_err(|error| invalid(format!("body_base64: {error}"))),
        (Some(Value::String(text)), None) => Ok(Some(Bytes::from(text))),
        (Some(value), None) => Ok(Some(value.to_string().into())),
        (None, None) => Ok(None),
    }
}
