//! Dependencies as a manifest names them.

use toml::{Table, Value};

/// One entry of a table of dependencies.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Dependency {
    /// As the code calls it.
    pub(crate) name: String,
    pub(crate) value: Value,
}

impl Dependency {
    /// As the registry calls it.
    pub(crate) fn package(&self) -> &str {
        self.value.get("package").and_then(Value::as_str).unwrap_or(&self.name)
    }

    /// Where it stands in the manifest; the first line if it is written in a form of its own.
    pub(crate) fn line(&self, manifest: &str) -> usize {
        let is_it = |line: &str| {
            let rest = line.trim_start().trim_start_matches('"').strip_prefix(self.name.as_str());
            rest.is_some_and(|rest| rest.starts_with([' ', '"', '=', '.']))
        };
        manifest.lines().position(is_it).map_or(1, |n| n + 1)
    }
}

/// All dependencies: also those of tests, builds, single platforms, and the workspace's.
pub(crate) fn dependencies(manifest: &Table) -> Vec<Dependency> {
    let mut found = Vec::new();
    for (name, value) in manifest {
        let Some(inner) = value.as_table() else {
            continue;
        };
        if name.ends_with("dependencies") {
            let entry = |(name, value): (&String, &Value)| Dependency {
                name: name.clone(),
                value: value.clone(),
            };
            found.extend(inner.iter().map(entry));
        } else if name == "target" {
            found.extend(inner.values().filter_map(Value::as_table).flat_map(dependencies));
        } else if name == "workspace" {
            found.extend(dependencies(inner));
        }
    }
    found
}
