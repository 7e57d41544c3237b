//! Every metric, named once: what `/metrics` serves, what docs/metrics.md lists, and what alerts and
//! the dashboards may name.

mod series;
mod text;

use std::sync::LazyLock;
use std::time::SystemTime;

use self::series::{Gauge, Histogram};
use self::text::Page;

#[cfg(test)]
pub(super) use self::series::Bucket;
pub(crate) use self::series::{Counter, Counters, Gauges, Histograms};
pub(super) use self::series::{Exemplar, Labels, Spread, Value};

/// The process's metrics.
pub(crate) static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// Bounds in seconds: those of OpenTelemetry's HTTP metrics, and more for answers that take minutes.
const BOUNDS: [f64; 17] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 120.0,
    600.0,
];

/// The same for what a disk does.
const QUICK_BOUNDS: [f64; 14] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];

/// How a metric moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// What is said of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) kind: Kind,
    /// As it is scraped, and as it is pushed.
    pub(crate) name: &'static str,
    /// For docs/metrics.md, which a test makes.
    #[cfg(test)]
    pub(crate) labels: &'static [&'static str],
    /// A sentence without its dot.
    pub(crate) help: &'static str,
}

/// What the series of a metric have at a moment.
pub(super) type Series = Vec<(Labels, Value)>;

macro_rules! metrics {
    ($($kind:ident $field:ident $name:literal {$($label:literal),*} $help:literal)*) => {
        /// All of them, each with its labels.
        #[derive(Debug)]
        pub(crate) struct Metrics {
            /// Since when is counted.
            pub(super) begun: SystemTime,
            $(pub(crate) $field: metrics!(@type $kind),)*
        }

        /// What is said of each.
        pub(crate) const TABLE: &[Row] = &[$(Row {
            kind: metrics!(@kind $kind),
            name: $name,
            #[cfg(test)]
            labels: &[$($label),*],
            help: $help,
        }),*];

        impl Metrics {
            fn new() -> Self {
                Self { begun: SystemTime::now(), $($field: metrics!(@new $kind)),* }
            }

            /// All that have a series, and what these have now.
            pub(super) fn read(&self) -> Vec<(&'static Row, Series)> {
                let all = TABLE.iter().zip([$(self.$field.read()),*]);
                all.filter(|(_, series)| !series.is_empty()).collect()
            }
        }
    };
    (@kind counter) => { Kind::Counter };
    (@kind gauge) => { Kind::Gauge };
    (@kind histogram) => { Kind::Histogram };
    (@kind quick) => { Kind::Histogram };
    (@type counter) => { Counters };
    (@type gauge) => { Gauges };
    (@type histogram) => { Histograms };
    (@type quick) => { Histograms };
    (@new counter) => { Counters::new(Counter::default) };
    (@new gauge) => { Gauges::new(Gauge::default) };
    (@new histogram) => { Histograms::new(|| Histogram::new(&BOUNDS)) };
    (@new quick) => { Histograms::new(|| Histogram::new(&QUICK_BOUNDS)) };
}

