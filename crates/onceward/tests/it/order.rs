//! Those about one subject: one after the other, and none after a newer one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onceward::core::operation::{Death, Operation, State};
use onceward::core::policy::{Effects, Order, Policy};
use onceward::store::Query;
use onceward::{Call, Engine, Refusal, Resolution};
use onceward_proof::chance::Chance;
use onceward_proof::figures::{Figures, number, seed};

use crate::world::{
    Gate, PAY, Step, World, accepted, answer, answered, effects, every, person, refused, route,
    routes, taken, unanswered, unsent,
};

const HOUR: Duration = Duration::from_hours(1);

fn in_order(kind: Effects) -> Policy {
    Policy { order: Order::Subject, ..effects(kind) }
}

/// Version `sequence` of a subject, which nobody waits for.
fn version(key: &str, sequence: u64) -> Call {
    let mut call = accepted(key);
    call.options.subject = Some("contact-1".to_owned());
    call.options.sequence = Some(sequence);
    call
}

/// The same without a number.
fn about(key: &str, subject: &str) -> Call {
    let mut call = accepted(key);
    call.options.subject = Some(subject.to_owned());
    call
}

fn held(mut call: Call) -> Call {
    call.options.respond_async = false;
    call
}

/// The keys that were sent, in order.
fn sent(world: &World) -> Vec<String> {
    world.upstream.seen().iter().map(|seen| seen.key().to_owned()).collect()
}

/// Lets time pass in small steps until `done`.
async fn drive(world: &World, done: impl AsyncFn() -> bool) {
    world
        .until("time brings it", async || {
            if done().await {
                return true;
            }
            if world.clock.is_anyone_asleep_for(Duration::ZERO..Duration::from_mins(3)) {
                world.clock.advance(Duration::from_millis(100));
            }
            false
        })
        .await;
}

async fn blocked_by(world: &World, operation: &Operation) -> Option<Operation> {
    let place = world.engine().in_line(operation).await.unwrap()?;
    world.find_now(place.blocked_by?).await
}

#[tokio::test]
async fn they_are_sent_one_at_a_time_in_the_order_of_their_numbers() {
    for world in every(&effects(Effects::Keyed)) {
        let gate = Gate::closed();
        world.upstream.script([answer(201, "one").behind(&gate)]);
        taken(world.call(version("v1", 1)).await);
        world.until_dispatched(1).await;
        for n in [4, 2, 3] {
            taken(world.call(version(&format!("v{n}"), n)).await);
        }
        let waiting = world.operation("v2").await;
        assert_eq!(waiting.state.name(), "pending");
        let before = blocked_by(&world, &waiting).await.unwrap();
        assert_eq!(before.key.as_str(), "v1");
        assert_eq!(world.engine().in_line(&before).await.unwrap().unwrap().behind, 3);
        assert_eq!(sent(&world), ["v1"]);
        gate.open();
        world.stands("v4", "done").await;
        assert_eq!(sent(&world), ["v1", "v2", "v3", "v4"]);
        world.engine().idle().await;
        let cells = world.engine().store().settings("line/".into()).await.unwrap();
        assert_eq!(cells.len(), 1, "what was newest is kept");
    }
}

#[tokio::test]
async fn where_the_route_says_so_they_have_an_order_without_numbers() {
    for world in every(&in_order(Effects::Keyed)) {
        let gate = Gate::closed();
        world.upstream.script([answer(201, "one").behind(&gate)]);
        taken(world.call(about("a1", "a")).await);
        world.until_dispatched(1).await;
        for key in ["a2", "a3"] {
            taken(world.call(about(key, "a")).await);
        }
        taken(world.call(about("b1", "b")).await);
        world.stands("b1", "done").await;
        assert_eq!(sent(&world), ["a1", "b1"], "another subject waits for nobody");
        gate.open();
        world.stands("a3", "done").await;
        assert_eq!(sent(&world), ["a1", "b1", "a2", "a3"]);
        world.engine().idle().await;
        let cells = world.engine().store().settings("line/".into()).await.unwrap();
        assert!(cells.is_empty(), "nothing is left of a line that nobody waits in");
    }
}

