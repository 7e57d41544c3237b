//! The world around an engine: a scripted upstream that counts effects, a clock that stands still
//! until a test moves it, a ledger, and processes that can be killed and started again.
//!
//! Nothing here sleeps: a test waits for a condition, which is looked at again whenever one of the
//! doors was used.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::Future;
use std::ops::Range;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use onceward::clock::Clock;
use onceward::core::attempt::{Ending, Reached};
use onceward::core::exchange::{Headers, Request, Response};
use onceward::core::id::OperationId;
use onceward::core::key::{Key, Scope, ScopeKind};
use onceward::core::lease::{BEAT, Session};
use onceward::core::operation::{Operation, State};
use onceward::core::policy::{Effects, Policy};
use onceward::core::time::Timestamp;
use onceward::observe::{ClaimTurn, Fact, Observer, Repeat};
use onceward::route::{Protection, Route, Routes};
use onceward::secret::{Secrets, random};
use onceward::store::memory::MemoryStore;
use onceward::store::sqlite::{SqliteOptions, SqliteStore};
use onceward::store::{Store, Which};
use onceward::upstream::{
    Answer as UpstreamAnswer, AnswerBody, Dispatch, Failure, Sent, Target, Timeouts, Trust,
    Upstream,
};
use onceward::{Answer, Answered, Call, CallOptions, Engine, Parts, Person, Refusal};
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::postgres;

/// A test that waits longer than this waits for what does not come. Where a promise is broken on
/// purpose that is what is to be seen, so less will do: `TEST_PATIENCE` has the seconds.
fn patience() -> Duration {
    let seconds = std::env::var("TEST_PATIENCE").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60))
}

/// The route that most tests use.
pub(crate) const PAY: &str = "pay";

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Beats whenever something happened.
#[derive(Clone)]
struct Pulse(watch::Sender<u64>);

impl Pulse {
    fn beat(&self) {
        self.0.send_modify(|beats| *beats += 1);
    }
}

/// Time that passes only where a test says so.
pub(crate) struct ManualClock {
    time: Mutex<Time>,
    pulse: Pulse,
}

struct Time {
    now: Timestamp,
    sleepers: Vec<(Timestamp, oneshot::Sender<()>)>,
}

impl ManualClock {
    pub(crate) fn now(&self) -> Timestamp {
        lock(&self.time).now
    }

    pub(crate) fn advance(&self, by: Duration) {
        let to = self.now().plus(by);
        self.advance_to(to);
    }

    /// Never back.
    pub(crate) fn advance_to(&self, to: Timestamp) {
        let woken = {
            let mut time = lock(&self.time);
            time.now = time.now.max(to);
            let now = time.now;
            let (woken, asleep) = std::mem::take(&mut time.sleepers)
                .into_iter()
                .partition(|(until, _)| *until <= now);
            time.sleepers = asleep;
            woken
        };
        let woken: Vec<(Timestamp, oneshot::Sender<()>)> = woken;
        for (_, wake) in woken {
            // Whoever gave up needs no waking.
            let _ = wake.send(());
        }
        self.pulse.beat();
    }

    /// Whether somebody still sleeps for so long.
    pub(crate) fn is_anyone_asleep_for(&self, long: Range<Duration>) -> bool {
        let time = lock(&self.time);
        let mut asleep = time.sleepers.iter().filter(|(_, wake)| !wake.is_closed());
        asleep.any(|(until, _)| long.contains(&until.since(time.now)))
    }

    /// Whether somebody sleeps until exactly this instant.
    pub(crate) fn is_awaited(&self, until: Timestamp) -> bool {
        lock(&self.time).sleepers.iter().any(|(at, wake)| *at == until && !wake.is_closed())
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Self::now(self)
    }

