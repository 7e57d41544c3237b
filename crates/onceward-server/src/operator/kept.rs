//! What is kept of an operation's exchanges, read back. Credentials stay sealed: nobody reads them here.

use onceward::core::attempt::Attempt;
use onceward::core::exchange::{Request, Response};
use onceward::core::operation::Operation;
use onceward::wire::{self, Credentials};

use crate::node::Node;
use crate::problem::Problem;

/// What was asked, where it has not been forgotten.
pub(crate) async fn request(node: &Node, of: &Operation) -> Result<Option<Request>, Problem> {
    let Some(kept) = of.request else { return Ok(None) };
    let bytes = node.engine.store().body_of(of, kept).await?;
    Ok(Some(wire::decode_request(&bytes, of.id, node.engine.secrets(), Credentials::Left)?))
}

/// The answer of its outcome.
pub(crate) async fn answer(node: &Node, of: &Operation) -> Result<Option<Response>, Problem> {
    let kept = of.outcome.as_ref().and_then(|outcome| outcome.answer);
    let Some(kept) = kept else { return Ok(None) };
    let bytes = node.engine.store().body_of(of, kept).await?;
    Ok(Some(wire::decode_response(&bytes, of.id, node.engine.secrets())?))
}

/// What an attempt brought, and whether that is only a beginning.
pub(crate) async fn excerpt(
    node: &Node,
    of: &Operation,
    attempt: &Attempt,
) -> Result<Option<(Response, bool)>, Problem> {
    let Some(kept) = attempt.ended.as_ref().and_then(|ended| ended.answer) else {
        return Ok(None);
    };
    let bytes = node.engine.store().body_of(of, kept).await?;
    Ok(Some(wire::decode_excerpt(&bytes, of.id, attempt.n, node.engine.secrets())?))
}
