//! Writers: whatever queued while one was away with the last batch goes into its next.
//!
//! A batch whose connection breaks may have been written or not. It is written again, which finds
//! what is there: nothing is answered before it is known.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use onceward_core::id::OperationId;
use onceward_core::key::KeyDigest;
use onceward_core::operation::Fence;
use onceward_core::time::Timestamp;
use tokio_postgres::error::{DbError, SqlState};

use super::batch::Batch;
use super::days::{Gone, day_of};
use super::lanes::Lanes;
use super::link::{Address, Id, Link, meaning, pause};
use super::numbers::Numbers;
use super::queue::{Change, Job, Queue};
use super::read;
use crate::sabotage::Sabotage;
use crate::store::row;
use crate::store::{Birth, Lane, Remembered, StoreError};

/// Between two tries of a batch whose connection broke.
pub(super) const RETRY: Duration = Duration::from_millis(200);

/// How long a batch may take: longer than the server lets a statement take, so that it is the one to
/// say so, where it says anything at all.
const BATCH_TIMEOUT: Duration = Duration::from_secs(35);

/// Before a batch is written again of which something is not known.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What a lost try wrote can be read before a standby has it, where the server ended meanwhile: a
/// commit after it is answered only when all before it is safe.
const CONFIRM: &str = "INSERT INTO setting VALUES ('confirmed', '') \
    ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value";

