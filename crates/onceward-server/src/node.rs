//! What the edges of one process share.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::CONNECTION;
use http::{HeaderValue, Response, StatusCode, Version};
use onceward::core::saga::Standing as Stands;
use onceward::master_key::write_secret;
use onceward::store::StoreError;
use onceward::{Engine, OpenSagas, Standing};
use rustix::fs::statvfs;

use crate::access::Access;
use crate::alerts::Alerts;
use crate::body::Body;
use crate::changes::Changes;
use crate::gateway::Gateway;
use crate::guard::Guards;
use crate::lately::Lately;
use crate::oidc::Oidc;
use crate::operator::subscriptions::{STATES, state_of};
use crate::outbox::Outboxes;
use crate::problem::Problem;
use crate::rekey::Rekey;
use crate::shape;
use crate::source::Sources;
use crate::telemetry::{Now, Telemetry};

/// The file whose presence keeps a restored ledger from sending.
pub(crate) const QUARANTINE: &str = "quarantine";

/// The file that stands beside a ledger while a backup is put in its place.
pub(crate) const RESTORING: &str = "restoring";

/// The file with the ledger's master keys.
pub(crate) const MASTER_KEY: &str = "master.key";

/// What a backup has in the place of a master key that was given from outside: that it is whole, and
/// has none.
pub(crate) const KEY_GIVEN: &str = "master.key.given";

