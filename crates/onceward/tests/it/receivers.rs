//! How receivers do, and what stands before them: what is kept of it, who hears of it, and which gates
//! hold.

use std::time::Duration;

use onceward::core::key::ScopeKind;
use onceward::core::operation::State;
use onceward::core::policy::Policy;
use onceward::route::{Protection, Route};
use onceward::store::Query;
use onceward::{Destination, Wish};

use crate::events::{event, subscribe, wish, worlds};
use crate::world::{
    Gate, PAY, World, answer, every_with, permanent, person, post, route, routes, unsent,
};

/// What says that a subscription changed: every node reads all of them anew.
async fn revision(world: &World) -> Option<bytes::Bytes> {
    world.engine().store().setting("subscriptions".to_owned()).await.unwrap()
}

async fn publish(world: &World, number: u64) {
    let engine = world.engine().clone();
    let published = event("order.paid", number);
    world.spawn(async move { engine.publish(published).await }).await.unwrap().unwrap();
}

async fn deliveries(world: &World, state: fn(State) -> bool) -> usize {
    let query = Query { kind: Some(ScopeKind::Delivery), limit: 1000, ..Query::default() };
    let page = world.engine().store().list(query).await.unwrap();
    page.operations.iter().filter(|it| state(it.state)).count()
}

#[tokio::test]
async fn how_a_receiver_does_is_no_change_of_its_subscription() {
    for world in worlds() {
        let made = subscribe(world.engine(), wish("billing", &[])).await;
        world.upstream.script_for("billing", [answer(500, "down"), answer(200, "")]);
        let before = revision(&world).await;
        assert!(before.is_some());
        // It is written beside the attempt, and nobody is told of that.
        let failing = async || {
            world.clock.advance(Duration::from_millis(1));
            world.engine().subscription(&made.name).await.unwrap().unwrap().failing_since
        };
        publish(&world, 1).await;
        world.until("it fails", async || failing().await.is_some()).await;
        world
            .until("it waits", async || deliveries(&world, |it| it.name() == "pending").await == 1)
            .await;
        world.clock.advance(Duration::from_secs(7));
        world.until("it is well again", async || failing().await.is_none()).await;
        assert_eq!(revision(&world).await, before, "nobody reads the subscriptions again");
    }
}

#[tokio::test]
async fn since_when_a_receiver_fails_is_known_after_a_restart_and_on_other_nodes() {
    for mut world in worlds() {
        let made = subscribe(world.engine(), wish("billing", &[])).await;
        world.upstream.script_for("billing", [answer(500, "down")]);
        publish(&world, 1).await;
        // It is written beside the attempt, and nobody is told of that.
        let failing = async || {
            world.clock.advance(Duration::from_millis(1));
            world.engine().subscription(&made.name).await.unwrap().unwrap().failing_since
        };
        world.until("it fails", async || failing().await.is_some()).await;
        let since = failing().await;
        if let Some(other) = world.other_node() {
            other.recover().await.unwrap();
            assert_eq!(other.subscription(&made.name).await.unwrap().unwrap().failing_since, since);
        }
        world.restart().await;
        let found = world.engine().subscription(&made.name).await.unwrap().unwrap();
        assert_eq!(found.failing_since, since);
        // Another receiver begins anew, and one that is resumed has as long again.
        let to = Destination::Url("http://other.test/hooks".parse().unwrap());
        let (engine, person) = (world.engine(), person());
        let moved = engine.change_subscription(&made.name, |wish| wish.to = to.clone(), &person);
        assert_eq!(moved.await.unwrap().failing_since, None);
    }
}

#[tokio::test]
async fn what_is_refused_here_says_nothing_of_a_receiver() {
    for world in worlds() {
        let made = subscribe(world.engine(), wish("billing", &[])).await;
        world.upstream.script_for("billing", [permanent(), unsent()]);
        publish(&world, 1).await;
        world
            .until("it is dead", async || {
                deliveries(&world, |it| matches!(it, State::Dead(_))).await == 1
            })
            .await;
        // It is written beside the attempt, and nobody is told of that.
        let failing = async || {
            world.clock.advance(Duration::from_millis(1));
            world.engine().subscription(&made.name).await.unwrap().unwrap().failing_since
        };
        assert_eq!(failing().await, None, "it was not asked");
        publish(&world, 2).await;
        world.until("it fails", async || failing().await.is_some()).await;
    }
}

#[tokio::test]
async fn what_goes_by_a_route_waits_with_it_while_it_is_paused() {
    let by = |policy: &Policy| routes([route(PAY, policy)]);
    for world in every_with(&by(&Policy::default())) {
        let to = Destination::Route { name: PAY.to_owned(), target: "/hooks".to_owned() };
        subscribe(world.engine(), Wish::new(to)).await;
        world.engine().pause(PAY, &person()).await.unwrap();
        publish(&world, 1).await;
        world.until("it is born", async || deliveries(&world, |_| true).await == 1).await;
        // Whoever comes by other ways shows that the dispatcher was there.
        subscribe(world.engine(), wish("billing", &[])).await;
        publish(&world, 2).await;
        world.until_dispatched(1).await;
        assert_eq!(world.upstream.seen()[0].host, "billing.test");
        assert_eq!(world.upstream.dispatched(), 1, "a pause of the route holds it");
        world.engine().resume(PAY, &person()).await.unwrap();
        world
            .until("all is done", async || {
                world.clock.advance(Duration::from_secs(1));
                deliveries(&world, |it| it == State::Done).await == 3
            })
            .await;
    }
}

#[tokio::test]
async fn what_goes_by_a_route_takes_no_more_slots_than_that_has() {
    let narrow = Route {
        protection: Protection { slots_max: 2, ..Protection::default() },
        ..route(PAY, &Policy::default())
    };
    for world in every_with(&routes([narrow])) {
        let gate = Gate::closed();
        world.upstream.script((0..8).map(|_| answer(200, "").behind(&gate)));
        let to = Destination::Route { name: PAY.to_owned(), target: "/hooks".to_owned() };
        for _ in 0..2 {
            subscribe(world.engine(), Wish::new(to.clone())).await;
        }
        for number in 0..3 {
            publish(&world, number).await;
        }
        world.until_dispatched(1).await;
        world.until("all are born", async || deliveries(&world, |_| true).await == 6).await;
        gate.open();
        world
            .until("all are done", async || {
                world.clock.advance(Duration::from_secs(1));
                deliveries(&world, |it| it == State::Done).await == 6
            })
            .await;
        assert!(world.upstream.most_at_once() <= 2, "{}", world.upstream.most_at_once());
        // What it kept is given back.
        let standing = world.engine().standing(PAY).unwrap();
        assert_eq!((standing.busy, standing.bar), (0, None));
        assert_eq!(world.answered(post("k")).await.response.status, 200);
    }
}
