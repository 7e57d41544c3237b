//! Calls that pass through without a record: what only reads, and what a route lets pass.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use onceward_core::attempt::Ending;
use onceward_core::backoff;
use onceward_core::exchange::{self, Headers, Request};
use onceward_core::id::OperationId;
use onceward_core::policy::is_safe;

use crate::engine::{Answer, Engine};
use crate::refusal::Refusal;
use crate::route::Route;
use crate::sabotage::Sabotage;
use crate::secret::random;
use crate::slots::Slot;
use crate::store::Lane;
use crate::upstream::{AnswerBody, Dispatch, Failure, Sent, Upstream};

/// A body that holds its send slot until it was read.
struct Held {
    body: Box<dyn AnswerBody>,
    _slot: Slot,
}

impl AnswerBody for Held {
    fn chunk(
        &mut self,
    ) -> Pin<Box<dyn Future<Output = Result<Option<Bytes>, Failure>> + Send + '_>> {
        self.body.chunk()
    }

    fn trailers(&mut self) -> Headers {
        self.body.trailers()
    }
}

/// Passes `request` on and its answer back, as it comes.
pub(crate) async fn pass(
    engine: &Engine,
    upstream: &dyn Upstream,
    lane: &Lane,
    route: &Route,
    request: Arc<Request>,
) -> Result<Answer, Refusal> {
    let limit = || Refusal::Limit {
        what: format!("{} calls to this upstream are under way", route.slots_max),
        retry_after: std::time::Duration::from_secs(1),
    };
    let slot = engine.slots.try_take(lane, route.slots_max).ok_or_else(limit)?;
    let policy = route.policy_for(&request.method, &request.target);
    let chance = OperationId::from_u128(u128::from_le_bytes(random()));
    let mut attempt = 1;
    loop {
        let mut headers = route.set_headers.clone();
        headers.0.push(("onceward-attempt".to_owned(), attempt.to_string().into()));
        let dispatch = Dispatch {
            target: Arc::clone(&route.target),
            request: Arc::clone(&request),
            headers,
            doom: None,
        };
        let sent = upstream.send(dispatch).await;
        let may_repeat = match &sent {
            Sent::Failed(failure) if failure.permanent => false,
            Sent::Failed(_) if Sabotage::PassResent.is_on() => true,
            Sent::Failed(failure) => failure.ending == Ending::Unsent || is_safe(&request.method),
            Sent::Answered(answer) => {
                is_safe(&request.method) && matches!(answer.status, 502..=504)
            }
        };
        if may_repeat && attempt < policy.held.attempts_max {
            let asked = match &sent {
                Sent::Answered(answer) => backoff::retry_after(&answer.headers, engine.clock.now()),
                Sent::Failed(_) => None,
            };
            let delay = backoff::delay(&policy.held, chance, attempt, asked);
            // A caller waits for an answer, not for an hour.
            if delay <= policy.held.cap {
                engine.clock.sleep_until(engine.clock.now().plus(delay)).await;
                attempt += 1;
                continue;
            }
        }
        return match sent {
            Sent::Answered(answer) => Ok(Answer::Passed {
                status: answer.status,
                headers: exchange::returned(answer.headers),
                body: Box::new(Held { body: answer.body, _slot: slot }),
            }),
            Sent::Failed(failure) => Err(Refusal::PassFailed {
                error: failure.error,
                unsent: failure.ending == Ending::Unsent,
            }),
        };
    }
}
