//! An open connection that speaks HTTP, in the hands of one exchange.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;

use super::http1::Http1;
use super::http2::Http2;
use super::message::Message;
use super::upload::Load;
use super::wire::Wire;
use crate::alarm::Alarm;

/// The largest head of an answer, in bytes: beyond it no honest upstream says anything. The
/// number of its lines is bounded by hyper, to 100, in HTTP/1.1; by this in HTTP/2.
pub(super) const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A request as it is handed to hyper. A body that is whole is shared, not copied.
pub(super) type Outgoing = Request<Load>;

/// What one exchange came to, in hyper's words.
pub(super) type Exchanged = Result<Response<Incoming>, TrySendError<Outgoing>>;

/// A connection in somebody's hands. Dropping it, unless it is shared, closes the connection.
pub(super) struct Line {
    way: Way,
    /// Whether it has carried a request before.
    pub(super) reused: bool,
    /// What its answer is waited for with, and each piece of it.
    pub(super) alarm: Alarm,
}

/// How it speaks.
pub(super) enum Way {
    /// On the heap: it goes from hand to hand with each exchange.
    Http1(Box<Http1>),
    Http2(Http2),
}

impl Line {
    /// A connection that was just opened.
    pub(super) fn fresh(way: Way) -> Self {
        Self { way, reused: false, alarm: Alarm::default() }
    }

    /// A connection that has carried requests before.
    pub(super) fn reused(way: Way, alarm: Alarm) -> Self {
        Self { way, reused: true, alarm }
    }

    pub(super) fn wire(&self) -> &Arc<Wire> {
        match &self.way {
            Way::Http1(own) => own.wire(),
            Way::Http2(shared) => shared.wire(),
        }
    }

    pub(super) fn is_http2(&self) -> bool {
        matches!(self.way, Way::Http2(_))
    }

    /// `message` as it is sent on it.
    pub(super) fn request(&self, message: Message) -> Outgoing {
        match &self.way {
            Way::Http1(own) => message.for_http1(own.host()),
            Way::Http2(shared) => {
                let scheme = if shared.wire().secured { Scheme::HTTPS } else { Scheme::HTTP };
                message.for_http2(scheme, shared.authority())
            }
        }
    }

    /// Sends one request. What [`Wire::arm`] returned has to be kept to judge a failure by.
    pub(super) async fn exchange(&mut self, request: Outgoing) -> Exchanged {
        match &mut self.way {
            Way::Http1(own) => own.exchange(request).await,
            Way::Http2(shared) => shared.sender.try_send_request(request).await,
        }
    }

    /// The next piece of an answer that comes on it.
    pub(super) fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        match &mut self.way {
            Way::Http1(own) => own.poll_frame(body, cx),
            Way::Http2(_) => Pin::new(body).poll_frame(cx),
        }
    }

    /// Lets the rest of its request go out, whether its answer is read or not; after the answer only
    /// in pauses of no more than `pause_max`.
    pub(super) fn go_both_ways(&mut self, pause_max: Duration) {
        if let Way::Http1(own) = &mut self.way {
            own.leave_to_a_task(pause_max);
        }
    }

    /// Puts it down, where it is nobody else's and can be taken up again. What is left of its
    /// request goes on alone, in pauses of no more than `pause_max`.
    pub(super) fn put_down(mut self, pause_max: Duration) -> Option<(Box<Http1>, Alarm)> {
        match self.way {
            Way::Http1(mut own) => own.rest(pause_max).then(|| {
                self.alarm.let_go();
                (own, self.alarm)
            }),
            Way::Http2(_) => None,
        }
    }
}
