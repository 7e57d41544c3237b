//! Requests as they are typed: with curl, against the address that the page was asked at.

use serde_json::{Map, Value, json};

use super::{followed, said};
use crate::shell::quoted;

/// Where this gateway is, and whether it asks for a key.
pub(super) struct Base {
    pub(super) address: String,
    pub(super) wants_key: bool,
}

/// How many rows are enough to see what a list looks like.
const ROWS: &str = "?limit=5";

/// What is sent through where an upstream may be sent anything.
const ANYTHING: &str = r#"{"qty": 1}"#;

/// The command, over several lines where it is long.
pub(super) fn curl(
    path: &'static str,
    method: &str,
    operation: &'static Value,
    base: &Base,
) -> String {
    let how = match method {
        "get" => String::new(),
        "head" => "--head ".to_owned(),
        other => format!("-X {} ", other.to_uppercase()),
    };
    let address = format!("{}{}{}", base.address, filled(path, operation), query(operation));
    let mut words = vec![format!("curl {how}{}", quoted(&address))];
    let is_through = path.starts_with("/to/");
    if base.wants_key && operation["security"].as_array().is_some_and(|ways| !ways.is_empty()) {
        // What is sent through has an `Authorization` of its own.
        let header = if is_through { "Onceward-Authorization" } else { "Authorization" };
        words.push(format!("-H \"{header}: Bearer $ONCEWARD_ACCESS_KEY\""));
    }
    if is_through && matches!(method, "post" | "put" | "patch" | "delete") {
        words.push("-H 'Idempotency-Key: order-1'".to_owned());
    }
    let body =
        operation.get("requestBody").map(|body| &body["content"]["application/json"]["schema"]);
    match body {
        Some(Value::Null) if matches!(method, "post" | "put" | "patch") => {
            words.push("-H 'Content-Type: application/json'".to_owned());
            words.push(format!("-d {}", quoted(ANYTHING)));
        }
        Some(Value::Null) | None => {}
        Some(schema) => {
            words.push("-H 'Content-Type: application/json'".to_owned());
            words.push(format!("-d {}", quoted(&of(schema).to_string())));
        }
    }
    words.join(" \\\n  ")
}

/// The path, with an example in each place.
fn filled(path: &'static str, operation: &'static Value) -> String {
    let all = operation["parameters"].as_array().into_iter().flatten().map(followed);
    all.filter(|parameter| parameter["in"] == "path").fold(path.to_owned(), |path, parameter| {
        let name = said(parameter, "name");
        let schema = followed(&parameter["schema"]);
        let known = [&parameter["example"], &schema["example"]].into_iter().find_map(Value::as_str);
        path.replace(&format!("{{{name}}}"), known.unwrap_or(name))
    })
}

fn query(operation: &'static Value) -> &'static str {
    let mut all = operation["parameters"].as_array().into_iter().flatten().map(followed);
    if all.any(|parameter| parameter["in"] == "query" && parameter["name"] == "limit") {
        ROWS
    } else {
        ""
    }
}

/// A value that fits a schema: its example, or the least of it.
pub(super) fn of(schema: &'static Value) -> Value {
    let schema = if schema.get("example").is_some() { schema } else { followed(schema) };
    if let Some(known) = schema.get("example").or_else(|| schema.get("const")) {
        return known.clone();
    }
    if let Some(known) = schema["enum"].as_array().and_then(|known| known.first()) {
        return known.clone();
    }
    for several in ["anyOf", "oneOf"] {
        let is_plain = schema.get("properties").is_none();
        if let Some(first) = schema[several].as_array().and_then(|several| several.first())
            && is_plain
        {
            return of(first);
        }
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.first().and_then(Value::as_str),
        kind => kind.as_str(),
    };
    match kind {
        Some("object") => {
            let needed = schema["required"].as_array().into_iter().flatten();
            let members = needed
                .filter_map(Value::as_str)
                .map(|name| (name.to_owned(), of(&schema["properties"][name])));
            Value::Object(members.collect::<Map<_, _>>())
        }
        Some("array") => json!([of(&schema["items"])]),
        Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or_else(|| json!(1)),
        Some("boolean") => json!(false),
        Some("string") => json!("text"),
        _ => json!({}),
    }
}
