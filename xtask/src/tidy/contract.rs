//! What callers of an earlier release rely on: the document of the API against those that were frozen.
//!
//! A frozen document is a promise. What it lets a caller ask stays right, and what it says of an answer
//! stays true; a later document may let callers ask more, and tell them more. Everything else breaks
//! somebody, and is told with its place.

mod schema;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Complaint, Tree};
use crate::{Outcome, steps};
use schema::{Side, Walk};

/// The document of today.
const DOCUMENT: &str = "docs/openapi.json";

/// What a frozen document's name begins with; a year and a month follow.
const FROZEN: &str = "docs/openapi-";

const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// Complaints about whatever a frozen document promises and today's does not keep.
pub(super) fn check(tree: &Tree) -> Vec<Complaint> {
    let Some(today) = tree.text(DOCUMENT) else { return Vec::new() };
    let frozen = tree.texts(|path| path.strip_prefix(FROZEN).is_some_and(is_named));
    let mut complaints = Vec::new();
    for (file, text) in frozen {
        match (serde_json::from_str(text), serde_json::from_str(today)) {
            (Ok(before), Ok(after)) => {
                complaints.extend(broken(&before, &after).into_iter().map(|what| {
                    let mend = "keep it beside what is new, or let it be asked for in another way";
                    Complaint::new(DOCUMENT, 1, format!("{what}, which breaks {file}: {mend}"))
                }));
            }
            (Err(error), _) => {
                complaints.push(Complaint::new(file, error.line(), error.to_string()));
            }
            (_, Err(error)) => {
                complaints.push(Complaint::new(DOCUMENT, error.line(), error.to_string()));
            }
        }
    }
    complaints
}

/// Freezes the document of today under the name of a contract, a year and a month.
pub(crate) fn freeze(args: &[String]) -> Outcome<()> {
    let [name] = args else { return Err("freeze what? a year and a month, as in 2026-11".into()) };
    let file = format!("{FROZEN}{name}.json");
    if !is_named(&format!("{name}.json")) {
        return Err(format!("{name} is no year and month, as in 2026-11").into());
    }
    let place = steps::root().join(&file);
    if place.exists() {
        return Err(format!(
            "{file} is there: what callers rely on is written once, and kept\nmend: where that release is not out yet, remove it first"
        )
        .into());
    }
    std::fs::copy(steps::root().join(DOCUMENT), &place)?;
    println!("{file} is written: from now on `cargo xtask tidy` holds {DOCUMENT} to it");
    Ok(())
}

/// Whether a name is that of a contract: `2026-11.json`.
fn is_named(name: &str) -> bool {
    let Some((year, month)) = name.strip_suffix(".json").and_then(|name| name.split_once('-'))
    else {
        return false;
    };
    let is_digits =
        |text: &str, length| text.len() == length && text.bytes().all(|it| it.is_ascii_digit());
    is_digits(year, 4) && is_digits(month, 2) && ("01"..="12").contains(&month)
}

/// What `before` promises and `after` does not keep, each with its place.
fn broken(before: &Value, after: &Value) -> Vec<String> {
    let mut walk = Walk::new(before, after);
    schemes(&mut walk, before, after);
    let paths = by_shape(after);
    for (shape, (path, ways)) in by_shape(before) {
        let Some((renamed, others)) = paths.get(&shape) else {
            walk.say(path, "it is gone");
            continue;
        };
        for method in METHODS {
            let Some(way) = ways.get(method) else { continue };
            let place = format!("{} {path}", method.to_uppercase());
            match others.get(method) {
                None => walk.say(&place, "it is gone"),
                Some(today) => {
                    let (before, after) =
                        (Way::of(path, ways, way), Way::of(renamed, others, today));
                    operation(&mut walk, &place, &before, &after);
                }
            }
        }
    }
    walk.said
}

/// What a way in is written as: where its header is another, it is shut for all.
fn schemes(walk: &mut Walk<'_>, before: &Value, after: &Value) {
    let of = |document: &Value| document["components"]["securitySchemes"].clone();
    let (before, after) = (of(before), of(after));
    for (name, scheme) in before.as_object().into_iter().flatten() {
        let place = format!("security scheme {name}");
        let Some(now) = after.get(name) else {
            walk.say(&place, "it is gone");
            continue;
        };
        for how in ["type", "in", "scheme"] {
            if scheme[how] != now[how] {
                walk.say(&place, &format!("its {how} is another"));
            }
        }
        // A header's name has no case.
        let name_of = |it: &Value| it["name"].as_str().map(str::to_ascii_lowercase);
        if name_of(scheme) != name_of(now) {
            walk.say(&place, "its name is another");
        }
    }
}

