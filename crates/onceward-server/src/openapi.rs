//! The document of the HTTP API (OpenAPI 3.1), made of three tables: that of endpoints, which says paths,
//! roles and what each endpoint does; that of problems; and `components.yaml`, which has the schemas.

pub(crate) mod api;
mod described;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use onceward::problem::Problem;
use serde_json::{Map, Value, json};

pub(crate) use self::described::Described;

use self::described::{Body, Shape};
use crate::access::{CALL, Endpoint, METRICS, Roles, endpoints};
use crate::classify::read_document;

const COMPONENTS: &str = include_str!("openapi/components.yaml");

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";
const TEXT: &str = "text/plain";

/// The methods of a call: `ANY`, as a document says it.
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// Statuses that a code may have beside the table's.
const OTHERWISE: [(&str, &[u16]); 3] =
    [("key-mismatch", &[400, 422]), ("outcome-unknown", &[504]), ("limit", &[429])];

/// The same of what any address says, which is told of none.
const EVERYWHERE: (&str, &[u16]) = ("request-invalid", &[408, 414, 431]);

/// How every endpoint that asks for a key may refuse.
const OF_ALL: [&str; 4] = ["request-invalid", "unauthenticated", "forbidden", "ledger-unavailable"];

/// And one that reads a document.
const OF_READERS: [&str; 2] = ["body-too-large", "media-type-unsupported"];

const TAGS: [(&str, &str); 15] = [
    ("Calls", "Through a route, or to an ad hoc URL: the caller's own request"),
    ("Operations", "What is remembered of calls, and what a person does about one"),
    ("Keys", "Idempotency keys"),
    ("Claims", "The ledger as a service for somebody's own handlers"),
    ("Sagas", "Several effects in order, undone in reverse where one fails"),
    ("Routes", "What is configured, and what stands before each upstream"),
    ("Bulk", "Acts on all operations that match, or on those that are named"),
    ("Filters", "Filters of operations, saved under a name"),
    ("Events", "Facts that are published, and who is told of them"),
    ("Outbox", "Tables whose rows become operations"),
    ("Sources", "Where webhooks come in"),
    ("Alerts", "What is wrong, and who is told"),
    ("Ledger", "Counts, the audit, backups"),
    ("Access", "Access keys, and sessions of those who logged in"),
    ("Health", "Probes and metrics, and this document"),
];

const ABOUT: &str = "\
A gateway that makes HTTP side effects safe to retry: every post lands, once.

Any request may say `Onceward-Contract: 2026-11`, the version of all this that it wants, and is answered with it; another one is 400 \
`option-invalid`.

Every refusal is a problem (RFC 9457) with a `code` and an `advice`; the codes that a status can have stand \
with it (`x-onceward-codes`). Beside what is listed, any address may answer 414 or 431 where a request's head is \
too long, 405 where it takes another method, 503 `draining` while the process ends, and 404 `not-found` \
where nothing is. Requests are closed: an unknown member or word of a query is refused. Answers are \
open: a later release may add members. Times are RFC 3339 in UTC, and lists have `data` and `next`.

What each access key may do is listed with each endpoint: the roles in `security`, where a second choice \
means *about its own*; in `x-onceward-reach` how far a key comes with it that is confined to routes, or is \
another tenant's: the whole gateway (`gateway`) is told to neither, and what a route is for all who use it \
(`kept`) to a tenant that has it alone; and in `x-onceward-pages` whether a key for web pages may do it.";

static DOCUMENT: LazyLock<Value> = LazyLock::new(make);

/// The document.
pub(crate) fn document() -> &'static Value {
    &DOCUMENT
}

/// The document as text, as it is kept and served.
pub(crate) fn text() -> String {
    let mut text = serde_json::to_string_pretty(document()).unwrap_or_default();
    text.push('\n');
    text
}

