//! `bulk`: to all operations that match: a plan first, then at a limited rate; Ctrl-C stops the
//! looking, and not the bulk.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::act::Risk;
use super::client::{Client, part};
use super::list::whole;
use super::ls::Which;
use super::output::{Printer, Sure, print, say, text};
use crate::exit::Exit;
use crate::operator::bulk::RATE_MAX;

/// How often it is looked how far a bulk is.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Subcommand)]
pub(super) enum Bulk {
    /// Send all that match again; what could be done twice is left out, unless its risk is taken
    Redeliver(Redeliver),
    /// Have the attempts that all that match wait for now
    Retry(Common),
    /// Give all that match up
    Cancel(Common),
    /// Say of all that match what became of them
    Resolve(Resolve),
    /// Drop the keys of all that match
    Forget(Forget),
    /// List the bulks
    Ls,
    /// Show how far a bulk is
    Show {
        /// The bulk
        id: String,
    },
    /// Stop a bulk
    Stop {
        /// The bulk
        id: String,
        /// Why
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Common {
    #[command(flatten)]
    which: Which,
    /// Count what it would do, and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    sure: Sure,
    /// Operations a second, at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(RATE_MAX)))]
    rate: Option<u32>,
    /// Do not wait for its end
    #[arg(long)]
    detach: bool,
    /// Why: it stays with each operation
    #[arg(long, required_unless_present = "dry_run")]
    reason: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Redeliver {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    risk: Risk,
}

#[derive(Debug, Args)]
pub(super) struct Resolve {
    #[command(flatten)]
    common: Common,
    /// What became of them; not-sent sends them again
    #[arg(long = "as", value_name = "WHAT", value_parser = ["done", "not-sent"])]
    outcome: String,
}

#[derive(Debug, Args)]
pub(super) struct Forget {
    #[command(flatten)]
    common: Common,
    /// What their next use meets: a refusal, or a new operation
    #[arg(long, default_value = "refuse", value_parser = ["refuse", "new"])]
    then: String,
}

pub(super) async fn bulk(verb: &Bulk, client: &Client, out: Printer) -> Result<(), Exit> {
    let (action, common, more) = match verb {
        Bulk::Redeliver(flags) => {
            ("redeliver", &flags.common, ("accept_risk", json!(flags.risk.accept_risk.as_slice())))
        }
        Bulk::Retry(flags) => ("retry", flags, ("dry_run", json!(flags.dry_run))),
        Bulk::Cancel(flags) => ("cancel", flags, ("dry_run", json!(flags.dry_run))),
        Bulk::Resolve(flags) => ("resolve", &flags.common, ("as", json!(flags.outcome))),
        Bulk::Forget(flags) => ("forget", &flags.common, ("then", json!(flags.then))),
        Bulk::Ls => return list(client, out).await,
        Bulk::Show { id } => {
            let shown = client.get(&format!("/v1/bulk/{}", part(id))).await?;
            return tell(&shown, out);
        }
        Bulk::Stop { id, reason } => {
            let path = format!("/v1/bulk/{}/stop", part(id));
            client.post(&path, &json!({"reason": reason})).await?;
            return follow(id, interrupts()?, client, out).await;
        }
    };
    let filter: Map<String, Value> =
        common.which.words().into_iter().map(|(name, word)| (name.to_owned(), word)).collect();
    let mut document = json!({
        "action": action, "filter": filter, "dry_run": common.dry_run, "rate": common.rate,
        "reason": common.reason.as_deref().unwrap_or_default(),
    });
    document[more.0] = more.1;
    if common.dry_run {
        return plan(&client.post("/v1/bulk", &document).await?, out);
    }
    let tell_plan = |planned: &Value| {
        for line in planned_lines(planned) {
            say(&line.replace('\t', " "));
        }
    };
    common.sure.go_on(client, "/v1/bulk", &document, tell_plan).await?;
    let answer = client.post("/v1/bulk", &document).await?;
    if common.detach {
        return tell(&answer, out);
    }
    let id = text(&answer, "/id");
    let interrupted = interrupts()?;
    say(&format!(
        "{id}: {} match; Ctrl-C stops looking, `onceward bulk stop {id}` stops it",
        text(&answer, "/matched")
    ));
    follow(&id, interrupted, client, out).await
}

/// Listened for before anybody is told of it, so that none is missed.
fn interrupts() -> Result<Signal, Exit> {
    signal(SignalKind::interrupt()).map_err(|error| Exit::failed(error.to_string()))
}

/// What it would do.
fn plan(plan: &Value, out: Printer) -> Result<(), Exit> {
    if out.is_json {
        return print(&plan.to_string());
    }
    planned_lines(plan).iter().try_for_each(|line| print(line))
}

fn planned_lines(plan: &Value) -> Vec<String> {
    let at_least = if plan["exact"] == true { "" } else { "at least " };
    let mut lines = vec![format!("matched\t{at_least}{}", text(plan, "/matched"))];
    for (name, counts) in [("risk", &plan["by_risk"]), ("route", &plan["by_route"])] {
        for (word, count) in counts.as_object().into_iter().flatten() {
            lines.push(format!("{name}\t{}\t{count}", super::output::clean(word)));
        }
    }
    lines.push(format!("left out\t{}", text(plan, "/left_out")));
    lines
}

/// Looks until it has ended.
async fn follow(
    id: &str,
    mut interrupted: Signal,
    client: &Client,
    out: Printer,
) -> Result<(), Exit> {
    let is_watched = std::io::stderr().is_terminal();
    loop {
        let shown = client.get(&format!("/v1/bulk/{}", part(id))).await?;
        let is_over = shown["state"] != "running";
        if is_watched {
            let end = if is_over { "\n" } else { "" };
            // Where nobody looks, there is nobody to tell.
            let _ = write!(std::io::stderr(), "\r{}\u{1b}[K{end}", progress(&shown));
        }
        if is_over {
            tell(&shown, out)?;
            let failed = shown["failed"].as_u64().unwrap_or_default();
            return if failed > 0 { Err(failures(&shown)) } else { Ok(()) };
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            _ = interrupted.recv() => {
                say(&format!("{id} goes on: `onceward bulk show {id}` tells how far it is"));
                return Err(Exit::quiet(130));
            }
        }
    }
}

fn failures(shown: &Value) -> Exit {
    Exit::failed(format!(
        "{} failed; the last: {}",
        text(shown, "/failed"),
        text(shown, "/last_failure")
    ))
}

fn progress(shown: &Value) -> String {
    let at_least = if shown["exact"] == true { "" } else { "more than " };
    format!(
        "{} of {at_least}{} done, {} left out, {} failed, {}{}",
        text(shown, "/done"),
        text(shown, "/matched"),
        text(shown, "/left_out"),
        text(shown, "/failed"),
        text(shown, "/state"),
        became(shown)
    )
}

/// What became of those that were sent: that a bulk did it says only that they were sent off.
fn became(shown: &Value) -> String {
    if shown["action"] != "redeliver" || shown["done"] == 0 || !shown["outcomes"].is_object() {
        return String::new();
    }
    let of = if shown["outcomes"]["exact"] == true { "now" } else { "now, of those looked at" };
    format!(
        "; {of} {} are done, {} dead, {} in doubt, {} open",
        text(shown, "/outcomes/done"),
        text(shown, "/outcomes/dead"),
        text(shown, "/outcomes/in_doubt"),
        text(shown, "/outcomes/open")
    )
}

/// A line of JSON, or its name and how far it is.
fn tell(shown: &Value, out: Printer) -> Result<(), Exit> {
    out.document(shown, || {
        print(&format!("{}\t{}\t{}", text(shown, "/id"), text(shown, "/state"), progress(shown)))
    })
}

async fn list(client: &Client, out: Printer) -> Result<(), Exit> {
    let names = &["ID", "ACTION", "STATE", "DONE", "MATCHED", "FAILED", "WHO", "BEGAN"];
    whole(client, "/v1/bulk", out, names, |bulk| {
        let members = ["/id", "/action", "/state", "/done", "/matched", "/failed", "/who"];
        let members = members.map(|member| text(bulk, member));
        members.into_iter().chain([out.when(bulk, "/began_at")]).collect()
    })
    .await
}
