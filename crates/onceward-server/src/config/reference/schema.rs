//! The schema of the file, made of what its readers asked for.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use toml::Value as Toml;

use super::{Asked, POLICY, SECTIONS, Told};

/// What a text has into which a variable is put: an editor sees it before that.
const VARIABLE: &str = "\\$\\{";

/// A key, what is read there, and the keys within it.
#[derive(Debug, Default)]
struct Node {
    kinds: BTreeSet<String>,
    within: BTreeMap<String, Node>,
}

impl Node {
    fn at(&mut self, path: &str) -> &mut Self {
        path.split('.').fold(self, |node, part| node.within.entry(part.to_owned()).or_default())
    }
}

/// The schema, with what pages tell of each key.
pub(super) fn schema(asked: &Asked, told: &Told) -> Value {
    let mut sections: BTreeMap<&str, Node> = BTreeMap::new();
    for ((section, key), kinds) in asked {
        sections.entry(section).or_default().at(key).kinds.extend(kinds.iter().cloned());
    }
    // The list of them has its own name for a key of each.
    let roles = sections.entry("").or_default().at("oidc.roles.roles");
    roles.kinds.insert(std::any::type_name::<Vec<String>>().to_owned());
    let of = |section: &str| object(&sections[section], section, "", told);
    let mut root = of("");
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["title"] = json!("The configuration of Onceward");
    for name in SECTIONS {
        let pointer = format!("/properties/{}", name.replace('.', "/properties/"));
        let mut section = of(&format!("{name}.NAME"));
        if name != "profiles" {
            // Only a rule says what it matches.
            section["properties"].as_object_mut().unwrap().remove("match");
        }
        let table = json!({"type": "object", "additionalProperties": section});
        *root.pointer_mut(&pointer).unwrap_or_else(|| panic!("no {pointer}")) = table;
    }
    let profile = root.pointer_mut("/properties/profiles/additionalProperties").unwrap();
    let mut rule = profile.clone();
    profile["properties"].as_object_mut().unwrap().remove("match");
    rule["properties"].as_object_mut().unwrap().remove("rules");
    root["$defs"] = json!({
        "rule": rule,
        "variable": {"type": "string", "pattern": VARIABLE},
        "duration": {"anyOf": [
            {"type": "string", "pattern": "^\\s*([0-9.]+\\s*(ms|s|min|m|h|d)\\s*)+$"},
            {"$ref": "#/$defs/variable"},
        ]},
        "size": {"anyOf": [
            {"type": "integer", "minimum": 0},
            {"type": "string", "pattern": "^[0-9]+ *(B|KiB|MiB|GiB|KB|kB|MB)?$"},
            {"$ref": "#/$defs/variable"},
        ]},
    });
    root
}

fn object(node: &Node, section: &str, before: &str, told: &Told) -> Value {
    let mut properties = Map::new();
    for (name, within) in &node.within {
        let key = format!("{before}{name}");
        let mut schema = value(within, section, &key, told);
        if let Some(said) = told.of(section, &key).filter(|said| !said.meaning.is_empty()) {
            schema["description"] = json!(said.meaning);
        }
        properties.insert(name.clone(), schema);
    }
    json!({"type": "object", "additionalProperties": false, "properties": properties})
}

