//! The subscriptions as this node knows them, each with the route that is made of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use onceward_core::event;
use onceward_core::policy::{Effects, Meaning, Mode, Policy, UpstreamKeyRule};
use onceward_core::redact::Redaction;
use onceward_core::upstream_key::KeyPlace;
use tokio::sync::Notify;

use super::health::{Failing, Hearsay};
use super::{Destination, EventRules, PREFIX, Subscription, name_of_route, row};
use crate::engine::Engine;
use crate::event::{EVENT_ROUTE, RECEIVER_WINDOW};
use crate::route::{Protection, Route, Routes};
use crate::store::StoreError;
use crate::upstream::{Target, Timeouts};

/// What the setting of the revision is called.
pub(super) const REVISION: &str = "subscriptions";

/// A subscription, and the route that is made of it.
#[derive(Debug)]
pub(crate) struct Subscribed {
    pub(crate) subscription: Subscription,
    /// Nothing where its route is not configured: what waits for it waits until it is.
    pub(crate) route: Option<Arc<Route>>,
    /// As it is kept.
    row: Bytes,
}

/// What this node knows.
#[derive(Debug, Default)]
struct Known {
    /// Whether it was read at all.
    is_read: bool,
    revision: Option<Bytes>,
    by_route: Arc<BTreeMap<String, Arc<Subscribed>>>,
}

/// The subscriptions, and what was heard of their receivers.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    known: ArcSwap<Known>,
    rules: ArcSwap<EventRules>,
    /// Where events go themselves: nowhere, for they are fanned out here.
    of_events: ArcSwap<Route>,
    /// Whoever makes anew what is known.
    changing: Mutex<()>,
    /// Whoever reads the rows: who read first must not be believed last.
    reading: tokio::sync::Mutex<()>,
    /// The receivers that fail, by the name of their subscription.
    pub(super) failing: ArcSwap<BTreeMap<String, Failing>>,
    /// Whoever reads or writes of them: who read first must not be believed last.
    pub(super) writing_failing: tokio::sync::Mutex<()>,
    /// What is to be looked after, by route.
    pub(super) heard: Mutex<Hearsay>,
    pub(super) wake: Notify,
}

impl Default for Subscriptions {
    fn default() -> Self {
        let rules = EventRules::default();
        Self {
            known: ArcSwap::default(),
            of_events: ArcSwap::from_pointee(of_events(rules, false, Redaction::default())),
            rules: ArcSwap::from_pointee(rules),
            changing: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
            failing: ArcSwap::default(),
            writing_failing: tokio::sync::Mutex::default(),
            heard: Mutex::default(),
            wake: Notify::new(),
        }
    }
}

/// The route of events: as any other it has slots and a lane for each tenant.
fn of_events(rules: EventRules, seals: bool, redact: Redaction) -> Route {
    let mut base = url::Url::parse("http://events.invalid/");
    let base = base.as_mut().map_or_else(|_| std::process::abort(), |base| base.clone());
    let delays = [1, 5, 30, 60, 300].map(std::time::Duration::from_secs).into();
    let accepted = event::backoff(delays, rules.retention);
    let policy = Policy {
        effects: Some(Effects::Idempotent),
        mode: Mode::Accepted,
        // Only a ledger that is full or away keeps an event from being fanned out.
        accepted: onceward_core::policy::Backoff { attempts_max: 1000, ..accepted },
        window: rules.retention,
        seal_bodies: seals,
        redact,
        ..Policy::default()
    };
    let protection = Protection { breaker: None, budget: None, ..Protection::default() };
    let target = Target::of_operator(base, Timeouts::default());
    Route { protection, ..Route::new(EVENT_ROUTE, target, policy) }
}

impl Subscriptions {
    pub(crate) fn rules(&self) -> EventRules {
        **self.rules.load()
    }

    /// Every subscription, by the name of its route.
    pub(crate) fn all(&self) -> Arc<BTreeMap<String, Arc<Subscribed>>> {
        Arc::clone(&self.known.load().by_route)
    }

    /// The subscription whose route is called so.
    pub(crate) fn of_route(&self, route: &str) -> Option<Arc<Subscribed>> {
        self.known.load().by_route.get(route).cloned()
    }

    /// The route that is made of a subscription, or the events' own.
    pub(crate) fn route(&self, name: &str) -> Option<Arc<Route>> {
        if name == EVENT_ROUTE {
            return Some(self.of_events.load_full());
        }
        self.of_route(name)?.route.clone()
    }

    /// What is known is `rows` from now on.
    fn learn(
        &self,
        revision: Option<Bytes>,
        rows: Vec<(String, Bytes)>,
        engine: &Engine,
    ) -> Result<(), StoreError> {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, routes, rules) = (self.all(), engine.routes(), self.rules());
        let mut by_route = BTreeMap::new();
        for (name, row) in rows {
            let unchanged = before.get(&name).filter(|known| known.row == row);
            let subscribed = if let Some(known) = unchanged {
                Arc::clone(known)
            } else {
                let read = row::decode(&name, &row, &engine.secrets)?;
                let Some(subscription) = read else { continue };
                let route = route_of(&subscription, &routes, rules).map(Arc::new);
                Arc::new(Subscribed { subscription, route, row })
            };
            by_route.insert(name, subscribed);
        }
        self.known.store(Arc::new(Known { is_read: true, revision, by_route: Arc::new(by_route) }));
        Ok(())
    }

    /// The routes or the rules have changed: what is made of them is made anew.
    pub(crate) fn refit(&self, routes: &Routes, seals: bool) {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let rules = self.rules();
        // What is hidden of all is hidden of events, as of whatever has no route of its own.
        let redact = routes.ad_hoc.policy.redact.clone();
        self.of_events.store(Arc::new(of_events(rules, seals, redact)));
        let known = self.known.load();
        let again = |(name, known): (&String, &Arc<Subscribed>)| {
            let subscription = known.subscription.clone();
            let route = route_of(&subscription, routes, rules).map(Arc::new);
            (name.clone(), Arc::new(Subscribed { subscription, route, row: known.row.clone() }))
        };
        let by_route = Arc::new(known.by_route.iter().map(again).collect());
        let (is_read, revision) = (known.is_read, known.revision.clone());
        self.known.store(Arc::new(Known { is_read, revision, by_route }));
    }
}

