//! Sources over the API: where webhooks come in, and which were not taken.

use std::sync::Arc;

use axum::extract::Path;
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::Value;

use super::handler::{Answer, Asked, all, limit_of};
use crate::node::Node;
use crate::source::rejects;
use crate::view::View;

/// The paths.
pub(super) fn router() -> Router<Arc<Node>> {
    Router::new()
        .route("/v1/sources", get(list))
        .route("/v1/sources/{source}", get(show))
        .route("/v1/sources/{source}/rejects", get(rejected))
}

async fn list(node: View) -> Json<Value> {
    all(node.sources().iter().map(|source| source.described()))
}

async fn show(node: View, Path(name): Path<String>) -> Answer {
    Ok(Json(node.source(&name)?.described()))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    /// Heeded by the view.
    #[serde(rename = "tenant")]
    _tenant: Option<String>,
    limit: Option<usize>,
}

/// Those that are kept fit one page.
async fn rejected(node: View, Path(name): Path<String>, Asked(which): Asked<Which>) -> Answer {
    let limit = limit_of(which.limit)?;
    let source = node.source(&name)?;
    let rejects = rejects::list(&node, &source, limit).await?;
    Ok(all(rejects.iter().map(|reject| reject.shown(&source))))
}
