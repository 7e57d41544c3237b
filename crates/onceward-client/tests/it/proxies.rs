//! What stands before the gateway, and what is lost on the way: nothing of it is believed.

use std::future::{pending, ready};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use onceward_client::transport::{Answering, TransportError};
use onceward_client::{Advice, BoxError, Call, Claims, Error, Onceward, Transport};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::retry::{Scripted, plain, refusal};

/// A claim as the gateway tells it at a time that its `Date` says.
fn claim(status: &str, lease_seconds: u64) -> Response<Bytes> {
    let said = json!({
        "key": "a", "status": status, "fence": 7, "operation": "op_1", "attempt": 1,
        "effects": "non-idempotent", "lease_until": format!("2026-01-01T00:00:{lease_seconds:02}.500Z"),
    });
    let answer = Response::builder().header("date", "Thu, 01 Jan 2026 00:00:00 GMT");
    answer.body(said.to_string().into()).unwrap()
}

const ALIEN: &str = r#"{"message":"bad gateway"}"#;

async fn done(_: onceward_client::Held) -> Result<u32, BoxError> {
    Ok(1)
}

#[tokio::test]
async fn only_what_the_gateway_says_is_an_answer_of_the_apis() {
    for (status, body) in [(200, ALIEN), (302, "{}"), (404, ALIEN), (500, ALIEN), (200, "<html>")] {
        let gateway = Scripted::new(std::iter::repeat_n(Some(plain(status, body)), 4));
        let client = gateway.client();
        let mails = client.claims("mails");
        for told in [
            mails.complete("a", 7, json!(1)).await.unwrap_err(),
            mails.renew("a", 7).await.unwrap_err(),
            client.operation("op_1").await.unwrap_err(),
            client.response("op_1").await.unwrap_err(),
        ] {
            assert!(matches!(told, Error::AnswerUnreadable { .. }), "{status} {body}: {told}");
            assert_eq!((told.advice(), told.refusal().is_none()), (Advice::Escalate, true));
        }
    }
}

#[tokio::test]
async fn a_word_counts_as_heard_where_the_claim_stands_so() {
    let gateway = Scripted::new([Some(claim("acquired", 30)), Some(claim("released", 30))]);
    let mails = gateway.client().claims("mails");
    for told in [mails.complete("a", 7, json!(1)).await, mails.renew("a", 7).await] {
        assert!(matches!(told, Err(Error::AnswerUnreadable { .. })), "{told:?}");
    }
    let other = Scripted::new([Some(claim("done", 30))]).client().claims("mails");
    assert!(other.complete("b", 7, json!(1)).await.is_err(), "it is another claim");
}

#[tokio::test]
async fn an_effect_that_ran_and_was_not_written_down_is_told_as_that() {
    let gateway = Scripted::new([Some(claim("acquired", 30)), Some(plain(500, ALIEN))]);
    let told = gateway.client().claims("mails").once("a", done).await.unwrap_err();
    assert!(matches!(told, Error::Unwritten { fence: 7, .. }), "{told}");
    assert_eq!((told.advice(), told.key()), (Advice::Escalate, Some("a")));
    // What the ledger will never take leaves a doubt at once.
    let too_large = refusal(413, "fix-request", "body-too-large");
    let answers = [claim("acquired", 30), too_large, claim("in_doubt", 30)];
    let gateway = Scripted::new(answers.map(Some));
    let told = gateway.client().claims("mails").once("a", done).await.unwrap_err();
    assert!(matches!(told, Error::Unwritten { .. }), "{told}");
    let last: Value = serde_json::from_slice(gateway.asked()[2].body()).unwrap();
    assert_eq!(last["may_have_executed"], true);
}

