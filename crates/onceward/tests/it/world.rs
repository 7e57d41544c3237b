//! The world around an engine: a scripted upstream that counts effects, a clock that stands still
//! until a test moves it, a ledger, and processes that can be killed and started again.
//!
//! Nothing here sleeps: a test waits for a condition, which is looked at again whenever one of the
//! doors was used.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

mod calls;
mod clock;
mod notes;
mod upstream;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use onceward::clock::Clock;
use onceward::core::id::OperationId;
use onceward::core::key::Key;
use onceward::core::lease::{BEAT, Session};
use onceward::core::operation::{Operation, State};
use onceward::core::policy::Policy;
use onceward::core::time::Timestamp;
use onceward::observe::Observer;
use onceward::route::Routes;
use onceward::secret::{Secrets, random};
use onceward::store::memory::MemoryStore;
use onceward::store::sqlite::{SqliteOptions, SqliteStore};
use onceward::store::{Store, Which};
use onceward::upstream::Upstream;
use onceward::{Answer, Answered, Call, Engine, Parts, Refusal};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(crate) use calls::{
    accepted, answered, effects, essence, person, post, refused, route, routes, scope, taken,
    with_header,
};
pub(crate) use clock::ManualClock;
pub(crate) use notes::Notes;
pub(crate) use upstream::{
    Gate, Scripted, Seen, Step, answer, permanent, refused_address, truncated, unanswered, unsent,
};

use crate::postgres;

/// A test that waits longer than this waits for what does not come. Where a promise is broken on
/// purpose that is what is to be seen, so less will do: `TEST_PATIENCE` has the seconds.
fn patience() -> Duration {
    let seconds = std::env::var("TEST_PATIENCE").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60))
}

/// Who sleeps for a second when a process has begun: the sweeper, and whoever counts duplicates. With one
/// of them alone it may be the other's sleep that ends.
const SLEEPERS_AT_FIRST: usize = 2;

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
        World::new(Ledger::Postgres(database), sealed(routes.clone()))
    }));
    worlds
}

/// These routes with all that they keep sealed: what holds has to hold with it, and in memory without.
fn sealed(mut routes: Routes) -> Routes {
    for route in routes.named.values_mut().chain([&mut routes.ad_hoc]) {
        let route = Arc::make_mut(route);
        Arc::make_mut(&mut route.policy).seal_bodies = true;
        for rule in &mut route.rules {
            Arc::make_mut(&mut rule.policy).seal_bodies = true;
        }
    }
    routes
}

/// Runs what waits on a thread that may.
fn elsewhere<T: Send>(work: impl Future<Output = T> + Send) -> T {
    let wait = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work)
    };
    std::thread::scope(|scope| scope.spawn(wait).join().unwrap())
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.insert(path.display().to_string(), std::fs::read(&path).unwrap());
        }
    }
    all
}

fn holders(folder: &Path, what: &str) -> Vec<String> {
    let is_in = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).contains(what);
    files(folder).into_iter().filter(|(_, bytes)| is_in(bytes)).map(|(name, _)| name).collect()
}

impl World {
    pub(crate) fn in_memory(routes: Routes) -> Self {
        Self::new(Ledger::Memory(Arc::new(MemoryStore::new())), routes)
    }

    pub(crate) fn on_disk(routes: Routes) -> Self {
        Self::new(Ledger::Sqlite(tempfile::tempdir().unwrap()), sealed(routes))
    }

    /// On disk, and sealed only what the routes say.
    pub(crate) fn on_disk_as_it_is(routes: Routes) -> Self {
        Self::new(Ledger::Sqlite(tempfile::tempdir().unwrap()), routes)
    }

    fn new(ledger: Ledger, routes: Routes) -> Self {
        let pulse = Pulse(watch::Sender::new(0));
        // 2026-01-01 00:00:00 UTC
        let now = Timestamp::from_micros(1_767_225_600_000_000);
        let mut world = Self {
            upstream: Arc::new(Scripted::new(pulse.clone())),
            clock: Arc::new(ManualClock::new(now, pulse.clone())),
            notes: Arc::new(Notes::new(pulse.clone())),
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

    /// The ledger's address, where it is in PostgreSQL.
    pub(crate) fn postgres(&self) -> Option<&str> {
        if let Ledger::Postgres(url) = &self.ledger { Some(url) } else { None }
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

    /// Changes settings behind the ledger's back, with SQL where it has any; the process was killed.
    pub(crate) async fn change_settings(&self, changes: &[(String, Option<Bytes>)]) {
        let statements: String = changes
            .iter()
            .map(|(name, value)| {
                let gone = format!("DELETE FROM setting WHERE name = '{name}';");
                let put = |value: &Bytes| {
                    let value = onceward::core::hex::encode(value);
                    format!("INSERT INTO setting VALUES ('{name}', X'{value}');")
                };
                gone + &value.as_ref().map(put).unwrap_or_default()
            })
            .collect();
        match &self.ledger {
            Ledger::Memory(store) => {
                for (name, value) in changes {
                    store.set(name.clone(), value.clone()).await.unwrap();
                }
            }
            Ledger::Sqlite(folder) => {
                let index = rusqlite::Connection::open(folder.path().join("ledger.db")).unwrap();
                index.execute_batch(&statements).unwrap();
            }
            Ledger::Postgres(url) => postgres::run(url, &statements.replace("X'", r"'\x")).await,
        }
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

    /// Has the route `pay` under another policy.
    pub(crate) fn set_policy(&mut self, policy: &Policy) {
        self.set_routes(routes([route(PAY, policy)]));
    }

    /// Where `words` stand in the ledger's files or tables.
    pub(crate) async fn holders(&self, words: &str) -> Vec<String> {
        match &self.ledger {
            Ledger::Sqlite(folder) => holders(folder.path(), words),
            Ledger::Postgres(url) => postgres::holders(url, words).await,
            Ledger::Memory(_) => panic!("this ledger is nowhere"),
        }
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
        let came = tokio::time::timeout(patience(), waiting).await;
        assert!(came.is_ok(), "never: {what}; {}", self.notes.account());
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
            } else if self.clock.asleep_for(first) >= SLEEPERS_AT_FIRST
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
