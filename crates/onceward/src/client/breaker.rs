//! A breaker before an upstream that is asked by one's own client.

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use onceward_core::attempt::Ending;
use onceward_core::backoff;
use onceward_core::breaker::{Breaker, BreakerRule, Leave, Sign};
use onceward_core::id::OperationId;
use onceward_core::policy::Effects;
use thiserror::Error;
use tower_layer::Layer;
use tower_service::Service;

use super::{BoxError, Careful, Failed, ReadError};
use crate::clock::{Clock, SystemClock};
use crate::secret::random;

/// Why a call through a breaker brought no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BreakerError {
    /// The breaker is open: nothing was sent.
    #[error("the upstream fails, and is left alone for a while")]
    Open {
        /// When to come back, where that is known: else when those who probe it have heard.
        retry_after: Option<Duration>,
    },
    /// The client failed.
    #[error("the upstream was not asked with success")]
    Client {
        /// What the breaker's reader said of it.
        failed: Failed,
        /// The client's own error.
        source: BoxError,
    },
}

impl BreakerError {
    /// What it says of the request.
    pub fn failed(&self) -> Failed {
        match self {
            // A caller with a choice has somewhere else to go.
            Self::Open { .. } => Failed::Hopeless,
            Self::Client { failed, .. } => *failed,
        }
    }

    /// Whether the breaker was open.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Open { .. })
    }
}

/// Which requests may probe an upstream that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Probes {
    /// Whichever comes first.
    #[default]
    Any,
    /// Only those whose second arrival does no harm, by their method or because they have an
    /// `Idempotency-Key`: for clients that have some now and then.
    Harmless,
}

/// A layer with a breaker: it opens where at least half of twenty calls in a minute failed, or five
/// connections in a row, and is tried again by three probes. Open, it refuses at once
/// ([`BreakerError::Open`]).
///
/// Clones and the services made by them share the breaker: one layer is for one upstream. A bound of
/// time belongs behind it: a call that its caller gave up says nothing.
pub struct BreakerLayer<R = Careful> {
    shared: Arc<Shared>,
    rule: BreakerRule,
    probes: Probes,
    clock: Arc<dyn Clock>,
    reader: Arc<R>,
}

struct Shared {
    breaker: Mutex<Breaker>,
    /// By what is drawn when it is looked again, and the how manieth draw.
    chance: OperationId,
    draws: AtomicU32,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BreakerLayer {
    /// A closed breaker with the usual rule.
    pub fn new() -> Self {
        let shared = Shared {
            breaker: Mutex::default(),
            chance: OperationId::from_u128(u128::from_le_bytes(random())),
            draws: AtomicU32::new(0),
        };
        Self {
            shared: Arc::new(shared),
            rule: BreakerRule::default(),
            probes: Probes::default(),
            clock: Arc::new(SystemClock),
            reader: Arc::new(Careful),
        }
    }
}

impl Default for BreakerLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<R> Clone for BreakerLayer<R> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            rule: self.rule.clone(),
            probes: self.probes,
            clock: Arc::clone(&self.clock),
            reader: Arc::clone(&self.reader),
        }
    }
}

impl<R> fmt::Debug for BreakerLayer<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("BreakerLayer");
        shown.field("state", &self.state()).field("rule", &self.rule).finish_non_exhaustive()
    }
}

impl<R> BreakerLayer<R> {
    /// When it opens, and for how long.
    #[must_use]
    pub fn rule(self, rule: BreakerRule) -> Self {
        Self { rule, ..self }
    }

    /// Which requests may probe.
    #[must_use]
    pub fn probes(self, probes: Probes) -> Self {
        Self { probes, ..self }
    }

    /// With this clock instead of the machine's.
    #[must_use]
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Who says what an error of the client means: what was not sent counts as a connection that
    /// failed, all else as a failure.
    #[must_use]
    pub fn errors<N>(self, reader: N) -> BreakerLayer<N> {
        let Self { shared, rule, probes, clock, .. } = self;
        BreakerLayer { shared, rule, probes, clock, reader: Arc::new(reader) }
    }

