//! The variables that OpenTelemetry has for all programs, laid over what the file says.

use std::fmt::Display;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use onceward::core::trace::Sampling;
use percent_encoding::percent_decode_str;
use url::Url;

use super::{ConfigError, Exporter, METRICS, Signal, TRACES, TelemetryConfig, url};

/// Where a collector listens on this machine.
const COLLECTOR: &str = "http://localhost:4318";

/// Who tells it, beside a service's name.
const RESOURCE: &str = "OTEL_RESOURCE_ATTRIBUTES";

/// What the environment has under a name; blank is nothing.
type Said<'a> = &'a dyn Fn(&str) -> Option<String>;

fn wrong(name: &str, why: &dyn Display) -> ConfigError {
    ConfigError(format!("the environment: {name}: {why}"))
}

fn number(said: Said<'_>, name: &str, least: u64) -> Result<Option<u64>, ConfigError> {
    let Some(text) = said(name) else { return Ok(None) };
    let read = text.trim().parse().ok().filter(|number| *number >= least);
    let why = || wrong(name, &format!("{text:?} is no number from {least}"));
    read.map(Some).ok_or_else(why)
}

fn place(said: Said<'_>, name: &str) -> Result<Option<Url>, ConfigError> {
    let read = |text: String| url(text.trim()).map_err(|why| wrong(name, &why));
    said(name).map(read).transpose()
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

fn headers(variable: &str, text: &str) -> Result<Vec<(String, String)>, ConfigError> {
    let mut headers = pairs(variable, text)?;
    for (header, value) in &mut headers {
        header.make_ascii_lowercase();
        let is_fit = HeaderName::from_bytes(header.as_bytes()).is_ok()
            && HeaderValue::from_str(value).is_ok();
        if !is_fit {
            return Err(wrong(variable, &format!("{header:?} is no header, or its value none")));
        }
    }
    Ok(headers)
}

impl Signal {
    /// Lays the variables about it over what the file says of it.
    fn lay_over(&self, told: &mut Option<Exporter>, said: Said<'_>) -> Result<(), ConfigError> {
        let exporter = format!("OTEL_{}_EXPORTER", self.name);
        let by = said(&exporter);
        let by = by.as_deref().map(str::trim);
        if by.is_some_and(|by| self.silent.contains(&by)) {
            *told = None;
            return Ok(());
        }
        let both = |what: &str| {
            let own = format!("OTEL_EXPORTER_OTLP_{}_{what}", self.name);
            [format!("OTEL_EXPORTER_OTLP_{what}"), own]
        };
        let [base, whole] = both("ENDPOINT");
        let base = place(said, &base)?.map(|base| self.at(base));
        if let Some(url) = place(said, &whole)?.or(base) {
            *told = Some(Exporter::to(url));
        }
        if by == Some("otlp") && told.is_none() {
            *told = url(COLLECTOR).ok().map(|base| Exporter::to(self.at(base)));
        }
        // The rest may be there for other programs.
        let Some(told) = told else { return Ok(()) };
        if let Some(other) = by.filter(|by| *by != "otlp") {
            let why = format!("{other:?} is none of otlp, {}", self.silent.join(", "));
            return Err(wrong(&exporter, &why));
        }
        for name in both("TIMEOUT") {
            if let Some(millis) = number(said, &name, 1)? {
                told.timeout = Duration::from_millis(millis);
            }
        }
        for name in both("HEADERS") {
            if let Some(text) = said(&name) {
                told.headers = headers(&name, &text)?;
            }
        }
        Ok(())
    }
}

impl TelemetryConfig {
    /// Lays the variables over it, and notes which of its keys they say.
    pub(in crate::config) fn lay_over(
        &mut self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<(), ConfigError> {
        let of_file = self.clone();
        self.heed(&|name| variable(name).filter(|value| !value.trim().is_empty()))?;
        let url = |to: &Option<Exporter>| to.as_ref().map(|to| to.url.clone());
        let is_other = [
            ("traces", url(&of_file.traces) != url(&self.traces)),
            ("metrics", url(&of_file.metrics) != url(&self.metrics)),
            ("sampling", of_file.sampling != self.sampling),
        ];
        self.laid_over =
            is_other.into_iter().filter_map(|(key, is_other)| is_other.then_some(key)).collect();
        Ok(())
    }

    fn heed(&mut self, said: Said<'_>) -> Result<(), ConfigError> {
        if said("OTEL_SDK_DISABLED").is_some_and(|it| it.trim().eq_ignore_ascii_case("true")) {
            (self.traces, self.metrics) = (None, None);
            return Ok(());
        }
        TRACES.lay_over(&mut self.traces, said)?;
        METRICS.lay_over(&mut self.metrics, said)?;
        if self.traces.is_some() {
            self.lay_over_batches(said)?;
            self.lay_over_sampling(said)?;
        }
        if self.metrics.is_some()
            && let Some(millis) = number(said, "OTEL_METRIC_EXPORT_INTERVAL", 1)?
        {
            self.interval = Duration::from_millis(millis);
        }
        if self.traces.is_some() || self.metrics.is_some() {
            self.lay_over_resource(said)?;
        }
        Ok(())
    }

    fn lay_over_batches(&mut self, said: Said<'_>) -> Result<(), ConfigError> {
        if let Some(most) = number(said, "OTEL_BSP_MAX_QUEUE_SIZE", 1)? {
            self.batches.queue = most as usize;
        }
        if let Some(most) = number(said, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 1)? {
            self.batches.batch = most as usize;
        }
        if let Some(millis) = number(said, "OTEL_BSP_SCHEDULE_DELAY", 0)? {
            self.batches.delay = Duration::from_millis(millis);
        }
        Ok(())
    }

    fn lay_over_resource(&mut self, said: Said<'_>) -> Result<(), ConfigError> {
        let mut named = match said(RESOURCE) {
            Some(text) => pairs(RESOURCE, &text)?,
            None => Vec::new(),
        };
        named.extend(said("OTEL_SERVICE_NAME").map(|name| ("service.name".to_owned(), name)));
        for (name, value) in named {
            self.resource.retain(|(other, _)| *other != name);
            self.resource.push((name, value));
        }
        Ok(())
    }

    fn lay_over_sampling(&mut self, said: Said<'_>) -> Result<(), ConfigError> {
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
    use super::super::super::tests::load;
    use super::super::Batches;
    use super::*;

    fn under(variables: &[(&str, &str)]) -> Result<TelemetryConfig, String> {
        let lines = "[telemetry]\ntraces = \"http://127.0.0.1:1\"\nsampling = 0.5";
        let mut read = load(lines).unwrap().telemetry;
        let variable = |name: &str| {
            let found = variables.iter().find(|(own, _)| *own == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        read.lay_over(variable).map_err(|error| error.to_string()).map(|()| read)
    }

    fn url_of(told: Option<Exporter>) -> Option<String> {
        told.map(|told| told.url.into())
    }

    #[test]
    fn the_variables_of_opentelemetry_have_the_last_word() {
        let traces = |variables: &[(&str, &str)]| url_of(under(variables).unwrap().traces);
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318");
        let whole = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://b/t");
        assert_eq!(traces(&[]).as_deref(), Some("http://127.0.0.1:1/v1/traces"));
        assert_eq!(traces(&[base]).as_deref(), Some("http://a:4318/v1/traces"));
        assert_eq!(traces(&[base, whole]).as_deref(), Some("http://b/t"));
        assert_eq!(traces(&[base, ("OTEL_TRACES_EXPORTER", "none")]), None);
        assert_eq!(traces(&[base, ("OTEL_SDK_DISABLED", "true")]), None);
        let mut alone = TelemetryConfig::default();
        alone.lay_over(|name| (name == "OTEL_TRACES_EXPORTER").then(|| "otlp".to_owned())).unwrap();
        assert_eq!(url_of(alone.traces).unwrap(), "http://localhost:4318/v1/traces");
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
            ("OTEL_TRACES_EXPORTER", "prometheus"),
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
            ("OTEL_METRICS_EXPORTER", "console"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "secret"),
            ("OTEL_RESOURCE_ATTRIBUTES", "=secret"),
            ("OTEL_BSP_SCHEDULE_DELAY", "5s"),
        ];
        let taken = |file: &str, more: &[(&str, &str)]| {
            let mut read = load(file).unwrap().telemetry;
            let all = [&others[..], more].concat();
            let of = |name: &str| all.iter().find(|(own, _)| *own == name);
            let laid = read.lay_over(|name| of(name).map(|(_, value)| (*value).to_owned()));
            laid.map(|()| read.traces.is_some()).map_err(|error| error.to_string())
        };
        let told = "[telemetry]\ntraces = \"http://127.0.0.1:1\"";
        let endpoint = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "a:4318");
        for (file, more) in [
            ("", &[][..]),
            ("", &[("OTEL_TRACES_EXPORTER", "otlp,console")]),
            (told, &[("OTEL_SDK_DISABLED", "true"), endpoint]),
            (told, &[("OTEL_TRACES_EXPORTER", "none"), endpoint]),
        ] {
            assert_eq!(taken(file, more), Ok(false), "{more:?}");
        }
        assert!(taken(told, &[]).is_err());
        assert!(taken("", &[endpoint]).is_err(), "it says that they are told");
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318");
        let said = under(&[base, ("OTEL_METRICS_EXPORTER", "console")]).unwrap_err();
        assert!(said.contains("OTEL_METRICS_EXPORTER"), "{said}");
    }

    #[test]
    fn metrics_are_told_as_traces_are_and_by_variables_of_their_own() {
        let metrics = |variables: &[(&str, &str)]| url_of(under(variables).unwrap().metrics);
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318/");
        let whole = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://b/m");
        let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://b/t");
        assert_eq!(metrics(&[]), None);
        assert_eq!(metrics(&[traces]), None);
        assert_eq!(metrics(&[base]).as_deref(), Some("http://a:4318/v1/metrics"));
        assert_eq!(metrics(&[base, whole]).as_deref(), Some("http://b/m"));
        for silent in ["none", "prometheus"] {
            assert_eq!(metrics(&[base, ("OTEL_METRICS_EXPORTER", silent)]), None);
        }
        assert_eq!(metrics(&[base, ("OTEL_SDK_DISABLED", "TRUE")]), None);
        let here = metrics(&[("OTEL_METRICS_EXPORTER", "otlp")]);
        assert_eq!(here.as_deref(), Some("http://localhost:4318/v1/metrics"));
        let said = under(&[
            whole,
            ("OTEL_METRIC_EXPORT_INTERVAL", "250"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "9"),
            ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "x-api-key=m"),
        ])
        .unwrap();
        assert_eq!(said.interval, Duration::from_millis(250));
        let (metrics, traces) = (said.metrics.unwrap(), said.traces.unwrap());
        assert_eq!(metrics.headers, [("x-api-key".to_owned(), "m".to_owned())]);
        assert_eq!([metrics.timeout, traces.timeout], [Duration::from_millis(9); 2]);
        assert!(traces.headers.is_empty(), "a key is for whom it is made for");
        let said = under(&[whole, ("OTEL_METRIC_EXPORT_INTERVAL", "0")]).unwrap_err();
        assert!(said.contains("OTEL_METRIC_EXPORT_INTERVAL"), "{said}");
        under(&[("OTEL_METRIC_EXPORT_INTERVAL", "never")]).expect("it is for other programs");
    }

    #[test]
    fn how_spans_are_told_is_said_by_variables() {
        let said = under(&[
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-other=1"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", " X-Api-Key = a%20b ,c=d=e,"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=one,deployment.environment.name=a%2Cb"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "16"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "9"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "7"),
        ])
        .unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(said.batches, Batches { queue: 16, ..TelemetryConfig::default().batches });
        assert!(said.resource.contains(&pair("service.name", "one")));
        assert!(said.resource.contains(&pair("deployment.environment.name", "a,b")));
        let traces = said.traces.unwrap();
        assert_eq!(traces.headers, [pair("x-api-key", "a b"), pair("c", "d=e")]);
        assert_eq!(traces.timeout, Duration::from_millis(7));
        let both = [("OTEL_SERVICE_NAME", "two"), ("OTEL_RESOURCE_ATTRIBUTES", "service.name=one")];
        let told = under(&both).unwrap().resource;
        let told: Vec<_> = told.iter().filter(|(name, _)| name == "service.name").collect();
        assert_eq!(told, [&pair("service.name", "two")]);
    }
}
