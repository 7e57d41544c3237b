//! Shows that the tests have teeth: breaks one promise at a time, and runs the tests that are to
//! notice.
//!
//! The tests are those of `xtask test`, built with the feature `sabotage`; the environment names the promise
//! to break. First they run with none broken: a test that is red anyway notices nothing.

mod report;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use table::{Catcher, ROWS, Row};

use crate::{Outcome, postgres, steps};

/// A run that takes longer hangs; the slowest test is far from it.
const RUN_MAX: Duration = Duration::from_mins(2);

/// How often the gateway is killed in a test that does so until something is found.
const KILLS: &str = "15";

/// How long tests of a broken promise wait for what does not come, in seconds.
const PATIENCE: &str = "3";

/// What became of a broken promise.
struct Found {
    row: &'static Row,
    runs: Vec<Run>,
}

/// One test that has to notice.
struct Run {
    test: &'static str,
    took: Duration,
    /// The world that broke the promise, where worlds were simulated one after the other.
    world: Option<u32>,
    notice: Notice,
}

impl Run {
    /// In which world, where it was in one.
    fn place(&self) -> String {
        self.world.map_or_else(String::new, |world| format!(", world {world}"))
    }
}

/// What a test did when the promise was broken.
#[derive(PartialEq, Eq)]
enum Notice {
    /// It failed as it has to.
    Caught,
    /// It did nothing, for want of something on this machine.
    Skipped,
    /// It did not, in words.
    Missed(String),
}

impl Found {
    fn all(&self, is: impl Fn(&Notice) -> bool) -> bool {
        self.runs.iter().all(|run| is(&run.notice))
    }
}

/// Breaks the promises named, or all of them; an error where one is not noticed.
pub(crate) fn run(names: &[String]) -> Outcome<()> {
    break_promises(&chosen(names)?, false)
}

/// The same for all of them, once `xtask test` has passed: it had the same programs, with none broken.
pub(crate) fn after_tests() -> Outcome<()> {
    break_promises(&chosen(&[])?, true)
}

