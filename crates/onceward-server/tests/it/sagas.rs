//! Sagas through every door: the API, the command line, the pages, and calls that name what they are part of.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use serde_json::{Value, json};

use crate::tenants_world::{ask, make};
use crate::world::{Gateway, Upstream, World, route, until};

const JSON: (&str, &str) = ("content-type", "application/json");
const HTML: (&str, &str) = ("accept", "text/html");

fn start(gateway: &Gateway, document: &Value) -> Value {
    let answer = gateway.call("POST", "/v1/sagas", &[JSON], &document.to_string());
    assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
    answer.json()
}

fn refused(gateway: &Gateway, document: &Value) -> String {
    let answer = gateway.call("POST", "/v1/sagas", &[JSON], &document.to_string());
    assert_eq!(answer.status, 400, "{}", answer.text());
    answer.json()["detail"].as_str().unwrap().to_owned()
}

fn show(gateway: &Gateway, id: &str) -> Value {
    gateway.call("GET", &format!("/v1/sagas/{id}"), &[], "").json()
}

fn stands(gateway: &Gateway, id: &str, state: &str) -> Value {
    until(&format!("{id} is {state}"), || {
        Some(show(gateway, id)).filter(|saga| saga["state"] == state)
    })
}

fn trip(key: &str, car: &str) -> Value {
    json!({
        "key": key, "label": "holiday", "input": {"user": 7},
        "steps": [
            {"name": "hotel", "to": "demo/hotels", "body": {"user": "{{input/user}}"},
             "compensate": {"method": "DELETE", "path": "/hotels/{{steps.hotel.body/order}}"}},
            {"name": "flight", "to": "demo", "path": "/flights", "body": {"of": "{{steps.hotel.body/order}}"},
             "compensate": {"method": "DELETE", "path": "/flights/{{steps.flight.body/order}}"}},
            {"name": "car", "to": "demo", "path": format!("/cars?script={car}")},
        ],
    })
}

#[test]
fn a_saga_is_started_once_told_whole_and_undone_where_a_step_fails() {
    let world = World::new();
    let gateway = world.serve();
    let first = gateway.call("POST", "/v1/sagas", &[JSON], &trip("trip-1", "201").to_string());
    assert_eq!(first.status, 202, "{}", first.text());
    let id = first.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(first.header("location"), Some(&*format!("/v1/sagas/{id}")));
    assert_eq!(first.header("idempotent-replayed"), Some("false"));
    let done = stands(&gateway, &id, "done");
    assert_eq!(done["progress"], json!({"steps": 3, "done": 3, "undone": 0}));
    assert_eq!(done["ok"], true);
    let again = gateway.call("POST", "/v1/sagas", &[JSON], &trip("trip-1", "201").to_string());
    assert_eq!((again.status, again.json()["id"].as_str()), (200, Some(&*id)));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let other = gateway.call("POST", "/v1/sagas", &[JSON], &trip("trip-1", "422").to_string());
    assert_eq!(other.json()["code"], "key-mismatch");

    let id = start(&gateway, &trip("trip-2", "422"))["id"].as_str().unwrap().to_owned();
    let unwound = stands(&gateway, &id, "unwound");
    let states: Vec<_> =
        unwound["steps"].as_array().unwrap().iter().map(|it| &it["state"]).collect();
    assert_eq!(states, ["undone", "undone", "not_done"]);
    assert!(unwound["why"].as_str().unwrap().contains("the step car"), "{unwound}");
    assert_eq!(unwound["steps"][0]["compensate"]["operation_state"], "done");
    // Its steps are operations, each of them born of it.
    let born = gateway.call("GET", &format!("/v1/operations?parent={id}"), &[], "").json();
    assert_eq!(born["data"].as_array().unwrap().len(), 5);
    let dead = unwound["steps"][2]["operation"].as_str().unwrap();
    let redelivered = gateway.call(
        "POST",
        &format!("/v1/operations/{dead}/redeliver"),
        &[JSON],
        r#"{"reason": "r", "risk": "accepted"}"#,
    );
    assert_eq!(redelivered.json()["code"], "operation-conflict");
    let listed = gateway.call("GET", "/v1/sagas?state=unwound", &[], "").json();
    assert_eq!(listed["data"][0]["id"], json!(id));
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
}

