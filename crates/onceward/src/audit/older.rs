//! What was noted before there was a chain: rows of their own, for which the chain's first note answers
//! with one digest over all of them.

use onceward_core::hex;
use onceward_core::time::Timestamp;
use serde::Deserialize;

use super::link::{Digest, Link, Older};
use super::{Note, PAGE, Place, anchor, head};
use crate::secret::sha256;
use crate::setting;
use crate::store::{Store, StoreError, Way};

/// What the setting of such a note is called: its id follows, so that names are in the order of time.
pub(super) const OLDER: &str = "audit/";

#[derive(Deserialize)]
struct Row {
    at: i64,
    who: String,
    deed: String,
    about: String,
    reason: String,
    refused: bool,
}

/// The note as people see it.
pub(super) fn note(name: &str, kept: &[u8]) -> Result<Note, StoreError> {
    let id = setting::id_of(OLDER, name)?;
    let Row { at, who, deed, about, reason, refused } = setting::decode(name, kept)?;
    let (place, at) = (Place::Older(id), Timestamp::from_micros(at));
    Ok(Note { place, head: None, at, who, deed, about, reason, refused, refuses: None })
}

/// The first note of a chain, where something was noted before.
pub(super) async fn begin(store: &dyn Store, now: Timestamp) -> Result<Option<Link>, StoreError> {
    let Some(older) = summed(store, None).await? else { return Ok(None) };
    Ok(Some(Link {
        about: format!("{} older notes", older.count),
        at: now.rfc3339(),
        deed: "began the chain".to_owned(),
        older: Some(older),
        who: "onceward".to_owned(),
        ..Link::default()
    }))
}

/// The older notes up to the one named `last`, counted and with a digest over them: of each, oldest
/// first, the SHA-256 of what came before, of its name and of the bytes that are kept under it.
pub(super) async fn summed(
    store: &dyn Store,
    last: Option<&str>,
) -> Result<Option<Older>, StoreError> {
    let mut digest = Digest::default();
    let (mut count, mut from) = (0, None::<String>);
    loop {
        let page = store.settings_from(OLDER.to_owned(), from.clone(), Way::Up, PAGE).await?;
        let is_last = page.len() < PAGE;
        for (name, kept) in page {
            if last.is_some_and(|last| name.as_str() > last) {
                break;
            }
            digest = sha256(&[&digest[..], name.as_bytes(), &kept].concat());
            (count, from) = (count + 1, Some(name));
        }
        if is_last || from.as_deref() == last {
            break;
        }
    }
    let sum = |last| Older { count, last, sha256: hex::encode(&digest) };
    Ok(from.map(sum))
}

/// Forgets those that are older than `oldest`: one by one while no chain answers for them, and all of
/// them once the note that does has gone too.
pub(super) async fn forget(store: &dyn Store, oldest: Timestamp) -> Result<(), StoreError> {
    if head(store).await?.is_some() && anchor(store).await?.is_none() {
        return Ok(());
    }
    loop {
        let page = store.settings_from(OLDER.to_owned(), None, Way::Up, PAGE).await?;
        for (name, kept) in &page {
            if note(name, kept)?.at >= oldest {
                return Ok(());
            }
            store.set(name.clone(), None).await?;
        }
        if page.len() < PAGE {
            return Ok(());
        }
    }
}
