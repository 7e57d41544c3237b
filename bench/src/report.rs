//! The report: a table for people, one JSON document for machines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::meter::Usage;
use crate::phase::{Phase, Total};
use crate::subject::Kind;

/// What a comparison found.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) cores: usize,
    /// The median time of a 4 KiB write and its sync.
    pub(crate) sync: Duration,
    pub(crate) connections: usize,
    pub(crate) seconds: u64,
    pub(crate) totals: BTreeMap<Phase, Total>,
    pub(crate) memory: BTreeMap<Kind, Memory>,
}

/// Resident bytes of a subject.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    pub(crate) idle: u64,
    pub(crate) after: u64,
    pub(crate) peak: u64,
}

/// One line of figures; `None` where there is nothing to say.
#[derive(Debug)]
struct Row {
    phase: Phase,
    throughput: f64,
    ratio: Option<f64>,
    p50: Option<f64>,
    p99: Option<f64>,
    p99_ratio: Option<f64>,
    cpu: Option<f64>,
    cpu_sink: Option<f64>,
    cpu_load: Option<f64>,
    written: Option<f64>,
    kept: Option<f64>,
    others: Option<f64>,
    answered: u64,
    refused: u64,
    broken: u64,
    effects: u64,
    effects_due: Option<u64>,
    rounds: Vec<f64>,
}

fn rows(report: &Report) -> Vec<Row> {
    let bare = report.totals.get(&Phase::Bare);
    let bare_p99 = bare.and_then(|bare| percentile(&bare.measured.latencies, 0.99));
    report
        .totals
        .iter()
        .map(|(phase, total)| {
            let answered = total.measured.ok;
            let each = |sum: f64| (answered > 0).then(|| sum / answered as f64);
            let cpu = |usage: Usage| each(usage.cpu.as_secs_f64() * 1e6);
            let p99 = percentile(&total.measured.latencies, 0.99);
            // A proxy without a ledger keeps nothing and writes nothing.
            let durable = total.used.filter(|_| !matches!(phase, Phase::Bare | Phase::Nginx));
            Row {
                phase: *phase,
                throughput: total.measured.throughput(),
                ratio: bare.and_then(|bare| total.ratio(bare)),
                p50: percentile(&total.measured.latencies, 0.5),
                p99,
                p99_ratio: p99.zip(bare_p99).map(|(own, bare)| own / bare),
                cpu: total.used.and_then(|used| cpu(used.subject)),
                cpu_sink: total.used.and_then(|used| cpu(used.sink)),
                cpu_load: total.used.and_then(|used| cpu(used.load)),
                written: durable.and_then(|used| each(used.subject.written as f64)),
                kept: durable.and_then(|used| each(used.kept as f64)),
                others: total.used.and_then(|used| used.others()),
                answered,
                refused: total.measured.others.values().sum(),
                broken: total.measured.broken,
                effects: total.effects,
                effects_due: phase.effects_due(answered),
                rounds: total.rounds.clone(),
            }
        })
        .collect()
}

/// In microseconds, by nearest rank.
pub(crate) fn percentile(latencies: &[u32], share: f64) -> Option<f64> {
    let last = latencies.len().checked_sub(1)?;
    let mut sorted = latencies.to_vec();
    let (_, value, _) = sorted.select_nth_unstable((last as f64 * share).round() as usize);
    Some(f64::from(*value))
}

/// The report for people.
pub(crate) fn text(report: &Report) -> String {
    let rows = rows(report);
    let head = [
        "",
        "req/s",
        "÷ bare",
        "p50 ms",
        "p99 ms",
        "p99 ÷ bare",
        "CPU µs",
        "sink µs",
        "load µs",
        "written B",
        "kept B",
        "others %",
    ];
    let mut table = vec![head.map(str::to_owned)];
    for row in &rows {
        table.push([
            row.phase.name().to_owned(),
            format!("{:.0}", row.throughput),
            figure(row.ratio, 2),
            figure(row.p50.map(|us| us / 1e3), 2),
            figure(row.p99.map(|us| us / 1e3), 2),
            figure(row.p99_ratio, 1),
            figure(row.cpu, 1),
            figure(row.cpu_sink, 1),
            figure(row.cpu_load, 1),
            figure(row.written, 0),
            figure(row.kept, 0),
            figure(row.others.map(|share| share * 100.0), 0),
        ]);
    }
    let mut text = format!(
        "\n{} cores, {} connections, 1 KiB bodies, {} rounds of {} s; a 4 KiB write and fdatasync {:.2} ms\n\n",
        report.cores,
        report.connections,
        rows.iter().map(|row| row.rounds.len()).max().unwrap_or(0),
        report.seconds,
        report.sync.as_secs_f64() * 1e3
    );
    align(&mut text, &table);
    text.push_str(
        "\nCPU, written and kept are per request, of the subject unless another is named; ratios of \
         throughput are medians over the rounds; others is the share of all cores that went to \
         programs outside of the run: where it is not near 0, measure again.\n\n",
    );
    let mut table = vec![["memory", "idle MiB", "after MiB", "peak MiB"].map(str::to_owned)];
    for (kind, memory) in &report.memory {
        let mebibytes = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
        table.push([
            kind.to_string(),
            mebibytes(memory.idle),
            mebibytes(memory.after),
            mebibytes(memory.peak),
        ]);
    }
    align(&mut text, &table);
    for line in complaints(report, &rows) {
        let _ = write!(text, "\n{line}\n");
    }
    text
}

