//! Handlers that run once for a key: what holds on the gateway's ledger holds on its double's.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use onceward_client::layer::{Keyed, OnceLayer, Trouble};
use onceward_client::testing::FakeGateway;
use onceward_client::transport::Answering;
use onceward_client::{Claims, Effects, Error, Onceward, Transport};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::world::{Gateway, RETRY, fresh, of_both};

/// An answer that was read.
struct Got {
    status: u16,
    head: http::response::Parts,
    body: Bytes,
}

impl Got {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn code(&self) -> Value {
        serde_json::from_slice::<Value>(&self.body).unwrap()["code"].take()
    }
}

/// Handlers that answer so, in turn, the last of them again; and how often they ran.
#[derive(Clone)]
struct Shop {
    layer: OnceLayer,
    statuses: &'static [u16],
    runs: Arc<AtomicU32>,
}

impl Shop {
    fn new(layer: OnceLayer, statuses: &'static [u16]) -> Self {
        Self { layer, statuses, runs: Arc::default() }
    }

    fn runs(&self) -> u32 {
        self.runs.load(Ordering::Relaxed)
    }

    async fn order(&self, key: Option<&str>, body: &'static str) -> Got {
        let mut request = Request::post("/orders?a=1").header("user", "anna");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        self.ask(request.body(body.into()).unwrap()).await
    }

    async fn ask(&self, request: Request<Full<Bytes>>) -> Got {
        let (statuses, runs) = (self.statuses, Arc::clone(&self.runs));
        let handler = service_fn(move |request: Request<Full<Bytes>>| {
            let run = runs.fetch_add(1, Ordering::Relaxed);
            let status = *statuses.get(run as usize).or_else(|| statuses.last()).unwrap();
            answer(run, status, request)
        });
        let answer = self.layer.layer(handler).oneshot(request).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Got { status: head.status.as_u16(), head, body }
    }
}

async fn answer(
    run: u32,
    status: u16,
    request: Request<Full<Bytes>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let keyed = request.extensions().get::<Keyed>().map(|keyed| keyed.key.clone());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    // A duplicate that comes meanwhile has to wait.
    tokio::task::yield_now().await;
    let said = json!({ "run": run, "key": keyed, "body": String::from_utf8_lossy(&body) });
    let answer = Response::builder().status(status).header("etag", "e").header("set-cookie", "c");
    Ok(answer.body(Full::from(said.to_string())).unwrap())
}

fn orders(once: &Onceward) -> Claims {
    once.claims("orders")
}

#[tokio::test]
async fn a_handler_runs_once_for_a_key_and_a_duplicate_gets_the_same_bytes() {
    of_both(async |once| {
        let (shop, key) = (Shop::new(orders(&once).layer(), &[201]), fresh("order"));
        let first = shop.order(Some(&key), "one").await;
        let second = shop.order(Some(&format!("\"{key}\"")), "one").await;
        assert_eq!((first.status, first.header("idempotent-replayed")), (201, Some("false")));
        assert_eq!((second.status, second.header("idempotent-replayed")), (201, Some("true")));
        assert_eq!(
            (second.body, second.head.headers["etag"].clone()),
            (first.body, "e".parse().unwrap())
        );
        assert_eq!(
            second.head.headers["onceward-operation"],
            first.head.headers["onceward-operation"]
        );
        assert_eq!((second.head.headers.contains_key("set-cookie"), shop.runs()), (false, 1));
    })
    .await;
}

#[tokio::test]
async fn duplicates_at_the_same_time_are_one_run() {
    of_both(async |once| {
        // The double holds nobody up: it says when to come again.
        let (shop, key) = (Shop::new(orders(&once).layer(), &[201]), fresh("order"));
        let (a, b) = tokio::join!(shop.order(Some(&key), "one"), shop.order(Some(&key), "one"));
        assert_eq!(shop.runs(), 1);
        for got in [a, b] {
            assert!(got.status == 201 || got.code() == "in-progress", "{}", got.status);
        }
    })
    .await;
}