    fn sleep_until(&self, until: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let woken = {
            let mut time = lock(&self.time);
            (until > time.now).then(|| {
                let (wake, woken) = oneshot::channel();
                time.sleepers.push((until, wake));
                woken
            })
        };
        self.pulse.beat();
        Box::pin(async move {
            if let Some(woken) = woken {
                // A clock that is gone wakes nobody.
                if woken.await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        })
    }
}

/// A door that holds calls back until it is opened.
#[derive(Clone)]
pub(crate) struct Gate(watch::Sender<bool>);

impl Gate {
    pub(crate) fn closed() -> Self {
        Self(watch::Sender::new(false))
    }

    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    async fn passed(&self) {
        // The sender is ours, so it is there.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

/// What the upstream does with one call.
#[derive(Clone)]
pub(crate) struct Step {
    what: What,
    effect: bool,
    gate: Option<Gate>,
}

#[derive(Clone)]
enum What {
    Answer { status: u16, headers: Headers, pieces: Vec<Bytes>, trailers: Headers },
    Truncated { status: u16, part: Bytes },
    Fail { ending: Ending, permanent: bool },
}

impl Step {
    /// It passes on only once `gate` is open; its effect happens before.
    pub(crate) fn behind(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }

    /// It has an effect, whatever its answer says.
    pub(crate) fn with_effect(mut self) -> Self {
        self.effect = true;
        self
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<Bytes>) -> Self {
        if let What::Answer { headers, .. } = &mut self.what {
            headers.0.push((name.to_owned(), value.into()));
        }
        self
    }

    pub(crate) fn trailer(mut self, name: &str, value: &'static str) -> Self {
        if let What::Answer { trailers, .. } = &mut self.what {
            trailers.0.push((name.to_owned(), Bytes::from_static(value.as_bytes())));
        }
        self
    }

    /// One more piece of the body.
    pub(crate) fn piece(mut self, piece: impl Into<Bytes>) -> Self {
        if let What::Answer { pieces, .. } = &mut self.what {
            pieces.push(piece.into());
        }
        self
    }
}

/// An answer; a 2xx says that there was an effect.
pub(crate) fn answer(status: u16, body: impl Into<Bytes>) -> Step {
    let pieces = vec![body.into()];
    let what =
        What::Answer { status, headers: Headers::default(), pieces, trailers: Headers::default() };
    Step { what, effect: (200..300).contains(&status), gate: None }
}

/// Provably nothing was sent.
pub(crate) fn unsent() -> Step {
    Step {
        what: What::Fail { ending: Ending::Unsent, permanent: false },
        effect: false,
        gate: None,
    }
}

/// Nothing was sent, and trying again cannot help.
pub(crate) fn permanent() -> Step {
    Step { what: What::Fail { ending: Ending::Unsent, permanent: true }, effect: false, gate: None }
}

/// It was sent, and no answer came; it had its effect.
pub(crate) fn unanswered() -> Step {
    let what = What::Fail { ending: Ending::Unanswered, permanent: false };
    Step { what, effect: true, gate: None }
}

/// An answer that breaks off after `part`.
pub(crate) fn truncated(status: u16, part: &'static str) -> Step {
    let what = What::Truncated { status, part: Bytes::from_static(part.as_bytes()) };
    Step { what, effect: (200..300).contains(&status), gate: None }
}

/// One dispatch, as the upstream saw it.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) host: String,
    pub(crate) method: String,
    /// The headers on the wire: what was remembered, and what was laid over it.
    pub(crate) headers: Headers,
    pub(crate) target: String,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.text(name).unwrap_or_default()
    }

    pub(crate) fn key(&self) -> &str {
        self.header("idempotency-key")
    }
}

/// An upstream that does what it is told, and keeps account of it.
pub(crate) struct Scripted {
    script: Mutex<Script>,
    /// Dispatches under way, and the most that there were.
    under_way: Mutex<(usize, usize)>,
    pulse: Pulse,
}

/// A dispatch under way, for as long as it lives.
struct UnderWay<'a>(&'a Mutex<(usize, usize)>);

