//! Sagas while their gateway is killed again and again: each step is done once and in its order, and what is
//! to be undone is undone once and in reverse, whatever a process left between two writes.

use std::process::Command;

use onceward_proof::chance::Chance;
use onceward_proof::figures::{Figures, number, seed, tell};
use serde_json::{Value, json};

use crate::crash_world::{Gateway, World, until};
use crate::nodes_server::Database;

/// Steps of each saga.
const STEPS: usize = 4;

/// Where the command says which ledger.
type Begin<'a> = &'a dyn Fn() -> Command;

/// A saga whose steps are all done, or whose third step lacks what the second was to answer.
fn saga(key: &str, unwinds: bool) -> Value {
    let step = |n: usize| {
        let takes = if unwinds && n == 2 { "{{steps.s1.headers.x-none}}" } else { "{{saga.key}}" };
        json!({
            "name": format!("s{n}"), "to": "keyed", "path": "/chaos",
            "body": {"post": key, "step": n, "takes": takes},
            "compensate": {"path": "/chaos", "body": {"post": key, "undo": n}},
        })
    };
    json!({"key": key, "steps": (0..STEPS).map(step).collect::<Vec<_>>()})
}

async fn begin(gateway: &Gateway, document: &Value) -> Option<String> {
    let headers = [("content-type", "application/json")];
    let mut line = gateway.line().await;
    let body = document.to_string();
    // A kill may come between: whoever starts it asks again with the same key.
    let answer = line.ask("POST", "/v1/sagas", &headers, body.as_bytes()).await.ok()?;
    assert!(matches!(answer.status(), 200 | 202), "{}", answer.json());
    answer.json()["id"].as_str().map(str::to_owned)
}

async fn start(command: Command) -> Gateway {
    let started = Gateway::start(command).await;
    started.unwrap_or_else(|ended| panic!("it did not start: {}\n{}", ended.status, ended.said))
}

async fn through_kills(figures: &'static str, world: &World, command: Begin<'_>, seed: u64) {
    let (sagas, kills) = (number("TEST_SAGAS", 12), number("TEST_KILLS", 12));
    let (mut told, mut chance) = (Figures::of(figures, seed), Chance(seed));
    let mut gateway = start(command()).await;
    let unwinds = |n: u64| n % 2 == 1;
    let mut ids: Vec<(String, bool)> = Vec::new();
    for n in 0..sagas {
        let document = saga(&format!("trip-{n}"), unwinds(n));
        let mut id = begin(&gateway, &document).await;
        if chance.below(3) == 0 {
            gateway.kill();
            gateway = start(command()).await;
        }
        if id.is_none() || chance.below(4) == 0 {
            let again = begin(&gateway, &document).await;
            assert!(again.is_some() && (id.is_none() || id == again), "one key, one saga");
            id = again;
        }
        ids.extend(id.map(|id| (id, unwinds(n))));
    }
    for _ in 0..kills {
        tokio::time::sleep(std::time::Duration::from_millis(chance.below(150))).await;
        gateway.kill();
        gateway = start(command()).await;
    }
    let mut steps = 0;
    for (id, unwinds) in &ids {
        let end = if *unwinds { "unwound" } else { "done" };
        let ended = until(&format!("{id} to be {end}"), async || {
            let saga = gateway.get(&format!("/v1/sagas/{id}")).await;
            (saga["state"] == end).then_some(saga)
        })
        .await;
        let first_of = |key: &str| {
            let arrived = world.auditor.arrived();
            arrived.iter().position(|arrived| arrived.key == key)
        };
        let forward = if *unwinds { 2 } else { STEPS };
        let mut places = Vec::new();
        for n in 0..STEPS {
            let (key, undo) = (format!("{id}/s{n}"), format!("{id}/s{n}/undo"));
            let effects = |key: &str| world.auditor.effects("keyed", key);
            assert_eq!(effects(&key), u64::from(n < forward), "{key}\n{ended}");
            assert_eq!(effects(&undo), u64::from(*unwinds && n < forward), "{undo}\n{ended}");
            places.extend((n < forward).then(|| first_of(&key)).flatten());
        }
        for n in (0..forward).rev().filter(|_| *unwinds) {
            places.extend(first_of(&format!("{id}/s{n}/undo")));
        }
        assert!(places.is_sorted(), "{id} arrived out of order: {places:?}");
        steps += places.len() as u64;
    }
    told.count("sagas", ids.len() as u64);
    told.count("kills", kills);
    told.count("steps", steps);
    told.count("arrived", world.auditor.arrivals() as u64);
    told.tell(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sagas_are_whole_though_their_gateway_is_killed_again_and_again() {
    let seed = seed();
    tell(&format!("TEST_SEED={seed}"));
    let world = World::new(seed).await;
    through_kills("sagas-sqlite", &world, &|| world.command(&[]), seed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_on_a_ledger_in_postgres() {
    let Some(url) = Database::shared().map(|database| database.url()) else { return };
    let seed = seed();
    tell(&format!("TEST_SEED={seed}"));
    let world = World::new(seed).await;
    let command = || {
        let mut command = world.command(&[]);
        command.args(["--store", &url]);
        command
    };
    through_kills("sagas-postgres", &world, &command, seed).await;
}
