//! The proof: every long run one after the other, and the page that says what they came to.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Map, Value};

use crate::steps::{self, cargo, output};
use crate::{Outcome, crash, sabotage};

/// Where the figures stand in the page.
const PAGE: &str = "docs/reliability.md";
const BEGIN: &str = "<!-- figures: written by `cargo xtask proof` -->\n";
const END: &str = "<!-- end of figures -->\n";

/// How each suite's figures are called in the page; those that are not here go by their own name.
const NAMES: [(&str, &str); 37] = [
    ("simulation", "Simulated worlds, with faults at every door"),
    ("kill", "kill -9 at random moments under load"),
    ("kill-points", "kill -9 at storage calls, one after the other"),
    ("power-ext4", "Power cuts, ext4"),
    ("power-xfs", "Power cuts, xfs"),
    ("power-control", "Power cuts without sync: the control, which has to lose"),
    ("torn-writes", "Torn and cut-off writes"),
    ("bit-flips", "Flipped bits"),
    ("io-errors", "I/O errors, one storage call after the other"),
    ("no-room", "No room, one write after the other"),
    ("full-disk", "A full disk"),
    ("read-only", "A ledger that became read-only"),
    ("descriptors", "No file descriptors left"),
    ("clock", "A clock that is set"),
    ("backups", "Backups under load, restored"),
    ("wire-cuts", "The wire cut at every point"),
    ("hang-ups", "Callers that hang up"),
    ("flapping", "An upstream that comes and goes"),
    ("stops", "Told to stop under load"),
    ("webhooks", "kill -9 while webhooks stream in"),
    ("down", "An upstream that is down for an hour, with work that waits for it"),
    ("recovery", "An upstream that comes back to a backlog"),
    ("nodes-killed", "Nodes killed at random, and paused past their right"),
    ("nodes-cut-off", "Nodes cut off from PostgreSQL: told, in silence, or one way"),
    ("nodes-server-away", "PostgreSQL cut, stopped and killed under load"),
    ("nodes-failover", "A killed primary, a promoted standby, and the old primary back"),
    ("nodes-replies-lost", "Replies of PostgreSQL lost on the wire"),
    ("nodes-conflicts", "Statements that lose: deadlock, serialization, lock timeout"),
    ("nodes-refused", "PostgreSQL full, and read only"),
    ("nodes-migrations", "Migrations broken off: nodes and server killed"),
    ("nodes-expansion", "Nodes from before and after an expansion side by side"),
    ("raw-corpus", "Malformed and smuggling requests"),
    ("model", "Calls against a model of the contract"),
    ("shuffles", "Versions of a subject, shuffled and killed"),
    ("sabotage", "Promises broken on purpose, and noticed"),
    ("chaos", "`onceward chaos`"),
    ("verify", "`onceward verify`"),
];

/// Runs everything, or with `--page` only writes what was found before.
pub(crate) fn run(args: &[String]) -> Outcome<()> {
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    if let Some(unknown) = args.iter().find(|arg| !["--long", "--page"].contains(&arg.as_str())) {
        return Err(format!("{unknown} is no option of proof: --long, --page").into());
    }
    let mut failed = Vec::new();
    if !has("--page") {
        let long = if has("--long") { vec!["--long".to_owned()] } else { Vec::new() };
        let minutes = if has("--long") { "10" } else { "1" };
        let runs: [(&str, Outcome<()>); 3] = [
            ("simulation", simulate(minutes)),
            ("crash", crash::run(&long)),
            ("sabotage", sabotage::run(&[])),
        ];
        failed.extend(runs.into_iter().filter_map(|(name, done)| Some((name, done.err()?))));
    }
    write_page()?;
    match failed.first() {
        None => Ok(()),
        Some((name, error)) => Err(format!("{name}: {error}").into()),
    }
}

fn folder() -> PathBuf {
    steps::root().join("target/proof")
}

