//! The engine in a process of one's own: begun on a ledger, and ended.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use onceward_core::attempt::{Ending, Reached, Timings};
use onceward_core::lease::Session;
use onceward_core::policy::Policy;
use thiserror::Error;
use url::Url;

use crate::clock::{Clock, SystemClock};
use crate::engine::{Engine, Parts};
use crate::layer::OncewardLayer;
use crate::ledger_keys::{self, KeyKeeper, KeysError};
use crate::master_key::{self, KeyRing};
use crate::observe::{Observer, Unobserved};
use crate::route::{Protection, Route, Routes};
use crate::secret::{Secrets, random};
use crate::store::memory::MemoryStore;
use crate::store::postgres::{PostgresOptions, PostgresStore};
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::store::{Store, StoreError};
use crate::upstream::{Dispatch, Failure, Sent, Target, Timeouts, Upstream};

/// Why Onceward cannot begin in this process.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The ledger cannot be opened, or not be used.
    #[error("the ledger cannot be opened")]
    Store(#[from] StoreError),
    /// The master key beside the ledger cannot be read or made.
    #[error("{}", path.display())]
    MasterKey {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The ledger's keys cannot be opened with the master key.
    #[error("the keys of the ledger cannot be opened")]
    Keys(#[from] KeysError),
}

/// Onceward in a process of one's own: an [`Engine`] on a ledger, which gives
/// [layers](Onceward::layer) for handlers. Clones are the same one.
///
/// A ledger in SQLite belongs to one process at a time; in PostgreSQL any number of processes share
/// one. What an earlier process had in hand is judged before the first call.
#[derive(Clone)]
pub struct Onceward {
    engine: Arc<Engine>,
}

impl fmt::Debug for Onceward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Onceward").finish_non_exhaustive()
    }
}

/// An [`Onceward`] that has not begun: see [`Onceward::on`].
pub struct Opening {
    store: Arc<dyn Store>,
    secrets: Given,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn Observer>,
}

/// What opens a ledger.
enum Given {
    Secrets(Box<Secrets>),
    Ring(KeyRing),
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").finish_non_exhaustive()
    }
}

impl Opening {
    /// With this clock instead of the machine's.
    #[must_use]
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// With somebody who counts and logs.
    #[must_use]
    pub fn observer(self, observer: Arc<dyn Observer>) -> Self {
        Self { observer, ..self }
    }

    /// Judges what earlier processes had in hand, and begins.
    pub async fn start(self) -> Result<Onceward, StartError> {
        let (secrets, ring) = match self.secrets {
            Given::Secrets(secrets) if ledger_keys::is_of(&*self.store, &secrets).await? => {
                (*secrets, None)
            }
            Given::Secrets(_) => Err(KeysError::OtherKey)?,
            Given::Ring(ring) => {
                let now = self.clock.now();
                (ledger_keys::open_secrets(&*self.store, &ring, now).await?, Some(ring))
            }
        };
        let engine = Engine::new(Parts {
            store: self.store,
            upstream: Arc::new(Nobody),
            clock: self.clock,
            observer: self.observer,
            secrets,
            routes: Routes { named: BTreeMap::new(), ad_hoc: Arc::new(route("")) },
            session: Session(u64::from_le_bytes(random())),
        });
        engine.recover().await?;
        engine.start();
        if let Some(ring) = ring {
            KeyKeeper::new(&engine, ring).begin();
        }
        Ok(Onceward { engine })
    }
}

impl Onceward {
    /// On a ledger that this process alone has: `path` is the file of its index. Its folder is made
    /// where it is missing (mode 0700), and has the ledger's master key (`master.key`) beside it: a
    /// copy of the ledger without that is worth nothing.
    pub async fn sqlite(path: impl AsRef<Path>) -> Result<Self, StartError> {
        let path = path.as_ref().to_owned();
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| Path::new(".")).to_owned();
        let key_file = folder.join("master.key");
        let failed = |source| StartError::MasterKey { path: key_file.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
        let opened = tokio::task::spawn_blocking(move || {
            SqliteStore::open(&path, &SqliteOptions::default())
        });
        let store = opened.await.map_err(|error| StoreError::Unavailable(error.to_string()))??;
        let master = master_key::read_or_make(&key_file).map_err(failed)?;
        Self::under(Arc::new(store), master).start().await
    }

