//! Writers: whatever queued while one was away with the last batch goes into its next. A batch is
//! a few statements with arrays, sent together: one way there and back, one commit.
//!
//! A batch whose connection breaks may have been written or not. It is written again, which finds
//! what is there: nothing is answered before it is known.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use onceward_core::admission::{bodies_over_at, leaves_no_tombstone};
use onceward_core::attempt::BodyRef;
use onceward_core::id::OperationId;
use onceward_core::key::KeyDigest;
use onceward_core::operation::{Fence, Operation, State};
use onceward_core::time::Timestamp;
use tokio::sync::{Notify, oneshot};
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::types::ToSql;

use super::days::{Gone, day_of};
use super::lanes::Lanes;
use super::link::{Address, Id, Link, meaning, pause};
use super::read;
use crate::sabotage::Sabotage;
use crate::store::row::{self, kind};
use crate::store::{Birth, Lane, Remembered, Standing, StoreError, Write, digest_of};

/// Jobs of one batch, at most: small enough that its callers do not wait for each other for long.
const BATCH_MAX: usize = 256;

/// Bytes of bodies in one batch, beyond which it is closed.
const BATCH_BYTES: usize = 4 << 20;

/// Between two tries of a batch whose connection broke.
pub(super) const RETRY: Duration = Duration::from_millis(200);

/// How long a batch may take: longer than the server lets a statement take, so that it is the one to
/// say so, where it says anything at all.
const BATCH_TIMEOUT: Duration = Duration::from_secs(35);

/// How long a few jobs wait for more while others are being written: a batch costs the server as much
/// as a dozen rows do. Beyond this the one in hand is slow, and nobody waits behind it.
const COMPANY: Duration = Duration::from_millis(5);

/// Before a batch is written again of which something is not known.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Arrays of every length have the same plan: to make one takes longer than to write a batch.
pub(super) const PLAN_ONCE: &str = "SET plan_cache_mode = force_generic_plan";

/// `IS TRUE` keeps the looks into `won` a hash table, where a join would be a loop in a loop.
pub(super) const REMEMBER: &str = "\
    WITH new AS (SELECT * FROM UNNEST($1::bytea[], $2::uuid[], $3::bigint[], $4::smallint[], \
        $5::integer[], $6::bigint[], $7::bigint[], $8::bytea[], $9::integer[], $10::bigint[], \
        $11::bytea[]) AS t(digest, id, fence, kind, lane, due, owner, row, day, n, bytes)), \
    won AS (INSERT INTO key (digest, op) SELECT digest, id FROM new ORDER BY digest \
        ON CONFLICT (digest) DO UPDATE SET op = EXCLUDED.op WHERE key.op < $12 AND \
        NOT EXISTS (SELECT FROM op_rest WHERE op_rest.id = key.op) RETURNING op), \
    ops AS (INSERT INTO op (id, fence, kind, lane, due, owner, row) \
        SELECT id, fence, kind, lane, due, owner, row FROM new \
        WHERE (id IN (SELECT op FROM won)) IS TRUE), \
    bodies AS (INSERT INTO body (day, n, bytes) SELECT day, n, bytes FROM new \
        WHERE (id IN (SELECT op FROM won)) IS TRUE) \
    SELECT op FROM won";

/// The bounds of the ids say before anything is read which days are concerned.
pub(super) const COMMIT: &str = "\
    WITH new AS (SELECT * FROM UNNEST($1::uuid[], $2::bigint[], $3::smallint[], $4::bigint[], \
        $5::bigint[], $6::bytea[], $7::integer[], $8::bigint[], $9::bytea[], $10::bigint[], \
        $11::bigint[]) AS t(id, fence, kind, due, owner, row, day, n, bytes, expires, gone)), \
    done AS (UPDATE op SET fence = new.fence, kind = new.kind, due = new.due, owner = new.owner, \
        row = new.row, expires = new.expires, gone = new.gone FROM new \
        WHERE op.id = new.id AND op.id BETWEEN $12 AND $13 AND op.fence = new.fence - 1 \
        AND op.has_key RETURNING op.id, new.day, new.n, new.bytes), \
    bodies AS (INSERT INTO body (day, n, bytes) SELECT day, n, bytes FROM done \
        WHERE bytes IS NOT NULL) \
    SELECT id FROM done";

