//! Writes what the core decided about an operation that others may write meanwhile, and says what
//! follows where the ledger refuses it.

use bytes::Bytes;
use onceward_core::operation::{Illegal, Operation};

use crate::engine::Engine;
use crate::store::{Slot, StoreError, Write};

impl Engine {
    /// Writes what was decided; nothing where that cannot follow any more, or where somebody else
    /// wrote meanwhile.
    pub(crate) async fn write(
        &self,
        decided: Result<Operation, Illegal>,
        answer: Option<(Slot, Bytes)>,
        visible: bool,
    ) -> Result<Option<Operation>, StoreError> {
        let Ok(operation) = decided else { return Ok(None) };
        match self.store.commit(Write { operation, answer, visible }).await {
            Ok(written) => Ok(Some(written)),
            Err(StoreError::Stale) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether what goes on for ever goes on although the ledger refused it once: it does, except
    /// after what the engine has to heed.
    pub(crate) fn goes_on_after(&self, error: &StoreError) -> bool {
        let may_pass = error.may_pass() || *error == StoreError::Stale;
        if !may_pass {
            self.heed(error.clone());
        }
        may_pass
    }
}
