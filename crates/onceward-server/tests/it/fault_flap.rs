//! An upstream that comes and goes: what it takes twice it does once, and no other upstream's calls
//! suffer from it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::crash_load::{Load, until_acknowledged};
use crate::crash_world::World;
use onceward_proof::auditor::Auditor;
use onceward_proof::chance::Chance;
use onceward_proof::check::{Log, check};
use onceward_proof::figures::{Figures, number, seed};

/// A route of its own to an upstream that is always there.
const STEADY: &str =
    "[routes.steady]\nupstream = \"http://STEADY/once\"\neffects = \"non-idempotent\"\n";

/// A line to an upstream that can be switched off: then every connection on it is reset.
async fn switched(upstream: SocketAddr, on: watch::Receiver<bool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((caller, _)) = listener.accept().await {
            tokio::spawn(carry(caller, upstream, on.clone()));
        }
    });
    address
}

async fn carry(mut caller: TcpStream, upstream: SocketAddr, mut on: watch::Receiver<bool>) {
    // A linger of nothing makes closing a reset.
    let _ = caller.set_zero_linger();
    let Ok(mut upstream) = TcpStream::connect(upstream).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut caller, &mut upstream) => {}
        // Whoever switches lives as long as the test.
        _ = on.wait_for(|on| !on) => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_comes_and_goes_sees_every_call_once() {
    let seed = seed();
    let flaps = number("TEST_FLAPS", 20);
    let mut told = Figures::of("flapping", seed);
    let mut chance = Chance(seed);
    let auditor = Auditor::start(seed).await;
    let on = watch::Sender::new(true);
    let line = switched(auditor.address, on.subscribe()).await;
    let steady = Auditor::start(seed).await;
    let routes = STEADY.replace("STEADY", &steady.address.to_string());
    let world = World::before(auditor, line, &routes);
    let gateway = world.start().await;
    let log = Arc::new(Log::default());
    let load = Load::start(gateway.address, &log, &mut chance, "load", 8);
    let mut through = 0u64;
    for flap in 0..2 * flaps {
        on.send_replace(flap % 2 == 0);
        tokio::time::sleep(Duration::from_millis(10 + chance.below(90))).await;
        // Whatever the one does, the other is served.
        let key = format!("steady-{flap}");
        let answer = gateway.call("/steady/things", &key, b"{}").await.unwrap();
        assert_eq!(answer.status(), 201, "{key}: {}", answer.json());
        through += steady.effects("once", &key);
    }
    on.send_replace(true);
    until_acknowledged(&log, 4 * flaps as usize + 1).await;
    load.end().await;
    gateway.quiet().await;
    let operations = gateway.operations().await;
    let (others, operations): (Vec<_>, Vec<_>) =
        operations.into_iter().partition(|operation| operation["route"] == "steady");
    let unsent = |operation: &&serde_json::Value| {
        operation["attempts"]
            .as_array()
            .is_some_and(|attempts| attempts.iter().any(|attempt| attempt["ending"] != "answered"))
    };
    let interrupted = operations.iter().filter(unsent).count();
    let checked = check(&log, &world.auditor, &operations);
    told.count("flaps", flaps);
    told.count("interrupted", interrupted);
    told.count("others_served", through);
    told.checked(&checked.figures);
    told.tell(checked.violations.len());
    let figures = checked.expect_kept();
    assert_eq!((through, others.len() as u64), (2 * flaps, 2 * flaps));
    assert!(interrupted as u64 > flaps, "it hardly went: {interrupted}");
    assert!(figures.acknowledged as u64 > 4 * flaps, "too tame: {figures:?}");
}
