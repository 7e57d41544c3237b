//! Sagas that a restore holds, and those that nobody can read: what a person says of them, and how they are counted.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use onceward::core::operation::{Death, Event, State};
use onceward::core::policy::Effects;
use onceward::core::saga::{Leg, SagaEvent, Standing, Template, Word};
use onceward::store::{Slot, Write};
use onceward::{OpenSagas, Person, Refusal};

use crate::sagas::{asked, begin, legs, made, operation, saga, stands, start, trip};
use crate::world::{Gate, PAY, World, answer, effects, every, person, route, routes};

fn restorer() -> Person {
    Person { who: "restore".to_owned(), reason: "r".to_owned() }
}

/// Holds all sagas, as whoever starts on a restored ledger.
async fn hold(world: &World) -> u64 {
    let since = world.clock.now().plus(Duration::from_micros(1));
    let engine = world.engine().clone();
    let held = async move { engine.hold_sagas(&restorer(), since).await };
    world.spawn(held).await.unwrap().unwrap()
}

async fn open_sagas(world: &World) -> OpenSagas {
    world.engine().open_sagas().await.unwrap()
}

#[tokio::test]
async fn what_is_at_hand_of_a_saga_that_is_held_and_is_not_there_yet_is_not_begun() {
    for world in every(&effects(Effects::Keyed)) {
        let gate = Gate::closed();
        world.upstream.script([made("h1").behind(&gate), made("f2"), made("c3")]);
        let id = begin(&world, trip()).await;
        world.until_dispatched(1).await;
        assert_eq!(hold(&world).await, 1);
        assert_eq!(hold(&world).await, 0, "it is held already");
        gate.open();
        let is_done = async || legs(&saga(&world, id).await)[0] == Leg::Done;
        world.until("the hotel is done", is_done).await;
        assert_eq!(saga(&world, id).await.standing(), Standing::Paused);
        let counts = BTreeMap::from([(("t".to_owned(), Standing::Paused), 1)]);
        assert_eq!(open_sagas(&world).await.counts, counts);
        let resumed = world.clock.now();
        world.engine().resume_saga(id, &person()).await.unwrap();
        // A node that began to hold before that leaves it as the person wants it.
        assert_eq!(world.engine().hold_sagas(&restorer(), resumed).await.unwrap(), 0);
        stands(&world, id, Standing::Done).await;
        assert!(open_sagas(&world).await.counts.is_empty());
    }
}

#[tokio::test]
async fn a_step_that_is_held_for_longer_than_it_would_be_kept_is_not_begun_by_a_resume() {
    const DAY: Duration = Duration::from_hours(24);
    let policy = effects(Effects::Keyed);
    for mut world in every(&policy) {
        let gate = Gate::closed();
        world.upstream.script([made("h1").behind(&gate)]);
        let mut definition = trip();
        definition.steps[1].ask.route = "other".to_owned();
        world.set_routes(routes([route(PAY, &policy), route("other", &policy)]));
        let id = begin(&world, definition).await;
        world.until_dispatched(1).await;
        world.set_routes(routes([route(PAY, &policy)]));
        gate.open();
        // What is at hand may have been begun since the backup, by a process that had its route.
        let waits = async || saga(&world, id).await.kept.unwrap().why().is_some();
        world.until("the flight is at hand", waits).await;
        hold(&world).await;
        for _ in 0..31 {
            let looks = Duration::from_secs(60)..Duration::from_secs(61);
            let rests = async || world.clock.asleep_for(looks.clone()) >= 1;
            world.pass_time(DAY - Duration::from_mins(1)).await;
            world.until("it was looked at", rests).await;
            world.clock.advance(Duration::from_mins(1));
        }
        world.set_routes(routes([route(PAY, &policy), route("other", &policy)]));
        world.engine().resume_saga(id, &person()).await.unwrap();
        stands(&world, id, Standing::Stuck).await;
        assert_eq!(asked(&world), ["POST /hotel"]);
    }
}

#[tokio::test]
async fn of_a_saga_that_is_held_a_person_says_step_after_step_what_was_done_since_the_backup() {
    for world in every(&effects(Effects::Keyed)) {
        let gate = Gate::closed();
        world.upstream.script([made("h1").behind(&gate), answer(204, ""), answer(204, "")]);
        let mut definition = trip();
        definition.steps[1].undo.as_mut().unwrap().path = Template::read("/flight").unwrap();
        let id = begin(&world, definition).await;
        world.until_dispatched(1).await;
        hold(&world).await;
        let (engine, anna) = (world.engine(), person());
        let early = engine.settle_saga(id, &anna, "hotel", Word::Done).await;
        assert!(matches!(early, Err(Refusal::Conflict { .. })), "it is under way: {early:?}");
        gate.open();
        let is_done = async || legs(&saga(&world, id).await)[0] == Leg::Done;
        world.until("the hotel is done", is_done).await;
        // The flight may have been done since: it is not buried.
        let cancelled = engine.cancel_saga(id, &anna).await;
        assert!(matches!(cancelled, Err(Refusal::Conflict { .. })), "{cancelled:?}");
        let other = engine.settle_saga(id, &anna, "car", Word::Done).await;
        assert!(matches!(other, Err(Refusal::Conflict { .. })), "{other:?}");
        engine.settle_saga(id, &anna, "flight", Word::Done).await.unwrap();
        let said = engine.settle_saga(id, &anna, "car", Word::NotDone).await.unwrap();
        assert_eq!(said.standing(), Standing::Paused);
        assert_eq!(legs(&said), [Leg::Done, Leg::Done, Leg::NotDone]);
        assert_eq!(world.upstream.dispatched(), 1);
        engine.resume_saga(id, &anna).await.unwrap();
        stands(&world, id, Standing::Unwound).await;
        assert_eq!(asked(&world)[1..], ["DELETE /flight", "DELETE /hotel/h1"]);
    }
}

