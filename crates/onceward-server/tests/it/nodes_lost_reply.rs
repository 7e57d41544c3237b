//! Commits whose reply is lost on the wire to PostgreSQL: nothing is done twice, nothing is denied
//! that was done, and nothing is left under way.

use std::net::SocketAddr;
use std::time::Duration;

use onceward_proof::figures::{Figures, number, seed};
use onceward_proof::lost::Wire;

use crate::crash_world::until;
use crate::nodes_load::PATIENT;
use crate::nodes_server::Database;
use crate::nodes_world::Cluster;

/// A key that may run again when its window is over.
const AGAIN: &str = r#"
[routes.again]
upstream = "http://AUDITOR/keyed"
effects = "keyed"
window = "1s"
on_expired = "execute"
"#;

async fn wires(database: &Database, nodes: u64, seed: u64) -> Vec<Wire> {
    let mut wires = Vec::new();
    for node in 0..nodes {
        wires.push(Wire::start(database.server, seed + node).await);
    }
    wires
}

fn ledgers(database: &Database, wires: &[Wire]) -> Vec<String> {
    let by_way_of = |place: SocketAddr| database.url_at(&[place]);
    wires.iter().map(|wire| by_way_of(wire.address)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_whose_replies_are_lost_are_done_once_and_known() {
    let Some(database) = Database::shared() else { return };
    let (seed, seconds) = (seed(), number("TEST_LOST_SECONDS", 8));
    let mut figures = Figures::of("nodes-replies-lost", seed);
    let wires = wires(&database, 2, seed).await;
    let mut cluster = Cluster::start(&ledgers(&database, &wires), seed).await;
    let load = cluster.load(6, PATIENT);
    for wire in &wires {
        wire.lose_percent(8);
    }
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let lost = || wires.iter().map(|wire| wire.passed_and_lost().1).sum::<u64>();
    until("replies to be lost", async || (lost() > 4 * seconds).then_some(())).await;
    for wire in &wires {
        wire.lose_percent(0);
    }
    let counted: Vec<_> = wires.iter().map(Wire::passed_and_lost).collect();
    let lost = lost();
    figures.count("replies_lost", lost);
    figures.count("replies_passed", counted.iter().map(|(passed, _)| passed).sum::<u64>());
    cluster.judge(load, &mut figures).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_reply_to_each_kind_of_write_changes_nothing_for_the_caller() {
    let Some(database) = Database::shared() else { return };
    let wires = wires(&database, 1, 1).await;
    let mut cluster = Cluster::of(&ledgers(&database, &wires), 1, AGAIN).await;
    let (node, wire) = (cluster.launch(0).await, &wires[0]);
    cluster.nodes.push(node);
    let node = &cluster.nodes[0];
    for (key, words) in [("born", "INSERT INTO key"), ("settled", "UPDATE op")] {
        wire.lose_next(words);
        let answer = node.call("/once/things", key, b"{}").await.expect("an answer");
        assert_eq!(answer.status(), 201, "{key}: {answer:?}");
        assert!(wire.is_spent(), "{key}");
    }
    // What may not be sent yet is taken from the ledger later.
    for (key, words) in [("taken", "COMMIT"), ("read", "SELECT bytes FROM body")] {
        wire.lose_next(words);
        let headers =
            [("idempotency-key", key), ("onceward-delay", "1s"), ("prefer", "respond-async")];
        let answer = node.line().await.ask("POST", "/to/once/things", &headers, b"{}").await;
        assert_eq!(answer.expect("an answer").status(), 202);
        let rested = node.rested("once", key).await;
        assert_eq!(rested["state"], "done", "{key}: {rested}");
        assert!(wire.is_spent(), "{key}");
    }

    let first = node.call("/again/things", "again", b"{}").await.expect("an answer");
    assert_eq!(first.status(), 201, "{first:?}");
    wire.lose_next("COMMIT");
    let id = |answer: &onceward_proof::line::Message| {
        answer.header("onceward-operation").unwrap_or_default().to_owned()
    };
    until("the key to run again", async || {
        let answer = node.call("/again/things", "again", b"{}").await.ok()?;
        assert_eq!(answer.status(), 201, "{answer:?}");
        (id(&answer) != id(&first)).then_some(())
    })
    .await;
    assert!(wire.is_spent());
    node.quiet().await;
    for key in ["born", "settled", "taken", "read"] {
        assert_eq!(cluster.auditor.arrived_with(key).len(), 1, "{key}");
    }
}
