//! Which operation has a key: an index over random keys that is written in order.
//!
//! Keys that came lately are in memory, and in their rows. When they are many they are sorted and
//! written as a run; runs of a size are merged into a larger one, a little with each key that
//! comes, so that nobody waits for it. A new key passes the filters and reads nothing.
//!
//! An entry only leads to a row, and the row says whether the key is its own. So an entry may be
//! left of a row that is gone; none is ever missing of a row that has its key.

mod merge;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use onceward_core::key::KeyDigest;
use rusqlite::{Connection, params};

use self::merge::{Gone, Merge};
use super::runs::{Entry, Run, damaged, entry, look, seq_of};
use crate::store::StoreError;

/// Keys that are in memory and in no run, at most.
pub(super) const FRESH_MAX: usize = 32 * 1024;

/// Runs of a level that become one of the next.
const FANOUT: usize = 8;

/// Runs of a level that are merged before anything else is done: only processes that end soon leave
/// so many.
const BEHIND: usize = 2 * FANOUT;

/// Entries that a merge goes on by with each key that comes: it ends before the next one begins.
const PACE: usize = 2;

/// The work goes on once so many came: it is counted in pages.
const STRIDE: usize = 64;

/// From this level on runs are looked at for rows that are gone.
const CHECKED_LEVEL: u8 = 2;

/// A merge looks at each row where more of a hundred are gone than this.
const LOOKED_AT: usize = 25;

/// A run is written anew where more of a hundred are gone than this.
const WRITTEN_ANEW: usize = 50;

/// The keys as the writer and its readers know them.
#[derive(Debug, Default)]
pub(super) struct Keys(RwLock<Known>);

#[derive(Debug, Default)]
struct Known {
    fresh: HashMap<KeyDigest, u64>,
    /// Entries of fresh keys that went to another row since.
    displaced: Vec<Entry>,
    runs: Vec<Arc<Run>>,
}

