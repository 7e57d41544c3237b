//! The budget of a request: instructions and allocations of the hot paths, held against a file.
//!
//! Throughput says more about the machine than about the code; these figures do not, and so they
//! can be held by a merge.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use toml::Table;

use crate::steps::{cargo, root};
use crate::{Outcome, tools};

/// A build whose requests are counted.
struct Build {
    command: &'static str,
    folder: &'static str,
    budget: &'static str,
}

/// What is shipped, as fast as it is.
const RELEASE: Build = Build {
    command: "build --release --locked -p onceward-server -p onceward-bench",
    folder: "target/release",
    budget: "bench/budget.toml",
};

/// What the tests were built from: no optimiser hides what a change adds, and nothing is built once more.
const TESTS: Build = Build {
    command: "build --locked --workspace --all-targets --features onceward-server/sabotage",
    folder: "target/debug",
    budget: "bench/budget-tests.toml",
};

/// The ways that have a budget: nothing is held against the bare proxy.
const OWN: &str = "get,post,duplicate,held,accepted";

/// What is counted of each way.
const WHAT: [&str; 3] = ["instructions", "hashing", "allocations"];

/// Counts, and holds what came against the budget; `--tests` does so with the build of the tests, `--set` writes
/// what came as the budget, and all else goes to `onceward-bench count`.
pub(crate) fn run(args: &[String]) -> Outcome<()> {
    let is = |flag: &str| args.iter().any(|arg| arg == flag);
    let more = args.iter().filter(|arg| *arg != "--set" && *arg != "--tests");
    let mut more: Vec<&str> = more.map(String::as_str).collect();
    let build = if is("--tests") { &TESTS } else { &RELEASE };
    if is("--tests") && !is("--only") {
        more.extend(["--only", OWN]);
    }
    if !tools::there_or_installed("valgrind", "valgrind") {
        println!("count: NO valgrind (Debian: valgrind): SKIPPED");
        return Ok(());
    }
    let counted = counted(build, &more)?;
    let file = root().join(build.budget);
    if is("--set") {
        return set(&file, &counted);
    }
    let budget: Table = fs::read_to_string(&file)?.parse()?;
    let (text, over) = judged(&budget, &counted)?;
    print!("{text}");
    if over == 0 {
        return Ok(());
    }
    Err(format!(
        "{over} figures are over their budget in {}\nmend: see where they come from with \
         `cargo xtask count --keep target/count` and `callgrind_annotate --inclusive=yes \
         target/count/callgrind.held`; where they are worth it, `cargo xtask count --set`, and with `--tests`, \
         writes the budget anew, and the commit says what they buy",
        build.budget
    )
    .into())
}

