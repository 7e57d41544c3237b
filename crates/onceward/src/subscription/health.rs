//! How receivers do: one that says 410 is paused, and one that fails for days. A pause holds what comes, and
//! loses nothing.
//!
//! What is heard on the way of an attempt is only noted there; whoever looks after it writes. A process that
//! dies between the two forgets what the next attempt says again.
//!
//! Since when one fails is a row of its own, which is there for as long as it does: so that no turn of a
//! receiver's makes every node read the subscriptions again. It names the receiver that it speaks of, and
//! says nothing of another that took its place.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use onceward_core::event::{Heard, Turn, turn};
use onceward_core::key::ScopeKind;
use onceward_core::operation::Operation;
use onceward_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Destination, Subscription, route_name};
use crate::engine::{Engine, RACES_MAX};
use crate::people::Person;
use crate::refusal::Refusal;
use crate::setting;
use crate::store::{Query, Standing, StoreError};

/// What the setting is called that says since when a receiver fails: the name of its subscription follows.
const FAILING: &str = "failing/";

/// Before a receiver is paused for its failures, so many of its deliveries that are done are looked at.
const DONE_LOOKED_AT: usize = 100;

/// Who pauses a receiver without being asked.
const WHO: &str = "onceward";

/// A receiver that fails, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failing {
    /// In microseconds.
    since: i64,
    /// Which it is.
    to: String,
}

impl Failing {
    /// Since when the receiver at `to` fails; nothing where another one did.
    fn since(&self, to: &Destination) -> Option<Timestamp> {
        (self.to == place(to)).then(|| Timestamp::from_micros(self.since))
    }
}

/// A receiver in one text: no URL has a space.
fn place(to: &Destination) -> String {
    match to {
        Destination::Url(url) => url.to_string(),
        Destination::Route { name, target } => format!("{name} {target}"),
    }
}

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
        let Some(found) = self.subscriptions.of_route(&operation.route) else { return };
        let turned =
            turn(self.fails_since(&found.subscription), heard, self.event_rules().pause_after, now);
        // Another node may have written of a failure before this delivery that is not read here yet.
        let is_known =
            !(heard == Heard::Took && operation.attempts_made() > 1 && self.store.is_shared());
        let mut all = self.hearsay();
        // What is known says nothing while something else is being written.
        if turned == Turn::Same && is_known && !all.is_about(&operation.route) {
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
        let Some(found) = self.subscriptions.of_route(route) else { return Ok(()) };
        let Subscription { name, wish, .. } = &found.subscription;
        let pause_after = self.event_rules().pause_after;
        // Another node may have heard something else: the row decides, not what this one knows.
        let turned = self.rewrite_failing(name, |kept| {
            let turned = turn(kept.and_then(|kept| kept.since(&wish.to)), heard, pause_after, at);
            let wanted = match turned {
                Turn::Fails(since) => {
                    Some(Failing { since: since.as_micros(), to: place(&wish.to) })
                }
                Turn::Mends => None,
                Turn::Same | Turn::PauseGone | Turn::PauseFailing => kept.cloned(),
            };
            (wanted, turned)
        });
        match turned.await? {
            Turn::Same | Turn::Fails(_) | Turn::Mends => Ok(()),
            Turn::PauseGone => {
                self.pause_receiver(route, "its receiver answered 410 Gone: it wants nothing more")
                    .await
            }
            Turn::PauseFailing => {
                if self.has_taken(&found.subscription).await? {
                    // Whoever heard of that died before it was written: it fails since now.
                    let failing = Failing { since: at.as_micros(), to: place(&wish.to) };
                    return self.rewrite_failing(name, |_| (Some(failing.clone()), ())).await;
                }
                let why =
                    format!("nothing was delivered for {} hours", pause_after.as_secs() / 3600);
                self.pause_receiver(route, &why).await?;
                // Whoever resumes it gives it as long again.
                self.forgive(name).await
            }
        }
    }

    /// Whether a receiver that is thought to fail took something since, as far as its newest deliveries say.
    async fn has_taken(&self, subscription: &Subscription) -> Result<bool, StoreError> {
        let Some(since) = self.fails_since(subscription) else { return Ok(false) };
        let query = Query {
            standing: vec![Standing::Done],
            tenant: Some(subscription.tenant.clone()),
            route: Some(subscription.route_name()),
            limit: DONE_LOOKED_AT,
            ..Query::default()
        };
        let is_taken = |it: &Operation| {
            Heard::of(it.last_status()) == Heard::Took && it.ended_at.is_some_and(|at| at > since)
        };
        Ok(self.store.list(query).await?.operations.iter().any(is_taken))
    }

    /// Its receiver has as long again as any.
    pub(crate) async fn forgive(&self, name: &str) -> Result<(), StoreError> {
        self.rewrite_failing(name, |_| (None, ())).await
    }

    /// A subscription, with how its receiver does.
    pub(super) fn as_it_does(&self, subscription: Subscription) -> Subscription {
        Subscription { failing_since: self.fails_since(&subscription), ..subscription }
    }

    /// Since when its receiver fails, as far as is known here.
    fn fails_since(&self, subscription: &Subscription) -> Option<Timestamp> {
        self.subscriptions.failing.load().get(&subscription.name)?.since(&subscription.wish.to)
    }

    /// Reads from the ledger since when receivers fail: at the start, and what others heard since.
    pub(crate) async fn read_failing(&self) -> Result<(), StoreError> {
        let _alone = self.subscriptions.writing_failing.lock().await;
        let mut failing = BTreeMap::new();
        for (setting, value) in self.store.settings(FAILING.to_owned()).await? {
            let name = setting.strip_prefix(FAILING).unwrap_or_default().to_owned();
            if self.has_ended(&route_name(&name)).await? {
                // What was heard of it came behind its end, and nobody else removes it.
                self.store.swap(setting, Some(value), None).await?;
                continue;
            }
            failing.insert(name, setting::decode(&setting, &value)?);
        }
        self.subscriptions.failing.store(Arc::new(failing));
        Ok(())
    }

    /// Writes how a receiver does, as `decide` makes it of what is kept; again where another node came
    /// between. What it makes no other is not written. Tells what else it says.
    async fn rewrite_failing<T>(
        &self,
        name: &str,
        decide: impl Fn(Option<&Failing>) -> (Option<Failing>, T) + Send,
    ) -> Result<T, StoreError> {
        let setting = format!("{FAILING}{name}");
        let _alone = self.subscriptions.writing_failing.lock().await;
        for _ in 0..RACES_MAX {
            let kept = self.store.setting(setting.clone()).await?;
            let failing = kept.as_ref().map(|kept| setting::decode::<Failing>(&setting, kept));
            let failing = failing.transpose()?;
            let (wanted, said) = decide(failing.as_ref());
            let row = wanted.as_ref().map(setting::encode).transpose()?;
            let is_written =
                wanted == failing || self.store.swap(setting.clone(), kept, row).await?;
            if is_written {
                self.know_failing(name, wanted.as_ref());
                return Ok(said);
            }
        }
        Err(StoreError::Away("others write of this receiver without an end".to_owned()))
    }

    fn know_failing(&self, name: &str, known: Option<&Failing>) {
        self.subscriptions.failing.rcu(|failing| {
            let mut failing = (**failing).clone();
            match known {
                Some(known) => drop(failing.insert(name.to_owned(), known.clone())),
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
