//! What can be asked on the command line, within limits.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::count;
use crate::pages;
use crate::postgres;
use crate::subject::Kind;

/// A phase longer than this measures patience, not speed.
const SECONDS_MAX: u64 = 60;
/// Idle nodes do the same each minute.
const WATCH_MAX: u64 = 600;
/// Enough for a steady median.
const ROUNDS_MAX: u32 = 20;
/// Enough for a steady p95 of a page.
const LOOKS_MAX: u32 = 1000;
/// As many as a disk has room for.
const ROWS_MAX: u64 = 10_000_000;
/// Instructions are counted a fiftieth as fast as they run.
const REQUESTS_MAX: u64 = 100_000;
/// The gateway itself takes no more than this from one address.
const CONNECTIONS_MAX: usize = 1024;

pub(crate) const USAGE: &str = "\
usage: cargo run --release -p onceward-bench -- [options]
       cargo run --release -p onceward-bench -- ledger [OPERATIONS [CALLERS [DIR]]]
       cargo run --release -p onceward-bench -- fair [DIR]
       cargo run --release -p onceward-bench -- events [DIR]
       cargo run --release -p onceward-bench -- pass [options]
       cargo run --release -p onceward-bench -- garbage [options]
       cargo run --release -p onceward-bench -- telemetry [options]
       cargo run --release -p onceward-bench -- pages [options]
       cargo run --release -p onceward-bench -- postgres [options]
       cargo run --release -p onceward-bench -- count [options]

  ledger 200000 64,256 target      the ledger alone: durable operations a second, and their cost

  fair                             what one tenant's flood costs another

  events                           events a second by how many want each, beside single operations

  pass                             what passes without a record, beside the bare proxy and an ordinary one
    --rounds, --seconds, --connections, --binary, --data as below

  garbage                          good calls alone, and beside connections that send garbage
    --rounds, --seconds, --connections, --binary, --data as below

  telemetry                        held calls and what passes, with traces, metrics and logs and without
    --rounds, --seconds, --connections, --binary, --data as below

  pages                            every page and filter, beside the look at one operation by its id
    --rows N                       operations in the ledger (default 1000000)
    --rounds N                     how often each is asked for (default 20)
    --postgres                     in PostgreSQL, on a throw-away server
    --binary, --data, --json as below

  postgres                         a ledger in PostgreSQL, on a throw-away server with fsync
    --parts writes,nodes,idle,growth   which to measure (default: all)
    --rows 100000,1000000,5000000  sizes of the ledgers of `growth`
    --watch N                      seconds that idle nodes are watched (default 60)
    --set NAME=VALUE               a setting of the server
    --rounds, --seconds, --binary, --data as below

  count                            instructions and allocations for a request, under callgrind
    --only held,duplicate          some of the paths (default: all)
    --requests N                   how many of each are counted (default 400)
    --keep DIR                     keep callgrind's files, for callgrind_annotate
    --binary, --data, --json as below

  --subjects bare,nginx,onceward   which to run (default: all; nginx only where it is installed)
  --rounds N                       turns of each subject (default 3)
  --seconds N                      length of each phase in a turn (default 4)
  --connections N                  keep-alive connections of the load (default 64)
  --binary FILE                    an onceward to measure, instead of building one
  --data DIR                       where ledgers are put: choose the disk (default: the target folder)
  --json                           one JSON document instead of tables";

/// One run of this program.
#[derive(Debug)]
pub(crate) enum Command {
    Help,
    /// The upstream of all subjects.
    Sink,
    /// What takes telemetry.
    Receiver,
    /// The bare proxy before `sink`.
    Proxy {
        sink: SocketAddr,
    },
    /// The ordinary proxy before `sink`.
    Ordinary {
        sink: SocketAddr,
    },
    /// The ledger alone.
    Ledger {
        operations: u64,
        callers: Vec<usize>,
        data: PathBuf,
    },
    /// What one tenant's flood costs another.
    Fair {
        data: PathBuf,
    },
    /// What events cost by how many want each.
    Events {
        data: PathBuf,
    },
    /// What passes without a record.
    Pass(Options),
    /// Every page and filter of a large ledger.
    Pages(pages::Options),
    /// What telemetry costs.
    Telemetry(Options),
    /// Good calls beside garbage.
    Garbage(Options),
    /// Instructions and allocations for a request.
    Count(count::Options),
    /// A ledger in PostgreSQL.
    Postgres(postgres::Options),
    Compare(Options),
}

