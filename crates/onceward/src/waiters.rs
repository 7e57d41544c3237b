//! Duplicates that wait for the outcome of an operation that is under way. They never execute.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use onceward_core::id::OperationId;
use tokio::sync::oneshot;

/// Waiters for one operation, at most.
const WAITERS_OF_ONE_MAX: usize = 1024;

/// Waiters in all, at most.
const WAITERS_MAX: usize = 16 * 1024;

/// Who waits for what.
#[derive(Debug, Default)]
pub(crate) struct Waiters(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    by_operation: HashMap<OperationId, Vec<oneshot::Sender<()>>>,
    count: usize,
}

impl Waiters {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for `id` from now on; nothing where too many do. Whoever waits has to look at the
    /// ledger once more afterwards: it may have come to rest before.
    pub(crate) fn join(&self, id: OperationId) -> Option<oneshot::Receiver<()>> {
        let mut waiting = self.lock();
        if waiting.count >= WAITERS_MAX {
            waiting.forget_who_left();
        }
        if waiting.count >= WAITERS_MAX {
            return None;
        }
        let of_one = waiting.by_operation.entry(id).or_default();
        let before = of_one.len();
        of_one.retain(|waiter| !waiter.is_closed());
        let left = before - of_one.len();
        let joined = (of_one.len() < WAITERS_OF_ONE_MAX).then(|| {
            let (wake, woken) = oneshot::channel();
            of_one.push(wake);
            woken
        });
        waiting.count = waiting.count - left + usize::from(joined.is_some());
        joined
    }

    /// Wakes everybody who waits for `id`.
    pub(crate) fn wake(&self, id: OperationId) {
        let woken = {
            let mut waiting = self.lock();
            let woken = waiting.by_operation.remove(&id).unwrap_or_default();
            waiting.count -= woken.len();
            woken
        };
        for waiter in woken {
            // Whoever left needs no waking.
            let _ = waiter.send(());
        }
    }
}

impl Waiting {
    fn forget_who_left(&mut self) {
        self.by_operation.retain(|_, of_one| {
            of_one.retain(|waiter| !waiter.is_closed());
            !of_one.is_empty()
        });
        self.count = self.by_operation.values().map(Vec::len).sum();
    }
}
