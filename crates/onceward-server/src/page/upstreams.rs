//! `/upstreams`: what stands before each upstream at this node, the worst first, and a form to
//! pause or resume.

use axum::extract::Path;
use axum::response::Redirect;
use maud::{Markup, html};
use onceward::core::time::Timestamp;
use onceward::{Bar, Standing};

use super::frame::{Frame, Here, Html, heading, reason, table};
use super::icons::Icon;
use super::words::{self, sign};
use crate::node::Node;
use crate::operator::{Because, Sent};
use crate::problem::Problem;
use crate::view::View;

pub(super) async fn show(node: View) -> Result<Html, Problem> {
    let frame = Frame::of(&node).await?;
    let now = crate::shape::now();
    let mut gates = node.gates();
    gates.retain(|(name, _)| node.check_kept(name).is_ok());
    gates.sort_by_key(|(name, standing)| (rank(standing), name.clone()));
    let content = html! {
        (heading("Upstreams", &html! {
            "What stands before each route's upstream at this node. What is held back waits in the "
            "ledger, and nothing of it is lost."
        }, "/v1/routes"))
        @if gates.is_empty() {
            div.empty.card { p { strong { "No routes are configured." } } }
        } @else {
            (table("Upstreams", &html! {
                th { "Route" } th { "Flows" } th.number { "Under way" }
                th.number { "Waiting" } th { span.unseen { "Pause or resume" } }
            }, &html! { @for (name, standing) in &gates { (row(&node, name, standing, now)) } }))
        }
        (super::outboxes::section(&node))
    };
    Ok(Html(frame.page(Here::Upstreams, "Upstreams", &content)))
}

/// How many upstreams something stands before that somebody may want to look at.
pub(super) fn held_back(node: &View) -> u64 {
    let kept = |name: &str| node.check_kept(name).is_ok();
    let is_held = |standing: &Standing| rank(standing) < 3;
    node.gates().iter().filter(|(name, standing)| is_held(standing) && kept(name)).count() as u64
}

/// The worst come first.
fn rank(standing: &Standing) -> u8 {
    match (standing.bar, standing.breaker) {
        (Some(Bar::BreakerOpen), _) => 0,
        (Some(Bar::UpstreamAsked), _) => 1,
        (Some(Bar::Paused), _) => 2,
        (Some(_), _) => 3,
        (None, "closed") => 5,
        (None, _) => 4,
    }
}

fn row(node: &Node, name: &str, standing: &Standing, now: Timestamp) -> Markup {
    let upstream = node.engine.route(name).map(|route| route.target.base.to_string());
    html! {
        tr {
            td.what {
                strong { (name) }
                @if let Some(upstream) = &upstream { span.request title=(upstream) { (upstream) } }
            }
            td { (flows(node, name, standing, now)) }
            td.number { (standing.busy) }
            td.number { (standing.waiting) }
            td { (form(name, node.engine.paused().contains_key(name))) }
        }
    }
}

fn flows(node: &Node, name: &str, standing: &Standing, now: Timestamp) -> Markup {
    let until = html! { @if let Some(until) = standing.until { " asked again " (words::time(until, now)) } };
    let paused = node.engine.paused();
    match standing.bar {
        Some(Bar::Paused) => html! {
            (sign("told", Icon::Paused, "paused"))
            @if let Some(pause) = paused.get(name) {
                " " span.label { "by " (pause.who) " " (words::time(pause.at, now)) ": " (pause.reason) }
            }
        },
        Some(Bar::BreakerOpen) => html! { (sign("dead", Icon::Open, "breaker open")) (until) },
        Some(Bar::UpstreamAsked) => {
            html! { (sign("doubt", Icon::Pending, "it asked to be left alone")) (until) }
        }
        Some(Bar::Rate | Bar::Slots) | None if standing.breaker == "half_open" => {
            html! { (sign("doubt", Icon::HalfOpen, "breaker half-open: it is probed")) }
        }
        Some(Bar::OutsideHours) => html! { (sign("told", Icon::Pending, "outside its hours")) },
        Some(Bar::Rate | Bar::Slots) | None => html! { (sign("done", Icon::Done, "yes")) },
    }
}

fn form(name: &str, is_paused: bool) -> Markup {
    let (path, word) = if is_paused { ("resume", "Resume") } else { ("pause", "Pause") };
    html! {
        details {
            summary.button { (word) }
            form method="post" action={ "/upstreams/" (name.replace('/', "%2F")) "/" (path) } {
                (reason("Why"))
                button { (word) " " (name) }
            }
        }
    }
}

pub(super) async fn pause(
    node: View,
    Path(route): Path<String>,
    Sent(person, _): Sent<Because>,
) -> Result<Redirect, Problem> {
    node.engine.pause(&route, &person).await?;
    Ok(Redirect::to("/upstreams"))
}

pub(super) async fn resume(
    node: View,
    Path(route): Path<String>,
    Sent(person, _): Sent<Because>,
) -> Result<Redirect, Problem> {
    node.engine.resume(&route, &person).await?;
    Ok(Redirect::to("/upstreams"))
}
