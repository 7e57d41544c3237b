//! `ls`: the operations that match, the newest first, a page at a time.

use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::Value;

use super::client::Client;
use super::list::{paged, query};
use super::output::{Printer, each, say, text};
use crate::exit::Exit;
use crate::operator::Statuses;

pub(super) const STATES: [&str; 7] =
    ["pending", "delivering", "in_doubt", "done", "dead", "dead_letter", "forgotten"];

/// What a key is: a caller's, what a route calls one effect, of a callback, of a handler's claim.
const KINDS: [&str; 8] =
    ["call", "unique", "callback", "claim", "event", "delivery", "saga", "step"];

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
    /// Whose last answer had this status: one, or all that begin alike, as 5xx
    #[arg(long, value_parser = status)]
    status: Option<Statuses>,
    /// That had so many attempts or more
    #[arg(long, value_name = "N")]
    attempts_min: Option<u32>,
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

fn status(text: &str) -> Result<Statuses, String> {
    text.parse().map_err(|_| format!("it takes {}", Statuses::TAKES))
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
        let status = self.status.as_ref().map(|status| ("status", status.told()));
        let attempts = self.attempts_min.map(|least| ("attempts_min", least.into()));
        texts.into_iter().filter_map(said).chain(status).chain(attempts).collect()
    }
}

impl Ls {
    fn query(&self, limit: usize, cursor: Option<&str>) -> String {
        let words = self.which.words().into_iter().map(|(name, word)| {
            (name, word.as_str().map_or_else(|| word.to_string(), str::to_owned))
        });
        let place = cursor.map(|cursor| ("cursor", cursor.to_owned()));
        query("/v1/operations", words.chain([("limit", limit.to_string())]).chain(place))
    }
}

/// Lists them.
pub(super) async fn ls(flags: &Ls, client: &Client, out: Printer) -> Result<(), Exit> {
    let left =
        if flags.all { usize::MAX } else { usize::try_from(flags.limit).unwrap_or(usize::MAX) };
    let page = |limit: usize, cursor: Option<&str>| flags.query(limit, cursor);
    let has_more = paged(client, page, left, out, &NAMES, |it| row(it, out)).await?;
    if has_more && out.is_terminal && !out.is_json {
        say(&format!("the newest {}; --limit N or --all shows more", flags.limit));
    }
    Ok(())
}

const NAMES: [&str; 8] = ["ID", "STATE", "LAST", "METHOD", "ROUTE", "PATH", "KEY", "CREATED"];

fn row(operation: &Value, out: Printer) -> Vec<String> {
    vec![
        text(operation, "/id"),
        text(operation, "/state"),
        last(operation),
        text(operation, "/method"),
        place(operation),
        text(operation, "/path"),
        text(operation, "/key"),
        out.when(operation, "/created_at"),
    ]
}

/// Where it goes; a claim and a saga go nowhere, and have a scope.
pub(super) fn place(operation: &Value) -> String {
    let is_here = operation["kind"] == "claim" || operation["kind"] == "saga";
    text(operation, if is_here { "/scope" } else { "/route" })
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
