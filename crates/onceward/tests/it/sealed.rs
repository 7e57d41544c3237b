//! What lies sealed in the ledger: nobody who has its files or its tables reads a request, an answer or
//! a credential, and what was sealed opens as itself alone.

use bytes::Bytes;
use onceward::core::exchange::Headers;
use onceward::core::key::Key;
use onceward::core::operation::{Fence, Operation};
use onceward::core::policy::{Effects, Policy};
use onceward::store::{StoreError, Write};
use onceward::{Beginning, Begun, ClaimKey, Ended, Refusal, wire};

use crate::world::{
    PAY, World, accepted, answer, effects, every, post, route, routes, taken, with_header,
};

fn sealed() -> Policy {
    Policy { seal_bodies: true, ..effects(Effects::Keyed) }
}

/// Worlds whose ledger is somewhere.
fn kept() -> impl Iterator<Item = World> {
    every(&sealed()).into_iter().filter(|world| !world.is_in_memory())
}

#[tokio::test]
async fn no_request_answer_or_credential_is_anywhere_in_the_ledger() {
    for mut world in kept() {
        world.upstream.script([
            answer(503, "canary-excerpt").header("x-canary", "canary-excerpt-header"),
            answer(201, "{\"made\": \"canary-answer\"}").header("location", "/canary-location"),
        ]);
        let mut call = accepted("k");
        call.request.body = Bytes::from_static(br#"{"note": "canary-request"}"#);
        for name in ["authorization", "x-other"] {
            call.request.headers.set(name, format!("canary-{name}"));
        }
        taken(world.call(call.clone()).await);
        world.let_retry("k").await;
        world.stands("k", "done").await;
        let engine = world.engine();
        engine.seal_bodies(true);
        let key = Key::new("c").unwrap();
        let claim = ClaimKey { tenant: "t".into(), scope: "s".into(), key };
        let beginning = Beginning { nonce: Some("canary-nonce".into()), ..Beginning::default() };
        let begun = engine.begin_claim(&claim, &beginning).await.unwrap();
        let Begun::Acquired(acquired) = begun else { panic!("{begun:?}") };
        let fence = onceward::core::claim::fence_of(&acquired).unwrap();
        let outcome = Bytes::from_static(b"canary-outcome");
        let ended = Ended { ok: true, outcome: outcome.clone(), content_type: None };
        engine.complete_claim(&claim, fence, &ended).await.unwrap();
        for _ in 0..2 {
            assert_eq!(world.holders("canary").await, Vec::<String>::new());
            assert_ne!(world.holders("/payments").await, Vec::<String>::new(), "it would be found");
            world.restart().await;
        }
        call.options.respond_async = false;
        let again = world.answered(call).await;
        assert_eq!(again.response.body, "{\"made\": \"canary-answer\"}");
        assert_eq!(again.response.headers.get("location").unwrap(), "/canary-location");
        assert_eq!(world.engine().claim(&claim).await.unwrap().1.unwrap().body, outcome);
    }
}

#[tokio::test]
async fn what_was_written_stays_readable_whatever_is_sealed_from_then_on() {
    for mut world in every(&sealed()) {
        for (n, seal_bodies) in [true, false, true].into_iter().enumerate() {
            world.set_policy(&Policy { seal_bodies, ..sealed() });
            let key = format!("k{n}");
            world.upstream.script([answer(201, format!("answer {n}"))]);
            world.answered(post(&key)).await;
            for before in 0..=n {
                let again = world.answered(post(&format!("k{before}"))).await;
                assert!(again.replayed);
                assert_eq!(again.response.body, format!("answer {before}"));
                let mut other = post(&format!("k{before}"));
                other.request.body = Bytes::from_static(b"{\"amount\": 101}");
                let refusal = world.refused(other).await;
                let Refusal::KeyMismatch { paths, .. } = &refusal else { panic!("{refusal:?}") };
                assert!(!paths.is_empty(), "the request is read too");
            }
        }
    }
}

/// Refers where `a` says to what `b` has there.
async fn exchange(world: &World, a: &str, b: &str, refer: impl Fn(&mut Operation, &Operation)) {
    let (mut one, other) = (world.operation(a).await, world.operation(b).await);
    refer(&mut one, &other);
    one.fence = Fence(one.fence.0 + 1);
    let write = Write { operation: one, answer: None, visible: true };
    world.engine().store().commit(write).await.unwrap();
}

fn is_damage(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Ledger(StoreError::Damaged(_)))
}

#[tokio::test]
async fn a_ciphertext_in_another_place_is_damage_and_never_somebody_elses_answer() {
    for world in every(&sealed()) {
        for key in ["a", "b", "c"] {
            world.answered(post(key)).await;
        }
        exchange(&world, "a", "b", |a, b| a.outcome = b.outcome.clone()).await;
        let refusal = world.refused(post("a")).await;
        assert!(is_damage(&refusal), "another operation's answer: {refusal:?}");
        exchange(&world, "b", "c", |b, c| b.request = c.request).await;
        let mut other = post("b");
        other.request.body = Bytes::from_static(b"{}");
        let refusal = world.refused(other).await;
        assert!(is_damage(&refusal), "another operation's request: {refusal:?}");
        exchange(&world, "c", "c", |c, _| c.outcome.as_mut().unwrap().answer = c.request).await;
        let refusal = world.refused(post("c")).await;
        assert!(is_damage(&refusal), "its own request: {refusal:?}");
    }
}

#[tokio::test]
async fn a_retry_from_the_ledger_carries_what_was_sealed() {
    for world in kept() {
        world.upstream.script([answer(503, "")]);
        taken(world.call(with_header(accepted("k"), "authorization", "Bearer mine")).await);
        world.let_retry("k").await;
        let done = world.stands("k", "done").await;
        let seen = world.upstream.seen();
        assert_eq!(seen[1].header("authorization"), "Bearer mine");
        assert_eq!((&seen[1].body, &seen[1].target), (&seen[0].body, &seen[0].target));
        let bytes = world.engine().store().body(done.request.unwrap()).await.unwrap();
        let read = |credentials| {
            wire::decode_request(&bytes, done.id, world.engine().secrets(), credentials).unwrap()
        };
        assert_eq!(read(wire::Credentials::Left).headers.get("authorization"), None);
        let headers: Headers = read(wire::Credentials::Opened).headers;
        assert_eq!(headers.get("authorization").unwrap(), "Bearer mine");
    }
}

#[tokio::test]
async fn a_route_that_says_nothing_seals_credentials_alone() {
    let policy = Policy { seal_bodies: false, ..sealed() };
    let world = World::on_disk_as_it_is(routes([route(PAY, &policy)]));
    let call = with_header(post("k"), "authorization", "canary-credential");
    let call = with_header(call, "x-plain", "plain-as-day");
    world.answered(call).await;
    assert_ne!(world.holders("plain-as-day").await, Vec::<String>::new());
    assert_eq!(world.holders("canary-credential").await, Vec::<String>::new());
}
