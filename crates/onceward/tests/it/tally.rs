//! Statistics in the ledger: what calls came to, on every store, whoever counted it and whoever died.

use std::time::Duration;

use onceward::Engine;
use onceward::core::policy::{Backoff, Effects, Policy};
use onceward::store::{Store, Way};
use onceward::tally::{Counts, Span};

use crate::postgres;
use crate::world::{World, accepted, answer, effects, every, post, taken, unanswered, unsent};

/// Of the tenant of all calls here.
async fn total(engine: &Engine, span: Span) -> Counts {
    engine.stats(Some("t"), span).await.unwrap().total
}

/// Of the last hour, once what came to rest is counted, which may be after its answer.
async fn counted(world: &World, is_all: impl Fn(&Counts) -> bool) -> Counts {
    world.until("it is counted", async || is_all(&total(world.engine(), Span::Hour).await)).await;
    total(world.engine(), Span::Hour).await
}

async fn names(store: &dyn Store) -> Vec<String> {
    let all = store.settings_from("tally/".to_owned(), None, Way::Up, 1000).await.unwrap();
    all.into_iter().map(|(name, _)| name).collect()
}

#[tokio::test]
async fn what_calls_came_to_is_told_of_each_route_and_over_each_span() {
    let once = Backoff { attempts_max: 2, ..Backoff::accepted() };
    let policy = Policy { accepted: once, ..effects(Effects::NonIdempotent) };
    for world in every(&policy) {
        world.answered(post("k")).await;
        world.answered(post("k")).await;
        let mut other = post("k");
        other.request.target = "/elsewhere".into();
        world.refused(other).await;
        world.upstream.script([unanswered()]);
        world.refused(post("doubt")).await;
        world.refused(post("doubt")).await;
        world.upstream.script([answer(429, ""), answer(201, "made"), unsent(), unsent()]);
        for (key, state) in [("again", "done"), ("never", "dead")] {
            taken(world.call(accepted(key)).await);
            world.let_retry(key).await;
            world.stands(key, state).await;
        }
        let counts = counted(&world, |counts| counts.dead_letters == 1).await;
        assert_eq!(counts.operations, 4);
        assert_eq!(counts.duplicates, [1, 0, 1, 1, 0, 0]);
        assert_eq!((counts.blocked(), counts.repeated()), (2, 3));
        assert_eq!((counts.done, counts.recovered, counts.told), (2, 1, 0));
        assert_eq!((counts.dead_letters, counts.in_doubt), (1, 1));
        assert_eq!(counts.attempts, [3, 0, 2, 1], "answered, unsent, unanswered");
        assert_eq!((counts.failed, counts.statuses), (4, [0, 2, 0, 1, 0]));
        assert_eq!(counts.took.count(), 1, "of held ones that ended");
        assert_eq!(counts.attempt_took.count(), 6);
        for span in Span::ALL {
            let stats = world.engine().stats(Some("t"), span).await.unwrap();
            assert_eq!(stats.total, counts);
            assert_eq!(stats.routes, [("pay".to_owned(), counts.clone())]);
        }
        let all = world.engine().stats(None, Span::Day).await.unwrap();
        assert_eq!(all.total, counts, "of everybody");
        let others = world.engine().stats(Some("u"), Span::Day).await.unwrap();
        assert_eq!(others.total, Counts::default(), "of another tenant");
    }
}

#[tokio::test]
async fn what_moved_is_written_every_ten_seconds_and_a_death_loses_what_came_since() {
    for mut world in every(&effects(Effects::NonIdempotent)) {
        world.answered(post("k")).await;
        counted(&world, |counts| counts.done == 1).await;
        world.clock.advance(Duration::from_secs(11));
        let store = world.engine().store().clone();
        world.until("it is written", async || names(&*store).await.len() >= 6).await;
        drop(store);
        world.engine().flush_tallies().await.unwrap();
        let written = total(world.engine(), Span::Day).await;
        world.answered(post("k")).await;
        assert_eq!(total(world.engine(), Span::Day).await.blocked(), 1, "not written yet");
        world.restart().await;
        let after = total(world.engine(), Span::Day).await;
        assert_eq!(after, written, "never more than happened, and nothing of what was written");
        world.answered(post("k")).await;
        assert_eq!(total(world.engine(), Span::Day).await.blocked(), 1, "it goes on");
        world.engine().stop().await;
        world.restart().await;
        let after = total(world.engine(), Span::Day).await;
        assert_eq!((after.blocked(), after.done), (1, 1), "who stops loses nothing");
    }
}

