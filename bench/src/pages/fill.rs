//! A ledger as a month of traffic leaves it, put there past the gateway: most of it done, some of it dead, a little
//! in doubt or waiting; on a few routes and one that is rarely used, by several callers.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use onceward::core::attempt::{Ended, Ending, Reached, Timings};
use onceward::core::exchange::{Headers, Request};
use onceward::core::fingerprint::{Fingerprint, FingerprintRule, FingerprintSecret};
use onceward::core::id::{OperationId, next_sequence};
use onceward::core::key::{Key, Scope, ScopeKind, TENANT};
use onceward::core::lease::Session;
use onceward::core::operation::{Death, Event, Intent, Operation, Outcome, Source, State, Subject};
use onceward::core::policy::{Effects, Mode};
use onceward::core::time::Timestamp;
use onceward::core::verdict::Verdict;
use onceward::store::sqlite::{SqliteOptions, SqliteStore};
use onceward::store::{Birth, Store, StoreError};

use crate::ledger::REQUEST_BYTES;
use crate::{Outcome as Done, postgres};

/// What the operations are spread over.
const SPAN: Duration = Duration::from_hours(20 * 24);

const DAY: Duration = Duration::from_hours(24);

/// Longer than the span, so that nothing is forgotten while it is measured.
const WINDOW: Duration = Duration::from_hours(365 * 24);

/// Writes under way at a time.
const AT_ONCE: u64 = 512;

/// A route that one of a hundred thousand goes by.
pub(super) const RARE: &str = "rare";

/// The number of the operation of which others were born.
pub(super) const PARENT: u64 = 1000;

/// Which operations there are.
pub(super) struct Filled {
    pub(super) rows: u64,
    from: Timestamp,
}

impl Filled {
    fn now(rows: u64) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let from = now.saturating_sub(SPAN).as_micros() as i64;
        Self { rows, from: Timestamp::from_micros(from) }
    }

    /// When number `n` came.
    fn at(&self, n: u64) -> Timestamp {
        // A little before now, so that nothing comes from the future.
        let share = n as f64 / (self.rows + 1) as f64;
        self.from.plus(SPAN.mul_f64(share))
    }

    /// When number `n` came, as it is asked for.
    pub(super) fn time(&self, n: u64) -> String {
        self.at(n).rfc3339()
    }

    /// Its id.
    pub(super) fn id(&self, n: u64) -> OperationId {
        let n = n % self.rows;
        // Several in a millisecond have each a place of its own.
        let alike = n - self.first_of(self.at(n).as_millis(), n);
        OperationId::new(next_sequence(0, self.at(n)) + alike, n)
    }

    /// The first number in this millisecond, at or before `n`.
    fn first_of(&self, millis: u64, n: u64) -> u64 {
        (0..=n).rev().take_while(|n| self.at(*n).as_millis() == millis).last().unwrap_or(n)
    }
}

/// What number `n` is called in one way or another.
pub(super) fn named(word: &str, n: u64) -> String {
    format!("{word}-{n:09}")
}

/// Fills the ledger at `path`, which nobody has open.
pub(super) fn embedded(path: &Path, rows: u64) -> Done<Filled> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let store = SqliteStore::open(path, &SqliteOptions::default())?;
    runtime.block_on(fill(Arc::new(store), rows))
}

/// Fills the ledger at `url`, which no node has open: one would take a day that is empty yet for one that is over.
pub(super) async fn shared(url: &str, rows: u64) -> Done<Filled> {
    let day = |at: Timestamp| at.as_micros().div_euclid(DAY.as_micros() as i64);
    let store = postgres::open(url).await?;
    let from = Filled::now(rows).from;
    postgres::make_days(url, day(from)..day(from.plus(SPAN))).await?;
    let filled = fill(store, rows).await?;
    postgres::tidy(url).await?;
    Ok(filled)
}

