//! A row of statistics: what one session counted of one tenant in one period, and what it is called.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use onceward_core::id::OperationId;
use onceward_core::lease::Session;
use onceward_core::time::Timestamp;
use onceward_core::upstream_key::escaped;

use super::{
    Counts, DuplicateSeen, Fresh, OTHER, Place, ROUTES_MAX, SAMPLES_MAX, Span, SuspectSeen, name_of,
};
use crate::observe::Repeat;
use crate::setting;
use crate::store::StoreError;

/// What all of these settings are called.
pub(crate) const PREFIX: &str = "tally/";

/// Whose rows are everybody's: no tenant is written so.
const EVERYBODY: &str = "*";

/// How fine a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tier {
    Minute,
    TenMinutes,
    Hour,
}

impl Tier {
    pub(super) const ALL: [Self; 3] = [Self::Minute, Self::TenMinutes, Self::Hour];

    /// How long a period is.
    pub(super) fn step(self) -> Duration {
        Duration::from_mins(match self {
            Self::Minute => 1,
            Self::TenMinutes => 10,
            Self::Hour => 60,
        })
    }

    /// How long rows are kept, from the end of their period.
    pub(super) fn keep(self) -> Duration {
        Duration::from_hours(match self {
            Self::Minute => 2,
            Self::TenMinutes => 26,
            Self::Hour => 8 * 24,
        })
    }

    /// Of what `span` is drawn, and how many of it.
    pub(super) fn of(span: Span) -> (Self, i64) {
        match span {
            Span::Hour => (Self::Minute, 60),
            Span::Day => (Self::TenMinutes, 144),
            Span::Week => (Self::Hour, 168),
        }
    }

    /// The period in which `at` lies.
    pub(super) fn period(self, at: Timestamp) -> i64 {
        at.as_micros().div_euclid(self.micros())
    }

    /// When a period begins.
    pub(super) fn begins(self, period: i64) -> Timestamp {
        Timestamp::from_micros(period.saturating_mul(self.micros()))
    }

    fn micros(self) -> i64 {
        self.step().as_micros() as i64
    }

    fn letter(self) -> char {
        match self {
            Self::Minute => 'm',
            Self::TenMinutes => 't',
            Self::Hour => 'h',
        }
    }

    /// How the names of all its rows begin.
    pub(super) fn prefix(self) -> String {
        format!("{PREFIX}{}/", self.letter())
    }
}

/// A tenant as names say it, where nothing else can be read into it; everybody where it is none.
pub(super) fn whose(tenant: Option<&str>) -> String {
    tenant.map_or_else(|| EVERYBODY.to_owned(), |tenant| escaped(tenant, b""))
}

/// The names that stand under `prefix` of this period, and of those after it where more is left out.
pub(super) fn period_name(prefix: &str, period: i64) -> String {
    format!("{prefix}{:010}", period.max(0))
}

/// What the row of a session is called.
pub(super) fn row_name(prefix: &str, period: i64, session: Session) -> String {
    format!("{}/{:016x}", period_name(prefix, period), session.0)
}

/// The period and the session of a name under `prefix`; nothing where it is not one of ours.
pub(super) fn read_name(prefix: &str, name: &str) -> Option<(i64, Session)> {
    let (period, session) = name.strip_prefix(prefix)?.split_once('/')?;
    let session = u64::from_str_radix(session, 16).ok()?;
    Some((period.parse().ok()?, Session(session)))
}

/// What was counted.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    pub(super) routes: BTreeMap<String, Counts>,
    /// Oldest first.
    duplicates: VecDeque<DuplicateSeen>,
    /// Oldest first.
    suspects: VecDeque<SuspectSeen>,
}

/// What is kept of its kind as long as it is one of the last.
pub(super) trait Sample: Clone {
    /// Its place among them.
    fn place(&self) -> Place;

    /// Those that a row has, oldest first.
    fn of(row: &Row) -> &VecDeque<Self>;
}

impl Sample for DuplicateSeen {
    fn place(&self) -> Place {
        DuplicateSeen::place(self)
    }

    fn of(row: &Row) -> &VecDeque<Self> {
        &row.duplicates
    }
}

impl Sample for SuspectSeen {
    fn place(&self) -> Place {
        SuspectSeen::place(self)
    }

    fn of(row: &Row) -> &VecDeque<Self> {
        &row.suspects
    }
}

/// A duplicate as it is kept: when, of which operation, what it got, how long after in microseconds,
/// whose, who, the route.
type DuplicateRow = (i64, u128, u8, u64, String, String, String);

