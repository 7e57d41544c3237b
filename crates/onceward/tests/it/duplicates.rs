//! The same call again: one effect, one answer.

use std::time::Duration;

use bytes::Bytes;
use onceward::Refusal;
use onceward::core::policy::{Effects, Policy};
use onceward::observe::Repeat;

use crate::world::{
    Gate, PAY, accepted, answer, answered, effects, essence, every, every_with, post, refused,
    route, routes, taken,
};

fn binary() -> Bytes {
    (0..=255u8).cycle().take(70_000).collect::<Vec<u8>>().into()
}

#[tokio::test]
async fn two_hundred_calls_at_once_are_sent_once_and_get_one_answer() {
    for effect in [Effects::NonIdempotent, Effects::Keyed, Effects::Idempotent] {
        for world in every(&effects(effect)) {
            let gate = Gate::closed();
            let made = answer(201, binary())
                .header("content-type", "image/png")
                .header("link", "</a>")
                .header("link", "</b>")
                .header("set-cookie", "session=1")
                .header("etag", &b"\"\xff\""[..])
                .behind(&gate);
            world.upstream.script([made]);
            let calls: Vec<_> = (0..200).map(|_| world.begin(post("k"))).collect();
            let joined = || world.notes.repeats(Repeat::Joined);
            world
                .until("all but one joined", async || {
                    joined() == 199 || world.upstream.dispatched() > 1
                })
                .await;
            assert_eq!(world.upstream.dispatched(), 1, "who joins sends nothing");
            gate.open();
            let (mut first, mut with_cookie) = (0, 0);
            let mut kept = Vec::new();
            for call in calls {
                let got = answered(call.result().await);
                assert_eq!(essence(&got.response), (201, &binary()[..]));
                first += usize::from(!got.replayed);
                let mut headers = got.response.headers.clone();
                if headers.get("set-cookie").is_some() {
                    assert!(!got.replayed, "a session is never replayed");
                    with_cookie += 1;
                    headers.remove("set-cookie");
                }
                kept.push(headers);
            }
            assert_eq!((first, with_cookie), (1, 1));
            assert!(kept.iter().all(|headers| *headers == kept[0]), "kept headers, byte for byte");
            assert_eq!(kept[0].all("link").count(), 2);
            assert_eq!((world.upstream.dispatched(), world.upstream.effects("k")), (1, 1));
        }
    }
}

#[tokio::test]
async fn many_keys_at_once_have_an_effect_each() {
    for world in every(&effects(Effects::NonIdempotent)) {
        let calls: Vec<_> =
            (0..300).map(|n| (n % 30, world.begin(post(&format!("k{}", n % 30))))).collect();
        let mut bodies: Vec<Option<Bytes>> = vec![None; 30];
        for (key, call) in calls {
            let body = answered(call.result().await).response.body;
            assert_eq!(*bodies[key].get_or_insert_with(|| body.clone()), body);
        }
        assert_eq!(world.upstream.dispatched(), 30);
        assert!((0..30).all(|n| world.upstream.effects(&format!("k{n}")) == 1));
    }
}

#[tokio::test]
async fn a_later_duplicate_is_answered_from_memory_after_a_restart_too() {
    for mut world in every(&effects(Effects::NonIdempotent)) {
        world.upstream.script([answer(201, binary()).header("location", "/payments/1")]);
        world.answered(post("k")).await;
        for _ in 0..2 {
            let got = world.answered(post("k")).await;
            assert_eq!(essence(&got.response), (201, &binary()[..]));
            assert_eq!(got.response.headers.text("location"), Some("/payments/1"));
            assert!(got.replayed);
            world.restart().await;
        }
        assert_eq!(world.upstream.dispatched(), 1);
    }
}

