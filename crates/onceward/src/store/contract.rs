//! The suite that every store must pass, concurrency included; also the best account of what a
//! store must do. [`run`] takes whatever makes an empty store, and panics where one fails.
//!
//! ```
//! use std::sync::Arc;
//! use onceward::store::{Store, contract, memory::MemoryStore};
//!
//! # #[tokio::main(flavor = "multi_thread", worker_threads = 2)]
//! # async fn main() {
//! contract::run(|| async { Arc::new(MemoryStore::new()) as Arc<dyn Store> }).await;
//! # }
//! ```
//!
//! The feature `contract` has it: name it among the dev-dependencies of the crate with the store. What
//! the suite cannot see is for the store's own tests: that an answer comes after its write is on stable
//! storage, and that what was written is there after a crash.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a suite")]

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onceward_core::attempt::{Ended, Ending, Phase, Reached, Timings};
use onceward_core::claim::ClaimEvent;
use onceward_core::exchange::{Headers, Request};
use onceward_core::fingerprint::{Fingerprint, FingerprintRule, FingerprintSecret};
use onceward_core::id::OperationId;
use onceward_core::key::{Key, Scope, ScopeKind};
use onceward_core::lease::Session;
use onceward_core::operation::{
    Act, Deed, Event, Fence, Forgotten, Intent, Operation, Outcome, Source, State,
};
use onceward_core::policy::{Effects, Mode, Policy};
use onceward_core::time::Timestamp;
use onceward_core::trace::TraceContext;
use onceward_core::verdict::Verdict;

use super::{
    Asked, Birth, Counted, Judge, Lane, Query, Remembered, Slot, Standing, Store, StoreError, Way,
    Which, Write,
};

/// Runs every behaviour against a fresh store from `make`.
pub async fn run<M, F>(make: M)
where
    M: Fn() -> F,
    F: Future<Output = Arc<dyn Store>>,
{
    what_is_remembered_is_found_by_id_and_by_key(&*make().await).await;
    one_of_many_remembers_of_a_key_wins(make().await).await;
    keys_of_other_scopes_are_unrelated(&*make().await).await;
    an_old_fence_changes_nothing(make().await).await;
    bodies_come_back_byte_for_byte(&*make().await).await;
    due_work_is_taken_once_and_in_order(make().await).await;
    held_and_future_work_is_not_taken(&*make().await).await;
    lanes_tell_their_first_due_time(&*make().await).await;
    lists_are_newest_first_and_page_on(&*make().await).await;
    what_is_open_is_counted_as_far_as_is_asked(&*make().await).await;
    what_an_answer_made_is_found(&*make().await).await;
    what_many_have_in_common_is_listed_to_the_end(&*make().await).await;
    lists_keep_to_a_time_and_find_what_was_born_of_another(&*make().await).await;
    the_sweep_forgets_by_time_and_never_what_is_open(&*make().await).await;
    what_was_forgotten_since_it_was_read_is_no_damage(&*make().await).await;
    a_forgotten_key_goes_to_its_successor(&*make().await).await;
    what_a_lapsed_session_had_in_hand_is_told(&*make().await).await;
    what_a_living_session_has_in_hand_stays_its_own(&*make().await).await;
    duplicates_are_counted(&*make().await).await;
    settings_are_kept_and_removed(&*make().await).await;
    settings_are_read_page_by_page_and_either_way(&*make().await).await;
    what_is_offered_is_kept_where_nothing_is(&*make().await).await;
    settings_are_paged_by_their_names(&*make().await).await;
    one_of_many_swaps_wins(make().await).await;
    a_flow_is_a_lane_of_its_own(&*make().await).await;
    a_claim_is_no_sessions_and_nobody_takes_it(&*make().await).await;
}

/// An operation at place `n`, pending and due at `n` seconds.
pub fn operation(n: u64, key: &str, route: &str, mode: Mode) -> Operation {
    let policy = Policy::default();
    let request = Request {
        method: "POST".into(),
        target: "/x".into(),
        headers: Headers::default(),
        body: Bytes::new(),
    };
    let at = Timestamp::from_micros(n as i64 * 1_000_000);
    let scope = Scope {
        kind: ScopeKind::Call,
        tenant: "t".into(),
        name: route.into(),
        principal: String::new(),
    };
    let print =
        Fingerprint::of(&request, &FingerprintRule::default(), &FingerprintSecret::new([0; 32]));
    let intent = Intent {
        effects: Effects::Keyed,
        upstream_window: Duration::from_mins(1),
        method: "POST".into(),
        target: "/x".into(),
        tombstone: policy.tombstone,
        trace: (n % 2 == 1).then(|| TraceContext { trace: n.into(), span: n, flags: 1 }),
        ..Intent::new(OperationId::new(n, n), scope, Key::new(key).unwrap(), print, at)
    };
    Operation {
        fence: Fence(1),
        mode,
        label: Some(format!("label-{n}")),
        window: policy.window,
        ..Operation::new(intent)
    }
}

