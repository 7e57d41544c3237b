//! What changed just now, for whoever follows: pages and the command line. It is a hint and no record. What
//! is so stands in the ledger, and whoever hears of a change reads it there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use onceward::core::id::OperationId;
use onceward::core::operation::Operation;
use onceward::observe::{Fact, Observer};
use tokio::sync::broadcast;

use crate::problem::Problem;

/// Changes that wait for a follower: whoever takes them up no faster is cut off.
const WAITING_MAX: usize = 1024;

/// Followers in all, and of one tenant: one page is one.
const FOLLOWERS_MAX: usize = 256;
const OF_TENANT_MAX: usize = 64;

/// Something became of an operation.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) id: OperationId,
    pub(crate) tenant: Arc<str>,
    pub(crate) route: Arc<str>,
    pub(crate) state: &'static str,
    /// Whether it has only now come.
    pub(crate) is_new: bool,
}

/// Tells the facts on, and those who follow what changed.
pub(crate) struct Changes {
    to: Arc<dyn Observer>,
    /// Nothing once this process ends: then nobody hears any more.
    told: ArcSwapOption<broadcast::Sender<Change>>,
    count: AtomicUsize,
    followers: Mutex<HashMap<String, usize>>,
}

/// Whoever follows, for as long as they do.
pub(crate) struct Follower {
    pub(crate) heard: broadcast::Receiver<Change>,
    of: Arc<Changes>,
    tenant: String,
}

impl Changes {
    /// Before `to`, which hears every fact too.
    pub(crate) fn before(to: Arc<dyn Observer>) -> Arc<Self> {
        let told = ArcSwapOption::from_pointee(broadcast::channel(WAITING_MAX).0);
        Arc::new(Self { to, told, count: AtomicUsize::new(0), followers: Mutex::default() })
    }

    /// Follows from now on, for somebody of `tenant`.
    pub(crate) fn follow(self: &Arc<Self>, tenant: &str) -> Result<Follower, Problem> {
        let told = self.told.load_full();
        let told = told.ok_or_else(|| Problem::new("draining", "The gateway is stopping."))?;
        let mut followers = self.followers();
        let of_tenant = followers.get(tenant).copied().unwrap_or_default();
        if of_tenant >= OF_TENANT_MAX || followers.values().sum::<usize>() >= FOLLOWERS_MAX {
            let why = "As many follow as may: close a page that does.";
            return Err(Problem::new("limit", why));
        }
        followers.insert(tenant.to_owned(), of_tenant + 1);
        drop(followers);
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok(Follower { heard: told.subscribe(), of: Arc::clone(self), tenant: tenant.to_owned() })
    }

    /// Lets all go who follow: the process ends.
    pub(crate) fn end(&self) {
        self.told.store(None);
    }

    fn followers(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, operation: &Operation, is_new: bool) {
        let Some(told) = &*self.told.load() else { return };
        // That nobody hears it is no matter.
        let _ = told.send(Change {
            id: operation.id,
            tenant: operation.scope.tenant.as_str().into(),
            route: operation.route.as_str().into(),
            state: operation.state.name(),
            is_new,
        });
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.of.count.fetch_sub(1, Ordering::Relaxed);
        let mut followers = self.of.followers();
        let left = followers.get(&self.tenant).map_or(0, |left| left - 1);
        if left == 0 {
            followers.remove(&self.tenant);
        } else {
            followers.insert(self.tenant.clone(), left);
        }
    }
}

impl Observer for Changes {
    fn observe(&self, fact: Fact<'_>) {
        self.to.observe(fact);
        // Calls pay for nobody's page.
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        match fact {
            Fact::Remembered(operation) => self.tell(operation, true),
            Fact::Attempted(operation, _)
            | Fact::Rested(operation)
            | Fact::Duplicate(operation, _)
            | Fact::Claimed(operation, _)
            | Fact::Saga(operation, _)
            | Fact::Acted(operation)
            | Fact::Looked(operation, ..) => self.tell(operation, false),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onceward::observe::Unobserved;

    #[test]
    fn only_so_many_follow_and_a_place_is_free_again() {
        let changes = Changes::before(Arc::new(Unobserved));
        let mut all: Vec<_> = (0..OF_TENANT_MAX).map(|_| changes.follow("acme").ok()).collect();
        assert!(all.iter().all(Option::is_some));
        assert!(changes.follow("acme").is_err(), "one tenant leaves room for others");
        assert!(changes.follow("bolt").is_ok());
        all.pop();
        assert!(changes.follow("acme").is_ok());
        all.clear();
        assert!(changes.followers().is_empty() && changes.count.load(Ordering::Relaxed) == 0);
        changes.end();
        assert!(changes.follow("acme").is_err());
    }
}
