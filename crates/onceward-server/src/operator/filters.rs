//! Saved filters over the API: listed, saved and deleted, within a tenant.

use std::sync::Arc;

use axum::extract::{Extension, Path};
use axum::routing::{delete, get};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use url::form_urlencoded::parse;

use super::access::{Perhaps, by};
use super::filter::Filter;
use super::handler::{Answer, Said, all, invalid};
use crate::access::Caller;
use crate::node::Node;
use crate::problem::Problem;
use crate::saved::{self, QUERY_BYTES_MAX, Saved};
use crate::shape;
use crate::view::View;

/// The paths.
pub(super) fn router() -> Router<Arc<Node>> {
    Router::new()
        .route("/v1/filters", get(list).post(save))
        .route("/v1/filters/{filter}", delete(forget))
}

fn shown(saved: &Saved) -> Value {
    json!({
        "name": saved.name,
        "query": saved.query,
        "page": format!("/operations?{}", saved.query),
        "who": saved.who,
        "at": shape::time(saved.at()),
    })
}

async fn list(node: View) -> Answer {
    Ok(all(node.saved_filters().await?.iter().map(shown)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    name: String,
    /// As the query of a list's address.
    query: String,
    #[serde(default)]
    reason: String,
}

async fn save(
    node: View,
    Extension(caller): Extension<Caller>,
    Said(wanted): Said<Wanted>,
) -> Answer {
    let words: Vec<_> = parse(wanted.query.as_bytes()).into_owned().collect();
    let filter = Filter::read(&words)?;
    let Wanted { name, reason, .. } = wanted;
    Ok(Json(shown(&saved(&node, &caller, name, &filter, reason, true).await?)))
}

/// Saves a filter, in the place of another of its name where it `replaces` that, and has it in the audit.
pub(crate) async fn saved(
    node: &View,
    caller: &Caller,
    name: String,
    filter: &Filter,
    reason: String,
    replaces: bool,
) -> Result<Saved, Problem> {
    saved::check_name(&name)?;
    // What finds nothing now for being no filter never would.
    filter.query()?;
    let query = filter.written();
    if query.is_empty() || query.len() > QUERY_BYTES_MAX {
        return Err(invalid(format!(
            "query: what the list is narrowed by, in up to {QUERY_BYTES_MAX} bytes"
        )));
    }
    let person = by(caller, reason)?;
    let saved = Saved::new(name, query, person.who.clone(), shape::now());
    let written = node.engine.note(&person, "saved a filter", &saved.name).await?;
    let done = saved::save(node.engine.store(), node.tenant(), &saved, replaces).await;
    if let Err(problem) = done {
        node.engine.note_refused(written).await?;
        return Err(problem);
    }
    Ok(saved)
}

async fn forget(
    node: View,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    perhaps: Option<Said<Perhaps>>,
) -> Answer {
    let Perhaps { reason } = perhaps.map(|Said(said)| said).unwrap_or_default();
    deleted(&node, &caller, &name, reason).await?;
    Ok(Json(json!({"deleted": name})))
}

/// Deletes a saved filter, and has that in the audit.
pub(crate) async fn deleted(
    node: &View,
    caller: &Caller,
    name: &str,
    reason: String,
) -> Result<(), Problem> {
    node.saved_filter(name).await?;
    let written = node.engine.note(&by(caller, reason)?, "deleted a filter", name).await?;
    if let Err(problem) = saved::delete(node.engine.store(), node.tenant(), name).await {
        node.engine.note_refused(written).await?;
        return Err(problem);
    }
    Ok(())
}
