//! A replay is the first answer, byte for byte; and what is no final answer is not replayed.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use bytes::Bytes;
use onceward::core::operation::{Death, Source, State};
use onceward::core::policy::{Effects, OnDead, Policy};
use onceward::{Answered, Refusal};

use crate::world::{
    PAY, accepted, answer, answered, effects, essence, every, post, route, routes, taken,
    truncated, with_header,
};

#[tokio::test]
async fn repeated_headers_binary_bodies_and_trailers_come_back_as_they_were() {
    let policy = Policy { keep_headers: vec!["x-total".to_owned()], ..effects(Effects::Keyed) };
    for mut world in every(&policy) {
        let made = answer(200, &b"\x00\xff\r\n"[..])
            .piece(Bytes::from(vec![0xfe; 9_000]))
            .piece("end")
            .header("link", "</b>; rel=next")
            .header("x-total", &b"\xe9"[..])
            .header("link", "</a>; rel=prev")
            .header("date", "Thu, 01 Jan 2026 00:00:00 GMT")
            .header("connection", "x-hop")
            .header("x-hop", "1")
            .header("onceward-state", "spoofed")
            .trailer("x-checksum", "abc");
        world.upstream.script([made]);
        let first = world.answered(post("k")).await.response;
        assert_eq!(first.body.len(), 4 + 9_000 + 3);
        assert_eq!(first.headers.text("date"), Some("Thu, 01 Jan 2026 00:00:00 GMT"));
        assert_eq!((first.headers.get("x-hop"), first.headers.get("onceward-state")), (None, None));
        for _ in 0..2 {
            let again = world.answered(post("k")).await.response;
            assert_eq!((again.status, &again.body), (first.status, &first.body));
            assert_eq!(again.trailers, first.trailers);
            assert_eq!(again.trailers.text("x-checksum"), Some("abc"));
            let links: Vec<&[u8]> = again.headers.all("link").map(AsRef::as_ref).collect();
            assert_eq!(links, [&b"</b>; rel=next"[..], b"</a>; rel=prev"], "repeats stay apart");
            assert_eq!(again.headers.get("x-total").map(AsRef::as_ref), Some(&b"\xe9"[..]));
            assert_eq!(again.headers.get("date"), None, "what is of one moment is not kept");
            world.restart().await;
        }
    }
}

#[tokio::test]
async fn a_final_refusal_is_replayed_and_not_sent_again() {
    for status in [301, 303, 400, 402, 404, 409, 410, 422] {
        for world in every(&effects(Effects::NonIdempotent)) {
            world.upstream.script([answer(status, "no").header("location", "/there")]);
            let first = world.answered(post("k")).await;
            let again = world.answered(post("k")).await;
            assert_eq!(first.operation.state, State::Done, "{status}");
            assert_eq!(essence(&again.response), (status, &b"no"[..]));
            assert_eq!(again.response.headers.text("location"), Some("/there"));
            assert!(again.replayed);
            assert_eq!(world.upstream.dispatched(), 1);
        }
    }
}

#[tokio::test]
async fn a_refusal_for_now_is_not_kept_and_the_same_key_runs_again_with_the_new_credentials() {
    for status in [401, 403, 407, 423, 426, 428, 431] {
        for world in every(&effects(Effects::NonIdempotent)) {
            world.upstream.script([answer(status, "who?").header("www-authenticate", "Bearer")]);
            let first = world.answered(with_header(post("k"), "authorization", "Bearer old")).await;
            assert_eq!(essence(&first.response), (status, &b"who?"[..]));
            assert_eq!(first.operation.state, State::Dead(Death::Refused));
            let second =
                world.answered(with_header(post("k"), "authorization", "Bearer new")).await;
            assert_eq!((second.response.status, second.replayed), (201, false));
            assert_eq!(second.operation.id, first.operation.id);
            let seen = world.upstream.seen();
            let sent: Vec<_> = seen.iter().map(|one| one.header("authorization")).collect();
            assert_eq!(sent, ["Bearer old", "Bearer new"]);
            assert_eq!(seen[0].body, seen[1].body);
            assert_eq!(world.upstream.effects("k"), 1);
        }
    }
}

#[tokio::test]
async fn a_retry_from_the_ledger_has_the_credentials_of_whoever_asked_last() {
    for mut world in every(&effects(Effects::Keyed)) {
        world.upstream.script([answer(401, ""), answer(503, "")]);
        taken(world.call(with_header(accepted("k"), "authorization", "Bearer old")).await);
        world.stands("k", "dead").await;
        let call = with_header(accepted("k"), "authorization", "Bearer new");
        taken(world.call(call).await);
        world.until_dispatched(2).await;
        world.stands("k", "pending").await;
        world.restart().await;
        world.let_retry("k").await;
        world.stands("k", "done").await;
        let seen = world.upstream.seen();
        let sent: Vec<_> = seen.iter().map(|one| one.header("authorization")).collect();
        assert_eq!(sent, ["Bearer old", "Bearer new", "Bearer new"]);
        assert!(seen.iter().all(|one| one.body == seen[0].body && one.key() == "k"));
    }
}

