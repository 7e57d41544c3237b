//! `/alerts`: what fires, since when, whom it wakes and who has been told; and in a line of words what other
//! pages show of it.

use std::collections::BTreeMap;

use maud::{Markup, html};
use onceward::core::time::Timestamp;

use super::frame::{Frame, Here, Html, heading};
use super::icons::Icon;
use super::words::{self, sign};
use crate::alerts::{Firing, Kind, Reached, Teller};
use crate::problem::Problem;
use crate::view::View;

/// Names in a line; of the others it says how many.
const NAMED_MAX: usize = 3;

pub(super) async fn show(node: View) -> Result<Html, Problem> {
    let frame = Frame::of(&node).await?;
    let firing = node.alerts_told().await;
    let now = crate::shape::now();
    let (is_watching, is_told) = node.alerts.is_watching();
    let lead = html! {
        "What fires now: a page wakes somebody, a ticket waits for the morning. Each is over by itself once \
         what it says is."
    };
    let content = html! {
        (heading("Alerts", &lead, "/v1/alerts"))
        div #firing data-live="all" {
            @if firing.is_empty() { (calm(is_watching)) }
            @else if !is_told && node.only().is_none() {
                p.notice.warn role="status" { "Nobody is told of these: no receiver is configured. " code { "[alerts.to.NAME]" } " names one." }
            }
            @for alert in &firing { (card(alert, now)) }
        }
    };
    Ok(Html(frame.page(Here::Alerts, "Alerts", &content)))
}

fn calm(is_watching: bool) -> Markup {
    html! {
        div.empty.card {
            @if is_watching { p.calm { (Icon::Done.show()) " " strong { "No alert fires." } } }
            @else {
                p { strong { "Nothing is watched." } " This has the gateway watch itself, and tells whoever is named:" }
                pre tabindex="0" { code { (EXAMPLE) } }
            }
        }
    }
}

const EXAMPLE: &str = "[alerts.to.oncall]
webhook = \"https://hooks.example.com/onceward\"
secret  = \"${ALERTS_SECRET}\"";

fn card(firing: &Firing, now: Timestamp) -> Markup {
    html! {
        article.card aria-label=(firing.summary) {
            header.heading {
                div {
                    h2 { (firing.summary) }
                    p.soft.small { code { (firing.alert.kind.name()) } ", since " (words::time(firing.since, now)) }
                }
                div.tools {
                    (severity(firing))
                    a.quiet href=(firing.page()) { "Look" }
                    a.quiet href=(firing.runbook_page()) { "What to do" }
                }
            }
            p { (firing.advice()) }
            @if let Some(told) = &firing.told {
                p.small { @if told.is_empty() { span.soft { "Nobody was told." } }
                    @for (n, teller) in told.iter().enumerate() { @if n > 0 { "; " } (tells(teller, now)) } }
            }
        }
    }
}

/// Who was told, and whether they know.
fn tells(teller: &Teller, now: Timestamp) -> Markup {
    let (is_bad, what) = match (teller.reached, &teller.error) {
        (Reached::Delivered, _) => (false, "told"),
        (Reached::Waiting, None) => (false, "is being told"),
        (Reached::Waiting, Some(_)) => (true, "does not know yet"),
        (Reached::Failed, _) => (true, "was not told"),
        (Reached::Unknown, _) => (false, "told, and what became of it is not known"),
    };
    html! {
        strong { (teller.to) } " " span.bad[is_bad] { (what) } " (" (words::time(teller.at, now)) ")"
        @if let Some(error) = teller.error.as_ref().filter(|_| is_bad) { ": " (error) }
        @if let Some(id) = teller.operation { ", " a href=(words::url_of(id)) { "its notice" } }
    }
}

/// Whom it wakes.
fn severity(firing: &Firing) -> Markup {
    let (class, icon) = if is_page(firing) { ("dead", Icon::Alerts) } else { ("doubt", Icon::Pending) };
    sign(class, icon, firing.alert.kind.severity())
}

fn is_page(firing: &Firing) -> bool {
    firing.alert.kind.severity() == "page"
}

/// A kind in a word or two.
fn short(kind: Kind) -> &'static str {
    match kind {
        Kind::InDoubt => "in doubt",
        Kind::DeadLetters => "dead letters",
        Kind::BreakerOpen => "breaker open",
        Kind::BacklogOld => "work is late",
        Kind::LateDuplicates => "late duplicates",
        Kind::DiskLow => "disk low",
        Kind::SagaStuck => "saga stuck",
    }
}

/// The line of every page but the two that tell more: how many fire, how many of them wake somebody, and
/// of what kinds.
pub(super) fn line(firing: &[Firing]) -> Markup {
    let pages = firing.iter().filter(|firing| is_page(firing)).count();
    let mut kinds: Vec<(Kind, usize)> = Vec::new();
    for alert in firing {
        match kinds.iter_mut().find(|(kind, _)| *kind == alert.alert.kind) {
            Some((_, many)) => *many += 1,
            None => kinds.push((alert.alert.kind, 1)),
        }
    }
    html! {
        @if !firing.is_empty() {
            a.(if pages > 0 { "dead" } else { "doubt" }) href="/alerts" {
                (Icon::Alerts.show())
                span {
                    strong { (firing.len()) @if firing.len() == 1 { " alert" } @else { " alerts" } }
                    @if pages == firing.len() { ", to wake somebody" }
                    @else if pages > 0 { ", " (pages) " to wake somebody" }
                    ": " @for (n, (kind, many)) in kinds.iter().enumerate() {
                        @if n > 0 { ", " } (short(*kind)) @if *many > 1 { " × " (many) }
                    }
                }
                span.go { "Look" }
            }
        }
    }
}

/// That what a line of the overview says is an alert, since when, and of which routes.
pub(super) fn alerted(alerts: &[&Firing], now: Timestamp) -> Markup {
    let is_paging = alerts.iter().any(|alert| is_page(alert));
    let since = alerts.iter().map(|alert| alert.since).min();
    let mut routes: BTreeMap<&str, ()> = BTreeMap::new();
    routes.extend(alerts.iter().filter_map(|it| Some((it.alert.route.as_deref()?, ()))));
    let more = routes.len().saturating_sub(NAMED_MAX);
    html! {
        span.alerted { (Icon::Alerts.show()) " "
            @if is_paging { "Alert, page" } @else { "Alert, ticket" }
            @if let Some(since) = since { ", since " (words::time(since, now)) }
            @if routes.len() > 1 || alerts.len() == 1 {
                @for (n, (route, ())) in routes.iter().take(NAMED_MAX).enumerate() {
                    @if n > 0 { ", " } @else { ": " } (route)
                }
                @if more > 0 { " and " (more) " more" }
            }
        }
    }
}

/// A line for each kind of what fires and nothing else speaks of.
pub(super) fn own_lines(alone: &[&Firing], now: Timestamp) -> Markup {
    let mut kinds: Vec<(Kind, Vec<&Firing>)> = Vec::new();
    for firing in alone {
        match kinds.iter_mut().find(|(kind, _)| *kind == firing.alert.kind) {
            Some((_, of)) => of.push(firing),
            None => kinds.push((firing.alert.kind, vec![firing])),
        }
    }
    html! {
        @for (_, of) in &kinds {
            @if let Some(first) = of.first() {
                li { a.(if is_page(first) { "dead" } else { "doubt" }) href=(first.page()) {
                    (Icon::Alerts.show())
                    span { strong { (first.summary) } @if of.len() > 1 { ", and " (of.len() - 1) " more like it" } ". " (alerted(of, now)) }
                    span.go { "Look" }
                } }
            }
        }
    }
}
