//! What may be in the graph of dependencies: licences, bans, layers, doubled versions, sources.
//!
//! `deny.toml` has the rules, in cargo-deny's words. They are checked here, from what cargo says
//! is built, so that nobody has to compile cargo-deny for minutes to hear of a licence; where it is
//! installed, it is asked too. Advisories are not checked: their database is on the network.

pub(crate) mod graph;
mod licence;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use graph::{Graph, Package};
use toml::{Table, Value};

use crate::tidy::Complaint;
use crate::{Outcome, debian, steps};

const RULES: &str = "deny.toml";
const LOCK: &str = "Cargo.lock";

/// Checks the graph of the workspace at `root` and prints what is wrong.
pub(crate) fn run(root: &Path) -> Outcome<()> {
    let text = std::fs::read_to_string(root.join(RULES))?;
    let rules = Rules::parse(&text)?;
    let lock = std::fs::read_to_string(root.join(LOCK))?;
    let graph = Graph::read(root, &rules)?;

    let mut complaints = licences(&rules, &graph, &lock);
    complaints.extend(bans(&rules, &graph, &lock));
    complaints.extend(doubles(&rules, &graph, &lock, &text));
    complaints.extend(sources(&rules, &lock)?);
    for (path, manifest) in manifests(root)? {
        complaints.extend(wildcards(&path, &manifest)?);
    }
    for complaint in &complaints {
        println!("{complaint}");
    }
    println!(
        "deny: {} packages; advisories skipped, their database is not here",
        graph.packages.len()
    );
    if !complaints.is_empty() {
        return Err(format!("{} things to mend", complaints.len()).into());
    }
    if let Some(program) = debian::on_path("cargo-deny") {
        println!("deny: asking cargo-deny as well");
        let args = ["--offline", "check", "bans", "licenses", "sources"];
        steps::succeed(Command::new(program).args(args).current_dir(root))?;
    }
    Ok(())
}

/// The part of cargo-deny's configuration that we use.
#[derive(Debug, Default)]
struct Rules {
    targets: Vec<String>,
    licences: BTreeSet<String>,
    bans: Vec<Ban>,
    /// `name@version` of what may stand beside another version of itself.
    skip: BTreeSet<String>,
    registries: BTreeSet<String>,
}

/// A crate that may not be there, or only below some.
#[derive(Debug)]
struct Ban {
    name: String,
    wrappers: Vec<String>,
    reason: String,
}

impl Rules {
    fn parse(text: &str) -> Outcome<Self> {
        let table: Table = text.parse()?;
        let list = |section: &str, name: &str| -> Outcome<Vec<Value>> {
            let found = table.get(section).and_then(|section| section.get(name));
            let found = found.and_then(Value::as_array).cloned();
            found.ok_or_else(|| format!("{RULES}: [{section}] has no list {name}").into())
        };
        // These are not switches here: a looser word would be ignored, so it is refused.
        for (section, name) in [
            ("bans", "wildcards"),
            ("bans", "multiple-versions"),
            ("sources", "unknown-registry"),
            ("sources", "unknown-git"),
        ] {
            let found = table.get(section).and_then(|section| section.get(name));
            if found.and_then(Value::as_str) != Some("deny") {
                return Err(format!("{RULES}: [{section}] {name} has to be \"deny\"").into());
            }
        }
        let mut bans = Vec::new();
        for ban in list("bans", "deny")? {
            bans.push(Ban {
                name: crate_of(&ban)?,
                wrappers: strings(
                    ban.get("wrappers").and_then(Value::as_array).map_or(&[], Vec::as_slice),
                ),
                reason: ban
                    .get("reason")
                    .and_then(Value::as_str)
                    .unwrap_or("no reason given")
                    .to_owned(),
            });
        }
        Ok(Self {
            targets: strings(&list("graph", "targets")?),
            licences: strings(&list("licenses", "allow")?).into_iter().collect(),
            bans,
            skip: list("bans", "skip")?.iter().map(crate_of).collect::<Outcome<_>>()?,
            registries: strings(&list("sources", "allow-registry")?).into_iter().collect(),
        })
    }
}

fn crate_of(entry: &Value) -> Outcome<String> {
    let name = entry.as_str().or_else(|| entry.get("crate").and_then(Value::as_str));
    Ok(name.ok_or_else(|| format!("{RULES}: {entry} names no crate"))?.to_owned())
}

