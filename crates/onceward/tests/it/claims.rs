//! Claims: one worker at a time has a key in hand, whatever happens to workers and nodes, and every
//! other learns the same bytes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use onceward::core::claim::ClaimRule;
use onceward::core::exchange::{Headers, Response};
use onceward::core::key::Key;
use onceward::core::operation::{Death, Fence, Forgotten, Operation, Source, State};
use onceward::core::policy::{Effects, Policy};
use onceward::observe::ClaimTurn;
use onceward::store::Which;
use onceward::{Beginning, Begun, ClaimKey, Ended, Engine, GivenBack, Refusal, Resolution};

use crate::world::{World, every, person};

const LEASE: Duration = Duration::from_secs(30);

fn on_every_store() -> Vec<World> {
    every(&Policy::default())
}

fn mail(key: &str) -> ClaimKey {
    ClaimKey { tenant: "t".to_owned(), scope: "mails".to_owned(), key: Key::new(key).unwrap() }
}

fn beginning(effects: Effects) -> Beginning {
    Beginning { effects: Some(effects), lease: Some(LEASE), ..Beginning::default() }
}

fn ended(outcome: &'static [u8]) -> Ended {
    let content_type = Some("application/x-mail".to_owned());
    Ended { ok: true, outcome: Bytes::from_static(outcome), content_type }
}

async fn begin(engine: &Arc<Engine>, key: &str, beginning: &Beginning) -> Begun {
    engine.begin_claim(&mail(key), beginning).await.unwrap()
}

#[track_caller]
fn acquired(begun: Begun) -> (Fence, Box<Operation>) {
    match begun {
        Begun::Acquired(claim) => (onceward::core::claim::fence_of(&claim).unwrap(), claim),
        other => panic!("not acquired: {other:?}"),
    }
}

#[track_caller]
fn done(begun: Begun) -> Response {
    match begun {
        Begun::Done(_, Some(outcome)) => outcome,
        other => panic!("not done with an outcome: {other:?}"),
    }
}

#[track_caller]
fn is_stale(said: &Result<Operation, Refusal>) {
    assert!(matches!(said, Err(Refusal::FenceStale(_))), "{said:?}");
}

async fn standing(engine: &Arc<Engine>, key: &str) -> Operation {
    engine.claim(&mail(key)).await.unwrap().0
}

#[tokio::test]
async fn the_first_has_it_in_hand_and_all_others_learn_its_outcome_byte_for_byte() {
    for mut world in on_every_store() {
        let it = beginning(Effects::NonIdempotent);
        let (fence, claim) = acquired(begin(world.engine(), "k", &it).await);
        assert_eq!(claim.lease_until, Some(world.clock.now().plus(LEASE)));
        let until = match begin(world.engine(), "k", &it).await {
            Begun::Busy(_, until) => until,
            other => panic!("{other:?}"),
        };
        assert_eq!(Some(until), claim.lease_until);
        let outcome = ended(b"\x00\xff {\"sent\": 1.0}");
        let told = world.engine().complete_claim(&mail("k"), fence, &outcome).await.unwrap();
        assert_eq!((told.state, told.outcome.unwrap().source), (State::Done, Source::Holder));
        for turn in 0..3 {
            let got = done(begin(world.engine(), "k", &it).await);
            assert_eq!(got.body, outcome.outcome);
            assert_eq!(got.headers.text("content-type"), Some("application/x-mail"));
            if turn == 1 {
                assert_eq!(world.restart().await, 0, "no claim is judged");
            }
        }
        assert_eq!(world.upstream.dispatched(), 0, "nothing of it is ever sent");
    }
}

