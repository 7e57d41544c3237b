//! A run's report: as JSON, and for a person at 80 columns.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cold::{Cold, Pass};
use crate::plan::Fault;
use crate::storm::{Doubtful, Report, Side};

/// Rows of a list that a person reads; the rest is in the JSON.
const ROWS_MAX: usize = 8;

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn faults_json(faults: &BTreeMap<Fault, u64>) -> Value {
    let each = Fault::ALL.map(|fault| {
        (fault.name().to_owned(), json!(faults.get(&fault).copied().unwrap_or_default()))
    });
    Value::Object(each.into_iter().collect())
}

fn pass_json(pass: &Pass) -> Value {
    json!({
        "median_ms": millis(pass.median), "slowest_ms": millis(pass.slowest),
        "all_ms": millis(pass.all), "differing": pass.differing,
    })
}

fn recovery(recoveries: &[Duration]) -> Option<(Duration, Duration)> {
    let mut sorted = recoveries.to_vec();
    sorted.sort_unstable();
    Some((*sorted.get(sorted.len() / 2)?, *sorted.last()?))
}

impl Report {
    /// The command that runs this again.
    pub fn command(&self) -> String {
        let options = &self.options;
        let cold = if options.cold { " --cold" } else { "" };
        format!(
            "onceward chaos --posts {} --kills {} --seed {}{cold}",
            options.posts, options.kills, options.seed
        )
    }

    /// The report as JSON.
    pub fn json(&self) -> Value {
        let (tally, naive) = (&self.gateway.tally, &self.naive.tally);
        let recovery = recovery(&self.recoveries);
        json!({
            "seed": self.options.seed,
            "plan": self.plan,
            "command": self.command(),
            "posts": self.options.posts,
            "deduping_nothing": self.deduping_nothing,
            "attempts": self.gateway.attempts,
            "faults": faults_json(&self.gateway.faults),
            "kills": self.recoveries.len(),
            "recovery": recovery.map(|(median, longest)| json!({
                "median_ms": millis(median), "longest_ms": millis(longest),
            })),
            "effects": tally.effects,
            "missing": tally.missing.len(),
            "doubled": tally.doubled.len(),
            "differing": tally.differing.len(),
            "given_up": tally.given_up.len(),
            "in_doubt": self.in_doubt.iter().map(Doubtful::json).collect::<Vec<_>>(),
            "replayed": self.replayed,
            "again": self.again,
            "shuffle": {
                "events": self.shuffle.events.len(),
                "deliveries": self.shuffle.deliveries,
                "calls": self.shuffle.calls,
                "effects": self.shuffle.tally.effects,
                "in_doubt": self.shuffle.in_doubt,
                "missing": self.shuffle.tally.missing.len(),
                "doubled": self.shuffle.tally.doubled.len(),
                "duplicates": self.shuffle.duplicates,
            },
            "metrics": self.metrics.iter().map(|metric| json!({
                "metric": metric.metric, "gateway": metric.gateway, "counted": metric.counted,
            })).collect::<Vec<_>>(),
            "cold": self.cold.as_ref().map(|cold| json!({
                "window": cold.window, "warm": pass_json(&cold.warm), "cold": pass_json(&cold.cold),
                "ratio": (cold.ratio() * 100.0).round() / 100.0,
                "sent": cold.sent, "pages_dropped": cold.pages_dropped,
            })),
            "naive": {
                "posts": self.options.posts,
                "attempts": self.naive.attempts,
                "faults": faults_json(&self.naive.faults),
                "effects": naive.effects,
                "missing": naive.given_up.len() + naive.missing.len(),
                "doubled": naive.doubled.len(),
                "failed_but_done": naive.done_unknown.len(),
            },
            "seconds": (self.took.as_secs_f64() * 10.0).round() / 10.0,
            "violations": self.violations,
            "kept": self.kept,
        })
    }

