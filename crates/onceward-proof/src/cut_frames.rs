//! The same cuts on HTTP/2, where a call comes and goes in frames.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use crate::cut::{Point, Shared};

/// What a caller begins a connection with.
const PREFACE_BYTES: usize = 24;

/// Kinds of frames, and the flag of the last one of a stream.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;

struct Frame(Vec<u8>);

impl Frame {
    async fn read(from: &mut ReadHalf<'_>) -> io::Result<Self> {
        let mut bytes = vec![0; 9];
        from.read_exact(&mut bytes).await?;
        let length = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
        bytes.resize(9 + length, 0);
        from.read_exact(&mut bytes[9..]).await?;
        Ok(Self(bytes))
    }

    fn is_head(&self) -> bool {
        self.0[3] == HEADERS
    }

    fn is_body(&self) -> bool {
        self.0[3] == DATA && self.0.len() > 9
    }

    fn is_last(&self) -> bool {
        (self.0[3] == DATA || self.is_head()) && self.0[4] & END_STREAM != 0
    }
}

/// Passes frames on in both directions until one of them ends or is cut.
pub(crate) async fn pass(
    caller: &mut TcpStream,
    upstream: &mut TcpStream,
    shared: &Arc<Shared>,
    is_cut: bool,
) -> io::Result<()> {
    let point = is_cut.then_some(shared.point);
    let (from_caller, to_caller) = caller.split();
    let (from_upstream, to_upstream) = upstream.split();
    tokio::select! {
        ended = requests(from_caller, to_upstream, shared, point) => ended,
        ended = answers(from_upstream, to_caller, point) => ended,
    }
}

async fn requests(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    shared: &Arc<Shared>,
    point: Option<Point>,
) -> io::Result<()> {
    let mut preface = [0; PREFACE_BYTES];
    from.read_exact(&mut preface).await?;
    to.write_all(&preface).await?;
    loop {
        let frame = Frame::read(&mut from).await?;
        if frame.is_head() {
            shared.requests.fetch_add(1, Ordering::SeqCst);
        }
        let passed = match point {
            Some(Point::RequestHead) if frame.is_head() => frame.0.len() / 2,
            Some(Point::RequestBody) if frame.is_body() => frame.0.len() / 2,
            Some(Point::RequestSwallowed) if frame.is_last() => 0,
            _ => frame.0.len(),
        };
        to.write_all(&frame.0[..passed]).await?;
        let is_behind = point == Some(Point::RequestBodyBegins) && frame.is_head();
        if passed < frame.0.len() || is_behind {
            return Ok(());
        }
    }
}

async fn answers(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    point: Option<Point>,
) -> io::Result<()> {
    loop {
        let frame = Frame::read(&mut from).await?;
        let passed = match point {
            Some(Point::RequestDelivered) if frame.is_head() => 0,
            Some(Point::AnswerHead) if frame.is_head() => frame.0.len() / 2,
            Some(Point::AnswerBody) if frame.is_body() => frame.0.len() / 2,
            Some(Point::LastChunk) if frame.is_last() => 0,
            _ => frame.0.len(),
        };
        to.write_all(&frame.0[..passed]).await?;
        let is_behind = match point {
            Some(Point::AnswerBodyBegins) => frame.is_head(),
            Some(Point::AnswerDelivered) => frame.is_last(),
            _ => false,
        };
        if passed < frame.0.len() || is_behind {
            return Ok(());
        }
    }
}
