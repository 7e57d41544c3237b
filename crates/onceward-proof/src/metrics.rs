//! A gateway's metrics, beside what was counted outside of it.

use std::collections::BTreeMap;

/// A figure that the gateway tells, and the same as others counted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// The metric, with its labels.
    pub metric: String,
    /// What the gateway says.
    pub gateway: u64,
    /// What callers and the auditor counted.
    pub counted: u64,
}

impl Compared {
    /// What is wrong, where the two differ.
    pub fn violation(&self) -> Option<String> {
        let Self { metric, gateway, counted } = self;
        (gateway != counted).then(|| format!("{metric}: {gateway}, and {counted} were counted"))
    }
}

/// The counters of one scrape.
#[derive(Debug, Clone, Default)]
pub struct Metrics(BTreeMap<String, u64>);

impl Metrics {
    /// Reads Prometheus' text format.
    pub fn read(text: &str) -> Self {
        let of_line = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            let value: f64 = value.parse().ok()?;
            (!name.starts_with('#')).then(|| (name.to_owned(), value as u64))
        };
        Self(text.lines().filter_map(of_line).collect())
    }

    /// One counter; 0 where it is not there.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// All counters whose name begins so, added up.
    pub fn sum(&self, name: &str) -> u64 {
        self.0.iter().filter(|(other, _)| other.starts_with(name)).map(|(_, value)| value).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_with_their_labels() {
        let text = "# HELP a_total A.\n# TYPE a_total counter\na_total{x=\"1\"} 2\na_total{x=\"2\"} 3\nb 4.0\n";
        let metrics = Metrics::read(text);
        assert_eq!(metrics.get("a_total{x=\"2\"}"), 3);
        assert_eq!((metrics.sum("a_total{"), metrics.get("b"), metrics.get("c")), (5, 4, 0));
    }
}
