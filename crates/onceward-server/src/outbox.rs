//! Outboxes: each is read by a task of its own, which remembers its rows as operations; they follow
//! the configuration, and end before the engine does.

mod call;
mod fate;
mod parked;
mod relay;
mod seen;

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::relay::Relay;
use self::seen::Seen;
use crate::config::Outbox;
use crate::gateway::Gateway;

pub(crate) use self::parked::{Parked, parked, retry};
pub(crate) use self::seen::{Shown, Stands};

/// All of this process's.
#[derive(Debug)]
pub(crate) struct Outboxes {
    gateway: Arc<Gateway>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether they may be read: not before the ledger sends.
    is_on: bool,
    wanted: BTreeMap<String, Arc<Outbox>>,
    running: BTreeMap<String, Running>,
}

/// One that is read.
#[derive(Debug)]
struct Running {
    outbox: Arc<Outbox>,
    seen: Arc<Seen>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Outboxes {
    pub(crate) fn new(gateway: Gateway) -> Self {
        Self { gateway: Arc::new(gateway), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on these are read, once any are.
    pub(crate) fn follow(&self, wanted: &BTreeMap<String, Arc<Outbox>>) {
        let mut state = self.state();
        state.wanted.clone_from(wanted);
        self.bring_about(&mut state);
    }

    /// Lets them be read.
    pub(crate) fn start(&self) {
        let mut state = self.state();
        state.is_on = true;
        self.bring_about(&mut state);
    }

    fn bring_about(&self, state: &mut State) {
        if !state.is_on {
            return;
        }
        let mut before = mem::take(&mut state.running);
        for (name, outbox) in &state.wanted {
            let running = match before.remove(name) {
                Some(same) if same.outbox == *outbox => {
                    // A route that was not there may be there now.
                    same.seen.routes_changed();
                    same
                }
                other => self.run(outbox, other.map(Running::end)),
            };
            state.running.insert(name.clone(), running);
        }
        // What is not wanted any more ends by itself.
        for gone in before.into_values() {
            drop(gone.end());
        }
    }

    /// Reads `outbox`, once the task `before` it has ended.
    fn run(&self, outbox: &Arc<Outbox>, before: Option<JoinHandle<()>>) -> Running {
        let (stop, stopped) = watch::channel(false);
        let seen = Arc::new(Seen::new());
        let relay =
            Relay::new(Arc::clone(&self.gateway), Arc::clone(outbox), Arc::clone(&seen), stopped);
        let task = tokio::spawn(async move {
            if let Some(before) = before {
                // However it ended, it has.
                let _ = before.await;
            }
            relay.run().await;
        });
        Running { outbox: Arc::clone(outbox), seen, stop, task }
    }

    /// Ends them: a batch in hand is finished.
    pub(crate) async fn stop(&self) {
        let running = {
            let mut state = self.state();
            state.is_on = false;
            mem::take(&mut state.running)
        };
        let ending: Vec<_> = running.into_values().map(Running::end).collect();
        for task in ending {
            // However it ended, it has.
            let _ = task.await;
        }
    }

    /// Each that is read, and how it is doing.
    pub(crate) fn shown(&self) -> Vec<(Arc<Outbox>, Shown)> {
        let state = self.state();
        let shown = |running: &Running| (Arc::clone(&running.outbox), running.seen.shown());
        state.running.values().map(shown).collect()
    }

    /// Brings the metrics up to now.
    pub(crate) fn gauge(&self) {
        let shown = self.shown();
        let named = shown.iter().map(|(outbox, shown)| (outbox.name.as_str(), shown));
        crate::telemetry::outbox::gauges(named);
    }

    /// Has the parked rows of one looked at anew.
    pub(crate) fn look_again(&self, name: &str) {
        if let Some(running) = self.state().running.get(name) {
            running.seen.look_again();
        }
    }
}

impl Running {
    fn end(self) -> JoinHandle<()> {
        // Where nobody listens it has ended.
        let _ = self.stop.send(true);
        self.task
    }
}
