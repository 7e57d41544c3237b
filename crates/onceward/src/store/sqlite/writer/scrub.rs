//! Erasing: the journal's end is moved on, so that what lies before it can be written anew, and the index
//! is written anew.

use std::time::Duration;

use super::Writer;
use crate::store::StoreError;
use crate::store::sqlite::journal::full_or_unavailable;

/// How often the index's log is to be emptied while somebody reads, and how long between.
const TRIES: u32 = 200;
const TRIES_APART: Duration = Duration::from_millis(20);

impl Writer {
    /// Makes the index durable up to here and goes on in a new segment; tells which.
    pub(super) fn seal(&mut self) -> Result<u32, StoreError> {
        self.settle()?;
        // Later starts apply nothing of the segments that are written anew.
        self.sync_index().inspect_err(|error| self.heed_checkpoint(error))?;
        if self.journal.end().offset > 0 {
            self.journal.roll().map_err(|error| full_or_unavailable(&error))?;
        }
        Ok(self.journal.end().segment)
    }

    /// Writes the index anew. Calls wait as long as that takes.
    pub(super) fn rewrite(&mut self, erased: &[u64]) -> Result<(), StoreError> {
        self.settle()?;
        self.index.begin()?;
        self.index.forget_made(erased)?;
        self.unkept += 1;
        self.settle()?;
        let mut is_packed = false;
        for _ in 0..TRIES {
            if self.index.rewrite(&mut is_packed)? {
                return Ok(());
            }
            std::thread::sleep(TRIES_APART);
        }
        Err(StoreError::Away("the index is being read all the time".to_owned()))
    }

    /// Everything written and in the index.
    fn settle(&mut self) -> Result<(), StoreError> {
        if self.flush() && self.keep(true) {
            return Ok(());
        }
        let lost = || StoreError::Away("the ledger could not be written".to_owned());
        Err(self.broken.clone().unwrap_or_else(lost))
    }
}
