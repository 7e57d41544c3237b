//! The machine: its room, how long its disk takes for a durable write, its clock, and whether listeners find their
//! ports free.

use std::fs::{OpenOptions, remove_file};
use std::io::{Error, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use onceward::store::sqlite::SqliteStore;
use rustix::fs::{Access, access};

use super::finding::{Findings, Page};
use crate::cli::Global;
use crate::cli::client::Client;
use crate::config::Config;
use crate::contract::Contract;
use crate::ledger::Ledger;
use crate::node::free_at;

/// As the alert has it where nothing else is said.
const ROOM_LOW: u64 = 2_000_000_000;

/// A held call waits for two durable writes: beyond this they are what its callers feel.
const WRITE_SLOW: Duration = Duration::from_millis(25);

/// Clocks of machines that are kept together differ by less.
pub(super) const CLOCK_OFF: Duration = Duration::from_secs(5);

/// How many files of the ledger are asked for their time.
const FILES_MAX: usize = 10_000;

/// A gateway says at once that it is there.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn machine(config: &Config, found: &mut Findings) {
    found.begin("this machine");
    let data = config.data();
    if matches!(config.store, Ledger::Sqlite(_)) {
        room(config, &data, found);
    }
    write(config, &data, found);
    clock(config, &data, found);
}

/// The folder itself, or the first above it that is there.
fn nearest(folder: &Path) -> PathBuf {
    let whole = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    whole.ancestors().find(|it| it.exists()).map_or_else(|| PathBuf::from("/"), Path::to_owned)
}

fn room(config: &Config, data: &Path, found: &mut Findings) {
    let folder = data.display();
    let Some(free) = free_at(&nearest(data)) else {
        let help = Some("look whether the file system that it is on is mounted".to_owned());
        return found.warn(format!("the room for {folder} cannot be told"), help, Page::Disk);
    };
    let said = format!("{} of room for {folder}", size(free));
    // A segment is allocated before the one in use is full.
    let least = 2 * u64::from(config.segment_bytes);
    if free < least {
        let help = format!(
            "make room: the ledger takes nothing new without {} for its journal",
            size(least)
        );
        found.fail(said, help, Page::Disk);
    } else if free < ROOM_LOW {
        let help =
            Some("make room, or keep less: window and retain_bodies say how long".to_owned());
        found.warn(said, help, Page::Disk);
    } else {
        found.ok(said);
    }
}