fn birth(operation: &Operation) -> Birth {
    Birth {
        operation: operation.clone(),
        request: Bytes::from(format!("request {}", operation.key)),
        replaces: None,
    }
}

async fn remember(store: &dyn Store, operation: &Operation) -> Operation {
    match store.remember(birth(operation)).await.unwrap() {
        Remembered::Fresh(operation) => operation,
        Remembered::Known(_) => panic!("{} is new", operation.key),
    }
}

/// The operation after its attempt started.
pub fn started(operation: &Operation) -> Operation {
    operation.after(Event::Started(Session(1)), operation.created_at).unwrap()
}

/// What an attempt took whose connection was one that had carried requests before.
pub fn timings() -> Timings {
    let mut timings = Timings::new(true);
    timings.add(Phase::Send, Duration::from_micros(7));
    timings.add(Phase::Head, Duration::from_secs(5_000));
    timings.add(Phase::Body, Duration::from_micros(300));
    timings
}

/// The operation after its attempt was answered with 201 at `at`.
pub fn done(operation: &Operation, at: Timestamp) -> Operation {
    let ended = Ended {
        at,
        ending: Ending::Answered,
        reached: Reached::Body,
        status: Some(201),
        error: None,
        may_have_executed: true,
        answer: None,
        timings: timings(),
    };
    let outcome = Outcome { status: Some(201), ok: true, source: Source::Upstream, answer: None };
    operation.after(Event::Ended(ended, Verdict::Finish(outcome)), at).unwrap()
}

async fn commit(store: &dyn Store, operation: Operation) -> Result<Operation, StoreError> {
    store.commit(Write { operation, answer: None, visible: false }).await
}

async fn what_is_remembered_is_found_by_id_and_by_key(store: &dyn Store) {
    let made = remember(store, &operation(1, "a", "r", Mode::Held)).await;
    assert!(made.request.is_some());
    assert_eq!(store.find(Which::Id(made.id)).await.unwrap(), Some(made.clone()));
    assert_eq!(
        store.find(Which::Key(made.scope.digest(&made.key))).await.unwrap(),
        Some(made.clone())
    );
    assert_eq!(
        store.find(Which::Id(OperationId::new(1, 2))).await.unwrap(),
        None,
        "the whole id counts"
    );
    assert_eq!(
        store.remember(birth(&operation(2, "a", "r", Mode::Held))).await.unwrap(),
        Remembered::Known(made)
    );
    assert_eq!(
        store.find(Which::Id(OperationId::new(2, 2))).await.unwrap(),
        None,
        "a duplicate leaves no row"
    );
}

async fn one_of_many_remembers_of_a_key_wins(store: Arc<dyn Store>) {
    let racers = (1..=64u64).map(|n| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            store.remember(birth(&operation(n, "same", "r", Mode::Held))).await.unwrap()
        })
    });
    let (mut fresh, mut known) = (Vec::new(), Vec::new());
    for racer in racers.collect::<Vec<_>>() {
        match racer.await.unwrap() {
            Remembered::Fresh(operation) => fresh.push(operation.id),
            Remembered::Known(operation) => known.push(operation.id),
        }
    }
    assert_eq!((fresh.len(), known.len()), (1, 63));
    assert!(known.iter().all(|id| *id == fresh[0]));
}

async fn keys_of_other_scopes_are_unrelated(store: &dyn Store) {
    let first = remember(store, &operation(1, "k", "r", Mode::Held)).await;
    let other_route = remember(store, &operation(2, "k", "s", Mode::Held)).await;
    let mut other_principal = operation(3, "k", "r", Mode::Held);
    other_principal.intent_mut().scope.principal = "p".into();
    remember(store, &other_principal).await;
    assert_ne!(first.id, other_route.id);
}

async fn an_old_fence_changes_nothing(store: Arc<dyn Store>) {
    let made = remember(&*store, &operation(1, "a", "r", Mode::Held)).await;
    let next = started(&made);
    let racers = (0..16).map(|_| {
        let (store, next) = (Arc::clone(&store), next.clone());
        tokio::spawn(async move { commit(&*store, next).await })
    });
    let mut won = 0;
    for racer in racers.collect::<Vec<_>>() {
        match racer.await.unwrap() {
            Ok(_) => won += 1,
            Err(error) => assert_eq!(error, StoreError::Stale),
        }
    }
    assert_eq!(won, 1, "one write of a fence");
    let settled = commit(&*store, done(&next, made.created_at)).await.unwrap();
    assert_eq!(commit(&*store, done(&next, made.created_at)).await, Err(StoreError::Stale));
    assert_eq!(store.find(Which::Id(made.id)).await.unwrap(), Some(settled));
    assert_eq!(
        commit(&*store, started(&operation(9, "never", "r", Mode::Held))).await,
        Err(StoreError::Stale)
    );
}

