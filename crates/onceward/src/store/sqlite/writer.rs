//! The one writer. Whatever queued while the last commit ran goes into the next: applied to the
//! index, written to the journal as one frame, and answered only after that is durable.

mod keep;
mod lanes;
mod room;
mod scrub;
mod sweep;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use bytes::Bytes;
use onceward_core::attempt::BodyRef;
use onceward_core::id::OperationId;
use onceward_core::key::KeyDigest;
use onceward_core::operation::{Fence, Operation};
use onceward_core::time::Timestamp;
use tokio::sync::{Notify, Semaphore};

use self::keep::INDEX_COMMIT_EVERY;
pub(super) use self::keep::apply_all;
use self::room::refuse;
use super::inbox::{Answer, Command, Inbox};
use super::index::{Index, not_alone};
use super::journal::{HEADER_BYTES, Journal, full_or_unavailable};
use super::record::{Put, Record, pieces};
use super::young::{YOUNG_MAX, Young};
use crate::sabotage::Sabotage;
use crate::store::commits::Commits;
use crate::store::row::{self, kind};
use crate::store::{
    Asked, Birth, Judge, Lane, Remembered, Standing, StoreError, Which, Write, digest_of,
};

/// Commands that wait at most; past it, callers wait before they queue.
pub(super) const QUEUE_MAX: usize = 8192;

/// What the writer shares with the store's front.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) inbox: Arc<Inbox>,
    pub(super) room: Arc<Semaphore>,
    pub(super) changed: Arc<Notify>,
    pub(super) commits: Arc<Commits>,
    /// How many backups are under way: no segment goes meanwhile.
    pub(super) copying: Arc<AtomicUsize>,
    /// Held by whoever copies segments or writes them anew.
    pub(super) changes_segments: Arc<tokio::sync::Mutex<()>>,
}

/// Runs once the frame of its command is durable, or cannot be.
type Deferred = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

pub(super) struct Writer {
    index: Index,
    journal: Journal,
    wal: PathBuf,
    /// How long the log was when it was last to be copied.
    copied_bytes: u64,
    shared: Shared,
    checkpointer: std::sync::mpsc::SyncSender<()>,
    /// The lanes that were met lately, and the numbers that stand for them in rows.
    lanes: HashMap<Lane, i64>,
    lane_names: HashMap<i64, Lane>,
    last_met: Option<(Lane, i64)>,
    last_lane: i64,
    young: Young,
    /// The frame that is being filled, its header's room in front.
    frame: Vec<u8>,
    deferred: Vec<Deferred>,
    /// A command of this frame has to be seen by readers before it is answered.
    visible: bool,
    wakes: bool,
    /// Commands applied to the index and not yet kept by it, and since when.
    unkept: usize,
    unkept_since: Option<Instant>,
    /// Why nothing new is taken, and when to try again.
    full: Option<(String, Instant)>,
    /// Why nothing at all is taken any more.
    broken: Option<StoreError>,
    /// The oldest segment that the present pass of the sweep has seen in use.
    floor: u32,
    /// How many commands came at once, the latest first.
    batches: [usize; 4],
    row: Vec<u8>,
}

impl Writer {
    pub(super) fn new(
        index: Index,
        journal: Journal,
        wal: PathBuf,
        shared: Shared,
        checkpointer: std::sync::mpsc::SyncSender<()>,
    ) -> Result<Self, StoreError> {
        let last_lane = index.last_lane()?;
        let floor = journal.end().segment;
        Ok(Self {
            index,
            journal,
            wal,
            copied_bytes: 0,
            shared,
            checkpointer,
            lanes: HashMap::new(),
            lane_names: HashMap::new(),
            last_met: None,
            last_lane,
            young: Young::default(),
            frame: vec![0; HEADER_BYTES],
            deferred: Vec::new(),
            visible: false,
            wakes: false,
            unkept: 0,
            unkept_since: None,
            full: None,
            broken: None,
            floor,
            batches: [0; 4],
            row: Vec::new(),
        })
    }

