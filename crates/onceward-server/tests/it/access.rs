//! Who may call: keys, the operator's own, web pages, and listeners beyond loopback.

use std::os::unix::fs::PermissionsExt as _;

use crate::world::{World, is_in_a_file};

#[test]
fn once_a_key_exists_every_call_needs_one_and_a_revoked_one_is_refused() {
    let world = World::new();
    let gateway = world.serve();
    assert_eq!(gateway.call("GET", "/v1/operations", &[], "").status, 200);
    let created = gateway.run(&["access", "create", "--name", "ada", "--json"]).json();
    let (key, prefix) = (created["key"].as_str().unwrap(), created["prefix"].as_str().unwrap());
    let second = gateway.run(&["access", "create", "bo"]).ok();
    let refused = gateway.call("POST", "/to/demo/orders", &[], "");
    assert_eq!(
        (refused.status, refused.header("content-type")),
        (401, Some("application/problem+json"))
    );
    assert_eq!(refused.json()["code"], "unauthenticated");
    for path in ["/v1/operations", "/metrics", "/to/demo/effects"] {
        assert_eq!(gateway.call("GET", path, &[], "").status, 401, "{path}");
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(gateway.call("GET", path, &[], "").status, 200, "{path}: a probe has no key");
    }
    let bearer = format!("Bearer {key}");
    for header in ["authorization", "onceward-authorization"] {
        assert_eq!(gateway.call("POST", "/to/demo/orders", &[(header, &bearer)], "").status, 201);
    }
    assert_eq!(gateway.run(&["access", "ls"]).ok().lines().count(), 2);
    gateway.run(&["access", "revoke", prefix]).ok();
    assert_eq!(
        gateway.call("GET", "/v1/operations", &[("authorization", &bearer)], "").status,
        401
    );
    let second = format!("Bearer {}", second.trim());
    assert_eq!(
        gateway.call("GET", "/v1/operations", &[("authorization", &second)], "").status,
        200
    );
}

#[test]
fn a_wrong_key_exits_4_and_the_operators_own_opens() {
    let world = World::new();
    let gateway = world.serve();
    gateway.run(&["access", "create", "ada"]).ok();
    let said = gateway.run(&["--access-key", "ow_wrong", "ls"]).failed(4);
    assert!(said.contains("help:") && !said.contains("ow_wrong"), "{said}");
    gateway.run(&["ls"]).ok();
    let elsewhere = World::new();
    let url = format!("http://{}", gateway.address);
    let said = elsewhere.run(&["--url", &url, "ls"]).failed(4);
    assert!(said.contains("data folder") && said.contains("--access-key"), "{said}");
}

#[test]
fn an_operators_key_of_another_gateway_does_not_lock_out_of_an_open_one() {
    let (world, other) = (World::new(), World::new());
    let gateway = world.serve();
    drop(other.serve());
    let url = format!("http://{}", gateway.address);
    assert_eq!(other.run(&["--url", &url, "ls", "--json"]).ok(), "[]\n");
}

#[test]
fn what_opens_the_ledger_is_its_owners_alone() {
    let world = World::new();
    let _gateway = world.serve();
    for name in ["", "master.key", "operator.key"] {
        let path = world.path("onceward-data").join(name);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} is open to others: {mode:o}", path.display());
    }
}

#[test]
fn keys_lie_hashed_in_the_ledger_and_outlive_a_restart() {
    let world = World::new();
    let gateway = world.serve();
    let key = gateway.run(&["access", "create", "ada"]).ok().trim().to_owned();
    gateway.kill();
    assert!(!is_in_a_file(&world.path("onceward-data"), &key));
    assert!(is_in_a_file(&world.path("onceward-data"), "ada"), "its name is there");
    let gateway = world.serve();
    assert_eq!(gateway.call("GET", "/v1/operations", &[], "").status, 401);
    gateway.run(&["--access-key", &key, "ls"]).ok();
}

#[test]
fn the_keys_of_two_callers_do_not_meet() {
    let world = World::new();
    let gateway = world.serve();
    let [ada, bo] =
        ["ada", "bo"].map(|name| gateway.run(&["access", "create", name]).ok().trim().to_owned());
    for key in [&ada, &bo] {
        let sent =
            gateway.run(&["--access-key", key, "send", "demo-unsafe/orders", "--key", "same"]);
        assert!(!sent.err.contains("replayed"), "{sent:?}");
    }
    gateway.run(&["forget", "demo-unsafe", "same", "--reason", "r"]).failed(3);
    gateway.run(&["forget", "demo-unsafe", "same", "--principal", "ada", "--reason", "r"]).ok();
    gateway.run(&["--access-key", &ada, "send", "demo-unsafe/orders", "--key", "same"]).failed(1);
    gateway.run(&["--access-key", &bo, "send", "demo-unsafe/orders", "--key", "same"]).ok();
}

#[test]
fn a_web_page_of_another_site_cannot_post_through_an_open_listener() {
    let world = World::new();
    let gateway = world.serve();
    for headers in [
        &[("origin", "https://evil.example")][..],
        &[("origin", "null")],
        &[("sec-fetch-site", "cross-site")],
        &[("host", "evil.example")],
        &[("host", "127.0.0.1.evil.example:80")],
    ] {
        let refused = gateway.call("POST", "/to/demo-unsafe/orders", headers, "{}");
        assert_eq!(
            (refused.status, &refused.json()["code"]),
            (403, &"forbidden".into()),
            "{headers:?}"
        );
    }
    assert_eq!(gateway.call("GET", "/to/demo-unsafe/effects", &[], "").json()["calls"], 0);
    let own = format!("http://{}", gateway.address);
    assert_eq!(gateway.call("POST", "/to/demo-unsafe/orders", &[("origin", &own)], "").status, 201);
}

#[test]
fn beyond_loopback_a_key_is_made_and_printed_once() {
    let world = World::new();
    let gateway = world.serve_at("0.0.0.0:0");
    let line = gateway.log.until("shown this once");
    let key = line.rsplit(' ').next().unwrap().to_owned();
    assert!(key.starts_with("ow_"), "{line}");
    assert_eq!(gateway.call("GET", "/v1/operations", &[], "").status, 401);
    let bearer = format!("Bearer {key}");
    assert_eq!(
        gateway.call("GET", "/v1/operations", &[("authorization", &bearer)], "").status,
        200
    );
    drop(gateway);
    let gateway = world.serve_at("0.0.0.0:0");
    assert!(!gateway.log.has("ow_"), "it is shown once");
    assert_eq!(
        gateway.call("GET", "/v1/operations", &[("authorization", &bearer)], "").status,
        200
    );
}
