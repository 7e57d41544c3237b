//! 1\. An HTTP request becomes an arrival: whose it is, which key, which policy, what counts as
//! the same. Nothing is written and nothing is sent.

use std::sync::Arc;

use onceward_core::exchange::{self, Headers};
use onceward_core::fingerprint::Fingerprint;
use onceward_core::key::{Key, KeyError, Scope, ScopeKind};
use onceward_core::policy::{KeyMissing, Mode, Policy, is_safe};

use crate::call::{Arrival, Call, Received};
use crate::refusal::Refusal;
use crate::route::Route;
use crate::sabotage::Sabotage;
use crate::secret::{Secrets, random};

/// Reads `call` on `route`.
pub(crate) fn receive(
    call: Call,
    route: Arc<Route>,
    secrets: &Secrets,
) -> Result<Received, Refusal> {
    let Call { tenant, principal, route: name, mut request, options } = call;
    if request.body.len() > route.body_bytes_max && !Sabotage::UnboundedBody.is_on() {
        return Err(Refusal::BodyTooLarge { bytes_max: route.body_bytes_max });
    }
    let policy = Arc::clone(route.policy_for(&request.method, &request.target));
    let given = match &options.key {
        Some(key) => Some(Key::new(key).map_err(Refusal::KeyInvalid)?),
        None => key_of(&request.headers, &policy).map_err(Refusal::KeyInvalid)?,
    };
    for header in &policy.key_headers {
        request.headers.remove(header);
    }
    request.headers = exchange::forwarded(request.headers);
    strip_preferences(&mut request.headers);
    if is_safe(&request.method) || (given.is_none() && policy.key_missing == KeyMissing::Pass) {
        return Ok(Received::Pass(Arc::new(request)));
    }
    let (key, key_made) = match given {
        Some(key) => (key, false),
        None if policy.key_missing == KeyMissing::Require => return Err(Refusal::KeyRequired),
        None => (made_key(), true),
    };
    let fingerprint = Fingerprint::of(&request, &policy.fingerprint, secrets.fingerprint());
    let asked = options.effects.filter(|_| name.contains("://"));
    let effects = asked.unwrap_or_else(|| policy.effects_of(&request.method));
    // What is put off is nothing that a caller is held for.
    let accepted = options.respond_async || options.not_before.is_some();
    let mode = if accepted { Mode::Accepted } else { policy.mode };
    let principal = if Sabotage::SharedByPrincipals.is_on() { String::new() } else { principal };
    let scope = Scope { kind: ScopeKind::Call, tenant, route: name, principal };
    let request = Arc::new(request);
    Ok(Received::Keyed(Box::new(Arrival {
        scope,
        key,
        key_made,
        fingerprint,
        effects,
        mode,
        request,
        policy,
        route,
        options,
    })))
}

/// The key in the first of the policy's headers that is there.
fn key_of(headers: &Headers, policy: &Policy) -> Result<Option<Key>, KeyError> {
    for name in &policy.key_headers {
        if let Some(key) = Key::from_field(headers.all(name).map(AsRef::as_ref))? {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

/// What `Prefer` asks of us was ours to honour; the rest goes on (RFC 7240, section 2).
fn strip_preferences(headers: &mut Headers) {
    let Some(prefer) = headers.text("prefer") else { return };
    let is_ours = |preference: &&str| {
        let name = preference.split('=').next().unwrap_or_default().trim().to_ascii_lowercase();
        !matches!(name.as_str(), "respond-async" | "wait")
    };
    let rest: Vec<String> =
        prefer.split(',').filter(is_ours).map(|preference| preference.trim().to_owned()).collect();
    if rest.is_empty() { headers.remove("prefer") } else { headers.set("prefer", rest.join(", ")) }
}

/// A key of our own making: 128 bits that nobody can foretell.
pub(crate) fn made_key() -> Key {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(37);
    text.push_str("made-");
    for byte in random::<16>() {
        // Writing into a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    Key::new(&text).unwrap_or_else(|_| std::process::abort())
}
