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

/// The same with a route to a mail server, whose attempts may take 2 min.
const DRAIN_OF_MAIL: u64 = 135;

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
        // What has no value is passed on from `.env`.
        let value = |value: &Value| filled(value.as_str().unwrap_or("${}"));
        let set = set.iter().map(|(name, it)| (name.clone(), value(it)));
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
    let container = &pod["containers"][0];
    let set = container["env"].as_array().unwrap().iter().map(|variable| {
        let name = variable["name"].as_str().unwrap().to_owned();
        let from = "postgres://onceward:p@postgres/onceward?sslmode=require";
        (name, variable["value"].as_str().unwrap_or(from).to_owned())
    });
    let mut environment: BTreeMap<String, String> = set.collect();
    let secret = &container["envFrom"][0]["secretRef"];
    assert_eq!(secret["optional"], true, "{path}: it starts without");
    if secret["name"].is_string() {
        environment.insert(SHOWN.0.to_owned(), SHOWN.1.to_owned());
    }
    let run = Run { place: path.to_owned(), environment, configuration: configuration.to_owned() };
    (run, pod)
}

/// The variable that the configurations show.
const SHOWN: (&str, &str) = ("STRIPE_KEY", "sk_live_7");

/// What Kubernetes says to each container of the Service `onceward` and of `onceward-postgres`, where nobody tells it
/// not to.
const SERVICES: [(&str, &str); 9] = [
    ("ONCEWARD_SERVICE_HOST", "10.96.0.7"),
    ("ONCEWARD_SERVICE_PORT", "7077"),
    ("ONCEWARD_SERVICE_PORT_HTTP", "7077"),
    ("ONCEWARD_PORT", "tcp://10.96.0.7:7077"),
    ("ONCEWARD_PORT_7077_TCP", "tcp://10.96.0.7:7077"),
    ("ONCEWARD_PORT_7077_TCP_ADDR", "10.96.0.7"),
    ("ONCEWARD_PORT_7077_TCP_PORT", "7077"),
    ("ONCEWARD_PORT_7077_TCP_PROTO", "tcp"),
    ("ONCEWARD_POSTGRES_SERVICE_HOST", "10.96.0.8"),
];

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
    for path in KUBERNETES {
        let (mut run, pod) = of_kubernetes(path);
        assert_eq!(pod["enableServiceLinks"], false, "{path}");
        // Whoever takes that line out starts as well.
        run.environment.extend(SERVICES.map(|(name, value)| (name.to_owned(), value.to_owned())));
        runs.push(run);
    }
    assert!(setting("deploy/systemd/onceward.service", "EnvironmentFile=").contains("environment"));
    runs.push(Run {
        place: "deploy/systemd/onceward.toml".to_owned(),
        environment: [(SHOWN.0.to_owned(), SHOWN.1.to_owned())].into(),
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
                command.envs(&run.environment);
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
        // What a pod runs stands behind its own words, in which there is a namespace of our name.
        let ours = if line.starts_with("kubectl") { "-- onceward " } else { "onceward " };
        let Some((before, line)) = line.split_once(ours).filter(|_| is_code) else {
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
            assert!(grace >= DRAIN_OF_MAIL, "{}: {grace}", run.place);
        }
    }
    for path in KUBERNETES {
        let (_, pod) = of_kubernetes(path);
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        let before = &pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"];
        assert!(grace >= DRAIN_OF_MAIL + before.as_u64().unwrap(), "{path}: {grace}");
    }
    // It is told how long a longer one takes.
    assert!(seconds(&setting("deploy/systemd/onceward.service", "TimeoutStopSec=")) >= DRAIN);
}

/// The documents of the Job that puts a backup back: the volume that it fills, and its pod.
fn restoring() -> (Value, Value) {
    let [volume, job] = &documents("deploy/kubernetes/restore.yaml")[..] else {
        panic!("a volume and a job")
    };
    (volume.clone(), job["spec"]["template"]["spec"].clone())
}

#[test]
fn a_backup_is_put_back_into_the_volume_that_the_gateway_starts_with() {
    let set = documents("deploy/kubernetes/embedded.yaml").pop().unwrap();
    let (volume, pod) = restoring();
    let templates = set["spec"]["volumeClaimTemplates"].as_array().unwrap();
    let of_pod = |name: &str| format!("{name}-{}-0", set["metadata"]["name"].as_str().unwrap());
    let running = &set["spec"]["template"]["spec"]["containers"][0];
    let job = &pod["containers"][0];
    assert_eq!(running["image"], job["image"]);
    let mounts = |container: &Value, name: &str| {
        let mounts = container["volumeMounts"].as_array().unwrap().clone();
        mounts.into_iter().find(|mount| mount["name"] == name).unwrap()["mountPath"].clone()
    };
    for template in templates {
        let name = template["metadata"]["name"].as_str().unwrap();
        let volumes = pod["volumes"].as_array().unwrap();
        let claimed = volumes.iter().find(|volume| volume["name"] == name).unwrap();
        assert_eq!(claimed["persistentVolumeClaim"]["claimName"], of_pod(name));
        assert_eq!(mounts(running, name), mounts(job, name));
    }
    assert_eq!(templates.len(), 2, "the ledger, and its copies");
    assert_eq!(volume["metadata"]["name"], of_pod("data"));
    assert_eq!(volume["spec"], templates[0]["spec"]);
    assert_eq!(mounts(running, "config"), mounts(job, "config"), "it says where the ledger is");
    let copies = mounts(job, "copies").as_str().unwrap().to_owned();
    let arguments: Vec<String> = serde_json::from_value(job["args"].clone()).unwrap();
    assert!(arguments[0] == "restore" && arguments[1].starts_with(&copies), "{arguments:?}");
}

#[test]
fn containers_run_as_nobody_and_write_only_to_their_data() {
    let pods = KUBERNETES.map(|path| (path, of_kubernetes(path).1));
    for (path, pod) in pods.into_iter().chain([("restore.yaml", restoring().1)]) {
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