/// One is being sent and another waits; then the line is gone, and the first is done: the name of the
/// line's cell, and what it was.
async fn with_a_line_that_is_lost(world: &World) -> (String, Bytes) {
    let gate = Gate::closed();
    world.upstream.script([answer(201, "one").behind(&gate)]);
    taken(world.call(about("a1", "a")).await);
    world.until_dispatched(1).await;
    taken(world.call(about("a2", "a")).await);
    let store = world.engine().store();
    let (name, cell) = store.settings("line/".into()).await.unwrap().remove(0);
    store.set(name.clone(), None).await.unwrap();
    gate.open();
    world.stands("a1", "done").await;
    world.engine().idle().await;
    (name, cell)
}

#[tokio::test]
async fn one_whose_process_ended_before_its_line_had_it_is_not_passed_once_it_is_asked_for_again() {
    for world in every(&in_order(Effects::Keyed)) {
        with_a_line_that_is_lost(&world).await;
        for key in ["a2", "a3"] {
            taken(world.call(about(key, "a")).await);
        }
        world.stands("a3", "done").await;
        assert_eq!(sent(&world), ["a1", "a2", "a3"]);
    }
}

#[tokio::test]
async fn a_line_whose_process_ended_before_it_was_moved_on_goes_on_soon_after_a_start() {
    for world in every(&in_order(Effects::Keyed)) {
        let (name, cell) = with_a_line_that_is_lost(&world).await;
        world.engine().store().set(name, Some(cell)).await.unwrap();
        assert_eq!(sent(&world), ["a1"]);
        // Long before it is looked at because it waits.
        world.pass_time(Duration::from_secs(5)).await;
        world.stands("a2", "done").await;
    }
}

#[tokio::test]
async fn without_an_order_a_subject_is_a_name() {
    for world in every(&effects(Effects::Keyed)) {
        let gate = Gate::closed();
        world.upstream.script([answer(201, "late").behind(&gate), answer(201, "soon")]);
        taken(world.call(about("a1", "a")).await);
        world.until_dispatched(1).await;
        assert_eq!(answered(world.call(held(about("a2", "a"))).await).response.status, 201);
        gate.open();
        world.stands("a1", "done").await;
        let query = Query { subject: Some("a".into()), limit: 9, ..Query::default() };
        assert_eq!(world.engine().store().list(query).await.unwrap().operations.len(), 2);
    }
}

#[tokio::test]
async fn a_turn_that_was_not_used_goes_to_an_older_one() {
    for world in every(&effects(Effects::Keyed)) {
        world.engine().pause(PAY, &person()).await.unwrap();
        for n in [3, 1, 2] {
            taken(world.call(version(&format!("v{n}"), n)).await);
        }
        let first = world.operation("v1").await;
        assert!(first.is_first() && !world.operation("v3").await.is_first());
        world.engine().resume(PAY, &person()).await.unwrap();
        drive(&world, async || world.upstream.dispatched() == 3).await;
        assert_eq!(sent(&world), ["v1", "v2", "v3"]);
        world.stands("v3", "done").await;
    }
}

#[tokio::test]
async fn an_older_one_than_one_that_was_done_is_not_sent() {
    for world in every(&effects(Effects::NonIdempotent)) {
        let newest = answered(world.call(held(version("v5", 5))).await);
        assert_eq!(newest.response.status, 201);
        let old = answered(world.call(version("v4", 4)).await);
        assert_eq!((old.response.status, old.replayed), (204, false));
        let kept = world.operation("v4").await;
        assert_eq!((kept.state, kept.told), (State::Dead(Death::Superseded), true));
        assert_eq!(kept.subject.as_ref().unwrap().superseded_by, Some(newest.operation.id));
        let again = answered(world.call(version("v4", 4)).await);
        assert_eq!((again.response.status, again.replayed), (204, true));
        let refusal = world.engine().redeliver(kept.id, &person()).await;
        assert!(matches!(refusal, Err(Refusal::Conflict { .. })), "{refusal:?}");
        assert_eq!(answered(world.call(held(version("v5b", 5))).await).response.status, 201);
        assert_eq!(sent(&world), ["v5", "v5b"]);
    }
}

#[tokio::test]
async fn a_caller_who_waits_is_told_when_it_is_superseded_meanwhile() {
    for world in every(&effects(Effects::NonIdempotent)) {
        let gate = Gate::closed();
        world.upstream.script([answer(201, "newest").behind(&gate)]);
        taken(world.call(version("v5", 5)).await);
        world.until_dispatched(1).await;
        let old = world.begin(held(version("v4", 4)));
        world.until("it waits", async || world.find("v4").await.is_some()).await;
        gate.open();
        assert_eq!(answered(old.result().await).response.status, 204);
        assert_eq!(sent(&world), ["v5"]);
    }
}

