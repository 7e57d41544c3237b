//! The crash and fault suites on the release binary, one after the other, and their figures in one
//! file.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::steps::{self, cargo, output};
use crate::{Outcome, postgres, tools};

/// One test, and what makes it longer.
struct Suite {
    test: &'static str,
    /// What its lines of figures are named.
    name: &'static str,
    /// A variable, its number in a short run and in a long one.
    numbers: &'static [(&'static str, u64, u64)],
}

const fn suite(
    name: &'static str,
    test: &'static str,
    numbers: &'static [(&'static str, u64, u64)],
) -> Suite {
    Suite { test, name, numbers }
}

const CYCLES: &str = "TEST_CYCLES";

/// Always the same packages, so that they are built once.
const TEST: [&str; 9] =
    ["test", "--release", "--locked", "-p", "onceward", "-p", "onceward-server", "--test", "it"];

const SUITES: &[Suite] = &[
    suite(
        "kill",
        "crash_kill::killed_under_load_it_loses_nothing_and_does_nothing_twice",
        &[(CYCLES, 200, 1000)],
    ),
    suite(
        "kill-points",
        "crash_golden::killed_at_a_storage_call_it_loses_nothing_and_does_nothing_twice",
        &[("TEST_EVERY", 3, 1)],
    ),
    suite(
        "power-ext4",
        "crash_power::a_power_cut_loses_nothing_that_was_acknowledged_on_ext4",
        &[("TEST_CUTS", 30, 700)],
    ),
    suite(
        "power-xfs",
        "crash_power::a_power_cut_loses_nothing_that_was_acknowledged_on_xfs",
        &[("TEST_CUTS", 15, 300)],
    ),
    suite(
        "power-control",
        "crash_power::where_the_sync_does_nothing_a_power_cut_loses_what_was_acknowledged",
        &[("TEST_CONTROL_CUTS", 5, 50)],
    ),
    suite(
        "torn-writes",
        "ledger_torn::of_torn_writes_the_ledger_recovers_all_that_was_acknowledged_before",
        &[("TEST_IMAGES", 1000, 20_000)],
    ),
    suite(
        "bit-flips",
        "ledger_flips::a_flipped_bit_is_refused_or_harmless_and_never_a_wrong_answer",
        &[("TEST_FLIPS", 300, 2000)],
    ),
    suite(
        "io-errors",
        "fault_points::an_io_error_is_never_acknowledged_and_ends_the_process",
        &[("TEST_EVERY", 3, 1)],
    ),
    suite(
        "no-room",
        "fault_points::a_write_that_finds_no_room_is_refused_or_ends_the_process_and_loses_nothing",
        &[("TEST_EVERY", 3, 1)],
    ),
    suite("full-disk", "fault_disk::a_full_disk_refuses_new_calls_and_heals_by_itself", &[]),
    suite(
        "read-only",
        "fault_disk::a_ledger_that_became_read_only_refuses_and_ends_the_process",
        &[],
    ),
    suite(
        "descriptors",
        "fault_files::without_descriptors_nothing_is_lost_and_it_recovers_by_itself",
        &[],
    ),
    suite(
        "clock",
        "fault_clock::a_clock_that_is_set_makes_no_key_expire_and_nothing_be_sent_twice",
        &[("TEST_CLOCK_ROUNDS", 1, 10), ("TEST_SLEWS", 200, 1000)],
    ),
    suite(
        "backups",
        "crash_backup::a_backup_under_load_has_all_that_was_acknowledged_and_sends_nothing_by_itself",
        &[("TEST_BACKUPS", 5, 40)],
    ),
    suite(
        "wire-cuts",
        "fault_cut::wherever_the_wire_is_cut_nothing_is_done_twice_and_nothing_is_lost",
        &[("TEST_CUT_ROUNDS", 2, 20)],
    ),
    suite(
        "hang-ups",
        "fault_wire::a_caller_that_hangs_up_changes_nothing",
        &[("TEST_HANG_UPS", 1600, 5000)],
    ),
    suite(
        "flapping",
        "fault_flap::an_upstream_that_comes_and_goes_sees_every_call_once",
        &[("TEST_FLAPS", 50, 300)],
    ),
    suite(
        "stops",
        "fault_stop::told_to_stop_under_load_it_ends_well_and_loses_nothing",
        &[("TEST_STOPS", 8, 100)],
    ),
    suite(
        "webhooks",
        "crash_sources::killed_while_webhooks_stream_in_it_delivers_each_that_it_acknowledged_once",
        &[(CYCLES, 30, 500)],
    ),
    suite(
        "sagas",
        "sagas_kill::sagas_are_whole_though_their_gateway_is_killed_and_people_meddle",
        &[("TEST_SAGAS", 24, 200), ("TEST_KILLS", 24, 300)],
    ),
    suite(
        "sagas-postgres",
        "sagas_kill::the_same_on_a_ledger_in_postgres",
        &[("TEST_SAGAS", 12, 100), ("TEST_KILLS", 12, 150)],
    ),
    suite("down", "gates::an_upstream_that_is_down_for_long_costs_no_more_than_its_probes", &[]),
    suite(
        "recovery",
        "recovery::a_backlog_is_sent_no_faster_than_the_rate_of_its_route",
        &[("TEST_HELD", 5000, 100_000)],
    ),
    suite(
        "shuffles",
        "order::versions_in_any_order_end_with_the_newest_and_none_is_sent_after_a_newer_one",
        &[("TEST_SHUFFLES", 500, 10_000)],
    ),
    suite(
        "nodes-killed",
        "nodes_kill::nodes_killed_and_paused_under_load_lose_nothing_and_do_nothing_twice",
        &[("TEST_NODE_KILLS", 10, 100)],
    ),
    suite(
        "nodes-cut-off",
        "nodes_cut_off::nodes_cut_off_from_their_ledger_lose_nothing_and_do_nothing_twice",
        &[("TEST_NODE_CUTS", 8, 40)],
    ),
    suite(
        "nodes-server-away",
        "nodes_server_away::while_the_server_is_away_callers_come_back_later_and_nothing_is_lost",
        &[("TEST_SERVER_ROUNDS", 2, 25)],
    ),
    suite(
        "nodes-failover",
        "nodes_failover::nodes_follow_a_promoted_standby_and_nothing_acknowledged_is_lost",
        &[],
    ),
    suite(
        "nodes-replies-lost",
        "nodes_lost_reply::commits_whose_replies_are_lost_are_done_once_and_known",
        &[("TEST_LOST_SECONDS", 8, 60)],
    ),
    suite(
        "nodes-conflicts",
        "nodes_trouble::statements_that_lose_against_others_are_tried_again_whole",
        &[("TEST_TROUBLE_SECONDS", 6, 40)],
    ),
    suite(
        "nodes-refused",
        "nodes_trouble::a_server_that_takes_nothing_costs_no_call_and_no_node",
        &[],
    ),
    suite(
        "nodes-migrations",
        "nodes_migrate::a_migration_that_is_broken_off_is_finished_by_the_next_start",
        &[("TEST_MIGRATION_ENDS", 8, 60)],
    ),
    suite(
        "nodes-expansion",
        "nodes_migrate::nodes_from_before_and_after_an_expansion_work_side_by_side",
        &[],
    ),
];

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    cycles: Option<u64>,
    seed: Option<u64>,
    long: bool,
    only: Option<String>,
}

