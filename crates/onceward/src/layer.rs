//! A tower layer that gives the handlers behind it the contract: one key, one effect, one answer.
//!
//! ```
//! use axum::{Router, routing::post};
//! use onceward::Onceward;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), onceward::StartError> {
//! let once = Onceward::memory().await?;
//! let orders = once.layer("orders").principal(|head| {
//!     // Whoever authenticated the caller, in a layer outside of this one, left its name.
//!     head.extensions.get::<String>().cloned().unwrap_or_default()
//! });
//! let app: Router = Router::new().route("/orders", post(async || "ordered")).layer(orders);
//! # drop(app);
//! # Ok(())
//! # }
//! ```
//!
//! What has a key is remembered before the handler runs, and answered once its outcome is kept. The
//! handler runs in a task of its own: a caller that hangs up changes nothing. It gets the request as
//! it came (extensions too), with its body whole and [`Keyed`] among its extensions. What
//! only reads, and what has no key where none is wanted, passes by and is not touched: a body of any
//! length, an answer that never ends.
//!
//! What the handler does decides what follows:
//!
//! | it | then |
//! | --- | --- |
//! | answers 2xx, 3xx, or a 4xx that stays one | that is the outcome: the same key gets the same bytes |
//! | answers 401, 403, 408, 425, 429 and the like | nothing was done, and the same key may run again |
//! | answers 500, 502, 503 or 504, panics, or dies with the process | where a second run is a second effect: **in doubt**, and never run again by itself; else the same key runs again |
//!
//! What a status of yours says beyond that, [`OncewardLayer::means`] tells.

mod body;
mod handler;
mod service;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::request;
use onceward_core::id::OperationId;
use onceward_core::key::Key;
use onceward_core::policy::{
    Backoff, Effects, KeyFrom, KeyMissing, KeyRule, Meaning, Mode, Order, Policy,
};
use tower_layer::Layer;

pub use body::Body;
pub use service::OncewardService;

use crate::embedded;
use crate::engine::Engine;
use crate::route::{Route, Routes};

/// Who asks, by the head of a request.
type Principal = Arc<dyn Fn(&request::Parts) -> String + Send + Sync>;

/// What a handler can know of the call that it does; among its request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyed {
    /// The caller's key, or the one that was made for it.
    pub key: Key,
    /// The operation: a good key for what the handler does elsewhere.
    pub operation: OperationId,
    /// The how manieth run of the handler it is, from 1.
    pub attempt: u32,
}

/// A layer that gives handlers the contract; made by [`Onceward::layer`](crate::Onceward::layer).
/// It is its own builder.
#[derive(Clone)]
pub struct OncewardLayer {
    engine: Arc<Engine>,
    route: Route,
    policy: Policy,
    principal: Principal,
}

impl fmt::Debug for OncewardLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OncewardLayer").field("route", &self.route.name).finish_non_exhaustive()
    }
}

impl OncewardLayer {
    pub(crate) fn new(engine: Arc<Engine>, name: &str) -> Self {
        let policy = Policy {
            key_missing: KeyMissing::Pass,
            held: Backoff { attempts_max: 1, ..Backoff::held() },
            ..Policy::default()
        };
        let principal: Principal = Arc::new(|_| String::new());
        Self { engine, route: embedded::route(name), policy, principal }
    }

    /// Who asks, by the head of a request: keys of different callers are unrelated, and none of them
    /// gets another's answer. A stable name, never a credential. Without it all callers are one.
    #[must_use]
    pub fn principal(
        mut self,
        principal: impl Fn(&request::Parts) -> String + Send + Sync + 'static,
    ) -> Self {
        self.principal = Arc::new(principal);
        self
    }

    /// What a second run of a handler would do. Without it the method says: PUT and DELETE are
    /// idempotent, anything else is not.
    #[must_use]
    pub fn effects(mut self, effects: Effects) -> Self {
        self.policy.effects = Some(effects);
        self
    }

    /// What a request without a key gets: it passes by (the default), is refused, or a key is made
    /// for it.
    #[must_use]
    pub fn key_missing(mut self, then: KeyMissing) -> Self {
        self.policy.key_missing = then;
        self
    }

