//! Our own SDKs: linted, type-checked, tested against the gateway that was built here, packed, and used
//! from the pack. What they need is installed below the target folder; where it cannot be had they are
//! skipped, and that is said.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Outcome, sdks, steps};

/// Where they are, and what both are held to.
const FOLDER: &str = "sdk";

/// Runs all of it, or that of one language.
pub(crate) fn run(args: &[String]) -> Outcome<()> {
    let wanted = |language: &str| args.is_empty() || args.iter().any(|arg| arg == language);
    if let Some(unknown) = args.iter().find(|arg| !["python", "typescript"].contains(&arg.as_str()))
    {
        return Err(format!("no SDK is called {unknown}: python or typescript").into());
    }
    steps::cargo(&["build", "--locked", "-p", "onceward-server"], &[])?;
    if wanted("python") {
        match sdks::kept(&root().join("python"), "sdk-python", sdks::Language::Python) {
            Ok(program) => python(&program)?,
            Err(error) => println!("sdk: NO Python ({error}): its SDK is NOT checked"),
        }
    }
    if wanted("typescript") {
        match sdks::kept(&root().join("typescript"), "sdk-typescript", sdks::Language::Locked) {
            Ok(folder) => typescript(&folder)?,
            Err(error) => println!("sdk: NO node ({error}): the SDK in TypeScript is NOT checked"),
        }
    }
    Ok(())
}

fn root() -> PathBuf {
    steps::root().join(FOLDER)
}

/// A command that knows where the gateway is and what webhooks are to be verified.
fn told(program: impl AsRef<std::ffi::OsStr>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(folder)
        .env("ONCEWARD_BINARY", steps::root().join("target/debug/onceward"))
        .env("ONCEWARD_WEBHOOKS", root().join("webhooks.json"));
    command
}

fn python(program: &Path) -> Outcome<()> {
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
        let mut command = told(program, &folder);
        command
            .args(&line)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONPATH", folder.join("src"))
            .env("MYPYPATH", "src:tests")
            .env("MYPY_CACHE_DIR", caches.join("mypy"))
            .env("RUFF_CACHE_DIR", caches.join("ruff"));
        quietly(&mut command, line.contains(&"build"))?;
    }
    Ok(())
}

/// `folder` has the modules; the files of the tree are laid beside them, so that the tree stays clean.
fn typescript(folder: &Path) -> Outcome<()> {
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
    for (script, is_quiet) in
        [("check", false), ("test", false), ("build", true), ("packed", false)]
    {
        quietly(told("npm", folder).args(["run", "--silent", script]), is_quiet)?;
    }
    Ok(())
}

/// Runs it, and shows what it says only where it fails or is to be heard.
fn quietly(command: &mut Command, is_quiet: bool) -> Outcome<()> {
    if is_quiet { steps::output(command).map(drop) } else { steps::succeed(command) }
}
