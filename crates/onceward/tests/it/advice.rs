//! What a route has seen of duplicates and attempts, for whoever asks what its window should be.

use std::time::Duration;

use onceward::Refusal;
use onceward::core::advice::{Fit, retry_advice, window_advice};
use onceward::core::policy::{Backoff, OnDead};
use onceward::core::policy::{Effects, Policy};

use crate::world::{PAY, accepted, answer, effects, every, post, taken, unsent};

const HOUR: Duration = Duration::from_hours(1);

#[tokio::test]
async fn ages_of_duplicates_are_counted_in_time_and_late_and_over_restarts() {
    let policy = Policy { window: HOUR, ..effects(Effects::NonIdempotent) };
    for mut world in every(&policy) {
        world.answered(post("k")).await;
        for _ in 0..3 {
            world.answered(post("k")).await;
        }
        let mut other = post("k");
        other.request.target = "/elsewhere".into();
        world.refused(other).await;
        let seen = world.engine().seen(PAY).await.unwrap();
        assert_eq!((seen.duplicates.count(), seen.late), (3, 0), "a mismatch is no duplicate");
        assert_eq!(seen.duplicates.bound(), Some(Duration::from_secs(1)));
        world.engine().flush_seen().await.unwrap();
        world.restart().await;
        world.clock.advance(5 * HOUR);
        let late = world.refused(post("k")).await;
        assert!(matches!(late, Refusal::KeyExpired(_)), "{late:?}");
        world.engine().flush_seen().await.unwrap();
        let seen = world.engine().seen(PAY).await.unwrap();
        assert_eq!((seen.duplicates.count(), seen.late), (4, 1));
        let advice = window_advice(&seen, policy.window);
        assert_eq!((advice.within, advice.fit), (Some(6 * HOUR), Fit::TooShort));
        // Another node on the same ledger says the same.
        assert_eq!(world.neighbour().seen(PAY).await.unwrap(), seen);
        let unknown = world.engine().seen("elsewhere").await;
        assert!(matches!(unknown, Err(Refusal::RouteUnknown(_))), "{unknown:?}");
    }
}

#[tokio::test]
async fn what_was_counted_is_written_each_minute() {
    for world in every(&effects(Effects::NonIdempotent)) {
        world.answered(post("k")).await;
        world.answered(post("k")).await;
        let written = async || {
            let name = format!("advice/{PAY}");
            world.engine().store().setting(name).await.unwrap().is_some()
        };
        assert!(!written().await);
        world.clock.advance(Duration::from_mins(2));
        world.until("it is written", written).await;
        assert_eq!(world.engine().seen(PAY).await.unwrap().duplicates.count(), 1);
    }
}

#[tokio::test]
async fn attempts_are_counted_by_which_one_was_the_last_and_those_in_vain() {
    let once = Backoff { attempts_max: 2, ..Backoff::accepted() };
    let policy =
        Policy { accepted: once, on_dead: OnDead::Replay, ..effects(Effects::NonIdempotent) };
    for world in every(&policy) {
        world.answered(post("held")).await;
        world.upstream.script([answer(429, ""), answer(201, "made"), unsent(), unsent()]);
        for key in ["second", "never"] {
            taken(world.call(accepted(key)).await);
            world.let_retry(key).await;
            let ended = if key == "second" { "done" } else { "dead" };
            world.stands(key, ended).await;
        }
        let counted = async || {
            let seen = world.engine().seen(PAY).await.unwrap();
            (seen.accepted.done_at[1], seen.accepted.died, seen.accepted.wasted)
        };
        world.until("both are counted", async || counted().await == (1, 1, 2)).await;
        let seen = world.engine().seen(PAY).await.unwrap();
        assert_eq!((seen.held.done_at[0], seen.accepted.done_at[0]), (1, 0));
        let advice = retry_advice(&seen.accepted, &policy.accepted);
        assert_eq!((advice.done, advice.attempts, advice.wasted), (1, Some(2), 2));
    }
}
