//! How receivers do, and what stands before them: what is kept of it, who hears of it, and which gates
//! hold.

use std::sync::Arc;
use std::time::Duration;

use onceward::auth::{ClientCredentials, OAuth2};
use onceward::core::key::ScopeKind;
use onceward::core::lease::BEAT;
use onceward::core::operation::State;
use onceward::core::policy::Policy;
use onceward::core::time::Timestamp;
use onceward::route::{Protection, Route};
use onceward::store::Query;
use onceward::{Destination, Wish};

use crate::events::{event, subscribe, wish, worlds};
use crate::world::{
    Gate, PAY, World, answer, every_with, permanent, person, post, refused_address, route, routes,
    unsent,
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
            world.clock.advance(Duration::from_micros(1));
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
            world.clock.advance(Duration::from_micros(1));
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

/// What is kept of a receiver that fails.
async fn kept(world: &World, name: &str) -> Option<bytes::Bytes> {
    world.engine().store().setting(format!("failing/{name}")).await.unwrap()
}

async fn keep(world: &World, name: &str, row: Option<bytes::Bytes>) {
    world.engine().store().set(format!("failing/{name}"), row).await.unwrap();
}

/// Lets an event fail at the receiver once; tells what is kept of that.
async fn fails(world: &World, name: &str, number: u64) -> bytes::Bytes {
    publish(world, number).await;
    world
        .until("it fails", async || {
            world.clock.advance(Duration::from_micros(1));
            kept(world, name).await.is_some()
        })
        .await;
    kept(world, name).await.unwrap()
}

/// Lets the delivery that waits be tried again.
async fn again(world: &World) {
    let due = async || {
        let query = Query { kind: Some(ScopeKind::Delivery), limit: 1000, ..Query::default() };
        let born = world.engine().store().list(query).await.unwrap().operations;
        born.into_iter().find(|it| it.state.name() == "pending")
    };
    world.until("it waits", async || due().await.is_some()).await;
    world.let_retry_at(&due().await.unwrap());
}

#[tokio::test]
async fn a_delivery_is_heard_of_where_another_node_wrote_of_the_failure_before_it() {
    for world in worlds().into_iter().filter(|world| world.postgres().is_some()) {
        let mut often = wish("billing", &[]);
        often.delays = vec![Duration::from_secs(7)];
        let made = subscribe(world.engine(), often).await;
        world.upstream.script_for("billing", [answer(500, "down"), answer(200, "")]);
        let row = fails(&world, &made.name, 1).await;
        // What this node heard, it has not heard: the other one did, and it has not read that yet.
        keep(&world, &made.name, None).await;
        world.clock.advance(BEAT);
        let failing = async || {
            world.clock.advance(Duration::from_micros(1));
            world.engine().subscription(&made.name).await.unwrap().unwrap().failing_since
        };
        world.until("it has read", async || failing().await.is_none()).await;
        keep(&world, &made.name, Some(row)).await;
        again(&world).await;
        world
            .until("it is well again", async || {
                world.clock.advance(Duration::from_micros(1));
                kept(&world, &made.name).await.is_none()
            })
            .await;
    }
}

#[tokio::test]
async fn what_is_kept_of_a_failure_before_a_delivery_pauses_nobody() {
    for mut world in worlds() {
        let made = subscribe(world.engine(), wish("billing", &[])).await;
        let steps = [answer(500, "down"), answer(200, ""), answer(500, "down")];
        world.upstream.script_for("billing", steps);
        let row = fails(&world, &made.name, 1).await;
        again(&world).await;
        world
            .until("it is well again", async || {
                world.clock.advance(Duration::from_micros(1));
                kept(&world, &made.name).await.is_none()
            })
            .await;
        // Whoever had heard of the delivery died before it was written.
        keep(&world, &made.name, Some(row.clone())).await;
        world.restart().await;
        world.clock.advance(Duration::from_hours(24 * 6));
        publish(&world, 2).await;
        world
            .until("it fails anew", async || {
                world.clock.advance(Duration::from_micros(1));
                kept(&world, &made.name).await.is_some_and(|kept| kept != row)
            })
            .await;
        assert!(!world.engine().paused().contains_key(&made.route_name()));
    }
}

#[tokio::test]
async fn what_is_kept_of_one_receiver_says_nothing_of_the_next_nor_of_one_that_ended() {
    for mut world in worlds() {
        let made = subscribe(world.engine(), wish("billing", &[])).await;
        for host in ["billing", "other"] {
            world.upstream.script_for(host, (0..20).map(|_| answer(500, "down")));
        }
        let row = fails(&world, &made.name, 1).await;
        let to = Destination::Url("http://other.test/hooks".parse().unwrap());
        let (engine, person) = (world.engine(), person());
        let moved = engine.change_subscription(&made.name, |wish| wish.to = to.clone(), &person);
        moved.await.unwrap();
        // The process died between the two that it writes then.
        keep(&world, &made.name, Some(row.clone())).await;
        world.restart().await;
        let found = world.engine().subscription(&made.name).await.unwrap().unwrap();
        assert_eq!(found.failing_since, None, "it is another receiver");
        let dispatched = world.upstream.dispatched();
        world.clock.advance(Duration::from_hours(24 * 6));
        publish(&world, 2).await;
        world.until_dispatched(dispatched + 1).await;
        world
            .until("it fails anew", async || {
                world.clock.advance(Duration::from_micros(1));
                kept(&world, &made.name).await.is_some_and(|kept| kept != row)
            })
            .await;
        assert!(!world.engine().paused().contains_key(&made.route_name()));
        world.engine().unsubscribe(&made.name, &crate::world::person()).await.unwrap();
        keep(&world, &made.name, Some(row)).await;
        world.restart().await;
        assert_eq!(kept(&world, &made.name).await, None, "nobody would remove it");
    }
}

/// Waits until another receiver is known to fail: what was heard before that is written.
async fn until_another_fails(world: &World) {
    let other = subscribe(world.engine(), wish("other", &["heard.last"])).await;
    world.upstream.script_for("other", [unsent()]);
    let engine = world.engine().clone();
    let published = event("heard.last", 99);
    world.spawn(async move { engine.publish(published).await }).await.unwrap().unwrap();
    let fails = async || {
        // It is written beside the attempt, and nobody is told of that.
        world.clock.advance(Duration::from_micros(1));
        failing_since(world, &other.name).await.is_some()
    };
    world.until("the other one fails", fails).await;
}

async fn failing_since(world: &World, name: &str) -> Option<Timestamp> {
    world.engine().subscription(name).await.unwrap().unwrap().failing_since
}

#[tokio::test]
async fn what_is_refused_here_says_nothing_of_a_receiver() {
    for refused in [permanent, refused_address] {
        for world in worlds() {
            let made = subscribe(world.engine(), wish("billing", &["order.paid"])).await;
            world.upstream.script_for("billing", [refused()]);
            publish(&world, 1).await;
            world
                .until("it is dead", async || {
                    deliveries(&world, |it| matches!(it, State::Dead(_))).await == 1
                })
                .await;
            until_another_fails(&world).await;
            assert_eq!(failing_since(&world, &made.name).await, None, "it was not asked");
        }
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_had_says_nothing_of_a_receiver() {
    let credentials = ClientCredentials {
        token_url: "http://tokens.test/token".parse().unwrap(),
        client_id: "me".to_owned(),
        client_secret: "secret".to_owned(),
        scope: None,
        audience: None,
    };
    for mut world in worlds() {
        let mut authorised = route(PAY, &Policy::default());
        let oauth2 = OAuth2::new(&credentials, Duration::from_secs(5));
        authorised.auth.oauth2 = Some(Arc::new(oauth2));
        world.set_routes(routes([authorised]));
        world.upstream.script_for("tokens", [answer(500, "down")]);
        let to = Destination::Route { name: PAY.to_owned(), target: "/hooks".to_owned() };
        let mut by_route = wish("none", &["order.paid"]);
        by_route.to = to;
        let made = subscribe(world.engine(), by_route).await;
        publish(&world, 1).await;
        let has_failed = async || {
            let query = Query { kind: Some(ScopeKind::Delivery), limit: 9, ..Query::default() };
            let born = world.engine().store().list(query).await.unwrap().operations;
            born.iter().any(|it| it.last_error().is_some_and(|why| why.contains("access token")))
        };
        world.until("no token is had", has_failed).await;
        until_another_fails(&world).await;
        assert_eq!(failing_since(&world, &made.name).await, None, "it was not asked");
    }
}

#[tokio::test]
async fn what_was_taken_before_its_subscription_led_to_a_route_waits_for_that_one() {
    const EVENTS: u64 = 60;
    for world in every_with(&routes([route(PAY, &Policy::default())])) {
        let made = subscribe(world.engine(), wish("billing", &[])).await;
        world.engine().pause(PAY, &person()).await.unwrap();
        let engine = world.engine().clone();
        let publishing = world.spawn(async move {
            for number in 0..EVENTS {
                engine.publish(event("order.paid", number)).await.unwrap();
            }
        });
        world.until_dispatched(EVENTS as usize / 4).await;
        let to = Destination::Route { name: PAY.to_owned(), target: "/hooks".to_owned() };
        let (engine, person) = (world.engine(), person());
        let change = engine.change_subscription(&made.name, |wish| wish.to = to.clone(), &person);
        change.await.unwrap();
        publishing.await.unwrap();
        world
            .until("all are born", async || deliveries(&world, |_| true).await == EVENTS as usize)
            .await;
        let is_at = |it: State| it == State::Delivering;
        world.until("nothing is under way", async || deliveries(&world, is_at).await == 0).await;
        let past = world.upstream.seen().iter().filter(|seen| seen.host == "pay.test").count();
        assert_eq!(past, 0, "a pause of the route holds all that goes by it");
        let query = Query { kind: Some(ScopeKind::Delivery), limit: 1000, ..Query::default() };
        let born = world.engine().store().list(query).await.unwrap().operations;
        let mut waiting = born.iter().filter(|it| matches!(it.state, State::Pending { .. }));
        assert!(waiting.all(|it| it.attempts.is_empty()), "what is put off was not tried");
        world.engine().resume(PAY, &person).await.unwrap();
        let is_done = async || {
            world.clock.advance(Duration::from_secs(1));
            deliveries(&world, |it| it == State::Done).await == EVENTS as usize
        };
        world.until("all is done", is_done).await;
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
        // The last slot is given back after the write that is seen.
        let is_idle = async || world.engine().standing(PAY).unwrap().busy == 0;
        world.until("what it kept is given back", is_idle).await;
        let standing = world.engine().standing(PAY).unwrap();
        assert_eq!((standing.busy, standing.bar), (0, None));
        assert_eq!(world.answered(post("k")).await.response.status, 200);
    }
}
