//! Whose intent this is: the idempotency key, and the scope within which it is unique.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 255;

/// An idempotency key: 1 to 255 visible bytes, parsed once and trusted from then on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(String);

/// Why a key was refused. It is never ignored: an ignored key is an unprotected effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Nothing between the quotes, or no value at all.
    #[error("the key is empty")]
    Empty,
    /// More than [`KEY_BYTES_MAX`] bytes.
    #[error("the key is longer than {KEY_BYTES_MAX} bytes")]
    TooLong,
    /// Neither a structured-field string (RFC 9651, section 3.3.3) nor a bare token.
    #[error("the key is neither a quoted string nor a bare token of visible ASCII")]
    Malformed,
    /// More than one field line, or lines that disagree.
    #[error("the request carries more than one key")]
    Several,
}

impl Key {
    /// Reads a key from the lines of its header. `"abc"` and `abc` are one key.
    pub fn from_field<'a>(
        lines: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Option<Self>, KeyError> {
        let mut lines = lines.into_iter();
        let Some(line) = lines.next() else {
            return Ok(None);
        };
        if lines.next().is_some() {
            return Err(KeyError::Several);
        }
        let line =
            std::str::from_utf8(line).map_err(|_| KeyError::Malformed)?.trim_matches([' ', '\t']);
        if let Some(rest) = line.strip_prefix('"') {
            return Self::new(&unquote(rest)?).map(Some);
        }
        if is_bare(line) { Self::new(line).map(Some) } else { Err(KeyError::Malformed) }
    }

    /// A key from its bare value. Spaces are allowed only where the value came quoted.
    pub fn new(value: &str) -> Result<Self, KeyError> {
        if value.is_empty() {
            return Err(KeyError::Empty);
        }
        if value.len() > KEY_BYTES_MAX {
            return Err(KeyError::TooLong);
        }
        if !value.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) || value.trim() != value {
            return Err(KeyError::Malformed);
        }
        Ok(Self(value.to_owned()))
    }

    /// The key, without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key as a header carries it on: bare, or quoted where bare it would not read as the
    /// same key.
    pub fn to_field(&self) -> String {
        if is_bare(&self.0) {
            return self.0.clone();
        }
        format!("\"{}\"", self.0.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `value` can stand in a field without quotes: what a list, a string or a second word
/// begins with would be read otherwise by others.
fn is_bare(value: &str) -> bool {
    !value.contains(['"', ',', '\\', ' ', '\t'])
}

/// The rest of an sf-string after its opening quote; parameters after it are ignored.
fn unquote(rest: &str) -> Result<String, KeyError> {
    let mut value = String::new();
    let mut letters = rest.chars();
    loop {
        match letters.next().ok_or(KeyError::Malformed)? {
            '"' => break,
            '\\' => match letters.next() {
                Some(escaped @ ('"' | '\\')) => value.push(escaped),
                _ => return Err(KeyError::Malformed),
            },
            letter => value.push(letter),
        }
    }
    match letters.as_str().trim_start_matches([' ', '\t']) {
        "" => Ok(value),
        parameters if parameters.starts_with(';') => Ok(value),
        _ => Err(KeyError::Malformed),
    }
}

/// Which kind of name a scope's key is: keys that the machine makes never meet a caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScopeKind {
    /// A caller's key on a route or an ad hoc upstream.
    Call,
    /// What a route calls one effect, whatever its key.
    Unique,
    /// A key made of an operation and a state, which tells of it.
    Callback,
    /// A key of somebody else's handler, which begins and completes the effect itself.
    Claim,
    /// A publisher's key of an event.
    Event,
    /// A key made of an event and a subscription: the one is delivered to the other.
    Delivery,
}

impl ScopeKind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Call, Self::Unique, Self::Callback, Self::Claim, Self::Event, Self::Delivery];

    /// The word for it in answers and requests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Unique => "unique",
            Self::Callback => "callback",
            Self::Claim => "claim",
            Self::Event => "event",
            Self::Delivery => "delivery",
        }
    }
}

/// The tenant of whoever names none.
pub const TENANT: &str = "default";

/// Within what a key is unique. Two scopes that differ in any member share nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    /// Which kind of key.
    pub kind: ScopeKind,
    /// Whose data.
    pub tenant: String,
    /// The name of the route, the source or the outbox, or one that several of them share; the
    /// origin of an ad hoc upstream.
    pub name: String,
    /// Who asks: a stable name, never a credential. Empty where callers do not differ.
    pub principal: String,
}

