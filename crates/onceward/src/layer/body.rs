//! The body of a request or an answer that went through the layer.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use onceward_core::attempt::{Ending, Reached, Timings};
use onceward_core::exchange::Headers;

use crate::edge::headers_of;
use crate::upstream::{AnswerBody, Download, Failure};

/// An error of a body that is not ours.
pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// A body: one that passes by as it is, or one that is in memory.
///
/// Answers of [`OncewardService`](super::OncewardService) have it. A service without a body type that
/// is made of [`Bytes`] (hyper's own has none such) can have it for its requests, too:
/// `request.map(Body::new)`.
pub struct Body<B>(Kind<B>);

enum Kind<B> {
    Passing(Pin<Box<B>>),
    Whole(Option<Bytes>),
    /// What was read before, and what is still to come. A failure breaks it off, so that a part
    /// never poses as the whole.
    Rest(Option<Bytes>, Box<Download>),
    Ended,
}

impl<B> Body<B> {
    /// A body that passes by.
    pub fn new(body: B) -> Self {
        Self(Kind::Passing(Box::pin(body)))
    }

    pub(super) fn rest(first: Bytes, rest: Box<dyn AnswerBody>) -> Self {
        Self(Kind::Rest(Some(first).filter(|first| !first.is_empty()), Box::new(rest.into())))
    }
}

impl<B> From<Bytes> for Body<B> {
    fn from(bytes: Bytes) -> Self {
        Self(Kind::Whole(Some(bytes).filter(|bytes| !bytes.is_empty())))
    }
}

impl<B> Default for Body<B> {
    fn default() -> Self {
        Self(Kind::Ended)
    }
}

impl<B> fmt::Debug for Body<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body(…)")
    }
}

impl<B> http_body::Body for Body<B>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let kind = &mut self.0;
        match kind {
            Kind::Passing(body) => body.as_mut().poll_frame(cx).map_err(Into::into),
            Kind::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Rest(first @ Some(_), _) => {
                Poll::Ready(first.take().map(|first| Ok(Frame::data(first))))
            }
            Kind::Rest(None, rest) => {
                Pin::new(&mut **rest).poll_frame(cx).map_err(|failure| failure.error.into())
            }
            Kind::Ended => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Passing(body) => body.is_end_stream(),
            Kind::Whole(bytes) => bytes.is_none(),
            Kind::Rest(..) => false,
            Kind::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Passing(body) => body.size_hint(),
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Kind::Rest(..) => SizeHint::default(),
            Kind::Ended => SizeHint::with_exact(0),
        }
    }
}

/// The body of a handler's answer, as the engine reads it.
pub(super) struct Coming<B> {
    /// Locked by nobody: it makes a body shareable that is not.
    body: std::sync::Mutex<Pin<Box<B>>>,
    trailers: HeaderMap,
}

impl<B> Coming<B> {
    pub(super) fn new(body: B) -> Self {
        Self { body: std::sync::Mutex::new(Box::pin(body)), trailers: HeaderMap::new() }
    }
}

impl<B> AnswerBody for Coming<B>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    fn chunk(
        &mut self,
    ) -> Pin<Box<dyn Future<Output = Result<Option<Bytes>, Failure>> + Send + '_>> {
        Box::pin(async move {
            let body = self.body.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
            while let Some(frame) = body.frame().await {
                match frame.map(Frame::into_data) {
                    Ok(Ok(data)) if data.is_empty() => {}
                    Ok(Ok(data)) => return Ok(Some(data)),
                    Ok(Err(frame)) => {
                        self.trailers.extend(frame.into_trailers().unwrap_or_default());
                    }
                    Err(error) => {
                        return Err(Failure {
                            ending: Ending::Truncated,
                            reached: Reached::Head,
                            error: format!("the handler's answer broke off: {}", error.into()),
                            permanent: false,
                            timings: Timings::default(),
                        });
                    }
                }
            }
            Ok(None)
        })
    }

    fn trailers(&mut self) -> Headers {
        headers_of(&std::mem::take(&mut self.trailers))
    }
}
