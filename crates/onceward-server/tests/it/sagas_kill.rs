//! Sagas while their gateway is killed again and again, and while people pause, cancel, retry and resolve them: each
//! step is done once and in its order, what is to be undone is undone once and in reverse, and nothing follows what
//! may have been done, whatever a process left between two writes.

use std::process::Command;

use onceward_proof::auditor::Auditor;
use onceward_proof::chance::Chance;
use onceward_proof::figures::{Figures, number, seed, tell};
use serde_json::{Value, json};

use crate::crash_world::{Gateway, World, until};
use crate::nodes_server::Database;

/// Steps of each saga.
const STEPS: usize = 4;

/// Where the command says which ledger.
type Begin<'a> = &'a dyn Fn() -> Command;

/// What a saga is, and what may become of it.
struct Kind {
    /// Whether its upstream dedupes: where it does not, what is in doubt stays so until somebody looks.
    route: &'static str,
    /// Whether its third step lacks what the second was to answer.
    unwinds: bool,
    /// Whether a person may cancel it.
    is_cancelled: bool,
}

impl Kind {
    fn of(n: u64) -> Self {
        let route = if n % 4 < 2 { "keyed" } else { "once" };
        Self { route, unwinds: n % 2 == 1, is_cancelled: n % 3 == 0 }
    }

    fn document(&self, key: &str) -> Value {
        let step = |n: usize| {
            let lacks = self.unwinds && n == 2;
            let takes = if lacks { "{{steps.s1.headers.x-none}}" } else { "{{saga.key}}" };
            let post = format!("{{{{saga.id}}}}/s{n}");
            json!({
                "name": format!("s{n}"), "to": self.route, "path": "/chaos",
                "body": {"post": post, "takes": takes},
                // So that some are stuck.
                "compensate": {
                    "path": "/chaos", "body": {"post": format!("{post}/undo")}, "attempts_max": 1,
                },
            })
        };
        json!({"key": key, "steps": (0..STEPS).map(step).collect::<Vec<_>>()})
    }
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

/// Kills the gateway and starts it again once nothing of the one that was killed is under way.
async fn kill(gateway: &mut Gateway, world: &World, command: Begin<'_>) {
    gateway.kill();
    world.auditor.until_alone().await;
    *gateway = start(command()).await;
}

/// What a person says; whether that could follow.
async fn say(gateway: &Gateway, path: &str, mut word: Value) -> bool {
    word["reason"] = json!("looked at the upstream");
    let headers = [("content-type", "application/json")];
    let body = word.to_string();
    let answer = gateway.line().await.ask("POST", path, &headers, body.as_bytes()).await;
    let answer = answer.expect("an answer");
    assert!(matches!(answer.status(), 200 | 202 | 409), "{path}: {}", answer.json());
    answer.status() != 409
}

/// What people did and found.
#[derive(Default)]
struct Deeds {
    paused: u64,
    cancelled: u64,
    retried: u64,
    in_doubt: u64,
    stuck: u64,
}

impl Deeds {
    /// One that may come at any time; most of them find nothing to do.
    async fn meddle(&mut self, gateway: &Gateway, id: &str, kind: &Kind, chance: &mut Chance) {
        let path = |verb: &str| format!("/v1/sagas/{id}/{verb}");
        match chance.below(5) {
            0 | 1 => self.paused += u64::from(say(gateway, &path("pause"), json!({})).await),
            2 => drop(say(gateway, &path("resume"), json!({})).await),
            3 if kind.is_cancelled => {
                self.cancelled += u64::from(say(gateway, &path("cancel"), json!({})).await);
            }
            _ => self.retried += u64::from(say(gateway, &path("retry"), json!({})).await),
        }
    }

