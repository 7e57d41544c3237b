//! The circuit breaker (M. Nygard, "Release It!"): whether an upstream is called at all. A value
//! moved by how attempts end; it holds work back and never discards any.

use std::time::Duration;

use crate::attempt::Ending;
use crate::time::Timestamp;

/// In how many parts the span of a breaker is counted.
const PARTS: usize = 12;

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, PartialEq)]
pub struct BreakerRule {
    /// Fewer calls than this within `span` say nothing.
    pub calls_min: u32,
    /// The share of failures among them that opens it, in (0, 1].
    pub failures: f64,
    /// Failed connections in a row that open it, however few calls there were.
    pub unconnected_max: u32,
    /// How far back is looked.
    pub span: Duration,
    /// How long it stays open at first; each time that a probe fails, twice as long.
    pub open: Duration,
    /// How long at most.
    pub open_max: Duration,
    /// Probes that have to succeed before traffic flows again, and how many may be under way.
    pub probes: u32,
}

impl Default for BreakerRule {
    fn default() -> Self {
        Self {
            calls_min: 20,
            failures: 0.5,
            unconnected_max: 5,
            span: Duration::from_mins(1),
            open: Duration::from_secs(30),
            open_max: Duration::from_mins(5),
            probes: 3,
        }
    }
}

/// What an attempt says about the health of its upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It answers. A refusal is an answer too.
    Good,
    /// It answered that it cannot, or did not answer.
    Bad,
    /// Nothing was there to connect to.
    Unconnected,
}

impl Sign {
    /// The sign of an attempt that ended so. Being told to slow down is no failure: the upstream is
    /// there, and is [held](crate::rate) instead.
    pub fn of(ending: Ending, status: Option<u16>) -> Self {
        match ending {
            Ending::Unsent => Self::Unconnected,
            Ending::Unanswered | Ending::Truncated => Self::Bad,
            Ending::Answered => match status {
                Some(408 | 500..) | None => Self::Bad,
                Some(_) => Self::Good,
            },
        }
    }
}

/// Whether a call may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// Traffic flows.
    Free,
    /// Only as a probe: something whose second arrival does no harm.
    Probe,
    /// Not now.
    Shut {
        /// When to look again, where that is known: else when a probe has ended.
        until: Option<Timestamp>,
    },
}

/// What moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It opened, until then.
    Opened(Timestamp),
    /// It closed.
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Timestamp },
    HalfOpen { under_way: u32, good: u32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Tally {
    part: i64,
    calls: u32,
    failures: u32,
}

/// A breaker: closed while traffic flows, open once it tripped, half-open while it is probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    state: State,
    tallies: [Tally; PARTS],
    unconnected: u32,
    /// How often it opened without closing in between.
    opened: u32,
    /// Until when it had been open, where somebody wanted to know sooner.
    cut_short: Option<Timestamp>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            state: State::Closed,
            tallies: [Tally::default(); PARTS],
            unconnected: 0,
            opened: 0,
            cut_short: None,
        }
    }
}

