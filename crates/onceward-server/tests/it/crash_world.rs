//! A world for crash and fault tests: the real binary on a folder of its own, between a lean
//! caller and the auditor.

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;

use onceward::store::sqlite::{Examined, SqliteStore};
use onceward_proof::auditor::Auditor;
use onceward_proof::figures::tell;
use onceward_proof::line::{Line, Message};

use crate::world::{self, BINARY};

/// What hangs for longer than this never ends: the test fails instead.
const PATIENCE: Duration = Duration::from_mins(1);

/// How often something is looked at again that tells no one when it changes.
const LOOK: Duration = Duration::from_millis(20);

/// Routes for calls.
const ROUTES: &str = r#"
[routes.keyed]
upstream = "http://AUDITOR/keyed"
effects = "keyed"
wait = "2s"
held = { attempts_max = 4, base = "5ms", floor = "1ms", cap = "20ms" }
SOON

[routes.once]
upstream = "http://AUDITOR/once"
effects = "non-idempotent"
wait = "2s"
held = { attempts_max = 4, base = "5ms", floor = "1ms", cap = "20ms" }
SOON
"#;

/// How a route tries again soon, so that a run is short.
const SOON: &str = r#"
timeout = "5s"
retry = { attempts_max = 50, horizon = "1h", base = "20ms", floor = "5ms", cap = "200ms", factor = 2.0 }
breaker = { open = "50ms", open_max = "200ms" }
"#;

/// The routes of every world, and `more`; `AUDITOR` is the auditor's address there, and `SOON` how
/// a route tries again soon.
pub(crate) fn routes(more: &str, auditor: SocketAddr) -> String {
    format!("{ROUTES}{more}").replace("AUDITOR", &auditor.to_string()).replace("SOON\n", SOON)
}

/// A folder, a configuration and an upstream.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) auditor: Auditor,
}

/// How a process ended that was not to end.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) said: String,
}

/// A running gateway.
#[derive(Debug)]
pub(crate) struct Gateway {
    child: Child,
    pub(crate) address: SocketAddr,
    said: Arc<Mutex<String>>,
}

impl World {
    pub(crate) async fn new(seed: u64) -> Self {
        Self::with(seed, "").await
    }

    /// With further routes, as [`routes`] takes them.
    pub(crate) async fn with(seed: u64, routes: &str) -> Self {
        let auditor = Auditor::start(seed).await;
        let address = auditor.address;
        Self::before(auditor, address, routes)
    }

    /// With an auditor that is reached at `address`, whatever stands there.
    pub(crate) fn before(auditor: Auditor, address: SocketAddr, routes: &str) -> Self {
        let world = Self { folder: tempfile::tempdir().expect("a folder"), auditor };
        fs::create_dir(world.folder.path().join("data")).expect("a data folder");
        let text = format!(
            "listen = \"127.0.0.1:0\"\nstore = \"sqlite:{}\"\n\n[limits]\nsegment_bytes = \"1MiB\"\n{}",
            world.ledger().display(),
            self::routes(routes, address),
        );
        fs::write(world.config(), text).expect("a configuration");
        world
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("onceward.toml")
    }

    /// The data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The ledger's index.
    pub(crate) fn ledger(&self) -> PathBuf {
        self.data().join("ledger.db")
    }

    /// Reads the whole of the ledger, which no gateway has open.
    pub(crate) fn examine(&self) -> Examined {
        SqliteStore::examine(&self.ledger()).expect("a ledger that can be read")
    }

    /// The gateway's command, behind `wrapper` where there is one.
    pub(crate) fn command(&self, wrapper: &[&str]) -> Command {
        let mut command = match wrapper {
            [] => Command::new(BINARY),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(BINARY);
                command
            }
        };
        command.args(["serve", "--config"]).arg(self.config());
        clean(&mut command);
        command
    }

    /// With the data folder of another world, as it is now.
    pub(crate) fn copy_data_of(&self, other: &Self) {
        copy_folder(&other.data(), &self.data());
    }

    pub(crate) async fn start(&self) -> Gateway {
        self.start_behind(&[]).await.unwrap_or_else(|ended| {
            panic!("the gateway did not start: {}\n{}", ended.status, ended.said)
        })
    }

    pub(crate) async fn start_behind(&self, wrapper: &[&str]) -> Result<Gateway, Ended> {
        Gateway::start(self.command(wrapper)).await
    }
}

/// Copies every file below `from`; sparse stays sparse.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    let copied =
        Command::new("cp").arg("-a").arg("--sparse=always").arg(from.join(".")).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "{} cannot be copied", from.display());
}

/// With none of the surroundings' settings, and a log that is read.
pub(crate) fn clean(command: &mut Command) {
    world::clean(command);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
}

