//! What this node counted of periods that are not over or not written, and how it gets into the ledger
//! and out of it again.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use onceward_core::lease::Session;
use onceward_core::time::Timestamp;

use super::row::{Row, Tier, read_name, row_name, whose};
use super::{Tallies, hour_of};
use crate::engine::Engine;
use crate::setting;
use crate::store::{StoreError, Way};

/// How often what moved is written.
pub(crate) const EVERY: Duration = Duration::from_secs(10);

/// How what is said of keys' ends begins: by hour, in what it has of tenants and sessions like rows.
pub(super) const EXPIRIES: &str = "tally/x/";

/// Rows looked at in one step of the sweep.
const STEP: usize = 128;

/// This session's rows.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(super) rows: BTreeMap<(Tier, String, i64), Held<Row>>,
    /// By whose and by hour: how many keys end in it.
    pub(super) expiries: BTreeMap<(String, i64), Held<u64>>,
}

/// Something that is in the ledger as it is here, or has moved since.
#[derive(Debug, Default)]
pub(super) struct Held<T> {
    pub(super) value: T,
    has_moved: bool,
}

impl<T> Held<T> {
    fn change(&mut self, change: impl FnOnce(&mut T)) {
        change(&mut self.value);
        self.has_moved = true;
    }
}

/// What is to be written: the name, its value, and how to find it again.
enum Moved {
    Row((Tier, String, i64)),
    Expiry((String, i64)),
}

impl Kept {
    /// The rows that moved, as they are written; from now on they have not.
    fn moved(&mut self, session: Session) -> Result<Vec<(Moved, String, Bytes)>, StoreError> {
        let mut moved = Vec::new();
        for (place, held) in self.rows.iter_mut().filter(|(_, held)| held.has_moved) {
            let (tier, whose, period) = place;
            let name = row_name(&format!("{}{whose}/", tier.prefix()), *period, session);
            moved.push((Moved::Row(place.clone()), name, held.value.encode()?));
            held.has_moved = false;
        }
        for (place, held) in self.expiries.iter_mut().filter(|(_, held)| held.has_moved) {
            let (whose, hour) = place;
            let name = row_name(&format!("{EXPIRIES}{whose}/"), *hour, session);
            moved.push((Moved::Expiry(place.clone()), name, setting::encode(&held.value)?));
            held.has_moved = false;
        }
        Ok(moved)
    }

    /// It was not written: next time.
    fn again(&mut self, moved: &Moved) {
        match moved {
            Moved::Row(place) => {
                self.rows.entry(place.clone()).and_modify(|held| held.has_moved = true);
            }
            Moved::Expiry(place) => {
                self.expiries.entry(place.clone()).and_modify(|held| held.has_moved = true);
            }
        }
    }

    /// Lets go what is over and written, and what is too old to be.
    fn forget(&mut self, now: Timestamp) {
        self.rows.retain(|(tier, _, period), held| {
            let is_over = *period < tier.period(now);
            let is_old = tier.begins(*period + 1).plus(tier.keep()) < now;
            !is_over || (held.has_moved && !is_old)
        });
        self.expiries.retain(|(_, hour), _| *hour >= hour_of(now));
    }
}

impl Tallies {
    /// Says of what was counted since that it was counted now.
    pub(crate) fn gather(&self, now: Timestamp) {
        let fresh: Vec<_> = self.take().collect();
        if fresh.is_empty() {
            return;
        }
        let mut kept = self.kept();
        for (tenant, fresh) in &fresh {
            for whose in [whose(Some(tenant)), whose(None)] {
                for tier in Tier::ALL {
                    let held =
                        kept.rows.entry((tier, whose.clone(), tier.period(now))).or_default();
                    held.change(|row| row.add(tenant, fresh));
                }
                for (hour, keys) in &fresh.expiries {
                    let held = kept.expiries.entry((whose.clone(), *hour)).or_default();
                    held.change(|all| *all += keys);
                }
            }
        }
    }
}

impl Engine {
    /// Writes the statistics that moved since; nothing where nothing did.
    pub async fn flush_tallies(&self) -> Result<(), StoreError> {
        let tallies = &self.counting.tallies;
        let _alone = tallies.flushing.lock().await;
        tallies.gather(self.clock.now());
        let moved = tallies.kept().moved(self.session)?;
        let mut written = Ok(());
        for (place, name, value) in moved {
            if written.is_ok() {
                written = self.store.set(name, Some(value)).await;
            }
            if written.is_err() {
                tallies.kept().again(&place);
            }
        }
        tallies.kept().forget(self.clock.now());
        written
    }

    /// Removes the rows that are too old, of all nodes.
    pub(crate) async fn sweep_tallies(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        for tier in Tier::ALL {
            let first = tier.period(now.minus(tier.keep()).minus(tier.step()));
            self.sweep_rows(&tier.prefix(), first).await?;
        }
        self.sweep_rows(EXPIRIES, hour_of(now)).await
    }

    /// Removes what lies before the period `first` under `prefix`, tenant after tenant.
    async fn sweep_rows(&self, prefix: &str, first: i64) -> Result<(), StoreError> {
        let mut from = None;
        loop {
            let page = self.store.settings_from(prefix.to_owned(), from, Way::Up, STEP).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            from = Some(last.clone());
            for (name, _) in page {
                let whose = name.strip_prefix(prefix).and_then(|rest| rest.split('/').next());
                let Some(whose) = whose else { continue };
                let own = format!("{prefix}{whose}/");
                match read_name(&own, &name) {
                    Some((period, _)) if period < first => self.store.set(name, None).await?,
                    // What comes after it is younger: on with the next tenant.
                    Some(_) => {
                        from = Some(format!("{own}\u{7e}"));
                        break;
                    }
                    None => {}
                }
            }
        }
    }
}
