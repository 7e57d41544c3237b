//! Which operations a bulk acted on, as far as that is kept: so that it can be told what became of them.

use onceward_core::id::OperationId;
use onceward_core::operation::Operation;

use super::Bulk;
use crate::engine::Engine;
use crate::setting;
use crate::store::{StoreError, Which};

/// How many of them are kept, the first ones: each is read where somebody looks.
pub(super) const ACTED_MAX: usize = 500;

/// The name of the setting that has those of the bulk with this id.
pub(super) fn name_of(bulk: OperationId) -> String {
    setting::name_of("bulk.acted/", bulk)
}

/// Those of a bulk that is in hand.
#[derive(Debug, Default)]
pub(super) struct Acted {
    ids: Vec<u128>,
    /// Whether there are some that the ledger has not.
    is_new: bool,
}

impl Acted {
    pub(super) fn add(&mut self, id: OperationId) {
        if self.ids.len() < ACTED_MAX && self.ids.last() != Some(&id.as_u128()) {
            self.ids.push(id.as_u128());
            self.is_new = true;
        }
    }
}

/// The operations that a bulk acted on, as they stand now.
#[derive(Debug, Clone, Default)]
pub struct BulkOutcomes {
    /// Those that are kept and still there, in the order in which it acted.
    pub operations: Vec<Operation>,
    /// Whether these are all.
    pub is_all: bool,
}

impl Engine {
    /// What became of what a bulk acted on. Of more than 500 the first are told of; those of the last second
    /// before a crash may be missing.
    pub async fn outcomes_of(&self, bulk: &Bulk) -> Result<BulkOutcomes, StoreError> {
        let kept = self.kept_acted(bulk.id).await?.ids;
        let mut operations = Vec::with_capacity(kept.len());
        for id in kept {
            operations.extend(self.store.find(Which::Id(OperationId::from_u128(id))).await?);
        }
        let is_all = operations.len() as u64 >= bulk.done;
        Ok(BulkOutcomes { operations, is_all })
    }

    /// Those that an earlier turn of the bulk acted on.
    pub(super) async fn kept_acted(&self, bulk: OperationId) -> Result<Acted, StoreError> {
        let name = name_of(bulk);
        let Some(value) = self.store.setting(name.clone()).await? else {
            return Ok(Acted::default());
        };
        Ok(Acted { ids: setting::decode(&name, &value)?, is_new: false })
    }

    /// Writes them, where there are new ones; what the ledger does not take now it is given with the next.
    pub(super) async fn keep_acted(
        &self,
        bulk: OperationId,
        acted: &mut Acted,
    ) -> Result<(), StoreError> {
        if !acted.is_new {
            return Ok(());
        }
        match self.store.set(name_of(bulk), Some(setting::encode(&acted.ids)?)).await {
            Ok(()) => acted.is_new = false,
            Err(error) if error.may_pass() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_kept_than_are_read_again_and_one_that_was_in_hand_counts_once() {
        let mut acted = Acted::default();
        for n in 0..2 * ACTED_MAX as u128 {
            acted.add(OperationId::from_u128(n));
            acted.add(OperationId::from_u128(n));
        }
        assert_eq!(acted.ids.len(), ACTED_MAX);
        assert_eq!(acted.ids[..3], [0, 1, 2]);
    }
}
