//! A policy as a table that a person reads: each setting by its key in the file.

use onceward::core::fingerprint::{BodyRule, QueryRule};
use onceward::core::policy::{
    Backoff, ErrorShape, KeyMissing, Meaning, OnDead, OnExpired, Policy, UpstreamKeyValue,
};

use super::PolicyFile;
use crate::units::show;

/// Every setting of `policy`, always all of them and in one order; no value is a secret.
pub(super) fn settings(policy: &Policy) -> Vec<(&'static str, String)> {
    let meant = |meaning| {
        let of = policy.statuses.iter().filter(|(_, other)| **other == meaning);
        of.map(|(status, _)| status.to_string()).collect::<Vec<_>>().join(", ")
    };
    let success: Vec<_> = policy.success.iter().map(ToString::to_string).collect();
    let hints: Vec<_> = policy.hints.iter().map(|hint| hint.name()).collect();
    let fingerprint = &policy.fingerprint;
    let upstream_key = &policy.upstream_key;
    vec![
        ("effects", policy.effects.map_or("by the method", |effects| effects.name()).to_owned()),
        ("upstream_key", upstream_key.place.to_string()),
        ("upstream_key.value", value(upstream_key.value).to_owned()),
        ("upstream_key.window", show(upstream_key.window)),
        ("upstream_key.bytes_max", upstream_key.bytes_max.to_string()),
        ("mode", policy.mode.name().to_owned()),
        ("key.missing", missing(policy.key_missing).to_owned()),
        ("key.headers", policy.key_headers.join(", ")),
        ("key.json", policy.key_pointer.clone().unwrap_or_default()),
        ("fingerprint.body", body(fingerprint.body).to_owned()),
        ("fingerprint.query", query(fingerprint.query).to_owned()),
        ("fingerprint.headers", fingerprint.headers.join(", ")),
        ("fingerprint.ignore", fingerprint.ignore.join(", ")),
        ("success", success.join(", ")),
        ("not_processed", meant(Meaning::NotProcessed)),
        ("refused", meant(Meaning::Refused)),
        ("final", meant(Meaning::Final)),
        ("ambiguous", meant(Meaning::Ambiguous)),
        ("hints", hints.join(", ")),
        ("delete_gone", if policy.delete_gone { "ok" } else { "error" }.to_owned()),
        ("held", backoff(&policy.held)),
        ("retry", backoff(&policy.accepted)),
        ("window", show(policy.window)),
        ("tombstone", show(policy.tombstone)),
        ("on_dead", if policy.on_dead == OnDead::Revive { "revive" } else { "replay" }.to_owned()),
        ("on_expired", expired(policy.on_expired).to_owned()),
        ("mismatch_status", policy.mismatch_status.to_string()),
        ("error_shape", shape(policy.error_shape).to_owned()),
        ("keep_headers", policy.keep_headers.join(", ")),
        ("seal_headers", policy.seal_headers.join(", ")),
    ]
}

/// The keys that a table of the file says, by their names in [`settings`].
pub(super) fn said(file: &PolicyFile) -> Vec<&'static str> {
    let key = file.key.as_ref();
    let print = file.fingerprint.as_ref();
    let up = file.upstream_key.as_ref();
    let is_placed =
        up.is_some_and(|up| up.header.is_some() || up.json.is_some() || up.query.is_some());
    let told = [
        ("effects", file.effects.is_some()),
        ("upstream_key", is_placed),
        ("upstream_key.value", up.is_some_and(|up| up.value.is_some())),
        ("upstream_key.window", up.is_some_and(|up| up.window.is_some())),
        ("upstream_key.bytes_max", up.is_some_and(|up| up.bytes_max.is_some())),
        ("mode", file.mode.is_some()),
        ("key.missing", key.is_some_and(|key| key.missing.is_some())),
        ("key.headers", key.is_some_and(|key| key.headers.is_some())),
        ("key.json", key.is_some_and(|key| key.json.is_some())),
        ("fingerprint.body", print.is_some_and(|print| print.body.is_some())),
        ("fingerprint.query", print.is_some_and(|print| print.query.is_some())),
        ("fingerprint.headers", print.is_some_and(|print| print.headers.is_some())),
        ("fingerprint.ignore", print.is_some_and(|print| print.ignore.is_some())),
        ("hints", file.hints.is_some()),
        ("delete_gone", file.delete_gone.is_some()),
        ("held", file.held.is_some() || file.wait.is_some()),
        ("retry", file.retry.is_some()),
        ("window", file.window.is_some()),
        ("tombstone", file.tombstone.is_some()),
        ("on_dead", file.on_dead.is_some()),
        ("on_expired", file.on_expired.is_some()),
        ("mismatch_status", file.mismatch_status.is_some()),
        ("error_shape", file.error_shape.is_some()),
        ("keep_headers", file.keep_headers.is_some()),
        ("seal_headers", file.seal_headers.is_some()),
    ];
    let statuses = file.statuses.said();
    told.into_iter().filter(|(_, is_said)| *is_said).map(|(key, _)| key).chain(statuses).collect()
}

fn value(value: UpstreamKeyValue) -> &'static str {
    match value {
        UpstreamKeyValue::Passthrough => "passthrough",
        UpstreamKeyValue::Derived => "derived",
    }
}

fn missing(missing: KeyMissing) -> &'static str {
    match missing {
        KeyMissing::Make => "make",
        KeyMissing::Require => "require",
        KeyMissing::Pass => "pass",
    }
}

fn body(rule: BodyRule) -> &'static str {
    match rule {
        BodyRule::Auto => "auto",
        BodyRule::Raw => "raw",
        BodyRule::None => "none",
    }
}

fn query(rule: QueryRule) -> &'static str {
    match rule {
        QueryRule::Raw => "raw",
        QueryRule::None => "none",
    }
}

fn expired(on_expired: OnExpired) -> &'static str {
    match on_expired {
        OnExpired::Refuse => "refuse",
        OnExpired::Execute => "execute",
    }
}

fn shape(shape: ErrorShape) -> &'static str {
    match shape {
        ErrorShape::Problem => "problem",
        ErrorShape::Stripe => "stripe",
    }
}

fn backoff(backoff: &Backoff) -> String {
    let within = format!("{} attempts in {}", backoff.attempts_max, show(backoff.horizon));
    if backoff.table.is_empty() {
        let (base, cap) = (show(backoff.base), show(backoff.cap));
        return format!(
            "{within}, base {base}, floor {}, cap {cap}, factor {}",
            show(backoff.floor),
            backoff.factor
        );
    }
    let table: Vec<_> = backoff.table.iter().copied().map(show).collect();
    format!("{within}: {}", table.join(", "))
}
