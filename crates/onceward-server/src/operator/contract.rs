//! `GET /v1/routes/{route}/contract`: how a caller retries this route, for programs; what a caller has to know of a
//! policy, and nothing of what the operator alone has to.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::Path;
use onceward::core::hint::Hint;
use onceward::core::pattern::Pattern;
use onceward::core::policy::{Backoff, Effects, KeyFrom, Meaning, Mode, Policy};
use onceward::core::verdict::meaning;
use onceward::problem::Problem as Table;
use onceward::route::Route;
use serde_json::{Value, json};

use super::handler::Answer;
use crate::config::{KEY_TIMES, MEANINGS, MISSING, ON_DEAD, ON_EXPIRED, word_of};
use crate::contract::Contract;
use crate::openapi::statuses_beside;
use crate::units::show;
use crate::view::View;

/// The methods that have an effect, and differ where a route says nothing of effects: what only reads has no operation.
pub(crate) const METHODS: [&str; 4] = ["POST", "PUT", "PATCH", "DELETE"];

/// Statuses that an upstream may answer with.
const STATUSES: std::ops::RangeInclusive<u16> = 400..=599;

/// Answers `GET /v1/routes/{route}/contract`.
pub(super) async fn show_contract(node: View, Path(route): Path<String>) -> Answer {
    Ok(Json(contract_of(&*node.find_called(&route)?)))
}

/// What callers of a route are promised.
pub(crate) fn contract_of(route: &Route) -> Value {
    let problems = Table::of_calls().map(|(code, status, advice, title)| {
        // A route says which it is, so it has no other.
        let (status, others) = match code {
            "key-mismatch" => (route.policy.mismatch_status, &[][..]),
            _ => (status, statuses_beside(code)),
        };
        json!({"code": code, "status": status, "statuses_beside": others, "advice": advice, "title": title})
    });
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
    // An upstream forgets the keys that it knows, so a keyed call may end in doubt too.
    let doubted = METHODS.iter().any(|method| policy.effects_of(method) != Effects::Idempotent);
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
            "pattern": policy.key_rule.pattern.as_ref().map(Pattern::as_str),
            "refused": policy.key_rule.refuse.iter().map(Pattern::as_str).collect::<Vec<_>>(),
            "time": word_of(KEY_TIMES, &policy.key_time),
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
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Where a call goes through in the binary.
    const EDGES: [&str; 14] = [
        "front.rs",
        "head.rs",
        "contract.rs",
        "gateway.rs",
        "gateway/options.rs",
        "gateway/upstash.rs",
        "guard.rs",
        "guard/reauthorize.rs",
        "access.rs",
        "access/authorise.rs",
        "access/browser.rs",
        "access/endpoint.rs",
        "access/page.rs",
        "node.rs",
    ];

    /// And in the library.
    const VERBS: [&str; 12] = [
        "edge.rs",
        "receive.rs",
        "mail.rs",
        "pass.rs",
        "tenants.rs",
        "engine.rs",
        "engine/entry.rs",
        "engine/memory.rs",
        "engine/run.rs",
        "engine/story.rs",
        "engine/waiting.rs",
        "engine/writing.rs",
    ];

    /// What these have beside calls: a probe that is written to, and a quarantine that a person ends.
    const BESIDE_CALLS: [&str; 3] = ["method-not-allowed", "operation-conflict", "gone-wrong"];

    fn source(crate_name: &str, file: &str) -> String {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let text = fs::read_to_string(crates.join(crate_name).join("src").join(file)).unwrap();
        text.split("#[cfg(test)]").next().unwrap_or_default().to_owned()
    }

    /// The codes that stand as text in `text` where a problem is made.
    fn made_in(text: &str) -> BTreeSet<&'static str> {
        let is_made = |code: &str| text.contains(&format!("{code:?},"));
        Table::all().map(|(code, ..)| code).filter(|code| is_made(code)).collect()
    }

    /// What `kind`'s variants come to, as the table's own file has it.
    fn by_variant(kind: &str) -> BTreeMap<String, BTreeSet<&'static str>> {
        let text = source("onceward", "problem.rs");
        let from = text.split(&format!("impl From<{kind}> for Problem")).nth(1).unwrap();
        let from = from.split("\nimpl ").next().unwrap();
        let begins = format!("{kind}::");
        let mut found: BTreeMap<String, BTreeSet<_>> = BTreeMap::new();
        for arm in from.split(&begins).skip(1) {
            let name = arm.split(|sign: char| !sign.is_alphanumeric()).next().unwrap();
            let codes = Table::all().map(|(code, ..)| code);
            let told = codes.filter(|code| arm.contains(&format!("{code:?}")));
            found.entry(name.to_owned()).or_default().extend(told);
        }
        found
    }

    #[test]
    fn a_contract_has_every_code_that_a_call_can_meet_and_no_other() {
        let told: BTreeSet<_> = Table::of_calls().map(|(code, ..)| code).collect();
        let mut met = BTreeSet::new();
        for file in EDGES {
            let made = made_in(&source("onceward-server", file));
            met.extend(made.into_iter().filter(|code| !BESIDE_CALLS.contains(code)));
        }
        let refusals = by_variant("Refusal");
        for file in VERBS {
            let text = source("onceward", file);
            met.extend(made_in(&text));
            for (name, codes) in &refusals {
                if text.contains(&format!("Refusal::{name}")) {
                    met.extend(codes);
                }
            }
        }
        // Whatever is read or written may find the ledger so.
        let of_store = ["ledger-full", "ledger-unavailable", "operation-conflict"];
        assert!(source("onceward", "problem.rs").contains("impl From<StoreError> for Problem"));
        met.extend(of_store);
        assert_eq!(met, told);
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
