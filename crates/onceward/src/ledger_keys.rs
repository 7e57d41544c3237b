//! The ledger's own keys, each in a small row and wrapped by a master key: a new master key means that
//! these rows are written again, and nothing else.
//!
//! Key 0 is the first, from which fingerprints follow: it stays as long as the ledger. A new master key
//! brings a new data key with it, under which all is sealed from then on, so that whoever had the old one
//! and a copy of the ledger reads what was in that and nothing later.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use onceward_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::engine::{Engine, RACES_MAX};
use crate::master_key::{KeyRing, MasterKey, MasterKeyId};
use crate::observe::Fact;
use crate::secret::{FIRST, Secrets, UNNUMBERED, derived, open, random, seal, sealing_key};
use crate::setting::{damaged, decode, encode};
use crate::store::{Store, StoreError};

/// The rows.
const PREFIX: &str = "secret/key/";

/// The setting that only the right first key opens.
const CHECK: &str = "secret/check";

/// What it says.
const CHECKED: &[u8] = b"onceward";

/// How long a node waits before it seals with a new data key of a shared ledger: the others have read it
/// by then.
const SEALS_AFTER: Duration = Duration::from_mins(1);

/// How often a node looks for data keys of others.
const LOOKS_EVERY: Duration = Duration::from_secs(10);

/// Why a ledger's keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// They cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// They are wrapped by master keys that are not given.
    #[error("{}", NotGiven(.needed, .given))]
    NotGiven {
        /// Those.
        needed: BTreeSet<MasterKeyId>,
        /// Those that are given, the current one first.
        given: Vec<MasterKeyId>,
    },
    /// No given key is the one that the ledger was begun with.
    #[error("the master key is not the key of this ledger: every repeat would be refused")]
    OtherKey,
}

struct NotGiven<'a>(&'a BTreeSet<MasterKeyId>, &'a [MasterKeyId]);

impl fmt::Display for NotGiven<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |ids: &mut dyn Iterator<Item = &MasterKeyId>| {
            ids.map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        let (needed, given) = (list(&mut self.0.iter()), list(&mut self.1.iter()));
        write!(
            f,
            "the master key is not the key of this ledger: it needs {needed}, and given is {given}"
        )
    }
}

/// A key of the ledger's, as its row has it.
#[derive(Serialize, Deserialize)]
struct Row {
    /// What wraps it.
    master: u32,
    /// The nonce, and what is wrapped.
    wrapped: Vec<u8>,
}

/// What a row wraps.
#[derive(Serialize, Deserialize)]
struct Key {
    bytes: [u8; 32],
    /// In microseconds.
    made_at: i64,
}

/// A row that was read.
struct Read {
    number: u32,
    name: String,
    value: Bytes,
    master: MasterKeyId,
    /// What it wraps, where its master key is given.
    key: Option<Key>,
}

/// Where the keys of a ledger stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The master key that wraps from now on.
    pub current: MasterKeyId,
    /// The others that are given.
    pub others: Vec<MasterKeyId>,
    /// The keys of the ledger, and what wraps each.
    pub keys: Vec<(u32, MasterKeyId)>,
    /// The data key that seals.
    pub seals: u32,
    /// The master keys that wrap some, and are not given here.
    pub lacking: BTreeSet<MasterKeyId>,
}

impl Standing {
    /// The keys of the ledger that other master keys than the current one wrap.
    pub fn waiting(&self) -> usize {
        self.keys.iter().filter(|(_, master)| *master != self.current).count()
    }

    /// The master keys that are given and wrap nothing any more.
    pub fn idle(&self) -> Vec<MasterKeyId> {
        let is_idle = |id: &&MasterKeyId| self.keys.iter().all(|(_, master)| master != *id);
        self.others.iter().filter(is_idle).copied().collect()
    }
}

fn name_of(number: u32) -> String {
    format!("{PREFIX}{number:08x}")
}

