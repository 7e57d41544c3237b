//! Metrics over OTLP, as a collector has them: read by OpenTelemetry's own definition of them, and held against
//! what `/metrics` says.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::exemplar;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint};
use prost::Message as _;
use rustix::process::Signal;

use crate::traces_world::{Hearing, hex, read};
use crate::world::{Gateway, World, until};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// Values by their series, both as the text format writes them.
type Series = BTreeMap<String, String>;

/// What was pushed at once.
#[derive(Debug, Default)]
struct Push {
    resource: BTreeMap<String, String>,
    series: Series,
    /// Kind and description of each metric.
    said: BTreeMap<String, (String, String)>,
    /// Traces that exemplars of the buckets name.
    traces: BTreeSet<String>,
}

fn of_labels(name: &str, attributes: &[KeyValue], bound: Option<f64>) -> String {
    let labels = read(attributes.to_vec()).into_iter();
    let bound =
        bound.map(|bound| if bound.is_finite() { format!("{bound:?}") } else { "+Inf".into() });
    let labels = labels.chain(bound.map(|bound| ("le".to_owned(), bound)));
    let labels: Vec<_> = labels.map(|(name, value)| format!("{name}={value:?}")).collect();
    format!("{name}{{{}}}", labels.join(","))
}

impl Push {
    fn read(body: &[u8]) -> Self {
        let mut push = Self::default();
        let request = ExportMetricsServiceRequest::decode(body).unwrap();
        for of_resource in request.resource_metrics {
            push.resource = read(of_resource.resource.unwrap().attributes);
            for metric in of_resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
                push.take(metric);
            }
        }
        push
    }

    fn take(&mut self, Metric { name, description, data, .. }: Metric) {
        let kind = match data.unwrap() {
            Data::Sum(sum) => {
                assert!(sum.is_monotonic && sum.aggregation_temporality == 2, "{name}");
                self.numbers(&name, &sum.data_points);
                "counter"
            }
            Data::Gauge(gauge) => {
                self.numbers(&name, &gauge.data_points);
                "gauge"
            }
            Data::Histogram(histogram) => {
                assert_eq!(histogram.aggregation_temporality, 2, "{name}");
                for point in histogram.data_points {
                    assert!(0 < point.start_time_unix_nano);
                    assert!(point.start_time_unix_nano < point.time_unix_nano);
                    let of = |ending: &str, bound| {
                        of_labels(&format!("{name}_{ending}"), &point.attributes, bound)
                    };
                    let mut count = 0;
                    let bounds = point.explicit_bounds.iter().copied().chain([f64::INFINITY]);
                    for (bound, within) in bounds.zip(&point.bucket_counts) {
                        count += within;
                        self.series.insert(of("bucket", Some(bound)), count.to_string());
                    }
                    self.series.insert(of("sum", None), format!("{:?}", point.sum.unwrap()));
                    self.series.insert(of("count", None), point.count.to_string());
                    for exemplar in &point.exemplars {
                        assert!(exemplar.time_unix_nano > point.start_time_unix_nano);
                        assert!(matches!(exemplar.value, Some(exemplar::Value::AsDouble(_))));
                        self.traces.insert(hex(&exemplar.trace_id));
                    }
                }
                "histogram"
            }
            other => panic!("none of ours is {other:?}"),
        };
        assert_eq!(self.said.insert(name.clone(), (kind.to_owned(), description)), None, "{name}");
    }

    fn numbers(&mut self, name: &str, points: &[NumberDataPoint]) {
        for point in points {
            let value = match point.value.unwrap() {
                Number::AsInt(count) => count.to_string(),
                Number::AsDouble(level) => format!("{level:?}"),
            };
            self.series.insert(of_labels(name, &point.attributes, None), value);
        }
    }
}

/// Everything that a collector was told of metrics.
fn pushes(collector: &Hearing) -> Vec<Push> {
    let heard = collector.heard();
    let of_metrics = heard.iter().filter(|heard| heard.start == "POST /v1/metrics HTTP/1.1");
    of_metrics
        .map(|heard| {
            assert_eq!(heard.header("content-type"), Some("application/x-protobuf"));
            Push::read(&heard.body)
        })
        .collect()
}

