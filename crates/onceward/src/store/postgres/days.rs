//! Partitions by day: made ahead, and dropped whole when nothing of them has to be kept. What is
//! still needed of a day that goes moves to the partitions of the rest, which are small.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI32, Ordering};

use onceward_core::admission::{are_bodies_over, is_expired};
use onceward_core::attempt::BodyRef;
use onceward_core::id::OperationId;
use onceward_core::operation::Operation;
use onceward_core::time::Timestamp;
use tokio_postgres::error::SqlState;

use super::link::{Id, Link};
use crate::clock::{Clock as _, SystemClock};
use crate::store::row;

/// How many days ahead there is room for.
const AHEAD: i64 = 3;

/// A day with more survivors than this is left for later.
const SURVIVORS_MAX: i64 = 10_000;

/// That the last window of a day was over when it was looked up.
const OVER: i64 = 0;

/// Pages of keys that are looked through at once.
const KEY_PAGES: i64 = 256;

/// How many partitions the keys have.
const KEY_PARTS: u32 = 16;

/// Whoever makes partitions does so alone: the number is ours and means nothing.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7077, 2)";

/// Which days are gone, as far as this node knows.
#[derive(Debug, Default)]
pub(super) struct Gone {
    bodies_before: AtomicI32,
    ops_before: AtomicI32,
}

impl Gone {
    /// Asks what other nodes dropped.
    pub(super) async fn learn(&self, link: &Link) -> Result<(), tokio_postgres::Error> {
        let rows = link.query("SELECT bodies_before, ops_before FROM retention", &[]).await?;
        self.bodies_before.store(rows[0].get(0), Ordering::Relaxed);
        self.ops_before.store(rows[0].get(1), Ordering::Relaxed);
        Ok(())
    }

    /// Whether a body went with its day, unless it is among the rest.
    pub(super) fn has(&self, body: BodyRef) -> bool {
        (body.segment as i32) < self.bodies_before.load(Ordering::Relaxed)
    }

    /// Operations before this one may be seen as less than their rows: their bodies are of their own day, or of
    /// the one before where ids are ahead of the clock.
    pub(super) fn bodies_before(&self) -> OperationId {
        let day = i64::from(self.bodies_before.load(Ordering::Relaxed));
        OperationId::from_u128(first_of(day.saturating_add(1)))
    }

    /// Operations before this one are gone, or among the rest.
    pub(super) fn oldest(&self) -> OperationId {
        OperationId::from_u128(first_of(self.ops_before.load(Ordering::Relaxed).into()))
    }

    /// An operation as it is to be seen: what its window took, with its bodies or before them, is
    /// not there any more.
    pub(super) fn seen(&self, mut operation: Operation) -> Operation {
        let day = operation.request.map_or(i64::MAX, |body| i64::from(body.segment));
        if day < i64::from(self.bodies_before.load(Ordering::Relaxed)) {
            let (fence, now) = (operation.fence, SystemClock.now());
            if is_expired(&operation, now) {
                operation = operation.forgotten_but_for_its_mark();
            } else if are_bodies_over(&operation, now) {
                operation = operation.without_bodies();
            }
            operation.fence = fence;
        }
        operation
    }
}

/// The day of `at`, counted from 1970-01-01.
pub(super) fn day_of(at: Timestamp) -> i32 {
    i32::try_from(at.as_micros().div_euclid(86_400_000_000)).unwrap_or_default()
}

/// The first id of a day: its milliseconds stand first in the UUID.
fn first_of(day: i64) -> u128 {
    u128::from(day.max(0) as u64 * 86_400_000) << 80
}

