//! An attempt that a person has sooner than the clock would: one at a time, under the same key, and past no gate.

use std::sync::Arc;
use std::time::Duration;

use onceward::Refusal;
use onceward::core::operation::{Deed, State};
use onceward::core::policy::{Backoff, Effects, Policy};

use crate::world::{World, accepted, answer, effects, every, person, post, refused, taken};

/// Attempts that lie hours apart.
fn seldom() -> Policy {
    let table = vec![Duration::from_hours(6)];
    Policy { accepted: Backoff { table, ..Backoff::accepted() }, ..effects(Effects::Keyed) }
}

/// An operation with this key that waits for its second attempt.
async fn waiting(world: &World) -> onceward::core::operation::Operation {
    world.upstream.dedupe();
    world.upstream.script([answer(503, "not now")]);
    taken(world.call(accepted("k")).await);
    world.until_dispatched(1).await;
    world.stands("k", "pending").await
}

#[tokio::test]
async fn of_many_who_want_it_now_one_has_it_and_it_is_sent_once() {
    for world in every(&seldom()) {
        let before = waiting(&world).await;
        let State::Pending { due } = before.state else { panic!("{before:?}") };
        let id = before.id;
        let wanted = (0..8).map(|_| {
            let engine = Arc::clone(world.engine());
            world.spawn(async move { engine.retry(id, &person()).await })
        });
        let mut accepted = 0;
        for wanted in wanted.collect::<Vec<_>>() {
            match wanted.await.unwrap() {
                Ok(retried) => {
                    accepted += 1;
                    assert!(matches!(retried.state, State::Pending { due: now } if now < due));
                }
                Err(Refusal::Conflict { .. }) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(accepted, 1);
        let done = world.stands("k", "done").await;
        assert_eq!((world.upstream.dispatched(), world.upstream.most_at_once()), (2, 1));
        let keys: Vec<_> = world.upstream.seen().iter().map(|seen| seen.key().to_owned()).collect();
        assert_eq!((keys[0] == keys[1], world.upstream.effects("k")), (true, 1));
        assert_eq!(done.attempts.len(), 2);
        let deeds: Vec<_> = done.acts.iter().map(|act| act.deed).collect();
        assert_eq!(deeds, [Deed::Retried]);
    }
}

#[tokio::test]
async fn a_pause_holds_it_all_the_same_and_it_goes_when_that_ends() {
    for world in every(&seldom()) {
        let before = waiting(&world).await;
        let engine = world.engine();
        engine.pause("pay", &person()).await.unwrap();
        engine.retry(before.id, &person()).await.unwrap();
        let again = engine.retry(before.id, &person()).await;
        assert!(
            matches!(&again, Err(Refusal::Conflict { why, .. }) if why.contains("due")),
            "{again:?}"
        );
        // A call of another comes to the gate behind it, and is turned away.
        let turned_away = refused(world.call(post("other")).await);
        assert!(matches!(turned_away, Refusal::Barred { .. }), "{turned_away:?}");
        assert_eq!(world.upstream.dispatched(), 1);
        engine.resume("pay", &person()).await.unwrap();
        world.stands("k", "done").await;
        assert_eq!((world.upstream.dispatched(), world.upstream.effects("k")), (2, 1));
    }
}

#[tokio::test]
async fn what_waits_for_no_clock_is_refused_and_nothing_is_written() {
    for world in every(&seldom()) {
        world.answered(post("done")).await;
        let done = world.operation("done").await;
        let result = world.engine().retry(done.id, &person()).await;
        assert!(matches!(result, Err(Refusal::Conflict { .. })), "{result:?}");
        assert_eq!(world.operation("done").await, done);
    }
}
