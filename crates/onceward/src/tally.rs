//! Statistics of what calls came to: counted in memory where facts are told, kept in the ledger as small
//! rows of minutes, ten minutes and hours, and read as sums. What reading costs depends on how many
//! periods there are, never on how many operations. A count is no promise: a crash loses the last
//! seconds of them.

mod counts;
mod ends;
mod keep;
mod read;
mod row;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use onceward_core::attempt::{Attempt, Ending};
use onceward_core::id::OperationId;
use onceward_core::operation::{Intent, Operation, State};
use onceward_core::policy::Mode;
use onceward_core::time::Timestamp;

pub use self::counts::{Counts, Histogram};
use self::ends::Days;
pub use self::ends::KeysAhead;
pub(crate) use self::keep::EVERY;
use self::keep::Kept;
pub(crate) use self::row::PREFIX;
use crate::clock::Clock;
use crate::observe::{Fact, Repeat};
use crate::subscription::name_of_route;

/// What all ad hoc upstreams are called here: they are many, and nobody configures them.
pub const AD_HOC: &str = "ad_hoc";

/// What statistics call the routes of subscriptions: there may be many.
pub const SUBSCRIPTIONS: &str = "subscriptions";

/// What claims are called here: they go nowhere.
pub const CLAIMS: &str = "claims";

/// What those routes are called together for which a row has no room.
pub const OTHER: &str = "other";

/// Routes that are told apart within one row, at most.
const ROUTES_MAX: usize = 200;

/// Duplicates, and suspected doubles, that a row keeps as samples, at most: the last ones.
const SAMPLES_MAX: usize = 50;

/// Counters side by side, so that threads do not wait for each other.
const SHARDS: usize = 16;

/// Over what time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// An hour: 60 points of a minute.
    Hour,
    /// A day: 144 points of ten minutes.
    Day,
    /// A week: 168 points of an hour.
    Week,
}

impl Span {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Hour, Self::Day, Self::Week];

    /// What it is called: `1h`, `24h` or `7d`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hour => "1h",
            Self::Day => "24h",
            Self::Week => "7d",
        }
    }

    /// The one of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|span| span.name() == name)
    }
}

/// What came to what over a span of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Over what time.
    pub span: Span,
    /// How long each point is.
    pub step: Duration,
    /// Oldest first, and none is missing; the last is not over.
    pub points: Vec<Point>,
    /// All points together.
    pub total: Counts,
    /// The same by route and by name: [`AD_HOC`], [`CLAIMS`] and [`OTHER`] are none of the configuration.
    pub routes: Vec<(String, Counts)>,
}

/// What came to what within one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// When it begins.
    pub at: Timestamp,
    /// What was counted.
    pub counts: Counts,
}

/// A call whose key was known: one of the last ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DuplicateSeen {
    /// When it came.
    pub at: Timestamp,
    /// The operation whose key it had.
    pub operation: OperationId,
    /// What it got.
    pub repeat: Repeat,
    /// How long after the first call.
    pub after: Duration,
    /// Whose.
    pub tenant: String,
    /// Whose key it is.
    pub principal: String,
    /// The route, as statistics call it.
    pub route: String,
}

impl DuplicateSeen {
    /// Its place in the list: what comes `before` it comes next.
    pub fn place(&self) -> Place {
        (self.at, self.operation)
    }
}

/// A suspected double: a new operation that asked what another one had asked a short while before, under
/// another key. One of the last ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuspectSeen {
    /// When it came.
    pub at: Timestamp,
    /// The new operation.
    pub operation: OperationId,
    /// The first one with the same request.
    pub first: OperationId,
    /// The how manieth it is since that one.
    pub again: u32,
    /// Whose.
    pub tenant: String,
    /// Who asked.
    pub principal: String,
    /// The route, as statistics call it.
    pub route: String,
}

impl SuspectSeen {
    /// Its place in the list: what comes `before` it comes next.
    pub fn place(&self) -> Place {
        (self.at, self.operation)
    }

    /// How long after the first one it came.
    pub fn after(&self) -> Duration {
        self.at.since(self.first.made_at())
    }
}

/// A place in a list of what was seen.
pub type Place = (Timestamp, OperationId);

/// What statistics call a route.
pub fn name_of(route: &str) -> &str {
    match route {
        "" => CLAIMS,
        route if route.contains("://") => AD_HOC,
        route if name_of_route(route).is_some() => SUBSCRIPTIONS,
        route => route,
    }
}

/// What was counted since it was last gathered, of one tenant; when that was is not said yet.
#[derive(Debug, Default)]
struct Fresh {
    /// By name.
    routes: Vec<(String, Box<Counts>)>,
    repeated: VecDeque<Repeated>,
    suspected: VecDeque<Suspected>,
    ends: Days,
}

/// A duplicate, at the cost of a counted reference.
#[derive(Debug)]
struct Repeated {
    at: Timestamp,
    repeat: Repeat,
    intent: Arc<Intent>,
}

/// A suspected double, at the same cost.
#[derive(Debug)]
struct Suspected {
    at: Timestamp,
    first: OperationId,
    again: u32,
    intent: Arc<Intent>,
}

