//! Everything that a ledger on disk says of itself, held against itself: SQLite's own check, every
//! frame and body of the journal, every row and its columns, that its key leads to it and to no other,
//! and that the index has what the journal says it has.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::index::Index;
use super::journal::{Position, Segments};
use super::record::{Put, Record, Records};
use crate::store::row::{self, kind};
use crate::store::{Standing, StoreError};
use onceward_core::operation::State;

/// What an examination of a ledger found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examined {
    /// Operations in the index.
    pub operations: u64,
    /// Frames in the journal.
    pub frames: u64,
    /// Requests and answers that were read.
    pub bodies: u64,
    /// What does not hold, in words, the file first.
    pub faults: Vec<String>,
}

impl fmt::Display for Examined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operations, frames, bodies, faults } = self;
        write!(f, "{operations} operations, {frames} frames, {bodies} bodies")?;
        faults.iter().try_for_each(|fault| write!(f, "\n{fault}"))
    }
}

/// What the journal says of an operation in the end: its fence, or that it is gone.
type Last = HashMap<u64, (Position, Option<u64>)>;

pub(super) fn examine(path: &Path, folder: &Path) -> Result<Examined, StoreError> {
    let mut found = Examined::default();
    let segments = Segments::open(folder)
        .map_err(|error| StoreError::Unavailable(format!("{}: {error}", folder.display())))?;
    let mut last = Last::new();
    let read = segments.frames(|payload, after| {
        found.frames += 1;
        note(payload, after, &mut last)
    });
    if let Err(error) = read {
        found.faults.push(format!("{}: {error}", folder.display()));
    }
    if let Err(error) = examine_index(path, &segments, &last, &mut found) {
        found.faults.push(format!("{}: {error}", path.display()));
    }
    Ok(found)
}

fn note(payload: &[u8], after: Position, last: &mut Last) -> Result<(), StoreError> {
    let mut records = Records(payload);
    while let Some(record) = records.next()? {
        match record {
            Record::Put(put) => last.insert(put.seq, (after, Some(put.fence))),
            Record::Remove(seq) => last.insert(seq, (after, None)),
            _ => None,
        };
    }
    Ok(())
}

fn examine_index(
    path: &Path,
    segments: &Segments,
    last: &Last,
    found: &mut Examined,
) -> Result<(), StoreError> {
    let name = path.display();
    let index = Index::open_reader(path, &Arc::default())?;
    found.faults.extend(index.faults()?.into_iter().map(|fault| format!("{name}: {fault}")));
    let applied = index.applied()?;
    let lanes = index.lanes()?;
    let keys = index.kept_keys()?;
    let (mut fences, mut owners) = (HashMap::new(), HashMap::new());
    index.columns(|put| {
        found.operations += 1;
        fences.insert(put.seq, put.fence);
        if let Some(other) = put.key.and_then(|key| owners.insert(key, put.seq)) {
            found.faults.push(format!("{name}: rows {other} and {} have one key", put.seq));
        }
        if let (Some((keys, since)), Some(key)) = (&keys, put.key)
            && put.seq < *since
            && !index.leads(keys, key, put.seq)?
        {
            found.faults.push(format!("{name}: no run of keys leads to row {}", put.seq));
        }
        let operation = match row::decode(put.row) {
            Ok(operation) => operation,
            Err(error) => {
                found.faults.push(format!("{name}: row {}: {error}", put.seq));
                return Ok(());
            }
        };
        let digest = operation.scope.digest(&operation.key);
        let standing = Standing::of(&operation);
        let due = match operation.state {
            State::Pending { due } if standing == Standing::Pending => Some(due.as_micros()),
            // Nobody looks for it by its time, and it may be there or not.
            _ => put.due,
        };
        let lane = crate::store::Lane::of(&operation);
        let holds = Put {
            seq: operation.id.sequence(),
            // A key that was given up is no one's.
            key: put.key.map(|_| digest),
            lane: lanes.get(&lane).copied().unwrap_or_default(),
            kind: kind(standing),
            due,
            fence: operation.fence.0,
            row: put.row,
        };
        if holds != *put {
            found.faults.push(format!("{name}: row {} and its columns differ", put.seq));
        }
        for body in operation.bodies() {
            found.bodies += 1;
            if let Err(error) = segments.read(body) {
                found.faults.push(format!("{name}: row {}: {error}", put.seq));
            }
        }
        Ok(())
    })?;
    // What the index says that it has applied, it has.
    for (seq, (after, fence)) in last {
        let has = fences.get(seq).copied();
        let lags = match (has, fence) {
            (Some(has), Some(fence)) => has < *fence,
            (None, Some(_)) | (Some(_), None) => true,
            (None, None) => false,
        };
        if lags && after.sequence <= applied.sequence {
            found.faults.push(format!("{name}: row {seq} is not what the journal says"));
        }
    }
    Ok(())
}
