//! What holds for events and subscriptions, as the file says it: `[events]`.

use std::time::Duration;

use onceward::EventRules;

use super::ConfigError;
use super::table::Table;

/// What an event is kept for at least: its first attempts have to have time.
const RETENTION_MIN: Duration = Duration::from_hours(1);

/// How long a receiver may fail at least: a moment of trouble is none.
const PAUSE_AFTER_MIN: Duration = Duration::from_mins(1);

/// Reads `[events]`.
pub(super) fn read(table: &Table<'_>) -> Result<EventRules, ConfigError> {
    let usual = EventRules::default();
    let rules = EventRules {
        retention: table.span_or("retention", usual.retention)?,
        pause_after: table.span_or("pause_after", usual.pause_after)?,
    };
    if rules.retention < RETENTION_MIN {
        return Err(table.wrong(
            "events.retention is less than 1h: an event is kept for as long as its deliveries may take",
        ));
    }
    if rules.pause_after < PAUSE_AFTER_MIN {
        return Err(table.wrong(
            "events.pause_after is less than 1m: a receiver would be paused by two failures in a row",
        ));
    }
    Ok(rules)
}
