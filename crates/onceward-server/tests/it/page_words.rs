//! What the pages say of what is not over, or only looks so: no word of theirs invites a wrong act.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without ends it")]

use serde_json::{Value, json};

use crate::callbacks::Hooks;
use crate::world::{Gateway, World, until};

const HTML: (&str, &str) = ("accept", "text/html");
const JSON: (&str, &str) = ("content-type", "application/json");
const ACCEPTED: (&str, &str) = ("prefer", "respond-async");

fn page(gateway: &Gateway, path: &str) -> String {
    let answer = gateway.call("GET", path, &[HTML], "");
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.text()
}

fn post(gateway: &Gateway, path: &str, document: &Value) -> Value {
    let answer = gateway.call("POST", path, &[JSON], &document.to_string());
    assert!(answer.status < 300, "{path}: {}", answer.text());
    answer.json()
}

/// Accepts a call with this key on the demo's upstream; its id.
fn accept(gateway: &Gateway, key: &str, script: &str, more: &[(&str, &str)]) -> String {
    let headers = [&[("idempotency-key", key), ACCEPTED], more].concat();
    let path = format!("/to/demo/orders?script={script}");
    let answer = gateway.call("POST", &path, &headers, "{}");
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.header("onceward-operation").unwrap().to_owned()
}

#[test]
fn a_claim_whose_holder_is_silent_is_not_said_to_be_unsent() {
    let world = World::new();
    let gateway = world.serve();
    post(&gateway, "/v1/claims/mails/k/begin", &json!({"lease": "200ms", "holder": "worker-7"}));
    gateway.until_state("k", "in_doubt");
    let list = page(&gateway, "/in-doubt");
    let row = list.split("<tbody>").nth(1).unwrap();
    assert!(row.contains("In hand of <bdi>worker-7</bdi>, who has not said how it ended"), "{row}");
    assert!(!row.contains("Not sent") && list.contains(">Begun</th>"), "{row}");
}

#[test]
fn what_waits_says_for_what_and_until_when() {
    let world = World::new();
    let gateway = world.serve();
    let later = accept(&gateway, "later", "201", &[("onceward-delay", "2h")]);
    let story = page(&gateway, &format!("/operations/{later}"));
    let advice = |story: &str| story.split("class=\"advice\">").nth(1).unwrap().to_owned();
    assert!(advice(&story).starts_with("Waits until "), "{}", advice(&story));
    assert!(story.contains(&format!("action=\"/operations/{later}/retry\"")), "{story}");
    let said = gateway.run(&["retry", &later, "--reason", "it is back"]).ok();
    assert!(said.contains(&later), "{said}");
    assert_eq!(gateway.until_state("later", "done")["acts"][0]["deed"], "retried");
    assert!(page(&gateway, "/audit").contains("retried"));
    gateway.run(&["retry", &later, "--reason", "again"]).failed(1);
    post(&gateway, "/v1/routes/demo/pause", &json!({"reason": "r"}));
    let barred = accept(&gateway, "barred", "201", &[]);
    let story = page(&gateway, &format!("/operations/{barred}"));
    let said = "Waits: a person paused <bdi>demo</bdi>.";
    assert!(advice(&story).starts_with(said), "{}", advice(&story));
    assert!(!story.contains("gateway is at it"), "{story}");
}

#[test]
fn a_bulk_tells_what_became_of_what_it_sent_off_and_is_found_again() {
    let world = World::new();
    let gateway = world.serve();
    for n in 0..3 {
        accept(&gateway, &format!("order-{n}"), if n == 0 { "404,201" } else { "404" }, &[]);
    }
    for n in 0..3 {
        gateway.until_state(&format!("order-{n}"), "dead");
    }
    assert!(page(&gateway, "/bulk").contains("No bulk is known."));
    let order =
        json!({"action": "redeliver", "reason": "it is back", "filter": {"state": "dead_letter"}});
    let id = post(&gateway, "/v1/bulk", &order)["id"].as_str().unwrap().to_owned();
    let shown = until("all of them have ended again", || {
        let shown = gateway.call("GET", &format!("/v1/bulk/{id}"), &[], "").json();
        let now = &shown["outcomes"];
        (shown["state"] == "done" && now["dead"] == 2 && now["done"] == 1).then_some(shown)
    });
    assert_eq!(
        (&shown["outcomes"]["exact"], &shown["outcomes"]["open"]),
        (&json!(true), &json!(0))
    );
    let told = page(&gateway, &format!("/bulk/{id}"));
    assert!(
        told.contains("3 of 3 sent off: <strong>1 done, 2 dead again</strong>, 0 under way"),
        "{told}"
    );
    assert!(told.contains("notice warn"), "what died again is no success: {told}");
    let rows = told.split("id=\"acted\"").nth(1).unwrap();
    let at = |key: &str| rows.find(key).unwrap_or_else(|| panic!("{key}: {rows}"));
    assert!(at("order-1") < at("order-0") && at("order-2") < at("order-0"), "{rows}");
    let list = page(&gateway, "/bulk");
    assert!(list.contains(&format!("/bulk/{id}")) && list.contains("went through"), "{list}");
    let said = gateway.run(&["bulk", "show", &id]).ok();
    assert!(said.contains("now 1 are done, 2 dead, 0 in doubt, 0 open"), "{said}");
}

