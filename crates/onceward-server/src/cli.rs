//! The command line: verbs, flags and exit codes. `serve` and `listen` run the gateway, `check`, `classify`, `restore`
//! and `migrate-store` work on files and ledgers, `verify` asks any API, `sql` prints, and the others
//! speak to a running gateway.
//!
//! Below, each story has its file: the connection (`client`), what is printed (`output`), and the
//! verbs.

mod access;
mod act;
mod alerts;
mod audit;
mod backup;
mod bulk;
mod chaos;
mod check;
mod classify;
mod client;
mod config;
mod context;
mod doubt;
mod erase;
mod keys;
mod list;
mod listen;
mod ls;
mod man;
mod migrate_store;
mod openapi;
mod outbox;
mod output;
mod publish;
mod ready;
#[cfg(test)]
mod reference;
mod rekey;
mod resend;
mod restore;
mod routes;
mod saga;
mod send;
mod show;
mod sources;
mod sql;
mod subscriptions;
mod tail;
mod trigger;
mod verify;
mod version;

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use self::client::Client;
use self::output::{Printer, print_bytes, say};
use crate::config::Overrides;
use crate::event_loops::EventLoops;
use crate::exit::Exit;
use crate::serve::{Heard, serve};

const EXAMPLES: &str = "\
Examples:
  onceward serve
  curl -H 'Idempotency-Key: order-1' -d '{}' 'http://127.0.0.1:7077/to/demo/orders?script=503,drop,201'
  onceward send 'demo/orders' --key order-2 --body '{\"qty\": 1}'
  onceward ls --state dead
  onceward show op_01kb2n9f5nep3b8m6wq6r9t2vx
  onceward verify http://127.0.0.1:7077/to/demo/orders --count 'GET /to/demo/effects'

Data goes to stdout and talk to stderr. Lists are tables at a terminal and lines of tab-separated
columns elsewhere; --json prints JSON everywhere.

Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 access, 5 a check or verify found something,
70 the ledger broke (start again: it recovers), 75 not now (nobody is there, or it is too much for
them: again later), 78 bad configuration, 130 interrupted";

