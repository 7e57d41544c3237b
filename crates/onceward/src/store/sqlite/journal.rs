//! The journal: where a commit becomes durable, and where requests and answers live.
//!
//! Segments are files of a fixed size, allocated before they are used, so that a full disk is
//! met when a segment is begun and not in the middle of a commit. A commit is one frame: one
//! write and one `fdatasync`. Frames are numbered without gaps; the first one that does not hold
//! is the torn end of the last write, unless a later one holds: then the file is damaged and we
//! say so. Bodies are read where they were written; they are never written twice.
//!
//! Deliberately absent: an index. SQLite is the index, applied from the same frames.

mod segments;
mod torn;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) use self::segments::{Edit, Segments, path_of, sealed};
use self::segments::{fill_header, missing, read_frame, replay_segment};
use self::torn::refuse_damage;
use crate::sabotage::Sabotage;
use crate::store::StoreError;

/// "OWJ1", little-endian.
const MAGIC: u32 = 0x314a_574f;

/// Magic, payload length, sequence number, CRC-32 of segment, sequence and payload, and padding.
pub(super) const HEADER_BYTES: usize = 24;

/// Where a frame begins and which number it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) sequence: u64,
}

/// The end of the journal: the only place where it grows.
#[derive(Debug)]
pub(super) struct Journal {
    folder: PathBuf,
    segments: Segments,
    file: Arc<File>,
    segment_bytes: u32,
    end: Position,
    /// The next segment, allocated ahead so that there is always room for what is under way.
    spare: bool,
}

/// Makes the journal's folder, its own name durable.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

impl Journal {
    /// Opens the journal in `folder` and hands every frame after `from` to `replay`, oldest
    /// first, with the position after it.
    pub(super) fn open(
        folder: &Path,
        segment_bytes: u32,
        from: Position,
        mut replay: impl FnMut(&[u8], Position) -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
        let unavailable = |error: io::Error| {
            StoreError::Unavailable(format!("opening {}: {error}", folder.display()))
        };
        make_folder(folder).map_err(unavailable)?;
        let segments = Segments::open(folder).map_err(unavailable)?;
        let mut end = from;
        if segments.get(end.segment).is_none() {
            if !segments.numbers().is_empty() || from.sequence > 0 {
                return Err(missing(end.segment));
            }
            create(folder, &segments, end.segment, segment_bytes)
                .map_err(|error| full_or_unavailable(&error))?;
        }
        loop {
            let file = segments.get(end.segment).ok_or_else(|| missing(end.segment))?;
            end = replay_segment(&file, end, &mut replay)?;
            let next = Position { segment: end.segment + 1, offset: 0, ..end };
            let goes_on = match segments.get(next.segment) {
                Some(file) => read_frame(&file, next).map_err(unavailable)?.is_some(),
                None => false,
            };
            if !goes_on {
                refuse_damage(&segments, end)?;
                break;
            }
            end = next;
        }
        let file = segments.get(end.segment).ok_or_else(|| missing(end.segment))?;
        let spare = segments.get(end.segment + 1).is_some();
        Ok(Self { folder: folder.to_owned(), segments, file, segment_bytes, end, spare })
    }

    pub(super) fn end(&self) -> Position {
        self.end
    }

    pub(super) fn segments(&self) -> &Segments {
        &self.segments
    }

    /// How many bytes of payload the present segment still takes.
    pub(super) fn room(&self) -> usize {
        self.segment_bytes.saturating_sub(self.end.offset + HEADER_BYTES as u32) as usize
    }

    /// The largest payload that fits an empty segment.
    pub(super) fn payload_bytes_max(&self) -> usize {
        self.segment_bytes as usize - HEADER_BYTES
    }

    /// Where byte `at` of the next frame's payload will be.
    pub(super) fn place(&self, at: usize) -> (u32, u32) {
        (self.end.segment, self.end.offset + (HEADER_BYTES + at) as u32)
    }

    /// Makes sure that the segment after this one is there. Called before this one is full, so
    /// that running out of disk refuses new work and not what is under way.
    pub(super) fn prepare(&mut self) -> io::Result<()> {
        if !self.spare {
            create(&self.folder, &self.segments, self.end.segment + 1, self.segment_bytes)?;
            self.spare = true;
        }
        Ok(())
    }

