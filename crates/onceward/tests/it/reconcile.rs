//! What was done, held against what the provider lists.

use std::sync::Arc;
use std::time::Duration;

use onceward::Report;
use onceward::core::path_template::PathTemplate;
use onceward::core::policy::Effects;
use onceward::core::reconcile::ReconcileRule;
use onceward::route::{Route, Routes};
use onceward::store::Query;
use serde_json::json;

use crate::world::{PAY, World, answer, effects, every_with, post, route, routes, unanswered};

const HOUR: Duration = Duration::from_hours(1);

fn rule() -> ReconcileRule {
    ReconcileRule {
        get: PathTemplate::read("/charges?since={since}").unwrap(),
        get_next: None,
        every: HOUR,
        settle: Duration::from_mins(1),
        items: "/data".to_owned(),
        key: "/key".to_owned(),
        next: Some("/next".to_owned()),
        equal: vec![("/amount".to_owned(), "/amount".to_owned())],
    }
}

fn with(rule: ReconcileRule) -> Routes {
    let pay = route(PAY, &effects(Effects::NonIdempotent));
    routes([Route { reconcile: Some(Arc::new(rule)), ..pay }])
}

/// The first report after `before`.
async fn report(world: &World, before: Option<&Report>) -> Report {
    let read = async || world.engine().reconciled(PAY).await.unwrap();
    world
        .until("a report", async || match (read().await, before) {
            (Some(report), Some(before)) => report.at() > before.at(),
            (report, None) => report.is_some(),
            (None, Some(_)) => false,
        })
        .await;
    read().await.unwrap()
}

#[tokio::test]
async fn what_does_not_agree_is_reported_and_nothing_is_sent() {
    let empty = || answer(200, r#"{"data": []}"#);
    let mut worlds = Vec::new();
    for mut world in every_with(&routes([route(PAY, &effects(Effects::NonIdempotent))])) {
        world.upstream.script([empty()]);
        world.set_routes(with(rule()));
        worlds.push(world);
    }
    for world in worlds {
        let first = report(&world, None).await;
        assert_eq!((first.listed, first.operations, first.error.as_deref()), (0, 0, None));
        world.upstream.script([answer(201, ""), answer(201, ""), answer(201, ""), unanswered()]);
        for key in ["same", "missing", "other", "doubt"] {
            let _ = world.call(post(key)).await;
        }
        let one = json!({"data": [{"key": "same", "amount": 100}, {"key": "other", "amount": 99}], "next": "/charges?page=2"});
        let two =
            json!({"data": [{"key": "doubt", "amount": 100}, {"key": "stranger", "amount": 1}]});
        world.upstream.script([answer(200, one.to_string()), answer(200, two.to_string())]);
        world.pass_time(HOUR).await;
        let second = report(&world, Some(&first)).await;
        assert_eq!(
            (second.listed, second.operations, second.is_complete),
            (4, 4, true),
            "{second:?}"
        );
        assert_eq!((second.missing.0, second.missing.1[0].1.as_str()), (1, "missing"));
        assert_eq!(second.unknown, (1, vec!["stranger".to_owned()]));
        let differing: Vec<_> = second
            .differing
            .1
            .iter()
            .map(|it| (it.1.as_str(), it.2.as_str(), it.3.as_str()))
            .collect();
        assert_eq!(differing, [("state", "in_doubt", "listed"), ("/amount", "100", "99")]);
        assert_eq!(first.period().1, second.period().0, "no time is left out");
        let seen = world.upstream.seen();
        let asked: Vec<_> = seen
            .iter()
            .filter(|seen| seen.method == "GET")
            .map(|seen| seen.target.as_str())
            .collect();
        assert_eq!(asked.len(), 3);
        assert!(asked[1].starts_with("/charges?since=2025-12-31T23%3A58"), "{asked:?}");
        assert_eq!(asked[2], "/charges?page=2");
        assert_eq!(seen.len(), 7, "nothing else is sent");
    }
}

#[tokio::test]
async fn a_list_that_cannot_be_read_is_told_and_its_time_is_compared_later() {
    let mut world = World::in_memory(routes([route(PAY, &effects(Effects::NonIdempotent))]));
    for (status, body, why) in [
        (500, "", "answered 500"),
        (200, "<html>", "no JSON"),
        (200, r#"{"items": []}"#, "no list at /data"),
        (200, r#"{"data": [], "next": "https://elsewhere.test/x"}"#, "another address"),
    ] {
        let before = world.engine().reconciled(PAY).await.unwrap();
        world.upstream.script([answer(status, body)]);
        match &before {
            None => world.set_routes(with(rule())),
            Some(_) => world.pass_time(HOUR).await,
        }
        let report = report(&world, before.as_ref()).await;
        assert!(report.error.as_ref().is_some_and(|error| error.contains(why)), "{report:?}");
        assert_eq!(report.period().0, report.period().1);
        assert!(before.is_none_or(|before| before.period() == report.period()));
    }
}

#[tokio::test]
async fn one_node_compares_and_the_other_does_not() {
    let world = World::in_memory(with(rule()));
    world.upstream.script([answer(200, r#"{"data": []}"#)]);
    let first = report(&world, None).await;
    let other = world.neighbour();
    other.start();
    other.call(post("k")).await.unwrap();
    world.upstream.script([answer(200, r#"{"data": []}"#), answer(500, "")]);
    world.pass_time(HOUR).await;
    let second = report(&world, Some(&first)).await;
    assert_eq!(second.error, None);
    let asked = world.upstream.seen().iter().filter(|seen| seen.method == "GET").count();
    assert_eq!(asked, 2);
    let turns = world.engine().store().settings("reconciling/".to_owned()).await.unwrap();
    assert_eq!(turns.len(), 1, "turns that are over are forgotten");
    assert_eq!(
        world
            .engine()
            .store()
            .list(Query { limit: 9, ..Query::default() })
            .await
            .unwrap()
            .operations
            .len(),
        1
    );
}