impl Asked {
    fn read(args: &[String]) -> Outcome<Self> {
        let mut asked = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} wants a value"));
            match arg.as_str() {
                "--cycles" => asked.cycles = Some(value()?.parse()?),
                "--seed" => asked.seed = Some(value()?.parse()?),
                "--only" => asked.only = Some(value()?.clone()),
                "--long" => asked.long = true,
                other => return Err(format!("{other} is no option of crash").into()),
            }
        }
        Ok(asked)
    }

    /// The numbers of a suite in this run.
    fn numbers(&self, suite: &Suite) -> Vec<(&'static str, u64)> {
        let mut numbers: Vec<(&str, u64)> = suite
            .numbers
            .iter()
            .map(|(name, short, long)| match self.cycles {
                Some(cycles) if *name == CYCLES => (*name, cycles),
                _ => (*name, if self.long { *long } else { *short }),
            })
            .collect();
        numbers.extend(self.seed.map(|seed| ("TEST_SEED", seed)));
        numbers
    }
}

/// Runs every suite, writes `target/proof/crash.json` and prints a table.
pub(crate) fn run(args: &[String]) -> Outcome<()> {
    let asked = Asked::read(args)?;
    tools::find_or_install();
    let server = postgres::find_or_start()?;
    let folder = steps::root().join("target/proof");
    fs::create_dir_all(&folder)?;
    cargo(&[&TEST[..], &["--no-run"]].concat(), &[])?;
    let (mut lines, mut failed) = (Vec::new(), Vec::new());
    let wanted =
        |suite: &&Suite| asked.only.as_deref().is_none_or(|only| suite.name.contains(only));
    for suite in SUITES.iter().filter(wanted) {
        println!("\n== {}", suite.name);
        let (line, passed) = run_one(suite, &asked, &folder.join("figures"), server.url())?;
        lines.push(line);
        if !passed {
            failed.push(suite.name);
        }
        // After each, so that a run that is broken off has told what it did.
        fs::write(folder.join("crash.json"), format!("[\n{}\n]\n", lines.join(",\n")))?;
    }
    print(&lines);
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", ")).into()) }
}

