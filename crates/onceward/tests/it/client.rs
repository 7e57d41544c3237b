//! Retries and a breaker before one's own HTTP client.

use std::collections::VecDeque;
use std::io::{Error, ErrorKind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use onceward::client::{BreakerError, BreakerLayer, Failed, Probes, RetryLayer};
use onceward::clock::Clock;
use onceward::core::breaker::BreakerRule;
use onceward::core::policy::Effects;
use onceward::core::rate::BudgetRule;
use onceward::core::time::Timestamp;
use tower::{Layer as _, Service, ServiceBuilder, ServiceExt as _, service_fn};

/// What one attempt brings.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// An answer.
    Says(u16),
    /// One that asks to be left alone for so many seconds.
    Later(u16, u64),
    /// Nothing was there to connect to.
    Unsent,
    /// The connection broke.
    Broken,
    /// Nothing ever comes.
    Hangs,
}

/// An upstream by a script, and a clock that jumps to whatever is waited for.
#[derive(Clone, Default)]
struct World(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    script: VecDeque<Step>,
    seen: Vec<Request<Bytes>>,
    now: Timestamp,
    slept: Vec<Duration>,
}

impl World {
    fn of(script: impl IntoIterator<Item = Step>) -> Self {
        let world = Self::default();
        world.script(script);
        world
    }

    fn script(&self, script: impl IntoIterator<Item = Step>) {
        self.0.lock().unwrap().script = script.into_iter().collect();
    }

    fn seen(&self) -> usize {
        self.0.lock().unwrap().seen.len()
    }

    fn keys(&self) -> Vec<Option<String>> {
        let key = |request: &Request<Bytes>| {
            Some(request.headers().get("idempotency-key")?.to_str().unwrap().to_owned())
        };
        self.0.lock().unwrap().seen.iter().map(key).collect()
    }

    fn slept(&self) -> Vec<Duration> {
        self.0.lock().unwrap().slept.clone()
    }

    fn pass(&self, time: Duration) {
        let mut inner = self.0.lock().unwrap();
        inner.now = inner.now.plus(time);
    }

    fn client(
        &self,
    ) -> impl Service<Request<Bytes>, Response = Response<Bytes>, Error = Error, Future: Send>
    + Clone
    + Send
    + 'static {
        let world = self.clone();
        service_fn(move |request| {
            let mut inner = world.0.lock().unwrap();
            inner.seen.push(request);
            let step = inner.script.pop_front().unwrap_or(Step::Says(200));
            let came = match step {
                Step::Says(status) => Some(Ok(answer(status))),
                Step::Later(status, seconds) => {
                    let mut answer = answer(status);
                    answer.headers_mut().insert("retry-after", seconds.into());
                    Some(Ok(answer))
                }
                Step::Unsent => Some(Err(ErrorKind::ConnectionRefused.into())),
                Step::Broken => Some(Err(ErrorKind::ConnectionReset.into())),
                Step::Hangs => None,
            };
            async move {
                match came {
                    Some(came) => came,
                    None => std::future::pending().await,
                }
            }
        })
    }
}

impl Clock for World {
    fn now(&self) -> Timestamp {
        self.0.lock().unwrap().now
    }

    fn sleep_until(&self, until: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut inner = self.0.lock().unwrap();
        let slept = until.since(inner.now);
        inner.slept.push(slept);
        inner.now = inner.now.max(until);
        Box::pin(std::future::ready(()))
    }
}

fn answer(status: u16) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::new());
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer
}

fn read(error: &Error) -> Failed {
    match error.kind() {
        ErrorKind::ConnectionRefused => Failed::Unsent,
        _ => Failed::Unanswered,
    }
}

fn request(method: Method, key: Option<&str>) -> Request<Bytes> {
    let mut request = Request::new(Bytes::from_static(b"{}"));
    *request.method_mut() = method;
    if let Some(key) = key {
        request.headers_mut().insert("idempotency-key", key.parse().unwrap());
    }
    request
}

