//! The ledger over the API: counts, a backup, the end of a quarantine.

use std::sync::Arc;

use std::path::PathBuf;

use axum::extract::Extension;
use axum::routing::{get, post};
use axum::{Json, Router};
use onceward::Person;
use serde::Deserialize;
use serde_json::{Value, json};

use super::filter::standing_name;
use super::handler::{Answer, Said, invalid};
use crate::access::Caller;
use crate::node::Node;
use crate::view::View;

/// The paths.
pub(super) fn router() -> Router<Arc<Node>> {
    Router::new()
        .route("/v1/stats", get(stats))
        .route("/v1/backup", post(backup))
        .route("/v1/release", post(release))
}

async fn stats(node: View) -> Answer {
    let counts: serde_json::Map<String, Value> = node
        .counts()
        .await?
        .iter()
        .map(|(standing, count)| (standing_name(*standing).to_owned(), json!(count)))
        .collect();
    Ok(Json(json!({
        "operations": counts,
        "ledger": node.size().await?.map(|(bytes, commits)| json!({"bytes": bytes, "commits": commits})),
        "quarantined": node.is_quarantined(),
        "version": env!("CARGO_PKG_VERSION"),
    })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BackupTo {
    to: PathBuf,
}

async fn backup(node: View, Said(BackupTo { to }): Said<BackupTo>) -> Answer {
    if !to.is_absolute() {
        return Err(invalid("to: an absolute path on the gateway's machine"));
    }
    node.backup(&to).await?;
    Ok(Json(json!({"backup": to, "master_key": !node.is_key_given})))
}

async fn release(node: View, Extension(caller): Extension<Caller>) -> Answer {
    let person = Person { who: caller.who(), reason: String::new() };
    if node.is_quarantined() {
        node.engine.note(&person, "released the ledger", "quarantine").await?;
    }
    let judged = node.release().await?;
    Ok(Json(json!({"quarantined": false, "recovered": judged})))
}
