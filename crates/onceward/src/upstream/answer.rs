//! The body of an answer, as it comes.
//!
//! The body of an attempt is bounded twice: between two pieces, and by the whole attempt, so that a
//! trickle of single bytes ends too. What passes through may go on for as long as something comes.
//! Only a body that was read to its end gives the connection back.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use onceward_core::attempt::{Ending, Reached, Timings};
use tokio::time::Instant;

use super::Failure;
use super::line::Line;
use super::pool::Pool;
use super::progress::Progress;
use super::silence::Silence;
use super::upload::Upload;

/// A body that is being read.
pub(super) struct Reading {
    /// The body and what it is read from; gone once it was read to its end or given up.
    source: Option<(Incoming, Line)>,
    pool: Arc<Pool>,
    /// What is still being sent meanwhile, where the answer came before its end.
    upload: Option<Upload>,
    silence: Silence,
    /// How long a piece may take.
    pause_max: Duration,
    /// When all of it has to be there.
    deadline: Option<Instant>,
    /// Set once it broke off: it never looks whole afterwards.
    failed: Option<Failure>,
    progress: Progress,
}

impl Reading {
    pub(super) fn new(
        body: Incoming,
        line: Line,
        pool: Arc<Pool>,
        pause_max: Duration,
        deadline: Option<Instant>,
        upload: Option<Upload>,
        progress: Progress,
    ) -> Self {
        let is_whole = body.is_end_stream();
        let mut reading = Self {
            source: Some((body, line)),
            pool,
            upload,
            silence: Silence::default(),
            pause_max,
            deadline,
            failed: None,
            progress,
        };
        if is_whole {
            reading.finish();
        }
        reading
    }

    /// How long each phase of its attempt took up to now.
    pub(super) fn timings(&self) -> Timings {
        self.progress.timings()
    }

    fn finish(&mut self) {
        let Some((_, line)) = self.source.take() else { return };
        // A request that is still on its way keeps its connection to itself until that has ended.
        if self.upload.as_ref().is_none_or(Upload::is_over) {
            self.pool.give_back(line, self.pause_max);
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
            timings: self.timings(),
        };
        self.failed = Some(failure.clone());
        failure
    }
}

impl Body for Reading {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let this = &mut *self;
        if let Some(failure) = &this.failed {
            return Poll::Ready(Some(Err(failure.clone())));
        }
        let Some((body, line)) = &mut this.source else { return Poll::Ready(None) };
        let Poll::Ready(frame) = line.poll_frame(body, cx) else {
            if !this.silence.is_over(&mut line.alarm, this.pause_max, this.deadline, cx) {
                return Poll::Pending;
            }
            let is_late = this.deadline.is_some_and(|deadline| deadline <= Instant::now());
            let late = "the answer took longer than the attempt may";
            let failure = this.give_up(if is_late { late } else { "the answer stopped coming" });
            return Poll::Ready(Some(Err(failure)));
        };
        this.silence.ends();
        match frame {
            Some(Ok(frame)) => {
                if body.is_end_stream() {
                    this.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(_)) => Poll::Ready(Some(Err(this.give_up("the answer broke off")))),
            None => {
                this.finish();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_none() && self.failed.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Some((body, _)) => body.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}