/// The statuses that `code` may have at a call beside the table's.
pub(crate) fn statuses_beside(code: &str) -> &'static [u16] {
    let known = OTHERWISE.iter().chain([&EVERYWHERE]).find(|(known, _)| *known == code);
    known.map_or(&[], |(_, statuses)| statuses)
}

fn make() -> Value {
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for endpoint in endpoints().chain([&METRICS]) {
        for described in endpoint.described {
            let path = match described.word {
                Some((place, word)) => endpoint.path().replace(place, word),
                None => endpoint.path().to_owned(),
            };
            let operation = operation(endpoint, &path, described);
            paths.entry(path).or_default().insert(endpoint.method().to_lowercase(), operation);
        }
    }
    for (path, described) in [("/healthz", api::GET_HEALTH), ("/readyz", api::GET_READY)] {
        paths.entry(path.to_owned()).or_default().insert("get".to_owned(), open(&described));
    }
    for method in METHODS {
        let path = "/to/{route}/{path}".to_owned();
        paths.entry(path).or_default().insert(method.to_owned(), call(method));
    }
    paths.insert("/in/{source}".to_owned(), Map::from_iter([("post".to_owned(), webhook())]));
    let tags = TAGS.map(|(name, description)| json!({"name": name, "description": description}));
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Onceward",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:7077", "description": "Where `onceward serve` listens"}],
        "tags": tags,
        "security": security(Roles::NONE, false),
        "paths": paths,
        "components": components(),
    });
    share(&mut document);
    document
}

fn components() -> Value {
    let mut components = read_document(COMPONENTS).unwrap_or_default();
    let mut codes: Vec<_> = Problem::all().map(|(code, ..)| code).collect();
    codes.sort_unstable();
    components["schemas"]["ProblemCode"] =
        json!({"description": "What `type` ends in", "type": "string", "enum": codes});
    components
}

/// Who may: with a key in either header, the roles; or who may send, about its own.
fn security(roles: Roles, is_own: bool) -> Value {
    let mut choices = vec![roles];
    choices.extend(is_own.then_some(Roles::SEND));
    let ways = choices.into_iter().flat_map(|roles| {
        let names: Vec<_> = roles.names().collect();
        ["accessKey", "ownHeader"].map(|scheme| json!({scheme: names}))
    });
    Value::Array(ways.collect())
}

fn reference(kind: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{name}")})
}

/// What stands in the path, and what the query and the headers may say.
fn parameters(path: &str, described: &[&str]) -> Value {
    let within = |begin: &str| path.starts_with(begin);
    let in_path = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    let named = in_path.map(|name| match name {
        "key" if within("/v1/claims/") => "claimed",
        name => name,
    });
    named.chain(described.iter().copied()).map(|name| reference("parameters", name)).collect()
}

fn headers(names: &[&str]) -> Value {
    names.iter().map(|name| ((*name).to_owned(), reference("headers", name))).collect()
}

/// An endpoint of the API.
fn operation(endpoint: &Endpoint, path: &str, described: &Described) -> Value {
    let mut codes: BTreeSet<&str> = OF_ALL.into_iter().collect();
    codes.extend(described.refusals);
    let mut more = Vec::new();
    if !matches!(described.body, Body::None) {
        codes.extend(OF_READERS);
        more.push(("request-invalid", 408));
    }
    if endpoint.method() != "GET" {
        codes.insert("ledger-full");
    }
    if path.contains("{id}") {
        codes.insert("not-found");
    }
    if path.contains("{route}") {
        codes.insert("route-unknown");
    }
    let mut operation = said(described);
    operation["security"] = security(endpoint.roles(), endpoint.is_own());
    operation["x-onceward-reach"] = json!(endpoint.reach_name());
    operation["x-onceward-pages"] = json!(endpoint.is_for_pages());
    let tenant = endpoint.sees_tenants().then_some("tenant");
    let described_too: Vec<&str> = described.parameters.iter().copied().chain(tenant).collect();
    operation["parameters"] = parameters(path, &described_too);
    if let Body::Needed(schema) | Body::Perhaps(schema) = described.body {
        operation["requestBody"] = json!({
            "required": matches!(described.body, Body::Needed(_)),
            "content": {JSON: {"schema": reference("schemas", schema)}},
        });
    }
    refuse(&mut operation, &codes, &more, false);
    operation
}

