//! A ledger in PostgreSQL: what batching gives, what nodes add, what idle nodes ask, and what an
//! operation costs as the ledger grows. The server is a throw-away one, and durable.

mod drive;
mod growth;
mod idle;
mod nodes;
mod plain;
mod server;
mod writes;

use std::path::PathBuf;
use std::time::Duration;

use tokio::runtime::Runtime;

pub(crate) use self::growth::{make_days, tidy};
pub(crate) use self::server::Server;
pub(crate) use self::writes::open;
use crate::{Outcome, meter, place};

/// How to measure.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) parts: Vec<Part>,
    pub(crate) rounds: u32,
    /// The length of each turn.
    pub(crate) turn: Duration,
    /// How long idle nodes are watched.
    pub(crate) watch: Duration,
    /// How many operations the ledgers of `growth` have before they are measured.
    pub(crate) rows: Vec<u64>,
    pub(crate) binary: Option<PathBuf>,
    /// Where the server's files are put; the user `postgres` has to be able to get there.
    pub(crate) data: Option<PathBuf>,
    /// Settings of the server beside ours, `name=value`.
    pub(crate) settings: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            parts: vec![Part::Writes, Part::Nodes, Part::Idle, Part::Growth],
            rounds: 3,
            turn: Duration::from_secs(4),
            watch: Duration::from_mins(1),
            rows: vec![100_000, 1_000_000, 5_000_000],
            binary: None,
            data: None,
            settings: Vec::new(),
        }
    }
}

/// What is measured, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The store alone, beside one statement for each write.
    Writes,
    /// The held path through several nodes.
    Nodes,
    /// Nodes that nobody calls.
    Idle,
    /// The store alone, on ledgers of several sizes.
    Growth,
}

impl std::str::FromStr for Part {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Ok(match name {
            "writes" => Self::Writes,
            "nodes" => Self::Nodes,
            "idle" => Self::Idle,
            "growth" => Self::Growth,
            _ => return Err(format!("no such part: {name} (writes, nodes, idle, growth)")),
        })
    }
}

/// Measures, and prints each table as soon as it is known.
pub(crate) fn run(options: &Options) -> Outcome<()> {
    let data = place::data(options.data.as_deref())?;
    let has_nodes = options.parts.iter().any(|part| matches!(part, Part::Nodes | Part::Idle));
    let binary = match &options.binary {
        asked if has_nodes => place::binary(asked.as_deref())?.canonicalize()?,
        _ => PathBuf::new(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let server = Server::start(&data, &options.settings)?;
    let bench = Bench { runtime, server, binary, data, options: options.clone() };
    println!(
        "{}, {} cores; a 4 KiB write and fdatasync {:.2} ms; load average {}",
        bench.server.version()?,
        std::thread::available_parallelism().map_or(1, usize::from),
        meter::sync_time(&bench.data)?.as_secs_f64() * 1e3,
        std::fs::read_to_string("/proc/loadavg")?.trim(),
    );
    for part in &options.parts {
        match part {
            Part::Writes => writes::measure(&bench)?,
            Part::Nodes => nodes::measure(&bench)?,
            Part::Idle => idle::measure(&bench)?,
            Part::Growth => growth::measure(&bench)?,
        }
    }
    Ok(())
}

/// What the parts share.
struct Bench {
    runtime: Runtime,
    server: Server,
    binary: PathBuf,
    data: PathBuf,
    options: Options,
}

/// Unmeasured work before the first round: connections, plans, first pages.
const WARM_UP: Duration = Duration::from_secs(1);

const HEAD: &str = "                                ops/s       ×   p50 ms   p99 ms  server µs  client µs  commits    log B  others %";

/// One line of a table of costs.
fn line(name: &str, cost: &mut drive::Cost, times: f64) {
    let micros = |usage: meter::Usage| usage.cpu.as_secs_f64() * 1e6;
    println!(
        "{name:<28} {:>8.0} {times:>7.2} {:>8.2} {:>8.2} {:>10.1} {:>10.1} {:>8.2} {:>8.0} {:>9.0}",
        cost.rate(),
        cost.percentile(0.5),
        cost.percentile(0.99),
        cost.each(micros(cost.server)),
        cost.each(micros(cost.client)),
        cost.each(cost.transactions as f64),
        cost.each(cost.log as f64),
        cost.others() * 100.0,
    );
}
