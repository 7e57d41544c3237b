//! What a route's window and retries should be, from what it has seen: counts only, which add up
//! over nodes and time.

use std::time::Duration;

use crate::policy::Backoff;

/// The bounds of the classes in which spans are counted, in seconds; what is longer has a class of
/// its own.
const BOUNDS: [u64; 24] = [
    1, 5, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400,
    172_800, 259_200, 432_000, 604_800, 1_209_600, 2_592_000, 5_184_000, 7_776_000,
];

/// Attempts that are counted one by one; the last stands for itself and all after it.
const ATTEMPTS: usize = 16;

/// With fewer than these there is nothing to advise.
const ENOUGH: u64 = 100;

/// Past these all counts are halved, so that what was long ago weighs less.
const COUNT_MAX: u64 = 1_000_000;

/// The share that advice is about: 999 of 1000.
const SHARE: (u128, u128) = (999, 1000);

/// How many spans there were of each length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spans([u64; BOUNDS.len() + 1]);

impl Spans {
    /// Counts one.
    pub fn add(&mut self, span: Duration) {
        let class = BOUNDS.iter().position(|bound| span <= Duration::from_secs(*bound));
        self.0[class.unwrap_or(BOUNDS.len())] += 1;
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The bound that 99.9 % of them keep; nothing where there are none, or where it is longer than is
    /// counted.
    pub fn bound(&self) -> Option<Duration> {
        place_of_share(&self.0)
            .and_then(|class| BOUNDS.get(class))
            .copied()
            .map(Duration::from_secs)
    }
}

/// Where the share of what was counted is reached.
fn place_of_share(counts: &[u64]) -> Option<usize> {
    let all: u128 = counts.iter().map(|count| u128::from(*count)).sum();
    let mut so_far = 0;
    let reached = |count: &u64| {
        so_far += u128::from(*count);
        all > 0 && so_far * SHARE.1 >= all * SHARE.0
    };
    counts.iter().position(reached)
}

/// How attempts went, of calls that somebody waited for, or that nobody did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tries {
    /// Operations that were done with this attempt, from the first on.
    pub done_at: [u64; ATTEMPTS],
    /// How long they took from their first attempt on.
    pub took: Spans,
    /// Operations that came to nothing.
    pub died: u64,
    /// Their attempts.
    pub wasted: u64,
}

impl Tries {
    /// Counts an operation that was done.
    pub fn add_done(&mut self, attempts: u32, took: Duration) {
        self.done_at[(attempts.max(1) as usize).min(ATTEMPTS) - 1] += 1;
        self.took.add(took);
    }

    fn counts(&mut self) -> impl Iterator<Item = &mut u64> {
        let Self { done_at, took, died, wasted } = self;
        done_at.iter_mut().chain(&mut took.0).chain([died, wasted])
    }

    /// Counts one that came to nothing.
    pub fn add_dead(&mut self, attempts: u32) {
        self.died += 1;
        self.wasted += u64::from(attempts);
    }
}

/// What a route has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// How long after the end a key was asked for again, in time or late.
    pub duplicates: Spans,
    /// How many of them came after the window.
    pub late: u64,
    /// Attempts while somebody waited.
    pub held: Tries,
    /// Attempts while nobody did.
    pub accepted: Tries,
}

impl Seen {
    fn counts(&mut self) -> impl Iterator<Item = &mut u64> {
        let Self { duplicates, late, held, accepted } = self;
        duplicates.0.iter_mut().chain([late]).chain(held.counts()).chain(accepted.counts())
    }

    /// All counts in a row, as they are kept.
    pub fn to_counts(mut self) -> Vec<u64> {
        self.counts().map(|count| *count).collect()
    }

    /// Reads counts back; nothing where they are another release's.
    pub fn from_counts(kept: &[u64]) -> Option<Self> {
        let mut seen = Self::default();
        let mut places = 0;
        for (count, kept) in seen.counts().zip(kept) {
            *count = *kept;
            places += 1;
        }
        (places == kept.len() && places == seen.counts().count()).then_some(seen)
    }

