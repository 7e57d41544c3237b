//! `ls`: the operations that match, the newest first, a page at a time.

use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::Value;
use url::form_urlencoded::Serializer;

use super::client::Client;
use super::output::{Table, each, is_terminal, print, print_bytes, say, text, when};
use crate::exit::Exit;

/// The most that the gateway gives in one page.
const PAGE_MAX: usize = 1000;

pub(super) const STATES: [&str; 7] =
    ["pending", "delivering", "in_doubt", "done", "dead", "dead_letter", "forgotten"];

/// What a key is: a caller's, what a route calls one effect, of a callback, of a handler's claim.
const KINDS: [&str; 4] = ["call", "unique", "callback", "claim"];

/// Which operations.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// In this state
    #[arg(long, value_parser = PossibleValuesParser::new(STATES))]
    state: Option<String>,
    /// Of this route, or of this origin of ad hoc URLs
    #[arg(long)]
    route: Option<String>,
    /// Whose key is of this kind
    #[arg(long, value_parser = PossibleValuesParser::new(KINDS))]
    kind: Option<String>,
    /// Whose scope has this name, such as that of claims
    #[arg(long, value_name = "NAME")]
    scope: Option<String>,
    /// With this key
    #[arg(long)]
    key: Option<String>,
    /// With this label
    #[arg(long)]
    label: Option<String>,
    /// About this subject
    #[arg(long, value_name = "NAME")]
    subject: Option<String>,
    /// With this text in its key, label, path or id
    #[arg(long)]
    text: Option<String>,
    /// Whose last answer had this status
    #[arg(long)]
    status: Option<u16>,
    /// Born of this operation
    #[arg(long, value_name = "ID")]
    parent: Option<String>,
    /// Whose answer made this: NAME:ID, or ID whatever its name
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// That came then or later, such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    after: Option<String>,
    /// That came earlier
    #[arg(long, value_name = "TIME")]
    before: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Ls {
    #[command(flatten)]
    which: Which,
    /// How many at most
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// All of them
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

impl Which {
    /// What the flags say, by the names that the gateway has for it.
    pub(super) fn words(&self) -> Vec<(&'static str, Value)> {
        let texts = [
            ("state", &self.state),
            ("route", &self.route),
            ("kind", &self.kind),
            ("scope", &self.scope),
            ("key", &self.key),
            ("label", &self.label),
            ("subject", &self.subject),
            ("text", &self.text),
            ("parent", &self.parent),
            ("id", &self.id),
            ("after", &self.after),
            ("before", &self.before),
        ];
        let said = |(name, text): (_, &Option<String>)| Some((name, text.as_deref()?.into()));
        let status = self.status.map(|status| ("status", status.into()));
        texts.into_iter().filter_map(said).chain(status).collect()
    }
}

impl Ls {
    fn query(&self, limit: usize, cursor: Option<&str>) -> String {
        let mut query = Serializer::new(String::new());
        for (name, word) in self.which.words() {
            let word = word.as_str().map_or_else(|| word.to_string(), str::to_owned);
            query.append_pair(name, &word);
        }
        query.append_pair("limit", &limit.to_string());
        cursor.map(|cursor| query.append_pair("cursor", cursor));
        format!("/v1/operations?{}", query.finish())
    }
}

/// Lists them. A page may have few and still a next: the gateway looks at a bounded number of
/// rows at a time.
pub(super) async fn ls(flags: &Ls, client: &Client, json: bool) -> Result<(), Exit> {
    let terminal = is_terminal();
    let mut left =
        if flags.all { usize::MAX } else { usize::try_from(flags.limit).unwrap_or(usize::MAX) };
    let mut cursor: Option<String> = None;
    let mut array = Array::default();
    let mut table = Table::new(&NAMES);
    loop {
        let page = client.get(&flags.query(left.min(PAGE_MAX), cursor.as_deref())).await?;
        let operations = each(&page, "/data");
        left -= operations.len().min(left);
        for operation in operations {
            if json {
                array.print(operation)?;
            } else {
                table.push(row(operation, terminal));
            }
        }
        cursor = page["next"].as_str().map(str::to_owned);
        if cursor.is_none() || left == 0 {
            break;
        }
        if !json && !terminal {
            // Columns do not depend on each other: what is there goes out.
            table.print(terminal)?;
            table = Table::new(&NAMES);
        }
    }
    if json {
        return array.end();
    }
    table.print(terminal)?;
    if cursor.is_some() && terminal {
        say(&format!("the newest {}; --limit N or --all shows more", flags.limit));
    }
    Ok(())
}

const NAMES: [&str; 8] = ["ID", "STATE", "LAST", "METHOD", "ROUTE", "PATH", "KEY", "CREATED"];

fn row(operation: &Value, terminal: bool) -> Vec<String> {
    vec![
        text(operation, "/id"),
        text(operation, "/state"),
        last(operation),
        text(operation, "/method"),
        place(operation),
        text(operation, "/path"),
        text(operation, "/key"),
        when(&text(operation, "/created_at"), terminal),
    ]
}

/// Where it goes; a claim goes nowhere, and has a scope.
pub(super) fn place(operation: &Value) -> String {
    text(operation, if operation["kind"] == "claim" { "/scope" } else { "/route" })
}

/// The status that it ended with or that it met last, or how the last attempt ended without one.
pub(super) fn last(operation: &Value) -> String {
    if operation["outcome"]["status"].is_number() {
        return text(operation, "/outcome/status");
    }
    let ended =
        each(operation, "/attempts").iter().rev().find(|attempt| !attempt["ending"].is_null());
    ended.map_or_else(
        || "-".to_owned(),
        |attempt| {
            let status = text(attempt, "/status");
            if status == "-" { text(attempt, "/ending") } else { status }
        },
    )
}

/// One JSON array, element by element, so that a list of any length needs no memory.
#[derive(Debug, Default)]
pub(super) struct Array {
    begun: bool,
}

impl Array {
    pub(super) fn print(&mut self, element: &Value) -> Result<(), Exit> {
        let before = if self.begun { ",\n" } else { "[" };
        self.begun = true;
        print_bytes(format!("{before}{element}").as_bytes())
    }

    pub(super) fn end(self) -> Result<(), Exit> {
        print(if self.begun { "]" } else { "[]" })
    }
}

/// A list of few elements as one JSON array.
pub(super) fn print_array(elements: &[Value]) -> Result<(), Exit> {
    let mut array = Array::default();
    elements.iter().try_for_each(|element| array.print(element))?;
    array.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_last_that_was_met_is_a_status_or_an_ending() {
        let attempt = |ending: &str, status: Value| json!({"ending": ending, "status": status});
        for (operation, shown) in [
            (json!({"outcome": {"status": 201}}), "201"),
            (json!({"outcome": null, "attempts": [attempt("answered", json!(503))]}), "503"),
            (json!({"attempts": [attempt("unanswered", Value::Null)]}), "unanswered"),
            (json!({"attempts": [attempt("answered", json!(503)), {"ending": null}]}), "503"),
            (json!({"attempts": []}), "-"),
        ] {
            assert_eq!(last(&operation), shown);
        }
    }
}
