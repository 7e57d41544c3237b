//! Operations for tests, and how their attempts end.

use std::time::Duration;

use onceward_core::attempt::{Ended, Ending, Reached};
use onceward_core::exchange::{Headers, Request};
use onceward_core::fingerprint::{Fingerprint, FingerprintRule, FingerprintSecret};
use onceward_core::hint::Hint;
use onceward_core::id::OperationId;
use onceward_core::key::{Key, Scope, ScopeKind};
use onceward_core::operation::{Fence, Looks, Operation, Run, State};
use onceward_core::policy::{Effects, Mode, Policy};
use onceward_core::time::Timestamp;
use onceward_core::verdict;

fn request(body: &str) -> Request {
    Request {
        method: "POST".into(),
        target: "/orders".into(),
        headers: Headers::default(),
        body: body.to_owned().into(),
    }
}

/// The fingerprint of a request with this body.
pub(crate) fn fingerprint(body: &str) -> Fingerprint {
    Fingerprint::of(&request(body), &FingerprintRule::default(), &FingerprintSecret([1; 32]))
}

/// An operation that was just remembered.
pub(crate) fn operation(effects: Effects, mode: Mode, method: &str) -> Operation {
    let policy = Policy::default();
    Operation {
        id: OperationId::new(7, 7),
        fence: Fence::default(),
        scope: Scope {
            kind: ScopeKind::Call,
            tenant: "t".into(),
            name: "r".into(),
            principal: String::new(),
        },
        key: Key::new("k").expect("a key"),
        fingerprint: fingerprint("a"),
        mode,
        effects,
        upstream_key: None,
        route: "r".into(),
        via: None,
        method: method.into(),
        target: "/orders".into(),
        label: None,
        created_at: Timestamp::default(),
        state: State::Pending { due: Timestamp::default() },
        attempts: Vec::new(),
        run: Run { since: Timestamp::default(), before: 0 },
        deadline: None,
        attempts_max: None,
        send_by: None,
        upstream_window: Duration::from_hours(24),
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
        callback: None,
        ids: Vec::new(),
        looks: Looks::default(),
        aliases: Vec::new(),
        retain: None,
        lease_until: None,
    }
}

/// How an attempt ended whose request went out whole.
pub(crate) fn ended(
    now: Timestamp,
    ending: Ending,
    status: Option<u16>,
    policy: &Policy,
    hint: Hint,
) -> Ended {
    Ended {
        at: now,
        ending,
        reached: Reached::Sent,
        status,
        error: None,
        may_have_executed: verdict::may_have_executed(ending, status, policy, hint),
        answer: None,
    }
}
