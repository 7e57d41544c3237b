//! Partitions by day: made ahead, so that what is written today is apart from what is forgotten
//! with its day.

use onceward_core::time::Timestamp;

use tokio_postgres::error::SqlState;

use super::link::Link;

/// How many days ahead there is room for.
const AHEAD: i64 = 3;

/// Whoever makes partitions does so alone: the number is ours and means nothing.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7077, 2)";

/// The day of `at`, counted from 1970-01-01.
pub(super) fn day_of(at: Timestamp) -> i32 {
    i32::try_from(at.as_micros().div_euclid(86_400_000_000)).unwrap_or_default()
}

/// The first id of a day: its milliseconds stand first in the UUID.
fn first_id(day: i64) -> String {
    let hex = format!("{:032x}", u128::from(day.max(0) as u64 * 86_400_000) << 80);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Makes the partitions of today and the days after it, where they are missing.
pub(super) async fn make(link: &Link, today: i32) -> Result<(), tokio_postgres::Error> {
    for day in i64::from(today)..=i64::from(today) + AHEAD {
        let (from, to) = (first_id(day), first_id(day + 1));
        // Numbers of our own, not input.
        let ops = format!("op_{day} PARTITION OF op FOR VALUES FROM ('{from}') TO ('{to}')");
        let bodies =
            format!("body_{day} PARTITION OF body FOR VALUES FROM ({day}) TO ({})", day + 1);
        for partition in [ops, bodies] {
            let sql = format!("BEGIN; {LOCK}; CREATE TABLE IF NOT EXISTS {partition}; COMMIT");
            if let Err(error) = link.client.batch_execute(&sql).await {
                link.client.batch_execute("ROLLBACK").await?;
                // What was written before there was a partition for it stays where it is.
                if error.code() != Some(&SqlState::CHECK_VIOLATION) {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_of_ids_begins_with_its_first_millisecond() {
        assert_eq!(first_id(0), "00000000-0000-0000-0000-000000000000");
        assert_eq!(first_id(1), "00000526-5c00-0000-0000-000000000000");
        assert_eq!(day_of(Timestamp::from_micros(86_400_000_000)), 1);
        assert_eq!(day_of(Timestamp::from_micros(86_399_999_999)), 0);
    }
}