impl<'a> UnderWay<'a> {
    fn begin(count: &'a Mutex<(usize, usize)>) -> Self {
        let mut now = lock(count);
        now.0 += 1;
        now.1 = now.1.max(now.0);
        Self(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        lock(self.0).0 -= 1;
    }
}

#[derive(Default)]
struct Script {
    steps: HashMap<String, VecDeque<Step>>,
    seen: Vec<Seen>,
    effects: BTreeMap<String, u32>,
    /// Whether a key that had its effect gets the first answer again, and no second effect.
    dedupes: bool,
    answered: HashMap<String, Step>,
}

impl Scripted {
    /// What the route `pay` does next; after it, every call is answered 201 with a new body.
    pub(crate) fn script(&self, steps: impl IntoIterator<Item = Step>) {
        self.script_for(PAY, steps);
    }

    pub(crate) fn script_for(&self, route: &str, steps: impl IntoIterator<Item = Step>) {
        lock(&self.script).steps.entry(format!("{route}.test")).or_default().extend(steps);
    }

    /// From now on a key has one effect, and gets the first 2xx again.
    pub(crate) fn dedupe(&self) {
        lock(&self.script).dedupes = true;
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        lock(&self.script).seen.clone()
    }

    pub(crate) fn dispatched(&self) -> usize {
        lock(&self.script).seen.len()
    }

    /// The most dispatches that were under way at once.
    pub(crate) fn most_at_once(&self) -> usize {
        lock(&self.under_way).1
    }

    /// How many effects `key` (as the upstream saw it) had.
    pub(crate) fn effects(&self, key: &str) -> u32 {
        lock(&self.script).effects.get(key).copied().unwrap_or_default()
    }

    fn take(&self, dispatch: &Dispatch) -> Step {
        let host = dispatch.target.base.host_str().unwrap_or_default().to_owned();
        let mut headers = dispatch.request.headers.clone();
        for (name, value) in &dispatch.headers.0 {
            headers.set(name, value.clone());
        }
        let seen = Seen {
            host: host.clone(),
            method: dispatch.request.method.clone(),
            headers,
            target: dispatch.request.target.clone(),
            body: dispatch.request.body.clone(),
        };
        let key = seen.key().to_owned();
        let mut script = lock(&self.script);
        script.seen.push(seen);
        let nth = script.seen.len();
        let step = script
            .steps
            .get_mut(&host)
            .and_then(VecDeque::pop_front)
            .unwrap_or_else(|| answer(201, format!("made by dispatch {nth}")));
        if script.dedupes
            && step.effect
            && let Some(first) = script.answered.get(&key)
        {
            return first.clone();
        }
        if step.effect {
            *script.effects.entry(key.clone()).or_default() += 1;
            // What it did it knows, even where nobody heard the whole answer.
            let known = match &step.what {
                What::Answer { .. } => Step { gate: None, ..step.clone() },
                What::Truncated { .. } | What::Fail { .. } => answer(201, "made once"),
            };
            script.answered.insert(key, known);
        }
        step
    }
}

impl Upstream for Scripted {
    fn send(&self, dispatch: Dispatch) -> Pin<Box<dyn Future<Output = Sent> + Send + '_>> {
        Box::pin(async move {
            let _under_way = UnderWay::begin(&self.under_way);
            let step = self.take(&dispatch);
            self.pulse.beat();
            if let Some(gate) = &step.gate {
                gate.passed().await;
            }
            // Whoever comes meanwhile is seen.
            tokio::task::yield_now().await;
            step.what.sent()
        })
    }
}

impl What {
    fn sent(self) -> Sent {
        let broken = |ending, reached| Failure {
            ending,
            reached,
            error: "as the script has it".to_owned(),
            permanent: false,
        };
        match self {
            Self::Answer { status, headers, pieces, trailers } => {
                let pieces = pieces.into_iter().map(Ok).collect();
                let body = Box::new(Pieces { pieces, trailers });
                Sent::Answered(UpstreamAnswer { status, headers, body, note: None })
            }
            Self::Truncated { status, part } => {
                let pieces =
                    VecDeque::from([Ok(part), Err(broken(Ending::Truncated, Reached::Head))]);
                let body = Box::new(Pieces { pieces, trailers: Headers::default() });
                Sent::Answered(UpstreamAnswer {
                    status,
                    headers: Headers::default(),
                    body,
                    note: None,
                })
            }
            Self::Fail { ending, permanent } => {
                let reached =
                    if ending == Ending::Unsent { Reached::Resolved } else { Reached::Sent };
                Sent::Failed(Failure { permanent, ..broken(ending, reached) })
            }
        }
    }
}