impl Breaker {
    /// The word for where it stands, in answers, metrics and pages.
    pub fn name(&self) -> &'static str {
        match self.state {
            State::Closed => "closed",
            State::Open { .. } => "open",
            State::HalfOpen { .. } => "half_open",
        }
    }

    /// Whether traffic flows.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether a call may go now.
    pub fn leave(&self, rule: &BreakerRule, now: Timestamp) -> Leave {
        match self.state {
            State::Closed => Leave::Free,
            State::Open { until } if now < until => Leave::Shut { until: Some(until) },
            State::Open { .. } => Leave::Probe,
            State::HalfOpen { under_way, good } if under_way + good < rule.probes.max(1) => {
                Leave::Probe
            }
            State::HalfOpen { .. } => Leave::Shut { until: None },
        }
    }

    /// Somebody wants to know now: one that is open may be probed at once. Where that comes to nothing it
    /// stays open until it would have been probed by itself, so that asking costs no time.
    pub fn ask_now(&mut self, now: Timestamp) {
        if let State::Open { until } = &mut self.state
            && now < *until
        {
            self.cut_short = Some(std::mem::replace(until, now));
        }
    }

    /// A probe begins.
    pub fn begin_probe(&mut self) {
        let (under_way, good) = match self.state {
            State::HalfOpen { under_way, good } => (under_way, good),
            State::Closed | State::Open { .. } => (0, 0),
        };
        self.state = State::HalfOpen { under_way: under_way + 1, good };
    }

    /// A probe ended without saying anything.
    pub fn drop_probe(&mut self) {
        if let State::HalfOpen { under_way, .. } = &mut self.state {
            *under_way = under_way.saturating_sub(1);
        }
    }

    /// An attempt ended; `draw` in [0, 1) spreads when nodes look again by ±20 %. What was sent
    /// before the breaker opened says nothing any more.
    pub fn learn(
        &mut self,
        rule: &BreakerRule,
        sign: Sign,
        is_probe: bool,
        now: Timestamp,
        draw: f64,
    ) -> Option<Turn> {
        match (&mut self.state, is_probe) {
            (State::Closed, _) => {
                self.count(rule, sign, now);
                self.is_tripped(rule, now).then(|| self.open(rule, now, draw))
            }
            (State::HalfOpen { under_way, good }, true) => {
                *under_way = under_way.saturating_sub(1);
                if sign != Sign::Good {
                    return Some(self.open(rule, now, draw));
                }
                *good += 1;
                (*good >= rule.probes.max(1)).then(|| {
                    *self = Self::default();
                    Turn::Closed
                })
            }
            (State::Open { .. }, _) | (State::HalfOpen { .. }, false) => None,
        }
    }

    fn count(&mut self, rule: &BreakerRule, sign: Sign, now: Timestamp) {
        let part = part(rule, now);
        let tally = &mut self.tallies[part.rem_euclid(PARTS as i64) as usize];
        if tally.part != part {
            *tally = Tally { part, ..Tally::default() };
        }
        tally.calls = tally.calls.saturating_add(1);
        tally.failures = tally.failures.saturating_add(u32::from(sign != Sign::Good));
        self.unconnected =
            if sign == Sign::Unconnected { self.unconnected.saturating_add(1) } else { 0 };
    }

    fn is_tripped(&self, rule: &BreakerRule, now: Timestamp) -> bool {
        let part = part(rule, now);
        let recent = || self.tallies.iter().filter(|tally| part - tally.part < PARTS as i64);
        let calls: u64 = recent().map(|tally| u64::from(tally.calls)).sum();
        let failures: u64 = recent().map(|tally| u64::from(tally.failures)).sum();
        self.unconnected >= rule.unconnected_max.max(1)
            || (calls >= u64::from(rule.calls_min.max(1))
                && failures as f64 >= calls as f64 * rule.failures)
    }

    fn open(&mut self, rule: &BreakerRule, now: Timestamp, draw: f64) -> Turn {
        let (until, opened) = if let Some(until) = self.cut_short.filter(|until| now < *until) {
            (until, self.opened)
        } else {
            let times = 2f64.powi(self.opened.min(30) as i32);
            let length = rule.open.mul_f64(times).min(rule.open_max).mul_f64(0.8 + 0.4 * draw);
            (now.plus(length), self.opened.saturating_add(1))
        };
        *self = Self { state: State::Open { until }, opened, ..Self::default() };
        Turn::Opened(until)
    }
}

