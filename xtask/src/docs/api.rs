//! The endpoints of the HTTP API, as its document has them.

use std::fmt::Write as _;

use serde_json::Value;

use crate::tidy::{Complaint, Tree};

const DOCUMENT: &str = "docs/openapi.json";
const PAGE: &str = "docs/reference/http-api.md";

const HEAD: &str = "\
# Endpoints of the HTTP API

Every endpoint, made of [openapi.json](../openapi.json) by `cargo xtask docs`; what holds for all of them is in
[the HTTP API](../api.md). A running gateway shows the same at `/docs`, with the schema of each request and answer.
*Roles* open an endpoint, each by itself; `none` wants no access key. *Refusals* are codes of
[problems](../problems.md); 401, 403, 404 `not-found`, 405, 408, 413, 414, 415, 431 and `draining` are possible
everywhere, and are left out here, as are `ledger-unavailable` and `request-invalid`.
";

/// What may come everywhere, and tells nothing of one endpoint.
const EVERYWHERE: [&str; 11] = [
    "body-too-large",
    "draining",
    "forbidden",
    "ledger-unavailable",
    "media-type-unsupported",
    "method-not-allowed",
    "not-found",
    "operation-conflict",
    "request-invalid",
    "unauthenticated",
    "quarantine",
];

/// The page with its text, where there is a document.
pub(super) fn page(tree: &Tree) -> Result<Option<(String, String)>, Complaint> {
    let Some(document) = tree.text(DOCUMENT) else { return Ok(None) };
    let document: Value = serde_json::from_str(document)
        .map_err(|error| Complaint::new(DOCUMENT, error.line(), error.to_string()))?;
    let mut text = HEAD.to_owned();
    for part in document["tags"].as_array().into_iter().flatten() {
        let name = said(part, "name");
        let _ = writeln!(text, "\n## {name}\n\n{}.\n", said(part, "description"));
        text += "| endpoint | what it does | roles | refusals |\n| --- | --- | --- | --- |\n";
        for (path, methods) in document["paths"].as_object().into_iter().flatten() {
            for row in rows(&document, name, path, methods) {
                text += &row;
            }
        }
    }
    Ok(Some((PAGE.to_owned(), text)))
}

fn said<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_default()
}

/// A row for each operation of a path that belongs to a part; methods that say the same share one.
fn rows(document: &Value, part: &str, path: &str, methods: &Value) -> Vec<String> {
    let mut found: Vec<(String, String)> = Vec::new();
    for (method, operation) in methods.as_object().into_iter().flatten() {
        let is_here =
            operation["tags"].as_array().is_some_and(|tags| tags.iter().any(|tag| tag == part));
        if !is_here {
            continue;
        }
        let refusals: Vec<String> = codes(document, operation)
            .iter()
            .map(|code| format!("[`{code}`](../problems.md#{code})"))
            .collect();
        // What one method does, others do in the same words.
        let summary = said(operation, "summary");
        let summary = summary.strip_prefix(&method.to_uppercase()).unwrap_or(summary).trim();
        let rest = format!("{summary} | {} | {}", roles(operation), refusals.join(", "));
        let method = method.to_uppercase();
        match found.iter_mut().find(|(_, known)| *known == rest) {
            Some((methods, _)) => methods.extend([", ", &method]),
            None => found.push((method, rest)),
        }
    }
    found.into_iter().map(|(methods, rest)| format!("| {methods} `{path}` | {rest} |\n")).collect()
}

/// The roles that open it.
fn roles(operation: &Value) -> String {
    let mut roles = Vec::new();
    for choice in operation["security"].as_array().into_iter().flatten() {
        let of_choice = choice.as_object().into_iter().flatten();
        let named = of_choice.flat_map(|(_, roles)| roles.as_array().into_iter().flatten());
        for role in named.filter_map(Value::as_str) {
            if !roles.contains(&role) {
                roles.push(role);
            }
        }
    }
    match (roles.is_empty(), operation["security"].as_array().is_some_and(|all| !all.is_empty())) {
        (true, true) => "any".to_owned(),
        (true, false) => "none".to_owned(),
        _ => roles.join(", "),
    }
}

/// The codes that its refusals can have, but for those of [`EVERYWHERE`].
fn codes(document: &Value, operation: &Value) -> Vec<String> {
    let mut codes: Vec<String> = Vec::new();
    for (_, answer) in operation["responses"].as_object().into_iter().flatten() {
        let named =
            said(answer, "$ref").strip_prefix('#').and_then(|place| document.pointer(place));
        let of_answer = named.unwrap_or(answer)["x-onceward-codes"].as_array();
        for code in of_answer.into_iter().flatten().filter_map(Value::as_str) {
            if !EVERYWHERE.contains(&code) && !codes.iter().any(|known| known == code) {
                codes.push(code.to_owned());
            }
        }
    }
    codes.sort();
    codes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_that_say_the_same_share_a_row_with_their_roles_and_codes() {
        let document = r##"{"tags": [{"name": "Keys", "description": "Of keys"}],
            "paths": {"/k": {
                "get": {"tags": ["Keys"], "summary": "Look", "security": [{"a": ["read"]}, {"b": ["read"]}],
                        "responses": {"409": {"$ref": "#/components/responses/x"}}},
                "put": {"tags": ["Keys"], "summary": "Look", "security": [{"a": ["read"]}],
                        "responses": {"409": {"x-onceward-codes": ["limit", "forbidden"]}}},
                "post": {"tags": ["Other"], "summary": "No"}}},
            "components": {"responses": {"x": {"x-onceward-codes": ["limit"]}}}}"##;
        let (_, text) = page(&Tree::of(&[(DOCUMENT, document)])).unwrap().unwrap();
        let row = "| GET, PUT `/k` | Look | read | [`limit`](../problems.md#limit) |\n";
        assert!(text.ends_with(&format!("| --- | --- | --- | --- |\n{row}")), "{text}");
    }
}
