//! The engine: receive, remember, deliver, settle, replay. Only here are the five put in order; none of
//! them calls another. The order is in `story`, and once something is under way in `run`.
//!
//! A call's work goes on by itself where its caller hangs up: that changes nothing. Commit, then
//! answer: no answer leaves before what it says is on stable storage.

mod answer;
mod entry;
mod memory;
mod run;
mod running;
mod story;
mod waiting;
mod writing;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use arc_swap::ArcSwap;
use onceward_core::id::{OperationId, next_sequence};
use onceward_core::key::{Scope, ScopeKind};
use onceward_core::lease::Session;
use onceward_core::operation::{Deed, Operation, State};
use onceward_core::time::Timestamp;
use onceward_core::trace::Sampling;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

pub use self::answer::{Answer, Answered};
use self::memory::Recent;
use self::running::Running;
use crate::advise::Counting;
use crate::agenda::Agenda;
use crate::audit::Audit;
use crate::bulk::InHand;
use crate::call::{Call, Passing, Received};
use crate::callback::Callbacks;
use crate::claim::{Leases, Rules};
use crate::clock::Clock;
use crate::doubt::{Doubts, Listening};
use crate::gates::Gates;
use crate::identity::Turns;
use crate::mail::Renderer;
use crate::observe::Observer;
use crate::order::Lines;
use crate::pass::{pass, pass_whole};
use crate::pause::Pause;
use crate::probe::Wishes;
use crate::receive::{receive, scope_of};
use crate::refusal::Refusal;
use crate::route::{Route, Routes};
use crate::secret::Secrets;
use crate::store::{Asked, Lane, Store};
use crate::subscription::{Subscriptions, is_of_events};
use crate::suspects::Suspects;
use crate::tenants::Tenants;
use crate::upstream::{Download, Upstream};
use crate::waiters::Waiters;

