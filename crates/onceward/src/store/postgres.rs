//! The shared store: PostgreSQL, for any number of nodes. Each node groups what it writes; fences
//! and unique keys decide between nodes; the server's clock decides leases.
//!
//! A server that is away is no reason to stop: what was on its way is written again until it is
//! known, and new work is refused meanwhile.

mod days;
mod intake;
mod lanes;
mod link;
mod writer;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use onceward_core::admission;
use onceward_core::attempt::BodyRef;
use onceward_core::id::OperationId;
use onceward_core::key::KeyDigest;
use onceward_core::lease::{LEASE, Session};
use onceward_core::operation::Operation;
use onceward_core::time::Timestamp;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, NoTls};

use self::days::day_of;
pub(super) use self::intake::Intake;
use self::lanes::Lanes;
use self::link::{Address, Id, Link, Links, meaning, pause};
use self::writer::{Job, Queue, Writer};
use super::row::{self, kind};
use super::{
    Asked, Birth, Condition, Judge, Lane, Page, Query, Remembered, Reply, Standing, Store,
    StoreError, Swept, Which, Write, digest_of,
};
use crate::clock::{Clock, SystemClock};
use crate::judgement;

/// Jobs that wait at most; past it, callers wait before they queue.
const QUEUE_MAX: usize = 8192;

/// Connections that write, each a batch at a time.
const WRITERS: usize = 3;

/// Connections that read and do the rest.
const READERS: usize = 3;

/// Between two hints to the other nodes: many writes are one hint.
const TELL_EVERY: Duration = Duration::from_millis(50);

/// Between two tries to hear of other nodes.
const HEAR_AGAIN: Duration = Duration::from_secs(1);

/// Rows read at once for a list.
const PAGE: i64 = 500;

/// Each schema, and the oldest whose releases may still use the ledger once it is there: one that
/// expands leaves that as it was, one that contracts names the first that does without what goes.
const MIGRATIONS: [(i32, &str); 1] = [(1, include_str!("../../migrations/postgres/0001_init.sql"))];

/// How a shared ledger is opened.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Its connection string: one host or several, `postgres://…` or `key=value` pairs.
    pub url: String,
    /// Certificates that are believed beside the machine's, where the connection string says
    /// `sslmode=require`.
    pub ca_file: Option<PathBuf>,
}

/// The shared store.
pub struct PostgresStore {
    address: Address,
    links: Links,
    queue: Arc<Queue>,
    room: Arc<Semaphore>,
    lanes: Arc<Lanes>,
    newest: u64,
    tasks: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresStore").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn decode(found: &tokio_postgres::Row) -> Result<Operation, StoreError> {
    read(found.get("row"))
}

/// An operation from its row. One of a later release's shape is for nodes of that release: whoever
/// asks for it here is told to come back.
fn read(bytes: &[u8]) -> Result<Operation, StoreError> {
    if row::is_later(bytes) {
        return Err(StoreError::Away("a later release wrote this, whose nodes can read it".into()));
    }
    row::decode(bytes)
}

fn first_at(place: u64) -> Id {
    Id(OperationId::new(place, 0))
}

impl PostgresStore {
    /// Opens the ledger at `options.url`, and brings its tables up to date: once, however many
    /// nodes start together.
    pub async fn open(options: &PostgresOptions) -> Result<Self, StoreError> {
        let address = Address::new(options)?;
        let link = address.first().await?;
        migrate(&link).await?;
        let today = day_of(SystemClock.now());
        days::make(&link, today).await.map_err(|error| meaning(&error))?;
        let queue = Arc::<Queue>::default();
        queue.gone.learn(&link).await.map_err(|error| meaning(&error))?;
        let newest = link.query("SELECT id FROM op ORDER BY id DESC LIMIT 1", &[]).await;
        let newest = newest.map_err(|error| meaning(&error))?;
        let newest = newest.first().map_or(0, |found| found.get::<_, Id>(0).0.sequence());
        let lanes = Arc::<Lanes>::default();
        let mut tasks: Vec<JoinHandle<()>> = (0..WRITERS)
            .map(|_| {
                let (queue, lanes) = (Arc::clone(&queue), Arc::clone(&lanes));
                let writer = Writer::new(address.clone(), queue, lanes, || SystemClock.now());
                tokio::spawn(writer.run())
            })
            .collect();
        tasks.push(tokio::spawn(tell(address.clone(), Arc::clone(&queue))));
        tasks.push(tokio::spawn(listen(address.clone(), Arc::clone(&queue))));
        Ok(Self {
            links: Links::new(address.clone(), READERS),
            address,
            queue,
            room: Arc::new(Semaphore::new(QUEUE_MAX)),
            lanes,
            newest,
            tasks,
        })
    }

