//! The life of a key as callers and people meet it: over HTTP and on the command line.

use rustix::process::Signal;
use serde_json::Value;

use crate::world::{Gateway, Response, Upstream, World, route};

fn send(gateway: &Gateway, path: &str, key: &str, body: &str) -> Response {
    gateway.call("POST", path, &[("idempotency-key", key)], body)
}

#[test]
fn a_person_extends_a_key_gives_it_another_and_drops_both() {
    let world = World::new();
    let gateway = world.serve();
    let first = send(&gateway, "/to/demo/orders", "order-1", "{}");
    let operation = first.header("onceward-operation").map(str::to_owned);
    let act = |verb: &[&str]| gateway.run(&[verb, &["--reason", "a long holiday"]].concat());

    let shown = act(&["extend", "demo", "order-1", "--window", "30d", "--json"]).json();
    assert_eq!(shown["acts"][0]["deed"], "extended");
    assert_eq!(shown["acts"][0]["reason"], "a long holiday");
    let until = "2100-01-01T00:00:00Z";
    let shown = act(&["extend", "demo", "order-1", "--until", until, "--json"]).json();
    assert_eq!(shown["key_expires_at"], "2100-01-01T00:00:00.000Z");
    let said = act(&["extend", "demo", "order-1", "--window", "1h"]).failed(1);
    assert!(said.contains("kept as long already"), "{said}");
    act(&["extend", "demo", "no-such-key", "--window", "9d"]).failed(3);
    act(&["extend", "demo", "order-1"]).failed(2);
    act(&["extend", "demo", "order-1", "--window", "9d", "--until", until]).failed(2);

    act(&["rotate", "demo", "order-1", "--to", "order-one"]).ok();
    let again = send(&gateway, "/to/demo/orders", "order-one", "{}");
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.header("onceward-duplicate-of").map(str::to_owned), operation);
    assert_eq!((again.status, again.body), (first.status, first.body));
    assert_eq!(again.headers.iter().filter(|(name, _)| name == "idempotency-key").count(), 1);
    let found = gateway.call("GET", "/v1/keys/demo/order-one", &[], "").json();
    assert_eq!(found["id"].as_str().map(str::to_owned), operation);
    send(&gateway, "/to/demo/orders", "order-2", "{\"n\":2}");
    let said = act(&["rotate", "demo", "order-1", "--to", "order-2"]).failed(1);
    assert!(said.contains("belongs to"), "{said}");
    assert_eq!(gateway.run(&["ls"]).ok().lines().count(), 2, "another name is no operation");

    act(&["forget", "demo", "order-one"]).ok();
    for key in ["order-1", "order-one"] {
        let refused = send(&gateway, "/to/demo/orders", key, "{}");
        assert_eq!(refused.status, 410);
        let problem = refused.json();
        assert_eq!(
            (&problem["code"], &problem["reason"]),
            (&Value::from("key-invalidated"), &Value::from("a long holiday"))
        );
    }
}

#[test]
fn the_keys_of_a_principal_are_revoked_and_what_is_open_is_told() {
    let world = World::new();
    let upstream = Upstream::answering(None);
    world.write("onceward.toml", &format!("demo = true\n{}", route("slow", upstream.address)));
    let gateway = world.serve();
    let key = gateway.run(&["access", "create", "shop", "--json"]).json();
    let bearer = format!("Bearer {}", key["key"].as_str().unwrap_or_default());
    let call = |path: &str, key: &str, prefer: &str| {
        let headers =
            [("idempotency-key", key), ("authorization", bearer.as_str()), ("prefer", prefer)];
        gateway.call("POST", path, &headers, "{}")
    };
    for n in 0..3 {
        assert_eq!(call("/to/demo/orders", &format!("k{n}"), "x").status, 201);
    }
    let open = call("/to/slow/orders", "open", "respond-async").json();
    let revoke = ["revoke", "shop", "--reason", "its laptop was stolen", "--json"];
    let revoked = gateway.run(&revoke).json();
    assert_eq!((&revoked["revoked"], &revoked["open"][0]), (&Value::from(3), &open["id"]));
    let refused = call("/to/demo/orders", "k1", "x");
    assert_eq!(
        (refused.status, refused.json()["reason"].clone()),
        (410, "its laptop was stolen".into())
    );
    assert_eq!(gateway.run(&revoke).json()["revoked"], 0);
    upstream.set(201);
}

