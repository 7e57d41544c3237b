//! The ledger alone: how many operations a second it takes, durably, and what each costs.
//!
//! An operation is what it is on the happy path: remembered with its first attempt started, then
//! settled with its answer; two durable writes and 2.1 KB kept.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use onceward::core::id::OperationId;
use onceward::core::key::Key;
use onceward::core::operation::Operation;
use onceward::core::policy::Mode;
use onceward::store::contract::{done, operation, started};
use onceward::store::sqlite::{SqliteOptions, SqliteStore};
use onceward::store::{Birth, Remembered, Slot, Store, StoreError, Write};

use crate::Outcome;
use crate::meter::Usage;

/// What is kept of an operation beside its row.
pub(crate) const REQUEST_BYTES: usize = 1100;
pub(crate) const ANSWER_BYTES: usize = 1000;

/// What each operation looks like: making one is not the ledger's work.
static PENDING: LazyLock<Operation> = LazyLock::new(|| operation(0, "bench", "sink", Mode::Held));

/// Measures with each of `callers`, until the ledger has `operations` more.
pub(crate) fn run(data: &Path, operations: u64, callers: &[usize]) -> Outcome<()> {
    let folder = tempfile::tempdir_in(data)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let path = folder.path().join("ledger.db");
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&path, &SqliteOptions::default())?);
    println!(
        "{:>8} {:>10} {:>9} {:>8} {:>8} {:>9} {:>9} {:>9} {:>9}",
        "callers", "stored", "ops/s", "CPU µs", "batch", "p50 ms", "p99 ms", "written", "kept"
    );
    let stored = Arc::new(AtomicU64::new(0));
    let step = (operations / 10).max(1);
    for round in 0..10 {
        for callers in callers {
            let kept_before = folder_bytes(folder.path());
            let before = (Usage::of(&[std::process::id()]), Instant::now());
            let commits = runtime.block_on(store.condition())?.commits;
            let mut times = runtime.block_on(load(&store, *callers, step, &stored))?;
            let (used, took) =
                (Usage::of(&[std::process::id()]).since(before.0), before.1.elapsed());
            let commits = runtime.block_on(store.condition())?.commits - commits;
            let done = times.len() as f64;
            times.sort_unstable();
            let at = |part: f64| {
                times[((done * part) as usize).min(times.len() - 1)].as_secs_f64() * 1000.0
            };
            println!(
                "{callers:>8} {:>10} {:>9.0} {:>8.1} {:>8.1} {:>9.2} {:>9.2} {:>9.0} {:>9.0}",
                stored.load(Ordering::Relaxed),
                done / took.as_secs_f64(),
                used.cpu.as_secs_f64() * 1e6 / done,
                2.0 * done / commits.max(1) as f64,
                at(0.5),
                at(0.99),
                used.written as f64 / done,
                folder_bytes(folder.path()).saturating_sub(kept_before) as f64 / done,
            );
        }
        if round == 9 {
            drop(store);
            let opening = Instant::now();
            SqliteStore::open(&path, &SqliteOptions::default())?;
            println!("opened again in {:.0} ms", opening.elapsed().as_secs_f64() * 1000.0);
            break;
        }
    }
    Ok(())
}

async fn load(
    store: &Arc<dyn Store>,
    callers: usize,
    operations: u64,
    stored: &Arc<AtomicU64>,
) -> Outcome<Vec<Duration>> {
    let last = stored.load(Ordering::Relaxed) + operations;
    let tasks = (0..callers).map(|_| {
        let (store, stored) = (Arc::clone(store), Arc::clone(stored));
        tokio::spawn(async move {
            let mut times = Vec::new();
            loop {
                let n = stored.fetch_add(1, Ordering::Relaxed) + 1;
                if n > last {
                    stored.fetch_sub(1, Ordering::Relaxed);
                    return Ok::<_, StoreError>(times);
                }
                let began = Instant::now();
                one(&*store, n).await?;
                times.push(began.elapsed());
            }
        })
    });
    let mut times = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        times.extend(task.await??);
    }
    Ok(times)
}

/// One operation at place `n`: remembered, then settled.
pub(crate) async fn one(store: &dyn Store, n: u64) -> Result<(), StoreError> {
    let remembered = remember(store, n).await?;
    let settled = done(&remembered, remembered.created_at);
    let answer = Some((Slot::Outcome, Bytes::from(vec![b'a'; ANSWER_BYTES])));
    store.commit(Write { operation: settled, answer, visible: false }).await?;
    Ok(())
}

/// Remembers an operation, its first attempt started.
pub(crate) async fn remember(store: &dyn Store, n: u64) -> Result<Operation, StoreError> {
    let mut pending = PENDING.clone();
    let intent = pending.intent_mut();
    intent.id = OperationId::new(n, n);
    intent.key = Key::new(&format!("bench-{n}"))
        .map_err(|error| StoreError::Unavailable(error.to_string()))?;
    let request = Bytes::from(vec![b'q'; REQUEST_BYTES]);
    let birth = Birth { operation: started(&pending), request, replaces: None };
    let (Remembered::Fresh(operation) | Remembered::Known(operation)) =
        store.remember(birth).await?;
    Ok(operation)
}

fn folder_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(file) if file.is_dir() => folder_bytes(&entry.path()),
            Ok(file) => file.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
