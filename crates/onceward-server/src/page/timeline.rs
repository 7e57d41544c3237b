//! The story of an operation as a line of time: received by whom, each attempt and how far it got, what was
//! waited for between them, who asked again, what people did, and what comes next.

use std::iter;
use std::time::Duration;

use maud::{Markup, html};
use onceward::core::attempt::{Attempt, Ended, Ending};
use onceward::core::exchange::Response;
use onceward::core::key::ScopeKind;
use onceward::core::operation::{Act, Operation, State};
use onceward::core::policy::Mode;
use onceward::core::time::Timestamp;
use onceward::store::Asked;

use super::payload::{Bodies, Shown};
use super::{payload, rows, track, verdict, words};
use crate::shape;
use crate::view::View;

/// An attempt and what is kept of its answer, with whether that is only a beginning.
pub(super) type Tried<'a> = (&'a Attempt, Option<(Response, bool)>);

/// Waits that are shorter are none to a person.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// Something that happened. What happened at once is told in this order.
enum Entry<'a> {
    Tried(usize),
    Acted(usize, &'a Act),
    /// With its key, from then to then, so often, and before that so often at times that are not kept.
    Asked(Timestamp, Timestamp, u64, u64),
    Ended,
}

pub(super) fn show(
    node: &View,
    operation: &Operation,
    attempts: &[Tried<'_>],
    asked: &Asked,
    bodies: Bodies,
    now: Timestamp,
) -> Markup {
    let is_claim = operation.scope.kind == ScopeKind::Claim;
    html! {
        section #timeline {
            h2 { "What happened" }
            ol.timeline {
                (received(operation, now))
                @for (at, entry) in entries(operation, attempts, asked) {
                    @match entry {
                        Entry::Tried(n) => {
                            (wait(operation, attempts, n))
                            (tried(node, operation, &attempts[n], bodies, now))
                        }
                        Entry::Acted(n, act) => li.entry.act data-key={ "act " (n) } {
                            p.line { (point(at, operation)) strong { (words::deed(act.deed)) } " by " bdi { (act.who) } }
                            blockquote { (act.reason) }
                        },
                        Entry::Asked(from, to, count, before) => li.entry.asked data-key={ "asked " (from.as_micros()) } {
                            p.line {
                                (point(from, operation)) strong { "Asked again" }
                                @if count > 1 { " " (count) " times, the last " (words::time(to, now)) }
                                @if before > 0 { span.soft { ", and " (before) " times before" } }
                            }
                        },
                        Entry::Ended => (end(operation, at)),
                    }
                }
                @if attempts.is_empty() && operation.request.is_none() && !is_claim {
                    li.entry data-key="forgotten" { p.line.soft { "What was sent was forgotten with its window." } }
                }
                (next(node, operation, now))
            }
        }
    }
}

