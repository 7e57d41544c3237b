//! Sources over the API: where webhooks come in, and which were not taken.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::Value;

use super::handler::{Answer, Asked, all, limit_of};
use crate::node::Node;
use crate::problem::Problem;
use crate::source::{Source, rejects};

/// The paths.
pub(super) fn router() -> Router<Arc<Node>> {
    Router::new()
        .route("/v1/sources", get(list))
        .route("/v1/sources/{source}", get(show))
        .route("/v1/sources/{source}/rejects", get(rejected))
}

fn find(node: &Node, name: &str) -> Result<Arc<Source>, Problem> {
    let why = || Problem::new("source-unknown", format!("No source is called {name:?}."));
    node.sources.get(name).ok_or_else(why)
}

async fn list(State(node): State<Arc<Node>>) -> Json<Value> {
    all(node.sources.all().values().map(|source| source.described()))
}

async fn show(State(node): State<Arc<Node>>, Path(name): Path<String>) -> Answer {
    Ok(Json(find(&node, &name)?.described()))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    limit: Option<usize>,
}

/// Those that are kept fit one page.
async fn rejected(
    State(node): State<Arc<Node>>,
    Path(name): Path<String>,
    Asked(which): Asked<Which>,
) -> Answer {
    let limit = limit_of(which.limit)?;
    let source = find(&node, &name)?;
    let rejects = rejects::list(&node, &source, limit).await?;
    Ok(all(rejects.iter().map(|reject| reject.shown(&source))))
}
