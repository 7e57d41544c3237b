//! The held path through several nodes on one ledger, beside a bare proxy before the same sink.

use super::Bench;
use super::idle::start;
use crate::load::{self, Keys, Measured, Plan, Until};
use crate::meter::{Cores, Usage};
use crate::subject::Subject;
use crate::{Outcome, compare};

const NODES: [usize; 3] = [1, 2, 4];

/// One line: requests through so many nodes, or through the bare proxy where there are none.
#[derive(Debug, Default)]
struct Line {
    nodes: usize,
    measured: Measured,
    rounds: Vec<f64>,
    gateway: Usage,
    server: Usage,
    sink: Usage,
    load: Usage,
    cores: Cores,
}

pub(super) fn measure(bench: &Bench) -> Outcome<()> {
    let url = bench.runtime.block_on(bench.server.database("nodes"))?;
    let sink = Subject::sink()?;
    let bare = Subject::bare(sink.address)?;
    let most = NODES.into_iter().max().unwrap_or_default();
    let nodes = start(bench, &url, sink.address, most)?;
    let mut lines: Vec<Line> =
        [0].into_iter().chain(NODES).map(|nodes| Line { nodes, ..Line::default() }).collect();
    for round in 0..=bench.options.rounds {
        for line in &mut lines {
            compare::say(&format!("nodes, round {round}: {}", line.nodes));
            let subjects =
                if line.nodes == 0 { std::slice::from_ref(&bare) } else { &nodes[..line.nodes] };
            let turn = turn(bench, subjects, &sink, round, line.nodes)?;
            // The first round warms up.
            if round > 0 {
                line.add(turn);
            }
        }
    }
    println!(
        "\nheld, 64 connections          req/s  ÷ bare   p50 ms   p99 ms   nodes µs  server µs  sink µs  load µs  others %"
    );
    let bare = lines[0].rounds.clone();
    for line in &mut lines {
        line.print(&bare);
    }
    Ok(())
}

fn turn(
    bench: &Bench,
    subjects: &[Subject],
    sink: &Subject,
    round: u32,
    nodes: usize,
) -> Outcome<Line> {
    let plan = Plan {
        to: subjects.iter().map(|subject| subject.address).collect(),
        path: compare::PATH,
        headers: "",
        keys: Keys::Fresh(format!("nodes-{nodes}-{round}")),
        connections: 64,
        until: Until::Elapsed(bench.options.turn),
    };
    let look = || {
        let gateway: Vec<u32> = subjects.iter().flat_map(Subject::pids).collect();
        (
            Usage::of(&gateway),
            bench.server.usage(),
            Usage::of(&sink.pids()),
            Usage::of(&[std::process::id()]),
            Cores::now(),
        )
    };
    let before = look();
    let measured = load::run(&plan)?;
    let after = look();
    Ok(Line {
        nodes,
        rounds: vec![measured.throughput()],
        measured,
        gateway: after.0.since(before.0),
        server: after.1.since(before.1),
        sink: after.2.since(before.2),
        load: after.3.since(before.3),
        cores: after.4.since(before.4),
    })
}

impl Line {
    fn add(&mut self, turn: Self) {
        self.measured.add(turn.measured);
        self.rounds.extend(turn.rounds);
        self.gateway += turn.gateway;
        self.server += turn.server;
        self.sink += turn.sink;
        self.load += turn.load;
        self.cores += turn.cores;
    }

    fn print(&mut self, bare: &[f64]) {
        let name = match self.nodes {
            0 => "bare proxy".to_owned(),
            1 => "1 node".to_owned(),
            many => format!("{many} nodes"),
        };
        let each = |usage: Usage| usage.cpu.as_secs_f64() * 1e6 / self.measured.ok.max(1) as f64;
        let all = [self.gateway, self.server, self.sink, self.load];
        let ours: f64 = all.iter().map(|usage| usage.cpu.as_secs_f64()).sum();
        let others = (self.cores.busy.as_secs_f64() - ours).max(0.0) / self.cores.all.as_secs_f64();
        let [gateway, server, sink, load] = all.map(each);
        let percentile = |share| {
            crate::report::percentile(&self.measured.latencies, share).unwrap_or_default() / 1e3
        };
        println!(
            "{name:<25} {:>9.0} {:>7.2} {:>8.2} {:>8.2} {gateway:>10.1} {server:>10.1} {sink:>8.1} {load:>8.1} {:>9.0}",
            self.measured.throughput(),
            super::drive::ratio(&self.rounds, bare),
            percentile(0.5),
            percentile(0.99),
            others * 100.0,
        );
        if !self.measured.clean() {
            let sample = self.measured.sample.as_deref().unwrap_or("");
            println!(
                "! {name}: {:?} answers that were not 2xx, {} requests without an answer. {sample}",
                self.measured.others, self.measured.broken
            );
        }
    }
}