/// What came of `request`, in a word.
async fn retried(world: &World, layer: RetryLayer, request: Request<Bytes>) -> String {
    let layer = layer.errors(read).clock(Arc::new(world.clone()));
    match layer.layer(world.client()).oneshot(request).await {
        Ok(response) => response.status().as_str().to_owned(),
        Err(error) => error.kind().to_string(),
    }
}

#[tokio::test]
async fn what_is_harmless_is_asked_three_times_and_then_its_answer_is_given() {
    for (method, key) in [
        (Method::GET, None),
        (Method::PUT, None),
        (Method::DELETE, None),
        (Method::POST, Some("k")),
    ] {
        let world = World::of([Step::Says(503), Step::Broken, Step::Unsent]);
        let came = retried(&world, RetryLayer::new(), request(method.clone(), key)).await;
        assert_eq!((came.as_str(), world.seen()), ("connection refused", 3), "{method}");
        let world = World::of([Step::Says(500), Step::Says(502), Step::Says(201)]);
        let came = retried(&world, RetryLayer::new(), request(method, key)).await;
        assert_eq!((came.as_str(), world.seen()), ("201", 3));
        assert!(world.slept().iter().all(|slept| *slept >= Duration::from_millis(50)));
    }
}

#[tokio::test]
async fn what_may_have_been_done_is_never_asked_again_where_a_second_arrival_is_an_effect() {
    for (first, came) in [
        (Step::Says(500), "500"),
        (Step::Says(503), "503"),
        (Step::Later(503, 1), "503"),
        (Step::Broken, "connection reset"),
        (Step::Says(201), "201"),
        (Step::Says(404), "404"),
    ] {
        let world = World::of([first]);
        let heard = retried(&world, RetryLayer::new(), request(Method::POST, None)).await;
        assert_eq!((heard.as_str(), world.seen()), (came, 1), "{first:?}");
    }
    for first in [Step::Unsent, Step::Says(429), Step::Says(425)] {
        let world = World::of([first]);
        let heard = retried(&world, RetryLayer::new(), request(Method::POST, None)).await;
        assert_eq!((heard.as_str(), world.seen()), ("200", 2), "{first:?}: nothing was done");
    }
}

#[tokio::test]
async fn every_attempt_has_the_callers_key_or_one_that_was_made_for_it() {
    let fails = || World::of([Step::Unsent, Step::Says(429)]);
    let world = fails();
    retried(&world, RetryLayer::new(), request(Method::POST, Some("mine"))).await;
    assert_eq!(world.keys(), vec![Some("mine".to_owned()); 3]);
    let world = fails();
    retried(&world, RetryLayer::new(), request(Method::POST, None)).await;
    let keys = world.keys();
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| key == &keys[0] && key.as_ref().is_some_and(|k| k.len() == 36)));
    retried(&world, RetryLayer::new(), request(Method::POST, None)).await;
    assert_ne!(world.keys().last(), keys.last(), "another call has another key");
    let world = World::default();
    retried(&world, RetryLayer::new(), request(Method::GET, None)).await;
    assert_eq!(world.keys(), [None]);
}

#[tokio::test]
async fn where_the_upstream_dedupes_a_made_key_makes_retries_harmless() {
    let world = World::of([Step::Broken, Step::Says(409), Step::Says(201)]);
    let layer = RetryLayer::new().effects(Effects::Keyed);
    let came = retried(&world, layer, request(Method::POST, None)).await;
    assert_eq!((came.as_str(), world.seen()), ("201", 3), "409: the first was under way");
    let keys = world.keys();
    assert!(keys[0].is_some() && keys.iter().all(|key| key == &keys[0]));
}