    /// Runs until it is closed.
    pub(super) fn run(mut self) {
        loop {
            let until = self.unkept_since.map(|since| since + INDEX_COMMIT_EVERY);
            let commands = self.shared.inbox.take(until, self.company());
            self.batches.rotate_right(1);
            self.batches[0] = commands.len();
            self.shared.room.add_permits(commands.len());
            let is_quiet = commands.is_empty();
            let closing = commands.iter().any(|command| matches!(command, Command::Close));
            for command in commands {
                self.execute(command);
            }
            self.flush();
            if self.broken.is_none()
                && let Err(error) = self.age(YOUNG_MAX)
            {
                self.heed(&error);
                self.reindex();
            }
            if closing {
                self.keep(true);
                return;
            }
            self.keep(is_quiet);
        }
    }

    /// How many commands are worth waiting a moment for: most of as many as came at once lately, so
    /// that whoever calls alone never waits.
    fn company(&self) -> usize {
        self.batches.iter().max().map_or(0, |most| most * 3 / 4)
    }

    fn execute(&mut self, command: Command) {
        if let Some(error) = self.broken.clone() {
            return refuse(command, &error);
        }
        if let Some(bytes) = self.bytes_of(&command) {
            let made = self.make_room(&command, bytes).and_then(|()| self.index.begin());
            if let Err(error) = made {
                return self.refuse(command, &error);
            }
            self.unkept += 1;
        }
        match command {
            Command::Remember(birth, answer) => {
                let result = self.remember(*birth);
                self.answer(answer, result);
            }
            Command::Commit(write, answer) => {
                self.visible |= write.visible;
                let result = self.commit(*write);
                self.answer(answer, result);
            }
            Command::Find(which, answer) => {
                let result = self.find(which);
                self.answer(answer, result);
            }
            Command::Lanes(answer) => {
                let result = self.lanes_due();
                self.answer(answer, result);
            }
            Command::Take(lane, now, max, judge, answer) => {
                let result = self.take(&lane, now, max, &judge);
                self.answer(answer, result);
            }
            Command::NoteAsked(asked, answer) => {
                let result = asked.iter().try_for_each(|(id, asked)| self.note_asked(*id, asked));
                self.answer(answer, result);
            }
            Command::Sweep(now, from, max, answer) => {
                let result = self.sweep(now, from, max);
                self.answer(answer, result);
            }
            Command::Setting(name, answer) => {
                let found = self.index.setting(&name).map(|found| found.map(Bytes::from));
                self.answer(answer, found);
            }
            Command::Swap(name, expected, value, answer) => {
                let result = self.swap(&name, expected.as_deref(), value.as_deref());
                self.answer(answer, result);
            }
            Command::Set(name, value, answer) => {
                self.visible = true;
                let result = self.record(&Record::Setting(&name, value.as_deref())).map(|_| ());
                self.answer(answer, result);
            }
            Command::Publish(answer) => {
                self.flush();
                self.keep(true);
                let result = self.broken.clone().map_or_else(|| Ok(self.journal.end()), Err);
                self.answer(answer, result);
            }
            Command::Seal(answer) => {
                let result = self.seal();
                // It is durable by itself.
                let _ = answer.send(result);
            }
            Command::Rewrite(erased, answer) => {
                let result = self.rewrite(&erased);
                let _ = answer.send(result);
            }
            Command::Fail(error) => self.heed_checkpoint(&error),
            Command::Close => {}
        }
    }

