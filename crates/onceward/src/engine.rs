//! The story on one screen: receive, remember, deliver, settle, replay. Only here are the five
//! put in order; none of them calls another.
//!
//! A call's work runs in a task of its own: a caller that hangs up changes nothing. Commit, then
//! answer: no answer leaves before what it says is on stable storage.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use onceward_core::admission::{self, Admission};
use onceward_core::exchange::{Headers, Request, Response};
use onceward_core::fingerprint::{Part, differing_paths};
use onceward_core::id::{OperationId, next_sequence};
use onceward_core::key::KeyDigest;
use onceward_core::operation::{Death, Event, Fence, Operation, State};
use onceward_core::policy::Mode;
use onceward_core::time::Timestamp;
use onceward_core::verdict::Verdict;
use tokio::sync::{Notify, oneshot};

use crate::clock::Clock;
use crate::deliver::{Delivered, deliver};
use crate::observe::{Fact, Observer, Repeat};
use crate::receive::{Arrival, Call, Received, receive};
use crate::refusal::Refusal;
use crate::remember::birth;
use crate::replay::{replay, replay_failure};
use crate::route::{Route, Routes};
use crate::secret::{Secrets, random};
use crate::settle::settle;
use crate::slots::{Slot, Slots};
use crate::store::{Asked, Lane, Remembered, Store, StoreError, Which, Write};
use crate::upstream::{AnswerBody, Upstream};
use crate::waiters::Waiters;
use crate::wire;

/// How many JSON paths a mismatch names.
const PATHS_MAX: usize = 10;

/// How often a race for a key is run again before it is given up as a busy ledger.
const RACES_MAX: usize = 8;

/// How long a full ledger is waited for before an outcome is offered to it again.
const FULL_RETRY: Duration = Duration::from_millis(250);

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
}

/// The engine: shared by every edge.
pub struct Engine {
    pub(crate) store: Arc<dyn Store>,
    upstream: Arc<dyn Upstream>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) secrets: Secrets,
    routes: RwLock<Arc<Routes>>,
    pub(crate) slots: Slots,
    pub(crate) waiters: Waiters,
    asked: Mutex<HashMap<OperationId, Asked>>,
    recent: Recent,
    sequence: AtomicU64,
    pub(crate) running: Running,
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

/// What the write that begins a call found.
enum First {
    /// The operation is this call's to run, with this request.
    Ours(Operation, Arc<Request>),
    /// Its key was there before.
    Known(Operation),
}

/// How a call began.
enum Begun {
    /// Its operation is in the ledger; where its first attempt was started, its end is told.
    Ours(Operation, oneshot::Receiver<Result<Ran, Refusal>>),
    /// Its key was there before; the slot is free again.
    Known(Operation, Option<Slot>),
}

/// Tasks that are under way.
#[derive(Debug, Default)]
pub(crate) struct Running {
    count: AtomicUsize,
    idle: Notify,
}

/// One task that is under way, for as long as it lives.
struct Run(Arc<Engine>);

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
struct Recent(Vec<AtomicU64>);

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

    fn add(&self, key: KeyDigest) {
        let (place, mark) = self.place(key);
        place.store(mark, Ordering::Relaxed);
    }

    fn has(&self, key: KeyDigest) -> bool {
        let (place, mark) = self.place(key);
        place.load(Ordering::Relaxed) == mark
    }
}

