//! `/alerts`: what fires, since when, whom it wakes and who has been told; and in a line of words what other
//! pages show of it.

use std::collections::BTreeSet;

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
            @for of in by_kind(&firing) { (card(&of, now)) }
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

/// Those of one kind together: they come in that order.
fn by_kind<'a>(firing: impl IntoIterator<Item = &'a Firing>) -> Vec<Vec<&'a Firing>> {
    let mut kinds: Vec<Vec<&Firing>> = Vec::new();
    for alert in firing {
        match kinds.iter_mut().find(|of| of[0].alert.kind == alert.alert.kind) {
            Some(of) => of.push(alert),
            None => kinds.push(vec![alert]),
        }
    }
    kinds
}

/// What fires of one kind, and what to do about it.
fn card(of: &[&Firing], now: Timestamp) -> Markup {
    let Some(first) = of.first() else { return html! {} };
    let kind = first.alert.kind;
    html! {
        article.card aria-label=(kind.name()) {
            header.heading {
                div { h2 { (title(kind)) } code.soft { (kind.name()) } }
                div.tools {
                    (severity(first))
                    a.quiet href=(first.runbook_page()) { "What to do" }
                }
            }
            p { (first.advice()) }
            ul.lines { @for alert in of { li {
                strong { a href=(alert.page()) { (alert.summary) } }
                ", since " (words::time(alert.since, now)) "."
                @if let Some(told) = &alert.told {
                    div.small { @if told.is_empty() { span.soft { "Nobody was told." } }
                        @for (n, teller) in told.iter().enumerate() { @if n > 0 { "; " } (tells(teller, now)) } }
                }
            } } }
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
    let (class, icon) =
        if is_page(firing) { ("dead", Icon::Alerts) } else { ("doubt", Icon::Pending) };
    sign(class, icon, firing.alert.kind.severity())
}

fn is_page(firing: &Firing) -> bool {
    firing.alert.kind.severity() == "page"
}

/// A kind as a heading.
fn title(kind: Kind) -> &'static str {
    match kind {
        Kind::InDoubt => "In doubt",
        Kind::DeadLetters => "Dead letters",
        Kind::BreakerOpen => "Breaker open",
        Kind::BacklogOld => "Work is late",
        Kind::LateDuplicates => "Late duplicates",
        Kind::DiskLow => "Disk low",
        Kind::SagaStuck => "Saga stuck",
    }
}

/// The line of every page but the two that tell more: how many fire, how many of them wake somebody, and
/// of what kinds.
pub(super) fn line(firing: &[Firing]) -> Markup {
    let pages = firing.iter().filter(|firing| is_page(firing)).count();
    let kinds = by_kind(firing);
    html! {
        @if !firing.is_empty() {
            a.(if pages > 0 { "dead" } else { "doubt" }) href="/alerts" {
                (Icon::Alerts.show())
                span {
                    strong { (firing.len()) @if firing.len() == 1 { " alert" } @else { " alerts" } }
                    @if pages == firing.len() { ", to wake somebody" }
                    @else if pages > 0 { ", " (pages) " to wake somebody" }
                    ": " @for (n, of) in kinds.iter().enumerate() {
                        @if n > 0 { ", " }
                        @if let Some(first) = of.first() { (title(first.alert.kind).to_lowercase()) }
                        @if of.len() > 1 { " × " (of.len()) }
                    }
                }
                span.go { "Look" }
            }
        }
    }
}

/// That what a line of the overview says is an alert, since when, and of which routes where that is not
/// said by itself.
pub(super) fn alerted(alerts: &[&Firing], names: bool, now: Timestamp) -> Markup {
    let is_paging = alerts.iter().any(|alert| is_page(alert));
    let since = alerts.iter().map(|alert| alert.since).min();
    let routes: BTreeSet<&str> =
        alerts.iter().filter(|_| names).filter_map(|it| it.alert.route.as_deref()).collect();
    let more = routes.len().saturating_sub(NAMED_MAX);
    html! {
        span.alerted { (Icon::Alerts.show()) " "
            @if is_paging { "Alert, page" } @else { "Alert, ticket" }
            @if let Some(since) = since { ", since " (words::time(since, now)) }
            @for (n, route) in routes.iter().take(NAMED_MAX).enumerate() {
                @if n > 0 { ", " } @else { ": " } (route)
            }
            @if more > 0 { " and " (more) " more" }
        }
    }
}

/// A line for each kind of what fires and nothing else speaks of.
pub(super) fn own_lines(alone: &[&Firing], now: Timestamp) -> Markup {
    let kinds = by_kind(alone.iter().copied());
    html! {
        @for of in &kinds {
            @if let Some(first) = of.first() {
                li { a.(if is_page(first) { "dead" } else { "doubt" }) href=(first.page()) {
                    (Icon::Alerts.show())
                    span { strong { (first.summary) } @if of.len() > 1 { ", and " (of.len() - 1) " more like it" } ". " (alerted(of, false, now)) }
                    span.go { "Look" }
                } }
            }
        }
    }
}
