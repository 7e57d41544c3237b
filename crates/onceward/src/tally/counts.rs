//! What is counted of one route in one period.

use std::iter;
use std::time::Duration;

/// What calls came to. Counts add up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    /// Operations remembered: each a key that was made or came first.
    pub operations: u64,
    /// Calls whose key was known, by what they got: as in [`Repeat::ALL`](crate::observe::Repeat::ALL).
    pub duplicates: [u64; 6],
    /// Operations that came to rest done.
    pub done: u64,
    /// Those that died, and whose caller was told.
    pub told: u64,
    /// Those that died and nobody was told.
    pub dead_letters: u64,
    /// Those that came into doubt.
    pub in_doubt: u64,
    /// Of those that are done: after more than one attempt.
    pub recovered: u64,
    /// Attempts, by how they ended: answered, truncated, unsent, unanswered.
    pub attempts: [u64; 4],
    /// Attempts after which their operation was not done.
    pub failed: u64,
    /// Answers, by the class of their status: 1xx to 5xx.
    pub statuses: [u64; 5],
    /// How long held operations took, from arrival until they ended.
    pub took: Histogram,
    /// How long attempts took, from their start to the end of the answer.
    pub attempt_took: Histogram,
}

impl Counts {
    /// Duplicates that would have been a second effect without a ledger: those that got the first
    /// outcome (replayed, joined) or heard that it is under way or in doubt (refused). Another request
    /// with a used key (mismatch) would have been an effect of its own, what was revived was sent, and
    /// what is late may be, where its route wants it so: late ones are told apart.
    pub fn blocked(&self) -> u64 {
        let [replayed, joined, refused, _mismatch, _late, _revived] = self.duplicates;
        replayed + joined + refused
    }

    /// Calls whose key was known, whatever they got.
    pub fn repeated(&self) -> u64 {
        self.duplicates.iter().sum()
    }

    /// Adds what was counted elsewhere or at another time.
    pub fn add(&mut self, other: &Self) {
        self.add_numbers(&other.numbers());
    }

    /// The same, as it is kept: what an older release did not count is nothing, and what a later one
    /// counts besides is left.
    pub(super) fn add_numbers(&mut self, numbers: &[u64]) {
        for (mine, more) in self.each().zip(numbers) {
            *mine = mine.saturating_add(*more);
        }
    }

    /// All numbers in an order that never changes: later releases have more of them at the end.
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.clone().each().map(|number| *number).collect()
    }

    fn each(&mut self) -> impl Iterator<Item = &mut u64> {
        iter::once(&mut self.operations)
            .chain(&mut self.duplicates)
            .chain([
                &mut self.done,
                &mut self.told,
                &mut self.dead_letters,
                &mut self.in_doubt,
                &mut self.recovered,
            ])
            .chain(&mut self.attempts)
            .chain(iter::once(&mut self.failed))
            .chain(&mut self.statuses)
            .chain(&mut self.took.counts)
            .chain(&mut self.attempt_took.counts)
    }
}

/// Durations, counted by how long they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Histogram {
    counts: [u64; Self::BOUNDS.len() + 1],
}

impl Histogram {
    /// Up to and with how many milliseconds each count goes; the last count is of what took longer.
    /// They never change: what is kept is told by its place.
    pub const BOUNDS: [u64; 21] = [
        1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000,
        200_000, 500_000, 1_000_000, 2_000_000, 5_000_000,
    ];

    /// Counts one.
    pub fn add(&mut self, took: Duration) {
        let micros = took.as_micros();
        let place = Self::BOUNDS.partition_point(|bound| u128::from(*bound) * 1000 < micros);
        self.counts[place] += 1;
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How many each of [`Histogram::BOUNDS`] has, and how many took longer than the last.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// The time that the share `q` (0 to 1) of all took at most: an estimate between two bounds, in
    /// which what was counted is taken for evenly spread; of what took longer than the last, that
    /// bound. Nothing where nothing was counted.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let all = self.count();
        if all == 0 {
            return None;
        }
        let rank = q.clamp(0.0, 1.0) * all as f64;
        let (mut below, mut before) = (0.0, 0);
        for (count, bound) in self.counts.iter().zip(Self::BOUNDS) {
            let here = *count as f64;
            if *count > 0 && below + here >= rank {
                let share = ((rank - below) / here).clamp(0.0, 1.0);
                let millis = before as f64 + (bound - before) as f64 * share;
                return Some(Duration::from_secs_f64(millis / 1000.0));
            }
            below += here;
            before = bound;
        }
        Some(Duration::from_millis(before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_all_there_in_an_order_that_is_kept() {
        let mut counts =
            Counts { operations: 1, duplicates: [2, 3, 4, 5, 6, 7], ..Counts::default() };
        (counts.done, counts.told, counts.dead_letters) = (8, 9, 10);
        (counts.in_doubt, counts.recovered) = (11, 12);
        (counts.attempts, counts.failed) = ([13, 14, 15, 16], 17);
        counts.statuses = [18, 19, 20, 21, 22];
        let numbers = counts.numbers();
        assert_eq!(numbers[..22], (1..=22).collect::<Vec<u64>>());
        assert_eq!(numbers.len(), 22 + 2 * 22);
        let mut read = Counts::default();
        read.add_numbers(&numbers);
        assert_eq!(read, counts);
        // Another release has fewer, or more.
        read.add_numbers(&numbers[..7]);
        assert_eq!((read.duplicates[5], read.done), (14, 8));
        read.add_numbers(&[numbers, vec![99]].concat());
        assert_eq!(read.done, 16);
    }

    #[test]
    fn what_was_blocked_would_have_been_a_second_effect() {
        let counts =
            Counts { duplicates: [1, 10, 100, 1000, 10_000, 100_000], ..Counts::default() };
        assert_eq!(counts.blocked(), 111);
        assert_eq!(counts.repeated(), 111_111);
    }

    #[test]
    fn a_quantile_lies_between_the_bounds_of_what_was_counted() {
        let mut took = Histogram::default();
        assert_eq!(took.quantile(0.5), None);
        for _ in 0..100 {
            took.add(Duration::from_millis(15));
        }
        assert_eq!(took.quantile(0.5), Some(Duration::from_millis(15)));
        assert_eq!(took.quantile(1.0), Some(Duration::from_millis(20)));
        took.add(Duration::from_hours(30));
        assert_eq!(took.quantile(1.0), Some(Duration::from_secs(5000)), "no more is known");
        assert!(took.quantile(0.99).unwrap() <= Duration::from_millis(20));
        let mut quick = Histogram::default();
        quick.add(Duration::ZERO);
        quick.add(Duration::from_millis(1));
        assert_eq!(quick.counts()[0], 2);
        assert_eq!(quick.quantile(0.5), Some(Duration::from_micros(500)));
    }
}
