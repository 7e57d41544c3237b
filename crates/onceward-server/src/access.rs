//! Who may call, and what: access keys, kept hashed, with roles, routes and an expiry (`key`, `role`),
//! where a request has its own (`given`), sessions of those who logged in by one (`session`, `cookie`,
//! `arrival`, `tries`), what each endpoint needs (`endpoint`, `authorise`), and that no web page posts
//! through it (`browser`), but with a key for pages (`page`).

mod arrival;
mod authorise;
mod browser;
mod cookie;
mod endpoint;
mod given;
mod key;
mod login;
mod page;
mod role;
mod session;
mod tries;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, header};
use onceward::core::time::Timestamp;
use onceward::secret::is_same;
use onceward::store::{Store, StoreError};

pub(crate) use self::arrival::{Arrival, Visit};
pub(crate) use self::authorise::{authorise, check_route, is_own};
pub(crate) use self::browser::{other_host, refuse_web_pages};
pub(crate) use self::cookie::{Cookie, take_cookies};
pub(crate) use self::endpoint::{CALL, Endpoint, METRICS, endpoints, looks};
pub(crate) use self::key::{AccessKey, new_key};
pub(crate) use self::login::{Opened, Standing};
pub(crate) use self::page::{Page, origin_of};
pub(crate) use self::role::Roles;
pub(crate) use self::session::{By, ID_BEGIN};
pub(crate) use onceward::core::key::TENANT;

use self::browser::refuse_other_hosts;
use self::given::take_key;
use self::key::{Known, hash, instant, is_whole, prefix};
use self::session::Sessions;
use self::tries::Tries;
use crate::config::Config;
use crate::listening::Peer;
use crate::problem::Problem;
use crate::shape;

const PREFIX: &str = "access/";

/// When a key was last used stands apart from it, so that neither write undoes the other.
const USED: &str = "access-used/";

/// What an act's record calls whoever needs no key; no key is called so.
pub(crate) const LOCAL: &str = "local";

/// The longest name of a tenant, in bytes.
pub(crate) const TENANT_BYTES_MAX: usize = 64;

/// Whether a tenant can be called so.
pub(crate) fn is_tenant(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=TENANT_BYTES_MAX).contains(&name.len()) && name.bytes().all(fits)
}

/// A caller's name as people see it: that of another tenant has the tenant before it.
pub(crate) fn said(tenant: &str, name: &str) -> String {
    if tenant == TENANT { name.to_owned() } else { format!("{tenant}/{name}") }
}

/// Who asks, and what that may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// Whose data it sends and sees.
    pub(crate) tenant: String,
    /// The access key's name; empty where none is needed.
    pub(crate) principal: String,
    pub(crate) roles: Roles,
    /// The routes that it is confined to.
    routes: Option<Arc<[String]>>,
    /// The origins of the pages that its key is for.
    origins: Option<Arc<[String]>>,
    /// The version of the contract that its key is pinned to.
    pub(crate) contract: Option<Arc<str>>,
}

impl Caller {
    /// The command line's own, and everybody where no key is needed.
    fn local() -> Self {
        let (tenant, principal) = (TENANT.to_owned(), String::new());
        let (routes, origins, contract) = (None, None, None);
        Self { tenant, principal, roles: Roles::ALL, routes, origins, contract }
    }

    /// The same, as it acts for another tenant.
    pub(crate) fn within(self, tenant: String) -> Self {
        Self { tenant, ..self }
    }

    /// Whoever is not known yet: what needs no role is open to them.
    fn nobody() -> Self {
        Self { roles: Roles::NONE, ..Self::local() }
    }

    /// Whether it is confined to some routes.
    pub(crate) fn is_confined(&self) -> bool {
        self.routes.is_some()
    }

    /// Whether a route, or an origin, is there for it.
    pub(crate) fn reaches(&self, route: &str) -> bool {
        self.routes.as_ref().is_none_or(|routes| routes.iter().any(|known| known == route))
    }

    /// The name in an act's record.
    pub(crate) fn who(&self) -> String {
        if self.principal.is_empty() {
            return LOCAL.to_owned();
        }
        said(&self.tenant, &self.principal)
    }

    /// Whether it runs the gateway, and sees and changes what is any tenant's.
    pub(crate) fn is_operator(&self) -> bool {
        self.tenant == TENANT && self.roles.has(Roles::ADMIN) && !self.is_confined()
    }
}

/// What a new key is for.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) name: String,
    pub(crate) tenant: String,
    pub(crate) roles: Roles,
    /// Empty: all.
    pub(crate) routes: Vec<String>,
    /// Of a key for pages, theirs; else empty.
    pub(crate) origins: Vec<String>,
    pub(crate) expires: Option<Timestamp>,
    /// The version of the contract that it is pinned to.
    pub(crate) contract: Option<String>,
}

