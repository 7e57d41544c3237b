//! Shows that the tests have teeth: breaks one promise at a time, and runs the tests that are to
//! notice.
//!
//! The tests are built once, with the feature `sabotage`; the environment names the promise to
//! break. First they run with none broken: a test that is red anyway notices nothing.

mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use table::{Catcher, ROWS, Row};

use crate::{Outcome, steps};

/// A run that takes longer hangs; the slowest test is far from it.
const RUN_MAX: Duration = Duration::from_mins(3);

/// How often the gateway is killed in a test that does so until something is found.
const KILLS: &str = "15";

/// How long tests of a broken promise wait for what does not come, in seconds.
const PATIENCE: &str = "3";

/// What became of a broken promise.
struct Found {
    row: &'static Row,
    /// By each catcher: its seconds, or what happened instead.
    catches: Vec<(&'static Catcher, Result<Duration, String>)>,
}

impl Found {
    fn is_caught(&self) -> bool {
        self.catches.iter().all(|(_, caught)| caught.is_ok())
    }
}

/// Breaks the promises named, or all of them; an error where one is not noticed.
pub(crate) fn run(names: &[String]) -> Outcome<()> {
    let rows = chosen(names)?;
    let suites = build()?;
    control(&rows, &suites)?;
    let found = rows.iter().map(|row| break_and_run(row, &suites)).collect::<Outcome<Vec<_>>>()?;
    write_down(&found)?;
    let missed: Vec<&str> =
        found.iter().filter(|found| !found.is_caught()).map(|found| found.row.name).collect();
    println!("{} of {} sabotages caught", found.len() - missed.len(), found.len());
    if missed.is_empty() {
        Ok(())
    } else {
        Err(format!("not caught as they have to be: {}", missed.join(", ")).into())
    }
}

fn chosen(names: &[String]) -> Outcome<Vec<&'static Row>> {
    let unknown = names.iter().find(|name| ROWS.iter().all(|row| row.name != name.as_str()));
    if let Some(unknown) = unknown {
        let known: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        return Err(format!("no such sabotage: {unknown}; there are: {}", known.join(", ")).into());
    }
    let is_chosen = |row: &&Row| names.is_empty() || names.iter().any(|name| name == row.name);
    Ok(ROWS.iter().filter(is_chosen).collect())
}

/// Builds the tests; tells the program of each suite, by the path of its source.
fn build() -> Outcome<BTreeMap<String, PathBuf>> {
    let args = "test --locked --workspace --features onceward-server/sabotage --no-run \
                --message-format json-render-diagnostics";
    let mut cargo = Command::new(steps::cargo_program());
    cargo.args(args.split_whitespace()).current_dir(steps::root()).stderr(Stdio::inherit());
    let said = steps::output(&mut cargo)?;
    let suites = said.lines().filter_map(|line| {
        let source = field(line, "src_path")?;
        let source = Path::new(source).strip_prefix(steps::root()).ok()?.to_str()?.to_owned();
        Some((source, PathBuf::from(field(line, "executable")?)))
    });
    Ok(suites.collect())
}

/// A text in one of cargo's lines; paths of ours have nothing in them that is escaped.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split_once(&format!("\"{name}\":\""))?.1.split('"').next()
}

fn program<'a>(suites: &'a BTreeMap<String, PathBuf>, source: &str) -> Outcome<&'a Path> {
    let program = suites.get(source).ok_or_else(|| format!("{source} was not built"))?;
    Ok(program)
}

/// All tests of the table pass while nothing is broken.
fn control(rows: &[&Row], suites: &BTreeMap<String, PathBuf>) -> Outcome<()> {
    let mut tests: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for catcher in rows.iter().flat_map(|row| row.catchers) {
        tests.entry(catcher.suite).or_default().insert(catcher.test);
    }
    let started = Instant::now();
    for (suite, tests) in &tests {
        let tests: Vec<&str> = tests.iter().copied().collect();
        let (_, said) = execute(program(suites, suite)?, &tests, None)?;
        // A test that is not there any more fails here too.
        let red = tests.iter().find(|test| !said.contains(&format!("test {test} ... ok")));
        if let Some(red) = red {
            let what = format!("{suite}: {red} does not pass while nothing is broken:\n{said}");
            return Err(what.into());
        }
    }
    let count: usize = tests.values().map(BTreeSet::len).sum();
    println!("{count} tests pass while nothing is broken, in {:.1?}", started.elapsed());
    Ok(())
}