#[tokio::test]
async fn a_caller_who_waits_for_too_long_for_its_turn_gets_a_receipt() {
    for world in every(&effects(Effects::Keyed)) {
        let gate = Gate::closed();
        world.upstream.script([answer(201, "slow").behind(&gate)]);
        taken(world.call(version("v1", 1)).await);
        world.until_dispatched(1).await;
        let second = world.begin(held(version("v2", 2)));
        let until = world.clock.now().plus(Policy::default().held.horizon);
        world.until("it waits", async || world.clock.is_awaited(until)).await;
        world.clock.advance_to(until);
        assert_eq!(taken(second.result().await).key.as_str(), "v2");
        gate.open();
        world.stands("v2", "done").await;
    }
}

#[tokio::test]
async fn a_dead_one_keeps_those_behind_it_only_as_long_as_the_route_says() {
    for world in every(&in_order(Effects::NonIdempotent)) {
        world.upstream.script([answer(400, "no")]);
        taken(world.call(about("a1", "a")).await);
        let dead = world.stands("a1", "dead").await;
        taken(world.call(about("a2", "a")).await);
        let waiting = world.operation("a2").await;
        assert_eq!(blocked_by(&world, &waiting).await.unwrap().id, dead.id);
        world.pass_time(HOUR.checked_sub(Duration::from_mins(2)).unwrap()).await;
        world.until_it_has_beaten().await;
        assert_eq!(sent(&world), ["a1"]);
        drive(&world, async || world.upstream.dispatched() == 2).await;
        world.stands("a2", "done").await;
    }
}

#[tokio::test]
async fn a_dead_one_that_is_sent_again_goes_before_those_that_wait_for_it() {
    for world in every(&effects(Effects::NonIdempotent)) {
        world.upstream.script([answer(400, "no")]);
        taken(world.call(version("v1", 1)).await);
        let dead = world.stands("v1", "dead").await;
        taken(world.call(version("v2", 2)).await);
        world.engine().redeliver(dead.id, &person()).await.unwrap();
        world.stands("v2", "done").await;
        assert_eq!(sent(&world), ["v1", "v1", "v2"]);
    }
}

#[tokio::test]
async fn one_in_doubt_keeps_those_behind_it_and_supersedes_those_before_it() {
    for world in every(&effects(Effects::NonIdempotent)) {
        world.upstream.script([unanswered()]);
        taken(world.call(version("v5", 5)).await);
        let doubt = world.stands("v5", "in_doubt").await;
        let old = answered(world.call(version("v4", 4)).await);
        assert_eq!(old.response.status, 204, "it could land on top of what may be done");
        taken(world.call(version("v6", 6)).await);
        assert_eq!(sent(&world), ["v5"]);
        world.engine().resolve(doubt.id, &Resolution::Done(None), &person()).await.unwrap();
        world.stands("v6", "done").await;
        assert_eq!(sent(&world), ["v5", "v6"]);
    }
}

#[tokio::test]
async fn one_that_is_given_up_while_it_waits_lets_the_others_by() {
    for world in every(&in_order(Effects::Keyed)) {
        let gate = Gate::closed();
        world.upstream.script([answer(201, "one").behind(&gate)]);
        for key in ["a1", "a2", "a3"] {
            taken(world.call(about(key, "a")).await);
            world.until_dispatched(1).await;
        }
        let second = world.operation("a2").await;
        world.engine().cancel(second.id, &person()).await.unwrap();
        gate.open();
        world.stands("a3", "done").await;
        assert_eq!(sent(&world), ["a1", "a3"]);
    }
}

#[tokio::test]
async fn numbers_that_are_missing_are_waited_for_where_the_route_says_so() {
    let gap = Duration::from_secs(10);
    for world in every(&Policy { order_gap_max: gap, ..effects(Effects::Keyed) }) {
        taken(world.call(version("v2", 2)).await);
        assert_eq!(world.upstream.dispatched(), 0);
        taken(world.call(version("v1", 1)).await);
        world.stands("v2", "done").await;
        taken(world.call(version("v4", 4)).await);
        drive(&world, async || world.upstream.dispatched() == 3).await;
        assert_eq!(sent(&world), ["v1", "v2", "v4"], "for a while");
        let last = world.stands("v4", "done").await;
        let waited = last.attempts[0].started_at.since(last.created_at);
        assert!(waited + Duration::from_millis(1) >= gap, "{waited:?}");
    }
}

