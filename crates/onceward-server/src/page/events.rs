//! `/events`: what was published, and of each how its deliveries stand.

use axum::extract::Path;
use maud::{Markup, html};
use onceward::core::operation::{Death, Operation, State};
use onceward::core::time::Timestamp;

use super::frame::{Frame, Here, Html, heading, stacked};
use super::icons::Icon;
use super::rows::{self, Table};
use super::words;
use crate::operator::Asked;
use crate::operator::events::{Deliveries, Which, at_most, deliveries, find};
use crate::problem::Problem;
use crate::view::View;

/// Events on a page of the list: the deliveries of each are looked for.
const SHOWN_MAX: usize = 25;

/// Deliveries of an event that are counted in the list, and shown on its page.
const COUNTED_MAX: usize = 50;
const DELIVERIES_SHOWN: usize = 50;

pub(super) async fn list(node: View, Asked(which): Asked<Which>) -> Result<Html, Problem> {
    let frame = Frame::of(&node).await?;
    let mut query = which.query()?;
    query.limit = query.limit.min(SHOWN_MAX);
    let page = node.list(query).await?;
    let mut rows = Vec::with_capacity(page.operations.len());
    for event in page.operations {
        let went = Went::of(&at_most(&node, &event, COUNTED_MAX).await?);
        rows.push((event, went));
    }
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
        @if rows.is_empty() {
            div.empty.card {
                p { strong { "No events are here." } " This publishes one:" }
                pre tabindex="0" { code { "onceward publish order.created --data '{\"id\": 1}'" } }
            }
        } @else { (table(&rows, now)) }
        @if let Some(next) = page.next {
            p { a.button href={ "/events?" (which.written()) "&cursor=" (next) } { "Older ones" } }
        }
    };
    Ok(Html(frame.page(Here::Events, "Events", &content)))
}

fn table(events: &[(Operation, Went)], now: Timestamp) -> Markup {
    let head = html! {
        th scope="col" { "Deliveries" } th scope="col" { "Type" } th scope="col" { "Subject" }
        th scope="col" { "Key" } th scope="col" { "Came" }
    };
    let body = html! {
        @for (event, went) in events {
            tr {
                td.state data-label="Deliveries" { (went.show(event)) }
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
    let went = Went::of(&Deliveries { found: found.clone(), is_all: *is_all });
    let now = crate::shape::now();
    let kind = event.label.as_deref().unwrap_or("event");
    let fact = |name: &str, value: Markup| html! { div { dt { (name) } dd { (value) } } };
    let content = html! {
        (heading(kind, &html! {
            "Published " (words::time(event.created_at, now)) ". " (said(event.state))
        }, &format!("/v1/events/{}", event.id)))
        section.card {
            dl.facts {
                (fact("Deliveries", went.show(&event)))
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

/// How the deliveries of an event stand, as far as they were looked for.
struct Went {
    done: usize,
    dead: usize,
    doubt: usize,
    all: usize,
    is_all: bool,
}

impl Went {
    fn of(deliveries: &Deliveries) -> Self {
        let found = &deliveries.found;
        let count = |stands: fn(State) -> bool| found.iter().filter(|it| stands(it.state)).count();
        Self {
            done: count(|state| state == State::Done),
            dead: count(|state| matches!(state, State::Dead(_))),
            doubt: count(|state| state == State::InDoubt),
            all: found.len(),
            is_all: deliveries.is_all,
        }
    }

    /// How many have it, and what became of the others. That an event is done says only that it was sent off.
    fn show(&self, event: &Operation) -> Markup {
        let Self { done, dead, doubt, all, is_all } = *self;
        let waiting = all - done - dead - doubt;
        let (class, icon) = match event.state {
            State::Dead(_) => return words::chip(event),
            State::Pending { .. } | State::Delivering | State::InDoubt if all == 0 => {
                return words::sign("pending", Icon::Pending, "waits to go out");
            }
            State::Done if all == 0 && is_all => {
                return words::sign("told", Icon::Gone, "nobody wanted it");
            }
            State::Done if all == 0 => return words::sign("told", Icon::Pending, "not counted"),
            _ if dead > 0 => ("dead", Icon::Dead),
            _ if doubt > 0 => ("doubt", Icon::Doubt),
            _ if waiting > 0 || event.state != State::Done => ("pending", Icon::Pending),
            _ => ("done", Icon::Done),
        };
        let of = if is_all { all.to_string() } else { format!("{all}+") };
        let others = [(dead, "dead"), (doubt, "in doubt"), (waiting, "waiting")];
        let others = others.iter().filter(|(count, _)| *count > 0);
        let others: Vec<_> = others.map(|(count, word)| format!("{count} {word}")).collect();
        html! {
            (words::sign(class, icon, &format!("{done} of {of} delivered")))
            @if !others.is_empty() { div.next { (others.join(", ")) } }
        }
    }
}

/// How far an event came.
fn said(state: State) -> &'static str {
    match state {
        State::Done => "It was sent off to all who wanted it.",
        State::Dead(Death::Cancelled) => "It was cancelled, and goes to nobody more.",
        State::Dead(_) => "It did not reach all who want it: redeliver it from its story.",
        State::Pending { .. } | State::Delivering | State::InDoubt => {
            "It is on its way to all who want it."
        }
    }
}
