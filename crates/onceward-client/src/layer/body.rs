//! The body of an answer that went through the layer.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;

use crate::error::BoxError;

/// A body: one that passes by as it is, one that is in memory, or the rest of one behind what was read.
pub struct Body<R> {
    first: Option<Bytes>,
    rest: Option<Pin<Box<R>>>,
}

impl<R> Body<R> {
    pub(super) fn passing(body: R) -> Self {
        Self { first: None, rest: Some(Box::pin(body)) }
    }

    pub(super) fn whole(bytes: Bytes) -> Self {
        Self { first: Some(bytes).filter(|bytes| !bytes.is_empty()), rest: None }
    }
}

impl<R> Body<R>
where
    R: http_body::Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    /// Reads a body up to so many bytes: the whole of it, or nothing and the body as it would have come.
    pub(super) async fn read(body: R, bytes_max: usize) -> Result<(Option<Bytes>, Self), BoxError> {
        let mut rest = Box::pin(body);
        let mut first = BytesMut::new();
        while let Some(frame) = rest.frame().await {
            if let Ok(data) = frame.map_err(Into::into)?.into_data() {
                first.extend_from_slice(&data);
            }
            if first.len() > bytes_max {
                return Ok((None, Self { first: Some(first.freeze()), rest: Some(rest) }));
            }
        }
        let whole = first.freeze();
        Ok((Some(whole.clone()), Self::whole(whole)))
    }
}

impl<R> fmt::Debug for Body<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body(…)")
    }
}

impl<R> http_body::Body for Body<R>
where
    R: http_body::Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        match &mut self.rest {
            Some(rest) => rest.as_mut().poll_frame(cx).map_err(Into::into),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.first, &self.rest) {
            (first, None) => SizeHint::with_exact(first.as_ref().map_or(0, Bytes::len) as u64),
            (None, Some(rest)) => rest.size_hint(),
            (Some(_), Some(_)) => SizeHint::default(),
        }
    }
}
