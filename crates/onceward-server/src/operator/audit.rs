//! The audit over the API: who did what, when and why; whether its chain is whole, and its lines.

use std::sync::Arc;

use axum::response::IntoResponse as _;
use axum::routing::get;
use axum::{Json, Router};
use http::header::CONTENT_TYPE;
use onceward::core::hex;
use onceward::{Break, Head, NotAHead, Note, NoteQuery, Notes, Place, Verified, verify_audit};
use serde::Deserialize;
use serde_json::{Value, json};

use super::handler::{Answer, Asked, LIMIT_MAX, given, id_of, instant, invalid, limit_of};
use crate::node::Node;
use crate::problem::Problem;
use crate::shape;
use crate::view::View;

/// The paths.
pub(super) fn router() -> Router<Arc<Node>> {
    Router::new()
        .route("/v1/audit", get(list))
        .route("/v1/audit/verify", get(verify))
        .route("/v1/audit/export", get(export))
}

/// Which of what people did.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    /// Heeded by the view.
    #[serde(rename = "tenant")]
    _tenant: Option<String>,
    pub(crate) who: Option<String>,
    /// To exactly this: an operation, a route, a bulk, an access key.
    pub(crate) about: Option<String>,
    /// Then or later.
    pub(crate) after: Option<String>,
    pub(crate) cursor: Option<String>,
    pub(crate) limit: Option<usize>,
}

impl Which {
    /// Its words, without the place and the number.
    pub(crate) fn words(&self) -> Vec<(&'static str, &str)> {
        let words = [("who", &self.who), ("about", &self.about), ("after", &self.after)];
        words.into_iter().filter_map(|(name, word)| Some((name, given(word.as_ref())?))).collect()
    }

    /// What is found, the newest first.
    pub(crate) async fn notes(&self, node: &View) -> Result<Notes, Problem> {
        let query = NoteQuery {
            tenant: None,
            who: given(self.who.as_ref()).map(str::to_owned),
            since: given(self.after.as_ref()).map(|at| instant("", at)).transpose()?,
            before: given(self.cursor.as_ref()).map(place_of).transpose()?,
            about: given(self.about.as_ref()).map(str::to_owned),
            limit: limit_of(self.limit)?,
        };
        node.notes(query).await
    }
}

/// A place as a cursor has it: a number, or an id of before there was a chain.
fn place_of(text: &str) -> Result<Place, Problem> {
    text.parse().map(Place::Number).or_else(|_| id_of(text).map(Place::Older))
}

async fn list(node: View, Asked(which): Asked<Which>) -> Answer {
    let found = which.notes(&node).await?;
    let data: Vec<_> = found.notes.iter().map(shown).collect();
    Ok(Json(json!({"data": data, "next": found.next.map(|next| next.to_string())})))
}

/// A note as programs see it.
pub(super) fn shown(note: &Note) -> Value {
    json!({
        "number": note.head.map(|head| head.number),
        "hash": note.head.map(|head| hex::encode(&head.digest)),
        "at": shape::time(note.at),
        "who": note.who,
        "deed": note.deed,
        "about": note.about,
        "reason": note.reason,
        "refused": note.refused,
        "refuses": note.refuses,
    })
}

/// A head that was noted earlier.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    expect: Option<String>,
}

async fn verify(node: View, Asked(said): Asked<Expected>) -> Answer {
    let expected = given(said.expect.as_ref()).map(str::parse).transpose();
    let expected = expected.map_err(|error: NotAHead| invalid(format!("expect: {error}")))?;
    Ok(Json(verdict(&verify_audit(&**node.engine.store(), expected).await?)))
}

/// What a walk along the chain found, as programs see it.
pub(crate) fn verdict(found: &Verified) -> Value {
    let head = |head: Head| json!({"number": head.number, "hash": hex::encode(&head.digest)});
    let breaks = found.breaks.iter();
    let breaks = breaks.map(|Break { number, why }| json!({"number": number, "why": why}));
    json!({
        "intact": found.breaks.is_empty(),
        "head": head(found.head),
        "behind": head(found.behind),
        "notes": found.notes,
        "older": found.older,
        "breaks": breaks.collect::<Vec<_>>(),
    })
}

/// Which lines.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lines {
    /// Those behind this number.
    behind: Option<u64>,
    limit: Option<usize>,
}

async fn export(
    node: View,
    Asked(said): Asked<Lines>,
) -> Result<axum::response::Response, Problem> {
    let limit = limit_of(said.limit.or(Some(LIMIT_MAX)))?;
    let lines = node.engine.audit_lines(said.behind.unwrap_or(0), limit).await?;
    let text: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
    Ok(([(CONTENT_TYPE, "application/jsonl")], text).into_response())
}
