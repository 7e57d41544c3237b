//! What is tried again, when, and for how long.

use std::collections::BTreeMap;
use std::time::Duration;

use onceward::Answer;
use onceward::Refusal;
use onceward::core::attempt::Ending;
use onceward::core::hint::HintHeader;
use onceward::core::operation::{Death, State};
use onceward::core::policy::{Backoff, Effects, KeyMissing, Meaning, Policy};
use onceward::core::time::Timestamp;

use crate::world::{
    Gate, PAY, accepted, answer, answered, effects, essence, every, every_with, permanent, post,
    refused, route, routes, taken, truncated, unanswered, unsent,
};

#[tokio::test]
async fn a_keyed_call_is_tried_again_with_one_key_and_the_same_bytes() {
    for world in every(&effects(Effects::Keyed)) {
        world.upstream.dedupe();
        world.upstream.script([answer(503, ""), answer(503, ""), answer(201, "made")]);
        let got = answered(world.call_through(post("k")).await);
        assert_eq!(essence(&got.response), (201, &b"made"[..]));
        assert!(!got.replayed);
        assert_eq!(got.operation.attempts.len(), 3);
        let seen = world.upstream.seen();
        assert_eq!(seen.len(), 3);
        for (nth, one) in seen.iter().enumerate() {
            assert_eq!((one.key(), &one.body), ("k", &post("k").request.body));
            assert_eq!(one.target, "/payments?dry=no");
            assert_eq!(one.header("onceward-attempt"), (nth + 1).to_string());
            assert_eq!(one.header("onceward-operation"), got.operation.id.to_string());
            assert_eq!(one.header("baggage"), "idempotency-key=k");
        }
        assert_eq!(world.upstream.effects("k"), 1);
    }
}

#[tokio::test]
async fn what_was_unsent_is_sent_again_even_where_a_second_arrival_would_be_a_second_effect() {
    for world in every(&effects(Effects::NonIdempotent)) {
        world.upstream.script([unsent(), unsent(), answer(201, "made")]);
        let got = answered(world.call_through(post("k")).await);
        assert_eq!(got.response.status, 201);
        assert_eq!(got.operation.attempts.len(), 3);
        assert_eq!(world.upstream.effects("k"), 1);
    }
}

#[tokio::test]
async fn what_was_not_processed_is_sent_again_even_where_a_second_arrival_would_be_a_second_effect()
{
    let policy = Policy {
        statuses: [(503, Meaning::NotProcessed)].into(),
        ..effects(Effects::NonIdempotent)
    };
    for world in every(&policy) {
        world.upstream.script([answer(429, ""), answer(503, ""), answer(201, "made")]);
        let got = answered(world.call_through(post("k")).await);
        assert_eq!((got.response.status, world.upstream.effects("k")), (201, 1));
    }
}

#[tokio::test]
async fn an_unanswered_keyed_call_is_sent_again_and_has_one_effect() {
    for world in every(&effects(Effects::Keyed)) {
        world.upstream.dedupe();
        world.upstream.script([unanswered()]);
        let got = answered(world.call_through(post("k")).await);
        assert_eq!(essence(&got.response), (201, &b"made once"[..]));
        assert_eq!(got.operation.attempts[0].ended.as_ref().unwrap().ending, Ending::Unanswered);
        assert_eq!((world.upstream.dispatched(), world.upstream.effects("k")), (2, 1));
    }
}

#[tokio::test]
async fn an_upstream_that_says_whether_to_ask_again_is_believed() {
    let hints = vec![HintHeader::StripeShouldRetry];
    for world in every(&Policy { hints, ..effects(Effects::Keyed) }) {
        let says = |status, again| answer(status, "").header("stripe-should-retry", again);
        world.upstream.script([says(409, "true"), answer(201, "made")]);
        let got = answered(world.call_through(post("k")).await);
        assert_eq!((got.response.status, got.operation.attempts.len()), (201, 2));
        world.upstream.script([says(500, "false")]);
        let got = answered(world.call_through(post("stop")).await);
        assert_eq!((got.response.status, got.operation.attempts.len()), (500, 1));
        assert_eq!(got.operation.state, State::Dead(Death::Exhausted));
    }
    for world in every(&effects(Effects::Keyed)) {
        world.upstream.script([answer(409, "busy").header("stripe-should-retry", "true")]);
        let got = answered(world.call_through(post("k")).await);
        assert_eq!((got.response.status, world.upstream.dispatched()), (409, 1), "not believed");
    }
}

