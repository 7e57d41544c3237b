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
const NAMES: [(&str, &str); 24] = [
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
    ("raw-corpus", "Malformed and smuggling requests"),
    ("model", "Calls against a model of the contract"),
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
    let (_, after) = rest.split_once(END).ok_or("the figures of the page do not end")?;
    let table = table(&found()?)?;
    Ok(fs::write(path, format!("{before}{BEGIN}{table}{END}{after}"))?)
}

fn table(suites: &[Map<String, Value>]) -> Outcome<String> {
    let names: BTreeMap<&str, &str> = NAMES.into_iter().collect();
    let text = |suite: &Map<String, Value>, name: &str| match suite.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let dates: Vec<String> = suites.iter().map(|suite| text(suite, "date")).collect();
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
    for suite in suites {
        let name = text(suite, "suite");
        let shown = names.get(name.as_str()).copied().unwrap_or(&name);
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
        // Writing into a string does not fail.
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
    for command in commands {
        let _ = writeln!(page, "{command}");
    }
    page += "```\n";
    Ok(page)
}
