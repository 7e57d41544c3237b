//! The gateway as a process: started on a folder of its own, killed without mercy, started again.
//! It ends with whoever holds it.

use std::fs::{DirBuilder, File};
use std::io::{self, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::oneshot;

use crate::line::{Line, Message};

/// Longer than a start takes on a busy machine, and than a drain takes.
const PATIENCE: Duration = Duration::from_mins(1);

/// How often something is looked at again that tells no one when it changes.
const LOOK: Duration = Duration::from_millis(20);

/// A new folder that only its owner enters; it goes with its holder unless it is kept.
#[derive(Debug)]
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    is_kept: bool,
}

impl Folder {
    /// A folder at `path` that stays, or one among the temporary files that does not.
    pub fn new(path: Option<&Path>) -> io::Result<Self> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let mark = now.unwrap_or_default().as_nanos();
        let made = path.map_or_else(
            || std::env::temp_dir().join(format!("onceward-chaos-{}-{mark}", std::process::id())),
            Path::to_owned,
        );
        // Not recursive: what is there already is somebody else's.
        DirBuilder::new().mode(0o700).create(&made)?;
        Ok(Self { path: made, is_kept: path.is_some() })
    }

    /// Leaves it where it is.
    pub fn keep(&mut self) {
        self.is_kept = true;
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.is_kept {
            // What cannot be removed now, a person finds by its name.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// How to start a gateway.
#[derive(Debug)]
pub struct Binary {
    /// The executable.
    pub program: PathBuf,
    /// Its configuration.
    pub config: PathBuf,
    /// Where each life's log goes, as `gateway-1.log` and so on.
    pub logs: PathBuf,
    /// What it logs.
    pub level: &'static str,
    /// How often it was started.
    pub lives: usize,
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// How long it took from its start until it was ready.
    pub ready_after: Duration,
}

impl Binary {
    /// Starts it, and waits until it is ready.
    pub async fn start(&mut self) -> io::Result<Gateway> {
        self.lives += 1;
        let began = Instant::now();
        let mut child = self.command().spawn()?;
        let stderr = child.stderr.take().ok_or_else(|| io::Error::other("no log"))?;
        let (ready, address) = oneshot::channel();
        let mut file = File::create(self.log())?;
        std::thread::spawn(move || tee(BufReader::new(stderr), &mut file, ready));
        // Held at once, so that it ends with this future too.
        let mut gateway =
            Gateway { child, address: ([127, 0, 0, 1], 0).into(), ready_after: Duration::ZERO };
        let told = tokio::time::timeout(PATIENCE, address).await;
        let Ok(Ok(address)) = told else {
            return Err(self.complaint("the gateway did not start"));
        };
        gateway.address = address;
        gateway.ready_after = began.elapsed();
        Ok(gateway)
    }

    fn log(&self) -> PathBuf {
        self.logs.join(format!("gateway-{}.log", self.lives))
    }

    /// What is wrong, with the last that this life said.
    pub fn complaint(&self, what: &str) -> io::Error {
        const LINES_MAX: usize = 5;
        let said = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(LINES_MAX)..].join("\n");
        io::Error::other(format!("{what}; it said last:\n{last}"))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["serve", "--log", self.level, "--config"]).arg(&self.config);
        for (name, _) in std::env::vars_os() {
            // Not the surroundings' configuration.
            if name.to_string_lossy().starts_with("ONCEWARD_") {
                command.env_remove(name);
            }
        }
        // A Ctrl-C at the terminal is for whoever started us: we end the gateway ourselves.
        command.process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }
}

fn tee(from: impl io::BufRead, into: &mut File, ready: oneshot::Sender<SocketAddr>) {
    let mut ready = Some(ready);
    for line in from.lines().map_while(Result::ok) {
        // A log that cannot be written is missed by whoever reads it.
        let _ = writeln!(into, "{line}");
        if ready.is_some() {
            let line: Value = serde_json::from_str(&line).unwrap_or_default();
            let address = line["address"].as_str().and_then(|address| address.parse().ok());
            if let Some(address) = address {
                // Whoever does not wait any more needs no address.
                let _ = ready.take().map(|ready| ready.send(address));
            }
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Gateway {
    /// kill -9.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it ended by itself.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Reads from its API.
    pub async fn get(&self, path: &str) -> io::Result<Message> {
        let answer = Line::connect(self.address).await?.ask("GET", path, &[], &[]).await?;
        match answer.status() {
            200 => Ok(answer),
            status => Err(io::Error::other(format!("GET {path}: {status} {}", answer.code()))),
        }
    }

    /// Waits until nothing is pending or delivering.
    pub async fn quiet(&self) -> io::Result<()> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let stats = self.get("/v1/stats").await?.json();
            let open = ["pending", "pending_held", "delivering"];
            if open.iter().all(|standing| stats["operations"][standing] == 0) {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(io::Error::other("the gateway does not come to rest"))
    }

    /// Every operation in its ledger.
    pub async fn operations(&self) -> io::Result<Vec<Value>> {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("/v1/operations?limit=500{cursor}")).await?.json();
            all.extend(page["data"].as_array().cloned().unwrap_or_default());
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(all),
            }
        }
    }
}
