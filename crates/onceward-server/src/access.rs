//! Who may call: access keys, kept hashed; and on an open loopback listener, that no web page
//! posts through it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, header};
use onceward::secret::{is_same, random, sha256};
use onceward::store::{Store, StoreError};
use serde::{Deserialize, Serialize};

use crate::problem::Problem;

const PREFIX: &str = "access/";
const OWN_KEY: HeaderName = HeaderName::from_static("onceward-authorization");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// An access key as it is kept: everything but the key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct AccessKey {
    /// The caller's stable name: it is the principal in the scope of keys.
    pub(crate) name: String,
    /// The first letters, for finding it.
    pub(crate) prefix: String,
    /// SHA-256 of the key: it has 256 bits, so no slow hash is needed.
    hash: String,
    pub(crate) created_at: String,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The access key's name; empty where none is needed.
    pub(crate) principal: String,
}

impl Caller {
    /// The name in an act's record.
    pub(crate) fn who(&self) -> String {
        if self.principal.is_empty() { "local".to_owned() } else { self.principal.clone() }
    }
}

/// The keys there are.
pub(crate) struct Access {
    store: Arc<dyn Store>,
    by_hash: RwLock<HashMap<String, AccessKey>>,
    /// Held from the ledger to `by_hash`: what was read before a change must not undo it here.
    changing: tokio::sync::Mutex<()>,
    /// The command line's own key, in the data folder.
    operator: String,
    /// Whether the listener can be reached from elsewhere.
    beyond_loopback: bool,
}

fn hash(key: &str) -> String {
    URL_SAFE_NO_PAD.encode(sha256(key.as_bytes()))
}

/// A new key: 256 bits that nobody can foretell.
pub(crate) fn new_key() -> String {
    format!("ow_{}", URL_SAFE_NO_PAD.encode(random::<32>()))
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
        *self.by_hash.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// All keys, by name.
    pub(crate) fn list(&self) -> Vec<AccessKey> {
        let by_hash = self.by_hash.read().unwrap_or_else(PoisonError::into_inner);
        let mut keys: Vec<_> = by_hash.values().cloned().collect();
        keys.sort_by(|a, b| a.name.cmp(&b.name));
        keys
    }

    /// Makes a key for the caller `name`; it is shown this once.
    pub(crate) async fn create(
        &self,
        name: &str,
        now: String,
    ) -> Result<(String, AccessKey), StoreError> {
        let key = new_key();
        let kept = AccessKey {
            name: name.to_owned(),
            prefix: key[..11].to_owned(),
            hash: hash(&key),
            created_at: now,
        };
        let value = serde_json::to_vec(&kept).unwrap_or_default();
        let _alone = self.changing.lock().await;
        self.store.set(format!("{PREFIX}{}", kept.prefix), Some(Bytes::from(value))).await?;
        self.by_hash
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(kept.hash.clone(), kept.clone());
        Ok((key, kept))
    }

    /// Revokes the key with this prefix; tells whether there was one.
    pub(crate) async fn revoke(&self, prefix: &str) -> Result<bool, StoreError> {
        let Some(key) = self.list().into_iter().find(|key| key.prefix == prefix) else {
            return Ok(false);
        };
        let _alone = self.changing.lock().await;
        self.store.set(format!("{PREFIX}{prefix}"), None).await?;
        self.by_hash.write().unwrap_or_else(PoisonError::into_inner).remove(&key.hash);
        Ok(true)
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
        refuse_web_pages(method, headers)?;
        let given = take_key(headers);
        if let Some(caller) = given.as_deref().and_then(|key| self.caller(key)) {
            return Ok(caller);
        }
        if given.is_some() {
            return Err(Problem::new(
                "unauthenticated",
                "The access key is not known; it may have been revoked.",
            ));
        }
        if self.is_needed() {
            return Err(Problem::new(
                "unauthenticated",
                "Send `Onceward-Authorization: Bearer ow_…` or `Authorization: Bearer ow_…`; `onceward access create` makes a key.",
            ));
        }
        refuse_other_hosts(headers)?;
        Ok(Caller { principal: String::new() })
    }

    fn caller(&self, key: &str) -> Option<Caller> {
        let hash = hash(key);
        // What is looked up is a hash, so that the time it takes tells nothing about a key.
        if is_same(hash.as_bytes(), self.operator.as_bytes()) {
            return Some(Caller { principal: String::new() });
        }
        let by_hash = self.by_hash.read().unwrap_or_else(PoisonError::into_inner);
        by_hash.get(&hash).map(|key| Caller { principal: key.name.clone() })
    }
}

async fn read(store: &dyn Store) -> Result<HashMap<String, AccessKey>, StoreError> {
    let mut by_hash = HashMap::new();
    for (name, value) in store.settings(PREFIX.to_owned()).await? {
        let key: AccessKey = serde_json::from_slice(&value)
            .map_err(|error| StoreError::Damaged(format!("setting {name}: {error}")))?;
        by_hash.insert(key.hash.clone(), key);
    }
    Ok(by_hash)
}