/// Every post lands, once: a gateway that makes HTTP side effects safe to retry.
#[derive(Debug, Parser)]
#[command(name = "onceward", version, disable_version_flag = true, after_help = EXAMPLES)]
#[command(arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    /// Print the release; with --json also the commit that it was built from
    #[arg(short = 'V', long)]
    version: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// What every verb takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// The configuration file; without it ./onceward.toml or /etc/onceward/onceward.toml, or none
    #[arg(long, global = true, env = "ONCEWARD_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The running gateway; without it the configuration's `listen`
    #[arg(long, global = true, env = "ONCEWARD_URL", value_name = "URL")]
    pub(crate) url: Option<String>,
    /// A gateway that `onceward context add` has kept; without it the one of `onceward context use`
    #[arg(long, global = true, env = "ONCEWARD_CONTEXT", value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// The access key; without it the operator's, from the data folder
    #[arg(
        long,
        global = true,
        env = "ONCEWARD_ACCESS_KEY",
        value_name = "KEY",
        hide_env_values = true
    )]
    pub(crate) access_key: Option<String>,
    /// The tenant that is meant; only an operator's key sees others than its own
    #[arg(long, global = true, env = "ONCEWARD_TENANT", value_name = "TENANT")]
    pub(crate) tenant: Option<String>,
    /// The authorities that the gateway's certificate may be of, PEM; without it the system's
    #[arg(long, global = true, env = "ONCEWARD_CA_FILE", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// A certificate to show to a gateway that wants one, PEM
    #[arg(
        long,
        global = true,
        env = "ONCEWARD_CERT_FILE",
        value_name = "FILE",
        requires = "key_file"
    )]
    pub(crate) cert_file: Option<PathBuf>,
    /// Its key, PEM
    #[arg(
        long,
        global = true,
        env = "ONCEWARD_KEY_FILE",
        value_name = "FILE",
        requires = "cert_file"
    )]
    pub(crate) key_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the gateway
    Serve(Serve),
    /// Receive webhooks while you develop what handles them: a line for each, nothing to configure
    Listen(listen::Listen),
    /// Send a webhook as a provider would, signed, such as stripe:payment_intent.succeeded
    Trigger(trigger::Trigger),
    /// Check the configuration, the whole ledger, or whether the gateway is ready
    Check(check::Check),
    /// Draft routes and rules from the document of an API, with the risk of each operation
    Classify(classify::Classify),
    /// Send a request through the gateway and print the answer
    Send(send::Request),
    /// Show what a request would be; nothing is sent
    Explain(send::Request),
    /// Publish an event: it goes to all who want it
    Publish(publish::Publish),
    /// Have events delivered: make, list, change, pause, try and recover who is told of them
    #[command(subcommand)]
    Subscriptions(subscriptions::Subscriptions),
    /// List operations, the newest first
    Ls(ls::Ls),
    /// Tell an operation's story
    Show(show::Show),
    /// Follow operations as they come and change; at a terminal, with keys to open and redeliver them
    Tail(tail::Tail),
    /// Send dead operations again, on purpose
    Redeliver(act::Redeliver),
    /// Ask anew what an operation asked, changed: a new operation with its own key
    Resend(resend::Resend),
    /// Have the attempt that pending operations wait for now
    Retry(act::Several),
    /// Give pending operations up
    Cancel(act::Several),
    /// Say what became of an operation in doubt, or of many by a provider's list
    Resolve(act::Resolve),
    /// Ask the upstream now what became of operations in doubt
    Lookup(doubt::Lookup),
    /// Drop a key before its time
    Forget(act::Forget),
    /// Make a key last longer
    Extend(keys::Extend),
    /// Give an operation another key beside its own
    Rotate(keys::Rotate),
    /// Drop all keys of a principal whose operations have ended
    Revoke(keys::Revoke),
    /// Erase somebody's data for good: requests, answers and all that was said; marks stay
    Erase(erase::Erase),
    /// List the routes, and what stands before their upstreams
    Routes(routes::Routes),
    /// List the outboxes, how far behind they are, and what of them is parked
    Outbox(outbox::Outbox),
    /// List the sources of webhooks; of one, those that were not taken, and why
    Sources(sources::Sources),
    /// List the alerts that fire, and who was told; or send a test
    Alerts(alerts::Alerts),
    /// Send nothing through a route until it is resumed; what it accepts waits
    Pause(act::Steer),
    /// Let a paused route go on, slowly at first
    Resume(act::Steer),
    /// Ask the upstream of a route now whose breaker is open; what it answers decides
    Probe(act::Steer),
    /// Redeliver, cancel, resolve or forget all operations that match
    #[command(subcommand)]
    Bulk(bulk::Bulk),
    /// Several effects of one cause, in order, undone in reverse where one fails
    #[command(subcommand)]
    Saga(saga::Saga),
    /// List what people did, with who and why; tell whether all of it is there
    Audit(audit::Audit),
    /// Make, list, rotate and revoke access keys
    #[command(subcommand)]
    Access(access::Access),
    /// Keep gateways by name, and say which one is asked
    #[command(subcommand)]
    Context(context::Context),
    /// Show the configuration that holds and who says so; its schema, an example
    #[command(subcommand)]
    Config(config::Verb),
    /// Copy the ledger and its master key into a folder, while they are in use
    Backup(backup::Backup),
    /// Put a backup in the place of a ledger; it sends nothing until it is released
    Restore(restore::Restore),
    /// Give the ledger a new master key, while it is in use
    Rekey(rekey::Rekey),
    /// Test any HTTP API that claims idempotency, from outside; exit code 5 if it breaks a must
    Verify(verify::Verify),
    /// Show that nothing is lost and nothing doubled, while everything fails
    Chaos(chaos::Chaos),
    /// Move a stopped embedded ledger into PostgreSQL, whole or not at all
    MigrateStore(migrate_store::MigrateStore),
    /// Print what belongs into your own database: inbox, outbox, and the write boundary
    #[command(subcommand)]
    Sql(sql::Sql),
    /// Print the document of the gateway's own API (OpenAPI)
    Openapi,
    /// Print a shell's completions
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a folder
    Man(man::Pages),
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
    /// Let routes with [routes.NAME.chaos] make their attempts fail on purpose
    #[arg(long)]
    allow_chaos: bool,
    /// What is logged, such as info, debug or onceward=debug
    #[arg(long, env = "ONCEWARD_LOG", default_value = "info")]
    log: String,
}

