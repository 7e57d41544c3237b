//! `onceward chaos`, as a sceptic meets it: its own world, its figures, its end.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::world::{Ended, World, until};

/// A small run; what is left of it would lie in the world's own folder.
fn chaos(world: &World, arguments: &[&str]) -> Ended {
    world.run(&[&["chaos"], arguments].concat())
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

#[track_caller]
fn expect_kept(report: &Value) {
    for zero in ["missing", "doubled", "differing", "given_up"] {
        assert_eq!(report[zero], 0, "{zero}: {report}");
    }
    assert_eq!(report["violations"].as_array().map(Vec::len), Some(0), "{report}");
    let metrics = report["metrics"].as_array().unwrap();
    assert!(metrics.len() >= 10, "{report}");
    for metric in metrics {
        assert_eq!(metric["gateway"], metric["counted"], "{metric}");
    }
}

#[test]
fn everything_lands_once_through_kills_and_the_naive_loop_doubles() {
    let world = World::new();
    let report =
        chaos(&world, &["--posts", "150", "--kills", "3", "--seed", "11", "--json"]).json();
    expect_kept(&report);
    assert_eq!((&report["posts"], &report["kills"]), (&150.into(), &3.into()));
    let count = |value: &Value| value.as_u64().unwrap();
    assert!(count(&report["attempts"]) > 150, "{report}");
    assert!(count(&report["replayed"]) >= 100, "{report}");
    // Whatever was done, was done once; the rest is told, and why.
    let doubts = report["in_doubt"].as_array().unwrap();
    assert!(!doubts.is_empty(), "{report}");
    let done = doubts.iter().filter(|one| one["done"] == true).count() as u64;
    assert_eq!(count(&report["effects"]), 150 - doubts.len() as u64 + done, "{report}");
    for one in doubts {
        assert!(one["operation"].as_str().unwrap().starts_with("op_"), "{one}");
        assert_eq!(one["route"], "once", "{one}");
        assert!(one["why"].as_str().unwrap().starts_with("attempt "), "{one}");
    }
    let shuffle = &report["shuffle"];
    assert_eq!((&shuffle["events"], &shuffle["deliveries"]), (&30.into(), &90.into()));
    assert_eq!(count(&shuffle["duplicates"]), count(&shuffle["calls"]) - 30, "{report}");
    assert_eq!((&shuffle["missing"], &shuffle["doubled"]), (&0.into(), &0.into()));
    // The same oracle, over the same load: it is not blind.
    let naive = &report["naive"];
    assert!(count(&naive["doubled"]) > 0 && count(&naive["missing"]) > 0, "{report}");
    for kind in ["refused", "lost", "cut", "slow", "duplicated", "reordered"] {
        assert!(count(&report["faults"][kind]) > 0, "{kind}: {report}");
        assert!(count(&naive["faults"][kind]) > 0, "{kind}: {report}");
    }
    assert!(is_empty(&world.path("tmp")), "something is left behind");
}

#[test]
fn cold_caches_change_no_answer_and_one_seed_is_one_plan() {
    let world = World::new();
    let run = |seed| {
        let flags = ["--posts", "25", "--kills", "0", "--seed", seed, "--cold", "--json"];
        chaos(&world, &flags).json()
    };
    let (one, same, other) = (run("5"), run("5"), run("6"));
    assert_eq!(one["plan"], same["plan"]);
    assert_ne!(one["plan"], other["plan"]);
    for report in [&one, &same, &other] {
        expect_kept(report);
        let cold = &report["cold"];
        assert!(cold["window"].as_u64().unwrap() > 10, "{cold}");
        assert!(cold["ratio"].as_f64().unwrap() > 0.0, "{cold}");
        assert_eq!(cold["sent"], 0, "{cold}");
        assert_eq!(cold["cold"]["differing"].as_array().map(Vec::len), Some(0), "{cold}");
    }
}

#[test]
fn every_hop_of_every_operation_is_logged_with_its_key() {
    let world = World::new();
    let keep = world.path("kept");
    let flags = ["--posts", "40", "--kills", "1", "--seed", "8", "--json", "--keep"];
    let report = chaos(&world, &[&flags[..], &[keep.to_str().unwrap()]].concat()).json();
    expect_kept(&report);
    let mut logs: Vec<_> = std::fs::read_dir(&keep)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    logs.sort();
    assert_eq!(logs.len(), 3, "one for each life");
    let mut keys: BTreeMap<String, String> = BTreeMap::new();
    let mut told: Vec<Value> = Vec::new();
    for log in &logs {
        told.clear();
        for line in std::fs::read_to_string(log).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let Some(operation) = line["operation"].as_str() else { continue };
            let key = line["key"].as_str().unwrap_or_default().to_owned();
            assert!(key.starts_with("post-") || key.starts_with("event-"), "{line}");
            let known = keys.entry(operation.to_owned()).or_insert_with(|| key.clone());
            assert_eq!(*known, key, "{line}");
            told.push(line);
        }
    }
    // The last life is whole: each of its operations has each of its hops.
    let of = |key: &str, message: &str| {
        let is_it = |line: &&Value| line["key"] == key && line["message"] == message;
        told.iter().filter(is_it).collect::<Vec<_>>()
    };
    let events: BTreeSet<&str> = told
        .iter()
        .filter_map(|line| line["key"].as_str())
        .filter(|key| key.starts_with("event-"))
        .collect();
    assert_eq!(events.len() as u64, report["shuffle"]["events"].as_u64().unwrap());
    let rests = ["done", "done after retries", "in doubt: a person has to resolve it"];
    for key in &events {
        assert_eq!(of(key, "remembered").len(), 1, "{key}");
        // Each is told once it is on disk, when the next may be under way already.
        let mut attempts: Vec<_> =
            of(key, "attempted").iter().map(|line| line["attempt"].as_u64().unwrap()).collect();
        attempts.sort_unstable();
        assert!(
            !attempts.is_empty() && attempts.iter().copied().eq(1..=attempts.len() as u64),
            "{key}: {attempts:?}"
        );
        let rested: usize = rests.iter().map(|rest| of(key, rest).len()).sum();
        assert_eq!(rested, 1, "{key}");
        assert!(of(key, "duplicate").len() >= 2, "{key}");
    }
    let metric = |name: &str| {
        let metrics = report["metrics"].as_array().unwrap();
        let is_it = |metric: &&Value| metric["metric"].as_str().unwrap().starts_with(name);
        metrics.iter().filter(is_it).map(|metric| metric["counted"].as_u64().unwrap()).sum::<u64>()
    };
    let lines =
        |message: &str| told.iter().filter(|line| line["message"] == message).count() as u64;
    assert_eq!(lines("attempted"), metric("onceward_attempts_total"));
    let at_rest = metric("onceward_duplicates_total{");
    assert_eq!(lines("duplicate"), metric("onceward_duplicates_total") - at_rest);
}

