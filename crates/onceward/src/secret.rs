//! The ledger's secrets: one master key, and what is derived from it for each purpose.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use onceward_core::fingerprint::FingerprintSecret;
use onceward_core::id::OperationId;

/// What a sealed value begins with: the version of its shape.
const VERSION: u8 = 1;

/// What was sealed cannot be opened: it was changed, or sealed under another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sealed value cannot be opened: it was changed, or the key is another")]
pub struct NotOurs;

/// The secrets of one ledger, derived from its master key.
pub struct Secrets {
    fingerprint: FingerprintSecret,
    upstream_key: hmac::Key,
    name: hmac::Key,
    seal: LessSafeKey,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(…)")
    }
}

/// Bytes that nobody can foretell.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // The generator of this library fails only where the operating system has no entropy at all.
    rand::fill(&mut bytes).unwrap_or_else(|_| std::process::abort());
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

impl Secrets {
    /// The secrets under `master`.
    pub fn new(master: [u8; 32]) -> Self {
        let root = hmac::Key::new(HMAC_SHA256, &master);
        let derive = |purpose: &str| {
            let mut key = [0; 32];
            key.copy_from_slice(hmac::sign(&root, purpose.as_bytes()).as_ref());
            key
        };
        let seal = UnboundKey::new(&AES_256_GCM, &derive("onceward/seal/1"));
        Self {
            fingerprint: FingerprintSecret::new(derive("onceward/fingerprint/1")),
            upstream_key: hmac::Key::new(HMAC_SHA256, &derive("onceward/upstream-key/1")),
            name: hmac::Key::new(HMAC_SHA256, &derive("onceward/name/1")),
            // The key has the length that the algorithm takes.
            seal: LessSafeKey::new(seal.unwrap_or_else(|_| std::process::abort())),
        }
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
        let nonce: [u8; NONCE_LEN] = random();
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + plain.len() + 16);
        sealed.push(VERSION);
        sealed.extend(nonce);
        let mut body = plain.to_vec();
        // Sealing fails only beyond 64 GiB.
        if self
            .seal
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context),
                &mut body,
            )
            .is_err()
        {
            std::process::abort();
        }
        sealed.extend(body);
        sealed
    }

    /// Opens what was sealed for `context`.
    pub fn open(&self, sealed: &[u8], context: &[u8]) -> Result<Vec<u8>, NotOurs> {
        let Some((&VERSION, rest)) = sealed.split_first() else { return Err(NotOurs) };
        let (nonce, body) = rest.split_at_checked(NONCE_LEN).ok_or(NotOurs)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| NotOurs)?;
        let mut body = body.to_vec();
        let plain = self
            .seal
            .open_in_place(nonce, Aad::from(context), &mut body)
            .map_err(|_| NotOurs)?
            .len();
        body.truncate(plain);
        Ok(body)
    }
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
