//! A shared ledger that a later release has changed: what it added is in nobody's way, what it took
//! away keeps this release out, and what it wrote in another shape is left alone.

use std::sync::Arc;

use bytes::Bytes;
use onceward::clock::{Clock as _, SystemClock};
use onceward::core::attempt::{Ended, Ending, Reached, Timings};
use onceward::core::id::OperationId;
use onceward::core::lease::Session;
use onceward::core::operation::{Event, Operation};
use onceward::core::policy::Mode;
use onceward::core::verdict::Verdict;
use onceward::store::contract::{self, done, operation};
use onceward::store::postgres::{PostgresOptions, PostgresStore};
use onceward::store::{Birth, Lane, Query, Remembered, Slot, Store, StoreError, Which, Write};
use tokio_postgres::NoTls;

use crate::postgres;

/// Each table has a column more, and there is a table more.
const EXPANDED: &str = "\
    DO $$ DECLARE name text; BEGIN \
    FOREACH name IN ARRAY '{key,op,body,lane,session,asked,day,retention,setting}'::text[] LOOP \
    EXECUTE format('ALTER TABLE %I ADD COLUMN later text NOT NULL DEFAULT ''x''', name); \
    END LOOP; END $$; \
    CREATE TABLE later (id uuid PRIMARY KEY, op uuid NOT NULL); \
    CREATE INDEX later_op ON op (later, id); \
    INSERT INTO migration VALUES (100, 1)";

async fn open(url: &str) -> Result<PostgresStore, StoreError> {
    PostgresStore::open(&PostgresOptions { url: url.to_owned(), ca_file: None }).await
}