/// One writer and its connection.
pub(super) struct Writer {
    address: Address,
    queue: Arc<Queue>,
    lanes: Arc<Lanes>,
    link: Option<Link>,
    /// Whether the batch in hand may have been written by a try before this one.
    is_unsure: bool,
    /// Whether it could not have a connection for it.
    is_cut_off: bool,
    numbers: Numbers,
    today: Arc<dyn Fn() -> i32 + Send + Sync>,
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
            is_cut_off: false,
            numbers: Numbers::default(),
            today,
        }
    }

    /// Writes batch after batch, for ever.
    pub(super) async fn run(mut self) {
        loop {
            let mut jobs = self.queue.batch().await;
            (self.is_unsure, self.is_cut_off) = (false, false);
            let count = jobs.len();
            while !jobs.is_empty() {
                jobs = self.write(jobs).await;
            }
            self.queue.is_written(count);
            // Another may have one: what comes next is for that.
            if self.is_cut_off {
                pause(RETRY).await;
            }
        }
    }

    /// Writes a batch; tells what of it has to be written again.
    async fn write(&mut self, mut jobs: Vec<Job>) -> Vec<Job> {
        match self.try_write(&mut jobs).await {
            Ok(again) => {
                self.queue.away.store(false, Ordering::Relaxed);
                again
            }
            // One that cannot be written must not take the others with it.
            Err(Failure::Refused(_) | Failure::Taken) if jobs.len() > 1 => {
                let (was_unsure, mut is_unsure) = (self.is_unsure, false);
                let mut again = Vec::new();
                for job in jobs {
                    self.is_unsure = was_unsure;
                    let mut left = Box::pin(self.write(vec![job])).await;
                    // As unsure as any that is left.
                    is_unsure |= self.is_unsure && !left.is_empty();
                    again.append(&mut left);
                }
                self.is_unsure = is_unsure;
                again
            }
            Err(Failure::Refused(error)) => {
                for job in jobs {
                    job.fail(&error);
                }
                Vec::new()
            }
            Err(Failure::Taken) => {
                // No try before this one was written: it would have put no body in.
                jobs.iter_mut().for_each(Job::forget_number);
                jobs
            }
            Err(Failure::Away(error)) if !self.is_unsure => {
                self.is_cut_off = true;
                self.queue.away.store(true, Ordering::Relaxed);
                for job in jobs {
                    job.fail(&error);
                }
                Vec::new()
            }
            Err(Failure::Away(_) | Failure::Unknown) => {
                self.queue.away.store(true, Ordering::Relaxed);
                let was_unsure = std::mem::replace(&mut self.is_unsure, true);
                for job in &mut jobs {
                    if let Job::Commit(change, _) = job {
                        change.tried = true;
                    }
                }
                // A connection that was cut is made anew at once; a server that is away is let be.
                if was_unsure {
                    pause(RETRY).await;
                }
                jobs
            }
        }
    }

    /// Writes a batch, and answers what is known then; tells what has to be written again.
    async fn try_write(&mut self, jobs: &mut Vec<Job>) -> Result<Vec<Job>, Failure> {
        let link = self.link().await?;
        // In the order of the ids, so that no two nodes wait for each other.
        jobs.sort_unstable_by_key(Job::id);
        let batch = self.fill(&link, jobs).await?;
        let began = Instant::now();
        let written = in_time(async {
            let written = match jobs.first() {
                Some(Job::Remember(birth, digest, _)) if birth.replaces.is_some() => {
                    take_over(&link, birth, *digest, &batch).await?
                }
                _ => Some(batch.write(&link).await?),
            };
            if self.is_unsure {
                link.query(CONFIRM, &[]).await?;
            }
            Ok(written)
        });
        let written = written.await?;
        self.queue.commits.add(began);
        let wakes = jobs.iter().any(Job::is_pending);
        let gone = &self.queue.gone;
        let again = answer(&link, std::mem::take(jobs), &batch, written, gone).await;
        if !again.is_empty() {
            // A key may be that of an operation whose day is gone. What is not learnt now is learnt
            // with the next try: the jobs must not go with an error.
            let freed = in_time(async {
                gone.learn(&link).await?;
                Ok(batch.free_keys(&link, gone).await?)
            });
            let _ = freed.await;
            pause(LOOK_AGAIN).await;
        }
        if wakes {
            self.queue.changed.notify_one();
            self.queue.tell.notify_one();
        }
        self.link = Some(link);
        Ok(again)
    }

    /// The connection, opened where it is not. Whoever fails on it does not put it back.
    async fn link(&mut self) -> Result<Link, Failure> {
        if let Some(link) = self.link.take().filter(|link| !link.client.is_closed()) {
            return Ok(link);
        }
        let link = self.address.open().await.map_err(Failure::Away)?;
        // A server that came back, or one in its place, may give the rest of a block to others.
        self.numbers = Numbers::default();
        Ok(link)
    }

    /// What jobs write, their bodies numbered. What was numbered before keeps its number: then it is
    /// seen whether it was written.
    async fn fill(&mut self, link: &Link, jobs: &mut [Job]) -> Result<Batch, Failure> {
        let (mut batch, today) = (Batch::default(), (self.today)());
        for job in jobs {
            match job {
                Job::Remember(birth, digest, _) => {
                    let Birth { operation, request, .. } = &mut **birth;
                    let place = match operation.request {
                        Some(place) => place,
                        None => self.numbers.place(link, today, request).await?,
                    };
                    operation.request = Some(place);
                    let lane = self.lanes.number(link, &Lane::of(operation)).await?;
                    batch.remember(operation, *digest, lane);
                    batch.body(operation.id, place, request.clone());
                }
                Job::Commit(change, _) => {
                    let Change { write, place, over, .. } = &mut **change;
                    if let Some((slot, bytes)) = &write.answer {
                        let numbered = match *place {
                            Some(numbered) => numbered,
                            None => self.numbers.place(link, today, bytes).await?,
                        };
                        *place = Some(numbered);
                        slot.fill(&mut write.operation, numbered);
                        batch.body(write.operation.id, numbered, bytes.clone());
                        if let Some(old) = *over {
                            batch.put_over(write.operation.id, old);
                        }
                    }
                    batch.change(&write.operation);
                }
            }
        }
        Ok(batch)
    }
}

/// A server that does not answer in time is taken for one that is away.
async fn in_time<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(BATCH_TIMEOUT, work).await.unwrap_or(Err(Failure::Unknown))
}