/// Rows of an array lead to one partition each, where a whole array leads to all of them; here and
/// below.
pub(super) const KNOWN: &str = "SELECT k.digest, o.row FROM UNNEST($1::bytea[]) AS t(digest) \
    JOIN key k ON k.digest = t.digest JOIN op o ON o.id = k.op";

/// What a lost try wrote can be read before a standby has it, where the server ended meanwhile: a
/// commit after it is answered only when all before it is safe.
const CONFIRM: &str = "INSERT INTO setting VALUES ('confirmed', '') \
    ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value";

pub(super) const STORED: &str =
    "SELECT op.id, op.row FROM UNNEST($1::uuid[]) AS t(id) JOIN op ON op.id = t.id";

/// Lets a key in whether or not it is there.
const UNLOCK: &str = "DELETE FROM key WHERE digest = ANY($1)";

/// Makes every fence the one that a change wants.
const UNFENCE: &str = "UPDATE op SET fence = t.fence - 1 \
    FROM UNNEST($1::uuid[], $2::bigint[]) AS t(id, fence) WHERE op.id = t.id";

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// What a writer is asked for.
pub(super) enum Job {
    Remember(Box<Birth>, Answer<Remembered>),
    Commit(Box<Change>, Answer<Operation>),
}

/// A change and what is known of it.
pub(super) struct Change {
    write: Write,
    /// Where its body is put, once that has a number.
    place: Option<BodyRef>,
    /// Whether a try of it may have been written.
    tried: bool,
}

impl Job {
    pub(super) fn commit(write: Write, answer: Answer<Operation>) -> Self {
        Self::Commit(Box::new(Change { write, place: None, tried: false }), answer)
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Remember(birth, _) => birth.request.len(),
            Self::Commit(change, _) => {
                change.write.answer.as_ref().map_or(0, |(_, bytes)| bytes.len())
            }
        }
    }

    /// What no other job of its batch may touch.
    fn subject(&self) -> (Id, Option<KeyDigest>) {
        match self {
            Self::Remember(birth, _) => {
                let operation = &birth.operation;
                (Id(operation.id), Some(digest_of(operation)))
            }
            Self::Commit(change, _) => (Id(change.write.operation.id), None),
        }
    }

    fn takes_over(&self) -> bool {
        matches!(self, Self::Remember(birth, _) if birth.replaces.is_some())
    }

    /// Has its body numbered anew.
    fn forget_number(&mut self) {
        match self {
            Self::Remember(birth, _) => birth.operation.request = None,
            Self::Commit(change, _) => change.place = None,
        }
    }

    fn fail(self, error: &StoreError) {
        // A caller that went away needs no answer.
        match self {
            Self::Remember(_, answer) => drop(answer.send(Err(error.clone()))),
            Self::Commit(_, answer) => drop(answer.send(Err(error.clone()))),
        }
    }
}

/// What the writers share with the store's front.
#[derive(Default)]
pub(super) struct Queue {
    jobs: Mutex<VecDeque<Job>>,
    wake: Notify,
    /// Jobs that are being written.
    in_hand: AtomicUsize,
    /// Batches that were taken.
    taken: AtomicUsize,
    /// What is gone with its day.
    pub(super) gone: Gone,
    /// Whether the server was away when it was last asked.
    pub(super) away: AtomicBool,
    pub(super) commits: AtomicU64,
    /// Woken where accepted work was written.
    pub(super) changed: Arc<Notify>,
    /// Woken where a setting may have changed.
    pub(super) settings: Arc<Notify>,
    /// Woken where others have to hear of work.
    pub(super) tell: Notify,
}

