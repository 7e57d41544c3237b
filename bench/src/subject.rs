//! What is measured, each as processes of its own on free ports of the loopback.

use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::{Outcome, meter};

/// How long a subject may take until it listens: minutes only where its instructions are counted.
const START_TIME_MAX: Duration = Duration::from_mins(2);
/// How long it may take to end when asked, before it is killed.
const STOP_TIME_MAX: Duration = Duration::from_secs(10);
/// Between two looks at a process that starts or ends.
const LOOK: Duration = Duration::from_millis(10);

/// What all nodes of a ledger have in common; nothing here is secret.
const MASTER_KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A hyper proxy without a ledger.
    Bare,
    Nginx,
    Onceward,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Bare, Self::Nginx, Self::Onceward];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bare => "bare",
            Self::Nginx => "nginx",
            Self::Onceward => "onceward",
        })
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.to_string() == name)
            .ok_or_else(|| format!("no such subject: {name} (there are bare, nginx, onceward)"))
    }
}

/// A running subject, or the sink. Ends with this value.
#[derive(Debug)]
pub(crate) struct Subject {
    child: Child,
    pub(crate) address: SocketAddr,
    /// Where the gateway stands before the sink as if it were the sink.
    pub(crate) guard: Option<SocketAddr>,
    /// Configuration, log, and whatever it keeps.
    folder: Option<TempDir>,
}

impl Subject {
    /// The upstream of all.
    pub(crate) fn sink() -> Outcome<Self> {
        own(Command::new(std::env::current_exe()?), &["sink"])
    }

    /// What takes telemetry and keeps none of it.
    pub(crate) fn receiver() -> Outcome<Self> {
        own(Command::new(std::env::current_exe()?), &["receiver"])
    }

    /// A hyper proxy without a ledger.
    pub(crate) fn bare(sink: SocketAddr) -> Outcome<Self> {
        Self::bare_by(Command::new(std::env::current_exe()?), sink)
    }

    /// The same, started by a command that takes this program's arguments.
    pub(crate) fn bare_by(command: Command, sink: SocketAddr) -> Outcome<Self> {
        own(command, &["proxy", &sink.to_string()])
    }

    /// A hyper proxy as most are written.
    pub(crate) fn ordinary(sink: SocketAddr) -> Outcome<Self> {
        own(Command::new(std::env::current_exe()?), &["ordinary", &sink.to_string()])
    }

