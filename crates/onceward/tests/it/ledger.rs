//! Every store keeps the one contract; the embedded one keeps it over restarts too.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use onceward::core::lease::Session;
use onceward::core::operation::{Event, State};
use onceward::core::policy::Mode;
use onceward::core::time::Timestamp;
use onceward::store::contract::{self, operation};
use onceward::store::memory::MemoryStore;
use onceward::store::sqlite::{SqliteOptions, SqliteStore};
use onceward::store::{Birth, Lane, Query, Remembered, Store, StoreError, Which, Write};

use crate::postgres;

fn open(folder: &Path) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(&folder.join("ledger.db"), &SqliteOptions { segment_bytes: 1 << 20 })
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_keeps_the_contract() {
    contract::run(|| async { Arc::new(MemoryStore::new()) as Arc<dyn Store> }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let count = std::sync::atomic::AtomicU32::new(0);
    contract::run(|| async {
        let place = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Arc::new(open(&folder.path().join(place.to_string())).unwrap()) as Arc<dyn Store>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_keeps_the_contract() {
    let Some(server) = postgres::server() else { return };
    contract::run(|| async {
        Arc::new(postgres::open(&server.database().await).await) as Arc<dyn Store>
    })
    .await;
}

async fn remember(store: &dyn Store, n: u64) -> onceward::core::operation::Operation {
    let birth = Birth {
        operation: operation(n, &format!("k{n}"), "r", Mode::Accepted),
        request: Bytes::from(vec![n as u8; 5000]),
        replaces: None,
    };
    match store.remember(birth).await.unwrap() {
        Remembered::Fresh(made) => made,
        Remembered::Known(_) => panic!("new"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_a_restart_over_many_segments() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let mut made = Vec::new();
    for n in 1..=600 {
        made.push(remember(&store, n).await);
    }
    drop(store);
    let store = open(folder.path()).unwrap();
    assert_eq!(store.newest(), 600);
    for operation in &made {
        assert_eq!(store.find(Which::Id(operation.id)).await.unwrap().as_ref(), Some(operation));
        let body = store.body(operation.request.unwrap()).await.unwrap();
        assert_eq!(body, vec![operation.id.sequence() as u8; 5000]);
    }
}

/// The files of a ledger as they are at this moment: what a crash would leave.
fn snapshot(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            snapshot(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_is_rebuilt_from_the_journal_wherever_it_stood() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let first = remember(&store, 1).await;
    let started = first.after(Event::Started(Session(1)), Timestamp::from_micros(5)).unwrap();
    let started =
        store.commit(Write { operation: started, answer: None, visible: false }).await.unwrap();
    let crashed = tempfile::tempdir().unwrap();
    snapshot(folder.path(), crashed.path());
    // The index is lost altogether: the journal alone has everything.
    for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
        let _ = std::fs::remove_file(crashed.path().join(name));
    }
    let recovered = open(crashed.path()).unwrap();
    assert_eq!(recovered.find(Which::Id(first.id)).await.unwrap(), Some(started.clone()));
    assert_eq!(started.state, State::Delivering);
    let lane = Lane::of(&started);
    assert_eq!(
        recovered
            .take(
                lane,
                Timestamp::from_micros(i64::MAX),
                9,
                Arc::new(|_| Event::Started(Session(1)))
            )
            .await
            .unwrap(),
        []
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _store = open(folder.path()).unwrap();
    let Err(StoreError::Unavailable(why)) = open(folder.path()) else { panic!("two writers") };
    assert!(why.contains("another process"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_ledger_in_use_opens_with_all_that_was_acknowledged_before() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(open(folder.path()).unwrap());
    let mut made = Vec::new();
    for n in 1..=300 {
        made.push(remember(&*store, n).await);
    }
    let busy = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for n in 301..=600 {
                remember(&*store, n).await;
            }
        })
    };
    let copy = folder.path().join("copy");
    store.backup(&copy).await.unwrap();
    busy.await.unwrap();
    let restored = open(&copy).unwrap();
    for operation in &made {
        assert_eq!(restored.find(Which::Id(operation.id)).await.unwrap().as_ref(), Some(operation));
        restored.body(operation.request.unwrap()).await.unwrap();
    }
    assert!(
        matches!(store.backup(&copy).await, Err(StoreError::Unavailable(_))),
        "a backup overwrites nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_that_nothing_needs_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    for n in 1..=800 {
        let made = remember(&store, n).await;
        let gone = made.after(
            Event::Ruled(onceward::core::verdict::Verdict::Bury(
                onceward::core::operation::Death::Unsent,
                None,
            )),
            made.created_at,
        );
        store
            .commit(Write { operation: gone.unwrap(), answer: None, visible: false })
            .await
            .unwrap();
    }
    let segments = || std::fs::read_dir(folder.path().join("ledger.journal")).unwrap().count();
    assert!(segments() >= 4);
    let late = Timestamp::from_micros(i64::MAX / 2);
    let mut from = 0;
    while let Some(next) = store.sweep(late, from, 100).await.unwrap().next {
        from = next;
    }
    assert!(segments() <= 2, "{} segments are left", segments());
    drop(store);
    let store = open(folder.path()).unwrap();
    assert_eq!(
        store
            .find(Which::Key(
                operation(1, "k1", "r", Mode::Accepted)
                    .scope
                    .digest(&operation(1, "k1", "r", Mode::Accepted).key)
            ))
            .await
            .unwrap(),
        None
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_stays_for_as_long_as_a_body_in_it_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let waits = remember(&store, 1).await;
    for n in 2..=600 {
        remember(&store, n).await;
    }
    let segments = || std::fs::read_dir(folder.path().join("ledger.journal")).unwrap().count();
    assert!(segments() >= 3);
    let mut from = 0;
    while let Some(next) = store.sweep(waits.created_at, from, 100).await.unwrap().next {
        from = next;
    }
    drop(store);
    let store = open(folder.path()).unwrap();
    let body = store.body(waits.request.unwrap()).await;
    assert_eq!(body, Ok(Bytes::from(vec![1; 5000])), "a request that is still to be sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_with_its_segment_while_it_is_read_is_forgotten_and_no_damage() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let mut settled = Vec::new();
    // Each of the requests takes most of a segment.
    for n in 1..=3 {
        let operation = operation(n, &format!("k{n}"), "r", Mode::Held);
        let request = Bytes::from(vec![b'x'; 700 << 10]);
        let birth = Birth { operation, request, replaces: None };
        let Remembered::Fresh(made) = store.remember(birth).await.unwrap() else { panic!("new") };
        let commit = |operation| store.commit(Write { operation, answer: None, visible: false });
        let started = commit(contract::started(&made)).await.unwrap();
        settled.push(commit(contract::done(&started, made.created_at)).await.unwrap());
    }
    let read = &settled[0];
    assert_eq!(store.body_of(read, read.request.unwrap()).await.unwrap().len(), 700 << 10);
    // Here somebody is about to read it.
    let over = settled[2].created_at.plus(read.window);
    assert_eq!(store.sweep(over, 0, 100).await.unwrap().forgotten, 3);
    let gone = store.body_of(read, read.request.unwrap()).await;
    assert!(matches!(gone, Err(StoreError::Away(_))), "{gone:?}");
    let plain = store.body(read.request.unwrap()).await;
    assert!(matches!(plain, Err(StoreError::Damaged(_))), "its segment is gone: {plain:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_whose_words_were_damaged_is_not_passed_over_in_silence() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    remember(&store, 1).await;
    let labelled = || Query { label: Some("label-1".into()), limit: 9, ..Query::default() };
    assert_eq!(store.list(labelled()).await.unwrap().operations.len(), 1);
    drop(store);
    let index = rusqlite::Connection::open(folder.path().join("ledger.db")).unwrap();
    let mut row: Vec<u8> = index.query_row("SELECT row FROM op", [], |row| row.get(0)).unwrap();
    let place = row.windows(7).position(|words| words == b"label-1").unwrap();
    row[place] ^= 1;
    assert_eq!(index.execute("UPDATE op SET row = ?1", [row]).unwrap(), 1);
    drop(index);
    let listed = open(folder.path()).unwrap().list(labelled()).await;
    assert!(matches!(listed, Err(StoreError::Damaged(_))), "{listed:?}");
}
