//! Where traces go and how many of them, as the file says it and OpenTelemetry's own variables over it.

use std::fmt::{self, Display};
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use onceward::core::trace::Sampling;
use percent_encoding::percent_decode_str;
use url::Url;

use super::ConfigError;
use super::table::Table;
use super::words::url;

/// The part of the traces that begin here, where nothing says otherwise.
const SHARE: f64 = 0.1;

/// Where a collector listens on this machine.
const COLLECTOR: &str = "http://localhost:4318";

/// Where a collector takes traces.
const TRACES: &str = "/v1/traces";

/// Who tells traces, beside a service's name.
const RESOURCE: &str = "OTEL_RESOURCE_ATTRIBUTES";

/// What stands for a trace in the URL of one.
pub(crate) const IN_URL: &str = "{trace}";

/// What is told to others of what happens here.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TelemetryConfig {
    /// The URL that takes traces; nothing where nobody does.
    pub(crate) traces: Option<Url>,
    /// Which of them are told.
    pub(crate) sampling: Sampling,
    /// Where a person looks at a trace.
    pub(crate) trace_url: Option<String>,
    /// How they are told.
    pub(crate) exporter: Exporter,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            traces: None,
            sampling: Sampling::new(SHARE, true),
            trace_url: None,
            exporter: Exporter::default(),
        }
    }
}

/// How spans are told: the variables of OpenTelemetry alone say it.
#[derive(Clone, PartialEq)]
pub(crate) struct Exporter {
    /// Header lines beside ours: names in lower case, and values that may be secrets.
    pub(crate) headers: Vec<(String, String)>,
    /// Who tells them.
    pub(crate) resource: Vec<(String, String)>,
    /// Spans that wait at most.
    pub(crate) queue: usize,
    /// Spans that are sent at once.
    pub(crate) batch: usize,
    /// How long the first one waits for others.
    pub(crate) delay: Duration,
    /// How long a collector may take.
    pub(crate) timeout: Duration,
}

impl Default for Exporter {
    fn default() -> Self {
        let own = [
            ("service.name", "onceward"),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("telemetry.sdk.name", "onceward"),
            ("telemetry.sdk.language", "rust"),
            ("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
        ];
        Self {
            headers: Vec::new(),
            resource: own.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            queue: 2048,
            batch: 512,
            delay: Duration::from_secs(5),
            timeout: Duration::from_secs(10),
        }
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").field("resource", &self.resource).finish_non_exhaustive()
    }
}

/// Reads `[telemetry]`.
pub(super) fn read(table: &Table<'_>) -> Result<TelemetryConfig, ConfigError> {
    let share = table.or("sampling", SHARE)?;
    if !(0.0..=1.0).contains(&share) {
        return Err(table.wrong("telemetry.sampling is a part of all traces: from 0 to 1"));
    }
    Ok(TelemetryConfig {
        traces: table.text("traces", |text| url(text).map(taking_traces))?,
        sampling: Sampling::new(share, true),
        trace_url: table.text("trace_url", trace_url)?,
        exporter: Exporter::default(),
    })
}

fn wrong(name: &str, why: &dyn Display) -> ConfigError {
    ConfigError(format!("the environment: {name}: {why}"))
}

impl Exporter {
    /// Lays the variables over it.
    fn lay_over(&mut self, said: &impl Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
        let number = |name: &str, least: u64| {
            let Some(text) = said(name) else { return Ok(None) };
            let read = text.trim().parse().ok().filter(|number| *number >= least);
            let why = || wrong(name, &format!("{text:?} is no number from {least}"));
            read.map(Some).ok_or_else(why)
        };
        if let Some(most) = number("OTEL_BSP_MAX_QUEUE_SIZE", 1)? {
            self.queue = most as usize;
        }
        if let Some(most) = number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 1)? {
            self.batch = most as usize;
        }
        if let Some(millis) = number("OTEL_BSP_SCHEDULE_DELAY", 0)? {
            self.delay = Duration::from_millis(millis);
        }
        let names = ["OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"];
        for name in names {
            if let Some(millis) = number(name, 1)? {
                self.timeout = Duration::from_millis(millis);
            }
        }
        for name in ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"] {
            if let Some(text) = said(name) {
                self.headers = pairs(name, &text)?;
                for (header, value) in &mut self.headers {
                    header.make_ascii_lowercase();
                    let is_fit = HeaderName::from_bytes(header.as_bytes()).is_ok()
                        && HeaderValue::from_str(value).is_ok();
                    if !is_fit {
                        return Err(wrong(
                            name,
                            &format!("{header:?} is no header, or its value none"),
                        ));
                    }
                }
            }
        }
        if let Some(text) = said(RESOURCE) {
            for (name, value) in pairs(RESOURCE, &text)? {
                self.name(name, value);
            }
        }
        if let Some(name) = said("OTEL_SERVICE_NAME") {
            self.name("service.name".to_owned(), name);
        }
        Ok(())
    }

    fn name(&mut self, name: String, value: String) {
        self.resource.retain(|(other, _)| *other != name);
        self.resource.push((name, value));
    }
}

