//! The files of the journal, and what is read from them.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use onceward_core::attempt::BodyRef;

use super::torn::refuse_damage;
use super::{HEADER_BYTES, MAGIC, Position, read_no_further};
use crate::sabotage::Sabotage;
use crate::store::StoreError;

/// The segments, open for reading; shared with whoever reads bodies.
#[derive(Debug, Clone, Default)]
pub(in crate::store::sqlite) struct Segments(Arc<RwLock<BTreeMap<u32, Arc<File>>>>);

impl Segments {
    /// All that are in `folder`.
    pub(in crate::store::sqlite) fn open(folder: &Path) -> io::Result<Self> {
        let segments = Self::default();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(segment) =
                name.to_str().and_then(|name| name.strip_prefix("segment-")?.parse().ok())
            else {
                continue;
            };
            let file = OpenOptions::new().read(true).write(true).open(entry.path())?;
            read_no_further(&file);
            segments.add(segment, Arc::new(file));
        }
        Ok(segments)
    }

    /// Hands every frame to `visit`, oldest first, with the position after it. A frame that does not
    /// hold is the end only where none holds behind it.
    pub(in crate::store::sqlite) fn frames(
        &self,
        mut visit: impl FnMut(&[u8], Position) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut end: Option<Position> = None;
        for segment in self.numbers() {
            let file = self.get(segment).ok_or_else(|| missing(segment))?;
            let sequence = match end {
                Some(end) => end.sequence,
                None => first_sequence(&file).map_err(|error| unreadable(&error))?,
            };
            let start = Position { segment, offset: 0, sequence };
            let goes_on = read_frame(&file, start).map_err(|error| unreadable(&error))?.is_some();
            if let Some(end) = end.filter(|end| goes_on && end.segment + 1 != segment) {
                return Err(missing(end.segment + 1));
            }
            // One that was allocated ahead has none.
            if goes_on || end.is_none() {
                end = Some(replay_segment(&file, start, &mut visit)?);
            }
        }
        end.map_or(Ok(()), |end| refuse_damage(self, end))
    }

    /// Hands the payload of every frame of a segment to `visit`, with where it begins and the number of
    /// its frame.
    pub(in crate::store::sqlite) fn frames_of(
        &self,
        segment: u32,
        mut visit: impl FnMut(&[u8], Position) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let file = self.get(segment).ok_or_else(|| missing(segment))?;
        let sequence = first_sequence(&file).map_err(|error| unreadable(&error))?;
        let start = Position { segment, offset: 0, sequence };
        replay_segment(&file, start, &mut |payload, after| {
            let offset = after.offset - payload.len() as u32;
            visit(payload, Position { offset, sequence: after.sequence - 1, ..after })
        })?;
        Ok(())
    }

    /// Puts a segment that was written anew in the place of the old one.
    pub(in crate::store::sqlite) fn put(&self, segment: u32, file: Arc<File>) {
        read_no_further(&file);
        self.add(segment, file);
    }

    pub(super) fn get(&self, segment: u32) -> Option<Arc<File>> {
        self.0.read().ok()?.get(&segment).cloned()
    }

    pub(super) fn add(&self, segment: u32, file: Arc<File>) {
        if let Ok(mut open) = self.0.write() {
            open.insert(segment, file);
        }
    }

    pub(in crate::store::sqlite) fn numbers(&self) -> Vec<u32> {
        self.0.read().map(|open| open.keys().copied().collect()).unwrap_or_default()
    }

    /// The bytes of a body, if they are the ones that were written.
    pub(in crate::store::sqlite) fn read(&self, body: BodyRef) -> Result<Bytes, StoreError> {
        let bytes = self.read_part(body, 0, body.length)?;
        if crc32fast::hash(&bytes) != body.crc && !Sabotage::ChecksumIgnored.is_on() {
            return Err(StoreError::Damaged(format!(
                "{} at {}: a body's bytes are not the ones that were written",
                name_of(body.segment),
                body.offset
            )));
        }
        Ok(bytes)
    }

    /// At most `length` bytes of a body from `from` on, unchecked.
    pub(in crate::store::sqlite) fn read_part(
        &self,
        body: BodyRef,
        from: u32,
        length: u32,
    ) -> Result<Bytes, StoreError> {
        let file = self.get(body.segment).ok_or_else(|| missing(body.segment))?;
        let from = from.min(body.length);
        let mut bytes = vec![0; length.min(body.length - from) as usize];
        let place = u64::from(body.offset) + u64::from(from);
        file.read_exact_at(&mut bytes, place).map_err(|error| {
            StoreError::Unavailable(format!("reading {}: {error}", name_of(body.segment)))
        })?;
        Ok(bytes.into())
    }

    /// Forgets every segment before `floor` and removes its file.
    pub(in crate::store::sqlite) fn remove_before(
        &self,
        floor: u32,
        folder: &Path,
    ) -> io::Result<()> {
        let Ok(mut open) = self.0.write() else {
            return Ok(());
        };
        let kept = open.split_off(&floor);
        let removed = std::mem::replace(&mut *open, kept);
        drop(open);
        removed.keys().try_for_each(|segment| fs::remove_file(path_of(folder, *segment)))
    }
}

