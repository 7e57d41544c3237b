//! What may stand on a route, on a rule of it and in a profile: each key is laid over the policy so far.

use std::collections::BTreeMap;

use onceward::core::hours::Hours;
use onceward::core::ids::IDS_MAX;
use onceward::core::key_template::KeyTemplate;
use onceward::core::pattern::Pattern;
use onceward::core::policy::{Backoff, Effects, KeyFrom, Policy, UniqueRule, UpstreamKeyRule};
use onceward::core::redact::Redaction;
use onceward::core::upstream_key::KeyPlace;
use onceward::upstream::parse_ad_hoc;

use super::table::Table;
use super::words::{
    BODIES, DELETE_GONE, EFFECTS, ERROR_SHAPES, KEY_TIMES, MEANINGS, MISSING, MODES, ON_DEAD,
    ON_EXPIRED, ORDERS, QUERIES, UPSTREAM_KEYS, header_name, hint, is_name, pointer,
};
use super::{ConfigError, doubt};

const NOT_KEYED: &str =
    "has an upstream_key, but its effects are not keyed\nhelp: add effects = \"keyed\"";

/// What people do not see: pointers, or headers and pointers.
pub(super) fn redaction(table: &Table<'_>) -> Result<Redaction, ConfigError> {
    if table.is_list("redact") {
        let pointers = table.texts("redact", pointer)?.unwrap_or_default();
        return Ok(Redaction { pointers, ..Redaction::default() });
    }
    let read = |table: &Table<'_>| {
        Ok(Redaction {
            headers: table.texts("headers", header_name)?.unwrap_or_default(),
            pointers: table.texts("pointers", pointer)?.unwrap_or_default(),
        })
    };
    Ok(table.within("redact", read)?.unwrap_or_default())
}

/// The policy with what the table says laid over it.
pub(super) fn lay_over(mut policy: Policy, table: &Table<'_>) -> Result<Policy, ConfigError> {
    policy.effects = table.word("effects", EFFECTS)?.or(policy.effects);
    if table.has("upstream_key") && policy.effects != Some(Effects::Keyed) {
        return Err(table.slip("effects").unwrap_or_else(|| table.wrong(NOT_KEYED)));
    }
    table.within("upstream_key", |table| lay_upstream_key(&mut policy.upstream_key, table))?;
    policy.mode = table.word("mode", MODES)?.unwrap_or(policy.mode);
    table.within("key", |table| lay_key(&mut policy, table))?;
    table.within("fingerprint", |table| lay_fingerprint(&mut policy, table))?;
    lay_statuses(&mut policy, table)?;
    if let Some(hints) = table.texts("hints", hint)? {
        policy.hints = hints;
    }
    policy.delete_gone = table.word("delete_gone", DELETE_GONE)?.unwrap_or(policy.delete_gone);
    table.within("retry", |table| lay_backoff(&mut policy.accepted, table))?;
    table.within("held", |table| lay_backoff(&mut policy.held, table))?;
    policy.held.horizon = table.span_or("wait", policy.held.horizon)?;
    policy.window = table.span_or("window", policy.window)?;
    policy.tombstone = table.span_or("tombstone", policy.tombstone)?;
    policy.order = table.word("order", ORDERS)?.unwrap_or(policy.order);
    policy.order_block_max = table.span_or("order_block_max", policy.order_block_max)?;
    policy.order_gap_max = table.span_or("order_gap_max", policy.order_gap_max)?;
    policy.subject_max = table.or("subject_max", policy.subject_max)?.max(1);
    policy.on_dead = table.word("on_dead", ON_DEAD)?.unwrap_or(policy.on_dead);
    policy.on_expired = table.word("on_expired", ON_EXPIRED)?.unwrap_or(policy.on_expired);
    policy.mismatch_status = table.or("mismatch_status", policy.mismatch_status)?;
    if !matches!(policy.mismatch_status, 400 | 409 | 422) {
        let status = policy.mismatch_status;
        return Err(table.cannot(
            "mismatch_status",
            &format!("{status} is no status for a mismatch: 409, 422 or 400"),
        ));
    }
    table.within("unique", |table| lay_unique(&mut policy, table))?;
    policy.suspect_within = table.span_or("suspect_within", policy.suspect_within)?;
    policy.retain_bodies = table.span("retain_bodies")?.or(policy.retain_bodies);
    // A rule adds to its route, and a route to its profile: what was hidden is not seen again.
    policy.redact.add(&redaction(table)?);
    policy.error_shape = table.word("error_shape", ERROR_SHAPES)?.unwrap_or(policy.error_shape);
    if let Some(headers) = table.texts("keep_headers", header_name)? {
        policy.keep_headers = headers;
    }
    policy.seal_bodies = table.or("seal_bodies", policy.seal_bodies)?;
    if let Some(headers) = table.texts("seal_headers", header_name)? {
        policy.seal_headers = headers;
    }
    if let Some(ids) = table.read("ids")? {
        policy.ids = check_ids(ids, table)?;
    }
    if let Some(url) = table.read::<String>("callback")? {
        let url = parse_ad_hoc(&url).map_err(|refusal| {
            table.wrong(&format!("has a callback that cannot be used: {refusal}\nhelp: write \"https://app.example.com/hooks\""))
        })?;
        policy.callback = Some(url.to_string());
    }
    doubt::lay_lookup(&mut policy.lookup, table)?;
    policy.hours = table.text("hours", Hours::read)?.or(policy.hours);
    Ok(policy)
}

