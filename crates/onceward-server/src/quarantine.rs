//! Quarantine: a restored ledger sends nothing until a person has looked, because what it holds as pending may have
//! been sent after its copy was made.
//!
//! It stands in the ledger, so that no node forgets it with its folder, or starts without knowing. A word names the
//! restore: `onceward restore` leaves one beside an embedded ledger; who restores a shared one, with its server's own
//! tools, writes it into the configuration. What was let go once under a word stays let go.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use onceward::store::StoreError;
use onceward::{Engine, Person, Refusal};
use tokio::sync::Mutex;
use tracing::{info, warn};

use crate::exit::Exit;
use crate::node::Node;
use crate::problem::Problem;

/// The file beside an embedded ledger with the word of its restore.
pub(crate) const QUARANTINE: &str = "quarantine";

/// The setting that says under which word the ledger stands in quarantine, or was let go.
const ROW: &str = "quarantine";

const STANDS: &[u8] = b"stands ";
const RELEASED: &[u8] = b"released ";

/// The longest word, in bytes: of a file what goes beyond is left out.
const WORD_BYTES_MAX: usize = 500;

/// Whether this node is kept from sending.
pub(crate) struct Quarantine {
    stands: AtomicBool,
    /// Held while the node is let go, so that it is once.
    ending: Mutex<()>,
}

impl Quarantine {
    /// Looks whether a ledger is in quarantine: by the word of the configuration, of the file in `data`, or by what
    /// the ledger says itself. A word that is new to it is written into it, with its open sagas paused, before anything
    /// is sent.
    pub(crate) async fn begin(
        engine: &Arc<Engine>,
        configured: Option<&str>,
        data: &Path,
    ) -> Result<Self, Exit> {
        let (ending, store) = (Mutex::default(), engine.store());
        let row = store.setting(ROW.to_owned()).await?;
        let word = match configured {
            Some(word) => Some(word.as_bytes().to_vec()),
            None => word_of(&data.join(QUARANTINE))?,
        };
        let is = |way: &[u8], word: &[u8]| {
            row.as_deref().and_then(|row| row.strip_prefix(way)) == Some(word)
        };
        let stands = match word {
            Some(word) if is(RELEASED, &word) => {
                warn!(
                    "this ledger was released from the quarantine {:?}: take that out of the configuration, and have another word for another restore",
                    String::from_utf8_lossy(&word)
                );
                false
            }
            Some(word) => {
                if !is(STANDS, &word) {
                    hold_sagas(engine).await?;
                    // Where another node was faster it wrote the same, or what this node learns of it.
                    let stands = Bytes::from([STANDS, &word[..]].concat());
                    store.swap(ROW.to_owned(), row, Some(stands)).await?;
                }
                true
            }
            None => row.is_some_and(|row| row.starts_with(STANDS)),
        };
        if stands {
            warn!(
                "the ledger was restored and is in quarantine: nothing is sent until `onceward restore --release`"
            );
        }
        Ok(Self { stands: AtomicBool::new(stands), ending })
    }

    pub(crate) fn stands(&self) -> bool {
        self.stands.load(Ordering::Acquire)
    }
}

/// Writes into the ledger that somebody looked, and lets this node send; others follow. Tells how many operations
/// that were under way at the copy were judged.
pub(crate) async fn release(node: &Node) -> Result<usize, Problem> {
    if !node.is_quarantined() {
        return Err(none());
    }
    let store = node.engine.store();
    let row = store.setting(ROW.to_owned()).await?;
    if let Some(word) = row.as_deref().and_then(|row| row.strip_prefix(STANDS)) {
        let released = Bytes::from([RELEASED, word].concat());
        if !store.swap(ROW.to_owned(), row.clone(), Some(released)).await? {
            let why = "Another node was told the same just now: ask again.";
            return Err(Problem::new("operation-conflict", why));
        }
    }
    if let Err(error) = std::fs::remove_file(node.data.join(QUARANTINE)) {
        // The ledger's own word holds whether or not the file is still there.
        if error.kind() != std::io::ErrorKind::NotFound {
            warn!(%error, "the file {QUARANTINE} in the data folder could not be removed");
        }
    }
    Ok(let_go(node).await?)
}

/// What is told where there is none.
pub(crate) fn none() -> Problem {
    Problem::new("operation-conflict", "The ledger is not in quarantine.")
}

/// Lets this node send where another one was told to.
pub(crate) async fn follow(node: &Node) -> Result<(), StoreError> {
    if !node.is_quarantined() {
        return Ok(());
    }
    let row = node.engine.store().setting(ROW.to_owned()).await?;
    if row.is_some_and(|row| row.starts_with(RELEASED)) {
        let judged = let_go(node).await?;
        info!(operations = judged, "released at another node: this one sends again too");
    }
    Ok(())
}

/// Judges what the copy had under way, then delivers.
async fn let_go(node: &Node) -> Result<usize, StoreError> {
    let _alone = node.quarantine.ending.lock().await;
    if !node.is_quarantined() {
        return Ok(0);
    }
    let judged = node.engine.recover().await?;
    node.quarantine.stands.store(false, Ordering::Release);
    node.engine.start();
    node.outboxes.start();
    Ok(judged)
}

/// The word that a restore left in this file, where there is one.
fn word_of(file: &Path) -> Result<Option<Vec<u8>>, Exit> {
    match std::fs::read(file) {
        Ok(mark) => Ok(Some(cut(mark.trim_ascii()).to_vec())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        // What cannot be read may be there.
        Err(error) => Err(Exit::failed(format!("{}: {error}", file.display()))),
    }
}

fn cut(word: &[u8]) -> &[u8] {
    &word[..word.len().min(WORD_BYTES_MAX)]
}

/// Pauses the sagas that are open: what they did since the copy is not in it. Once for each restore, whichever nodes
/// start: a person may have resumed them since.
async fn hold_sagas(engine: &Arc<Engine>) -> Result<(), Exit> {
    let reason = "the ledger was restored: what this did since the backup is not in it".to_owned();
    let by = Person { who: "restore".to_owned(), reason };
    let held = engine.hold_sagas(&by, crate::shape::now()).await;
    let held = held.map_err(|refusal| match refusal {
        Refusal::Ledger(error) => Exit::from(error),
        refusal => Exit::failed(format!("pausing sagas: {refusal}")),
    })?;
    if held > 0 {
        warn!(sagas = held, "sagas are paused: `onceward saga ls` shows them");
    }
    Ok(())
}
