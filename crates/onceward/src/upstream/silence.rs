//! How long something is waited for, without a timer for each wait.

use std::task::Context;
use std::time::Duration;

use tokio::time::Instant;

use crate::alarm::Alarm;

/// A silence in what is being read: when it is over, once it has begun. What comes without one costs no
/// timer.
#[derive(Debug, Default)]
pub(super) struct Silence(Option<Instant>);

impl Silence {
    /// Whether it has lasted for `max` or `deadline` has come; begins it where it has not begun.
    pub(super) fn is_over(
        &mut self,
        alarm: &mut Alarm,
        max: Duration,
        deadline: Option<Instant>,
        cx: &mut Context<'_>,
    ) -> bool {
        let due = *self.0.get_or_insert_with(|| {
            let until = Instant::now() + max;
            deadline.map_or(until, |deadline| deadline.min(until))
        });
        alarm.is_over(due, cx)
    }

    /// Something came.
    pub(super) fn ends(&mut self) {
        self.0 = None;
    }
}
