//! The audit is one chain: what is changed in it behind the ledger's back has its place named.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onceward::core::id::OperationId;
use onceward::core::policy::{Effects, Policy};
use onceward::secret::sha256;
use onceward::{Engine, Head, NoteQuery, Person, Verified, verify_audit};

use crate::world::{World, every, person};

fn policy() -> Policy {
    Policy { effects: Some(Effects::Idempotent), ..Policy::default() }
}

fn place(number: u64) -> String {
    format!("chain/{number:016x}")
}

async fn note(engine: &Engine, about: &str) {
    engine.note(&person(), "did", about).await.unwrap();
}

async fn verified(world: &World, expected: Option<Head>) -> Verified {
    verify_audit(&**world.engine().store(), expected).await.unwrap()
}

/// The note with other words; its digest stays as it was, or is that of the new words.
fn reworded(kept: &Bytes, is_digest_new: bool) -> Bytes {
    let line = std::str::from_utf8(&kept[32..]).unwrap().replace("thing-", "other-");
    let digest = sha256(line.as_bytes());
    let digest = if is_digest_new { &digest[..] } else { &kept[..32] };
    Bytes::from([digest, line.as_bytes()].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_in_the_audit_behind_its_back_has_its_place_named() {
    for mut world in every(&policy()) {
        for n in 1..=6 {
            note(world.engine(), &format!("thing-{n}")).await;
        }
        let head = world.engine().audit_head().await.unwrap();
        let whole = verified(&world, Some(head)).await;
        assert_eq!((whole.head, whole.notes, &whole.breaks[..]), (head, 6, &[][..]), "{whole:?}");
        let kept = world.engine().store().settings("chain/".into()).await.unwrap();
        let at = |number: usize| kept[number - 1].1.clone();
        let change = |number, value| (place(number), Some(value));
        let gone = |number| (place(number), None);
        for (what, changes, expected, breaks) in [
            ("words", vec![change(3, reworded(&at(3), false))], None, vec![3, 4]),
            ("words and digest", vec![change(3, reworded(&at(3), true))], None, vec![4]),
            ("one dropped", vec![gone(3)], None, vec![4, 4]),
            ("two swapped", vec![change(3, at(4)), change(4, at(3))], None, vec![3, 3, 4, 4, 5]),
            ("the end cut off", vec![gone(5), gone(6)], Some(head), vec![6]),
            ("the last reworded", vec![change(6, reworded(&at(6), true))], Some(head), vec![6]),
            ("the beginning", vec![gone(1)], None, vec![2, 2]),
            ("one damaged", vec![change(4, Bytes::from_static(b"x"))], None, vec![4, 5, 5]),
        ] {
            world.kill().await;
            world.change_settings(&changes).await;
            world.begin_again().await;
            let found = verified(&world, expected).await;
            let numbers: Vec<_> = found.breaks.iter().map(|broken| broken.number).collect();
            assert_eq!(numbers, breaks, "{what}: {:?}", found.breaks);
            world.kill().await;
            world
                .change_settings(
                    &kept
                        .iter()
                        .map(|(name, kept)| (name.clone(), Some(kept.clone())))
                        .collect::<Vec<_>>(),
                )
                .await;
            world.begin_again().await;
            assert_eq!(verified(&world, Some(head)).await, whole, "{what}: it was put back");
        }
        note(world.engine(), "thing-7").await;
        assert_eq!(
            verified(&world, Some(head)).await.notes,
            7,
            "an earlier head is met on the way"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_on_two_nodes_make_one_line() {
    for world in every(&policy()) {
        let other = world.node_apart().await.unwrap_or_else(|| world.neighbour());
        let nodes = [Arc::clone(world.engine()), other];
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let node = Arc::clone(&nodes[writer % 2]);
                world.spawn(async move {
                    for n in 0..12 {
                        note(&node, &format!("{writer}-{n}")).await;
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        let found = verified(&world, None).await;
        assert_eq!((found.notes, &found.breaks[..]), (96, &[][..]), "{found:?}");
        let query = NoteQuery { limit: 1000, ..NoteQuery::default() };
        let all = world.engine().notes(&query).await.unwrap().notes;
        let abouts: BTreeSet<_> = all.iter().map(|note| &note.about).collect();
        assert_eq!(abouts.len(), 96, "each deed has a note of its own");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_done_twice_at_the_same_time_is_noted_twice() {
    for world in every(&policy()) {
        let nodes = [Arc::clone(world.engine()), world.neighbour()];
        // The clock stands still, so only the nodes differ.
        let (one, other) = tokio::join!(note(&nodes[0], "a"), note(&nodes[1], "a"));
        assert_eq!((one, other), ((), ()));
        assert_eq!(verified(&world, None).await.notes, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_noted_before_there_was_a_chain_is_answered_for_by_its_first_note() {
    for mut world in every(&policy()) {
        let at = world.clock.now();
        let name = |n: u64| format!("audit/{:032x}", OperationId::new(n, 7).as_u128());
        let row = |about: &str| {
            let row = (at.as_micros(), "ada", "paused", about, "r", false);
            Bytes::from(postcard::to_allocvec(&row).unwrap())
        };
        for n in 1..=3 {
            let about = format!("route-{n}");
            world.engine().store().set(name(n), Some(row(&about))).await.unwrap();
        }
        let all = NoteQuery { limit: 9, ..NoteQuery::default() };
        assert_eq!(world.engine().notes(&all).await.unwrap().notes.len(), 3);
        note(world.engine(), "first").await;
        let found = world.engine().notes(&all).await.unwrap();
        let told: Vec<_> = found.notes.iter().map(|note| note.about.as_str()).collect();
        assert_eq!(told, ["first", "3 older notes", "route-3", "route-2", "route-1"]);
        let first = NoteQuery { limit: 4, ..NoteQuery::default() };
        let next = world.engine().notes(&first).await.unwrap().next;
        let rest = NoteQuery { before: next, ..all.clone() };
        assert_eq!(world.engine().notes(&rest).await.unwrap().notes[0].about, "route-1");
        let whole = verified(&world, None).await;
        assert_eq!((whole.older, whole.notes, &whole.breaks[..]), (3, 2, &[][..]), "{whole:?}");
        for changes in [(name(2), Some(row("route-9"))), (name(1), None)] {
            let before = world.engine().store().setting(changes.0.clone()).await.unwrap();
            world.kill().await;
            world.change_settings(std::slice::from_ref(&changes)).await;
            world.begin_again().await;
            let found = verified(&world, None).await;
            let numbers: Vec<_> = found.breaks.iter().map(|broken| broken.number).collect();
            assert_eq!(numbers, [1], "{:?}", found.breaks);
            world.kill().await;
            world.change_settings(&[(changes.0, before)]).await;
            world.begin_again().await;
        }
        assert_eq!(verified(&world, None).await, whole);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_retention_took_leaves_an_anchor_that_the_chain_goes_on_from() {
    for world in every(&policy()) {
        for about in ["a", "b", "c"] {
            note(world.engine(), about).await;
        }
        let gone = world.engine().audit_head().await.unwrap();
        world.pass_time(Duration::from_hours(24 * 401)).await;
        let all = NoteQuery { limit: 9, ..NoteQuery::default() };
        world
            .until("they are forgotten", async || {
                world.engine().notes(&all).await.unwrap().notes.is_empty()
            })
            .await;
        assert_eq!(world.engine().audit_head().await.unwrap(), gone, "the anchor");
        note(world.engine(), "d").await;
        let found = verified(&world, Some(gone)).await;
        assert_eq!((found.behind, found.head.number, found.notes), (gone, 4, 1), "{found:?}");
        assert_eq!(found.breaks, []);
        let earlier = Head { number: 2, digest: [7; 32] };
        let told = &verified(&world, Some(earlier)).await.breaks;
        assert!(told[0].why.contains("gone by its retention"), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_notes_about_one_thing_are_found_by_their_time() {
    for world in every(&policy()) {
        let engine = world.engine();
        let ada = Person { who: "ada".into(), reason: "r".into() };
        let noted = engine.note(&ada, "paused", "pay").await.unwrap();
        let around = (world.clock.now(), world.clock.now());
        note(engine, "other").await;
        let about = engine.notes_about("pay", around.0, around.1).await.unwrap();
        assert_eq!(about, [noted]);
        assert!(engine.notes_about("nothing", around.0, around.1).await.unwrap().is_empty());
        let later = around.1.plus(Duration::from_hours(1));
        assert!(engine.notes_about("pay", later, later).await.unwrap().is_empty());
    }
}
