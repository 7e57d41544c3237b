//! What holds for claims, as the file says it: `[claims.SCOPE]`.

use std::collections::BTreeMap;

use onceward::core::claim::ClaimRule;
use onceward::core::key::Key;
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};

use super::{ConfigError, EffectsWord};
use crate::units::{Size, Span};

words!(FingerprintWord { "optional" => Optional, "required" => Required });

/// The name of a scope of claims: it stands in paths, percent-encoded where it has to be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct ClaimScope(String);

impl<'de> Deserialize<'de> for ClaimScope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        match Key::new(&name) {
            Ok(_) => Ok(Self(name)),
            Err(_) => Err(D::Error::custom(format!(
                "{name:?} is no scope of claims: 1 to 255 visible letters"
            ))),
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClaimsFile {
    effects: Option<EffectsWord>,
    lease: Option<Span>,
    lease_max: Option<Span>,
    window: Option<Span>,
    tombstone: Option<Span>,
    fingerprint: Option<FingerprintWord>,
    outcome_bytes_max: Option<Size>,
}

/// The largest outcome that may be allowed: each is in memory as a whole.
const OUTCOME_BYTES_MAX: usize = 4 << 20;

/// What holds for claims. An outcome has to fit half a segment of the ledger.
pub(super) fn rules(
    file: BTreeMap<ClaimScope, ClaimsFile>,
    segment_bytes: usize,
    source: &str,
) -> Result<BTreeMap<String, ClaimRule>, ConfigError> {
    let fits = OUTCOME_BYTES_MAX.min(segment_bytes / 2);
    let rule = |(scope, said): (ClaimScope, ClaimsFile)| {
        let wrong = |what: &str| ConfigError(format!("{source}: [claims.{:?}] {what}", scope.0));
        let or = |said: Option<Span>, else_| said.map_or(else_, |span: Span| span.0);
        let default = ClaimRule::default();
        let lease_max = or(said.lease_max, default.lease_max.max(or(said.lease, default.lease)));
        let rule = ClaimRule {
            effects: said.effects.map_or(default.effects, Into::into),
            lease: or(said.lease, default.lease.min(lease_max)),
            lease_max,
            window: or(said.window, default.window),
            tombstone: or(said.tombstone, default.tombstone),
            fingerprint_required: matches!(said.fingerprint, Some(FingerprintWord::Required)),
            outcome_bytes_max: said
                .outcome_bytes_max
                .map_or_else(|| default.outcome_bytes_max.min(fits), |size| size.0),
        };
        if rule.lease > rule.lease_max {
            return Err(wrong("has a lease that is longer than its lease_max"));
        }
        if rule.lease.is_zero() {
            return Err(wrong("has a lease of no time\nhelp: write \"30s\""));
        }
        if rule.outcome_bytes_max > fits {
            return Err(wrong(&format!(
                "keeps outcomes of more than {fits} bytes\nhelp: keep what is larger elsewhere, and its place as the outcome"
            )));
        }
        Ok((scope.0, rule))
    };
    file.into_iter().map(rule).collect()
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
