//! Single values as the file has them: each reader makes something of a text, or says what is wrong
//! with it and what to write. And the words that the file has for what the engine knows.

use std::net::Ipv4Addr;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use onceward::core::fingerprint::{BodyRule, QueryRule};
use onceward::core::hint::HintHeader;
use onceward::core::key::Key;
use onceward::core::operation::Deed;
use onceward::core::policy::{
    Effects, ErrorShape, KeyMissing, KeyTime, Meaning, Mode, OnDead, OnExpired, Order,
    UpstreamKeyValue,
};
use url::{Host, Url};

use super::table::{Words, one_of};
use crate::access::{TENANT_BYTES_MAX, is_tenant};
use crate::units::UNITS;

pub(super) const EFFECTS: &Words<Effects> = &[
    ("idempotent", Effects::Idempotent),
    ("keyed", Effects::Keyed),
    ("non-idempotent", Effects::NonIdempotent),
];
pub(super) const MODES: &Words<Mode> = &[("held", Mode::Held), ("accepted", Mode::Accepted)];
pub(super) const UPSTREAM_KEYS: &Words<UpstreamKeyValue> =
    &[("passthrough", UpstreamKeyValue::Passthrough), ("derived", UpstreamKeyValue::Derived)];
pub(crate) const MISSING: &Words<KeyMissing> =
    &[("make", KeyMissing::Make), ("require", KeyMissing::Require), ("pass", KeyMissing::Pass)];
pub(crate) const KEY_TIMES: &Words<KeyTime> = &[
    ("ignore", KeyTime::Ignore),
    ("refuse-late", KeyTime::RefuseLate),
    ("require", KeyTime::Require),
];
pub(super) const BODIES: &Words<BodyRule> =
    &[("auto", BodyRule::Auto), ("raw", BodyRule::Raw), ("none", BodyRule::None)];
pub(super) const QUERIES: &Words<QueryRule> = &[("raw", QueryRule::Raw), ("none", QueryRule::None)];
/// What a status means, by the lists that it may stand in; a success has a list of its own.
pub(crate) const MEANINGS: &Words<Meaning> = &[
    ("not_processed", Meaning::NotProcessed),
    ("refused", Meaning::Refused),
    ("final", Meaning::Final),
    ("ambiguous", Meaning::Ambiguous),
];
/// Whether a 404 or 410 to a DELETE is a success.
pub(super) const DELETE_GONE: &Words<bool> = &[("ok", true), ("error", false)];
pub(crate) const ORDERS: &Words<Order> = &[("none", Order::None), ("subject", Order::Subject)];
pub(crate) const ON_DEAD: &Words<OnDead> =
    &[("revive", OnDead::Revive), ("replay", OnDead::Replay)];
pub(crate) const ON_EXPIRED: &Words<OnExpired> =
    &[("refuse", OnExpired::Refuse), ("execute", OnExpired::Execute)];
pub(super) const ERROR_SHAPES: &Words<ErrorShape> =
    &[("problem", ErrorShape::Problem), ("stripe", ErrorShape::Stripe)];
/// What a person does that may want a second one.
const APPROVED: &Words<&[Deed]> = &[
    ("redeliver", &[Deed::Redelivered]),
    ("cancel", &[Deed::Cancelled]),
    ("resolve", &[Deed::ResolvedDone, Deed::ResolvedNotSent]),
    // A revocation forgets too.
    ("forget", &[Deed::Forgot]),
    ("extend", &[Deed::Extended]),
    ("rotate", &[Deed::Rotated]),
];

/// The word for what is meant.
pub(crate) fn word_of<T: PartialEq>(words: &Words<T>, meant: &T) -> &'static str {
    words.iter().find(|(_, known)| known == meant).map_or("", |(word, _)| word)
}

/// A name of the user's own: it stands in paths, so it is made of letters, digits, `-`, `_` and `.`.
pub(super) fn name(text: &str) -> Result<String, String> {
    if is_name(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is no route name: letters, digits, `-`, `_` and `.`, at most 64"))
    }
}

/// The name of a tenant.
pub(super) fn tenant_name(text: &str) -> Result<String, String> {
    if is_tenant(text) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{text:?} is no tenant: letters, digits, `-`, `_` and `.`, at most {TENANT_BYTES_MAX}"
    ))
}