/// How often a write that lost against another is tried again before it is given up as a busy ledger.
pub(crate) const RACES_MAX: usize = 8;

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
    /// Whether bodies are sealed of what has no route that says so: claims, callbacks.
    seals_bodies: AtomicBool,
    /// Which traces are told; nothing where nobody is told of any.
    pub(crate) sampling: OnceLock<Sampling>,
    routes: ArcSwap<Routes>,
    pub(crate) gates: Gates,
    pub(crate) waiters: Waiters,
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) lines: Lines,
    pub(crate) doubts: Arc<Doubts>,
    pauses: Mutex<Arc<BTreeMap<String, Pause>>>,
    pub(crate) probe_wishes: Wishes,
    pub(crate) audit: Audit,
    pub(crate) bulks: InHand,
    /// Who scrubs the ledger now.
    pub(crate) erasing: tokio::sync::Mutex<()>,
    pub(crate) callbacks: Callbacks,
    asked: Mutex<HashMap<OperationId, Asked>>,
    pub(crate) recent: Recent,
    pub(crate) claims: Rules,
    pub(crate) leases: Leases,
    pub(crate) turns: Turns,
    pub(crate) suspects: Suspects,
    pub(crate) renderer: Renderer,
    pub(crate) census: crate::saga::Census,
    /// When sagas have the turns of their tenants' rates that they wait for.
    pub(crate) saga_turns: Agenda,
    pub(crate) subscriptions: Subscriptions,
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

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("routes", &self.routes).finish_non_exhaustive()
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
            seals_bodies: AtomicBool::new(false),
            sampling: OnceLock::new(),
            routes: ArcSwap::from_pointee(parts.routes),
            gates: Gates::default(),
            waiters: Waiters::default(),
            tenants: Arc::default(),
            lines: Lines::default(),
            doubts,
            pauses: Mutex::default(),
            probe_wishes: Wishes::default(),
            audit: Audit::default(),
            bulks: InHand::default(),
            erasing: tokio::sync::Mutex::default(),
            callbacks: Callbacks::default(),
            asked: Mutex::default(),
            recent: Recent::new(),
            claims: Rules::default(),
            leases: Leases::default(),
            turns: Turns::default(),
            suspects: Suspects::default(),
            renderer: Renderer::default(),
            census: crate::saga::Census::default(),
            saga_turns: Agenda::default(),
            subscriptions: Subscriptions::default(),
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

    /// Seals the bodies of what has no route that says so (claims, callbacks), or no longer.
    pub fn seal_bodies(&self, seals: bool) {
        self.seals_bodies.store(seals, Ordering::Release);
        self.subscriptions.refit(&self.routes(), seals);
    }

    /// Tells upstreams of the span that each attempt is, from now on: in `traceparent`, in the place of
    /// what the caller said there. Said once.
    pub fn set_sampling(&self, sampling: Sampling) {
        // It holds for as long as the process runs.
        let _ = self.sampling.set(sampling);
    }

    pub(crate) fn seals_bodies(&self) -> bool {
        self.seals_bodies.load(Ordering::Acquire)
    }

    /// The routes of this moment.
    pub fn routes(&self) -> Arc<Routes> {
        self.routes.load_full()
    }

    /// The route of this name, as it is at this moment: a subscription has one too.
    pub fn route(&self, name: &str) -> Option<Arc<Route>> {
        self.routes.load().get(name).or_else(|| self.subscriptions.route(name))
    }

    /// The same; to name one that is not there is refused.
    pub fn find_route(&self, name: &str) -> Result<Arc<Route>, Refusal> {
        self.route(name).ok_or_else(|| Refusal::RouteUnknown(name.to_owned()))
    }

    /// The same, as it is for calls of `tenant`: one that is not for it is not there, and one of a
    /// subscription is for no calls.
    pub fn find_route_for(&self, tenant: &str, name: &str) -> Result<Arc<Route>, Refusal> {
        let route = self.route(name).filter(|route| route.is_for(tenant) && !is_of_events(name));
        route.ok_or_else(|| Refusal::RouteUnknown(name.to_owned()))
    }

    /// Changes the routes: attempts from now on read the new ones.
    pub fn set_routes(&self, routes: Routes) {
        let routes = Arc::new(routes);
        self.change_routes(|_| Arc::clone(&routes));
    }

    /// Changes the routes, whoever else does so now.
    pub(crate) fn change_routes(&self, change: impl Fn(&Routes) -> Arc<Routes>) {
        self.routes.rcu(|routes| change(routes));
        self.subscriptions.refit(&self.routes(), self.seals_bodies());
        self.gates.fit(|name| self.route(name).map(|route| route.protection.clone()));
        // Work that waited for its route may be due.
        self.store.changed().notify_one();
        self.doubts.routes_changed().notify_one();
    }

    pub(crate) fn pauses(&self) -> MutexGuard<'_, Arc<BTreeMap<String, Pause>>> {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends nothing from now on: new calls are refused, what is under way runs to its end.
    pub fn halt(&self) {
        self.halted.store(true, Ordering::SeqCst);
    }

    /// Whether nothing is sent any more.
    pub fn is_halted(&self) -> bool {
        self.halted.load(Ordering::SeqCst)
    }

    /// Waits until nothing is under way. A call is under way until its future has ended or is dropped
    /// (then it goes on by itself): whoever keeps one without polling it waits here for ever.
    pub async fn idle(&self) {
        self.running.idle().await;
    }

    /// Lets `task` go on until the engine is [stopped](Engine::stop).
    pub(crate) fn keep_up(&self, task: impl Future<Output = ()> + Send + 'static) {
        let handle = tokio::spawn(task);
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
    }

    /// Begins to deliver accepted work and to forget what is over, until [`Engine::stop`].
    pub fn start(self: &Arc<Self>) {
        self.keep_up(crate::recover::beat(Arc::clone(self)));
        self.keep_up(crate::dispatch::dispatch(Arc::clone(self)));
        self.keep_up(crate::doubt::look(Arc::clone(self)));
        self.keep_up(crate::doubt::hear(Arc::clone(self)));
        self.keep_up(crate::sweep::sweep(Arc::clone(self)));
        self.keep_up(crate::advise::write(Arc::clone(self)));
        self.keep_up(crate::bulk::look_after(Arc::clone(self)));
        self.keep_up(crate::callback::tell(Arc::clone(self)));
        self.keep_up(crate::claim::look_for_lapses(Arc::clone(self)));
        self.keep_up(crate::saga::look_for_open(Arc::clone(self)));
        self.keep_up(crate::saga::take_turns(Arc::clone(self)));
        self.keep_up(crate::tenants::count(Arc::clone(self)));
        self.keep_up(crate::subscription::look_after(Arc::clone(self)));
    }

    /// Sends nothing from now on, waits until nothing is under way, and lets the ledger go: once
    /// nobody else has the engine either, the ledger can be opened anew.
    pub async fn stop(&self) {
        self.halt();
        self.idle().await;
        // Counts are no promise, and the ledger may be away.
        let _ = self.flush_asked().await;
        let _ = self.flush_tallies().await;
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

    /// One call, from request to answer. Its work is done where this is polled; dropped before its end,
    /// it goes on by itself.
    pub async fn call(self: &Arc<Self>, call: Call) -> Result<Answer, Refusal> {
        if self.is_halted() {
            return Err(Refusal::Draining);
        }
        let route = self.find_route_for(&call.tenant, &call.route)?;
        let flow = call.options.flow.clone().unwrap_or_default();
        let lane = Lane { tenant: call.tenant.clone(), route: call.route.clone(), flow };
        match self.receive(call, Arc::clone(&route)).await? {
            Received::Pass(request) => Box::pin(pass_whole(self, lane, &route, &request)).await,
            // Every edge carries this along: it has to be small.
            Received::Keyed(arrival) => Box::pin(self.remember(arrival, Arc::new(lane))).await,
        }
    }

    /// Reads a call on its route; a large mail beside the threads that serve connections, for as long as it
    /// takes to be rendered.
    pub(crate) async fn receive(
        self: &Arc<Self>,
        call: Call,
        route: Arc<Route>,
    ) -> Result<Received, Refusal> {
        if route.target.mail.is_none() {
            return receive(call, route, &self.secrets, self.clock.now());
        }
        let (bytes, engine) = (call.request.body.len(), Arc::clone(self));
        let work = move || receive(call, route, &engine.secrets, engine.clock.now());
        // It is cut off where the process ends.
        self.renderer.render(bytes, work).await.unwrap_or(Err(Refusal::Draining))
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
        match self.route(name).filter(|route| route.is_for(&tenant)) {
            Some(route) => scope_of(&route, None, tenant, principal),
            None => Scope { kind: ScopeKind::Call, tenant, name: name.to_owned(), principal },
        }
    }

    /// What a request would be; nothing is written and nothing is sent.
    pub fn explain(&self, call: Call) -> Result<Received, Refusal> {
        let route = self.find_route_for(&call.tenant, &call.route)?;
        receive(call, route, &self.secrets, self.clock.now())
    }

    pub(crate) fn next_id(&self, now: Timestamp) -> OperationId {
        self.next_id_of(now, None)
    }

    /// The same, of an operation whose trace is told, or is not, as was decided before.
    pub(crate) fn next_id_of(&self, now: Timestamp, sampled: Option<bool>) -> OperationId {
        let step = |last| Some(next_sequence(last, now));
        let last = self
            .sequence
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, step)
            .unwrap_or_default();
        let sequence = next_sequence(last, now);
        let tail = self.session.tail(sequence);
        let steer = |(sampling, is_told): (&Sampling, bool)| sampling.steered(tail, is_told);
        OperationId::new(sequence, self.sampling.get().zip(sampled).map_or(tail, steer))
    }
}

fn is_under_way(operation: &Operation) -> bool {
    match operation.state {
        State::Pending { .. } | State::Delivering => true,
        State::InDoubt | State::Done | State::Dead(_) => false,
    }
}
