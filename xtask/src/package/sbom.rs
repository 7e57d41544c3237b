//! The list of what is in the binary, as CycloneDX 1.5: each crate that is built into it, with version,
//! licence and hash, and who asks for whom.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use toml::Table;

use super::{NAME, dated, epoch, folder};
use crate::deny::graph::{Package, parse};
use crate::{Outcome, steps};

/// The platform of the packages.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What is built, each with what it asks for.
type Graph = BTreeMap<Package, BTreeSet<Package>>;

/// Writes the list.
pub(crate) fn run() -> Outcome<()> {
    let file = write(&steps::root())?;
    println!("{}", file.display());
    Ok(())
}

pub(super) fn write(root: &Path) -> Outcome<PathBuf> {
    // Cargo tells features apart by package here, and `cargo metadata` does not.
    let mut tree = Command::new(steps::cargo_program());
    tree.args(["tree", "--package", "onceward-server", "--edges", "normal,build", "--locked"]);
    tree.args(["--target", TARGET, "--prefix", "depth", "--format", "{p}|{l}"]);
    let graph = read(&steps::output(tree.current_dir(root))?)?;
    let hashes = hashes(&fs::read_to_string(root.join("Cargo.lock"))?.parse()?);
    let date = dated(&epoch(root)?, &["+%Y-%m-%dT%H:%M:%SZ"])?;
    let file = folder(root)?.join(format!("{NAME}.cdx.json"));
    fs::write(&file, format!("{:#}\n", document(&graph, &hashes, &date)))?;
    Ok(file)
}

/// Reads what cargo printed: a line for each edge, its depth first.
fn read(lines: &str) -> Outcome<Graph> {
    let mut graph = Graph::default();
    let mut way: Vec<Package> = Vec::new();
    for line in lines.lines().filter(|line| !line.is_empty()) {
        let (depth, found) = parse(line).ok_or_else(|| format!("cargo tree said {line:?}"))?;
        way.truncate(depth);
        if let Some(parent) = way.last() {
            graph.entry(parent.clone()).or_default().insert(found.clone());
        }
        graph.entry(found.clone()).or_default();
        way.push(found);
    }
    Ok(graph)
}

fn purl(found: &Package) -> String {
    // `+` of build metadata has another meaning in a URL.
    format!("pkg:cargo/{}@{}", found.name, found.version.replace('+', "%2B"))
}

/// What the lock file says of each crate's archive, by `name@version`.
fn hashes(lock: &Table) -> BTreeMap<String, String> {
    let packages = lock.get("package").and_then(|packages| packages.as_array());
    let of = |package: &toml::Value| {
        let text = |key: &str| package.get(key)?.as_str();
        Some((format!("{}@{}", text("name")?, text("version")?), text("checksum")?.to_owned()))
    };
    packages.into_iter().flatten().filter_map(of).collect()
}

fn document(graph: &Graph, hashes: &BTreeMap<String, String>, date: &str) -> Value {
    let component = |found: &Package| {
        // Some manifests set alternatives apart as it was done before SPDX.
        let licence: Vec<&str> = found.licence.split('/').map(str::trim).collect();
        let mut component = json!({
            "type": "library",
            "bom-ref": purl(found),
            "name": found.name,
            "version": found.version,
            "purl": purl(found),
            "licenses": [{ "expression": licence.join(" OR ") }],
        });
        if let Some(hash) = hashes.get(&found.id()) {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": hash }]);
        }
        component
    };
    let own = graph.keys().find(|found| found.name == "onceward-server");
    let of_others = graph.keys().filter(|found| Some(*found) != own);
    let dependencies = graph.iter().map(|(found, asked)| {
        let asked: Vec<String> = asked.iter().map(purl).collect();
        json!({ "ref": purl(found), "dependsOn": asked })
    });
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": date,
            "component": {
                "type": "application",
                "bom-ref": own.map(purl),
                "name": NAME,
                "version": own.map(|own| own.version.clone()),
                "licenses": [{ "expression": "Apache-2.0" }],
            },
        },
        "components": of_others.map(component).collect::<Vec<_>>(),
        "dependencies": dependencies.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "0onceward-server v0.1.0 (/here)|Apache-2.0\n\
        1bytes v1.12.0|MIT\n\
        1hyper v1.12.0|MIT/Apache-2.0\n\
        2bytes v1.12.0|MIT\n";

    #[test]
    fn each_crate_is_there_once_with_what_it_asks_for() {
        let graph = read(TREE).unwrap();
        let lock = "[[package]]\nname = \"bytes\"\nversion = \"1.12.0\"\nchecksum = \"ab\"\n";
        let list = document(&graph, &hashes(&lock.parse().unwrap()), "2026-01-01T00:00:00Z");
        assert_eq!(list["metadata"]["component"]["version"], "0.1.0");
        let components = list["components"].as_array().unwrap();
        assert_eq!(components.len(), 2, "{list:#}");
        assert_eq!(components[0]["purl"], "pkg:cargo/bytes@1.12.0");
        assert_eq!(components[0]["hashes"][0]["content"], "ab");
        assert_eq!(components[1]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        let asked = |n: usize| list["dependencies"][n]["dependsOn"].as_array().unwrap().len();
        assert_eq!((asked(0), asked(1), asked(2)), (0, 1, 2));
    }

    #[test]
    fn build_metadata_of_a_version_is_escaped() {
        assert_eq!(purl(&Package::new("a", "1.0.0+2.1", "MIT")), "pkg:cargo/a@1.0.0%2B2.1");
    }
}
