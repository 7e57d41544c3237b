//! Bulk, as pages: what a list leads to, a plan and the form that runs it, and how far it is.

use std::collections::BTreeSet;

use axum::extract::Path;
use axum::response::Redirect;
use maud::{Markup, html};
use onceward::core::operation::State;
use onceward::core::time::Timestamp;
use onceward::{Bulk, BulkDeed, BulkOutcomes, BulkStanding};

use super::acts::Done;
use super::frame::{Frame, Here, Html, heading, number, reason, stacked};
use super::icons::Icon;
use super::rows::{self, Table};
use super::words::{self, sign};
use crate::operator::bulk::Became;
use crate::operator::{Because, Sent};
use crate::problem::Problem;
use crate::shape;
use crate::view::View;

pub(super) mod many;
pub(super) mod plan;

/// Operations that its page shows.
const SHOWN_MAX: usize = 50;

/// `/bulk`: those that run, and the last that have ended.
pub(super) async fn list(node: View) -> Result<Html, Problem> {
    let bulks = node.bulks().await?;
    let (frame, now) = (Frame::of(&node).await?, shape::now());
    let lead = html! {
        "What was begun to be done to many operations, the newest first. One that runs can be stopped on its page."
    };
    let head = html! {
        th { "State" } th { "What" } th.number { "Did" } th.number { "Of" } th.number { "Failed" }
        th { "By" } th { "Reason" } th { "Began" }
    };
    let rows = html! { @for bulk in &bulks { (row(bulk, now)) } };
    let is_running = bulks.iter().any(is_running);
    let content = html! {
        (heading("Bulks", &lead, "/v1/bulk"))
        @if bulks.is_empty() {
            div.empty.card {
                p { strong { "No bulk is known." } }
                p { "What is selected in a list of operations, a list that is narrowed, and each cause of dead letters begins one." }
            }
        } @else {
            div #bulks data-live="all" data-every=[is_running.then_some("1")] { (stacked("Bulks", &head, &rows)) }
        }
    };
    Ok(Html(frame.page(Here::Operations, "Bulks", &content)))
}

fn is_running(bulk: &Bulk) -> bool {
    bulk.standing == BulkStanding::Running
}

fn row(bulk: &Bulk, now: Timestamp) -> Markup {
    let order = &bulk.order;
    html! {
        tr data-key=(bulk.name()) {
            td.state data-label="State" { (chip(bulk)) }
            td.what { a.key href={ "/bulk/" (bulk.name()) } { (order.deed.name()) } }
            td.number data-label="Did" { (number(bulk.done)) }
            td.number data-label="Of" { @if !bulk.is_exact { "over " } (number(bulk.matched)) }
            td.number data-label="Failed" { (number(bulk.failed)) }
            td data-label="By" { bdi { (order.person.who) } }
            td.says data-label="Reason" { bdi { (order.person.reason) } }
            td.when data-label="Began" { (words::time(bulk.began_at, now)) }
        }
    }
}

fn chip(bulk: &Bulk) -> Markup {
    match bulk.standing {
        BulkStanding::Running => sign("delivering", Icon::Delivering, "runs"),
        BulkStanding::Done => sign("told", Icon::Done, "went through"),
        BulkStanding::Stopped => sign("told", Icon::Paused, "stopped"),
    }
}

/// A line for each bulk that runs, over the lists of what it acts on.
pub(super) async fn running(node: &View) -> Result<Markup, Problem> {
    let bulks = node.bulks().await?;
    Ok(html! {
        div #bulks data-live="all" {
            @for bulk in bulks.iter().filter(|bulk| is_running(bulk)) {
                p.notice.warn role="status" {
                    strong { "A bulk runs" } ": " (bulk.order.deed.name()) ", "
                    (bulk.done) " of " @if !bulk.is_exact { "over " } (bulk.matched) ", by "
                    bdi { (bulk.order.person.who) } ". "
                    a href={ "/bulk/" (bulk.name()) } { "Look, or stop it" }
                }
            }
        }
    })
}

/// How far it is, and what became of what it acted on; the page looks again by itself while anything is
/// still to come.
pub(super) async fn show(node: View, Path(name): Path<String>) -> Result<Html, Problem> {
    let bulk = node.bulk(&name).await?;
    let outcomes = node.engine.outcomes_of(&bulk).await?;
    let became = Became::of(&outcomes);
    let frame = Frame::of(&node).await?;
    let is_open = is_running(&bulk) || (bulk.sends() && became.open > 0);
    let title = format!("Bulk: {}", bulk.order.deed.name());
    let lead = html! { "Begun by " bdi { (bulk.order.person.who) } ": " bdi { (bulk.order.person.reason) } };
    let content = html! {
        (heading(&title, &lead, &format!("/v1/bulk/{}", bulk.name())))
        div #bulk data-live="all" data-every=[is_open.then_some("1")] {
            (progress(&bulk, became))
            (acted_on(&node, &outcomes))
            @if !is_running(&bulk) { (not_acted_on(&bulk, &outcomes)) }
        }
    };
    Ok(Html(frame.page(Here::Operations, &title, &content)))
}

