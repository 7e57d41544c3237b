//! A folder with the real gateway in it, callers, and an upstream that does as it is told.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Longer than anything takes on a busy machine: whoever waits so long waits in vain.
const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until `what` is there.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
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
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_onceward"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ONCEWARD_")) {
            command.env_remove(name);
        }
        // What a verb leaves among the temporary files is seen.
        command.env("TMPDIR", self.path("tmp"));
        command.current_dir(self.folder.path()).args(arguments).stdin(Stdio::null());
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

    pub(crate) fn serve_with(&self, flags: &[&str]) -> Gateway {
        let mut command = self.command(&[&["serve"], flags].concat());
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
        let has = |lines: &[String]| lines.iter().find(|line| line.contains(words)).cloned();
        let lines = self.0.0.lock().unwrap();
        let (lines, _) =
            self.0.1.wait_timeout_while(lines, PATIENCE, |lines| has(lines).is_none()).unwrap();
        has(&lines).unwrap_or_else(|| panic!("no line says {words:?}: {lines:#?}"))
    }

    pub(crate) fn has(&self, words: &str) -> bool {
        self.0.0.lock().unwrap().iter().any(|line| line.contains(words))
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
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_onceward"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ONCEWARD_")) {
            command.env_remove(name);
        }
        command
            .current_dir(&self.folder)
            .env("ONCEWARD_URL", format!("http://{}", self.address))
            .args(arguments)
            .stdin(Stdio::null());
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

    /// One request; the connection is for it alone.
    pub(crate) fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response {
        call(self.address, method, path, headers, body).unwrap()
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
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
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
    fn start(mut command: Command) -> (Self, Log, Log) {
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

/// An answer, its headers in order.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// One request over HTTP/1.1.
pub(crate) fn call(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> std::io::Result<Response> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // Writing into a string does not fail.
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    if !headers.iter().any(|(name, _)| *name == "host") {
        let _ = write!(head, "host: {address}\r\n");
    }
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n{body}").as_bytes())?;
    let mut reader = BufReader::new(stream);
    let (first, headers) = read_head(&mut reader)?;
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
    // A gateway that was killed says nothing.
    let status = status.ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let mut response = Response { status, headers, body: Vec::new() };
    response.body = if response.header("transfer-encoding") == Some("chunked") {
        read_chunks(&mut reader)?
    } else {
        let mut body = Vec::new();
        reader.read_to_end(&mut body)?;
        body
    };
    Ok(response)
}

pub(crate) fn read_line(reader: &mut impl std::io::BufRead) -> std::io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

pub(crate) type Head = (String, Vec<(String, String)>);

pub(crate) fn read_head(reader: &mut impl std::io::BufRead) -> std::io::Result<Head> {
    let first = read_line(reader)?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(reader)?;
        let Some((name, value)) = line.split_once(':') else { return Ok((first, headers)) };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn read_chunks(reader: &mut impl std::io::BufRead) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = usize::from_str_radix(&read_line(reader)?, 16).map_err(std::io::Error::other)?;
        let mut piece = vec![0; size + 2];
        reader.read_exact(&mut piece)?;
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(&piece[..size]);
    }
}

/// An upstream: it counts its calls, and answers each with the status that holds then.
#[derive(Clone)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    state: Arc<(Mutex<UpstreamState>, Condvar)>,
}

struct UpstreamState {
    calls: usize,
    /// The credential of the last call.
    authorization: Option<String>,
    /// Without one, callers wait.
    status: Option<u16>,
}

impl Upstream {
    pub(crate) fn answering(status: Option<u16>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new((
            Mutex::new(UpstreamState { calls: 0, authorization: None, status }),
            Condvar::new(),
        ));
        let upstream = Self { address, state };
        let answers = upstream.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let answers = answers.clone();
                // A caller that goes away is no matter of the upstream's.
                std::thread::spawn(move || drop(answers.answer(stream)));
            }
        });
        upstream
    }

    pub(crate) fn set(&self, status: u16) {
        self.state.0.lock().unwrap().status = Some(status);
        self.state.1.notify_all();
    }

    pub(crate) fn calls(&self) -> usize {
        self.state.0.lock().unwrap().calls
    }

    /// The credential of the last call.
    pub(crate) fn authorization(&self) -> Option<String> {
        self.state.0.lock().unwrap().authorization.clone()
    }

    fn answer(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        let (_, headers) = read_head(&mut reader)?;
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
        reader.read_exact(&mut vec![0; length])?;
        let mut state = self.state.0.lock().unwrap();
        state.calls += 1;
        let authorization = headers.iter().find(|(name, _)| name == "authorization");
        state.authorization = authorization.map(|(_, value)| value.clone());
        let state = self.state.1.wait_while(state, |state| state.status.is_none()).unwrap();
        let status = state.status.unwrap_or(500);
        drop(state);
        let answer = format!(
            "HTTP/1.1 {status} As Told\r\nconnection: close\r\ncontent-length: 4\r\n\r\ndone"
        );
        reader.into_inner().write_all(answer.as_bytes())
    }
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
        let bytes = std::fs::read(&path).unwrap_or_default();
        bytes.windows(words.len()).any(|window| window == words.as_bytes())
    })
}