/// Adds what is the last of its kind, where only the last ones are kept.
fn keep_last<T>(last: &mut VecDeque<T>, seen: T) {
    if last.len() >= SAMPLES_MAX {
        last.pop_front();
    }
    last.push_back(seen);
}

impl Fresh {
    fn of(&mut self, route: &str) -> &mut Counts {
        let find = |routes: &[(String, Box<Counts>)], name: &str| {
            routes.binary_search_by(|(other, _)| other.as_str().cmp(name))
        };
        // Most are found as they are called.
        let (mut name, mut place) = (route, find(&self.routes, route));
        if place.is_err() {
            name = name_of(route);
            place = find(&self.routes, name);
        }
        if place.is_err() && self.routes.len() >= ROUTES_MAX {
            name = OTHER;
            place = find(&self.routes, name);
        }
        let place = place.unwrap_or_else(|place| {
            self.routes.insert(place, (name.to_owned(), Box::default()));
            place
        });
        &mut self.routes[place].1
    }

    fn rested(&mut self, operation: &Operation) {
        let counts = self.of(&operation.route);
        match operation.state {
            State::Done => {
                counts.done += 1;
                counts.recovered += u64::from(operation.attempts_made() > 1);
            }
            State::Dead(_) if operation.told => counts.told += 1,
            State::Dead(_) => counts.dead_letters += 1,
            State::InDoubt => counts.in_doubt += 1,
            State::Pending { .. } | State::Delivering => {}
        }
        if let (Some(ended_at), Mode::Held) = (operation.ended_at, operation.mode) {
            counts.took.add(ended_at.since(operation.run.since));
        }
        ends::note(&mut self.ends, operation);
    }

    fn attempted(&mut self, operation: &Operation, attempt: &Attempt) {
        let Some(ended) = &attempt.ended else { return };
        let counts = self.of(&operation.route);
        let ending = match ended.ending {
            Ending::Answered => 0,
            Ending::Truncated => 1,
            Ending::Unsent => 2,
            Ending::Unanswered => 3,
        };
        counts.attempts[ending] += 1;
        counts.failed += u64::from(operation.state != State::Done);
        let class = ended.status.map(|status| usize::from(status / 100).wrapping_sub(1));
        if let Some(answers) = class.and_then(|class| counts.statuses.get_mut(class)) {
            *answers += 1;
        }
        counts.attempt_took.add(ended.at.since(attempt.started_at));
    }

    fn repeated(&mut self, known: &Operation, repeat: Repeat, at: Timestamp) {
        self.of(&known.route).duplicates[repeat as usize] += 1;
        let intent = Arc::clone(&known.intent);
        keep_last(&mut self.repeated, Repeated { at, repeat, intent });
    }
}

/// Counts in memory, by tenant.
#[derive(Debug, Default)]
pub(crate) struct Tallies {
    shards: [Mutex<Vec<(String, Fresh)>>; SHARDS],
    kept: Mutex<Kept>,
    /// Who writes now: an older row must not come after a newer one.
    flushing: tokio::sync::Mutex<()>,
}

impl Tallies {
    /// Counts what has to do with it: an addition or two.
    pub(crate) fn count(&self, fact: Fact<'_>, clock: &dyn Clock) {
        match fact {
            Fact::Remembered(operation) if operation.alias_of.is_none() => {
                self.of(operation, |fresh| fresh.of(&operation.route).operations += 1);
            }
            Fact::Attempted(operation, attempt) => {
                self.of(operation, |fresh| fresh.attempted(operation, attempt));
            }
            Fact::Rested(operation) => self.of(operation, |fresh| fresh.rested(operation)),
            Fact::Duplicate(known, repeat) => {
                let now = clock.now();
                self.of(known, |fresh| fresh.repeated(known, repeat, now));
            }
            Fact::Suspected(operation, first, again) => {
                let (at, intent) = (clock.now(), Arc::clone(&operation.intent));
                let seen = Suspected { at, first, again, intent };
                self.of(operation, |fresh| keep_last(&mut fresh.suspected, seen));
            }
            _ => {}
        }
    }

    fn of(&self, operation: &Operation, count: impl FnOnce(&mut Fresh)) {
        let shard = &self.shards[SHARD.with(|shard| *shard)];
        let mut tenants = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let tenant = operation.scope.tenant.as_str();
        let place = tenants.binary_search_by(|(other, _)| other.as_str().cmp(tenant));
        let place = place.unwrap_or_else(|place| {
            tenants.insert(place, (tenant.to_owned(), Fresh::default()));
            place
        });
        count(&mut tenants[place].1);
    }

    /// What was counted since this was last asked.
    fn take(&self) -> impl Iterator<Item = (String, Fresh)> {
        self.shards.iter().flat_map(|shard| {
            std::mem::take(&mut *shard.lock().unwrap_or_else(PoisonError::into_inner))
        })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

thread_local! {
    /// Where this thread counts: threads take turns.
    static SHARD: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS
    };
}

#[cfg(test)]
mod tests;