impl Queue {
    pub(super) fn push(&self, job: Job) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).push_back(job);
        self.wake.notify_one();
    }

    /// The next batch: no two of its jobs touch the same operation or key. It is large, or else there
    /// is nothing that it could wait for.
    async fn batch(&self) -> Vec<Job> {
        let (mut is_late, mut taken) = (false, 0);
        let mut company = std::pin::pin!(pause(COMPANY));
        loop {
            let woken = self.wake.notified();
            let (batch, left) = self.take(is_late);
            if !batch.is_empty() {
                if left > 0 {
                    self.wake.notify_one();
                }
                return batch;
            }
            if left == 0 {
                woken.await;
                (is_late, taken) = (false, self.taken.load(Ordering::Relaxed));
                company.set(pause(COMPANY));
                continue;
            }
            tokio::select! {
                () = woken => {}
                () = &mut company => {
                    let before = std::mem::replace(&mut taken, self.taken.load(Ordering::Relaxed));
                    is_late = taken == before;
                    company.set(pause(COMPANY));
                }
            }
        }
    }

    /// Jobs for a batch, and how many are left. There are none for one while more are in hand than
    /// wait, unless that `is_late`.
    fn take(&self, is_late: bool) -> (Vec<Job>, usize) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_late && jobs.len() < self.in_hand.load(Ordering::Relaxed) {
            return (Vec::new(), jobs.len());
        }
        let (mut batch, mut left) = (Vec::new(), VecDeque::new());
        let (mut ids, mut keys, mut bytes) = (HashSet::new(), HashSet::new(), 0);
        while let Some(job) = jobs.pop_front() {
            // What takes a key over is a transaction of its own.
            if job.takes_over() && !batch.is_empty() {
                left.push_back(job);
                break;
            }
            let is_alone = job.takes_over();
            let (id, key) = job.subject();
            let is_free = ids.insert(id) && key.is_none_or(|key| keys.insert(key.0));
            if is_free {
                bytes += job.bytes();
                batch.push(job);
            } else {
                left.push_back(job);
            }
            if is_alone || batch.len() == BATCH_MAX || bytes > BATCH_BYTES {
                break;
            }
        }
        left.append(&mut jobs);
        *jobs = left;
        self.in_hand.fetch_add(batch.len(), Ordering::Relaxed);
        self.taken.fetch_add(usize::from(!batch.is_empty()), Ordering::Relaxed);
        (batch, jobs.len())
    }

    /// Of a batch that was taken all is known.
    fn is_written(&self, jobs: usize) {
        self.in_hand.fetch_sub(jobs, Ordering::Relaxed);
        self.wake.notify_one();
    }
}

/// A block of numbers for bodies.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    next: u32,
    left: u32,
}

impl Numbers {
    async fn next(&mut self, link: &Link) -> Result<u32, tokio_postgres::Error> {
        if self.left == 0 {
            let rows = link.query("SELECT nextval('body_block')", &[]).await?;
            let block: i64 = rows[0].get(0);
            (self.next, self.left) = ((block as u32) << 12, 4096);
        }
        self.left -= 1;
        let number = self.next;
        // Past the last number of the last block there is none, and none is asked for.
        self.next = number.wrapping_add(1);
        Ok(number)
    }

    /// Where `bytes` are put on `day`.
    pub(super) async fn place(
        &mut self,
        link: &Link,
        day: i32,
        bytes: &bytes::Bytes,
    ) -> Result<BodyRef, tokio_postgres::Error> {
        Ok(BodyRef {
            segment: day as u32,
            offset: self.next(link).await?,
            length: bytes.len() as u32,
            crc: crc32fast::hash(bytes),
        })
    }
}

/// One writer and its connection.
pub(super) struct Writer {
    address: Address,
    queue: Arc<Queue>,
    lanes: Arc<Lanes>,
    link: Option<Link>,
    /// Whether the batch in hand may have been written by a try before this one.
    is_unsure: bool,
    numbers: Numbers,
    today: Arc<dyn Fn() -> i32 + Send + Sync>,
}

