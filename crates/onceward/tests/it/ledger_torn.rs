//! What a power cut can leave of the last writes: any part of them, in pieces of a sector. Each
//! image is opened by the real recovery, and everything that was acknowledged before is there.

use std::path::Path;

use crate::ledger_images::{Files, Found, Moment, goes_on, life, look_up, open, write};
use onceward::store::sqlite::SqliteStore;
use onceward_proof::chance::Chance;
use onceward_proof::figures::{Figures, number, seed};

/// What a disk writes whole, or not.
const SECTOR_BYTES: usize = 512;

/// How the sectors of one write came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tear {
    /// None of them.
    Nothing,
    /// The first so many bytes.
    Cut,
    /// Some of them; the others are as they were.
    Some,
    /// Some of them; the others are zeros.
    Zeros,
    /// Some of them; the others hold what lay elsewhere on the disk.
    Stale,
    /// All of them.
    All,
}

const TEARS: [Tear; 6] =
    [Tear::Nothing, Tear::Cut, Tear::Some, Tear::Zeros, Tear::Stale, Tear::All];

/// The file between `before` and `after`, torn.
fn torn(before: &[u8], after: &[u8], tear: Tear, chance: &mut Chance) -> Vec<u8> {
    let size = before.len().max(after.len());
    let (mut old, mut new) = (before.to_vec(), after.to_vec());
    old.resize(size, 0);
    new.resize(size, 0);
    let Some(first) = old.iter().zip(&new).position(|(old, new)| old != new) else { return new };
    let last = old.iter().zip(&new).rposition(|(old, new)| old != new).unwrap_or(first);
    match tear {
        Tear::Nothing => return before.to_vec(),
        Tear::All => return new,
        Tear::Cut => {
            let end = first + chance.below((last - first + 1) as u64) as usize;
            old[first..end].copy_from_slice(&new[first..end]);
            return old;
        }
        Tear::Some | Tear::Zeros | Tear::Stale => {}
    }
    let stale = chance.below(size as u64) as usize;
    for sector in first / SECTOR_BYTES..=last / SECTOR_BYTES {
        let start = sector * SECTOR_BYTES;
        // What was durable in the first sector stays: a sector is written whole, with it.
        let (from, to) = (start.max(first), (start + SECTOR_BYTES).min(last + 1));
        match (chance.percent(50), tear) {
            (true, _) => old[from..to].copy_from_slice(&new[from..to]),
            (false, Tear::Zeros) => old[from..to].fill(0),
            (false, Tear::Stale) => {
                for (at, byte) in old.iter_mut().enumerate().take(to).skip(from) {
                    *byte = before.get((stale + at) % size).copied().unwrap_or_default();
                }
            }
            (false, _) => {}
        }
    }
    old
}

fn is_segment(path: &Path) -> bool {
    path.starts_with("ledger.journal")
}

fn has_name(path: &Path, end: &str) -> bool {
    path.to_string_lossy().ends_with(end)
}

/// Where the journal's last frame is.
fn last_frame(files: &Files) -> Option<(&Path, usize, usize)> {
    const HEADER_BYTES: usize = 24;
    let mut last = None;
    for (path, bytes) in files.iter().filter(|(path, _)| is_segment(path)) {
        let mut at = 0;
        while bytes.get(at..at + 4) == Some(b"OWJ1") {
            let length = bytes[at + 4..at + 8].try_into().map_or(0, u32::from_le_bytes);
            let end = at + HEADER_BYTES + length as usize;
            last = Some((path.as_path(), at, end));
            at = end;
        }
    }
    last
}

/// Whether the file is the index's: it is synced now and then, and each of its writes comes after
/// the sync of what it indexes.
fn is_index(path: &Path) -> bool {
    has_name(path, ".db") || has_name(path, "-wal") || has_name(path, "-shm")
}

