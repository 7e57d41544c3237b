//! What may have been done, and must not be done twice.

use std::time::Duration;

use bytes::Bytes;
use onceward::core::exchange::{Headers, Response};
use onceward::core::operation::{Death, Deed, State};
use onceward::core::policy::{Backoff, Effects, Policy};
use onceward::core::risk::Risk;
use onceward::{Refusal, Resolution};

use crate::world::{
    Gate, World, accepted, answer, answered, effects, essence, every, person, post, refused, route,
    routes, taken, truncated, unanswered, unsent,
};

const A_DECADE: Duration = Duration::from_hours(24 * 3653);

fn on_every_store() -> Vec<World> {
    every(&effects(Effects::NonIdempotent))
}

/// A duplicate learns that nobody knows, and nothing is sent.
async fn is_unknown_to_a_duplicate(world: &World, key: &str) {
    let sent = world.upstream.dispatched();
    let refusal = world.refused(post(key)).await;
    let Refusal::OutcomeUnknown { operation, first } = refusal else { panic!("{refusal:?}") };
    assert_eq!((operation.state, first), (State::InDoubt, false));
    assert_eq!(world.upstream.dispatched(), sent);
}

#[tokio::test]
async fn an_ambiguous_answer_is_sent_once_and_told_to_its_caller_as_it_came() {
    for status in [500, 502, 503, 504, 507, 520] {
        for world in on_every_store() {
            world.upstream.script([answer(status, "oh").header("x-a", "1").with_effect()]);
            let got = world.answered(post("k")).await;
            assert_eq!(essence(&got.response), (status, &b"oh"[..]));
            assert_eq!(got.response.headers.text("x-a"), Some("1"));
            assert_eq!((got.operation.state, got.replayed), (State::InDoubt, false));
            is_unknown_to_a_duplicate(&world, "k").await;
            assert_eq!(world.upstream.effects("k"), 1);
        }
    }
}

#[tokio::test]
async fn an_unanswered_call_is_sent_once_and_its_caller_told_that_nobody_knows() {
    for world in on_every_store() {
        world.upstream.script([unanswered()]);
        let refusal = world.refused(post("k")).await;
        assert!(matches!(refusal, Refusal::OutcomeUnknown { first: true, .. }), "{refusal:?}");
        is_unknown_to_a_duplicate(&world, "k").await;
    }
}

#[tokio::test]
async fn an_ambiguous_answer_that_broke_off_is_not_told_as_if_it_were_whole() {
    for world in on_every_store() {
        world.upstream.script([truncated(500, "hal")]);
        let refusal = world.refused(post("k")).await;
        assert!(matches!(refusal, Refusal::OutcomeUnknown { first: true, .. }), "{refusal:?}");
    }
}

#[tokio::test]
async fn neither_duplicates_nor_restarts_nor_years_send_it_again() {
    for (mut world, step) in on_every_store()
        .into_iter()
        .zip([unanswered(), answer(500, "").with_effect()])
        .chain(on_every_store().into_iter().zip([answer(503, "").with_effect(), unanswered()]))
    {
        world.upstream.script([step]);
        let _ = world.call(post("k")).await;
        for _ in 0..3 {
            let racing: Vec<_> = (0..20).map(|_| world.begin(post("k"))).collect();
            for one in racing {
                let refusal = refused(one.result().await);
                assert!(matches!(refusal, Refusal::OutcomeUnknown { .. }), "{refusal:?}");
            }
            let refusal = world.refused(accepted("k")).await;
            assert!(matches!(refusal, Refusal::OutcomeUnknown { .. }), "{refusal:?}");
            world.restart().await;
            is_unknown_to_a_duplicate(&world, "k").await;
            world.clock.advance(A_DECADE);
            is_unknown_to_a_duplicate(&world, "k").await;
        }
        assert_eq!((world.upstream.dispatched(), world.upstream.effects("k")), (1, 1));
    }
}

