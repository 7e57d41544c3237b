//! What each route sees of duplicates and attempts: counted in memory, added to the ledger each
//! minute, and read when somebody asks for advice. A count is no promise: some may be lost.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use onceward_core::advice::Seen;
use onceward_core::operation::{Death, Operation, State};
use onceward_core::policy::Mode;

use crate::clock::Clock;
use crate::engine::Engine;
use crate::observe::{Fact, Observer, Repeat};
use crate::refusal::Refusal;
use crate::setting;
use crate::store::StoreError;
use crate::tally::{self, Tallies};

/// What the setting of a route's counts is called.
const PREFIX: &str = "advice/";

/// How often what routes have seen is written.
const EVERY: Duration = Duration::from_mins(1);

/// How often the counts of operations' duplicates are.
const ASKED_EVERY: Duration = Duration::from_secs(1);

/// Counts on behalf of an engine, and passes every fact on.
pub(crate) struct Counting {
    inner: Arc<dyn Observer>,
    clock: Arc<dyn Clock>,
    seen: Mutex<HashMap<String, Seen>>,
    pub(crate) tallies: Tallies,
}

impl Counting {
    pub(crate) fn new(inner: Arc<dyn Observer>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { inner, clock, seen: Mutex::default(), tallies: Tallies::default() })
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<String, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts for a route; a claim has none, and origins of ad hoc upstreams are many, and nobody
    /// configures them.
    fn count(&self, route: &str, count: impl FnOnce(&mut Seen)) {
        if route.is_empty() || route.contains("://") {
            return;
        }
        let mut all = self.seen();
        match all.get_mut(route) {
            Some(seen) => count(seen),
            None => count(all.entry(route.to_owned()).or_default()),
        }
    }

    fn count_duplicate(&self, known: &Operation, repeat: Repeat) {
        // A refusal is none: another request with the key, or one that nobody can answer.
        if matches!(repeat, Repeat::Refused | Repeat::Mismatch) {
            return;
        }
        let now = self.clock.now();
        let age = known.ended_at.map_or(Duration::ZERO, |ended_at| now.since(ended_at));
        self.count(&known.route, |seen| {
            seen.duplicates.add(age);
            seen.late += u64::from(repeat == Repeat::Late);
        });
    }

    fn count_rested(&self, operation: &Operation) {
        let attempts = operation.attempts_in_run();
        let (Some(ended_at), true) = (operation.ended_at, attempts > 0) else { return };
        self.count(&operation.route, |seen| {
            let tries = match operation.mode {
                Mode::Held => &mut seen.held,
                Mode::Accepted => &mut seen.accepted,
            };
            match operation.state {
                State::Done => tries.add_done(attempts, ended_at.since(operation.run.since)),
                State::Dead(Death::Exhausted | Death::Unsent) => tries.add_dead(attempts),
                // It was refused, or people or nodes came between: retries had no part in it.
                _ => {}
            }
        });
    }
}

impl Observer for Counting {
    fn observe(&self, fact: Fact<'_>) {
        match fact {
            Fact::Duplicate(known, repeat) => self.count_duplicate(known, repeat),
            Fact::Rested(operation) => self.count_rested(operation),
            Fact::TooOld { route, .. } => self.count(route, |seen| seen.late += 1),
            _ => {}
        }
        self.tallies.count(fact, &*self.clock);
        self.inner.observe(fact);
    }
}

/// Writes the counts of duplicates, and now and then what routes have seen and the statistics, for
/// ever.
pub(crate) async fn write(engine: Arc<Engine>) {
    let mut next = engine.clock.now().plus(EVERY);
    let mut next_tallies = engine.clock.now().plus(tally::EVERY);
    loop {
        engine.clock.sleep_until(engine.clock.now().plus(ASKED_EVERY)).await;
        engine.counting.tallies.gather(&*engine.clock);
        let mut written = engine.flush_asked().await;
        if written.is_ok() && engine.clock.now() >= next_tallies {
            next_tallies = engine.clock.now().plus(tally::EVERY);
            written = engine.flush_tallies().await;
        }
        if written.is_ok() && engine.clock.now() >= next {
            next = engine.clock.now().plus(EVERY);
            written = engine.flush_seen().await;
        }
        // A count is no promise: what a full ledger does not take is lost.
        if written.is_err_and(|error| !engine.goes_on_after(&error)) {
            return;
        }
    }
}

impl Engine {
    /// Adds what was counted since to what the ledger has.
    pub async fn flush_seen(&self) -> Result<(), StoreError> {
        let counted = std::mem::take(&mut *self.counting.seen());
        for (route, seen) in counted.into_iter().filter(|(_, seen)| !seen.is_nothing()) {
            let mut all = self.kept_seen(&route).await?;
            all.add(&seen);
            let value = setting::encode(&all.to_counts())?;
            self.store.set(format!("{PREFIX}{route}"), Some(value)).await?;
        }
        Ok(())
    }

    /// What a route has seen, on all nodes, up to a minute ago, and on this one up to now.
    pub async fn seen(&self, route: &str) -> Result<Seen, Refusal> {
        self.find_route(route)?;
        let mut seen = self.kept_seen(route).await?;
        if let Some(since) = self.counting.seen().get(route) {
            seen.add(since);
        }
        Ok(seen)
    }

    async fn kept_seen(&self, route: &str) -> Result<Seen, StoreError> {
        let name = format!("{PREFIX}{route}");
        let kept = self.store.setting(name.clone()).await?;
        let counts = kept.and_then(|kept| setting::decode::<Vec<u64>>(&name, &kept).ok());
        // What cannot be read is another release's, and counted anew.
        Ok(counts.and_then(|counts| Seen::from_counts(&counts)).unwrap_or_default())
    }
}
