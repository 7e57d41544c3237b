//! The story on one screen: receive, remember, deliver, settle, replay. Only here are the five
//! put in order; none of them calls another.
//!
//! A call's work runs in a task of its own: a caller that hangs up changes nothing. Commit, then
//! answer: no answer leaves before what it says is on stable storage.

mod entry;
mod memory;
mod run;
mod waiting;
mod writing;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use onceward_core::admission::{self, Admission};
use onceward_core::exchange::{Headers, Response};
use onceward_core::id::{OperationId, next_sequence};
use onceward_core::key::{KeyDigest, Scope, ScopeKind};
use onceward_core::key_age;
use onceward_core::lease::Session;
use onceward_core::operation::{Deed, Operation, State};
use onceward_core::policy::{Effects, Mode};
use onceward_core::time::Timestamp;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use self::entry::closed_until;
use self::memory::Recent;
use self::run::{Running, Written};
use crate::advise::Counting;
use crate::alias::Holder;
use crate::audit::Retention;
use crate::bulk::InHand;
use crate::call::{Arrival, Call, Means, Passing, Received};
use crate::callback::Callbacks;
use crate::claim::{Leases, Rules};
use crate::clock::Clock;
use crate::detached::Detached;
use crate::doubt::{Doubts, Listening};
use crate::gates::{Entrant, Gate, Gates, Slot};
use crate::identity::{Turns, is_twin};
use crate::observe::{Fact, Observer, Repeat};
use crate::order::Lines;
use crate::pass::{pass, pass_whole};
use crate::pause::Pause;
use crate::receive::{receive, scope_of};
use crate::refusal::Refusal;
use crate::remember::birth;
use crate::route::Routes;
use crate::secret::Secrets;
use crate::store::{Asked, Lane, Store, StoreError, Which};
use crate::suspects::{Suspects, Watch};
use crate::upstream::{AnswerBody, Download, Upstream};
use crate::waiters::Waiters;

/// How often a race for a key is run again before it is given up as a busy ledger.
pub(crate) const RACES_MAX: usize = 8;