async fn fill(store: Arc<dyn Store>, rows: u64) -> Done<Filled> {
    let filled = Arc::new(Filled::now(rows));
    let tasks = (0..AT_ONCE).map(|first| {
        let (store, filled) = (Arc::clone(&store), Arc::clone(&filled));
        tokio::spawn(async move {
            let request = Bytes::from(vec![b'q'; REQUEST_BYTES]);
            for n in (first..filled.rows).step_by(AT_ONCE as usize) {
                let operation = operation(&filled, n)
                    .map_err(|error| StoreError::Unavailable(error.to_string()))?;
                let birth = Birth { operation, request: request.clone(), replaces: None };
                store.remember(birth).await?;
            }
            Ok::<_, StoreError>(())
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await??;
    }
    drop(store);
    // The tasks are gone, and with them every other owner.
    Arc::into_inner(filled).ok_or_else(|| "somebody still fills it".into())
}

/// Number `n`, as it ended: of a thousand thirty are dead letters and thirty dead and told, five in doubt, five
/// wait for another month, and the rest is done.
fn operation(filled: &Filled, n: u64) -> Done<Operation> {
    let at = filled.at(n);
    let route = match n {
        n if n % 100_000 == 7 => RARE,
        n if n % 3 == 0 => "pass",
        _ => "sink",
    };
    let request = Request {
        method: "POST".into(),
        target: format!("/orders/{n}"),
        headers: Headers::default(),
        body: Bytes::new(),
    };
    let scope = Scope {
        kind: ScopeKind::Call,
        tenant: TENANT.into(),
        name: route.into(),
        principal: format!("shop-{}", n % 5),
    };
    let print =
        Fingerprint::of(&request, &FingerprintRule::default(), &FingerprintSecret::new([0; 32]));
    let intent = Intent {
        effects: Effects::Keyed,
        method: request.method,
        target: request.target,
        tombstone: WINDOW,
        parent: (n > PARENT && n % 200_000 == 11).then(|| filled.id(PARENT)),
        ..Intent::new(filled.id(n), scope, Key::new(&named("key", n))?, print, at)
    };
    let (kind, mode) = match n % 1000 {
        0..30 => (Kind::Dead, Mode::Accepted),
        30..60 => (Kind::Dead, Mode::Held),
        60..65 => (Kind::Doubtful, Mode::Held),
        65..70 => (Kind::Waiting, Mode::Accepted),
        _ => (Kind::Done, Mode::Held),
    };
    let subject =
        Subject { name: named("subject", n), sequence: None, is_first: true, superseded_by: None };
    let mut operation = Operation {
        mode,
        label: Some(named("label", n)),
        window: WINDOW,
        subject: Some(Box::new(subject)),
        ..Operation::new(intent)
    };
    if kind == Kind::Waiting {
        operation.state = State::Pending { due: at.plus(WINDOW) };
        return Ok(operation);
    }
    let started = operation.after(Event::Started(Session(1)), at)?;
    let took = at.plus(Duration::from_millis(40));
    let (status, verdict) = match kind {
        Kind::Done => (Some(201), Verdict::Finish(outcome(201))),
        Kind::Dead => (Some(404), Verdict::Bury(Death::Refused, Some(outcome(404)))),
        Kind::Doubtful | Kind::Waiting => (None, Verdict::Doubt),
    };
    let ended = Ended {
        at: took,
        ending: if status.is_some() { Ending::Answered } else { Ending::Unanswered },
        reached: if status.is_some() { Reached::Body } else { Reached::Sent },
        status,
        error: status.is_none().then(|| "the upstream closed the connection".to_owned()),
        may_have_executed: true,
        answer: None,
        timings: Timings::default(),
    };
    let mut ended = started.after(Event::Ended(ended, verdict), took)?;
    ended.ids = vec![("order".to_owned(), named("made", n))];
    Ok(ended)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Done,
    Dead,
    Doubtful,
    Waiting,
}

fn outcome(status: u16) -> Outcome {
    Outcome { status: Some(status), ok: status < 300, source: Source::Upstream, answer: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_in_the_order_of_their_numbers_and_each_its_own() {
        // More than one in a millisecond.
        let filled =
            Filled { rows: 4_000_000_000, from: Timestamp::from_micros(1_700_000_000_000_000) };
        let ids: Vec<_> = (1_000_000..1_000_050).map(|n| filled.id(n).sequence()).collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    }

    #[test]
    fn each_kind_of_end_is_there() {
        let filled = Filled::now(1000);
        let names: Vec<_> = [100, 5, 40, 62, 67]
            .map(|n| operation(&filled, n).unwrap())
            .iter()
            .map(|operation| (operation.state.name(), operation.told))
            .collect();
        let wanted = [
            ("done", false),
            ("dead", false),
            ("dead", true),
            ("in_doubt", false),
            ("pending", false),
        ];
        for ((name, told), wanted) in names.iter().zip(wanted) {
            assert_eq!(*name, wanted.0);
            assert!(*told == wanted.1 || *name != "dead", "{name}");
        }
    }
}
