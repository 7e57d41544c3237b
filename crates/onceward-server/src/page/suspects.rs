//! Suspected doubles, as a section of `/duplicates`: new operations that asked what another one had asked a
//! short while before, under another key. They were sent.

use maud::{Markup, html};
use onceward::core::id::OperationId;
use onceward::core::operation::Operation;
use onceward::core::time::Timestamp;
use onceward::tally::SuspectSeen;

use super::frame::stacked;
use super::stats::route_name;
use super::words;
use crate::problem::Problem;
use crate::view::View;

/// How many are shown.
const SHOWN: usize = 10;

/// One of them, and the two operations as far as they are there still.
type Row = (SuspectSeen, Option<Operation>, Option<Operation>);

/// The last ones.
pub(super) async fn last(node: &View) -> Result<Markup, Problem> {
    let mut rows: Vec<Row> = Vec::new();
    for seen in node.suspects_seen(None, SHOWN).await? {
        // Of what is gone its id is left.
        let again = node.find(&seen.operation.to_string()).await.ok();
        let first = node.find(&seen.first.to_string()).await.ok();
        rows.push((seen, again, first));
    }
    let now = crate::shape::now();
    Ok(html! {
        section #suspects {
            header.heading.section {
                div {
                    h2 { "Suspected doubles" }
                    p.soft {
                        "The same request under another key, soon after: each was sent, because two coffees are two coffees. Where "
                        "they are no coffees, their caller makes its key within its retry loop; " code { "unique" }
                        " on the route holds what they share."
                    }
                }
                div.tools { a.quiet href="/v1/suspects" { "As JSON" } }
            }
            @if rows.is_empty() { p.empty.card { "None was seen. A route watches for " code { "suspect_within" } ", 10 minutes where it does not say." } }
            @else {
                (stacked("The last suspected doubles", &html! {
                    th { "When" } th { "New operation" } th { "Same request as" } th { "After it" } th { "Route" } th { "Asked by" }
                }, &html! { @for row in &rows { (line(row, now)) } }))
            }
        }
    })
}

fn line((seen, again, first): &Row, now: Timestamp) -> Markup {
    let principal = if seen.principal.is_empty() { "anybody" } else { &seen.principal };
    html! {
        tr {
            td.when data-label="When" { (words::time(seen.at, now)) }
            td.what data-label="New operation" {
                (link(seen.operation, again.as_ref()))
                @if let Some(again) = again {
                    span.request title=(again.target) { (again.method) " " (again.target) }
                }
            }
            td.what data-label="Same request as" {
                (link(seen.first, first.as_ref()))
                @if seen.again > 1 { span.request { "no. " (seen.again) " since it" } }
            }
            td.number data-label="After it" { (words::duration(seen.after())) }
            td.route data-label="Route" { (route_name(&seen.route)) }
            td data-label="Asked by" { bdi { (principal) } }
        }
    }
}

/// Its key, and where it stands; or its id.
fn link(id: OperationId, operation: Option<&Operation>) -> Markup {
    html! {
        div {
            a.key href=(words::url_of(id)) {
                @if let Some(operation) = operation { (operation.key.as_str()) } @else { (id) }
            }
            @if let Some(operation) = operation { " " (words::chip(operation)) }
        }
    }
}
