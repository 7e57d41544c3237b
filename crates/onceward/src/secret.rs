//! The ledger's secrets: its first key with what is derived from it for each purpose, and the keys that
//! data is sealed under.
//!
//! No nonce comes twice under a key: each value and each operation has a key of its own, under which a
//! handful of texts are ever sealed, and each of these begins with bytes of chance.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use onceward_core::fingerprint::FingerprintSecret;
use onceward_core::id::OperationId;

use crate::store::StoreError;

/// What a value began with that was sealed before data keys had numbers.
pub(crate) const UNNUMBERED: u8 = 1;

/// What a sealed value begins with: the version of its shape. The number of its data key follows.
const VERSION: u8 = 2;

/// What sealing adds at the end.
pub(crate) const TAG_BYTES: usize = 16;

/// The number of the ledger's first key.
pub(crate) const FIRST: u32 = 0;

/// What a key is derived for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    /// A named value.
    Value,
    /// The exchanges of an operation.
    Exchange,
}

/// What was sealed cannot be opened: it was changed, or sealed under another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sealed value cannot be opened: it was changed, or the key is another")]
pub struct NotOurs;

/// Why something cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unopened {
    #[error(transparent)]
    NotOurs(#[from] NotOurs),
    #[error("it is sealed under data key {0}, which this process has not read yet")]
    Unread(u32),
}

impl From<Unopened> for StoreError {
    fn from(why: Unopened) -> Self {
        match why {
            Unopened::NotOurs(_) => Self::Damaged(format!("an exchange cannot be read: {why}")),
            Unopened::Unread(_) => Self::Away(why.to_string()),
        }
    }
}

/// The secrets of one ledger: all of them follow from its first key, but for the data keys that came
/// later.
pub struct Secrets {
    fingerprint: FingerprintSecret,
    upstream_key: hmac::Key,
    name: hmac::Key,
    unnumbered: LessSafeKey,
    /// Whether the ledger may have nodes of a release that knows no data keys.
    is_old: bool,
    data: RwLock<DataKeys>,
}

/// What seals, and what opens.
struct DataKeys {
    all: BTreeMap<u32, hmac::Key>,
    /// The one that seals.
    current: u32,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(…)")
    }
}

/// Bytes that nobody can foretell.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // It fails only where the operating system has no entropy at all. aws-lc's own generator first
    // gathers some of its own, for a tenth of a second.
    getrandom::fill(&mut bytes).unwrap_or_else(|_| std::process::abort());
    bytes
}

/// The SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
    digest
}

/// Whether a secret that somebody gave is the one wanted, in a time that does not tell how much of it
/// is right.
pub fn is_same(given: &[u8], wanted: &[u8]) -> bool {
    verify_slices_are_equal(given, wanted).is_ok()
}

/// What `key` gives for a purpose.
pub(crate) fn derived(key: &[u8; 32], purpose: &str) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(HMAC_SHA256, key), purpose.as_bytes());
    let mut derived = [0; 32];
    derived.copy_from_slice(tag.as_ref());
    derived
}

/// The key that seals, of bytes.
pub(crate) fn sealing_key(bytes: &[u8]) -> LessSafeKey {
    // The bytes have the length that the algorithm takes.
    let key = UnboundKey::new(&AES_256_GCM, bytes).unwrap_or_else(|_| std::process::abort());
    LessSafeKey::new(key)
}

impl Secrets {
    /// The secrets that follow from `first`, the first key of a ledger.
    pub fn new(first: [u8; 32]) -> Self {
        let derive = |purpose: &str| derived(&first, purpose);
        let data = hmac::Key::new(HMAC_SHA256, &derive("onceward/data/1"));
        Self {
            fingerprint: FingerprintSecret::new(derive("onceward/fingerprint/1")),
            upstream_key: hmac::Key::new(HMAC_SHA256, &derive("onceward/upstream-key/1")),
            name: hmac::Key::new(HMAC_SHA256, &derive("onceward/name/1")),
            unnumbered: sealing_key(&derive("onceward/seal/1")),
            is_old: false,
            data: RwLock::new(DataKeys { all: [(FIRST, data)].into(), current: FIRST }),
        }
    }

    /// Of a ledger that was begun before there were data keys.
    pub(crate) fn of_old(self) -> Self {
        Self { is_old: true, ..self }
    }

