//! Our own SDKs: linted, type-checked, tested against the gateway that was built here, packed, and used
//! from the pack. What they need is installed below the target folder; where it cannot be had they are
//! skipped, and that is said.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::sdks::{self, Language};
use crate::{Outcome, steps};

/// Where they are, and the webhooks that both verify.
const FOLDER: &str = "sdk";

/// Builds the gateway, and runs all of it, or that of one language.
pub(crate) fn run(args: &[String]) -> Outcome<()> {
    check(&steps::gateway()?, args)
}

/// The same against a gateway that is built.
pub(crate) fn check(gateway: &Path, args: &[String]) -> Outcome<()> {
    let wanted = |name: &str| args.is_empty() || args.iter().any(|arg| arg == name);
    let all = [
        ("python", Language::Python, python as Check),
        ("typescript", Language::Locked, typescript),
    ];
    if let Some(unknown) = args.iter().find(|arg| all.iter().all(|(name, ..)| name != arg)) {
        return Err(format!("no SDK is called {unknown}: python or typescript").into());
    }
    // Side by side: each waits for processes most of the time.
    let failures: Vec<String> = std::thread::scope(|threads| {
        let begin = |(name, language, check): (&'static str, Language, Check)| {
            threads.spawn(move || {
                checked(name, language, check, gateway).map_err(|error| error.to_string())
            })
        };
        let running: Vec<_> = all.into_iter().filter(|it| wanted(it.0)).map(begin).collect();
        let ended = running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("it panicked".into())));
        ended.filter_map(Result::err).collect()
    });
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n").into()) }
}

type Check = fn(&Path, &Path) -> Outcome<()>;

/// Installs what an SDK needs, and checks it.
fn checked(name: &str, language: Language, check: Check, gateway: &Path) -> Outcome<()> {
    let kept = sdks::kept(&root().join(name), &format!("sdk-{name}"), language);
    match kept {
        Ok(place) => check(&place, gateway).map_err(|error| format!("sdk/{name}: {error}").into()),
        Err(error) => {
            println!("sdk: what sdk/{name} needs is NOT there ({error}): it is NOT checked");
            Ok(())
        }
    }
}

fn root() -> PathBuf {
    steps::root().join(FOLDER)
}

/// A command that knows where the gateway is and what webhooks are to be verified.
fn told(program: impl AsRef<std::ffi::OsStr>, folder: &Path, gateway: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(folder)
        .env("TEST_GATEWAY", gateway)
        .env("TEST_WEBHOOKS", root().join("webhooks.json"));
    command
}

fn python(program: &Path, gateway: &Path) -> Outcome<()> {
    let (folder, caches) = (root().join("python"), steps::root().join("target/sdks/sdk-python"));
    let dist = caches.join("dist");
    if dist.exists() {
        fs::remove_dir_all(&dist)?;
    }
    let packed = dist.display().to_string();
    for line in [
        vec!["../shapes.py", "--check"],
        vec!["-m", "ruff", "format", "--quiet", "--check", "."],
        vec!["-m", "ruff", "check", "--quiet", "."],
        vec!["-m", "mypy", "src", "tests", "examples"],
        vec!["-m", "pytest", "-p", "no:cacheprovider"],
        vec!["-m", "build", "--no-isolation", "--outdir", &packed, "."],
        vec!["tests/packed.py", &packed],
    ] {
        let mut command = told(program, &folder, gateway);
        command
            .args(&line)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONPATH", folder.join("src"))
            .env("MYPYPATH", "src:tests")
            .env("MYPY_CACHE_DIR", caches.join("mypy"))
            .env("RUFF_CACHE_DIR", caches.join("ruff"));
        run_one(&mut command, "python")?;
    }
    Ok(())
}

/// `folder` has the modules; the files of the tree are laid beside them, so that the tree stays clean.
fn typescript(folder: &Path, gateway: &Path) -> Outcome<()> {
    let list = steps::output(
        Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root().join("typescript")),
    )?;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() && name != "node_modules" {
            fs::remove_dir_all(&path)?;
        }
    }
    for file in list.split('\0').filter(|file| !file.is_empty()) {
        let (from, to) = (root().join("typescript").join(file), folder.join(file));
        // What is deleted but not yet committed is still listed.
        if from.exists() {
            fs::create_dir_all(to.parent().unwrap_or(folder))?;
            fs::copy(from, to)?;
        }
    }
    for script in ["check", "test", "build", "packed"] {
        run_one(told("npm", folder, gateway).args(["run", "--silent", script]), "typescript")?;
    }
    Ok(())
}

/// Runs it, and shows all that it says where it fails, else what it came to.
fn run_one(command: &mut Command, name: &str) -> Outcome<()> {
    let output = command.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let more = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?} failed ({}):\n{said}{more}", output.status).into());
    }
    let is_sum =
        |line: &&str| ["passed", "ℹ pass", "ℹ fail", "packed:"].iter().any(|it| line.contains(it));
    for line in said.lines().filter(is_sum).filter(|line| !line.starts_with('✔')) {
        println!("sdk: {name}: {line}");
    }
    Ok(())
}
