//! What died: who is told, and how it lives again.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::time::Duration;

use onceward::core::key::Key;
use onceward::core::operation::{Death, Deed, Forgotten, State};
use onceward::core::policy::{Backoff, Effects, Policy, UpstreamKeyRule, UpstreamKeyValue};
use onceward::observe::Repeat;
use onceward::store::{Query, Standing};
use onceward::{Refusal, Resolution};

use crate::world::{
    Gate, PAY, World, accepted, answer, answered, effects, essence, every, permanent, person, post,
    refused, route, routes, scope, taken, unanswered, unsent,
};

async fn dead_letters(world: &World) -> Vec<String> {
    let query = Query { standing: vec![Standing::DeadLetter], limit: 9, ..Query::default() };
    let page = world.engine().store().list(query).await.unwrap();
    page.operations.iter().map(|operation| operation.key.to_string()).collect()
}

/// Two attempts, the second soon after the first.
fn short() -> Policy {
    let accepted = Backoff { attempts_max: 2, ..Backoff::accepted() };
    Policy { accepted, ..effects(Effects::Keyed) }
}

#[tokio::test]
async fn a_held_call_that_is_exhausted_was_told_and_is_no_dead_letter() {
    for world in every(&effects(Effects::Keyed)) {
        world.upstream.script((0..3).map(|_| answer(503, "no")));
        let got = answered(world.call_through(post("k")).await);
        assert_eq!(essence(&got.response), (503, &b"no"[..]));
        assert_eq!(got.operation.state, State::Dead(Death::Exhausted));
        assert!(got.operation.told && !got.operation.is_dead_letter());
        assert_eq!(dead_letters(&world).await, Vec::<String>::new());
        // No new attempt is made behind the caller's back.
        world.clock.advance(Duration::from_hours(1));
        taken(world.call(accepted("later")).await);
        world.stands("later", "done").await;
        assert_eq!(world.upstream.dispatched(), 4);
    }
}

