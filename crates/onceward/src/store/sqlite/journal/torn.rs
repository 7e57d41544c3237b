//! What lies behind the end of the journal: a torn write, or damage.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::segments::{Segments, missing, name_of, read_frame, unreadable};
use super::{HEADER_BYTES, MAGIC, Position};
use crate::store::StoreError;

/// How much of a segment is looked at once.
const PIECE_BYTES: usize = 256 << 10;

/// A segment holds fewer frames than this.
const FRAMES_AHEAD_MAX: u64 = 1_000_000;

/// A frame is written only after the one before it is durable, so only the last can be torn: a
/// frame that holds behind one that does not, in this segment or a later one, means damage.
pub(super) fn refuse_damage(segments: &Segments, end: Position) -> Result<(), StoreError> {
    for segment in segments.numbers().into_iter().filter(|segment| *segment >= end.segment) {
        let file = segments.get(segment).ok_or_else(|| missing(segment))?;
        let start = if segment == end.segment { u64::from(end.offset) + 1 } else { 0 };
        refuse_frames_from(&file, segment, start, end)?;
    }
    Ok(())
}

/// Looks for a frame that holds in `segment` from `start` on.
fn refuse_frames_from(
    file: &File,
    segment: u32,
    mut start: u64,
    end: Position,
) -> Result<(), StoreError> {
    let size = file.metadata().map_err(|error| unreadable(&error))?.len();
    let mut piece = vec![0; PIECE_BYTES];
    while let Some(from) = next_data(file, start).map_err(|error| unreadable(&error))? {
        start = from;
        if start + (HEADER_BYTES as u64) >= size {
            break;
        }
        let length = piece.len().min((size - start) as usize);
        let bytes = &mut piece[..length];
        file.read_exact_at(bytes, start).map_err(|error| unreadable(&error))?;
        let at = Position { segment, offset: start as u32, sequence: 0 };
        refuse_frame_behind(file, end, at, bytes)?;
        // A header that lies across two pieces is seen whole in the second.
        start += (length - HEADER_BYTES.min(length - 1)) as u64;
    }
    Ok(())
}

/// Where bytes were written, at `from` or behind it: most of a segment is allocated and no more.
fn next_data(file: &File, from: u64) -> io::Result<Option<u64>> {
    use rustix::fs::SeekFrom;
    match rustix::fs::seek(file, SeekFrom::Data(from)) {
        Ok(at) => Ok(Some(at)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        // Some file systems do not tell: all of it is looked at.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => Ok(Some(from)),
        Err(error) => Err(error.into()),
    }
}

fn refuse_frame_behind(
    file: &File,
    end: Position,
    piece: Position,
    bytes: &[u8],
) -> Result<(), StoreError> {
    let mut from = 0;
    while let Some(found) = bytes.get(from..).and_then(|rest| find(rest, MAGIC.to_le_bytes())) {
        let at = from + found;
        from = at + 1;
        let number = bytes.get(at + 8..at + 16);
        let sequence = number.map_or(0, |number| {
            number.iter().rev().fold(0, |sequence, byte| sequence << 8 | u64::from(*byte))
        });
        // Numbers far away are an older life of these bytes, not a frame behind this one.
        if !(end.sequence + 1..end.sequence + FRAMES_AHEAD_MAX).contains(&sequence) {
            continue;
        }
        let at = Position { offset: piece.offset + at as u32, sequence, ..piece };
        if read_frame(file, at).map_err(|error| unreadable(&error))?.is_some() {
            return Err(StoreError::Damaged(format!(
                "{} does not hold at {}, and a later frame does",
                name_of(end.segment),
                end.offset
            )));
        }
    }
    Ok(())
}

/// The first place of `magic`; most of a segment is zeros, which are passed over at once.
fn find(bytes: &[u8], magic: [u8; 4]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == magic[0]).and_then(|mut at| {
        loop {
            if bytes.get(at..at + 4)? == magic {
                return Some(at);
            }
            at += 1 + bytes[at + 1..].iter().position(|byte| *byte == magic[0])?;
        }
    })
}
