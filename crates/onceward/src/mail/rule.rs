//! The rule under which a mail was first asked for, as it is remembered with it: what was posted is not kept, so
//! whoever asks again once the route has another rule is compared under the one of then.

use onceward_core::fingerprint::{BodyRule, FingerprintRule, QueryRule};
use serde::{Deserialize, Serialize};

/// The store's own shape of it.
#[derive(Serialize, Deserialize)]
struct Row {
    body: String,
    query: String,
    headers: Vec<String>,
    ignore: Vec<String>,
}

const BODIES: [(BodyRule, &str); 3] =
    [(BodyRule::Auto, "auto"), (BodyRule::Raw, "raw"), (BodyRule::None, "none")];

const QUERIES: [(QueryRule, &str); 2] = [(QueryRule::Raw, "raw"), (QueryRule::None, "none")];

fn word<T: Copy + PartialEq>(words: &[(T, &'static str)], of: T) -> String {
    let found = words.iter().find(|(it, _)| *it == of);
    found.map_or_else(String::new, |(_, word)| (*word).to_owned())
}

fn named<T: Copy>(words: &[(T, &str)], by: &str) -> Option<T> {
    words.iter().find(|(_, word)| *word == by).map(|(it, _)| *it)
}

/// The text of it; nothing where it is the one that holds where nothing is said.
pub(super) fn written(rule: &FingerprintRule) -> Option<String> {
    let row = Row {
        body: word(&BODIES, rule.body),
        query: word(&QUERIES, rule.query),
        headers: rule.headers.clone(),
        ignore: rule.ignore.clone(),
    };
    // Texts alone: it has always a form.
    (*rule != FingerprintRule::default()).then(|| serde_json::to_string(&row).unwrap_or_default())
}

/// Reads it; nothing where it is of a later version.
pub(super) fn read(text: Option<&str>) -> Option<FingerprintRule> {
    let Some(text) = text else { return Some(FingerprintRule::default()) };
    let row: Row = serde_json::from_str(text).ok()?;
    Some(FingerprintRule {
        body: named(&BODIES, &row.body)?,
        query: named(&QUERIES, &row.query)?,
        headers: row.headers,
        ignore: row.ignore,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_read_as_it_was_written() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        for (body, _) in BODIES {
            for (query, _) in QUERIES {
                for headers in [list(&[]), list(&["x-a", "x-b"])] {
                    let ignore = list(&["/sent_at", "/ä"]);
                    let rule = FingerprintRule { body, headers, ignore, query };
                    assert_eq!(read(written(&rule).as_deref()), Some(rule));
                }
            }
        }
        assert_eq!(written(&FingerprintRule::default()), None);
        assert_eq!(read(Some(r#"{"body":"other"}"#)), None);
    }
}