/// An endpoint that asks for no key.
fn open(described: &Described) -> Value {
    let mut operation = said(described);
    operation["security"] = json!([]);
    refuse(&mut operation, &described.refusals.iter().copied().collect(), &[], false);
    operation
}

/// What is said of an endpoint, whoever asks.
fn said(described: &Described) -> Value {
    let answers = described.answers.iter().map(|(status, shape)| {
        let content = match shape {
            Shape::Json(schema) => json!({JSON: {"schema": reference("schemas", schema)}}),
            Shape::Lines => json!({"application/jsonl": {"schema": {"type": "string"}}}),
            Shape::Events => json!({"text/event-stream": {"schema": {"type": "string"}}}),
            Shape::Text => json!({TEXT: {"schema": {"type": "string"}}}),
            Shape::Metrics => json!({
                TEXT: {"schema": {"type": "string"}},
                "application/openmetrics-text": {"schema": {"type": "string"}},
            }),
        };
        let mut answer = json!({"description": reason(*status), "content": content});
        if !described.headers.is_empty() {
            answer["headers"] = headers(described.headers);
        }
        (status.to_string(), answer)
    });
    json!({
        "operationId": described.id,
        "tags": [described.tag],
        "summary": described.summary,
        "responses": answers.collect::<Map<_, _>>(),
    })
}

/// A call through a route: its answers are the upstream's, whatever they are.
fn call(method: &str) -> Value {
    // That is asked for before an API of one's own alone.
    let is_here = |code: &&str| *code != "reauthorize-failed";
    let codes: BTreeSet<&str> =
        Problem::of_calls().map(|(code, ..)| code).filter(is_here).collect();
    let mut operation = json!({
        "operationId": format!("{method}Through"),
        "tags": ["Calls"],
        "summary": format!("{} through a route", method.to_uppercase()),
        "description": "The answer is the upstream's, or one from memory. Methods that only read pass \
                        without a record. In the place of the route an ad hoc URL may stand, where it is open to callers.",
        "security": security(CALL.roles(), false),
        "x-onceward-reach": CALL.reach_name(),
        "x-onceward-pages": CALL.is_for_pages(),
        "parameters": parameters("/to/{route}/{path}", api::OPTIONS),
        "responses": {
            "default": {
                "description": "The upstream's answer; 202 with the operation where the call was accepted",
                "headers": headers(api::OF_CALL),
                "content": {"*/*": {}},
            },
        },
    });
    if !matches!(method, "get" | "head" | "trace") {
        operation["requestBody"] = json!({"required": false, "content": {"*/*": {}}});
    }
    refuse(&mut operation, &codes, &[("request-invalid", 408)], true);
    operation
}

/// What a provider sends: who sends it is shown by its signature.
fn webhook() -> Value {
    let mut operation = json!({
        "operationId": "receiveWebhook",
        "tags": ["Sources"],
        "summary": "Take a webhook: verified, remembered, and acknowledged at once",
        "security": [],
        "parameters": parameters("/in/{source}", &[]),
        "requestBody": {"required": false, "content": {"*/*": {}}},
        "responses": {
            "default": {
                "description": "Taken: as the source's configuration says",
                "headers": headers(&["Idempotent-Replayed", "Onceward-Operation", "Onceward-State"]),
                "content": {"*/*": {}},
            },
        },
    });
    let codes = BTreeSet::from([
        "webhook-rejected",
        "source-unknown",
        "body-too-large",
        "request-invalid",
        "method-not-allowed",
        "quarantine",
        "ledger-unavailable",
        "loop",
        "limit",
    ]);
    refuse(&mut operation, &codes, &[("request-invalid", 408), ("in-progress", 503)], true);
    operation
}

