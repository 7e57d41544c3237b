//! What the file says of operations in doubt: how the upstream is asked about one, and how its list
//! is held against the ledger; and the hours of accepted work.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use onceward::core::condition::Condition;
use onceward::core::hours::Hours;
use onceward::core::lookup::{LookupRule, When};
use onceward::core::path_template::PathTemplate;
use onceward::core::policy::Policy;
use onceward::core::reconcile::ReconcileRule;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use super::ConfigError;
use crate::units::Span;

/// An effect shows so long after an attempt has ended, where nothing says otherwise.
const SETTLE: Duration = Duration::from_mins(1);

/// What a path may ask by.
const LOOKUP_NAMES: [&str; 3] = ["key", "operation", "upstream_key"];
const LIST_NAMES: [&str; 4] = ["since", "since_unix", "until", "until_unix"];

/// `false`, or how the upstream is asked.
#[derive(Debug, Clone)]
pub(super) enum LookupWord {
    No,
    As(Box<LookupFile>),
}

impl<'de> Deserialize<'de> for LookupWord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(deserializer)? {
            toml::Value::Boolean(false) => Ok(Self::No),
            value @ toml::Value::Table(_) => value
                .try_into()
                .map(|file| Self::As(Box::new(file)))
                .map_err(|error: toml::de::Error| {
                    D::Error::custom(format!("lookup: {}", error.message()))
                }),
            _ => Err(D::Error::custom(
                "a lookup is false, or { get = \"/orders?ref={key}\", found = { json = { \"/items/0/id\" = { exists = true } } } }",
            )),
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LookupFile {
    get: String,
    found: serde_json::Value,
    absent: Option<serde_json::Value>,
    settle: Option<Span>,
    when: Option<WhenWord>,
    status: Option<u16>,
    answer: Option<AnswerWord>,
}

words!(WhenWord { "doubt" => Doubt, "before" => Before });
words!(AnswerWord { "body" => Body, "none" => None });

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReconcileFile {
    get: String,
    get_next: Option<String>,
    every: Option<Span>,
    settle: Option<Span>,
    items: String,
    key: String,
    next: Option<String>,
    #[serde(default)]
    equal: BTreeMap<String, String>,
}

/// The policy with what the file says of doubts and hours laid over it.
pub(super) fn lay_over(
    mut policy: Policy,
    lookup: Option<&LookupWord>,
    hours: Option<&str>,
    wrong: &impl Fn(&str) -> ConfigError,
) -> Result<Policy, ConfigError> {
    match lookup {
        None => {}
        Some(LookupWord::No) => policy.lookup = None,
        Some(LookupWord::As(file)) => policy.lookup = Some(Arc::new(build(file, wrong)?)),
    }
    if let Some(text) = hours {
        let hours = Hours::read(text).map_err(|error| wrong(&format!("has hours: {error}")))?;
        policy.hours = Some(hours);
    }
    Ok(policy)
}

fn build(
    file: &LookupFile,
    wrong: &impl Fn(&str) -> ConfigError,
) -> Result<LookupRule, ConfigError> {
    let condition = |name: &str, source: &serde_json::Value| {
        Condition::read(source)
            .map_err(|error| wrong(&format!("has a lookup.{name} that cannot be read: {error}")))
    };
    if file.status.is_some_and(|status| !(200..400).contains(&status)) {
        return Err(wrong("has a lookup.status that is none of a success: 200 to 399"));
    }
    Ok(LookupRule {
        get: template("lookup.get", &file.get, &LOOKUP_NAMES, wrong)?,
        found: condition("found", &file.found)?,
        absent: file.absent.as_ref().map(|source| condition("absent", source)).transpose()?,
        settle: settle(file.settle),
        when: if file.when == Some(WhenWord::Before) { When::Before } else { When::Doubt },
        status: file.status,
        is_answer: file.answer == Some(AnswerWord::Body),
    })
}

fn settle(file: Option<Span>) -> Duration {
    file.map_or(SETTLE, |span| span.0)
}

fn template(
    place: &str,
    text: &str,
    names: &[&str],
    wrong: &impl Fn(&str) -> ConfigError,
) -> Result<PathTemplate, ConfigError> {
    let template =
        PathTemplate::read(text).map_err(|error| wrong(&format!("has a {place}: {error}")))?;
    if let Some(unknown) = template.names().find(|name| !names.contains(name)) {
        let known: Vec<_> = names.iter().map(|name| format!("{{{name}}}")).collect();
        let known = known.join(", ");
        return Err(wrong(&format!(
            "has a {place} with {{{unknown}}}, which is nothing\nhelp: there are {known}"
        )));
    }
    Ok(template)
}

pub(super) fn reconcile(
    file: &ReconcileFile,
    wrong: &impl Fn(&str) -> ConfigError,
) -> Result<Arc<ReconcileRule>, ConfigError> {
    let every = file.every.map_or(Duration::from_hours(1), |span| span.0);
    if every < Duration::from_mins(1) {
        return Err(wrong("has a reconcile.every of less than a minute"));
    }
    let pointers = [&file.items, &file.key].into_iter().chain(&file.next);
    let pointers = pointers.chain(file.equal.iter().flat_map(|(there, here)| [there, here]));
    if let Some(other) =
        pointers.into_iter().find(|text| !text.is_empty() && !text.starts_with('/'))
    {
        return Err(wrong(&format!(
            "has a reconcile with {other:?}, which is no JSON pointer\nhelp: it begins with `/`, as in \"/data\""
        )));
    }
    let get = template("reconcile.get", &file.get, &LIST_NAMES, wrong)?;
    let next_names: Vec<&str> = LIST_NAMES.iter().copied().chain(["cursor"]).collect();
    let get_next = file
        .get_next
        .as_ref()
        .map(|text| template("reconcile.get_next", text, &next_names, wrong))
        .transpose()?;
    if get.needs_body() || get_next.as_ref().is_some_and(PathTemplate::needs_body) {
        return Err(wrong("has a reconcile that asks by a request's body, and asks for many"));
    }
    if get_next.is_some() && file.next.is_none() {
        return Err(wrong(
            "has a reconcile.get_next and no next\nhelp: add next = \"/next_cursor\"",
        ));
    }
    Ok(Arc::new(ReconcileRule {
        get,
        get_next,
        every,
        settle: settle(file.settle),
        items: file.items.clone(),
        key: file.key.clone(),
        next: file.next.clone(),
        equal: file.equal.clone().into_iter().collect(),
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
