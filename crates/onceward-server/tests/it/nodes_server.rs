//! PostgreSQL for tests with several nodes: a database on the server that `TEST_POSTGRES` names, and
//! servers of their own for tests that kill them.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use onceward_proof::figures::tell;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// What takes longer than this never ends.
const PATIENCE: Duration = Duration::from_mins(1);

/// How often something is looked at again that tells no one when it changes.
const LOOK: Duration = Duration::from_millis(20);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// The folder of PostgreSQL's programs: the newest that Debian has here, or that of `PATH`; says so
/// where there is none.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path())))
        .filter(|(_, path)| path.join("bin/initdb").is_file())
        .max();
    let on_path = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).find(|folder| folder.join("initdb").is_file())
    };
    let found = newest.map(|(_, path)| path.join("bin")).or_else(on_path);
    if found.is_none() {
        tell("SKIPPED: PostgreSQL's programs are missing; `cargo xtask test` installs them");
    }
    found
}

/// A database, and how to ask it.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    bin: PathBuf,
    user: String,
    pub(crate) server: SocketAddr,
    name: String,
}

impl Database {
    /// A new one on the server that the environment names; says so where it names none.
    pub(crate) fn shared() -> Option<Self> {
        let bin = programs()?;
        let Ok(place) = std::env::var("TEST_POSTGRES") else {
            tell("SKIPPED: TEST_POSTGRES names no server; `cargo xtask test` starts one");
            return None;
        };
        let value_of = |name: &str| {
            let value = |part: &str| part.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
            place.split_whitespace().find_map(value)
        };
        let host = value_of("host").unwrap_or_else(|| "127.0.0.1".to_owned());
        let port = value_of("port").unwrap_or_else(|| "5432".to_owned());
        let whole = Self {
            bin,
            user: value_of("user").unwrap_or_else(|| "postgres".to_owned()),
            server: format!("{host}:{port}").parse().expect("an address in TEST_POSTGRES"),
            name: "postgres".to_owned(),
        };
        let place = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("nodes_{}_{place}", std::process::id());
        whole.sql(&format!("CREATE DATABASE {name}"));
        Some(Self { name, ..whole })
    }

    /// A new one beside this one.
    pub(crate) fn other(&self, name: &str) -> Self {
        self.sql(&format!("CREATE DATABASE {name}"));
        Self { name: name.to_owned(), ..self.clone() }
    }

    /// Its address, as a configuration has it.
    pub(crate) fn url(&self) -> String {
        self.url_at(&[self.server])
    }

    /// The same, by way of others.
    pub(crate) fn url_at(&self, places: &[SocketAddr]) -> String {
        let places: Vec<_> = places.iter().map(SocketAddr::to_string).collect();
        format!("postgres://{}@{}/{}", self.user, places.join(","), self.name)
    }

    /// What a statement brings.
    pub(crate) fn sql(&self, sql: &str) -> String {
        self.try_sql(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The program that asks it for a statement.
    pub(crate) fn psql(&self, sql: &str) -> Command {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &self.url(), "-c", sql]);
        psql.stdin(Stdio::null());
        psql
    }

    pub(crate) fn try_sql(&self, sql: &str) -> Result<String, String> {
        let done = self.psql(sql).output().expect("psql");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
    }
}

/// A server of a test's own: what it commits is on stable storage.
#[derive(Debug)]
pub(crate) struct Server {
    bin: PathBuf,
    folder: TempDir,
    port: u16,
    settings: Vec<String>,
    child: Option<Child>,
}

fn id(args: &[&str]) -> u32 {
    let told = Command::new("id").args(args).output().expect("id").stdout;
    String::from_utf8_lossy(&told).trim().parse().expect("a number")
}

fn folder_of_its_user() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    if id(&["-u"]) == 0 {
        // PostgreSQL refuses to run as root: then it runs as its own user.
        let (user, group) = (id(&["-u", "postgres"]), id(&["-g", "postgres"]));
        chown(folder.path(), Some(user), Some(group)).expect("a folder of its own");
    }
    folder
}