    /// Whether all is sealed as it was before there were data keys, so that nodes of such a release read
    /// it: until the ledger has its first one.
    pub fn seals_as_before(&self) -> bool {
        self.is_old && self.current() == FIRST
    }

    fn data(&self) -> RwLockReadGuard<'_, DataKeys> {
        self.data.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the data key that seals now.
    pub(crate) fn current(&self) -> u32 {
        self.data().current
    }

    /// Opens with the data key `number` from now on, and seals with it where it `seals`.
    pub(crate) fn learn(&self, number: u32, key: &[u8; 32], seals: bool) {
        let mut data = self.data.write().unwrap_or_else(PoisonError::into_inner);
        if number != FIRST {
            data.all.entry(number).or_insert_with(|| hmac::Key::new(HMAC_SHA256, key));
        }
        if seals {
            data.current = data.current.max(number);
        }
    }

    /// The key for what belongs to `context`, of the data key that seals now, and its number.
    pub(crate) fn key_now(&self, purpose: Purpose, context: &[u8]) -> (u32, LessSafeKey) {
        let data = self.data();
        let number = data.current;
        // What seals is there: it was learned first.
        let key = data.all.get(&number).unwrap_or_else(|| std::process::abort());
        (number, key_for(key, purpose, context))
    }

    /// The same of the data key `number`; nothing where this process has not read that one.
    pub(crate) fn key_of(
        &self,
        number: u32,
        purpose: Purpose,
        context: &[u8],
    ) -> Option<LessSafeKey> {
        Some(key_for(self.data().all.get(&number)?, purpose, context))
    }

    /// The secret under which fingerprints are made.
    pub fn fingerprint(&self) -> &FingerprintSecret {
        &self.fingerprint
    }

    /// A key for an upstream that dedupes: 43 characters, one for each operation.
    pub fn upstream_key(&self, id: OperationId) -> String {
        let tag = hmac::sign(&self.upstream_key, &id.as_u128().to_be_bytes());
        base64_url(tag.as_ref())
    }

    /// A name for `value` that does not tell it: 43 characters.
    pub fn name(&self, value: &[u8]) -> String {
        base64_url(hmac::sign(&self.name, value).as_ref())
    }

    /// Seals `plain`; what it belongs to (`context`) has to be named again to open it.
    pub fn seal(&self, plain: &[u8], context: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(5 + NONCE_LEN + plain.len() + TAG_BYTES);
        if self.seals_as_before() {
            sealed.push(UNNUMBERED);
            seal(&self.unnumbered, plain, context, &mut sealed);
        } else {
            let (number, key) = self.key_now(Purpose::Value, context);
            sealed.push(VERSION);
            sealed.extend(number.to_le_bytes());
            seal(&key, plain, context, &mut sealed);
        }
        sealed
    }

    /// Opens what was sealed for `context`.
    pub fn open(&self, sealed: &[u8], context: &[u8]) -> Result<Vec<u8>, NotOurs> {
        self.open_or_wait(sealed, context).map_err(|_| NotOurs)
    }

    /// The same; what another process sealed under a data key that this one has not read yet is told apart.
    pub(crate) fn open_or_wait(&self, sealed: &[u8], context: &[u8]) -> Result<Vec<u8>, Unopened> {
        let (version, rest) = sealed.split_first().ok_or(NotOurs)?;
        match *version {
            UNNUMBERED => Ok(open(&self.unnumbered, rest, context)?),
            VERSION => {
                let (number, rest) = rest.split_first_chunk().ok_or(NotOurs)?;
                let number = u32::from_le_bytes(*number);
                let key = self.key_of(number, Purpose::Value, context);
                Ok(open(&key.ok_or(Unopened::Unread(number))?, rest, context)?)
            }
            _ => Err(NotOurs.into()),
        }
    }
}

/// Appends a nonce and `plain`, sealed, to `to`.
pub(crate) fn seal(key: &LessSafeKey, plain: &[u8], context: &[u8], to: &mut Vec<u8>) {
    let nonce: [u8; NONCE_LEN] = random();
    to.extend(nonce);
    let start = to.len();
    to.extend_from_slice(plain);
    // Sealing fails only beyond 64 GiB.
    let tag = key
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(context),
            &mut to[start..],
        )
        .unwrap_or_else(|_| std::process::abort());
    to.extend_from_slice(tag.as_ref());
}

