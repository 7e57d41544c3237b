//! Webhook signatures, verified and made: Standard Webhooks, and those of well-known providers.
//!
//! Pure: what came and the time are arguments. What is signed are bytes as they came (the body, and
//! the timestamp as it was written, never as it was read); every signature is tried with every
//! secret, each in constant time; and what was signed too long ago, or in the future, is refused.
//!
//! ```
//! use onceward::core::{exchange::Headers, time::Timestamp};
//! use onceward::webhook::{Delivery, Scheme, TOLERANCE, Verifier};
//!
//! let verifier = Verifier::new(Scheme::Github, &["It's a Secret to Everybody"], TOLERANCE).unwrap();
//! let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
//! let headers = Headers(vec![("x-hub-signature-256".to_owned(), signature.into())]);
//! let delivery = |body| Delivery { url: "", headers: &headers, body };
//! let now = Timestamp::from_micros(0);
//! assert!(verifier.verify(delivery(b"Hello, World!"), now).is_ok());
//! assert!(verifier.verify(delivery(b"Hello, world!"), now).is_err());
//! ```

mod place;
mod scheme;
mod twilio;

use std::time::Duration;

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use onceward_core::exchange::Headers;
use onceward_core::time::Timestamp;

use crate::secret::sha256;

pub use place::{Document, Place};
pub use scheme::{Algorithm, Encoding, HmacRule, NotATemplate, Scheme, Template};

/// How far a timestamp may be from now, where nothing says otherwise: what the libraries of Standard
/// Webhooks, Stripe and Slack take.
pub const TOLERANCE: Duration = Duration::from_mins(5);

/// Signatures that are tried, at most.
pub const SIGNATURES_MAX: usize = 16;

/// Secrets that are active at once, at most.
pub const SECRETS_MAX: usize = 16;

/// A webhook as it came.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// The URL that the provider called: Twilio signs it.
    pub url: &'a str,
    /// Its headers, names in lower case.
    pub headers: &'a Headers,
    /// Its body, the bytes as they came.
    pub body: &'a [u8],
}

/// How webhooks of one provider are verified.
pub struct Verifier {
    scheme: Scheme,
    secrets: Vec<Secret>,
    tolerance: Duration,
}

/// What one signature is verified with; it never shows itself.
enum Secret {
    Shared(Box<hmac::Key>),
    Public(UnparsedPublicKey<Vec<u8>>),
}

/// Why a secret cannot be used; the secret itself is not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotASecret {
    /// There is none, and the scheme wants one.
    #[error("there is no secret")]
    None,
    /// More than [`SECRETS_MAX`].
    #[error("there are more than {SECRETS_MAX} secrets")]
    TooMany,
    /// It is empty.
    #[error("it is empty")]
    Empty,
    /// It is not written as the scheme writes secrets.
    #[error("it is not written as this scheme writes them: {0}")]
    Form(&'static str),
}

/// A webhook that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Which secret fitted, counted from 0; nothing where nothing is signed.
    pub secret: Option<usize>,
    /// The SHA-256 of what was signed; nothing where nothing is.
    pub signed: Option<[u8; 32]>,
    /// When it was signed, where the scheme says.
    pub signed_at: Option<Timestamp>,
}

/// Why a webhook was refused; no secret and no signature is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// What the scheme needs is not there.
    #[error("there is no header {0}")]
    HeaderMissing(String),
    /// A header that may come once came more often.
    #[error("there is more than one line of the header {0}")]
    HeaderDoubled(String),
    /// A header is not written as the scheme writes it.
    #[error("the header {header} cannot be read: {wanted}")]
    HeaderUnreadable {
        /// Which.
        header: String,
        /// How it is to be.
        wanted: &'static str,
    },
    /// It was signed too long ago: by our clock, so long.
    #[error("it was signed {} s ago, and {} s are tolerated", age.as_secs(), tolerance.as_secs())]
    TooOld {
        /// How long ago.
        age: Duration,
        /// How long may be.
        tolerance: Duration,
    },
    /// It was signed in the future: by our clock, so far.
    #[error("it was signed {} s ahead of our clock, and {} s are tolerated", ahead.as_secs(), tolerance.as_secs())]
    TooNew {
        /// How far ahead.
        ahead: Duration,
        /// How far may be.
        tolerance: Duration,
    },
    /// More than [`SIGNATURES_MAX`] signatures.
    #[error("it carries more than {SIGNATURES_MAX} signatures")]
    TooManySignatures,
    /// No signature fits any secret.
    #[error("{}", no_fit(*signatures, *secrets))]
    Mismatch {
        /// Signatures that were tried.
        signatures: usize,
        /// Secrets that they were tried with.
        secrets: usize,
    },
    /// The signed digest of the body is another.
    #[error("the signed digest is not the body's")]
    BodyDiffers,
    /// There is a body, and nothing signs it.
    #[error("nothing signs the body: {0}")]
    BodyUnsigned(&'static str),
}

/// That no signature fits any secret, in the words for as many as there are.
fn no_fit(signatures: usize, secrets: usize) -> String {
    match (signatures, secrets) {
        (1, 1) => "the signature does not fit the secret".to_owned(),
        (1, _) => format!("the signature fits none of {secrets} secrets"),
        (_, 1) => format!("none of {signatures} signatures fits the secret"),
        _ => format!("none of {signatures} signatures fits any of {secrets} secrets"),
    }
}

