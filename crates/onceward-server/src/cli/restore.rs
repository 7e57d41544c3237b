//! `restore`: a backup in the place of a ledger, while no gateway runs on it.
//!
//! A mark stands in the data folder from the first byte to the last, and `serve` does not start
//! beside it: a restore that broke off leaves nothing that opens, and the next one begins anew.
//! A restored ledger is in quarantine, because what it holds as pending may have been sent after
//! the backup was made.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use onceward::master_key::KeyRing;
use serde_json::json;

use super::Global;
use super::client::Client;
use super::output::{Printer, print, say, text};
use crate::config::Places;
use crate::exit::Exit;
use crate::node::{KEY_GIVEN, MASTER_KEY, RESTORING, make_folder};
use crate::quarantine::QUARANTINE;

/// The names in a backup, whatever the ledger's own are.
const INDEX: &str = "ledger.db";
const JOURNAL: &str = "ledger.journal";

/// What a SQLite file begins with.
const SQLITE: &[u8; 16] = b"SQLite format 3\0";

#[derive(Debug, Args)]
pub(super) struct Restore {
    /// The backup
    #[arg(required_unless_present = "release", conflicts_with = "release")]
    folder: Option<PathBuf>,
    /// Let the restored ledger send, on the running gateway
    #[arg(long)]
    pub(super) release: bool,
    /// Why it may, for the audit
    #[arg(long, requires = "release")]
    reason: Option<String>,
}

/// Ends the quarantine.
pub(super) async fn release(flags: &Restore, client: &Client, out: Printer) -> Result<(), Exit> {
    let reason = flags.reason.as_deref().unwrap_or_default();
    let released = client.post("/v1/release", &json!({"reason": reason})).await?;
    out.document(&released, || {
        say(&format!(
            "released: the ledger sends again; {} operations that were under way at the backup were judged",
            text(&released, "/recovered")
        ));
        Ok(())
    })
}

pub(super) fn restore(flags: &Restore, global: &Global) -> Result<(), Exit> {
    let from = flags.folder.as_deref().unwrap_or_else(|| Path::new("."));
    let places = Places::load(global.config.as_deref())?;
    let segments = read_backup(from)?;
    let index = places.store.file()?;
    let place = Place::of(index);
    let failed = |error: io::Error| {
        Exit::failed(format!("restoring into {}: {error}", place.data.display()))
    };
    make_folder(&place.data).map_err(failed)?;
    let lock = File::create(index.with_extension("lock")).map_err(failed)?;
    lock.try_lock().map_err(|_| {
        Exit::failed(format!(
            "a gateway runs on the ledger {}\nhelp: stop it, or restore into another place with ONCEWARD_STORE=sqlite:FOLDER/ledger.db",
            index.display()
        ))
    })?;
    if place.mark().exists() {
        say("an earlier restore broke off: this one begins anew");
        place.clear().map_err(failed)?;
    } else if let Some(there) = place.parts().into_iter().find(|part| part.exists()) {
        return Err(Exit::failed(format!(
            "{} is there already: nothing was changed\nhelp: move the old ledger away, or restore into another place with ONCEWARD_STORE=sqlite:FOLDER/ledger.db",
            there.display()
        )));
    }
    place.fill(from, &segments).map_err(failed)?;
    tell(&place, from, Printer::new(global.json))
}

