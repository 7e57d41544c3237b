//! The official libraries of Standard Webhooks and this gateway take each other's signatures, and
//! refuse the same forgeries.

#![expect(clippy::unwrap_used, reason = "a failed expectation fails the test")]

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::callbacks::{Hooks, SECRET, configure};
use crate::sdks_world::{Language, Script};
use crate::world::{Upstream, World, until};

const PYTHON: &str = include_str!("../sdks/webhooks.py");
const NODE: &str = include_str!("../sdks/webhooks.mjs");

fn what_we_sign_is_accepted(language: Language) {
    let Some(mut script) = Script::start(language, PYTHON, NODE) else { return };
    let (world, hooks) = (World::new(), Hooks::start());
    let upstream = Upstream::answering(Some(201));
    configure(&world, upstream.address);
    let gateway = world.serve();
    let url = format!("http://{}/told", hooks.address);
    let headers = [("idempotency-key", "k-1"), ("onceward-callback", url.as_str())];
    assert_eq!(gateway.call("POST", "/to/a/x", &headers, "the body").status, 201);
    let told = until("it is told", || hooks.told().into_iter().next());
    let asked = |body: &[u8]| {
        json!({
            "do": "verify", "secret": SECRET, "headers": told.headers, "body": STANDARD.encode(body),
        })
    };
    assert_eq!(script.ask(&asked(&told.body)), json!({"verified": true}));
    let forged = [told.body.as_slice(), b" "].concat();
    assert_eq!(script.ask(&asked(&forged))["verified"], false);
}

fn what_they_sign_is_accepted(language: Language) {
    let Some(mut script) = Script::start(language, PYTHON, NODE) else { return };
    let world = World::new();
    let upstream = Upstream::answering(Some(200));
    let text = format!(
        "[sources.theirs]\nverify = {{ scheme = \"standard-webhooks\", secret = \"{SECRET}\" }}\n\
         deliver = \"http://{}/hooks\"\n",
        upstream.address
    );
    world.write("onceward.toml", &text);
    let gateway = world.serve();
    let body = r#"{"type":"contact.created","data":{"id":"1f81eb52","name":"Grüße"}}"#;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut send = |id: &str, timestamp: u64, sent: &str| {
        let asked = json!({
            "do": "sign", "secret": SECRET, "id": id, "timestamp": timestamp,
            "body": STANDARD.encode(body),
        });
        let signed: Value = script.ask(&asked);
        let timestamp = timestamp.to_string();
        let headers = [
            ("content-type", "application/json"),
            ("webhook-id", id),
            ("webhook-timestamp", timestamp.as_str()),
            ("webhook-signature", signed["signature"].as_str().unwrap()),
        ];
        gateway.call("POST", "/in/theirs", &headers, sent).status
    };
    let is_accepted = |status| (200..300).contains(&status);
    assert!(is_accepted(send("msg_1", now, body)));
    assert!(is_accepted(send("msg_1", now, body)), "a duplicate is accepted, too");
    assert_eq!(send("msg_2", now, &format!("{body} ")), 400, "the body was changed");
    assert_eq!(send("msg_3", now - 600, body), 400, "it is too old");
    assert_eq!(send("msg_4", now + 600, body), 400, "it is of a time to come");
    gateway.until_state("msg_1", "done");
    assert_eq!(upstream.calls(), 1, "what was refused is not delivered, and a duplicate neither");
}

fn what_we_tell_of_alerts_is_accepted(language: Language) {
    let Some(mut script) = Script::start(language, PYTHON, NODE) else { return };
    let (world, hooks) = (World::new(), Hooks::start());
    let text = format!(
        "[alerts.to.oncall]\nwebhook = \"http://{}/told\"\nsecret = \"{SECRET}\"\n",
        hooks.address
    );
    world.write("onceward.toml", &text);
    let gateway = world.serve();
    gateway.run(&["alerts", "test", "oncall"]).ok();
    let told = until("it is told", || hooks.told().into_iter().next());
    let mut is_accepted = |body: &[u8]| {
        let asked = json!({
            "do": "verify", "secret": SECRET, "headers": told.headers, "body": STANDARD.encode(body),
        });
        script.ask(&asked)["verified"] == true
    };
    assert!(is_accepted(&told.body));
    assert!(!is_accepted(&[told.body.as_slice(), b" "].concat()));
}

fn what_we_deliver_of_events_is_accepted(language: Language) {
    let Some(mut script) = Script::start(language, PYTHON, NODE) else { return };
    let (world, hooks) = (World::new(), Hooks::start());
    world.write("onceward.toml", "[egress]\nallow = [\"127.0.0.0/8\"]\n");
    let gateway = world.serve();
    let url = format!("http://{}/hooks", hooks.address);
    let create = ["subscriptions", "create", &url, "--secret", SECRET, "--json"];
    let id = gateway.run(&create).json()["id"].as_str().unwrap().to_owned();
    gateway.run(&["publish", "order.paid", "--data", "{\"name\": \"Grüße\"}"]).ok();
    let rotated = gateway.run(&["subscriptions", "rotate", &id, "--json"]).json();
    gateway.run(&["publish", "order.paid", "--data", "{\"name\": \"Grüße\"}"]).ok();
    let cloud = r#"{"specversion":"1.0","id":"1","source":"/shop","type":"order.paid"}"#;
    let headers = [("content-type", "application/cloudevents+json")];
    assert_eq!(gateway.call("POST", "/v1/events", &headers, cloud).status, 202);
    let told = until("all are told", || Some(hooks.told()).filter(|told| told.len() == 3));
    let mut is_accepted = |secret: &str, of: usize, body: &[u8]| {
        let asked = json!({
            "do": "verify", "secret": secret, "headers": told[of].headers,
            "body": STANDARD.encode(body),
        });
        script.ask(&asked)["verified"] == true
    };
    let newer = rotated["secret"].as_str().unwrap();
    // While they overlap each verifies what was sent since the rotation.
    for (of, one) in told.iter().enumerate() {
        let is_rotated = one.headers["webhook-signature"].contains(' ');
        assert!(is_accepted(SECRET, of, &one.body));
        assert_eq!(is_accepted(newer, of, &one.body), is_rotated);
        assert!(!is_accepted(SECRET, of, &[one.body.as_slice(), b" "].concat()));
    }
    let rotated = told.iter().filter(|one| one.headers["webhook-signature"].contains(' ')).count();
    assert!(rotated >= 2, "{rotated}");
}

macro_rules! with_both {
    ($($name:ident),+ $(,)?) => {
        mod in_python { use super::*; $(#[test] fn $name() { super::$name(Language::Python); })+ }
        mod in_node { use super::*; $(#[test] fn $name() { super::$name(Language::Node); })+ }
    };
}

with_both!(
    what_we_sign_is_accepted,
    what_they_sign_is_accepted,
    what_we_tell_of_alerts_is_accepted,
    what_we_deliver_of_events_is_accepted,
);
