//! The audit over the API: who did what, when and why.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use onceward::{Note, NoteQuery, Notes};
use serde::Deserialize;
use serde_json::{Value, json};

use super::handler::{Answer, Asked, given, id_of, instant, limit_of, some};
use crate::node::Node;
use crate::problem::Problem;
use crate::shape;
use crate::view::View;

/// The paths.
pub(super) fn router() -> Router<Arc<Node>> {
    Router::new().route("/v1/audit", get(list))
}

/// Which of what people did.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    /// Heeded by the view.
    #[serde(rename = "tenant")]
    _tenant: Option<String>,
    pub(crate) who: Option<String>,
    /// Then or later.
    pub(crate) after: Option<String>,
    pub(crate) cursor: Option<String>,
    pub(crate) limit: Option<usize>,
}

impl Which {
    /// What is found, the newest first.
    pub(crate) async fn notes(&self, node: &View) -> Result<Notes, Problem> {
        let query = NoteQuery {
            tenant: None,
            who: given(self.who.as_ref()).map(str::to_owned),
            since: given(self.after.as_ref()).map(|at| instant("", at)).transpose()?,
            before: given(self.cursor.as_ref()).map(id_of).transpose()?,
            limit: limit_of(self.limit)?,
        };
        node.notes(query).await
    }
}

async fn list(node: View, Asked(which): Asked<Which>) -> Answer {
    let found = which.notes(&node).await?;
    Ok(some(found.notes.iter().map(shown), found.next))
}

fn shown(note: &Note) -> Value {
    json!({
        "at": shape::time(note.at),
        "who": note.who,
        "deed": note.deed,
        "about": note.about,
        "reason": note.reason,
        "refused": note.refused,
    })
}
