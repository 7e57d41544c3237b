//! A folder with the real gateway in it, callers, and an upstream that does as it is told.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

pub(crate) mod document;
mod http;
mod upstream;

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) use http::{Response, call, read_head, read_line};
pub(crate) use upstream::Upstream;

/// Longer than anything takes on a busy machine: whoever waits so long waits in vain. Where a promise is broken
/// on purpose that is what is to be seen: five times the seconds of `TEST_PATIENCE` will do for a process.
fn patience() -> Duration {
    let seconds = std::env::var("TEST_PATIENCE").ok().and_then(|text| text.parse::<u64>().ok());
    Duration::from_secs(seconds.map_or(60, |seconds| 5 * seconds))
}

/// Waits until `what` is there.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + patience();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The gateway and its verbs.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_onceward");

/// With none of the surroundings' settings.
pub(crate) fn clean(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("ONCEWARD_") || name_text.starts_with("OTEL_") {
            command.env_remove(name);
        }
    }
    // Where a person's own contexts would be.
    command.env("XDG_CONFIG_HOME", "/nonexistent");
    command.stdin(Stdio::null());
}

/// A figure of `/proc/{id}/status`, in KiB.
pub(crate) fn memory(id: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A folder that goes with the test.
pub(crate) struct World {
    folder: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("tmp")).unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// The binary in this folder, with none of the surroundings' settings.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        clean(&mut command);
        // What a verb leaves among the temporary files is seen.
        command.env("TMPDIR", self.path("tmp")).env("XDG_CONFIG_HOME", self.path("config"));
        command.current_dir(self.folder.path()).args(arguments);
        command
    }

    /// Starts a verb that does not end by itself: what it says, and the process.
    pub(crate) fn start(&self, arguments: &[&str]) -> (Running, Log, Log) {
        Running::start(self.command(arguments))
    }

    /// Runs a verb to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        Ended::from(self.command(arguments).output().unwrap())
    }

    /// Starts the gateway on a free port of loopback, and waits until it is ready.
    pub(crate) fn serve(&self) -> Gateway {
        self.serve_at("127.0.0.1:0")
    }

    pub(crate) fn serve_at(&self, listen: &str) -> Gateway {
        self.serve_with(&["--listen", listen])
    }

    /// With these variables in its environment.
    pub(crate) fn serve_in(&self, environment: &[(&str, &str)]) -> Gateway {
        let mut command = self.command(&["serve", "--listen", "127.0.0.1:0"]);
        command.envs(environment.iter().copied());
        self.serve_by(command)
    }

    pub(crate) fn serve_with(&self, flags: &[&str]) -> Gateway {
        self.serve_by(self.command(&[&["serve"], flags].concat()))
    }

    /// Starts the gateway by a command that ends up as it, and waits until it is ready.
    pub(crate) fn serve_by(&self, mut command: Command) -> Gateway {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Log::read(child.stderr.take().unwrap());
        let mut gateway = Gateway {
            child,
            log,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            folder: self.folder.path().to_owned(),
        };
        let ready = gateway.log.until("is ready");
        let line: Value = serde_json::from_str(&ready).unwrap();
        let listen: SocketAddr = line["address"].as_str().unwrap().parse().unwrap();
        gateway.address.set_port(listen.port());
        gateway
    }
}

/// How a verb ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ended {
    /// Its data, where it ended well.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// Its talk, where it ended with `code`.
    #[track_caller]
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        self.err
    }

    /// Its data as JSON.
    #[track_caller]
    pub(crate) fn json(self) -> Value {
        let out = self.ok();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }
}

/// What a process writes, line by line.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<(Mutex<Vec<String>>, Condvar)>);

