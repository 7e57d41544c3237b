//! What callers and the auditor counted over a life of the gateway in which nobody killed it,
//! beside what the gateway counted itself.
//!
//! Counters begin anew with each life, and what happened between a scrape and a kill is in no
//! scrape: so only such a life can be compared to the last one.

use std::collections::HashSet;
use std::io;

use crate::auditor::{Arrived, Auditor};
use crate::check::Log;
use crate::metrics::{Compared, Metrics};
use crate::plan::Fault;
use crate::process::Gateway;

/// Answers so far, by what they say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of them that are about an operation.
    pub told: u64,
    /// From memory.
    pub replayed: u64,
    /// From memory, where the answer itself was not retained.
    pub not_retained: u64,
    /// In doubt, told to a duplicate.
    pub doubted: u64,
}

impl Counts {
    /// Counts the log's answers.
    pub fn of(log: &Log) -> Self {
        let mut counts = Self::default();
        for told in log.lock().told.values().flatten() {
            // A refusal without a record is about no operation.
            counts.told += u64::from(!told.operation.is_empty());
            counts.replayed += u64::from(told.replayed);
            counts.not_retained += u64::from(told.is_not_retained());
            counts.doubted += u64::from(told.code == "outcome-unknown" && told.status == 409);
        }
        counts
    }
}

/// A life of the gateway without a kill, from its first moment on.
#[derive(Debug)]
pub struct Calm {
    arrivals: usize,
    counts: Counts,
    dead: u64,
    again: Vec<Compared>,
}

async fn scrape(gateway: &Gateway) -> io::Result<Metrics> {
    let answer = gateway.get("/metrics").await?;
    Ok(Metrics::read(&String::from_utf8_lossy(&answer.body)))
}

fn compared(metrics: &Metrics, metric: &str, counted: u64) -> Compared {
    Compared { metric: metric.to_owned(), gateway: metrics.get(metric), counted }
}

impl Calm {
    /// Begins to count where the gateway does.
    pub async fn begin(gateway: &Gateway, auditor: &Auditor, log: &Log) -> io::Result<Self> {
        Ok(Self {
            arrivals: auditor.arrivals(),
            counts: Counts::of(log),
            dead: dead(gateway).await?,
            again: Vec::new(),
        })
    }

    /// The gateway's duplicates so far, whatever they got.
    pub async fn duplicates(&self, gateway: &Gateway) -> io::Result<u64> {
        Ok(scrape(gateway).await?.sum("onceward_duplicates_total{"))
    }

    /// Everything was asked for again while all of it was at rest: so each answer tells how the
    /// gateway counted it.
    pub async fn note_again(
        &mut self,
        gateway: &Gateway,
        log: &Log,
        before: Counts,
    ) -> io::Result<()> {
        let (metrics, now) = (scrape(gateway).await?, Counts::of(log));
        let replayed = (now.replayed + now.not_retained) - (before.replayed + before.not_retained);
        let doubted = now.doubted - before.doubted;
        self.again = [("replayed", replayed), ("refused", doubted)]
            .map(|(answer, counted)| {
                let metric = format!("onceward_duplicates_total{{answer=\"{answer}\"}}");
                let mut compared = compared(&metrics, &metric, counted);
                compared.metric.push_str(" at rest");
                compared
            })
            .into();
        Ok(())
    }

    /// Every figure of this life, beside ours.
    pub async fn compare(
        self,
        gateway: &Gateway,
        auditor: &Auditor,
        log: &Log,
    ) -> io::Result<Vec<Compared>> {
        let (metrics, now) = (scrape(gateway).await?, Counts::of(log));
        let arrived = auditor.arrived();
        let (before, here) = arrived.split_at(self.arrivals);
        let known: HashSet<_> = before.iter().map(place).collect();
        let new: HashSet<_> =
            here.iter().map(place).filter(|place| !known.contains(place)).collect();
        let doubtful: HashSet<_> = here.iter().filter(|one| is_doubtful(one)).map(place).collect();
        let fresh = new.len() as u64;
        let revived = metrics.get("onceward_duplicates_total{answer=\"revived\"}");
        let all = Compared {
            metric: "onceward_duplicates_total".to_owned(),
            gateway: metrics.sum("onceward_duplicates_total{"),
            counted: (now.told - self.counts.told).saturating_sub(fresh),
        };
        let mut table = vec![compared(&metrics, "onceward_operations_total", fresh)];
        table.extend(self.again);
        table.push(all);
        for ending in ["answered", "truncated", "unanswered", "unsent"] {
            let metric = format!("onceward_attempts_total{{ending=\"{ending}\"}}");
            let met = here.iter().filter(|one| Fault::ending(one.fault) == ending).count();
            table.push(compared(&metrics, &metric, met as u64));
        }
        let (in_doubt, dead) = (doubtful.len() as u64, dead(gateway).await?);
        // Whoever is dead in the end was so before, or died; whoever was revived is dead no more.
        let rested = [
            ("done", (fresh + self.dead).saturating_sub(dead + in_doubt)),
            ("in_doubt", in_doubt),
            ("dead", (revived + dead).saturating_sub(self.dead)),
        ];
        for (state, counted) in rested {
            let metric = format!("onceward_rested_total{{state=\"{state}\"}}");
            table.push(compared(&metrics, &metric, counted));
        }
        Ok(table)
    }
}

/// Operations that are dead now.
async fn dead(gateway: &Gateway) -> io::Result<u64> {
    let stats = gateway.get("/v1/stats").await?.json();
    let count = |standing: &str| stats["operations"][standing].as_u64().unwrap_or_default();
    Ok(count("dead_letters") + count("dead_told"))
}

fn place(arrived: &Arrived) -> (&str, &str) {
    (&arrived.route, &arrived.key)
}

/// Whether nobody can know what became of it.
fn is_doubtful(arrived: &Arrived) -> bool {
    arrived.route == "once"
        && matches!(arrived.fault, Some(Fault::Failed | Fault::Lost | Fault::Hung | Fault::Reset))
}
