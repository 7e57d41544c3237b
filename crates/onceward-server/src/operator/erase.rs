//! Erasing somebody's data over the API: planned first, then done.

use std::sync::Arc;

use axum::routing::post;
use axum::{Json, Router};
use onceward::{Erased, Erasure, Person, Refusal, Whose};
use serde::Deserialize;
use serde_json::json;

use super::handler::{Act, Answer, Reasoned, id_of, invalid, key_of};
use crate::node::Node;
use crate::problem::Problem;
use crate::view::View;

/// The paths.
pub(super) fn router() -> Router<Arc<Node>> {
    Router::new().route("/v1/erase", post(erase))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Erase {
    reason: String,
    subject: Option<String>,
    principal: Option<String>,
    route: Option<String>,
    key: Option<String>,
    /// The id of a saga.
    saga: Option<String>,
    /// Whether it is only counted.
    #[serde(default)]
    dry_run: bool,
    /// Whether what waits is given up first.
    #[serde(default)]
    cancel: bool,
}

impl Reasoned for Erase {
    fn reason(&self) -> &str {
        // A plan changes nothing, and needs no reason.
        if self.dry_run && self.reason.is_empty() { "a plan" } else { &self.reason }
    }
}

impl Erase {
    fn whose(&self, node: &View) -> Result<Whose, Problem> {
        match (&self.subject, &self.principal, &self.route, &self.key, &self.saga) {
            (Some(subject), None, None, None, None) => Ok(Whose::Subject(subject.clone())),
            (None, Some(principal), None, None, None) => Ok(Whose::Principal(principal.clone())),
            (None, None, None, None, Some(saga)) => Ok(Whose::Saga(id_of(saga)?)),
            (None, principal, Some(route), Some(key), None) => {
                let principal = principal.as_deref().unwrap_or_default();
                Ok(Whose::Key(node.scope_of(route, principal), key_of(key)?))
            }
            _ => Err(invalid("say whose: `subject`, `principal`, `saga`, or `route` and `key`")),
        }
    }

    fn erasure(&self, node: &View, person: Person) -> Result<Erasure, Problem> {
        let whose = self.whose(node)?;
        let (cancels, is_plan) = (self.cancel, self.dry_run);
        Ok(Erasure { tenant: node.tenant().to_owned(), whose, person, cancels, is_plan })
    }
}

async fn erase(node: View, Act(person, said): Act<Erase>) -> Answer {
    let erasure = said.erasure(&node, person)?;
    // It goes on though whoever asked hangs up.
    let done = tokio::spawn(async move { node.engine.erase(&erasure).await });
    let done = done.await.map_err(|error| Problem::new("gone-wrong", error.to_string()))?;
    let Erased { operations, open, open_count } = match done {
        Err(Refusal::NotFound) => {
            return Err(Problem::new(
                "not-found",
                "No operation has this key on this route, or no saga this id.",
            ));
        }
        done => done?,
    };
    let open: Vec<_> = open.iter().map(ToString::to_string).collect();
    Ok(Json(json!({"operations": operations, "open": open, "open_count": open_count})))
}