/// Adds refusals by their statuses. `is_passed`: an answer with that status may be somebody else's.
fn refuse(
    operation: &mut Value,
    codes: &BTreeSet<&str>,
    more: &[(&'static str, u16)],
    is_passed: bool,
) {
    let mut by_status: BTreeMap<u16, BTreeMap<&str, &str>> = BTreeMap::new();
    let otherwise = |code: &str| OTHERWISE.iter().find(|(known, _)| *known == code);
    for (code, status, _, title) in Problem::all() {
        let others = otherwise(code).map_or(&[][..], |(_, statuses)| statuses);
        let listed = codes.contains(code);
        let statuses = others.iter().copied().chain([status]).filter(|_| listed);
        let said = more.iter().filter(|(known, _)| *known == code).map(|(_, status)| *status);
        for status in statuses.chain(said) {
            by_status.entry(status).or_default().insert(code, title);
        }
    }
    for (status, codes) in by_status {
        let refused = refusal(status, &codes, is_passed);
        let known = &mut operation["responses"][status.to_string()];
        match known.get_mut("content") {
            // An answer with this status that is no refusal.
            Some(there) => there[PROBLEM] = refused["content"][PROBLEM].clone(),
            None => *known = refused,
        }
    }
}

fn refusal(status: u16, codes: &BTreeMap<&str, &str>, is_passed: bool) -> Value {
    let said: Vec<_> = codes.iter().map(|(code, title)| format!("`{code}`: {title}.")).collect();
    let mut content = json!({PROBLEM: {"schema": reference("schemas", "Problem")}});
    if is_passed {
        content["*/*"] = json!({});
    }
    let mut names = vec!["Onceward-Advice"];
    match status {
        401 => names.push("WWW-Authenticate"),
        405 => names.push("Allow"),
        409 | 429 | 503 | 504 | 507 => names.push("Retry-After"),
        _ => {}
    }
    json!({
        "description": said.join(" "),
        "headers": headers(&names),
        "content": content,
        "x-onceward-codes": codes.keys().collect::<Vec<_>>(),
    })
}

/// Gives what several endpoints answer alike a name, and a place among the components.
fn share(document: &mut Value) {
    let mut named: BTreeMap<String, (String, usize)> = BTreeMap::new();
    each_refusal(document, &mut |status, refusal| {
        let (_, uses) = named.entry(format!("{status} {refusal}")).or_insert_with(|| {
            let codes = refusal["x-onceward-codes"].as_array().map_or(&[][..], Vec::as_slice);
            // A name that stays when another endpoint comes.
            let codes: Vec<_> = codes.iter().filter_map(Value::as_str).collect();
            let passed = if refusal["content"].get("*/*").is_some() { "-passed" } else { "" };
            let name = format!("{status}-{}{passed}", codes.join("."));
            (name, 0)
        });
        *uses += 1;
    });
    let mut shared = Map::new();
    each_refusal(document, &mut |status, refusal| {
        let Some((name, 2..)) = named.get(&format!("{status} {refusal}")) else { return };
        shared.insert(name.clone(), refusal.take());
        *refusal = reference("responses", name);
    });
    document["components"]["responses"] = Value::Object(shared);
}

fn each_refusal(document: &mut Value, act: &mut dyn FnMut(&str, &mut Value)) {
    let methods = document["paths"].as_object_mut().into_iter().flat_map(Map::values_mut);
    let operations = methods.filter_map(Value::as_object_mut).flat_map(Map::values_mut);
    for operation in operations {
        let Some(responses) = operation["responses"].as_object_mut() else { continue };
        for (status, response) in responses {
            if response.get("x-onceward-codes").is_some() {
                act(status, response);
            }
        }
    }
}

/// What a status says of an answer.
fn reason(status: u16) -> &'static str {
    match status {
        201 => "Made",
        202 => "Accepted: it goes on by itself",
        503 => "Not now",
        _ => "Done",
    }
}

#[cfg(test)]
mod tests;
