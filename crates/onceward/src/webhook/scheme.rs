//! The schemes: which headers a provider signs with, and what exactly it signs. Each was read from the
//! provider's documents and libraries, and is held to their own examples.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use onceward_core::exchange::Headers;
use onceward_core::hex;
use onceward_core::time::Timestamp;

use super::{
    Claim, Delivery, Kind, NotASecret, Place, Rejection, Secret, standard_content, twilio,
};

/// A shared secret of Standard Webhooks has 24 to 64 bytes; providers gave out a few that have not.
const SHARED_BYTES: std::ops::RangeInclusive<usize> = 16..=128;

/// From this number on, a timestamp is in milliseconds: as seconds it would be in the year 5138.
const MILLISECONDS_FROM: i64 = 100_000_000_000;

/// How a provider signs its webhooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scheme {
    /// Standard Webhooks 1.0, both `v1` (HMAC-SHA-256) and `v1a` (ed25519).
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
    /// Twilio's `X-Twilio-Signature`: of a form, or of JSON with `bodySHA256`.
    Twilio,
    /// An HMAC in a header, as told.
    Hmac(Box<HmacRule>),
    /// Nothing is signed, and anybody can send one.
    None,
}

/// An HMAC in a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HmacRule {
    /// The header, in lower case.
    pub header: String,
    /// What stands before the signature in it.
    pub prefix: String,
    /// The digest.
    pub algorithm: Algorithm,
    /// How the signature is written.
    pub encoding: Encoding,
    /// How the secret is written; without it, its text is the key.
    pub secret: Option<Encoding>,
    /// The header with the time of signing, in lower case.
    pub timestamp: Option<String>,
    /// What is signed.
    pub signed: Template,
}

/// The digest of an HMAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-1, as old senders have it.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    pub(super) fn of(self) -> hmac::Algorithm {
        match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }
}

/// How bytes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Hexadecimal, in either case.
    Hex,
    /// Base64, with or without its padding.
    Base64,
}

impl Encoding {
    fn read(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Hex => hex::decode(text),
            Self::Base64 => from_base64(text),
        }
    }
}

/// What is signed, of pieces: `{timestamp}.{body}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
    source: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Body,
    Timestamp,
    Url,
    Header(String),
}

/// Why a template cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotATemplate {
    /// A piece that is none.
    #[error("{{{0}}} is nothing: there are {{body}}, {{timestamp}}, {{url}} and {{header:NAME}}")]
    Unknown(String),
    /// A brace without its other.
    #[error("a `{{` has no `}}`")]
    Open,
    /// The body would not be signed.
    #[error("it has no {{body}}, so that anybody could change that")]
    NoBody,
}

impl Template {
    /// Reads one.
    pub fn read(text: &str) -> Result<Self, NotATemplate> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            let length = rest[at..].find('}').ok_or(NotATemplate::Open)?;
            if at > 0 {
                pieces.push(Piece::Text(rest[..at].to_owned()));
            }
            pieces.push(match &rest[at + 1..at + length] {
                "body" => Piece::Body,
                "timestamp" => Piece::Timestamp,
                "url" => Piece::Url,
                other => match other.strip_prefix("header:") {
                    Some(name) if !name.is_empty() => Piece::Header(name.to_ascii_lowercase()),
                    _ => return Err(NotATemplate::Unknown(other.to_owned())),
                },
            });
            rest = &rest[at + length + 1..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        if !pieces.contains(&Piece::Body) {
            return Err(NotATemplate::NoBody);
        }
        Ok(Self { pieces, source: text.to_owned() })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// Whether it wants the time of signing.
    pub fn has_timestamp(&self) -> bool {
        self.pieces.contains(&Piece::Timestamp)
    }

    fn fill(&self, delivery: Delivery<'_>, timestamp: &str) -> Result<Vec<u8>, Rejection> {
        let mut signed = Vec::with_capacity(delivery.body.len() + 64);
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => signed.extend(text.as_bytes()),
                Piece::Body => signed.extend(delivery.body),
                Piece::Timestamp => signed.extend(timestamp.as_bytes()),
                Piece::Url => signed.extend(delivery.url.as_bytes()),
                Piece::Header(name) => {
                    signed.extend(header(delivery.headers, &[name.as_str()])?.1.as_bytes());
                }
            }
        }
        Ok(signed)
    }
}

