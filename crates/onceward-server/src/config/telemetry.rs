//! Where traces and metrics go, as the file says it and OpenTelemetry's own variables over it.

mod variables;

use std::fmt;
use std::time::Duration;

use onceward::core::trace::Sampling;
use url::{Position, Url};

use super::ConfigError;
use super::table::Table;
use super::words::url;

/// The part of the traces that begin here, where nothing says otherwise.
const SHARE: f64 = 0.1;

/// What stands for a trace in the URL of one.
pub(crate) const IN_URL: &str = "{trace}";

/// What is told to others of what happens here.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TelemetryConfig {
    /// Who takes traces; nothing where nobody does.
    pub(crate) traces: Option<Exporter>,
    /// Which of them are told.
    pub(crate) sampling: Sampling,
    /// Where a person looks at a trace.
    pub(crate) trace_url: Option<String>,
    /// How their spans are put together.
    pub(crate) batches: Batches,
    /// Who takes metrics; nothing where nobody does.
    pub(crate) metrics: Option<Exporter>,
    /// How often they are told.
    pub(crate) interval: Duration,
    /// Its keys of the file that OpenTelemetry's variables lie over.
    pub(crate) laid_over: Vec<&'static str>,
    /// Who tells all of it.
    pub(crate) resource: Vec<(String, String)>,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        let own = [
            ("service.name", "onceward"),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("telemetry.sdk.name", "onceward"),
            ("telemetry.sdk.language", "rust"),
            ("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
        ];
        Self {
            traces: None,
            sampling: Sampling::new(SHARE, true),
            trace_url: None,
            batches: Batches { queue: 2048, batch: 512, delay: Duration::from_secs(5) },
            metrics: None,
            interval: Duration::from_mins(1),
            laid_over: Vec::new(),
            resource: own.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        }
    }
}

/// How one kind of telemetry is told to a collector; all but its place is said by variables alone.
#[derive(Clone, PartialEq)]
pub(crate) struct Exporter {
    /// What it takes it at.
    pub(crate) url: Url,
    /// Header lines beside ours: names in lower case, and values that may be secrets.
    pub(crate) headers: Vec<(String, String)>,
    /// How long it may take.
    pub(crate) timeout: Duration,
}

impl Exporter {
    fn to(url: Url) -> Self {
        Self { url, headers: Vec::new(), timeout: Duration::from_secs(10) }
    }

    /// For people: its URL without what may be a secret.
    pub(crate) fn place(&self) -> &str {
        &self.url[..Position::BeforePath]
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

/// How spans wait for each other: variables alone say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batches {
    /// Spans that wait at most.
    pub(crate) queue: usize,
    /// Spans that are sent at once.
    pub(crate) batch: usize,
    /// How long the first one waits for others.
    pub(crate) delay: Duration,
}

/// One kind of telemetry, as OpenTelemetry calls it.
struct Signal {
    /// In the names of variables.
    name: &'static str,
    /// Where a collector takes it.
    path: &'static str,
    /// What an exporter may be by whose word nothing is sent.
    silent: &'static [&'static str],
}

const TRACES: Signal = Signal { name: "TRACES", path: "/v1/traces", silent: &["none"] };

/// Prometheus has them from `/metrics`, whatever is sent.
const METRICS: Signal =
    Signal { name: "METRICS", path: "/v1/metrics", silent: &["none", "prometheus"] };

impl Signal {
    /// The URL that a collector's base takes it at.
    fn at(&self, mut base: Url) -> Url {
        let path = base.path().trim_end_matches('/').to_owned();
        if !path.ends_with(self.path) {
            base.set_path(&format!("{path}{}", self.path));
        }
        base
    }
}

/// Reads `[telemetry]`.
pub(super) fn read(table: &Table<'_>) -> Result<TelemetryConfig, ConfigError> {
    let share = table.or("sampling", SHARE)?;
    if !(0.0..=1.0).contains(&share) {
        return Err(table.wrong("telemetry.sampling is a part of all traces: from 0 to 1"));
    }
    let told = |key, signal: &Signal| {
        table.text(key, |text| url(text).map(|base| Exporter::to(signal.at(base))))
    };
    Ok(TelemetryConfig {
        traces: told("traces", &TRACES)?,
        metrics: told("metrics", &METRICS)?,
        sampling: Sampling::new(share, true),
        trace_url: table.text("trace_url", trace_url)?,
        ..TelemetryConfig::default()
    })
}

/// Where a person looks at a trace.
fn trace_url(text: &str) -> Result<String, String> {
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let read = Url::parse(&text.replace(IN_URL, trace));
    let is_web = read.is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
    let is_one = is_web && text.contains(IN_URL);
    is_one.then(|| text.to_owned()).ok_or_else(|| {
        format!(
            "{text:?} is no URL of a trace: write \"https://traces.example.com/trace/{IN_URL}\""
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::load;
    use super::*;

    fn telemetry(lines: &str) -> Result<TelemetryConfig, String> {
        load(&format!("[telemetry]\n{lines}")).map(|read| read.telemetry)
    }

    #[test]
    fn traces_and_metrics_are_told_where_the_file_says_so() {
        assert_eq!(load("").unwrap().telemetry, TelemetryConfig::default());
        let read = telemetry("traces = \"http://127.0.0.1:4318/\"").unwrap();
        assert_eq!(read.traces.unwrap().url.as_str(), "http://127.0.0.1:4318/v1/traces");
        assert_eq!(read.sampling, Sampling::new(SHARE, true));
        let whole = telemetry("traces = \"https://a.example/otlp/v1/traces\"").unwrap();
        assert_eq!(whole.traces.unwrap().url.as_str(), "https://a.example/otlp/v1/traces");
        let read = telemetry("metrics = \"http://127.0.0.1:4318/otlp\"").unwrap();
        assert_eq!(read.metrics.unwrap().url.as_str(), "http://127.0.0.1:4318/otlp/v1/metrics");
        assert_eq!(read.traces, None, "each is told by itself");
        telemetry("trace_url = \"https://a.example/trace/{trace}\"").unwrap();
        for (lines, why) in [
            ("sampling = 2.0", "from 0 to 1"),
            ("traces = \"collector:4318\"", "not an http or https URL"),
            ("metrics = \"collector:4318\"", "not an http or https URL"),
            ("trace_url = \"https://a.example/\"", "{trace}"),
            ("trace_url = \"javascript:alert('{trace}')\"", "no URL of a trace"),
            ("trace = 1", "trace"),
        ] {
            let said = telemetry(lines).unwrap_err();
            assert!(said.contains(why), "{lines}: {said}");
        }
    }
}
