//! An upstream that comes back to a large backlog: it is sent no more than its route's rate.

use std::sync::Arc;
use std::time::Duration;

use onceward_proof::figures::{Figures, number};
use serde_json::Value;

use crate::backlog::{engine, remember};
use crate::crash_world::{World, until};

/// Calls in flight while the ledger is filled.
const AT_ONCE: u64 = 256;

/// When each attempt of an operation was allowed to start, in milliseconds.
fn starts(operation: &Value) -> Vec<i64> {
    let attempts = operation["attempts"].as_array().cloned().unwrap_or_default();
    let start = |attempt: &Value| attempt["started_at"].as_str()?.parse::<jiff::Timestamp>().ok();
    attempts.iter().filter_map(start).map(jiff::Timestamp::as_millisecond).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_is_sent_no_faster_than_the_rate_of_its_route() {
    let held = number("TEST_HELD", 2000);
    let (rate, burst) = (held.div_ceil(20).max(500), 50);
    let mut figures = Figures::of("recovery", 31);
    let route = format!(
        "\n[routes.stuck]\nupstream = \"http://AUDITOR/keyed\"\neffects = \"keyed\"\n\
         rate = \"{rate}/s\"\nburst = {burst}\nconcurrency_max = 64\n"
    );
    let world = World::with(31, &route).await;
    let sleeper = engine(&world);
    let mut callers = Vec::new();
    for caller in 0..AT_ONCE {
        let engine = Arc::clone(&sleeper);
        callers.push(tokio::spawn(async move {
            for n in (caller..held).step_by(AT_ONCE as usize) {
                remember(Arc::clone(&engine), "stuck", n, Duration::ZERO).await;
            }
        }));
    }
    for caller in callers {
        caller.await.expect("what was remembered");
    }
    drop(sleeper);
    let gateway = world.start().await;
    let mut before = 0;
    while world.auditor.arrivals() < held as usize {
        // As long as more comes it is not over.
        until("another arrival", async || (world.auditor.arrivals() > before).then_some(())).await;
        before = world.auditor.arrivals();
    }
    gateway.quiet().await;
    let operations = gateway.operations().await;
    let mut started: Vec<i64> = operations.iter().flat_map(starts).collect();
    started.sort_unstable();
    // Within a second that is told in whole milliseconds.
    let within = |from: i64| started.partition_point(|at| *at <= from + 1000);
    let counts = started.iter().enumerate().map(|(n, from)| within(*from) - n);
    let most = counts.max().unwrap_or_default() as u64;
    figures.count("held_back", held);
    figures.count("attempts", started.len());
    figures.count("rate_a_second", rate);
    figures.count("burst", burst);
    figures.count("most_within_a_second", most);
    let bound = rate + burst + rate.div_ceil(500);
    let is_exceeded = most > bound || (started.len() as u64) < held;
    figures.tell(usize::from(is_exceeded));
    assert!(!is_exceeded, "{most} within a second, of {} attempts", started.len());
}
