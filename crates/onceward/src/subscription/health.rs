//! How receivers do: one that says 410 is paused, and one that fails for days. A pause holds what comes, and
//! loses nothing.
//!
//! What is heard on the way of an attempt is only noted there; whoever looks after it writes. A process that
//! dies between the two forgets what the next attempt says again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

/// What was heard of receivers and is not written yet, by route: one word of each at most.
#[derive(Debug, Default)]
pub(super) struct Hearsay {
    waiting: BTreeMap<String, (Heard, Timestamp)>,
    /// The route of which something is being written.
    writing: Option<String>,
}

impl Hearsay {
    fn is_about(&self, route: &str) -> bool {
        self.waiting.contains_key(route) || self.writing.as_deref() == Some(route)
    }

    /// What is heard last counts; but a receiver that wants nothing any more has said so once.
    fn add(&mut self, route: &str, heard: Heard, now: Timestamp) {
        let is_gone = |(before, _): &(Heard, Timestamp)| *before == Heard::Gone;
        if !self.waiting.get(route).is_some_and(is_gone) {
            self.waiting.insert(route.to_owned(), (heard, now));
        }
    }

    fn take(&mut self) -> Option<(String, Heard, Timestamp)> {
        let (route, (heard, at)) = self.waiting.pop_first()?;
        self.writing = Some(route.clone());
        Some((route, heard, at))
    }
}

impl Engine {
    /// An attempt at a receiver ended.
    pub(crate) fn hear_receiver(&self, operation: &Operation) {
        if operation.scope.kind != ScopeKind::Delivery {
            return;
        }
        let ended = operation.attempts.last().and_then(|attempt| attempt.ended.as_ref());
        let heard = Heard::of(ended.and_then(|ended| ended.status));
        // When it ended, and not when somebody came to look at that.
        let now = ended.map_or_else(|| self.clock.now(), |ended| ended.at);
        let known = self.subscriptions.of_route(&operation.route);
        let since = known.and_then(|known| known.subscription.failing_since);
        let turned = turn(since, heard, self.event_rules().pause_after, now);
        let mut all = self.hearsay();
        // What is known says nothing while something else is being written.
        if turned == Turn::Same && !all.is_about(&operation.route) {
            return;
        }
        all.add(&operation.route, heard, now);
        drop(all);
        self.subscriptions.wake.notify_one();
    }

    async fn look_after_receivers(self: &Arc<Self>) -> Result<(), StoreError> {
        loop {
            let next = self.hearsay().take();
            let Some((route, heard, at)) = next else { return Ok(()) };
            let written = self.look_after_one(&route, heard, at).await;
            self.hearsay().writing = None;
            written?;
        }
    }

    fn hearsay(&self) -> MutexGuard<'_, Hearsay> {
        self.subscriptions.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look_after_one(
        self: &Arc<Self>,
        route: &str,
        heard: Heard,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let Some(name) = name_of_route(route) else { return Ok(()) };
        let pause_after = self.event_rules().pause_after;
        // Another node may have heard something else: the row decides, not what this one knows.
        let turned = Mutex::new(Turn::Same);
        let kept = self.rewrite(name, |subscription| {
            let next = turn(subscription.failing_since, heard, pause_after, at);
            *turned.lock().unwrap_or_else(PoisonError::into_inner) = next;
            match next {
                Turn::Fails(since) => subscription.failing_since = Some(since),
                Turn::Mends => subscription.failing_since = None,
                Turn::Same | Turn::PauseGone | Turn::PauseFailing => return false,
            }
            true
        });
        if kept.await?.is_none() {
            return Ok(());
        }
        match turned.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Turn::Same | Turn::Fails(_) | Turn::Mends => Ok(()),
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
            // Where it was refused, the subscription was ended meanwhile.
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
