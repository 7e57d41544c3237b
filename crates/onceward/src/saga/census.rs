//! How many sagas that have not ended stand where. That is kept with each saga, so each is read once for each
//! move of it, and its row alone from then on.

use std::collections::{BTreeMap, HashMap};

use onceward_core::id::OperationId;
use onceward_core::key::ScopeKind;
use onceward_core::operation::Fence;
use onceward_core::saga::Standing;
use tokio::sync::Mutex;

use crate::engine::Engine;
use crate::store::{Counted, Query, Standing as Stands, StoreError};

/// Sagas on one page of it, and pages of one look: of more, the next look goes on where this one ended, so that
/// the oldest, which are those that are stuck, have their turn as the others have.
const PAGE: usize = 500;
const PAGES_MAX: usize = 20;

/// Sagas that are counted at most: each is kept in memory with where it stands.
const COUNTED_MAX: usize = 100_000;

/// Where those stood that were looked at last. One look at a time: who comes beside it has what it learns, and
/// what a look that is dropped has learnt stays.
#[derive(Debug, Default)]
pub(crate) struct Census(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    sagas: HashMap<OperationId, Stood>,
    /// Where the next look goes on, from the newest to the oldest.
    place: Option<OperationId>,
    /// How often it came to the oldest.
    passes: u64,
    /// Whether the last pass had no more than are counted.
    is_all: bool,
    /// Whether the one under way has not, up to now.
    is_beyond: bool,
}

/// Where a saga stood, its fence then, and in which pass it was seen.
#[derive(Debug)]
struct Stood {
    tenant: String,
    standing: Standing,
    fence: Fence,
    pass: u64,
}

/// How many sagas that have not ended there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenSagas {
    /// By tenant and where they stand.
    pub counts: BTreeMap<(String, Standing), u64>,
    /// Whether these are all: of many, those that were not looked at yet are missing.
    pub is_all: bool,
}

impl Known {
    /// Takes note of one; not of more than there is room for.
    fn note(&mut self, id: OperationId, stood: Stood) {
        if self.sagas.len() < COUNTED_MAX || self.sagas.contains_key(&id) {
            self.sagas.insert(id, stood);
        } else {
            self.is_beyond = true;
        }
    }

    /// The oldest was seen: what was not has ended.
    fn end_pass(&mut self) {
        let pass = self.passes;
        self.sagas.retain(|_, stood| stood.pass == pass);
        self.is_all = !std::mem::take(&mut self.is_beyond);
        self.passes += 1;
    }

    fn open(&self) -> OpenSagas {
        let mut counts = BTreeMap::new();
        for stood in self.sagas.values().filter(|stood| !stood.standing.is_ended()) {
            *counts.entry((stood.tenant.clone(), stood.standing)).or_default() += 1;
        }
        OpenSagas { counts, is_all: self.is_all }
    }
}

impl Engine {
    /// Counts the sagas that have not ended.
    pub async fn open_sagas(&self) -> Result<OpenSagas, StoreError> {
        let mut known = self.census.0.lock().await;
        let counts = self.store.count_open(None, 1).await?;
        let are_open = |(stands, counted): &(Stands, Counted)| {
            *stands == Stands::Delivering && counted.count > 0
        };
        if !counts.iter().any(are_open) {
            *known = Known::default();
            return Ok(OpenSagas { is_all: true, ..OpenSagas::default() });
        }
        for _ in 0..PAGES_MAX {
            let query = Query {
                standing: vec![Stands::Delivering],
                kind: Some(ScopeKind::Saga),
                before: known.place,
                limit: PAGE,
                ..Query::default()
            };
            let page = self.store.list(query).await?;
            let pass = known.passes;
            for operation in page.operations {
                let (id, fence) = (operation.id, operation.fence);
                let tenant = operation.scope.tenant.clone();
                let standing = match known.sagas.get(&id).filter(|then| then.fence == fence) {
                    Some(then) => then.standing,
                    None => self.saga_of(operation).await?.standing(),
                };
                known.note(id, Stood { tenant, standing, fence, pass });
            }
            known.place = page.next;
            if known.place.is_none() {
                known.end_pass();
                break;
            }
        }
        Ok(known.open())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stuck(known: &Known) -> Stood {
        let (tenant, standing) = ("t".to_owned(), Standing::Stuck);
        Stood { tenant, standing, fence: Fence::default(), pass: known.passes }
    }

    fn see(known: &mut Known, sagas: std::ops::Range<u64>) {
        for at in sagas {
            let stood = stuck(known);
            known.note(OperationId::new(at, 1), stood);
        }
    }

    #[test]
    fn what_a_pass_has_not_seen_any_more_is_forgotten_with_its_end_and_not_before() {
        let mut known = Known::default();
        see(&mut known, 0..10);
        assert!(!known.open().is_all, "the oldest were not seen yet");
        known.end_pass();
        let all = |count| OpenSagas {
            counts: BTreeMap::from([(("t".to_owned(), Standing::Stuck), count)]),
            is_all: true,
        };
        assert_eq!(known.open(), all(10));
        see(&mut known, 5..8);
        assert_eq!(known.open(), all(10));
        known.end_pass();
        assert_eq!(known.open(), all(3));
    }

    #[test]
    fn of_more_than_there_is_room_for_it_is_told_that_they_are_not_all() {
        let mut known = Known::default();
        let many = COUNTED_MAX as u64 + 1;
        see(&mut known, 0..many);
        known.end_pass();
        assert_eq!((known.sagas.len(), known.open().is_all), (COUNTED_MAX, false));
        see(&mut known, 0..many - 1);
        known.end_pass();
        assert!(known.open().is_all);
    }
}
