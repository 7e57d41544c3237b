//! Operations as JSON and as headers: the shapes that callers see.

use std::collections::BTreeMap;

use onceward::clock::{Clock as _, SystemClock};
use onceward::core::attempt::{Attempt, Ending, Phase, Timings};
use onceward::core::id::OperationId;
use onceward::core::key::ScopeKind;
use onceward::core::operation::{Death, Forgotten, Operation, State};
use onceward::core::policy::Effects;
use onceward::core::risk::risk;
use onceward::core::time::Timestamp;
use onceward::store::Asked;
use serde_json::{Map, Value, json};

use crate::telemetry::traces;

pub(crate) use onceward::edge::describe;

/// Where an operation is looked at.
pub(crate) fn url_of(id: OperationId) -> String {
    onceward::problem::instance_of(id)
}

/// Now, by the machine's clock.
pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

/// RFC 3339, UTC, to the millisecond.
pub(crate) fn time(at: Timestamp) -> String {
    at.rfc3339()
}

/// What an operation is about.
pub(crate) fn subject(name: Option<&str>, sequence: Option<u64>) -> Value {
    name.map_or(Value::Null, |name| json!({"name": name, "sequence": sequence}))
}

/// An operation; `is_whole`: for whoever may see its request.
pub(crate) fn operation(operation: &Operation, asked: Option<&Asked>, is_whole: bool) -> Value {
    let mut shown = json!({
        "id": operation.id.to_string(),
        "tenant": operation.scope.tenant,
        "principal": operation.scope.principal,
        "route": operation.route,
        "kind": operation.scope.kind.name(),
        "scope": operation.scope.name,
        "via": operation.via,
        "trace": traces::trace_id(operation),
        "key": operation.key.as_str(),
        "state": operation.state.name(),
        "mode": operation.mode.name(),
        "effects": operation.effects.name(),
        "ok": operation.outcome.as_ref().map(|outcome| outcome.ok),
        "told": operation.told,
        "reason": match operation.state {
            State::Dead(death) => Some(death.name()),
            _ => None,
        },
        "method": operation.method,
        "path": operation.target,
        "label": operation.label,
        "flow": operation.flow,
        "subject": operation
            .subject
            .as_ref()
            .map_or(Value::Null, |about| subject(Some(&about.name), about.sequence)),
        "superseded_by": operation
            .subject
            .as_ref()
            .and_then(|subject| subject.superseded_by)
            .map(|newer| newer.to_string()),
        "created_at": time(operation.created_at),
        "due_at": match operation.state {
            State::Pending { due } => Some(time(due)),
            _ => None,
        },
        "ended_at": operation.ended_at.map(time),
        "send_by": operation.send_by.map(time),
        "lease_until": operation.lease_until.map(time),
        "key_expires_at": operation.key_expires_at().map(time),
        "upstream_key": operation.upstream_key.as_ref().map(|key| json!({"place": key.place.to_string(), "value": key.value})),
        "attempts": operation.attempts.iter().map(attempt).collect::<Vec<_>>(),
        "outcome": operation.outcome.as_ref().map(|outcome| json!({
            "status": outcome.status,
            "ok": outcome.ok,
            "source": outcome.source.name(),
            "retained": outcome.answer.is_some(),
        })),
        "forgotten": operation.forgotten.map(|then| match then {
            Forgotten::Refuse => "refuse",
            Forgotten::New => "new",
        }),
        "aliases": operation.aliases.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "acts": operation.acts.iter().map(|act| json!({
            "deed": act.deed.name(), "at": time(act.at), "who": act.who, "reason": act.reason,
        })).collect::<Vec<_>>(),
        "looks": (operation.looks.made > 0).then(|| json!({
            "made": operation.looks.made,
            "absent": operation.looks.absent,
            "next": operation.looks.next.filter(|_| operation.state == State::InDoubt).map(time),
        })),
        "retry": advice(operation),
        "risk": operation.request.map(|_| {
            let risk = risk(operation, now());
            json!({"name": risk.name(), "why": risk.words()})
        }),
        "parent": operation.parent.map(|parent| parent.to_string()),
        "callback": operation.callback,
        "ids": ids(operation, is_whole),
    });
    if let Some(asked) = asked {
        shown["duplicates"] = json!({
            "count": asked.count,
            "last": asked.times.iter().map(|at| time(*at)).collect::<Vec<_>>(),
        });
    }
    shown
}

/// What an operation is found by, each name once: a mail has several recipients. Whom that is for and
/// what it is about stand in its request, and are told to those who may see that (`is_whole`).
pub(crate) fn ids(operation: &Operation, is_whole: bool) -> BTreeMap<&str, String> {
    let is_partly = !is_whole && operation.is_mail();
    let is_told = |name: &str| !(is_partly && matches!(name, "to" | "subject"));
    let mut ids = BTreeMap::<&str, String>::new();
    for (name, id) in operation.ids.iter().filter(|(name, _)| is_told(name)) {
        let value = ids.entry(name).or_default();
        let comma = if value.is_empty() { "" } else { ", " };
        *value = format!("{value}{comma}{id}");
    }
    ids
}