/// A scope and a key in 16 bytes: what the ledger's unique index holds. Not keyed, so that all
/// nodes and all ages of a ledger agree on it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyDigest(pub [u8; 16]);

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Scope {
    /// The digest of `key` within this scope. Every member is preceded by its length, so that
    /// no two scopes run together.
    pub fn digest(&self, key: &Key) -> KeyDigest {
        let kind = match self.kind {
            ScopeKind::Call => 1u8,
            ScopeKind::Unique => 2,
            ScopeKind::Callback => 3,
            ScopeKind::Claim => 4,
            ScopeKind::Event => 5,
            ScopeKind::Delivery => 6,
        };
        let mut hash = Sha256::new();
        hash.update([1, kind]);
        for member in [&self.tenant, &self.name, &self.principal, &key.0] {
            hash.update((member.len() as u64).to_be_bytes());
            hash.update(member.as_bytes());
        }
        let mut digest = [0; 16];
        digest.copy_from_slice(&hash.finalize()[..16]);
        KeyDigest(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(lines: &[&str]) -> Result<Option<String>, KeyError> {
        Key::from_field(lines.iter().map(|line| line.as_bytes())).map(|key| key.map(|key| key.0))
    }

    #[test]
    fn a_quoted_key_and_a_bare_one_are_the_same() {
        assert_eq!(read(&["\"abc\""]), Ok(Some("abc".into())));
        assert_eq!(read(&["abc"]), Ok(Some("abc".into())));
        assert_eq!(read(&["  \"a b\";v=1 "]), Ok(Some("a b".into())));
        assert_eq!(read(&[r#""a\"\\b""#]), Ok(Some("a\"\\b".into())));
        assert_eq!(read(&[]), Ok(None));
    }

    #[test]
    fn a_key_is_carried_on_bare_where_it_reads_back_so_and_quoted_else() {
        for (key, field) in [
            ("abc", "abc"),
            ("a;b=1", "a;b=1"),
            ("a b", "\"a b\""),
            ("a,b", "\"a,b\""),
            (r#"a"\b"#, r#""a\"\\b""#),
        ] {
            assert_eq!(Key::new(key).unwrap().to_field(), field);
            assert_eq!(read(&[field]), Ok(Some(key.into())));
        }
    }

    #[test]
    fn a_malformed_key_is_refused_and_never_ignored() {
        for (lines, error) in [
            (vec![""], KeyError::Empty),
            (vec!["\"\""], KeyError::Empty),
            (vec!["a", "a"], KeyError::Several),
            (vec!["a,b"], KeyError::Malformed),
            (vec!["\"abc"], KeyError::Malformed),
            (vec!["\"abc\" x"], KeyError::Malformed),
            (vec!["\"abc\"\u{a0}"], KeyError::Malformed),
            (vec!["order 1"], KeyError::Malformed),
            (vec!["a\u{e9}"], KeyError::Malformed),
            (vec!["a\u{1}"], KeyError::Malformed),
        ] {
            assert_eq!(read(&lines), Err(error), "{lines:?}");
        }
        assert_eq!(read(&[&"k".repeat(255)]).map(|key| key.is_some()), Ok(true));
        assert_eq!(read(&[&"k".repeat(256)]), Err(KeyError::TooLong));
    }

    proptest! {
        #[test]
        fn no_two_scopes_share_a_key(a in ".{0,4}", b in ".{0,4}", c in ".{0,4}", d in ".{0,4}") {
            let key = Key::new("k").unwrap();
            let scope = |tenant: &str, name: &str| Scope {
                kind: ScopeKind::Call, tenant: tenant.into(), name: name.into(), principal: String::new(),
            };
            let same = (&a, &b) == (&c, &d);
            prop_assert_eq!(scope(&a, &b).digest(&key) == scope(&c, &d).digest(&key), same);
        }

        #[test]
        fn any_bytes_parse_or_are_refused(line in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(Some(key)) = Key::from_field([line.as_slice()]) {
                prop_assert!(!key.as_str().is_empty() && key.as_str().len() <= KEY_BYTES_MAX);
            }
        }
    }
}
