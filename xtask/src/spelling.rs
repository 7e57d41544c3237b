//! Spelling of all papers, by `typos`, which knows misspellings and no words: what it does not know
//! it lets be. It comes as a wheel in seconds; where it cannot be had the step says so, and is skipped.

use std::process::Command;

use crate::{Outcome, sdks, steps};

/// Below the tests of the server: the version that is wanted.
const NAME: &str = "spelling";

/// Looks through every Markdown file.
pub(crate) fn run() -> Outcome<()> {
    let python = match sdks::python_with(NAME) {
        Ok(python) => python,
        Err(error) => {
            println!("spelling: SKIPPED, typos cannot be had: {error}");
            return Ok(());
        }
    };
    let root = steps::root();
    let list = ["ls-files", "--cached", "--others", "--exclude-standard", "*.md"];
    let papers = steps::output(Command::new("git").args(list).current_dir(&root))?;
    let mut typos = Command::new(python.with_file_name("typos"));
    typos
        .arg("--format")
        .arg("brief")
        .args(papers.lines().filter(|paper| root.join(paper).is_file()));
    steps::succeed(typos.current_dir(&root))?;
    println!("spelling: {} papers", papers.lines().count());
    Ok(())
}
