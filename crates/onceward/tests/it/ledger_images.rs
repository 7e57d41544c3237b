//! A ledger's life, moment by moment: its files as a crash would leave them, and what was
//! acknowledged until then.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use onceward::core::operation::Operation;
use onceward::core::policy::Mode;
use onceward::core::time::Timestamp;
use onceward::store::contract::{done, operation, started};
use onceward::store::sqlite::{SqliteOptions, SqliteStore};
use onceward::store::{Birth, Query, Remembered, Slot, Store, StoreError, Which, Write};
use onceward_proof::chance::Chance;
use tempfile::TempDir;

/// A small segment, so that a short life has several.
const SEGMENT_BYTES: u32 = 256 << 10;

/// Files by their path below the ledger's folder.
pub(crate) type Files = BTreeMap<PathBuf, Vec<u8>>;

/// An operation that was acknowledged, and the bytes that it refers to.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) operation: Operation,
    pub(crate) request: Bytes,
    pub(crate) answer: Option<Bytes>,
}

/// What is there after a step was acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Moment {
    pub(crate) files: Files,
    /// By the operation's number.
    pub(crate) known: BTreeMap<u64, Known>,
}

/// Where images are opened: in memory where that can be had, since there are many.
pub(crate) fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

pub(crate) fn open(folder: &Path) -> Result<SqliteStore, StoreError> {
    let options = SqliteOptions { segment_bytes: SEGMENT_BYTES };
    SqliteStore::open(&folder.join("ledger.db"), &options)
}

fn read_into(files: &mut Files, root: &Path, folder: &Path) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            read_into(files, root, &path);
        } else {
            // A file may go while it is read: the next look settles it.
            let bytes = fs::read(&path).unwrap_or_default();
            files.insert(path.strip_prefix(root).unwrap().to_owned(), bytes);
        }
    }
}

/// The files once they stand still: a checkpoint may run beside.
fn files_of(folder: &Path) -> Files {
    let mut before = Files::new();
    loop {
        let mut files = Files::new();
        read_into(&mut files, folder, folder);
        if files == before {
            return files;
        }
        before = files;
        std::thread::sleep(std::time::Duration::from_millis(3));
    }
}

/// Writes an image into a new folder.
pub(crate) fn write(files: &Files) -> TempDir {
    let folder = folder();
    fs::create_dir(folder.path().join("ledger.journal")).unwrap();
    for (path, bytes) in files {
        let file = fs::File::create(folder.path().join(path)).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes[..used], 0).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
    }
    folder
}

fn bytes(chance: &mut Chance, most: u64) -> Bytes {
    let length = 200 + chance.below(most);
    (0..length).map(|_| chance.next() as u8).collect()
}

async fn remember(store: &dyn Store, n: u64, chance: &mut Chance) -> Known {
    let mode = if chance.percent(40) { Mode::Accepted } else { Mode::Held };
    let mut born = operation(n, &format!("key-{n}"), "r", mode);
    if chance.percent(50) {
        born = started(&born);
        born.fence = onceward::core::operation::Fence(1);
    }
    let request = bytes(chance, 9000);
    let birth = Birth { operation: born, request: request.clone(), replaces: None };
    let Remembered::Fresh(operation) = store.remember(birth).await.unwrap() else {
        panic!("{n} is new")
    };
    Known { operation, request, answer: None }
}

/// One step of an operation's life: an attempt starts, or is answered.
async fn go_on(store: &dyn Store, known: &Known, chance: &mut Chance) -> Known {
    let operation = &known.operation;
    let (next, answer) = if operation.attempts.last().is_some_and(|last| last.ended.is_none()) {
        let answer = bytes(chance, 3000);
        (done(operation, Timestamp::from_micros(i64::from(u32::MAX))), Some(answer))
    } else {
        (started(operation), None)
    };
    let write = Write {
        operation: next,
        answer: answer.clone().map(|answer| (Slot::Outcome, answer)),
        visible: chance.percent(10),
    };
    let operation = store.commit(write).await.unwrap();
    Known { operation, answer, ..known.clone() }
}