/// Runs one suite; gives its line of figures, and whether it passed.
fn run_one(
    suite: &Suite,
    asked: &Asked,
    figures: &PathBuf,
    server: &str,
) -> Outcome<(String, bool)> {
    // One that never was written is none that has to go.
    let _ = fs::remove_file(figures);
    let numbers = asked.numbers(suite);
    let mut environment: Vec<(&str, std::ffi::OsString)> =
        numbers.iter().map(|(name, number)| (*name, number.to_string().into())).collect();
    environment.push(("TEST_FIGURES", figures.into()));
    environment.push(("TEST_POSTGRES", server.into()));
    let args = [&TEST[..], &["--", "--exact", suite.test, "--nocapture"]].concat();
    let passed = cargo(&args, &environment).is_ok();
    let words: Vec<String> =
        numbers.iter().map(|(name, number)| format!("{name}={number}")).collect();
    let command = format!("{} cargo {}", words.join(" "), args.join(" "));
    let about = format!(
        "\"command\":\"{}\",\"commit\":\"{}\",\"date\":\"{}\",\"passed\":{passed}",
        command.trim(),
        commit()?,
        output(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]))?.trim()
    );
    let told = fs::read_to_string(figures).unwrap_or_default();
    let told = told.lines().next_back().and_then(|line| line.strip_suffix('}'));
    // Without figures it was skipped, or broke before it had any.
    let told = told.map_or_else(
        || format!("{{\"suite\":\"{}\",\"skipped\":{passed}", suite.name),
        str::to_owned,
    );
    Ok((format!("{told},{about}}}"), passed))
}

/// The commit, and whether something was changed since.
pub(crate) fn commit() -> Outcome<String> {
    let git = |args: &[&str]| output(Command::new("git").args(args).current_dir(steps::root()));
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?.trim().to_owned();
    let is_clean = git(&["status", "--porcelain"])?.trim().is_empty();
    Ok(if is_clean { commit } else { commit + "+" })
}

/// A member of a flat line: no text in it has a comma, but for the command, which comes late.
fn member<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(&format!("\"{name}\":"))?;
    Some(rest.split([',', '}']).next().unwrap_or_default().trim_matches('"'))
}

fn print(lines: &[String]) {
    println!("\n{:<18} {:>8} {:>10}  counted", "suite", "seconds", "violations");
    for line in lines {
        let of = |name: &str| member(line, name).unwrap_or("-");
        let counted = line
            .split_once("\"violations\":")
            .and_then(|(_, rest)| rest.split_once(','))
            .and_then(|(_, rest)| rest.split_once("\"command\""))
            .map_or_else(|| "SKIPPED".to_owned(), |(counted, _)| counted.replace('"', ""));
        let counted = counted.trim_end_matches(',').replace(',', ", ").replace(':', " ");
        let verdict = if of("passed") == "true" { "" } else { "FAILED " };
        println!(
            "{:<18} {:>8} {:>10}  {verdict}{counted}",
            of("suite"),
            of("seconds"),
            of("violations")
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_are_those_of_kills_and_the_rest_is_short_or_long() {
        let words = ["--cycles", "7", "--seed", "3", "--long"].map(str::to_owned);
        let asked = Asked::read(&words).unwrap();
        assert_eq!(asked.numbers(&SUITES[0]), [(CYCLES, 7), ("TEST_SEED", 3)]);
        assert_eq!(asked.numbers(&SUITES[1]), [("TEST_EVERY", 1), ("TEST_SEED", 3)]);
        assert!(Asked::read(&["--nonsense".to_owned()]).is_err());
    }

    #[test]
    fn a_member_of_a_line_is_found() {
        let line = "{\"suite\":\"kill\",\"seconds\":1.5,\"passed\":true}";
        assert_eq!(member(line, "suite"), Some("kill"));
        assert_eq!(member(line, "seconds"), Some("1.5"));
        assert_eq!(member(line, "passed"), Some("true"));
        assert_eq!(member(line, "kills"), None);
    }
}
