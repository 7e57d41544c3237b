//! Told to stop under load, once or twice: it ends well, what was under way comes to its end, and
//! nothing is lost.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use crate::crash_load::{Load, settle_and_check, until_acknowledged};
use crate::crash_world::World;
use onceward_proof::chance::Chance;
use onceward_proof::check::Log;
use onceward_proof::figures::{Figures, number, seed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_stop_under_load_it_ends_well_and_loses_nothing() {
    let seed = seed();
    let stops = number("TEST_STOPS", 6);
    let mut told = Figures::of("stops", seed);
    let (world, log) = (World::new(seed).await, Arc::new(Log::default()));
    let mut chance = Chance(seed);
    let mut longest = Duration::ZERO;
    for stop in 0..stops {
        let mut gateway = world.start().await;
        let before = log.acknowledged_count();
        let load = Load::start(gateway.address, &log, &mut chance, &stop.to_string(), 8);
        tokio::time::sleep(Duration::from_millis(40 + chance.below(100))).await;
        until_acknowledged(&log, before + 31).await;
        let began = std::time::Instant::now();
        gateway.signal(Signal::TERM);
        if stop % 2 == 1 {
            gateway.signal(Signal::TERM);
        }
        let status = gateway.ended().await;
        longest = longest.max(began.elapsed());
        assert_eq!(status.code(), Some(0), "{status}\n{}", gateway.said());
        load.end().await;
        // Nothing is left for the next start to judge: an orderly end interrupts no attempt. Who says
        // it twice does not want to wait for them.
        let next = world.start().await;
        assert!(
            stop % 2 == 1 || !next.said().contains("judged what the last process left"),
            "{}",
            next.said()
        );
    }
    let gateway = world.start().await;
    let checked = settle_and_check(&world, gateway, &log).await;
    told.count("stops", stops);
    told.count("longest_ms", longest.as_millis());
    told.checked(&checked.figures);
    told.tell(checked.violations.len());
    let figures = checked.expect_kept();
    assert!(figures.acknowledged as u64 > 30 * stops, "too tame: {figures:?}");
}
