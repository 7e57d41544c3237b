//! What is in `deploy/` holds: its files parse, their variables, keys, flags and paths exist, and the
//! docs name each of them.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::world::World;

#[path = "../../src/classify/document.rs"]
mod document;

/// The drain where no route says otherwise, in seconds: outboxes (5), attempts (30), the last writes.
const DRAIN: u64 = 45;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file below a folder, as a path from the root of the project.
fn files(folder: &str) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(root().join(folder)).unwrap().flatten() {
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        // What a person keeps for themselves is no part of the project.
        if path.ends_with("/.env") {
            continue;
        }
        if entry.path().is_dir() {
            all.extend(files(&path));
        } else {
            all.push(path);
        }
    }
    all
}

/// The documents of a YAML file.
fn documents(path: &str) -> Vec<Value> {
    let text = text(path);
    let parts = text.split("\n---\n");
    parts.map(|part| document::read(part).unwrap_or_else(|why| panic!("{path}: {why}"))).collect()
}

/// A mapping into which `<<` put others.
fn merged(value: &Value) -> Value {
    let Value::Object(members) = value else { return value.clone() };
    let mut all = match members.get("<<") {
        Some(base) => merged(base).as_object().cloned().unwrap(),
        None => serde_json::Map::new(),
    };
    let own = members.iter().filter(|(name, _)| *name != "<<");
    all.extend(own.map(|(name, value)| (name.clone(), merged(value))));
    Value::Object(all)
}

/// `${NAME:?why}` as somebody who put it into `.env` has it.
fn filled(value: &str) -> String {
    let mut filled = value.to_owned();
    while let Some((before, rest)) = filled.split_once("${") {
        let (_, after) = rest.split_once('}').unwrap();
        filled = format!("{before}{}{after}", "7".repeat(64));
    }
    filled
}

/// How one gateway is run: what it is told, and with which file.
struct Run {
    place: String,
    environment: BTreeMap<String, String>,
    configuration: String,
}

/// The services of a compose file that run a gateway.
fn of_compose(path: &str) -> Vec<(Run, Value)> {
    let services = merged(&documents(path)[0]["services"]);
    let gateways = services.as_object().unwrap().iter().filter(|(_, it)| it["image"] == "onceward");
    let run = |(name, service): (&String, &Value)| {
        let set = service["environment"].as_object().unwrap();
        let set = set.iter().map(|(name, value)| (name.clone(), filled(value.as_str().unwrap())));
        let run = Run {
            place: format!("{path}: {name}"),
            environment: set.collect(),
            configuration: text("deploy/compose/config/onceward.toml"),
        };
        (run, service.clone())
    };
    gateways.map(run).collect()
}

/// The pods of a Kubernetes manifest.
fn of_kubernetes(path: &str) -> (Run, Value) {
    let all = documents(path);
    let of = |kind: &str| all.iter().find(|document| document["kind"] == kind);
    let configuration = of("ConfigMap").unwrap()["data"]["onceward.toml"].as_str().unwrap();
    let pods = of("Deployment").or_else(|| of("StatefulSet")).unwrap();
    let pod = pods["spec"]["template"]["spec"].clone();
    let set = pod["containers"][0]["env"].as_array().unwrap().iter().map(|variable| {
        let name = variable["name"].as_str().unwrap().to_owned();
        let from = "postgres://onceward:p@postgres/onceward?sslmode=require";
        (name, variable["value"].as_str().unwrap_or(from).to_owned())
    });
    let run = Run {
        place: path.to_owned(),
        environment: set.collect(),
        configuration: configuration.to_owned(),
    };
    (run, pod)
}

const COMPOSE: [&str; 2] = ["deploy/compose/embedded.yaml", "deploy/compose/cluster.yaml"];
const KUBERNETES: [&str; 2] = ["deploy/kubernetes/embedded.yaml", "deploy/kubernetes/cluster.yaml"];

