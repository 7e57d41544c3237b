//! What the file says of operations in doubt: how the upstream is asked about one, and how its list
//! is held against the ledger.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use onceward::core::condition::Condition;
use onceward::core::lookup::{LookupRule, When};
use onceward::core::path_template::PathTemplate;
use onceward::core::reconcile::ReconcileRule;

use super::ConfigError;
use super::table::{Switch, Table, Words};

/// An effect shows so long after an attempt has ended, where nothing says otherwise.
const SETTLE: Duration = Duration::from_mins(1);

/// What a path may ask by.
const LOOKUP_NAMES: [&str; 3] = ["key", "operation", "upstream_key"];
const LIST_NAMES: [&str; 4] = ["since", "since_unix", "until", "until_unix"];
const NEXT_NAMES: [&str; 5] = ["since", "since_unix", "until", "until_unix", "cursor"];

const WHENS: &Words<When> = &[("doubt", When::Doubt), ("before", When::Before)];
/// Whether what is found is the answer.
const ANSWERS: &Words<bool> = &[("body", true), ("none", false)];

/// Lays over `lookup` what the table says of how the upstream is asked.
pub(super) fn lay_lookup(
    lookup: &mut Option<Arc<LookupRule>>,
    table: &Table<'_>,
) -> Result<(), ConfigError> {
    let mend = "a lookup is false, or { get = \"/orders?ref={key}\", found = { json = { \"/items/0/id\" = { exists = true } } } }";
    match table.switch("lookup", mend, rule)? {
        None => {}
        Some(Switch::Off) => *lookup = None,
        Some(Switch::As(rule)) => *lookup = Some(Arc::new(rule)),
        Some(Switch::On) => return Err(table.cannot("lookup", mend)),
    }
    Ok(())
}

fn rule(table: &Table<'_>) -> Result<LookupRule, ConfigError> {
    let get = template("get", &LOOKUP_NAMES, table)?;
    let found = condition("found", table)?;
    let absent = condition("absent", table)?;
    let settle = table.span_or("settle", SETTLE)?;
    let when = table.word("when", WHENS)?.unwrap_or(When::Doubt);
    let status = success_status(table)?;
    let is_answer = table.word("answer", ANSWERS)?.unwrap_or(false);
    let (get, found) = (table.need("get", get)?, table.need("found", found)?);
    Ok(LookupRule { get, found, absent, settle, when, status, is_answer })
}

/// The status of an answer that is made of what was found.
pub(super) fn success_status(table: &Table<'_>) -> Result<Option<u16>, ConfigError> {
    match table.read("status")? {
        Some(status) if !(200..400).contains(&status) => {
            Err(table.cannot("status", "it is none of a success: 200 to 399"))
        }
        status => Ok(status),
    }
}

/// A condition, said as a table.
pub(super) fn condition(
    key: &'static str,
    table: &Table<'_>,
) -> Result<Option<Condition>, ConfigError> {
    let Some(source) = table.read::<serde_json::Value>(key)? else { return Ok(None) };
    Condition::read(&source).map(Some).map_err(|why| {
        let named = table.whole_name(key);
        table.wrong(&format!("has a {named} that cannot be read: {why}"))
    })
}

/// A path with places for these names.
fn template(
    key: &'static str,
    names: &[&str],
    table: &Table<'_>,
) -> Result<Option<PathTemplate>, ConfigError> {
    let Some(text) = table.read::<String>(key)? else { return Ok(None) };
    let whole = table.whole_name(key);
    let template = PathTemplate::read(&text)
        .map_err(|error| table.wrong(&format!("has a {whole}: {error}")))?;
    if let Some(unknown) = template.names().find(|name| !names.contains(name)) {
        let known: Vec<_> = names.iter().map(|name| format!("{{{name}}}")).collect();
        return Err(table.wrong(&format!(
            "has a {whole} with {{{unknown}}}, which is nothing\nhelp: there are {}",
            known.join(", ")
        )));
    }
    Ok(Some(template))
}

