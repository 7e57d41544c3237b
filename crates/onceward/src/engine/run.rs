//! An operation that is under way: attempt after attempt, each with its verdict on disk before the next.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use onceward_core::exchange::{Headers, Request, Response};
use onceward_core::id::OperationId;
use onceward_core::key::{KeyDigest, ScopeKind};
use onceward_core::lease::BEAT;
use onceward_core::operation::{Event, Operation, State};
use onceward_core::policy::{Mode, Policy};
use onceward_core::trace::TRACEPARENT;
use onceward_core::verdict;

use super::{Engine, RACES_MAX, is_under_way};
use crate::call::Means;
use crate::deliver::deliver;
use crate::delivered::Delivered;
use crate::detached::Detached;
use crate::doubt::Before;
use crate::gates::Slot;
use crate::judgement;
use crate::observe::Fact;
use crate::refusal::Refusal;
use crate::route::Route;
use crate::sabotage::{self, Sabotage};
use crate::settle::settle;
use crate::store::{Birth, Remembered, StoreError, Write};
use crate::upstream::AnswerBody;

/// What a write brought that may begin a run.
pub(super) enum Written {
    /// It is in the ledger.
    Fresh(Fresh),
    /// The key was there before; the slot was not needed.
    Known(Box<Operation>, Option<Slot>),
    /// Somebody else wrote meanwhile.
    Stale(Option<Slot>),
}

/// An operation that was made or revived.
pub(super) enum Fresh {
    /// Its first attempt is under way.
    Started {
        id: OperationId,
        /// It goes on by itself where nobody waits for it.
        run: Detached<Result<Ran, Refusal>>,
        /// What a caller gets who does not wait for its end; nothing where it is held.
        receipt: Option<Box<Operation>>,
    },
    /// It waits in the ledger.
    Waits(Box<Operation>),
}

/// How a run of attempts ended.
pub(super) struct Ran {
    pub(super) operation: Box<Operation>,
    pub(super) response: Option<Response>,
    pub(super) rest: Option<Box<dyn AnswerBody>>,
    /// Whether its end was written here: whoever was faster has told of theirs.
    is_ours: bool,
}

/// What became of starting another attempt.
enum Again {
    /// It may be made.
    Started,
    /// Time ran out while the operation waited.
    Over,
    /// Somebody else had written meanwhile.
    Overtaken,
}

impl Engine {
    /// Writes, and runs what was started by it: a caller that hangs up, now or later, leaves no
    /// started attempt behind that nobody makes.
    pub(super) fn write_and_run(
        self: &Arc<Self>,
        write: impl Future<Output = Result<Remembered, StoreError>> + Send + 'static,
        key: KeyDigest,
        request: Arc<Request>,
        slot: Option<Slot>,
        means: Means,
    ) -> Detached<Result<Written, Refusal>> {
        let engine = Arc::clone(self);
        let run = self.begin();
        Detached::begin(Box::pin(async move {
            match write.await {
                Ok(Remembered::Fresh(operation)) => {
                    let operation = Box::new(operation);
                    let slot = slot.filter(|_| operation.state == State::Delivering);
                    let Some(slot) = slot else {
                        return Ok(Written::Fresh(Fresh::Waits(operation)));
                    };
                    let id = operation.id;
                    let receipt = (operation.mode == Mode::Accepted).then(|| operation.clone());
                    let run = Detached::begin(Box::pin(async move {
                        let _run = run;
                        engine.run(operation, key, request, slot, means).await
                    }));
                    Ok(Written::Fresh(Fresh::Started { id, run, receipt }))
                }
                Ok(Remembered::Known(known)) => Ok(Written::Known(Box::new(known), slot)),
                Err(StoreError::Stale) => Ok(Written::Stale(slot)),
                Err(error) => Err(engine.heed(error)),
            }
        }))
    }