#[tokio::test]
async fn an_attempt_under_way_when_the_process_is_killed_is_in_doubt_and_never_sent_again() {
    for accepts in [false, true] {
        for mut world in on_every_store() {
            let gate = Gate::closed();
            world.upstream.script([answer(201, "made").behind(&gate)]);
            let calling = world.begin(if accepts { accepted("k") } else { post("k") });
            world.until_dispatched(1).await;
            assert_eq!(world.restart().await, 1);
            assert_eq!(world.notes.attempted(), ["unanswered"], "recovery tells of it too");
            drop(calling);
            gate.open();
            is_unknown_to_a_duplicate(&world, "k").await;
            world.clock.advance(A_DECADE);
            is_unknown_to_a_duplicate(&world, "k").await;
            assert_eq!((world.upstream.dispatched(), world.upstream.effects("k")), (1, 1));
        }
    }
}

#[tokio::test]
async fn a_later_attempt_under_way_when_the_process_is_killed_is_in_doubt() {
    for mut world in on_every_store() {
        let gate = Gate::closed();
        world.upstream.script([unsent(), answer(201, "made").behind(&gate)]);
        let calling = world.begin(post("k"));
        world.let_retry("k").await;
        world.until_dispatched(2).await;
        assert_eq!(world.operation("k").await.attempts.len(), 2, "what is sent is remembered");
        assert_eq!(world.restart().await, 1);
        drop(calling);
        gate.open();
        is_unknown_to_a_duplicate(&world, "k").await;
        assert_eq!((world.upstream.dispatched(), world.upstream.effects("k")), (2, 1));
    }
}

#[tokio::test]
async fn an_accepted_call_in_doubt_is_not_tried_again_by_the_dispatcher() {
    for world in on_every_store() {
        world.upstream.script([unanswered()]);
        taken(world.call(accepted("k")).await);
        world.stands("k", "in_doubt").await;
        world.clock.advance(A_DECADE);
        // Work that comes later is delivered, so the dispatcher has looked.
        taken(world.call(accepted("later")).await);
        world.stands("later", "done").await;
        assert_eq!(world.upstream.effects("k"), 1);
        assert_eq!(world.upstream.dispatched(), 2);
    }
}

#[tokio::test]
async fn those_who_wait_for_what_goes_into_doubt_are_told_so() {
    for world in on_every_store() {
        let gate = Gate::closed();
        world.upstream.script([unanswered().behind(&gate)]);
        let first = world.begin(post("k"));
        world.until_dispatched(1).await;
        let second = world.begin(post("k"));
        let joined = onceward::observe::Repeat::Joined;
        world.until("the second joined", async || world.notes.repeats(joined) == 1).await;
        gate.open();
        let refusal = refused(first.result().await);
        assert!(matches!(refusal, Refusal::OutcomeUnknown { first: true, .. }), "{refusal:?}");
        let refusal = refused(second.result().await);
        assert!(matches!(refusal, Refusal::OutcomeUnknown { first: false, .. }), "{refusal:?}");
    }
}

#[tokio::test]
async fn what_a_person_says_was_done_is_what_duplicates_get() {
    for mut world in on_every_store() {
        world.upstream.script([unanswered()]);
        let _ = world.call(post("k")).await;
        let id = world.operation("k").await.id;
        let done = Resolution::Done(Some(Response {
            status: 201,
            headers: Headers(vec![("content-type".to_owned(), Bytes::from_static(b"a/b"))]),
            body: Bytes::from_static(b"\x00by hand\xff"),
            trailers: Headers::default(),
        }));
        let resolved = world.engine().resolve(id, &done, &person()).await.unwrap();
        assert_eq!(resolved.state, State::Done);
        let act = resolved.acts.last().unwrap();
        assert_eq!((act.deed, act.who.as_str()), (Deed::ResolvedDone, "anna"));
        assert_eq!(act.reason, "asked the bank");
        for _ in 0..2 {
            let got = world.answered(post("k")).await;
            assert_eq!(essence(&got.response), (201, &b"\x00by hand\xff"[..]));
            assert_eq!(got.response.headers.text("content-type"), Some("a/b"));
            assert!(got.replayed && got.operation.outcome.as_ref().unwrap().ok);
            world.restart().await;
        }
        assert_eq!(world.upstream.dispatched(), 1);
        let again = world.engine().resolve(id, &done, &person()).await;
        assert!(matches!(again, Err(Refusal::Conflict { .. })), "a doubt is resolved once");
    }
}

