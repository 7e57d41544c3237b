//! Spans on their way to a collector: OTLP over HTTP, through the door. A collector that is away or slow loses
//! spans, and holds up nobody.
//!
//! A span is written as its bytes where it ends, and what waits is bytes: a library that builds spans of
//! values, and messages of those, took five times the instructions (bench/README.md).

mod span;
mod wire;

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use onceward::core::exchange::{Headers, Request};
use onceward::upstream::{Dispatch, Sent, Target, Timeouts, Upstream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{info, warn};
use url::{Position, Url};

pub(super) use self::span::{Attributes, Kind, Span};
use self::wire::Wire;
use super::metrics::{Counter, METRICS};
use crate::config::Exporter;

/// The largest answer of a collector's that is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Where spans wait until they are sent together.
pub(super) struct Outgoing {
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

/// Spans that are sent at once, as the fields of their message.
#[derive(Debug)]
struct Batch {
    spans: Wire,
    count: usize,
    /// The first of them waits since then.
    since: Instant,
}

impl Outgoing {
    /// Spans for the collector that takes them at `url`. They are sent by a task of this runtime.
    pub(super) fn to(url: &Url, how: &Exporter, upstream: Arc<dyn Upstream>) -> Self {
        let result = |result| METRICS.spans.of([("result", result)]);
        let queue = Arc::new(Queue {
            batches: Mutex::default(),
            count: AtomicUsize::new(0),
            most: how.queue,
            batch: how.batch.min(how.queue),
            news: Notify::new(),
            is_over: AtomicBool::new(false),
            sent: result("sent"),
            lost: result("lost"),
        });
        let collector = Collector::of(url, how, upstream);
        let sending = tokio::spawn(Arc::clone(&queue).send(collector, how.delay));
        Self { queue, sending: Mutex::new(Some(sending)) }
    }

    /// Tells of a span; nothing of it is written where as many wait as may: then it is lost.
    pub(super) fn tell(&self, span: &Span<'_>, attributes: impl FnOnce(&mut Attributes<'_>)) {
        let Queue { count, most, lost, .. } = &*self.queue;
        if count.fetch_add(1, Ordering::Relaxed) < *most {
            self.queue.put(&span.encode(attributes));
        } else {
            count.fetch_sub(1, Ordering::Relaxed);
            lost.inc();
        }
    }

    /// Sends what waits; what is not sent by `within` is lost.
    pub(super) async fn finish(&self, within: Duration) {
        let sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut sending) = sending else { return };
        self.queue.is_over.store(true, Ordering::Release);
        self.queue.news.notify_one();
        if timeout(within, &mut sending).await.is_err() {
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
            batches.push_back(Batch { spans: Wire::default(), count: 0, since: Instant::now() });
        }
        let Some(last) = batches.back_mut() else { return };
        // `ScopeSpans.spans`
        last.spans.bytes(2, span);
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

    async fn send(self: Arc<Self>, collector: Collector, delay: Duration) {
        let mut is_away = false;
        loop {
            let is_over = self.is_over.load(Ordering::Acquire);
            let news = self.news.notified();
            match self.due(delay, is_over) {
                Ok(batch) => {
                    let count = batch.count;
                    let answered = collector.take(batch).await;
                    self.count.fetch_sub(count, Ordering::Relaxed);
                    let counter = if answered.is_ok() { &self.sent } else { &self.lost };
                    counter.inc_by(count as u64);
                    collector.log(answered, &mut is_away);
                }
                Err(None) if is_over => return,
                Err(None) => news.await,
                // By then it is due, whatever comes.
                Err(Some(due)) => drop(timeout_at(due, news).await),
            }
        }
    }
}

/// Whoever takes spans.
struct Collector {
    upstream: Arc<dyn Upstream>,
    target: Arc<Target>,
    path: String,
    headers: Headers,
    /// Who tells it, and by which code: fields of the message around spans.
    resource: Vec<u8>,
    scope: Vec<u8>,
    /// For people: without what may be a secret.
    place: String,
}

impl Collector {
    fn of(url: &Url, how: &Exporter, upstream: Arc<dyn Upstream>) -> Self {
        let mut base = url.clone();
        base.set_path("");
        let wait = how.timeout;
        let connect = Timeouts::default().connect.min(wait);
        let timeouts = Timeouts { connect, head: wait, body: wait, total: wait };
        let mut headers = Headers::default();
        headers.set("content-type", "application/x-protobuf");
        headers.set("user-agent", concat!("onceward/", env!("CARGO_PKG_VERSION")));
        for (name, value) in &how.headers {
            headers.set(name, value.clone());
        }
        let (mut resource, mut scope) = (Wire::default(), Wire::default());
        resource.message(1, |resource| {
            let mut attributes = Attributes::of(resource, 1);
            for (name, value) in &how.resource {
                attributes.say(name, value);
            }
        });
        scope.message(1, |scope| {
            scope.text(1, &["onceward"]);
            scope.text(2, &[env!("CARGO_PKG_VERSION")]);
        });
        Self {
            upstream,
            target: Arc::new(Target::of_operator(base, timeouts)),
            path: url[Position::BeforePath..].to_owned(),
            headers,
            resource: resource.into_bytes(),
            scope: scope.into_bytes(),
            place: url[..Position::BeforePath].to_owned(),
        }
    }

    /// `ExportTraceServiceRequest`, whose one field is `ResourceSpans`.
    fn message(&self, batch: Batch) -> Bytes {
        let spans = batch.spans.into_bytes();
        let mut wire = Wire::with_room(spans.len() + self.resource.len() + self.scope.len() + 32);
        wire.message(1, |of_resource| {
            of_resource.fields(&self.resource);
            of_resource.message(2, |of_scope| {
                of_scope.fields(&self.scope);
                of_scope.fields(&spans);
            });
        });
        wire.into_bytes().into()
    }

    async fn take(&self, batch: Batch) -> Result<(), String> {
        let dispatch = Dispatch {
            target: Arc::clone(&self.target),
            request: Arc::new(Request {
                method: "POST".to_owned(),
                target: self.path.clone(),
                headers: self.headers.clone(),
                body: self.message(batch),
            }),
            headers: Headers::default(),
            doom: None,
        };
        let mut answer = match self.upstream.send(dispatch).await {
            Sent::Answered(answer) => answer,
            Sent::Failed(failure) => return Err(failure.to_string()),
        };
        // Read to its end, so that its connection is used again.
        let mut length = 0;
        while let Some(piece) = answer.body.chunk().await.map_err(|failure| failure.to_string())? {
            length += piece.len();
            if length > ANSWER_BYTES_MAX {
                return Err(format!("it answers more than {ANSWER_BYTES_MAX} bytes"));
            }
        }
        match answer.status {
            200..300 => Ok(()),
            status => Err(format!("it answers {status}")),
        }
    }

    /// Tells once that it is away, and once that it is there again.
    fn log(&self, answered: Result<(), String>, is_away: &mut bool) {
        let was_away = mem::replace(is_away, answered.is_err());
        let collector = &self.place;
        match answered {
            Err(error) if !was_away => {
                warn!(collector, error, "spans of traces are lost: nobody takes them");
            }
            Ok(()) if was_away => info!(collector, "spans of traces are taken again"),
            _ => {}
        }
    }
}
