//! One life of a node: it runs, stands still, or is dead. Every door asks before it does anything
//! and before it tells what it did, so that a dead node does nothing more and tells nobody.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// How a life goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pulse {
    /// It runs.
    Running,
    /// It stands still, and knows nothing of it.
    Paused,
    /// It is over.
    Dead,
}

/// One life of a node.
#[derive(Debug)]
pub(crate) struct Life {
    pulse: Mutex<Pulse>,
    // Not a watch channel: that wakes those who wait in an order that no seed decides.
    turned: Notify,
    /// Whether it was ever disturbed: then what it did may be unknowable.
    disturbed: AtomicBool,
    /// How far its clock is off, in microseconds.
    skew: AtomicI64,
}

impl Life {
    pub(crate) fn new(skew: i64) -> Self {
        Self {
            pulse: Mutex::new(Pulse::Running),
            turned: Notify::new(),
            disturbed: AtomicBool::new(false),
            skew: AtomicI64::new(skew),
        }
    }

    fn pulse(&self) -> MutexGuard<'_, Pulse> {
        self.pulse.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is(&self, pulse: Pulse) -> bool {
        *self.pulse() == pulse
    }

    fn turn(&self, pulse: Pulse) {
        // The dead stay dead.
        if !self.is(Pulse::Dead) {
            *self.pulse() = pulse;
            self.turned.notify_waiters();
        }
    }

    pub(crate) fn disturb(&self) {
        self.disturbed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn was_disturbed(&self) -> bool {
        self.disturbed.load(Ordering::Relaxed)
    }

    pub(crate) fn kill(&self) {
        self.disturb();
        self.turn(Pulse::Dead);
    }

    pub(crate) fn pause(&self) {
        self.disturb();
        self.turn(Pulse::Paused);
    }

    pub(crate) fn resume(&self) {
        self.turn(Pulse::Running);
    }

    async fn until(&self, pulse: Pulse) {
        loop {
            let turned = self.turned.notified();
            if self.is(pulse) {
                return;
            }
            turned.await;
        }
    }

    /// Passes while it runs, waits while it stands still, and never comes back from the dead.
    pub(crate) async fn pass(&self) {
        self.until(Pulse::Running).await;
    }

    /// Waits until it is over.
    pub(crate) async fn death(&self) {
        self.until(Pulse::Dead).await;
    }

    pub(crate) fn skew(&self) -> i64 {
        self.skew.load(Ordering::Relaxed)
    }

    pub(crate) fn jump(&self, micros: i64) {
        self.skew.fetch_add(micros, Ordering::Relaxed);
    }
}
