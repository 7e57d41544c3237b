//! On a route with Stripe's profile every refusal of ours is one that Stripe's SDKs throw on, and
//! says whether to ask again: without an error object they take any answer for a payment.

#![expect(clippy::unwrap_used, reason = "a failed expectation fails the test")]

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};

use crate::world::{Gateway, Response, Upstream, World, until};

/// An upstream that takes a request and hangs up.
fn mute() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // The head is enough: what comes after it says nothing that is of interest here.
            let _ = stream.read(&mut [0; 4096]);
        }
    });
    address
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn route(name: &str, upstream: SocketAddr, lines: &str) -> String {
    format!(
        "[routes.{name}]\nupstream = \"http://{upstream}\"\nprofile = \"stripe\"\n\
         held = {{ attempts_max = 1 }}\n{lines}\n"
    )
}

#[track_caller]
fn thrown(response: &Response, status: u16, code: &str, kind: &str, again: bool) {
    let document = response.json();
    assert_eq!((response.status, document["code"].as_str()), (status, Some(code)), "{document}");
    assert_eq!(document["error"]["type"], kind, "{code}");
    assert!(document["error"]["message"].as_str().is_some_and(|text| text.len() > 10), "{code}");
    assert_eq!(response.header("stripe-should-retry"), Some(again.to_string().as_str()), "{code}");
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
}

fn pay(gateway: &Gateway, route: &str, key: &str, body: &str) -> Response {
    let path = format!("/to/{route}/v1/payment_intents");
    gateway.call("POST", &path, &[("idempotency-key", key)], body)
}

#[test]
fn every_refusal_throws_and_says_whether_to_ask_again() {
    let world = World::new();
    let upstream = Upstream::answering(Some(201));
    world.write(
        "onceward.toml",
        &[
            route("pay", upstream.address, "body_bytes_max = \"64B\""),
            route("brief", upstream.address, "window = \"1ms\""),
            route("down", nobody(), ""),
            route("mute", mute(), ""),
            route("once", mute(), "effects = \"non-idempotent\"\nkey = { missing = \"make\" }"),
        ]
        .concat(),
    );
    let gateway = world.serve();
    let (invalid, idempotency, api) = ("invalid_request_error", "idempotency_error", "api_error");
    let none = gateway.call("POST", "/to/pay/v1/charges", &[], "amount=1");
    thrown(&none, 400, "key-required", invalid, false);
    thrown(&pay(&gateway, "pay", "a,b", "amount=1"), 400, "key-invalid", invalid, false);
    assert_eq!(pay(&gateway, "pay", "k", "amount=1").status, 201);
    thrown(&pay(&gateway, "pay", "k", "amount=2"), 400, "key-mismatch", idempotency, false);
    let large = pay(&gateway, "pay", "large", &"x".repeat(65));
    thrown(&large, 413, "body-too-large", invalid, false);
    let option = [("idempotency-key", "option"), ("onceward-nonsense", "1")];
    let option = gateway.call("POST", "/to/pay/v1/charges", &option, "amount=1");
    thrown(&option, 400, "option-invalid", invalid, false);
    thrown(&pay(&gateway, "misspelt", "k", "amount=1"), 404, "route-unknown", invalid, false);
    thrown(&pay(&gateway, "down", "k", "amount=1"), 503, "upstream-unreachable", api, true);
    let read = gateway.call("GET", "/to/down/v1/charges", &[], "");
    thrown(&read, 503, "upstream-unreachable", api, true);
    thrown(&pay(&gateway, "mute", "k", "amount=1"), 504, "no-answer", api, true);
    thrown(&pay(&gateway, "once", "k", "amount=1"), 504, "outcome-unknown", api, false);
    thrown(&pay(&gateway, "once", "k", "amount=1"), 409, "outcome-unknown", api, false);
    let made = gateway.call("POST", "/to/mute/v1/customers", &[], "name=ada");
    thrown(&made, 504, "no-answer", api, false);
    assert_eq!(made.header("onceward-key-made"), Some("true"), "asked again it is another call");

    assert_eq!(pay(&gateway, "brief", "k", "amount=1").status, 201);
    let expired = until("its window is over", || {
        Some(pay(&gateway, "brief", "k", "amount=1")).filter(|answer| answer.status == 410)
    });
    thrown(&expired, 410, "key-expired", idempotency, false);
    gateway.run(&["forget", "pay", "k", "--reason", "a test went wrong"]).ok();
    thrown(&pay(&gateway, "pay", "k", "amount=1"), 410, "key-invalidated", idempotency, false);
    assert_eq!(upstream.calls(), 2, "a refused request has sent nothing");
}

#[test]
fn a_duplicate_of_a_call_under_way_is_told_to_ask_again_with_its_key() {
    let world = World::new();
    let upstream = Upstream::answering(None);
    world.write(
        "onceward.toml",
        &route("pay", upstream.address, "wait = \"100ms\"\nanswer_max = \"200ms\""),
    );
    let gateway = world.serve();
    let first = pay(&gateway, "pay", "k", "amount=1");
    thrown(&first, 504, "still-working", "api_error", true);
    let second = pay(&gateway, "pay", "k", "amount=1");
    thrown(&second, 409, "in-progress", "idempotency_error", true);
    assert_eq!(second.json()["error"]["code"], "idempotency_key_in_use");
    upstream.set(201);
    let third = until("the first has ended", || {
        Some(pay(&gateway, "pay", "k", "amount=1")).filter(|answer| answer.status == 201)
    });
    assert_eq!(third.header("idempotent-replayed"), Some("true"));
    assert_eq!(third.header("stripe-should-retry"), None, "the upstream's answer stays as it is");
}

#[test]
fn without_an_access_key_an_sdk_throws_as_well() {
    let world = World::new();
    let upstream = Upstream::answering(Some(201));
    world.write("onceward.toml", &route("pay", upstream.address, ""));
    let gateway = world.serve();
    gateway.run(&["access", "create", "--name", "ada"]).ok();
    let refused = pay(&gateway, "pay", "k", "amount=1");
    thrown(&refused, 401, "unauthenticated", "invalid_request_error", false);
    assert_eq!(upstream.calls(), 0);
}