/// What makes a figure worth less than it looks.
fn complaints(report: &Report, rows: &[Row]) -> Vec<String> {
    let mut lines = Vec::new();
    for row in rows {
        let name = row.phase.name();
        if row.refused + row.broken > 0 {
            let others = report.totals.get(&row.phase).map(|total| &total.measured);
            let sample = others.and_then(|measured| measured.sample.as_deref()).unwrap_or("");
            lines.push(format!(
                "! {name}: {} answers that were not 2xx, {} requests without an answer. {sample}",
                row.refused, row.broken
            ));
        }
        if let Some(due) = row.effects_due.filter(|due| *due != row.effects) {
            lines.push(format!("! {name}: {due} effects were due, the sink saw {}", row.effects));
        }
    }
    lines
}

/// The report for machines: the same figures, unrounded, in base units.
pub(crate) fn json(report: &Report) -> Value {
    let phases: Vec<Value> = rows(report)
        .into_iter()
        .map(|row| {
            json!({
                "phase": row.phase.name(),
                "requests_per_second": row.throughput,
                "requests_per_second_by_round": row.rounds,
                "throughput_to_bare": row.ratio,
                "p50_us": row.p50,
                "p99_us": row.p99,
                "p99_to_bare": row.p99_ratio,
                "cpu_us_per_request": { "subject": row.cpu, "sink": row.cpu_sink, "load": row.cpu_load },
                "written_bytes_per_request": row.written,
                "kept_bytes_per_request": row.kept,
                "cores_used_by_others": row.others,
                "answered_2xx": row.answered,
                "answered_otherwise": row.refused,
                "unanswered": row.broken,
                "effects": row.effects,
                "effects_due": row.effects_due,
            })
        })
        .collect();
    let memory: serde_json::Map<String, Value> = report
        .memory
        .iter()
        .map(|(kind, memory)| {
            let bytes = json!({
                "idle_bytes": memory.idle, "after_bytes": memory.after, "peak_bytes": memory.peak,
            });
            (kind.to_string(), bytes)
        })
        .collect();
    json!({
        "cores": report.cores,
        "connections": report.connections,
        "seconds": report.seconds,
        "fdatasync_us": report.sync.as_secs_f64() * 1e6,
        "phases": phases,
        "memory": memory,
    })
}

pub(crate) fn figure(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.decimals$}"))
}

/// Appends a table: names to the left, figures to the right.
pub(crate) fn align<const N: usize>(text: &mut String, table: &[[String; N]]) {
    let width =
        |column: usize| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    for row in table {
        let _ = write!(text, "{:<1$}", row[0], widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            let _ = write!(text, "  {cell:>width$}");
        }
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Measured;
    use crate::phase::{Turn, Used};

    fn turn(ok: u64, effects: u64) -> Turn {
        let measured = Measured {
            ok,
            latencies: (1..=ok as u32).collect(),
            elapsed: Duration::from_secs(1),
            ..Measured::default()
        };
        Turn { measured, used: Some(Used::default()), effects }
    }

    fn report() -> Report {
        let mut totals = BTreeMap::<Phase, Total>::new();
        totals.entry(Phase::Bare).or_default().add(turn(1000, 1000));
        totals.entry(Phase::Held).or_default().add(turn(600, 601));
        Report {
            cores: 2,
            sync: Duration::from_micros(300),
            connections: 64,
            seconds: 1,
            totals,
            memory: BTreeMap::from([(Kind::Bare, Memory::default())]),
        }
    }

    #[test]
    fn the_table_has_a_line_for_each_phase_and_ratios_to_the_bare_proxy() {
        let text = text(&report());
        let held = text.lines().find(|line| line.starts_with("held")).unwrap();
        let cells: Vec<_> = held.split_whitespace().collect();
        assert_eq!(cells[1..3], ["600", "0.60"]);
    }

    #[test]
    fn an_effect_too_many_is_told() {
        assert!(text(&report()).contains("! held: 600 effects were due, the sink saw 601"));
    }

    #[test]
    fn json_has_the_same_figures() {
        let json = json(&report());
        assert_eq!(json["phases"][1]["throughput_to_bare"], 0.6);
        assert_eq!(json["phases"][0]["p99_us"], 990.0);
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        assert_eq!(percentile(&[], 0.5), None);
        assert_eq!(percentile(&[7], 0.99), Some(7.0));
        let latencies: Vec<u32> = (0..=100).rev().collect();
        assert_eq!(percentile(&latencies, 0.99), Some(99.0));
    }
}
