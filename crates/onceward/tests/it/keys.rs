//! What people do about keys: one lasts longer, an operation gets another, a principal loses all.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::time::Duration;

use onceward::core::key::Key;
use onceward::core::operation::{Deed, Forgotten};
use onceward::core::policy::{Effects, Policy};
use onceward::store::Query;
use onceward::{Call, Longer, Person, Refusal};

use crate::world::{
    Gate, World, answer, answered, effects, every, person, post, refused, scope, unanswered,
};

const WINDOW: Duration = Duration::from_hours(72);
const DAY: Duration = Duration::from_hours(24);

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn differently(key: &str) -> Call {
    let mut call = post(key);
    call.request.target = "/elsewhere".into();
    call
}

#[tokio::test]
async fn an_extended_key_replays_as_long_as_a_person_said_and_under_all_of_its_names() {
    for mut world in every(&effects(Effects::NonIdempotent)) {
        let first = world.answered(post("k")).await;
        let engine = world.engine();
        engine.rotate(&scope(), &key("k"), &key("new"), &person()).await.unwrap();
        let longer = Longer::Window(30 * DAY);
        let extended = engine.extend(&scope(), &key("new"), longer, &person()).await.unwrap();
        assert_eq!((extended.id, extended.window), (first.operation.id, 30 * DAY));
        let act = extended.acts.last().unwrap();
        assert_eq!((act.deed, act.who.as_str()), (Deed::Extended, "anna"));
        for _ in 0..4 {
            world.pass_time(7 * DAY).await;
            for name in ["k", "new"] {
                let again = world.answered(post(name)).await;
                assert!(again.replayed, "{name}");
                assert_eq!(again.response.body, first.response.body);
            }
        }
        world.restart().await;
        world.clock.advance(2 * DAY);
        for name in ["k", "new"] {
            let refusal = world.refused(post(name)).await;
            assert!(matches!(refusal, Refusal::KeyExpired(_)), "{refusal:?}");
        }
        assert_eq!(world.upstream.dispatched(), 1);
    }
}

#[tokio::test]
async fn a_key_is_never_cut_short_nor_opened_again_by_an_extension() {
    for world in every(&effects(Effects::NonIdempotent)) {
        let ended_at = world.answered(post("k")).await.operation.ended_at.unwrap();
        let extend =
            async |longer| world.engine().extend(&scope(), &key("k"), longer, &person()).await;
        for longer in [Longer::Window(WINDOW), Longer::Window(DAY), Longer::Until(ended_at)] {
            let refused = extend(longer).await.unwrap_err();
            assert!(matches!(refused, Refusal::Conflict { .. }), "{refused:?}");
        }
        let until = ended_at.plus(4 * DAY);
        assert_eq!(extend(Longer::Until(until)).await.unwrap().key_expires_at(), Some(until));
        world.clock.advance(4 * DAY);
        let refused = extend(Longer::Window(9 * DAY)).await.unwrap_err();
        assert!(matches!(refused, Refusal::Conflict { .. }), "its window is over: {refused:?}");
        let unknown =
            world.engine().extend(&scope(), &key("x"), Longer::Until(until), &person()).await;
        assert!(matches!(unknown, Err(Refusal::NotFound)));
    }
}

#[tokio::test]
async fn what_is_under_way_is_not_disturbed() {
    for world in every(&effects(Effects::NonIdempotent)) {
        let gate = Gate::closed();
        world.upstream.script([answer(201, "made").behind(&gate)]);
        let calling = world.begin(post("k"));
        world.until_dispatched(1).await;
        let engine = world.engine();
        let longer = Longer::Window(30 * DAY);
        let extended = engine.extend(&scope(), &key("k"), longer, &person()).await;
        assert!(matches!(extended, Err(Refusal::Conflict { .. })), "{extended:?}");
        let rotated = engine.rotate(&scope(), &key("k"), &key("new"), &person()).await;
        assert!(matches!(rotated, Err(Refusal::Conflict { .. })), "{rotated:?}");
        gate.open();
        assert_eq!(answered(calling.result().await).response.status, 201);
    }
}

