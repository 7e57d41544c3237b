//! A metric as OTLP has it (opentelemetry-proto 1.x, `metrics/v1/metrics.proto`): its sums are cumulative, and
//! its name is the one that it is scraped by.

use std::time::SystemTime;

use super::span::Attributes;
use super::wire::Wire;
use super::{Items, nanos};
use crate::telemetry::metrics::{Exemplar, Kind, Labels, Row, Spread, Value};

/// Each point says what there was since the start.
const CUMULATIVE: u64 = 2;

/// Since when is counted, and when it was read.
#[derive(Debug, Clone, Copy)]
pub(in crate::telemetry) struct Window {
    pub(in crate::telemetry) begun: SystemTime,
    pub(in crate::telemetry) read: SystemTime,
}

impl Items {
    /// A metric with its series.
    pub(in crate::telemetry) fn metric(
        &mut self,
        row: &Row,
        series: &[(Labels, Value)],
        window: Window,
    ) {
        let field = match row.kind {
            Kind::Gauge => 5,
            Kind::Counter => 7,
            Kind::Histogram => 9,
        };
        let mut metric = Wire::default();
        metric.text(1, &[row.name]);
        metric.text(2, &[row.help, "."]);
        if !row.unit().is_empty() {
            metric.text(3, &[row.unit()]);
        }
        metric.message(field, |data| {
            for (labels, value) in series {
                data.message(1, |point| window.point(labels, value, point));
            }
            if row.kind != Kind::Gauge {
                data.number(2, CUMULATIVE);
            }
            if row.kind == Kind::Counter {
                // It is monotonic.
                data.number(3, 1);
            }
        });
        self.put(&metric.into_bytes());
    }
}

impl Window {
    fn point(self, labels: &Labels, value: &Value, point: &mut Wire) {
        if !matches!(value, Value::Level(_)) {
            point.fixed64(2, nanos(self.begun));
        }
        point.fixed64(3, nanos(self.read));
        let attributes = match value {
            Value::Count(count) => {
                point.fixed64(6, *count);
                7
            }
            Value::Level(level) => {
                point.double(4, *level);
                7
            }
            Value::Spread(spread) => {
                write_spread(spread, point);
                9
            }
        };
        let mut attributes = Attributes::of(point, attributes);
        for (name, value) in labels {
            attributes.say(name, value);
        }
    }
}

fn write_spread(spread: &Spread, point: &mut Wire) {
    point.fixed64(4, spread.count());
    point.double(5, spread.sum);
    point.packed64(6, spread.buckets.iter().map(|bucket| bucket.count));
    point.packed64(7, spread.bounds.iter().map(|bound| bound.to_bits()));
    for Exemplar { trace, value, at } in spread.buckets.iter().filter_map(|bucket| bucket.exemplar)
    {
        point.message(8, |exemplar| {
            exemplar.fixed64(2, nanos(at));
            exemplar.double(3, value);
            exemplar.bytes(5, &trace.to_be_bytes());
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use opentelemetry_proto::tonic::metrics::v1 as read;
    use opentelemetry_proto::tonic::metrics::v1::exemplar::Value as Example;
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
    use prost::Message as _;

    use super::*;
    use crate::telemetry::metrics::{Bucket, TABLE};

    fn at(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(second)
    }

    /// The metric, read by what others read metrics with.
    fn told(name: &str, series: &[(Labels, Value)]) -> read::Metric {
        let row = TABLE.iter().find(|row| row.name == name).unwrap();
        let window = Window { begun: at(2), read: at(9) };
        let mut items = Items::default();
        items.metric(row, series, window);
        let mut scope = read::ScopeMetrics::decode(&*items.0.into_bytes()).unwrap();
        assert_eq!(scope.metrics.len(), 1);
        scope.metrics.remove(0)
    }

    #[test]
    fn a_counter_is_a_cumulative_sum_that_never_falls() {
        let of = |answer: &str| vec![("answer", answer.to_owned())];
        let series = [(of("late"), Value::Count(0)), (of("joined"), Value::Count(u64::MAX >> 1))];
        let metric = told("onceward_duplicates_total", &series);
        assert!(metric.description.ends_with("late or revived."), "{}", metric.description);
        assert_eq!(metric.unit, "");
        let Some(Data::Sum(sum)) = metric.data else { panic!("{metric:?}") };
        assert!(sum.is_monotonic);
        assert_eq!(sum.aggregation_temporality(), read::AggregationTemporality::Cumulative);
        let points = &sum.data_points;
        assert_eq!(points[0].value, Some(Number::AsInt(0)), "nothing is a number too");
        assert_eq!(points[1].value, Some(Number::AsInt(i64::MAX)));
        assert_eq!(points[1].start_time_unix_nano, 2_000_000_000);
        assert_eq!(points[1].time_unix_nano, 9_000_000_000);
        assert_eq!(points[1].attributes[0].key, "answer");
    }

    #[test]
    fn a_gauge_says_how_much_there_is_and_in_what() {
        let metric = told("onceward_ledger_bytes", &[(Labels::new(), Value::Level(-0.5))]);
        assert_eq!(metric.unit, "By");
        let Some(Data::Gauge(gauge)) = metric.data else { panic!("{metric:?}") };
        let point = &gauge.data_points[0];
        assert_eq!(point.value, Some(Number::AsDouble(-0.5)));
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (0, 9_000_000_000));
        assert!(point.attributes.is_empty());
    }

    #[test]
    fn a_histogram_has_what_is_in_each_bucket_and_its_exemplars() {
        let exemplar = Some(Exemplar { trace: 7, value: 0.06, at: at(5) });
        let buckets = vec![
            Bucket { count: 1, exemplar: None },
            Bucket { count: 3, exemplar },
            Bucket::default(),
        ];
        let spread = Spread { bounds: &[0.05, 0.1], buckets, sum: 0.25 };
        let metric =
            told("onceward_ledger_commit_seconds", &[(Labels::new(), Value::Spread(spread))]);
        assert_eq!(metric.unit, "s");
        let Some(Data::Histogram(histogram)) = metric.data else { panic!("{metric:?}") };
        assert_eq!(histogram.aggregation_temporality(), read::AggregationTemporality::Cumulative);
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.sum), (4, Some(0.25)));
        assert_eq!(
            (&*point.bucket_counts, &*point.explicit_bounds),
            (&[1, 3, 0][..], &[0.05, 0.1][..])
        );
        let exemplar = &point.exemplars[0];
        assert_eq!(exemplar.trace_id, 7u128.to_be_bytes());
        assert_eq!(exemplar.value, Some(Example::AsDouble(0.06)));
        assert_eq!(exemplar.time_unix_nano, 5_000_000_000);
        assert_eq!(point.exemplars.len(), 1);
    }
}