/// All entries but the first and the last, in the order of time.
fn entries<'a>(
    operation: &'a Operation,
    attempts: &[Tried<'_>],
    asked: &Asked,
) -> Vec<(Timestamp, Entry<'a>)> {
    let tried = attempts.iter().enumerate().map(|(n, (it, _))| (it.started_at, Entry::Tried(n)));
    let acted = operation.acts.iter().enumerate().map(|(n, act)| (act.at, Entry::Acted(n, act)));
    let not_kept = asked.count.saturating_sub(asked.times.len() as u64);
    let before = iter::once(not_kept).chain(iter::repeat(0));
    let again = asked.times.iter().zip(before);
    let again = again.map(|(at, before)| (*at, Entry::Asked(*at, *at, 1, before)));
    let ended = operation.ended_at.map(|at| (at, Entry::Ended));
    let mut all: Vec<_> = tried.chain(acted).chain(ended).chain(again).collect();
    all.sort_by_key(|(at, _)| *at);
    // Who asks again does so often: what stands together is one entry.
    let mut merged: Vec<(Timestamp, Entry<'a>)> = Vec::with_capacity(all.len());
    for (at, entry) in all {
        match (merged.last_mut(), &entry) {
            (Some((_, Entry::Asked(_, to, count, _))), Entry::Asked(..)) => {
                *to = at;
                *count += 1;
            }
            _ => merged.push((at, entry)),
        }
    }
    merged
}

/// When it was, counted from its beginning.
fn point(at: Timestamp, operation: &Operation) -> Markup {
    let exact = shape::time(at);
    let since = at.since(operation.created_at);
    html! {
        span.at {
            time datetime=(exact) title=(exact) {
                @if since < WAIT_MIN { "0 s" } @else { "+" (words::duration(since)) }
            }
        }
    }
}

fn received(operation: &Operation, now: Timestamp) -> Markup {
    let by = &operation.scope.principal;
    html! {
        li.entry.received data-key="received" {
            p.line {
                (point(operation.created_at, operation))
                strong { @if operation.scope.kind == ScopeKind::Claim { "Claimed" } @else { "Received" } }
                @if !by.is_empty() { " from " bdi { (by) } }
                @if let Some(via) = &operation.via { " by " bdi { (via) } }
                @if operation.scope.kind != ScopeKind::Claim {
                    @match operation.mode {
                        Mode::Held => ", its caller waiting",
                        Mode::Accepted => ", accepted to be delivered",
                    }
                }
                " " span.soft { (words::time(operation.created_at, now)) }
            }
        }
    }
}

/// What was waited for before the `n`th attempt.
fn wait(operation: &Operation, attempts: &[Tried<'_>], n: usize) -> Markup {
    let attempt = attempts[n].0;
    let earlier = n.checked_sub(1).map(|n| &attempts[n]);
    let from = match earlier {
        Some((earlier, _)) => earlier.ended.as_ref().map(|ended| ended.at),
        None => Some(operation.created_at),
    };
    let Some(from) = from else { return html! {} };
    let wait = attempt.started_at.since(from);
    if wait < WAIT_MIN || (n == 0 && wait < Duration::from_secs(1)) {
        return html! {};
    }
    let by_hand = operation.acts.iter().any(|act| act.at >= from && act.at <= attempt.started_at);
    let asked = earlier.and_then(|(_, answer)| answer.as_ref()).and_then(|(answer, _)| {
        let value = answer.headers.get("retry-after")?;
        Some(String::from_utf8_lossy(value.as_ref()).into_owned())
    });
    html! {
        li.gap data-key={ "gap " (n) } {
            "waited " (words::duration(wait)) ": "
            @if by_hand { "until a person sent it again" }
            @else if let Some(asked) = asked { "the upstream asked for it (Retry-After: " bdi { (asked) } ")" }
            @else if n == 0 { "for its turn" }
            @else { "backoff" }
        }
    }
}

fn tried(
    node: &View,
    operation: &Operation,
    tried: &Tried<'_>,
    bodies: Bodies,
    now: Timestamp,
) -> Markup {
    let (attempt, excerpt) = tried;
    let (name, whole) =
        (format!("answer-{}", attempt.n), format!("{}/response", words::url_of(operation.id)));
    let as_shown = Shown { name: &name, whole: &whole, bodies };
    let ended = attempt.ended.as_ref();
    let class = match ended {
        None => "is-running",
        Some(ended) if ended.ending == Ending::Unsent => "is-unsent",
        Some(ended) if ended.ending == Ending::Answered => answered_as(ended),
        Some(_) => "is-lost",
    };
    let max = rows::attempts_max(node, operation);
    html! {
        li.entry.attempt.(class) data-key={ "attempt " (attempt.n) } {
            h3.line {
                (point(attempt.started_at, operation))
                "Attempt " (attempt.n)
                @if let Some(max) = max { span.soft { " of " (max) } }
                ": "
                @match ended {
                    Some(ended) => {
                        (words::ending(ended.ending))
                        @if let Some(status) = ended.status { ", " (words::status(status)) }
                    }
                    None => { "under way" }
                }
                span.soft { " · " @if ended.is_none() { "for " } (words::took(attempt, now)) }
            }
            @if let Some(error) = ended.and_then(|ended| ended.error.as_ref()) {
                p.error { bdi { (error) } }
            }
            @if let Some(ended) = ended.filter(|_| operation.scope.kind != ScopeKind::Claim) {
                (track::show(attempt, ended))
            }
            @if ended.is_none_or(|ended| ended.ending != Ending::Answered) {
                p.soft.small {
                    @if attempt.may_have_executed() { "It may have been done." } @else { "It was not done." }
                }
            }
            @if let Some((response, cut)) = excerpt {
                details data-key="answer" open[is_last_word(operation, attempt)] {
                    summary { "Its answer" @if *cut { ", the beginning" } }
                    (payload::headers(&response.headers))
                    (payload::body(&response.body, as_shown))
                }
            }
        }
    }
}

/// Whether what this attempt brought is all that says why the operation is not done.
fn is_last_word(operation: &Operation, attempt: &Attempt) -> bool {
    let is_last = operation.attempts.last().is_some_and(|last| last.n == attempt.n);
    is_last && operation.outcome.is_none() && operation.state != State::Done
}

/// What an answer was, by its status.
fn answered_as(ended: &Ended) -> &'static str {
    match ended.status {
        Some(200..400) => "is-good",
        _ => "is-bad",
    }
}

/// How it ended.
fn end(operation: &Operation, at: Timestamp) -> Markup {
    html! {
        @if let State::Dead(why) = operation.state {
            li.entry.is-bad data-key="end" {
                p.line {
                    (point(at, operation)) strong { "Dead" } ": " (words::death(why))
                    @if operation.told { ". Its caller was told" }
                }
            }
        } @else {
            li.entry.is-good data-key="end" { p.line { (point(at, operation)) strong { "Done" } } }
        }
    }
}

/// What comes next by itself.
fn next(node: &View, operation: &Operation, now: Timestamp) -> Markup {
    let State::Pending { due } = operation.state else { return html! {} };
    html! {
        li.entry.is-next data-key="end" {
            p.line {
                @if due.since(now) < Duration::from_secs(1) { strong { "Its next attempt is due" } }
                @else { strong { "Next attempt " (words::time(due, now)) } }
                @if let Some(bar) = verdict::bar(node, operation) { ": " (bar.show(node, operation, now)) }
            }
        }
    }
}
