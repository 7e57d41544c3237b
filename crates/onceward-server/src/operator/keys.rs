//! What a person does about keys, as the JSON API takes it: extend, rotate, revoke.

use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use onceward::Longer;
use onceward::core::time::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, id_of, key_of, person, read, scope_of, shown};
use crate::access::Caller;
use crate::gateway::TENANT;
use crate::node::Node;
use crate::problem::Problem;
use crate::{shape, units};

/// The paths.
pub(super) fn router() -> Router<Arc<Node>> {
    Router::new()
        .route("/v1/keys/{route}/{key}/extend", post(extend))
        .route("/v1/keys/{route}/{key}/rotate", post(rotate))
        .route("/v1/keys/revoke", post(revoke))
        .route("/v1/approvals", get(approvals))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Extend {
    reason: String,
    /// How long its outcome is replayed, from completion.
    window: Option<String>,
    /// Or until when.
    until: Option<String>,
    principal: Option<String>,
}

async fn extend(
    State(node): State<Arc<Node>>,
    Extension(caller): Extension<Caller>,
    Path((route, key)): Path<(String, String)>,
    document: Result<Json<Extend>, JsonRejection>,
) -> Answer {
    let document = read(document)?;
    let invalid = |why: String| Problem::new("request-invalid", why);
    let longer = match (document.window, document.until) {
        (Some(window), None) => Longer::Window(
            units::duration(&window).map_err(|why| invalid(format!("window: {why}")))?,
        ),
        (None, Some(until)) => {
            let at: jiff::Timestamp = until.parse().map_err(|_| {
                invalid(format!("until: {until:?} is no time: write 2026-01-31T12:00:00Z"))
            })?;
            Longer::Until(Timestamp::from_micros(at.as_microsecond()))
        }
        _ => return Err(invalid("give window or until, one of them".to_owned())),
    };
    let person = person(&caller, &document.reason)?;
    let scope = scope_of(&node, &caller, &route, document.principal.as_deref());
    let operation = node.engine.extend(&scope, &key_of(&key)?, longer, &person).await?;
    shown(&node, &operation).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotate {
    reason: String,
    /// The other key.
    to: String,
    principal: Option<String>,
}

async fn rotate(
    State(node): State<Arc<Node>>,
    Extension(caller): Extension<Caller>,
    Path((route, key)): Path<(String, String)>,
    document: Result<Json<Rotate>, JsonRejection>,
) -> Answer {
    let document = read(document)?;
    let person = person(&caller, &document.reason)?;
    let scope = scope_of(&node, &caller, &route, document.principal.as_deref());
    let (key, to) = (key_of(&key)?, key_of(&document.to)?);
    let operation = node.engine.rotate(&scope, &key, &to, &person).await?;
    shown(&node, &operation).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    reason: String,
    principal: String,
    /// Where an earlier step ended.
    cursor: Option<String>,
}

async fn revoke(
    State(node): State<Arc<Node>>,
    Extension(caller): Extension<Caller>,
    document: Result<Json<Revoke>, JsonRejection>,
) -> Answer {
    let document = read(document)?;
    if document.principal.is_empty() {
        return Err(Problem::new("request-invalid", "principal: the name of an access key"));
    }
    let person = person(&caller, &document.reason)?;
    let before = document.cursor.map(|cursor| id_of(&cursor)).transpose()?;
    let revoked = node.engine.revoke(TENANT, &document.principal, before, &person).await?;
    Ok(Json(json!({
        "revoked": revoked.keys,
        "open": revoked.open.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "next": revoked.next.map(|id| id.to_string()),
    })))
}

async fn approvals(State(node): State<Arc<Node>>) -> Answer {
    let wanted: Vec<Value> = node
        .engine
        .wanted()
        .await?
        .iter()
        .map(|wanted| {
            json!({
                "operation": wanted.operation.to_string(),
                "what": wanted.what,
                "at": shape::time(wanted.at),
                "who": wanted.who,
                "reason": wanted.reason,
            })
        })
        .collect();
    Ok(Json(json!({"data": wanted, "next": null})))
}
