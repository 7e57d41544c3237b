//! An upstream that does what a test tells it to, byte by byte, and keeps what arrived.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use onceward::core::exchange::{Headers, Request};
use onceward::upstream::{
    Answer, Dispatch, Door, DoorOptions, Egress, Failure, Sent, Target, Timeouts, Trust, Upstream,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use url::Url;

/// A complete answer after which the connection stays open.
pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// One thing that the upstream does on a connection. At the end of its list it closes it.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Reads one request to its end and keeps it.
    Read,
    /// Reads the head of a request, and keeps nothing.
    ReadHead,
    /// Reads so many bytes.
    ReadBytes(usize),
    /// Writes these bytes.
    Write(&'static [u8]),
    /// Writes these bytes again and again, until nobody reads them.
    Flood(&'static [u8]),
    /// Writes these bytes one at a time, slowly, the last of them for ever.
    Trickle(&'static [u8]),
    /// Closes by a reset.
    Reset,
    /// Does nothing more until the other side closes.
    Hang,
}

/// A request that arrived whole.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    /// On which connection, counted from 0.
    pub(crate) connection: usize,
    /// Request line and headers.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Arrived {
    /// The values of every line of this name.
    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .filter(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }

    pub(crate) fn request_line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }
}

pub(crate) struct Misbehave {
    pub(crate) address: SocketAddr,
    arrived: Arc<Mutex<Vec<Arrived>>>,
    /// How many connections were closed by the upstream.
    closed: watch::Receiver<usize>,
    listens: JoinHandle<()>,
}

impl Misbehave {
    /// Plays one list per connection, in order, and the last one for all that follow.
    pub(crate) async fn new(scripts: impl IntoIterator<Item = Vec<Act>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let arrived = Arc::new(Mutex::new(Vec::new()));
        let (closed_tx, closed) = watch::channel(0);
        let mut scripts: VecDeque<Vec<Act>> = scripts.into_iter().collect();
        let kept = Arc::clone(&arrived);
        let listens = tokio::spawn(async move {
            for connection in 0.. {
                let Ok((stream, _)) = listener.accept().await else {
                    return;
                };
                let script = match scripts.len() {
                    0 | 1 => scripts.front().cloned().unwrap_or_default(),
                    _ => scripts.pop_front().expect("not empty"),
                };
                let (kept, closed) = (Arc::clone(&kept), closed_tx.clone());
                tokio::spawn(async move {
                    play(stream, script, connection, &kept).await;
                    closed.send_modify(|n| *n += 1);
                });
            }
        });
        Self { address, arrived, closed, listens }
    }

    /// One script for every connection.
    pub(crate) async fn always(script: impl Into<Vec<Act>>) -> Self {
        Self::new([script.into()]).await
    }

    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().expect("not poisoned").clone()
    }

    /// Waits until this many connections were closed from this side.
    pub(crate) async fn closed(&self, n: usize) {
        self.closed.clone().wait_for(|closed| *closed >= n).await.expect("the upstream runs");
    }

    /// Stops listening, so that its port refuses.
    pub(crate) async fn stop(&mut self) {
        self.listens.abort();
        assert!((&mut self.listens).await.expect_err("it was aborted").is_cancelled());
    }

    pub(crate) fn target(&self) -> Target {
        target(&format!("http://{}/", self.address))
    }
}

async fn play(
    mut stream: TcpStream,
    script: Vec<Act>,
    connection: usize,
    kept: &Mutex<Vec<Arrived>>,
) {
    stream.set_nodelay(true).expect("a socket");
    for act in script {
        match act {
            Act::Read => match read(&mut stream, connection).await {
                Some(request) => kept.lock().expect("not poisoned").push(request),
                None => return,
            },
            Act::ReadHead => {
                if read_head(&mut stream).await.is_none() {
                    return;
                }
            }
            Act::ReadBytes(length) => {
                if stream.read_exact(&mut vec![0; length]).await.is_err() {
                    return;
                }
            }
            Act::Write(bytes) => {
                if stream.write_all(bytes).await.is_err() {
                    return;
                }
            }
            Act::Flood(bytes) => while stream.write_all(bytes).await.is_ok() {},
            Act::Trickle(bytes) => {
                let last = bytes.last().copied().unwrap_or(b' ');
                for byte in bytes.iter().copied().chain(std::iter::repeat(last)) {
                    if stream.write_all(&[byte]).await.is_err() {
                        return;
                    }
                    drip().await;
                }
            }
            Act::Reset => return stream.set_zero_linger().expect("a socket"),
            Act::Hang => {
                let mut rest = [0; 1024];
                while stream.read(&mut rest).await.is_ok_and(|n| n > 0) {}
            }
        }
    }
}

async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// One request, whole, or nothing.
async fn read(stream: &mut TcpStream, connection: usize) -> Option<Arrived> {
    let head = read_head(stream).await?;
    let mut request = Arrived { connection, head, body: Vec::new() };
    let length = request.header("content-length").first().map_or(0, |n| n.parse().expect("digits"));
    request.body = vec![0; length];
    stream.read_exact(&mut request.body).await.ok()?;
    Some(request)
}

/// An operator's upstream, with patience long enough for a busy machine.
pub(crate) fn target(base: &str) -> Target {
    Target {
        base: Url::parse(base).expect("a URL"),
        trust: Trust::Operator,
        http2: false,
        tls: None,
        mail: None,
        timeouts: Timeouts::default(),
    }
}

/// A door with nothing special about it.
pub(crate) fn door() -> Door {
    Door::new(Egress::default(), &DoorOptions::default()).expect("a door")
}

pub(crate) fn headers(lines: &[(&str, &[u8])]) -> Headers {
    Headers(lines.iter().map(|(n, v)| ((*n).to_owned(), Bytes::copy_from_slice(v))).collect())
}

pub(crate) fn dispatch(target: Target, method: &str, path: &str, body: &[u8]) -> Dispatch {
    Dispatch {
        target: Arc::new(target),
        request: Arc::new(Request {
            method: method.to_owned(),
            target: path.to_owned(),
            headers: Headers::default(),
            body: Bytes::copy_from_slice(body),
        }),
        headers: Headers::default(),
        doom: None,
    }
}

/// Posts to `/` and reads the whole answer: its status and body.
pub(crate) async fn post(
    door: &Door,
    target: Target,
    body: &[u8],
) -> Result<(u16, Vec<u8>), Failure> {
    let mut answer = answered(door.send(dispatch(target, "POST", "/", body)).await)?;
    let body = rest(&mut answer).await?;
    Ok((answer.status, body))
}

pub(crate) fn answered(sent: Sent) -> Result<Answer, Failure> {
    match sent {
        Sent::Answered(answer) => Ok(answer),
        Sent::Failed(failure) => Err(failure),
    }
}

/// The rest of an answer's body.
pub(crate) async fn rest(answer: &mut Answer) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(piece) = answer.body.chunk().await? {
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// The pace of a slow upstream.
#[expect(clippy::disallowed_methods, reason = "an upstream has a clock of its own")]
async fn drip() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}
