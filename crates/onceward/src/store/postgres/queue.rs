//! What waits to be written: jobs of all callers, taken in batches by whichever writer is free.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use onceward_core::attempt::BodyRef;
use onceward_core::id::OperationId;
use onceward_core::key::KeyDigest;
use onceward_core::operation::Operation;
use tokio::sync::{Notify, oneshot};

use super::days::Gone;
use super::link::pause;
use crate::store::commits::Commits;
use crate::store::{Birth, Remembered, Slot, Standing, StoreError, Write, digest_of};

/// Jobs of one batch, at most: small enough that its callers do not wait for each other for long.
const BATCH_MAX: usize = 256;

/// Bytes of bodies in one batch, beyond which it is closed.
const BATCH_BYTES: usize = 4 << 20;

/// How long a few jobs wait for more while others are being written: a batch costs the server as much
/// as a dozen rows do. Beyond this the one in hand is slow, and nobody waits behind it.
const COMPANY: Duration = Duration::from_millis(5);

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// What a writer is asked for.
pub(super) enum Job {
    Remember(Box<Birth>, KeyDigest, Answer<Remembered>),
    Commit(Box<Change>, Answer<Operation>),
}

/// A change and what is known of it.
pub(super) struct Change {
    pub(super) write: Write,
    /// Where its body is put, once that has a number.
    pub(super) place: Option<BodyRef>,
    /// The body in whose place that is put.
    pub(super) over: Option<BodyRef>,
    /// Whether a try of it may have been written.
    pub(super) tried: bool,
}

impl Job {
    pub(super) fn remember(birth: Birth, answer: Answer<Remembered>) -> Self {
        let digest = digest_of(&birth.operation);
        Self::Remember(Box::new(birth), digest, answer)
    }

    pub(super) fn commit(write: Write, answer: Answer<Operation>) -> Self {
        let is_request = matches!(write.answer, Some((Slot::Request, _)));
        let over = write.operation.request.filter(|_| is_request);
        Self::Commit(Box::new(Change { write, place: None, over, tried: false }), answer)
    }

    /// The operation as it is written.
    pub(super) fn operation(&self) -> &Operation {
        match self {
            Self::Remember(birth, ..) => &birth.operation,
            Self::Commit(change, _) => &change.write.operation,
        }
    }

    pub(super) fn id(&self) -> OperationId {
        self.operation().id
    }

    /// Whether it leaves accepted work that waits.
    pub(super) fn is_pending(&self) -> bool {
        Standing::of(self.operation()) == Standing::Pending
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Remember(birth, ..) => birth.request.len(),
            Self::Commit(change, _) => {
                change.write.answer.as_ref().map_or(0, |(_, bytes)| bytes.len())
            }
        }
    }

    fn takes_over(&self) -> bool {
        matches!(self, Self::Remember(birth, ..) if birth.replaces.is_some())
    }

    /// Has its body numbered anew.
    pub(super) fn forget_number(&mut self) {
        match self {
            Self::Remember(birth, ..) => birth.operation.request = None,
            Self::Commit(change, _) => change.place = None,
        }
    }

    pub(super) fn fail(self, error: &StoreError) {
        // A caller that went away needs no answer.
        match self {
            Self::Remember(_, _, answer) => drop(answer.send(Err(error.clone()))),
            Self::Commit(_, answer) => drop(answer.send(Err(error.clone()))),
        }
    }
}

/// What the writers share with the store's front.
#[derive(Default)]
pub(super) struct Queue {
    jobs: Mutex<VecDeque<Job>>,
    wake: Notify,
    /// Jobs that are being written.
    in_hand: AtomicUsize,
    /// Batches that were taken.
    taken: AtomicUsize,
    /// What is gone with its day.
    pub(super) gone: Gone,
    /// Whether the server was away when it was last asked.
    pub(super) away: AtomicBool,
    pub(super) commits: Commits,
    /// Woken where accepted work was written.
    pub(super) changed: Arc<Notify>,
    /// Woken where a setting may have changed.
    pub(super) settings: Arc<Notify>,
    /// Woken where others have to hear of work.
    pub(super) tell: Notify,
}

