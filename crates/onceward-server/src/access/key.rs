//! An access key: its text, and what is kept of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use onceward::core::key::TENANT;
use onceward::core::time::Timestamp;
use onceward::secret::{random, sha256};
use serde::{Deserialize, Serialize};

use super::role::Roles;

/// How every key begins.
pub(super) const BEGIN: &str = "ow_";

/// `ow_` and 256 bits; keys that were made before there was a checksum have no more.
const BARE: usize = BEGIN.len() + 43;

/// The checksum's letters: one slip in 16 million goes unnoticed, and is then an unknown key.
const CHECKSUM: usize = 4;

/// The letters by which a key is found.
const PREFIX: usize = 11;

/// How the first key of a ledger begins.
const FIRST: &str = "ow_firstKey";

/// How fine the last use is kept: what is finer would be a write that all event loops contend for.
const USED_MICROS: i64 = 1_000_000;

/// An access key as it is kept: everything but the key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "Kept", into = "Kept")]
pub(crate) struct AccessKey {
    /// Whose data it opens.
    pub(crate) tenant: String,
    /// The caller's stable name: it is the principal in the scope of keys.
    pub(crate) name: String,
    /// The first letters, for finding it.
    pub(crate) prefix: String,
    /// SHA-256 of the key: it has 256 bits, so no slow hash is needed.
    pub(super) hash: String,
    pub(crate) created_at: String,
    pub(crate) roles: Roles,
    /// The routes that it is confined to; empty: none.
    pub(crate) routes: Vec<String>,
    /// The origins of the pages that it is for; empty: it is no key for pages.
    pub(crate) origins: Vec<String>,
    /// From when on it is refused.
    pub(crate) expires_at: Option<String>,
    /// The version of the contract that it is pinned to.
    pub(crate) contract: Option<String>,
    /// Kept apart from it, for it changes with every call.
    pub(crate) last_used_at: Option<Timestamp>,
}

/// As it lies in the ledger.
#[derive(Serialize, Deserialize)]
struct Kept {
    name: String,
    prefix: String,
    hash: String,
    created_at: String,
    #[serde(default = "Roles::all")]
    roles: Roles,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    routes: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    origins: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    contract: Option<String>,
    /// What it may do where it is another tenant's than the one that was always there. A release that
    /// knows no tenants reads that it may do nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    within: Option<Within>,
}

#[derive(Serialize, Deserialize)]
struct Within {
    tenant: String,
    roles: Roles,
}

impl From<Kept> for AccessKey {
    fn from(kept: Kept) -> Self {
        let own = || Within { tenant: TENANT.to_owned(), roles: kept.roles };
        let Within { tenant, roles } = kept.within.unwrap_or_else(own);
        Self {
            tenant,
            roles,
            name: kept.name,
            prefix: kept.prefix,
            hash: kept.hash,
            created_at: kept.created_at,
            routes: kept.routes,
            origins: kept.origins,
            expires_at: kept.expires_at,
            contract: kept.contract,
            last_used_at: None,
        }
    }
}

impl From<AccessKey> for Kept {
    fn from(key: AccessKey) -> Self {
        let is_elsewhere = key.tenant != TENANT;
        Self {
            roles: if is_elsewhere { Roles::NONE } else { key.roles },
            within: is_elsewhere.then_some(Within { tenant: key.tenant, roles: key.roles }),
            name: key.name,
            prefix: key.prefix,
            hash: key.hash,
            created_at: key.created_at,
            routes: key.routes,
            origins: key.origins,
            expires_at: key.expires_at,
            contract: key.contract,
        }
    }
}

impl AccessKey {
    /// When it expires.
    pub(crate) fn expires(&self) -> Option<Timestamp> {
        self.expires_at.as_deref().and_then(instant)
    }
}

/// A time as it is kept.
pub(super) fn instant(text: &str) -> Option<Timestamp> {
    let at: jiff::Timestamp = text.parse().ok()?;
    Some(Timestamp::from_micros(at.as_microsecond()))
}

/// A key in use: what each call asks of it needs no look at the texts.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) key: AccessKey,
    pub(super) routes: Option<Arc<[String]>>,
    pub(super) origins: Option<Arc<[String]>>,
    pub(super) expires: Option<Timestamp>,
    pub(super) contract: Option<Arc<str>>,
    /// In microseconds; 0: never.
    used: AtomicI64,
    /// What of that is in the ledger.
    kept: AtomicI64,
}

impl Known {
    pub(super) fn new(key: AccessKey, used: Option<Timestamp>) -> Self {
        let used = used.map_or(0, Timestamp::as_micros);
        Self {
            routes: (!key.routes.is_empty()).then(|| key.routes.as_slice().into()),
            origins: (!key.origins.is_empty()).then(|| key.origins.as_slice().into()),
            expires: key.expires(),
            contract: key.contract.as_deref().map(Arc::from),
            used: AtomicI64::new(used),
            kept: AtomicI64::new(used),
            key,
        }
    }