#[test]
fn the_docs_name_every_file_of_deploy_and_none_that_is_not_there() {
    let docs = text("docs/deploy.md");
    for file in files("deploy") {
        assert!(docs.contains(&file), "docs/deploy.md does not tell what {file} is for");
    }
    for (at, _) in docs.match_indices("deploy/") {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
        let named = docs[at..].split(|c| !is_part(c)).next().unwrap().trim_end_matches('.');
        // As a path of the project, and not the end of another one.
        if !docs[..at].ends_with(is_part) || docs[..at].ends_with("../") {
            assert!(
                root().join(named).exists(),
                "docs/deploy.md names {named}, which is not there"
            );
        }
    }
}

/// A configuration in which the keys and tables that its comments show are in force.
fn shown(configuration: &str) -> String {
    let lines = configuration.lines().map(|line| match line.trim_start().strip_prefix("# ") {
        Some(shown) if shown.starts_with('[') || shown.contains(" = ") => shown,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn every_configuration_and_variable_of_deploy_is_taken() {
    let mut runs: Vec<Run> =
        COMPOSE.iter().flat_map(|path| of_compose(path)).map(|it| it.0).collect();
    runs.extend(KUBERNETES.iter().map(|path| of_kubernetes(path).0));
    runs.push(Run {
        place: "deploy/systemd/onceward.toml".to_owned(),
        environment: BTreeMap::new(),
        configuration: text("deploy/systemd/onceward.toml"),
    });
    assert_eq!(runs.len(), 1 + 3 + 2 + 1);
    for run in runs {
        let world = World::new();
        world.write("onceward.toml", &run.configuration);
        // What is only shown is as good as what is in force.
        world.write("shown.toml", &shown(&run.configuration));
        for file in ["onceward.toml", "shown.toml"] {
            let check = |also: Option<&str>| {
                let mut command = world.command(&["check", "--file-only", "--config", file]);
                command.env("STRIPE_KEY", "sk").envs(&run.environment);
                command.envs(also.map(|name| (name, "1")));
                command.output().unwrap()
            };
            let checked = check(None);
            let said = String::from_utf8_lossy(&checked.stderr);
            assert!(checked.status.success(), "{}, {file}: {said}", run.place);
            assert_eq!(check(Some("ONCEWARD_NO_SUCH")).status.code(), Some(78), "{}", run.place);
        }
    }
}

/// The value of a setting in a unit or a Dockerfile.
fn setting(path: &str, name: &str) -> String {
    let text = text(path);
    let line = text.lines().rev().find_map(|line| line.trim().strip_prefix(name));
    line.unwrap_or_else(|| panic!("{path} has no {name}")).trim().to_owned()
}

/// The words of a command in its JSON form.
fn words(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Whether a command line of ours could be read: its verb and its flags are there.
fn holds(line: &[String], place: &str) {
    let world = World::new();
    // Only some verbs have verbs of their own: behind the others a word is an argument.
    let verbs = if ["access", "bulk", "sql"].contains(&line[0].as_str()) { 2 } else { 1 };
    let mut arguments: Vec<&str> = line.iter().take(verbs).map(String::as_str).collect();
    arguments.push("--help");
    let help = world.run(&arguments).ok();
    for flag in line.iter().filter(|word| word.starts_with("--")) {
        let flag = flag.split('=').next().unwrap();
        assert!(help.contains(flag), "{place}: {line:?} has no {flag}");
    }
}

#[test]
fn every_command_of_deploy_and_its_docs_can_be_read() {
    let mut lines = Vec::new();
    let exec = setting("deploy/systemd/onceward.service", "ExecStart=/usr/bin/onceward");
    lines.push(exec.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    let docker = "deploy/Dockerfile";
    assert_eq!(words(&setting(docker, "ENTRYPOINT")), ["onceward"]);
    lines.push(words(&setting(docker, "CMD")));
    let health = setting(docker, "HEALTHCHECK");
    lines.push(words(health.split_once("CMD ").unwrap().1)[1..].to_vec());
    for path in KUBERNETES {
        let (_, pod) = of_kubernetes(path);
        let arguments = &pod["containers"][0]["args"];
        lines.push(serde_json::from_value(arguments.clone()).unwrap());
    }
    // Those of code blocks: `onceward …`, whoever runs it.
    let docs = text("docs/deploy.md");
    let mut is_code = false;
    for line in docs.lines() {
        if line.starts_with("```") {
            is_code = line == "```sh";
            continue;
        }
        let line = line.split(" #").next().unwrap();
        let Some((before, line)) = line.split_once("onceward ").filter(|_| is_code) else {
            continue;
        };
        if before.is_empty() || before.ends_with(' ') && !before.contains("systemctl") {
            let line = line.strip_prefix("onceward ").unwrap_or(line);
            let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
            if words.first().is_some_and(|verb| verb.bytes().all(|b| b.is_ascii_lowercase())) {
                lines.push(words);
            }
        }
    }
    assert!(lines.len() > 8, "{lines:#?}");
    for line in &lines {
        holds(line, "deploy");
    }
}

#[test]
fn every_path_that_a_probe_asks_for_answers() {
    let world = World::new();
    let gateway = world.serve();
    let mut paths = Vec::new();
    for path in KUBERNETES {
        let (_, pod) = of_kubernetes(path);
        let container = &pod["containers"][0];
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            assert_eq!(container[probe]["httpGet"]["port"], "http", "{path}: {probe}");
            paths.push(container[probe]["httpGet"]["path"].as_str().unwrap().to_owned());
        }
    }
    let asked = setting("deploy/compose/haproxy.cfg", "option httpchk");
    paths.push(asked.split_once(' ').unwrap().1.to_owned());
    for path in paths {
        assert_eq!(gateway.call("GET", &path, &[], "").status, 200, "{path}");
    }
    assert_eq!(gateway.run(&["check", "--ready"]).ok(), "ready\n");
    assert_eq!(gateway.run(&["check", "--ready", "--json"]).json()["ready"], true);
    gateway.kill();
    let said = world.run(&["check", "--ready", "--url", "http://127.0.0.1:1"]).failed(1);
    assert!(said.contains("no gateway is reached"), "{said}");
}

#[test]
fn whoever_stops_a_gateway_waits_for_its_drain() {
    let seconds = |text: &str| text.trim_end_matches('s').parse::<u64>().unwrap();
    for path in COMPOSE {
        for (run, service) in of_compose(path) {
            let grace = seconds(service["stop_grace_period"].as_str().unwrap());
            assert!(grace >= DRAIN, "{}: {grace}", run.place);
        }
    }
    for path in KUBERNETES {
        let (_, pod) = of_kubernetes(path);
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        let before = &pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"];
        assert!(grace >= DRAIN + before.as_u64().unwrap(), "{path}: {grace}");
    }
    assert!(seconds(&setting("deploy/systemd/onceward.service", "TimeoutStopSec=")) >= DRAIN);
}

#[test]
fn containers_run_as_nobody_and_write_only_to_their_data() {
    for path in KUBERNETES {
        let (_, pod) = of_kubernetes(path);
        let (all, own) = (&pod["securityContext"], &pod["containers"][0]["securityContext"]);
        assert_eq!(all["runAsNonRoot"], true, "{path}");
        assert_eq!(all["runAsUser"], 65532, "{path}");
        assert_eq!(all["seccompProfile"]["type"], "RuntimeDefault", "{path}");
        assert_eq!(own["allowPrivilegeEscalation"], false, "{path}");
        assert_eq!(own["readOnlyRootFilesystem"], true, "{path}");
        assert_eq!(own["capabilities"]["drop"][0], "ALL", "{path}");
        assert_eq!(pod["automountServiceAccountToken"], false, "{path}");
    }
    for path in COMPOSE {
        for (run, service) in of_compose(path) {
            assert_eq!(service["read_only"], true, "{}", run.place);
            assert_eq!(service["cap_drop"][0], "ALL", "{}", run.place);
            assert_eq!(service["security_opt"][0], "no-new-privileges:true", "{}", run.place);
        }
    }
    let dockerfile = text("deploy/Dockerfile");
    let (_, image) = dockerfile.rsplit_once("\nFROM ").unwrap();
    assert!(!image.contains("\nRUN "), "there is no shell in the image");
    assert_eq!(setting("deploy/Dockerfile", "USER "), "65532:65532");
}
