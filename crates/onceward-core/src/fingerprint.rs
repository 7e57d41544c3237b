//! What makes two requests the same request.
//!
//! A fingerprint is keyed (HMAC-SHA-256), because a plain digest of a short body is an oracle
//! for it, and is kept in parts, so that a mismatch can say which part differs without a value.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::exchange::{Headers, Request};

/// The secret under which fingerprints are made; one per ledger.
#[derive(Clone)]
pub struct FingerprintSecret(pub [u8; 32]);

impl std::fmt::Debug for FingerprintSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
            field(mac, essence(&request.headers).as_bytes());
            let listed = rule.headers.iter().map(String::as_str);
            for name in CONDITIONAL.into_iter().chain(listed) {
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

type Hasher = Hmac<Sha256>;

fn digest(secret: &FingerprintSecret, part: Part, feed: impl FnOnce(&mut Hasher)) -> [u8; 16] {
    // HMAC takes a key of any length, so this cannot fail.
    let Ok(mut mac) = Hasher::new_from_slice(&secret.0) else {
        return [0; 16];
    };
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
fn essence(headers: &Headers) -> String {
    let Some(value) = headers.text("content-type") else {
        return String::new();
    };
    let mut pieces = value.split(';').map(|piece| piece.trim().to_ascii_lowercase());
    let kind = pieces.next().unwrap_or_default();
    match pieces.find(|piece| piece.starts_with("charset=")) {
        Some(charset) => format!("{kind};{}", charset.replace('"', "")),
        None => kind,
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
fn upper_case_escapes(path: &str) -> String {
    let mut upper = 0;
    path.chars()
        .map(|letter| {
            let escaped = upper > 0;
            upper = if letter == '%' { 2 } else { upper - i32::from(escaped) };
            if escaped { letter.to_ascii_uppercase() } else { letter }
        })
        .collect()
}

/// The body in the canonical form of RFC 8785 without what `ignore` points at, or nothing where
/// that form is not safe: a repeated name, or a number that is not exactly the double it reads
/// as (9007199254740993 would equal 9007199254740992, which are two payments).
pub fn canonical_json(body: &[u8], ignore: &[String]) -> Option<Vec<u8>> {
    if !numbers_are_exact(body) || has_repeated_name(body) {
        return None;
    }
    let mut value: serde_json::Value = serde_json::from_slice(body).ok()?;
    for pointer in ignore {
        remove(&mut value, pointer);
    }
    serde_json_canonicalizer::to_vec(&value).ok()
}

fn remove(value: &mut serde_json::Value, pointer: &str) {
    let Some((parent, name)) = pointer.rsplit_once('/') else {
        return;
    };
    let name = name.replace("~1", "/").replace("~0", "~");
    match value.pointer_mut(parent) {
        Some(serde_json::Value::Object(members)) => {
            members.remove(&name);
        }
        Some(serde_json::Value::Array(items)) => {
            if let Some(item) = name.parse::<usize>().ok().and_then(|at| items.get_mut(at)) {
                *item = serde_json::Value::Null;
            }
        }
        _ => {}
    }
}

/// Whether every number in this JSON text is a double to the last digit. Strings are skipped;
/// text that is not JSON is refused by the parser afterwards.
fn numbers_are_exact(text: &[u8]) -> bool {
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'"' => at = end_of_string(text, at),
            b'-' | b'0'..=b'9' => {
                let end = text[at..]
                    .iter()
                    .position(|byte| {
                        !matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')
                    })
                    .map_or(text.len(), |length| at + length);
                if !std::str::from_utf8(&text[at..end]).is_ok_and(is_exact) {
                    return false;
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    true
}

/// The index after the string that opens at `at`.
fn end_of_string(text: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while end < text.len() && text[end] != b'"' {
        end += if text[end] == b'\\' { 2 } else { 1 };
    }
    end + 1
}

/// Whether a number's decimal value is what its double prints as.
fn is_exact(number: &str) -> bool {
    let Ok(double) = number.parse::<f64>() else {
        return false;
    };
    let written = decimal(number);
    double.is_finite() && written.is_some() && written == decimal(&format!("{double:e}"))
}

/// A decimal number as its significant digits and the power of ten of the last; zero has none of
/// either. Nothing where the power is beyond counting.
fn decimal(number: &str) -> Option<(String, i64)> {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{}{fraction}", whole.trim_start_matches('-'));
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return Some((String::new(), 0));
    }
    let zeros = digits.len() - digits.trim_end_matches('0').len();
    let power = exponent.parse::<i64>().ok()?.checked_add(zeros as i64 - fraction.len() as i64)?;
    let sign = if number.starts_with('-') { "-" } else { "" };
    Some((format!("{sign}{significant}"), power))
}

/// Whether an object in this JSON text names a member twice: parsers disagree on which counts.
fn has_repeated_name(text: &[u8]) -> bool {
    // Names seen in each open object; arrays are open with no list.
    let mut open: Vec<Option<std::collections::BTreeSet<&[u8]>>> = Vec::new();
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'{' => open.push(Some(std::collections::BTreeSet::new())),
            b'[' => open.push(None),
            b'}' | b']' => {
                open.pop();
            }
            b'"' => {
                let end = end_of_string(text, at).min(text.len());
                let is_name =
                    text[end..].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':');
                if is_name {
                    let name = &text[at..end];
                    // An escaped name may equal another that is spelt out, so it is not trusted.
                    let repeated = open
                        .last_mut()
                        .and_then(Option::as_mut)
                        .is_some_and(|names| !names.insert(name));
                    if repeated || name.contains(&b'\\') {
                        return true;
                    }
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    false
}

/// JSON pointers of at most `max` places in which two JSON documents differ, and no values.
/// Empty where one of them is not JSON.
pub fn differing_paths(a: &[u8], b: &[u8], max: usize) -> Vec<String> {
    let (Ok(a), Ok(b)) = (serde_json::from_slice(a), serde_json::from_slice(b)) else {
        return Vec::new();
    };
    let mut paths = Vec::new();
    compare(&a, &b, &mut String::new(), &mut paths, max);
    paths
}

fn compare(
    a: &serde_json::Value,
    b: &serde_json::Value,
    path: &mut String,
    paths: &mut Vec<String>,
    max: usize,
) {
    use serde_json::Value::{Array, Object};
    if paths.len() >= max || a == b {
        return;
    }
    let mut descend = |name: &str,
                       a: Option<&serde_json::Value>,
                       b: Option<&serde_json::Value>,
                       path: &mut String| {
        let length = path.len();
        path.push('/');
        path.push_str(&name.replace('~', "~0").replace('/', "~1"));
        match (a, b) {
            (Some(a), Some(b)) => compare(a, b, path, paths, max),
            (None, None) => {}
            _ if paths.len() < max => paths.push(path.clone()),
            _ => {}
        }
        path.truncate(length);
    };
    match (a, b) {
        (Object(a), Object(b)) => {
            for name in a.keys().chain(b.keys().filter(|name| !a.contains_key(*name))) {
                descend(name, a.get(name), b.get(name), path);
            }
        }
        (Array(a), Array(b)) => {
            for at in 0..a.len().max(b.len()) {
                descend(&at.to_string(), a.get(at), b.get(at), path);
            }
        }
        _ => paths.push(path.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    const SECRET: FingerprintSecret = FingerprintSecret([7; 32]);

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
        let print = |request: &Request| Fingerprint::of(request, rule, &SECRET);
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
        let print = |request: &Request| Fingerprint::of(request, &rule, &SECRET);
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
        let versions = rules.map(|rule| Fingerprint::of(&one, &rule, &SECRET).version);
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
            Fingerprint::of(&one, &rule, &SECRET),
            Fingerprint::of(&one, &rule, &FingerprintSecret([8; 32]))
        );
    }

    #[test]
    fn paths_that_differ_are_named_without_values() {
        assert_eq!(
            differing_paths(
                br#"{"a":{"x":1},"l":[1,2],"gone":1}"#,
                br#"{"a":{"x":2},"l":[1,3,4],"new/":1}"#,
                10
            ),
            ["/a/x", "/gone", "/l/1", "/l/2", "/new~1"]
        );
        assert_eq!(differing_paths(b"[1,2,3]", b"[4,5,6]", 2), ["/0", "/1"]);
        assert!(differing_paths(b"x", b"{}", 2).is_empty());
    }

    proptest! {
        #[test]
        fn of_integers_that_read_as_one_double_at_most_one_is_exact(n in any::<i64>(), bits in 1u32..64, step in 1i64..2048) {
            // Of every size: most of all integers are large.
            let n = n >> bits;
            let other = n + step;
            let both = is_exact(&n.to_string()) && is_exact(&other.to_string());
            prop_assert!(!both || (n as f64).to_bits() != (other as f64).to_bits());
            prop_assert!(is_exact(&n.to_string()) || n.unsigned_abs() > 1 << 53);
        }

        #[test]
        fn what_prints_as_its_neighbour_is_not_exact(n in (1i64 << 56)..i64::MAX) {
            let printed: i128 = format!("{}", n as f64).parse().unwrap();
            prop_assert_eq!(is_exact(&n.to_string()), printed == i128::from(n));
        }

        #[test]
        fn any_bytes_have_a_fingerprint(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut one = request("application/json", "");
            one.body = body.into();
            let print = Fingerprint::of(&one, &FingerprintRule::default(), &SECRET);
            prop_assert_eq!(print, Fingerprint::of(&one, &FingerprintRule::default(), &SECRET));
        }

        #[test]
        fn different_integers_never_share_a_canonical_form(a in any::<i64>(), step in 1i64..4) {
            let b = a.wrapping_add(step);
            prop_assert!(!is_same_json(&a.to_string(), &b.to_string()));
        }
    }
}