struct Pieces {
    pieces: VecDeque<Result<Bytes, Failure>>,
    trailers: Headers,
}

impl AnswerBody for Pieces {
    fn chunk(
        &mut self,
    ) -> Pin<Box<dyn Future<Output = Result<Option<Bytes>, Failure>> + Send + '_>> {
        Box::pin(std::future::ready(self.pieces.pop_front().transpose()))
    }

    fn trailers(&mut self) -> Headers {
        std::mem::take(&mut self.trailers)
    }
}

/// What the engine told.
pub(crate) struct Notes {
    told: Mutex<Told>,
    pulse: Pulse,
}

#[derive(Default)]
struct Told {
    repeats: Vec<Repeat>,
    attempted: Vec<&'static str>,
    rested: Vec<String>,
    looked: usize,
    claimed: Vec<ClaimTurn>,
    trouble: Vec<String>,
}

impl Notes {
    pub(crate) fn repeats(&self, repeat: Repeat) -> usize {
        lock(&self.told).repeats.iter().filter(|other| **other == repeat).count()
    }

    /// How many looks for what is in doubt were told of.
    pub(crate) fn looked(&self) -> usize {
        lock(&self.told).looked
    }

    /// How often this happened to claims.
    pub(crate) fn claimed(&self, turn: ClaimTurn) -> usize {
        lock(&self.told).claimed.iter().filter(|other| **other == turn).count()
    }

    /// How the attempts ended that were told of.
    pub(crate) fn attempted(&self) -> Vec<&'static str> {
        lock(&self.told).attempted.clone()
    }
}

impl Observer for Notes {
    fn observe(&self, fact: Fact<'_>) {
        match fact {
            Fact::Duplicate(_, repeat) => lock(&self.told).repeats.push(repeat),
            Fact::Rested(operation) => {
                lock(&self.told).rested.push(operation.state.name().to_owned());
            }
            Fact::Trouble(what) => lock(&self.told).trouble.push(what.to_owned()),
            Fact::Attempted(_, attempt) => {
                let ending = attempt.ended.as_ref().map_or("under way", |it| it.ending.name());
                lock(&self.told).attempted.push(ending);
            }
            Fact::Looked(..) => lock(&self.told).looked += 1,
            Fact::Claimed(_, turn) => lock(&self.told).claimed.push(turn),
            Fact::Remembered(_)
            | Fact::Reconciled(..)
            | Fact::Injected(..)
            | Fact::Acted(_)
            | Fact::Suspected(..)
            | Fact::TooOld(_)
            | Fact::Breaker(..)
            | Fact::Paused(..)
            | Fact::Steered(..) => {}
        }
        self.pulse.beat();
    }
}

/// Where the ledger is.
enum Ledger {
    Memory(Arc<MemoryStore>),
    Sqlite(tempfile::TempDir),
    Postgres(String),
}

/// A process: its tasks and its engine. Dropping it kills it where it stands.
struct Process {
    runtime: Runtime,
    engine: Arc<Engine>,
}

impl Process {
    fn start(&self) {
        let _inside = self.runtime.enter();
        self.engine.start();
    }
}

/// An engine and everything around it.
pub(crate) struct World {
    pub(crate) upstream: Arc<Scripted>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) notes: Arc<Notes>,
    routes: Routes,
    ledger: Ledger,
    process: Option<Process>,
    /// Whether the first pass of the sweep was let begin.
    swept: AtomicBool,
    pulse: Pulse,
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process.runtime.shutdown_background();
        }
    }
}

/// A call under way.
pub(crate) struct Calling {
    task: JoinHandle<Result<Answer, Refusal>>,
    answered: Arc<AtomicBool>,
}

