//! SQLite as the journal's index: the same records that a frame carries are applied here, in
//! transactions that are larger than a commit. What SQLite has not kept when the process or the
//! machine ends is applied again from the journal.

mod lists;

use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;
use std::sync::Arc;

use onceward_core::key::KeyDigest;
use onceward_core::operation::Operation;
use onceward_core::time::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};

use super::journal::Position;
use super::keys::{FRESH_MAX, KeyWriter, Keys};
use super::record::{LaneRow, Put, Record, Records};
use crate::sabotage::Sabotage;
use crate::store::row;
use crate::store::{Lane, Schema, StoreError};

/// The first release of SQLite without the WAL-reset corruption.
const SQLITE_MIN: i32 = 3_051_003;

/// How a file of SQLite's begins, and where in its head `user_version` stands (its file format, section 1.3).
const MAGIC: &[u8] = b"SQLite format 3\0";
const USER_VERSION_AT: usize = 60;

/// The schema of the index in the file `path`.
pub(super) fn schema(path: &Path) -> std::io::Result<Option<Schema>> {
    let mut head = Vec::new();
    let read = File::open(path)
        .and_then(|file| file.take(USER_VERSION_AT as u64 + 4).read_to_end(&mut head));
    match read {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    let found = if head.is_empty() {
        // An empty file is an empty index to SQLite: the first start was cut off.
        Some(0)
    } else {
        let version = head.get(USER_VERSION_AT..).and_then(|bytes| bytes.try_into().ok());
        version.filter(|_| head.starts_with(MAGIC)).map(u32::from_be_bytes)
    };
    let is_none = || std::io::Error::new(ErrorKind::InvalidData, "it is no file of SQLite's");
    let (found, ours) = (found.ok_or_else(is_none)?, MIGRATIONS.len() as u32);
    Ok(Some(Schema { found, ours, is_usable: found <= ours }))
}

pub(super) const MIGRATIONS: [&str; 4] = [
    include_str!("../../../migrations/sqlite/0001_init.sql"),
    include_str!("../../../migrations/sqlite/0002_made.sql"),
    include_str!("../../../migrations/sqlite/0003_keys.sql"),
    include_str!("../../../migrations/sqlite/0004_counted.sql"),
];

/// A connection to the index.
#[derive(Debug)]
pub(super) struct Index {
    db: Connection,
    keys: Arc<Keys>,
    /// Where this is the connection that writes.
    writer: Option<KeyWriter>,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full(error.to_string()),
            // Our statements are always the same: where one is wrong, the tables are not ours any more.
            Some(
                rusqlite::ErrorCode::DatabaseCorrupt
                | rusqlite::ErrorCode::NotADatabase
                | rusqlite::ErrorCode::Unknown,
            ) => Self::Damaged(format!("the index does not hold: {error}")),
            _ => Self::Unavailable(format!("the index: {error}")),
        }
    }
}

/// The last connection that closes would make a checkpoint and tell nobody that it failed: the next
/// start makes it, and heeds what goes wrong.
fn end_without_a_checkpoint(db: &Connection) -> Result<(), StoreError> {
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(())
}

impl Index {
    /// Opens the index for the one writer, and brings its tables up to date.
    pub(super) fn open_writer(path: &Path) -> Result<Self, StoreError> {
        if rusqlite::version_number() < SQLITE_MIN {
            return Err(StoreError::Unavailable(format!(
                "SQLite {} can corrupt a WAL: 3.51.3 or newer is needed",
                rusqlite::version()
            )));
        }
        let db = Connection::open(path)?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        // The journal is what is durable; the index only has to be whole.
        db.pragma_update(None, "synchronous", "NORMAL")?;
        db.pragma_update(None, "wal_autocheckpoint", 0)?;
        // A log that begins anew gives its bytes back, so that its length tells what is in it.
        db.pragma_update(None, "journal_size_limit", 0)?;
        db.pragma_update(None, "cache_size", -32 * 1024)?;
        db.pragma_update(None, "cache_spill", false)?;
        db.pragma_update(None, "cell_size_check", true)?;
        end_without_a_checkpoint(&db)?;
        db.set_prepared_statement_cache_capacity(64);
        let mut index = Self { db, keys: Arc::default(), writer: None };
        index.migrate()?;
        index.begin()?;
        let writer = KeyWriter::load(&index.db, FRESH_MAX, is_own)?;
        index.db.execute_batch("COMMIT")?;
        Ok(Self { keys: Arc::clone(writer.keys()), writer: Some(writer), ..index })
    }

