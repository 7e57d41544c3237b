//! The SDKs whose callers must not notice a gateway, as their makers ship them, and what the examples
//! import: in folders of their own below the target folder. Where they cannot be had, their tests are
//! skipped, and say so.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::debian::{self, on_path};
use crate::{Outcome, steps};

/// The files that say which versions are wanted.
const PACKAGES: &str = "requirements.txt";
const MODULES: &str = "package.json";
const LOCK: &str = "package-lock.json";

/// What the tests are told: the variable, and the program with the SDKs.
pub(crate) fn find_or_install() -> Vec<(&'static str, OsString)> {
    let mut found = Vec::new();
    let wanted = steps::root().join("crates/onceward-server/tests/sdks");
    for (variable, list, name, install) in [
        ("TEST_SDKS_PYTHON", PACKAGES, "python", python as fn(&Path, &Path) -> Outcome<PathBuf>),
        ("TEST_SDKS_NODE", MODULES, "node", node),
    ] {
        match kept_of(&wanted, list, name, install) {
            Ok(place) => found.push((variable, place.into_os_string())),
            Err(error) => println!("sdks: NO {name} ({error}): its tests are SKIPPED"),
        }
    }
    found
}

/// An interpreter that has what the tests below `name` want, in an environment of its own.
pub(crate) fn python_with(name: &str) -> Outcome<PathBuf> {
    kept_of(&steps::root().join("crates/onceward-server/tests").join(name), PACKAGES, name, python)
}

/// The folder in which modules are found that `wanted` lists, kept under `name`.
pub(crate) fn node_with(wanted: &Path, name: &str) -> Outcome<PathBuf> {
    kept_of(wanted, MODULES, name, node)
}

/// How what is wanted is listed, and installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    /// `requirements.txt`: an interpreter that has it.
    Python,
    /// `package-lock.json`: a folder that has exactly what is locked.
    Locked,
}

/// What `wanted` lists, kept under `name`.
pub(crate) fn kept(wanted: &Path, name: &str, language: Language) -> Outcome<PathBuf> {
    match language {
        Language::Python => kept_of(wanted, PACKAGES, name, python),
        Language::Locked => kept_of(wanted, LOCK, name, locked),
    }
}

/// What `list` in `wanted` names, installed anew where the wanted versions are others.
fn kept_of(
    wanted: &Path,
    list: &str,
    name: &str,
    install: fn(&Path, &Path) -> Outcome<PathBuf>,
) -> Outcome<PathBuf> {
    let folder = steps::root().join("target/sdks").join(name);
    let list = wanted.join(list);
    let (list, stamp) = (fs::read_to_string(list)?, folder.join("installed"));
    let place = folder.join("place");
    if fs::read_to_string(&stamp).is_ok_and(|there| there == list)
        && let Ok(place) = fs::read_to_string(&place)
        && Path::new(&place).exists()
    {
        return Ok(place.into());
    }
    println!("sdks: installing those for {name} into {}", folder.display());
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let installed = install(wanted, &folder)?;
    fs::write(place, installed.display().to_string())?;
    fs::write(stamp, list)?;
    Ok(installed)
}

/// The interpreter of an environment that has them.
fn python(wanted: &Path, folder: &Path) -> Outcome<PathBuf> {
    need("python3", &["python3", "python3-venv"])?;
    let environment = folder.join("environment");
    let made = steps::output(Command::new("python3").args(["-m", "venv"]).arg(&environment));
    if made.is_err() {
        // Debian's python3 has no way to make one by itself.
        debian::install(&["python3-venv"])?;
        steps::output(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
    }
    let program = environment.join("bin/python");
    steps::output(
        Command::new(&program)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
            .arg(wanted.join(PACKAGES)),
    )?;
    Ok(program)
}

/// The folder in which modules are found.
fn node(wanted: &Path, folder: &Path) -> Outcome<PathBuf> {
    need("node", &["nodejs", "npm"])?;
    need("npm", &["npm"])?;
    fs::copy(wanted.join(MODULES), folder.join(MODULES))?;
    steps::output(
        Command::new("npm")
            .args(["install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"])
            .current_dir(folder),
    )?;
    Ok(folder.to_owned())
}

/// The folder with the modules that a lock names, as the lock has them.
fn locked(wanted: &Path, folder: &Path) -> Outcome<PathBuf> {
    need("node", &["nodejs", "npm"])?;
    need("npm", &["npm"])?;
    let place = folder.join("tree");
    fs::create_dir_all(&place)?;
    for file in [MODULES, LOCK] {
        fs::copy(wanted.join(file), place.join(file))?;
    }
    steps::output(
        Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
            .current_dir(&place),
    )?;
    Ok(place)
}

fn need(program: &str, packages: &[&str]) -> Outcome<()> {
    if on_path(program).is_some() {
        return Ok(());
    }
    println!("sdks: installing {} with apt-get", packages.join(", "));
    debian::install(packages)
}