impl Log {
    pub(crate) fn read(from: impl std::io::Read + Send + 'static) -> Self {
        let log = Self::default();
        let written = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                written.0.0.lock().unwrap().push(line);
                written.0.1.notify_all();
            }
        });
        log
    }

    /// Waits for a line with `words`.
    #[track_caller]
    pub(crate) fn until(&self, words: &str) -> String {
        self.until_one_of(&[words])
    }

    /// Waits for a line with any of these words.
    #[track_caller]
    pub(crate) fn until_one_of(&self, words: &[&str]) -> String {
        let is_one = |line: &&String| words.iter().any(|words| line.contains(words));
        let has = |lines: &[String]| lines.iter().find(is_one).cloned();
        let lines = self.0.0.lock().unwrap();
        let (lines, _) =
            self.0.1.wait_timeout_while(lines, patience(), |lines| has(lines).is_none()).unwrap();
        has(&lines).unwrap_or_else(|| panic!("no line says {words:?}: {lines:#?}"))
    }

    pub(crate) fn has(&self, words: &str) -> bool {
        self.count(words) > 0
    }

    /// How many lines so far have `words`.
    pub(crate) fn count(&self, words: &str) -> usize {
        self.0.0.lock().unwrap().iter().filter(|line| line.contains(words)).count()
    }
}

/// A running gateway; it ends with the test.
pub(crate) struct Gateway {
    child: Child,
    pub(crate) log: Log,
    pub(crate) address: SocketAddr,
    folder: PathBuf,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Gateway {
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        clean(&mut command);
        command
            .current_dir(&self.folder)
            .env("ONCEWARD_URL", format!("http://{}", self.address))
            .args(arguments);
        command
    }

    /// Runs a verb against it, in its folder.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        Ended::from(self.command(arguments).output().unwrap())
    }

    /// A file in its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Starts a verb that does not end by itself: what it says, and the process.
    pub(crate) fn start(&self, arguments: &[&str]) -> (Running, Log, Log) {
        Running::start(self.command(arguments))
    }

    /// One request; the connection is for it alone. Its answer is held to the document of the API.
    #[track_caller]
    pub(crate) fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response {
        let answer = call(self.address, method, path, headers, body).unwrap();
        document::hold(method, path, &answer);
        answer
    }

    /// Waits until the operation with this key is in `state`.
    pub(crate) fn until_state(&self, key: &str, state: &str) -> Value {
        until(&format!("{key} is {state}"), || {
            let found = self.run(&["ls", "--key", key, "--json"]).json();
            Some(found[0].clone()).filter(|operation| operation["state"] == state)
        })
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send_signal(&self.child, signal);
    }

    /// Waits for its end.
    pub(crate) fn ended(mut self) -> ExitStatus {
        wait(&mut self.child)
    }

    /// A figure of `/proc/{id}/status`, in KiB.
    pub(crate) fn memory(&self, name: &str) -> u64 {
        memory(self.child.id(), name)
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(self) {
        self.signal(Signal::KILL);
        self.ended();
    }
}

/// A verb that runs; it ends with the test.
pub(crate) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    pub(crate) fn start(mut command: Command) -> (Self, Log, Log) {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, err) =
            (Log::read(child.stdout.take().unwrap()), Log::read(child.stderr.take().unwrap()));
        (Self(child), out, err)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send_signal(&self.0, signal);
    }

    pub(crate) fn ended(mut self) -> ExitStatus {
        wait(&mut self.0)
    }
}

fn send_signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn wait(child: &mut Child) -> ExitStatus {
    until("the process ends", || child.try_wait().unwrap())
}

/// A route to `upstream` that is tried again soon, and never given up within a test.
pub(crate) fn route(name: &str, upstream: SocketAddr) -> String {
    format!(
        "[routes.{name}]\nupstream = \"http://{upstream}\"\neffects = \"idempotent\"\nbreaker = false\n\
         retry = {{ attempts_max = 1000, base = \"50ms\", floor = \"10ms\", cap = \"100ms\" }}\n"
    )
}

/// Whether `words` stand in any file below `folder`.
pub(crate) fn is_in_a_file(folder: &Path, words: &str) -> bool {
    std::fs::read_dir(folder).unwrap().flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return is_in_a_file(&path, words);
        }
        // Segments are large: searched as text they take a moment, window by window many.
        let bytes = std::fs::read(&path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).contains(words)
    })
}
