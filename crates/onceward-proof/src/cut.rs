//! A proxy between gateway and upstream that cuts the first call's connection at one place, and
//! passes everything on from then on.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::cut_frames;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Where a connection is cut, in the order in which a call comes there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Nobody listens, for a moment.
    Refused,
    /// It was accepted, and nothing was read.
    Connected,
    /// Half of the request's head was passed on.
    RequestHead,
    /// Its head was, and nothing of its body.
    RequestBodyBegins,
    /// Half of its body was.
    RequestBody,
    /// All of it was read, and nothing passed on.
    RequestSwallowed,
    /// The upstream has all of it, and has answered; nothing of that came back.
    RequestDelivered,
    /// Half of the status line came back.
    StatusLine,
    /// The status line did.
    AnswerHeadBegins,
    /// Half of the answer's head did.
    AnswerHead,
    /// All of the head did.
    AnswerBodyBegins,
    /// Half of the body did.
    AnswerBody,
    /// All but the end that says that it is the end.
    LastChunk,
    /// All of it did.
    AnswerDelivered,
}

impl Point {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Refused,
        Self::Connected,
        Self::RequestHead,
        Self::RequestBodyBegins,
        Self::RequestBody,
        Self::RequestSwallowed,
        Self::RequestDelivered,
        Self::StatusLine,
        Self::AnswerHeadBegins,
        Self::AnswerHead,
        Self::AnswerBodyBegins,
        Self::AnswerBody,
        Self::LastChunk,
        Self::AnswerDelivered,
    ];

    /// Those that there are on HTTP/2: its head is one piece.
    pub fn is_of_http2(self) -> bool {
        !matches!(self, Self::StatusLine | Self::AnswerHeadBegins)
    }

    /// Whether the upstream has got the whole request when the cut comes.
    pub fn is_delivered(self) -> bool {
        self as u8 >= Self::RequestDelivered as u8
    }

    /// Whether no byte of a request can have been read.
    pub fn is_unsent(self) -> bool {
        matches!(self, Self::Refused | Self::Connected)
    }
}

/// How it is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// As one side closes in order.
    Close,
    /// A reset.
    Reset,
}

/// How long nobody listens.
const SHUT: Duration = Duration::from_millis(25);

#[derive(Debug)]
pub(crate) struct Shared {
    upstream: SocketAddr,
    http2: bool,
    pub(crate) point: Point,
    how: How,
    armed: AtomicBool,
    pub(crate) requests: AtomicU64,
}

/// The proxy, in this process.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Starts on a free port, in front of `upstream`, which speaks HTTP/2 from the first byte or
    /// HTTP/1.1.
    ///
    /// # Panics
    ///
    /// Where no port of loopback is free.
    pub async fn start(upstream: SocketAddr, http2: bool, point: Point, how: How) -> Self {
        let mut listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            upstream,
            http2,
            point,
            how,
            armed: AtomicBool::new(true),
            requests: AtomicU64::new(0),
        });
        let proxy = Self { address, shared: Arc::clone(&shared) };
        tokio::spawn(async move {
            if point == Point::Refused {
                drop(listener);
                shared.armed.store(false, Ordering::SeqCst);
                while shared.requests.load(Ordering::SeqCst) == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                tokio::time::sleep(SHUT).await;
                listener = TcpListener::bind(address).await.expect("the port again");
            }
            while let Ok((stream, _)) = listener.accept().await {
                // A connection that ends badly ends alone: that is its point.
                tokio::spawn(pass(stream, Arc::clone(&shared)));
            }
        });
        proxy
    }

    /// Where nobody listens at first: from now on it takes only a moment until somebody does.
    pub fn open_soon(&self) {
        self.shared.requests.store(1, Ordering::SeqCst);
    }

    /// On how many connections something of a request was read.
    pub fn requests(&self) -> u64 {
        let opened = u64::from(self.shared.point == Point::Refused);
        self.shared.requests.load(Ordering::SeqCst) - opened
    }
}

/// A message as it lies on the wire, and how long its head is.
struct Raw {
    bytes: Vec<u8>,
    head: usize,
}

impl Raw {
    /// Reads one; nothing where the other side closed before it began.
    async fn read(stream: &mut TcpStream, begun: impl FnOnce()) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        let mut begun = Some(begun);
        loop {
            if let Some(head) = find(&bytes, b"\r\n\r\n") {
                let head = head + 4;
                if is_whole(&bytes, head) {
                    return Ok(Some(Self { bytes, head }));
                }
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(None);
            }
            if let Some(begun) = begun.take() {
                begun();
            }
        }
    }

    /// How much of a request is passed on before the cut.
    fn of_request(&self, point: Point) -> usize {
        let body = self.bytes.len() - self.head;
        match point {
            Point::RequestHead => self.head / 2,
            Point::RequestBodyBegins => self.head,
            Point::RequestBody => self.head + body / 2,
            Point::RequestSwallowed => 0,
            _ => self.bytes.len(),
        }
    }

    /// How much of an answer.
    fn of_answer(&self, point: Point) -> usize {
        let line = find(&self.bytes, b"\r\n").unwrap_or_default() + 2;
        let body = self.bytes.len() - self.head;
        match point {
            Point::RequestDelivered => 0,
            Point::StatusLine => line / 2,
            Point::AnswerHeadBegins => line,
            Point::AnswerHead => line + (self.head - line) / 2,
            Point::AnswerBodyBegins => self.head,
            Point::AnswerBody => self.head + body / 2,
            // Either `0 CRLF CRLF`, or the last bytes of a body whose length is known.
            Point::LastChunk => self.bytes.len() - 5.min(body),
            _ => self.bytes.len(),
        }
    }
}

fn find(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).position(|window| window == mark)
}

fn is_whole(bytes: &[u8], head: usize) -> bool {
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    if text.contains("transfer-encoding: chunked") {
        return bytes.ends_with(b"0\r\n\r\n");
    }
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    bytes.len() - head >= length.unwrap_or_default()
}

/// Passes calls on, one after the other; the first one that is armed is cut.
async fn pass(mut caller: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    let is_cut = shared.armed.swap(false, Ordering::SeqCst);
    if is_cut && shared.point == Point::Connected {
        return end(&caller, shared.how);
    }
    let mut upstream = TcpStream::connect(shared.upstream).await?;
    if shared.http2 {
        // Whether it was cut or ended by itself, it ends as a cut does.
        let _ = cut_frames::pass(&mut caller, &mut upstream, &shared, is_cut).await;
        return if is_cut { end(&caller, shared.how) } else { Ok(()) };
    }
    let count = || {
        shared.requests.fetch_add(1, Ordering::SeqCst);
    };
    let mut is_first = true;
    while let Some(request) = Raw::read(&mut caller, count).await? {
        let is_cut = is_cut && std::mem::take(&mut is_first);
        let passed = if is_cut { request.of_request(shared.point) } else { request.bytes.len() };
        upstream.write_all(&request.bytes[..passed]).await?;
        if passed < request.bytes.len() {
            return end(&caller, shared.how);
        }
        let Some(answer) = Raw::read(&mut upstream, || ()).await? else { return Ok(()) };
        let passed = if is_cut { answer.of_answer(shared.point) } else { answer.bytes.len() };
        caller.write_all(&answer.bytes[..passed]).await?;
        if is_cut {
            return end(&caller, shared.how);
        }
    }
    Ok(())
}

fn end(stream: &TcpStream, how: How) -> io::Result<()> {
    if how == How::Reset {
        // A linger of nothing makes closing a reset.
        stream.set_zero_linger()?;
    }
    Ok(())
}
