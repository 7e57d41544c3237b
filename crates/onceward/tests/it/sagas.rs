//! Sagas on every ledger: in order, undone in reverse, and whole across deaths of their process.

use std::sync::Arc;
use std::time::Duration;

use onceward::core::condition::Condition;
use onceward::core::exchange::{Headers, Response};
use onceward::core::id::OperationId;
use onceward::core::key::Key;
use onceward::core::key_template::KeyTemplate;
use onceward::core::lookup::{LookupRule, When};
use onceward::core::operation::{Death, Deed, Operation, State};
use onceward::core::path_template::PathTemplate;
use onceward::core::policy::{Effects, Policy, UniqueRule};
use onceward::core::risk::Risk;
use onceward::core::saga::{Ask, Body, Definition, Leg, Standing, Step, Template, Word};
use onceward::observe::Repeat;
use onceward::{Erasure, NewSaga, Person, Refusal, Resolution, Saga, Started, Whose};
use serde_json::{Value, json};

use crate::world::{
    Gate, PAY, Seen, Step as Does, World, answer, effects, every, person, post, route, routes,
    unanswered,
};

pub(crate) fn ask(method: &str, path: &str, body: Value) -> Ask {
    Ask {
        route: PAY.to_owned(),
        method: method.to_owned(),
        path: Template::read(path).unwrap(),
        headers: Vec::new(),
        body: Body::Json(body),
        attempts_max: None,
        within: None,
    }
}

/// A step that is undone by deleting what its answer calls `id`.
pub(crate) fn step(name: &str) -> Step {
    let undo = ask("DELETE", &format!("/{name}/{{{{steps.{name}.body/id}}}}"), Value::Null);
    let ask = ask("POST", &format!("/{name}"), json!({"for": "{{input/user}}"}));
    Step { name: name.to_owned(), ask, undo: Some(undo), is_pivot: false }
}

/// The same, which takes what the step before it made.
pub(crate) fn after(name: &str, before: &str) -> Step {
    let body = json!({"of": format!("{{{{steps.{before}.body/id}}}}")});
    Step { ask: ask("POST", &format!("/{name}"), body), ..step(name) }
}

pub(crate) fn trip() -> Definition {
    let steps = vec![step("hotel"), after("flight", "hotel"), after("car", "flight")];
    Definition { steps, input: json!({"user": 7}), stops: false }.check().unwrap()
}

pub(crate) fn made(id: &str) -> Does {
    answer(201, json!({"id": id}).to_string())
}

pub(crate) async fn start(
    world: &World,
    key: &str,
    definition: Definition,
) -> Result<Started, Refusal> {
    let wanted = NewSaga {
        tenant: "t".to_owned(),
        principal: String::new(),
        key: Some(Key::new(key).unwrap()),
        label: None,
        subject: None,
        definition,
        callback: None,
        trace: None,
    };
    let engine = world.engine().clone();
    world.spawn(async move { engine.start_saga(wanted).await }).await.unwrap()
}

pub(crate) async fn begin(world: &World, definition: Definition) -> OperationId {
    start(world, "trip-1", definition).await.unwrap().saga.operation.id
}

pub(crate) async fn saga(world: &World, id: OperationId) -> Saga {
    world.engine().saga(id).await.unwrap()
}

/// The saga, once it stands there.
pub(crate) async fn stands(world: &World, id: OperationId, standing: Standing) -> Saga {
    let is = async || saga(world, id).await.standing() == standing;
    world.until(&format!("the saga is {}", standing.name()), is).await;
    saga(world, id).await
}

pub(crate) fn legs(saga: &Saga) -> Vec<Leg> {
    saga.kept.as_ref().unwrap().progress.legs.clone()
}

/// What the upstream was asked, in order.
pub(crate) fn asked(world: &World) -> Vec<String> {
    let line = |seen: &Seen| format!("{} {}", seen.method, seen.target);
    world.upstream.seen().iter().map(line).collect()
}

/// The operation of a step.
pub(crate) async fn operation(world: &World, id: OperationId, step: usize) -> Operation {
    let saga = saga(world, id).await;
    world.engine().steps_of(&saga).await.unwrap().remove(step).0.unwrap()
}

