//! Operations for tests, and how their attempts end.

use std::time::Duration;

use onceward_core::attempt::{Ended, Ending, Reached, Timings};
use onceward_core::exchange::{Headers, Request};
use onceward_core::fingerprint::{Fingerprint, FingerprintRule, FingerprintSecret};
use onceward_core::hint::Hint;
use onceward_core::id::OperationId;
use onceward_core::key::{Key, Scope, ScopeKind};
use onceward_core::operation::{Intent, Operation};
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
    Fingerprint::of(&request(body), &FingerprintRule::default(), &FingerprintSecret::new([1; 32]))
}

/// An operation that was just remembered.
pub(crate) fn operation(effects: Effects, mode: Mode, method: &str) -> Operation {
    let policy = Policy::default();
    let scope = Scope {
        kind: ScopeKind::Call,
        tenant: "t".into(),
        name: "r".into(),
        principal: String::new(),
    };
    let key = Key::new("k").expect("a key");
    let id = OperationId::new(7, 7);
    let intent = Intent {
        effects,
        upstream_window: Duration::from_hours(24),
        method: method.into(),
        target: "/orders".into(),
        tombstone: policy.tombstone,
        ..Intent::new(id, scope, key, fingerprint("a"), Timestamp::default())
    };
    Operation { mode, window: policy.window, ..Operation::new(intent) }
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
        timings: Timings::default(),
    }
}
