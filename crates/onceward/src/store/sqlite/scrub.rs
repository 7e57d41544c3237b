//! Erasing: segments are written anew without what the erased operations had, each whole and then in the
//! place of the old one, so that a crash leaves either. Frames keep their places, numbers and lengths;
//! bodies and rows of the erased are zeros from then on.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use onceward_core::attempt::BodyRef;
use onceward_core::id::OperationId;

use super::backup::Copying;
use super::inbox::Command;
use super::journal::{Edit, Segments, path_of, sealed};
use super::record::{Record, Records};
use super::{SqliteStore, journal_of};
use crate::sabotage::Sabotage;
use crate::store::{StoreError, row};

/// A segment that is being written anew; one that a crash left is written over.
const UNDER_WAY: &str = "anew";

impl SqliteStore {
    pub(super) async fn scrub_for_good(
        &self,
        erased: Vec<(OperationId, Vec<BodyRef>)>,
    ) -> Result<(), StoreError> {
        if Sabotage::ErasedBodyLeft.is_on() {
            return Ok(());
        }
        let _no_copy_is_made = self.shared.changes_segments.lock().await;
        let _no_segment_goes = Copying::begin(&self.shared.copying);
        let end = self.ask(Command::Seal).await?;
        let sequences: Vec<u64> = erased.iter().map(|(id, _)| id.sequence()).collect();
        let scrub = Scrub {
            operations: sequences.iter().copied().collect(),
            bodies: erased.iter().flat_map(|(_, bodies)| bodies).map(place_of).collect(),
        };
        let (segments, folder) = (self.segments.clone(), journal_of(&self.path));
        tokio::task::spawn_blocking(move || scrub.run(&segments, &folder, end))
            .await
            .map_err(|error| StoreError::Unavailable(error.to_string()))??;
        self.ask(|answer| Command::Rewrite(sequences, answer)).await
    }
}

fn place_of(body: &BodyRef) -> (u32, u32) {
    (body.segment, body.offset)
}

/// What goes.
struct Scrub {
    operations: HashSet<u64>,
    /// Where their bodies begin.
    bodies: HashSet<(u32, u32)>,
}

impl Scrub {
    fn run(mut self, segments: &Segments, folder: &Path, end: u32) -> Result<(), StoreError> {
        let io = |error: io::Error| StoreError::Away(format!("writing a segment anew: {error}"));
        let before: Vec<u32> =
            segments.numbers().into_iter().filter(|segment| *segment < end).collect();
        for segment in &before {
            segments.frames_of(*segment, |payload, _| self.find(payload))?;
        }
        for segment in before {
            let mut edits = Vec::new();
            segments.frames_of(segment, |payload, at| {
                let mut cleared = payload.to_vec();
                if self.clear(payload, &mut cleared, (at.segment, at.offset))? {
                    edits.push(sealed(at, &cleared));
                }
                Ok(())
            })?;
            if !edits.is_empty() {
                let file = write_anew(folder, segment, &edits).map_err(io)?;
                segments.put(segment, Arc::new(file));
            }
        }
        Ok(())
    }

    /// Finds bodies that rows of the erased referred to at any time: a request that was brought anew has
    /// taken the place of another.
    fn find(&mut self, payload: &[u8]) -> Result<(), StoreError> {
        let mut records = Records(payload);
        while let Some(record) = records.next()? {
            if let Record::Put(put) = record
                && self.operations.contains(&put.seq)
                // One that cannot be read was cleared before.
                && let Ok(operation) = row::decode(put.row)
            {
                self.bodies.extend(operation.bodies().map(|body| place_of(&body)));
            }
        }
        Ok(())
    }

    /// Clears what goes of a frame whose payload begins at `at`; tells whether there was something.
    fn clear(
        &self,
        payload: &[u8],
        cleared: &mut [u8],
        at: (u32, u32),
    ) -> Result<bool, StoreError> {
        let mut is_changed = false;
        let mut records = Records(payload);
        while let Some(record) = records.next()? {
            let goes = match &record {
                Record::Put(put) if self.operations.contains(&put.seq) => put.row,
                Record::Made(seq, pieces) if self.operations.contains(seq) => pieces,
                Record::Body(bytes) => {
                    let place = place_in(payload, bytes);
                    if !self.bodies.contains(&(at.0, at.1 + place as u32)) {
                        continue;
                    }
                    bytes
                }
                _ => continue,
            };
            let place = place_in(payload, goes);
            cleared[place..place + goes.len()].fill(0);
            is_changed |= goes.iter().any(|byte| *byte != 0);
        }
        Ok(is_changed)
    }
}

/// Where a part of `whole` begins in it.
fn place_in(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr() as usize - whole.as_ptr() as usize
}

fn write_anew(folder: &Path, segment: u32, edits: &[Edit]) -> io::Result<File> {
    let (path, anew) = (path_of(folder, segment), folder.join(UNDER_WAY));
    fs::copy(&path, &anew)?;
    let file = OpenOptions::new().read(true).write(true).open(&anew)?;
    for edit in edits {
        file.write_all_at(&edit.frame, edit.offset)?;
    }
    file.sync_all()?;
    fs::rename(&anew, &path)?;
    File::open(folder)?.sync_all()?;
    Ok(file)
}