fn simulate(minutes: &str) -> Outcome<()> {
    let file = folder().join("simulation.json");
    fs::create_dir_all(folder())?;
    // What is there is of an earlier run.
    let _ = fs::remove_file(&file);
    let args = ["run", "--locked", "--quiet", "--release", "-p", "onceward-sim", "--"];
    let args = [&args[..], &["--minutes", minutes]].concat();
    cargo(&args, &[("TEST_FIGURES", file.clone().into())])?;
    let line = fs::read_to_string(&file)?;
    let mut figures: Map<String, Value> = serde_json::from_str(line.trim())?;
    let command = format!("cargo xtask sim --minutes {minutes}");
    figures.insert("command".to_owned(), command.into());
    figures.insert("commit".to_owned(), crash::commit()?.into());
    figures.insert("date".to_owned(), date()?.into());
    figures.insert("passed".to_owned(), true.into());
    Ok(fs::write(&file, Value::from(vec![figures]).to_string())?)
}

fn date() -> Outcome<String> {
    let text = output(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]))?;
    Ok(text.trim().to_owned())
}

/// The processor, its cores and the kernel: figures mean little without them.
fn machine() -> Outcome<String> {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.and_then(|line| line.split_once(':')).map_or("?", |(_, model)| model.trim());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = output(Command::new("uname").args(["-sr"]))?;
    let kernel = kernel.trim().split('-').next().unwrap_or_default();
    Ok(format!("{cores} cores of {model}, {kernel}"))
}

/// Every suite that left its figures.
fn found() -> Outcome<Vec<Map<String, Value>>> {
    let mut all = Vec::new();
    for name in ["simulation.json", "crash.json"] {
        let Ok(text) = fs::read_to_string(folder().join(name)) else { continue };
        let suites: Vec<Map<String, Value>> = serde_json::from_str(&text)?;
        all.extend(suites);
    }
    if let Ok(text) = fs::read_to_string(folder().join("sabotage.json")) {
        let told: Map<String, Value> = serde_json::from_str(&text)?;
        let number = |name: &str| told.get(name).and_then(Value::as_u64).unwrap_or_default();
        let mut suite = Map::new();
        suite.insert("suite".to_owned(), "sabotage".into());
        suite.insert("broken".to_owned(), number("sabotages").into());
        suite.insert("noticed".to_owned(), number("caught").into());
        suite.insert("violations".to_owned(), (number("sabotages") - number("caught")).into());
        suite.insert("command".to_owned(), "cargo xtask sabotage".into());
        for name in ["commit", "date"] {
            suite.insert(name.to_owned(), told.get(name).cloned().unwrap_or_default());
        }
        all.push(suite);
    }
    Ok(all)
}

fn write_page() -> Outcome<()> {
    let path = steps::root().join(PAGE);
    let page = fs::read_to_string(&path)?;
    let (before, rest) = page.split_once(BEGIN).ok_or("the page has no place for figures")?;
    let (old, after) = rest.split_once(END).ok_or("the figures of the page do not end")?;
    let table = table(&found()?, &Earlier::read(old))?;
    Ok(fs::write(path, format!("{before}{BEGIN}{table}{END}{after}"))?)
}

/// What the page has of earlier runs: it stays where nothing newer was found.
#[derive(Debug, Default)]
struct Earlier {
    dates: Vec<String>,
    rows: Vec<String>,
    commands: Vec<String>,
}

impl Earlier {
    fn read(table: &str) -> Self {
        let mut earlier = Self::default();
        let (rows, commands) = table.split_once("```sh\n").unwrap_or((table, ""));
        for line in rows.lines() {
            if let Some(measured) = line.strip_prefix("Measured ") {
                let dates = measured.split(" on ").next().unwrap_or_default();
                earlier.dates = dates.split(" to ").map(str::to_owned).collect();
            } else if line.starts_with("| ") {
                earlier.rows.push(line.to_owned());
            }
        }
        // The first two say what is in the columns.
        earlier.rows.drain(..earlier.rows.len().min(2));
        let is_command = |line: &&str| !line.is_empty() && !line.starts_with("```");
        earlier.commands = commands.lines().filter(is_command).map(str::to_owned).collect();
        earlier
    }

    /// The rows of suites that are not called by one of `names`.
    fn rows_but(&self, names: &[String]) -> impl Iterator<Item = &String> {
        let is_new =
            |row: &&String| names.iter().any(|name| row.starts_with(&format!("| {name} |")));
        self.rows.iter().filter(move |row| !is_new(row))
    }

