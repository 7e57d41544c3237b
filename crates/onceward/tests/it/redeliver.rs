//! What a person sends again: with its risk named before, or anew and changed, as an operation of
//! its own.

use std::time::Duration;

use bytes::Bytes;
use onceward::core::operation::Deed;
use onceward::core::policy::{Backoff, Effects, KeyMissing, Policy};
use onceward::core::risk::Risk;
use onceward::store::Query;
use onceward::{Edit, Person, Refusal};

use crate::world::{
    World, accepted, answer, effects, every, person, post, taken, unanswered, with_header,
};

/// One attempt for what nobody waits for.
fn once(kind: Effects) -> Policy {
    let mut policy = effects(kind);
    policy.accepted = Backoff { attempts_max: 1, ..Backoff::accepted() };
    policy
}

#[tokio::test]
async fn what_may_have_been_done_is_sent_again_only_by_who_takes_that_risk() {
    for world in every(&once(Effects::NonIdempotent)) {
        world.upstream.script([unanswered()]);
        let _ = world.call(post("k")).await;
        let doubt = world.operation("k").await;
        let engine = world.engine();
        for wrong in [&[][..], &[Risk::WindowOver]] {
            let result = engine.redeliver_at_risk(doubt.id, &person(), wrong).await;
            assert!(
                matches!(result, Err(Refusal::RiskUnaccepted { risk: Risk::Unknown, .. })),
                "{result:?}"
            );
        }
        assert_eq!(world.operation("k").await, doubt, "a refusal writes nothing");
        engine.redeliver_at_risk(doubt.id, &person(), &[Risk::Unknown]).await.unwrap();
        let done = world.stands("k", "done").await;
        assert_eq!(done.acts[0].deed, Deed::Redelivered);
        assert!(done.acts[0].reason.contains("unknown"), "{:?}", done.acts);
        assert_eq!(world.upstream.dispatched(), 2);
    }
}

#[tokio::test]
async fn what_the_upstream_dedupes_needs_no_word() {
    for world in every(&once(Effects::Keyed)) {
        world.upstream.dedupe();
        world.upstream.script([unanswered()]);
        taken(world.call(accepted("k")).await);
        let dead = world.stands("k", "dead").await;
        world.engine().redeliver(dead.id, &person()).await.unwrap();
        world.stands("k", "done").await;
        assert_eq!((world.upstream.dispatched(), world.upstream.effects("k")), (2, 1));
    }
}

#[tokio::test]
async fn what_is_done_is_never_sent_again_under_its_key() {
    for world in every(&once(Effects::NonIdempotent)) {
        world.answered(post("k")).await;
        let done = world.operation("k").await;
        let result = world.engine().redeliver_at_risk(done.id, &person(), &Risk::ALL).await;
        assert!(matches!(result, Err(Refusal::Conflict { .. })), "{result:?}");
        assert_eq!(world.upstream.dispatched(), 1);
    }
}

