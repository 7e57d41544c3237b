//! The words, icons and times of the pages: one place, so that a state looks the same everywhere.

use std::time::Duration;

use http::StatusCode;
use maud::{Markup, html};
use onceward::core::attempt::{Attempt, Ending, Reached};
use onceward::core::id::OperationId;
use onceward::core::key::ScopeKind;
use onceward::core::operation::{Death, Deed, Operation, Source, State};
use onceward::core::policy::Effects;
use onceward::core::time::Timestamp;
use onceward::store::Standing;
use url::form_urlencoded;

use super::icons::Icon;
use crate::node::Node;
use crate::shape;

/// Where an operation's story is.
pub(super) fn url_of(id: OperationId) -> String {
    format!("/operations/{id}")
}

/// A state as icon, word and colour: never as colour alone.
pub(super) fn sign(class: &str, icon: Icon, word: &str) -> Markup {
    html! { span.chip.(class) { (icon.show()) (word) } }
}

/// Where an operation stands.
pub(super) fn chip(operation: &Operation) -> Markup {
    let (class, icon, word) = match Standing::of(operation) {
        // Whether it goes on, waits or is stuck, its steps tell.
        _ if operation.scope.kind == ScopeKind::Saga && !operation.state.is_ended() => {
            ("pending", Icon::Sagas, "open saga")
        }
        Standing::Pending | Standing::Held => ("pending", Icon::Pending, "pending"),
        Standing::Delivering => ("delivering", Icon::Delivering, "delivering"),
        Standing::InDoubt => ("doubt", Icon::Doubt, "in doubt"),
        // Final, but not what the route calls a success.
        Standing::Done if operation.outcome.as_ref().is_some_and(|outcome| !outcome.ok) => {
            ("refused", Icon::Warning, "done, not ok")
        }
        Standing::Done => ("done", Icon::Done, "done"),
        Standing::DeadLetter => ("dead", Icon::Dead, "dead"),
        Standing::Told if operation.scope.kind == ScopeKind::Step => {
            ("told", Icon::Dead, "dead, saga told")
        }
        Standing::Told => ("told", Icon::Dead, "dead, caller told"),
        Standing::Tombstone => ("forgotten", Icon::Gone, "forgotten"),
    };
    sign(class, icon, word)
}

/// Where it goes, as people call that; a claim and a saga go nowhere, and have a scope.
pub(super) fn place(node: &Node, operation: &Operation) -> String {
    if matches!(operation.scope.kind, ScopeKind::Claim | ScopeKind::Saga) {
        return operation.scope.name.clone();
    }
    node.engine.called(&operation.route)
}

/// Why it is dead.
pub(super) fn death(death: Death) -> &'static str {
    match death {
        Death::Refused => "Refused by the upstream",
        Death::Exhausted => "Attempts or time ran out",
        Death::Unsent => "Could never be sent",
        Death::Cancelled => "Given up by a person",
        Death::Superseded => "A newer one about the same was done",
        Death::OwnerGone => "The gateway ended while its caller waited",
    }
}

/// The state with what belongs to it.
pub(super) fn state(operation: &Operation, now: Timestamp) -> Markup {
    if operation.scope.kind == ScopeKind::Claim {
        return claim_state(operation, now);
    }
    if operation.scope.kind == ScopeKind::Saga && !operation.state.is_ended() {
        return html! { "Its saga tells how it stands." };
    }
    match operation.state {
        State::Pending { due } if due <= now => html! { "Its next attempt is due." },
        State::Pending { due } => html! { "Next attempt " (time(due, now)) "." },
        State::Delivering => html! { "An attempt is under way." },
        State::InDoubt => html! { "Waits for somebody who knows." },
        State::Done => html! {},
        State::Dead(why) => html! { (death(why)) },
    }
}

fn claim_state(claim: &Operation, now: Timestamp) -> Markup {
    match (claim.state, claim.lease_until) {
        (State::Delivering, Some(until)) => html! { "In hand until " (time(until, now)) "." },
        (State::Dead(Death::OwnerGone), _) => html! { "Its holder was silent; it is free again." },
        (State::Dead(_), Some(from)) if from > now => {
            html! { "Given back; free again " (time(from, now)) "." }
        }
        (State::Dead(_), _) => html! { "Given back; it is free again." },
        (State::InDoubt, _) => html! { "Waits for somebody who knows." },
        (State::Pending { .. } | State::Delivering | State::Done, _) => html! {},
    }
}

/// What a second arrival would do.
pub(super) fn effects(effects: Effects) -> &'static str {
    match effects {
        Effects::Idempotent => "idempotent: repeating is harmless",
        Effects::Keyed => "keyed: the upstream dedupes by the key",
        Effects::NonIdempotent => "non-idempotent: a second arrival is a second effect",
    }
}

/// How an attempt ended.
pub(super) fn ending(ending: Ending) -> &'static str {
    match ending {
        Ending::Answered => "answered",
        Ending::Truncated => "answer broke off",
        Ending::Unsent => "unsent",
        Ending::Unanswered => "unanswered",
    }
}

/// How far an attempt got, each step with its short name.
pub(super) fn reached(reached: Reached) -> &'static str {
    match reached {
        Reached::Nothing => "began",
        Reached::Resolved => "address found",
        Reached::Connected => "connected",
        Reached::Secured => "TLS agreed",
        Reached::Sent => "request sent",
        Reached::Head => "answer began",
        Reached::Body => "whole answer",
    }
}

