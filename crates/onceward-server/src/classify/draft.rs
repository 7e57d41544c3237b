//! A configuration made of what a document says, with the risk of each operation beside it.

use std::fmt::Write as _;

use onceward::core::upstream_key::KeyPlace;

use super::api::{Api, Operation, Risk};

/// Stands where a document does not say where its API is.
const SOMEWHERE: &str = "https://api.example.com";

/// The draft. Writing into a string does not fail, so results are passed over.
pub(super) fn draft(api: &Api, route: &str, upstream: Option<&str>) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "# A draft of {}: read it before you trust it.", line(&api.title));
    for note in &api.notes {
        let _ = writeln!(out, "# Not read: {}.", line(note));
    }
    let keyed: Vec<_> = sorted(api, |operation| operation.effects() == "keyed");
    let _ = writeln!(out, "\n[routes.{route}]");
    if upstream.is_none() {
        let _ = writeln!(out, "# The document does not say where it is.");
    }
    let _ = writeln!(out, "upstream = {}", quoted(upstream.unwrap_or(SOMEWHERE)));
    let _ = writeln!(out, "window = \"72h\" # how long your callers may ask again");
    let _ = writeln!(out, "# What no rule below names: a second arrival would be a second effect.");
    let _ = writeln!(out, "effects  = \"non-idempotent\"");
    write_keys(&mut out, &keyed);
    write_unkeyed(&mut out, api);
    for operation in keyed {
        write_keyed(&mut out, route, operation);
    }
    for method in ["PUT", "DELETE"] {
        write_idempotent(&mut out, route, api, method);
    }
    write_received(&mut out, api);
    out
}

/// Where the caller's key may stand, and how long it is tried with it.
fn write_keys(out: &mut String, keyed: &[&Operation]) {
    if keyed.is_empty() {
        return;
    }
    let mut headers = vec!["idempotency-key"];
    let mut pointers = Vec::new();
    for operation in keyed {
        match operation.key.as_ref().map(|key| &key.place) {
            Some(KeyPlace::Header(name)) if !headers.contains(&name.as_str()) => headers.push(name),
            Some(KeyPlace::Json(pointer)) if !pointers.contains(&pointer) => pointers.push(pointer),
            _ => {}
        }
    }
    let headers: Vec<_> = headers.into_iter().map(quoted).collect();
    let _ = write!(out, "key      = {{ headers = [{}]", headers.join(", "));
    if let [pointer] = pointers[..] {
        let _ = write!(out, ", json = {}", quoted(pointer));
    }
    let _ = writeln!(out, " }}");
    let _ = writeln!(
        out,
        "# How long a key is remembered is not in the document: a day is assumed, and attempts end before."
    );
    let _ = writeln!(out, "retry    = {{ horizon = \"19h\" }}");
}

/// What the route's own word is for: each with its risk, the highest first.
fn write_unkeyed(out: &mut String, api: &Api) {
    let mut unkeyed = sorted(api, |operation| operation.effects() == "non-idempotent");
    unkeyed.sort_by_key(|operation| std::cmp::Reverse(operation.risk()));
    if unkeyed.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "\n# In doubt where no answer comes. For each of these look for a key that it takes, or say that\n# repeating it is harmless; where it only reads, effects = \"idempotent\"."
    );
    for operation in unkeyed {
        let _ = writeln!(out, "#   {}", told(operation));
    }
}

fn write_keyed(out: &mut String, route: &str, operation: &Operation) {
    let Some(key) = &operation.key else { return };
    let (name, value) = match &key.place {
        KeyPlace::Header(name) => ("header", name),
        KeyPlace::Json(pointer) => ("json", pointer),
        KeyPlace::Query(name) => ("query", name),
    };
    write_rule(out, route, operation, "keyed");
    let _ = writeln!(out, "upstream_key = {{ {name} = {}, window = \"24h\" }}", quoted(value));
    if key.is_required || operation.is_payment() {
        let _ = writeln!(out, "key          = {{ missing = \"require\" }}");
    }
}

fn write_idempotent(out: &mut String, route: &str, api: &Api, method: &str) {
    let operations = sorted(api, |operation| operation.method == method);
    if operations.is_empty() {
        return;
    }
    let _ = writeln!(out);
    for operation in operations.iter().filter(|operation| operation.risk() > Risk::Low) {
        let _ = writeln!(out, "# {}", told(operation));
    }
    let _ = writeln!(out, "[[routes.{route}.rules]]");
    let _ = writeln!(out, "match   = \"{method} /**\"");
    let _ = writeln!(out, "effects = \"idempotent\"");
}

fn write_rule(out: &mut String, route: &str, operation: &Operation, effects: &str) {
    let matched = format!("{} {}", operation.method, operation.pattern());
    let _ = writeln!(out, "\n# {}", told(operation));
    let _ = writeln!(out, "[[routes.{route}.rules]]");
    let _ = writeln!(out, "match        = {}", quoted(&matched));
    let _ = writeln!(out, "effects      = \"{effects}\"");
}

/// What the API sends by itself is received by a source, not by a route.
fn write_received(out: &mut String, api: &Api) {
    let callbacks = api.operations.iter().flat_map(|operation| &operation.callbacks);
    let received: Vec<_> = api.webhooks.iter().chain(callbacks).map(|name| line(name)).collect();
    if !received.is_empty() {
        let names = received.join(", ");
        let _ = writeln!(out, "\n# It calls back, and that comes in elsewhere: {names}.");
    }
}

/// An operation in a line.
fn told(operation: &Operation) -> String {
    let (method, path) = (&operation.method, line(&operation.path));
    format!("{:<6} {method} {path}: {}", operation.risk().name(), operation.why().join("; "))
}

/// Operations so that a fixed segment stands before one that may be anything: the first rule that
/// matches holds.
fn sorted(api: &Api, wanted: impl Fn(&Operation) -> bool) -> Vec<&Operation> {
    let mut found: Vec<_> = api.operations.iter().filter(|operation| wanted(operation)).collect();
    found.sort_by_cached_key(|operation| {
        let pattern = operation.pattern();
        let segments = pattern.split('/').map(|segment| (segment == "*", segment.to_owned()));
        (segments.collect::<Vec<_>>(), operation.method.clone())
    });
    found
}

/// Text of the document in a line of ours.
fn line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(200).collect()
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
