//! A fuzz target: a journal whose bytes were changed replays what came before the change, whole
//! and in order, or is refused; what follows a change is never lost without a word.

use std::fs;
use std::path::Path;

use onceward_fuzz::Fuzz;

use super::{HEADER_BYTES, Journal, Position, path_of};
use crate::store::StoreError;

const SEGMENT_BYTES: u32 = 4096;

const START: Position = Position { segment: 1, offset: 0, sequence: 0 };

/// Changes are lines: `flip AT BIT`, `zero AT LENGTH`, `copy FROM LENGTH TO`, `cut AT`. Places
/// count through both segments.
const WORDS: &[&str] = &[
    "\n", " ", "flip ", "zero ", "copy ", "cut ", "0", "4", "8", "16", "20", "24", "27", "51",
    "600", "4096", "4100", "8000",
];

/// A frame as it was written.
struct Written {
    at: usize,
    payload: Vec<u8>,
}

fn write(folder: &Path) -> (Vec<u8>, Vec<Written>) {
    let replay = |_: &[u8], _| Ok(());
    let mut journal = Journal::open(folder, SEGMENT_BYTES, START, replay).expect("a new journal");
    let mut written = Vec::new();
    for (number, length) in [3, 500, 40, 2500, 900, 700, 1, 1200].into_iter().enumerate() {
        let payload = vec![b'a' + number as u8; length];
        if journal.room() < payload.len() {
            journal.roll().expect("another segment");
        }
        let (segment, offset) = (journal.end().segment, journal.end().offset);
        written.push(Written {
            at: ((segment - 1) * SEGMENT_BYTES + offset) as usize,
            payload: payload.clone(),
        });
        let mut frame = vec![0; HEADER_BYTES];
        frame.extend_from_slice(&payload);
        journal.append(&mut frame).expect("room");
    }
    assert_eq!(journal.end().segment, 2, "two segments");
    let bytes = [1, 2].map(|segment| fs::read(path_of(folder, segment)).expect("a segment"));
    (bytes.concat(), written)
}

fn change(bytes: &mut [u8], line: &str) -> Option<()> {
    let mut words = line.split_ascii_whitespace();
    let what = words.next()?;
    let mut number = || words.next()?.parse::<usize>().ok();
    let at = number()? % bytes.len();
    match what {
        "flip" => bytes[at] ^= 1 << (number()? % 8),
        "zero" => {
            let end = (at + number()?.min(bytes.len())).min(bytes.len());
            bytes[at..end].fill(0);
        }
        "copy" => {
            let length = number()?.min(bytes.len() - at);
            let to = number()? % bytes.len();
            let length = length.min(bytes.len() - to);
            bytes.copy_within(at..at + length, to);
        }
        "cut" => bytes[at..].fill(0),
        _ => {}
    }
    Some(())
}

#[test]
fn a_changed_journal_replays_a_beginning_of_what_was_written_or_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (whole, written) = write(folder.path());
    Fuzz::new("journal", 1_500, WORDS).bytes_max(200).run(|input| {
        let mut bytes = whole.clone();
        for line in String::from_utf8_lossy(input).lines().take(8) {
            // A line that says no change makes none.
            let _ = change(&mut bytes, line);
        }
        for (number, segment) in bytes.chunks(SEGMENT_BYTES as usize).enumerate() {
            fs::write(path_of(folder.path(), number as u32 + 1), segment).expect("a segment");
        }
        let mut replayed = 0;
        let opened = Journal::open(folder.path(), SEGMENT_BYTES, START, |payload, _| {
            assert_eq!(payload, written[replayed].payload, "frame {replayed} is another");
            replayed += 1;
            Ok(())
        });
        // The padding of a header means nothing.
        let is_whole = |frame: &Written| {
            let end = frame.at + HEADER_BYTES + frame.payload.len();
            let same = |from: usize, to: usize| bytes[from..to] == whole[from..to];
            same(frame.at, frame.at + 20) && same(frame.at + HEADER_BYTES, end)
        };
        let whole_ones = written.iter().take_while(|frame| is_whole(frame)).count();
        assert_eq!(replayed, whole_ones, "all that comes before the change");
        let is_more = written[replayed..].iter().any(is_whole);
        match opened {
            Ok(_) => assert!(!is_more, "frames behind the change are lost without a word"),
            Err(StoreError::Damaged(_)) => {}
            Err(error) => panic!("{error}"),
        }
        (replayed, is_more)
    });
}
