//! Log lines and metrics about outboxes: keys and ids are told, bodies and headers never.

use metrics::{counter, describe_counter, describe_gauge, gauge};
use tracing::{info, warn};

use crate::outbox::{Parked, Shown, Stands};

/// Says what the metrics mean.
pub(super) fn describe() {
    describe_counter!(
        "onceward_outbox_rows_total",
        "Rows of an outbox, by what became of them: remembered, duplicate or parked."
    );
    describe_gauge!(
        "onceward_outbox_lag_seconds",
        "Age of the oldest row of an outbox that is not remembered; while it cannot be read, at least the time since it was."
    );
    describe_gauge!("onceward_outbox_parked", "Rows of an outbox that can never become a call.");
    describe_gauge!(
        "onceward_outbox_reading",
        "Whether this node reads an outbox: 0 where it fails, or another node does."
    );
}

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
    counter!("onceward_outbox_rows_total", "outbox" => outbox.to_owned(), "result" => result)
        .increment(count);
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
    for (outbox, shown) in outboxes {
        let of = |name: &'static str| gauge!(name, "outbox" => outbox.to_owned());
        of("onceward_outbox_lag_seconds").set(shown.lag.unwrap_or_default().as_secs_f64());
        of("onceward_outbox_parked").set(shown.parked_now as f64);
        let is_reading = shown.stands == Stands::Reading;
        of("onceward_outbox_reading").set(f64::from(u8::from(is_reading)));
    }
}
