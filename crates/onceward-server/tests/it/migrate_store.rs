//! A gateway's ledger moves into PostgreSQL, and a node on it goes on where the old one stopped.

use std::fmt::Write as _;

use rustix::process::Signal;

use crate::postgres;
use crate::world::{Upstream, World, route, until};

const SECRET: (&str, &str) = ("authorization", "Bearer sk_of_the_caller");

#[test]
fn a_node_on_the_moved_ledger_goes_on_where_the_old_one_stopped() {
    let Some(url) = postgres::database() else { return };
    let world = World::new();
    let (done, waits) = (Upstream::answering(Some(201)), Upstream::answering(Some(503)));
    let (lost, silent) = (Upstream::answering(Some(500)), Upstream::answering(None));
    let mut routes = route("done", done.address) + &route("waits", waits.address);
    for (name, upstream) in [("lost", &lost), ("silent", &silent), ("refuses", &lost)] {
        let _ = write!(
            routes,
            "[routes.{name}]\nupstream = \"http://{}\"\neffects = \"non-idempotent\"\n",
            upstream.address
        );
    }
    world.write("onceward.toml", &routes);
    let gateway = world.serve();
    let access = gateway.run(&["access", "create", "shop"]).ok();
    let ours = format!("Bearer {}", access.trim());
    let with = |key: &'static str| {
        [("idempotency-key", key), ("onceward-authorization", ours.as_str()), SECRET]
    };
    let first = gateway.call("POST", "/to/done/orders", &with("done"), "{\"n\":1}");
    assert_eq!((first.status, first.text().as_str()), (201, "done"));
    gateway.call("POST", "/to/done/orders", &with("done"), "{\"n\":1}");
    let mut accepted = with("waits").to_vec();
    accepted.push(("prefer", "respond-async"));
    assert_eq!(gateway.call("POST", "/to/waits/orders", &accepted, "{\"n\":2}").status, 202);
    gateway.call("POST", "/to/lost/orders", &with("lost"), "{}");
    lost.set(400);
    let mut refused = with("refused").to_vec();
    refused.push(("prefer", "respond-async"));
    gateway.call("POST", "/to/refuses/orders", &refused, "{}");
    let mut under_way = with("under-way").to_vec();
    under_way.push(("prefer", "respond-async"));
    gateway.call("POST", "/to/silent/orders", &under_way, "{}");
    gateway.until_state("refused", "dead");
    until("both were tried", || (waits.calls() > 0 && silent.calls() == 1).then_some(()));
    // The count of duplicates is written from time to time.
    let id = first.header("onceward-operation").unwrap();
    until("it was counted", || {
        let shown = gateway.run(&["show", id, "--json"]).json();
        (shown["duplicates"]["count"] == 1).then_some(())
    });
    let said = gateway.run(&["migrate-store", "--to", &url]).failed(1);
    assert!(said.contains("stop the gateway"), "{said}");
    gateway.kill();

    let tried = world.run(&["migrate-store", "--to", &url, "--dry-run", "--json"]).json();
    let moved = world.run(&["migrate-store", "--to", &url, "--json"]).json();
    assert_eq!((&moved["operations"], &moved["keys"]), (&5.into(), &5.into()), "{moved}");
    for count in ["operations", "keys", "bodies", "bytes", "settings"] {
        assert_eq!(tried[count], moved[count], "{count}");
    }
    let said = world.run(&["migrate-store", "--to", &url]).failed(1);
    assert!(said.contains("is not empty") && said.contains("help:"), "{said}");

    // The new node has a data folder of its own, so it has to be given the master key.
    let new = World::new();
    new.write("onceward.toml", &format!("store = \"{url}\"\n{routes}"));
    let refused = new.run(&["serve", "--listen", "127.0.0.1:0"]).failed(1);
    assert!(refused.contains("is not the key of this ledger"), "{refused}");
    std::fs::copy(world.path("onceward-data/master.key"), new.path("onceward-data/master.key"))
        .unwrap();
    let before = (done.calls(), lost.calls(), silent.calls());
    let node = new.serve();
    let again = node.call("POST", "/to/done/orders", &with("done"), "{\"n\":1}");
    assert_eq!(again.header("idempotent-replayed"), Some("true"), "{again:?}");
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    assert_eq!(again.header("content-type"), first.header("content-type"));
    assert_eq!(again.header("onceward-operation"), first.header("onceward-operation"));
    let shown = node.run(&["show", id, "--json"]).json();
    assert!(shown["duplicates"]["count"].as_u64() >= Some(1), "{shown}");
    assert_eq!(
        node.call("POST", "/to/done/orders", &with("done"), "{\"n\":2}").status,
        409,
        "another request under a known key"
    );
    let unknown = [("onceward-authorization", "Bearer ow_unknown")];
    assert_eq!(node.call("GET", "/v1/operations", &unknown, "").status, 401);
    node.until_state("lost", "in_doubt");
    node.until_state("refused", "dead");
    node.until_state("under-way", "in_doubt");
    waits.set(201);
    node.until_state("waits", "done");
    assert_eq!(waits.authorization().as_deref(), Some(SECRET.1), "its credential was opened");
    assert_eq!((done.calls(), lost.calls(), silent.calls()), before, "nothing is sent twice");
    node.signal(Signal::TERM);
    assert!(node.ended().success());
}

#[test]
fn what_cannot_be_moved_is_said_with_the_mend() {
    let world = World::new();
    let nowhere = "postgres://nobody:s3cret@127.0.0.1:1/none";
    let said = world.run(&["migrate-store", "--to", nowhere]).failed(3);
    assert!(said.contains("there is no ledger"), "{said}");
    assert!(!world.path("onceward-data").exists(), "none was made");
    drop(world.serve());
    let said = world.run(&["migrate-store", "--to", nowhere]).failed(1);
    assert!(said.contains("127.0.0.1:1/none") && said.contains("help:"), "{said}");
    assert!(!said.contains("s3cret"), "{said}");
    world.run(&["migrate-store", "--to", "sqlite:other/ledger.db"]).failed(2);
    world.write("onceward-data/quarantine", "");
    assert!(world.run(&["migrate-store", "--to", nowhere]).failed(1).contains("quarantine"));
}
