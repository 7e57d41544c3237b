//! What stands before an upstream: a breaker that holds and never discards, a rate, a budget, what
//! the upstream asked for, and a person's pause.

use std::time::Duration;

use onceward::core::breaker::BreakerRule;
use onceward::core::lease::BEAT;
use onceward::core::operation::{Death, State};
use onceward::core::policy::Effects;
use onceward::core::rate::{BudgetRule, Rate};
use onceward::route::{FlowLimits, Protection, Route};
use onceward::store::{Query, Standing as Waits};
use onceward::{Bar, NoteQuery, Refusal};
use onceward_proof::figures::Figures;

use crate::world::{
    Calling, Gate, PAY, World, accepted, answer, answered, effects, every_with, person, post,
    refused, route, routes, taken, unanswered, unsent,
};

fn protected(kind: Effects, change: impl Fn(&mut Protection)) -> Vec<World> {
    let mut pay: Route = route(PAY, &effects(kind));
    change(&mut pay.protection);
    every_with(&routes([pay]))
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn code(refusal: &Refusal) -> Option<Bar> {
    match refusal {
        Refusal::Barred { why, .. } => Some(*why),
        _ => None,
    }
}

/// Trips the breaker: nothing is there to connect to.
async fn trip(world: &World) {
    world.upstream.script((0..5).map(|_| unsent()));
    for n in 0..5 {
        let _ = world.call(post_once(&format!("trip-{n}"))).await;
    }
    let standing = world.engine().standing(PAY).unwrap();
    assert_eq!((standing.breaker, standing.bar), ("open", Some(Bar::BreakerOpen)));
}

/// A held call of one attempt.
fn post_once(key: &str) -> onceward::Call {
    let mut call = post(key);
    call.options.attempts_max = Some(1);
    call
}

#[tokio::test]
async fn an_open_breaker_refuses_who_waits_and_keeps_what_was_accepted() {
    for world in protected(Effects::Keyed, |_| {}) {
        trip(&world).await;
        let refusal = world.refused(post("held")).await;
        assert_eq!(code(&refusal), Some(Bar::BreakerOpen), "{refusal:?}");
        assert_eq!(world.find("held").await, None, "a refused call leaves no record");
        taken(world.call(accepted("kept")).await);
        assert_eq!(world.upstream.dispatched(), 5, "nothing is sent while it is open");
        let kept = world.operation("kept").await;
        assert_eq!((kept.attempts_made(), kept.state.name()), (0, "pending"));
        world.pass_time(seconds(40)).await;
        world.stands("kept", "done").await;
    }
}

#[tokio::test]
async fn a_duplicate_is_answered_whatever_the_breaker_says() {
    for world in protected(Effects::Keyed, |_| {}) {
        let first = world.answered(post("k")).await;
        trip(&world).await;
        let again = world.answered(post("k")).await;
        assert!(again.replayed);
        assert_eq!(again.response, first.response);
    }
}

#[tokio::test]
async fn an_upstream_that_is_down_for_long_costs_no_more_than_its_probes() {
    for world in protected(Effects::Keyed, |_| {}) {
        world.upstream.script((0..1000).map(|_| unsent()));
        for n in 0..100 {
            taken(world.call(accepted(&format!("down-{n}"))).await);
        }
        world.until("it is open", async || is_open(&world)).await;
        world.engine().idle().await;
        let before = world.upstream.dispatched();
        let until = world.clock.now().plus(seconds(3600));
        let mut times = 0;
        while world.clock.now() < until {
            let sent = world.upstream.dispatched();
            let opens = world.engine().standing(PAY).unwrap().until.unwrap();
            world.clock.advance_to(opens);
            world
                .until("it was probed", async || {
                    world.upstream.dispatched() > sent && is_open(&world)
                })
                .await;
            times += 1;
        }
        // 30 s, 60, 120, 240 and then 300 each, give or take a fifth.
        assert!((12..=20).contains(&times), "probed {times} times in an hour");
        let attempts = world.upstream.dispatched() - before;
        let mut figures = Figures::of("down", 0);
        figures.count("waiting", 100);
        figures.count("minutes_down", 60);
        figures.count("times_probed", times);
        figures.count("attempts", attempts);
        let is_exceeded = attempts > 3 * times;
        figures.tell(usize::from(is_exceeded));
        assert!(!is_exceeded, "no more than its probes");
    }
}

fn is_open(world: &World) -> bool {
    let standing = world.engine().standing(PAY).unwrap();
    standing.breaker == "open" && standing.until.is_some()
}

fn is_closed(world: &World) -> bool {
    world.engine().standing(PAY).unwrap().breaker == "closed"
}

/// Lets time pass in small steps until `done`, each where somebody waits for no more than `within`
/// and after a look at `holds`.
async fn step_until(world: &World, within: Duration, holds: impl Fn(), done: impl Fn() -> bool) {
    world
        .until("time brings it", async || {
            holds();
            if !done() && world.clock.is_anyone_asleep_for(Duration::ZERO..within) {
                world.clock.advance(Duration::from_millis(50));
            }
            done()
        })
        .await;
}

#[tokio::test]
async fn a_probe_is_never_something_that_could_be_doubled() {
    for world in protected(Effects::NonIdempotent, |_| {}) {
        trip(&world).await;
        taken(world.call(accepted("kept")).await);
        world.upstream.script([answer(200, ""), answer(200, ""), answer(200, "")]);
        world.pass_time(seconds(40)).await;
        world.stands("kept", "done").await;
        let seen = world.upstream.seen();
        let methods: Vec<_> = seen[5..].iter().map(|one| one.method.as_str()).collect();
        assert_eq!(methods, ["HEAD", "HEAD", "HEAD", "POST"]);
    }
}

#[tokio::test]
async fn a_probe_asks_for_what_the_route_names() {
    for world in protected(Effects::NonIdempotent, |it| it.health = Some("/healthz".into())) {
        trip(&world).await;
        world.pass_time(seconds(40)).await;
        let refusal = world.refused(post("held")).await;
        assert_eq!(code(&refusal), Some(Bar::BreakerOpen));
        world.until_dispatched(8).await;
        let seen = world.upstream.seen();
        assert!(seen[5..].iter().all(|one| one.method == "GET" && one.target == "/healthz"));
        world.until("it is closed", async || is_closed(&world)).await;
        assert_eq!(world.answered(post("held")).await.response.status, 201);
    }
}

#[tokio::test]
async fn an_open_breaker_that_a_person_has_asked_closes_at_once_where_its_upstream_was_mended() {
    for world in protected(Effects::NonIdempotent, |_| {}) {
        trip(&world).await;
        taken(world.call(accepted("kept")).await);
        world.upstream.script([answer(200, ""), answer(404, ""), answer(200, "")]);
        world.engine().probe_now(PAY, &person()).await.unwrap();
        let standing = world.engine().standing(PAY).unwrap();
        assert_eq!((standing.breaker, standing.probed.unwrap().status), ("closed", Some(200)));
        world.stands("kept", "done").await;
        let seen = world.upstream.seen();
        let methods: Vec<_> = seen[5..].iter().map(|one| one.method.as_str()).collect();
        assert_eq!(methods, ["HEAD", "HEAD", "HEAD", "POST"], "no time has passed");
        let query = NoteQuery { limit: 9, ..NoteQuery::default() };
        let notes = world.engine().notes(&query).await.unwrap().notes;
        assert_eq!((&*notes[0].deed, &*notes[0].about), ("probed", PAY));
        world.engine().probe_now(PAY, &person()).await.unwrap();
        assert_eq!(world.upstream.dispatched(), 9, "where it is closed there is nothing to ask");
    }
}

#[tokio::test]
async fn one_whose_upstream_is_still_away_stays_open_as_long_as_it_would_have() {
    for world in protected(Effects::Keyed, |_| {}) {
        trip(&world).await;
        let before = world.engine().standing(PAY).unwrap().until;
        for sent in 6..9 {
            world.upstream.script([unsent()]);
            world.engine().probe_now(PAY, &person()).await.unwrap();
            let standing = world.engine().standing(PAY).unwrap();
            assert_eq!((standing.breaker, standing.until), ("open", before));
            assert!(standing.probed.unwrap().error.is_some());
            assert_eq!(world.upstream.dispatched(), sent, "one probe, and it decides");
        }
        world.engine().pause(PAY, &person()).await.unwrap();
        world.engine().probe_now(PAY, &person()).await.unwrap();
        assert_eq!(world.upstream.dispatched(), 8, "a pause holds it all the same");
    }
}

#[tokio::test]
async fn what_a_person_asks_at_one_node_the_others_ask_with_their_next_beat() {
    for mut world in protected(Effects::NonIdempotent, |_| {}) {
        let (Some(_), Some(other)) = (world.postgres(), world.node_apart().await) else { continue };
        trip(&world).await;
        world.until_it_has_beaten().await;
        other.probe_now(PAY, &person()).await.unwrap();
        assert_eq!(world.upstream.dispatched(), 5, "its own breaker is closed");
        world.upstream.script([answer(200, ""), answer(200, ""), answer(200, "")]);
        world.clock.advance(BEAT);
        world.until("it is closed", async || is_closed(&world)).await;
        world.restart().await;
        trip(&world).await;
        world.until_it_has_beaten().await;
        world.clock.advance(BEAT);
        world.until_it_has_beaten().await;
        assert!(is_open(&world), "whoever begins heeds nothing that was asked for before");
    }
}

#[tokio::test]
async fn a_backlog_is_let_go_slowly_once_the_upstream_answers_again() {
    for world in protected(Effects::Keyed, |it| {
        it.breaker = Some(BreakerRule { probes: 1, ..BreakerRule::default() });
    }) {
        trip(&world).await;
        for n in 0..40 {
            taken(world.call(accepted(&format!("k{n}"))).await);
        }
        world.clock.advance_to(world.engine().standing(PAY).unwrap().until.unwrap());
        world.until("it is closed", async || is_closed(&world)).await;
        // After the probe one goes at once, and the next in a second.
        world.until_dispatched(7).await;
        let query = Query { standing: vec![Waits::Pending], limit: 100, ..Query::default() };
        let waiting = world.engine().store().list(query).await.unwrap().operations.len();
        assert_eq!(waiting, 38, "all but two wait still");
        step_until(&world, seconds(2), || {}, || world.upstream.dispatched() == 45).await;
        for n in 0..40 {
            world.stands(&format!("k{n}"), "done").await;
        }
    }
}

#[tokio::test]
async fn what_an_upstream_asks_for_holds_for_all_of_its_work() {
    for world in protected(Effects::Keyed, |_| {}) {
        world.upstream.script([answer(429, "slow down").header("retry-after", "20")]);
        let first = world.begin(post_once("first"));
        assert_eq!(answered(first.result().await).response.status, 429);
        let refusal = world.refused(post("held")).await;
        assert_eq!(code(&refusal), Some(Bar::UpstreamAsked), "{refusal:?}");
        taken(world.call(accepted("kept")).await);
        world.clock.advance(seconds(19));
        assert!(world.upstream.dispatched() <= 1, "never earlier than it asked");
        world.clock.advance(seconds(2));
        world.stands("kept", "done").await;
    }
}

#[tokio::test]
async fn a_held_call_waits_out_a_short_hold() {
    for world in protected(Effects::Keyed, |_| {}) {
        world.upstream.script([answer(503, "busy").header("retry-after", "3")]);
        let first = world.begin(post_once("first"));
        assert_eq!(answered(first.result().await).response.status, 503);
        let second = world.begin(post("second"));
        let until = world.clock.now().plus(seconds(3));
        world.until("it waits", async || world.clock.is_awaited(until)).await;
        world.clock.advance(seconds(3));
        assert_eq!(answered(second.result().await).response.status, 201);
    }
}

#[tokio::test]
async fn a_rate_is_kept_by_held_and_accepted_calls_together() {
    let rate = Rate { interval: Duration::from_millis(500), burst: 2 };
    for world in protected(Effects::Keyed, |it| it.rate = Some(rate)) {
        let began = world.clock.now();
        for n in 0..10 {
            taken(world.call(accepted(&format!("a{n}"))).await);
        }
        world.until_dispatched(2).await;
        let held = world.begin(post("held"));
        let holds = || {
            let halves = world.clock.now().since(began).as_millis() / 500;
            let went = world.upstream.dispatched() as u128;
            assert!(went <= 2 + halves, "{went} after {halves} half seconds");
        };
        step_until(&world, Duration::from_millis(600), holds, || world.upstream.dispatched() == 11)
            .await;
        assert_eq!(answered(held.result().await).response.status, 201);
    }
}

#[tokio::test]
async fn a_duplicate_takes_nothing_of_the_rate() {
    let rate = Rate { interval: seconds(60), burst: 1 };
    for world in protected(Effects::Keyed, |it| it.rate = Some(rate)) {
        world.answered(post("k")).await;
        for _ in 0..5 {
            assert!(world.answered(post("k")).await.replayed);
        }
        let refusal = world.refused(post("other")).await;
        assert!(matches!(refusal, Refusal::Limit { .. }), "{refusal:?}");
        world.pass_time(seconds(60)).await;
        assert_eq!(world.answered(post("other")).await.response.status, 201);
    }
}

#[tokio::test]
async fn retries_for_callers_stop_when_their_budget_is_spent() {
    let budget = BudgetRule { share: 0.2, per_second: 0.0 };
    for world in protected(Effects::Keyed, |it| (it.budget, it.breaker) = (Some(budget), None)) {
        world.upstream.script((0..100).map(|_| answer(503, "no")));
        let calls: Vec<_> = (0..20).map(|n| world.begin(post(&format!("k{n}")))).collect();
        let done = || calls.iter().all(Calling::is_answered);
        world.until_dispatched(20).await;
        step_until(&world, Duration::from_millis(600), || {}, done).await;
        for call in calls {
            assert_eq!(answered(call.result().await).response.status, 503);
        }
        let retries = world.upstream.dispatched() - 20;
        assert!((1..=2 + 4).contains(&retries), "{retries} retries of 20 calls");
        let one = world.operation("k0").await;
        assert_eq!((one.state, one.told), (State::Dead(Death::Exhausted), true));
    }
}

#[tokio::test]
async fn a_paused_route_keeps_what_it_accepts_until_it_is_resumed() {
    for mut world in protected(Effects::NonIdempotent, |_| {}) {
        let person = person();
        let pause = world.engine().pause(PAY, &person).await.unwrap();
        assert_eq!((pause.who, pause.reason), (person.who.clone(), person.reason.clone()));
        assert_eq!(code(&world.refused(post("held")).await), Some(Bar::Paused));
        taken(world.call(accepted("kept")).await);
        world.kill().await;
        world.begin_again().await;
        let dispatcher = || world.clock.is_anyone_asleep_for(seconds(29)..seconds(31));
        world.until("the dispatcher has looked", async || dispatcher()).await;
        world.clock.advance(seconds(31));
        world.until("and again", async || dispatcher()).await;
        assert_eq!(world.upstream.dispatched(), 0, "a pause outlives the process");
        let is_paused = world.engine().paused().contains_key(PAY);
        assert!(is_paused, "a pause outlives the process");
        world.engine().resume(PAY, &person).await.unwrap();
        world.stands("kept", "done").await;
        assert_eq!(world.answered(post("held")).await.response.status, 201);
    }
}

#[tokio::test]
async fn one_who_floods_leaves_room_for_another() {
    for world in protected(Effects::Keyed, |it| it.slots_max = 8) {
        let gate = Gate::closed();
        let of = |tenant: &str, key: String| {
            let mut call = post(&key);
            call.tenant = tenant.to_owned();
            call
        };
        // The other has been here before, so its room is kept.
        assert_eq!(answered(world.call(of("small", "first".into())).await).response.status, 201);
        world.upstream.script((0..6).map(|_| answer(200, "late").behind(&gate)));
        let flood: Vec<_> = (0..20).map(|n| world.begin(of("flood", format!("f{n}")))).collect();
        world.until_dispatched(7).await;
        for n in 0..5 {
            let done = world.call(of("small", format!("s{n}"))).await;
            assert_eq!(answered(done).response.status, 201, "while {} wait", flood.len());
        }
        assert_eq!(world.upstream.dispatched(), 12, "one, six of the flood, and five");
        gate.open();
        for call in flood {
            assert!((200..=201).contains(&answered(call.result().await).response.status));
        }
    }
}

#[tokio::test]
async fn more_than_the_backlog_may_have_is_not_taken() {
    for world in protected(Effects::Keyed, |it| it.backlog_max = Some(3)) {
        world.engine().pause(PAY, &person()).await.unwrap();
        for n in 0..3 {
            taken(world.call(accepted(&format!("k{n}"))).await);
        }
        let refusal = refused(world.call(accepted("k3")).await);
        assert!(matches!(refusal, Refusal::Limit { .. }), "{refusal:?}");
        assert_eq!(world.find("k3").await, None);
        taken(world.call(accepted("k0")).await);
        world.engine().resume(PAY, &person()).await.unwrap();
        for n in 0..3 {
            world.pass_time(seconds(5)).await;
            world.stands(&format!("k{n}"), "done").await;
        }
        taken(world.call(accepted("k3")).await);
    }
}

#[tokio::test]
async fn an_answer_that_never_comes_trips_the_breaker_of_its_own_route_alone() {
    let sick = route(PAY, &effects(Effects::NonIdempotent));
    let well = route("mail", &effects(Effects::NonIdempotent));
    for world in every_with(&routes([sick, well])) {
        world.upstream.script_for(PAY, (0..20).map(|_| unanswered()));
        for n in 0..20 {
            let _ = world.call(post(&format!("k{n}"))).await;
        }
        assert!(is_open(&world));
        let mut call = post("well");
        call.route = "mail".into();
        assert_eq!(world.answered(call).await.response.status, 201);
    }
}

/// A held call of a flow.
fn of_flow(flow: &str, key: &str) -> onceward::Call {
    let mut call = post(key);
    call.options.flow = Some(flow.to_owned());
    call
}

#[tokio::test]
async fn a_flow_has_no_more_under_way_than_its_share_and_keeps_nobody_elses_from_going() {
    let limits = FlowLimits { slots_max: Some(2), rate: None };
    for world in protected(Effects::Keyed, |it| it.flow = limits) {
        let gate = Gate::closed();
        world.upstream.script((0..2).map(|_| answer(200, "late").behind(&gate)));
        let kept: Vec<_> = (0..6)
            .map(|n| {
                let mut call = of_flow("big", &format!("b{n}"));
                call.options.respond_async = true;
                world.begin(call)
            })
            .collect();
        world.until_dispatched(2).await;
        for n in 0..3 {
            let done = world.call(of_flow("small", &format!("s{n}"))).await;
            assert_eq!(answered(done).response.status, 201);
        }
        let keys: Vec<String> =
            world.upstream.seen().iter().map(|seen| seen.key()[..1].to_owned()).collect();
        assert_eq!(keys, ["b", "b", "s", "s", "s"]);
        gate.open();
        for (n, call) in kept.into_iter().enumerate() {
            taken(call.result().await);
            world.stands(&format!("b{n}"), "done").await;
        }
    }
}

#[tokio::test]
async fn the_rate_of_a_flow_is_its_own() {
    let rate = Rate { interval: seconds(30), burst: 1 };
    let limits = FlowLimits { slots_max: None, rate: Some(rate) };
    for world in protected(Effects::Keyed, |it| it.flow = limits) {
        for flow in ["a", "b"] {
            let done = world.call(of_flow(flow, &format!("{flow}1"))).await;
            assert_eq!(answered(done).response.status, 201);
        }
        let refusal = world.refused(of_flow("a", "a2")).await;
        assert!(matches!(refusal, Refusal::Limit { .. }), "{refusal:?}");
        assert_eq!(world.answered(post("nobody")).await.response.status, 201);
        let mut later = of_flow("a", "a3");
        later.options.respond_async = true;
        taken(world.call(later).await);
        assert_eq!(world.upstream.dispatched(), 3);
        world.pass_time(seconds(30)).await;
        world.stands("a3", "done").await;
    }
}

#[tokio::test]
async fn a_recovery_with_a_large_backlog_never_exceeds_the_rate_of_its_route() {
    let (count, per_second, burst) = (500, 50, 5);
    let rate = Rate { interval: Duration::from_secs(1) / per_second, burst };
    let mut pay = route(PAY, &effects(Effects::Keyed));
    pay.protection.rate = Some(rate);
    // Who looks through all that waits each time is no measure here.
    let world = World::on_disk(routes([pay]));
    trip(&world).await;
    for n in 0..count {
        taken(world.call(accepted(&format!("k{n}"))).await);
    }
    let opens = world.engine().standing(PAY).unwrap().until.unwrap();
    assert_eq!(world.upstream.dispatched(), 5, "nothing is sent while it is open");
    world.clock.advance_to(opens);
    let done = || world.upstream.dispatched() == 5 + count;
    step_until(&world, seconds(2), || {}, done).await;
    let mut started = Vec::new();
    for n in 0..count {
        let operation = world.operation(&format!("k{n}")).await;
        started.extend(operation.attempts.iter().map(|attempt| attempt.started_at));
    }
    started.sort_unstable();
    assert_eq!(started.len(), count, "each is sent once");
    let most = started
        .iter()
        .enumerate()
        .map(|(n, from)| started[n..].partition_point(|at| at.since(*from) < seconds(1)))
        .max()
        .unwrap_or_default();
    assert!(most <= (per_second + burst) as usize, "{most} within a second");
}

#[tokio::test]
async fn a_rate_is_shared_by_all_nodes_of_a_ledger() {
    let rate = Rate { interval: Duration::from_millis(100), burst: 2 };
    for world in protected(Effects::Keyed, |it| it.rate = Some(rate)) {
        if !world.engine().store().is_shared() {
            continue;
        }
        let neighbour = world.neighbour();
        neighbour.recover().await.unwrap();
        // As it does with each beat.
        world.engine().recover().await.unwrap();
        let first = world.answered(post("first")).await;
        assert_eq!(first.response.status, 201);
        // A tenth of a second later it is not this node's turn yet, but the neighbour's.
        world.clock.advance(Duration::from_millis(100));
        let next = world.begin(post("next"));
        let until = world.clock.now().plus(Duration::from_millis(100));
        world.until("it waits its turn", async || world.clock.is_awaited(until)).await;
        world.clock.advance(Duration::from_millis(100));
        assert_eq!(answered(next.result().await).response.status, 201);
    }
}
