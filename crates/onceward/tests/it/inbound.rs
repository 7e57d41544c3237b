//! What came by another way than a call: within a shared scope, under a second identity, and as
//! evidence for an operation in doubt.

use std::time::Duration;

use onceward::core::id::OperationId;
use onceward::core::operation::{Death, Deed, Source, State};
use onceward::core::policy::Effects;
use onceward::observe::Repeat;
use onceward::{Call, Edit, Named, Refusal, Says, Testimony};

use crate::world::{
    Gate, PAY, World, accepted, answer, effects, every, every_with, permanent, person, post,
    refused, route, routes, taken, unanswered, with_header,
};

const DAY: Duration = Duration::from_hours(24);

/// A webhook with this id, which goes to the route `hook`.
fn webhook(id: &str, scope: &str) -> Call {
    let mut call = accepted("none");
    "hook".clone_into(&mut call.route);
    call.request.headers.remove("idempotency-key");
    call.request.body = format!("{{\"event\": \"{id}\"}}").into();
    call.options.key = Some(id.to_owned());
    call.options.via = Some("source/hook".to_owned());
    call.options.scope = Some(scope.to_owned());
    call
}

async fn is_done(world: &World, id: OperationId) {
    let is_done = async || world.find_now(id).await.is_some_and(|it| it.state == State::Done);
    world.until("it is delivered", is_done).await;
}

fn two_ways() -> onceward::route::Routes {
    let policy = effects(Effects::Keyed);
    let mut pay = route(PAY, &policy);
    pay.scope = Some("scope/orders".to_owned());
    routes([pay, route("hook", &policy)])
}

#[tokio::test]
async fn one_event_that_comes_as_a_call_and_as_a_webhook_is_one_operation() {
    for mut world in every_with(&two_ways()) {
        let mut call = post("order-1");
        call.principal = "anna".to_owned();
        let done = world.answered(call.clone()).await;
        let came = world.engine().call(webhook("order-1", "scope/orders")).await;
        let came = crate::world::answered(came);
        assert!(came.replayed && came.operation.id == done.operation.id, "{came:?}");
        world.restart().await;
        let came = world.engine().call(webhook("order-1", "scope/orders")).await;
        assert_eq!(crate::world::answered(came).operation.id, done.operation.id);
        assert_eq!((world.upstream.seen().len(), world.upstream.effects("order-1")), (1, 1));
        // And the other way round.
        let first = taken(world.call(webhook("order-2", "scope/orders")).await);
        is_done(&world, first.id).await;
        let again = world.answered(post("order-2")).await;
        assert!(again.replayed && again.operation.id == first.id);
        assert_eq!(world.upstream.seen().len(), 2);
        // In a scope of its own it is another event.
        taken(world.call(webhook("order-1", "source/hook")).await);
        world.until("it is sent", async || world.upstream.seen().len() == 3).await;
    }
}

#[tokio::test]
async fn what_is_asked_anew_stays_within_the_scope_that_it_came_in() {
    for world in every_with(&two_ways()) {
        let first = taken(world.call(webhook("order-1", "source/hook")).await);
        is_done(&world, first.id).await;
        let child = world.engine().resend(first.id, Edit::default(), &person()).await.unwrap();
        assert_eq!((&child.scope, &child.via), (&first.scope, &first.via));
        assert_eq!((&child.route, child.parent), (&first.route, Some(first.id)));
    }
}

#[tokio::test]
async fn a_call_and_a_webhook_that_race_are_one_operation() {
    for world in every_with(&two_ways()) {
        for round in 0..20 {
            let key = format!("order-{round}");
            let call = world.begin(post(&key));
            let hook = world.begin(webhook(&key, "scope/orders"));
            let (called, came) = (call.result().await, hook.result().await);
            assert!(called.is_ok() && came.is_ok(), "{called:?} {came:?}");
            world.until("it is delivered", async || world.upstream.effects(&key) == 1).await;
        }
        assert_eq!(world.upstream.seen().len(), 20);
    }
}

#[tokio::test]
async fn what_a_webhook_wakes_keeps_the_credentials_of_its_own_caller() {
    for world in every_with(&two_ways()) {
        world.upstream.script([permanent()]);
        let call = with_header(post("order-1"), "authorization", "Bearer of-the-caller");
        let refusal = world.refused(call).await;
        assert!(matches!(refusal, Refusal::UpstreamUnreachable(_)), "{refusal:?}");
        let hook = with_header(webhook("order-1", "scope/orders"), "authorization", "Basic other");
        taken(world.call(hook).await);
        world.until("it is delivered", async || world.upstream.effects("order-1") == 1).await;
        let sent = world.upstream.seen().pop().unwrap();
        assert_eq!(sent.header("authorization"), "Bearer of-the-caller");
    }
}

