//! `saga`: several effects of one cause: started, listed, told, and what a person does about one.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::act::Risk;
use super::client::{Client, part};
use super::list::{paged, query};
use super::output::{Printer, each, print, text};
use super::send::bytes_of;
use crate::exit::Exit;

#[derive(Debug, Subcommand)]
pub(super) enum Saga {
    /// Start a saga from a file of JSON; its key, started again, is the same saga
    Start(Start),
    /// List sagas, the newest first
    Ls(Ls),
    /// Tell how far a saga came, step by step
    Show {
        /// The saga
        id: String,
    },
    /// Begin no further step; what is at hand comes to its end
    Pause(Act),
    /// Let a paused saga go on
    Resume(Act),
    /// Try the step anew at which a saga is stuck
    Retry(Retry),
    /// Undo what a saga has done, in reverse
    Cancel(Act),
    /// Say what became of the step at which a saga is stuck
    Resolve(Resolve),
}

#[derive(Debug, Args)]
pub(super) struct Start {
    /// The file, or - for stdin
    file: PathBuf,
    /// Its idempotency key, where the file names none
    #[arg(long)]
    key: Option<String>,
    /// What it is called
    #[arg(long)]
    label: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Ls {
    /// Only those that stand there
    #[arg(long, value_parser = ["running", "in_doubt", "paused", "unwinding", "stuck", "done", "unwound"])]
    state: Option<String>,
    /// How many at most
    #[arg(long, default_value_t = 50)]
    limit: usize,
}

#[derive(Debug, Args)]
pub(super) struct Act {
    /// The saga
    id: String,
    /// Why: it stays with the saga
    #[arg(long)]
    reason: String,
}

#[derive(Debug, Args)]
pub(super) struct Retry {
    #[command(flatten)]
    act: Act,
    #[command(flatten)]
    risk: Risk,
}

#[derive(Debug, Args)]
pub(super) struct Resolve {
    #[command(flatten)]
    act: Act,
    /// The step at hand, or NAME/undo
    #[arg(long)]
    step: String,
    /// What became of it
    #[arg(long = "as", value_name = "WHAT", value_parser = ["done", "not-done"])]
    outcome: String,
}

pub(super) async fn saga(verb: &Saga, client: &Client, out: Printer) -> Result<(), Exit> {
    match verb {
        Saga::Start(flags) => start(flags, client, out).await,
        Saga::Ls(flags) => list(flags, client, out).await,
        Saga::Show { id } => tell(&client.get(&format!("/v1/sagas/{}", part(id))).await?, out),
        Saga::Pause(flags) => act("pause", flags, json!({}), client, out).await,
        Saga::Resume(flags) => act("resume", flags, json!({}), client, out).await,
        Saga::Cancel(flags) => act("cancel", flags, json!({}), client, out).await,
        Saga::Retry(flags) => {
            let more = json!({"risk": flags.risk.accept_risk});
            act("retry", &flags.act, more, client, out).await
        }
        Saga::Resolve(flags) => {
            let more = json!({"step": flags.step, "as": flags.outcome});
            act("resolve", &flags.act, more, client, out).await
        }
    }
}

async fn start(flags: &Start, client: &Client, out: Printer) -> Result<(), Exit> {
    let file = flags.file.display();
    let bytes = bytes_of(None, Some(&flags.file))?.unwrap_or_default();
    let mut document: Value = serde_json::from_slice(&bytes)
        .map_err(|error| Exit::usage(format!("{file}: {error}: write a saga as JSON")))?;
    if !document.is_object() {
        return Err(Exit::usage(format!("{file}: a saga is a JSON object with steps")));
    }
    for (name, said) in [("key", &flags.key), ("label", &flags.label)] {
        if let Some(said) = said {
            document[name] = json!(said);
        }
    }
    let saga = client.post("/v1/sagas", &document).await?;
    out.document(&saga, || {
        let line = [text(&saga, "/id"), text(&saga, "/state"), text(&saga, "/key")];
        print(&line.join("\t"))
    })
}

async fn list(flags: &Ls, client: &Client, out: Printer) -> Result<(), Exit> {
    let path = |limit: usize, cursor: Option<&str>| {
        let state = flags.state.clone().map(|state| ("state", state));
        let cursor = cursor.map(|cursor| ("cursor", cursor.to_owned()));
        let limit = Some(("limit", limit.to_string()));
        query("/v1/sagas", limit.into_iter().chain(state).chain(cursor))
    };
    let names = &["ID", "STATE", "DONE", "STEPS", "AT", "KEY", "CAME"];
    let row = |saga: &Value| {
        let members = ["/id", "/state", "/progress/done", "/progress/steps", "/at", "/key"];
        let members = members.map(|member| text(saga, member));
        members.into_iter().chain([out.when(saga, "/created_at")]).collect()
    };
    paged(client, path, flags.limit, out, names, row).await.map(drop)
}

async fn act(
    deed: &str,
    flags: &Act,
    mut document: Value,
    client: &Client,
    out: Printer,
) -> Result<(), Exit> {
    document["reason"] = json!(flags.reason);
    let path = format!("/v1/sagas/{}/{deed}", part(&flags.id));
    tell(&client.post(&path, &document).await?, out)
}

/// A line of JSON, or its state and its steps.
fn tell(saga: &Value, out: Printer) -> Result<(), Exit> {
    out.document(saga, || {
        print(&format!("{}\t{}\t{}", text(saga, "/id"), text(saga, "/state"), text(saga, "/key")))?;
        if !saga["why"].is_null() {
            print(&format!("why\t{}", text(saga, "/why")))?;
        }
        for step in each(saga, "/steps") {
            let undo = match text(step, "/compensate/operation_state").as_str() {
                "-" => String::new(),
                state => format!("\tundo {state}"),
            };
            print(&format!(
                "{}\t{}\t{}\t{}{undo}",
                text(step, "/name"),
                text(step, "/state"),
                text(step, "/operation_state"),
                text(step, "/operation"),
            ))?;
        }
        Ok(())
    })
}