    /// Writes a birth of the engine's own, and runs what was started by it; tells whether it is new.
    pub(crate) async fn bear(
        self: &Arc<Self>,
        newborn: Box<Birth>,
        request: Arc<Request>,
        slot: Option<Slot>,
    ) -> Result<bool, Refusal> {
        let operation = &newborn.operation;
        let key = operation.scope.digest(&operation.key);
        let write = Arc::clone(self).write_one(newborn, None, None);
        match self.write_and_run(write, key, request, slot, Means::default()).await? {
            // It goes on by itself.
            Written::Fresh(_) => Ok(true),
            Written::Known(..) | Written::Stale(_) => Ok(false),
        }
    }

    /// Runs a started operation to its rest, or to the point where it waits in the ledger.
    pub(crate) fn spawn_from_ledger(self: &Arc<Self>, operation: Operation, slot: Slot) {
        let engine = Arc::clone(self);
        let operation = Box::new(operation);
        self.go_on_with(async move {
            match engine.request_when_back(&operation).await {
                Ok(request) => {
                    let key = operation.scope.digest(&operation.key);
                    let (request, means) = (Arc::new(request), Means::default());
                    // Its end is in the ledger, and what went wrong was told of.
                    let _ = engine.run(operation, key, request, slot, means).await;
                }
                // It is in other hands.
                Err(StoreError::Stale) => engine.waiters.wake(operation.id),
                Err(error) => Box::pin(engine.bury_unreadable(&operation, &error)).await,
            }
        });
    }

    /// Attempt after attempt, until the operation rests, or waits for longer than a caller does; and
    /// whoever wants to know is told.
    async fn run(
        self: &Arc<Self>,
        operation: Box<Operation>,
        key: KeyDigest,
        request: Arc<Request>,
        slot: Slot,
        means: Means,
    ) -> Result<Ran, Refusal> {
        let id = operation.id;
        let ran = self.attempt_until_rest(operation, &request, slot, &means).await;
        let ran = ran.map_err(|error| self.heed(error));
        if let Ok(Ran { operation, is_ours, .. }) = &ran {
            if operation.state == State::Done {
                self.recent.add(key);
            }
            if *is_ours && !is_under_way(operation) {
                self.rested(operation);
                self.spawn_advance(operation);
            }
        }
        self.waiters.wake(id);
        ran
    }

    async fn attempt_until_rest(
        self: &Arc<Self>,
        mut operation: Box<Operation>,
        request: &Arc<Request>,
        mut slot: Slot,
        means: &Means,
    ) -> Result<Ran, StoreError> {
        loop {
            let Some(delivered) = self.attempt(&mut operation, request, &mut slot, means).await?
            else {
                return Ok(Ran { operation, response: None, rest: None, is_ours: false });
            };
            let again = match operation.state {
                State::Pending { due } if operation.mode == Mode::Held => {
                    self.clock.sleep_until(due).await;
                    Box::pin(self.start_again(&mut operation, &mut slot)).await?
                }
                _ => Again::Over,
            };
            let Delivered { response, rest, .. } = delivered;
            match again {
                Again::Started => {}
                Again::Over => return Ok(Ran { operation, response, rest, is_ours: true }),
                Again::Overtaken => {
                    return Ok(Ran { operation, response: None, rest: None, is_ours: false });
                }
            }
        }
    }