fn strings(values: &[Value]) -> Vec<String> {
    values.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn licences(rules: &Rules, graph: &Graph, lock: &str) -> Vec<Complaint> {
    let complain = |package: &Package| {
        let licence = if package.licence.is_empty() { "no licence" } else { &package.licence };
        let what = format!(
            "{} {} is under {licence}, which {RULES} does not allow: decide on it there, or do \
             without the crate",
            package.name, package.version
        );
        Complaint::new(LOCK, line_of(lock, package), what)
    };
    let allowed = |package: &&Package| !licence::allowed(&package.licence, &rules.licences);
    graph.packages.iter().filter(allowed).map(complain).collect()
}

fn bans(rules: &Rules, graph: &Graph, lock: &str) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for ban in &rules.bans {
        for package in graph.packages.iter().filter(|package| package.name == ban.name) {
            let parents = graph.parents.get(&package.name).cloned().unwrap_or_default();
            for parent in parents.iter().filter(|parent| !ban.wrappers.contains(*parent)) {
                let what = format!(
                    "{parent} must not depend on {} ({}): see `cargo tree --workspace --invert {}`",
                    ban.name, ban.reason, ban.name
                );
                complaints.push(Complaint::new(LOCK, line_of(lock, package), what));
            }
        }
    }
    complaints
}

fn doubles(rules: &Rules, graph: &Graph, lock: &str, text: &str) -> Vec<Complaint> {
    let mut versions = BTreeMap::<&str, Vec<&Package>>::new();
    for package in &graph.packages {
        versions.entry(&package.name).or_default().push(package);
    }
    versions.retain(|_, packages| packages.len() > 1);
    let mut complaints = Vec::new();
    let mut used = BTreeSet::new();
    for packages in versions.values() {
        let (skipped, rest): (Vec<&Package>, Vec<&Package>) =
            packages.iter().partition(|package| rules.skip.contains(&package.id()));
        used.extend(skipped.iter().map(|package| package.id()));
        if rest.len() > 1 {
            let all: Vec<_> = rest.iter().map(|package| package.version.as_str()).collect();
            let what = format!(
                "{} is built in versions {}: bring them together, or skip the older in {RULES} with \
                 its reason",
                rest[0].name,
                all.join(" and ")
            );
            complaints.push(Complaint::new(LOCK, line_of(lock, rest[0]), what));
        }
    }
    for stale in rules.skip.iter().filter(|skip| !used.contains(*skip)) {
        let line = text.lines().position(|line| line.contains(stale)).map_or(1, |n| n + 1);
        let what = format!("{stale} stands beside no other version any more: remove its skip");
        complaints.push(Complaint::new(RULES, line, what));
    }
    complaints
}

/// Everything locked, whether it is built here or not, comes from where we said.
fn sources(rules: &Rules, lock: &str) -> Outcome<Vec<Complaint>> {
    let table: Table = lock.parse()?;
    let packages =
        table.get("package").and_then(Value::as_array).ok_or("Cargo.lock has no packages")?;
    let mut complaints = Vec::new();
    for package in packages {
        let text = |name: &str| package.get(name).and_then(Value::as_str).unwrap_or_default();
        let source = text("source");
        let known =
            source.strip_prefix("registry+").is_some_and(|url| rules.registries.contains(url));
        // No source at all: a member of the workspace.
        if !source.is_empty() && !known {
            let package = Package::new(text("name"), text("version"), "");
            let what = format!(
                "{} comes from {source}: take it from a registry that {RULES} allows",
                package.name
            );
            complaints.push(Complaint::new(LOCK, line_of(lock, &package), what));
        }
    }
    Ok(complaints)
}

/// The manifests of the workspace, paths from its root.
fn manifests(root: &Path) -> Outcome<Vec<(String, String)>> {
    let text = std::fs::read_to_string(root.join("Cargo.toml"))?;
    let table: Table = text.parse()?;
    let members = table.get("workspace").and_then(|workspace| workspace.get("members"));
    let members = strings(members.and_then(Value::as_array).ok_or("Cargo.toml has no members")?);
    let mut found = vec![("Cargo.toml".to_owned(), text)];
    for member in members {
        let path = format!("{member}/Cargo.toml");
        let text = std::fs::read_to_string(root.join(&path))
            .map_err(|error| format!("{path}: {error}"))?;
        found.push((path, text));
    }
    Ok(found)
}

/// A dependency without a version takes whatever comes next.
fn wildcards(path: &str, manifest: &str) -> Outcome<Vec<Complaint>> {
    let table: Table = manifest.parse().map_err(|error| format!("{path}: {error}"))?;
    Ok(crate::tidy::dependencies(&table)
        .into_iter()
        .filter(|dependency| match &dependency.value {
            Value::String(version) => version.contains('*'),
            Value::Table(table) if table.get("workspace").is_some() => false,
            value => {
                let version = value.get("version").and_then(Value::as_str);
                version.is_none_or(|version| version.contains('*'))
            }
        })
        .map(|dependency| {
            let what = format!("{} has no version: say which one is tested", dependency.name);
            Complaint::new(path, dependency.line(manifest), what)
        })
        .collect())
}

