//! Schemathesis: requests made of the document of the API, right and wrong ones, against a gateway that has
//! something of each kind in its ledger. What it finds is no answer as the document has it, or a 500.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Outcome, sdks, steps};

/// How long it asks, in seconds.
const SHORT: u32 = 90;
const LONG: u32 = 1800;

const SEED: &str = "20261127";

/// The routes of the gateway that is asked: to the scripted upstreams of another.
const CONFIGURATION: &str = r#"[routes.pay]
upstream = "http://UPSTREAM/to/demo"
effects  = "keyed"
breaker  = false
timeout  = "5s"
held     = { attempts_max = 1 }

[routes.ship]
upstream = "http://UPSTREAM/to/demo-unsafe"
effects  = "non-idempotent"
breaker  = false
held     = { attempts_max = 1 }

[routes.crm]
upstream = "http://127.0.0.1:1"
effects  = "idempotent"
breaker  = false
retry    = { attempts_max = 2, base = "1h", cap = "1h" }

[sources.hooks]
verify = { scheme = "github", secret = "of the source" }
to     = "crm"
path   = "/hooks"

[claims.mails]
lease = "30s"
"#;

/// Builds the gateway, and runs it. `--long` takes its time, `--seed` says where chance begins; all else goes to
/// schemathesis.
pub(crate) fn run(args: &[String]) -> Outcome<()> {
    ask(&steps::gateway()?, args)
}

/// The same against a gateway that is built.
pub(crate) fn ask(gateway: &Path, args: &[String]) -> Outcome<()> {
    let (mut seconds, mut seed, mut more) = (SHORT, SEED.to_owned(), Vec::new());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--long" => seconds = LONG,
            "--seed" => seed.clone_from(args.next().ok_or("--seed wants a number")?),
            other => more.push(other.to_owned()),
        }
    }
    let python = match sdks::python_with("schemathesis") {
        Ok(python) => python,
        Err(error) => {
            println!(
                "schemathesis: NOT there ({error}): the API is NOT asked, this check is SKIPPED"
            );
            return Ok(());
        }
    };
    let folder = steps::root().join("target/schemathesis");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let upstream = Gateway::start(gateway, &folder.join("upstream"), None)?;
    let configuration = CONFIGURATION.replace("UPSTREAM", &upstream.address);
    let gateway = Gateway::start(gateway, &folder.join("gateway"), Some(&configuration))?;
    prepare(&gateway, &folder)?;
    if seconds == SHORT {
        // Which right requests chance makes differs from run to run; only a long run asks whether all are taken.
        more.extend(["--exclude-checks", "positive_data_acceptance"].map(str::to_owned));
    }
    println!("schemathesis: {seconds} s against {}, --seed {seed}", gateway.address);
    let document = steps::root().join("docs/openapi.json");
    steps::succeed(Command::new(&python).args(["-m", "openapi_spec_validator"]).arg(document))?;
    let mut command = Command::new(python);
    command
        .current_dir(&folder)
        .args(["-m", "schemathesis.cli", "--config-file", "schemathesis.toml", "run"])
        .arg(format!("http://{}/v1/openapi.json", gateway.address))
        .args(["--url", &format!("http://{}", gateway.address)])
        .args(["--seed", &seed, "--max-time", &seconds.to_string()])
        .args(more);
    let done = steps::succeed(&mut command);
    let condition = gateway.run(&["ls", "--limit", "1", "--json"]);
    condition.map_err(|error| format!("the gateway is not well afterwards: {error}"))?;
    done.map_err(|error| {
        format!("schemathesis: {error}\nagain: cargo xtask schemathesis --seed {seed}").into()
    })
}

