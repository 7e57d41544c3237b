//! The life of an operation of the double.

use bytes::Bytes;
use http::{Request, Response};
use serde_json::{Value, json};

use super::{FakeFault, Upstream, header, refuse_with, said, set};
use crate::meaning::{Meaning, meaning};
use crate::shapes::Effects;

/// Attempts for a caller who waits, and for nobody.
pub(super) const HELD_MAX: usize = 3;
pub(super) const ACCEPTED_MAX: usize = 12;

/// Headers of an answer that a repeat gets too.
const KEPT: [&str; 6] =
    ["content-type", "location", "etag", "link", "content-encoding", "last-modified"];

const EPOCH: &str = "1970-01-01T00:00:00.000Z";

/// Where an operation stands, between two calls of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Pending,
    InDoubt,
    Done,
    Dead,
}

impl Phase {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InDoubt => "in_doubt",
            Self::Done => "done",
            Self::Dead => "dead",
        }
    }
}

/// What makes two requests the same.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) content_type: String,
    pub(super) body: Bytes,
}

impl Parts {
    pub(super) fn differing(&self, other: &Self) -> Vec<&'static str> {
        let parts = [
            ("method", self.method == other.method),
            ("path", self.path == other.path),
            ("query", self.query == other.query),
            ("content-type", self.content_type == other.content_type),
            ("body", self.body == other.body),
        ];
        parts.into_iter().filter(|(_, is_same)| !is_same).map(|(name, _)| name).collect()
    }
}

#[derive(Debug)]
struct Attempt {
    status: Option<u16>,
    is_unsent: bool,
    may_have_executed: bool,
}

#[derive(Debug)]
pub(super) struct Operation {
    pub(super) id: String,
    pub(super) parts: Parts,
    pub(super) phase: Phase,
    route: String,
    key: String,
    request: Request<Bytes>,
    effects: Effects,
    is_accepted: bool,
    attempts: Vec<Attempt>,
    outcome: Option<Response<Bytes>>,
    /// The last answer, which is none to keep.
    last: Option<Response<Bytes>>,
}

impl Operation {
    pub(super) fn new(
        id: &str,
        (route, key): (&str, &str),
        parts: Parts,
        request: Request<Bytes>,
        effects: Effects,
        is_accepted: bool,
    ) -> Self {
        Self {
            id: id.to_owned(),
            parts,
            phase: Phase::Pending,
            route: route.to_owned(),
            key: key.to_owned(),
            request,
            effects,
            is_accepted,
            attempts: Vec::new(),
            outcome: None,
            last: None,
        }
    }

    pub(super) fn may_run(&self) -> bool {
        matches!(self.phase, Phase::Pending | Phase::Dead) && self.outcome.is_none()
    }

    pub(super) fn end(&mut self, phase: Phase, outcome: Option<Response<Bytes>>) {
        self.phase = phase;
        self.outcome = outcome;
        self.last = None;
    }

    pub(super) fn kept(&self) -> Option<&Response<Bytes>> {
        self.outcome.as_ref().or(self.last.as_ref())
    }

    pub(super) fn deliver(&mut self, upstream: &Upstream, attempts_max: usize) {
        let is_harmless = self.effects != Effects::NonIdempotent;
        for attempt in 1..=attempts_max {
            let met = upstream(&self.request);
            let is_unsent = matches!(met, Err(FakeFault::Unsent));
            let answer = met.ok();
            let status = answer.as_ref().map(|answer| answer.status().as_u16());
            let means = answer.as_ref().map(|it| meaning(it.status(), it.headers()));
            let may_have_executed = !is_unsent && means != Some(Meaning::Refused);
            self.attempts.push(Attempt { status, is_unsent, may_have_executed });
            if means == Some(Meaning::Final) {
                let is_dead_letter = self.is_accepted && status >= Some(400);
                self.end(if is_dead_letter { Phase::Dead } else { Phase::Done }, answer);
                return;
            }
            self.last = answer;
            let is_not_processed = is_unsent || matches!(status, Some(408 | 421 | 425 | 429));
            let is_ambiguous = means != Some(Meaning::Refused);
            let may_run = is_not_processed || (is_ambiguous && is_harmless);
            if may_run && attempt < attempts_max {
                continue;
            }
            let is_open = !is_not_processed && is_ambiguous && !is_harmless;
            self.phase = if is_open { Phase::InDoubt } else { Phase::Dead };
            return;
        }
    }

