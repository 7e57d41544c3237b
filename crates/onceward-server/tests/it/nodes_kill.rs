//! Three nodes on one ledger, killed and paused at random under load: nothing that was acknowledged
//! is lost, nothing is done twice, and every duplicate gets the first answer at whichever node.

use std::time::{Duration, Instant};

use onceward_proof::chance::Chance;
use onceward_proof::figures::{Figures, number, seed};
use rustix::process::Signal;

use crate::crash_world::until;
use crate::nodes_server::Database;
use crate::nodes_world::Cluster;

const NODES: usize = 3;

/// Longer than a node's right lasts, and than another takes to notice.
const PAUSE: Duration = Duration::from_secs(21);

/// Callers do not stand still with a node that does.
const HANGS_UP: Duration = Duration::from_millis(700);

/// Kills for each pause.
const KILLS: u64 = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_killed_and_paused_under_load_lose_nothing_and_do_nothing_twice() {
    let Some(database) = Database::shared() else { return };
    let (seed, kills) = (seed(), number("TEST_NODE_KILLS", KILLS));
    let mut figures = Figures::of("nodes-killed", seed);
    let mut chance = Chance(seed);
    let mut cluster = Cluster::start(&vec![database.url(); NODES], seed).await;
    let load = cluster.load(16, HANGS_UP);
    let mut rounds = 0;
    let mut killed = 0;
    while killed < kills {
        let paused = chance.below(NODES as u64) as usize;
        cluster.nodes[paused].signal(Signal::STOP);
        let began = Instant::now();
        for _ in 0..KILLS.min(kills - killed) {
            tokio::time::sleep(Duration::from_millis(50 + chance.below(700))).await;
            let victim = (paused + 1 + chance.below(NODES as u64 - 1) as usize) % NODES;
            cluster.replace(victim).await;
            killed += 1;
        }
        tokio::time::sleep(PAUSE.saturating_sub(began.elapsed())).await;
        cluster.nodes[paused].signal(Signal::CONT);
        rounds += 1;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    figures.count("nodes", NODES);
    figures.count("kills", killed);
    figures.count("pauses", rounds);
    cluster.judge(load, &mut figures).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_paused_node_had_in_hand_is_judged_and_its_late_answer_ends_the_doubt() {
    let Some(database) = Database::shared() else { return };
    let cluster = Cluster::start(&vec![database.url(); 2], 1).await;
    let [paused, other] = &cluster.nodes[..] else { return };
    let caller = {
        let (address, path) = (paused.address, "/to/once/gate/things");
        tokio::spawn(async move {
            let headers = [("idempotency-key", "late"), ("content-type", "application/json")];
            let mut line = onceward_proof::line::Line::connect(address).await?;
            line.ask("POST", path, &headers, b"{}").await
        })
    };
    until("the attempt to arrive", async || (cluster.auditor.arrivals() > 0).then_some(())).await;
    paused.signal(Signal::STOP);
    let judged = other.rested("once", "late").await;
    assert_eq!(judged["state"], "in_doubt", "{judged}");
    let refused = other.call("/once/gate/things", "late", b"{}").await.expect("an answer");
    assert_eq!((refused.status(), refused.code().as_str()), (409, "outcome-unknown"));
    cluster.auditor.open_gate();
    paused.signal(Signal::CONT);
    let answer = caller.await.expect("a caller").expect("an answer");
    assert_eq!(answer.status(), 201, "{answer:?}");
    let again = other.call("/once/gate/things", "late", b"{}").await.expect("an answer");
    assert_eq!((again.status(), &again.body), (201, &answer.body));
    assert_eq!(cluster.auditor.arrivals(), 1);
}
