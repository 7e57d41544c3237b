//! A world of several nodes on one ledger in PostgreSQL, with callers that ask them all.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use onceward_proof::auditor::Auditor;
use onceward_proof::check::{Log, check};
use onceward_proof::figures::Figures;
use tempfile::TempDir;

use crate::crash_load::until_acknowledged;
use crate::crash_world::{self, Gateway, clean, until};
use crate::nodes_load::{Load, ask_again_for_all};
use crate::world::BINARY;

/// The same on every node.
const MASTER_KEY: &str = "7077707770777077707770777077707770777077707770777077707770777077";

/// Where each node listens now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places(Arc<Mutex<Vec<SocketAddr>>>);

impl Places {
    pub(crate) fn at(&self, node: usize) -> SocketAddr {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[node]
    }

    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn set(&self, node: usize, place: SocketAddr) {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if node == places.len() {
            places.push(place);
        } else {
            places[node] = place;
        }
    }
}

/// Several nodes on one ledger.
#[derive(Debug)]
pub(crate) struct Cluster {
    folder: TempDir,
    /// How many nodes there are once all are started.
    count: usize,
    pub(crate) auditor: Auditor,
    pub(crate) log: Arc<Log>,
    pub(crate) nodes: Vec<Gateway>,
    pub(crate) places: Places,
    /// What the next node that is started runs.
    pub(crate) binary: PathBuf,
    seed: u64,
}

impl Cluster {
    /// A node for each of `ledgers`: ways to one database. None is started.
    pub(crate) async fn of(ledgers: &[String], seed: u64, routes: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let auditor = Auditor::start(seed).await;
        for (node, ledger) in ledgers.iter().enumerate() {
            let data = folder.path().join(format!("node-{node}")).display().to_string();
            // No attempt ends by its time: one that stood still with its node has to hear its answer.
            let routes = crash_world::routes(routes, auditor.address)
                .replace("timeout = \"5s\"", "timeout = \"60s\"");
            let text =
                format!("listen = \"127.0.0.1:0\"\nstore = {ledger:?}\ndata = {data:?}\n{routes}");
            fs::write(folder.path().join(format!("node-{node}.toml")), text)
                .expect("a configuration");
        }
        let (log, places) = (Arc::default(), Places::default());
        let binary = BINARY.into();
        Self { folder, count: ledgers.len(), auditor, log, nodes: Vec::new(), places, binary, seed }
    }

    /// The same, and all of them started.
    pub(crate) async fn start(ledgers: &[String], seed: u64) -> Self {
        let mut cluster = Self::of(ledgers, seed, "").await;
        cluster.begin().await;
        cluster
    }

    /// Starts all of them.
    pub(crate) async fn begin(&mut self) {
        for node in 0..self.count {
            let started = self.launch(node).await;
            // It listens before its ledger is there, where it has to wait for that.
            until("a node to be ready", async || {
                let answer = started.line().await.ask("GET", "/readyz", &[], b"").await.ok()?;
                (answer.status() == 200).then_some(())
            })
            .await;
            self.nodes.push(started);
        }
    }

    /// How a node is started.
    pub(crate) fn command(&self, node: usize) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(["serve", "--config"]);
        command.arg(self.folder.path().join(format!("node-{node}.toml")));
        clean(&mut command);
        command.env("ONCEWARD_MASTER_KEY", MASTER_KEY);
        command
    }

    /// Starts a node of which nobody is told.
    pub(crate) async fn started(&self, node: usize) -> Gateway {
        Gateway::start(self.command(node)).await.unwrap_or_else(|ended| {
            panic!("node {node} did not start: {}\n{}", ended.status, ended.said)
        })
    }

    /// Starts a node, which `nodes` does not have yet, in its place.
    pub(crate) async fn launch(&self, node: usize) -> Gateway {
        let started = self.started(node).await;
        self.places.set(node, started.address);
        started
    }

    /// Kills a node and starts it again.
    pub(crate) async fn replace(&mut self, node: usize) {
        self.nodes[node].kill();
        self.nodes[node] = self.launch(node).await;
    }

    /// Asks a node to end, and starts it again.
    pub(crate) async fn restart(&mut self, node: usize) {
        let status = self.nodes[node].stop().await;
        assert!(status.success(), "{}", self.nodes[node].said());
        self.nodes[node] = self.launch(node).await;
    }

    /// Callers that ask all nodes, until they are told to stop.
    pub(crate) fn load(&self, callers: u64, patience: Duration) -> Load {
        Load::begin(&self.log, &self.places, callers, patience, self.seed)
    }

    /// No node may have ended by itself.
    pub(crate) fn expect_alive(&mut self) {
        for (place, node) in self.nodes.iter_mut().enumerate() {
            assert!(!node.has_ended(), "node {place} ended by itself:\n{}", node.said());
        }
    }

    /// Waits for everything to come to rest, asks every node again for all that was acknowledged, and
    /// holds all of it against the promises.
    pub(crate) async fn judge(&mut self, load: Load, figures: &mut Figures) {
        until_acknowledged(&self.log, 201).await;
        let odd = load.end().await;
        self.expect_alive();
        until("a node to answer", async || self.nodes[0].is_ready().await.then_some(())).await;
        self.nodes[0].quiet().await;
        ask_again_for_all(&self.log, &self.places).await;
        self.nodes[0].quiet().await;
        let operations = self.nodes[0].operations().await;
        let mut checked = check(&self.log, &self.auditor, &operations);
        checked.violations.extend(odd);
        figures.checked(&checked.figures);
        figures.tell(checked.violations.len());
        let counted = checked.expect_kept();
        // A run in which every call fails proves nothing.
        assert!(counted.acknowledged > 200 && counted.replayed > 50, "too tame: {counted:?}");
    }
}

impl Gateway {
    /// Whether it can write to its ledger.
    pub(crate) async fn is_ready(&self) -> bool {
        let Ok(mut line) = onceward_proof::line::Line::connect(self.address).await else {
            return false;
        };
        line.ask("GET", "/readyz", &[], &[]).await.is_ok_and(|answer| answer.status() == 200)
    }
}
