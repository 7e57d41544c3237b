//! How receivers do: one that says 410 is paused, and one that fails for days. A pause holds what comes, and
//! loses nothing.
//!
//! What is heard on the way of an attempt is only noted there; whoever looks after it writes. A process that
//! dies between the two forgets what the next attempt says again.
//!
//! Since when one fails is a row of its own, which is there for as long as it does: so that no turn of a
//! receiver's makes every node read the subscriptions again.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use onceward_core::event::{Heard, Turn, turn};
use onceward_core::key::ScopeKind;
use onceward_core::operation::Operation;
use onceward_core::time::Timestamp;

use super::{Subscription, name_of_route};
use crate::engine::{Engine, RACES_MAX};
use crate::people::Person;
use crate::refusal::Refusal;
use crate::setting;
use crate::store::StoreError;

/// What the setting is called that says since when a receiver fails: the name of its subscription follows.
const FAILING: &str = "failing/";

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
        let Some(name) = name_of_route(&operation.route) else { return };
        let since = self.subscriptions.failing.load().get(name).copied();
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
        if self.subscriptions.of_route(route).is_none() {
            return Ok(());
        }
        // Another node may have heard something else: the row decides, not what this one knows.
        let turned = self.rewrite_failing(name, |since| {
            let turned = turn(since, heard, pause_after, at);
            let since = match turned {
                Turn::Fails(since) => Some(since),
                Turn::Mends => None,
                Turn::Same | Turn::PauseGone | Turn::PauseFailing => since,
            };
            (since, turned)
        });
        match turned.await? {
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
                self.forgive(name).await
            }
        }
    }

    /// Its receiver has as long again as any.
    pub(crate) async fn forgive(&self, name: &str) -> Result<(), StoreError> {
        self.rewrite_failing(name, |_| (None, ())).await
    }

    /// A subscription, with how its receiver does.
    pub(super) fn as_it_does(&self, subscription: Subscription) -> Subscription {
        let failing_since = self.subscriptions.failing.load().get(&subscription.name).copied();
        Subscription { failing_since, ..subscription }
    }

    /// Reads from the ledger since when receivers fail: at the start, and what others heard since.
    pub(crate) async fn read_failing(&self) -> Result<(), StoreError> {
        let mut failing = BTreeMap::new();
        for (setting, value) in self.store.settings(FAILING.to_owned()).await? {
            let since: i64 = setting::decode(&setting, &value)?;
            let name = setting.strip_prefix(FAILING).unwrap_or_default().to_owned();
            failing.insert(name, Timestamp::from_micros(since));
        }
        self.subscriptions.failing.store(Arc::new(failing));
        Ok(())
    }

    /// Writes since when a receiver fails, as `decide` makes it of what is kept; again where another node
    /// came between. What it makes no other is not written. Tells what else it says.
    async fn rewrite_failing<T>(
        &self,
        name: &str,
        decide: impl Fn(Option<Timestamp>) -> (Option<Timestamp>, T) + Send,
    ) -> Result<T, StoreError> {
        let setting = format!("{FAILING}{name}");
        for _ in 0..RACES_MAX {
            let kept = self.store.setting(setting.clone()).await?;
            let since = kept.as_ref().map(|kept| setting::decode::<i64>(&setting, kept));
            let since = since.transpose()?.map(Timestamp::from_micros);
            let (wanted, said) = decide(since);
            let row = wanted.map(|since| setting::encode(&since.as_micros())).transpose()?;
            let is_written = wanted == since || self.store.swap(setting.clone(), kept, row).await?;
            if is_written {
                self.know_failing(name, wanted);
                return Ok(said);
            }
        }
        Err(StoreError::Away("others write of this receiver without an end".to_owned()))
    }

    fn know_failing(&self, name: &str, since: Option<Timestamp>) {
        self.subscriptions.failing.rcu(|failing| {
            let mut failing = (**failing).clone();
            match since {
                Some(since) => drop(failing.insert(name.to_owned(), since)),
                None => drop(failing.remove(name)),
            }
            failing
        });
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
