//! The API under test, and one request of a case as data: with which key, which payload, where to
//! and whose. From both comes what goes on the wire.

use bytes::Bytes;
use onceward::core::exchange::Headers;
use onceward::secret::random;
use serde_json::Value;
use url::Url;

/// Where a marker goes in a URL or a body: it tells the effects of one case from all others.
pub(crate) const MARKER: &str = "{marker}";

/// The API under test, as the command line names it.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    /// The URL; may hold [`MARKER`].
    pub(crate) url: String,
    pub(crate) method: String,
    /// The body; should hold [`MARKER`].
    pub(crate) body: String,
    /// What every request carries.
    pub(crate) headers: Headers,
    /// What the other caller's requests carry in place of the same names.
    pub(crate) other: Headers,
    /// The header that carries the key (lower case).
    pub(crate) key_header: String,
    /// Whether keys go out as structured-field strings (RFC 9651), or bare.
    pub(crate) quoted: bool,
    /// Requests that are known to fail.
    pub(crate) failing: Vec<String>,
    /// What is unlike in each run, so that no run meets another's keys.
    pub(crate) run: Run,
}

/// The name of a run: hexadecimal digits by chance.
#[derive(Debug, Clone)]
pub(crate) struct Run(String);

impl Run {
    /// A name that no other run has.
    pub(crate) fn new() -> Self {
        let [a, b, c] = [random(), random(), random()].map(u32::from_be_bytes);
        Self(format!("{a:08x}{b:08x}{c:08x}"))
    }
}

/// Which key a request carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    None,
    /// The case's key of this number, a UUID: the form that no API refuses.
    Made(u8),
    /// The same key written the other way: quoted where keys go bare, bare where they go quoted.
    Requoted(u8),
    /// This key.
    Text(String),
    /// These lines, as they are.
    Lines(Vec<Bytes>),
}

/// Which of a case's two payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Payload {
    A,
    B,
}

/// How the payload is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    AsGiven,
    /// The same JSON with its members in another order and other white space.
    Reformed,
    /// JSON that breaks off.
    Broken,
}

/// Where the request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    AsGiven,
    OtherPath,
    OtherQuery,
    OtherMethod,
    /// One of the requests that are known to fail.
    Failing(usize),
}

/// Whose request it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    First,
    Other,
}

/// One request of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) key: Key,
    pub(crate) payload: Payload,
    pub(crate) form: Form,
    pub(crate) place: Place,
    pub(crate) who: Who,
}

impl Ask {
    /// The plain request with this key.
    pub(crate) fn with(key: Key) -> Self {
        Self {
            key,
            payload: Payload::A,
            form: Form::AsGiven,
            place: Place::AsGiven,
            who: Who::First,
        }
    }

    pub(crate) fn payload(self, payload: Payload) -> Self {
        Self { payload, ..self }
    }

    pub(crate) fn form(self, form: Form) -> Self {
        Self { form, ..self }
    }

    pub(crate) fn place(self, place: Place) -> Self {
        Self { place, ..self }
    }

    pub(crate) fn by(self, who: Who) -> Self {
        Self { who, ..self }
    }
}

/// A request as it goes out.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    pub(crate) method: String,
    pub(crate) url: Url,
    pub(crate) headers: Headers,
    pub(crate) body: Bytes,
}

impl Api {
    /// What goes out for `ask` in the case of this number.
    pub(crate) fn wire(&self, ask: &Ask, case: u8) -> Result<Wire, url::ParseError> {
        let marker = self.marker(case, ask.payload);
        let mut url = Url::parse(&self.url.replace(MARKER, &marker))?;
        let mut method = self.method.clone();
        let mut body = self.body.replace(MARKER, &marker);
        match ask.place {
            Place::AsGiven => {}
            Place::OtherPath => {
                let path = format!("{}/verify-other", url.path().trim_end_matches('/'));
                url.set_path(&path);
            }
            Place::OtherQuery => {
                url.query_pairs_mut().append_pair("verify", "other");
            }
            Place::OtherMethod => {
                let other = if method.eq_ignore_ascii_case("PUT") { "POST" } else { "PUT" };
                other.clone_into(&mut method);
            }
            Place::Failing(n) => {
                let failing = self.failing.get(n).map_or("", String::as_str);
                let failing = failing.replace(MARKER, &marker);
                if is_target(&failing) { url = url.join(&failing)? } else { body = failing }
            }
        }
        match ask.form {
            Form::AsGiven => {}
            Form::Reformed => body = reformed(&body).unwrap_or(body),
            Form::Broken => {
                body.truncate(body.trim_end().len());
                body.pop();
            }
        }
        Ok(Wire { method, url, headers: self.headers_of(ask, case), body: body.into() })
    }

    /// What is in the payload of one case and in no other.
    pub(crate) fn marker(&self, case: u8, payload: Payload) -> String {
        let letter = if payload == Payload::A { 'a' } else { 'b' };
        format!("vfy-{}-{case:02}{letter}", &self.run.0[..8])
    }

    /// A text that holds the run's name.
    pub(crate) fn named(&self, text: &str) -> String {
        format!("{text}-{}", self.run.0)
    }

    /// Whether a marker gets into the payload.
    pub(crate) fn is_marked(&self) -> bool {
        self.body.contains(MARKER) || self.url.contains(MARKER)
    }

