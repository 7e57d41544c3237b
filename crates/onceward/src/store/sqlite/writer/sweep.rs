//! Forgetting: rows by their time, and segments that no row needs.

use std::fs::File;
use std::sync::atomic::Ordering;

use onceward_core::admission;
use onceward_core::time::Timestamp;

use super::Writer;
use crate::judgement;
use crate::sabotage::Sabotage;
use crate::store::sqlite::journal::full_or_unavailable;
use crate::store::sqlite::record::Record;
use crate::store::sqlite::unavailable;
use crate::store::{StoreError, Swept, Which, digest_of};

impl Writer {
    pub(super) fn sweep(
        &mut self,
        now: Timestamp,
        from: u64,
        max: usize,
    ) -> Result<Swept, StoreError> {
        if from == 0 {
            self.floor = self.journal.end().segment;
            self.age(0)?;
        }
        let mut swept = Swept::default();
        let page = self.index.after(from, max)?;
        swept.next = page.last().filter(|_| page.len() == max).map(|(seq, _)| *seq);
        for (seq, operation) in page {
            let expired = judgement::is_expired(&operation, now);
            if expired
                && (admission::is_tombstone_over(&operation, now)
                    || admission::leaves_no_tombstone(&operation))
            {
                self.record(&Record::Remove(seq))?;
                swept.removed += 1;
            } else if (expired && admission::is_more_than_its_mark(&operation))
                || (operation.request.is_some() && admission::are_bodies_over(&operation, now))
            {
                let left = if expired {
                    operation.forgotten_but_for_its_mark()
                } else {
                    operation.without_bodies()
                };
                // Its key may have gone to a successor; then only the history is stripped.
                let digest = digest_of(&operation);
                let owns =
                    self.find(Which::Key(digest))?.is_some_and(|owner| owner.id == operation.id);
                self.put_with_key(&left, owns.then_some(digest), false)?;
                swept.forgotten += u32::from(expired);
            } else {
                let bodies = operation.bodies().filter(|_| !Sabotage::SegmentDropped.is_on());
                self.floor = bodies.map(|body| body.segment).fold(self.floor, u32::min);
            }
        }
        if swept.next.is_none() {
            self.drop_segments();
        }
        Ok(swept)
    }

    /// Removes the segments that neither an operation nor the index needs any more.
    pub(super) fn drop_segments(&mut self) {
        // Neither readers nor a later start may see rows that still refer to what goes: what was to
        // be forgotten has to be durable, and in the index.
        if !self.flush() || !self.keep(true) {
            return;
        }
        let copying = self.shared.copying.load(Ordering::SeqCst) > 0;
        if self.broken.is_some() || (copying && !Sabotage::BackupUnguarded.is_on()) {
            return;
        }
        // What the index has committed outlives the process, and a power cut only once it is synced:
        // until then a start may need the journal from an earlier place on. The next pass tries again.
        if let Err(error) = self.sync_index() {
            self.heed_checkpoint(&error);
            return;
        }
        let needed = self.index.applied().map_or(0, |applied| applied.segment);
        // A file that could not be removed is met again by the next pass.
        let _ =
            self.journal.segments().remove_before(self.floor.min(needed), self.journal.folder());
    }

    /// Makes durable what the index has committed: all of it is in the log, or was synced when it
    /// was copied.
    pub(super) fn sync_index(&self) -> Result<(), StoreError> {
        let wal = File::options().write(true).open(&self.wal);
        // Without a descriptor for it nothing was asked of the disk.
        let wal = wal.map_err(|error| match full_or_unavailable(&error) {
            full @ StoreError::Full(_) => full,
            _ => unavailable(&self.wal, &error),
        })?;
        wal.sync_data().map_err(|error| unavailable(&self.wal, &error))
    }
}