/// Bytes as a person reads them.
fn size(bytes: u64) -> String {
    match bytes {
        0..0x4000_0000 => format!("{} MiB", bytes >> 20),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

fn write(config: &Config, data: &Path, found: &mut Findings) {
    let folder = data.display();
    if !data.exists() {
        if access(nearest(data), Access::WRITE_OK).is_ok() {
            return found.ok(format!("{folder} is made at the first start"));
        }
        let help = Some("check as the user that the gateway runs as".to_owned());
        return found.warn(format!("{folder} cannot be made by this user"), help, Page::Deploy);
    }
    let is_waited_for = matches!(config.store, Ledger::Sqlite(_));
    match durable_write(data) {
        // Of a ledger that is elsewhere only keys lie here.
        Ok(_) if !is_waited_for => found.ok(format!("{folder} can be written")),
        Ok(took) if took > WRITE_SLOW => {
            let help =
                "each answer waits for two: a faster disk, or one that nobody else writes to";
            let says = format!("a durable write to {folder} takes {}", millis(took));
            found.warn(says, Some(help.to_owned()), Page::Commits);
        }
        Ok(took) => found.ok(format!("a durable write to {folder} takes {}", millis(took))),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let help = Some("check as the user that the gateway runs as".to_owned());
            found.warn(format!("{folder} cannot be written by this user"), help, Page::Deploy);
        }
        Err(error) => {
            let help = "the ledger cannot be kept there: look at the disk and its file system";
            found.fail(format!("a durable write to {folder} fails: {error}"), help, Page::Disk);
        }
    }
}

pub(super) fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// How long a write to a file takes until it is on stable storage: half of five take longer. The journal writes to what
/// is allocated, so this does too.
fn durable_write(folder: &Path) -> std::io::Result<Duration> {
    const WRITES: usize = 5;
    const PAGE: [u8; 4096] = [0; 4096];
    let path = folder.join(format!("check-{}", std::process::id()));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    // It has no name any more before anything can go wrong.
    remove_file(&path)?;
    file.write_all_at(&PAGE, 0)?;
    file.sync_all()?;
    let mut took = [Duration::ZERO; WRITES];
    for took in &mut took {
        let begun = Instant::now();
        file.write_all_at(&PAGE, 0)?;
        file.sync_data()?;
        *took = begun.elapsed();
    }
    took.sort_unstable();
    Ok(took[WRITES / 2])
}

fn clock(config: &Config, data: &Path, found: &mut Findings) {
    let help = "keep the clock by NTP: windows, leases and signatures go by it";
    let now = jiff::Timestamp::now();
    // No release is older than the newest contract that it speaks.
    let made = format!("{}-01T00:00:00Z", Contract::newest().name()).parse();
    if made.is_ok_and(|made: jiff::Timestamp| now < made) {
        let says = format!("the clock says {now:.0}, which is before this release was made");
        return found.fail(says, help, Page::Clocks);
    }
    let ahead =
        newest(config, data).and_then(|newest| newest.duration_since(SystemTime::now()).ok());
    match ahead.filter(|ahead| *ahead > CLOCK_OFF) {
        Some(ahead) => {
            let says = format!(
                "the clock says {now:.0}, and the ledger was written {} later: one of them was set",
                crate::units::show(Duration::from_secs(ahead.as_secs()))
            );
            found.fail(says, help, Page::Clocks);
        }
        None => found.ok(format!("the clock says {now:.0}")),
    }
}

/// When something in the data folder was written last.
fn newest(config: &Config, data: &Path) -> Option<SystemTime> {
    let journal = match &config.store {
        Ledger::Sqlite(ledger) => std::fs::read_dir(SqliteStore::journal(ledger)).ok(),
        Ledger::Postgres { .. } => None,
    };
    let entries = std::fs::read_dir(data).into_iter().chain(journal).flatten().flatten();
    entries.take(FILES_MAX).filter_map(|entry| entry.metadata().ok()?.modified().ok()).max()
}

/// Whether every listener finds its port free, or this gateway itself on it.
pub(super) async fn listeners(config: &Config, global: &Global, found: &mut Findings) {
    found.begin("listeners");
    let is_in_use = |why: &Error| why.kind() == ErrorKind::AddrInUse;
    let guards = config.guards.values().flat_map(|guard| {
        guard.listen.iter().map(|address| (*address, format!("routes.{}.listen", guard.route)))
    });
    for (address, key) in std::iter::once((config.listen, "listen".to_owned())).chain(guards) {
        match taken(address) {
            None => found.ok(format!("{address} is free")),
            Some(why) if !is_in_use(&why) => unusable(address, &key, &why, found),
            // What is asked at a guard goes to its upstream.
            Some(_) if key != "listen" => unseen(address, &key, found),
            Some(_) => match who(config, global).await {
                Who::Gateway => found.ok(format!("a gateway is on {address}")),
                Who::Unseen => unseen(address, &key, found),
                Who::Other => {
                    let help = format!(
                        "`ss -ltnp` shows by whom: end that, or choose another port in {key}"
                    );
                    let says = format!("{address} is taken by what is no gateway");
                    found.fail(says, help, Page::Configuration);
                }
            },
        }
    }
}

/// A port that is taken: by this gateway, by a supervisor for it, or by something else.
fn unseen(address: SocketAddr, key: &str, found: &mut Findings) {
    let help = format!(
        "`ss -ltnp` shows by whom: where it is neither this gateway nor a socket of systemd's for it, choose another port in {key}"
    );
    let says = format!("{address} is taken, and it is not seen by whom");
    found.warn(says, Some(help), Page::Configuration);
}

/// Why nobody could listen there now.
fn taken(address: SocketAddr) -> Option<Error> {
    TcpListener::bind(address).err()
}

fn unusable(address: SocketAddr, key: &str, why: &Error, found: &mut Findings) {
    if why.kind() == ErrorKind::PermissionDenied {
        let help = "check as the user that the gateway runs as, or choose a port above 1023";
        let says = format!("this user may not listen on {address}");
        return found.warn(says, Some(help.to_owned()), Page::Deploy);
    }
    let help = format!("{key} is an address of this machine: `ip address` shows them");
    found.fail(format!("nobody can listen on {address} here: {why}"), help, Page::Configuration);
}

/// Who has a port.
enum Who {
    Gateway,
    Other,
    /// Nobody answers: a gateway that has much to do, or one that is yet to be started and whose port is held for it.
    Unseen,
}

/// Who answers where the configuration says that the gateway listens.
async fn who(config: &Config, global: &Global) -> Who {
    // What flags and variables say is of the gateway that verbs ask: this one is known by its own certificate.
    let wants_certificate = config.tls.as_ref().is_some_and(|tls| tls.client.is_some());
    let mut home =
        Global { url: None, access_key: None, tenant: None, ca_file: None, ..global.clone() };
    if !wants_certificate {
        (home.cert_file, home.key_file) = (None, None);
    }
    let Ok(client) = Client::new(&home) else { return Who::Unseen };
    let Ok(health) = client.base().join("/healthz") else { return Who::Unseen };
    // Without a key: it may be anybody who listens there.
    let answer = tokio::time::timeout(PATIENCE, client.read_from(&health)).await;
    match answer {
        Ok(Ok(answer)) if answer.status == 200 && answer.body == b"ok\n" => Who::Gateway,
        // It wants a certificate, or has another one than the file names by now.
        Ok(Err(_)) if config.tls.is_some() => Who::Unseen,
        Ok(_) => Who::Other,
        Err(_) => Who::Unseen,
    }
}
