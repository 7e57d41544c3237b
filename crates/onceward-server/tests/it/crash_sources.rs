//! Webhooks stream in while the gateway is killed, again and again: each that was answered 2xx is
//! delivered, and has one effect at a receiver that knows keys; a replay under another id has none.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onceward::webhook::{self, Algorithm};
use onceward_proof::chance::Chance;
use onceward_proof::figures::{Figures, number, seed, tell};
use onceward_proof::line::Line;

use crate::crash_world::{World, until};
use crate::sources::{hex, seconds};

const SECRET_BYTES: &[u8; 24] = b"canary-of-24-bytes-is-me";

/// One whose ids are signed, and one whose are not: that has a second guard.
const SOURCES: &str = r#"
[sources.signed]
verify = { scheme = "standard-webhooks", secret = "whsec_Y2FuYXJ5LW9mLTI0LWJ5dGVzLWlzLW1l" }
deliver = "http://AUDITOR/keyed/chaos"
SOON

[sources.guarded]
verify = { scheme = "hmac", header = "X-Signature", secret = "canary-of-24-bytes-is-me" }
id = { header = "X-Id" }
deliver = "http://AUDITOR/keyed/chaos"
SOON
"#;

const PROVIDERS: u64 = 8;

/// What was acknowledged, by its number.
type Acknowledged = Arc<Mutex<Vec<u64>>>;

fn id_of(number: u64) -> String {
    format!("msg-{number}")
}

/// Sends webhook `number` under `id`; tells whether it was acknowledged.
async fn send(address: SocketAddr, id: &str, number: u64) -> bool {
    let body = format!("{{\"event\": {number}}}");
    let seconds = seconds();
    let (signed, at) =
        (webhook::sign(SECRET_BYTES, id, seconds, body.as_bytes()), seconds.to_string());
    let tag = webhook::hmac(Algorithm::Sha256, SECRET_BYTES, body.as_bytes());
    let tag = hex(&tag);
    let headers = [
        ("webhook-id", id),
        ("webhook-timestamp", at.as_str()),
        ("webhook-signature", signed.as_str()),
        ("x-id", id),
        ("x-signature", tag.as_str()),
        ("content-type", "application/json"),
    ];
    let path = if number.is_multiple_of(2) { "/in/signed" } else { "/in/guarded" };
    let Ok(mut line) = Line::connect(address).await else { return false };
    let answer = line.ask("POST", path, &headers, body.as_bytes()).await;
    answer.is_ok_and(|answer| (200..300).contains(&answer.status()))
}

/// One provider: it sends one after the other, now and then one again; and now and then somebody
/// who saw one sends it under another id.
async fn provide(
    address: SocketAddr,
    numbers: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    acknowledged: Acknowledged,
    mut chance: Chance,
) {
    while !over.load(Ordering::Acquire) {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        if !send(address, &id_of(number), number).await {
            continue;
        }
        acknowledged.lock().unwrap().push(number);
        // Neither says anything new, acknowledged or not.
        let again = match chance.below(4) {
            0 => id_of(number),
            1 if !number.is_multiple_of(2) => format!("replay-{number}"),
            _ => continue,
        };
        let _ = send(address, &again, number).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_webhooks_stream_in_it_delivers_each_that_it_acknowledged_once() {
    let seed = seed();
    let cycles = number("TEST_CYCLES", 15);
    tell(&format!("TEST_SEED={seed} TEST_CYCLES={cycles}"));
    let world = World::with(seed, SOURCES).await;
    let mut told = Figures::of("webhooks", seed);
    let mut chance = Chance(seed);
    let (numbers, acknowledged) = (Arc::new(AtomicU64::new(0)), Acknowledged::default());
    let count = || acknowledged.lock().unwrap().len();
    for _ in 0..cycles {
        let mut gateway = world.start().await;
        let over = Arc::new(AtomicBool::new(false));
        let before = count();
        let provider = |_| {
            let (numbers, over) = (Arc::clone(&numbers), Arc::clone(&over));
            let (acknowledged, chance) = (Arc::clone(&acknowledged), Chance(chance.next()));
            tokio::spawn(provide(gateway.address, numbers, over, acknowledged, chance))
        };
        let providers: Vec<_> = (0..PROVIDERS).map(provider).collect();
        tokio::time::sleep(Duration::from_millis(5 + chance.below(76))).await;
        let enough = before + chance.below(6) as usize;
        until("webhooks to be acknowledged", async || (count() >= enough).then_some(())).await;
        gateway.kill();
        over.store(true, Ordering::Release);
        for provider in providers {
            provider.await.unwrap();
        }
    }
    let gateway = world.start().await;
    gateway.quiet().await;
    let acknowledged = acknowledged.lock().unwrap().clone();
    let effects = |id: &str| world.auditor.effects("keyed", id);
    let wrong: Vec<_> = acknowledged.iter().filter(|it| effects(&id_of(**it)) != 1).collect();
    let sent = numbers.load(Ordering::Relaxed);
    let doubled = (0..sent).filter(|number| effects(&id_of(*number)) > 1).count();
    let replayed = (0..sent).filter(|number| effects(&format!("replay-{number}")) > 0).count();
    told.count("kills", cycles);
    told.count("sent", sent);
    told.count("acknowledged", acknowledged.len());
    told.count("doubled", doubled);
    told.count("replayed", replayed);
    told.tell(wrong.len() + doubled + replayed);
    assert!(wrong.is_empty(), "acknowledged, and not once there: {wrong:?}");
    assert_eq!((doubled, replayed), (0, 0));
    // A run in which nothing came or nothing was cut off proves nothing.
    assert!(acknowledged.len() as u64 > cycles, "too few: {}", acknowledged.len());
    assert!(sent > acknowledged.len() as u64, "nothing was cut off");
}