async fn bodies_come_back_byte_for_byte(store: &dyn Store) {
    let made = remember(store, &operation(1, "a", "r", Mode::Held)).await;
    assert_eq!(store.body(made.request.unwrap()).await.unwrap(), "request a");
    let next = commit(store, started(&made)).await.unwrap();
    let binary: Bytes = (0..=255u8).cycle().take(100_000).collect::<Vec<u8>>().into();
    let answer = Some((Slot::Outcome, binary.clone()));
    let settled = store
        .commit(Write { operation: done(&next, made.created_at), answer, visible: false })
        .await
        .unwrap();
    let kept = settled.outcome.clone().unwrap().answer.unwrap();
    assert_eq!(store.body(kept).await.unwrap(), binary);
    for (from, length, end) in [(0, 10, 10), (70_000, 30_000, 100_000), (99_999, 9, 100_000)] {
        let part = store.part(kept, from, length).await.unwrap();
        assert_eq!(part, binary.slice(from as usize..end));
    }
    assert!(store.part(kept, 100_000, 9).await.unwrap().is_empty());
    assert_eq!(store.find(Which::Id(made.id)).await.unwrap(), Some(settled));
}

fn start_it() -> Judge {
    Arc::new(|_| Event::Started(Session(1)))
}

fn lane(route: &str) -> Lane {
    Lane { tenant: "t".into(), route: route.into(), flow: String::new() }
}

async fn due_work_is_taken_once_and_in_order(store: Arc<dyn Store>) {
    for n in (1..=40).rev() {
        remember(&*store, &operation(n, &format!("k{n}"), "r", Mode::Accepted)).await;
    }
    let now = Timestamp::from_micros(30_000_000);
    let first = store.take(lane("r"), now, 5, start_it()).await.unwrap();
    assert_eq!(
        first.iter().map(|operation| operation.id.sequence()).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5]
    );
    assert!(
        first
            .iter()
            .all(|operation| operation.state == State::Delivering && operation.attempts.len() == 1)
    );
    let takers = (0..8).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.take(lane("r"), now, 7, start_it()).await.unwrap() })
    });
    let mut seen = HashSet::new();
    for taker in takers.collect::<Vec<_>>() {
        for operation in taker.await.unwrap() {
            assert!(seen.insert(operation.id), "{} was taken twice", operation.key);
        }
    }
    assert_eq!(seen.len(), 25, "all that is due, and nothing else");
}

async fn held_and_future_work_is_not_taken(store: &dyn Store) {
    remember(store, &operation(1, "held", "r", Mode::Held)).await;
    remember(store, &operation(50, "later", "r", Mode::Accepted)).await;
    remember(store, &operation(2, "elsewhere", "s", Mode::Accepted)).await;
    assert_eq!(
        store.take(lane("r"), Timestamp::from_micros(40_000_000), 10, start_it()).await.unwrap(),
        []
    );
}

async fn lanes_tell_their_first_due_time(store: &dyn Store) {
    for (n, route) in [(7, "r"), (3, "r"), (5, "s")] {
        remember(store, &operation(n, &format!("k{n}"), route, Mode::Accepted)).await;
    }
    remember(store, &operation(1, "held", "h", Mode::Held)).await;
    let mut lanes = store.lanes().await.unwrap();
    lanes.sort();
    let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
    assert_eq!(lanes, [(lane("r"), at(3)), (lane("s"), at(5))]);
    store.take(lane("s"), at(5), 1, start_it()).await.unwrap();
    assert_eq!(store.lanes().await.unwrap(), [(lane("r"), at(3))]);
}

