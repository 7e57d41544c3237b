//! The command line: verbs, flags and exit codes. `serve` runs the gateway; the others speak to
//! a running one.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::config::{Config, Overrides};
use crate::exit::Exit;
use crate::serve::serve;

const EXAMPLES: &str = "\
Examples:
  onceward serve
  curl -H 'Idempotency-Key: order-1' -d '{}' 'http://127.0.0.1:7077/to/demo/orders?script=503,drop,201'
  onceward ls --state dead

Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 access, 5 a check found something,
70 the ledger broke (start again: it recovers), 78 bad configuration";

/// Every post lands, once: a gateway that makes HTTP side effects safe to retry.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// What every verb takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// The configuration file; without it ./onceward.toml, or none
    #[arg(long, global = true, env = "ONCEWARD_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The running gateway; without it the configuration's `listen`
    #[arg(long, global = true, env = "ONCEWARD_URL", value_name = "URL")]
    pub(crate) url: Option<String>,
    /// The access key; without it the operator's, from the data folder
    #[arg(
        long,
        global = true,
        env = "ONCEWARD_ACCESS_KEY",
        value_name = "KEY",
        hide_env_values = true
    )]
    pub(crate) access_key: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the gateway
    Serve(Serve),
    /// Read the configuration, show what it means, and warn
    Check,
    /// Print a shell's completions
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
struct Serve {
    /// Listen here
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// The ledger, such as sqlite:onceward-data/ledger.db
    #[arg(long)]
    store: Option<String>,
    /// Open an address or network to ad hoc URLs, such as localhost:3000 or 10.2.0.0/16
    #[arg(long, value_name = "HOST")]
    allow: Vec<String>,
    /// What is logged, such as info, debug or onceward=debug
    #[arg(long, env = "ONCEWARD_LOG", default_value = "info")]
    log: String,
}

/// Parses, runs, and says how it ended.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            say(&exit.message);
            ExitCode::from(exit.code)
        }
    }
}

#[expect(clippy::print_stderr, reason = "stderr is for talk")]
fn say(message: &str) {
    eprintln!("error: {message}");
}

/// Prints a line of data.
#[expect(clippy::print_stdout, reason = "stdout is for data")]
pub(crate) fn print(line: &str) {
    println!("{line}");
}

fn run(cli: Cli) -> Result<(), Exit> {
    let Cli { global, verb } = cli;
    match verb {
        Verb::Serve(flags) => run_serve(&global, flags),
        Verb::Check => check(&global),
        Verb::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "onceward", &mut std::io::stdout());
            Ok(())
        }
    }
}

fn run_serve(global: &Global, flags: Serve) -> Result<(), Exit> {
    start_log(&flags.log)?;
    let overrides = Overrides { listen: flags.listen, store: flags.store, allow: flags.allow };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Exit::failed(error.to_string()))?;
    let ended = runtime.block_on(serve(global.config.as_deref(), &overrides));
    // What is still under way after the grace ends with the process.
    runtime.shutdown_background();
    ended
}

/// Text for a person at a terminal, JSON for everything else.
fn start_log(filter: &str) -> Result<(), Exit> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| Exit::config(format!("--log {filter}: {error}")))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    if std::io::stderr().is_terminal() {
        log.compact().init();
    } else {
        log.json().flatten_event(true).init();
    }
    Ok(())
}

fn check(global: &Global) -> Result<(), Exit> {
    let config = Config::load(global.config.as_deref(), &Overrides::default())?;
    let (table, warnings) = (config.inferred(), config.warnings());
    if global.json {
        print(&serde_json::json!({"file": config.file, "listen": config.listen, "effects": table, "warnings": warnings}).to_string());
    } else {
        let file = config.file.as_deref().map_or_else(
            || "no file: defaults".to_owned(),
            |file: &Path| file.display().to_string(),
        );
        print(&format!(
            "configuration  {file}\nlisten         {}\nledger         {}\n",
            config.listen,
            config.store.display()
        ));
        print(&format!(
            "{:<16} {:<24} {:<16} {:<10} after no answer",
            "ROUTE", "MATCH", "EFFECTS", "SAID"
        ));
        for row in &table {
            let said = if row.said { "yes" } else { "inferred" };
            print(&format!(
                "{:<16} {:<24} {:<16} {said:<10} {}",
                row.route, row.r#match, row.effects, row.after_no_answer
            ));
        }
        for warning in &warnings {
            print(&format!("\nwarning: {warning}"));
        }
    }
    if config.strict && !warnings.is_empty() {
        return Err(Exit::violation("strict = true, and there are warnings"));
    }
    Ok(())
}
