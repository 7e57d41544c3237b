//! How fast a request's body has to come: whoever sends a byte now and then holds what they have
//! asked for no longer than one who sends nothing.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use thiserror::Error;
use tokio::time::Instant;

use crate::alarm::Alarm;

/// How long a body may take whatever its pace: a connection may stutter.
const GRACE: Duration = Duration::from_secs(10);

/// How fast a body has to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// How long it may take in all.
    pub total: Duration,
    /// How many bytes a second it has to come by on average, once ten seconds are over.
    pub bytes_per_second: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { total: Duration::from_mins(1), bytes_per_second: 1 << 10 }
    }
}

impl Pace {
    /// How long the body may take of which so many bytes are there.
    fn due(self, bytes: u64) -> Duration {
        let earned = bytes as f64 / self.bytes_per_second.max(1) as f64;
        // What is too long for a duration is longer than all in all.
        let earned = Duration::try_from_secs_f64(earned).unwrap_or(self.total);
        GRACE.saturating_add(earned).min(self.total)
    }
}

/// A body that came too slowly.
#[derive(Debug, Error)]
#[error("the body came too slowly")]
pub(super) struct TooSlow;

/// A body that breaks off where it does not keep pace.
#[derive(Debug)]
pub struct Paced<B> {
    body: B,
    pace: Pace,
    bytes: u64,
    /// Since when it has been waited for.
    began: Option<Instant>,
    alarm: Alarm,
}

impl<B> Paced<B> {
    /// `body`, of which nothing was read.
    pub fn new(body: B, pace: Pace) -> Self {
        Self { body, pace, bytes: 0, began: None, alarm: Alarm::default() }
    }

    /// Whether it is late by now; else this task is woken when it will be.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let began = *self.began.get_or_insert_with(Instant::now);
        self.alarm.is_over(began + self.pace.due(self.bytes), cx)
    }
}

impl<B> Body for Paced<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            let is_late = self.is_late(cx);
            return if is_late {
                Poll::Ready(Some(Err(Box::from(TooSlow))))
            } else {
                Poll::Pending
            };
        };
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.bytes += data.len() as u64;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::BodyExt as _;
    use tokio::time::{Sleep, sleep_until};

    use super::*;

    /// Comes in pieces of so many bytes, one after each time of this length.
    struct Dripping {
        piece: usize,
        every: Duration,
        pieces: usize,
        next: Pin<Box<Sleep>>,
    }

    impl Body for Dripping {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if self.pieces == 0 {
                return Poll::Ready(None);
            }
            if self.next.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let next = self.next.deadline() + self.every;
            self.next.as_mut().reset(next);
            self.pieces -= 1;
            Poll::Ready(Some(Ok(Frame::data(vec![b'x'; self.piece].into()))))
        }
    }

    #[tokio::test]
    async fn a_body_that_does_not_keep_pace_is_given_up() {
        let every = Duration::from_millis(1);
        let read = async |pieces, pace| {
            let next = Box::pin(sleep_until(Instant::now() + every));
            Paced::new(Dripping { piece: 100, every, pieces, next }, pace).collect().await
        };
        let whole = read(20, Pace::default()).await.expect("a second at most");
        assert_eq!(whole.to_bytes().len(), 2_000);
        let pace = Pace { total: Duration::from_millis(50), ..Pace::default() };
        let late = read(usize::MAX, pace).await.expect_err("it is endless");
        assert!(late.is::<TooSlow>(), "{late}");
    }

    #[test]
    fn each_byte_earns_its_time_up_to_that_of_all() {
        let due = |bytes| Pace::default().due(bytes).as_millis();
        assert_eq!((due(0), due(512), due(20 << 10)), (10_000, 10_500, 30_000));
        assert_eq!((due(50 << 10), due(u64::MAX)), (60_000, 60_000));
        let pace = |total, bytes_per_second| Pace { total, bytes_per_second };
        assert_eq!(pace(Duration::from_secs(2), 1 << 10).due(0), Duration::from_secs(2));
        assert_eq!(pace(Duration::MAX, 0).due(5), Duration::from_secs(15), "no pace is a slow one");
    }
}