fn lay_upstream_key(rule: &mut UpstreamKeyRule, table: &Table<'_>) -> Result<(), ConfigError> {
    let header = table.text("header", header_name)?.map(KeyPlace::Header);
    let json = table.text("json", pointer)?.map(KeyPlace::Json);
    let query = table.read("query")?.map(KeyPlace::Query);
    let mut places = [header, json, query].into_iter().flatten();
    rule.place = places.next().unwrap_or_else(|| rule.place.clone());
    if places.next().is_some() {
        return Err(table
            .wrong("has an upstream_key in two places\nhelp: say one of header, json and query"));
    }
    rule.value = table.word("value", UPSTREAM_KEYS)?.unwrap_or(rule.value);
    rule.bytes_max = table.or("bytes_max", rule.bytes_max)?;
    rule.window = table.span_or("window", rule.window)?;
    Ok(())
}

fn lay_key(policy: &mut Policy, table: &Table<'_>) -> Result<(), ConfigError> {
    policy.key_missing = table.word("missing", MISSING)?.unwrap_or(policy.key_missing);
    if let Some(headers) = table.texts("headers", header_name)? {
        policy.key_headers = headers;
    }
    let rule = &mut policy.key_rule;
    rule.length_min = table.or("length_min", rule.length_min)?;
    let pattern = |text: &str| Pattern::read(text).map_err(|error| format!("{text:?}: {error}"));
    rule.pattern = table.text("pattern", pattern)?.or_else(|| rule.pattern.take());
    if let Some(refuse) = table.texts("refuse", pattern)? {
        rule.refuse = refuse;
    }
    policy.key_pointer = table.text("json", pointer)?.or_else(|| policy.key_pointer.take());
    if let Some(template) = table.text("template", template)? {
        if table.has("json") {
            return Err(table.wrong("has key.json and key.template\nhelp: keep one of them"));
        }
        policy.key_from = KeyFrom::Template(template);
    }
    policy.key_time = table.word("time", KEY_TIMES)?.unwrap_or(policy.key_time);
    Ok(())
}

fn template(text: &str) -> Result<KeyTemplate, String> {
    KeyTemplate::read(text).map_err(|error| format!("{text:?}: {error}"))
}

fn lay_fingerprint(policy: &mut Policy, table: &Table<'_>) -> Result<(), ConfigError> {
    let rule = &mut policy.fingerprint;
    rule.body = table.word("body", BODIES)?.unwrap_or(rule.body);
    rule.query = table.word("query", QUERIES)?.unwrap_or(rule.query);
    if let Some(headers) = table.texts("headers", header_name)? {
        rule.headers = headers;
    }
    rule.ignore = table.read("ignore")?.unwrap_or_else(|| std::mem::take(&mut rule.ignore));
    Ok(())
}

fn lay_backoff(backoff: &mut Backoff, table: &Table<'_>) -> Result<(), ConfigError> {
    backoff.attempts_max = table.or("attempts_max", backoff.attempts_max)?.max(1);
    backoff.horizon = table.span_or("horizon", backoff.horizon)?;
    backoff.base = table.span_or("base", backoff.base)?;
    backoff.floor = table.span_or("floor", backoff.floor)?;
    backoff.cap = table.span_or("cap", backoff.cap)?;
    let factor = table.read("factor")?.filter(|factor: &f64| factor.is_finite());
    backoff.factor = factor.unwrap_or(backoff.factor).max(1.0);
    if let Some(delays) = table.texts("table", crate::units::duration)? {
        backoff.table = delays;
    }
    Ok(())
}

