//! Running other programs, and how long each took.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::{Outcome, axe, browser, postgres, previous, schemathesis, sdk, sdks, tools};

/// What was run so far, and for how long.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    done: Vec<(&'static str, Duration, bool)>,
}

impl Steps {
    /// Runs one step under a headline.
    pub(crate) fn run(
        &mut self,
        name: &'static str,
        step: impl FnOnce() -> Outcome<()>,
    ) -> Outcome<()> {
        println!("\n== {name}");
        let started = Instant::now();
        let outcome = step();
        self.done.push((name, started.elapsed(), outcome.is_ok()));
        outcome.map_err(|error| format!("{name}: {error}").into())
    }

    /// Prints a line for each step.
    pub(crate) fn print(&self) {
        println!();
        for (name, time, passed) in &self.done {
            let verdict = if *passed { "ok" } else { "FAILED" };
            println!("{name:<8} {:>7.1} s  {verdict}", time.as_secs_f64());
        }
        let all: Duration = self.done.iter().map(|(_, time, _)| *time).sum();
        println!("{:<8} {:>7.1} s", "all", all.as_secs_f64());
    }
}

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// Runs cargo in the workspace, its output shown as it comes.
pub(crate) fn cargo(args: &[&str], environment: &[(&str, OsString)]) -> Outcome<()> {
    let mut command = Command::new(cargo_program());
    command.args(args).current_dir(root());
    for (name, value) in environment {
        command.env(name, value);
    }
    succeed(&mut command)
}

/// The cargo that runs us, so that toolchains do not mix.
pub(crate) fn cargo_program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Runs a program to its end.
pub(crate) fn succeed(command: &mut Command) -> Outcome<()> {
    let status = command.status().map_err(|error| format!("{}: {error}", shown(command)))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("`{}` failed ({status})", shown(command)).into())
    }
}

/// Puts the project as it was at `commit` into a folder that is empty.
pub(crate) fn check_out(commit: &str, folder: &Path) -> Outcome<()> {
    let mut clone = Command::new("git");
    clone.args(["clone", "--quiet", "--local", "--no-checkout"]).arg(root()).arg(folder);
    succeed(&mut clone)?;
    let mut checkout = Command::new("git");
    succeed(checkout.args(["checkout", "--quiet", "--detach", commit]).current_dir(folder))
}

/// Runs a program and returns what it prints.
pub(crate) fn output(command: &mut Command) -> Outcome<String> {
    let output = command.output().map_err(|error| format!("{}: {error}", shown(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("`{}` failed ({}): {said}", shown(command), output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn shown(command: &Command) -> String {
    let name =
        Path::new(command.get_program()).file_name().unwrap_or_else(|| command.get_program());
    let mut line = name.to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

/// How many tests of a suite run side by side.
const THREADS: &str = "RUST_TEST_THREADS";

/// Twice as many as there are cores: a test that starts processes, or kills or cuts them off,
/// mostly waits. Who says how many has the last word.
pub(crate) fn abreast() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let said = std::env::var(THREADS).ok().and_then(|said| said.parse().ok());
    said.unwrap_or(2 * cores)
}

/// How tests are built, here and wherever what they were built from is used again: cargo builds anew what
/// is wanted with other features. Their promises can be broken; nothing breaks any but `xtask sabotage`.
pub(crate) const TESTS: &str = "test --locked --workspace --features onceward-server/sabotage";

/// Runs some of them.
pub(crate) fn run_tests(which: &[&str], environment: &[(&str, OsString)]) -> Outcome<()> {
    cargo(&TESTS.split(' ').chain(which.iter().copied()).collect::<Vec<_>>(), environment)
}

/// The gateway as the tests have it.
pub(crate) fn gateway() -> Outcome<PathBuf> {
    let args: Vec<&str> = TESTS.split(' ').chain(["--no-run", "--quiet"]).collect();
    cargo(&args, &[])?;
    Ok(root().join("target/debug/onceward"))
}

/// All tests, after what they need is there. `extra` goes to cargo test.
pub(crate) fn test(extra: &[String]) -> Outcome<()> {
    let browser = browser::find_or_install()?;
    let axe = axe::find_or_install();
    let server = postgres::find_or_start()?;
    tools::find_or_install();
    let sdks = sdks::find_or_install();
    let previous = previous::find_or_build();
    // Beside --workspace cargo would not heed a package.
    let is_of_some = extra.iter().any(|arg| arg.starts_with("-p") || arg.starts_with("--package"));
    let how = if is_of_some { "test --locked" } else { TESTS };
    let mut args: Vec<&str> = how.split(' ').collect();
    args.extend(extra.iter().map(String::as_str));
    let mut environment = vec![
        ("TEST_CHROMEDRIVER", browser.driver.into()),
        ("TEST_CHROMIUM", browser.chromium.into()),
        ("TEST_POSTGRES", server.url().into()),
        (THREADS, abreast().to_string().into()),
    ];
    environment.extend(sdks);
    environment.extend(axe.map(|script| ("TEST_AXE", script.into())));
    environment.extend(previous.map(|binary| ("TEST_PREVIOUS", binary.into())));
    cargo(&args, &environment)?;
    // Who asks for some tests does not wait for these.
    if !extra.is_empty() {
        return Ok(());
    }
    // Side by side: each waits most of the time.
    let gateway = gateway()?;
    std::thread::scope(|threads| {
        let ask = || schemathesis::ask(&gateway, &[]).map_err(|error| error.to_string());
        let asking = threads.spawn(ask);
        let checked = sdk::check(&gateway, &[]);
        let asked = asking.join().unwrap_or_else(|_| Err("schemathesis: it panicked".into()));
        checked?;
        asked.map_err(Into::into)
    })
}

/// Worlds from a seed, in a build that is quick.
pub(crate) fn sim(extra: &[String]) -> Outcome<()> {
    let mut args = vec!["run", "--locked", "--quiet", "--release", "-p", "onceward-sim", "--"];
    args.extend(extra.iter().map(String::as_str));
    cargo(&args, &[])
}

/// Writes the document of the API, as the gateway prints it.
pub(crate) fn openapi() -> Outcome<()> {
    let document = output(Command::new(gateway()?).arg("openapi").current_dir(root()))?;
    let place = root().join("docs/openapi.json");
    std::fs::write(&place, document)?;
    println!("{} is written", place.display());
    Ok(())
}

/// Writes the table of metrics into the page of the documentation.
pub(crate) fn metrics() -> Outcome<()> {
    let test = "telemetry::metrics::tests::the_page_of_the_metrics_has_them_all";
    run_tests(&["--bin", "onceward", "--", "--exact", test], &[("TEST_WRITE", "1".into())])
}

/// Writes a ledger of this release, for later ones to open.
pub(crate) fn fixture() -> Outcome<()> {
    let version = env!("CARGO_PKG_VERSION").rsplit_once('.').map_or("", |(minor, _)| minor);
    let folder = root().join(format!("crates/onceward/tests/fixtures/ledger-{version}"));
    if folder.exists() {
        return Err(format!(
            "{} is there: a release's fixture is written once, and kept\nmend: where this release is not out yet, remove it first",
            folder.display()
        )
        .into());
    }
    let test = "ledger_fixture::a_ledger_of_this_release_can_be_kept_as_a_fixture";
    run_tests(&["--test", "it", "--", "--exact", test], &[("TEST_FIXTURE", folder.into())])
}
