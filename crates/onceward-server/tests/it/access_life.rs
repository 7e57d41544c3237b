//! The life of an access key: it is made, used, rotated, expires and is mistyped.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::world::{Gateway, Response, World, until};

fn ask(gateway: &Gateway, key: &str, method: &str, path: &str, also: &[(&str, &str)]) -> Response {
    let bearer = format!("Bearer {key}");
    let headers = [&[("onceward-authorization", &*bearer)], also].concat();
    gateway.call(method, path, &headers, "")
}

fn make(gateway: &Gateway, arguments: &[&str]) -> (String, Value) {
    let made = gateway.run(&[&["access"], arguments, &["--json"]].concat()).json();
    (made["key"].as_str().expect("a key").to_owned(), made)
}

fn listed(gateway: &Gateway, prefix: &str) -> Value {
    let keys = gateway.run(&["access", "ls", "--json"]).json();
    let found = keys.as_array().expect("a list").iter().find(|key| key["prefix"] == prefix);
    found.unwrap_or_else(|| panic!("{prefix}: {keys}")).clone()
}

/// Why a key is refused.
fn refusal(gateway: &Gateway, key: &str) -> String {
    let refused = ask(gateway, key, "GET", "/v1/operations", &[]);
    assert_eq!(refused.status, 401);
    refused.json()["detail"].as_str().expect("a detail").to_owned()
}

#[test]
fn a_key_is_refused_once_it_has_expired_and_opens_nothing_by_that() {
    let world = World::new();
    let gateway = world.serve();
    let (key, made) = make(&gateway, &["create", "ada", "--expires", "3s"]);
    let prefix = made["prefix"].as_str().unwrap();
    assert_eq!(ask(&gateway, &key, "GET", "/v1/operations", &[]).status, 200);
    until("the key has expired", || {
        (ask(&gateway, &key, "GET", "/v1/operations", &[]).status == 401).then_some(())
    });
    let why = refusal(&gateway, &key);
    assert!(why.contains("expired") && why.contains(made["expires_at"].as_str().unwrap()), "{why}");
    let shown = listed(&gateway, prefix);
    assert_eq!(shown["expired"], true);
    assert_eq!(gateway.call("GET", "/v1/operations", &[], "").status, 401, "a key is needed still");
    gateway.kill();
    let gateway = world.serve();
    assert!(refusal(&gateway, &key).contains("expired"));
}

#[test]
fn what_a_key_is_made_for_is_checked_shown_and_in_the_audit() {
    let world = World::new();
    let gateway = world.serve();
    for (wrong, says) in [
        (&["--role", "sned"][..], "\"sned\""),
        (&["--expires", "2020-01-31"], "not to come"),
        (&["--expires", "soon"], "90d"),
        (&["--expires", "0s"], "not to come"),
    ] {
        let said = gateway.run(&[&["access", "create", "ada"], wrong].concat()).failed(1);
        assert!(said.contains(says), "{said}");
    }
    let said = gateway.run(&["access", "create", "local"]).failed(1);
    assert!(said.contains("needs no key"), "{said}");
    let options = ["--role", "send", "--role", "read", "--route", "pay", "--expires", "2999-01-31"];
    let (key, made) = make(&gateway, &[&["create", "ada", "--reason", "r"][..], &options].concat());
    let prefix = made["prefix"].as_str().unwrap();
    assert!(key.starts_with(prefix), "{made}");
    let shown = listed(&gateway, prefix);
    assert_eq!(shown["roles"], json!(["send", "read"]));
    assert_eq!(shown["routes"], json!(["pay"]));
    assert_eq!(shown["expires_at"], "2999-01-31T00:00:00.000Z");
    assert_eq!((&shown["expired"], &shown["last_used_at"]), (&json!(false), &Value::Null));
    assert!(shown.get("hash").is_none() && shown.get("key").is_none());
    let (_, all) = make(&gateway, &["create", "bo"]);
    assert_eq!(all["roles"], json!(["send", "read", "payloads", "operate", "admin"]));
    let lines = gateway.run(&["access", "list"]).ok();
    let first: Vec<&str> = lines.lines().next().unwrap().split('\t').collect();
    assert_eq!((first[0], first[1], first[3], first[4]), ("ada", prefix, "send,read", "pay"));
    let audit = gateway.run(&["audit"]).ok();
    let about = "ada, roles: send, read, routes: pay, expires: 2999-01-31T00:00:00.000Z\tr";
    assert!(audit.contains(about), "{audit}");
    assert!(!audit.contains(&key));
}

