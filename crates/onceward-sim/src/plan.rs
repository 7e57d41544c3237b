//! What a seed says about its world: how large it is, how its routes behave, what goes wrong.

use std::time::Duration;

use onceward_proof::chance::Chance;

/// The world of one seed.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The seed.
    pub(crate) seed: u64,
    /// Nodes on the one ledger.
    pub(crate) nodes: usize,
    /// Callers, each of whom wants several things.
    pub(crate) callers: usize,
    /// What each caller wants, one after the other.
    pub(crate) wants: usize,
    /// Workers, each of whom claims several things.
    pub(crate) workers: usize,
    /// Planners, each of whom starts several sagas.
    pub(crate) planners: usize,
    /// Which faults there are.
    pub(crate) faults: Faults,
}

/// How likely each fault is, in thousandths of the occasions for it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    /// The node dies at a store call, before the write.
    pub(crate) die_before: u64,
    /// The node dies at a store call, after the write and before it hears of it.
    pub(crate) die_after: u64,
    /// The store is full for a while.
    pub(crate) full: u64,
    /// The store's answer is lost, and nobody knows whether it wrote.
    pub(crate) unknown: u64,
    /// The node stands still, mostly for longer than its lease.
    pub(crate) pause: u64,
    /// The node's clock jumps by up to a minute.
    pub(crate) jump: u64,
    /// A wake-up of the ledger never comes.
    pub(crate) deaf: bool,
    /// The upstream cannot be reached.
    pub(crate) unsent: u64,
    /// The request is lost on its way.
    pub(crate) lost: u64,
    /// The effect happens, and its answer is lost.
    pub(crate) answer_lost: u64,
    /// The effect happens after the attempt was given up.
    pub(crate) late: u64,
    /// The effect happens, and its answer breaks off.
    pub(crate) cut: u64,
    /// The request arrives twice.
    pub(crate) doubled: u64,
    /// An answer that says nothing about the effect: 500, 502, 503, with or without it.
    pub(crate) ambiguous: u64,
    /// An answer that says that nothing was done: 429, with a time to come back.
    pub(crate) busy: u64,
    /// A final refusal.
    pub(crate) refusal: u64,
    /// An answer that takes long.
    pub(crate) slow: u64,
    /// The caller hangs up.
    pub(crate) hang_up: u64,
    /// A worker dies with a claim in hand.
    pub(crate) worker: u64,
}

impl Faults {
    /// Whether nothing happens to a node or its ledger, so that every count has to agree.
    pub(crate) fn spares_nodes(&self) -> bool {
        [self.die_before, self.die_after, self.full, self.unknown, self.pause] == [0; 5]
    }
}

impl Plan {
    /// The plan that `seed` gives.
    pub(crate) fn of(seed: u64) -> Self {
        let mut chance = Chance(seed ^ 0x0ce3_a4d0);
        let mut some = |often: u64, max: u64| {
            if chance.percent(often) { 1 + chance.below(max) } else { 0 }
        };
        let mut faults = Faults {
            die_before: some(40, 30),
            die_after: some(40, 30),
            full: some(20, 20),
            unknown: some(30, 10),
            pause: some(40, 500),
            jump: some(30, 40),
            deaf: false,
            unsent: some(60, 200),
            lost: some(50, 100),
            answer_lost: some(60, 200),
            late: some(40, 100),
            cut: some(40, 80),
            doubled: some(30, 60),
            ambiguous: some(60, 250),
            busy: some(50, 150),
            refusal: some(50, 100),
            slow: some(50, 150),
            hang_up: some(50, 150),
            worker: 0,
        };
        faults.deaf = chance.percent(30);
        // In every fourth world the nodes are left alone, and every count has to agree.
        if chance.percent(25) {
            faults =
                Faults { die_before: 0, die_after: 0, full: 0, unknown: 0, pause: 0, ..faults };
        }
        let nodes = 1 + chance.below(4) as usize;
        let callers = 2 + chance.below(6) as usize;
        let wants = 2 + chance.below(8) as usize;
        let workers = chance.below(5) as usize;
        faults.worker = if chance.percent(60) { 1 + chance.below(250) } else { 0 };
        // Drawn apart, so that whoever draws after it draws as before.
        let planners = Chance(seed ^ 0x5a6a_0d01).below(4) as usize;
        Self { seed, nodes, callers, wants, workers, planners, faults }
    }
}

/// A time between nothing and `max`, evenly.
pub(crate) fn up_to(chance: &mut Chance, max: Duration) -> Duration {
    Duration::from_micros(chance.below(1 + max.as_micros() as u64))
}
