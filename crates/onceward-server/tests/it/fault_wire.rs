//! Upstreams and callers that misbehave on the wire: every attempt is told for what it was,
//! nothing hangs, memory stays flat, and a caller that hangs up changes nothing.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::crash_world::{Gateway, World};
use onceward_proof::chance::Chance;
use onceward_proof::check::{Ask, Log, check};
use onceward_proof::figures::{Figures, number, tell};
use onceward_proof::line::{Line, request};

/// The pace of a trickle: far slower than any timeout here.
const TRICKLE: Duration = Duration::from_millis(40);

/// What the large answer weighs.
const LARGE: u64 = 300 << 20;

/// What does not fit a segment of this ledger's journal, though it is no large answer.
const SEGMENT: u64 = 2 << 20;

/// How long callers wait, at most, before they hang up; on a machine with nothing else to do.
const HANG_UP_WITHIN: Duration = Duration::from_millis(6);

/// An upstream whose paths name what it does to a request that it has read.
async fn rogue() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                // A connection that ends badly ends alone: that is its point.
                let _ = misbehave(Line::new(stream)).await;
            });
        }
    });
    address
}

async fn misbehave(mut line: Line) -> std::io::Result<()> {
    while let Some(message) = line.read().await? {
        let path = message.start.split(' ').nth(1).unwrap_or_default().to_owned();
        let is_first = message.header("onceward-attempt") == Some("1");
        let fault = path.rsplit('/').next().unwrap_or_default();
        if !is_first {
            line.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
            continue;
        }
        match fault {
            "slow-head" => {
                line.write(b"HTTP/1.1 200 OK\r\nx-slow: ").await?;
                loop {
                    line.write(b"a").await?;
                    tokio::time::sleep(TRICKLE).await;
                }
            }
            "slow-body" => {
                line.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await?;
                loop {
                    line.write(b"a").await?;
                    tokio::time::sleep(TRICKLE).await;
                }
            }
            "cut" => {
                line.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly so far").await?;
                return Ok(());
            }
            "cut-chunk" => {
                line.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nonly ")
                    .await?;
                return Ok(());
            }
            "garbage" => {
                line.write(b"\x16\x03\x01\x02 this is not HTTP\r\n\r\n").await?;
                return Ok(());
            }
            "reset" => {
                // A linger of nothing makes closing a reset.
                let _ = line.stream.set_zero_linger();
                return Ok(());
            }
            "close" => return Ok(()),
            "silent" => std::future::pending::<()>().await,
            // An answer that keeps the connection, which is closed all the same.
            "liar" => {
                line.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
                return Ok(());
            }
            "kept" => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {KEPT}\r\n\r\n");
                line.write(head.as_bytes()).await?;
                let body: Vec<u8> = (0..KEPT).map(|at| (at / 1000) as u8).collect();
                line.write(&body).await?;
            }
            "large" | "endless" | "segment" => {
                let size = match fault {
                    "large" => LARGE,
                    "segment" => SEGMENT,
                    _ => 1 << 50,
                };
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n");
                line.write(head.as_bytes()).await?;
                let piece = vec![b'x'; 1 << 20];
                let mut left = size;
                while left > 0 {
                    line.write(&piece).await?;
                    left -= piece.len() as u64;
                }
            }
            _ => line.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?,
        }
    }
    Ok(())
}

async fn world() -> World {
    let rogue = rogue().await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let held = "breaker = false\nwait = \"2s\"\nheld = { attempts_max = 2, base = \"5ms\", floor = \"1ms\", cap = \"20ms\" }";
    World::with(
        3,
        &format!(
            r#"
[routes.rogue-once]
upstream = "http://{rogue}"
effects = "non-idempotent"
timeout = "500ms"
{held}

[routes.rogue-keyed]
upstream = "http://{rogue}"
effects = "keyed"
timeout = "500ms"
{held}

[routes.rogue-patient]
upstream = "http://{rogue}"
effects = "non-idempotent"
timeout = "120s"
answer_max = "120s"

[routes.closed]
upstream = "http://{closed}"
effects = "non-idempotent"
timeout = "500ms"
{held}
"#
        ),
    )
    .await
}