/// How to compare.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// `None`: all that there are here.
    pub(crate) subjects: Option<Vec<Kind>>,
    pub(crate) rounds: u32,
    pub(crate) seconds: u64,
    pub(crate) connections: usize,
    pub(crate) binary: Option<PathBuf>,
    pub(crate) data: Option<PathBuf>,
    pub(crate) json: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            subjects: None,
            rounds: 3,
            seconds: 4,
            connections: 64,
            binary: None,
            data: None,
            json: false,
        }
    }
}

impl Options {
    /// The length of one phase.
    pub(crate) fn phase(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// Reads the arguments after the program's name.
pub(crate) fn parse(args: impl IntoIterator<Item = String>) -> Result<Command, String> {
    let mut args = args.into_iter().peekable();
    match args.peek().map(String::as_str) {
        Some("sink") => return Ok(Command::Sink),
        Some("ledger") => return ledger(args.skip(1)),
        Some("fair") => {
            let data = args.nth(1).map_or_else(|| PathBuf::from("target"), PathBuf::from);
            return Ok(Command::Fair { data });
        }
        Some("events") => {
            let data = args.nth(1).map_or_else(|| PathBuf::from("target"), PathBuf::from);
            return Ok(Command::Events { data });
        }
        Some("postgres") => return postgres(args.skip(1)),
        Some("count") => return count(args.skip(1)),
        Some("pass") => return compare(args.skip(1), Command::Pass),
        Some("receiver") => return Ok(Command::Receiver),
        Some("pages") => return pages(args.skip(1)),
        Some("telemetry") => return compare(args.skip(1), Command::Telemetry),
        Some("garbage") => return compare(args.skip(1), Command::Garbage),
        Some("proxy") => {
            let sink = value_of("proxy", args.nth(1))?;
            return Ok(Command::Proxy { sink });
        }
        Some("ordinary") => {
            let sink = value_of("ordinary", args.nth(1))?;
            return Ok(Command::Ordinary { sink });
        }
        _ => {}
    }
    compare(args, Command::Compare)
}

/// What a comparison takes.
fn compare(
    mut args: impl Iterator<Item = String>,
    of: fn(Options) -> Command,
) -> Result<Command, String> {
    let mut options = Options::default();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--help" | "-h" => return Ok(Command::Help),
            "--json" => options.json = true,
            "--subjects" => {
                let names: String = value_of("--subjects", args.next())?;
                options.subjects =
                    Some(names.split(',').map(Kind::from_str).collect::<Result<_, _>>()?);
            }
            "--rounds" => options.rounds = within("--rounds", args.next(), ROUNDS_MAX)?,
            "--seconds" => options.seconds = within("--seconds", args.next(), SECONDS_MAX)?,
            "--connections" => {
                options.connections = within("--connections", args.next(), CONNECTIONS_MAX)?;
            }
            "--binary" => options.binary = Some(value_of("--binary", args.next())?),
            "--data" => options.data = Some(value_of("--data", args.next())?),
            other => return Err(format!("no such option: {other}")),
        }
    }
    Ok(of(options))
}

/// What `pages` takes.
fn pages(mut args: impl Iterator<Item = String>) -> Result<Command, String> {
    let mut options = pages::Options::default();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--rows" => options.rows = within("--rows", args.next(), ROWS_MAX)?,
            "--rounds" => options.rounds = within("--rounds", args.next(), LOOKS_MAX)?,
            "--postgres" => options.postgres = true,
            "--binary" => options.binary = Some(value_of("--binary", args.next())?),
            "--data" => options.data = Some(value_of("--data", args.next())?),
            "--json" => options.json = true,
            other => return Err(format!("no such option: {other}")),
        }
    }
    Ok(Command::Pages(options))
}

/// What `postgres` takes.
fn postgres(mut args: impl Iterator<Item = String>) -> Result<Command, String> {
    let mut options = postgres::Options::default();
    while let Some(arg) = args.next() {
        let mut list = || value_of::<String>(&arg, args.next());
        match arg.as_str() {
            "--parts" => {
                options.parts = list()?.split(',').map(str::parse).collect::<Result<_, _>>()?;
            }
            "--rows" => {
                let rows = list()?;
                let rows = rows.split(',').map(|rows| value_of("--rows", Some(rows.to_owned())));
                options.rows = rows.collect::<Result<_, _>>()?;
            }
            "--rounds" => options.rounds = within("--rounds", args.next(), ROUNDS_MAX)?,
            "--seconds" => {
                let seconds = within("--seconds", args.next(), SECONDS_MAX)?;
                options.turn = Duration::from_secs(seconds);
            }
            "--watch" => {
                let seconds = within("--watch", args.next(), WATCH_MAX)?;
                options.watch = Duration::from_secs(seconds);
            }
            "--set" => options.settings.push(value_of("--set", args.next())?),
            "--binary" => options.binary = Some(value_of("--binary", args.next())?),
            "--data" => options.data = Some(value_of("--data", args.next())?),
            other => return Err(format!("no such option: {other}")),
        }
    }
    Ok(Command::Postgres(options))
}

