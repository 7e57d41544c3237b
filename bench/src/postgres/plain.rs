//! What batching is measured against: the same rows in the same tables, with a prepared statement
//! and a transaction for each write, over a pool of connections.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;
use onceward::core::id::OperationId;
use onceward::secret::sha256;
use tokio::sync::Semaphore;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Statement};

use super::drive::Places;
use super::server::connect;
use crate::{Outcome, ledger};

const REMEMBER: &str = "\
    WITH won AS (INSERT INTO key (digest, op) VALUES ($1, $2) \
        ON CONFLICT (digest) DO NOTHING RETURNING op), \
    ops AS (INSERT INTO op (id, fence, kind, lane, due, owner, row) \
        SELECT op, $3::bigint, $4::smallint, $5::integer, NULL, $6::bigint, $7::bytea FROM won), \
    bodies AS (INSERT INTO body (day, n, bytes) \
        SELECT $8::integer, $9::bigint, $10::bytea FROM won) \
    SELECT op FROM won";

const SETTLE: &str = "\
    WITH done AS (UPDATE op SET fence = $2::bigint, kind = $3, due = NULL, owner = NULL, row = $4, \
        expires = $8, gone = $9 \
        WHERE id = $1 AND fence = $2::bigint - 1 AND has_key RETURNING id), \
    bodies AS (INSERT INTO body (day, n, bytes) \
        SELECT $5::integer, $6::bigint, $7::bytea FROM done) \
    SELECT id FROM done";

/// Past all numbers that nodes give to bodies.
const FIRST_BODY: i64 = 1 << 40;

/// An id as the server takes it.
#[derive(Debug)]
struct Id(u128);

impl ToSql for Id {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&self.0.to_be_bytes());
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::UUID
    }

    to_sql_checked!();
}

/// An operation's row as the store writes it.
#[derive(Debug)]
struct Shape {
    fence: i64,
    kind: i16,
    lane: i32,
    owner: Option<i64>,
    row: Vec<u8>,
    expires: Option<i64>,
    gone: Option<i64>,
}

/// The pool, and rows to write.
#[derive(Debug)]
pub(super) struct Plain {
    idle: Mutex<Vec<Line>>,
    free: Semaphore,
    born: Shape,
    settled: Shape,
    day: i32,
    bodies: AtomicI64,
}

#[derive(Debug)]
struct Line {
    client: Client,
    remember: Statement,
    settle: Statement,
}

impl Plain {
    /// Opens `size` connections; rows are like those that `store` writes into the ledger at `url`.
    pub(super) async fn open(
        url: &str,
        size: usize,
        store: &dyn onceward::store::Store,
        places: &Places,
    ) -> Outcome<Arc<Self>> {
        let client = connect(url).await?;
        let place = places.next();
        ledger::remember(store, place).await?;
        let born = shape(&client).await?;
        ledger::one(store, places.next()).await?;
        let settled = shape(&client).await?;
        let mut idle = Vec::new();
        for _ in 0..size {
            let client = connect(url).await?;
            let remember = client.prepare(REMEMBER).await?;
            let settle = client.prepare(SETTLE).await?;
            idle.push(Line { client, remember, settle });
        }
        Ok(Arc::new(Self {
            idle: Mutex::new(idle),
            free: Semaphore::new(size),
            born,
            settled,
            day: i32::try_from((place >> 15) / 86_400_000)?,
            bodies: AtomicI64::new(FIRST_BODY),
        }))
    }

    /// One operation: remembered, then settled.
    pub(super) async fn one(&self, place: u64) -> Outcome<()> {
        let id = Id(OperationId::new(place, place).as_u128());
        let digest = sha256(&place.to_be_bytes());
        self.with(async |line: &Line| {
            let Shape { fence, kind, lane, owner, row, .. } = &self.born;
            let body = &vec![b'q'; ledger::REQUEST_BYTES];
            let n = self.bodies.fetch_add(1, Ordering::Relaxed);
            let with: [&(dyn ToSql + Sync); 10] =
                [&&digest[..], &id, fence, kind, lane, owner, row, &self.day, &n, body];
            line.client.query_one(&line.remember, &with).await
        })
        .await?;
        self.with(async |line: &Line| {
            let Shape { fence, kind, row, expires, gone, .. } = &self.settled;
            let body = &vec![b'a'; ledger::ANSWER_BYTES];
            let n = self.bodies.fetch_add(1, Ordering::Relaxed);
            let with: [&(dyn ToSql + Sync); 9] =
                [&id, fence, kind, row, &self.day, &n, body, expires, gone];
            line.client.query_one(&line.settle, &with).await
        })
        .await
    }

    /// Does one thing with a connection that nobody uses now.
    async fn with(
        &self,
        work: impl AsyncFnOnce(&Line) -> Result<tokio_postgres::Row, tokio_postgres::Error>,
    ) -> Outcome<()> {
        let _place = self.free.acquire().await?;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let line = idle.ok_or("more callers than connections")?;
        let done = work(&line).await;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        done?;
        Ok(())
    }
}

/// The newest row.
async fn shape(client: &Client) -> Outcome<Shape> {
    let sql =
        "SELECT fence, kind, lane, owner, row, expires, gone FROM op ORDER BY id DESC LIMIT 1";
    let row = client.query_one(sql, &[]).await?;
    Ok(Shape {
        fence: row.get(0),
        kind: row.get(1),
        lane: row.get(2),
        owner: row.get(3),
        row: row.get(4),
        expires: row.get(5),
        gone: row.get(6),
    })
}