/// How long a caller waits for the ledger; what was begun goes on without it.
const LEDGER_WAIT: Duration = Duration::from_secs(15);

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
    pub(crate) suspects: Suspects,
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
        self.running.idle().await;
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
            Received::Keyed(arrival) => Box::pin(self.remember(arrival, Arc::new(lane))).await,
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

    /// A call with a key: it is answered from memory, or written and run.
    async fn remember(
        self: &Arc<Self>,
        arrival: Box<Arrival>,
        lane: Arc<Lane>,
    ) -> Result<Answer, Refusal> {
        let digest = arrival.scope.digest(&arrival.key);
        if let Some(answer) = self.answer_at_once(digest, &arrival).await? {
            return Ok(answer);
        }
        if arrival.made_at.is_some() {
            Box::pin(self.refuse_too_old(digest, &arrival)).await?;
        }
        let mut entry = self.enter(digest, &arrival, lane).await?;
        for _ in 0..RACES_MAX {
            let known = match self.write_or_find(&mut entry, &arrival).await? {
                Step::Answered(answer) => return Ok(answer),
                Step::Known(known) => known,
                Step::Again => continue,
            };
            if let Some(answer) = Box::pin(self.judge(&mut entry, known, &arrival)).await? {
                return Ok(answer);
            }
        }
        Err(Refusal::Limit {
            what: "too many calls race for this key".to_owned(),
            retry_after: Duration::from_secs(1),
        })
    }

    /// The answer to a duplicate whose outcome can be had without asking for a write.
    async fn answer_at_once(
        &self,
        digest: KeyDigest,
        arrival: &Arrival,
    ) -> Result<Option<Answer>, Refusal> {
        if !self.recent.has(digest) {
            return Ok(None);
        }
        let Some(known) = self.store.recall(digest) else { return Ok(None) };
        let holder = self.follow_for(known, arrival).await?;
        match self.admit(&holder, arrival).await? {
            Admission::Fresh | Admission::Revive | Admission::TooLate => Ok(None),
            admission => {
                let known = *holder.operation;
                Box::pin(self.answer_known(known, admission, arrival)).await.map(Some)
            }
        }
    }

    /// The call before the gate of its upstream: with a slot, where it may go at once.
    async fn enter(
        &self,
        digest: KeyDigest,
        arrival: &Arrival,
        lane: Arc<Lane>,
    ) -> Result<Entry, Refusal> {
        let gate = self.gate_of(&arrival.route);
        let entrant = Entrant {
            lane,
            is_harmless: arrival.effects != Effects::NonIdempotent,
            is_backlog: arrival.mode == Mode::Accepted,
        };
        let now = self.clock.now();
        // What waits for its turn needs no slot yet.
        let in_order = arrival.is_in_order();
        let waits = in_order || closed_until(arrival, now).is_some();
        let slot = if waits { None } else { gate.try_enter(&entrant, now).ok() };
        let is_full = slot.is_none()
            && (arrival.mode == Mode::Accepted
                && !Box::pin(self.has_room(&gate, &entrant.lane, arrival)).await?
                || in_order && !Box::pin(self.has_room_in_line(arrival)).await?);
        Ok(Entry { digest, gate, entrant, slot, is_full, replaces: None, is_late: false })
    }

    /// Writes the call where it may go or wait, and answers it; else looks whether its key is known.
    async fn write_or_find(
        self: &Arc<Self>,
        entry: &mut Entry,
        arrival: &Arrival,
    ) -> Result<Step, Refusal> {
        let now = self.clock.now();
        if entry.slot.is_none() && (arrival.mode == Mode::Held || entry.is_full) {
            // A duplicate needs no slot and no room; only who would send waits for one.
            return match self.store.find(Which::Key(entry.digest)).await? {
                Some(known) => Ok(Step::Known(known)),
                None if entry.is_full => Err(Refusal::Limit {
                    what: "as much as may wait for this upstream, or about this subject, waits"
                        .to_owned(),
                    retry_after: Duration::from_secs(1),
                }),
                None => {
                    Box::pin(self.take_slot(entry, arrival)).await?;
                    Ok(Step::Again)
                }
            };
        }
        let start = entry.slot.is_some()
            && arrival.options.not_before.is_none_or(|at| at <= now)
            && arrival.policy.opening(arrival.mode, now) <= now;
        let (id, start) = (self.next_id(now), start.then_some(self.session));
        let newborn = birth(arrival, id, start, entry.replaces.as_ref(), &self.secrets, now);
        let write = self.clone().write_one(
            Box::new(newborn),
            self.identity_of(arrival),
            Watch::of(arrival, now),
        );
        let work = self.write_and_run(
            write,
            Arc::clone(&arrival.request),
            entry.slot.take(),
            Means::of(&arrival.options),
        );
        match self.wait_for_write(work).await? {
            Written::Fresh(fresh) => self.answer_fresh(fresh, arrival).await.map(Step::Answered),
            Written::Known(known, unused) => {
                let has_twins =
                    arrival.options.identity.is_some() || arrival.policy.unique.is_some();
                if let Some(twin) = has_twins.then(|| is_twin(&known, entry.digest)).flatten() {
                    drop(unused);
                    // Nobody else sets it.
                    let _ = arrival.options.aside.duplicate_of.set(twin);
                    let twin = self.answer_twin(*known, arrival, entry.replaces.as_ref());
                    return Box::pin(twin).await.map(Step::Answered);
                }
                entry.slot = unused;
                Ok(Step::Known(*known))
            }
            Written::Stale(unused) => {
                (entry.slot, entry.replaces) = (unused, None);
                Ok(Step::Again)
            }
        }
    }

    /// What came of a write, where that is soon.
    async fn wait_for_write(
        &self,
        work: Detached<Result<Written, Refusal>>,
    ) -> Result<Written, Refusal> {
        let until = self.clock.now().plus(LEDGER_WAIT);
        // Whoever asks again with the same key learns what came of it.
        let unknown = || StoreError::Away("it is not known yet what came of it".to_owned());
        self.within(until, work).await.ok_or_else(unknown)?
    }

    /// Answers a call whose key is known; nothing where it may be written now, or somebody else wrote
    /// meanwhile.
    async fn judge(
        self: &Arc<Self>,
        entry: &mut Entry,
        known: Operation,
        arrival: &Arrival,
    ) -> Result<Option<Answer>, Refusal> {
        let now = self.clock.now();
        let holder = self.follow_for(known, arrival).await?;
        let admission = self.admit(&holder, arrival).await?;
        let known = &*holder.operation;
        match admission {
            Admission::Fresh => {
                // Counted once, however often the race for the key is run again.
                if !entry.is_late && admission::leaves_its_mark(known, now) {
                    entry.is_late = true;
                    self.note_asked(known, Repeat::Late);
                }
                self.take_slot(entry, arrival).await?;
                entry.replaces = Some(holder.gives_way());
                Ok(None)
            }
            Admission::Revive => self.revive(entry, known, arrival).await,
            Admission::TooLate => match self.doubt(known, now).await {
                Ok(operation) => {
                    self.note_asked(known, Repeat::Refused);
                    let _ = arrival.options.aside.repeat.set(Repeat::Refused);
                    let operation = Box::new(operation);
                    Err(Refusal::OutcomeUnknown { operation, first: false })
                }
                Err(StoreError::Stale) => Ok(None),
                Err(error) => Err(self.heed(error)),
            },
            admission => {
                entry.slot = None;
                self.answer_known(*holder.operation, admission, arrival).await.map(Some)
            }
        }
    }

    /// Lets a dead operation run again for a call, and answers it.
    async fn revive(
        self: &Arc<Self>,
        entry: &mut Entry,
        known: &Operation,
        arrival: &Arrival,
    ) -> Result<Option<Answer>, Refusal> {
        self.take_slot(entry, arrival).await?;
        let now = self.clock.now();
        let revival = self.revival(known, arrival, entry.slot.is_some(), now).await?;
        let Some((write, request)) = revival else { return Ok(None) };
        let write = self.clone().write_revival(write);
        let means = Means::of(&arrival.options);
        let work = self.write_and_run(write, request, entry.slot.take(), means);
        match self.wait_for_write(work).await? {
            Written::Fresh(fresh) => {
                self.note_asked(known, Repeat::Revived);
                let _ = arrival.options.aside.repeat.set(Repeat::Revived);
                self.answer_fresh(fresh, arrival).await.map(Some)
            }
            Written::Known(_, unused) | Written::Stale(unused) => {
                entry.slot = unused;
                Ok(None)
            }
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

    pub(crate) fn next_id(&self, now: Timestamp) -> OperationId {
        let step = |last| Some(next_sequence(last, now));
        let last = self
            .sequence
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, step)
            .unwrap_or_default();
        let sequence = next_sequence(last, now);
        OperationId::new(sequence, self.session.tail(sequence))
    }
}

/// A call on its way to the ledger.
struct Entry {
    /// What its key is found by.
    digest: KeyDigest,
    gate: Arc<Gate>,
    entrant: Entrant,
    /// The right to have one call under way, once it has it.
    slot: Option<Slot>,
    /// Whether no more may wait: only a duplicate is answered.
    is_full: bool,
    /// The operation whose key is free again.
    replaces: Option<Operation>,
    /// Whether it is counted as one that came too late.
    is_late: bool,
}

/// What came of one look at a call's key, or of one write.
enum Step {
    Answered(Answer),
    /// Its key is known.
    Known(Operation),
    /// Somebody else wrote meanwhile.
    Again,
}

fn is_under_way(operation: &Operation) -> bool {
    match operation.state {
        State::Pending { .. } | State::Delivering => true,
        State::InDoubt | State::Done | State::Dead(_) => false,
    }
}
