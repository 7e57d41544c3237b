//! Door 1, the disk: what is kept, and the verbs that keep it.
//!
//! A store executes decisions and never makes them: what an operation becomes is computed by the
//! core, and the store writes it if the fence still holds. Every answer comes after the write is
//! on stable storage.

use std::future::Future;
use std::ops::RangeInclusive;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onceward_core::admission;
use onceward_core::attempt::BodyRef;
use onceward_core::id::{OperationId, place_at};
use onceward_core::key::{KeyDigest, Scope, ScopeKind};
use onceward_core::lease::Session;
use onceward_core::operation::{Death, Event, Fence, Operation, State};
use onceward_core::time::Timestamp;
use tokio::sync::Notify;

pub use self::commits::ToldCommit;
use crate::sabotage::Sabotage;

mod commits;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
pub mod memory;
pub mod moving;
pub mod postgres;
mod row;
#[cfg(test)]
mod spans;
pub mod sqlite;

/// The future of a verb: boxed, so that an engine can hold any store.
pub type Reply<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Why a verb failed. After `Unavailable` and `Damaged` the ledger's state is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The operation has moved on since it was read; nothing was written.
    #[error("the operation has moved on: an old fence changes nothing")]
    Stale,
    /// There is no room; nothing was written, and reading goes on.
    #[error("the ledger is full: {0}")]
    Full(String),
    /// The ledger cannot be reached now, and may come back; nothing was written.
    #[error("the ledger is away: {0}")]
    Away(String),
    /// The ledger cannot be used: it stopped after an I/O error, or has been closed.
    #[error("the ledger is unavailable: {0}")]
    Unavailable(String),
    /// What was read is not what was written. No restart mends that; a backup does.
    #[error(
        "the ledger is damaged: {0}; keep its folder, and put a backup in its place with `onceward restore`"
    )]
    Damaged(String),
}

impl StoreError {
    /// Whether it may pass by itself: nothing was written, and the same may be asked again.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Full(_) | Self::Away(_) => true,
            Self::Stale | Self::Unavailable(_) | Self::Damaged(_) => false,
        }
    }
}

/// The shape of a ledger's tables, beside the one that this release writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// Its number; 0 where there are no tables yet.
    pub found: u32,
    /// The number that this release brings it to.
    pub ours: u32,
    /// Whether this release can use it.
    pub is_usable: bool,
}

/// A lane: whose work goes where. What is due is found by lane, so that a dead upstream's
/// backlog stands before nobody else's, and one flow's not before another's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    /// Whose.
    pub tenant: String,
    /// The route, or the origin of an ad hoc upstream.
    pub route: String,
    /// Whose share of the route; empty where nobody's.
    pub flow: String,
}

impl Lane {
    /// The lane of an operation.
    pub fn of(operation: &Operation) -> Self {
        Self {
            tenant: operation.scope.tenant.clone(),
            route: operation.route.clone(),
            flow: operation.flow.clone().unwrap_or_default(),
        }
    }

    /// Whether it is the lane of `operation`.
    pub(crate) fn is_of(&self, operation: &Operation) -> bool {
        (self.tenant.as_str(), self.route.as_str(), self.flow.as_str())
            == (
                operation.scope.tenant.as_str(),
                operation.route.as_str(),
                operation.flow.as_deref().unwrap_or_default(),
            )
    }
}

/// A new operation and its request.
#[derive(Debug, Clone)]
pub struct Birth {
    /// The operation, its first attempt already started where a send slot is free.
    pub operation: Operation,
    /// The request, encoded; kept once, never written again.
    pub request: Bytes,
    /// The operation whose key is free again: it gives the key up in the same write.
    pub replaces: Option<(OperationId, Fence)>,
}

/// What remembering found.
#[derive(Debug, Clone, PartialEq)]
pub enum Remembered {
    /// It is in the ledger now.
    Fresh(Operation),
    /// Its key was there before.
    Known(Operation),
}

