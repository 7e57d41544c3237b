//! The story on one screen: receive, remember, deliver, settle, replay. Only here are the five
//! put in order; none of them calls another.
//!
//! A call's work runs in a task of its own: a caller that hangs up changes nothing. Commit, then
//! answer: no answer leaves before what it says is on stable storage.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use onceward_core::admission::{self, Admission};
use onceward_core::attempt::{Ending, Reached};
use onceward_core::breaker::Sign;
use onceward_core::exchange::{Headers, Request, Response};
use onceward_core::fingerprint::{Fingerprint, Part, differing_paths, is_same_body};
use onceward_core::hint::Hint;
use onceward_core::id::{OperationId, next_sequence};
use onceward_core::key::{KeyDigest, Scope, ScopeKind};
use onceward_core::key_age;
use onceward_core::lease::{BEAT, Session};
use onceward_core::operation::{Death, Deed, Event, Fence, Operation, State};
use onceward_core::policy::{Effects, Mode, Policy};
use onceward_core::time::Timestamp;
use onceward_core::verdict::{self, Verdict};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use crate::advise::Counting;
use crate::alias::Holder;
use crate::audit::Retention;
use crate::bulk::InHand;
use crate::call::{Arrival, Call, Means, Passing, Received};
use crate::callback::Callbacks;
use crate::claim::{Leases, Rules};
use crate::clock::Clock;
use crate::deliver::deliver;
use crate::delivered::Delivered;
use crate::doubt::{Before, Doubts, Listening};
use crate::gates::{Bar, Barred, Entrant, Gate, Gates, Slot};
use crate::identity::{Identity, Turns, is_twin};
use crate::judgement;
use crate::observe::{Fact, Observer, Repeat};
use crate::order::{self, Lines};
use crate::pass::{pass, pass_whole};
use crate::pause::Pause;
use crate::receive::{receive, scope_of};
use crate::refusal::Refusal;
use crate::remember::birth;
use crate::replay::{replay, replay_failure};
use crate::route::{Route, Routes};
use crate::sabotage::{self, Sabotage};
use crate::secret::Secrets;
use crate::settle::settle;
use crate::store::{
    Asked, Birth, Lane, Remembered, Slot as Place, Store, StoreError, Which, Write,
};
use crate::suspects::Suspects;
use crate::upstream::{AnswerBody, Download, Upstream};
use crate::waiters::Waiters;
use crate::wire;

/// How many JSON paths a mismatch names.
const PATHS_MAX: usize = 10;

/// How often a race for a key is run again before it is given up as a busy ledger.
pub(crate) const RACES_MAX: usize = 8;

/// How long a caller waits for the ledger; what was begun goes on without it.
const LEDGER_WAIT: Duration = Duration::from_secs(15);

/// How often a duplicate looks at what another node has in hand.
const LOOK_ELSEWHERE: Duration = Duration::from_millis(50);

/// Operations of a backlog that are counted where only its bytes have a limit.
const COUNTED_MAX: u64 = 1_000_000;

/// How long a ledger that is full or away is waited for before it is asked again.
const LEDGER_RETRY: Duration = Duration::from_millis(250);

/// What an engine is made of.
pub struct Parts {
    /// Door 1.
    pub store: Arc<dyn Store>,
    /// Door 2.
    pub upstream: Arc<dyn Upstream>,
    /// Door 3.
    pub clock: Arc<dyn Clock>,
    /// Who takes note.
    pub observer: Arc<dyn Observer>,
    /// The ledger's secrets.
    pub secrets: Secrets,
    /// The routes, to begin with.
    pub routes: Routes,
    /// This life of the process: drawn by chance, never used before.
    pub session: Session,
}

/// The engine: shared by every edge.
pub struct Engine {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) upstream: Arc<dyn Upstream>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) counting: Arc<Counting>,
    pub(crate) secrets: Secrets,
    routes: RwLock<Arc<Routes>>,
    pub(crate) gates: Gates,
    pub(crate) waiters: Waiters,
    pub(crate) lines: Lines,
    pub(crate) doubts: Arc<Doubts>,
    pauses: Mutex<Arc<BTreeMap<String, Pause>>>,
    pub(crate) notes_kept: Retention,
    pub(crate) bulks: InHand,
    pub(crate) callbacks: Callbacks,
    asked: Mutex<HashMap<OperationId, Asked>>,
    pub(crate) recent: Recent,
    pub(crate) claims: Rules,
    pub(crate) leases: Leases,
    pub(crate) turns: Turns,
    suspects: Suspects,
    pub(crate) approved: RwLock<Vec<Deed>>,
    pub(crate) session: Session,
    sequence: AtomicU64,
    pub(crate) running: Running,
    /// What goes on for as long as the engine does.
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// Why nothing is sent now, where nothing is.
    halted: AtomicBool,
    /// Woken when the ledger cannot be used any more.
    pub(crate) broken: Notify,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

/// What a call gets.
pub enum Answer {
    /// An answer of the upstream's, of this call or from memory.
    Upstream(Box<Answered>),
    /// It is on disk and will be delivered.
    Accepted(Box<Operation>),
    /// It passed through without a record.
    Passed {
        /// The status.
        status: u16,
        /// The headers, as they came.
        headers: Headers,
        /// The body, as it comes.
        body: Box<dyn AnswerBody>,
    },
}

/// An answer of the upstream's.
pub struct Answered {
    /// The operation, as it stands.
    pub operation: Operation,
    /// The answer.
    pub response: Response,
    /// What follows of a large one.
    pub rest: Option<Box<dyn AnswerBody>>,
    /// Whether it comes from memory.
    pub replayed: bool,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("routes", &self.routes).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Upstream(answered) => answered.fmt(f),
            Self::Accepted(operation) => f.debug_tuple("Accepted").field(&operation.id).finish(),
            Self::Passed { status, .. } => {
                f.debug_struct("Passed").field("status", status).finish_non_exhaustive()
            }
        }
    }
}

impl std::fmt::Debug for Answered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Answered");
        shown.field("operation", &self.operation.id).field("status", &self.response.status);
        shown.field("replayed", &self.replayed).finish_non_exhaustive()
    }
}

/// How a run of attempts ended, told to the caller whose call began it.
struct Ran {
    operation: Operation,
    response: Option<Response>,
    rest: Option<Box<dyn AnswerBody>>,
}

/// What a write brought that may begin a run.
enum Written {
    /// It is in the ledger; its end will be told where its run has begun.
    Fresh(Operation, Option<oneshot::Receiver<Result<Ran, Refusal>>>),
    /// The key was there before; the slot was not needed.
    Known(Operation, Option<Slot>),
    /// Somebody else wrote meanwhile.
    Stale(Option<Slot>),
}

/// What became of an attempt.
enum Settled {
    /// Its end is written.
    Ours(Operation, Delivered),
    /// Somebody else had written meanwhile, and its end says nothing that is not known.
    Overtaken(Operation),
}

/// What became of starting another attempt.
enum Begun {
    /// It may be made.
    Started(Operation),
    /// Time ran out while the operation waited.
    Over(Operation),
    /// Somebody else had written meanwhile.
    Overtaken(Operation),
}

/// Tasks that are under way.
#[derive(Debug, Default)]
pub(crate) struct Running {
    count: AtomicUsize,
    idle: Notify,
}

