//! Bulk, as pages: a plan of what matches, a form that runs it, and how far it is.

use axum::extract::{Extension, Path};
use axum::response::Redirect;
use maud::{Markup, html};
use onceward::core::risk::Risk;
use onceward::{Bulk, BulkPlan, BulkStanding};
use serde::Deserialize;

use super::acts::Done;
use super::filter::{Filtered, narrowing};
use super::frame::{Frame, Here, Html, heading, number, reason};
use super::words;
use crate::access::Caller;
use crate::operator::bulk::{RATE, Wanted, Words, begun};
use crate::operator::{Because, Filter, Sent, reasoned};
use crate::problem::Problem;
use crate::shape;
use crate::view::View;

/// The link to the plan for what a list shows.
pub(super) fn link(filter: &Filter) -> Markup {
    html! {
        @if filter.is_set() {
            p.more { a href={ "/bulk/plan?" (filter.written()) } { "Redeliver all that match" } }
        }
    }
}

/// What it would do, and the form that does it.
pub(super) async fn plan(
    node: View,
    Extension(caller): Extension<Caller>,
    Filtered(filter): Filtered,
) -> Result<Html, Problem> {
    let action = "redeliver".to_owned();
    let wanted = Wanted { action, filter, dry_run: true, ..Wanted::default() };
    let plan = node.engine.plan_bulk(&wanted.order(&node, &caller)?).await?;
    let frame = Frame::of(&node).await?;
    let lead = html! { "A plan: nothing has been done yet." };
    let content = html! {
        (heading("Redeliver all that match", &lead, &format!("/v1/operations?{}", wanted.filter.written())))
        p.narrowed {
            (narrowing(wanted.filter.words().iter()))
            a href={ "/operations?" (wanted.filter.written()) } { "Show them" }
        }
        (counts(&plan))
        @if plan.matched > 0 { (form(&wanted.filter, &plan)) }
    };
    Ok(Html(frame.page(Here::Operations, "Redeliver all that match", &content)))
}

fn counts(plan: &BulkPlan) -> Markup {
    html! {
        section.card {
            h2 {
                @if !plan.is_exact { "At least " }
                (plan.matched) @if plan.matched == 1 { " operation" } @else { " operations" }
            }
            dl {
                @for (risk, count) in &plan.by_risk {
                    dt { (count) " " (risk.name()) }
                    dd { (risk.words()) }
                }
            }
            dl {
                @for (route, count) in &plan.by_route { dt { (count) } dd { "on " bdi { (route) } } }
            }
        }
    }
}

fn form(filter: &Filter, plan: &BulkPlan) -> Markup {
    let risky = |risk: &&Risk| risk.wants_a_word() && risk.can_be_taken();
    html! {
        form.card method="post" action={ "/bulk?" (filter.written()) } {
            @for risk in plan.by_risk.keys().filter(risky) {
                label.choice {
                    input type="checkbox" name=(risk.name()) value="yes";
                    " Also those whose risk is " strong { (risk.name()) } ", whatever comes of it"
                }
            }
            label { "Operations a second, at most"
                input name="rate" inputmode="numeric" pattern="[0-9]+" value=(RATE) required;
            }
            (reason("Reason"))
            button.careful {
                "Redeliver " @if !plan.is_exact { "at least " } (number(plan.matched - plan.left_out))
            }
        }
    }
}

/// The form, as a browser sends it; its address says which operations, as a list's does.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ordered {
    reason: String,
    rate: u32,
    unknown: Option<String>,
    #[serde(rename = "window-over")]
    window_over: Option<String>,
}

reasoned!(Ordered);

pub(super) async fn begin(
    node: View,
    Extension(caller): Extension<Caller>,
    Filtered(filter): Filtered,
    Sent(_, form): Sent<Ordered>,
) -> Done {
    let risks = [(Risk::Unknown, form.unknown), (Risk::WindowOver, form.window_over)];
    let taken = risks.into_iter().filter_map(|(risk, yes)| yes.map(|_| risk.name().to_owned()));
    let wanted = Wanted {
        action: "redeliver".to_owned(),
        filter,
        reason: form.reason,
        rate: Some(form.rate),
        accept_risk: Words::Many(taken.collect()),
        ..Wanted::default()
    };
    let bulk = begun(&node, wanted.order(&node, &caller)?).await?;
    Ok(Redirect::to(&format!("/bulk/{}", bulk.name())))
}

/// How far it is; the page looks again by itself while it runs.
pub(super) async fn show(node: View, Path(name): Path<String>) -> Result<Html, Problem> {
    let bulk = node.bulk(&name).await?;
    let frame = Frame::of(&node).await?;
    let is_running = bulk.standing == BulkStanding::Running;
    let title = format!("Bulk: {}", bulk.order.deed.name());
    let lead = html! { "Begun by " bdi { (bulk.order.person.who) } ": " bdi { (bulk.order.person.reason) } };
    let content = html! {
        (heading(&title, &lead, &format!("/v1/bulk/{}", bulk.name())))
        div #bulk data-live="all" data-every=[is_running.then_some("1")] { (progress(&bulk, is_running)) }
    };
    Ok(Html(frame.page(Here::Operations, &title, &content)))
}

fn progress(bulk: &Bulk, is_running: bool) -> Markup {
    let now = shape::now();
    let gone_through = bulk.done + bulk.left_out + bulk.failed;
    html! {
        @if is_running { noscript { meta http-equiv="refresh" content="2"; } }
        p.notice.warn[bulk.failed > 0] role="status" {
            strong { (bulk.standing.name()) } ". "
            (bulk.done) " of " @if !bulk.is_exact { "at least " } (bulk.matched) " done, "
            (bulk.left_out) " left out because nobody takes their risk, " (bulk.failed) " failed."
        }
        @if bulk.matched > 0 {
            progress.bar max=(bulk.matched.max(gone_through)) value=(gone_through) aria-label="Gone through" {
                (gone_through) " of " (bulk.matched)
            }
        }
        section.card #facts {
            dl.facts {
                dt { "Id" } dd { code { (bulk.name()) } }
                dt { "Began" } dd { (words::time(bulk.began_at, now)) }
                dt { "A second" } dd { (bulk.order.rate) " at most" }
                @if let Some(at) = bulk.ended_at { dt { "Ended" } dd { (words::time(at, now)) } }
                @if let Some(trouble) = &bulk.trouble { dt { "Last failure" } dd { (trouble) } }
            }
        }
        @if is_running {
            form.card #stop method="post" action={ "/bulk/" (bulk.name()) "/stop" } {
                (reason("Reason"))
                button.careful { "Stop it" }
            }
        } @else if bulk.failed > 0 || bulk.done > 0 {
            p.more { a href="/operations" { "To the operations" } }
        }
    }
}

pub(super) async fn stop(
    node: View,
    Path(name): Path<String>,
    Sent(person, _): Sent<Because>,
) -> Done {
    let bulk = node.engine.stop_bulk(&name, &person).await?;
    Ok(Redirect::to(&format!("/bulk/{}", bulk.name())))
}