/// Where a package stands in the lock file.
fn line_of(lock: &str, package: &Package) -> usize {
    let name = format!("name = \"{}\"", package.name);
    let version = format!("version = \"{}\"", package.version);
    let lines: Vec<&str> = lock.lines().collect();
    lines.windows(2).position(|two| two[0] == name && two[1] == version).map_or(1, |n| n + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        [graph]
        targets = ["x86_64-unknown-linux-gnu"]
        [licenses]
        allow = ["MIT", "Apache-2.0"]
        [bans]
        wildcards = "deny"
        multiple-versions = "deny"
        deny = [
          { crate = "ring", reason = "one crypto provider" },
          { crate = "rusqlite", wrappers = ["onceward"] },
        ]
        skip = [{ crate = "syn@2.0.0", reason = "older" }]
        [sources]
        unknown-registry = "deny"
        unknown-git = "deny"
        allow-registry = ["https://example.com/index"]
    "#;

    fn rules() -> Rules {
        Rules::parse(TEXT).unwrap()
    }

    fn graph(lines: &[&str]) -> Graph {
        let mut graph = Graph::default();
        graph.add(&lines.join("\n")).unwrap();
        graph
    }

    fn whats(complaints: &[Complaint]) -> Vec<&str> {
        complaints.iter().map(|complaint| complaint.what.as_str()).collect()
    }

    #[test]
    fn a_looser_rule_is_refused_and_not_ignored() {
        let loose = TEXT.replace("unknown-git = \"deny\"", "unknown-git = \"warn\"");
        assert!(Rules::parse(&loose).unwrap_err().to_string().contains("unknown-git"));
        assert!(Rules::parse("[bans]").is_err());
    }

    #[test]
    fn a_licence_that_is_not_allowed_is_named() {
        let graph = graph(&["0a v1.0.0|MIT", "1b v2.0.0|GPL-3.0-only", "1c v1.0.0|"]);
        let lock = "[[package]]\nname = \"b\"\nversion = \"2.0.0\"\n";
        let complaints = licences(&rules(), &graph, lock);
        assert_eq!(complaints.len(), 2);
        assert_eq!(complaints[0].line, 2);
        assert!(complaints[0].what.starts_with("b 2.0.0 is under GPL-3.0-only"));
        assert!(complaints[1].what.contains("no licence"));
    }

    #[test]
    fn a_banned_crate_is_found_and_a_wrapped_one_only_beside_its_wrapper() {
        let fine = graph(&["0onceward v0.1.0|MIT", "1rusqlite v0.39.0|MIT"]);
        assert_eq!(bans(&rules(), &fine, ""), []);
        let bad = graph(&[
            "0onceward v0.1.0|MIT",
            "1rusqlite v0.39.0|MIT",
            "1ring v0.17.0|MIT",
            "0server v0.1.0|MIT",
            "1rusqlite v0.39.0|MIT (*)",
        ]);
        let complaints = bans(&rules(), &bad, "");
        let found = whats(&complaints);
        assert_eq!(found.len(), 2);
        assert!(found[0].starts_with("onceward must not depend on ring (one crypto provider)"));
        assert!(found[1].starts_with("server must not depend on rusqlite"));
    }

    #[test]
    fn doubled_versions_need_a_skip_and_a_skip_needs_doubled_versions() {
        let doubled = graph(&["0a v1.0.0|MIT", "1syn v2.0.0|MIT", "1syn v3.0.0|MIT"]);
        assert_eq!(doubles(&rules(), &doubled, "", TEXT), []);
        let more = graph(&["0a v1.0.0|MIT", "1syn v3.0.0|MIT", "1b v1.0.0|MIT", "1b v2.0.0|MIT"]);
        let complaints = doubles(&rules(), &more, "", TEXT);
        let found = whats(&complaints);
        assert!(found[0].starts_with("b is built in versions 1.0.0 and 2.0.0"));
        assert!(found[1].starts_with("syn@2.0.0 stands beside no other version"));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn unknown_registries_and_git_are_refused() {
        let lock = "[[package]]\nname = \"own\"\nversion = \"1.0.0\"\n\n\
                    [[package]]\nname = \"fine\"\nversion = \"1.0.0\"\n\
                    source = \"registry+https://example.com/index\"\n\n\
                    [[package]]\nname = \"other\"\nversion = \"1.0.0\"\n\
                    source = \"registry+https://example.org/index\"\n\n\
                    [[package]]\nname = \"forked\"\nversion = \"1.0.0\"\n\
                    source = \"git+https://example.com/forked#abc\"\n";
        let complaints = sources(&rules(), lock).unwrap();
        assert_eq!(complaints.iter().map(|found| found.line).collect::<Vec<_>>(), [11, 16]);
    }

    #[test]
    fn a_dependency_without_a_version_is_refused() {
        let manifest = "[dependencies]\na = \"1\"\nb = \"*\"\nc = { path = \"../c\" }\n\
                        d = { workspace = true }\ne.workspace = true\nf = { version = \"2\" }\n\
                        [workspace.dependencies]\ng = { features = [\"x\"] }\n";
        let complaints = wildcards("Cargo.toml", manifest).unwrap();
        let mut lines: Vec<_> = complaints.iter().map(|found| found.line).collect();
        lines.sort_unstable();
        assert_eq!(lines, [3, 4, 9]);
    }
}
