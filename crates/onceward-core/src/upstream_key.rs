//! Where our key stands in a request to an upstream that dedupes by one.
//!
//! A key in a body is laid into its text, and nothing else of it changes: no number is written
//! anew, no member moves. So the same request and the same key are the same bytes at each attempt.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::exchange::Request;

/// Where an upstream takes its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPlace {
    /// In a header (lower case).
    Header(String),
    /// In a JSON body, at this pointer (RFC 6901): a member of an object.
    Json(String),
    /// In the query, under this name.
    Query(String),
}

/// Why a request has no place for the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// The body is compressed, or no JSON object, or names a member twice.
    #[error("the body is no JSON object that can be read in one way")]
    NotAnObject,
    /// What the pointer leads through is not there, or no object.
    #[error("the body has no object to put the key in")]
    NoParent,
    /// Something that is no text stands where the key belongs.
    #[error("what stands in the key's place is no text")]
    NotText,
}

impl fmt::Display for KeyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => f.write_str(name),
            Self::Json(pointer) => f.write_str(pointer),
            Self::Query(name) => write!(f, "?{name}"),
        }
    }
}

impl KeyPlace {
    /// Reads what [`Display`](fmt::Display) writes: a name of a header begins with neither `/` nor `?`.
    pub fn from_text(text: &str) -> Self {
        match text.strip_prefix('?') {
            Some(name) => Self::Query(name.to_owned()),
            None if text.starts_with('/') => Self::Json(text.to_owned()),
            None => Self::Header(text.to_owned()),
        }
    }

    /// The key that a request brings in this place itself. A header's is not looked at: it is set
    /// at send, whatever the caller wrote there.
    pub fn own(&self, request: &Request) -> Result<Option<String>, NoPlace> {
        match self {
            Self::Header(_) => Ok(None),
            Self::Json(pointer) => match find(text_of(request)?, pointer)? {
                Found::Member { value, .. } => {
                    let text = serde_json::from_str(value).map_err(|_| NoPlace::NotText)?;
                    Ok(Some(text))
                }
                Found::Room { .. } => Ok(None),
            },
            Self::Query(name) => {
                Ok(pairs(&request.target).find(|(other, _)| *other == name).map(|(_, v)| v))
            }
        }
    }

    /// The request with `key` in its place; what stood there gives way. A header's is not put.
    pub fn put(&self, request: &Request, key: &str) -> Result<Request, NoPlace> {
        let mut request = request.clone();
        match self {
            Self::Header(_) => {}
            Self::Json(pointer) => request.body = put_member(text_of(&request)?, pointer, key)?,
            Self::Query(name) => request.target = put_pair(&request.target, name, key),
        }
        Ok(request)
    }
}

fn text_of(request: &Request) -> Result<&str, NoPlace> {
    let coding = request.headers.get("content-encoding");
    if coding.is_some_and(|coding| coding.as_ref() != b"identity") {
        return Err(NoPlace::NotAnObject);
    }
    std::str::from_utf8(&request.body).map_err(|_| NoPlace::NotAnObject)
}

/// What a pointer leads to in a text.
enum Found<'a> {
    /// A member that is there: its value, and where that begins.
    Member { value: &'a str, at: usize },
    /// An object without it: where its members begin, and whether it has any.
    Room { at: usize, has_more: bool },
}

fn find<'a>(text: &'a str, pointer: &str) -> Result<Found<'a>, NoPlace> {
    let mut here: &'a str = text.trim_ascii();
    let mut names = pointer.split('/').skip(1).peekable();
    loop {
        let name = names.next().ok_or(NoPlace::NoParent)?;
        let name = name.replace("~1", "/").replace("~0", "~");
        let members = members(here)?;
        let found = members.iter().find(|(other, _)| *other == name).map(|(_, value)| value.get());
        match (found, names.peek()) {
            (Some(value), None) => return Ok(Found::Member { value, at: offset(text, value) }),
            (Some(value), Some(_)) if value.starts_with('{') => here = value,
            (None, None) => {
                // The object opens with its first byte.
                let at = offset(text, here) + 1;
                return Ok(Found::Room { at, has_more: !members.is_empty() });
            }
            (_, Some(_)) => return Err(NoPlace::NoParent),
        }
    }
}

/// Where `part` begins in `whole`, which it is a part of.
fn offset(whole: &str, part: &str) -> usize {
    part.as_ptr().addr() - whole.as_ptr().addr()
}

type Members<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

/// The members of an object, in order. A name that stands twice is refused: parsers disagree on
/// which of the two counts.
fn members(text: &str) -> Result<Members<'_>, NoPlace> {
    struct Object;
    impl<'de> Visitor<'de> for Object {
        type Value = Members<'de>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(member) = map.next_entry::<String, &'de RawValue>()? {
                members.push((Cow::Owned(member.0), member.1));
            }
            Ok(members)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let members = reader.deserialize_map(Object).map_err(|_| NoPlace::NotAnObject)?;
    reader.end().map_err(|_| NoPlace::NotAnObject)?;
    let mut names: Vec<_> = members.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(NoPlace::NotAnObject);
    }
    Ok(members)
}

fn put_member(text: &str, pointer: &str, key: &str) -> Result<Bytes, NoPlace> {
    let quoted = serde_json::Value::from(key).to_string();
    let (before, put, after) = match find(text, pointer)? {
        Found::Member { value, at } => (&text[..at], quoted, &text[at + value.len()..]),
        Found::Room { at, has_more } => {
            let name = pointer.rsplit('/').next().unwrap_or_default();
            let name = serde_json::Value::from(name.replace("~1", "/").replace("~0", "~"));
            let comma = if has_more { "," } else { "" };
            (&text[..at], format!("{name}:{quoted}{comma}"), &text[at..])
        }
    };
    Ok([before, &put, after].concat().into())
}

