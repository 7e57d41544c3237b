//! `backup`: the running gateway copies its ledger and its master key into a folder.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::client::Client;
use super::output::{Printer, print, say, text};
use crate::exit::Exit;

#[derive(Debug, Args)]
pub(super) struct Backup {
    /// A folder of its own, on the gateway's machine
    folder: PathBuf,
}

pub(super) async fn backup(flags: &Backup, client: &Client, out: Printer) -> Result<(), Exit> {
    let folder = std::path::absolute(&flags.folder)
        .map_err(|error| Exit::usage(format!("{}: {error}", flags.folder.display())))?;
    let made = client.post("/v1/backup", &json!({"to": folder})).await?;
    out.document(&made, || {
        print(&text(&made, "/backup"))?;
        say(if made["master_key"] == false {
            "the master key is not in it, since it was given: keep that elsewhere"
        } else {
            "the master key is in it: keep it as you keep credentials"
        });
        Ok(())
    })
}