    /// Adds what was seen elsewhere, or later.
    pub fn add(&mut self, other: &Self) {
        let other = other.to_counts();
        for (count, more) in self.counts().zip(other) {
            *count = count.saturating_add(more);
        }
        if self.counts().any(|count| *count > COUNT_MAX) {
            self.counts().for_each(|count| *count /= 2);
        }
    }

    /// Whether nothing was seen.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// What there is to say of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowAdvice {
    /// Duplicates that were seen.
    pub duplicates: u64,
    /// How many of them came after the window.
    pub late: u64,
    /// 99.9 % of them came within this.
    pub within: Option<Duration>,
    /// What follows.
    pub fit: Fit,
}

/// Whether a window fits what was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// There is too little to say.
    TooFew,
    /// It does.
    Fits,
    /// Duplicates come after it.
    TooShort,
    /// A quarter of it would do.
    Generous,
}

impl Fit {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::TooFew => "too_few",
            Self::Fits => "fits",
            Self::TooShort => "too_short",
            Self::Generous => "generous",
        }
    }
}

/// What there is to say of a window of `window`.
pub fn window_advice(seen: &Seen, window: Duration) -> WindowAdvice {
    let duplicates = seen.duplicates.count();
    let within = seen.duplicates.bound();
    let fit = match within {
        // One that came late is enough to know that some do.
        _ if seen.late > 0 && within.is_none_or(|within| within > window) => Fit::TooShort,
        _ if duplicates < ENOUGH => Fit::TooFew,
        Some(within) if within.saturating_mul(4) <= window && seen.late == 0 => Fit::Generous,
        _ => Fit::Fits,
    };
    WindowAdvice { duplicates, late: seen.late, within, fit }
}

/// What there is to say of retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryAdvice {
    /// Operations that were done.
    pub done: u64,
    /// How many of them at the first attempt.
    pub at_first: u64,
    /// 99.9 % of them were done with this attempt or before; nothing where it is beyond counting.
    pub attempts: Option<u32>,
    /// And within this.
    pub within: Option<Duration>,
    /// Attempts of operations that came to nothing.
    pub wasted: u64,
    /// The most attempts that fit, where they are other than the route's.
    pub attempts_max: Option<u32>,
    /// The horizon that fits, where it is another than the route's.
    pub horizon: Option<Duration>,
}

