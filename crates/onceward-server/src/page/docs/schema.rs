//! What a body looks like: a tree of members, each with what it is, whether it has to be there, and its bounds.
//! A shape with a name is told once on a page, and elsewhere a link leads to it.

use std::collections::BTreeSet;

use maud::{Markup, html};
use serde_json::Value;

use super::{document, followed, name_of, text};

/// Words of a schema that say how its members depend on each other; told as they are written.
const TANGLED: [&str; 6] = ["not", "allOf", "anyOf", "oneOf", "dependentRequired", "minProperties"];

/// A member of a body, or a parameter.
pub(super) struct Field {
    pub(super) name: &'static str,
    /// Where it stands, of a parameter.
    pub(super) place: &'static str,
    pub(super) is_needed: bool,
    pub(super) about: Option<&'static str>,
    pub(super) schema: &'static Value,
}

/// The shapes that a page refers to.
#[derive(Default)]
pub(super) struct Shapes {
    wanted: BTreeSet<&'static str>,
}

/// Whether a shape is a single value, which is told where it stands.
fn is_plain(schema: &Value) -> bool {
    let has = |word: &str| schema.get(word).is_some();
    !has("properties") && !has("allOf") && schema["type"] != "object" && !lists_shapes(schema)
}

/// Whether it is one of several that are no single values.
fn lists_shapes(schema: &Value) -> bool {
    let several = schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array());
    several.into_iter().flatten().any(|one| one.get("properties").is_some())
}

impl Shapes {
    /// Every shape that was referred to, and what those refer to.
    pub(super) fn sections(mut self) -> Vec<Markup> {
        let mut done = BTreeSet::new();
        let mut sections = Vec::new();
        while let Some(name) = self.wanted.difference(&done).next().copied() {
            done.insert(name);
            sections.push((name, self.section(name)));
        }
        sections.sort_unstable_by_key(|(name, _)| *name);
        sections.into_iter().map(|(_, section)| section).collect()
    }

    fn section(&mut self, name: &'static str) -> Markup {
        let schema = &document()["components"]["schemas"][name];
        html! {
            section.card.endpoint {
                h3 id={ "shape-" (name) } { code { (name) } }
                (self.tree(schema))
                @if let Some(example) = schema.get("example") {
                    p.small { "Such as " code { (example.to_string()) } }
                }
            }
        }
    }

    /// A body: what it is, and its members.
    pub(super) fn tree(&mut self, schema: &'static Value) -> Markup {
        let schema = followed(schema);
        html! {
            @if let Some(about) = schema["description"].as_str() { p { (text::line(about)) "." } }
            (self.members(schema))
            @if schema["additionalProperties"] == false {
                p.small { "Another member is refused." }
            }
            (tangled(schema))
        }
    }

    fn members(&mut self, schema: &'static Value) -> Markup {
        let is_needed = |name: &str| {
            let needed = schema["required"].as_array();
            needed.is_some_and(|needed| needed.iter().any(|it| it == name))
        };
        let members = schema["properties"].as_object().map(|members| {
            let (needed, others): (Vec<_>, Vec<_>) =
                members.iter().partition(|(name, _)| is_needed(name));
            needed.into_iter().chain(others)
        });
        html! {
            @if let Some(members) = members {
                ul.fields {
                    @for (name, schema) in members {
                        (self.field(&Field {
                            name,
                            place: "",
                            is_needed: is_needed(name),
                            about: schema["description"].as_str(),
                            schema,
                        }))
                    }
                }
            } @else if let Some(parts) = schema["allOf"].as_array() {
                @for part in parts {
                    @if name_of(part).is_some() { p { "All of " (self.kind(part)) ", and:" } }
                    @else { (self.members(part)) }
                }
            } @else if lists_shapes(schema) || schema.get("anyOf").is_some() {
                @for (n, one) in schema["anyOf"].as_array().into_iter().flatten().enumerate() {
                    p { @if n > 0 { "or " } (self.kind(one)) }
                    @if name_of(one).is_none() { (self.members(one)) }
                }
            } @else {
                p { (self.kind(schema)) }
            }
        }
    }

    /// One member, with those within it.
    pub(super) fn field(&mut self, field: &Field) -> Markup {
        let schema = field.schema;
        let named = followed(schema);
        let about = field.about.or_else(|| {
            let told = schema["description"].as_str();
            told.or_else(|| is_plain(named).then(|| named["description"].as_str()).flatten())
        });
        let within = within(schema);
        html! {
            li {
                code.name { (field.name) }
                @if !field.place.is_empty() && field.place != "header" { " " span.tag { (field.place) } }
                @if field.is_needed { " " span.tag.needed { "required" } }
                " " span.kind { (self.kind(schema)) }
                @if let Some(about) = about { " " span.about { (text::line(about)) } }
                @if let Some(within) = within { (self.members(within)) }
            }
        }
    }

