//! What passes without a record: both bodies go through as they come, however large and however
//! long, and none that broke off looks whole.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::world::{Gateway, World, read_head, read_line};

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

const SSE: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";

/// A side of an exchange, byte by byte.
struct Side(BufReader<TcpStream>);

impl Side {
    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    fn write(&mut self, bytes: &str) {
        self.0.get_mut().write_all(bytes.as_bytes()).unwrap();
    }

    /// The first line and the headers.
    #[track_caller]
    fn head(&mut self) -> (String, Vec<(String, String)>) {
        read_head(&mut self.0).unwrap()
    }

    #[track_caller]
    fn line(&mut self) -> String {
        read_line(&mut self.0).unwrap()
    }

    /// The next chunk; empty at the end, before the trailers.
    #[track_caller]
    fn chunk(&mut self) -> String {
        let size = usize::from_str_radix(&self.line(), 16).unwrap();
        let piece = self.take(size);
        if size > 0 {
            assert_eq!(self.line(), "");
        }
        piece
    }

    #[track_caller]
    fn take(&mut self, length: usize) -> String {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// Everything until the other side closes; a reset is an end, too.
    fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        while let Ok(piece) = self.0.fill_buf() {
            if piece.is_empty() {
                break;
            }
            let length = piece.len();
            rest.extend_from_slice(piece);
            self.0.consume(length);
        }
        String::from_utf8_lossy(&rest).into_owned()
    }

    fn close(self) {
        self.0.get_ref().shutdown(Shutdown::Both).unwrap();
    }
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
}

/// A gateway before an upstream that a test plays by hand.
struct Passing {
    gateway: Gateway,
    upstream: TcpListener,
    _world: World,
}

impl Passing {
    fn new(more: &str) -> Self {
        let world = World::new();
        let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = upstream.local_addr().unwrap();
        world.write(
            "onceward.toml",
            &format!(
                "[routes.api]\nupstream = \"http://{address}\"\nbody_bytes_max = \"64KiB\"\n\
                 key.missing = \"pass\"\n{more}"
            ),
        );
        let gateway = world.serve();
        Self { gateway, upstream, _world: world }
    }

    fn caller(&self) -> Side {
        Side::new(TcpStream::connect(self.gateway.address).unwrap())
    }

    /// The next connection to the upstream.
    fn accept(&self) -> Side {
        Side::new(self.upstream.accept().unwrap().0)
    }

    /// A caller that has asked for `path`, and the upstream that has heard it.
    fn asked(&self, path: &str) -> (Side, Side) {
        let mut caller = self.caller();
        caller.write(&format!("GET /to/api{path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"));
        let mut upstream = self.accept();
        upstream.head();
        (caller, upstream)
    }

    /// What has been asked of the upstream so far, where nothing is to be asked.
    fn nothing_was_sent(&self) {
        self.upstream.set_nonblocking(true).unwrap();
        self.upstream.accept().unwrap_err();
        self.upstream.set_nonblocking(false).unwrap();
    }
}

/// A head whose body is chunks.
fn chunked(path: &str, more: &str) -> String {
    format!(
        "POST /to/api{path} HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n{more}\r\n"
    )
}

/// Writes `mebibytes` in the background.
fn pour(caller: &Side, mebibytes: usize) -> JoinHandle<std::io::Result<()>> {
    let mut stream = caller.0.get_ref().try_clone().unwrap();
    std::thread::spawn(move || {
        let piece = vec![b'x'; 1 << 20];
        (0..mebibytes).try_for_each(|_| stream.write_all(&piece))
    })
}

