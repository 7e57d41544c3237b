//! Callers of a store, and what their work costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use onceward::store::Store;

use super::Bench;
use super::plain::Plain;
use super::server::{connect, number};
use crate::meter::{Cores, Usage};
use crate::{Outcome, ledger};

/// Who writes.
#[derive(Clone)]
pub(super) enum Way {
    /// The store as it is built.
    Batched(Arc<dyn Store>),
    /// A transaction for each write.
    Plain(Arc<Plain>),
}

/// Numbers operations: places in time order, as nodes give them.
#[derive(Debug)]
pub(super) struct Places(AtomicU64);

impl Places {
    pub(super) fn now() -> Outcome<Self> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        Ok(Self(AtomicU64::new((now.as_millis() as u64) << 15)))
    }

    pub(super) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// What a turn took; everything but `times` and `took` is a sum.
#[derive(Debug, Default)]
pub(super) struct Cost {
    pub(super) times: Vec<Duration>,
    pub(super) took: Duration,
    pub(super) server: Usage,
    pub(super) client: Usage,
    pub(super) cores: Cores,
    pub(super) transactions: i64,
    /// Bytes of write-ahead log.
    pub(super) log: i64,
    /// Operations a second of each turn.
    pub(super) rounds: Vec<f64>,
}

impl Cost {
    pub(super) fn add(&mut self, turn: Self) {
        self.rounds.push(turn.times.len() as f64 / turn.took.as_secs_f64());
        self.times.extend(turn.times);
        self.took += turn.took;
        self.server += turn.server;
        self.client += turn.client;
        self.cores += turn.cores;
        self.transactions += turn.transactions;
        self.log += turn.log;
    }

    pub(super) fn rate(&self) -> f64 {
        self.times.len() as f64 / self.took.as_secs_f64()
    }

    /// A sum, for each operation.
    pub(super) fn each(&self, sum: f64) -> f64 {
        sum / self.times.len().max(1) as f64
    }

    /// The share of all cores that neither the server nor this program had.
    pub(super) fn others(&self) -> f64 {
        let ours = self.server.cpu + self.client.cpu;
        self.cores.busy.saturating_sub(ours).as_secs_f64() / self.cores.all.as_secs_f64()
    }

    /// Milliseconds, by nearest rank.
    pub(super) fn percentile(&mut self, share: f64) -> f64 {
        let Some(last) = self.times.len().checked_sub(1) else { return 0.0 };
        let place = (last as f64 * share).round() as usize;
        self.times.select_nth_unstable(place).1.as_secs_f64() * 1e3
    }
}

/// The median over the rounds of `own` by `other`.
pub(super) fn ratio(own: &[f64], other: &[f64]) -> f64 {
    let mut ratios: Vec<f64> = own.iter().zip(other).map(|(own, other)| own / other).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Bench {
    /// Lets `callers` do operation after operation for a while.
    pub(super) fn turn(
        &self,
        url: &str,
        way: &Way,
        callers: usize,
        time: Duration,
        places: &Arc<Places>,
    ) -> Outcome<Cost> {
        self.runtime.block_on(async {
            let look = connect(url).await?;
            let log = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint";
            let count =
                "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
            let before = (number(&look, log).await?, number(&look, count).await?);
            let used = (self.server.usage(), Usage::of(&[std::process::id()]), Cores::now());
            let began = Instant::now();
            let tasks: Vec<_> = (0..callers)
                .map(|_| {
                    let (way, places) = (way.clone(), Arc::clone(places));
                    tokio::spawn(async move {
                        let mut times = Vec::new();
                        while began.elapsed() < time {
                            let start = Instant::now();
                            match &way {
                                Way::Batched(store) => ledger::one(&**store, places.next()).await?,
                                Way::Plain(plain) => plain.one(places.next()).await?,
                            }
                            times.push(start.elapsed());
                        }
                        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(times)
                    })
                })
                .collect();
            let mut times = Vec::new();
            for task in tasks {
                times.extend(task.await??);
            }
            Ok(Cost {
                took: began.elapsed(),
                times,
                server: self.server.usage().since(used.0),
                client: Usage::of(&[std::process::id()]).since(used.1),
                cores: Cores::now().since(used.2),
                log: number(&look, log).await? - before.0,
                transactions: {
                    // Backends report what they counted once a second at most.
                    tokio::time::sleep(Duration::from_millis(1100)).await;
                    number(&look, count).await? - before.1
                },
                rounds: Vec::new(),
            })
        })
    }
}
