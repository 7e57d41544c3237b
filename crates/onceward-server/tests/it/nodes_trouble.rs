//! A server that refuses: statements that lose against others, too many connections, a ledger that is
//! read only or has no room. Callers come back later, and nothing is lost or done twice.

use std::process::{Child, Stdio};
use std::time::Duration;

use onceward_proof::figures::{Figures, number, seed};

use crate::crash_world::{Gateway, until};
use crate::nodes_load::PATIENT;
use crate::nodes_server::{Database, Server};
use crate::nodes_world::Cluster;

/// Of the statements that write operations, so many of a hundred lose.
fn trouble(percent: u32) -> String {
    format!(
        "CREATE OR REPLACE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$ \
         DECLARE codes text[] := '{{40P01,40001,55P03}}'; BEGIN \
         IF random() * 100 < {percent} THEN \
         RAISE EXCEPTION 'it lost' USING ERRCODE = codes[1 + floor(random() * 3)::int]; \
         END IF; RETURN NULL; END $$"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_that_lose_against_others_are_tried_again_whole() {
    let Some(database) = Database::shared() else { return };
    let (seed, seconds) = (seed(), number("TEST_TROUBLE_SECONDS", 6));
    let mut figures = Figures::of("nodes-conflicts", seed);
    let mut cluster = Cluster::start(&vec![database.url(); 2], seed).await;
    database.sql(&trouble(20));
    database.sql(
        "CREATE TRIGGER trouble AFTER INSERT OR UPDATE ON op \
         FOR EACH STATEMENT EXECUTE FUNCTION trouble()",
    );
    let load = cluster.load(6, PATIENT);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    database.sql(&trouble(0));
    cluster.judge(load, &mut figures).await;
}

/// A call that is refused while the ledger takes nothing, and says when to ask again.
async fn is_refused(node: &Gateway, key: &str) {
    until("a call to be refused", async || {
        let answer = node.call("/keyed/things", key, b"{}").await.ok()?;
        let is_refused = ["ledger-unavailable", "ledger-full"].contains(&&*answer.code());
        assert!(is_refused || answer.status() == 201, "{answer:?}");
        (is_refused && answer.header("retry-after").is_some()).then_some(())
    })
    .await;
}

async fn is_taken(node: &Gateway, key: &str) {
    until("a call to be taken", async || {
        let answer = node.call("/keyed/things", key, b"{}").await.ok()?;
        (answer.status() == 201).then_some(())
    })
    .await;
}

/// Ends the nodes' connections, so that what a setting says holds for all of them.
const CUT: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
    WHERE application_name = 'onceward'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_nothing_costs_no_call_and_no_node() {
    let Some(database) = Database::shared() else { return };
    let seed = seed();
    let mut figures = Figures::of("nodes-refused", seed);
    let mut cluster = Cluster::start(&vec![database.url(); 2], seed).await;
    let name = database.sql("SELECT current_database()");
    let full = "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
        RAISE SQLSTATE '53100' USING MESSAGE = 'no room'; END $$; \
        CREATE TRIGGER no_room BEFORE INSERT ON op FOR EACH STATEMENT EXECUTE FUNCTION no_room()";
    let read_only = format!("ALTER DATABASE {name} SET default_transaction_read_only");
    let troubles = [
        ("full", full.to_owned(), "DROP TRIGGER no_room ON op".to_owned()),
        (
            "read-only",
            format!("{read_only} = on"),
            format!("BEGIN READ WRITE; {read_only} = off; COMMIT"),
        ),
    ];
    for (trouble, begin, end) in &troubles {
        database.sql(begin);
        database.sql(CUT);
        for node in &cluster.nodes {
            is_refused(node, trouble).await;
        }
        cluster.expect_alive();
        database.sql(end);
        database.sql(CUT);
        for node in &cluster.nodes {
            is_taken(node, trouble).await;
        }
    }
    let load = cluster.load(6, PATIENT);
    tokio::time::sleep(Duration::from_secs(3)).await;
    figures.count("troubles", troubles.len());
    cluster.judge(load, &mut figures).await;
}

/// Someone who holds a connection; nothing is said where there was none to have.
fn hold(database: &Database) -> Child {
    let mut psql = database.psql("SELECT pg_sleep(600)");
    psql.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("psql")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_connection_to_have_a_node_waits_and_one_that_has_some_goes_on() {
    let few = ["max_connections=24", "client_connection_check_interval=100ms"];
    let Some(server) = Server::start(&few) else { return };
    let database = server.database();
    let mut cluster = Cluster::of(&vec![database.url(); 2], 1, "").await;
    let first = cluster.launch(0).await;
    is_taken(&first, "before").await;
    let mut holders: Vec<_> = (0..40).map(|_| hold(&database)).collect();
    until("the last connection to be taken", async || {
        let refused = database.try_sql("SELECT 1").err()?;
        refused.contains("too many clients").then_some(())
    })
    .await;
    let second = cluster.launch(1).await;
    is_refused(&second, "between").await;
    is_taken(&first, "between").await;
    for holder in &mut holders {
        // Some were let in nowhere, and ended.
        let _ = holder.kill();
        holder.wait().expect("its end");
    }
    is_taken(&second, "between").await;
    cluster.nodes.extend([first, second]);
    cluster.expect_alive();
    assert_eq!(cluster.auditor.arrivals(), 2);
}
