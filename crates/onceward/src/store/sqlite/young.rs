//! Rows that the index does not have yet. Most operations are settled moments after they were
//! remembered, so the index is spared the first of two writes: a row goes there once, a little
//! later. The journal has it all along; nothing here outlives the process or has to.
//!
//! What waits in a lane is never here: the index has to find it when it is due.

use std::collections::{HashMap, VecDeque};

use onceward_core::key::KeyDigest;

use super::journal::Position;
use super::record::Put;

/// Rows that stay here at most; the oldest go first.
pub(super) const YOUNG_MAX: usize = 2048;

#[derive(Debug)]
struct Row {
    key: Option<KeyDigest>,
    lane: i64,
    kind: u8,
    fence: u64,
    bytes: Vec<u8>,
    /// The frame that it was born in: from there the journal has all of it.
    since: Position,
}

/// Rows in order of birth.
#[derive(Debug, Default)]
pub(super) struct Young {
    rows: HashMap<u64, Row>,
    order: VecDeque<u64>,
    keys: HashMap<KeyDigest, u64>,
}

impl Young {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn has_key(&self, key: KeyDigest) -> bool {
        self.keys.contains_key(&key)
    }

    /// The row that has `key`.
    pub(super) fn owner(&self, key: KeyDigest) -> Option<u64> {
        self.keys.get(&key).copied()
    }

    /// The key that a row here has.
    pub(super) fn key(&self, seq: u64) -> Option<KeyDigest> {
        self.rows.get(&seq)?.key
    }

    pub(super) fn by_key(&self, key: KeyDigest) -> Option<&[u8]> {
        self.by_sequence(*self.keys.get(&key)?)
    }

    pub(super) fn by_sequence(&self, seq: u64) -> Option<&[u8]> {
        self.rows.get(&seq).map(|row| row.bytes.as_slice())
    }

    /// The fence of a row that is here.
    pub(super) fn fence(&self, seq: u64) -> Option<u64> {
        self.rows.get(&seq).map(|row| row.fence)
    }

    /// From where the journal is needed for what is here.
    pub(super) fn since(&mut self) -> Option<Position> {
        while let Some(seq) = self.order.front() {
            match self.rows.get(seq) {
                Some(row) => return Some(row.since),
                None => self.order.pop_front(),
            };
        }
        None
    }

    /// Puts a row in that is born at `now`, or in the place of the one that is there.
    pub(super) fn put(&mut self, put: &Put<'_>, now: Position) {
        let since = self.rows.get(&put.seq).map_or(now, |row| row.since);
        let row = Row {
            key: put.key,
            lane: put.lane,
            kind: put.kind,
            fence: put.fence,
            bytes: put.row.to_vec(),
            since,
        };
        if let Some(key) = put.key {
            self.keys.insert(key, put.seq);
        }
        match self.rows.insert(put.seq, row) {
            None => self.order.push_back(put.seq),
            Some(before) if before.key != put.key => self.forget_key(before.key, put.seq),
            Some(_) => {}
        }
    }

    /// Takes a row out; its place in the order is passed over later.
    pub(super) fn remove(&mut self, seq: u64) {
        if let Some(row) = self.rows.remove(&seq) {
            self.forget_key(row.key, seq);
        }
    }

    /// The oldest row goes, to `apply`.
    pub(super) fn pop<T>(&mut self, apply: impl FnOnce(&Put<'_>) -> T) -> Option<T> {
        loop {
            let seq = self.order.pop_front()?;
            let Some(row) = self.rows.remove(&seq) else { continue };
            self.forget_key(row.key, seq);
            let put = Put {
                seq,
                key: row.key,
                lane: row.lane,
                kind: row.kind,
                due: None,
                fence: row.fence,
                row: &row.bytes,
            };
            return Some(apply(&put));
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn forget_key(&mut self, key: Option<KeyDigest>, seq: u64) {
        if let Some(key) = key.filter(|key| self.keys.get(key) == Some(&seq)) {
            self.keys.remove(&key);
        }
    }
}
