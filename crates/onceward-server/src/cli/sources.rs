//! `sources`: where webhooks come in; of one of them, which were not taken, and why.

use clap::Args;
use serde_json::{Value, json};

use super::client::{Client, part};
use super::list::whole;
use super::output::{Printer, Table, each, print, text};
use crate::exit::Exit;
use crate::operator::LIMIT_MAX;

#[derive(Debug, Args)]
pub(super) struct Sources {
    /// One of them, with the webhooks that were not taken
    name: Option<String>,
    /// How many of those at most
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=LIMIT_MAX as u64))]
    limit: u64,
}

pub(super) async fn sources(flags: &Sources, client: &Client, out: Printer) -> Result<(), Exit> {
    match &flags.name {
        Some(name) => one(name, flags.limit, client, out).await,
        None => all(client, out).await,
    }
}

async fn all(client: &Client, out: Printer) -> Result<(), Exit> {
    let names = &["NAME", "PATH", "SCHEME", "SECRETS", "ID", "SIGNED", "ROUTE", "RESOLVES"];
    whole(client, "/v1/sources", out, names, |source| {
        vec![
            text(source, "/name"),
            text(source, "/path"),
            text(source, "/scheme"),
            text(source, "/secrets"),
            ids(source),
            if source["id_signed"] == true { "yes" } else { "no" }.to_owned(),
            text(source, "/route"),
            text(source, "/resolves"),
        ]
    })
    .await
}

fn ids(source: &Value) -> String {
    let ids: Vec<_> = each(source, "/id").iter().filter_map(Value::as_str).collect();
    if ids.is_empty() { "content".to_owned() } else { ids.join(", else ") }
}

async fn one(name: &str, limit: u64, client: &Client, out: Printer) -> Result<(), Exit> {
    let path = format!("/v1/sources/{}", part(name));
    let source = client.get(&path).await?;
    let page = client.get(&format!("{path}/rejects?limit={limit}")).await?;
    let rejects = each(&page, "/data");
    if out.is_json {
        return print(&json!({"source": source, "rejects": rejects}).to_string());
    }
    if out.is_terminal {
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
            out.when(reject, "/at"),
            text(reject, "/status"),
            text(reject, "/reason").replace('_', " "),
            now.to_owned(),
            text(reject, "/why"),
        ]);
    }
    table.print(out.is_terminal)
}