fn lay_unique(policy: &mut Policy, table: &Table<'_>) -> Result<(), ConfigError> {
    let at = |text: &str| {
        let pointer = pointer(text)?;
        KeyTemplate::read(&format!("{{json:{pointer}}}"))
            .map_err(|error| format!("{text:?}: {error}"))
    };
    let (json, made) = (table.text("json", at)?, table.text("template", template)?);
    let ((Some(name), None) | (None, Some(name))) = (json, made) else {
        return Err(table.wrong(
            "has a unique that names nothing\nhelp: unique = { json = \"/order\", within = \"24h\" }",
        ));
    };
    let within = table.span_or("within", policy.window)?;
    if within > policy.window.saturating_add(policy.tombstone) {
        return Err(table.wrong(
            "has a unique.within that is longer than its operations are known\nhelp: window and tombstone together are at least as long",
        ));
    }
    policy.unique = Some(UniqueRule { name, within });
    Ok(())
}

/// Lays the five lists of statuses over `policy`: a list replaces the one of its name, and what is
/// said last of a status holds.
fn lay_statuses(policy: &mut Policy, table: &Table<'_>) -> Result<(), ConfigError> {
    let success: Option<Vec<u16>> = table.read("success")?;
    let mut seen = BTreeMap::new();
    examine("success", success.as_deref().unwrap_or_default(), &mut seen, table)?;
    for (name, meaning) in MEANINGS {
        let Some(list) = table.read::<Vec<u16>>(name)? else { continue };
        examine(name, &list, &mut seen, table)?;
        policy.statuses.retain(|_, known| known != meaning);
        policy.statuses.extend(list.iter().map(|status| (*status, *meaning)));
    }
    if let Some(success) = success {
        policy.success = success;
    }
    let success = &policy.success;
    policy.statuses.retain(|status, _| !success.contains(status));
    Ok(())
}

/// A status is final, and stands in one of the lists.
fn examine(
    name: &'static str,
    list: &[u16],
    seen: &mut BTreeMap<u16, &'static str>,
    table: &Table<'_>,
) -> Result<(), ConfigError> {
    for status in list {
        if !(200..600).contains(status) {
            return Err(table.wrong(&format!(
                "lists {status} under {name}\nhelp: a final status lies between 200 and 599"
            )));
        }
        if let Some(other) = seen.insert(*status, name).filter(|other| *other != name) {
            return Err(table.wrong(&format!(
                "lists {status} under {other} and under {name}\nhelp: leave it in one of them"
            )));
        }
    }
    Ok(())
}

/// Names and where in the answer they are.
fn check_ids(
    ids: BTreeMap<String, String>,
    table: &Table<'_>,
) -> Result<Vec<(String, String)>, ConfigError> {
    if ids.len() > IDS_MAX {
        return Err(table.wrong(&format!("has {} ids\nhelp: name at most {IDS_MAX}", ids.len())));
    }
    if let Some((name, _)) = ids.iter().find(|(name, _)| !is_name(name)) {
        return Err(table.wrong(&format!(
            "has an id {name:?}\nhelp: a name has letters, digits, `-`, `_` and `.`, at most 64"
        )));
    }
    if let Some((name, pointer)) = ids.iter().find(|(_, pointer)| !pointer.starts_with('/')) {
        return Err(table.wrong(&format!(
            "has ids.{name} = {pointer:?}, which is no JSON pointer\nhelp: write \"/id\" or \"/customer/id\""
        )));
    }
    Ok(ids.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use onceward::core::policy::Meaning;

    use super::super::text::Text;
    use super::*;

    fn laid(policy: Policy, text: &str) -> Result<Policy, String> {
        let text = Text::new(text, "f", std::iter::empty());
        let keys = text.parse().unwrap();
        lay_over(policy, &Table::whole(&text, &keys)).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_said_last_of_a_status_holds() {
        let route = laid(Policy::default(), "not_processed = [502, 503]\nfinal = [500]").unwrap();
        let rule = laid(route, "not_processed = [503]\nambiguous = [500]\nsuccess = [200, 404]");
        let rule = rule.unwrap();
        let said = [(500, Meaning::Ambiguous), (503, Meaning::NotProcessed)];
        assert_eq!(rule.statuses, said.into());
        let success = laid(rule, "success = [200, 503]").unwrap();
        assert_eq!(success.statuses, [(500, Meaning::Ambiguous)].into());
    }

    #[test]
    fn a_status_in_two_lists_or_in_none_that_there_is_is_refused() {
        let refused = |text| laid(Policy::default(), text).unwrap_err();
        assert!(
            refused("success = [404]\nfinal = [404]").contains("under success and under final")
        );
        assert!(refused("ambiguous = [100]").contains("between 200 and 599"));
        assert!(refused("refused = [5000]").contains("5000"));
    }
}
