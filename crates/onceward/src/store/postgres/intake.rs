//! Taking a whole ledger in: one transaction from the first row to the last, so that nobody sees
//! half of it and a move that breaks off leaves nothing. Nodes are kept out meanwhile.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use onceward_core::attempt::BodyRef;
use onceward_core::key::KeyDigest;
use onceward_core::time::Timestamp;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use super::batch::{Bodies, Columns, digests, note_made};
use super::lanes::Lanes;
use super::link::{Address, Id, Link, meaning, pause};
use super::numbers::Numbers;
use super::schema::migrate;
use super::{PostgresOptions, days, decode, first_at};
use crate::clock::{Clock as _, SystemClock};
use crate::store::moving::{Kept, MoveError};
use crate::store::{Asked, Lane, StoreError};

/// Rows and bytes of bodies, beyond which what was gathered is sent.
const ROWS_MAX: usize = 256;
const BYTES_MAX: usize = 4 << 20;

/// Partitions are made for no more days before today: what is older has a place of its own.
const DAYS_MAX: i32 = 64;

/// What has to be empty, in the order in which it is told.
const TABLES: [&str; 6] = ["op", "key", "body", "asked", "setting", "session"];

/// Nodes read meanwhile and write nothing; those that open wait for the first lock, in vain.
/// A page of the old ledger takes longer to read than a caller waits.
const ALONE: &str = "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '5min'; \
    SET LOCAL statement_timeout = '5min'; SELECT pg_advisory_xact_lock(7077, 1); \
    LOCK TABLE op, key, body, asked, setting, session, lane IN EXCLUSIVE MODE";

const OPERATIONS: &str = "\
    WITH new AS (SELECT * FROM UNNEST($1::bytea[], $2::uuid[], $3::bigint[], $4::smallint[], \
        $5::integer[], $6::bigint[], $7::bigint[], $8::boolean[], $9::bytea[], $10::bigint[], \
        $11::text[], $12::bigint[], $13::bigint[]) AS t(digest, id, fence, kind, lane, due, \
        owner, has_key, row, count, times, expires, gone)), \
    keys AS (INSERT INTO key (digest, op) SELECT digest, id FROM new WHERE has_key), \
    again AS (INSERT INTO asked (op, count, times) \
        SELECT id, count, times::bigint[] FROM new WHERE count > 0) \
    INSERT INTO op (id, fence, kind, lane, due, owner, has_key, row, expires, gone) \
        SELECT id, fence, kind, lane, due, owner, has_key, row, expires, gone FROM new";

const BODIES: &str = "INSERT INTO body (day, n, bytes) \
    SELECT * FROM UNNEST($1::integer[], $2::bigint[], $3::bytea[])";

const KEPT: &str = "SELECT row, has_key, count, times FROM op LEFT JOIN asked ON asked.op = op.id \
    WHERE id >= $1 ORDER BY id LIMIT $2";

/// How long it is asked what became of a commit whose answer was lost, and how often.
const ASK_AGAIN: Duration = Duration::from_secs(1);
const ASK_MAX: usize = 60;

/// Operations that were gathered, one array for each column.
#[derive(Default)]
struct Rows {
    digests: Vec<KeyDigest>,
    lanes: Vec<i32>,
    columns: Columns,
    has_keys: Vec<bool>,
    counts: Vec<i64>,
    times: Vec<String>,
}

/// A ledger on its way in.
pub(in crate::store) struct Intake {
    address: Address,
    link: Link,
    lanes: Lanes,
    numbers: Numbers,
    rows: Rows,
    bodies: Bodies,
    bytes: usize,
    settings: Vec<(String, Bytes)>,
}

fn failed(error: &tokio_postgres::Error) -> MoveError {
    MoveError::To(meaning(error))
}

/// An array as PostgreSQL writes it.
pub(super) fn array(times: &[Timestamp]) -> String {
    let mut text = String::new();
    for at in times {
        let comma = if text.is_empty() { "" } else { "," };
        // Writing into a string does not fail.
        let _ = write!(text, "{comma}{}", at.as_micros());
    }
    format!("{{{text}}}")
}

/// The first table with something in it.
async fn occupied(link: &Link) -> Result<Option<&'static str>, tokio_postgres::Error> {
    for table in TABLES {
        // Names of our own, not input.
        let sql = format!("SELECT EXISTS (SELECT FROM {table})");
        if link.client.query_one(&sql, &[]).await?.get(0) {
            return Ok(Some(table));
        }
    }
    Ok(None)
}

