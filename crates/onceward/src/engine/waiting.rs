//! Whoever waits for an operation, and what they are told.

use std::future::Future;
use std::time::Duration;

use onceward_core::attempt::Ending;
use onceward_core::id::OperationId;
use onceward_core::operation::{Death, Operation, State};
use onceward_core::policy::Mode;
use onceward_core::time::Timestamp;

use super::run::{Fresh, Ran};
use super::{Answer, Answered, Engine, is_under_way};
use crate::call::Arrival;
use crate::detached::Detached;
use crate::refusal::Refusal;
use crate::store::{StoreError, Which};

/// How often a duplicate looks at what another node has in hand.
const LOOK_ELSEWHERE: Duration = Duration::from_millis(50);

impl Engine {
    /// What comes of `work`, where that is before `until`; where not, whoever waits stops.
    pub(super) async fn within<T>(
        &self,
        until: Timestamp,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.clock.sleep_until(until) => None,
        }
    }

    /// Answers the caller whose call made or revived an operation, as it asked.
    pub(super) async fn answer_fresh(
        &self,
        fresh: Fresh,
        arrival: &Arrival,
    ) -> Result<Answer, Refusal> {
        let answer_max = arrival.route.answer_max;
        let wait = arrival.options.wait.map(|wait| wait.min(answer_max));
        let now = self.clock.now();
        match (fresh, wait) {
            (Fresh::Started { run, receipt: Some(receipt), .. }, None) => {
                run.detach();
                Ok(Answer::Accepted(receipt))
            }
            (Fresh::Started { id, run, receipt }, wait) => {
                let wait = wait.filter(|_| receipt.is_some()).unwrap_or(answer_max);
                self.wait_for_run(id, run, now.plus(wait)).await
            }
            (Fresh::Waits(operation), wait) => match (operation.state, operation.mode, wait) {
                (State::Dead(Death::Superseded), ..) => {
                    Box::pin(self.answer_at_rest(operation, true)).await
                }
                (_, Mode::Accepted, None) => Ok(Answer::Accepted(operation)),
                (_, mode, wait) => {
                    let wait = wait.filter(|_| mode == Mode::Accepted).unwrap_or(answer_max);
                    Box::pin(self.wait_and_answer(operation, now.plus(wait), true)).await
                }
            },
        }
    }

    /// Waits for the run of an operation, and answers with what came of it.
    async fn wait_for_run(
        &self,
        id: OperationId,
        run: Detached<Result<Ran, Refusal>>,
        until: Timestamp,
    ) -> Result<Answer, Refusal> {
        if let Some(ran) = self.within(until, run).await {
            let Ran { operation, response, rest, .. } = ran?;
            return match response {
                _ if is_under_way(&operation) => {
                    Box::pin(self.wait_and_answer(operation, until, true)).await
                }
                // What was cut off never poses as an answer.
                Some(response) if !lost_its_answer(&operation) => {
                    let replayed = false;
                    let operation = *operation;
                    Ok(Answer::Upstream(Box::new(Answered { operation, response, rest, replayed })))
                }
                _ => Box::pin(self.answer_at_rest(operation, true)).await,
            };
        }
        let now = self.store.find(Which::Id(id)).await?.ok_or(StoreError::Stale)?;
        match now.mode {
            Mode::Held => Err(Refusal::StillWorking(Box::new(now))),
            Mode::Accepted => Ok(Answer::Accepted(Box::new(now))),
        }
    }

    /// Waits for an operation to come to rest, and answers with its outcome; `first` where the
    /// caller is the one whose call it is.
    pub(super) async fn wait_and_answer(
        &self,
        operation: Box<Operation>,
        until: Timestamp,
        first: bool,
    ) -> Result<Answer, Refusal> {
        let id = operation.id;
        let mut timer = self.clock.sleep_until(until);
        let mut over = false;
        loop {
            // It may have come to rest before we began to wait.
            let woken = self.waiters.join(id);
            let found = self.store.find(Which::Id(id)).await?.map(Box::new);
            let found = found.unwrap_or_else(|| operation.clone());
            if !is_under_way(&found) {
                return self.answer_at_rest(found, first).await;
            }
            let Some(woken) = woken.filter(|_| !over) else {
                // Whoever asks again without `respond-async` wants the outcome, not a receipt.
                return match found.mode {
                    Mode::Accepted if first => Ok(Answer::Accepted(found)),
                    Mode::Accepted | Mode::Held => Err(Refusal::InProgress(found)),
                };
            };
            // An attempt that is followed by another wakes too.
            let look = self.look_elsewhere(&found);
            tokio::select! {
                biased;
                _ = woken => {}
                () = &mut timer => over = true,
                () = look => {}
            }
        }
    }

    /// What other nodes do is not heard here: whoever waits for it looks again after a while. Never
    /// comes where nobody else could have it in hand.
    pub(crate) async fn look_elsewhere(&self, operation: &Operation) {
        let is_ours = operation.owner() == Some(self.session);
        if is_ours || !self.store.is_shared() {
            std::future::pending::<()>().await;
        }
        self.clock.sleep_until(self.clock.now().plus(LOOK_ELSEWHERE)).await;
    }

    /// How long a call waits for somebody else's outcome.
    pub(super) fn wait_of(arrival: &Arrival) -> Duration {
        let wait = arrival.options.wait.unwrap_or(arrival.policy.held.horizon);
        wait.min(arrival.route.answer_max)
    }
}

/// Whether the outcome's answer broke off, so that what came of it must not be returned.
fn lost_its_answer(operation: &Operation) -> bool {
    let last = operation.attempts.last().and_then(|attempt| attempt.ended.as_ref());
    last.is_some_and(|ended| ended.ending == Ending::Truncated)
}
