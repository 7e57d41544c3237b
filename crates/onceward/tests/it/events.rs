//! Events: each goes once to each who wants it, whatever dies between, and one body is kept of it.

use std::collections::BTreeMap;
use std::time::Duration;

use onceward::core::event::{Event, Filter, Form, TypePattern};
use onceward::core::key::{Key, ScopeKind};
use onceward::core::operation::{Death, Operation, State};
use onceward::core::policy::Policy;
use onceward::core::redact::Redaction;
use onceward::store::Query;
use onceward::webhook;
use onceward::{
    Destination, Engine, Erasure, EventRules, Publication, Published, Refusal, SignatureNames,
    Subscription, Whose, Wish,
};
use serde_json::json;

use crate::world::{Gate, World, answer, every, person, unanswered};

const TENANT: &str = "t";

pub(crate) fn worlds() -> Vec<World> {
    every(&Policy::default())
}

/// A wish for `types` at the receiver `host`.
pub(crate) fn wish(host: &str, types: &[&str]) -> Wish {
    let url = format!("http://{host}.test/hooks?by=onceward").parse().unwrap();
    let mut wish = Wish::new(Destination::Url(url));
    wish.selection.types = types.iter().map(|text| TypePattern::new(text).unwrap()).collect();
    wish
}

pub(crate) async fn subscribe(engine: &Engine, wish: Wish) -> Subscription {
    engine.subscribe(TENANT, wish, None, &person()).await.unwrap()
}

pub(crate) fn event(kind: &str, number: u64) -> Publication {
    let data = serde_json::value::to_raw_value(&json!({"number": number})).unwrap();
    Publication {
        tenant: TENANT.to_owned(),
        principal: String::new(),
        event: Event::own(kind, None, None, Some(&data)).unwrap(),
        key: Some(Key::new(&format!("{kind}-{number}")).unwrap()),
        only: None,
        trace: None,
    }
}

async fn publish(world: &World, publication: Publication) -> Published {
    let engine = world.engine().clone();
    world.spawn(async move { engine.publish(publication).await }).await.unwrap().unwrap()
}

/// Everything of a kind that is in the ledger.
async fn all(world: &World, kind: ScopeKind) -> Vec<Operation> {
    let (mut all, mut before) = (Vec::new(), None);
    loop {
        let query = Query { kind: Some(kind), before, limit: 1000, ..Query::default() };
        let page = world.engine().store().list(query).await.unwrap();
        all.extend(page.operations);
        before = page.next;
        if before.is_none() {
            return all;
        }
    }
}

/// Waits until all events and all their deliveries have come to an end.
async fn at_rest(world: &World) -> Vec<Operation> {
    world
        .until("all has ended", async || {
            let ended = |all: Vec<Operation>| all.iter().all(|it| it.state.is_ended());
            ended(all(world, ScopeKind::Event).await)
                && ended(all(world, ScopeKind::Delivery).await)
        })
        .await;
    all(world, ScopeKind::Delivery).await
}

/// How often each receiver had each event, by the id that it dedupes by.
fn had(world: &World) -> BTreeMap<(String, String), u32> {
    let mut had = BTreeMap::new();
    for seen in world.upstream.seen() {
        *had.entry((seen.host.clone(), seen.header("webhook-id").to_owned())).or_default() += 1;
    }
    had
}