/// A decided change: what the operation is from now on. It is refused unless the stored fence is
/// the one before `operation.fence`.
#[derive(Debug, Clone)]
pub struct Write {
    /// The operation as it will be.
    pub operation: Operation,
    /// An exchange to keep, and where the operation refers to it.
    pub answer: Option<(Slot, Bytes)>,
    /// Whether readers elsewhere have to see it before the answer comes: a person's act.
    pub visible: bool,
}

/// Where an operation refers to what is written with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// The last attempt's.
    Attempt,
    /// The outcome's.
    Outcome,
    /// The request's: the remembered one, with the credentials of whoever asked again.
    Request,
}

impl Slot {
    /// Puts the reference in its place.
    pub(crate) fn fill(self, operation: &mut Operation, answer: BodyRef) {
        match self {
            Self::Attempt => {
                if let Some(ended) =
                    operation.attempts.last_mut().and_then(|attempt| attempt.ended.as_mut())
                {
                    ended.answer = Some(answer);
                }
            }
            Self::Outcome => {
                if let Some(outcome) = operation.outcome.as_mut() {
                    outcome.answer = Some(answer);
                }
            }
            Self::Request => operation.request = Some(answer),
        }
    }
}

/// Which operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// By its id.
    Id(OperationId),
    /// By its scope and key.
    Key(KeyDigest),
}

/// What the key of `operation` is found by: it is unique within its scope.
pub(crate) fn digest_of(operation: &Operation) -> KeyDigest {
    if Sabotage::SharedByRoutes.is_on() {
        let scope = Scope { name: String::new(), ..operation.scope.clone() };
        return scope.digest(&operation.key);
    }
    operation.scope.digest(&operation.key)
}

/// What follows for an operation that is due: decided by the core, applied under the write.
pub type Judge = Arc<dyn Fn(&Operation) -> Event + Send + Sync>;

/// How often, and when last, a key was asked for again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Asked {
    /// How often.
    pub count: u64,
    /// The last times, oldest first, at most [`Asked::TIMES_MAX`].
    pub times: Vec<Timestamp>,
}

impl Asked {
    /// How many times are kept.
    pub const TIMES_MAX: usize = 20;

    /// Adds what came later.
    pub fn add(&mut self, later: &Self) {
        self.count += later.count;
        self.times.extend(&later.times);
        let surplus = self.times.len().saturating_sub(Self::TIMES_MAX);
        self.times.drain(..surplus);
    }
}

/// Where an operation stands, as lists and counts see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Standing {
    /// Waiting for its next attempt.
    Pending,
    /// Waiting for its next attempt while its caller waits too.
    Held,
    /// An attempt may be under way.
    Delivering,
    /// Nobody knows whether it was done.
    InDoubt,
    /// Its final answer is known.
    Done,
    /// Dead, and nobody was told.
    DeadLetter,
    /// Dead, and its caller was told.
    Told,
    /// Forgotten but for its mark.
    Tombstone,
}

impl Standing {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Pending,
        Self::Held,
        Self::Delivering,
        Self::InDoubt,
        Self::Done,
        Self::DeadLetter,
        Self::Told,
        Self::Tombstone,
    ];

    /// Whether something is to come of it, or somebody has to look: most of a ledger is not, and the
    /// others are found by an index.
    pub(crate) fn is_open(self) -> bool {
        match self {
            Self::Pending
            | Self::Held
            | Self::Delivering
            | Self::InDoubt
            | Self::DeadLetter
            | Self::Told => true,
            Self::Done | Self::Tombstone => false,
        }
    }

    /// Where `operation` stands.
    pub fn of(operation: &Operation) -> Self {
        use onceward_core::policy::Mode;
        if operation.state.is_ended() && !admission::is_more_than_its_mark(operation) {
            return Self::Tombstone;
        }
        match (operation.state, operation.mode) {
            (State::Pending { .. }, Mode::Accepted) => Self::Pending,
            (State::Pending { .. }, Mode::Held) => Self::Held,
            (State::Delivering, _) => Self::Delivering,
            (State::InDoubt, _) => Self::InDoubt,
            (State::Done, _) => Self::Done,
            (State::Dead(_), _) if operation.told => Self::Told,
            (State::Dead(_), _) => Self::DeadLetter,
        }
    }
}