/// Our key, from its own header, or from `Authorization` where it is ours: a bearer token that
/// begins with `ow_`, or a password that does (what a browser asks for).
fn take_key(headers: &mut HeaderMap) -> Option<String> {
    if let Some(own) = headers.remove(OWN_KEY) {
        return Some(
            own.to_str().unwrap_or_default().trim_start_matches("Bearer ").trim().to_owned(),
        );
    }
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let key = match value.split_once(' ')? {
        (scheme, token) if scheme.eq_ignore_ascii_case("bearer") => token.trim().to_owned(),
        (scheme, token) if scheme.eq_ignore_ascii_case("basic") => {
            let pair = STANDARD.decode(token.trim()).ok()?;
            String::from_utf8(pair).ok()?.split_once(':')?.1.to_owned()
        }
        _ => return None,
    };
    if !key.starts_with("ow_") {
        return None;
    }
    headers.remove(header::AUTHORIZATION);
    Some(key)
}

/// A browser says where a request comes from: what another site's page sends is refused.
pub(crate) fn refuse_web_pages(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let is_foreign = |origin: &str| {
        let origin = origin.split_once("://").map(|(_, origin)| origin);
        origin.is_none() || origin != text(header::HOST)
    };
    let foreign = text(header::ORIGIN).is_some_and(is_foreign);
    let changes = !matches!(*method, Method::GET | Method::HEAD);
    let cross_site = changes && matches!(text(FETCH_SITE), Some("cross-site" | "same-site"));
    if foreign || cross_site {
        return Err(Problem::new(
            "forbidden",
            "The request comes from a page of another origin; nothing was sent.",
        ));
    }
    Ok(())
}

/// An open listener answers only to loopback names, so that no name of the web's can be pointed
/// at it (DNS rebinding).
fn refuse_other_hosts(headers: &HeaderMap) -> Result<(), Problem> {
    match other_host(headers) {
        None => Ok(()),
        Some(host) => Err(Problem::new(
            "forbidden",
            format!(
                "This listener is open, so it answers only to localhost, not to {host:?}. Make an access key first: `onceward access create`."
            ),
        )),
    }
}

/// The host that a request is for, where that is not this machine.
pub(crate) fn other_host(headers: &HeaderMap) -> Option<&str> {
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok())?;
    let name = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
        .map_or(host, |(name, _)| name);
    let is_loopback = name == "127.0.0.1"
        || name.eq_ignore_ascii_case("localhost")
        || name
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    (!is_loopback).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap()))
            .collect::<HeaderMap>()
    }

    #[test]
    fn only_our_own_keys_are_taken_out() {
        let mut upstream = headers(&[("authorization", "Bearer sk_live_1")]);
        assert_eq!(take_key(&mut upstream), None);
        assert!(upstream.contains_key("authorization"), "the upstream's credential is passed on");
        let mut ours = headers(&[("authorization", "Bearer ow_1")]);
        assert_eq!(take_key(&mut ours).as_deref(), Some("ow_1"));
        assert!(!ours.contains_key("authorization"));
        let mut both =
            headers(&[("onceward-authorization", "Bearer ow_2"), ("authorization", "Bearer sk")]);
        assert_eq!(take_key(&mut both).as_deref(), Some("ow_2"));
        assert!(both.contains_key("authorization"));
        let basic = format!("Basic {}", STANDARD.encode("any:ow_3"));
        assert_eq!(take_key(&mut headers(&[("authorization", &basic)])).as_deref(), Some("ow_3"));
    }

    #[test]
    fn a_page_of_another_origin_is_refused() {
        let refused = |method: Method, lines: &[(&'static str, &str)]| {
            refuse_web_pages(&method, &headers(lines)).is_err()
        };
        assert!(refused(
            Method::POST,
            &[("origin", "http://evil.example"), ("host", "localhost:7077")]
        ));
        assert!(refused(Method::GET, &[("origin", "null"), ("host", "localhost:7077")]));
        assert!(refused(
            Method::POST,
            &[("sec-fetch-site", "cross-site"), ("host", "localhost:7077")]
        ));
        assert!(!refused(
            Method::POST,
            &[("origin", "http://localhost:7077"), ("host", "localhost:7077")]
        ));
        assert!(!refused(Method::POST, &[("host", "localhost:7077")]), "curl says nothing");
    }

    #[test]
    fn an_open_listener_answers_only_to_loopback_names() {
        for (host, open) in [
            ("localhost:1", true),
            ("127.0.0.1:7077", true),
            ("[::1]:7077", true),
            ("[::1]", true),
            ("evil.example:7077", false),
            ("127.0.0.1.evil.example", false),
        ] {
            assert_eq!(refuse_other_hosts(&headers(&[("host", host)])).is_ok(), open, "{host}");
        }
    }
}