#[tokio::test]
async fn an_event_goes_once_to_each_who_wants_it_signed_and_as_it_was_written() {
    for world in worlds() {
        let engine = world.engine();
        let billing = subscribe(engine, wish("billing", &["order.*"])).await;
        subscribe(engine, wish("users", &["user.*"])).await;
        let mut large = wish("large", &[]);
        let source = json!({"json": {"/data/number": {"gt": 100}}});
        large.selection.filter = Some(Filter::read(&source).unwrap());
        subscribe(engine, large).await;
        engine.subscribe("other", wish("other", &[]), None, &person()).await.unwrap();
        let published = publish(&world, event("order.paid", 7)).await;
        assert!(!published.is_duplicate && !published.key_made);
        let born = at_rest(&world).await;
        assert_eq!(born.len(), 1, "{born:?}");
        let (delivery, id) = (&born[0], published.operation.id.to_string());
        assert_eq!(delivery.key.as_str(), format!("{id}/{}", billing.name));
        assert_eq!((delivery.parent, delivery.state), (Some(published.operation.id), State::Done));
        assert_eq!(
            (delivery.route.clone(), delivery.label.as_deref()),
            (billing.route_name(), Some("order.paid"))
        );
        let seen = world.upstream.seen().remove(0);
        assert_eq!(
            (seen.host.as_str(), seen.target.as_str()),
            ("billing.test", "/hooks?by=onceward")
        );
        assert_eq!(
            (seen.header("webhook-id"), seen.header("content-type")),
            (id.as_str(), "application/json")
        );
        let payload = format!(
            "{{\"timestamp\":\"{}\",\"type\":\"order.paid\",\"data\":{{\"number\":7}}}}",
            published.operation.created_at.rfc3339()
        );
        assert_eq!(seen.body, payload.as_bytes());
        let seconds = seen.header("webhook-timestamp").parse().unwrap();
        let wanted = webhook::sign(&billing.signing[0].secret, &id, seconds, &seen.body);
        assert_eq!(seen.header("webhook-signature"), wanted);
        let told = world.find_now(published.operation.id).await.unwrap();
        assert_eq!((told.state, told.route.as_str()), (State::Done, "events/fan-out"));
    }
}

#[tokio::test]
async fn the_same_event_again_is_the_one_that_is_there_and_another_is_refused() {
    for world in worlds() {
        subscribe(world.engine(), wish("billing", &[])).await;
        let first = publish(&world, event("order.paid", 1)).await;
        at_rest(&world).await;
        let again = publish(&world, event("order.paid", 1)).await;
        assert!(again.is_duplicate);
        assert_eq!(again.operation.id, first.operation.id);
        let mut other = event("order.paid", 1);
        other.event = event("order.paid", 2).event;
        let refused = world.engine().publish(other).await.unwrap_err();
        assert!(matches!(refused, Refusal::KeyMismatch { .. }), "{refused:?}");
        let mut elsewhere = event("order.paid", 1);
        elsewhere.principal = "somebody else".to_owned();
        assert!(!publish(&world, elsewhere).await.is_duplicate, "another's key is another");
        assert_eq!(at_rest(&world).await.len(), 2);
    }
}

#[tokio::test]
async fn a_cloud_event_is_passed_on_as_it_came_and_known_by_its_source_and_id() {
    for world in worlds() {
        subscribe(world.engine(), wish("billing", &["com.shop.*"])).await;
        let body =
            r#"{"specversion": "1.0", "id": "7", "source": "/shop", "type": "com.shop.paid"}"#;
        let cloud = || Publication {
            event: Event::read(Form::Cloud, body.into()).unwrap(),
            key: None,
            ..event("x", 0)
        };
        let first = publish(&world, cloud()).await;
        assert!(publish(&world, cloud()).await.is_duplicate);
        assert_eq!(first.operation.key.as_str(), "/shop 7");
        at_rest(&world).await;
        let seen = world.upstream.seen();
        assert_eq!((seen.len(), &seen[0].body[..]), (1, body.as_bytes()));
        assert_eq!(seen[0].header("content-type"), "application/cloudevents+json");
    }
}

