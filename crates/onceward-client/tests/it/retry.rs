//! When a call is made again, and what each call carries.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, Request, Response};
use onceward_client::transport::{Answering, TransportError};
use onceward_client::{Advice, Builder, Call, Effects, Error, Onceward, RetryPolicy, Transport};
use serde_json::json;
use tokio::time::Instant;

const QUICK: RetryPolicy = RetryPolicy {
    attempts_max: 5,
    horizon: Duration::from_mins(2),
    base: Duration::from_millis(1),
    cap: Duration::from_millis(2),
    timeout: Duration::from_secs(75),
};

/// A gateway that answers as it is told, and remembers what it was asked.
#[derive(Clone, Default)]
struct Scripted {
    answers: Arc<Mutex<VecDeque<Option<Response<Bytes>>>>>,
    asked: Arc<Mutex<Vec<Request<Bytes>>>>,
}

impl Scripted {
    /// Nothing stands for an answer that does not come.
    fn new(answers: impl IntoIterator<Item = Option<Response<Bytes>>>) -> Self {
        let answers = Arc::new(Mutex::new(answers.into_iter().collect()));
        Self { answers, ..Self::default() }
    }

    fn builder(&self) -> Builder {
        Onceward::builder().url("http://gateway").transport(self.clone()).retry(QUICK)
    }

    fn client(&self) -> Onceward {
        self.builder().build().unwrap()
    }

    fn asked(&self) -> Vec<Request<Bytes>> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl Transport for Scripted {
    fn call(&self, request: Request<Bytes>) -> Answering<'_> {
        self.asked.lock().unwrap().push(request);
        let answer = self.answers.lock().unwrap().pop_front();
        let answer = answer.unwrap_or_else(|| Some(Response::new("done".into())));
        let answer = answer.ok_or_else(|| TransportError::NoAnswer("no way".into()));
        Box::pin(std::future::ready(answer))
    }
}

fn plain(status: u16, body: &'static str) -> Response<Bytes> {
    Response::builder().status(status).body(body.into()).unwrap()
}

fn refusal(status: u16, advice: &str, code: &str) -> Response<Bytes> {
    refusal_after(status, advice, code, None)
}

fn refusal_after(status: u16, advice: &str, code: &str, after: Option<&str>) -> Response<Bytes> {
    let said = json!({
        "type": format!("urn:onceward:problem:{code}"), "code": code, "advice": advice,
        "status": status, "title": "T", "detail": "D", "of_a_later_release": true,
    });
    let mut answer = Response::builder()
        .status(status)
        .header("content-type", "application/problem+json")
        .header("onceward-advice", advice);
    if let Some(after) = after {
        answer = answer.header("retry-after", after);
    }
    answer.body(said.to_string().into()).unwrap()
}

#[tokio::test]
async fn every_call_of_one_intent_has_one_key_and_the_same_bytes() {
    let gateway = Scripted::new([
        None,
        Some(refusal(503, "same-key", "draining")),
        Some(plain(502, "a proxy's")),
    ]);
    let answer =
        gateway.client().send(Call::to("pay/charges").json(&json!({ "a": [2] }))).await.unwrap();
    assert_eq!(answer.text(), "done");
    let asked = gateway.asked();
    assert_eq!(asked.len(), 4);
    for request in asked {
        assert_eq!(request.headers()["idempotency-key"], answer.key().unwrap());
        assert_eq!((request.method(), &request.body()[..]), (&Method::POST, &b"{\"a\":[2]}"[..]));
    }
}

#[tokio::test]
async fn what_only_another_request_or_a_person_can_mend_is_asked_once() {
    for (status, advice, code) in [
        (400, "fix-request", "option-invalid"),
        (409, "new-key", "key-mismatch"),
        (504, "escalate", "outcome-unknown"),
        (409, "a-later-word", "a-later-code"),
    ] {
        let gateway = Scripted::new([Some(refusal(status, advice, code))]);
        let told = gateway.client().send(Call::to("pay")).await.unwrap_err();
        assert_eq!((told.advice(), gateway.asked().len()), (Advice::from(advice), 1));
    }
}

#[tokio::test]
async fn what_passes_by_without_a_key_is_not_asked_again_for_an_upstreams_own_answer() {
    let gateway = Scripted::new([Some(plain(503, "busy"))]);
    let answer = gateway.client().send(Call::to("pay").method(Method::GET)).await.unwrap();
    assert_eq!((answer.status().as_u16(), gateway.asked().len()), (503, 1));
}