/// Something of each kind, and the files that schemathesis reads.
fn prepare(gateway: &Gateway, folder: &Path) -> Outcome<()> {
    gateway.run(&["access", "create", "somebody", "--json"])?;
    for (to, key, more) in [
        ("pay/orders", "done-1", None),
        ("ship/orders?script=drop", "doubt-1", None),
        ("pay/orders?script=404", "dead-1", Some("--accepted")),
        ("crm/contacts", "pending-1", Some("--accepted")),
    ] {
        let mut verb = vec!["send", to, "--key", key, "--body", "{\"qty\": 1}"];
        verb.extend(more);
        // One that is not answered well is what is wanted here.
        drop(gateway.run(&verb));
    }
    let operations: Value = serde_json::from_str(&gateway.run(&["ls", "--json"])?)?;
    let ids: Vec<_> =
        operations.as_array().into_iter().flatten().map(|it| it["id"].to_string()).collect();
    if ids.len() < 4 {
        return Err(format!("four operations were sent, and there are {}", ids.len()).into());
    }
    let bulk = ["bulk", "redeliver", "--route", "crm", "--reason", "nothing matches", "--json"];
    let bulk: Value = gateway
        .run(&bulk)
        .ok()
        .and_then(|said| serde_json::from_str(&said).ok())
        .unwrap_or_default();
    let id_of = |verb: &[&str]| -> Outcome<String> {
        let made: Value = serde_json::from_str(&gateway.run(verb)?)?;
        Ok(made["id"].as_str().unwrap_or_default().to_owned())
    };
    let subscription = id_of(&["subscriptions", "create", "crm/hooks", "--json"])?;
    let event = id_of(&["publish", "order.paid", "--key", "event-1", "--json"])?;
    let wanted = steps::root().join("crates/onceward-server/tests/schemathesis");
    let text = fs::read_to_string(wanted.join("schemathesis.toml"))?;
    let text = text.replace("\"IDS\"", &ids.join(", "));
    let text = text.replace("SUBSCRIPTION", &subscription).replace("EVENT", &event);
    // The operator's own key is in no list, so that no request revokes it.
    let key = fs::read_to_string(gateway.folder.join("onceward-data/operator.key"))?;
    let text = text.replace("KEY", key.trim());
    let text = text.replace("BULK", bulk["id"].as_str().unwrap_or("bulk_1"));
    fs::write(folder.join("schemathesis.toml"), text)?;
    fs::copy(wanted.join("hooks.py"), folder.join("hooks.py"))?;
    Ok(())
}

/// A gateway that runs; it ends with its value.
struct Gateway {
    binary: PathBuf,
    process: Child,
    folder: PathBuf,
    address: String,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Gateway {
    fn start(binary: &Path, folder: &Path, configuration: Option<&str>) -> Outcome<Self> {
        fs::create_dir_all(folder)?;
        if let Some(text) = configuration {
            fs::write(folder.join("onceward.toml"), text)?;
        }
        let log = folder.join("log");
        let process = command(binary, folder)
            .args(["serve", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()?;
        let (binary, folder) = (binary.to_owned(), folder.to_owned());
        let mut gateway = Self { binary, process, folder, address: String::new() };
        let end = Instant::now() + Duration::from_mins(1);
        while gateway.address.is_empty() {
            let said = fs::read_to_string(&log)?;
            if let Some(line) = said.lines().find(|line| line.contains("is ready")) {
                let line: Value = serde_json::from_str(line)?;
                line["address"].as_str().unwrap_or_default().clone_into(&mut gateway.address);
            }
            if Instant::now() > end || gateway.process.try_wait()?.is_some() {
                return Err(format!("the gateway does not start: {said}").into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(gateway)
    }

    /// What a verb prints that speaks to it.
    fn run(&self, verb: &[&str]) -> Outcome<String> {
        let mut command = command(&self.binary, &self.folder);
        command.env("ONCEWARD_URL", format!("http://{}", self.address)).args(verb);
        steps::output(&mut command)
    }
}

fn command(binary: &Path, folder: &Path) -> Command {
    let mut command = Command::new(binary);
    command.current_dir(folder).stdin(Stdio::null());
    command
}
