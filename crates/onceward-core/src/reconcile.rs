//! What the ledger did, held against what a provider lists: done here and not listed, listed and
//! not known here, and listed otherwise than it was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use crate::condition::is_same;
use crate::path_template::PathTemplate;

/// How a provider's list is read.
#[derive(Debug, Clone, PartialEq)]
pub struct ReconcileRule {
    /// Path and query of the first page.
    pub get: PathTemplate,
    /// Path and query of the pages after it, where the list tells a cursor and no address.
    pub get_next: Option<PathTemplate>,
    /// How often.
    pub every: Duration,
    /// How long after an attempt its effect is listed for sure.
    pub settle: Duration,
    /// The pointer to the items of a page.
    pub items: String,
    /// The pointer, within an item, to what it is known by here: the operation's key, the key that
    /// went to the upstream, or the operation's id.
    pub key: String,
    /// The pointer to what the next page is asked for by.
    pub next: Option<String>,
    /// Pointers that have to be equal: within an item, and within the request's body.
    pub equal: Vec<(String, String)>,
}

/// An operation of the period, as it is compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// What it may be called there.
    pub names: Vec<String>,
    /// Where it stands.
    pub state: &'static str,
    /// Whether it has to be listed: it was done, within the period.
    pub is_due: bool,
    /// The JSON body of its request.
    pub body: Option<Value>,
}

/// What does not agree. Operations are places in the list that was compared.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Differences {
    /// Done here, and not listed.
    pub missing: Vec<usize>,
    /// Listed, and not known here.
    pub unknown: Vec<String>,
    /// Listed otherwise.
    pub differing: Vec<Differing>,
}

/// One thing that is not the same here and there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differing {
    /// The operation.
    pub operation: usize,
    /// The pointer within the item, or `state`.
    pub place: String,
    /// What it is here.
    pub here: String,
    /// What it is there.
    pub there: String,
}

/// The text that an item or an operation is known by; a number only where it is whole.
pub fn name_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    }
}

/// Holds operations against a provider's items, by name.
pub fn compare(
    rule: &ReconcileRule,
    operations: &[Known],
    items: &BTreeMap<String, Value>,
) -> Differences {
    let mut differences = Differences::default();
    let mut met = BTreeSet::new();
    for (operation, known) in operations.iter().enumerate() {
        let found = known.names.iter().find_map(|name| items.get_key_value(name));
        let Some((name, item)) = found else {
            if known.is_due {
                differences.missing.push(operation);
            }
            continue;
        };
        met.insert(name.as_str());
        if known.state != "done" && known.state != "delivering" {
            let (here, there) = (known.state.to_owned(), "listed".to_owned());
            let place = "state".to_owned();
            differences.differing.push(Differing { operation, place, here, there });
        }
        for (there_at, here_at) in &rule.equal {
            let there = item.pointer(there_at).unwrap_or(&Value::Null);
            let body = known.body.as_ref();
            let here = body.and_then(|body| body.pointer(here_at)).unwrap_or(&Value::Null);
            if !is_same(here, there) {
                differences.differing.push(Differing {
                    operation,
                    place: there_at.clone(),
                    here: here.to_string(),
                    there: there.to_string(),
                });
            }
        }
    }
    let unmet = items.keys().filter(|name| !met.contains(name.as_str()));
    differences.unknown = unmet.cloned().collect();
    differences
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn rule() -> ReconcileRule {
        ReconcileRule {
            get: PathTemplate::read("/charges?since={since}").unwrap(),
            get_next: None,
            every: Duration::from_hours(1),
            settle: Duration::from_mins(1),
            items: "/data".into(),
            key: "/metadata/key".into(),
            next: None,
            equal: vec![("/amount".into(), "/total".into())],
        }
    }

    fn known(name: &str, state: &'static str, total: i64) -> Known {
        Known {
            names: vec![name.to_owned()],
            state,
            is_due: state == "done",
            body: Some(json!({"total": total})),
        }
    }

    #[test]
    fn what_does_not_agree_is_told_by_its_kind() {
        let operations = [
            known("a", "done", 1),
            known("b", "done", 2),
            known("c", "done", 3),
            known("d", "in_doubt", 4),
            known("e", "dead", 5),
        ];
        let items = [("a", 1), ("b", 20), ("d", 4), ("x", 9)];
        let items = items.map(|(name, amount)| (name.to_owned(), json!({"amount": amount}))).into();
        let found = compare(&rule(), &operations, &items);
        assert_eq!((found.missing, found.unknown), (vec![2], vec!["x".to_owned()]));
        let differing: Vec<_> = found
            .differing
            .iter()
            .map(|it| (it.operation, it.place.as_str(), it.here.as_str(), it.there.as_str()))
            .collect();
        assert_eq!(differing, [(1, "/amount", "2", "20"), (3, "state", "in_doubt", "listed")]);
    }

    proptest! {
        #[test]
        fn each_operation_and_each_item_is_in_one_place(
            here in proptest::collection::btree_set(0u8..30, 0..20),
            there in proptest::collection::btree_set(0u8..30, 0..20),
        ) {
            let operations: Vec<_> = here.iter().map(|n| known(&n.to_string(), "done", 1)).collect();
            let items = there.iter().map(|n| (n.to_string(), json!({"amount": 1}))).collect();
            let found = compare(&rule(), &operations, &items);
            prop_assert_eq!(found.missing.len(), here.difference(&there).count());
            prop_assert_eq!(found.unknown.len(), there.difference(&here).count());
            prop_assert!(found.differing.is_empty());
        }
    }
}
