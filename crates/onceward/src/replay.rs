//! 5\. A duplicate gets the same answer, byte for byte; the upstream is not asked.

use onceward_core::exchange::Response;
use onceward_core::operation::Operation;

use crate::secret::Secrets;
use crate::store::{Store, StoreError};
use crate::wire;

/// The stored answer of `operation`; nothing where it is not retained.
pub(crate) async fn replay(
    store: &dyn Store,
    operation: &Operation,
) -> Result<Option<Response>, StoreError> {
    let Some(answer) = operation.outcome.as_ref().and_then(|outcome| outcome.answer) else {
        return Ok(None);
    };
    Ok(Some(wire::decode_response(&store.body_of(operation, answer).await?)?))
}

/// The stored failure of a dead operation: its last attempt's answer, where it was kept whole.
pub(crate) async fn replay_failure(
    store: &dyn Store,
    operation: &Operation,
    secrets: &Secrets,
) -> Result<Option<Response>, StoreError> {
    let last = operation.attempts.last().and_then(|attempt| attempt.ended.as_ref()?.answer);
    let Some(answer) = last else { return Ok(None) };
    let (response, cut) =
        wire::decode_excerpt(&store.body_of(operation, answer).await?, operation.id, secrets)?;
    Ok((!cut).then_some(response))
}