    /// The report for a person.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing into a string does not fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let (tally, naive) = (&self.gateway.tally, &self.naive.tally);
        let posts = self.options.posts;
        let mut row = |name: &str, through: String, without: String| {
            writeln!(out, "  {name:<37} {through:>16} {without:>18}")
        };
        row("", "through Onceward".to_owned(), "naive retry loop".to_owned())?;
        row("posts", count(posts), count(posts))?;
        let unsafe_ones = count(self.deduping_nothing);
        row("  to an upstream that dedupes nothing", unsafe_ones.clone(), unsafe_ones)?;
        row("requests at the upstream", count(self.gateway.attempts), count(self.naive.attempts))?;
        row("effects", count(tally.effects), count(naive.effects))?;
        row(
            "missing",
            count(tally.missing.len() + tally.given_up.len()),
            count(naive.missing.len() + naive.given_up.len()),
        )?;
        row("doubled", count(tally.doubled.len()), count(naive.doubled.len()))?;
        let nothing = || "-".to_owned();
        row("in doubt, for a person to resolve", count(self.in_doubt.len()), nothing())?;
        let done = self.in_doubt.iter().filter(|one| one.done).count();
        row("  of them in the upstream's books", count(done), nothing())?;
        row(
            "done, but reported as failed",
            count(tally.done_unknown.len()),
            count(naive.done_unknown.len()),
        )?;
        row("duplicates answered from memory", count(self.replayed), nothing())?;
        row("kill -9", count(self.recoveries.len()), nothing())?;
        let named = |of: &Side| of.faults.values().sum::<u64>();
        row("faults met", count(named(&self.gateway)), count(named(&self.naive)))?;
        for fault in Fault::ALL {
            let of = |side: &Side| count(side.faults.get(&fault).copied().unwrap_or_default());
            row(&format!("  {}", told(fault)), of(&self.gateway), of(&self.naive))?;
        }
        self.write_rest(out)
    }

    fn write_rest(&self, out: &mut String) -> std::fmt::Result {
        if let Some((median, longest)) = recovery(&self.recoveries) {
            writeln!(
                out,
                "\nFrom a kill until it is ready again: {:.0} ms in the middle, {:.0} ms at most.",
                millis(median),
                millis(longest)
            )?;
        }
        writeln!(
            out,
            "Every post once more: {} of {} answered from memory, the rest in doubt or\n  done without an answer to keep.",
            count(self.again),
            count(self.options.posts)
        )?;
        writeln!(
            out,
            "{} new events, {} deliveries in any order: {} missing, {} doubled, {} in doubt;\n  of {} calls {} were counted as duplicates.",
            count(self.shuffle.events.len()),
            count(self.shuffle.deliveries),
            self.shuffle.tally.missing.len() + self.shuffle.tally.given_up.len(),
            self.shuffle.tally.doubled.len(),
            self.shuffle.in_doubt,
            count(self.shuffle.calls),
            count(self.shuffle.duplicates)
        )?;
        let differ = self.metrics.iter().filter(|metric| metric.gateway != metric.counted).count();
        writeln!(
            out,
            "Metrics of the last life, which nobody killed: {} of {} equal what was counted.",
            self.metrics.len() - differ,
            self.metrics.len()
        )?;
        if let Some(cold) = &self.cold {
            cold.write(out)?;
        }
        if !self.in_doubt.is_empty() {
            writeln!(out, "\nIn doubt, and never sent again by itself:")?;
            for one in self.in_doubt.iter().take(ROWS_MAX) {
                let books = if one.done { "in the books" } else { "not in the books" };
                writeln!(out, "  {}  {}, {books}", one.operation, one.key)?;
                writeln!(out, "    {}", shortened(&one.why))?;
            }
            let more = self.in_doubt.len().saturating_sub(ROWS_MAX);
            if more > 0 {
                writeln!(out, "  and {more} more: --json lists all")?;
            }
        }
        writeln!(out, "\nAgain, with the same faults: {}", self.command())
    }
}

impl Cold {
    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "Cold: {} keys again after a restart, {} sent, {} differ; {:.2} ms in the middle\n  against {:.2} ms warm, {:.1} times as long in all, {:.1} ms at most.",
            count(self.window),
            self.sent,
            self.cold.differing.len(),
            millis(self.cold.median),
            millis(self.warm.median),
            self.ratio(),
            millis(self.cold.slowest)
        )
    }
}

impl Doubtful {
    fn json(&self) -> Value {
        json!({
            "operation": self.operation, "key": self.key, "route": self.route,
            "why": self.why, "done": self.done,
        })
    }
}

fn told(fault: Fault) -> &'static str {
    match fault {
        Fault::Refused => "503, nothing done",
        Fault::Limited => "429, nothing done",
        Fault::Failed => "500, though it was done",
        Fault::Lost => "done, the answer dropped",
        Fault::Hung => "done, no answer in time",
        Fault::Reset => "connection reset, nothing done",
        Fault::Cut => "done, the answer cut off",
        Fault::Slow => "a slow body",
        Fault::Duplicated => "a request duplicated on the way",
        Fault::Reordered => "a request overtaken by its retry",
    }
}

fn shortened(text: &str) -> String {
    // Beside an indent of four, in 80 columns.
    if text.chars().count() <= 76 {
        return text.to_owned();
    }
    text.chars().take(75).chain(['…']).collect()
}

/// A number with its thousands apart.
fn count(number: impl TryInto<u64>) -> String {
    let digits = number.try_into().unwrap_or(u64::MAX).to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        for (number, shown) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number as u64), shown);
        }
    }

    #[test]
    fn a_reason_fits_its_line() {
        assert_eq!(shortened(&"x".repeat(100)).chars().count(), 76);
    }
}
