//! What is counted: counters, gauges and histograms, a series of each for every set of its labels. Whoever
//! moves one looks it up once, or at each move; whoever tells them reads all, as values of one moment.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

/// Names and values of labels.
pub(in crate::telemetry) type Labels = Vec<(&'static str, String)>;

/// A metric: its series by their labels.
#[derive(Debug)]
pub(crate) struct Family<M> {
    series: RwLock<BTreeMap<Labels, Arc<M>>>,
    begin: fn() -> M,
}

/// What is counted, and never less.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

/// What goes up and down: the bits of its number.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicU64);

/// What is observed, and how it is spread.
#[derive(Debug)]
pub(crate) struct Histogram(Mutex<Spread>);

pub(crate) type Counters = Family<Counter>;
pub(crate) type Gauges = Family<Gauge>;
pub(crate) type Histograms = Family<Histogram>;

/// What a series has at a moment.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::telemetry) enum Value {
    Count(u64),
    Level(f64),
    Spread(Spread),
}

/// How what was observed is spread.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::telemetry) struct Spread {
    /// Up to where each bucket reaches, which is within it; the last one has no bound.
    pub(in crate::telemetry) bounds: &'static [f64],
    pub(in crate::telemetry) buckets: Vec<Bucket>,
    pub(in crate::telemetry) sum: f64,
}

/// What fell between two bounds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::telemetry) struct Bucket {
    pub(in crate::telemetry) count: u64,
    pub(in crate::telemetry) exemplar: Option<Exemplar>,
}

/// The last of a bucket's that is told of in a trace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::telemetry) struct Exemplar {
    pub(in crate::telemetry) trace: u128,
    pub(in crate::telemetry) value: f64,
    pub(in crate::telemetry) at: SystemTime,
}

/// A series that is read.
pub(crate) trait Read {
    fn read(&self) -> Value;
}

fn owned<const N: usize>(labels: [(&'static str, &str); N]) -> Labels {
    labels.map(|(name, value)| (name, value.to_owned())).into()
}

impl<M> Family<M> {
    /// One without a series; each that comes is as `begin` has it.
    pub(super) fn new(begin: fn() -> M) -> Self {
        Self { series: RwLock::default(), begin }
    }

    /// The series with these labels, which is there from then on.
    pub(crate) fn of<const N: usize>(&self, labels: [(&'static str, &str); N]) -> Arc<M> {
        let labels = owned(labels);
        let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = series.get(&labels) {
            return Arc::clone(found);
        }
        drop(series);
        let mut series = self.series.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(series.entry(labels).or_insert_with(|| Arc::new((self.begin)())))
    }
}

impl<M: Read> Family<M> {
    /// What all series have now, in the order of their labels.
    pub(super) fn read(&self) -> Vec<(Labels, Value)> {
        let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
        series.iter().map(|(labels, one)| (labels.clone(), one.read())).collect()
    }
}

impl Gauges {
    /// Has these series and no others: nobody reads some of them.
    pub(crate) fn set_all<'a, const N: usize>(
        &self,
        levels: impl Iterator<Item = ([(&'static str, &'a str); N], f64)>,
    ) {
        let gauge = |level: f64| Arc::new(Gauge(AtomicU64::new(level.to_bits())));
        let fresh = levels.map(|(labels, level)| (owned(labels), gauge(level))).collect();
        let mut series = self.series.write().unwrap_or_else(PoisonError::into_inner);
        *series = fresh;
    }

    /// Keeps the series whose first label has a value that `is_kept`.
    pub(crate) fn keep(&self, is_kept: impl Fn(&str) -> bool) {
        let mut series = self.series.write().unwrap_or_else(PoisonError::into_inner);
        series.retain(|labels, _| labels.first().is_none_or(|(_, value)| is_kept(value)));
    }
}

impl Counter {
    pub(crate) fn inc(&self) {
        self.inc_by(1);
    }

    pub(crate) fn inc_by(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }
}

impl Read for Counter {
    fn read(&self) -> Value {
        Value::Count(self.0.load(Ordering::Relaxed))
    }
}

impl Gauge {
    pub(crate) fn set(&self, level: f64) {
        self.0.store(level.to_bits(), Ordering::Relaxed);
    }
}

impl Read for Gauge {
    fn read(&self) -> Value {
        Value::Level(f64::from_bits(self.0.load(Ordering::Relaxed)))
    }
}

impl Histogram {
    /// One with a bucket up to each of these bounds, and one for what is beyond them.
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        let buckets = vec![Bucket::default(); bounds.len() + 1];
        Self(Mutex::new(Spread { bounds, buckets, sum: 0.0 }))
    }

    /// Takes note of how long something took, in seconds, and of the trace that tells of it.
    pub(crate) fn observe(&self, took: Duration, trace: Option<u128>) {
        let value = took.as_secs_f64();
        let exemplar = trace.map(|trace| Exemplar { trace, value, at: SystemTime::now() });
        let mut spread = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        spread.sum += value;
        let place = spread.bounds.partition_point(|bound| *bound < value);
        let Some(bucket) = spread.buckets.get_mut(place) else { return };
        bucket.count += 1;
        bucket.exemplar = exemplar.or(bucket.exemplar);
    }
}

impl Read for Histogram {
    fn read(&self) -> Value {
        Value::Spread(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Spread {
    /// How much was observed.
    pub(in crate::telemetry) fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(histogram: &Histogram) -> Vec<u64> {
        let Value::Spread(spread) = histogram.read() else { panic!("it is a histogram") };
        spread.buckets.iter().map(|bucket| bucket.count).collect()
    }

    #[test]
    fn a_bound_is_within_its_bucket_and_what_is_beyond_all_has_one_too() {
        let histogram = Histogram::new(&[1.0, 2.0]);
        for millis in [0, 1000, 1001, 2000, 2001, 700_000] {
            histogram.observe(Duration::from_millis(millis), None);
        }
        assert_eq!(counts(&histogram), [2, 2, 2]);
    }

    #[test]
    fn series_of_what_is_gone_go_with_it() {
        let gauges = Gauges::new(Gauge::default);
        for route in ["a", "b"] {
            gauges.of([("route", route), ("kind", "missing")]).set(1.0);
        }
        gauges.keep(|route| route == "b");
        let left = gauges.read();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].0[0].1, "b");
    }

    #[test]
    fn a_bucket_keeps_its_last_exemplar_and_what_has_none_takes_it_from_nobody() {
        let histogram = Histogram::new(&[1.0]);
        for (millis, trace) in [(250, Some(1)), (500, Some(2)), (750, None)] {
            histogram.observe(Duration::from_millis(millis), trace);
        }
        let Value::Spread(spread) = histogram.read() else { panic!("it is a histogram") };
        let exemplar = spread.buckets[0].exemplar.unwrap();
        assert_eq!((exemplar.trace, exemplar.value), (2, 0.5));
        assert_eq!((spread.buckets[1].exemplar, spread.count(), spread.sum), (None, 3, 1.5));
    }

    #[test]
    fn gauges_that_are_set_together_are_the_only_ones() {
        let gauges = Gauges::new(Gauge::default);
        gauges.of([("route", "gone")]).set(1.0);
        gauges.set_all([([("route", "b")], 2.0), ([("route", "a")], 3.0)].into_iter());
        let of = |route| owned([("route", route)]);
        assert_eq!(gauges.read(), [(of("a"), Value::Level(3.0)), (of("b"), Value::Level(2.0))]);
    }
}