#[tokio::test]
async fn more_than_may_wait_about_a_subject_are_not_taken() {
    for world in every(&Policy { subject_max: 2, ..effects(Effects::Keyed) }) {
        let gate = Gate::closed();
        world.upstream.script([answer(201, "one").behind(&gate)]);
        for n in 1..=3 {
            taken(world.call(version(&format!("v{n}"), n)).await);
            world.until_dispatched(1).await;
        }
        let refusal = refused(world.call(version("v4", 4)).await);
        assert!(matches!(refusal, Refusal::Limit { .. }), "{refusal:?}");
        assert_eq!(world.find("v4").await, None);
        taken(world.call(version("v2", 2)).await);
        gate.open();
        world.stands("v3", "done").await;
    }
}

#[tokio::test]
async fn lines_end_with_what_they_remember() {
    for world in every(&effects(Effects::Keyed)) {
        let first = answered(world.call(held(version("v1", 1))).await);
        world.engine().idle().await;
        let cells = async || world.engine().store().settings("line/".into()).await.unwrap().len();
        assert_eq!(cells().await, 1);
        let kept = Duration::from_hours(720) + first.operation.tombstone;
        world.pass_time(kept).await;
        drive(&world, async || cells().await == 0).await;
    }
}

#[tokio::test]
async fn two_nodes_never_have_two_of_one_subject_under_way() {
    for world in every(&in_order(Effects::Keyed)) {
        let Some(other) = world.other_node() else { continue };
        world.upstream.script((0..40).map(|_| answer(201, "made")));
        other.start();
        for n in 0..40 {
            let engine: &Arc<Engine> = if n % 2 == 0 { &other } else { world.engine() };
            taken(engine.call(about(&format!("a{n}"), "a")).await);
        }
        drive(&world, async || world.upstream.dispatched() == 40).await;
        world.stands("a39", "done").await;
        assert_eq!(world.upstream.most_at_once(), 1);
        let mut once = sent(&world);
        once.sort();
        once.dedup();
        assert_eq!(once.len(), 40, "each of them once");
        other.halt();
    }
}

#[tokio::test]
async fn two_nodes_send_none_after_a_newer_one_whichever_of_them_has_it() {
    for world in every(&effects(Effects::Keyed)) {
        let Some(other) = world.other_node() else { continue };
        let mut chance = Chance(seed());
        other.start();
        for round in 0..10 {
            let mut order: Vec<u64> = (1..=12).collect();
            for place in (1..order.len()).rev() {
                order.swap(place, chance.below(place as u64 + 1) as usize);
            }
            let before = world.upstream.dispatched();
            let calls: Vec<_> = order
                .into_iter()
                .map(|n| {
                    let mut call = version(&format!("r{round}-v{n}"), n);
                    call.options.subject = Some(format!("subject-{round}"));
                    let is_others = chance.percent(50);
                    let engine = Arc::clone(if is_others { &other } else { world.engine() });
                    tokio::spawn(async move { engine.call(call).await })
                })
                .collect();
            for call in calls {
                call.await.unwrap().unwrap();
            }
            world.stands(&format!("r{round}-v12"), "done").await;
            let seen = sent(&world).split_off(before);
            let number = |key: &String| key.split_once("-v").unwrap().1.parse::<u64>().unwrap();
            assert!(seen.iter().map(number).is_sorted(), "{seen:?}");
        }
        assert_eq!(world.upstream.most_at_once(), 1);
        other.halt();
    }
}

/// What a shuffle of versions came to.
#[derive(Debug, Default)]
struct Count {
    versions: u64,
    sent: u64,
    superseded: u64,
    kills: u64,
}