/// A life of `steps` steps; some of them are several calls at once, and now and then the index is
/// committed.
pub(crate) async fn life(steps: u64, chance: &mut Chance) -> Vec<Moment> {
    let folder = folder();
    let store = Arc::new(open(folder.path()).unwrap());
    let mut known: BTreeMap<u64, Known> = BTreeMap::new();
    let mut moments = Vec::new();
    for step in 0..steps {
        let open: Vec<u64> = known
            .iter()
            .filter(|(_, known)| !known.operation.state.is_ended())
            .map(|(n, _)| *n)
            .collect();
        if chance.percent(45) && !open.is_empty() {
            let n = open[chance.below(open.len() as u64) as usize];
            let next = go_on(&*store, &known[&n], chance).await;
            known.insert(n, next);
        } else {
            let first = known.len() as u64 + 1;
            let mut born = Vec::new();
            for n in first..=first + chance.below(3) {
                let (store, mut chance) = (Arc::clone(&store), Chance(chance.next()));
                born.push(async move { (n, remember(&*store, n, &mut chance).await) });
            }
            for born in born.into_iter().map(tokio::spawn).collect::<Vec<_>>() {
                let (n, one) = born.await.unwrap();
                known.insert(n, one);
            }
        }
        if step % 5 == 4 {
            store.list(Query { limit: 1, ..Query::default() }).await.unwrap();
        }
        moments.push(Moment { files: files_of(folder.path()), known: known.clone() });
    }
    moments
}

/// How what a ledger says of a known operation compares with what was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// It is as it was, or further on its way.
    Right,
    /// The ledger says that it cannot know, and why.
    Refused(String),
    /// It says something else.
    Wrong(String),
}

/// Looks a known operation up by its key, and reads what it refers to.
pub(crate) async fn look_up(store: &dyn Store, known: &Known) -> Found {
    let expected = &known.operation;
    let digest = expected.scope.digest(&expected.key);
    let found = match store.find(Which::Key(digest)).await {
        Ok(Some(found)) => found,
        Ok(None) => return Found::Wrong("its key is not known".to_owned()),
        Err(error) => return Found::Refused(error.to_string()),
    };
    if found.id != expected.id || found.fence < expected.fence {
        return Found::Wrong(format!("it is {found:?}"));
    }
    if found.fence == expected.fence && found != *expected {
        return Found::Wrong(format!("it is {found:?}, and was {expected:?}"));
    }
    let answer = found.outcome.as_ref().and_then(|outcome| outcome.answer);
    for (body, bytes) in [(found.request, Some(&known.request)), (answer, known.answer.as_ref())] {
        let (Some(body), Some(bytes)) = (body, bytes) else { continue };
        match store.body(body).await {
            Ok(read) if read == *bytes => {}
            Ok(_) => return Found::Wrong("it has other bytes".to_owned()),
            Err(error) => return Found::Refused(error.to_string()),
        }
    }
    Found::Right
}

/// Whether a new operation can be remembered, and a known key is told from a new one.
pub(crate) async fn goes_on(store: &dyn Store, moment: &Moment) -> Result<(), String> {
    let new = remember(store, 1_000_000, &mut Chance(1)).await;
    if look_up(store, &new).await != Found::Right {
        return Err("a new operation is not found".to_owned());
    }
    let Some((n, known)) = moment.known.first_key_value() else { return Ok(()) };
    let again = operation(1_000_000 + n, known.operation.key.as_str(), "r", Mode::Held);
    let birth = Birth { operation: again, request: Bytes::new(), replaces: None };
    match store.remember(birth).await {
        Ok(Remembered::Known(_)) => Ok(()),
        other => Err(format!("a known key is remembered anew: {other:?}")),
    }
}