#[tokio::test]
async fn a_process_that_dies_in_a_fan_out_goes_on_where_it_was_and_doubles_nothing() {
    const RECEIVERS: usize = 300;
    for mut world in worlds() {
        world.upstream.dedupe();
        for number in 0..RECEIVERS {
            subscribe(world.engine(), wish(&format!("r{number}"), &[])).await;
        }
        // Each process is ended at another place of its fan-out, some before their first birth.
        for place in [0, 1, 40, 290] {
            let published = event("order.paid", place as u64);
            let engine = world.engine().clone();
            let acknowledged = world.spawn(async move { engine.publish(published).await });
            acknowledged.await.unwrap().unwrap();
            let at_least = world.upstream.dispatched() + place;
            world.until("some have it", async || world.upstream.dispatched() >= at_least).await;
            world.restart().await;
        }
        world
            .until("all have all", async || {
                // What was under way is tried again when it is due.
                world.clock.advance(Duration::from_secs(6));
                let mut ended = all(&world, ScopeKind::Event).await;
                ended.extend(all(&world, ScopeKind::Delivery).await);
                ended.len() == 4 * (RECEIVERS + 1) && ended.iter().all(|it| it.state == State::Done)
            })
            .await;
        for delivery in all(&world, ScopeKind::Delivery).await {
            assert_eq!(world.upstream.effects(delivery.key.as_str()), 1, "once, and not twice");
        }
        assert_eq!(had(&world).len(), 4 * RECEIVERS, "each has each");
    }
}

#[tokio::test]
async fn a_thousand_subscriptions_cost_one_body() {
    const RECEIVERS: usize = 1000;
    for world in worlds() {
        let gate = Gate::closed();
        for number in 0..RECEIVERS {
            let host = format!("r{number}");
            world.upstream.script_for(&host, [answer(200, "").behind(&gate)]);
            subscribe(world.engine(), wish(&host, &[])).await;
        }
        let before = world.engine().store().condition().await.unwrap().bytes;
        let data = serde_json::value::to_raw_value(&"x".repeat(900_000)).unwrap();
        let large = Event::own("large", None, None, Some(&data)).unwrap();
        let published = publish(&world, Publication { event: large, ..event("large", 1) }).await;
        world
            .until("it was fanned out", async || {
                let found = world.find_now(published.operation.id).await;
                found.is_some_and(|found| found.state == State::Done)
            })
            .await;
        let born = all(&world, ScopeKind::Delivery).await;
        assert_eq!(born.len(), RECEIVERS);
        let of = |operation: &Operation| operation.request.map_or(0, |it| u64::from(it.length));
        assert!(of(&published.operation) > 900_000);
        let (each, sum) = (born.iter().map(of).max().unwrap(), born.iter().map(of).sum::<u64>());
        assert!(each < 512, "a delivery keeps {each} bytes");
        let grown = world.engine().store().condition().await.unwrap().bytes.saturating_sub(before);
        assert!(grown < 64 << 20, "the ledger grew by {grown} bytes, of {sum} in deliveries");
        gate.open();
        at_rest(&world).await;
        assert!(world.upstream.seen().iter().all(|seen| seen.body.len() > 900_000));
    }
}

#[tokio::test]
async fn a_retry_has_the_bytes_of_the_event_and_a_signature_of_its_moment() {
    for mut world in worlds() {
        world.upstream.script_for("billing", [answer(404, "not yet"), unanswered()]);
        subscribe(world.engine(), wish("billing", &[])).await;
        publish(&world, event("order.paid", 1)).await;
        world.until_dispatched(1).await;
        for attempts in [2, 3] {
            world
                .until("it waits for its retry", async || {
                    all(&world, ScopeKind::Delivery).await.iter().all(
                        |it| matches!(it.state, State::Pending { due } if due > world.clock.now()),
                    )
                })
                .await;
            world.restart().await;
            let waiting = all(&world, ScopeKind::Delivery).await.remove(0);
            // A signature says in which second it was made.
            world.clock.advance(Duration::from_secs(1));
            world.let_retry_at(&waiting);
            world.until_dispatched(attempts).await;
        }
        assert_eq!(at_rest(&world).await[0].state, State::Done);
        let seen = world.upstream.seen();
        assert!(seen.iter().all(|it| it.body == seen[0].body));
        assert!(seen.iter().all(|it| it.header("webhook-id") == seen[0].header("webhook-id")));
        assert_ne!(seen[1].header("webhook-signature"), seen[2].header("webhook-signature"));
    }
}