/// What there is to say of retries that go by `backoff`.
pub fn retry_advice(tries: &Tries, backoff: &Backoff) -> RetryAdvice {
    let done = tries.done_at.iter().sum();
    let attempts = place_of_share(&tries.done_at).map(|place| place as u32 + 1);
    let attempts = attempts.filter(|attempts| (*attempts as usize) < ATTEMPTS);
    let within = tries.took.bound();
    let is_enough = done >= ENOUGH;
    // One more than what did, and never a single one: the next failure is not the last one's like.
    let fits = attempts.map(|attempts| (attempts + 1).max(2));
    RetryAdvice {
        done,
        at_first: tries.done_at[0],
        attempts,
        within,
        wasted: tries.wasted,
        attempts_max: fits.filter(|fits| is_enough && *fits < backoff.attempts_max),
        horizon: within
            .map(|within| within.saturating_mul(2))
            .filter(|fits| is_enough && *fits < backoff.horizon),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn seen(ages: &[(Duration, u64)], late: u64) -> Seen {
        let mut seen = Seen { late, ..Seen::default() };
        for (age, times) in ages {
            (0..*times).for_each(|_| seen.duplicates.add(*age));
        }
        seen
    }

    #[test]
    fn a_window_fits_or_it_is_said_what_would() {
        for (ages, late, window, within, fit) in [
            (vec![], 0, HOUR, None, Fit::TooFew),
            (vec![(HOUR, 99)], 0, HOUR, Some(HOUR), Fit::TooFew),
            (vec![(HOUR, 100)], 0, 2 * HOUR, Some(HOUR), Fit::Fits),
            (vec![(5 * HOUR, 2000), (9 * HOUR, 2)], 3, HOUR, Some(6 * HOUR), Fit::TooShort),
            (vec![(Duration::ZERO, 5), (9 * HOUR, 1)], 1, HOUR, Some(12 * HOUR), Fit::TooShort),
            (
                vec![(Duration::ZERO, 5000), (9 * HOUR, 1)],
                1,
                HOUR,
                Some(Duration::from_secs(1)),
                Fit::Fits,
            ),
            (vec![(HOUR, 1000)], 0, 4 * HOUR, Some(HOUR), Fit::Generous),
            (vec![(9999 * HOUR, 1000)], 1000, 72 * HOUR, None, Fit::TooShort),
        ] {
            let advice = window_advice(&seen(&ages, late), window);
            assert_eq!((advice.within, advice.fit), (within, fit), "{ages:?} {late} {window:?}");
        }
    }

    #[test]
    fn retries_that_never_helped_are_told_and_a_schedule_that_fits() {
        let mut tries = Tries::default();
        (0..900).for_each(|_| tries.add_done(1, Duration::ZERO));
        (0..100).for_each(|_| tries.add_done(3, Duration::from_secs(40)));
        (0..7).for_each(|_| tries.add_dead(12));
        let advice = retry_advice(&tries, &Backoff::accepted());
        assert_eq!((advice.done, advice.at_first, advice.wasted), (1000, 900, 84));
        assert_eq!((advice.attempts, advice.attempts_max), (Some(3), Some(4)));
        assert_eq!(advice.horizon, Some(Duration::from_mins(2)));
        let fits = Backoff { attempts_max: 4, horizon: Duration::from_mins(2), ..Backoff::held() };
        let advice = retry_advice(&tries, &fits);
        assert_eq!((advice.attempts_max, advice.horizon), (None, None));
        let advice = retry_advice(&Tries::default(), &Backoff::accepted());
        assert_eq!((advice.attempts, advice.attempts_max, advice.horizon), (None, None, None));
    }

    prop_compose! {
        fn any_seen()(counts in proptest::collection::vec(0u64..1000, Seen::default().to_counts().len())) -> Seen {
            Seen::from_counts(&counts).unwrap()
        }
    }

    proptest! {
        #[test]
        fn counts_are_read_back_and_add_up_in_any_order(a in any_seen(), b in any_seen()) {
            prop_assert_eq!(Seen::from_counts(&a.to_counts()), Some(a));
            prop_assert_eq!(Seen::from_counts(&a.to_counts()[1..]), None);
            let (mut ab, mut ba) = (a, b);
            ab.add(&b);
            ba.add(&a);
            prop_assert_eq!(ab, ba);
            prop_assert_eq!(ab.duplicates.count(), a.duplicates.count() + b.duplicates.count());
        }

        #[test]
        fn of_all_that_was_seen_999_of_1000_came_within_what_is_said(ages in proptest::collection::vec(0u64..9_000_000, 1..3000)) {
            let mut spans = Spans::default();
            for age in &ages {
                spans.add(Duration::from_secs(*age));
            }
            let within = |bound: Duration| ages.iter().filter(|age| Duration::from_secs(**age) <= bound).count();
            match spans.bound() {
                Some(bound) => prop_assert!(within(bound) * 1000 >= ages.len() * 999),
                None => prop_assert!(within(Duration::from_hours(90 * 24)) * 1000 < ages.len() * 999),
            }
        }

        #[test]
        fn counts_stay_bounded(seen in any_seen()) {
            let mut sum = seen;
            for _ in 0..40 {
                let more = sum;
                sum.add(&more);
            }
            prop_assert!(sum.to_counts().iter().all(|count| *count <= COUNT_MAX));
        }
    }
}