/// The columns of new operations or of changed ones, one array each.
#[derive(Default)]
pub(super) struct Columns {
    pub(super) digests: Vec<Vec<u8>>,
    pub(super) ids: Vec<Id>,
    pub(super) fences: Vec<i64>,
    pub(super) kinds: Vec<i16>,
    pub(super) lanes: Vec<i32>,
    pub(super) dues: Vec<Option<i64>>,
    pub(super) owners: Vec<Option<i64>>,
    pub(super) rows: Vec<Vec<u8>>,
    days: Vec<Option<i32>>,
    ns: Vec<Option<i64>>,
    bytes: Vec<Option<bytes::Bytes>>,
    pub(super) expires: Vec<Option<i64>>,
    pub(super) gone: Vec<Option<i64>>,
}

impl Columns {
    pub(super) fn push(&mut self, operation: &Operation, body: Option<(BodyRef, bytes::Bytes)>) {
        let mut bytes = Vec::new();
        row::encode(operation, &mut bytes);
        self.ids.push(Id(operation.id));
        self.fences.push(operation.fence.0 as i64);
        self.kinds.push(i16::from(kind(Standing::of(operation))));
        self.dues.push(match operation.state {
            State::Pending { due } => Some(due.as_micros()),
            _ => None,
        });
        self.owners.push(operation.owner().map(|session| session.0 as i64));
        self.rows.push(bytes);
        let expires = operation.key_expires_at().filter(|_| operation.state.is_ended());
        let kept_after =
            if leaves_no_tombstone(operation) { Duration::ZERO } else { operation.tombstone };
        // When its bodies may go: its key may last longer.
        let bodies_over = bodies_over_at(operation).or(expires);
        self.expires.push(bodies_over.map(Timestamp::as_micros));
        self.gone.push(expires.map(|at| at.plus(kept_after).as_micros()));
        self.days.push(body.as_ref().map(|(body, _)| body.segment as i32));
        self.ns.push(body.as_ref().map(|(body, _)| i64::from(body.offset)));
        self.bytes.push(body.map(|(_, bytes)| bytes));
    }

    fn bodies(&self) -> Vec<Option<&[u8]>> {
        self.bytes.iter().map(|bytes| bytes.as_deref()).collect()
    }
}

/// Why a batch was not written.
enum Failure {
    /// Nothing of it was: the jobs get this.
    Refused(StoreError),
    /// The server was not reached: this try wrote nothing.
    Away(StoreError),
    /// Nothing of it was, for a number of a body that another body has.
    Taken,
    /// Nobody knows.
    Unknown,
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        let is_of_body = |said: &DbError| {
            *said.code() == SqlState::UNIQUE_VIOLATION
                && said.table().is_some_and(|table| table.starts_with("body_"))
        };
        if error.as_db_error().is_some_and(is_of_body) {
            return Self::Taken;
        }
        // A server that is read only has written nothing.
        let is_read_only = error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION);
        match meaning(&error) {
            error @ StoreError::Away(_) if is_read_only => Self::Away(error),
            StoreError::Away(_) if !Sabotage::LostReplyIsFailure.is_on() => Self::Unknown,
            error => Self::Refused(error),
        }
    }
}