    /// The headers that may carry the key, the first that is there counts; `Idempotency-Key` without
    /// it.
    #[must_use]
    pub fn key_headers<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        let names = names.into_iter().map(|name| name.into().to_ascii_lowercase());
        self.policy.key_headers = names.collect();
        self
    }

    /// What a key has to look like.
    #[must_use]
    pub fn key_rule(mut self, rule: KeyRule) -> Self {
        self.policy.key_rule = rule;
        self
    }

    /// How long an outcome is replayed, from completion on; 72 hours without it.
    #[must_use]
    pub fn window(mut self, window: Duration) -> Self {
        self.policy.window = window;
        self
    }

    /// How long a duplicate waits for the first call's answer before it is told that that is under
    /// way (409 `in-progress`); 10 seconds without it. A caller's `Prefer: wait=N` goes before it.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.policy.held.horizon = wait;
        self
    }

    /// How long the caller whose call runs the handler is kept waiting (then 504 `still-working`, and
    /// the same key gets the outcome); a minute without it. The handler itself is never cut off.
    #[must_use]
    pub fn answer_max(mut self, time: Duration) -> Self {
        self.route.answer_max = time;
        self
    }

    /// What the handlers mean by a status, where that differs from what is usual:
    /// `means(500, Meaning::NotProcessed)` where a 500 of yours says that all was rolled back.
    #[must_use]
    pub fn means(mut self, status: u16, meaning: Meaning) -> Self {
        self.policy.statuses.insert(status, meaning);
        self
    }

    /// The largest body of a request with a key, in bytes; 1 MiB without it. What passes by has no
    /// bound of ours.
    #[must_use]
    pub fn body_bytes_max(mut self, bytes: usize) -> Self {
        self.route.body_bytes_max = bytes;
        self
    }

    /// The largest answer that is kept, in bytes; 8 MiB without it. The first caller gets a larger
    /// one whole, and a duplicate is told that it was done (409 `response-not-retained`).
    #[must_use]
    pub fn response_bytes_max(mut self, bytes: usize) -> Self {
        self.route.response_bytes_max = bytes;
        self
    }

    /// Handlers that run at once with a key, at most; 1,024 without it. Past it a call waits, then it
    /// is refused (503 `limit`) without a record.
    #[must_use]
    pub fn calls_max(mut self, calls: usize) -> Self {
        self.route.protection.slots_max = calls;
        self
    }

    /// Everything else that a [`Policy`] says: headers that are kept, how requests are compared, the
    /// status of a mismatch. What needs the body to find a key, and what is done while nobody waits,
    /// is nothing that a layer does, and stays as it is.
    #[must_use]
    pub fn policy(mut self, change: impl FnOnce(&mut Policy)) -> Self {
        change(&mut self.policy);
        let default = Policy::default();
        self.policy.mode = Mode::Held;
        self.policy.order = Order::None;
        self.policy.key_from = KeyFrom::Headers;
        self.policy.key_pointer = default.key_pointer;
        self.policy.lookup = default.lookup;
        self.policy.hours = default.hours;
        self.policy.callback = default.callback;
        self
    }

    /// Puts the layer's route among the engine's, for calls that are handed to that; whoever uses the
    /// layer as one does not need it.
    pub fn register(&self) -> Arc<Route> {
        let route = Arc::new(Route { policy: Arc::new(self.policy.clone()), ..self.route.clone() });
        self.engine.change_routes(|routes| {
            let mut named = routes.named.clone();
            named.insert(route.name.clone(), Arc::clone(&route));
            Arc::new(Routes { named, ad_hoc: Arc::clone(&routes.ad_hoc) })
        });
        route
    }
}

impl<S> Layer<S> for OncewardLayer {
    type Service = OncewardService<S>;

    fn layer(&self, inner: S) -> OncewardService<S> {
        let (engine, principal) = (Arc::clone(&self.engine), Arc::clone(&self.principal));
        OncewardService::new(inner, engine, self.register(), principal)
    }
}