/// One task that is under way, for as long as it lives.
pub(crate) struct Run(Arc<Engine>);

impl Drop for Run {
    fn drop(&mut self) {
        if self.0.running.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.running.idle.notify_waiters();
        }
    }
}

/// Which keys were settled by this process lately: asked before the ledger is, so that a
/// duplicate needs no write and a fresh call no look-up. It may forget, and may be wrong the
/// harmless way.
pub(crate) struct Recent(Vec<AtomicU64>);

impl Recent {
    const PLACES: usize = 1 << 16;

    fn new() -> Self {
        Self((0..Self::PLACES).map(|_| AtomicU64::new(0)).collect())
    }

    fn place(&self, key: KeyDigest) -> (&AtomicU64, u64) {
        let (high, low) = key.0.split_at(8);
        let number =
            |bytes: &[u8]| bytes.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        (&self.0[number(high) as usize % Self::PLACES], number(low))
    }

    pub(crate) fn add(&self, key: KeyDigest) {
        let (place, mark) = self.place(key);
        place.store(mark, Ordering::Relaxed);
    }

    pub(crate) fn has(&self, key: KeyDigest) -> bool {
        let (place, mark) = self.place(key);
        place.load(Ordering::Relaxed) == mark
    }
}

impl Engine {
    /// An engine that has not begun to deliver: see [`Engine::start`].
    pub fn new(parts: Parts) -> Arc<Self> {
        let sequence = AtomicU64::new(parts.store.newest());
        let doubts = Arc::new(Doubts::default());
        let counting = Counting::new(parts.observer, Arc::clone(&parts.clock));
        let listening = Listening {
            observer: Arc::clone(&counting) as Arc<dyn Observer>,
            doubts: Arc::clone(&doubts),
        };
        Arc::new(Self {
            store: parts.store,
            upstream: parts.upstream,
            clock: parts.clock,
            observer: Arc::new(listening),
            counting,
            secrets: parts.secrets,
            routes: RwLock::new(Arc::new(parts.routes)),
            gates: Gates::default(),
            waiters: Waiters::default(),
            lines: Lines::default(),
            doubts,
            pauses: Mutex::default(),
            notes_kept: Retention::default(),
            bulks: InHand::default(),
            callbacks: Callbacks::default(),
            asked: Mutex::default(),
            recent: Recent::new(),
            claims: Rules::default(),
            leases: Leases::default(),
            turns: Turns::default(),
            suspects: Suspects::default(),
            approved: RwLock::default(),
            session: parts.session,
            sequence,
            running: Running::default(),
            tasks: Mutex::default(),
            halted: AtomicBool::new(false),
            broken: Notify::new(),
        })
    }

    /// The ledger.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The ledger's secrets.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// The routes of this moment.
    pub fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.routes.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the routes: attempts from now on read the new ones.
    pub fn set_routes(&self, routes: Routes) {
        self.change_routes(|_| routes);
    }

    /// Changes the routes, whoever else does so now.
    pub(crate) fn change_routes(&self, change: impl FnOnce(&Routes) -> Routes) {
        {
            let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
            *routes = Arc::new(change(&routes));
        }
        // Work that waited for its route may be due.
        self.store.changed().notify_one();
        self.doubts.routes_changed().notify_one();
    }

    pub(crate) fn pauses(&self) -> MutexGuard<'_, Arc<BTreeMap<String, Pause>>> {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends nothing from now on: new calls are refused, what is under way runs to its end.
    pub fn halt(&self) {
        self.halted.store(true, Ordering::Release);
    }

    /// Whether nothing is sent any more.
    pub fn is_halted(&self) -> bool {
        self.halted.load(Ordering::Acquire)
    }

