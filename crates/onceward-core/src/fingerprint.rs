//! What makes two requests the same request.
//!
//! A fingerprint is keyed (HMAC-SHA-256), because a plain digest of a short body is an oracle
//! for it, and is kept in parts, so that a mismatch can say which part differs without a value.

mod json;

use std::borrow::Cow;
use std::fmt;

use hmac::digest::Key;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::exchange::{Headers, Request};

pub use json::{canonical_json, differing_paths};
pub(crate) use json::{decimal, numbers};

type Hasher = Hmac<Sha256>;

/// The secret under which fingerprints are made; one per ledger.
#[derive(Clone)]
pub struct FingerprintSecret(Hasher);

impl FingerprintSecret {
    /// The secret of these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        // The block of SHA-256 is longer: HMAC fills it up with zeros.
        let mut block = Key::<Hasher>::default();
        block[..bytes.len()].copy_from_slice(&bytes);
        Self(Hasher::new(&block))
    }
}

impl fmt::Debug for FingerprintSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FingerprintSecret(…)")
    }
}

/// How a request is compared with the one that its key was first used for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FingerprintRule {
    /// How bodies are compared.
    pub body: BodyRule,
    /// Header names (lower case) that count beside the fixed ones.
    pub headers: Vec<String>,
    /// JSON pointers whose values do not count (RFC 6901).
    pub ignore: Vec<String>,
    /// Whether the query counts.
    pub query: QueryRule,
}

/// How bodies are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BodyRule {
    /// JSON in canonical form where that is safe, multipart by its parts, else bytes.
    #[default]
    Auto,
    /// Bytes.
    Raw,
    /// Not at all.
    None,
}

/// Whether the query counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueryRule {
    /// As it stands.
    #[default]
    Raw,
    /// Not at all.
    None,
}

/// A part of a request that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Method and path.
    Target,
    /// The query.
    Query,
    /// Content type and the headers that count.
    Headers,
    /// The body.
    Body,
}

impl Part {
    /// All parts, in the order in which a fingerprint keeps them.
    pub const ALL: [Self; 4] = [Self::Target, Self::Query, Self::Headers, Self::Body];

    /// The part's name in a problem.
    pub fn name(self) -> &'static str {
        match self {
            Self::Target => "method or path",
            Self::Query => "query",
            Self::Headers => "headers",
            Self::Body => "body",
        }
    }
}

/// The digest of what must be equal for "the same request", in four parts of 128 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    /// Which rule made it: fingerprints of two rules say nothing about each other, and the requests
    /// are compared under one.
    pub version: u8,
    /// The parts, in the order of [`Part::ALL`].
    pub parts: [[u8; 16]; 4],
}

/// The version of the rules in this file.
const VERSION: u8 = 1;

/// Headers that always count: they change what the same body means or when it applies.
const CONDITIONAL: [&str; 3] = ["if-match", "if-none-match", "if-unmodified-since"];

/// Headers that count of a mail that is whole: whom it is from and for is said there, and nowhere in it.
const ENVELOPE: [&str; 2] = ["mail-from", "rcpt-to"];

impl Fingerprint {
    /// The fingerprint of `request` under `rule`. The upstream's address is no part of it:
    /// services move, keys stay good.
    pub fn of(request: &Request, rule: &FingerprintRule, secret: &FingerprintSecret) -> Self {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let target = digest(secret, Part::Target, |mac| {
            field(mac, request.method.as_bytes());
            field(mac, upper_case_escapes(path).as_bytes());
        });
        let query = digest(secret, Part::Query, |mac| match rule.query {
            QueryRule::Raw => field(mac, query.as_bytes()),
            QueryRule::None => {}
        });
        let headers = digest(secret, Part::Headers, |mac| {
            let kind = essence(&request.headers);
            field(mac, kind.as_bytes());
            let is_mail = kind.split(';').next() == Some("message/rfc822");
            let envelope = ENVELOPE.into_iter().filter(|_| is_mail);
            let listed = rule.headers.iter().map(String::as_str);
            for name in CONDITIONAL.into_iter().chain(envelope).chain(listed) {
                for value in request.headers.all(name) {
                    field(mac, name.as_bytes());
                    field(mac, value);
                }
            }
        });
        let body = digest(secret, Part::Body, |mac| match rule.body {
            BodyRule::None => {}
            BodyRule::Raw | BodyRule::Auto => field(mac, &request.body),
        });
        Self { version: rule.version(), parts: [target, query, headers, body] }
    }

    /// The parts in which two requests differ; empty where they are the same request.
    pub fn differs_from(&self, other: &Self) -> Vec<Part> {
        if self.version != other.version {
            return Part::ALL.to_vec();
        }
        let pairs = self.parts.iter().zip(&other.parts).zip(Part::ALL);
        pairs.filter(|((mine, theirs), _)| mine != theirs).map(|(_, part)| part).collect()
    }
}

