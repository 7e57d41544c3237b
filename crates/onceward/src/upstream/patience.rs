//! How long an attempt waits for the head of its answer.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use tokio::time::Instant;

use super::Timeouts;
use super::upload::{self, Upload};
use crate::alarm::Alarm;

/// How long an answer is waited for.
pub(super) enum Patience<'a> {
    /// For `timeouts.head`, and not past this instant.
    Within(Instant),
    /// For `timeouts.head` once the upload is over; for as long as it goes on before.
    WhileMoving(&'a Upload),
}

impl Patience<'_> {
    /// The deadline of a part of the attempt, where the attempt as a whole has none before.
    pub(super) fn least(&self, deadline: Instant) -> Instant {
        match self {
            Self::Within(total) => deadline.min(*total),
            Self::WhileMoving(_) => deadline,
        }
    }

    /// What comes of `exchange`; none where it was waited for in vain.
    pub(super) async fn wait<T>(
        &self,
        timeouts: &Timeouts,
        alarm: &mut Alarm,
        exchange: impl Future<Output = T>,
    ) -> Option<T> {
        let mut exchange = pin!(exchange);
        let begun = Instant::now();
        let mut due = self.least(begun + timeouts.head);
        poll_fn(|cx| {
            if let Poll::Ready(came) = exchange.as_mut().poll(cx) {
                return Poll::Ready(Some(came));
            }
            while alarm.is_over(due, cx) {
                let Self::WhileMoving(upload) = self else { return Poll::Ready(None) };
                due = upload.head_due(begun, timeouts.head, timeouts.body);
                if due <= Instant::now() {
                    return Poll::Ready(None);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Whether the attempt failed by its caller, and how.
    pub(super) fn broken_upload(&self) -> Option<upload::Broken> {
        match self {
            Self::Within(_) => None,
            Self::WhileMoving(upload) => upload.broken(),
        }
    }
}
