//! How many sagas that have not ended stand where. That is kept with each saga, so each is read once for each
//! move of it, and its row alone from then on.

use std::collections::{BTreeMap, HashMap, HashSet};

use onceward_core::id::OperationId;
use onceward_core::key::ScopeKind;
use onceward_core::operation::Fence;
use onceward_core::saga::Standing;
use tokio::sync::Mutex;

use crate::engine::Engine;
use crate::store::{Counted, Query, Standing as Stands, StoreError};

/// Sagas on one page of it, and pages: what is beyond is not counted.
const PAGE: usize = 500;
const PAGES_MAX: usize = 20;

/// Where those stood that were looked at last, and their fences then. One look at a time: who comes beside it has
/// what it learns, and what a look that is dropped has learnt stays.
#[derive(Debug, Default)]
pub(crate) struct Census(Mutex<HashMap<OperationId, (Fence, Standing)>>);

/// How many sagas that have not ended there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenSagas {
    /// By tenant and where they stand.
    pub counts: BTreeMap<(String, Standing), u64>,
    /// Whether these are all: of more the newest are counted.
    pub is_all: bool,
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
            known.clear();
            return Ok(OpenSagas { is_all: true, ..OpenSagas::default() });
        }
        let mut query = Query {
            standing: vec![Stands::Delivering],
            kind: Some(ScopeKind::Saga),
            limit: PAGE,
            ..Query::default()
        };
        let (mut open, mut seen) = (OpenSagas::default(), HashSet::new());
        for _ in 0..PAGES_MAX {
            let page = self.store.list(query.clone()).await?;
            for operation in page.operations {
                let (id, fence) = (operation.id, operation.fence);
                let tenant = operation.scope.tenant.clone();
                let standing = match known.get(&id).filter(|(then, _)| *then == fence) {
                    Some((_, standing)) => *standing,
                    None => self.saga_of(operation).await?.standing(),
                };
                known.insert(id, (fence, standing));
                seen.insert(id);
                if !standing.is_ended() {
                    *open.counts.entry((tenant, standing)).or_default() += 1;
                }
            }
            query.before = page.next;
            if query.before.is_none() {
                open.is_all = true;
                break;
            }
        }
        known.retain(|id, _| seen.contains(id));
        Ok(open)
    }
}
