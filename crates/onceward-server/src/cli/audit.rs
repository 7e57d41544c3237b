//! `audit`: who did what, when and why; whether the chain of it is whole, and its lines.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use onceward::store::Store;
use onceward::store::sqlite::{SqliteOptions, SqliteStore};
use onceward::{Head, verify_audit, verify_audit_lines};
use serde_json::Value;

use super::Global;
use super::client::Client;
use super::list::{paged, query};
use super::output::{Printer, each, print, print_bytes, text};
use crate::config::Places;
use crate::exit::Exit;
use crate::operator::{LIMIT_MAX, audit};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Audit {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Tell whether the audit is whole, or where its chain breaks; exit code 5 if it does
    Verify(Verify),
    /// Print the audit, oldest first: a line of JSON each, exactly the bytes that the chain is about
    Export,
}

#[derive(Debug, Args)]
struct List {
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

#[derive(Debug, Args)]
struct Verify {
    /// A head that was noted earlier: nothing behind it may have gone since
    #[arg(long, value_name = "NUMBER:HASH")]
    expect: Option<Head>,
    /// Read the stopped ledger's own files, and ask no gateway
    #[arg(long)]
    ledger: bool,
    /// Read what `onceward audit export` printed, and ask no gateway
    #[arg(long, value_name = "FILE", conflicts_with = "ledger")]
    file: Option<PathBuf>,
}

impl Audit {
    /// Whether it is about files, and no gateway is asked.
    pub(super) fn is_of_files(&self) -> bool {
        match &self.verb {
            Some(Verb::Verify(verify)) => verify.ledger || verify.file.is_some(),
            Some(Verb::Export) | None => false,
        }
    }
}

pub(super) async fn audit(flags: &Audit, client: &Client, out: Printer) -> Result<(), Exit> {
    match &flags.verb {
        None => list(&flags.list, client, out).await,
        Some(Verb::Export) => export(client).await,
        Some(Verb::Verify(verify)) => {
            let expected = verify.expect.map(|head| ("expect", head.to_string()));
            let found = client.get(&query("/v1/audit/verify", expected.into_iter())).await?;
            tell(&found, out)
        }
    }
}

/// Verifies what lies in files.
pub(super) async fn verify_files(flags: &Audit, global: &Global) -> Result<(), Exit> {
    let Some(Verb::Verify(verify)) = &flags.verb else { return Ok(()) };
    let found = if let Some(file) = &verify.file {
        let lines = std::fs::read_to_string(file)
            .map_err(|error| Exit::failed(format!("{}: {error}", file.display())))?;
        verify_audit_lines(lines.lines(), verify.expect)
    } else {
        let places = Places::load(global.config.as_deref())?;
        let ledger = places.store.file()?;
        if !ledger.exists() {
            return Err(Exit::not_found(format!("there is no ledger {}", ledger.display())));
        }
        let store = SqliteStore::open(ledger, &SqliteOptions::default()).map_err(|error| {
            Exit::failed(format!(
                "{error}\nhelp: stop the gateway first, or ask it: leave --ledger away"
            ))
        })?;
        verify_audit(&store as &dyn Store, verify.expect).await?
    };
    tell(&audit::verdict(&found), Printer::new(global.json))
}

fn tell(found: &Value, out: Printer) -> Result<(), Exit> {
    let breaks = each(found, "/breaks");
    out.document(found, || {
        for broken in breaks {
            print(&format!("note {}: {}", broken["number"], text(broken, "/why")))?;
        }
        let head = format!("{}:{}", found["head"]["number"], text(found, "/head/hash"));
        let is = if breaks.is_empty() { "intact" } else { "broken" };
        print(&format!("{is}\t{} notes\thead {head}", found["notes"]))
    })?;
    if breaks.is_empty() {
        return Ok(());
    }
    Err(Exit::violation(
        "the audit does not hold: something was changed, left out or taken away\nhelp: keep the ledger as it is, and look for a backup in which the audit holds",
    ))
}

async fn export(client: &Client) -> Result<(), Exit> {
    let mut behind = 0;
    loop {
        let lines = client.lines(&format!("/v1/audit/export?behind={behind}")).await?;
        print_bytes(lines.as_bytes())?;
        let last = lines.lines().last().map(serde_json::from_str::<Value>);
        match last.and_then(|last| last.ok()?["number"].as_u64()) {
            Some(number) if lines.lines().count() >= LIMIT_MAX => behind = number,
            _ => return Ok(()),
        }
    }
}

async fn list(flags: &List, client: &Client, out: Printer) -> Result<(), Exit> {
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