fn text(id: u128) -> String {
    let hex = format!("{id:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Makes the partitions of today and the days after it, where they are missing.
pub(super) async fn make(link: &Link, today: i32) -> Result<(), tokio_postgres::Error> {
    for day in i64::from(today)..=i64::from(today) + AHEAD {
        let (from, to) = (text(first_of(day)), text(first_of(day + 1)));
        // Numbers of our own, not input; here and below.
        for partition in [
            format!("op_{day} PARTITION OF op FOR VALUES FROM ('{from}') TO ('{to}')"),
            format!("asked_{day} PARTITION OF asked FOR VALUES FROM ('{from}') TO ('{to}')"),
            format!("made_{day} PARTITION OF made FOR VALUES FROM ('{from}') TO ('{to}')"),
            format!("body_{day} PARTITION OF body FOR VALUES FROM ({day}) TO ({})", day + 1),
        ] {
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

/// The days of which `table` has a partition, oldest first.
async fn days(link: &Link, table: &str) -> Result<Vec<i32>, tokio_postgres::Error> {
    let sql = "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
        WHERE i.inhparent = $1::text::regclass";
    let rows = link.query(sql, &[&table]).await?;
    let names = rows.iter().map(|found| found.get::<_, String>(0));
    let mut days: Vec<i32> =
        names.filter_map(|name| name.rsplit_once('_')?.1.parse().ok()).collect();
    days.sort_unstable();
    Ok(days)
}

/// Drops the days of which nothing has to be kept at `now`. One node does it at a time.
pub(super) async fn drop_old(
    link: &Link,
    gone: &Gone,
    now: Timestamp,
) -> Result<(), tokio_postgres::Error> {
    let alone = link.query("SELECT pg_try_advisory_lock(7077, 3)", &[]).await?;
    if alone[0].get(0) {
        // Where it breaks off, the lock goes with the connection.
        drop_alone(link, now).await?;
        link.query("SELECT pg_advisory_unlock(7077, 3)", &[]).await?;
    }
    gone.learn(link).await
}

async fn drop_alone(link: &Link, now: Timestamp) -> Result<(), tokio_postgres::Error> {
    let (mut all_expired, mut all_over) = (true, true);
    let (mut bodies_before, mut ops_before) = (None, None);
    // Of yesterday there may still be an operation on its way.
    for day in days(link, "op").await?.into_iter().filter(|day| *day < day_of(now) - 1) {
        let (expires, nothing_left) = last_of(link, day, now).await?;
        // A body is needed by operations of its day and of days before it.
        all_expired &= expires.is_none_or(|at| at <= now.as_micros());
        all_over &= nothing_left.is_none_or(|at| at <= now.as_micros());
        if all_expired {
            bodies_before = Some(day + 1);
        }
        if all_over {
            ops_before = Some(day + 1);
        }
        if !all_expired {
            break;
        }
    }
    if let Some(before) = bodies_before {
        drop_bodies(link, before, now).await?;
    }
    if let Some(before) = ops_before {
        drop_operations(link, before).await?;
    }
    Ok(())
}

/// When the last window of a day ends, and when the last of it has to be kept: looked up in the
/// day itself only where what is known of it has passed.
async fn last_of(
    link: &Link,
    day: i32,
    now: Timestamp,
) -> Result<(Option<i64>, Option<i64>), tokio_postgres::Error> {
    let known = link.query("SELECT expires, gone FROM day WHERE day = $1", &[&day]).await?;
    if let Some(known) = known.first() {
        let (expires, gone): (Option<i64>, Option<i64>) = (known.get(0), known.get(1));
        let is_later = |at: Option<i64>| at.is_some_and(|at| at > now.as_micros());
        // Meanwhile a window may have been extended, or what was open have ended: when it passes,
        // the day is looked up once more, and then said to be over.
        if is_later(expires) || (expires == Some(OVER) && is_later(gone)) {
            return Ok((expires, gone));
        }
    }
    let sql = format!("SELECT max(expires), max(gone) FROM op_{day}");
    let found = link.client.query_one(&sql, &[]).await?;
    let (expires, gone): (Option<i64>, Option<i64>) = (found.get(0), found.get(1));
    let expires = expires.map(|at| if at <= now.as_micros() { OVER } else { at });
    link.query(
        "INSERT INTO day VALUES ($1, $2, $3) ON CONFLICT (day) DO UPDATE SET \
         expires = EXCLUDED.expires, gone = EXCLUDED.gone",
        &[&day, &expires, &gone],
    )
    .await?;
    Ok((expires, gone))
}

/// Drops the bodies of the days before `before`, but for those that something still needs.
async fn drop_bodies(
    link: &Link,
    before: i32,
    now: Timestamp,
) -> Result<(), tokio_postgres::Error> {
    let old: Vec<i32> = days(link, "body").await?.into_iter().filter(|day| *day < before).collect();
    if old.is_empty() {
        return Ok(());
    }
    let end = Id(OperationId::from_u128(first_of(before.into())));
    let needed = link
        .query(
            "SELECT row FROM op WHERE kind = 0 AND id < $1 \
             UNION ALL SELECT row FROM op WHERE kind IN (1, 2, 6) AND kind IN (1, 2, 4, 5, 6) \
             AND id < $1 \
             UNION ALL SELECT row FROM op_rest WHERE expires > $2 LIMIT $3",
            &[&end, &now.as_micros(), &(SURVIVORS_MAX + 1)],
        )
        .await?;
    // What a later release needs, its nodes know.
    let is_later = needed.iter().any(|found| row::is_later(found.get(0)));
    if is_later || needed.len() as i64 > SURVIVORS_MAX {
        return Ok(());
    }
    // What cannot be read needs nothing that could be named.
    let operations = needed.iter().filter_map(|found| row::decode(found.get(0)).ok());
    let bodies: Vec<_> =
        operations.flat_map(|operation| operation.bodies().collect::<Vec<_>>()).collect();
    let places: Vec<i32> = bodies.iter().map(|body| body.segment as i32).collect();
    let ns: Vec<i64> = bodies.iter().map(|body| i64::from(body.offset)).collect();
    for day in old {
        link.client
            .batch_execute(&format!("BEGIN; {LOCK}; ALTER TABLE body DETACH PARTITION body_{day}"))
            .await?;
        let keep = format!(
            "INSERT INTO body SELECT DISTINCT p.* FROM body_{day} p \
             JOIN UNNEST($1::integer[], $2::bigint[]) AS t(day, n) ON t.day = p.day AND t.n = p.n"
        );
        link.client.execute(&keep, &[&places, &ns]).await?;
        let ended = format!(
            "DROP TABLE body_{day}; UPDATE retention SET bodies_before = greatest(bodies_before, {}); COMMIT",
            day + 1
        );
        link.client.batch_execute(&ended).await?;
    }
    Ok(())
}

/// Drops the operations of the days before `before`, but for those that are still open.
async fn drop_operations(link: &Link, before: i32) -> Result<(), tokio_postgres::Error> {
    let mut dropped = false;
    for day in days(link, "op").await?.into_iter().filter(|day| *day < before) {
        let open = format!(
            "SELECT count(*) FROM (SELECT FROM op_{day} WHERE expires IS NULL LIMIT $1) AS open"
        );
        if link.client.query_one(&open, &[&(SURVIVORS_MAX + 1)]).await?.get::<_, i64>(0)
            > SURVIVORS_MAX
        {
            break;
        }
        // All of the day is read, in the order of the disk.
        let mut sql = format!(
            "BEGIN; {LOCK}; SET LOCAL enable_seqscan = on; ALTER TABLE op DETACH PARTITION op_{day}; \
             INSERT INTO op SELECT * FROM op_{day} WHERE expires IS NULL;"
        );
        // Writing into a string does not fail.
        let _ = write!(
            sql,
            "DO $$ BEGIN IF to_regclass('asked_{day}') IS NOT NULL THEN \
             ALTER TABLE asked DETACH PARTITION asked_{day}; \
             INSERT INTO asked SELECT a.* FROM asked_{day} a JOIN op_{day} o ON o.id = a.op WHERE o.expires IS NULL; \
             DROP TABLE asked_{day}; END IF; END $$; \
             DO $$ BEGIN IF to_regclass('made_{day}') IS NOT NULL THEN \
             ALTER TABLE made DETACH PARTITION made_{day}; \
             INSERT INTO made SELECT m.* FROM made_{day} m JOIN op_{day} o ON o.id = m.op WHERE o.expires IS NULL; \
             DROP TABLE made_{day}; END IF; END $$; \
             DROP TABLE op_{day}; DELETE FROM day WHERE day = {day}; \
             UPDATE retention SET ops_before = greatest(ops_before, {}); COMMIT",
            day + 1
        );
        link.client.batch_execute(&sql).await?;
        dropped = true;
    }
    if dropped { purge_keys(link, before).await } else { Ok(()) }
}

/// Removes the keys whose operations went with their days, a few pages at a time: nobody waits for
/// it, and a key that is left takes a new operation all the same.
async fn purge_keys(link: &Link, before: i32) -> Result<(), tokio_postgres::Error> {
    let end = Id(OperationId::from_u128(first_of(before.into())));
    for part in 0..KEY_PARTS {
        let size = format!(
            "SELECT pg_relation_size('key_{part}') / current_setting('block_size')::bigint"
        );
        let pages: i64 = link.client.query_one(&size, &[]).await?.get(0);
        for page in (0..pages).step_by(KEY_PAGES as usize) {
            let to = page + KEY_PAGES;
            let sql = format!(
                "DELETE FROM key_{part} k WHERE k.ctid >= '({page},0)' AND k.ctid < '({to},0)' \
                 AND k.op < $1 AND NOT EXISTS (SELECT FROM op_rest r WHERE r.id = k.op)"
            );
            link.client.execute(&sql, &[&end]).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::PostgresOptions;
    use super::super::link::Address;
    use super::super::schema::migrate;
    use super::*;

    #[test]
    fn a_day_of_ids_begins_with_its_first_millisecond() {
        assert_eq!(text(first_of(0)), "00000000-0000-0000-0000-000000000000");
        assert_eq!(text(first_of(1)), "00000526-5c00-0000-0000-000000000000");
        assert_eq!(day_of(Timestamp::from_micros(86_400_000_000)), 1);
        assert_eq!(day_of(Timestamp::from_micros(86_399_999_999)), 0);
    }

    #[tokio::test]
    #[expect(clippy::print_stdout, reason = "never silently")]
    async fn what_is_open_of_a_day_that_goes_is_found_by_its_ids_still() {
        let Ok(server) = std::env::var("TEST_POSTGRES") else {
            println!("skipped: TEST_POSTGRES names no server; `cargo xtask test` starts one");
            return;
        };
        let open = async |url: String| {
            let address = Address::new(&PostgresOptions { url, ca_file: None }).unwrap();
            address.open().await.unwrap()
        };
        let name = format!("days_{}", std::process::id());
        let new = format!("CREATE DATABASE {name}");
        open(server.clone()).await.client.batch_execute(&new).await.unwrap();
        let link = open(format!("{server} dbname={name}")).await;
        migrate(&link).await.unwrap();
        make(&link, 20_000).await.unwrap();
        // One is pending, and one is over.
        let id = |n: u32| format!("{}{n}", &text(first_of(20_000))[..35]);
        let rows = format!(
            "INSERT INTO op VALUES ('{0}', 1, 0, 1, 1, NULL, NULL, NULL, true, '\\x00'), \
             ('{1}', 1, 3, 1, NULL, NULL, 1, 1, true, '\\x00'); \
             INSERT INTO made VALUES ('ada', 'to', '{0}'), ('ada', 'to', '{1}')",
            id(1),
            id(2)
        );
        link.client.batch_execute(&rows).await.unwrap();
        drop_operations(&link, 20_001).await.unwrap();
        let left = link.query("SELECT op::text FROM made WHERE id = 'ada'", &[]).await.unwrap();
        assert_eq!(left.iter().map(|row| row.get(0)).collect::<Vec<String>>(), [id(1)]);
    }
}
