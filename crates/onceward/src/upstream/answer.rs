//! The body of an answer, as it comes.
//!
//! It is bounded twice: between two pieces, and by the whole attempt, so that a trickle of single
//! bytes ends too. Only a body that was read to its end gives the connection back.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use onceward_core::attempt::{Ending, Reached};
use onceward_core::exchange::Headers;
use tokio::time::{Instant, timeout_at};

use super::line::Line;
use super::message::lines;
use super::pool::Pool;
use super::{AnswerBody, Failure};

/// A body that is being read.
pub(super) struct Reading {
    /// The body and what it is read from; gone once it was read to its end or given up.
    source: Option<(Incoming, Line)>,
    pool: Arc<Pool>,
    trailers: HeaderMap,
    /// How long a piece may take.
    pause_max: Duration,
    /// When all of it has to be there.
    deadline: Instant,
    /// Set once it broke off: it never looks whole afterwards.
    failed: Option<Failure>,
}

impl Reading {
    pub(super) fn new(
        body: Incoming,
        line: Line,
        pool: Arc<Pool>,
        pause_max: Duration,
        deadline: Instant,
    ) -> Self {
        let is_whole = body.is_end_stream();
        let source = Some((body, line));
        let trailers = HeaderMap::new();
        let mut reading = Self { source, pool, trailers, pause_max, deadline, failed: None };
        if is_whole {
            reading.finish();
        }
        reading
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        if let Some(failure) = &self.failed {
            return Err(failure.clone());
        }
        while let Some((body, _)) = &mut self.source {
            let until = self.deadline.min(Instant::now() + self.pause_max);
            match timeout_at(until, body.frame()).await {
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        if body.is_end_stream() {
                            self.finish();
                        }
                        if !data.is_empty() {
                            return Ok(Some(data));
                        }
                    }
                    Err(frame) => self.trailers.extend(frame.into_trailers().unwrap_or_default()),
                },
                Ok(Some(Err(_))) => return Err(self.give_up("the answer broke off")),
                Ok(None) => self.finish(),
                Err(_) if until == self.deadline => {
                    return Err(self.give_up("the answer took longer than the attempt may"));
                }
                Err(_) => return Err(self.give_up("the answer stopped coming")),
            }
        }
        Ok(None)
    }

    fn finish(&mut self) {
        if let Some((_, line)) = self.source.take() {
            self.pool.give_back(line);
        }
    }

    /// Lets go of the connection, so that what it still brings is read by nobody.
    fn give_up(&mut self, error: &str) -> Failure {
        if let Some((_, line)) = self.source.take() {
            self.pool.retire(line.wire());
        }
        let failure = Failure {
            ending: Ending::Truncated,
            reached: Reached::Head,
            error: error.to_owned(),
            permanent: false,
        };
        self.failed = Some(failure.clone());
        failure
    }
}

impl AnswerBody for Reading {
    fn chunk(
        &mut self,
    ) -> Pin<Box<dyn Future<Output = Result<Option<Bytes>, Failure>> + Send + '_>> {
        Box::pin(self.next())
    }

    fn trailers(&mut self) -> Headers {
        lines(std::mem::take(&mut self.trailers))
    }
}
