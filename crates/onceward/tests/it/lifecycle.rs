//! Keys over time, callers that go away, routes that change, slots that are taken.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::time::Duration;

use bytes::Bytes;
use onceward::core::key::Key;
use onceward::core::operation::{Forgotten, State};
use onceward::core::policy::{Effects, OnExpired, Policy};
use onceward::core::time::Timestamp;
use onceward::observe::Repeat;
use onceward::route::Route;
use onceward::store::{Standing, Which};
use onceward::{Call, Refusal};

use crate::world::{
    Gate, PAY, World, accepted, answer, answered, effects, essence, every, every_with, person,
    post, refused, route, routes, scope, taken, unanswered, with_header,
};

const WINDOW: Duration = Duration::from_hours(72);
const TOMBSTONE: Duration = Duration::from_hours(720);

fn just_before(at: Timestamp) -> Timestamp {
    Timestamp::from_micros(at.as_micros() - 1)
}

#[tokio::test]
async fn after_its_window_a_key_is_refused_and_after_its_tombstone_it_is_new() {
    for mut world in every(&effects(Effects::NonIdempotent)) {
        let gate = Gate::closed();
        world.upstream.script([answer(201, "made").behind(&gate)]);
        let calling = world.begin(post("k"));
        world.until_dispatched(1).await;
        // The window counts from the end, not from the beginning.
        world.clock.advance(Duration::from_secs(50));
        gate.open();
        let first = answered(calling.result().await);
        let ended_at = world.clock.now();
        world.clock.advance_to(just_before(ended_at.plus(WINDOW)));
        assert!(world.answered(post("k")).await.replayed);
        world.clock.advance_to(ended_at.plus(WINDOW));
        for _ in 0..2 {
            let refusal = world.refused(post("k")).await;
            let Refusal::KeyExpired(mark) = refusal else { panic!("{refusal:?}") };
            assert_eq!((mark.id, mark.state), (first.operation.id, State::Done));
            assert_eq!(mark.ended_at, Some(ended_at));
            world.restart().await;
        }
        world.clock.advance_to(just_before(ended_at.plus(WINDOW + TOMBSTONE)));
        let refusal = world.refused(post("k")).await;
        assert!(matches!(refusal, Refusal::KeyExpired(_)), "{refusal:?}");
        assert_eq!(world.notes.repeats(Repeat::Late), 3);
        assert_eq!(world.upstream.dispatched(), 1);
        world.clock.advance_to(ended_at.plus(WINDOW + TOMBSTONE));
        let new = world.answered(post("k")).await;
        assert!(!new.replayed && new.operation.id != first.operation.id);
        assert!(world.answered(post("k")).await.replayed);
        assert_eq!(world.upstream.dispatched(), 2);
    }
}

#[tokio::test]
async fn a_mismatch_is_told_after_the_window_too() {
    for world in every(&effects(Effects::NonIdempotent)) {
        world.answered(post("k")).await;
        world.clock.advance(WINDOW);
        let mut other = post("k");
        other.request.target = "/elsewhere".into();
        let refusal = world.refused(other).await;
        assert!(matches!(refusal, Refusal::KeyMismatch { .. }), "{refusal:?}");
    }
}

#[tokio::test]
async fn a_route_may_take_an_expired_key_for_new_and_still_counts_a_late_duplicate() {
    let policy = Policy { on_expired: OnExpired::Execute, ..effects(Effects::NonIdempotent) };
    for world in every(&policy) {
        let first = world.answered(post("k")).await.operation.id;
        world.clock.advance(WINDOW);
        let second = world.answered(post("k")).await;
        assert!(second.operation.id != first && !second.replayed);
        assert_eq!(world.notes.repeats(Repeat::Late), 1);
        assert_eq!(world.upstream.dispatched(), 2);
    }
}

