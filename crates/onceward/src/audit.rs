//! The audit: everything that a person does, in one line, with who and why. It lies beside the
//! operations, whose own acts say the same of each; what a bulk does to single ones stays with them.
//!
//! Each note has a number and names the digest of the one before it, so that none can be changed, left
//! out or put in without a trace; `link` has the bytes that this is about. A note is a setting whose name
//! is its number: who writes it first has the place, whichever node that is, and the others take the next.

mod link;
mod older;
mod read;
mod walk;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use onceward_core::id::OperationId;
use onceward_core::time::Timestamp;

pub use self::link::{Digest, Head, NotAHead};
use self::link::{Link, PLACES, place_of};
pub use self::read::{NoteQuery, Notes};
pub use self::walk::{Break, Verified, verify, verify_lines};
use crate::engine::Engine;
use crate::people::Person;
use crate::sabotage::Sabotage;
use crate::store::{Store, StoreError, Way};

/// Notes read or removed at once.
const PAGE: usize = 256;

/// How often a place is lost to others before the ledger counts as too busy.
const PLACES_LOST_MAX: usize = 1000;

/// How long notes are kept where nothing says otherwise.
const KEPT: Duration = Duration::from_hours(24 * 400);

/// What an engine knows of the audit.
pub(crate) struct Audit {
    /// How long notes are kept, in seconds.
    kept: AtomicU64,
    /// Who writes here now: the others would only lose their places to it.
    line: tokio::sync::Mutex<()>,
}

impl Default for Audit {
    fn default() -> Self {
        Self { kept: AtomicU64::new(KEPT.as_secs()), line: tokio::sync::Mutex::default() }
    }
}

/// One thing that a person did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Its place in the order of time.
    pub place: Place,
    /// Its place and digest, where it is in the chain.
    pub head: Option<Head>,
    /// When.
    pub at: Timestamp,
    /// The name of the access key, or `local`.
    pub who: String,
    /// What.
    pub deed: String,
    /// To what: an operation, a route, a bulk, an access key.
    pub about: String,
    /// Why, in that person's words; empty where nobody asked.
    pub reason: String,
    /// Whether it came to nothing.
    pub refused: bool,
    /// The note of what came to nothing, where that is another one.
    pub refuses: Option<u64>,
}

/// Where a note is in the order of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// One of before there was a chain.
    Older(OperationId),
    /// The number of one in the chain.
    Number(u64),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Older(id) => id.fmt(f),
            Self::Number(number) => number.fmt(f),
        }
    }
}

impl Engine {
    /// Notes that `person` does `deed` to what `about` names.
    pub async fn note(&self, person: &Person, deed: &str, about: &str) -> Result<Note, StoreError> {
        self.append(Link {
            about: about.to_owned(),
            at: self.clock.now().rfc3339(),
            deed: deed.to_owned(),
            reason: person.reason.clone(),
            who: person.who.clone(),
            ..Link::default()
        })
        .await
    }

    /// What was noted came to nothing: a note of its own says so, for none is ever changed.
    pub async fn note_refused(&self, note: Note) -> Result<(), StoreError> {
        let Place::Number(number) = note.place else { return Ok(()) };
        let link = Link {
            about: note.about,
            at: self.clock.now().rfc3339(),
            deed: note.deed,
            reason: note.reason,
            refuses: Some(number),
            who: note.who,
            ..Link::default()
        };
        self.append(link).await.map(drop)
    }

    /// Puts `link` at the end of the chain: whoever comes second to a place takes the next one.
    async fn append(&self, mut link: Link) -> Result<Note, StoreError> {
        let _turn = self.audit.line.lock().await;
        link.node = format!("{:016x}", self.session.0);
        let store = &*self.store;
        for _ in 0..PLACES_LOST_MAX {
            let head = match head(store).await? {
                Some(head) => head,
                // The first of all answers for what was noted before there was a chain.
                None => match older::begin(store, self.clock.now()).await? {
                    Some(begin) => {
                        match put(store, Link { node: link.node.clone(), ..begin }, Head::NONE)
                            .await?
                        {
                            Some(first) => first.head.unwrap_or(Head::NONE),
                            None => continue,
                        }
                    }
                    None => Head::NONE,
                },
            };
            match put(store, link.clone(), head).await? {
                Some(note) => return Ok(note),
                None => link.at = link.at.max(self.clock.now().rfc3339()),
            }
        }
        Err(StoreError::Away("others write to the audit without an end".to_owned()))
    }

