//! What only the double can: upstreams of a test's own, and ends that a test decides.

use std::sync::atomic::{AtomicU32, Ordering};

use http::Response;
use onceward_client::shapes::ClaimStatus;
use onceward_client::testing::{FakeFault, FakeGateway, FakeRoute};
use onceward_client::{Begin, Call, Effects, Error, Onceward};

use crate::world::RETRY;

fn client(double: &FakeGateway) -> Onceward {
    Onceward::builder().transport(double.clone()).retry(RETRY).build().unwrap()
}

fn call() -> Call {
    Call::to("demo-unsafe/orders?script=drop,201").key("k")
}

async fn in_doubt(once: &Onceward) -> String {
    let told = once.send(call()).await.unwrap_err();
    assert!(matches!(told, Error::OutcomeUnknown(_)), "{told}");
    told.operation().unwrap().to_owned()
}

#[tokio::test]
async fn a_doubt_that_is_resolved_as_done_is_answered_so_from_then_on() {
    let double = FakeGateway::new();
    let once = client(&double);
    let operation = in_doubt(&once).await;
    double.resolve_done(
        &operation,
        Response::builder().status(201).body("in the books".into()).unwrap(),
    );
    let answer = once.send(call()).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &*answer.text(), answer.replayed()),
        (201, "in the books", true)
    );
}

#[tokio::test]
async fn a_doubt_that_is_resolved_as_not_sent_lets_the_same_key_run() {
    let double = FakeGateway::new();
    let once = client(&double);
    double.resolve_not_sent(&in_doubt(&once).await);
    let answer = once.send(call()).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.replayed(), answer.attempts()),
        (201, false, Some(2))
    );
}

#[tokio::test]
async fn an_upstream_that_was_not_reached_has_done_nothing_whatever_its_effects() {
    let troubles = AtomicU32::new(6);
    let bank = FakeRoute::new(move |_| {
        let left =
            troubles.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if left.is_ok() { Err(FakeFault::Unsent) } else { Ok(Response::new("done".into())) }
    });
    let once = client(&FakeGateway::new().route("bank", bank));
    let pay = || Call::to("bank/payments").key("k");
    let told = once.send(pay()).await.unwrap_err();
    assert!(matches!(told, Error::Unavailable(_)), "{told}");
    assert_eq!(once.send(pay()).await.unwrap().text(), "done");
}

#[tokio::test]
async fn a_lease_that_ends_leaves_a_doubt_or_a_key_that_is_free_where_that_is_harmless() {
    let double = FakeGateway::new();
    let claims = client(&double).claims("mails");
    claims.begin("a", &Begin::new()).await.unwrap();
    double.lapse("mails", "a");
    assert_eq!(claims.begin("a", &Begin::new()).await.unwrap().status, ClaimStatus::InDoubt);
    let harmless = Begin::new().effects(Effects::Idempotent);
    let first = claims.begin("b", &harmless).await.unwrap();
    double.lapse("mails", "b");
    let second = claims.begin("b", &Begin::new()).await.unwrap();
    assert_eq!(second.status, ClaimStatus::Acquired);
    assert!(second.fence > first.fence);
}

#[tokio::test(start_paused = true)]
async fn an_effect_hears_that_its_claim_is_lost_and_cannot_end_it_any_more() {
    let double = FakeGateway::new();
    let claims = client(&double).claims("mails").effects(Effects::Idempotent);
    let told = claims
        .once("a", async |held| {
            double.lapse("mails", "a");
            let other = claims.begin("a", &Begin::new()).await?;
            assert!(other.fence > Some(held.fence));
            // With its next sign of life.
            held.lost().await;
            assert!(held.is_lost());
            Ok::<_, Error>(1)
        })
        .await
        .unwrap_err();
    assert!(matches!(told, Error::FenceStale(_)), "{told}");
}
