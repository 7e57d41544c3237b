//! Handlers behind the layer: the contract in one's own process.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::{self, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use axum::{Extension, Router, routing};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use onceward::core::exchange::{self, Headers};
use onceward::core::operation::State;
use onceward::core::policy::{Effects, KeyMissing, Meaning};
use onceward::layer::{self, Keyed, OncewardLayer};
use onceward::store::Query;
use onceward::{Onceward, Person, Resolution, StartError};
use serde_json::Value;
use tokio::sync::{Notify, Semaphore, mpsc};
use tower::ServiceExt as _;

use crate::layer_world::{Piped, Process, Server, get, keyed, send, text, until};
use crate::postgres;

/// What the handlers of a test did.
struct Books {
    effects: AtomicUsize,
    began: Notify,
    go_on: Semaphore,
}

impl Default for Books {
    fn default() -> Self {
        let go_on = Semaphore::new(0);
        Self { effects: AtomicUsize::default(), began: Notify::new(), go_on }
    }
}

impl Books {
    fn effects(&self) -> usize {
        self.effects.load(Ordering::Acquire)
    }
}

/// An effect, and an answer that no other run gives.
async fn order(
    extract::State(books): extract::State<Arc<Books>>,
    body: Bytes,
) -> impl IntoResponse {
    let n = books.effects.fetch_add(1, Ordering::AcqRel) + 1;
    let body = format!("order {n}: {}", String::from_utf8_lossy(&body));
    (StatusCode::CREATED, [("content-type", "text/x-order"), ("x-secret", "1")], body)
}

fn orders(layer: OncewardLayer, books: &Arc<Books>) -> Router {
    Router::new().route("/orders", post(order)).layer(layer).with_state(Arc::clone(books))
}

async fn open() -> (Onceward, Arc<Books>) {
    (Onceward::memory().await.unwrap(), Arc::default())
}

