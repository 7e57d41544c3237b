//! The binary of packages, built so that it is the same wherever it is built.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{NAME, epoch, hash};
use crate::{Outcome, steps};

/// Builds the sources in `source`, and gives the binary. No path of this machine gets into it.
pub(super) fn build(source: &Path) -> Outcome<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo"),
        PathBuf::from,
    );
    let names = [(source.to_owned(), "/onceward"), (home, "/cargo")];
    let for_rust =
        names.iter().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
    let for_c = names.iter().map(|(from, to)| format!("-ffile-prefix-map={}={to}", from.display()));
    let joined = |flags: Vec<String>, by: &str| OsString::from(flags.join(by));
    let mut cargo = Command::new(steps::cargo_program());
    cargo.args(["build", "--locked", "--profile", "dist", "--package", "onceward-server"]);
    cargo.args(["--target-dir", "target"]).current_dir(source);
    // Of several flags, also where one of them has a space.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", joined(for_rust.collect(), "\u{1f}"));
    cargo.env("CFLAGS", joined(for_c.collect(), " "));
    // A C compiler takes its `__DATE__` and `__TIME__` from it, too.
    cargo.env("SOURCE_DATE_EPOCH", epoch(source)?);
    steps::succeed(&mut cargo)?;
    let binary = source.join("target/dist").join(NAME);
    unbreakable(&binary)?;
    Ok(binary)
}

/// The promises of a build for tests can be broken, where the environment says so; those of what is handed out
/// cannot.
fn unbreakable(binary: &Path) -> Outcome<()> {
    const VARIABLE: &[u8] = b"TEST_SABOTAGE";
    if fs::read(binary)?.windows(VARIABLE.len()).any(|bytes| bytes == VARIABLE) {
        return Err(format!("{} was built to be sabotaged", binary.display()).into());
    }
    Ok(())
}

/// Builds the last commit in two folders of different names, and compares.
pub(crate) fn reproduce() -> Outcome<()> {
    let root = steps::root();
    let base = root.join("target/reproduce");
    if base.exists() {
        fs::remove_dir_all(&base)?;
    }
    // Named once: the first build takes minutes, and somebody may commit meanwhile.
    let mut head = Command::new("git");
    let commit = steps::output(head.args(["rev-parse", "HEAD"]).current_dir(&root))?;
    let mut hashes = Vec::new();
    for name in ["one", "another/and-deeper"] {
        let folder = base.join(name);
        fs::create_dir_all(&folder)?;
        steps::check_out(commit.trim(), &folder)?;
        let hash = hash(&build(&folder)?)?;
        println!("{hash}  {name}");
        hashes.push(hash);
    }
    if hashes.windows(2).all(|pair| pair[0] == pair[1]) {
        fs::remove_dir_all(&base)?;
        return Ok(());
    }
    Err(format!(
        "the two builds differ\nmend: compare them (diffoscope {0}/one/target/dist/{NAME} {0}/another/and-deeper/target/dist/{NAME}); a path or a time got into them",
        base.display()
    )
    .into())
}
