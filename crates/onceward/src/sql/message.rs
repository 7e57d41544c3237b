//! A message of an outbox: a request to a route, as it will leave.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use onceward_core::key::Key;

/// The longest name of a route, in bytes.
const ROUTE_BYTES_MAX: usize = 1024;

/// A request that an outbox keeps until its transaction has committed and it can leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub(super) route: String,
    pub(super) key: Option<Key>,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Bytes,
    pub(super) subject: Option<String>,
    pub(super) sequence: Option<i64>,
    pub(super) not_before: Option<SystemTime>,
}

/// Why a message could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// No name at all, or one that is too long.
    #[error("a route's name has 1 to {ROUTE_BYTES_MAX} bytes")]
    Route,
    /// Not a method.
    #[error("{0:?} is no method, such as POST")]
    Method(String),
    /// Not a path.
    #[error("the path {0:?} does not begin with a slash, or has what a path has not")]
    Path(String),
    /// A name or a value that no header has.
    #[error("the header {0:?} has a name that is none, or a value that is not a text of one line")]
    Header(String),
}

/// Why a message was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnqueueError<E> {
    /// Its key is that of another request, which still waits in the outbox.
    #[error("the key {0} is in the outbox already, with another request")]
    AnotherRequest(Key),
    /// What the database said.
    #[error(transparent)]
    Database(#[from] E),
}

impl Message {
    /// A `POST` to `/` of the route, without a body; without [a key](Self::key) it gets one.
    pub fn new(route: &str) -> Result<Self, MessageError> {
        if !(1..=ROUTE_BYTES_MAX).contains(&route.len()) {
            return Err(MessageError::Route);
        }
        Ok(Self {
            route: route.to_owned(),
            key: None,
            method: "POST".to_owned(),
            path: "/".to_owned(),
            headers: BTreeMap::new(),
            body: Bytes::new(),
            subject: None,
            sequence: None,
            not_before: None,
        })
    }

    /// What names this one intended effect: whoever writes it again means this one.
    #[must_use]
    pub fn key(self, key: Key) -> Self {
        Self { key: Some(key), ..self }
    }

    /// Another method than `POST`.
    pub fn method(self, method: &str) -> Result<Self, MessageError> {
        let is_method = method.starts_with(|c: char| c.is_ascii_uppercase())
            && method.chars().all(|c| c.is_ascii_uppercase() || c == '-');
        if !is_method {
            return Err(MessageError::Method(method.to_owned()));
        }
        Ok(Self { method: method.to_owned(), ..self })
    }

    /// The path and query after the route's own.
    pub fn path(self, path: &str) -> Result<Self, MessageError> {
        if !path.starts_with('/') || !path.bytes().all(|byte| (b'!'..=b'~').contains(&byte)) {
            return Err(MessageError::Path(path.to_owned()));
        }
        Ok(Self { path: path.to_owned(), ..self })
    }

    /// A header, in the place of an earlier one of that name.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, MessageError> {
        let is_name = http::HeaderName::from_bytes(name.as_bytes()).is_ok();
        if !is_name || value.contains(['\r', '\n', '\0']) {
            return Err(MessageError::Header(name.to_owned()));
        }
        self.headers.insert(name.to_ascii_lowercase(), value.to_owned());
        Ok(self)
    }

    /// A body as it is; its type is a [header](Self::header).
    #[must_use]
    pub fn body(self, body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..self }
    }

    /// A body in JSON, and the header that says so.
    #[must_use]
    pub fn json(mut self, body: &serde_json::Value) -> Self {
        self.headers.insert("content-type".to_owned(), "application/json".to_owned());
        self.body(body.to_string())
    }

    /// What it is about: messages about one subject leave one after the other.
    #[must_use]
    pub fn subject(self, subject: impl Into<String>) -> Self {
        Self { subject: Some(subject.into()), ..self }
    }

    /// Its place among those about its subject.
    #[must_use]
    pub fn sequence(self, sequence: i64) -> Self {
        Self { sequence: Some(sequence), ..self }
    }

    /// Not to leave before.
    #[must_use]
    pub fn not_before(self, at: SystemTime) -> Self {
        Self { not_before: Some(at), ..self }
    }

    /// The headers as the table has them.
    pub(super) fn headers_json(&self) -> String {
        // Texts under texts always have a form in JSON.
        serde_json::to_string(&self.headers).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_leave_is_refused_before_it_is_written() {
        let message = || Message::new("pay").unwrap();
        assert_eq!(Message::new(""), Err(MessageError::Route));
        for method in ["", "post", "PO ST", "-"] {
            assert_eq!(message().method(method), Err(MessageError::Method(method.to_owned())));
        }
        for path in ["", "v1", "/a b", "/ü", "/a\n"] {
            assert_eq!(message().path(path), Err(MessageError::Path(path.to_owned())));
        }
        for (name, value) in [("", "x"), ("a b", "x"), ("a", "x\r\ny: z")] {
            assert_eq!(message().header(name, value), Err(MessageError::Header(name.to_owned())));
        }
    }

    #[test]
    fn json_says_that_it_is_json() {
        let message = Message::new("pay").unwrap().json(&serde_json::json!({"amount": 5}));
        assert_eq!(message.headers_json(), r#"{"content-type":"application/json"}"#);
        assert_eq!(message.body, r#"{"amount":5}"#);
        let other = message.header("Content-Type", "application/vnd.x+json").unwrap();
        assert_eq!(other.headers_json(), r#"{"content-type":"application/vnd.x+json"}"#);
    }
}
