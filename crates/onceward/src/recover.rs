//! What a process that ended left behind: decided from what it wrote, before anything is sent.

use onceward_core::attempt::{Ended, Ending, Reached};
use onceward_core::operation::{Event, Operation, State};
use onceward_core::verdict;

use crate::engine::Engine;
use crate::observe::Fact;
use crate::store::{Query, Standing, StoreError, Write};

/// Operations judged at once.
const PAGE: usize = 500;

/// Judges every operation whose owner is gone; tells how many there were.
pub(crate) async fn recover(engine: &Engine) -> Result<usize, StoreError> {
    let mut judged = 0;
    let mut before = None;
    loop {
        let standing = vec![Standing::Delivering, Standing::Held];
        let page =
            engine.store.list(Query { standing, before, limit: PAGE, ..Query::default() }).await?;
        for operation in &page.operations {
            judge(engine, operation).await?;
            judged += 1;
        }
        match page.next {
            Some(next) => before = Some(next),
            None => return Ok(judged),
        }
    }
}

async fn judge(engine: &Engine, operation: &Operation) -> Result<(), StoreError> {
    let now = engine.clock.now();
    let route = engine.routes().get(&operation.scope.route);
    let default = std::sync::Arc::default();
    let policy = route
        .as_ref()
        .map_or(&default, |route| route.policy_for(&operation.method, &operation.target));
    let ended = (operation.state == State::Delivering).then(|| Ended {
        at: now,
        ending: Ending::Unanswered,
        reached: Reached::Nothing,
        status: None,
        error: Some("the process ended while the attempt was under way".to_owned()),
        may_have_executed: true,
        answer: None,
    });
    let Some(verdict) = verdict::decide_orphan(operation, policy, ended.as_ref(), now) else {
        return Ok(());
    };
    let event = match ended {
        Some(ended) => Event::Ended(ended, verdict),
        None => Event::Ruled(verdict),
    };
    let after =
        operation.after(event, now).map_err(|illegal| StoreError::Damaged(illegal.to_string()))?;
    let judged =
        engine.store.commit(Write { operation: after, answer: None, visible: false }).await?;
    if !matches!(judged.state, State::Pending { .. }) {
        engine.observer.observe(Fact::Rested(&judged));
    }
    Ok(())
}