    pub(super) fn has_spare(&self) -> bool {
        self.spare
    }

    /// Goes on in the next segment.
    pub(super) fn roll(&mut self) -> io::Result<()> {
        self.prepare()?;
        self.end =
            Position { segment: self.end.segment + 1, offset: 0, sequence: self.end.sequence };
        self.spare = self.segments.get(self.end.segment + 1).is_some();
        self.file = self
            .segments
            .get(self.end.segment)
            .ok_or_else(|| io::Error::other("the next segment is missing"))?;
        Ok(())
    }

    /// Writes one frame and waits until it is on stable storage. `frame` is the payload behind
    /// [`HEADER_BYTES`] bytes that are filled in here; it fits into [`Journal::room`].
    pub(super) fn append(&mut self, frame: &mut [u8]) -> io::Result<()> {
        fill_header(frame, self.end);
        self.file.write_all_at(frame, u64::from(self.end.offset))?;
        // Whatever a failed sync says, the frame may be there: that is not "full" but "unknown".
        if !Sabotage::WeakerSync.is_on() {
            self.sync().map_err(io::Error::other)?;
        }
        self.end.offset += frame.len() as u32;
        self.end.sequence += 1;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let synced = self.file.sync_data();
        if Sabotage::SyncErrorSwallowed.is_on() { Ok(()) } else { synced }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Makes a segment: its bytes allocated, its name in the folder durable.
fn create(folder: &Path, segments: &Segments, segment: u32, bytes: u32) -> io::Result<()> {
    let path = path_of(folder, segment);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
    let made = allocate(&file, bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| File::open(folder)?.sync_all());
    if let Err(error) = made {
        // A segment that is not whole is worse than none.
        drop(file);
        let _ = fs::remove_file(&path);
        return Err(error);
    }
    read_no_further(&file);
    segments.add(segment, Arc::new(file));
    Ok(())
}

/// Keeps the kernel from reading ahead: into large pages of nothing but zeros, which it then counts
/// as written whenever a part of one is.
fn read_no_further(file: &File) {
    // It is a hint.
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::Random);
}

fn allocate(file: &File, bytes: u32) -> io::Result<()> {
    use rustix::fs::FallocateFlags;
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, u64::from(bytes)) {
        Ok(()) => Ok(()),
        // Some file systems cannot allocate ahead; there a full disk is met at the write.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            file.set_len(u64::from(bytes))
        }
        Err(error) => Err(error.into()),
    }
}