/// Which operations to list, newest first.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Only those that stand here; all where it is empty.
    pub standing: Vec<Standing>,
    /// Only this tenant's.
    pub tenant: Option<String>,
    /// Only this route's.
    pub route: Option<String>,
    /// Only those whose key is of this kind.
    pub kind: Option<ScopeKind>,
    /// Only those whose scope has this name.
    pub scope: Option<String>,
    /// Only those of this principal.
    pub principal: Option<String>,
    /// Only those with this key.
    pub key: Option<String>,
    /// Only those with this label.
    pub label: Option<String>,
    /// Only those about this subject.
    pub subject: Option<String>,
    /// Only those whose key, label, target or id contains this.
    pub text: Option<String>,
    /// Only those whose last answer had one of these statuses.
    pub status: Option<RangeInclusive<u16>>,
    /// Only those that had so many attempts or more.
    pub attempts_min: Option<u32>,
    /// Only those that are dead for this reason.
    pub reason: Option<Death>,
    /// Only those that met no status last.
    pub no_status: bool,
    /// Only those whose last attempt that ended went wrong in words that contain this.
    pub error: Option<String>,
    /// Only those whose last attempt that ended went wrong in these words.
    pub error_is: Option<String>,
    /// Only those of which nothing is said of what went wrong last.
    pub no_error: bool,
    /// Only those that were born of this one.
    pub parent: Option<OperationId>,
    /// Only those whose answer made this: its name, where one is meant, and what it is called.
    pub made: Option<(Option<String>, String)>,
    /// Only those that [came](onceward_core::operation::Intent::came_at) then or later.
    pub since: Option<Timestamp>,
    /// Only those that [came](onceward_core::operation::Intent::came_at) earlier.
    pub until: Option<Timestamp>,
    /// Only those that are older than this place.
    pub before: Option<OperationId>,
    /// How many at most.
    pub limit: usize,
}

impl Query {
    /// How many rows one list looks at: past it, it returns what it has with a `next`.
    pub const ROWS_MAX: usize = 20_000;

    /// How many rows one list of an embedded ledger passes over by their bytes alone: a tenth of the work of reading them.
    pub(crate) const PASSED_MAX: usize = 10 * Self::ROWS_MAX;

    /// The status that it wants, where it wants one alone.
    pub(crate) fn one_status(&self) -> Option<u16> {
        let range = self.status.as_ref()?;
        (range.start() == range.end()).then(|| *range.start())
    }

    /// All that can be wanted is older than this: a list begins here, wherever that is.
    pub(crate) fn begins_before(&self) -> OperationId {
        // Of the millisecond itself, what came earlier in it.
        let over = |until: Timestamp| OperationId::first_at(until.plus(Duration::from_millis(1)));
        let all = OperationId::from_u128(u128::MAX);
        self.before.unwrap_or(all).min(self.until.map_or(all, over))
    }

    /// Whether nothing from `place` on can be wanted.
    pub(crate) fn ends_before(&self, place: u64) -> bool {
        self.since.is_some_and(|since| place < place_at(since))
    }

