//! The metrics, as those read them who are to: `promtool`, and a real Prometheus that scrapes them.
//! Without Debian's package `prometheus` these are skipped, which is told.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use onceward_proof::figures::tell;

use crate::browser_world::on_path;
use crate::world::{Gateway, World, call, until};

/// Where a program is, where it is.
fn program(name: &str) -> Option<PathBuf> {
    let found = on_path(name);
    if found.is_none() {
        tell(&format!("SKIPPED: there is no {name} (Debian: prometheus)"));
    }
    found
}

/// A gateway on which something happened.
fn used(world: &World) -> Gateway {
    let gateway = world.serve();
    for _ in 0..3 {
        let headers = [("idempotency-key", "a")];
        let answer = gateway.call("POST", "/to/demo/orders?script=503,201", &headers, "{}");
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    gateway
}

fn checked(promtool: &Path, args: &[&str], input: &str) {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/prometheus");
    let mut command = Command::new(promtool);
    command.args(args).current_dir(deploy);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&said));
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics_the_alerts_and_their_tests() {
    let Some(promtool) = program("promtool") else { return };
    let world = World::new();
    let metrics = used(&world).call("GET", "/metrics", &[], "").text();
    checked(&promtool, &["check", "metrics"], &metrics);
    checked(&promtool, &["check", "rules", "alerts.yml"], "");
    checked(&promtool, &["test", "rules", "alerts_test.yml"], "");
}

/// A Prometheus that ends with its test.
struct Prometheus {
    child: Child,
    address: SocketAddr,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    fn start(binary: &Path, world: &World, target: SocketAddr) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        world.write(
            "prometheus.yml",
            &format!(
                "global: {{ scrape_interval: 1s }}\nscrape_configs:\n  - job_name: onceward\n    static_configs: [{{ targets: [\"{target}\"] }}]\n"
            ),
        );
        let mut command = Command::new(binary);
        command.current_dir(world.path("."));
        command.args(["--config.file=prometheus.yml", "--storage.tsdb.path=tsdb"]);
        command.arg(format!("--web.listen-address={address}"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { child, address }
    }

    /// The value of the only series that `query` gives.
    fn value(&self, query: &str) -> Option<f64> {
        let path = format!("/api/v1/query?query={query}");
        // It answers otherwise while it starts.
        let answer =
            call(self.address, "GET", &path, &[], "").ok().filter(|it| it.status == 200)?;
        answer.json()["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    }
}

#[test]
fn a_real_prometheus_reads_what_happened() {
    let Some(binary) = program("prometheus") else { return };
    let world = World::new();
    let gateway = used(&world);
    let prometheus = Prometheus::start(&binary, &world, gateway.address);
    until("it has scraped", || prometheus.value("onceward_operations_total"));
    for (query, value) in [
        ("onceward_operations_total", 1.0),
        ("sum(onceward_duplicates_total)", 2.0),
        ("onceward_duplicates_total{answer=%22replayed%22}", 2.0),
        ("onceward_recovered_total", 1.0),
        ("sum(onceward_attempts_total)", 2.0),
        ("sum(onceward_attempt_duration_seconds_count)", 2.0),
        ("up", 1.0),
    ] {
        assert_eq!(prometheus.value(query), Some(value), "{query}");
    }
}

#[test]
fn keys_doubts_leases_and_durable_writes_are_told() {
    let world = World::new();
    let gateway = world.serve();
    let ask = |path: &str, key: &str| {
        gateway.call("POST", path, &[("idempotency-key", key)], "{}");
    };
    ask("/to/demo/orders", "kept");
    ask("/to/demo/orders", "gone");
    ask("/to/demo/orders", "free");
    for (key, then) in [("gone", "refuse"), ("free", "new")] {
        let why = format!(r#"{{"reason": "r", "then": "{then}"}}"#);
        let json = [("content-type", "application/json")];
        let answer = gateway.call("DELETE", &format!("/v1/keys/demo/{key}"), &json, &why);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let text = || gateway.call("GET", "/metrics", &[], "").text();
    let value = |name: &str| -> Option<f64> {
        let text = text();
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(name));
        lines.find_map(|rest| rest.strip_prefix(' ')?.parse().ok())
    };
    until("all that came to rest is counted", || {
        (value("onceward_keys_kept") == Some(3.0)).then_some(())
    });
    for (name, wanted) in [
        ("onceward_keys_total{event=\"invalidated\"}", 1.0),
        ("onceward_keys_total{event=\"forgotten\"}", 1.0),
        ("onceward_keys_expiring", 0.0),
        ("onceward_tombstones", 0.0),
        ("onceward_in_doubt_age_seconds", 0.0),
        ("onceward_leases_lost_total", 0.0),
    ] {
        assert_eq!(value(name), Some(wanted), "{name}");
    }
    let (count, commits) = ("onceward_ledger_commit_seconds_count", "onceward_ledger_commits");
    assert!(value(count).unwrap() >= 3.0, "each of them was");
    assert!(value(count) <= value(commits), "those since it is told");
    assert!(value("onceward_ledger_commit_seconds_sum").unwrap() > 0.0);
}