/// A ledger that `sql` was run on after this release made it.
async fn changed(server: &postgres::Server, sql: &str) -> String {
    let url = server.database().await;
    drop(postgres::open(&url).await);
    postgres::run(&url, sql).await;
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_a_later_release_expanded_keeps_the_contract() {
    let Some(server) = postgres::server() else { return };
    contract::run(|| async {
        Arc::new(open(&changed(&server, EXPANDED).await).await.unwrap()) as Arc<dyn Store>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_a_later_release_contracted_is_refused() {
    let Some(server) = postgres::server() else { return };
    let url = changed(&server, "INSERT INTO migration VALUES (100, 1), (101, 100)").await;
    let refused = open(&url).await;
    let Err(StoreError::Unavailable(why)) = &refused else { panic!("{refused:?}") };
    assert!(why.contains("schema 100 or later"), "{why}");
}

fn birth(n: u64, key: &str) -> Birth {
    let mut operation = operation(n, key, "r", Mode::Accepted);
    operation.intent_mut().created_at = SystemClock.now();
    Birth { operation, request: Bytes::from(format!("request {key}")), replaces: None }
}

async fn remember(store: &dyn Store, n: u64, key: &str) -> Operation {
    match store.remember(birth(n, key)).await.unwrap() {
        Remembered::Fresh(operation) => operation,
        Remembered::Known(known) => panic!("{} is known", known.key),
    }
}

async fn rows(url: &str) -> Vec<(i64, Vec<u8>)> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    let rows = client.query("SELECT fence, row FROM op ORDER BY id", &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_later_release_wrote_in_another_shape_is_left_alone() {
    let Some(server) = postgres::server() else { return };
    let url = server.database().await;
    let store = postgres::open(&url).await;
    let now = SystemClock.now();
    remember(&store, 1, "waits").await;
    let commit = async |operation, answer| {
        store.commit(Write { operation, answer, visible: false }).await.unwrap()
    };
    let orphan = remember(&store, 2, "orphan").await;
    commit(orphan.after(Event::Started(Session(9)), now).unwrap(), None).await;
    let started = remember(&store, 3, "done").await.after(Event::Started(Session(9)), now).unwrap();
    let started = commit(started, None).await;
    let answer = Some((Slot::Outcome, Bytes::from_static(b"answer")));
    let ended = commit(done(&started, now), answer).await;
    postgres::run(&url, "UPDATE op SET row = set_byte(row, 0, 200)").await;
    let before = rows(&url).await;

    let lane = Lane::of(&ended);
    assert_eq!(store.lanes().await.unwrap(), []);
    let judge = Arc::new(|_: &Operation| Event::Started(Session(1)));
    assert_eq!(store.take(lane.clone(), now, 10, judge.clone()).await.unwrap(), []);
    assert_eq!(store.beat(Session(1), 10).await.unwrap(), []);
    for key in ["waits", "orphan", "done"] {
        let digest = ended.scope.digest(&operation(9, key, "r", Mode::Accepted).key);
        let found = store.find(Which::Key(digest)).await;
        assert!(matches!(found, Err(StoreError::Away(_))), "{key}: {found:?}");
        // Together with a new one, which goes into the same batch.
        let fresh = format!("beside {key}");
        let (known, fresh) = tokio::join!(
            store.remember(birth(10, key)),
            store.remember(birth(11 + u64::from(key.as_bytes()[0]), &fresh)),
        );
        assert!(matches!(known, Err(StoreError::Away(_))), "{key}: {known:?}");
        assert!(matches!(fresh, Ok(Remembered::Fresh(_))), "{key}: {fresh:?}");
    }
    let all = store.list(Query { limit: 10, ..Query::default() }).await.unwrap();
    assert_eq!(all.operations.len(), 3, "those beside");
    assert_eq!(store.take(lane, now, 10, judge).await.unwrap().len(), 3);

    // Long after all is over, bodies that somebody waits for are still there.
    let over = now.plus(ended.window + ended.tombstone + std::time::Duration::from_hours(72));
    store.sweep(over, 0, 100).await.unwrap();
    let after = rows(&url).await;
    for row in &before[..2] {
        assert!(after.contains(row), "what waits, and what is under way");
    }
    let waits = "SELECT 1 / count(*)::int FROM body WHERE bytes = 'request waits'";
    postgres::run(&url, waits).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_in_doubt_is_the_first_that_this_release_can_read() {
    let Some(server) = postgres::server() else { return };
    let url = server.database().await;
    let store = postgres::open(&url).await;
    let now = SystemClock.now();
    for n in 1..=2 {
        let pending = remember(&store, n, &format!("k{n}")).await;
        let started = pending.after(Event::Started(Session(9)), now).unwrap();
        let ended = Ended {
            at: now,
            ending: Ending::Unanswered,
            reached: Reached::Body,
            status: None,
            error: None,
            may_have_executed: true,
            answer: None,
            timings: Timings::default(),
        };
        let doubted = started.after(Event::Ended(ended, Verdict::Doubt), now).unwrap();
        for operation in [started, doubted] {
            store.commit(Write { operation, answer: None, visible: false }).await.unwrap();
        }
    }
    let first = store.oldest_in_doubt(None).await.unwrap().unwrap();
    assert_eq!(first.key.as_str(), "k1");
    let id = first.id.as_u128();
    let later = format!("UPDATE op SET row = set_byte(row, 0, 200) WHERE id = '{id:032x}'::uuid");
    postgres::run(&url, &later).await;
    for tenant in [None, Some("t".to_owned())] {
        assert_eq!(store.oldest_in_doubt(tenant).await.unwrap().unwrap().key.as_str(), "k2");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_pages_on_leaves_out_nothing_that_two_nodes_made_at_once() {
    let Some(server) = postgres::server() else { return };
    let store = postgres::open(&server.database().await).await;
    // Two nodes may give the same place in time; only the tails of the ids differ.
    for tail in 1..=3 {
        let mut birth = birth(7, &format!("k{tail}"));
        birth.operation.intent_mut().id = OperationId::new(7, tail);
        store.remember(birth).await.unwrap();
    }
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let query = Query { limit: 1, before, ..Query::default() };
        let page = store.list(query).await.unwrap();
        found.extend(page.operations.iter().map(|operation| operation.id));
        before = page.next;
        if page.operations.is_empty() {
            break;
        }
    }
    assert_eq!(found, [3, 2, 1].map(|tail| OperationId::new(7, tail)));
}