    /// Whether the query wants `operation`.
    pub fn wants(&self, operation: &Operation) -> bool {
        let is = |wanted: &Option<String>, value: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == value)
        };
        let label = operation.label.as_deref().unwrap_or_default();
        let made = |(name, id): &(Option<String>, String)| {
            let is_it = |(other, value): &(String, String)| {
                value == id && name.as_ref().is_none_or(|name| name == other)
            };
            operation.ids.iter().any(is_it)
        };
        // Another name of an operation is none.
        operation.alias_of.is_none()
            && (self.standing.is_empty() || self.standing.contains(&Standing::of(operation)))
            && is(&self.tenant, &operation.scope.tenant)
            && is(&self.route, &operation.route)
            && is(&self.scope, &operation.scope.name)
            && self.kind.is_none_or(|kind| operation.scope.kind == kind)
            && is(&self.principal, &operation.scope.principal)
            && is(&self.key, operation.key.as_str())
            && is(&self.label, label)
            && is(&self.subject, operation.subject.as_ref().map_or("", |subject| &subject.name))
            && self.status.as_ref().is_none_or(|wanted| {
                operation.last_status().is_some_and(|status| wanted.contains(&status))
            })
            && self.attempts_min.is_none_or(|least| operation.attempts_made() >= least)
            && self.reason.is_none_or(|reason| operation.state == State::Dead(reason))
            && self
                .error
                .as_deref()
                .is_none_or(|error| operation.last_error().is_some_and(|last| last.contains(error)))
            && !(self.no_status && operation.last_status().is_some())
            && self.error_is.as_deref().is_none_or(|error| operation.last_error() == Some(error))
            && !(self.no_error && operation.last_error().is_some_and(|last| !last.is_empty()))
            && self.parent.is_none_or(|parent| operation.parent == Some(parent))
            && self.made.as_ref().is_none_or(made)
            && self.since.is_none_or(|since| operation.came_at() >= since)
            && self.until.is_none_or(|until| operation.came_at() < until)
            && self.text.as_deref().is_none_or(|text| {
                [operation.key.as_str(), label, &operation.target]
                    .iter()
                    .any(|field| field.contains(text))
                    || operation.id.to_string() == text
            })
    }
}

/// Some operations, newest first.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// They.
    pub operations: Vec<Operation>,
    /// Where to go on with [`Query::before`], where there may be more.
    pub next: Option<OperationId>,
}

/// In which order named values are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The least name first.
    Up,
    /// The greatest first.
    Down,
}

impl Way {
    /// The names between which those lie that begin with `prefix` and come behind `from`.
    pub(crate) fn bounds(self, prefix: String, from: Option<String>) -> (String, String) {
        // Names are of visible ASCII: this one comes after all that begin so.
        let end = format!("{prefix}\u{7f}");
        match self {
            Self::Up => (from.unwrap_or(prefix), end),
            Self::Down => (prefix, from.unwrap_or(end)),
        }
    }
}

/// What a step of the sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Operations of which only the mark is left.
    pub forgotten: u32,
    /// Marks that are gone too.
    pub removed: u32,
    /// Where the next step begins; nothing at the end of a pass.
    pub next: Option<u64>,
}

/// What waits on a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Operations.
    pub operations: u64,
    /// Bytes of their requests.
    pub bytes: u64,
}

impl Backlog {
    /// Counts one more.
    pub(crate) fn add(&mut self, operation: &Operation) {
        self.operations += 1;
        self.bytes += operation.request.map_or(0, |request| u64::from(request.length));
    }
}

/// How many operations stand somewhere, as far as they were counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// So many were met.
    pub count: u64,
    /// Whether these are all; else there are at least so many.
    pub is_all: bool,
}

impl Counted {
    /// None at all.
    pub const NONE: Self = Self { count: 0, is_all: true };

    /// Whether there is one, as far as was looked: of those that were not, one may be.
    pub fn is_some(self) -> bool {
        !self.is_none()
    }

    /// Whether there is none: all were looked at.
    pub fn is_none(self) -> bool {
        self.count == 0 && self.is_all
    }

    /// What is known after `looked_at` rows, of which `max` were to be counted and one more to be looked
    /// for, where `own` of them are to be counted.
    pub(crate) fn of(own: u64, looked_at: u64, max: u64) -> Self {
        Self { count: own.min(max), is_all: looked_at <= max }
    }
}

impl std::ops::Add for Counted {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { count: self.count + other.count, is_all: self.is_all && other.is_all }
    }
}

impl std::iter::Sum for Counted {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::NONE, std::ops::Add::add)
    }
}

