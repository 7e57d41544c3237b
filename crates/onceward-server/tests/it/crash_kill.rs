//! Killed at random moments under load, again and again: nothing that was acknowledged is lost,
//! nothing is done twice, and every duplicate gets the first answer.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::crash_load::{Load, settle_and_check, until_acknowledged};
use crate::crash_world::{Gateway, World, spawn};
use onceward_proof::chance::Chance;
use onceward_proof::check::Log;
use onceward_proof::figures::{Figures, number, seed, tell};

const CALLERS: u64 = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_under_load_it_loses_nothing_and_does_nothing_twice() {
    let seed = seed();
    let cycles = number("TEST_CYCLES", 60);
    tell(&format!("TEST_SEED={seed} TEST_CYCLES={cycles}"));
    let mut told = Figures::of("kill", seed);
    let world = World::new(seed).await;
    let log = Arc::new(Log::default());
    let mut chance = Chance(seed);
    let mut kills = 0;
    let mut starts = Vec::new();
    for cycle in 0..cycles {
        if cycle % 10 == 9 {
            killed_while_it_starts(&world, &mut chance).await;
            kills += 1;
        }
        let began = Instant::now();
        let mut gateway = world.start().await;
        starts.push(began.elapsed());
        burst(&mut gateway, &log, &mut chance, cycle).await;
        kills += 1;
    }
    let gateway = world.start().await;
    let checked = settle_and_check(&world, gateway, &log).await;
    starts.sort_unstable();
    let at = |percent: usize| starts[(starts.len() - 1) * percent / 100].as_millis() as u64;
    told.count("kills", kills);
    told.checked(&checked.figures);
    told.count("start_ms_p50", at(50));
    told.count("start_ms_p99", at(99));
    told.tell(checked.violations.len());
    let figures = checked.expect_kept();
    // A run in which every call fails proves nothing.
    assert!(kills >= cycles, "too few kills: {kills}");
    assert!(figures.acknowledged as u64 >= 5 * cycles, "too little acknowledged: {figures:?}");
    assert!(figures.lost_answers >= cycles, "too little was under way: {figures:?}");
    assert!(figures.in_doubt > 0 && figures.replayed > 0, "too tame: {figures:?}");
}

/// Every tenth time it is killed once more before it is ready: while it recovers.
async fn killed_while_it_starts(world: &World, chance: &mut Chance) {
    let (mut child, _, _ready) = spawn(world.command(&[]));
    tokio::time::sleep(Duration::from_micros(chance.below(60_000))).await;
    child.kill().unwrap();
    child.wait().unwrap();
}

async fn burst(gateway: &mut Gateway, log: &Arc<Log>, chance: &mut Chance, cycle: u64) {
    let before = log.acknowledged_count();
    let load = Load::start(gateway.address, log, chance, &cycle.to_string(), CALLERS);
    tokio::time::sleep(Duration::from_millis(5 + chance.below(76))).await;
    until_acknowledged(log, before + chance.below(16) as usize).await;
    gateway.kill();
    load.end().await;
}
