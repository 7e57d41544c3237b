//! Several nodes on one database: who sweeps, whose rights hold, and what they agree upon.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onceward::clock::{Clock as _, SystemClock};
use onceward::core::lease::Session;
use onceward::core::operation::{Event, Operation};
use onceward::core::policy::Mode;
use onceward::store::contract::operation;
use onceward::store::postgres::PostgresStore;
use onceward::store::{Birth, Remembered, Store, Write};
use tokio::task::JoinSet;

use crate::postgres::{self, open, run};

async fn remember(store: &PostgresStore, n: u64) -> Operation {
    let operation = operation(n, &format!("k{n}"), "r", Mode::Held);
    let request = Bytes::from(format!("request {n}"));
    match store.remember(Birth { operation, request, replaces: None }).await.unwrap() {
        Remembered::Fresh(made) => made,
        Remembered::Known(_) => panic!("new"),
    }
}

async fn start(store: &PostgresStore, made: &Operation, session: Session) {
    let started = made.after(Event::Started(session), made.created_at).unwrap();
    store.commit(Write { operation: started, answer: None, visible: false }).await.unwrap();
}

/// Two nodes on one ledger.
async fn two(url: &str) -> [Arc<PostgresStore>; 2] {
    [Arc::new(open(url).await), Arc::new(open(url).await)]
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_sweeps_and_the_others_go_past_until_its_time_is_over() {
    let Some(server) = postgres::server() else { return };
    let url = server.database().await;
    let [one, other] = two(&url).await;
    let now = SystemClock.now();
    // Of a day long ago, so that it is among the rest.
    let old = remember(&one, 1).await;
    let bury = Event::Ruled(onceward::core::verdict::Verdict::Bury(
        onceward::core::operation::Death::Unsent,
        None,
    ));
    let gone = old.after(bury, old.created_at).unwrap();
    one.commit(Write { operation: gone, answer: None, visible: false }).await.unwrap();
    assert_eq!(one.sweep(old.created_at, 0, 9).await.unwrap().removed, 0, "too early");
    let swept = other.sweep(now, 0, 9).await.unwrap();
    assert_eq!((swept.removed, swept.next), (0, None), "the pass is the other's");
    run(&url, "UPDATE duty SET ends_at = now() - interval '1 s'").await;
    let swept = other.sweep(now, 0, 9).await.unwrap();
    assert_eq!(swept.removed, 1, "whoever comes first after that");
    remember(&one, 2).await;
    assert_eq!(one.sweep(now, 0, 9).await.unwrap().next, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_start_at_once_on_an_empty_database_agree_on_a_setting() {
    let Some(server) = postgres::server() else { return };
    for _ in 0..3 {
        let url = server.database().await;
        let mut starting = JoinSet::new();
        for node in 0..6_u8 {
            let url = url.clone();
            starting.spawn(async move {
                let store = open(&url).await;
                store.offer("key".to_owned(), Bytes::from(vec![node])).await.unwrap()
            });
        }
        let told = starting.join_all().await;
        assert!(told.iter().all(|value| value == &told[0]), "one holds: {told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_one_node_changes_wakes_the_others() {
    let Some(server) = postgres::server() else { return };
    let url = server.database().await;
    let [one, other] = two(&url).await;
    let woken = other.settings_changed();
    let wakes = async || tokio::time::timeout(Duration::from_secs(30), woken.notified()).await;
    wakes().await.expect("it begins to listen");
    one.set("a".to_owned(), Some(Bytes::from_static(b"v"))).await.unwrap();
    wakes().await.expect("a setting is there");
    one.set("a".to_owned(), None).await.unwrap();
    wakes().await.expect("a setting is gone");
    // A connection that was cut may have missed something.
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
        WHERE query = 'LISTEN onceward' AND datname = current_database()";
    run(&url, cut).await;
    wakes().await.expect("nothing is heard");
    wakes().await.expect("it listens again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_a_body_has_is_given_to_no_other() {
    let Some(server) = postgres::server() else { return };
    let url = server.database().await;
    let [one, other] = two(&url).await;
    let first = remember(&one, 1).await;
    // A server that takes another's place may not know which blocks are given away.
    run(&url, "SELECT setval('body_block', 0, false)").await;
    let second = remember(&other, 2).await;
    for (operation, request) in [(first, "request 1"), (second, "request 2")] {
        let stored = one.body(operation.request.unwrap()).await.unwrap();
        assert_eq!(stored, request);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_of_numbers_is_not_used_beyond_the_connection_that_took_it() {
    let Some(server) = postgres::server() else { return };
    let url = server.database().await;
    let store = open(&url).await;
    let block = |made: &Operation| made.request.unwrap().offset >> 12;
    let mut before = Vec::new();
    // One after the other, so that each of the writers has its turn.
    for n in 1..=9 {
        before.push(block(&remember(&store, n).await));
    }
    let cut = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity \
        WHERE application_name = 'onceward' AND datname = current_database()";
    run(&url, cut).await;
    for n in 11..=19 {
        let number = block(&remember(&store, n).await);
        assert!(!before.contains(&number), "block {number} of {before:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beats_that_come_together_after_the_server_was_away_all_count() {
    let Some(server) = postgres::server() else { return };
    let url = server.database().await;
    let mut nodes = Vec::new();
    for session in 1..=4 {
        let store = Arc::new(open(&url).await);
        store.beat(Session(session), 9).await.unwrap();
        start(&store, &remember(&store, session).await, Session(session)).await;
        nodes.push((store, Session(session)));
    }
    for _ in 0..50 {
        run(&url, "UPDATE session SET lapses_at = now() - interval '1 s'").await;
        let mut beating = JoinSet::new();
        for (store, session) in nodes.clone() {
            beating.spawn(async move { store.beat(session, 9).await });
        }
        for judged in beating.join_all().await {
            assert_eq!(judged, Ok(Vec::new()), "nobody waits, and nobody is taken for gone");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_lasts_by_the_servers_clock_whatever_the_nodes_think() {
    let Some(server) = postgres::server() else { return };
    for ahead in ["1 h", "-1 h"] {
        let url = server.database().await;
        // A server whose clock is not the node's.
        let clock = format!(
            "CREATE SCHEMA clock; CREATE FUNCTION clock.now() RETURNS timestamptz LANGUAGE sql \
             STABLE AS $$ SELECT pg_catalog.now() + interval '{ahead}' $$"
        );
        run(&url, &clock).await;
        let url = format!("{url} options='-c search_path=public,clock,pg_catalog'");
        let [one, other] = two(&url).await;
        one.beat(Session(1), 9).await.unwrap();
        start(&one, &remember(&one, 1).await, Session(1)).await;
        assert_eq!(other.beat(Session(2), 9).await, Ok(Vec::new()), "{ahead}: it has just beaten");
        run(&url, "UPDATE session SET lapses_at = lapses_at - interval '16 s' WHERE id = 1").await;
        let judged = other.beat(Session(2), 9).await.unwrap();
        assert_eq!(judged.len(), 1, "{ahead}: a lease has passed");
    }
}
