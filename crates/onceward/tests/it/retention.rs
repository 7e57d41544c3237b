//! A shared ledger forgets by days: a day goes whole once nothing of it has to be kept, and what is
//! still needed of it stays.

use std::time::Duration;

use bytes::Bytes;
use onceward::clock::{Clock as _, SystemClock};
use onceward::core::id::OperationId;
use onceward::core::lease::Session;
use onceward::core::operation::{Act, Deed, Event, Operation, State};
use onceward::core::policy::Mode;
use onceward::core::time::Timestamp;
use onceward::store::contract::{done, operation};
use onceward::store::{Birth, Remembered, Slot, Store, StoreError, Which, Write};
use tokio_postgres::NoTls;

use crate::postgres;

/// An operation that is born at `at`.
fn born(n: u64, at: Timestamp) -> Operation {
    let mut made = operation(n, &format!("k{n}"), "r", Mode::Held);
    made.intent_mut().id = OperationId::new(at.as_millis() << 15 | n, n);
    made.intent_mut().created_at = at;
    made
}

async fn remember(store: &dyn Store, operation: Operation) -> Operation {
    let request = Bytes::from(format!("request {}", operation.key));
    match store.remember(Birth { operation, request, replaces: None }).await.unwrap() {
        Remembered::Fresh(operation) => operation,
        Remembered::Known(known) => panic!("{} is known", known.key),
    }
}

async fn settle(store: &dyn Store, operation: &Operation, at: Timestamp) -> Operation {
    let started = operation.after(Event::Started(Session(1)), at).unwrap();
    let write = |operation, answer| Write { operation, answer, visible: false };
    let started = store.commit(write(started, None)).await.unwrap();
    let answer = Some((Slot::Outcome, Bytes::from_static(b"answer")));
    store.commit(write(done(&started, at), answer)).await.unwrap()
}