impl Keys {
    /// What the runs have, and from which place on a key may be in none.
    pub(super) fn kept(db: &Connection) -> Result<(Self, u64), StoreError> {
        let runs: Vec<_> = Run::load_all(db)?.into_iter().map(Arc::new).collect();
        let (since, kept): (_, usize) =
            db.query_row("SELECT keys_since, runs FROM applied", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        if runs.len() != kept {
            return Err(damaged());
        }
        Ok((Self(RwLock::new(Known { runs, ..Known::default() })), since))
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where `key` may lead to, the latest first: `visit` tells whether a row is the one. `db` may
    /// see less than is known here; then `is_behind` and what is missing is passed over.
    pub(super) fn find<T>(
        &self,
        db: &Connection,
        key: KeyDigest,
        is_behind: bool,
        mut visit: impl FnMut(u64) -> Result<Option<T>, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let (fresh, pages) = self.read().candidates(key);
        for seq in fresh {
            if let Some(found) = visit(seq)? {
                return Ok(Some(found));
            }
        }
        for place in pages {
            let seqs = match look(db, place, key)? {
                Some(seqs) => seqs,
                None if is_behind => continue,
                None => return Err(damaged()),
            };
            for seq in seqs {
                if let Some(found) = visit(seq)? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }
}

impl Known {
    fn is_behind(&self) -> bool {
        let mut levels = [0; u8::MAX as usize + 1];
        self.runs.iter().for_each(|run| levels[usize::from(run.level)] += 1);
        levels.iter().any(|runs| *runs >= BEHIND)
    }

    fn candidates(&self, key: KeyDigest) -> (Vec<u64>, Vec<u64>) {
        let mut fresh: Vec<u64> = self.fresh.get(&key).copied().into_iter().collect();
        let same = |other: &&Entry| **other >> 64 == entry(key, 0) >> 64;
        fresh.extend(self.displaced.iter().filter(same).map(|entry| seq_of(*entry)));
        (fresh, self.runs.iter().rev().filter_map(|run| run.place_of(key)).collect())
    }
}

/// The writer's side: what is to be written, merged and cleared away.
#[derive(Debug)]
pub(super) struct KeyWriter {
    keys: Arc<Keys>,
    work: RefCell<Work>,
    fresh_max: usize,
    is_own: IsOwn,
}

/// Whether a row that says it has a key is that of the key's operation: place, key, contents.
pub(super) type IsOwn = fn(u64, KeyDigest, &[u8]) -> bool;

#[derive(Debug, Default)]
struct Work {
    /// The least place that is fresh.
    since: Option<u64>,
    /// The greatest place that was removed.
    removed: u64,
    counted: Counted,
    /// The number of the last run.
    last: u64,
    merges: Vec<Merge>,
    /// Pages of runs that are no more.
    dead: VecDeque<Range<u64>>,
    /// Keys that came since the merges went on.
    came: usize,
    /// Which run is looked at next for rows that are gone, and where.
    turn: u64,
    /// Whether runs are not as the index has kept them.
    is_ahead: bool,
}

/// The rows from a place on, counted: at start those that are in no run yet are all there.
#[derive(Debug, Default, Clone, Copy)]
struct Counted {
    from: u64,
    rows: u64,
}

/// Where nothing is: behind every row.
const NOWHERE: u64 = i64::MAX as u64;

impl Counted {
    /// No row: those that come are counted.
    fn none(db: &Connection) -> Result<Self, StoreError> {
        let last: Option<u64> = db.query_row("SELECT max(seq) FROM op", [], |row| row.get(0))?;
        Ok(Self { from: last.map_or(0, |last| last + 1), rows: 0 })
    }

    /// As the index has kept it, if that is how many there are.
    fn kept(db: &Connection) -> Result<Self, StoreError> {
        let (from, rows) =
            db.query_row("SELECT counted_from, counted FROM applied", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        if from == NOWHERE {
            return Self::none(db);
        }
        let found: u64 =
            db.query_row("SELECT count(*) FROM op WHERE seq >= ?1", [from], |row| row.get(0))?;
        if found != rows {
            return Err(StoreError::Damaged(format!(
                "of the index's {rows} latest rows {found} are there"
            )));
        }
        Ok(Self { from, rows })
    }
}

impl KeyWriter {
    /// Reads what the index has kept, in the transaction that is under way: commits it on the way
    /// where many rows are in no run yet, or runs are many.
    pub(super) fn load(
        db: &Connection,
        fresh_max: usize,
        is_own: IsOwn,
    ) -> Result<Self, StoreError> {
        let own = Self { keys: Arc::default(), work: RefCell::default(), fresh_max, is_own };
        own.reload(db, true)?;
        own.catch_up(db)?;
        Ok(own)
    }

    pub(super) fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// Takes all back to what the index has kept; commits on the way only if it `may_commit`.
    pub(super) fn reload(&self, db: &Connection, may_commit: bool) -> Result<(), StoreError> {
        let (Keys(kept), mut since) = Keys::kept(db)?;
        let runs = kept.into_inner().unwrap_or_else(PoisonError::into_inner).runs;
        let mut work = Work { last: runs.last().map_or(0, |run| run.number), ..Work::default() };
        // What lies between runs was of one that was not finished.
        let mut from = 0;
        for run in &runs {
            work.dead.push_back(from..run.place(0));
            from = run.place(run.pages());
        }
        work.dead.push_back(from..NOWHERE);
        work.removed = db.query_row("SELECT removed FROM applied", [], |row| row.get(0))?;
        work.counted = Counted::kept(db)?;
        self.work.replace(work);
        *self.keys.write() = Known { runs, ..Known::default() };
        self.clear_all(db)?;
        while let Some(last) = self.gather(db, since)? {
            since = last + 1;
            self.flush(db)?;
            self.advance(db)?;
            self.say(db, since)?;
            if may_commit {
                db.execute_batch("COMMIT; BEGIN IMMEDIATE")?;
                self.note_kept();
            }
        }
        Ok(())
    }

    /// Ends the merges that the processes before this one began and did not end: what is merged is
    /// kept when all of it is.
    fn catch_up(&self, db: &Connection) -> Result<(), StoreError> {
        while self.keys.read().is_behind() {
            self.begin_merges(db, &mut self.work.borrow_mut())?;
            // Runs may have gone though nothing is to be merged.
            self.say(db, self.since())?;
            while !self.work.borrow().merges.is_empty() {
                self.work.borrow_mut().came = FRESH_MAX;
                self.advance(db)?;
                self.say(db, self.since())?;
                db.execute_batch("COMMIT; BEGIN IMMEDIATE")?;
                self.note_kept();
            }
        }
        Ok(())
    }

    /// Takes back what is fresh to what the index has kept, where it has all runs.
    pub(super) fn gather_again(&self, db: &Connection) -> Result<(), StoreError> {
        let since = db.query_row("SELECT keys_since FROM applied", [], |row| row.get(0))?;
        {
            let mut known = self.keys.write();
            known.fresh.clear();
            known.displaced.clear();
            let mut work = self.work.borrow_mut();
            work.since = None;
            work.counted = Counted::kept(db)?;
        }
        match self.gather(db, since)? {
            None => Ok(()),
            // More than were ever fresh at once: an index of before.
            Some(_) => self.reload(db, false),
        }
    }

    /// Notes the keys of rows from `since` on; returns the last place where there may be more. No run
    /// leads to these rows: a key that is not what was written would be a new one.
    fn gather(&self, db: &Connection, since: u64) -> Result<Option<u64>, StoreError> {
        let mut statement = db
            .prepare_cached("SELECT seq, key, row FROM op WHERE seq >= ?1 ORDER BY seq LIMIT ?2")?;
        let mut rows = statement.query(params![since, self.fresh_max])?;
        let (mut count, mut last) = (0, None);
        while let Some(row) = rows.next()? {
            let seq = row.get(0)?;
            if let Some(key) = row.get::<_, Option<[u8; 16]>>(1)? {
                let contents = row.get_ref(2)?.as_blob().map_err(|_| damaged())?;
                if !(self.is_own)(seq, KeyDigest(key), contents) {
                    return Err(StoreError::Damaged(format!(
                        "row {seq} of the index has the key of another operation"
                    )));
                }
                self.note(KeyDigest(key), seq);
            }
            (count, last) = (count + 1, Some(seq));
        }
        Ok(last.filter(|_| count == self.fresh_max))
    }

    /// Notes that the row `seq` has `key`; tells which other row had it last, as far as that is in
    /// memory.
    pub(super) fn note(&self, key: KeyDigest, seq: u64) -> Option<u64> {
        let mut known = self.keys.write();
        let before = known.fresh.insert(key, seq).filter(|before| *before != seq);
        known.displaced.extend(before.map(|before| entry(key, before)));
        drop(known);
        let mut work = self.work.borrow_mut();
        work.since = Some(work.since.map_or(seq, |since| since.min(seq)));
        work.came += 1;
        before
    }

    /// Notes a row that was not there before.
    pub(super) fn note_inserted(&self, seq: u64) {
        let counted = &mut self.work.borrow_mut().counted;
        counted.rows += u64::from(seq >= counted.from);
    }

    /// Notes that the row `seq` is gone.
    pub(super) fn note_removed(&self, seq: u64) {
        let mut work = self.work.borrow_mut();
        work.removed = work.removed.max(seq);
        work.counted.rows -= u64::from(seq >= work.counted.from);
    }

    /// Whether the row `seq`, which was there, cannot have been removed.
    pub(super) fn is_lost(&self, seq: u64) -> bool {
        seq > self.work.borrow().removed
    }

    /// Writes what is due, and says in the index how far that is: the last act of a transaction.
    pub(super) fn settle(&self, db: &Connection) -> Result<(), StoreError> {
        self.tidy(db)?;
        self.say(db, self.since())
    }

    /// From which place on keys may be in no run: nowhere, where nothing is fresh, for whatever comes is
    /// later, or is noted.
    fn since(&self) -> u64 {
        self.work.borrow().since.unwrap_or(NOWHERE)
    }

    /// Says in the index what there is.
    fn say(&self, db: &Connection, since: u64) -> Result<(), StoreError> {
        let (work, runs) = (self.work.borrow(), self.keys.read().runs.len());
        let Counted { from, rows } = work.counted;
        db.prepare_cached(
            "UPDATE applied SET keys_since = ?1, removed = ?2, counted_from = ?3, counted = ?4, runs = ?5",
        )?
        .execute(params![since, work.removed, from, rows, runs])?;
        Ok(())
    }

    /// Notes that the transaction was kept.
    pub(super) fn note_kept(&self) {
        self.work.borrow_mut().is_ahead = false;
    }

    /// Whether runs were written that the index has not kept.
    pub(super) fn is_ahead(&self) -> bool {
        self.work.borrow().is_ahead
    }

    /// Writes a run where many keys came, and goes on with the merges.
    pub(super) fn tidy(&self, db: &Connection) -> Result<(), StoreError> {
        let is_full = {
            let known = self.keys.read();
            known.fresh.len() + known.displaced.len() >= self.fresh_max
        };
        if is_full {
            self.flush(db)?;
        }
        self.advance(db)
    }

    /// Writes what is fresh as a run.
    fn flush(&self, db: &Connection) -> Result<(), StoreError> {
        let mut entries: Vec<Entry> = {
            let known = self.keys.read();
            let fresh = known.fresh.iter().map(|(key, seq)| entry(*key, *seq));
            fresh.chain(known.displaced.iter().copied()).collect()
        };
        entries.sort_unstable();
        entries.dedup();
        let mut work = self.work.borrow_mut();
        let mut run = Run::new(work.next_number(), 0, entries.len() as u64);
        run.write(db, 0, 0, &entries)?;
        run.publish(db)?;
        let mut known = self.keys.write();
        known.runs.push(Arc::new(run));
        known.fresh.clear();
        known.displaced.clear();
        drop(known);
        work.since = None;
        work.counted = Counted::none(db)?;
        self.begin_merges(db, &mut work)
    }

    /// Lets runs go of which nothing is left, begins to merge wherever those of a level are many, and
    /// to write anew those of which little is left.
    fn begin_merges(&self, db: &Connection, work: &mut Work) -> Result<(), StoreError> {
        let gone = Gone::now(db, work.removed)?;
        let runs = self.keys.read().runs.clone();
        let is_over = |run: &Arc<Run>| run.newest < gone.before && work.is_idle(run);
        let (over, mut runs): (Vec<_>, Vec<_>) = runs.into_iter().partition(is_over);
        if !over.is_empty() {
            work.is_ahead = true;
            self.retire(db, &over, &mut work.dead)?;
        }
        for level in 0..=runs.iter().map(|run| run.level).max().unwrap_or_default() {
            let own = runs.iter().filter(|run| run.level == level && work.is_idle(run));
            let own: Vec<_> = own.cloned().collect();
            if own.len() >= FANOUT {
                work.begin(db, own, level + 1, gone)?;
            }
        }
        runs.retain(|run| run.level >= CHECKED_LEVEL && work.is_idle(run));
        work.turn += 1;
        let turn = work.turn;
        for (place, run) in (0..).zip(&runs) {
            let is_next = turn % runs.len() as u64 == place;
            let own = std::slice::from_ref(run);
            if run.is_sparse() || (is_next && gone.share(db, own, turn)? > WRITTEN_ANEW) {
                work.begin(db, own.to_vec(), run.level, gone)?;
            }
        }
        Ok(())
    }

    /// Goes on with the merges by as much as came, and clears some of what is dead.
    fn advance(&self, db: &Connection) -> Result<(), StoreError> {
        let mut work = self.work.borrow_mut();
        let work = &mut *work;
        if work.came < STRIDE {
            return Ok(());
        }
        let pace = PACE * std::mem::take(&mut work.came);
        for mut merge in std::mem::take(&mut work.merges) {
            work.is_ahead = true;
            merge.advance(db, pace)?;
            if merge.is_over() {
                self.end(db, merge, &mut work.dead)?;
            } else {
                work.merges.push(merge);
            }
        }
        work.clear(db, (pace / 16) as u64)
    }

    /// The run that was merged takes its sources' place.
    fn end(
        &self,
        db: &Connection,
        merge: Merge,
        dead: &mut VecDeque<Range<u64>>,
    ) -> Result<(), StoreError> {
        let Merge { sources, target, .. } = merge;
        self.retire(db, &sources, dead)?;
        if target.entries == 0 {
            dead.push_back(target.place(0)..target.place(target.pages()));
            return Ok(());
        }
        target.publish(db)?;
        let mut known = self.keys.write();
        known.runs.push(Arc::new(target));
        known.runs.sort_by_key(|run| run.number);
        Ok(())
    }

    /// Makes runs hold no more.
    fn retire(
        &self,
        db: &Connection,
        runs: &[Arc<Run>],
        dead: &mut VecDeque<Range<u64>>,
    ) -> Result<(), StoreError> {
        for run in runs {
            db.prepare_cached("DELETE FROM key_run WHERE run = ?1")?.execute([run.number])?;
            dead.push_back(run.place(0)..run.place(run.pages()));
        }
        let is_left = |own: &Arc<Run>| runs.iter().all(|run| run.number != own.number);
        self.keys.write().runs.retain(is_left);
        Ok(())
    }

    fn clear_all(&self, db: &Connection) -> Result<(), StoreError> {
        self.work.borrow_mut().clear(db, u64::MAX)
    }
}

impl Work {
    fn next_number(&mut self) -> u64 {
        self.is_ahead = true;
        self.last += 1;
        self.last
    }

    fn is_idle(&self, run: &Run) -> bool {
        let mut sources = self.merges.iter().flat_map(|merge| &merge.sources);
        sources.all(|source| source.number != run.number)
    }

    fn begin(
        &mut self,
        db: &Connection,
        sources: Vec<Arc<Run>>,
        level: u8,
        gone: Gone,
    ) -> Result<(), StoreError> {
        let entries = sources.iter().map(|run| run.entries).sum();
        // Each look is a row's page, anywhere in the index: few are gone, and they stay for now.
        let is_looked_at =
            level >= CHECKED_LEVEL && gone.share(db, &sources, self.turn)? > LOOKED_AT;
        let last = if is_looked_at { gone.last } else { 0 };
        let target = Run::new(self.next_number(), level, entries);
        self.merges.push(Merge::new(sources, target, Gone { last, ..gone }));
        Ok(())
    }

    /// Removes at most `pages` of runs that are no more.
    fn clear(&mut self, db: &Connection, mut pages: u64) -> Result<(), StoreError> {
        while let Some(range) = self.dead.front_mut().filter(|_| pages > 0) {
            let to = range.end.min(range.start.saturating_add(pages));
            db.prepare_cached("DELETE FROM key_page WHERE place >= ?1 AND place < ?2")?
                .execute([range.start, to])?;
            pages -= to - range.start;
            range.start = to;
            if range.is_empty() {
                self.dead.pop_front();
            }
        }
        Ok(())
    }
}
