//! The one sentence that leads an operation's page: what it comes to, or what it waits for and until when.

use std::time::Duration;

use maud::{Markup, html};
use onceward::Bar;
use onceward::core::key::ScopeKind;
use onceward::core::operation::{Operation, State};
use onceward::core::policy::Mode;
use onceward::core::time::Timestamp;

use super::{upstream_place, words};
use crate::access::Roles;
use crate::shape;
use crate::view::View;

/// What is due sooner is due to a person.
const SOON: Duration = Duration::from_secs(1);

/// What a person should know first.
pub(super) fn show(node: &View, operation: &Operation, now: Timestamp) -> Markup {
    let is_waiting = !matches!(operation.scope.kind, ScopeKind::Claim | ScopeKind::Saga);
    match operation.state {
        State::Pending { due } if is_waiting => waits(node, operation, due, now),
        _ => html! { (shape::advice(operation)) },
    }
}

fn waits(node: &View, operation: &Operation, due: Timestamp, now: Timestamp) -> Markup {
    let subject = operation.subject.as_ref().filter(|subject| !subject.is_first);
    let is_due = due.since(now) < SOON;
    html! {
        @if let Some(subject) = subject {
            "Waits for its turn: another about " bdi { (subject.name) } " goes first."
        }
        @else if let (true, Some(bar)) = (is_due, bar(node, operation)) {
            "Waits: " (bar.show(node, operation, now)) "."
        }
        @else if is_due { "Due: the gateway sends it in its turn." }
        @else if operation.attempts_in_run() == 0 {
            "Waits until " (words::exact(due)) ", " (words::time(due, now)) ": it is not to be sent before."
        }
        @else if operation.mode == Mode::Held {
            "Its caller waits: the next attempt is made " (words::time(due, now)) "."
        }
        @else { "Waits: the next attempt is made " (words::time(due, now)) "." }
    }
}

/// What stands before an upstream, and until when where that is known.
pub(super) struct Before {
    bar: Bar,
    until: Option<Timestamp>,
}

/// Why nothing goes to its upstream now, where nothing does and who looks may know how that stands.
pub(super) fn bar(node: &View, operation: &Operation) -> Option<Before> {
    node.check_kept(&operation.route).ok()?;
    let standing = node.engine.standing(&operation.route)?;
    Some(Before { bar: standing.bar?, until: standing.until })
}

impl Before {
    /// In words, without a full stop.
    pub(super) fn show(&self, node: &View, operation: &Operation, now: Timestamp) -> Markup {
        let until = self.until.filter(|until| *until > now);
        let route = html! { bdi { (node.engine.called(&operation.route)) } };
        html! {
            @match self.bar {
                Bar::Paused => { "a person paused " (route) }
                Bar::BreakerOpen => {
                    "the breaker of " (route) " is open"
                    @if let Some(until) = until { ", and it is asked again " (words::time(until, now)) }
                    @if node.may(Roles::OPERATE) { "; " a href=(upstream_place(&operation.route)) { "ask it now" } }
                }
                Bar::UpstreamAsked => {
                    (route) " asked to be left alone"
                    @if let Some(until) = until { " and is sent to again " (words::time(until, now)) }
                }
                Bar::Rate => { "the rate of " (route) " is used up" }
                Bar::Slots => { "as many calls to " (route) " are under way as may be" }
                Bar::OutsideHours => {
                    (route) " is sent to at other hours"
                    @if let Some(until) = until { ", again " (words::time(until, now)) }
                }
            }
        }
    }
}
