//! Routes over the API: what is configured, what stands before each upstream, a pause of one, and a look at
//! one whose breaker is open.

use std::sync::Arc;

use axum::extract::{Extension, Path};
use axum::routing::{get, post};
use axum::{Json, Router};
use onceward::core::hours::Hours;
use onceward::core::policy::Effects;
use onceward::route::Route;
use onceward::{Bar, Probed};
use serde_json::{Value, json};

use super::advice;
use super::contract;
use super::handler::{Act, Answer, Because, all};
use crate::access::Caller;
use crate::config::{ORDERS, word_of};
use crate::node::Node;
use crate::shape;
use crate::view::View;

/// What is said in a quarantine.
pub(crate) const NOT_ASKED: &str =
    "The ledger was restored and is in quarantine: no upstream is asked.";

/// The paths.
pub(super) fn router() -> Router<Arc<Node>> {
    Router::new()
        .route("/v1/routes", get(list))
        .route("/v1/routes/{route}/advice", get(advice::advice))
        .route("/v1/routes/{route}/contract", get(contract::show_contract))
        .route("/v1/routes/{route}/pause", post(pause))
        .route("/v1/routes/{route}/resume", post(resume))
        .route("/v1/routes/{route}/probe", post(probe))
}

async fn list(node: View, Extension(caller): Extension<Caller>) -> Json<Value> {
    let routes = node.routes();
    let reached = routes.iter().filter(|route| caller.reaches(&route.name));
    all(reached.map(|route| shown(&node, route)))
}

fn shown(node: &View, route: &Route) -> Value {
    let guards = node.guards.all();
    let guard = guards.get(&route.name);
    json!({
        "name": route.name,
        "listen": guard.map(|guard| &guard.listen),
        "host": guard.map(|guard| &guard.hosts),
        "upstream": route.target.base.as_str(),
        "effects": route.policy.effects.map(Effects::name),
        "mode": route.policy.mode.name(),
        "window": crate::units::show(route.policy.window),
        "rules": route.rules.len(),
        "concurrency_max": route.protection.slots_max,
        "flow": json!({"concurrency_max": route.protection.flow.slots_max}),
        "order": word_of(ORDERS, &route.policy.order),
        "tenants": route.tenants.as_ref().filter(|_| node.keeps(route)),
        // How busy others are with it is theirs.
        "gate": if node.keeps(route) { gate(node, &route.name) } else { Value::Null },
        "lookup": route.policy.lookup.as_ref().map(|rule| rule.get.as_str()),
        "hours": route.policy.hours.as_ref().map(Hours::as_str),
        "chaos": route.chaos.as_ref().map(|chaos| {
            let of = chaos.percentages().map(|(fault, percent)| (fault.name().to_owned(), json!(percent)));
            let mut shown = serde_json::Map::from_iter(of);
            shown.insert("seed".to_owned(), json!(chaos.seed));
            shown
        }),
    })
}

/// What stands before a route's upstream at this node.
fn gate(node: &Node, route: &str) -> Value {
    told(node, route, None)
}

/// The same; of the last probe only where it is not the one that was `known`.
fn told(node: &Node, route: &str, known: Option<&Probed>) -> Value {
    let paused = node.engine.paused();
    let paused = paused.get(route).map(
        |pause| json!({"at": shape::time(pause.at), "who": pause.who, "reason": pause.reason}),
    );
    node.engine.standing(route).map_or(Value::Null, |standing| {
        json!({
            "breaker": standing.breaker,
            "held_by": standing.bar.map(Bar::name),
            "until": standing.until.map(shape::time),
            "under_way": standing.busy,
            "waiting": standing.waiting,
            "probed": standing.probed.filter(|probed| Some(probed) != known).map(|probed| json!({
                "at": shape::time(probed.at), "status": probed.status, "error": probed.error,
            })),
            "paused": paused,
        })
    })
}

async fn pause(node: View, Path(route): Path<String>, Act(person, _): Act<Because>) -> Answer {
    node.engine.pause(&route, &person).await?;
    Ok(Json(gate(&node, &route)))
}

async fn resume(node: View, Path(route): Path<String>, Act(person, _): Act<Because>) -> Answer {
    node.engine.resume(&route, &person).await?;
    Ok(Json(gate(&node, &route)))
}

/// Asks the upstream now; how the gate stands then says what came of it. What an earlier probe came to is no answer.
async fn probe(node: View, Path(route): Path<String>, Act(person, _): Act<Because>) -> Answer {
    node.check_released(NOT_ASKED)?;
    let known = node.engine.standing(&route).and_then(|standing| standing.probed);
    node.engine.probe_now(&route, &person).await?;
    Ok(Json(told(&node, &route, known.as_ref())))
}
