//! Callbacks: whoever named a URL is told of the end, once for each, whatever dies between.

use std::time::Duration;

use onceward::core::key::ScopeKind;
use onceward::core::operation::{Operation, State};
use onceward::core::policy::{Backoff, Effects, Policy};
use onceward::store::Query;
use onceward::webhook;
use onceward::{Call, Resolution, Teller};

use crate::world::{World, accepted, answer, effects, every, person, post, taken, unanswered};

/// Whom the calls here want told.
const URL: &str = "https://hooks.test/told?by=onceward";
const HOOKS: &str = "https://hooks.test";

fn teller() -> Teller {
    Teller {
        secret: b"a secret of enough bytes".to_vec(),
        describe: |operation| format!("{} is {}", operation.id, operation.state.name()).into(),
    }
}

fn told(mut call: Call) -> Call {
    call.options.callback = Some(URL.to_owned());
    call
}

fn once(kind: Effects) -> Policy {
    let mut policy = effects(kind);
    policy.accepted = Backoff { attempts_max: 1, ..Backoff::accepted() };
    policy
}

fn worlds(policy: &Policy) -> Vec<World> {
    let worlds = every(policy);
    for world in &worlds {
        world.engine().set_teller(Some(teller()));
    }
    worlds
}

/// The callbacks that were born of `parent`, newest first.
async fn born_of(world: &World, parent: &Operation) -> Vec<Operation> {
    let query = Query { parent: Some(parent.id), limit: 99, ..Query::default() };
    world.engine().store().list(query).await.unwrap().operations
}

/// The same once there are `count` and all have ended, oldest first.
async fn callbacks(world: &World, parent: &Operation, count: usize) -> Vec<Operation> {
    world
        .until("the callbacks have ended", async || {
            let born = born_of(world, parent).await;
            born.len() >= count && born.iter().all(|it| it.state.is_ended())
        })
        .await;
    let mut born = born_of(world, parent).await;
    assert_eq!(born.len(), count);
    born.reverse();
    born
}

/// Waits until nobody is left to be told of anything.
async fn no_marks_are_left(world: &World) {
    let marks = async || world.engine().store().settings("callback/".to_owned()).await.unwrap();
    world.until("no marks are left", async || marks().await.is_empty()).await;
}

#[tokio::test]
async fn an_end_is_told_once_signed_and_under_a_key_that_no_caller_has() {
    for world in worlds(&effects(Effects::NonIdempotent)) {
        world.answered(told(post("k"))).await;
        let done = world.operation("k").await;
        let born = callbacks(&world, &done, 1).await.remove(0);
        assert_eq!(born.scope.kind, ScopeKind::Callback);
        assert_eq!((born.effects, born.callback.as_ref()), (Effects::Keyed, None));
        let seen = world.upstream.seen().pop().unwrap();
        let key = format!("{}/done", done.id);
        assert_eq!((seen.host.as_str(), seen.target.as_str()), ("hooks.test", "/told?by=onceward"));
        assert_eq!((seen.header("webhook-id"), seen.key()), (key.as_str(), key.as_str()));
        assert_eq!(seen.body, format!("{} is done", done.id).as_bytes());
        let seconds = seen.header("webhook-timestamp").parse().unwrap();
        let wanted = webhook::sign(&teller().secret, &key, seconds, &seen.body);
        assert_eq!(seen.header("webhook-signature"), wanted);
        // A caller that chose the very same key means something else.
        let mut same = post(&key);
        same.route = HOOKS.to_owned();
        assert!(!world.answered(same).await.replayed);
        world.answered(told(post("k"))).await;
        assert_eq!(callbacks(&world, &done, 1).await.len(), 1, "a duplicate ends nothing");
    }
}