/// The journal's last frame torn, and the index as it was some time before.
fn torn_journal(moments: &[Moment], at: usize, chance: &mut Chance) -> Files {
    let (before, after) = (&moments[at], &moments[at + 1]);
    let old = &moments[at - chance.below(at as u64 + 1) as usize];
    let index = before.files.keys().filter(|path| is_index(path));
    let mut image: Files = after.files.clone();
    for path in index {
        match old.files.get(path) {
            Some(bytes) => drop(image.insert(path.clone(), bytes.clone())),
            None => drop(image.remove(path)),
        }
    }
    let Some((path, start, end)) = last_frame(&after.files) else { return image };
    let whole = &after.files[path];
    let mut without = whole.clone();
    without[start..end].fill(0);
    let tear = TEARS[chance.below(TEARS.len() as u64) as usize];
    image.insert(path.to_owned(), torn(&without, whole, tear, chance));
    image
}

/// The index's last writes torn. Its log is synced before the database file is written, so only one
/// of the two is.
fn torn_index(before: &Moment, after: &Moment, chance: &mut Chance) -> Files {
    let empty = Vec::new();
    let tear_log = chance.percent(50);
    let mut image = after.files.clone();
    for (path, new) in &after.files {
        let old = before.files.get(path).unwrap_or(&empty);
        let tear = TEARS[chance.below(TEARS.len() as u64) as usize];
        if has_name(path, "-wal") && tear_log {
            image.insert(path.clone(), torn(old, new, tear, chance));
        } else if has_name(path, ".db") {
            let bytes = if tear_log { old.clone() } else { torn(old, new, Tear::Some, chance) };
            image.insert(path.clone(), bytes);
        }
    }
    image
}

/// What a power cut between two moments may leave.
fn image(moments: &[Moment], at: usize, chance: &mut Chance) -> Files {
    let mut image = if chance.percent(70) {
        torn_journal(moments, at, chance)
    } else {
        torn_index(&moments[at], &moments[at + 1], chance)
    };
    // What SQLite shares between processes is gone with the power, or stale.
    if chance.percent(70) {
        image.retain(|path, _| !has_name(path, "-shm"));
    }
    image
}

/// Opens an image and holds it against what was acknowledged before it.
async fn violations(files: &Files, before: &Moment, goes_further: bool) -> Vec<String> {
    let folder = write(files);
    let store = match open(folder.path()) {
        Ok(store) => store,
        Err(error) => return vec![format!("it does not open: {error}")],
    };
    let mut wrong = Vec::new();
    for (n, known) in &before.known {
        match look_up(&store, known).await {
            Found::Right => {}
            other => wrong.push(format!("operation {n}: {other:?}")),
        }
    }
    if goes_further {
        wrong.extend(goes_on(&store, before).await.err());
        drop(store);
        let Ok(store) = open(folder.path()) else { return vec!["it opens only once".to_owned()] };
        for known in before.known.values() {
            if look_up(&store, known).await != Found::Right {
                wrong.push("it is lost after another start".to_owned());
            }
        }
    } else {
        drop(store);
    }
    match SqliteStore::examine(&folder.path().join("ledger.db")) {
        Ok(examined) => wrong.extend(examined.faults),
        Err(error) => wrong.push(error.to_string()),
    }
    wrong
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_torn_writes_the_ledger_recovers_all_that_was_acknowledged_before() {
    let seed = seed();
    let images = number("TEST_IMAGES", 200);
    let mut told = Figures::of("torn-writes", seed);
    let mut chance = Chance(seed);
    let (mut made, mut wrong, mut torn, mut checked, mut lives) = (0, Vec::new(), 0u64, 0, 0u64);
    while made < images {
        let moments = life(40, &mut chance).await;
        lives += 1;
        for _ in 0..500.min(images - made) {
            let at = chance.below(moments.len() as u64 - 1) as usize;
            let (before, after) = (&moments[at], &moments[at + 1]);
            let files = image(&moments, at, &mut chance);
            torn += u64::from(files != before.files && files != after.files);
            let found = violations(&files, before, made % 8 == 0).await;
            wrong
                .extend(found.into_iter().map(|what| format!("image {made}, moment {at}: {what}")));
            checked += before.known.len();
            made += 1;
        }
    }
    told.count("lives", lives);
    told.count("images", images);
    told.count("torn", torn);
    told.count("operations_checked", checked);
    told.tell(wrong.len());
    assert!(wrong.is_empty(), "{} violations: {:#?}", wrong.len(), &wrong[..wrong.len().min(10)]);
    assert!(torn * 2 > images && checked as u64 > 10 * images, "too tame: {torn}, {checked}");
}
