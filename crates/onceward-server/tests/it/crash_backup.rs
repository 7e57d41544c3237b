//! Backups of a ledger under load, each restored elsewhere: what was acknowledged before a backup
//! began is in it, and a restored ledger sends nothing until it is released.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::crash_load::{Load, exchange};
use crate::crash_world::{Gateway, World, clean, until};
use crate::world::BINARY;
use onceward::store::sqlite::SqliteStore;
use onceward_proof::chance::Chance;
use onceward_proof::check::{Ask, Log, Told};
use onceward_proof::figures::{Figures, number, seed};

/// Operations that wait, so that a restored ledger would have something to send.
const WAITING: usize = 5;

async fn order(gateway: &Gateway, path: &str, body: &Value) -> Value {
    let json = [("content-type", "application/json")];
    let body = body.to_string();
    let answer = gateway.line().await.ask("POST", path, &json, body.as_bytes()).await.unwrap();
    assert!(answer.status() < 300, "{path}: {}", answer.json());
    answer.json()
}

/// Everything that was acknowledged until now, with its last answer.
fn acknowledged(log: &Log) -> Vec<(Ask, Told)> {
    let asked = log.lock();
    let told = |ask: &Ask| {
        let told = asked.told.get(&ask.key)?;
        told.iter().rfind(|told| told.is_acknowledged()).cloned()
    };
    let all = asked.asks.iter().filter_map(|ask| Some((ask.clone(), told(ask)?)));
    // A key that was asked for twice is there once.
    all.map(|(ask, told)| (ask.key.clone(), (ask, told)))
        .collect::<HashMap<_, _>>()
        .into_values()
        .collect()
}

/// A world of its own with this backup in it.
async fn restored(copy: &Path, seed: u64) -> World {
    let world = World::new(seed).await;
    let mut command = std::process::Command::new(BINARY);
    command.arg("restore").arg(copy).arg("--config").arg(world.config());
    clean(&mut command);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    world
}

/// What came of one backup.
#[derive(Default)]
struct Came {
    inside: usize,
    missing: Vec<String>,
    sent_before_release: usize,
    sent_after: usize,
    replayed: usize,
    wrong: Vec<String>,
}

async fn try_backup(copy: &Path, before: &[(Ask, Told)], seed: u64) -> Came {
    let mut came = Came::default();
    let examined = SqliteStore::examine(&copy.join("ledger.db")).unwrap();
    came.wrong.extend(examined.faults);
    let world = restored(copy, seed).await;
    let gateway = world.start().await;
    let by_id: HashMap<String, Value> = gateway
        .operations()
        .await
        .into_iter()
        .map(|operation| (operation["id"].as_str().unwrap_or_default().to_owned(), operation))
        .collect();
    for (ask, told) in before {
        match by_id.get(&told.operation) {
            Some(operation) if !told.is_final() || operation["state"] == "done" => came.inside += 1,
            found => came.missing.push(format!("{}: {found:?}", ask.key)),
        }
    }
    let refused = gateway.call("/keyed/things", "new", b"{}").await.unwrap();
    if refused.code() != "quarantine" {
        came.wrong.push(format!("in quarantine it answers {}", refused.json()));
    }
    // Longer than the longest backoff of what waits.
    tokio::time::sleep(Duration::from_millis(400)).await;
    came.sent_before_release = world.auditor.arrivals();
    order(&gateway, "/v1/release", &json!({})).await;
    let waits = || (0..WAITING).all(|n| !world.auditor.arrived_with(&waiting(n)).is_empty());
    until("what waited to be sent", async || waits().then_some(())).await;
    came.sent_after = world.auditor.arrivals();
    let mut line = gateway.line().await;
    for (ask, told) in before.iter().filter(|(_, told)| told.is_final()) {
        let again = exchange(&mut line, ask, false).await.unwrap();
        let again = Told::of(&again);
        if again.digest == told.digest && again.replayed {
            came.replayed += 1;
        } else {
            came.wrong.push(format!("{}: told {told:?}, then {again:?}", ask.key));
        }
    }
    came
}

fn waiting(n: usize) -> String {
    format!("waits-{n}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_has_all_that_was_acknowledged_and_sends_nothing_by_itself() {
    let seed = seed();
    let backups = number("TEST_BACKUPS", 3);
    let mut told = Figures::of("backups", seed);
    let world = World::new(seed).await;
    let gateway = world.start().await;
    let (log, mut chance) = (Arc::new(Log::default()), Chance(seed));
    for n in 0..WAITING {
        let answer = gateway.post("/keyed/refuse/things", &waiting(n), b"{}").await.unwrap();
        assert_eq!(answer.status(), 202);
    }
    let load = Load::start(gateway.address, &log, &mut chance, "load", 8);
    let mut all = Came::default();
    for n in 0..backups {
        let enough = (n + 1) as usize * 100;
        until("more to be acknowledged", async || {
            (acknowledged(&log).len() >= enough).then_some(())
        })
        .await;
        let before = acknowledged(&log);
        let copy = world.folder.path().join(format!("copy-{n}"));
        order(&gateway, "/v1/backup", &json!({ "to": copy })).await;
        let came = try_backup(&copy, &before, chance.next()).await;
        all.inside += came.inside;
        all.replayed += came.replayed;
        all.sent_before_release += came.sent_before_release;
        all.sent_after += came.sent_after;
        all.missing.extend(came.missing);
        all.wrong.extend(came.wrong);
        std::fs::remove_dir_all(&copy).unwrap();
    }
    load.end().await;
    told.count("backups", backups);
    told.count("acknowledged_before", all.inside + all.missing.len());
    told.count("missing", all.missing.len());
    told.count("sent_before_release", all.sent_before_release);
    told.count("sent_after_release", all.sent_after);
    told.count("replayed_alike", all.replayed);
    told.tell(all.missing.len() + all.wrong.len() + all.sent_before_release);
    assert!(all.missing.is_empty(), "{:#?}", all.missing);
    assert!(all.wrong.is_empty(), "{:#?}", all.wrong);
    assert_eq!(all.sent_before_release, 0);
    assert!(all.inside as u64 >= 100 * backups && all.replayed as u64 >= 50 * backups);
}
