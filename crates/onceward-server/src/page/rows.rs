//! Operations as rows of a table. Where it is the newest of a list the page's script keeps it up to date:
//! rows stay where they are, and what is new is announced.

use std::time::Duration;

use maud::{Markup, html};
use onceward::core::attempt::Attempt;
use onceward::core::key::ScopeKind;
use onceward::core::operation::{Operation, State as Life};
use onceward::core::time::Timestamp;

use super::bulk::many;
use super::{frame, words};
use crate::view::View;

/// Which columns a table has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    All,
    Dead,
    InDoubt,
}

impl Table {
    /// What its time is of.
    fn when(self) -> &'static str {
        match self {
            Self::All => "Came",
            Self::Dead => "Died",
            Self::InDoubt => "Begun",
        }
    }
}

/// Operations, with the columns of `kind`.
pub(super) fn table(node: &View, kind: Table, operations: &[Operation], now: Timestamp) -> Markup {
    rows(node, kind, false, operations, now)
}

/// The same, each with a box that selects it for what stands above the list.
pub(super) fn selectable(
    node: &View,
    kind: Table,
    operations: &[Operation],
    now: Timestamp,
) -> Markup {
    rows(node, kind, true, operations, now)
}

fn rows(
    node: &View,
    kind: Table,
    has_boxes: bool,
    operations: &[Operation],
    now: Timestamp,
) -> Markup {
    let head = html! {
        @if has_boxes { th.tick scope="col" { span.unseen { "Selected" } } }
        @if kind == Table::All { th scope="col" { "State" } }
        th scope="col" { "Key" }
        @if kind == Table::Dead { th scope="col" { "Reason" } }
        th scope="col" { @if kind == Table::InDoubt { "What is known" } @else { "Last result" } }
        th scope="col" { "Route" }
        @if kind == Table::InDoubt { th scope="col" { "Looked for" } }
        @else { th.number scope="col" { "Attempts" } }
        th scope="col" { (kind.when()) }
        @if kind == Table::InDoubt { th scope="col" { span.unseen { "Resolve" } } }
    };
    let rows =
        html! { @for operation in operations { (row(node, kind, has_boxes, operation, now)) } };
    frame::stacked("Operations", &head, &rows)
}

/// A list that is kept up to date, under the id `name`.
pub(super) fn live(name: &str, content: &Markup) -> Markup {
    html! {
        div.live id=(name) data-live="list" {
            div.announce role="status" {}
            (content)
        }
    }
}

fn row(node: &View, kind: Table, has_box: bool, operation: &Operation, now: Timestamp) -> Markup {
    let url = words::url_of(operation.id);
    let when = match kind {
        Table::All => operation.created_at,
        Table::Dead => operation.ended_at.unwrap_or(operation.created_at),
        Table::InDoubt => last_sent(operation).map_or(operation.created_at, |it| it.started_at),
    };
    html! {
        tr data-key=(operation.id) {
            @if has_box {
                td.tick {
                    label {
                        input type="checkbox" form=(many::FORM) name=(many::BOX) value=(operation.id) autocomplete="off";
                        span.unseen { "Select " (operation.key.as_str()) }
                    }
                }
            }
            @if kind == Table::All { td.state data-label="State" { (words::chip(operation)) (next(operation, now)) } }
            td.what {
                (name(operation))
            }
            @if kind == Table::Dead {
                td.why data-label="Reason" { @if let Life::Dead(why) = operation.state { (words::death(why)) } }
            }
            td.last data-label=(if kind == Table::InDoubt { "What is known" } else { "Last result" }) {
                @if kind == Table::InDoubt { (known(operation)) } @else { (words::last(operation)) }
            }
            td.route data-label="Route" { (words::place(node, operation)) }
            @if kind == Table::InDoubt { td.looks data-label="Looked for" { (looks(operation, now)) } }
            @else { td.number data-label="Attempts" { (attempts(node, operation)) } }
            td.when data-label=(kind.when()) { (words::time(when, now)) }
            @if kind == Table::InDoubt { td { a.button href={ (url) "#acts" } { "Resolve" } } }
        }
    }
}

/// What it is called, and what was asked. The key of a delivery is made of ids: its event's type says more.
fn name(operation: &Operation) -> Markup {
    let (url, key) = (words::url_of(operation.id), operation.key.as_str());
    let kind = operation.label.as_ref();
    html! {
        @if let (ScopeKind::Delivery, Some(kind)) = (operation.scope.kind, kind) {
            a.key href=(url) { (kind) }
            span.request title=(key) { (key) }
        } @else {
            a.key href=(url) { (key) }
            span.request title=(operation.target) { (operation.method) " " (operation.target) }
            @if let Some(label) = &operation.label { span.label { (label) } }
        }
    }
}

/// The attempt that nobody knows the end of.
fn last_sent(operation: &Operation) -> Option<&Attempt> {
    let mut attempts = operation.attempts.iter().rev();
    attempts.find(|attempt| attempt.may_have_executed()).or_else(|| operation.attempts.last())
}

/// When something is to come of it.
fn next(operation: &Operation, now: Timestamp) -> Markup {
    let Life::Pending { due } = operation.state else { return html! {} };
    let is_due = due.since(now) < Duration::from_secs(1);
    html! {
        div.next {
            @if is_due { "due now" } @else { "next " (words::time(due, now)) }
        }
    }
}

/// How many attempts there were, of how many at most.
fn attempts(node: &View, operation: &Operation) -> Markup {
    let (made, before) = (operation.attempts_made(), operation.run.before);
    let max = attempts_max(node, operation);
    html! {
        (made)
        @match max {
            // What a person sent again has as many once more.
            Some(max) if before > 0 => span.soft { ", " (max - before) " a run" },
            Some(max) => span.soft { "/" (max) },
            None => {}
        }
    }
}

/// How many attempts there may be in all, where its route is there and it is not over.
pub(super) fn attempts_max(node: &View, operation: &Operation) -> Option<u32> {
    let is_here = matches!(operation.scope.kind, ScopeKind::Claim | ScopeKind::Saga);
    if is_here || operation.state == Life::Done {
        return None;
    }
    let route = node.engine.route(&operation.route)?;
    let policy = route.policy_for(&operation.method, &operation.target);
    let of_run = policy.backoff(operation.mode).attempts_max;
    let max = operation.run.before + operation.attempts_max.unwrap_or(of_run);
    // Redeliveries by hand may have gone on beyond it.
    Some(max).filter(|max| *max >= operation.attempts_made())
}

/// What is known of one in doubt.
fn known(operation: &Operation) -> Markup {
    let ended = last_sent(operation).and_then(|attempt| attempt.ended.as_ref());
    if operation.scope.kind == ScopeKind::Claim {
        // Nothing of a claim is sent: whoever had it in hand may have done it.
        return html! {
            "In hand of "
            @match &operation.label { Some(holder) => bdi { (holder) }, None => "somebody" }
            ", who has not said how it ended"
        };
    }
    html! {
        @match ended {
            Some(ended) => { (words::reached_so_far(ended.reached)) ", " (words::last(operation)) }
            None => { "Begun, and its end was never told" }
        }
    }
}

/// Whether its upstream was asked, and what came of it.
fn looks(operation: &Operation, now: Timestamp) -> Markup {
    let looks = operation.looks;
    html! {
        @if looks.made == 0 { span.soft { "no" } }
        @else {
            (looks.made) "×"
            @if looks.absent > 0 { ", not there" }
            @if let Some(next) = looks.next { div.next { "next " (words::time(next, now)) } }
        }
    }
}
