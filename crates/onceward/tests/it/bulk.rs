//! Bulk: counted first, then done at a rate; stopped, killed and taken over, and nothing done twice.

use std::time::Duration;

use onceward::core::id::OperationId;
use onceward::core::operation::{Death, Deed, Forgotten};
use onceward::core::policy::{Backoff, Effects, Policy};
use onceward::core::risk::Risk;
use onceward::store::{Query, Standing};
use onceward::{BulkDeed, BulkOrder, BulkStanding, NoteQuery, Person};

use crate::world::{
    World, accepted, answer, answered, effects, every, person, post, taken, unanswered,
};

const SECOND: Duration = Duration::from_secs(1);

/// One attempt for what nobody waits for.
fn once(kind: Effects) -> Policy {
    let mut policy = effects(kind);
    policy.accepted = Backoff { attempts_max: 1, ..Backoff::accepted() };
    policy
}

fn order(deed: BulkDeed, rate: u32) -> BulkOrder {
    let filter = Query { route: Some("pay".into()), ..Query::default() };
    BulkOrder { deed, filter, selected: Vec::new(), taken: Vec::new(), rate, person: person() }
}

/// `count` dead letters, called `d-0` and on.
async fn bury(world: &World, count: usize) {
    world.upstream.script((0..count).map(|_| answer(404, "no")));
    for n in 0..count {
        taken(world.call(accepted(&format!("d-{n}"))).await);
    }
    for n in 0..count {
        world.stands(&format!("d-{n}"), "dead").await;
    }
}