    fn answer<T: Send + 'static>(&mut self, answer: Answer<T>, result: Result<T, StoreError>) {
        if let Err(error) = &result {
            self.heed(error);
        }
        self.deferred.push(Box::new(move |durable| {
            // A caller that went away needs no answer.
            let _ = answer.send(durable.and(result));
        }));
    }

    fn remember(&mut self, birth: Birth) -> Result<Remembered, StoreError> {
        let Birth { mut operation, request, replaces } = birth;
        if let Some((id, fence)) = replaces {
            // A reader that lags must not take the old owner of the key for the present one.
            self.visible |= !Sabotage::KeyTakenBack.is_on();
            self.give_up_key(id, fence)?;
        }
        self.lane(&operation)?;
        let before = self.frame.len();
        operation.request = Some(self.keep_body(&request)?);
        match self.put(&operation, true) {
            Ok(()) => Ok(Remembered::Fresh(operation)),
            // What was written for nothing leaves the frame.
            Err(StoreError::Stale) => {
                self.frame.truncate(before);
                let known = self.find(Which::Key(digest_of(&operation)))?;
                known.map(Remembered::Known).ok_or(StoreError::Stale)
            }
            Err(error) => Err(error),
        }
    }

    /// Frees the key of an operation that has expired or was forgotten.
    fn give_up_key(&mut self, id: OperationId, fence: Fence) -> Result<(), StoreError> {
        let found = self.find(Which::Id(id))?.filter(|operation| operation.fence == fence);
        let mut old = found.ok_or(StoreError::Stale)?;
        old.fence = Fence(fence.0 + 1);
        self.put_with_key(&old, None, false)
    }

    fn commit(&mut self, write: Write) -> Result<Operation, StoreError> {
        let Write { mut operation, answer, .. } = write;
        let before = self.frame.len();
        if let Some((slot, bytes)) = answer {
            let body = self.keep_body(&bytes)?;
            slot.fill(&mut operation, body);
        }
        // A refused write leaves nothing in the frame.
        self.put(&operation, false).inspect_err(|_| self.frame.truncate(before))?;
        Ok(operation)
    }

    fn put(&mut self, operation: &Operation, new: bool) -> Result<(), StoreError> {
        self.put_with_key(operation, Some(digest_of(operation)), new)
    }

    fn put_with_key(
        &mut self,
        operation: &Operation,
        key: Option<KeyDigest>,
        new: bool,
    ) -> Result<(), StoreError> {
        let lane = self.lane(operation)?;
        let standing = Standing::of(operation);
        self.wakes |= standing == Standing::Pending;
        let mut bytes = std::mem::take(&mut self.row);
        bytes.clear();
        row::encode(operation, &mut bytes);
        let due = match operation.state {
            onceward_core::operation::State::Pending { due } => Some(due.as_micros()),
            _ => None,
        };
        let put = Put {
            seq: operation.id.sequence(),
            key,
            lane,
            kind: kind(standing),
            due,
            fence: operation.fence.0,
            row: &bytes,
        };
        let done = self.place(&put, new, standing);
        let result = match done {
            Ok(true) => {
                Record::Put(put).write(&mut self.frame);
                Ok(())
            }
            Ok(false) => Err(StoreError::Stale),
            Err(error) => Err(error),
        };
        self.row = bytes;
        if result.is_ok() && !operation.ids.is_empty() {
            self.record(&Record::Made(operation.id.sequence(), &pieces(&operation.ids)))?;
        }
        result
    }

    /// Puts a row where it belongs: what waits in a lane into the index, what was born lately into
    /// memory. Tells whether it was put: a new key has to be new, a fence the next one.
    fn place(&mut self, put: &Put<'_>, new: bool, standing: Standing) -> Result<bool, StoreError> {
        let waits = standing == Standing::Pending;
        if new {
            let is_known = put.key.map_or(Ok(false), |key| self.has_key(key))?;
            if is_known && !Sabotage::SelectThenInsert.is_on() {
                return Ok(false);
            }
            if waits {
                self.index.insert(put)?;
            } else {
                self.young.put(put, self.journal.end());
            }
            return Ok(true);
        }
        match self.young.fence(put.seq) {
            // Its key has gone to a successor that the index does not have yet.
            None if put.key.is_some_and(|key| self.young.has_key(key)) => Ok(false),
            None if Sabotage::NoFence.is_on() => self.index.replace(put).map(|()| true),
            None => self.index.update(put),
            Some(fence) if fence + 1 != put.fence && !Sabotage::NoFence.is_on() => Ok(false),
            Some(_) if !self.may_have_key(put)? => Ok(false),
            Some(_) if waits => {
                self.young.remove(put.seq);
                self.index.insert(put).map(|()| true)
            }
            Some(_) => {
                self.young.put(put, self.journal.end());
                Ok(true)
            }
        }
    }

    /// Whether a young row may be put as it is: it has its key, or nobody has it any more.
    fn may_have_key(&self, put: &Put<'_>) -> Result<bool, StoreError> {
        let Some(key) = put.key else { return Ok(true) };
        match self.young.owner(key) {
            Some(owner) if owner == put.seq => Ok(true),
            // It gave its key up.
            _ if self.young.key(put.seq).is_none() && !Sabotage::KeyTakenBack.is_on() => {
                Ok(!self.has_key(key)?)
            }
            _ => not_alone().map(|()| true),
        }
    }

    /// Whether a row has `key`: there is one writer, so that what it finds here decides.
    fn has_key(&self, key: KeyDigest) -> Result<bool, StoreError> {
        Ok(self.young.has_key(key) || self.index.has_key(key)?)
    }

    fn find(&self, which: Which) -> Result<Option<Operation>, StoreError> {
        let young = match which {
            Which::Id(id) => self.young.by_sequence(id.sequence()),
            Which::Key(key) => self.young.by_key(key),
        };
        let found = match (young, which) {
            (Some(row), _) => Some(row::decode(row)?),
            (None, Which::Id(id)) => self.index.by_sequence(id.sequence())?,
            (None, Which::Key(key)) => self.index.by_key(key)?,
        };
        Ok(found.filter(|operation| match which {
            Which::Id(id) => operation.id == id,
            Which::Key(_) => true,
        }))
    }

    fn record(&mut self, record: &Record<'_>) -> Result<usize, StoreError> {
        self.index.apply(record)?;
        Ok(record.write(&mut self.frame))
    }

    fn keep_body(&mut self, bytes: &[u8]) -> Result<BodyRef, StoreError> {
        let at = Record::Body(bytes).write(&mut self.frame) - HEADER_BYTES;
        let (segment, offset) = self.journal.place(at);
        let length = u32::try_from(bytes.len())
            .map_err(|_| StoreError::Full("a body of 4 GiB".to_owned()))?;
        Ok(BodyRef { segment, offset, length, crc: crc32fast::hash(bytes) })
    }

    /// Sets a named value where it is as `expected`; tells whether it was.
    fn swap(
        &mut self,
        name: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<bool, StoreError> {
        if self.index.setting(name)?.as_deref() != expected {
            return Ok(false);
        }
        self.record(&Record::Setting(name, value)).map(|_| true)
    }

    fn take(
        &mut self,
        lane: &Lane,
        now: Timestamp,
        max: usize,
        judge: &Judge,
    ) -> Result<Vec<Operation>, StoreError> {
        let met = self.lanes.get(lane).copied();
        let Some(id) = met.map_or_else(|| self.index.lane(lane), |id| Ok(Some(id)))? else {
            return Ok(Vec::new());
        };
        let mut taken = Vec::new();
        for operation in self.index.due(id, now, max)? {
            // What cannot follow is a mistake of ours, and is left for the next look.
            let Ok(next) = operation.after(judge(&operation), now) else {
                continue;
            };
            self.put(&next, false)?;
            taken.push(next);
        }
        Ok(taken)
    }

    fn note_asked(&mut self, id: OperationId, asked: &Asked) -> Result<(), StoreError> {
        let mut all = self.index.asked(id.sequence())?;
        all.add(asked);
        let times: Vec<u8> = all.times.iter().flat_map(|at| at.as_micros().to_le_bytes()).collect();
        self.record(&Record::Asked(id.sequence(), all.count, &times)).map(|_| ())
    }

    /// Makes the frame durable and answers its commands; tells whether it is.
    fn flush(&mut self) -> bool {
        if Sabotage::AnswerBeforeCommit.is_on() {
            self.tell(&Ok(()));
        }
        let mut durable = Ok(());
        if self.frame.len() > HEADER_BYTES && self.broken.is_none() {
            let began = Instant::now();
            durable =
                self.journal.append(&mut self.frame).map_err(|error| full_or_unavailable(&error));
            self.shared.commits.add(began);
            if self.unkept_since.is_none() {
                self.unkept_since = Some(Instant::now());
            }
        }
        if let Some(error) = &self.broken {
            durable = Err(error.clone());
        }
        self.frame.truncate(HEADER_BYTES);
        if let Err(error) = &durable {
            self.heed(error);
            self.reindex();
        } else if std::mem::take(&mut self.visible) {
            self.keep(true);
        }
        self.visible = false;
        self.tell(&durable);
        if std::mem::take(&mut self.wakes) {
            self.shared.changed.notify_one();
        }
        durable.is_ok()
    }

    /// Answers the commands of the frame.
    fn tell(&mut self, durable: &Result<(), StoreError>) {
        for answer in std::mem::take(&mut self.deferred) {
            answer(durable.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::Ordering;

    use onceward_core::policy::Mode;

    use super::*;
    use crate::store::Store as _;
    use crate::store::contract::operation;
    use crate::store::sqlite::{SqliteOptions, SqliteStore, journal_of, wal_of};

    fn writer(folder: &Path) -> Writer {
        let path = folder.join("ledger.db");
        let index = Index::open_writer(&path).unwrap();
        let applied = index.applied().unwrap();
        let journal = Journal::open(&journal_of(&path), 1 << 20, applied, |_, _| Ok(())).unwrap();
        let shared = Shared {
            inbox: Arc::default(),
            room: Arc::new(Semaphore::new(1)),
            changed: Arc::default(),
            commits: Arc::default(),
            copying: Arc::default(),
            changes_segments: Arc::default(),
        };
        let (checkpointer, _) = std::sync::mpsc::sync_channel(1);
        Writer::new(index, journal, wal_of(&path), shared, checkpointer).unwrap()
    }

    fn remember(writer: &mut Writer, n: u64, replaces: Option<(OperationId, Fence)>) -> Operation {
        let held = operation(n, "k", "r", Mode::Held);
        let birth = Birth { operation: held, request: Bytes::from_static(b"x"), replaces };
        let Remembered::Fresh(made) = writer.remember(birth).unwrap() else { panic!("new") };
        made
    }

    #[tokio::test]
    async fn what_is_young_is_there_after_a_crash_though_the_index_was_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(folder.path());
        writer.index.begin().unwrap();
        let made = remember(&mut writer, 1, None);
        writer.flush();
        // It is busy, so what is young stays young; and the index has waited for long enough.
        writer.unkept_since = Instant::now().checked_sub(INDEX_COMMIT_EVERY);
        writer.keep(false);
        assert_eq!((writer.unkept, writer.young.len()), (0, 1), "kept, and still young");
        // Nothing is closed in order.
        drop(writer);
        let options = SqliteOptions { segment_bytes: 1 << 20 };
        let store = SqliteStore::open(&folder.path().join("ledger.db"), &options).unwrap();
        let found = store.find(Which::Id(made.id)).await.unwrap();
        assert_eq!(found, Some(made), "what was acknowledged");
    }

    #[test]
    fn a_key_whose_row_was_lost_is_damage_and_no_new_key() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(folder.path());
        let held = operation(1, "k", "r", Mode::Held);
        let key = digest_of(&held);
        let birth = Birth { operation: held, request: Bytes::from_static(b"x"), replaces: None };
        writer.index.begin().unwrap();
        writer.remember(birth).unwrap();
        writer.flush();
        writer.keep(true);
        let other = rusqlite::Connection::open(folder.path().join("ledger.db")).unwrap();
        assert_eq!(other.execute("DELETE FROM op", []).unwrap(), 1);
        let found = writer.find(Which::Key(key));
        assert!(matches!(found, Err(StoreError::Damaged(_))), "{found:?}");
    }

    #[test]
    fn no_segment_goes_while_a_backup_copies_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(folder.path());
        writer.journal.roll().unwrap();
        writer.index.begin().unwrap();
        writer.floor = writer.journal.end().segment;
        writer.shared.copying.fetch_add(1, Ordering::SeqCst);
        writer.drop_segments();
        assert_eq!(writer.journal.segments().numbers().len(), 2, "the backup needs both");
        writer.shared.copying.fetch_sub(1, Ordering::SeqCst);
        writer.drop_segments();
        assert_eq!(writer.journal.segments().numbers().len(), 1);
    }

    #[test]
    fn no_segment_goes_while_the_index_cannot_be_made_durable() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(folder.path());
        writer.journal.roll().unwrap();
        writer.index.begin().unwrap();
        writer.floor = writer.journal.end().segment;
        writer.wal = folder.path().join("gone");
        writer.drop_segments();
        assert_eq!(writer.journal.segments().numbers().len(), 2, "a power cut may need both");
        assert!(matches!(writer.broken, Some(StoreError::Unavailable(_))), "{:?}", writer.broken);
    }

    #[test]
    fn a_key_that_went_to_a_successor_while_all_was_young_does_not_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(folder.path());
        writer.index.begin().unwrap();
        let mut old = remember(&mut writer, 1, None);
        let new = remember(&mut writer, 2, Some((old.id, old.fence)));
        old.fence = Fence(old.fence.0 + 2);
        assert_eq!(writer.put(&old, false), Err(StoreError::Stale));
        assert_eq!(writer.find(Which::Key(digest_of(&old))).unwrap(), Some(new));
    }

    #[test]
    fn statistics_are_not_written_into_what_a_full_ledger_has_left() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(folder.path());
        let again_at = Instant::now() + std::time::Duration::from_hours(1);
        writer.full = Some(("no room".to_owned(), again_at));
        let room = writer.journal.room();
        let name = || format!("{}m/*/1", crate::tally::PREFIX);
        let value = || Some(Bytes::from_static(b"counts"));
        let (set, was_set) = tokio::sync::oneshot::channel();
        writer.execute(Command::Set(name(), value(), set));
        let (swap, was_swapped) = tokio::sync::oneshot::channel();
        writer.execute(Command::Swap(name(), None, value(), swap));
        assert!(writer.flush());
        assert_eq!(writer.journal.room(), room, "nothing was written");
        assert!(matches!(was_set.blocking_recv().unwrap(), Err(StoreError::Full(_))));
        assert!(matches!(was_swapped.blocking_recv().unwrap(), Err(StoreError::Full(_))));
        // What somebody waits for is, and what makes room.
        for (name, value) in [("bulk/1".to_owned(), value()), (name(), None)] {
            let (set, was_set) = tokio::sync::oneshot::channel();
            writer.execute(Command::Set(name, value, set));
            assert!(writer.flush());
            assert_eq!(was_set.blocking_recv().unwrap(), Ok(()));
        }
    }

    #[test]
    fn a_second_row_with_a_key_is_damage_and_not_let_in() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(folder.path());
        writer.index.begin().unwrap();
        let first = remember(&mut writer, 1, None);
        writer.age(0).unwrap();
        let mut bytes = Vec::new();
        row::encode(&first, &mut bytes);
        let key = Some(digest_of(&first));
        let second = Put { seq: 2, key, lane: 1, kind: 1, due: None, fence: 1, row: &bytes };
        writer.young.put(&second, writer.journal.end());
        let aged = writer.age(0);
        assert!(matches!(aged, Err(StoreError::Damaged(_))), "{aged:?}");
    }
}