#[tokio::test]
async fn nobody_is_asked_earlier_than_it_wants_nor_is_a_caller_kept_for_longer_than_it_waits() {
    let world = World::of([Step::Later(503, 4)]);
    assert_eq!(retried(&world, RetryLayer::new(), request(Method::GET, None)).await, "200");
    assert!(world.slept()[0] >= Duration::from_secs(4), "{:?}", world.slept());
    let world = World::of([Step::Later(503, 60)]);
    assert_eq!(retried(&world, RetryLayer::new(), request(Method::GET, None)).await, "503");
    assert!(world.slept().is_empty(), "it is told at once");
}

#[tokio::test]
async fn a_budget_bounds_the_retries_of_all_calls() {
    let world = World::of(vec![Step::Says(503); 1000]);
    let budget = Some(BudgetRule { share: 0.1, per_second: 0.0 });
    let layer = RetryLayer::new().budget(budget);
    for _ in 0..100 {
        retried(&world, layer.clone(), request(Method::GET, None)).await;
    }
    let retries = world.seen() - 100;
    assert!((9..=12).contains(&retries), "a tenth of the calls, and one to begin with: {retries}");
}

#[tokio::test]
async fn a_breaker_opens_and_refuses_at_once_until_probes_succeed() {
    let world = World::of(vec![Step::Unsent; 5]);
    let layer = BreakerLayer::new().errors(read).clock(Arc::new(world.clone()));
    let mut client = layer.layer(world.client());
    for _ in 0..5 {
        assert_eq!(layer.state(), "closed");
        let error = client.ready().await.unwrap().call(request(Method::POST, None)).await;
        assert!(!error.unwrap_err().is_open());
    }
    assert_eq!(layer.state(), "open");
    let error = client.call(request(Method::POST, None)).await.unwrap_err();
    let BreakerError::Open { retry_after: Some(wait) } = error else { panic!("{error:?}") };
    assert_eq!(world.seen(), 5, "nothing was sent");
    world.pass(wait);
    // A probe that its caller gives up makes room for another.
    world.script([Step::Hangs; 10]);
    for n in 6..16 {
        let mut probe = client.call(request(Method::GET, None));
        let waits = std::future::poll_fn(|cx| Poll::Ready(probe.as_mut().poll(cx).is_pending()));
        assert!(waits.await);
        assert_eq!((layer.state(), world.seen()), ("half_open", n));
    }
    for _ in 0..3 {
        client.call(request(Method::GET, None)).await.unwrap();
    }
    assert_eq!(layer.state(), "closed");
}

#[tokio::test]
async fn a_breaker_lets_only_harmless_probes_by_where_it_is_told_so() {
    let world = World::of(vec![Step::Says(500); 2]);
    let rule = BreakerRule { calls_min: 2, probes: 1, ..BreakerRule::default() };
    let layer = BreakerLayer::new()
        .rule(rule)
        .probes(Probes::Harmless)
        .errors(read)
        .clock(Arc::new(world.clone()));
    let mut client = layer.clone().layer(world.client());
    for _ in 0..2 {
        client.call(request(Method::POST, None)).await.unwrap();
    }
    assert_eq!(layer.state(), "open");
    world.pass(Duration::from_mins(1));
    assert!(client.call(request(Method::POST, None)).await.unwrap_err().is_open());
    client.call(request(Method::POST, Some("k"))).await.unwrap();
    assert_eq!(layer.state(), "closed");
}

#[tokio::test]
async fn retries_around_a_breaker_believe_it_and_do_not_knock_on_a_closed_door() {
    let world = World::of(vec![Step::Unsent; 5]);
    let clock = Arc::new(world.clone());
    let breaker = BreakerLayer::new().errors(read).clock(clock.clone());
    let client = ServiceBuilder::new()
        .layer(RetryLayer::new().attempts_max(9).clock(clock))
        .layer(breaker.clone())
        .service(world.client());
    let error = client.clone().oneshot(request(Method::POST, None)).await.unwrap_err();
    assert!(error.is_open());
    assert_eq!((breaker.state(), world.seen()), ("open", 5), "unsent: asked until it opened");
    client.oneshot(request(Method::POST, None)).await.unwrap_err();
    assert_eq!((world.seen(), world.slept().len()), (5, 5));
}
