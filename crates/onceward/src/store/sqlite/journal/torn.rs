//! What lies behind the end of the journal: a torn write, or damage.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use memchr::memmem::Finder;

use super::segments::{Segments, missing, name_of, read_frame, unreadable};
use super::{HEADER_BYTES, MAGIC, Position};
use crate::store::StoreError;

/// How much of a segment is looked at once: whole pages, of whichever size.
const PIECE_BYTES: u64 = 256 << 10;

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

/// Looks for a frame that holds in `segment` from `begin` on.
fn refuse_frames_from(
    file: &File,
    segment: u32,
    begin: u64,
    end: Position,
) -> Result<(), StoreError> {
    let size = file.metadata().map_err(|error| unreadable(&error))?.len();
    let mut piece = vec![0; PIECE_BYTES as usize + HEADER_BYTES];
    let mut from = begin;
    while let Some(data) = next_data(file, from).map_err(|error| unreadable(&error))? {
        // A header that lies across two pieces is seen whole in the second.
        let before = (data - begin).min(HEADER_BYTES as u64 - 1);
        let start = if data == from { data - before } else { data };
        if start + (HEADER_BYTES as u64) >= size {
            break;
        }
        // It ends where a page does: what has been read of a page is data from then on, and behind the
        // last of it all that follows would be.
        from = ((data / PIECE_BYTES + 1) * PIECE_BYTES).min(size);
        let bytes = &mut piece[..(from - start) as usize];
        file.read_exact_at(bytes, start).map_err(|error| unreadable(&error))?;
        let at = Position { segment, offset: start as u32, sequence: 0 };
        refuse_frame_behind(file, end, at, bytes)?;
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
    let magic = MAGIC.to_le_bytes();
    let finder = Finder::new(&magic);
    let mut from = 0;
    while let Some(found) = bytes.get(from..).and_then(|rest| finder.find(rest)) {
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

#[cfg(test)]
mod tests {
    use super::super::segments::path_of;
    use super::super::{Journal, allocate};
    use super::*;
    use std::fs::OpenOptions;
    use std::path::Path;

    const START: Position = Position { segment: 1, offset: 0, sequence: 0 };

    fn segment(folder: &Path, bytes: u32) -> File {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).open(path_of(folder, 1));
        let file = file.unwrap();
        allocate(&file, bytes).unwrap();
        file
    }

    #[test]
    fn a_later_frame_is_found_wherever_it_lies_between_two_pieces() {
        let whole = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(whole.path(), 4096, START, |_, _| Ok(())).unwrap();
        let mut frame = [vec![0; HEADER_BYTES], b"later".to_vec()].concat();
        // The second one is a later one.
        for _ in 0..2 {
            journal.append(&mut frame).unwrap();
        }
        for before in 0..=frame.len() as u64 + 1 {
            let folder = tempfile::tempdir().unwrap();
            let file = segment(folder.path(), 3 * PIECE_BYTES as u32);
            let at = 2 * PIECE_BYTES - before;
            file.write_all_at(&frame, at).unwrap();
            let found = refuse_frames_from(&file, 1, 1, START);
            assert!(matches!(found, Err(StoreError::Damaged(_))), "{before} before the edge");
        }
    }

    #[test]
    fn what_was_never_written_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = segment(folder.path(), 64 * PIECE_BYTES as u32);
        file.write_all_at(b"x", 0).unwrap();
        let behind = PIECE_BYTES;
        // A file system that does not tell has all of it read.
        if next_data(&file, behind).unwrap().is_some() {
            return;
        }
        refuse_frames_from(&file, 1, 1, START).unwrap();
        // What is read of a file that was only allocated is told as written from then on.
        assert_eq!(next_data(&file, behind).unwrap(), None);
    }
}
