//! Webhooks stream in while the gateway is killed, again and again: each that was answered 2xx is
//! delivered, and has one effect at a receiver that knows keys.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onceward::webhook;
use onceward_proof::chance::Chance;
use onceward_proof::figures::{number, seed, tell};
use onceward_proof::line::Line;

use crate::crash_world::World;
use crate::sources::seconds;

const SECRET_BYTES: &[u8; 24] = b"canary-of-24-bytes-is-me";

const SOURCE: &str = r#"
[sources.hook]
verify = { scheme = "standard-webhooks", secret = "whsec_Y2FuYXJ5LW9mLTI0LWJ5dGVzLWlzLW1l" }
deliver = "http://AUDITOR/keyed/chaos"
timeout = "5s"
retry = { attempts_max = 50, horizon = "1h", base = "20ms", floor = "5ms", cap = "200ms", factor = 2.0 }
breaker = { open = "50ms", open_max = "200ms" }
"#;

const PROVIDERS: u64 = 8;

/// What was acknowledged, by id.
type Acknowledged = Arc<Mutex<Vec<String>>>;

/// Sends a webhook; tells whether it was acknowledged.
async fn send(address: SocketAddr, id: &str, number: u64) -> bool {
    let body = format!("{{\"event\": {number}}}");
    let at = seconds();
    let signature = webhook::sign(SECRET_BYTES, id, at, body.as_bytes());
    let at = at.to_string();
    let headers = [
        ("webhook-id", id),
        ("webhook-timestamp", at.as_str()),
        ("webhook-signature", signature.as_str()),
        ("content-type", "application/json"),
    ];
    let Ok(mut line) = Line::connect(address).await else { return false };
    let answer = line.ask("POST", "/in/hook", &headers, body.as_bytes()).await;
    answer.is_ok_and(|answer| (200..300).contains(&answer.status()))
}

/// One provider: it sends what was not acknowledged again, and now and then what was.
async fn provide(
    address: SocketAddr,
    numbers: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    acknowledged: Acknowledged,
    mut chance: Chance,
) {
    while !over.load(Ordering::Acquire) {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        let id = format!("msg-{number}");
        if !send(address, &id, number).await {
            continue;
        }
        acknowledged.lock().unwrap().push(id.clone());
        if chance.below(4) == 0 {
            // A duplicate says nothing new.
            let _ = send(address, &id, number).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_webhooks_stream_in_it_delivers_each_that_it_acknowledged_once() {
    let seed = seed();
    let cycles = number("TEST_CYCLES", 30);
    tell(&format!("TEST_SEED={seed} TEST_CYCLES={cycles}"));
    let world = World::with(seed, SOURCE).await;
    let mut chance = Chance(seed);
    let (numbers, acknowledged) = (Arc::new(AtomicU64::new(0)), Acknowledged::default());
    for _ in 0..cycles {
        let mut gateway = world.start().await;
        let over = Arc::new(AtomicBool::new(false));
        let provider = |_| {
            let (numbers, over) = (Arc::clone(&numbers), Arc::clone(&over));
            let (acknowledged, chance) = (Arc::clone(&acknowledged), Chance(chance.next()));
            tokio::spawn(provide(gateway.address, numbers, over, acknowledged, chance))
        };
        let providers: Vec<_> = (0..PROVIDERS).map(provider).collect();
        tokio::time::sleep(Duration::from_millis(5 + chance.below(76))).await;
        gateway.kill();
        over.store(true, Ordering::Release);
        for provider in providers {
            provider.await.unwrap();
        }
    }
    let gateway = world.start().await;
    gateway.quiet().await;
    let acknowledged = acknowledged.lock().unwrap().clone();
    let wrong: Vec<_> = acknowledged
        .iter()
        .map(|id| (id, world.auditor.effects("keyed", id)))
        .filter(|(_, effects)| *effects != 1)
        .collect();
    let sent = numbers.load(Ordering::Relaxed);
    tell(&format!("{cycles} kills, {sent} sent, {} acknowledged", acknowledged.len()));
    assert!(wrong.is_empty(), "acknowledged, and not once there: {wrong:?}");
    // A run in which nothing came or nothing was cut off proves nothing.
    assert!(acknowledged.len() as u64 > 5 * cycles, "too few: {}", acknowledged.len());
    assert!(sent > acknowledged.len() as u64, "nothing was cut off");
    let doubled = (0..sent).filter(|n| world.auditor.effects("keyed", &format!("msg-{n}")) > 1);
    assert_eq!(doubled.count(), 0);
}
