//! `tail`: follows the list. At a terminal it is a screen that keys walk through (`watch`); elsewhere, and with
//! `--plain`, what is new and what changed its state is a line.
//!
//! For its lines it asks again and again, so what comes and goes between two looks is one line. Of operations
//! that came before it began it follows those that had not ended then and were among the newest.

mod board;
mod keys;
mod paint;
mod terminal;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::io::IsTerminal as _;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::client::{Client, Refused, part};
use super::list::query;
use super::ls::last;
use super::output::{Printer, each, print, say, text};
use crate::exit::Exit;

/// Between two looks: soon enough for a person, and next to nothing for the gateway.
const PAUSE: Duration = Duration::from_millis(500);

/// How many a look takes in at once, and how often it goes on to catch up with a burst.
const PAGE: usize = 200;
const PAGES_MAX: usize = 20;

/// Older operations under way that are asked for by id in one look.
const OLDER_MAX: usize = 50;

/// How many that have ended are remembered, so that a look does not take them for new.
const ENDED_MAX: usize = 2 * PAGE * PAGES_MAX;

#[derive(Debug, Args)]
pub(super) struct Tail {
    /// Only what enters this state
    #[arg(long, value_parser = PossibleValuesParser::new(["pending", "delivering", "in_doubt", "done", "dead", "dead_letter"]))]
    state: Option<String>,
    /// Only this route
    #[arg(long)]
    route: Option<String>,
    /// A line for each change at a terminal, too
    #[arg(long)]
    plain: bool,
    /// Colours at a terminal: auto keeps to NO_COLOR
    #[arg(long, value_enum, default_value_t = Colour::Auto, value_name = "WHEN")]
    color: Colour,
}

/// When there are colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Colour {
    Auto,
    Always,
    Never,
}

impl Tail {
    /// Whether somebody sits there and can press keys.
    fn is_watched(&self, out: Printer) -> bool {
        let has_keys = std::io::stdin().is_terminal();
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        out.is_terminal && has_keys && !is_dumb && !self.plain && !out.is_json
    }

    fn has_colour(&self) -> bool {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|word| !word.is_empty());
        match self.color {
            Colour::Auto => !no_colour,
            Colour::Always => true,
            Colour::Never => false,
        }
    }
}

/// Follows until a person ends it.
pub(super) async fn tail(flags: &Tail, client: &Client, out: Printer) -> Result<(), Exit> {
    if flags.is_watched(out) {
        return watch::watch(flags, client).await;
    }
    tokio::select! {
        ended = follow(flags, client, out) => ended,
        _ = tokio::signal::ctrl_c() => Err(Exit::quiet(130)),
    }
}

async fn follow(flags: &Tail, client: &Client, out: Printer) -> Result<(), Exit> {
    let mut followed = Followed::default();
    followed.look(flags, client).await?;
    say("following; Ctrl-C ends it");
    let mut away = false;
    loop {
        tokio::time::sleep(PAUSE).await;
        match followed.look(flags, client).await {
            Ok(changes) => {
                away = false;
                for operation in changes.iter().filter(|operation| flags.wants(operation)) {
                    print(&line(operation, out))?;
                }
            }
            Err(refused) if refused.is_away => {
                if !away {
                    say("the gateway is away; waiting for it");
                }
                away = true;
            }
            Err(refused) => return Err(refused.into()),
        }
    }
}

impl Tail {
    fn wants(&self, operation: &Value) -> bool {
        match self.state.as_deref() {
            None => true,
            Some("dead_letter") => operation["state"] == "dead" && operation["told"] != true,
            Some(state) => operation["state"] == state,
        }
    }

    fn page(&self, cursor: Option<&str>) -> String {
        let route = self.route.clone().map(|route| ("route", route));
        let place = cursor.map(|cursor| ("cursor", cursor.to_owned()));
        query("/v1/operations", [("limit", PAGE.to_string())].into_iter().chain(route).chain(place))
    }
}

/// What was seen, by id; ids sort by time.
#[derive(Debug, Default)]
struct Followed {
    open: BTreeMap<String, String>,
    ended: BTreeMap<String, String>,
    begun: bool,
    /// Where the first look ended: what is older and was not seen is no news.
    floor: String,
}