impl Writer {
    pub(super) fn new(
        address: Address,
        queue: Arc<Queue>,
        lanes: Arc<Lanes>,
        now: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> Self {
        let today = Arc::new(move || day_of(now()));
        Self {
            address,
            queue,
            lanes,
            link: None,
            is_unsure: false,
            numbers: Numbers::default(),
            today,
        }
    }

    /// Writes batch after batch, for ever.
    pub(super) async fn run(mut self) {
        loop {
            let mut batch = self.queue.batch().await;
            let jobs = batch.len();
            while !batch.is_empty() {
                batch = self.write(batch).await;
            }
            self.queue.is_written(jobs);
        }
    }

    /// Writes a batch; tells what of it has to be written again.
    async fn write(&mut self, mut batch: Vec<Job>) -> Vec<Job> {
        match self.try_write(&mut batch).await {
            Ok(again) => {
                self.queue.away.store(false, Ordering::Relaxed);
                self.is_unsure &= !again.is_empty();
                again
            }
            // One that cannot be written must not take the others with it.
            Err(Failure::Refused(_) | Failure::Taken) if batch.len() > 1 => {
                let (mut again, was_unsure) = (Vec::new(), self.is_unsure);
                for job in batch {
                    self.is_unsure = was_unsure;
                    again.append(&mut Box::pin(self.write(vec![job])).await);
                }
                again
            }
            Err(Failure::Refused(error)) => {
                for job in batch {
                    job.fail(&error);
                }
                Vec::new()
            }
            Err(Failure::Taken) => {
                // No try before this one was written: it would have put no body in.
                batch.iter_mut().for_each(Job::forget_number);
                batch
            }
            Err(Failure::Away(error)) if !self.is_unsure => {
                self.queue.away.store(true, Ordering::Relaxed);
                for job in batch {
                    job.fail(&error);
                }
                Vec::new()
            }
            Err(Failure::Away(_) | Failure::Unknown) => {
                self.queue.away.store(true, Ordering::Relaxed);
                let was_unsure = std::mem::replace(&mut self.is_unsure, true);
                for job in &mut batch {
                    if let Job::Commit(change, _) = job {
                        change.tried = true;
                    }
                }
                // A connection that was cut is made anew at once; a server that is away is let be.
                if was_unsure {
                    pause(RETRY).await;
                }
                batch
            }
        }
    }

    /// Writes a batch, and answers what is known then; tells what has to be written again.
    async fn try_write(&mut self, batch: &mut Vec<Job>) -> Result<Vec<Job>, Failure> {
        let open = self.link.take().filter(|link| !link.client.is_closed());
        let link = if let Some(link) = open {
            link
        } else {
            let link = self.address.open().await.map_err(Failure::Away)?;
            // A server that came back, or one in its place, may give the rest of a block to others.
            self.numbers = Numbers::default();
            link.client.batch_execute(PLAN_ONCE).await?;
            link
        };
        let (mut born, mut changed) = (Columns::default(), Columns::default());
        let mut wakes = false;
        for job in batch.iter_mut() {
            // What was numbered before keeps its number: then it is seen whether it was written.
            match job {
                Job::Remember(birth, _) => {
                    let body = match birth.operation.request {
                        Some(body) => body,
                        None => self.numbers.place(&link, (self.today)(), &birth.request).await?,
                    };
                    birth.operation.request = Some(body);
                    let operation = &birth.operation;
                    wakes |= Standing::of(operation) == Standing::Pending;
                    born.digests.push(digest_of(operation).0.to_vec());
                    born.lanes.push(self.lanes.number(&link, &Lane::of(operation)).await?);
                    born.push(operation, Some((body, birth.request.clone())));
                }
                Job::Commit(change, _) => {
                    let Change { write, place, .. } = &mut **change;
                    let mut body = None;
                    if let Some((slot, bytes)) = &write.answer {
                        let numbered = match *place {
                            Some(numbered) => numbered,
                            None => self.numbers.place(&link, (self.today)(), bytes).await?,
                        };
                        *place = Some(numbered);
                        slot.fill(&mut write.operation, numbered);
                        body = Some((numbered, bytes.clone()));
                    }
                    wakes |= Standing::of(&write.operation) == Standing::Pending;
                    changed.push(&write.operation, body);
                }
            }
        }
        let gone = &self.queue.gone;
        let written = in_time(async {
            let written = match batch.first() {
                Some(Job::Remember(birth, _)) if birth.replaces.is_some() => {
                    take_over(&link, birth, &born, gone).await?
                }
                _ => exchange(&link, &born, &changed, gone).await?,
            };
            if self.is_unsure {
                link.query(CONFIRM, &[]).await?;
            }
            Ok(written)
        });
        let written = written.await?;
        let again = answer(&link, std::mem::take(batch), &born, &changed, &written, gone).await;
        if !again.is_empty() {
            // A key may be that of an operation whose day is gone. What is not learnt now is learnt
            // with the next try: the jobs must not go with an error.
            let _ = in_time(async { Ok(gone.learn(&link).await?) }).await;
            pause(LOOK_AGAIN).await;
        }
        self.queue.commits.fetch_add(1, Ordering::Relaxed);
        if wakes {
            self.queue.changed.notify_one();
            self.queue.tell.notify_one();
        }
        self.link = Some(link);
        Ok(again)
    }
}

/// A server that does not answer in time is taken for one that is away.
async fn in_time<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(BATCH_TIMEOUT, work).await.unwrap_or(Err(Failure::Unknown))
}

