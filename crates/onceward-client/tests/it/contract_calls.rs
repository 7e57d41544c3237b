//! Calls: what holds of the gateway holds of its double.

use std::time::Duration;

use http::Method;
use onceward_client::shapes::Mode;
use onceward_client::{Advice, Call, Error, Onceward, ProblemCode, State};
use serde_json::{Value, json};

use crate::world::{RETRY, fresh, of_both};

const SOON: Duration = Duration::from_mins(1);

fn order(key: &str) -> Call {
    Call::to("demo/orders").key(key).json(&json!({ "qty": 1 }))
}

async fn charged(once: &Onceward) -> u64 {
    let effects = once.send(Call::to("demo/effects").method(Method::GET)).await.unwrap();
    effects.json::<Value>().unwrap()["count"].as_u64().unwrap()
}

#[tokio::test]
async fn a_call_is_answered_by_its_upstream_and_its_repeat_from_memory() {
    of_both(async |once| {
        let key = fresh("order");
        let first = once.send(order(&key)).await.unwrap();
        assert_eq!((first.status().as_u16(), first.ok(), first.replayed()), (201, true, false));
        assert_eq!((first.state(), first.key()), (Some(State::Done), Some(&*key)));
        let second = once.send(order(&key)).await.unwrap();
        assert!(second.replayed());
        assert_eq!((second.operation(), second.body()), (first.operation(), first.body()));
        assert_eq!(second.header("content-type"), first.header("content-type"));
    })
    .await;
}

#[tokio::test]
async fn attempts_that_fail_and_lose_their_answer_come_to_one_effect() {
    // Of its own, for it counts.
    let gateway = crate::world::Gateway::start();
    let double = onceward_client::testing::FakeGateway::new();
    let double = Onceward::builder().transport(double).retry(RETRY).build().unwrap();
    for once in [gateway.client(RETRY), double] {
        let earlier = charged(&once).await;
        let call = Call::to("demo/orders").path("?script=503,drop,201").key(fresh("order"));
        let answer = once.send(call.body("a")).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.attempts()), (201, Some(3)));
        assert_eq!(charged(&once).await, earlier + 1);
    }
}

#[tokio::test]
async fn a_call_without_a_key_gets_one_and_a_call_that_only_reads_does_not() {
    of_both(async |once| {
        let written = once.send(Call::to("demo").path("/orders").body("a")).await.unwrap();
        assert!(written.key().is_some());
        assert_eq!(written.header("idempotency-key"), written.key());
        let read = once.send(Call::to("demo/effects").method(Method::GET)).await.unwrap();
        assert_eq!((read.key(), read.operation()), (None, None));
    })
    .await;
}

#[tokio::test]
async fn the_same_key_with_another_request_is_refused_and_says_where_it_differs() {
    of_both(async |once| {
        let key = fresh("order");
        once.send(Call::to("demo/orders").key(&key).body("a")).await.unwrap();
        let told = once.send(Call::to("demo/orders").key(&key).body("b")).await.unwrap_err();
        assert_eq!((told.code(), told.advice()), (Some(&ProblemCode::KeyMismatch), Advice::NewKey));
        assert_eq!(told.key(), Some(&*key));
        let Error::KeyMismatch(refusal) = told else { panic!("{told}") };
        assert_eq!(refusal.problem().differs.as_deref(), Some(&["body".to_owned()][..]));
    })
    .await;
}

#[tokio::test]
async fn what_lost_its_answer_is_in_doubt_where_a_second_arrival_is_a_second_effect() {
    of_both(async |once| {
        let key = fresh("order");
        let call = || Call::to("demo-unsafe/orders?script=drop").key(&key).body("a");
        for status in [504, 409] {
            let told = once.send(call()).await.unwrap_err();
            assert_eq!(told.advice(), Advice::Escalate);
            assert!(told.operation().unwrap().starts_with("op_"));
            let Error::OutcomeUnknown(refusal) = told else { panic!("{told}") };
            assert_eq!(refusal.problem().status, status);
        }
    })
    .await;
}