/// A frame that is written in the place of one of the same length.
pub(in crate::store::sqlite) struct Edit {
    pub(in crate::store::sqlite) offset: u64,
    pub(in crate::store::sqlite) frame: Vec<u8>,
}

/// The frame of a payload that begins at `at`.
pub(in crate::store::sqlite) fn sealed(at: Position, payload: &[u8]) -> Edit {
    let mut frame = vec![0; HEADER_BYTES];
    frame.extend_from_slice(payload);
    fill_header(&mut frame, at);
    Edit { offset: u64::from(at.offset) - HEADER_BYTES as u64, frame }
}

/// Fills in the header of a frame, whose payload is behind it.
pub(super) fn fill_header(frame: &mut [u8], at: Position) {
    let payload = frame.len() - HEADER_BYTES;
    let crc = checksum(at, &frame[HEADER_BYTES..]);
    frame[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    frame[4..8].copy_from_slice(&(payload as u32).to_le_bytes());
    frame[8..16].copy_from_slice(&at.sequence.to_le_bytes());
    frame[16..20].copy_from_slice(&crc.to_le_bytes());
}

/// The number of a segment's first frame, as its header says.
pub(super) fn first_sequence(file: &File) -> io::Result<u64> {
    let mut number = [0; 8];
    file.read_exact_at(&mut number, 8)?;
    Ok(u64::from_le_bytes(number))
}

pub(super) fn name_of(segment: u32) -> String {
    format!("segment-{segment:08}")
}

pub(in crate::store::sqlite) fn path_of(folder: &Path, segment: u32) -> PathBuf {
    folder.join(name_of(segment))
}

pub(super) fn missing(segment: u32) -> StoreError {
    StoreError::Damaged(format!("{} is missing from the journal", name_of(segment)))
}

pub(super) fn unreadable(error: &io::Error) -> StoreError {
    StoreError::Unavailable(format!("reading the journal: {error}"))
}

/// The payload of the frame at `at`, if one holds there.
pub(super) fn read_frame(file: &File, at: Position) -> io::Result<Option<Vec<u8>>> {
    let mut header = [0; HEADER_BYTES];
    let size = file.metadata()?.len();
    let offset = u64::from(at.offset);
    if offset + HEADER_BYTES as u64 > size {
        return Ok(None);
    }
    file.read_exact_at(&mut header, offset)?;
    let word = |place: usize| {
        u32::from_le_bytes([header[place], header[place + 1], header[place + 2], header[place + 3]])
    };
    let sequence = u64::from(word(8)) | u64::from(word(12)) << 32;
    let length = u64::from(word(4));
    if word(0) != MAGIC || sequence != at.sequence || offset + HEADER_BYTES as u64 + length > size {
        return Ok(None);
    }
    let mut payload = vec![0; length as usize];
    file.read_exact_at(&mut payload, offset + HEADER_BYTES as u64)?;
    let holds = checksum(at, &payload) == word(16) || Sabotage::ChecksumIgnored.is_on();
    Ok(holds.then_some(payload))
}

pub(super) fn replay_segment(
    file: &File,
    mut at: Position,
    replay: &mut impl FnMut(&[u8], Position) -> Result<(), StoreError>,
) -> Result<Position, StoreError> {
    while let Some(payload) = read_frame(file, at).map_err(|error| unreadable(&error))? {
        at.offset += (HEADER_BYTES + payload.len()) as u32;
        at.sequence += 1;
        replay(&payload, at)?;
    }
    Ok(at)
}

pub(super) fn checksum(at: Position, payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&at.segment.to_le_bytes());
    crc.update(&at.sequence.to_le_bytes());
    crc.update(payload);
    crc.finalize()
}
