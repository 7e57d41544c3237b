//! What is kept of an operation's exchanges, read back. Credentials stay sealed,
//! and what a route redacts is not in it: nobody reads that here.

use onceward::core::attempt::Attempt;
use onceward::core::exchange::{Request, Response};
use onceward::core::operation::Operation;
use onceward::sabotage::Sabotage;
use onceward::wire::{self, Credentials};

use crate::node::Node;
use crate::problem::Problem;

/// What was asked as people see it, where it has not been forgotten, and whether that is not all of it.
pub(crate) async fn request(
    node: &Node,
    of: &Operation,
) -> Result<Option<(Request, bool)>, Problem> {
    let request = node.engine.request_kept(of, Credentials::Left).await?;
    Ok(request.map(|request| node.engine.redaction_of(of).request(request)))
}

/// The answer of its outcome.
pub(crate) async fn answer(node: &Node, of: &Operation) -> Result<Option<Response>, Problem> {
    let kept = of.outcome.as_ref().and_then(|outcome| outcome.answer);
    let Some(kept) = kept else { return Ok(None) };
    let bytes = node.engine.store().body_of(of, kept).await?;
    Ok(Some(seen(node, of, wire::decode_response(&bytes, of.id, node.engine.secrets())?)))
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
    let (answer, cut) = wire::decode_excerpt(&bytes, of.id, attempt.n, node.engine.secrets())?;
    Ok(Some((seen(node, of, answer), cut)))
}

/// The outcome's answer, or else what the last attempt brought, with whether that is only a beginning;
/// nothing of the latter where it is the outcome's.
pub(crate) async fn brought(
    node: &Node,
    of: &Operation,
) -> Result<Option<(Response, Option<bool>)>, Problem> {
    if let Some(answer) = answer(node, of).await? {
        return Ok(Some((answer, None)));
    }
    let has_one = |attempt: &&Attempt| attempt.ended.as_ref().is_some_and(|it| it.answer.is_some());
    let Some(last) = of.attempts.iter().rev().find(has_one) else { return Ok(None) };
    Ok(excerpt(node, of, last).await?.map(|(answer, cut)| (answer, Some(cut))))
}

fn seen(node: &Node, of: &Operation, answer: Response) -> Response {
    if Sabotage::PageUnredacted.is_on() {
        return answer;
    }
    node.engine.redaction_of(of).response(answer).0
}