#[tokio::test]
async fn an_ambiguous_answer_of_the_upstreams_own_is_in_doubt_too() {
    of_both(async |once| {
        let call = Call::to("demo-unsafe/orders?script=500").key(fresh("order")).body("a");
        let told = once.send(call).await.unwrap_err();
        let Error::OutcomeUnknown(refusal) = told else { panic!("{told}") };
        assert_eq!(refusal.answer().unwrap().status().as_u16(), 500);
    })
    .await;
}

#[tokio::test]
async fn a_refusal_of_the_upstreams_is_its_answer_and_is_kept() {
    of_both(async |once| {
        let key = fresh("order");
        let call = || Call::to("demo/orders?script=404").key(&key).body("a");
        let first = once.send(call()).await.unwrap();
        assert_eq!((first.status().as_u16(), first.ok()), (404, false));
        assert!(once.send(call()).await.unwrap().replayed());
    })
    .await;
}

#[tokio::test]
async fn what_can_be_tried_again_is_with_the_same_key_under_the_same_operation() {
    of_both(async |once| {
        let call = Call::to("demo/orders?script=503,503,503,503,503,201").key(fresh("order"));
        let answer = once.send(call.body("a")).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.attempts()), (201, Some(6)));
    })
    .await;
}

#[tokio::test]
async fn a_call_that_is_accepted_goes_on_by_itself() {
    of_both(async |once| {
        let key = fresh("order");
        let accepted = once.accept(order(&key)).await.unwrap();
        assert_eq!(accepted.key.as_deref(), Some(&*key));
        let story = once.wait(&accepted.operation, SOON).await.unwrap();
        assert_eq!((&story.state, story.ok, &story.key), (&State::Done, Some(true), &key));
        assert_eq!((story.mode, story.attempts.len()), (Mode::Accepted, 1));
        assert_eq!(once.response(&accepted.operation).await.unwrap().status, 201);
        let again = once.accept_within(order(&key), SOON).await.unwrap();
        assert_eq!(again.operation, accepted.operation);
        assert!(again.answer.unwrap().replayed());
    })
    .await;
}

#[tokio::test]
async fn an_accepted_call_that_is_refused_is_a_dead_letter_with_its_outcome() {
    of_both(async |once| {
        let call = Call::to("demo/orders?script=404").key(fresh("order")).body("a");
        let accepted = once.accept(call).await.unwrap();
        let story = once.wait(&accepted.operation, SOON).await.unwrap();
        assert_eq!((story.state, story.ok, story.told), (State::Dead, Some(false), false));
        assert_eq!(story.outcome.unwrap().status, Some(404));
    })
    .await;
}

#[tokio::test]
async fn waiting_for_what_is_in_doubt_says_so() {
    of_both(async |once| {
        let call = Call::to("demo-unsafe/orders?script=drop").key(fresh("order")).body("a");
        let accepted = once.accept(call).await.unwrap();
        let told = once.wait(&accepted.operation, SOON).await.unwrap_err();
        assert!(matches!(told, Error::OutcomeUnknown(_)), "{told}");
    })
    .await;
}

#[tokio::test]
async fn what_is_not_there_is_refused() {
    of_both(async |once| {
        let told = once.send(Call::to("nowhere/orders").body("a")).await.unwrap_err();
        assert_eq!(told.code(), Some(&ProblemCode::RouteUnknown));
        assert!(matches!(told, Error::Refused(_)), "{told}");
        let told = once.operation("op_01kb2n9f5nep3b8m6wq6r9t2vx").await.unwrap_err();
        assert_eq!(told.code(), Some(&ProblemCode::NotFound));
        let reads = Call::to("demo/effects").method(Method::GET);
        let told = once.accept(reads).await.unwrap_err();
        assert!(matches!(told, Error::Refused(_)), "{told}");
    })
    .await;
}

#[tokio::test]
async fn a_gateway_that_is_not_there_is_told_from_one_that_refuses() {
    let once = Onceward::builder().url("http://127.0.0.1:1").retry(RETRY).build().unwrap();
    let told = once.send(Call::to("demo/orders").key("k").body("a")).await.unwrap_err();
    assert!(told.to_string().contains("refused"), "{told}");
    assert_eq!((told.key(), told.advice()), (Some("k"), Advice::SameKey));
    assert!(matches!(told, Error::Unreachable { .. }), "{told}");
}