    /// Waits until nothing is under way.
    pub async fn idle(&self) {
        loop {
            let idle = self.running.idle.notified();
            if self.running.count.load(Ordering::Acquire) == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Lets `task` go on until the engine is [stopped](Engine::stop).
    pub(crate) fn keep_up(&self, task: impl Future<Output = ()> + Send + 'static) {
        let handle = tokio::spawn(task);
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
    }

    /// Sends nothing from now on, waits until nothing is under way, and lets the ledger go: once
    /// nobody else has the engine either, the ledger can be opened anew.
    pub async fn stop(&self) {
        self.halt();
        self.idle().await;
        // Counts are no promise, and the ledger may be away.
        let _ = self.flush_asked().await;
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.iter().for_each(JoinHandle::abort);
        for task in tasks {
            // It was cut off, or had ended.
            let _ = task.await;
        }
    }

    /// Waits until the ledger cannot be used any more: then the process has to end and recover.
    pub async fn broken(&self) {
        self.broken.notified().await;
    }

    /// One call, from request to answer.
    pub async fn call(self: &Arc<Self>, call: Call) -> Result<Answer, Refusal> {
        if self.is_halted() {
            return Err(Refusal::Draining);
        }
        let route = self
            .routes()
            .get(&call.route)
            .ok_or_else(|| Refusal::RouteUnknown(call.route.clone()))?;
        let flow = call.options.flow.clone().unwrap_or_default();
        let lane = Lane { tenant: call.tenant.clone(), route: call.route.clone(), flow };
        match receive(call, Arc::clone(&route), &self.secrets, self.clock.now())? {
            Received::Pass(request) => Box::pin(pass_whole(self, lane, &route, &request)).await,
            // Every edge carries this along: it has to be small.
            Received::Keyed(arrival) => Box::pin(self.remember(*arrival, &lane)).await,
        }
    }

    /// One call that passes without a record, from the head of its request to the head of its answer:
    /// both bodies go through as they come.
    pub fn pass(
        self: &Arc<Self>,
        passing: Passing,
    ) -> impl Future<Output = Result<http::Response<Download>, Refusal>> + Send {
        pass(self, passing)
    }

    /// The scope of the keys that `principal` uses on what is called `name`: a route, or a scope of
    /// its own.
    pub fn scope_of(&self, tenant: &str, name: &str, principal: &str) -> Scope {
        let (tenant, principal) = (tenant.to_owned(), principal.to_owned());
        // The scopes of sources and outboxes, and those that are shared, are not of one caller.
        let is_shared = ["source/", "outbox/", "scope/"].iter().any(|kind| name.starts_with(kind));
        let principal = if is_shared { String::new() } else { principal };
        match self.routes().get(name) {
            Some(route) => scope_of(&route, None, tenant, principal),
            None => Scope { kind: ScopeKind::Call, tenant, name: name.to_owned(), principal },
        }
    }

    /// What a request would be; nothing is written and nothing is sent.
    pub fn explain(&self, call: Call) -> Result<Received, Refusal> {
        let route = self
            .routes()
            .get(&call.route)
            .ok_or_else(|| Refusal::RouteUnknown(call.route.clone()))?;
        receive(call, route, &self.secrets, self.clock.now())
    }

    async fn remember(self: &Arc<Self>, arrival: Arrival, lane: &Lane) -> Result<Answer, Refusal> {
        let digest = arrival.scope.digest(&arrival.key);
        if self.recent.has(digest)
            && let Some(known) = self.store.recall(digest)
        {
            let holder = self.follow_for(known, &arrival).await?;
            let admission = self.admit(&holder, &arrival).await?;
            if !matches!(admission, Admission::Fresh | Admission::Revive | Admission::TooLate) {
                return self.answer_known(*holder.operation, admission, &arrival).await;
            }
        }
        Box::pin(self.refuse_too_old(digest, &arrival)).await?;
        let gate = self.gate_of(&arrival.route);
        let entrant = Entrant {
            lane: lane.clone(),
            is_harmless: arrival.effects != Effects::NonIdempotent,
            is_backlog: arrival.mode == Mode::Accepted,
        };
        // What waits for its turn needs no slot yet.
        let in_order = arrival.is_in_order();
        let waits = in_order || closed_until(&arrival, self.clock.now()).is_some();
        let entered = || gate.try_enter(&entrant, self.clock.now()).ok();
        let mut slot = if waits { None } else { entered() };
        let mut is_full = slot.is_none()
            && arrival.mode == Mode::Accepted
            && !self.has_room(&gate, lane, &arrival).await?;
        is_full |= in_order && !self.has_room_in_line(&arrival).await?;
        let mut replaces: Option<Operation> = None;
        let mut is_late = false;
        for _ in 0..RACES_MAX {
            let now = self.clock.now();
            let known = if slot.is_none() && (arrival.mode == Mode::Held || is_full) {
                // A duplicate needs no slot and no room; only who would send waits for one.
                let Some(known) = self.store.find(Which::Key(digest)).await? else {
                    if is_full {
                        return Err(Refusal::Limit {
                            what: "as much as may wait for this upstream, or about this subject, waits"
                                .to_owned(),
                            retry_after: Duration::from_secs(1),
                        });
                    }
                    slot = Some(self.wait_for_slot(&gate, &entrant, &arrival).await?);
                    continue;
                };
                known
            } else {
                let start = slot.is_some()
                    && arrival.options.not_before.is_none_or(|at| at <= now)
                    && arrival.policy.opening(arrival.mode, now) <= now;
                let id = self.next_id(now);
                let start = start.then_some(self.session);
                let newborn = birth(&arrival, id, start, replaces.as_ref(), &self.secrets, now);
                let request = Arc::clone(&arrival.request);
                let remember = self.clone().write_one(newborn, self.identity_of(&arrival));
                match self
                    .write_and_run(remember, request, slot, Means::of(&arrival.options))
                    .await?
                {
                    Written::Fresh(operation, ran) => {
                        self.suspect(&operation, &arrival, now);
                        return self.answer_begun(operation, ran, &arrival).await;
                    }
                    Written::Known(known, unused) => {
                        slot = unused;
                        let options = &arrival.options;
                        let has_twins =
                            options.identity.is_some() || arrival.policy.unique.is_some();
                        let twin = has_twins.then(|| is_twin(&known, digest)).flatten();
                        if let Some(twin) = twin {
                            drop(slot);
                            // Nobody else sets it.
                            let _ = arrival.options.aside.duplicate_of.set(twin);
                            let twin = self.answer_twin(known, &arrival, replaces.as_ref());
                            return Box::pin(twin).await;
                        }
                        known
                    }
                    Written::Stale(unused) => {
                        slot = unused;
                        replaces = None;
                        continue;
                    }
                }
            };
            let holder = self.follow_for(known, &arrival).await?;
            let known = &*holder.operation;
            match self.admit(&holder, &arrival).await? {
                Admission::Fresh => {
                    // Counted once, however often the race for the key is run again.
                    if !is_late && admission::leaves_its_mark(known, now) {
                        is_late = true;
                        self.note_asked(known, Repeat::Late);
                    }
                    if arrival.mode == Mode::Held && slot.is_none() {
                        slot = Some(self.wait_for_slot(&gate, &entrant, &arrival).await?);
                    }
                    replaces = Some(holder.gives_way());
                }
                Admission::Revive => {
                    if arrival.mode == Mode::Held && slot.is_none() {
                        slot = Some(self.wait_for_slot(&gate, &entrant, &arrival).await?);
                    }
                    let now = self.clock.now();
                    let Some((write, request)) =
                        self.revival(known, &arrival, slot.is_some(), now).await?
                    else {
                        continue;
                    };
                    let revive = self.clone().write_revival(write);
                    match self
                        .write_and_run(revive, request, slot, Means::of(&arrival.options))
                        .await?
                    {
                        Written::Fresh(revived, ran) => {
                            self.note_asked(known, Repeat::Revived);
                            let _ = arrival.options.aside.repeat.set(Repeat::Revived);
                            return self.answer_begun(revived, ran, &arrival).await;
                        }
                        Written::Known(_, unused) | Written::Stale(unused) => slot = unused,
                    }
                }
                Admission::TooLate => match self.doubt(known, now).await {
                    Ok(operation) => {
                        self.note_asked(known, Repeat::Refused);
                        let _ = arrival.options.aside.repeat.set(Repeat::Refused);
                        let operation = Box::new(operation);
                        return Err(Refusal::OutcomeUnknown { operation, first: false });
                    }
                    Err(StoreError::Stale) => {}
                    Err(error) => return Err(self.heed(error)),
                },
                admission => {
                    drop(slot);
                    return self.answer_known(*holder.operation, admission, &arrival).await;
                }
            }
        }
        Err(Refusal::Limit {
            what: "too many calls race for this key".to_owned(),
            retry_after: Duration::from_secs(1),
        })
    }

    /// Writes a birth, under the call's second identity where it has one.
    async fn write_one(
        self: Arc<Self>,
        newborn: Birth,
        identity: Option<Identity>,
    ) -> Result<Remembered, StoreError> {
        match identity {
            // Few routes have one, and what all calls carry has to be small.
            Some(identity) => Box::pin(self.write_identified(newborn, identity)).await,
            None => self.write_birth(newborn).await,
        }
    }

    /// What `owner` is another name of, which the caller is told.
    async fn follow_for(&self, owner: Operation, arrival: &Arrival) -> Result<Holder, StoreError> {
        let holder = self.follow(owner).await?;
        if let Some(named) = holder.owner.alias_of {
            // The race for a key is run more than once, with one end.
            let _ = arrival.options.aside.duplicate_of.set(named);
        }
        Ok(holder)
    }

    /// Refuses a call whose key bears its time, where that is longer ago than keys are kept and
    /// nothing is known of it.
    async fn refuse_too_old(&self, digest: KeyDigest, arrival: &Arrival) -> Result<(), Refusal> {
        let now = self.clock.now();
        let late = arrival.made_at.filter(|at| key_age::is_late(*at, &arrival.policy, now));
        let Some(made_at) = late else { return Ok(()) };
        if let Some(known) = self.store.find(Which::Key(digest)).await? {
            let holder = self.follow(known).await?;
            if self.admit(&holder, arrival).await? != Admission::Fresh {
                return Ok(());
            }
        }
        self.observer.observe(Fact::TooOld(&arrival.route.name));
        Err(Refusal::KeyTooOld(made_at))
    }

    /// Tells where another operation had the same request under another key a short while ago.
    fn suspect(&self, operation: &Operation, arrival: &Arrival, now: Timestamp) {
        let within = arrival.policy.suspect_within;
        if let Some((first, again)) = self.suspects.note(operation, within, now) {
            self.observer.observe(Fact::Suspected(operation, first, again));
            // Nobody else sets it.
            let _ = arrival.options.aside.suspect_of.set(first);
        }
    }

    pub(crate) async fn write_birth(
        self: Arc<Self>,
        newborn: Birth,
    ) -> Result<Remembered, StoreError> {
        if newborn.operation.callback.is_some() {
            Box::pin(self.mark_callback(&newborn.operation)).await?;
        }
        match self.store.remember(newborn).await? {
            Remembered::Fresh(operation) => {
                self.observer.observe(Fact::Remembered(&operation));
                Ok(Remembered::Fresh(self.put_in_line(operation).await))
            }
            known @ Remembered::Known(_) => Ok(known),
        }
    }

    async fn write_revival(self: Arc<Self>, write: Write) -> Result<Remembered, StoreError> {
        if write.operation.callback.is_some() {
            Box::pin(self.mark_callback(&write.operation)).await?;
        }
        let revived = self.store.commit(write).await?;
        Ok(Remembered::Fresh(self.put_in_line(revived).await))
    }

    /// Writes, and runs what was started by it, in a task of its own: a caller that hangs up
    /// meanwhile does not leave a started attempt behind that nobody makes.
    async fn write_and_run(
        self: &Arc<Self>,
        write: impl Future<Output = Result<Remembered, StoreError>> + Send + 'static,
        request: Arc<Request>,
        slot: Option<Slot>,
        means: Means,
    ) -> Result<Written, Refusal> {
        let (tell, told) = oneshot::channel();
        let engine = Arc::clone(self);
        let run = self.begin();
        tokio::spawn(async move {
            let _run = run;
            let written = match write.await {
                Ok(Remembered::Fresh(operation)) => match (operation.state, slot) {
                    (State::Delivering, Some(slot)) => {
                        let (tell_end, ran) = oneshot::channel();
                        // Whoever hung up is told nothing, now and at the end.
                        let _ = tell.send(Ok(Written::Fresh(operation.clone(), Some(ran))));
                        return engine.run(operation, request, slot, means, Some(tell_end)).await;
                    }
                    _ => Ok(Written::Fresh(operation, None)),
                },
                Ok(Remembered::Known(known)) => Ok(Written::Known(known, slot)),
                Err(StoreError::Stale) => Ok(Written::Stale(slot)),
                Err(error) => Err(engine.heed(error)),
            };
            let _ = tell.send(written);
        });
        let patience = self.clock.sleep_until(self.clock.now().plus(LEDGER_WAIT));
        tokio::select! {
            biased;
            // The task ends without a word only where the process ends.
            told = told => told.unwrap_or(Err(Refusal::Draining)),
            // Whoever asks again with the same key learns what came of it.
            () = patience => Err(StoreError::Away("it is not known yet what came of it".to_owned()).into()),
        }
    }

    /// The gate before a route's upstream.
    pub(crate) fn gate_of(&self, route: &Route) -> Arc<Gate> {
        let is_paused = || self.pauses().contains_key(&route.name);
        self.gates.of(&route.name, &route.protection, is_paused, || self.clock.now())
    }

    /// Whether one more may wait for the upstream.
    async fn has_room(&self, gate: &Gate, lane: &Lane, arrival: &Arrival) -> Result<bool, Refusal> {
        let protection = &arrival.route.protection;
        let operations_max = match (protection.backlog_max, protection.backlog_bytes_max) {
            (None, None) => return Ok(true),
            (operations_max, _) => operations_max.unwrap_or(COUNTED_MAX),
        };
        let bytes = arrival.request.body.len() as u64;
        // All of a tenant's flows have it together.
        let lane = &Lane { flow: String::new(), ..lane.clone() };
        if let Some(has_room) = gate.take_room(lane, bytes, self.clock.now()) {
            return Ok(has_room);
        }
        let backlog = self.store.backlog(lane.clone(), operations_max).await?;
        gate.set_room(lane, backlog, self.clock.now());
        Ok(gate.take_room(lane, bytes, self.clock.now()).unwrap_or(false))
    }

    /// A slot for a held call, which is refused without a record where none becomes free in time.
    async fn wait_for_slot(
        self: &Arc<Self>,
        gate: &Arc<Gate>,
        entrant: &Entrant,
        arrival: &Arrival,
    ) -> Result<Slot, Refusal> {
        let now = self.clock.now();
        if let Some(opens) = closed_until(arrival, now) {
            return Err(self.barred(Barred::by(Bar::OutsideHours, Some(opens)), &arrival.route));
        }
        let until = now.plus(Self::wait_of(arrival));
        let mut slot = loop {
            match gate.queue(entrant, self.clock.now()) {
                Ok(given) => tokio::select! {
                    biased;
                    slot = given => break slot.map_err(|_| Refusal::Draining)?,
                    () = self.clock.sleep_until(until) => {
                        return Err(self.barred(Barred::by(Bar::Slots, None), &arrival.route));
                    }
                },
                Err(barred) => self.wait_out(barred, until, &arrival.route).await?,
            }
        };
        loop {
            match gate.pay(&mut slot, entrant.is_harmless, self.clock.now(), until) {
                Ok(turn) => {
                    self.clock.sleep_until(turn).await;
                    return Ok(slot);
                }
                Err(barred) => self.wait_out(barred, until, &arrival.route).await?,
            }
        }
    }

    /// Waits until what is in the way is gone, where that is before `until`; else it is a refusal.
    async fn wait_out(
        self: &Arc<Self>,
        barred: Barred,
        until: Timestamp,
        route: &Arc<Route>,
    ) -> Result<(), Refusal> {
        if barred.wants_probe {
            self.probe(route);
        }
        // An open breaker is told at once: a caller with a choice has somewhere else to go.
        match barred.until.filter(|at| *at <= until && barred.why != Bar::BreakerOpen) {
            Some(at) => {
                self.clock.sleep_until(at).await;
                Ok(())
            }
            None => Err(self.barred(barred, route)),
        }
    }

    /// What a caller is told who may not go.
    pub(crate) fn barred(&self, barred: Barred, route: &Route) -> Refusal {
        let at_least = Duration::from_secs(1);
        let wait = barred.until.map_or(at_least, |until| until.since(self.clock.now()));
        let retry_after = wait.max(at_least);
        match barred.why {
            Bar::Slots => Refusal::Limit {
                what: match route.protection.flow.slots_max {
                    Some(_) => {
                        "as many calls are under way to this upstream, or of this flow, as may be"
                            .to_owned()
                    }
                    None => {
                        format!(
                            "{} calls to this upstream are under way",
                            route.protection.slots_max
                        )
                    }
                },
                retry_after,
            },
            Bar::Rate => Refusal::Limit {
                what: "the rate of calls to this upstream is used up".to_owned(),
                retry_after,
            },
            why => Refusal::Barred { why, retry_after },
        }
    }

    /// What a delivery says of its upstream; what was refused here says nothing of it.
    fn learn_from(&self, route: &Route, policy: &Policy, slot: &mut Slot, delivered: &Delivered) {
        if delivered.permanent && delivered.ending == Ending::Unsent {
            return;
        }
        let headers = delivered.response.as_ref().map(|response| &response.headers);
        let asked = headers
            .filter(|_| matches!(delivered.status, Some(429 | 503)))
            .and_then(|headers| Hint::of(headers, &policy.hints, self.clock.now()).wait);
        self.learn(route, slot, Sign::of(delivered.ending, delivered.status), asked);
    }

    /// What an attempt says of its upstream.
    pub(crate) fn learn(
        &self,
        route: &Route,
        slot: &mut Slot,
        sign: Sign,
        asked: Option<Duration>,
    ) {
        let Some(gate) = slot.gate().map(Arc::clone) else { return };
        if let Some(turn) = gate.learn(slot, sign, asked, self.clock.now()) {
            self.observer.observe(Fact::Breaker(&route.name, turn));
        }
    }

    /// How long a call waits for somebody else's outcome.
    fn wait_of(arrival: &Arrival) -> Duration {
        let wait = arrival.options.wait.unwrap_or(arrival.policy.held.horizon);
        wait.min(arrival.route.answer_max)
    }

    pub(crate) fn next_id(&self, now: Timestamp) -> OperationId {
        let step = |last| Some(next_sequence(last, now));
        let last = self
            .sequence
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, step)
            .unwrap_or_default();
        let sequence = next_sequence(last, now);
        OperationId::new(sequence, self.session.tail(sequence))
    }

    /// A dead operation runs again: the remembered bytes, with the caller's credentials and
    /// bounds of now. Nothing where it has moved on.
    async fn revival(
        &self,
        known: &Operation,
        arrival: &Arrival,
        start: bool,
        now: Timestamp,
    ) -> Result<Option<(Write, Arc<Request>)>, Refusal> {
        let mut request = self.request_of(known).await?;
        let before = request.headers.clone();
        // What came another way has other credentials, or none.
        let is_same_way = known.via == arrival.options.via;
        let seal = &arrival.policy.seal_headers;
        let is_secret = |name: &str| onceward_core::exchange::is_credential(name, seal);
        if is_same_way {
            request.headers.0.retain(|(name, _)| !is_secret(name));
            let given = arrival.request.headers.0.iter().filter(|(name, _)| is_secret(name));
            request.headers.0.extend(given.cloned());
        }
        // A later attempt may be made from the ledger, so that has the new credentials too.
        let answer = (request.headers != before).then(|| {
            (Place::Request, wire::encode_request(&request, known.id, &self.secrets, seal))
        });
        let mode = if self.is_in_order(known) { Mode::Accepted } else { arrival.mode };
        let due = arrival.policy.opening(mode, now);
        let revived = known.after(Event::Revived { due, mode, act: None }, now);
        let Ok(mut operation) = revived else { return Ok(None) };
        operation.deadline = arrival.options.deadline;
        operation.attempts_max = arrival.options.attempts_max;
        let start = start && arrival.policy.opening(arrival.mode, now) <= now;
        if start && let Ok(started) = operation.after(Event::Started(self.session), now) {
            operation = started;
        }
        // Both facts are one write.
        operation.fence = Fence(known.fence.0 + 1);
        Ok(Some((Write { operation, answer, visible: false }, Arc::new(request))))
    }

    /// A dead operation that is too old to be sent again safely goes into doubt.
    async fn doubt(&self, known: &Operation, now: Timestamp) -> Result<Operation, StoreError> {
        let doubted = known.after(Event::Ruled(Verdict::Doubt), now);
        let operation = doubted.map_err(|_| StoreError::Stale)?;
        let doubted = self.store.commit(Write { operation, answer: None, visible: true }).await?;
        self.rested(&doubted);
        self.advance(&doubted).await;
        Ok(doubted)
    }

    /// The remembered request of an operation, its credentials opened.
    pub(crate) async fn request_of(&self, operation: &Operation) -> Result<Request, StoreError> {
        let body = operation
            .request
            .ok_or_else(|| StoreError::Damaged("an operation without a request".to_owned()))?;
        wire::decode_request(&self.store.body(body).await?, operation.id, Some(&self.secrets))
    }

    /// Answers the caller whose call made or revived `operation`, as it asked; `ran` is there
    /// where its run has begun.
    async fn answer_begun(
        &self,
        operation: Operation,
        ran: Option<oneshot::Receiver<Result<Ran, Refusal>>>,
        arrival: &Arrival,
    ) -> Result<Answer, Refusal> {
        let waits = match operation.mode {
            Mode::Held => Some(arrival.route.answer_max),
            Mode::Accepted => arrival.options.wait.map(|wait| wait.min(arrival.route.answer_max)),
        };
        if operation.state == State::Dead(Death::Superseded) {
            return self.answer_at_rest(operation, true).await;
        }
        let Some(wait) = waits else {
            return Ok(Answer::Accepted(Box::new(operation)));
        };
        let until = self.clock.now().plus(wait);
        let Some(ran) = ran else {
            return self.wait_and_answer(operation, until, true).await;
        };
        let id = operation.id;
        tokio::select! {
            biased;
            ran = ran => match ran {
                Ok(Ok(ran)) if is_under_way(&ran.operation) => {
                    self.wait_and_answer(ran.operation, until, true).await
                }
                Ok(Ok(ran)) => self.answer_run(ran).await,
                Ok(Err(refusal)) => Err(refusal),
                Err(_) => Err(Refusal::StillWorking(Box::new(operation))),
            },
            () = self.clock.sleep_until(until) => {
                let now = self.store.find(Which::Id(id)).await?.unwrap_or(operation);
                match now.mode {
                    Mode::Held => Err(Refusal::StillWorking(Box::new(now))),
                    Mode::Accepted => Ok(Answer::Accepted(Box::new(now))),
                }
            }
        }
    }

    /// The answer to the caller whose call was sent.
    async fn answer_run(&self, ran: Ran) -> Result<Answer, Refusal> {
        let Ran { operation, response, rest } = ran;
        match response {
            // What was cut off never poses as an answer.
            Some(response) if !operation_lost_its_answer(&operation) => {
                Ok(Answer::Upstream(Box::new(Answered {
                    operation,
                    response,
                    rest,
                    replayed: false,
                })))
            }
            _ => self.answer_at_rest(operation, true).await,
        }
    }

    /// Waits for an operation to come to rest, and answers with its outcome; `first` where the
    /// caller is the one whose call it is.
    async fn wait_and_answer(
        &self,
        operation: Operation,
        until: Timestamp,
        first: bool,
    ) -> Result<Answer, Refusal> {
        let id = operation.id;
        let mut timer = self.clock.sleep_until(until);
        let mut over = false;
        loop {
            // It may have come to rest before we began to wait.
            let woken = self.waiters.join(id);
            let found = self.store.find(Which::Id(id)).await?.unwrap_or_else(|| operation.clone());
            if !is_under_way(&found) {
                return self.answer_at_rest(found, first).await;
            }
            let Some(woken) = woken.filter(|_| !over) else {
                // Whoever asks again without `respond-async` wants the outcome, not a receipt.
                return match found.mode {
                    Mode::Accepted if first => Ok(Answer::Accepted(Box::new(found))),
                    Mode::Accepted | Mode::Held => Err(Refusal::InProgress(Box::new(found))),
                };
            };
            // An attempt that is followed by another wakes too.
            let look = self.look_elsewhere(&found);
            tokio::select! {
                biased;
                _ = woken => {}
                () = &mut timer => over = true,
                () = look => {}
            }
        }
    }

    /// What other nodes do is not heard here: whoever waits for it looks again after a while. Never
    /// comes where nobody else could have it in hand.
    pub(crate) async fn look_elsewhere(&self, operation: &Operation) {
        let is_ours = operation.owner() == Some(self.session);
        if is_ours || !self.store.is_shared() {
            std::future::pending::<()>().await;
        }
        self.clock.sleep_until(self.clock.now().plus(LOOK_ELSEWHERE)).await;
    }

    /// The answer from memory for an operation that came to rest.
    async fn answer_at_rest(&self, operation: Operation, first: bool) -> Result<Answer, Refusal> {
        let from_memory = |operation, response| {
            Ok(Answer::Upstream(Box::new(Answered {
                operation,
                response,
                rest: None,
                replayed: !first,
            })))
        };
        match operation.state {
            State::InDoubt => {
                Err(Refusal::OutcomeUnknown { operation: Box::new(operation), first })
            }
            State::Pending { .. } | State::Delivering => {
                Err(Refusal::InProgress(Box::new(operation)))
            }
            State::Done | State::Dead(_)
                if admission::are_bodies_over(&operation, self.clock.now()) =>
            {
                Err(Refusal::ResponseNotRetained(Box::new(operation)))
            }
            State::Done | State::Dead(_) if operation.outcome.is_some() => {
                match replay(&*self.store, &operation).await? {
                    Some(response) => from_memory(operation, response),
                    None => Err(Refusal::ResponseNotRetained(Box::new(operation))),
                }
            }
            State::Done => Err(Refusal::ResponseNotRetained(Box::new(operation))),
            State::Dead(Death::Cancelled) => Err(Refusal::Cancelled(Box::new(operation))),
            State::Dead(Death::Superseded) => from_memory(operation, order::superseded()),
            State::Dead(death) => {
                match replay_failure(&*self.store, &operation, &self.secrets).await? {
                    Some(response) => from_memory(operation, response),
                    None if death == Death::Unsent => {
                        Err(Refusal::UpstreamUnreachable(Box::new(operation)))
                    }
                    None => Err(Refusal::NoAnswer(Box::new(operation))),
                }
            }
        }
    }

    /// What a duplicate gets; the upstream is not asked.
    pub(crate) async fn answer_known(
        &self,
        known: Operation,
        admission: Admission,
        arrival: &Arrival,
    ) -> Result<Answer, Refusal> {
        let repeat = match admission {
            Admission::Replay | Admission::ReplayFailure => Repeat::Replayed,
            Admission::Join => Repeat::Joined,
            Admission::Expired => Repeat::Late,
            _ => Repeat::Refused,
        };
        self.note_asked(&known, repeat);
        // Nobody else sets it.
        let _ = arrival.options.aside.repeat.set(repeat);
        if admission == Admission::Replay {
            self.recent.add(arrival.scope.digest(&arrival.key));
        }
        if admission == Admission::Join && !known.is_first() {
            // Its process may have ended before its line had it; what comes after it must not pass.
            Box::pin(self.advance(&known)).await;
        }
        let known_box = || Box::new(known.clone());
        match admission {
            Admission::Mismatch(parts) => self.mismatch(known, parts, arrival).await,
            Admission::Join if arrival.options.respond_async && arrival.options.wait.is_none() => {
                Ok(Answer::Accepted(known_box()))
            }
            Admission::Join => {
                let until = self.clock.now().plus(Self::wait_of(arrival));
                match self.wait_and_answer(known, until, false).await {
                    Err(Refusal::InProgress(operation)) if arrival.options.respond_async => {
                        Ok(Answer::Accepted(operation))
                    }
                    answer => answer,
                }
            }
            Admission::Replay | Admission::ReplayFailure | Admission::InDoubt => {
                self.answer_at_rest(known, false).await
            }
            Admission::Cancelled => Err(Refusal::Cancelled(Box::new(known))),
            Admission::Expired => Err(Refusal::KeyExpired(Box::new(known))),
            Admission::Invalidated => Err(Refusal::KeyInvalidated(Box::new(known))),
            Admission::Fresh | Admission::Revive | Admission::TooLate => {
                Err(Refusal::InProgress(Box::new(known)))
            }
        }
    }

    /// The decision on an arrival whose key is known. Bodies are compared as bytes first; where
    /// nothing else differs, by what they say. Where the route's rule is another one than the key
    /// was first used under, both requests are compared under the one of now.
    async fn admit(&self, holder: &Holder, arrival: &Arrival) -> Result<Admission, Refusal> {
        let Holder { owner, operation } = holder;
        let mut known = operation.clone();
        if known.fingerprint != owner.fingerprint {
            known.intent_mut().fingerprint = owner.fingerprint;
        }
        let decide = |print| judgement::admit(&known, print, &arrival.policy, self.clock.now());
        if owner.via != arrival.options.via {
            // One business event looks different on each of its ways: its key is all there is of it.
            return Ok(decide(&owner.fingerprint));
        }
        let admission = decide(&arrival.fingerprint);
        let Admission::Mismatch(parts) = &admission else { return Ok(admission) };
        let rule = &arrival.policy.fingerprint;
        let (before, now) = (&owner.fingerprint, &arrival.fingerprint);
        let Some(kept) = owner.request else {
            // All that is left to compare is what every rule counts.
            let is_same = before.version != now.version && before.parts[0] == now.parts[0];
            return Ok(if is_same { decide(before) } else { admission });
        };
        let kept = self.store.body(kept).await?;
        let mut parts = parts.clone();
        if parts != [Part::Body] {
            let Ok(stored) = wire::decode_request(&kept, owner.id, Some(&self.secrets)) else {
                return Ok(admission);
            };
            parts = Fingerprint::of(&stored, rule, self.secrets.fingerprint()).differs_from(now);
        }
        let is_same = match parts[..] {
            [] => true,
            [Part::Body] => {
                let stored = wire::decode_request(&kept, owner.id, None)?;
                is_same_body(&stored, &arrival.request, rule)
            }
            _ => false,
        };
        Ok(if is_same { decide(before) } else { Admission::Mismatch(parts) })
    }

    async fn mismatch(
        &self,
        known: Operation,
        parts: Vec<Part>,
        arrival: &Arrival,
    ) -> Result<Answer, Refusal> {
        let mut paths = Vec::new();
        if let (true, Some(request)) = (parts.contains(&Part::Body), known.request) {
            let stored = wire::decode_request(&self.store.body(request).await?, known.id, None)?;
            paths = differing_paths(&stored.body, &arrival.request.body, PATHS_MAX);
        }
        let status = arrival.policy.mismatch_status;
        Err(Refusal::KeyMismatch { operation: Box::new(known), parts, paths, status })
    }

    pub(crate) fn note_asked(&self, known: &Operation, repeat: Repeat) {
        self.observer.observe(Fact::Duplicate(known, repeat));
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.entry(known.id).or_default().add(&Asked { count: 1, times: vec![self.clock.now()] });
    }

    /// Duplicates counted since the last time this was called.
    pub(crate) fn take_asked(&self) -> Vec<(OperationId, Asked)> {
        std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner))
            .into_iter()
            .collect()
    }

    /// Runs a started operation to its rest, or to the point where it waits in the ledger.
    pub(crate) fn spawn_from_ledger(self: &Arc<Self>, operation: Operation, slot: Slot) {
        let engine = Arc::clone(self);
        let run = self.begin();
        tokio::spawn(async move {
            let _run = run;
            match engine.request_when_back(&operation).await {
                Ok(request) => {
                    engine.run(operation, Arc::new(request), slot, Means::default(), None).await;
                }
                Err(error) => engine.bury_unreadable(&operation, &error).await,
            }
        });
    }

    /// The request of an operation in hand: a ledger that is away is waited for.
    async fn request_when_back(&self, operation: &Operation) -> Result<Request, StoreError> {
        loop {
            match self.request_of(operation).await {
                Err(error) if error.may_pass() => self.wait_for_the_ledger().await,
                done => return done,
            }
        }
    }

    /// The same for an operation that is in hand, as it stands.
    async fn find_when_back(&self, id: OperationId) -> Result<Option<Operation>, StoreError> {
        loop {
            match self.store.find(Which::Id(id)).await {
                Err(error) if error.may_pass() => self.wait_for_the_ledger().await,
                done => return done,
            }
        }
    }

    async fn wait_for_the_ledger(&self) {
        self.clock.sleep_until(self.clock.now().plus(LEDGER_RETRY)).await;
    }

    /// An operation whose request cannot be read is a dead letter, which says so.
    async fn bury_unreadable(&self, operation: &Operation, error: &StoreError) {
        let why = format!("its request cannot be read: {error}");
        self.observer.observe(Fact::Trouble(&format!("{}: {why}", operation.id)));
        let (_, policy) = self.route_of(operation);
        let not_sent = not_sent(&why);
        let settled = settle(operation, &policy, &not_sent, true, &self.secrets, self.clock.now());
        let Ok(write) = settled else { return };
        match self.commit_when_there_is_room(write).await {
            Ok(buried) => {
                self.rested(&buried);
                self.advance(&buried).await;
            }
            // Whoever was faster has decided.
            Err(StoreError::Stale) => {}
            Err(error) => drop(self.heed(error)),
        }
        self.waiters.wake(operation.id);
    }

    pub(crate) fn begin(self: &Arc<Self>) -> Run {
        self.running.count.fetch_add(1, Ordering::AcqRel);
        Run(Arc::clone(self))
    }

    /// Attempt after attempt, each with its verdict on disk before the next: until the operation
    /// rests, or waits for longer than a caller does.
    async fn run(
        &self,
        mut operation: Operation,
        request: Arc<Request>,
        slot: Slot,
        means: Means,
        tell: Option<oneshot::Sender<Result<Ran, Refusal>>>,
    ) {
        let mut slot = slot;
        let mut overtaken = false;
        let ran = loop {
            if Sabotage::HangUpCancels.is_on()
                && tell.as_ref().is_some_and(oneshot::Sender::is_closed)
            {
                break Err(StoreError::Stale);
            }
            let delivered = match self.attempt(&operation, &request, &mut slot, &means).await {
                Ok(Settled::Ours(settled, delivered)) => {
                    operation = settled;
                    delivered
                }
                Ok(Settled::Overtaken(found)) => {
                    (operation, overtaken) = (found, true);
                    break Ok(Ran { operation: operation.clone(), response: None, rest: None });
                }
                Err(error) => break Err(error),
            };
            if let State::Pending { due } = operation.state
                && operation.mode == Mode::Held
            {
                self.clock.sleep_until(due).await;
                match self.start_again(&operation, &mut slot).await {
                    Ok(Begun::Started(next)) => {
                        operation = next;
                        continue;
                    }
                    Ok(Begun::Over(next)) => operation = next,
                    Ok(Begun::Overtaken(found)) => {
                        (operation, overtaken) = (found, true);
                        break Ok(Ran { operation: operation.clone(), response: None, rest: None });
                    }
                    Err(error) => break Err(error),
                }
            }
            let Delivered { response, rest, .. } = delivered;
            break Ok(Ran { operation: operation.clone(), response, rest });
        };
        if operation.state == State::Done {
            self.recent.add(operation.scope.digest(&operation.key));
        }
        // Whoever was faster has told of it.
        if !overtaken && !is_under_way(&operation) {
            self.rested(&operation);
        }
        if let Some(tell) = tell {
            // A caller that hung up is not told; it can ask again.
            let _ = tell.send(ran.map_err(|error| self.heed(error)));
        } else if let Err(error) = ran {
            self.heed(error);
        }
        self.waiters.wake(operation.id);
        if !overtaken && !is_under_way(&operation) {
            self.advance(&operation).await;
        }
    }

    /// The operation with its next attempt started, where one may start still.
    async fn start_again(
        &self,
        operation: &Operation,
        slot: &mut Slot,
    ) -> Result<Begun, StoreError> {
        let (route, policy) = self.route_of(operation);
        let may_go = match &route {
            Some(route) => self.go_again(operation, route, &policy, slot).await,
            None => true,
        };
        let now = self.clock.now();
        let verdict = judgement::decide_unstarted(operation, &policy, now)
            .or_else(|| (!may_go).then(|| verdict::decide_barred(operation, now)));
        let event = verdict.map_or(Event::Started(self.session), Event::Ruled);
        let next = operation.after(event, now).map_err(|_| StoreError::Stale)?;
        if Sabotage::AttemptNotRemembered.is_on() {
            return Ok(Begun::Started(Operation { fence: operation.fence, ..next }));
        }
        let write = Write { operation: next, answer: None, visible: false };
        match self.commit_when_there_is_room(write).await {
            Ok(next) if next.state == State::Delivering => Ok(Begun::Started(next)),
            Ok(next) => Ok(Begun::Over(next)),
            Err(StoreError::Stale) => self.find_overtaken(operation.id).await.map(Begun::Overtaken),
            Err(error) => Err(error),
        }
    }

    /// Waits until the gate lets another attempt by; tells whether it does while a caller waits.
    async fn go_again(
        &self,
        operation: &Operation,
        route: &Route,
        policy: &Policy,
        slot: &mut Slot,
    ) -> bool {
        let gate = self.gate_of(route);
        let is_harmless = operation.effects != Effects::NonIdempotent;
        let patience = verdict::ends_at(operation, policy);
        loop {
            match gate.pay(slot, is_harmless, self.clock.now(), patience) {
                Ok(turn) => {
                    self.clock.sleep_until(turn).await;
                    return true;
                }
                Err(Barred { until: Some(until), .. }) if until <= patience => {
                    self.clock.sleep_until(until).await;
                }
                Err(_) => return false,
            }
        }
    }

    /// The operation as somebody else wrote it meanwhile: a person, or a node that took this one
    /// for gone.
    async fn find_overtaken(&self, id: OperationId) -> Result<Operation, StoreError> {
        self.find_when_back(id).await?.ok_or(StoreError::Stale)
    }

    /// The route of this moment and its policy for `operation`; a route that is gone has the
    /// default one.
    pub(crate) fn route_of(&self, operation: &Operation) -> (Option<Arc<Route>>, Arc<Policy>) {
        let route = self.routes().get(&operation.route);
        let policy = route.as_ref().map_or_else(Arc::default, |route| {
            Arc::clone(route.policy_for(&operation.method, &operation.target))
        });
        (route, policy)
    }

    /// One attempt and its verdict.
    async fn attempt(
        &self,
        operation: &Operation,
        request: &Arc<Request>,
        slot: &mut Slot,
        means: &Means,
    ) -> Result<Settled, StoreError> {
        let (route, policy) = self.route_of(operation);
        let looked = match &route {
            Some(route) => Box::pin(self.look_before(operation, route, &policy, slot)).await,
            None => None,
        };
        let delivered = match (&route, looked) {
            (_, Some(Before::Found(write))) => return self.settle_unsent(*write).await,
            (Some(_), Some(Before::Unknown(why))) => {
                let why = format!("not sent, because nobody knows whether it was done: {why}");
                Delivered { permanent: false, ..not_sent(&why) }
            }
            (route, _) => self.deliver(operation, request, route.as_ref(), slot, means).await?,
        };
        let now = self.clock.now();
        // A retry for a caller who waits is paid for by all who call; what is not made costs nothing.
        let gate = slot.gate().filter(|_| operation.mode == Mode::Held);
        let may_retry = gate.is_none_or(|gate| gate.withdraw(now));
        let write = settle(operation, &policy, &delivered, may_retry, &self.secrets, now)
            .map_err(|_| StoreError::Stale)?;
        if let Some(gate) = gate.filter(|_| may_retry)
            && !matches!(write.operation.state, State::Pending { .. })
        {
            gate.refund();
        }
        if Sabotage::AnswerBeforeSettle.is_on() {
            let settled = sabotage::commit_later(&self.store, write);
            return Ok(Settled::Ours(settled, delivered));
        }
        let settled = match self.commit_when_there_is_room(write).await {
            Err(StoreError::Stale) => match self.add_evidence(operation, &delivered).await? {
                Some(settled) => settled,
                None => return self.find_overtaken(operation.id).await.map(Settled::Overtaken),
            },
            done => done?,
        };
        if let Some(attempt) = settled.attempts.last() {
            self.observer.observe(Fact::Attempted(&settled, attempt));
        }
        Ok(Settled::Ours(settled, delivered))
    }

    /// Sends what an attempt was begun for, where it may be sent still.
    async fn deliver(
        &self,
        operation: &Operation,
        request: &Arc<Request>,
        route: Option<&Arc<Route>>,
        slot: &mut Slot,
        means: &Means,
    ) -> Result<Delivered, StoreError> {
        let (_, policy) = self.route_of(operation);
        Ok(match route {
            _ if is_past_its_deadline(operation) => {
                not_sent("the caller's deadline had passed before it could be sent")
            }
            _ if operation.scope.kind == ScopeKind::Callback && !self.has_teller() => {
                not_sent("callbacks.secret is not configured any more")
            }
            _ if self.has_lost(operation).await? => {
                not_sent("this node was taken for gone before it could be sent")
            }
            Some(route) => {
                slot.spend();
                let request = Arc::clone(request);
                let signed = self.signature(operation, &request);
                let upstream = means.handler.as_ref().map_or(&self.upstream, |own| &own.0);
                let delivered =
                    deliver(&**upstream, route, operation, request, means.timeout, signed).await;
                // A handler of this process is nothing that has to be spared.
                if means.handler.is_none() {
                    self.learn_from(route, &policy, slot, &delivered);
                }
                delivered
            }
            None => not_sent("the route is not configured any more"),
        })
    }

    /// The end of an attempt that was not sent, because what it is for was done already.
    async fn settle_unsent(&self, write: Write) -> Result<Settled, StoreError> {
        let id = write.operation.id;
        let settled = match self.commit_when_there_is_room(write).await {
            Err(StoreError::Stale) => return self.find_overtaken(id).await.map(Settled::Overtaken),
            done => done?,
        };
        if let Some(attempt) = settled.attempts.last() {
            self.observer.observe(Fact::Attempted(&settled, attempt));
        }
        Ok(Settled::Ours(settled, not_sent("it was found")))
    }

    /// Whether somebody else wrote an operation whose attempt is about to be sent. That takes a lapsed
    /// right, so it is looked for only where the attempt was begun a while ago: the node was paused,
    /// or the ledger answered late.
    async fn has_lost(&self, operation: &Operation) -> Result<bool, StoreError> {
        let begun = operation.attempts.last().map(|attempt| attempt.started_at);
        let is_late = begun.is_some_and(|at| at.plus(BEAT) < self.clock.now());
        if !is_late || !self.store.is_shared() {
            return Ok(false);
        }
        let found = self.find_when_back(operation.id).await?;
        Ok(found.is_none_or(|found| found.fence != operation.fence))
    }

    /// How an attempt really ended whose end was only assumed, because its session was taken for
    /// gone: evidence that may end the doubt, and changes nothing else. Nothing where there is
    /// no such doubt any more.
    async fn add_evidence(
        &self,
        begun: &Operation,
        delivered: &Delivered,
    ) -> Result<Option<Operation>, StoreError> {
        for _ in 0..RACES_MAX {
            let Some(found) = self.find_when_back(begun.id).await? else { return Ok(None) };
            let is_ours = found.attempts_made() == begun.attempts_made();
            if found.state != State::InDoubt || !is_ours {
                return Ok(None);
            }
            let (_, policy) = self.route_of(&found);
            let write = settle(&found, &policy, delivered, true, &self.secrets, self.clock.now())
                .map_err(|_| StoreError::Stale)?;
            match self.commit_when_there_is_room(write).await {
                Err(StoreError::Stale) => {}
                done => return done.map(Some),
            }
        }
        Ok(None)
    }

    /// What is known is kept until it is on disk: a full ledger is waited for.
    async fn commit_when_there_is_room(&self, write: Write) -> Result<Operation, StoreError> {
        loop {
            match self.store.commit(write.clone()).await {
                Err(error) if error.may_pass() => self.wait_for_the_ledger().await,
                done => return done,
            }
        }
    }

    /// An error that leaves the ledger's state unknown ends the process: no answer, stop, recover.
    pub(crate) fn heed(&self, error: StoreError) -> Refusal {
        if let StoreError::Unavailable(_) | StoreError::Damaged(_) = &error {
            self.observer.observe(Fact::Trouble(&format!("the ledger cannot be used: {error}")));
            self.broken.notify_one();
        }
        Refusal::Ledger(error)
    }
}