#[tokio::test]
async fn the_sweep_leaves_a_mark_after_the_window_and_nothing_after_the_tombstone() {
    for world in every(&effects(Effects::NonIdempotent)) {
        let id = world.answered(post("k")).await.operation.id;
        let find = async || world.find_now(id).await;
        let standing = async || find().await.as_ref().map(Standing::of);
        // The engine sweeps by itself: a pass at every advance of ten minutes and more.
        world.clock.advance(WINDOW);
        world.until("it is a mark", async || standing().await == Some(Standing::Tombstone)).await;
        let refusal = world.refused(post("k")).await;
        let Refusal::KeyExpired(mark) = refusal else { panic!("{refusal:?}") };
        assert_eq!((mark.id, mark.request, mark.attempts.len()), (id, None, 0));
        world.pass_time(TOMBSTONE).await;
        world.until("nothing is left", async || find().await.is_none()).await;
        assert!(!world.answered(post("k")).await.replayed);
        assert_eq!(world.upstream.dispatched(), 2);
    }
}

#[tokio::test]
async fn what_is_unfinished_never_expires() {
    for world in every(&effects(Effects::NonIdempotent)) {
        let gate = Gate::closed();
        world.upstream.script([unanswered(), answer(201, "made").behind(&gate)]);
        let _ = world.call(post("doubt")).await;
        taken(world.call(accepted("stuck")).await);
        world.until_dispatched(2).await;
        let mut later = accepted("later");
        let far = world.clock.now().plus(4 * (WINDOW + TOMBSTONE));
        later.options.not_before = Some(far.plus(Duration::from_hours(1)));
        taken(world.call(later).await);
        for _ in 0..4 {
            world.pass_time(WINDOW + TOMBSTONE).await;
        }
        let refusal = world.refused(post("doubt")).await;
        assert!(matches!(refusal, Refusal::OutcomeUnknown { .. }), "{refusal:?}");
        assert_eq!(world.operation("stuck").await.state, State::Delivering);
        assert_eq!(world.operation("later").await.state.name(), "pending");
        gate.open();
        world.stands("stuck", "done").await;
        assert_eq!(essence(&world.answered(post("stuck")).await.response), (201, &b"made"[..]));
        assert_eq!(world.upstream.dispatched(), 2);
    }
}

async fn forget(world: &World, then: Forgotten) {
    let key = Key::new("k").unwrap();
    world.engine().forget(&scope(), &key, then, &person()).await.unwrap();
}

#[tokio::test]
async fn a_forgotten_key_is_refused_with_the_reason_until_its_tombstone_is_over() {
    for mut world in every(&effects(Effects::NonIdempotent)) {
        world.answered(post("k")).await;
        forget(&world, Forgotten::Refuse).await;
        for _ in 0..2 {
            let refusal = world.refused(post("k")).await;
            let Refusal::KeyInvalidated(operation) = refusal else { panic!("{refusal:?}") };
            assert_eq!(operation.acts[0].reason, "asked the bank");
            world.restart().await;
        }
        world.clock.advance(WINDOW + TOMBSTONE);
        assert!(!world.answered(post("k")).await.replayed);
        assert_eq!(world.upstream.dispatched(), 2);
    }
}

#[tokio::test]
async fn a_key_forgotten_for_a_new_operation_is_sent_under_another_upstream_key() {
    for mut world in every(&effects(Effects::Keyed)) {
        world.upstream.dedupe();
        let first = world.answered(post("k")).await;
        forget(&world, Forgotten::New).await;
        let second = world.answered(post("k")).await;
        assert!(!second.replayed && second.operation.id != first.operation.id);
        assert_ne!(second.response.body, first.response.body, "it is a second effect");
        let seen = world.upstream.seen();
        assert_eq!((seen[0].key(), seen[1].key().len()), ("k", 43));
        // Once more, at once: the new operation is meant.
        forget(&world, Forgotten::Refuse).await;
        let refusal = world.refused(post("k")).await;
        let Refusal::KeyInvalidated(operation) = refusal else { panic!("{refusal:?}") };
        assert_eq!(operation.id, second.operation.id);
        // The old one is swept though its key is not its own any more.
        world.pass_time(WINDOW).await;
        let old = async || world.find_now(first.operation.id).await;
        world
            .until("the old one is a mark", async || {
                old().await.is_some_and(|old| Standing::of(&old) == Standing::Tombstone)
            })
            .await;
        world.restart().await;
        assert_eq!(world.operation("k").await.id, second.operation.id);
        assert_eq!(world.upstream.dispatched(), 2);
    }
}

