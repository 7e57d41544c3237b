//! How long nothing has come.

use std::future::Future as _;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// A silence in what is being read. What comes without one costs no timer.
#[derive(Debug, Default)]
pub(super) struct Silence {
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether it has begun.
    is_on: bool,
}

impl Silence {
    /// Whether it has lasted for `max` or `deadline` has come; begins it where it has not begun.
    pub(super) fn is_over(
        &mut self,
        max: Duration,
        deadline: Option<Instant>,
        cx: &mut Context<'_>,
    ) -> bool {
        if !self.is_on {
            let until = Instant::now() + max;
            let until = deadline.map_or(until, |deadline| deadline.min(until));
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(until),
                none => *none = Some(Box::pin(sleep_until(until))),
            }
            self.is_on = true;
        }
        self.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready())
    }

    /// Something came.
    pub(super) fn ends(&mut self) {
        self.is_on = false;
    }
}