impl Calling {
    pub(crate) async fn result(self) -> Result<Answer, Refusal> {
        tokio::time::timeout(patience(), self.task).await.expect("the call is answered").unwrap()
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Acquire)
    }

    /// The caller goes away.
    pub(crate) async fn hang_up(self) {
        self.task.abort();
        // What comes of it is nobody's any more.
        let _ = self.task.await;
    }
}

/// A world on each store, with the route `pay` under `policy`.
pub(crate) fn every(policy: &Policy) -> Vec<World> {
    every_with(&routes([route(PAY, policy)]))
}

/// A world on each store, with these routes.
pub(crate) fn every_with(routes: &Routes) -> Vec<World> {
    let mut worlds = vec![World::in_memory(routes.clone()), World::on_disk(routes.clone())];
    worlds.extend(postgres::server().map(|server| {
        let database = elsewhere(async move { server.database().await });
        World::new(Ledger::Postgres(database), routes.clone())
    }));
    worlds
}

/// Runs what waits on a thread that may.
fn elsewhere<T: Send>(work: impl Future<Output = T> + Send) -> T {
    let wait = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work)
    };
    std::thread::scope(|scope| scope.spawn(wait).join().unwrap())
}

impl World {
    pub(crate) fn in_memory(routes: Routes) -> Self {
        Self::new(Ledger::Memory(Arc::new(MemoryStore::new())), routes)
    }

    pub(crate) fn on_disk(routes: Routes) -> Self {
        Self::new(Ledger::Sqlite(tempfile::tempdir().unwrap()), routes)
    }

    fn new(ledger: Ledger, routes: Routes) -> Self {
        let pulse = Pulse(watch::Sender::new(0));
        // 2026-01-01 00:00:00 UTC
        let now = Timestamp::from_micros(1_767_225_600_000_000);
        let time = Mutex::new(Time { now, sleepers: Vec::new() });
        let mut world = Self {
            upstream: Arc::new(Scripted {
                script: Mutex::default(),
                under_way: Mutex::default(),
                pulse: pulse.clone(),
            }),
            clock: Arc::new(ManualClock { time, pulse: pulse.clone() }),
            notes: Arc::new(Notes { told: Mutex::default(), pulse: pulse.clone() }),
            routes,
            ledger,
            process: None,
            swept: AtomicBool::new(false),
            pulse,
        };
        let process = world.begin_process();
        process.start();
        world.process = Some(process);
        world
    }

    fn begin_process(&self) -> Process {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let store: Arc<dyn Store> = match &self.ledger {
            Ledger::Memory(store) => {
                // The process before this one is gone for sure.
                store.end_sessions();
                Arc::clone(store) as Arc<dyn Store>
            }
            Ledger::Postgres(url) => {
                let open = async {
                    // The process before this one is gone for sure.
                    let store = postgres::open(url).await;
                    postgres::end_sessions(url).await;
                    store
                };
                // On the runtime that its tasks have to outlive nothing of.
                let wait = || runtime.block_on(open);
                Arc::new(std::thread::scope(|scope| scope.spawn(wait).join().unwrap()))
            }
            Ledger::Sqlite(folder) => {
                // A step of the sweep has to fit a segment.
                let options = SqliteOptions { segment_bytes: 4 << 20 };
                Arc::new(SqliteStore::open(&folder.path().join("ledger.db"), &options).unwrap())
            }
        };
        Process { runtime, engine: self.engine_on(store) }
    }

    fn engine_on(&self, store: Arc<dyn Store>) -> Arc<Engine> {
        Engine::new(Parts {
            store,
            upstream: Arc::clone(&self.upstream) as Arc<dyn Upstream>,
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            observer: Arc::clone(&self.notes) as Arc<dyn Observer>,
            secrets: Secrets::new([7; 32]),
            routes: self.routes.clone(),
            session: Session(u64::from_le_bytes(random())),
        })
    }