impl FingerprintRule {
    /// Which rule this is: [`VERSION`] for the one that holds where nothing is said, and else seven
    /// bits of its digest.
    fn version(&self) -> u8 {
        if *self == Self::default() {
            return VERSION;
        }
        let mut hash = Sha256::new();
        hash.update([VERSION, self.body as u8, self.query as u8]);
        for list in [&self.headers, &self.ignore] {
            hash.update((list.len() as u64).to_be_bytes());
            for entry in list {
                hash.update((entry.len() as u64).to_be_bytes());
                hash.update(entry.as_bytes());
            }
        }
        0x80 | hash.finalize()[0]
    }
}

fn digest(secret: &FingerprintSecret, part: Part, feed: impl FnOnce(&mut Hasher)) -> [u8; 16] {
    let mut mac = secret.0.clone();
    mac.update(&[VERSION, part as u8]);
    feed(&mut mac);
    let mut short = [0; 16];
    short.copy_from_slice(&mac.finalize().into_bytes()[..16]);
    short
}

/// Length first, so that no two lists of fields read the same.
fn field(mac: &mut Hasher, bytes: &[u8]) {
    mac.update(&(bytes.len() as u64).to_be_bytes());
    mac.update(bytes);
}

/// Whether two bodies that are not the same bytes say the same under `rule`. Looked at only where
/// a fingerprint differs in nothing but the body: the bytes of a retry are the same nearly always,
/// and a canonical form costs more than all the rest of a fingerprint.
pub fn is_same_body(a: &Request, b: &Request, rule: &FingerprintRule) -> bool {
    match rule.body {
        BodyRule::None => true,
        BodyRule::Raw => a.body == b.body,
        BodyRule::Auto => {
            a.body == b.body || meaning(a, rule).is_some_and(|this| Some(this) == meaning(b, rule))
        }
    }
}

/// What a body says, where that is more than its bytes: canonical JSON, or a form's parts.
fn meaning(request: &Request, rule: &FingerprintRule) -> Option<Vec<Vec<u8>>> {
    let coding = request.headers.get("content-encoding");
    if coding.is_some_and(|coding| coding.as_ref() != b"identity") {
        return None;
    }
    let kind = essence(&request.headers);
    if is_json(&kind) {
        return Some(vec![canonical_json(&request.body, &rule.ignore)?]);
    }
    if !kind.starts_with("multipart/") {
        return None;
    }
    // A retry of the same form draws a new boundary, so only what stands between counts.
    let mark = format!("--{}", boundary(&request.headers)?);
    Some(split(&request.body, mark.as_bytes()).map(<[u8]>::to_vec).collect())
}

fn is_json(essence: &str) -> bool {
    essence.starts_with("application/json")
        || essence.split(';').next().is_some_and(|kind| kind.ends_with("+json"))
}

/// The media type and its charset, in lower case; other parameters do not change the meaning.
fn essence(headers: &Headers) -> Cow<'_, str> {
    let value = headers.text("content-type").unwrap_or_default().trim();
    if !value.contains(|sign: char| sign == ';' || sign.is_ascii_uppercase()) {
        return Cow::Borrowed(value);
    }
    let mut pieces = value.split(';').map(|piece| piece.trim().to_ascii_lowercase());
    let kind = pieces.next().unwrap_or_default();
    match pieces.find(|piece| piece.starts_with("charset=")) {
        Some(charset) => format!("{kind};{}", charset.replace('"', "")).into(),
        None => kind.into(),
    }
}

fn boundary(headers: &Headers) -> Option<String> {
    let value = headers.text("content-type")?;
    let found = value
        .split(';')
        .map(str::trim)
        .find(|piece| piece.to_ascii_lowercase().starts_with("boundary="))?;
    Some(found["boundary=".len()..].trim_matches('"').to_owned())
        .filter(|boundary| !boundary.is_empty())
}

fn split<'a>(body: &'a [u8], mark: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = Some(body);
    std::iter::from_fn(move || {
        let here = rest?;
        match here.windows(mark.len()).position(|window| window == mark) {
            Some(at) => {
                rest = Some(&here[at + mark.len()..]);
                Some(&here[..at])
            }
            None => rest.take(),
        }
    })
}