/// Those that a bulk acted on, what is not done first.
fn acted_on(node: &View, outcomes: &BulkOutcomes) -> Markup {
    let (done, mut rest): (Vec<_>, Vec<_>) =
        outcomes.operations.iter().cloned().partition(|it| it.state == State::Done);
    rest.extend(done);
    let all = rest.len();
    rest.truncate(SHOWN_MAX);
    html! {
        @if !rest.is_empty() {
            section #acted {
                h2 { "What became of them" }
                (rows::table(node, Table::All, &rest, shape::now()))
                @if all > SHOWN_MAX { p.soft.small { "Of " (all) ", those that are not done first." } }
            }
        }
    }
}

/// Those that were selected and that nothing was done to; where all are known that something was done to.
fn not_acted_on(bulk: &Bulk, outcomes: &BulkOutcomes) -> Markup {
    let acted: BTreeSet<_> = outcomes.operations.iter().map(|it| it.id).collect();
    let others: Vec<_> = bulk.order.selected.iter().filter(|id| !acted.contains(id)).collect();
    html! {
        @if outcomes.is_all && !others.is_empty() {
            section #others {
                h2 { "Selected, and nothing was done to them" }
                p.soft.small { "It failed, nobody takes their risk, it was stopped before, or they had moved on when their turn came." }
                ul.lines { @for id in others { li { a href=(words::url_of(*id)) { code { (id) } } } } }
            }
        }
    }
}

/// What was done to them, in words; that one was sent off says nothing of its end.
fn did(bulk: &Bulk, became: Became) -> Markup {
    let word = match bulk.order.deed {
        BulkDeed::Redeliver | BulkDeed::ResolveNotSent => "sent off",
        BulkDeed::Retry => "tried sooner",
        BulkDeed::Cancel => "cancelled",
        BulkDeed::ResolveDone => "resolved as done",
        BulkDeed::Forget(_) => "forgotten",
    };
    let again = if bulk.order.deed == BulkDeed::Redeliver { " again" } else { "" };
    html! {
        (number(bulk.done)) " of " @if !bulk.is_exact { "at least " } (number(bulk.matched)) " " (word)
        @if bulk.sends() && bulk.done > 0 {
            @if became.all() == 0 { "; what became of them is not kept" }
            @else {
                ": " @if !became.is_all { "of the first " (became.all()) ", " }
                strong { (became.done) " done, " (became.dead) " dead" (again) }
                @if became.doubt > 0 { ", " (became.doubt) " in doubt" }
                ", " (became.open) " under way"
            }
        }
        ". "
        @if bulk.left_out > 0 { (number(bulk.left_out)) " left out because nobody takes their risk. " }
        @if bulk.failed > 0 { (number(bulk.failed)) " failed. " }
        @if moved_on(bulk) > 0 { (number(moved_on(bulk))) " had moved on before their turn." }
    }
}

/// How many of those that were selected could be acted on at first, and no more when their turn came.
fn moved_on(bulk: &Bulk) -> u64 {
    let is_over = bulk.standing == BulkStanding::Done && !bulk.order.selected.is_empty();
    if is_over { bulk.matched.saturating_sub(gone_through(bulk)) } else { 0 }
}

fn gone_through(bulk: &Bulk) -> u64 {
    bulk.done + bulk.left_out + bulk.failed
}

fn progress(bulk: &Bulk, became: Became) -> Markup {
    let now = shape::now();
    let is_running = is_running(bulk);
    let gone_through = gone_through(bulk);
    // That it is known of none that it is done is no success.
    let is_known = bulk.done == 0 || became.all() > 0;
    let is_good = bulk.failed == 0 && (!bulk.sends() || is_known && became.all() == became.done);
    html! {
        @if is_running { noscript { meta http-equiv="refresh" content="2"; } }
        p.notice.warn[!is_good] role="status" { (chip(bulk)) " " (did(bulk, became)) }
        @if bulk.matched > 0 {
            progress.bar max=(bulk.matched.max(gone_through)) value=(gone_through) aria-label="Gone through" {
                (gone_through) " of " (bulk.matched)
            }
        }
        section.card #facts {
            dl.facts {
                (fact("Id", &html! { code { (bulk.name()) } }))
                (fact("Began", &words::time(bulk.began_at, now)))
                (fact("A second", &html! { (bulk.order.rate) " at most" }))
                @if let Some(at) = bulk.ended_at { (fact("Ended", &words::time(at, now))) }
                @if let Some(trouble) = &bulk.trouble { (fact("Last failure", &html! { (trouble) })) }
            }
        }
        @if is_running {
            form.card #stop method="post" action={ "/bulk/" (bulk.name()) "/stop" } {
                (reason("Reason"))
                button.careful { "Stop it" }
            }
        }
        p.more { a href="/bulk" { "All bulks" } }
    }
}

fn fact(name: &str, value: &Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

pub(super) async fn stop(
    node: View,
    Path(name): Path<String>,
    Sent(person, _): Sent<Because>,
) -> Done {
    let bulk = node.engine.stop_bulk(&name, &person).await?;
    Ok(Redirect::to(&format!("/bulk/{}", bulk.name())))
}
