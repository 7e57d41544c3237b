//! Outboxes over the API: how far behind they are, and parked rows given free again.

use std::sync::Arc;

use axum::extract::Path;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::handler::{Act, Answer, all, reasoned};
use crate::config::Outbox;
use crate::node::Node;
use crate::outbox::{Shown, parked, retry};
use crate::problem::Problem;
use crate::shape;
use crate::view::View;

/// The paths.
pub(super) fn router() -> Router<Arc<Node>> {
    Router::new()
        .route("/v1/outbox", get(list))
        .route("/v1/outbox/{outbox}", get(show))
        .route("/v1/outbox/{outbox}/retry", post(retry_parked))
}

async fn list(node: View) -> Json<Value> {
    all(node.outboxes().iter().map(|(outbox, shown)| document(outbox, shown)))
}

fn document(outbox: &Outbox, shown: &Shown) -> Value {
    let mut document = outbox.described();
    for (member, value) in [
        ("state", json!(shown.stands.name())),
        ("lag_seconds", json!(shown.lag.map(|lag| lag.as_millis() as f64 / 1000.0))),
        ("read_at", json!(shown.read_at.map(shape::time))),
        ("remembered", json!(shown.counts.remembered)),
        ("duplicates", json!(shown.counts.duplicates)),
        ("parked", json!(shown.parked_now)),
        ("last_error", json!(shown.error.as_ref().map(|(why, _)| why))),
        ("last_error_at", json!(shown.error.as_ref().map(|(_, at)| shape::time(*at)))),
    ] {
        document[member] = value;
    }
    document
}

async fn show(node: View, Path(name): Path<String>) -> Answer {
    let (outbox, shown) = node.outbox(&name)?;
    let mut document = document(&outbox, &shown);
    document["parked_rows"] = json!(parked(&**node.engine.store(), &name).await?);
    Ok(Json(document))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Retry {
    reason: String,
    /// One of them; all where nothing says.
    id: Option<String>,
}

reasoned!(Retry);

async fn retry_parked(
    node: View,
    Path(name): Path<String>,
    Act(person, Retry { id, .. }): Act<Retry>,
) -> Answer {
    node.outbox(&name)?;
    let store = &**node.engine.store();
    let rows = parked(store, &name).await?;
    let is_meant = |row: &&crate::outbox::Parked| id.as_ref().is_none_or(|id| *id == row.id);
    let ids: Vec<&str> = rows.iter().filter(is_meant).map(|row| row.id.as_str()).collect();
    if let (Some(id), true) = (&id, ids.is_empty()) {
        return Err(Problem::new("not-found", format!("No row {id:?} is parked.")));
    }
    node.engine.note(&person, "retried parked rows", &format!("outbox {name}")).await?;
    retry(store, &name, ids.iter().copied()).await?;
    node.outboxes.look_again(&name);
    Ok(Json(json!({"retried": ids})))
}
