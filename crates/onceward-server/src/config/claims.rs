//! What holds for claims, as the file says it: `[claims.SCOPE]`.

use std::collections::BTreeMap;

use onceward::core::claim::ClaimRule;
use serde_json::{Value, json};

use super::ConfigError;
use super::table::{Table, Words};
use super::words::{EFFECTS, claim_scope, word_of};
use crate::units::show;

/// The largest outcome that may be allowed: each is in memory as a whole.
const OUTCOME_BYTES_MAX: usize = 4 << 20;

/// Whether a claim says what it is about.
const FINGERPRINTS: &Words<bool> = &[("optional", false), ("required", true)];

/// What holds for claims. An outcome has to fit half a segment of the ledger.
pub(super) fn rules(
    file: &Table<'_>,
    segment_bytes: usize,
) -> Result<BTreeMap<String, ClaimRule>, ConfigError> {
    let fits = OUTCOME_BYTES_MAX.min(segment_bytes / 2);
    let scopes = file.named("claims", claim_scope)?.into_iter();
    scopes.map(|(scope, table)| Ok((scope, rule(&table, fits)?))).collect()
}

/// What holds for the claims of a scope, as people are shown it.
pub(crate) fn described(scope: &str, rule: &ClaimRule) -> Value {
    json!({
        "scope": scope,
        "effects": rule.effects.name(),
        "lease": show(rule.lease),
        "lease_max": show(rule.lease_max),
        "window": show(rule.window),
        "tombstone": show(rule.tombstone),
        "fingerprint": word_of(FINGERPRINTS, &rule.fingerprint_required),
        "outcome_bytes_max": rule.outcome_bytes_max,
    })
}

fn rule(table: &Table<'_>, fits: usize) -> Result<ClaimRule, ConfigError> {
    let usual = ClaimRule::default();
    let lease = table.span("lease")?;
    let lease_max =
        table.span_or("lease_max", usual.lease_max.max(lease.unwrap_or(usual.lease)))?;
    let rule = ClaimRule {
        effects: table.word("effects", EFFECTS)?.unwrap_or(usual.effects),
        lease: lease.unwrap_or_else(|| usual.lease.min(lease_max)),
        lease_max,
        window: table.span_or("window", usual.window)?,
        tombstone: table.span_or("tombstone", usual.tombstone)?,
        fingerprint_required: table.word("fingerprint", FINGERPRINTS)?.unwrap_or(false),
        outcome_bytes_max: table
            .size("outcome_bytes_max")?
            .unwrap_or_else(|| usual.outcome_bytes_max.min(fits)),
    };
    table.done()?;
    if rule.lease > rule.lease_max {
        return Err(table.wrong("has a lease that is longer than its lease_max"));
    }
    if rule.lease.is_zero() {
        return Err(table.wrong("has a lease of no time\nhelp: write \"30s\""));
    }
    if rule.outcome_bytes_max > fits {
        return Err(table.wrong(&format!(
            "keeps outcomes of more than {fits} bytes\nhelp: keep what is larger elsewhere, and its place as the outcome"
        )));
    }
    Ok(rule)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use onceward::core::policy::Effects;

    use super::super::Config;

    #[test]
    fn a_scope_says_what_holds_for_its_claims_and_the_rest_is_as_it_is_without_it() {
        let text = "[claims.mails]\neffects = \"idempotent\"\nlease = \"2h\"\nfingerprint = \"required\"\n[claims.\"a/b\"]\n";
        let claims = Config::of_text(text).unwrap().claims;
        let mails = &claims["mails"];
        assert_eq!((mails.effects, mails.fingerprint_required), (Effects::Idempotent, true));
        assert_eq!(mails.lease_max, Duration::from_hours(2), "as long as its lease, at least");
        assert_eq!(claims["a/b"], onceward::core::claim::ClaimRule::default());
    }

    #[test]
    fn what_cannot_hold_is_refused_with_where_it_stands() {
        for (text, words) in [
            ("[claims.mails]\nlease = \"2m\"\nlease_max = \"1m\"\n", "longer than its lease_max"),
            ("[claims.mails]\nlease = \"0s\"\n", "no time"),
            ("[claims.mails]\noutcome_bytes_max = \"5MiB\"\n", "more than 4194304 bytes"),
            ("[claims.mails]\nleash = \"1m\"\n", "leash"),
            ("[claims.\"\"]\n", "no scope of claims"),
        ] {
            let error = Config::of_text(text).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
