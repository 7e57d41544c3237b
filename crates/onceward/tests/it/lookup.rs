//! What was in doubt, and the upstream was asked about.

use std::sync::Arc;
use std::time::Duration;

use onceward::core::condition::Condition;
use onceward::core::lookup::{Finding, LookupRule, When};
use onceward::core::operation::{Death, Deed, Operation, Source, State};
use onceward::core::path_template::PathTemplate;
use onceward::core::policy::{Effects, Policy};
use onceward::{LOOKUP, Refusal};
use serde_json::json;

use crate::world::{
    Gate, PAY, Step, World, accepted, answer, answered, effects, essence, every, post, refused,
    route, routes, taken, unanswered, unsent,
};

const SETTLE: Duration = Duration::from_secs(30);

fn rule() -> LookupRule {
    LookupRule {
        get: PathTemplate::read("/payments?ref={key}").unwrap(),
        found: Condition::read(&json!({"json": {"/items/0/id": {"exists": true}}})).unwrap(),
        absent: None,
        settle: SETTLE,
        when: When::Doubt,
        status: None,
        is_answer: false,
    }
}

fn with(rule: LookupRule, kind: Effects) -> Policy {
    Policy { lookup: Some(Arc::new(rule)), ..effects(kind) }
}

fn policy() -> Policy {
    with(rule(), Effects::NonIdempotent)
}