#[tokio::test]
async fn a_callback_that_fails_is_tried_again_with_a_signature_of_that_moment() {
    for world in worlds(&effects(Effects::NonIdempotent)) {
        world.upstream.script_for("hooks", [answer(503, "not now")]);
        world.answered(told(post("k"))).await;
        let done = world.operation("k").await;
        world.until_dispatched(2).await;
        world
            .until("the callback waits for its retry", async || {
                let born = born_of(&world, &done).await;
                born.iter()
                    .any(|it| matches!(it.state, State::Pending { due } if due > world.clock.now()))
            })
            .await;
        let waiting = born_of(&world, &done).await.remove(0);
        let State::Pending { due } = waiting.state else { panic!("{waiting:?}") };
        // A signature says in which second it was made.
        world.clock.advance_to(due.plus(Duration::from_secs(1)));
        callbacks(&world, &done, 1).await;
        let seen = world.upstream.seen();
        assert_eq!(seen[1].header("webhook-id"), seen[2].header("webhook-id"));
        assert_eq!(seen[1].body, seen[2].body);
        assert_ne!(seen[1].header("webhook-timestamp"), seen[2].header("webhook-timestamp"));
        assert_ne!(seen[1].header("webhook-signature"), seen[2].header("webhook-signature"));
    }
}

#[tokio::test]
async fn a_doubt_is_told_and_then_its_end() {
    for world in worlds(&effects(Effects::NonIdempotent)) {
        world.upstream.script([unanswered()]);
        let _ = world.call(told(post("k"))).await;
        let doubt = world.operation("k").await;
        callbacks(&world, &doubt, 1).await;
        world.engine().resolve(doubt.id, &Resolution::Done(None), &person()).await.unwrap();
        let keys: Vec<_> = callbacks(&world, &doubt, 2)
            .await
            .iter()
            .map(|born| born.key.as_str().rsplit('/').next().unwrap().to_owned())
            .collect();
        assert_eq!(keys, ["in_doubt", "done"]);
    }
}

#[tokio::test]
async fn a_redelivery_is_told_of_too() {
    for world in worlds(&once(Effects::NonIdempotent)) {
        world.upstream.script([answer(404, "no")]);
        taken(world.call(told(accepted("k"))).await);
        let dead = world.stands("k", "dead").await;
        callbacks(&world, &dead, 1).await;
        world.engine().redeliver(dead.id, &person()).await.unwrap();
        world.stands("k", "done").await;
        assert_eq!(callbacks(&world, &dead, 2).await[1].key.as_str(), format!("{}/done", dead.id));
        no_marks_are_left(&world).await;
    }
}

#[tokio::test]
async fn an_end_that_was_written_by_a_node_that_told_nobody_is_told_by_the_next() {
    for mut world in worlds(&effects(Effects::NonIdempotent)) {
        // It settles, and tells nobody: as if it had been killed between the two.
        let neighbour = world.neighbour();
        neighbour.call(told(post("k"))).await.unwrap();
        let done = world.operation("k").await;
        assert!(born_of(&world, &done).await.is_empty());
        drop(neighbour);
        world.kill().await;
        world.begin_again().await;
        world.engine().set_teller(Some(teller()));
        world
            .until("it is told", async || {
                world.clock.advance(Duration::from_secs(10));
                world.upstream.dispatched() == 2
            })
            .await;
        callbacks(&world, &done, 1).await;
        no_marks_are_left(&world).await;
    }
}

#[tokio::test]
async fn nothing_is_told_unsigned() {
    for world in every(&effects(Effects::NonIdempotent)) {
        world.answered(told(post("k"))).await;
        world.clock.advance(Duration::from_mins(2));
        world.engine().idle().await;
        assert_eq!(world.upstream.dispatched(), 1, "there is no secret");
        world.engine().set_teller(Some(teller()));
        let done = world.operation("k").await;
        world
            .until("it is told", async || {
                world.clock.advance(Duration::from_secs(10));
                world.upstream.dispatched() == 2
            })
            .await;
        callbacks(&world, &done, 1).await;
    }
}
