//! Sessions of the pages: a cookie in place of an access key. They lie hashed in the ledger, so that they
//! hold at every node and over restarts; what one may do is asked of its key at each request.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use onceward::core::time::Timestamp;
use onceward::secret::{random, sha256};
use onceward::store::{Store, StoreError};
use serde::{Deserialize, Serialize};

use super::key::{hash, instant};
use super::last_uses;
use super::role::Roles;
use crate::shape;

const PREFIX: &str = "session/";

/// When one was last used stands apart from it, as it does for keys.
const USED: &str = "session-used/";

/// How every session's id begins.
pub(crate) const ID_BEGIN: &str = "ses_";

/// The letters of its hash that are its id.
const ID_LETTERS: usize = 16;

/// The letters of a cookie: 256 bits.
const TOKEN_LETTERS: usize = 43;

/// How long one lasts that is not used.
const IDLE: Duration = Duration::from_mins(30);

/// How long one lasts at most.
const LIFE: Duration = Duration::from_hours(12);

/// Past so many the one goes that was used longest ago.
const SESSIONS_MAX: usize = 1000;

/// Sessions of one key, or of one person of a provider, at once.
const SESSIONS_OF_ONE_MAX: usize = 32;

/// How fine the last use is kept.
const USED_MICROS: i64 = 1_000_000;

/// By what somebody logged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub(crate) enum By {
    /// The access key that begins so: the session has its roles and routes, and ends with it.
    Key { prefix: String },
    /// The operator's key of one process, by its hash: the session ends with that process.
    Operator { key_hash: String },
    /// What an identity provider said.
    Provider { name: String, subject: String, roles: Roles },
}

impl By {
    /// The word for it.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Key { .. } => "key",
            Self::Operator { .. } => "operator",
            Self::Provider { .. } => "oidc",
        }
    }

    /// The same, with what tells which, for the audit.
    pub(crate) fn described(&self) -> String {
        match self {
            Self::Key { prefix } => format!("by the key {prefix}"),
            Self::Operator { .. } => "by the operator's key".to_owned(),
            Self::Provider { subject, roles, .. } => {
                format!("by the identity provider, subject {subject}, roles: {}", roles.said())
            }
        }
    }
}

/// A session as it is kept: everything but the cookie.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Session {
    /// SHA-256 of the cookie: it has 256 bits, so no slow hash is needed.
    hash: String,
    #[serde(flatten)]
    pub(crate) by: By,
    pub(crate) created_at: String,
    /// The address that it was begun from.
    pub(crate) from: String,
}

impl Session {
    /// What people call it.
    pub(crate) fn id(&self) -> String {
        format!("{ID_BEGIN}{}", &self.hash[..ID_LETTERS.min(self.hash.len())])
    }
}

/// One in use.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) session: Session,
    began: Timestamp,
    /// In microseconds.
    used: AtomicI64,
    /// What of that is in the ledger.
    kept: AtomicI64,
}

impl Open {
    fn new(session: Session, used: Option<Timestamp>) -> Option<Self> {
        let began = instant(&session.created_at)?;
        let used = used.unwrap_or(began).as_micros();
        let (used, kept) = (AtomicI64::new(used), AtomicI64::new(used));
        // What could not be cut into an id is none of ours.
        (session.hash.len() == TOKEN_LETTERS && session.hash.is_ascii()).then_some(Self {
            session,
            began,
            used,
            kept,
        })
    }

    pub(super) fn used(&self) -> Timestamp {
        Timestamp::from_micros(self.used.load(Ordering::Relaxed))
    }

    /// When it ends if nobody uses it.
    pub(super) fn ends(&self) -> Timestamp {
        self.used().plus(IDLE).min(self.began.plus(LIFE))
    }

    fn touch(&self, now: Timestamp) {
        let now = now.as_micros();
        if now - self.used.load(Ordering::Relaxed) >= USED_MICROS {
            self.used.fetch_max(now, Ordering::Relaxed);
        }
    }

