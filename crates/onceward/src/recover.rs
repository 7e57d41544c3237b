//! What a session that lapsed had in hand: decided from what it wrote, before anything is sent.
//!
//! On one node that is what the process before this one left; among several, what a node that
//! ended or was paused has. A node that was only paused finds its writes refused.

use std::sync::Arc;

use onceward_core::attempt::{Ended, Ending, Reached, Timings};
use onceward_core::lease::BEAT;
use onceward_core::operation::{Event, Operation, State};

use crate::engine::Engine;
use crate::judgement;
use crate::observe::Fact;
use crate::sabotage::Sabotage;
use crate::store::{StoreError, Write};

/// Operations judged at once.
const PAGE: usize = 500;

/// Keeps this session's right alive and judges what others had in hand, for ever.
pub(crate) async fn beat(engine: Arc<Engine>) {
    loop {
        match look(&engine).await {
            Ok(()) => {}
            // What is full or away now is looked at again with the next beat.
            Err(error) if error.may_pass() => {}
            Err(error) => {
                engine.heed(error);
                return;
            }
        }
        engine.clock.sleep_until(engine.clock.now().plus(BEAT)).await;
    }
}

/// What others have done to what is shared.
async fn look(engine: &Arc<Engine>) -> Result<(), StoreError> {
    judge_orphans(engine).await?;
    share_rates(engine).await?;
    if engine.store.is_shared() {
        engine.know_subscriptions().await?;
        engine.read_failing().await?;
        engine.read_pauses().await?;
        engine.heed_probe_wishes().await?;
    }
    Ok(())
}

/// A rate is for all nodes: where there is one, it is asked how many they are.
async fn share_rates(engine: &Engine) -> Result<(), StoreError> {
    if engine.store.is_shared() && (engine.routes().have_rates() || engine.tenants.have_rates()) {
        let nodes = engine.store.nodes().await?;
        engine.gates.share_with(nodes);
        engine.tenants.share_with(nodes);
    }
    Ok(())
}

impl Engine {
    /// Takes up this session's right and judges what earlier processes left behind; tells how many
    /// operations that were. Called once, before anything is sent.
    pub async fn recover(&self) -> Result<usize, StoreError> {
        self.know_subscriptions().await?;
        if self.store.is_shared() {
            // Whoever died between a row and the revision has told nobody of it.
            self.subscriptions_changed().await?;
            self.read_probe_wishes().await?;
        }
        self.read_failing().await?;
        if !Sabotage::PauseForgotten.is_on() {
            self.read_pauses().await?;
        }
        let judged = judge_orphans(self).await?;
        share_rates(self).await?;
        Ok(judged)
    }
}

/// Judges every operation whose owner is gone; tells how many there were.
async fn judge_orphans(engine: &Engine) -> Result<usize, StoreError> {
    let mut judged = 0;
    loop {
        let orphans = engine.store.beat(engine.session, PAGE).await?;
        for operation in &orphans {
            match judge(engine, operation).await {
                // Another node was faster.
                Err(StoreError::Stale) => {}
                done => done?,
            }
        }
        judged += orphans.len();
        if orphans.len() < PAGE {
            return Ok(judged);
        }
    }
}

async fn judge(engine: &Engine, operation: &Operation) -> Result<(), StoreError> {
    let now = engine.clock.now();
    let (_, policy) = engine.route_of(operation);
    let ended = (operation.state == State::Delivering).then(|| Ended {
        at: now,
        ending: Ending::Unanswered,
        reached: Reached::Nothing,
        status: None,
        error: Some("the process ended while the attempt was under way".to_owned()),
        may_have_executed: true,
        answer: None,
        timings: Timings::default(),
    });
    let Some(verdict) = judgement::decide_orphan(operation, &policy, ended.as_ref(), now) else {
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
    engine.observer.observe(Fact::Orphaned(&judged));
    if let Some(attempt) = judged.attempts.last().filter(|_| operation.state == State::Delivering) {
        engine.observer.observe(Fact::Attempted(&judged, attempt));
    }
    if !matches!(judged.state, State::Pending { .. }) {
        engine.rested(&judged);
    }
    engine.waiters.wake(judged.id);
    engine.advance(&judged).await;
    Ok(())
}
