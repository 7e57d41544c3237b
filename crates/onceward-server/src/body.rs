//! The one type of body that our responses have.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use onceward::Pieces;
pub(crate) use onceward::edge::{header_map, headers_of};
use onceward::store::Reply;
use onceward::upstream::{AnswerBody, Download};

use crate::traffic::Stream;

/// A body: whole, or as it comes from an upstream or from the ledger.
pub(crate) enum Body {
    Full(Option<Bytes>),
    /// An upstream's, as it comes. A failure breaks the connection off, so that a part never poses
    /// as the whole.
    Download(Download),
    /// What was read before, and what is still to come.
    Rest(Option<Bytes>, Download),
    /// An answer that is kept, read from the ledger as the caller takes it: a caller that never
    /// does costs a piece and not the whole.
    Kept(Kept),
    /// A page's or an API handler's.
    Axum(axum::body::Body),
    /// Any of them, on a stream of HTTP/2 that ends with it.
    On {
        body: Box<Self>,
        stream: Stream,
    },
}

impl Body {
    pub(crate) fn full(bytes: Bytes) -> Self {
        Self::Full(Some(bytes))
    }

    /// Has a stream end with it.
    pub(crate) fn stand_on(&mut self, stream: Stream) {
        let body = Box::new(std::mem::replace(self, Self::Full(None)));
        *self = Self::On { body, stream };
    }

    pub(crate) fn stream(first: Bytes, rest: Box<dyn AnswerBody>) -> Self {
        Self::Rest(Some(first).filter(|first| !first.is_empty()), rest.into())
    }
}

/// The part of a kept answer that has not left yet.
pub(crate) struct Kept {
    pieces: Pieces,
    left: usize,
    reading: Option<Reply<'static, Bytes>>,
}

impl Kept {
    /// The last `left` bytes of an answer: its body, behind its head.
    pub(crate) fn new(pieces: Pieces, left: usize) -> Self {
        Self { pieces, left, reading: None }
    }

    /// Whether an answer of this length is large enough to be read piece by piece.
    pub(crate) fn is_worth_it(length: usize) -> bool {
        length > 4 * Pieces::BYTES
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let (pieces, left) = (&self.pieces, self.left);
        let reading = self.reading.get_or_insert_with(|| {
            let pieces = pieces.clone();
            Box::pin(async move { pieces.read(left).await })
        });
        let Poll::Ready(read) = reading.as_mut().poll(cx) else { return Poll::Pending };
        self.reading = None;
        Poll::Ready(Some(match read {
            Ok(piece) => {
                self.left = self.left.saturating_sub(piece.len());
                Ok(piece)
            }
            // Forgotten meanwhile, or worse: the rest never comes.
            Err(error) => Err(Broken(error.to_string())),
        }))
    }
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
            Self::Rest(first @ Some(_), _) => {
                Poll::Ready(first.take().map(|first| Ok(Frame::data(first))))
            }
            Self::Download(rest) | Self::Rest(None, rest) => {
                Pin::new(rest).poll_frame(cx).map_err(|failure| Broken(failure.error))
            }
            Self::Kept(kept) => {
                kept.poll_piece(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
            }
            Self::Axum(body) => {
                Pin::new(body).poll_frame(cx).map_err(|error| Broken(error.to_string()))
            }
            Self::On { body, stream } => {
                stream.goes_on();
                let frame = Pin::new(&mut **body).poll_frame(cx);
                if matches!(frame, Poll::Ready(Some(Ok(_)))) && !body.is_end_stream() {
                    stream.waits();
                }
                frame
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Download(body) => body.is_end_stream(),
            Self::Rest(..) => false,
            Self::Kept(kept) => kept.left == 0,
            Self::Axum(body) => body.is_end_stream(),
            Self::On { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Download(body) => body.size_hint(),
            Self::Rest(..) => SizeHint::default(),
            Self::Kept(kept) => SizeHint::with_exact(kept.left as u64),
            Self::Axum(body) => body.size_hint(),
            Self::On { body, .. } => body.size_hint(),
        }
    }
}