#[test]
fn an_upload_far_larger_than_any_limit_takes_no_memory_however_slow_the_upstream_is() {
    const MEBIBYTES: usize = 256;
    let world = Passing::new("");
    let before = world.gateway.memory("VmHWM");
    let mut caller = world.caller();
    let length = MEBIBYTES << 20;
    caller.write(&format!(
        "POST /to/api/up HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {length}\r\n\r\n"
    ));
    let pouring = pour(&caller, MEBIBYTES);
    let mut upstream = world.accept();
    let (line, headers) = upstream.head();
    assert_eq!(line, "POST /up HTTP/1.1");
    assert_eq!(header(&headers, "content-length"), Some(length.to_string().as_str()));
    // Whoever kept what is not taken would have it all by now.
    std::thread::sleep(Duration::from_millis(500));
    let mut left = length;
    let mut piece = vec![0; 1 << 20];
    while left > 0 {
        let read = upstream.0.read(&mut piece).unwrap();
        assert!(read > 0, "{left} bytes are missing");
        left -= read;
    }
    upstream.write("HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok");
    pouring.join().unwrap().unwrap();
    assert_eq!(caller.head().0, "HTTP/1.1 201 Created");
    let grown = world.gateway.memory("VmHWM").saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB more");
}

#[test]
fn a_download_keeps_its_length_and_takes_no_memory_however_slow_the_caller_is() {
    const MEBIBYTES: usize = 256;
    let world = Passing::new("");
    let before = world.gateway.memory("VmHWM");
    let (mut caller, mut upstream) = world.asked("/down");
    let length = MEBIBYTES << 20;
    upstream.write(&format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n"));
    let pouring = pour(&upstream, MEBIBYTES);
    let (_, headers) = caller.head();
    assert_eq!(header(&headers, "content-length"), Some(length.to_string().as_str()));
    std::thread::sleep(Duration::from_millis(500));
    let mut whole = caller.0.take(length as u64);
    assert_eq!(std::io::copy(&mut whole, &mut std::io::sink()).unwrap(), length as u64);
    pouring.join().unwrap().unwrap();
    let grown = world.gateway.memory("VmHWM").saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB more");
}

#[test]
fn head_answers_say_how_long_the_body_would_be() {
    let world = Passing::new("");
    let mut caller = world.caller();
    caller.write("HEAD /to/api/down HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
    let mut upstream = world.accept();
    upstream.head();
    upstream.write("HTTP/1.1 200 OK\r\ncontent-length: 12345\r\n\r\n");
    let (_, headers) = caller.head();
    assert_eq!(header(&headers, "content-length"), Some("12345"));
}

#[test]
fn an_upstream_of_http_1_0_is_answered_on_in_the_callers_http() {
    let world = Passing::new("");
    let (mut caller, mut upstream) = world.asked("/old");
    upstream.write("HTTP/1.0 200 OK\r\n\r\nold");
    let (line, headers) = caller.head();
    assert_eq!(line, "HTTP/1.1 200 OK");
    assert_eq!(header(&headers, "transfer-encoding"), Some("chunked"));
    assert_eq!(caller.chunk(), "old");
    upstream.close();
    assert_eq!(caller.chunk(), "");
}

#[test]
fn each_event_of_a_stream_is_there_before_the_next_one() {
    let world = Passing::new("");
    let (mut caller, mut upstream) = world.asked("/events");
    upstream.write(SSE);
    assert_eq!(caller.head().0, "HTTP/1.1 200 OK");
    for n in 0..20 {
        let event = format!("data: {n}\n\n");
        upstream.write(&event);
        assert_eq!(caller.chunk(), event, "it came before the upstream said more");
    }
    upstream.close();
    assert_eq!(caller.chunk(), "");
}

#[test]
fn a_stream_that_never_ends_keeps_no_slot() {
    let world = Passing::new("concurrency_max = 1\n");
    let mut streams = Vec::new();
    for _ in 0..3 {
        let (mut caller, mut upstream) = world.asked("/events");
        upstream.write(SSE);
        assert_eq!(caller.head().0, "HTTP/1.1 200 OK");
        streams.push((caller, upstream));
    }
}

#[test]
fn trailers_go_both_ways() {
    let world = Passing::new("");
    let mut caller = world.caller();
    caller.write(&chunked("/sum", "trailer: x-sum\r\nte: trailers, deflate\r\n"));
    caller.write("2\r\nab\r\n");
    let mut upstream = world.accept();
    let (_, headers) = upstream.head();
    assert_eq!(header(&headers, "te"), Some("trailers"), "what else it takes is not for us to say");
    assert_eq!(header(&headers, "connection"), Some("te"));
    assert_eq!(header(&headers, "trailer"), Some("x-sum"));
    assert_eq!(upstream.chunk(), "ab", "it came before the caller said more");
    caller.write("0\r\nx-sum: 3\r\n\r\n");
    assert_eq!(upstream.chunk(), "");
    assert_eq!(upstream.line(), "x-sum: 3");
    upstream.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n");
    upstream.write("1\r\nc\r\n0\r\nx-sum: 1\r\n\r\n");
    let (_, headers) = caller.head();
    assert_eq!(header(&headers, "trailer"), Some("x-sum"));
    assert_eq!((caller.chunk(), caller.chunk()), ("c".to_owned(), String::new()));
    assert_eq!(caller.line(), "x-sum: 1");
}

#[test]
fn an_upload_that_breaks_off_never_looks_whole() {
    let world = Passing::new("");
    let mut caller = world.caller();
    caller.write(&chunked("/up", ""));
    caller.write("3\r\nabc\r\n");
    let mut upstream = world.accept();
    upstream.head();
    assert_eq!(upstream.chunk(), "abc");
    caller.close();
    assert_eq!(upstream.rest(), "", "no last chunk");

    let mut caller = world.caller();
    caller.write("POST /to/api/up HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1000000\r\n\r\n");
    caller.write("abc");
    let mut upstream = world.accept();
    upstream.head();
    assert_eq!(upstream.take(3), "abc");
    caller.close();
    assert_eq!(upstream.rest(), "", "it stays short");
}

#[test]
fn a_download_that_breaks_off_never_looks_whole() {
    let world = Passing::new("");
    for head in ["content-length: 10", "transfer-encoding: chunked"] {
        let (mut caller, mut upstream) = world.asked("/down");
        upstream.write(&format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n"));
        upstream.write(if head.starts_with('c') { "abc" } else { "3\r\nabc\r\n" });
        caller.head();
        upstream.close();
        let rest = caller.rest();
        assert!(rest == "abc" || rest == "3\r\nabc\r\n", "{rest:?}");
    }
}

#[test]
fn a_caller_that_hangs_up_ends_the_call_before_the_head_and_after_it() {
    let world = Passing::new("");
    let (caller, mut upstream) = world.asked("/slow");
    caller.close();
    assert_eq!(upstream.rest(), "", "the connection ended");

    let (mut caller, mut upstream) = world.asked("/events");
    upstream.write(SSE);
    caller.head();
    caller.close();
    assert_eq!(upstream.rest(), "", "the connection ended");
}

#[test]
fn an_answer_that_comes_before_the_upload_ends_is_given_at_once() {
    let world = Passing::new("");
    let mut caller = world.caller();
    caller.write("POST /to/api/up HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1000000\r\n\r\n");
    let mut upstream = world.accept();
    upstream.head();
    upstream.write("HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nno.");
    assert_eq!(caller.head().0, "HTTP/1.1 413 Too Large");
    assert_eq!(caller.take(3), "no.");
    drop(upstream);
    // The connection that has half a request on it carries no other.
    let mut other = world.caller();
    other.write("GET /to/api/next HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
    assert_eq!(world.accept().head().0, "GET /next HTTP/1.1");
}

#[test]
fn an_upload_may_take_longer_than_a_head() {
    let world = Passing::new("timeouts = { head = \"200ms\" }\n");
    let mut caller = world.caller();
    caller.write(&chunked("/up", ""));
    let mut upstream = world.accept();
    upstream.head();
    for n in 0..5 {
        // A caller has a clock of its own.
        std::thread::sleep(Duration::from_millis(100));
        caller.write("1\r\nx\r\n");
        assert_eq!(upstream.chunk(), "x", "piece {n}");
    }
    caller.write("0\r\n\r\n");
    assert_eq!(upstream.chunk(), "");
    upstream.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(caller.head().0, "HTTP/1.1 200 OK");
}

#[test]
fn an_answer_may_take_longer_than_an_attempt_as_long_as_it_moves() {
    let world = Passing::new("timeout = \"300ms\"\ntimeouts = { body = \"30s\" }\n");
    let (mut caller, mut upstream) = world.asked("/events");
    upstream.write(SSE);
    caller.head();
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(100));
        upstream.write("data: x\n\n");
        assert_eq!(caller.chunk(), "data: x\n\n");
    }
}

#[test]
fn a_caller_is_told_to_continue_once_the_upstream_was_reached_and_not_before() {
    // Nobody listens on port 1.
    let world = Passing::new(
        "[routes.dead]\nupstream = \"http://127.0.0.1:1\"\nkey.missing = \"pass\"\n\
         breaker = false\nretry = { attempts_max = 1 }\n",
    );
    let expect = |route: &str| {
        let mut caller = world.caller();
        caller.write(&format!(
            "POST /to/{route}/up HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100000\r\n\
             expect: 100-continue\r\n\r\n"
        ));
        caller
    };
    let mut caller = expect("api");
    let mut upstream = world.accept();
    let (_, headers) = upstream.head();
    assert_eq!(header(&headers, "expect"), None, "it is kept by us");
    assert_eq!(caller.head().0, "HTTP/1.1 100 Continue");
    caller.write(&"x".repeat(100_000));
    upstream.take(100_000);
    upstream.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(caller.head().0, "HTTP/1.1 200 OK");
    let refused = expect("dead").head().0;
    assert_eq!(refused, "HTTP/1.1 503 Service Unavailable", "and no body was asked for");
}

#[test]
fn interim_answers_are_passed_over_and_the_final_one_comes() {
    let world = Passing::new("");
    let (mut caller, mut upstream) = world.asked("/page");
    upstream.write("HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n");
    upstream.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    assert_eq!(caller.head().0, "HTTP/1.1 200 OK");
    assert_eq!(caller.take(2), "ok");
}

#[test]
fn whoever_wants_to_leave_http_is_told_that_it_does_not_go_through_here() {
    let world = Passing::new("");
    let socket = [("connection", "upgrade"), ("upgrade", "websocket")];
    let refused = world.gateway.call("GET", "/to/api/socket", &socket, "");
    assert_eq!((refused.status, refused.json()["code"].as_str()), (501, Some("upgrade-refused")));
    world.nothing_was_sent();
    // An offer of HTTP/2 may be passed over.
    let mut caller = world.caller();
    caller.write(
        "GET /to/api/page HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: upgrade, http2-settings\r\n\
         upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n",
    );
    let mut upstream = world.accept();
    let (_, headers) = upstream.head();
    assert_eq!(header(&headers, "upgrade").or_else(|| header(&headers, "http2-settings")), None);
    upstream.write("HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(caller.head().0, "HTTP/1.1 204 No Content");
}

#[test]
fn a_keyed_call_is_received_whole_and_remembered_as_before() {
    let world = Passing::new("effects = \"keyed\"\n");
    let mut caller = world.caller();
    caller.write(&chunked("/pay", "idempotency-key: k\r\n"));
    caller.write("2\r\nab\r\n");
    let large = "x".repeat(100_000);
    let refused = world.gateway.call("POST", "/to/api/pay", &[("idempotency-key", "l")], &large);
    assert_eq!(refused.status, 413, "a limit is a limit");
    world.nothing_was_sent();
    caller.write("0\r\n\r\n");
    let mut upstream = world.accept();
    let (_, headers) = upstream.head();
    assert_eq!(header(&headers, "content-length"), Some("2"), "it was kept whole before");
    assert_eq!(header(&headers, "idempotency-key"), Some("k"));
    upstream.take(2);
    upstream.write("HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok");
    assert_eq!(caller.head().0, "HTTP/1.1 201 Created");
    let again = world.gateway.call("POST", "/to/api/pay", &[("idempotency-key", "k")], "ab");
    assert_eq!((again.status, again.header("idempotent-replayed")), (201, Some("true")));
}

#[test]
fn where_the_key_is_in_the_body_the_body_tells_what_passes() {
    let world = Passing::new("effects = \"keyed\"\nkey.json = \"/id\"\n");
    let mut caller = world.caller();
    caller.write("POST /to/api/pay HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 10\r\n\r\n");
    caller.write("{\"id\":\"k\"}");
    let mut upstream = world.accept();
    let (_, headers) = upstream.head();
    assert!(header(&headers, "onceward-operation").is_some(), "it has a record: {headers:?}");
    upstream.take(10);
    upstream.write("HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok");
    assert_eq!(caller.head().0, "HTTP/1.1 201 Created");
    caller.take(2);
    caller.write("POST /to/api/pay HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 7\r\n\r\n");
    caller.write("{\"a\":1}");
    let (_, headers) = upstream.head();
    assert_eq!(header(&headers, "onceward-operation"), None, "it passes: {headers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_may_speak_http2_to_an_upstream_that_does_not() {
    let world = Passing::new("");
    let socket = tokio::net::TcpStream::connect(world.gateway.address).await.unwrap();
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    let trailers: HeaderMap =
        [("x-sum".parse().unwrap(), "3".parse().unwrap())].into_iter().collect();
    let body = Full::new(Bytes::from_static(b"ab")).with_trailers(async { Some(Ok(trailers)) });
    let body = Box::pin(body);
    let request = http::Request::post(format!("http://{}/to/api/up", world.gateway.address))
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("trailer", "x-sum")
        .header("te", "trailers")
        .body(body)
        .unwrap();
    let upstream = std::thread::spawn(move || {
        let mut upstream = world.accept();
        let (line, headers) = upstream.head();
        assert_eq!(line, "POST /up HTTP/1.1");
        assert_eq!(header(&headers, "cookie"), Some("a=1; b=2"));
        assert_eq!(header(&headers, "content-length"), None, "only chunks have trailers");
        assert_eq!((upstream.chunk(), upstream.chunk()), ("ab".to_owned(), String::new()));
        assert_eq!((upstream.line(), upstream.line()), ("x-sum: 3".to_owned(), String::new()));
        upstream.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n");
        upstream.write("1\r\nc\r\n0\r\nx-sum: 1\r\n\r\n");
        world
    });
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.headers().get("transfer-encoding"), None);
    let answer = answer.into_body().collect().await.unwrap();
    assert_eq!(answer.trailers().unwrap()["x-sum"], "1");
    assert_eq!(answer.to_bytes(), "c");
    upstream.join().unwrap();
}

#[test]
fn an_idle_connection_that_was_closed_costs_an_upload_nothing() {
    let world = Passing::new("retry = { attempts_max = 1 }\n");
    let (mut caller, mut upstream) = world.asked("/first");
    upstream.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    caller.head();
    upstream.close();
    caller.write(&chunked("/up", ""));
    caller.write("2\r\nab\r\n0\r\n\r\n");
    let mut upstream = world.accept();
    upstream.head();
    assert_eq!((upstream.chunk(), upstream.chunk()), ("ab".to_owned(), String::new()));
    upstream.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(caller.head().0, "HTTP/1.1 200 OK");
}

#[test]
fn what_was_begun_is_never_sent_again() {
    let world = Passing::new("effects = \"idempotent\"\n");
    let mut caller = world.caller();
    caller.write(&chunked("/up", ""));
    caller.write("2\r\nab\r\n");
    let mut upstream = world.accept();
    upstream.head();
    assert_eq!(upstream.chunk(), "ab");
    upstream.close();
    assert_eq!(caller.head().0, "HTTP/1.1 504 Gateway Timeout");
    world.nothing_was_sent();
}