/// The first attempt: how it ended, how far it got, and the status.
fn first(operation: &Value) -> (String, String, Option<u64>) {
    let attempt = &operation["attempts"][0];
    let text = |name: &str| attempt[name].as_str().unwrap_or_default().to_owned();
    (text("ending"), text("reached"), attempt["status"].as_u64())
}

/// Milliseconds from the first attempt's start to its end.
fn took(operation: &Value) -> i64 {
    let at = |name: &str| {
        let text = operation["attempts"][0][name].as_str().unwrap();
        text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
    };
    at("ended_at") - at("started_at")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_upstream_does_to_an_attempt_is_told_for_what_it_was() {
    let world = world().await;
    let gateway = world.start().await;
    // Fault, ending, reached, status; on a non-idempotent route: state, and what the caller gets.
    let doubt = ("in_doubt", 504, "outcome-unknown");
    let known = ("done", 409, "response-not-retained");
    let table = [
        ("slow-head", "unanswered", "sent", None, doubt),
        ("slow-body", "truncated", "head", Some(200), known),
        ("cut", "truncated", "head", Some(200), known),
        ("cut-chunk", "truncated", "head", Some(200), known),
        ("garbage", "unanswered", "sent", None, doubt),
        ("reset", "unanswered", "sent", None, doubt),
        ("close", "unanswered", "sent", None, doubt),
        ("silent", "unanswered", "sent", None, doubt),
    ];
    for (fault, ending, reached, status, (state, told, code)) in table {
        let was = (ending.to_owned(), reached.to_owned(), status);
        let (once, keyed) = (format!("/rogue-once/{fault}"), format!("/rogue-keyed/{fault}"));
        let (once, keyed) =
            tokio::join!(gateway.call(&once, fault, b"{}"), gateway.call(&keyed, fault, b"{}"));
        let (once, keyed) = (once.unwrap(), keyed.unwrap());
        assert_eq!((once.status(), once.code().as_str()), (told, code), "{fault}");
        let operation = gateway.rested("rogue-once", fault).await;
        assert_eq!(operation["state"], state, "{fault}: {operation}");
        assert_eq!(first(&operation), was, "{fault}: {operation}");
        assert_eq!(operation["attempts"].as_array().unwrap().len(), 1, "{fault}");
        // The timeout is half a second; what ends ten times later hangs.
        assert!(took(&operation) < 5000, "{fault} took {} ms", took(&operation));
        // What an upstream dedupes is asked again, and the caller gets the second answer.
        assert_eq!((keyed.status(), keyed.body.as_slice()), (200, &b"ok"[..]), "{fault}");
        assert_eq!(keyed.header("onceward-attempts"), Some("2"), "{fault}");
        let operation = gateway.rested("rogue-keyed", fault).await;
        assert_eq!(first(&operation), was, "{fault}: {operation}");
        assert_eq!(operation["attempts"][1]["ending"], "answered", "{fault}");
        // And never once more.
        let again = gateway.call(&format!("/rogue-keyed/{fault}"), fault, b"{}").await.unwrap();
        assert_eq!(again.header("idempotent-replayed"), Some("true"), "{fault}");
        let again = gateway.call(&format!("/rogue-once/{fault}"), fault, b"{}").await.unwrap();
        assert_eq!((again.status(), again.code().as_str()), (409, code), "{fault}");
    }
    let refused = gateway.call("/closed/x", "closed", b"{}").await.unwrap();
    assert_eq!((refused.status(), refused.code().as_str()), (503, "upstream-unreachable"));
    let operation = gateway.rested("closed", "closed").await;
    assert_eq!((&operation["state"], &operation["reason"]), (&"dead".into(), &"unsent".into()));
    assert_eq!(operation["attempts"].as_array().unwrap().len(), 2, "{operation}");
    assert_eq!(first(&operation).0, "unsent", "{operation}");
    // Whoever sent no key gets the one that was made, to ask again with.
    let refused = gateway.line().await.ask("POST", "/to/closed/x", &[], b"{}").await.unwrap();
    assert_eq!((refused.status(), refused.header("onceward-key-made")), (503, Some("true")));
    let made = refused.header("idempotency-key").unwrap_or_default();
    assert_eq!(gateway.rested("closed", made).await["state"], "dead", "{made}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_was_closed_meanwhile_is_no_attempt_of_its_own() {
    let world = world().await;
    let gateway = world.start().await;
    for n in 0..60 {
        let key = format!("liar-{n}");
        let answer = gateway.call("/rogue-once/liar", &key, b"{}").await.unwrap();
        assert_eq!(answer.status(), 200, "{n}: {}", answer.json());
        assert_eq!(answer.header("onceward-attempts"), Some("1"), "{n}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_passes_through_and_memory_stays_flat() {
    let world = world().await;
    let gateway = world.start().await;
    let answer = gateway.call("/rogue-patient/large", "large", b"{}").await.unwrap();
    assert_eq!((answer.status(), answer.length), (200, LARGE));
    let peak = gateway.memory("VmHWM");
    tell(&format!("{} MiB passed through; {} MiB at most in memory", LARGE >> 20, peak >> 10));
    assert!(peak < 200 << 10, "{peak} KiB");
    let again = gateway.call("/rogue-patient/large", "large", b"{}").await.unwrap();
    assert_eq!((again.status(), again.code().as_str()), (409, "response-not-retained"));
    // One that would not fit the ledger is passed on, too, and not waited for.
    let answer = gateway.call("/rogue-patient/segment", "segment", b"{}").await.unwrap();
    assert_eq!((answer.status(), answer.length), (200, SEGMENT));
    // One that never ends is broken off, for the caller too: a part never poses as the whole.
    let endless = gateway.call("/rogue-once/endless", "endless", b"{}").await;
    assert!(endless.is_err() || endless.is_ok_and(|answer| answer.status() == 409));
    let operation = gateway.rested("rogue-once", "endless").await;
    assert_eq!(operation["state"], "done", "{operation}");
    assert_eq!(operation["outcome"]["retained"], false, "{operation}");
    assert!(gateway.memory("VmHWM") < 200 << 10);
}

/// Sends a call and hangs up at a random moment.
async fn hang_up(address: SocketAddr, ask: Ask, accepted: bool, after: Duration) {
    let mut line = Line::connect(address).await.unwrap();
    let mut headers =
        vec![("idempotency-key", ask.key.as_str()), ("content-type", "application/json")];
    if accepted {
        headers.push(("prefer", "respond-async"));
    }
    line.write(&request("POST", &format!("/to{}", ask.path), &headers, &ask.body)).await.unwrap();
    tokio::time::sleep(after).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_hangs_up_changes_nothing() {
    let seed = number("TEST_SEED", 11);
    let mut told = Figures::of("hang-ups", seed);
    let world = World::new(seed).await;
    let gateway = world.start().await;
    let log = Arc::new(Log::default());
    let mut chance = Chance(seed);
    let mut asks = Vec::new();
    let mut line = gateway.line().await;
    for n in 0..number("TEST_HANG_UPS", 960) / 16 {
        // A machine that is busy gets to their calls later, and they hang up as much later.
        let begun = Instant::now();
        line.ask("GET", "/healthz", &[], b"").await.unwrap();
        let within = (begun.elapsed() * 30).clamp(HANG_UP_WITHIN, 10 * HANG_UP_WITHIN);
        let mut callers = Vec::new();
        for m in 0..16 {
            let route = if m % 2 == 0 { "keyed" } else { "once" };
            let ask = Ask {
                route: route.to_owned(),
                path: format!("/{route}/chaos/things"),
                key: format!("{route}-{n}-{m}"),
                body: format!("{{\"ask\":\"{route}-{n}-{m}\"}}").into_bytes(),
            };
            log.ask(&ask);
            asks.push(ask.clone());
            let after = Duration::from_micros(chance.below(within.as_micros() as u64));
            let accepted = chance.below(3) == 0;
            callers.push(tokio::spawn(hang_up(gateway.address, ask, accepted, after)));
        }
        for caller in callers {
            caller.await.unwrap();
        }
    }
    // In the same process: what was begun comes to its end without whoever asked for it.
    gateway.quiet().await;
    let remembered = gateway.operations().await.len();
    let arrived = world.auditor.arrivals();
    for ask in &asks {
        let headers = [("idempotency-key", ask.key.as_str()), ("content-type", "application/json")];
        let path = format!("/to{}", ask.path);
        let answer = line.ask("POST", &path, &headers, &ask.body).await;
        log.told(&ask.key, &answer);
    }
    gateway.quiet().await;
    let checked = check(&log, &world.auditor, &gateway.operations().await);
    told.count("hung_up", asks.len());
    told.count("remembered", remembered);
    told.count("arrived", arrived);
    told.checked(&checked.figures);
    told.tell(checked.violations.len());
    checked.expect_kept();
    assert!(remembered > asks.len() / 4, "they hung up too early: {remembered}");
}

/// Whether the other side closed the connection.
async fn is_cut(mut stream: TcpStream) -> bool {
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    tokio::time::timeout(Duration::from_secs(40), read).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_never_finish_are_cut_and_keep_nobody_from_being_served() {
    let world = World::new(5).await;
    let gateway = world.start().await;
    let beginnings: [&[u8]; 5] = [
        b"",
        b"P",
        b"PRI * HTTP/2.0\r\n",
        b"POST /to/once/things HTTP/1.1\r\nhost: 127.0.0.1\r\nx-slow: ",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    let mut slow = Vec::new();
    for n in 0..500 {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        stream.write_all(beginnings[n % beginnings.len()]).await.unwrap();
        slow.push((n % beginnings.len(), tokio::spawn(is_cut(stream))));
    }
    // A body that does not come holds nobody up either.
    let mut body = TcpStream::connect(gateway.address).await.unwrap();
    body.write_all(b"POST /to/once/x HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n")
        .await
        .unwrap();
    for n in 0..50 {
        let answer = serve_one(&gateway, n).await;
        assert_eq!(answer, 201);
    }
    for (beginning, cut) in slow {
        assert!(cut.await.unwrap(), "{beginning}: never cut");
    }
    assert_eq!(serve_one(&gateway, 50).await, 201);
    assert_eq!(world.auditor.arrivals(), 51);
}

/// The weight of an answer that a route of this world still keeps.
const KEPT: usize = 3 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_never_read_their_answers_keep_nobody_from_being_served() {
    let world = world().await;
    let config = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(world.config(), config.replace("1MiB", "16MiB")).unwrap();
    let gateway = world.start().await;
    let first = gateway.call("/rogue-patient/kept", "kept", b"{}").await.unwrap();
    assert_eq!((first.status(), first.length), (200, KEPT as u64));
    let before = gateway.memory("VmHWM");
    let headers = [("idempotency-key", "kept"), ("content-type", "application/json")];
    let ask = request("POST", "/to/rogue-patient/kept", &headers, b"{}");
    let mut silent = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        stream.write_all(&ask).await.unwrap();
        silent.push(stream);
    }
    for n in 0..50 {
        assert_eq!(serve_one(&gateway, n).await, 201);
    }
    for stream in &silent {
        // Its answer has begun, and nobody takes it.
        stream.readable().await.unwrap();
    }
    let grown = gateway.memory("VmHWM").saturating_sub(before);
    tell(&format!("{} answers that nobody reads: {grown} KiB", silent.len()));
    assert!(grown < 64 << 10, "{grown} KiB");
    let again = gateway.call("/rogue-patient/kept", "kept", b"{}").await.unwrap();
    assert_eq!((again.length, again.header("idempotent-replayed")), (KEPT as u64, Some("true")));
    assert!(again.body == first.body, "the same bytes, piece by piece");
    assert_eq!(again.header("content-length"), first.header("content-length"));
}

async fn serve_one(gateway: &Gateway, n: usize) -> u16 {
    gateway.call("/once/things", &format!("honest-{n}"), b"{}").await.unwrap().status()
}