    /// Leads it on where it waits for a person, who looks at the upstream first; its end, where it has come to it.
    async fn lead_on(&mut self, gateway: &Gateway, id: &str, auditor: &Auditor) -> Option<Value> {
        let saga = gateway.get(&format!("/v1/sagas/{id}")).await;
        let at = saga["at"].as_str().unwrap_or_default();
        let post = format!("{id}/{at}");
        let path = |verb: &str| format!("/v1/sagas/{id}/{verb}");
        let is_done = || ["keyed", "once"].iter().any(|route| auditor.effects(route, &post) > 0);
        match saga["state"].as_str()? {
            "done" | "unwound" => return Some(saga),
            "paused" => drop(say(gateway, &path("resume"), json!({})).await),
            "in_doubt" => {
                // It may have moved on since it was read; the one in doubt has not.
                let step = saga["steps"].as_array()?.iter().find_map(|step| {
                    let ask = if at.ends_with("/undo") { &step["compensate"] } else { step };
                    let is_it = at.split('/').next() == step["name"].as_str();
                    let is_it = is_it && ask["operation_state"] == "in_doubt";
                    is_it.then(|| ask["operation"].as_str()).flatten()
                })?;
                let arrived = auditor.arrived();
                let all = arrived.iter().map(|arrived| arrived.key.as_str());
                let own: Vec<&str> = all.filter(|key| key.starts_with(id)).collect();
                // Its process may have died before it went out.
                let is_last = own.last() == Some(&post.as_str()) || !own.contains(&post.as_str());
                assert!(is_last, "nothing follows what is in doubt: {own:?}\n{saga}");
                let word = if is_done() { "done" } else { "not-sent" };
                let path = format!("/v1/operations/{step}/resolve");
                self.in_doubt += u64::from(say(gateway, &path, json!({"as": word})).await);
            }
            "stuck" => {
                self.stuck += 1;
                let retry = json!({"risk": "accepted"});
                if is_done() {
                    say(gateway, &path("resolve"), json!({"step": at, "as": "done"})).await;
                } else if say(gateway, &path("retry"), retry).await {
                    self.retried += 1;
                } else {
                    say(gateway, &path("resolve"), json!({"step": at, "as": "not-done"})).await;
                }
            }
            _ => {}
        }
        None
    }
}

/// Each effect is what the saga says of it, once and in its place; how many there were.
fn check(saga: &Value, kind: &Kind, auditor: &Auditor) -> u64 {
    let (id, arrived) = (saga["id"].as_str().unwrap_or_default(), auditor.arrived());
    let steps = saga["steps"].as_array().expect("steps");
    assert_eq!(steps.len(), STEPS, "{saga}");
    let (mut asks, mut undos) = (Vec::new(), Vec::new());
    for step in steps {
        let post = format!("{id}/{}", step["name"].as_str().unwrap_or_default());
        let state = step["state"].as_str().unwrap_or_default();
        let is_done = matches!(state, "done" | "undone" | "left");
        let undo = format!("{post}/undo");
        let effects = |post: &str| auditor.effects(kind.route, post);
        assert_eq!(effects(&post), u64::from(is_done), "{post}\n{saga}");
        assert_eq!(effects(&undo), u64::from(state == "undone"), "{undo}\n{saga}");
        // All that arrived for it, also what came to nothing.
        let places = |post: &str| -> Vec<usize> {
            let arrived = arrived.iter().enumerate();
            arrived.filter(|(_, arrived)| arrived.key == post).map(|(at, _)| at).collect()
        };
        asks.extend(places(&post));
        undos.push(places(&undo));
    }
    asks.extend(undos.into_iter().rev().flatten());
    assert!(asks.is_sorted(), "{id} arrived out of order: {asks:?}\n{saga}");
    let count = |state: &str| steps.iter().filter(|step| step["state"] == state).count();
    match saga["state"].as_str() {
        Some("done") => assert_eq!(count("done"), STEPS, "{saga}"),
        // What was done stands nowhere.
        _ => assert_eq!(count("done") + count("left"), 0, "{saga}"),
    }
    let is_cancelled = saga["deeds"].as_array().is_some_and(|deeds| !deeds.is_empty());
    if kind.route == "keyed" && !is_cancelled {
        let end = if kind.unwinds { ("unwound", 2) } else { ("done", 0) };
        assert_eq!((saga["state"].as_str(), count("undone")), (Some(end.0), end.1), "{saga}");
    }
    (count("done") + 2 * count("undone")) as u64
}

async fn through_kills(figures: &'static str, world: &World, command: Begin<'_>, seed: u64) {
    let (sagas, kills) = (number("TEST_SAGAS", 12), number("TEST_KILLS", 12));
    let (mut told, mut chance) = (Figures::of(figures, seed), Chance(seed));
    let (mut deeds, mut gateway) = (Deeds::default(), start(command()).await);
    let mut ids: Vec<(String, Kind)> = Vec::new();
    for n in 0..sagas {
        let kind = Kind::of(n);
        let document = kind.document(&format!("trip-{n}"));
        let mut id = begin(&gateway, &document).await;
        if chance.below(3) == 0 {
            kill(&mut gateway, world, command).await;
        }
        if id.is_none() || chance.below(4) == 0 {
            let again = begin(&gateway, &document).await;
            assert!(again.is_some() && (id.is_none() || id == again), "one key, one saga");
            id = again;
        }
        if let Some(id) = id {
            if chance.below(2) == 0 {
                deeds.meddle(&gateway, &id, &kind, &mut chance).await;
            }
            ids.push((id, kind));
        }
    }
    for _ in 0..kills {
        for _ in 0..chance.below(4) {
            let (id, kind) = &ids[chance.below(ids.len() as u64) as usize];
            deeds.meddle(&gateway, id, kind, &mut chance).await;
            let (id, _) = &ids[chance.below(ids.len() as u64) as usize];
            deeds.lead_on(&gateway, id, &world.auditor).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(chance.below(150))).await;
        kill(&mut gateway, world, command).await;
    }
    let mut effects = 0;
    for (id, kind) in &ids {
        let all = tokio::sync::Mutex::new(&mut deeds);
        let ended = until(&format!("the end of {id}"), async || {
            all.lock().await.lead_on(&gateway, id, &world.auditor).await
        })
        .await;
        effects += check(&ended, kind, &world.auditor);
    }
    let Deeds { paused, cancelled, retried, in_doubt, stuck } = deeds;
    let counts = [("paused", paused), ("cancelled", cancelled), ("retried", retried)];
    told.count("sagas", ids.len() as u64);
    told.count("kills", kills);
    told.count("effects", effects);
    told.count("arrived", world.auditor.arrivals() as u64);
    for (name, count) in counts.into_iter().chain([("in_doubt", in_doubt), ("stuck", stuck)]) {
        told.count(name, count);
    }
    told.tell(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sagas_are_whole_though_their_gateway_is_killed_and_people_meddle() {
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
