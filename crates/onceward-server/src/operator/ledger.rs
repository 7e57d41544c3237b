//! The ledger and who may call, over the API: counts, a backup, the end of a quarantine, access keys.

use std::sync::Arc;

use std::path::PathBuf;

use axum::extract::{Extension, Path, State};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use http::StatusCode;
use onceward::Person;
use serde::Deserialize;
use serde_json::{Value, json};

use super::filter::standing_name;
use super::handler::{Answer, Said, all, invalid};
use crate::access::Caller;
use crate::node::Node;
use crate::problem::Problem;
use crate::shape;

/// The paths.
pub(super) fn router() -> Router<Arc<Node>> {
    Router::new()
        .route("/v1/stats", get(stats))
        .route("/v1/backup", post(backup))
        .route("/v1/release", post(release))
        .route("/v1/access", get(access_list).post(access_create))
        .route("/v1/access/{prefix}", delete(access_revoke))
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

async fn backup(State(node): State<Arc<Node>>, Said(BackupTo { to }): Said<BackupTo>) -> Answer {
    if !to.is_absolute() {
        return Err(invalid("to: an absolute path on the gateway's machine"));
    }
    node.backup(&to).await?;
    Ok(Json(json!({"backup": to, "master_key": !node.is_key_given})))
}

async fn release(State(node): State<Arc<Node>>, Extension(caller): Extension<Caller>) -> Answer {
    let person = Person { who: caller.who(), reason: String::new() };
    if node.is_quarantined() {
        node.engine.note(&person, "released the ledger", "quarantine").await?;
    }
    let judged = node.release().await?;
    Ok(Json(json!({"quarantined": false, "recovered": judged})))
}

async fn access_list(State(node): State<Arc<Node>>) -> Json<Value> {
    let keys = node.access.list();
    all(keys
        .iter()
        .map(|key| json!({"name": key.name, "prefix": key.prefix, "created_at": key.created_at})))
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
    Said(NewAccess { name, reason }): Said<NewAccess>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let fits = !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte));
    if !fits {
        return Err(invalid(
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
