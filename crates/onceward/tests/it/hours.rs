//! Accepted work is sent in the hours that its route has.

use std::time::Duration;

use onceward::core::hours::Hours;
use onceward::core::operation::State;
use onceward::core::policy::{Effects, Policy};
use onceward::core::time::Timestamp;
use onceward::{Bar, Refusal};

use crate::world::{World, accepted, effects, every, post, taken, unsent};

/// Every world begins on Thursday, 2026-01-01, at midnight UTC.
fn policy() -> Policy {
    let hours = Hours::read("Mon-Fri 08:00-18:00 +01:00").unwrap();
    Policy { hours: Some(hours), ..effects(Effects::Keyed) }
}

fn at(world: &World, hour: u64, minute: u64) -> Timestamp {
    let midnight = Timestamp::from_micros(1_767_225_600_000_000);
    assert!(world.clock.now() < midnight.plus(Duration::from_hours(24 * 7)));
    midnight.plus(Duration::from_mins(hour * 60 + minute))
}

#[tokio::test]
async fn what_is_accepted_outside_the_hours_waits_for_them() {
    for world in every(&policy()) {
        taken(world.call(accepted("k")).await);
        let waiting = world.stands("k", "pending").await;
        assert_eq!(waiting.state, State::Pending { due: at(&world, 7, 0) });
        world.clock.advance_to(at(&world, 6, 59));
        assert_eq!(world.upstream.dispatched(), 0);
        world.clock.advance_to(at(&world, 7, 0));
        world.stands("k", "done").await;
    }
}

#[tokio::test]
async fn a_held_call_outside_the_hours_is_refused_and_a_duplicate_is_answered() {
    for world in every(&policy()) {
        world.clock.advance_to(at(&world, 16, 59));
        let first = world.answered(post("early")).await;
        world.clock.advance_to(at(&world, 17, 0));
        let refusal = world.refused(post("late")).await;
        let Refusal::Barred { why, retry_after } = refusal else { panic!("{refusal:?}") };
        assert_eq!((why, retry_after), (Bar::OutsideHours, Duration::from_hours(14)));
        assert_eq!(world.find("late").await, None, "a refused call leaves no record");
        let again = world.answered(post("early")).await;
        assert_eq!((again.response, again.replayed), (first.response, true));
        assert_eq!(world.upstream.dispatched(), 1);
    }
}

#[tokio::test]
async fn a_retry_that_would_be_due_outside_the_hours_waits_for_the_next() {
    for world in every(&policy()) {
        world.clock.advance_to(at(&world, 16, 59).plus(Duration::from_secs(59)));
        world.upstream.script([unsent()]);
        taken(world.call(accepted("k")).await);
        let waiting = world.stands("k", "pending").await;
        assert_eq!(waiting.state, State::Pending { due: at(&world, 31, 0) });
        world.clock.advance_to(at(&world, 31, 0));
        world.stands("k", "done").await;
        assert_eq!(world.upstream.dispatched(), 2);
    }
}

#[tokio::test]
async fn what_was_due_while_the_gateway_was_away_waits_for_the_next_hours() {
    for mut world in every(&policy()) {
        taken(world.call(accepted("k")).await);
        world.stands("k", "pending").await;
        world.kill().await;
        // Due on Thursday, and looked at on Saturday.
        world.clock.advance_to(at(&world, 60, 0));
        world.begin_again().await;
        let rests = Duration::from_secs(29)..Duration::from_secs(31);
        world
            .until("the dispatcher rests", async || world.clock.is_anyone_asleep_for(rests.clone()))
            .await;
        assert_eq!(world.upstream.dispatched(), 0);
        world.clock.advance_to(at(&world, 4 * 24 + 7, 0));
        world.stands("k", "done").await;
    }
}