/// Builds gateway and measuring program, and runs it.
fn counted(build: &Build, args: &[&str]) -> Outcome<Value> {
    cargo(&build.command.split(' ').collect::<Vec<_>>(), &[])?;
    let folder = root().join(build.folder);
    let mut command = Command::new(folder.join("onceward-bench"));
    command.args(["count", "--json", "--binary"]).arg(folder.join("onceward"));
    let output = command.args(args).current_dir(root()).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err("onceward-bench count failed".into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// A table of what came beside its budget, and how many figures are over it.
fn judged(budget: &Table, counted: &Value) -> Outcome<(String, usize)> {
    let mut text = format!(
        "{:<22} {:>11} {:>11} {:>7} {:>7}\n",
        "for a request", "budget", "came", "", "÷ bare"
    );
    let mut over = 0;
    let ways = counted.as_object().ok_or("what was counted is no table")?;
    for (way, figures) in ways.iter().filter(|(way, _)| !is_measure(way)) {
        for what in WHAT {
            let came = figures[what].as_f64().ok_or_else(|| format!("{way}: no {what}"))?;
            let due = number(budget, way, what)?;
            if due == 0.0 && came == 0.0 {
                continue;
            }
            // A way may have a tolerance of its own.
            let own = budget.get(way).and_then(|figures| figures.get("tolerance"));
            let own = own.and_then(|own| own.get(what)).and_then(toml::Value::as_float);
            let tolerance = own.map_or_else(|| number(budget, "tolerance", what), Ok)?;
            let change = came / due - 1.0;
            let verdict = if change > tolerance {
                over += 1;
                "OVER"
            } else if change < -tolerance {
                "the budget can be lowered: cargo xtask count --set"
            } else {
                ""
            };
            let _ = writeln!(
                text,
                "{way:<10} {what:<12} {due:>8.0} {came:>11.0} {:>+6.1}% {:>7} {verdict}",
                change * 100.0,
                ratio(counted, way, what, came),
            );
        }
    }
    Ok((text, over))
}

/// The bare proxy is what the others are measured by, and has no budget.
fn is_measure(way: &str) -> bool {
    way.starts_with("bare-")
}

/// How many times what the bare proxy needs for the same request.
fn ratio(counted: &Value, way: &str, what: &str, came: f64) -> String {
    let bare = match way {
        "start" => return String::new(),
        "get" => "bare-get",
        _ => "bare-post",
    };
    let bare = counted[bare][what].as_f64().filter(|bare| *bare > 0.0);
    bare.map_or_else(String::new, |bare| format!("{:.2}", came / bare))
}

fn number(budget: &Table, way: &str, what: &str) -> Outcome<f64> {
    let value = budget.get(way).and_then(|figures| figures.get(what));
    let number =
        value.and_then(|value| value.as_float().or_else(|| Some(value.as_integer()? as f64)));
    number.ok_or_else(|| {
        format!("the budget has no {way}.{what}\nmend: cargo xtask count --set").into()
    })
}

/// Writes what came as the budget; what was not counted stays.
fn set(file: &Path, counted: &Value) -> Outcome<()> {
    let mut budget: Table =
        fs::read_to_string(file).unwrap_or_default().parse().unwrap_or_default();
    let ways = counted.as_object().ok_or("what was counted is no table")?;
    for (way, figures) in ways.iter().filter(|(way, _)| !is_measure(way)) {
        let place = budget.entry(way).or_insert_with(|| Table::new().into());
        let table = place.as_table_mut().ok_or_else(|| format!("{way} is no table"))?;
        for what in WHAT {
            let came = figures[what].as_f64().ok_or_else(|| format!("{way}: no {what}"))?;
            table.insert(what.to_owned(), rounded(came).into());
        }
    }
    fs::write(file, written(&budget)?)?;
    println!("written: {}", file.display());
    Ok(())
}

/// Three digits: the rest is chance.
fn rounded(figure: f64) -> i64 {
    let unit = 10_f64.powf((figure.max(1.0).log10().floor() - 2.0).max(0.0));
    ((figure / unit).round() * unit) as i64
}

fn written(budget: &Table) -> Outcome<String> {
    let about = "\
# What a request may cost, and a start: instructions without those of SHA-256, these, and calls of the allocators.
# budget.toml is of the release (`cargo xtask count`), budget-tests.toml of what the tests are built from, which every
# merge is held against (`cargo xtask count --tests`); `--set` writes them anew. `tolerance` is the share by which a figure may be above.
";
    Ok(format!("{about}\n{}", toml::to_string(budget)?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn budget() -> Table {
        "[tolerance]\ninstructions = 0.1\nhashing = 0.1\nallocations = 0.05\n\
         [held]\ninstructions = 100000\nhashing = 0\nallocations = 200\n"
            .parse()
            .unwrap()
    }

    fn counted(instructions: f64, allocations: f64) -> Value {
        json!({
            "held": {"instructions": instructions, "hashing": 0.0, "allocations": allocations},
            "bare-post": {"instructions": 20000.0, "hashing": 0.0, "allocations": 7.0},
        })
    }

    #[test]
    fn what_is_above_its_budget_and_the_tolerance_is_over() {
        let over = |counted| judged(&budget(), &counted).unwrap().1;
        assert_eq!(over(counted(109_000.0, 209.0)), 0);
        assert_eq!(over(counted(111_000.0, 209.0)), 1);
        assert_eq!(over(counted(111_000.0, 211.0)), 2);
    }

    #[test]
    fn what_is_far_below_says_that_the_budget_can_be_lowered() {
        let (text, over) = judged(&budget(), &counted(80_000.0, 200.0)).unwrap();
        assert_eq!((over, text.matches("can be lowered").count()), (0, 1), "{text}");
        assert!(text.contains("4.00"), "80,000 is four times the bare proxy's: {text}");
    }

    #[test]
    fn a_way_without_a_budget_is_refused_with_its_mend() {
        let counted = json!({"other": {"instructions": 1.0, "hashing": 0.0, "allocations": 1.0}});
        let said = judged(&budget(), &counted).unwrap_err().to_string();
        assert!(said.contains("other.instructions") && said.contains("--set"), "{said}");
    }

    #[test]
    fn a_budget_that_is_written_has_three_digits_and_can_be_read() {
        assert_eq!(rounded(453_210.7), 453_000);
        assert_eq!(rounded(7.02), 7);
        assert_eq!(rounded(0.0), 0);
        assert_eq!(written(&budget()).unwrap().parse::<Table>().unwrap(), budget());
    }
}