    /// What whoever asks is answered, by where the operation stands.
    pub(super) fn answer(&self, is_accepted: bool, is_replay: bool) -> Response<Bytes> {
        let is_doubt = self.phase == Phase::InDoubt;
        let about = json!({ "operation": self.id, "state": self.phase.as_str() });
        let last = self.last.as_ref().filter(|_| !(is_replay && is_doubt));
        let mut answer = if self.phase == Phase::Pending && is_accepted {
            let mut accepted = said(202, &self.story());
            set(&mut accepted, "location", &format!("/v1/operations/{}", self.id));
            accepted
        } else if let Some(kept) = self.outcome.as_ref().or(last) {
            told(kept, is_replay)
        } else if is_doubt {
            let title = "Nobody knows whether it was done";
            let detail = "The request was sent and no answer says whether it was done.";
            let status = if is_replay { 409 } else { 504 };
            refuse_with("outcome-unknown", status, "escalate", title, detail, about)
        } else {
            let (code, status, title) = if self.attempts.iter().all(|attempt| attempt.is_unsent) {
                ("upstream-unreachable", 503, "The upstream was not reached")
            } else {
                ("no-answer", 504, "The upstream gave no answer")
            };
            let detail = "The same key goes on under the same operation.";
            let mut refusal = refuse_with(code, status, "same-key", title, detail, about);
            set(&mut refusal, "retry-after", "1");
            refusal
        };
        let is_replayed = is_replay && self.outcome.is_some();
        set(&mut answer, "onceward-operation", &self.id);
        set(&mut answer, "onceward-state", self.phase.as_str());
        set(&mut answer, "onceward-attempts", &self.attempts.len().to_string());
        set(&mut answer, "idempotency-key", &self.key);
        set(&mut answer, "idempotent-replayed", if is_replayed { "true" } else { "false" });
        if let Some(advice) = self.advice() {
            set(&mut answer, "onceward-advice", advice);
        }
        answer
    }

    fn advice(&self) -> Option<&'static str> {
        match self.phase {
            Phase::Pending => Some("wait"),
            Phase::InDoubt => Some("escalate"),
            Phase::Dead if self.outcome.is_none() => Some("same-key"),
            Phase::Dead | Phase::Done => None,
        }
    }

    pub(super) fn story(&self) -> Value {
        let outcome = self.outcome.as_ref().map(|outcome| {
            let status = outcome.status().as_u16();
            json!({ "status": status, "ok": status < 400, "source": "upstream", "retained": true })
        });
        let reason = if outcome.is_some() { "refused" } else { "exhausted" };
        let has_ended = matches!(self.phase, Phase::Done | Phase::Dead);
        let attempts = self.attempts.iter().zip(1..).map(|(attempt, n): (_, u32)| {
            let ending = match attempt {
                Attempt { status: Some(_), .. } => "answered",
                Attempt { is_unsent: true, .. } => "unsent",
                _ => "unanswered",
            };
            let (status, may) = (attempt.status, attempt.may_have_executed);
            json!({
                "n": n, "started_at": EPOCH, "ended_at": EPOCH, "ending": ending, "reached": null,
                "status": status, "error": null, "may_have_executed": may, "excerpt": false,
            })
        });
        let path = self.request.uri().path_and_query().map_or("/", |path| path.as_str());
        let mut story = json!({
            "id": self.id, "tenant": "default", "principal": "", "kind": "call",
            "route": self.route, "scope": self.route, "key": self.key,
            "state": self.phase.as_str(), "effects": self.effects,
            "mode": if self.is_accepted { "accepted" } else { "held" },
            "ok": outcome.as_ref().map(|outcome| outcome["ok"].clone()), "outcome": outcome,
            "told": !self.is_accepted, "reason": (self.phase == Phase::Dead).then_some(reason),
            "method": self.request.method().as_str(), "path": path,
            "created_at": EPOCH, "ended_at": has_ended.then_some(EPOCH),
            "attempts": attempts.collect::<Vec<_>>(), "aliases": [], "acts": [], "retry": "",
            "ids": {}, "duplicates": { "count": 0, "last": [] },
        });
        for nothing in [
            "via",
            "label",
            "flow",
            "subject",
            "superseded_by",
            "due_at",
            "send_by",
            "lease_until",
            "key_expires_at",
            "upstream_key",
            "forgotten",
            "looks",
            "risk",
            "parent",
            "callback",
        ] {
            story[nothing] = Value::Null;
        }
        story
    }
}

/// The upstream's answer: a repeat gets what is kept of it.
fn told(kept: &Response<Bytes>, is_replay: bool) -> Response<Bytes> {
    let mut answer = Response::new(kept.body().clone());
    *answer.status_mut() = kept.status();
    let is_kept = |name: &str| !is_replay || KEPT.contains(&name);
    let lines = kept.headers().iter().filter(|(name, _)| is_kept(name.as_str()));
    answer.headers_mut().extend(lines.map(|(name, value)| (name.clone(), value.clone())));
    answer
}

/// An answer as the API shows one.
pub(super) fn shown(kept: &Response<Bytes>) -> Value {
    let headers = kept
        .headers()
        .keys()
        .map(|name| json!([name.as_str(), header(kept.headers(), name.as_str())]));
    json!({
        "status": kept.status().as_u16(), "headers": headers.collect::<Vec<_>>(),
        "body": String::from_utf8_lossy(kept.body()), "body_base64": null,
    })
}
