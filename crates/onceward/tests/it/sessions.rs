//! Two nodes on one ledger, of which one is taken for gone although it only stood still.

use onceward::core::operation::{Death, Source, State};
use onceward::core::policy::{Effects, Policy};
use onceward::{Answer, Refusal};

use crate::world::{
    Gate, PAY, World, answer, answered, effects, essence, post, refused, route, routes, unanswered,
};

fn world(policy: &Policy) -> World {
    World::in_memory(routes([route(PAY, policy)]))
}

#[tokio::test]
async fn the_late_answer_of_a_node_that_was_taken_for_gone_ends_the_doubt() {
    let world = world(&effects(Effects::NonIdempotent));
    let gate = Gate::closed();
    world.upstream.script([answer(201, "done").with_effect().behind(&gate)]);
    let calling = world.begin(post("k"));
    world.until_dispatched(1).await;
    let other = world.neighbour();
    world.lapse().await;
    assert_eq!(other.recover().await.unwrap(), 1);
    assert_eq!(world.operation("k").await.state, State::InDoubt);
    let refusal = refused(other.call(post("k")).await);
    assert!(matches!(refusal, Refusal::OutcomeUnknown { first: false, .. }), "{refusal:?}");
    gate.open();
    let got = answered(calling.result().await);
    assert_eq!(essence(&got.response), (201, &b"done"[..]));
    let settled = world.operation("k").await;
    assert_eq!((settled.state, settled.attempts.len()), (State::Done, 1));
    assert_eq!(settled.outcome.unwrap().source, Source::LateAnswer);
    let again = answered(other.call(post("k")).await);
    assert_eq!(essence(&again.response), (201, &b"done"[..]));
    assert_eq!((world.upstream.dispatched(), world.upstream.effects("k")), (1, 1));
}

#[tokio::test]
async fn a_late_answer_that_says_nothing_leaves_the_doubt_and_adds_what_it_knows() {
    let world = world(&effects(Effects::NonIdempotent));
    let gate = Gate::closed();
    world.upstream.script([answer(500, "oh").behind(&gate)]);
    let calling = world.begin(post("k"));
    world.until_dispatched(1).await;
    world.lapse().await;
    assert_eq!(world.neighbour().recover().await.unwrap(), 1);
    gate.open();
    let got = answered(calling.result().await);
    assert_eq!(got.response.status, 500);
    let doubted = world.operation("k").await;
    let ended = doubted.attempts.last().unwrap().ended.clone().unwrap();
    assert_eq!((doubted.state, ended.status), (State::InDoubt, Some(500)));
}

#[tokio::test]
async fn a_node_that_was_taken_for_gone_answers_its_caller_with_what_the_ledger_says() {
    let world = world(&effects(Effects::Keyed));
    let gate = Gate::closed();
    world.upstream.script([answer(201, "mine").with_effect().behind(&gate)]);
    let calling = world.begin(post("k"));
    world.until_dispatched(1).await;
    let other = world.neighbour();
    world.lapse().await;
    assert_eq!(other.recover().await.unwrap(), 1);
    let gone = world.operation("k").await;
    assert_eq!(gone.state, State::Dead(Death::OwnerGone), "its caller may be gone with it");
    world.upstream.script([answer(201, "theirs")]);
    let theirs = answered(other.call(post("k")).await);
    assert_eq!(essence(&theirs.response), (201, &b"theirs"[..]));
    gate.open();
    let mine = answered(calling.result().await);
    assert_eq!(essence(&mine.response), (201, &b"theirs"[..]), "what is not kept is not told");
    let settled = world.operation("k").await;
    assert_eq!((settled.attempts.len(), settled.outcome.unwrap().source), (2, Source::Upstream));
}

#[tokio::test]
async fn what_a_living_node_has_under_way_is_nobody_elses() {
    let world = world(&effects(Effects::NonIdempotent));
    let gate = Gate::closed();
    world.upstream.script([unanswered().behind(&gate)]);
    let calling = world.begin(post("k"));
    world.until_dispatched(1).await;
    world.until_it_has_beaten().await;
    assert_eq!(world.neighbour().recover().await.unwrap(), 0);
    assert_eq!(world.operation("k").await.state, State::Delivering);
    gate.open();
    assert!(!matches!(calling.result().await, Ok(Answer::Upstream(_))));
}