#[tokio::test]
async fn a_repeat_gets_the_first_answers_bytes_and_the_handler_runs_once() {
    let (once, books) = open().await;
    let app = orders(once.layer("orders"), &books);
    let first = send(&app, keyed("k-1", "{\"amount\":100}")).await;
    assert_eq!(first.status(), StatusCode::CREATED);
    assert_eq!(first.headers()["idempotent-replayed"], "false");
    assert_eq!(first.headers()["onceward-state"], "done");
    assert_eq!(first.headers()["idempotency-key"], "k-1");
    assert!(first.headers().contains_key("onceward-key-expires"));
    let again = send(&app, keyed("k-1", "{ \"amount\": 100 }")).await;
    assert_eq!(again.status(), StatusCode::CREATED);
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert_eq!(again.headers()["content-type"], "text/x-order");
    assert_eq!(again.headers()["onceward-operation"], first.headers()["onceward-operation"]);
    assert_eq!(text(again).await, "order 1: {\"amount\":100}");
    assert_eq!(books.effects(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_that_come_at_once_one_runs_and_all_get_its_bytes() {
    let (once, books) = open().await;
    let slow = async |extract::State(books): extract::State<Arc<Books>>| {
        books.began.notify_one();
        let _go = books.go_on.acquire().await;
        format!("effect {}", books.effects.fetch_add(1, Ordering::AcqRel))
    };
    let app = Router::new()
        .route("/orders", post(slow))
        .layer(once.layer("orders"))
        .with_state(Arc::clone(&books));
    let server = Server::start(app).await;
    let calls: Vec<_> = (0..100)
        .map(|_| tokio::spawn(server.post("/orders", &[("idempotency-key", "k")], "{}")))
        .collect();
    books.began.notified().await;
    books.go_on.add_permits(100);
    for call in calls {
        let (status, _, body) = call.await.unwrap();
        assert_eq!((status, body.as_ref()), (200, &b"effect 0"[..]));
    }
    assert_eq!(books.effects(), 1);
    once.stop().await;
}

#[tokio::test]
async fn the_same_key_with_another_request_is_refused_and_told_where_it_differs() {
    let (once, books) = open().await;
    let app = orders(once.layer("orders"), &books);
    send(&app, keyed("k", r#"{"amount":100,"to":"anna"}"#)).await;
    let other = send(&app, keyed("k", r#"{"amount":101,"to":"anna"}"#)).await;
    assert_eq!(other.status(), StatusCode::CONFLICT);
    assert_eq!(other.headers()["content-type"], "application/problem+json");
    let problem: Value = serde_json::from_str(&text(other).await).unwrap();
    assert_eq!(problem["code"], "key-mismatch");
    assert_eq!(problem["paths"], serde_json::json!(["/amount"]));
    assert_eq!(problem["instance"], Value::Null, "there is no such path here");
    assert_eq!(books.effects(), 1);
}

#[tokio::test]
async fn a_key_is_its_principals_own_and_opens_nothing_to_another() {
    let (once, books) = open().await;
    let layer = once.layer("orders").principal(|head| {
        head.headers.get("x-user").map_or_else(String::new, |user| user.to_str().unwrap().into())
    });
    let app = orders(layer, &books);
    let ask = async |user: &'static str| {
        let mut request = keyed("k", "{}");
        request.headers_mut().insert("x-user", user.parse().unwrap());
        text(send(&app, request).await).await
    };
    assert_eq!(ask("anna").await, "order 1: {}");
    assert_eq!(ask("bert").await, "order 2: {}");
    assert_eq!(ask("anna").await, "order 1: {}");
}

#[tokio::test]
async fn what_has_no_key_passes_is_refused_or_gets_one_as_the_layer_says() {
    let (once, books) = open().await;
    let unkeyed = || {
        let mut request = keyed("k", "{}");
        request.headers_mut().remove("idempotency-key");
        request
    };
    let app = orders(once.layer("passing"), &books);
    let passed = send(&app, unkeyed()).await;
    assert_eq!(passed.headers()["x-secret"], "1");
    assert!(!passed.headers().contains_key("onceward-operation"), "there is no record of it");
    let app = orders(once.layer("wanting").key_missing(KeyMissing::Require), &books);
    let refused = send(&app, unkeyed()).await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    let app = orders(once.layer("making").key_missing(KeyMissing::Make), &books);
    let made = send(&app, unkeyed()).await;
    assert_eq!(made.headers()["onceward-key-made"], "true");
    let key = made.headers()["idempotency-key"].to_str().unwrap().to_owned();
    let first = text(made).await;
    assert_eq!(text(send(&app, keyed(&key, "{}")).await).await, first);
    assert_eq!(books.effects(), 2);
    let bad = send(&app, keyed("", "{}")).await;
    assert_eq!(bad.status(), StatusCode::BAD_REQUEST, "a bad key is no missing one");
}

#[tokio::test]
async fn what_passes_is_streamed_both_ways_as_it_comes() {
    let (once, _) = open().await;
    // Answers each piece while the upload goes on.
    let echo = async |request: Request| Body::new(request.into_body());
    let app = Router::new().route("/echo", any(echo)).layer(once.layer("echo").body_bytes_max(4));
    let server = Server::start(app).await;
    let (pieces, mut answer) = server.upload("/echo").await;
    for n in 0..64 {
        let piece = Bytes::from(vec![n; 64 << 10]);
        pieces.send(piece.clone()).await.unwrap();
        let mut back = Vec::new();
        while back.len() < piece.len() {
            back.extend_from_slice(&answer.frame().await.unwrap().unwrap().into_data().unwrap());
        }
        assert_eq!(back, piece);
    }
    drop(pieces);
    assert!(answer.frame().await.is_none());
}

#[tokio::test]
async fn events_reach_their_reader_one_by_one() {
    let (once, _) = open().await;
    let (pieces, events) = mpsc::channel::<Bytes>(1);
    let events = Arc::new(Mutex::new(Some(events)));
    let listen = async move || {
        let events = events.lock().unwrap().take().unwrap();
        ([(header::CONTENT_TYPE, "text/event-stream")], Body::new(Piped(events)))
    };
    let app = Router::new().route("/events", routing::get(listen)).layer(once.layer("e"));
    let mut answer = send(&app, get("/events")).await.into_body();
    for n in 0..3 {
        pieces.send(Bytes::from(format!("data: {n}\n\n"))).await.unwrap();
        let event = answer.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(event, format!("data: {n}\n\n"));
    }
}

#[tokio::test]
async fn extensions_headers_and_the_operations_name_reach_the_handler() {
    #[derive(Clone)]
    struct User(&'static str);
    let (once, _) = open().await;
    let who = async |Extension(user): Extension<User>,
                     Extension(keyed): Extension<Keyed>,
                     headers: HeaderMap| {
        let host = headers[header::HOST].to_str().unwrap().to_owned();
        assert_eq!(headers["accept-encoding"], "identity", "a replay has to be readable");
        assert_eq!(headers["x-forwarded-for"], "9.9.9.9");
        assert_eq!(headers["authorization"], "Bearer t");
        format!("{} {} {} {}", user.0, keyed.key, keyed.attempt, host)
    };
    let app = Router::new()
        .route("/who", post(who))
        .layer(once.layer("who"))
        .layer(Extension(User("anna")));
    let mut request = keyed("k", "{}");
    *request.uri_mut() = "/who".parse().unwrap();
    for (name, value) in [
        ("host", "shop.example"),
        ("x-forwarded-for", "9.9.9.9"),
        ("accept-encoding", "gzip"),
        ("authorization", "Bearer t"),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    assert_eq!(text(send(&app, request).await).await, "anna k 1 shop.example");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_hangs_up_changes_nothing() {
    let (once, books) = open().await;
    let slow = async |extract::State(books): extract::State<Arc<Books>>| {
        books.began.notify_one();
        let _go = books.go_on.acquire().await;
        format!("effect {}", books.effects.fetch_add(1, Ordering::AcqRel) + 1)
    };
    let app = Router::new()
        .route("/orders", post(slow))
        .layer(once.layer("orders"))
        .with_state(Arc::clone(&books));
    let server = Server::start(app).await;
    let gone = tokio::spawn(server.post("/orders", &[("idempotency-key", "k")], "{}"));
    books.began.notified().await;
    gone.abort();
    books.go_on.add_permits(9);
    let (status, headers, body) = server.post("/orders", &[("idempotency-key", "k")], "{}").await;
    assert_eq!((status, body.as_ref()), (200, &b"effect 1"[..]));
    assert_eq!(headers["idempotent-replayed"], "true");
    assert_eq!(books.effects(), 1);
}

#[tokio::test]
async fn a_handler_that_panics_is_in_doubt_where_a_second_run_is_a_second_effect() {
    let (once, books) = open().await;
    let fails = async |extract::State(books): extract::State<Arc<Books>>| {
        assert!(books.effects.fetch_add(1, Ordering::AcqRel) > 0, "it panics the first time");
        "done"
    };
    let app = |layer| {
        Router::new().route("/orders", post(fails)).layer(layer).with_state(Arc::clone(&books))
    };
    let risky = app(once.layer("risky"));
    let first = send(&risky, keyed("k", "{}")).await;
    assert_eq!(first.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(first.headers()["onceward-state"], "in_doubt");
    let again = send(&risky, keyed("k", "{}")).await;
    assert_eq!(again.status(), StatusCode::CONFLICT);
    assert_eq!(again.headers()["onceward-advice"], "escalate");
    assert_eq!(books.effects(), 1, "it is never run again by itself");
    books.effects.store(0, Ordering::Release);
    let harmless = app(once.layer("harmless").effects(Effects::Idempotent));
    let first = send(&harmless, keyed("k", "{}")).await;
    assert_eq!(first.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(first.headers()["onceward-advice"], "same-key");
    assert_eq!(text(send(&harmless, keyed("k", "{}")).await).await, "done");
}

#[tokio::test]
async fn a_status_means_what_the_layer_says() {
    let (once, books) = open().await;
    let fails = async |extract::State(books): extract::State<Arc<Books>>| match books
        .effects
        .fetch_add(1, Ordering::AcqRel)
    {
        0 => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        1 => (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "3600")]).into_response(),
        _ => "done".into_response(),
    };
    let app = Router::new()
        .route("/orders", post(fails))
        .layer(once.layer("orders").means(500, Meaning::NotProcessed))
        .with_state(Arc::clone(&books));
    let statuses = [500, 429, 200, 200];
    for status in statuses {
        assert_eq!(send(&app, keyed("k", "{}")).await.status(), status);
    }
    assert_eq!(books.effects(), 3);
    assert_eq!(send(&app, keyed("other", "{}")).await.status(), 200, "nobody else is held back");
}

#[tokio::test]
async fn a_large_answer_goes_to_its_caller_and_only_its_fact_is_kept() {
    let (once, _) = open().await;
    let large = async || vec![7u8; 100_000];
    let app = Router::new()
        .route("/orders", post(large))
        .layer(once.layer("orders").response_bytes_max(1000).body_bytes_max(10));
    let first = send(&app, keyed("k", "{}")).await;
    assert_eq!(first.into_body().collect().await.unwrap().to_bytes().len(), 100_000);
    let again = send(&app, keyed("k", "{}")).await;
    let problem: Value = serde_json::from_str(&text(again).await).unwrap();
    assert_eq!((&problem["code"], &problem["ok"]), (&"response-not-retained".into(), &true.into()));
    let too_large = send(&app, keyed("l", "12345678901")).await;
    assert_eq!(too_large.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn any_service_has_it_that_speaks_http() {
    let (once, _) = open().await;
    let inner = tower::service_fn(async |request: http::Request<layer::Body<Full<Bytes>>>| {
        let body = request.into_body().collect().await.map_err(|_| "broken").unwrap().to_bytes();
        Ok::<_, Infallible>(http::Response::new(Full::new(body)))
    });
    let service = tower_layer::Layer::layer(&once.layer("plain"), inner);
    for replayed in ["false", "true"] {
        let request = keyed("k", "said").map(|_| layer::Body::new(Full::from("said")));
        let response = service.clone().oneshot(request).await.unwrap();
        assert_eq!(response.headers()["idempotent-replayed"], replayed);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "said");
    }
}

#[tokio::test]
async fn a_layer_within_itself_does_not_wait_for_itself() {
    let (once, books) = open().await;
    let app = orders(once.layer("orders"), &books).layer(once.layer("orders"));
    for replayed in ["false", "true"] {
        let answer = send(&app, keyed("k", "{}")).await;
        assert_eq!(answer.headers()["idempotent-replayed"], replayed);
        assert_eq!(text(answer).await, "order 1: {}");
    }
}

#[tokio::test]
async fn what_was_stopped_refuses_and_lets_its_ledger_go() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let books = Arc::<Books>::default();
    for replayed in ["false", "true", "true"] {
        let once = Onceward::sqlite(&path).await.unwrap();
        let app = orders(once.layer("orders"), &books);
        let answer = send(&app, keyed("k", "{}")).await;
        assert_eq!(answer.headers()["idempotent-replayed"], replayed);
        assert_eq!(text(answer).await, "order 1: {}");
        once.stop().await;
        let late = send(&app, keyed("k", "{}")).await;
        assert_eq!(late.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    // Under another key every repeat would be a mismatch.
    std::fs::write(folder.path().join("master.key"), [1; 32]).unwrap();
    let error = Onceward::sqlite(&path).await.unwrap_err();
    assert!(matches!(error, StartError::Keys(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_stops_waits_for_the_handlers_that_run() {
    let (once, books) = open().await;
    let slow = async |extract::State(books): extract::State<Arc<Books>>| {
        books.began.notify_one();
        let _go = books.go_on.acquire().await;
        "done"
    };
    let app = Router::new()
        .route("/orders", post(slow))
        .layer(once.layer("orders"))
        .with_state(Arc::clone(&books));
    let server = Server::start(app).await;
    let running = tokio::spawn(server.post("/orders", &[("idempotency-key", "k")], "{}"));
    books.began.notified().await;
    let stopping = once.clone();
    let stopping = tokio::spawn(async move { stopping.stop().await });
    let refuses = async || {
        let (status, _, body) = server.post("/orders", &[("idempotency-key", "l")], "{}").await;
        status == 503 && body.windows(8).any(|part| part == b"draining")
    };
    // Until it has begun to stop, a handler begins and waits with the first.
    until(|| once.engine().is_halted()).await;
    assert!(refuses().await);
    assert!(!stopping.is_finished(), "a handler runs still");
    books.go_on.add_permits(1);
    assert_eq!(running.await.unwrap().2, "done");
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_share_a_ledger_run_a_handler_once_between_them() {
    let Some(server) = postgres::server() else { return };
    let url = server.database().await;
    let books = Arc::<Books>::default();
    let mut servers = Vec::new();
    for _ in 0..3 {
        let once = Onceward::postgres(&url, [7; 32]).await.unwrap();
        servers.push(Server::start(orders(once.layer("orders"), &books)).await);
    }
    let calls: Vec<_> = (0..30)
        .map(|n| tokio::spawn(servers[n % 3].post("/orders", &[("idempotency-key", "k")], "x")))
        .collect();
    for call in calls {
        let (status, _, body) = call.await.unwrap();
        assert_eq!((status, body.as_ref()), (201, &b"order 1: x"[..]));
    }
    assert_eq!(books.effects(), 1);
    let other = Onceward::postgres(&url, [8; 32]).await.unwrap_err();
    assert!(matches!(other, StartError::Keys(_)), "{other}");
}

fn append(path: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

/// The process of the tests below, where it is started as such: one effect is a line in a file, and
/// then the handler never comes back.
#[test]
fn a_process_to_kill() {
    let Ok(folder) = std::env::var("TEST_LAYER_FOLDER") else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let folder = Path::new(&folder).to_owned();
        let once = Onceward::sqlite(folder.join("ledger.db")).await.unwrap();
        let effects = folder.join("effects");
        let log = folder.join("log");
        // An effect is a line with its key; a kill falls before it, after it, or nowhere.
        let note = async move |Extension(keyed): Extension<Keyed>| {
            append(&log, format!("{}\n", keyed.key).as_bytes());
            tokio::task::yield_now().await;
            keyed.operation.to_string()
        };
        let hang = async move || -> Response {
            append(&effects, b"x");
            std::future::pending().await
        };
        let quick = async || "quick";
        let app = Router::new()
            .route("/hang", post(hang))
            .route("/quick", post(quick))
            .route("/note", post(note))
            .layer(once.layer("killed"));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::fs::write(folder.join("address.new"), address).unwrap();
        std::fs::rename(folder.join("address.new"), folder.join("address")).unwrap();
        axum::serve(listener, app).await.unwrap();
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_in_a_handler_leaves_a_doubt_and_nothing_is_run_again() {
    let folder = tempfile::tempdir().unwrap();
    let effects = || std::fs::read(folder.path().join("effects")).unwrap_or_default().len();
    let mut killed = Process::start(folder.path()).await;
    let (_, _, quick) = killed.server.keyed("/quick", "q").await.unwrap();
    let gone = tokio::spawn(killed.server.keyed("/hang", "k"));
    until(|| effects() == 1).await;
    killed.kill();
    assert!(gone.await.unwrap().is_err(), "its caller got no answer");
    for _ in 0..2 {
        let mut next = Process::start(folder.path()).await;
        let (status, headers, body) = next.server.keyed("/hang", "k").await.unwrap();
        let problem: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((status, &problem["code"]), (409, &"outcome-unknown".into()));
        assert_eq!(headers["onceward-state"], "in_doubt");
        let (_, headers, again) = next.server.keyed("/quick", "q").await.unwrap();
        assert_eq!((&again, &headers["idempotent-replayed"]), (&quick, &"true".parse().unwrap()));
        next.kill();
    }
    assert_eq!(effects(), 1);
    // A person says what the books have, and the same key gets it.
    let once = Onceward::sqlite(folder.path().join("ledger.db")).await.unwrap();
    let query = Query { route: Some("killed".to_owned()), limit: 9, ..Query::default() };
    let page = once.engine().store().list(query).await.unwrap();
    let doubtful = page.operations.into_iter().find(|it| it.state == State::InDoubt).unwrap();
    let answer = exchange::Response {
        status: 201,
        headers: Headers::default(),
        body: Bytes::from_static(b"found"),
        trailers: Headers::default(),
    };
    let person = Person { who: "anna".to_owned(), reason: "it is in the books".to_owned() };
    let done = Resolution::Done(Some(answer));
    once.engine().resolve(doubtful.id, &done, &person).await.unwrap();
    let app = Router::new().route("/hang", post(async || "again")).layer(once.layer("killed"));
    let mut request = keyed("k", "");
    *request.uri_mut() = "/hang".parse().unwrap();
    request.headers_mut().remove("content-type");
    let answer = send(&app, request).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(text(answer).await, "found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_person_says_was_not_done_is_run_again_under_its_key() {
    let (once, books) = open().await;
    let fails = async |extract::State(books): extract::State<Arc<Books>>| match books
        .effects
        .fetch_add(1, Ordering::AcqRel)
    {
        0 => StatusCode::BAD_GATEWAY,
        _ => StatusCode::OK,
    };
    let app = Router::new()
        .route("/orders", post(fails))
        .layer(once.layer("orders"))
        .with_state(Arc::clone(&books));
    let first = send(&app, keyed("k", "{}")).await;
    assert_eq!(first.status(), StatusCode::BAD_GATEWAY, "the handler's own answer");
    let operation = first.headers()["onceward-operation"].to_str().unwrap().parse().unwrap();
    let person = Person { who: "anna".to_owned(), reason: "it is not in the books".to_owned() };
    once.engine().resolve(operation, &Resolution::NotSent, &person).await.unwrap();
    // Nobody is there whose handler it could be done by, until the caller is.
    loop {
        let again = send(&app, keyed("k", "{}")).await;
        if again.status() == StatusCode::OK {
            break;
        }
        assert_eq!(again.headers()["onceward-advice"], "same-key", "{again:?}");
    }
    assert_eq!(books.effects(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_often_the_process_is_killed_no_effect_is_doubled_and_no_answer_changes() {
    const CALLERS: usize = 12;
    const KILLS: usize = 8;
    let folder = tempfile::tempdir().unwrap();
    let log = || std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    let mut process = Process::start(folder.path()).await;
    let address = Arc::new(Mutex::new(process.server.clone()));
    let is_over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| tokio::spawn(call_until(Arc::clone(&address), Arc::clone(&is_over), caller)))
        .collect();
    for kill in 1..=KILLS {
        // Each falls into work: so many effects later.
        let seen = log().lines().count();
        until(|| log().lines().count() >= seen + 17 + kill).await;
        process.kill();
        process = Process::start(folder.path()).await;
        *address.lock().unwrap() = process.server.clone();
    }
    is_over.store(true, Ordering::Release);
    let mut heard = Vec::new();
    for caller in callers {
        heard.extend(caller.await.unwrap());
    }
    let log = log();
    let mut effects = BTreeMap::<&str, usize>::new();
    log.lines().for_each(|key| *effects.entry(key).or_default() += 1);
    assert!(effects.values().all(|count| *count == 1), "an effect is there twice");
    let (mut done, mut doubts) = (0, 0);
    for (key, body) in &heard {
        match body {
            Some(body) => {
                assert!(effects.contains_key(key.as_str()), "{key} was answered and is missing");
                let (_, _, again) = process.server.keyed("/note", key).await.unwrap();
                assert_eq!(again, *body, "{key} has another answer now");
                done += 1;
            }
            None => doubts += 1,
        }
    }
    assert!(done > 0 && doubts <= CALLERS * KILLS, "{done} done, {doubts} in doubt");
}

/// Posts under one key after the other, each until it is answered or in doubt.
async fn call_until(
    address: Arc<Mutex<Server>>,
    is_over: Arc<AtomicBool>,
    caller: usize,
) -> Vec<(String, Option<Bytes>)> {
    let mut heard = Vec::new();
    for n in 0.. {
        let key = format!("{caller}-{n}");
        let outcome = loop {
            let server = address.lock().unwrap().clone();
            match server.keyed("/note", &key).await {
                Ok((200, _, body)) => break Some(body),
                Ok((409 | 504, headers, _)) if headers["onceward-state"] == "in_doubt" => {
                    break None;
                }
                // It is under way, or the process is gone, or not there yet.
                Ok(_) | Err(_) => tokio::task::yield_now().await,
            }
        };
        heard.push((key, outcome));
        if is_over.load(Ordering::Acquire) {
            break;
        }
    }
    heard
}
