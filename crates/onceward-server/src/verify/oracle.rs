//! How effects are counted: by a probe that the API answers, or by the identity of what was made.

use std::collections::HashSet;

use bytes::Bytes;
use onceward::core::exchange::Headers;
use serde_json::Value;
use url::Url;

use super::ask::{MARKER, Wire};
use super::heard::{Answer, Effects, Observed};

/// What tells effects apart.
#[derive(Debug, Clone)]
pub(crate) enum Oracle {
    /// The API is asked; one effect adds this much to what it says.
    Probe(Probe, u64),
    /// Two answers with one identity are one effect.
    Identity(Identity),
}

/// A request whose answer tells how many effects there are.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    method: String,
    /// May hold [`MARKER`].
    url: String,
    headers: Headers,
}

/// Where an answer says which thing was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    Location,
    /// A JSON pointer into the body.
    Pointer(String),
    /// No single place: the whole body.
    Body,
}

impl Probe {
    /// Reads `GET /orders?ref={marker}`; the path belongs to the API's own origin, unless it is a
    /// URL itself. The API's `headers` go to its own origin and nowhere else: they hold credentials.
    pub(crate) fn parse(text: &str, api: &Url, headers: &Headers) -> Result<Self, String> {
        let (method, target) = match text.trim().split_once(char::is_whitespace) {
            Some((method, target)) => (method.to_ascii_uppercase(), target.trim()),
            None => ("GET".to_owned(), text.trim()),
        };
        // The marker goes in as it is: a URL would write its braces in another way.
        let url = if target.starts_with('/') {
            format!("{}{target}", api.origin().ascii_serialization())
        } else {
            target.to_owned()
        };
        let mut probe = Self { method, url, headers: Headers::default() };
        match probe.wire("") {
            Ok(wire) if matches!(wire.url.scheme(), "http" | "https") => {
                if wire.url.origin() == api.origin() {
                    headers.clone_into(&mut probe.headers);
                }
                Ok(probe)
            }
            _ => Err(format!("{text:?} is no request: write 'GET /orders?ref={MARKER}'")),
        }
    }

    /// Takes a credential back.
    pub(crate) fn without(&mut self, header: &str) {
        self.headers.remove(header);
    }

    /// Whether it counts one marker's effects, and not all there are.
    pub(crate) fn is_marked(&self) -> bool {
        self.url.contains(MARKER)
    }

    /// What goes out to count the effects of `marker`.
    pub(crate) fn wire(&self, marker: &str) -> Result<Wire, url::ParseError> {
        let url = Url::parse(&self.url.replace(MARKER, marker))?;
        Ok(Wire {
            method: self.method.clone(),
            url,
            headers: self.headers.clone(),
            body: Bytes::new(),
        })
    }

    /// The request in a line.
    pub(crate) fn words(&self) -> String {
        format!("{} {}", self.method, self.url)
    }
}

/// The number in a probe's answer: the whole body, or `count`, or `total`; else how often the
/// marker stands in it.
pub(crate) fn number_in(body: &[u8], marker: &str) -> u64 {
    let text = String::from_utf8_lossy(body);
    let whole: Option<Value> = serde_json::from_str(&text).ok();
    let number = |value: &Value| value.as_u64();
    let named = |name: &str| whole.as_ref()?.get(name).and_then(number);
    whole
        .as_ref()
        .and_then(number)
        .or_else(|| named("count"))
        .or_else(|| named("total"))
        .unwrap_or_else(|| if marker.is_empty() { 0 } else { text.matches(marker).count() as u64 })
}

impl Identity {
    /// The place in which the answers to two requests of two effects differ, where there is one.
    pub(crate) fn find(first: &Answer, second: &Answer) -> Option<Self> {
        let differs = |identity: &Self| match (identity.of(first), identity.of(second)) {
            (Some(one), Some(other)) => one != other,
            _ => false,
        };
        if differs(&Self::Location) {
            return Some(Self::Location);
        }
        let mut leaves = Vec::new();
        if let Ok(value) = serde_json::from_slice(&first.body) {
            leaves_of(&value, String::new(), &mut leaves);
        }
        let mut unlike: Vec<Self> = leaves.into_iter().map(Self::Pointer).filter(differs).collect();
        // The shortest name of an id first: an order's own, not one within it.
        unlike.sort_by_key(|identity| (!identity.is_id(), identity.depth()));
        match unlike.first() {
            Some(found) if found.is_id() || unlike.len() == 1 => Some(found.clone()),
            _ => Some(Self::Body).filter(differs),
        }
    }

    /// What an answer says was made.
    pub(crate) fn of(&self, answer: &Answer) -> Option<String> {
        match self {
            Self::Location => answer.headers.text("location").map(str::to_owned),
            Self::Pointer(pointer) => {
                let value: Value = serde_json::from_slice(&answer.body).ok()?;
                value.pointer(pointer).map(Value::to_string)
            }
            Self::Body => Some(String::from_utf8_lossy(&answer.body).into_owned()),
        }
    }

