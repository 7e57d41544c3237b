//! 2\. The operation that an arrival becomes: in the ledger, its first attempt started where a
//! send slot is free, before a byte is sent.

use onceward_core::id::OperationId;
use onceward_core::lease::Session;
use onceward_core::operation::{
    Event, Fence, Forgotten, Looks, Operation, Run, State, UpstreamKey,
};
use onceward_core::policy::{Effects, UpstreamKeyValue};
use onceward_core::time::Timestamp;

use crate::call::Arrival;
use crate::secret::Secrets;
use crate::store::Birth;
use crate::wire;

/// The birth of an operation from `arrival`. With `start`, that session starts its first attempt
/// in the same write. `replaces` is the operation whose key is free again.
pub(crate) fn birth(
    arrival: &Arrival,
    id: OperationId,
    start: Option<Session>,
    replaces: Option<&Operation>,
    secrets: &Secrets,
    now: Timestamp,
) -> Birth {
    let policy = &arrival.policy;
    let due = arrival.options.not_before.unwrap_or(now).max(now);
    // A key that a person freed may still be known to the upstream: there it must be another.
    let is_reused = replaces.is_some_and(|old| old.forgotten == Some(Forgotten::New));
    let upstream_key = (arrival.effects == Effects::Keyed).then(|| UpstreamKey {
        header: policy.upstream_key.header.clone(),
        value: match policy.upstream_key.value {
            UpstreamKeyValue::Passthrough if !is_reused => arrival.key.to_field(),
            UpstreamKeyValue::Passthrough | UpstreamKeyValue::Derived => secrets.upstream_key(id),
        },
    });
    let mut operation = Operation {
        id,
        fence: Fence(0),
        scope: arrival.scope.clone(),
        key: arrival.key.clone(),
        fingerprint: arrival.fingerprint,
        mode: arrival.mode,
        effects: arrival.effects,
        upstream_key,
        method: arrival.request.method.clone(),
        target: arrival.request.target.clone(),
        label: arrival.options.label.clone(),
        created_at: now,
        state: State::Pending { due },
        attempts: Vec::new(),
        run: Run { since: due, before: 0 },
        deadline: arrival.options.deadline,
        attempts_max: arrival.options.attempts_max,
        send_by: None,
        upstream_window: policy.upstream_key.window,
        window: policy.window,
        tombstone: policy.tombstone,
        ended_at: None,
        told: false,
        outcome: None,
        acts: Vec::new(),
        request: None,
        forgotten: None,
        flow: None,
        subject: None,
        parent: None,
        alias_of: None,
        callback: arrival.options.callback.clone().or_else(|| policy.callback.clone()),
        ids: Vec::new(),
        looks: Looks::default(),
    };
    // From pending an attempt may always start.
    if let Some(session) = start
        && let Ok(started) = operation.after(Event::Started(session), now)
    {
        operation = started;
    }
    Birth {
        request: wire::encode_request(&arrival.request, id, secrets, &policy.seal_headers),
        operation,
        replaces: replaces.map(|old| (old.id, old.fence)),
    }
}
