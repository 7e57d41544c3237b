//! Which commit a release is built from, for `onceward --version --json`.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=ONCEWARD_COMMIT");
    // Whoever builds from an archive may say it. Whoever develops would build anew at each commit for it.
    let said = std::env::var("ONCEWARD_COMMIT").ok().filter(|said| !said.is_empty());
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if let Some(commit) = said.or_else(|| is_release.then(head).flatten()) {
        println!("cargo::rustc-env=ONCEWARD_COMMIT={commit}");
    }
}

/// The commit of the repository that these sources are of; none where they lie within another's.
fn head() -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().ok()?;
    let told = git(&root, &["rev-parse", "--show-toplevel", "--absolute-git-dir", "HEAD"])?;
    let mut told = told.lines();
    let (top, folder, commit) = (told.next()?, told.next()?, told.next()?);
    if Path::new(top).canonicalize().ok()? != root {
        return None;
    }
    // Both change when another commit is checked out or made.
    for file in ["HEAD", "logs/HEAD"] {
        println!("cargo::rerun-if-changed={folder}/{file}");
    }
    Some(commit.to_owned())
}

fn git(folder: &Path, words: &[&str]) -> Option<String> {
    let said = Command::new("git").args(words).current_dir(folder).output().ok()?;
    said.status.success().then(|| String::from_utf8(said.stdout).ok()).flatten()
}