    /// Starts the next attempt, where one may start still.
    async fn start_again(
        &self,
        operation: &mut Operation,
        slot: &mut Slot,
    ) -> Result<Again, StoreError> {
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
            *operation = Operation { fence: operation.fence, ..next };
            return Ok(Again::Started);
        }
        let write = || Write { operation: next.clone(), answer: None, visible: false };
        match self.commit_when_there_is_room(write(), || Ok(write())).await {
            Err(StoreError::Stale) => {
                *operation = self.find_overtaken(operation.id).await?;
                Ok(Again::Overtaken)
            }
            done => {
                *operation = done?;
                let is_started = operation.state == State::Delivering;
                Ok(if is_started { Again::Started } else { Again::Over })
            }
        }
    }

    /// One attempt and its verdict: the operation is as it is after it. Nothing where somebody else had
    /// written meanwhile, and its end says nothing that is not known.
    async fn attempt(
        self: &Arc<Self>,
        operation: &mut Operation,
        request: &Arc<Request>,
        slot: &mut Slot,
        means: &Means,
    ) -> Result<Option<Delivered>, StoreError> {
        let (route, policy) = self.route_of(operation);
        let looked = match &route {
            Some(route) if policy.lookup.is_some() => {
                Box::pin(self.look_before(operation, route, &policy, slot)).await
            }
            _ => None,
        };
        let delivered = match (&route, looked) {
            (_, Some(Before::Found(write))) => {
                return Box::pin(self.settle_unsent(operation, *write)).await;
            }
            (Some(_), Some(Before::Unknown(why))) => {
                let why = format!("not sent, because nobody knows whether it was done: {why}");
                Delivered { permanent: false, ..Delivered::not_sent(&why) }
            }
            (route, _) => {
                let route = route.as_ref();
                self.deliver(operation, request, route, &policy, slot, means).await?
            }
        };
        let now = self.clock.now();
        // A retry for a caller who waits is paid for by all who call; what is not made costs nothing.
        let gate = slot.gate().filter(|_| operation.mode == Mode::Held);
        let may_retry = gate.is_none_or(|gate| gate.withdraw(now));
        let settle = || settle(operation, &policy, &delivered, may_retry, &self.secrets, now);
        let write = settle().map_err(|_| StoreError::Stale)?;
        if let Some(gate) = gate.filter(|_| may_retry)
            && !matches!(write.operation.state, State::Pending { .. })
        {
            gate.refund();
        }
        if Sabotage::AnswerBeforeSettle.is_on() {
            *operation = sabotage::commit_later(&self.store, write);
            return Ok(Some(delivered));
        }
        let settled = self.commit_when_there_is_room(write, settle).await;
        if matches!(settled, Err(StoreError::Stale)) {
            return Box::pin(self.settle_late(operation, delivered)).await;
        }
        *operation = settled?;
        if !delivered.is_put_off {
            self.observe_attempt(operation, &delivered);
        }
        Ok(Some(delivered))
    }

    /// The end of an attempt, where somebody else wrote while it was made.
    async fn settle_late(
        &self,
        operation: &mut Operation,
        delivered: Delivered,
    ) -> Result<Option<Delivered>, StoreError> {
        if let Some(settled) = self.add_evidence(operation, &delivered).await? {
            *operation = settled;
            self.observe_attempt(operation, &delivered);
            return Ok(Some(delivered));
        }
        *operation = self.find_overtaken(operation.id).await?;
        Ok(None)
    }

    fn observe_attempt(&self, operation: &Operation, delivered: &Delivered) {
        if let Some(attempt) = operation.attempts.last() {
            self.observer.observe(Fact::Attempted(operation, attempt));
            // What was refused here, or came too late, says nothing of whom it was for.
            if !delivered.says_nothing() {
                self.hear_receiver(operation);
            }
        }
    }

    /// Tells the upstream of the span that the attempt under way is.
    fn tell_span(&self, operation: &Operation, said: &mut Headers) {
        if let Some(sampling) = self.sampling.get() {
            let span = sampling.of_attempt(operation, operation.attempts_made());
            said.set(TRACEPARENT, Bytes::copy_from_slice(&span.text()));
        }
    }

    /// Sends what an attempt was begun for, where it may be sent still.
    async fn deliver(
        self: &Arc<Self>,
        operation: &Operation,
        request: &Arc<Request>,
        route: Option<&Arc<Route>>,
        policy: &Policy,
        slot: &mut Slot,
        means: &Means,
    ) -> Result<Delivered, StoreError> {
        Ok(match route {
            _ if is_past_its_deadline(operation) => {
                Delivered::not_sent("the caller's deadline had passed before it could be sent")
            }
            _ if operation.scope.kind == ScopeKind::Callback && !self.has_teller() => {
                Delivered::not_sent("callbacks.secret is not configured any more")
            }
            _ if self.has_lost(operation).await? => {
                Delivered::not_sent("this node was taken for gone before it could be sent")
            }
            Some(_) if operation.scope.kind == ScopeKind::Event => {
                slot.spend();
                Box::pin(self.fan_out(operation, request)).await?
            }
            Some(_) if operation.scope.kind == ScopeKind::Delivery => {
                let Some(addressed) = self.address_delivery(operation, request) else {
                    return Ok(Delivered::not_sent(
                        "its subscription ended before it could be sent",
                    ));
                };
                let (route, request, mut said) = addressed;
                if route.through.as_deref() != slot.beyond_of() {
                    let why = "its subscription leads elsewhere since it was taken";
                    return Ok(Delivered { is_put_off: true, ..Delivered::not_sent(why) });
                }
                slot.spend();
                self.tell_span(operation, &mut said);
                let upstream = &*self.upstream;
                let delivered =
                    deliver(upstream, &route, operation, request, means.timeout, said).await;
                self.learn_from(&route, policy, slot, &delivered);
                delivered
            }
            Some(route) => {
                slot.spend();
                let request = Arc::clone(request);
                let mut said = self.signature(operation, route, &request);
                self.tell_span(operation, &mut said);
                let upstream = means.handler.as_ref().map_or(&self.upstream, |own| &own.0);
                let delivered =
                    deliver(&**upstream, route, operation, request, means.timeout, said).await;
                // A handler of this process is nothing that has to be spared.
                if means.handler.is_none() {
                    self.learn_from(route, policy, slot, &delivered);
                }
                delivered
            }
            None => Delivered::not_sent("the route is not configured any more"),
        })
    }

    /// The end of an attempt that was not sent, because what it is for was done already.
    async fn settle_unsent(
        &self,
        operation: &mut Operation,
        write: Write,
    ) -> Result<Option<Delivered>, StoreError> {
        match self.commit_when_there_is_room(write.clone(), || Ok(write.clone())).await {
            Err(StoreError::Stale) => {
                *operation = self.find_overtaken(operation.id).await?;
                Ok(None)
            }
            done => {
                *operation = done?;
                let found = Delivered::not_sent("it was found");
                self.observe_attempt(operation, &found);
                Ok(Some(found))
            }
        }
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
        let found = Box::pin(self.find_when_back(operation.id)).await?;
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
            let now = self.clock.now();
            let settle = || settle(&found, &policy, delivered, true, &self.secrets, now);
            let write = settle().map_err(|_| StoreError::Stale)?;
            match self.commit_when_there_is_room(write, settle).await {
                Err(StoreError::Stale) => {}
                done => return done.map(Some),
            }
        }
        Ok(None)
    }

    /// An operation whose request cannot be read is a dead letter, which says so.
    async fn bury_unreadable(&self, operation: &Operation, error: &StoreError) {
        let why = format!("its request cannot be read: {error}");
        self.observer.observe(Fact::Trouble(&format!("{}: {why}", operation.id)));
        let (_, policy) = self.route_of(operation);
        let not_sent = Delivered::not_sent(&why);
        let now = self.clock.now();
        let settle = || settle(operation, &policy, &not_sent, true, &self.secrets, now);
        let Ok(write) = settle() else { return };
        match self.commit_when_there_is_room(write, settle).await {
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

    /// The route of this moment and its policy for `operation`; a route that is gone has the
    /// default one.
    pub(crate) fn route_of(&self, operation: &Operation) -> (Option<Arc<Route>>, Arc<Policy>) {
        let route = self.route(&operation.route);
        let policy = route.as_ref().map_or_else(Arc::default, |route| {
            Arc::clone(route.policy_for(&operation.method, &operation.target))
        });
        (route, policy)
    }
}

/// Whether the attempt under way began after the caller's own bound.
fn is_past_its_deadline(operation: &Operation) -> bool {
    let started_at = operation.attempts.last().map(|attempt| attempt.started_at);
    operation.deadline.is_some_and(|deadline| started_at.is_some_and(|at| at > deadline))
}