/// Lets time pass, second by second, until the bulk has ended.
async fn until_ended(world: &World, name: &str) -> onceward::Bulk {
    world
        .until("the bulk has ended", async || {
            let bulk = world.engine().bulk(name).await.unwrap().unwrap();
            if bulk.standing == BulkStanding::Running {
                world.clock.advance(SECOND / 4);
            }
            bulk.standing != BulkStanding::Running
        })
        .await;
    world.engine().bulk(name).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_plan_counts_by_route_and_risk_and_does_nothing() {
    for world in every(&once(Effects::NonIdempotent)) {
        bury(&world, 3).await;
        world.upstream.script([unanswered()]);
        let _ = world.call(post("doubt")).await;
        answered(world.call(post("done")).await);
        let plan = world.engine().plan_bulk(&order(BulkDeed::Redeliver, 10)).await.unwrap();
        assert_eq!((plan.matched, plan.left_out, plan.is_exact), (4, 1, true));
        assert_eq!(plan.by_risk, [(Risk::Safe, 3), (Risk::Unknown, 1)].into());
        assert_eq!(plan.by_route, [("pay".to_owned(), 4)].into());
        let forget = order(BulkDeed::Forget(Forgotten::Refuse), 10);
        assert_eq!(world.engine().plan_bulk(&forget).await.unwrap().matched, 4);
        assert_eq!(world.upstream.dispatched(), 5);
        assert!(world.engine().bulks().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn all_that_match_are_redelivered_once_and_the_risky_ones_are_left_out() {
    for world in every(&once(Effects::NonIdempotent)) {
        bury(&world, 5).await;
        world.upstream.script([unanswered()]);
        let _ = world.call(post("doubt")).await;
        // Some of them die again: the bulk does not come back for them.
        world.upstream.script([answer(404, "still no"), answer(404, "still no")]);
        let begun = world.engine().begin_bulk(order(BulkDeed::Redeliver, 100)).await.unwrap();
        assert_eq!((begun.matched, begun.standing), (6, BulkStanding::Running));
        let ended = until_ended(&world, &begun.name()).await;
        assert_eq!((ended.done, ended.failed, ended.left_out), (5, 0, 1));
        assert_eq!(ended.standing, BulkStanding::Done);
        world.until_dispatched(11).await;
        for n in 0..5 {
            let key = format!("d-{n}");
            world
                .until("it has ended again", async || world.operation(&key).await.state.is_ended())
                .await;
            let acts = world.operation(&key).await.acts;
            assert_eq!((acts.len(), acts[0].deed), (1, Deed::Redelivered));
            assert!(acts[0].reason.contains(&begun.name()), "{:?}", acts[0]);
        }
        assert_eq!(world.operation("doubt").await.state.name(), "in_doubt");
        assert_eq!(world.upstream.dispatched(), 11);
    }
}

#[tokio::test]
async fn a_risk_that_is_taken_is_taken_for_all() {
    for world in every(&once(Effects::NonIdempotent)) {
        world.upstream.script([unanswered()]);
        let _ = world.call(post("doubt")).await;
        let taken = BulkOrder { taken: vec![Risk::Unknown], ..order(BulkDeed::Redeliver, 10) };
        let begun = world.engine().begin_bulk(taken).await.unwrap();
        let ended = until_ended(&world, &begun.name()).await;
        assert_eq!((ended.done, ended.left_out), (1, 0));
        world.stands("doubt", "done").await;
    }
}

#[tokio::test]
async fn a_bulk_that_wants_two_persons_says_so_and_the_same_one_by_another_does_it() {
    for world in every(&once(Effects::NonIdempotent)) {
        bury(&world, 3).await;
        world.engine().set_approved(vec![Deed::Redelivered]);
        let mut ended = Vec::new();
        for who in ["anna", "anna", "bo"] {
            let person = Person { who: who.to_owned(), reason: format!("{who} says so") };
            let order = BulkOrder { person, ..order(BulkDeed::Redeliver, 100) };
            let begun = world.engine().begin_bulk(order).await.unwrap();
            ended.push(until_ended(&world, &begun.name()).await);
        }
        for waiting in &ended[..2] {
            assert_eq!((waiting.done, waiting.failed, waiting.left_out), (0, 3, 0));
            let trouble = waiting.trouble.as_deref().unwrap();
            assert!(trouble.contains("it waits for a second person (redelivered)"), "{trouble}");
        }
        assert_eq!((ended[2].done, ended[2].failed), (3, 0));
        for n in 0..3 {
            let sent = world.stands(&format!("d-{n}"), "done").await;
            assert!(sent.acts[0].reason.contains("asked for by anna"), "{:?}", sent.acts);
        }
        assert!(world.engine().wanted().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn no_more_are_done_in_a_time_than_the_rate_allows() {
    for world in every(&once(Effects::NonIdempotent)) {
        bury(&world, 6).await;
        let begun = world.engine().begin_bulk(order(BulkDeed::Redeliver, 1)).await.unwrap();
        for acted in 1..=6 {
            world.until_dispatched(6 + acted).await;
            // The next may not come before a second has passed, however long is waited.
            world
                .until("the bulk sleeps", async || {
                    acted == 6 || world.clock.is_anyone_asleep_for(SECOND / 2..SECOND * 2)
                })
                .await;
            assert_eq!(world.upstream.dispatched(), 6 + acted);
            world.clock.advance(SECOND);
        }
        assert_eq!(until_ended(&world, &begun.name()).await.done, 6);
    }
}

#[tokio::test]
async fn a_bulk_that_is_stopped_does_nothing_more() {
    for world in every(&once(Effects::NonIdempotent)) {
        bury(&world, 9).await;
        let begun = world.engine().begin_bulk(order(BulkDeed::Redeliver, 1)).await.unwrap();
        world.until_dispatched(10).await;
        world.engine().stop_bulk(&begun.name(), &person()).await.unwrap();
        let ended = until_ended(&world, &begun.name()).await;
        assert_eq!(ended.standing, BulkStanding::Stopped);
        assert!(ended.done < 9, "{ended:?}");
        let dead = Query { standing: vec![Standing::DeadLetter], limit: 9, ..Query::default() };
        let left = world.engine().store().list(dead).await.unwrap().operations.len() as u64;
        assert_eq!(left + ended.done, 9);
    }
}

#[tokio::test]
async fn a_bulk_outlives_its_process_and_does_nothing_twice() {
    for mut world in every(&once(Effects::NonIdempotent)) {
        bury(&world, 8).await;
        // Whatever is sent again dies again, so that a second act would be seen.
        world.upstream.script((0..99).map(|_| answer(404, "still no")));
        let begun = world.engine().begin_bulk(order(BulkDeed::Redeliver, 2)).await.unwrap();
        world.until_dispatched(9).await;
        world.clock.advance(SECOND / 2);
        world.until_dispatched(10).await;
        world.restart().await;
        let ended = until_ended(&world, &begun.name()).await;
        assert_eq!((ended.standing, ended.done, ended.failed), (BulkStanding::Done, 8, 0));
        for n in 0..8 {
            let acts = world.operation(&format!("d-{n}")).await.acts;
            assert_eq!(acts.len(), 1, "d-{n}: {acts:?}");
        }
    }
}

#[tokio::test]
async fn whoever_takes_a_bulk_over_keeps_to_all_of_its_filter() {
    for mut world in every(&once(Effects::NonIdempotent)) {
        bury(&world, 2).await;
        world.upstream.script((0..99).map(|_| answer(404, "no")));
        for n in 0..4 {
            let mut about = accepted(&format!("s-{n}"));
            about.options.subject = Some("anna".into());
            taken(world.call(about).await);
            world.stands(&format!("s-{n}"), "dead").await;
        }
        let mut order = order(BulkDeed::Redeliver, 1);
        order.filter.subject = Some("anna".into());
        let begun = world.engine().begin_bulk(order).await.unwrap();
        world.restart().await;
        let ended = until_ended(&world, &begun.name()).await;
        assert_eq!((ended.standing, ended.matched, ended.done), (BulkStanding::Done, 4, 4));
        for n in 0..2 {
            assert!(
                world.operation(&format!("d-{n}")).await.acts.is_empty(),
                "it is about nothing"
            );
        }
    }
}

#[tokio::test]
async fn what_was_selected_is_acted_on_though_it_is_newer_than_the_bulk_by_anothers_clock() {
    for world in every(&once(Effects::NonIdempotent)) {
        let Some(other) = world.node_apart().await else { continue };
        bury(&world, 3).await;
        let newest = world.operation("d-2").await.id;
        let order = BulkOrder { selected: vec![newest], ..order(BulkDeed::Redeliver, 100) };
        let begun = other.begin_bulk(order).await.unwrap();
        assert!(begun.id < newest, "no node learns of the ids of another");
        let ended = until_ended(&world, &begun.name()).await;
        assert_eq!((ended.matched, ended.done), (1, 1));
    }
}

#[tokio::test]
async fn what_was_selected_and_nothing_else_is_acted_on_by_whoever_has_the_bulk() {
    for mut world in every(&once(Effects::NonIdempotent)) {
        bury(&world, 6).await;
        answered(world.call(post("done")).await);
        world.upstream.script((0..99).map(|_| answer(404, "no")));
        let mut order = order(BulkDeed::Redeliver, 1);
        for key in ["d-1", "d-4", "d-2", "d-4", "done"] {
            order.selected.push(world.operation(key).await.id);
        }
        let nobodys = OperationId::new(order.selected[0].sequence() - 1, 7);
        order.selected.push(nobodys);
        let plan = world.engine().plan_bulk(&order).await.unwrap();
        assert_eq!((plan.matched, plan.is_exact), (3, true));
        let others = Query { route: Some("other".into()), ..Query::default() };
        let narrowed = BulkOrder { filter: others, ..order.clone() };
        assert_eq!(world.engine().plan_bulk(&narrowed).await.unwrap().matched, 0);

        let begun = world.engine().begin_bulk(order).await.unwrap();
        world.restart().await;
        let ended = until_ended(&world, &begun.name()).await;
        assert_eq!((ended.standing, ended.matched, ended.done), (BulkStanding::Done, 3, 3));
        for n in 0..6 {
            let acts = world.operation(&format!("d-{n}")).await.acts;
            assert_eq!(acts.len(), usize::from([1, 2, 4].contains(&n)), "d-{n}: {acts:?}");
        }
    }
}

#[tokio::test]
async fn a_bulk_by_cause_goes_on_after_a_restart_and_one_of_a_later_release_is_passed_over() {
    for mut world in every(&once(Effects::NonIdempotent)) {
        bury(&world, 3).await;
        world.upstream.script((0..99).map(|_| answer(404, "no")));
        let store = world.engine().store().clone();
        let plain = world.engine().begin_bulk(order(BulkDeed::Cancel, 10)).await.unwrap();
        until_ended(&world, &plain.name()).await;
        let (name, value) = store.settings("bulk/".to_owned()).await.unwrap().remove(0);
        // The first byte says what is done.
        let later = [&[99], &value[1..]].concat();
        store.set(name.replace("bulk/0", "bulk/f"), Some(later.into())).await.unwrap();
        drop(store);
        let mut order = order(BulkDeed::Redeliver, 1);
        order.filter.reason = Some(Death::Refused);
        let begun = world.engine().begin_bulk(order).await.unwrap();
        world.restart().await;
        let ended = until_ended(&world, &begun.name()).await;
        assert_eq!((ended.standing, ended.done), (BulkStanding::Done, 3));
        let all = world.engine().bulks().await.unwrap();
        assert_eq!(all.iter().map(|bulk| bulk.id).collect::<Vec<_>>(), [begun.id, plain.id]);
    }
}

#[tokio::test]
async fn two_nodes_that_both_believe_to_have_a_bulk_do_nothing_twice() {
    for world in every(&once(Effects::NonIdempotent)) {
        bury(&world, 8).await;
        world.upstream.script((0..99).map(|_| answer(404, "still no")));
        let begun = world.engine().begin_bulk(order(BulkDeed::Redeliver, 2)).await.unwrap();
        // On a ledger of one node, whoever starts takes it that the one before is gone.
        world.neighbour().start();
        let ended = until_ended(&world, &begun.name()).await;
        assert_eq!(ended.standing, BulkStanding::Done);
        for n in 0..8 {
            let acts = world.operation(&format!("d-{n}")).await.acts;
            assert_eq!(acts.len(), 1, "d-{n}: {acts:?}");
        }
    }
}

#[tokio::test]
async fn pending_work_is_cancelled_and_keys_are_forgotten_in_bulk() {
    for world in every(&once(Effects::Idempotent)) {
        let far = world.clock.now().plus(Duration::from_hours(1));
        for n in 0..3 {
            let mut later = accepted(&format!("later-{n}"));
            later.options.not_before = Some(far);
            taken(world.call(later).await);
        }
        let begun = world.engine().begin_bulk(order(BulkDeed::Cancel, 100)).await.unwrap();
        assert_eq!(until_ended(&world, &begun.name()).await.done, 3);
        assert_eq!(world.operation("later-0").await.state.name(), "dead");
        let forget = order(BulkDeed::Forget(Forgotten::New), 100);
        let begun = world.engine().begin_bulk(forget).await.unwrap();
        assert_eq!(until_ended(&world, &begun.name()).await.done, 3);
        assert_eq!(world.operation("later-2").await.forgotten, Some(Forgotten::New));
        answered(world.call(post("later-2")).await);
    }
}

#[tokio::test]
async fn what_people_do_is_in_one_list_for_as_long_as_it_is_kept() {
    for world in every(&once(Effects::NonIdempotent)) {
        bury(&world, 2).await;
        let engine = world.engine();
        let id = world.operation("d-0").await.id;
        engine.redeliver(id, &person()).await.unwrap();
        world.stands("d-0", "done").await;
        assert!(engine.redeliver(id, &person()).await.is_err(), "what cannot be is not noted");
        engine.pause("pay", &person()).await.unwrap();
        engine.resume("pay", &person()).await.unwrap();
        let bea = Person { who: "bea".into(), reason: "all of them".into() };
        let bulk = BulkOrder { person: bea, ..order(BulkDeed::Redeliver, 100) };
        let begun = engine.begin_bulk(bulk).await.unwrap();
        until_ended(&world, &begun.name()).await;
        let all = |query: NoteQuery| async move {
            let found = engine.notes(&query).await.unwrap();
            let told: Vec<_> =
                found.notes.iter().map(|note| (note.deed.clone(), note.about.clone())).collect();
            (told, found.next)
        };
        let line = |deed: &str, about: String| (deed.to_owned(), about);
        let wanted = [
            line("began to redeliver in bulk", begun.name()),
            line("resumed", "pay".into()),
            line("paused", "pay".into()),
            line("redelivered", id.to_string()),
        ];
        assert_eq!(all(NoteQuery { limit: 9, ..NoteQuery::default() }).await.0, wanted);
        let (first, next) = all(NoteQuery { limit: 3, ..NoteQuery::default() }).await;
        assert_eq!(first, wanted[..3]);
        let rest = NoteQuery { limit: 3, before: next, ..NoteQuery::default() };
        assert_eq!(all(rest).await, (wanted[3..].to_vec(), None));
        let hers = NoteQuery { who: Some("bea".into()), limit: 9, ..NoteQuery::default() };
        assert_eq!(all(hers).await.0, wanted[..1]);
        let later = world.clock.now().plus(SECOND);
        let none = NoteQuery { since: Some(later), limit: 9, ..NoteQuery::default() };
        assert!(all(none).await.0.is_empty());
        world.pass_time(Duration::from_hours(24 * 401)).await;
        world
            .until("they are forgotten", async || {
                let left = NoteQuery { limit: 9, ..NoteQuery::default() };
                world.engine().notes(&left).await.unwrap().notes.is_empty()
            })
            .await;
    }
}