#[test]
fn an_event_that_was_sent_off_is_not_said_to_be_delivered() {
    let (world, hooks) = (World::new(), Hooks::start());
    world.write("onceward.toml", "[egress]\nallow = [\"127.0.0.0/8\"]\n");
    let gateway = world.serve();
    let there = json!({"url": format!("http://{}/hooks", hooks.address), "description": "billing"});
    post(&gateway, "/v1/subscriptions", &there);
    // Nobody listens there.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    post(
        &gateway,
        "/v1/subscriptions",
        &json!({"url": format!("http://{gone}/hooks"), "types": ["order.*"]}),
    );
    post(&gateway, "/v1/events", &json!({"type": "order.paid"}));
    let id = post(&gateway, "/v1/events", &json!({"type": "user.made"}))["id"].clone();
    let list = until("one is delivered, and one to one of two", || {
        let list = page(&gateway, "/events");
        (list.contains("1 of 2 delivered") && list.contains("1 of 1 delivered")).then_some(list)
    });
    assert!(list.contains("1 waiting"), "{list}");
    let story = page(&gateway, &format!("/events/{}", id.as_str().unwrap()));
    assert!(story.contains("1 of 1 delivered") && story.contains(">billing<"), "{story}");
}

#[test]
fn who_asked_again_is_told_with_what_each_got() {
    let world = World::new();
    let gateway = world.serve();
    let call = |body: &str| {
        gateway.call("POST", "/to/demo/orders", &[("idempotency-key", "order-1")], body)
    };
    let id = call("{}").header("onceward-operation").unwrap().to_owned();
    for _ in 0..2 {
        assert_eq!(call("{}").status, 201);
    }
    assert_eq!(call("{\"other\": 1}").status, 409);
    gateway.call("POST", "/to/demo/orders", &[("idempotency-key", "order-2")], "{}");
    gateway.call("POST", "/to/demo/orders", &[("idempotency-key", "order-2")], "{}");
    let said = "<strong>3 times</strong>: 2 replayed, 1 refused as another request.";
    until("all are noted", || {
        page(&gateway, &format!("/operations/{id}")).contains(said).then_some(())
    });
    let among = page(&gateway, &format!("/duplicates?operation={id}"));
    assert!(among.contains("order-1") && !among.contains("order-2"), "{among}");
    let wrong = gateway.call("GET", "/duplicates?operation=x", &[HTML], "");
    assert_eq!(wrong.status, 400);
}

#[test]
fn a_field_of_the_filter_that_cannot_be_read_is_marked_and_the_form_stays() {
    let world = World::new();
    let gateway = world.serve();
    accept(&gateway, "order-1", "201", &[]);
    for (query, said, value) in [
        ("status=5x&text=order", "Last status</strong> cannot be", "value=\"5x\""),
        ("attempts_min=few&text=order", "Attempts, at least</strong> cannot be", "value=\"few\""),
        ("after=yesterday&text=order", "Since</strong> cannot be", "value=\"yesterday\""),
    ] {
        let answer = gateway.call("GET", &format!("/operations?{query}"), &[HTML], "");
        let shown = answer.text();
        assert_eq!(answer.status, 400, "{shown}");
        assert!(shown.contains(said) && shown.contains("aria-invalid=\"true\""), "{shown}");
        assert!(shown.contains(value) && shown.contains("value=\"order\""), "{shown}");
        assert!(!shown.contains("deserialize"), "{shown}");
    }
    gateway.until_state("order-1", "done");
    for (query, is_found) in
        [("status=2xx", true), ("status=5XX", false), ("attempts_min=2", false)]
    {
        let shown = page(&gateway, &format!("/operations?{query}"));
        assert_eq!(shown.contains(">order-1</a>"), is_found, "{query}: {shown}");
    }
    let steps = page(&gateway, "/operations?kind=step");
    assert!(
        steps.contains("Nothing matches") && steps.contains("selected>step of a saga"),
        "{steps}"
    );
}
