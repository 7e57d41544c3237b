//! The document of the API, held against every answer that a test gets of the gateway's main listener: an
//! answer that it does not tell of, or tells otherwise, fails that test.
//!
//! Schemas are read as JSON Schema 2020-12 has them, those words of it that the document uses; a word
//! that is not known here fails too. Answers are held to be closed, though the document lets a later
//! release add members: what this one says, it has to name.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde_json::Value;

use super::Response;

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../../../docs/openapi.json")).unwrap()
});

/// What any address may answer, whatever the document says of it.
const ANYWHERE: [u16; 4] = [405, 414, 431, 503];

/// What is said of an endpoint.
pub(crate) struct Said {
    pub(crate) id: &'static str,
    responses: &'static Value,
}

/// Every endpoint's name.
pub(crate) fn ids() -> BTreeSet<&'static str> {
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let methods = paths.values().flat_map(|path| path.as_object().unwrap().values());
    methods.map(|operation| operation["operationId"].as_str().unwrap()).collect()
}

/// What the document says of a request, where it tells of it at all.
pub(crate) fn said(method: &str, path: &str) -> Option<Said> {
    let path = path.split('?').next().unwrap_or_default();
    let method = if method == "HEAD" { "GET" } else { method }.to_lowercase();
    let parts: Vec<&str> = path.split('/').collect();
    let fits = |template: &str| {
        let wanted: Vec<&str> = template.split('/').collect();
        let is_one = |(wanted, part): (&&str, &&str)| {
            if wanted.starts_with('{') { !part.is_empty() } else { wanted == part }
        };
        wanted.len() == parts.len() && wanted.iter().zip(&parts).all(is_one)
    };
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let mut found = paths.iter().filter(|(template, methods)| {
        template.starts_with("/v1/") && fits(template) && methods.get(&method).is_some()
    });
    // What is written out is meant before what stands for anything.
    let least = |found: &mut dyn Iterator<Item = (&'static String, &'static Value)>| {
        found.min_by_key(|(template, _)| template.matches('{').count())
    };
    let (_, methods) = least(&mut found)?;
    let operation = &methods[&method];
    Some(Said {
        id: operation["operationId"].as_str().unwrap(),
        responses: &operation["responses"],
    })
}

/// Holds an answer to what the document says.
#[track_caller]
pub(crate) fn hold(method: &str, path: &str, answer: &Response) {
    let Some(said) = said(method, path) else { return };
    if let Err(why) = judge(&said, answer, method == "HEAD") {
        panic!(
            "{} ({method} {path}) answers otherwise than docs/openapi.json says: {why}\n{answer:?}",
            said.id
        );
    }
}

fn judge(said: &Said, answer: &Response, is_head: bool) -> Result<(), String> {
    let status = answer.status;
    let Some(response) = said.responses.get(status.to_string()) else {
        let is_known = ANYWHERE.contains(&status);
        return if is_known { Ok(()) } else { Err(format!("it says nothing of {status}")) };
    };
    let response = followed(response);
    let kind = answer.header("content-type").unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default();
    let content = response["content"].get(kind);
    let content = content.ok_or_else(|| format!("{status} is not to be {kind:?}"))?;
    if is_head || !kind.ends_with("json") {
        return Ok(());
    }
    let body: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
    let named = check(&content["schema"], &body, "")?;
    if kind == "application/problem+json"
        && let Some(codes) = response["x-onceward-codes"].as_array()
        && !codes.contains(&body["code"])
    {
        return Err(format!("{status} is not to be {}", body["code"]));
    }
    closed(&body, &named)
}

