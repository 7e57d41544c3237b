//! 2\. The operation that an arrival becomes: in the ledger, its first attempt started where a
//! send slot is free, before a byte is sent.

use onceward_core::exchange::Request;
use onceward_core::id::OperationId;
use onceward_core::lease::Session;
use onceward_core::operation::{
    Event, Forgotten, Intent, Operation, Run, State, Subject, UpstreamKey,
};
use onceward_core::policy::{Effects, UpstreamKeyValue};
use onceward_core::time::Timestamp;
use onceward_core::upstream_key::KeyPlace;

use crate::call::Arrival;
use crate::order;
use crate::secret::Secrets;
use crate::store::Birth;
use crate::wire::{self, Sealing};

/// The birth of an operation from `arrival`, which is remembered as `request`. With `start`, that session
/// starts its first attempt in the same write. `replaces` is the operation whose key is free again.
pub(crate) fn birth(
    arrival: &Arrival,
    request: &Request,
    id: OperationId,
    start: Option<Session>,
    replaces: Option<&Operation>,
    secrets: &Secrets,
    now: Timestamp,
) -> Birth {
    let policy = &arrival.policy;
    let in_order = arrival.is_in_order();
    let due = policy.opening(arrival.mode, arrival.options.not_before.unwrap_or(now).max(now));
    // A key that a person freed may still be known to the upstream: there it must be another.
    let is_reused = replaces.is_some_and(|old| old.forgotten == Some(Forgotten::New));
    let upstream_key = (arrival.effects == Effects::Keyed).then(|| {
        let passed = passed_through(arrival).filter(|_| !is_reused);
        UpstreamKey {
            place: policy.upstream_key.place.clone(),
            value: passed.unwrap_or_else(|| secrets.upstream_key(id)),
        }
    });
    let intent = Intent {
        effects: arrival.effects,
        upstream_key,
        upstream_window: policy.upstream_key.window,
        route: arrival.route.name.clone(),
        via: arrival.options.via.clone(),
        method: arrival.request.method.clone(),
        target: arrival.request.target.clone(),
        tombstone: policy.tombstone,
        retain: policy.retain_bodies,
        flow: arrival.options.flow.clone(),
        callback: arrival.options.callback.clone().or_else(|| policy.callback.clone()),
        parent: arrival.options.parent,
        trace: arrival.trace,
        ..Intent::new(id, arrival.scope.clone(), arrival.key.clone(), arrival.fingerprint, now)
    };
    let mut operation = Operation {
        mode: arrival.mode,
        label: arrival.options.label.clone(),
        // Where it has to wait for its turn, that makes it due.
        state: State::Pending {
            due: if in_order { due.max(order::look_again(id, now)) } else { due },
        },
        run: Run { since: due, before: 0 },
        deadline: arrival.options.deadline,
        attempts_max: arrival.options.attempts_max,
        window: policy.window,
        ids: arrival.mail.as_ref().map(|mail| mail.ids(id, policy)).unwrap_or_default(),
        subject: arrival.options.subject.clone().map(|name| {
            Box::new(Subject {
                name,
                sequence: arrival.options.sequence,
                is_first: !in_order,
                superseded_by: None,
            })
        }),
        ..Operation::new(intent)
    };
    // From pending an attempt may start where it is its turn.
    if let Some(session) = start
        && let Ok(started) = operation.after(Event::Started(session), now)
    {
        operation = started;
    }
    Birth {
        request: wire::encode_request(request, id, secrets, Sealing::of(policy)),
        operation,
        replaces: replaces.map(|old| (old.id, old.fence)),
    }
}

/// The caller's key as the upstream gets it, where it is passed on and the upstream takes one of
/// its length. What the caller's body or query already has in its place stays.
fn passed_through(arrival: &Arrival) -> Option<String> {
    let rule = &arrival.policy.upstream_key;
    if rule.value == UpstreamKeyValue::Derived {
        return None;
    }
    let key = match &rule.place {
        KeyPlace::Header(_) => arrival.key.to_field(),
        place @ (KeyPlace::Json(_) | KeyPlace::Query(_)) => {
            let own = place.own(&arrival.request).ok().flatten();
            own.unwrap_or_else(|| arrival.key.as_str().to_owned())
        }
    };
    (key.len() <= rule.bytes_max).then_some(key)
}