#[tokio::test]
async fn retry_after_is_honoured_in_full() {
    for world in every(&effects(Effects::NonIdempotent)) {
        world.upstream.script([answer(429, "").header("retry-after", "7"), answer(201, "made")]);
        let began = world.clock.now();
        let calling = world.begin(post("k"));
        let waiting = world.stands("k", "pending").await;
        let State::Pending { due } = waiting.state else { unreachable!() };
        let wait = due.since(began);
        assert!(
            wait >= Duration::from_secs(7) && wait < Duration::from_secs(8),
            "it waits {wait:?}"
        );
        world.until("the retry is awaited", async || world.clock.is_awaited(due)).await;
        world.clock.advance(Duration::from_millis(6_999));
        assert_eq!(world.upstream.dispatched(), 1, "not earlier than asked");
        world.clock.advance_to(due);
        assert_eq!(answered(calling.result().await).response.status, 201);
    }
}

#[tokio::test]
async fn a_call_without_a_record_is_sent_again_only_where_nothing_was_sent() {
    let policy = Policy { key_missing: KeyMissing::Pass, ..effects(Effects::NonIdempotent) };
    for world in every(&policy) {
        for (step, is_sent_again) in [(unanswered(), false), (unsent(), true)] {
            world.upstream.script([step]);
            let mut call = post("k");
            call.request.headers.remove("idempotency-key");
            let calling = world.begin(call);
            let pause = Duration::from_millis(50)..Duration::from_millis(101);
            let is_waiting = || world.clock.is_anyone_asleep_for(pause.clone());
            world
                .until("an answer, or a pause", async || calling.is_answered() || is_waiting())
                .await;
            assert_eq!(!calling.is_answered(), is_sent_again, "whether it is sent again");
            world.clock.advance(pause.end);
            assert_eq!(calling.result().await.is_ok(), is_sent_again);
        }
        assert_eq!(world.upstream.dispatched(), 3);
    }
}

#[tokio::test]
async fn what_failed_together_does_not_come_back_together() {
    let mut pay = route(PAY, &effects(Effects::Keyed));
    (pay.protection.breaker, pay.protection.budget) = (None, None);
    for world in every_with(&routes([pay])) {
        const CALLS: usize = 60;
        // Half of them were told when to come back, and all of these the same.
        let gate = Gate::closed();
        let told = |n| answer(503, "").header("retry-after", if n % 2 == 0 { "7" } else { "0" });
        world.upstream.script((0..CALLS).map(|n| told(n).behind(&gate)));
        let mut due_at: BTreeMap<Timestamp, usize> = BTreeMap::new();
        for n in 0..CALLS {
            taken(world.call(accepted(&format!("k{n}"))).await);
        }
        world.until_dispatched(CALLS).await;
        gate.open();
        for n in 0..CALLS {
            let waiting = world.stands(&format!("k{n}"), "pending").await;
            let State::Pending { due } = waiting.state else { unreachable!() };
            *due_at.entry(due).or_default() += 1;
        }
        // A fifth of the draws lie below the floor, and are due at it.
        let most = due_at.values().max().copied().unwrap_or_default();
        assert!(most <= CALLS / 3, "{most} of {CALLS} are due at one instant");
    }
}

#[tokio::test]
async fn a_retry_after_beyond_the_horizon_is_handed_to_the_caller() {
    for effect in [Effects::NonIdempotent, Effects::Keyed] {
        for world in every(&effects(effect)) {
            world.upstream.script([answer(429, "later").header("retry-after", "11")]);
            let got = world.answered(post("k")).await;
            assert_eq!(essence(&got.response), (429, &b"later"[..]));
            assert_eq!(got.response.headers.text("retry-after"), Some("11"));
            assert_eq!(got.operation.state, State::Dead(Death::Exhausted));
            assert_eq!(world.upstream.dispatched(), 1);
        }
    }
}

