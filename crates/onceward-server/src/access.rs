//! Who may call, and what: access keys, kept hashed, with roles, routes and an expiry (`key`, `role`),
//! where a request has its own (`given`), what each endpoint needs (`endpoint`, `authorise`), and on
//! an open loopback listener, that no web page posts through it (`browser`); keys for pages (`page`).

mod authorise;
mod browser;
mod endpoint;
mod given;
mod key;
mod page;
mod role;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, header};
use onceward::core::time::Timestamp;
use onceward::secret::is_same;
use onceward::store::{Store, StoreError};

pub(crate) use self::authorise::{authorise, check_route};
pub(crate) use self::browser::{other_host, refuse_web_pages};
pub(crate) use self::endpoint::{CALL, Endpoint, METRICS, endpoints};
pub(crate) use self::key::{AccessKey, new_key};
pub(crate) use self::page::{Page, origin_of};
pub(crate) use self::role::Roles;
pub(crate) use onceward::core::key::TENANT;

use self::browser::refuse_other_hosts;
use self::given::take_key;
use self::key::{Known, hash, instant, is_whole, prefix};
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
}

impl Caller {
    /// The command line's own, and everybody where no key is needed.
    fn local() -> Self {
        let (tenant, principal) = (TENANT.to_owned(), String::new());
        Self { tenant, principal, roles: Roles::ALL, routes: None, origins: None }
    }

    /// The same, as it acts for another tenant.
    pub(crate) fn within(self, tenant: String) -> Self {
        Self { tenant, ..self }
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
    /// Whether the listener can be reached from elsewhere.
    beyond_loopback: bool,
}

impl Access {
    /// Reads the keys; `operator` is the command line's own.
    pub(crate) async fn open(
        store: Arc<dyn Store>,
        operator: &str,
        listen: SocketAddr,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            by_hash: RwLock::new(read(&*store).await?),
            changing: tokio::sync::Mutex::default(),
            store,
            operator: hash(operator),
            beyond_loopback: !listen.ip().is_loopback(),
        })
    }

    /// Reads the keys again: other nodes make and revoke some too.
    pub(crate) async fn refresh(&self) -> Result<(), StoreError> {
        let _alone = self.changing.lock().await;
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

    /// Makes another key of the same name, roles and routes; the old one is refused after `overlap`.
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
        };
        let end = now.plus(overlap);
        let end = old.expires().map_or(end, |earlier| earlier.min(end));
        let old = AccessKey { expires_at: Some(shape::time(end)), ..old };
        let _alone = self.changing.lock().await;
        // The new one first: a crash between the two locks nobody out.
        let (key, kept) = self.make(grant, now).await?;
        self.put(&old).await?;
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
            last_used_at: None,
        };
        self.put(&kept).await?;
        Ok((key, kept))
    }

    /// Keeps a key, new or changed.
    async fn put(&self, key: &AccessKey) -> Result<(), StoreError> {
        let value = serde_json::to_vec(key).unwrap_or_default();
        self.store.set(format!("{PREFIX}{}", key.prefix), Some(Bytes::from(value))).await?;
        let known = Known::new(key.clone(), key.last_used_at);
        let mut by_hash = self.by_hash.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(earlier) = by_hash.get(&key.hash) {
            known.follow(earlier);
        }
        by_hash.insert(key.hash.clone(), known);
        Ok(())
    }

    /// Writes when keys were last used, where that changed.
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
        Ok(())
    }

    /// Whether a call needs a key.
    pub(crate) fn is_needed(&self) -> bool {
        self.beyond_loopback
            || !self.by_hash.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Who sent these headers. Our key is taken out of them: it never goes upstream.
    pub(crate) fn admit(
        &self,
        method: &Method,
        headers: &mut HeaderMap,
    ) -> Result<Caller, Problem> {
        let found = take_key(headers).map(|key| self.caller(&key));
        match &found {
            Some(Ok(caller @ Caller { origins: Some(origins), .. })) => {
                caller.check_origin(origins, headers)?;
            }
            // A page whose key is gone is told that, and not that it is a stranger's.
            Some(Err(_)) if self.is_named(headers) => {}
            _ => refuse_web_pages(method, headers)?,
        }
        if let Some(found) = found {
            return found;
        }
        if self.is_needed() {
            return Err(Problem::new(
                "unauthenticated",
                "Send `Onceward-Authorization: Bearer ow_…` or `Authorization: Bearer ow_…`; `onceward access create` makes a key.",
            ));
        }
        refuse_other_hosts(headers)?;
        Ok(Caller::local())
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
        if let Some(at) = known.expires.filter(|at| *at <= now) {
            let why = format!("The access key has expired, {}.", shape::time(at));
            return Err(Problem::new("unauthenticated", why));
        }
        known.touch(now);
        Ok(Caller {
            tenant: known.key.tenant.clone(),
            principal: known.key.name.clone(),
            roles: known.key.roles,
            routes: known.routes.clone(),
            origins: known.origins.clone(),
        })
    }
}

async fn read(store: &dyn Store) -> Result<ByHash, StoreError> {
    let used = store.settings(USED.to_owned()).await?;
    let used: HashMap<&str, Timestamp> = used
        .iter()
        .filter_map(|(name, at)| {
            Some((name.strip_prefix(USED)?, instant(std::str::from_utf8(at).ok()?)?))
        })
        .collect();
    let mut by_hash = HashMap::new();
    for (name, value) in store.settings(PREFIX.to_owned()).await? {
        let damaged = |why: String| StoreError::Damaged(format!("setting {name}: {why}"));
        let key: AccessKey =
            serde_json::from_slice(&value).map_err(|error| damaged(error.to_string()))?;
        // What cannot be read must not become a key without end.
        if key.expires_at.is_some() && key.expires().is_none() {
            return Err(damaged("expires_at is no time".to_owned()));
        }
        let used = used.get(key.prefix.as_str()).copied();
        by_hash.insert(key.hash.clone(), Known::new(key, used));
    }
    Ok(by_hash)
}