    /// A task of the process: it ends with it.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.process().runtime.spawn(work)
    }

    /// Another node on the same ledger, which does nothing by itself.
    pub(crate) fn neighbour(&self) -> Arc<Engine> {
        self.engine_on(Arc::clone(self.engine().store()))
    }

    /// The same where the ledger can have several nodes.
    pub(crate) fn other_node(&self) -> Option<Arc<Engine>> {
        (!matches!(self.ledger, Ledger::Sqlite(_))).then(|| self.neighbour())
    }

    /// Another node with a ledger's door of its own, where the ledger can have several nodes; it does
    /// nothing by itself.
    pub(crate) async fn node_apart(&self) -> Option<Arc<Engine>> {
        match &self.ledger {
            Ledger::Postgres(url) => Some(self.engine_on(Arc::new(postgres::open(url).await))),
            Ledger::Memory(_) => self.other_node(),
            Ledger::Sqlite(_) => None,
        }
    }

    /// Waits until the process has beaten; it beats again only when time passes.
    pub(crate) async fn until_it_has_beaten(&self) {
        let next = self.clock.now().plus(BEAT);
        self.until("a beat", async || self.clock.is_awaited(next)).await;
    }

    /// Ends the right of every session, as if nobody had beaten for long.
    pub(crate) async fn lapse(&self) {
        self.until_it_has_beaten().await;
        match &self.ledger {
            Ledger::Memory(store) => store.end_sessions(),
            Ledger::Postgres(url) => postgres::end_sessions(url).await,
            Ledger::Sqlite(_) => panic!("only one process has a ledger on disk"),
        }
    }

    fn process(&self) -> &Process {
        self.process.as_ref().unwrap()
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.process().engine
    }

    pub(crate) fn is_in_memory(&self) -> bool {
        matches!(self.ledger, Ledger::Memory(_))
    }

    /// The folder of the ledger on disk.
    pub(crate) fn folder(&self) -> &Path {
        match &self.ledger {
            Ledger::Sqlite(folder) => folder.path(),
            Ledger::Memory(_) | Ledger::Postgres(_) => panic!("this ledger has no folder"),
        }
    }

    /// Ends the process in the midst of whatever it does.
    pub(crate) async fn kill(&mut self) {
        let process = self.process.take().unwrap();
        // Ending a runtime waits for its threads, and with them for the ledger's lock.
        tokio::task::spawn_blocking(move || {
            drop(process.runtime);
            drop(process.engine);
        })
        .await
        .unwrap();
    }

    /// Kills the process and starts another on the same ledger; tells how many operations it
    /// found left behind.
    pub(crate) async fn restart(&mut self) -> usize {
        self.kill().await;
        self.begin_again().await
    }

    /// Starts a process on the ledger of the one that was killed.
    pub(crate) async fn begin_again(&mut self) -> usize {
        self.swept.store(false, Ordering::Release);
        let process = self.begin_process();
        let recovered = process.engine.recover().await.unwrap();
        process.start();
        self.process = Some(process);
        recovered
    }

    pub(crate) fn set_routes(&mut self, routes: Routes) {
        self.routes = routes.clone();
        self.engine().set_routes(routes);
    }

    /// Begins a call in a task of its own.
    pub(crate) fn begin(&self, call: Call) -> Calling {
        let (engine, pulse) = (Arc::clone(self.engine()), self.pulse.clone());
        let answered = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&answered);
        let task = self.process().runtime.spawn(async move {
            let result = engine.call(call).await;
            tell.store(true, Ordering::Release);
            pulse.beat();
            result
        });
        Calling { task, answered }
    }

    /// A call, from request to answer.
    pub(crate) async fn call(&self, call: Call) -> Result<Answer, Refusal> {
        self.begin(call).result().await
    }

    /// A call that is answered by the upstream, now or from memory.
    pub(crate) async fn answered(&self, call: Call) -> Box<Answered> {
        answered(self.call(call).await)
    }

    /// A call that is refused.
    pub(crate) async fn refused(&self, call: Call) -> Refusal {
        refused(self.call(call).await)
    }

    /// Waits until `condition` holds; it is looked at again whenever something happened.
    pub(crate) async fn until(&self, what: &str, condition: impl AsyncFn() -> bool) {
        let mut beats = self.pulse.0.subscribe();
        let waiting = async {
            loop {
                beats.borrow_and_update();
                if condition().await {
                    return;
                }
                beats.changed().await.unwrap();
            }
        };
        if tokio::time::timeout(patience(), waiting).await.is_err() {
            let notes = lock(&self.notes.told);
            panic!("never: {what}; trouble: {:?}, rested: {:?}", notes.trouble, notes.rested);
        }
    }

    pub(crate) async fn until_dispatched(&self, count: usize) {
        self.until(&format!("{count} dispatches"), async || self.upstream.dispatched() >= count)
            .await;
    }

    /// The operation that has `key` on the route `pay`.
    pub(crate) async fn find(&self, key: &str) -> Option<Operation> {
        let key = Key::new(key).unwrap();
        self.engine().store().find(Which::Key(scope().digest(&key))).await.unwrap()
    }

    /// The operation with this id, once all that was written can be seen: what the sweep did to
    /// one that is done is seen a moment later by who does not ask for it.
    pub(crate) async fn find_now(&self, id: OperationId) -> Option<Operation> {
        let store = self.engine().store();
        store.condition().await.unwrap();
        store.find(Which::Id(id)).await.unwrap()
    }

    pub(crate) async fn operation(&self, key: &str) -> Operation {
        self.find(key).await.expect("the key is known")
    }

    /// The operation of `key`, once it stands at `state`.
    pub(crate) async fn stands(&self, key: &str, state: &str) -> Operation {
        let is = async || {
            let found = self.find(key).await;
            // What is done stays done: waiting would not help.
            found.is_some_and(|found| found.state.name() == state || found.state == State::Done)
        };
        self.until(&format!("{key} is {state}"), is).await;
        let operation = self.operation(key).await;
        assert_eq!(operation.state.name(), state, "where {key} stands");
        operation
    }

    /// Waits until the operation of `key` waits for its next attempt, and lets that become due.
    pub(crate) async fn let_retry(&self, key: &str) -> Operation {
        let operation = self.stands(key, "pending").await;
        if let State::Pending { due } = operation.state {
            self.clock.advance_to(due);
        }
        operation
    }

    /// Lets the next attempt of an operation that waits become due.
    pub(crate) fn let_retry_at(&self, waiting: &Operation) {
        if let State::Pending { due } = waiting.state {
            self.clock.advance_to(due);
        }
    }

    /// Lets time pass once the sweeper rests, so that it sweeps after it.
    pub(crate) async fn pass_time(&self, by: Duration) {
        self.until("the sweeper rests between two passes", async || {
            let rests = Duration::from_mins(9)..Duration::from_mins(11);
            if self.clock.is_anyone_asleep_for(rests) {
                return true;
            }
            let first = Duration::ZERO..Duration::from_millis(1001);
            // Between the steps of a pass it sleeps for a moment, before the first for longer: no
            // more time passes than that, however slow the ledger is.
            if self.clock.is_anyone_asleep_for(Duration::ZERO..Duration::from_millis(101)) {
                self.clock.advance(Duration::from_millis(100));
            } else if self.clock.is_anyone_asleep_for(first)
                && !self.swept.swap(true, Ordering::AcqRel)
            {
                self.clock.advance(Duration::from_secs(1));
            }
            false
        })
        .await;
        self.clock.advance(by);
    }

    /// Lets a call go as far as it comes in `polls` steps, and no further.
    pub(crate) async fn call_and_hang_up(&self, call: Call, polls: usize) {
        let engine = Arc::clone(self.engine());
        let hung_up = self.process().runtime.spawn(async move {
            let mut calling = Box::pin(engine.call(call));
            for _ in 0..polls {
                let once = std::future::poll_fn(|context| {
                    Poll::Ready(calling.as_mut().poll(context).is_ready())
                });
                if once.await {
                    return;
                }
                tokio::task::yield_now().await;
            }
        });
        hung_up.await.unwrap();
    }

    /// A call, each of whose retries becomes due at once.
    pub(crate) async fn call_through(&self, call: Call) -> Result<Answer, Refusal> {
        let key = call.request.headers.text("idempotency-key").unwrap().to_owned();
        let calling = self.begin(call);
        let due = async || match self.find(&key).await.map(|operation| operation.state) {
            Some(State::Pending { due }) if due > self.clock.now() => Some(due),
            _ => None,
        };
        loop {
            self.until("the call waits or is answered", async || {
                calling.is_answered() || due().await.is_some()
            })
            .await;
            if calling.is_answered() {
                return calling.result().await;
            }
            if let Some(due) = due().await {
                self.clock.advance_to(due);
            }
        }
    }
}