    /// On a ledger in the PostgreSQL at `url`, which any number of processes share: all of them have
    /// the same `master_keys`, made once of chance and kept where secrets are kept: one, or a ring of
    /// which the first wraps the ledger's keys and the others may be needed still.
    pub async fn postgres(url: &str, master_keys: impl Into<KeyRing>) -> Result<Self, StartError> {
        let options = PostgresOptions { url: url.to_owned(), ca_file: None };
        let store = PostgresStore::open(&options).await?;
        Self::under(Arc::new(store), master_keys.into()).start().await
    }

    /// On a ledger in memory, which ends with the process: for tests, and to try things out.
    pub async fn memory() -> Result<Self, StartError> {
        Self::on(Arc::new(MemoryStore::new()), Secrets::new(random())).start().await
    }

    /// On any store, under secrets of one's own keeping: they have to be the same for as long as the
    /// ledger lives.
    pub fn on(store: Arc<dyn Store>, secrets: Secrets) -> Opening {
        Self::opening(store, Given::Secrets(Box::new(secrets)))
    }

    /// On any store, whose keys the master keys `ring` wrap.
    pub fn under(store: Arc<dyn Store>, ring: KeyRing) -> Opening {
        Self::opening(store, Given::Ring(ring))
    }

    fn opening(store: Arc<dyn Store>, secrets: Given) -> Opening {
        let (clock, observer) = (Arc::new(SystemClock), Arc::new(Unobserved));
        Opening { store, secrets, clock, observer }
    }

    /// A layer that gives handlers the contract. `name` is within what their keys are unique, and
    /// what their operations are called in the ledger: a name is for ever, and for one place.
    pub fn layer(&self, name: &str) -> OncewardLayer {
        OncewardLayer::new(Arc::clone(&self.engine), name)
    }

    /// The engine, to look at operations and to act as a person on them.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Ends: keyed calls are refused from now on (503 `draining`), and what is under way is waited
    /// for. Call it once the server has stopped listening, or beside its graceful shutdown.
    ///
    /// Whoever does not wait for it loses nothing: what was under way is judged at the next start.
    pub async fn stop(&self) {
        self.engine.stop().await;
    }

    /// Waits until the ledger cannot be used any more (an I/O error, another process on it): every
    /// keyed call is refused from then on, and the process has to end, so that the next one
    /// recovers.
    pub async fn broken(&self) {
        self.engine.broken().await;
    }
}

/// Whom nothing can be sent to: what is done here is done by the handler that a call met, and a call
/// without a caller met none.
struct Nobody;

impl Upstream for Nobody {
    fn send(&self, _: Dispatch) -> Pin<Box<dyn Future<Output = Sent> + Send + '_>> {
        Box::pin(std::future::ready(Sent::Failed(Failure {
            ending: Ending::Unsent,
            reached: Reached::Nothing,
            error: "a handler does what its caller asks, and nobody asks now".to_owned(),
            permanent: true,
            timings: Timings::default(),
        })))
    }
}

/// The route of a handler of this process, which nothing spares and nothing cuts off.
pub(crate) fn route(name: &str) -> Route {
    // It parses, being a constant.
    let base = Url::parse("http://handler.invalid").unwrap_or_else(|_| std::process::abort());
    // Only doors to a network look at them.
    let target = Target::of_operator(base, Timeouts::default());
    Route {
        protection: Protection {
            slots_max: 1024,
            breaker: None,
            budget: None,
            ..Protection::default()
        },
        ..Route::new(name, target, Policy::default())
    }
}