impl Gateway {
    /// Starts it and waits until it is ready or ends.
    pub(crate) async fn start(command: Command) -> Result<Self, Ended> {
        let (mut child, said, ready) = spawn(command);
        let address = tokio::time::timeout(PATIENCE, ready).await.expect("ready in time");
        if let Ok(address) = address {
            return Ok(Self { child, address, said });
        }
        let status = child.wait().expect("its end");
        Err(Ended { status, said: said_so_far(&said) })
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to its log.
    pub(crate) fn said(&self) -> String {
        said_so_far(&self.said)
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        self.child.wait().expect("its end");
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let mut looks = 0;
        loop {
            if let Some(status) = self.child.try_wait().expect("its state") {
                // Whoever reads its log lets go of it once the last word is read.
                let is_read = async || (Arc::strong_count(&self.said) == 1).then_some(());
                until("its last words", is_read).await;
                return status;
            }
            looks += 1;
            assert!(LOOK * looks < PATIENCE, "the gateway does not end:\n{}", self.said());
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("its state").is_some()
    }

    /// Asks it to end, and waits for that.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// Its end: asked for where it has not come by itself.
    pub(crate) async fn stopped(&mut self) -> ExitStatus {
        if self.has_ended() { self.ended().await } else { self.stop().await }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a process");
    }

    pub(crate) async fn line(&self) -> Line {
        Line::connect(self.address).await.expect("a connection")
    }

    /// Sends one call on a connection of its own.
    pub(crate) async fn call(&self, path: &str, key: &str, body: &[u8]) -> io::Result<Message> {
        let headers = [("idempotency-key", key), ("content-type", "application/json")];
        Line::connect(self.address).await?.ask("POST", &format!("/to{path}"), &headers, body).await
    }

    /// The same, accepted.
    pub(crate) async fn post(&self, path: &str, key: &str, body: &[u8]) -> io::Result<Message> {
        let headers = [
            ("idempotency-key", key),
            ("content-type", "application/json"),
            ("prefer", "respond-async"),
        ];
        Line::connect(self.address).await?.ask("POST", &format!("/to{path}"), &headers, body).await
    }

    /// Reads a document of the operator's API.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let answer = self.line().await.ask("GET", path, &[], &[]).await.expect("an answer");
        assert_eq!(answer.status(), 200, "GET {path}: {}", answer.json());
        answer.json()
    }

    /// The operation of a key, once it is at rest.
    pub(crate) async fn rested(&self, route: &str, key: &str) -> Value {
        let path = format!("/v1/keys/{route}/{key}");
        until(&format!("{route}/{key} to rest"), async || {
            let answer = self.line().await.ask("GET", &path, &[], &[]).await.ok()?;
            let operation = answer.json();
            let state = operation["state"].as_str()?.to_owned();
            ["done", "dead", "in_doubt"].contains(&state.as_str()).then_some(operation)
        })
        .await
    }

    /// Waits until nothing is pending or delivering.
    pub(crate) async fn quiet(&self) {
        until("everything to rest", async || {
            let counts = self.get("/v1/stats").await["operations"].clone();
            let open = ["pending", "pending_held", "delivering"];
            open.iter().all(|standing| counts[standing] == 0).then_some(())
        })
        .await;
    }

    /// Every operation in the ledger.
    pub(crate) async fn operations(&self) -> Vec<Value> {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("/v1/operations?limit=500{cursor}")).await;
            all.extend(page["data"].as_array().cloned().unwrap_or_default());
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return all,
            }
        }
    }

    /// A figure of `/proc/{id}/status`, in KiB.
    pub(crate) fn memory(&self, name: &str) -> u64 {
        world::memory(self.id(), name)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Looks until there is something; fails where there never is.
pub(crate) async fn until<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(std::time::Instant::now() < deadline, "waited too long for {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Starts a process that is not waited for.
pub(crate) fn spawn(
    mut command: Command,
) -> (Child, Arc<Mutex<String>>, oneshot::Receiver<SocketAddr>) {
    let mut child = command.spawn().expect("the binary");
    let stderr = child.stderr.take().expect("its log");
    let said = Arc::new(Mutex::new(String::new()));
    let (ready, address) = oneshot::channel();
    let shared = Arc::clone(&said);
    std::thread::spawn(move || {
        let mut ready = Some(ready);
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            // A guard's address comes with its route.
            let address = serde_json::from_str::<Value>(&line)
                .ok()
                .filter(|line| line["route"].is_null())
                .and_then(|line| line["address"].as_str()?.parse().ok());
            let mut said = shared.lock().unwrap_or_else(PoisonError::into_inner);
            said.push_str(&line);
            said.push('\n');
            drop(said);
            if let (Some(address), true) = (address, ready.is_some()) {
                // Whoever does not wait any more needs no address.
                let _ = ready.take().map(|ready| ready.send(address));
            }
        }
    });
    (child, said, address)
}

pub(crate) fn said_so_far(said: &Mutex<String>) -> String {
    said.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Whether it was killed by signal 9.
pub(crate) fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(9) || status.code() == Some(137)
}

/// A command's words, as they are passed on.
pub(crate) fn words(of: &[String]) -> Vec<&str> {
    of.iter().map(String::as_str).collect()
}

/// Does `work` on all of `items`, a few side by side: most of the time each of them waits.
pub(crate) async fn abreast<I, T, F>(
    items: Vec<I>,
    work: impl Fn(I) -> F + Send + Sync + 'static,
) -> Vec<T>
where
    I: Send + 'static,
    T: Send + 'static,
    F: Future<Output = T>,
{
    const ABREAST: usize = 4;
    let items = Arc::new(Mutex::new(items.into_iter()));
    let work = Arc::new(work);
    let mut lanes = Vec::new();
    for _ in 0..ABREAST {
        let (items, work) = (Arc::clone(&items), Arc::clone(&work));
        let runtime = tokio::runtime::Handle::current();
        lanes.push(tokio::task::spawn_blocking(move || {
            let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
            let mut done = Vec::new();
            while let Some(item) = next() {
                done.push(runtime.block_on(work(item)));
            }
            done
        }));
    }
    let mut all = Vec::new();
    for lane in lanes {
        all.extend(lane.await.expect("a lane that ends well"));
    }
    all
}

/// Whether `strace` may trace here.
pub(crate) fn can_trace() -> bool {
    let trial = Command::new("strace")
        .args(["-f", "-D", "-o", "/dev/null", "-e", "trace=pwrite64", "true"])
        .stderr(Stdio::null())
        .status();
    let can = trial.is_ok_and(|status| status.success());
    if !can {
        tell("skipped: strace is missing or may not trace here");
    }
    can
}