/// The pairs of a query, values decoded.
fn pairs(target: &str) -> impl Iterator<Item = (&str, String)> {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    query.split('&').filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        Some((name, unescaped(value)))
    })
}

fn put_pair(target: &str, name: &str, key: &str) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let is_other = |pair: &&str| pair.split('=').next() != Some(name) && !pair.is_empty();
    let mut pairs: Vec<String> = query.split('&').filter(is_other).map(str::to_owned).collect();
    pairs.push(format!("{name}={}", escaped(key, b"")));
    format!("{path}?{}", pairs.join("&"))
}

/// `value` with every byte escaped (RFC 3986) that is neither unreserved nor in `kept`.
pub fn escaped(value: &str, kept: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.contains(&byte) {
            text.push(byte as char);
        } else {
            // Writing into a string does not fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

fn unescaped(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let code = (*first == b'%')
            .then(|| more.get(..2).and_then(|two| std::str::from_utf8(two).ok()))
            .flatten()
            .and_then(|two| u8::from_str_radix(two, 16).ok());
        rest = if code.is_some() { &more[2..] } else { more };
        bytes.push(code.unwrap_or(*first));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Headers;
    use proptest::prelude::*;

    fn request(target: &str, body: &str) -> Request {
        let (method, headers) = ("POST".to_owned(), Headers::default());
        Request { method, target: target.to_owned(), headers, body: body.to_owned().into() }
    }

    fn put(place: &str, body: &str) -> Result<String, NoPlace> {
        let place = KeyPlace::from_text(place);
        let put = place.put(&request("/v2/payments", body), "k\"1")?;
        assert_eq!(
            place.own(&put).unwrap().as_deref(),
            Some("k\"1"),
            "it is found where it was put"
        );
        Ok(String::from_utf8(put.body.to_vec()).unwrap())
    }

    #[test]
    fn a_key_is_laid_into_a_body_whose_other_bytes_stay() {
        for (place, body, sent) in [
            ("/key", "{}", r#"{"key":"k\"1"}"#),
            (
                "/key",
                " {\n \"n\": 1.10, \"a\": {} }",
                " {\"key\":\"k\\\"1\",\n \"n\": 1.10, \"a\": {} }",
            ),
            (
                "/key",
                r#"{"a":1, "key" : "old" , "n":90071992547409931}"#,
                r#"{"a":1, "key" : "k\"1" , "n":90071992547409931}"#,
            ),
            (
                "/variables/key",
                r#"{"query":"…","variables":{"a":1}}"#,
                r#"{"query":"…","variables":{"key":"k\"1","a":1}}"#,
            ),
            ("/a~1b", r#"{"a/b":"x"}"#, r#"{"a/b":"k\"1"}"#),
        ] {
            assert_eq!(put(place, body).as_deref(), Ok(sent), "{body}");
        }
    }

    #[test]
    fn a_body_without_a_place_is_told_from_one_with() {
        for (body, why) in [
            ("", NoPlace::NotAnObject),
            ("[1]", NoPlace::NotAnObject),
            ("a=1&b=2", NoPlace::NotAnObject),
            (r#"{"a":1} x"#, NoPlace::NotAnObject),
            (r#"{"variables":{},"variables":{}}"#, NoPlace::NotAnObject),
            ("{}", NoPlace::NoParent),
            (r#"{"variables":null}"#, NoPlace::NoParent),
        ] {
            assert_eq!(put("/variables/key", body), Err(why), "{body}");
        }
        let place = KeyPlace::from_text("/key");
        assert_eq!(place.own(&request("/", r#"{"key":7}"#)), Err(NoPlace::NotText));
        assert_eq!(place.own(&request("/", r#"{"key":"\u0061"}"#)), Ok(Some("a".into())));
        let mut packed = request("/", "{}");
        packed.headers.set("content-encoding", "gzip");
        assert_eq!(place.own(&packed), Err(NoPlace::NotAnObject));
    }

    #[test]
    fn a_key_stands_once_in_a_query() {
        let place = KeyPlace::from_text("?requestId");
        for (target, own, sent) in [
            ("/a", None, "/a?requestId=k%20%261"),
            ("/a?x=1&y", None, "/a?x=1&y&requestId=k%20%261"),
            ("/a?requestId=a%20b&x=1", Some("a b"), "/a?x=1&requestId=k%20%261"),
        ] {
            let request = request(target, "");
            assert_eq!(place.own(&request).unwrap().as_deref(), own, "{target}");
            assert_eq!(place.put(&request, "k &1").unwrap().target, sent);
        }
    }

    #[test]
    fn a_place_reads_back_as_it_was_written() {
        for text in ["idempotency-key", "/idempotency_key", "?requestId"] {
            assert_eq!(KeyPlace::from_text(text).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn any_body_has_a_place_or_has_none(body in "[{}\\[\\]\"a:, 0-9\\\\]{0,24}", key in "[ -~]{1,20}") {
            for place in ["/a", "/a/b"] {
                let place = KeyPlace::from_text(place);
                let request = request("/", &body);
                if let Ok(put) = place.put(&request, &key) {
                    prop_assert_eq!(place.own(&put).unwrap(), Some(key.clone()));
                    prop_assert_eq!(&place.put(&request, &key).unwrap().body, &put.body);
                    prop_assert_eq!(&place.put(&put, &key).unwrap().body, &put.body);
                }
            }
        }

        #[test]
        fn any_query_is_read(query in ".{0,40}", key in "[ -~]{1,20}") {
            let place = KeyPlace::Query("k".into());
            let put = place.put(&request(&format!("/a?{query}"), ""), &key).unwrap();
            prop_assert_eq!(place.own(&put).unwrap(), Some(key));
        }
    }
}
