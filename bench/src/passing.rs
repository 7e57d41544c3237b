//! What passes without a record, beside the bare proxy and an ordinary one: the same requests to the same sink,
//! in turns.

use std::net::SocketAddr;
use std::time::Duration;

use crate::load::{self, Keys, Measured, Plan, Until};
use crate::meter::{Cores, Usage};
use crate::options::Options;
use crate::phase::{Total, Turn, Used};
use crate::report::{align, figure, percentile};
use crate::subject::Subject;
use crate::{Outcome, compare, place};

/// The same for all: what the gateway calls a route is a path to the others.
const PATH: &str = "/to/pass/x";
/// Unmeasured work of each before the first round.
const WARM_UP: Duration = Duration::from_secs(1);

/// One line of the report.
struct Line {
    name: String,
    keys: Keys,
    to: SocketAddr,
    /// Which subject answers.
    subject: usize,
    /// The lines that it is compared with: the bare proxy's, and the ordinary one's.
    of: [usize; 2],
    total: Total,
}

/// Measures, and prints the table.
pub(crate) fn run(options: &Options) -> Outcome<()> {
    let data = place::data(options.data.as_deref())?;
    let binary = place::binary(options.binary.as_deref())?;
    let sink = Subject::sink()?;
    let subjects = [
        Subject::bare(sink.address)?,
        Subject::onceward(&binary, sink.address, &data)?,
        Subject::ordinary(sink.address)?,
    ];
    let [bare, onceward, ordinary] = &subjects;
    let guard = onceward.guard.ok_or("the gateway has no guard")?;
    let ways = [
        ("bare proxy", bare.address, 0),
        ("ordinary proxy", ordinary.address, 2),
        ("onceward, a route", onceward.address, 1),
        ("onceward, a guard", guard, 1),
    ];
    let mut lines = Vec::new();
    for (method, keys) in [("GET", Keys::Read), ("POST 1 KiB", Keys::None)] {
        let of = [lines.len(), lines.len() + 1];
        lines.extend(ways.map(|(way, to, subject)| {
            let (name, keys) = (format!("{method}, {way}"), keys.clone());
            Line { name, keys, to, subject, of, total: Total::default() }
        }));
    }
    let mut order: Vec<usize> = (0..lines.len()).collect();
    let of =
        |line: &Line, length| plan(line.to, PATH, line.keys.clone(), options.connections, length);
    for line in &lines {
        turn(&of(line, WARM_UP), &subjects[line.subject], &sink)?;
    }
    for round in 1..=options.rounds {
        for &line in &order {
            compare::say(&format!("round {round} of {}: {}", options.rounds, lines[line].name));
            let line = &mut lines[line];
            let plan = of(line, options.phase());
            line.total.add(turn(&plan, &subjects[line.subject], &sink)?);
        }
        // Back and forth, so that nobody is always the one after the heaviest.
        order.reverse();
    }
    print(&lines, options);
    Ok(())
}

/// A plan for as long as this, over so many connections.
pub(crate) fn plan(
    to: SocketAddr,
    path: &'static str,
    keys: Keys,
    connections: usize,
    length: Duration,
) -> Plan {
    Plan {
        to: vec![to],
        path,
        headers: "User-Agent: bench/1\r\nAccept: application/json\r\n",
        keys,
        connections,
        until: Until::Elapsed(length),
    }
}

/// Runs a plan, and tells who used how much.
pub(crate) fn turn(plan: &Plan, subject: &Subject, sink: &Subject) -> Outcome<Turn> {
    let used = || Used {
        subject: Usage::of(&subject.pids()),
        sink: Usage::of(&sink.pids()),
        load: Usage::of(&[std::process::id()]),
        kept: 0,
        cores: Cores::now(),
    };
    let before = used();
    let measured: Measured = load::run(plan)?;
    let now = used();
    compare::expect_clean(&measured, "a turn")?;
    let used = Used {
        subject: now.subject.since(before.subject),
        sink: now.sink.since(before.sink),
        load: now.load.since(before.load),
        kept: 0,
        cores: now.cores.since(before.cores),
    };
    Ok(Turn { measured, used: Some(used), effects: 0 })
}

fn print(lines: &[Line], options: &Options) {
    let cpu = |line: &Line| {
        let used = line.total.used?;
        Some(used.subject.cpu.as_secs_f64() * 1e6 / line.total.measured.ok as f64)
    };
    let head = [
        "",
        "req/s",
        "÷ bare",
        "÷ ordinary",
        "p50 ms",
        "p99 ms",
        "CPU µs",
        "CPU ÷ bare",
        "others %",
    ];
    let mut table = vec![head.map(str::to_owned)];
    for line in lines {
        let [bare, ordinary] = line.of.map(|of| &lines[of]);
        let latency = |share| percentile(&line.total.measured.latencies, share).map(|us| us / 1e3);
        let cpu_ratio = cpu(line).zip(cpu(bare)).map(|(own, bare)| own / bare);
        table.push([
            line.name.clone(),
            format!("{:.0}", line.total.measured.throughput()),
            figure(line.total.ratio(&bare.total), 2),
            figure(line.total.ratio(&ordinary.total), 2),
            figure(latency(0.5), 2),
            figure(latency(0.99), 2),
            figure(cpu(line), 1),
            figure(cpu_ratio, 2),
            figure(line.total.used.and_then(|used| used.others()).map(|share| share * 100.0), 0),
        ]);
    }
    let mut text = format!(
        "\n{} connections, {} rounds of {} s; ratios of throughput are medians over the rounds\n\n",
        options.connections, options.rounds, options.seconds
    );
    align(&mut text, &table);
    print!("{text}");
}
