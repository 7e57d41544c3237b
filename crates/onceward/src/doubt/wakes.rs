//! Hears of operations that come to rest in doubt, and wakes whoever looks for them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use onceward_core::operation::State;
use tokio::sync::Notify;

use crate::observe::{Fact, Observer};

/// Who looks on which route, and how to wake them: a hint, the ledger is the truth.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    looking: Mutex<BTreeMap<String, Arc<Notify>>>,
    routes_changed: Arc<Notify>,
    testimony_kept: Arc<Notify>,
    came: Arc<Notify>,
}

impl Doubts {
    /// Begins looking on a route; nothing where somebody does already.
    pub(crate) fn begin(&self, route: &str) -> Option<Arc<Notify>> {
        let mut looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(woken) = looking.get(route) {
            // What its route says may be new.
            woken.notify_one();
            return None;
        }
        let woken = Arc::new(Notify::new());
        looking.insert(route.to_owned(), Arc::clone(&woken));
        Some(woken)
    }

    pub(crate) fn end(&self, route: &str) {
        self.looking.lock().unwrap_or_else(PoisonError::into_inner).remove(route);
    }

    pub(crate) fn routes_changed(&self) -> Arc<Notify> {
        Arc::clone(&self.routes_changed)
    }

    /// Something was said of an operation that is not in doubt yet.
    pub(crate) fn testimony_kept(&self) -> Arc<Notify> {
        Arc::clone(&self.testimony_kept)
    }

    /// An operation came into doubt.
    pub(crate) fn came(&self) -> Arc<Notify> {
        Arc::clone(&self.came)
    }

    fn wake(&self, route: &str) {
        self.came.notify_one();
        let looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(woken) = looking.get(route) {
            woken.notify_one();
        }
    }
}

/// Tells the observer, and listens.
pub(crate) struct Listening {
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) doubts: Arc<Doubts>,
}

impl Observer for Listening {
    fn observe(&self, fact: Fact<'_>) {
        self.observer.observe(fact);
        if let Fact::Rested(operation) | Fact::Acted(operation) = fact
            && operation.state == State::InDoubt
        {
            self.doubts.wake(&operation.route);
        }
    }
}