#[tokio::test]
async fn the_same_signed_content_under_another_id_is_not_delivered_again() {
    let signed = |id: &str| {
        let mut call = webhook(id, "source/hook");
        call.request.body = "{\"the\": \"same\"}".into();
        call.options.identity = Some(("signed/abc".to_owned(), DAY));
        call
    };
    for mut world in every_with(&two_ways()) {
        let first = taken(world.call(signed("guid-1")).await);
        is_done(&world, first.id).await;
        for _ in 0..2 {
            for id in ["guid-2", "guid-1"] {
                let replay = signed(id);
                let aside = std::sync::Arc::clone(&replay.options.aside);
                let came = crate::world::answered(world.call(replay).await);
                assert!(came.replayed);
                assert_eq!(aside.duplicate_of.get().is_some(), id == "guid-2");
                assert_eq!(aside.repeat.get(), Some(&Repeat::Replayed));
            }
            world.restart().await;
        }
        assert_eq!(world.upstream.seen().len(), 1);
        world.pass_time(DAY + Duration::from_hours(1)).await;
        taken(world.call(signed("guid-3")).await);
        world.until("the guard's time is over", async || world.upstream.seen().len() == 2).await;
    }
}

fn says(says: Says, named: &str) -> Testimony {
    Testimony {
        tenant: None,
        route: PAY.to_owned(),
        named: Named::Key(named.to_owned()),
        says,
        status: (says == Says::Done).then_some(201),
        who: "source/stripe".to_owned(),
        reason: format!("a webhook says: {}\n{{\"secret\": 1}}", says.name()),
    }
}

async fn doubted(world: &World, key: &str) -> onceward::core::operation::Operation {
    world.upstream.script([unanswered()]);
    let refusal = world.refused(post(key)).await;
    assert!(matches!(refusal, Refusal::OutcomeUnknown { first: true, .. }), "{refusal:?}");
    world.stands(key, "in_doubt").await
}

#[tokio::test]
async fn a_webhook_ends_the_doubt_that_it_names_and_is_kept_as_its_evidence() {
    for mut world in every(&effects(Effects::NonIdempotent)) {
        let doubt = doubted(&world, "k").await;
        let other = world.engine().testify(&says(Says::Done, "other")).await.unwrap();
        assert!(other.ended.is_empty() && other.kept.is_empty());
        let heard = world.engine().testify(&says(Says::Done, "k")).await.unwrap();
        assert_eq!(heard.ended, [doubt.id]);
        world.restart().await;
        let done = world.operation("k").await;
        let outcome = done.outcome.as_ref().unwrap();
        assert_eq!(
            (outcome.source, outcome.ok, outcome.status),
            (Source::Webhook, true, Some(201))
        );
        let act = done.acts.last().unwrap();
        assert_eq!((act.deed, act.who.as_str()), (Deed::ResolvedDone, "source/stripe"));
        assert!(act.reason.contains("secret"), "{}", act.reason);
        let again = world.engine().testify(&says(Says::Failed, "k")).await.unwrap();
        assert!(again.ended.is_empty() && again.kept.is_empty(), "what is done stays done");
        let refusal = world.refused(post("k")).await;
        assert!(matches!(refusal, Refusal::ResponseNotRetained(_)), "{refusal:?}");
        assert_eq!(world.upstream.seen().len(), 1, "it was never sent again");
    }
}

#[tokio::test]
async fn a_provider_that_says_it_failed_ends_it_and_one_that_never_had_it_opens_the_key() {
    for world in every(&effects(Effects::NonIdempotent)) {
        doubted(&world, "failed").await;
        world.engine().testify(&says(Says::Failed, "failed")).await.unwrap();
        let failed = world.operation("failed").await;
        assert_eq!((failed.state, failed.outcome.unwrap().ok), (State::Done, false));
        let doubt = doubted(&world, "absent").await;
        // By its id too.
        world.engine().testify(&says(Says::NotDone, &doubt.id.to_string())).await.unwrap();
        let absent = world.operation("absent").await;
        assert_eq!(absent.state, State::Dead(Death::Unsent));
        assert_eq!(world.answered(post("absent")).await.operation.id, absent.id);
        assert_eq!(world.upstream.seen().len(), 3, "once for each, and once more for its key");
    }
}

#[tokio::test]
async fn a_webhook_that_comes_before_the_doubt_is_heard_when_that_begins() {
    for world in every(&effects(Effects::NonIdempotent)) {
        let gate = Gate::closed();
        world.upstream.script([unanswered().behind(&gate)]);
        let call = world.begin(post("k"));
        world.until_dispatched(1).await;
        let heard = world.engine().testify(&says(Says::Done, "k")).await.unwrap();
        assert_eq!((heard.ended.len(), heard.kept.len()), (0, 1), "it is under way");
        gate.open();
        refused(call.result().await);
        let done = world.stands("k", "done").await;
        assert_eq!(done.outcome.unwrap().source, Source::Webhook);
    }
}

#[tokio::test]
async fn what_was_said_before_a_crash_is_heard_after_it() {
    for mut world in every(&effects(Effects::NonIdempotent)) {
        let gate = Gate::closed();
        world.upstream.script([answer(201, "late").behind(&gate)]);
        let _call = world.begin(post("k"));
        world.until_dispatched(1).await;
        let heard = world.engine().testify(&says(Says::Done, "k")).await.unwrap();
        assert_eq!(heard.kept.len(), 1);
        assert_eq!(world.restart().await, 1, "the attempt was under way");
        let done = world.stands("k", "done").await;
        assert_eq!(done.outcome.unwrap().source, Source::Webhook);
        world
            .until("nothing is left of it", async || {
                let left = world.engine().store().settings("testimony/".to_owned()).await;
                left.unwrap().is_empty()
            })
            .await;
    }
}