fn attempt(attempt: &Attempt) -> Value {
    let ended = attempt.ended.as_ref();
    json!({
        "n": attempt.n,
        "started_at": time(attempt.started_at),
        "ended_at": ended.map(|ended| time(ended.at)),
        "ending": ended.map(|ended| ended.ending.name()),
        "reached": ended.map(|ended| ended.reached.name()),
        "status": ended.and_then(|ended| ended.status),
        "error": ended.and_then(|ended| ended.error.clone()),
        "may_have_executed": attempt.may_have_executed(),
        "excerpt": ended.is_some_and(|ended| ended.answer.is_some()),
        "timings": ended.and_then(|ended| timings(&ended.timings)),
    })
}

/// How long each phase took in milliseconds, `null` of one that was not come to; nothing where nobody
/// measured.
fn timings(timings: &Timings) -> Option<Value> {
    let mut shown = Map::from_iter([("reused".to_owned(), timings.reused.into())]);
    for phase in Phase::ALL {
        let millis = timings.of(phase).map(|took| took.as_micros() as f64 / 1000.0);
        shown.insert(phase.name().to_owned(), millis.into());
    }
    (!timings.is_empty()).then_some(Value::Object(shown))
}

/// One sentence on whether sending again is safe: the question that a person has.
pub(crate) fn advice(operation: &Operation) -> &'static str {
    match operation.forgotten {
        Some(Forgotten::Refuse) => {
            return "Its key was dropped: a call with it is refused, and nothing is sent.";
        }
        Some(Forgotten::New) => {
            return "Its key was dropped: a call with it is a new operation, and is sent.";
        }
        None => {}
    }
    if operation.scope.kind == ScopeKind::Claim {
        return claim_advice(operation);
    }
    match (operation.scope.kind, operation.state) {
        (ScopeKind::Saga, State::Done) => {
            return "Ended: a start with the same key gets this saga; nothing is done again.";
        }
        (ScopeKind::Saga, _) => return "Open: its saga tells how it stands, step by step.",
        (ScopeKind::Step, State::Dead(_)) => {
            return "Its saga goes on from here: where that is stuck, it is retried there.";
        }
        _ => {}
    }
    let executed = operation.may_have_executed();
    match (operation.state, operation.effects) {
        (State::Done, _) if operation.is_mail() => mail_advice(operation),
        (State::Done, _) => "Done: the same key gets the same answer; nothing is sent again.",
        (State::InDoubt, _) => {
            "In doubt: it was sent, and no answer says whether it was done. Sending again could do it twice."
        }
        (State::Pending { .. }, _) => "Waits: its next attempt is made by itself.",
        (State::Delivering, _) => "Under way: an attempt is being made.",
        (State::Dead(Death::Superseded), _) => {
            "Superseded: a newer one about the same was done; this one is not sent any more."
        }
        (State::Dead(_), _) if !executed => "Safe to send again: nothing was done at the upstream.",
        (State::Dead(_), Effects::Idempotent) => "Safe to send again: repeating it is harmless.",
        (State::Dead(_), Effects::Keyed) => {
            "Safe to send again: the upstream dedupes by the key that goes with it."
        }
        (State::Dead(_), Effects::NonIdempotent) => {
            "Careful: it may have been done, and sending again would do it twice."
        }
    }
}

/// The same of a mail that is done: it may be so for some of its recipients alone.
fn mail_advice(mail: &Operation) -> &'static str {
    let last = mail.attempts.iter().rev().find_map(|attempt| attempt.ended.as_ref());
    match last.filter(|ended| ended.error.is_some()).map(|ended| ended.ending) {
        None => "Done: the same key gets the same answer; nothing is sent again.",
        Some(Ending::Answered) => {
            "Done for some of its recipients: its last attempt says for which not. Those need a mail of their own."
        }
        Some(_) => {
            "Done, by other evidence than an answer, for those that the server had not refused: where it had, its last attempt says which, and those need a mail of their own."
        }
    }
}

/// The same of a claim: nothing of it is ever sent.
fn claim_advice(claim: &Operation) -> &'static str {
    match claim.state {
        State::Done => "Done: whoever begins it gets the same outcome, and does nothing.",
        State::InDoubt => {
            "In doubt: whoever had it in hand has not said how it ended. Doing it again could do it twice."
        }
        State::Pending { .. } | State::Delivering => "Somebody's handler has it in hand.",
        State::Dead(Death::OwnerGone) => {
            "Free again: whoever had it in hand was silent, and doing it again is harmless."
        }
        State::Dead(_) => "Free again: nothing was done, and whoever begins it has it in hand.",
    }
}
