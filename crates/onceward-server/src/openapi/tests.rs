use std::path::PathBuf;

use serde_json::Value;

use super::*;

/// Where the document is kept, so that a change of the API is seen in a diff.
fn kept() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json")
}

#[test]
fn the_document_that_is_kept_is_the_one_that_is_served() {
    let kept = std::fs::read_to_string(kept()).unwrap();
    assert!(
        kept == text(),
        "the API has changed: `cargo xtask openapi` writes docs/openapi.json anew"
    );
}

/// Every reference below `value`.
fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(to) if name == "$ref" => _ = found.insert(to),
                    value => references(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn everything_that_is_referred_to_is_there_and_nothing_else_is() {
    let document = document();
    let mut found = BTreeSet::new();
    references(document, &mut found);
    for to in &found {
        let place = to.strip_prefix('#').unwrap();
        assert!(document.pointer(place).is_some(), "{to} is nowhere");
    }
    for kind in ["schemas", "parameters", "headers"] {
        for name in document["components"][kind].as_object().unwrap().keys() {
            let place = format!("#/components/{kind}/{name}");
            assert!(found.contains(place.as_str()), "nobody refers to {place}");
        }
    }
}

fn operations() -> impl Iterator<Item = (&'static String, &'static String, &'static Value)> {
    let paths = document()["paths"].as_object().unwrap();
    paths.iter().flat_map(|(path, methods)| {
        methods.as_object().unwrap().iter().map(move |(method, said)| (path, method, said))
    })
}

#[test]
fn every_endpoint_is_described_once_and_names_what_its_path_has() {
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations() {
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id), "{id} is the name of two");
        let in_path =
            operation["parameters"].as_array().into_iter().flatten().filter(|parameter| {
                let place = parameter["$ref"].as_str().unwrap().strip_prefix('#').unwrap();
                let parameter = document().pointer(place).unwrap();
                let is_there =
                    path.contains(&format!("{{{}}}", parameter["name"].as_str().unwrap()));
                assert_eq!(parameter["in"] == "path", is_there, "{method} {path}: {parameter}");
                is_there
            });
        assert_eq!(in_path.count(), path.matches('{').count(), "{method} {path}");
        let tag = operation["tags"][0].as_str().unwrap();
        assert!(TAGS.iter().any(|(name, _)| *name == tag), "{id}: {tag}");
    }
    let described: usize = endpoints().map(|endpoint| endpoint.described.len()).sum();
    // Metrics, two probes, calls and webhooks stand outside the table.
    assert_eq!(ids.len(), described + 1 + 2 + METHODS.len() + 1);
}

#[test]
fn every_code_that_is_named_is_one_of_the_table() {
    let known: BTreeSet<_> = Problem::all().map(|(code, ..)| code).collect();
    let named = endpoints().flat_map(|endpoint| endpoint.described).flat_map(|it| it.refusals);
    for code in named.chain(api::OF_CALLS).chain(&OF_ALL).chain(&OF_READERS) {
        assert!(known.contains(code), "{code}");
    }
}