fn break_promises(rows: &[&'static Row], is_controlled: bool) -> Outcome<()> {
    let server = postgres::find_or_start()?;
    let tests = Tests { suites: build()?, postgres: server.url() };
    if !is_controlled {
        control(rows, &tests)?;
    }
    let found = all_broken(rows, &tests)?;
    report::write(&found)?;
    let caught = found.iter().filter(|found| found.all(|notice| *notice == Notice::Caught)).count();
    println!("{caught} of {} sabotages caught", found.len());
    let missed: Vec<&str> = found
        .iter()
        .filter(|found| !found.all(|notice| !matches!(notice, Notice::Missed(_))))
        .map(|found| found.row.name)
        .collect();
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

/// Builds the tests; tells their programs.
fn build() -> Outcome<BTreeMap<String, PathBuf>> {
    let mut cargo = Command::new(steps::cargo_program());
    cargo.args(steps::TESTS.split(' ')).args(["--no-run", "--message-format"]);
    cargo.arg("json-render-diagnostics").current_dir(steps::root()).stderr(Stdio::inherit());
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

/// The tests, and the server for those that need one.
struct Tests<'a> {
    /// The program of each suite, by the path of its source.
    suites: BTreeMap<String, PathBuf>,
    postgres: &'a str,
}

/// All tests of the table pass while nothing is broken.
fn control(rows: &[&Row], built: &Tests<'_>) -> Outcome<()> {
    let mut tests: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for catcher in rows.iter().flat_map(|row| row.catchers) {
        tests.entry(catcher.suite).or_default().insert(catcher.test);
    }
    let started = Instant::now();
    for (suite, tests) in &tests {
        let tests: Vec<&str> = tests.iter().copied().collect();
        let (_, said) = built.execute(suite, &tests, None)?;
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

/// Breaks each promise, as many at once as tests run: most of them wait for what does not come.
fn all_broken(rows: &[&'static Row], built: &Tests<'_>) -> Outcome<Vec<Found>> {
    let rest = Mutex::new(rows.iter());
    let one_after_the_other = || {
        let next = || rest.lock().unwrap_or_else(PoisonError::into_inner).next();
        std::iter::from_fn(next)
            .map(|row| break_and_run(row, built).map_err(|error| error.to_string()))
            .collect::<Result<Vec<_>, _>>()
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..steps::abreast()).map(|_| scope.spawn(one_after_the_other)).collect();
        let mut found = Vec::new();
        for worker in workers {
            found.extend(worker.join().map_err(|_| "a run of a sabotage panicked")??);
        }
        found.sort_by_key(|found| rows.iter().position(|row| row.name == found.row.name));
        Ok(found)
    })
}

fn break_and_run(row: &'static Row, built: &Tests<'_>) -> Outcome<Found> {
    let mut told = format!("{:<25} {}", row.name, row.promise);
    let mut runs = Vec::new();
    for catcher in row.catchers {
        let started = Instant::now();
        let run = || built.execute(catcher.suite, &[catcher.test], Some(row.name));
        let (mut status, mut said) = run()?;
        if status.is_none() {
            // In a broken race one may wait for what never comes: another run has another order.
            (status, said) = run()?;
        }
        let took = started.elapsed();
        let notice = judge(catcher, status, &said);
        let run = Run { test: catcher.test, took, world: broken_world(&said), notice };
        let line = match &run.notice {
            Notice::Caught => {
                format!("{:>7.2} s  {}{}", took.as_secs_f64(), run.test, run.place())
            }
            Notice::Skipped => format!("  skipped  {}", run.test),
            Notice::Missed(why) => format!("   MISSED  {}: {why}", run.test),
        };
        told = format!("{told}\n{line}");
        runs.push(run);
    }
    println!("{told}");
    Ok(Found { row, runs })
}

/// Which world broke a promise first, by what the test of worlds says.
fn broken_world(said: &str) -> Option<u32> {
    let (before, _) = said.split_once(" broke a promise")?;
    before.rsplit("world ").next()?.parse().ok()
}

/// Whether the test failed, and for the reason that it has to.
fn judge(catcher: &Catcher, status: Option<ExitStatus>, said: &str) -> Notice {
    let has_failed = said.contains(&format!("test {} ... FAILED", catcher.test));
    match status {
        None => Notice::Missed(format!("it hangs for more than {RUN_MAX:?}")),
        // Where it is missing, what needs it says so and does nothing.
        Some(status) if status.success() && said.contains("skipped: strace") => Notice::Skipped,
        Some(status) if status.success() => Notice::Missed("it notices nothing".to_owned()),
        Some(_) if has_failed && said.contains(catcher.says) => Notice::Caught,
        Some(_) => {
            Notice::Missed(format!("it does not fail with {:?}, but with\n{said}", catcher.says))
        }
    }
}

impl Tests<'_> {
    /// Runs tests by their names, and tells how they ended, if they did, and what they said.
    fn execute(
        &self,
        suite: &str,
        tests: &[&str],
        sabotage: Option<&str>,
    ) -> Outcome<(Option<ExitStatus>, String)> {
        let program = self.suites.get(suite).ok_or_else(|| format!("{suite} was not built"))?;
        let folder = steps::root().join("target/sabotage");
        fs::create_dir_all(&folder)?;
        let log = folder.join(format!("{}.log", sabotage.unwrap_or("control")));
        let out = File::create(&log)?;
        let mut command = Command::new(program);
        command.args(tests).args(["--exact", "--show-output"]).current_dir(steps::root());
        command.env("RUST_BACKTRACE", "0").env("TEST_CYCLES", KILLS).env_remove("TEST_FIGURES");
        command.env("TEST_POSTGRES", self.postgres);
        command.stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out);
        match sabotage {
            Some(name) => command.env("TEST_SABOTAGE", name).env("TEST_PATIENCE", PATIENCE),
            None => command.env_remove("TEST_SABOTAGE"),
        };
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
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names in the library's own table.
    fn known() -> Vec<String> {
        let source = steps::root().join("crates/onceward/src/sabotage.rs");
        let text = fs::read_to_string(source).unwrap();
        let name =
            |line: &str| Some(line.trim().strip_suffix("\",")?.split_once(" = \"")?.1.to_owned());
        text.lines().filter_map(name).collect()
    }

    #[test]
    fn every_sabotage_has_somebody_who_has_to_notice() {
        let listed: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        let mut known = known();
        known.sort_unstable();
        assert!(known.len() > 20, "{known:?}");
        let mut sorted = listed.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, known);
        assert!(ROWS.iter().all(|row| !row.catchers.is_empty()));
        assert!(ROWS.iter().flat_map(|row| row.catchers).all(|catcher| !catcher.says.is_empty()));
    }

    #[test]
    fn only_a_test_that_fails_for_its_reason_has_noticed() {
        use std::os::unix::process::ExitStatusExt as _;
        let catcher = Catcher { suite: "", test: "a::b", says: "left: 2" };
        let (passed, failed) =
            (Some(ExitStatus::from_raw(0)), Some(ExitStatus::from_raw(101 << 8)));
        let is_missed = |status, said| matches!(judge(&catcher, status, said), Notice::Missed(_));
        assert!(judge(&catcher, failed, "test a::b ... FAILED\n left: 2") == Notice::Caught);
        assert!(
            judge(&catcher, passed, "skipped: strace is missing\ntest a::b ... ok")
                == Notice::Skipped
        );
        assert!(is_missed(passed, "test a::b ... ok"));
        assert!(is_missed(failed, "test a::b ... FAILED\n address in use"));
        assert!(is_missed(failed, "left: 2, and then it was killed"));
        assert!(is_missed(None, "test a::b ... FAILED\n left: 2"));
    }

    #[test]
    fn the_world_that_broke_a_promise_is_read() {
        assert_eq!(broken_world("x\nworld 12 broke a promise: []"), Some(12));
        assert_eq!(broken_world("the world 12 is whole"), None);
    }

    #[test]
    fn suites_are_found_in_what_cargo_says() {
        let line = r#"{"reason":"compiler-artifact","target":{"src_path":"/a/tests/it/main.rs"},"executable":"/a/target/it-1"}"#;
        assert_eq!(field(line, "src_path"), Some("/a/tests/it/main.rs"));
        assert_eq!(field(line, "executable"), Some("/a/target/it-1"));
        assert_eq!(field(r#"{"executable":null}"#, "executable"), None);
    }
}
