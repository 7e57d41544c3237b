//! Speed beside a bare proxy: same sink, same load, same minute.
//!
//! Absolute figures say more about the machine than about the code, so every subject runs in
//! turns within one run, and what counts are the ratios. Each subject, the sink and the load are
//! processes (the load is this one), so that the kernel can say who used how much.
//!
//! `onceward-bench` compares; `onceward-bench pass` compares what passes without a record;
//! `onceward-bench garbage` tells what garbage on other connections costs good calls;
//! `onceward-bench pages` asks for every page and filter of a large ledger; `onceward-bench telemetry` tells what
//! traces, metrics and logs cost; `onceward-bench count` counts instructions, which no other program on the machine changes;
//! `onceward-bench events` tells what events cost by how many want them;
//! `onceward-bench ledger` measures the ledger alone, `onceward-bench
//! postgres` a shared one; `onceward-bench sink`, `proxy`, `ordinary` and `receiver` are what it starts.

mod browser;
mod callgrind;
mod compare;
mod count;
mod effects;
mod events;
mod fair;
mod garbage;
mod ledger;
mod load;
mod meter;
mod options;
mod ordinary;
mod pages;
mod passing;
mod phase;
mod place;
mod postgres;
mod proxy;
mod report;
mod sink;
mod subject;
mod telemetry;

use std::process::ExitCode;

use options::{Command, USAGE};

/// What goes wrong here is told to a person, and never decided upon.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    let command = match options::parse(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("error: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let done = match command {
        Command::Help => {
            println!("{USAGE}");
            Ok(())
        }
        Command::Sink => sink::run(),
        Command::Receiver => telemetry::receive(),
        Command::Proxy { sink } => proxy::run(sink),
        Command::Ordinary { sink } => ordinary::run(sink),
        Command::Ledger { operations, callers, data } => ledger::run(&data, operations, &callers),
        Command::Fair { data } => fair::run(&data),
        Command::Events { data } => events::run(&data),
        Command::Count(options) => count::run(&options),
        Command::Pass(options) => passing::run(&options),
        Command::Pages(options) => pages::run(&options),
        Command::Telemetry(options) => telemetry::run(&options),
        Command::Garbage(options) => garbage::run(&options),
        Command::Postgres(options) => postgres::run(&options),
        Command::Compare(options) => compare::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // What the server said is in the source.
            let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
            eprintln!("error: {error}{source}");
            ExitCode::FAILURE
        }
    }
}