async fn lists_are_newest_first_and_page_on(store: &dyn Store) {
    for n in 1..=9 {
        remember(
            store,
            &operation(n, &format!("k{n}"), if n % 2 == 0 { "even" } else { "odd" }, Mode::Held),
        )
        .await;
    }
    let places = |query: Query| async move {
        let page = store.list(query).await.unwrap();
        (
            page.operations.iter().map(|operation| operation.id.sequence()).collect::<Vec<_>>(),
            page.next,
        )
    };
    let (first, next) = places(Query { limit: 4, ..Query::default() }).await;
    assert_eq!(first, [9, 8, 7, 6]);
    let (second, next) = places(Query { limit: 100, before: next, ..Query::default() }).await;
    assert_eq!((second, next), (vec![5, 4, 3, 2, 1], None));
    let even = Query { route: Some("even".into()), limit: 100, ..Query::default() };
    assert_eq!(places(even).await.0, [8, 6, 4, 2]);
    let held = Query { standing: vec![Standing::Held], limit: 2, ..Query::default() };
    assert_eq!(places(held).await.0, [9, 8]);
    for n in [10, 12, 11] {
        remember(store, &operation(n, &format!("k{n}"), "w", Mode::Accepted)).await;
    }
    let waiting = |standing: &[Standing], before: u64| Query {
        standing: standing.to_vec(),
        before: Some(OperationId::new(before, 0)),
        limit: 3,
        ..Query::default()
    };
    assert_eq!(places(waiting(&[Standing::Pending], 99)).await.0, [12, 11, 10]);
    assert_eq!(places(waiting(&[Standing::Pending], 11)).await, (vec![10], None));
    let unfinished = [Standing::Pending, Standing::Held, Standing::Delivering];
    assert_eq!(places(waiting(&unfinished, 12)).await.0, [11, 10, 9]);
    assert_eq!(
        places(waiting(&[Standing::Pending, Standing::Done], 12)).await,
        (vec![11, 10], None)
    );
    let in_doubt = Query {
        standing: vec![Standing::InDoubt, Standing::DeadLetter],
        limit: 2,
        ..Query::default()
    };
    assert_eq!(places(in_doubt).await, (vec![], None));
    let text = Query { text: Some("label-3".into()), limit: 9, ..Query::default() };
    assert_eq!(places(text).await.0, [3]);
    let count = |tenant: &str, standing| {
        let tenant = tenant.to_owned();
        async move {
            let counts = store.count_open(Some(tenant), 100).await.unwrap();
            let found = counts.into_iter().find(|(stands, _)| *stands == standing);
            let counted = found.map_or(Counted::NONE, |(_, counted)| counted);
            assert!(counted.is_all);
            counted.count
        }
    };
    assert_eq!(count("t", Standing::Held).await, 9);
    assert_eq!(count("t", Standing::Pending).await, 3);
    assert_eq!(count("t", Standing::InDoubt).await, 0);
    assert_eq!(count("other", Standing::Held).await + count("other", Standing::Pending).await, 0);
    let by_key =
        Query { key: Some("k7".into()), tenant: Some("t".into()), limit: 9, ..Query::default() };
    assert_eq!(places(by_key).await.0, [7]);
    assert!(
        places(Query { tenant: Some("other".into()), limit: 9, ..Query::default() })
            .await
            .0
            .is_empty()
    );
}

async fn what_is_open_is_counted_as_far_as_is_asked(store: &dyn Store) {
    for n in 1..=5 {
        for (mode, place) in [(Mode::Held, n), (Mode::Accepted, 10 + n)] {
            let mut born = operation(place, &format!("k{place}"), &format!("r{}", n % 2), mode);
            born.intent_mut().scope.tenant = if n == 5 { "late".into() } else { "t".into() };
            remember(store, &born).await;
        }
    }
    let counts = |tenant: Option<&str>, max| {
        let tenant = tenant.map(str::to_owned);
        async move {
            let counts = store.count_open(tenant, max).await.unwrap();
            [Standing::Held, Standing::Pending, Standing::InDoubt].map(|standing| {
                let found = counts.iter().find(|(stands, _)| *stands == standing);
                found.map_or(Counted::NONE, |(_, counted)| *counted)
            })
        }
    };
    let all = |count| Counted { count, is_all: true };
    let at_least = |count| Counted { count, is_all: false };
    let none = Counted::NONE;
    assert_eq!(counts(None, u64::MAX).await, [all(5), all(5), none]);
    assert_eq!(counts(None, 5).await, [all(5), all(5), none]);
    assert_eq!(counts(None, 4).await, [at_least(4), at_least(4), none]);
    assert_eq!(counts(None, 0).await, [at_least(0), at_least(0), none]);
    assert_eq!(counts(Some("t"), 5).await, [all(4), all(4), none]);
    assert_eq!(counts(Some("late"), 5).await, [all(1), all(1), none]);
    assert_eq!(counts(Some("nobody"), 5).await, [none; 3]);
    let found = counts(Some("t"), 3).await;
    assert!(found.iter().take(2).all(|counted| counted.count <= 3 && !counted.is_all), "{found:?}");
}

