//! The embedded store: a journal that makes commits durable and holds the bodies, and SQLite as
//! its index. One writer thread groups commits; readers stand apart from it.

mod backup;
mod examine;
mod inbox;
mod index;
mod journal;
mod keys;
mod record;
mod runs;
mod scrub;
mod writer;
mod young;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use onceward_core::attempt::BodyRef;
use onceward_core::id::OperationId;
use onceward_core::key::KeyDigest;
use onceward_core::lease::Session;
use onceward_core::operation::{Operation, State};
use onceward_core::time::Timestamp;
use tokio::sync::{Notify, Semaphore, oneshot};

pub use self::examine::Examined;
use self::inbox::{Answer, Command, Inbox};
use self::index::Index;
use self::journal::{Journal, Segments};
use self::writer::{QUEUE_MAX, Shared, Writer, apply_all};
use crate::sabotage::Sabotage;

use super::moving::Kept;
use super::{
    Asked, Backlog, Birth, Condition, Counted, Judge, Lane, Page, Query, Remembered, Reply, Schema,
    Standing, Store, StoreError, Swept, ToldCommit, Way, Which, Write,
};

/// How the embedded store is opened.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// The bytes of a journal segment; a request or an answer has to fit one.
    pub segment_bytes: u32,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20 }
    }
}

const READERS: usize = 4;

/// The embedded store.
pub struct SqliteStore {
    shared: Shared,
    readers: Arc<Readers>,
    segments: Segments,
    path: PathBuf,
    newest: u64,
    /// Whether the processes before this one may have left something under way.
    has_orphans: AtomicBool,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Held for as long as the ledger is open: a second process is refused.
    _lock: Lock,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Connections for reading, used in turn.
#[derive(Debug)]
struct Readers {
    all: Vec<Mutex<Index>>,
    next: AtomicUsize,
}

impl Readers {
    /// One of a few: for looking up one row.
    fn with<T>(&self, read: impl FnOnce(&Index) -> T) -> T {
        let turn = 1 + self.next.fetch_add(1, Ordering::Relaxed) % (self.all.len() - 1);
        read(&self.all[turn].lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The one for lists and copies, so that nothing short waits behind them.
    fn with_patience<T>(&self, read: impl FnOnce(&Index) -> T) -> T {
        read(&self.all[0].lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Where the journal of the ledger at `path` is.
fn journal_of(path: &Path) -> PathBuf {
    path.with_extension("journal")
}

/// Where SQLite keeps the log of the index at `path`.
fn wal_of(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}-wal", path.display()))
}

fn unavailable(what: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Unavailable(format!("{}: {error}", what.display()))
}

impl SqliteStore {
    /// Opens the ledger whose index is the file `path`, making it where there is none, and
    /// recovers what a crash left behind.
    pub fn open(path: &Path, options: &SqliteOptions) -> Result<Self, StoreError> {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or_else(|| Path::new("."));
        fs::create_dir_all(folder).map_err(|error| unavailable(folder, &error))?;
        let lock = take_lock(&path.with_extension("lock"))?;
        let index = Index::open_writer(path)?;
        index.begin()?;
        let journal = Journal::open(
            &journal_of(path),
            options.segment_bytes,
            index.applied()?,
            |payload, _| apply_all(&index, payload),
        )?;
        index.commit(journal.end())?;
        index.checkpoint(true)?;
        let newest = index.newest()?;
        let readers = (0..READERS)
            .map(|_| Index::open_reader(path, index.keys()).map(Mutex::new))
            .collect::<Result<_, _>>()?;
        let shared = Shared {
            inbox: Arc::new(Inbox::default()),
            room: Arc::new(Semaphore::new(QUEUE_MAX)),
            changed: Arc::new(Notify::new()),
            commits: Arc::default(),
            copying: Arc::new(AtomicUsize::new(0)),
            changes_segments: Arc::default(),
        };
        let segments = journal.segments().clone();
        let checkpointer = start_checkpointer(path, Arc::clone(&shared.inbox))?;
        let writer = Writer::new(index, journal, wal_of(path), shared.clone(), checkpointer)?;
        let thread =
            std::thread::Builder::new().name("ledger".to_owned()).spawn(move || writer.run());
        let thread = thread.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Self {
            shared,
            readers: Arc::new(Readers { all: readers, next: AtomicUsize::new(0) }),
            segments,
            path: path.to_owned(),
            newest,
            has_orphans: AtomicBool::new(true),
            writer: Mutex::new(Some(thread)),
            _lock: lock,
        })
    }

    /// The shape of the ledger at `path`, by the head of its file alone, so that whoever has it open does not notice;
    /// nothing where there is no file.
    ///
    /// # Errors
    /// Where the file cannot be read, and `InvalidData` where it is none of SQLite's.
    pub fn schema(path: &Path) -> std::io::Result<Option<Schema>> {
        index::schema(path)
    }

    /// The folder where the journal of the ledger at `path` is.
    pub fn journal(path: &Path) -> PathBuf {
        journal_of(path)
    }

    /// Reads the whole of a ledger that no process has open, and tells what does not hold. What is
    /// wrong with the files is no error; what keeps them from being read is.
    pub fn examine(path: &Path) -> Result<Examined, StoreError> {
        let _lock = take_lock(&path.with_extension("lock"))?;
        examine::examine(path, &journal_of(path))
    }

    /// Asks the writer, once there is room in its queue.
    async fn ask<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, StoreError> {
        let closed = || StoreError::Unavailable("the ledger is closed".to_owned());
        self.shared.room.acquire().await.map_err(|_| closed())?.forget();
        let (answer, answered) = oneshot::channel();
        self.shared.inbox.push(command(answer));
        answered.await.map_err(|_| closed())?
    }

    /// Reads on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Index) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let readers = Arc::clone(&self.readers);
        tokio::task::spawn_blocking(move || readers.with_patience(read))
            .await
            .map_err(|error| StoreError::Unavailable(error.to_string()))?
    }

    async fn read_latest<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Index) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.ask(Command::Publish).await?;
        self.read(read).await
    }

