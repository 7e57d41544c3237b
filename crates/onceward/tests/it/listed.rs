//! Doubts that a person resolves by a provider's list.

use std::time::Duration;

use onceward::core::condition::Condition;
use onceward::core::id::OperationId;
use onceward::core::operation::{Deed, Source, State};
use onceward::core::policy::Effects;
use onceward::{Evidence, Sifted};
use serde_json::{Value, json};

use crate::world::{PAY, World, answer, effects, every, person, post};

fn list(items: &[Value]) -> Evidence {
    Evidence {
        tenant: None,
        route: PAY.to_owned(),
        items: items.to_vec(),
        name: "/ref".to_owned(),
        found: None,
        absent_as_of: None,
    }
}

async fn in_doubt(world: &World, keys: &[&str]) -> Vec<OperationId> {
    let mut ids = Vec::new();
    for key in keys {
        world.upstream.script([answer(500, "oh")]);
        let _ = world.call(post(key)).await;
        ids.push(world.operation(key).await.id);
    }
    ids
}

#[tokio::test]
async fn a_plan_tells_and_changes_nothing_and_a_run_does_what_the_plan_said() {
    for world in every(&effects(Effects::NonIdempotent)) {
        let ids = in_doubt(&world, &["a", "b", "c", "d"]).await;
        let items = [
            json!({"ref": "a", "paid": true, "id": 7}),
            json!({"ref": "b", "paid": false}),
            json!({"ref": "d", "paid": true}),
            json!({"ref": "d", "paid": true}),
            json!({"ref": "elsewhere", "paid": true}),
            json!({"no": "ref"}),
        ];
        let found = Condition::read(&json!({"json": {"/paid": true}})).unwrap();
        let evidence = Evidence { found: Some(found), ..list(&items) };
        let engine = world.engine();
        let plan = engine.resolve_by_list(&evidence, &person(), true).await.unwrap();
        let expected = Sifted {
            listed: vec![ids[0]],
            doubled: vec![ids[3]],
            unclear: vec![ids[1]],
            absent: vec![ids[2]],
            ..Sifted::default()
        };
        assert_eq!(plan, expected);
        assert_eq!(world.operation("a").await.state, State::InDoubt, "nothing is done by a plan");
        let run = engine.resolve_by_list(&evidence, &person(), false).await.unwrap();
        assert_eq!(run, Sifted { resolved: 2, ..expected });
        let done = world.operation("a").await;
        assert_eq!((done.state, done.outcome.unwrap().source), (State::Done, Source::Person));
        let act = done.acts.last().unwrap();
        assert_eq!((act.deed, act.who.as_str()), (Deed::ResolvedDone, "anna"));
        assert!(
            act.reason.starts_with("asked the bank\n") && act.reason.contains(r#""id":7"#),
            "{}",
            act.reason
        );
        for key in ["b", "c"] {
            assert_eq!(world.operation(key).await.state, State::InDoubt, "{key}");
        }
        assert_eq!(world.upstream.dispatched(), 4, "nothing is sent");
    }
}

#[tokio::test]
async fn what_is_not_listed_is_sent_again_only_where_a_person_says_when_the_list_was_taken() {
    for world in every(&effects(Effects::NonIdempotent)) {
        in_doubt(&world, &["old"]).await;
        world.clock.advance(Duration::from_secs(90));
        in_doubt(&world, &["new"]).await;
        let as_of = Some(world.clock.now());
        let evidence = Evidence { absent_as_of: as_of, ..list(&[]) };
        let run = world.engine().resolve_by_list(&evidence, &person(), false).await.unwrap();
        assert_eq!((run.absent.len(), run.recent.len(), run.resolved), (1, 1, 1));
        world.stands("old", "done").await;
        assert_eq!(world.operation("new").await.state, State::InDoubt, "it may not be listed yet");
        assert_eq!(world.upstream.effects("old"), 1);
    }
}
