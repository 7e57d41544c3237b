//! Calls that pass through without a record: what only reads, and what a route lets pass.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use onceward_core::attempt::Ending;
use onceward_core::backoff;
use onceward_core::breaker::Sign;
use onceward_core::exchange::{self, Headers, Request};
use onceward_core::hint::Hint;
use onceward_core::id::OperationId;
use onceward_core::policy::is_safe;

use crate::engine::{Answer, Engine};
use crate::gates::{Entrant, Slot};
use crate::refusal::Refusal;
use crate::route::Route;
use crate::sabotage::Sabotage;
use crate::secret::random;
use crate::store::Lane;
use crate::upstream::{AnswerBody, Dispatch, Failure, Sent};

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
    engine: &Arc<Engine>,
    lane: &Lane,
    route: &Arc<Route>,
    request: Arc<Request>,
) -> Result<Answer, Refusal> {
    let is_harmless = is_safe(&request.method);
    let entrant = Entrant { lane: lane.clone(), is_harmless, is_backlog: false };
    let gate = engine.gate_of(route);
    let mut slot = gate.try_enter(&entrant, engine.clock.now()).map_err(|barred| {
        if barred.wants_probe {
            engine.probe(route);
        }
        engine.barred(barred, route)
    })?;
    slot.spend();
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
        let sent = engine.upstream.send(dispatch).await;
        let asked = match &sent {
            Sent::Answered(answer) => {
                Hint::of(&answer.headers, &policy.hints, engine.clock.now()).wait
            }
            Sent::Failed(_) => None,
        };
        learn(engine, route, &mut slot, &sent, asked);
        let may_repeat = match &sent {
            Sent::Failed(failure) if failure.permanent => false,
            Sent::Failed(_) if Sabotage::PassResent.is_on() => true,
            Sent::Failed(failure) => failure.ending == Ending::Unsent || is_safe(&request.method),
            Sent::Answered(answer) => {
                is_safe(&request.method) && matches!(answer.status, 502..=504)
            }
        };
        if may_repeat && attempt < policy.held.attempts_max && gate.withdraw(engine.clock.now()) {
            let delay = backoff::delay(&policy.held, chance, attempt, asked);
            // A caller waits for an answer, not for an hour.
            if delay <= policy.held.cap {
                engine.clock.sleep_until(engine.clock.now().plus(delay)).await;
                let now = engine.clock.now();
                if let Ok(turn) = gate.pay(&mut slot, is_harmless, now, now.plus(delay)) {
                    engine.clock.sleep_until(turn).await;
                    attempt += 1;
                    continue;
                }
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

/// What came back says something of the upstream, too.
fn learn(
    engine: &Engine,
    route: &Route,
    slot: &mut Slot,
    sent: &Sent,
    asked: Option<std::time::Duration>,
) {
    let (ending, status) = match sent {
        Sent::Answered(answer) => (Ending::Answered, Some(answer.status)),
        // What was refused here says nothing of it.
        Sent::Failed(failure) if failure.permanent => return,
        Sent::Failed(failure) => (failure.ending, None),
    };
    let asked = asked.filter(|_| matches!(status, Some(429 | 503)));
    engine.learn(route, slot, Sign::of(ending, status), asked);
}