/// Whether a session of the pages counts for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looks {
    /// It does.
    Inside,
    /// It does, and nobody needs to be anybody: the way in.
    Outside,
    /// It does not: programs have a key.
    Nowhere,
}

/// How the main listener is reached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exposure {
    /// Whether it is from elsewhere, by itself or by a proxy.
    is_reached: bool,
    /// Whether a proxy before it speaks TLS for it.
    behind_proxy: bool,
    /// Whether a caller's certificate stands for the access key of its name.
    names_callers: bool,
}

impl Exposure {
    /// As `config` says, on this address.
    pub(crate) fn of(config: &Config, listen: SocketAddr) -> Self {
        Self {
            is_reached: config.behind_proxy || !listen.ip().is_loopback(),
            behind_proxy: config.behind_proxy,
            names_callers: config.names_callers,
        }
    }
}

type ByHash = HashMap<String, Known>;

/// The keys there are.
pub(crate) struct Access {
    store: Arc<dyn Store>,
    by_hash: RwLock<ByHash>,
    /// Held from the ledger to `by_hash`: what was read before a change must not undo it here.
    changing: tokio::sync::Mutex<()>,
    /// The command line's own key, in the data folder.
    operator: String,
    exposure: Exposure,
    sessions: Sessions,
    tries: Tries,
}

