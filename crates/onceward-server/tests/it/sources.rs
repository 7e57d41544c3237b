//! Webhooks of the real gateway: verified before anything else, answered as soon as they are on disk,
//! delivered once; and what is refused is kept with its reason.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::fmt::Write as _;

use onceward::clock::{Clock as _, SystemClock};
use onceward::webhook::{self, Algorithm};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::callbacks::Hooks;
use crate::world::{Gateway, Response, Upstream, World, is_in_a_file, route, until};

/// 24 bytes, and how a provider shows them.
const SECRET_BYTES: &[u8; 24] = b"canary-of-24-bytes-is-me";
const SECRET: &str = "whsec_Y2FuYXJ5LW9mLTI0LWJ5dGVzLWlzLW1l";

/// GitHub's own example.
const GITHUB: &str = "It's a Secret to Everybody";
const GITHUB_BODY: &str = "Hello, World!";
const GITHUB_SIGNATURE: &str =
    "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

pub(crate) fn seconds() -> i64 {
    SystemClock.now().as_micros() / 1_000_000
}

/// A webhook of Standard Webhooks, signed now.
fn send(gateway: &Gateway, source: &str, id: &str, body: &str) -> Response {
    let seconds = seconds();
    let signature = webhook::sign(SECRET_BYTES, id, seconds, body.as_bytes());
    let (path, at) = (format!("/in/{source}"), seconds.to_string());
    let headers = [
        ("webhook-id", id),
        ("webhook-timestamp", &at),
        ("webhook-signature", &signature),
        ("content-type", "application/json"),
    ];
    gateway.call("POST", &path, &headers, body)
}

