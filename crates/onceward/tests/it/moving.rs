//! A ledger moves from the embedded store into a shared one whole, or not at all.

use std::path::Path;

use bytes::Bytes;
use onceward::core::lease::Session;
use onceward::core::operation::{Event, Operation, State};
use onceward::core::policy::Mode;
use onceward::core::time::Timestamp;
use onceward::store::contract::{done, operation, started};
use onceward::store::moving::{MoveError, Moved, Step, move_ledger, try_move};
use onceward::store::postgres::PostgresOptions;
use onceward::store::sqlite::{SqliteOptions, SqliteStore};
use onceward::store::{Asked, Birth, Remembered, Slot, Store, StoreError, Which, Write};

use crate::postgres;

fn open(folder: &Path) -> SqliteStore {
    let options = SqliteOptions { segment_bytes: 1 << 20 };
    SqliteStore::open(&folder.join("ledger.db"), &options).unwrap()
}

fn to(url: &str) -> PostgresOptions {
    PostgresOptions { url: url.to_owned(), ca_file: None }
}

async fn remember(store: &dyn Store, birth: Birth) -> Operation {
    match store.remember(birth).await.unwrap() {
        Remembered::Fresh(made) => made,
        Remembered::Known(_) => panic!("new"),
    }
}

fn birth(n: u64, mode: Mode) -> Birth {
    let bytes: Vec<u8> = (0..=255u8).cycle().skip(n as usize).take(3000).collect();
    Birth {
        operation: operation(
            n,
            &format!("k{n}"),
            if n.is_multiple_of(3) { "r" } else { "s" },
            mode,
        ),
        request: Bytes::from(bytes),
        replaces: None,
    }
}

async fn commit(
    store: &dyn Store,
    operation: Operation,
    answer: Option<(Slot, Bytes)>,
) -> Operation {
    store.commit(Write { operation, answer, visible: false }).await.unwrap()
}

/// A ledger with more operations than one page, in every state; one has given its key up.
async fn fill(store: &dyn Store) -> Vec<Operation> {
    let mut made = Vec::new();
    for n in 1..=600 {
        let who = if n % 2 == 0 { Mode::Accepted } else { Mode::Held };
        let first = remember(store, birth(n, who)).await;
        made.push(match n % 4 {
            0 => first,
            1 => commit(store, started(&first), None).await,
            _ => {
                let next = commit(store, started(&first), None).await;
                let answer = Some((Slot::Outcome, Bytes::from(vec![n as u8; 70 * n as usize])));
                commit(store, done(&next, next.created_at), answer).await
            }
        });
    }
    let old = &made[1];
    let replaces = Some((old.id, old.fence));
    let mut heir = birth(601, Mode::Held);
    heir.operation.intent_mut().key = old.key.clone();
    heir.operation.intent_mut().scope = old.scope.clone();
    made.push(remember(store, Birth { replaces, ..heir }).await);
    made[1] = store.find(Which::Id(made[1].id)).await.unwrap().unwrap();
    let times = vec![Timestamp::from_micros(7), Timestamp::from_micros(9)];
    store.note_asked(vec![(made[5].id, Asked { count: 33, times })]).await.unwrap();
    store.set("access/one".to_owned(), Some(Bytes::from_static(b"\0\xff"))).await.unwrap();
    made
}

