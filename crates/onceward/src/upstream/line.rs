//! An open connection that speaks HTTP, from the handshake to its end.
//!
//! One task tends each connection for as long as it lives; a request costs no task of its own.

use std::future::Future;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};

use super::upload::Load;
use super::wire::Wire;

/// The largest head of an answer, in bytes: beyond it no honest upstream says anything. The
/// number of its lines is bounded by hyper, to 100, in HTTP/1.1; by this in HTTP/2.
pub(super) const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A request as it is handed to hyper. A body that is whole is shared, not copied.
pub(super) type Outgoing = Request<Load>;

/// What one exchange came to, in hyper's words.
pub(super) type Exchanged = Result<Response<Incoming>, TrySendError<Outgoing>>;

/// The way to hand requests to a connection.
pub(super) enum Sender {
    /// One request at a time.
    Http1(http1::SendRequest<Load>),
    /// Many at once, over clones.
    Http2(http2::SendRequest<Load>),
}

impl Sender {
    /// Whether a request given to it now would go out at once.
    pub(super) fn is_ready(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_ready(),
            Self::Http2(sender) => sender.is_ready(),
        }
    }

    /// Another handle of the same connection, where there can be one.
    pub(super) fn share(&self) -> Option<Self> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(sender) => Some(Self::Http2(sender.clone())),
        }
    }
}

/// A connection in somebody's hands. Dropping it, unless it is shared, closes the connection.
pub(super) struct Line {
    sender: Sender,
    busy: Busy,
    /// Whether it has carried a request before.
    pub(super) reused: bool,
}

/// Holds a connection busy for as long as it is there.
struct Busy(Arc<Wire>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.rest();
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Line {
    pub(super) fn new(sender: Sender, wire: Arc<Wire>, reused: bool) -> Self {
        wire.busy.fetch_add(1, Ordering::AcqRel);
        Self { sender, busy: Busy(wire), reused }
    }

    pub(super) fn wire(&self) -> &Wire {
        &self.busy.0
    }

    pub(super) fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }

    /// Sends one request. What [`Wire::arm`] returned has to be kept to judge a failure by.
    pub(super) async fn exchange(&mut self, request: Outgoing) -> Exchanged {
        match &mut self.sender {
            Sender::Http1(sender) => sender.try_send_request(request).await,
            Sender::Http2(sender) => sender.try_send_request(request).await,
        }
    }

    /// Puts it down: it lies idle from now on.
    pub(super) fn put_down(self) -> (Sender, Arc<Wire>) {
        (self.sender, Arc::clone(&self.busy.0))
    }
}

/// Begins to speak HTTP/1.1 on an open socket: the sender, and what has to run for it.
pub(super) async fn http1<I>(
    io: I,
) -> hyper::Result<(Sender, impl Future<Output = hyper::Result<()>> + Send + 'static)>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(io))
        .await?;
    Ok((Sender::Http1(sender), connection))
}

/// Begins to speak HTTP/2.
///
/// hyper runs the frames and the requests of a connection in two tasks. Here they take turns in
/// one: while a request is being given to the frames, none can be written and no GOAWAY read. So
/// a request that ends with a graceful GOAWAY was either never given to them, or is a stream that
/// the GOAWAY leaves out; in two tasks it could be one that was written meanwhile.
pub(super) async fn http2<I>(
    io: I,
) -> hyper::Result<(Sender, impl Future<Output = hyper::Result<()>> + Send + 'static)>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let frames = Frames::default();
    let (sender, connection) = http2::Builder::new(frames.clone())
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .handshake(TokioIo::new(io))
        .await?;
    let both = async move {
        match frames.take() {
            Some(frames) => tokio::join!(connection, frames).0,
            None => connection.await,
        }
    };
    Ok((Sender::Http2(sender), both))
}

/// Keeps the first future it is to run, which is the one of the connection's frames, for whoever
/// runs the connection; the others, of single requests, become tasks.
#[derive(Clone, Default)]
struct Frames(Arc<Mutex<Kept>>);

/// The future of a connection's frames.
#[derive(Default)]
enum Kept {
    #[default]
    NotYet,
    Here(Pin<Box<dyn Future<Output = ()> + Send>>),
    Taken,
}

impl Frames {
    fn take(&self) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match mem::replace(&mut *kept, Kept::Taken) {
            Kept::Here(frames) => Some(frames),
            Kept::NotYet | Kept::Taken => None,
        }
    }
}

impl<F> Executor<F> for Frames
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Kept::NotYet => *kept = Kept::Here(Box::pin(future)),
            Kept::Here(_) | Kept::Taken => drop(tokio::spawn(future)),
        }
    }
}

/// Runs a connection until it ends or has lain idle for `idle_max`.
///
/// Ending it while somebody takes it up at this very moment is harmless: their request was not
/// begun, hyper hands it back, and they take another connection.
pub(super) async fn tend(
    connection: impl Future<Output = hyper::Result<()>>,
    wire: &Wire,
    idle_max: Duration,
) {
    let mut connection = pin!(connection);
    let mut timer = pin!(sleep_until(Instant::now() + idle_max));
    loop {
        tokio::select! {
            biased;
            // How it ended was told to whoever had a request on it.
            _ = &mut connection => return,
            () = &mut timer => {
                let now = Instant::now();
                let due = wire.idle_until(idle_max).unwrap_or(now + idle_max);
                if due <= now {
                    return;
                }
                timer.as_mut().reset(due);
            }
        }
    }
}