/// Which part of the span `now` lies in.
fn part(rule: &BreakerRule, now: Timestamp) -> i64 {
    let length = (rule.span.as_micros() / PARTS as u128).max(1);
    now.as_micros() / i64::try_from(length).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn tripped(rule: &BreakerRule) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..rule.unconnected_max {
            breaker.learn(rule, Sign::Unconnected, false, at(100), 0.5);
        }
        assert_eq!(breaker.name(), "open");
        breaker
    }

    #[test]
    fn half_of_enough_calls_opens_it_and_one_less_does_not() {
        let rule = BreakerRule::default();
        let mut breaker = Breaker::default();
        for call in 0..19 {
            let sign = if call % 2 == 0 { Sign::Bad } else { Sign::Good };
            assert_eq!(breaker.learn(&rule, sign, false, at(100), 0.5), None, "call {call}");
        }
        let mut better = breaker.clone();
        assert_eq!(better.learn(&rule, Sign::Good, false, at(200), 0.5), None, "others are past");
        assert_eq!(
            breaker.learn(&rule, Sign::Bad, false, at(101), 0.5),
            Some(Turn::Opened(at(131)))
        );
    }

    #[test]
    fn connections_that_fail_in_a_row_open_it_however_few_they_are() {
        let rule = BreakerRule::default();
        let mut breaker = Breaker::default();
        for _ in 0..4 {
            breaker.learn(&rule, Sign::Unconnected, false, at(100), 0.5);
        }
        breaker.learn(&rule, Sign::Good, false, at(100), 0.5);
        for _ in 0..4 {
            assert_eq!(breaker.learn(&rule, Sign::Unconnected, false, at(100), 0.5), None);
        }
        assert!(breaker.learn(&rule, Sign::Unconnected, false, at(100), 0.5).is_some());
    }

    #[test]
    fn open_lets_nothing_by_and_then_as_many_probes_as_it_says() {
        let rule = BreakerRule::default();
        let mut breaker = tripped(&rule);
        assert_eq!(breaker.leave(&rule, at(129)), Leave::Shut { until: Some(at(130)) });
        for _ in 0..3 {
            assert_eq!(breaker.leave(&rule, at(130)), Leave::Probe);
            breaker.begin_probe();
        }
        assert_eq!(breaker.leave(&rule, at(130)), Leave::Shut { until: None });
        breaker.drop_probe();
        assert_eq!(breaker.leave(&rule, at(130)), Leave::Probe, "one came to nothing");
        breaker.begin_probe();
        assert_eq!(breaker.learn(&rule, Sign::Bad, false, at(131), 0.5), None, "sent before");
        assert_eq!(breaker.learn(&rule, Sign::Good, true, at(131), 0.5), None);
        assert_eq!(breaker.learn(&rule, Sign::Good, true, at(131), 0.5), None);
        assert_eq!(breaker.leave(&rule, at(131)), Leave::Shut { until: None });
        assert_eq!(breaker.learn(&rule, Sign::Good, true, at(131), 0.5), Some(Turn::Closed));
        assert_eq!(breaker.leave(&rule, at(131)), Leave::Free);
    }

    #[test]
    fn each_probe_that_fails_doubles_the_time_up_to_its_bound() {
        let rule = BreakerRule::default();
        let mut breaker = tripped(&rule);
        let mut now = at(130);
        for length in [60, 120, 240, 300, 300] {
            breaker.begin_probe();
            let turn = breaker.learn(&rule, Sign::Unconnected, true, now, 0.5);
            let until = now.plus(Duration::from_secs(length));
            assert_eq!(turn, Some(Turn::Opened(until)));
            now = until;
        }
    }

    #[test]
    fn one_that_is_asked_now_may_be_probed_at_once_and_stays_open_as_long_as_it_would_have() {
        let rule = BreakerRule { probes: 1, ..BreakerRule::default() };
        let mut breaker = tripped(&rule);
        breaker.ask_now(at(105));
        assert_eq!(breaker.leave(&rule, at(105)), Leave::Probe);
        breaker.begin_probe();
        let turn = breaker.learn(&rule, Sign::Bad, true, at(106), 0.5);
        assert_eq!(turn, Some(Turn::Opened(at(130))), "asking costs no time");
        breaker.ask_now(at(110));
        breaker.begin_probe();
        let turn = breaker.learn(&rule, Sign::Bad, true, at(131), 0.5);
        assert_eq!(turn, Some(Turn::Opened(at(191))), "its own time came meanwhile");
        breaker.ask_now(at(140));
        breaker.ask_now(at(141));
        breaker.begin_probe();
        assert_eq!(breaker.learn(&rule, Sign::Good, true, at(142), 0.5), Some(Turn::Closed));
        let closed = breaker.clone();
        breaker.ask_now(at(143));
        assert_eq!(breaker, closed, "there is nothing to ask");
    }

    proptest! {
        /// Whatever happens: it opens only by failures, lets nothing by while it is open, and never
        /// more than its probes while it is half-open.
        #[test]
        fn it_never_lets_more_by_than_its_probes_until_they_succeeded(
            steps in proptest::collection::vec((0u8..5, 0u8..3, 0i64..20), 1..400)
        ) {
            let rule = BreakerRule { calls_min: 3, unconnected_max: 2, ..BreakerRule::default() };
            let mut breaker = Breaker::default();
            let (mut now, mut probes, mut plain) = (1_000, 0u32, 0u32);
            for (step, sign, pause) in steps {
                now += pause;
                let sign = [Sign::Good, Sign::Bad, Sign::Unconnected][usize::from(sign)];
                match (step, breaker.leave(&rule, at(now))) {
                    (0, Leave::Free) => plain += 1,
                    (0, Leave::Probe) => {
                        breaker.begin_probe();
                        probes += 1;
                    }
                    (1, _) if plain > 0 => {
                        plain -= 1;
                        let was = breaker.name();
                        let turn = breaker.learn(&rule, sign, false, at(now), 0.0);
                        prop_assert!(turn.is_none() || was == "closed");
                        prop_assert!(turn.is_none() || sign != Sign::Good || was == "closed");
                        probes = if breaker.name() == "half_open" { probes } else { 0 };
                    }
                    (2, _) if probes > 0 => {
                        probes -= 1;
                        breaker.learn(&rule, sign, true, at(now), 0.0);
                        probes = if breaker.name() == "half_open" { probes } else { 0 };
                    }
                    (3, _) if probes > 0 => {
                        probes -= 1;
                        breaker.drop_probe();
                    }
                    (4, leave) => {
                        breaker.ask_now(at(now));
                        let is_free = breaker.leave(&rule, at(now)) == Leave::Free;
                        prop_assert_eq!(is_free, leave == Leave::Free, "asking closes nothing");
                    }
                    _ => {}
                }
                prop_assert!(probes <= rule.probes);
            }
        }
    }
}
