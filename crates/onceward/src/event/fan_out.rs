//! Fan-out: the delivery of an event is the birth of its deliveries, in pages. The key of each is the event
//! and the subscription, so whoever goes on after a crash meets those that are there and makes only the
//! others: the keys are its cursor. Where a subscription changes meanwhile, the delivery that is born first
//! is the only one; where it goes, and how, is as the subscription says at each attempt.

use std::sync::Arc;

use bytes::Bytes;
use onceward_core::attempt::Timings;
use onceward_core::event::Event;
use onceward_core::exchange::{Headers, Request, Response};
use onceward_core::key::{Key, Scope, ScopeKind};
use onceward_core::operation::{Operation, UpstreamKey};
use onceward_core::policy::{Effects, Mode};
use onceward_core::upstream_key::KeyPlace;
use serde_json::json;
use tokio::task::JoinSet;

use super::{RECEIVER_WINDOW, form_of};
use crate::call::{Arrival, CallOptions};
use crate::delivered::Delivered;
use crate::engine::Engine;
use crate::gates::{Entrant, Slot};
use crate::refusal::Refusal;
use crate::remember::birth;
use crate::route::Route;
use crate::sabotage::Sabotage;
use crate::store::{Lane, StoreError};
use crate::subscription::Subscribed;

/// Deliveries that are born at once: they share their commits.
const PAGE: usize = 256;

impl Engine {
    /// Fans an event out. What it tells is how that went, as an upstream's answer tells how a call went.
    pub(crate) async fn fan_out(
        self: &Arc<Self>,
        operation: &Operation,
        request: &Request,
    ) -> Result<Delivered, StoreError> {
        let event = match Event::read(form_of(request), request.body.clone()) {
            Ok(event) => Arc::new(event),
            // What was refused when it came is not here: another release could have taken it.
            Err(error) => return Ok(not_fanned_out(&error.to_string(), true)),
        };
        match self.bear_all(operation, &event).await {
            Ok(deliveries) => Ok(fanned_out(deliveries)),
            Err(Refusal::Ledger(error)) if !error.may_pass() && error != StoreError::Stale => {
                Err(error)
            }
            Err(refusal) => Ok(not_fanned_out(&refusal.to_string(), false)),
        }
    }

    async fn bear_all(
        self: &Arc<Self>,
        operation: &Operation,
        event: &Arc<Event>,
    ) -> Result<usize, Refusal> {
        self.know_subscriptions().await?;
        let wants = |known: &&Arc<Subscribed>| {
            let subscription = &known.subscription;
            subscription.tenant == operation.scope.tenant
                && match &operation.via {
                    Some(only) => *only == subscription.route_name(),
                    None => {
                        subscription.wish.is_enabled && subscription.wish.selection.wants(event)
                    }
                }
        };
        let all = self.subscriptions.all();
        let wanted: Vec<_> = all.values().filter(wants).cloned().collect();
        let payload = event.payload(operation.created_at);
        let parent = Arc::new(operation.clone());
        for page in wanted.chunks(PAGE) {
            let mut births = JoinSet::new();
            for known in page {
                let (engine, known) = (Arc::clone(self), Arc::clone(known));
                let (parent, event) = (Arc::clone(&parent), Arc::clone(event));
                let payload = payload.clone();
                births.spawn(async move {
                    engine.bear_delivery(&parent, &event, &payload, &known).await
                });
            }
            if Sabotage::FannedOutEarly.is_on() {
                births.detach_all();
            }
            while let Some(born) = births.join_next().await {
                let lost = |_| StoreError::Away("a birth was cut off".to_owned());
                born.map_err(lost)??;
            }
        }
        Ok(wanted.len())
    }

