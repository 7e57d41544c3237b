//! How receivers do: one that says 410 is paused, and one that fails for days. A pause holds what comes, and
//! loses nothing.
//!
//! What is heard on the way of an attempt is only noted there; whoever looks after it writes. A process that
//! dies between the two forgets what the next attempt says again.

use std::sync::{Arc, PoisonError};

use onceward_core::event::{Heard, Turn, turn};
use onceward_core::key::ScopeKind;
use onceward_core::operation::Operation;
use onceward_core::time::Timestamp;

use super::name_of_route;
use crate::engine::Engine;
use crate::people::Person;
use crate::refusal::Refusal;
use crate::store::StoreError;

/// Who pauses a receiver without being asked.
const WHO: &str = "onceward";

impl Engine {
    /// An attempt at a receiver ended.
    pub(crate) fn hear_receiver(&self, operation: &Operation) {
        if operation.scope.kind != ScopeKind::Delivery {
            return;
        }
        let ended = operation.attempts.last().and_then(|attempt| attempt.ended.as_ref());
        let heard = Heard::of(ended.and_then(|ended| ended.status));
        let now = self.clock.now();
        let known = self.subscriptions.of_route(&operation.route);
        let since = known.and_then(|known| known.subscription.failing_since);
        if turn(since, heard, self.event_rules().pause_after, now) == Turn::Same {
            return;
        }
        let mut all = self.subscriptions.heard.lock().unwrap_or_else(PoisonError::into_inner);
        // One of each receiver at most: what is heard last counts.
        all.insert(operation.route.clone(), (heard, now));
        drop(all);
        self.subscriptions.wake.notify_one();
    }

    async fn look_after_receivers(self: &Arc<Self>) -> Result<(), StoreError> {
        let heard = {
            let mut all = self.subscriptions.heard.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *all)
        };
        for (route, (heard, at)) in heard {
            self.look_after_one(&route, heard, at).await?;
        }
        Ok(())
    }

    async fn look_after_one(
        self: &Arc<Self>,
        route: &str,
        heard: Heard,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let (Some(known), Some(name)) = (self.subscriptions.of_route(route), name_of_route(route))
        else {
            return Ok(());
        };
        let since = known.subscription.failing_since;
        let pause_after = self.event_rules().pause_after;
        match turn(since, heard, pause_after, at) {
            Turn::Same => Ok(()),
            Turn::Fails(since) => self.set_failing(name, Some(since)).await,
            Turn::Mends => self.set_failing(name, None).await,
            Turn::PauseGone => {
                self.pause_receiver(route, "its receiver answered 410 Gone: it wants nothing more")
                    .await
            }
            Turn::PauseFailing => {
                let why =
                    format!("nothing was delivered for {} hours", pause_after.as_secs() / 3600);
                self.pause_receiver(route, &why).await?;
                // Whoever resumes it gives it as long again.
                self.set_failing(name, None).await
            }
        }
    }

    async fn pause_receiver(self: &Arc<Self>, route: &str, why: &str) -> Result<(), StoreError> {
        if self.paused().contains_key(route) {
            return Ok(());
        }
        let person = Person { who: WHO.to_owned(), reason: why.to_owned() };
        match self.pause(route, &person).await {
            Err(Refusal::Ledger(error)) => Err(error),
            // It is paused, or was ended meanwhile.
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// Writes what was heard of receivers, for ever.
pub(crate) async fn look_after(engine: Arc<Engine>) {
    while !engine.is_halted() {
        match engine.look_after_receivers().await {
            Ok(()) => {}
            // The next attempt says it again.
            Err(error) if engine.goes_on_after(&error) => {}
            Err(_) => return,
        }
        engine.subscriptions.wake.notified().await;
    }
}