metrics! {
    gauge build "onceward_build_info" {"version"} "Always 1: which release runs"
    counter operations "onceward_operations_total" {} "Operations remembered: each a key that was made or came first"
    counter duplicates "onceward_duplicates_total" {"answer"} "Calls whose key was known, by what they got: replayed, joined, refused, mismatch, late or revived"
    counter late_duplicates "onceward_late_duplicates_total" {"route"} "Calls whose key's window was over"
    counter superseded "onceward_superseded_total" {} "Operations that were not sent because a newer one about the same was done"
    counter suspected "onceward_suspected_doubles_total" {"route"} "New operations with the request of another one, under another key"
    counter rested "onceward_rested_total" {"state"} "Operations that came to rest: done, dead or in doubt"
    counter recovered "onceward_recovered_total" {} "Operations that were done after more than one attempt"
    counter dead_letters "onceward_dead_letters_total" {"route", "reason"} "Operations that died and whose caller was told nothing: refused, exhausted, unsent or cancelled"
    counter keys "onceward_keys_total" {"event"} "Keys whose window or tombstone ended (expired, removed), and those that a person gave free (forgotten), had refused from then on (invalidated), extended or rotated"
    counter attempts "onceward_attempts_total" {"ending"} "Attempts, by how they ended: answered, truncated, unsent or unanswered"
    histogram attempt_seconds "onceward_attempt_duration_seconds" {"route", "ending"} "How long attempts took, from their start to the end of the answer"
    histogram operation_seconds "onceward_operation_duration_seconds" {"mode", "state"} "How long operations took, from arrival until they came to rest"
    counter leases_lost "onceward_leases_lost_total" {} "Operations whose node was gone or taken for gone, by the node that decided what follows"
    counter claims "onceward_claims_total" {"event"} "Claims, by what somebody did to them or learnt"
    counter sagas "onceward_sagas_total" {"state"} "Sagas, by where they came to stand: running, in_doubt, paused, unwinding, stuck, done or unwound"
    gauge sagas_open "onceward_sagas_open" {"state"} "Sagas that have not ended, by where they stand; of more than 10,000 each look counts 10,000 anew"
    counter faults "onceward_chaos_faults_total" {"fault"} "Faults on purpose that attempts met, by kind"
    counter breaker_opened "onceward_breaker_opened_total" {"route"} "Times that a breaker opened"
    gauge breaker "onceward_breaker_state" {"route"} "The breaker of a route: 0 closed, 1 half-open, 2 open"
    gauge paused "onceward_route_paused" {"route"} "Whether a person paused the route"
    gauge under_way "onceward_calls_under_way" {"route"} "Calls to a route's upstream under way"
    counter lookups "onceward_lookups_total" {"finding"} "Times that an upstream was asked what became of an operation, by what it knew"
    gauge differences "onceward_reconcile_differences" {"route", "kind"} "What did not agree with the provider's list the last time: missing, unknown or differing"
    counter webhooks "onceward_webhooks_total" {"source", "result"} "Webhooks that were verified, by what became of them"
    counter webhooks_rejected "onceward_webhooks_rejected_total" {"source", "reason"} "Webhooks that were refused"
    counter webhooks_unavailable "onceward_webhooks_unavailable_total" {"source", "reason"} "Webhooks that could not be taken when they came"
    counter webhooks_resolved "onceward_webhooks_resolved_total" {"source"} "Operations in doubt that a webhook ended"
    counter events "onceward_events_total" {} "Events that were published"
    counter deliveries "onceward_deliveries_total" {"state"} "Deliveries of events to subscriptions that came to rest: done or dead"
    gauge subscriptions "onceward_subscriptions" {"state"} "Subscriptions by how they are: active, failing, paused or disabled"
    counter outbox_rows "onceward_outbox_rows_total" {"outbox", "result"} "Rows of an outbox, by what became of them: remembered, duplicate or parked"
    gauge outbox_lag "onceward_outbox_lag_seconds" {"outbox"} "Age of the oldest row of an outbox that is not remembered; while it cannot be read, at least the time since it was"
    gauge outbox_parked "onceward_outbox_parked" {"outbox"} "Rows of an outbox that can never become a call"
    gauge outbox_reading "onceward_outbox_reading" {"outbox"} "Whether this node reads an outbox: 0 where it fails, or another node does"
    counter spans "onceward_spans_total" {"result"} "Spans of traces, by what became of them: sent or lost"
    counter exports "onceward_metric_exports_total" {"result"} "Metrics over OTLP, by what became of each time that they were pushed: sent or lost"
    gauge standing "onceward_operations_standing" {"standing"} "Operations in the ledger that are not done, by where they stand"
    gauge oldest_due "onceward_oldest_due_seconds" {} "For how long accepted work has been due that is not sent, at most; 0 where none is"
    gauge in_doubt_age "onceward_in_doubt_age_seconds" {} "For how long what is in doubt has been known, at most; 0 where nothing is"
    gauge keys_kept "onceward_keys_kept" {} "Keys of what came to rest whose outcome is kept: an estimate, to the hour"
    gauge keys_expiring "onceward_keys_expiring" {} "Of those: whose window is over within 24 hours"
    gauge tombstones "onceward_tombstones" {} "Keys whose window is over and whose mark is kept: an estimate, to the hour"
    quick commit_seconds "onceward_ledger_commit_seconds" {} "How long durable writes took, each for a group"
    gauge ledger_free "onceward_ledger_free_bytes" {} "Room that is left on the disk of an embedded ledger"
    gauge ledger_bytes "onceward_ledger_bytes" {} "The ledger's size on disk"
    gauge ledger_commits "onceward_ledger_commits" {} "Durable writes since the start, each for a group"
}

impl Metrics {
    /// In OpenMetrics where it `is_open`, with exemplars; else in the format of Prometheus before that.
    /// Tells its content type.
    pub(crate) fn render(&self, is_open: bool) -> (&'static str, String) {
        let content_type = if is_open { text::OPEN } else { text::PLAIN };
        (content_type, Page { metrics: self.read(), is_open }.to_string())
    }
}

