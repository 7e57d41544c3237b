//! A throw-away PostgreSQL server for tests, on a free port of loopback: gone with whoever asked
//! for it.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::debian::{self, on_path};
use crate::{Outcome, steps};

/// The oldest server that the ledger is held to.
const OLDEST: u32 = 15;

/// How long a server may take to begin.
const PATIENCE: Duration = Duration::from_mins(1);

const MEND: &str = "install PostgreSQL 15 or newer (Debian: apt-get install postgresql), or set \
    TEST_POSTGRES to the address of a server where databases may be made, such as \
    \"host=127.0.0.1 user=postgres\"";

/// A server that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    folder: PathBuf,
    pub(crate) url: String,
}

/// Where the tests find a server: the one that the environment names, or one of their own.
pub(crate) enum Place {
    Named(String),
    Own(Server),
}

impl Place {
    pub(crate) fn url(&self) -> &str {
        match self {
            Self::Named(url) => url,
            Self::Own(server) => &server.url,
        }
    }
}

/// The server that is named, or else a new one; PostgreSQL is installed where it is missing.
pub(crate) fn find_or_start() -> Outcome<Place> {
    if let Ok(url) = std::env::var("TEST_POSTGRES") {
        println!("postgres: {url}");
        return Ok(Place::Named(url));
    }
    let bin = bin_or_install()?;
    let server = start(&bin).map_err(|error| format!("no PostgreSQL for the tests: {error}"))?;
    println!("postgres: {} on {}", bin.display(), server.url);
    Ok(Place::Own(server))
}

/// Starts one and waits until it is told to end.
pub(crate) fn run() -> Outcome<()> {
    let server = start(&bin_or_install()?)?;
    println!("TEST_POSTGRES=\"{}\"\nCtrl-C ends it", server.url);
    loop {
        sleep(Duration::from_hours(1));
    }
}

/// The folder of the server's programs: the newest that Debian has here, or that of `PATH`.
pub(crate) fn bin_or_install() -> Outcome<PathBuf> {
    if let Some(bin) = find() {
        return Ok(bin);
    }
    println!("postgres: none found, installing postgresql with apt-get");
    debian::install(&["postgresql"])
        .map_err(|error| format!("no PostgreSQL for the tests: {error}\nmend: {MEND}"))?;
    find().ok_or_else(|| {
        format!("no PostgreSQL {OLDEST} or newer, though installed\nmend: {MEND}").into()
    })
}

fn find() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path())))
        .filter(|(version, path)| *version >= OLDEST && path.join("bin/initdb").is_file())
        .max();
    newest
        .map(|(_, path)| path.join("bin"))
        .or_else(|| Some(on_path("initdb")?.parent()?.to_owned()))
}

/// PostgreSQL refuses to run as root: then it runs as its own user.
fn as_its_user(command: &mut Command) -> Outcome<()> {
    if id(&["-u"])? == 0 {
        command.uid(id(&["-u", "postgres"])?).gid(id(&["-g", "postgres"])?);
    }
    Ok(())
}

fn id(args: &[&str]) -> Outcome<u32> {
    Ok(steps::output(Command::new("id").args(args))?.trim().parse()?)
}

fn start(bin: &Path) -> Outcome<Server> {
    let folder = std::env::temp_dir().join(format!("onceward-postgres-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    if id(&["-u"])? == 0 {
        std::os::unix::fs::chown(
            &folder,
            Some(id(&["-u", "postgres"])?),
            Some(id(&["-g", "postgres"])?),
        )?;
    }
    let data = folder.join("data");
    let mut initdb = Command::new(bin.join("initdb"));
    initdb.args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "-D"]);
    initdb.arg(&data).current_dir(&folder);
    as_its_user(&mut initdb)?;
    steps::output(&mut initdb)?;
    // Free now; whoever takes it in between makes the server end, which is told.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut server = Command::new(bin.join("postgres"));
    server
        .arg("-D")
        .arg(&data)
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-k"])
        .arg(&folder);
    // What these tests hold survives no power cut, and need not: crashes have servers of their own.
    server.args(["-c", "fsync=off", "-c", "max_connections=400", "-c", "shared_buffers=64MB"]);
    let log = fs::File::create(folder.join("log"))?;
    server.current_dir(&folder).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    as_its_user(&mut server)?;
    let child = server.spawn()?;
    let url = format!("host=127.0.0.1 port={port} user=postgres");
    let mut server = Server { child, folder, url };
    let mut ready = Command::new(bin.join("pg_isready"));
    ready.args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()]);
    let began = Instant::now();
    while !ready.status()?.success() {
        if server.child.try_wait()?.is_some() || began.elapsed() > PATIENCE {
            let log = fs::read_to_string(server.folder.join("log")).unwrap_or_default();
            return Err(format!("the server does not begin:\n{log}").into());
        }
        sleep(Duration::from_millis(50));
    }
    Ok(server)
}

impl Drop for Server {
    fn drop(&mut self) {
        // What is left of a server that does not end by itself is in a folder for what may go.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