/// Parses, runs, and says how it ended.
pub(crate) fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match run(cli, &matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            if !exit.message.is_empty() {
                say(&format!("error: {}", exit.message));
            }
            ExitCode::from(exit.code)
        }
    }
}

fn run(cli: Cli, matches: &ArgMatches) -> Result<(), Exit> {
    let Cli { mut global, version, verb } = cli;
    if version {
        return version::version(global.json);
    }
    let Some(verb) = verb else {
        Cli::command().error(ErrorKind::MissingSubcommand, "a verb is missing").exit()
    };
    if verb.asks() {
        context::lay_under(&mut global, matches)?;
    }
    match verb {
        Verb::Serve(flags) => run_serve(&global, flags),
        Verb::Listen(flags) => listen::listen(&flags, &global),
        Verb::Trigger(flags) => block_on(trigger::trigger(&flags, &global)),
        Verb::Check(flags) if flags.is_ready => block_on(ready::ready(&global)),
        Verb::Check(flags) => block_on(check::check(&flags, &global)),
        Verb::Classify(flags) => classify::classify(&flags, &global),
        Verb::Chaos(flags) => chaos::chaos(&flags, &global),
        Verb::Sql(verb) => sql::sql(&verb, &global),
        Verb::Context(verb) => context::context(&verb, &global, matches),
        Verb::Config(verb) => config::config(&verb, &global),
        Verb::Openapi => openapi::openapi(),
        Verb::Completions { shell } => completions(shell),
        Verb::Man(flags) => man::man(&flags, Cli::command()),
        Verb::Restore(flags) if !flags.release => restore::restore(&flags, &global),
        Verb::Verify(flags) => block_on(verify::verify(&flags, &global)),
        Verb::MigrateStore(flags) => block_on(migrate_store::migrate_store(&flags, &global)),
        Verb::Audit(flags) if flags.is_of_files() => block_on(audit::verify_files(&flags, &global)),
        verb => block_on(ask(verb, &global)),
    }
}

fn block_on(verb: impl Future<Output = Result<(), Exit>>) -> Result<(), Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Exit::failed(error.to_string()))?.block_on(verb)
}

