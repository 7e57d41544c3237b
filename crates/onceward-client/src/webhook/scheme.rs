//! What each provider signs, and where it says so.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;

use super::{Reason, WebhookError};
use crate::units::{from_base64, from_hex};

/// From this number on a timestamp is in milliseconds: as seconds it would be in the year 5138.
const MILLISECONDS_FROM: u64 = 100_000_000_000;

/// How a provider signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Scheme {
    /// Standard Webhooks 1.0, both `v1` (HMAC-SHA-256) and `v1a` (ed25519).
    #[default]
    StandardWebhooks,
    /// The same under Svix's own header names, or the standard's.
    Svix,
    /// Stripe's `Stripe-Signature`.
    Stripe,
    /// GitHub's `X-Hub-Signature-256`.
    Github,
    /// Slack's `X-Slack-Signature`, version 0.
    Slack,
    /// Shopify's `X-Shopify-Hmac-Sha256`.
    Shopify,
}

/// A signature, decoded.
pub(super) enum Signature {
    Shared(Vec<u8>),
    #[cfg_attr(
        not(feature = "ed25519"),
        expect(dead_code, reason = "read, so that it counts as one that does not fit")
    )]
    Public(Vec<u8>),
}

/// What a webhook says of its signing, read and not believed yet.
pub(super) struct Said {
    pub(super) signatures: Vec<Signature>,
    pub(super) signed: Vec<u8>,
    pub(super) signed_at: Option<SystemTime>,
    pub(super) id: Option<String>,
}

impl Scheme {
    /// What the headers say of this body.
    pub(super) fn read(self, headers: &HeaderMap, body: &[u8]) -> Result<Said, WebhookError> {
        match self {
            Self::StandardWebhooks => standard(headers, body, &["webhook-"]),
            Self::Svix => standard(headers, body, &["svix-", "webhook-"]),
            Self::Stripe => stripe(headers, body),
            Self::Github => github(headers, body),
            Self::Slack => slack(headers, body),
            Self::Shopify => shopify(headers, body),
        }
    }
}

/// The one line of a header, if there is any.
fn line<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, WebhookError> {
    let mut lines = headers.get_all(name).iter();
    let Some(value) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        let what = format!("there is more than one line of {name}");
        return Err(WebhookError::rejected(Reason::HeaderUnreadable, what));
    }
    value.to_str().map(|text| Some(text.trim())).map_err(|_| unreadable(name, "text"))
}

/// The first of these headers that is there, and its name.
fn header<'a, N: AsRef<str>>(
    headers: &'a HeaderMap,
    names: &[N],
) -> Result<(String, &'a str), WebhookError> {
    for name in names {
        if let Some(text) = line(headers, name.as_ref())? {
            return Ok((name.as_ref().to_owned(), text));
        }
    }
    let names: Vec<_> = names.iter().map(AsRef::as_ref).collect();
    let what = format!("there is no header {}", names.join(" or "));
    Err(WebhookError::rejected(Reason::HeaderMissing, what))
}

fn unreadable(name: &str, wanted: &str) -> WebhookError {
    WebhookError::rejected(Reason::HeaderUnreadable, format!("the header {name} is not {wanted}"))
}

/// A time in digits alone: what is signed is their text, so that no other way to write it fits.
fn time(name: &str, text: &str) -> Result<SystemTime, WebhookError> {
    let is_digits = (1..=15).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_digit());
    let number = text.parse::<u64>().ok().filter(|_| is_digits);
    let number = number.ok_or_else(|| unreadable(name, "seconds since 1970, in digits"))?;
    let is_seconds = number < MILLISECONDS_FROM;
    let since =
        if is_seconds { Duration::from_secs(number) } else { Duration::from_millis(number) };
    Ok(UNIX_EPOCH + since)
}

fn one(bytes: Option<Vec<u8>>, name: &str, wanted: &str) -> Result<Vec<Signature>, WebhookError> {
    let bytes = bytes.filter(|bytes| !bytes.is_empty()).ok_or_else(|| unreadable(name, wanted))?;
    Ok(vec![Signature::Shared(bytes)])
}

