//! What the writer is asked for, and the queue before it. A caller wakes the writer only where that
//! waits: most of the time it is busy, and takes what queued meanwhile.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use onceward_core::id::OperationId;
use onceward_core::operation::Operation;
use onceward_core::time::Timestamp;
use tokio::sync::oneshot;

use super::journal::Position;
use crate::store::{Asked, Birth, Judge, Lane, Remembered, StoreError, Swept, Which, Write};

/// How long what came waits for others that come about now.
const COMPANY_WAIT: Duration = Duration::from_micros(100);

pub(super) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the writer is asked for.
pub(super) enum Command {
    Remember(Box<Birth>, Answer<Remembered>),
    Commit(Box<Write>, Answer<Operation>),
    Find(Which, Answer<Option<Operation>>),
    Lanes(Answer<Vec<(Lane, Timestamp)>>),
    Take(Lane, Timestamp, usize, Judge, Answer<Vec<Operation>>),
    NoteAsked(Vec<(OperationId, Asked)>, Answer<()>),
    Sweep(Timestamp, u64, usize, Answer<Swept>),
    Setting(String, Answer<Option<Bytes>>),
    Set(String, Option<Bytes>, Answer<()>),
    Swap(String, Option<Bytes>, Option<Bytes>, Answer<bool>),
    /// Makes readers see all that was written, and tells where the journal ends.
    Publish(Answer<Position>),
    /// Makes all that was written durable in the index and goes on in a new segment; tells which: those
    /// before it never change again.
    Seal(Answer<u32>),
    /// Writes the index anew, without what is left of rows that went; of these operations nothing is
    /// found any more by what their answers made.
    Rewrite(Vec<u64>, Answer<()>),
    /// The checkpoint beside the writer met an error.
    Fail(StoreError),
    Close,
}

/// The queue before the writer.
#[derive(Default)]
pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

#[derive(Default)]
struct Waiting {
    queue: Vec<Command>,
    /// The writer waits for so many; for none where it does not wait.
    awaited: usize,
}

impl Inbox {
    pub(super) fn push(&self, command: Command) {
        let mut waiting = self.lock();
        waiting.queue.push(command);
        let are_enough = waiting.awaited > 0 && waiting.queue.len() >= waiting.awaited;
        if are_enough {
            waiting.awaited = 0;
        }
        drop(waiting);
        if are_enough {
            self.wake.notify_one();
        }
    }

    /// Everything that waits, or nothing once `until` has come. What comes first waits a moment for
    /// as many as `company`: one write and one sync are for all of them.
    pub(super) fn take(&self, until: Option<Instant>, company: usize) -> Vec<Command> {
        let mut waiting = self.wait(self.lock(), 1, until);
        if (1..company).contains(&waiting.queue.len()) {
            waiting = self.wait(waiting, company, Some(Instant::now() + COMPANY_WAIT));
        }
        std::mem::take(&mut waiting.queue)
    }

    /// Waits for so many, or until it is time.
    fn wait<'a>(
        &self,
        mut waiting: MutexGuard<'a, Waiting>,
        awaited: usize,
        until: Option<Instant>,
    ) -> MutexGuard<'a, Waiting> {
        while waiting.queue.len() < awaited {
            waiting.awaited = awaited;
            let Some(until) = until else {
                waiting = self.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let woken = self.wake.wait_timeout(waiting, left);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        waiting.awaited = 0;
        waiting
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