#[tokio::test]
async fn a_rotated_key_and_the_one_it_was_are_one_operation() {
    for mut world in every(&effects(Effects::NonIdempotent)) {
        let first = world.answered(post("old")).await;
        let engine = world.engine();
        let rotated = engine.rotate(&scope(), &key("old"), &key("new"), &person()).await.unwrap();
        assert_eq!((rotated.id, rotated.aliases.len()), (first.operation.id, 1));
        for name in ["new", "old", "new"] {
            let again = world.answered(post(name)).await;
            assert_eq!(again.operation.id, first.operation.id, "{name}");
            assert_eq!((again.replayed, &again.response.body), (true, &first.response.body));
            world.restart().await;
        }
        let refusal = world.refused(differently("new")).await;
        assert!(matches!(refusal, Refusal::KeyMismatch { .. }), "{refusal:?}");
        // A list has one operation, not one and its names.
        let query = Query { limit: 10, ..Query::default() };
        assert_eq!(world.engine().store().list(query).await.unwrap().operations.len(), 1);
        let taken = world.answered(post("other")).await.operation.id;
        let engine = world.engine();
        let refused = engine.rotate(&scope(), &key("old"), &key("other"), &person()).await;
        assert!(matches!(refused, Err(Refusal::Conflict { .. })), "taken by {taken}: {refused:?}");
        let again = engine.rotate(&scope(), &key("new"), &key("third"), &person()).await.unwrap();
        assert_eq!((again.id, again.aliases.len()), (first.operation.id, 2));
        assert!(world.answered(post("third")).await.replayed);
        assert_eq!(world.upstream.dispatched(), 2);
    }
}

#[tokio::test]
async fn a_key_that_is_dropped_is_dropped_under_all_of_its_names_and_each_may_be_new_once() {
    for (then, sent) in [(Forgotten::Refuse, 1), (Forgotten::New, 3)] {
        for world in every(&effects(Effects::NonIdempotent)) {
            world.answered(post("old")).await;
            let engine = world.engine();
            engine.rotate(&scope(), &key("old"), &key("new"), &person()).await.unwrap();
            engine.forget(&scope(), &key("new"), then, &person()).await.unwrap();
            for name in ["old", "new", "old", "new"] {
                match world.call(post(name)).await {
                    Err(Refusal::KeyInvalidated(operation)) => {
                        assert_eq!(operation.acts.last().unwrap().reason, "asked the bank");
                    }
                    other => assert_eq!(answered(other).response.status, 201),
                }
            }
            assert_eq!(world.upstream.dispatched(), sent, "{then:?}");
        }
    }
}

#[tokio::test]
async fn another_name_goes_with_the_operation_that_it_names() {
    for world in every(&effects(Effects::NonIdempotent)) {
        world.answered(post("old")).await;
        world.clock.advance(DAY);
        let engine = world.engine();
        engine.rotate(&scope(), &key("old"), &key("new"), &person()).await.unwrap();
        world.pass_time(2 * DAY).await;
        let refusal = world.refused(post("new")).await;
        assert!(matches!(refusal, Refusal::KeyExpired(_)), "{refusal:?}");
        world.pass_time(Policy::default().tombstone).await;
        assert!(!world.answered(post("new")).await.replayed);
        assert!(!world.answered(post("old")).await.replayed);
        assert_eq!(world.upstream.dispatched(), 3);
    }
}

