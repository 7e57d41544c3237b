//! Sagas whose next step waits: for its tenant's rate, for a route that is missing, for another node, and for an
//! identity that nobody has any more.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onceward::core::id::OperationId;
use onceward::core::key::{Key, Scope, ScopeKind};
use onceward::core::key_template::KeyTemplate;
use onceward::core::operation::State;
use onceward::core::policy::{Effects, Mode, Policy, UniqueRule};
use onceward::core::rate::Rate;
use onceward::core::saga::{Definition, Standing, Step};
use onceward::core::time::Timestamp;
use onceward::secret::Secrets;
use onceward::store::{Birth, Remembered, contract};
use onceward::{Person, Refusal, TenantLimits};
use serde_json::{Value, json};

use crate::sagas::{ask, asked, begin, made, operation, saga, stands, start, step, trip};
use crate::world::{Gate, PAY, World, effects, every, person, post, refused, route, routes, scope};

const HOUR: Duration = Duration::from_hours(1);

#[tokio::test]
async fn each_step_takes_a_turn_of_its_tenants_rate_and_waits_for_it() {
    for world in every(&effects(Effects::Keyed)) {
        let rate = Some(Rate { interval: HOUR, burst: 2 });
        let limits = TenantLimits { rate, ..TenantLimits::default() };
        world.engine().set_tenants([("t".to_owned(), limits)].into());
        world.upstream.script([made("h1"), made("f2"), made("c3")]);
        // The start takes the first turn, the hotel the second.
        let id = begin(&world, trip()).await;
        for at in 1..3 {
            let due = saga(&world, id).await.operation.created_at.plus(HOUR * at);
            waits_until(&world, id, due).await;
            assert_eq!(world.upstream.dispatched(), at as usize);
            // What waits has its turn before those who come later.
            let refusal = refused(world.call(post("by-hand")).await);
            assert!(matches!(refusal, Refusal::TenantLimit { what: "rate", .. }), "{refusal:?}");
            world.clock.advance_to(due);
        }
        stands(&world, id, Standing::Done).await;
    }
}

/// Waits until the saga says that it waits for its turn, which is then.
async fn waits_until(world: &World, id: OperationId, turn: Timestamp) {
    let end = format!("wait until {}", turn.rfc3339());
    let why = async || saga(world, id).await.kept.unwrap().why();
    let waits = async || why().await.is_some_and(|why| why.ends_with(&end));
    world.until("the next step waits", waits).await;
    world.until("its turn is awaited", async || world.clock.is_awaited(turn)).await;
}

/// A trip of one hotel, started as the rate's one turn was taken; and when the hotel has its own.
async fn of_a_slow_tenant(world: &World) -> (OperationId, Timestamp) {
    let rate = Some(Rate { interval: HOUR, burst: 1 });
    let limits = TenantLimits { rate, ..TenantLimits::default() };
    world.engine().set_tenants([("t".to_owned(), limits)].into());
    let hotel = Step { undo: None, ..step("hotel") };
    let definition = Definition { steps: vec![hotel], input: json!({"user": 7}), stops: false };
    let id = begin(world, definition.check().unwrap()).await;
    let turn = saga(world, id).await.operation.created_at.plus(HOUR);
    waits_until(world, id, turn).await;
    (id, turn)
}

#[tokio::test]
async fn a_pause_holds_a_step_that_waits_for_its_turn_and_it_takes_another_once_resumed() {
    for world in every(&effects(Effects::Keyed)) {
        let (id, turn) = of_a_slow_tenant(&world).await;
        let paused = world.engine().pause_saga(id, &person()).await.unwrap();
        assert_eq!(paused.standing(), Standing::Paused);
        let late = turn.plus(HOUR * 2);
        world.clock.advance_to(late);
        // Whoever takes a turn meanwhile has it: the next is an hour later.
        world.answered(post("by-hand")).await;
        assert!(world.engine().steps_of(&saga(&world, id).await).await.unwrap()[0].0.is_none());
        world.engine().resume_saga(id, &person()).await.unwrap();
        waits_until(&world, id, late.plus(HOUR)).await;
        assert_eq!(asked(&world).len(), 1, "the call alone");
        world.clock.advance_to(late.plus(HOUR));
        stands(&world, id, Standing::Done).await;
        assert_eq!(world.upstream.dispatched(), 2);
    }
}

