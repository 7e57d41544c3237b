//! The audit over the API: who did what, when and why.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use onceward::{Note, NoteQuery, Notes};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, LIMIT, LIMIT_MAX, id_of, instant};
use crate::node::Node;
use crate::problem::Problem;
use crate::shape;

/// Which of what people did.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    pub(crate) who: Option<String>,
    /// Then or later.
    pub(crate) after: Option<String>,
    pub(crate) cursor: Option<String>,
    pub(crate) limit: Option<usize>,
}

impl Which {
    /// What is found, the newest first.
    pub(crate) async fn notes(&self, node: &Node) -> Result<Notes, Problem> {
        let given = |field: &Option<String>| field.clone().filter(|value| !value.is_empty());
        let limit = self.limit.unwrap_or(LIMIT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            let why = format!("limit lies between 1 and {LIMIT_MAX}");
            return Err(Problem::new("request-invalid", why));
        }
        let query = NoteQuery {
            who: given(&self.who),
            since: given(&self.after).map(|at| instant(&at)).transpose()?,
            before: given(&self.cursor).map(|cursor| id_of(&cursor)).transpose()?,
            limit,
        };
        Ok(node.engine.notes(&query).await?)
    }
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

pub(super) async fn list(
    State(node): State<Arc<Node>>,
    which: Result<Query<Which>, QueryRejection>,
) -> Answer {
    let Query(which) =
        which.map_err(|rejection| Problem::new("request-invalid", rejection.body_text()))?;
    let found = which.notes(&node).await?;
    let data: Vec<_> = found.notes.iter().map(shown).collect();
    Ok(Json(json!({"data": data, "next": found.next.map(|next| next.to_string())})))
}