#[tokio::test]
async fn accepted_work_that_is_exhausted_is_a_dead_letter_and_can_be_redelivered() {
    for world in every(&short()) {
        world.upstream.script([answer(503, "one"), answer(503, "two")]);
        taken(world.call(accepted("k")).await);
        world.let_retry("k").await;
        let dead = world.stands("k", "dead").await;
        assert_eq!((dead.state, dead.told), (State::Dead(Death::Exhausted), false));
        assert_eq!(dead_letters(&world).await, ["k"]);
        let again = world.engine().redeliver(dead.id, &person()).await.unwrap();
        assert_eq!((again.id, again.acts.last().unwrap().deed), (dead.id, Deed::Redelivered));
        let done = world.stands("k", "done").await;
        assert_eq!(done.attempts.iter().map(|attempt| attempt.n).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(dead_letters(&world).await, Vec::<String>::new());
        assert!(world.upstream.seen().iter().all(|one| one.key() == "k"));
        let twice = world.engine().redeliver(dead.id, &person()).await;
        assert!(matches!(twice, Err(Refusal::Conflict { .. })), "what is done stays done");
        assert_eq!(world.upstream.dispatched(), 3);
    }
}

#[tokio::test]
async fn an_accepted_call_that_is_refused_is_a_dead_letter_with_its_outcome() {
    for mut world in every(&effects(Effects::NonIdempotent)) {
        world.upstream.script([
            answer(404, "nobody here"),
            answer(404, "still"),
            answer(200, "ok"),
        ]);
        taken(world.call(accepted("k")).await);
        let dead = world.stands("k", "dead").await;
        assert_eq!(dead.state, State::Dead(Death::Refused));
        assert!(dead.is_dead_letter());
        for _ in 0..2 {
            let got = world.answered(post("k")).await;
            assert_eq!((essence(&got.response), got.replayed), ((404, &b"nobody here"[..]), true));
            world.restart().await;
        }
        assert_eq!(
            (dead_letters(&world).await, world.upstream.dispatched()),
            (vec!["k".into()], 1)
        );
        world.engine().redeliver(dead.id, &person()).await.unwrap();
        world.until_dispatched(2).await;
        world.stands("k", "dead").await;
        assert_eq!(essence(&world.answered(post("k")).await.response), (404, &b"still"[..]));
        world.engine().redeliver(dead.id, &person()).await.unwrap();
        world.stands("k", "done").await;
        assert_eq!(essence(&world.answered(post("k")).await.response), (200, &b"ok"[..]));
        assert_eq!(world.upstream.dispatched(), 3);
    }
}

#[tokio::test]
async fn an_exhausted_key_is_revived_under_the_same_operation_and_upstream_key() {
    let upstream_key =
        UpstreamKeyRule { value: UpstreamKeyValue::Derived, ..UpstreamKeyRule::default() };
    for world in every(&Policy { upstream_key, ..effects(Effects::Keyed) }) {
        world.upstream.dedupe();
        world.upstream.script([unanswered(), answer(503, ""), answer(503, "")]);
        let first = answered(world.call_through(post("k")).await);
        let second = world.answered(post("k")).await;
        assert_eq!(essence(&second.response), (201, &b"made once"[..]));
        assert_eq!((second.operation.id, second.replayed), (first.operation.id, false));
        let keys: Vec<String> =
            world.upstream.seen().iter().map(|one| one.key().to_owned()).collect();
        assert_eq!((keys.len(), keys[0].len()), (4, 43));
        assert!(keys.iter().all(|key| *key == keys[0]));
        assert_eq!(world.upstream.effects(&keys[0]), 1);
        assert_eq!(world.notes.repeats(Repeat::Revived), 1);
    }
}

#[tokio::test]
async fn many_who_revive_at_once_are_one_run_of_attempts() {
    for world in every(&effects(Effects::NonIdempotent)) {
        let gate = Gate::closed();
        world.upstream.script([permanent(), answer(201, "made").behind(&gate)]);
        world.refused(post("k")).await;
        let racing: Vec<_> = (0..50).map(|_| world.begin(post("k"))).collect();
        world.until("all but one joined", async || world.notes.repeats(Repeat::Joined) == 49).await;
        gate.open();
        for one in racing {
            assert_eq!(essence(&answered(one.result().await).response), (201, &b"made"[..]));
        }
        assert_eq!((world.upstream.dispatched(), world.upstream.effects("k")), (2, 1));
    }
}

#[tokio::test]
async fn a_keyed_call_whose_process_was_killed_is_revived_by_its_key() {
    for effect in [Effects::Keyed, Effects::Idempotent] {
        for mut world in every(&effects(effect)) {
            world.upstream.dedupe();
            let gate = Gate::closed();
            world.upstream.script([answer(201, "made").behind(&gate)]);
            let _lost = world.begin(post("k"));
            world.until_dispatched(1).await;
            let before = world.operation("k").await;
            assert_eq!(world.restart().await, 1);
            let dead = world.operation("k").await;
            assert_eq!(dead.state, State::Dead(Death::OwnerGone));
            assert!(dead.attempts[0].may_have_executed());
            let got = world.answered(post("k")).await;
            assert_eq!(essence(&got.response), (201, &b"made"[..]));
            assert_eq!(got.operation.id, before.id);
            assert_eq!((world.upstream.dispatched(), world.upstream.effects("k")), (2, 1));
            assert_eq!(world.restart().await, 0, "what is done needs no judging");
        }
    }
}

#[tokio::test]
async fn a_held_call_that_waited_for_its_retry_when_the_process_was_killed_is_revived() {
    for effect in [Effects::NonIdempotent, Effects::Keyed] {
        for mut world in every(&effects(effect)) {
            world.upstream.script([unsent()]);
            let _lost = world.begin(post("k"));
            world.stands("k", "pending").await;
            assert_eq!(world.restart().await, 1);
            assert_eq!(world.operation("k").await.state, State::Dead(Death::OwnerGone));
            assert_eq!(world.answered(post("k")).await.response.status, 201);
            assert_eq!(world.upstream.effects("k"), 1);
        }
    }
}

#[tokio::test]
async fn accepted_keyed_work_under_way_when_the_process_was_killed_goes_on_by_itself() {
    for mut world in every(&effects(Effects::Keyed)) {
        world.upstream.dedupe();
        let gate = Gate::closed();
        world.upstream.script([answer(201, "made").behind(&gate)]);
        taken(world.call(accepted("k")).await);
        world.until_dispatched(1).await;
        assert_eq!(world.restart().await, 1);
        world.let_retry("k").await;
        let done = world.stands("k", "done").await;
        assert_eq!(done.attempts.len(), 2);
        assert_eq!((world.upstream.dispatched(), world.upstream.effects("k")), (2, 1));
    }
}

#[tokio::test]
async fn work_that_waits_can_be_cancelled_and_is_not_sent() {
    for world in every(&effects(Effects::Keyed)) {
        world.upstream.script([answer(503, "")]);
        taken(world.call(accepted("k")).await);
        let waiting = world.stands("k", "pending").await;
        let cancelled = world.engine().cancel(waiting.id, &person()).await.unwrap();
        assert_eq!(cancelled.state, State::Dead(Death::Cancelled));
        assert_eq!(cancelled.acts[0].deed, Deed::Cancelled);
        assert!(!cancelled.is_dead_letter());
        world.clock.advance(Duration::from_hours(1));
        let refusal = world.refused(post("k")).await;
        assert!(matches!(refusal, Refusal::Cancelled(_)), "{refusal:?}");
        assert_eq!(world.upstream.dispatched(), 1);
        world.engine().redeliver(waiting.id, &person()).await.unwrap();
        assert_eq!(world.stands("k", "done").await.attempts.len(), 2);
    }
}

#[tokio::test]
async fn a_held_caller_whose_call_is_cancelled_is_told_so() {
    for world in every(&effects(Effects::Keyed)) {
        world.upstream.script([answer(503, "")]);
        let first = world.begin(post("k"));
        let waiting = world.stands("k", "pending").await;
        let second = world.begin(post("k"));
        world.until("the second joined", async || world.notes.repeats(Repeat::Joined) == 1).await;
        world.engine().cancel(waiting.id, &person()).await.unwrap();
        world.let_retry_at(&waiting);
        for call in [first, second] {
            let refusal = refused(call.result().await);
            assert!(matches!(refusal, Refusal::Cancelled(_)), "{refusal:?}");
        }
        assert_eq!(world.upstream.dispatched(), 1);
    }
}

#[tokio::test]
async fn what_is_on_its_way_cannot_be_cancelled_or_redelivered() {
    for world in every(&effects(Effects::NonIdempotent)) {
        let gate = Gate::closed();
        world.upstream.script([answer(201, "made").behind(&gate)]);
        let calling = world.begin(post("k"));
        world.until_dispatched(1).await;
        let id = world.operation("k").await.id;
        let (engine, who) = (world.engine(), person());
        for result in [
            engine.cancel(id, &who).await,
            engine.redeliver(id, &who).await,
            engine.resolve(id, &Resolution::NotSent, &who).await,
            engine.forget(&scope(), &Key::new("k").unwrap(), Forgotten::New, &who).await,
        ] {
            assert!(matches!(result, Err(Refusal::Conflict { .. })), "{result:?}");
        }
        gate.open();
        assert_eq!(essence(&answered(calling.result().await).response), (201, &b"made"[..]));
        assert_eq!(world.upstream.dispatched(), 1);
    }
}

#[tokio::test]
async fn a_dead_letter_whose_key_was_given_to_a_new_operation_is_not_redelivered() {
    for mut world in every(&effects(Effects::NonIdempotent)) {
        world.upstream.script([answer(404, "no"), answer(201, "made")]);
        taken(world.call(accepted("k")).await);
        let dead = world.stands("k", "dead").await;
        let key = Key::new("k").unwrap();
        world.engine().forget(&scope(), &key, Forgotten::New, &person()).await.unwrap();
        let successor = world.answered(post("k")).await;
        assert_ne!(successor.operation.id, dead.id);
        let result = world.engine().redeliver(dead.id, &person()).await;
        assert!(matches!(result, Err(Refusal::Conflict { .. })), "{result:?}");
        for _ in 0..2 {
            let got = world.answered(post("k")).await;
            assert_eq!((got.operation.id, got.replayed), (successor.operation.id, true));
            world.restart().await;
        }
        assert_eq!(world.upstream.dispatched(), 2);
    }
}

#[tokio::test]
async fn a_redelivery_is_not_bound_by_the_deadline_of_the_call_it_repeats() {
    for world in every(&short()) {
        let mut call = accepted("k");
        call.options.deadline = Some(world.clock.now().plus(Duration::from_secs(1)));
        call.options.attempts_max = Some(1);
        world.upstream.script([answer(503, "")]);
        taken(world.call(call).await);
        let dead = world.stands("k", "dead").await;
        world.clock.advance(Duration::from_hours(1));
        world.engine().redeliver(dead.id, &person()).await.unwrap();
        assert_eq!(world.stands("k", "done").await.attempts.len(), 2);
    }
}

#[tokio::test]
async fn a_request_that_cannot_be_read_any_more_is_a_dead_letter_that_says_so() {
    let policy = |seal_bodies| Policy { seal_bodies, ..Policy::default() };
    for seal_bodies in [false, true] {
        let routes = routes([route(PAY, &policy(seal_bodies))]);
        cannot_be_read_any_more(World::on_disk_as_it_is(routes)).await;
    }
}

/// A bit of its request flips where it lies, sealed or not.
async fn cannot_be_read_any_more(mut world: World) {
    let mut later = accepted("k");
    later.options.not_before = Some(world.clock.now().plus(Duration::from_mins(5)));
    taken(world.call(later).await);
    let request = world.operation("k").await.request.unwrap();
    let kept = world.engine().store().body(request).await.unwrap();
    world.kill().await;
    let segment = world.folder().join("ledger.journal/segment-00000001");
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(kept.len()).position(|window| window == kept).unwrap() + kept.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    world.begin_again().await;
    world.let_retry("k").await;
    let buried = world.stands("k", "dead").await;
    let ended = buried.attempts.last().unwrap().ended.clone().unwrap();
    assert!(ended.error.unwrap().contains("its request cannot be read"));
    assert!(!ended.may_have_executed && buried.is_dead_letter());
    assert_eq!(world.upstream.dispatched(), 0);
}
