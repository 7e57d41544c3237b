//! What was found, as data and as a table for the docs.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use super::{Found, Notice, Run};
use crate::{Outcome, steps};

/// Writes `target/proof/sabotage.json` and, beside it, the same as a table.
pub(super) fn write(found: &[Found]) -> Outcome<()> {
    let said = |program: &str, args: &[&str]| {
        steps::output(Command::new(program).args(args).current_dir(steps::root()))
    };
    let date = said("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"])?;
    let commit = said("git", &["describe", "--always", "--dirty", "--abbrev=12"])?;
    let folder = steps::root().join("target/proof");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("sabotage.json"), data(found, date.trim(), commit.trim()))?;
    fs::write(folder.join("sabotage.md"), table(found))?;
    Ok(())
}

/// Names, tests and dates are words of ours, with nothing in them to escape.
fn data(found: &[Found], date: &str, commit: &str) -> String {
    let is_caught = |found: &&Found| found.all(|notice| *notice == Notice::Caught);
    let run = |name: &str, run: &Run| {
        format!(
            "{{\"name\":\"{name}\",\"caught\":{},\"by\":\"{}\",\"seconds\":{:.2}}}",
            run.notice == Notice::Caught,
            run.test,
            run.took.as_secs_f64()
        )
    };
    let runs: Vec<String> = found
        .iter()
        .flat_map(|found| found.runs.iter().map(move |one| run(found.row.name, one)))
        .collect();
    format!(
        "{{\"date\":\"{date}\",\"commit\":\"{commit}\",\"sabotages\":{},\"caught\":{},\"runs\":[\n{}\n]}}\n",
        found.len(),
        found.iter().filter(is_caught).count(),
        runs.join(",\n")
    )
}

fn table(found: &[Found]) -> String {
    let mut text =
        String::from("| the promise | sabotage | noticed by, after |\n| --- | --- | --- |\n");
    for Found { row, runs } in found {
        let noticed: Vec<String> = runs
            .iter()
            .map(|run| match run.notice {
                Notice::Caught => {
                    format!("`{}` {:.2} s{}", run.test, run.took.as_secs_f64(), run.place())
                }
                Notice::Skipped => format!("`{}` was skipped", run.test),
                Notice::Missed(_) => format!("`{}` **missed it**", run.test),
            })
            .collect();
        // Writing into a string does not fail.
        let _ = writeln!(text, "| {} | `{}` | {} |", row.promise, row.name, noticed.join("<br>"));
    }
    text
}
