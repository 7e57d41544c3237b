//! 5\. A duplicate gets the same answer, byte for byte; the upstream is not asked.

use onceward_core::attempt::Attempt;
use onceward_core::exchange::Response;
use onceward_core::operation::Operation;

use crate::secret::Secrets;
use crate::store::{Store, StoreError};
use crate::wire;

/// The stored answer of `operation`; nothing where it is not retained.
pub(crate) async fn replay(
    store: &dyn Store,
    operation: &Operation,
    secrets: &Secrets,
) -> Result<Option<Response>, StoreError> {
    let Some(answer) = operation.outcome.as_ref().and_then(|outcome| outcome.answer) else {
        return Ok(None);
    };
    let kept = store.body_of(operation, answer).await?;
    Ok(Some(wire::decode_response(&kept, operation.id, secrets)?))
}

/// The stored failure of a dead operation: its last attempt's answer, where it was kept whole.
pub(crate) async fn replay_failure(
    store: &dyn Store,
    operation: &Operation,
    secrets: &Secrets,
) -> Result<Option<Response>, StoreError> {
    let last = |attempt: &Attempt| Some((attempt.n, attempt.ended.as_ref()?.answer?));
    let Some((n, answer)) = operation.attempts.last().and_then(last) else { return Ok(None) };
    let kept = store.body_of(operation, answer).await?;
    let (response, cut) = wire::decode_excerpt(&kept, operation.id, n, secrets)?;
    Ok((!cut).then_some(response))
}
