//! Retries by the core's own rules: its backoff, its table of statuses, what the upstream asks for,
//! and a budget.

use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use onceward_core::attempt::Ending;
use onceward_core::hint::HintHeader;
use onceward_core::id::{OperationId, next_sequence};
use onceward_core::policy::{Backoff, Effects, Meaning, Policy};
use onceward_core::rate::{Budget, BudgetRule};
use onceward_core::retry::{self, Ended, Tried};
use onceward_core::time::Timestamp;
use tower_layer::Layer;
use tower_service::Service;

use super::{Careful, Failed, ReadError};
use crate::clock::{Clock, SystemClock};
use crate::edge::headers_of;
use crate::secret::random;

/// A layer that retries where a retry can help and a second arrival does no harm.
///
/// What a second arrival would do, [`effects`](Self::effects) says; else the request does: GET, PUT,
/// DELETE and the like are idempotent, and what its caller gave an `Idempotency-Key` is keyed. All
/// else is sent again only where provably nothing was done: it was not sent
/// ([`errors`](Self::errors)), or the answer says so (429 and the like). A request with an effect and
/// no key gets one, the same at each attempt, for an upstream that looks at it.
///
/// Clones share their budget: one layer is for one upstream.
pub struct RetryLayer<R = Careful> {
    rules: Arc<Rules>,
    clock: Arc<dyn Clock>,
    reader: Arc<R>,
}

#[derive(Debug, Clone)]
struct Rules {
    policy: Policy,
    key_header: HeaderName,
    budget: Option<BudgetRule>,
    /// What is left of it, from the first call on.
    left: Arc<Mutex<Option<Budget>>>,
}

impl RetryLayer {
    /// Three attempts within ten seconds, 50 ms to 2 s apart (full jitter), and retries for a fifth of
    /// the calls and ten a second.
    pub fn new() -> Self {
        let rules = Rules {
            policy: Policy::default(),
            key_header: HeaderName::from_static("idempotency-key"),
            budget: Some(BudgetRule::default()),
            left: Arc::default(),
        };
        Self { rules: Arc::new(rules), clock: Arc::new(SystemClock), reader: Arc::new(Careful) }
    }
}

impl Default for RetryLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<R> Clone for RetryLayer<R> {
    fn clone(&self) -> Self {
        let Self { rules, clock, reader } = self;
        Self { rules: Arc::clone(rules), clock: Arc::clone(clock), reader: Arc::clone(reader) }
    }
}

impl<R> fmt::Debug for RetryLayer<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryLayer")
            .field("backoff", &self.rules.policy.held)
            .finish_non_exhaustive()
    }
}

impl<R> RetryLayer<R> {
    fn change(mut self, change: impl FnOnce(&mut Rules)) -> Self {
        change(Arc::make_mut(&mut self.rules));
        self
    }

    /// How often and when. No attempt begins later than its `horizon` after the call.
    #[must_use]
    pub fn backoff(self, backoff: Backoff) -> Self {
        self.change(|rules| rules.policy.held = backoff)
    }

    /// Attempts of a call in all, at most.
    #[must_use]
    pub fn attempts_max(self, attempts: u32) -> Self {
        self.change(|rules| rules.policy.held.attempts_max = attempts)
    }

    /// What a second arrival would do, whatever the request looks like. [`Effects::Keyed`] where the
    /// upstream dedupes by the key: then a request without one is retried under one made for it.
    #[must_use]
    pub fn effects(self, effects: Effects) -> Self {
        self.change(|rules| rules.policy.effects = Some(effects))
    }

    /// The header that the key stands in; `Idempotency-Key` without it.
    #[must_use]
    pub fn key_header(self, name: HeaderName) -> Self {
        self.change(|rules| rules.key_header = name)
    }

    /// What the upstream means by a status, where that differs from what is usual.
    #[must_use]
    pub fn means(self, status: u16, meaning: Meaning) -> Self {
        self.change(|rules| {
            rules.policy.statuses.insert(status, meaning);
        })
    }

    /// Headers that the upstream is believed about asking again, beside `Retry-After` and
    /// `RateLimit-Reset`.
    #[must_use]
    pub fn hints(self, hints: impl IntoIterator<Item = HintHeader>) -> Self {
        self.change(|rules| rules.policy.hints = hints.into_iter().collect())
    }

    /// What all retries together may cost; `None` for no bound.
    #[must_use]
    pub fn budget(self, budget: Option<BudgetRule>) -> Self {
        self.change(|rules| rules.budget = budget)
    }