/// A command that runs as whoever has `folder`.
fn command(program: PathBuf, folder: &Path) -> Command {
    let mut command = Command::new(program);
    let owner = fs::metadata(folder).expect("a folder");
    command.current_dir(folder).uid(owner.uid()).gid(owner.gid()).stdin(Stdio::null());
    command
}

fn run(command: &mut Command) {
    let done = command.output().expect("a program");
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}

impl Server {
    /// A new server with further `settings`, or nothing where the programs are missing.
    pub(crate) fn start(settings: &[&str]) -> Option<Self> {
        let bin = programs()?;
        let folder = folder_of_its_user();
        let mut initdb = command(bin.join("initdb"), folder.path());
        initdb.args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "-D"]);
        run(initdb.arg(folder.path().join("data")));
        Some(Self::over(bin, folder, settings))
    }

    fn over(bin: PathBuf, folder: TempDir, settings: &[&str]) -> Self {
        // Free now; whoever takes it in between makes the server end, which is told.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        let port = port.expect("a free port").port();
        let mut server = Self { bin, folder, port, settings, child: None };
        server.run();
        server
    }

    /// A copy of this one that follows it.
    pub(crate) fn standby(&self) -> Self {
        let folder = folder_of_its_user();
        let mut copy = command(self.bin.join("pg_basebackup"), folder.path());
        copy.args(["-h", "127.0.0.1", "-U", "postgres", "-c", "fast", "-X", "stream", "-R", "-p"]);
        run(copy.arg(self.port.to_string()).arg("-D").arg(folder.path().join("data")));
        Self::over(self.bin.clone(), folder, &[])
    }

    /// The database that is there from the start.
    pub(crate) fn database(&self) -> Database {
        Database {
            bin: self.bin.clone(),
            user: "postgres".to_owned(),
            server: SocketAddr::from(([127, 0, 0, 1], self.port)),
            name: "postgres".to_owned(),
        }
    }

    fn spawn(&self) -> Child {
        let mut server = command(self.bin.join("postgres"), self.folder.path());
        server.arg("-D").arg(self.folder.path().join("data")).arg("-k").arg(self.folder.path());
        server.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        for setting in ["max_connections=200", "shared_buffers=32MB"] {
            server.args(["-c", setting]);
        }
        for setting in &self.settings {
            server.args(["-c", setting]);
        }
        let log = fs::File::options().create(true).append(true).open(self.log()).expect("a log");
        server.stdout(Stdio::null()).stderr(log).spawn().expect("postgres")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Starts it, anew after it ended, and waits until it answers.
    pub(crate) fn run(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        self.child = Some(self.spawn());
        while self.database().try_sql("SELECT 1").is_err() {
            let log = || fs::read_to_string(self.log()).unwrap_or_default();
            assert!(Instant::now() < deadline, "the server does not begin:\n{}", log());
            // What a killed one left keeps the next from starting for a moment.
            if self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None))) {
                self.child = Some(self.spawn());
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Ends it by a signal: INT cuts its clients off, QUIT does not even tidy up, KILL is the end.
    pub(crate) fn end(&mut self, signal: Signal) {
        let Some(mut child) = self.child.take() else { return };
        // It may have ended already.
        let _ = kill_process(Pid::from_child(&child), signal);
        child.wait().expect("its end");
        // Those of its processes that serve its clients notice a while later that it was killed.
        let deadline = Instant::now() + PATIENCE;
        while self.has_processes() {
            assert!(Instant::now() < deadline, "the server does not end");
            std::thread::sleep(LOOK);
        }
    }

    /// Whether one of its processes is there: all of them work in its data's folder.
    fn has_processes(&self) -> bool {
        let data = self.folder.path().join("data");
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut folders = processes.filter_map(|it| fs::read_link(it.path().join("cwd")).ok());
        folders.any(|folder| folder == data)
    }

    /// Makes a standby the server that is written to.
    pub(crate) fn promote(&self) {
        self.database().sql("SELECT pg_promote()");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end(Signal::QUIT);
    }
}
