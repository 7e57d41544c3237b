//! When something is due, and of which operation: a hint, the ledger is the truth.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use onceward_core::id::OperationId;
use onceward_core::time::Timestamp;
use tokio::sync::Notify;

/// Entries that one process keeps in mind; what is more is found with the next look at the ledger.
const ENTRIES_MAX: usize = 64 * 1024;

/// When something is due that this process knows of.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    entries: Mutex<BTreeSet<(Timestamp, OperationId)>>,
    /// Woken when one is noted that is due before all others.
    earlier: Notify,
}

impl Agenda {
    fn entries(&self) -> MutexGuard<'_, BTreeSet<(Timestamp, OperationId)>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps in mind that `id` is due `at` then.
    pub(crate) fn note(&self, at: Timestamp, id: OperationId) {
        let mut entries = self.entries();
        if entries.len() >= ENTRIES_MAX {
            return;
        }
        let is_first = entries.first().is_none_or(|(first, _)| at < *first);
        entries.insert((at, id));
        drop(entries);
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// What was due `at` then is of no matter any more.
    pub(crate) fn forget(&self, at: Timestamp, id: OperationId) {
        self.entries().remove(&(at, id));
    }

    /// One that is due by now; it is not kept in mind any longer.
    pub(crate) fn due(&self, now: Timestamp) -> Option<OperationId> {
        let mut entries = self.entries();
        let (at, id) = entries.first().copied().filter(|(at, _)| *at <= now)?;
        entries.remove(&(at, id));
        Some(id)
    }

    /// When the first is due.
    pub(crate) fn first(&self) -> Option<Timestamp> {
        self.entries().first().map(|(at, _)| *at)
    }

    /// Waits until one is noted that is due before all others.
    pub(crate) async fn earlier(&self) {
        self.earlier.notified().await;
    }
}