/// A suspected double as it is kept: when, which operation, of which, the how manieth, whose, who, the route.
type SuspectRow = (i64, u128, u128, u32, String, String, String);

/// The routes with their numbers, and the duplicates.
type Counted = (Vec<(String, Vec<u64>)>, Vec<DuplicateRow>);

impl Row {
    pub(super) fn add(&mut self, tenant: &str, fresh: &Fresh) {
        for (route, counts) in &fresh.routes {
            self.of(route).add(counts);
        }
        for seen in &fresh.repeated {
            let intent = &seen.intent;
            let seen = DuplicateSeen {
                at: seen.at,
                operation: intent.id,
                repeat: seen.repeat,
                after: seen.at.since(intent.created_at),
                tenant: tenant.to_owned(),
                principal: intent.scope.principal.clone(),
                route: name_of(&intent.route).to_owned(),
            };
            keep(&mut self.duplicates, seen);
        }
        for seen in &fresh.suspected {
            let intent = &seen.intent;
            let seen = SuspectSeen {
                at: seen.at,
                operation: intent.id,
                first: seen.first,
                again: seen.again,
                tenant: tenant.to_owned(),
                principal: intent.scope.principal.clone(),
                route: name_of(&intent.route).to_owned(),
            };
            keep(&mut self.suspects, seen);
        }
    }

    fn of(&mut self, route: &str) -> &mut Counts {
        let has_room = self.routes.len() < ROUTES_MAX || self.routes.contains_key(route);
        self.routes.entry(if has_room { route } else { OTHER }.to_owned()).or_default()
    }

    pub(super) fn encode(&self) -> Result<Bytes, StoreError> {
        let counts = self.routes.iter().map(|(route, counts)| {
            let mut numbers = counts.numbers();
            let length = numbers.iter().rposition(|number| *number > 0).map_or(0, |last| last + 1);
            numbers.truncate(length);
            (route, numbers)
        });
        let duplicates = self.duplicates.iter().map(|seen| -> DuplicateRow {
            (
                seen.at.as_micros(),
                seen.operation.as_u128(),
                seen.repeat as u8,
                seen.after.as_micros() as u64,
                seen.tenant.clone(),
                seen.principal.clone(),
                seen.route.clone(),
            )
        });
        let suspects = self.suspects.iter().map(|seen| -> SuspectRow {
            (
                seen.at.as_micros(),
                seen.operation.as_u128(),
                seen.first.as_u128(),
                seen.again,
                seen.tenant.clone(),
                seen.principal.clone(),
                seen.route.clone(),
            )
        });
        let counted: (Vec<_>, Vec<_>) = (counts.collect(), duplicates.collect());
        setting::encode(&(counted, suspects.collect::<Vec<_>>()))
    }

    /// What cannot be read is another release's, and counts for nothing.
    pub(super) fn decode(value: &[u8]) -> Self {
        let ((counts, duplicates), rest): (Counted, &[u8]) =
            postcard::take_from_bytes(value).unwrap_or_default();
        // A release that told of none wrote nothing here, and reads past what is written.
        let suspects: Vec<SuspectRow> = postcard::from_bytes(rest).unwrap_or_default();
        let mut row = Self::default();
        for (route, numbers) in counts {
            row.routes.entry(route).or_default().add_numbers(&numbers);
        }
        row.duplicates = duplicates.into_iter().filter_map(duplicate).collect();
        row.suspects = suspects.into_iter().map(suspect).collect();
        row
    }
}

/// Adds one more at its place, where only the last ones are kept.
fn keep<T: Sample>(samples: &mut VecDeque<T>, seen: T) {
    // Threads count side by side: theirs are only nearly in order.
    let place = samples.partition_point(|other| other.place() <= seen.place());
    samples.insert(place, seen);
    if samples.len() > SAMPLES_MAX {
        samples.pop_front();
    }
}

fn suspect(row: SuspectRow) -> SuspectSeen {
    let (at, operation, first, again, tenant, principal, route) = row;
    SuspectSeen {
        at: Timestamp::from_micros(at),
        operation: OperationId::from_u128(operation),
        first: OperationId::from_u128(first),
        again,
        tenant,
        principal,
        route,
    }
}

fn duplicate(row: DuplicateRow) -> Option<DuplicateSeen> {
    let (at, operation, repeat, after, tenant, principal, route) = row;
    Some(DuplicateSeen {
        at: Timestamp::from_micros(at),
        operation: OperationId::from_u128(operation),
        repeat: *Repeat::ALL.get(usize::from(repeat))?,
        after: Duration::from_micros(after),
        tenant,
        principal,
        route,
    })
}
