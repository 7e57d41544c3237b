//! A node that starts while PostgreSQL is away waits for it; what no wait would mend is said at once.

use rustix::process::Signal;

use crate::crash_world::{Gateway, until};
use crate::nodes_server::{Database, Server};
use crate::nodes_world::Cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_before_its_server_tells_callers_to_come_back_and_starts_by_itself() {
    let Some(mut server) = Server::start(&[]) else { return };
    server.end(Signal::KILL);
    let cluster = Cluster::of(&vec![server.database().url(); 2], 1, "").await;
    let (node, mut ended) = tokio::join!(cluster.started(0), cluster.started(1));
    let status = async |node: &Gateway, path: &str| {
        let answer = node.line().await.ask("GET", path, &[], &[]).await.expect("an answer");
        (answer.status(), answer.code())
    };
    let away = || (503, "ledger-unavailable".to_owned());
    for node in [&node, &ended] {
        assert_eq!(status(node, "/healthz").await, (200, String::new()));
        assert_eq!(status(node, "/readyz").await, away());
        assert_eq!(status(node, "/v1/operations").await, away());
        let answer = node.call("/once/things", "early", b"{}").await.expect("an answer");
        assert_eq!((answer.status(), answer.code()), away());
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
    }
    assert_eq!(ended.stop().await.code(), Some(0), "{}", ended.said());
    server.run();
    until("the node to be ready", async || node.is_ready().await.then_some(())).await;
    let answer = node.call("/once/things", "early", b"{}").await.expect("an answer");
    assert_eq!(answer.status(), 201, "{answer:?}");
    assert_eq!(cluster.auditor.arrivals(), 1);
}

/// The words with which a node ends that is started on this ledger.
async fn refused(ledger: &str, master_key: Option<&str>) -> String {
    let cluster = Cluster::of(&[ledger.to_owned()], 1, "").await;
    let mut command = cluster.command(0);
    if let Some(key) = master_key {
        command.env("ONCEWARD_MASTER_KEY", key);
    }
    let ended = Gateway::start(command).await.expect_err("its end");
    assert_eq!(ended.status.code(), Some(1), "{}", ended.said);
    ended.said
}

/// Whoever is called `locked` needs a password.
fn lock(database: &Database) {
    database.sql("CREATE ROLE locked LOGIN PASSWORD 'right'");
    let rules = database.sql("SHOW hba_file");
    let rule = |user: &str, how: &str| format!("('host all {user} 127.0.0.1/32 {how}')");
    let rules = format!(
        "COPY (VALUES {}, {}) TO '{rules}'",
        rule("locked", "scram-sha-256"),
        rule("all", "trust")
    );
    database.sql(&rules);
    database.sql("SELECT pg_reload_conf()");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_database_or_master_key_is_said_at_once() {
    let Some(server) = Server::start(&[]) else { return };
    let database = server.database();
    lock(&database);
    let place = database.server;
    let said = refused(&format!("postgres://locked:wrong@{place}/postgres"), None).await;
    assert!(said.contains("password authentication failed"), "{said}");
    assert!(!said.contains("wrong"), "{said}");
    let said = refused(&format!("postgres://postgres@{place}/nowhere"), None).await;
    assert!(said.contains("database \"nowhere\" does not exist"), "{said}");
    let first = Cluster::start(&[database.url()], 1).await;
    let said = refused(&database.url(), Some(&"ab".repeat(32))).await;
    assert!(said.contains("not the key of this ledger"), "{said}");
    drop(first);
    database.sql("INSERT INTO migration VALUES (100, 1), (101, 100)");
    let said = refused(&database.url(), None).await;
    assert!(said.contains("start a later release"), "{said}");
}
