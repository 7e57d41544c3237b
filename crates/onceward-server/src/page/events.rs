//! `/events`: what was published, and of each how its deliveries stand.

use axum::extract::Path;
use maud::{Markup, html};
use onceward::core::operation::{Death, Operation, State};
use onceward::core::time::Timestamp;

use super::frame::{Frame, Here, Html, heading, stacked};
use super::rows::{self, Table};
use super::words;
use crate::operator::Asked;
use crate::operator::events::{Deliveries, Which, deliveries, find};
use crate::problem::Problem;
use crate::view::View;

/// Deliveries of an event that are shown.
const DELIVERIES_SHOWN: usize = 50;

pub(super) async fn list(node: View, Asked(which): Asked<Which>) -> Result<Html, Problem> {
    let frame = Frame::of(&node).await?;
    let page = node.list(which.query()?).await?;
    let now = crate::shape::now();
    let kind = which.r#type.as_deref().unwrap_or_default();
    let content = html! {
        (heading("Events", &html! {
            "What was published, the newest first: each goes to all who want it."
        }, "/v1/events"))
        form.filter.card method="get" action="/events" {
            label { "Type" input name="type" value=(kind) maxlength="255" autocomplete="off"; }
            label { "Since" input name="after" value=(which.after.as_deref().unwrap_or_default()) maxlength="40" autocomplete="off"; }
            button { "Show" }
        }
        @if page.operations.is_empty() {
            div.empty.card {
                p { strong { "No events are here." } " This publishes one:" }
                pre tabindex="0" { code { "onceward publish order.created --data '{\"id\": 1}'" } }
            }
        } @else { (table(&page.operations, now)) }
        @if let Some(next) = page.next {
            p { a.button href={ "/events?" (which.written()) "&cursor=" (next) } { "Older ones" } }
        }
    };
    Ok(Html(frame.page(Here::Events, "Events", &content)))
}

fn table(events: &[Operation], now: Timestamp) -> Markup {
    let head = html! {
        th scope="col" { "State" } th scope="col" { "Type" } th scope="col" { "Subject" }
        th scope="col" { "Key" } th scope="col" { "Came" }
    };
    let body = html! {
        @for event in events {
            tr {
                td.state data-label="State" { (words::chip(event)) }
                td.what { a.key href={ "/events/" (event.id) } { (event.label.as_deref().unwrap_or("event")) } }
                td data-label="Subject" { @if let Some(subject) = &event.subject { bdi { (subject.name) } } @else { "-" } }
                td data-label="Key" { bdi { (event.key.as_str()) } }
                td.when data-label="Came" { (words::time(event.created_at, now)) }
            }
        }
    };
    stacked("Events", &head, &body)
}

pub(super) async fn show(node: View, Path(id): Path<String>) -> Result<Html, Problem> {
    let frame = Frame::of(&node).await?;
    let event = find(&node, &id).await?;
    let Deliveries { found, is_all } = &deliveries(&node, &event).await?;
    let counts = Deliveries::counts(found);
    let now = crate::shape::now();
    let kind = event.label.as_deref().unwrap_or("event");
    let fact = |name: &str, value: Markup| html! { div { dt { (name) } dd { (value) } } };
    let content = html! {
        (heading(kind, &html! {
            "Published " (words::time(event.created_at, now)) ". " (went(event.state))
        }, &format!("/v1/events/{}", event.id)))
        section.card {
            dl.facts {
                (fact("State", words::chip(&event)))
                (fact("Key", html! { bdi { (event.key.as_str()) } }))
                (fact("Subject", html! { @match &event.subject { Some(subject) => bdi { (subject.name) }, None => "none" } }))
                @for (standing, count) in &counts { (fact(standing, html! { (count) @if !is_all { "+" } })) }
            }
            p.soft.small {
                a href=(words::url_of(event.id)) { "Its story" } " · "
                a href={ "/operations?parent=" (event.id) } { "All its deliveries" }
            }
        }
        h2 { "Deliveries" }
        @match (found.is_empty(), is_all, event.state) {
            (true, true, State::Done) => p.soft { "It went nowhere: nobody wanted it." },
            (true, true, _) => p.soft { "There are none." },
            (true, false, _) => p.soft { "None was found, and not all was looked at: a list of the deliveries goes on with each page." },
            (false, _, _) => (rows::table(&node, Table::All, &found[..found.len().min(DELIVERIES_SHOWN)], now)),
        }
    };
    Ok(Html(frame.page(Here::Events, kind, &content)))
}

/// How far an event came.
fn went(state: State) -> &'static str {
    match state {
        State::Done => "It went to all who wanted it.",
        State::Dead(Death::Cancelled) => "It was cancelled, and goes to nobody more.",
        State::Dead(_) => "It did not reach all who want it: redeliver it from its story.",
        State::Pending { .. } | State::Delivering | State::InDoubt => {
            "It is on its way to all who want it."
        }
    }
}