#[tokio::test]
async fn an_event_that_comes_while_a_subscription_changes_goes_by_one_of_its_versions() {
    const EVENTS: u64 = 200;
    for world in worlds() {
        let made = subscribe(world.engine(), wish("a", &[])).await;
        let (engine, name) = (world.engine().clone(), made.name.clone());
        let changing = world.spawn(async move {
            for turn in 0..60 {
                let host = if turn % 2 == 0 { "b" } else { "a" };
                let other = wish(host, &[]);
                let change = |wish: &mut Wish| wish.to = other.to.clone();
                engine.change_subscription(&name, change, &person()).await.unwrap();
            }
        });
        for number in 0..EVENTS {
            publish(&world, event("order.paid", number)).await;
        }
        changing.await.unwrap();
        let born = at_rest(&world).await;
        assert_eq!(born.len() as u64, EVENTS);
        let mut by_event: BTreeMap<String, u32> = BTreeMap::new();
        for seen in world.upstream.seen() {
            *by_event.entry(seen.header("webhook-id").to_owned()).or_default() += 1;
        }
        assert_eq!(by_event.len() as u64, EVENTS);
        assert!(by_event.values().all(|count| *count == 1), "it went to both: {by_event:?}");
    }
}

#[tokio::test]
async fn what_one_node_was_told_holds_for_an_event_that_another_takes() {
    for world in worlds() {
        let (Some(_), Some(other)) = (world.postgres(), world.node_apart().await) else { continue };
        for number in 0..5 {
            subscribe(world.engine(), wish(&format!("r{number}"), &[])).await;
            let publishing = other.clone();
            let published = event("order.paid", number);
            world.spawn(async move { publishing.publish(published).await }).await.unwrap().unwrap();
            world
                .until("it was fanned out", async || {
                    all(&world, ScopeKind::Event).await.iter().all(|it| it.state == State::Done)
                })
                .await;
            let born = all(&world, ScopeKind::Delivery).await.len() as u64;
            assert_eq!(born, (number + 1) * (number + 2) / 2);
        }
    }
}

#[tokio::test]
async fn a_receiver_that_says_410_is_paused_and_what_comes_waits_for_it() {
    for world in worlds() {
        world.upstream.script_for("billing", [answer(410, "gone")]);
        let made = subscribe(world.engine(), wish("billing", &[])).await;
        publish(&world, event("order.paid", 1)).await;
        let route = made.route_name();
        world.until("it is paused", async || world.engine().paused().contains_key(&route)).await;
        let pause = world.engine().paused().get(&route).cloned().unwrap();
        assert_eq!(pause.who, "onceward");
        assert!(pause.reason.contains("410"), "{}", pause.reason);
        publish(&world, event("order.paid", 2)).await;
        world
            .until("it was fanned out", async || {
                all(&world, ScopeKind::Event).await.iter().all(|it| it.state == State::Done)
            })
            .await;
        let states: Vec<_> =
            all(&world, ScopeKind::Delivery).await.iter().map(|it| it.state.name()).collect();
        assert_eq!(states, ["pending", "dead"], "held, and a dead letter");
        assert_eq!(world.upstream.dispatched(), 1);
        world.engine().resume(&route, &person()).await.unwrap();
        at_rest(&world).await;
        let since = world.clock.now().minus(Duration::from_hours(1));
        world.engine().recover_failed(&made.name, since, &person()).await.unwrap();
        world
            .until("both are done", async || {
                world.clock.advance(Duration::from_millis(100));
                all(&world, ScopeKind::Delivery).await.iter().all(|it| it.state == State::Done)
            })
            .await;
    }
}