impl Rejection {
    /// The word for it in answers, metrics and logs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::HeaderMissing(_) => "header_missing",
            Self::HeaderDoubled(_) => "header_doubled",
            Self::HeaderUnreadable { .. } => "header_unreadable",
            Self::TooOld { .. } => "too_old",
            Self::TooNew { .. } => "too_new",
            Self::TooManySignatures => "too_many_signatures",
            Self::Mismatch { .. } => "signature_mismatch",
            Self::BodyDiffers => "body_differs",
            Self::BodyUnsigned(_) => "body_unsigned",
        }
    }
}

/// What a webhook says of its signing, read and not believed yet.
struct Claim {
    /// Decoded, with what each is verified with.
    signatures: Vec<(Kind, Vec<u8>)>,
    /// What may have been signed: one, but for schemes whose senders differ.
    signed: Vec<Vec<u8>>,
    signed_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Shared,
    Public,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Verifier");
        shown.field("scheme", &self.scheme).field("secrets", &self.secrets.len());
        shown.field("tolerance", &self.tolerance).finish()
    }
}

impl Verifier {
    /// A verifier of `scheme`, with every secret that is active; tells which one cannot be used,
    /// counted from 0.
    pub fn new(
        scheme: Scheme,
        secrets: &[impl AsRef<str>],
        tolerance: Duration,
    ) -> Result<Self, (usize, NotASecret)> {
        if secrets.len() > SECRETS_MAX {
            return Err((SECRETS_MAX, NotASecret::TooMany));
        }
        if secrets.is_empty() && scheme != Scheme::None {
            return Err((0, NotASecret::None));
        }
        let read = |(place, text): (usize, &_)| {
            let text: &str = AsRef::as_ref(text);
            scheme.secret(text).map_err(|why| (place, why))
        };
        let secrets = secrets.iter().enumerate().map(read).collect::<Result<_, _>>()?;
        Ok(Self { scheme, secrets, tolerance })
    }

    /// How it is signed.
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// How many secrets are active.
    pub fn secrets(&self) -> usize {
        self.secrets.len()
    }

    /// How far a timestamp may be from now.
    pub fn tolerance(&self) -> Duration {
        self.tolerance
    }

    /// Whether `delivery` is what its provider signed, not long before or after `now`.
    pub fn verify(&self, delivery: Delivery<'_>, now: Timestamp) -> Result<Verified, Rejection> {
        if self.scheme == Scheme::None {
            return Ok(Verified { secret: None, signed: None, signed_at: None });
        }
        let claim = self.scheme.claim(delivery)?;
        if claim.signatures.len() > SIGNATURES_MAX {
            return Err(Rejection::TooManySignatures);
        }
        if let Some(signed_at) = claim.signed_at {
            self.check_time(signed_at, now)?;
        }
        for signed in &claim.signed {
            for (place, secret) in self.secrets.iter().enumerate() {
                let fits = |(kind, signature): &(Kind, Vec<u8>)| {
                    secret.kind() == *kind && secret.fits(signed, signature)
                };
                if claim.signatures.iter().any(fits) {
                    return Ok(Verified {
                        secret: Some(place),
                        signed: Some(sha256(signed)),
                        signed_at: claim.signed_at,
                    });
                }
            }
        }
        let (signatures, secrets) = (claim.signatures.len(), self.secrets.len());
        Err(Rejection::Mismatch { signatures, secrets })
    }

    fn check_time(&self, signed_at: Timestamp, now: Timestamp) -> Result<(), Rejection> {
        let tolerance = self.tolerance;
        let (age, ahead) = (now.since(signed_at), signed_at.since(now));
        if age > tolerance {
            return Err(Rejection::TooOld { age, tolerance });
        }
        if ahead > tolerance {
            return Err(Rejection::TooNew { ahead, tolerance });
        }
        Ok(())
    }
}

impl Secret {
    fn kind(&self) -> Kind {
        match self {
            Self::Shared(_) => Kind::Shared,
            Self::Public(_) => Kind::Public,
        }
    }

    /// Compares the whole of it, in a time that tells nothing: a shorter one never fits.
    fn fits(&self, signed: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Shared(key) => hmac::verify(key, signed, signature).is_ok(),
            Self::Public(key) => key.verify(signed, signature).is_ok(),
        }
    }

    fn shared(algorithm: hmac::Algorithm, key: &[u8]) -> Self {
        Self::Shared(Box::new(hmac::Key::new(algorithm, key)))
    }

    fn public(bytes: Vec<u8>) -> Self {
        Self::Public(UnparsedPublicKey::new(&ED25519, bytes))
    }
}

/// The signature of a webhook under `secret`, as Standard Webhooks 1.0 has it: the version, then
/// the HMAC-SHA-256 over its id, its time in seconds and its body.
pub fn sign(secret: &[u8], id: &str, seconds: i64, body: &[u8]) -> String {
    let signed = standard_content(id, &seconds.to_string(), body);
    let tag = hmac::sign(&hmac::Key::new(HMAC_SHA256, secret), &signed);
    format!("v1,{}", STANDARD.encode(tag))
}

/// The HMAC of `content`: for whoever sends what another scheme takes.
pub fn hmac(algorithm: Algorithm, secret: &[u8], content: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(algorithm.of(), secret), content).as_ref().to_vec()
}

/// What Standard Webhooks sign.
fn standard_content(id: &str, timestamp: &str, body: &[u8]) -> Vec<u8> {
    [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat()
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