#[test]
fn whoever_ends_it_half_way_finds_nothing_left() {
    let world = World::new();
    let (chaos, _, err) =
        world.start(&["chaos", "--posts", "5000", "--kills", "20", "--seed", "1"]);
    let folder = until("its folder is there", || {
        let mut entries = std::fs::read_dir(world.path("tmp")).unwrap();
        let folder = entries.next()?.unwrap().path();
        folder.join("data/ledger.db").exists().then_some(folder)
    });
    let id = until("the gateway runs", || process_with(&folder));
    chaos.signal(Signal::INT);
    assert_eq!(chaos.ended().code(), Some(130), "{:?}", err.until("posts"));
    assert!(is_empty(&world.path("tmp")), "its folder is left");
    assert!(!Path::new(&format!("/proc/{id}")).exists(), "its gateway still runs");
}

/// The gateway that runs on `folder`.
fn process_with(folder: &Path) -> Option<u32> {
    let folder = folder.to_str().unwrap();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(|id: &u32| {
        let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(folder)
    })
}

#[test]
fn what_cannot_be_asked_for_is_refused_with_the_mend() {
    let world = World::new();
    world.write("there", "");
    let there = chaos(&world, &["--keep", "there"]).failed(2);
    assert!(there.contains("there is there already") && there.contains("help: "), "{there}");
    for flags in [&["--posts", "0"][..], &["--path", "/x"], &["--route", "a", "--cold"]] {
        chaos(&world, flags).failed(2);
    }
}
