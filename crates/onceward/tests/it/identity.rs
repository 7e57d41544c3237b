//! What names an effect beside its key: a second identity, the request itself, and the time at which
//! its key was made.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onceward::core::id::OperationId;
use onceward::core::key::{Key, Scope, ScopeKind};
use onceward::core::key_template::KeyTemplate;
use onceward::core::operation::{Forgotten, State};
use onceward::core::pattern::Pattern;
use onceward::core::policy::{
    Effects, KeyFrom, KeyMissing, KeyRule, KeyTime, Mode, Policy, UniqueRule,
};
use onceward::secret::Secrets;
use onceward::store::{Birth, Remembered, contract};
use onceward::{Call, Refusal};

use crate::world::{
    Gate, accepted, answer, answered, effects, every, permanent, person, post, scope, taken,
    unanswered, with_header,
};

const WITHIN: Duration = Duration::from_hours(24);

fn template(text: &str) -> KeyTemplate {
    KeyTemplate::read(text).unwrap()
}

fn unique() -> Policy {
    let rule = UniqueRule { name: template("{json:/order}"), within: WITHIN };
    Policy { unique: Some(rule), ..effects(Effects::NonIdempotent) }
}

fn order(key: &str, order: &str, amount: u32) -> Call {
    let mut call = post(key);
    call.request.body = format!(r#"{{"order":"{order}","amount":{amount}}}"#).into();
    call
}

#[tokio::test]
async fn many_callers_with_a_key_each_and_one_identity_are_one_effect() {
    for world in every(&unique()) {
        let gate = Gate::closed();
        world.upstream.script([answer(201, "made").behind(&gate)]);
        let calls: Vec<_> =
            (0..40).map(|n| world.begin(order(&format!("k{n}"), "o-1", n % 3))).collect();
        world.until_dispatched(1).await;
        gate.open();
        let mut operations = BTreeSet::new();
        for call in calls {
            let got = answered(call.result().await);
            assert_eq!((got.response.status, &got.response.body[..]), (201, &b"made"[..]));
            operations.insert(got.operation.id);
        }
        assert_eq!((operations.len(), world.upstream.dispatched()), (1, 1));
        assert_eq!(world.answered(order("k", "o-2", 1)).await.response.status, 201);
        assert_eq!(world.upstream.dispatched(), 2, "another identity is another effect");
    }
}

#[tokio::test]
async fn who_is_answered_from_another_operation_is_told_so_and_stays_a_name_of_it() {
    for mut world in every(&unique()) {
        let first = world.answered(order("one", "o-1", 1)).await;
        let twin = order("two", "o-1", 2);
        let got = world.answered(twin.clone()).await;
        assert_eq!((got.operation.id, got.replayed), (first.operation.id, true));
        assert_eq!(twin.options.aside.duplicate_of.get(), Some(&first.operation.id));
        assert_eq!(world.operation("one").await.id, first.operation.id);
        world.restart().await;
        // The identity is free again, and each key still belongs to what was done under it.
        world.clock.advance(WITHIN);
        for key in ["one", "two"] {
            let amount = if key == "one" { 1 } else { 2 };
            let again = world.answered(order(key, "o-1", amount)).await;
            assert_eq!(again.operation.id, first.operation.id, "{key}");
        }
        let refusal = world.refused(order("two", "o-1", 3)).await;
        assert!(matches!(refusal, Refusal::KeyMismatch { .. }), "{refusal:?}");
        assert_eq!(world.upstream.dispatched(), 1);
        let third = world.answered(order("three", "o-1", 1)).await;
        assert!(third.operation.id != first.operation.id && !third.replayed);
        assert_eq!(world.upstream.dispatched(), 2);
    }
}

#[tokio::test]
async fn an_identity_is_free_again_where_provably_nothing_was_done() {
    for world in every(&unique()) {
        world.upstream.script([permanent()]);
        let refusal = world.refused(order("one", "o-1", 1)).await;
        assert!(matches!(refusal, Refusal::UpstreamUnreachable(_)), "{refusal:?}");
        assert_eq!(world.answered(order("two", "o-1", 1)).await.response.status, 201);
        world.upstream.script([unanswered()]);
        let _ = world.call(order("three", "o-2", 1)).await;
        for key in ["three", "four"] {
            let refusal = world.refused(order(key, "o-2", 1)).await;
            assert!(matches!(refusal, Refusal::OutcomeUnknown { .. }), "{refusal:?}");
        }
        let two = Key::new("two").unwrap();
        world.engine().forget(&scope(), &two, Forgotten::New, &person()).await.unwrap();
        assert!(!world.answered(order("five", "o-1", 1)).await.replayed);
        assert_eq!(world.upstream.dispatched(), 4);
    }
}

#[tokio::test]
async fn accepted_work_has_its_identity_before_it_is_sent() {
    for world in every(&unique()) {
        let later = |key: &str| {
            let mut call = order(key, "o-1", 1);
            call.options = accepted(key).options;
            call.options.not_before = Some(world.clock.now().plus(Duration::from_hours(1)));
            call
        };
        let first = taken(world.call(later("one")).await);
        let second = taken(world.call(later("two")).await);
        assert_eq!(first.id, second.id);
        world.clock.advance(Duration::from_hours(1));
        world.stands("one", "done").await;
        assert!(world.answered(order("two", "o-1", 1)).await.replayed);
        assert_eq!(world.upstream.dispatched(), 1);
    }
}

#[tokio::test]
async fn a_call_without_the_identity_has_its_key_alone() {
    for world in every(&unique()) {
        assert!(!world.answered(post("one")).await.replayed);
        assert!(!world.answered(post("two")).await.replayed);
        assert_eq!(world.upstream.dispatched(), 2);
    }
}

#[tokio::test]
async fn an_identity_whose_process_ended_before_its_operation_was_born_is_taken_over() {
    for world in every(&unique()) {
        let mut claim = contract::operation(9, "x", "pay", Mode::Held);
        let intent = claim.intent_mut();
        intent.scope = Scope { kind: ScopeKind::Unique, ..scope() };
        intent.key = Key::new(&Secrets::new([7; 32]).name(b"o-1")).unwrap();
        intent.alias_of = Some(OperationId::new(77, 77));
        intent.tombstone = Duration::ZERO;
        intent.created_at = world.clock.now();
        (claim.state, claim.window) = (State::Done, WITHIN);
        claim.ended_at = Some(claim.created_at);
        let birth =
            Birth { operation: claim, request: Bytes::from_static(b"nothing"), replaces: None };
        let written = world.engine().store().remember(birth).await.unwrap();
        assert!(matches!(written, Remembered::Fresh(_)));
        // Where other nodes write too, it may still be born for a while.
        world.clock.advance(Duration::from_mins(2));
        assert_eq!(world.answered(order("one", "o-1", 1)).await.response.status, 201);
        assert!(world.answered(order("two", "o-1", 1)).await.replayed);
        assert_eq!(world.upstream.dispatched(), 1);
    }
}

#[tokio::test]
async fn the_same_request_under_another_key_is_told_and_not_refused() {
    for world in every(&effects(Effects::NonIdempotent)) {
        let first = world.answered(post("one")).await.operation.id;
        let calls = [post("one"), post("two"), with_header(post("three"), "if-match", "\"1\"")];
        let [again, double, other] = calls;
        for call in [&again, &double, &other] {
            world.answered(call.clone()).await;
        }
        assert_eq!(double.options.aside.suspect_of.get(), Some(&first));
        assert_eq!(again.options.aside.suspect_of.get(), None, "it is a duplicate");
        assert_eq!(other.options.aside.suspect_of.get(), None, "it is another request");
        world.clock.advance(Duration::from_mins(10));
        let later = post("four");
        world.answered(later.clone()).await;
        assert_eq!(later.options.aside.suspect_of.get(), None);
        assert_eq!(world.upstream.dispatched(), 4);
    }
}

#[tokio::test]
async fn a_key_comes_from_the_body_or_is_made_of_the_request() {
    let from = |key_from| Policy { key_from, ..effects(Effects::NonIdempotent) };
    let without = |order: &str, amount| {
        let mut call = self::order("k", order, amount);
        call.request.headers.remove("idempotency-key");
        call
    };
    for (policy, key) in [
        (
            Policy {
                key_pointer: Some("/order".to_owned()),
                key_missing: KeyMissing::Require,
                ..from(KeyFrom::Headers)
            },
            "o-1",
        ),
        (from(KeyFrom::Template(template("{json:/order}:{date}"))), "o-1:2026-01-01"),
    ] {
        for world in every(&policy) {
            world.answered(without("o-1", 1)).await;
            assert!(world.answered(without("o-1", 1)).await.replayed);
            assert_eq!(world.operation(key).await.state, State::Done);
            let refusal = world.refused(without("o-1", 2)).await;
            assert!(matches!(refusal, Refusal::KeyMismatch { .. }), "{refusal:?}");
            let mut bare = without("o-1", 1);
            bare.request.body = Bytes::from_static(b"{}");
            let refusal = world.refused(bare).await;
            let Refusal::KeyRequired(Some(why)) = refusal else { panic!("{refusal:?}") };
            assert!(why.contains("/order"), "{why}");
            // A caller's own key is the key.
            assert!(!world.answered(order("mine", "o-1", 1)).await.replayed);
            assert_eq!(world.upstream.dispatched(), 2);
        }
    }
}

#[tokio::test]
async fn a_weak_key_is_refused_with_what_the_route_wants() {
    let rule = KeyRule {
        length_min: 8,
        pattern: Some(Pattern::read("[a-z0-9-]+").unwrap()),
        refuse: vec![Pattern::read(r"\d+").unwrap()],
    };
    let policy =
        Policy { key_rule: rule, key_missing: KeyMissing::Make, ..effects(Effects::NonIdempotent) };
    for world in every(&policy) {
        for (key, why) in [
            ("short", "at least 8"),
            ("With-Capitals", "keys like [a-z0-9-]+"),
            ("12345678", r"refuses keys like \d+"),
        ] {
            let refusal = world.refused(post(key)).await;
            let Refusal::KeyWeak(told) = refusal else { panic!("{refusal:?}") };
            assert!(told.contains(why), "{told}");
        }
        assert_eq!(world.answered(post("order-12345678")).await.response.status, 201);
        assert_eq!(world.upstream.dispatched(), 1);
    }
}

/// `UUIDv7`s of 2026-01-01 00:00:00 UTC, when the clock of a world begins.
const MADE: &str = "019b76da-a800-7000-8000-000000000001";
const UNUSED: &str = "019b76da-a800-7000-8000-000000000002";

#[tokio::test]
async fn a_key_that_is_older_than_its_mark_is_a_late_duplicate_by_its_own_time() {
    let policy = Policy { key_time: KeyTime::RefuseLate, ..effects(Effects::NonIdempotent) };
    let kept = policy.window + policy.tombstone;
    for mut world in every(&policy) {
        world.answered(post(MADE)).await;
        let made = world.clock.now();
        world.clock.advance_to(made.plus(kept).minus(Duration::from_secs(1)));
        assert_eq!(world.answered(post(UNUSED)).await.response.status, 201, "it may be new");
        world.clock.advance(Duration::from_secs(1));
        world.restart().await;
        let refusal = world.refused(post(MADE)).await;
        assert!(matches!(refusal, Refusal::KeyTooOld(_)), "{refusal:?}");
        assert!(world.answered(post(UNUSED)).await.replayed, "what is known is known");
        world.answered(post("bears-no-time")).await;
        let sent = |at| with_header(post("order-1"), "repeatability-first-sent", at);
        let refusal = world.refused(sent("Thu, 01 Jan 2026 00:00:00 GMT")).await;
        assert!(matches!(refusal, Refusal::KeyTooOld(_)), "{refusal:?}");
        let refusal = world.refused(sent("yesterday")).await;
        assert!(matches!(refusal, Refusal::KeyWeak(_)), "{refusal:?}");
        assert_eq!(world.upstream.dispatched(), 3);
    }
    let policy = Policy { key_time: KeyTime::Require, ..policy };
    for world in every(&policy) {
        let refusal = world.refused(post("bears-no-time")).await;
        assert!(matches!(refusal, Refusal::KeyWeak(_)), "{refusal:?}");
        assert_eq!(world.answered(post(MADE)).await.response.status, 201);
    }
}

#[tokio::test]
async fn two_nodes_that_claim_one_identity_at_once_send_once() {
    for world in every(&unique()) {
        if !world.engine().store().is_shared() {
            continue;
        }
        let other = world.neighbour();
        let calls: Vec<_> = (0..20)
            .map(|n| {
                let engine = if n % 2 == 0 { Arc::clone(world.engine()) } else { other.clone() };
                tokio::spawn(async move { engine.call(order(&format!("k{n}"), "o-1", n)).await })
            })
            .collect();
        let all = async {
            let mut operations = BTreeSet::new();
            for call in calls {
                operations.insert(answered(call.await.unwrap()).operation.id);
            }
            operations.len()
        };
        // Who finds the other node's claim before its operation looks again after a moment.
        let ticks = async {
            loop {
                tokio::task::yield_now().await;
                if world.clock.is_anyone_asleep_for(Duration::ZERO..Duration::from_millis(51)) {
                    world.clock.advance(Duration::from_millis(50));
                }
            }
        };
        let count = tokio::select! { count = all => count, () = ticks => 0 };
        assert_eq!((count, world.upstream.dispatched()), (1, 1));
    }
}
