//! Alerts over the API: which fire and who was told, and a test of whether notices come.

use std::sync::Arc;

use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::Value;

use super::handler::{Answer, Said, all};
use crate::alerts::{self, Firing};
use crate::node::Node;
use crate::view::View;

/// The paths.
pub(super) fn router() -> Router<Arc<Node>> {
    Router::new().route("/v1/alerts", get(list)).route("/v1/alerts/test", post(test))
}

async fn list(node: View) -> Json<Value> {
    all(node.alerts_told().await.iter().map(Firing::document))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Test {
    /// The receiver's name.
    to: String,
}

async fn test(node: View, Said(Test { to }): Said<Test>) -> Answer {
    Ok(Json(alerts::test(&node, &to).await?))
}