#[tokio::test]
async fn a_step_that_waits_in_a_restored_ledger_and_is_given_up_is_not_taken_for_not_done() {
    for world in every(&effects(Effects::Keyed)) {
        world.upstream.script([answer(429, "")]);
        let id = begin(&world, trip()).await;
        let waits = async || {
            let steps = world.engine().steps_of(&saga(&world, id).await).await.unwrap();
            let hotel = steps[0].0.as_ref();
            hotel.is_some_and(|it| {
                !it.attempts.is_empty() && matches!(it.state, State::Pending { .. })
            })
        };
        world.until("the hotel waits", waits).await;
        hold(&world).await;
        let (engine, anna) = (world.engine(), person());
        let hotel = operation(&world, id, 0).await.id;
        let given_up = engine.cancel(hotel, &anna).await.unwrap();
        assert_eq!(given_up.state, State::Dead(Death::Cancelled));
        stands(&world, id, Standing::Stuck).await;
        let said = engine.settle_saga(id, &anna, "hotel", Word::Done).await.unwrap();
        assert_eq!((said.standing(), legs(&said)[0]), (Standing::Paused, Leg::Done));
    }
}

#[tokio::test]
async fn a_saga_that_cannot_be_read_ends_by_a_cancel() {
    for world in every(&effects(Effects::Keyed)) {
        let gate = Gate::closed();
        world.upstream.script([made("h1").behind(&gate)]);
        let id = begin(&world, trip()).await;
        world.until_dispatched(1).await;
        let moved = Event::Saga(SagaEvent::Moved);
        let operation = saga(&world, id).await.operation.after(moved, world.clock.now()).unwrap();
        let answer = Some((Slot::Request, "of a later version".into()));
        let write = Write { operation, answer, visible: true };
        let store = std::sync::Arc::clone(world.engine().store());
        world.spawn(async move { store.commit(write).await }).await.unwrap().unwrap();
        assert_eq!(saga(&world, id).await.standing(), Standing::Stuck);
        let ended = world.engine().cancel_saga(id, &person()).await.unwrap();
        assert_eq!(ended.standing(), Standing::Unwound);
        assert!(ended.operation.outcome.is_some_and(|outcome| !outcome.ok));
        assert!(open_sagas(&world).await.counts.is_empty());
        let again = world.engine().cancel_saga(id, &person()).await;
        assert!(matches!(again, Err(Refusal::Conflict { .. })), "{again:?}");
        gate.open();
    }
}

#[tokio::test]
async fn what_a_count_that_is_dropped_has_learnt_is_there_for_the_next() {
    const SAGAS: u64 = 60;
    // Far less than reading them all takes, where each is read on its own.
    const POLLS: usize = 25;
    for world in every(&effects(Effects::Keyed)) {
        let gate = Gate::closed();
        let hotels = (0..SAGAS).map(|at| made(&at.to_string()).behind(&gate));
        world.upstream.script(hotels.collect::<Vec<_>>());
        for at in 0..SAGAS {
            start(&world, &format!("trip-{at}"), trip()).await.unwrap();
        }
        hold(&world).await;
        let (mut counted, mut looks) = (None, 0);
        while looks < 200 {
            looks += 1;
            let (mut polls, mut look) = (0, pin!(world.engine().open_sagas()));
            counted = poll_fn(|context| {
                polls += 1;
                match look.as_mut().poll(context) {
                    Poll::Ready(open) => Poll::Ready(Some(open.unwrap())),
                    Poll::Pending if polls == POLLS => Poll::Ready(None),
                    Poll::Pending => Poll::Pending,
                }
            })
            .await;
            if counted.is_some() {
                break;
            }
        }
        let counts = BTreeMap::from([(("t".to_owned(), Standing::Paused), SAGAS)]);
        assert_eq!(counted.unwrap().counts, counts);
        // Each read of a database waits for it; of all in one look nothing would be shown here.
        assert!(looks > 1 || world.postgres().is_none());
    }
}