impl Scheme {
    /// The word for it in the configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::StandardWebhooks => "standard-webhooks",
            Self::Svix => "svix",
            Self::Stripe => "stripe",
            Self::Github => "github",
            Self::Slack => "slack",
            Self::Shopify => "shopify",
            Self::Twilio => "twilio",
            Self::Hmac(_) => "hmac",
            Self::None => "none",
        }
    }

    /// The headers that it looks at, for people.
    pub fn headers(&self) -> Vec<String> {
        let names: &[&str] = match self {
            Self::StandardWebhooks => &["webhook-id", "webhook-timestamp", "webhook-signature"],
            Self::Svix => &["svix-id", "svix-timestamp", "svix-signature"],
            Self::Stripe => &["stripe-signature"],
            Self::Github => &["x-hub-signature-256"],
            Self::Slack => &["x-slack-request-timestamp", "x-slack-signature"],
            Self::Shopify => &["x-shopify-hmac-sha256"],
            Self::Twilio => &["x-twilio-signature"],
            Self::Hmac(rule) => {
                let names = rule.timestamp.iter().chain([&rule.header]);
                return names.cloned().collect();
            }
            Self::None => &[],
        };
        names.iter().map(|&name| name.to_owned()).collect()
    }

    /// Where its webhooks have their id, the best first; the parts of one place together make it.
    pub fn ids(&self) -> Vec<Vec<Place>> {
        let header = |name: &str| Place::Header(name.to_owned());
        match self {
            Self::StandardWebhooks => vec![vec![header("webhook-id")]],
            Self::Svix => vec![vec![header("svix-id")], vec![header("webhook-id")]],
            Self::Stripe => vec![vec![Place::Json("/id".to_owned())]],
            Self::Github => vec![vec![header("x-github-delivery")]],
            // A command has no event, but what a person triggered once.
            Self::Slack => vec![
                vec![Place::Json("/event_id".to_owned())],
                vec![Place::Form("trigger_id".to_owned())],
            ],
            // One event comes under several topics, where several are subscribed to.
            Self::Shopify => vec![
                vec![header("x-shopify-event-id"), header("x-shopify-topic")],
                vec![header("x-shopify-webhook-id")],
            ],
            Self::Twilio => vec![vec![header("i-twilio-idempotency-token")]],
            Self::Hmac(_) | Self::None => Vec::new(),
        }
    }

    /// Whether what stands at `place` is signed: else anybody who saw a webhook could send it again
    /// under another id.
    pub fn covers(&self, place: &Place) -> bool {
        match (self, place) {
            (_, Place::Json(_)) => *self != Self::None,
            // What Twilio signs does not say where a field's name ends: it can be read as other fields.
            (_, Place::Form(_)) => !matches!(self, Self::Twilio | Self::None),
            (Self::StandardWebhooks, Place::Header(name)) => name == "webhook-id",
            (Self::Svix, Place::Header(name)) => name == "svix-id" || name == "webhook-id",
            (Self::Hmac(rule), Place::Header(name)) => {
                rule.signed.pieces.contains(&Piece::Header(name.clone()))
            }
            (
                Self::Stripe
                | Self::Github
                | Self::Slack
                | Self::Shopify
                | Self::Twilio
                | Self::None,
                Place::Header(_),
            ) => false,
        }
    }

    /// Whether the time of signing comes with a webhook.
    #[must_use]
    pub fn signs_time(&self) -> bool {
        match self {
            Self::StandardWebhooks | Self::Svix | Self::Stripe | Self::Slack => true,
            Self::Github | Self::Shopify | Self::Twilio | Self::None => false,
            Self::Hmac(rule) => rule.timestamp.is_some(),
        }
    }

    /// A secret as the scheme writes it.
    pub(super) fn secret(&self, text: &str) -> Result<Secret, NotASecret> {
        let shared = |algorithm: hmac::Algorithm, key: &[u8]| {
            if key.is_empty() {
                return Err(NotASecret::Empty);
            }
            Ok(Secret::shared(algorithm, key))
        };
        match self {
            Self::StandardWebhooks | Self::Svix => standard_secret(text),
            Self::Twilio => shared(Algorithm::Sha1.of(), text.as_bytes()),
            Self::Hmac(rule) => {
                let key = match rule.secret {
                    None => text.as_bytes().to_vec(),
                    Some(encoding) => encoding.read(text).ok_or(NotASecret::Form(
                        "it is neither base64 nor hex, whichever `secret_encoding` says",
                    ))?,
                };
                shared(rule.algorithm.of(), &key)
            }
            Self::Stripe | Self::Github | Self::Slack | Self::Shopify | Self::None => {
                shared(Algorithm::Sha256.of(), text.as_bytes())
            }
        }
    }

    /// What `delivery` says of its signing.
    pub(super) fn claim(&self, delivery: Delivery<'_>) -> Result<Claim, Rejection> {
        match self {
            Self::StandardWebhooks => standard(delivery, &["webhook-"]),
            Self::Svix => standard(delivery, &["svix-", "webhook-"]),
            Self::Stripe => stripe(delivery),
            Self::Github => {
                let (name, text) = header(delivery.headers, &["x-hub-signature-256"])?;
                let hex = text.strip_prefix("sha256=").and_then(hex::decode);
                let signature =
                    hex.ok_or_else(|| unreadable(name, "`sha256=` and 64 hexadecimal digits"))?;
                Ok(of_body(signature, delivery.body))
            }
            Self::Slack => slack(delivery),
            Self::Shopify => {
                let names = ["x-shopify-hmac-sha256", "shopify-hmac-sha256"];
                let (name, text) = header(delivery.headers, &names)?;
                let signature =
                    from_base64(text).ok_or_else(|| unreadable(name, "a digest in base64"))?;
                Ok(of_body(signature, delivery.body))
            }
            Self::Twilio => twilio::claim(delivery),
            Self::Hmac(rule) => generic(rule, delivery),
            Self::None => Ok(of_body(Vec::new(), delivery.body)),
        }
    }
}