/// How a provider's list is held against the ledger.
pub(super) fn reconcile(table: &Table<'_>) -> Result<Arc<ReconcileRule>, ConfigError> {
    let every = table.span_or("every", Duration::from_hours(1))?;
    let settle = table.span_or("settle", SETTLE)?;
    let get = template("get", &LIST_NAMES, table)?;
    let get_next = template("get_next", &NEXT_NAMES, table)?;
    let (items, key) = (table.read::<String>("items")?, table.read::<String>("key")?);
    let next = table.read::<String>("next")?;
    let equal: BTreeMap<String, String> = table.or("equal", BTreeMap::new())?;
    if every < Duration::from_mins(1) {
        return Err(table.wrong("has a reconcile.every of less than a minute"));
    }
    let pointers = [&items, &key, &next].into_iter().flatten();
    let pointers = pointers.chain(equal.iter().flat_map(|(there, here)| [there, here]));
    let other = pointers.into_iter().find(|text| !text.is_empty() && !text.starts_with('/'));
    if let Some(other) = other {
        return Err(table.wrong(&format!(
            "has a reconcile with {other:?}, which is no JSON pointer\nhelp: it begins with `/`, as in \"/data\""
        )));
    }
    let get = table.need("get", get)?;
    if get.needs_body() || get_next.as_ref().is_some_and(PathTemplate::needs_body) {
        return Err(table.wrong("has a reconcile that asks by a request's body, and asks for many"));
    }
    if get_next.is_some() && next.is_none() {
        return Err(
            table.wrong("has a reconcile.get_next and no next\nhelp: add next = \"/next_cursor\"")
        );
    }
    let (items, key) = (table.need("items", items)?, table.need("key", key)?);
    Ok(Arc::new(ReconcileRule {
        get,
        get_next,
        every,
        settle,
        items,
        key,
        next,
        equal: equal.into_iter().collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::super::tests::load;
    use super::*;

    fn route(more: &str) -> String {
        format!("[routes.a]\nupstream = \"http://a.example\"\n{more}")
    }

    #[test]
    fn a_lookup_hours_and_a_list_are_read() {
        let config = load(&route(
            r#"
            timeout = "45s"
            hours = "Mon-Fri 08:00-18:00 +01:00"
            lookup = { get = "/orders?ref={key}", found = { status = 200, json = { "/items/0/id" = { exists = true } } } }
            reconcile = { get = "/charges?since={since}", every = "1h", items = "/data", key = "/metadata/key", equal = { "/amount" = "/amount" } }
            [[routes.a.rules]]
            match = "POST /notes"
            lookup = false
            [[routes.a.rules]]
            match = "POST /payments"
            lookup = { get = "/p/{json:/id}", found = { status = 200 }, settle = "5s", when = "before", answer = "body", status = 201 }
            "#,
        ))
        .unwrap();
        let route = &config.routes["a"];
        let lookup = route.policy.lookup.as_ref().unwrap();
        assert_eq!((lookup.settle, lookup.when), (Duration::from_mins(1), When::Doubt));
        assert!(route.policy.hours.is_some());
        assert_eq!(route.policy_for("POST", "/notes").lookup, None);
        let rule = route.policy_for("POST", "/payments").lookup.clone().unwrap();
        assert_eq!((rule.when, rule.status, rule.is_answer), (When::Before, Some(201), true));
        assert_eq!(rule.settle, Duration::from_secs(5));
        assert_eq!(route.reconcile.as_ref().unwrap().every, Duration::from_hours(1));
    }

    #[test]
    fn what_is_wrong_with_a_lookup_is_said_with_its_mend() {
        for (text, what) in [
            ("lookup = true", "get = "),
            ("lookup = { get = \"orders\", found = { status = 200 } }", "/orders?ref={key}"),
            ("lookup = { get = \"/o?r={kee}\", found = { status = 200 } }", "{kee}"),
            ("lookup = { get = \"/o\", found = { staus = 200 } }", "staus"),
            ("lookup = { get = \"/o\", found = { json = { id = 1 } } }", "begins with `/`"),
            ("lookup = { get = \"/o\", found = { status = 200 }, status = 500 }", "lookup.status"),
            ("lookup = { get = \"/o\", fuond = { status = 200 } }", "fuond"),
            ("hours = \"9 to 5\"", "Mon-Fri 08:00-18:00"),
            ("reconcile = { get = \"/c\", items = \"data\", key = \"/k\" }", "\"/data\""),
            ("reconcile = { get = \"/c?k={key}\", items = \"/data\", key = \"/k\" }", "{since}"),
            (
                "reconcile = { get = \"/c\", get_next = \"/c?c={cursor}\", items = \"/d\", key = \"/k\" }",
                "next = ",
            ),
            (
                "reconcile = { get = \"/c\", every = \"1s\", items = \"/d\", key = \"/k\" }",
                "a minute",
            ),
        ] {
            let error = load(&route(text)).unwrap_err();
            assert!(error.contains(what), "{text}\n{error}");
        }
    }
}