impl Queue {
    pub(super) fn push(&self, job: Job) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).push_back(job);
        self.wake.notify_one();
    }

    /// The next batch: no two of its jobs touch the same operation or key. It is large, or else there
    /// is nothing that it could wait for.
    pub(super) async fn batch(&self) -> Vec<Job> {
        let (mut is_late, mut taken) = (false, 0);
        let mut company = std::pin::pin!(pause(COMPANY));
        loop {
            let woken = self.wake.notified();
            let (batch, left) = self.take(is_late);
            if !batch.is_empty() {
                if left > 0 {
                    self.wake.notify_one();
                }
                return batch;
            }
            if left == 0 {
                woken.await;
                (is_late, taken) = (false, self.taken.load(Ordering::Relaxed));
                company.set(pause(COMPANY));
                continue;
            }
            tokio::select! {
                () = woken => {}
                () = &mut company => {
                    let before = std::mem::replace(&mut taken, self.taken.load(Ordering::Relaxed));
                    is_late = taken == before;
                    company.set(pause(COMPANY));
                }
            }
        }
    }

    /// Jobs for a batch, and how many are left. There are none for one while more are in hand than
    /// wait, unless that `is_late`.
    fn take(&self, is_late: bool) -> (Vec<Job>, usize) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_late && jobs.len() < self.in_hand.load(Ordering::Relaxed) {
            return (Vec::new(), jobs.len());
        }
        let (mut batch, mut left) = (Vec::new(), Vec::new());
        let (mut ids, mut keys, mut bytes) = (HashSet::new(), HashSet::new(), 0);
        while let Some(job) = jobs.pop_front() {
            // What takes a key over is a transaction of its own.
            if job.takes_over() && !batch.is_empty() {
                left.push(job);
                break;
            }
            let is_alone = job.takes_over();
            let is_free = ids.insert(job.id())
                && match &job {
                    Job::Remember(_, key, _) => keys.insert(*key),
                    Job::Commit(..) => true,
                };
            if is_free {
                bytes += job.bytes();
                batch.push(job);
            } else {
                left.push(job);
            }
            if is_alone || batch.len() == BATCH_MAX || bytes > BATCH_BYTES {
                break;
            }
        }
        left.into_iter().rev().for_each(|job| jobs.push_front(job));
        self.in_hand.fetch_add(batch.len(), Ordering::Relaxed);
        self.taken.fetch_add(usize::from(!batch.is_empty()), Ordering::Relaxed);
        (batch, jobs.len())
    }

    /// Of a batch that was taken all is known.
    pub(super) fn is_written(&self, jobs: usize) {
        self.in_hand.fetch_sub(jobs, Ordering::Relaxed);
        self.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use onceward_core::policy::Mode;

    use super::*;
    use crate::store::contract::operation;

    fn push(queue: &Queue, numbers: std::ops::Range<u64>) {
        for n in numbers {
            let operation = operation(n, "key", "route", Mode::Held);
            let (answer, _) = oneshot::channel();
            queue.push(Job::commit(Write { operation, answer: None, visible: false }, answer));
        }
    }

    #[test]
    fn a_few_jobs_wait_while_more_are_in_hand_but_not_behind_a_slow_batch() {
        let queue = Queue::default();
        push(&queue, 1..4);
        let (first, left) = queue.take(false);
        assert_eq!((first.len(), left), (3, 0), "nothing is in hand: nothing to wait for");
        push(&queue, 4..6);
        let (few, left) = queue.take(false);
        assert_eq!((few.len(), left), (0, 2));
        push(&queue, 6..7);
        let (second, left) = queue.take(false);
        assert_eq!((second.len(), left), (3, 0), "as many wait as are in hand");
        push(&queue, 7..8);
        assert_eq!(queue.take(false).0.len(), 0);
        assert_eq!(queue.take(true).0.len(), 1);
        push(&queue, 8..9);
        for jobs in [3, 3, 1] {
            queue.is_written(jobs);
        }
        assert_eq!(queue.take(false).0.len(), 1);
    }
}
