//! A tower layer that has the handlers behind it run once for an `Idempotency-Key`, on the gateway's
//! ledger: for axum, and any `tower::Service<http::Request<B>>` whose `B` can be made of `Bytes`.
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use onceward_client::Onceward;
//! use tower::{Layer, ServiceExt, service_fn};
//! # use onceward_client::testing::FakeGateway;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let onceward = Onceward::new()?;
//! # let onceward = Onceward::builder().transport(FakeGateway::new()).build()?;
//! let orders = onceward.claims("orders").layer();
//! let handler = orders.layer(service_fn(async |_request: Request<Full<Bytes>>| {
//!     Ok::<_, std::convert::Infallible>(Response::new(Full::from("ordered")))
//! }));
//! for is_replay in ["false", "true"] {
//!     let order = Request::post("/orders").header("idempotency-key", "order-1");
//!     let answer = handler.clone().oneshot(order.body(Full::from("one"))?).await?;
//!     assert_eq!(answer.headers()["idempotent-replayed"], is_replay);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A claim is begun before the handler runs, under the caller's key and, with
//! [`principal`](OnceLayer::principal), the caller's name; what the handler answers is completed as the
//! claim's outcome, and sent after. It runs in a task of its own: a caller that hangs up changes nothing.
//! What its status says is what it says of an upstream: 2xx, 3xx and a 4xx that says no are the outcome,
//! 401, 403, 429 and the like give the key back, and 500, 502, 503 and 504, an error or a panic leave it
//! open: in doubt, where a second run would be a second effect.

mod body;
mod outcome;
mod service;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use tower_layer::Layer;

pub use body::Body;
pub use service::{OnceService, Trouble};

use crate::claims::Claims;
use crate::shapes::Effects;

/// How long a duplicate waits for the first, where nothing is said.
const WAIT: Duration = Duration::from_secs(10);

/// The largest body of a request, and of an answer that is kept, in bytes, where nothing is said.
const BODY_BYTES_MAX: usize = 1024 * 1024;
const RESPONSE_BYTES_MAX: usize = 512 * 1024;

type Principal = dyn Fn(&Parts) -> String + Send + Sync;

/// What a handler can know of the run that it is; among its request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyed {
    /// The caller's key.
    pub key: String,
    /// The operation's id: a good key for what the handler does elsewhere.
    pub operation: String,
    /// Grows with each run of a key.
    pub fence: u64,
}

/// A layer that has handlers run once for a key; made by [`Claims::layer`]. It is its own builder.
#[derive(Clone)]
#[must_use = "it does nothing before it is laid before a service"]
pub struct OnceLayer {
    claims: Claims,
    principal: Option<Arc<Principal>>,
    is_key_required: bool,
    effects: Option<Effects>,
    wait: Duration,
    body_bytes_max: usize,
    response_bytes_max: usize,
}

impl fmt::Debug for OnceLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnceLayer").field("claims", &self.claims).finish_non_exhaustive()
    }
}

impl OnceLayer {
    pub(crate) fn new(claims: Claims) -> Self {
        Self {
            claims,
            principal: None,
            is_key_required: false,
            effects: None,
            wait: WAIT,
            body_bytes_max: BODY_BYTES_MAX,
            response_bytes_max: RESPONSE_BYTES_MAX,
        }
    }

    /// Who asks, by a name that stays: keys of one are nothing to another. Without it all callers are
    /// one, and whoever has a key and the request gets its answer.
    pub fn principal(mut self, name: impl Fn(&Parts) -> String + Send + Sync + 'static) -> Self {
        self.principal = Some(Arc::new(name));
        self
    }

    /// A request with an effect and without a key is refused, where else it passes by.
    pub fn require_key(mut self) -> Self {
        self.is_key_required = true;
        self
    }

    /// What a second run would do; by the method where nothing is said: PUT and DELETE are idempotent.
    pub fn effects(mut self, effects: Effects) -> Self {
        self.effects = Some(effects);
        self
    }

    /// How long a duplicate waits for the first: 10 seconds where nothing is said, a minute at most.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// The largest body of a request, in bytes: 1 MiB where nothing is said.
    pub fn body_bytes_max(mut self, bytes: usize) -> Self {
        self.body_bytes_max = bytes;
        self
    }

    /// The largest body of an answer that is kept, in bytes: 512 KiB where nothing is said. A larger one
    /// is given once, and is `response-not-retained` from then on.
    pub fn response_bytes_max(mut self, bytes: usize) -> Self {
        self.response_bytes_max = bytes;
        self
    }
}

impl<S> Layer<S> for OnceLayer {
    type Service = OnceService<S>;

    fn layer(&self, inner: S) -> OnceService<S> {
        OnceService::new(inner, self.clone())
    }
}