#[tokio::test]
async fn steps_go_one_after_the_other_and_each_takes_what_those_before_it_made() {
    for world in every(&effects(Effects::Keyed)) {
        world.upstream.script([made("h/1"), made("f 2"), made("c3")]);
        let id = begin(&world, trip()).await;
        let done = stands(&world, id, Standing::Done).await;
        assert_eq!(legs(&done), [Leg::Done; 3]);
        assert!(done.operation.outcome.is_some_and(|outcome| outcome.ok));
        assert_eq!(asked(&world), ["POST /hotel", "POST /flight", "POST /car"]);
        let bodies: Vec<_> = world.upstream.seen().iter().map(|seen| seen.body.clone()).collect();
        assert_eq!(bodies, [&br#"{"for":7}"#[..], br#"{"of":"h/1"}"#, br#"{"of":"f 2"}"#]);
        let keys: Vec<_> = world.upstream.seen().iter().map(|seen| seen.key().to_owned()).collect();
        assert_eq!(keys, ["hotel", "flight", "car"].map(|step| format!("{id}/{step}")));
    }
}

#[tokio::test]
async fn a_late_or_doubled_start_gets_the_same_saga_and_another_definition_is_refused() {
    for world in every(&effects(Effects::Keyed)) {
        let first = begin(&world, trip()).await;
        let again = start(&world, "trip-1", trip()).await.unwrap();
        assert!(again.is_known);
        assert_eq!(again.saga.operation.id, first);
        // The answers of this upstream have no ids: what the later steps take is not there.
        stands(&world, first, Standing::Stuck).await;
        let late = start(&world, "trip-1", trip()).await.unwrap();
        assert_eq!((late.is_known, late.saga.operation.id), (true, first));
        let other = Definition { input: json!({"user": 8}), ..trip() };
        let refused = start(&world, "trip-1", other).await;
        assert!(matches!(refused, Err(Refusal::KeyMismatch { .. })));
        assert_eq!(world.notes.repeats(Repeat::Mismatch), 1);
        assert_eq!(world.upstream.dispatched(), 1, "nothing was sent again");
    }
}

#[tokio::test]
async fn where_a_step_fails_what_was_done_is_undone_in_reverse() {
    for world in every(&effects(Effects::Keyed)) {
        world.upstream.script([
            made("h1"),
            made("f2"),
            answer(422, "no car"),
            answer(204, ""),
            answer(204, ""),
        ]);
        let id = begin(&world, trip()).await;
        let unwound = stands(&world, id, Standing::Unwound).await;
        assert_eq!(legs(&unwound), [Leg::Undone, Leg::Undone, Leg::NotDone]);
        let expected =
            ["POST /hotel", "POST /flight", "POST /car", "DELETE /flight/f2", "DELETE /hotel/h1"];
        assert_eq!(asked(&world), expected);
        let why = unwound.kept.unwrap().why().unwrap();
        assert!(why.contains("the step car") && why.contains("422"), "{why}");
        assert!(unwound.operation.outcome.is_some_and(|outcome| !outcome.ok));
        // Nobody has to look after it, and nobody can send it behind its saga's back.
        let car = operation(&world, id, 2).await;
        assert!(car.told);
        let redelivered = world.engine().redeliver(car.id, &person()).await;
        assert!(matches!(redelivered, Err(Refusal::Conflict { .. })));
    }
}

#[tokio::test]
async fn a_step_in_doubt_stops_the_saga_until_it_is_resolved() {
    for world in every(&effects(Effects::NonIdempotent)) {
        world.upstream.script([made("h1"), unanswered(), made("c3")]);
        let id = begin(&world, trip()).await;
        stands(&world, id, Standing::InDoubt).await;
        assert_eq!(asked(&world), ["POST /hotel", "POST /flight"]);
        let flight = operation(&world, id, 1).await;
        assert_eq!(flight.state, State::InDoubt);
        let response = Response {
            status: 201,
            headers: Headers::default(),
            body: r#"{"id": "f2"}"#.into(),
            trailers: Headers::default(),
        };
        let resolution = Resolution::Done(Some(response));
        world.engine().resolve(flight.id, &resolution, &person()).await.unwrap();
        stands(&world, id, Standing::Done).await;
        assert_eq!(asked(&world), ["POST /hotel", "POST /flight", "POST /car"]);
    }
}

#[tokio::test]
async fn a_cancel_waits_for_what_is_under_way_and_undoes_it_too() {
    for world in every(&effects(Effects::Keyed)) {
        let gate = Gate::closed();
        world.upstream.script([made("h1"), made("f2").behind(&gate)]);
        let id = begin(&world, trip()).await;
        world.until_dispatched(2).await;
        let cancelled = world.engine().cancel_saga(id, &person()).await.unwrap();
        assert_eq!(cancelled.standing(), Standing::Unwinding);
        gate.open();
        let unwound = stands(&world, id, Standing::Unwound).await;
        assert_eq!(legs(&unwound), [Leg::Undone, Leg::Undone, Leg::Waiting]);
        assert_eq!(asked(&world)[2..], ["DELETE /flight/f2", "DELETE /hotel/h1"]);
        let again = world.engine().cancel_saga(id, &person()).await;
        assert!(matches!(again, Err(Refusal::Conflict { .. })));
    }
}

#[tokio::test]
async fn a_cancel_gives_up_what_waits_for_its_next_attempt() {
    for world in every(&effects(Effects::Keyed)) {
        world.upstream.script([made("h1"), answer(429, "")]);
        let id = begin(&world, trip()).await;
        let waits = async || {
            let saga = saga(&world, id).await;
            let steps = world.engine().steps_of(&saga).await.unwrap();
            let flight = steps[1].0.as_ref();
            flight.is_some_and(|it| {
                !it.attempts.is_empty() && matches!(it.state, State::Pending { .. })
            })
        };
        world.until("the flight waits", waits).await;
        world.engine().cancel_saga(id, &person()).await.unwrap();
        let unwound = stands(&world, id, Standing::Unwound).await;
        assert_eq!(legs(&unwound), [Leg::Undone, Leg::NotDone, Leg::Waiting]);
        assert_eq!(asked(&world)[2..], ["DELETE /hotel/h1"]);
    }
}

#[tokio::test]
async fn a_compensation_that_cannot_succeed_leaves_the_saga_stuck_and_a_person_leads_it_out() {
    for (word, leg) in [(Word::Done, Leg::Undone), (Word::NotDone, Leg::Left)] {
        for world in every(&effects(Effects::Keyed)) {
            world.upstream.script([
                made("h1"),
                made("f2"),
                answer(422, ""),
                answer(409, ""),
                answer(409, ""),
            ]);
            let id = begin(&world, trip()).await;
            let stuck = stands(&world, id, Standing::Stuck).await;
            assert_eq!(stuck.at_hand().as_deref(), Some("flight/undo"));
            world.engine().retry_saga(id, &person(), &[]).await.unwrap();
            world.until_dispatched(5).await;
            stands(&world, id, Standing::Stuck).await;
            let other = world.engine().settle_saga(id, &person(), "hotel/undo", word).await;
            assert!(matches!(other, Err(Refusal::Conflict { .. })));
            world.engine().settle_saga(id, &person(), "flight/undo", word).await.unwrap();
            let unwound = stands(&world, id, Standing::Unwound).await;
            assert_eq!(legs(&unwound), [Leg::Undone, leg, Leg::NotDone]);
            let deeds = unwound.kept.unwrap().deeds;
            assert_eq!(deeds.len(), 2);
        }
    }
}

#[tokio::test]
async fn a_paused_saga_begins_nothing_until_it_is_resumed() {
    for world in every(&effects(Effects::Keyed)) {
        let gate = Gate::closed();
        world.upstream.script([made("h1").behind(&gate), made("f2"), made("c3")]);
        let id = begin(&world, trip()).await;
        world.until_dispatched(1).await;
        world.engine().pause_saga(id, &person()).await.unwrap();
        gate.open();
        let is_done = async || legs(&saga(&world, id).await)[0] == Leg::Done;
        world.until("the hotel is done", is_done).await;
        let paused = saga(&world, id).await;
        assert_eq!((paused.standing(), paused.at_hand()), (Standing::Paused, None));
        assert_eq!(world.upstream.dispatched(), 1);
        world.engine().resume_saga(id, &person()).await.unwrap();
        stands(&world, id, Standing::Done).await;
    }
}

#[tokio::test]
async fn a_value_that_is_missing_fails_the_saga_before_the_step_that_takes_it() {
    for world in every(&effects(Effects::Keyed)) {
        let id = {
            let plain = Step { undo: Some(ask("DELETE", "/hotel", Value::Null)), ..step("hotel") };
            let steps = vec![plain, after("flight", "hotel")];
            let definition = Definition { steps, input: json!({"user": 7}), stops: false };
            world.upstream.script([answer(201, "{}"), answer(204, "")]);
            begin(&world, definition.check().unwrap()).await
        };
        let unwound = stands(&world, id, Standing::Unwound).await;
        assert_eq!(asked(&world), ["POST /hotel", "DELETE /hotel"]);
        let why = unwound.kept.unwrap().why().unwrap();
        assert!(why.contains("{{steps.hotel.body/id}}"), "{why}");
    }
}

#[tokio::test]
async fn a_saga_does_not_go_forward_over_a_step_whose_compensation_lacks_a_value() {
    for world in every(&effects(Effects::Keyed)) {
        // What undoes the flight takes its `id`, which its answer has not.
        let second = Step { ask: ask("POST", "/flight", Value::Null), ..after("flight", "hotel") };
        let third = Step { ask: ask("POST", "/car", Value::Null), undo: None, ..step("car") };
        let steps = vec![step("hotel"), second, third];
        let definition = Definition { steps, input: json!({"user": 7}), stops: false };
        world.upstream.script([made("h1"), answer(201, "{}"), answer(204, "")]);
        let id = begin(&world, definition.check().unwrap()).await;
        let stuck = stands(&world, id, Standing::Stuck).await;
        assert_eq!(stuck.at_hand().as_deref(), Some("flight/undo"));
        assert_eq!(asked(&world), ["POST /hotel", "POST /flight"], "the car is not begun");
        let flight = world.engine().settle_saga(id, &person(), "flight/undo", Word::Done).await;
        flight.unwrap();
        let unwound = stands(&world, id, Standing::Unwound).await;
        assert_eq!(legs(&unwound), [Leg::Undone, Leg::Undone, Leg::Waiting]);
    }
}

#[tokio::test]
async fn what_only_the_last_compensation_would_take_fails_no_saga_that_is_done() {
    for world in every(&effects(Effects::Keyed)) {
        let last = Step { ask: ask("POST", "/flight", Value::Null), ..after("flight", "hotel") };
        let steps = vec![step("hotel"), last];
        let definition = Definition { steps, input: json!({"user": 7}), stops: false };
        world.upstream.script([made("h1"), answer(201, "{}")]);
        let id = begin(&world, definition.check().unwrap()).await;
        stands(&world, id, Standing::Done).await;
    }
}

#[tokio::test]
async fn behind_its_pivot_a_saga_only_goes_forward() {
    for world in every(&effects(Effects::Keyed)) {
        let pivot = Step { undo: None, is_pivot: true, ..after("flight", "hotel") };
        let steps = vec![step("hotel"), pivot, Step { undo: None, ..after("car", "flight") }];
        let definition = Definition { steps, input: json!({"user": 7}), stops: false };
        world.upstream.script([made("h1"), made("f2"), answer(422, ""), made("c3")]);
        let id = begin(&world, definition.check().unwrap()).await;
        stands(&world, id, Standing::Stuck).await;
        let cancelled = world.engine().cancel_saga(id, &person()).await;
        assert!(matches!(cancelled, Err(Refusal::Conflict { .. })));
        world.engine().retry_saga(id, &person(), &[]).await.unwrap();
        stands(&world, id, Standing::Done).await;
        assert_eq!(asked(&world).len(), 4);
    }
}

#[tokio::test]
async fn what_a_process_leaves_is_gone_on_with_by_the_next_one_and_nothing_is_done_twice() {
    for fails in [false, true] {
        // Killed once after each of the things that are done, before anybody heard of it.
        for at in 1..=if fails { 5 } else { 3 } {
            for mut world in every(&effects(Effects::Keyed)) {
                world.upstream.dedupe();
                let gate = Gate::closed();
                let last = if fails { answer(422, "") } else { made("c3") };
                let mut script =
                    vec![made("h1"), made("f2"), last, answer(204, ""), answer(204, "")];
                script[at - 1] = script[at - 1].clone().behind(&gate);
                // What was killed is asked again under its key.
                script.insert(at, script[at - 1].clone());
                world.upstream.script(script);
                let id = begin(&world, trip()).await;
                world.until_dispatched(at).await;
                world.kill().await;
                gate.open();
                world.begin_again().await;
                let end = if fails { Standing::Unwound } else { Standing::Done };
                let let_go = async || {
                    let saga = saga(&world, id).await;
                    for (ask, undo) in world.engine().steps_of(&saga).await.unwrap() {
                        for waiting in ask.iter().chain(&undo) {
                            world.let_retry_at(waiting);
                        }
                    }
                    // An attempt of it was never answered, so that only somebody who looked can say.
                    if saga.standing() == Standing::Stuck {
                        assert_eq!((fails, at, saga.at_hand().as_deref()), (true, 3, Some("car")));
                        let (engine, anna) = (world.engine(), person());
                        let said = engine.settle_saga(id, &anna, "car", Word::NotDone);
                        said.await.unwrap();
                    }
                    saga.standing() == end
                };
                world.until(&format!("it ends, killed at {at}"), let_go).await;
                for name in ["hotel", "flight"] {
                    let key = format!("{id}/{name}");
                    assert_eq!(world.upstream.effects(&key), 1, "{name}, killed at {at}");
                    let undone = world.upstream.effects(&format!("{key}/undo"));
                    assert_eq!(undone, u32::from(fails), "{name}, killed at {at}");
                }
                assert_eq!(asked(&world).len(), if fails { 6 } else { 4 }, "killed at {at}");
            }
        }
    }
}

#[tokio::test]
async fn many_processes_move_one_saga_and_each_step_is_begun_once() {
    for world in every(&Policy { effects: Some(Effects::NonIdempotent), ..Policy::default() }) {
        let Some(other) = world.node_apart().await else { continue };
        other.start();
        world.upstream.script([made("h1"), made("f2"), made("c3")]);
        let id = begin(&world, trip()).await;
        stands(&world, id, Standing::Done).await;
        assert_eq!(asked(&world), ["POST /hotel", "POST /flight", "POST /car"]);
        other.stop().await;
    }
}

/// Two steps that each have their effect under what their body calls an order.
fn orders(first: &str, second: &str) -> Definition {
    let ask = |name: &str, order: &str| ask("POST", &format!("/{name}"), json!({"order": order}));
    let plain = |name: &str, order| {
        let undo = Some(self::ask("POST", &format!("/{name}/undone"), json!({"order": order})));
        Step { name: name.to_owned(), ask: ask(name, order), undo, is_pivot: false }
    };
    let steps = vec![plain("hotel", first), plain("flight", second)];
    Definition { steps, input: Value::Null, stops: false }.check().unwrap()
}

#[tokio::test]
async fn a_step_whose_route_calls_its_effect_that_of_another_is_not_sent() {
    let name = KeyTemplate::read("{json:/order}").unwrap();
    let unique = Some(UniqueRule { name, within: Duration::from_hours(24) });
    let policy = Policy { unique, ..effects(Effects::Keyed) };
    for world in every(&policy) {
        let of = |key: &str, order: &str| {
            let mut call = post(key);
            call.request.body = json!({"order": order}).to_string().into();
            call
        };
        let gate = Gate::closed();
        world.upstream.script([made("by"), made("h1"), answer(204, "").behind(&gate)]);
        let first = world.answered(of("by-hand", "o-2")).await;
        let id = begin(&world, orders("o-1", "o-2")).await;
        world.until_dispatched(3).await;
        // And the other way round: a call whose effect a step has is answered from that, until it is undone.
        let hotel = operation(&world, id, 0).await.id;
        assert_eq!(world.answered(of("early", "o-1")).await.operation.id, hotel);
        gate.open();
        let unwound = stands(&world, id, Standing::Unwound).await;
        assert_eq!(legs(&unwound), [Leg::Undone, Leg::NotDone]);
        // What undoes a step says what the step said, and is no twin of it.
        assert_eq!(asked(&world)[1..], ["POST /hotel", "POST /hotel/undone"]);
        let why = unwound.kept.unwrap().why().unwrap();
        assert!(why.contains("the step flight") && why.contains(&first.operation.id.to_string()));
        // Whoever joined before keeps that answer; whoever comes now has the effect.
        assert_eq!(world.answered(of("early", "o-1")).await.operation.id, hotel);
        let later = world.answered(of("later", "o-1")).await.operation.id;
        assert_ne!(later, hotel);
        assert_eq!(world.upstream.dispatched(), 4);
        assert_eq!(world.answered(of("last", "o-1")).await.operation.id, later);
    }
}

#[tokio::test]
async fn a_step_that_asks_what_was_asked_a_while_ago_is_told_as_a_suspected_double() {
    let policy = Policy { suspect_within: Duration::from_hours(1), ..effects(Effects::Keyed) };
    for world in every(&policy) {
        let definition = || {
            let steps = vec![Step { undo: None, ..step("hotel") }];
            Definition { steps, input: json!({"user": 7}), stops: false }.check().unwrap()
        };
        for key in ["trip-1", "trip-2"] {
            let started = start(&world, key, definition()).await.unwrap();
            stands(&world, started.saga.operation.id, Standing::Done).await;
        }
        assert_eq!(world.notes.suspected(), 1);
    }
}

#[tokio::test]
async fn what_undoes_a_step_by_saying_the_same_is_no_suspected_double() {
    let policy = Policy { suspect_within: Duration::from_hours(1), ..effects(Effects::Keyed) };
    for world in every(&policy) {
        let toggle = step("hotel");
        let steps = vec![Step { undo: Some(toggle.ask.clone()), ..toggle }, step("flight")];
        let definition = Definition { steps, input: json!({"user": 7}), stops: false };
        world.upstream.script([made("h1"), answer(404, ""), answer(204, "")]);
        let id = begin(&world, definition.check().unwrap()).await;
        stands(&world, id, Standing::Unwound).await;
        assert_eq!(asked(&world), ["POST /hotel", "POST /flight", "POST /hotel"]);
        assert_eq!(world.notes.suspected(), 0);
    }
}

#[tokio::test]
async fn what_was_not_sent_of_a_saga_that_unwinds_is_not_sent_any_more() {
    for world in every(&effects(Effects::NonIdempotent)) {
        world.upstream.script([made("h1"), unanswered(), answer(204, "")]);
        let id = begin(&world, trip()).await;
        stands(&world, id, Standing::InDoubt).await;
        let flight = operation(&world, id, 1).await;
        world.engine().cancel_saga(id, &person()).await.unwrap();
        let at_risk = [Risk::Unknown];
        let again = world.engine().redeliver_at_risk(flight.id, &person(), &at_risk).await;
        assert!(matches!(again, Err(Refusal::Conflict { .. })), "{again:?}");
        let said = world.engine().resolve(flight.id, &Resolution::NotSent, &person()).await;
        assert_eq!(said.unwrap().state, State::Dead(Death::Unsent));
        let unwound = stands(&world, id, Standing::Unwound).await;
        assert_eq!(legs(&unwound), [Leg::Undone, Leg::NotDone, Leg::Waiting]);
        assert_eq!(asked(&world), ["POST /hotel", "POST /flight", "DELETE /hotel/h1"]);
    }
}

#[tokio::test]
async fn a_lookup_that_finds_nothing_of_a_step_that_is_unwanted_has_it_not_sent_again() {
    let rule = LookupRule {
        get: PathTemplate::read("/flights?ref={key}").unwrap(),
        found: Condition::read(&json!({"json": {"/id": {"exists": true}}})).unwrap(),
        absent: None,
        settle: Duration::from_secs(30),
        when: When::Doubt,
        status: None,
        is_answer: false,
    };
    let policy = Policy { lookup: Some(Arc::new(rule)), ..effects(Effects::NonIdempotent) };
    for world in every(&policy) {
        let absent = || answer(404, "");
        world.upstream.script([made("h1"), unanswered(), absent(), absent(), answer(204, "")]);
        let id = begin(&world, trip()).await;
        world.until("a look", async || world.notes.looked() == 1).await;
        let flight = operation(&world, id, 1).await;
        world.engine().cancel_saga(id, &person()).await.unwrap();
        world.clock.advance_to(flight.looks.next.unwrap());
        let unwound = stands(&world, id, Standing::Unwound).await;
        assert_eq!(legs(&unwound), [Leg::Undone, Leg::NotDone, Leg::Waiting]);
        let flights = asked(&world).iter().filter(|line| *line == "POST /flight").count();
        assert_eq!(flights, 1);
    }
}

#[tokio::test]
async fn a_step_whose_route_is_gone_says_what_it_waits_for_and_goes_on_once_it_is_back() {
    let policy = effects(Effects::Keyed);
    for mut world in every(&policy) {
        let gate = Gate::closed();
        world.upstream.script([made("h1").behind(&gate), made("c3")]);
        world.upstream.script_for("other", [made("f2")]);
        let mut definition = trip();
        definition.steps[1].ask.route = "other".to_owned();
        world.set_routes(routes([route(PAY, &policy), route("other", &policy)]));
        let id = begin(&world, definition).await;
        world.until_dispatched(1).await;
        world.set_routes(routes([route(PAY, &policy)]));
        gate.open();
        let why = async || saga(&world, id).await.kept.unwrap().why();
        let waits = async || why().await.is_some_and(|why| why.ends_with("again: other"));
        world.until("it says what it waits for", waits).await;
        world.set_routes(routes([route(PAY, &policy), route("other", &policy)]));
        world.pass_time(Duration::from_mins(2)).await;
        let done = stands(&world, id, Standing::Done).await;
        assert_eq!(done.kept.unwrap().why(), None);
    }
}

#[tokio::test]
async fn what_may_have_been_done_and_forgotten_is_not_begun_again() {
    for mut world in every(&effects(Effects::Keyed)) {
        let gate = Gate::closed();
        world.upstream.script([made("h1").behind(&gate)]);
        let policy = effects(Effects::Keyed);
        let mut definition = trip();
        definition.steps[1].ask.route = "other".to_owned();
        world.set_routes(routes([route(PAY, &policy), route("other", &policy)]));
        let id = begin(&world, definition).await;
        world.until_dispatched(1).await;
        world.set_routes(routes([route(PAY, &policy)]));
        gate.open();
        let is_at = async || saga(&world, id).await.at_hand().as_deref() == Some("flight");
        world.until("the flight is at hand", is_at).await;
        // Nobody looked for that long: nobody can tell one that waited for its route from one that was forgotten.
        world.pass_time(Duration::from_hours(24 * 31)).await;
        let stuck = stands(&world, id, Standing::Stuck).await;
        assert!(stuck.kept.unwrap().why().unwrap().contains("may have been done"));
        world.set_routes(routes([route(PAY, &policy), route("other", &policy)]));
        let seen = world.upstream.dispatched();
        world.pass_time(Duration::from_mins(2)).await;
        assert_eq!(saga(&world, id).await.standing(), Standing::Stuck);
        assert_eq!(world.upstream.dispatched(), seen);
    }
}

#[tokio::test]
async fn a_step_is_tried_no_longer_than_its_route_allows() {
    let policy = effects(Effects::Keyed);
    for world in every(&policy) {
        let mut definition = trip();
        definition.steps[0].ask.attempts_max = Some(u32::MAX);
        definition.steps[0].ask.within = Some(Duration::from_hours(24 * 3650));
        let gate = Gate::closed();
        world.upstream.script([made("h1").behind(&gate), made("f2"), made("c3")]);
        let id = begin(&world, definition).await;
        world.until_dispatched(1).await;
        let hotel = operation(&world, id, 0).await;
        assert_eq!(hotel.attempts_max, Some(policy.accepted.attempts_max));
        let last = hotel.created_at.plus(policy.accepted.horizon);
        assert!(
            hotel.deadline.is_some_and(|deadline| deadline <= last.plus(Duration::from_secs(1)))
        );
        gate.open();
        stands(&world, id, Standing::Done).await;
    }
}

#[tokio::test]
async fn a_number_that_is_not_kept_as_it_was_answered_fails_the_saga_and_others_go_on_as_they_are()
{
    for world in every(&effects(Effects::Keyed)) {
        let large = r#"{"id":9007199254740993,"beyond":0.10000000000000000001}"#;
        let takes = |what: &str| {
            let body = json!({"of": format!("{{{{steps.hotel.body/{what}}}}}")});
            let ask = ask("POST", "/flight", body);
            let steps = vec![
                Step { undo: None, ..step("hotel") },
                Step { ask, undo: None, ..step("flight") },
            ];
            Definition { steps, input: json!({"user": 7}), stops: false }.check().unwrap()
        };
        world.upstream.script([answer(201, large), made("f2"), answer(201, large)]);
        let id = start(&world, "whole", takes("id")).await.unwrap().saga.operation.id;
        stands(&world, id, Standing::Done).await;
        assert_eq!(world.upstream.seen()[1].body, &br#"{"of":9007199254740993}"#[..]);
        let id = start(&world, "beyond", takes("beyond")).await.unwrap().saga.operation.id;
        stands(&world, id, Standing::Unwound).await;
        assert_eq!(world.upstream.dispatched(), 3);
    }
}

#[tokio::test]
async fn what_is_not_done_behind_the_pivot_leaves_the_saga_done_and_not_ok() {
    for world in every(&effects(Effects::Keyed)) {
        let pivot = Step { undo: None, is_pivot: true, ..step("hotel") };
        let steps = vec![pivot, Step { undo: None, ..after("flight", "hotel") }];
        let definition = Definition { steps, input: json!({"user": 7}), stops: false };
        world.upstream.script([made("h1"), answer(422, "")]);
        let id = begin(&world, definition.check().unwrap()).await;
        stands(&world, id, Standing::Stuck).await;
        let said = world.engine().settle_saga(id, &person(), "flight", Word::NotDone).await;
        let done = said.unwrap();
        assert_eq!(done.standing(), Standing::Done);
        assert!(done.operation.outcome.is_some_and(|outcome| !outcome.ok));
    }
}

#[tokio::test]
async fn what_wants_a_second_person_wants_one_of_a_saga_too() {
    for world in every(&effects(Effects::Keyed)) {
        world.engine().set_approved(vec![Deed::Cancelled]);
        let gate = Gate::closed();
        world.upstream.script([made("h1").behind(&gate), answer(204, "")]);
        let id = begin(&world, trip()).await;
        world.until_dispatched(1).await;
        let first = world.engine().cancel_saga(id, &person()).await;
        assert!(matches!(first, Err(Refusal::SecondWanted { .. })), "{first:?}");
        assert_eq!(saga(&world, id).await.standing(), Standing::Running);
        let second = Person { who: "ben".to_owned(), reason: "indeed".to_owned() };
        let unwinds = world.engine().cancel_saga(id, &second).await.unwrap();
        assert_eq!(unwinds.standing(), Standing::Unwinding);
        gate.open();
        stands(&world, id, Standing::Unwound).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_saga_had_is_gone_once_it_is_erased_whatever_took_the_place_of_it_before() {
    const CANARY: &str = "canary-of-jane-doe";
    for world in every(&effects(Effects::Keyed)) {
        let gate = Gate::closed();
        let said = format!(r#"{{"id":"{CANARY}"}}"#);
        world.upstream.script([answer(201, said).behind(&gate), made("f2"), made("c3")]);
        let definition = Definition { input: json!({"user": CANARY}), ..trip() };
        let id = begin(&world, definition).await;
        world.until_dispatched(1).await;
        let mut bodies: Vec<_> = saga(&world, id).await.operation.bodies().collect();
        let erasure = |is_plan| Erasure {
            tenant: "t".to_owned(),
            whose: Whose::Saga(id),
            person: person(),
            cancels: false,
            is_plan,
        };
        let open = world.engine().erase(&erasure(false)).await.unwrap();
        assert_eq!(open.operations, 0);
        assert!(open.open.contains(&id), "{open:?}");
        gate.open();
        let done = stands(&world, id, Standing::Done).await;
        bodies.extend(done.operation.bodies());
        for step in 0..3 {
            bodies.extend(operation(&world, id, step).await.bodies());
        }
        assert_eq!(world.engine().erase(&erasure(true)).await.unwrap().operations, 4);
        assert_eq!(world.engine().erase(&erasure(false)).await.unwrap().operations, 4);
        for body in bodies {
            let left = world.engine().store().body(body).await.unwrap_or_default();
            assert!(left.iter().all(|byte| *byte == 0), "{left:?}");
        }
        if !world.is_in_memory() {
            assert!(world.holders(CANARY).await.is_empty());
        }
        let other = Erasure { tenant: "other".to_owned(), ..erasure(false) };
        assert!(matches!(world.engine().erase(&other).await, Err(Refusal::NotFound)));
    }
}
