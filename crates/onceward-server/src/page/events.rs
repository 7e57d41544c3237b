//! `/events`: what was published, and of each how its deliveries stand.

use axum::extract::Path;
use maud::{Markup, html};
use onceward::core::key::ScopeKind;
use onceward::core::operation::Operation;
use onceward::core::time::Timestamp;
use onceward::store::Query;

use super::frame::{Frame, Here, Html, heading, stacked};
use super::rows::{self, Table};
use super::words;
use crate::operator::Asked;
use crate::operator::events::{Which, deliveries, find};
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
            p { a.button href={ "/events?type=" (words::in_query(kind)) "&cursor=" (next) } { "Older ones" } }
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
    let (counts, is_exact) = deliveries(&node, &event).await?;
    let query = Query {
        kind: Some(ScopeKind::Delivery),
        tenant: Some(event.scope.tenant.clone()),
        parent: Some(event.id),
        since: Some(event.created_at),
        limit: DELIVERIES_SHOWN,
        ..Query::default()
    };
    let page = node.list(query).await?;
    let now = crate::shape::now();
    let kind = event.label.as_deref().unwrap_or("event");
    let fact = |name: &str, value: Markup| html! { div { dt { (name) } dd { (value) } } };
    let content = html! {
        (heading(kind, &html! {
            "Published " (words::time(event.created_at, now)) ". "
            @if event.state.is_ended() { "It went to all who wanted it." } @else { "It is on its way to all who want it." }
        }, &format!("/v1/events/{}", event.id)))
        section.card {
            dl.facts {
                (fact("State", words::chip(&event)))
                (fact("Key", html! { bdi { (event.key.as_str()) } }))
                (fact("Subject", html! { @match &event.subject { Some(subject) => bdi { (subject.name) }, None => "none" } }))
                @for (standing, count) in &counts { (fact(standing, html! { (count) @if !is_exact { "+" } })) }
            }
            p.soft.small {
                a href=(words::url_of(event.id)) { "Its story" } " · "
                a href={ "/operations?parent=" (event.id) } { "All its deliveries" }
            }
        }
        h2 { "Deliveries" }
        @if page.operations.is_empty() { p.soft { "It went nowhere: nobody wanted it." } }
        @else { (rows::table(&node, Table::All, &page.operations, now)) }
    };
    Ok(Html(frame.page(Here::Events, kind, &content)))
}