fn value(node: &Node, section: &str, key: &str, told: &Told) -> Value {
    let words: Vec<&str> = node.kinds.iter().map(String::as_str).filter(|it| is_word(it)).collect();
    let has_tables = node.kinds.contains("tables");
    let mut ways = Vec::new();
    if !words.is_empty() {
        ways.push(json!({"enum": words}));
        ways.push(json!({"$ref": "#/$defs/variable"}));
    }
    for kind in node.kinds.iter().filter(|kind| !is_word(kind)) {
        let way = match kind.as_str() {
            "table" if node.within.is_empty() => json!({"type": "object"}),
            "table" => object(node, section, &format!("{key}."), told),
            "tables" if key == "rules" => {
                json!({"type": "array", "items": {"$ref": "#/$defs/rule"}})
            }
            "tables" => {
                let items = object(node, section, &format!("{key}."), told);
                json!({"type": "array", "items": items})
            }
            "bool" => json!({"type": "boolean"}),
            "f64" => json!({"type": "number"}),
            "u8" | "u16" | "u32" | "u64" | "usize" => json!({"type": "integer", "minimum": 0}),
            kind if kind.contains("Vec<") && has_tables => continue,
            kind if kind.contains("Vec<u") => {
                json!({"type": "array", "items": {"type": "integer"}})
            }
            kind if kind.contains("Vec<") => json!({"type": "array", "items": {"type": "string"}}),
            kind if kind.contains("BTreeMap") => json!({"type": "object"}),
            kind if kind.ends_with("::Span") => json!({"$ref": "#/$defs/duration"}),
            kind if kind.ends_with("::Size") => json!({"$ref": "#/$defs/size"}),
            kind if kind.contains("Value") => return json!({}),
            _ if words.is_empty() => json!({"type": "string"}),
            _ => continue,
        };
        if !ways.contains(&way) {
            ways.push(way);
        }
    }
    if ways.is_empty() && !node.within.is_empty() {
        ways.push(object(node, section, &format!("{key}."), told));
    }
    match ways.len() {
        0 => json!({"type": "string"}),
        1 => ways.remove(0),
        _ => json!({"anyOf": ways}),
    }
}

/// A word that the file may say, and no type of ours.
pub(super) fn is_word(kind: &str) -> bool {
    let types =
        ["table", "tables", "bool", "f64", "u8", "u16", "u32", "u64", "usize", "str", "&str"];
    !kind.contains("::") && !types.contains(&kind) && !kind.contains('<')
}

/// Why a value is not as the schema says; nothing where it is. What the schema of ours does not use is not known here.
pub(super) fn wrong(value: &Toml, schema: &Value, root: &Value) -> Option<String> {
    if let Some(place) = schema["$ref"].as_str() {
        return wrong(value, root.pointer(place.trim_start_matches('#'))?, root);
    }
    if let Some(ways) = schema["anyOf"].as_array() {
        let whys: Vec<_> = ways.iter().map(|way| wrong(value, way, root)).collect();
        return whys.iter().all(Option::is_some).then(|| format!("{value}: {whys:?}"));
    }
    if let Some(words) = schema["enum"].as_array() {
        let is_one = words.iter().any(|word| word.as_str() == value.as_str());
        return (!is_one).then(|| format!("{value} is none of {words:?}"));
    }
    if schema["pattern"] == VARIABLE && !value.as_str().is_some_and(|text| text.contains("${")) {
        return Some(format!("{value} has no variable"));
    }
    let kind = match (schema["type"].as_str(), value) {
        (None, _)
        | (Some("string"), Toml::String(_))
        | (Some("boolean"), Toml::Boolean(_))
        | (Some("integer" | "number"), Toml::Integer(_))
        | (Some("number"), Toml::Float(_)) => return None,
        (Some("array"), Toml::Array(items)) => {
            return items.iter().find_map(|item| wrong(item, &schema["items"], root));
        }
        (Some("object"), Toml::Table(keys)) => {
            return keys.iter().find_map(|(key, value)| {
                let known = schema["properties"].get(key);
                match known.or_else(|| schema.get("additionalProperties")) {
                    Some(Value::Bool(false)) => Some(format!("no key {key}")),
                    Some(schema) => wrong(value, schema, root).map(|why| format!("{key}: {why}")),
                    None => None,
                }
            });
        }
        (Some(kind), _) => kind,
    };
    Some(format!("{value} is no {kind}"))
}

/// Whether the keys of a rule may say this one.
pub(super) fn is_of_policy(asked: &Asked, key: &str) -> bool {
    asked.contains_key(&(POLICY.to_owned(), key.to_owned()))
}