    /// Queues a job, once there is room, and waits until it is known what came of it.
    async fn ask<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Job,
    ) -> Result<T, StoreError> {
        let closed = || StoreError::Unavailable("the ledger is closed".to_owned());
        let _place = self.room.acquire().await.map_err(|_| closed())?;
        let (answer, answered) = oneshot::channel();
        self.queue.push(job(answer));
        answered.await.map_err(|_| closed())?
    }

    /// A transaction of several steps on a connection of its own, in a task of its own: a caller
    /// that goes away leaves none open.
    async fn alone<T, F, W>(&self, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send,
        W: FnOnce(Arc<Link>) -> F + Send + 'static,
    {
        let address = self.address.clone();
        let task = tokio::spawn(async move {
            let link = Arc::new(address.open().await?);
            work(link).await
        });
        task.await.map_err(|error| StoreError::Away(error.to_string()))?
    }
}

/// Brings the tables up to date. Whoever comes first does it; the others wait and find it done. What
/// a later release added is left as it is.
async fn migrate(link: &Link) -> Result<(), StoreError> {
    // However long the first one takes, it is waited for.
    let mut sql = "BEGIN; SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0; \
        SELECT pg_advisory_xact_lock(7077, 1); SET LOCAL lock_timeout = '5s'; \
        CREATE TABLE IF NOT EXISTS migration \
        (version integer PRIMARY KEY, oldest integer NOT NULL);"
        .to_owned();
    link.client.batch_execute(&sql).await.map_err(|error| meaning(&error))?;
    let done = "SELECT coalesce(max(version), 0), coalesce(max(oldest), 0) FROM migration";
    let done = link.client.query_one(done, &[]).await.map_err(|error| meaning(&error))?;
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

/// Tells other nodes that something may be due: a hint, apart from what is written.
async fn tell(address: Address, queue: Arc<Queue>) {
    let links = Links::new(address, 1);
    loop {
        queue.tell.notified().await;
        // A hint that is lost is made up for by the next look.
        let _ = links.query("SELECT pg_notify('onceward', '')", &[]).await;
        pause(TELL_EVERY).await;
    }
}

/// Hears what other nodes tell.
async fn listen(address: Address, queue: Arc<Queue>) {
    loop {
        let (config, tls) = address.parts();
        // Whoever hears nothing looks from time to time.
        match tls {
            None => {
                if let Ok((client, connection)) = config.connect(NoTls).await {
                    hear(client, connection, &queue).await;
                }
            }
            Some(tls) => {
                if let Ok((client, connection)) = config.connect(tls.clone()).await {
                    hear(client, connection, &queue).await;
                }
            }
        }
        pause(HEAR_AGAIN).await;
    }
}

async fn hear<S, T>(
    client: tokio_postgres::Client,
    mut connection: tokio_postgres::Connection<S, T>,
    queue: &Queue,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let messages = async {
        while let Some(Ok(message)) =
            std::future::poll_fn(|context| connection.poll_message(context)).await
        {
            if matches!(message, AsyncMessage::Notification(_)) {
                queue.changed.notify_one();
            }
        }
    };
    let asked = async {
        // Where this fails the connection ends, and is made anew.
        let _ = client.batch_execute("LISTEN onceward").await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = messages => {}
        () = asked => {}
    }
}

async fn begin(link: &Link) -> Result<(), StoreError> {
    link.client.batch_execute("BEGIN").await.map_err(|error| meaning(&error))
}

async fn end(link: &Link) -> Result<(), StoreError> {
    link.client.batch_execute("COMMIT").await.map_err(|error| meaning(&error))
}

async fn take(
    link: Arc<Link>,
    address: Address,
    lane: i32,
    now: Timestamp,
    max: usize,
    judge: Judge,
) -> Result<Vec<Operation>, StoreError> {
    begin(&link).await?;
    let due = link
        .query(
            "SELECT row FROM op WHERE kind = 0 AND lane = $1 AND due <= $2 AND \
             get_byte(row, 0) <= $4 ORDER BY due LIMIT $3 FOR UPDATE SKIP LOCKED",
            &[&lane, &now.as_micros(), &(max as i64), &row::VERSION],
        )
        .await
        .map_err(|error| meaning(&error))?;
    let mut taken = Vec::new();
    for found in &due {
        let operation = decode(found)?;
        // What cannot follow is a mistake of ours, and is left for the next look.
        if let Ok(next) = operation.after(judge(&operation), now) {
            taken.push(next);
        }
    }
    let written = writer::change(&link, &taken).await.map_err(|error| meaning(&error))?;
    taken.retain(|operation| written.contains(&operation.id));
    match end(&link).await {
        Ok(()) => Ok(taken),
        Err(_) => kept(&address, taken).await,
    }
}

/// Those of `taken` that were written, where the answer to their commit was lost: looked for until
/// that is known, since what this session has in hand nobody else would attempt.
async fn kept(address: &Address, mut taken: Vec<Operation>) -> Result<Vec<Operation>, StoreError> {
    let ids: Vec<Id> = taken.iter().map(|operation| Id(operation.id)).collect();
    loop {
        match stored(address, &ids).await {
            Ok(stored) => {
                taken.retain(|operation| stored.contains(operation));
                return Ok(taken);
            }
            Err(error) if error.may_pass() => pause(writer::RETRY).await,
            Err(error) => return Err(error),
        }
    }
}

/// The operations as they stand once whoever is at them has ended: locked, so that what is read is
/// as safe as what is written.
async fn stored(address: &Address, ids: &[Id]) -> Result<Vec<Operation>, StoreError> {
    let link = address.open().await?;
    let sql = "SELECT row FROM op WHERE id = ANY($1) ORDER BY id FOR UPDATE";
    let rows = link.query(sql, &[&ids]).await.map_err(|error| meaning(&error))?;
    // What a later release has changed meanwhile is not as it was written here.
    rows.iter().filter(|found| !row::is_later(found.get("row"))).map(decode).collect()
}

async fn sweep(
    link: Arc<Link>,
    queue: Arc<Queue>,
    now: Timestamp,
    from: u64,
    max: usize,
) -> Result<Swept, StoreError> {
    let failed = |error: tokio_postgres::Error| meaning(&error);
    if from == 0 {
        days::make(&link, day_of(now)).await.map_err(failed)?;
        days::drop_old(&link, &queue.gone, now).await.map_err(failed)?;
    }
    // What has a partition of its day goes with it; only the rest is looked at one by one.
    let rows = link
        .query(
            "SELECT id, row FROM op_rest WHERE id >= $1 ORDER BY id LIMIT $2",
            &[&first_at(from + 1), &(max as i64)],
        )
        .await
        .map_err(failed)?;
    let mut swept = Swept::default();
    let (mut gone, mut digests, mut marks, mut bodies) = (vec![], vec![], vec![], vec![]);
    for found in rows.iter().filter(|found| !row::is_later(found.get("row"))) {
        let operation = decode(found)?;
        if !judgement::is_expired(&operation, now) {
            continue;
        }
        if admission::is_tombstone_over(&operation, now)
            || admission::leaves_no_tombstone(&operation)
        {
            digests.push(digest_of(&operation).0.to_vec());
            gone.push((Id(operation.id), operation.fence.0 as i64));
            bodies.extend(operation.bodies());
        } else if operation.request.is_some() {
            bodies.extend(operation.bodies());
            marks.push(operation.forgotten_but_for_its_mark());
        }
    }
    if rows.len() == max {
        swept.next = rows.last().map(|found| found.get::<_, Id>("id").0.sequence());
    }
    if gone.is_empty() && marks.is_empty() {
        return Ok(swept);
    }
    begin(&link).await?;
    let (ids, fences): (Vec<Id>, Vec<i64>) = gone.into_iter().unzip();
    let removed = link
        .query(
            "DELETE FROM op USING UNNEST($1::uuid[], $2::bigint[]) AS t(id, fence) \
             WHERE op.id = t.id AND op.fence = t.fence RETURNING op.id",
            &[&ids, &fences],
        )
        .await
        .map_err(failed)?;
    let removed: Vec<Id> = removed.iter().map(|found| found.get(0)).collect();
    swept.removed = removed.len() as u32;
    link.query("DELETE FROM key WHERE digest = ANY($1) AND op = ANY($2)", &[&digests, &removed])
        .await
        .map_err(failed)?;
    link.query("DELETE FROM asked WHERE op = ANY($1)", &[&removed]).await.map_err(failed)?;
    swept.forgotten = writer::mark(&link, &marks).await.map_err(failed)? as u32;
    let (days, ns): (Vec<i32>, Vec<i64>) =
        bodies.iter().map(|body| (body.segment as i32, i64::from(body.offset))).unzip();
    link.query(
        "DELETE FROM body USING UNNEST($1::integer[], $2::bigint[]) AS t(day, n) \
         WHERE body.day = t.day AND body.n = t.n",
        &[&days, &ns],
    )
    .await
    .map_err(failed)?;
    end(&link).await?;
    Ok(swept)
}

impl PostgresStore {
    async fn list_page(&self, query: &Query) -> Result<Page, StoreError> {
        let kinds: Vec<i16> =
            query.standing.iter().map(|standing| i16::from(kind(*standing))).collect();
        let mut before = match query.before {
            Some(place) => first_at(place),
            None => Id(OperationId::from_u128(u128::MAX)),
        };
        let (mut page, mut looked_at) = (Page::default(), 0);
        loop {
            let rows = if kinds.is_empty() {
                let sql = "SELECT id, row FROM op WHERE id < $1 ORDER BY id DESC LIMIT $2";
                self.links.query(sql, &[&before, &PAGE]).await?
            } else {
                let sql = "SELECT id, row FROM op WHERE kind = ANY($3) AND id < $1 \
                    ORDER BY id DESC LIMIT $2";
                self.links.query(sql, &[&before, &PAGE, &kinds]).await?
            };
            for found in &rows {
                before = found.get("id");
                looked_at += 1;
                // A later release's are listed by its nodes.
                if !row::is_later(found.get("row")) {
                    let operation = self.queue.gone.seen(decode(found)?);
                    if query.wants(&operation) {
                        page.operations.push(operation);
                    }
                }
                if page.operations.len() >= query.limit || looked_at >= Query::ROWS_MAX {
                    page.next = Some(before.0.sequence());
                    return Ok(page);
                }
            }
            if (rows.len() as i64) < PAGE {
                return Ok(page);
            }
        }
    }
}

impl Store for PostgresStore {
    fn remember(&self, birth: Birth) -> Reply<'_, Remembered> {
        Box::pin(async move {
            // While the server is away new work is refused, and what was begun goes on.
            if self.queue.away.load(Ordering::Relaxed) {
                self.links.query("SELECT 1", &[]).await?;
            }
            self.ask(|answer| Job::Remember(Box::new(birth), answer)).await
        })
    }

    fn commit(&self, write: Write) -> Reply<'_, Operation> {
        Box::pin(self.ask(|answer| Job::commit(write, answer)))
    }

    fn find(&self, which: Which) -> Reply<'_, Option<Operation>> {
        Box::pin(async move {
            let rows = match which {
                Which::Id(id) => {
                    self.links.query("SELECT row FROM op WHERE id = $1", &[&Id(id)]).await?
                }
                Which::Key(key) => {
                    let sql =
                        "SELECT o.row FROM key k JOIN op o ON o.id = k.op WHERE k.digest = $1";
                    self.links.query(sql, &[&&key.0[..]]).await?
                }
            };
            let found = rows.first().map(decode).transpose()?;
            Ok(found.map(|operation| self.queue.gone.seen(operation)))
        })
    }

    fn recall(&self, _: KeyDigest) -> Option<Operation> {
        // Nothing is kept here, and asking is not for now.
        None
    }

    fn body(&self, body: BodyRef) -> Reply<'_, Bytes> {
        Box::pin(async move {
            let rows = self
                .links
                .query(
                    "SELECT bytes FROM body WHERE day = $1 AND n = $2",
                    &[&(body.segment as i32), &i64::from(body.offset)],
                )
                .await?;
            let damaged = || StoreError::Damaged("a body is not what was written".to_owned());
            let Some(found) = rows.first() else {
                // It may have gone with its day a moment ago.
                let link = self.links.any().await?;
                self.queue.gone.learn(&link).await.map_err(|error| meaning(&error))?;
                return Err(if self.queue.gone.has(body) {
                    StoreError::Away("it was forgotten meanwhile".to_owned())
                } else {
                    damaged()
                });
            };
            let bytes: Vec<u8> = found.get(0);
            if crc32fast::hash(&bytes) == body.crc { Ok(bytes.into()) } else { Err(damaged()) }
        })
    }

    fn lanes(&self) -> Reply<'_, Vec<(Lane, Timestamp)>> {
        Box::pin(async move {
            let rows = self
                .links
                .query(
                    "SELECT lane.tenant, lane.route, first.due FROM lane CROSS JOIN LATERAL \
                     (SELECT due FROM op WHERE kind = 0 AND lane = lane.id AND \
                     get_byte(row, 0) <= $1 ORDER BY due LIMIT 1) AS first",
                    &[&row::VERSION],
                )
                .await?;
            let lane = |found: &tokio_postgres::Row| {
                let lane = Lane { tenant: found.get(0), route: found.get(1) };
                (lane, Timestamp::from_micros(found.get(2)))
            };
            Ok(rows.iter().map(lane).collect())
        })
    }

    fn take(
        &self,
        lane: Lane,
        now: Timestamp,
        max: usize,
        judge: Judge,
    ) -> Reply<'_, Vec<Operation>> {
        Box::pin(async move {
            let link = self.links.any().await?;
            let number = self.lanes.number(&link, &lane).await.map_err(|error| meaning(&error))?;
            let address = self.address.clone();
            self.alone(move |link| take(link, address, number, now, max, judge)).await
        })
    }

    fn beat(&self, session: Session, max: usize) -> Reply<'_, Vec<Operation>> {
        Box::pin(async move {
            let lease = LEASE.as_secs_f64();
            // Whoever finds its own right lapsed and not taken was away together with the server:
            // those who had theirs until then have a lease to come back too.
            self.links
                .query(
                    "WITH mine AS (SELECT lapses_at FROM session WHERE id = $1), \
                     granted AS (UPDATE session SET lapses_at = now() + make_interval(secs => $2) \
                     FROM mine WHERE mine.lapses_at < now() AND session.id <> $1 AND \
                     session.lapses_at > mine.lapses_at - make_interval(secs => $2)) \
                     INSERT INTO session VALUES ($1, now() + make_interval(secs => $2)) \
                     ON CONFLICT (id) DO UPDATE SET lapses_at = EXCLUDED.lapses_at",
                    &[&(session.0 as i64), &lease],
                )
                .await?;
            self.links.query("DELETE FROM session WHERE lapses_at < now()", &[]).await?;
            let rows = self
                .links
                .query(
                    "SELECT row FROM op WHERE kind IN (1, 6) AND NOT EXISTS \
                     (SELECT FROM session WHERE session.id = op.owner) AND \
                     get_byte(row, 0) <= $2 ORDER BY id LIMIT $1",
                    &[&(max as i64), &row::VERSION],
                )
                .await?;
            rows.iter().map(decode).collect()
        })
    }

    fn list(&self, query: Query) -> Reply<'_, Page> {
        Box::pin(async move { self.list_page(&query).await })
    }

    fn note_asked(&self, asked: Vec<(OperationId, Asked)>) -> Reply<'_, ()> {
        Box::pin(async move {
            for (id, asked) in asked {
                let times: Vec<i64> = asked.times.iter().map(|at| at.as_micros()).collect();
                self.links
                    .query(
                        "INSERT INTO asked VALUES ($1, $2, $3) ON CONFLICT (op) DO UPDATE SET \
                         count = asked.count + EXCLUDED.count, times = (asked.times || \
                         EXCLUDED.times)[greatest(1, cardinality(asked.times) + \
                         cardinality(EXCLUDED.times) - $4 + 1):]",
                        &[&Id(id), &(asked.count as i64), &times, &(Asked::TIMES_MAX as i32)],
                    )
                    .await?;
            }
            Ok(())
        })
    }

    fn asked(&self, id: OperationId) -> Reply<'_, Asked> {
        Box::pin(async move {
            let rows = self
                .links
                .query("SELECT count, times FROM asked WHERE op = $1", &[&Id(id)])
                .await?;
            let Some(found) = rows.first() else { return Ok(Asked::default()) };
            let times: Vec<i64> = found.get(1);
            Ok(Asked {
                count: found.get::<_, i64>(0) as u64,
                times: times.into_iter().map(Timestamp::from_micros).collect(),
            })
        })
    }

    fn sweep(&self, now: Timestamp, from: u64, max: usize) -> Reply<'_, Swept> {
        let queue = Arc::clone(&self.queue);
        Box::pin(self.alone(move |link| sweep(link, queue, now, from, max)))
    }

    fn setting(&self, name: String) -> Reply<'_, Option<Bytes>> {
        Box::pin(async move {
            let rows =
                self.links.query("SELECT value FROM setting WHERE name = $1", &[&name]).await?;
            Ok(rows.first().map(|found| found.get::<_, Vec<u8>>(0).into()))
        })
    }

    fn settings(&self, prefix: String) -> Reply<'_, Vec<(String, Bytes)>> {
        Box::pin(async move {
            let rows = self
                .links
                .query(
                    "SELECT name, value FROM setting WHERE starts_with(name, $1) ORDER BY name",
                    &[&prefix],
                )
                .await?;
            Ok(rows.iter().map(|found| (found.get(0), found.get::<_, Vec<u8>>(1).into())).collect())
        })
    }

    fn set(&self, name: String, value: Option<Bytes>) -> Reply<'_, ()> {
        Box::pin(async move {
            match value {
                Some(value) => {
                    self.links
                        .query(
                            "INSERT INTO setting VALUES ($1, $2) \
                             ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value",
                            &[&name, &&value[..]],
                        )
                        .await?
                }
                None => self.links.query("DELETE FROM setting WHERE name = $1", &[&name]).await?,
            };
            Ok(())
        })
    }

    fn condition(&self) -> Reply<'_, Condition> {
        Box::pin(async move {
            let rows = self
                .links
                .query(
                    "SELECT kind, count(*) FROM op WHERE kind IN (1, 2, 4, 5, 6) GROUP BY kind \
                     UNION ALL SELECT 0::smallint, count(*) FROM op WHERE kind = 0",
                    &[],
                )
                .await?;
            let counts: BTreeMap<i16, i64> =
                rows.iter().map(|found| (found.get(0), found.get(1))).collect();
            let open = Standing::ALL
                .into_iter()
                .filter(|standing| !matches!(standing, Standing::Done | Standing::Tombstone));
            let count = |standing| counts.get(&i16::from(kind(standing))).copied().unwrap_or(0);
            let size = self.links.query("SELECT pg_database_size(current_database())", &[]).await?
                [0]
            .get::<_, i64>(0);
            Ok(Condition {
                counts: open.map(|standing| (standing, count(standing) as u64)).collect(),
                bytes: size as u64,
                commits: self.queue.commits.load(Ordering::Relaxed),
            })
        })
    }

    fn backup<'a>(&'a self, _: &'a Path) -> Reply<'a, ()> {
        let why = "a ledger in PostgreSQL is backed up with PostgreSQL's own tools";
        Box::pin(std::future::ready(Err(StoreError::Full(why.to_owned()))))
    }

    fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.queue.changed)
    }

    fn newest(&self) -> u64 {
        self.newest
    }

    fn is_shared(&self) -> bool {
        true
    }
}
