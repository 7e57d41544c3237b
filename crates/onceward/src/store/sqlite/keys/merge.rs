//! A merge: several runs become one, slice by slice, without the entries whose rows are gone.

use std::sync::Arc;

use rusqlite::Connection;

use crate::store::StoreError;
use crate::store::sqlite::runs::{Entry, Run, seq_of};

/// Which rows are gone, as far as that is known without looking: all before the first that is there,
/// and none after the last that was removed. A row that comes back is noted anew.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gone {
    pub(super) before: u64,
    pub(super) last: u64,
}

impl Gone {
    /// As it is now, where `last` was the last to be removed.
    pub(super) fn now(db: &Connection, last: u64) -> Result<Self, StoreError> {
        let mut statement = db.prepare_cached("SELECT min(seq) FROM op")?;
        let first: Option<u64> = statement.query_row([], |row| row.get(0))?;
        Ok(Self { before: first.unwrap_or(u64::MAX), last })
    }

    /// The entries whose rows are there, or may be.
    fn left(self, db: &Connection, entries: &[Entry]) -> Result<Vec<Entry>, StoreError> {
        let mut statement = db.prepare_cached("SELECT 1 FROM op WHERE seq = ?1")?;
        let mut left = Vec::with_capacity(entries.len());
        for entry in entries {
            let seq = seq_of(*entry);
            if seq >= self.before && (seq > self.last || statement.exists([seq])?) {
                left.push(*entry);
            }
        }
        Ok(left)
    }

    /// How many entries of a hundred are gone, by one page of each of `runs`.
    pub(super) fn share(
        self,
        db: &Connection,
        runs: &[Arc<Run>],
        turn: u64,
    ) -> Result<usize, StoreError> {
        let mut entries = Vec::new();
        for run in runs {
            run.read(db, turn % run.pages(), run.bits, &mut entries)?;
        }
        let gone = entries.len() - self.left(db, &entries)?.len();
        Ok(gone * 100 / entries.len().max(1))
    }
}

#[derive(Debug)]
pub(super) struct Merge {
    pub(super) sources: Vec<Arc<Run>>,
    pub(super) target: Run,
    gone: Gone,
    /// How many slices there are, by the logarithm: a source has a page in each, or some of one.
    slices: u8,
    next: u64,
    /// Entries of the target's page that goes on with the next slice.
    begun: Vec<Entry>,
}

impl Merge {
    pub(super) fn new(sources: Vec<Arc<Run>>, target: Run, gone: Gone) -> Self {
        let slices = sources.iter().map(|run| run.bits).max().unwrap_or_default();
        Self { sources, target, gone, slices, next: 0, begun: Vec::new() }
    }

    pub(super) fn is_over(&self) -> bool {
        self.next >> self.slices > 0
    }

    /// Merges slice by slice, until `pace` entries are through.
    pub(super) fn advance(&mut self, db: &Connection, mut pace: usize) -> Result<(), StoreError> {
        let mut entries = Vec::new();
        while pace > 0 && !self.is_over() {
            entries.clear();
            for source in &self.sources {
                source.read(db, self.next, self.slices, &mut entries)?;
            }
            pace = pace.saturating_sub(entries.len().max(self.sources.len()));
            entries.sort_unstable();
            entries.dedup();
            self.begun.extend(self.gone.left(db, &entries)?);
            if self.target.has_whole_pages(self.next, self.slices) {
                self.target.write(db, self.next, self.slices, &self.begun)?;
                self.begun.clear();
            }
            self.next += 1;
        }
        Ok(())
    }
}