#[tokio::test]
async fn a_key_that_nobody_used_cannot_be_forgotten() {
    for world in every(&effects(Effects::Keyed)) {
        let key = Key::new("never").unwrap();
        let result = world.engine().forget(&scope(), &key, Forgotten::New, &person()).await;
        assert!(matches!(result, Err(Refusal::NotFound)), "{result:?}");
    }
}

#[tokio::test]
async fn nothing_is_sent_before_its_time() {
    for mut world in every(&effects(Effects::NonIdempotent)) {
        let due = world.clock.now().plus(Duration::from_mins(5));
        // One that asks to be held is accepted too: nobody is held for what is put off.
        for (key, call) in [("a", accepted("a")), ("b", post("b"))] {
            let mut call = call;
            call.options.not_before = Some(due);
            let operation = taken(world.call(call).await);
            assert_eq!(operation.state, State::Pending { due }, "{key}");
        }
        world.restart().await;
        world.clock.advance_to(due);
        world.stands("a", "done").await;
        world.stands("b", "done").await;
        let started = world.operation("a").await.attempts[0].started_at;
        assert_eq!((started, world.upstream.dispatched()), (due, 2));
    }
}

#[tokio::test]
async fn what_is_due_is_sent_though_nobody_says_so() {
    for world in every(&effects(Effects::NonIdempotent)) {
        for n in 0..8 {
            let key = format!("k{n}");
            let due = world.clock.now().plus(Duration::from_secs(20));
            let mut call = accepted(&key);
            call.options.not_before = Some(due);
            taken(world.call(call).await);
            // The hint that something was written has come by now; after it only time passes.
            world.stands(&key, "pending").await;
            world.until("the dispatcher waits for it", async || world.clock.is_awaited(due)).await;
            world.clock.advance_to(due);
            world.stands(&key, "done").await;
        }
    }
}

#[tokio::test]
async fn what_is_due_a_moment_after_another_is_sent_though_nobody_says_so() {
    for world in every(&effects(Effects::NonIdempotent)) {
        let first = world.clock.now().plus(Duration::from_secs(20));
        let each = (0..8).map(|n| (format!("k{n}"), first.plus(Duration::from_millis(7 * n))));
        let each: Vec<(String, Timestamp)> = each.collect();
        for (key, due) in &each {
            let mut call = accepted(key);
            call.options.not_before = Some(*due);
            taken(world.call(call).await);
        }
        for (key, due) in each {
            world.until("the dispatcher waits for it", async || world.clock.is_awaited(due)).await;
            world.clock.advance_to(due);
            world.stands(&key, "done").await;
        }
    }
}

#[tokio::test]
async fn nothing_is_sent_a_moment_before_its_time() {
    for world in every(&effects(Effects::NonIdempotent)) {
        let due = world.clock.now().plus(Duration::from_secs(20));
        let mut call = accepted("k");
        call.options.not_before = Some(due);
        taken(world.call(call).await);
        world.until("the dispatcher waits for it", async || world.clock.is_awaited(due)).await;
        world.clock.advance(Duration::from_millis(19_999));
        taken(world.call(accepted("other")).await);
        world.stands("other", "done").await;
        assert_eq!(world.operation("k").await.state, State::Pending { due });
        world.clock.advance_to(due);
        world.stands("k", "done").await;
    }
}