    /// The keys as the writer knows them, for readers.
    pub(super) fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// Opens the index for reading: a reader sees what the writer has committed to it.
    pub(super) fn open_reader(path: &Path, keys: &Arc<Keys>) -> Result<Self, StoreError> {
        let db = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        db.pragma_update(None, "query_only", true)?;
        db.pragma_update(None, "cache_size", -2 * 1024)?;
        db.pragma_update(None, "cell_size_check", true)?;
        end_without_a_checkpoint(&db)?;
        db.busy_timeout(std::time::Duration::from_secs(5))?;
        Ok(Self { db, keys: Arc::clone(keys), writer: None })
    }

    fn migrate(&mut self) -> Result<(), StoreError> {
        let version: i64 = self.db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let done = usize::try_from(version).unwrap_or(usize::MAX);
        if done > MIGRATIONS.len() {
            return Err(StoreError::Unavailable(format!(
                "the ledger is of a later release (schema {version}, this one knows {})",
                MIGRATIONS.len()
            )));
        }
        for (number, migration) in MIGRATIONS.iter().enumerate().skip(done) {
            let change = self.db.transaction()?;
            change.execute_batch(migration)?;
            change.pragma_update(None, "user_version", number as i64 + 1)?;
            change.commit()?;
        }
        Ok(())
    }

    pub(super) fn begin(&self) -> Result<(), StoreError> {
        if self.db.is_autocommit() {
            self.db.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        }
        Ok(())
    }

    /// Keeps what was applied, and up to which position of the journal that is.
    pub(super) fn commit(&self, applied: Position) -> Result<(), StoreError> {
        if self.db.is_autocommit() {
            return Ok(());
        }
        if let Some(writer) = &self.writer {
            writer.settle(&self.db)?;
        }
        self.db
            .prepare_cached("UPDATE applied SET segment = ?1, \"offset\" = ?2, sequence = ?3")?
            .execute(params![applied.segment, applied.offset, applied.sequence])?;
        self.db.prepare_cached("COMMIT")?.execute([])?;
        if let Some(writer) = &self.writer {
            writer.note_kept();
        }
        Ok(())
    }

    /// Takes back what was not kept, and begins anew. Keeps nothing: there may be no room for it.
    pub(super) fn begin_again(&self) -> Result<(), StoreError> {
        self.roll_back()?;
        self.begin()?;
        match &self.writer {
            Some(writer) if writer.is_ahead() => writer.reload(&self.db, false),
            Some(writer) => writer.gather_again(&self.db),
            None => Ok(()),
        }
    }

    pub(super) fn roll_back(&self) -> Result<(), StoreError> {
        if !self.db.is_autocommit() {
            self.db.execute_batch("ROLLBACK")?;
        }
        Ok(())
    }

    /// Goes on with the order of keys, as far as is due by what came.
    pub(super) fn tidy(&self) -> Result<(), StoreError> {
        self.writer.as_ref().map_or(Ok(()), |writer| writer.tidy(&self.db))
    }

    fn note_inserted(&self, seq: u64) {
        if let Some(writer) = &self.writer {
            writer.note_inserted(seq);
        }
    }

    fn note(&self, put: &Put<'_>) -> Option<u64> {
        self.writer.as_ref()?.note(put.key?, put.seq)
    }

    pub(super) fn applied(&self) -> Result<Position, StoreError> {
        Ok(self.db.query_row("SELECT segment, \"offset\", sequence FROM applied", [], |row| {
            Ok(Position { segment: row.get(0)?, offset: row.get(1)?, sequence: row.get(2)? })
        })?)
    }

    /// Copies the log's frames into the database file. `Restart` waits for readers and lets the
    /// log begin anew; `Passive` never waits.
    pub(super) fn checkpoint(&self, restart: bool) -> Result<(), StoreError> {
        let mode = if restart {
            "PRAGMA wal_checkpoint(RESTART)"
        } else {
            "PRAGMA wal_checkpoint(PASSIVE)"
        };
        self.db.query_row(mode, [], |_| Ok(()))?;
        Ok(())
    }

    /// Finds these by what their answers made no more.
    pub(super) fn forget_made(&self, erased: &[u64]) -> Result<(), StoreError> {
        for seq in erased {
            self.db.prepare_cached("DELETE FROM made WHERE seq = ?1")?.execute([seq])?;
        }
        Ok(())
    }