/// `%2f` and `%2F` are one path; nothing else about it is rewritten.
fn upper_case_escapes(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut upper = 0;
    path.chars()
        .map(|letter| {
            let escaped = upper > 0;
            upper = if letter == '%' { 2 } else { upper - i32::from(escaped) };
            if escaped { letter.to_ascii_uppercase() } else { letter }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn secret() -> FingerprintSecret {
        FingerprintSecret::new([7; 32])
    }

    fn request(kind: &str, body: &str) -> Request {
        Request {
            method: "POST".into(),
            target: "/orders?a=1".into(),
            headers: Headers(vec![(
                "content-type".into(),
                Bytes::copy_from_slice(kind.as_bytes()),
            )]),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    fn is_same(a: &Request, b: &Request, rule: &FingerprintRule) -> bool {
        let print = |request: &Request| Fingerprint::of(request, rule, &secret());
        let differing = print(a).differs_from(&print(b));
        differing.is_empty() || (differing == [Part::Body] && is_same_body(a, b, rule))
    }

    fn is_same_json(a: &str, b: &str) -> bool {
        let json = |body| request("application/json", body);
        is_same(&json(a), &json(b), &FingerprintRule::default())
    }

    #[test]
    fn the_same_json_spelt_otherwise_is_the_same_request() {
        let spelt_out = "{ \"a\": [true, \"é\"], \"b\": 1 }\n";
        assert!(is_same_json(r#"{"b":1.0,"a":[true,"\u00e9"]}"#, spelt_out));
        assert!(is_same_json(r#"{"a":0.10}"#, r#"{"a":0.1}"#));
    }

    #[test]
    fn two_payments_never_look_alike() {
        for (a, b) in [
            (r#"{"n":9007199254740993}"#, r#"{"n":9007199254740992}"#),
            (r#"{"n":0.1000000000000000055}"#, r#"{"n":0.1}"#),
            (r#"{"n":1,"n":2}"#, r#"{"n":2}"#),
            (r#"{"n":1,"\u006e":2}"#, r#"{"n":2}"#),
            ("{\"s\":\"A\u{30a}\"}", "{\"s\":\"\u{c5}\"}"),
            (r#"{"n":1e999}"#, r#"{"n":1e998}"#),
            (r#"{"n":"1"}"#, r#"{"n":1}"#),
        ] {
            assert!(!is_same_json(a, b), "{a} {b}");
        }
    }

    #[test]
    fn each_part_that_differs_is_named() {
        let rule = FingerprintRule {
            headers: vec!["stripe-version".into()],
            ..FingerprintRule::default()
        };
        let first = request("application/json", "{}");
        let print = |request: &Request| Fingerprint::of(request, &rule, &secret());
        let differs = |change: fn(&mut Request)| {
            let mut other = first.clone();
            change(&mut other);
            print(&other).differs_from(&print(&first))
        };
        assert_eq!(differs(|r| r.method = "PUT".into()), [Part::Target]);
        assert_eq!(differs(|r| r.target = "/orders?a=2".into()), [Part::Query]);
        assert_eq!(differs(|r| r.headers.set("stripe-version", "2")), [Part::Headers]);
        assert_eq!(differs(|r| r.headers.set("if-match", "\"1\"")), [Part::Headers]);
        assert_eq!(differs(|r| r.headers.set("authorization", "other")), []);
        assert_eq!(differs(|r| r.target = "/Orders?a=1".into()), [Part::Target]);
    }

    #[test]
    fn a_form_with_another_boundary_is_the_same_form() {
        let form = |boundary: &str| {
            let body = format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--{boundary}--\r\n"
            );
            request(&format!("multipart/form-data; boundary={boundary}"), &body)
        };
        assert!(is_same(&form("x1"), &form("y22"), &FingerprintRule::default()));
    }

    #[test]
    fn what_a_rule_ignores_does_not_count() {
        let rule = FingerprintRule {
            ignore: vec!["/id".into(), "/a/0".into()],
            ..FingerprintRule::default()
        };
        let json = |body| request("application/json", body);
        assert!(is_same(&json(r#"{"id":1,"a":[1,2]}"#), &json(r#"{"id":2,"a":[7,2]}"#), &rule));
        assert!(!is_same(&json(r#"{"id":1,"a":[1,2]}"#), &json(r#"{"id":1,"a":[1,3]}"#), &rule));
    }

    #[test]
    fn each_rule_has_its_own_version_and_the_default_one_keeps_its() {
        let rules = [
            FingerprintRule::default(),
            FingerprintRule { body: BodyRule::Raw, ..FingerprintRule::default() },
            FingerprintRule { query: QueryRule::None, ..FingerprintRule::default() },
            FingerprintRule { headers: vec!["a".into()], ..FingerprintRule::default() },
            FingerprintRule { ignore: vec!["a".into()], ..FingerprintRule::default() },
        ];
        let one = request("text/plain", "1");
        let versions = rules.map(|rule| Fingerprint::of(&one, &rule, &secret()).version);
        assert_eq!(versions[0], VERSION);
        let mut different = versions.to_vec();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), versions.len());
    }

    #[test]
    fn another_secret_makes_another_fingerprint() {
        let one = request("text/plain", "1234");
        let rule = FingerprintRule::default();
        assert_ne!(
            Fingerprint::of(&one, &rule, &secret()),
            Fingerprint::of(&one, &rule, &FingerprintSecret::new([8; 32]))
        );
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_fingerprint(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut one = request("application/json", "");
            one.body = body.into();
            let print = Fingerprint::of(&one, &FingerprintRule::default(), &secret());
            prop_assert_eq!(print, Fingerprint::of(&one, &FingerprintRule::default(), &secret()));
        }

        #[test]
        fn different_integers_never_share_a_canonical_form(a in any::<i64>(), step in 1i64..4) {
            let b = a.wrapping_add(step);
            prop_assert!(!is_same_json(&a.to_string(), &b.to_string()));
        }
    }
}
