//! One key for two requests: refused, and nothing is sent.

use bytes::Bytes;
use onceward::core::fingerprint::Part;
use onceward::core::policy::{Effects, Policy};
use onceward::{Call, Refusal};

use crate::world::{
    Gate, World, answer, answered, effects, every, every_with, post, route, routes, unanswered,
    with_header,
};

fn with_body(mut call: Call, body: &'static str) -> Call {
    call.request.body = Bytes::from_static(body.as_bytes());
    call
}

/// Each other request, which parts differ, and where in the body.
fn others() -> Vec<(Call, Vec<Part>, Vec<&'static str>)> {
    let mut path = post("k");
    path.request.target = "/refunds?dry=no".into();
    let mut method = post("k");
    method.request.method = "PATCH".into();
    let mut query = post("k");
    query.request.target = "/payments?dry=yes".into();
    vec![
        (path, vec![Part::Target], vec![]),
        (method, vec![Part::Target], vec![]),
        (query, vec![Part::Query], vec![]),
        (with_header(post("k"), "content-type", "text/plain"), vec![Part::Headers], vec![]),
        (with_header(post("k"), "if-match", "\"7\""), vec![Part::Headers], vec![]),
        (
            with_body(post("k"), r#"{"amount": 242424242424242, "to": "anna", "note": "hush"}"#),
            vec![Part::Body],
            vec!["/amount", "/note"],
        ),
        (with_body(post("k"), "not json: 242424242424242"), vec![Part::Body], vec![]),
    ]
}

async fn all_are_refused(world: &World) {
    let sent = world.upstream.dispatched();
    let before = world.operation("k").await;
    for (other, differing, places) in others() {
        let refusal = world.refused(other).await;
        let Refusal::KeyMismatch { operation, parts, mut paths, status } = refusal else {
            panic!("{refusal:?}")
        };
        paths.sort();
        assert_eq!(
            (parts, paths, status),
            (differing, places.iter().map(ToString::to_string).collect(), 409)
        );
        assert_eq!(operation.id, before.id);
        let told = format!("{operation:?}");
        assert!(
            !told.contains("242424242424242") && !told.contains("hush"),
            "a value is never told"
        );
    }
    assert_eq!(world.upstream.dispatched(), sent, "a refused call has sent nothing");
    assert_eq!(world.operation("k").await, before, "and changed nothing");
}

#[tokio::test]
async fn another_request_is_refused_while_the_first_is_under_way_and_after_it() {
    for mut world in every(&effects(Effects::NonIdempotent)) {
        let gate = Gate::closed();
        world.upstream.script([answer(201, "made").behind(&gate)]);
        let first = world.begin(post("k"));
        world.until_dispatched(1).await;
        all_are_refused(&world).await;
        gate.open();
        answered(first.result().await);
        all_are_refused(&world).await;
        world.restart().await;
        all_are_refused(&world).await;
    }
}

#[tokio::test]
async fn another_request_is_refused_where_the_first_is_in_doubt_or_dead() {
    for world in every(&effects(Effects::NonIdempotent)) {
        world.upstream.script([unanswered()]);
        let _ = world.call(post("k")).await;
        all_are_refused(&world).await;
    }
    for world in every(&effects(Effects::Keyed)) {
        world.upstream.script([answer(401, "who?")]);
        let _ = world.call(post("k")).await;
        all_are_refused(&world).await;
    }
}

#[tokio::test]
async fn the_same_json_in_another_order_and_with_another_credential_is_the_same_request() {
    for world in every(&effects(Effects::NonIdempotent)) {
        world.answered(with_header(post("k"), "authorization", "Bearer one")).await;
        let again = with_body(post("k"), "{ \"to\":\"anna\",\n \"amount\":1e2 }");
        assert!(world.answered(with_header(again, "authorization", "Bearer two")).await.replayed);
        assert_eq!(world.upstream.dispatched(), 1);
    }
}

#[tokio::test]
async fn two_numbers_that_only_look_equal_as_doubles_are_two_requests() {
    for world in every(&effects(Effects::NonIdempotent)) {
        world.answered(with_body(post("k"), r#"{"amount":9007199254740992}"#)).await;
        let refusal = world.refused(with_body(post("k"), r#"{"amount":9007199254740993}"#)).await;
        assert!(matches!(refusal, Refusal::KeyMismatch { .. }), "{refusal:?}");
    }
}

#[tokio::test]
async fn a_route_may_answer_a_mismatch_as_the_draft_has_it() {
    for world in every(&Policy { mismatch_status: 422, ..effects(Effects::NonIdempotent) }) {
        world.answered(post("k")).await;
        let refusal = world.refused(with_body(post("k"), "{}")).await;
        assert!(matches!(refusal, Refusal::KeyMismatch { status: 422, .. }), "{refusal:?}");
    }
}

#[tokio::test]
async fn another_tenant_principal_or_route_with_the_same_key_is_unrelated() {
    let policy = effects(Effects::NonIdempotent);
    let all = routes([route("pay", &policy), route("mail", &policy)]);
    for world in every_with(&all) {
        let mut tenant = with_body(post("k"), r#"{"of": "another tenant"}"#);
        tenant.tenant = "u".into();
        let mut principal = with_body(post("k"), r#"{"of": "another principal"}"#);
        principal.principal = "p".into();
        let mut elsewhere = with_body(post("k"), r#"{"of": "another route"}"#);
        elsewhere.route = "mail".into();
        let calls = [post("k"), tenant, principal, elsewhere];
        let mut ids = Vec::new();
        for call in calls.clone() {
            let got = world.answered(call).await;
            assert!(!got.replayed);
            ids.push((got.operation.id, got.response.body));
        }
        for (call, (id, body)) in calls.into_iter().zip(ids) {
            let got = world.answered(call).await;
            assert_eq!((got.operation.id, &got.response.body, got.replayed), (id, &body, true));
        }
        assert_eq!(world.upstream.dispatched(), 4);
        let hosts: Vec<String> = world.upstream.seen().into_iter().map(|one| one.host).collect();
        assert_eq!(hosts, ["pay.test", "pay.test", "pay.test", "mail.test"]);
    }
}

#[tokio::test]
async fn a_route_that_compares_otherwise_from_now_on_breaks_no_key_that_is_there() {
    use onceward::core::fingerprint::{BodyRule, FingerprintRule, QueryRule};
    let rules = [
        FingerprintRule::default(),
        FingerprintRule { body: BodyRule::Raw, ..FingerprintRule::default() },
        FingerprintRule { ignore: vec!["/at".into()], ..FingerprintRule::default() },
        FingerprintRule { query: QueryRule::None, ..FingerprintRule::default() },
        FingerprintRule { headers: vec!["authorization".into()], ..FingerprintRule::default() },
    ];
    let under = |rule: &FingerprintRule| Policy {
        fingerprint: rule.clone(),
        ..effects(Effects::NonIdempotent)
    };
    let call = || with_header(post("k"), "authorization", "Bearer caller");
    for before in &rules {
        for after in rules.iter().filter(|after| *after != before) {
            for mut world in every(&under(before)).into_iter().take(2) {
                world.answered(call()).await;
                world.set_routes(routes([route("pay", &under(after))]));
                assert!(world.answered(call()).await.replayed, "{before:?} {after:?}");
                let other = with_body(call(), r#"{"amount": 242424242424242, "to": "anna"}"#);
                let refusal = world.refused(other).await;
                let Refusal::KeyMismatch { parts, .. } = refusal else { panic!("{refusal:?}") };
                assert_eq!(parts, [Part::Body], "compared under one rule: {before:?} {after:?}");
                world.clock.advance(under(after).window);
                world.pass_time(std::time::Duration::from_mins(30)).await;
                let refusal = world.refused(call()).await;
                assert!(matches!(refusal, Refusal::KeyExpired(_)), "{refusal:?}");
                assert_eq!(world.upstream.dispatched(), 1);
            }
        }
    }
}
