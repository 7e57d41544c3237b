//! What came of driving a route: what the gateway says, what callers were told, and what the
//! upstream counts, in the form of a run of one's own.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use onceward_proof::check::Told;
use onceward_proof::metrics::Metrics;
use onceward_proof::tally::{Story, Tally};
use serde_json::{Value, json};

use super::probe::Probe;
use crate::cli::client::Client;
use crate::cli::output::{clean, each, text};
use crate::exit::Exit;

/// Rows of a list that a person reads; the rest is in the JSON.
const ROWS_MAX: usize = 8;

/// What came of it, in the form of a run of one's own.
#[derive(Debug, Default)]
pub(super) struct Report<'a> {
    seed: u64,
    route: &'a str,
    posts: usize,
    command: String,
    attempts: u64,
    labelled: u64,
    faults: BTreeMap<String, u64>,
    counted: Option<Counted>,
    tally: Tally,
    in_doubt: Vec<Value>,
    pub(super) violations: Vec<String>,
}

/// What the upstream says.
#[derive(Debug, Clone, Copy)]
struct Counted {
    effects: u64,
    missing: u64,
    doubled: u64,
}

/// Whether its upstream may have done it.
fn may_be_done(operation: &Value) -> bool {
    operation["state"] == "done" && operation["ok"] == true
        || each(operation, "/attempts").iter().any(|attempt| attempt["may_have_executed"] == true)
}

impl<'a> Report<'a> {
    pub(super) fn new(route: &'a str, seed: u64, posts: usize, command: String) -> Self {
        Self { seed, route, posts, command, ..Self::default() }
    }

    /// What the gateway says: attempts, faults, and what is in doubt.
    pub(super) fn read(&mut self, operations: &[Value], before: &Metrics, after: &Metrics) {
        let attempts = || operations.iter().flat_map(|operation| each(operation, "/attempts"));
        self.attempts = attempts().count() as u64;
        let is_labelled = |attempt: &&Value| {
            attempt["error"].as_str().is_some_and(|error| error.starts_with("chaos: "))
        };
        self.labelled = attempts().filter(is_labelled).count() as u64;
        for fault in onceward::upstream::Fault::ALL {
            let metric = format!("onceward_chaos_faults_total{{fault=\"{}\"}}", fault.name());
            let met = after.get(&metric).saturating_sub(before.get(&metric));
            self.faults.insert(fault.name().to_owned(), met);
        }
        for operation in operations.iter().filter(|one| one["state"] == "in_doubt") {
            let last = each(operation, "/attempts").last().cloned().unwrap_or_default();
            let why = match last["error"].as_str() {
                Some(error) => format!("attempt {}: {}", last["n"], clean(error)),
                None => format!("attempt {} was answered {}", last["n"], last["status"]),
            };
            self.in_doubt.push(json!({
                "operation": operation["id"], "key": operation["key"], "route": operation["route"],
                "why": why,
            }));
        }
    }

    /// What callers were told, beside what the upstream says.
    pub(super) async fn judge(
        &mut self,
        client: &Client,
        probe: Option<&Probe>,
        counted_before: u64,
        stories: &BTreeMap<String, Vec<Told>>,
        operations: &[Value],
    ) -> Result<(), Exit> {
        let in_doubt = |key: &str| self.in_doubt.iter().any(|one| one["key"] == key);
        let of_a_post = probe.filter(|probe| probe.is_of_a_post());
        let mut judged = Vec::new();
        for (key, told) in stories {
            let effects = match of_a_post {
                Some(probe) => probe.count(client, self.route, key).await?,
                // Not counted one by one: taken for what its caller was told.
                None => u64::from(
                    told.iter().any(|told| told.is_acknowledged() || told.is_not_retained()),
                ),
            };
            let told = told.clone();
            judged.push(Story { post: key.clone(), effects, told, in_doubt: in_doubt(key) });
        }
        self.tally = Tally::of(&judged);
        self.violations = self.tally.violations();
        let Some(probe) = probe else { return Ok(()) };
        if probe.is_of_a_post() {
            self.counted = Some(Counted {
                effects: self.tally.effects,
                missing: self.tally.missing.len() as u64,
                doubled: self.tally.doubled.len() as u64,
            });
            return Ok(());
        }
        let all = probe.count(client, self.route, "").await?;
        let effects = all.saturating_sub(counted_before);
        let least = operations.iter().filter(|one| one["state"] == "done" && one["ok"] == true);
        let most = operations.iter().filter(|one| may_be_done(one));
        let (least, most) = (least.count() as u64, most.count() as u64);
        let missing = least.saturating_sub(effects);
        let doubled = effects.saturating_sub(most);
        if missing + doubled > 0 {
            self.violations.push(format!(
                "{least} posts are done and {most} may be, and the upstream counts {effects} effects"
            ));
        }
        self.counted = Some(Counted { effects, missing, doubled });
        Ok(())
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "seed": self.seed, "route": self.route, "command": self.command,
            "posts": self.posts, "attempts": self.attempts, "faults": self.faults,
            "labelled": self.labelled, "kills": 0, "effects": self.counted.map(|counted| counted.effects),
            "missing": self.counted.map(|counted| counted.missing),
            "doubled": self.counted.map(|counted| counted.doubled),
            "differing": self.tally.differing.len(), "given_up": self.tally.given_up.len(),
            "in_doubt": self.in_doubt, "replayed": self.tally.replayed,
            "naive": null, "violations": self.violations,
        })
    }

    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        // Writing into a string does not fail.
        let mut row = |name: &str, value: String| {
            let _ = writeln!(out, "  {name:<34} {value:>16}");
        };
        row("posts", self.posts.to_string());
        row("attempts", self.attempts.to_string());
        let counted = |which: fn(Counted) -> u64| {
            self.counted
                .map_or_else(|| "not counted".to_owned(), |counted| which(counted).to_string())
        };
        row("effects", counted(|counted| counted.effects));
        row("missing", counted(|counted| counted.missing));
        row("doubled", counted(|counted| counted.doubled));
        row("in doubt, for a person to resolve", self.in_doubt.len().to_string());
        row("given up by their callers", self.tally.given_up.len().to_string());
        row("duplicates answered from memory", self.tally.replayed.to_string());
        row("faults met", self.faults.values().sum::<u64>().to_string());
        for (fault, met) in &self.faults {
            row(&format!("  {fault}"), met.to_string());
        }
        for one in self.in_doubt.iter().take(ROWS_MAX) {
            let _ = writeln!(
                out,
                "  {}  {}\n    {}",
                text(one, "/operation"),
                text(one, "/key"),
                text(one, "/why")
            );
        }
        if self.in_doubt.len() > ROWS_MAX {
            let more = self.in_doubt.len() - ROWS_MAX;
            let _ = writeln!(out, "  and {more} more: --json lists all");
        }
        let _ = writeln!(out, "\nAgain, on a fresh ledger: {}", self.command);
        out
    }
}
