//! What events cost: events a second by how many subscriptions want each, beside operations that are
//! accepted one by one. One engine, a ledger on disk; receivers answer at once and within this process,
//! so that nothing but the engine and its ledger is measured.

use std::future::Future;
use std::io::Write as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use onceward::clock::SystemClock;
use onceward::core::event::Event;
use onceward::core::exchange::{Headers, Request};
use onceward::core::key::Key;
use onceward::core::lease::Session;
use onceward::core::policy::{Effects, Policy};
use onceward::observe::Unobserved;
use onceward::route::{Route, Routes};
use onceward::secret::{Secrets, random};
use onceward::store::sqlite::{SqliteOptions, SqliteStore};
use onceward::upstream::{Answer, AnswerBody, Dispatch, Failure, Sent, Target, Timeouts, Upstream};
use onceward::{Call, CallOptions, Destination, Engine, Parts, Person, Publication, Wish};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::Outcome;

/// How many want each event.
const RECEIVERS: [usize; 4] = [1, 10, 100, 1000];

/// Deliveries of each turn, at least: so many events as that takes.
const DELIVERIES: usize = 10_000;

/// Publishers at once.
const PUBLISHERS: usize = 64;

/// The bytes of an event's data.
const DATA_BYTES: usize = 1024;

/// Receivers that answer at once, and are counted.
#[derive(Default)]
struct Receivers {
    had: AtomicU64,
    more: Notify,
}

struct Nothing;

impl AnswerBody for Nothing {
    fn chunk(
        &mut self,
    ) -> Pin<Box<dyn Future<Output = Result<Option<Bytes>, Failure>> + Send + '_>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn trailers(&mut self) -> Headers {
        Headers::default()
    }
}

impl Upstream for Receivers {
    fn send(&self, _: Dispatch) -> Pin<Box<dyn Future<Output = Sent> + Send + '_>> {
        self.had.fetch_add(1, Ordering::Relaxed);
        self.more.notify_one();
        let body = Box::new(Nothing);
        let answer = Answer { status: 204, headers: Headers::default(), body, note: None };
        Box::pin(std::future::ready(Sent::Answered(answer)))
    }
}

impl Receivers {
    async fn until(&self, count: u64) {
        while self.had.load(Ordering::Relaxed) < count {
            self.more.notified().await;
        }
    }
}

/// Measures, and prints a line for each number of subscriptions.
pub(crate) fn run(data: &Path) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{PUBLISHERS} publishers, {DATA_BYTES} bytes of data, an embedded ledger")?;
    writeln!(
        out,
        "{:>14} {:>9} {:>11} {:>13} {:>13}",
        "subscriptions", "events", "events/s", "deliveries/s", "bytes/delivery"
    )?;
    let alone = runtime.block_on(accepted(tempfile::tempdir_in(data)?.path()))?;
    writeln!(out, "{:>14} {:>9} {:>11} {alone:>13.0} {:>13}", "no event", "-", "-", "-")?;
    for receivers in RECEIVERS {
        let folder = tempfile::tempdir_in(data)?;
        let measured = runtime.block_on(fanned_out(folder.path(), receivers))?;
        let Measured { events, took, bytes } = measured;
        let a_second = events as f64 / took.as_secs_f64();
        writeln!(
            out,
            "{receivers:>14} {events:>9} {a_second:>11.1} {:>13.0} {:>13.0}",
            a_second * receivers as f64,
            bytes as f64 / (events * receivers) as f64
        )?;
    }
    Ok(())
}

async fn engine(folder: &Path, receivers: &Arc<Receivers>) -> Outcome<Arc<Engine>> {
    let store = SqliteStore::open(&folder.join("ledger.db"), &SqliteOptions::default())?;
    let target = Target::of_operator("http://receivers.invalid".parse()?, Timeouts::default());
    let policy = Policy { effects: Some(Effects::Keyed), ..Policy::default() };
    let route = Arc::new(Route::new("one", target, policy));
    let engine = Engine::new(Parts {
        store: Arc::new(store),
        upstream: Arc::clone(receivers) as Arc<_>,
        clock: Arc::new(SystemClock),
        observer: Arc::new(Unobserved),
        secrets: Secrets::new(random()),
        routes: Routes { named: [("one".to_owned(), Arc::clone(&route))].into(), ad_hoc: route },
        session: Session(u64::from_le_bytes(random())),
    });
    engine.recover().await?;
    engine.start();
    Ok(engine)
}

