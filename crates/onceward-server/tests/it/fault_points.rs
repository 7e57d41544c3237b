//! An error at the N-th storage call, for one N after the other: nothing that failed is
//! acknowledged, the process ends where it cannot know, and the next start finds everything.

use crate::crash_golden::{Begin, Met, meet, points, recovered};
use crate::crash_points::{StoragePoint, was_injected};
use crate::crash_world::{abreast, can_trace};
use onceward_proof::figures::{Figures, number};

/// What one point came to.
struct Point {
    name: String,
    /// Whether it came so far.
    met: bool,
    /// Whether it came so far before the process was told to end.
    met_at_work: bool,
    /// Whether the process ended by itself.
    ended: bool,
    refused: usize,
    acknowledged: usize,
    violations: Vec<String>,
}

/// What a caller may be told while the disk fails: that it does not know, or that there is no room.
const REFUSALS: [(u16, &str); 3] =
    [(503, "ledger-unavailable"), (503, "draining"), (507, "ledger-full")];

async fn failed_at(begin: Begin, point: StoragePoint, error: &str) -> Point {
    let mut met = meet(&begin, &point, &format!("error={error}")).await;
    let mut violations = Vec::new();
    let mut refused = 0;
    for told in met.log.lock().told.values().flatten() {
        let is_refusal = REFUSALS.contains(&(told.status, told.code.as_str()));
        refused += usize::from(is_refusal);
        // A key whose first call met the error may be in doubt, or in progress until the end.
        if !told.is_acknowledged() && !is_refusal && !(400..=504).contains(&told.status) {
            violations.push(format!("told {told:?}"));
        }
    }
    let met_at_work = was_injected(&met.world);
    let ended = ended(&mut met, &mut violations).await;
    let is_met = was_injected(&met.world);
    let checked = recovered(&met).await;
    violations.extend(checked.violations);
    Point {
        name: point.to_string(),
        met: is_met,
        met_at_work,
        ended,
        refused,
        acknowledged: checked.figures.acknowledged,
        violations,
    }
}

/// Whether it ended because of the error, and said so.
async fn ended(met: &mut Met, violations: &mut Vec<String>) -> bool {
    let (status, said, by_itself) = match &mut met.gateway {
        Err(ended) => (ended.status, ended.said.clone(), true),
        Ok(gateway) => {
            let by_itself = gateway.has_ended();
            (gateway.stopped().await, gateway.said(), by_itself)
        }
    };
    let failed = !status.success();
    if failed && !(matches!(status.code(), Some(1 | 70)) && said.contains("error: ")) {
        violations.push(format!("ended with {status}:\n{said}"));
    }
    if said.contains("panicked") {
        violations.push(format!("panicked:\n{said}"));
    }
    by_itself || failed
}

/// Injects `error` at every point that `is_met`, and gives what came of each.
async fn fail_at_each(
    suite: &'static str,
    error: &'static str,
    is_met: impl Fn(&StoragePoint) -> bool,
    every: u64,
) -> Vec<Point> {
    let mut told = Figures::of(suite, 1);
    let all = points().await.into_iter().filter(|(_, point)| is_met(point));
    let all: Vec<_> = all.collect();
    let total = all.len();
    let every = number("TEST_EVERY", every) as usize;
    let points = abreast(all.into_iter().step_by(every).collect(), move |(begin, point)| {
        failed_at(begin, point, error)
    });
    let points = points.await;
    let ended = points.iter().filter(|point| point.ended).count();
    let sum = |of: fn(&Point) -> usize| points.iter().map(of).sum::<usize>();
    told.count("storage_calls", total);
    told.count("points", points.len());
    let met = points.iter().filter(|point| point.met).count();
    told.count("met", met);
    told.count("ended", ended);
    told.count("refused", sum(|point| point.refused));
    told.count("acknowledged", sum(|point| point.acknowledged));
    let violations: Vec<String> = points
        .iter()
        .flat_map(|point| point.violations.iter().map(|what| format!("{}: {what}", point.name)))
        .collect();
    told.tell(violations.len());
    assert!(violations.is_empty(), "{} violations: {violations:#?}", violations.len());
    assert!(met * 10 >= points.len() * 8, "{met} of {} points were met", points.len());
    assert!(total > 30 && sum(|point| point.acknowledged) > 10 * points.len(), "too tame");
    points
}

/// Whether the ledger itself is what is written, and not a copy of it or a key.
fn is_ledger(file: &str) -> bool {
    file.starts_with("data/ledger.") && !file.ends_with("-shm")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_io_error_is_never_acknowledged_and_ends_the_process() {
    if !can_trace() {
        return;
    }
    let is_met = |point: &StoragePoint| {
        let calls = ["fdatasync", "fsync", "pwrite64"];
        is_ledger(&point.file) && calls.contains(&point.call.as_str())
    };
    let points = fail_at_each("io-errors", "EIO", is_met, 6).await;
    let survived = points.iter().filter(|point| point.met && !point.ended);
    // A last checkpoint of the index may fail while the process ends in order: nobody is there any
    // more to be told, and the next start makes it again.
    let is_last = |point: &&Point| !point.met_at_work && point.name.contains("ledger.db");
    let swallowed: Vec<&String> =
        survived.filter(|point| !is_last(point)).map(|point| &point.name).collect();
    assert!(swallowed.is_empty(), "errors were swallowed: {swallowed:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_finds_no_room_is_refused_or_ends_the_process_and_loses_nothing() {
    if !can_trace() {
        return;
    }
    let is_met = |point: &StoragePoint| {
        ["fallocate", "pwrite64", "write", "ftruncate", "mkdir"].contains(&point.call.as_str())
    };
    let points = fail_at_each("no-room", "ENOSPC", is_met, 12).await;
    let refused: usize = points.iter().map(|point| point.refused).sum();
    assert!(refused > 0, "no caller ever heard of it");
}