#[tokio::test]
async fn a_claim_and_a_read_are_asked_again_behind_a_proxy_that_is_there_alone() {
    let gateway = Scripted::new([
        Some(plain(502, "<html>")),
        None,
        Some(claim("done", 30)),
        Some(plain(503, "")),
    ]);
    let client = gateway.client();
    client.claims("mails").complete("a", 7, json!(1)).await.unwrap();
    assert_eq!(gateway.asked().len(), 3);
    let _ = client.operation("op_1").await;
    assert_eq!(gateway.asked().len(), 2);
}

#[tokio::test]
async fn what_makes_something_new_is_posted_again_under_one_key_or_not_at_all() {
    let post = async |gateway: &Scripted, path: &str, body: Value| {
        let asked: Result<Value, _> = gateway.client().ask(Method::POST, path, Some(&body)).await;
        (asked, gateway.asked())
    };
    let once = || Scripted::new([None, Some(plain(502, "")), Some(plain(200, "{}"))]);
    for path in ["/v1/events", "/v1/sagas", "/v1/operations", "/v1/operations/op_1/resend"] {
        let (told, asked) = post(&once(), path, json!({})).await;
        assert_eq!((told.unwrap(), asked.len()), (json!({}), 3));
        let keys: Vec<_> = asked.iter().map(|it| it.headers()["idempotency-key"].clone()).collect();
        assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    }
    let (told, asked) = post(&once(), "/v1/events", json!({ "key": "k" })).await;
    assert!(told.is_ok() && asked.len() == 3);
    assert!(asked.iter().all(|it| !it.headers().contains_key("idempotency-key")));
    for lost in [None, Some(plain(502, ALIEN))] {
        let (told, asked) = post(&Scripted::new([lost]), "/v1/bulk", json!({})).await;
        assert!(matches!(told, Err(Error::OutcomeUnknown(_))) && asked.len() == 1, "{told:?}");
    }
    let advised = [Some(refusal(503, "same-key", "draining")), Some(plain(200, "{}"))];
    let (told, asked) = post(&Scripted::new(advised), "/v1/bulk", json!({})).await;
    assert!(told.is_ok() && asked.len() == 2);
}

#[tokio::test]
async fn a_proxys_answer_that_is_left_at_the_end_is_no_answer() {
    let gateway = Scripted::new(std::iter::repeat_n(Some(plain(502, "<html>")), 10));
    let pay = || Call::to("pay").key("k");
    for told in [
        gateway.client().send(pay()).await.unwrap_err(),
        gateway.client().accept(pay()).await.unwrap_err(),
        Scripted::new([Some(plain(500, ALIEN))]).client().accept(pay()).await.unwrap_err(),
    ] {
        assert!(matches!(told, Error::Unreachable { .. }), "{told}");
        assert_eq!((told.advice(), told.key()), (Advice::SameKey, Some("k")));
    }
}

type Told = Option<Result<Response<Bytes>, TransportError>>;

/// A gateway that answers each request, by the last word of its path, as a test says, or never.
struct Said<F>(F);

impl<F: Fn(&str) -> Told + Send + Sync + 'static> Transport for Said<F> {
    fn call(&self, request: Request<Bytes>) -> Answering<'_> {
        let verb = request.uri().path().rsplit('/').next().unwrap_or_default();
        match (self.0)(verb) {
            Some(answer) => Box::pin(ready(answer)),
            None => Box::pin(pending()),
        }
    }
}

/// A closure for any word.
fn said<F: Fn(&str) -> Told + Send + Sync + 'static>(said: F) -> Said<F> {
    Said(said)
}