#[tokio::test]
async fn another_request_under_the_same_key_is_refused_and_nothing_of_the_gateways_is_told() {
    of_both(async |once| {
        let (shop, key) = (Shop::new(orders(&once).layer(), &[201]), fresh("order"));
        shop.order(Some(&key), "one").await;
        let other = shop.order(Some(&key), "two").await;
        assert_eq!((other.status, other.code(), shop.runs()), (409, json!("key-mismatch"), 1));
        assert_eq!(other.header("onceward-advice"), Some("new-key"));
        let said: Value = serde_json::from_slice(&other.body).unwrap();
        assert_eq!((&said["differs"], said.get("operation")), (&json!(["fingerprint"]), None));
    })
    .await;
}

#[tokio::test]
async fn what_says_that_nothing_was_done_frees_the_key_and_what_leaves_it_open_does_not() {
    of_both(async |once| {
        let (shop, key) = (Shop::new(orders(&once).layer(), &[429, 404]), fresh("order"));
        let busy = shop.order(Some(&key), "one").await;
        assert_eq!((busy.status, busy.header("onceward-advice")), (429, Some("same-key")));
        // A 4xx that says no is an outcome.
        assert_eq!(shop.order(Some(&key), "one").await.status, 404);
        assert_eq!((shop.order(Some(&key), "one").await.status, shop.runs()), (404, 2));

        let (shop, key) = (Shop::new(orders(&once).layer(), &[503, 201]), fresh("order"));
        let open = shop.order(Some(&key), "one").await;
        assert_eq!((open.status, open.header("onceward-state")), (503, Some("in_doubt")));
        let again = shop.order(Some(&key), "one").await;
        assert_eq!((again.status, again.code(), shop.runs()), (409, json!("outcome-unknown"), 1));

        let harmless = orders(&once).layer().effects(Effects::Idempotent);
        let (shop, key) = (Shop::new(harmless, &[503, 201]), fresh("order"));
        assert_eq!(shop.order(Some(&key), "one").await.header("onceward-state"), Some("dead"));
        assert_eq!((shop.order(Some(&key), "one").await.status, shop.runs()), (201, 2));
    })
    .await;
}

#[tokio::test]
async fn a_handler_that_panics_leaves_its_key_in_doubt() {
    of_both(async |once| {
        let (layer, key) = (orders(&once).layer(), fresh("order"));
        let panics = layer.layer(service_fn(
            async |_: Request<Full<Bytes>>| -> Result<Response<Full<Bytes>>, Infallible> {
                panic!("of a handler")
            },
        ));
        let order =
            || Request::post("/orders?a=1").header("idempotency-key", &key).body(Full::from("one"));
        let broken = tokio::spawn(panics.oneshot(order().unwrap())).await;
        assert!(broken.unwrap_err().is_panic());
        let again = Shop::new(layer, &[201]).order(Some(&key), "one").await;
        assert_eq!(again.code(), "outcome-unknown");
    })
    .await;
}

#[tokio::test]
async fn a_caller_who_hangs_up_changes_nothing() {
    of_both(async |once| {
        let (layer, key) = (orders(&once).layer(), fresh("order"));
        let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (begins, goes) = (Arc::clone(&begun), Arc::clone(&go));
        let slow = layer.layer(service_fn(move |_: Request<Full<Bytes>>| {
            let (begun, go) = (Arc::clone(&begins), Arc::clone(&goes));
            async move {
                begun.notify_one();
                go.notified().await;
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("late")))
            }
        }));
        let order =
            Request::post("/orders?a=1").header("idempotency-key", &key).body(Full::from("one"));
        let calling = tokio::spawn(slow.oneshot(order.unwrap()));
        begun.notified().await;
        calling.abort();
        go.notify_one();
        let shop = Shop::new(layer, &[201]);
        let mut got = shop.order(Some(&key), "one").await;
        // The double holds nobody up.
        while got.status == 409 && got.code() == "in-progress" {
            tokio::time::sleep(Duration::from_millis(5)).await;
            got = shop.order(Some(&key), "one").await;
        }
        assert_eq!((&got.body[..], shop.runs()), (&b"late"[..], 0));
    })
    .await;
}

/// A gateway that takes its time.
struct Late(FakeGateway, Arc<Notify>);

impl Transport for Late {
    fn call(&self, request: Request<Bytes>) -> Answering<'_> {
        Box::pin(async move {
            self.1.notified().await;
            self.1.notify_one();
            self.0.call(request).await
        })
    }
}