fn some(
    signatures: Vec<Signature>,
    name: &str,
    wanted: &str,
) -> Result<Vec<Signature>, WebhookError> {
    if signatures.is_empty() { Err(unreadable(name, wanted)) } else { Ok(signatures) }
}

fn standard(headers: &HeaderMap, body: &[u8], beginnings: &[&str]) -> Result<Said, WebhookError> {
    let field = |name: &str| {
        let names: Vec<_> = beginnings.iter().map(|begin| format!("{begin}{name}")).collect();
        header(headers, &names)
    };
    let (_, id) = field("id")?;
    let (time_name, signed_at) = field("timestamp")?;
    let (name, text) = field("signature")?;
    let read = |word: &str| {
        let (version, coded) = word.split_once(',')?;
        let bytes = from_base64(coded).filter(|bytes| !bytes.is_empty())?;
        match version {
            "v1" => Some(Signature::Shared(bytes)),
            "v1a" => Some(Signature::Public(bytes)),
            _ => None,
        }
    };
    let signatures = some(text.split(' ').filter_map(read).collect(), &name, "`v1,` and base64")?;
    let signed = [id.as_bytes(), b".", signed_at.as_bytes(), b".", body].concat();
    let signed_at = Some(time(&time_name, signed_at)?);
    Ok(Said { signatures, signed, signed_at, id: Some(id.to_owned()) })
}

fn stripe(headers: &HeaderMap, body: &[u8]) -> Result<Said, WebhookError> {
    let (name, text) = header(headers, &["stripe-signature"])?;
    let wanted = "`t=` and seconds, `v1=` and hexadecimal digits";
    let fields: Vec<_> = text.split(',').filter_map(|field| field.trim().split_once('=')).collect();
    let mut times = fields.iter().filter(|(word, _)| *word == "t").map(|(_, value)| *value);
    let (Some(signed_at), None) = (times.next(), times.next()) else {
        return Err(unreadable(&name, wanted));
    };
    // Only `v1` counts: `v0` is of test events.
    let read =
        fields.iter().filter(|(word, _)| *word == "v1").filter_map(|(_, value)| from_hex(value));
    let found = read.filter(|bytes| !bytes.is_empty()).map(Signature::Shared).collect();
    let signatures = some(found, &name, wanted)?;
    let signed = [signed_at.as_bytes(), b".", body].concat();
    Ok(Said { signatures, signed, signed_at: Some(time(&name, signed_at)?), id: None })
}

fn github(headers: &HeaderMap, body: &[u8]) -> Result<Said, WebhookError> {
    let (name, text) = header(headers, &["x-hub-signature-256"])?;
    let bytes = text.strip_prefix("sha256=").and_then(from_hex);
    let signatures = one(bytes, &name, "`sha256=` and hexadecimal digits")?;
    let id = line(headers, "x-github-delivery")?.map(str::to_owned);
    Ok(Said { signatures, signed: body.to_owned(), signed_at: None, id })
}

fn slack(headers: &HeaderMap, body: &[u8]) -> Result<Said, WebhookError> {
    let (time_name, signed_at) = header(headers, &["x-slack-request-timestamp"])?;
    let (name, text) = header(headers, &["x-slack-signature"])?;
    let bytes = text.strip_prefix("v0=").and_then(from_hex);
    let signatures = one(bytes, &name, "`v0=` and hexadecimal digits")?;
    let signed = [b"v0:", signed_at.as_bytes(), b":", body].concat();
    Ok(Said { signatures, signed, signed_at: Some(time(&time_name, signed_at)?), id: None })
}

fn shopify(headers: &HeaderMap, body: &[u8]) -> Result<Said, WebhookError> {
    let (name, text) = header(headers, &["x-shopify-hmac-sha256", "shopify-hmac-sha256"])?;
    let signatures = one(from_base64(text), &name, "a digest in base64")?;
    let id = line(headers, "x-shopify-webhook-id")?.map(str::to_owned);
    Ok(Said { signatures, signed: body.to_owned(), signed_at: None, id })
}