fn tell(place: &Place, from: &Path, out: Printer) -> Result<(), Exit> {
    let restored = json!({"restored": place.index, "from": from, "quarantined": true});
    out.document(&restored, || {
        print(&place.index.display().to_string())?;
        if from.join(KEY_GIVEN).exists() {
            say("Its master key was given from outside: give the same to the gateway that starts on it.");
        }
        say("\
The ledger is in quarantine: it sends nothing, because what it holds as pending may have been sent
after the backup was made. Next:
  onceward serve                 to start on it
  onceward ls --state pending    to see what it would send; `onceward cancel ID` gives one up
  onceward ls --state delivering to see what was under way: what may be sent again is, the rest is in doubt
  onceward saga ls               to see sagas: those that are open are paused, and stay so until each is resumed
  onceward restore --release     to let it send");
        Ok(())
    })
}

/// Checks that `from` is a whole backup; gives the names of its segments.
fn read_backup(from: &Path) -> Result<Vec<String>, Exit> {
    let wrong = |what: &Path, why: &str| {
        Exit::failed(format!(
            "{}: {why}\nhelp: name the folder that `onceward backup` wrote; it holds {INDEX}, {JOURNAL} and {MASTER_KEY}",
            what.display()
        ))
    };
    let read = |what: &Path, error: io::Error| wrong(what, &error.to_string());
    let (index, journal, key) = (from.join(INDEX), from.join(JOURNAL), from.join(MASTER_KEY));
    let mut head = [0; SQLITE.len()];
    File::open(&index)
        .and_then(|mut file| file.read_exact(&mut head))
        .map_err(|error| read(&index, error))?;
    if &head != SQLITE {
        return Err(wrong(&index, "is no ledger"));
    }
    // It, or what says that there is none, is written last: a backup that has it is whole.
    let is_key_given = from.join(KEY_GIVEN).exists();
    if !is_key_given {
        let bytes = fs::read(&key).map_err(|error| read(&key, error))?;
        if KeyRing::of_file(&bytes).is_none() {
            return Err(wrong(&key, "is no master key"));
        }
    }
    let mut segments = Vec::new();
    for entry in fs::read_dir(&journal).map_err(|error| read(&journal, error))? {
        let name = entry.map_err(|error| read(&journal, error))?.file_name();
        segments.extend(name.into_string().ok().filter(|name| name.starts_with("segment-")));
    }
    segments.sort_unstable();
    Ok(segments)
}

/// Where a ledger's parts lie.
#[derive(Debug)]
struct Place {
    data: PathBuf,
    index: PathBuf,
    journal: PathBuf,
    key: PathBuf,
}

impl Place {
    fn of(index: &Path) -> Self {
        let data = index.parent().map_or_else(PathBuf::new, Path::to_owned);
        Self {
            index: index.to_owned(),
            journal: index.with_extension("journal"),
            key: data.join(MASTER_KEY),
            data,
        }
    }

    fn mark(&self) -> PathBuf {
        self.data.join(RESTORING)
    }

    /// Everything that a ledger consists of; none of it may be there before.
    fn parts(&self) -> [PathBuf; 5] {
        let beside = |suffix: &str| PathBuf::from(format!("{}{suffix}", self.index.display()));
        [self.index.clone(), self.journal.clone(), self.key.clone(), beside("-wal"), beside("-shm")]
    }

    /// Removes what a restore that broke off had put there.
    fn clear(&self) -> io::Result<()> {
        for part in self.parts() {
            let removed =
                if part.is_dir() { fs::remove_dir_all(&part) } else { fs::remove_file(&part) };
            removed.or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })?;
        }
        Ok(())
    }

    /// Puts the backup here. Each step is durable before the next.
    fn fill(&self, from: &Path, segments: &[String]) -> io::Result<()> {
        write(&self.mark(), &mut &b""[..])?;
        sync(&self.data)?;
        // It names this restore, so that what is done once for each is.
        let at = crate::shape::now().as_micros();
        let said = format!("restored ({at}); `onceward restore --release` lets it send\n");
        write(&self.data.join(QUARANTINE), &mut said.as_bytes())?;
        fs::create_dir(&self.journal)?;
        for segment in segments {
            copy(&from.join(JOURNAL).join(segment), &self.journal.join(segment))?;
        }
        sync(&self.journal)?;
        if !from.join(KEY_GIVEN).exists() {
            copy(&from.join(MASTER_KEY), &self.key)?;
        }
        copy(&from.join(INDEX), &self.index)?;
        sync(&self.data)?;
        fs::remove_file(self.mark())?;
        sync(&self.data)
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", from.display()));
    write(to, &mut File::open(from).map_err(named)?)
}

/// Writes a file that only its owner reads, and has it on the disk.
fn write(to: &Path, from: &mut impl io::Read) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(to)?;
    io::copy(from, &mut file)?;
    file.flush()?;
    file.sync_all()
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