#[tokio::test]
async fn who_joins_waits_through_every_retry_for_the_outcome() {
    for world in every(&effects(Effects::Keyed)) {
        let gate = Gate::closed();
        world.upstream.script([
            answer(503, "").behind(&gate),
            answer(503, ""),
            answer(201, "made"),
        ]);
        let first = world.begin(post("k"));
        world.until_dispatched(1).await;
        let second = world.begin(post("k"));
        world.until("the second joined", async || world.notes.repeats(Repeat::Joined) == 1).await;
        gate.open();
        world.let_retry("k").await;
        world.until_dispatched(2).await;
        assert!(!second.is_answered());
        world.let_retry("k").await;
        for call in [first, second] {
            assert_eq!(essence(&answered(call.result().await).response), (201, &b"made"[..]));
        }
    }
}

#[tokio::test]
async fn who_joins_accepted_work_waits_through_its_retries_too() {
    for world in every(&effects(Effects::Keyed)) {
        let gate = Gate::closed();
        world.upstream.script([answer(503, "").behind(&gate), answer(201, "made")]);
        taken(world.call(accepted("k")).await);
        world.until_dispatched(1).await;
        let second = world.begin(post("k"));
        world.until("the second joined", async || world.notes.repeats(Repeat::Joined) == 1).await;
        gate.open();
        world.let_retry("k").await;
        let got = answered(second.result().await);
        assert_eq!((essence(&got.response), got.replayed), ((201, &b"made"[..]), true));
    }
}

#[tokio::test]
async fn who_joins_and_waited_long_enough_is_told_that_it_is_under_way() {
    for world in every(&effects(Effects::NonIdempotent)) {
        let gate = Gate::closed();
        world.upstream.script([answer(201, "made").behind(&gate)]);
        let first = world.begin(post("k"));
        world.until_dispatched(1).await;
        let second = world.begin(post("k"));
        let until = world.clock.now().plus(Duration::from_secs(10));
        world.until("the second waits", async || world.clock.is_awaited(until)).await;
        world.clock.advance(Duration::from_millis(9_999));
        assert!(!second.is_answered());
        world.clock.advance_to(until);
        let refusal = refused(second.result().await);
        let Refusal::InProgress(operation) = refusal else { panic!("{refusal:?}") };
        assert_eq!(operation.id, world.operation("k").await.id);
        gate.open();
        assert_eq!(essence(&answered(first.result().await).response), (201, &b"made"[..]));
        assert_eq!(world.upstream.dispatched(), 1);
    }
}

#[tokio::test]
async fn a_caller_that_would_wait_too_long_is_told_so_and_the_same_key_gets_the_outcome() {
    // A time that nobody else waits for.
    let patience = Duration::from_secs(61);
    let mut pay = route(PAY, &effects(Effects::NonIdempotent));
    pay.answer_max = patience;
    for world in every_with(&routes([pay])) {
        let gate = Gate::closed();
        world.upstream.script([answer(201, "made").behind(&gate)]);
        let first = world.begin(post("k"));
        let until = world.clock.now().plus(patience);
        world.until("the first waits", async || world.clock.is_awaited(until)).await;
        world.clock.advance_to(until);
        let refusal = refused(first.result().await);
        assert!(matches!(refusal, Refusal::StillWorking(_)), "{refusal:?}");
        gate.open();
        world.stands("k", "done").await;
        let got = world.answered(post("k")).await;
        assert_eq!((essence(&got.response), got.replayed), ((201, &b"made"[..]), true));
        assert_eq!(world.upstream.dispatched(), 1);
    }
}

#[tokio::test]
async fn who_joins_and_does_not_want_to_wait_is_told_that_it_is_accepted() {
    for world in every(&effects(Effects::NonIdempotent)) {
        let gate = Gate::closed();
        world.upstream.script([answer(201, "made").behind(&gate)]);
        let first = taken(world.call(accepted("k")).await);
        let second = taken(world.call(accepted("k")).await);
        assert_eq!(first.id, second.id);
        gate.open();
        world.stands("k", "done").await;
        let third = answered(world.call(accepted("k")).await);
        assert_eq!((essence(&third.response), third.replayed), ((201, &b"made"[..]), true));
        assert_eq!(world.upstream.dispatched(), 1);
    }
}

