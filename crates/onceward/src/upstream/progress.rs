//! How far an attempt has got, and how long each of its phases took.

use onceward_core::attempt::{Phase, Reached, Timings};
use tokio::time::Instant;

/// An attempt on its way, one phase after the other. The clock is read where one ends, and for what is
/// told: so that what an attempt broke off in has its time too.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    /// How far it got.
    pub(super) reached: Reached,
    /// The phase that it is in.
    phase: Phase,
    /// Since when.
    since: Instant,
    /// How long those before took.
    timings: Timings,
}

impl Progress {
    /// Begun at `at`: on a connection that is there, unless it is said otherwise.
    pub(super) fn begin(at: Instant) -> Self {
        let (reached, timings) = (Reached::Nothing, Timings::default());
        Self { reached, phase: Phase::Send, since: at, timings }
    }

    /// The phase that it is in is over, and `next` begins.
    pub(super) fn enter(&mut self, next: Phase) {
        self.enter_at(next, Instant::now());
    }

    /// The same, at an instant that was noted.
    pub(super) fn enter_at(&mut self, next: Phase, at: Instant) {
        self.timings.add(self.phase, at.saturating_duration_since(self.since));
        (self.phase, self.since) = (next, at);
    }

    /// It is in `phase` instead, since the same instant: nothing is over.
    pub(super) fn turn_to(&mut self, phase: Phase) {
        self.phase = phase;
    }

    /// Whether its connection had carried requests before.
    pub(super) fn on(&mut self, reused: bool) {
        self.timings.reused = reused;
    }

    /// How long each phase took up to now.
    pub(super) fn timings(&self) -> Timings {
        let mut timings = self.timings;
        timings.add(self.phase, self.since.elapsed());
        timings
    }
}