fn wrap(master: &MasterKey, name: &str, key: &Key) -> Result<Bytes, StoreError> {
    let wrapping = sealing_key(&derived(&master.0, "onceward/wrap/1"));
    let mut wrapped = Vec::new();
    seal(&wrapping, &encode(key)?, name.as_bytes(), &mut wrapped);
    encode(&Row { master: master.id().0, wrapped })
}

/// Reads a row, and what it wraps where `ring` has its key.
fn unwrap(ring: &KeyRing, name: String, value: Bytes) -> Result<Read, StoreError> {
    let number = u32::from_str_radix(name.strip_prefix(PREFIX).unwrap_or_default(), 16);
    let number = number.map_err(|error| damaged(&name, error))?;
    let row: Row = decode(&name, &value)?;
    let master = MasterKeyId(row.master);
    let mut key = None;
    for given in ring.keys().filter(|key| key.id() == master) {
        let wrapping = sealing_key(&derived(&given.0, "onceward/wrap/1"));
        let opened = open(&wrapping, &row.wrapped, name.as_bytes());
        let opened = opened.map_err(|error| damaged(&name, error))?;
        key = Some(decode::<Key>(&name, &opened)?);
    }
    Ok(Read { number, name, value, master, key })
}

async fn rows(store: &dyn Store, ring: &KeyRing) -> Result<Vec<Read>, StoreError> {
    let rows = store.settings(PREFIX.to_owned()).await?;
    rows.into_iter().map(|(name, value)| unwrap(ring, name, value)).collect()
}

/// The secrets of the ledger in `store`, whose keys one of `ring` has to open; a new ledger gets its
/// first key here.
pub async fn open_secrets(
    store: &dyn Store,
    ring: &KeyRing,
    now: Timestamp,
) -> Result<Secrets, KeysError> {
    let mut found = rows(store, ring).await?;
    if found.is_empty() {
        found = begin(store, ring, now).await?;
    }
    let needed = lacking(&found);
    if !needed.is_empty() {
        return Err(KeysError::NotGiven { needed, given: ring.ids().collect() });
    }
    let first = found.iter().find(|row| row.number == FIRST).and_then(|row| row.key.as_ref());
    let first = first.ok_or_else(|| damaged(PREFIX, "the first key is not there"))?;
    let mut secrets = Secrets::new(first.bytes);
    if is_old(store).await? {
        secrets = secrets.of_old();
        // Nobody else has it open. On a shared ledger a person says when all nodes know of data keys.
        if found.len() == 1 && !store.is_shared() {
            add(store, ring, now).await?;
            found = rows(store, ring).await?;
        }
    }
    learn(&secrets, &found, store.is_shared(), now);
    if is_of(store, &secrets).await? { Ok(secrets) } else { Err(KeysError::OtherKey) }
}

/// The keys of a ledger that had none when it was looked at.
async fn begin(store: &dyn Store, ring: &KeyRing, now: Timestamp) -> Result<Vec<Read>, KeysError> {
    let bytes = match first_key(store, ring).await {
        Ok(bytes) => bytes,
        Err(other) => {
            // Another node may have begun it since, and its check is of the key that it made.
            let found = rows(store, ring).await?;
            return if found.is_empty() { Err(other) } else { Ok(found) };
        }
    };
    let name = name_of(FIRST);
    let offered = wrap(&ring.current, &name, &Key { bytes, made_at: now.as_micros() })?;
    // Of nodes that start together on a new ledger one says which key it has.
    let holds = store.offer(name.clone(), offered).await?;
    Ok(vec![unwrap(ring, name, holds)?])
}

/// Whether the ledger was begun by a release that knew no data keys.
async fn is_old(store: &dyn Store) -> Result<bool, StoreError> {
    let check = store.setting(CHECK.to_owned()).await?;
    Ok(check.is_some_and(|check| check.first() == Some(&UNNUMBERED)))
}

/// The master keys that wrap some of these and are not given.
fn lacking(found: &[Read]) -> BTreeSet<MasterKeyId> {
    found.iter().filter(|row| row.key.is_none()).map(|row| row.master).collect()
}

