//! Whether two bodies are the same: an equivalence, and never wider than what the bodies say. What
//! they say is read here by a parser of its own, which keeps numbers to their last digit.

use std::collections::BTreeMap;

use bytes::Bytes;
use onceward::core::exchange::{Headers, Request};
use onceward::core::fingerprint::{FingerprintRule, canonical_json, differing_paths, is_same_body};
use onceward_fuzz::Fuzz;

/// What stands between two bodies of an input.
const BETWEEN: u8 = 0x1e;

const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"a\"",
    "\"b\"",
    "\"\\u0061\"",
    "null",
    "true",
    "1",
    "1.0",
    "10e-1",
    "-0",
    "0.1",
    "9007199254740993",
    "1e400",
    "1e-400",
    "1e-99999999999999999999",
    "1.5e-9223372036854775808",
    "0.30000000000000004",
    " ",
    "\n",
    "\x1e",
    "{\"a\":1}",
    "--b\r\n",
    "\u{feff}",
    "\"\\ud800\"",
];

/// JSON as it is written: a number is its digits without the zeros around them, and its power.
#[derive(Debug, PartialEq, Eq)]
enum Json {
    Word(&'static str),
    Number(String, i128),
    Text(String),
    List(Vec<Json>),
    Members(BTreeMap<String, Json>),
}

struct Reader<'a> {
    rest: &'a [u8],
    depth: u32,
}

impl<'a> Reader<'a> {
    fn skip(&mut self) {
        let space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        let end = self.rest.iter().position(|byte| !space(byte)).unwrap_or(self.rest.len());
        self.rest = &self.rest[end..];
    }

    fn eat(&mut self, token: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(token.as_bytes())?;
        Some(())
    }

    fn take(&mut self, while_: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| !while_(*byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn text(&mut self) -> Option<String> {
        let mut end = 1;
        while *self.rest.get(end)? != b'"' {
            end += if self.rest[end] == b'\\' { 2 } else { 1 };
        }
        let (token, rest) = self.rest.split_at(end + 1);
        self.rest = rest;
        serde_json::from_slice(token).ok()
    }

    fn number(&mut self) -> Option<Json> {
        let token = self.take(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
        serde_json::from_slice::<serde_json::Value>(token).ok()?;
        let token = std::str::from_utf8(token).ok()?;
        let (mantissa, power) = token.split_once(['e', 'E']).unwrap_or((token, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let sign = if whole.starts_with('-') { "-" } else { "" };
        let digits = format!("{}{fraction}", whole.trim_start_matches('-'));
        let plain = digits.trim_start_matches('0').trim_end_matches('0');
        if plain.is_empty() {
            return Some(Json::Number("0".to_owned(), 0));
        }
        let zeros = digits.len() - digits.trim_end_matches('0').len();
        let power: i128 = power.parse().ok()?;
        Some(Json::Number(format!("{sign}{plain}"), power - fraction.len() as i128 + zeros as i128))
    }

    /// Nothing where it is no JSON, or an object names a member twice.
    fn value(&mut self) -> Option<Json> {
        self.depth += 1;
        if self.depth > 100 {
            return None;
        }
        self.skip();
        let value = match self.rest.first()? {
            b'{' => {
                let mut members = BTreeMap::new();
                self.list("{", "}", |reader| {
                    reader.skip();
                    reader.rest.first().filter(|byte| **byte == b'"')?;
                    let name = reader.text()?;
                    reader.skip();
                    reader.eat(":")?;
                    let value = reader.value()?;
                    members.insert(name, value).is_none().then_some(())
                })?;
                Json::Members(members)
            }
            b'[' => {
                let mut items = Vec::new();
                self.list("[", "]", |reader| {
                    items.push(reader.value()?);
                    Some(())
                })?;
                Json::List(items)
            }
            b'"' => Json::Text(self.text()?),
            b'-' | b'0'..=b'9' => self.number()?,
            _ => Json::Word(
                ["null", "true", "false"].into_iter().find(|word| self.eat(word).is_some())?,
            ),
        };
        self.depth -= 1;
        Some(value)
    }

    fn list(
        &mut self,
        open: &str,
        close: &str,
        mut one: impl FnMut(&mut Self) -> Option<()>,
    ) -> Option<()> {
        self.eat(open)?;
        self.skip();
        if self.eat(close).is_some() {
            return Some(());
        }
        loop {
            one(self)?;
            self.skip();
            if self.eat(close).is_some() {
                return Some(());
            }
            self.eat(",")?;
        }
    }
}

fn json(text: &[u8]) -> Option<Json> {
    std::str::from_utf8(text).ok()?;
    let mut reader = Reader { rest: text, depth: 0 };
    let value = reader.value()?;
    reader.skip();
    reader.rest.is_empty().then_some(value)
}

fn request(kind: &str, body: &[u8]) -> Request {
    Request {
        method: "POST".to_owned(),
        target: "/".to_owned(),
        headers: Headers(vec![(
            "content-type".to_owned(),
            Bytes::copy_from_slice(kind.as_bytes()),
        )]),
        body: Bytes::copy_from_slice(body),
    }
}

#[test]
fn sameness_is_an_equivalence_and_never_wider_than_what_bodies_say() {
    let rule = FingerprintRule::default();
    Fuzz::new("body", 20_000, WORDS).run(|input| {
        let (choice, rest) = input.split_first().unwrap_or((&0, input));
        let is_json = choice % 4 != 3;
        let kind = if is_json { "application/json" } else { "multipart/form-data; boundary=b" };
        let bodies: Vec<&[u8]> = rest.split(|byte| *byte == BETWEEN).take(3).collect();
        let of = |at: usize| bodies.get(at).copied().unwrap_or_default();
        let same =
            |a: usize, b: usize| is_same_body(&request(kind, of(a)), &request(kind, of(b)), &rule);
        for at in 0..3 {
            assert!(same(at, at), "a body is the same as itself");
        }
        let pairs = [(0, 1), (0, 2), (1, 2)];
        for (a, b) in pairs {
            assert_eq!(same(a, b), same(b, a), "both ways");
            if is_json && same(a, b) && of(a) != of(b) {
                let (one, other) = (json(of(a)), json(of(b)));
                assert!(
                    one.is_some() && one == other,
                    "two payments taken for one: {one:?}, {other:?}"
                );
                let paths = differing_paths(of(a), of(b), 10);
                assert!(paths.iter().all(|path| path.starts_with('/') || path.is_empty()));
            }
            // Where both have a safe form, it decides as their values do.
            if let (Some(one), Some(other)) =
                (canonical_json(of(a), &[]), canonical_json(of(b), &[]))
            {
                assert_eq!(one == other, json(of(a)) == json(of(b)), "as what they say");
            }
        }
        let [ab, ac, bc] = pairs.map(|(a, b)| same(a, b));
        assert!(
            [ab, ac, bc].into_iter().filter(|same| *same).count() != 2,
            "the third follows from two"
        );
        (
            is_json,
            ab,
            ac,
            bc,
            json(of(0)).is_some(),
            canonical_json(of(0), &[]).is_some(),
            json(of(1)).is_some(),
        )
    });
}
