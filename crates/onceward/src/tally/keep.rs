//! What this node counted of periods that are not over or not written, and how it gets into the ledger
//! and out of it again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onceward_core::lease::Session;
use onceward_core::time::Timestamp;
use tokio::task::JoinSet;

use super::ends::{Days, day_of};
use super::row::{Row, Tier, row_name, whose};
use super::{Tallies, ends};
use crate::clock::Clock;
use crate::engine::{Engine, RACES_MAX};
use crate::store::{Store, StoreError, Way};
use crate::sweep::STEP_PAUSE;

/// How often what moved is written.
pub(crate) const EVERY: Duration = Duration::from_secs(10);

/// Rows written at a time: they share the ledger's commits.
const AT_A_TIME: usize = 64;

/// Rows looked at in one step of the sweep: where there are many routes, a row is large.
const STEP: usize = 8;

/// What this session counted.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(super) rows: BTreeMap<Place, Held>,
    /// By whose: what the ledger has not been told yet.
    pub(super) ends: BTreeMap<String, Days>,
}

/// A row, and how often it moved until now and until it was written.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) row: Row,
    moved: u64,
    written: u64,
}

/// Of which tier, whose, of which period.
type Place = (Tier, String, i64);

/// What is to be written: where it stands, its name and its value.
struct Moved {
    place: Place,
    times: u64,
    name: String,
    value: Bytes,
}

impl Kept {
    /// The rows that moved, as they are written.
    fn moved(&self, session: Session) -> Result<Vec<Moved>, StoreError> {
        let rows = self.rows.iter().filter(|(_, held)| held.moved > held.written);
        let moved = rows.map(|(place, held)| {
            let (tier, whose, period) = place;
            let name = row_name(&format!("{}{whose}/", tier.prefix()), *period, session);
            let value = held.row.encode()?;
            Ok(Moved { place: place.clone(), times: held.moved, name, value })
        });
        moved.collect()
    }

    fn wrote(&mut self, place: Place, times: u64) {
        self.rows.entry(place).and_modify(|held| held.written = times);
    }

    /// Lets go what is over and written, and what is too old to be.
    fn forget(&mut self, now: Timestamp) {
        self.rows.retain(|(tier, _, period), held| {
            let is_over = *period < tier.period(now);
            let is_old = tier.begins(*period + 1).plus(tier.keep()) < now;
            !is_over || (held.moved > held.written && !is_old)
        });
        self.ends.retain(|_, days| {
            days.retain(|day, ends| *day >= day_of(now) && !ends.is_nothing());
            !days.is_empty()
        });
    }
}

impl Tallies {
    /// Says of what was counted since that it was counted now, and lets go what need not be held any more.
    pub(crate) fn gather(&self, clock: &dyn Clock) {
        // Nobody looks in between, when it is neither here nor there; and nobody lets a period go that this
        // is counted in.
        let mut kept = self.kept();
        let now = clock.now();
        for (tenant, fresh) in self.take() {
            for whose in [whose(Some(&tenant)), whose(None)] {
                for tier in Tier::ALL {
                    let place = (tier, whose.clone(), tier.period(now));
                    let held = kept.rows.entry(place).or_default();
                    held.row.add(&tenant, &fresh);
                    held.moved += 1;
                }
                let days = kept.ends.entry(whose).or_default();
                fresh.ends.iter().for_each(|(day, ends)| days.entry(*day).or_default().add(ends));
            }
        }
        kept.forget(now);
    }
}

impl Engine {
    /// Writes the statistics that moved since; nothing where nothing did.
    pub async fn flush_tallies(&self) -> Result<(), StoreError> {
        let tallies = &self.counting.tallies;
        let _alone = tallies.flushing.lock().await;
        tallies.gather(&*self.clock);
        let moved = tallies.kept().moved(self.session)?;
        let writes = moved.into_iter().map(|Moved { place, times, name, value }| {
            let store = Arc::clone(&self.store);
            async move {
                let is_written = replace(&*store, name, |_| Ok(value.clone())).await?;
                Ok(is_written.then_some((place, times)))
            }
        });
        side_by_side(writes, |(place, times)| tallies.kept().wrote(place, times)).await?;
        self.flush_ends().await
    }

    /// Removes the rows that are too old, of all nodes.
    pub(crate) async fn sweep_tallies(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        for tier in Tier::ALL {
            let first = tier.period(now.minus(tier.keep()).minus(tier.step()));
            self.sweep_rows(&tier.prefix(), first).await?;
        }
        self.sweep_rows(ends::PREFIX, day_of(now)).await
    }

    /// Removes what lies before the period `first` under `prefix`, tenant after tenant.
    async fn sweep_rows(&self, prefix: &str, first: i64) -> Result<(), StoreError> {
        let mut from = None;
        loop {
            let page = self.store.settings_from(prefix.to_owned(), from, Way::Up, STEP).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            from = Some(last.clone());
            for (name, value) in page {
                let Some((whose, period)) = place_of(prefix, &name) else { continue };
                if period >= first {
                    // What comes after it is younger: on with the next tenant.
                    from = Some(format!("{prefix}{whose}/\u{7e}"));
                    break;
                }
                // Another node that sweeps too may have been faster.
                self.store.swap(name, Some(value), None).await?;
            }
            self.clock.sleep_until(self.clock.now().plus(STEP_PAUSE)).await;
        }
    }
}

/// Puts what `make` makes of it in the place of what the ledger has under `name`; by a swap, of which other
/// nodes are not told: nobody waits for it. Tells whether; else others were faster.
pub(super) async fn replace(
    store: &dyn Store,
    name: String,
    make: impl Fn(&[u8]) -> Result<Bytes, StoreError>,
) -> Result<bool, StoreError> {
    for _ in 0..RACES_MAX {
        let there = store.setting(name.clone()).await?;
        let value = make(there.as_deref().unwrap_or_default())?;
        if there.as_ref() == Some(&value) || store.swap(name.clone(), there, Some(value)).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Does all of `work`, some at a time, and tells `done` what was done. Nothing is left under way, after an
/// error neither: it could come after what is written next.
pub(super) async fn side_by_side<T: Send + 'static>(
    mut work: impl Iterator<Item: Future<Output = Result<Option<T>, StoreError>> + Send + 'static>,
    mut done: impl FnMut(T),
) -> Result<(), StoreError> {
    let (mut under_way, mut result) = (JoinSet::new(), Ok(()));
    loop {
        while result.is_ok() && under_way.len() < AT_A_TIME {
            let Some(next) = work.next() else { break };
            under_way.spawn(next);
        }
        match under_way.join_next().await {
            None => return result,
            Some(Ok(Ok(what))) => what.into_iter().for_each(&mut done),
            Some(Ok(Err(error))) => result = result.and(Err(error)),
            Some(Err(error)) => result = Err(StoreError::Unavailable(error.to_string())),
        }
    }
}

/// Whose and of which period the row of this name is.
fn place_of<'a>(prefix: &str, name: &'a str) -> Option<(&'a str, i64)> {
    let mut words = name.strip_prefix(prefix)?.split('/');
    Some((words.next()?, words.next()?.parse().ok()?))
}
