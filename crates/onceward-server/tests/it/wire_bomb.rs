//! Bodies that are small until somebody unpacks them: the gateway never does, on no way.

use onceward_proof::figures::tell;

use crate::crash_world::World;
use crate::wire_strict::{BOMB, Strict};

/// What unpacking it once would cost at least is 200 KiB, twice 200 MiB.
const GROWTH_MAX: u64 = 32 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_packed_body_travels_and_is_kept_and_shown_as_it_is() {
    let strict = Strict::start().await;
    let route =
        format!("[routes.strict]\nupstream = \"http://{}\"\neffects = \"keyed\"\n", strict.address);
    let world = World::with(1, &route).await;
    let gateway = world.start().await;
    gateway.call("/strict/plain", "plain", b"{}").await.expect("an answer");
    let before = gateway.memory("VmHWM");
    let headers = [
        ("idempotency-key", "bomb"),
        ("content-type", "application/json"),
        ("content-encoding", "gzip, gzip"),
    ];
    let mut ids = Vec::new();
    for replayed in ["false", "true"] {
        let mut line = gateway.line().await;
        let answer = line.ask("POST", "/to/strict/bomb", &headers, BOMB).await.expect("an answer");
        assert_eq!((answer.status(), answer.body.as_slice()), (200, BOMB));
        assert_eq!(answer.header("content-encoding"), Some("gzip, gzip"));
        assert_eq!(answer.header("idempotent-replayed"), Some(replayed));
        ids.push(answer.header("onceward-operation").expect("its operation").to_owned());
    }
    let arrived = strict.arrived();
    assert_eq!(arrived["/bomb"].len(), 1);
    assert_eq!(arrived["/bomb"][0].body, BOMB, "the upstream got the caller's bytes");
    // Another packing is another request: nobody looks inside to see that it says the same.
    let mut line = gateway.line().await;
    let other = line.ask("POST", "/to/strict/bomb", &headers, &BOMB[1..]).await.expect("an answer");
    assert_eq!(other.code(), "key-mismatch");
    for path in [
        format!("/operations/{}", ids[0]),
        format!("/v1/operations/{}/request", ids[0]),
        format!("/v1/operations/{}/response", ids[0]),
    ] {
        let shown = gateway.line().await.ask("GET", &path, &[], &[]).await.expect("a page");
        assert_eq!(shown.status(), 200, "{path}");
        assert!(shown.length < 64 << 10, "{path}: {} bytes", shown.length);
    }
    let grown = gateway.memory("VmHWM").saturating_sub(before);
    tell(&format!("{} bytes that unpack to 200 MiB: {grown} KiB more", BOMB.len()));
    assert!(grown < GROWTH_MAX, "{grown} KiB");
}
