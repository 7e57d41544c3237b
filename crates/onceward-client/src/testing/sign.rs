//! Webhooks, signed as a test wants them.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderName};
use sha2::Sha256;

use crate::units::from_base64;

/// Signs a webhook as Standard Webhooks have it: the headers that it is sent with.
///
/// # Panics
///
/// Where the secret is not `whsec_` and base64, or the id is no header's value.
pub fn sign_webhook(payload: &[u8], secret: &str, id: &str, at: SystemTime) -> HeaderMap {
    let key = from_base64(secret.strip_prefix("whsec_").unwrap_or(secret));
    let key = key.expect("the secret is `whsec_` and base64");
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().to_string();
    let mac = Hmac::<Sha256>::new_from_slice(&key).expect("an HMAC takes a key of any length");
    let signed = mac.chain_update(format!("{id}.{seconds}.")).chain_update(payload).finalize();
    let signature = format!("v1,{}", STANDARD.encode(signed.into_bytes()));
    let lines =
        [("webhook-id", id), ("webhook-timestamp", &seconds), ("webhook-signature", &signature)];
    let line = |(name, value): (&'static str, &str)| {
        (HeaderName::from_static(name), value.parse().expect("the id is a header's value"))
    };
    lines.map(line).into_iter().collect()
}