#[tokio::test]
async fn what_a_person_says_was_done_without_an_answer_has_none_to_replay() {
    for world in on_every_store() {
        world.upstream.script([unanswered()]);
        let _ = world.call(post("k")).await;
        let id = world.operation("k").await.id;
        let done = Resolution::Done(None);
        world.engine().resolve(id, &done, &person()).await.unwrap();
        let refusal = world.refused(post("k")).await;
        assert!(matches!(refusal, Refusal::ResponseNotRetained(_)), "{refusal:?}");
        assert_eq!(world.upstream.dispatched(), 1);
    }
}

#[tokio::test]
async fn what_a_person_says_was_not_sent_is_sent_again() {
    for world in on_every_store() {
        world.upstream.script([answer(500, "nothing was done"), answer(201, "made")]);
        let _ = world.call(post("k")).await;
        let before = world.operation("k").await;
        world.engine().resolve(before.id, &Resolution::NotSent, &person()).await.unwrap();
        let done = world.stands("k", "done").await;
        assert_eq!((done.id, done.attempts.len()), (before.id, 2));
        assert_eq!(done.acts[0].deed, Deed::ResolvedNotSent);
        let got = world.answered(post("k")).await;
        assert_eq!((essence(&got.response), got.replayed), ((201, &b"made"[..]), true));
        assert_eq!((world.upstream.dispatched(), world.upstream.effects("k")), (2, 1));
    }
}

#[tokio::test]
async fn what_is_in_doubt_is_neither_redelivered_nor_cancelled_nor_forgotten() {
    use onceward::core::key::Key;
    use onceward::core::operation::Forgotten;
    for world in on_every_store() {
        world.upstream.script([unanswered()]);
        let _ = world.call(post("k")).await;
        let before = world.operation("k").await;
        let (engine, who) = (world.engine(), person());
        let key = Key::new("k").unwrap();
        let result = engine.redeliver(before.id, &who).await;
        assert!(matches!(result, Err(Refusal::RiskUnaccepted { .. })), "{result:?}");
        for result in [
            engine.cancel(before.id, &who).await,
            engine.forget(&crate::world::scope(), &key, Forgotten::New, &who).await,
        ] {
            assert!(matches!(result, Err(Refusal::Conflict { .. })), "{result:?}");
        }
        assert_eq!(world.operation("k").await, before);
        assert_eq!(world.upstream.dispatched(), 1);
    }
}

/// A policy under which the upstream forgets a key after 100 s: nothing is sent after 80 s.
fn short_memory() -> Policy {
    let mut policy = effects(Effects::Keyed);
    policy.upstream_key.window = Duration::from_secs(100);
    policy.accepted =
        Backoff { table: vec![Duration::from_secs(50)], attempts_max: 9, ..Backoff::accepted() };
    policy
}

#[tokio::test]
async fn past_the_upstreams_memory_of_a_key_the_same_key_does_not_send_it_again() {
    for (past, sent) in [(79, 4), (80, 3)] {
        for world in every(&short_memory()) {
            world.upstream.script([unanswered(), unanswered(), unanswered()]);
            let began = world.clock.now();
            let refusal = refused(world.call_through(post("k")).await);
            assert!(matches!(refusal, Refusal::NoAnswer(_)), "{refusal:?}");
            world.clock.advance_to(began.plus(Duration::from_secs(past)));
            let result = world.call(post("k")).await;
            assert_eq!(world.upstream.dispatched(), sent);
            if sent == 3 {
                let refusal = refused(result);
                assert!(matches!(refusal, Refusal::OutcomeUnknown { .. }), "{refusal:?}");
                is_unknown_to_a_duplicate(&world, "k").await;
            } else {
                assert_eq!(answered(result).response.status, 201);
            }
        }
    }
}