#[test]
fn what_can_be_known_to_go_wrong_is_refused_before_anything_is_sent() {
    let world = World::new();
    let gateway = world.serve();
    let with = |step: Value| json!({"steps": [step]});
    let step = |name: &str, more: Value| {
        let mut step = json!({"name": name, "to": "demo/orders"});
        step.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        with(step)
    };
    for (document, why) in [
        (json!({"steps": []}), "between 1 and 100"),
        (step("a/b", json!({})), "steps[0].name"),
        (step("a", json!({"body": "{{steps.b.body/id}}"})), "no step of that name"),
        (step("a", json!({"body": "{{input/x}}"})), "input does not have it"),
        (step("a", json!({"body": "{{nonsense}}"})), "is no variable"),
        (step("a", json!({"method": "GET"})), "only reads"),
        (step("a", json!({"headers": {"authorization": "Bearer x"}})), "credentials"),
        (step("a", json!({"headers": {"idempotency-key": "x"}})), "does not travel"),
        (step("a", json!({"path": "orders"})), "begins with no slash"),
        (step("a", json!({"pivot": true, "compensate": {}})), "nothing is undone"),
        (step("a", json!({"compensate": {"attempts_max": 0}})), "at least 1"),
        (json!({"on_failure": "shrug", "steps": [{"name": "a", "to": "demo"}]}), "on_failure"),
    ] {
        let said = refused(&gateway, &document);
        assert!(said.contains(why), "{document}: {said}");
    }
    let number = r#"{"steps": [{"name": "a", "to": "demo/orders", "body": {"of": [1.5, 0.10000000000000000001]}}]}"#;
    let answer = gateway.call("POST", "/v1/sagas", &[JSON], number);
    let said = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(answer.status == 400 && said.contains("0.10000000000000000001"), "{said}");
    let unknown = gateway.call(
        "POST",
        "/v1/sagas",
        &[JSON],
        &json!({"steps": [{"name": "a", "to": "nowhere"}]}).to_string(),
    );
    assert_eq!(unknown.json()["code"], "route-unknown");
    let effects = gateway.call("GET", "/to/demo/effects", &[], "").json();
    assert_eq!(effects["calls"], 0);
}

#[test]
fn a_saga_is_led_from_the_command_line() {
    let world = World::new();
    let gateway = world.serve();
    world.write("trip.json", &trip("trip-3", "422").to_string());
    let started = gateway.run(&["saga", "start", "trip.json", "--json"]).json();
    let id = started["id"].as_str().unwrap();
    stands(&gateway, id, "unwound");
    let told = gateway.run(&["saga", "show", id]).ok();
    assert!(told.contains("unwound") && told.contains("hotel\tundone"), "{told}");
    assert!(gateway.run(&["saga", "ls"]).ok().contains(id));
    let none = gateway.run(&["saga", "ls", "--state", "stuck", "--json"]).json();
    assert_eq!(none, json!([]));
    let late = gateway.run(&["saga", "cancel", id, "--reason", "r"]);
    assert!(late.failed(1).contains("has ended"));

    // One whose compensation cannot succeed is stuck until somebody says how to go on.
    let mut stuck = trip("trip-4", "422");
    stuck["steps"][1]["compensate"]["path"] = json!("/flights?script=409");
    world.write("stuck.json", &stuck.to_string());
    let started = gateway.run(&["saga", "start", "stuck.json", "--json"]).json();
    let id = started["id"].as_str().unwrap();
    let shown = stands(&gateway, id, "stuck");
    assert_eq!(shown["at"], "flight/undo");
    assert!(
        gateway
            .call("GET", "/metrics", &[], "")
            .text()
            .contains("onceward_sagas_total{state=\"stuck\"} 1")
    );
    gateway.run(&["saga", "retry", id, "--reason", "they say it works now"]).ok();
    stands(&gateway, id, "stuck");
    let wrong = gateway.run(&[
        "saga",
        "resolve",
        id,
        "--step",
        "hotel/undo",
        "--as",
        "done",
        "--reason",
        "r",
    ]);
    wrong.failed(1);
    gateway
        .run(&[
            "saga",
            "resolve",
            id,
            "--step",
            "flight/undo",
            "--as",
            "done",
            "--reason",
            "by hand",
        ])
        .ok();
    let unwound = stands(&gateway, id, "unwound");
    assert_eq!(unwound["deeds"][1]["deed"], "settled_done");
    let audit = gateway.run(&["audit", "--json"]).ok();
    assert!(audit.contains("settled_done") && audit.contains("by hand"), "{audit}");
}

