//! Dead letters: first their causes, each with how many it has and what can be done about all of them; then
//! one by one.

use http::HeaderMap;
use maud::{Markup, html};
use onceward::core::time::Timestamp;
use onceward::store::Standing;

use super::filter::Filtered;
use super::frame::{Frame, Here, Html, heading, number};
use super::lists::{Empty, above, found, page_of};
use super::rows::Table;
use super::{bulk, filter, frame, rows, words};
use crate::operator::Filter;
use crate::operator::dead_letters::{Group, Groups, groups};
use crate::problem::Problem;
use crate::view::View;

const EMPTY: Empty = Empty {
    what: "No dead letters.",
    lead: "This makes one, and redelivering it succeeds:",
    route: "demo",
    options: "-H 'Prefer: respond-async' -d '{}'",
    path: "orders?script=404,201",
};

/// `/dead`: what died and nobody was told.
pub(super) async fn show(
    node: View,
    headers: HeaderMap,
    Filtered(filter): Filtered,
) -> Result<Html, Problem> {
    let state = "dead_letter".to_owned();
    let is_narrowed = Filter { state: None, ..filter.clone() }.is_set();
    let filter = Filter { state: Some(state), ..filter };
    let frame = Frame::of(&node).await?;
    let page = page_of(&node, &filter).await?;
    let now = crate::shape::now();
    let is_first = filter.cursor.as_deref().unwrap_or_default().is_empty();
    let told = if is_narrowed || !is_first { None } else { Some(groups(&node, |_| true).await?) };
    let count = frame.count(&[Standing::DeadLetter]);
    let list = found(&node, Table::Dead, &filter, &page, now);
    let json = format!("/v1/operations?{}", filter.written());
    let running = bulk::running(&node).await?;
    let lead = html! {
        "Accepted operations that ended badly and that nobody was told about. Open one to see why, and to \
         redeliver it."
    };
    let content = html! {
        (heading("Dead letters", &lead, &json))
        (running)
        div #causes data-live="all" {
            @if let Some(found) = told.filter(|found| !found.causes.is_empty()) {
                (table(&node, &found, now))
            }
        }
        @if !count.is_some() && !is_narrowed {
            (rows::live("rows", &EMPTY.show(&node, &headers)))
        } @else {
            @if is_narrowed { (narrowed(&filter)) }
            section {
                h2 { @if is_narrowed { "Those of this cause" } @else { "One by one" } }
                (above(&node, &filter, &page))
                @if is_first { (rows::live("rows", &list)) } @else { (list) }
                (filter::pager("/dead", &filter, &page))
            }
        }
    };
    Ok(Html(frame.page(Here::Dead, "Dead letters", &content)))
}

/// What the list is narrowed to, and the way back.
fn narrowed(filter: &Filter) -> Markup {
    html! {
        p.narrowed {
            (filter::narrowing(filter.words().iter().filter(|(name, _)| *name != "state")))
            a href="/dead" { "All dead letters" }
        }
    }
}

fn table(node: &View, found: &Groups, now: Timestamp) -> Markup {
    let head = html! {
        th.number scope="col" { "How many" }
        th scope="col" { "Cause" }
        th scope="col" { "Route" }
        th scope="col" { "Since" }
        th scope="col" { "Last" }
        th scope="col" { span.unseen { "What to do" } }
    };
    let rows = html! { @for cause in &found.causes { (row(node, cause, now)) } };
    html! {
        section {
            h2 { "Causes" }
            (frame::stacked("Causes", &head, &rows))
            @if !found.is_whole {
                p.soft.small {
                    "Of the newest " (number(found.looked_at as u64))
                    " dead letters: older ones are not counted here."
                }
            }
            @if found.left_out > 0 {
                p.soft.small {
                    (number(found.left_out)) " more have rarer causes, and are in the list below."
                }
            }
        }
    }
}

fn row(node: &View, cause: &Group, now: Timestamp) -> Markup {
    let query = cause.filter().written();
    let result = words::result(cause.status, cause.error.as_deref()).unwrap_or_default();
    let of = format!("{} on {}: {result}", words::death(cause.reason), cause.route);
    html! {
        tr data-key={ "cause " (query) } {
            td.number data-label="How many" { strong { (number(cause.count)) } }
            td.last data-label="Cause" {
                a href={ "/dead?" (query) } { (words::death(cause.reason)) }
                @if !result.is_empty() { div.soft { bdi { (result) } } }
            }
            td.route data-label="Route" { (node.engine.called(&cause.route)) }
            td.when data-label="Since" { (words::time(cause.first, now)) }
            td.when data-label="Last" { (words::time(cause.last, now)) }
            td.do {
                a.button href={ "/bulk/plan?" (query) } {
                    "Redeliver all" span.unseen { " of: " (of) }
                }
            }
        }
    }
}