/// Reads `name=value,…`, values in percent-encoding, as OpenTelemetry has it of W3C Baggage.
fn pairs(variable: &str, text: &str) -> Result<Vec<(String, String)>, ConfigError> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let read = |part: &str| {
        let (name, value) = part.split_once('=').filter(|(name, _)| !name.trim().is_empty())?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        Some((name.trim().to_owned(), value.into_owned()))
    };
    // What cannot be read may be a secret, and is not told.
    let why = || wrong(variable, &"it is no list as name=value,name=value");
    parts.map(|part| read(part).ok_or_else(why)).collect()
}

/// The URL that a collector's base takes traces at.
fn taking_traces(mut base: Url) -> Url {
    let path = base.path().trim_end_matches('/').to_owned();
    if !path.ends_with(TRACES) {
        base.set_path(&format!("{path}{TRACES}"));
    }
    base
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

impl TelemetryConfig {
    /// Lays the variables that OpenTelemetry has for all programs over it.
    pub(super) fn lay_over(
        &mut self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<(), ConfigError> {
        let said = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let exporter = said("OTEL_TRACES_EXPORTER");
        let exporter = exporter.as_deref().map(str::trim);
        let is_disabled = said("OTEL_SDK_DISABLED");
        if exporter == Some("none")
            || is_disabled.is_some_and(|it| it.trim().eq_ignore_ascii_case("true"))
        {
            self.traces = None;
            return Ok(());
        }
        let place = |name: &'static str| {
            let read = |text: String| url(text.trim()).map_err(|why| wrong(name, &why));
            said(name).map(read).transpose()
        };
        if let Some(base) = place("OTEL_EXPORTER_OTLP_ENDPOINT")? {
            self.traces = Some(taking_traces(base));
        }
        if let Some(whole) = place("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")? {
            self.traces = Some(whole);
        }
        if exporter == Some("otlp") && self.traces.is_none() {
            self.traces = url(COLLECTOR).ok().map(taking_traces);
        }
        // The rest may be there for other programs.
        if self.traces.is_none() {
            return Ok(());
        }
        if let Some(other) = exporter.filter(|exporter| *exporter != "otlp") {
            let why = format!("{other:?} is none of otlp, none");
            return Err(wrong("OTEL_TRACES_EXPORTER", &why));
        }
        self.exporter.lay_over(&said)?;
        let share = match said("OTEL_TRACES_SAMPLER_ARG") {
            Some(text) => {
                let share = text.trim().parse().ok().filter(|share| (0.0..=1.0).contains(share));
                Some(share.ok_or_else(|| {
                    let why = format!("{text:?} is no part of all traces: from 0 to 1");
                    wrong("OTEL_TRACES_SAMPLER_ARG", &why)
                })?)
            }
            None => None,
        };
        let Some(sampler) = said("OTEL_TRACES_SAMPLER") else { return Ok(()) };
        let sampler = sampler.trim();
        let (root, follows_callers) = match sampler.strip_prefix("parentbased_") {
            Some(root) => (root, true),
            None => (sampler, false),
        };
        let share = match root {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => share.unwrap_or(1.0),
            _ => {
                let why = format!(
                    "{sampler:?} is none of always_on, always_off, traceidratio, and these behind parentbased_"
                );
                return Err(wrong("OTEL_TRACES_SAMPLER", &why));
            }
        };
        self.sampling = Sampling::new(share, follows_callers);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::load;
    use super::*;

    fn telemetry(lines: &str) -> Result<TelemetryConfig, String> {
        load(&format!("[telemetry]\n{lines}")).map(|read| read.telemetry)
    }

    fn under(variables: &[(&str, &str)]) -> Result<TelemetryConfig, String> {
        let mut read = telemetry("traces = \"http://127.0.0.1:1\"\nsampling = 0.5").unwrap();
        let variable = |name: &str| {
            let found = variables.iter().find(|(own, _)| *own == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        read.lay_over(variable).map_err(|error| error.to_string()).map(|()| read)
    }

    #[test]
    fn traces_are_told_where_the_file_says_so() {
        assert_eq!(load("").unwrap().telemetry, TelemetryConfig::default());
        let read = telemetry("traces = \"http://127.0.0.1:4318/\"").unwrap();
        assert_eq!(read.traces.unwrap().as_str(), "http://127.0.0.1:4318/v1/traces");
        assert_eq!(read.sampling, Sampling::new(SHARE, true));
        let whole = telemetry("traces = \"https://a.example/otlp/v1/traces\"").unwrap();
        assert_eq!(whole.traces.unwrap().as_str(), "https://a.example/otlp/v1/traces");
        telemetry("trace_url = \"https://a.example/trace/{trace}\"").unwrap();
        for (lines, why) in [
            ("sampling = 2.0", "from 0 to 1"),
            ("traces = \"collector:4318\"", "not an http or https URL"),
            ("trace_url = \"https://a.example/\"", "{trace}"),
            ("trace_url = \"javascript:alert('{trace}')\"", "no URL of a trace"),
            ("trace = 1", "trace"),
        ] {
            let said = telemetry(lines).unwrap_err();
            assert!(said.contains(why), "{lines}: {said}");
        }
    }

    #[test]
    fn the_variables_of_opentelemetry_have_the_last_word() {
        let traces = |variables: &[(&str, &str)]| {
            under(variables).unwrap().traces.map(|url| url.as_str().to_owned())
        };
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318");
        let whole = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://b/t");
        assert_eq!(traces(&[]).as_deref(), Some("http://127.0.0.1:1/v1/traces"));
        assert_eq!(traces(&[base]).as_deref(), Some("http://a:4318/v1/traces"));
        assert_eq!(traces(&[base, whole]).as_deref(), Some("http://b/t"));
        assert_eq!(traces(&[base, ("OTEL_TRACES_EXPORTER", "none")]), None);
        assert_eq!(traces(&[base, ("OTEL_SDK_DISABLED", "true")]), None);
        let mut alone = TelemetryConfig::default();
        alone.lay_over(|name| (name == "OTEL_TRACES_EXPORTER").then(|| "otlp".to_owned())).unwrap();
        assert_eq!(alone.traces.unwrap().as_str(), "http://localhost:4318/v1/traces");
        let sampling = |sampler, share| {
            let said = [("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", share)];
            under(&said).unwrap().sampling
        };
        assert_eq!(sampling("", ""), Sampling::new(0.5, true));
        assert_eq!(sampling("always_on", ""), Sampling::new(1.0, false));
        assert_eq!(sampling("parentbased_always_off", ""), Sampling::new(0.0, true));
        assert_eq!(sampling("parentbased_traceidratio", "0.25"), Sampling::new(0.25, true));
        for (name, value) in [
            ("OTEL_TRACES_SAMPLER", "xray"),
            ("OTEL_TRACES_SAMPLER_ARG", "7"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "a:4318"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "secret"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a b=secret"),
            ("OTEL_RESOURCE_ATTRIBUTES", "=secret"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_BSP_SCHEDULE_DELAY", "5s"),
        ] {
            let said = under(&[(name, value)]).unwrap_err();
            assert!(said.contains(name) && !said.contains("secret"), "{said}");
        }
    }

    #[test]
    fn variables_for_other_programs_are_not_looked_at_where_nothing_is_told() {
        let others = [
            ("OTEL_TRACES_SAMPLER", "xray"),
            ("OTEL_TRACES_SAMPLER_ARG", "endpoint=http://a:1"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "secret"),
            ("OTEL_BSP_SCHEDULE_DELAY", "5s"),
        ];
        let taken = |mut read: TelemetryConfig, more: &[(&str, &str)]| {
            let all = [&others[..], more].concat();
            let of = |name: &str| all.iter().find(|(own, _)| *own == name);
            let laid = read.lay_over(|name| of(name).map(|(_, value)| (*value).to_owned()));
            laid.map(|()| read).map_err(|error| error.to_string())
        };
        let told = || telemetry("traces = \"http://127.0.0.1:1\"").unwrap();
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "a:4318");
        for (read, more) in [
            (TelemetryConfig::default(), &[][..]),
            (TelemetryConfig::default(), &[("OTEL_TRACES_EXPORTER", "otlp,console")]),
            (told(), &[("OTEL_SDK_DISABLED", "true"), endpoint]),
            (told(), &[("OTEL_TRACES_EXPORTER", "none"), endpoint]),
        ] {
            assert_eq!(taken(read, more), Ok(TelemetryConfig::default()), "{more:?}");
        }
        assert!(taken(told(), &[]).is_err());
        assert!(taken(TelemetryConfig::default(), &[endpoint]).is_err(), "it says that they are");
    }

    #[test]
    fn how_spans_are_told_is_said_by_variables() {
        let exporter = |variables: &[(&str, &str)]| under(variables).unwrap().exporter;
        assert_eq!(exporter(&[]), Exporter::default());
        let said = exporter(&[
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-other=1"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", " X-Api-Key = a%20b ,c=d=e,"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=one,deployment.environment.name=a%2Cb"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "16"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "9"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "7"),
        ]);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(said.headers, [pair("x-api-key", "a b"), pair("c", "d=e")]);
        assert_eq!((said.queue, said.timeout), (16, Duration::from_millis(7)));
        assert!(said.resource.contains(&pair("service.name", "one")));
        assert!(said.resource.contains(&pair("deployment.environment.name", "a,b")));
        let both = [("OTEL_SERVICE_NAME", "two"), ("OTEL_RESOURCE_ATTRIBUTES", "service.name=one")];
        let told = exporter(&both).resource;
        let told: Vec<_> = told.iter().filter(|(name, _)| name == "service.name").collect();
        assert_eq!(told, [&pair("service.name", "two")]);
    }
}