/// Makes a folder that only its owner enters: what callers send lies in it.
pub(crate) fn make_folder(folder: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Bytes of room on the disk that a folder is on, for whoever is not root.
pub(crate) fn free_at(folder: &Path) -> Option<u64> {
    let disk = statvfs(folder).ok()?;
    Some(disk.f_bavail * disk.f_frsize)
}

/// One running process.
pub(crate) struct Node {
    pub(crate) engine: Arc<Engine>,
    pub(crate) gateway: Gateway,
    pub(crate) guards: Guards,
    pub(crate) sources: Sources,
    pub(crate) access: Access,
    pub(crate) oidc: Oidc,
    pub(crate) changes: Arc<Changes>,
    pub(crate) outboxes: Outboxes,
    pub(crate) alerts: Alerts,
    /// Of all tenants, those that have not ended.
    pub(crate) sagas: Lately<OpenSagas>,
    pub(crate) data: PathBuf,
    pub(crate) rekey: Rekey,
    pub(crate) quarantined: AtomicBool,
    pub(crate) draining: AtomicBool,
}

impl Node {
    /// Whether nothing is sent until a person says so.
    pub(crate) fn is_quarantined(&self) -> bool {
        self.quarantined.load(Ordering::Acquire)
    }

    /// Refuses what would send, and says what was not done for it, until a person says that it may.
    pub(crate) fn check_released(&self, undone: &'static str) -> Result<(), Problem> {
        if self.is_quarantined() { Err(Problem::new("quarantine", undone)) } else { Ok(()) }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Has the connection end with its answer where the process ends, so that whoever keeps it asks by
    /// another next time. HTTP/2 has a word of its own for that.
    pub(crate) fn part(&self, response: &mut Response<Body>, version: Version) {
        let is_switch = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if self.is_draining() && version <= Version::HTTP_11 && !is_switch {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }

    /// What stands before each configured upstream.
    pub(crate) fn gates(&self) -> Vec<(String, Standing)> {
        let routes = self.engine.routes();
        let standing = |name: &String| Some((name.clone(), self.engine.standing(name)?));
        routes.named.keys().filter_map(standing).collect()
    }

    /// Has the gauges among the metrics tell what is now.
    pub(crate) async fn gauge(&self) -> Result<(), StoreError> {
        self.outboxes.gauge();
        Telemetry::gauge(&self.now().await?);
        Ok(())
    }

    async fn now(&self) -> Result<Now, StoreError> {
        let store = self.engine.store();
        let (condition, lanes) = (store.condition().await?, store.lanes().await?);
        let first = lanes.into_iter().map(|(_, due)| due).min();
        let oldest_due = first.map(|due| shape::now().since(due)).unwrap_or_default();
        let in_doubt = store.oldest_in_doubt(None).await?;
        let in_doubt_age = in_doubt.map(|oldest| shape::now().since(oldest.created_at));
        let keys = self.engine.keys_ahead(None).await?;
        Ok(Now {
            condition,
            routes: self.gates(),
            oldest_due,
            in_doubt_age: in_doubt_age.unwrap_or_default(),
            keys,
            sagas: self.sagas_open().await?,
            subscriptions: self.subscriptions().await?,
            free: self.free(),
        })
    }

    /// How many sagas that have not ended stand where, of all tenants.
    async fn sagas_open(&self) -> Result<Vec<(Stands, u64)>, StoreError> {
        let open = self.engine.open_sagas().await?;
        let standings = Stands::ALL.into_iter().filter(|standing| !standing.is_ended());
        let count = |standing| {
            let of_it = open.counts.iter().filter(|((_, other), _)| *other == standing);
            (standing, of_it.map(|(_, count)| count).sum())
        };
        Ok(standings.map(count).collect())
    }

    /// How many subscriptions there are of each kind, of all tenants.
    async fn subscriptions(&self) -> Result<Vec<(&'static str, u64)>, StoreError> {
        let mut counts = STATES.map(|state| (state, 0));
        for subscription in self.engine.subscriptions().await? {
            let state = state_of(self, &subscription);
            for (name, count) in &mut counts {
                *count += u64::from(*name == state);
            }
        }
        Ok(counts.into())
    }

    /// Bytes of room where the ledger is, where it is on a disk of this machine.
    pub(crate) fn free(&self) -> Option<u64> {
        let is_here = !self.engine.store().is_shared();
        is_here.then(|| free_at(&self.data)).flatten()
    }

    /// Lets a restored ledger send: judges what its crash left behind, then delivers.
    pub(crate) async fn release(&self) -> Result<usize, Problem> {
        if !self.is_quarantined() {
            return Err(Problem::new("operation-conflict", "The ledger is not in quarantine."));
        }
        let marker = self.data.join(QUARANTINE);
        std::fs::remove_file(&marker).map_err(|error| {
            Problem::new("gone-wrong", format!("{}: {error}", marker.display()))
        })?;
        let judged = self.engine.recover().await?;
        self.quarantined.store(false, Ordering::Release);
        self.engine.start();
        self.outboxes.start();
        Ok(judged)
    }

    /// Copies the ledger and its master key, while it is in use.
    pub(crate) async fn backup(&self, to: &Path) -> Result<(), Problem> {
        // Anything that is there may be a ledger, and its master key would be written over.
        let is_free =
            std::fs::read_dir(to).map_or_else(|_| !to.exists(), |mut there| there.next().is_none());
        if !is_free {
            return Err(Problem::new(
                "operation-conflict",
                format!(
                    "{} is there already: a backup goes into a folder of its own.",
                    to.display()
                ),
            ));
        }
        let failed = |error: std::io::Error| {
            StoreError::Unavailable(format!("writing the backup {}: {error}", to.display()))
        };
        make_folder(to).map_err(failed)?;
        let _keys_stay = self.rekey.hold().await;
        self.engine.store().backup(to).await?;
        // Last, so that a backup that has it is whole.
        if self.rekey.is_given() {
            let said =
                b"the master key was given, and is not here: start what is restored with it\n";
            write_secret(&to.join(KEY_GIVEN), said).map_err(failed)?;
            return Ok(());
        }
        let key = to.join(MASTER_KEY);
        std::fs::copy(self.data.join(MASTER_KEY), &key).map_err(failed)?;
        File::open(key).and_then(|key| key.sync_all()).map_err(failed)?;
        File::open(to).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(())
    }
}
