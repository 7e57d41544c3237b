//! Sources over the API: where webhooks come in, and which were not taken.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::{Answer, LIMIT, LIMIT_MAX};
use crate::node::Node;
use crate::problem::Problem;
use crate::source::{Source, rejects};

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

async fn list(State(node): State<Arc<Node>>) -> Answer {
    let sources = node.sources.all();
    let data: Vec<_> = sources.values().map(|source| source.described()).collect();
    Ok(Json(json!({"data": data, "next": null})))
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
    which: Result<Query<Which>, QueryRejection>,
) -> Answer {
    let Query(Which { limit }) =
        which.map_err(|rejection| Problem::new("request-invalid", rejection.body_text()))?;
    let limit = limit.unwrap_or(LIMIT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        let why = format!("limit lies between 1 and {LIMIT_MAX}");
        return Err(Problem::new("request-invalid", why));
    }
    let source = find(&node, &name)?;
    let rejects = rejects::list(&node, &source, limit).await?;
    let data: Vec<_> = rejects.iter().map(|reject| reject.shown(&source)).collect();
    Ok(Json(json!({"data": data, "next": null})))
}