/// Changes operations in the transaction that is open; tells which.
pub(super) async fn change(
    link: &Link,
    operations: &[Operation],
) -> Result<HashSet<OperationId>, tokio_postgres::Error> {
    let mut changed = Columns::default();
    for operation in operations {
        changed.push(operation, None);
    }
    let done = put_changed(link, &changed).await?;
    Ok(done.iter().map(|found| found.get::<_, Id>(0).0).collect())
}

/// Leaves of operations only their marks, whether they have their keys or not; tells how many.
pub(super) async fn mark(link: &Link, marks: &[Operation]) -> Result<u64, tokio_postgres::Error> {
    let mut changed = Columns::default();
    for operation in marks {
        changed.push(operation, None);
    }
    let Columns { ids, fences, kinds, rows, .. } = &changed;
    let done = link
        .query(
            "UPDATE op SET fence = t.fence, kind = t.kind, row = t.row FROM \
             UNNEST($1::uuid[], $2::bigint[], $3::smallint[], $4::bytea[]) AS t(id, fence, kind, row) \
             WHERE op.id = t.id AND op.fence = t.fence - 1 RETURNING op.id",
            &[ids, fences, kinds, rows],
        )
        .await?;
    Ok(done.len() as u64)
}

/// Which operations a batch put in or changed.
#[derive(Default)]
struct Written {
    won: HashSet<Id>,
    done: HashSet<Id>,
    /// The old owner of a key had moved on.
    stale: bool,
}

fn ids(rows: &[tokio_postgres::Row]) -> HashSet<Id> {
    rows.iter().map(|row| row.get(0)).collect()
}

async fn put_born(
    link: &Link,
    born: &Columns,
    gone: &Gone,
) -> Result<Vec<tokio_postgres::Row>, tokio_postgres::Error> {
    if born.ids.is_empty() {
        return Ok(Vec::new());
    }
    let Columns { digests, ids, fences, kinds, lanes, dues, owners, rows, days, ns, .. } = born;
    let oldest = Id(gone.oldest());
    if Sabotage::SelectThenInsert.is_on() && link.query(KNOWN, &[digests]).await?.is_empty() {
        // Each takes its time, so that one comes after the other.
        pause(RETRY + LOOK_AGAIN * (ids[0].0.sequence() % 64) as u32).await;
        link.query(UNLOCK, &[digests]).await?;
    }
    let with: [&(dyn ToSql + Sync); 12] =
        [digests, ids, fences, kinds, lanes, dues, owners, rows, days, ns, &born.bodies(), &oldest];
    link.query(REMEMBER, &with).await
}