/// The scope of a call's key on the route `pay`.
pub(crate) fn scope() -> Scope {
    Scope {
        kind: ScopeKind::Call,
        tenant: "t".to_owned(),
        name: PAY.to_owned(),
        principal: String::new(),
    }
}

/// A policy with these effects.
pub(crate) fn effects(effects: Effects) -> Policy {
    Policy { effects: Some(effects), ..Policy::default() }
}

/// A route to the upstream that has its name.
pub(crate) fn route(name: &str, policy: &Policy) -> Route {
    Route {
        name: name.to_owned(),
        scope: None,
        target: Arc::new(Target {
            base: format!("http://{name}.test").parse().unwrap(),
            trust: Trust::Operator,
            http2: false,
            timeouts: Timeouts::default(),
        }),
        policy: Arc::new(policy.clone()),
        rules: Vec::new(),
        set_headers: Headers::default(),
        protection: Protection::default(),
        answer_max: Duration::from_mins(1),
        body_bytes_max: 1 << 20,
        response_bytes_max: 1 << 20,
        reconcile: None,
        chaos: None,
    }
}

pub(crate) fn routes(all: impl IntoIterator<Item = Route>) -> Routes {
    let named = all.into_iter().map(|route| (route.name.clone(), Arc::new(route))).collect();
    Routes { named, ad_hoc: Arc::new(route("ad-hoc", &Policy::default())) }
}