const HELD: &str = "SELECT row FROM op WHERE id = $1 AND fence = $2 AND has_key FOR UPDATE";

const GIVE_UP: &str = "\
    WITH old AS (UPDATE op SET fence = $2, row = $3, has_key = false WHERE id = $1) \
    DELETE FROM key WHERE digest = $4 AND op = $1";

/// Puts an operation in the place of the one that had its key: in one transaction that reads
/// before it writes, since the old row has to say that it moved on. Nothing where it had moved on
/// before.
async fn take_over(
    link: &Link,
    birth: &Birth,
    digest: KeyDigest,
    batch: &Batch,
) -> Result<Option<HashSet<OperationId>>, Failure> {
    let Some((old, fence)) = birth.replaces else { return Ok(None) };
    let held = link.begin_with(HELD, &[&Id(old), &(fence.0 as i64)]).await?;
    let Some(held) = held.first() else {
        link.client.batch_execute("ROLLBACK").await?;
        return Ok(None);
    };
    let mut before = read(held.get(0)).map_err(Failure::Refused)?;
    before.fence = Fence(fence.0 + 1);
    let mut bytes = Vec::new();
    row::encode(&before, &mut bytes);
    link.query(GIVE_UP, &[&Id(old), &(before.fence.0 as i64), &bytes, &&digest.0[..]]).await?;
    let (written, committed) = batch.write_and_commit(link).await?;
    committed?;
    Ok(Some(written))
}

