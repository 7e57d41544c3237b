//! What is kept of requests and answers, and for how long; what people see of them. In whatever order
//! things go, a key never goes before what was done under it.

use std::time::Duration;

use bytes::Bytes;
use onceward::Refusal;
use onceward::core::policy::{Effects, Policy};
use onceward::core::redact::Redaction;
use onceward::store::Standing;
use onceward::wire;

use crate::world::{World, accepted, answer, effects, every, person, post, taken, unsent};

const HOUR: Duration = Duration::from_hours(1);

fn briefly() -> Policy {
    Policy { retain_bodies: Some(HOUR), ..effects(Effects::NonIdempotent) }
}

async fn read(world: &World, body: onceward::core::attempt::BodyRef) -> bool {
    world.engine().store().body(body).await.is_ok()
}

#[tokio::test]
async fn bodies_go_early_and_their_key_stays() {
    for mut world in every(&briefly()) {
        let first = world.answered(post("k")).await.operation;
        let ended_at = first.ended_at.unwrap();
        assert!(world.answered(post("k")).await.replayed, "as long as they are kept");
        world.clock.advance_to(ended_at.plus(HOUR));
        for _ in 0..2 {
            let refusal = world.refused(post("k")).await;
            let Refusal::ResponseNotRetained(known) = refusal else { panic!("{refusal:?}") };
            assert_eq!((known.id, known.outcome.unwrap().status), (first.id, Some(201)));
            world.restart().await;
        }
        let mut other = post("k");
        other.request.target = "/elsewhere".into();
        let refusal = world.refused(other).await;
        assert!(matches!(refusal, Refusal::KeyMismatch { .. }), "{refusal:?}");
        assert_eq!(world.upstream.dispatched(), 1);
    }
}

#[tokio::test]
async fn things_go_in_order_payload_then_answer_then_the_key_to_its_mark_and_the_mark_last() {
    for world in every(&briefly()) {
        let id = world.answered(post("k")).await.operation.id;
        let find = async || world.find_now(id).await;
        let kept = find().await.unwrap();
        let is_gone = async || {
            let found = find().await.unwrap();
            found.bodies().next().is_none()
        };
        world.pass_time(2 * HOUR).await;
        if !world.engine().store().is_shared() {
            world.until("the bodies are gone", is_gone).await;
            let found = find().await.unwrap();
            assert_eq!((Standing::of(&found), found.attempts.len()), (Standing::Done, 1));
        }
        let refusal = world.refused(post("k")).await;
        assert!(matches!(refusal, Refusal::ResponseNotRetained(_)), "{refusal:?}");
        world.pass_time(kept.window).await;
        world
            .until("it is a mark", async || {
                find().await.as_ref().map(Standing::of) == Some(Standing::Tombstone)
            })
            .await;
        let mark = find().await.unwrap();
        assert_eq!((mark.key.as_str(), mark.attempts.len(), mark.label.as_deref()), ("k", 0, None));
        let refusal = world.refused(post("k")).await;
        assert!(matches!(refusal, Refusal::KeyExpired(_)), "{refusal:?}");
        world.pass_time(kept.tombstone).await;
        world.until("nothing is left", async || find().await.is_none()).await;
        assert!(!world.answered(post("k")).await.replayed);
        assert_eq!(world.upstream.dispatched(), 2);
    }
}

#[tokio::test]
async fn what_may_be_sent_again_keeps_its_request() {
    for world in every(&briefly()) {
        let mut once = accepted("dead");
        once.options.attempts_max = Some(1);
        world.upstream.script([unsent()]);
        taken(world.call(once).await);
        let dead = world.stands("dead", "dead").await;
        world.pass_time(2 * HOUR).await;
        world.pass_time(2 * HOUR).await;
        assert!(read(&world, dead.request.unwrap()).await);
        world.engine().redeliver(dead.id, &person()).await.unwrap();
        world.stands("dead", "done").await;
        assert_eq!(world.upstream.effects("dead"), 1);
    }
}

#[tokio::test]
async fn what_a_route_redacts_is_seen_by_no_person_and_replayed_to_callers() {
    let redact = Redaction { pointers: vec!["/card/number".to_owned()], ..Redaction::default() };
    let policy = Policy { redact: redact.clone(), ..effects(Effects::NonIdempotent) };
    for world in every(&policy) {
        let body = Bytes::from_static(br#"{"card":{"number":"4242"},"n":1}"#);
        world.upstream.script([answer(401, body.clone()), answer(201, body.clone())]);
        let mut call = post("k");
        call.request.body = body.clone();
        let refused = world.answered(call.clone()).await;
        assert_eq!(refused.response.body, body, "who asked gets it whole");
        let dead = world.operation("k").await;
        let excerpt = dead.attempts[0].ended.as_ref().unwrap().answer.unwrap();
        let excerpt = world.engine().store().body(excerpt).await.unwrap();
        let (seen, cut) =
            wire::decode_excerpt(&excerpt, dead.id, 1, world.engine().secrets()).unwrap();
        assert_eq!(&seen.body[..], br#"{"card":{"number":"[redacted]"},"n":1}"#);
        assert!(cut, "it is not to pose as the answer");
        let done = world.answered(call.clone()).await;
        let again = world.answered(call).await;
        assert_eq!((&done.response.body, &again.response.body), (&body, &body));
        assert_eq!(world.engine().redaction_of(&done.operation), redact);
        let seen = redact.body(None, &body).unwrap();
        assert_eq!(&seen[..], br#"{"card":{"number":"[redacted]"},"n":1}"#);
    }
}