fn mails(transport: impl Transport) -> Claims {
    Onceward::builder().transport(transport).build().unwrap().claims("mails")
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_told_with_its_key_and_nothing_is_to_be_mended() {
    let client = Onceward::builder().transport(said(|_| Some(Err(TransportError::TooLarge(9)))));
    let told = client.build().unwrap().send(Call::to("pay").key("k")).await.unwrap_err();
    assert!(matches!(told, Error::AnswerTooLarge { .. }), "{told}");
    assert_eq!((told.advice(), told.key()), (Advice::Escalate, Some("k")));
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_by_what_was_granted_and_not_by_what_was_asked() {
    let renewals = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&renewals);
    let cut = mails(said(move |verb| {
        Some(Ok(match verb {
            "renew" => {
                counted.fetch_add(1, Ordering::Relaxed);
                claim("acquired", 10)
            }
            "complete" => claim("done", 10),
            _ => claim("acquired", 10),
        }))
    }));
    let held = async |held: onceward_client::Held| {
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert!(!held.is_lost());
        Ok::<_, BoxError>(1)
    };
    cut.clone().lease(Duration::from_hours(3)).once("a", held).await.unwrap();
    let renewed = renewals.swap(0, Ordering::Relaxed);
    assert!((5..=8).contains(&renewed), "{renewed}");
    // No lease has renewals without a pause.
    cut.lease(Duration::ZERO).once("a", async |_| Ok::<_, BoxError>(1)).await.unwrap();
    assert!(renewals.load(Ordering::Relaxed) <= 1);
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_renewals_are_not_heard_is_lost_with_its_lease() {
    for refused in [None, Some(401), Some(404)] {
        let away = mails(said(move |verb| match verb {
            "begin" => Some(Ok(claim("acquired", 30))),
            "complete" => Some(Ok(claim("done", 30))),
            _ => refused.map(|status| Ok(refusal(status, "fix-request", "not-found"))),
        }));
        let held = async |held: onceward_client::Held| {
            let begun = Instant::now();
            held.lost().await;
            let late = begun.elapsed() > Duration::from_millis(30_500);
            assert!(held.is_lost() && !late, "{:?}", begun.elapsed());
            Ok::<_, BoxError>(1)
        };
        away.once("a", held).await.unwrap();
    }
}

/// Claims whose begin is answered after `delay`, by a lease of half a minute; and the words that came.
fn slow(delay: Duration, renewal: fn() -> Told) -> (Claims, Arc<Mutex<Vec<String>>>) {
    let words = Arc::new(Mutex::new(Vec::new()));
    let gateway = Slow { delay, renewal, words: Arc::clone(&words) };
    (mails(gateway), words)
}

struct Slow {
    delay: Duration,
    renewal: fn() -> Told,
    words: Arc<Mutex<Vec<String>>>,
}

impl Transport for Slow {
    fn call(&self, request: Request<Bytes>) -> Answering<'_> {
        let verb = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        self.words.lock().unwrap().push(verb.clone());
        Box::pin(async move {
            match verb.as_str() {
                "begin" => tokio::time::sleep(self.delay).await,
                "renew" => match (self.renewal)() {
                    Some(told) => return told,
                    None => pending::<()>().await,
                },
                _ => {}
            }
            Ok(claim(if verb == "complete" { "done" } else { "acquired" }, 30))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_counted_from_its_asking_and_not_from_its_answer() {
    let (mails, _) = slow(Duration::from_secs(9), || None);
    let asked = Instant::now();
    let held = async |held: onceward_client::Held| {
        held.lost().await;
        assert!(asked.elapsed() < Duration::from_millis(30_500), "{:?}", asked.elapsed());
        Ok::<_, BoxError>(1)
    };
    mails.once("a", held).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_begun_late_is_renewed_before_anything_runs_and_else_given_back() {
    let late = Duration::from_secs(25);
    let (renewed, words) = slow(late, || Some(Ok(claim("acquired", 30))));
    renewed.once("a", done).await.unwrap();
    assert_eq!(*words.lock().unwrap(), ["begin", "renew", "complete"]);
    let (stale, words) = slow(late, || Some(Ok(refusal(409, "escalate", "fence-stale"))));
    let told = stale.once("a", done).await.unwrap_err();
    assert!(matches!(told, Error::Unreachable { .. }), "{told}");
    assert_eq!(*words.lock().unwrap(), ["begin", "renew", "release"], "nothing has run");
}
