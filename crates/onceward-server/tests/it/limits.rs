//! What is beyond a limit is refused before anything is remembered or sent.

#[cfg(not(feature = "sabotage"))]
use crate::crash_world::Gateway;
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

/// A build for tests may break its promises, where the environment says so; any other must not.
#[cfg(not(feature = "sabotage"))]
#[tokio::test]
async fn no_variable_makes_the_binary_break_a_promise() {
    let world = World::new(5).await;
    let mut command = world.command(&[]);
    command.env("TEST_SABOTAGE", "mismatch-ignored");
    let gateway = Gateway::start(command).await.expect("a start");
    let first = gateway.call("/once/things", "once-k", b"1").await.expect("an answer");
    let other = gateway.call("/once/things", "once-k", b"2").await.expect("an answer");
    assert_eq!((first.status(), other.status()), (201, 409));
}
