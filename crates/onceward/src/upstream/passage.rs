//! A request that passes without a record, and the body of its answer: nothing of them is kept, so
//! they go on as they come.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response};
use http_body::{Body, Frame, SizeHint};
use onceward_core::attempt::{Ending, Reached, Timings};
use onceward_core::exchange::{self, Headers, Request};

use super::answer::Reading;
use super::message::lines;
use super::upload::Upload;
use super::{AnswerBody, Dispatch, Failure, Sent, Target, Upstream};
use crate::edge::header_map;

/// How much of a body is read for an upstream that takes only whole requests.
const WHOLE_BYTES_MAX: usize = 8 << 20;

/// A request that passes: its head as it goes out in each attempt, and its body.
#[derive(Debug, Clone)]
pub struct Passage {
    /// Whom it goes to. `timeouts.total` does not hold for it: what passes may take as long as it
    /// moves.
    pub target: Arc<Target>,
    /// The method.
    pub method: Method,
    /// Path and query, beginning with `/`.
    pub path: PathAndQuery,
    /// Its header lines, made fit for the next hop. Host and framing are the door's.
    pub headers: HeaderMap,
    /// The body.
    pub upload: Upload,
}

/// Leaves of a caller's header lines what goes on to the upstream. Beside what a remembered request
/// carries on these are the codings that the caller accepts, since nobody else will have to decode
/// the answer, and what tells of trailers. What the door says itself keeps its place among the lines.
pub(crate) fn forward(headers: &mut HeaderMap) {
    let takes_trailers = headers.get_all(TE).iter().any(says_trailers);
    retain(headers, |name| match name {
        "accept-encoding" | "trailer" | "host" | "content-length" => true,
        _ => exchange::is_forwarded(name),
    });
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Leaves of an upstream's header lines what goes back to the caller.
pub(super) fn give_back(headers: &mut HeaderMap) {
    retain(headers, |name| match name {
        "content-length" | "trailer" => true,
        _ => exchange::is_returned(name),
    });
}

fn says_trailers(te: &HeaderValue) -> bool {
    let is_it = |coding: &str| {
        let coding = coding.split(';').next().unwrap_or_default();
        coding.trim().eq_ignore_ascii_case("trailers")
    };
    te.to_str().is_ok_and(|te| te.split(',').any(is_it))
}

/// Removes the lines of names that do not travel, and of those that `Connection` names.
fn retain(headers: &mut HeaderMap, travels: impl Fn(&str) -> bool) {
    let mut gone: Vec<HeaderName> =
        headers.keys().filter(|name| !travels(name.as_str())).cloned().collect();
    if gone.contains(&CONNECTION) {
        let lines = headers.get_all(CONNECTION).iter().map(HeaderValue::as_bytes);
        let named = exchange::named_by_connection(lines);
        gone.extend(named.iter().filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok()));
    }
    for name in gone {
        headers.remove(name);
    }
}

/// The body of an answer that passes, as it comes. Dropping it unread closes the connection.
pub struct Download {
    source: Source,
    /// Those that came while it was read as pieces.
    trailers: Option<Box<HeaderMap>>,
}

enum Source {
    /// From a connection. On the heap, since an answer is handed on from one to the next.
    Wire(Box<Reading>),
    /// From whatever else answers. Only its owner reads it: the lock is never waited for.
    Told(Mutex<Next>),
    Ended,
}

type Next =
    Pin<Box<dyn Future<Output = (Box<dyn AnswerBody>, Result<Option<Bytes>, Failure>)> + Send>>;

fn next(mut body: Box<dyn AnswerBody>) -> Next {
    Box::pin(async move {
        let piece = body.chunk().await;
        (body, piece)
    })
}

impl From<Reading> for Download {
    fn from(body: Reading) -> Self {
        Self { source: Source::Wire(Box::new(body)), trailers: None }
    }
}

impl From<Box<dyn AnswerBody>> for Download {
    fn from(body: Box<dyn AnswerBody>) -> Self {
        Self { source: Source::Told(Mutex::new(next(body))), trailers: None }
    }
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download").finish_non_exhaustive()
    }
}

impl Source {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let next_piece = match self {
            Self::Wire(body) => return Pin::new(body).poll_frame(cx),
            Self::Ended => return Poll::Ready(None),
            Self::Told(next_piece) => next_piece.get_mut().unwrap_or_else(PoisonError::into_inner),
        };
        let Poll::Ready((mut body, piece)) = next_piece.as_mut().poll(cx) else {
            return Poll::Pending;
        };
        match piece {
            Ok(Some(piece)) => {
                *self = Self::Told(Mutex::new(next(body)));
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Ok(None) => {
                let trailers = header_map(&body.trailers());
                *self = Self::Ended;
                Poll::Ready((!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers))))
            }
            Err(failure) => {
                *self = Self::Ended;
                Poll::Ready(Some(Err(failure)))
            }
        }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        self.source.poll(cx)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Wire(body) => body.is_end_stream(),
            Source::Told(_) => false,
            Source::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Wire(body) => body.size_hint(),
            Source::Told(_) => SizeHint::default(),
            Source::Ended => SizeHint::with_exact(0),
        }
    }
}

impl AnswerBody for Download {
    fn chunk(
        &mut self,
    ) -> Pin<Box<dyn Future<Output = Result<Option<Bytes>, Failure>> + Send + '_>> {
        Box::pin(async move {
            while let Some(frame) = poll_fn(|cx| self.source.poll(cx)).await.transpose()? {
                match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Ok(Some(data)),
                    Err(frame) => self.trailers = frame.into_trailers().ok().map(Box::new),
                }
            }
            Ok(None)
        })
    }

    fn trailers(&mut self) -> Headers {
        lines(self.trailers.take().map(|trailers| *trailers).unwrap_or_default())
    }

    fn timings(&self) -> Timings {
        match &self.source {
            Source::Wire(body) => body.timings(),
            Source::Told(_) | Source::Ended => Timings::default(),
        }
    }
}

/// Passes through an upstream that takes only whole requests.
pub(super) async fn dispatched(
    upstream: &(impl Upstream + ?Sized),
    passage: &Passage,
) -> Result<Response<Download>, Failure> {
    let Some(body) = passage.upload.collect(WHOLE_BYTES_MAX).await else {
        return Err(Failure {
            ending: Ending::Unsent,
            reached: Reached::Nothing,
            error: "the body broke off, or is too large for an upstream that takes only whole ones"
                .to_owned(),
            permanent: true,
            timings: Timings::default(),
        });
    };
    let mut headers = passage.headers.clone();
    headers.remove(HOST);
    headers.remove(CONTENT_LENGTH);
    let request = Request {
        method: passage.method.as_str().to_owned(),
        target: passage.path.as_str().to_owned(),
        headers: lines(headers),
        body,
    };
    let dispatch = Dispatch {
        target: Arc::clone(&passage.target),
        request: Arc::new(request),
        headers: Headers::default(),
        doom: None,
    };
    match upstream.send(dispatch).await {
        Sent::Failed(failure) => Err(failure),
        Sent::Answered(answer) => {
            let mut headers = header_map(&answer.headers);
            give_back(&mut headers);
            let mut response = Response::new(answer.body.into());
            *response.status_mut() =
                http::StatusCode::from_u16(answer.status).unwrap_or(http::StatusCode::BAD_GATEWAY);
            *response.headers_mut() = headers;
            Ok(response)
        }
    }
}
