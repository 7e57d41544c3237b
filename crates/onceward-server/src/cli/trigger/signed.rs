//! The headers that a provider signs with: the other side of what a source verifies.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use onceward::core::hex;
use onceward::webhook::{self, Algorithm};
use url::form_urlencoded;

/// A webhook that is to be signed.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) scheme: &'static str,
    pub(super) event: &'a str,
    pub(super) id: &'a str,
    /// The URL that its receiver takes to have been called.
    pub(super) url: String,
    /// When, since 1970.
    pub(super) seconds: i64,
    pub(super) body: &'a [u8],
    pub(super) is_form: bool,
}

type Lines = Vec<(&'static str, String)>;

/// The headers of a webhook that is signed with `secret`.
pub(super) fn sign(draft: &Draft<'_>, secret: &str) -> Result<Lines, &'static str> {
    let Draft { event, id, seconds, body, .. } = *draft;
    let hmac = |content: &[u8]| webhook::hmac(Algorithm::Sha256, secret.as_bytes(), content);
    let at = seconds.to_string();
    Ok(match draft.scheme {
        "standard-webhooks" | "svix" => {
            let signature = webhook::sign(&key_of(secret)?, id, seconds, body);
            let names = if draft.scheme == "svix" {
                ["svix-id", "svix-timestamp", "svix-signature"]
            } else {
                ["webhook-id", "webhook-timestamp", "webhook-signature"]
            };
            names.into_iter().zip([id.to_owned(), at, signature]).collect()
        }
        "stripe" => {
            let signature = hex::encode(&hmac(&[at.as_bytes(), b".", body].concat()));
            vec![("stripe-signature", format!("t={at},v1={signature}"))]
        }
        "github" => vec![
            ("x-github-event", event.to_owned()),
            ("x-github-delivery", id.to_owned()),
            ("x-hub-signature-256", format!("sha256={}", hex::encode(&hmac(body)))),
        ],
        "slack" => {
            let signature = hex::encode(&hmac(&[b"v0:", at.as_bytes(), b":", body].concat()));
            vec![
                ("x-slack-signature", format!("v0={signature}")),
                ("x-slack-request-timestamp", at),
            ]
        }
        "shopify" => vec![
            ("x-shopify-topic", event.to_owned()),
            ("x-shopify-event-id", id.to_owned()),
            ("x-shopify-webhook-id", id.to_owned()),
            ("x-shopify-shop-domain", "example.myshopify.com".to_owned()),
            ("x-shopify-hmac-sha256", STANDARD.encode(hmac(body))),
        ],
        "twilio" if !draft.is_form => {
            return Err(
                "what Twilio sends is a form\nhelp: write --data 'From=%2B15550100&Body=Hello'",
            );
        }
        "twilio" => {
            let signed = [draft.url.as_bytes(), &fields(body)].concat();
            let signature = webhook::hmac(Algorithm::Sha1, secret.as_bytes(), &signed);
            vec![
                ("i-twilio-idempotency-token", id.to_owned()),
                ("x-twilio-signature", STANDARD.encode(signature)),
            ]
        }
        _ => return Err("this scheme needs more than a secret"),
    })
}

/// `whsec_` and base64.
fn key_of(secret: &str) -> Result<Vec<u8>, &'static str> {
    let text = secret.strip_prefix("whsec_").unwrap_or(secret);
    STANDARD.decode(text).map_err(|_| {
        "the secret is not written as Standard Webhooks has it\nhelp: it is `whsec_` and base64; give the source's with --secret"
    })
}

/// A form's fields, sorted, names and values without anything between.
fn fields(body: &[u8]) -> Vec<u8> {
    let mut fields: Vec<_> = form_urlencoded::parse(body).into_owned().collect();
    fields.sort();
    fields.into_iter().fold(Vec::new(), |mut all, (name, value)| {
        all.extend_from_slice(name.as_bytes());
        all.extend_from_slice(value.as_bytes());
        all
    })
}