    /// Whether the body is JSON with something in it.
    pub(crate) fn is_json(&self) -> bool {
        reformed(&self.body).is_some()
    }

    fn headers_of(&self, ask: &Ask, case: u8) -> Headers {
        let mut headers = self.headers.clone();
        if ask.who == Who::Other {
            for (name, value) in &self.other.0 {
                headers.set(name, value.clone());
            }
        }
        let lines = match &ask.key {
            Key::None => Vec::new(),
            Key::Made(n) => vec![written(&self.uuid(case, *n), self.quoted)],
            Key::Requoted(n) => vec![written(&self.uuid(case, *n), !self.quoted)],
            Key::Text(key) => vec![written(key, self.quoted)],
            Key::Lines(lines) => lines.clone(),
        };
        headers.0.extend(lines.into_iter().map(|line| (self.key_header.clone(), line)));
        headers
    }

    fn uuid(&self, case: u8, n: u8) -> String {
        let run = &self.run.0;
        format!("{}-{case:04x}-4{n:03x}-8{}-{}", &run[..8], &run[8..11], &run[11..23])
    }
}

/// A key as it stands in its header.
fn written(key: &str, quoted: bool) -> Bytes {
    Bytes::from(if quoted { format!("\"{key}\"") } else { key.to_owned() })
}

/// Whether what is known to fail is another path or URL; else it is another body.
fn is_target(failing: &str) -> bool {
    failing.starts_with('/') || failing.starts_with("http://") || failing.starts_with("https://")
}

/// The same JSON, written in another way.
fn reformed(body: &str) -> Option<String> {
    let value: Value = serde_json::from_str(body).ok()?;
    let has_members = match &value {
        Value::Object(members) => !members.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    has_members.then(|| backwards(&value))
}

fn backwards(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let one = |(name, value): (&String, &Value)| {
                format!("\n\t{} : {}", Value::from(name.as_str()), backwards(value))
            };
            format!("{{{}\n}}", members.iter().rev().map(one).collect::<Vec<_>>().join(" ,"))
        }
        Value::Array(items) => {
            format!("[ {} ]", items.iter().map(backwards).collect::<Vec<_>>().join(" , "))
        }
        plain => plain.to_string(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn api() -> Api {
        Api {
            url: "http://127.0.0.1:1/orders".to_owned(),
            method: "POST".to_owned(),
            body: r#"{"ref": "{marker}", "n": [1, {"a": 2.5, "b": null}]}"#.to_owned(),
            headers: Headers(vec![("authorization".to_owned(), Bytes::from("Bearer a"))]),
            other: Headers(vec![("authorization".to_owned(), Bytes::from("Bearer b"))]),
            key_header: "idempotency-key".to_owned(),
            quoted: false,
            failing: vec!["/orders?fail=500".to_owned(), r#"{"fail": "{marker}"}"#.to_owned()],
            run: Run::new(),
        }
    }

    #[test]
    fn a_reformed_body_says_the_same_in_other_bytes() {
        let api = api();
        let plain = api.wire(&Ask::with(Key::None), 1).unwrap().body;
        let reformed = api.wire(&Ask::with(Key::None).form(Form::Reformed), 1).unwrap().body;
        assert_ne!(plain, reformed);
        let value = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        assert_eq!(value(&plain), value(&reformed));
        let broken = api.wire(&Ask::with(Key::None).form(Form::Broken), 1).unwrap().body;
        assert!(serde_json::from_slice::<Value>(&broken).is_err());
    }

    #[test]
    fn a_request_differs_in_what_is_asked_for_and_in_nothing_else() {
        let api = api();
        let wire = |ask: Ask| api.wire(&ask, 7).unwrap();
        let plain = wire(Ask::with(Key::Made(0)));
        let other = wire(Ask::with(Key::Made(0)).by(Who::Other));
        assert_eq!(plain.headers.text("authorization"), Some("Bearer a"));
        assert_eq!(other.headers.text("authorization"), Some("Bearer b"));
        assert_eq!((&plain.url, &plain.body), (&other.url, &other.body));
        let b = wire(Ask::with(Key::Made(0)).payload(Payload::B));
        assert_ne!(plain.body, b.body);
        assert_eq!(plain.headers, b.headers);
        let quoted = wire(Ask::with(Key::Requoted(0)));
        let bare = plain.headers.text("idempotency-key").unwrap();
        assert_eq!(quoted.headers.text("idempotency-key").unwrap(), format!("\"{bare}\""));
        assert_eq!(wire(Ask::with(Key::None).place(Place::OtherMethod)).method, "PUT");
        let failing = |n| wire(Ask::with(Key::None).place(Place::Failing(n)));
        assert_eq!(failing(0).url.as_str(), "http://127.0.0.1:1/orders?fail=500");
        assert!(failing(1).body.starts_with(b"{\"fail\": \"vfy-"));
    }

    #[test]
    fn no_marker_or_key_is_met_twice() {
        let api = api();
        let mut seen = std::collections::HashSet::new();
        for case in 0..40 {
            assert!(seen.insert(api.marker(case, Payload::A)));
            assert!(seen.insert(api.marker(case, Payload::B)));
            for n in 0..8 {
                assert!(seen.insert(api.uuid(case, n)));
            }
        }
        assert_eq!(api.uuid(1, 2).len(), 36);
    }
}