/// Opens what stands behind its nonce.
pub(crate) fn open(key: &LessSafeKey, sealed: &[u8], context: &[u8]) -> Result<Vec<u8>, NotOurs> {
    let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or(NotOurs)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| NotOurs)?;
    let mut body = body.to_vec();
    let plain = key.open_in_place(nonce, Aad::from(context), &mut body).map_err(|_| NotOurs)?.len();
    body.truncate(plain);
    Ok(body)
}

fn key_for(data: &hmac::Key, purpose: Purpose, context: &[u8]) -> LessSafeKey {
    let mut signing = hmac::Context::with_key(data);
    signing.update(&[purpose as u8]);
    signing.update(context);
    sealing_key(signing.sign().as_ref())
}

fn base64_url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_value_opens_only_as_what_it_was_sealed_for() {
        let secrets = Secrets::new([3; 32]);
        let mut sealed = secrets.seal(b"Bearer x", b"op_1");
        assert_eq!(secrets.open(&sealed, b"op_1").as_deref(), Ok(&b"Bearer x"[..]));
        assert_eq!(secrets.open(&sealed, b"op_2"), Err(NotOurs));
        assert_eq!(Secrets::new([4; 32]).open(&sealed, b"op_1"), Err(NotOurs));
        *sealed.last_mut().unwrap() ^= 1;
        assert_eq!(secrets.open(&sealed, b"op_1"), Err(NotOurs));
        assert!(!String::from_utf8_lossy(&secrets.seal(b"Bearer x", b"op_1")).contains("Bearer"));
    }

    #[test]
    fn what_was_sealed_before_data_keys_had_numbers_opens_still() {
        let (secrets, before) = (Secrets::new([3; 32]), Secrets::new([3; 32]).of_old());
        let old = before.seal(b"Bearer x", b"op_1");
        assert_eq!((old[0], secrets.seal(b"Bearer x", b"op_1")[0]), (UNNUMBERED, VERSION));
        assert_eq!(secrets.open(&old, b"op_1").as_deref(), Ok(&b"Bearer x"[..]));
        assert_eq!(secrets.open(&old, b"op_2"), Err(NotOurs));
        before.learn(1, &[8; 32], true);
        assert_eq!(before.seal(b"Bearer x", b"op_1")[0], VERSION, "it has a data key now");
        assert_eq!(before.open(&old, b"op_1").as_deref(), Ok(&b"Bearer x"[..]));
    }

    #[test]
    fn a_later_data_key_seals_and_an_earlier_one_goes_on_opening() {
        let (one, two) = (Secrets::new([3; 32]), Secrets::new([3; 32]));
        let early = one.seal(b"early", b"a");
        one.learn(1, &[8; 32], false);
        assert_eq!(
            two.open(&one.seal(b"still early", b"a"), b"a").as_deref(),
            Ok(&b"still early"[..])
        );
        one.learn(1, &[8; 32], true);
        let late = one.seal(b"late", b"a");
        assert_eq!(one.open(&early, b"a").as_deref(), Ok(&b"early"[..]));
        assert_eq!(two.open(&late, b"a"), Err(NotOurs), "it has not read that one");
        two.learn(1, &[8; 32], false);
        assert_eq!(two.open(&late, b"a").as_deref(), Ok(&b"late"[..]));
    }

    #[test]
    fn a_secret_is_the_same_only_whole() {
        assert!(is_same(b"secret", b"secret") && is_same(b"", b""));
        for other in [&b""[..], b"s", b"secre", b"secrets", b"tecret", b"secreT"] {
            assert!(!is_same(other, b"secret") && !is_same(b"secret", other), "{other:?}");
        }
    }

    #[test]
    fn a_derived_key_is_the_same_for_every_attempt_and_fits_45_bytes() {
        let secrets = Secrets::new([3; 32]);
        let id = OperationId::new(1, 2);
        assert_eq!(secrets.upstream_key(id), secrets.upstream_key(id));
        assert_ne!(secrets.upstream_key(id), secrets.upstream_key(OperationId::new(1, 3)));
        assert_eq!(secrets.upstream_key(id).len(), 43);
        assert_eq!(base64_url(b"light w"), "bGlnaHQgdw");
    }
}
