//! PostgreSQL cut off, restarted and killed under load: callers are told to come back while it is
//! away, nothing that was acknowledged is lost, and the nodes go on by themselves.

use std::time::{Duration, Instant};

use onceward_proof::figures::{Figures, number, seed};
use onceward_proof::line::Line;
use rustix::process::Signal;

use crate::crash_world::{Gateway, until};
use crate::nodes_load::PATIENT;
use crate::nodes_server::Server;
use crate::nodes_world::Cluster;

const LONGER_THAN_A_RIGHT: Duration = Duration::from_secs(17);

/// Ends every connection but the one that says so.
const CUT: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
    WHERE application_name = 'onceward'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_server_is_away_callers_come_back_later_and_nothing_is_lost() {
    let Some(mut server) = Server::start(&[]) else { return };
    let (seed, rounds) = (seed(), number("TEST_SERVER_ROUNDS", 1));
    let mut figures = Figures::of("nodes-server-away", seed);
    let mut cluster = Cluster::start(&vec![server.database().url(); 2], seed).await;
    let load = cluster.load(6, PATIENT);
    let (mut cuts, mut longest) = (0, Duration::ZERO);
    for round in 0..rounds {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let cut = server.database().sql(CUT);
            cuts += cut.parse::<u64>().expect("a number");
        }
        for (name, signal) in [("int", Signal::INT), ("quit", Signal::QUIT), ("kill", Signal::KILL)]
        {
            tokio::time::sleep(Duration::from_millis(700)).await;
            server.end(signal);
            let key = format!("away-{name}-{round}");
            for node in &cluster.nodes {
                is_told_to_come_back(node, &key).await;
            }
            cluster.expect_alive();
            server.run();
            let began = Instant::now();
            for node in &cluster.nodes {
                until("a node to go on", async || {
                    let answer = node.call("/keyed/things", &key, b"{}").await.ok()?;
                    (answer.status() == 201).then_some(())
                })
                .await;
            }
            longest = longest.max(began.elapsed());
            assert_eq!(cluster.auditor.arrived_with(&key).len(), 1, "{key}");
        }
    }
    figures.count("connections_cut", cuts);
    figures.count("server_ends", rounds * 3);
    figures.count("resumed_after_ms_max", longest.as_millis());
    cluster.judge(load, &mut figures).await;
}

/// A call that cannot be remembered is refused, and says when to ask again.
async fn is_told_to_come_back(node: &Gateway, key: &str) {
    until("a node to say that its ledger is away", async || {
        let answer = node.call("/keyed/things", key, b"{}").await.ok()?;
        assert_eq!(answer.code(), "ledger-unavailable", "{answer:?}");
        (answer.status() == 503 && answer.header("retry-after").is_some()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_away_for_longer_than_a_right_costs_no_node_what_it_has_in_hand() {
    let Some(mut server) = Server::start(&[]) else { return };
    let cluster = Cluster::start(&vec![server.database().url(); 2], 1).await;
    let mut callers = Vec::new();
    for node in &cluster.nodes {
        let (address, key) = (node.address, node.id().to_string());
        callers.push(tokio::spawn(async move {
            let headers = [("idempotency-key", key.as_str()), ("content-type", "application/json")];
            Line::connect(address).await?.ask("POST", "/to/once/gate/things", &headers, b"{}").await
        }));
    }
    until("both attempts to arrive", async || (cluster.auditor.arrivals() == 2).then_some(()))
        .await;
    server.end(Signal::KILL);
    tokio::time::sleep(LONGER_THAN_A_RIGHT).await;
    server.run();
    until("both nodes to have their right again", async || {
        let sessions = "SELECT count(*) FROM session WHERE lapses_at > now() + interval '11 s'";
        (server.database().sql(sessions) == "2").then_some(())
    })
    .await;
    for node in &cluster.nodes {
        let operation = node.get(&format!("/v1/keys/once/{}", node.id())).await;
        assert_eq!(operation["state"], "delivering", "{operation}");
    }
    cluster.auditor.open_gate();
    for caller in callers {
        let answer = caller.await.expect("a caller").expect("an answer");
        assert_eq!(answer.status(), 201, "{answer:?}");
    }
    assert_eq!(cluster.auditor.arrivals(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_told_is_there_though_the_server_is_killed_at_once() {
    // A server that writes its log only because a commit waits for it.
    let Some(mut server) = Server::start(&["wal_writer_delay=10s"]) else { return };
    let cluster = Cluster::start(&[server.database().url()], 1).await;
    let node = &cluster.nodes[0];
    for round in 0..3 {
        let key = format!("told-{round}");
        let told = node.call("/once/things", &key, b"{}").await.expect("an answer");
        assert_eq!(told.status(), 201, "{told:?}");
        server.end(Signal::KILL);
        server.run();
        let sql = "SELECT count(*) FROM op WHERE kind = 3";
        let done = server.database().sql(sql);
        assert_eq!(done, format!("{}", round + 1), "what was told is there");
    }
}