#[tokio::test]
async fn attempts_end_with_the_policys_count_or_the_callers() {
    for (asked, made) in [(None, 3), (Some(2), 2), (Some(1), 1)] {
        for world in every(&effects(Effects::Keyed)) {
            world.upstream.script((0..5).map(|n| answer(503, format!("no {n}"))));
            let mut call = post("k");
            call.options.attempts_max = asked;
            let got = answered(world.call_through(call).await);
            let last = format!("no {}", made - 1);
            assert_eq!(essence(&got.response), (503, last.as_bytes()), "the last answer");
            assert_eq!(world.upstream.dispatched(), made);
        }
    }
}

#[tokio::test]
async fn no_attempt_begins_after_the_horizon() {
    let backoff =
        Backoff { attempts_max: 100, table: vec![Duration::from_secs(4)], ..Backoff::held() };
    let policy = Policy { held: backoff, ..effects(Effects::Idempotent) };
    for world in every(&policy) {
        world.upstream.script((0..100).map(|_| answer(503, "")));
        let began = world.clock.now();
        let got = answered(world.call_through(post("k")).await);
        assert_eq!(got.operation.state, State::Dead(Death::Exhausted));
        assert!(world.clock.now().since(began) <= Duration::from_secs(10));
        // 10 s in steps of 3.2 to 4.8 s.
        assert!((3..=4).contains(&world.upstream.dispatched()), "{}", world.upstream.dispatched());
    }
}

#[tokio::test]
async fn an_attempt_that_is_due_while_nobody_ran_does_not_begin_after_the_horizon() {
    for world in every(&effects(Effects::Keyed)) {
        world.upstream.script([answer(503, "no")]);
        let calling = world.begin(post("k"));
        world.stands("k", "pending").await;
        // The machine was suspended: the wait of a moment took an hour.
        world.clock.advance(Duration::from_hours(1));
        let result = calling.result().await;
        assert_eq!(world.stands("k", "dead").await.state, State::Dead(Death::Exhausted));
        assert_eq!(world.upstream.dispatched(), 1);
        // Whoever waited longer than a caller is let may be told so instead of the last answer.
        assert!(
            matches!(&result, Ok(Answer::Upstream(last)) if last.response.status == 503)
                || matches!(&result, Err(Refusal::StillWorking(_))),
            "{result:?}"
        );
    }
}

#[tokio::test]
async fn accepted_work_is_tried_for_days_and_ends_with_a_good_answer() {
    let mut policy = effects(Effects::Keyed);
    // Longer than the horizon, so that the upstream's memory of the key ends nothing.
    policy.upstream_key.window = Duration::from_hours(24 * 7);
    for world in every(&policy) {
        world.upstream.script((0..11).map(|_| answer(503, "")));
        let began = world.clock.now();
        let operation = taken(world.call(accepted("k")).await);
        for made in 1..=11 {
            world.until_dispatched(made).await;
            let waiting = world.let_retry("k").await;
            assert_eq!(waiting.attempts.len(), made);
        }
        let done = world.stands("k", "done").await;
        assert_eq!((done.id, done.attempts.len()), (operation.id, 12));
        assert!(world.clock.now().since(began) > Duration::from_mins(1));
        let again = world.answered(post("k")).await;
        assert_eq!((again.response.status, again.replayed), (201, true));
        assert!(world.upstream.seen().iter().all(|one| one.key() == "k"));
    }
}

#[tokio::test]
async fn accepted_work_goes_on_after_a_restart_with_the_attempts_it_had() {
    for mut world in every(&effects(Effects::Keyed)) {
        world.upstream.script([answer(503, ""), answer(503, "")]);
        let operation = taken(world.call(accepted("k")).await);
        world.until_dispatched(1).await;
        world.let_retry("k").await;
        world.until_dispatched(2).await;
        world.stands("k", "pending").await;
        assert_eq!(world.restart().await, 0, "what waits needs no judging");
        world.let_retry("k").await;
        let done = world.stands("k", "done").await;
        assert_eq!(
            (done.id, done.attempts.len(), world.upstream.dispatched()),
            (operation.id, 3, 3)
        );
    }
}

