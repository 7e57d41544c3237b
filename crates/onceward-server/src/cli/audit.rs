//! `audit`: who did what, when and why.

use clap::Args;
use url::form_urlencoded::Serializer;

use super::client::Client;
use super::ls::Array;
use super::output::{Table, each, is_terminal, text, when};
use crate::exit::Exit;

/// The most that the gateway gives in one page.
const PAGE_MAX: usize = 1000;

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

pub(super) async fn audit(flags: &Audit, client: &Client, json: bool) -> Result<(), Exit> {
    let terminal = is_terminal();
    let mut left = usize::try_from(flags.limit).unwrap_or(usize::MAX);
    let mut cursor: Option<String> = None;
    let mut array = Array::default();
    let mut table = Table::new(&["WHEN", "WHO", "DEED", "ABOUT", "REASON"]);
    while left > 0 {
        let mut query = Serializer::new(String::new());
        for (name, value) in [("who", &flags.who), ("after", &flags.after), ("cursor", &cursor)] {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        query.append_pair("limit", &left.min(PAGE_MAX).to_string());
        let page = client.get(&format!("/v1/audit?{}", query.finish())).await?;
        let notes = each(&page, "/data");
        left -= notes.len().min(left);
        for note in notes {
            if json {
                array.print(note)?;
                continue;
            }
            let refused = if note["refused"] == true { ", refused" } else { "" };
            table.push(vec![
                when(&text(note, "/at"), terminal),
                text(note, "/who"),
                format!("{}{refused}", text(note, "/deed").replace('_', " ")),
                text(note, "/about"),
                text(note, "/reason"),
            ]);
        }
        cursor = page["next"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    if json { array.end() } else { table.print(terminal) }
}