/// The verbs that speak to the running gateway.
async fn ask(verb: Verb, global: &Global) -> Result<(), Exit> {
    let client = Client::new(global)?;
    let out = Printer::new(global.json);
    match verb {
        Verb::Send(request) => send::send(&request, &client, out).await,
        Verb::Explain(request) => send::explain(&request, &client, out).await,
        Verb::Publish(flags) => publish::publish(&flags, &client, out).await,
        Verb::Subscriptions(verb) => subscriptions::subscriptions(&verb, &client, out).await,
        Verb::Ls(flags) => ls::ls(&flags, &client, out).await,
        Verb::Show(flags) => show::show(&flags, &client, out).await,
        Verb::Tail(flags) => tail::tail(&flags, &client, out).await,
        Verb::Redeliver(flags) => act::redeliver(&flags, &client, out).await,
        Verb::Resend(flags) => resend::resend(&flags, &client, out).await,
        Verb::Retry(flags) => act::retry(&flags, &client, out).await,
        Verb::Cancel(flags) => act::cancel(&flags, &client, out).await,
        Verb::Resolve(flags) => act::resolve(&flags, &client, out).await,
        Verb::Lookup(flags) => doubt::lookup(&flags, &client, out).await,
        Verb::Forget(flags) => act::forget(&flags, &client, out).await,
        Verb::Extend(flags) => keys::extend(&flags, &client, out).await,
        Verb::Rotate(flags) => keys::rotate(&flags, &client, out).await,
        Verb::Revoke(flags) => keys::revoke(&flags, &client, out).await,
        Verb::Erase(flags) => erase::erase(&flags, &client, out).await,
        Verb::Routes(flags) => routes::routes(&flags, &client, out).await,
        Verb::Outbox(flags) => outbox::outbox(&flags, &client, out).await,
        Verb::Sources(flags) => sources::sources(&flags, &client, out).await,
        Verb::Alerts(flags) => alerts::alerts(&flags, &client, out).await,
        Verb::Pause(flags) => act::steer("pause", &flags, &client, out).await,
        Verb::Resume(flags) => act::steer("resume", &flags, &client, out).await,
        Verb::Probe(flags) => act::steer("probe", &flags, &client, out).await,
        Verb::Bulk(verb) => bulk::bulk(&verb, &client, out).await,
        Verb::Saga(verb) => saga::saga(&verb, &client, out).await,
        Verb::Audit(flags) => audit::audit(&flags, &client, out).await,
        Verb::Access(verb) => access::access(&verb, &client, out).await,
        Verb::Backup(flags) => backup::backup(&flags, &client, out).await,
        Verb::Restore(flags) => restore::release(&flags, &client, out).await,
        Verb::Rekey(flags) => rekey::rekey(&flags, &client, out).await,
        // Handled without a gateway.
        Verb::Serve(_)
        | Verb::Listen(_)
        | Verb::Trigger(_)
        | Verb::Check(_)
        | Verb::Classify(_)
        | Verb::Chaos(_)
        | Verb::Verify(_)
        | Verb::MigrateStore(_)
        | Verb::Sql(_)
        | Verb::Context(_)
        | Verb::Config(_)
        | Verb::Openapi
        | Verb::Completions { .. }
        | Verb::Man(_) => Ok(()),
    }
}

impl Verb {
    /// Whether it asks a running gateway, so that it matters which.
    fn asks(&self) -> bool {
        match self {
            Self::Check(flags) => flags.is_ready,
            Self::Restore(flags) => flags.release,
            Self::Audit(flags) => !flags.is_of_files(),
            Self::Serve(_)
            | Self::Listen(_)
            | Self::Classify(_)
            | Self::Verify(_)
            | Self::MigrateStore(_)
            | Self::Sql(_)
            | Self::Context(_)
            | Self::Config(_)
            | Self::Openapi
            | Self::Completions { .. }
            | Self::Man(_) => false,
            _ => true,
        }
    }
}

fn run_serve(global: &Global, flags: Serve) -> Result<(), Exit> {
    start_log(&flags.log)?;
    let overrides = Overrides {
        listen: flags.listen,
        store: flags.store,
        allow: flags.allow,
        allow_chaos: flags.allow_chaos,
        ..Overrides::default()
    };
    serve_until_told(global.config.as_deref(), &overrides, None)
}

/// Runs the gateway in this process until it is told to stop.
fn serve_until_told(
    config: Option<&Path>,
    overrides: &Overrides,
    heard: Option<Heard>,
) -> Result<(), Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Exit::failed(error.to_string()))?;
    let event_loops = EventLoops::start().map_err(|error| Exit::failed(error.to_string()))?;
    let ended = runtime.block_on(serve(config, overrides, event_loops.handles(), heard));
    // What is still under way after the grace ends with the process.
    event_loops.shutdown_background();
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

fn completions(shell: clap_complete::Shell) -> Result<(), Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "onceward", &mut script);
    print_bytes(&script)
}
