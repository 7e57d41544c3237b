//! A lean HTTP/1.1 caller and the reading of messages that it shares with the auditor: it never
//! sends anything twice by itself.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// More than this of a body is counted and not kept.
const KEPT_MAX: usize = 4 << 20;

/// A message as it came.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// The first line.
    pub start: String,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// As far as it is kept.
    pub body: Vec<u8>,
    /// How long the body was, kept or not.
    pub length: u64,
}

impl Message {
    /// The first header of this name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The status of an answer, 0 of a request.
    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
    }

    /// The body as JSON; null where it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The problem's code, where it is a problem.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// One connection, from either end.
#[derive(Debug)]
pub struct Line {
    /// The connection itself.
    pub stream: TcpStream,
    ahead: Vec<u8>,
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, what.to_owned())
}

impl Line {
    /// A line over `stream`.
    pub fn new(stream: TcpStream) -> Self {
        // Small messages go out at once; where that cannot be set they go out a little later.
        let _ = stream.set_nodelay(true);
        Self { stream, ahead: Vec::new() }
    }

    /// A line to `address`.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        Ok(Self::new(TcpStream::connect(address).await?))
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.ahead.reserve(16 << 10);
        self.stream.read_buf(&mut self.ahead).await
    }

    /// What stands before `mark`, which is passed over too; nothing at the end of the stream.
    async fn until(&mut self, mark: &[u8]) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(at) = self.ahead.windows(mark.len()).position(|window| window == mark) {
                let rest = self.ahead.split_off(at + mark.len());
                let mut found = std::mem::replace(&mut self.ahead, rest);
                found.truncate(at);
                return Ok(Some(found));
            }
            if self.fill().await? == 0 {
                return if self.ahead.is_empty() { Ok(None) } else { Err(broken("cut off")) };
            }
        }
    }

    async fn take(&mut self, mut bytes: u64, into: &mut Vec<u8>) -> io::Result<()> {
        while bytes > 0 {
            if self.ahead.is_empty() && self.fill().await? == 0 {
                return Err(broken("the body broke off"));
            }
            let piece = self.ahead.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
            if into.len() + piece <= KEPT_MAX {
                into.extend_from_slice(&self.ahead[..piece]);
            }
            self.ahead.drain(..piece);
            bytes -= piece as u64;
        }
        Ok(())
    }

    /// The next message; nothing where the other side closed the connection between two.
    pub async fn read(&mut self) -> io::Result<Option<Message>> {
        let Some(head) = self.until(b"\r\n\r\n").await? else { return Ok(None) };
        let text = String::from_utf8_lossy(&head).into_owned();
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut message = Message { start, headers, ..Message::default() };
        let mut body = Vec::new();
        if message.header("transfer-encoding").is_some() {
            loop {
                let size = self.until(b"\r\n").await?.ok_or_else(|| broken("no chunk"))?;
                let size = u64::from_str_radix(String::from_utf8_lossy(&size).trim(), 16)
                    .map_err(|_| broken("no chunk size"))?;
                self.take(size, &mut body).await?;
                message.length += size;
                self.until(b"\r\n").await?.ok_or_else(|| broken("no chunk end"))?;
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = message.header("content-length") {
            message.length = length.parse().map_err(|_| broken("no length"))?;
            self.take(message.length, &mut body).await?;
        }
        message.body = body;
        Ok(Some(message))
    }

    /// Sends bytes as they are.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// One request and its answer.
    pub async fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Message> {
        self.write(&request(method, path, headers, body)).await?;
        self.read().await?.ok_or_else(|| broken("closed without an answer"))
    }
}

/// A request's bytes.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    use std::fmt::Write as _;
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n");
    for (name, value) in headers {
        // Writing into a string does not fail.
        let _ = write!(head, "{name}: {value}\r\n");
    }
    if method != "GET" {
        let _ = write!(head, "content-length: {}\r\n", body.len());
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}