    /// As an operator would set it up for many small requests.
    pub(crate) fn nginx(program: &Path, sink: SocketAddr, data: &Path) -> Outcome<Self> {
        let folder = tempfile::Builder::new().prefix("bench-nginx-").tempdir_in(data)?;
        let address = free_address()?;
        let path = folder.path().display();
        // Without `user`, a master that is root gives its workers to an account that cannot
        // enter the folder.
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let configuration = format!(
            "{user}
worker_processes auto;
daemon off;
pid {path}/nginx.pid;
error_log {path}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_buffer_size 64k;
    client_body_temp_path {path}/body;
    proxy_temp_path {path}/proxy;
    fastcgi_temp_path {path}/fastcgi;
    uwsgi_temp_path {path}/uwsgi;
    scgi_temp_path {path}/scgi;
    upstream sink {{
        server {sink};
        keepalive 256;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {address};
        location / {{
            proxy_pass http://sink;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
        }}
    }}
}}
"
        );
        let file = folder.path().join("nginx.conf");
        fs::write(&file, configuration)?;
        let mut command = Command::new(program);
        command.arg("-p").arg(folder.path()).arg("-c").arg(&file);
        Self::start(command, address, folder)
    }

    /// The gateway with an embedded ledger and one keyed route.
    pub(crate) fn onceward(program: &Path, sink: SocketAddr, data: &Path) -> Outcome<Self> {
        Self::onceward_by(Command::new(program), sink, data)
    }

    /// The same, started by a command that takes the gateway's arguments.
    pub(crate) fn onceward_by(command: Command, sink: SocketAddr, data: &Path) -> Outcome<Self> {
        let folder = tempfile::Builder::new().prefix("bench-onceward-").tempdir_in(data)?;
        let store = format!("store = \"sqlite:{}/data/ledger.db\"", folder.path().display());
        Self::gateway(command, sink, folder, &store)
    }

    /// A gateway whose ledger others share, at `url`.
    pub(crate) fn node(program: &Path, sink: SocketAddr, data: &Path, url: &str) -> Outcome<Self> {
        let folder = tempfile::Builder::new().prefix("bench-node-").tempdir_in(data)?;
        let keys = folder.path().join("data");
        let store = format!("store = \"{url}\"\ndata = \"{}\"", keys.display());
        Self::gateway(Command::new(program), sink, folder, &store)
    }

    /// Stops a gateway, has something done to its ledger, and starts it again as it was.
    pub(crate) fn changed(
        mut self,
        program: &Path,
        change: impl FnOnce(&Path) -> Outcome<()>,
    ) -> Outcome<Self> {
        end(&mut self.child, Signal::TERM, STOP_TIME_MAX);
        let folder = self.folder.take().ok_or("it keeps nothing")?;
        let data = folder.path().join("data");
        change(&data.join("ledger.db"))?;
        let mut command = Command::new(program);
        command.arg("serve").arg("--config").arg(folder.path().join("onceward.toml"));
        command.current_dir(&data).env("ONCEWARD_MASTER_KEY", MASTER_KEY);
        let mut changed = Self::start(command, self.address, folder)?;
        changed.guard = self.guard;
        Ok(changed)
    }

    fn gateway(
        mut command: Command,
        sink: SocketAddr,
        folder: TempDir,
        store: &str,
    ) -> Outcome<Self> {
        let (address, guard) = (free_address()?, free_address()?);
        let data = folder.path().join("data");
        fs::create_dir(&data)?;
        let file = folder.path().join("onceward.toml");
        fs::write(
            &file,
            format!(
                "listen = \"{address}\"\n{store}\nseal_bodies = false\n\n\
                 [routes.sink]\nupstream = \"http://{sink}\"\neffects = \"keyed\"\n\n\
                 [routes.pass]\nupstream = \"http://{sink}\"\nkey.missing = \"pass\"\n\n\
                 [routes.guard]\nlisten = \"{guard}\"\nupstream = \"http://{sink}\"\nkey.missing = \"pass\"\n",
            ),
        )?;
        command.arg("serve").arg("--config").arg(&file).current_dir(&data);
        command.env("ONCEWARD_MASTER_KEY", MASTER_KEY);
        let mut subject = Self::start(command, address, folder)?;
        subject.guard = Some(guard);
        Ok(subject)
    }

    /// Starts a program that listens on `address` once it is ready.
    fn start(mut command: Command, address: SocketAddr, folder: TempDir) -> Outcome<Self> {
        let log = folder.path().join("log");
        let output = File::create(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .map_err(|error| {
                format!("cannot start {}: {error}", command.get_program().display())
            })?;
        let mut subject = Self { child, address, guard: None, folder: Some(folder) };
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            let ended = subject.child.try_wait()?;
            if ended.is_some() || started.elapsed() > START_TIME_MAX {
                let said = fs::read_to_string(&log).unwrap_or_default();
                let how = ended.map_or_else(
                    || "does not listen".to_owned(),
                    |status| format!("ended: {status}"),
                );
                let program = command.get_program().display().to_string();
                return Err(format!("{program} {how}; it said:\n{}", said.trim()).into());
            }
            std::thread::sleep(LOOK);
        }
        Ok(subject)
    }

    /// The process that was started.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its process and the workers of it.
    pub(crate) fn pids(&self) -> Vec<u32> {
        meter::family(self.child.id())
    }

    /// Ends it at once: what it still has to do is of no interest.
    pub(crate) fn abandon(mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
    }

    /// Bytes on disk of what it keeps.
    pub(crate) fn kept(&self) -> u64 {
        self.folder.as_ref().map_or(0, |folder| meter::disk(&folder.path().join("data")))
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // Asked first: an nginx that is killed leaves its workers behind.
        end(&mut self.child, Signal::TERM, STOP_TIME_MAX);
    }
}

/// Asks a process to end, and kills it where it has not ended after so long.
pub(crate) fn end(child: &mut Child, signal: Signal, patience: Duration) {
    // Its id may be another's by now.
    if matches!(child.try_wait(), Ok(Some(_))) {
        return;
    }
    // Gone already is as good.
    let _ = rustix::process::kill_process(Pid::from_child(child), signal);
    let asked = Instant::now();
    while let Ok(None) = child.try_wait() {
        if asked.elapsed() > patience {
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        std::thread::sleep(LOOK);
    }
}

/// Starts this program under another name; it tells where it listens, and ends when its standard
/// input does.
fn own(mut command: Command, args: &[&str]) -> Outcome<Subject> {
    let mut child = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    let output = child.stdout.take().ok_or("no standard output")?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut subject = Subject { child, address, guard: None, folder: None };
    BufReader::new(output).read_line(&mut line)?;
    subject.address = line.trim().parse().map_err(|_| format!("{} did not start", args[0]))?;
    Ok(subject)
}

/// A port that nobody had a moment ago.
pub(crate) fn free_address() -> Outcome<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// The program of this name on the search path, or where Debian keeps servers.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}
