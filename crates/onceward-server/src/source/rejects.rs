//! Webhooks that were refused, or acknowledged and set aside: the last ones of each source, with the
//! reason, so that a wrong secret is found. What anybody can send is bounded: in number, in bytes, and
//! in how often it is written.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use onceward::core::exchange::{Headers, is_credential};
use onceward::core::redact::Redaction;
use onceward::core::time::Timestamp;
use onceward::secret::random;
use onceward::store::{StoreError, Way};
use onceward::webhook::Delivery;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Source, Webhook};
use crate::node::Node;
use crate::problem::Problem;
use crate::shape;

const PREFIX: &str = "reject/";

/// How much of a body is kept.
const BODY_BYTES_MAX: usize = 1024;

/// How much of the headers is kept.
const HEADER_BYTES_MAX: usize = 8 << 10;

/// How many of a source are written at once; then one a second.
const BURST: f64 = 20.0;

/// How many are written before old ones are looked for.
const PRUNED_EVERY: u32 = 8;

/// How long ago a webhook was refused at most that somebody is told of, and how many of each source are
/// read for that.
const REFUSED_LATELY: Duration = Duration::from_hours(1);
const REFUSED_READ: usize = 20;

/// Why a webhook was not taken, and all that was read of it.
pub(super) struct Refused {
    pub(super) problem: Problem,
    pub(super) code: &'static str,
    pub(super) why: String,
    pub(super) webhook: Option<Webhook>,
}

impl Refused {
    /// Before anything was read.
    pub(super) fn before(problem: Problem, code: &'static str) -> Box<Self> {
        let why = problem.detail.clone();
        Box::new(Self { problem, code, why, webhook: None })
    }

    pub(super) fn of(problem: Problem, code: &'static str, webhook: Webhook) -> Box<Self> {
        let why = format!("{}: {}", problem.title(), problem.detail);
        Self::why(problem, code, why, webhook)
    }

    pub(super) fn why(
        problem: Problem,
        code: &'static str,
        why: String,
        webhook: Webhook,
    ) -> Box<Self> {
        Box::new(Self { problem, code, why, webhook: Some(webhook) })
    }
}

/// Why a webhook was not taken, or not delivered.
pub(super) struct Reason<'a> {
    /// The word for it.
    pub(super) code: &'a str,
    /// In a sentence.
    pub(super) why: &'a str,
    /// What its provider was answered.
    pub(super) status: u16,
}

/// How often each source writes.
pub(crate) type Buckets = HashMap<String, Bucket>;

/// What a source may write still, as of then.
#[derive(Debug)]
pub(crate) struct Bucket {
    left: f64,
    at: Timestamp,
    written: u32,
}

impl Bucket {
    fn take(&mut self, now: Timestamp) -> bool {
        self.left = (self.left + now.since(self.at).as_secs_f64()).min(BURST);
        self.at = now;
        if self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        self.written = self.written.wrapping_add(1);
        true
    }
}

/// A webhook that was not taken, as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Reject {
    #[serde(skip)]
    pub(crate) id: String,
    /// In microseconds.
    at: i64,
    pub(crate) reason: String,
    pub(crate) why: String,
    pub(crate) status: u16,
    pub(crate) method: String,
    pub(crate) target: String,
    url: String,
    pub(crate) headers: Vec<(String, String)>,
    /// In base64.
    body: String,
    pub(crate) body_bytes: usize,
    /// Whether headers and body are all there, as they came.
    is_whole: bool,
}

fn names_of(source: &str) -> String {
    format!("{PREFIX}{source}/")
}

/// Keeps a webhook that was not taken; tells whether it was, or only counted.
pub(super) async fn keep(
    node: &Arc<Node>,
    source: &Source,
    reason: &Reason<'_>,
    webhook: Option<Webhook>,
) -> bool {
    let Some(webhook) = webhook.filter(|_| source.rejects_max > 0) else { return false };
    let now = shape::now();
    let written = {
        let mut buckets = node.sources.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Bucket { left: BURST, at: now, written: 0 };
        let bucket = buckets.entry(source.name.clone()).or_insert_with(fresh);
        if !bucket.take(now) {
            return false;
        }
        bucket.written
    };
    let reject = of(node, source, reason, &webhook, now);
    let name = format!(
        "{}{:016x}{:08x}",
        names_of(&source.name),
        now.as_micros(),
        u32::from_ne_bytes(random())
    );
    let value = serde_json::to_vec(&reject).unwrap_or_default();
    let sealed = node.engine.secrets().seal(&value, name.as_bytes());
    let store = node.engine.store();
    // What cannot be kept now is counted and logged all the same.
    if store.set(name, Some(Bytes::from(sealed))).await.is_err() {
        return false;
    }
    node.sources.refused.changed();
    if written % PRUNED_EVERY == 1 {
        // It is tried again with the next.
        let _ = prune(node, source).await;
    }
    true
}