/// The same of what is in doubt, as the beginning of a sentence.
pub(super) fn reached_so_far(reached: Reached) -> &'static str {
    match reached {
        Reached::Nothing | Reached::Resolved | Reached::Connected | Reached::Secured => "Not sent",
        Reached::Sent => "Sent",
        Reached::Head => "Sent, and an answer began",
        Reached::Body => "Sent and answered",
    }
}

/// How an outcome is known.
pub(super) fn source(source: Source) -> &'static str {
    match source {
        Source::Upstream => "the upstream's answer",
        Source::LateAnswer => "the upstream's answer, which came late",
        Source::Truncated => "the upstream's answer, which broke off: its body is lost",
        Source::TooLarge => "the upstream's answer, too large to keep",
        Source::Inferred => "inferred from an answer that says an earlier attempt had done it",
        Source::Person => "a person said so",
        Source::Lookup => "the upstream was asked, and knew of it",
        Source::Webhook => "the provider said so, in a webhook",
        Source::Holder => "whoever had it in hand said so",
        Source::Steps => "its steps came to their end",
    }
}

/// What a person did.
pub(super) fn deed(deed: Deed) -> &'static str {
    match deed {
        Deed::Redelivered => "Redelivered",
        Deed::Cancelled => "Cancelled",
        Deed::ResolvedDone => "Resolved as done",
        Deed::ResolvedNotSent => "Resolved as not sent",
        Deed::Forgot => "Key forgotten",
        Deed::Extended => "Key extended",
        Deed::Rotated => "Another key given",
        Deed::Resent => "Resent",
        Deed::Retried => "Tried sooner",
    }
}

/// A status with its name, where it has one.
pub(super) fn status(status: u16) -> String {
    let name = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    name.map_or_else(|| status.to_string(), |name| format!("{status} {name}"))
}

/// What the last attempt brought, in a line.
pub(super) fn last(operation: &Operation) -> String {
    let by_person = operation.outcome.as_ref().filter(|outcome| outcome.source == Source::Person);
    if by_person.is_some() {
        return "resolved by a person".to_owned();
    }
    let Some(ended) = operation.attempts.iter().rev().find_map(|attempt| attempt.ended.as_ref())
    else {
        return String::new();
    };
    result(ended.status, ended.error.as_deref()).unwrap_or_else(|| ending(ended.ending).to_owned())
}

/// A status and what went wrong, as far as there is any.
pub(super) fn result(code: Option<u16>, error: Option<&str>) -> Option<String> {
    match (code, error) {
        (Some(code), None) => Some(status(code)),
        (Some(code), Some(error)) => Some(format!("{} · {error}", status(code))),
        (None, error) => error.map(str::to_owned),
    }
}

/// How long an attempt took.
pub(super) fn took(attempt: &Attempt, now: Timestamp) -> String {
    let until = attempt.ended.as_ref().map_or(now, |ended| ended.at);
    duration(until.since(attempt.started_at))
}

/// A duration as people say it.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 if duration.as_millis() == 0 => "under 1 ms".to_owned(),
        0 => format!("{} ms", duration.as_millis()),
        1..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// How attempts ended, as statistics count them.
pub(super) fn endings(attempts: &[u64; 4]) -> String {
    counted(["answered", "broken off", "unsent", "unanswered"].into_iter().zip(*attempts))
}

/// The classes of answers, as statistics count them.
pub(super) fn classes(statuses: &[u64; 5]) -> String {
    counted(["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(*statuses))
}

fn counted(counts: impl Iterator<Item = (&'static str, u64)>) -> String {
    let said =
        counts.filter(|(_, count)| *count > 0).map(|(name, count)| format!("{count} {name}"));
    let said: Vec<_> = said.collect();
    if said.is_empty() { "none".to_owned() } else { said.join(", ") }
}

/// A value as the query of an address has it.
pub(super) fn in_query(value: &str) -> String {
    form_urlencoded::byte_serialize(value.as_bytes()).collect()
}

/// A name as a part of a path has it.
pub(super) fn in_path(name: &str) -> String {
    in_query(name).replace('+', "%20")
}

/// An instant: how long ago it is, or how soon; to the millisecond on a closer look.
pub(super) fn time(at: Timestamp, now: Timestamp) -> Markup {
    let (ago, ahead) = (now.since(at), at.since(now));
    let words = if ahead.as_secs() > 0 {
        format!("in {}", duration(Duration::from_secs(ahead.as_secs())).replace(".0", ""))
    } else if ago.as_secs() < 1 {
        "just now".to_owned()
    } else {
        format!("{} ago", duration(Duration::from_secs(ago.as_secs())).replace(".0", ""))
    };
    let exact = shape::time(at);
    html! { time.ago datetime=(exact) title=(exact) { (words) } }
}

/// An instant to the millisecond, for reading in order.
pub(super) fn exact(at: Timestamp) -> Markup {
    let exact = shape::time(at);
    let shown = exact.replace('T', " ").replace('Z', " UTC");
    html! { time datetime=(exact) { (shown) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_in_the_unit_that_fits() {
        let now = Timestamp::from_micros(1_800_000_000_000_000);
        let ago = |micros: i64| {
            let words = time(Timestamp::from_micros(now.as_micros() - micros), now).into_string();
            words.split_once('>').unwrap().1.replace("</time>", "")
        };
        for (micros, words) in [
            (0, "just now"),
            (3_400_000, "3 s ago"),
            (90_000_000, "90 s ago"),
            (180_000_000, "3 min ago"),
            (7_200_000_000, "2 h ago"),
            (-41_000_000, "in 41 s"),
        ] {
            assert_eq!(ago(micros), words);
        }
        assert_eq!(duration(Duration::from_millis(12)), "12 ms");
    }
}