#[tokio::test]
async fn a_receiver_that_asks_for_time_has_it_for_all_that_goes_there() {
    for world in worlds() {
        world.upstream.script_for("billing", [answer(429, "slowly").header("retry-after", "120")]);
        subscribe(world.engine(), wish("billing", &[])).await;
        publish(&world, event("order.paid", 1)).await;
        world
            .until("it waits", async || {
                all(&world, ScopeKind::Delivery).await.iter().any(
                    |it| matches!(it.state, State::Pending { due } if due > world.clock.now().plus(Duration::from_secs(100))),
                )
            })
            .await;
        publish(&world, event("order.paid", 2)).await;
        world
            .until("both were fanned out", async || {
                all(&world, ScopeKind::Event).await.iter().all(|it| it.state == State::Done)
            })
            .await;
        assert_eq!(world.upstream.dispatched(), 1, "the other waits too");
        world
            .until("both are done", async || {
                world.clock.advance(Duration::from_secs(30));
                all(&world, ScopeKind::Delivery).await.iter().all(|it| it.state == State::Done)
            })
            .await;
    }
}

/// Lets the delivery that waits be tried again, the `count`th dispatch of all.
async fn next_attempt(world: &World, count: usize) {
    let waiting = async || {
        let born = all(world, ScopeKind::Delivery).await;
        born.into_iter()
            .find(|it| matches!(it.state, State::Pending { due } if due > world.clock.now()))
    };
    world.until("it waits for its retry", async || waiting().await.is_some()).await;
    world.let_retry_at(&waiting().await.unwrap());
    world.until_dispatched(count).await;
}

#[tokio::test]
async fn days_of_failures_pause_a_receiver_and_a_delivery_between_them_begins_them_anew() {
    let day = Duration::from_hours(24);
    for world in worlds() {
        let rules = EventRules { pause_after: day, ..EventRules::default() };
        world.engine().set_event_rules(rules);
        let mut often = wish("billing", &[]);
        often.delays = vec![Duration::from_hours(6); 30];
        let made = subscribe(world.engine(), often).await;
        let route = made.route_name();
        let fails = |count| std::iter::repeat_n(answer(500, "down"), count);
        world.upstream.script_for("billing", fails(2));
        world.upstream.script_for("billing", [answer(200, "")]);
        world.upstream.script_for("billing", fails(20));
        // It is written beside the attempt, and nobody is told of that.
        let failing = async || {
            world.clock.advance(Duration::from_millis(1));
            world.engine().subscription(&made.name).await.unwrap().unwrap().failing_since
        };
        publish(&world, event("order.paid", 1)).await;
        world.until("it fails", async || failing().await.is_some()).await;
        for attempts in [2, 3] {
            next_attempt(&world, attempts).await;
        }
        world.until("it is well again", async || failing().await.is_none()).await;
        publish(&world, event("order.paid", 2)).await;
        world.until("it fails", async || failing().await.is_some()).await;
        let since = failing().await.unwrap();
        // Six hours and a fifth of them at most, until a day is over.
        let mut attempts = world.upstream.dispatched();
        while world.clock.now().since(since) < day {
            attempts += 1;
            next_attempt(&world, attempts).await;
        }
        world.until("it is paused", async || world.engine().paused().contains_key(&route)).await;
        let waiting = all(&world, ScopeKind::Delivery).await.remove(0);
        assert_eq!(waiting.state.name(), "pending", "it is held, and not discarded");
    }
}