impl Intake {
    /// Whether a ledger can be taken in; writes nothing.
    pub(in crate::store) async fn look(options: &PostgresOptions) -> Result<(), MoveError> {
        let link = Address::new(options)?.open().await?;
        let is_new = link.client.query_one("SELECT to_regclass('op') IS NULL", &[]).await;
        if is_new.map_err(|error| failed(&error))?.get(0) {
            return Ok(());
        }
        match occupied(&link).await.map_err(|error| failed(&error))? {
            Some(table) => Err(MoveError::NotEmpty(table)),
            None => Ok(()),
        }
    }

    /// Opens the ledger at `options.url`, which has to be empty, for itself alone; there is going
    /// to be room for what began at `since`.
    pub(in crate::store) async fn begin(
        options: &PostgresOptions,
        since: Option<Timestamp>,
    ) -> Result<Self, MoveError> {
        Self::look(options).await?;
        let address = Address::new(options)?;
        let link = address.open().await?;
        migrate(&link).await?;
        let today = days::day_of(SystemClock.now());
        let first = since.map_or(today, days::day_of).max(today - DAYS_MAX);
        for day in first..=today {
            days::make(&link, day).await.map_err(|error| failed(&error))?;
        }
        link.client.batch_execute(ALONE).await.map_err(|error| match error.code() {
            Some(&SqlState::LOCK_NOT_AVAILABLE) => MoveError::InUse,
            _ => failed(&error),
        })?;
        match occupied(&link).await.map_err(|error| failed(&error))? {
            Some(table) => Err(MoveError::NotEmpty(table)),
            None => Ok(Self {
                address,
                link,
                lanes: Lanes::default(),
                numbers: Numbers::default(),
                rows: Rows::default(),
                bodies: Bodies::default(),
                bytes: 0,
                settings: Vec::new(),
            }),
        }
    }

    /// Puts the settings in.
    pub(in crate::store) async fn settings(
        &mut self,
        settings: Vec<(String, Bytes)>,
    ) -> Result<(), MoveError> {
        for (name, value) in &settings {
            let put = "INSERT INTO setting VALUES ($1, $2)";
            let done = self.link.query(put, &[name, &&value[..]]).await;
            done.map_err(|error| failed(&error))?;
        }
        self.settings = settings;
        Ok(())
    }

    /// Puts a body in, beside what else began on the day of `at`; tells where it is.
    pub(in crate::store) async fn body(
        &mut self,
        at: Timestamp,
        bytes: Bytes,
    ) -> Result<BodyRef, MoveError> {
        let place = self.numbers.place(&self.link, days::day_of(at), &bytes).await;
        let place = place.map_err(|error| failed(&error))?;
        self.bytes += bytes.len();
        self.bodies.push(place, bytes);
        if self.bytes > BYTES_MAX {
            self.flush().await?;
        }
        Ok(place)
    }

    /// Puts an operation in, which refers to bodies that are in.
    pub(in crate::store) async fn operation(&mut self, kept: &Kept) -> Result<(), MoveError> {
        let operation = &kept.operation;
        let made = note_made(&self.link, operation).await;
        made.map_err(|error| failed(&error))?;
        let lane = self.lanes.number(&self.link, &Lane::of(operation)).await;
        let rows = &mut self.rows;
        rows.lanes.push(lane.map_err(|error| failed(&error))?);
        rows.digests.push(operation.scope.digest(&operation.key));
        rows.columns.push(operation);
        rows.has_keys.push(kept.has_key);
        rows.counts.push(kept.asked.count as i64);
        rows.times.push(array(&kept.asked.times));
        if rows.has_keys.len() == ROWS_MAX { self.flush().await } else { Ok(()) }
    }

    /// Sends what was gathered.
    pub(in crate::store) async fn flush(&mut self) -> Result<(), MoveError> {
        let bodies = std::mem::take(&mut self.bodies);
        let put = self.link.query(BODIES, &[&bodies.days, &bodies.ns, &bodies.bytes()]).await;
        put.map_err(|error| failed(&error))?;
        self.bytes = 0;
        let rows = std::mem::take(&mut self.rows);
        let Columns { ids, fences, kinds, dues, owners, rows: bytes, expires, gone } =
            &rows.columns;
        let with: [&(dyn ToSql + Sync); 13] = [
            &digests(&rows.digests),
            ids,
            fences,
            kinds,
            &rows.lanes,
            dues,
            owners,
            &rows.has_keys,
            bytes,
            &rows.counts,
            &rows.times,
            expires,
            gone,
        ];
        self.link.query(OPERATIONS, &with).await.map_err(|error| failed(&error))?;
        Ok(())
    }

