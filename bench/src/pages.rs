//! What people look at, on a large ledger: every page of the dashboard and every filter of a list, each beside
//! the look at one operation by its id, in turns; and the overview beside that of a small ledger. Embedded, or in
//! PostgreSQL on a throw-away server.
//!
//! A list looks at a bounded number of rows, and says so by a `next`. So each line tells how many it found and
//! whether it goes on: a filter that finds nothing near is quick because it stops, and not because it knows.

mod fill;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

use serde_json::{Value, json};

use self::fill::Filled;
use crate::browser::Browser;
use crate::load::{self, Keys, Plan, Until};
use crate::postgres::Server;
use crate::report::{align, figure, percentile};
use crate::subject::Subject;
use crate::{Outcome, compare, place};

/// The rows of the ledger that the overview is compared with.
const SMALL: u64 = 10_000;

/// How to measure.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) rows: u64,
    /// How often each is asked for.
    pub(crate) rounds: u32,
    /// Whether the ledgers are in PostgreSQL.
    pub(crate) postgres: bool,
    pub(crate) binary: Option<PathBuf>,
    pub(crate) data: Option<PathBuf>,
    pub(crate) json: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { rows: 1_000_000, rounds: 20, postgres: false, binary: None, data: None, json: false }
    }
}

/// What is asked for, and how long that took.
struct Line {
    name: String,
    place: String,
    /// Microseconds.
    times: Vec<u32>,
    bytes: usize,
    found: Option<Found>,
}

/// What a list had.
#[derive(Debug, Clone, Copy)]
struct Found {
    operations: usize,
    goes_on: bool,
}

impl Line {
    fn new(name: &str, place: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            place: place.into(),
            times: Vec::new(),
            bytes: 0,
            found: None,
        }
    }

    fn ms(&self, share: f64) -> Option<f64> {
        percentile(&self.times, share).map(|micros| micros / 1e3)
    }
}

