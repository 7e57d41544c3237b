//! The packages that are built, and who asks for whom, as cargo itself resolves features.
//!
//! `cargo metadata` also lists what a weak feature locks and nobody builds; `cargo tree` does not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use super::Rules;
use crate::{Outcome, steps};

/// One package in one version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// As its manifest says.
    pub(crate) licence: String,
}

impl Package {
    pub(crate) fn new(name: &str, version: &str, licence: &str) -> Self {
        Self { name: name.to_owned(), version: version.to_owned(), licence: licence.to_owned() }
    }

    /// As rules name it.
    pub(crate) fn id(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }
}

/// What is built for the targets of the rules.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) packages: BTreeSet<Package>,
    /// By name: the names of those that depend on it.
    pub(super) parents: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    /// Asks cargo. What only tests need counts as well: it runs on our machines.
    pub(super) fn read(root: &Path, rules: &Rules) -> Outcome<Self> {
        let mut graph = Self::default();
        for target in &rules.targets {
            let mut command = Command::new(steps::cargo_program());
            command.args([
                "tree",
                "--workspace",
                "--all-features",
                "--locked",
                "--prefix",
                "depth",
            ]);
            command.args([
                "--format",
                "{p}|{l}",
                "--edges",
                "normal,build,dev",
                "--target",
                target,
            ]);
            graph.add(&steps::output(command.current_dir(root))?)?;
        }
        Ok(graph)
    }

    /// Adds what cargo printed: a line for each edge, its depth first.
    pub(super) fn add(&mut self, lines: &str) -> Outcome<()> {
        // The names on the way from the root to the line before.
        let mut way: Vec<String> = Vec::new();
        for line in lines.lines().filter(|line| !line.is_empty()) {
            let (depth, package) =
                parse(line).ok_or_else(|| format!("cargo tree said {line:?}"))?;
            way.truncate(depth);
            if let Some(parent) = way.last() {
                self.parents.entry(package.name.clone()).or_default().insert(parent.clone());
            }
            way.push(package.name.clone());
            self.packages.insert(package);
        }
        Ok(())
    }
}

/// `1name v1.2.3 (where it is)|licence (*)`, the star where it was printed before.
pub(crate) fn parse(line: &str) -> Option<(usize, Package)> {
    let (package, licence) = line.rsplit_once('|')?;
    let (name, rest) = package.split_once(" v")?;
    // A crate's name begins with no digit.
    let digits = name.find(|c: char| !c.is_ascii_digit())?;
    let licence = licence.strip_suffix("(*)").unwrap_or(licence).trim();
    let version = rest.split(' ').next()?;
    Some((name[..digits].parse().ok()?, Package::new(&name[digits..], version, licence)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_cargo_tree_is_read_with_or_without_its_ornaments() {
        let package = Package::new("serde_derive", "1.0.2", "MIT OR Apache-2.0");
        for line in [
            "12serde_derive v1.0.2|MIT OR Apache-2.0",
            "12serde_derive v1.0.2 (proc-macro)|MIT OR Apache-2.0 (*)",
            "12serde_derive v1.0.2 (some/where v2)|MIT OR Apache-2.0",
        ] {
            assert_eq!(parse(line), Some((12, package.clone())), "{line}");
        }
        assert_eq!(parse("[dev-dependencies]"), None);
    }

    #[test]
    fn parents_follow_from_depths() {
        let mut graph = Graph::default();
        graph
            .add("0a v1.0.0|MIT\n1b v1.0.0|MIT\n2c v1.0.0|MIT\n1c v1.0.0|MIT\n\n0d v1.0.0|MIT\n")
            .unwrap();
        assert_eq!(graph.packages.len(), 4);
        let parents: Vec<_> = graph.parents["c"].iter().map(String::as_str).collect();
        assert_eq!(parents, ["a", "b"]);
        assert!(!graph.parents.contains_key("d"));
    }
}
