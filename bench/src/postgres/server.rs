//! A PostgreSQL server on a free port of loopback, with durable settings: gone with whoever asked
//! for it.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use crate::meter::{self, Usage};
use crate::{Outcome, subject};

const START_TIME_MAX: Duration = Duration::from_mins(1);
const STOP_TIME_MAX: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(20);

/// A small server's settings; whatever concerns durability is as it is by default, which is on.
const SETTINGS: [&str; 7] = [
    "fsync=on",
    "synchronous_commit=on",
    "shared_buffers=1GB",
    "max_wal_size=4GB",
    "max_connections=300",
    "shared_preload_libraries=pg_stat_statements",
    "pg_stat_statements.track=none",
];

/// A server that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    folder: TempDir,
    port: u16,
    bin: PathBuf,
}

impl Server {
    /// Starts one whose files are in a new folder of `data`.
    pub(crate) fn start(data: &Path, settings: &[String]) -> Outcome<Self> {
        let bin = bin()?;
        let folder = tempfile::Builder::new().prefix("bench-postgres-").tempdir_in(data)?;
        if rustix::process::geteuid().is_root() {
            let (uid, gid) = account()?;
            std::os::unix::fs::chown(folder.path(), Some(uid), Some(gid))?;
        }
        let cluster = folder.path().join("cluster");
        let mut initdb = Command::new(bin.join("initdb"));
        initdb.args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "-D"]);
        initdb.arg(&cluster).current_dir(folder.path());
        as_its_user(&mut initdb)?;
        let made = initdb.output()?;
        if !made.status.success() {
            return Err(format!("initdb: {}", String::from_utf8_lossy(&made.stderr)).into());
        }
        let port = subject::free_address()?.port();
        let mut command = Command::new(bin.join("postgres"));
        command.arg("-D").arg(&cluster).args(["-h", "127.0.0.1", "-p", &port.to_string(), "-k"]);
        command.arg(folder.path()).current_dir(folder.path());
        for setting in SETTINGS.into_iter().chain(settings.iter().map(String::as_str)) {
            command.args(["-c", setting]);
        }
        let log = fs::File::create(folder.path().join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        as_its_user(&mut command)?;
        let mut server = Self { child: command.spawn()?, folder, port, bin };
        let began = Instant::now();
        while !server.is_ready()? {
            if server.child.try_wait()?.is_some() || began.elapsed() > START_TIME_MAX {
                let log = fs::read_to_string(server.folder.path().join("log"))?;
                return Err(format!("PostgreSQL does not start; it said:\n{log}").into());
            }
            std::thread::sleep(LOOK);
        }
        Ok(server)
    }

    fn is_ready(&self) -> Outcome<bool> {
        let mut command = Command::new(self.bin.join("pg_isready"));
        command.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
        Ok(command.status()?.success())
    }

    pub(super) fn version(&self) -> Outcome<String> {
        let said = Command::new(self.bin.join("postgres")).arg("--version").output()?;
        Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
    }

    /// Makes a database; tells how to reach it.
    pub(crate) async fn database(&self, name: &str) -> Outcome<String> {
        let admin = connect(&self.url("postgres")).await?;
        admin.batch_execute(&format!("CREATE DATABASE {name}")).await?;
        Ok(self.url(name))
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// What the server and its processes have used.
    pub(super) fn usage(&self) -> Usage {
        Usage::of(&meter::family(self.child.id()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGINT: connections are cut, files are left whole.
        subject::end(&mut self.child, Signal::INT, STOP_TIME_MAX);
    }
}

/// A connection.
pub(super) async fn connect(url: &str) -> Outcome<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// One number.
pub(super) async fn number(client: &Client, sql: &str) -> Outcome<i64> {
    Ok(client.query_one(sql, &[]).await?.get(0))
}

/// The folder of the newest server's programs that Debian has here, or that of the search path.
fn bin() -> Outcome<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path())))
        .max();
    newest
        .map(|(_, path)| path.join("bin"))
        .or_else(|| Some(subject::on_path("initdb")?.parent()?.to_owned()))
        .ok_or_else(|| {
            "there is no PostgreSQL: install it (Debian: apt-get install postgresql)".into()
        })
}

/// PostgreSQL refuses to run as root: then it runs as its own user.
fn as_its_user(command: &mut Command) -> Outcome<()> {
    if rustix::process::geteuid().is_root() {
        let (uid, gid) = account()?;
        command.uid(uid).gid(gid);
    }
    Ok(())
}

/// The user and the group `postgres`.
fn account() -> Outcome<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd")?;
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let mut fields = line.ok_or("there is no user postgres")?.split(':').skip(2);
    let mut id = || {
        Ok::<u32, Box<dyn std::error::Error + Send + Sync>>(
            fields.next().ok_or("a user without a number")?.parse()?,
        )
    };
    Ok((id()?, id()?))
}