async fn put_changed(
    link: &Link,
    changed: &Columns,
) -> Result<Vec<tokio_postgres::Row>, tokio_postgres::Error> {
    let Columns { ids, fences, kinds, dues, owners, rows, days, ns, expires, gone, .. } = changed;
    let in_order = |id: &&Id| id.0;
    let (Some(first), Some(last)) =
        (ids.iter().min_by_key(in_order), ids.iter().max_by_key(in_order))
    else {
        return Ok(Vec::new());
    };
    if Sabotage::NoFence.is_on() {
        link.query(UNFENCE, &[ids, fences]).await?;
    }
    let bodies = changed.bodies();
    let with: [&(dyn ToSql + Sync); 13] =
        [ids, fences, kinds, dues, owners, rows, days, ns, &bodies, expires, gone, first, last];
    link.query(COMMIT, &with).await
}

/// Sends a batch: all of it in one transaction, and without waiting between its statements.
async fn exchange(
    link: &Link,
    born: &Columns,
    changed: &Columns,
    gone: &Gone,
) -> Result<Written, Failure> {
    let is_one = born.ids.is_empty() || changed.ids.is_empty();
    let (won, done) = if is_one {
        // A statement is a transaction by itself.
        (put_born(link, born, gone).await?, put_changed(link, changed).await?)
    } else {
        link.prepare(REMEMBER).await?;
        link.prepare(COMMIT).await?;
        let (begun, won, done, ended) = tokio::join!(
            biased;
            link.client.batch_execute("BEGIN"),
            put_born(link, born, gone),
            put_changed(link, changed),
            link.client.batch_execute("COMMIT"),
        );
        begun?;
        let (won, done) = (won?, done?);
        ended?;
        (won, done)
    };
    Ok(Written { won: ids(&won), done: ids(&done), stale: false })
}

/// Puts an operation in the place of the one that had its key: in one transaction that reads
/// before it writes, since the old row has to say that it moved on.
async fn take_over(
    link: &Link,
    birth: &Birth,
    born: &Columns,
    gone: &Gone,
) -> Result<Written, Failure> {
    let Some((old, fence)) = birth.replaces else { return Ok(Written::default()) };
    link.client.batch_execute("BEGIN").await?;
    let held = link
        .query(
            "SELECT row FROM op WHERE id = $1 AND fence = $2 AND has_key FOR UPDATE",
            &[&Id(old), &(fence.0 as i64)],
        )
        .await?;
    let Some(held) = held.first() else {
        link.client.batch_execute("ROLLBACK").await?;
        return Ok(Written { stale: true, ..Written::default() });
    };
    let mut before = read(held.get(0)).map_err(Failure::Refused)?;
    before.fence = Fence(fence.0 + 1);
    let mut bytes = Vec::new();
    row::encode(&before, &mut bytes);
    link.query(
        "UPDATE op SET fence = $2, row = $3, has_key = false WHERE id = $1",
        &[&Id(old), &(before.fence.0 as i64), &bytes],
    )
    .await?;
    let digest = &born.digests[0];
    link.query("DELETE FROM key WHERE digest = $1 AND op = $2", &[digest, &Id(old)]).await?;
    let won = put_born(link, born, gone).await?;
    link.client.batch_execute("COMMIT").await?;
    Ok(Written { won: ids(&won), ..Written::default() })
}

