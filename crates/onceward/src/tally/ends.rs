//! When keys end, as what comes to rest says it: one row for each day, so that how many expire soon is
//! told without a look at them. What people do to keys afterwards is not seen in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use onceward_core::admission::leaves_no_tombstone;
use onceward_core::operation::Operation;
use onceward_core::time::Timestamp;

use super::keep::{replace, side_by_side};
use super::row::{period_name, whose};
use crate::engine::Engine;
use crate::setting;
use crate::store::{StoreError, Way};

/// How the names of these rows begin.
pub(super) const PREFIX: &str = "tally/x/";

/// What ends later than this is taken for ending then: in days.
const DAYS_MAX: i64 = 1100;

/// Rows read at once.
const PAGE: usize = 256;

const HOURS: usize = 24;

/// What is ahead of keys that came to rest: estimates, to the hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeysAhead {
    /// Keys whose outcome is kept.
    pub kept: u64,
    /// Of those: whose window is over within 24 hours.
    pub expiring: u64,
    /// Keys whose window is over, and whose mark is kept.
    pub tombstones: u64,
}

/// How many windows and how many marks end, by hour of a day.
#[derive(Debug, Clone, Default)]
pub(super) struct Ends {
    windows: [u64; HOURS],
    marks: [u64; HOURS],
}

/// By day.
pub(super) type Days = BTreeMap<i64, Ends>;

/// Notes when what `operation` leaves behind ends.
pub(super) fn note(days: &mut Days, operation: &Operation) {
    let (Some(ended_at), Some(window)) = (operation.ended_at, operation.key_expires_at()) else {
        return;
    };
    let last = (day_of(ended_at) + DAYS_MAX) * HOURS as i64;
    let mark =
        if leaves_no_tombstone(operation) { window } else { window.plus(operation.tombstone) };
    let place = |at| {
        let hour = hour_of(at).min(last);
        (hour.div_euclid(HOURS as i64), hour.rem_euclid(HOURS as i64) as usize)
    };
    let (day, hour) = place(window);
    days.entry(day).or_default().windows[hour] += 1;
    let (day, hour) = place(mark);
    days.entry(day).or_default().marks[hour] += 1;
}

impl Ends {
    pub(super) fn add(&mut self, other: &Self) {
        let pairs = self.windows.iter_mut().zip(&other.windows);
        pairs.chain(self.marks.iter_mut().zip(&other.marks)).for_each(|(mine, more)| *mine += more);
    }

    /// What was counted since this was read.
    fn less(&mut self, read: &Self) {
        let pairs = self.windows.iter_mut().zip(&read.windows);
        pairs.chain(self.marks.iter_mut().zip(&read.marks)).for_each(|(mine, less)| *mine -= less);
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.windows.iter().chain(&self.marks).all(|count| *count == 0)
    }

    /// With what the ledger has, as it is kept.
    fn added_to(&self, there: &[u8]) -> Result<Bytes, StoreError> {
        let mut all = self.clone();
        all.add_kept(there);
        setting::encode(&[all.windows, all.marks].concat())
    }

    fn add_kept(&mut self, value: &[u8]) {
        let numbers: Vec<u64> = postcard::from_bytes(value).unwrap_or_default();
        let mine = self.windows.iter_mut().chain(&mut self.marks);
        mine.zip(numbers).for_each(|(mine, more)| *mine += more);
    }

    /// Adds what ends in the hour of `now` and later; of a day.
    fn count(&self, day: i64, now: Timestamp, ahead: &mut KeysAhead) {
        let soon = hour_of(now)..hour_of(now) + HOURS as i64;
        for (place, (windows, marks)) in self.windows.iter().zip(&self.marks).enumerate() {
            let hour = day * HOURS as i64 + place as i64;
            if hour >= soon.start {
                ahead.kept += windows;
                ahead.tombstones += marks;
            }
            if soon.contains(&hour) {
                ahead.expiring += windows;
            }
        }
    }
}

impl Engine {
    /// How many keys there are, and how many of them end soon, of `tenant` or of everybody.
    pub async fn keys_ahead(&self, tenant: Option<&str>) -> Result<KeysAhead, StoreError> {
        let (tallies, now) = (&self.counting.tallies, self.clock.now());
        // What is being written is in one of both places.
        let _alone = tallies.flushing.lock().await;
        tallies.gather(&*self.clock);
        let (whose, mut ahead) = (whose(tenant), KeysAhead::default());
        let prefix = format!("{PREFIX}{whose}/");
        let mut from = Some(period_name(&prefix, day_of(now) - 1));
        while let Some(place) = from.take() {
            let page = self.store.settings_from(prefix.clone(), Some(place), Way::Up, PAGE).await?;
            for (name, value) in &page {
                let mut ends = Ends::default();
                ends.add_kept(value);
                let day = name.strip_prefix(&prefix).and_then(|day| day.parse().ok());
                ends.count(day.unwrap_or_default(), now, &mut ahead);
            }
            from = page.into_iter().next_back().map(|(name, _)| name);
        }
        for (day, ends) in tallies.kept().ends.get(&whose).into_iter().flatten() {
            ends.count(*day, now, &mut ahead);
        }
        // A mark is counted from the beginning.
        ahead.tombstones = ahead.tombstones.saturating_sub(ahead.kept);
        Ok(ahead)
    }

    /// Adds what is not written yet to what the ledger has; to be called by one at a time.
    pub(super) async fn flush_ends(&self) -> Result<(), StoreError> {
        let kept = || self.counting.tallies.kept();
        let ends = kept().ends.clone();
        let days = ends.into_iter().flat_map(|(whose, days)| {
            let moved = days.into_iter().filter(|(_, ends)| !ends.is_nothing());
            moved.map(move |(day, ends)| (whose.clone(), day, ends))
        });
        let writes = days.map(|(whose, day, ends)| {
            let store = Arc::clone(&self.store);
            async move {
                let name = period_name(&format!("{PREFIX}{whose}/"), day);
                // Where others are faster it stays for the next time.
                let is_added = replace(&*store, name, |there| ends.added_to(there)).await?;
                Ok(is_added.then_some((whose, day, ends)))
            }
        });
        let wrote = |(whose, day, ends): (String, i64, Ends)| {
            let mut kept = kept();
            if let Some(left) = kept.ends.get_mut(&whose).and_then(|days| days.get_mut(&day)) {
                left.less(&ends);
            }
        };
        side_by_side(writes, wrote).await
    }
}

fn hour_of(at: Timestamp) -> i64 {
    at.as_micros().div_euclid(3_600_000_000)
}

/// The day since 1970.
pub(super) fn day_of(at: Timestamp) -> i64 {
    hour_of(at).div_euclid(HOURS as i64)
}