#[tokio::test]
async fn a_key_in_quotes_is_the_same_key() {
    for world in every(&effects(Effects::NonIdempotent)) {
        world.answered(post("k")).await;
        assert!(world.answered(post("\"k\"")).await.replayed);
        assert_eq!(world.upstream.seen()[0].key(), "k", "it goes on bare");
    }
}

#[tokio::test]
async fn a_key_that_cannot_stand_bare_goes_on_in_quotes() {
    for kind in [Effects::Keyed, Effects::NonIdempotent] {
        for world in every(&effects(kind)) {
            world.answered(post("\"order 1, \\\"a\\\"\"")).await;
            assert_eq!(world.upstream.seen()[0].key(), "\"order 1, \\\"a\\\"\"");
            let refused = world.refused(post("order 1")).await;
            assert!(matches!(refused, Refusal::KeyInvalid(_)), "{refused:?}");
        }
    }
}

#[tokio::test]
async fn duplicates_are_counted_with_their_times() {
    for world in every(&effects(Effects::NonIdempotent)) {
        world.answered(post("k")).await;
        let id = world.operation("k").await.id;
        let asked = async || world.engine().store().asked(id).await.unwrap();
        for _ in 0..25 {
            world.answered(post("k")).await;
        }
        let first = world.clock.now();
        world.clock.advance(Duration::from_secs(1));
        world.until("25 are written", async || asked().await.count == 25).await;
        assert_eq!(asked().await.times, [first; 20]);
        world.answered(post("k")).await;
        let mut other = post("k");
        other.request.target.push_str("&more");
        world.refused(other).await;
        world.clock.advance(Duration::from_secs(1));
        world.until("27 are written", async || asked().await.count == 27).await;
        assert_eq!(asked().await.times[18..], [first.plus(Duration::from_secs(1)); 2]);
        assert_eq!(world.notes.repeats(Repeat::Replayed), 26);
        assert_eq!(world.notes.repeats(Repeat::Mismatch), 1);
    }
}

#[tokio::test]
async fn with_one_slot_duplicates_still_join_and_are_sent_once() {
    for store in 0..2 {
        let policy = effects(Effects::NonIdempotent);
        let mut world = every(&policy).into_iter().nth(store).unwrap();
        let mut narrow = route(PAY, &policy);
        narrow.protection.slots_max = 1;
        world.set_routes(routes([narrow]));
        let calls: Vec<_> = (0..40).map(|_| world.begin(post("k"))).collect();
        for call in calls {
            assert_eq!(answered(call.result().await).response.status, 201);
        }
        assert_eq!(world.upstream.dispatched(), 1);
    }
}

#[tokio::test]
async fn a_call_without_a_key_is_given_one_or_refused_or_passed_on() {
    use onceward::core::policy::KeyMissing;
    for (missing, effects_made) in
        [(KeyMissing::Make, 2), (KeyMissing::Pass, 2), (KeyMissing::Require, 0)]
    {
        let policy = Policy {
            key_missing: missing,
            effects: Some(Effects::NonIdempotent),
            ..Policy::default()
        };
        for world in every(&policy) {
            for _ in 0..2 {
                let mut call = post("k");
                call.request.headers.remove("idempotency-key");
                let result = world.call(call).await;
                if missing == KeyMissing::Require {
                    assert!(matches!(result, Err(Refusal::KeyRequired(None))), "{result:?}");
                } else {
                    assert!(result.is_ok(), "{result:?}");
                }
            }
            assert_eq!(world.upstream.dispatched(), effects_made);
            let keys: Vec<String> =
                world.upstream.seen().iter().map(|one| one.key().to_owned()).collect();
            if missing == KeyMissing::Make {
                assert!(keys.iter().all(|key| !key.is_empty()) && keys[0] != keys[1], "{keys:?}");
            }
        }
    }
}