/// Answers every job of a batch that was written; tells those of which nothing is known yet.
async fn answer(
    link: &Link,
    batch: Vec<Job>,
    born: &Columns,
    changed: &Columns,
    written: &Written,
    gone: &Gone,
) -> Vec<Job> {
    let looked = in_time(async {
        let known = known(link, born, &written.won, gone).await?;
        Ok((known, stored(link, changed, &written.done).await?))
    });
    let looked = looked.await;
    let mut again = Vec::new();
    for job in batch {
        let (id, key) = job.subject();
        let is_written = written.won.contains(&id) || written.done.contains(&id);
        match (&looked, job) {
            (_, Job::Remember(birth, answer)) if is_written => {
                // A caller that went away needs no answer; here and below.
                let _ = answer.send(Ok(Remembered::Fresh(birth.operation)));
            }
            (_, Job::Commit(change, answer)) if is_written => {
                let _ = answer.send(Ok(change.write.operation));
            }
            (Err(Failure::Away(_) | Failure::Unknown | Failure::Taken), job) => again.push(job),
            (Err(Failure::Refused(error)), job) => job.fail(error),
            (Ok((known, _)), Job::Remember(birth, answer)) => {
                match key.and_then(|key| known.get(&key.0.to_vec())) {
                    // It was written by a try whose answer was lost, and nobody has judged it since.
                    Some(Ok(found)) if found.id == id.0 && found.fence == birth.operation.fence => {
                        let _ = answer.send(Ok(Remembered::Fresh(birth.operation)));
                    }
                    _ if written.stale => drop(answer.send(Err(StoreError::Stale))),
                    Some(found) => {
                        let _ = answer.send(found.clone().map(Remembered::Known));
                    }
                    // The one that had its key went meanwhile.
                    None => again.push(Job::Remember(birth, answer)),
                }
            }
            (Ok((_, stored)), Job::Commit(change, answer)) => {
                let mut bytes = Vec::new();
                row::encode(&change.write.operation, &mut bytes);
                let is_mine = change.tried && stored.get(&id) == Some(&bytes);
                let operation = is_mine.then_some(change.write.operation);
                let _ = answer.send(operation.ok_or(StoreError::Stale));
            }
        }
    }
    again
}

/// The operations that have the keys of those that did not win.
async fn known(
    link: &Link,
    born: &Columns,
    won: &HashSet<Id>,
    gone: &Gone,
) -> Result<HashMap<Vec<u8>, Result<Operation, StoreError>>, Failure> {
    let lost = born.ids.iter().zip(&born.digests).filter(|(id, _)| !won.contains(*id));
    let digests: Vec<&Vec<u8>> = lost.map(|(_, digest)| digest).collect();
    if digests.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = link.query(KNOWN, &[&digests]).await?;
    // One that cannot be read must not take the others with it.
    let seen = |found: &tokio_postgres::Row| Ok(gone.seen(read(found.get(1))?));
    Ok(rows.iter().map(|found| (found.get(0), seen(found))).collect())
}

/// The rows of those that were not changed, as they stand.
async fn stored(
    link: &Link,
    changed: &Columns,
    done: &HashSet<Id>,
) -> Result<HashMap<Id, Vec<u8>>, Failure> {
    let refused: Vec<Id> = changed.ids.iter().filter(|id| !done.contains(*id)).copied().collect();
    if refused.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = link.query(STORED, &[&refused]).await?;
    Ok(rows.iter().map(|found| (found.get(0), found.get(1))).collect())
}

#[cfg(test)]
mod tests {
    use onceward_core::policy::Mode;

    use super::*;
    use crate::store::contract::operation;

    fn push(queue: &Queue, numbers: std::ops::Range<u64>) {
        for n in numbers {
            let operation = operation(n, "key", "route", Mode::Held);
            let (answer, _) = oneshot::channel();
            queue.push(Job::commit(Write { operation, answer: None, visible: false }, answer));
        }
    }

    #[test]
    fn a_few_jobs_wait_while_more_are_in_hand_but_not_behind_a_slow_batch() {
        let queue = Queue::default();
        push(&queue, 1..4);
        let (first, left) = queue.take(false);
        assert_eq!((first.len(), left), (3, 0), "nothing is in hand: nothing to wait for");
        push(&queue, 4..6);
        let (few, left) = queue.take(false);
        assert_eq!((few.len(), left), (0, 2));
        push(&queue, 6..7);
        let (second, left) = queue.take(false);
        assert_eq!((second.len(), left), (3, 0), "as many wait as are in hand");
        push(&queue, 7..8);
        assert_eq!(queue.take(false).0.len(), 0);
        assert_eq!(queue.take(true).0.len(), 1);
        push(&queue, 8..9);
        for jobs in [3, 3, 1] {
            queue.is_written(jobs);
        }
        assert_eq!(queue.take(false).0.len(), 1);
    }
}