/// Every reference replaced by the bytes that it leads to.
async fn told(store: &dyn Store, mut operation: Operation) -> (Operation, Vec<Bytes>) {
    let mut bodies = Vec::new();
    for body in operation.bodies() {
        bodies.push(store.body(body).await.unwrap());
    }
    operation.request = None;
    if let Some(outcome) = &mut operation.outcome {
        outcome.answer = None;
    }
    (operation, bodies)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_ledger_has_every_operation_key_body_count_and_setting_of_the_old_one() {
    let Some(server) = postgres::server() else { return };
    let (folder, url) = (tempfile::tempdir().unwrap(), server.database().await);
    let old = open(folder.path());
    let made = fill(&old).await;
    let tried = try_move(&old, &to(&url), |_| {}).await.unwrap();
    let mut steps = Vec::new();
    let moved = move_ledger(&old, &to(&url), |progress| steps.push(progress)).await.unwrap();
    assert_eq!((moved.operations, moved.keys, moved.settings), (601, 600, 1));
    assert_eq!(tried, moved, "what is tried is what is done");
    assert!(steps.iter().any(|progress| progress.step == Step::Copy && progress.operations == 256));
    assert_eq!(
        (steps.last().unwrap().step, steps.last().unwrap().operations),
        (Step::Compare, 601)
    );
    let new = postgres::open(&url).await;
    assert_eq!(new.newest(), 601, "ids go on from there");
    for operation in &made {
        let found = new.find(Which::Id(operation.id)).await.unwrap().unwrap();
        assert_eq!(told(&new, found).await, told(&old, operation.clone()).await);
        let key = Which::Key(operation.scope.digest(&operation.key));
        let (owner, before) = (new.find(key).await.unwrap(), old.find(key).await.unwrap());
        assert_eq!(owner.map(|owner| owner.id), before.map(|owner| owner.id));
    }
    assert_eq!(new.asked(made[5].id).await.unwrap(), old.asked(made[5].id).await.unwrap());
    assert_eq!(
        new.settings(String::new()).await.unwrap(),
        old.settings(String::new()).await.unwrap()
    );
    // What waits is found, what was under way is nobody's, and a fence goes on.
    let mut lanes = (new.lanes().await.unwrap(), old.lanes().await.unwrap());
    lanes.0.sort();
    lanes.1.sort();
    assert_eq!(lanes.0, lanes.1);
    let orphans = new.beat(Session(9), 1000).await.unwrap();
    assert_eq!(orphans.len(), 151, "the attempts under way, and a held call before its first");
    assert_eq!(orphans.iter().filter(|orphan| orphan.state == State::Delivering).count(), 150);
    let waits = new.find(Which::Id(made[3].id)).await.unwrap().unwrap();
    let next = waits.after(Event::Started(Session(9)), waits.created_at).unwrap();
    commit(&new, next, None).await;
    // A body that is written now takes no place of one that was moved.
    remember(&new, birth(602, Mode::Held)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_without_operations_moves_too() {
    let Some(server) = postgres::server() else { return };
    let (folder, url) = (tempfile::tempdir().unwrap(), server.database().await);
    let old = open(folder.path());
    assert_eq!(move_ledger(&old, &to(&url), |_| {}).await.unwrap(), Moved::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_is_not_empty_takes_none_in() {
    let Some(server) = postgres::server() else { return };
    let (folder, url) = (tempfile::tempdir().unwrap(), server.database().await);
    let old = open(folder.path());
    remember(&old, birth(1, Mode::Held)).await;
    let new = postgres::open(&url).await;
    remember(&new, birth(9, Mode::Held)).await;
    for refused in
        [try_move(&old, &to(&url), |_| {}).await, move_ledger(&old, &to(&url), |_| {}).await]
    {
        assert!(matches!(refused, Err(MoveError::NotEmpty("op"))), "{refused:?}");
    }
    assert_eq!(new.newest(), 0);
    assert_eq!(new.find(Which::Id(operation(1, "k1", "s", Mode::Held).id)).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_breaks_off_leaves_nothing_and_begins_anew() {
    let Some(server) = postgres::server() else { return };
    let (folder, url) = (tempfile::tempdir().unwrap(), server.database().await);
    let old = open(folder.path());
    for n in 1..=300 {
        remember(&old, birth(n, Mode::Held)).await;
    }
    let options = to(&url);
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let mut begun = Some(begun);
    let told = |_| {
        if let Some(begun) = begun.take() {
            begun.send(()).unwrap();
        }
    };
    tokio::select! {
        biased;
        _ = has_begun => {}
        moved = move_ledger(&old, &options, told) => panic!("it went on: {moved:?}"),
    }
    let moved = loop {
        // The server notices the end of a connection in its own time.
        match move_ledger(&old, &options, |_| {}).await {
            Err(MoveError::InUse) => {}
            moved => break moved.unwrap(),
        }
    };
    assert_eq!((moved.operations, moved.bodies), (300, 300));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_cannot_be_read_stops_the_move_and_nothing_of_it_stays() {
    let Some(server) = postgres::server() else { return };
    let (folder, url) = (tempfile::tempdir().unwrap(), server.database().await);
    let old = open(folder.path());
    for n in 1..=20 {
        remember(&old, birth(n, Mode::Held)).await;
    }
    let segment = folder.path().join("ledger.journal/segment-00000001");
    let mut bytes = std::fs::read(&segment).unwrap();
    let whole = bytes.clone();
    bytes[30_000] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    for stopped in
        [try_move(&old, &to(&url), |_| {}).await, move_ledger(&old, &to(&url), |_| {}).await]
    {
        assert!(matches!(stopped, Err(MoveError::From(StoreError::Damaged(_)))), "{stopped:?}");
    }
    std::fs::write(&segment, &whole).unwrap();
    assert_eq!(move_ledger(&old, &to(&url), |_| {}).await.unwrap().operations, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_kept_out_while_a_ledger_is_moved() {
    let Some(server) = postgres::server() else { return };
    let (folder, url) = (tempfile::tempdir().unwrap(), server.database().await);
    let old = open(folder.path());
    remember(&old, birth(1, Mode::Held)).await;
    let early = postgres::open(&url).await;
    let (options, mut asked) = (to(&url), None);
    let moved = move_ledger(&old, &options, |progress| {
        if progress.step == Step::Compare && asked.is_none() {
            asked = Some(tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(early.beat(Session(1), 9))
            }));
        }
    });
    assert_eq!(moved.await.unwrap().operations, 1);
    assert!(matches!(asked, Some(Err(StoreError::Away(_)))), "{asked:?}");
}
