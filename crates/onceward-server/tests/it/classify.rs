//! `classify`: from the document of an API to a configuration that `check` accepts.

#![expect(clippy::unwrap_used, reason = "a failed expectation fails the test")]

use serde_json::Value;

use crate::world::World;

const SHOP: &str = r##"
openapi: 3.1.0
info: {title: "Shop & Co: the API", version: "1"}
servers:
  - url: https://{region}.shop.example/v1/
    variables: {region: {default: eu}}
paths:
  /orders:
    get: {operationId: listOrders}
    post:
      operationId: createOrder
      parameters: [{$ref: "#/components/parameters/Key"}]
      callbacks: {onPaid: {}}
  /orders/{id}:
    parameters: [{name: id, in: path, required: true}]
    put: {operationId: replaceOrder}
    delete: {operationId: dropOrder}
    patch: {operationId: changeOrder}
  /orders/search:
    patch:
      parameters: [{name: idempotencyToken, in: query}]
  /orders/{id}/payments:
    post:
      requestBody:
        content:
          application/json:
            schema: {$ref: "#/components/schemas/Payment"}
  /emails:
    post: {operationId: sendEmail}
  /tags:
    post: {operationId: addTag}
  /elsewhere:
    $ref: other.yaml
webhooks:
  orderPaid: {}
components:
  parameters:
    Key: {name: Idempotency-Key, in: header, required: true}
  schemas:
    Payment:
      allOf:
        - type: object
          required: [idempotency_key]
          properties: {idempotency_key: {type: string}, amount: {type: integer}}
"##;

fn operation<'a>(table: &'a Value, method: &str, path: &str) -> &'a Value {
    let operations = table["operations"].as_array().unwrap();
    let is_it = |row: &&Value| row["method"] == method && row["path"] == path;
    operations.iter().find(is_it).unwrap_or_else(|| panic!("{method} {path}: {table}"))
}

#[test]
fn each_operation_has_its_effects_its_key_and_its_risk() {
    let world = World::new();
    world.write("shop.yaml", SHOP);
    let table = world.run(&["classify", "shop.yaml", "--json"]).json();
    assert_eq!(table["route"], "shop-co-the-api");
    assert_eq!(table["upstream"], "https://eu.shop.example/v1");
    for (method, path, effects, place, risk) in [
        ("GET", "/orders", "safe", None, "none"),
        ("POST", "/orders", "keyed", Some("idempotency-key"), "medium"),
        ("PUT", "/orders/{id}", "idempotent", None, "medium"),
        ("PATCH", "/orders/{id}", "non-idempotent", None, "high"),
        ("PATCH", "/orders/search", "keyed", Some("?idempotencyToken"), "medium"),
        ("POST", "/orders/{id}/payments", "keyed", Some("/idempotency_key"), "medium"),
        ("POST", "/emails", "non-idempotent", None, "high"),
        ("POST", "/tags", "non-idempotent", None, "medium"),
    ] {
        let row = operation(&table, method, path);
        assert_eq!(
            (row["effects"].as_str(), row["risk"].as_str()),
            (Some(effects), Some(risk)),
            "{row}"
        );
        assert_eq!(row["key"]["place"].as_str(), place, "{row}");
        assert!(!row["why"].as_array().unwrap().is_empty(), "{row}");
    }
    assert_eq!(operation(&table, "POST", "/orders")["key"]["required"], true);
    assert_eq!(operation(&table, "POST", "/orders")["callbacks"][0], "onPaid");
    assert_eq!(table["webhooks"][0], "orderPaid");
    assert!(table["notes"][0].as_str().unwrap().contains("/elsewhere"));
}

#[test]
fn the_draft_is_a_configuration_that_check_accepts() {
    let world = World::new();
    world.write("shop.yaml", SHOP);
    let draft = world.run(&["classify", "shop.yaml", "--name", "shop"]).ok();
    world.write("onceward.toml", &format!("strict = true\n{draft}"));
    let checked = world.run(&["check", "--json"]).json();
    let rules: Vec<_> = checked["effects"].as_array().unwrap().iter().collect();
    let effects = |matched: &str| {
        let row = rules.iter().find(|row| row["match"] == matched);
        row.map(|row| row["effects"].as_str().unwrap())
    };
    assert_eq!(effects("POST /orders"), Some("keyed"));
    assert_eq!(effects("POST /orders/*/payments"), Some("keyed"));
    assert_eq!(effects("PUT /**"), Some("idempotent"));
    assert_eq!(effects("* /**"), Some("non-idempotent"));
    for words in ["high   POST /emails", "orderPaid, onPaid", "read it before you trust it"] {
        assert!(draft.contains(words), "{words}\n{draft}");
    }
    let fixed = draft.find("\"PATCH /orders/search\"").unwrap();
    assert!(fixed < draft.find("\"POST /orders/*/payments\"").unwrap(), "a fixed segment is first");
    let mut document: Value = serde_json::json!({"swagger": "2.0", "info": {"title": "Ö"}});
    document["paths"]["/a b/{c}"]["post"] = serde_json::json!({"operationId": "x\ny"});
    world.write("old.json", &document.to_string());
    let draft = world.run(&["classify", "old.json"]).ok();
    world.write("onceward.toml", &draft);
    assert_eq!(world.run(&["check", "--json"]).json()["warnings"], serde_json::json!([]));
    assert!(
        draft.contains("does not say where it is") && draft.contains("[routes.api]"),
        "{draft}"
    );
}

#[test]
fn what_is_no_such_document_is_said_with_its_mend() {
    let world = World::new();
    world.write("no.yaml", "a: [1,\nb: 2");
    world.write("other.json", "{\"a\": 1}");
    assert!(world.run(&["classify", "no.yaml"]).failed(1).contains("help: give the API's OpenAPI"));
    assert!(world.run(&["classify", "other.json"]).failed(1).contains("neither `openapi`"));
    assert!(world.run(&["classify", "nowhere.yaml"]).failed(3).contains("nowhere.yaml"));
    world.write("shop.yaml", SHOP);
    let refused = world.run(&["classify", "shop.yaml", "--upstream", "shop"]).failed(1);
    assert!(refused.contains("--upstream shop"), "{refused}");
}