    /// At most `max` operations after `from` as they are in now, oldest first.
    pub(in crate::store) async fn kept(
        &self,
        from: u64,
        max: usize,
    ) -> Result<Vec<Kept>, MoveError> {
        let rows = self.link.query(KEPT, &[&first_at(from + 1), &(max as i64)]).await;
        let rows = rows.map_err(|error| failed(&error))?;
        let mut found = Vec::new();
        for row in &rows {
            let times: Option<Vec<i64>> = row.get("times");
            let times = times.unwrap_or_default().into_iter().map(Timestamp::from_micros);
            let count = row.get::<_, Option<i64>>("count").unwrap_or_default() as u64;
            found.push(Kept {
                operation: decode(row)?,
                has_key: row.get("has_key"),
                asked: Asked { count, times: times.collect() },
            });
        }
        let digest = |kept: &Kept| kept.operation.scope.digest(&kept.operation.key).0.to_vec();
        let digests: Vec<Vec<u8>> = found.iter().map(digest).collect();
        let keys = "SELECT op FROM key WHERE digest = ANY($1)";
        let keys = self.link.query(keys, &[&digests]).await.map_err(|error| failed(&error))?;
        let owners: std::collections::HashSet<Id> = keys.iter().map(|key| key.get(0)).collect();
        for kept in &mut found {
            kept.has_key &= owners.contains(&Id(kept.operation.id));
        }
        Ok(found)
    }

    /// Whether each of these bodies is in, as it was written.
    pub(in crate::store) async fn holds(&self, bodies: &[BodyRef]) -> Result<bool, MoveError> {
        let days: Vec<i32> = bodies.iter().map(|body| body.segment as i32).collect();
        let ns: Vec<i64> = bodies.iter().map(|body| i64::from(body.offset)).collect();
        let sql = "SELECT bytes FROM UNNEST($1::integer[], $2::bigint[]) WITH ORDINALITY \
            AS t(day, n, place) JOIN body USING (day, n) ORDER BY place";
        let rows = self.link.query(sql, &[&days, &ns]).await.map_err(|error| failed(&error))?;
        let is_same = |(row, body): (&tokio_postgres::Row, &BodyRef)| {
            let bytes: &[u8] = row.get(0);
            bytes.len() == body.length as usize && crc32fast::hash(bytes) == body.crc
        };
        Ok(rows.len() == bodies.len() && rows.iter().zip(bodies).all(is_same))
    }

    /// Keeps what is in: from now on nodes may open it.
    pub(in crate::store) async fn commit(self, operations: u64) -> Result<(), MoveError> {
        let Err(error) = self.link.client.batch_execute("COMMIT").await else {
            // Plans know from the start how much there is; without it they learn it in a while.
            let _ = self.link.client.batch_execute("ANALYZE op; ANALYZE key; ANALYZE body").await;
            return Ok(());
        };
        let said = meaning(&error);
        if !matches!(said, StoreError::Away(_)) {
            return Err(said.into());
        }
        // It was kept or not: that is looked up.
        for _ in 0..ASK_MAX {
            pause(ASK_AGAIN).await;
            if let Ok(is_there) = self.is_there(operations).await {
                return if is_there { Ok(()) } else { Err(said.into()) };
            }
        }
        Err(MoveError::Unknown(said))
    }

    /// Whether the ledger holds what this move put in: the settings that it brought are no others'.
    async fn is_there(&self, operations: u64) -> Result<bool, StoreError> {
        let link = self.address.open().await?;
        let failed = |error: tokio_postgres::Error| meaning(&error);
        let count = link.query("SELECT count(*) FROM op", &[]).await.map_err(failed)?;
        if count[0].get::<_, i64>(0) < operations as i64 {
            return Ok(false);
        }
        let rows = link.query("SELECT name, value FROM setting", &[]).await.map_err(failed)?;
        let there: std::collections::HashMap<String, Vec<u8>> =
            rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let is_ours = |(name, value): &(String, Bytes)| {
            there.get(name).is_some_and(|found| found[..] == value[..])
        };
        Ok(self.settings.iter().all(is_ours))
    }
}
