//! What the engine told its observer.

use std::sync::Mutex;

use onceward::observe::{ClaimTurn, Fact, Observer, Repeat};

use super::{Pulse, lock};

/// What the engine told.
pub(crate) struct Notes {
    told: Mutex<Told>,
    pulse: Pulse,
}

#[derive(Default)]
struct Told {
    repeats: Vec<Repeat>,
    attempted: Vec<&'static str>,
    rested: Vec<String>,
    looked: usize,
    claimed: Vec<ClaimTurn>,
    trouble: Vec<String>,
    suspected: usize,
}

impl Notes {
    pub(super) fn new(pulse: Pulse) -> Self {
        Self { told: Mutex::default(), pulse }
    }

    /// What there was of trouble, and where operations came to rest: for whoever waited in vain.
    pub(super) fn account(&self) -> String {
        let told = lock(&self.told);
        format!("trouble: {:?}, rested: {:?}", told.trouble, told.rested)
    }

    pub(crate) fn repeats(&self, repeat: Repeat) -> usize {
        lock(&self.told).repeats.iter().filter(|other| **other == repeat).count()
    }

    /// How many looks for what is in doubt were told of.
    pub(crate) fn looked(&self) -> usize {
        lock(&self.told).looked
    }

    /// How many suspected doubles were told of.
    pub(crate) fn suspected(&self) -> usize {
        lock(&self.told).suspected
    }

    /// How often this happened to claims.
    pub(crate) fn claimed(&self, turn: ClaimTurn) -> usize {
        lock(&self.told).claimed.iter().filter(|other| **other == turn).count()
    }

    /// How the attempts ended that were told of.
    pub(crate) fn attempted(&self) -> Vec<&'static str> {
        lock(&self.told).attempted.clone()
    }
}

impl Observer for Notes {
    fn observe(&self, fact: Fact<'_>) {
        match fact {
            Fact::Duplicate(_, repeat) => lock(&self.told).repeats.push(repeat),
            Fact::Rested(operation) => {
                lock(&self.told).rested.push(operation.state.name().to_owned());
            }
            Fact::Trouble(what) => lock(&self.told).trouble.push(what.to_owned()),
            Fact::Attempted(_, attempt) => {
                let ending = attempt.ended.as_ref().map_or("under way", |it| it.ending.name());
                lock(&self.told).attempted.push(ending);
            }
            Fact::Suspected(..) => lock(&self.told).suspected += 1,
            Fact::Looked(..) => lock(&self.told).looked += 1,
            Fact::Claimed(_, turn) => lock(&self.told).claimed.push(turn),
            Fact::Remembered(_)
            | Fact::Reconciled(..)
            | Fact::Saga(..)
            | Fact::Orphaned(_)
            | Fact::Injected(..)
            | Fact::Acted(_)
            | Fact::Swept(_)
            | Fact::TooOld { .. }
            | Fact::Breaker(..)
            | Fact::Paused(..)
            | Fact::Steered(..) => {}
        }
        self.pulse.beat();
    }
}
