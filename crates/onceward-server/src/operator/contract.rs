//! `GET /v1/routes/{route}/contract`: how a caller retries this route, for programs; what a caller has to know of a
//! policy, and nothing of what the operator alone has to.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::Path;
use onceward::core::hint::Hint;
use onceward::core::policy::{Backoff, Effects, KeyFrom, Meaning, Mode, Policy};
use onceward::core::verdict::meaning;
use onceward::problem::Problem as Table;
use onceward::route::Route;
use serde_json::{Value, json};

use super::handler::Answer;
use crate::config::{MEANINGS, MISSING, ON_DEAD, ON_EXPIRED, word_of};
use crate::contract::Contract;
use crate::units::show;
use crate::view::View;

/// What a call through a route may be refused with, beside what nobody's call gets any further than.
const CODES: [&str; 28] = [
    "key-invalid",
    "key-required",
    "key-mismatch",
    "in-progress",
    "outcome-unknown",
    "key-expired",
    "key-invalidated",
    "cancelled",
    "response-not-retained",
    "upstream-unreachable",
    "no-answer",
    "still-working",
    "route-unknown",
    "body-too-large",
    "option-invalid",
    "request-invalid",
    "limit",
    "breaker-open",
    "upstream-held",
    "route-paused",
    "ledger-unavailable",
    "ledger-full",
    "draining",
    "quarantine",
    "unauthenticated",
    "forbidden",
    "outside-hours",
    "loop",
];

/// The methods that differ where a route says nothing of effects.
const METHODS: [&str; 4] = ["POST", "PUT", "PATCH", "DELETE"];

/// Statuses that an upstream may answer with.
const STATUSES: std::ops::RangeInclusive<u16> = 400..=599;

/// Answers `GET /v1/routes/{route}/contract`.
pub(super) async fn show_contract(node: View, Path(route): Path<String>) -> Answer {
    Ok(Json(contract_of(&*node.find_route(&route)?)))
}

/// What callers of a route are promised.
pub(crate) fn contract_of(route: &Route) -> Value {
    let problems = Table::all().filter(|(code, ..)| CODES.contains(code)).map(
        |(code, status, advice, title)| {
            let status = if code == "key-mismatch" { route.policy.mismatch_status } else { status };
            json!({"code": code, "status": status, "advice": advice, "title": title})
        },
    );
    let rules = route.rules.iter().map(|rule| {
        json!({"method": rule.method, "path": rule.path, "policy": policy(route, &rule.policy)})
    });
    json!({
        "contract": Contract::newest().name(),
        "route": route.name,
        "policy": policy(route, &route.policy),
        "rules": rules.collect::<Vec<_>>(),
        "problems": problems.collect::<Vec<_>>(),
    })
}

fn policy(route: &Route, policy: &Policy) -> Value {
    let effects: BTreeMap<&str, &str> =
        METHODS.into_iter().map(|method| (method, policy.effects_of(method).name())).collect();
    let doubted = METHODS.iter().any(|method| policy.effects_of(method) == Effects::NonIdempotent);
    let (mut statuses, mut seen) =
        (BTreeMap::new(), STATUSES.map(|status| (status, meaning_of(status, policy))));
    for (word, _) in MEANINGS {
        statuses.insert(*word, Vec::new());
    }
    for (status, meaning) in &mut seen {
        if let Some(all) = statuses.get_mut(word_of(MEANINGS, &meaning)) {
            all.push(status);
        }
    }
    json!({
        "key": {
            "headers": policy.key_headers,
            "body": policy.key_pointer,
            "made_of_the_request": policy.key_from != KeyFrom::Headers,
            "missing": word_of(MISSING, &policy.key_missing),
            "length_min": policy.key_rule.length_min,
            "pattern": policy.key_rule.pattern.as_ref().map(onceward::core::pattern::Pattern::as_str),
        },
        "window": show(policy.window),
        "tombstone": show(policy.tombstone),
        "after_window": word_of(ON_EXPIRED, &policy.on_expired),
        "after_failure": word_of(ON_DEAD, &policy.on_dead),
        "effects": effects,
        "mode": policy.mode.name(),
        "held": attempts(policy.backoff(Mode::Held)),
        "accepted": attempts(policy.backoff(Mode::Accepted)),
        "timeout": show(route.target.timeouts.total),
        "answer_max": show(route.answer_max),
        "statuses": statuses,
        "in_doubt": {
            "happens": doubted,
            "looked_up": policy.lookup.is_some(),
            "first_caller": 504,
            "same_key": 409,
        },
        "mismatch_status": policy.mismatch_status,
    })
}

/// What a status means where nothing else is said with it.
fn meaning_of(status: u16, policy: &Policy) -> Meaning {
    meaning(status, policy, Hint::default())
}

fn attempts(backoff: &Backoff) -> Value {
    json!({"attempts_max": backoff.attempts_max, "within": show(backoff.horizon)})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_a_contract_is_one_of_the_table() {
        for code in CODES {
            assert!(Table::all().any(|(known, ..)| known == code), "{code}");
        }
    }

    #[test]
    fn what_statuses_mean_is_what_the_table_of_verdicts_says() {
        let usual = Policy { effects: Some(Effects::Keyed), ..Policy::default() };
        for (status, wanted) in [
            (404, Meaning::Final),
            (401, Meaning::Refused),
            (429, Meaning::NotProcessed),
            (503, Meaning::Ambiguous),
        ] {
            assert_eq!(meaning_of(status, &usual), wanted, "{status}");
        }
    }
}