#[tokio::test]
async fn a_rotated_secret_signs_beside_the_one_before_it_for_as_long_as_they_overlap() {
    for world in worlds() {
        let mut wished = wish("billing", &[]);
        wished.names = SignatureNames::Svix;
        let made = subscribe(world.engine(), wished).await;
        let hour = Duration::from_hours(1);
        let imported = vec![7; 24];
        let rotated = world
            .engine()
            .rotate_signing(&made.name, Some(imported.clone()), hour, &person())
            .await
            .unwrap();
        assert_eq!(rotated.signing.len(), 2);
        publish(&world, event("order.paid", 1)).await;
        at_rest(&world).await;
        world.clock.advance(hour);
        publish(&world, event("order.paid", 2)).await;
        at_rest(&world).await;
        let seen = world.upstream.seen();
        for (seen, secrets) in
            [(&seen[0], vec![&imported, &made.signing[0].secret]), (&seen[1], vec![&imported])]
        {
            let seconds = seen.header("webhook-timestamp").parse().unwrap();
            let sign = |secret: &&Vec<u8>| {
                webhook::sign(secret, seen.header("webhook-id"), seconds, &seen.body)
            };
            let wanted = secrets.iter().map(sign).collect::<Vec<_>>().join(" ");
            assert_eq!(seen.header("webhook-signature"), wanted);
            for name in ["id", "timestamp", "signature"] {
                assert_eq!(
                    seen.header(&format!("svix-{name}")),
                    seen.header(&format!("webhook-{name}"))
                );
            }
        }
    }
}

#[tokio::test]
async fn what_was_missed_is_delivered_once_and_only_what_is_wanted() {
    for world in worlds() {
        let mut wished = wish("billing", &["order.*"]);
        wished.is_enabled = false;
        let made = subscribe(world.engine(), wished).await;
        let since = world.clock.now();
        for number in 0..3 {
            publish(&world, event("order.paid", number)).await;
            publish(&world, event("user.made", number)).await;
        }
        assert_eq!(at_rest(&world).await.len(), 0, "it is not enabled");
        let enable = |wish: &mut Wish| wish.is_enabled = true;
        world.engine().change_subscription(&made.name, enable, &person()).await.unwrap();
        publish(&world, event("order.paid", 3)).await;
        at_rest(&world).await;
        for born in [3, 0] {
            let (engine, name) = (world.engine().clone(), made.name.clone());
            let recovering = world.spawn(async move {
                engine.recover_missed(&name, since, None, &person()).await.unwrap()
            });
            let missed = recovering.await.unwrap();
            assert_eq!((missed.looked_at, missed.born, missed.next), (7, born, None));
        }
        assert_eq!(at_rest(&world).await.len(), 4);
        assert!(had(&world).values().all(|count| *count == 1));
    }
}

#[tokio::test]
async fn a_test_goes_to_one_subscription_whatever_it_wants() {
    for world in worlds() {
        let made = subscribe(world.engine(), wish("billing", &["order.*"])).await;
        subscribe(world.engine(), wish("all", &[])).await;
        let only = Some(made.name.clone());
        publish(&world, Publication { only, ..event("onceward.test", 1) }).await;
        let born = at_rest(&world).await;
        assert_eq!(born.len(), 1);
        assert_eq!(born[0].route, made.route_name());
    }
}

#[tokio::test]
async fn a_newer_event_about_a_subject_outdates_an_older_one_at_each_receiver() {
    for world in worlds() {
        let made = subscribe(world.engine(), wish("billing", &[])).await;
        world.engine().pause(&made.route_name(), &person()).await.unwrap();
        for sequence in [2, 1] {
            let event_about = Event::own("order.changed", Some("order-7"), Some(sequence), None);
            let about = event_about.unwrap();
            publish(&world, Publication { event: about, ..event("order.changed", sequence) }).await;
        }
        world
            .until("both were fanned out", async || {
                all(&world, ScopeKind::Delivery).await.len() == 2
            })
            .await;
        world.engine().resume(&made.route_name(), &person()).await.unwrap();
        world
            .until("both have ended", async || {
                // Whoever waits for its turn is looked at again after a while.
                world.clock.advance(Duration::from_secs(10));
                all(&world, ScopeKind::Delivery).await.iter().all(|it| it.state.is_ended())
            })
            .await;
        let born = all(&world, ScopeKind::Delivery).await;
        let dead = |it: &&Operation| it.state == State::Dead(Death::Superseded);
        assert!(born.iter().filter(dead).count() <= 1);
        let last: serde_json::Value =
            serde_json::from_slice(&world.upstream.seen().pop().unwrap().body).unwrap();
        assert_eq!(last["sequence"], 2, "the newest is what it has in the end");
    }
}

