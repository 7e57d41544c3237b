//! The example: every key in a comment, with what pages tell of it, and what it is where nothing is said.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::Value;

use super::schema::{is_of_policy, is_word, wrong};
use super::{Asked, MAY_SAY_IT, POLICY, SECTIONS, Told};

/// As wide as a comment grows.
const WIDTH: usize = 100;

const HEAD: &str = "\
# Every key that the configuration of Onceward may have, each in a comment: none has to be said. What stands
# behind a key is what holds without it, or one of what it may be. Names in capitals are yours.
# Made of the code by `cargo xtask docs`; `onceward check` says what a file comes to.
";

/// What is read there, as the file has it.
type Keys<'a> = Vec<(&'a str, String)>;

pub(super) fn example(asked: &Asked, told: &Told, schema: &Value) -> String {
    let mut out = HEAD.to_owned();
    let mut groups: BTreeMap<(String, String), Keys<'_>> = BTreeMap::new();
    for ((section, key), kinds) in asked {
        let is_elsewhere = section != POLICY && is_of_policy(asked, key);
        let is_of_rule = key == "match";
        let only_tables = kinds.iter().all(|kind| kind == "table" || kind == "tables");
        let has_within = |other: &&(String, String)| {
            other.0 == *section && other.1.starts_with(&format!("{key}."))
        };
        let is_a_head = only_tables && asked.keys().any(|other| has_within(&other));
        let is_sections = section.is_empty() && SECTIONS.contains(&key.as_str());
        let is_of_route = ["alerts.to.NAME", "outbox.NAME", "sources.NAME"]
            .contains(&section.as_str())
            && asked.contains_key(&("routes.NAME".to_owned(), key.clone()))
            && !told.tells(section, key);
        if is_of_route
            || (is_elsewhere && MAY_SAY_IT.contains(&section.as_str()) && key != "profile")
            || is_of_rule
            || is_a_head
            || is_sections
            || key == "rules"
            || key == "oidc.roles"
        {
            continue;
        }
        let of_role = key.strip_prefix("oidc.roles.").map(|rest| ("oidc.roles", rest));
        let (group, rest) = of_role.unwrap_or_else(|| match key.split_once('.') {
            Some((first, rest)) if section.is_empty() => (first, rest),
            _ => ("", key.as_str()),
        });
        let usual = told.of(section, key).and_then(|said| said.usual.as_deref());
        // A word or an address stands on a page without its quotes.
        let written = usual.into_iter().flat_map(|usual| [usual.to_owned(), format!("{usual:?}")]);
        let value = { written }.find(|written| fits(section, key, written, schema));
        let value = value.unwrap_or_else(|| one_of(kinds));
        let group = (section.clone(), group.to_owned());
        groups.entry(group).or_default().push((rest, value));
    }
    for ((section, group), keys) in &groups {
        let name = if section.is_empty() { group } else { section };
        if !name.is_empty() {
            // Of those in a row the keys are each one's own.
            let brackets = if name == "oidc.roles" { ("[[", "]]") } else { ("[", "]") };
            let _ = write!(out, "\n\n# {}{name}{}\n", brackets.0, brackets.1);
            if MAY_SAY_IT.contains(&name.as_str()) {
                out += match name.as_str() {
                    "routes.NAME" => "# and every key of [profiles.NAME]\n",
                    _ => {
                        "# and every key of [profiles.NAME], and those of [routes.NAME] that say how it is sent\n"
                    }
                };
            }
        }
        for (key, value) in keys {
            let whole = match group.as_str() {
                "" => (*key).to_owned(),
                group => format!("{group}.{key}"),
            };
            if let Some(said) = told.of(section, &whole).filter(|said| !said.meaning.is_empty()) {
                out.push('\n');
                comment(&said.meaning, &mut out);
            }
            let _ = writeln!(out, "# {key} = {value}");
        }
    }
    out += "\n\n# [[routes.NAME.rules]]\n# and every key of [profiles.NAME], for what it matches:\n# match = \"POST /orders/*\"\n";
    out
}

/// Whether a value that a page names is one that the key may have.
fn fits(section: &str, key: &str, usual: &str, schema: &Value) -> bool {
    let Ok(table) = toml::from_str::<toml::Table>(&format!("v = {usual}")) else { return false };
    let mut at = schema;
    if !section.is_empty() {
        for part in section.trim_end_matches(".NAME").split('.') {
            at = &at["properties"][part];
        }
        at = &at["additionalProperties"];
    }
    for part in key.split('.') {
        let ways = at["anyOf"].as_array().map_or_else(|| std::slice::from_ref(at), Vec::as_slice);
        let Some(next) = ways.iter().find_map(|way| way["properties"].get(part)) else {
            return false;
        };
        at = next;
    }
    wrong(&table["v"], at, schema).is_none()
}

/// Some value of these kinds.
fn one_of(kinds: &BTreeSet<String>) -> String {
    if let Some(word) = kinds.iter().find(|kind| is_word(kind)) {
        return format!("{word:?}");
    }
    let has = |what: &str| kinds.iter().any(|kind| kind.contains(what));
    let is = |what: &str| kinds.contains(what);
    let value = match () {
        () if has("Span") => "\"30s\"",
        () if has("Size") => "\"1MiB\"",
        () if is("bool") => "true",
        () if ["u8", "u16", "u32", "u64", "usize"].into_iter().any(is) => "1",
        () if is("f64") => "0.1",
        () if has("Vec<") => "[]",
        () if has("BTreeMap") => "{}",
        () if has("String") || has("PathBuf") || has("str") || has("Addr") => "\"…\"",
        () if is("tables") => "[]",
        () => "{}",
    };
    value.to_owned()
}

fn comment(text: &str, out: &mut String) {
    let mut line = "#".to_owned();
    for word in text.split_whitespace() {
        if line.chars().count() + word.chars().count() >= WIDTH {
            out.push_str(&line);
            out.push('\n');
            "#".clone_into(&mut line);
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
}