async fn lists_keep_to_a_time_and_find_what_was_born_of_another(store: &dyn Store) {
    let place = |n: u64| (n * 1000) << 15;
    for n in 1..=6 {
        let mut born = operation(n, &format!("k{n}"), "r", Mode::Held);
        born.intent_mut().id = OperationId::new(place(n), n);
        born.intent_mut().parent = (n > 4).then(|| OperationId::new(place(1), 1));
        remember(store, &born).await;
    }
    let found = |query: Query| async move {
        let page = store.list(Query { limit: 9, ..query }).await.unwrap();
        let keys: Vec<_> = page.operations.iter().map(|it| it.key.as_str().to_owned()).collect();
        (keys.join(" "), page.next)
    };
    let at = |seconds: i64| Some(Timestamp::from_micros(seconds * 1_000_000));
    let between = Query { since: at(3), until: at(6), ..Query::default() };
    assert_eq!(found(between).await, ("k5 k4 k3".to_owned(), None));
    let earlier = |before| Query { until: at(3), before, ..Query::default() };
    assert_eq!(found(earlier(None)).await, ("k2 k1".to_owned(), None));
    // Where a page of a list goes on, it keeps to what it was asked for.
    assert_eq!(found(earlier(Some(OperationId::first_at(at(6).unwrap())))).await.0, "k2 k1");
    assert_eq!(found(earlier(Some(OperationId::first_at(at(2).unwrap())))).await.0, "k1");
    // Made by a clock that was set back: it came when those did that are beside it.
    let mut late = operation(2, "late", "r", Mode::Held);
    late.intent_mut().id = OperationId::new(place(6) + 1, 7);
    let late = remember(store, &late).await;
    assert_eq!(found(earlier(None)).await.0, "k2 k1");
    assert_eq!(found(Query { since: at(6), ..Query::default() }).await.0, "late k6");
    let born = Query { parent: Some(OperationId::new(place(1), 1)), ..Query::default() };
    assert_eq!(found(born).await.0, "k6 k5");
    assert_eq!(found(Query { status: Some(200..=200), ..Query::default() }).await.0, "");
    let late = commit(store, started(&late)).await.unwrap();
    commit(store, done(&late, late.created_at)).await.unwrap();
    let met = |status| found(Query { status: Some(status), ..Query::default() });
    assert_eq!([met(201..=201).await.0, met(200..=299).await.0], ["late", "late"]);
    assert_eq!([met(202..=599).await.0, met(100..=200).await.0], ["", ""]);
    let tried = |least| found(Query { attempts_min: Some(least), ..Query::default() });
    assert_eq!([tried(1).await.0, tried(2).await.0], ["late", ""]);
}

async fn what_an_answer_made_is_found(store: &dyn Store) {
    let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(name, id)| ((*name).into(), (*id).into())).collect()
    };
    let made = [
        pairs(&[("order", "o-1"), ("customer", "c-1")]),
        pairs(&[("order", "o-2"), ("customer", "c-1")]),
        pairs(&[("customer", "o-1")]),
        pairs(&[]),
    ];
    for (n, ids) in (1..).zip(made) {
        let born = remember(store, &operation(n, &format!("k{n}"), "r", Mode::Held)).await;
        let next = commit(store, started(&born)).await.unwrap();
        commit(store, Operation { ids, ..done(&next, born.created_at) }).await.unwrap();
    }
    let found = |name: Option<&str>, id: &str| {
        let made = Some((name.map(str::to_owned), id.to_owned()));
        async move {
            let page = store.list(Query { made, limit: 9, ..Query::default() }).await.unwrap();
            page.operations.iter().map(|it| it.id.sequence()).collect::<Vec<_>>()
        }
    };
    assert_eq!(found(None, "c-1").await, [2, 1]);
    assert_eq!(found(Some("order"), "o-1").await, [1]);
    assert_eq!(found(None, "o-1").await, [3, 1]);
    assert!(found(Some("order"), "c-1").await.is_empty() && found(None, "o-3").await.is_empty());
    let mail = Operation {
        ids: pairs(&[("message_id", "<m-1>"), ("to", "a@example.com"), ("to", "b@example.com")]),
        ..operation(5, "k5", "r", Mode::Accepted)
    };
    let mail = remember(store, &mail).await;
    assert_eq!(found(None, "<m-1>").await, [5], "it says so itself, before it is sent");
    assert_eq!(found(Some("to"), "b@example.com").await, [5]);
    let mut served = started(&mail);
    served.served = vec![0, 300];
    commit(store, served).await.unwrap();
    let kept = store.find(Which::Id(mail.id)).await.unwrap().unwrap();
    assert_eq!((kept.served, kept.ids), (vec![0, 300], mail.ids.clone()));
}