    /// Where it stands: `closed`, `open` or `half_open`.
    pub fn state(&self) -> &'static str {
        self.shared.lock().name()
    }

    /// A place in the traffic for `request`, or the refusal.
    fn enter<B>(&self, request: &Request<B>) -> Result<Pass<R>, BreakerError> {
        let now = self.clock.now();
        let mut breaker = self.shared.lock();
        let is_probe = match breaker.leave(&self.rule, now) {
            Leave::Free => false,
            Leave::Probe if self.probes == Probes::Any || is_harmless(request) => {
                breaker.begin_probe();
                true
            }
            Leave::Probe => return Err(BreakerError::Open { retry_after: None }),
            Leave::Shut { until } => {
                let retry_after = until.map(|until| until.since(now));
                return Err(BreakerError::Open { retry_after });
            }
        };
        drop(breaker);
        Ok(Pass { layer: self.clone(), is_probe, is_over: false })
    }
}

/// Whether a second arrival of it does no harm.
fn is_harmless<B>(request: &Request<B>) -> bool {
    Effects::of_method(request.method().as_str()) != Effects::NonIdempotent
        || request.headers().contains_key("idempotency-key")
}

/// A call that was let by.
struct Pass<R> {
    layer: BreakerLayer<R>,
    is_probe: bool,
    is_over: bool,
}

impl<R> Pass<R> {
    fn learn(mut self, sign: Sign) {
        self.is_over = true;
        let BreakerLayer { shared, rule, clock, .. } = &self.layer;
        let draw = backoff::draw(shared.chance, shared.draws.fetch_add(1, Ordering::Relaxed));
        shared.lock().learn(rule, sign, self.is_probe, clock.now(), draw);
    }
}

impl<R> Drop for Pass<R> {
    /// Nothing was heard: its caller gave it up.
    fn drop(&mut self) {
        if self.is_probe && !self.is_over {
            self.layer.shared.lock().drop_probe();
        }
    }
}

impl<S, R> Layer<S> for BreakerLayer<R> {
    type Service = BreakerService<S, R>;

    fn layer(&self, inner: S) -> BreakerService<S, R> {
        BreakerService { inner, layer: self.clone() }
    }
}

/// A client behind a breaker; made by [`BreakerLayer`].
pub struct BreakerService<S, R = Careful> {
    inner: S,
    layer: BreakerLayer<R>,
}

impl<S: Clone, R> Clone for BreakerService<S, R> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer.clone() }
    }
}

impl<S: fmt::Debug, R> fmt::Debug for BreakerService<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("BreakerService");
        shown.field("layer", &self.layer).field("inner", &self.inner).finish()
    }
}

impl<S, R, B, A> Service<Request<B>> for BreakerService<S, R>
where
    S: Service<Request<B>, Response = Response<A>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Send + 'static,
    R: ReadError<S::Error>,
{
    type Response = Response<A>;
    type Error = BreakerError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<A>, BreakerError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BreakerError>> {
        self.inner.poll_ready(cx).map_err(|error| self.layer.client_error(error))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let next = self.inner.clone();
        let mut ready = mem::replace(&mut self.inner, next);
        let layer = self.layer.clone();
        Box::pin(async move {
            let pass = layer.enter(&request)?;
            match ready.call(request).await {
                Ok(response) => {
                    pass.learn(Sign::of(Ending::Answered, Some(response.status().as_u16())));
                    Ok(response)
                }
                Err(error) => {
                    let error = layer.client_error(error);
                    // What was refused here says nothing of the upstream.
                    if error.failed() != Failed::Hopeless {
                        pass.learn(Sign::of(error.failed().ending(), None));
                    }
                    Err(error)
                }
            }
        })
    }
}

impl<R> BreakerLayer<R> {
    fn client_error<E: Into<BoxError>>(&self, error: E) -> BreakerError
    where
        R: ReadError<E>,
    {
        BreakerError::Client { failed: self.reader.read(&error), source: error.into() }
    }
}
