//! How much an upstream is sent: a rate with a burst, a ramp after it was held, and a budget for
//! retries. Values that know no clock: what may go when is asked with the time of now.

use std::time::Duration;

use crate::time::Timestamp;

/// So many in a time, evenly, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Between two, on the average.
    pub interval: Duration,
    /// How many may go at once after a pause: at least one.
    pub burst: u32,
}

/// What a [`Rate`] has let by: the generic cell rate algorithm (ITU-T I.371), one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Meter {
    /// When the next would come if all came evenly.
    expected: Timestamp,
}

impl Meter {
    /// When the next one may go.
    pub fn ready_at(&self, rate: Rate) -> Timestamp {
        self.expected.minus(rate.interval.saturating_mul(rate.burst.max(1) - 1))
    }

    /// One goes, now or when it is its turn; tells when that is. Whoever takes a turn keeps it:
    /// those who come later come after.
    pub fn take(&mut self, rate: Rate, now: Timestamp) -> Timestamp {
        let turn = self.ready_at(rate).max(now);
        self.expected = self.expected.max(now).plus(rate.interval);
        turn
    }

    /// A turn that was taken is not used.
    pub fn give_back(&mut self, rate: Rate) {
        self.expected = self.expected.minus(rate.interval);
    }

    /// Whether it is as good as new at `now`.
    pub fn is_rested(&self, now: Timestamp) -> bool {
        self.expected <= now
    }
}

/// After this many doublings a ramp holds nothing back any more.
const RAMP_DOUBLINGS: u32 = 10;

/// What waited while an upstream was held is let go slowly: 1, 2, 4 … in each second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ramp {
    since: Timestamp,
    next: Timestamp,
}

impl Ramp {
    /// A ramp that begins at `since`.
    pub fn from(since: Timestamp) -> Self {
        Self { since, next: since }
    }

    /// Whether it has come to its end.
    pub fn is_over(&self, now: Timestamp) -> bool {
        now.since(self.since) >= Duration::from_secs(u64::from(RAMP_DOUBLINGS))
    }

    /// When the next one may go.
    pub fn ready_at(&self) -> Timestamp {
        self.next
    }

    /// One goes now.
    pub fn take(&mut self, now: Timestamp) {
        self.next = self.next.max(now).plus(self.interval(now));
    }

    /// One that was to go now does not.
    pub fn give_back(&mut self, now: Timestamp) {
        self.next = self.next.minus(self.interval(now));
    }

    fn interval(&self, now: Timestamp) -> Duration {
        let doublings = now.since(self.since).as_secs().min(u64::from(RAMP_DOUBLINGS)) as i32;
        Duration::from_secs(1).div_f64(2f64.powi(doublings))
    }
}

/// How many retries callers' calls may cost their upstream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BudgetRule {
    /// Retries for each first attempt.
    pub share: f64,
    /// Retries a second beside them.
    pub per_second: f64,
}

impl Default for BudgetRule {
    fn default() -> Self {
        Self { share: 0.2, per_second: 10.0 }
    }
}

/// What may still be spent is saved for no longer than this.
const BUDGET_SPAN: f64 = 10.0;

/// What is left of a [`BudgetRule`]: retries may not multiply the load of an upstream that fails
/// (Google SRE book, "Addressing Cascading Failures").
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    left: f64,
    at: Timestamp,
}

impl Budget {
    /// A full one.
    pub fn full(rule: BudgetRule, now: Timestamp) -> Self {
        Self { left: Self::most(rule), at: now }
    }

    fn most(rule: BudgetRule) -> f64 {
        (rule.per_second * BUDGET_SPAN).max(BUDGET_SPAN * rule.share).max(1.0)
    }

    fn add(&mut self, rule: BudgetRule, more: f64) {
        self.left = (self.left + more).min(Self::most(rule));
    }

    /// A first attempt is made.
    pub fn deposit(&mut self, rule: BudgetRule) {
        self.add(rule, rule.share);
    }

    /// Whether a retry may be made; if so, it is spent.
    pub fn withdraw(&mut self, rule: BudgetRule, now: Timestamp) -> bool {
        let passed = now.since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.add(rule, rule.per_second * passed);
        let may = self.left >= 1.0;
        if may {
            self.left -= 1.0;
        }
        may
    }

    /// A retry that was paid for is not made.
    pub fn refund(&mut self, rule: BudgetRule) {
        self.add(rule, 1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_micros(millis * 1000)
    }

    proptest! {
        /// However calls come, no stretch of time has more of them than its rate and one burst.
        #[test]
        fn no_stretch_of_time_has_more_than_its_rate_and_a_burst(
            pauses in proptest::collection::vec(0i64..300, 2..200),
            interval in 1u64..200,
            burst in 1u32..20,
        ) {
            let rate = Rate { interval: Duration::from_millis(interval), burst };
            let (mut meter, mut now, mut turns) = (Meter::default(), 1_000_000, Vec::new());
            for pause in pauses {
                now += pause;
                turns.push(meter.take(rate, at(now)));
            }
            prop_assert!(turns.is_sorted(), "whoever comes later goes later");
            for (first, from) in turns.iter().enumerate() {
                for (last, to) in turns.iter().enumerate().skip(first) {
                    let allowed = to.since(*from).as_micros() / rate.interval.as_micros();
                    let went = (last - first + 1) as u128;
                    prop_assert!(went <= allowed + u128::from(burst) + 1, "{went} in {allowed}");
                }
            }
        }

        #[test]
        fn a_meter_that_is_asked_first_never_makes_anybody_wait(pauses in proptest::collection::vec(0i64..300, 1..100)) {
            let rate = Rate { interval: Duration::from_millis(50), burst: 4 };
            let (mut meter, mut now) = (Meter::default(), 1_000_000);
            for pause in pauses {
                now += pause;
                if meter.ready_at(rate) <= at(now) {
                    prop_assert_eq!(meter.take(rate, at(now)), at(now));
                }
            }
        }

        /// Retries are at most the share of the calls, and what is saved and flows in beside them.
        #[test]
        fn retries_never_cost_more_than_the_budget(
            steps in proptest::collection::vec((any::<bool>(), 0i64..100), 1..500)
        ) {
            let rule = BudgetRule::default();
            let mut now = 1_000_000;
            let began = now;
            let mut budget = Budget::full(rule, at(now));
            let (mut calls, mut retries) = (0.0, 0.0);
            for (is_call, pause) in steps {
                now += pause;
                if is_call {
                    budget.deposit(rule);
                    calls += 1.0;
                } else if budget.withdraw(rule, at(now)) {
                    retries += 1.0;
                }
            }
            let seconds = (now - began) as f64 / 1000.0;
            prop_assert!(retries <= 100.0 + 0.2 * calls + 10.0 * seconds + 1e-6);
        }
    }

    #[test]
    fn a_ramp_lets_one_two_four_go_in_each_second_and_then_all() {
        let mut ramp = Ramp::from(at(0));
        let mut went = Vec::new();
        for second in 0..8i64 {
            let mut count = 0;
            for millisecond in 0..1000 {
                let now = at(second * 1000 + millisecond);
                while ramp.ready_at() <= now {
                    ramp.take(now);
                    count += 1;
                }
            }
            went.push(count);
        }
        assert_eq!(went[..4], [1, 2, 4, 8]);
        assert!(went.iter().enumerate().all(|(second, count)| *count <= 1 << second), "{went:?}");
        assert!(!ramp.is_over(at(9_999)) && ramp.is_over(at(10_000)));
    }
}
