//! Webhooks, verified: what is signed are the bytes as they came, so that a body that was parsed and
//! written again cannot be.

mod scheme;

use std::time::{Duration, SystemTime};

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::HeaderMap;
use sha2::Sha256;

use crate::units::from_base64;
pub use scheme::Scheme;
use scheme::Signature;

/// How far a time of signing may be from now, where nothing is said.
pub const TOLERANCE: Duration = Duration::from_mins(5);

/// Signatures that are tried, and secrets, at most.
const TRIED_MAX: usize = 16;

/// Of Standard Webhooks: 24 to 64 bytes, and a few that providers gave out and that have not.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 16..=128;

/// What is said beside the secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyOptions {
    /// How the provider signs; Standard Webhooks where nothing is said.
    pub scheme: Scheme,
    /// How far the time of signing may be from now.
    pub tolerance: Duration,
    /// What time it is; for tests.
    pub now: Option<SystemTime>,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self { scheme: Scheme::StandardWebhooks, tolerance: TOLERANCE, now: None }
    }
}

impl From<Scheme> for VerifyOptions {
    fn from(scheme: Scheme) -> Self {
        Self { scheme, ..Self::default() }
    }
}

/// A webhook that its provider signed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Its id, where the scheme has one in a header: the key to make nothing of a second arrival.
    pub id: Option<String>,
    /// When it was signed, where the scheme says.
    pub signed_at: Option<SystemTime>,
    /// Which secret fitted, counted from 0.
    pub secret: usize,
}

/// Why a webhook was refused, as a word that stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// `header_missing`
    HeaderMissing,
    /// `header_unreadable`
    HeaderUnreadable,
    /// `too_old`
    TooOld,
    /// `too_new`
    TooNew,
    /// `too_many_signatures`
    TooManySignatures,
    /// `signature_mismatch`
    SignatureMismatch,
}

impl Reason {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HeaderMissing => "header_missing",
            Self::HeaderUnreadable => "header_unreadable",
            Self::TooOld => "too_old",
            Self::TooNew => "too_new",
            Self::TooManySignatures => "too_many_signatures",
            Self::SignatureMismatch => "signature_mismatch",
        }
    }
}

/// Why nothing is verified.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WebhookError {
    /// It is not what its provider signed: answer 400, and do nothing.
    #[error("{what}")]
    Rejected {
        /// Why, as a word.
        reason: Reason,
        /// Why, in words.
        what: String,
    },
    /// A secret cannot be one; whoever configured it mends it. The secret itself is not in it.
    #[error("{0}")]
    Secret(&'static str),
}

impl WebhookError {
    fn rejected(reason: Reason, what: impl Into<String>) -> Self {
        Self::Rejected { reason, what: what.into() }
    }

    /// Why it was rejected, if it was.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Rejected { reason, .. } => Some(*reason),
            Self::Secret(_) => None,
        }
    }
}

/// Verifies that `payload` is what its provider signed, not long ago, with one of `secrets`: one, or
/// several while they are rotated. Each is compared in constant time.
///
/// `payload` is the raw body, byte by byte as it came: of axum the extractor `Bytes`, and no `Json`.
///
/// ```
/// use http::HeaderMap;
/// use onceward_client::webhook::{Scheme, verify_webhook};
///
/// let mut headers = HeaderMap::new();
/// let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
/// headers.insert("x-hub-signature-256", signature.parse().unwrap());
/// let secrets = ["It's a Secret to Everybody"];
/// assert!(verify_webhook(b"Hello, World!", &headers, &secrets, Scheme::Github).is_ok());
/// assert!(verify_webhook(b"Hello, world!", &headers, &secrets, Scheme::Github).is_err());
/// ```
///
/// # Errors
///
/// [`WebhookError::Rejected`] where it is not, [`WebhookError::Secret`] where a secret cannot be one.
pub fn verify_webhook(
    payload: &[u8],
    headers: &HeaderMap,
    secrets: &[impl AsRef<str>],
    options: impl Into<VerifyOptions>,
) -> Result<Verified, WebhookError> {
    let VerifyOptions { scheme, tolerance, now } = options.into();
    let is_empty = |secret: &_| AsRef::<str>::as_ref(secret).is_empty();
    if !(1..=TRIED_MAX).contains(&secrets.len()) || secrets.iter().any(is_empty) {
        return Err(WebhookError::Secret("there are 1 to 16 secrets, and none is empty"));
    }
    let keys = secrets.iter().map(|secret| Key::read(scheme, secret.as_ref()));
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    let said = scheme.read(headers, payload)?;
    if said.signatures.len() > TRIED_MAX {
        let what = format!("it has more than {TRIED_MAX} signatures");
        return Err(WebhookError::rejected(Reason::TooManySignatures, what));
    }
    if let Some(signed_at) = said.signed_at {
        in_time(signed_at, now.unwrap_or_else(SystemTime::now), tolerance)?;
    }
    for (secret, key) in keys.iter().enumerate() {
        if said.signatures.iter().any(|signature| key.fits(signature, &said.signed)) {
            return Ok(Verified { id: said.id, signed_at: said.signed_at, secret });
        }
    }
    let (signatures, secrets) = (said.signatures.len(), keys.len());
    let what = format!(
        "none of {signatures} signatures fits any of {secrets} secrets: is the body as it came, byte by byte?"
    );
    Err(WebhookError::rejected(Reason::SignatureMismatch, what))
}

