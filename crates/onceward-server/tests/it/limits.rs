//! What is beyond a limit is refused before anything is remembered or sent, and a connection that
//! carries nothing is ended.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

#[cfg(not(feature = "sabotage"))]
use crate::crash_world::Gateway;
use crate::crash_world::World;
use crate::guard_world::guard_of;
use crate::wire_http2::{self, frame};
use crate::world::{self, Upstream, read_head};

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

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// A connection to the gateway.
fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// A guard and a source before one upstream, with these limits.
fn behind(limits: &str, upstream: SocketAddr) -> world::World {
    let world = world::World::new();
    let text = format!(
        "[limits]\n{limits}\n[routes.a]\nupstream = \"http://{upstream}\"\nlisten = \"127.0.0.1:0\"\n\
         [sources.hook]\nverify = {{ scheme = \"none\" }}\nid = \"content\"\nto = \"a\"\n"
    );
    world.write("onceward.toml", &text);
    world
}

#[test]
fn a_body_that_drips_is_given_up_wherever_it_comes() {
    let upstream = Upstream::answering(Some(200));
    let world = behind("body_timeout = \"300ms\"", upstream.address);
    let gateway = world.serve();
    let guard = guard_of(&gateway, "a");
    for (address, path, status) in [
        (gateway.address, "/to/a/x", "408"),
        (guard, "/x", "408"),
        (gateway.address, "/in/hook", "408"),
        (gateway.address, "/v1/operations", "400"),
    ] {
        let mut stream = connect(address);
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\nidempotency-key: k\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).expect("a head");
        let mut dripping = stream.try_clone().expect("the same connection");
        let drip = std::thread::spawn(move || {
            // It ends where the gateway has heard enough.
            while dripping.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let mut reader = BufReader::new(stream);
        let (first, _) = read_head(&mut reader).expect("an answer");
        assert_eq!(first.split(' ').nth(1), Some(status), "{path}: {first}");
        // Nothing else is read from there.
        let _ = reader.read_to_end(&mut Vec::new());
        drip.join().expect("an end");
    }
    assert_eq!(upstream.calls(), 0);
    assert_eq!(gateway.call("POST", "/to/a/x", &[], "whole").status, 200);
}

#[test]
fn a_head_that_is_too_long_is_refused() {
    let upstream = Upstream::answering(Some(200));
    let world = behind("", upstream.address);
    let gateway = world.serve();
    let guard = guard_of(&gateway, "a");
    for (address, to) in [(gateway.address, "/to/a/"), (guard, "/")] {
        let asked = |path: &str, headers: &[(&str, &str)]| {
            world::call(address, "POST", path, headers, "x").expect("an answer").status
        };
        let path = |length: usize| format!("{to}{}", "x".repeat(length - to.len()));
        let before = upstream.calls();
        assert_eq!(asked(&path(8 << 10), &[]), 200);
        assert_eq!(asked(&path((8 << 10) + 1), &[]), 414);
        assert_eq!(asked(&format!("{to}x?{}", "y".repeat(8 << 10)), &[]), 414);
        // With those that say the length, the host and what becomes of the connection.
        assert_eq!(asked(to, &[("x-a", "b"); 97]), 200);
        assert_eq!(asked(to, &[("x-a", "b"); 98]), 431);
        let long = "x".repeat(70 << 10);
        assert_eq!(asked(to, &[("x-a", &long)]), 431);
        assert_eq!(upstream.calls() - before, 2);
    }
}

#[test]
fn a_connection_of_http2_on_which_nothing_is_asked_is_ended() {
    let upstream = Upstream::answering(Some(200));
    let world = behind("idle_timeout = \"400ms\"", upstream.address);
    let gateway = world.serve();
    let mut stream = connect(gateway.address);
    let settings = frame(wire_http2::SETTINGS, 0, 0, &[]);
    let ends = wire_http2::END_HEADERS | wire_http2::END_STREAM;
    let call = frame(wire_http2::HEADERS, ends, 1, &wire_http2::call("/to/a/x", "k"));
    stream.write_all(&[wire_http2::PREFACE, &settings, &call].concat()).expect("a request");
    // It answers, and then it closes.
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    assert!(said.len() > 50, "{said:?}");
    assert_eq!(upstream.calls(), 1);
}

#[test]
fn a_caller_that_takes_nothing_of_its_answer_is_let_go() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let world = behind("idle_timeout = \"400ms\"", address);
    let gateway = world.serve();
    let pouring = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a connection");
        let mut reader = BufReader::new(stream);
        read_head(&mut reader).expect("a request");
        let mut stream = reader.into_inner();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").expect("a head");
        // It goes on for as long as anybody takes it.
        let piece = vec![b'x'; 64 << 10];
        while stream.write_all(&piece).is_ok() {}
    });
    let mut stream = connect(gateway.address);
    let head =
        format!("GET /to/a/x HTTP/1.1\r\nhost: {address}\r\n\r\n", address = gateway.address);
    stream.write_all(head.as_bytes()).expect("a request");
    pouring.join().expect("an end, though nobody hung up");
}