fn of_body(signature: Vec<u8>, body: &[u8]) -> Claim {
    Claim {
        signatures: vec![(Kind::Shared, signature)],
        signed: vec![body.to_vec()],
        signed_at: None,
    }
}

/// `whsec_` and base64 of a shared secret, or `whpk_` and base64 of a public key.
fn standard_secret(text: &str) -> Result<Secret, NotASecret> {
    if text.is_empty() {
        return Err(NotASecret::Empty);
    }
    if text.starts_with("whsk_") {
        return Err(NotASecret::Form("that is the sender's private key: a receiver has `whpk_…`"));
    }
    if let Some(public) = text.strip_prefix("whpk_") {
        let key = from_base64(public).filter(|key| key.len() == 32);
        let wanted = NotASecret::Form("`whpk_` and the base64 of 32 bytes");
        return key.map(Secret::public).ok_or(wanted);
    }
    let secret = from_base64(text.strip_prefix("whsec_").unwrap_or(text));
    let secret = secret.filter(|secret| SHARED_BYTES.contains(&secret.len()));
    let wanted = NotASecret::Form("`whsec_` and the base64 of 24 to 64 bytes");
    secret.map(|secret| Secret::shared(hmac::HMAC_SHA256, &secret)).ok_or(wanted)
}

/// Standard Webhooks 1.0, under one of several beginnings of header names.
fn standard(delivery: Delivery<'_>, beginnings: &[&str]) -> Result<Claim, Rejection> {
    let field = |name: &str| -> Result<(String, &str), Rejection> {
        let names: Vec<String> = beginnings.iter().map(|begin| format!("{begin}{name}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        header(delivery.headers, &names).map(|(name, text)| (name.to_owned(), text))
    };
    let (_, id) = field("id")?;
    let (timestamp_name, timestamp) = field("timestamp")?;
    let (signature_name, signatures) = field("signature")?;
    let read = |word: &str| {
        let (version, text) = word.split_once(',')?;
        let kind = match version {
            "v1" => Kind::Shared,
            "v1a" => Kind::Public,
            _ => return None,
        };
        Some((kind, from_base64(text)?))
    };
    let signatures: Vec<_> = signatures.split(' ').filter_map(read).collect();
    if signatures.is_empty() {
        return Err(unreadable(&signature_name, "`v1,` and base64, or `v1a,` and base64"));
    }
    Ok(Claim {
        signatures,
        signed: vec![standard_content(id, timestamp, delivery.body)],
        signed_at: Some(time(&timestamp_name, timestamp)?),
    })
}

/// `t=…,v1=…,v1=…,v0=…`: only `v1` counts, or a sender of test events could be spoofed.
fn stripe(delivery: Delivery<'_>) -> Result<Claim, Rejection> {
    const WANTED: &str = "`t=` and seconds, `v1=` and 64 hexadecimal digits";
    let (name, text) = header(delivery.headers, &["stripe-signature"])?;
    let fields = || text.split(',').filter_map(|field| field.trim().split_once('='));
    let mut times = fields().filter(|(field, _)| *field == "t").map(|(_, value)| value);
    let timestamp = times.next().ok_or_else(|| unreadable(name, WANTED))?;
    if times.next().is_some() {
        return Err(unreadable(name, "one `t=`"));
    }
    let signature = |(field, value): (&str, &str)| (field == "v1").then(|| hex::decode(value))?;
    let signatures: Vec<_> = fields().filter_map(signature).map(|it| (Kind::Shared, it)).collect();
    if signatures.is_empty() {
        return Err(unreadable(name, WANTED));
    }
    Ok(Claim {
        signatures,
        signed: vec![[timestamp.as_bytes(), b".", delivery.body].concat()],
        signed_at: Some(time(name, timestamp)?),
    })
}

fn slack(delivery: Delivery<'_>) -> Result<Claim, Rejection> {
    let (time_name, timestamp) = header(delivery.headers, &["x-slack-request-timestamp"])?;
    let (name, text) = header(delivery.headers, &["x-slack-signature"])?;
    let signature = text.strip_prefix("v0=").and_then(hex::decode);
    let signature = signature.ok_or_else(|| unreadable(name, "`v0=` and 64 hexadecimal digits"))?;
    Ok(Claim {
        signatures: vec![(Kind::Shared, signature)],
        signed: vec![[b"v0:", timestamp.as_bytes(), b":", delivery.body].concat()],
        signed_at: Some(time(time_name, timestamp)?),
    })
}

fn generic(rule: &HmacRule, delivery: Delivery<'_>) -> Result<Claim, Rejection> {
    let (name, text) = header(delivery.headers, &[rule.header.as_str()])?;
    let signature = text.strip_prefix(rule.prefix.as_str());
    let signature = signature.and_then(|text| rule.encoding.read(text.trim()));
    let signature =
        signature.ok_or_else(|| unreadable(name, "the prefix and encoding of `verify`"))?;
    let timestamp = match &rule.timestamp {
        Some(name) => Some(header(delivery.headers, &[name.as_str()])?),
        None => None,
    };
    let text = timestamp.map_or("", |(_, text)| text);
    Ok(Claim {
        signatures: vec![(Kind::Shared, signature)],
        signed: vec![rule.signed.fill(delivery, text)?],
        signed_at: timestamp.map(|(name, text)| time(name, text)).transpose()?,
    })
}

/// The one line of the first of `names` that is there: its name and its text.
pub(super) fn header<'a, 'n>(
    headers: &'a Headers,
    names: &[&'n str],
) -> Result<(&'n str, &'a str), Rejection> {
    for name in names {
        let mut lines = headers.all(name);
        let Some(line) = lines.next() else { continue };
        if lines.next().is_some() {
            return Err(Rejection::HeaderDoubled((*name).to_owned()));
        }
        let text = std::str::from_utf8(line).map(str::trim);
        return text.map(|text| (*name, text)).map_err(|_| unreadable(name, "plain text"));
    }
    Err(Rejection::HeaderMissing(names.join(" or ")))
}

pub(super) fn unreadable(header: &str, wanted: &'static str) -> Rejection {
    Rejection::HeaderUnreadable { header: header.to_owned(), wanted }
}

/// A time as digits alone: what is signed is their text, so that no other way to write it fits.
fn time(header: &str, text: &str) -> Result<Timestamp, Rejection> {
    let is_number = (1..=15).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_digit());
    let number: Option<i64> = text.parse().ok().filter(|_| is_number);
    let number = number.ok_or_else(|| unreadable(header, "seconds since 1970, in digits"))?;
    let micros = if number < MILLISECONDS_FROM { 1_000_000 } else { 1000 };
    Ok(Timestamp::from_micros(number.saturating_mul(micros)))
}

pub(super) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok()
}
