//! Callbacks: whoever named a URL is told when the operation is done, dead or in doubt, by an
//! operation of its own, which is retried and signed as any other delivery is.
//!
//! It is born after the end is on disk. So that a crash between the two loses nothing, a mark is
//! there before the operation is: whoever starts, and every node now and then, looks through the
//! marks for what has ended and was not told. Its key is the operation and the state, so that it
//! is born once, whoever finds it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use onceward_core::exchange::{Headers, Request};
use onceward_core::id::OperationId;
use onceward_core::key::{Key, Scope, ScopeKind};
use onceward_core::operation::{Fence, Operation, State, UpstreamKey};
use onceward_core::policy::{Effects, Policy};
use onceward_core::trace::{Place, TraceContext};
use onceward_core::upstream_key::KeyPlace;
use tokio::sync::Notify;
use url::Url;

use crate::auth::SigningSecret;
use crate::call::Arrival;
use crate::engine::Engine;
use crate::observe::Fact;
use crate::remember::birth;
use crate::route::Route;
use crate::setting;
use crate::store::{StoreError, Way, Which};
use crate::webhook;

/// What the mark of an operation is called that somebody wants to be told of.
const PREFIX: &str = "callback/";

/// Ends that wait to be told at once, at most: what is beyond is found by its mark.
const WAITING_MAX: usize = 10_000;

/// How often the marks are looked through.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// Marks read at once.
const PAGE: usize = 256;

/// A mark without an operation is one whose birth came to nothing, once this has passed.
const BIRTH_MAX: Duration = Duration::from_mins(5);

/// How long a receiver is taken to remember an id: its own code decides that.
const RECEIVER_WINDOW: Duration = Duration::from_hours(24 * 30);

/// How callbacks are made and signed.
#[derive(Clone)]
pub struct Teller {
    /// The secret of the signatures.
    pub secret: Vec<u8>,
    /// An operation as the receiver is told of it.
    pub describe: fn(&Operation) -> Vec<u8>,
}

impl std::fmt::Debug for Teller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Teller(…)")
    }
}

/// What waits to be told.
#[derive(Debug, Default)]
pub(crate) struct Callbacks {
    waiting: Mutex<VecDeque<OperationId>>,
    wake: Notify,
    teller: RwLock<Option<Arc<Teller>>>,
}