    /// Writes the tables anew and empties the log, so that nothing is left of what went; tells whether
    /// nobody hindered it.
    pub(super) fn rewrite(&self, is_packed: &mut bool) -> Result<bool, StoreError> {
        let busy = |error: &rusqlite::Error| {
            matches!(
                error.sqlite_error_code(),
                Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)
            )
        };
        let pack = || if *is_packed { Ok(()) } else { self.db.execute_batch("VACUUM") };
        let emptied = pack().and_then(|()| {
            *is_packed = true;
            self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))
        });
        match emptied {
            Ok(hindered) => Ok(hindered == 0),
            Err(error) if busy(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts a new operation in, whose key is new: no other row has it.
    pub(super) fn insert(&self, put: &Put<'_>) -> Result<(), StoreError> {
        self.db
            .prepare_cached("INSERT INTO op (seq, key, lane, kind, due, fence, row) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
            .execute(params![put.seq, put.key.map(|key| key.0), put.lane, put.kind, put.due, put.fence, put.row])?;
        self.note_inserted(put.seq);
        // Most keys were never seen; of one that was, the row before has to have given it up.
        match self.note(put) {
            Some(before) if self.own_key(before)? == put.key => not_alone(),
            _ => Ok(()),
        }
    }

    fn own_key(&self, seq: u64) -> Result<Option<KeyDigest>, StoreError> {
        let mut statement = self.db.prepare_cached("SELECT key FROM op WHERE seq = ?1")?;
        let key: Option<Option<[u8; 16]>> =
            statement.query_row([seq], |row| row.get(0)).optional()?;
        Ok(key.flatten().map(KeyDigest))
    }

    /// Replaces an operation if its fence is the one before `put.fence` and its key has not gone
    /// to a successor; tells whether it was.
    pub(super) fn update(&self, put: &Put<'_>) -> Result<bool, StoreError> {
        let changed = self
            .db
            .prepare_cached("UPDATE op SET key = ?2, kind = ?3, due = ?4, fence = ?5, row = ?6 WHERE seq = ?1 AND fence = ?5 - 1 AND (?2 IS NULL OR key IS ?2)")?
            .execute(params![put.seq, put.key.map(|key| key.0), put.kind, put.due, put.fence, put.row])?;
        if changed == 1 {
            return Ok(true);
        }
        // It gave its key up. Where the successor is gone too, the key is its own again.
        match put.key {
            Some(key) if self.fence(put.seq)? == Some(put.fence - 1) && !self.has_key(key)? => {
                self.replace(put).map(|()| true)
            }
            _ => Ok(false),
        }
    }

    fn fence(&self, seq: u64) -> Result<Option<u64>, StoreError> {
        let mut statement = self.db.prepare_cached("SELECT fence FROM op WHERE seq = ?1")?;
        Ok(statement.query_row([seq], |row| row.get(0)).optional()?)
    }

    /// Puts an operation in the place of whatever is there.
    pub(super) fn replace(&self, put: &Put<'_>) -> Result<(), StoreError> {
        let values = params![
            put.seq,
            put.key.map(|key| key.0),
            put.lane,
            put.kind,
            put.due,
            put.fence,
            put.row
        ];
        let has_its_key = self
            .db
            .prepare_cached("UPDATE op SET lane = ?3, kind = ?4, due = ?5, fence = ?6, row = ?7 WHERE seq = ?1 AND key IS ?2")?
            .execute(values)?;
        if has_its_key == 0 {
            let is_new = self.fence(put.seq)?.is_none();
            self.db
                .prepare_cached("INSERT OR REPLACE INTO op (seq, key, lane, kind, due, fence, row) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
                .execute(values)?;
            if is_new {
                self.note_inserted(put.seq);
            }
            self.note(put);
        }
        Ok(())
    }

    /// Applies a record as it stands in the journal.
    pub(super) fn apply(&self, record: &Record<'_>) -> Result<(), StoreError> {
        match record {
            Record::Body(_) => {}
            Record::Put(put) => self.replace(put)?,
            Record::Remove(seq) => {
                let removed =
                    self.db.prepare_cached("DELETE FROM op WHERE seq = ?1")?.execute([seq])?;
                self.db.prepare_cached("DELETE FROM asked WHERE seq = ?1")?.execute([seq])?;
                self.db.prepare_cached("DELETE FROM made WHERE seq = ?1")?.execute([seq])?;
                if let Some(writer) = self.writer.as_ref().filter(|_| removed == 1) {
                    writer.note_removed(*seq);
                }
            }
            Record::Lane(id, LaneRow { tenant, route, flow }) => {
                self.db
                    .prepare_cached("INSERT OR REPLACE INTO lane VALUES (?1, ?2, ?3, ?4)")?
                    .execute(params![id, tenant, route, flow])?;
            }
            Record::Setting(name, Some(value)) => {
                self.db
                    .prepare_cached("INSERT OR REPLACE INTO setting VALUES (?1, ?2)")?
                    .execute(params![name, value])?;
            }
            Record::Setting(name, None) => {
                self.db.prepare_cached("DELETE FROM setting WHERE name = ?1")?.execute([name])?;
            }
            Record::Asked(seq, count, times) => {
                self.db
                    .prepare_cached("INSERT OR REPLACE INTO asked VALUES (?1, ?2, ?3)")?
                    .execute(params![seq, count, times])?;
            }
            Record::Made(seq, pieces) => {
                let mut pieces = Records(pieces);
                while let (Some(name), Some(id)) = (pieces.text()?, pieces.text()?) {
                    self.db
                        .prepare_cached("INSERT OR IGNORE INTO made VALUES (?1, ?2, ?3)")?
                        .execute(params![id, name, seq])?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn has_key(&self, key: KeyDigest) -> Result<bool, StoreError> {
        Ok(self.by_key(key)?.is_some())
    }

    pub(super) fn by_key(&self, key: KeyDigest) -> Result<Option<Operation>, StoreError> {
        self.of_key("SELECT key, row FROM op WHERE seq = ?1", key)
    }

    pub(super) fn by_sequence(&self, seq: u64) -> Result<Option<Operation>, StoreError> {
        self.one("SELECT row FROM op WHERE seq = ?1", params![seq])
    }

    /// The operation of `key` if it is done; what is not done is not even read.
    pub(super) fn done_by_key(&self, key: KeyDigest) -> Result<Option<Operation>, StoreError> {
        self.of_key("SELECT key, row FROM op WHERE seq = ?1 AND kind = 3", key)
    }

    /// The row that has `key`, by its column and by its contents.
    fn of_key(&self, sql: &str, key: KeyDigest) -> Result<Option<Operation>, StoreError> {
        self.keys.find(&self.db, key, self.writer.is_none(), |seq| {
            let mut statement = self.db.prepare_cached(sql)?;
            let mut rows = statement.query([seq])?;
            let Some(row) = rows.next()? else {
                let is_lost = self.writer.as_ref().is_some_and(|writer| writer.is_lost(seq));
                return if is_lost { Err(gone(seq)) } else { Ok(None) };
            };
            // A key that was given up is no one's.
            let Some(own) = row.get::<_, Option<[u8; 16]>>(0)? else { return Ok(None) };
            let operation = decode(row.get_ref(1)?)?;
            let is_its_own = operation.scope.digest(&operation.key) == key;
            if is_its_own != (own == key.0) {
                return Err(StoreError::Damaged(
                    "a row of the index and its key are not of one operation".to_owned(),
                ));
            }
            Ok(Some(operation).filter(|_| is_its_own))
        })
    }

    fn one(&self, sql: &str, by: &[&dyn rusqlite::ToSql]) -> Result<Option<Operation>, StoreError> {
        let mut statement = self.db.prepare_cached(sql)?;
        let mut rows = statement.query(by)?;
        rows.next()?.map(|row| decode(row.get_ref(0)?)).transpose()
    }

    pub(super) fn due(
        &self,
        lane: i64,
        now: Timestamp,
        max: usize,
    ) -> Result<Vec<Operation>, StoreError> {
        let mut statement = self.db.prepare_cached(
            "SELECT row FROM op WHERE kind = 0 AND lane = ?1 AND due <= ?2 ORDER BY due LIMIT ?3",
        )?;
        let mut rows = statement.query(params![lane, now.as_micros(), max])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(decode(row.get_ref(0)?)?);
        }
        Ok(found)
    }

    /// Each lane with waiting work and its first due time: one seek a lane, however much waits.
    pub(super) fn lanes_due(&self) -> Result<Vec<(i64, Timestamp)>, StoreError> {
        let mut statement = self.db.prepare_cached(
            "SELECT lane, due FROM op WHERE kind = 0 AND lane > ?1 ORDER BY lane, due LIMIT 1",
        )?;
        let (mut found, mut after) = (Vec::new(), -1i64);
        while let Some((lane, due)) =
            statement.query_row([after], |row| Ok((row.get(0)?, row.get(1)?))).optional()?
        {
            found.push((lane, Timestamp::from_micros(due)));
            after = lane;
        }
        Ok(found)
    }

    pub(super) fn lanes(&self) -> Result<HashMap<Lane, i64>, StoreError> {
        let mut statement = self.db.prepare("SELECT id, tenant, route, flow FROM lane")?;
        let rows = statement.query_map([], |row| {
            Ok((Lane { tenant: row.get(1)?, route: row.get(2)?, flow: row.get(3)? }, row.get(0)?))
        })?;
        rows.collect::<Result<_, _>>().map_err(StoreError::from)
    }

    /// The number of a lane that is known.
    pub(super) fn lane(&self, lane: &Lane) -> Result<Option<i64>, StoreError> {
        let found = self
            .db
            .prepare_cached("SELECT id FROM lane WHERE tenant = ?1 AND route = ?2 AND flow = ?3")?
            .query_row(params![lane.tenant, lane.route, lane.flow], |row| row.get(0))
            .optional()?;
        Ok(found)
    }

    /// The lane of a number.
    pub(super) fn lane_of(&self, id: i64) -> Result<Option<Lane>, StoreError> {
        let found = self
            .db
            .prepare_cached("SELECT tenant, route, flow FROM lane WHERE id = ?1")?
            .query_row([id], |row| {
                Ok(Lane { tenant: row.get(0)?, route: row.get(1)?, flow: row.get(2)? })
            })
            .optional()?;
        Ok(found)
    }

    /// The highest number of a lane.
    pub(super) fn last_lane(&self) -> Result<i64, StoreError> {
        Ok(self.db.query_row("SELECT coalesce(max(id), 0) FROM lane", [], |row| row.get(0))?)
    }

    pub(super) fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let mut statement = self.db.prepare_cached("SELECT value FROM setting WHERE name = ?1")?;
        Ok(statement.query_row([name], |row| row.get(0)).optional()?)
    }

    pub(super) fn newest(&self) -> Result<u64, StoreError> {
        Ok(self.db.query_row("SELECT coalesce(max(seq), 0) FROM op", [], |row| row.get(0))?)
    }

    /// The keys that runs have and from which place on they may have none; nothing of an index that
    /// does not say how many runs it has.
    pub(super) fn kept_keys(&self) -> Result<Option<(Keys, u64)>, StoreError> {
        let counted = "SELECT 1 FROM pragma_table_info('applied') WHERE name = 'runs'";
        let is_counted = self.db.prepare(counted)?.exists([])?;
        is_counted.then(|| Keys::kept(&self.db)).transpose()
    }

    /// Whether `keys` lead from `key` to the row `seq`.
    pub(super) fn leads(&self, keys: &Keys, key: KeyDigest, seq: u64) -> Result<bool, StoreError> {
        let found = keys.find(&self.db, key, false, |other| Ok((other == seq).then_some(())))?;
        Ok(found.is_some())
    }

    /// What SQLite itself finds wrong with the file.
    pub(super) fn faults(&self) -> Result<Vec<String>, StoreError> {
        let mut statement = self.db.prepare("PRAGMA integrity_check")?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
        let said: Vec<String> = rows.collect::<Result<_, _>>()?;
        Ok(said.into_iter().filter(|line| line != "ok").collect())
    }

    /// Copies the index, as it was last committed, into a new database file.
    pub(super) fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        let mut copy = Connection::open(path)?;
        // One snapshot for all steps: else each commit meanwhile makes it begin again.
        let snapshot = self.db.unchecked_transaction()?;
        self.applied()?;
        let backup = rusqlite::backup::Backup::new(&self.db, &mut copy)?;
        backup.run_to_completion(1024, std::time::Duration::ZERO, None)?;
        drop(backup);
        Ok(snapshot.finish()?)
    }
}

/// Whether the row at `seq` is that of the operation that has `key`. One that cannot be read says so
/// when it is asked for.
fn is_own(seq: u64, key: KeyDigest, contents: &[u8]) -> bool {
    row::decode(contents).map_or(true, |operation| {
        operation.id.sequence() == seq && operation.scope.digest(&operation.key) == key
    })
}

fn gone(seq: u64) -> StoreError {
    StoreError::Damaged(format!("row {seq} of the index is gone, and was never removed"))
}

/// Two rows would have one key.
pub(super) fn not_alone() -> Result<(), StoreError> {
    use Sabotage::{KeyTakenBack, NoFence, SelectThenInsert};
    if [KeyTakenBack, NoFence, SelectThenInsert].into_iter().any(Sabotage::is_on) {
        return Ok(());
    }
    Err(StoreError::Damaged("two operations of the ledger have one key".to_owned()))
}

fn decode(value: ValueRef<'_>) -> Result<Operation, StoreError> {
    row::decode(value.as_blob().map_err(|error| StoreError::Damaged(error.to_string()))?)
}
