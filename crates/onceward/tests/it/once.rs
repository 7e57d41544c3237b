//! `once`: an effect of one's own runs once for its key, and everybody gets its outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use onceward::core::operation::State;
use onceward::core::policy::{Effects, Policy};
use onceward::{Engine, OnError, Once, OnceError, once};
use tokio::sync::oneshot;

use crate::world::{World, every};

const LEASE: Duration = Duration::from_millis(30_003); // no task of the engine sleeps until a third of it

fn on_every_store() -> Vec<World> {
    every(&Policy::default())
}

fn mail(engine: &Arc<Engine>) -> Once {
    Once::new(engine, "mails", "k").lease(LEASE).wait(Duration::ZERO)
}

#[tokio::test]
async fn of_many_who_ask_at_once_one_runs_it_and_all_get_its_outcome() {
    for world in on_every_store() {
        let runs = Arc::new(AtomicU32::new(0));
        let asked: Vec<_> = (0..32)
            .map(|_| {
                let (engine, runs) = (Arc::clone(world.engine()), Arc::clone(&runs));
                world.spawn(async move {
                    once(&engine, "mails", "k", async |_| {
                        tokio::task::yield_now().await;
                        Ok::<_, ()>(("mail".to_owned(), runs.fetch_add(1, Ordering::SeqCst)))
                    })
                    .await
                })
            })
            .collect();
        for one in asked {
            assert_eq!(one.await.unwrap().unwrap(), ("mail".to_owned(), 0));
        }
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn an_effect_that_failed_undone_is_run_by_the_next_and_one_that_may_have_worked_is_not() {
    for world in on_every_store() {
        let engine = world.engine();
        let failed = mail(engine).run(async |_| Err::<u32, _>("the server is busy")).await;
        assert!(matches!(failed, Err(OnceError::Effect("the server is busy"))), "{failed:?}");
        let unknown = mail(engine).on_error(OnError::Unknown);
        let failed = unknown.run(async |_| Err::<u32, _>("no answer")).await;
        assert!(matches!(failed, Err(OnceError::Effect("no answer"))), "{failed:?}");
        let doubted = mail(engine).run(async |_| Ok::<_, ()>(1)).await;
        assert!(matches!(doubted, Err(OnceError::InDoubt(_))), "{doubted:?}");

        let harmless = Once::new(engine, "mails", "h").effects(Effects::Idempotent);
        let harmless = harmless.on_error(OnError::Unknown);
        let failed = harmless.run(async |_| Err::<u32, _>("no answer")).await;
        assert!(matches!(failed, Err(OnceError::Effect(_))), "{failed:?}");
        assert_eq!(harmless.run(async |_| Ok::<_, ()>(2)).await.unwrap(), 2);
        let kept = harmless.run(async |_| Ok::<_, ()>("another type".to_owned())).await;
        assert!(matches!(kept, Err(OnceError::Outcome(_))), "{kept:?}");
    }
}

#[tokio::test]
async fn while_it_runs_it_stays_in_hand_and_what_panics_or_is_dropped_lapses() {
    for world in on_every_store() {
        let (engine, second) = (Arc::clone(world.engine()), Arc::clone(world.engine()));
        let (end, ended) = oneshot::channel::<()>();
        let running = world
            .spawn(async move { mail(&engine).run(async move |_| ended.await.map(|()| 7)).await });
        let state = async || {
            let found = world.engine().claim(&which()).await;
            found.map(|(claim, _)| (claim.state, claim.lease_until)).ok()
        };
        // For three leases. Each step goes a bit further than to the next sign of life, so that none
        // comes at the very end of a lease, which others wait for too.
        for _ in 0..9 {
            let next = world.clock.now().plus(LEASE / 3);
            let sleeps = async || world.clock.is_awaited(next);
            world.until("it gives its next sign of life", sleeps).await;
            let before = state().await;
            world.clock.advance(LEASE / 3 + Duration::from_millis(1));
            world.until("it is renewed", async || state().await != before).await;
            assert_eq!(state().await.unwrap().0, State::Delivering);
        }
        let busy = mail(&second).run(async |_| Ok::<u32, ()>(8)).await;
        assert!(matches!(busy, Err(OnceError::Busy(_))), "{busy:?}");
        end.send(()).unwrap();
        assert_eq!(running.await.unwrap().unwrap(), 7);
        assert_eq!(mail(&second).run(async |_| Ok::<u32, ()>(8)).await.unwrap(), 7);

        for (key, effects) in [("p", Effects::NonIdempotent), ("q", Effects::Idempotent)] {
            let engine = Arc::clone(world.engine());
            let mail = move || {
                let mail = Once::new(&engine, "mails", key).lease(LEASE).wait(Duration::ZERO);
                mail.effects(effects)
            };
            let broken = mail();
            let panicked = world.spawn(async move {
                broken.run(async |_| -> Result<u32, ()> { panic!("as the test has it") }).await
            });
            assert!(panicked.await.unwrap_err().is_panic());
            world.clock.advance(LEASE);
            let next = mail().run(async |_| Ok::<_, ()>(9)).await;
            match effects {
                Effects::NonIdempotent => {
                    assert!(matches!(next, Err(OnceError::InDoubt(_))), "{next:?}");
                }
                _ => assert_eq!(next.unwrap(), 9),
            }
        }
    }
}

fn which() -> onceward::ClaimKey {
    onceward::ClaimKey {
        tenant: "default".to_owned(),
        scope: "mails".to_owned(),
        key: onceward::core::key::Key::new("k").unwrap(),
    }
}

#[tokio::test]
async fn each_run_has_a_greater_fence_and_what_it_is_about_is_compared() {
    for world in on_every_store() {
        let engine = world.engine();
        let about = |what: &'static str| mail(engine).about(what);
        let mut fences = Vec::new();
        for _ in 0..3 {
            let run = about("anna")
                .run(async |fence| {
                    fences.push(fence);
                    Err::<u32, _>(())
                })
                .await;
            assert!(matches!(run, Err(OnceError::Effect(()))));
        }
        assert!(fences[0] < fences[1] && fences[1] < fences[2], "{fences:?}");
        let other = about("ben").run(async |_| Ok::<_, ()>(1)).await;
        assert!(matches!(other, Err(OnceError::Refused(_))), "{other:?}");
        let nameless = Once::new(engine, "mails", "").run(async |_| Ok::<_, ()>(1)).await;
        assert!(matches!(nameless, Err(OnceError::Key(_))), "{nameless:?}");
    }
}