    /// What it is, in a few words.
    pub(super) fn kind(&mut self, schema: &'static Value) -> Markup {
        if let Some(name) = name_of(schema) {
            let named = followed(schema);
            if is_plain(named) {
                return self.plain(named, schema);
            }
            self.wanted.insert(name);
            return html! { a href={ "#shape-" (name) } { (name) } };
        }
        self.plain(schema, schema)
    }

    /// `said`: the place that refers to it, which may add a default.
    fn plain(&mut self, schema: &'static Value, said: &'static Value) -> Markup {
        let bounds = bounds(schema, said);
        html! {
            (self.what(schema))
            @for bound in &bounds { ", " (text::line(bound)) }
            (pattern(schema))
        }
    }

    fn what(&mut self, schema: &'static Value) -> Markup {
        let several = schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array());
        if let Some(several) = several.filter(|_| schema.get("properties").is_none()) {
            return html! {
                @for (n, one) in several.iter().enumerate() {
                    @if n > 0 { " or " } (self.kind(one))
                }
            };
        }
        if let Some(known) = schema["enum"].as_array() {
            return html! {
                @for (n, value) in known.iter().enumerate() {
                    @if n > 0 { @if n + 1 == known.len() { " or " } @else { ", " } }
                    code { (shown(value)) }
                }
            };
        }
        if let Some(value) = schema.get("const") {
            return html! { code { (shown(value)) } };
        }
        let kinds: Vec<&str> = match &schema["type"] {
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            kind => kind.as_str().into_iter().collect(),
        };
        html! {
            @if kinds.is_empty() { "any JSON value" }
            @for (n, kind) in kinds.iter().enumerate() {
                @if n > 0 { " or " }
                @match *kind {
                    "array" if schema.get("items").is_some_and(|items| items != &Value::Object(serde_json::Map::new())) => {
                        "array of " (self.kind(&schema["items"]))
                    },
                    "object" if schema["additionalProperties"].is_object() => {
                        "object of " (self.kind(&schema["additionalProperties"]))
                    },
                    kind => (kind),
                }
            }
        }
    }
}

/// The members that stand within a member that has no name of its own.
fn within(schema: &'static Value) -> Option<&'static Value> {
    let schema = if schema["items"].is_object() { &schema["items"] } else { schema };
    schema.get("properties").map(|_| schema)
}

/// A word of an enumeration, as JSON has it where it is none.
fn shown(value: &Value) -> String {
    match value {
        Value::String(word) if !word.is_empty() => word.clone(),
        value => value.to_string(),
    }
}

/// What a value has to keep to, a phrase each.
fn bounds(schema: &'static Value, said: &'static Value) -> Vec<String> {
    let range = |least: &str, most: &str, unit: &str| {
        let (least, most) = (schema.get(least), schema.get(most));
        match (least, most) {
            (Some(least), Some(most)) if least == most => Some(format!("{least}{unit}")),
            (Some(least), Some(most)) => Some(format!("{least} to {most}{unit}")),
            (Some(least), None) if least == 1 && !unit.is_empty() => Some("not empty".to_owned()),
            (Some(least), None) => Some(format!("{least}{unit} or more")),
            (None, Some(most)) => Some(format!("up to {most}{unit}")),
            (None, None) => None,
        }
    };
    let mut bounds: Vec<String> = [
        range("minimum", "maximum", ""),
        range("minLength", "maxLength", " characters"),
        range("minItems", "maxItems", " of them"),
    ]
    .into_iter()
    .flatten()
    .collect();
    if let Some(format) = schema["format"].as_str() {
        bounds.push(format!("as `{format}`"));
    }
    if let Some(names) = schema["propertyNames"]["pattern"].as_str() {
        bounds.push(format!("whose names match `{names}`"));
    }
    let default = said.get("default").or_else(|| schema.get("default"));
    bounds.extend(default.map(|value| format!("`{}` where nothing is said", shown(value))));
    if is_plain(schema)
        && let Some(example) = schema.get("example")
    {
        bounds.push(format!("such as `{}`", shown(example)));
    }
    bounds
}

/// How members depend on each other.
fn tangled(schema: &'static Value) -> Markup {
    let of_members = schema.get("properties").is_some();
    let words = TANGLED.iter().filter(|_| of_members);
    let words: Vec<_> = words.filter_map(|word| Some((*word, schema.get(word)?))).collect();
    html! {
        @if !words.is_empty() {
            p.small { "And, in the words of JSON Schema:" }
            @for (word, value) in words { pre { code { (word) ": " (value.to_string()) } } }
        }
    }
}

/// What a text has to be like, where no example shows it: in words where there are some.
fn pattern(schema: &Value) -> Markup {
    let pattern = schema["pattern"].as_str().filter(|_| schema.get("example").is_none());
    html! {
        @match pattern {
            None => {}
            Some(pattern) if pattern.starts_with("^([A-Za-z0-9+/]{4})*") => { ", in base64" }
            Some(pattern) => { ", matching " code.pattern { (pattern) } }
        }
    }
}