pub(super) fn full_or_unavailable(error: &io::Error) -> StoreError {
    use rustix::io::Errno;
    // Without a descriptor nothing was written, and others give theirs back.
    let has_no_descriptor = [Errno::MFILE, Errno::NFILE]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()));
    match error.kind() {
        _ if has_no_descriptor => StoreError::Full(error.to_string()),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            StoreError::Full(error.to_string())
        }
        _ => StoreError::Unavailable(error.to_string()),
    }
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use onceward_core::attempt::BodyRef;

    use super::*;

    const START: Position = Position { segment: 1, offset: 0, sequence: 0 };

    fn open(folder: &Path) -> Result<(Journal, Vec<Vec<u8>>), StoreError> {
        let mut seen = Vec::new();
        let journal = Journal::open(folder, 4096, START, |payload, _| {
            seen.push(payload.to_vec());
            Ok(())
        })?;
        Ok((journal, seen))
    }

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; HEADER_BYTES];
        frame.extend_from_slice(payload);
        frame
    }

    fn write(folder: &Path, payloads: &[&[u8]]) {
        let (mut journal, _) = open(folder).unwrap();
        for payload in payloads {
            if journal.room() < payload.len() {
                journal.roll().unwrap();
            }
            journal.append(&mut frame(payload)).unwrap();
        }
    }

    #[test]
    fn what_was_appended_is_replayed_in_order_over_segments() {
        let folder = tempfile::tempdir().unwrap();
        let large = vec![7u8; 3000];
        write(folder.path(), &[b"one", &large, &large, b"four"]);
        let (journal, seen) = open(folder.path()).unwrap();
        assert_eq!(seen, [b"one".to_vec(), large.clone(), large, b"four".to_vec()]);
        assert_eq!((journal.end().segment, journal.end().sequence), (2, 4));
    }

    #[test]
    fn a_torn_last_frame_is_dropped_at_every_length() {
        let whole = tempfile::tempdir().unwrap();
        write(whole.path(), &[b"kept", b"the torn one"]);
        let bytes = fs::read(path_of(whole.path(), 1)).unwrap();
        let first = HEADER_BYTES + 4;
        for torn_at in first..first + HEADER_BYTES + 12 {
            let folder = tempfile::tempdir().unwrap();
            let mut torn = bytes.clone();
            torn[torn_at..].fill(0);
            fs::write(path_of(folder.path(), 1), &torn).unwrap();
            let (mut journal, seen) = open(folder.path()).unwrap();
            assert_eq!(seen, [b"kept"], "torn at {torn_at}");
            journal.append(&mut frame(b"next")).unwrap();
            assert_eq!(open(folder.path()).unwrap().1, [b"kept".to_vec(), b"next".to_vec()]);
        }
    }

    #[test]
    fn damage_before_the_end_is_refused_and_not_taken_for_a_torn_end() {
        let whole = tempfile::tempdir().unwrap();
        write(whole.path(), &[b"one", b"two", b"three"]);
        let bytes = fs::read(path_of(whole.path(), 1)).unwrap();
        for flipped in 0..2 * HEADER_BYTES + 6 {
            // The padding of a header means nothing.
            if matches!(flipped % (HEADER_BYTES + 3), 20..=23) {
                continue;
            }
            let folder = tempfile::tempdir().unwrap();
            let mut damaged = bytes.clone();
            damaged[flipped] ^= 0x10;
            fs::write(path_of(folder.path(), 1), &damaged).unwrap();
            assert!(
                matches!(open(folder.path()), Err(StoreError::Damaged(_))),
                "flipped at {flipped}"
            );
        }
    }

    #[test]
    fn a_sync_that_fails_is_an_error_and_not_a_full_disk() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = open(folder.path()).unwrap();
        let before = journal.end();
        // It takes every write and cannot sync.
        journal.file = Arc::new(OpenOptions::new().write(true).open("/dev/null").unwrap());
        let failed = journal.append(&mut frame(b"one")).expect_err("a sync that failed");
        assert!(matches!(full_or_unavailable(&failed), StoreError::Unavailable(_)), "{failed}");
        assert_eq!(journal.end(), before, "what is unknown is not built upon");
    }

    #[test]
    fn damage_at_the_edge_of_a_segment_is_refused_too() {
        let large = vec![7u8; 3000];
        let whole = tempfile::tempdir().unwrap();
        write(whole.path(), &[b"one", &large, &large, b"four"]);
        let edges = [(1, 2 * HEADER_BYTES + 3 + 100), (2, 5), (2, HEADER_BYTES + 2999)];
        for (segment, flipped) in edges {
            let folder = tempfile::tempdir().unwrap();
            for copied in [1, 2] {
                let mut bytes = fs::read(path_of(whole.path(), copied)).unwrap();
                if copied == segment {
                    bytes[flipped] ^= 0x10;
                }
                fs::write(path_of(folder.path(), copied), bytes).unwrap();
            }
            let opened = open(folder.path());
            assert!(
                matches!(opened, Err(StoreError::Damaged(_))),
                "segment {segment} at {flipped}"
            );
        }
    }

    #[test]
    fn a_missing_segment_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &[&[1; 3000], &[2; 3000], &[3; 3000]]);
        fs::remove_file(path_of(folder.path(), 1)).unwrap();
        assert!(matches!(open(folder.path()), Err(StoreError::Damaged(_))));
    }

    #[test]
    fn a_body_that_was_changed_is_not_returned() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = open(folder.path()).unwrap();
        let (segment, offset) = journal.place(0);
        journal.append(&mut frame(b"the body")).unwrap();
        let body = BodyRef { segment, offset, length: 8, crc: crc32fast::hash(b"the body") };
        assert_eq!(journal.segments().read(body).unwrap(), "the body");
        journal.file.write_all_at(b"X", u64::from(offset)).unwrap();
        assert!(matches!(journal.segments().read(body), Err(StoreError::Damaged(_))));
    }
}
