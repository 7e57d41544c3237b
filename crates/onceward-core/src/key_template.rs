//! Keys made of the request: `{json:/user}:{json:/plan}:{date}`.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::exchange::Request;
use crate::hex;
use crate::key::{KEY_BYTES_MAX, Key};
use crate::time::Timestamp;

/// The longest template, in bytes.
pub const TEMPLATE_BYTES_MAX: usize = 1000;

/// A template that makes a key of a request. What it puts in is percent-encoded but for letters,
/// digits, `-`, `.`, `_` and `~`, and between two values stands a sign that no value has, so that
/// two requests with different values never get one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTemplate(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value(Variable),
}

/// What a template can put in.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Variable {
    /// A text, a whole number, true or false in a JSON body (RFC 6901).
    Json(String),
    /// A header, by its name in lower case.
    Header(String),
    /// A parameter of the query, as it stands there.
    Query(String),
    Method,
    Path,
    /// The day in UTC: a retry on the next day is another key.
    Date,
    /// The day and hour in UTC.
    Hour,
}

/// Why a template cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAKeyTemplate {
    /// Empty, too long, or with other signs than visible ASCII.
    #[error("a template has 1 to {TEMPLATE_BYTES_MAX} signs of visible ASCII")]
    Length,
    /// `{` without `}`, or the other way round.
    #[error("a template has {{ and }} in pairs")]
    Braces,
    /// A variable that there is not.
    #[error(
        "{{{0}}} is no variable: json:/pointer, header:name, query:name, method, path, date or hour"
    )]
    Unknown(String),
    /// Two values that run together.
    #[error("between two variables stands a sign that no value has, such as `:`")]
    Together,
    /// Every request would get one key.
    #[error("a template without a variable makes one key for all")]
    Constant,
}

/// What a request lacks for its key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the request has no usable {0}")]
pub struct Missing(pub String);

impl KeyTemplate {
    /// Reads a template.
    pub fn read(text: &str) -> Result<Self, NotAKeyTemplate> {
        let fits = (1..=TEMPLATE_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !fits {
            return Err(NotAKeyTemplate::Length);
        }
        let mut pieces: Vec<Piece> = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some(inside) = rest.strip_prefix('{') {
                let (name, after) = inside.split_once('}').ok_or(NotAKeyTemplate::Braces)?;
                pieces.push(Piece::Value(Variable::new(name)?));
                rest = after;
                continue;
            }
            let end = rest.find(['{', '}']).unwrap_or(rest.len());
            if end == 0 {
                return Err(NotAKeyTemplate::Braces);
            }
            pieces.push(Piece::Text(rest[..end].to_owned()));
            rest = &rest[end..];
        }
        let is_value = |piece: &Piece| matches!(piece, Piece::Value(_));
        if !pieces.iter().any(is_value) {
            return Err(NotAKeyTemplate::Constant);
        }
        // Between the first value and the last, every text parts two of them.
        let values = pieces.iter().position(is_value).zip(pieces.iter().rposition(is_value));
        let between = values.map_or(&[][..], |(first, last)| &pieces[first..=last]);
        let parts = |piece: &Piece| matches!(piece, Piece::Text(text) if text.bytes().any(parts));
        if between.chunks(2).any(|pair| pair.len() == 2 && !parts(&pair[1])) {
            return Err(NotAKeyTemplate::Together);
        }
        Ok(Self(pieces))
    }

    /// The key that this makes of `request`, received at `now`. One that would be longer than a key
    /// may be is the SHA-256 of what it would be.
    pub fn key(&self, request: &Request, now: Timestamp) -> Result<Key, Missing> {
        let text = self.render(request, now)?;
        let text = if text.len() > KEY_BYTES_MAX { hashed(&text) } else { text };
        Key::new(&text).map_err(|_| Missing("key".to_owned()))
    }

    /// The same at any length.
    pub fn render(&self, request: &Request, now: Timestamp) -> Result<String, Missing> {
        let mut body = None;
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Value(variable) => {
                    let value = variable
                        .of(request, now, &mut body)
                        .filter(|value| !value.is_empty())
                        .ok_or_else(|| Missing(variable.name()))?;
                    encode(&value, &mut text);
                }
            }
        }
        Ok(text)
    }
}

impl Variable {
    fn new(text: &str) -> Result<Self, NotAKeyTemplate> {
        let unknown = || NotAKeyTemplate::Unknown(text.to_owned());
        let (kind, name) = text.split_once(':').unwrap_or((text, ""));
        let variable = match kind {
            "json" if name.starts_with('/') => Self::Json(name.to_owned()),
            "header" if !name.is_empty() => Self::Header(name.to_ascii_lowercase()),
            "query" if !name.is_empty() => Self::Query(name.to_owned()),
            "method" if text == "method" => Self::Method,
            "path" if text == "path" => Self::Path,
            "date" if text == "date" => Self::Date,
            "hour" if text == "hour" => Self::Hour,
            _ => return Err(unknown()),
        };
        Ok(variable)
    }

    fn name(&self) -> String {
        match self {
            Self::Json(pointer) => format!("{pointer} in its JSON body"),
            Self::Header(name) => format!("header {name}"),
            Self::Query(name) => format!("{name} in its query"),
            Self::Method => "method".to_owned(),
            Self::Path => "path".to_owned(),
            Self::Date | Self::Hour => "time".to_owned(),
        }
    }

