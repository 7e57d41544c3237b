//! A policy as a table that a person reads: each setting by its key in the file.

use onceward::core::policy::{Backoff, Policy};

use super::words::{
    BODIES, DELETE_GONE, ERROR_SHAPES, MEANINGS, MISSING, ON_DEAD, ON_EXPIRED, QUERIES,
    UPSTREAM_KEYS, word_of,
};
use crate::units::show;

/// Every setting of `policy`, always all of them and in one order; no value is a secret.
pub(super) fn settings(policy: &Policy) -> Vec<(&'static str, String)> {
    let meant = MEANINGS.iter().map(|(name, meaning)| {
        let of = policy.statuses.iter().filter(|(_, other)| *other == meaning);
        let of: Vec<_> = of.map(|(status, _)| status.to_string()).collect();
        (*name, of.join(", "))
    });
    let success: Vec<_> = policy.success.iter().map(ToString::to_string).collect();
    let hints: Vec<_> = policy.hints.iter().map(|hint| hint.name()).collect();
    let fingerprint = &policy.fingerprint;
    let upstream_key = &policy.upstream_key;
    let mut settings = vec![
        ("effects", policy.effects.map_or("by the method", |effects| effects.name()).to_owned()),
        ("upstream_key", upstream_key.place.to_string()),
        ("upstream_key.value", word_of(UPSTREAM_KEYS, &upstream_key.value).to_owned()),
        ("upstream_key.window", show(upstream_key.window)),
        ("upstream_key.bytes_max", upstream_key.bytes_max.to_string()),
        ("mode", policy.mode.name().to_owned()),
        ("key.missing", word_of(MISSING, &policy.key_missing).to_owned()),
        ("key.headers", policy.key_headers.join(", ")),
        ("key.json", policy.key_pointer.clone().unwrap_or_default()),
        ("fingerprint.body", word_of(BODIES, &fingerprint.body).to_owned()),
        ("fingerprint.query", word_of(QUERIES, &fingerprint.query).to_owned()),
        ("fingerprint.headers", fingerprint.headers.join(", ")),
        ("fingerprint.ignore", fingerprint.ignore.join(", ")),
        ("success", success.join(", ")),
    ];
    settings.extend(meant);
    settings.extend([
        ("hints", hints.join(", ")),
        ("delete_gone", word_of(DELETE_GONE, &policy.delete_gone).to_owned()),
        ("held", backoff(&policy.held)),
        ("retry", backoff(&policy.accepted)),
        ("window", show(policy.window)),
        ("tombstone", show(policy.tombstone)),
        ("on_dead", word_of(ON_DEAD, &policy.on_dead).to_owned()),
        ("on_expired", word_of(ON_EXPIRED, &policy.on_expired).to_owned()),
        ("mismatch_status", policy.mismatch_status.to_string()),
        ("error_shape", word_of(ERROR_SHAPES, &policy.error_shape).to_owned()),
        ("keep_headers", policy.keep_headers.join(", ")),
        ("seal_bodies", policy.seal_bodies.to_string()),
        ("seal_headers", policy.seal_headers.join(", ")),
        ("lookup", policy.lookup.as_ref().map_or("", |rule| rule.get.as_str()).to_owned()),
        ("hours", policy.hours.as_ref().map_or("", |hours| hours.as_str()).to_owned()),
    ]);
    settings
}

/// The setting that a key of a table belongs to: `upstream_key.header` says `upstream_key`.
pub(super) fn setting_of(key: &str) -> &str {
    match key {
        "wait" => "held",
        "upstream_key.header" | "upstream_key.json" | "upstream_key.query" => "upstream_key",
        key => ["held", "retry", "lookup"]
            .into_iter()
            .find(|whole| key.strip_prefix(whole).is_some_and(|rest| rest.starts_with('.')))
            .unwrap_or(key),
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
