//! Log lines and metrics about outboxes: keys and ids are told, bodies and headers never.

use tracing::{info, warn};

use super::metrics::{Gauges, METRICS};
use crate::outbox::{Parked, Shown, Stands};

/// Rows became operations, or were some already.
pub(crate) fn took(outbox: &str, remembered: u64, duplicates: u64) {
    for (result, count) in [("remembered", remembered), ("duplicate", duplicates)] {
        rows(outbox, result, count);
    }
}

/// A row can never become a call.
pub(crate) fn parked(outbox: &str, parked: &Parked) {
    rows(outbox, "parked", 1);
    let Parked { id, key, code, why, .. } = parked;
    warn!(outbox, row = id, key, code, "a row of the outbox is parked: {why}");
}

fn rows(outbox: &str, result: &'static str, count: u64) {
    METRICS.outbox_rows.of([("outbox", outbox), ("result", result)]).inc_by(count);
}

/// Where an outbox stands from now on.
pub(crate) fn stands(outbox: &str, stands: Stands) {
    match stands {
        Stands::Reading => info!(outbox, "the outbox is read"),
        Stands::Standby => info!(outbox, "another node reads the outbox"),
        Stands::Starting | Stands::Failing => {}
    }
}

/// An outbox is not read, or its rows are not taken; it is tried again.
pub(crate) fn fails(outbox: &str, why: &str) {
    warn!(outbox, "the outbox waits, and its rows stay where they are: {why}");
}

/// How outboxes are doing, for whoever reads the metrics now.
pub(crate) fn gauges<'a>(outboxes: impl Iterator<Item = (&'a str, &'a Shown)>) {
    let outboxes: Vec<_> = outboxes.collect();
    // Those of outboxes that are gone go with them.
    let of_all = |gauges: &Gauges, level: fn(&Shown) -> f64| {
        gauges.set_all(outboxes.iter().map(|(name, shown)| ([("outbox", *name)], level(shown))));
    };
    of_all(&METRICS.outbox_lag, |shown| shown.lag.unwrap_or_default().as_secs_f64());
    of_all(&METRICS.outbox_parked, |shown| shown.parked_now as f64);
    of_all(&METRICS.outbox_reading, |shown| f64::from(u8::from(shown.stands == Stands::Reading)));
}