    pub(super) fn touch(&self, now: Timestamp) {
        let now = now.as_micros();
        if now - self.used.load(Ordering::Relaxed) >= USED_MICROS {
            self.used.store(now, Ordering::Relaxed);
        }
    }

    /// Goes on from what an earlier reading of the same key saw of it.
    pub(super) fn follow(&self, earlier: &Self) {
        self.used.fetch_max(earlier.used.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// As it is, with its last use.
    pub(super) fn seen(&self) -> AccessKey {
        let used = self.used.load(Ordering::Relaxed);
        let last_used_at = (used != 0).then(|| Timestamp::from_micros(used));
        AccessKey { last_used_at, ..self.key.clone() }
    }

    /// The last use, where the ledger does not have it yet.
    pub(super) fn unkept(&self) -> Option<Timestamp> {
        let used = self.used.load(Ordering::Relaxed);
        (used != self.kept.load(Ordering::Relaxed)).then(|| Timestamp::from_micros(used))
    }

    pub(super) fn keep(&self, used: Timestamp) {
        self.kept.store(used.as_micros(), Ordering::Relaxed);
    }
}

pub(super) fn hash(key: &str) -> String {
    URL_SAFE_NO_PAD.encode(sha256(key.as_bytes()))
}

/// A new key: 256 bits that nobody can foretell, and a checksum.
pub(crate) fn new_key() -> String {
    whole(format!("{BEGIN}{}", URL_SAFE_NO_PAD.encode(random::<32>())))
}

/// The first key of a ledger: its first letters are the same whichever node makes it, so that of several one is kept.
/// The other 210 bits nobody can foretell.
pub(super) fn first_key() -> String {
    let random = URL_SAFE_NO_PAD.encode(random::<32>());
    whole(format!("{FIRST}{}", &random[FIRST.len() - BEGIN.len()..]))
}

fn whole(mut bare: String) -> String {
    let checksum = checksum(&bare);
    bare.push_str(&checksum);
    bare
}

fn checksum(bare: &str) -> String {
    URL_SAFE_NO_PAD.encode(&sha256(bare.as_bytes())[..3])
}

/// The letters by which it is found.
pub(super) fn prefix(key: &str) -> String {
    key[..PREFIX].to_owned()
}

/// Whether a text can be a key at all, or is mistyped or cut.
pub(super) fn is_whole(key: &str) -> bool {
    if !key.is_ascii() || !key.starts_with(BEGIN) {
        return false;
    }
    match key.len() {
        BARE => true,
        length => length == BARE + CHECKSUM && checksum(&key[..BARE]) == key[BARE..],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_in_a_key_is_told_by_its_checksum() {
        let key = new_key();
        assert!(is_whole(&key), "{key}");
        for at in BEGIN.len()..key.len() {
            let other = if key.as_bytes()[at] == b'A' { "B" } else { "A" };
            let mut slip = key.clone();
            slip.replace_range(at..=at, other);
            assert!(!is_whole(&slip), "{slip} for {key}");
        }
        for cut in ["", "ow_", "ow_wrong", &key[..key.len() - 1], &key[1..], "ow_\u{e9}"] {
            assert!(!is_whole(cut), "{cut}");
        }
        assert!(is_whole(&key[..BARE]), "keys made before have none");
    }

    #[test]
    fn first_keys_are_told_by_the_same_letters_and_by_nothing_else() {
        let (one, other) = (first_key(), first_key());
        assert!(is_whole(&one) && one.len() == new_key().len(), "{one}");
        assert_eq!((prefix(&one), prefix(&other)), (FIRST.to_owned(), FIRST.to_owned()));
        assert_ne!(one[PREFIX..PREFIX + 8], other[PREFIX..PREFIX + 8]);
    }

    #[test]
    fn a_tenants_key_is_read_as_it_was_kept_and_opens_nothing_to_a_release_without_tenants() {
        let kept = r#"{"name":"ada","prefix":"ow_12345678","hash":"h","created_at":"2026-01-31T12:00:00Z"}"#;
        let key: AccessKey = serde_json::from_str(kept).unwrap();
        assert_eq!(key.tenant, TENANT);
        let acmes = AccessKey { tenant: "acme".to_owned(), ..key };
        let kept = serde_json::to_value(&acmes).unwrap();
        assert_eq!(kept["roles"], serde_json::json!([]), "{kept}");
        let read: AccessKey = serde_json::from_value(kept).unwrap();
        assert_eq!((&*read.tenant, read.roles), ("acme", Roles::ALL));
    }

    #[test]
    fn a_key_kept_before_there_were_roles_may_do_everything() {
        let kept = r#"{"name":"ada","prefix":"ow_12345678","hash":"h","created_at":"2026-01-31T12:00:00Z"}"#;
        let key: AccessKey = serde_json::from_str(kept).unwrap();
        assert_eq!((key.roles, key.expires(), key.routes.len()), (Roles::ALL, None, 0));
    }
}