#[tokio::test]
async fn a_caller_that_hangs_up_while_its_call_is_sent_changes_nothing() {
    for world in every(&effects(Effects::NonIdempotent)) {
        let gate = Gate::closed();
        world.upstream.script([answer(201, "made").behind(&gate)]);
        let calling = world.begin(post("k"));
        world.until_dispatched(1).await;
        calling.hang_up().await;
        gate.open();
        world.stands("k", "done").await;
        let got = world.answered(post("k")).await;
        assert_eq!((essence(&got.response), got.replayed), ((201, &b"made"[..]), true));
        assert_eq!(world.upstream.dispatched(), 1);
    }
}

#[tokio::test]
async fn a_caller_that_hangs_up_while_it_is_remembered_leaves_nothing_undone() {
    for effect in [Effects::NonIdempotent, Effects::Keyed] {
        for world in every(&effects(effect)) {
            world.upstream.script([answer(201, "made")]);
            world.call_and_hang_up(post("k"), 1).await;
            world.stands("k", "done").await;
            assert!(world.answered(post("k")).await.replayed);
            assert_eq!(world.upstream.dispatched(), 1);
        }
    }
}

#[tokio::test]
async fn a_caller_that_hangs_up_while_its_key_is_revived_leaves_nothing_undone() {
    for world in every(&effects(Effects::NonIdempotent)) {
        world.upstream.script([answer(401, "who?"), answer(201, "made")]);
        world.answered(post("k")).await;
        // Each lets the call go a little further before its caller is gone.
        for polls in 1..6 {
            world.call_and_hang_up(post("k"), polls).await;
        }
        assert_eq!(world.answered(post("k")).await.response.status, 201);
        assert_eq!((world.upstream.dispatched(), world.upstream.effects("k")), (2, 1));
    }
}

#[tokio::test]
async fn a_held_caller_that_hangs_up_while_a_retry_is_waited_for_changes_nothing() {
    for world in every(&effects(Effects::Keyed)) {
        world.upstream.script([answer(503, ""), answer(201, "made")]);
        let calling = world.begin(post("k"));
        world.stands("k", "pending").await;
        calling.hang_up().await;
        world.let_retry("k").await;
        world.stands("k", "done").await;
        assert_eq!(essence(&world.answered(post("k")).await.response), (201, &b"made"[..]));
    }
}

fn with_credentials(mut route: Route, value: &'static str, host: &str) -> Route {
    route.set_headers.set("authorization", Bytes::from_static(value.as_bytes()));
    let target = std::sync::Arc::make_mut(&mut route.target);
    target.base = format!("http://{host}.test").parse().unwrap();
    route
}

#[tokio::test]
async fn the_next_attempt_goes_where_the_route_points_now_with_what_was_remembered() {
    for accepts in [false, true] {
        for mut world in every(&effects(Effects::Keyed)) {
            let keyed = route(PAY, &effects(Effects::Keyed));
            world.set_routes(routes([with_credentials(keyed, "Bearer old", "pay")]));
            world.upstream.script([answer(503, "")]);
            let call = if accepts { accepted("k") } else { post("k") };
            let calling = world.begin(call);
            world.stands("k", "pending").await;
            // The route moves, and says now that a second arrival would be a second effect.
            let moved = route(PAY, &effects(Effects::NonIdempotent));
            world.set_routes(routes([with_credentials(moved, "Bearer new", "new-pay")]));
            world.upstream.script_for("new-pay", [answer(503, ""), answer(201, "made")]);
            world.let_retry("k").await;
            world.until_dispatched(2).await;
            world.let_retry("k").await;
            let done = world.stands("k", "done").await;
            assert_eq!(done.effects, Effects::Keyed, "frozen when remembered");
            let _ = calling.result().await;
            let seen = world.upstream.seen();
            let sent: Vec<_> =
                seen.iter().map(|one| (one.host.as_str(), one.header("authorization"))).collect();
            let new = ("new-pay.test", "Bearer new");
            assert_eq!(sent, [("pay.test", "Bearer old"), new, new]);
            assert!(seen.iter().all(|one| one.key() == "k" && one.body == seen[0].body));
        }
    }
}