fn of(
    node: &Node,
    source: &Source,
    reason: &Reason<'_>,
    webhook: &Webhook,
    now: Timestamp,
) -> Reject {
    let mut is_whole = webhook.body.len() <= BODY_BYTES_MAX;
    let target = webhook.uri.path_and_query().map_or("", |it| it.as_str()).to_owned();
    let mut left = HEADER_BYTES_MAX;
    let mut headers = Vec::new();
    let redact = redaction_of(node, source, webhook.method.as_str());
    let seen = redact.body(webhook.headers.text("content-type"), &webhook.body);
    for (name, value) in &webhook.headers.0 {
        let is_secret = is_credential(name, &redact.headers);
        let text = std::str::from_utf8(value);
        is_whole &= !is_secret && text.is_ok();
        let value = if is_secret { "…".into() } else { String::from_utf8_lossy(value) };
        if name.len() + value.len() > left {
            is_whole = false;
            break;
        }
        left -= name.len() + value.len();
        headers.push((name.clone(), value.into_owned()));
    }
    is_whole &= seen.is_none();
    let body = seen.unwrap_or_else(|| webhook.body.clone());
    Reject {
        id: String::new(),
        at: now.as_micros(),
        reason: reason.code.to_owned(),
        why: reason.why.to_owned(),
        status: reason.status,
        method: webhook.method.as_str().to_owned(),
        target,
        url: webhook.url.clone(),
        headers,
        body: STANDARD.encode(&body[..body.len().min(BODY_BYTES_MAX)]),
        body_bytes: webhook.body.len(),
        is_whole,
    }
}

/// What people do not see of a webhook: as its route says, or what holds for all.
pub(super) fn redaction_of(node: &Node, source: &Source, method: &str) -> Redaction {
    let routes = node.engine.routes();
    let route = source.route.as_ref().and_then(|route| routes.get(route));
    let policy = route.as_ref().map(|route| route.policy_for(method, &source.target));
    policy.unwrap_or(&routes.ad_hoc.policy).redact.clone()
}

/// Removes the oldest beyond what is kept.
async fn prune(node: &Node, source: &Source) -> Result<(), StoreError> {
    let store = node.engine.store();
    let max = source.rejects_max + 2 * PRUNED_EVERY as usize;
    let page = store.settings_from(names_of(&source.name), None, Way::Down, max).await?;
    for (name, _) in page.into_iter().skip(source.rejects_max) {
        store.set(name, None).await?;
    }
    Ok(())
}

/// The last ones of a source, the newest first.
pub(crate) async fn list(
    node: &Node,
    source: &Source,
    limit: usize,
) -> Result<Vec<Reject>, Problem> {
    let store = node.engine.store();
    let limit = limit.min(source.rejects_max);
    if limit == 0 {
        return Ok(Vec::new());
    }
    let page = store.settings_from(names_of(&source.name), None, Way::Down, limit).await?;
    let read = |(name, sealed): (String, Bytes)| {
        let damaged = |why: &dyn std::fmt::Display| {
            Problem::from(StoreError::Damaged(format!("the setting {name}: {why}")))
        };
        let opened = node.engine.secrets().open(&sealed, name.as_bytes());
        let value = opened.map_err(|error| damaged(&error))?;
        let reject: Reject = serde_json::from_slice(&value).map_err(|error| damaged(&error))?;
        let id = name.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(Reject { id, ..reject })
    };
    page.into_iter().map(read).collect()
}

/// A source that refused webhooks in the last hour.
#[derive(Debug, Clone)]
pub(crate) struct Refusing {
    pub(crate) source: String,
    pub(crate) tenant: String,
    /// So many of the last ones.
    pub(crate) count: usize,
    /// When the last came, and why it was refused.
    pub(crate) last: Timestamp,
    pub(crate) reason: String,
}

impl Refusing {
    /// How many there were, as far as it was looked.
    pub(crate) fn many(&self) -> String {
        let or_more = if self.count >= REFUSED_READ { " or more" } else { "" };
        format!("{}{or_more}", self.count)
    }
}

/// The sources that refused webhooks lately: of each the last ones are read. What was acknowledged and set
/// aside is not among them.
pub(crate) async fn refusing(node: &Node) -> Result<Arc<[Refusing]>, Problem> {
    let since = shape::now().minus(REFUSED_LATELY);
    let mut refusing = Vec::new();
    for source in node.sources.all().values() {
        let rejects = list(node, source, REFUSED_READ).await?;
        let refused = |it: &&Reject| it.status >= 300 && it.at() >= since;
        let mut refused = rejects.iter().filter(refused).peekable();
        let Some(last) = refused.peek().copied() else { continue };
        refusing.push(Refusing {
            source: source.name.clone(),
            tenant: source.tenant.clone(),
            count: refused.count(),
            last: last.at(),
            reason: last.reason.clone(),
        });
    }
    Ok(refusing.into())
}

impl Reject {
    /// When it came.
    pub(crate) fn at(&self) -> Timestamp {
        Timestamp::from_micros(self.at)
    }

    /// The beginning of its body.
    pub(crate) fn body(&self) -> Vec<u8> {
        STANDARD.decode(&self.body).unwrap_or_default()
    }

    /// Whether it would have been verified with the secrets of now; nothing where not all of it is
    /// kept.
    pub(crate) fn verifies_now(&self, source: &Source) -> Option<bool> {
        if !self.is_whole {
            return None;
        }
        let lines = self.headers.iter();
        let headers =
            Headers(lines.map(|(name, value)| (name.clone(), value.clone().into())).collect());
        let body = self.body();
        let delivery = Delivery { url: &self.url, headers: &headers, body: &body };
        Some(source.verifier.verify(delivery, self.at()).is_ok())
    }

    /// As the API shows it.
    pub(crate) fn shown(&self, source: &Source) -> Value {
        let body = self.body();
        let text = std::str::from_utf8(&body).ok();
        json!({
            "id": self.id,
            "at": shape::time(self.at()),
            "reason": self.reason,
            "why": self.why,
            "status": self.status,
            "method": self.method,
            "path": self.target,
            "headers": self.headers,
            "body": text,
            "body_base64": text.is_none().then_some(&self.body),
            "body_bytes": self.body_bytes,
            "verifies_now": self.verifies_now(source),
        })
    }
}
