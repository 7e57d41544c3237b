//! The upstreams of a world and how the nodes are told to treat them: one that dedupes by key, one
//! that does not, and one where repeating is harmless.

use std::sync::Arc;
use std::time::Duration;

use onceward::core::condition::Condition;
use onceward::core::lookup::{LookupRule, When};
use onceward::core::path_template::PathTemplate;
use onceward::core::policy::{
    Backoff, Effects, OnDead, OnExpired, Order, Policy, UpstreamKeyRule, UpstreamKeyValue,
};
use onceward::route::{Protection, Route, Routes};
use onceward::upstream::{Target, Timeouts, Trust};
use onceward_proof::chance::Chance;
use serde_json::json;

/// What an upstream does with a second arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// It recognises the key.
    Keyed,
    /// It does it once more.
    Once,
    /// It is as before.
    Harmless,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Keyed, Self::Once, Self::Harmless];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Keyed => "keyed",
            Self::Once => "once",
            Self::Harmless => "harmless",
        }
    }

    pub(crate) fn of(name: &str) -> Self {
        Self::ALL.into_iter().find(|kind| kind.name() == name).unwrap_or(Self::Once)
    }
}

/// How long the upstream that dedupes remembers a key.
pub(crate) const UPSTREAM_WINDOW: Duration = Duration::from_mins(20);

/// The longest that an attempt takes.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// The longest that a request is under way after its attempt was given up: well within what is
/// left of the upstream's window.
pub(crate) const LATE_MAX: Duration = Duration::from_mins(1);

/// How long after an attempt has ended its effect shows for sure: what was sent may be under way for
/// as long as a request can be late, its node may have stood still before it sent it, and the clocks of
/// two nodes may be two minutes apart.
const SETTLE: Duration = Duration::from_mins(6);

/// The routes of a world.
pub(crate) fn routes(chance: &mut Chance) -> Routes {
    let slots_max = if chance.percent(30) { 1 + chance.below(3) as usize } else { 64 };
    // Drawn apart, so that whoever draws after it draws as before.
    let is_asked = Chance(chance.0 ^ 0x10c4_5eed).percent(40);
    let all = Kind::ALL.map(|kind| {
        let policy = policy(kind, chance);
        let lookup = (is_asked && kind != Kind::Harmless).then(lookup).flatten();
        let policy = Policy { lookup: lookup.map(Arc::new), ..policy };
        let route = route(kind, policy, slots_max);
        (route.name.clone(), Arc::new(route))
    });
    let ad_hoc = Arc::new(route(Kind::Once, Policy::default(), slots_max));
    Routes { named: all.into(), ad_hoc }
}

fn route(kind: Kind, policy: Policy, slots_max: usize) -> Route {
    let base = format!("http://{}.sim", kind.name());
    let target = Target {
        base: base.parse().unwrap_or_else(|_| unreachable!("a name of ours")),
        trust: Trust::Operator,
        http2: false,
        tls: None,
        mail: None,
        timeouts: Timeouts { total: TIMEOUT, ..Timeouts::default() },
    };
    Route {
        protection: Protection { slots_max, ..Protection::default() },
        answer_max: Duration::from_secs(45),
        body_bytes_max: 64 << 10,
        response_bytes_max: 64 << 10,
        ..Route::new(kind.name(), target, policy)
    }
}

/// The upstream's books are open to whoever asks.
fn lookup() -> Option<LookupRule> {
    Some(LookupRule {
        get: PathTemplate::read("/books/{operation}").ok()?,
        found: Condition::read(&json!({"json": {"/effects": {"gt": 0}}})).ok()?,
        absent: None,
        settle: SETTLE,
        when: When::Doubt,
        status: None,
        is_answer: false,
    })
}

fn policy(kind: Kind, chance: &mut Chance) -> Policy {
    let effects = match kind {
        Kind::Keyed => Effects::Keyed,
        Kind::Once => Effects::NonIdempotent,
        Kind::Harmless => Effects::Idempotent,
    };
    let value =
        if chance.percent(50) { UpstreamKeyValue::Passthrough } else { UpstreamKeyValue::Derived };
    let minutes = |chance: &mut Chance, from: u64, to: u64| {
        Duration::from_mins(from + chance.below(to - from))
    };
    let accepted = Backoff {
        attempts_max: 2 + chance.below(8) as u32,
        // Some go on for longer than the upstream remembers a key.
        horizon: minutes(chance, 5, 40),
        base: Duration::from_secs(1 + chance.below(20)),
        floor: Duration::from_millis(200),
        cap: minutes(chance, 1, 10),
        ..Backoff::accepted()
    };
    Policy {
        effects: Some(effects),
        upstream_key: UpstreamKeyRule {
            value,
            window: UPSTREAM_WINDOW,
            ..UpstreamKeyRule::default()
        },
        accepted,
        held: Backoff { attempts_max: 1 + chance.below(4) as u32, ..Backoff::held() },
        window: minutes(chance, 5, 60),
        tombstone: minutes(chance, 10, 120),
        on_dead: if chance.percent(80) { OnDead::Revive } else { OnDead::Replay },
        on_expired: if chance.percent(80) { OnExpired::Refuse } else { OnExpired::Execute },
        order: Order::Subject,
        order_block_max: Duration::from_mins(2),
        ..Policy::default()
    }
}