#[tokio::test]
async fn work_of_a_route_that_is_gone_waits_and_goes_on_when_it_is_back() {
    for mut world in every(&effects(Effects::NonIdempotent)) {
        let here = routes([route(PAY, &effects(Effects::NonIdempotent))]);
        world.upstream.script([answer(429, "")]);
        taken(world.call(accepted("k")).await);
        let waiting = world.stands("k", "pending").await;
        world.set_routes(routes([route("mail", &Policy::default())]));
        world.let_retry_at(&waiting);
        let mut elsewhere = accepted("other");
        elsewhere.route = "mail".into();
        let other = taken(world.call(elsewhere).await);
        let is_done = async || {
            let found = world.engine().store().find(Which::Id(other.id)).await.unwrap();
            found.is_some_and(|found| found.state == State::Done)
        };
        world.until("work of other routes goes on", is_done).await;
        let refusal = world.refused(post("new")).await;
        assert!(matches!(refusal, Refusal::RouteUnknown(_)), "{refusal:?}");
        assert_eq!(world.operation("k").await, waiting);
        world.restart().await;
        assert_eq!(world.operation("k").await, waiting);
        // No time passes: it goes on at once.
        world.set_routes(here);
        let done = world.stands("k", "done").await;
        assert_eq!((done.id, done.attempts.len()), (waiting.id, 2));
    }
}

/// Every file below `folder`.
#[tokio::test]
async fn no_credential_is_in_any_file_of_the_ledger() {
    let policy = Policy { seal_headers: vec!["x-token".to_owned()], ..effects(Effects::Keyed) };
    let mut world = World::on_disk_as_it_is(routes([route(PAY, &policy)]));
    let ours = with_credentials(route(PAY, &policy), "Bearer canary-ours", "pay");
    world.set_routes(routes([ours]));
    world.upstream.script([
        answer(503, "canary-excerpt").header("set-cookie", "canary-set-cookie"),
        answer(401, "canary-excerpt"),
        answer(503, "canary-excerpt"),
    ]);
    let call = |name: &str| {
        let mut call = accepted("k");
        for header in ["cookie", "x-token", "authorization", "x-api-key"] {
            let value = format!("canary-{header}-{name}");
            call.request.headers.set(header, value);
        }
        call.request.headers.set("x-plain", Bytes::from_static(b"plain-as-day"));
        call
    };
    taken(world.call(call("first")).await);
    world.let_retry("k").await;
    world.stands("k", "dead").await;
    taken(world.call(call("second")).await);
    world.let_retry("k").await;
    world.stands("k", "done").await;
    let seen = world.upstream.seen();
    assert_eq!(seen[1].header("x-token"), "canary-x-token-first", "the retry had it");
    assert_eq!(seen[3].header("x-token"), "canary-x-token-second");
    assert!(seen.iter().all(|one| one.header("authorization") == "Bearer canary-ours"));
    for _ in 0..2 {
        assert_eq!(world.holders("canary").await, Vec::<String>::new());
        assert_ne!(world.holders("plain-as-day").await, Vec::<String>::new(), "it would be found");
        world.kill().await;
        world.begin_again().await;
    }
}

fn two_lanes(slots_max: usize) -> Vec<World> {
    let lane = |name: &str| {
        let mut lane = route(name, &effects(Effects::NonIdempotent));
        lane.protection.slots_max = slots_max;
        lane
    };
    every_with(&routes([lane(PAY), lane("mail")]))
}

fn to_mail(mut call: Call) -> Call {
    call.route = "mail".into();
    call
}

