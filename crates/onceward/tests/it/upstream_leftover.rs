//! An answer goes to the request that it answers: doubled, early, late and left-over ones reach
//! nobody else, over connections that are used again.

use std::net::SocketAddr;
use std::time::Duration;

use onceward::core::attempt::Ending;
use onceward::upstream::{Door, Target};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::misbehave::{door, post, target};

/// An upstream that answers with the request's own body. The body's first word says how.
struct Echo {
    address: SocketAddr,
    /// How many answers that nobody asked for have left.
    extra: watch::Receiver<usize>,
    /// Lets late answers go.
    release: watch::Sender<bool>,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (extra_tx, extra) = watch::channel(0);
        let release = watch::Sender::new(false);
        let released = release.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (extra, release) = (extra_tx.clone(), released.subscribe());
                tokio::spawn(serve(stream, extra, release));
            }
        });
        Self { address, extra, release }
    }

    fn target(&self) -> Target {
        target(&format!("http://{}/", self.address))
    }

    async fn extra(&self, n: usize) {
        self.extra.clone().wait_for(|extra| *extra >= n).await.expect("the upstream runs");
    }
}

fn answer(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A request, of which only the head is read where the body is large.
async fn read(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or(0);
    if length > 1 << 20 {
        return Some((head, b"too-large".to_vec()));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((head, body))
}

async fn serve(
    mut stream: TcpStream,
    extra: watch::Sender<usize>,
    mut release: watch::Receiver<bool>,
) -> Option<()> {
    stream.set_nodelay(true).expect("a socket");
    while let Some((_, body)) = read(&mut stream).await {
        let evil = answer(b"evil");
        let word = body.split(|byte| *byte == b' ').next().unwrap_or_default();
        match word {
            b"doubled" => {
                stream.write_all(&[answer(&body), evil].concat()).await.ok()?;
            }
            b"close" => {
                stream.write_all(&answer(&body)).await.ok()?;
                return None;
            }
            b"later" => {
                stream.write_all(&answer(&body)).await.ok()?;
                // It may have gone for good by now: that is as well.
                let _ = stream.write_all(&evil).await;
                extra.send_modify(|extra| *extra += 1);
            }
            b"late" => {
                release.wait_for(|release| *release).await.ok()?;
                let _ = stream.write_all(&evil).await;
                extra.send_modify(|extra| *extra += 1);
            }
            // An answer while the request is not whole, and one that would fit the next.
            b"too-large" => {
                let early = b"HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\n\r\nearly";
                stream.write_all(&[&early[..], &evil].concat()).await.ok()?;
                let mut rest = [0; 4096];
                while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
                return None;
            }
            _ => stream.write_all(&answer(&body)).await.ok()?,
        }
    }
    None
}

async fn own(door: &Door, target: Target, body: &str) {
    let answer = post(door, target, body.as_bytes()).await;
    assert_eq!(answer, Ok((200, body.as_bytes().to_vec())), "its own answer and no other");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_an_answer_that_was_given_to_another() {
    let upstream = Echo::start().await;
    let door = std::sync::Arc::new(door());
    let mut callers = JoinSet::new();
    for caller in 0..8 {
        let (door, target) = (std::sync::Arc::clone(&door), upstream.target());
        callers.spawn(async move {
            let mut answered = 0;
            for n in 0..60 {
                let how = ["plain", "doubled", "plain", "close", "plain"][(caller * 7 + n) % 5];
                let body = format!("{how} {caller}/{n}");
                // A connection that closes while a request is written to it has none for it.
                if let Ok(answer) = post(&door, target.clone(), body.as_bytes()).await {
                    assert_eq!(answer, (200, body.into_bytes()), "its own answer and no other");
                    answered += 1;
                }
            }
            answered
        });
    }
    let mut answered = 0;
    while let Some(ended) = callers.join_next().await {
        answered += ended.expect("its own answers");
    }
    assert!(answered > 240, "of 480 callers only {answered} got an answer");
}

#[tokio::test]
async fn an_answer_that_comes_while_nobody_asks_is_not_the_next_ones() {
    let upstream = Echo::start().await;
    let door = door();
    for n in 0..20 {
        own(&door, upstream.target(), &format!("later {n}")).await;
        upstream.extra(n + 1).await;
        own(&door, upstream.target(), &format!("plain {n}")).await;
    }
}

#[tokio::test]
async fn an_answer_that_comes_too_late_is_not_the_next_ones() {
    let upstream = Echo::start().await;
    let door = door();
    let mut impatient = upstream.target();
    impatient.timeouts.head = Duration::from_millis(100);
    for n in 0..3 {
        let failure = post(&door, impatient.clone(), b"late").await.expect_err("it is late");
        assert_eq!(failure.ending, Ending::Unanswered);
        upstream.release.send_replace(n % 2 == 0);
        if n % 2 == 0 {
            upstream.extra(n + 1).await;
        }
        own(&door, upstream.target(), &format!("plain {n}")).await;
        upstream.release.send_replace(false);
    }
}

#[tokio::test]
async fn an_answer_before_the_request_is_whole_is_its_own_and_ends_the_connection() {
    let upstream = Echo::start().await;
    let door = door();
    for n in 0..3 {
        match post(&door, upstream.target(), &vec![b'x'; 24 << 20]).await {
            Ok(answer) => assert_eq!(answer, (413, b"early".to_vec())),
            Err(failure) => assert_eq!(failure.ending, Ending::Unanswered, "{failure:?}"),
        }
        own(&door, upstream.target(), &format!("plain {n}")).await;
    }
}