#[tokio::test]
async fn a_4xx_that_asks_to_come_back_is_not_kept() {
    for world in every(&effects(Effects::NonIdempotent)) {
        world.upstream.script([answer(409, "busy").header("retry-after", "1")]);
        assert_eq!(world.answered(post("k")).await.response.status, 409);
        assert_eq!(world.answered(post("k")).await.response.status, 201);
    }
}

/// All of an answer: what was read before the verdict, and the rest as it comes.
async fn whole(answered: Box<Answered>) -> Vec<u8> {
    let mut all = answered.response.body.to_vec();
    let mut rest = answered.rest.expect("there is more");
    while let Some(piece) = rest.chunk().await.unwrap() {
        all.extend(piece);
    }
    all
}

#[tokio::test]
async fn a_large_answer_is_passed_on_whole_and_only_its_fact_is_kept() {
    for store in 0..2 {
        let policy = effects(Effects::NonIdempotent);
        let mut world = every(&policy).into_iter().nth(store).unwrap();
        let mut small = route(PAY, &policy);
        small.response_bytes_max = 1_000;
        world.set_routes(routes([small]));
        let pieces: Vec<Bytes> = (0..10u8).map(|n| Bytes::from(vec![n; 300])).collect();
        let made = pieces
            .iter()
            .skip(1)
            .fold(answer(201, pieces[0].clone()), |step, piece| step.piece(piece.clone()));
        world.upstream.script([made]);
        let first = world.answered(post("k")).await;
        assert_eq!(first.operation.outcome.as_ref().unwrap().source, Source::TooLarge);
        assert_eq!(whole(first).await, pieces.concat());
        let refusal = world.refused(post("k")).await;
        let Refusal::ResponseNotRetained(operation) = refusal else { panic!("{refusal:?}") };
        assert_eq!((operation.state, operation.outcome.unwrap().status), (State::Done, Some(201)));
        assert_eq!(world.upstream.dispatched(), 1);
    }
}

#[tokio::test]
async fn an_answer_exactly_as_large_as_what_is_kept_is_kept() {
    let policy = effects(Effects::NonIdempotent);
    let mut world = every(&policy).into_iter().nth(1).unwrap();
    let mut small = route(PAY, &policy);
    small.response_bytes_max = 1_000;
    world.set_routes(routes([small]));
    world.upstream.script([answer(201, vec![7; 400]).piece(vec![8; 600])]);
    let first = world.answered(post("k")).await;
    assert!(first.rest.is_none());
    assert_eq!(world.answered(post("k")).await.response.body, first.response.body);
}

#[tokio::test]
async fn a_large_ambiguous_answer_cut_short_is_never_replayed_as_if_it_were_whole() {
    let policy = Policy { on_dead: OnDead::Replay, ..effects(Effects::Keyed) };
    let mut world = every(&policy).into_iter().next().unwrap();
    let mut small = route(PAY, &policy);
    small.response_bytes_max = 10;
    world.set_routes(routes([small]));
    world.upstream.script((0..3).map(|_| answer(503, "0123456789").piece("more")));
    let first = answered(world.call_through(post("k")).await);
    assert_eq!(whole(first).await, b"0123456789more");
    let refusal = world.refused(post("k")).await;
    assert!(matches!(refusal, Refusal::NoAnswer(_)), "{refusal:?}");
}

#[tokio::test]
async fn a_success_whose_answer_broke_off_is_done_and_has_no_answer_to_replay() {
    for world in every(&effects(Effects::NonIdempotent)) {
        world.upstream.script([truncated(201, "hal")]);
        for _ in 0..2 {
            let refusal = world.refused(post("k")).await;
            let Refusal::ResponseNotRetained(operation) = refusal else { panic!("{refusal:?}") };
            assert_eq!(operation.state, State::Done);
            let outcome = operation.outcome.unwrap();
            assert_eq!((outcome.status, outcome.source), (Some(201), Source::Truncated));
        }
        assert_eq!((world.upstream.dispatched(), world.upstream.effects("k")), (1, 1));
    }
}

#[tokio::test]
async fn a_stored_failure_is_replayed_where_the_route_says_so() {
    let policy = Policy { on_dead: OnDead::Replay, ..effects(Effects::Keyed) };
    for mut world in every(&policy) {
        world.upstream.script((0..3).map(|n| answer(503, format!("no {n}"))));
        let first = answered(world.call_through(post("k")).await);
        for _ in 0..2 {
            let again = world.answered(post("k")).await;
            assert_eq!(essence(&again.response), essence(&first.response));
            assert!(again.replayed);
            world.restart().await;
        }
        assert_eq!(world.upstream.dispatched(), 3);
    }
}