/// Sends the versions of one subject in any order by callers at once, over an upstream that fails, and
/// a process that may be killed meanwhile; looks at what was sent.
async fn shuffle(world: &mut World, round: u64, chance: &mut Chance, count: &mut Count) {
    let newest = 2 + chance.below(7);
    let mut order: Vec<u64> = (1..=newest).collect();
    for place in (1..order.len()).rev() {
        order.swap(place, chance.below(place as u64 + 1) as usize);
    }
    let of = |n: u64| {
        let mut call = version(&format!("r{round}-v{n}"), n);
        call.options.subject = Some(format!("subject-{round}"));
        call
    };
    world.upstream.script((0..newest).map(|_| -> Step {
        match chance.below(6) {
            0 => answer(503, "busy"),
            1 => unsent(),
            2 => unanswered(),
            _ => answer(200, "set"),
        }
    }));
    let before = world.upstream.dispatched();
    let begun: Vec<_> = order
        .iter()
        .map(|n| {
            let call = of(*n);
            world.begin(if chance.percent(50) { held(call) } else { call })
        })
        .collect();
    if chance.percent(20) {
        world.until_dispatched(before + chance.below(2) as usize).await;
        world.restart().await;
        count.kills += 1;
    }
    drop(begun);
    for n in order {
        let result = world.call(of(n)).await;
        assert!(result.is_ok(), "version {n} of round {round}: {result:?}");
    }
    let rests = async |n: u64| {
        let found = world.find(&format!("r{round}-v{n}")).await;
        found.filter(|found| found.state.is_ended())
    };
    drive(world, async || {
        for n in 1..=newest {
            if rests(n).await.is_none() {
                return false;
            }
        }
        true
    })
    .await;
    let mut done = BTreeSet::new();
    for n in 1..=newest {
        let found = rests(n).await.unwrap();
        match found.state {
            State::Done => {
                done.insert(n);
            }
            State::Dead(Death::Superseded) => count.superseded += 1,
            other => panic!("version {n} of round {round} is {other:?}"),
        }
    }
    assert!(done.contains(&newest), "the newest one is done");
    let prefix = format!("r{round}-v");
    let seen: Vec<u64> = world.upstream.seen()[before..]
        .iter()
        .filter_map(|seen| seen.key().strip_prefix(&prefix)?.parse().ok())
        .collect();
    assert_eq!(seen.last(), Some(&newest), "the upstream ends with the newest: {seen:?}");
    // One is sent at a time, so the last time that it was sent is when it was done.
    for (place, sent) in seen.iter().enumerate() {
        let is_last = |at: usize| !seen[at + 1..].contains(&seen[at]);
        let newer = (0..place).find(|at| is_last(*at) && seen[*at] > *sent);
        assert_eq!(newer, None, "none is sent after a newer one was done: {seen:?}");
    }
    count.versions += newest;
    count.sent += seen.len() as u64;
}

#[tokio::test]
async fn versions_in_any_order_end_with_the_newest_and_none_is_sent_after_a_newer_one() {
    let seed = seed();
    let (shuffles, mut chance) = (number("TEST_SHUFFLES", 60), Chance(seed));
    let (mut figures, mut count) = (Figures::of("shuffles", seed), Count::default());
    let mut policy = effects(Effects::Keyed);
    // However often an attempt fails, the next may work.
    policy.accepted.attempts_max = 1000;
    policy.accepted.base = Duration::from_millis(200);
    policy.accepted.cap = Duration::from_millis(400);
    policy.accepted.floor = Duration::from_millis(100);
    let mut pay = route(PAY, &policy);
    pay.protection.breaker = None;
    let mut round = 0;
    // A ledger in memory is for few operations, so there are many of them.
    while round < shuffles {
        let mut world = World::in_memory(routes([pay.clone()]));
        for _ in 0..(shuffles - round).min(50) {
            shuffle(&mut world, round, &mut chance, &mut count).await;
            round += 1;
        }
        assert_eq!(world.upstream.most_at_once(), 1);
    }
    let elsewhere = (shuffles / 20).max(3);
    for mut world in crate::world::every_with(&routes([pay])).into_iter().skip(1) {
        for _ in 0..elsewhere {
            shuffle(&mut world, round, &mut chance, &mut count).await;
            round += 1;
        }
        assert_eq!(world.upstream.most_at_once(), 1);
    }
    figures.count("shuffles", round);
    figures.count("versions", count.versions);
    figures.count("sent", count.sent);
    figures.count("superseded", count.superseded);
    figures.count("kills", count.kills);
    figures.tell(0);
    assert!(count.superseded > 0 && count.sent >= round);
}
