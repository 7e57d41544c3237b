//! Reading what people did: newest first, or line by line.

use std::time::Duration;

use onceward_core::time::Timestamp;

use super::link::{self, PLACES, place_of};
use super::older::{self, OLDER};
use super::{Head, Note, PAGE, Place, anchor};
use crate::engine::Engine;
use crate::setting;
use crate::store::{Store, StoreError, Way};

/// How many notes one question looks at: past it, it returns what it has with a `next`.
const ROWS_MAX: usize = 10_000;

/// How far the clocks of nodes, and a note and its deed, may lie apart.
const APART: Duration = Duration::from_mins(1);

/// Which notes, newest first.
#[derive(Debug, Clone, Default)]
pub struct NoteQuery {
    /// Only what this tenant's own people did: their names begin with its own and a slash.
    pub tenant: Option<String>,
    /// Only this person's.
    pub who: Option<String>,
    /// Only those about exactly this.
    pub about: Option<String>,
    /// Only from then on.
    pub since: Option<Timestamp>,
    /// Only older than this one.
    pub before: Option<Place>,
    /// How many at most.
    pub limit: usize,
}

impl NoteQuery {
    fn wants(&self, note: &Note) -> bool {
        let is = |wanted: &Option<String>, value: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == value)
        };
        let is_of = |tenant: &String| {
            note.who.strip_prefix(tenant.as_str()).is_some_and(|rest| rest.starts_with('/'))
        };
        is(&self.who, &note.who)
            && is(&self.about, &note.about)
            && self.tenant.as_ref().is_none_or(is_of)
    }
}

/// Some notes, newest first.
#[derive(Debug, Clone, Default)]
pub struct Notes {
    /// They.
    pub notes: Vec<Note>,
    /// Where to go on with [`NoteQuery::before`], where there may be more.
    pub next: Option<Place>,
}

impl Engine {
    /// What people did, newest first, from a bounded number of notes.
    pub async fn notes(&self, query: &NoteQuery) -> Result<Notes, StoreError> {
        let mut found = Notes::default();
        let (mut before, mut looked_at) = (query.before, 0);
        loop {
            let page = page(&*self.store, before).await?;
            for note in &page {
                if query.since.is_some_and(|since| note.at < since) {
                    return Ok(found);
                }
                (before, looked_at) = (Some(note.place), looked_at + 1);
                if query.wants(note) {
                    found.notes.push(note.clone());
                }
                if found.notes.len() >= query.limit || looked_at >= ROWS_MAX {
                    found.next = before;
                    return Ok(found);
                }
            }
            if page.is_empty() {
                return Ok(found);
            }
        }
    }

    /// The lines of at most `max` notes behind the one with this number, oldest first: exactly the bytes
    /// that the chain is about.
    pub async fn audit_lines(&self, behind: u64, max: usize) -> Result<Vec<String>, StoreError> {
        let from = Some(place_of(behind));
        let page = self.store.settings_from(PLACES.to_owned(), from, Way::Up, max).await?;
        let line = |(name, kept): &(String, bytes::Bytes)| {
            link::read(name, kept).map(|(_, _, line)| line.to_owned())
        };
        page.iter().map(line).collect()
    }

    /// The notes in the chain about exactly this, of between these times, oldest first.
    pub async fn notes_about(
        &self,
        about: &str,
        from: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<Note>, StoreError> {
        let store = &*self.store;
        let behind = self.first_after(until.plus(APART)).await?;
        let mut query = NoteQuery {
            about: Some(about.to_owned()),
            since: Some(from.minus(APART)),
            before: Some(Place::Number(behind)),
            limit: ROWS_MAX,
            ..NoteQuery::default()
        };
        let mut found = Vec::new();
        if super::head(store).await?.is_none() {
            return Ok(found);
        }
        loop {
            let page = self.notes(&query).await?;
            found.extend(page.notes.into_iter().filter(|note| note.head.is_some()));
            query.before = page.next;
            if query.before.is_none() {
                found.reverse();
                return Ok(found);
            }
        }
    }

    /// The number of the first note of after `at`, found by halves: numbers go up with time.
    async fn first_after(&self, at: Timestamp) -> Result<u64, StoreError> {
        let store = &*self.store;
        let mut low = anchor(store).await?.unwrap_or(Head::NONE).number + 1;
        let mut high = self.audit_head().await?.number + 1;
        while low < high {
            let middle = low.midpoint(high);
            let name = place_of(middle);
            let kept = store.setting(name.clone()).await?;
            let note = kept.map(|kept| link::note(&name, &kept)).transpose()?;
            match note {
                Some(note) if note.at <= at => low = middle + 1,
                _ => high = middle,
            }
        }
        Ok(low)
    }
}

/// Some notes that are older than `before`, newest first: those of the chain, then those from before it.
async fn page(store: &dyn Store, before: Option<Place>) -> Result<Vec<Note>, StoreError> {
    let from = match before {
        Some(Place::Older(_)) => None,
        Some(Place::Number(number)) => Some(Some(place_of(number))),
        None => Some(None),
    };
    if let Some(from) = from {
        let page = store.settings_from(PLACES.to_owned(), from, Way::Down, PAGE).await?;
        if !page.is_empty() {
            return page.iter().map(|(name, value)| link::note(name, value)).collect();
        }
    }
    let from = match before {
        Some(Place::Older(id)) => Some(setting::name_of(OLDER, id)),
        _ => None,
    };
    let page = store.settings_from(OLDER.to_owned(), from, Way::Down, PAGE).await?;
    page.iter().map(|(name, value)| older::note(name, value)).collect()
}
