//! An upstream that forgives nothing: it records every request with its path and body, and
//! whatever in its bytes is not the gateway's own framing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// 200 MiB of zeros, packed twice; the answer at the path `/bomb`.
pub(crate) const BOMB: &[u8] = include_bytes!("bomb.gz.gz");

/// Headers that a gateway never passes on: framing, and what only a proxy or the gateway may say.
const NEVER: [&str; 12] = [
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "expect",
    "idempotent-replayed",
    "onceward-state",
    "http2-settings",
];

/// What is said of the way of a request: by a guard of its caller, and by nobody else.
const WAY: [&str; 4] = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];

/// A request that arrived.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    pub(crate) path: String,
    pub(crate) body: Vec<u8>,
}

#[derive(Debug, Default)]
struct Seen {
    arrived: Vec<Arrived>,
    wrong: Vec<String>,
}

/// The upstream, in this process.
#[derive(Debug, Clone)]
pub(crate) struct Strict {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    is_behind_a_guard: bool,
}

impl Strict {
    pub(crate) async fn start() -> Self {
        Self::before(false).await
    }

    /// One that a guard stands before, which tells it of the way.
    pub(crate) async fn behind_a_guard() -> Self {
        Self::before(true).await
    }

    async fn before(is_behind_a_guard: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let strict = Self { address, seen: Arc::default(), is_behind_a_guard };
        let shared = strict.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let strict = shared.clone();
                tokio::spawn(async move {
                    // A connection that ends badly ends alone.
                    let _ = strict.serve(stream).await;
                });
            }
        });
        strict
    }

    /// What arrived at each path.
    pub(crate) fn arrived(&self) -> HashMap<String, Vec<Arrived>> {
        let mut by_path = HashMap::<String, Vec<Arrived>>::new();
        for arrived in &self.seen.lock().unwrap_or_else(PoisonError::into_inner).arrived {
            by_path.entry(arrived.path.clone()).or_default().push(arrived.clone());
        }
        by_path
    }

    /// How many requests arrived.
    pub(crate) fn arrivals(&self) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).arrived.len()
    }

    /// What arrived in bytes that are not a gateway's.
    pub(crate) fn wrong(&self) -> Vec<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).wrong.clone()
    }

    async fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut ahead = Vec::new();
        loop {
            let end = loop {
                if let Some(at) = ahead.windows(4).position(|window| window == b"\r\n\r\n") {
                    break at;
                }
                if stream.read_buf(&mut ahead).await? == 0 {
                    if !ahead.is_empty() {
                        self.note(Err(format!("bytes without a head: {:?}", shown(&ahead))), None);
                    }
                    return Ok(());
                }
            };
            let host = self.address.to_string();
            let read = read_head(&ahead[..end], &host, self.is_behind_a_guard);
            let length = read.as_ref().map_or(0, |(_, length)| *length);
            while ahead.len() < end + 4 + length {
                if stream.read_buf(&mut ahead).await? == 0 {
                    return Ok(());
                }
            }
            let rest = ahead.split_off(end + 4 + length);
            let body = ahead.split_off(end + 4);
            let is_bomb = read.as_ref().is_ok_and(|(path, _)| path == "/bomb");
            self.note(read.map(|(path, _)| path), Some(body));
            ahead = rest;
            if is_bomb {
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-encoding: gzip, gzip\r\ncontent-length: {}\r\n\r\n",
                    BOMB.len()
                );
                stream.write_all(&[head.as_bytes(), BOMB].concat()).await?;
            } else {
                stream.write_all(ANSWER).await?;
            }
        }
    }

    fn note(&self, read: Result<String, String>, body: Option<Vec<u8>>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(path) => seen.arrived.push(Arrived { path, body: body.unwrap_or_default() }),
            Err(wrong) => seen.wrong.push(wrong),
        }
    }
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]).into_owned()
}

/// The path and the body's length, where the head is in the gateway's own framing and no other.
fn read_head(head: &[u8], host: &str, is_behind_a_guard: bool) -> Result<(String, usize), String> {
    let wrong = |what: &str| Err(format!("{what}: {:?}", shown(head)));
    let mut lines = head.split(|byte| *byte == b'\n');
    let line = |line: &[u8]| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let fits = line.iter().all(|byte| *byte >= 0x20 && *byte != 0x7f || *byte == b'\t');
        fits.then(|| line.to_vec())
    };
    let Some(start) = lines.next().and_then(line) else { return wrong("a control character") };
    let words: Vec<&[u8]> = start.split(|byte| *byte == b' ').collect();
    let [method, path, b"HTTP/1.1"] = words[..] else { return wrong("no request line") };
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if method.is_empty() || !method.iter().all(is_token) || !path.starts_with(b"/") {
        return wrong("no method or no path");
    }
    let mut counted = HashMap::<String, Vec<Vec<u8>>>::new();
    for text in lines {
        let Some(text) = line(text) else { return wrong("a control character") };
        let Some(at) = text.iter().position(|byte| *byte == b':') else {
            return wrong("no header");
        };
        let (name, value) = (String::from_utf8_lossy(&text[..at]).into_owned(), &text[at + 1..]);
        if name.is_empty() || !name.bytes().all(|byte| is_token(&byte)) || name.contains('_') {
            return wrong("no header name");
        }
        counted.entry(name.to_ascii_lowercase()).or_default().push(value.trim_ascii().to_vec());
    }
    let one = |name: &str| match counted.get(name).map(Vec::as_slice) {
        Some([value]) => Some(String::from_utf8_lossy(value).into_owned()),
        _ => None,
    };
    if let Some(never) = NEVER.iter().find(|name| counted.contains_key(**name)) {
        return wrong(&format!("a header that never travels, {never}"));
    }
    if let Some(way) = WAY.iter().find(|name| counted.contains_key(**name) && !is_behind_a_guard) {
        return wrong(&format!("what only a proxy says, {way}"));
    }
    if is_behind_a_guard && one("x-forwarded-for").as_deref() != Some("127.0.0.1") {
        return wrong("another way than it came");
    }
    if one("host").as_deref() != Some(host) {
        return wrong("not our host");
    }
    // What passes without a record has neither.
    let is_safe = matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE");
    for ours in ["idempotency-key", "onceward-operation", "onceward-attempt"] {
        if !is_safe && one(ours).is_none() {
            return wrong(&format!("not one {ours}"));
        }
    }
    let length = match (counted.contains_key("content-length"), one("content-length")) {
        (false, _) => 0,
        (true, Some(digits)) if digits == digits.parse::<usize>().unwrap_or(0).to_string() => {
            digits.parse().unwrap_or(0)
        }
        (true, _) => return wrong("not one plain length"),
    };
    Ok((String::from_utf8_lossy(path).into_owned(), length))
}