/// What `count` takes.
fn count(mut args: impl Iterator<Item = String>) -> Result<Command, String> {
    let mut options = count::Options::default();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--only" => {
                let names: String = value_of("--only", args.next())?;
                options.only = names.split(',').map(str::parse).collect::<Result<_, _>>()?;
            }
            "--requests" => options.requests = within("--requests", args.next(), REQUESTS_MAX)?,
            "--keep" => options.keep = Some(value_of("--keep", args.next())?),
            "--binary" => options.binary = Some(value_of("--binary", args.next())?),
            "--data" => options.data = Some(value_of("--data", args.next())?),
            "--json" => options.json = true,
            other => return Err(format!("no such option: {other}")),
        }
    }
    Ok(Command::Count(options))
}

/// What `ledger` takes, in order.
fn ledger(mut args: impl Iterator<Item = String>) -> Result<Command, String> {
    let operations =
        args.next().map_or(Ok(200_000), |value| value_of("OPERATIONS", Some(value)))?;
    let callers = args.next().unwrap_or_else(|| "64".to_owned());
    let callers =
        callers.split(',').map(|one| within("CALLERS", Some(one.to_owned()), CONNECTIONS_MAX));
    let callers = callers.collect::<Result<_, _>>()?;
    let data = args.next().map_or_else(|| PathBuf::from("target"), PathBuf::from);
    Ok(Command::Ledger { operations, callers, data })
}

fn value_of<T: FromStr>(name: &str, value: Option<String>) -> Result<T, String> {
    let value = value.ok_or_else(|| format!("{name} needs a value"))?;
    value.parse().map_err(|_| format!("{name}: cannot read {value:?}"))
}

fn within<T: Copy + FromStr + PartialOrd + From<u8> + std::fmt::Display>(
    name: &str,
    value: Option<String>,
    max: T,
) -> Result<T, String> {
    let value: T = value_of(name, value)?;
    if value < T::from(1) || value > max {
        return Err(format!("{name}: from 1 to {max}"));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_are_read_and_the_rest_keep_their_defaults() {
        let Command::Compare(options) =
            parsed("--rounds 5 --subjects bare,onceward --json").unwrap()
        else {
            panic!("not a comparison");
        };
        assert_eq!(options.rounds, 5);
        assert_eq!(options.subjects, Some(vec![Kind::Bare, Kind::Onceward]));
        assert!(options.json);
        assert_eq!(options.connections, 64);
    }

    #[test]
    fn what_is_out_of_bounds_or_unknown_is_refused() {
        assert!(parsed("--rounds 0").is_err());
        assert!(parsed("--connections 5000").is_err());
        assert!(parsed("--subjects apache").is_err());
        assert!(parsed("--fast").is_err());
        assert!(parsed("--seconds").is_err());
    }

    #[test]
    fn pages_are_asked_for_of_a_ledger_of_any_size_within_bounds() {
        let Command::Pages(options) = parsed("pages --postgres --rows 5000 --rounds 3").unwrap()
        else {
            panic!("no pages");
        };
        assert_eq!((options.rows, options.rounds, options.postgres), (5000, 3, true));
        assert!(parsed("pages --rows 0").is_err() && parsed("pages --seconds 3").is_err());
        let Command::Telemetry(options) = parsed("telemetry --rounds 2").unwrap() else {
            panic!("no telemetry");
        };
        assert_eq!(options.rounds, 2);
    }

    #[test]
    fn a_shared_ledger_has_options_of_its_own() {
        let Command::Postgres(options) =
            parsed("postgres --parts writes,idle --rows 10,20 --set wal_compression=on").unwrap()
        else {
            panic!("not a shared ledger");
        };
        assert_eq!(options.parts, [postgres::Part::Writes, postgres::Part::Idle]);
        assert_eq!(options.rows, [10, 20]);
        assert_eq!(options.settings, ["wal_compression=on"]);
        assert!(parsed("postgres --parts reads").is_err());
    }

    #[test]
    fn the_proxy_is_told_its_sink() {
        let Command::Proxy { sink } = parsed("proxy 127.0.0.1:9").unwrap() else {
            panic!("not a proxy");
        };
        assert_eq!(sink.port(), 9);
    }
}