#[tokio::test]
async fn a_subscription_that_ends_gives_up_what_waits_and_gets_nothing_more() {
    for world in worlds() {
        let made = subscribe(world.engine(), wish("billing", &[])).await;
        world.engine().pause(&made.route_name(), &person()).await.unwrap();
        publish(&world, event("order.paid", 1)).await;
        world.until("it waits", async || all(&world, ScopeKind::Delivery).await.len() == 1).await;
        world.engine().unsubscribe(&made.name, &person()).await.unwrap();
        world
            .until("it is given up", async || {
                world.clock.advance(Duration::from_millis(10));
                let born = all(&world, ScopeKind::Delivery).await;
                born.iter().all(|it| it.state == State::Dead(Death::Cancelled))
            })
            .await;
        publish(&world, event("order.paid", 2)).await;
        at_rest(&world).await;
        assert_eq!(
            (all(&world, ScopeKind::Delivery).await.len(), world.upstream.dispatched()),
            (1, 0)
        );
        assert!(!world.engine().paused().contains_key(&made.route_name()));
        assert_eq!(world.engine().subscription(&made.name).await.unwrap(), None);
    }
}

#[tokio::test]
async fn an_event_that_is_erased_is_nowhere_any_more() {
    for world in worlds().into_iter().filter(|world| !world.is_in_memory()) {
        let made = subscribe(world.engine(), wish("billing", &[])).await;
        let data = serde_json::value::to_raw_value("canary-of-this-event").unwrap();
        let about = Event::own("user.made", Some("anna"), None, Some(&data)).unwrap();
        let published =
            publish(&world, Publication { event: about, ..event("user.made", 1) }).await;
        let delivery = at_rest(&world).await.remove(0);
        let erasure = Erasure {
            tenant: TENANT.to_owned(),
            whose: Whose::Subject("anna".to_owned()),
            person: person(),
            cancels: false,
            is_plan: false,
        };
        let erased = world.engine().erase(&erasure).await.unwrap();
        assert_eq!((erased.operations, erased.open_count), (2, 0));
        for id in [published.operation.id, delivery.id] {
            let mark = world.find_now(id).await.unwrap();
            assert_eq!((mark.request, &mark.subject), (None, &None));
        }
        assert_eq!(world.holders("canary-of-this-event").await, Vec::<String>::new());
        assert!(!world.holders(&made.name).await.is_empty(), "the subscription stays");
    }
}

#[tokio::test]
async fn no_attempt_begins_once_its_event_may_be_forgotten() {
    for mut world in worlds() {
        let day = Duration::from_hours(24);
        let rules = EventRules { retention: day, pause_after: day * 9 };
        world.engine().set_event_rules(rules);
        let made = subscribe(world.engine(), wish("billing", &[])).await;
        world.engine().pause(&made.route_name(), &person()).await.unwrap();
        publish(&world, event("order.paid", 1)).await;
        world.until("it waits", async || all(&world, ScopeKind::Delivery).await.len() == 1).await;
        world.restart().await;
        world.engine().set_event_rules(rules);
        world.clock.advance(day + Duration::from_mins(1));
        world.engine().resume(&made.route_name(), &person()).await.unwrap();
        let born = at_rest(&world).await.remove(0);
        assert_eq!(born.state, State::Dead(Death::Unsent), "it is a dead letter, and says so");
        assert_eq!(world.upstream.dispatched(), 0);
    }
}

