//! A connection that carries many requests at once, tended by a task for as long as it lives.

use std::future::Future;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};

use super::line::HEAD_BYTES_MAX;
use super::upload::Load;
use super::wire::Wire;

/// How many requests share one connection: what most servers accept at once. One more would wait
/// unsent in a queue where nobody can tell that it was not sent.
const STREAMS_MAX: u32 = 100;

/// A handle of a connection. It is busy for as long as one is in use.
pub(super) struct Http2 {
    pub(super) sender: SendRequest<Load>,
    busy: Busy,
}

/// A connection that may be used.
pub(super) struct Shared {
    sender: SendRequest<Load>,
    wire: Arc<Wire>,
}

/// Holds a connection busy for as long as it is there.
struct Busy(Arc<Wire>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.rest();
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Http2 {
    pub(super) fn wire(&self) -> &Arc<Wire> {
        &self.busy.0
    }
}

impl Shared {
    pub(super) fn new(sender: SendRequest<Load>, wire: Arc<Wire>) -> Self {
        Self { sender, wire }
    }

    pub(super) fn wire(&self) -> &Wire {
        &self.wire
    }

    /// Whether a request given to it now would go out at once.
    pub(super) fn is_ready(&self) -> bool {
        self.sender.is_ready() && self.wire.busy.load(Ordering::Acquire) < STREAMS_MAX
    }

    /// Takes a handle of it.
    pub(super) fn take_up(&self) -> Http2 {
        self.wire.busy.fetch_add(1, Ordering::AcqRel);
        Http2 { sender: self.sender.clone(), busy: Busy(Arc::clone(&self.wire)) }
    }
}

/// Begins to speak HTTP/2 on an open socket: the sender, and what has to run for it.
///
/// hyper runs the frames and the requests of a connection in two tasks. Here they take turns in
/// one: while a request is being given to the frames, none can be written and no GOAWAY read. So
/// a request that ends with a graceful GOAWAY was either never given to them, or is a stream that
/// the GOAWAY leaves out; in two tasks it could be one that was written meanwhile.
pub(super) async fn begin<I>(
    io: I,
) -> hyper::Result<(SendRequest<Load>, impl Future<Output = hyper::Result<()>> + Send + 'static)>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let frames = Frames::default();
    let (sender, connection) = Builder::new(frames.clone())
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .handshake(TokioIo::new(io))
        .await?;
    let both = async move {
        match frames.take() {
            Some(frames) => tokio::join!(connection, frames).0,
            None => connection.await,
        }
    };
    Ok((sender, both))
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
