//! Many worlds, on every core, and what they amount to.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::world::{Report, run};

/// How many worlds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// So many.
    Worlds(u64),
    /// As many as fit into this time.
    Time(Duration),
}

/// What many worlds amount to.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// The seed of the first.
    pub first: u64,
    /// How many there were.
    pub worlds: u64,
    /// Those in which a promise was broken, with their seeds.
    pub broken: Vec<Report>,
    /// Faults that were injected, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Ways that operations went, from state to state.
    pub arrows: BTreeMap<(&'static str, &'static str), u64>,
    /// What callers heard and what became of keys, by kind.
    pub occasions: BTreeMap<&'static str, u64>,
    /// Time that passed in the worlds.
    pub simulated: Duration,
    /// Time that it took.
    pub took: Duration,
    /// Operations that were remembered.
    pub operations: u64,
    /// Requests that arrived at an upstream.
    pub arrivals: u64,
}

fn sum<K: Ord + Copy>(all: &mut BTreeMap<K, u64>, some: &BTreeMap<K, u64>) {
    for (kind, count) in some {
        *all.entry(*kind).or_default() += count;
    }
}

impl Tally {
    fn add(&mut self, report: Report) {
        self.worlds += 1;
        sum(&mut self.faults, &report.faults);
        sum(&mut self.arrows, &report.arrows);
        sum(&mut self.occasions, &report.occasions);
        self.simulated += report.simulated;
        self.operations += report.operations;
        self.arrivals += report.arrivals;
        if !report.violations.is_empty() {
            self.broken.push(report);
        }
    }

    /// All faults together.
    pub fn faults_in_all(&self) -> u64 {
        self.faults.values().sum()
    }

    /// How to see each broken world again: one line and its violations.
    pub fn account(&self) -> String {
        let lines = self.broken.iter().map(|report| {
            let violations = report.violations.join("\n  ");
            format!("cargo xtask sim --seed {}\n  {violations}\n", report.seed)
        });
        lines.collect()
    }
}

/// Runs worlds from the seed `first` on, on every core.
///
/// # Panics
///
/// Where a world panics: its seed is then among the last that were begun.
pub fn run_many(first: u64, amount: Amount) -> Tally {
    let began = Instant::now();
    let next = AtomicU64::new(0);
    let tally = Mutex::new(Tally { first, ..Tally::default() });
    let work = || {
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let is_enough = match amount {
                Amount::Worlds(worlds) => place >= worlds,
                Amount::Time(time) => began.elapsed() >= time,
            };
            if is_enough {
                return;
            }
            let report = run(first.wrapping_add(place));
            tally.lock().unwrap_or_else(PoisonError::into_inner).add(report);
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    let mut tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    tally.took = began.elapsed();
    tally.broken.sort_by_key(|report| report.seed);
    tally
}