/// The route that is made of a subscription; nothing where the one that it goes by is not there for it.
fn route_of(subscription: &Subscription, routes: &Routes, rules: EventRules) -> Option<Route> {
    let Subscription { wish, tenant, .. } = subscription;
    let through = match &wish.to {
        Destination::Url(_) => None,
        Destination::Route { name, .. } => Some(name.clone()),
    };
    let like = match &wish.to {
        Destination::Url(url) => {
            let mut base = url.clone();
            base.set_path("");
            base.set_query(None);
            let target = Target { base, ..(*routes.ad_hoc.target).clone() };
            Route { target: Arc::new(target), ..(*routes.ad_hoc).clone() }
        }
        Destination::Route { name, .. } => {
            // A delivery is no mail.
            let takes = |it: &Route| it.is_for(tenant) && it.target.mail.is_none();
            (**routes.named.get(name).filter(|route| takes(route))?).clone()
        }
    };
    // Every answer but 2xx is a failure, which is tried again; 410 wants nothing any more (Standard
    // Webhooks 1.0, "Handling failures").
    let refusals = [501, 505, 506, 508, 510, 511];
    let again = (300..500).filter(|status| *status != 410).chain(refusals);
    let policy = Policy {
        effects: Some(Effects::Keyed),
        mode: Mode::Accepted,
        upstream_key: UpstreamKeyRule {
            place: KeyPlace::Header("webhook-id".to_owned()),
            window: RECEIVER_WINDOW,
            ..UpstreamKeyRule::default()
        },
        statuses: again.map(|status| (status, Meaning::NotProcessed)).collect(),
        // However long it is paused, what waits is tried as often as its table says.
        accepted: event::backoff(wish.delays.clone(), rules.retention),
        window: rules.retention,
        unique: None,
        lookup: None,
        retain_bodies: None,
        callback: None,
        success: Vec::new(),
        ..(*like.policy).clone()
    };
    // What the operator lays on is laid on last: it may be what the upstream trusts.
    let mut set_headers = wish.headers.clone();
    for (name, value) in &like.set_headers.0 {
        set_headers.set(name, value.clone());
    }
    Some(Route {
        name: subscription.route_name(),
        scope: None,
        through,
        tenants: Some(vec![tenant.clone()]),
        policy: Arc::new(policy),
        rules: Vec::new(),
        set_headers,
        reconcile: None,
        ..like
    })
}

impl Engine {
    /// Sets what holds for events and subscriptions.
    pub fn set_event_rules(&self, rules: EventRules) {
        self.subscriptions.rules.store(Arc::new(rules));
        self.subscriptions.refit(&self.routes(), self.seals_bodies());
    }

    /// What holds for events and subscriptions.
    pub fn event_rules(&self) -> EventRules {
        self.subscriptions.rules()
    }

    /// Knows the subscriptions as they are in the ledger now, whichever node wrote them.
    pub(crate) async fn know_subscriptions(&self) -> Result<(), StoreError> {
        let known = self.subscriptions.known.load_full();
        if known.is_read && !self.store.is_shared() {
            return Ok(());
        }
        let revision = self.store.setting(REVISION.to_owned()).await?;
        if known.is_read && known.revision == revision {
            return Ok(());
        }
        // Read behind the revision, so that it is never older than that says.
        self.read_subscriptions(revision).await
    }

    pub(super) async fn read_subscriptions(
        &self,
        revision: Option<Bytes>,
    ) -> Result<(), StoreError> {
        {
            let _alone = self.subscriptions.reading.lock().await;
            let rows = self.store.settings(PREFIX.to_owned()).await?;
            self.subscriptions.learn(revision, rows, self)?;
        }
        self.gates.fit(|name| self.route(name).map(|route| route.protection.clone()));
        // What waited for its route may be due.
        self.store.changed().notify_one();
        Ok(())
    }

    /// What people call a route, as far as this node knows: one of a subscription by its description, or
    /// by where that goes; any other by its name.
    pub fn called(&self, route: &str) -> String {
        let Some(known) = self.subscriptions.of_route(route) else { return route.to_owned() };
        let wish = &known.subscription.wish;
        match &wish.to {
            _ if !wish.description.is_empty() => wish.description.clone(),
            Destination::Url(url) => url.host_str().unwrap_or(route).to_owned(),
            Destination::Route { name, target } => format!("{name}{target}"),
        }
    }

    /// Every subscription, the oldest first.
    pub async fn subscriptions(&self) -> Result<Vec<Subscription>, StoreError> {
        self.know_subscriptions().await?;
        let all = self.subscriptions.all();
        Ok(all.values().map(|known| self.as_it_does(known.subscription.clone())).collect())
    }

    /// The subscription of this name.
    pub async fn subscription(&self, name: &str) -> Result<Option<Subscription>, StoreError> {
        self.know_subscriptions().await?;
        let found = self.subscriptions.of_route(&super::route_name(name));
        Ok(found.map(|known| self.as_it_does(known.subscription.clone())))
    }
}

/// Whether a route is one that a subscription or the events have.
pub(crate) fn is_of_events(route: &str) -> bool {
    route == EVENT_ROUTE || name_of_route(route).is_some()
}
