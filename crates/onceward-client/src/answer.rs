//! What a call comes to: the upstream's answer, and what the gateway says of its operation.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use http::header::HeaderMap;
use http::{Response, StatusCode};
use serde::de::DeserializeOwned;

use crate::shapes::{Advice, State};

/// The upstream's answer: of now, or from the ledger.
#[derive(Clone)]
pub struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    key: Option<String>,
}

/// Without its body and headers, which nobody should read in a log.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Answer");
        shown.field("status", &self.status).field("key", &self.key);
        shown.field("operation", &self.operation()).field("bytes", &self.body.len());
        shown.finish_non_exhaustive()
    }
}

impl Answer {
    pub(crate) fn new(response: Response<Bytes>, key: Option<String>) -> Self {
        let (head, body) = response.into_parts();
        Self { status: head.status, headers: head.headers, body, key }
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Whether the status is a 2xx.
    pub fn ok(&self) -> bool {
        self.status.is_success()
    }

    /// Its headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// A header's value, where it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body, as it came.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The body as text; what is none of UTF-8 is replaced.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// The body as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }

    /// The idempotency key that the call was made with.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The operation's id; nothing where the call passed without a record.
    pub fn operation(&self) -> Option<&str> {
        self.header("onceward-operation")
    }

    /// Where the operation stands.
    pub fn state(&self) -> Option<State> {
        self.header("onceward-state").map(State::from)
    }

    /// Whether it is on disk and goes on by itself, and this is not the upstream's answer.
    pub fn is_accepted(&self) -> bool {
        let goes_on = matches!(self.state(), Some(State::Pending | State::Delivering));
        self.status == StatusCode::ACCEPTED && goes_on
    }

    /// Whether it came from the ledger: the upstream was not asked.
    pub fn replayed(&self) -> bool {
        self.header("idempotent-replayed") == Some("true")
    }

    /// How many attempts were made at the upstream.
    pub fn attempts(&self) -> Option<u32> {
        self.header("onceward-attempts")?.parse().ok()
    }

    /// What is left to do, where something is.
    pub fn advice(&self) -> Option<Advice> {
        self.header("onceward-advice").map(Advice::from)
    }
}