#[tokio::test]
async fn a_revoked_principal_has_no_key_left_but_those_that_are_open() {
    for world in every(&effects(Effects::NonIdempotent)) {
        let of = |principal: &str, key: &str| {
            let mut call = post(key);
            call.principal = principal.to_owned();
            call
        };
        for n in 0..3 {
            world.answered(of("shop", &format!("k{n}"))).await;
        }
        world.answered(of("other", "k0")).await;
        world.upstream.script([unanswered()]);
        let doubt = refused(world.call(of("shop", "doubt")).await);
        let Refusal::OutcomeUnknown { operation: open, .. } = doubt else { panic!("{doubt:?}") };
        let revoked = world.engine().revoke("t", "shop", None, &person()).await.unwrap();
        assert_eq!((revoked.keys, revoked.open, revoked.next), (3, vec![open.id], None));
        let refusal = world.refused(of("shop", "k1")).await;
        assert!(matches!(refusal, Refusal::KeyInvalidated(_)), "{refusal:?}");
        assert!(world.answered(of("other", "k0")).await.replayed);
        assert_eq!(world.engine().revoke("t", "shop", None, &person()).await.unwrap().keys, 0);
    }
}

#[tokio::test]
async fn what_wants_two_persons_is_kept_until_another_asks_for_the_same() {
    let by = |who: &str| Person { who: who.to_owned(), reason: format!("{who} says so") };
    for mut world in every(&effects(Effects::NonIdempotent)) {
        world.answered(post("k")).await;
        world.engine().set_approved(vec![Deed::Forgot, Deed::Rotated]);
        let forget = async |world: &World, who: &str, then| {
            world.engine().forget(&scope(), &key("k"), then, &by(who)).await
        };
        for _ in 0..2 {
            let wanted = forget(&world, "anna", Forgotten::Refuse).await.unwrap_err();
            assert!(matches!(wanted, Refusal::SecondWanted { .. }), "{wanted:?}");
        }
        assert!(world.answered(post("k")).await.replayed, "nothing was done yet");
        let rotate = async |world: &World, who: &str, to: &str| {
            world.engine().rotate(&scope(), &key("k"), &key(to), &by(who)).await
        };
        let wanted = rotate(&world, "anna", "new").await.unwrap_err();
        assert!(matches!(wanted, Refusal::SecondWanted { .. }), "{wanted:?}");
        assert!(world.find("new").await.is_none(), "no key is given before");
        assert_eq!(world.engine().wanted().await.unwrap().len(), 2);
        world.restart().await;
        world.engine().set_approved(vec![Deed::Forgot, Deed::Rotated]);
        let wanted = rotate(&world, "bo", "another").await.unwrap_err();
        assert!(matches!(wanted, Refusal::SecondWanted { .. }), "it is not the same: {wanted:?}");
        rotate(&world, "anna", "another").await.unwrap();
        assert!(world.answered(post("another")).await.replayed);
        let extended =
            world.engine().extend(&scope(), &key("k"), Longer::Window(9 * DAY), &by("anna")).await;
        extended.unwrap();
        let forgotten = forget(&world, "bo", Forgotten::Refuse).await.unwrap();
        let act = forgotten.acts.last().unwrap();
        assert_eq!(act.who, "bo");
        assert_eq!(act.reason, "bo says so (asked for by anna: anna says so)");
        assert!(world.engine().wanted().await.unwrap().is_empty());
        world.refused(post("k")).await;
    }
}

#[tokio::test]
async fn what_one_person_asked_for_lapses_after_a_day() {
    let by = |who: &str| Person { who: who.to_owned(), reason: "r".to_owned() };
    for world in every(&effects(Effects::NonIdempotent)) {
        world.answered(post("k")).await;
        world.engine().set_approved(vec![Deed::Forgot]);
        let forget = async |who: &str| {
            let person = by(who);
            world.engine().forget(&scope(), &key("k"), Forgotten::New, &person).await
        };
        assert!(forget("anna").await.is_err());
        world.clock.advance(DAY);
        assert!(world.engine().wanted().await.unwrap().is_empty());
        assert!(forget("bo").await.is_err(), "it is asked for anew");
        forget("anna").await.unwrap();
    }
}