    /// The last note's place and digest: who has them can tell later that nothing was taken away.
    pub async fn audit_head(&self) -> Result<Head, StoreError> {
        Ok(head(&*self.store).await?.unwrap_or(Head::NONE))
    }

    /// From now on notes are kept for so long.
    pub fn keep_notes_for(&self, kept: Duration) {
        self.audit.kept.store(kept.as_secs(), Ordering::Relaxed);
    }

    /// Forgets what was noted too long ago, oldest first. The chain begins anew behind an anchor, which
    /// has the place and the digest of the last note that went.
    pub(crate) async fn forget_notes(&self) -> Result<(), StoreError> {
        let kept = Duration::from_secs(self.audit.kept.load(Ordering::Relaxed));
        let oldest = self.clock.now().minus(kept);
        let store = &*self.store;
        loop {
            let page = store.settings_from(PLACES.to_owned(), None, Way::Up, PAGE).await?;
            let mut last = None;
            for (name, value) in &page {
                let note = link::note(name, value)?;
                if note.at >= oldest {
                    break;
                }
                last = note.head;
            }
            let Some(last) = last else { break };
            let Some(anchor) = move_anchor(store, last).await? else { return Ok(()) };
            for (name, value) in &page {
                if link::read(name, value)?.0 <= anchor.number {
                    store.set(name.clone(), None).await?;
                }
            }
        }
        older::forget(store, oldest).await
    }
}

/// Puts `link` behind `head`, unless somebody has that place.
async fn put(store: &dyn Store, mut link: Link, head: Head) -> Result<Option<Note>, StoreError> {
    let linked = if Sabotage::NoteUnlinked.is_on() { Head::NONE } else { head };
    link.number = head.number + 1;
    link.previous = onceward_core::hex::encode(&linked.digest);
    let (name, value) = (place_of(link.number), link::encode(&link)?);
    if store.swap(name.clone(), None, Some(value.clone())).await? {
        return link::note(&name, &value).map(Some);
    }
    // Where the reply to it was lost, it is there.
    let there = store.setting(name.clone()).await?;
    if there.as_ref() == Some(&value) { link::note(&name, &value).map(Some) } else { Ok(None) }
}

/// The end of the chain; nothing where it has not begun.
async fn head(store: &dyn Store) -> Result<Option<Head>, StoreError> {
    let last = store.settings_from(PLACES.to_owned(), None, Way::Down, 1).await?;
    match last.first() {
        Some((name, value)) => {
            let (number, digest, _) = link::read(name, value)?;
            Ok(Some(Head { number, digest }))
        }
        None => anchor(store).await,
    }
}

/// The last note that its retention took, where there is one.
async fn anchor(store: &dyn Store) -> Result<Option<Head>, StoreError> {
    let kept = store.setting(link::ANCHOR.to_owned()).await?;
    kept.map(|kept| link::read_anchor(&kept)).transpose()
}

/// Moves the anchor up to `last`; tells where it is now, and nothing where somebody else moves it.
async fn move_anchor(store: &dyn Store, last: Head) -> Result<Option<Head>, StoreError> {
    let kept = store.setting(link::ANCHOR.to_owned()).await?;
    let there = kept.as_ref().map(|kept| link::read_anchor(kept)).transpose()?;
    if let Some(there) = there.filter(|there| there.number >= last.number) {
        return Ok(Some(there));
    }
    let moved = Bytes::from(last.to_string());
    Ok(store.swap(link::ANCHOR.to_owned(), kept, Some(moved)).await?.then_some(last))
}
