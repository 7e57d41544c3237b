//! Somebody's data is erased: nothing of it is in any file of the ledger, and its keys are refused.

use rustix::process::Signal;
use serde_json::json;

use crate::world::{Gateway, Response, Upstream, World, is_in_a_file, route, until};

const JSON: (&str, &str) = ("content-type", "application/json");

/// Of the person whose data goes.
const CANARY: &str = "canary-of-jane-doe";

fn send(gateway: &Gateway, key: &str, subject: &str, of: &str) -> Response {
    let headers = [
        ("idempotency-key", key),
        ("onceward-subject", subject),
        ("onceward-label", of),
        ("x-person", of),
        JSON,
    ];
    gateway.call("POST", &format!("/to/pay/x?of={of}"), &headers, &json!({"of": of}).to_string())
}

fn world() -> (World, Upstream) {
    let (world, upstream) = (World::new(), Upstream::answering(Some(201)));
    let more = "ids = { of = \"/of\" }\n";
    world.write("onceward.toml", &format!("{}{more}", route("pay", upstream.address)));
    (world, upstream)
}

#[test]
fn what_is_erased_is_in_no_file_and_a_late_duplicate_is_refused() {
    let (world, upstream) = world();
    let gateway = world.serve();
    for n in 0..20 {
        assert_eq!(send(&gateway, &format!("j-{n}"), "jane", CANARY).status, 201);
        assert_eq!(send(&gateway, &format!("o-{n}"), "other", "kept-of-another").status, 201);
    }
    let id = gateway.until_state("j-1", "done")["id"].as_str().unwrap_or_default().to_owned();
    gateway.run(&["forget", "pay", "j-1", "--reason", "she asked"]).ok();
    let folder = world.path("onceward-data");
    assert!(is_in_a_file(&folder, CANARY), "it is there before");
    let plan = gateway.run(&["erase", "--subject", "jane", "--dry-run"]).ok();
    assert_eq!(plan, "20\twould be erased\n");
    assert_eq!(send(&gateway, "j-2", "jane", CANARY).header("idempotent-replayed"), Some("true"));
    let done = gateway
        .run(&["erase", "--subject", "jane", "--yes", "--reason", "article 17, case 4"])
        .ok();
    assert_eq!(done, "20\terased\n");
    let late = send(&gateway, "j-2", "jane", CANARY);
    assert_eq!((late.status, &late.json()["code"]), (410, &json!("key-invalidated")));
    assert!(late.text().contains("article 17"), "{}", late.text());
    let shown = gateway.run(&["show", &id, "--json"]).ok();
    assert!(!shown.contains(CANARY) && shown.contains("article 17"), "{shown}");
    assert_eq!(
        gateway.run(&["erase", "--subject", "jane", "--yes", "--reason", "r"]).ok(),
        "0\terased\n"
    );
    assert_eq!(
        send(&gateway, "o-2", "other", "kept-of-another").header("idempotent-replayed"),
        Some("true")
    );
    assert_eq!(upstream.calls(), 40);
    assert!(!is_in_a_file(&folder, CANARY), "while the gateway runs");
    gateway.signal(Signal::TERM);
    gateway.ended();
    world.run(&["check", "--ledger"]).ok();
    world.run(&["audit", "verify", "--ledger"]).ok();
    let gateway = world.serve();
    let late = send(&gateway, "j-3", "jane", "nobody");
    assert_eq!((late.status, upstream.calls()), (410, 40));
    assert_eq!(
        gateway.run(&["show", &id, "--json"]).json()["acts"].as_array().map(Vec::len),
        Some(1)
    );
}

