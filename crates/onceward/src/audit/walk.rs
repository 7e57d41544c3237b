//! Walking along the chain: whether it is whole, and if not, where it breaks.

use std::fmt;

use onceward_core::hex;

use super::link::{self, Digest, Head, Link, Older, PLACES};
use super::{PAGE, anchor, older};
use crate::secret::sha256;
use crate::store::{Store, StoreError, Way};

/// How many places are told where a chain breaks.
const BREAKS_MAX: usize = 20;

/// Where a chain does not hold, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Break {
    /// The number of the note.
    pub number: u64,
    /// In words.
    pub why: String,
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "note {}: {}", self.number, self.why)
    }
}

/// What a walk along a chain found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// What its first note follows: those before it were taken by their retention.
    pub behind: Head,
    /// Its end.
    pub head: Head,
    /// How many notes it has.
    pub notes: u64,
    /// How many notes from before it its first note answers for.
    pub older: u64,
    /// Where it does not hold, at most twenty places; none where it is whole.
    pub breaks: Vec<Break>,
}

/// A walk, note by note.
#[derive(Debug)]
struct Walk {
    found: Verified,
    expected: Option<Head>,
    /// Whether the expected head was passed.
    is_met: bool,
    older: Option<Older>,
}

impl Walk {
    /// Begins behind the note `behind`; where somebody noted a head earlier, it has to be met.
    fn behind(behind: Head, expected: Option<Head>) -> Self {
        let found = Verified { behind, head: behind, notes: 0, older: 0, breaks: Vec::new() };
        let mut walk = Self { found, expected, is_met: false, older: None };
        walk.meet(behind);
        walk
    }

    /// The note at a place: its number, where the place has one, the digest that is kept with it, and its
    /// line.
    fn note(&mut self, place: Option<u64>, kept: Option<Digest>, line: &str) {
        let before = self.found.head;
        let digest = sha256(line.as_bytes());
        let said: Result<Link, _> = serde_json::from_str(line);
        let own = said.as_ref().map(|said| said.number);
        let number = place.unwrap_or_else(|| own.unwrap_or(before.number + 1));
        self.found.notes += 1;
        self.found.head = Head { number, digest };
        if number <= before.number {
            self.breaks(number, format!("it stands behind note {}", before.number));
        } else if number - 1 > before.number {
            let (first, last) = (before.number + 1, number - 1);
            self.breaks(number, format!("{} missing before it", missing(first, last)));
        }
        if kept.is_some_and(|kept| kept != digest) {
            self.breaks(number, "its bytes are not those that were written");
        }
        match said {
            Ok(said) => {
                if said.number != number {
                    self.breaks(number, format!("what stands here is note {}", said.number));
                }
                if said.previous != hex::encode(&before.digest) {
                    self.breaks(
                        number,
                        format!("it does not follow note {} as that is now", before.number),
                    );
                }
                if said.older.is_some() {
                    self.older = said.older;
                }
            }
            Err(error) => self.breaks(number, format!("it cannot be read: {error}")),
        }
        self.meet(self.found.head);
    }

    /// Heeds the head that was expected, where it is this one.
    fn meet(&mut self, head: Head) {
        let Some(expected) = self.expected.filter(|expected| expected.number == head.number) else {
            return;
        };
        self.is_met = true;
        if expected.digest != head.digest {
            self.breaks(head.number, "its digest is not the one that was noted earlier");
        }
    }

    fn breaks(&mut self, number: u64, why: impl Into<String>) {
        if self.found.breaks.len() < BREAKS_MAX {
            self.found.breaks.push(Break { number, why: why.into() });
        }
    }

    /// Ends here.
    fn end(mut self) -> Verified {
        if let Some(expected) = self.expected.filter(|_| !self.is_met) {
            let Verified { head, behind, .. } = &self.found;
            let why = if expected.number > head.number {
                format!("it was noted earlier, and the chain ends with note {}", head.number)
            } else if expected.number < behind.number {
                format!(
                    "it is gone by its retention, with all up to note {}: compare with a later head",
                    behind.number
                )
            } else {
                "it was noted earlier, and is not there".to_owned()
            };
            self.breaks(expected.number, why);
        }
        self.found
    }
}

fn missing(first: u64, last: u64) -> String {
    if first == last { format!("note {first} is") } else { format!("notes {first} to {last} are") }
}

/// Walks along exported lines; what the first of them follows is taken as it says.
pub fn verify_lines<'a>(
    lines: impl IntoIterator<Item = &'a str>,
    expected: Option<Head>,
) -> Verified {
    let mut lines = lines.into_iter().peekable();
    let first = lines.peek().and_then(|line| serde_json::from_str::<Link>(line).ok());
    let behind = first.and_then(|first| {
        let digest = hex::decode(&first.previous)?.try_into().ok()?;
        Some(Head { number: first.number.checked_sub(1)?, digest })
    });
    let mut walk = Walk::behind(behind.unwrap_or(Head::NONE), expected);
    lines.for_each(|line| walk.note(None, None, line));
    walk.end()
}

/// Walks along the whole chain of a ledger.
pub async fn verify(store: &dyn Store, expected: Option<Head>) -> Result<Verified, StoreError> {
    loop {
        let behind = anchor(store).await?.unwrap_or(Head::NONE);
        let found = walk_from(store, behind, expected).await?;
        // What its retention took meanwhile is not missing.
        if found.breaks.is_empty() || anchor(store).await?.unwrap_or(Head::NONE) == behind {
            return Ok(found);
        }
    }
}

async fn walk_from(
    store: &dyn Store,
    behind: Head,
    expected: Option<Head>,
) -> Result<Verified, StoreError> {
    let mut walk = Walk::behind(behind, expected);
    let mut from = Some(link::place_of(behind.number));
    loop {
        let page = store.settings_from(PLACES.to_owned(), from, Way::Up, PAGE).await?;
        for (name, kept) in &page {
            match link::read(name, kept) {
                Ok((number, digest, line)) => walk.note(Some(number), Some(digest), line),
                Err(error) => walk.breaks(walk.found.head.number + 1, error.to_string()),
            }
        }
        if page.len() < PAGE {
            break;
        }
        from = page.last().map(|(name, _)| name.clone());
    }
    if let Some(said) = walk.older.take() {
        walk.found.older = said.count;
        if older::summed(store, Some(&said.last)).await?.as_ref() != Some(&said) {
            walk.breaks(1, "the older notes that it answers for are not those that there were");
        }
    }
    Ok(walk.end())
}
