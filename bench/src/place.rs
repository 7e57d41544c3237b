//! Which binary is measured, and where its ledgers are put.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;
use crate::compare::say;

/// The folder for ledgers: the one that was asked for, or that of builds, which is on a disk; a
/// temporary folder may be memory, where a sync costs nothing.
pub(crate) fn data(asked: Option<&Path>) -> Outcome<PathBuf> {
    let data = asked.map_or_else(target, |data| Ok(data.to_owned()))?;
    std::fs::create_dir_all(&data)?;
    Ok(data)
}

/// The gateway: the one that was asked for, or a build of this tree.
pub(crate) fn binary(asked: Option<&Path>) -> Outcome<PathBuf> {
    asked.map_or_else(build, |binary| Ok(binary.to_owned()))
}

/// The folder that this program was built into.
fn target() -> Outcome<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(2).ok_or("this program is in no target folder")?;
    Ok(target.to_owned())
}

fn build() -> Outcome<PathBuf> {
    let target = target()?;
    say("building onceward (cargo build --release --locked -p onceward-server)");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--release", "--locked", "-p", "onceward-server", "--target-dir"])
        .arg(&target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()?;
    if !built.success() {
        return Err("onceward did not build".into());
    }
    Ok(target.join("release").join("onceward"))
}
