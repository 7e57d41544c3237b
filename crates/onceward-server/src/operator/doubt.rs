//! What is done about doubts beside resolving one: the upstream is asked again, a provider's list
//! resolves many, and the ledger is held against it.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Path};
use axum::routing::{get, post};
use axum::{Json, Router};
use onceward::core::condition::Condition;
use onceward::core::id::OperationId;
use onceward::{Evidence, Report, Sifted};
use serde::Deserialize;
use serde_json::{Value, json};

use super::handler::{Act, Answer, instant, invalid, reasoned};
use crate::node::Node;
use crate::problem::Problem;
use crate::shape;
use crate::view::View;

/// The largest list of a provider's that is taken at once.
const LIST_BYTES_MAX: usize = 32 << 20;

/// How many operations of each kind an answer names.
const NAMED_MAX: usize = 1000;

/// The paths.
pub(super) fn router() -> Router<Arc<Node>> {
    Router::new()
        .route("/v1/operations/{id}/lookup", post(look))
        .route("/v1/routes/{route}/lookup", post(look_on_route))
        .route("/v1/routes/{route}/reconcile", get(reconciled))
        .route("/v1/resolve", post(resolve).layer(DefaultBodyLimit::max(LIST_BYTES_MAX)))
}

/// Asks the upstream now what became of an operation; it needs no reason, because it only reads.
async fn look(node: View, Path(id): Path<String>) -> Answer {
    let id = node.find(&id).await?.id;
    let (operation, finding) = node.engine.look_again(id).await?;
    let mut shown = node.told(&operation, None);
    shown["finding"] = json!(finding.name());
    Ok(Json(shown))
}

async fn look_on_route(node: View, Path(route): Path<String>) -> Answer {
    let tally = node.engine.look_again_on(&route).await?;
    Ok(Json(json!({
        "route": route, "found": tally.found, "absent": tally.absent,
        "unknown": tally.unknown, "left": tally.left,
    })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ByList {
    route: String,
    items: Vec<Value>,
    /// The pointer, within an item, to the operation's key, its key at the upstream, its id or label.
    r#match: String,
    found: Option<Value>,
    /// `not-sent`: what is not listed is sent again.
    absent: Option<String>,
    /// When the list was taken.
    as_of: Option<String>,
    reason: String,
    #[serde(default)]
    dry_run: bool,
}

impl ByList {
    fn evidence(self, node: &View) -> Result<Evidence, Problem> {
        node.find_route(&self.route)?;
        if !self.r#match.starts_with('/') {
            return Err(invalid("match: a JSON pointer within an item, such as /metadata/key"));
        }
        let found = self.found.as_ref().map(Condition::read).transpose();
        let found = found.map_err(|error| invalid(format!("found: {error}")))?;
        let absent_as_of = match (self.absent.as_deref(), self.as_of) {
            (None, _) => None,
            (Some("not-sent"), Some(text)) => Some(instant("as_of: ", &text)?),
            (Some("not-sent"), None) => {
                return Err(invalid(
                    "as_of: say when the list was taken; what was sent after that is not in it",
                ));
            }
            (Some(_), _) => return Err(invalid("absent: `not-sent`, or nothing")),
        };
        Ok(Evidence {
            tenant: node.only().map(str::to_owned),
            route: self.route,
            items: self.items,
            name: self.r#match,
            found,
            absent_as_of,
        })
    }
}

reasoned!(ByList);

async fn resolve(node: View, Act(person, document): Act<ByList>) -> Answer {
    let is_plan = document.dry_run;
    let evidence = document.evidence(&node)?;
    let sifted = node.engine.resolve_by_list(&evidence, &person, is_plan).await?;
    Ok(Json(shown(&sifted, is_plan)))
}

fn shown(sifted: &Sifted, is_plan: bool) -> Value {
    let group = |ids: &[OperationId]| {
        let named: Vec<_> = ids.iter().take(NAMED_MAX).map(ToString::to_string).collect();
        json!({"count": ids.len(), "operations": named})
    };
    json!({
        "dry_run": is_plan,
        "listed": group(&sifted.listed),
        "doubled": group(&sifted.doubled),
        "unclear": group(&sifted.unclear),
        "absent": group(&sifted.absent),
        "recent": group(&sifted.recent),
        "resolved": sifted.resolved,
        "overtaken": sifted.overtaken,
    })
}

async fn reconciled(node: View, Path(route): Path<String>) -> Answer {
    let report = node.engine.reconciled(&route).await?;
    let report = report.ok_or_else(|| {
        Problem::new("not-found", "It was not compared yet: [routes.NAME.reconcile] says how.")
    })?;
    Ok(Json(report_shown(&route, &report)))
}

fn report_shown(route: &str, report: &Report) -> Value {
    let (since, until) = report.period();
    let pairs = |(count, told): &(u64, Vec<(String, String)>)| {
        let told: Vec<_> =
            told.iter().map(|(id, key)| json!({"operation": id, "key": key})).collect();
        json!({"count": count, "first": told})
    };
    let differing: Vec<_> = report
        .differing
        .1
        .iter()
        .map(|(id, place, here, there)| {
            json!({"operation": id, "place": place, "here": here, "there": there})
        })
        .collect();
    json!({
        "route": route,
        "at": shape::time(report.at()),
        "since": shape::time(since),
        "until": shape::time(until),
        "listed": report.listed,
        "operations": report.operations,
        "missing": pairs(&report.missing),
        "unknown": {"count": report.unknown.0, "first": report.unknown.1},
        "differing": {"count": report.differing.0, "first": differing},
        "complete": report.is_complete,
        "error": report.error,
    })
}