impl Callbacks {
    /// An operation has come to rest, or may have.
    pub(crate) fn note(&self, operation: &Operation) {
        if operation.callback.is_none() || state_to_tell(operation).is_none() {
            return;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < WAITING_MAX {
            waiting.push_back(operation.id);
        }
        self.wake.notify_one();
    }

    fn next(&self) -> Option<OperationId> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn teller(&self) -> Option<Arc<Teller>> {
        self.teller.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The state that is told of, where the operation is in one.
fn state_to_tell(operation: &Operation) -> Option<&'static str> {
    match operation.state {
        State::InDoubt | State::Done | State::Dead(_) => Some(operation.state.name()),
        State::Pending { .. } | State::Delivering => None,
    }
}

/// What the marks of an operation begin with.
fn marks_of(id: OperationId) -> String {
    format!("{}/", setting::name_of(PREFIX, id))
}

/// The mark that comes before the write with this fence.
fn mark_of(id: OperationId, fence: Fence) -> String {
    format!("{}{:016x}", marks_of(id), fence.0)
}

/// Tells whoever is to be told, for ever.
pub(crate) async fn tell(engine: Arc<Engine>) {
    let mut look_at = engine.clock.now();
    while !engine.is_halted() {
        let told = async {
            while let Some(id) = engine.callbacks.next() {
                engine.tell_of(id).await?;
            }
            if engine.clock.now() >= look_at {
                look_at = engine.clock.now().plus(LOOK_EVERY);
                engine.look_through_marks().await?;
            }
            Ok(())
        };
        // What was not told of now has its mark still.
        if told.await.is_err_and(|error| !engine.goes_on_after(&error)) {
            return;
        }
        tokio::select! {
            () = engine.callbacks.wake.notified() => {}
            () = engine.clock.sleep_until(look_at) => {}
        }
    }
}

impl Engine {
    /// From now on callbacks are made so; without it none is made, and their marks wait.
    pub fn set_teller(&self, teller: Option<Teller>) {
        let teller = teller.map(Arc::new);
        *self.callbacks.teller.write().unwrap_or_else(PoisonError::into_inner) = teller;
        self.callbacks.wake.notify_one();
    }

    /// Whether anybody can be told of anything.
    pub fn has_teller(&self) -> bool {
        self.callbacks.teller().is_some()
    }

    /// An operation came to rest.
    pub(crate) fn rested(&self, operation: &Operation) {
        self.observer.observe(Fact::Rested(operation));
        self.callbacks.note(operation);
    }

    /// Marks an operation that is going to be open, where somebody wants to be told of its end.
    pub(crate) async fn mark_callback(&self, operation: &Operation) -> Result<(), StoreError> {
        if operation.callback.is_none() || operation.state.is_ended() {
            return Ok(());
        }
        self.store.set(mark_of(operation.id, operation.fence), Some(Bytes::new())).await
    }

    /// Takes an operation's marks away, up to that of the write with this fence: what was marked
    /// since is going to have an end of its own.
    async fn unmark(&self, id: OperationId, up_to: Fence) -> Result<(), StoreError> {
        let last = mark_of(id, up_to);
        loop {
            let page = self.store.settings_from(marks_of(id), None, Way::Up, PAGE).await?;
            let over: Vec<_> = page.into_iter().filter(|(name, _)| *name <= last).collect();
            for (name, _) in &over {
                self.store.set(name.clone(), None).await?;
            }
            if over.len() < PAGE {
                return Ok(());
            }
        }
    }

    /// Tells of everything that has ended and was not told of.
    async fn look_through_marks(&self) -> Result<(), StoreError> {
        let mut from = None;
        loop {
            let page = self.store.settings_from(PREFIX.to_owned(), from, Way::Up, PAGE).await?;
            for (name, _) in &page {
                self.tell_of(setting::id_of(PREFIX, name)?).await?;
            }
            if page.len() < PAGE {
                return Ok(());
            }
            from = page.last().map(|(name, _)| name.clone());
        }
    }

    /// Lets the callback of an operation be born where it has come to rest.
    async fn tell_of(&self, id: OperationId) -> Result<(), StoreError> {
        let now = self.clock.now();
        let Some(operation) = self.store.find(Which::Id(id)).await? else {
            let is_over = id.made_at().plus(BIRTH_MAX) < now;
            return if is_over { self.unmark(id, Fence(u64::MAX)).await } else { Ok(()) };
        };
        let (Some(state), Some(teller)) = (state_to_tell(&operation), self.callbacks.teller())
        else {
            return Ok(());
        };
        if let Some(arrival) = self.callback_of(&operation, state, &teller) {
            let mut newborn = birth(
                &arrival,
                &arrival.request,
                self.next_id(now),
                None,
                None,
                &self.secrets,
                now,
            );
            let intent = newborn.operation.intent_mut();
            intent.parent = Some(id);
            intent.upstream_key = Some(UpstreamKey {
                place: KeyPlace::Header("webhook-id".to_owned()),
                value: intent.key.as_str().to_owned(),
            });
            intent.upstream_window = RECEIVER_WINDOW;
            self.write_birth(Box::new(newborn)).await?;
        }
        // In doubt it waits for another end, which is told of too.
        if operation.state.is_ended() { self.unmark(id, operation.fence).await } else { Ok(()) }
    }

    /// The request that tells of `operation`; nothing where its URL names no route.
    fn callback_of(&self, operation: &Operation, state: &str, teller: &Teller) -> Option<Arrival> {
        let url: Url = operation.callback.as_deref()?.parse().ok()?;
        let name = url.origin().ascii_serialization();
        let route = self.route(&name)?;
        let target = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let json = Bytes::from_static(b"application/json");
        let request = Arc::new(Request {
            method: "POST".to_owned(),
            target,
            headers: Headers(vec![("content-type".to_owned(), json)]),
            body: (teller.describe)(operation).into(),
        });
        let policy = Arc::new(Policy {
            effects: Some(Effects::Keyed),
            seal_bodies: self.seals_bodies(),
            ..Policy::default()
        });
        let scope = Scope {
            kind: ScopeKind::Callback,
            tenant: operation.scope.tenant.clone(),
            name,
            principal: String::new(),
        };
        let key = Key::new(&format!("{}/{state}", operation.id)).ok()?;
        Some(Arrival {
            trace: self.context_of(operation),
            ..Arrival::of_ours(scope, key, request, Effects::Keyed, policy, route, &self.secrets)
        })
    }

    /// What a callback, a delivery or a saga's step comes from: the trace of what it is about goes on.
    pub(crate) fn context_of(&self, operation: &Operation) -> Option<TraceContext> {
        let sampled = self.sampling.get().map(|sampling| sampling.of(operation));
        let of_here = |at: TraceContext| at.with_span(Place::Remember.span(operation.id));
        sampled.map(of_here).or(operation.trace)
    }

    /// What signs a callback now, or a delivery of a route that signs: each attempt has the time at
    /// which it is sent.
    pub(crate) fn signature(
        &self,
        operation: &Operation,
        route: &Route,
        request: &Request,
    ) -> Headers {
        if operation.scope.kind != ScopeKind::Callback {
            let sign =
                |it: &Arc<SigningSecret>| it.sign(operation, &request.body, self.clock.now());
            return route.auth.signing.as_ref().map(sign).unwrap_or_default();
        }
        let Some(teller) = self.callbacks.teller() else {
            return Headers::default();
        };
        let id = operation.key.as_str();
        let seconds = self.clock.now().as_micros().div_euclid(1_000_000);
        let signature = webhook::sign(&teller.secret, id, seconds, &request.body);
        Headers(vec![
            ("webhook-timestamp".to_owned(), seconds.to_string().into()),
            ("webhook-signature".to_owned(), signature.into()),
        ])
    }
}
