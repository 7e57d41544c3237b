//! 1\. An HTTP request becomes an arrival: whose it is, which key, which policy, what counts as
//! the same. Nothing is written and nothing is sent.

use std::sync::Arc;

use http::HeaderMap;
use onceward_core::exchange::{self, Headers, Request};
use onceward_core::fingerprint::Fingerprint;
use onceward_core::hex;
use onceward_core::key::{Key, KeyError, Scope, ScopeKind};
use onceward_core::key_age;
use onceward_core::policy::{Effects, KeyFrom, KeyMissing, KeyTime, Mode, Order, Policy, is_safe};
use onceward_core::time::Timestamp;
use onceward_core::trace::TraceContext;
use onceward_core::upstream_key::{KeyPlace, NoPlace};

use crate::call::{Arrival, Call, Received};
use crate::edge::headers_of;
use crate::mail::{self, Mail};
use crate::refusal::Refusal;
use crate::route::Route;
use crate::sabotage::Sabotage;
use crate::secret::{Secrets, random};

/// Reads `call` on `route`.
pub(crate) fn receive(
    call: Call,
    route: Arc<Route>,
    secrets: &Secrets,
    now: Timestamp,
) -> Result<Received, Refusal> {
    let Call { tenant, principal, route: name, mut request, mut options } = call;
    if request.body.len() > route.body_bytes_max && !Sabotage::UnboundedBody.is_on() {
        return Err(Refusal::BodyTooLarge { bytes_max: route.body_bytes_max });
    }
    let policy = Arc::clone(route.policy_for(&request.method, &request.target));
    let given = match &options.key {
        Some(key) => Some(Key::new(key).map_err(Refusal::KeyInvalid)?),
        None => key_of(&request, &policy).map_err(Refusal::KeyInvalid)?,
    };
    if let Some(why) = given.as_ref().and_then(|key| policy.key_rule.objection(key)) {
        return Err(Refusal::KeyWeak(why));
    }
    let made_at = made_at(given.as_ref(), &request.headers, &policy)?;
    let given = match given {
        None if !is_safe(&request.method) => key_within(&request, &policy, now)?,
        given => given,
    };
    for header in &policy.key_headers {
        request.headers.remove(header);
    }
    request.headers = exchange::forwarded(request.headers);
    strip_preferences(&mut request.headers);
    lay_over(&mut request.headers, &std::mem::take(&mut options.headers));
    let mail = if route.target.mail.is_some() {
        Some(Box::new(Mail::read(&request, route.body_bytes_max, &policy.fingerprint)?))
    } else {
        None
    };
    if is_safe(&request.method) || (given.is_none() && policy.key_missing == KeyMissing::Pass) {
        return Ok(Received::Pass(Arc::new(request)));
    }
    let (key, key_made) = match given {
        Some(key) => (key, false),
        None if policy.key_missing == KeyMissing::Require => {
            let lacks = |pointer: &String| format!("the request has no {pointer} in its JSON body");
            return Err(Refusal::KeyRequired(policy.key_pointer.as_ref().map(lacks)));
        }
        None => (made_key(), true),
    };
    let fingerprint = match &mail {
        Some(_) => mail::fingerprint(&request, &policy.fingerprint, secrets.fingerprint()),
        None => Fingerprint::of(&request, &policy.fingerprint, secrets.fingerprint()),
    };
    let asked = options.effects.filter(|_| name.contains("://"));
    let effects = asked.unwrap_or_else(|| policy.effects_of(&request.method));
    if effects == Effects::Keyed {
        policy.upstream_key.place.own(&request).map_err(|why| Refusal::NoPlaceForKey {
            place: policy.upstream_key.place.to_string(),
            why,
        })?;
    }
    // What is put off is nothing that a caller is held for.
    let accepted = options.respond_async || options.not_before.is_some();
    let mode = if accepted { Mode::Accepted } else { policy.mode };
    let has_order = options.sequence.is_some() || policy.order == Order::Subject;
    let mode = if has_order && options.subject.is_some() && mode == Mode::Held {
        // Nobody can say how long it waits for its turn: its caller waits as long as a caller does.
        options.wait = options.wait.or(Some(policy.held.horizon));
        Mode::Accepted
    } else {
        mode
    };
    let tenant = if Sabotage::SharedByTenants.is_on() { String::new() } else { tenant };
    let principal = if Sabotage::SharedByPrincipals.is_on() { String::new() } else { principal };
    let scope = scope_of(&route, options.scope.take(), tenant, principal);
    let request = Arc::new(request);
    Ok(Received::Keyed(Box::new(Arrival {
        digest: scope.digest(&key),
        scope,
        key,
        key_made,
        made_at,
        fingerprint,
        effects,
        mode,
        trace: TraceContext::of(&request.headers),
        request,
        mail,
        policy,
        route,
        options,
    })))
}

