//! `audit`: who did what, when and why.

use clap::Args;
use serde_json::Value;

use super::client::Client;
use super::list::{paged, query};
use super::output::{Printer, text};
use crate::exit::Exit;

#[derive(Debug, Args)]
pub(super) struct Audit {
    /// Of this person: the name of an access key, or local
    #[arg(long)]
    who: Option<String>,
    /// Then or later, such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    after: Option<String>,
    /// How many at most
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
}

pub(super) async fn audit(flags: &Audit, client: &Client, out: Printer) -> Result<(), Exit> {
    let left = usize::try_from(flags.limit).unwrap_or(usize::MAX);
    let page = |limit: usize, cursor: Option<&str>| {
        let words = [
            ("who", flags.who.clone()),
            ("after", flags.after.clone()),
            ("cursor", cursor.map(str::to_owned)),
            ("limit", Some(limit.to_string())),
        ];
        let said = words.into_iter().filter_map(|(name, word)| Some((name, word?)));
        query("/v1/audit", said)
    };
    let row = |note: &Value| {
        let refused = if note["refused"] == true { ", refused" } else { "" };
        vec![
            out.when(note, "/at"),
            text(note, "/who"),
            format!("{}{refused}", text(note, "/deed").replace('_', " ")),
            text(note, "/about"),
            text(note, "/reason"),
        ]
    };
    let names = &["WHEN", "WHO", "DEED", "ABOUT", "REASON"];
    paged(client, page, left, out, names, row).await.map(drop)
}
