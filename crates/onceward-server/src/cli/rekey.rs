//! `rekey`: a new master key for the ledger of a running gateway.

use clap::Args;
use serde_json::{Value, json};

use super::client::Client;
use super::output::{Printer, each, print, say, text};
use crate::exit::Exit;

#[derive(Debug, Args)]
pub(super) struct Rekey {
    /// Show where the ledger's keys stand; change nothing
    #[arg(long, conflicts_with = "retire")]
    status: bool,
    /// Take the old master keys away that wrap nothing any more
    #[arg(long)]
    retire: bool,
    /// Why; it stands in the audit
    #[arg(long)]
    reason: Option<String>,
}

pub(super) async fn rekey(flags: &Rekey, client: &Client, out: Printer) -> Result<(), Exit> {
    let standing = if flags.status {
        client.get("/v1/rekey").await?
    } else {
        let reason = flags.reason.as_deref().unwrap_or_default();
        client.post("/v1/rekey", &json!({"retire": flags.retire, "reason": reason})).await?
    };
    out.document(&standing, || {
        print(&text(&standing, "/current"))?;
        tell(&standing);
        Ok(())
    })
}

fn tell(standing: &Value) {
    let (keys, waiting) = (each(standing, "/keys").len(), standing["waiting"].as_u64());
    let done = keys as u64 - waiting.unwrap_or_default().min(keys as u64);
    let current = text(standing, "/current");
    say(&format!("{done} of the ledger's {keys} keys are wrapped with the master key {current}"));
    let names: Vec<&str> = each(standing, "/idle").iter().filter_map(|it| it.as_str()).collect();
    if waiting == Some(0) && !names.is_empty() {
        say(&format!(
            "{} may go: the ledger needs no other key than {current} (`onceward rekey --retire` takes away what was made here). A backup from before needs the key of its time.",
            names.join(", ")
        ));
    }
}