/// Whether a request with this head passes without a record, whatever its body is. Where only the body
/// tells, and where the head may be refused, it is for [`receive`] to say.
pub(crate) fn passes(policy: &Policy, method: &str, headers: &HeaderMap) -> bool {
    let may_lack_key = policy.key_missing == KeyMissing::Pass
        && policy.key_pointer.is_none()
        && policy.key_from == KeyFrom::Headers;
    let is_read_for_time =
        policy.key_time != KeyTime::Ignore && headers.contains_key("repeatability-first-sent");
    (is_safe(method) || may_lack_key)
        && !is_read_for_time
        && !policy.key_headers.iter().any(|name| headers.contains_key(name.as_str()))
}

/// Within what a key is unique. Who shares a scope with others shares its keys with all of them, so
/// that callers do not differ there.
pub(crate) fn scope_of(
    route: &Route,
    own: Option<String>,
    tenant: String,
    principal: String,
) -> Scope {
    let kind = ScopeKind::Call;
    match own.or_else(|| route.scope.clone()) {
        Some(name) => Scope { kind, tenant, name, principal: String::new() },
        None => Scope { kind, tenant, name: route.name.clone(), principal },
    }
}

/// The key in the first of the policy's headers that is there, else the one in the body.
fn key_of(request: &Request, policy: &Policy) -> Result<Option<Key>, KeyError> {
    for name in &policy.key_headers {
        if let Some(key) = Key::from_field(request.headers.all(name).map(AsRef::as_ref))? {
            return Ok(Some(key));
        }
    }
    let Some(pointer) = policy.key_pointer.clone().filter(|_| !is_safe(&request.method)) else {
        return Ok(None);
    };
    match KeyPlace::Json(pointer).own(request) {
        Ok(key) => key.map(|key| Key::new(&key)).transpose(),
        Err(NoPlace::NotText) => Err(KeyError::Malformed),
        Err(NoPlace::NotAnObject | NoPlace::NoParent) => Ok(None),
    }
}

/// The key that the request itself has, where its route says where.
fn key_within(request: &Request, policy: &Policy, now: Timestamp) -> Result<Option<Key>, Refusal> {
    match &policy.key_from {
        KeyFrom::Headers => Ok(None),
        KeyFrom::Template(template) => template
            .key(request, now)
            .map(Some)
            .map_err(|missing| Refusal::KeyRequired(Some(missing.to_string()))),
    }
}

/// When the call says that it was first made, where its route asks.
fn made_at(
    key: Option<&Key>,
    headers: &Headers,
    policy: &Policy,
) -> Result<Option<Timestamp>, Refusal> {
    if policy.key_time == KeyTime::Ignore {
        return Ok(None);
    }
    if let Some(sent) = headers.get("repeatability-first-sent") {
        let read = std::str::from_utf8(sent).ok().and_then(key_age::first_sent);
        let why = || Refusal::KeyWeak("Repeatability-First-Sent is no HTTP date".to_owned());
        return read.map(Some).ok_or_else(why);
    }
    let made_at = key.and_then(key_age::time_of);
    if key.is_some() && made_at.is_none() && policy.key_time == KeyTime::Require {
        return Err(Refusal::KeyWeak(
            "this route wants keys that bear their time: a UUIDv7 or a ULID".to_owned(),
        ));
    }
    Ok(made_at)
}

/// What `Prefer` asks of us was ours to honour; the rest goes on (RFC 7240, section 2).
fn strip_preferences(headers: &mut Headers) {
    let Some(rest) = headers.text("prefer").map(preferences_of_others) else { return };
    if rest.is_empty() { headers.remove("prefer") } else { headers.set("prefer", rest) }
}

/// The part of a `Prefer` line that is not for us.
pub(crate) fn preferences_of_others(prefer: &str) -> String {
    let is_ours = |preference: &&str| {
        let name = preference.split('=').next().unwrap_or_default().trim().to_ascii_lowercase();
        !matches!(name.as_str(), "respond-async" | "wait")
    };
    let rest: Vec<&str> = prefer.split(',').filter(is_ours).map(str::trim).collect();
    rest.join(", ")
}

/// What an edge says takes the place of what the caller said.
fn lay_over(headers: &mut Headers, said: &HeaderMap) {
    headers.0.retain(|(name, _)| !said.contains_key(name));
    headers.0.extend(headers_of(said).0);
}

/// A key of our own making: 128 bits that nobody can foretell.
pub(crate) fn made_key() -> Key {
    let text = format!("made-{}", hex::encode(&random::<16>()));
    Key::new(&text).unwrap_or_else(|_| std::process::abort())
}