#[tokio::test]
async fn past_the_upstreams_memory_of_a_key_many_duplicates_at_once_are_all_told_that_nobody_knows()
{
    for world in every(&short_memory()) {
        world.upstream.script([unanswered(), unanswered(), unanswered()]);
        let _ = world.call_through(post("k")).await;
        world.clock.advance(Duration::from_secs(100));
        let racing: Vec<_> = (0..50).map(|_| world.begin(post("k"))).collect();
        for one in racing {
            let refusal = refused(one.result().await);
            assert!(matches!(refusal, Refusal::OutcomeUnknown { first: false, .. }), "{refusal:?}");
        }
        assert_eq!(world.upstream.dispatched(), 3);
    }
}

#[tokio::test]
async fn past_the_upstreams_memory_of_a_key_only_who_takes_the_risk_sends_it_again() {
    for world in every(&short_memory()) {
        world.upstream.script([unanswered(), unanswered(), unanswered()]);
        let _ = world.call_through(post("k")).await;
        let dead = world.operation("k").await;
        assert_eq!(dead.state, State::Dead(Death::Exhausted));
        world.clock.advance(Duration::from_secs(80));
        let engine = world.engine();
        let result = engine.redeliver_at_risk(dead.id, &person(), &[Risk::Unknown]).await;
        assert!(
            matches!(result, Err(Refusal::RiskUnaccepted { risk: Risk::WindowOver, .. })),
            "{result:?}"
        );
        assert_eq!(world.operation("k").await, dead, "nothing was written");
        engine.redeliver_at_risk(dead.id, &person(), &[Risk::WindowOver]).await.unwrap();
        let done = world.stands("k", "done").await;
        assert!(done.acts[0].reason.contains("window-over"), "what was taken is kept");
        assert_eq!(world.upstream.dispatched(), 4);
    }
}

#[tokio::test]
async fn past_the_upstreams_memory_of_a_key_a_retry_that_comes_due_late_is_not_sent() {
    for mut world in every(&short_memory()) {
        world.upstream.script([unanswered()]);
        taken(world.call(accepted("k")).await);
        world.stands("k", "pending").await;
        // Down for longer than the upstream remembers.
        world.kill().await;
        world.clock.advance(Duration::from_secs(80));
        world.begin_again().await;
        world.stands("k", "in_doubt").await;
        assert_eq!((world.upstream.dispatched(), world.upstream.effects("k")), (1, 1));
    }
}

#[tokio::test]
async fn past_the_upstreams_memory_of_a_key_a_held_call_whose_wait_took_too_long_is_not_sent() {
    for world in every(&short_memory()) {
        world.upstream.script([answer(503, "no").with_effect()]);
        let calling = world.begin(post("k"));
        world.stands("k", "pending").await;
        world.clock.advance(Duration::from_secs(80));
        world.stands("k", "in_doubt").await;
        let _ = calling.result().await;
        assert_eq!(world.upstream.dispatched(), 1);
    }
}

#[tokio::test]
async fn doubt_on_one_route_is_none_on_another() {
    let policy = effects(Effects::NonIdempotent);
    let world = World::in_memory(routes([route("pay", &policy), route("mail", &policy)]));
    world.upstream.script([unanswered()]);
    let _ = world.call(post("k")).await;
    let mut elsewhere = post("k");
    elsewhere.route = "mail".into();
    assert_eq!(world.answered(elsewhere).await.response.status, 201);
}