#[tokio::test]
async fn a_caller_who_hangs_up_before_it_is_begun_leaves_no_doubt() {
    let (double, go) = (FakeGateway::new(), Arc::new(Notify::new()));
    let late =
        Onceward::builder().transport(Late(double, Arc::clone(&go))).retry(RETRY).build().unwrap();
    let shop = Shop::new(orders(&late).layer(), &[201]);
    tokio::select! {
        biased;
        _ = shop.order(Some("k"), "one") => panic!("nobody has answered"),
        () = tokio::task::yield_now() => {}
    }
    go.notify_one();
    let mut got = shop.order(Some("k"), "one").await;
    while got.status == 409 && got.code() == "in-progress" {
        tokio::time::sleep(Duration::from_millis(5)).await;
        got = shop.order(Some("k"), "one").await;
    }
    // It is the first one's that it gets.
    assert_eq!((got.header("idempotent-replayed"), shop.runs()), (Some("true"), 1));
}

#[tokio::test]
async fn an_answer_that_is_too_large_to_keep_is_given_once() {
    of_both(async |once| {
        let small = orders(&once).layer().response_bytes_max(4);
        let (shop, key) = (Shop::new(small, &[201]), fresh("order"));
        let first = shop.order(Some(&key), "one").await;
        assert_eq!((first.status, first.body.ends_with(b"}")), (201, true));
        let again = shop.order(Some(&key), "one").await;
        assert_eq!(
            (again.status, again.code(), shop.runs()),
            (409, json!("response-not-retained"), 1)
        );
    })
    .await;
}

#[tokio::test]
async fn what_has_no_key_or_only_reads_passes_and_keys_can_be_required() {
    of_both(async |once| {
        let shop = Shop::new(orders(&once).layer(), &[201]);
        for _ in 0..2 {
            let passed = shop.order(None, "one").await;
            assert_eq!((passed.status, passed.header("onceward-operation")), (201, None));
        }
        let read =
            Request::get("/orders").header("idempotency-key", "k").body(Full::default()).unwrap();
        assert_eq!(shop.ask(read).await.header("idempotency-key"), None);
        assert_eq!(shop.runs(), 3);
        let strict = Shop::new(orders(&once).layer().require_key().body_bytes_max(2), &[201]);
        assert_eq!(strict.order(None, "one").await.code(), "key-required");
        assert_eq!(strict.order(Some("a b"), "one").await.code(), "key-invalid");
        let twice =
            Request::post("/orders").header("idempotency-key", "a").header("idempotency-key", "b");
        assert_eq!(strict.ask(twice.body(Full::default()).unwrap()).await.code(), "key-invalid");
        let large = strict.order(Some(&fresh("order")), "one").await;
        assert_eq!((large.status, large.code(), strict.runs()), (413, json!("body-too-large"), 0));
    })
    .await;
}

#[tokio::test]
async fn the_keys_of_one_caller_are_nothing_to_another() {
    of_both(async |once| {
        let of = |name: &'static str| orders(&once).layer().principal(move |_| name.to_owned());
        let key = fresh("order");
        for name in ["anna", "otto/", "a name that is too long for a key ".repeat(9).leak()] {
            let shop = Shop::new(of(name), &[201]);
            shop.order(Some(&key), name).await;
            let again = shop.order(Some(&key), name).await;
            assert_eq!((again.header("idempotent-replayed"), shop.runs()), (Some("true"), 1));
        }
    })
    .await;
}

#[tokio::test]
async fn where_the_ledger_is_away_nothing_runs_and_whoever_runs_it_can_see_why() {
    let gateway = Gateway::start();
    let shop = Shop::new(orders(&gateway.client(RETRY)).layer(), &[201]);
    gateway.kill();
    let away = shop.order(Some("k"), "one").await;
    assert_eq!(
        (away.head.status, away.code()),
        (StatusCode::SERVICE_UNAVAILABLE, json!("ledger-unavailable"))
    );
    assert_eq!(
        (away.header("onceward-advice"), away.header("retry-after"), shop.runs()),
        (Some("same-key"), Some("1"), 0)
    );
    let trouble = away.head.extensions.get::<Trouble>().unwrap();
    assert!(matches!(&*trouble.0, Error::Unreachable { .. }));
}
