//! Where the upstream's key goes: a header, the body or the query, with the same bytes each time.

use onceward::Refusal;
use onceward::core::policy::{Effects, KeyMissing, Policy, UpstreamKeyRule, UpstreamKeyValue};
use onceward::core::upstream_key::KeyPlace;

use crate::world::{answer, answered, effects, every, post, unanswered};

fn at(place: &str) -> Policy {
    let place = KeyPlace::from_text(place);
    let upstream_key = UpstreamKeyRule { place, ..UpstreamKeyRule::default() };
    Policy { upstream_key, ..effects(Effects::Keyed) }
}

#[tokio::test]
async fn a_key_in_the_body_is_the_same_bytes_at_each_attempt_through_a_restart() {
    for mut world in every(&at("/idempotency_key")) {
        world.upstream.script([unanswered(), unanswered(), unanswered(), answer(201, "made")]);
        world.call_through(post("k")).await.unwrap_err();
        world.restart().await;
        let got = answered(world.call_through(post("k")).await);
        assert_eq!(got.response.status, 201);
        let seen = world.upstream.seen();
        assert_eq!(seen.len(), 4);
        for one in &seen {
            assert_eq!(one.body, r#"{"idempotency_key":"k","amount": 100, "to": "anna"}"#);
            assert_eq!(one.key(), "k", "the header says which key it was");
        }
    }
}

#[tokio::test]
async fn a_retry_that_is_written_otherwise_is_still_the_same_request() {
    for world in every(&at("/idempotency_key")) {
        world.upstream.script([answer(201, "made")]);
        world.answered(post("k")).await;
        let mut retry = post("k");
        retry.request.body = r#"{"to":"anna","amount":100}"#.into();
        assert!(world.answered(retry).await.replayed);
        let mut other = post("k");
        other.request.body = r#"{"to":"anna","amount":101}"#.into();
        let refusal = world.refused(other).await;
        let Refusal::KeyMismatch { paths, .. } = refusal else { panic!("{refusal:?}") };
        assert_eq!(paths, ["/amount"]);
        assert_eq!(world.upstream.dispatched(), 1);
    }
}

#[tokio::test]
async fn a_key_in_the_query_stands_there_once() {
    for world in every(&at("?requestId")) {
        world.upstream.script([unanswered(), answer(201, "made")]);
        answered(world.call_through(post("a&b")).await);
        let targets: Vec<String> =
            world.upstream.seen().iter().map(|one| one.target.clone()).collect();
        assert_eq!(targets, ["/payments?dry=no&requestId=a%26b"; 2]);
    }
}

#[tokio::test]
async fn a_body_without_a_place_for_the_key_is_refused_and_nothing_is_sent() {
    for world in every(&at("/variables/key")) {
        let refusal = world.refused(post("k")).await;
        assert!(matches!(refusal, Refusal::NoPlaceForKey { .. }), "{refusal:?}");
        assert_eq!(world.upstream.dispatched(), 0);
    }
}

#[tokio::test]
async fn a_key_that_the_body_has_is_the_callers_where_the_route_says_so() {
    let policy = Policy {
        key_pointer: Some("/idempotency_key".to_owned()),
        key_missing: KeyMissing::Require,
        ..at("/idempotency_key")
    };
    for world in every(&policy) {
        world.upstream.script([answer(201, "made")]);
        let call = |body: &'static str| {
            let mut call = post("");
            call.request.headers.remove("idempotency-key");
            call.request.body = body.into();
            call
        };
        let body = r#"{"amount": 1.10, "idempotency_key": "square-1"}"#;
        let first = world.answered(call(body)).await;
        assert_eq!(first.operation.key.as_str(), "square-1");
        assert_eq!(world.upstream.seen()[0].body, body);
        assert!(world.answered(call(body)).await.replayed);
        let without = world.refused(call(r#"{"amount": 1}"#)).await;
        assert!(matches!(without, Refusal::KeyRequired(_)), "{without:?}");
        let malformed = world.refused(call(r#"{"idempotency_key": 7}"#)).await;
        assert!(matches!(malformed, Refusal::KeyInvalid(_)), "{malformed:?}");
        assert_eq!(world.upstream.dispatched(), 1);
    }
}

#[tokio::test]
async fn a_key_that_the_upstream_does_not_take_gives_way_to_a_derived_one() {
    let mut policy = at("/idempotency_key");
    policy.upstream_key.bytes_max = 45;
    for world in every(&policy) {
        let long = "k".repeat(46);
        for key in [&long, &long[1..].to_owned()] {
            answered(world.call_through(post(key)).await);
        }
        let sent: Vec<String> = world
            .upstream
            .seen()
            .iter()
            .map(|one| policy.upstream_key.place.own(&request(&one.body)).unwrap().unwrap())
            .collect();
        assert_eq!((sent[0].len(), sent[1].as_str()), (43, &long[1..]));
    }
    policy.upstream_key.value = UpstreamKeyValue::Derived;
    for world in every(&policy) {
        let mut call = post("k");
        call.request.body = r#"{"idempotency_key": "of the caller's own"}"#.into();
        answered(world.call_through(call).await);
        let sent = policy.upstream_key.place.own(&request(&world.upstream.seen()[0].body));
        assert_eq!(sent.unwrap().unwrap().len(), 43, "derived whatever stands there");
    }
}

fn request(body: &bytes::Bytes) -> onceward::core::exchange::Request {
    let mut call = post("k").request;
    call.body = body.clone();
    call
}