#[test]
fn a_route_says_what_a_key_is_and_where_it_comes_from() {
    let world = World::new();
    let upstream = Upstream::answering(Some(201));
    let with = |name: &str, more: &str| format!("{}{more}\n", route(name, upstream.address));
    world.write(
        "onceward.toml",
        &[
            with("strong", r"key = { length_min = 8, refuse = ['\d+'] }"),
            with("body", r#"key = { json = "/request_id", missing = "require" }"#),
            with("made", r#"key = { template = "{json:/user}:{json:/plan}" }"#),
            with("timed", r#"key = { time = "refuse-late" }"#),
            with("once", r#"unique = { json = "/order", within = "24h" }"#),
        ]
        .concat(),
    );
    let gateway = world.serve();
    for (path, key, code, words) in [
        ("/to/strong/x", "short", "key-invalid", "at least 8"),
        ("/to/strong/x", "1234567890", "key-invalid", r"\d+"),
        // Of 2020.
        ("/to/timed/x", "01DXF6DT00ABCDEFGHJKMNPQRS", "key-expired", "2020-01-01"),
    ] {
        let refused = send(&gateway, path, key, "{}").json();
        assert_eq!(refused["code"], code, "{refused}");
        assert!(refused["detail"].as_str().unwrap_or_default().contains(words), "{refused}");
    }
    for (path, body, key) in [
        ("/to/body/x", r#"{"request_id":"r-1"}"#, "r-1"),
        ("/to/made/x", r#"{"user":"ann","plan":7}"#, "ann:7"),
    ] {
        for replayed in ["false", "true"] {
            let answer = gateway.call("POST", path, &[], body);
            assert_eq!(answer.header("idempotency-key"), Some(key));
            assert_eq!(answer.header("idempotent-replayed"), Some(replayed));
            assert_eq!(answer.header("onceward-key-made"), None);
        }
        let refused = gateway.call("POST", path, &[], "{}").json();
        assert_eq!(refused["code"], "key-required", "{refused}");
    }
    let first = send(&gateway, "/to/once/x", "one", r#"{"order":7,"n":1}"#);
    let twin = send(&gateway, "/to/once/x", "two", r#"{"order":7,"n":2}"#);
    assert_eq!(twin.header("onceward-duplicate-of"), first.header("onceward-operation"));
    let suspect = send(&gateway, "/to/strong/x", "suspect-1", "{}");
    let double = send(&gateway, "/to/strong/x", "suspect-2", "{}");
    assert_eq!(double.header("onceward-suspect-of"), suspect.header("onceward-operation"));
    assert_eq!((double.status, upstream.calls()), (201, 5));
    let metrics = gateway.call("GET", "/metrics", &[], "").text();
    for line in [
        "onceward_suspected_doubles_total{route=\"strong\"} 1",
        "onceward_late_duplicates_total{route=\"timed\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    gateway.signal(Signal::TERM);
    assert!(gateway.ended().success());
    let listed = world.serve().call("GET", "/v1/suspects", &[], "").json();
    let pair = ["operation", "first"].map(|of| listed["data"][0][of].as_str());
    let sent = [&double, &suspect].map(|answer| answer.header("onceward-operation"));
    assert_eq!(pair, sent, "they are listed after a restart too: {listed}");
}

#[test]
fn what_is_redacted_is_seen_neither_by_the_api_nor_on_a_page_nor_by_verbs() {
    let world = World::new();
    let upstream = Upstream::answering(Some(201));
    let redact = "redact = [\"/card/number\"]\n";
    world.write("onceward.toml", &format!("{}{redact}", route("cards", upstream.address)));
    let gateway = world.serve();
    let body = r#"{"card":{"number":"4242424242424242"},"n":1}"#;
    let sent = send(&gateway, "/to/cards/x", "k", body);
    let id = sent.header("onceward-operation").unwrap_or_default().to_owned();
    for path in [
        format!("/v1/operations/{id}"),
        format!("/v1/operations/{id}/request"),
        format!("/v1/operations/{id}/response"),
        format!("/operations/{id}"),
    ] {
        let seen = gateway.call("GET", &path, &[("accept", "text/html")], "");
        assert!(!seen.text().contains("4242424242424242"), "{path}: {}", seen.text());
    }
    let request = gateway.call("GET", &format!("/v1/operations/{id}/request"), &[], "").json();
    assert_eq!(request["body"], r#"{"card":{"number":"[redacted]"},"n":1}"#);
    assert!(!gateway.run(&["show", &id, "--json"]).ok().contains("4242424242424242"));
}

#[test]
fn advice_is_given_for_each_route_from_what_it_has_seen() {
    let world = World::new();
    let gateway = world.serve();
    for _ in 0..3 {
        send(&gateway, "/to/demo/orders", "k", "{}");
    }
    let advice = gateway.call("GET", "/v1/routes/demo/advice", &[], "").json();
    assert_eq!(
        (&advice["window"]["duplicates"], &advice["window"]["late"]),
        (&2.into(), &0.into())
    );
    assert_eq!((&advice["window"]["fit"], &advice["held"]["done"]), (&"too_few".into(), &1.into()));
    let said = gateway.run(&["routes", "--advice"]).ok();
    assert!(said.contains("demo\twindow\t99.9 % of your duplicates came within"), "{said}");
    let all = gateway.run(&["routes", "--advice", "--json"]).json();
    assert!(
        all.as_array().is_some_and(|all| all.iter().any(|one| one["route"] == "demo")),
        "{all}"
    );
    assert_eq!(gateway.call("GET", "/v1/routes/nowhere/advice", &[], "").status, 404);
}

#[test]
fn a_check_asks_about_payments_with_the_default_window_and_tells_the_disk() {
    let world = World::new();
    let route = |more: &str| {
        format!(
            "[routes.payments]\nupstream = \"https://api.example.com\"\neffects = \"non-idempotent\"\n{more}\n"
        )
    };
    world.write("onceward.toml", &route(""));
    let shown = world.run(&["check"]).ok();
    assert!(shown.contains("looks like payments") && shown.contains("MiB"), "{shown}");
    world.write("onceward.toml", &route("window = \"7d\""));
    let document = world.run(&["check", "--json"]).json();
    assert_eq!(document["warnings"].as_array().map(Vec::len), Some(0), "{document}");
    assert_eq!(document["disk"][0]["bodies"], "7d");
    for (more, mend) in [
        ("unique = { json = \"/id\", within = \"9999d\" }", "unique.within"),
        ("unique = { within = \"1h\" }", "names nothing"),
        ("key = { json = \"/a\", template = \"{date}\" }", "keep one"),
        ("key = { template = \"{json:/a}{json:/b}\" }", "between two variables"),
        ("key = { pattern = \"a|b\" }", "no groups"),
        ("redact = [\"card\"]", "points at no member"),
    ] {
        world.write("onceward.toml", &route(more));
        let said = world.run(&["check"]).failed(78);
        assert!(said.contains(mend), "{more}\n{said}");
    }
}