/// Measures, and prints the table.
pub(crate) fn run(options: &Options) -> Outcome<()> {
    let data = place::data(options.data.as_deref())?;
    let binary = place::binary(options.binary.as_deref())?;
    let sink = Subject::sink()?;
    let server = options.postgres.then(|| Server::start(&data, &[])).transpose()?;
    let filled = |rows: u64| {
        compare::say(&format!("filling a ledger with {rows} operations"));
        let Some(server) = &server else {
            let gateway = Subject::onceward(&binary, sink.address, &data)?;
            tell_a_story(&gateway)?;
            let mut told = None;
            let gateway = gateway.changed(&binary, |ledger| {
                told = Some(fill::embedded(ledger, rows)?);
                Ok(())
            })?;
            return Ok::<_, Box<dyn std::error::Error + Send + Sync>>((
                gateway,
                told.ok_or("not filled")?,
            ));
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let url = runtime.block_on(server.database(&format!("pages_{rows}")))?;
        let told = runtime.block_on(fill::shared(&url, rows))?;
        let gateway = Subject::node(&binary, sink.address, &data, &url)?;
        tell_a_story(&gateway)?;
        Ok((gateway, told))
    };
    let (small, _) = filled(SMALL.min(options.rows))?;
    let (large, told) = filled(options.rows)?;

    let mut browser = Browser::new(large.address);
    let mut other = Browser::new(small.address);
    let mut lines = vec![Line::new("an operation by its id", String::new())];
    lines.extend(pages(&mut browser)?);
    let first = lines.len();
    for (name, words) in filters(&told) {
        lines.push(Line::new(&name, format!("/v1/operations?limit=50{words}")));
        lines.push(Line::new(&format!("{name}, the page"), format!("/operations?limit=50{words}")));
    }
    let mut overview = Line::new(&format!("overview at {}", SMALL.min(options.rows)), "/");
    for round in 0..=options.rounds {
        compare::say(&format!("round {round} of {}", options.rounds));
        let warms_up = round == 0;
        for line in &mut lines {
            if line.place.is_empty() || line.name.starts_with("an operation") {
                line.place = {
                    let share = u64::from(round) * told.rows / u64::from(options.rounds + 1);
                    format!("/v1/operations/{}", told.id(share))
                };
            }
            ask(&mut browser, line, warms_up)?;
        }
        ask(&mut other, &mut overview, warms_up)?;
        // Back and forth, so that nobody is always the one after the heaviest.
        lines[first..].reverse();
    }
    if options.rounds.is_multiple_of(2) {
        lines[first..].reverse();
    }
    lines.push(overview);
    print(options, &lines);
    Ok(())
}

/// Has one operation that has a request and an answer to show: what is filled in has neither.
fn tell_a_story(gateway: &Subject) -> Outcome<()> {
    load::run(&Plan {
        to: vec![gateway.address],
        path: "/to/sink/x",
        headers: "User-Agent: bench/1\r\n",
        keys: Keys::Fresh("story".to_owned()),
        connections: 1,
        until: Until::Requests(1),
    })?;
    Ok(())
}

fn ask(browser: &mut Browser, line: &mut Line, warms_up: bool) -> Outcome<()> {
    let asked = Instant::now();
    let (status, body) = browser.get(&line.place)?;
    let took = asked.elapsed();
    if status != 200 {
        let said: String = String::from_utf8_lossy(&body).chars().take(300).collect();
        return Err(format!("{} ({}): {status}: {said}", line.name, line.place).into());
    }
    line.bytes = body.len();
    if line.place.starts_with("/v1/operations?") {
        let page: Value = serde_json::from_slice(&body)?;
        line.found = Some(Found {
            operations: page["data"].as_array().map_or(0, Vec::len),
            goes_on: page["next"].is_string(),
        });
    }
    if !warms_up {
        line.times.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }
    Ok(())
}

/// Every page that the overview leads to, and the story of one operation.
fn pages(browser: &mut Browser) -> Outcome<Vec<Line>> {
    let (status, body) = browser.get("/")?;
    let page = String::from_utf8_lossy(&body).into_owned();
    if status != 200 {
        return Err(format!("the overview: {status}").into());
    }
    let places = page.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
    let is_page = |link: &&str| {
        let is_file = link.rsplit('/').next().is_some_and(|name| name.contains('.'));
        link.starts_with('/') && !is_file && !link.contains(['?', '#'])
    };
    let places: BTreeSet<&str> = places.filter(is_page).collect();
    let pages = places.into_iter().filter(|link| !link.starts_with("/operations/"));
    let mut lines: Vec<Line> = pages.map(|link| Line::new(&format!("page {link}"), link)).collect();
    let (_, body) = browser.get("/v1/operations?key=story-0")?;
    let told: Value = serde_json::from_slice(&body)?;
    let id = told["data"][0]["id"].as_str().ok_or("the operation to be told of is not there")?;
    lines.push(Line::new("page /operations/{id}", format!("/operations/{id}")));
    for api in ["/v1/stats", "/metrics"] {
        lines.push(Line::new(api, api));
    }
    Ok(lines)
}

/// Every filter of a list: what is near, what is far, and what is nowhere.
fn filters(told: &Filled) -> Vec<(String, String)> {
    let mut filters = vec![("newest".to_owned(), String::new())];
    let mut add = |name: &str, words: String| filters.push((name.to_owned(), format!("&{words}")));
    for (name, share) in [("half way", 2), ("near the end", 100)] {
        add(&format!("cursor {name}"), format!("cursor={}", told.id(told.rows / share)));
    }
    for state in ["pending", "delivering", "in_doubt", "done", "dead", "dead_letter", "forgotten"] {
        add(&format!("state {state}"), format!("state={state}"));
    }
    for (name, n) in [("near", told.rows - 10), ("far", 10)] {
        for word in ["key", "label", "subject"] {
            add(&format!("{word}, {name}"), format!("{word}={}", fill::named(word, n)));
        }
        add(&format!("text in a key, {name}"), format!("text={}", &fill::named("key", n)[2..]));
        add(&format!("made by an answer, {name}"), format!("id={}", fill::named("made", n)));
    }
    add("parent", format!("parent={}", told.id(fill::PARENT.min(told.rows - 1))));
    for (name, route) in [("common", "sink"), ("rare", fill::RARE), ("of nobody", "nowhere")] {
        add(&format!("route, {name}"), format!("route={route}"));
    }
    for (name, who) in [("common", "shop-1"), ("of nobody", "nobody")] {
        add(&format!("principal, {name}"), format!("principal={who}"));
    }
    for (name, status) in [("common", 201), ("rare", 404), ("never met", 599)] {
        add(&format!("status, {name}"), format!("status={status}"));
    }
    add("text nowhere", "text=no-such-text".to_owned());
    add("kind", "kind=callback".to_owned());
    let day = |share: u64| told.time(told.rows / share);
    add(
        "a day half way",
        format!("after={}&before={}", day(2), told.time(told.rows / 2 + told.rows / 20)),
    );
    add("since half way", format!("after={}", day(2)));
    add("before half way", format!("before={}", day(2)));
    add("dead letters of a rare route", format!("state=dead_letter&route={}", fill::RARE));
    filters
}

fn print(options: &Options, lines: &[Line]) {
    let Some(lookup) = lines.first() else { return };
    let ratio = |line: &Line| line.ms(0.95).zip(lookup.ms(0.95)).map(|(own, one)| own / one);
    if options.json {
        let lines: Vec<Value> = lines
            .iter()
            .map(|line| {
                json!({
                    "name": line.name, "p50_ms": line.ms(0.5), "p95_ms": line.ms(0.95), "ratio_p95": ratio(line),
                    "bytes": line.bytes, "found": line.found.map(|found| found.operations),
                    "goes_on": line.found.map(|found| found.goes_on),
                })
            })
            .collect();
        println!(
            "{}",
            json!({"rows": options.rows, "postgres": options.postgres, "rounds": options.rounds, "lines": lines})
        );
        return;
    }
    let mut table =
        vec![["", "p50 ms", "p95 ms", "÷ by id", "kB", "found", "goes on"].map(str::to_owned)];
    for line in lines {
        let (found, goes_on) = line.found.map_or((String::new(), ""), |found| {
            (found.operations.to_string(), if found.goes_on { "yes" } else { "no" })
        });
        table.push([
            line.name.clone(),
            figure(line.ms(0.5), 2),
            figure(line.ms(0.95), 2),
            figure(ratio(line), 1),
            figure(Some(line.bytes as f64 / 1e3), 1),
            found,
            goes_on.to_owned(),
        ]);
    }
    let worst = lines.iter().filter_map(|line| line.ms(0.95)).fold(0.0, f64::max);
    let mut text = format!(
        "\n{} operations{}, each asked for {} times; the slowest p95 is {worst:.1} ms\n\n",
        options.rows,
        if options.postgres { " in PostgreSQL" } else { "" },
        options.rounds
    );
    align(&mut text, &table);
    print!("{text}");
}
