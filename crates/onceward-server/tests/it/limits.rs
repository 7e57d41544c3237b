//! What is beyond a limit is refused before anything is remembered or sent.

use crate::crash_world::World;

#[tokio::test]
async fn a_body_over_its_limit_is_refused_and_nothing_is_sent() {
    let world = World::new(5).await;
    let gateway = world.start().await;
    // What a route takes that says nothing, while its ledger's segments are this small.
    let most = 512 << 10;
    for (bytes, status, code) in [(most, 201, ""), (most + 1, 413, "body-too-large")] {
        let key = format!("once-{bytes}");
        let answer =
            gateway.call("/once/things", &key, &vec![b'x'; bytes]).await.expect("an answer");
        assert_eq!(answer.status(), status, "{bytes} bytes");
        if status == 413 {
            assert_eq!(answer.code(), code);
        }
    }
    assert_eq!(world.auditor.arrivals(), 1);
    assert_eq!(gateway.operations().await.len(), 1, "what is refused has no record");
}