fn break_and_run(row: &'static Row, suites: &BTreeMap<String, PathBuf>) -> Outcome<Found> {
    println!("{:<25} {}", row.name, row.promise);
    let mut catches = Vec::new();
    for catcher in row.catchers {
        let started = Instant::now();
        let program = program(suites, catcher.suite)?;
        let (status, said) = execute(program, &[catcher.test], Some(row.name))?;
        let took = started.elapsed();
        let caught = judge(catcher, status, &said);
        match &caught {
            Ok(()) => println!("{:>7.2} s  {}", took.as_secs_f64(), catcher.test),
            Err(why) => println!("   MISSED  {}: {why}", catcher.test),
        }
        catches.push((catcher, caught.map(|()| took)));
    }
    Ok(Found { row, catches })
}

/// Whether the test failed, and for the reason that it has to.
fn judge(catcher: &Catcher, status: Option<ExitStatus>, said: &str) -> Result<(), String> {
    match status {
        None => Err(format!("it hangs for more than {RUN_MAX:?}")),
        Some(status) if status.success() => Err("it notices nothing".to_owned()),
        Some(_) if !said.contains(&format!("test {} ... FAILED", catcher.test)) => {
            Err(format!("it did not end as a test that fails does:\n{said}"))
        }
        Some(_) if !said.contains(catcher.says) => {
            Err(format!("it fails without saying {:?}:\n{said}", catcher.says))
        }
        Some(_) => Ok(()),
    }
}

/// Runs tests by their names, and tells how they ended, if they did, and what they said.
fn execute(
    program: &Path,
    tests: &[&str],
    sabotage: Option<&str>,
) -> Outcome<(Option<ExitStatus>, String)> {
    let log = folder()?.join("run.log");
    let out = File::create(&log)?;
    let mut command = Command::new(program);
    command.args(tests).arg("--exact").current_dir(steps::root());
    command.env("RUST_BACKTRACE", "0").env("TEST_CYCLES", KILLS).env_remove("TEST_FIGURES");
    command.stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out);
    if let Some(sabotage) = sabotage {
        command.env("TEST_SABOTAGE", sabotage).env("TEST_PATIENCE", PATIENCE);
    }
    let mut child = command.spawn()?;
    let started = Instant::now();
    let status = loop {
        match child.try_wait()? {
            None if started.elapsed() > RUN_MAX => {
                child.kill()?;
                child.wait()?;
                break None;
            }
            None => sleep(Duration::from_millis(5)),
            ended => break ended,
        }
    };
    Ok((status, String::from_utf8_lossy(&fs::read(log)?).into_owned()))
}

/// Where proof is written down.
fn folder() -> Outcome<PathBuf> {
    let folder = steps::root().join("target/proof");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Writes what was found as data, for whoever prints figures.
fn write_down(found: &[Found]) -> Outcome<()> {
    let said = |program: &str, args: &[&str]| {
        steps::output(Command::new(program).args(args).current_dir(steps::root()))
    };
    let date = said("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"])?;
    let commit = said("git", &["describe", "--always", "--dirty", "--abbrev=12"])?;
    let mut text = format!(
        "{{\n  \"date\": \"{}\",\n  \"commit\": \"{}\",\n  \"sabotages\": {},\n  \"caught\": {},\n  \"runs\": [",
        date.trim(),
        commit.trim(),
        found.len(),
        found.iter().filter(|found| found.is_caught()).count(),
    );
    let mut comma = "";
    for (found, (catcher, caught)) in
        found.iter().flat_map(|found| found.catches.iter().map(move |catch| (found, catch)))
    {
        let seconds = caught.as_ref().map_or(0.0, Duration::as_secs_f64);
        // Names and tests are words of ours, with nothing in them to escape.
        write!(
            text,
            "{comma}\n    {{ \"name\": \"{}\", \"caught\": {}, \"by\": \"{}\", \"seconds\": {seconds:.2} }}",
            found.row.name,
            caught.is_ok(),
            catcher.test,
        )?;
        comma = ",";
    }
    text.push_str("\n  ]\n}\n");
    fs::write(folder()?.join("sabotage.json"), text)?;
    Ok(())
}
