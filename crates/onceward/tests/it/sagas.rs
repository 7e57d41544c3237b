//! Sagas on every ledger: in order, undone in reverse, and whole across deaths of their process.

use onceward::core::exchange::{Headers, Response};
use onceward::core::id::OperationId;
use onceward::core::key::Key;
use onceward::core::operation::{Operation, State};
use onceward::core::policy::{Effects, Policy};
use onceward::core::saga::{Ask, Body, Definition, Leg, Standing, Step, Template, Word};
use onceward::observe::Repeat;
use onceward::{NewSaga, Refusal, Resolution, Saga, Started};
use serde_json::{Value, json};

use crate::world::{
    Gate, PAY, Seen, Step as Does, World, answer, effects, every, person, unanswered,
};

fn ask(method: &str, path: &str, body: Value) -> Ask {
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
fn step(name: &str) -> Step {
    let undo = ask("DELETE", &format!("/{name}/{{{{steps.{name}.body/id}}}}"), Value::Null);
    let ask = ask("POST", &format!("/{name}"), json!({"for": "{{input/user}}"}));
    Step { name: name.to_owned(), ask, undo: Some(undo), is_pivot: false }
}

/// The same, which takes what the step before it made.
fn after(name: &str, before: &str) -> Step {
    let body = json!({"of": format!("{{{{steps.{before}.body/id}}}}")});
    Step { ask: ask("POST", &format!("/{name}"), body), ..step(name) }
}

fn trip() -> Definition {
    let steps = vec![step("hotel"), after("flight", "hotel"), after("car", "flight")];
    Definition { steps, input: json!({"user": 7}), stops: false }.check().unwrap()
}

fn made(id: &str) -> Does {
    answer(201, json!({"id": id}).to_string())
}

async fn start(world: &World, key: &str, definition: Definition) -> Result<Started, Refusal> {
    let wanted = NewSaga {
        tenant: "t".to_owned(),
        principal: String::new(),
        key: Some(Key::new(key).unwrap()),
        label: None,
        definition,
        callback: None,
        trace: None,
    };
    let engine = world.engine().clone();
    world.spawn(async move { engine.start_saga(wanted).await }).await.unwrap()
}

async fn begin(world: &World, definition: Definition) -> OperationId {
    start(world, "trip-1", definition).await.unwrap().saga.operation.id
}

async fn saga(world: &World, id: OperationId) -> Saga {
    world.engine().saga(id).await.unwrap()
}

/// The saga, once it stands there.
async fn stands(world: &World, id: OperationId, standing: Standing) -> Saga {
    let is = async || saga(world, id).await.standing() == standing;
    world.until(&format!("the saga is {}", standing.name()), is).await;
    saga(world, id).await
}

fn legs(saga: &Saga) -> Vec<Leg> {
    saga.kept.as_ref().unwrap().progress.legs.clone()
}

/// What the upstream was asked, in order.
fn asked(world: &World) -> Vec<String> {
    let line = |seen: &Seen| format!("{} {}", seen.method, seen.target);
    world.upstream.seen().iter().map(line).collect()
}

/// The operation of a step.
async fn operation(world: &World, id: OperationId, step: usize) -> Operation {
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
        let why = unwound.kept.unwrap().why.unwrap();
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
        let why = unwound.kept.unwrap().why.unwrap();
        assert!(why.contains("{{steps.hotel.body/id}}"), "{why}");
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
