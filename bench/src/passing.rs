//! What passes without a record, beside the bare proxy: the same requests to the same sink, in turns.

use std::time::Duration;

use crate::load::{self, Keys, Measured, Plan, Until};
use crate::meter::{Cores, Usage};
use crate::options::Options;
use crate::phase::{Total, Turn, Used};
use crate::report::{align, figure, percentile};
use crate::subject::Subject;
use crate::{Outcome, compare, place};

/// The same for both: what the gateway calls a route is a path to the other.
const PATH: &str = "/to/pass/x";
/// Unmeasured work of each before the first round.
const WARM_UP: Duration = Duration::from_secs(1);

/// One line of the report.
struct Line {
    name: &'static str,
    keys: Keys,
    /// The line that it is compared with.
    of: usize,
    total: Total,
}

/// Measures, and prints the table.
pub(crate) fn run(options: &Options) -> Outcome<()> {
    let data = place::data(options.data.as_deref())?;
    let binary = place::binary(options.binary.as_deref())?;
    let sink = Subject::sink()?;
    let subjects = [Subject::bare(sink.address)?, Subject::onceward(&binary, sink.address, &data)?];
    let mut lines: Vec<Line> = [("GET", Keys::Read), ("POST", Keys::None)]
        .into_iter()
        .zip([0, 2])
        .flat_map(|((method, keys), of)| {
            let names = match method {
                "GET" => ["GET, bare proxy", "GET, onceward"],
                _ => ["POST 1 KiB, bare proxy", "POST 1 KiB, onceward"],
            };
            names.map(|name| Line { name, keys: keys.clone(), of, total: Total::default() })
        })
        .collect();
    let mut order: Vec<usize> = (0..lines.len()).collect();
    for &line in &order {
        turn(&subjects[line % 2], &sink, &lines[line].keys, options.connections, WARM_UP)?;
    }
    for round in 1..=options.rounds {
        for &line in &order {
            compare::say(&format!("round {round} of {}: {}", options.rounds, lines[line].name));
            let keys = lines[line].keys.clone();
            let turn =
                turn(&subjects[line % 2], &sink, &keys, options.connections, options.phase())?;
            lines[line].total.add(turn);
        }
        // Back and forth, so that nobody is always the one after the heaviest.
        order.reverse();
    }
    print(&lines, options);
    Ok(())
}

fn turn(
    subject: &Subject,
    sink: &Subject,
    keys: &Keys,
    connections: usize,
    length: Duration,
) -> Outcome<Turn> {
    let plan = Plan {
        to: vec![subject.address],
        path: PATH,
        headers: "User-Agent: bench/1\r\nAccept: application/json\r\n",
        keys: keys.clone(),
        connections,
        until: Until::Elapsed(length),
    };
    let used = || Used {
        subject: Usage::of(&subject.pids()),
        sink: Usage::of(&sink.pids()),
        load: Usage::of(&[std::process::id()]),
        kept: 0,
        cores: Cores::now(),
    };
    let before = used();
    let measured: Measured = load::run(&plan)?;
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
    let head = ["", "req/s", "÷ bare", "p50 ms", "p99 ms", "CPU µs", "CPU ÷ bare", "others %"];
    let mut table = vec![head.map(str::to_owned)];
    for line in lines {
        let of = &lines[line.of];
        let latency = |share| percentile(&line.total.measured.latencies, share).map(|us| us / 1e3);
        let cpu_ratio = cpu(line).zip(cpu(of)).map(|(own, bare)| own / bare);
        table.push([
            line.name.to_owned(),
            format!("{:.0}", line.total.measured.throughput()),
            figure(line.total.ratio(&of.total), 2),
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
