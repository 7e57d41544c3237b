//! Statistics as they are read: sums over all sessions, with what this node has not written yet.

use std::collections::BTreeMap;
use std::ops::Range;

use onceward_core::time::Timestamp;

use super::row::{Row, Sample, Tier, period_name, read_name, whose};
use super::{Counts, DuplicateSeen, Place, Point, Span, Stats, SuspectSeen};
use crate::engine::Engine;
use crate::refusal::Refusal;
use crate::store::{StoreError, Way};

/// Rows read at once.
const PAGE: usize = 256;

/// The same, where few may be enough.
const PAGE_SEEN: usize = 32;

impl Engine {
    /// What came to what over `span`, of `tenant` or of everybody.
    pub async fn stats(&self, tenant: Option<&str>, span: Span) -> Result<Stats, Refusal> {
        let now = self.clock.now();
        let (tier, length) = Tier::of(span);
        let last = tier.period(now);
        let first = last - length + 1;
        let mut points: Vec<_> = (first..=last)
            .map(|period| Point { at: tier.begins(period), counts: Counts::default() })
            .collect();
        let mut routes: BTreeMap<String, Counts> = BTreeMap::new();
        let mut total = Counts::default();
        for (period, row) in self.rows(tier, tenant, first).await? {
            // Another node's clock may be a little ahead.
            let place = usize::try_from(period.min(last) - first).unwrap_or_default();
            for (route, counts) in row.routes {
                points[place].counts.add(&counts);
                total.add(&counts);
                routes.entry(route).or_default().add(&counts);
            }
        }
        let routes = routes.into_iter().collect();
        Ok(Stats { span, step: tier.step(), points, total, routes })
    }

    /// The rows from the period `first` on.
    async fn rows(
        &self,
        tier: Tier,
        tenant: Option<&str>,
        first: i64,
    ) -> Result<Vec<(i64, Row)>, StoreError> {
        let whose = whose(tenant);
        // Before the ledger is read: what is let go afterwards is in it.
        let mut own = self.own_rows(tier, &whose);
        own.retain(|period, _| *period >= first);
        let prefix = format!("{}{whose}/", tier.prefix());
        let mut from = period_name(&prefix, first);
        let mut rows = Vec::new();
        loop {
            let page = self.store.settings_from(prefix.clone(), Some(from), Way::Up, PAGE).await?;
            let is_last = page.len() < PAGE;
            let Some((name, _)) = page.last() else { break };
            let last = name.clone();
            rows.extend(page.iter().filter_map(|(name, value)| {
                let (period, session) = read_name(&prefix, name)?;
                let is_here = session == self.session && own.contains_key(&period);
                (!is_here).then(|| (period, Row::decode(value)))
            }));
            if is_last {
                break;
            }
            from = last;
        }
        rows.extend(own);
        Ok(rows)
    }

    /// This session's rows that are in memory, up to now.
    fn own_rows(&self, tier: Tier, whose: &str) -> BTreeMap<i64, Row> {
        let tallies = &self.counting.tallies;
        tallies.gather(&*self.clock);
        let kept = tallies.kept();
        let of = (tier, whose.to_owned(), i64::MIN)..=(tier, whose.to_owned(), i64::MAX);
        kept.rows.range(of).map(|((.., period), held)| (*period, held.row.clone())).collect()
    }

    /// At most `limit` of the last duplicates before `before`, newest first. Each node keeps no more than
    /// the last fifty of a minute; of what is longer ago than an hour or two, of ten minutes, and before
    /// the day that ends now, of an hour.
    pub async fn duplicates_seen(
        &self,
        tenant: Option<&str>,
        before: Option<Place>,
        limit: usize,
    ) -> Result<Vec<DuplicateSeen>, Refusal> {
        Ok(self.last_seen(tenant, before, limit).await?)
    }

    /// At most `limit` of the last suspected doubles before `before`, newest first; as many are kept as of
    /// duplicates.
    pub async fn suspects_seen(
        &self,
        tenant: Option<&str>,
        before: Option<Place>,
        limit: usize,
    ) -> Result<Vec<SuspectSeen>, Refusal> {
        Ok(self.last_seen(tenant, before, limit).await?)
    }

    async fn last_seen<T: Sample>(
        &self,
        tenant: Option<&str>,
        before: Option<Place>,
        limit: usize,
    ) -> Result<Vec<T>, StoreError> {
        let now = self.clock.now();
        let mut seen = Vec::new();
        let mut end = Timestamp::from_micros(i64::MAX);
        for tier in Tier::ALL {
            let begin = begin_of(tier, now);
            // What was counted late lies in the next period.
            let is_wanted = before.is_none_or(|(at, _)| at.plus(tier.step()) >= begin);
            if is_wanted && seen.len() < limit {
                let mut from = end;
                if let Some((at, _)) = before {
                    from = from.min(tier.begins(tier.period(at) + 2));
                }
                let between = tier.period(begin)..tier.period(from);
                self.gather_seen(tier, tenant, between, before, limit, &mut seen).await?;
            }
            end = begin;
        }
        seen.sort_by_key(|seen: &T| std::cmp::Reverse(seen.place()));
        seen.truncate(limit);
        Ok(seen)
    }

    /// Adds what these periods' rows have of it, newest first, until there is enough.
    async fn gather_seen<T: Sample>(
        &self,
        tier: Tier,
        tenant: Option<&str>,
        periods: Range<i64>,
        before: Option<Place>,
        limit: usize,
        seen: &mut Vec<T>,
    ) -> Result<(), StoreError> {
        let whose = whose(tenant);
        let own = self.own_rows(tier, &whose);
        let prefix = format!("{}{whose}/", tier.prefix());
        let mut add = |row: &Row| {
            let wanted = |seen: &&T| before.is_none_or(|before| seen.place() < before);
            seen.extend(T::of(row).iter().filter(wanted).cloned());
            seen.len()
        };
        own.range(periods.clone()).for_each(|(_, row)| {
            add(row);
        });
        // Other nodes may have counted a little later: one period more is enough.
        let mut enough = None;
        let mut from = Some(period_name(&prefix, periods.end));
        while let Some(place) = from.take() {
            let page =
                self.store.settings_from(prefix.clone(), Some(place), Way::Down, PAGE_SEEN).await?;
            for (name, value) in &page {
                let Some((period, session)) = read_name(&prefix, name) else { continue };
                if period < periods.start || enough.is_some_and(|enough| period < enough) {
                    return Ok(());
                }
                if session == self.session && own.contains_key(&period) {
                    continue;
                }
                if add(&Row::decode(value)) >= limit && enough.is_none() {
                    enough = Some(period - 1);
                }
            }
            from = page.into_iter().next_back().map(|(name, _)| name);
        }
        Ok(())
    }
}

/// From when on samples are read from rows of this tier: coarser ones are whole before it.
fn begin_of(tier: Tier, now: Timestamp) -> Timestamp {
    let coarser = match tier {
        Tier::Minute => Tier::TenMinutes,
        Tier::TenMinutes | Tier::Hour => Tier::Hour,
    };
    let kept = now.minus(tier.keep().saturating_sub(coarser.step()));
    coarser.begins(coarser.period(kept) + 1)
}
