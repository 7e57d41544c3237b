//! What a tenant may have: reached, it is refused before anything is sent or remembered; what is known is
//! answered still, and nobody else is held back.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use serde_json::{Value, json};

use crate::postgres;
use crate::tenants_world::{ask, configure, make, serve};
use crate::world::{Gateway, Response, Upstream, World, until};

/// A call of `key`'s on the shared route, or on the one that `path` begins with.
fn send(gateway: &Gateway, key: &str, path: &str, named: &str, more: &[(&str, &str)]) -> Response {
    let bearer = format!("Bearer {key}");
    let mut headers = vec![("onceward-authorization", &*bearer), ("idempotency-key", named)];
    headers.extend_from_slice(more);
    gateway.call("POST", &format!("/to/{path}"), &headers, "{}")
}

#[track_caller]
fn is_limit(answer: &Response, what: &str) -> u64 {
    assert_eq!(answer.status, 429, "{}", answer.text());
    let problem = answer.json();
    assert_eq!(problem["code"], "limit", "{problem}");
    assert_eq!(problem["limit"], what, "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(&format!("{what} of the tenant acme is reached")), "{detail}");
    answer.header("retry-after").unwrap().parse().unwrap()
}

fn total(gateway: &Gateway, key: &str) -> usize {
    let listed = ask(gateway, key, "GET /v1/operations?limit=1000", "").json();
    listed["data"].as_array().map_or(0, Vec::len)
}

#[test]
fn as_many_keys_are_remembered_as_a_tenant_may_have_after_a_restart_too() {
    let world = World::new();
    let limits = "[tenants.acme]\nkeys_max = 3\n";
    let gateway = serve(&world, "", limits);
    let [acme, bolt] = ["acme", "bolt"].map(|tenant| make(&gateway, tenant, "ada", &[]));
    for key in ["1", "2", "3"] {
        assert_eq!(send(&gateway, &acme, "shared/a", key, &[]).status, 201);
    }
    is_limit(&send(&gateway, &acme, "shared/a", "4", &[]), "keys_max");
    let claimed = ask(&gateway, &acme, "POST /v1/claims/mails/m/begin", "{}");
    is_limit(&claimed, "keys_max");
    let known = send(&gateway, &acme, "shared/a", "2", &[]);
    assert_eq!((known.status, known.header("idempotent-replayed")), (201, Some("true")));
    assert_eq!(send(&gateway, &bolt, "shared/a", "4", &[]).status, 201, "another is not held back");
    gateway.kill();
    let gateway = serve(&world, "", limits);
    is_limit(&send(&gateway, &acme, "shared/a", "4", &[]), "keys_max");
    assert_eq!(total(&gateway, &acme), 3, "what is refused is not remembered");
    assert_eq!(send(&gateway, &acme, "shared/a", "1", &[]).status, 201);
}

#[test]
fn a_tenants_rate_is_its_own_and_tells_when_to_come_back() {
    let world = World::new();
    let gateway =
        serve(&world, "", "[tenants.\"*\"]\nrate = \"1/m\"\nburst = 2\n[tenants.default]\n");
    let [acme, bolt] = ["acme", "bolt"].map(|tenant| make(&gateway, tenant, "ada", &[]));
    assert_eq!(send(&gateway, &acme, "shared/a", "1", &[]).status, 201);
    // What is known is nothing new.
    assert_eq!(send(&gateway, &acme, "shared/a", "1", &[]).status, 201);
    assert_eq!(send(&gateway, &acme, "shared/a", "2", &[]).status, 201);
    let again = is_limit(&send(&gateway, &acme, "shared/a", "3", &[]), "rate");
    assert!((1..=60).contains(&again), "{again}");
    let passes = ask(&gateway, &acme, "GET /to/shared/a", "");
    is_limit(&passes, "rate");
    assert_eq!(send(&gateway, &bolt, "shared/a", "3", &[]).status, 201);
    let ours = make(&gateway, "default", "ada", &[]);
    for key in ["1", "2", "3"] {
        assert_eq!(send(&gateway, &ours, "shared/a", key, &[]).status, 201, "it has a table");
    }
}

#[test]
fn as_much_waits_as_a_tenant_may_have_wait_on_all_routes_together() {
    let world = World::new();
    let gateway = serve(&world, "", "[tenants.acme]\nbacklog_max = 2\n");
    let [acme, bolt] = ["acme", "bolt"].map(|tenant| make(&gateway, tenant, "ada", &[]));
    let later = [("prefer", "respond-async"), ("onceward-delay", "1h")];
    assert_eq!(send(&gateway, &acme, "shared/a", "1", &later).status, 202);
    assert_eq!(send(&gateway, &acme, "acme-only/a", "2", &later).status, 202);
    is_limit(&send(&gateway, &acme, "careful/a", "3", &later), "backlog_max");
    assert_eq!(send(&gateway, &acme, "shared/a", "1", &later).status, 202, "it is known");
    assert_eq!(send(&gateway, &acme, "shared/a", "4", &[]).status, 201, "it does not wait");
    assert_eq!(send(&gateway, &bolt, "shared/a", "3", &later).status, 202);
    let line = "POST /v1/operations/{id}/cancel";
    let found = ask(&gateway, &acme, "GET /v1/operations?key=1", "").json();
    let line = line.replace("{id}", found["data"][0]["id"].as_str().unwrap());
    assert_eq!(ask(&gateway, &acme, &line, "{\"reason\": \"r\"}").status, 200);
    until("there is room again", || {
        (send(&gateway, &acme, "shared/a", "3", &later).status == 202).then_some(())
    });
}

#[test]
fn as_many_calls_are_under_way_as_a_tenant_may_have() {
    let (world, upstream) = (World::new(), Upstream::answering(None));
    let slow =
        format!("[routes.slow]\nupstream = \"http://{}\"\neffects = \"keyed\"\n", upstream.address);
    let gateway = serve(&world, "", &format!("{slow}[tenants.acme]\nconcurrency_max = 1\n"));
    let [acme, bolt] = ["acme", "bolt"].map(|tenant| make(&gateway, tenant, "ada", &[]));
    std::thread::scope(|threads| {
        let first = threads.spawn(|| send(&gateway, &acme, "slow/a", "1", &[]));
        until("it is under way", || (upstream.calls() == 1).then_some(()));
        is_limit(&send(&gateway, &acme, "shared/a", "2", &[]), "concurrency_max");
        let others = threads.spawn(|| send(&gateway, &bolt, "slow/a", "1", &[]));
        until("another's is under way", || (upstream.calls() == 2).then_some(()));
        let joins = threads.spawn(|| send(&gateway, &acme, "slow/a", "1", &[]));
        upstream.set(201);
        for call in [first, others, joins] {
            assert_eq!(call.join().unwrap().status, 201);
        }
    });
    assert_eq!(upstream.calls(), 2);
    assert_eq!(send(&gateway, &acme, "shared/a", "2", &[]).status, 201, "its place is free again");
}

#[test]
fn what_several_nodes_keep_of_a_tenant_counts_together() {
    let Some(url) = postgres::database() else { return };
    let limits = "[tenants.acme]\nkept_bytes_max = \"1KiB\"\n";
    let key = "70".repeat(32);
    let worlds = [World::new(), World::new()];
    let nodes = worlds.each_ref().map(|world| {
        let data = world.path("data").display().to_string();
        configure(world, &format!("store = {url:?}\ndata = {data:?}\n"), limits);
        world.serve_in(&[("ONCEWARD_MASTER_KEY", &key)])
    });
    let acme = make(&nodes[0], "acme", "ada", &[]);
    let large = json!({"to": "shared/a", "body": "x".repeat(300)});
    let post = |node: &Gateway, key: &str| {
        let mut document: Value = large.clone();
        document["key"] = json!(key);
        ask(node, &acme, "POST /v1/operations", &document.to_string())
    };
    until("the other node knows the key", || {
        (ask(&nodes[1], &acme, "GET /v1/stats", "").status == 200).then_some(())
    });
    // 600 bytes and more of each, with its answer: there is no room for another.
    assert_eq!(post(&nodes[0], "1").status, 200);
    let mut tried = 0;
    until("the other node has counted it", || {
        tried += 1;
        let answer = post(&nodes[1], &format!("2-{tried}"));
        (answer.status == 429).then(|| is_limit(&answer, "kept_bytes_max"))
    });
}
