//! Instructions and allocations for a request of each kind: figures that no other program on the
//! machine changes.
//!
//! One connection asks one thing after another, so that each run does the same work; batches of
//! the ledger have one write each.

use std::fmt;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde_json::json;

use crate::callgrind::{self, Callgrind, Counts};
use crate::load::{self, Keys, Plan, Template, Until};
use crate::report::{align, figure};
use crate::subject::Subject;
use crate::{Outcome, compare, effects, place};

/// The gateway passes what has no key here, and holds what has one.
const PATH: &str = "/to/sink/x";
const PASS: &str = "/to/pass/x";
/// Far longer than an answer takes at a fiftieth of the speed.
const ANSWER_TIME_MAX: Duration = Duration::from_mins(1);
/// A sync of the disk, during which nothing runs, takes less.
const SETTLE_TIME: Duration = Duration::from_millis(6);
/// Answers here are far smaller.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

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
    /// Those that write come last, so that what they leave for later is in the figures of none
    /// that only reads.
    const ALL: [Self; 7] = [
        Self::BareGet,
        Self::BarePost,
        Self::Get,
        Self::Post,
        Self::Duplicate,
        Self::Held,
        Self::Accepted,
    ];

    fn is_bare(self) -> bool {
        matches!(self, Self::BareGet | Self::BarePost)
    }

    fn writes(self) -> bool {
        matches!(self, Self::Held | Self::Accepted)
    }

    /// In how many parts it is counted, of which the one that cost least counts: what the program
    /// does by itself each second or minute is in one of them or the other. Where a request leaves
    /// work for later, that is its own, and there is one part.
    fn parts(self) -> u64 {
        if self.writes() { 1 } else { 4 }
    }

    /// The way through the bare proxy with the same request.
    fn bare(self) -> Self {
        if matches!(self, Self::BareGet | Self::Get) { Self::BareGet } else { Self::BarePost }
    }

    fn keys(self, prefix: &str) -> Keys {
        match self {
            Self::BareGet | Self::Get => Keys::Read,
            Self::BarePost | Self::Post => Keys::None,
            Self::Held | Self::Accepted => Keys::Fresh(format!("{prefix}-{self}")),
            // Those of the warm-up.
            Self::Duplicate => Keys::Cycle(format!("again-{self}"), AGAIN),
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

/// How many keys are asked for again: few, because how often each was is written once a second, which is
/// no request's own.
const AGAIN: u64 = 8;

/// Connections, caches and first pages are there after so many.
fn warm_up(requests: u64) -> u64 {
    (requests / 4).max(1)
}

/// Counts, and prints the table.
pub(crate) fn run(options: &Options) -> Outcome<()> {
    let data = place::data(options.data.as_deref())?;
    let binary = place::binary(options.binary.as_deref())?;
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
    let start = each(callgrind.counts(subject.pid(), "start")?, 1);
    counted.extend(count(&callgrind, &subject, &sink, &own, options)?);
    if options.json {
        println!("{:#}", as_json(start, &counted));
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
) -> Outcome<Vec<(Way, Each)>> {
    let mut caller = Caller::connect(subject, sink)?;
    let mut counted = Vec::new();
    for &way in ways {
        compare::say(&format!("counting {way}"));
        caller.ask(way, "warm", warm_up(options.requests))?;
        let mut parts = Vec::new();
        for part in 0..way.parts() {
            let requests = options.requests / way.parts();
            callgrind.counts(subject.pid(), "between")?;
            caller.ask(way, &format!("counted{part}"), requests)?;
            let counts = callgrind.counts(subject.pid(), &way.to_string())?;
            parts.push(each(counts, requests));
        }
        let least = |what: usize| parts.iter().map(|part| part[what]).fold(f64::MAX, f64::min);
        counted.push((way, [least(0), least(1), least(2)]));
    }
    Ok(counted)
}

/// One connection, over which one thing is asked after another.
struct Caller<'a> {
    stream: TcpStream,
    subject: &'a Subject,
    sink: &'a Subject,
}

impl<'a> Caller<'a> {
    fn connect(subject: &'a Subject, sink: &'a Subject) -> Outcome<Self> {
        let stream = TcpStream::connect(subject.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
        Ok(Self { stream, subject, sink })
    }

    /// Asks `count` times, and waits each time until the whole of the work is done.
    fn ask(&mut self, way: Way, prefix: &str, count: u64) -> Outcome<()> {
        let plan = Plan {
            to: vec![self.subject.address],
            path: if way == Way::Get || way == Way::Post { PASS } else { PATH },
            headers: if way == Way::Accepted { "Prefer: respond-async\r\n" } else { "" },
            keys: way.keys(prefix),
            connections: 1,
            until: Until::Requests(count),
        };
        let mut template = Template::new(&plan, self.subject.address);
        let mut effects = effects::at(self.sink.address)?;
        for n in 0..count {
            self.exchange(template.with(n))?;
            if way == Way::Accepted {
                effects += 1;
                if effects::reach(self.sink.address, effects)? != effects {
                    return Err(format!("{way}: what was accepted is not delivered once").into());
                }
            }
            if way.writes() {
                // What it left for later is its own.
                callgrind::quiet(self.subject.pid(), SETTLE_TIME);
            }
        }
        Ok(())
    }

    fn exchange(&mut self, request: &[u8]) -> Outcome<()> {
        self.stream.write_all(request)?;
        let mut buffer = vec![0; ANSWER_BYTES_MAX];
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut buffer[filled..])?;
            filled += read;
            match load::parse(&buffer[..filled]) {
                Some(answer) if (200..300).contains(&answer.status) => return Ok(()),
                None if read > 0 => {}
                _ => {
                    let said = String::from_utf8_lossy(&buffer[..filled]).into_owned();
                    return Err(format!("not answered 2xx:\n{said}").into());
                }
            }
        }
    }
}

/// Instructions, hashing and allocations for one request.
type Each = [f64; 3];

fn as_json(start: Each, counted: &[(Way, Each)]) -> serde_json::Value {
    let one = |[instructions, hashing, allocations]: Each| {
        json!({
            "instructions": instructions,
            "hashing": hashing,
            "allocations": allocations,
        })
    };
    let mut all = serde_json::Map::new();
    all.insert("start".to_owned(), one(start));
    all.extend(counted.iter().map(|(way, counts)| (way.to_string(), one(*counts))));
    all.into()
}

fn text(start: Each, counted: &[(Way, Each)], requests: u64) -> String {
    let head = ["", "instructions", "÷ bare", "hashing", "allocations"];
    let mut table = vec![head.map(str::to_owned)];
    table.push(row("start", start, None));
    for (way, counts) in counted {
        let bare = counted.iter().find(|(other, _)| *other == way.bare());
        let ratio = bare.map(|(_, bare)| counts[0] / bare[0]);
        table.push(row(&way.to_string(), *counts, ratio));
    }
    let mut text = format!("\nfor a request, of {requests} over one connection\n\n");
    align(&mut text, &table);
    text
}

fn row(name: &str, [instructions, hashing, allocations]: Each, ratio: Option<f64>) -> [String; 5] {
    [
        name.to_owned(),
        figure(Some(instructions), 0),
        figure(ratio, 2),
        figure(Some(hashing), 0),
        figure(Some(allocations), 1),
    ]
}

fn each(counts: Counts, requests: u64) -> Each {
    [counts.instructions, counts.hashing, counts.allocations]
        .map(|sum| sum as f64 / requests as f64)
}
