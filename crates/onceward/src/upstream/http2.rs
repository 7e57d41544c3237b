//! A connection that carries many requests at once, tended by a task for as long as it lives.

use std::future::Future;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::uri::Authority;
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
    hold: Hold,
}

/// A connection that may be used.
pub(super) struct Shared {
    sender: SendRequest<Load>,
    common: Arc<Common>,
}

/// What all who use a connection have in common.
struct Common {
    wire: Arc<Wire>,
    /// Host and port, as its requests say them.
    authority: Authority,
    /// Exchanges under way.
    busy: AtomicU32,
    opened_at: Instant,
    /// When it was last given back, in milliseconds after `opened_at`.
    idle_since: AtomicU64,
}

/// Holds a connection busy for as long as it is there.
struct Hold(Arc<Common>);

impl Drop for Hold {
    fn drop(&mut self) {
        let Common { busy, opened_at, idle_since, .. } = &*self.0;
        idle_since.store(opened_at.elapsed().as_millis() as u64, Ordering::Release);
        busy.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Http2 {
    pub(super) fn wire(&self) -> &Arc<Wire> {
        &self.hold.0.wire
    }

    pub(super) fn authority(&self) -> &Authority {
        &self.hold.0.authority
    }
}

impl Shared {
    pub(super) fn wire(&self) -> &Wire {
        &self.common.wire
    }

    /// Whether a request given to it now would go out at once.
    pub(super) fn is_ready(&self) -> bool {
        self.sender.is_ready() && self.common.busy.load(Ordering::Acquire) < STREAMS_MAX
    }

    /// Takes a handle of it.
    pub(super) fn take_up(&self) -> Http2 {
        self.common.busy.fetch_add(1, Ordering::AcqRel);
        Http2 { sender: self.sender.clone(), hold: Hold(Arc::clone(&self.common)) }
    }
}

impl Common {
    /// When it will have lain idle for `max`; nothing while it is in use.
    fn idle_until(&self, max: Duration) -> Option<Instant> {
        if self.busy.load(Ordering::Acquire) > 0 {
            return None;
        }
        let since = Duration::from_millis(self.idle_since.load(Ordering::Acquire));
        Some(self.opened_at + since + max)
    }
}

/// Begins to speak HTTP/2 on an open socket: the connection, and what has to run for it until it ends or
/// has lain idle for `idle_max`.
///
/// hyper runs the frames and the requests of a connection in two tasks. Here they take turns in
/// one: while a request is being given to the frames, none can be written and no GOAWAY read. So
/// a request that ends with a graceful GOAWAY was either never given to them, or is a stream that
/// the GOAWAY leaves out; in two tasks it could be one that was written meanwhile.
pub(super) async fn begin<I>(
    io: I,
    wire: Arc<Wire>,
    authority: Authority,
    idle_max: Duration,
) -> hyper::Result<(Shared, impl Future<Output = ()> + Send + 'static)>
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
    let common = Arc::new(Common {
        wire,
        authority,
        busy: AtomicU32::new(0),
        opened_at: Instant::now(),
        idle_since: AtomicU64::new(0),
    });
    let tending = tend(both, Arc::clone(&common), idle_max);
    Ok((Shared { sender, common }, tending))
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
async fn tend(
    connection: impl Future<Output = hyper::Result<()>>,
    common: Arc<Common>,
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
                let due = common.idle_until(idle_max).unwrap_or(now + idle_max);
                if due <= now {
                    return;
                }
                timer.as_mut().reset(due);
            }
        }
    }
}
