//! The one type of body that our responses have.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};
use onceward::core::exchange::Headers;
use onceward::upstream::{AnswerBody, Failure};

type Next =
    Pin<Box<dyn Future<Output = (Box<dyn AnswerBody>, Result<Option<Bytes>, Failure>)> + Send>>;

/// A body: whole, or as it comes from an upstream.
pub(crate) enum Body {
    Full(Option<Bytes>),
    /// What was read before, and what is still to come. A failure breaks the connection off, so
    /// that a part never poses as the whole.
    Stream(Option<Bytes>, Next),
    Ended,
    /// A page's or an API handler's.
    Axum(axum::body::Body),
}

impl Body {
    pub(crate) fn full(bytes: Bytes) -> Self {
        Self::Full(Some(bytes))
    }

    pub(crate) fn stream(first: Bytes, rest: Box<dyn AnswerBody>) -> Self {
        Self::Stream(Some(first).filter(|first| !first.is_empty()), next(rest))
    }
}

fn next(mut body: Box<dyn AnswerBody>) -> Next {
    Box::pin(async move {
        let piece = body.chunk().await;
        (body, piece)
    })
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off: {0}")]
pub(crate) struct Broken(String);

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = &mut *self;
        match this {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(first, rest) => {
                if let Some(first) = first.take() {
                    return Poll::Ready(Some(Ok(Frame::data(first))));
                }
                let Poll::Ready((mut body, piece)) = rest.as_mut().poll(cx) else {
                    return Poll::Pending;
                };
                match piece {
                    Ok(Some(piece)) => {
                        *rest = next(body);
                        Poll::Ready(Some(Ok(Frame::data(piece))))
                    }
                    Ok(None) => {
                        let trailers = header_map(&body.trailers());
                        *this = Self::Ended;
                        Poll::Ready((!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers))))
                    }
                    Err(failure) => {
                        *this = Self::Ended;
                        Poll::Ready(Some(Err(Broken(failure.error))))
                    }
                }
            }
            Self::Ended => Poll::Ready(None),
            Self::Axum(body) => {
                Pin::new(body).poll_frame(cx).map_err(|error| Broken(error.to_string()))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Stream(..) => false,
            Self::Ended => true,
            Self::Axum(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Stream(..) => SizeHint::default(),
            Self::Ended => SizeHint::with_exact(0),
            Self::Axum(body) => body.size_hint(),
        }
    }
}

/// Header lines as hyper takes them; a line that is no header any more is left out.
pub(crate) fn header_map(headers: &Headers) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(headers.0.len());
    for (name, value) in &headers.0 {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_maybe_shared(value.clone()))
        {
            map.append(name, value);
        }
    }
    map
}

/// Header lines as the ledger keeps them.
pub(crate) fn headers_of(map: &HeaderMap) -> Headers {
    Headers(
        map.iter()
            .map(|(name, value)| {
                (name.as_str().to_owned(), Bytes::copy_from_slice(value.as_bytes()))
            })
            .collect(),
    )
}