#[tokio::test(start_paused = true)]
async fn no_call_comes_earlier_than_it_was_asked_for_and_none_where_that_is_too_late() {
    let gateway = Scripted::new([Some(refusal_after(503, "same-key", "limit", Some("90")))]);
    let begun = Instant::now();
    gateway.client().send(Call::to("pay")).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(90));
    let late = Scripted::new([Some(refusal_after(503, "same-key", "limit", Some("3600")))]);
    let told = late.client().send(Call::to("pay")).await.unwrap_err();
    assert_eq!(told.retry_after(), Some(Duration::from_hours(1)));
    assert!(matches!(told, Error::Unavailable(_)), "{told}");
    assert_eq!(late.asked().len(), 1);
}

#[tokio::test]
async fn attempts_have_an_end_and_what_is_known_is_said() {
    let gateway = Scripted::new(std::iter::repeat_n(None, 9));
    let client = gateway.builder().retry(RetryPolicy { attempts_max: 3, ..QUICK }).build().unwrap();
    let told = client.send(Call::to("pay").key("k-1")).await.unwrap_err();
    assert_eq!((told.to_string().as_str(), told.key()), ("no answer came: no way", Some("k-1")));
    assert_eq!(gateway.asked().len(), 3);
}

/// A gateway that takes a request, and never answers.
struct Silent;

impl Transport for Silent {
    fn call(&self, _: Request<Bytes>) -> Answering<'_> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_never_answers_is_left_after_a_while() {
    let client = Onceward::builder().transport(Silent).build().unwrap();
    let told = client.send(Call::to("pay").key("k-1")).await.unwrap_err();
    assert!(matches!(told, Error::Unreachable { .. }), "{told}");
    assert!(told.to_string().contains("75000 ms"), "{told}");
}

#[tokio::test]
async fn an_upstreams_own_problem_is_its_answer() {
    let own = Response::builder()
        .status(422)
        .header("content-type", "application/json")
        .header("onceward-operation", "op_1")
        .body(r#"{"type":"urn:onceward:problem:limit"}"#.into());
    let gateway = Scripted::new([Some(own.unwrap())]);
    assert_eq!(gateway.client().send(Call::to("pay")).await.unwrap().status().as_u16(), 422);
}

#[tokio::test]
async fn an_answer_that_is_no_document_of_the_api_is_told_as_that() {
    let gateway = Scripted::new([Some(plain(200, "<html>"))]);
    let told = gateway.client().operation("op_1").await.unwrap_err();
    assert!(matches!(told, Error::AnswerUnreadable(_)), "{told}");
}

#[tokio::test]
async fn a_call_says_who_makes_it_and_what_it_wants() {
    let gateway = Scripted::default();
    let client = gateway.builder().url("http://gateway/once/").access_key("ow_1").build().unwrap();
    let call = Call::to("pay")
        .path("/charges?a=1")
        .key("with \"quotes\"")
        .bearer("sk_1")
        .form([("a", "1"), ("b", "x y")])
        .label("charge")
        .subject("order/1")
        .sequence(2)
        .flow_key("shop-1")
        .delay(Duration::from_millis(90_500))
        .deadline(UNIX_EPOCH + Duration::from_hours(525_960))
        .callback("shop/told")
        .parent("op_1")
        .effects(&Effects::Keyed);
    client.send(call).await.unwrap();
    let asked = gateway.asked();
    assert_eq!(asked[0].uri(), "http://gateway/once/to/pay/charges?a=1");
    assert_eq!(asked[0].body(), "a=1&b=x+y");
    for (name, value) in [
        ("idempotency-key", "\"with \\\"quotes\\\"\""),
        ("onceward-authorization", "Bearer ow_1"),
        ("authorization", "Bearer sk_1"),
        ("user-agent", concat!("onceward-rust/", env!("CARGO_PKG_VERSION"))),
        ("content-type", "application/x-www-form-urlencoded"),
        ("onceward-label", "charge"),
        ("onceward-subject", "order/1"),
        ("onceward-sequence", "2"),
        ("onceward-flow-key", "shop-1"),
        ("onceward-delay", "1m 30s 500ms"),
        ("onceward-deadline", "2030-01-01T00:00:00.000Z"),
        ("onceward-callback", "shop/told"),
        ("onceward-parent", "op_1"),
        ("onceward-effects", "keyed"),
    ] {
        assert_eq!(asked[0].headers()[name], value, "{name}");
    }
}

#[tokio::test]
async fn a_call_that_cannot_be_made_is_refused_before_anything_is_sent() {
    let gateway = Scripted::default();
    for wrong in
        [Call::to(""), Call::to("pay/../v1"), Call::to("pay").path("x"), Call::to("pay").key("")]
    {
        let told = gateway.client().send(wrong).await.unwrap_err();
        assert!(matches!(told, Error::Invalid(_)), "{told}");
    }
    assert!(gateway.asked().is_empty());
}
