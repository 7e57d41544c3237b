//! The table of malformed and smuggling requests at the other edges: a guard, where the whole path is the
//! upstream's, and a source, where nothing shows who sends.

use std::collections::HashMap;

use onceward_proof::chance::Chance;
use onceward_proof::figures::{number, tell};
use serde_json::Value;

use crate::crash_world::{Gateway, World};
use crate::wire_head::{Edge, send_all, some, wrong_in};
use crate::wire_strict::{Arrived, Strict};
use crate::wire_table::Want;

/// Sends some of the table by `edge`, and says what is wrong with what became of it. What a key, an
/// option or a path has to be is another matter at another edge: there it may be refused or not.
async fn differentials(
    gateway: &Gateway,
    edge: Edge,
    strict: &Strict,
    path: impl Fn(&str) -> String,
) -> Vec<String> {
    let count = number("TEST_WIRE_REQUESTS", 1500) as usize / 2;
    let mut cases = some(count, &mut Chance(number("TEST_SEED", 1)));
    for (case, _) in &mut cases {
        if ["start line", "header", "key", "size"].contains(&case.kind) {
            case.want = Want::Either;
            case.body = None;
        }
    }
    let heard = send_all(edge, cases).await;
    gateway.quiet().await;
    let mut arrived = HashMap::<String, Vec<Arrived>>::new();
    for (at, arrivals) in strict.arrived() {
        arrived.entry(path(&at)).or_default().extend(arrivals);
    }
    tell(&format!("{}: {count} requests, {} arrived", edge.path, strict.arrivals()));
    assert!(strict.arrivals() > 0);
    assert!(!gateway.said().contains("panicked"), "{}", gateway.said());
    wrong_in(&heard, strict, &arrived)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_a_guard_a_smuggling_request_is_refused_or_arrives_once_in_our_own_framing() {
    let strict = Strict::behind_a_guard().await;
    let routes = format!(
        "[routes.strict]\nlisten = \"127.0.0.1:0\"\nupstream = \"http://{}\"\neffects = \"keyed\"\ntimeout = \"20s\"\nkey.missing = \"make\"\n",
        strict.address
    );
    let world = World::with(1, &routes).await;
    let gateway = world.start().await;
    let said = gateway.said();
    let listens = said.lines().find(|line| line.contains("a guard listens")).expect("a guard");
    let line: Value = serde_json::from_str(listens).expect("a line of the log");
    let address = line["address"].as_str().and_then(|address| address.parse().ok());
    let edge = Edge { address: address.expect("its address"), path: "/" };
    let wrong = differentials(&gateway, edge, &strict, str::to_owned).await;
    assert!(wrong.is_empty(), "{} differentials:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_a_source_a_smuggling_request_is_refused_or_arrives_once_in_our_own_framing() {
    let strict = Strict::start().await;
    let routes = format!(
        "[sources.hook]\nverify = {{ scheme = \"none\" }}\nid = {{ header = \"idempotency-key\" }}\ndeliver = \"http://{}/in\"\n",
        strict.address
    );
    let world = World::with(1, &routes).await;
    let gateway = world.start().await;
    let edge = Edge { address: gateway.address, path: "/in/hook?at=/" };
    // Its path is the source's own, and what the provider says stands in the query.
    let path = |at: &str| at.strip_prefix("/in?at=").unwrap_or(at).to_owned();
    let wrong = differentials(&gateway, edge, &strict, path).await;
    assert!(wrong.is_empty(), "{} differentials:\n{}", wrong.len(), wrong.join("\n"));
}
