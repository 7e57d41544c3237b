//! The shared store: PostgreSQL, for any number of nodes. Each node groups what it writes; fences
//! and unique keys decide between nodes; the server's clock decides leases.
//!
//! A server that is away is no reason to stop: what was on its way is written again until it is
//! known, and new work is refused meanwhile.

mod batch;
mod days;
mod hints;
mod intake;
mod lanes;
pub(crate) mod link;
mod list;
mod numbers;
#[cfg(test)]
mod plans;
mod queue;
mod schema;
mod session;
mod settings;
mod sweep;
mod take;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use onceward_core::attempt::BodyRef;
use onceward_core::id::OperationId;
use onceward_core::key::KeyDigest;
use onceward_core::lease::Session;
use onceward_core::operation::Operation;
use onceward_core::time::Timestamp;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;

use self::days::day_of;
pub(super) use self::intake::Intake;
use self::lanes::Lanes;
use self::link::{Address, Id, Link, Links, Spare, meaning};
use self::queue::{Job, Queue};
pub use self::schema::Looked;
use self::sweep::Sweeper;
use self::writer::Writer;
use super::row;
use super::{
    Asked, Backlog, Birth, Condition, Counted, Judge, Lane, Page, Query, Remembered, Reply,
    Standing, Store, StoreError, Swept, ToldCommit, Way, Which, Write,
};
use crate::clock::{Clock, SystemClock};

/// Jobs that wait at most; past it, callers wait before they queue.
const QUEUE_MAX: usize = 8192;

/// Connections that write, each a batch at a time.
const WRITERS: usize = 2;

/// Connections that read and do the rest.
const READERS: usize = 3;

/// Keys asked for again that are noted at once.
const NOTED_MAX: usize = 500;

const FIND: &str = "SELECT row FROM op WHERE id = $1";

const FIND_KEY: &str = "SELECT o.row FROM key k JOIN op o ON o.id = k.op WHERE k.digest = $1";

const SCRUB_BODIES: &str = "DELETE FROM body USING UNNEST($1::integer[], $2::bigint[]) \
    AS gone (day, n) WHERE body.day = gone.day AND body.n = gone.n";

const SCRUB_MADE: &str = "DELETE FROM made WHERE op = ANY ($1::uuid[])";

const BODY: &str = "SELECT bytes FROM body WHERE day = $1 AND n = $2";

