//! `chaos`: shows a sceptic why this exists. Without a route it brings its own world, a gateway that
//! is killed and an upstream that fails by plan; with one it drives that route of a running gateway.

mod probe;
mod report;
mod route;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;
use onceward_proof::storm::{self, Options, Progress, Report};
use tokio::signal::unix::{SignalKind, signal};

use super::Global;
use super::client::Client;
use super::output::{clean, print, print_bytes, say};
use crate::exit::Exit;

/// Enough for every fault to come often, and over in about a minute on two cores.
const POSTS: u32 = 5000;
const KILLS: u32 = 20;

#[derive(Debug, Args)]
pub(super) struct Chaos {
    /// How many posts
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    posts: Option<u32>,
    /// How often the gateway is killed meanwhile
    #[arg(long, value_name = "K", conflicts_with = "route", value_parser = clap::value_parser!(u32).range(..=1000))]
    kills: Option<u32>,
    /// Decides the load and its faults; without it one is drawn, and shown
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Replay a window of keys after a restart with cold caches too
    #[arg(long, conflicts_with = "route")]
    cold: bool,
    /// A new folder for the ledger and the logs, which then stay
    #[arg(long, value_name = "FOLDER", conflicts_with = "route")]
    keep: Option<PathBuf>,
    /// Drive this route of the running gateway, which has [routes.NAME.chaos]
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Where posts go; {marker} stands for each post's key
    #[arg(long, requires = "route")]
    path: Option<String>,
    /// What each post says, JSON
    #[arg(long, value_name = "JSON", requires = "route")]
    body: Option<String>,
    /// Where the upstream tells how often something was done, such as
    /// 'GET /orders?ref={marker}' (through the route) or a URL
    #[arg(long, value_name = "'GET PATH'", requires = "route")]
    count: Option<String>,
    /// Drive a route that does not fail on purpose
    #[arg(long, requires = "route")]
    no_faults: bool,
    /// The gateway on another machine is mine to put to the test
    #[arg(long, requires = "route")]
    i_own_this: bool,
}

/// Runs it until it is over or a person ends it; then nothing of it is left.
pub(super) fn chaos(flags: &Chaos, global: &Global) -> Result<(), Exit> {
    let failed = |error: std::io::Error| Exit::failed(error.to_string());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(failed)?;
    let ended = runtime.block_on(async {
        // Heard before anything is there that would be left behind.
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
        tokio::select! {
            ended = run(flags, global) => ended,
            _ = interrupt.recv() => Err(Exit::quiet(130)),
            _ = terminate.recv() => Err(Exit::quiet(143)),
            _ = hangup.recv() => Err(Exit::quiet(129)),
        }
    });
    // Callers that still wait for an answer wait for nobody.
    runtime.shutdown_background();
    ended
}

async fn run(flags: &Chaos, global: &Global) -> Result<(), Exit> {
    if let Some(route) = &flags.route {
        return route::drive(flags, route, Client::new(global)?, global.json).await;
    }
    if let Some(keep) = flags.keep.as_ref().filter(|keep| keep.exists()) {
        return Err(Exit::usage(format!(
            "{} is there already\nhelp: --keep makes a folder of its own",
            keep.display()
        )));
    }
    let options = Options {
        program: std::env::current_exe().map_err(|error| Exit::failed(error.to_string()))?,
        posts: flags.posts.unwrap_or(POSTS) as usize,
        kills: flags.kills.unwrap_or(KILLS) as usize,
        seed: flags.seed.unwrap_or_else(drawn),
        cold: flags.cold,
        keep: flags.keep.clone(),
    };
    if !global.json {
        say(&format!("{} posts, {} kills, seed {}", options.posts, options.kills, options.seed));
    }
    let bar = Bar::new();
    let ran = storm::run(options, bar.progress()).await;
    bar.clear();
    let report = ran.map_err(|error| Exit::failed(format!("the run broke off: {error}")))?;
    if global.json {
        print(&report.json().to_string())?;
    } else {
        print_bytes(report.text().as_bytes())?;
    }
    verdict(&report)
}

fn verdict(report: &Report) -> Result<(), Exit> {
    if let Some(exit) = broken(&report.violations, report.kept.as_deref()) {
        return Err(exit);
    }
    say(&format!(
        "kept: 0 missing, 0 doubled, every replay alike ({:.0} s)",
        report.took.as_secs_f64()
    ));
    Ok(())
}

/// What is wrong, where something is.
fn broken(violations: &[String], kept: Option<&Path>) -> Option<Exit> {
    const SHOWN_MAX: usize = 10;
    if violations.is_empty() {
        return None;
    }
    let mut message = match violations.len() {
        1 => "a promise was broken:".to_owned(),
        n => format!("{n} promises were broken:"),
    };
    for violation in violations.iter().take(SHOWN_MAX) {
        message.push_str("\n  ");
        message.push_str(&clean(violation));
    }
    if violations.len() > SHOWN_MAX {
        message.push_str("\n  …");
    }
    if let Some(kept) = kept {
        message.push_str("\nhelp: the ledger and the logs are in ");
        message.push_str(&kept.display().to_string());
    }
    Some(Exit::violation(message))
}

/// A seed that differs each time.
fn drawn() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    // Short enough to be typed again.
    now.map_or(1, |now| now.as_nanos() as u64 % 1_000_000)
}

/// A bar on stderr, where a person sees it.
struct Bar(Arc<Mutex<String>>);

impl Bar {
    fn new() -> Self {
        Self(Arc::default())
    }

    fn progress(&self) -> Progress {
        const WIDTH: usize = 40;
        let shown = Arc::clone(&self.0);
        if !std::io::stderr().is_terminal() {
            return Arc::new(|_, _, _| {});
        }
        Arc::new(move |phase, done, all| {
            let full = WIDTH * done / all.max(1);
            let line = format!(
                "{phase:<8} [{}{}] {done} of {all}",
                "#".repeat(full),
                "-".repeat(WIDTH - full.min(WIDTH))
            );
            let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
            if *shown != line {
                // Where nobody looks, nothing is missed.
                let _ = write!(std::io::stderr(), "\r\u{1b}[K{line}");
                *shown = line;
            }
        })
    }

    fn clear(&self) {
        if !self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            let _ = write!(std::io::stderr(), "\r\u{1b}[K");
        }
    }
}