/// What `/metrics` says, and the kind and description of each metric.
fn scraped(gateway: &Gateway) -> (Series, BTreeMap<String, (String, String)>) {
    let text = gateway.call("GET", "/metrics", &[], "").text();
    let (mut series, mut said) = (Series::new(), BTreeMap::<String, (String, String)>::new());
    for line in text.lines() {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        if let ["#", what, name, words] = words[..] {
            let (kind, help) = said.entry(name.to_owned()).or_default();
            words.clone_into(if what == "HELP" { help } else { kind });
            continue;
        }
        let (of, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = of.split_once('{').unwrap_or((of, ""));
        let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
        let mut labels: Vec<_> = labels.collect();
        labels.sort_unstable_by_key(|label| (label.starts_with("le="), *label));
        series.insert(format!("{name}{{{}}}", labels.join(",")), value.to_owned());
    }
    (series, said)
}

fn lines(collector: SocketAddr) -> String {
    format!("demo = true\n[telemetry]\nmetrics = \"http://{collector}\"\n")
}

fn serving(world: &World, collector: SocketAddr, interval: &str) -> Gateway {
    world.write("onceward.toml", &lines(collector));
    world.serve_in(&[("OTEL_METRIC_EXPORT_INTERVAL", interval)])
}

fn use_it(gateway: &Gateway) {
    let traceparent = format!("00-{TRACE}-b7ad6b7169203331-01");
    for key in ["a", "a", "b"] {
        let headers = [("idempotency-key", key), ("traceparent", &traceparent)];
        let answer = gateway.call("POST", "/to/demo/orders?script=503,201", &headers, "{}");
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
}

/// How often metrics were pushed, by what became of it.
fn exports(series: &Series, result: &str) -> u64 {
    series[&format!("onceward_metric_exports_total{{result=\"{result}\"}}")].parse().unwrap()
}

#[test]
fn every_metric_arrives_as_it_is_scraped_with_its_kind_its_words_and_its_value() {
    // The push counts itself, and a disk is others' too.
    const MOVING: [&str; 2] = ["onceward_metric_exports_total{", "onceward_ledger_free_bytes{"];
    let is_still = |name: &str| !MOVING.iter().any(|moving| name.starts_with(moving));
    let (world, collector) = (World::new(), Hearing::answering(&[200]));
    let gateway = serving(&world, collector.address, "50");
    use_it(&gateway);
    let (push, series, said) = until("nothing moves", || {
        let before = scraped(&gateway).0;
        let count = pushes(&collector).len();
        // The first that comes may have been read before that.
        let mut told = until("it is pushed", || {
            Some(pushes(&collector)).filter(|told| told.len() >= count + 2)
        });
        let (after, said) = scraped(&gateway);
        let same =
            |(name, value): (&String, &String)| !is_still(name) || after.get(name) == Some(value);
        let is_same = before.len() == after.len() && before.iter().all(same);
        is_same.then(|| (told.swap_remove(count + 1), after, said))
    });
    assert_eq!(push.said, said);
    assert!(said.len() > 20, "{said:?}");
    let names = |series: &Series| series.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&push.series), names(&series));
    for (name, value) in series.iter().filter(|(name, _)| is_still(name)) {
        assert_eq!(push.series[name], *value, "{name}");
    }
    assert_eq!(series["onceward_operations_total{}"], "2");
    assert_eq!(push.traces, BTreeSet::from([TRACE.to_owned()]));
    assert_eq!(push.resource["service.name"], "onceward");
    assert_eq!(push.resource["service.instance.id"].len(), 36, "{:?}", push.resource);
}

#[test]
fn a_collector_that_is_away_costs_no_more_than_its_intervals_and_is_told_all_once_it_is_there() {
    let world = World::new();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    drop(socket);
    let gateway = serving(&world, address, "50");
    use_it(&gateway);
    let said = gateway.log.until("metrics are lost");
    assert!(said.contains(&address.to_string()), "{said}");
    until("they are counted", || (exports(&scraped(&gateway).0, "lost") >= 3).then_some(()));
    assert_eq!(exports(&scraped(&gateway).0, "sent"), 0);
    let collector = Hearing::at(address, &[200]);
    gateway.log.until("metrics are taken again");
    let told = &pushes(&collector)[0];
    assert_eq!(told.series["onceward_operations_total{}"], "2");
    assert!(exports(&told.series, "lost") >= 3);
    gateway.signal(Signal::TERM);
    let log = gateway.log.clone();
    assert!(gateway.ended().success());
    assert_eq!(log.count("metrics are lost"), 1, "it is said once");
}

#[test]
fn a_collector_that_never_answers_holds_up_neither_calls_nor_the_end() {
    let world = World::new();
    // It takes connections, and nobody reads them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = serving(&world, silent.local_addr().unwrap(), "50");
    let (_held, _) = silent.accept().unwrap();
    use_it(&gateway);
    gateway.signal(Signal::TERM);
    gateway.log.until("the last metrics are lost");
    assert!(gateway.ended().success());
}

#[test]
fn what_there_is_at_the_end_is_told_before_the_process_ends() {
    let (world, collector) = (World::new(), Hearing::answering(&[200]));
    // Nothing would be told for an hour.
    let gateway = serving(&world, collector.address, "3600000");
    use_it(&gateway);
    assert!(collector.heard().is_empty());
    gateway.signal(Signal::TERM);
    assert!(gateway.ended().success());
    let told = pushes(&collector);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].series["onceward_operations_total{}"], "2");
}

#[test]
fn a_collector_of_the_environment_is_told_by_whom_and_with_its_credentials() {
    let (world, collector) = (World::new(), Hearing::answering(&[200]));
    let base = format!("http://{}", collector.address);
    let mut environment = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", base.as_str()),
        ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "x-api-key=secret%20one"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=node-1"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "50"),
    ];
    let gateway = world.serve_in(&environment);
    let told = until("it is told", || pushes(&collector).pop());
    assert_eq!(told.resource["service.instance.id"], "node-1");
    assert_eq!(collector.heard()[0].header("x-api-key"), Some("secret one"));
    gateway.signal(Signal::TERM);
    assert!(gateway.ended().success());
    collector.forget();
    environment.push(("OTEL_METRICS_EXPORTER", "none"));
    let gateway = world.serve_in(&environment);
    gateway.signal(Signal::TERM);
    assert!(gateway.ended().success());
    assert_eq!(pushes(&collector).len(), 0);
}
