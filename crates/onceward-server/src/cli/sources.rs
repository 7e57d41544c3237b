//! `sources`: where webhooks come in; of one of them, which were not taken, and why.

use clap::Args;
use serde_json::{Value, json};

use super::client::{Client, part};
use super::ls::print_array;
use super::output::{Table, each, is_terminal, print, text, when};
use crate::exit::Exit;

#[derive(Debug, Args)]
pub(super) struct Sources {
    /// One of them, with the webhooks that were not taken
    name: Option<String>,
    /// How many of those at most
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    limit: u64,
}

pub(super) async fn sources(flags: &Sources, client: &Client, json: bool) -> Result<(), Exit> {
    match &flags.name {
        Some(name) => one(name, flags.limit, client, json).await,
        None => all(client, json).await,
    }
}

async fn all(client: &Client, json: bool) -> Result<(), Exit> {
    let page = client.get("/v1/sources").await?;
    let sources = each(&page, "/data");
    if json {
        return print_array(sources);
    }
    let mut table =
        Table::new(&["NAME", "PATH", "SCHEME", "SECRETS", "ID", "SIGNED", "ROUTE", "RESOLVES"]);
    for source in sources {
        table.push(vec![
            text(source, "/name"),
            text(source, "/path"),
            text(source, "/scheme"),
            text(source, "/secrets"),
            ids(source),
            if source["id_signed"] == true { "yes" } else { "no" }.to_owned(),
            text(source, "/route"),
            text(source, "/resolves"),
        ]);
    }
    table.print(is_terminal())
}

fn ids(source: &Value) -> String {
    let ids: Vec<_> = each(source, "/id").iter().filter_map(Value::as_str).collect();
    if ids.is_empty() { "content".to_owned() } else { ids.join(", else ") }
}

async fn one(name: &str, limit: u64, client: &Client, json: bool) -> Result<(), Exit> {
    let path = format!("/v1/sources/{}", part(name));
    let source = client.get(&path).await?;
    let page = client.get(&format!("{path}/rejects?limit={limit}")).await?;
    let rejects = each(&page, "/data");
    if json {
        return print(&json!({"source": source, "rejects": rejects}).to_string());
    }
    let terminal = is_terminal();
    if terminal {
        print(&format!(
            "{} ({}), expects {}",
            text(&source, "/path"),
            text(&source, "/scheme"),
            each(&source, "/headers")
                .iter()
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join(", ")
        ))?;
    }
    let mut table = Table::new(&["WHEN", "ANSWERED", "REASON", "NOW", "WHY"]);
    for reject in rejects {
        let now = match reject["verifies_now"].as_bool() {
            Some(true) => "verifies",
            Some(false) => "does not",
            None => "-",
        };
        table.push(vec![
            when(&text(reject, "/at"), terminal),
            text(reject, "/status"),
            text(reject, "/reason").replace('_', " "),
            now.to_owned(),
            text(reject, "/why"),
        ]);
    }
    table.print(terminal)
}