async fn tables(url: &str, like: &str) -> Vec<String> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    let sql = "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relname ~ $1 ORDER BY 1";
    let rows = client.query(sql, &[&like]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_goes_whole_and_what_is_still_needed_of_it_stays() {
    let Some(server) = postgres::server() else { return };
    let url = server.database().await;
    let store = postgres::open(&url).await;
    let now = SystemClock.now();
    let today = now.as_micros() / 86_400_000_000;
    let mut settled = Vec::new();
    for n in 1..=20 {
        settled.push(settle(&store, &remember(&store, born(n, now)).await, now).await);
    }
    let open = remember(&store, born(99, now)).await;
    let key = |operation: &Operation| Which::Key(operation.scope.digest(&operation.key));

    let window_over = now.plus(settled[0].window + Duration::from_hours(48));
    store.sweep(window_over, 0, 100).await.unwrap();
    assert!(tables(&url, &format!("^body_{today}$")).await.is_empty(), "its bodies went");
    assert!(!tables(&url, &format!("^op_{today}$")).await.is_empty(), "its marks stay");
    assert_eq!(store.body(open.request.unwrap()).await.unwrap(), "request k99");
    let known = store.find(key(&settled[0])).await.unwrap().unwrap();
    assert_eq!((known.id, known.state), (settled[0].id, State::Done));
    let born_again = |n| Birth {
        operation: born(n, window_over),
        request: Bytes::from_static(b"new"),
        replaces: None,
    };
    let again = store.remember(born_again(1)).await.unwrap();
    assert!(matches!(again, Remembered::Known(known) if known.id == settled[0].id));

    let over = window_over.plus(settled[0].tombstone);
    store.sweep(over, 0, 100).await.unwrap();
    assert!(tables(&url, &format!("^(op|asked)_{today}$")).await.is_empty(), "the day is gone");
    assert_eq!(store.find(key(&settled[0])).await.unwrap(), None);
    assert_eq!(store.find(Which::Id(settled[3].id)).await.unwrap(), None);
    assert_eq!(store.find(key(&open)).await.unwrap(), Some(open.clone()));
    assert_eq!(store.body(open.request.unwrap()).await.unwrap(), "request k99");
    assert!(matches!(store.remember(born_again(1)).await.unwrap(), Remembered::Fresh(_)));
    let last = settle(&store, &open, over).await;
    assert_eq!(store.find(key(&last)).await.unwrap().map(|found| found.state), Some(State::Done));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_did_not_drop_a_day_learns_that_its_keys_are_free() {
    let Some(server) = postgres::server() else { return };
    let url = server.database().await;
    let (one, other) = (postgres::open(&url).await, postgres::open(&url).await);
    let now = SystemClock.now();
    let old = settle(&one, &remember(&one, born(1, now)).await, now).await;
    let over = now.plus(old.window + old.tombstone + Duration::from_hours(72));
    one.sweep(over, 0, 100).await.unwrap();
    // What the sweep does to keys is no more than tidiness: here the key is as it would be before.
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    let digest = old.scope.digest(&old.key).0;
    client.execute("DELETE FROM key WHERE digest = $1", &[&&digest[..]]).await.unwrap();
    let uuid = format!("{:032x}", old.id.as_u128());
    let sql = "INSERT INTO key VALUES ($1, $2::text::uuid)";
    client.execute(sql, &[&&digest[..], &uuid]).await.unwrap();
    let fresh = remember(&other, born(1, over)).await;
    assert_eq!(one.find(Which::Key(old.scope.digest(&old.key))).await.unwrap(), Some(fresh));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_whose_windows_grew_meanwhile_keeps_its_answers() {
    let Some(server) = postgres::server() else { return };
    let store = postgres::open(&server.database().await).await;
    let now = SystemClock.now();
    let old = settle(&store, &remember(&store, born(1, now)).await, now).await;
    let late = remember(&store, born(2, now)).await;
    let body_of = |operation: &Operation| operation.outcome.as_ref().unwrap().answer.unwrap();
    let day = Duration::from_hours(24);
    // What is known of the day is looked up here, and is not true any more later.
    store.sweep(now.plus(2 * day), 0, 100).await.unwrap();
    let act = Act { deed: Deed::Extended, at: now, who: "anna".into(), reason: "r".into() };
    let longer = old.after(Event::Extended(act, old.window + 9 * day), now.plus(2 * day)).unwrap();
    let longer =
        store.commit(Write { operation: longer, answer: None, visible: true }).await.unwrap();
    let late = settle(&store, &late, now.plus(3 * day)).await;
    store.sweep(now.plus(old.window + 2 * day), 0, 100).await.unwrap();
    for kept in [&longer, &late] {
        assert_eq!(store.body(body_of(kept)).await.unwrap(), "answer");
    }
    store.sweep(now.plus(old.window + 12 * day), 0, 100).await.unwrap();
    assert!(store.body(body_of(&longer)).await.is_err(), "then it goes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_went_while_it_was_read_is_forgotten_and_one_that_is_lost_is_damage() {
    let Some(server) = postgres::server() else { return };
    let url = server.database().await;
    let (one, other) = (postgres::open(&url).await, postgres::open(&url).await);
    // Of a day long ago, so that it goes row by row and no day of bodies with it.
    let old = operation(1, "k", "r", Mode::Held);
    let at = old.created_at;
    let read = settle(&one, &remember(&one, old).await, at).await;
    let body_of = |operation: &Operation| operation.outcome.as_ref().unwrap().answer.unwrap();
    assert_eq!(one.body_of(&read, body_of(&read)).await.unwrap(), "answer");
    // Here one of them is about to read it.
    other.sweep(at.plus(read.window), 0, 100).await.unwrap();
    let gone = one.body_of(&read, body_of(&read)).await;
    assert!(matches!(gone, Err(StoreError::Away(_))), "{gone:?}");

    let kept = settle(&one, &remember(&one, operation(2, "l", "r", Mode::Held)).await, at).await;
    postgres::run(&url, "DELETE FROM body").await;
    let lost = one.body_of(&kept, body_of(&kept)).await;
    assert!(matches!(lost, Err(StoreError::Damaged(_))), "{lost:?}");
}