async fn what_many_have_in_common_is_listed_to_the_end(store: &dyn Store) {
    const MANY: u64 = 1100;
    let pair = |name: &str, id: &str| (name.to_owned(), id.to_owned());
    for n in 1..=MANY {
        // Some have it under two names, and some under one that comes after those.
        let ids = match n % 3 {
            0 => vec![pair("subject", "Hello"), pair("to", "Hello")],
            1 => vec![pair("subject", "Hello")],
            _ => vec![pair("zone", "Hello")],
        };
        let said = Operation { ids, ..operation(n, &format!("k{n}"), "r", Mode::Accepted) };
        remember(store, &said).await;
    }
    for name in [None, Some("subject"), Some("to"), Some("zone")] {
        let (mut found, mut before) = (Vec::new(), None);
        loop {
            let made = Some((name.map(str::to_owned), "Hello".to_owned()));
            let query = Query { made, before, limit: 400, ..Query::default() };
            let page = store.list(query).await.unwrap();
            found.extend(page.operations.iter().map(|it| it.id.sequence()));
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        let has = |n: &u64| match name {
            None => true,
            Some("subject") => n % 3 != 2,
            Some("to") => n.is_multiple_of(3),
            Some(_) => n % 3 == 2,
        };
        assert_eq!(found, (1..=MANY).rev().filter(has).collect::<Vec<_>>(), "{name:?}");
    }
    let made = Some((None, "Hello".to_owned()));
    let last = Query { made, key: Some("k1".to_owned()), limit: 1, ..Query::default() };
    assert_eq!(store.list(last).await.unwrap().operations.len(), 1, "it is behind many others");
}

async fn sweep_all(store: &dyn Store, now: Timestamp) -> (u32, u32) {
    let (mut from, mut forgotten, mut removed) = (0, 0, 0);
    loop {
        let swept = store.sweep(now, from, 2).await.unwrap();
        forgotten += swept.forgotten;
        removed += swept.removed;
        match swept.next {
            Some(next) => from = next,
            None => return (forgotten, removed),
        }
    }
}

async fn the_sweep_forgets_by_time_and_never_what_is_open(store: &dyn Store) {
    let mut settled = Vec::new();
    for n in 1..=5 {
        let made = remember(store, &operation(n, &format!("k{n}"), "r", Mode::Held)).await;
        let next = commit(store, started(&made)).await.unwrap();
        settled.push(commit(store, done(&next, made.created_at)).await.unwrap());
    }
    let open = remember(store, &operation(6, "open", "r", Mode::Held)).await;
    let policy = Policy::default();
    let later = |after: Duration| Timestamp::from_micros(60_000_000).plus(after);
    assert_eq!(sweep_all(store, later(Duration::ZERO)).await, (0, 0));
    assert_eq!(sweep_all(store, later(policy.window)).await, (5, 0));
    let mark = store.find(Which::Id(settled[0].id)).await.unwrap().unwrap();
    assert_eq!((Standing::of(&mark), mark.ended_at), (Standing::Tombstone, settled[0].ended_at));
    assert_eq!(
        store.find(Which::Key(mark.scope.digest(&mark.key))).await.unwrap(),
        Some(mark),
        "its key is known still"
    );
    assert_eq!(sweep_all(store, later(policy.window)).await, (0, 0), "a mark is made once");
    assert_eq!(sweep_all(store, later(policy.window + policy.tombstone)).await, (0, 5));
    assert_eq!(store.find(Which::Id(settled[0].id)).await.unwrap(), None);
    assert_eq!(
        store.find(Which::Id(open.id)).await.unwrap(),
        Some(open),
        "what is open never expires"
    );
}

async fn what_was_forgotten_since_it_was_read_is_no_damage(store: &dyn Store) {
    let made = remember(store, &operation(1, "k", "r", Mode::Held)).await;
    let next = commit(store, started(&made)).await.unwrap();
    let answer = Some((Slot::Outcome, Bytes::from_static(b"answer")));
    let operation = done(&next, made.created_at);
    let read = store.commit(Write { operation, answer, visible: false }).await.unwrap();
    let policy = Policy::default();
    for over in [policy.window, policy.window + policy.tombstone] {
        sweep_all(store, Timestamp::from_micros(60_000_000).plus(over)).await;
        for body in read.bodies() {
            let found = store.body_of(&read, body).await;
            let is_no_damage = found.as_ref().map_or_else(StoreError::may_pass, |_| true);
            assert!(is_no_damage, "{found:?}");
        }
    }
}

async fn a_forgotten_key_goes_to_its_successor(store: &dyn Store) {
    let old = remember(store, &operation(1, "k", "r", Mode::Held)).await;
    let next = commit(store, started(&old)).await.unwrap();
    let old = commit(store, done(&next, old.created_at)).await.unwrap();
    let successor = operation(2, "k", "r", Mode::Held);
    let replace = |fence| Birth {
        operation: successor.clone(),
        request: Bytes::from_static(b"new"),
        replaces: Some((old.id, fence)),
    };
    assert_eq!(store.remember(replace(Fence(0))).await, Err(StoreError::Stale));
    assert!(matches!(store.remember(replace(old.fence)).await, Ok(Remembered::Fresh(_))));
    let owner = store.find(Which::Key(old.scope.digest(&old.key))).await.unwrap().unwrap();
    assert_eq!(owner.id, successor.id);
    let old = store.find(Which::Id(old.id)).await.unwrap().expect("its history stays");
    let act =
        Act { deed: Deed::Forgot, at: old.created_at, who: "anna".into(), reason: String::new() };
    let forgotten = old.after(Event::Acted(act, None, Some(Forgotten::New)), old.created_at);
    let late = commit(store, forgotten.unwrap()).await;
    assert_eq!(late, Err(StoreError::Stale), "it does not take its key back");
    assert_eq!(store.find(Which::Id(owner.id)).await.unwrap(), Some(owner));
}

async fn what_a_lapsed_session_had_in_hand_is_told(store: &dyn Store) {
    // Of the session that started these nobody ever heard a beat.
    let mut in_hand = Vec::new();
    for (n, mode) in [(1, Mode::Held), (2, Mode::Accepted), (3, Mode::Held)] {
        let made = remember(store, &operation(n, &format!("k{n}"), "r", mode)).await;
        in_hand.push(commit(store, started(&made)).await.unwrap());
    }
    remember(store, &operation(4, "waits", "r", Mode::Accepted)).await;
    let at = in_hand[2].created_at;
    let settled = commit(store, done(&in_hand.pop().unwrap(), at)).await.unwrap();
    let mut told = store.beat(Session(2), 1).await.unwrap();
    assert_eq!(told.len(), 1, "no more than were asked for");
    told = store.beat(Session(2), 9).await.unwrap();
    told.sort_by_key(|operation| operation.id);
    assert_eq!(told, in_hand, "what is under way, and neither what waits nor what is done");
    assert_eq!(store.find(Which::Id(settled.id)).await.unwrap(), Some(settled));
}

async fn a_claim_is_no_sessions_and_nobody_takes_it(store: &dyn Store) {
    let mut claim = operation(1, "k", "handlers", Mode::Held);
    claim.intent_mut().scope.kind = ScopeKind::Claim;
    claim.intent_mut().route = String::new();
    let lease_until = claim.created_at.plus(Duration::from_secs(30));
    let begun = Event::Claim(ClaimEvent::Begun { lease_until, holder: Some("ada".into()) });
    let claim = claim.after(begun, claim.created_at).unwrap();
    let request = Bytes::from_static(b"begin");
    store.remember(Birth { operation: claim.clone(), request, replaces: None }).await.unwrap();
    for session in [1, 2] {
        let told = store.beat(Session(session), 9).await.unwrap();
        assert!(told.is_empty(), "it keeps its own time");
    }
    assert!(store.lanes().await.unwrap().is_empty(), "nothing of it is sent");
    let found = store.find(Which::Id(claim.id)).await.unwrap().unwrap();
    assert_eq!((found.lease_until, found.label), (Some(lease_until), Some("ada".into())));
    let query = |kind, scope: &str| Query {
        kind: Some(kind),
        scope: Some(scope.to_owned()),
        limit: 9,
        ..Query::default()
    };
    for (query, count) in [
        (query(ScopeKind::Claim, "handlers"), 1),
        (query(ScopeKind::Claim, "others"), 0),
        (query(ScopeKind::Call, "handlers"), 0),
    ] {
        assert_eq!(store.list(query).await.unwrap().operations.len(), count);
    }
}

async fn what_a_living_session_has_in_hand_stays_its_own(store: &dyn Store) {
    assert_eq!(store.beat(Session(1), 9).await.unwrap(), []);
    let made = remember(store, &operation(1, "k", "r", Mode::Held)).await;
    commit(store, started(&made)).await.unwrap();
    assert_eq!(store.beat(Session(1), 9).await.unwrap(), []);
}

async fn duplicates_are_counted(store: &dyn Store) {
    let made = remember(store, &operation(1, "k", "r", Mode::Held)).await;
    let times = |range: std::ops::Range<i64>| range.map(Timestamp::from_micros).collect::<Vec<_>>();
    store.note_asked(vec![(made.id, Asked { count: 3, times: times(0..3) })]).await.unwrap();
    store.note_asked(vec![(made.id, Asked { count: 30, times: times(3..23) })]).await.unwrap();
    assert_eq!(store.asked(made.id).await.unwrap(), Asked { count: 33, times: times(3..23) });
    assert_eq!(store.asked(OperationId::new(9, 9)).await.unwrap(), Asked::default());
    let many: Vec<_> = (2..=40)
        .rev()
        .map(|n| (OperationId::new(n, n), Asked { count: n, times: times(0..n as i64 % 4) }))
        .collect();
    store.note_asked(many.clone()).await.unwrap();
    for (id, asked) in many {
        assert_eq!(store.asked(id).await.unwrap(), asked, "all of them at once");
    }
}

async fn settings_are_kept_and_removed(store: &dyn Store) {
    // "a/" itself does not go on: it is not among those that begin with it.
    for name in ["a", "a/", "a/1", "a/2", "b"] {
        store.set(name.into(), Some(Bytes::from_static(b"v"))).await.unwrap();
    }
    store.set("a/1".into(), None).await.unwrap();
    assert_eq!(store.setting("b".into()).await.unwrap().as_deref(), Some(&b"v"[..]));
    assert_eq!(store.setting("a/1".into()).await.unwrap(), None);
    assert_eq!(
        store.settings("a/".into()).await.unwrap(),
        [("a/2".to_owned(), Bytes::from_static(b"v"))]
    );
}

async fn settings_are_read_page_by_page_and_either_way(store: &dyn Store) {
    for n in 0..7 {
        store.set(format!("p/{n:02}"), Some(Bytes::from_static(b"v"))).await.unwrap();
    }
    for other in ["p", "o/9", "q/0", "P/1"] {
        store.set(other.into(), Some(Bytes::from_static(b"v"))).await.unwrap();
    }
    for (way, wanted) in [(Way::Up, "00 01 02|03 04 05|06"), (Way::Down, "06 05 04|03 02 01|00")] {
        let (mut from, mut pages) = (None, Vec::new());
        loop {
            let page = store.settings_from("p/".into(), from.take(), way, 3).await.unwrap();
            let names: Vec<_> = page.iter().map(|(name, _)| name[2..].to_owned()).collect();
            pages.push(names.join(" "));
            match page.last().filter(|_| page.len() == 3) {
                Some((last, _)) => from = Some(last.clone()),
                None => break,
            }
        }
        assert_eq!(pages.join("|"), wanted);
    }
}

async fn what_is_offered_is_kept_where_nothing_is(store: &dyn Store) {
    for offered in [b"first", b"later"] {
        let kept = store.offer("s".into(), Bytes::from_static(offered)).await.unwrap();
        assert_eq!(&kept[..], b"first");
    }
    assert_eq!(store.setting("s".into()).await.unwrap().as_deref(), Some(&b"first"[..]));
}

async fn settings_are_paged_by_their_names(store: &dyn Store) {
    for name in ["l/1", "l/2", "l/3", "L/4", "m/5", "l"] {
        store.set(name.into(), Some(Bytes::from_static(b"v"))).await.unwrap();
    }
    let names = |after: &'static str, max| async move {
        let page = {
            let from = Some(after.to_owned()).filter(|after| !after.is_empty());
            store.settings_from("l/".into(), from, Way::Up, max).await.unwrap()
        };
        page.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(names("", 2).await, ["l/1", "l/2"]);
    assert_eq!(names("l/2", 2).await, ["l/3"]);
    assert!(names("l/3", 2).await.is_empty());
}

async fn one_of_many_swaps_wins(store: Arc<dyn Store>) {
    let of = |text: &str| Some(Bytes::copy_from_slice(text.as_bytes()));
    let value = async || store.setting("s".into()).await.unwrap();
    assert!(!store.swap("s".into(), of("a"), of("b")).await.unwrap(), "it is not set");
    for before in [None, of("first")] {
        let racers = (0..16).map(|n| {
            let (store, before, mine) = (Arc::clone(&store), before.clone(), of(&n.to_string()));
            tokio::spawn(async move {
                store.swap("s".into(), before, mine.clone()).await.unwrap().then_some(mine)
            })
        });
        let mut won = Vec::new();
        for racer in racers.collect::<Vec<_>>() {
            won.extend(racer.await.unwrap());
        }
        assert_eq!(won, [value().await]);
        assert!(store.swap("s".into(), won[0].clone(), of("first")).await.unwrap());
    }
    assert!(store.swap("s".into(), of("first"), None).await.unwrap());
    assert_eq!(value().await, None);
    assert!(!store.swap("s".into(), of("first"), None).await.unwrap());
}

async fn a_flow_is_a_lane_of_its_own(store: &dyn Store) {
    let of = |n, flow: &str| {
        let mut made = operation(n, &format!("k{n}"), "r", Mode::Accepted);
        made.intent_mut().flow = Some(flow.to_owned());
        made
    };
    for one in [of(1, "a"), of(2, "a"), of(3, "b"), operation(4, "k4", "r", Mode::Accepted)] {
        remember(store, &one).await;
    }
    let on = |flow: &str| Lane { flow: flow.into(), ..lane("r") };
    let mut lanes = store.lanes().await.unwrap();
    lanes.sort();
    let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
    assert_eq!(lanes, [(on(""), at(4)), (on("a"), at(1)), (on("b"), at(3))]);
    let taken = store.take(on("b"), at(9), 9, start_it()).await.unwrap();
    assert_eq!(taken.len(), 1, "no other flow's");
    assert_eq!(store.backlog(lane("r"), 9).await.unwrap().operations, 3, "of all flows");
    let everywhere = |tenant: &str| Lane { tenant: tenant.to_owned(), ..Lane::default() };
    let waiting = |lane: Lane| async move { store.backlog(lane, 99).await.unwrap().operations };
    assert_eq!(waiting(everywhere("t")).await, waiting(lane("r")).await, "of all routes");
    assert_eq!(waiting(everywhere("u")).await, 0, "another tenant has none");
}