impl Row {
    /// What its numbers are in, by the name and in UCUM; nothing of what is counted.
    pub(super) fn unit(&self) -> &'static str {
        match self.name.rsplit('_').next() {
            Some("seconds") => "s",
            Some("bytes") => "By",
            _ => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use super::*;
    use crate::generated;

    const PAGE: &str = "docs/metrics.md";
    const BEGIN: &str = "<!-- metrics: written by `cargo xtask metrics` -->\n";
    const END: &str = "<!-- /metrics -->\n";

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    #[test]
    fn each_metric_says_its_unit_in_its_name_and_is_named_once() {
        // A family of OpenMetrics is named without what its counter ends in.
        let family = |row: &Row| row.name.strip_suffix("_total").unwrap_or(row.name);
        let mut names: Vec<_> = TABLE.iter().map(family).collect();
        for row in TABLE {
            let Row { kind, name, help, .. } = row;
            assert!(name.starts_with("onceward_"), "{name}");
            assert_eq!(*kind == Kind::Counter, name.ends_with("_total"), "{name}");
            assert!(*kind != Kind::Histogram || name.ends_with("_seconds"), "{name}");
            assert!(!help.is_empty() && !help.ends_with('.'), "{name}: the dot is added");
            assert!(!help.contains(['\\', '\n']), "{name}: nothing of it is escaped");
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TABLE.len());
    }

    /// What Prometheus makes of a name that comes by OTLP (prometheus/otlptranslator, with suffixes): its words,
    /// the unit where it is none of them, and at the end what it is of.
    fn in_prometheus(row: &Row) -> String {
        let mut words: Vec<_> = row.name.split('_').collect();
        let unit = match row.unit() {
            "s" => Some("seconds"),
            "By" => Some("bytes"),
            "" => None,
            other => panic!("Prometheus would put {other} behind {}", row.name),
        };
        words.extend(unit.filter(|unit| !row.name.split('_').any(|word| word == *unit)));
        if row.kind == Kind::Counter {
            words.retain(|word| *word != "total");
            words.push("total");
        }
        words.join("_")
    }

    #[test]
    fn a_metric_that_is_pushed_is_called_in_prometheus_as_one_that_is_scraped() {
        for row in TABLE {
            assert_eq!(in_prometheus(row), row.name);
        }
    }

    #[test]
    fn the_page_of_the_metrics_has_them_all() {
        let mut table = "| metric | kind | labels | what |\n| --- | --- | --- | --- |\n".to_owned();
        for Row { kind, name, labels, help } in TABLE {
            let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
            let (kind, labels) = (kind.name(), labels.join(", "));
            writeln!(table, "| `{name}` | {kind} | {labels} | {help} |").unwrap();
        }
        let wanted = generated::between(&generated::text(PAGE), BEGIN, END, &table);
        generated::hold(PAGE, &wanted);
    }

    /// The names of ours that a text has, without what a histogram's series end in.
    fn named(text: &str) -> Vec<&str> {
        let is_of_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let words = text.split(|letter| !is_of_name(letter));
        let ours = words.filter(|word| word.starts_with("onceward_"));
        ours.map(|word| {
            let endings = ["_bucket", "_count", "_sum"];
            endings.iter().find_map(|ending| word.strip_suffix(ending)).unwrap_or(word)
        })
        .collect()
    }

    #[test]
    fn alerts_and_dashboards_name_only_metrics_that_there_are() {
        let mut seen = 0;
        for file in ["prometheus/alerts.yml", "prometheus/alerts_test.yml", "grafana/onceward.json"]
        {
            let text = fs::read_to_string(root().join("deploy").join(file)).unwrap();
            for name in named(&text) {
                assert!(TABLE.iter().any(|row| row.name == name), "{file} names {name}");
                seen += 1;
            }
        }
        assert!(seen > 40, "{seen}");
    }

    #[test]
    fn every_alert_leads_to_a_page_of_its_own() {
        let alerts = fs::read_to_string(root().join("deploy/prometheus/alerts.yml")).unwrap();
        let names: Vec<_> =
            alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
        assert!(names.len() >= 10, "{names:?}");
        for name in names {
            let place = format!("docs/on-call/{name}.md");
            assert!(root().join(&place).is_file(), "{place}");
            assert!(alerts.contains(&format!("runbook_url: {place}\n")), "{place}");
            assert!(
                generated::text("docs/alerts.md").contains(&format!("(on-call/{name}.md)")),
                "{name}"
            );
        }
    }

    #[test]
    fn both_formats_have_every_series_and_openmetrics_the_exemplars() {
        let metrics = Metrics::new();
        let series = metrics.attempt_seconds.of([("route", "r\"\n"), ("ending", "answered")]);
        let trace = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c;
        series.observe(Duration::from_millis(60), Some(trace));
        metrics.operations.of([]).inc();
        let (_, plain) = metrics.render(false);
        assert!(plain.contains("\nonceward_operations_total 1\n"), "{plain}");
        assert!(plain.contains("# TYPE onceward_operations_total counter"), "{plain}");
        assert!(!plain.contains("0af7651916cd43dd8448eb211c80319c"), "{plain}");
        let bucket = "onceward_attempt_duration_seconds_bucket{route=\"r\\\"\\n\",ending=\"answered\",le=\"0.075\"} 1";
        assert!(plain.contains(bucket), "{plain}");
        let (content_type, open) = metrics.render(true);
        assert!(content_type.starts_with("application/openmetrics-text"));
        let exemplar = "} 1 # {trace_id=\"0af7651916cd43dd8448eb211c80319c\"} 0.06";
        assert!(open.contains(exemplar) && open.ends_with("# EOF\n"), "{open}");
    }
}
