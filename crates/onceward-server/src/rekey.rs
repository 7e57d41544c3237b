//! The ledger's master keys while the gateway runs: a new one before the others, and the old ones gone
//! once they wrap nothing. Each step is on disk before the next.

use std::path::PathBuf;
use std::sync::Arc;

use onceward::ledger_keys::{KeyKeeper, Standing};
use onceward::master_key::{KeyRing, write_secret};
use onceward::sabotage::Sabotage;
use tokio::sync::{Mutex, MutexGuard};

use crate::given_key::{Source, given_keys};
use crate::problem::Problem;

/// What changes the master keys of a running gateway.
pub(crate) struct Rekey {
    keeper: Arc<KeyKeeper>,
    source: Source,
    /// Where keys lie that were made here.
    file: PathBuf,
    /// Held by whoever changes the keys, or copies the ledger with them.
    busy: Mutex<()>,
}

impl Rekey {
    pub(crate) fn new(keeper: Arc<KeyKeeper>, source: Source, file: PathBuf) -> Self {
        Self { keeper, source, file, busy: Mutex::new(()) }
    }

    /// Looks after the ledger's keys from now on.
    pub(crate) fn keep(&self) {
        self.keeper.begin();
    }

    /// Whether the keys came from outside, so that they lie in no folder of ours.
    pub(crate) fn is_given(&self) -> bool {
        self.source != Source::Made
    }

    /// Keeps the keys as they are.
    pub(crate) async fn hold(&self) -> MutexGuard<'_, ()> {
        self.busy.lock().await
    }

    /// Where the ledger's keys stand.
    pub(crate) async fn standing(&self) -> Result<Standing, Problem> {
        Ok(self.keeper.pass().await?)
    }

    /// Puts a new master key before the others, and wraps the ledger's keys with it.
    pub(crate) async fn begin(&self) -> Result<Standing, Problem> {
        let _busy = self.hold().await;
        let ring = match &self.source {
            Source::Made if self.keeper.is_shared() => {
                return Err(conflict(
                    "Several nodes may share this ledger, and a key that is made here would lie at this one alone: put a new one (openssl rand -hex 32) on the first line of every node's master.key, the old one below it, and start them again.",
                ));
            }
            Source::Made => self.keeper.ring().with_new(),
            Source::Variable => {
                return Err(conflict(
                    "The master keys are in ONCEWARD_MASTER_KEY, which is read at a start: put a new one before the others there (NEW,OLD) and start again; the ledger's keys are wrapped with it by themselves.",
                ));
            }
            Source::File(file) => self.read_again(file)?,
        };
        if Sabotage::MasterKeyLate.is_on() {
            let standing = self.keeper.rekey(ring.clone()).await?;
            self.write(&ring)?;
            return Ok(standing);
        }
        // Before a key of the ledger's is wrapped with it: a start finds both.
        self.write(&ring)?;
        Ok(self.keeper.rekey(ring).await?)
    }

    fn read_again(&self, file: &std::path::Path) -> Result<KeyRing, Problem> {
        let given = given_keys().map_err(|exit| conflict(&exit.message))?;
        given.map(|(ring, _)| ring).filter(|ring| ring.current() != self.keeper.ring().current()).ok_or_else(|| {
            conflict(&format!(
                "The master key was given in {} and is the same as before: put a new one (openssl rand -hex 32) on the first line there, leave the old one below it, and ask again.",
                file.display()
            ))
        })
    }

    /// Takes the old master keys away, where they wrap nothing any more.
    pub(crate) async fn retire(&self) -> Result<Standing, Problem> {
        let _busy = self.hold().await;
        let standing = self.keeper.pass().await?;
        if standing.waiting() > 0 {
            return Err(conflict(
                "Some of the ledger's keys are wrapped with an old master key still: ask again.",
            ));
        }
        if self.is_given() {
            return Err(conflict(
                "The master keys were given: take the old ones out where they are kept.",
            ));
        }
        let ring = self.keeper.ring().without_old();
        self.write(&ring)?;
        self.keeper.set_ring(ring);
        Ok(self.keeper.pass().await?)
    }

    fn write(&self, ring: &KeyRing) -> Result<(), Problem> {
        if self.is_given() {
            return Ok(());
        }
        write_secret(&self.file, ring.to_text().as_bytes()).map_err(|error| {
            Problem::new("gone-wrong", format!("{}: {error}", self.file.display()))
        })
    }
}

fn conflict(why: &str) -> Problem {
    Problem::new("operation-conflict", why)
}
