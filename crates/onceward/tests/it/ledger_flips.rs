//! A bit that flips while the ledger is stopped: it is met with the right answers or with a refusal
//! that names the file, and never with somebody else's answer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::ledger_images::{Files, Found, Moment, life, look_up, open, write};
use onceward::store::sqlite::SqliteStore;
use onceward_proof::chance::Chance;
use onceward_proof::figures::{Figures, number, seed};

/// What came of one flip.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Met {
    /// The ledger does not open, and says what is damaged.
    AtStart,
    /// It opens, and says so when it comes to the place.
    InUse,
    /// Everything is as it was, but an examination finds it.
    ByExamination,
    /// Nothing depends on it.
    Harmless,
    /// It hit the last write before the crash, which is taken for a torn one: what that write
    /// acknowledged is as it was before it.
    LastWrite,
    /// A wrong answer.
    Silent(String),
}

/// Where a bit may flip: within what a file uses.
fn place(files: &Files, chance: &mut Chance) -> (PathBuf, usize) {
    let used: Vec<(&PathBuf, usize)> = files
        .iter()
        .map(|(path, bytes)| {
            (path, bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1))
        })
        .filter(|(path, used)| *used > 0 && !path.to_string_lossy().ends_with("-shm"))
        .collect();
    let (path, used) = used[chance.below(used.len() as u64) as usize];
    (path.clone(), chance.below(used as u64) as usize)
}

fn names_a_file(error: &str) -> bool {
    ["segment-", "index", "journal", "ledger.db"].iter().any(|name| error.contains(name))
}

/// Whether the operation is as it was one step before, or not there yet.
async fn is_as_before(store: &SqliteStore, n: u64, before: &Moment) -> bool {
    match before.known.get(&n) {
        Some(known) => look_up(store, known).await == Found::Right,
        None => true,
    }
}

async fn meet(files: &Files, path: &Path, before: &Moment, moment: &Moment) -> Met {
    let folder = write(files);
    let store = match open(folder.path()) {
        Ok(store) => store,
        Err(error) if names_a_file(&error.to_string()) => return Met::AtStart,
        Err(error) => {
            return Met::Silent(format!("it does not open and does not say why: {error}"));
        }
    };
    let mut met = Met::Harmless;
    for (n, known) in &moment.known {
        match look_up(&store, known).await {
            Found::Right => {}
            Found::Refused(error) if names_a_file(&error) => met = Met::InUse,
            Found::Refused(error) => return Met::Silent(format!("{n}: no file is named: {error}")),
            Found::Wrong(what) => {
                let is_last =
                    before.known.get(n).is_none_or(|before| before.operation != known.operation);
                let may_be_torn = is_last && path.starts_with("ledger.journal");
                if !(may_be_torn && is_as_before(&store, *n, before).await) {
                    return Met::Silent(format!("{n}: {what}"));
                }
                met = Met::LastWrite;
            }
        }
    }
    drop(store);
    let examined = SqliteStore::examine(&folder.path().join("ledger.db"));
    match (met, examined) {
        (Met::Harmless, Ok(examined)) if examined.faults.is_empty() => Met::Harmless,
        (Met::Harmless, _) => Met::ByExamination,
        (met, _) => met,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_is_refused_or_harmless_and_never_a_wrong_answer() {
    let seed = seed();
    let flips = number("TEST_FLIPS", 150);
    let mut told = Figures::of("bit-flips", seed);
    let mut chance = Chance(seed);
    let (mut made, mut by, mut wrong) = (0, BTreeMap::<&str, u64>::new(), Vec::new());
    while made < flips {
        let moments = life(60, &mut chance).await;
        for _ in 0..500.min(flips - made) {
            let place_of = 20 + chance.below(moments.len() as u64 - 20) as usize;
            let (before, moment) = (&moments[place_of - 1], &moments[place_of]);
            let mut files = moment.files.clone();
            let (path, at) = place(&files, &mut chance);
            let bit = 1 << chance.below(8);
            if let Some(bytes) = files.get_mut(&path) {
                bytes[at] ^= bit;
            }
            let met = meet(&files, &path, before, moment).await;
            let name = match &met {
                Met::AtStart => "at_start",
                Met::InUse => "in_use",
                Met::ByExamination => "by_examination",
                Met::Harmless => "harmless",
                Met::LastWrite => "last_write",
                Met::Silent(_) => "silent",
            };
            *by.entry(name).or_default() += 1;
            if let Met::Silent(what) = met {
                wrong.push(format!("{} at {at}, bit {bit:#x}: {what}", path.display()));
            }
            made += 1;
        }
    }
    told.count("flips", flips);
    for name in ["at_start", "in_use", "by_examination", "harmless", "last_write", "silent"] {
        told.count(name, by.get(name).copied().unwrap_or_default());
    }
    told.tell(wrong.len());
    assert!(
        wrong.is_empty(),
        "{} of {flips} wrong: {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(10)]
    );
    let detected = ["at_start", "in_use"].iter().filter_map(|name| by.get(name)).sum::<u64>();
    assert!(detected * 10 > flips, "hardly a flip was met: {by:?}");
}