fn found() -> Step {
    answer(200, r#"{"items": [{"id": 7}]}"#)
}

fn absent() -> Step {
    answer(200, r#"{"items": []}"#)
}

fn looks(world: &World) -> usize {
    world.upstream.seen().iter().filter(|seen| seen.method == "GET").count()
}

/// The operation of `k` once it was looked for so often.
async fn looked(world: &World, made: usize) -> Operation {
    world.until(&format!("{made} looks"), async || world.notes.looked() >= made).await;
    world.operation("k").await
}

#[tokio::test]
async fn what_the_upstream_knows_of_is_done_and_never_sent_again() {
    for mut world in every(&policy()) {
        world.upstream.script([unanswered(), found()]);
        let refusal = world.refused(post("k")).await;
        assert!(matches!(refusal, Refusal::OutcomeUnknown { first: true, .. }), "{refusal:?}");
        let done = world.stands("k", "done").await;
        let outcome = done.outcome.unwrap();
        assert_eq!((outcome.source, outcome.ok, outcome.status), (Source::Lookup, true, None));
        let act = done.acts.last().unwrap();
        assert_eq!((act.deed, act.who.as_str()), (Deed::ResolvedDone, LOOKUP));
        assert!(
            act.reason.starts_with("GET /payments?ref={key} answered 200, found\n"),
            "{}",
            act.reason
        );
        assert!(
            act.reason.contains(r#"GET /payments?ref=k: {"items": [{"id": 7}"#),
            "the answer is the evidence: {}",
            act.reason
        );
        for _ in 0..2 {
            let refusal = world.refused(post("k")).await;
            assert!(matches!(refusal, Refusal::ResponseNotRetained(_)), "{refusal:?}");
            world.restart().await;
        }
        let seen = world.upstream.seen();
        assert_eq!((seen[1].method.as_str(), seen[1].target.as_str()), ("GET", "/payments?ref=k"));
        assert_eq!((seen.len(), world.upstream.effects("k")), (2, 1));
    }
}

#[tokio::test]
async fn what_was_found_is_the_answer_where_the_route_says_so() {
    let rule = LookupRule { is_answer: true, status: Some(201), ..rule() };
    for world in every(&with(rule, Effects::NonIdempotent)) {
        let answer = found().header("content-type", "application/json").header("set-cookie", "a");
        world.upstream.script([unanswered(), answer]);
        let _ = world.call(post("k")).await;
        world.stands("k", "done").await;
        let got = world.answered(post("k")).await;
        assert_eq!(essence(&got.response), (201, &br#"{"items": [{"id": 7}]}"#[..]));
        assert_eq!(got.response.headers.text("content-type"), Some("application/json"));
        assert!(got.replayed && got.response.headers.get("set-cookie").is_none());
    }
}

#[tokio::test]
async fn what_was_accepted_and_is_absent_twice_is_sent_again_once_it_settled() {
    for world in every(&policy()) {
        world.upstream.script([answer(500, "oh"), absent(), absent()]);
        taken(world.call(accepted("k")).await);
        let waiting = looked(&world, 1).await;
        assert_eq!((waiting.state, waiting.looks.absent), (State::InDoubt, 1));
        let ended = waiting.attempts[0].ended.as_ref().unwrap().at;
        assert_eq!(waiting.looks.next, Some(ended.plus(SETTLE)), "then once it has settled");
        world.clock.advance_to(ended.plus(SETTLE));
        let done = world.stands("k", "done").await;
        assert_eq!((done.attempts.len(), looks(&world)), (2, 2));
        assert!(!done.attempts[0].may_have_executed());
        let act = &done.acts[0];
        assert_eq!((act.deed, act.who.as_str()), (Deed::ResolvedNotSent, LOOKUP));
        assert!(act.reason.contains("absent"), "{}", act.reason);
        assert_eq!(world.upstream.effects("k"), 1);
    }
}

#[tokio::test]
async fn what_a_caller_waited_for_and_is_absent_twice_is_sent_by_the_same_key_and_not_before() {
    for mut world in every(&policy()) {
        world.upstream.script([answer(500, "oh"), absent(), absent()]);
        let _ = world.call(post("k")).await;
        let waiting = looked(&world, 1).await;
        world.clock.advance_to(waiting.looks.next.unwrap());
        let dead = world.stands("k", "dead").await;
        assert_eq!((dead.state, dead.told), (State::Dead(Death::Unsent), true));
        world.restart().await;
        assert_eq!(world.upstream.effects("k"), 0, "nobody asked for it again");
        let got = world.answered(post("k")).await;
        assert_eq!((got.response.status, got.operation.id), (201, dead.id));
        assert_eq!((looks(&world), world.upstream.effects("k")), (2, 1));
    }
}

#[tokio::test]
async fn an_answer_that_says_nothing_is_waited_out_and_breaks_the_row() {
    for world in every(&policy()) {
        let broken = [answer(500, ""), unsent(), answer(200, "<html>"), absent()];
        world.upstream.script([answer(500, "oh"), absent()].into_iter().chain(broken));
        taken(world.call(accepted("k")).await);
        for (made, row) in [(1, 1), (2, 0), (3, 0), (4, 0), (5, 1)] {
            let waiting = looked(&world, made).await;
            assert_eq!((waiting.state, waiting.looks.absent), (State::InDoubt, row), "look {made}");
            if made < 5 {
                world.clock.advance_to(waiting.looks.next.unwrap());
            }
        }
        assert_eq!(world.upstream.dispatched(), 6);
    }
}

#[tokio::test]
async fn past_the_upstreams_memory_of_a_key_the_upstream_is_asked_too() {
    let mut policy = with(rule(), Effects::Keyed);
    policy.upstream_key.window = Duration::from_secs(100);
    for world in every(&policy) {
        world.upstream.script([unanswered(), unanswered(), unanswered(), found()]);
        let _ = world.call_through(post("k")).await;
        world.clock.advance(Duration::from_secs(100));
        let refusal = world.refused(post("k")).await;
        assert!(matches!(refusal, Refusal::OutcomeUnknown { .. }), "{refusal:?}");
        world.stands("k", "done").await;
        assert_eq!((looks(&world), world.upstream.dispatched()), (1, 4));
    }
}

#[tokio::test]
async fn a_look_that_a_kill_cut_off_is_made_again() {
    for mut world in every(&policy()) {
        let gate = Gate::closed();
        world.upstream.script([unanswered(), found().behind(&gate), found()]);
        let _ = world.call(post("k")).await;
        world.until_dispatched(2).await;
        world.kill().await;
        world.begin_again().await;
        let claimed = world.operation("k").await;
        assert_eq!((claimed.state, claimed.looks.made), (State::InDoubt, 1));
        let next = claimed.looks.next.unwrap();
        // Nobody asks before the claim is over, however often the ledger is read meanwhile.
        while world.clock.now() < next {
            assert_eq!(looks(&world), 1);
            world
                .until("it is waited", async || {
                    world
                        .clock
                        .is_anyone_asleep_for(Duration::from_secs(1)..Duration::from_secs(31))
                })
                .await;
            world.clock.advance(Duration::from_secs(10).min(next.since(world.clock.now())));
        }
        world.stands("k", "done").await;
        assert_eq!((looks(&world), world.upstream.effects("k")), (2, 1));
    }
}

#[tokio::test]
async fn a_late_answer_that_comes_during_a_look_wins_and_the_look_changes_nothing() {
    let world = World::in_memory(routes([route(PAY, &policy())]));
    let (sent, asked) = (Gate::closed(), Gate::closed());
    world
        .upstream
        .script([answer(201, "done").with_effect().behind(&sent), absent().behind(&asked)]);
    let calling = world.begin(post("k"));
    world.until_dispatched(1).await;
    let other = world.neighbour();
    world.lapse().await;
    assert_eq!(other.recover().await.unwrap(), 1);
    let id = world.operation("k").await.id;
    let looking = tokio::spawn(async move { other.look_again(id).await });
    world.until_dispatched(2).await;
    sent.open();
    let got = answered(calling.result().await);
    assert_eq!(essence(&got.response), (201, &b"done"[..]));
    let settled = world.operation("k").await;
    assert_eq!(settled.outcome.as_ref().unwrap().source, Source::LateAnswer);
    asked.open();
    let refusal = looking.await.unwrap().unwrap_err();
    assert!(matches!(refusal, Refusal::Conflict { .. }), "{refusal:?}");
    assert_eq!(world.operation("k").await, settled);
    assert_eq!(world.upstream.effects("k"), 1);
}

#[tokio::test]
async fn a_late_answer_that_comes_after_a_look_found_it_changes_nothing() {
    let rule = LookupRule { is_answer: true, ..rule() };
    let world = World::in_memory(routes([route(PAY, &with(rule, Effects::NonIdempotent))]));
    let sent = Gate::closed();
    world.upstream.script([answer(201, "done").with_effect().behind(&sent), found()]);
    let calling = world.begin(post("k"));
    world.until_dispatched(1).await;
    let other = world.neighbour();
    world.lapse().await;
    assert_eq!(other.recover().await.unwrap(), 1);
    let id = world.operation("k").await.id;
    let (done, finding) = other.look_again(id).await.unwrap();
    assert_eq!((done.state, finding), (State::Done, Finding::Found));
    sent.open();
    let got = answered(calling.result().await);
    assert_eq!(
        essence(&got.response),
        (200, &br#"{"items": [{"id": 7}]}"#[..]),
        "one key, one answer"
    );
    assert_eq!(world.operation("k").await, done);
}

#[tokio::test]
async fn two_nodes_do_not_both_ask() {
    let world = World::in_memory(routes([route(PAY, &policy())]));
    let gate = Gate::closed();
    world.upstream.script([unanswered(), found().behind(&gate)]);
    let _ = world.call(post("k")).await;
    world.until_dispatched(2).await;
    let other = world.neighbour();
    other.start();
    // The other has looked through what is in doubt once it delivers what comes later.
    other.call(post("later")).await.unwrap();
    world.clock.advance(Duration::from_secs(31));
    other.call(post("later-still")).await.unwrap();
    assert_eq!(looks(&world), 1);
    gate.open();
    world.stands("k", "done").await;
    assert_eq!(looks(&world), 1);
}

#[tokio::test]
async fn a_person_has_it_looked_for_at_once() {
    for world in every(&policy()) {
        world.upstream.script([unanswered(), answer(500, "")]);
        let _ = world.call(post("k")).await;
        let waiting = looked(&world, 1).await;
        world.upstream.script([found()]);
        let (done, finding) = world.engine().look_again(waiting.id).await.unwrap();
        assert_eq!((done.state, finding), (State::Done, Finding::Found));
        let again = world.engine().look_again(waiting.id).await;
        assert!(matches!(again, Err(Refusal::Conflict { .. })), "{again:?}");
    }
    let world = World::in_memory(routes([route(PAY, &effects(Effects::NonIdempotent))]));
    world.upstream.script([unanswered()]);
    let _ = world.call(post("k")).await;
    let refusal = world.engine().look_again(world.operation("k").await.id).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Conflict { .. }), "a route without a lookup: {refusal:?}");
}

#[tokio::test]
async fn all_of_a_route_are_looked_for_at_once() {
    let world = World::in_memory(routes([route(PAY, &policy())]));
    world.upstream.script((0..3).flat_map(|_| [unanswered(), answer(500, "")]));
    for (n, key) in ["a", "b", "k"].into_iter().enumerate() {
        let _ = world.call(post(key)).await;
        world.until("it was looked for", async || world.notes.looked() > n).await;
    }
    world.upstream.script([found(), absent(), answer(500, "")]);
    let tally = world.engine().look_again_on(PAY).await.unwrap();
    assert_eq!((tally.found, tally.absent, tally.unknown, tally.left), (1, 1, 1, 0));
}

fn before() -> LookupRule {
    LookupRule { when: When::Before, is_answer: true, ..rule() }
}

#[tokio::test]
async fn what_is_found_before_it_is_sent_is_done_and_not_sent() {
    for world in every(&with(before(), Effects::NonIdempotent)) {
        world.upstream.script([found()]);
        let got = world.answered(post("k")).await;
        assert_eq!(essence(&got.response), (200, &br#"{"items": [{"id": 7}]}"#[..]));
        let done = world.operation("k").await;
        assert_eq!(done.outcome.unwrap().source, Source::Lookup);
        assert!(!done.attempts[0].may_have_executed());
        assert!(world.answered(post("k")).await.replayed);
        assert_eq!((world.upstream.dispatched(), world.upstream.effects("k")), (1, 0));
    }
}

#[tokio::test]
async fn what_is_absent_before_it_is_sent_is_sent() {
    for world in every(&with(before(), Effects::NonIdempotent)) {
        world.upstream.script([absent(), answer(201, "made")]);
        let got = world.answered(post("k")).await;
        assert_eq!(
            (essence(&got.response), got.operation.attempts.len()),
            ((201, &b"made"[..]), 1)
        );
        assert_eq!((looks(&world), world.upstream.effects("k")), (1, 1));
    }
}

#[tokio::test]
async fn what_nobody_knows_of_before_it_is_sent_is_not_sent() {
    for world in every(&with(before(), Effects::NonIdempotent)) {
        world.upstream.script([answer(500, ""), absent(), answer(201, "made")]);
        let got = answered(world.call_through(post("k")).await);
        assert_eq!(
            (essence(&got.response), got.operation.attempts.len()),
            ((201, &b"made"[..]), 2)
        );
        world.upstream.script((0..3).map(|_| answer(500, "")));
        let refusal = refused(world.call_through(post("other")).await);
        assert!(matches!(refusal, Refusal::UpstreamUnreachable(_)), "{refusal:?}");
        assert_eq!(world.upstream.effects("other"), 0);
    }
}

#[tokio::test]
async fn a_lookup_takes_values_of_the_request_and_asks_nothing_where_there_are_none() {
    let get = |text| LookupRule { get: PathTemplate::read(text).unwrap(), ..rule() };
    let rule = get("/payments/{json:/to}?op={operation}&n={json:/amount}");
    let world = World::in_memory(routes([route(PAY, &with(rule, Effects::NonIdempotent))]));
    world.upstream.script([unanswered(), found()]);
    let _ = world.call(post("k")).await;
    let done = world.stands("k", "done").await;
    let target = format!("/payments/anna?op={}&n=100", done.id);
    assert_eq!(world.upstream.seen()[1].target, target);
    let rule = get("/payments/{json:/nowhere}");
    let world = World::in_memory(routes([route(PAY, &with(rule, Effects::NonIdempotent))]));
    world.upstream.script([unanswered()]);
    let _ = world.call(post("k")).await;
    let waiting = looked(&world, 1).await;
    assert_eq!((waiting.state, waiting.looks.absent), (State::InDoubt, 0));
    assert_eq!(looks(&world), 0);
}
