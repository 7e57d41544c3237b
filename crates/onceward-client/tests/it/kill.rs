//! The gateway is killed while it is used: nothing is lost, and nothing is done twice.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use onceward_client::{BoxError, Call, Onceward, RetryPolicy, State};

use crate::world::{Gateway, fresh};

const SOON: Duration = Duration::from_mins(2);

fn mortal() -> (Arc<Gateway>, Onceward) {
    let gateway = Arc::new(Gateway::start());
    let client = gateway.client(RetryPolicy {
        attempts_max: 10_000,
        base: Duration::from_millis(5),
        cap: Duration::from_millis(20),
        ..RetryPolicy::default()
    });
    (gateway, client)
}

/// Starts it again beside what is asked meanwhile.
fn back(gateway: &Arc<Gateway>) -> tokio::task::JoinHandle<()> {
    let gateway = Arc::clone(gateway);
    tokio::task::spawn_blocking(move || gateway.start_again())
}

fn order(key: &str) -> Call {
    Call::to("demo/orders").key(key).body("one")
}

#[tokio::test]
async fn a_call_that_meets_no_gateway_is_made_with_its_key_until_there_is_one() {
    let (gateway, once) = mortal();
    let key = fresh("order");
    let first = once.send(order(&key)).await.unwrap();
    gateway.kill();
    let other = Call::to("demo/orders").body("two");
    let (again, other, started) =
        tokio::join!(once.send(order(&key)), once.send(other), back(&gateway));
    started.unwrap();
    let (again, other) = (again.unwrap(), other.unwrap());
    assert!(again.replayed() && again.body() == first.body());
    assert_eq!(other.status().as_u16(), 201);
    let story = once.operation(other.operation().unwrap()).await.unwrap();
    assert_eq!(Some(&*story.key), other.key());
}

#[tokio::test]
async fn an_effect_whose_gateway_dies_meanwhile_is_run_once_and_all_get_its_outcome() {
    let (gateway, once) = mortal();
    let (mails, key, runs) = (once.claims("mails"), fresh("welcome"), Cell::new(0));
    for _ in 0..2 {
        let outcome: u32 = mails
            .once(&key, async |_| {
                runs.set(runs.get() + 1);
                gateway.kill();
                // What is said next is said into the dark, until somebody hears it.
                back(&gateway);
                Ok::<_, BoxError>(runs.get())
            })
            .await
            .unwrap();
        assert_eq!(outcome, 1);
    }
    assert_eq!(runs.get(), 1);
}

#[tokio::test]
async fn an_accepted_call_goes_on_after_a_kill() {
    let (gateway, once) = mortal();
    let accepted = once.accept(order(&fresh("order"))).await.unwrap();
    gateway.kill();
    let (story, started) = tokio::join!(once.wait(&accepted.operation, SOON), back(&gateway));
    started.unwrap();
    assert_eq!(story.unwrap().state, State::Done);
}