/// The first key of a ledger without rows of keys: a new one's is made of chance, and an older one's is
/// the master key that it was begun with.
async fn first_key(store: &dyn Store, ring: &KeyRing) -> Result<[u8; 32], KeysError> {
    let Some(check) = store.setting(CHECK.to_owned()).await? else { return Ok(random()) };
    let begun_with = |key: &&MasterKey| {
        Secrets::new(key.0).open(&check, CHECK.as_bytes()).as_deref() == Ok(CHECKED)
    };
    ring.keys().find(begun_with).map(|key| key.0).ok_or(KeysError::OtherKey)
}

/// Whether `secrets` are those of the ledger in `store`; a new ledger takes them as its own. Under
/// others every duplicate would be taken for a mismatch.
pub async fn is_of(store: &dyn Store, secrets: &Secrets) -> Result<bool, StoreError> {
    let offered = secrets.seal(CHECKED, CHECK.as_bytes());
    let sealed = store.offer(CHECK.to_owned(), offered.into()).await?;
    Ok(secrets.open(&sealed, CHECK.as_bytes()).is_ok())
}

/// Has `secrets` open with the keys that were read, and seal with the newest that all nodes have read.
fn learn(secrets: &Secrets, found: &[Read], is_shared: bool, now: Timestamp) {
    for (row, key) in found.iter().filter_map(|row| Some((row, row.key.as_ref()?))) {
        let since = Timestamp::from_micros(key.made_at).plus(SEALS_AFTER);
        secrets.learn(row.number, &key.bytes, !is_shared || since <= now);
    }
}

/// Wraps each key that another wraps by the current one of `ring`. Each row changes by itself, and
/// either key opens what is between: whatever breaks off here is gone on with.
async fn rewrap(store: &dyn Store, ring: &KeyRing) -> Result<(), StoreError> {
    for row in rows(store, ring).await? {
        let Some(key) = row.key.filter(|_| row.master != ring.current()) else { continue };
        let wrapped = wrap(&ring.current, &row.name, &key)?;
        // Where another node was faster, it is wrapped by a key of that one's.
        store.swap(row.name, Some(row.value), Some(wrapped)).await?;
    }
    Ok(())
}

/// The master keys that were current, in the order in which they became that.
const TAKEN: &str = "master-keys-taken";

/// Whether the current master key of `ring` is the newest that any node was started with, or is made
/// that. One that another followed does not come back by itself: nodes that are started one after the
/// other with a new key would else wrap everything by the old one again, and again.
async fn takes(store: &dyn Store, ring: &KeyRing, is_wanted: bool) -> Result<bool, StoreError> {
    let own = ring.current().0;
    for _ in 0..RACES_MAX {
        let kept = store.setting(TAKEN.to_owned()).await?;
        let mut taken: Vec<u32> = match &kept {
            Some(kept) => decode(TAKEN, kept)?,
            // What wraps now came before.
            None => rows(store, ring).await?.iter().map(|row| row.master.0).collect(),
        };
        if kept.is_some() && taken.contains(&own) {
            let is_newest = taken.last() == Some(&own);
            if is_newest || !is_wanted {
                return Ok(is_newest);
            }
        }
        taken.retain(|id| *id != own);
        taken.dedup();
        taken.push(own);
        if store.swap(TAKEN.to_owned(), kept, Some(encode(&taken)?)).await? {
            return Ok(true);
        }
    }
    Err(StoreError::Away("others change the master keys without an end".to_owned()))
}

/// Makes a data key. Where another node makes one now, theirs is as good.
async fn add(store: &dyn Store, ring: &KeyRing, now: Timestamp) -> Result<(), StoreError> {
    let last = rows(store, ring).await?.iter().map(|row| row.number).max();
    let name = name_of(last.map_or(FIRST, |last| last.saturating_add(1)));
    let wrapped = wrap(&ring.current, &name, &Key { bytes: random(), made_at: now.as_micros() })?;
    store.offer(name, wrapped).await?;
    Ok(())
}

