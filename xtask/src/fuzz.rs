//! Fuzz targets for as long as one likes: `fuzz/README.md` tells what they are.

use std::ffi::OsString;
use std::path::Path;

use crate::{Outcome, steps};

/// How long each target runs where nothing says otherwise.
const SECONDS: u64 = 30;

/// A target, and where its test is.
struct Target {
    name: &'static str,
    /// What cargo is told to build.
    place: &'static [&'static str],
    /// The module of its test.
    test: &'static str,
}

const OWN: &[&str] = &["-p", "onceward-fuzz", "--test", "targets"];
const LIBRARY: &[&str] = &["-p", "onceward", "--lib"];
const BINARY: &[&str] = &["-p", "onceward-server", "--bin", "onceward"];
const GATEWAY: &[&str] = &["-p", "onceward-server", "--test", "it"];

const TARGETS: [Target; 13] = [
    Target { name: "key", place: OWN, test: "key::" },
    Target { name: "retry_after", place: OWN, test: "retry_after::" },
    Target { name: "body", place: OWN, test: "body::" },
    Target { name: "id", place: OWN, test: "id::" },
    Target { name: "exchange", place: OWN, test: "exchange::" },
    Target { name: "egress", place: OWN, test: "egress::no_text" },
    Target { name: "row", place: LIBRARY, test: "store::row::fuzz::" },
    Target { name: "webhook", place: LIBRARY, test: "webhook::fuzz::" },
    Target { name: "journal", place: LIBRARY, test: "journal::fuzz::" },
    Target { name: "config", place: BINARY, test: "config::fuzz::" },
    Target { name: "openapi", place: BINARY, test: "classify::fuzz::" },
    Target { name: "list", place: BINARY, test: "operator::fuzz::" },
    Target { name: "head", place: GATEWAY, test: "wire_head::fuzz" },
];

/// What is asked for: which targets, for how long, from which seed, or on which one input.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    targets: Vec<String>,
    seconds: Option<u64>,
    seed: Option<u64>,
    input: Option<String>,
}

/// Runs the targets that `args` name, or all of them, one after the other.
pub(crate) fn run(args: &[String]) -> Outcome<()> {
    let asked = read(args)?;
    for target in &TARGETS {
        if !asked.targets.is_empty() && !asked.targets.iter().any(|name| name == target.name) {
            continue;
        }
        println!("\n== {}", target.name);
        let mut arguments = vec!["test", "--locked", "--quiet"];
        arguments.extend(target.place);
        arguments.extend([target.test, "--", "--nocapture"]);
        steps::cargo(&arguments, &environment(&asked)?)
            .map_err(|error| format!("{}: {error}", target.name))?;
    }
    Ok(())
}

fn environment(asked: &Asked) -> Outcome<Vec<(&'static str, OsString)>> {
    let mut environment = Vec::new();
    if let Some(input) = &asked.input {
        // A test runs in the folder of its crate.
        environment.push(("TEST_FUZZ_INPUT", Path::new(input).canonicalize()?.into()));
    } else {
        let seconds = asked.seconds.unwrap_or(SECONDS);
        environment.push(("TEST_FUZZ_SECONDS", seconds.to_string().into()));
    }
    environment.extend(asked.seed.map(|seed| ("TEST_SEED", seed.to_string().into())));
    Ok(environment)
}

fn read(args: &[String]) -> Outcome<Asked> {
    let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    let mut asked = Asked::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value =
            || args.next().ok_or_else(|| format!("{arg} wants a value")).map(String::as_str);
        match arg.as_str() {
            "--seconds" => asked.seconds = Some(value()?.parse()?),
            "--seed" => asked.seed = Some(value()?.parse()?),
            "--input" => asked.input = Some(value()?.to_owned()),
            name if names.contains(&name) => asked.targets.push(name.to_owned()),
            other => {
                return Err(format!("{other} is no target; there are: {}", names.join(", ")).into());
            }
        }
    }
    if asked.input.is_some() && asked.targets.len() != 1 {
        return Err("an input belongs to one target: name it".into());
    }
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn targets_seconds_and_seeds_are_read() {
        let asked = read(&words("key --seconds 5 body --seed 7")).unwrap();
        assert_eq!(asked.targets, ["key", "body"]);
        assert_eq!((asked.seconds, asked.seed), (Some(5), Some(7)));
    }

    #[test]
    fn what_is_no_target_is_refused_with_those_that_are() {
        assert!(read(&words("keys")).unwrap_err().to_string().contains("retry_after"));
        assert!(read(&words("--seconds")).is_err());
        assert!(read(&words("--input x")).is_err());
    }

    #[test]
    fn every_target_has_a_corpus() {
        for target in &TARGETS {
            let corpus = steps::root().join("fuzz/corpus").join(target.name);
            assert!(corpus.is_dir(), "{}", corpus.display());
        }
    }
}
