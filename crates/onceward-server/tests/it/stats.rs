//! What calls came to over time, as the API tells it.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::world::{Gateway, World, until};

fn send(gateway: &Gateway, key: &str) {
    let answer = gateway.call("POST", "/to/demo/orders", &[("idempotency-key", key)], "{}");
    assert_eq!(answer.status, 201, "{}", answer.text());
}

fn total(gateway: &Gateway, over: &str) -> Value {
    let answer = gateway.call("GET", &format!("/v1/stats?over={over}"), &[], "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["history"]["total"].clone()
}

#[test]
fn what_calls_came_to_is_told_over_each_span_and_over_a_restart() {
    let world = World::new();
    let gateway = world.serve();
    for key in ["a", "a", "b", "a"] {
        send(&gateway, key);
    }
    let dead = [("idempotency-key", "c"), ("prefer", "respond-async")];
    let answer = gateway.call("POST", "/to/demo/orders?script=400", &dead, "{}");
    assert_eq!(answer.status, 202, "{}", answer.text());
    gateway.until_state("c", "dead");
    // What came to rest may be counted after its answer.
    until("all is counted", || (total(&gateway, "1h")["dead_letters"] == 1).then_some(()));
    let told = total(&gateway, "24h");
    assert_eq!(told["operations"], 3);
    assert_eq!(told["duplicates"]["replayed"], 2);
    assert_eq!((&told["blocked"], &told["done"]), (&json!(2), &json!(2)));
    assert_eq!(told["statuses"], json!({"1xx": 0, "2xx": 2, "3xx": 0, "4xx": 1, "5xx": 0}));
    assert!(told["took"]["p50"].as_f64().unwrap() > 0.0, "{told}");
    gateway.signal(Signal::TERM);
    assert!(gateway.ended().success());
    let gateway = world.serve();
    for over in ["1h", "24h", "7d"] {
        assert_eq!(total(&gateway, over), told, "over {over}");
    }
    let stats = gateway.call("GET", "/v1/stats", &[], "").json();
    assert_eq!(stats["history"], Value::Null);
    assert_eq!(stats["keys"], json!({"kept": 3, "expiring": 0, "tombstones": 0}));
    assert_eq!((&stats["oldest_due"], &stats["oldest_in_doubt"]), (&Value::Null, &Value::Null));
    assert_eq!(stats["breakers_open"], json!([]));
}

#[test]
fn a_kill_loses_the_last_seconds_of_counts_at_most_and_never_makes_more_of_them() {
    let world = World::new();
    let gateway = world.serve();
    send(&gateway, "k");
    gateway.signal(Signal::TERM);
    assert!(gateway.ended().success());
    let (mut sent, mut least) = (0, 0);
    for _ in 0..4 {
        let gateway = world.serve();
        let kept = total(&gateway, "7d")["blocked"].as_u64().unwrap();
        assert!((least..=sent).contains(&kept), "{least} <= {kept} <= {sent}");
        least = kept;
        for _ in 0..5 {
            send(&gateway, "k");
            sent += 1;
            assert!(total(&gateway, "1h")["blocked"].as_u64().unwrap() <= sent);
        }
        let seen = total(&gateway, "1h")["blocked"].as_u64().unwrap();
        assert_eq!(seen, kept + 5, "this process counts all that it answered");
        gateway.kill();
    }
    let gateway = world.serve();
    let before = total(&gateway, "7d");
    send(&gateway, "k");
    gateway.signal(Signal::TERM);
    assert!(gateway.ended().success());
    let after = total(&world.serve(), "7d");
    let blocked = |counts: &Value| counts["blocked"].as_u64().unwrap();
    assert_eq!(blocked(&after), blocked(&before) + 1, "who ends in peace loses nothing");
    assert_eq!(after["operations"], 1);
}

#[test]
fn the_last_duplicates_are_told_page_by_page() {
    let world = World::new();
    let gateway = world.serve();
    for key in ["a", "b"] {
        for _ in 0..4 {
            send(&gateway, key);
        }
    }
    let mut told = Vec::new();
    let mut path = "/v1/duplicates?limit=4".to_owned();
    loop {
        let page = gateway.call("GET", &path, &[], "").json();
        told.extend(page["data"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/v1/duplicates?limit=4&cursor={next}");
    }
    assert_eq!(told.len(), 6, "{told:?}");
    assert!(told.iter().all(|one| one["answer"] == "replayed" && one["route"] == "demo"));
    assert_ne!(told[0]["operation"], told[5]["operation"]);
    assert!(told[0]["at"].as_str() >= told[5]["at"].as_str(), "the newest first");
    assert!(told[0]["after_seconds"].as_f64().unwrap() > 0.0);
    for wrong in ["/v1/stats?over=2h", "/v1/duplicates?cursor=x", "/v1/duplicates?limit=0"] {
        assert_eq!(gateway.call("GET", wrong, &[], "").status, 400, "{wrong}");
    }
}
