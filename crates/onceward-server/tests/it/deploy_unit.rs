//! The systemd unit: systemd reads it, it leaves the process little, and all that the process needs.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use onceward_proof::figures::tell;
use rustix::process::{Signal, getuid};

use crate::crash_world::can_trace;
use crate::world::{BINARY, World};

/// The most exposure that is let pass, in tenths as systemd counts.
const EXPOSURE_MAX: u32 = 15;

fn deployed(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(name)
}

/// Systemd's own reader of units, where it is installed.
fn analyze(arguments: &[&str]) -> Option<Command> {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        tell("SKIPPED, no unit is read: there is no systemd-analyze (Debian: systemd)");
        return None;
    }
    let mut command = Command::new("systemd-analyze");
    command.args(arguments);
    Some(command)
}

#[test]
fn systemd_reads_the_units_without_complaint() {
    let world = World::new();
    let Some(mut verify) = analyze(&["verify", "--man=no"]) else { return };
    // It looks whether the program is there: here it is elsewhere.
    for name in ["onceward.service", "onceward.socket"] {
        let unit = std::fs::read_to_string(deployed("systemd").join(name)).unwrap();
        world.write(name, &unit.replace("/usr/bin/onceward", BINARY));
        verify.arg(world.path(name));
    }
    let output = verify.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

#[test]
fn the_unit_leaves_little_to_be_exposed() {
    let most = EXPOSURE_MAX.to_string();
    let flags = ["security", "--offline=true", "--no-pager", "--threshold", &most];
    let Some(mut security) = analyze(&flags) else { return };
    let output = security.arg(deployed("systemd/onceward.service")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// The system calls of a set, sets within it taken apart.
fn calls_of(set: &str, all: &mut BTreeSet<String>) {
    let mut listing = Command::new("systemd-analyze");
    let output = listing.args(["syscall-filter", "--no-pager", set]).output().unwrap();
    for line in String::from_utf8_lossy(&output.stdout).lines().skip(1) {
        match line.trim() {
            "" => {}
            comment if comment.starts_with('#') => {}
            inner if inner.starts_with('@') => calls_of(inner, all),
            call => drop(all.insert(call.to_owned())),
        }
    }
}

#[test]
fn the_unit_lets_it_make_the_system_calls_that_it_makes() {
    if analyze(&[]).is_none() || !can_trace() {
        return;
    }
    let unit = std::fs::read_to_string(deployed("systemd/onceward.service")).unwrap();
    let (mut allowed, mut denied) = (BTreeSet::new(), BTreeSet::new());
    for filter in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (sets, into) = match filter.strip_prefix('~') {
            Some(sets) => (sets, &mut denied),
            None => (filter, &mut allowed),
        };
        sets.split(' ').for_each(|set| calls_of(set, into));
    }
    assert!(allowed.len() > 200 && denied.contains("setuid"), "the sets were read");
    let world = World::new();
    let trace = world.path("trace");
    let plain = world.command(&["serve", "--listen", "127.0.0.1:0"]);
    let mut command = Command::new("strace");
    command.args(["-f", "-D", "-o"]).arg(&trace).arg(plain.get_program()).args(plain.get_args());
    command.current_dir(world.path(".")).env_remove("ONCEWARD_CONFIG");
    let gateway = world.serve_by(command);
    let answer =
        gateway.call("POST", "/to/demo/orders?script=503,201", &[("idempotency-key", "k")], "{}");
    assert_eq!(answer.status, 201);
    gateway.run(&["backup", "copy"]).ok();
    gateway.signal(Signal::HUP);
    gateway.log.until("the routes were read again");
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().code(), Some(0));
    // `1234 openat(AT_FDCWD, …`
    let trace = std::fs::read_to_string(trace).unwrap();
    let called = trace.lines().filter_map(|line| {
        let name = line.split_once(' ')?.1.trim_start().split_once('(')?.0;
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_').then_some(name)
    });
    let called: BTreeSet<_> = called.collect();
    assert!(called.contains("fdatasync") && called.len() > 20, "{called:?}");
    let refused = |call: &&str| !allowed.contains(*call) || denied.contains(*call);
    // SQLite gives its files to their folder's owner where it is root, and there alone.
    let refused = |call: &&str| refused(call) && !(getuid().is_root() && *call == "fchown");
    let missed: Vec<_> = called.into_iter().filter(refused).collect();
    assert_eq!(missed, Vec::<&str>::new());
}