fn in_time(
    signed_at: SystemTime,
    now: SystemTime,
    tolerance: Duration,
) -> Result<(), WebhookError> {
    let (reason, apart, words) = match now.duration_since(signed_at) {
        Ok(age) => (Reason::TooOld, age, "ago"),
        Err(ahead) => (Reason::TooNew, ahead.duration(), "ahead of our clock"),
    };
    if apart <= tolerance {
        return Ok(());
    }
    Err(WebhookError::rejected(reason, format!("it was signed {} s {words}", apart.as_secs())))
}

/// What a signature is verified with; it never shows itself.
enum Key {
    Shared(Box<Hmac<Sha256>>),
    #[cfg(feature = "ed25519")]
    Public(aws_lc_rs::signature::UnparsedPublicKey<Vec<u8>>),
}

impl Key {
    /// A secret as the scheme writes it.
    fn read(scheme: Scheme, secret: &str) -> Result<Self, WebhookError> {
        if !matches!(scheme, Scheme::StandardWebhooks | Scheme::Svix) {
            return Self::shared(secret.as_bytes());
        }
        if secret.starts_with("whsk_") {
            let what = "that is the sender's private key: a receiver has `whpk_…`";
            return Err(WebhookError::Secret(what));
        }
        if let Some(public) = secret.strip_prefix("whpk_") {
            return Self::public(public);
        }
        let bytes = from_base64(secret.strip_prefix("whsec_").unwrap_or(secret));
        let bytes = bytes.filter(|bytes| SECRET_BYTES.contains(&bytes.len()));
        let what = "the secret is not `whsec_` and the base64 of 24 to 64 bytes";
        Self::shared(&bytes.ok_or(WebhookError::Secret(what))?)
    }

    fn shared(secret: &[u8]) -> Result<Self, WebhookError> {
        let mac = Hmac::new_from_slice(secret);
        let mac = mac.map_err(|_| WebhookError::Secret("the secret cannot be a key"))?;
        Ok(Self::Shared(Box::new(mac)))
    }

    #[cfg(feature = "ed25519")]
    fn public(text: &str) -> Result<Self, WebhookError> {
        let bytes = from_base64(text).filter(|bytes| bytes.len() == 32);
        let bytes =
            bytes.ok_or(WebhookError::Secret("`whpk_` stands before the base64 of 32 bytes"))?;
        let ed25519 = &aws_lc_rs::signature::ED25519;
        Ok(Self::Public(aws_lc_rs::signature::UnparsedPublicKey::new(ed25519, bytes)))
    }

    #[cfg(not(feature = "ed25519"))]
    fn public(_: &str) -> Result<Self, WebhookError> {
        Err(WebhookError::Secret("`whpk_` needs the feature `ed25519` of onceward-client"))
    }

    /// In constant time, and the whole of it.
    fn fits(&self, signature: &Signature, signed: &[u8]) -> bool {
        match (self, signature) {
            (Self::Shared(mac), Signature::Shared(bytes)) => {
                (**mac).clone().chain_update(signed).verify_slice(bytes).is_ok()
            }
            #[cfg(feature = "ed25519")]
            (Self::Public(key), Signature::Public(bytes)) => key.verify(signed, bytes).is_ok(),
            _ => false,
        }
    }
}
