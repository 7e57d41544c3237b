//! Durable writes of a store: how many there were, and how long each took.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Whoever is told how long a durable write took; on the store's own thread, so it has to be quick.
pub type ToldCommit = Box<dyn Fn(Duration) + Send + Sync>;

#[derive(Default)]
pub(super) struct Commits {
    count: AtomicU64,
    told: OnceLock<ToldCommit>,
}

impl fmt::Debug for Commits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Commits").field(&self.count()).finish()
    }
}

impl Commits {
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// One more, which began then.
    pub(super) fn add(&self, began: Instant) {
        self.count.fetch_add(1, Ordering::Relaxed);
        if let Some(told) = self.told.get() {
            told(began.elapsed());
        }
    }

    /// From now on `told` is; the first one stays.
    pub(super) fn tell(&self, told: ToldCommit) {
        // Who comes later is told nothing.
        let _ = self.told.set(told);
    }
}
