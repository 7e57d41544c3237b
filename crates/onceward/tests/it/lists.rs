//! Lists that are long: whatever is asked for, every store finds what the reference finds, in pages of any size,
//! whether it seeks, passes over rows or reads them.

use std::sync::Arc;

use bytes::Bytes;
use onceward::core::attempt::{Ended, Ending, Reached, Timings};
use onceward::core::id::OperationId;
use onceward::core::key::ScopeKind;
use onceward::core::lease::Session;
use onceward::core::operation::{Death, Event, Operation, Outcome, Source, Subject};
use onceward::core::policy::Mode;
use onceward::core::time::Timestamp;
use onceward::core::verdict::Verdict;
use onceward::store::contract::operation;
use onceward::store::memory::MemoryStore;
use onceward::store::sqlite::{SqliteOptions, SqliteStore};
use onceward::store::{Birth, Query, Standing, Store};

use crate::postgres;

/// More than are passed over at first and at once after that.
const ROWS: u64 = 3000;

/// One a second.
fn at(n: u64) -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000 + n as i64 * 1_000_000)
}

fn id(n: u64) -> OperationId {
    OperationId::new(OperationId::first_at(at(n)).sequence(), n)
}

/// Number `n`: most are done, some dead or in doubt, some wait; few are of the route `rare`, born of another, or a
/// saga.
fn made(n: u64) -> Operation {
    let mode = if n % 20 == 3 { Mode::Accepted } else { Mode::Held };
    let route = if n % 700 == 5 { "rare" } else { "common" };
    let mut born = operation(n, &format!("key-{n}"), route, mode);
    let intent = born.intent_mut();
    (intent.id, intent.created_at) = (id(n), at(n));
    intent.parent = (n % 900 == 7).then(|| id(1));
    intent.scope.principal = format!("shop-{}", n % 5);
    if n % 800 == 9 {
        intent.scope.kind = ScopeKind::Saga;
    }
    let name = format!("subject-{n}");
    let subject = Subject { name, sequence: None, is_first: true, superseded_by: None };
    born.subject = Some(Box::new(subject));
    if n % 20 == 3 {
        return born;
    }
    let started = born.after(Event::Started(Session(1)), at(n)).unwrap();
    let is_lost = n.is_multiple_of(50);
    let status = (!is_lost).then_some(if n.is_multiple_of(60) { 404 } else { 201 });
    let outcome =
        Outcome { status, ok: !n.is_multiple_of(60), source: Source::Upstream, answer: None };
    let verdict = match n {
        _ if is_lost => Verdict::Doubt,
        n if n.is_multiple_of(60) => Verdict::Bury(Death::Refused, Some(outcome)),
        _ => Verdict::Finish(outcome),
    };
    let ended = Ended {
        at: at(n),
        ending: if is_lost { Ending::Unanswered } else { Ending::Answered },
        reached: Reached::Body,
        status,
        error: is_lost.then(|| format!("the connection broke off after {} bytes", n % 7)),
        may_have_executed: true,
        answer: None,
        timings: Timings::default(),
    };
    started.after(Event::Ended(ended, verdict), at(n)).unwrap()
}

async fn fill(store: &dyn Store) {
    let births = (1..=ROWS).map(|n| {
        store.remember(Birth { operation: made(n), request: Bytes::new(), replaces: None })
    });
    for birth in births.collect::<Vec<_>>() {
        birth.await.unwrap();
    }
}

