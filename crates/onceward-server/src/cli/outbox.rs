//! `outbox`: the tables that are relayed, how far behind they are, and the rows that are parked.

use clap::Args;
use serde_json::json;

use super::client::{Client, part};
use super::list::whole;
use super::output::{Printer, Table, each, print, say, text};
use crate::exit::Exit;

#[derive(Debug, Args)]
pub(super) struct Outbox {
    /// Show this one, and its rows that can never become a call
    name: Option<String>,
    /// Read its parked rows again
    #[arg(long, requires = "name", requires = "reason")]
    retry: bool,
    /// Only the row with this id
    #[arg(long, requires = "retry")]
    id: Option<String>,
    /// Why
    #[arg(long, requires = "retry")]
    reason: Option<String>,
}

pub(super) async fn outbox(flags: &Outbox, client: &Client, out: Printer) -> Result<(), Exit> {
    match &flags.name {
        None => list(client, out).await,
        Some(name) if flags.retry => retry(name, flags, client, out).await,
        Some(name) => show(name, client, out).await,
    }
}

async fn list(client: &Client, out: Printer) -> Result<(), Exit> {
    let names = &["NAME", "TABLE", "STATE", "LAG", "TAKEN", "AGAIN", "PARKED", "LAST ERROR"];
    whole(client, "/v1/outbox", out, names, |outbox| {
        let lag = text(outbox, "/lag_seconds");
        vec![
            text(outbox, "/name"),
            text(outbox, "/table"),
            text(outbox, "/state"),
            if lag == "-" { lag } else { format!("{lag}s") },
            text(outbox, "/remembered"),
            text(outbox, "/duplicates"),
            text(outbox, "/parked"),
            text(outbox, "/last_error"),
        ]
    })
    .await
}

async fn show(name: &str, client: &Client, out: Printer) -> Result<(), Exit> {
    let outbox = client.get(&format!("/v1/outbox/{}", part(name))).await?;
    out.document(&outbox, || {
        let mut table = Table::new(&["ROW", "KEY", "ROUTE", "PARKED", "CODE", "WHY"]);
        for row in each(&outbox, "/parked_rows") {
            table.push(vec![
                text(row, "/id"),
                text(row, "/key"),
                text(row, "/route"),
                out.when(row, "/at"),
                text(row, "/code"),
                text(row, "/why"),
            ]);
        }
        table.print(out.is_terminal)?;
        say(&format!(
            "{}: {}, {} rows remembered, {} parked",
            text(&outbox, "/name"),
            text(&outbox, "/state"),
            text(&outbox, "/remembered"),
            text(&outbox, "/parked"),
        ));
        Ok(())
    })
}

async fn retry(name: &str, flags: &Outbox, client: &Client, out: Printer) -> Result<(), Exit> {
    let document = json!({"reason": flags.reason, "id": flags.id});
    let done = client.post(&format!("/v1/outbox/{}/retry", part(name)), &document).await?;
    out.document(&done, || {
        print(&format!("{}\trows are read again", each(&done, "/retried").len()))
    })
}