    /// Lets the delivery of an event to a subscription be born, and begin where its gate lets it by; tells
    /// whether it is new.
    pub(crate) async fn bear_delivery(
        self: &Arc<Self>,
        parent: &Operation,
        event: &Event,
        payload: &Bytes,
        known: &Subscribed,
    ) -> Result<bool, Refusal> {
        // A route that is not configured is not there to be asked: its work waits for it.
        let unrouted = || Arc::new(self.unrouted(known));
        let route = known.route.clone().unwrap_or_else(unrouted);
        let arrival = self.delivery(parent, event, known, &route)?;
        let now = self.clock.now();
        let may_begin = known.route.is_some() && !arrival.is_in_order();
        let slot = if may_begin { self.slot_for(&arrival, &route) } else { None };
        let start = slot.is_some().then_some(self.session);
        let mut newborn =
            birth(&arrival, &arrival.request, self.next_id(now), start, None, &self.secrets, now);
        let intent = newborn.operation.intent_mut();
        intent.parent = Some(parent.id);
        intent.upstream_key = Some(UpstreamKey {
            place: KeyPlace::Header("webhook-id".to_owned()),
            value: parent.id.to_string(),
        });
        intent.upstream_window = RECEIVER_WINDOW;
        let whole = Request { body: payload.clone(), ..(*arrival.request).clone() };
        self.bear(Box::new(newborn), Arc::new(whole), slot).await
    }

    fn slot_for(&self, arrival: &Arrival, route: &Route) -> Option<Slot> {
        let now = self.clock.now();
        if arrival.policy.opening(Mode::Accepted, now) > now || self.is_halted() {
            return None;
        }
        let lane = Lane {
            tenant: arrival.scope.tenant.clone(),
            route: route.name.clone(),
            flow: String::new(),
        };
        let entrant = Entrant { lane: Arc::new(lane), is_harmless: true, is_backlog: true };
        self.try_enter(route, &entrant, now).ok()
    }

    /// The delivery of an event to a subscription, with all but its body.
    fn delivery(
        &self,
        parent: &Operation,
        event: &Event,
        known: &Subscribed,
        route: &Arc<Route>,
    ) -> Result<Arrival, Refusal> {
        let subscription = &known.subscription;
        let media_type = Bytes::from_static(event.form.media_type().as_bytes());
        let request = Arc::new(Request {
            method: "POST".to_owned(),
            // As it is now: each attempt goes where its subscription says then.
            target: subscription.wish.to.target(),
            headers: Headers(vec![("content-type".to_owned(), media_type)]),
            body: Bytes::new(),
        });
        let policy = Arc::clone(&route.policy);
        let mut key = format!("{}/{}", parent.id, subscription.name);
        if Sabotage::DeliveryAnew.is_on() {
            key = format!("{key}/{}", self.next_id(self.clock.now()));
        }
        let key = Key::new(&key);
        let key = key.map_err(Refusal::KeyInvalid)?;
        let scope = Scope {
            kind: ScopeKind::Delivery,
            tenant: parent.scope.tenant.clone(),
            name: route.name.clone(),
            principal: String::new(),
        };
        let until = parent.created_at.plus(self.event_rules().retention);
        let options = CallOptions {
            label: Some(event.kind.as_str().to_owned()),
            subject: event.subject.clone(),
            sequence: event.sequence,
            // No attempt begins once its event may be forgotten, by the rule of then or that of now.
            deadline: Some(parent.deadline.map_or(until, |at| at.min(until))),
            ..CallOptions::default()
        };
        let (route, effects) = (Arc::clone(route), Effects::Keyed);
        Ok(Arrival {
            options,
            trace: self.context_of(parent),
            ..Arrival::of_ours(scope, key, request, effects, policy, route, &self.secrets)
        })
    }

    /// What a delivery is born by whose subscription goes by a route that is not configured.
    fn unrouted(&self, known: &Subscribed) -> Route {
        let like = Arc::clone(&self.routes().ad_hoc);
        Route { name: known.subscription.route_name(), ..(*like).clone() }
    }
}

/// An event went to so many.
fn fanned_out(deliveries: usize) -> Delivered {
    let json = Bytes::from_static(b"application/json");
    let response = Response {
        status: 200,
        headers: Headers(vec![("content-type".to_owned(), json)]),
        body: json!({"deliveries": deliveries}).to_string().into(),
        trailers: Headers::default(),
    };
    Delivered::answered(response, None, None, Timings::default())
}

/// It did not, or not to all.
fn not_fanned_out(why: &str, permanent: bool) -> Delivered {
    Delivered { permanent, ..Delivered::not_sent(why) }
}