#[test]
fn no_byte_of_what_is_erased_is_left_in_any_file_while_others_go_on() {
    let (world, upstream) = world();
    let gateway = world.serve();
    for round in 0..3 {
        upstream.set(503);
        // It is tried again, and each time kept anew.
        let key = format!("j-{round}");
        let headers = [
            ("idempotency-key", key.as_str()),
            ("prefer", "respond-async"),
            ("onceward-subject", "jane"),
            ("onceward-label", CANARY),
            JSON,
        ];
        let body = json!({"of": CANARY, "round": round}).to_string();
        assert_eq!(gateway.call("POST", "/to/pay/x", &headers, &body).status, 202);
    }
    let refused =
        gateway.run(&["erase", "--subject", "jane", "--yes", "--reason", "r", "--json"]).json();
    assert_eq!(refused["operations"], 0, "what has not ended stays: {refused}");
    assert_eq!(refused["open_count"], 3);
    upstream.set(201);
    for round in 0..3 {
        gateway.until_state(&format!("j-{round}"), "done");
        send(&gateway, &format!("o-{round}"), "other", "kept-of-another");
    }
    let folder = world.path("onceward-data");
    let done =
        gateway.run(&["erase", "--subject", "jane", "--yes", "--reason", "r", "--json"]).json();
    assert_eq!((&done["operations"], &done["open_count"]), (&json!(3), &json!(0)));
    assert!(!is_in_a_file(&folder, CANARY), "while the gateway runs");
    assert!(is_in_a_file(&folder, "kept-of-another"), "only what was meant");
    let replayed = send(&gateway, "o-1", "other", "kept-of-another");
    assert_eq!(replayed.header("idempotent-replayed"), Some("true"), "{replayed:?}");
    gateway.kill();
    world.run(&["check", "--ledger"]).ok();
    assert!(!is_in_a_file(&folder, CANARY), "after a crash");
}

#[test]
fn what_is_killed_in_the_midst_of_erasing_goes_on_with_the_next_start() {
    let (world, _upstream) = world();
    let mut gateway = world.serve();
    for n in 0..60 {
        send(&gateway, &format!("j-{n}"), "jane", CANARY);
    }
    let (_asking, ..) = gateway.start(&["erase", "--subject", "jane", "--yes", "--reason", "r"]);
    // As soon as the first of them is erased.
    until("it has begun", || {
        let shown = gateway.call("GET", "/v1/audit?limit=1", &[], "").json();
        (shown["data"][0]["deed"] == "erased").then_some(())
    });
    gateway.kill();
    world.run(&["check", "--ledger"]).ok();
    gateway = world.serve();
    // What was not begun is erased by asking again.
    gateway.run(&["erase", "--subject", "jane", "--yes", "--reason", "r"]).ok();
    assert!(!is_in_a_file(&world.path("onceward-data"), CANARY));
    for n in 0..60 {
        assert_eq!(send(&gateway, &format!("j-{n}"), "jane", "x").status, 410, "{n}");
    }
}

#[test]
fn one_key_and_all_of_a_caller_are_erased_too() {
    let (world, _upstream) = world();
    let gateway = world.serve();
    let made = gateway.run(&["access", "create", "ada", "--json"]).json();
    let bearer = format!("Bearer {}", made["key"].as_str().unwrap_or_default());
    let post = |key: &str| {
        let headers = [("onceward-authorization", bearer.as_str()), ("idempotency-key", key), JSON];
        gateway.call("POST", "/to/pay/x", &headers, &json!({"of": CANARY}).to_string())
    };
    for key in ["a", "b", "c"] {
        assert_eq!(post(key).status, 201);
    }
    let one = ["erase", "--key", "pay", "a", "--of", "ada", "--yes", "--reason", "r"];
    assert_eq!(gateway.run(&one).ok(), "1\terased\n");
    assert_eq!((post("a").status, post("b").status), (410, 201));
    assert_eq!(
        gateway.run(&["erase", "--principal", "ada", "--yes", "--reason", "r"]).ok(),
        "2\terased\n"
    );
    assert_eq!(post("b").status, 410);
    assert!(!is_in_a_file(&world.path("onceward-data"), CANARY));
    gateway.run(&["erase", "--key", "pay", "none", "--yes", "--reason", "r"]).failed(3);
    gateway.run(&["erase", "--reason", "r"]).failed(2);
    gateway.run(&["erase", "--subject", "x"]).failed(2);
}