pub(super) fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !text.is_empty() && text.len() <= 64 && text.bytes().all(fits)
}

/// A scope that routes, sources and outboxes share; it cannot be the own one of any of them.
pub(super) fn shared_scope(text: &str) -> Result<String, String> {
    Ok(format!("scope/{}", name(text)?))
}

/// A scope of claims: it stands in paths, percent-encoded where it has to be.
pub(super) fn claim_scope(text: &str) -> Result<String, String> {
    let read = Key::new(text);
    read.map(|_| text.to_owned())
        .map_err(|_| format!("{text:?} is no scope of claims: 1 to 255 visible letters"))
}

/// Whether `place` is on this machine, by its name. Of a scheme that is not the web's, an address is read as
/// a name.
pub(super) fn is_here(place: &Url) -> bool {
    match place.host() {
        Some(Host::Domain(name)) => {
            let is_loopback = |ip: Ipv4Addr| ip.is_loopback();
            name == "localhost" || name.parse().is_ok_and(is_loopback)
        }
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// An http or https URL of nothing but a place.
pub(super) fn url(text: &str) -> Result<Url, String> {
    // Before an `@` stands a password, perhaps.
    let shown = if text.contains('@') { "this".to_owned() } else { format!("{text:?}") };
    let url = Url::parse(text).map_err(|error| {
        format!("{shown} is not a URL ({error}): write \"https://api.example.com\"")
    })?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(format!("{shown} is not an http or https URL"));
    }
    let has_login = !url.username().is_empty() || url.password().is_some();
    if has_login || url.query().is_some() || url.fragment().is_some() {
        return Err(
            "this URL carries credentials, a query or a fragment: credentials belong into set_headers"
                .to_owned(),
        );
    }
    Ok(url)
}

/// A header's name, in lower case.
pub(super) fn header_name(text: &str) -> Result<String, String> {
    let name = HeaderName::from_bytes(text.as_bytes());
    name.map(|name| name.as_str().to_owned()).map_err(|_| format!("{text:?} is no header name"))
}

/// A header's value. It may be a secret, so it is not repeated.
pub(super) fn header_value(text: &str) -> Result<String, String> {
    let value = HeaderValue::from_str(text);
    value
        .map(|_| text.to_owned())
        .map_err(|_| "this value cannot stand in a header (a line break?)".to_owned())
}

/// A pointer to a member of a JSON body (RFC 6901).
pub(super) fn pointer(text: &str) -> Result<String, String> {
    if text.len() > 1 && text.starts_with('/') {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} points at no member of a body: write \"/idempotency_key\""))
}

/// A header whose hints are believed.
pub(super) fn hint(text: &str) -> Result<HintHeader, String> {
    HintHeader::from_name(&text.to_ascii_lowercase()).ok_or_else(|| {
        let known: Vec<_> = HintHeader::ALL.iter().map(|header| header.name()).collect();
        format!("{text:?} is no hint that is known: {}", known.join(", "))
    })
}

/// How long it is between two at this rate: `100/s`, `30/m`, `1000/h`, `5000/d`.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    let read = || {
        let (number, unit) = text.split_once('/')?;
        let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit.trim())?;
        let number: f64 = number.trim().parse().ok()?;
        let interval = Duration::try_from_secs_f64(seconds / number).ok()?;
        (number > 0.0 && interval >= Duration::from_micros(1)).then_some(interval)
    };
    read().ok_or_else(|| format!("{text:?} is no rate: write \"100/s\", \"30/m\" or \"1000/h\""))
}

/// The word for a restore; an empty one is none, as a variable has it that is passed on and not set.
pub(super) fn quarantine(text: &str) -> Result<Option<String>, String> {
    const BYTES_MAX: usize = 200;
    let word = text.trim();
    if word.len() > BYTES_MAX {
        return Err(format!("a word for a restore has at most {BYTES_MAX} bytes"));
    }
    Ok(Some(word.to_owned()).filter(|word| !word.is_empty()))
}

/// What a person does that wants a second one.
pub(super) fn approved(text: &str) -> Result<&'static [Deed], String> {
    one_of(text, APPROVED)
}