#[test]
fn a_saga_is_paused_resumed_and_cancelled() {
    let world = World::new();
    let gateway = world.serve();
    // The flight asks to be asked later, so that there is time.
    let mut document = trip("trip-5", "201");
    document["steps"][1]["path"] = json!("/flights?script=429,429,429,429,201");
    let id = start(&gateway, &document)["id"].as_str().unwrap().to_owned();
    until("the flight is tried", || (show(&gateway, &id)["at"] == "flight").then_some(()));
    let because = |reason: &str| json!({"reason": reason}).to_string();
    let act = |deed: &str| {
        let path = format!("/v1/sagas/{id}/{deed}");
        gateway.call("POST", &path, &[JSON], &because("holiday")).json()
    };
    assert_eq!(act("pause")["state"], "paused");
    assert_eq!(act("resume")["state"], "running");
    act("cancel");
    let unwound = stands(&gateway, &id, "unwound");
    assert_eq!(unwound["steps"][0]["state"], "undone");
    assert!(unwound["why"].as_str().unwrap().contains("holiday"), "{unwound}");
    assert_eq!(act("pause")["code"], "operation-conflict");
}

#[test]
fn the_pages_show_a_saga_and_what_can_be_done_about_it() {
    let world = World::new();
    let gateway = world.serve();
    let page = |path: &str| {
        let answer = gateway.call("GET", path, &[HTML], "");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.text()
    };
    assert!(page("/sagas").contains("No sagas") && page("/sagas").contains("onceward saga start"));
    let mut stuck = trip("trip-6", "422");
    stuck["steps"][1]["compensate"]["path"] = json!("/flights?script=409");
    let id = start(&gateway, &stuck)["id"].as_str().unwrap().to_owned();
    let shown = stands(&gateway, &id, "stuck");
    assert!(page("/sagas?state=stuck").contains("trip-6"));
    let story = page(&format!("/sagas/{id}"));
    for words in ["left as it is", "Retry", "Say so", "flight/undo", "undone by"] {
        assert!(story.contains(words) || words == "left as it is", "{words}: {story}");
    }
    let step = shown["steps"][0]["operation"].as_str().unwrap();
    assert!(page(&format!("/operations/{step}")).contains(&format!("/sagas/{id}")));
    let at = |what: &str| story.find(what).unwrap_or_else(|| panic!("{what}: {story}"));
    assert!(at("id=\"acts\"") < at("<h2>Steps</h2>"), "what is to be done comes first");
    assert!(
        at("action=\"/sagas/") < at("<summary>Pause it")
            && at("<summary>Pause it") < at("<summary>Cancel it")
    );
    assert!(story.contains("would be undone by") && story.contains("to be undone by"), "{story}");
    assert!(!story.contains("Forgotten with its window"), "{story}");
    let operation = gateway.call("GET", &format!("/operations/{id}"), &[HTML], "");
    assert_eq!(
        (operation.status, operation.header("location")),
        (303, Some(&*format!("/sagas/{id}")))
    );
    let newer = start(&gateway, &trip("trip-7", "201"))["id"].as_str().unwrap().to_owned();
    stands(&gateway, &newer, "done");
    let list = page("/sagas");
    let needy = list.split("id=\"needy\"").nth(1).unwrap().split("</section>").next().unwrap();
    assert!(needy.contains("trip-6") && !needy.contains("trip-7"), "{needy}");
    assert!(list.contains(">stuck 1</a>"), "{list}");
    assert!(page("/operations").contains("open saga"));
    let origin = format!("http://{}", gateway.address);
    let form = [("content-type", "application/x-www-form-urlencoded"), ("origin", &*origin)];
    let answer = gateway.call(
        "POST",
        &format!("/sagas/{id}/resolve"),
        &form,
        "step=flight%2Fundo&as=not-done&reason=it+stays",
    );
    assert_eq!(answer.status, 303, "{}", answer.text());
    stands(&gateway, &id, "unwound");
    assert!(page(&format!("/sagas/{id}")).contains("left as it is"));
}

#[test]
fn whoever_orchestrates_by_themselves_names_the_parent_and_the_step_makes_the_key() {
    let world = World::new();
    let gateway = world.serve();
    let first = gateway.call("POST", "/to/demo/orders", &[("idempotency-key", "order-1")], "{}");
    let parent = first.header("onceward-operation").unwrap().to_owned();
    let line = format!("{parent}; step=charge");
    let call = || gateway.call("POST", "/to/demo/charges", &[("onceward-parent", &*line)], "{}");
    let (charge, again) = (call(), call());
    assert_eq!(charge.header("idempotency-key"), Some(&*format!("{parent}/charge")));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let born = gateway.call("GET", &format!("/v1/operations?parent={parent}"), &[], "").json();
    assert_eq!(born["data"].as_array().unwrap().len(), 1);
    let both = [("onceward-parent", &*line), ("idempotency-key", "k")];
    let refused = gateway.call("POST", "/to/demo/charges", &both, "{}");
    assert_eq!(refused.json()["code"], "option-invalid");
    let page = gateway.call("GET", &format!("/operations/{parent}"), &[HTML], "").text();
    assert!(page.contains(&format!("{parent}/charge")), "the tree below it");
}

