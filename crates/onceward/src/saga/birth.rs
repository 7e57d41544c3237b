//! The operation of a step: made of its saga's definition and of what was taken of earlier answers, or a dead
//! one in its place.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onceward_core::exchange::{self, Headers, Request};
use onceward_core::fingerprint::Fingerprint;
use onceward_core::key::{Key, Scope};
use onceward_core::operation::{Act, Deed, Event, Intent, Operation};
use onceward_core::policy::{Effects, Mode, Policy};
use onceward_core::saga::{Ask, Place};
use onceward_core::time::Timestamp;

use super::{Kept, key_of, scope_of};
use crate::call::{Arrival, CallOptions};
use crate::engine::Engine;
use crate::mail::Mail;
use crate::receive;
use crate::remember::birth;
use crate::route::Route;
use crate::store::{Birth, Remembered, StoreError};
use crate::suspects::Watch;
use crate::wire::{self, Sealing};

/// How long the operation of a step is kept at least: its saga may be away for a while when it ends.
pub(super) const STEP_WINDOW: Duration = Duration::from_hours(24 * 30);

/// Who acts where it is no person.
pub(super) const WHO: &str = "saga";

/// A step that can be made now.
pub(super) struct Made {
    key: Key,
    ask: Ask,
    request: Arc<Request>,
    mail: Option<Box<Mail>>,
    route: Arc<Route>,
    policy: Arc<Policy>,
    effects: Effects,
    /// Whether it is a compensation.
    undo: bool,
}

/// Why a step cannot be made.
pub(super) enum Unmade {
    /// It never can: why, in words for a person.
    Never(String),
    /// Its route, which is named, is not configured now: it waits until it is.
    NoRoute(String),
    /// Not now: the process ends.
    Ending,
}

fn ask_at(kept: &Kept, place: Place) -> Option<(&str, &Ask)> {
    let step = kept.definition.steps.get(place.step)?;
    let ask = if place.undo { step.undo.as_ref()? } else { &step.ask };
    Some((&step.name, ask))
}

impl Engine {
    /// What the step at `place` asks, where it can be made.
    pub(super) async fn make_step(
        &self,
        saga: &Operation,
        kept: &Kept,
        place: Place,
    ) -> Result<Made, Unmade> {
        let never = |why: &str| Unmade::Never(why.to_owned());
        let (name, ask) = ask_at(kept, place).ok_or_else(|| never("there is no such step"))?;
        let route = self.find_route_for(&saga.scope.tenant, &ask.route);
        let route = route.map_err(|_| Unmade::NoRoute(ask.route.clone()))?;
        let filled = ask.fill(|variable| kept.value(saga, variable), route.body_bytes_max);
        let mut request = filled.map_err(|why| Unmade::Never(why.to_string()))?;
        if request.body.len() > route.body_bytes_max {
            return Err(never("its body is larger than its route takes"));
        }
        let policy = Arc::clone(route.policy_for(&request.method, &request.target));
        request.headers = exchange::forwarded(request.headers);
        let request = Arc::new(request);
        let mail = if route.target.mail.is_some() {
            let (request, policy) = (Arc::clone(&request), Arc::clone(&policy));
            let (bytes, bytes_max) = (request.body.len(), route.body_bytes_max);
            let read = move || Mail::read(&request, bytes_max, &policy.fingerprint);
            let read = self.renderer.render(bytes, read).await.ok_or(Unmade::Ending)?;
            Some(Box::new(read.map_err(|why| Unmade::Never(why.to_string()))?))
        } else {
            None
        };
        let effects = policy.effects_of(&request.method);
        if effects == Effects::Keyed && policy.upstream_key.place.own(&request).is_err() {
            return Err(never("its upstream takes its key in a place that it has not"));
        }
        let key = key_of(saga.id, name, place.undo).ok_or_else(|| never("it has no key"))?;
        let undo = place.undo;
        Ok(Made { key, ask: ask.clone(), request, mail, route, policy, effects, undo })
    }

    /// Remembers the operation of a step: accepted, and due at once. As with any call, its route may call
    /// another one the same effect; that one is returned then. A compensation is nobody's twin and no suspect: it says
    /// what its step said, and is to be sent for that.
    pub(super) async fn bear_step(
        &self,
        saga: &Operation,
        made: Made,
        now: Timestamp,
    ) -> Result<Remembered, StoreError> {
        let undo = made.undo;
        let (newborn, arrival) = self.birth_of_step(saga, made, now);
        let Scope { tenant, principal, .. } = saga.scope.clone();
        let as_call = receive::scope_of(&arrival.route, None, tenant, principal);
        let identity = if undo { None } else { self.identity_within(&as_call, &arrival) };
        let watch = if undo { None } else { Watch::within(&as_call, &arrival, now) };
        self.write_watched(Box::new(newborn), identity, watch).await
    }

    fn birth_of_step(&self, saga: &Operation, made: Made, now: Timestamp) -> (Birth, Arrival) {
        let Made { key, ask, request, mail, route, policy, effects, .. } = made;
        let scope = scope_of(saga);
        // Less than its route allows, and never more.
        let bounds = policy.backoff(Mode::Accepted);
        let arrival = Arrival {
            mail,
            options: CallOptions {
                attempts_max: ask.attempts_max.map(|max| max.min(bounds.attempts_max)),
                deadline: ask.within.map(|span| now.plus(span.min(bounds.horizon))),
                not_before: Some(now),
                label: saga.label.clone(),
                ..CallOptions::default()
            },
            trace: self.context_of(saga),
            ..Arrival::of_ours(scope, key, request, effects, policy, route, &self.secrets)
        };
        let id = self.next_id(now);
        let request = arrival.remembered(id, now);
        let mut newborn = birth(&arrival, &request, id, None, None, &self.secrets, now);
        let own_window = newborn.operation.window;
        newborn.operation.window = own_window.max(STEP_WINDOW);
        let intent = newborn.operation.intent_mut();
        intent.parent = Some(saga.id);
        // What it asked and was answered is kept no longer for that.
        intent.retain = Some(intent.retain.unwrap_or(own_window));
        (newborn, arrival)
    }

    /// A dead one in the place of a step that is not to be: nothing of it was sent, and nobody begins it.
    pub(super) fn birth_of_dead_step(
        &self,
        saga: &Operation,
        kept: &Kept,
        place: Place,
        why: String,
        now: Timestamp,
    ) -> Option<Birth> {
        let (name, ask) = ask_at(kept, place)?;
        let request = Request {
            method: String::new(),
            target: "/".to_owned(),
            headers: Headers::default(),
            body: Bytes::new(),
        };
        let fingerprint =
            Fingerprint::of(&request, &Policy::default().fingerprint, self.secrets.fingerprint());
        let key = key_of(saga.id, name, place.undo)?;
        let intent = Intent {
            route: ask.route.clone(),
            target: request.target.clone(),
            tombstone: Policy::default().tombstone,
            parent: Some(saga.id),
            ..Intent::new(self.next_id(now), scope_of(saga), key, fingerprint, now)
        };
        let pending = Operation {
            mode: Mode::Accepted,
            window: STEP_WINDOW,
            label: saga.label.clone(),
            ..Operation::new(intent)
        };
        let act = Act { deed: Deed::Cancelled, at: now, who: WHO.to_owned(), reason: why };
        let operation = pending.after(Event::Acted(act, None, None), now).ok()?;
        let sealing = Sealing::plain(self.seals_bodies());
        let request = wire::encode_request(&request, operation.id, &self.secrets, sealing);
        Some(Birth { operation, request, replaces: None })
    }
}