/// Operations a second that are accepted one by one and delivered.
async fn accepted(folder: &Path) -> Outcome<f64> {
    let receivers = Arc::new(Receivers::default());
    let engine = engine(folder, &receivers).await?;
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for caller in 0..PUBLISHERS {
        let engine = Arc::clone(&engine);
        callers.spawn(async move {
            for number in (caller..DELIVERIES).step_by(PUBLISHERS) {
                engine.call(call(number)).await.map_err(|refusal| format!("{refusal:?}"))?;
            }
            Ok::<_, String>(())
        });
    }
    while let Some(done) = callers.join_next().await {
        done??;
    }
    receivers.until(DELIVERIES as u64).await;
    let a_second = DELIVERIES as f64 / began.elapsed().as_secs_f64();
    engine.stop().await;
    Ok(a_second)
}

fn call(number: usize) -> Call {
    let key = ("idempotency-key".to_owned(), Bytes::from(format!("k-{number}")));
    Call {
        tenant: "t".to_owned(),
        principal: String::new(),
        route: "one".to_owned(),
        request: Request {
            method: "POST".to_owned(),
            target: "/hooks".to_owned(),
            headers: Headers(vec![key]),
            body: Bytes::from(vec![b'x'; DATA_BYTES]),
        },
        options: CallOptions { respond_async: true, ..CallOptions::default() },
    }
}

struct Measured {
    events: usize,
    took: Duration,
    /// By which the ledger grew in what requests keep.
    bytes: u64,
}

/// Events that each go to so many receivers.
async fn fanned_out(folder: &Path, count: usize) -> Outcome<Measured> {
    let receivers = Arc::new(Receivers::default());
    let engine = engine(folder, &receivers).await?;
    let person = Person { who: "bench".to_owned(), reason: String::new() };
    for _ in 0..count {
        let to = Destination::Route { name: "one".to_owned(), target: "/hooks".to_owned() };
        let made = engine.subscribe("t", Wish::new(to), None, &person).await;
        made.map_err(|refusal| format!("{refusal:?}"))?;
    }
    let events = DELIVERIES.div_ceil(count);
    let began = Instant::now();
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS.min(events) {
        let engine = Arc::clone(&engine);
        publishers.spawn(async move {
            let mut kept = 0;
            for number in (publisher..events).step_by(PUBLISHERS.min(events)) {
                let published = engine.publish(publication(number)?).await;
                let published = published.map_err(|refusal| format!("{refusal:?}"))?;
                kept += published.operation.request.map_or(0, |body| u64::from(body.length));
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(kept)
        });
    }
    let mut bytes = 0;
    while let Some(done) = publishers.join_next().await {
        bytes += done??;
    }
    receivers.until((events * count) as u64).await;
    let took = began.elapsed();
    let query = onceward::store::Query {
        kind: Some(onceward::core::key::ScopeKind::Delivery),
        limit: 1,
        ..onceward::store::Query::default()
    };
    let one = engine.store().list(query).await?.operations;
    let each = one.first().and_then(|one| one.request).map_or(0, |body| u64::from(body.length));
    engine.stop().await;
    Ok(Measured { events, took, bytes: bytes + each * (events * count) as u64 })
}

fn publication(number: usize) -> Outcome<Publication> {
    let data = serde_json::value::to_raw_value(&"x".repeat(DATA_BYTES))?;
    Ok(Publication {
        tenant: "t".to_owned(),
        principal: String::new(),
        event: Event::own("order.paid", None, None, Some(&data))?,
        key: Some(Key::new(&format!("event-{number}"))?),
        only: None,
        trace: None,
    })
}