fn followed(value: &'static Value) -> &'static Value {
    match value["$ref"].as_str() {
        Some(to) => followed(DOCUMENT.pointer(to.strip_prefix('#').unwrap()).unwrap()),
        None => value,
    }
}

/// The places that a schema names; one that ends in `*` names all below.
type Named = BTreeSet<String>;

/// Nothing is there that no schema names.
fn closed(body: &Value, named: &Named) -> Result<(), String> {
    fn below(value: &Value, at: &str, named: &Named) -> Result<(), String> {
        if named.contains(&format!("{at}/*")) {
            return Ok(());
        }
        match value {
            Value::Object(members) => members.iter().try_for_each(|(name, value)| {
                let at = format!("{at}/{name}");
                if !named.contains(&at) {
                    return Err(format!("{at} is not named"));
                }
                below(value, &at, named)
            }),
            Value::Array(items) => items
                .iter()
                .enumerate()
                .try_for_each(|(n, item)| below(item, &format!("{at}/{n}"), named)),
            _ => Ok(()),
        }
    }
    below(body, "", named)
}

fn check(schema: &Value, value: &Value, at: &str) -> Result<Named, String> {
    let mut named = Named::new();
    let wrong = |why: String| Err(format!("{at:?}: {why}"));
    let words = schema.as_object().unwrap();
    let says_nothing = words.keys().all(|word| word == "description");
    if says_nothing {
        named.insert(format!("{at}/*"));
    }
    for (word, said) in words {
        match word.as_str() {
            "$ref" => {
                let to = DOCUMENT.pointer(said.as_str().unwrap().strip_prefix('#').unwrap());
                named.extend(check(to.unwrap(), value, at)?);
            }
            "type" => {
                let kinds =
                    said.as_array().map_or_else(|| std::slice::from_ref(said), Vec::as_slice);
                if !kinds.iter().any(|kind| is_a(kind.as_str().unwrap(), value)) {
                    return wrong(format!("{value} is no {said}"));
                }
            }
            "enum" if !said.as_array().unwrap().contains(value) => {
                return wrong(format!("{value} is none of {said}"));
            }
            "const" if said != value => return wrong(format!("{value} is not {said}")),
            "enum" | "const" | "description" | "example" | "default" => {}
            "required" => {
                for name in said.as_array().unwrap() {
                    let there =
                        value.as_object().is_none_or(|it| it.contains_key(name.as_str().unwrap()));
                    if !there {
                        return wrong(format!("{name} is missing"));
                    }
                }
            }
            "properties" => {
                for (name, schema) in said.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        let at = format!("{at}/{name}");
                        named.extend(check(schema, value, &at)?);
                        named.insert(at);
                    }
                }
            }
            "additionalProperties" => {
                let known = schema["properties"].as_object();
                for (name, value) in value.as_object().into_iter().flatten() {
                    if known.is_some_and(|known| known.contains_key(name)) {
                        continue;
                    }
                    let at = format!("{at}/{name}");
                    match said {
                        Value::Bool(false) => return wrong(format!("{name} is too much")),
                        Value::Bool(true) => _ = named.insert(format!("{at}/*")),
                        schema => named.extend(check(schema, value, &at)?),
                    }
                    named.insert(at);
                }
            }
            "propertyNames" => {
                for name in value.as_object().into_iter().flat_map(|it| it.keys()) {
                    check(said, &Value::String(name.clone()), at)?;
                }
            }
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    named.extend(check(said, item, &format!("{at}/{n}"))?);
                }
            }
            "allOf" => {
                for schema in said.as_array().unwrap() {
                    named.extend(check(schema, value, at)?);
                }
            }
            "anyOf" => {
                let each = said.as_array().unwrap().iter().map(|schema| check(schema, value, at));
                let mut fits = each.filter_map(Result::ok).peekable();
                if fits.peek().is_none() {
                    return wrong(format!("{value} is none of those that it may be"));
                }
                named.extend(fits.flatten());
            }
            "minimum" => {
                if value.as_f64().is_some_and(|value| value < said.as_f64().unwrap()) {
                    return wrong(format!("{value} is less than {said}"));
                }
            }
            "maximum" => {
                if value.as_f64().is_some_and(|value| value > said.as_f64().unwrap()) {
                    return wrong(format!("{value} is more than {said}"));
                }
            }
            "minLength" | "minItems" => {
                let length = length(value);
                if length.is_some_and(|length| length < said.as_u64().unwrap()) {
                    return wrong(format!("{value} is too short"));
                }
            }
            "maxLength" | "maxItems" => {
                let length = length(value);
                if length.is_some_and(|length| length > said.as_u64().unwrap()) {
                    return wrong(format!("{value} is too long"));
                }
            }
            "pattern" => {
                let text = value.as_str();
                if text.is_some_and(|text| !matches(said.as_str().unwrap(), text)) {
                    return wrong(format!("{value} is not of the form {said}"));
                }
            }
            "format" => {
                let text = value.as_str();
                if text.is_some_and(|text| !has_format(said.as_str().unwrap(), text)) {
                    return wrong(format!("{value} is no {said}"));
                }
            }
            other => panic!("the document uses {other:?} in an answer, which is not known here"),
        }
    }
    Ok(named)
}

fn is_a(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("{other}"),
    }
}

fn length(value: &Value) -> Option<u64> {
    let characters = value.as_str().map(|text| text.chars().count());
    characters.or_else(|| value.as_array().map(Vec::len)).map(|length| length as u64)
}

/// The patterns that answers have.
fn matches(pattern: &str, text: &str) -> bool {
    let base32 =
        |text: &str| text.bytes().all(|it| b"0123456789abcdefghjkmnpqrstvwxyz".contains(&it));
    let base16 = |text: &str| text.bytes().all(|it| b"0123456789abcdef".contains(&it));
    match pattern {
        "^op_[0-7][0-9a-hjkmnp-tv-z]{25}$" => text
            .strip_prefix("op_")
            .is_some_and(|rest| rest.len() == 26 && base32(rest) && rest < "8"),
        "^urn:onceward:problem:" => text.starts_with("urn:onceward:problem:"),
        "^[0-9a-f]{8}$" => text.len() == 8 && base16(text),
        "^[0-9a-f]{64}$" => text.len() == 64 && base16(text),
        "^ow_[A-Za-z0-9_-]{47}$" => text.starts_with("ow_") && text.len() == 50,
        "^ses_[A-Za-z0-9_-]{16}$" => text.starts_with("ses_") && text.len() == 20,
        other => {
            panic!("the document uses the pattern {other:?} in an answer, which is not known here")
        }
    }
}

fn has_format(format: &str, text: &str) -> bool {
    match format {
        // As every answer of ours has it: to the millisecond, in UTC.
        "date-time" => text.len() == 24 && &text[10..11] == "T" && text.ends_with('Z'),
        "uri-reference" => text.starts_with('/'),
        other => {
            panic!("the document uses the format {other:?} in an answer, which is not known here")
        }
    }
}
