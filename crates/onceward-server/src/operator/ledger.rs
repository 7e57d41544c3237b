//! The ledger over the API: a backup, the end of a quarantine, its keys.

use std::sync::Arc;

use std::path::PathBuf;

use axum::extract::Extension;
use axum::routing::{get, post};
use axum::{Json, Router};
use onceward::ledger_keys::Standing;
use onceward::master_key::MasterKeyId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::{Perhaps, by};
use super::handler::{Answer, Said, invalid};
use crate::access::Caller;
use crate::node::Node;
use crate::quarantine;
use crate::view::View;

/// The paths.
pub(super) fn router() -> Router<Arc<Node>> {
    Router::new()
        .route("/v1/backup", post(backup))
        .route("/v1/release", post(release))
        .route("/v1/rekey", get(keys).post(rekey))
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
    Ok(Json(json!({"backup": to, "master_key": !node.rekey.is_given()})))
}

async fn keys(node: View) -> Answer {
    Ok(Json(shown(&node.rekey.standing().await?)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rekeying {
    /// Takes old master keys away instead of making a new one.
    #[serde(default)]
    retire: bool,
    #[serde(default)]
    reason: String,
}

async fn rekey(
    node: View,
    Extension(caller): Extension<Caller>,
    Said(Rekeying { retire, reason }): Said<Rekeying>,
) -> Answer {
    let person = by(&caller, reason)?;
    let deed = if retire { "retired master keys" } else { "rekeyed" };
    let noted = node.engine.note(&person, deed, "the ledger's keys").await?;
    let standing = if retire { node.rekey.retire().await } else { node.rekey.begin().await };
    // Whatever else goes wrong may have changed something.
    if standing.as_ref().is_err_and(|problem| problem.code == "operation-conflict") {
        node.engine.note_refused(noted).await?;
    }
    Ok(Json(shown(&standing?)))
}

fn shown(standing: &Standing) -> Value {
    let Standing { current, others, keys, seals, .. } = standing;
    let names = |ids: &[MasterKeyId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    let keys = keys.iter().map(|(number, master)| {
        json!({"number": number, "master_key": master.to_string(), "seals": number == seals})
    });
    json!({
        "current": current.to_string(),
        "others": names(others),
        "keys": keys.collect::<Vec<_>>(),
        "waiting": standing.waiting(),
        "idle": names(&standing.idle()),
    })
}

async fn release(
    node: View,
    Extension(caller): Extension<Caller>,
    perhaps: Option<Said<Perhaps>>,
) -> Answer {
    let Perhaps { reason } = perhaps.map(|Said(said)| said).unwrap_or_default();
    let person = by(&caller, reason)?;
    if !node.is_quarantined() {
        return Err(quarantine::none());
    }
    let noted = node.engine.note(&person, "released the ledger", "quarantine").await?;
    let judged = quarantine::release(&node).await;
    // Whatever else goes wrong may have let it go.
    if judged.as_ref().is_err_and(|problem| problem.code == "operation-conflict") {
        node.engine.note_refused(noted).await?;
    }
    Ok(Json(json!({"quarantined": false, "recovered": judged?})))
}