/// A held POST of a payment with `key` on the route `pay`.
pub(crate) fn post(key: &str) -> Call {
    let line =
        |name: &str, value: &str| (name.to_owned(), Bytes::copy_from_slice(value.as_bytes()));
    Call {
        tenant: "t".to_owned(),
        principal: String::new(),
        route: PAY.to_owned(),
        request: Request {
            method: "POST".to_owned(),
            target: "/payments?dry=no".to_owned(),
            headers: Headers(vec![
                line("content-type", "application/json"),
                line("idempotency-key", key),
            ]),
            body: Bytes::from_static(br#"{"amount": 100, "to": "anna"}"#),
        },
        options: CallOptions::default(),
    }
}

/// The same, accepted: nobody waits.
pub(crate) fn accepted(key: &str) -> Call {
    let mut call = post(key);
    call.options.respond_async = true;
    call
}

/// The same with a header more.
pub(crate) fn with_header(mut call: Call, name: &str, value: &'static str) -> Call {
    call.request.headers.set(name, Bytes::from_static(value.as_bytes()));
    call
}

/// Somebody with a reason.
pub(crate) fn person() -> Person {
    Person { who: "anna".to_owned(), reason: "asked the bank".to_owned() }
}

#[track_caller]
pub(crate) fn answered(result: Result<Answer, Refusal>) -> Box<Answered> {
    match result {
        Ok(Answer::Upstream(answered)) => answered,
        other => panic!("not an answer of the upstream's: {other:?}"),
    }
}

#[track_caller]
pub(crate) fn refused(result: Result<Answer, Refusal>) -> Refusal {
    match result {
        Err(refusal) => refusal,
        Ok(answer) => panic!("not a refusal: {answer:?}"),
    }
}

#[track_caller]
pub(crate) fn taken(result: Result<Answer, Refusal>) -> Box<Operation> {
    match result {
        Ok(Answer::Accepted(operation)) => operation,
        other => panic!("not accepted: {other:?}"),
    }
}

/// Status and body of an answer.
pub(crate) fn essence(response: &Response) -> (u16, &[u8]) {
    (response.status, &response.body)
}
