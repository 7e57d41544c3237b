//! A row of statistics: what one session counted of one tenant in one period, and what it is called.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use onceward_core::id::OperationId;
use onceward_core::lease::Session;
use onceward_core::time::Timestamp;
use onceward_core::upstream_key::escaped;

use super::{Counts, DuplicateSeen, Fresh, OTHER, ROUTES_MAX, SAMPLES_MAX, Span, name_of};
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
    pub(super) duplicates: VecDeque<DuplicateSeen>,
}

/// A duplicate as it is kept: when, of which operation, what it got, how long after in microseconds,
/// whose, who, the route.
type Sample = (i64, u128, u8, u64, String, String, String);

impl Row {
    pub(super) fn add(&mut self, tenant: &str, fresh: &Fresh) {
        for (route, counts) in &fresh.routes {
            self.of(route).add(counts);
        }
        for seen in &fresh.repeated {
            let intent = &seen.intent;
            self.saw(DuplicateSeen {
                at: seen.at,
                operation: intent.id,
                repeat: seen.repeat,
                after: seen.at.since(intent.created_at),
                tenant: tenant.to_owned(),
                principal: intent.scope.principal.clone(),
                route: name_of(&intent.route).to_owned(),
            });
        }
    }

    fn of(&mut self, route: &str) -> &mut Counts {
        let has_room = self.routes.len() < ROUTES_MAX || self.routes.contains_key(route);
        self.routes.entry(if has_room { route } else { OTHER }.to_owned()).or_default()
    }

    fn saw(&mut self, seen: DuplicateSeen) {
        // Threads count side by side: theirs are only nearly in order.
        let place = self.duplicates.partition_point(|other| other.place() <= seen.place());
        self.duplicates.insert(place, seen);
        if self.duplicates.len() > SAMPLES_MAX {
            self.duplicates.pop_front();
        }
    }

    pub(super) fn encode(&self) -> Result<Bytes, StoreError> {
        let counts = self.routes.iter().map(|(route, counts)| {
            let mut numbers = counts.numbers();
            let length = numbers.iter().rposition(|number| *number > 0).map_or(0, |last| last + 1);
            numbers.truncate(length);
            (route, numbers)
        });
        let samples = self.duplicates.iter().map(|seen| -> Sample {
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
        setting::encode(&(counts.collect::<Vec<_>>(), samples.collect::<Vec<_>>()))
    }

    /// What cannot be read is another release's, and counts for nothing.
    pub(super) fn decode(value: &[u8]) -> Self {
        type Read = (Vec<(String, Vec<u64>)>, Vec<Sample>);
        let (counts, samples): Read = postcard::from_bytes(value).unwrap_or_default();
        let mut row = Self::default();
        for (route, numbers) in counts {
            row.routes.entry(route).or_default().add_numbers(&numbers);
        }
        row.duplicates = samples.into_iter().filter_map(seen).collect();
        row
    }
}

fn seen((at, operation, repeat, after, tenant, principal, route): Sample) -> Option<DuplicateSeen> {
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