/// Looks after the keys of a ledger while an engine runs on it.
pub struct KeyKeeper {
    engine: Arc<Engine>,
    ring: Mutex<KeyRing>,
    changed: Notify,
}

impl fmt::Debug for KeyKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyKeeper").finish_non_exhaustive()
    }
}

impl KeyKeeper {
    /// Of the ledger of `engine`, under the master keys `ring`.
    pub fn new(engine: &Arc<Engine>, ring: KeyRing) -> Arc<Self> {
        let (engine, ring) = (Arc::clone(engine), Mutex::new(ring));
        Arc::new(Self { engine, ring, changed: Notify::new() })
    }

    /// Has the keys of the ledger wrapped by the current master key, and reads those that other nodes make,
    /// until the engine is stopped.
    pub fn begin(self: &Arc<Self>) {
        self.engine.keep_up(Arc::clone(self).keep_up());
    }

    fn lock(&self) -> MutexGuard<'_, KeyRing> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether other processes may have the ledger too.
    pub fn is_shared(&self) -> bool {
        self.engine.store().is_shared()
    }

    /// The master keys of now.
    pub fn ring(&self) -> KeyRing {
        self.lock().clone()
    }

    /// Has other master keys from now on.
    pub fn set_ring(&self, ring: KeyRing) {
        *self.lock() = ring;
        self.changed.notify_one();
    }

    /// Makes a new data key, under the master keys `ring`, and wraps the others anew.
    pub async fn rekey(&self, ring: KeyRing) -> Result<Standing, StoreError> {
        let store = &**self.engine.store();
        takes(store, &ring, true).await?;
        add(store, &ring, self.engine.clock.now()).await?;
        self.set_ring(ring);
        self.pass().await
    }

    /// Wraps anew what has to be, reads what is new, and tells where the keys stand.
    pub async fn pass(&self) -> Result<Standing, StoreError> {
        let (store, ring) = (&**self.engine.store(), self.ring());
        let newest = rows(store, &ring).await?.into_iter().max_by_key(|row| row.number);
        if takes(store, &ring, false).await? {
            // A new master key brings a data key, also where it came with a start.
            if newest.is_some_and(|row| row.key.is_some() && row.master != ring.current()) {
                add(store, &ring, self.engine.clock.now()).await?;
            }
            rewrap(store, &ring).await?;
        }
        let found = rows(store, &ring).await?;
        let secrets = self.engine.secrets();
        learn(secrets, &found, store.is_shared(), self.engine.clock.now());
        Ok(Standing {
            current: ring.current(),
            others: ring.ids().skip(1).collect(),
            keys: found.iter().map(|row| (row.number, row.master)).collect(),
            seals: secrets.current(),
            lacking: lacking(&found),
        })
    }

    async fn keep_up(self: Arc<Self>) {
        let mut lacked = BTreeSet::new();
        loop {
            let clock = &self.engine.clock;
            let next = clock.now().plus(LOOKS_EVERY);
            let is_done = match self.pass().await {
                Ok(standing) => {
                    if !standing.lacking.is_subset(&lacked) {
                        let given = self.ring().ids().collect::<Vec<_>>();
                        let told = NotGiven(&standing.lacking, &given).to_string();
                        self.engine.observer.observe(Fact::Trouble(&format!(
                            "another node wrapped keys of the ledger, and what is sealed under them cannot be read here: {told}"
                        )));
                    }
                    lacked.clone_from(&standing.lacking);
                    // On one node nobody else makes keys.
                    standing.waiting() == 0 && !self.engine.store().is_shared()
                }
                Err(error) => {
                    let told = format!("the ledger's keys could not be wrapped anew: {error}");
                    self.engine.observer.observe(Fact::Trouble(&told));
                    if !self.engine.goes_on_after(&error) {
                        return;
                    }
                    false
                }
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = clock.sleep_until(next), if !is_done => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
