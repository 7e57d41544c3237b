//! A connection that carries one request at a time. No task tends it: whoever has a request on it
//! moves its bytes, so that an exchange wakes nobody else.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::unconstrained;
use tokio::time::timeout;

use super::bell::Bell;
use super::line::{Exchanged, HEAD_BYTES_MAX, Outgoing};
use super::upload::Load;
use super::wire::Wire;

/// How long TLS may take to say that a connection ends.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// What moves a connection's bytes, until it ends.
type Moving = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send + Sync>>;

/// An open connection. Dropping it closes it.
pub(super) struct Http1 {
    sender: SendRequest<Load>,
    /// Nothing once it has ended, or has become a task.
    moving: Option<Moving>,
    wire: Arc<Wire>,
    bell: Arc<Bell>,
    /// The same bell, as what rings it.
    ring: Waker,
}

impl Http1 {
    /// Begins to speak HTTP/1.1 on an open socket; `stirred` is told where it moves while it is idle.
    pub(super) async fn begin<I>(
        io: I,
        wire: Arc<Wire>,
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
        Ok(Self { sender, moving: Some(Box::pin(connection)), wire, bell, ring })
    }

    pub(super) fn wire(&self) -> &Arc<Wire> {
        &self.wire
    }

    pub(super) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Sends one request, and waits for the head of its answer.
    pub(super) async fn exchange(&mut self, request: Outgoing) -> Exchanged {
        let mut answer = pin!(self.sender.try_send_request(request));
        let (moving, bell, ring) = (&mut self.moving, &*self.bell, &self.ring);
        poll_fn(|cx| move_until(moving, bell, ring, cx, |cx| answer.as_mut().poll(cx))).await
    }

    /// The next piece of an answer that comes on it.
    pub(super) fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        if self.moving.is_none() {
            return Pin::new(body).poll_frame(cx);
        }
        self.bell.attend(cx.waker());
        let mut frame = |cx: &mut Context<'_>| Pin::new(&mut *body).poll_frame(cx);
        // What came with the head is there.
        match quietly(&mut frame) {
            Poll::Pending => move_until(&mut self.moving, &self.bell, &self.ring, cx, frame),
            frame => frame,
        }
    }

    /// Leaves it to a task of its own: its answer has begun before its request was over, and neither
    /// is to wait for the other.
    pub(super) fn leave_to_a_task(&mut self) {
        if let Some(moving) = self.moving.take() {
            tokio::spawn(moving);
        }
    }

    /// Puts it down; tells whether it can be taken up again: an exchange on it is over, and nothing
    /// has come that nobody asked for.
    pub(super) fn rest(&mut self) -> bool {
        self.bell.let_go();
        let Some(moving) = &mut self.moving else { return false };
        let mut cx = Context::from_waker(&self.ring);
        let has_ended = pin!(unconstrained(moving.as_mut())).poll(&mut cx).is_ready();
        !has_ended && self.sender.is_ready() && self.bell.rest()
    }
}

impl Drop for Http1 {
    fn drop(&mut self) {
        // A peer that speaks TLS is told that this is the end. Without its sender it comes to one.
        if self.wire.secured
            && let Some(moving) = self.moving.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(timeout(GOODBYE_MAX, moving));
        }
    }
}

/// Moves a connection's bytes until `awaited` is there, which only they can bring.
fn move_until<T>(
    moving: &mut Option<Moving>,
    bell: &Bell,
    ring: &Waker,
    cx: &mut Context<'_>,
    mut awaited: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    bell.attend(cx.waker());
    // What rang meanwhile is looked after at once, but not for ever.
    for _ in 0..2 {
        if let Some(bytes) = moving
            && bytes.as_mut().poll(&mut Context::from_waker(ring)).is_ready()
        {
            // How it ended is told to whoever has a request on it.
            *moving = None;
        }
        if let Poll::Ready(came) = quietly(&mut awaited) {
            return Poll::Ready(came);
        }
        if bell.sleep() {
            return Poll::Pending;
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Looks whether something is there that comes by nobody's doing but the looker's own.
fn quietly<T>(mut look: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    let mut cx = Context::from_waker(Waker::noop());
    pin!(unconstrained(poll_fn(&mut look))).poll(&mut cx)
}
