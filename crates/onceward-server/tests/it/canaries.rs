//! Secrets put in at every place that takes one, looked for at every place that shows something.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};

use rustix::process::Signal;
use serde_json::json;

use crate::world::{Gateway, World, read_head, until};

const JSON: (&str, &str) = ("content-type", "application/json");
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const HTML: (&str, &str) = ("accept", "text/html");

/// Where each is put in; what nobody redacts is there too, so that something is seen at all.
const CANARIES: [&str; 16] = [
    "canary-authorization",
    "canary-cookie",
    "canary-api-key",
    "canary-listed-header",
    "canary-overall-member",
    "canary-member-of-a-list",
    "canary-route-member",
    "canary-form-field",
    "canary-no-json",
    "canary-answer-member",
    "canary-answer-header",
    "canary-failed-answer",
    "canary-set-header",
    "Y2FuYXJ5LW9mLTI0LWJ5dGVzLWlzLW1l",
    "canary-of-24-bytes-is-me",
    "canary-refused-webhook",
];

/// An upstream whose every answer has canaries: refused where the path says so.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream);
            let Ok((line, headers)) = read_head(&mut reader) else { continue };
            let length = headers.iter().find(|(name, _)| name == "content-length");
            let length = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
            let mut body = vec![0; length];
            if reader.read_exact(&mut body).is_err() {
                continue;
            }
            let (status, member) = if line.contains("/refuse") {
                ("401 No", "canary-failed-answer")
            } else if line.contains("/doubt") {
                ("502 Who Knows", "canary-failed-answer")
            } else {
                ("201 Made", "canary-answer-member")
            };
            let body = json!({"secret": member, "seen": "visible-answer"}).to_string();
            let answer = format!(
                "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: application/json\r\n\
                 x-answer: canary-answer-header\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            // A caller that goes away is no matter of the upstream's.
            let _ = reader.into_inner().write_all(answer.as_bytes());
        }
    });
    address
}

fn configuration(upstream: SocketAddr) -> String {
    // 24 bytes as a provider shows them.
    let secret = "whsec_Y2FuYXJ5LW9mLTI0LWJ5dGVzLWlzLW1l";
    format!(
        "[redact]\nheaders = [\"X-Listed\", \"x-answer\"]\npointers = [\"/overall\", \"/people/*/ssn\"]\n\
         [routes.pay]\nupstream = \"http://{upstream}\"\neffects = \"non-idempotent\"\n\
         redact = [\"/card/number\", \"/secret\"]\nset_headers = {{ x-own = \"canary-set-header\" }}\n\
         keep_headers = [\"x-answer\"]\n\
         lookup = {{ get = \"/look/{{key}}\", found = {{ status = 201 }} }}\n\
         [sources.hooks]\nverify = {{ scheme = \"standard-webhooks\", secret = \"{secret}\" }}\nto = \"pay\"\n\
         [callbacks]\nsecret = \"{secret}\"\n"
    )
}

fn body(unlike: u32) -> String {
    json!({
        "overall": "canary-overall-member",
        "people": [{"ssn": "canary-member-of-a-list"}, {"ssn": "canary-member-of-a-list"}],
        "card": {"number": "canary-route-member"},
        "seen": "visible-request",
        "n": unlike,
    })
    .to_string()
}

fn call(gateway: &Gateway, path: &str, key: &str, kind: (&str, &str), body: &str) -> String {
    let headers = [
        ("idempotency-key", key),
        ("authorization", "Bearer canary-authorization"),
        ("cookie", "session=canary-cookie"),
        ("x-api-key", "canary-api-key"),
        ("x-listed", "canary-listed-header"),
        kind,
    ];
    let answer = gateway.call("POST", path, &headers, body);
    answer.header("onceward-operation").unwrap_or_default().to_owned()
}

#[track_caller]
fn expect_none(place: &str, seen: &str) {
    for canary in CANARIES {
        assert!(!seen.contains(canary), "{canary} is seen at {place}:\n{seen}");
    }
}