impl Engine {
    /// An engine that has not begun to deliver: see [`Engine::start`].
    pub fn new(parts: Parts) -> Arc<Self> {
        let sequence = AtomicU64::new(parts.store.newest());
        Arc::new(Self {
            store: parts.store,
            upstream: parts.upstream,
            clock: parts.clock,
            observer: parts.observer,
            secrets: parts.secrets,
            routes: RwLock::new(Arc::new(parts.routes)),
            slots: Slots::default(),
            waiters: Waiters::default(),
            asked: Mutex::default(),
            recent: Recent::new(),
            sequence,
            running: Running::default(),
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
        *self.routes.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(routes);
    }

    /// Sends nothing from now on: new calls are refused, what is under way runs to its end.
    pub fn halt(&self) {
        self.halted.store(true, Ordering::Release);
    }

    pub(crate) fn is_halted(&self) -> bool {
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
        let lane = Lane { tenant: call.tenant.clone(), route: call.route.clone() };
        match receive(call, Arc::clone(&route), &self.secrets)? {
            Received::Pass(request) => self.pass(&lane, &route, request).await,
            Received::Keyed(arrival) => self.remember(*arrival, &lane).await,
        }
    }

    /// What a request would be; nothing is written and nothing is sent.
    pub fn explain(&self, call: Call) -> Result<Received, Refusal> {
        let route = self
            .routes()
            .get(&call.route)
            .ok_or_else(|| Refusal::RouteUnknown(call.route.clone()))?;
        receive(call, route, &self.secrets)
    }

    async fn remember(self: &Arc<Self>, arrival: Arrival, lane: &Lane) -> Result<Answer, Refusal> {
        let digest = arrival.scope.digest(&arrival.key);
        if self.recent.has(digest)
            && let Some(known) = self.store.recall(digest)
        {
            let admission =
                admission::admit(&known, &arrival.fingerprint, &arrival.policy, self.clock.now());
            if !matches!(admission, Admission::Fresh | Admission::Revive | Admission::TooLate) {
                return self.answer_known(known, admission, &arrival).await;
            }
        }
        let mut slot = self.slots.try_take(lane, arrival.route.slots_max);
        let mut found = None;
        if slot.is_none() && arrival.mode == Mode::Held {
            // A duplicate needs no slot; only who would send waits for one.
            found = self.store.find(Which::Key(digest)).await?;
            if found.is_none() {
                slot = Some(self.wait_for_slot(lane, &arrival).await?);
            }
        }
        let mut replaces: Option<Operation> = None;
        for _ in 0..RACES_MAX {
            if slot.is_none() && arrival.mode == Mode::Held && replaces.is_some() {
                slot = Some(self.wait_for_slot(lane, &arrival).await?);
            }
            let now = self.clock.now();
            let known = if let Some(known) = found.take() {
                known
            } else {
                let start = slot.is_some() && arrival.options.not_before.is_none_or(|at| at <= now);
                let id = self.next_id(now);
                let newborn = birth(&arrival, id, start, replaces.as_ref(), &self.secrets, now);
                let (engine, request) = (Arc::clone(self), Arc::clone(&arrival.request));
                let first = async move {
                    Ok(match engine.store.remember(newborn).await? {
                        Remembered::Fresh(operation) => {
                            engine.observer.observe(Fact::Remembered(&operation));
                            First::Ours(operation, request)
                        }
                        Remembered::Known(known) => First::Known(known),
                    })
                };
                match self.begin(first, slot.take(), arrival.options.timeout).await {
                    Ok(Begun::Ours(operation, told)) => {
                        return self.answer_begun(operation, told, &arrival).await;
                    }
                    Ok(Begun::Known(known, back)) => {
                        slot = back;
                        known
                    }
                    Err((StoreError::Stale, back)) => {
                        (slot, replaces) = (back, None);
                        continue;
                    }
                    Err((error, _)) => return Err(self.heed(error)),
                }
            };
            match admission::admit(&known, &arrival.fingerprint, &arrival.policy, now) {
                Admission::Fresh => replaces = Some(known),
                Admission::Revive => {
                    if arrival.mode == Mode::Held && slot.is_none() {
                        slot = Some(self.wait_for_slot(lane, &arrival).await?);
                    }
                    let (engine, dead, asking) = (Arc::clone(self), known.clone(), arrival.clone());
                    let start = slot.is_some();
                    let first = async move {
                        let revived = engine.revive(&dead, &asking, start, now).await;
                        revived.map(|(operation, request)| First::Ours(operation, request))
                    };
                    match self.begin(first, slot.take(), arrival.options.timeout).await {
                        Ok(Begun::Ours(revived, told)) => {
                            self.note_asked(&known, Repeat::Revived);
                            return self.answer_begun(revived, told, &arrival).await;
                        }
                        Ok(Begun::Known(_, back)) | Err((StoreError::Stale, back)) => slot = back,
                        Err((error, _)) => return Err(self.heed(error)),
                    }
                }
                admission => {
                    drop(slot);
                    return self.answer_known(known, admission, &arrival).await;
                }
            }
        }
        Err(Refusal::Limit {
            what: "too many calls race for this key".to_owned(),
            retry_after: Duration::from_secs(1),
        })
    }

    /// A slot for a held call, which is refused without a record where none becomes free in time.
    async fn wait_for_slot(&self, lane: &Lane, arrival: &Arrival) -> Result<Slot, Refusal> {
        let wait = self.wait_of(arrival);
        let until = self.clock.sleep_until(self.clock.now().plus(wait));
        tokio::select! {
            slot = self.slots.take(lane, arrival.route.slots_max) => slot.ok_or(Refusal::Draining),
            () = until => Err(Refusal::Limit {
                what: format!("{} calls to this upstream are under way", arrival.route.slots_max),
                retry_after: Duration::from_secs(1),
            }),
        }
    }

    /// How long a call waits for somebody else's outcome.
    fn wait_of(&self, arrival: &Arrival) -> Duration {
        let wait = arrival.options.wait.unwrap_or(arrival.policy.held.horizon);
        wait.min(arrival.route.answer_max)
    }

    fn next_id(&self, now: Timestamp) -> OperationId {
        let step = |last| Some(next_sequence(last, now));
        let last = self
            .sequence
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, step)
            .unwrap_or_default();
        OperationId::new(next_sequence(last, now), u64::from_le_bytes(random()))
    }

    /// A dead operation runs again: the remembered bytes, with the caller's credentials of now.
    async fn revive(
        &self,
        known: &Operation,
        arrival: &Arrival,
        start: bool,
        now: Timestamp,
    ) -> Result<(Operation, Arc<Request>), StoreError> {
        let mut request = self.request_of(known).await?;
        let is_secret =
            |name: &str| onceward_core::exchange::is_credential(name, &arrival.policy.seal_headers);
        request.headers.0.retain(|(name, _)| !is_secret(name));
        request
            .headers
            .0
            .extend(arrival.request.headers.0.iter().filter(|(name, _)| is_secret(name)).cloned());
        let revived = known.after(Event::Revived { due: now, mode: arrival.mode, act: None }, now);
        let mut operation = revived.map_err(|_| StoreError::Stale)?;
        if start {
            operation = operation.after(Event::Started, now).map_err(|_| StoreError::Stale)?;
        }
        // Both facts are one write.
        operation.fence = Fence(known.fence.0 + 1);
        let operation =
            self.store.commit(Write { operation, answer: None, visible: false }).await?;
        Ok((operation, Arc::new(request)))
    }

    /// The remembered request of an operation, its credentials opened.
    pub(crate) async fn request_of(&self, operation: &Operation) -> Result<Request, StoreError> {
        let body = operation
            .request
            .ok_or_else(|| StoreError::Damaged("an operation without a request".to_owned()))?;
        wire::decode_request(&self.store.body(body).await?, operation.id, Some(&self.secrets))
    }

    /// Writes, and runs what that started, in a task of its own: a caller that hangs up between
    /// the two leaves nothing behind that nobody runs.
    async fn begin(
        self: &Arc<Self>,
        first: impl Future<Output = Result<First, StoreError>> + Send + 'static,
        slot: Option<Slot>,
        timeout: Option<Duration>,
    ) -> Result<Begun, (StoreError, Option<Slot>)> {
        let (engine, run) = (Arc::clone(self), self.running());
        let (tell_begun, begun) = oneshot::channel();
        tokio::spawn(async move {
            let _run = run;
            // Whoever hung up is told nothing; what was started runs all the same.
            match first.await {
                Ok(First::Ours(operation, request)) => {
                    let (tell, told) = oneshot::channel();
                    let _ = tell_begun.send(Ok(Begun::Ours(operation.clone(), told)));
                    if let (State::Delivering, Some(slot)) = (operation.state, slot) {
                        engine.run(operation, request, slot, timeout, Some(tell)).await;
                    }
                }
                Ok(First::Known(known)) => {
                    let _ = tell_begun.send(Ok(Begun::Known(known, slot)));
                }
                Err(error) => {
                    let _ = tell_begun.send(Err((error, slot)));
                }
            }
        });
        let gone = || StoreError::Unavailable("the call's task is gone".to_owned());
        begun.await.unwrap_or_else(|_| Err((gone(), None)))
    }

    /// Answers the caller whose call is in the ledger, as it asked.
    async fn answer_begun(
        self: &Arc<Self>,
        operation: Operation,
        told: oneshot::Receiver<Result<Ran, Refusal>>,
        arrival: &Arrival,
    ) -> Result<Answer, Refusal> {
        let waits = match operation.mode {
            Mode::Held => Some(arrival.route.answer_max),
            Mode::Accepted => arrival.options.wait.map(|wait| wait.min(arrival.route.answer_max)),
        };
        let Some(wait) = waits else {
            return Ok(Answer::Accepted(Box::new(operation)));
        };
        if operation.state != State::Delivering {
            return self.wait_and_answer(operation, wait).await;
        }
        let id = operation.id;
        tokio::select! {
            ran = told => match ran {
                Ok(Ok(ran)) => self.answer_run(ran).await,
                Ok(Err(refusal)) => Err(refusal),
                Err(_) => Err(Refusal::StillWorking(Box::new(operation))),
            },
            () = self.clock.sleep_until(self.clock.now().plus(wait)) => {
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
        match (response, operation.state) {
            (_, State::Pending { .. }) => Ok(Answer::Accepted(Box::new(operation))),
            // What was cut off never poses as an answer.
            (Some(response), _) if !operation_lost_its_answer(&operation) => {
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

    /// Waits for an operation that somebody else runs, and answers with its outcome.
    async fn wait_and_answer(
        &self,
        operation: Operation,
        wait: Duration,
    ) -> Result<Answer, Refusal> {
        let id = operation.id;
        let until = self.clock.sleep_until(self.clock.now().plus(wait));
        if let Some(woken) = self.waiters.join(id) {
            // It may have come to rest before we began to wait.
            let found = self.store.find(Which::Id(id)).await?;
            if found.as_ref().is_some_and(is_under_way) {
                tokio::select! {
                    _ = woken => {}
                    () = until => {}
                }
            }
        }
        let operation = self.store.find(Which::Id(id)).await?.unwrap_or(operation);
        if is_under_way(&operation) {
            return match operation.mode {
                Mode::Accepted => Ok(Answer::Accepted(Box::new(operation))),
                Mode::Held => Err(Refusal::InProgress(Box::new(operation))),
            };
        }
        self.answer_at_rest(operation, false).await
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
            State::Done | State::Dead(_) if operation.outcome.is_some() => {
                match replay(&*self.store, &operation).await? {
                    Some(response) => from_memory(operation, response),
                    None => Err(Refusal::ResponseNotRetained(Box::new(operation))),
                }
            }
            State::Done => Err(Refusal::ResponseNotRetained(Box::new(operation))),
            State::Dead(Death::Cancelled) => Err(Refusal::Cancelled(Box::new(operation))),
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
    async fn answer_known(
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
        let known_box = || Box::new(known.clone());
        match admission {
            Admission::Mismatch(parts) => self.mismatch(known, parts, arrival).await,
            Admission::Join if arrival.options.respond_async && arrival.options.wait.is_none() => {
                Ok(Answer::Accepted(known_box()))
            }
            Admission::Join => {
                let wait = self.wait_of(arrival);
                match self.wait_and_answer(known, wait).await {
                    Err(Refusal::InProgress(operation)) if arrival.options.respond_async => {
                        Ok(Answer::Accepted(operation))
                    }
                    answer => answer,
                }
            }
            Admission::Replay | Admission::ReplayFailure | Admission::InDoubt => {
                self.answer_at_rest(known, false).await
            }
            Admission::TooLate => {
                let doubted = known.after(Event::Ruled(Verdict::Doubt), self.clock.now());
                let operation = doubted.map_err(|illegal| Refusal::Conflict {
                    operation: known_box(),
                    why: illegal.to_string(),
                })?;
                let operation =
                    self.store.commit(Write { operation, answer: None, visible: true }).await?;
                self.observer.observe(Fact::Rested(&operation));
                Err(Refusal::OutcomeUnknown { operation: Box::new(operation), first: false })
            }
            Admission::Cancelled => Err(Refusal::Cancelled(Box::new(known))),
            Admission::Expired => Err(Refusal::KeyExpired(Box::new(known))),
            Admission::Invalidated => Err(Refusal::KeyInvalidated(Box::new(known))),
            Admission::Fresh | Admission::Revive => Err(Refusal::InProgress(Box::new(known))),
        }
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

    fn note_asked(&self, known: &Operation, repeat: Repeat) {
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
        let run = self.running();
        tokio::spawn(async move {
            let _run = run;
            match engine.request_of(&operation).await {
                Ok(request) => engine.run(operation, Arc::new(request), slot, None, None).await,
                Err(error) => {
                    engine.observer.observe(Fact::Trouble(&format!(
                        "{}: its request cannot be read: {error}",
                        operation.id
                    )));
                }
            }
        });
    }

    fn running(self: &Arc<Self>) -> Run {
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
        timeout: Option<Duration>,
        tell: Option<oneshot::Sender<Result<Ran, Refusal>>>,
    ) {
        let _slot = slot;
        let ran = loop {
            let (settled, delivered) = match self.attempt(&operation, &request, timeout).await {
                Ok(ended) => ended,
                Err(error) => break Err(error),
            };
            operation = settled;
            match operation.state {
                State::Pending { due } if operation.mode == Mode::Held => {
                    self.clock.sleep_until(due).await;
                    match self.start_again(&operation).await {
                        Ok(started) => operation = started,
                        Err(error) => break Err(error),
                    }
                }
                _ => {
                    break Ok(Ran {
                        operation: operation.clone(),
                        response: delivered.response,
                        rest: delivered.rest,
                    });
                }
            }
        };
        if operation.state == State::Done {
            self.recent.add(operation.scope.digest(&operation.key));
        }
        if !is_under_way(&operation) {
            self.observer.observe(Fact::Rested(&operation));
        }
        if let Some(tell) = tell {
            // A caller that hung up is not told; it can ask again.
            let _ = tell.send(ran.map_err(|error| self.heed(error)));
        } else if let Err(error) = ran {
            self.heed(error);
        }
        self.waiters.wake(operation.id);
    }

    async fn start_again(&self, operation: &Operation) -> Result<Operation, StoreError> {
        let started =
            operation.after(Event::Started, self.clock.now()).map_err(|_| StoreError::Stale)?;
        self.commit_when_there_is_room(Write { operation: started, answer: None, visible: false })
            .await
    }

    /// One attempt and its verdict.
    async fn attempt(
        &self,
        operation: &Operation,
        request: &Arc<Request>,
        timeout: Option<Duration>,
    ) -> Result<(Operation, Delivered), StoreError> {
        let route = self.routes().get(&operation.scope.route);
        let delivered = match &route {
            Some(route) => {
                deliver(&*self.upstream, route, operation, Arc::clone(request), timeout).await
            }
            None => route_is_gone(),
        };
        let default = Arc::default();
        let policy = route.as_ref().map_or(&default, |route: &Arc<Route>| {
            route.policy_for(&operation.method, &operation.target)
        });
        let write = settle(operation, policy, &delivered, &self.secrets, self.clock.now())
            .map_err(|_| StoreError::Stale)?;
        let settled = self.commit_when_there_is_room(write).await?;
        if let Some(attempt) = settled.attempts.last() {
            self.observer.observe(Fact::Attempted(&settled, attempt));
        }
        Ok((settled, delivered))
    }

    /// What is known is kept until it is on disk: a full ledger is waited for.
    async fn commit_when_there_is_room(&self, write: Write) -> Result<Operation, StoreError> {
        loop {
            match self.store.commit(write.clone()).await {
                Err(StoreError::Full(_)) => {
                    self.clock.sleep_until(self.clock.now().plus(FULL_RETRY)).await;
                }
                done => return done,
            }
        }
    }

    /// An error that leaves the ledger's state unknown ends the process: no answer, stop, recover.
    pub(crate) fn heed(&self, error: StoreError) -> Refusal {
        if let StoreError::Unavailable(why) | StoreError::Damaged(why) = &error {
            self.observer.observe(Fact::Trouble(&format!("the ledger cannot be used: {why}")));
            self.broken.notify_one();
        }
        Refusal::Ledger(error)
    }

    /// A call without a record: what only reads is tried again where that can help, anything
    /// else only where nothing was sent.
    async fn pass(
        &self,
        lane: &Lane,
        route: &Route,
        request: Arc<Request>,
    ) -> Result<Answer, Refusal> {
        crate::pass::pass(self, &*self.upstream, lane, route, request).await
    }
}

fn route_is_gone() -> Delivered {
    Delivered {
        ending: onceward_core::attempt::Ending::Unsent,
        reached: onceward_core::attempt::Reached::Nothing,
        status: None,
        error: Some("the route is not configured any more".to_owned()),
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
    use onceward_core::attempt::Ending;
    let last = operation.attempts.last().and_then(|attempt| attempt.ended.as_ref());
    last.is_some_and(|ended| ended.ending == Ending::Truncated)
}
