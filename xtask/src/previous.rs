//! The release before this one, for tests of an upgrade.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;
use crate::steps::{cargo_program, check_out, root, succeed};

/// What it was built from. Nothing is released yet: it is a commit whose ledgers are older than the
/// newest migrations of both stores.
const COMMIT: &str = "7bb669a";

/// Its binary, built where it is not there yet; nothing where that cannot be done, which is told.
pub(crate) fn find_or_build() -> Option<PathBuf> {
    let folder = root().join("target/previous");
    let binary = folder.join(format!("onceward-{COMMIT}"));
    if binary.exists() {
        println!("release before: {}", binary.display());
        return Some(binary);
    }
    match build(&folder, &binary) {
        Ok(()) => Some(binary),
        Err(error) => {
            println!(
                "release before: tests of an upgrade are skipped: {error}\nmend: fetch the whole history (git fetch --unshallow)"
            );
            None
        }
    }
}

fn build(folder: &Path, binary: &Path) -> Outcome<()> {
    println!("release before: commit {COMMIT} is built, once");
    let tree = folder.join("tree");
    // What an earlier try left.
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    fs::create_dir_all(&tree)?;
    check_out(COMMIT, &tree)?;
    // Beside a test of the workspace, what it depends on has the features that our own tests need, too: it is
    // built once for both.
    let mut cargo = Command::new(cargo_program());
    cargo.current_dir(&tree).env("CARGO_TARGET_DIR", root().join("target"));
    cargo.env("CARGO_INCREMENTAL", "0").args(["build", "--locked", "--quiet", "--workspace"]);
    succeed(cargo.args(["--bin", "onceward", "--test", "worlds"]))?;
    fs::copy(root().join("target/debug/onceward"), binary)?;
    fs::remove_dir_all(tree)?;
    Ok(())
}
