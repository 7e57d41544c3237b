//! 1. An HTTP request becomes an arrival: whose it is, which key, which policy, what counts as
//! the same. Nothing is written and nothing is sent.

use std::sync::Arc;
use std::time::Duration;

use onceward_core::exchange::{self, Headers, Request};
use onceward_core::fingerprint::Fingerprint;
use onceward_core::key::{Key, KeyError, Scope, ScopeKind};
use onceward_core::policy::{Effects, KeyMissing, Mode, Policy, is_safe};
use onceward_core::time::Timestamp;

use crate::refusal::Refusal;
use crate::route::Route;
use crate::secret::{Secrets, random};

/// A request as an edge hands it in.
#[derive(Debug, Clone)]
pub struct Call {
    /// Whose data this is.
    pub tenant: String,
    /// Who asks: a stable name, never a credential.
    pub principal: String,
    /// The route's name, or the origin of an ad hoc upstream.
    pub route: String,
    /// The request, all of its headers as they came.
    pub request: Request,
    /// What the request asks of us.
    pub options: CallOptions,
}

/// What a request asks of us.
#[derive(Debug, Clone, Default)]
pub struct CallOptions {
    /// `Prefer: respond-async` (RFC 7240).
    pub respond_async: bool,
    /// `Prefer: wait=N`, or what the route says: how long a caller waits before 202 or 409.
    pub wait: Option<Duration>,
    /// No attempt before this.
    pub not_before: Option<Timestamp>,
    /// No attempt begins after this.
    pub deadline: Option<Timestamp>,
    /// Attempts of a run, at most.
    pub attempts_max: Option<u32>,
    /// How long an attempt may take, where that is less than the route says.
    pub timeout: Option<Duration>,
    /// What the caller calls it.
    pub label: Option<String>,
    /// What a second arrival would do; for ad hoc upstreams only.
    pub effects: Option<Effects>,
    /// A key that came another way than in a header.
    pub key: Option<String>,
}

/// A request received and not yet remembered.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Within what its key is unique.
    pub scope: Scope,
    /// The key.
    pub key: Key,
    /// Whether the key was made here: it protects our retries and not the caller's.
    pub key_made: bool,
    /// What counts as the same.
    pub fingerprint: Fingerprint,
    /// What a second arrival at the upstream would do.
    pub effects: Effects,
    /// Who waits.
    pub mode: Mode,
    /// What goes upstream.
    pub request: Arc<Request>,
    /// The policy that governs it.
    pub policy: Arc<Policy>,
    /// The route.
    pub route: Arc<Route>,
    /// What it asks of us.
    pub options: CallOptions,
}

/// What a request is.
#[derive(Debug, Clone)]
pub enum Received {
    /// It has an effect and a key: it is remembered.
    Keyed(Box<Arrival>),
    /// It only reads, or its route lets it pass: no record.
    Pass(Arc<Request>),
}

/// Reads `call` on `route`.
pub(crate) fn receive(
    call: Call,
    route: Arc<Route>,
    secrets: &Secrets,
) -> Result<Received, Refusal> {
    let Call { tenant, principal, route: name, mut request, options } = call;
    if request.body.len() > route.body_bytes_max {
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
fn made_key() -> Key {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(37);
    text.push_str("made-");
    for byte in random::<16>() {
        // Writing into a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    Key::new(&text).unwrap_or_else(|_| std::process::abort())
}
