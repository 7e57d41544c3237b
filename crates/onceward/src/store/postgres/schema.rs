//! The tables, brought up to date by whoever opens them: once, however many nodes start together.

use std::fmt::Write as _;

use onceward_core::time::Timestamp;

use super::link::{Link, meaning};
use crate::store::{Schema, StoreError};

/// Each schema, and the oldest whose releases may still use the ledger once it is there: one that
/// expands leaves that as it was, one that contracts names the first that does without what goes.
const MIGRATIONS: [(i32, &str); 4] = [
    (1, include_str!("../../../migrations/postgres/0001_init.sql")),
    (1, include_str!("../../../migrations/postgres/0002_duty.sql")),
    (1, include_str!("../../../migrations/postgres/0003_flow.sql")),
    (1, include_str!("../../../migrations/postgres/0004_people.sql")),
];

/// How far the tables are, and the oldest schema whose releases may use them.
const DONE: &str = "SELECT coalesce(max(version), 0), coalesce(max(oldest), 0) FROM migration";

/// Brings the tables up to date. Whoever comes first does it; the others wait and find it done. What
/// a later release added is left as it is.
pub(super) async fn migrate(link: &Link) -> Result<(), StoreError> {
    // However long the first one takes, it is waited for.
    let mut sql = "BEGIN; SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0; \
        SELECT pg_advisory_xact_lock(7077, 1); SET LOCAL lock_timeout = '5s'; \
        CREATE TABLE IF NOT EXISTS migration \
        (version integer PRIMARY KEY, oldest integer NOT NULL);"
        .to_owned();
    link.client.batch_execute(&sql).await.map_err(|error| meaning(&error))?;
    let done = link.client.query_one(DONE, &[]).await.map_err(|error| meaning(&error))?;
    let (done, oldest): (i32, i32) = (done.get(0), done.get(1));
    if oldest > MIGRATIONS.len() as i32 {
        return Err(StoreError::Unavailable(format!(
            "a later release has taken away what this one needs (the ledger wants schema {oldest} or later, this release has {}): start a later release",
            MIGRATIONS.len()
        )));
    }
    sql.clear();
    let missing = MIGRATIONS.iter().zip(1..).skip(usize::try_from(done).unwrap_or_default());
    for ((oldest, migration), version) in missing {
        sql += migration;
        // Writing into a string does not fail.
        let _ = write!(sql, "INSERT INTO migration VALUES ({version}, {oldest});");
    }
    sql += "COMMIT";
    link.client.batch_execute(&sql).await.map_err(|error| meaning(&error))
}

/// What a server says of itself and of the ledger on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// The server's release, as it says it.
    pub release: String,
    /// The shape of the tables.
    pub schema: Schema,
    /// The server's clock.
    pub now: Timestamp,
}

/// Looks, and changes nothing.
pub(super) async fn look(link: &Link) -> Result<Looked, StoreError> {
    let server = "SELECT current_setting('server_version'), to_regclass('migration') IS NOT NULL, \
        (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let server = link.client.query_one(server, &[]).await.map_err(|error| meaning(&error))?;
    let (mut found, mut oldest) = (0, 0);
    if server.get(1) {
        let done = link.client.query_one(DONE, &[]).await.map_err(|error| meaning(&error))?;
        (found, oldest) = (done.get::<_, i32>(0), done.get::<_, i32>(1));
    }
    let ours = MIGRATIONS.len() as u32;
    let is_usable = oldest <= ours as i32;
    let schema = Schema { found: found.max(0) as u32, ours, is_usable };
    Ok(Looked { release: server.get(0), schema, now: Timestamp::from_micros(server.get(2)) })
}