#[tokio::test]
async fn nodes_add_up_and_each_knows_what_it_has_not_written() {
    for world in every(&effects(Effects::NonIdempotent)) {
        let Some(other) = world.node_apart().await else { continue };
        world.answered(post("k")).await;
        world.answered(post("k")).await;
        counted(&world, |counts| counts.done == 1).await;
        other.call(post("k")).await.unwrap();
        assert_eq!(total(&other, Span::Hour).await.operations, 0, "of the other not written");
        assert_eq!(total(&other, Span::Hour).await.blocked(), 1);
        world.engine().flush_tallies().await.unwrap();
        assert_eq!(total(&other, Span::Hour).await.operations, 1);
        assert_eq!(total(&other, Span::Hour).await.blocked(), 2);
        assert_eq!(total(world.engine(), Span::Hour).await.blocked(), 1);
        for _ in 0..2 {
            other.flush_tallies().await.unwrap();
            for node in [world.engine(), &other] {
                assert_eq!(total(node, Span::Week).await.blocked(), 2, "once");
            }
        }
        world.clock.advance(Duration::from_mins(3));
        other.call(post("k")).await.unwrap();
        other.flush_tallies().await.unwrap();
        let seen = world.engine().duplicates_seen(Some("t"), None, 9).await.unwrap();
        assert_eq!(seen.len(), 3, "whoever saw them");
        assert!(seen.is_sorted_by_key(|seen| std::cmp::Reverse(seen.at)));
        assert!(seen[0].after >= Duration::from_mins(3));
        let ahead = other.keys_ahead(Some("t")).await.unwrap();
        assert_eq!((ahead.kept, ahead.expiring, ahead.tombstones), (1, 0, 0));
    }
}

#[tokio::test]
async fn other_nodes_are_not_woken_by_statistics() {
    for world in every(&effects(Effects::NonIdempotent)) {
        let Some(url) = world.postgres() else { continue };
        world.answered(post("k")).await;
        counted(&world, |counts| counts.done == 1).await;
        let store = world.engine().store();
        let told = postgres::told(url, async {
            for _ in 0..2 {
                world.engine().flush_tallies().await.unwrap();
                world.answered(post("k")).await;
            }
        });
        let told = told.await;
        assert!(!told.contains(&"setting".to_owned()), "{told:?}");
        assert!(names(&**store).await.len() >= 6, "they were written");
        let told = postgres::told(url, async { store.set("s".into(), None).await.unwrap() }).await;
        assert!(told.contains(&"setting".to_owned()), "what settings say is heard: {told:?}");
    }
}

#[tokio::test]
async fn what_reading_costs_does_not_grow_with_what_there_is() {
    for world in every(&effects(Effects::NonIdempotent)) {
        let mut rows = Vec::new();
        for (round, many) in [3, 60].into_iter().enumerate() {
            for n in 0..many {
                world.answered(post(&format!("{round}-{n}"))).await;
                world.answered(post(&format!("{round}-{n}"))).await;
            }
            world.engine().flush_tallies().await.unwrap();
            rows.push(names(&**world.engine().store()).await.len());
        }
        assert!(rows[1] <= 10, "of one time there are so many, however much it was: {rows:?}");
        let before = world.engine().store().condition().await.unwrap().commits;
        if world.is_in_memory() {
            world.engine().flush_tallies().await.unwrap();
            let after = world.engine().store().condition().await.unwrap().commits;
            assert_eq!(before, after, "nothing moved, and nothing is written");
        }
    }
}

#[tokio::test]
async fn the_first_of_what_is_in_doubt_is_found_however_many_there_are() {
    for world in every(&effects(Effects::NonIdempotent)) {
        let oldest = async |tenant: Option<&str>| {
            let store = world.engine().store();
            store.oldest_in_doubt(tenant.map(str::to_owned)).await.unwrap()
        };
        assert_eq!(oldest(None).await, None);
        world.upstream.script((0..4).map(|_| unanswered()));
        for key in ["a", "b", "c", "d"] {
            let mut call = post(key);
            call.tenant = if key == "a" { "u" } else { "t" }.to_owned();
            world.refused(call).await;
            world.clock.advance(Duration::from_millis(5));
        }
        for (tenant, key) in [(None, "a"), (Some("u"), "a"), (Some("t"), "b")] {
            assert_eq!(oldest(tenant).await.unwrap().key.as_str(), key, "{tenant:?}");
        }
        assert_eq!(oldest(Some("v")).await, None);
    }
}
