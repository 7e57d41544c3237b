//! What is handed out: the Debian package, the list of what is in the binary, and the proof that a build
//! can be repeated. Their files lie in `target/package`.

pub(crate) mod debian_package;
mod dist;
pub(crate) mod sbom;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Outcome, steps};

pub(crate) use dist::reproduce;

/// The binary, and the package that it is of.
const NAME: &str = "onceward";

/// Where what is made lies.
fn folder(root: &Path) -> Outcome<PathBuf> {
    let folder = root.join("target/package");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// The date of everything that is made, in seconds: what `SOURCE_DATE_EPOCH` says, else the commit's.
fn epoch(root: &Path) -> Outcome<String> {
    if let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH") {
        return Ok(epoch);
    }
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"]).current_dir(root);
    Ok(steps::output(&mut git)?.trim().to_owned())
}

/// A date as `date` writes it.
fn dated(epoch: &str, flags: &[&str]) -> Outcome<String> {
    let mut date = Command::new("date");
    date.args(["-u", "-d", &format!("@{epoch}")]).args(flags).env("LC_ALL", "C");
    Ok(steps::output(&mut date)?.trim().to_owned())
}

/// SHA-256 of a file, in hexadecimal.
fn hash(file: &Path) -> Outcome<String> {
    let said = steps::output(Command::new("sha256sum").arg(file))?;
    Ok(said.split_whitespace().next().unwrap_or_default().to_owned())
}
