//! Spans on their way to a collector. One that is away or slow loses spans, and holds up nobody.
//!
//! A span is written as its bytes where it ends, and what waits is bytes: a library that builds spans of
//! values, and messages of those, took five times the instructions (bench/README.md).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::warn;

use super::span::{Attributes, Span};
use super::{Collector, Items};
use crate::config::Batches;
use crate::telemetry::FINISH;
use crate::telemetry::metrics::{Counter, METRICS};

/// Where spans wait until they are sent together.
pub(in crate::telemetry) struct Outgoing {
    queue: Arc<Queue>,
    sending: Mutex<Option<JoinHandle<()>>>,
}

/// Spans that wait, and what became of the others.
struct Queue {
    batches: Mutex<VecDeque<Batch>>,
    /// How many wait, or are on their way.
    count: AtomicUsize,
    most: usize,
    batch: usize,
    /// The first one waits, or a batch is full, or it is over.
    news: Notify,
    is_over: AtomicBool,
    sent: Arc<Counter>,
    lost: Arc<Counter>,
}

/// Spans that are sent at once.
#[derive(Debug)]
struct Batch {
    spans: Items,
    count: usize,
    /// The first of them waits since then.
    since: Instant,
}

impl Outgoing {
    /// Spans for a collector. They are sent by a task of this runtime.
    pub(in crate::telemetry) fn to(collector: Collector, batches: Batches) -> Self {
        let Batches { queue: most, batch, delay } = batches;
        let result = |result| METRICS.spans.of([("result", result)]);
        let queue = Arc::new(Queue {
            batches: Mutex::default(),
            count: AtomicUsize::new(0),
            most,
            batch: batch.min(most),
            news: Notify::new(),
            is_over: AtomicBool::new(false),
            sent: result("sent"),
            lost: result("lost"),
        });
        let sending = tokio::spawn(Arc::clone(&queue).send(collector, delay));
        Self { queue, sending: Mutex::new(Some(sending)) }
    }

    /// Tells of a span; nothing of it is written where as many wait as may: then it is lost.
    pub(in crate::telemetry) fn tell(
        &self,
        span: &Span<'_>,
        attributes: impl FnOnce(&mut Attributes<'_>),
    ) {
        let Queue { count, most, lost, .. } = &*self.queue;
        if count.fetch_add(1, Ordering::Relaxed) < *most {
            self.queue.put(&span.encode(attributes));
        } else {
            count.fetch_sub(1, Ordering::Relaxed);
            lost.inc();
        }
    }

    /// Sends what waits; what takes too long is lost.
    pub(in crate::telemetry) async fn finish(&self) {
        let sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut sending) = sending else { return };
        self.queue.is_over.store(true, Ordering::Release);
        self.queue.news.notify_one();
        if timeout(FINISH, &mut sending).await.is_err() {
            sending.abort();
            let count = self.queue.count.load(Ordering::Relaxed);
            self.queue.lost.inc_by(count as u64);
            warn!(count, "the last spans of traces are lost: the collector does not answer");
        }
    }
}

impl Queue {
    fn batches(&self) -> std::sync::MutexGuard<'_, VecDeque<Batch>> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, span: &[u8]) {
        let mut batches = self.batches();
        let is_first = batches.is_empty();
        if batches.back().is_none_or(|last| last.count >= self.batch) {
            batches.push_back(Batch { spans: Items::default(), count: 0, since: Instant::now() });
        }
        let Some(last) = batches.back_mut() else { return };
        last.spans.put(span);
        last.count += 1;
        let is_full = last.count >= self.batch;
        drop(batches);
        if is_first || is_full {
            self.news.notify_one();
        }
    }

    /// The oldest batch, where it is full, or the first of it has waited for `delay`, or it is over; else when
    /// that will be.
    fn due(&self, delay: Duration, is_over: bool) -> Result<Batch, Option<Instant>> {
        let mut batches = self.batches();
        let Some(first) = batches.front() else { return Err(None) };
        let due = first.since + delay;
        if is_over || first.count >= self.batch || due <= Instant::now() {
            return batches.pop_front().ok_or(None);
        }
        Err(Some(due))
    }

    async fn send(self: Arc<Self>, mut collector: Collector, delay: Duration) {
        loop {
            let is_over = self.is_over.load(Ordering::Acquire);
            let news = self.news.notified();
            match self.due(delay, is_over) {
                Ok(batch) => {
                    let count = batch.count;
                    let is_taken = collector.tell(Ok(batch.spans)).await;
                    self.count.fetch_sub(count, Ordering::Relaxed);
                    let counter = if is_taken { &self.sent } else { &self.lost };
                    counter.inc_by(count as u64);
                }
                Err(None) if is_over => return,
                Err(None) => news.await,
                // By then it is due, whatever comes.
                Err(Some(due)) => drop(timeout_at(due, news).await),
            }
        }
    }
}
