//! What is under way is counted, so that whoever stops can wait for its end.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::Engine;
use crate::detached::Detached;
use crate::refusal::Refusal;

/// Work that is under way.
#[derive(Debug, Default)]
pub(crate) struct Running {
    count: AtomicUsize,
    idle: Notify,
}

impl Running {
    /// Waits until nothing is under way.
    pub(super) async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            if self.count.load(Ordering::SeqCst) == 0 {
                return;
            }
            idle.await;
        }
    }
}

/// One piece of work that is under way, for as long as it lives.
pub(crate) struct Run(Arc<Engine>);

impl Drop for Run {
    fn drop(&mut self) {
        if self.0.running.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.running.idle.notify_waiters();
        }
    }
}

impl Engine {
    /// Something is under way from now on.
    pub(crate) fn begin(self: &Arc<Self>) -> Run {
        // In one order with the word that nothing begins any more.
        self.running.count.fetch_add(1, Ordering::SeqCst);
        Run(Arc::clone(self))
    }

    /// Does `work` in a task of its own, to its end.
    pub(crate) fn go_on_with(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) {
        let run = self.begin();
        tokio::spawn(async move {
            let _run = run;
            work.await;
        });
    }

    /// Does `work` where it is waited for, to its end: whoever hangs up meanwhile leaves nothing half
    /// done.
    pub(crate) async fn see_through<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        let run = self.begin();
        Detached::begin(Box::pin(async move {
            let _run = run;
            work.await
        }))
        .await
    }
}