#[tokio::test]
async fn a_slow_receiver_delays_nobody_else() {
    for world in worlds() {
        let gate = Gate::closed();
        world.upstream.script_for("slow", std::iter::repeat_n(answer(200, "").behind(&gate), 300));
        subscribe(world.engine(), wish("slow", &[])).await;
        let quick = subscribe(world.engine(), wish("quick", &[])).await;
        for number in 0..300 {
            publish(&world, event("order.paid", number)).await;
        }
        world
            .until("the quick one has all", async || {
                let born = all(&world, ScopeKind::Delivery).await;
                let done = born.iter().filter(|it| it.route == quick.route_name());
                done.filter(|it| it.state == State::Done).count() == 300
            })
            .await;
        gate.open();
        at_rest(&world).await;
    }
}

#[tokio::test]
async fn a_route_of_a_subscription_takes_no_calls() {
    for world in worlds() {
        let made = subscribe(world.engine(), wish("billing", &[])).await;
        for route in [made.route_name(), "events/fan-out".to_owned()] {
            let mut call = crate::world::post("k");
            call.route = route;
            let refused = world.refused(call).await;
            assert!(matches!(refused, Refusal::RouteUnknown(_)), "{refused:?}");
        }
    }
}

#[tokio::test]
async fn what_waits_goes_where_its_subscription_says_now_host_and_path() {
    for world in worlds() {
        let made = subscribe(world.engine(), wish("old", &[])).await;
        world.engine().pause(&made.route_name(), &person()).await.unwrap();
        publish(&world, event("order.paid", 1)).await;
        world.until("it waits", async || all(&world, ScopeKind::Delivery).await.len() == 1).await;
        let change = |wish: &mut Wish| {
            wish.to = Destination::Url("http://new.test/other?token=b".parse().unwrap());
        };
        world.engine().change_subscription(&made.name, change, &person()).await.unwrap();
        world.engine().resume(&made.route_name(), &person()).await.unwrap();
        at_rest(&world).await;
        let seen = world.upstream.seen().remove(0);
        assert_eq!((seen.host.as_str(), seen.target.as_str()), ("new.test", "/other?token=b"));
    }
}

#[tokio::test]
async fn an_event_is_not_erased_while_a_delivery_of_it_is_open() {
    for world in worlds() {
        let made = subscribe(world.engine(), wish("billing", &[])).await;
        world.engine().pause(&made.route_name(), &person()).await.unwrap();
        let about = Event::own("user.made", Some("anna"), None, None).unwrap();
        let published =
            publish(&world, Publication { event: about, ..event("user.made", 1) }).await;
        world
            .until("it was fanned out", async || {
                all(&world, ScopeKind::Event).await.iter().all(|it| it.state == State::Done)
            })
            .await;
        let erasure = Erasure {
            tenant: TENANT.to_owned(),
            whose: Whose::Subject("anna".to_owned()),
            person: person(),
            cancels: false,
            is_plan: false,
        };
        let erased = world.engine().erase(&erasure).await.unwrap();
        assert_eq!((erased.operations, erased.open_count), (0, 2));
        assert!(erased.open.contains(&published.operation.id));
        world.engine().resume(&made.route_name(), &person()).await.unwrap();
        let born = at_rest(&world).await.remove(0);
        assert_eq!((born.state, world.upstream.dispatched()), (State::Done, 1));
        assert_eq!(world.engine().erase(&erasure).await.unwrap().operations, 2);
    }
}

#[tokio::test]
async fn what_is_hidden_of_all_is_hidden_of_events_too() {
    for world in worlds() {
        let mut routes = (*world.engine().routes()).clone();
        let mut ad_hoc = (*routes.ad_hoc).clone();
        let mut policy = (*ad_hoc.policy).clone();
        policy.redact =
            Redaction { headers: Vec::new(), pointers: vec!["/data/number".to_owned()] };
        let hidden = policy.redact.clone();
        ad_hoc.policy = policy.into();
        routes.ad_hoc = ad_hoc.into();
        world.engine().set_routes(routes);
        let published = publish(&world, event("order.paid", 1)).await;
        assert_eq!(world.engine().redaction_of(&published.operation), hidden);
    }
}
