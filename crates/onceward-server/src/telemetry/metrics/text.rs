//! Metrics as text: OpenMetrics 1.0, and the format of Prometheus before it.

use std::fmt::{self, Display, Formatter, Write as _};
use std::time::{Duration, UNIX_EPOCH};

use super::series::{Exemplar, Labels, Spread, Value};
use super::{Kind, Row, Series};

/// What `/metrics` answers in OpenMetrics.
pub(super) const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The same in the format before it.
pub(super) const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics, written.
pub(super) struct Page {
    pub(super) metrics: Vec<(&'static Row, Series)>,
    /// In OpenMetrics, which has exemplars.
    pub(super) is_open: bool,
}

impl Display for Page {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (row, series) in &self.metrics {
            let Row { kind, name, help, .. } = row;
            // There a counter is called without what its one line ends in.
            let called = if self.is_open { name.trim_end_matches("_total") } else { name };
            writeln!(f, "# HELP {called} {help}.")?;
            writeln!(f, "# TYPE {called} {}", kind.name())?;
            for (labels, value) in series {
                let labels = Braced { labels, bound: None };
                match value {
                    Value::Count(count) => writeln!(f, "{name}{labels} {count}")?,
                    Value::Level(level) => writeln!(f, "{name}{labels} {level:?}")?,
                    Value::Spread(spread) => self.spread(f, name, labels, spread)?,
                }
            }
        }
        if self.is_open { f.write_str("# EOF\n") } else { Ok(()) }
    }
}

impl Page {
    /// The lines of a histogram, where each bucket has what is in those before it.
    fn spread(
        &self,
        f: &mut Formatter<'_>,
        name: &str,
        labels: Braced<'_>,
        spread: &Spread,
    ) -> fmt::Result {
        let mut count = 0;
        for (place, bucket) in spread.buckets.iter().enumerate() {
            count += bucket.count;
            let bound = Some(spread.bounds.get(place).copied().unwrap_or(f64::INFINITY));
            write!(f, "{name}_bucket{} {count}", Braced { bound, ..labels })?;
            if let Some(exemplar) = bucket.exemplar.filter(|_| self.is_open) {
                write!(f, "{exemplar}")?;
            }
            f.write_char('\n')?;
        }
        writeln!(f, "{name}_sum{labels} {:?}", spread.sum)?;
        writeln!(f, "{name}_count{labels} {count}")
    }
}

/// Labels in their braces, and a bucket's bound behind them.
#[derive(Clone, Copy)]
struct Braced<'a> {
    labels: &'a Labels,
    bound: Option<f64>,
}

impl Display for Braced<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut before = '{';
        for (name, value) in self.labels {
            write!(f, "{before}{name}=\"{}\"", Escaped(value))?;
            before = ',';
        }
        match self.bound {
            Some(f64::INFINITY) => write!(f, "{before}le=\"+Inf\"}}"),
            Some(bound) => write!(f, "{before}le=\"{bound:?}\"}}"),
            None if self.labels.is_empty() => Ok(()),
            None => f.write_char('}'),
        }
    }
}

/// The value of a label, as both formats escape it.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                letter => f.write_char(letter)?,
            }
        }
        Ok(())
    }
}

impl Display for Exemplar {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { trace, value, at } = self;
        let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let (seconds, millis) = (since.as_secs(), since.subsec_millis());
        write!(f, " # {{trace_id=\"{trace:032x}\"}} {value:?} {seconds}.{millis:03}")
    }
}

impl Kind {
    /// As both formats and docs/metrics.md call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}