    /// How many different things the answers of a case name.
    pub(crate) fn count(&self, observed: &Observed) -> Effects {
        let named: HashSet<String> =
            observed.successes().filter_map(|answer| self.of(answer)).collect();
        if observed.successes().any(|answer| self.of(answer).is_none()) {
            return Effects::Unknown;
        }
        let seen = named.len() as u64;
        if observed.has_lost() { Effects::AtLeast(seen) } else { Effects::Counted(seen) }
    }

    /// The place in words.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Location => "Location".to_owned(),
            Self::Pointer(pointer) => format!("{pointer} in the body"),
            Self::Body => "the body as a whole".to_owned(),
        }
    }

    fn is_id(&self) -> bool {
        let Self::Pointer(pointer) = self else { return false };
        let name = pointer.rsplit('/').next().unwrap_or_default();
        name.eq_ignore_ascii_case("id")
            || name.eq_ignore_ascii_case("uuid")
            || name.ends_with("_id")
            || name.ends_with("Id")
    }

    fn depth(&self) -> usize {
        let Self::Pointer(pointer) = self else { return 0 };
        pointer.matches('/').count()
    }
}

/// Pointers to all that is neither object nor array.
fn leaves_of(value: &Value, at: String, leaves: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let name = name.replace('~', "~0").replace('/', "~1");
                leaves_of(value, format!("{at}/{name}"), leaves);
            }
        }
        Value::Array(items) => {
            for (n, value) in items.iter().enumerate() {
                leaves_of(value, format!("{at}/{n}"), leaves);
            }
        }
        _ => leaves.push(at),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn answer(body: &str, location: Option<&str>) -> Answer {
        let mut headers = Headers::default();
        if let Some(location) = location {
            headers.set("location", location.to_owned());
        }
        let body = Bytes::from(body.to_owned());
        let (length, took) = (body.len() as u64, Duration::ZERO);
        Answer { status: 201, headers, body, length, cut: None, took }
    }

    #[test]
    fn a_number_is_read_or_the_marker_is_counted() {
        for (body, number) in [
            ("3", 3),
            ("3\n", 3),
            (r#"{"count": 2, "total": 9}"#, 2),
            (r#"{"total": 9}"#, 9),
            (r#"[{"ref": "m"}, {"ref": "m"}, {"ref": "n"}]"#, 2),
            ("<li>m</li>", 1),
            ("[]", 0),
        ] {
            assert_eq!(number_in(body.as_bytes(), "m"), number, "{body}");
        }
    }

    #[test]
    fn an_identity_is_what_differs_between_two_effects() {
        let pointer = |at: &str| Some(Identity::Pointer(at.to_owned()));
        for (first, second, found) in [
            (r#"{"id": 1, "at": "x"}"#, r#"{"id": 2, "at": "y"}"#, pointer("/id")),
            (r#"{"order": 1}"#, r#"{"order": 2}"#, pointer("/order")),
            (
                r#"{"data": {"id": 1, "user": {"id": 7}}}"#,
                r#"{"data": {"id": 2, "user": {"id": 7}}}"#,
                pointer("/data/id"),
            ),
            (r#"{"a": 1, "b": 1}"#, r#"{"a": 2, "b": 2}"#, Some(Identity::Body)),
            ("one", "two", Some(Identity::Body)),
            ("ok", "ok", None),
        ] {
            assert_eq!(
                Identity::find(&answer(first, None), &answer(second, None)),
                found,
                "{first}"
            );
        }
        let (one, two) = (answer("ok", Some("/1")), answer("ok", Some("/2")));
        assert_eq!(Identity::find(&one, &two), Some(Identity::Location));
    }

    #[test]
    fn a_probe_belongs_to_the_api_unless_it_is_a_url() {
        let api = Url::parse("http://127.0.0.1:7/orders").unwrap();
        let url = |text: &str| {
            let probe = Probe::parse(text, &api, &Headers::default()).unwrap();
            probe.wire("m1").unwrap().url.to_string()
        };
        assert_eq!(url("GET /orders?ref={marker}"), "http://127.0.0.1:7/orders?ref=m1");
        assert_eq!(url("/effects"), "http://127.0.0.1:7/effects");
        assert_eq!(url("GET http://localhost:8/n/{marker}"), "http://localhost:8/n/m1");
        let headers = Headers(vec![("authorization".to_owned(), Bytes::from("Bearer x"))]);
        let told = |text: &str| {
            let wire = Probe::parse(text, &api, &headers).unwrap().wire("m1").unwrap();
            wire.headers.get("authorization").is_some()
        };
        assert!(told("/effects") && told("GET http://127.0.0.1:7/effects"));
        assert!(!told("GET http://127.0.0.1:8/effects"), "a credential is for one origin");
        for wrong in ["", "GET", "GET ftp://h/x", "GET orders"] {
            assert!(Probe::parse(wrong, &api, &Headers::default()).is_err(), "{wrong}");
        }
    }
}