/// Answers every job of a batch that was written, or that came too late to take over; tells those of
/// which nothing is known yet.
async fn answer(
    link: &Link,
    jobs: Vec<Job>,
    batch: &Batch,
    written: Option<HashSet<OperationId>>,
    gone: &Gone,
) -> Vec<Job> {
    let (is_stale, written) = (written.is_none(), written.unwrap_or_default());
    let looked = in_time(async {
        let known = batch.known(link, &written, gone).await?;
        Ok((known, batch.stored(link, &written).await?))
    });
    let looked = looked.await;
    let mut again = Vec::new();
    for job in jobs {
        let id = job.id();
        match (&looked, job) {
            (_, Job::Remember(birth, _, answer)) if written.contains(&id) => {
                // A caller that went away needs no answer; here and below.
                let _ = answer.send(Ok(Remembered::Fresh(birth.operation)));
            }
            (_, Job::Commit(change, answer)) if written.contains(&id) => {
                let _ = answer.send(Ok(change.write.operation));
            }
            (Err(Failure::Away(_) | Failure::Unknown | Failure::Taken), job) => again.push(job),
            (Err(Failure::Refused(error)), job) => job.fail(error),
            (Ok((known, _)), Job::Remember(birth, digest, answer)) => match known.get(&digest) {
                // It was written by a try whose answer was lost, and nobody has judged it since.
                Some(Ok(found)) if found.id == id && found.fence == birth.operation.fence => {
                    let _ = answer.send(Ok(Remembered::Fresh(birth.operation)));
                }
                _ if is_stale => drop(answer.send(Err(StoreError::Stale))),
                Some(found) => {
                    let _ = answer.send(found.clone().map(Remembered::Known));
                }
                // The one that had its key went meanwhile.
                None => again.push(Job::Remember(birth, digest, answer)),
            },
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use onceward_core::operation::Operation;
    use onceward_core::policy::Mode;
    use tokio::sync::oneshot;

    use super::super::{PostgresOptions, days, schema};
    use super::*;
    use crate::clock::{Clock as _, SystemClock};
    use crate::store::contract::operation;

    fn job(operation: Operation) -> Job {
        let (answer, _) = oneshot::channel();
        Job::remember(
            Birth { operation, request: Bytes::from_static(b"x"), replaces: None },
            answer,
        )
    }

    fn at(url: String) -> Address {
        Address::new(&PostgresOptions { url, ca_file: None }).unwrap()
    }

    /// A ledger of its own, where there is a server.
    #[expect(clippy::print_stdout, reason = "never silently")]
    async fn ledger(name: &str) -> Option<(Address, Link)> {
        let Ok(server) = std::env::var("TEST_POSTGRES") else {
            println!("skipped: TEST_POSTGRES names no server; `cargo xtask test` starts one");
            return None;
        };
        let name = format!("{name}_{}", std::process::id());
        let make = format!("CREATE DATABASE {name}");
        at(server.clone()).open().await.unwrap().client.batch_execute(&make).await.unwrap();
        let address = at(format!("{server} dbname={name}"));
        let link = address.open().await.unwrap();
        schema::migrate(&link).await.unwrap();
        days::make(&link, day_of(SystemClock.now())).await.unwrap();
        Some((address, link))
    }

    #[tokio::test]
    async fn a_writer_that_can_have_no_connection_leaves_the_work_to_one_that_has() {
        let Some((address, _link)) = ledger("cut_off").await else { return };
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let nowhere = at(format!("host=127.0.0.1 port={} user=x", closed.port()));
        let queue = Arc::<Queue>::default();
        let writer = |address| {
            let (queue, lanes) = (Arc::clone(&queue), Arc::default());
            tokio::spawn(Writer::new(address, queue, lanes, || SystemClock.now()).run())
        };
        let writers = [writer(nowhere), writer(address)];
        let mut refused = 0;
        for n in 1..=20 {
            let (answer, answered) = oneshot::channel();
            let operation = operation(n, &format!("k{n}"), "r", Mode::Held);
            let request = Bytes::from_static(b"x");
            queue.push(Job::remember(Birth { operation, request, replaces: None }, answer));
            refused += usize::from(answered.await.unwrap().is_err());
        }
        assert!(refused <= 1, "{refused} of 20");
        writers.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test]
    async fn a_batch_that_was_split_is_as_unsure_as_any_part_of_it_that_is_left() {
        let Some((address, link)) = ledger("unsure").await else { return };
        // Two at once are refused, and whoever writes the first alone is cut off.
        let [first, second] = [1, 2].map(|n| operation(n, &format!("k{n}"), "r", Mode::Held));
        let cut = format!(
            "CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF (SELECT count(*) FROM new) > 1 THEN RAISE EXCEPTION 'one at a time'; END IF; \
             IF EXISTS (SELECT FROM new WHERE op = '{:032x}') THEN \
             PERFORM pg_terminate_backend(pg_backend_pid()); END IF; RETURN NULL; END $$; \
             CREATE TRIGGER cut AFTER INSERT ON key REFERENCING NEW TABLE AS new \
             FOR EACH STATEMENT EXECUTE FUNCTION cut()",
            first.id.as_u128()
        );
        link.client.batch_execute(&cut).await.unwrap();
        let (queue, lanes) = (Arc::default(), Arc::default());
        let mut writer = Writer::new(address, queue, lanes, || SystemClock.now());
        let wanted = first.id;
        let left = writer.write(vec![job(first), job(second)]).await;
        assert_eq!(left.iter().map(Job::id).collect::<Vec<_>>(), [wanted]);
        assert!(writer.is_unsure, "the first may have been written");
    }

    #[tokio::test]
    async fn what_never_came_about_leaves_nothing_to_be_found_by() {
        let Some((address, link)) = ledger("found_by").await else { return };
        let mut writer = Writer::new(address, Arc::default(), Arc::default(), || SystemClock.now());
        let said = |n: u64| Operation {
            ids: vec![("to".to_owned(), format!("{n}@example.com"))],
            ..operation(n, "k", "r", Mode::Accepted)
        };
        // Of two with one key the second is refused, in a batch and by itself.
        for n in 1..=3 {
            assert!(writer.write(vec![job(said(n))]).await.is_empty());
        }
        let known = link.query("SELECT id FROM made", &[]).await.unwrap();
        let known: Vec<String> = known.iter().map(|row| row.get(0)).collect();
        assert_eq!(known, ["1@example.com"]);
    }
}
