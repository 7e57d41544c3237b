//! A timer that is set for one deadline after the other.

use std::future::Future as _;
use std::pin::{Pin, pin};
use std::task::{Context, Waker};

use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

/// A deadline. One timer serves many, one after the other: where it is set for an earlier one it goes
/// off in vain, which costs less than to set it for each.
#[derive(Debug, Default)]
pub(crate) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Whether `due` has come; else this task is woken then.
    pub(crate) fn is_over(&mut self, due: Instant, cx: &mut Context<'_>) -> bool {
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() > due {
            timer.as_mut().reset(due);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() >= due {
                return true;
            }
            timer.as_mut().reset(due);
        }
        false
    }

    /// Forgets whom it would wake, so that it keeps nothing of a task that goes on without it.
    pub(crate) fn let_go(&mut self) {
        if let Some(timer) = &mut self.0 {
            let mut nobody = Context::from_waker(Waker::noop());
            let _ = pin!(unconstrained(timer.as_mut())).poll(&mut nobody);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::task::{Poll, Wake};
    use std::time::Duration;

    use super::*;

    async fn wait(alarm: &mut Alarm, due: Instant) {
        poll_fn(|cx| if alarm.is_over(due, cx) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    #[tokio::test]
    async fn each_deadline_is_met_and_none_is_met_early_whatever_the_timer_was_set_for_before() {
        let begun = Instant::now();
        let mut alarm = Alarm::default();
        let mut cx = Context::from_waker(Waker::noop());
        let far = begun + Duration::from_hours(1);
        assert!(!alarm.is_over(far, &mut cx));
        for due in [20, 30, 70].map(|due| begun + Duration::from_millis(due)) {
            wait(&mut alarm, due).await;
            assert!(Instant::now() >= due);
            assert!(!alarm.is_over(far, &mut cx));
        }
    }

    #[tokio::test]
    async fn an_alarm_that_was_let_go_keeps_nothing_of_whom_it_was_set_by() {
        struct Task;
        impl Wake for Task {
            fn wake(self: Arc<Self>) {}
        }
        let task = Arc::new(Task);
        let waker = Waker::from(Arc::clone(&task));
        let mut alarm = Alarm::default();
        let far = Instant::now() + Duration::from_hours(1);
        assert!(!alarm.is_over(far, &mut Context::from_waker(&waker)));
        drop(waker);
        assert_eq!(Arc::strong_count(&task), 2, "it would be woken");
        alarm.let_go();
        assert_eq!(Arc::strong_count(&task), 1);
    }
}