impl Access {
    /// Reads the keys; `operator` is the command line's own.
    pub(crate) async fn open(
        store: Arc<dyn Store>,
        operator: &str,
        exposure: Exposure,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            by_hash: RwLock::new(read(&*store).await?),
            changing: tokio::sync::Mutex::default(),
            sessions: Sessions::open(Arc::clone(&store)).await?,
            store,
            operator: hash(operator),
            exposure,
            tries: Tries::default(),
        })
    }

    /// Reads keys and sessions again: other nodes make and revoke some too.
    pub(crate) async fn refresh(&self) -> Result<(), StoreError> {
        let _alone = self.changing.lock().await;
        self.sessions.refresh().await?;
        let fresh = read(&*self.store).await?;
        let mut by_hash = self.by_hash.write().unwrap_or_else(PoisonError::into_inner);
        for (hash, known) in &fresh {
            if let Some(earlier) = by_hash.get(hash) {
                known.follow(earlier);
            }
        }
        *by_hash = fresh;
        Ok(())
    }

    /// All keys, by name.
    pub(crate) fn list(&self) -> Vec<AccessKey> {
        let by_hash = self.by_hash.read().unwrap_or_else(PoisonError::into_inner);
        let mut keys: Vec<_> = by_hash.values().map(Known::seen).collect();
        keys.sort_by(|a, b| {
            (&a.tenant, &a.name, &a.created_at).cmp(&(&b.tenant, &b.name, &b.created_at))
        });
        keys
    }

    /// The key that begins so.
    pub(crate) fn find(&self, prefix: &str) -> Option<AccessKey> {
        self.list().into_iter().find(|key| key.prefix == prefix)
    }

    /// Makes a key; it is shown this once.
    pub(crate) async fn create(
        &self,
        grant: Grant,
        now: Timestamp,
    ) -> Result<(String, AccessKey), StoreError> {
        let _alone = self.changing.lock().await;
        self.make(grant, now).await
    }

    /// Makes another key of the same name, roles and routes; the old one is refused after `overlap`. Where
    /// that changed meanwhile it is [`StoreError::Stale`], and nothing is done.
    /// Without `expires` the new one lives as long as the old one was made for.
    pub(crate) async fn rotate(
        &self,
        old: AccessKey,
        overlap: Duration,
        expires: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(String, AccessKey, AccessKey), StoreError> {
        let lifetime = old.expires().zip(instant(&old.created_at));
        let alike = lifetime.map(|(until, from)| now.plus(until.since(from)));
        let grant = Grant {
            name: old.name.clone(),
            tenant: old.tenant.clone(),
            roles: old.roles,
            routes: old.routes.clone(),
            origins: old.origins.clone(),
            expires: expires.or(alike),
            contract: old.contract.clone(),
        };
        let end = now.plus(overlap);
        let end = old.expires().map_or(end, |earlier| earlier.min(end));
        let old = AccessKey { expires_at: Some(shape::time(end)), ..old };
        let _alone = self.changing.lock().await;
        let name = format!("{PREFIX}{}", old.prefix);
        // It may have been revoked since it was looked up.
        let Some(was) = self.store.setting(name.clone()).await? else {
            return Err(StoreError::Stale);
        };
        // The new one first: a crash between the two locks nobody out.
        let (key, kept) = self.make(grant, now).await?;
        let value = Bytes::from(serde_json::to_vec(&old).unwrap_or_default());
        if !self.store.swap(name, Some(was), Some(value)).await? {
            // Another node revoked or rotated it meanwhile: then nothing came of this.
            self.store.set(format!("{PREFIX}{}", kept.prefix), None).await?;
            let mut by_hash = self.by_hash.write().unwrap_or_else(PoisonError::into_inner);
            by_hash.remove(&kept.hash);
            return Err(StoreError::Stale);
        }
        self.know(&old);
        Ok((key, kept, old))
    }

    /// Revokes the key with this prefix; tells whether there was one.
    pub(crate) async fn revoke(&self, prefix: &str) -> Result<bool, StoreError> {
        let Some(key) = self.find(prefix) else {
            return Ok(false);
        };
        let _alone = self.changing.lock().await;
        self.store.set(format!("{PREFIX}{prefix}"), None).await?;
        self.by_hash.write().unwrap_or_else(PoisonError::into_inner).remove(&key.hash);
        if key.last_used_at.is_some() {
            self.store.set(format!("{USED}{prefix}"), None).await?;
        }
        // They have ended with it; this forgets them.
        let is_of = |by: &By| matches!(by, By::Key { prefix: of } if of == prefix);
        self.sessions.end_where(|session| is_of(&session.by)).await?;
        Ok(true)
    }

    async fn make(&self, grant: Grant, now: Timestamp) -> Result<(String, AccessKey), StoreError> {
        let key = new_key();
        let kept = AccessKey {
            tenant: grant.tenant,
            name: grant.name,
            prefix: prefix(&key),
            hash: hash(&key),
            created_at: shape::time(now),
            roles: grant.roles,
            routes: grant.routes,
            origins: grant.origins,
            expires_at: grant.expires.map(shape::time),
            contract: grant.contract,
            last_used_at: None,
        };
        self.put(&kept).await?;
        Ok((key, kept))
    }

    /// Keeps a key, new or changed.
    async fn put(&self, key: &AccessKey) -> Result<(), StoreError> {
        let value = serde_json::to_vec(key).unwrap_or_default();
        self.store.set(format!("{PREFIX}{}", key.prefix), Some(Bytes::from(value))).await?;
        self.know(key);
        Ok(())
    }

    fn know(&self, key: &AccessKey) {
        let known = Known::new(key.clone(), key.last_used_at);
        let mut by_hash = self.by_hash.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(earlier) = by_hash.get(&key.hash) {
            known.follow(earlier);
        }
        by_hash.insert(key.hash.clone(), known);
    }

    /// Writes when keys and sessions were last used, where that changed.
    pub(crate) async fn keep_used(&self) -> Result<(), StoreError> {
        let unkept: Vec<(String, String, Timestamp)> = {
            let by_hash = self.by_hash.read().unwrap_or_else(PoisonError::into_inner);
            let unkept = by_hash.iter().filter_map(|(hash, known)| {
                Some((hash.clone(), known.key.prefix.clone(), known.unkept()?))
            });
            unkept.collect()
        };
        for (hash, prefix, used) in unkept {
            // One that is revoked meanwhile leaves nothing behind.
            let _alone = self.changing.lock().await;
            if !self.by_hash.read().unwrap_or_else(PoisonError::into_inner).contains_key(&hash) {
                continue;
            }
            let value = Bytes::from(shape::time(used));
            self.store.set(format!("{USED}{prefix}"), Some(value)).await?;
            let by_hash = self.by_hash.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = by_hash.get(&hash) {
                known.keep(used);
            }
        }
        let _alone = self.changing.lock().await;
        self.sessions.keep_used(shape::now()).await
    }

    /// Whether a call needs a key.
    pub(crate) fn is_needed(&self) -> bool {
        self.exposure.is_reached
            || !self.by_hash.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Who sent this. Our key and our cookies are taken out of it: they never go upstream. A session
    /// counts where `looks` says so.
    pub(crate) fn admit(
        &self,
        head: &mut Parts,
        peer: &Peer,
        looks: Looks,
    ) -> Result<(Caller, Arrival), Problem> {
        let mut arrival = self.arrival(head, peer, looks);
        let found = take_key(&mut head.headers).map(|key| self.caller(&key));
        match &found {
            Some(Ok(caller @ Caller { origins: Some(origins), .. })) => {
                caller.check_origin(origins, &head.headers)?;
            }
            // A page whose key is gone is told that, and not that it is a stranger's.
            Some(Err(_)) if self.is_named(&head.headers) => {}
            _ => refuse_web_pages(head)?,
        }
        if let Some(found) = found {
            return Ok((found?, arrival));
        }
        if !self.is_needed() {
            refuse_other_hosts(head)?;
            return Ok((Caller::local(), arrival));
        }
        let session = arrival.token().filter(|_| looks != Looks::Nowhere);
        let is_look = !arrival.is_by_itself;
        if let Some((caller, visit)) = session.and_then(|token| self.visitor(token, is_look)) {
            arrival.visit = Some(visit);
            return Ok((caller, arrival));
        }
        if let Some(caller) = self.certified(head, peer) {
            return Ok((caller, arrival));
        }
        if looks == Looks::Outside {
            return Ok((Caller::nobody(), arrival));
        }
        Err(Problem::new(
            "unauthenticated",
            "Send `Onceward-Authorization: Bearer ow_…` or `Authorization: Bearer ow_…`; `onceward access create` makes a key.",
        ))
    }

    /// Whether it comes from a page of some key.
    fn is_named(&self, headers: &HeaderMap) -> bool {
        let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
        origin.is_some_and(|origin| self.is_of_a_page(origin))
    }

    /// Whether some key that has not expired is for pages of this origin.
    fn is_of_a_page(&self, origin: &str) -> bool {
        let now = shape::now();
        let by_hash = self.by_hash.read().unwrap_or_else(PoisonError::into_inner);
        by_hash.values().any(|known| {
            known.origins.as_ref().is_some_and(|origins| origins.iter().any(|it| it == origin))
                && known.expires.is_none_or(|at| at > now)
        })
    }

    fn caller(&self, key: &str) -> Result<Caller, Problem> {
        let hash = hash(key);
        // What is looked up is a hash, so that the time it takes tells nothing about a key.
        if is_same(hash.as_bytes(), self.operator.as_bytes()) {
            return Ok(Caller::local());
        }
        let by_hash = self.by_hash.read().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = by_hash.get(&hash) else {
            let why = if is_whole(key) {
                "The access key is not known; it may have been revoked."
            } else {
                "The access key is mistyped or cut: its checksum does not fit."
            };
            return Err(Problem::new("unauthenticated", why));
        };
        let now = shape::now();
        let caller = known.caller(now)?;
        known.touch(now);
        Ok(caller)
    }
}

impl Known {
    /// Whoever has it, while it holds.
    fn caller(&self, now: Timestamp) -> Result<Caller, Problem> {
        if let Some(at) = self.expires.filter(|at| *at <= now) {
            let why = format!("The access key has expired, {}.", shape::time(at));
            return Err(Problem::new("unauthenticated", why));
        }
        Ok(Caller {
            tenant: self.key.tenant.clone(),
            principal: self.key.name.clone(),
            roles: self.key.roles,
            routes: self.routes.clone(),
            origins: self.origins.clone(),
            contract: self.contract.clone(),
        })
    }
}

/// When each was last used, by what follows `prefix` in its setting's name.
async fn last_uses(
    store: &dyn Store,
    prefix: &str,
) -> Result<HashMap<String, Timestamp>, StoreError> {
    let kept = store.settings(prefix.to_owned()).await?;
    let read = kept.iter().filter_map(|(name, at)| {
        let of = name.strip_prefix(prefix)?.to_owned();
        Some((of, instant(std::str::from_utf8(at).ok()?)?))
    });
    Ok(read.collect())
}

async fn read(store: &dyn Store) -> Result<ByHash, StoreError> {
    let used = last_uses(store, USED).await?;
    let mut by_hash = HashMap::new();
    for (name, value) in store.settings(PREFIX.to_owned()).await? {
        let damaged = |why: String| StoreError::Damaged(format!("setting {name}: {why}"));
        let key: AccessKey =
            serde_json::from_slice(&value).map_err(|error| damaged(error.to_string()))?;
        // What cannot be read must not become a key without end.
        if key.expires_at.is_some() && key.expires().is_none() {
            return Err(damaged("expires_at is no time".to_owned()));
        }
        let used = used.get(&key.prefix).copied();
        by_hash.insert(key.hash.clone(), Known::new(key, used));
    }
    Ok(by_hash)
}

#[cfg(test)]
mod tests {
    use onceward::store::memory::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn a_key_that_was_revoked_meanwhile_does_not_come_back_by_its_rotation() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let exposure = Exposure { is_reached: true, behind_proxy: false, names_callers: false };
        let access = Access::open(Arc::clone(&store), "operator", exposure).await.unwrap();
        let grant = Grant {
            name: "shop".to_owned(),
            tenant: TENANT.to_owned(),
            roles: Roles::SEND,
            routes: Vec::new(),
            origins: Vec::new(),
            expires: None,
            contract: None,
        };
        let (key, kept) = access.create(grant, shape::now()).await.unwrap();
        assert!(access.revoke(&kept.prefix).await.unwrap());
        let rotated = access.rotate(kept, Duration::from_hours(1), None, shape::now()).await;
        assert_eq!(rotated.map(|_| ()), Err(StoreError::Stale));
        assert!(access.caller(&key).is_err() && access.list().is_empty());
        assert_eq!(store.settings(PREFIX.to_owned()).await.unwrap(), []);
    }
}