/// How the ledger is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Condition {
    /// How many operations stand where, all of them counted.
    pub counts: Vec<(Standing, u64)>,
    /// Bytes on disk.
    pub bytes: u64,
    /// Durable writes since it was opened: one for each group.
    pub commits: u64,
}

/// Whatever keeps operations. Object-safe, so that an engine carries no type parameter.
pub trait Store: Send + Sync + 'static {
    /// Puts a new operation into the ledger, unless its key is there.
    fn remember(&self, birth: Birth) -> Reply<'_, Remembered>;

    /// Writes a decided change and returns the operation with its references.
    fn commit(&self, write: Write) -> Reply<'_, Operation>;

    /// The operation as it stands.
    fn find(&self, which: Which) -> Reply<'_, Option<Operation>>;

    /// The operation of this key if it is done, from a view that may lag; a miss says nothing.
    fn recall(&self, key: KeyDigest) -> Option<Operation>;

    /// The bytes of a request or an answer. Where they are not there, that is damage only while an
    /// operation refers to them: [`Store::body_of`] looks.
    fn body(&self, body: BodyRef) -> Reply<'_, Bytes>;

    /// The same for a body of `operation`, which was read before and may have been forgotten since:
    /// then whoever asks is told to come back.
    fn body_of<'a>(&'a self, operation: &'a Operation, body: BodyRef) -> Reply<'a, Bytes> {
        Box::pin(async move {
            let read = self.body(body).await;
            if let Err(StoreError::Damaged(_)) = read {
                let now = self.find(Which::Id(operation.id)).await?;
                if now.is_none_or(|now| now.bodies().all(|kept| kept != body)) {
                    return Err(StoreError::Away("it was forgotten meanwhile".to_owned()));
                }
            }
            read
        })
    }

    /// At most `length` bytes of a body, from byte `from` on, for whoever passes a large one on
    /// piece by piece. A checksum is of the whole: [`Store::body`] looks at it, this does not.
    fn part(&self, body: BodyRef, from: u32, length: u32) -> Reply<'_, Bytes> {
        Box::pin(async move {
            let whole = self.body(body).await?;
            let from = whole.len().min(from as usize);
            Ok(whole.slice(from..whole.len().min(from + length as usize)))
        })
    }

    /// Lanes with accepted work that waits, and when the first of it is due.
    fn lanes(&self) -> Reply<'_, Vec<(Lane, Timestamp)>>;

    /// What waits on `lane` and on those of its flows, on all of its tenant's where it names no route,
    /// counted no further than `max` operations.
    fn backlog(&self, lane: Lane, max: u64) -> Reply<'_, Backlog>;

    /// At most `max` accepted operations of `lane` that are due, each after what `judge` decided,
    /// already written.
    fn take(
        &self,
        lane: Lane,
        now: Timestamp,
        max: usize,
        judge: Judge,
    ) -> Reply<'_, Vec<Operation>>;

    /// Keeps the right of `session` alive for a [lease](onceward_core::lease::LEASE) by the store's
    /// own clock, and tells at most `max` operations whose [owner](Operation::owner)'s right has
    /// lapsed: a claim has none.
    fn beat(&self, session: Session, max: usize) -> Reply<'_, Vec<Operation>>;

    /// How many sessions have a right now: at least the one that asks.
    fn nodes(&self) -> Reply<'_, u32> {
        Box::pin(std::future::ready(Ok(1)))
    }

    /// Operations, newest first, from a bounded number of rows.
    fn list(&self, query: Query) -> Reply<'_, Page>;

    /// Notes that keys were asked for again.
    fn note_asked(&self, asked: Vec<(OperationId, Asked)>) -> Reply<'_, ()>;

    /// How often an operation's key was asked for again.
    fn asked(&self, id: OperationId) -> Reply<'_, Asked>;

    /// One step of forgetting: judges at most `max` operations after `from` by the time `now`.
    fn sweep(&self, now: Timestamp, from: u64, max: usize) -> Reply<'_, Swept>;

    /// A named value that outlives the process (secrets are sealed by whoever puts them here).
    fn setting(&self, name: String) -> Reply<'_, Option<Bytes>>;

    /// Every setting whose name begins with `prefix` and goes on.
    fn settings(&self, prefix: String) -> Reply<'_, Vec<(String, Bytes)>> {
        self.settings_from(prefix, None, Way::Up, i64::MAX as usize)
    }

    /// At most `max` settings whose name begins with `prefix`, by name, from behind the name `from`
    /// or from the beginning: up or down, so that a long list is read page by page. Names are of
    /// visible ASCII.
    fn settings_from(
        &self,
        prefix: String,
        from: Option<String>,
        way: Way,
        max: usize,
    ) -> Reply<'_, Vec<(String, Bytes)>>;

    /// Sets or, with `None`, removes a named value.
    fn set(&self, name: String, value: Option<Bytes>) -> Reply<'_, ()>;

    /// Sets a named value that is not set, whoever else does so now; tells the one that holds.
    fn offer(&self, name: String, value: Bytes) -> Reply<'_, Bytes> {
        Box::pin(async move {
            if let Some(there) = self.setting(name.clone()).await? {
                return Ok(there);
            }
            self.set(name, Some(value.clone())).await?;
            Ok(value)
        })
    }

    /// Sets or removes a named value that is as `expected`, whoever else does so now; tells whether it
    /// was.
    fn swap(&self, name: String, expected: Option<Bytes>, value: Option<Bytes>) -> Reply<'_, bool>;

    /// Removes for good what these operations had, which are no more than their marks by now: these
    /// bodies and every other of theirs, and what rows of theirs said before. May take as long as reading
    /// the whole ledger takes; done twice it changes nothing.
    fn scrub(&self, _: Vec<(OperationId, Vec<BodyRef>)>) -> Reply<'_, ()> {
        let cannot = "this kind of ledger cannot erase";
        Box::pin(std::future::ready(Err(StoreError::Away(cannot.to_owned()))))
    }

    /// How the ledger is doing.
    fn condition(&self) -> Reply<'_, Condition>;

    /// Has `told` be told of each durable write from now on how long it took, where anybody measures.
    fn tell_commits(&self, _told: ToldCommit) {}

    /// How many operations of a tenant, or of all, stand where. At most `max` rows of each standing and
    /// one more are looked at, so that its cost does not grow with what waits: a tenant's may stand behind
    /// those of others. Of what is done and over nothing need be told.
    fn count_open(&self, tenant: Option<String>, max: u64) -> Reply<'_, Vec<(Standing, Counted)>>;

    /// The operation in doubt that came first, of a tenant or of all.
    fn oldest_in_doubt(&self, tenant: Option<String>) -> Reply<'_, Option<Operation>> {
        Box::pin(async move {
            let (mut oldest, mut before) = (None, None);
            loop {
                let (standing, tenant) = (vec![Standing::InDoubt], tenant.clone());
                let query = Query { standing, tenant, before, limit: 500, ..Query::default() };
                let page = self.list(query).await?;
                oldest = page.operations.into_iter().next_back().or(oldest);
                before = page.next;
                if before.is_none() {
                    return Ok(oldest);
                }
            }
        })
    }

    /// Copies the ledger into the empty or missing folder `to`, while it is in use.
    fn backup<'a>(&'a self, to: &'a Path) -> Reply<'a, ()>;

    /// Wakes when accepted work may have become due: a hint, never the truth.
    fn changed(&self) -> Arc<Notify>;

    /// Wakes when another process may have changed a setting, and each second while nothing would be
    /// heard of it.
    fn settings_changed(&self) -> Arc<Notify> {
        Arc::default()
    }

    /// The newest place in time order, so that ids go on from there.
    fn newest(&self) -> u64;

    /// Whether other processes write to it too, of which nothing is heard here.
    fn is_shared(&self) -> bool {
        false
    }
}