fn send_github(gateway: &Gateway, delivery: &str) -> Response {
    let headers = [
        ("x-github-delivery", delivery),
        ("x-github-event", "push"),
        ("x-hub-signature-256", GITHUB_SIGNATURE),
    ];
    gateway.call("POST", "/in/github", &headers, GITHUB_BODY)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn source(name: &str, verify: &str, more: &str) -> String {
    format!("[sources.{name}]\nverify = {{ {verify} }}\n{more}\n")
}

fn standard(name: &str, more: &str) -> String {
    source(name, &format!("scheme = \"standard-webhooks\", secret = \"{SECRET}\""), more)
}

fn deliver(hooks: &Hooks) -> String {
    format!("deliver = \"http://{}/hooks?a=1\"", hooks.address)
}

fn metric(gateway: &Gateway, line: &str) -> bool {
    let key = std::fs::read_to_string(gateway.path("onceward-data/operator.key")).unwrap();
    let headers = [("authorization", format!("Bearer {}", key.trim()))];
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    gateway.call("GET", "/metrics", &headers, "").text().lines().any(|it| it == line)
}

#[test]
fn a_webhook_is_answered_when_it_is_on_disk_and_delivered_once_as_it_came() {
    let (world, hooks) = (World::new(), Hooks::start());
    world.write("onceward.toml", &standard("pay", &deliver(&hooks)));
    let gateway = world.serve();
    // A provider has no access key of ours.
    gateway.run(&["access", "create", "ada"]).ok();
    let body = "{ \"type\": \"paid\",\n\t\"n\": 1.0e0 } ";
    let first = send(&gateway, "pay", "msg_1", body);
    assert_eq!((first.status, first.text().as_str()), (200, ""));
    assert_eq!(first.header("idempotent-replayed"), Some("false"));
    let told = until("it is delivered", || hooks.told().first().cloned());
    assert_eq!(told.body, body.as_bytes());
    assert_eq!(told.headers["webhook-id"], "msg_1");
    assert_eq!(told.headers["idempotency-key"], "msg_1");
    let at = told.headers["webhook-timestamp"].parse().unwrap();
    let signature = webhook::sign(SECRET_BYTES, "msg_1", at, &told.body);
    assert_eq!(told.headers["webhook-signature"], signature, "it can be verified again");
    let operation = gateway.until_state("msg_1", "done");
    assert_eq!(operation["route"], "source/pay");
    assert_eq!((&operation["via"], &operation["label"]), (&json!("source/pay"), &json!("paid")));
    assert_eq!(operation["effects"], "keyed");
    for _ in 0..3 {
        let again = send(&gateway, "pay", "msg_1", body);
        assert_eq!((again.status, again.header("idempotent-replayed")), (200, Some("true")));
        assert_eq!(again.header("onceward-operation"), first.header("onceward-operation"));
    }
    let other = send(&gateway, "pay", "msg_1", "{\"type\": \"other\"}");
    assert_eq!(other.status, 200, "a provider would only send it again");
    assert_eq!(send(&gateway, "pay", "msg_2", body).status, 200);
    until("the other id is delivered", || (hooks.told().len() == 2).then_some(()));
    for (result, count) in [("accepted", 2), ("duplicate", 3), ("mismatch", 1)] {
        let line = format!("onceward_webhooks_total{{source=\"pay\",result=\"{result}\"}} {count}");
        assert!(metric(&gateway, &line), "{line}");
    }
    let kept = gateway.run(&["sources", "pay", "--json"]).json();
    assert_eq!(kept["rejects"][0]["reason"], "mismatch");
    assert_eq!(kept["rejects"][0]["status"], 200);
}

#[test]
fn a_webhook_is_answered_though_its_upstream_never_does() {
    let world = World::new();
    let upstream = Upstream::answering(None);
    let to = format!("deliver = \"http://{}/\"", upstream.address);
    world.write("onceward.toml", &standard("pay", &to));
    let gateway = world.serve();
    assert_eq!(send(&gateway, "pay", "msg_1", "{}").status, 200);
    assert_eq!(send(&gateway, "pay", "msg_1", "{}").status, 200);
    until("it is sent", || (upstream.calls() == 1).then_some(()));
    upstream.set(200);
    gateway.until_state("msg_1", "done");
    assert_eq!(upstream.calls(), 1);
}

#[test]
fn what_is_not_verified_is_refused_and_kept_with_the_reason_and_no_secret_anywhere() {
    let (world, hooks) = (World::new(), Hooks::start());
    let wrong = source(
        "pay",
        "scheme = \"standard-webhooks\", secret = \"whsec_d3JvbmctY2FuYXJ5LW9mLTI0LWJ5dGVz\"",
        &deliver(&hooks),
    );
    world.write("onceward.toml", &wrong);
    let gateway = world.serve();
    let refused = send(&gateway, "pay", "msg_1", "{\"a\": 1}");
    assert_eq!((refused.status, &refused.json()["code"]), (400, &json!("webhook-rejected")));
    let bare = gateway.call("POST", "/in/pay", &[("cookie", "canary-cookie")], "{}");
    assert_eq!(bare.status, 400);
    assert!(bare.text().contains("webhook-id"), "{}", bare.text());
    assert_eq!(gateway.call("POST", "/in/nobody", &[], "").json()["code"], "source-unknown");
    assert_eq!(gateway.call("GET", "/in/pay", &[], "").header("allow"), Some("POST"));
    let long = "x".repeat(2 << 20);
    assert_eq!(send(&gateway, "pay", "msg_2", &long).status, 413);
    let kept = gateway.call("GET", "/v1/sources/pay/rejects", &[], "").json();
    let reasons: Vec<_> = kept["data"].as_array().unwrap().iter().map(|it| &it["reason"]).collect();
    assert_eq!(reasons, ["body", "header_missing", "signature_mismatch"]);
    let first = &kept["data"][2];
    assert_eq!((&first["body"], &first["verifies_now"]), (&json!("{\"a\": 1}"), &json!(false)));
    assert!(first["why"].as_str().unwrap().contains("does not fit the secret"), "{first}");
    // The secret is mended, and nothing has to be sent again to see that.
    world.write("onceward.toml", &standard("pay", &deliver(&hooks)));
    gateway.signal(Signal::HUP);
    gateway.log.until("the routes were read again");
    let kept = gateway.call("GET", "/v1/sources/pay/rejects", &[], "").json();
    assert_eq!(kept["data"][2]["verifies_now"], true);
    let page = gateway.call("GET", "/sources", &[("accept", "text/html")], "").text();
    for words in ["/in/pay", "signature mismatch", "webhook-signature", "it verifies"] {
        assert!(page.contains(words), "{words}: {page}");
    }
    let table = gateway.run(&["sources", "pay"]).ok();
    assert!(table.contains("signature mismatch") && table.contains("verifies"), "{table}");
    let all = gateway.run(&["sources"]).ok();
    assert!(all.contains("/in/pay\tstandard-webhooks\t1"), "{all}");
    let check = world.run(&["check"]).ok();
    assert!(check.contains("/in/pay") && check.contains("keyed"), "{check}");
    let whole = [page, table, all, check, kept.to_string()].concat();
    for canary in ["Y2FuYXJ5", "d3JvbmctY2FuYXJ5", "canary"] {
        assert!(!whole.contains(canary), "{canary}");
        assert!(!gateway.log.has(canary), "{canary}");
    }
    assert_eq!(hooks.told().len(), 0);
    assert!(metric(
        &gateway,
        "onceward_webhooks_rejected_total{source=\"pay\",reason=\"signature_mismatch\"} 1"
    ));
    gateway.kill();
    assert!(!is_in_a_file(&world.path("onceward-data"), "canary-cookie"));
    assert!(!is_in_a_file(&world.path("onceward-data"), "signature_mismatch"), "it is sealed");
}

#[test]
fn a_flood_of_what_is_refused_is_kept_within_bounds() {
    let world = World::new();
    let hooks = Hooks::start();
    let more = format!("{}\nrejects_max = 5", deliver(&hooks));
    world.write("onceward.toml", &standard("pay", &more));
    let gateway = world.serve();
    for _ in 0..100 {
        assert_eq!(gateway.call("POST", "/in/pay", &[], "{}").status, 400);
    }
    let kept = gateway.call("GET", "/v1/sources/pay/rejects", &[], "").json();
    assert_eq!(kept["data"].as_array().unwrap().len(), 5);
    assert!(metric(
        &gateway,
        "onceward_webhooks_rejected_total{source=\"pay\",reason=\"header_missing\"} 100"
    ));
}

#[test]
fn what_was_signed_once_is_not_delivered_again_under_an_id_that_nobody_signed() {
    let (world, hooks) = (World::new(), Hooks::start());
    let verify = format!("scheme = \"github\", secret = \"{GITHUB}\"");
    world.write("onceward.toml", &source("github", &verify, &deliver(&hooks)));
    let gateway = world.serve();
    assert_eq!(send_github(&gateway, "guid-1").status, 200);
    gateway.until_state("guid-1", "done");
    for _ in 0..2 {
        assert_eq!(send_github(&gateway, "guid-1").status, 200, "redelivered by its provider");
        assert_eq!(send_github(&gateway, "guid-2").status, 200, "sent again by somebody else");
        let headers = [("x-hub-signature-256", GITHUB_SIGNATURE)];
        let nameless = gateway.call("POST", "/in/github", &headers, GITHUB_BODY);
        assert_eq!(nameless.status, 200, "sent again without an id");
    }
    for (result, count) in [("duplicate", 2), ("suspected_replay", 4)] {
        let line =
            format!("onceward_webhooks_total{{source=\"github\",result=\"{result}\"}} {count}");
        assert!(metric(&gateway, &line), "{line}");
    }
    let kept = gateway.run(&["sources", "github", "--json"]).json();
    assert_eq!(kept["rejects"][0]["reason"], "suspected_replay");
    assert_eq!((hooks.told().len(), &kept["source"]["id_signed"]), (1, &json!(false)));
}

#[test]
fn a_provider_that_asks_whether_it_may_send_is_answered() {
    let world = World::new();
    let hooks = Hooks::start();
    let to = deliver(&hooks);
    let slack = source("slack", "scheme = \"slack\", secret = \"s3cret\"", &to);
    let hub = "handshake = { echo = \"hub.challenge\", token = { query = \"hub.verify_token\", value = \"tok\" } }";
    let meta = source(
        "meta",
        "scheme = \"hmac\", header = \"X-Hub-Signature-256\", prefix = \"sha256=\", secret = \"s\"",
        &format!("{to}\nid = \"content\"\n{hub}"),
    );
    world.write("onceward.toml", &format!("{slack}{meta}"));
    let gateway = world.serve();
    let body = r#"{"type":"url_verification","challenge":"3eZbrw1aB","token":"x"}"#;
    let at = seconds().to_string();
    let tag = webhook::hmac(Algorithm::Sha256, b"s3cret", format!("v0:{at}:{body}").as_bytes());
    let signature = format!("v0={}", hex(&tag));
    let headers = [("x-slack-request-timestamp", at.as_str()), ("x-slack-signature", &signature)];
    let answer = gateway.call("POST", "/in/slack", &headers, body);
    assert_eq!((answer.status, answer.text().as_str()), (200, "3eZbrw1aB"));
    assert!(answer.header("content-type").unwrap().starts_with("text/plain"));
    let unsigned = gateway.call("POST", "/in/slack", &headers[..1], body);
    assert_eq!(unsigned.status, 400, "nothing is echoed to whoever asks");
    let asked = "/in/meta?hub.mode=subscribe&hub.challenge=42&hub.verify_token=";
    let good = gateway.call("GET", &format!("{asked}tok"), &[], "");
    assert_eq!((good.status, good.text().as_str()), (200, "42"));
    assert_eq!(gateway.call("GET", &format!("{asked}other"), &[], "").status, 400);
    let tag = webhook::hmac(Algorithm::Sha256, b"s", b"{}");
    let signature = format!("sha256={}", hex(&tag));
    let sent = gateway.call("POST", "/in/meta", &[("x-hub-signature-256", &signature)], "{}");
    assert_eq!(sent.status, 200);
    until("it is delivered", || (hooks.told().len() == 1).then_some(()));
}

#[test]
fn an_older_one_about_the_same_is_not_delivered_after_a_newer_one() {
    let (world, hooks) = (World::new(), Hooks::start());
    let more = format!(
        "{}\nsubject = {{ json = \"/data/id\" }}\nsequence = {{ json = \"/data/updated_at\" }}",
        deliver(&hooks)
    );
    world.write("onceward.toml", &standard("crm", &more));
    let gateway = world.serve();
    let body = |at: &str| format!("{{\"data\": {{\"id\": 7, \"updated_at\": \"{at}\"}}}}");
    assert_eq!(send(&gateway, "crm", "new", &body("2026-01-02T00:00:00Z")).status, 200);
    gateway.until_state("new", "done");
    assert_eq!(send(&gateway, "crm", "old", &body("2026-01-01T23:59:59Z")).status, 200);
    let old = gateway.until_state("old", "dead");
    assert_eq!(old["reason"], "superseded");
    assert_eq!(send(&gateway, "crm", "newest", &body("2026-01-02T00:00:00.5Z")).status, 200);
    gateway.until_state("newest", "done");
    assert_eq!(hooks.told().len(), 2);
}

#[test]
fn a_webhook_of_the_provider_ends_the_doubt_about_what_was_sent_to_it() {
    let world = World::new();
    let upstream = Upstream::answering(Some(500));
    let resolve = "resolve = { route = \"pay\", key = { json = \"/request/key\" }, found = { json = { \"/type\" = \"paid\" } }, failed = { json = { \"/type\" = \"declined\" } }, status = 201 }";
    let text = format!(
        "[routes.pay]\nupstream = \"http://{}\"\neffects = \"non-idempotent\"\n{}",
        upstream.address,
        standard("stripe", resolve)
    );
    world.write("onceward.toml", &text);
    let gateway = world.serve();
    for key in ["k-1", "k-2"] {
        let asked = gateway.call("POST", "/to/pay/x", &[("idempotency-key", key)], "{}");
        assert_eq!(asked.header("onceward-state"), Some("in_doubt"));
    }
    let body = |kind: &str, key: &str| {
        json!({"type": kind, "request": {"key": key}, "canary": 1}).to_string()
    };
    assert_eq!(send(&gateway, "stripe", "evt_0", &body("other", "k-1")).status, 200);
    assert_eq!(send(&gateway, "stripe", "evt_1", &body("paid", "k-1")).status, 200);
    assert_eq!(send(&gateway, "stripe", "evt_1", &body("paid", "k-1")).status, 200);
    assert_eq!(send(&gateway, "stripe", "evt_2", &body("declined", "k-2")).status, 200);
    let done = gateway.until_state("k-1", "done");
    assert_eq!((&done["outcome"]["source"], &done["ok"]), (&json!("webhook"), &json!(true)));
    assert_eq!(gateway.until_state("k-2", "done")["ok"], false);
    assert_eq!(upstream.calls(), 2, "nothing was sent again");
    assert!(gateway.log.until("a webhook ended a doubt").contains("pay"));
    assert!(!gateway.log.has("canary"), "the evidence is in the ledger, and in no log");
    let shown = gateway.run(&["show", done["id"].as_str().unwrap()]).ok();
    assert!(shown.contains("source/stripe"), "{shown}");
}

#[test]
fn one_event_by_two_ways_within_one_scope_is_one_operation() {
    let (world, hooks) = (World::new(), Hooks::start());
    let route = format!(
        "[routes.app]\nupstream = \"http://{}\"\neffects = \"keyed\"\nscope = \"orders\"\n",
        hooks.address
    );
    let more = "to = \"app\"\npath = \"/hooks\"\nscope = \"orders\"\nid = { json = \"/order\" }";
    world.write("onceward.toml", &format!("{route}{}", standard("shop", more)));
    let gateway = world.serve();
    let headers = [("idempotency-key", "order-1"), ("webhook-id", "by-hand")];
    let called = gateway.call("POST", "/to/app/orders", &headers, "{}");
    assert_eq!(called.status, 204);
    let came = send(&gateway, "shop", "msg_1", "{\"order\": \"order-1\"}");
    assert_eq!((came.status, came.header("idempotent-replayed")), (200, Some("true")));
    assert_eq!(came.header("onceward-operation"), called.header("onceward-operation"));
    assert_eq!(hooks.told().len(), 1);
    assert_eq!(send(&gateway, "shop", "msg_2", "{\"order\": \"order-2\"}").status, 200);
    let second = gateway.until_state("order-2", "done");
    assert_eq!((&second["route"], &second["via"]), (&json!("app"), &json!("source/shop")));
}

#[test]
fn what_a_caller_has_under_way_comes_again_until_that_one_is_through_or_has_failed() {
    let (world, upstream) = (World::new(), Upstream::answering(None));
    let app = route("app", upstream.address);
    let more = "to = \"app\"\nscope = \"orders\"\nid = { json = \"/order\" }";
    world.write("onceward.toml", &format!("{app}scope = \"orders\"\n{}", standard("shop", more)));
    let gateway = world.serve();
    let key = [("idempotency-key", "order-1")];
    let body = "{\"order\": \"order-1\"}";
    std::thread::scope(|threads| {
        let call = threads.spawn(|| gateway.call("POST", "/to/app/orders", &key, "{}"));
        until("it is under way", || (upstream.calls() == 1).then_some(()));
        assert_eq!(send(&gateway, "shop", "msg_1", body).status, 503);
        upstream.set(429);
        assert_eq!(call.join().unwrap().status, 429);
    });
    assert_eq!(send(&gateway, "shop", "msg_1", body).status, 200);
    upstream.set(201);
    gateway.until_state("order-1", "done");
}

#[test]
fn what_cannot_be_taken_now_is_refused_so_that_it_comes_again() {
    let world = World::new();
    let upstream = Upstream::answering(None);
    let more =
        format!("deliver = \"http://{}/\"\nconcurrency_max = 1\nbacklog_max = 1", upstream.address);
    world.write("onceward.toml", &standard("pay", &more));
    let gateway = world.serve();
    let mut refused = None;
    for n in 0..4 {
        let answer = send(&gateway, "pay", &format!("msg_{n}"), "{}");
        if answer.status != 200 {
            refused = Some((n, answer));
            break;
        }
    }
    let (n, refused) = refused.expect("as much as may wait, waits");
    assert_eq!((refused.status, &refused.json()["code"]), (503, &json!("limit")));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(send(&gateway, "pay", "msg_0", "{}").status, 200, "what is there is there");
    upstream.set(200);
    let again = || send(&gateway, "pay", &format!("msg_{n}"), "{}");
    until("it is taken", || (again().status == 200).then_some(()));
    gateway.until_state(&format!("msg_{n}"), "done");
    let rejects: Value = gateway.call("GET", "/v1/sources/pay/rejects", &[], "").json();
    assert_eq!(rejects["data"], json!([]), "nothing was wrong with it");
}