    /// At most `max` operations after `from` with what is kept beside them, oldest first: the whole
    /// ledger, page by page.
    pub(super) async fn kept(&self, from: u64, max: usize) -> Result<Vec<Kept>, StoreError> {
        self.read_latest(move |reader| reader.kept(from, max)).await
    }

    /// How many operations there are.
    pub(super) async fn operations(&self) -> Result<u64, StoreError> {
        self.read_latest(Index::operations).await
    }

    fn bytes_on_disk(&self) -> u64 {
        let size = |path: PathBuf| fs::metadata(path).map_or(0, |file| file.len());
        let journal = fs::read_dir(journal_of(&self.path)).into_iter().flatten().flatten();
        let segments: u64 =
            journal.map(|segment| segment.metadata().map_or(0, |file| file.len())).sum();
        segments + size(self.path.clone()) + size(wal_of(&self.path))
    }
}

/// The lock of a ledger, let go where this goes.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a process that is just being started has it too, from its fork until
        // its exec. Where it fails, the file is closed.
        let _ = rustix::fs::flock(&self.0, rustix::fs::FlockOperation::Unlock);
    }
}

fn take_lock(path: &Path) -> Result<Lock, StoreError> {
    let file = File::create(path).map_err(|error| unavailable(path, &error))?;
    if Sabotage::LockNotTaken.is_on() {
        return Ok(Lock(file));
    }
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(
        |_| {
            StoreError::Unavailable(format!(
                "another process has this ledger open ({} is locked)",
                path.display()
            ))
        },
    )?;
    Ok(Lock(file))
}

