//! Work that whoever began it may leave: it goes on by itself.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

use crate::sabotage::Sabotage;

/// Work that is done by whoever waits for it, in their own task, and goes on in one of its own where
/// they stop waiting, or never began: a caller that hangs up changes nothing. Only the end of the
/// runtime ends it.
#[must_use = "what is dropped goes on where nobody sees its end"]
pub(crate) struct Detached<T: Send + 'static> {
    /// Nothing once it has ended, or while it is polled: work that panicked is not gone on with.
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    /// Whoever leaves may do so from outside.
    runtime: Handle,
}

impl<T: Send + 'static> Detached<T> {
    /// Begins `work`.
    ///
    /// # Panics
    ///
    /// Outside of a runtime.
    pub(crate) fn begin(work: Pin<Box<dyn Future<Output = T> + Send>>) -> Self {
        Self { work: Some(work), runtime: Handle::current() }
    }

    /// Nobody waits for it: it goes on by itself.
    pub(crate) fn detach(mut self) {
        self.go_on();
    }

    fn go_on(&mut self) {
        if let Some(work) = self.work.take() {
            self.runtime.spawn(work);
        }
    }
}

impl<T: Send + 'static> Future for Detached<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        // Polled after its end it would never come again, as a future may.
        let Some(mut work) = self.work.take() else { return Poll::Pending };
        let polled = work.as_mut().poll(cx);
        if polled.is_pending() {
            self.work = Some(work);
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Detached<T> {
    fn drop(&mut self) {
        if !Sabotage::HangUpCancels.is_on() {
            self.go_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::AssertUnwindSafe;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::{Notify, oneshot};

    /// Work that waits to be let go, and says when it is over.
    fn work(go: &Arc<Notify>) -> (Detached<u32>, oneshot::Receiver<()>) {
        let (tell, told) = oneshot::channel();
        let go = Arc::clone(go);
        let work = Detached::begin(Box::pin(async move {
            go.notified().await;
            tell.send(()).expect("somebody looks");
            7
        }));
        (work, told)
    }

    #[tokio::test]
    async fn whoever_waits_gets_what_came_of_it() {
        let go = Arc::new(Notify::new());
        let (work, _told) = work(&go);
        go.notify_one();
        assert_eq!(work.await, 7);
    }

    #[tokio::test]
    async fn it_goes_on_where_whoever_waited_stops() {
        let go = Arc::new(Notify::new());
        let (mut work, told) = work(&go);
        tokio::select! {
            biased;
            _ = &mut work => panic!("nobody let it go"),
            () = std::future::ready(()) => {}
        }
        drop(work);
        go.notify_one();
        told.await.expect("it went on");
    }

    #[tokio::test]
    async fn it_begins_where_nobody_ever_waited() {
        let go = Arc::new(Notify::new());
        let (work, told) = work(&go);
        work.detach();
        go.notify_one();
        told.await.expect("it began");
    }

    #[test]
    fn whoever_leaves_may_be_outside_of_the_runtime() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let go = Arc::new(Notify::new());
        let (work, told) = {
            let _inside = runtime.enter();
            work(&go)
        };
        drop(work);
        go.notify_one();
        runtime.block_on(told).expect("it went on");
    }

    #[test]
    fn the_end_of_the_runtime_ends_it() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let go = Arc::new(Notify::new());
        let (work, mut told) = {
            let _inside = runtime.enter();
            work(&go)
        };
        runtime.spawn(work);
        runtime.block_on(tokio::task::yield_now());
        drop(runtime);
        assert_eq!(told.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }

    #[tokio::test]
    async fn work_that_panicked_is_not_gone_on_with() {
        let polls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&polls);
        let mut work = Detached::<()>::begin(Box::pin(async move {
            counted.fetch_add(1, Ordering::SeqCst);
            panic!("on purpose");
        }));
        let mut context = Context::from_waker(std::task::Waker::noop());
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| {
            Pin::new(&mut work).poll(&mut context).is_ready()
        }));
        assert!(polled.is_err());
        drop(work);
        tokio::task::yield_now().await;
        assert_eq!(polls.load(Ordering::SeqCst), 1);
    }
}