#[tokio::test]
async fn an_accepted_caller_that_waits_gets_the_outcome_of_a_later_attempt_too() {
    for world in every(&effects(Effects::Keyed)) {
        world.upstream.script([answer(503, ""), answer(201, "made")]);
        let mut call = accepted("k");
        call.options.wait = Some(Duration::from_secs(30));
        let got = answered(world.call_through(call).await);
        assert_eq!(essence(&got.response), (201, &b"made"[..]));
    }
}

#[tokio::test]
async fn an_accepted_caller_that_waited_long_enough_is_told_that_it_is_accepted() {
    for world in every(&effects(Effects::Keyed)) {
        world.upstream.script([answer(503, "").header("retry-after", "100")]);
        let mut call = accepted("k");
        // No other part of the engine sleeps for so long.
        let wait = Duration::from_secs(7);
        call.options.wait = Some(wait);
        let calling = world.begin(call);
        world.stands("k", "pending").await;
        let until = world.clock.now().plus(wait);
        world.until("the caller waits", async || world.clock.is_awaited(until)).await;
        world.clock.advance_to(until);
        taken(calling.result().await);
    }
}

#[tokio::test]
async fn no_attempt_begins_after_the_callers_deadline() {
    for world in every(&effects(Effects::Keyed)) {
        world.upstream.script([answer(503, "no").header("retry-after", "5"), answer(201, "")]);
        let mut call = post("k");
        call.options.deadline = Some(world.clock.now().plus(Duration::from_secs(3)));
        let got = answered(world.call_through(call).await);
        assert_eq!((got.response.status, world.upstream.dispatched()), (503, 1));
        assert_eq!(got.operation.state, State::Dead(Death::Exhausted));
    }
}

#[tokio::test]
async fn a_call_whose_deadline_is_past_sends_nothing_and_its_key_may_be_used_again() {
    for world in every(&effects(Effects::Keyed)) {
        let mut call = post("k");
        call.options.deadline = Some(world.clock.now());
        world.clock.advance(Duration::from_secs(1));
        let refusal = world.refused(call).await;
        assert!(matches!(refusal, Refusal::UpstreamUnreachable(_)), "{refusal:?}");
        assert_eq!(world.upstream.dispatched(), 0);
        assert_eq!(world.answered(post("k")).await.response.status, 201);
        assert_eq!(world.upstream.effects("k"), 1);
    }
}

#[tokio::test]
async fn what_cannot_be_helped_by_trying_again_is_not_tried_again() {
    for world in every(&effects(Effects::Idempotent)) {
        world.upstream.script([permanent()]);
        let refusal = refused(world.call_through(post("k")).await);
        let Refusal::UpstreamUnreachable(operation) = refusal else { panic!("{refusal:?}") };
        assert_eq!(operation.state, State::Dead(Death::Unsent));
        assert_eq!(world.upstream.dispatched(), 1);
    }
}

#[tokio::test]
async fn a_keyed_answer_that_broke_off_is_asked_for_again() {
    for world in every(&effects(Effects::Keyed)) {
        world.upstream.dedupe();
        world.upstream.script([truncated(201, "ma")]);
        let got = answered(world.call_through(post("k")).await);
        assert_eq!(essence(&got.response), (201, &b"made once"[..]));
        assert_eq!(got.operation.attempts.len(), 2);
        assert_eq!(world.upstream.effects("k"), 1);
    }
}

#[tokio::test]
async fn a_part_of_an_answer_never_poses_as_the_last_answer() {
    for world in every(&effects(Effects::Keyed)) {
        world.upstream.script((0..3).map(|_| truncated(500, "half of wh")));
        let refusal = refused(world.call_through(post("k")).await);
        assert!(matches!(refusal, Refusal::NoAnswer(_)), "{refusal:?}");
    }
}