    /// Whether no node can take it for one that goes on: another may have seen it used a while ago.
    fn is_over(&self, now: Timestamp) -> bool {
        now >= self.began.plus(LIFE) || now >= self.used().plus(IDLE * 2)
    }
}

/// The sessions there are.
pub(super) struct Sessions {
    store: Arc<dyn Store>,
    by_hash: RwLock<HashMap<String, Arc<Open>>>,
}

impl Sessions {
    pub(super) async fn open(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let by_hash = RwLock::new(read(&*store).await?);
        Ok(Self { store, by_hash })
    }

    /// Reads them again.
    pub(super) async fn refresh(&self) -> Result<(), StoreError> {
        let fresh = read(&*self.store).await?;
        let mut by_hash = self.by_hash.write().unwrap_or_else(PoisonError::into_inner);
        for (hash, open) in &fresh {
            if let Some(earlier) = by_hash.get(hash) {
                open.used.fetch_max(earlier.used.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
        *by_hash = fresh;
        Ok(())
    }

    /// All that go on.
    pub(super) fn list(&self, now: Timestamp) -> Vec<Arc<Open>> {
        let by_hash = self.by_hash.read().unwrap_or_else(PoisonError::into_inner);
        let mut open: Vec<_> =
            by_hash.values().filter(|open| now < open.ends()).map(Arc::clone).collect();
        open.sort_by(|a, b| b.session.created_at.cmp(&a.session.created_at));
        open
    }

    /// The one that this cookie is of, where it goes on; it counts as used.
    pub(super) fn of(&self, token: &str, now: Timestamp) -> Option<Arc<Open>> {
        let open = self.find(token, now)?;
        open.touch(now);
        Some(open)
    }

    /// The same, for what nobody looks at: it ends as if that had not been asked.
    pub(super) fn find(&self, token: &str, now: Timestamp) -> Option<Arc<Open>> {
        if token.len() != TOKEN_LETTERS {
            return None;
        }
        // What is looked up is a hash, so that the time it takes tells nothing about a cookie.
        let by_hash = self.by_hash.read().unwrap_or_else(PoisonError::into_inner);
        by_hash.get(&hash(token)).filter(|open| now < open.ends()).map(Arc::clone)
    }

    /// Looks for it in the ledger: another node may have begun it just now.
    pub(super) async fn look_for(&self, token: &str) -> Result<(), StoreError> {
        if token.len() != TOKEN_LETTERS || !self.store.is_shared() {
            return Ok(());
        }
        let hash = hash(token);
        let found = self.store.setting(format!("{PREFIX}{hash}")).await?;
        let open = found.and_then(|value| Open::new(serde_json::from_slice(&value).ok()?, None));
        if let Some(open) = open {
            let mut by_hash = self.by_hash.write().unwrap_or_else(PoisonError::into_inner);
            by_hash.entry(hash).or_insert_with(|| Arc::new(open));
        }
        Ok(())
    }

    /// Begins one: its cookie, shown this once, and what is kept of it.
    pub(super) async fn begin(
        &self,
        by: By,
        from: IpAddr,
        now: Timestamp,
    ) -> Result<(String, Session), StoreError> {
        let token = URL_SAFE_NO_PAD.encode(random::<32>());
        let session = Session {
            hash: hash(&token),
            by,
            created_at: shape::time(now),
            from: from.to_canonical().to_string(),
        };
        let value = serde_json::to_vec(&session).unwrap_or_default();
        let name = format!("{PREFIX}{}", session.hash);
        self.store.set(name, Some(Bytes::from(value))).await?;
        let too_many = {
            let mut by_hash = self.by_hash.write().unwrap_or_else(PoisonError::into_inner);
            let open = Open::new(session.clone(), None);
            by_hash.extend(open.map(|open| (session.hash.clone(), Arc::new(open))));
            // Who logs in again and again ends sessions of their own first.
            let own = || by_hash.values().filter(|open| open.session.by == session.by);
            let oldest = if own().count() > SESSIONS_OF_ONE_MAX {
                own().min_by_key(|open| open.used())
            } else {
                let all = by_hash.values().min_by_key(|open| open.used());
                all.filter(|_| by_hash.len() > SESSIONS_MAX)
            };
            oldest.map(|open| open.session.hash.clone())
        };
        if let Some(hash) = too_many {
            self.end(&hash).await?;
        }
        Ok((token, session))
    }

    /// Ends one.
    async fn end(&self, hash: &str) -> Result<(), StoreError> {
        self.store.set(format!("{PREFIX}{hash}"), None).await?;
        self.store.set(format!("{USED}{hash}"), None).await?;
        self.by_hash.write().unwrap_or_else(PoisonError::into_inner).remove(hash);
        Ok(())
    }

    /// Ends those that `which` picks; tells how many.
    pub(super) async fn end_where(
        &self,
        which: impl Fn(&Session) -> bool,
    ) -> Result<usize, StoreError> {
        let hashes: Vec<_> = {
            let by_hash = self.by_hash.read().unwrap_or_else(PoisonError::into_inner);
            let ended = by_hash.values().filter(|open| which(&open.session));
            ended.map(|open| open.session.hash.clone()).collect()
        };
        for hash in &hashes {
            self.end(hash).await?;
        }
        Ok(hashes.len())
    }

    /// Writes when they were last used, where that changed, and forgets those that are over.
    pub(super) async fn keep_used(&self, now: Timestamp) -> Result<(), StoreError> {
        let all: Vec<_> = {
            let by_hash = self.by_hash.read().unwrap_or_else(PoisonError::into_inner);
            by_hash.values().map(Arc::clone).collect()
        };
        for open in all {
            let used = open.used.load(Ordering::Relaxed);
            let hash = &open.session.hash;
            if open.is_over(now) {
                self.end(hash).await?;
            } else if used != open.kept.load(Ordering::Relaxed) {
                let value = Bytes::from(shape::time(Timestamp::from_micros(used)));
                self.store.set(format!("{USED}{hash}"), Some(value)).await?;
                open.kept.store(used, Ordering::Relaxed);
                // One that was ended meanwhile leaves nothing behind.
                let is_gone = |known: &HashMap<String, Arc<Open>>| !known.contains_key(hash);
                if is_gone(&self.by_hash.read().unwrap_or_else(PoisonError::into_inner)) {
                    self.store.set(format!("{USED}{hash}"), None).await?;
                }
            }
        }
        Ok(())
    }
}

/// What every form of a session's pages carries: it is made of the cookie, and does not tell it.
pub(super) fn form_token(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(sha256(format!("onceward/form/1:{token}").as_bytes()))
}

async fn read(store: &dyn Store) -> Result<HashMap<String, Arc<Open>>, StoreError> {
    let used = last_uses(store, USED).await?;
    let mut by_hash = HashMap::new();
    for (name, value) in store.settings(PREFIX.to_owned()).await? {
        // One that cannot be read, or of a later release, is none: whoever has it logs in again.
        let Ok(session) = serde_json::from_slice::<Session>(&value) else { continue };
        let hash = name[PREFIX.len()..].to_owned();
        let open = Open::new(session, used.get(&hash).copied());
        by_hash.extend(open.map(|open| (hash, Arc::new(open))));
    }
    Ok(by_hash)
}

#[cfg(test)]
mod tests {
    use onceward::store::memory::MemoryStore;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn by() -> By {
        By::Key { prefix: "ow_12345678".to_owned() }
    }

    #[tokio::test]
    async fn a_session_ends_when_it_is_idle_and_after_its_life_whatever_is_done_with_it() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let sessions = Sessions::open(Arc::clone(&store)).await.unwrap();
        let began = shape::now();
        let (token, _) = sessions.begin(by(), HERE, began).await.unwrap();
        let after = |minutes| began.plus(Duration::from_mins(minutes));
        assert!(sessions.of(&token, after(29)).is_some());
        assert!(sessions.of(&token, after(58)).is_some(), "it was used in between");
        sessions.keep_used(after(58)).await.unwrap();
        let other = Sessions::open(Arc::clone(&store)).await.unwrap();
        assert!(other.of(&token, after(87)).is_some(), "another node knows of that use");
        assert!(sessions.of(&token, after(88)).is_none(), "idle");
        for minutes in (87..720).step_by(20) {
            assert!(other.of(&token, after(minutes)).is_some(), "{minutes}");
        }
        assert!(other.of(&token, after(720)).is_none(), "12 hours are over");
        other.keep_used(after(721)).await.unwrap();
        assert_eq!(store.settings("session".to_owned()).await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_session_is_idle_while_only_a_page_asks_by_itself() {
        let sessions = Sessions::open(Arc::new(MemoryStore::default())).await.unwrap();
        let began = shape::now();
        let (token, _) = sessions.begin(by(), HERE, began).await.unwrap();
        let after = |minutes| began.plus(Duration::from_mins(minutes));
        for minutes in 1..30 {
            assert!(sessions.find(&token, after(minutes)).is_some(), "{minutes}");
        }
        assert!(sessions.find(&token, after(30)).is_none());
    }

    #[tokio::test]
    async fn a_session_is_read_as_it_was_kept_whatever_somebody_logged_in_with() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let sessions = Sessions::open(Arc::clone(&store)).await.unwrap();
        let (name, subject) = ("ada".to_owned(), "u-1".to_owned());
        let provider = By::Provider { name, subject, roles: Roles::READ };
        for by in [by(), By::Operator { key_hash: "h".to_owned() }, provider] {
            let (token, begun) = sessions.begin(by, HERE, shape::now()).await.unwrap();
            let other = Sessions::open(Arc::clone(&store)).await.unwrap();
            let read = other.of(&token, shape::now()).unwrap();
            assert_eq!((&read.session.by, read.session.id()), (&begun.by, begun.id()));
        }
    }

    #[tokio::test]
    async fn past_the_most_that_there_may_be_the_one_goes_that_was_used_longest_ago() {
        let sessions = Sessions::open(Arc::new(MemoryStore::default())).await.unwrap();
        let began = shape::now();
        let mut tokens = Vec::new();
        for n in 0..=SESSIONS_MAX {
            let at = began.plus(Duration::from_millis(n as u64));
            let by = By::Key { prefix: format!("ow_{n:08}") };
            tokens.push(sessions.begin(by, HERE, at).await.unwrap().0);
        }
        let now = began.plus(Duration::from_secs(2));
        assert_eq!(sessions.list(now).len(), SESSIONS_MAX);
        assert!(sessions.of(&tokens[0], now).is_none() && sessions.of(&tokens[1], now).is_some());
    }

    #[tokio::test]
    async fn who_logs_in_again_and_again_ends_sessions_of_their_own_alone() {
        let sessions = Sessions::open(Arc::new(MemoryStore::default())).await.unwrap();
        let began = shape::now();
        let other = By::Key { prefix: "ow_other000".to_owned() };
        let (other, _) = sessions.begin(other, HERE, began).await.unwrap();
        for n in 1..=2 * SESSIONS_OF_ONE_MAX {
            let at = began.plus(Duration::from_millis(n as u64));
            sessions.begin(by(), HERE, at).await.unwrap();
        }
        let now = began.plus(Duration::from_secs(2));
        assert!(sessions.of(&other, now).is_some());
        assert_eq!(sessions.list(now).len(), SESSIONS_OF_ONE_MAX + 1);
    }

    #[tokio::test]
    async fn the_ledger_has_neither_the_cookie_nor_what_forms_carry() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let sessions = Sessions::open(Arc::clone(&store)).await.unwrap();
        let (token, session) = sessions.begin(by(), HERE, shape::now()).await.unwrap();
        let kept = store.settings(String::new()).await.unwrap();
        let kept = format!("{kept:?}");
        assert!(kept.contains("ow_12345678") && kept.contains(&session.id()[ID_BEGIN.len()..]));
        assert!(!kept.contains(&token) && !kept.contains(&form_token(&token)));
        assert_ne!(form_token(&token), session.hash);
    }
}
