//! What an answer made is kept by name, found by it, and forgotten with it.

use std::time::Duration;

use onceward::core::policy::{Effects, Policy};
use onceward::store::Query;

use crate::world::{World, answer, effects, every, post};

fn policy() -> Policy {
    let pair = |name: &str, pointer: &str| (name.to_owned(), pointer.to_owned());
    let ids = vec![pair("order", "/id"), pair("customer", "/customer/id")];
    Policy { ids, ..effects(Effects::NonIdempotent) }
}

async fn found(world: &World, name: Option<&str>, id: &str) -> Vec<String> {
    let made = Some((name.map(str::to_owned), id.to_owned()));
    let query = Query { made, limit: 9, ..Query::default() };
    let page = world.engine().store().list(query).await.unwrap();
    page.operations.iter().map(|operation| operation.key.as_str().to_owned()).collect()
}

#[tokio::test]
async fn an_operation_is_found_by_what_it_made_after_a_restart_too() {
    for mut world in every(&policy()) {
        world.upstream.script([
            answer(201, r#"{"id": "ord_1", "customer": {"id": 77}}"#),
            answer(201, r#"{"id": "ord_2", "customer": {"id": 77}}"#),
            answer(201, "no JSON"),
        ]);
        for key in ["a", "b", "c"] {
            world.answered(post(key)).await;
        }
        for round in 0..2 {
            assert_eq!(found(&world, None, "77").await, ["b", "a"]);
            assert_eq!(found(&world, Some("order"), "ord_1").await, ["a"]);
            assert!(found(&world, Some("customer"), "ord_1").await.is_empty());
            assert!(world.operation("c").await.ids.is_empty());
            if round == 0 {
                world.restart().await;
            }
        }
        world.pass_time(Duration::from_hours(73)).await;
        world
            .until("they are forgotten", async || found(&world, None, "77").await.is_empty())
            .await;
    }
}
