//! Nodes that are cut off from PostgreSQL and not from their upstreams: in both directions or in one,
//! told or in silence. Nothing is lost, nothing is done twice, and what a node had in hand when it was
//! taken for gone it does not send any more.

use std::time::Duration;

use onceward_proof::chance::Chance;
use onceward_proof::figures::{Figures, number, seed};
use onceward_proof::lost::{Passage, Wire};

use crate::crash_world::until;
use crate::nodes_load::PATIENT;
use crate::nodes_server::Database;
use crate::nodes_world::Cluster;

async fn wires(database: &Database, nodes: u64) -> (Vec<Wire>, Vec<String>) {
    let mut wires = Vec::new();
    for node in 0..nodes {
        wires.push(Wire::start(database.server, node).await);
    }
    let ledgers = wires.iter().map(|wire| database.url_at(&[wire.address])).collect();
    (wires, ledgers)
}

const WAYS: [Passage; 3] = [Passage::Cut, Passage::Silent, Passage::Deaf];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_cut_off_from_their_ledger_lose_nothing_and_do_nothing_twice() {
    let Some(database) = Database::shared() else { return };
    let (seed, cuts) = (seed(), number("TEST_NODE_CUTS", 4));
    let (mut figures, mut chance) = (Figures::of("nodes-cut-off", seed), Chance(seed));
    let (wires, ledgers) = wires(&database, 3).await;
    let mut cluster = Cluster::start(&ledgers, seed).await;
    let load = cluster.load(8, PATIENT);
    let mut longer_than_a_right = 0;
    for cut in 0..cuts {
        let node = chance.below(wires.len() as u64) as usize;
        let way = WAYS[chance.below(3) as usize];
        // In a long run some are cut off until others have judged what they had.
        let is_long = cut % 8 == 7;
        longer_than_a_right += u64::from(is_long);
        let off = if is_long { 22_000 } else { 200 + chance.below(1500) };
        wires[node].pass(way);
        tokio::time::sleep(Duration::from_millis(off)).await;
        wires[node].pass(Passage::Open);
        tokio::time::sleep(Duration::from_millis(chance.below(800))).await;
        cluster.expect_alive();
    }
    figures.count("cuts", cuts);
    figures.count("longer_than_a_right", longer_than_a_right);
    cluster.judge(load, &mut figures).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_had_taken_is_not_sent_by_it_once_another_has_judged_it() {
    let Some(database) = Database::shared() else { return };
    let (wires, mut ledgers) = wires(&database, 1).await;
    ledgers.push(database.url());
    let cluster = Cluster::of(&ledgers, 1, "").await;
    // The one that is cut off begins alone, so that it is the one that takes the work.
    let cut_off = cluster.started(0).await;
    wires[0].lose_next("SELECT bytes FROM body");
    let headers =
        [("idempotency-key", "taken"), ("onceward-delay", "1s"), ("prefer", "respond-async")];
    let answer = cut_off.line().await.ask("POST", "/to/once/things", &headers, b"{}").await;
    assert_eq!(answer.expect("an answer").status(), 202);
    until("the work to be taken, and not its request", async || wires[0].is_spent().then_some(()))
        .await;
    wires[0].pass(Passage::Cut);
    assert_eq!(cluster.auditor.arrivals(), 0, "it was sent before it was cut off");
    let other = cluster.started(1).await;
    let judged = other.rested("once", "taken").await;
    assert_eq!(judged["state"], "in_doubt", "{judged}");
    // A person vouches for it, so the other sends it.
    let path = format!("/v1/operations/{}/resolve", judged["id"].as_str().expect("an id"));
    let vouched = b"{\"as\":\"not-sent\",\"reason\":\"asked the upstream\"}";
    let json = [("content-type", "application/json")];
    let answer = other.line().await.ask("POST", &path, &json, vouched).await.expect("an answer");
    assert!(answer.status() < 300, "{answer:?}");
    assert_eq!(other.rested("once", "taken").await["state"], "done");
    wires[0].pass(Passage::Open);
    until("the node to be back", async || cut_off.is_ready().await.then_some(())).await;
    // What it had in hand comes to rest there too before it may end.
    let mut cut_off = cut_off;
    assert!(cut_off.stop().await.success(), "{}", cut_off.said());
    assert_eq!(cluster.auditor.arrived_with("taken").len(), 1);
}
