//! A connection that carries one request at a time. No task tends it: whoever has a request on it
//! moves its bytes, so that an exchange wakes nobody else.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, Response};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use onceward_core::exchange::named_by_connection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::task::unconstrained;
use tokio::time::timeout;

use super::bell::Bell;
use super::line::{Exchanged, HEAD_BYTES_MAX, Outgoing};
use super::upload::Load;
use super::wire::Wire;

/// How long TLS may take to say that a connection ends.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// An open connection. Dropping it closes it.
pub(super) struct Http1 {
    sender: SendRequest<Load>,
    mover: Mover,
    wire: Arc<Wire>,
    /// Host and port, as its requests say them.
    host: HeaderValue,
    /// Whether its answer said that nobody reads the rest of its request.
    is_refused: bool,
}

impl Http1 {
    /// Begins to speak HTTP/1.1 on an open socket; `stirred` is told where it moves while it is idle.
    pub(super) async fn begin<I>(
        io: I,
        wire: Arc<Wire>,
        host: HeaderValue,
        stirred: Arc<Notify>,
    ) -> hyper::Result<Self>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static,
    {
        let (sender, connection) = Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .max_header_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(io))
            .await?;
        let bell = Bell::new(stirred);
        let ring = Waker::from(Arc::clone(&bell));
        let mover = Mover { moving: Some(Box::pin(connection)), bell, ring, held: None };
        Ok(Self { sender, mover, wire, host, is_refused: false })
    }

    pub(super) fn wire(&self) -> &Arc<Wire> {
        &self.wire
    }

    pub(super) fn host(&self) -> &HeaderValue {
        &self.host
    }

    pub(super) fn bell(&self) -> &Bell {
        &self.mover.bell
    }

    /// Sends one request, and waits for the head of its answer.
    pub(super) async fn exchange(&mut self, request: Outgoing) -> Exchanged {
        let mut answer = pin!(self.sender.try_send_request(request));
        let came = poll_fn(|cx| self.mover.poll_until(cx, |cx| answer.as_mut().poll(cx))).await;
        self.is_refused = came.as_ref().is_ok_and(refuses);
        came
    }

    /// The next piece of an answer that comes on it.
    pub(super) fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        if self.mover.moving.is_none() {
            return Pin::new(body).poll_frame(cx);
        }
        self.mover.bell.attend(cx.waker());
        let mut frame = |cx: &mut Context<'_>| Pin::new(&mut *body).poll_frame(cx);
        // What came with the head is there.
        match quietly(&mut frame) {
            Poll::Pending => self.mover.poll_until(cx, frame),
            frame @ Poll::Ready(_) => frame,
        }
    }

    /// Leaves it to a task of its own: its answer has begun before its request was over, and neither
    /// is to wait for the other. Once nobody has the answer in hand any more, the request goes on
    /// until the upstream has taken nothing of it for `pause_max`.
    pub(super) fn leave_to_a_task(&mut self, pause_max: Duration) {
        let Some(mut moving) = self.mover.moving.take() else { return };
        let (held, let_go) = oneshot::channel();
        self.mover.held = Some(held);
        let wire = Arc::clone(&self.wire);
        tokio::spawn(async move {
            tokio::select! {
                _ = &mut moving => {}
                _ = let_go => send_the_rest(moving, wire, pause_max).await,
            }
        });
    }

    /// Puts it down; tells whether it can be taken up again: an exchange on it is over, and nothing
    /// has come that nobody asked for. A request that is still on its way, though its answer is over,
    /// goes on until the upstream has taken nothing of it for `pause_max`.
    pub(super) fn rest(&mut self, pause_max: Duration) -> bool {
        let Mover { moving, bell, ring, .. } = &mut self.mover;
        bell.let_go();
        let Some(own) = moving else { return false };
        let last = pin!(unconstrained(own.as_mut())).poll(&mut Context::from_waker(ring));
        if last.is_ready() {
            return false;
        }
        if self.sender.is_ready() {
            return bell.rest();
        }
        if !self.is_refused
            && let Some(moving) = moving.take()
        {
            tokio::spawn(send_the_rest(moving, Arc::clone(&self.wire), pause_max));
        }
        false
    }
}

impl Drop for Http1 {
    fn drop(&mut self) {
        // A peer that speaks TLS is told that this is the end. Without its sender it comes to one.
        if self.wire.secured
            && let Some(moving) = self.mover.moving.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(timeout(GOODBYE_MAX, moving));
        }
    }
}

/// Moves a connection's bytes in the task of whoever has it in hand.
struct Mover {
    /// What moves them; nothing once it has ended, or has become a task.
    moving: Option<Moving>,
    bell: Arc<Bell>,
    /// The same bell, as what rings it.
    ring: Waker,
    /// Tells the task that it was left to, by going, that nobody holds it any more.
    held: Option<oneshot::Sender<Infallible>>,
}

type Moving = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send + Sync>>;

impl Mover {
    /// Moves them until `awaited` is there, which only they can bring.
    fn poll_until<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut awaited: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.bell.attend(cx.waker());
        // What rang meanwhile is looked after at once, but not for ever.
        for _ in 0..2 {
            if let Some(moving) = &mut self.moving
                && moving.as_mut().poll(&mut Context::from_waker(&self.ring)).is_ready()
            {
                // How it ended is told to whoever has a request on it.
                self.moving = None;
            }
            if let Poll::Ready(came) = quietly(&mut awaited) {
                return Poll::Ready(came);
            }
            if self.bell.sleep() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Sends the rest of a request whose answer is over, for as long as the upstream takes of it. After
/// that the connection ends, since nobody holds its sender.
async fn send_the_rest(mut moving: Moving, wire: Arc<Wire>, pause_max: Duration) {
    let mut before = wire.written();
    while timeout(pause_max, &mut moving).await.is_err() {
        if wire.is_stuck(before) {
            return;
        }
        before = wire.written();
    }
}

/// Whether an answer says that nobody reads the rest of its request (RFC 9112, section 9.5).
fn refuses(answer: &Response<Incoming>) -> bool {
    let is_error = answer.status().is_client_error() || answer.status().is_server_error();
    let lines = answer.headers().get_all(CONNECTION).iter().map(HeaderValue::as_bytes);
    is_error && named_by_connection(lines).iter().any(|name| name == "close")
}

/// Looks whether something is there that comes by nobody's doing but the looker's own.
fn quietly<T>(look: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    pin!(unconstrained(poll_fn(look))).poll(&mut Context::from_waker(Waker::noop()))
}
