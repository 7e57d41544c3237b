//! Few file descriptors and many idle connections: whoever gets in is served, new work is refused
//! where the ledger cannot grow, and all is well again when the others are gone.

use std::sync::Arc;

use tokio::net::TcpStream;

use crate::crash_load::{Load, settle_and_check};
use crate::crash_world::{World, until};
use onceward_proof::chance::Chance;
use onceward_proof::check::Log;
use onceward_proof::figures::{Figures, seed};

/// Idle connections: more than there are descriptors.
const IDLE: usize = 120;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_descriptors_nothing_is_lost_and_it_recovers_by_itself() {
    let seed = seed();
    let mut told = Figures::of("descriptors", seed);
    let (world, log) = (World::new(seed).await, Arc::new(Log::default()));
    let mut chance = Chance(seed);
    let gateway = world.start_behind(&["prlimit", "--nofile=100"]).await.expect("a start with few");
    // Those that come first are in; then nobody else is.
    let load = Load::start(gateway.address, &log, &mut chance, "before", 8);
    until("some calls", async || (log.lock().told.len() > 50).then_some(())).await;
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push(TcpStream::connect(gateway.address).await.unwrap());
    }
    until("the end of descriptors", async || {
        gateway.said().contains("a connection could not be accepted").then_some(())
    })
    .await;
    let before = log.lock().told.len();
    until("calls that go on", async || (log.lock().told.len() > before + 100).then_some(())).await;
    load.end().await;
    drop(idle);
    let load = Load::start(gateway.address, &log, &mut chance, "after", 8);
    let before = log.lock().told.len();
    until("calls after it", async || (log.lock().told.len() > before + 300).then_some(())).await;
    load.end().await;
    let checked = settle_and_check(&world, gateway, &log).await;
    let refused = {
        let asked = log.lock();
        asked.told.values().flatten().filter(|told| told.code == "ledger-full").count()
    };
    told.count("idle", IDLE);
    told.count("refused", refused);
    told.checked(&checked.figures);
    told.tell(checked.violations.len());
    checked.expect_kept();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_takes_as_many_descriptors_as_it_may_have() {
    let world = World::new(1).await;
    let gateway = world.start_behind(&["prlimit", "--nofile=64:2000"]).await.expect("a start");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", gateway.id())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().nth(3), Some("2000"), "{files}");
}