/// Moves the log's frames into the database file beside the writer, so that it never waits.
/// An error goes to the writer: a checkpoint that failed and was tried again would be believed.
fn start_checkpointer(
    path: &Path,
    inbox: Arc<Inbox>,
) -> Result<std::sync::mpsc::SyncSender<()>, StoreError> {
    let (wake, woken) = sync_channel(1);
    let index = Index::open_reader(path, &Arc::default())?;
    let run = move || {
        while woken.recv().is_ok() {
            // What a checkpoint leaves, the next one takes.
            if let Err(error) = index.checkpoint(false) {
                inbox.push(Command::Fail(error));
            }
        }
    };
    std::thread::Builder::new()
        .name("checkpoint".to_owned())
        .spawn(run)
        .map_err(|error| StoreError::Unavailable(error.to_string()))?;
    Ok(wake)
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.shared.inbox.push(Command::Close);
        let thread = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Store for SqliteStore {
    fn remember(&self, birth: Birth) -> Reply<'_, Remembered> {
        Box::pin(self.ask(|answer| Command::Remember(Box::new(birth), answer)))
    }

    fn commit(&self, write: Write) -> Reply<'_, Operation> {
        Box::pin(self.ask(|answer| Command::Commit(Box::new(write), answer)))
    }

    fn find(&self, which: Which) -> Reply<'_, Option<Operation>> {
        Box::pin(async move {
            // What is done stays as it is, so a view that lags is right about it.
            let seen = self.readers.with(|reader| match which {
                Which::Id(id) => reader
                    .by_sequence(id.sequence())
                    .map(|found| found.filter(|operation| operation.id == id)),
                Which::Key(key) => reader.done_by_key(key),
            })?;
            match seen {
                Some(operation) if operation.state == State::Done => Ok(Some(operation)),
                _ => self.ask(|answer| Command::Find(which, answer)).await,
            }
        })
    }

    fn recall(&self, key: KeyDigest) -> Option<Operation> {
        self.readers.with(|reader| reader.done_by_key(key)).ok().flatten()
    }

    fn body(&self, body: BodyRef) -> Reply<'_, Bytes> {
        Box::pin(async move { self.segments.read(body) })
    }

    fn part(&self, body: BodyRef, from: u32, length: u32) -> Reply<'_, Bytes> {
        Box::pin(async move { self.segments.read_part(body, from, length) })
    }

    fn lanes(&self) -> Reply<'_, Vec<(Lane, Timestamp)>> {
        Box::pin(self.ask(Command::Lanes))
    }

    fn backlog(&self, lane: Lane, max: u64) -> Reply<'_, Backlog> {
        Box::pin(self.read_latest(move |reader| reader.backlog(&lane, max)))
    }

    fn take(
        &self,
        lane: Lane,
        now: Timestamp,
        max: usize,
        judge: Judge,
    ) -> Reply<'_, Vec<Operation>> {
        Box::pin(self.ask(move |answer| Command::Take(lane, now, max, judge, answer)))
    }

    fn beat(&self, session: Session, max: usize) -> Reply<'_, Vec<Operation>> {
        Box::pin(async move {
            // The lock file ended every other session when the ledger was opened.
            if !self.has_orphans.load(Ordering::Acquire) {
                return Ok(Vec::new());
            }
            let orphans = self.read_latest(move |reader| reader.not_owned_by(session, max)).await?;
            if orphans.len() < max {
                self.has_orphans.store(false, Ordering::Release);
            }
            Ok(orphans)
        })
    }

    fn list(&self, query: Query) -> Reply<'_, Page> {
        Box::pin(self.read_latest(move |reader| reader.list(&query)))
    }

    fn note_asked(&self, asked: Vec<(OperationId, Asked)>) -> Reply<'_, ()> {
        Box::pin(self.ask(|answer| Command::NoteAsked(asked, answer)))
    }

    fn asked(&self, id: OperationId) -> Reply<'_, Asked> {
        Box::pin(self.read_latest(move |reader| reader.asked(id.sequence())))
    }

    fn sweep(&self, now: Timestamp, from: u64, max: usize) -> Reply<'_, Swept> {
        Box::pin(self.ask(move |answer| Command::Sweep(now, from, max, answer)))
    }

    fn setting(&self, name: String) -> Reply<'_, Option<Bytes>> {
        Box::pin(self.ask(|answer| Command::Setting(name, answer)))
    }

    fn settings_from(
        &self,
        prefix: String,
        from: Option<String>,
        way: Way,
        max: usize,
    ) -> Reply<'_, Vec<(String, Bytes)>> {
        Box::pin(self.read_latest(move |reader| {
            let (least, greatest) = way.bounds(prefix, from);
            let found = reader.settings_between(&least, &greatest, way, max);
            Ok(found?.into_iter().map(|(name, value)| (name, value.into())).collect())
        }))
    }

    fn set(&self, name: String, value: Option<Bytes>) -> Reply<'_, ()> {
        Box::pin(self.ask(|answer| Command::Set(name, value, answer)))
    }

    fn swap(&self, name: String, expected: Option<Bytes>, value: Option<Bytes>) -> Reply<'_, bool> {
        Box::pin(self.ask(|answer| Command::Swap(name, expected, value, answer)))
    }

    fn scrub(&self, erased: Vec<(OperationId, Vec<BodyRef>)>) -> Reply<'_, ()> {
        Box::pin(self.scrub_for_good(erased))
    }

    fn condition(&self) -> Reply<'_, Condition> {
        Box::pin(async move {
            let counts = self.count_open(None, u64::MAX).await?;
            Ok(Condition {
                counts: counts
                    .into_iter()
                    .map(|(standing, counted)| (standing, counted.count))
                    .collect(),
                bytes: self.bytes_on_disk(),
                commits: self.shared.commits.count(),
            })
        })
    }

    fn tell_commits(&self, told: ToldCommit) {
        self.shared.commits.tell(told);
    }

    fn count_open(&self, tenant: Option<String>, max: u64) -> Reply<'_, Vec<(Standing, Counted)>> {
        Box::pin(self.read_latest(move |reader| reader.count_open(tenant.as_deref(), max)))
    }

    fn oldest_in_doubt(&self, tenant: Option<String>) -> Reply<'_, Option<Operation>> {
        Box::pin(self.read_latest(move |reader| reader.oldest_in_doubt(tenant.as_deref())))
    }

    fn backup<'a>(&'a self, to: &'a Path) -> Reply<'a, ()> {
        Box::pin(self.copy_to(to))
    }

    fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.shared.changed)
    }

    fn newest(&self) -> u64 {
        self.newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_was_let_go_can_be_taken_though_a_process_that_is_being_started_has_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.lock");
        let lock = take_lock(&path).unwrap();
        // As a fork has it.
        let copy = lock.0.try_clone().unwrap();
        assert!(take_lock(&path).is_err());
        drop(lock);
        drop(take_lock(&path).unwrap());
        drop(copy);
    }
}
