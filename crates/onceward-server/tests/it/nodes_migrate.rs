//! Migrations: broken off by the end of a node or of the server the next start finishes them, and
//! what a later release adds under load disturbs nobody.

use std::time::Duration;

use onceward_proof::chance::Chance;
use onceward_proof::figures::{Figures, number, seed};
use onceward_proof::lost::Wire;
use rustix::process::Signal;

use crate::crash_world::{Gateway, spawn, until};
use crate::nodes_load::PATIENT;
use crate::nodes_server::{Database, Server};
use crate::nodes_world::Cluster;

/// What a later release adds: to every table a column, and a table more.
const EXPANSION: &str = "\
    DO $$ DECLARE name text; BEGIN \
    FOREACH name IN ARRAY '{key,op,body,lane,session,asked,day,retention,setting}'::text[] LOOP \
    EXECUTE format('ALTER TABLE %I ADD COLUMN later text NOT NULL DEFAULT ''x''', name); \
    END LOOP; END $$; \
    CREATE TABLE later (id uuid PRIMARY KEY); \
    INSERT INTO migration VALUES (100, 1)";

/// Longer than a node takes from its start until its tables are made.
const START: u64 = 100;

/// The schema is there once, and whole.
fn expect_whole(database: &Database) {
    assert_eq!(database.sql("SELECT max(version) = count(*) FROM migration"), "t");
    let parts = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'key'::regclass";
    assert_eq!(database.sql(parts), "16");
    assert_eq!(database.sql("SELECT count(*) FROM retention"), "1");
}

async fn expect_in_use(node: &Gateway, key: &str) {
    until("the node to be ready", async || node.is_ready().await.then_some(())).await;
    let answer = node.call("/once/things", key, b"{}").await.expect("an answer");
    assert_eq!(answer.status(), 201, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_is_broken_off_is_finished_by_the_next_start() {
    let Some(mut server) = Server::start(&[]) else { return };
    let (seed, rounds) = (seed(), number("TEST_MIGRATION_ENDS", 4));
    let (mut figures, mut chance) = (Figures::of("nodes-migrations", seed), Chance(seed));
    let (mut unfinished, mut nodes_killed, mut servers_killed) = (0, 0, 0);
    for round in 0..rounds {
        let database = server.database().other(&format!("migrated_{round}"));
        let cluster = Cluster::of(&vec![database.url(); 3], seed, "").await;
        let (mut first, _said, _address) = spawn(cluster.command(0));
        let (mut second, _said, _address) = spawn(cluster.command(1));
        tokio::time::sleep(Duration::from_millis(chance.below(START))).await;
        // In every other round the server ends too.
        if round % 2 == 0 {
            server.end(Signal::KILL);
            server.run();
            servers_killed += 1;
        }
        first.kill().expect("a node that ends");
        unfinished += u64::from(database.try_sql("SELECT FROM retention").is_err());
        nodes_killed += 1;
        let third = cluster.started(2).await;
        expect_in_use(&third, "third").await;
        expect_whole(&database);
        assert!(matches!(second.try_wait(), Ok(None)), "the other node ended by itself");
        for child in [&mut first, &mut second] {
            // One of them is gone already.
            let _ = child.kill();
            child.wait().expect("its end");
        }
        assert_eq!(cluster.auditor.arrivals(), 1);
    }
    assert!(servers_killed > 0, "no server ended");
    figures.count("migrations", rounds);
    figures.count("unfinished_then", unfinished);
    figures.count("nodes_killed", nodes_killed);
    figures.count("servers_killed", servers_killed);
    figures.tell(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_whose_replies_are_lost_while_they_migrate_start_all_the_same() {
    let Some(database) = Database::shared() else { return };
    let mut wires = Vec::new();
    for node in 0..2 {
        let wire = Wire::start(database.server, 7 + node).await;
        wire.lose_percent(40);
        wire.lose_next("CREATE TABLE key");
        wires.push(wire);
    }
    let ledgers: Vec<_> = wires.iter().map(|wire| database.url_at(&[wire.address])).collect();
    let cluster = Cluster::of(&ledgers, 1, "").await;
    let (one, other) = tokio::join!(cluster.started(0), cluster.started(1));
    until("a migration whose reply is lost", async || {
        wires.iter().any(Wire::is_spent).then_some(())
    })
    .await;
    for wire in &wires {
        wire.lose_percent(0);
    }
    expect_in_use(&one, "one").await;
    expect_in_use(&other, "other").await;
    expect_whole(&database);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_from_before_and_after_an_expansion_work_side_by_side() {
    let Some(database) = Database::shared() else { return };
    let seed = seed();
    let mut figures = Figures::of("nodes-expansion", seed);
    let mut cluster = Cluster::start(&vec![database.url(); 2], seed).await;
    let load = cluster.load(6, PATIENT);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    // As a migration does: whole, or again where it and a node stood in each other's way.
    until("the expansion", async || match database.try_sql(EXPANSION) {
        Ok(_) => Some(()),
        Err(why) if why.contains("deadlock detected") => None,
        Err(why) => panic!("{why}"),
    })
    .await;
    cluster.restart(1).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(database.sql("SELECT count(*) > 0 FROM op WHERE later = 'x'"), "t");
    cluster.judge(load, &mut figures).await;
}