    /// The commands whose tests are not among those of `commands`.
    fn commands_but(&self, commands: &[String]) -> impl Iterator<Item = &String> {
        let test = |command: &str| {
            let test = command.split_whitespace().find(|word| word.contains("::"));
            test.unwrap_or(command).to_owned()
        };
        let new: Vec<String> = commands.iter().map(|command| test(command)).collect();
        self.commands.iter().filter(move |command| !new.contains(&test(command)))
    }
}

fn table(suites: &[Map<String, Value>], earlier: &Earlier) -> Outcome<String> {
    let names: BTreeMap<&str, &str> = NAMES.into_iter().collect();
    let text = |suite: &Map<String, Value>, name: &str| match suite.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let mut dates: Vec<String> = suites.iter().map(|suite| text(suite, "date")).collect();
    dates.extend(earlier.dates.iter().cloned());
    let span = |all: &[String]| {
        let (first, last) = (all.iter().min(), all.iter().max());
        match (first, last) {
            (Some(first), Some(last)) if first == last => first.clone(),
            (Some(first), Some(last)) => format!("{first} to {last}"),
            _ => String::new(),
        }
    };
    let mut page = format!(
        "Measured {} on {}.\n\n| what is done to it | what was counted | broken promises | seconds | seed | commit |\n| --- | --- | --- | --- | --- | --- |\n",
        span(&dates),
        machine()?
    );
    let shown = |suite: &Map<String, Value>| {
        let name = text(suite, "suite");
        names.get(name.as_str()).map_or(name, |&shown| shown.to_owned())
    };
    let all: Vec<String> = suites.iter().map(shown).collect();
    for row in earlier.rows_but(&all) {
        // Writing into a string does not fail.
        let _ = writeln!(page, "{row}");
    }
    for (suite, shown) in suites.iter().zip(&all) {
        let about =
            ["suite", "seed", "seconds", "violations", "command", "commit", "date", "passed"];
        let counted: Vec<String> = suite
            .iter()
            .filter(|(name, _)| !about.contains(&name.as_str()))
            .map(|(name, value)| format!("{} {value}", name.replace('_', " ")))
            .collect();
        let is_failed = suite.get("passed") == Some(&Value::Bool(false));
        let violations = text(suite, "violations");
        let verdict = if is_failed { format!("{violations} **FAILED**") } else { violations };
        let _ = writeln!(
            page,
            "| {shown} | {} | {verdict} | {} | {} | {} |",
            counted.join(", "),
            text(suite, "seconds"),
            text(suite, "seed"),
            text(suite, "commit")
        );
    }
    page += "\nThe same again:\n\n```sh\n";
    let mut commands: Vec<String> = suites.iter().map(|suite| text(suite, "command")).collect();
    commands.dedup();
    for command in earlier.commands_but(&commands).chain(&commands) {
        let _ = writeln!(page, "{command}");
    }
    page += "```\n";
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_an_earlier_run_stays_until_there_is_a_newer_one() {
        let suite = |name: &str, seed: u64| -> Map<String, Value> {
            let command = format!("TEST_N={seed} cargo test -- {name}::all");
            let text = format!(
                "{{\"suite\":\"{name}\",\"seed\":{seed},\"command\":\"{command}\",\"date\":\"{seed}\"}}"
            );
            serde_json::from_str(&text).unwrap()
        };
        let first = table(&[suite("a", 1), suite("b", 2)], &Earlier::default()).unwrap();
        assert!(first.starts_with("Measured 1 to 2 on "), "{first}");
        let second = table(&[suite("b", 3)], &Earlier::read(&first)).unwrap();
        assert!(second.starts_with("Measured 1 to 3 on "), "{second}");
        let rows: Vec<&str> = second
            .lines()
            .filter(|line| line.starts_with("| a") || line.starts_with("| b"))
            .collect();
        assert_eq!(rows, ["| a |  |  |  | 1 |  |", "| b |  |  |  | 3 |  |"]);
        let commands = second.split_once("```sh\n").unwrap().1;
        assert_eq!(commands, "TEST_N=1 cargo test -- a::all\nTEST_N=3 cargo test -- b::all\n```\n");
    }
}
