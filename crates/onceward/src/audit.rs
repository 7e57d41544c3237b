//! The audit: everything that a person does, in one list by time, with who and why. It lies beside
//! the operations, whose own acts say the same of each; what a bulk does to single ones stays with them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use onceward_core::id::OperationId;
use onceward_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::people::Person;
use crate::setting;
use crate::store::{StoreError, Way};

/// What the setting of a note is called: its id follows, so that names are in the order of time.
const PREFIX: &str = "audit/";

/// Notes read or removed at once.
const PAGE: usize = 256;

/// How many notes one question looks at: past it, it returns what it has with a `next`.
const ROWS_MAX: usize = 10_000;

/// How long notes are kept where nothing says otherwise.
const KEPT: Duration = Duration::from_hours(24 * 400);

/// How long notes are kept.
pub(crate) struct Retention(AtomicU64);

impl Default for Retention {
    fn default() -> Self {
        Self(AtomicU64::new(KEPT.as_secs()))
    }
}

/// One thing that a person did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Its place in the order of time.
    pub id: OperationId,
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
}

#[derive(Serialize, Deserialize)]
struct NoteRow {
    at: i64,
    who: String,
    deed: String,
    about: String,
    reason: String,
    refused: bool,
}

/// Which notes, newest first.
#[derive(Debug, Clone, Default)]
pub struct NoteQuery {
    /// Only what this tenant's own people did: their names begin with its own and a slash.
    pub tenant: Option<String>,
    /// Only this person's.
    pub who: Option<String>,
    /// Only from then on.
    pub since: Option<Timestamp>,
    /// Only older than this one.
    pub before: Option<OperationId>,
    /// How many at most.
    pub limit: usize,
}

/// Some notes, newest first.
#[derive(Debug, Clone, Default)]
pub struct Notes {
    /// They.
    pub notes: Vec<Note>,
    /// Where to go on with [`NoteQuery::before`], where there may be more.
    pub next: Option<OperationId>,
}

impl NoteQuery {
    fn wants(&self, note: &Note) -> bool {
        let is_of = |tenant: &String| {
            note.who.strip_prefix(tenant.as_str()).is_some_and(|rest| rest.starts_with('/'))
        };
        self.who.as_ref().is_none_or(|who| *who == note.who)
            && self.tenant.as_ref().is_none_or(is_of)
    }
}

fn decode(name: &str, value: &[u8]) -> Result<Note, StoreError> {
    let id = setting::id_of(PREFIX, name)?;
    let row: NoteRow = setting::decode(name, value)?;
    let NoteRow { at, who, deed, about, reason, refused } = row;
    Ok(Note { id, at: Timestamp::from_micros(at), who, deed, about, reason, refused })
}

impl Engine {
    /// Notes that `person` does `deed` to what `about` names.
    pub async fn note(&self, person: &Person, deed: &str, about: &str) -> Result<Note, StoreError> {
        let at = self.clock.now();
        let note = Note {
            id: self.next_id(at),
            at,
            who: person.who.clone(),
            deed: deed.to_owned(),
            about: about.to_owned(),
            reason: person.reason.clone(),
            refused: false,
        };
        self.keep_note(&note).await?;
        Ok(note)
    }

    /// What was noted came to nothing.
    pub(crate) async fn note_refused(&self, note: Note) -> Result<(), StoreError> {
        self.keep_note(&Note { refused: true, ..note }).await
    }

    async fn keep_note(&self, note: &Note) -> Result<(), StoreError> {
        let row = NoteRow {
            at: note.at.as_micros(),
            who: note.who.clone(),
            deed: note.deed.clone(),
            about: note.about.clone(),
            reason: note.reason.clone(),
            refused: note.refused,
        };
        self.store.set(setting::name_of(PREFIX, note.id), Some(setting::encode(&row)?)).await
    }

    /// What people did, newest first, from a bounded number of notes.
    pub async fn notes(&self, query: &NoteQuery) -> Result<Notes, StoreError> {
        let mut found = Notes::default();
        let (mut before, mut looked_at) = (query.before, 0);
        loop {
            let from = before.map(|before| setting::name_of(PREFIX, before));
            let page = self.store.settings_from(PREFIX.to_owned(), from, Way::Down, PAGE).await?;
            for (name, value) in &page {
                let note = decode(name, value)?;
                if query.since.is_some_and(|since| note.at < since) {
                    return Ok(found);
                }
                (before, looked_at) = (Some(note.id), looked_at + 1);
                if query.wants(&note) {
                    found.notes.push(note);
                }
                if found.notes.len() >= query.limit || looked_at >= ROWS_MAX {
                    found.next = before;
                    return Ok(found);
                }
            }
            if page.len() < PAGE {
                return Ok(found);
            }
        }
    }

    /// From now on notes are kept for so long.
    pub fn keep_notes_for(&self, kept: Duration) {
        self.notes_kept.0.store(kept.as_secs(), Ordering::Relaxed);
    }

    /// Forgets what was noted too long ago, oldest first.
    pub(crate) async fn forget_notes(&self) -> Result<(), StoreError> {
        let kept = Duration::from_secs(self.notes_kept.0.load(Ordering::Relaxed));
        let oldest = self.clock.now().minus(kept);
        loop {
            let page = self.store.settings_from(PREFIX.to_owned(), None, Way::Up, PAGE).await?;
            for (name, value) in &page {
                if decode(name, value)?.at >= oldest {
                    return Ok(());
                }
                self.store.set(name.clone(), None).await?;
            }
            if page.len() < PAGE {
                return Ok(());
            }
        }
    }
}