#[test]
fn after_a_rotation_both_keys_are_one_caller_until_the_overlap_is_over() {
    let world = World::new();
    let gateway = world.serve();
    let (old, made) = make(&gateway, &["create", "ada", "--role", "send", "--route", "demo"]);
    let prefix = made["prefix"].as_str().unwrap();
    let post =
        |key: &str| ask(&gateway, key, "POST", "/to/demo/orders", &[("idempotency-key", "k")]);
    let first = post(&old);
    assert_eq!((first.status, first.header("idempotent-replayed")), (201, Some("false")));
    let (new, rotated) = make(&gateway, &["rotate", prefix]);
    assert_eq!(rotated["name"], "ada");
    for member in ["roles", "routes"] {
        assert_eq!(rotated[member], made[member], "{member}");
    }
    assert_eq!(
        (&rotated["expires_at"], &rotated["replaces"]["prefix"]),
        (&Value::Null, &json!(prefix))
    );
    assert_eq!(listed(&gateway, prefix)["expires_at"], rotated["replaces"]["expires_at"]);
    for key in [&old, &new] {
        let again = post(key);
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
        assert_eq!((again.status, again.body), (201, first.body.clone()), "the same bytes");
    }
    let second = rotated["prefix"].as_str().unwrap();
    let (third, _) = make(&gateway, &["rotate", second, "--overlap", "0s", "--expires", "90d"]);
    assert!(refusal(&gateway, &new).contains("expired"));
    assert_eq!(post(&third).body, first.body);
    assert_eq!(post(&old).body, first.body, "it has its own overlap");
    gateway.run(&["access", "rotate", "ow_nobodys1"]).failed(3);
    let audit = gateway.run(&["audit"]).ok();
    assert!(
        audit.contains(&format!("rotated an access key\tada ({prefix}), overlap: 1d")),
        "{audit}"
    );
}

#[test]
fn a_key_with_an_end_is_rotated_into_one_that_lives_as_long() {
    let world = World::new();
    let gateway = world.serve();
    let (_, made) = make(&gateway, &["create", "ada", "--expires", "2d"]);
    let (_, rotated) =
        make(&gateway, &["rotate", made["prefix"].as_str().unwrap(), "--overlap", "9d"]);
    let lives = |key: &Value| {
        let [from, until] = ["created_at", "expires_at"]
            .map(|member| key[member].as_str().unwrap().parse::<jiff::Timestamp>().unwrap());
        until.as_second() - from.as_second()
    };
    assert_eq!(lives(&rotated), lives(&made));
    assert_eq!(
        rotated["replaces"]["expires_at"], made["expires_at"],
        "an overlap prolongs nothing"
    );
}

#[test]
fn a_mistyped_key_is_told_from_an_unknown_one() {
    let world = World::new();
    let gateway = world.serve();
    let (key, made) = make(&gateway, &["create", "ada"]);
    let cut = &key[..key.len() - 1];
    let last = if key.ends_with('A') { "B" } else { "A" };
    for slip in [cut, &format!("{cut}{last}"), "ow_wrong"] {
        assert!(refusal(&gateway, slip).contains("mistyped"), "{slip}");
    }
    gateway.run(&["access", "revoke", made["prefix"].as_str().unwrap()]).ok();
    make(&gateway, &["create", "bo"]);
    assert!(refusal(&gateway, &key).contains("not known"));
}

#[test]
fn when_a_key_was_last_used_is_shown_and_outlives_a_restart() {
    let world = World::new();
    let gateway = world.serve();
    let (key, made) = make(&gateway, &["create", "ada"]);
    let prefix = made["prefix"].as_str().unwrap();
    assert_eq!(listed(&gateway, prefix)["last_used_at"], Value::Null);
    assert_eq!(ask(&gateway, &key, "GET", "/v1/operations", &[]).status, 200);
    let used = listed(&gateway, prefix)["last_used_at"].clone();
    assert!(used.as_str() >= made["created_at"].as_str(), "{used}");
    gateway.signal(Signal::TERM);
    assert!(gateway.ended().success());
    let gateway = world.serve();
    assert_eq!(listed(&gateway, prefix)["last_used_at"], used);
    assert_eq!(ask(&gateway, &key, "GET", "/v1/operations", &[]).status, 200);
    gateway.run(&["access", "revoke", prefix]).ok();
    assert_eq!(gateway.run(&["access", "ls"]).ok(), "");
}
