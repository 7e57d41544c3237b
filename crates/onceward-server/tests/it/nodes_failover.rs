//! A primary with a synchronous standby: the primary is killed, the standby promoted, and the nodes
//! follow. Nothing that was acknowledged is lost, though the old primary comes back.

use std::time::{Duration, Instant};

use onceward_proof::figures::{Figures, seed};
use rustix::process::Signal;

use crate::crash_world::until;
use crate::nodes_load::PATIENT;
use crate::nodes_server::Server;
use crate::nodes_world::Cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_follow_a_promoted_standby_and_nothing_acknowledged_is_lost() {
    let Some(mut primary) = Server::start(&[]) else { return };
    let seed = seed();
    let mut figures = Figures::of("nodes-failover", seed);
    let standby = primary.standby();
    let before = primary.database();
    before.sql("ALTER SYSTEM SET synchronous_standby_names = '*'");
    before.sql("SELECT pg_reload_conf()");
    until("the standby to be synchronous", async || {
        (before.sql("SELECT sync_state FROM pg_stat_replication") == "sync").then_some(())
    })
    .await;
    let after = standby.database();
    let both = before.url_at(&[before.server, after.server]);
    let ledger = format!("{both}?target_session_attrs=read-write");
    let mut cluster = Cluster::start(&vec![ledger; 2], seed).await;
    let load = cluster.load(6, PATIENT);
    tokio::time::sleep(Duration::from_secs(3)).await;
    primary.end(Signal::KILL);
    let began = Instant::now();
    tokio::time::sleep(Duration::from_millis(500)).await;
    standby.promote();
    for node in &cluster.nodes {
        until("a node to follow", async || {
            let answer = node.call("/keyed/things", "follow", b"{}").await.ok()?;
            (answer.status() == 201).then_some(())
        })
        .await;
    }
    figures.count("resumed_after_ms", began.elapsed().as_millis());
    cluster.expect_alive();
    // The old one comes back and takes itself for the primary still: without a standby it commits
    // nothing, so nobody is told of what it has.
    primary.run();
    tokio::time::sleep(Duration::from_secs(2)).await;
    primary.end(Signal::KILL);
    cluster.expect_alive();
    cluster.judge(load, &mut figures).await;
}
