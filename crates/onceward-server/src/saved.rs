//! Filters that people saved under a name, so that whoever is of their tenant finds them again: one small row of
//! each tenant in the ledger, written by compare and swap.

use std::sync::Arc;

use bytes::Bytes;
use onceward::core::time::Timestamp;
use onceward::store::{Store, StoreError};
use serde::{Deserialize, Serialize};

use crate::operator::invalid;
use crate::problem::Problem;

/// How many a tenant has at most.
pub(crate) const SAVED_MAX: usize = 50;

/// The longest name.
pub(crate) const NAME_LETTERS_MAX: usize = 60;

/// The longest filter, as it is written in an address.
pub(crate) const QUERY_BYTES_MAX: usize = 2000;

/// A filter that has a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Saved {
    pub(crate) name: String,
    /// As the query of a list's address; how long ago something came stays as it was said.
    pub(crate) query: String,
    /// Who saved it.
    pub(crate) who: String,
    /// When, in microseconds.
    at: i64,
}

impl Saved {
    pub(crate) fn new(name: String, query: String, who: String, at: Timestamp) -> Self {
        Self { name, query, who, at: at.as_micros() }
    }

    /// When it was saved.
    pub(crate) fn at(&self) -> Timestamp {
        Timestamp::from_micros(self.at)
    }
}

/// Whether a filter can be called so: its name stands in an address.
pub(crate) fn check_name(name: &str) -> Result<(), Problem> {
    let starts = name.chars().next().is_some_and(|first| first != '.' && !first.is_whitespace());
    let fits = name.chars().count() <= NAME_LETTERS_MAX;
    if starts && fits && !name.contains(|letter: char| letter == '/' || letter.is_control()) {
        return Ok(());
    }
    Err(invalid(format!(
        "name: at most {NAME_LETTERS_MAX} letters, no slash, and neither a full stop nor a space first"
    )))
}

fn row_of(tenant: &str) -> String {
    format!("filters/{tenant}")
}

fn read(tenant: &str, kept: Option<&Bytes>) -> Result<Vec<Saved>, StoreError> {
    let Some(kept) = kept else { return Ok(Vec::new()) };
    serde_json::from_slice(kept)
        .map_err(|error| StoreError::Damaged(format!("the setting {}: {error}", row_of(tenant))))
}

/// Those of a tenant, by name.
pub(crate) async fn all(store: &Arc<dyn Store>, tenant: &str) -> Result<Vec<Saved>, StoreError> {
    read(tenant, store.setting(row_of(tenant)).await?.as_ref())
}

/// Saves one, in the place of another of its name where it `replaces` that.
pub(crate) async fn save(
    store: &Arc<dyn Store>,
    tenant: &str,
    saved: &Saved,
    replaces: bool,
) -> Result<(), Problem> {
    change(store, tenant, |all| {
        let is_other = |other: &&Saved| other.name == saved.name && other.query != saved.query;
        if let Some(other) = all.iter().find(is_other).filter(|_| !replaces) {
            let Saved { name, who, .. } = other;
            return Err(invalid(format!(
                "name: {who} has saved another filter as {name:?}; delete that first, or take another name"
            )));
        }
        all.retain(|other| other.name != saved.name);
        if all.len() >= SAVED_MAX {
            let why = format!("A tenant has at most {SAVED_MAX} saved filters: delete one first.");
            return Err(Problem::new("limit", why));
        }
        all.push(saved.clone());
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(())
    })
    .await
}

/// Deletes the one of this name.
pub(crate) async fn delete(
    store: &Arc<dyn Store>,
    tenant: &str,
    name: &str,
) -> Result<(), Problem> {
    change(store, tenant, |all| {
        let many = all.len();
        all.retain(|saved| saved.name != name);
        if all.len() < many { Ok(()) } else { Err(unknown(name)) }
    })
    .await
}

/// What is told of one that is not there.
pub(crate) fn unknown(name: &str) -> Problem {
    Problem::new("not-found", format!("No filter is saved as {name:?}."))
}

/// Whoever is beaten to it reads what the other wrote, and decides anew.
async fn change(
    store: &Arc<dyn Store>,
    tenant: &str,
    decide: impl Fn(&mut Vec<Saved>) -> Result<(), Problem>,
) -> Result<(), Problem> {
    loop {
        let kept = store.setting(row_of(tenant)).await?;
        let mut all = read(tenant, kept.as_ref())?;
        decide(&mut all)?;
        let row =
            serde_json::to_vec(&all).map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let row = Some(Bytes::from(row)).filter(|_| !all.is_empty());
        if store.swap(row_of(tenant), kept, row).await? {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use onceward::store::memory::MemoryStore;

    use super::*;

    fn saved(name: &str) -> Saved {
        Saved::new(
            name.to_owned(),
            "state=dead".to_owned(),
            "ada".to_owned(),
            Timestamp::from_micros(1),
        )
    }

    #[tokio::test]
    async fn no_more_are_saved_than_fit_and_one_of_a_name_is_another_in_its_place() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        for n in 0..SAVED_MAX {
            save(&store, "acme", &saved(&format!("n{n:02}")), true).await.unwrap();
        }
        assert_eq!(save(&store, "acme", &saved("one more"), true).await.unwrap_err().code, "limit");
        let other = Saved { query: "state=pending".to_owned(), ..saved("n07") };
        assert!(save(&store, "acme", &other, false).await.is_err(), "in the place of none");
        save(&store, "acme", &other, true).await.unwrap();
        save(&store, "bolt", &saved("one more"), true).await.unwrap();
        let kept = all(&store, "acme").await.unwrap();
        assert_eq!((kept.len(), &kept[7]), (SAVED_MAX, &other));
        delete(&store, "acme", "n00").await.unwrap();
        assert_eq!(delete(&store, "acme", "n00").await.unwrap_err().code, "not-found");
        delete(&store, "bolt", "one more").await.unwrap();
        assert_eq!(store.settings(row_of("bolt")).await.unwrap(), []);
    }

    #[tokio::test]
    async fn of_two_that_save_at_once_neither_is_lost() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let is_beaten = Cell::new(false);
        let both = change(&store, "acme", |all| {
            if !is_beaten.replace(true) {
                // Between what this one read and what it writes; the memory's verbs are done as they are called.
                let theirs = serde_json::to_vec(&[saved("theirs")]).unwrap();
                drop(store.set(row_of("acme"), Some(theirs.into())));
            }
            all.push(saved("mine"));
            Ok(())
        });
        both.await.unwrap();
        let kept = all(&store, "acme").await.unwrap();
        let names: Vec<_> = kept.iter().map(|saved| &*saved.name).collect();
        assert_eq!(names, ["theirs", "mine"]);
    }

    #[test]
    fn a_name_can_stand_in_an_address() {
        let long = "n".repeat(NAME_LETTERS_MAX + 1);
        for wrong in ["", " late", ".", "..", ".hidden", "a/b", "a\nb", "\u{7f}", &long] {
            assert!(check_name(wrong).is_err(), "{wrong:?}");
        }
        for right in ["Dead on pay, 24 h", "späte Fehler", "名前", &long[1..]] {
            assert!(check_name(right).is_ok(), "{right:?}");
        }
    }
}