/// When a caller may come again who wants to be held now, where the route sends at other hours.
fn closed_until(arrival: &Arrival, now: Timestamp) -> Option<Timestamp> {
    let hours = arrival.policy.hours.as_ref().filter(|_| arrival.mode == Mode::Held)?;
    Some(hours.next_open(now)).filter(|opens| *opens > now)
}

/// Whether the attempt under way began after the caller's own bound.
fn is_past_its_deadline(operation: &Operation) -> bool {
    let started_at = operation.attempts.last().map(|attempt| attempt.started_at);
    operation.deadline.is_some_and(|deadline| started_at.is_some_and(|at| at > deadline))
}

/// An attempt that provably sent nothing, and that trying again cannot help.
fn not_sent(why: &str) -> Delivered {
    Delivered {
        ending: Ending::Unsent,
        reached: Reached::Nothing,
        status: None,
        error: Some(why.to_owned()),
        permanent: true,
        response: None,
        rest: None,
    }
}

fn is_under_way(operation: &Operation) -> bool {
    match operation.state {
        State::Pending { .. } | State::Delivering => true,
        State::InDoubt | State::Done | State::Dead(_) => false,
    }
}

/// Whether the outcome's answer broke off, so that what came of it must not be returned.
fn operation_lost_its_answer(operation: &Operation) -> bool {
    let last = operation.attempts.last().and_then(|attempt| attempt.ended.as_ref());
    last.is_some_and(|ended| ended.ending == Ending::Truncated)
}