/// How a parameter is written, where it does not say (OpenAPI 3.1, 4.8.12.2).
fn written(parameter: &Value, how: &str) -> Value {
    if !parameter[how].is_null() {
        return parameter[how].clone();
    }
    let is_form = |style: &Value| style == "form";
    let is_in_query = matches!(parameter["in"].as_str(), Some("query" | "cookie"));
    let usual = Value::from(if is_in_query { "form" } else { "simple" });
    match how {
        "style" => usual,
        _ => is_form(&written(parameter, "style")).into(),
    }
}

/// Paths by what they look like on the wire: what a part is called in the document does not go there.
fn by_shape(document: &Value) -> BTreeMap<String, (&str, &Value)> {
    let shape = |path: &str| {
        let parts = path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part });
        parts.collect::<Vec<_>>().join("/")
    };
    let paths = document["paths"].as_object().into_iter().flatten();
    paths.map(|(path, ways)| (shape(path), (path.as_str(), ways))).collect()
}

/// An operation where it stands.
struct Way<'a> {
    path: &'a str,
    ways: &'a Value,
    said: &'a Value,
}

impl<'a> Way<'a> {
    fn of(path: &'a str, ways: &'a Value, said: &'a Value) -> Self {
        Self { path, ways, said }
    }

    /// Its parameters by place and name; one in the path is named by where it stands there.
    fn parameters(&self, document: &'a Value) -> BTreeMap<(String, String), &'a Value> {
        let names: Vec<_> = self.path.split('/').filter(|part| part.starts_with('{')).collect();
        let both = [&self.ways["parameters"], &self.said["parameters"]];
        let all = both.into_iter().filter_map(Value::as_array).flatten();
        let keyed = all.map(|said| schema::resolved(document, said)).map(|parameter| {
            let (place, name) = (text(&parameter["in"]), text(&parameter["name"]));
            let name = match names.iter().position(|part| *part == format!("{{{name}}}")) {
                Some(at) if place == "path" => format!("{}. part", at + 1),
                // A header's name has no case.
                _ if place == "header" => name.to_lowercase(),
                _ => name.to_owned(),
            };
            ((place.to_owned(), name), parameter)
        });
        keyed.collect()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn operation(walk: &mut Walk<'_>, place: &str, before: &Way<'_>, after: &Way<'_>) {
    let (name, name_now) = (text(&before.said["operationId"]), text(&after.said["operationId"]));
    if name != name_now {
        walk.say(
            place,
            &format!("it is called {name_now:?} and was {name:?}: so are methods of clients"),
        );
    }
    security(walk, place, before.said, after.said);
    let parameters = before.parameters(walk.before);
    let parameters_now = after.parameters(walk.after);
    for ((within, name), parameter) in &parameters {
        let place = format!("{place}, {within} parameter {name}");
        let Some(now) = parameters_now.get(&(within.clone(), name.clone())) else {
            walk.say(&place, "it is gone");
            continue;
        };
        if now["required"] == true && parameter["required"] != true {
            walk.say(&place, "it is required now");
        }
        for how in ["style", "explode"] {
            if written(parameter, how) != written(now, how) {
                walk.say(&place, &format!("its {how} is another"));
            }
        }
        walk.schemas(Side::Asked, &place, &parameter["schema"], &now["schema"]);
    }
    let is_new = |key: &&(String, String)| !parameters.contains_key(*key);
    for key in parameters_now.keys().filter(is_new) {
        if parameters_now[key]["required"] == true {
            walk.say(&format!("{place}, {} parameter {}", key.0, key.1), "it is new, and required");
        }
    }
    body(walk, &format!("{place}, request"), before.said, after.said);
    responses(walk, place, before.said, after.said);
}

/// Each way in stays open; a way in is a key with its roles, or none.
fn security(walk: &mut Walk<'_>, place: &str, before: &Value, after: &Value) {
    let none = Vec::new();
    let ways = |said: &'_ Value, document: &'_ Value| {
        let own = said.get("security").or_else(|| document.get("security"));
        own.and_then(Value::as_array).unwrap_or(&none).clone()
    };
    let (before_ways, after_ways) = (ways(before, walk.before), ways(after, walk.after));
    let is_open = |ways: &[Value]| {
        ways.is_empty() || ways.iter().any(|way| way.as_object().is_some_and(Map::is_empty))
    };
    if is_open(&after_ways) {
        return;
    }
    if is_open(&before_ways) {
        walk.say(place, "it wants a key now");
    }
    for way in before_ways
        .iter()
        .filter(|way| !after_ways.contains(way) && **way != Value::Object(Map::new()))
    {
        walk.say(place, &format!("who comes by {way} is let in no more"));
    }
    if before["x-onceward-pages"] == true && after["x-onceward-pages"] != true {
        walk.say(place, "keys for web pages are let in no more");
    }
}

fn body(walk: &mut Walk<'_>, place: &str, before: &Value, after: &Value) {
    let body = schema::resolved(walk.before, &before["requestBody"]);
    let now = schema::resolved(walk.after, &after["requestBody"]);
    if now["required"] == true && body["required"] != true {
        walk.say(place, "a body is required now");
    }
    media(walk, Side::Asked, place, body, now);
}

fn responses(walk: &mut Walk<'_>, place: &str, before: &Value, after: &Value) {
    for (status, response) in before["responses"].as_object().into_iter().flatten() {
        let place = format!("{place}, answer {status}");
        let Some(now) = after["responses"].get(status) else {
            walk.say(&place, "it is gone");
            continue;
        };
        let response = schema::resolved(walk.before, response);
        let now = schema::resolved(walk.after, now);
        for (name, header) in response["headers"].as_object().into_iter().flatten() {
            let place = format!("{place}, header {name}");
            match now["headers"].get(name) {
                None => walk.say(&place, "it is gone"),
                Some(header_now) => {
                    let header = schema::resolved(walk.before, header);
                    let header_now = schema::resolved(walk.after, header_now);
                    walk.schemas(Side::Told, &place, &header["schema"], &header_now["schema"]);
                }
            }
        }
        media(walk, Side::Told, &place, response, now);
    }
}

fn media(walk: &mut Walk<'_>, side: Side, place: &str, before: &Value, after: &Value) {
    for (kind, said) in before["content"].as_object().into_iter().flatten() {
        let place = format!("{place}, {kind}");
        match after["content"].get(kind) {
            None => walk.say(&place, "it is gone"),
            Some(now) => walk.schemas(side, &place, &said["schema"], &now["schema"]),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document() -> Value {
        json!({
            "paths": {
                "/v1/things/{id}": {
                    "parameters": [{ "$ref": "#/components/parameters/id" }],
                    "get": {
                        "operationId": "getThing",
                        "security": [],
                        "x-onceward-pages": true,
                        "parameters": [
                            { "in": "query", "name": "limit", "schema": { "type": "integer", "maximum": 9 } },
                            { "in": "header", "name": "Onceward-Label", "schema": { "type": "string" } },
                        ],
                        "responses": {
                            "200": {
                                "headers": { "Location": { "schema": { "type": "string" } } },
                                "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Thing" } } },
                            },
                            "404": { "$ref": "#/components/responses/nothing" },
                        },
                    },
                    "post": {
                        "operationId": "writeThing",
                        "security": [{ "accessKey": ["operate"] }, { "ownHeader": ["operate"] }],
                        "requestBody": {
                            "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Thing" } } },
                        },
                        "responses": { "204": { "description": "Done" } },
                    },
                },
            },
            "components": {
                "securitySchemes": { "ownHeader": { "type": "apiKey", "in": "header", "name": "Onceward-Authorization" } },
                "parameters": { "id": { "in": "path", "name": "id", "required": true, "schema": { "type": "string" } } },
                "responses": { "nothing": { "content": { "application/problem+json": {} } } },
                "schemas": {
                    "Thing": {
                        "type": "object",
                        "properties": { "n": { "type": "integer" } },
                        "required": ["n"],
                    },
                },
            },
        })
    }

    const GET: &str = "/paths/~1v1~1things~1{id}/get";
    const POST: &str = "/paths/~1v1~1things~1{id}/post";

    fn at<'a>(document: &'a mut Value, pointer: &str) -> &'a mut Value {
        document.pointer_mut(pointer).unwrap()
    }

    fn take(document: &mut Value, pointer: &str, member: &str) {
        at(document, pointer).as_object_mut().unwrap().remove(member).unwrap();
    }

    #[track_caller]
    fn breaks(change: impl FnOnce(&mut Value), said: &str) {
        let (before, mut after) = (document(), document());
        change(&mut after);
        assert_eq!(broken(&before, &after), [said]);
    }

    #[track_caller]
    fn breaks_nothing(change: impl FnOnce(&mut Value)) {
        let (before, mut after) = (document(), document());
        change(&mut after);
        assert_eq!(broken(&before, &after), [] as [&str; 0]);
    }

    #[test]
    fn a_way_in_that_is_written_otherwise_breaks() {
        const SCHEMES: &str = "/components/securitySchemes";
        breaks(
            |it| at(it, SCHEMES)["ownHeader"]["name"] = "Onceward-Key".into(),
            "security scheme ownHeader: its name is another",
        );
        breaks(|it| take(it, SCHEMES, "ownHeader"), "security scheme ownHeader: it is gone");
        breaks_nothing(|it| {
            at(it, SCHEMES)["ownHeader"]["name"] = "onceward-authorization".into();
            at(it, SCHEMES)["ownHeader"]["description"] = "A key".into();
        });
    }

    #[test]
    fn the_same_document_breaks_nothing() {
        breaks_nothing(|_| {});
    }

    #[test]
    fn a_path_or_a_method_that_is_gone_breaks() {
        breaks(|it| take(it, "/paths", "/v1/things/{id}"), "/v1/things/{id}: it is gone");
        breaks(
            |it| take(it, "/paths/~1v1~1things~1{id}", "post"),
            "POST /v1/things/{id}: it is gone",
        );
    }

    #[test]
    fn what_is_new_breaks_nothing() {
        breaks_nothing(|it| it["paths"]["/v1/more"] = json!({ "get": {} }));
        breaks_nothing(|it| at(it, "/paths/~1v1~1things~1{id}")["put"] = json!({}));
        breaks_nothing(|it| at(it, GET)["responses"]["409"] = json!({}));
        breaks_nothing(|it| {
            let more = json!({ "in": "query", "name": "more", "schema": {} });
            at(it, GET)["parameters"].as_array_mut().unwrap().push(more);
        });
    }

    #[test]
    fn a_part_of_a_path_may_be_called_otherwise_and_an_operation_may_not() {
        breaks_nothing(|it| {
            let ways = at(it, "/paths/~1v1~1things~1{id}").take();
            it["paths"] = json!({ "/v1/things/{thing}": ways });
            at(it, "/components/parameters/id")["name"] = "thing".into();
        });
        breaks(
            |it| at(it, GET)["operationId"] = "readThing".into(),
            "GET /v1/things/{id}: it is called \"readThing\" and was \"getThing\": so are methods of clients",
        );
    }

    #[test]
    fn a_parameter_that_is_gone_or_required_or_narrower_breaks() {
        let limit = "GET /v1/things/{id}, query parameter limit";
        breaks(
            |it| drop(at(it, GET)["parameters"].as_array_mut().unwrap().remove(0)),
            &format!("{limit}: it is gone"),
        );
        breaks(
            |it| at(it, GET)["parameters"][0]["required"] = true.into(),
            &format!("{limit}: it is required now"),
        );
        breaks(
            |it| at(it, GET)["parameters"][0]["schema"]["maximum"] = 8.into(),
            &format!("{limit}: maximum is 8 and was 9"),
        );
        breaks(
            |it| at(it, GET)["parameters"][0]["explode"] = false.into(),
            &format!("{limit}: its explode is another"),
        );
        // What holds where nothing is said may be said.
        breaks_nothing(|it| {
            at(it, GET)["parameters"][0]["explode"] = true.into();
            at(it, GET)["parameters"][0]["style"] = "form".into();
        });
        breaks(
            |it| at(it, GET)["parameters"][1]["name"] = "Onceward-Word".into(),
            "GET /v1/things/{id}, header parameter onceward-label: it is gone",
        );
        breaks_nothing(|it| at(it, GET)["parameters"][1]["name"] = "onceward-label".into());
        breaks(
            |it| {
                let more = json!({ "in": "query", "name": "more", "required": true, "schema": {} });
                at(it, GET)["parameters"].as_array_mut().unwrap().push(more);
            },
            "GET /v1/things/{id}, query parameter more: it is new, and required",
        );
    }

    #[test]
    fn a_body_that_is_required_or_not_taken_breaks() {
        let request = "POST /v1/things/{id}, request";
        breaks(
            |it| at(it, POST)["requestBody"]["required"] = true.into(),
            &format!("{request}: a body is required now"),
        );
        breaks(
            |it| take(it, &format!("{POST}/requestBody/content"), "application/json"),
            &format!("{request}, application/json: it is gone"),
        );
    }

    #[test]
    fn an_answer_that_is_gone_or_says_less_breaks() {
        let answer = "GET /v1/things/{id}, answer";
        breaks(
            |it| take(it, &format!("{GET}/responses"), "404"),
            &format!("{answer} 404: it is gone"),
        );
        breaks(
            |it| take(it, &format!("{GET}/responses/200/headers"), "Location"),
            &format!("{answer} 200, header Location: it is gone"),
        );
        breaks(
            |it| {
                at(it, GET)["responses"]["200"]["headers"]["Location"]["schema"]["type"] =
                    "integer".into();
            },
            &format!("{answer} 200, header Location: it may be integer, which it was not"),
        );
        breaks(
            |it| take(it, "/components/responses/nothing/content", "application/problem+json"),
            &format!("{answer} 404, application/problem+json: it is gone"),
        );
    }

    #[test]
    fn whoever_was_let_in_is_let_in() {
        breaks(
            |it| at(it, GET)["security"] = json!([{ "accessKey": ["read"] }]),
            "GET /v1/things/{id}: it wants a key now",
        );
        breaks(
            |it| {
                at(it, POST)["security"] =
                    json!([{ "accessKey": ["admin"] }, { "ownHeader": ["operate"] }]);
            },
            "POST /v1/things/{id}: who comes by {\"accessKey\":[\"operate\"]} is let in no more",
        );
        breaks_nothing(|it| at(it, POST)["security"] = json!([]));
        breaks_nothing(|it| {
            at(it, POST)["security"].as_array_mut().unwrap().push(json!({ "cookie": [] }));
        });
    }

    #[test]
    fn a_schema_of_a_name_is_told_of_once_for_each_side() {
        let (before, mut after) = (document(), document());
        let thing = at(&mut after, "/components/schemas/Thing");
        thing["properties"] = json!({ "m": { "type": "integer" } });
        thing["required"] = json!(["m"]);
        assert_eq!(
            broken(&before, &after),
            [
                "schema Thing, answered: /n is gone",
                "schema Thing, asked: /n is gone",
                "schema Thing, asked: /m is required now",
            ]
        );
    }

    #[test]
    fn the_frozen_ones_are_found_by_name_and_held_to() {
        let mut after = document();
        take(&mut after, "/paths", "/v1/things/{id}");
        let (before, after) = (document().to_string(), after.to_string());
        let tree = Tree::of(&[
            ("docs/openapi.json", &after),
            ("docs/openapi-2026-11.json", &before),
            ("docs/openapi-draft.json", &before),
            ("docs/openapi-2027-13.json", &before),
        ]);
        let found = check(&tree);
        assert_eq!(found.len(), 1);
        assert!(
            found[0]
                .what
                .starts_with("/v1/things/{id}: it is gone, which breaks docs/openapi-2026-11.json")
        );
    }

    #[test]
    fn there_is_a_frozen_one_and_it_is_not_written_over() {
        let tree = Tree::read(&steps::root()).unwrap();
        assert!(tree.texts(|path| path.strip_prefix(FROZEN).is_some_and(is_named)).count() > 0);
        let refused = freeze(&["2026-11".to_owned()]).unwrap_err().to_string();
        assert!(refused.contains("is there"), "{refused}");
        assert!(freeze(&["first".to_owned()]).is_err() && freeze(&[]).is_err());
    }
}