#[tokio::test]
async fn an_upstream_that_is_stuck_delays_nobody_elses_calls() {
    for world in two_lanes(2) {
        let gate = Gate::closed();
        world.upstream.script((0..6).map(|_| answer(201, "late").behind(&gate)));
        for n in 0..6 {
            taken(world.call(accepted(&format!("stuck-{n}"))).await);
        }
        world.until_dispatched(2).await;
        for n in 0..10 {
            world.answered(to_mail(post(&format!("held-{n}")))).await;
            taken(world.call(to_mail(accepted(&format!("accepted-{n}")))).await);
        }
        world.until_dispatched(22).await;
        let stuck = world.upstream.seen().iter().filter(|one| one.host == "pay.test").count();
        assert_eq!(stuck, 2, "no more at once than there are slots");
        gate.open();
        for n in 0..6 {
            world.stands(&format!("stuck-{n}"), "done").await;
        }
        assert_eq!(world.upstream.dispatched(), 26);
    }
}

#[tokio::test]
async fn with_all_slots_taken_a_held_call_waits_and_is_refused_without_a_record() {
    for world in two_lanes(1) {
        let gate = Gate::closed();
        world.upstream.script([answer(201, "late").behind(&gate)]);
        let first = world.begin(post("first"));
        world.until_dispatched(1).await;
        let second = world.begin(post("second"));
        let until = world.clock.now().plus(Duration::from_secs(10));
        world.until("the second waits", async || world.clock.is_awaited(until)).await;
        world.clock.advance_to(until);
        let refusal = refused(second.result().await);
        assert!(matches!(refusal, Refusal::Limit { .. }), "{refusal:?}");
        assert_eq!(world.find("second").await, None);
        assert_eq!(world.upstream.dispatched(), 1, "a refused call has sent nothing");
        // A duplicate needs no slot.
        let third = world.begin(post("first"));
        world.until("the third joined", async || world.notes.repeats(Repeat::Joined) == 1).await;
        gate.open();
        for call in [first, third] {
            assert_eq!(essence(&answered(call.result().await).response), (201, &b"late"[..]));
        }
        assert_eq!(world.answered(post("second")).await.response.status, 201);
    }
}

#[tokio::test]
async fn with_all_slots_taken_a_held_call_goes_on_once_one_is_free() {
    for world in two_lanes(1) {
        let gate = Gate::closed();
        world.upstream.script([answer(201, "first").behind(&gate), answer(201, "second")]);
        let first = world.begin(post("first"));
        world.until_dispatched(1).await;
        let second = world.begin(post("second"));
        let until = world.clock.now().plus(Duration::from_secs(10));
        world.until("the second waits", async || world.clock.is_awaited(until)).await;
        gate.open();
        assert_eq!(essence(&answered(first.result().await).response), (201, &b"first"[..]));
        assert_eq!(essence(&answered(second.result().await).response), (201, &b"second"[..]));
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_without_a_record() {
    for world in every(&effects(Effects::NonIdempotent)) {
        let mut call = with_header(post("k"), "content-type", "text/plain");
        call.request.body = vec![0; (1 << 20) + 1].into();
        let refusal = world.refused(call).await;
        assert!(matches!(refusal, Refusal::BodyTooLarge { .. }), "{refusal:?}");
        assert_eq!((world.find("k").await, world.upstream.dispatched()), (None, 0));
    }
}

#[tokio::test]
async fn what_is_under_way_ends_before_a_halted_engine_is_idle() {
    for world in every(&effects(Effects::NonIdempotent)) {
        let gate = Gate::closed();
        world.upstream.script([answer(201, "made").behind(&gate)]);
        let calling = world.begin(post("k"));
        world.until_dispatched(1).await;
        world.engine().halt();
        let refusal = world.refused(post("other")).await;
        assert!(matches!(refusal, Refusal::Draining), "{refusal:?}");
        gate.open();
        world.engine().idle().await;
        assert_eq!(world.operation("k").await.state, State::Done);
        assert_eq!(answered(calling.result().await).response.status, 201);
    }
}