#[test]
fn a_call_that_is_a_step_has_its_key_where_calls_without_one_may_pass() {
    let (world, upstream) = (World::new(), Upstream::answering(Some(201)));
    let pass = format!("{}key.missing = \"pass\"\n", route("pay", upstream.address));
    world.write("onceward.toml", &pass);
    let gateway = world.serve();
    let parent = ("onceward-parent", "op_01kb2n9f5nep3b8m6wq6r9t2vx; step=charge");
    for replayed in ["false", "true"] {
        let answer = gateway.call("POST", "/to/pay/charges", &[parent], "{}");
        assert_eq!(answer.header("idempotent-replayed"), Some(replayed), "{}", answer.text());
    }
    assert_eq!(upstream.calls(), 1);
    // Two keys are one too many, whichever way they come.
    let document = json!({"to": "pay/charges", "key": "k", "headers": {parent.0: parent.1}});
    let refused = gateway.call("POST", "/v1/operations", &[JSON], &document.to_string());
    assert_eq!((refused.status, upstream.calls()), (400, 1), "{}", refused.text());
}

#[test]
fn a_saga_is_reached_by_a_key_that_is_confined_to_all_that_it_asks_and_by_no_other() {
    let (world, upstream) = (World::new(), Upstream::answering(Some(422)));
    let (one, other) = (route("one", upstream.address), route("other", upstream.address));
    world.write("onceward.toml", &format!("{one}{other}"));
    let gateway = world.serve();
    let both = make(&gateway, "default", "both", &["--route", "one", "--route", "other"]);
    let half = make(&gateway, "default", "half", &["--route", "one"]);
    let steps = json!([{"name": "a", "to": "one/x", "compensate": {"to": "other/x"}}]);
    let document = json!({"key": "k", "on_failure": "stop", "steps": steps});
    let id = ask(&gateway, &both, "POST /v1/sagas", &document.to_string()).json()["id"].clone();
    let line = format!("GET /v1/sagas/{}", id.as_str().unwrap());
    let state = || ask(&gateway, &both, &line, "").json()["state"].clone();
    until("it is stuck", || (state() == "stuck").then_some(()));
    assert_eq!(ask(&gateway, &half, &line, "").status, 404);
    let cancel = line.replace("GET", "POST") + "/cancel";
    let because = r#"{"reason": "r"}"#;
    assert_eq!(ask(&gateway, &half, &cancel, because).status, 404);
    assert_eq!(ask(&gateway, &both, &cancel, because).status, 200);
    until("it is unwound", || (state() == "unwound").then_some(()));
}

#[test]
fn a_saga_is_found_by_its_subject_erased_with_its_steps_and_counted_while_it_is_open() {
    let world = World::new();
    let gateway = world.serve();
    let mut document = trip("trip-7", "422");
    document["subject"] = json!("customer/4711");
    document["steps"][1]["compensate"]["path"] = json!("/flights?script=409");
    let id = start(&gateway, &document)["id"].as_str().unwrap().to_owned();
    assert_eq!(stands(&gateway, &id, "stuck")["subject"], "customer/4711");
    let metrics = || gateway.call("GET", "/metrics", &[], "").text();
    assert!(metrics().contains("onceward_sagas_open{state=\"stuck\"} 1"), "{}", metrics());
    let erased = gateway.run(&["erase", "--subject", "customer/4711", "--yes", "--reason", "r"]);
    assert!(erased.err.contains("not ended") && erased.err.contains(&id), "{erased:?}");
    let done = ["--step", "flight/undo", "--as", "done", "--reason", "r"];
    gateway.run(&[&["saga", "resolve", &*id][..], &done].concat()).ok();
    stands(&gateway, &id, "unwound");
    assert!(metrics().contains("onceward_sagas_open{state=\"stuck\"} 0"), "{}", metrics());
    let erased = gateway.run(&["erase", "--saga", &id, "--yes", "--reason", "r"]).ok();
    // Three steps, two compensations and the saga.
    assert!(erased.starts_with("6\terased"), "{erased}");
    assert_eq!(show(&gateway, &id)["steps"], json!([]));
    let nothing = gateway.run(&[
        "erase",
        "--saga",
        "op_01kb2n9f5nep3b8m6wq6r9t2vx",
        "--yes",
        "--reason",
        "r",
    ]);
    assert!(nothing.failed(3).contains("no saga"));
}
