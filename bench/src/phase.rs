//! What is measured of a subject, and the sums over all rounds.

use crate::load::Measured;
use crate::meter::{Cores, Usage};

/// One line of the report, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// A POST through the bare proxy: the measure of all others.
    Bare,
    /// A POST through nginx.
    Nginx,
    /// The caller waits for the upstream's answer.
    Held,
    /// `Prefer: respond-async`: until the 202, while delivery goes on behind it.
    Accepted,
    /// The same operations, until the last of them was at the sink.
    Delivered,
    /// `Prefer: respond-async` before an upstream that never answers: the 202 alone.
    Paused,
    /// Keys that are done already, answered from memory.
    Duplicates,
}

impl Phase {
    /// How it is called in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare proxy",
            Self::Nginx => "nginx",
            Self::Held => "held",
            Self::Accepted => "accepted until 202",
            Self::Delivered => "accepted until delivered",
            Self::Paused => "accepted, delivery paused",
            Self::Duplicates => "duplicates",
        }
    }

    /// How many effects `answered` requests have at the sink; `None` where it is not asked.
    pub(crate) fn effects_due(self, answered: u64) -> Option<u64> {
        match self {
            Self::Bare | Self::Nginx | Self::Held | Self::Delivered => Some(answered),
            Self::Duplicates => Some(0),
            // Some are still on their way, or none has one.
            Self::Accepted | Self::Paused => None,
        }
    }
}

/// One phase, once.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    pub(crate) measured: Measured,
    /// `None` where another phase of the same work has it.
    pub(crate) used: Option<Used>,
    /// Effects that the sink counted.
    pub(crate) effects: u64,
}

/// Who used how much.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Used {
    pub(crate) subject: Usage,
    pub(crate) sink: Usage,
    pub(crate) load: Usage,
    /// How much the ledger's folder grew.
    pub(crate) kept: u64,
    pub(crate) cores: Cores,
}

impl Used {
    /// The share of the cores that somebody else had: a figure for how quiet the machine was.
    pub(crate) fn others(&self) -> Option<f64> {
        let ours = self.subject.cpu + self.sink.cpu + self.load.cpu;
        let others = self.cores.busy.saturating_sub(ours);
        (!self.cores.all.is_zero()).then(|| others.as_secs_f64() / self.cores.all.as_secs_f64())
    }
}

/// A phase over all rounds.
#[derive(Debug, Default)]
pub(crate) struct Total {
    pub(crate) measured: Measured,
    pub(crate) used: Option<Used>,
    pub(crate) effects: u64,
    /// Throughput of each round, so that ratios are between neighbours.
    pub(crate) rounds: Vec<f64>,
}

impl Total {
    pub(crate) fn add(&mut self, turn: Turn) {
        self.rounds.push(turn.measured.throughput());
        self.measured.add(turn.measured);
        self.effects += turn.effects;
        if let Some(used) = turn.used {
            let sum = self.used.get_or_insert_default();
            sum.subject += used.subject;
            sum.sink += used.sink;
            sum.load += used.load;
            sum.kept += used.kept;
            sum.cores += used.cores;
        }
    }

    /// The median over the rounds of this phase's throughput by `other`'s in the same round.
    pub(crate) fn ratio(&self, other: &Self) -> Option<f64> {
        let mut ratios: Vec<f64> = self
            .rounds
            .iter()
            .zip(&other.rounds)
            .filter(|(_, other)| **other > 0.0)
            .map(|(own, other)| own / other)
            .collect();
        ratios.sort_unstable_by(f64::total_cmp);
        let middle = ratios.len() / 2;
        match ratios.len() {
            0 => None,
            n if n % 2 == 0 => Some(f64::midpoint(ratios[middle - 1], ratios[middle])),
            _ => Some(ratios[middle]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(rounds: &[f64]) -> Total {
        Total { rounds: rounds.to_vec(), ..Total::default() }
    }

    #[test]
    fn a_ratio_is_the_median_of_neighbours() {
        let bare = total(&[100.0, 200.0, 50.0]);
        assert_eq!(total(&[50.0, 200.0, 10.0]).ratio(&bare), Some(0.5));
        assert_eq!(total(&[50.0, 200.0]).ratio(&bare), Some(0.75));
        assert_eq!(total(&[]).ratio(&bare), None);
    }

    #[test]
    fn duplicates_have_no_effect_and_held_calls_one_each() {
        assert_eq!(Phase::Duplicates.effects_due(7), Some(0));
        assert_eq!(Phase::Held.effects_due(7), Some(7));
        assert_eq!(Phase::Accepted.effects_due(7), None);
    }
}