#[tokio::test]
async fn what_is_said_twice_changes_nothing_and_what_is_said_otherwise_is_refused() {
    for world in on_every_store() {
        let engine = world.engine();
        let it = Beginning { nonce: Some("n1".into()), ..beginning(Effects::NonIdempotent) };
        let (fence, _) = acquired(begin(engine, "k", &it).await);
        let (again, _) = acquired(begin(engine, "k", &it).await);
        assert_eq!(again, fence, "its answer was lost");
        let odd = Beginning {
            fingerprint: Some(Bytes::from_static(br#"{"to":"anna"}"#)),
            holder: Some("a \"worker\"\n".into()),
            ..it.clone()
        };
        let (first, _) = acquired(begin(engine, "odd", &odd).await);
        assert_eq!(acquired(begin(engine, "odd", &odd).await).0, first, "whatever letters it has");
        let undrawn = Beginning { nonce: Some(String::new()), ..it.clone() };
        acquired(begin(engine, "undrawn", &undrawn).await);
        assert!(matches!(begin(engine, "undrawn", &undrawn).await, Begun::Busy(..)));
        let other = Beginning { nonce: Some("n2".into()), ..it.clone() };
        assert!(matches!(begin(engine, "k", &other).await, Begun::Busy(..)));
        let first = engine.complete_claim(&mail("k"), fence, &ended(b"1")).await.unwrap();
        let second = engine.complete_claim(&mail("k"), fence, &ended(b"1")).await.unwrap();
        assert_eq!(first, second);
        is_stale(&engine.complete_claim(&mail("k"), fence, &ended(b"2")).await);
        is_stale(&engine.release_claim(&mail("k"), fence, &GivenBack::default()).await);
        is_stale(&engine.renew_claim(&mail("k"), fence, None).await);
        assert_eq!(&done(begin(engine, "k", &it).await).body[..], b"1");
    }
}

#[tokio::test]
async fn of_many_workers_on_two_nodes_one_at_a_time_has_a_key_in_hand() {
    const WORKERS: usize = 32;
    const KEYS: usize = 12;
    for world in on_every_store() {
        // A ledger on disk has one.
        let apart = world.node_apart().await;
        let other = apart.unwrap_or_else(|| Arc::clone(world.engine()));
        let engines = [Arc::clone(world.engine()), other];
        // Who has a key in hand now, and what each was completed with.
        let in_hand: Arc<Mutex<HashMap<usize, usize>>> = Arc::default();
        let outcomes: Arc<Mutex<HashMap<usize, Bytes>>> = Arc::default();
        let workers = (0..WORKERS).map(|worker| {
            let engine = Arc::clone(&engines[worker % 2]);
            let (in_hand, outcomes) = (Arc::clone(&in_hand), Arc::clone(&outcomes));
            world.spawn(async move {
                for key in (0..KEYS).map(|n| (n + worker) % KEYS) {
                    let which = mail(&format!("k{key}"));
                    loop {
                        let it = beginning(Effects::NonIdempotent);
                        match engine.begin_claim(&which, &it).await.unwrap() {
                            Begun::Acquired(claim) => {
                                let fence = onceward::core::claim::fence_of(&claim).unwrap();
                                let before = in_hand.lock().unwrap().insert(key, worker);
                                assert_eq!(before, None, "two have {which:?} in hand");
                                tokio::task::yield_now().await;
                                in_hand.lock().unwrap().remove(&key);
                                // Every third gives it back first.
                                if claim.attempts_made() % 3 != 0 {
                                    let back = GivenBack::default();
                                    engine.release_claim(&which, fence, &back).await.unwrap();
                                    continue;
                                }
                                let outcome = Bytes::from(format!("by {worker}"));
                                let first = outcomes.lock().unwrap().insert(key, outcome.clone());
                                assert_eq!(first, None, "{which:?} is done twice");
                                let ended = Ended { ok: true, outcome, content_type: None };
                                engine.complete_claim(&which, fence, &ended).await.unwrap();
                            }
                            Begun::Busy(..) => tokio::task::yield_now().await,
                            Begun::Done(_, outcome) => {
                                let kept = outcomes.lock().unwrap().get(&key).cloned();
                                assert_eq!(outcome.map(|outcome| outcome.body), kept);
                                break;
                            }
                            other @ Begun::InDoubt(_) => panic!("{other:?}"),
                        }
                    }
                }
            })
        });
        let workers: Vec<_> = workers.collect();
        for worker in workers {
            worker.await.unwrap();
        }
        assert_eq!(outcomes.lock().unwrap().len(), KEYS);
    }
}

#[tokio::test]
async fn a_claim_outlives_its_node_and_keeps_its_holder() {
    for effects in [Effects::Idempotent, Effects::NonIdempotent] {
        for mut world in on_every_store() {
            let it = beginning(effects);
            let (fence, _) = acquired(begin(world.engine(), "k", &it).await);
            assert_eq!(world.restart().await, 0);
            world.clock.advance(Duration::from_secs(20));
            assert!(matches!(begin(world.engine(), "k", &it).await, Begun::Busy(..)));
            let renewed = world.engine().renew_claim(&mail("k"), fence, Some(LEASE)).await.unwrap();
            assert_eq!(renewed.lease_until, Some(world.clock.now().plus(LEASE)));
            world.clock.advance(Duration::from_secs(20));
            assert_eq!(world.restart().await, 0);
            assert!(matches!(begin(world.engine(), "k", &it).await, Begun::Busy(..)));
            world.engine().complete_claim(&mail("k"), fence, &ended(b"x")).await.unwrap();
            assert_eq!(&done(begin(world.engine(), "k", &it).await).body[..], b"x");
        }
    }
}

#[tokio::test]
async fn what_may_be_repeated_goes_to_the_next_and_the_old_fence_changes_nothing() {
    for effects in [Effects::Idempotent, Effects::Keyed] {
        for mut world in on_every_store() {
            let it = beginning(effects);
            let (old, _) = acquired(begin(world.engine(), "k", &it).await);
            world.kill().await;
            world.clock.advance(LEASE);
            world.begin_again().await;
            let (new, claim) = acquired(begin(world.engine(), "k", &it).await);
            assert!(new > old && claim.attempts_made() == 2);
            let engine = world.engine();
            is_stale(&engine.complete_claim(&mail("k"), old, &ended(b"old")).await);
            is_stale(&engine.release_claim(&mail("k"), old, &GivenBack::default()).await);
            is_stale(&engine.renew_claim(&mail("k"), old, None).await);
            assert_eq!(standing(engine, "k").await, *claim);
            engine.complete_claim(&mail("k"), new, &ended(b"new")).await.unwrap();
            is_stale(&engine.complete_claim(&mail("k"), old, &ended(b"old")).await);
            assert_eq!(&done(begin(engine, "k", &it).await).body[..], b"new");
            assert_eq!(world.notes.claimed(ClaimTurn::Stale), 4);
        }
    }
}

#[tokio::test]
async fn a_lapse_is_seen_without_anybody_who_begins() {
    for mut world in on_every_store() {
        for restarts in [false, true] {
            let keys = ["harmless", "doubtful"].map(|kind| format!("{kind}-{restarts}"));
            for (key, effects) in keys.iter().zip([Effects::Idempotent, Effects::NonIdempotent]) {
                acquired(begin(world.engine(), key, &beginning(effects)).await);
            }
            if restarts {
                world.kill().await;
                world.clock.advance(LEASE);
                world.begin_again().await;
            } else {
                world.clock.advance(LEASE);
            }
            let engine = Arc::clone(world.engine());
            let is = async |key: &str, state| standing(&engine, key).await.state == state;
            world
                .until("both are seen", async || {
                    is(&keys[0], State::Dead(Death::OwnerGone)).await
                        && is(&keys[1], State::InDoubt).await
                })
                .await;
        }
        let seen = async || world.notes.claimed(ClaimTurn::Lapsed) == 4;
        world.until("all four were told of", seen).await;
    }
}

#[tokio::test]
async fn what_may_not_be_repeated_waits_for_a_person_or_for_its_holder() {
    for world in on_every_store() {
        let (engine, it) = (world.engine(), beginning(Effects::NonIdempotent));
        let mut fences = BTreeMap::new();
        for key in ["done", "not-sent", "late", "undone"] {
            fences.insert(key, acquired(begin(engine, key, &it).await).0);
        }
        world.clock.advance(LEASE);
        for key in fences.keys() {
            for _ in 0..2 {
                assert!(matches!(begin(engine, key, &it).await, Begun::InDoubt(_)), "{key}");
            }
            is_stale(&engine.renew_claim(&mail(key), fences[key], None).await);
        }
        let id = async |key| standing(engine, key).await.id;
        let answer = Response {
            status: 200,
            headers: Headers::default(),
            body: Bytes::from_static(b"found"),
            trailers: Headers::default(),
        };
        let found = Resolution::Done(Some(answer));
        engine.resolve(id("done").await, &found, &person()).await.unwrap();
        assert_eq!(&done(begin(engine, "done", &it).await).body[..], b"found");
        is_stale(&engine.complete_claim(&mail("done"), fences["done"], &ended(b"late")).await);

        engine.resolve(id("not-sent").await, &Resolution::NotSent, &person()).await.unwrap();
        let (next, _) = acquired(begin(engine, "not-sent", &it).await);
        assert!(next > fences["not-sent"]);

        let late = engine.complete_claim(&mail("late"), fences["late"], &ended(b"late")).await;
        assert_eq!(late.unwrap().outcome.unwrap().source, Source::LateAnswer);
        assert_eq!(&done(begin(engine, "late", &it).await).body[..], b"late");

        let undone = GivenBack::default();
        engine.release_claim(&mail("undone"), fences["undone"], &undone).await.unwrap();
        acquired(begin(engine, "undone", &it).await);
    }
}

#[tokio::test]
async fn a_holder_that_does_not_know_says_so_at_once() {
    for world in on_every_store() {
        let engine = world.engine();
        let unknown = GivenBack { may_have_executed: true, ..GivenBack::default() };
        let it = beginning(Effects::NonIdempotent);
        let (fence, _) = acquired(begin(engine, "a", &it).await);
        let doubtful = engine.release_claim(&mail("a"), fence, &unknown).await.unwrap();
        assert_eq!(doubtful.state, State::InDoubt);
        assert!(matches!(begin(engine, "a", &it).await, Begun::InDoubt(_)));
        let it = beginning(Effects::Idempotent);
        let (fence, _) = acquired(begin(engine, "b", &it).await);
        engine.release_claim(&mail("b"), fence, &unknown).await.unwrap();
        acquired(begin(engine, "b", &it).await);
    }
}

#[tokio::test]
async fn what_is_given_back_is_free_again_at_its_time() {
    for world in on_every_store() {
        let (engine, it) = (world.engine(), beginning(Effects::NonIdempotent));
        let (first, _) = acquired(begin(engine, "k", &it).await);
        let later = Duration::from_mins(1);
        let back = GivenBack {
            reason: Some("the mail server is busy".into()),
            retry_after: later,
            ..GivenBack::default()
        };
        let free = engine.release_claim(&mail("k"), first, &back).await.unwrap();
        assert!(!free.is_dead_letter() && !free.may_have_executed());
        let again = engine.release_claim(&mail("k"), first, &back).await.unwrap();
        assert_eq!(again, free, "said twice");
        let free_at = world.clock.now().plus(later);
        let begun = begin(engine, "k", &it).await;
        assert!(matches!(begun, Begun::Busy(_, until) if until == free_at), "{begun:?}");
        world.clock.advance(later);
        let (second, claim) = acquired(begin(engine, "k", &it).await);
        assert!(second > first);
        assert_eq!(claim.attempts[0].ended.as_ref().unwrap().error, back.reason);
    }
}

#[tokio::test]
async fn whoever_waits_gets_the_outcome_or_the_claim_itself() {
    for world in on_every_store() {
        let engine = Arc::clone(world.engine());
        let it = beginning(Effects::Idempotent);
        for how in ["completed", "released", "lapsed"] {
            let (fence, claim) = acquired(begin(&engine, how, &it).await);
            let patient = Beginning { wait: Duration::from_hours(1), ..it.clone() };
            let waits = |engine: Arc<Engine>, patient: Beginning| {
                world.spawn(async move { engine.begin_claim(&mail(how), &patient).await })
            };
            let waiting = waits(Arc::clone(&engine), patient.clone());
            let lease_until = claim.lease_until.unwrap();
            world.until("it waits", async || world.clock.is_awaited(lease_until)).await;
            match how {
                "completed" => {
                    engine.complete_claim(&mail(how), fence, &ended(b"x")).await.unwrap();
                    assert_eq!(&done(waiting.await.unwrap().unwrap()).body[..], b"x");
                }
                "released" => {
                    let back = GivenBack::default();
                    engine.release_claim(&mail(how), fence, &back).await.unwrap();
                    acquired(waiting.await.unwrap().unwrap());
                }
                _ => {
                    world.clock.advance_to(lease_until);
                    acquired(waiting.await.unwrap().unwrap());
                }
            }
        }
        let hasty = Beginning { wait: Duration::from_secs(4), ..it.clone() };
        let (_, claim) = acquired(begin(&engine, "busy", &it).await);
        let waiting = {
            let engine = Arc::clone(&engine);
            world.spawn(async move { engine.begin_claim(&mail("busy"), &hasty).await })
        };
        let over = world.clock.now().plus(Duration::from_secs(4));
        world.until("it waits", async || world.clock.is_awaited(over)).await;
        world.clock.advance_to(over);
        let begun = waiting.await.unwrap().unwrap();
        assert!(matches!(begun, Begun::Busy(_, until) if Some(until) == claim.lease_until));
    }
}

#[tokio::test]
async fn a_key_is_about_one_thing() {
    for world in on_every_store() {
        let engine = world.engine();
        let about = |what: &'static str| Beginning {
            fingerprint: Some(Bytes::from_static(what.as_bytes())),
            ..beginning(Effects::Idempotent)
        };
        let (fence, _) = acquired(begin(engine, "k", &about("a")).await);
        let mismatch = async || {
            let refused = engine.begin_claim(&mail("k"), &about("b")).await;
            assert!(matches!(refused, Err(Refusal::KeyMismatch { .. })), "{refused:?}");
        };
        mismatch().await;
        engine.complete_claim(&mail("k"), fence, &ended(b"x")).await.unwrap();
        mismatch().await;
        done(begin(engine, "k", &about("a")).await);
        done(begin(engine, "k", &beginning(Effects::Idempotent)).await);
        let required = ClaimRule { fingerprint_required: true, ..ClaimRule::default() };
        engine.set_claims(BTreeMap::from([("mails".to_owned(), required)]));
        let silent = engine.begin_claim(&mail("k"), &Beginning::default()).await;
        assert!(matches!(silent, Err(Refusal::KeyWeak(_))), "{silent:?}");
    }
}

#[tokio::test]
async fn people_look_after_claims_and_never_send_them() {
    for world in on_every_store() {
        let (engine, it) = (world.engine(), beginning(Effects::Idempotent));
        let (fence, claim) = acquired(begin(engine, "k", &it).await);
        let conflicts = async || {
            let redelivered = engine.redeliver(claim.id, &person()).await;
            assert!(matches!(redelivered, Err(Refusal::Conflict { .. })), "{redelivered:?}");
            let cancelled = engine.cancel(claim.id, &person()).await;
            assert!(matches!(cancelled, Err(Refusal::Conflict { .. })), "{cancelled:?}");
        };
        conflicts().await;
        world.clock.advance(LEASE);
        let lapsed = async || standing(engine, "k").await.state != State::Delivering;
        world.until("it has lapsed", lapsed).await;
        conflicts().await;
        engine.complete_claim(&mail("k"), fence, &ended(b"x")).await.unwrap();
        conflicts().await;
        let (scope, key) = (mail("k").scope(), Key::new("k").unwrap());
        engine.forget(&scope, &key, Forgotten::Refuse, &person()).await.unwrap();
        let refused = engine.begin_claim(&mail("k"), &it).await;
        assert!(matches!(refused, Err(Refusal::KeyInvalidated(_))), "{refused:?}");
        assert_eq!(world.upstream.dispatched(), 0);
    }
}

#[tokio::test]
async fn a_done_key_is_kept_for_its_window_and_its_mark_for_the_tombstone() {
    for world in on_every_store() {
        let (engine, it) = (world.engine(), beginning(Effects::Idempotent));
        let (window, tombstone) = (Duration::from_hours(2), Duration::from_hours(3));
        let rule = ClaimRule { window, tombstone, ..ClaimRule::default() };
        engine.set_claims(BTreeMap::from([("mails".to_owned(), rule)]));
        let (first, claim) = acquired(begin(engine, "k", &it).await);
        engine.complete_claim(&mail("k"), first, &ended(b"x")).await.unwrap();
        world.pass_time(window).await;
        let expired = engine.begin_claim(&mail("k"), &it).await;
        assert!(matches!(expired, Err(Refusal::KeyExpired(_))), "{expired:?}");
        world.pass_time(tombstone).await;
        let (second, _) = acquired(begin(engine, "k", &it).await);
        assert!(second > first, "a fence is never given twice, however much was forgotten");
        is_stale(&engine.complete_claim(&mail("k"), first, &ended(b"old")).await);
        let old = engine.store().find(Which::Id(claim.id)).await.unwrap();
        assert!(old.is_none_or(|old| old.request.is_none() || old.fence.0 > first.0));
    }
}

#[tokio::test]
async fn many_begins_at_once_cost_few_durable_writes() {
    for world in on_every_store() {
        let commits = async || world.engine().store().condition().await.unwrap().commits;
        let before = commits().await;
        let begins: Vec<_> = (0..500)
            .map(|n| {
                let engine = Arc::clone(world.engine());
                world.spawn(async move {
                    let it = beginning(Effects::Idempotent);
                    engine.begin_claim(&mail(&format!("k{n}")), &it).await
                })
            })
            .collect();
        for begun in begins {
            acquired(begun.await.unwrap().unwrap());
        }
        let cost = commits().await - before;
        // The reference counts every write.
        if !world.is_in_memory() {
            assert!(cost < 100, "{cost} durable writes");
        }
    }
}

#[tokio::test]
async fn an_outcome_has_a_size() {
    let world = World::in_memory(crate::world::routes([]));
    let it = beginning(Effects::Idempotent);
    let (fence, _) = acquired(begin(world.engine(), "k", &it).await);
    let large = Ended { outcome: vec![b'x'; (1 << 20) + 1].into(), ..ended(b"") };
    let refused = world.engine().complete_claim(&mail("k"), fence, &large).await;
    assert!(matches!(refused, Err(Refusal::BodyTooLarge { .. })), "{refused:?}");
}