#[tokio::test]
async fn a_step_that_waits_for_its_turn_is_not_sent_behind_a_cancel() {
    for world in every(&effects(Effects::Keyed)) {
        let (id, turn) = of_a_slow_tenant(&world).await;
        world.engine().cancel_saga(id, &person()).await.unwrap();
        stands(&world, id, Standing::Unwound).await;
        // The turn that it had is nobody's.
        world.clock.advance_to(turn.plus(HOUR));
        world.answered(post("by-hand")).await;
        assert_eq!(world.upstream.dispatched(), 1, "the call alone");
    }
}

#[tokio::test]
async fn a_turn_that_a_step_waits_for_outlives_its_process() {
    for mut world in every(&effects(Effects::Keyed)) {
        let (id, turn) = of_a_slow_tenant(&world).await;
        world.restart().await;
        waits_until(&world, id, turn).await;
        assert_eq!(world.upstream.dispatched(), 0);
        world.clock.advance_to(turn);
        stands(&world, id, Standing::Done).await;
    }
}

#[tokio::test]
async fn a_step_is_compared_with_the_calls_of_the_scope_that_its_route_shares() {
    let suspicious = Policy { suspect_within: HOUR, ..effects(Effects::Keyed) };
    for mut world in every(&suspicious) {
        let mut shared = route(PAY, &suspicious);
        shared.scope = Some("money".to_owned());
        world.set_routes(routes([shared]));
        let hotel = Step { undo: None, ..step("hotel") };
        let definition = Definition { steps: vec![hotel], input: json!({"user": 7}), stops: false };
        let id = begin(&world, definition.check().unwrap()).await;
        stands(&world, id, Standing::Done).await;
        let mut call = post("by-hand");
        "/hotel".clone_into(&mut call.request.target);
        call.request.body = Bytes::from_static(br#"{"for":7}"#);
        call.request.headers.set("content-type", "application/json");
        world.answered(call).await;
        assert_eq!(world.notes.suspected(), 1);
    }
}

/// Lets a minute pass once so many nodes rest between two looks at what is open.
fn let_look(world: &World, nodes: usize) {
    let between = Duration::from_secs(59)..Duration::from_secs(61);
    if world.clock.asleep_for(between) >= nodes {
        world.clock.advance(Duration::from_mins(1));
    }
}

/// A trip whose flight has a route of its own, once the hotel is under way; the gate lets it end.
async fn of_two_routes(world: &mut World, policy: &Policy) -> (OperationId, Gate) {
    let gate = Gate::closed();
    world.upstream.script([made("h1").behind(&gate), made("c3")]);
    world.upstream.script_for("other", [made("f2")]);
    let mut definition = trip();
    "other".clone_into(&mut definition.steps[1].ask.route);
    world.set_routes(routes([route(PAY, policy), route("other", policy)]));
    let id = begin(world, definition).await;
    world.until_dispatched(1).await;
    (id, gate)
}

#[tokio::test]
async fn a_step_waits_for_its_route_for_as_long_as_it_is_missing() {
    let policy = effects(Effects::Keyed);
    for mut world in every(&policy) {
        let (id, gate) = of_two_routes(&mut world, &policy).await;
        world.set_routes(routes([route(PAY, &policy)]));
        gate.open();
        let why = async || saga(&world, id).await.kept.unwrap().why();
        let waits = async || why().await.is_some_and(|why| why.ends_with("again: other"));
        world.until("it says what it waits for", waits).await;
        for _ in 0..32 {
            let fence = saga(&world, id).await.operation.fence;
            world.clock.advance(Duration::from_hours(25));
            let is_seen = async || {
                let_look(&world, 1);
                saga(&world, id).await.operation.fence > fence
            };
            world.until("that it was not begun is written down", is_seen).await;
        }
        assert_eq!(saga(&world, id).await.standing(), Standing::Running);
        world.set_routes(routes([route(PAY, &policy), route("other", &policy)]));
        let is_asked = async || {
            let_look(&world, 1);
            world.upstream.dispatched() == 3
        };
        world.until("the rest is asked for", is_asked).await;
        stands(&world, id, Standing::Done).await;
    }
}

#[tokio::test]
async fn a_step_whose_route_only_another_node_has_is_begun_by_that_one() {
    let policy = effects(Effects::Keyed);
    for mut world in every(&policy) {
        let (id, gate) = of_two_routes(&mut world, &policy).await;
        world.set_routes(routes([route(PAY, &policy)]));
        let Some(other) = world.node_apart().await else { continue };
        other.start();
        gate.open();
        let waits = async || saga(&world, id).await.kept.unwrap().why().is_some();
        world.until("it waits for the route", waits).await;
        other.set_routes(routes([route(PAY, &policy), route("other", &policy)]));
        let is_asked = async || {
            let_look(&world, 2);
            world.upstream.dispatched() >= 2
        };
        world.until("the flight is asked for", is_asked).await;
        stands(&world, id, Standing::Done).await;
        assert_eq!(asked(&world), ["POST /hotel", "POST /flight", "POST /car"]);
        other.stop().await;
    }
}

#[tokio::test]
async fn nodes_that_hold_the_sagas_of_a_restored_ledger_at_once_hold_each_once() {
    const SAGAS: u64 = 8;
    for world in every(&effects(Effects::Keyed)) {
        let Some(other) = world.node_apart().await else { continue };
        let gate = Gate::closed();
        let hotels = (0..SAGAS).map(|at| made(&at.to_string()).behind(&gate));
        world.upstream.script(hotels.collect::<Vec<_>>());
        let mut ids = Vec::new();
        for at in 0..SAGAS {
            let started = start(&world, &format!("trip-{at}"), trip()).await.unwrap();
            ids.push(started.saga.operation.id);
        }
        world.until_dispatched(SAGAS as usize).await;
        world.clock.advance(Duration::from_secs(1));
        let since = world.clock.now();
        let begin_to_hold = |engine: Arc<onceward::Engine>| {
            let restorer = Person { who: "restore".to_owned(), reason: "r".to_owned() };
            world.spawn(async move { engine.hold_sagas(&restorer, since).await })
        };
        let (one, two) =
            (begin_to_hold(Arc::clone(world.engine())), begin_to_hold(Arc::clone(&other)));
        let held = one.await.unwrap().unwrap() + two.await.unwrap().unwrap();
        assert_eq!(held, SAGAS, "each is held by one of them");
        for id in ids {
            let held = saga(&world, id).await;
            let deeds = held.kept.as_ref().unwrap().deeds.len();
            assert_eq!((held.standing(), deeds), (Standing::Paused, 1));
        }
        gate.open();
    }
}

#[tokio::test]
async fn a_step_that_had_its_identity_when_its_process_ended_is_born_by_the_next_one_and_sent_once()
{
    let name = KeyTemplate::read("{json:/order}").unwrap();
    let unique = Some(UniqueRule { name, within: HOUR * 24 });
    for mut world in every(&Policy { unique, ..effects(Effects::Keyed) }) {
        world.upstream.dedupe();
        // What the process wrote before the step itself.
        let mut claim = contract::operation(9, "x", PAY, Mode::Held);
        let intent = claim.intent_mut();
        intent.scope = Scope { kind: ScopeKind::Unique, ..scope() };
        intent.key = Key::new(&Secrets::new([7; 32]).name(b"o-1")).unwrap();
        intent.alias_of = Some(OperationId::new(77, 77));
        intent.tombstone = Duration::ZERO;
        intent.created_at = world.clock.now();
        (claim.state, claim.window) = (State::Done, HOUR * 24);
        claim.ended_at = Some(claim.created_at);
        let request = Bytes::from_static(b"nothing");
        let written =
            world.engine().store().remember(Birth { operation: claim, request, replaces: None });
        assert!(matches!(written.await.unwrap(), Remembered::Fresh(_)));
        let hotel = Step {
            ask: ask("POST", "/hotel", json!({"order": "o-1"})),
            undo: None,
            ..step("hotel")
        };
        let definition = Definition { steps: vec![hotel], input: Value::Null, stops: false };
        let id = begin(&world, definition.check().unwrap()).await;
        world.restart().await;
        let is_done = async || {
            // Where other nodes write too, it may still be born for a while; where it was under way, it is tried
            // again.
            let_look(&world, 1);
            saga(&world, id).await.standing() == Standing::Done
        };
        world.until("the saga is done", is_done).await;
        assert!(asked(&world).iter().all(|line| line == "POST /hotel"));
        let born = operation(&world, id, 0).await;
        assert_eq!(world.upstream.effects(born.key.as_str()), 1);
    }
}
