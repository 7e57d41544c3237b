//! What is erased is gone from the ledger, and its key is refused, on every store.

use std::time::Duration;

use bytes::Bytes;
use onceward::core::id::OperationId;
use onceward::core::operation::Operation;
use onceward::core::policy::{Effects, Policy};
use onceward::core::trace::TRACEPARENT;
use onceward::store::{Query, Which};
use onceward::{Erased, Erasure, Refusal, Whose};

use crate::world::{
    World, accepted, answer, answered, effects, every, person, post, refused, with_header,
};

const CANARY: &str = "canary-of-jane-doe";

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn policy() -> Policy {
    let ids = vec![("of".to_owned(), "/of".to_owned())];
    Policy { ids, ..effects(Effects::NonIdempotent) }
}

fn body() -> Bytes {
    Bytes::from(format!("{{\"of\":\"{CANARY}\"}}"))
}

async fn done(world: &World, key: &str, subject: &str) -> Operation {
    world.upstream.script([answer(201, body())]);
    let mut call = with_header(post(key), TRACEPARENT, TRACE);
    call.request.body = body();
    call.request.target = format!("/x?of={CANARY}");
    call.options.subject = Some(subject.to_owned());
    call.options.label = Some(CANARY.to_owned());
    answered(world.call(call).await);
    world.operation(key).await
}

fn erasure(whose: Whose) -> Erasure {
    let tenant = crate::world::scope().tenant;
    Erasure { tenant, whose, person: person(), cancels: false, is_plan: false }
}

fn jane() -> Erasure {
    erasure(Whose::Subject("jane".to_owned()))
}

/// What is kept of its exchanges; nothing where it cannot be read.
async fn bytes(world: &World, operation: &Operation) -> Vec<Option<Bytes>> {
    let mut all = Vec::new();
    for kept in operation.bodies() {
        all.push(world.engine().store().body(kept).await.ok());
    }
    all
}

/// Whether anything that the operation says of itself has it.
fn says_it(operation: &Operation) -> bool {
    format!("{operation:?}").contains(CANARY)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_erased_leaves_a_mark_by_which_a_duplicate_is_refused() {
    for mut world in every(&policy()) {
        let first = done(&world, "j-1", "jane").await;
        let other = done(&world, "o-1", "other").await;
        let kept = bytes(&world, &first).await;
        let others = bytes(&world, &other).await;
        assert!(says_it(&first) && first.request.is_some() && first.trace.is_some());
        let plan = Erasure { is_plan: true, ..jane() };
        let counted = Erased { operations: 1, ..Erased::default() };
        assert_eq!(world.engine().erase(&plan).await.unwrap(), counted);
        assert_eq!(world.operation("j-1").await, first, "a plan does nothing");
        assert_eq!(world.engine().erase(&jane()).await.unwrap(), counted);
        assert_eq!(world.engine().erase(&jane()).await.unwrap(), Erased::default(), "again");
        for _ in 0..2 {
            let mark = world.operation("j-1").await;
            assert!(!says_it(&mark) && mark.trace.is_none(), "{mark:?}");
            assert_eq!((mark.created_at, mark.ended_at), (first.created_at, first.ended_at));
            assert_eq!((mark.fingerprint, mark.state), (first.fingerprint, first.state));
            assert_eq!(mark.acts[0].reason, format!("erased: {}", person().reason));
            // They may be sealed: whatever they were, they are not there any more.
            for (left, was) in bytes(&world, &first).await.iter().zip(&kept) {
                assert!(was.is_some() && left != was, "{left:?} is as it was");
            }
            let late = refused(world.call(post("j-1")).await);
            assert!(matches!(late, Refusal::KeyInvalidated(_)), "{late:?}");
            let made =
                Query { made: Some((None, CANARY.to_owned())), limit: 9, ..Query::default() };
            let found = world.engine().store().list(made).await.unwrap().operations;
            assert!(found.iter().all(|found| found.id == other.id), "{found:?}");
            assert_eq!(bytes(&world, &other).await, others, "another's stays");
            world.restart().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_ended_stays_unless_it_is_given_up_first() {
    for world in every(&policy()) {
        world.engine().pause("pay", &person()).await.unwrap();
        let mut call = accepted("j-1");
        call.options.subject = Some("jane".to_owned());
        // It waits: the route is paused.
        world.call(call).await.unwrap();
        let open = world.operation("j-1").await;
        let found = world.engine().erase(&jane()).await.unwrap();
        assert_eq!((found.operations, found.open), (0, vec![open.id]));
        assert_eq!(world.operation("j-1").await, open);
        let given_up = Erasure { cancels: true, ..jane() };
        assert_eq!(world.engine().erase(&given_up).await.unwrap().operations, 1);
        assert!(world.operation("j-1").await.request.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_broke_off_is_finished_by_the_next_process() {
    for mut world in every(&policy()) {
        let first = done(&world, "j-1", "jane").await;
        let place = |body: onceward::core::attempt::BodyRef| {
            (body.segment, body.offset, body.length, body.crc)
        };
        let bodies: Vec<_> = first.bodies().map(place).collect();
        // As it is written before anything goes.
        let going = (world.clock.now().as_micros(), "ada", "erased: r", bodies);
        let name = |id: OperationId| format!("erase/{:032x}", id.as_u128());
        let going = Bytes::from(postcard::to_allocvec(&going).unwrap());
        world.engine().store().set(name(first.id), Some(going)).await.unwrap();
        world.restart().await;
        world.pass_time(Duration::from_secs(2)).await;
        world
            .until("it is finished", async || {
                world.engine().store().setting(name(first.id)).await.unwrap().is_none()
            })
            .await;
        let mark = world.engine().store().find(Which::Id(first.id)).await.unwrap().unwrap();
        assert!(!says_it(&mark) && mark.acts[0].who == "ada", "{mark:?}");
        for gone in first.bodies() {
            let left = world.engine().store().body(gone).await;
            assert!(left.is_err() || left.is_ok_and(|left| left.iter().all(|byte| *byte == 0)));
        }
    }
}