#[test]
fn no_secret_is_seen_at_any_place_that_shows_something() {
    let world = World::new();
    world.write("onceward.toml", &configuration(upstream()));
    let gateway = world.serve_with(&["--listen", "127.0.0.1:0", "--log", "debug"]);
    let ids = [
        call(&gateway, "/to/pay/make", "c-done", JSON, &body(1)),
        call(&gateway, "/to/pay/refuse", "c-dead", JSON, &body(1)),
        call(&gateway, "/to/pay/doubt", "c-doubt", JSON, &body(1)),
        call(
            &gateway,
            "/to/pay/make",
            "c-form",
            FORM,
            "card[number]=canary-form-field&seen=visible-form",
        ),
        call(&gateway, "/to/pay/make", "c-text", ("content-type", "text/plain"), "canary-no-json"),
    ];
    let mismatch = gateway.call(
        "POST",
        "/to/pay/make",
        &[("idempotency-key", "c-done"), JSON, ("x-listed", "canary-listed-header")],
        &body(2).replace("ssn\":", "sn\":"),
    );
    assert_eq!(mismatch.status, 409);
    expect_none("a mismatch", &mismatch.text());
    // Its signature does not hold.
    let webhook =
        json!({"overall": "canary-refused-webhook", "type": "visible-webhook"}).to_string();
    let signed = [
        ("webhook-id", "m"),
        ("webhook-timestamp", "1"),
        ("webhook-signature", "v1,x"),
        JSON,
        ("x-listed", "canary-listed-header"),
    ];
    assert!(gateway.call("POST", "/in/hooks", &signed, &webhook).status >= 400);
    until("the doubt is looked for", || {
        let found = gateway.run(&["show", &ids[2], "--json"]).json();
        (found["state"] == "done").then_some(())
    });
    let mut shown = String::new();
    let mut look = |path: &str, accept: (&str, &str)| {
        let seen = gateway.call("GET", path, &[accept], "");
        expect_none(path, &seen.text());
        shown += &seen.text();
    };
    for id in &ids {
        assert!(id.starts_with("op_"), "{ids:?}");
        for path in ["", "/request", "/response", "/evidence"] {
            look(&format!("/v1/operations/{id}{path}"), JSON);
        }
        look(&format!("/operations/{id}"), HTML);
        look(&format!("/operations/{id}/resend"), HTML);
    }
    for path in [
        "/",
        "/operations",
        "/dead",
        "/in-doubt",
        "/sagas",
        "/sources",
        "/upstreams",
        "/outboxes",
        "/events",
        "/subscriptions",
        "/duplicates",
        "/keys?key=c-done",
        "/audit",
        "/nowhere",
    ] {
        look(path, HTML);
    }
    for path in [
        "/v1/operations",
        "/v1/keys/pay/c-done",
        "/v1/sources/hooks/rejects",
        "/v1/sagas",
        "/v1/routes",
        "/v1/stats",
        "/v1/stats?over=1h",
        "/v1/duplicates",
        "/v1/suspects",
        "/v1/events",
        "/v1/subscriptions",
        "/v1/audit",
        "/v1/audit/export",
        "/metrics",
        "/v1/routes/pay/advice",
        "/v1/nowhere",
    ] {
        look(path, JSON);
    }
    for verb in [
        &["ls"][..],
        &["ls", "--json"],
        &["show", &ids[0]],
        &["show", &ids[2]],
        &["sources", "hooks"],
        &["check"],
        &["check", "--json"],
        &["config", "show"],
        &["config", "show", "--json"],
    ] {
        let told = gateway.run(verb);
        expect_none(&verb.join(" "), &format!("{}{}", told.out, told.err));
    }
    for visible in ["visible-request", "visible-answer", "visible-form"] {
        assert!(shown.contains(visible), "{visible} is shown");
    }
    assert!(shown.contains("[redacted]"));
    // Whoever asks again gets all of it.
    let again = gateway.call(
        "POST",
        "/to/pay/make",
        &[
            ("idempotency-key", "c-done"),
            JSON,
            ("authorization", "Bearer canary-authorization"),
            ("x-listed", "canary-listed-header"),
        ],
        &body(1),
    );
    assert!(again.text().contains("canary-answer-member"), "{}", again.text());
    assert_eq!(again.header("x-answer"), Some("canary-answer-header"));
    let log = gateway.log.clone();
    gateway.signal(Signal::TERM);
    gateway.ended();
    for canary in CANARIES {
        assert!(!log.has(canary), "{canary} is in the log: {}", log.until(canary));
    }
}