#[tokio::test]
async fn an_edit_is_a_new_operation_that_names_the_one_it_was_made_of() {
    let mut policy = once(Effects::NonIdempotent);
    // Where callers have to bring a key, a person need not.
    policy.key_missing = KeyMissing::Require;
    for world in every(&policy) {
        world.upstream.script([answer(422, "no such account")]);
        let call = with_header(accepted("k"), "authorization", "Bearer the-callers");
        taken(world.call(with_header(call, "x-note", "old")).await);
        let dead = world.stands("k", "dead").await;
        let edit = Edit {
            target: Some("/payments?dry=yes".to_owned()),
            headers: vec![("x-note".to_owned(), None), ("x-more".to_owned(), Some("1".into()))],
            body: Some(Bytes::from_static(br#"{"amount": 100, "to": "bea"}"#)),
            ..Edit::default()
        };
        let child = world.engine().resend(dead.id, edit, &person()).await.unwrap();
        assert_eq!((child.parent, child.acts[0].deed), (Some(dead.id), Deed::Resent));
        assert_ne!(child.key, dead.key);
        world.until_dispatched(2).await;
        world.stands(child.key.as_str(), "done").await;
        let seen = world.upstream.seen().pop().unwrap();
        assert_eq!(seen.target, "/payments?dry=yes");
        assert_eq!(seen.body, br#"{"amount": 100, "to": "bea"}"#.as_slice());
        assert_eq!(seen.header("authorization"), "Bearer the-callers", "it is carried on");
        assert_eq!((seen.header("x-note"), seen.header("x-more")), ("", "1"));
        assert_eq!(seen.key(), child.key.as_str());
        assert_eq!(world.operation("k").await, dead, "the first stays as it is");
        let born = Query { parent: Some(dead.id), limit: 9, ..Query::default() };
        let children = world.engine().store().list(born).await.unwrap().operations;
        assert_eq!(children.iter().map(|child| child.id).collect::<Vec<_>>(), [child.id]);
    }
}

#[tokio::test]
async fn what_may_have_been_done_is_asked_anew_only_by_who_takes_that_risk() {
    for kind in [Effects::NonIdempotent, Effects::Keyed] {
        for world in every(&once(kind)) {
            world.upstream.script([unanswered()]);
            let _ = world.call(accepted("k")).await;
            let rests = if kind == Effects::Keyed { "dead" } else { "in_doubt" };
            let first = world.stands("k", rests).await;
            let edit = || Edit { key: Some("again".to_owned()), ..Edit::default() };
            let engine = world.engine();
            for wrong in [&[][..], &[Risk::WindowOver]] {
                // Another key goes with it, by which no upstream dedupes.
                let result = engine.resend_at_risk(first.id, edit(), &person(), wrong).await;
                assert!(
                    matches!(result, Err(Refusal::RiskUnaccepted { risk: Risk::Unknown, .. })),
                    "{result:?}"
                );
            }
            assert!(world.find("again").await.is_none(), "a refusal makes nothing");
            let taken = [Risk::Unknown];
            let child = engine.resend_at_risk(first.id, edit(), &person(), &taken).await.unwrap();
            assert!(child.acts[0].reason.contains("the risk is taken: unknown"), "{child:?}");
            // What it made is found without a word.
            assert_eq!(engine.resend(first.id, edit(), &person()).await.unwrap().id, child.id);
            world.stands("again", "done").await;
            assert_eq!(world.upstream.dispatched(), 2);
        }
    }
}

#[tokio::test]
async fn where_redeliveries_want_two_persons_nobody_asks_anew_alone() {
    let by = |who: &str| Person { who: who.to_owned(), reason: format!("{who} says so") };
    for world in every(&once(Effects::NonIdempotent)) {
        world.answered(post("k")).await;
        let done = world.operation("k").await;
        world.engine().set_approved(vec![Deed::Redelivered]);
        let resend = async |who: &str, target: &str| {
            let edit = Edit { target: Some(target.to_owned()), ..Edit::default() };
            world.engine().resend(done.id, edit, &by(who)).await
        };
        for (who, target) in [("anna", "/a"), ("anna", "/a"), ("bo", "/b"), ("anna", "/a")] {
            let wanted = resend(who, target).await.unwrap_err();
            assert!(matches!(wanted, Refusal::SecondWanted { .. }), "{wanted:?}");
        }
        assert_eq!(world.engine().wanted().await.unwrap().len(), 1);
        let child = resend("bo", "/a").await.unwrap();
        assert_eq!(child.acts[0].reason, "bo says so (asked for by anna: anna says so)");
        assert!(world.engine().wanted().await.unwrap().is_empty());
        world.stands(child.key.as_str(), "done").await;
        assert_eq!(world.upstream.dispatched(), 2);
        let wanted = resend("bo", "/a").await.unwrap_err();
        assert!(matches!(wanted, Refusal::SecondWanted { .. }), "each time anew: {wanted:?}");
    }
}

#[tokio::test]
async fn the_same_edit_with_the_same_key_is_made_once() {
    for world in every(&once(Effects::NonIdempotent)) {
        world.answered(post("k")).await;
        let done = world.operation("k").await;
        let edit = |body: &'static str| Edit {
            key: Some("edit-1".to_owned()),
            body: Some(Bytes::from_static(body.as_bytes())),
            ..Edit::default()
        };
        let engine = world.engine();
        let first = engine.resend(done.id, edit("{}"), &person()).await.unwrap();
        let again = engine.resend(done.id, edit("{}"), &person()).await.unwrap();
        assert_eq!(first.id, again.id);
        for other in [edit("[]"), Edit { key: Some("k".to_owned()), ..Edit::default() }] {
            let result = engine.resend(done.id, other, &person()).await;
            assert!(matches!(result, Err(Refusal::Conflict { .. })), "{result:?}");
        }
        world.stands("edit-1", "done").await;
        assert_eq!(world.upstream.dispatched(), 2);
    }
}

#[tokio::test]
async fn what_was_forgotten_with_its_window_cannot_be_asked_anew() {
    let world = World::in_memory(crate::world::routes([crate::world::route(
        "pay",
        &once(Effects::NonIdempotent),
    )]));
    world.answered(post("k")).await;
    let done = world.operation("k").await;
    world.pass_time(Duration::from_hours(73)).await;
    world.until("it is forgotten", async || world.operation("k").await.request.is_none()).await;
    let result = world.engine().resend(done.id, Edit::default(), &person()).await;
    assert!(matches!(result, Err(Refusal::Conflict { .. })), "{result:?}");
}