    /// The value; the body is read once.
    fn of(&self, request: &Request, now: Timestamp, body: &mut Option<Value>) -> Option<Vec<u8>> {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        match self {
            Self::Json(pointer) => {
                // What is no JSON has nothing in it.
                let read = || serde_json::from_slice(&request.body).unwrap_or(Value::Null);
                match body.get_or_insert_with(read).pointer(pointer)? {
                    Value::String(text) => Some(text.clone().into_bytes()),
                    // A number that is not whole may be spelt in more ways than one.
                    Value::Number(number) if number.is_i64() || number.is_u64() => {
                        Some(number.to_string().into_bytes())
                    }
                    Value::Bool(is) => Some(is.to_string().into_bytes()),
                    Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
                }
            }
            Self::Header(name) => request.headers.get(name).map(|value| value.to_vec()),
            Self::Query(name) => query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .find(|(other, _)| other == name)
                .map(|(_, value)| value.as_bytes().to_vec()),
            Self::Method => Some(request.method.clone().into_bytes()),
            Self::Path => Some(path.as_bytes().to_vec()),
            Self::Date => Some(now.date().into_bytes()),
            Self::Hour => {
                let hour = now.as_micros().div_euclid(3_600_000_000).rem_euclid(24);
                Some(format!("{}T{hour:02}", now.date()).into_bytes())
            }
        }
    }
}

/// Whether a sign parts two values: none has it.
fn parts(byte: u8) -> bool {
    byte != b'%' && !is_plain(byte)
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

fn encode(value: &[u8], text: &mut String) {
    use std::fmt::Write as _;
    for byte in value {
        if is_plain(*byte) {
            text.push(char::from(*byte));
        } else {
            // Writing into a string does not fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
}

fn hashed(text: &str) -> String {
    format!("sha256-{}", hex::encode(&Sha256::digest(text.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Headers;
    use bytes::Bytes;
    use proptest::prelude::*;

    /// 2026-01-31 23:59:59 UTC
    const NOW: Timestamp = Timestamp::from_micros(1_769_903_999_000_000);

    fn request(body: &str) -> Request {
        Request {
            method: "POST".into(),
            target: "/orders/7?plan=gold&x".into(),
            headers: Headers(vec![("x-shop".into(), Bytes::from_static(b"a:b"))]),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    fn made(template: &str, body: &str) -> Result<String, Missing> {
        KeyTemplate::read(template).unwrap().key(&request(body), NOW).map(|key| key.to_string())
    }

    #[test]
    fn a_key_is_made_of_what_the_template_names() {
        let body = r#"{"user":"anna b","n":7,"deep":{"x/y":true},"f":1.5,"none":null,"e":""}"#;
        for (template, key) in [
            ("{json:/user}:{json:/n}:{date}", "anna%20b:7:2026-01-31"),
            ("sub-{json:/deep/x~1y}", "sub-true"),
            ("{header:X-Shop}/{query:plan}", "a%3Ab/gold"),
            ("{method}:{path}:{hour}", "POST:%2Forders%2F7:2026-01-31T23"),
        ] {
            assert_eq!(made(template, body).as_deref(), Ok(key), "{template}");
        }
        for (template, lacks) in [
            ("{json:/nobody}", "/nobody in its JSON body"),
            ("{json:/f}", "/f in its JSON body"),
            ("{json:/none}", "/none in its JSON body"),
            ("{json:/deep}", "/deep in its JSON body"),
            ("{json:/e}", "/e in its JSON body"),
            ("{header:x-other}", "header x-other"),
            ("{query:x}", "x in its query"),
        ] {
            assert_eq!(made(template, body), Err(Missing(lacks.into())), "{template}");
        }
        assert!(made("{json:/user}", "no json").is_err());
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let unknown = |name: &str| NotAKeyTemplate::Unknown(name.into());
        for (template, error) in [
            ("", NotAKeyTemplate::Length),
            ("a b{date}", NotAKeyTemplate::Length),
            ("{date", NotAKeyTemplate::Braces),
            ("date}", NotAKeyTemplate::Braces),
            ("{json:user}", unknown("json:user")),
            ("{day}", unknown("day")),
            ("{date:x}", unknown("date:x")),
            ("{json:/a}{json:/b}", NotAKeyTemplate::Together),
            ("{json:/a}x{json:/b}", NotAKeyTemplate::Together),
            ("all", NotAKeyTemplate::Constant),
        ] {
            assert_eq!(KeyTemplate::read(template), Err(error), "{template}");
        }
    }

    #[test]
    fn a_key_that_would_be_too_long_is_a_digest_of_it() {
        let long = |last: char| format!(r#"{{"a":"{}{last}"}}"#, "x".repeat(300));
        let (one, other) = (made("{json:/a}", &long('1')), made("{json:/a}", &long('2')));
        assert_eq!(one.as_ref().unwrap().len(), "sha256-".len() + 64);
        assert_ne!(one, other);
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, day) in
            [(0, "1970-01-01"), (951_782_400, "2000-02-29"), (4_107_542_400, "2100-03-01")]
        {
            assert_eq!(Timestamp::from_micros(seconds * 1_000_000).date(), day);
        }
        assert_eq!(Timestamp::from_micros(-1).date(), "1969-12-31");
    }

    proptest! {
        #[test]
        fn any_text_is_a_template_or_none_and_what_is_one_renders(text in "[ -~]{0,40}") {
            if let Ok(template) = KeyTemplate::read(&text) {
                let _ = template.key(&request("{}"), NOW);
            }
        }

        #[test]
        fn two_different_requests_never_get_one_key(
            a in (".{1,200}", ".{1,200}"), b in (".{1,200}", ".{1,200}"),
        ) {
            let template = KeyTemplate::read("{json:/a}:{json:/b}").unwrap();
            let key = |(a, b): &(String, String)| {
                template.key(&request(&serde_json::json!({"a": a, "b": b}).to_string()), NOW).unwrap()
            };
            prop_assert_eq!(key(&a) == key(&b), a == b);
        }
    }
}
