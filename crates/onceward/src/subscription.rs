//! Subscriptions: who wants which events, and where. Each is a row of the ledger, its secrets and headers
//! sealed, and a route of its own, so that its gate, its lane and its dead letters are as any route's: a
//! slow receiver delays nobody else.
//!
//! The rows have a revision, which grows with each change. A node that shares its ledger looks at it before
//! it fans an event out, so that what was acknowledged anywhere before the event came holds for it.

mod book;
mod change;
mod health;
mod recovery;
mod row;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use onceward_core::event::{self, Selection};
use onceward_core::exchange::{Headers, Request};
use onceward_core::id::OperationId;
use onceward_core::operation::Operation;
use onceward_core::time::Timestamp;
use url::{Position, Url};

pub(crate) use book::{Subscribed, Subscriptions, is_of_events};
pub(crate) use health::look_after;
pub use recovery::Missed;

use crate::engine::Engine;
use crate::route::Route;
use crate::webhook;

/// What the setting of a subscription is called, and its route: its name follows. No route that is
/// configured has a name with a slash.
pub(crate) const PREFIX: &str = "subscription/";

/// Subscriptions of all tenants together, at most: each event is held against all of its tenant's.
pub const SUBSCRIPTIONS_MAX: usize = 10_000;

/// Subscriptions of one tenant, at most, so that none takes all places.
pub const OF_TENANT_MAX: usize = 2_000;

/// Bytes of a subscription's filter and headers together, at most.
pub const WISH_BYTES_MAX: usize = 64 << 10;

/// Secrets that sign at once, at most.
pub const SIGNING_MAX: usize = 4;

/// What holds for events and subscriptions of this gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventRules {
    /// How long an event is kept, and so how long its deliveries may take.
    pub retention: Duration,
    /// How long a receiver may fail before it is paused.
    pub pause_after: Duration,
}

impl Default for EventRules {
    fn default() -> Self {
        Self { retention: Duration::from_hours(24 * 30), pause_after: Duration::from_hours(24 * 5) }
    }
}

/// Where the events go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// To this URL, as far as the egress policy goes.
    Url(Url),
    /// By the upstream of a configured route: with its credentials, and as it is protected.
    Route {
        /// Its name.
        name: String,
        /// Path and query there.
        target: String,
    },
}

impl Destination {
    /// Path and query there.
    pub(crate) fn target(&self) -> String {
        match self {
            Self::Url(url) => url[Position::BeforePath..Position::AfterQuery].to_owned(),
            Self::Route { target, .. } => target.clone(),
        }
    }
}

/// Under which names deliveries are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureNames {
    /// `webhook-id`, `webhook-timestamp`, `webhook-signature`: Standard Webhooks 1.0.
    Standard,
    /// The same under `svix-id`, `svix-timestamp`, `svix-signature` too.
    Svix,
}

impl SignatureNames {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Standard, Self::Svix];

    /// The word for it in answers and requests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Svix => "svix",
        }
    }
}

/// What a subscriber wants.
#[derive(Debug, Clone, PartialEq)]
pub struct Wish {
    /// Where it goes.
    pub to: Destination,
    /// Which events.
    pub selection: Selection,
    /// Headers of each delivery: they may be credentials, and are sealed.
    pub headers: Headers,
    /// Delays between one attempt and the next.
    pub delays: Vec<Duration>,
    /// How its signatures are called.
    pub names: SignatureNames,
    /// Whether events go to it: those that come while it is not enabled are missed.
    pub is_enabled: bool,
    /// What people call it.
    pub description: String,
}

impl Wish {
    /// Every event, to `to`, by the table of Standard Webhooks.
    pub fn new(to: Destination) -> Self {
        Self {
            to,
            selection: Selection::default(),
            headers: Headers::default(),
            delays: event::standard_delays(),
            names: SignatureNames::Standard,
            is_enabled: true,
            description: String::new(),
        }
    }
}

/// A secret that signs; it never shows itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Signing {
    /// 24 to 64 bytes (Standard Webhooks 1.0, "Signature scheme").
    pub secret: Vec<u8>,
    /// Until when, where another has taken its place.
    pub until: Option<Timestamp>,
}

impl fmt::Debug for Signing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signing").field("until", &self.until).finish_non_exhaustive()
    }
}

/// Who wants which events.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscription {
    /// Its name: `sub_` and the rest of an id.
    pub name: String,
    /// Whose.
    pub tenant: String,
    /// What is wanted.
    pub wish: Wish,
    /// What signs, the newest first.
    pub signing: Vec<Signing>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub changed_at: Timestamp,
    /// Grows with each change of what is wanted.
    pub version: u32,
    /// Since when nothing was delivered, where the last attempt failed. It is kept beside the rest.
    pub failing_since: Option<Timestamp>,
}

impl Subscription {
    /// The name of its route: operations, lanes and pauses are found by it.
    pub fn route_name(&self) -> String {
        route_name(&self.name)
    }

    /// What is noted of whoever does something about it.
    pub fn about(&self) -> String {
        format!("{} of {}", self.name, self.tenant)
    }

    /// What signs an attempt that begins at `now`.
    fn active(&self, now: Timestamp) -> impl Iterator<Item = &Signing> {
        self.signing.iter().filter(move |signing| signing.until.is_none_or(|until| until > now))
    }

    /// The headers that say which event it is, when it is sent, and that we send it: each secret that is
    /// active signs (Standard Webhooks 1.0, "Multiple signatures").
    pub(crate) fn sign(&self, id: &str, body: &[u8], now: Timestamp) -> Headers {
        let seconds = now.as_micros().div_euclid(1_000_000);
        let sign = |it: &Signing| webhook::sign(&it.secret, id, seconds, body);
        let signature = self.active(now).map(sign).collect::<Vec<_>>().join(" ");
        let said =
            [("id", id.to_owned()), ("timestamp", seconds.to_string()), ("signature", signature)];
        let under = |beginning: &'static str| {
            let line = move |(name, value): &(&str, String)| {
                (format!("{beginning}-{name}"), value.clone().into())
            };
            said.iter().map(line).collect::<Vec<_>>()
        };
        let mut headers = Headers(under("webhook"));
        if self.wish.names == SignatureNames::Svix {
            headers.0.extend(under("svix"));
        }
        headers
    }
}

/// The name of the route of the subscription called `name`.
pub fn route_name(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// The name of the subscription whose route this is, where it is one's.
pub fn name_of_route(route: &str) -> Option<&str> {
    route.strip_prefix(PREFIX)
}

/// The name of the subscription with this id.
fn name_of(id: OperationId) -> String {
    id.to_string().replacen("op_", "sub_", 1)
}

impl Engine {
    /// Where an attempt at a delivery that begins now goes, what it is, and what signs it: all of one
    /// version of its subscription, so that no receiver has the path, the headers or a signature that are
    /// another's. Nothing where the subscription ended.
    pub(crate) fn address_delivery(
        &self,
        operation: &Operation,
        request: &Request,
    ) -> Option<(Arc<Route>, Arc<Request>, Headers)> {
        let found = self.subscriptions.of_route(&operation.route)?;
        let route = Arc::clone(found.route.as_ref()?);
        let target = found.subscription.wish.to.target();
        let request = Arc::new(Request { target, ..request.clone() });
        let id = operation.upstream_key.as_ref().map_or("", |key| key.value.as_str());
        let signed = found.subscription.sign(id, &request.body, self.clock.now());
        Some((route, request, signed))
    }
}
