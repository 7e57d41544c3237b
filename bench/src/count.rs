//! Instructions and allocations for a request of each kind: figures that no other program on the
//! machine changes.
//!
//! One connection asks one thing after another, so that each run does the same work; batches of
//! the ledger have one write each.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde_json::json;

use crate::callgrind::{Callgrind, Counts};
use crate::load::{self, Keys, Plan, Until};
use crate::report::align;
use crate::subject::Subject;
use crate::{Outcome, compare, effects};

/// The gateway passes what has no key here, and holds what has one.
const PATH: &str = "/to/sink/x";
const PASS: &str = "/to/pass/x";

/// What to count.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Empty: all.
    pub(crate) only: Vec<Way>,
    pub(crate) requests: u64,
    pub(crate) keep: Option<PathBuf>,
    pub(crate) binary: Option<PathBuf>,
    pub(crate) data: Option<PathBuf>,
    pub(crate) json: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { only: Vec::new(), requests: 400, keep: None, binary: None, data: None, json: false }
    }
}

/// One way of a request through a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    BareGet,
    BarePost,
    Get,
    Post,
    Held,
    /// Until the sink has it.
    Accepted,
    Duplicate,
}

impl Way {
    const ALL: [Self; 7] = [
        Self::BareGet,
        Self::BarePost,
        Self::Get,
        Self::Post,
        Self::Held,
        Self::Accepted,
        Self::Duplicate,
    ];

    fn is_bare(self) -> bool {
        matches!(self, Self::BareGet | Self::BarePost)
    }

    /// The way through the bare proxy with the same request.
    fn bare(self) -> Self {
        if matches!(self, Self::BareGet | Self::Get) { Self::BareGet } else { Self::BarePost }
    }

    fn keys(self, prefix: &str, requests: u64) -> Keys {
        match self {
            Self::BareGet | Self::Get => Keys::Read,
            Self::BarePost | Self::Post => Keys::None,
            Self::Held | Self::Accepted => Keys::Fresh(format!("{prefix}-{self}")),
            // Those of the warm-up.
            Self::Duplicate => Keys::Cycle(format!("again-{self}"), warm_up(requests)),
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::BareGet => "bare-get",
            Self::BarePost => "bare-post",
            Self::Get => "get",
            Self::Post => "post",
            Self::Held => "held",
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
        })
    }
}

impl FromStr for Way {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|way| way.to_string() == name).ok_or_else(|| {
            format!(
                "no such way: {name} (there are {})",
                Self::ALL.map(|way| way.to_string()).join(", ")
            )
        })
    }
}

/// Connections, caches and first pages are there after so many.
fn warm_up(requests: u64) -> u64 {
    (requests / 4).max(1)
}

/// Counts, and prints the table.
pub(crate) fn run(options: &Options) -> Outcome<()> {
    let target = compare::target_folder()?;
    let data = options.data.clone().unwrap_or_else(|| target.clone());
    std::fs::create_dir_all(&data)?;
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => compare::build(&target)?,
    };
    let (bare, own): (Vec<Way>, Vec<Way>) = Way::ALL
        .into_iter()
        .filter(|way| options.only.is_empty() || options.only.contains(way))
        .partition(|way| way.is_bare());
    let sink = Subject::sink()?;
    let mut counted = Vec::new();
    if !bare.is_empty() {
        let callgrind = Callgrind::new(&data, options.keep.as_deref())?;
        let command = callgrind.command(&std::env::current_exe()?)?;
        let subject = Subject::bare_by(command, sink.address)?;
        callgrind.counts(subject.pid(), "bare-start")?;
        counted.extend(count(&callgrind, &subject, &sink, &bare, options)?);
    }
    let callgrind = Callgrind::new(&data, options.keep.as_deref())?;
    let subject = Subject::onceward_by(callgrind.command(&binary)?, sink.address, &data)?;
    let start = callgrind.counts(subject.pid(), "start")?;
    counted.extend(count(&callgrind, &subject, &sink, &own, options)?);
    if options.json {
        println!("{:#}", as_json(start, &counted, options.requests));
    } else {
        print!("{}", text(start, &counted, options.requests));
    }
    Ok(())
}

/// Each way through one program: warmed, then counted.
fn count(
    callgrind: &Callgrind,
    subject: &Subject,
    sink: &Subject,
    ways: &[Way],
    options: &Options,
) -> Outcome<Vec<(Way, Counts)>> {
    let mut counted = Vec::new();
    for &way in ways {
        compare::say(&format!("counting {way}"));
        let mut plan = Plan {
            to: vec![subject.address],
            path: if way == Way::Get || way == Way::Post { PASS } else { PATH },
            headers: if way == Way::Accepted { "Prefer: respond-async\r\n" } else { "" },
            keys: way.keys("warm", options.requests),
            connections: 1,
            until: Until::Requests(warm_up(options.requests)),
        };
        ask(&plan, way, sink)?;
        callgrind.counts(subject.pid(), "between")?;
        plan.keys = way.keys("counted", options.requests);
        plan.until = Until::Requests(options.requests);
        ask(&plan, way, sink)?;
        counted.push((way, callgrind.counts(subject.pid(), &way.to_string())?));
    }
    Ok(counted)
}

/// Sends the requests, and waits until their effects are there.
fn ask(plan: &Plan, way: Way, sink: &Subject) -> Outcome<()> {
    let before = effects::at(sink.address)?;
    let measured = load::run(plan)?;
    compare::expect_clean(&measured, &way.to_string())?;
    if way == Way::Accepted {
        let seen = effects::reach(sink.address, before + measured.ok)?;
        if seen != before + measured.ok {
            return Err(format!("{way}: {} effects of {}", seen - before, measured.ok).into());
        }
    }
    Ok(())
}

fn as_json(start: Counts, counted: &[(Way, Counts)], requests: u64) -> serde_json::Value {
    let one = |counts: Counts, requests: u64| {
        let each = |sum: u64| sum as f64 / requests as f64;
        json!({
            "instructions": each(counts.instructions),
            "allocations": each(counts.allocations),
        })
    };
    let mut all = serde_json::Map::new();
    all.insert("start".to_owned(), one(start, 1));
    all.extend(counted.iter().map(|(way, counts)| (way.to_string(), one(*counts, requests))));
    all.into()
}

fn text(start: Counts, counted: &[(Way, Counts)], requests: u64) -> String {
    let each = |sum: u64| sum as f64 / requests as f64;
    let head = ["", "instructions", "÷ bare", "allocations", "÷ bare"];
    let mut table = vec![head.map(str::to_owned)];
    for (way, counts) in counted {
        let bare = counted.iter().find(|(other, _)| *other == way.bare()).map(|(_, bare)| *bare);
        let ratio = |of: fn(&Counts) -> u64| {
            bare.map_or_else(
                || "–".to_owned(),
                |bare| format!("{:.2}", of(counts) as f64 / of(&bare) as f64),
            )
        };
        table.push([
            way.to_string(),
            format!("{:.0}", each(counts.instructions)),
            ratio(|counts| counts.instructions),
            format!("{:.1}", each(counts.allocations)),
            ratio(|counts| counts.allocations),
        ]);
    }
    let mut text = format!("\nfor a request, of {requests} over one connection\n\n");
    align(&mut text, &table);
    text.push_str(&format!(
        "\na start: {} instructions, {} allocations\n",
        start.instructions, start.allocations
    ));
    text
}