    /// Who says what an error of the client means. Without it none proves that nothing was sent.
    #[must_use]
    pub fn errors<N>(self, reader: N) -> RetryLayer<N> {
        RetryLayer { rules: self.rules, clock: self.clock, reader: Arc::new(reader) }
    }

    /// With this clock instead of the machine's.
    #[must_use]
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }
}

impl<S, R> Layer<S> for RetryLayer<R> {
    type Service = RetryService<S, R>;

    fn layer(&self, inner: S) -> RetryService<S, R> {
        RetryService { inner, layer: self.clone() }
    }
}

/// A client that retries; made by [`RetryLayer`].
pub struct RetryService<S, R = Careful> {
    inner: S,
    layer: RetryLayer<R>,
}

impl<S: Clone, R> Clone for RetryService<S, R> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer.clone() }
    }
}

impl<S: fmt::Debug, R> fmt::Debug for RetryService<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, R, B, A> Service<Request<B>> for RetryService<S, R>
where
    S: Service<Request<B>, Response = Response<A>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: Clone + Send + Sync + 'static,
    A: Send,
    R: ReadError<S::Error>,
{
    type Response = Response<A>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<A>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let next = self.inner.clone();
        let ready = mem::replace(&mut self.inner, next);
        let layer = self.layer.clone();
        Box::pin(async move { layer.run(ready, request).await })
    }
}

impl<R> RetryLayer<R> {
    async fn run<S, B, A>(
        &self,
        mut service: S,
        mut request: Request<B>,
    ) -> Result<Response<A>, S::Error>
    where
        S: Service<Request<B>, Response = Response<A>>,
        B: Clone,
        R: ReadError<S::Error>,
    {
        let rules = &*self.rules;
        let since = self.clock.now();
        let id = OperationId::new(next_sequence(0, since), u64::from_le_bytes(random()));
        let effects = rules.prepare(&mut request, id);
        rules.deposit(since);
        let mut tried = Tried { effects, id, since, attempts: 1, maybe_executed: false };
        loop {
            let came = service.call(request.clone()).await;
            let now = self.clock.now();
            let (again, executed) = self.judge(&tried, &came, now);
            let Some(delay) = again.filter(|_| rules.withdraw(now)) else { return came };
            // What is asked again is not read to its end.
            drop(came);
            self.clock.sleep_until(now.plus(delay)).await;
            poll_fn(|cx| service.poll_ready(cx)).await?;
            tried.attempts += 1;
            tried.maybe_executed |= executed;
        }
    }

    /// How long to wait before the next attempt, where there is one; and whether this one may have
    /// been executed.
    fn judge<A, E>(
        &self,
        tried: &Tried,
        came: &Result<Response<A>, E>,
        now: Timestamp,
    ) -> (Option<Duration>, bool)
    where
        R: ReadError<E>,
    {
        let policy = &self.rules.policy;
        let judged = |ended: &Ended<'_>| {
            let again = retry::decide(tried, policy, ended, now);
            (again, retry::may_have_executed(policy, ended, now))
        };
        match came {
            Ok(response) => {
                let headers = headers_of(response.headers());
                let answer = Some((response.status().as_u16(), &headers));
                judged(&Ended { ending: Ending::Answered, answer })
            }
            Err(error) => match self.reader.read(error) {
                Failed::Hopeless => (None, false),
                failed => judged(&Ended { ending: failed.ending(), answer: None }),
            },
        }
    }
}

impl Rules {
    /// Sees to the key, which is the same for all attempts; tells what a second arrival would do.
    fn prepare<B>(&self, request: &mut Request<B>, id: OperationId) -> Effects {
        let by_method = Effects::of_method(request.method().as_str());
        let has_key = request.headers().contains_key(&self.key_header);
        if !has_key && by_method == Effects::NonIdempotent {
            put_key(request.headers_mut(), &self.key_header, id);
        }
        self.policy.effects.unwrap_or(match by_method {
            Effects::NonIdempotent if has_key => Effects::Keyed,
            effects => effects,
        })
    }

    fn deposit(&self, now: Timestamp) {
        let Some(rule) = self.budget else { return };
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.get_or_insert_with(|| Budget::full(rule, now)).deposit(rule);
    }

    fn withdraw(&self, now: Timestamp) -> bool {
        let Some(rule) = self.budget else { return true };
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.get_or_insert_with(|| Budget::full(rule, now)).withdraw(rule, now)
    }
}

/// A key that bears its time: a UUIDv7.
fn put_key(headers: &mut HeaderMap, name: &HeaderName, id: OperationId) {
    let hex = format!("{:032x}", id.as_u128());
    let groups = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    if let Ok(key) = HeaderValue::from_str(&groups.join("-")) {
        headers.insert(name, key);
    }
}