fn queries() -> Vec<Query> {
    let all = Query::default();
    let word = |text: &str| Some(text.to_owned());
    let mut queries = vec![
        all.clone(),
        Query { since: Some(at(1000)), until: Some(at(1010)), ..all.clone() },
        Query { until: Some(at(20)), ..all.clone() },
        Query { since: Some(at(ROWS - 20)), ..all.clone() },
        Query { until: Some(at(0)), ..all.clone() },
        Query { route: word("rare"), ..all.clone() },
        Query { route: word("rare"), since: Some(at(700)), until: Some(at(1500)), ..all.clone() },
        Query { route: word("nowhere"), ..all.clone() },
        Query { principal: word("shop-2"), since: Some(at(2900)), ..all.clone() },
        Query {
            principal: word("shop-2"),
            route: word("rare"),
            status: Some(201..=201),
            ..all.clone()
        },
        Query { subject: word("subject-40"), ..all.clone() },
        Query { label: word("label-2999"), ..all.clone() },
        Query { text: word("ey-17"), ..all.clone() },
        Query { text: Some(id(33).to_string()), ..all.clone() },
        Query { status: Some(404..=404), ..all.clone() },
        Query { status: Some(599..=599), ..all.clone() },
        Query { status: Some(400..=499), ..all.clone() },
        Query { status: Some(500..=599), ..all.clone() },
        Query { status: Some(200..=299), route: word("rare"), ..all.clone() },
        Query { attempts_min: Some(1), principal: word("shop-3"), ..all.clone() },
        Query { attempts_min: Some(2), ..all.clone() },
        Query { reason: Some(Death::Refused), ..all.clone() },
        Query { error: word("off after 3"), ..all.clone() },
        Query { error_is: word("the connection broke off after 2 bytes"), ..all.clone() },
        Query { no_status: true, standing: vec![Standing::InDoubt], ..all.clone() },
        Query { kind: Some(ScopeKind::Saga), ..all.clone() },
        Query { kind: Some(ScopeKind::Event), ..all.clone() },
        Query { parent: Some(id(1)), ..all.clone() },
        Query { standing: vec![Standing::Done], route: word("rare"), ..all.clone() },
        Query {
            standing: vec![Standing::Told, Standing::InDoubt],
            principal: word("shop-0"),
            since: Some(at(500)),
            until: Some(at(2500)),
            ..all.clone()
        },
        Query { standing: vec![Standing::InDoubt], subject: word("subject-50"), ..all.clone() },
        Query { standing: vec![Standing::DeadLetter], route: word("rare"), ..all.clone() },
        Query { standing: vec![Standing::Pending], route: word("rare"), ..all.clone() },
    ];
    for n in [2, 1501, ROWS] {
        queries.push(Query { key: Some(format!("key-{n}")), ..all.clone() });
    }
    queries.extend(Standing::ALL.map(|stands| Query { standing: vec![stands], ..all.clone() }));
    queries
}

/// What `query` finds, page by page.
async fn walk(store: &dyn Store, query: &Query, limit: usize) -> Vec<OperationId> {
    let (mut found, mut before) = (Vec::new(), query.before);
    loop {
        let page = store.list(Query { before, limit, ..query.clone() }).await.unwrap();
        assert!(page.operations.len() <= limit);
        found.extend(page.operations.iter().map(|operation| operation.id));
        before = page.next;
        if before.is_none() {
            return found;
        }
    }
}

async fn finds_what_the_reference_finds(store: &dyn Store) {
    let reference = MemoryStore::new();
    fill(&reference).await;
    fill(store).await;
    for query in queries() {
        let known = walk(&reference, &query, 5000).await;
        let wanted = (1..=ROWS).rev().map(made).filter(|it| query.wants(it)).map(|it| it.id);
        assert_eq!(known, wanted.collect::<Vec<_>>(), "the reference, {query:?}");
        for limit in [7, 50, 1000] {
            assert_eq!(walk(store, &query, limit).await, known, "{limit} at once, {query:?}");
        }
        // A page that begins in the middle, as one does that is turned to.
        let later = Query { before: Some(id(ROWS / 2)), ..query };
        assert_eq!(walk(store, &later, 50).await, walk(&reference, &later, 50).await, "{later:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_lists_of_an_embedded_ledger_are_those_of_the_reference() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions::default();
    let store = SqliteStore::open(&folder.path().join("ledger.db"), &options).unwrap();
    finds_what_the_reference_finds(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_lists_of_a_shared_ledger_are_those_of_the_reference() {
    let Some(server) = postgres::server() else { return };
    let store: Arc<dyn Store> = Arc::new(postgres::open(&server.database().await).await);
    finds_what_the_reference_finds(&*store).await;
}
