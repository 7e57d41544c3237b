//! What the index keeps, and when; and the way back where it could not.

use std::time::{Duration, Instant};

use super::Writer;
use crate::sabotage::Sabotage;
use crate::store::StoreError;
use crate::store::sqlite::index::Index;
use crate::store::sqlite::journal::Journal;
use crate::store::sqlite::record::Records;

/// The index keeps what was applied at least this often, or after this many commands: what comes
/// meanwhile waits for it, so there is little at once.
pub(super) const INDEX_COMMIT_EVERY: Duration = Duration::from_millis(500);
const INDEX_COMMIT_AFTER: usize = 4 * 1024;

/// A log that grew by this much is copied, beside the writer.
const WAL_BYTES: u64 = 8 << 20;

/// A log longer than this is finished by the writer itself, so that it begins anew.
const WAL_BYTES_MAX: u64 = 64 << 20;

impl Writer {
    /// Lets the oldest rows go to the index, until no more than `left` are young.
    pub(super) fn age(&mut self, left: usize) -> Result<(), StoreError> {
        if self.young.len() <= left {
            return Ok(());
        }
        self.index.begin()?;
        while self.young.len() > left {
            let index = &self.index;
            let Some(inserted) = self.young.pop(|put| index.insert(put)) else { break };
            inserted?;
        }
        self.index.tidy()
    }

    /// Lets the index keep what was applied to it, where that is due or `now`; tells whether that
    /// went well.
    pub(super) fn keep(&mut self, now: bool) -> bool {
        let is_due = self.unkept >= INDEX_COMMIT_AFTER
            || self.unkept_since.is_some_and(|since| since.elapsed() >= INDEX_COMMIT_EVERY);
        if self.broken.is_some() || !(now || is_due) {
            return self.broken.is_none();
        }
        self.unkept = 0;
        // What stays young goes at the next quiet moment.
        self.unkept_since = (!now && self.young.len() > 0).then(Instant::now);
        // In a hurry nothing stays young; else the journal stays needed from the oldest on, and
        // applying some of it twice changes nothing.
        let aged = if now { self.age(0) } else { Ok(()) };
        let since = self.young.since().filter(|_| !Sabotage::IndexAhead.is_on());
        let applied = since.unwrap_or_else(|| self.journal.end());
        if let Err(error) = aged.and_then(|()| self.index.commit(applied)) {
            self.heed(&error);
            self.reindex();
            return false;
        }
        let wal_bytes = std::fs::metadata(&self.wal).map_or(0, |wal| wal.len());
        if wal_bytes > WAL_BYTES_MAX {
            // While the writer itself copies the last frames no new ones come, so the log begins anew.
            if let Err(error) = self.index.checkpoint(false) {
                self.heed_checkpoint(&error);
            }
            self.copied_bytes = 0;
        } else if now || wal_bytes.abs_diff(self.copied_bytes) > WAL_BYTES {
            self.copied_bytes = wal_bytes;
            let _ = self.checkpointer.try_send(());
        }
        self.broken.is_none()
    }

    /// Takes the index back to what it has kept and applies the journal again: what was applied
    /// and did not become durable never was.
    pub(super) fn reindex(&mut self) {
        if matches!(self.broken, Some(StoreError::Unavailable(_) | StoreError::Damaged(_))) {
            let _ = self.index.roll_back();
            return;
        }
        if let Err(error) = self.try_reindex() {
            // There is no way back from here but a start, even where there is room again.
            self.broken = Some(match error {
                StoreError::Full(why) => StoreError::Unavailable(why),
                error => error,
            });
        }
    }

    fn try_reindex(&mut self) -> Result<(), StoreError> {
        self.index.begin_again()?;
        self.young.clear();
        let applied = self.index.applied()?;
        let index = &self.index;
        let mut end = applied;
        // A second reader of the same files: the journal's end stays where it is.
        Journal::open(self.journal.folder(), 0, applied, |payload, after| {
            end = after;
            apply_all(index, payload)
        })?;
        if end.sequence != self.journal.end().sequence && end != applied {
            return Err(StoreError::Damaged("the journal's end is not where it was".to_owned()));
        }
        self.lanes.clear();
        self.lane_names.clear();
        self.last_met = None;
        self.last_lane = self.index.last_lane()?;
        self.unkept_since = Some(Instant::now());
        Ok(())
    }
}

/// Applies every record of a frame to the index.
pub(in crate::store::sqlite) fn apply_all(index: &Index, payload: &[u8]) -> Result<(), StoreError> {
    let mut records = Records(payload);
    while let Some(record) = records.next()? {
        index.apply(&record)?;
    }
    Ok(())
}