/// What a line tells of: the state, and how many attempts there were.
fn mark(operation: &Value) -> String {
    format!("{}{}", text(operation, "/state"), each(operation, "/attempts").len())
}

fn id_of(operation: &Value) -> String {
    operation["id"].as_str().unwrap_or_default().to_owned()
}

impl Followed {
    /// What is new or changed, oldest first. The first look only takes in what is there.
    async fn look(&mut self, flags: &Tail, client: &Client) -> Result<Vec<Value>, Refused> {
        let mut seen: HashMap<String, Value> = HashMap::new();
        let mut cursor = None;
        for _ in 0..PAGES_MAX {
            let page = client.get(&flags.page(cursor.as_deref())).await?;
            let mut all_known = true;
            for operation in each(&page, "/data") {
                let id = id_of(operation);
                all_known &= self.open.contains_key(&id) || self.ended.contains_key(&id);
                seen.insert(id, operation.clone());
            }
            cursor = page["next"].as_str().map(str::to_owned);
            if all_known || cursor.is_none() || !self.begun {
                break;
            }
        }
        let older: Vec<String> = self
            .open
            .keys()
            .filter(|id| !seen.contains_key(*id))
            .take(OLDER_MAX)
            .cloned()
            .collect();
        for id in older {
            match client.get(&format!("/v1/operations/{}", part(&id))).await {
                Ok(operation) => _ = seen.insert(id, operation),
                Err(refused) if refused.is_away => return Err(refused),
                // It ended, and its window is over.
                Err(_) => _ = self.open.remove(&id),
            }
        }
        if !self.begun && cursor.is_some() {
            self.floor = seen.keys().min().cloned().unwrap_or_default();
        }
        let mut changes: Vec<Value> =
            seen.into_values().filter(|operation| self.tells(operation)).collect();
        changes.sort_by_key(id_of);
        while self.ended.len() > ENDED_MAX {
            self.ended.pop_first();
        }
        if !std::mem::replace(&mut self.begun, true) {
            changes.clear();
        }
        Ok(changes)
    }

    /// Takes an operation in; tells whether that is news: to whoever began to follow after it was over, it is none.
    fn tells(&mut self, operation: &Value) -> bool {
        let id = id_of(operation);
        let is_known = self.open.contains_key(&id) || self.ended.contains_key(&id);
        let is_later = id >= self.floor;
        self.note(operation) && (is_known || is_later)
    }

    /// Takes an operation in; tells whether it is new or changed.
    fn note(&mut self, operation: &Value) -> bool {
        let (id, now) = (id_of(operation), mark(operation));
        let before = self.open.remove(&id).or_else(|| self.ended.remove(&id));
        let changed = before.as_ref() != Some(&now);
        let has_ended = matches!(operation["state"].as_str(), Some("done" | "dead"));
        let place = if has_ended { &mut self.ended } else { &mut self.open };
        place.insert(id, now);
        changed
    }
}

/// When what a line tells of happened: its end, or its last attempt, or that it came.
fn happened(operation: &Value) -> String {
    let attempt = each(operation, "/attempts").last();
    let of_attempt = ["/ended_at", "/started_at"].map(|at| attempt.map(|it| text(it, at)));
    let [came, ended] = ["/created_at", "/ended_at"].map(|at| Some(text(operation, at)));
    let mut said = [ended].into_iter().chain(of_attempt).chain([came]).flatten();
    said.find(|at| at != "-").unwrap_or_default()
}

fn line(operation: &Value, out: Printer) -> String {
    if out.is_json {
        return operation.to_string();
    }
    let at = happened(operation);
    let members =
        ["/id", "/state", "/method", "/route", "/path", "/key"].map(|at| text(operation, at));
    let [id, state, method, route, path, key] = members;
    let last = last(operation);
    if out.is_terminal {
        format!("{at}  {id}  {state:<10} {last:<10} {method} {route}{path}  {key}")
    } else {
        [at, id, state, last, method, route, path, key].join("\t")
    }
}

#[cfg(test)]
mod tests;