/// In the order of the ids, so that no two nodes wait for each other.
const NOTE_ASKED: &str = "\
    INSERT INTO asked SELECT id, count, times::bigint[] \
        FROM UNNEST($1::uuid[], $2::bigint[], $3::text[]) AS t(id, count, times) ORDER BY id \
    ON CONFLICT (op) DO UPDATE SET count = asked.count + EXCLUDED.count, \
        times = (asked.times || EXCLUDED.times)[greatest(1, cardinality(asked.times) + \
        cardinality(EXCLUDED.times) - $4 + 1):]";

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
    spare: Arc<Spare>,
    queue: Arc<Queue>,
    room: Arc<Semaphore>,
    lanes: Arc<Lanes>,
    sweeper: Sweeper,
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
        schema::migrate(&link).await?;
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
        tasks.push(tokio::spawn(hints::tell(address.clone(), Arc::clone(&queue))));
        tasks.push(tokio::spawn(hints::listen(address.clone(), Arc::clone(&queue))));
        Ok(Self {
            links: Links::new(address.clone(), READERS),
            spare: Arc::default(),
            address,
            queue,
            room: Arc::new(Semaphore::new(QUEUE_MAX)),
            lanes,
            sweeper: Sweeper::default(),
            newest,
            tasks,
        })
    }

    /// What the server at `options.url` says of itself and of the ledger on it; nothing is changed there.
    pub async fn look(options: &PostgresOptions) -> Result<Looked, StoreError> {
        schema::look(&Address::new(options)?.first().await?).await
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

    /// A transaction of several steps on a connection that nobody else has meanwhile, in a task of
    /// its own: a caller that goes away leaves none open.
    async fn alone<T, F, W>(&self, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send,
        W: FnOnce(Arc<Link>) -> F + Send + 'static,
    {
        let (address, spare) = (self.address.clone(), Arc::clone(&self.spare));
        let task = tokio::spawn(async move {
            let link = match spare.take() {
                Some(link) => link,
                None => Arc::new(address.open().await?),
            };
            let done = work(Arc::clone(&link)).await?;
            // What broke off goes with its connection.
            spare.put(link);
            Ok(done)
        });
        task.await.map_err(|error| StoreError::Away(error.to_string()))?
    }
}

impl Store for PostgresStore {
    fn remember(&self, birth: Birth) -> Reply<'_, Remembered> {
        Box::pin(async move {
            // While the server is away new work is refused, and what was begun goes on.
            if self.queue.away.load(Ordering::Relaxed) {
                self.links.query("SELECT 1", &[]).await?;
            }
            self.ask(|answer| Job::remember(birth, answer)).await
        })
    }

    fn commit(&self, write: Write) -> Reply<'_, Operation> {
        Box::pin(self.ask(|answer| Job::commit(write, answer)))
    }

    fn find(&self, which: Which) -> Reply<'_, Option<Operation>> {
        Box::pin(async move {
            let rows = match which {
                Which::Id(id) => self.links.query(FIND, &[&Id(id)]).await?,
                Which::Key(key) => self.links.query(FIND_KEY, &[&&key.0[..]]).await?,
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
            let place: [&(dyn ToSql + Sync); 2] = [&(body.segment as i32), &i64::from(body.offset)];
            let rows = self.links.query(BODY, &place).await?;
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
            let rows = self.links.query(take::LANES, &[&row::VERSION]).await?;
            let lane = |found: &tokio_postgres::Row| {
                let lane = Lane { tenant: found.get(0), route: found.get(1), flow: found.get(2) };
                (lane, Timestamp::from_micros(found.get(3)))
            };
            Ok(rows.iter().map(lane).collect())
        })
    }

    fn backlog(&self, lane: Lane, max: u64) -> Reply<'_, Backlog> {
        Box::pin(async move {
            let sql = "SELECT row FROM op WHERE kind = 0 AND lane IN \
                (SELECT id FROM lane WHERE tenant = $1 AND (route = $2 OR $2 = '')) LIMIT $3";
            let max = i64::try_from(max).unwrap_or(i64::MAX);
            let mut backlog = Backlog::default();
            for found in self.links.query(sql, &[&lane.tenant, &lane.route, &max]).await? {
                backlog.add(&row::decode(found.get(0))?);
            }
            Ok(backlog)
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
            self.alone(move |link| take::take(link, address, number, now, max, judge)).await
        })
    }

    fn beat(&self, session: Session, max: usize) -> Reply<'_, Vec<Operation>> {
        Box::pin(session::beat(&self.links, session, max))
    }

    fn nodes(&self) -> Reply<'_, u32> {
        Box::pin(async move {
            let sql = "SELECT count(*) FROM session WHERE lapses_at > now()";
            let rows = self.links.query(sql, &[]).await?;
            let alive: i64 = rows.first().map_or(1, |row| row.get(0));
            Ok(u32::try_from(alive).unwrap_or(u32::MAX).max(1))
        })
    }

    fn list(&self, query: Query) -> Reply<'_, Page> {
        Box::pin(async move { list::page(&self.links, &self.queue.gone, &query).await })
    }

    fn note_asked(&self, asked: Vec<(OperationId, Asked)>) -> Reply<'_, ()> {
        Box::pin(async move {
            for asked in asked.chunks(NOTED_MAX) {
                let ids: Vec<Id> = asked.iter().map(|(id, _)| Id(*id)).collect();
                let counts: Vec<i64> = asked.iter().map(|(_, asked)| asked.count as i64).collect();
                let times: Vec<String> =
                    asked.iter().map(|(_, asked)| intake::array(&asked.times)).collect();
                let max = Asked::TIMES_MAX as i32;
                self.links.query(NOTE_ASKED, &[&ids, &counts, &times, &max]).await?;
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
        Box::pin(async move {
            if !self.sweeper.begins(&self.links).await? {
                let link = self.links.any().await?;
                self.queue.gone.learn(&link).await.map_err(|error| meaning(&error))?;
                return Ok(Swept::default());
            }
            let queue = Arc::clone(&self.queue);
            let swept = self.alone(move |link| sweep::step(link, queue, now, from, max)).await?;
            if swept.next.is_none() {
                self.sweeper.rests(&self.links).await?;
            }
            Ok(swept)
        })
    }

    fn setting(&self, name: String) -> Reply<'_, Option<Bytes>> {
        Box::pin(async move { settings::one(&self.links, &name).await })
    }

    fn settings_from(
        &self,
        prefix: String,
        from: Option<String>,
        way: Way,
        max: usize,
    ) -> Reply<'_, Vec<(String, Bytes)>> {
        Box::pin(async move { settings::page(&self.links, prefix, from, way, max).await })
    }

    fn set(&self, name: String, value: Option<Bytes>) -> Reply<'_, ()> {
        Box::pin(async move { settings::set(&self.links, &name, value).await })
    }

    fn offer(&self, name: String, value: Bytes) -> Reply<'_, Bytes> {
        Box::pin(async move { settings::offer(&self.links, &name, &value).await })
    }

    fn swap(&self, name: String, expected: Option<Bytes>, value: Option<Bytes>) -> Reply<'_, bool> {
        Box::pin(async move { settings::swap(&self.links, &name, expected, value).await })
    }

    fn scrub(&self, erased: Vec<(OperationId, Vec<BodyRef>)>) -> Reply<'_, ()> {
        Box::pin(async move {
            let bodies = erased.iter().flat_map(|(_, bodies)| bodies);
            let (days, places): (Vec<i32>, Vec<i64>) =
                bodies.map(|body| (body.segment as i32, i64::from(body.offset))).unzip();
            self.links.query(SCRUB_BODIES, &[&days, &places]).await?;
            let ids: Vec<Id> = erased.iter().map(|(id, _)| Id(*id)).collect();
            self.links.query(SCRUB_MADE, &[&ids]).await?;
            Ok(())
        })
    }

    fn condition(&self) -> Reply<'_, Condition> {
        Box::pin(async move {
            let counts = self.count_open(None, u64::MAX).await?;
            let size = self.links.query("SELECT pg_database_size(current_database())", &[]).await?
                [0]
            .get::<_, i64>(0);
            Ok(Condition {
                counts: counts
                    .into_iter()
                    .map(|(standing, counted)| (standing, counted.count))
                    .collect(),
                bytes: size as u64,
                commits: self.queue.commits.count(),
            })
        })
    }

    fn tell_commits(&self, told: ToldCommit) {
        self.queue.commits.tell(told);
    }

    fn count_open(&self, tenant: Option<String>, max: u64) -> Reply<'_, Vec<(Standing, Counted)>> {
        Box::pin(async move { list::count_open(&self.links, tenant, max).await })
    }

    fn oldest_in_doubt(&self, tenant: Option<String>) -> Reply<'_, Option<Operation>> {
        Box::pin(async move { list::oldest_in_doubt(&self.links, &self.queue.gone, tenant).await })
    }

    fn backup<'a>(&'a self, _: &'a Path) -> Reply<'a, ()> {
        let why = "a ledger in PostgreSQL is backed up with PostgreSQL's own tools";
        Box::pin(std::future::ready(Err(StoreError::Full(why.to_owned()))))
    }

    fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.queue.changed)
    }

    fn settings_changed(&self) -> Arc<Notify> {
        Arc::clone(&self.queue.settings)
    }

    fn newest(&self) -> u64 {
        self.newest
    }

    fn is_shared(&self) -> bool {
        true
    }
}
