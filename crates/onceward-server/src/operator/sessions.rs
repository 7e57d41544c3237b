//! Sessions of the pages over the API: who is logged in, and their end.

use std::sync::Arc;

use axum::extract::{Extension, Path};
use axum::routing::{delete, get};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::access::{Perhaps, by};
use super::handler::{Answer, Said, all};
use crate::access::{By, Caller, Standing};
use crate::node::Node;
use crate::problem::Problem;
use crate::shape;
use crate::view::View;

/// The paths.
pub(super) fn router() -> Router<Arc<Node>> {
    Router::new().route("/v1/sessions", get(list)).route("/v1/sessions/{session}", delete(end))
}

async fn list(node: View) -> Json<Value> {
    all(node.access.sessions().iter().map(shown))
}

fn shown(standing: &Standing) -> Value {
    let session = &standing.session;
    let (prefix, subject) = match &session.by {
        By::Key { prefix } => (Some(prefix), None),
        By::Provider { subject, .. } => (None, Some(subject)),
        By::Operator { .. } => (None, None),
    };
    json!({
        "id": session.id(),
        "who": standing.who,
        "by": session.by.word(),
        "prefix": prefix,
        "subject": subject,
        "roles": standing.roles,
        "from": session.from,
        "created_at": session.created_at,
        "last_used_at": shape::time(standing.used),
        "ends_at": shape::time(standing.ends),
    })
}

async fn end(
    node: View,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    perhaps: Option<Said<Perhaps>>,
) -> Answer {
    let Perhaps { reason } = perhaps.map(|Said(said)| said).unwrap_or_default();
    // Another node may have begun it just now.
    node.access.refresh().await?;
    let sessions = node.access.sessions();
    let found = sessions.iter().find(|standing| standing.session.id() == id);
    let Some(found) = found else {
        return Err(Problem::new("not-found", format!("No session is called {id:?}.")));
    };
    let about = format!("{} ({id})", found.who);
    node.engine.note(&by(&caller, reason)?, "ended a session", &about).await?;
    node.access.end_session(&id).await?;
    Ok(Json(json!({"ended": id})))
}
