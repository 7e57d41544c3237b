//! Idempotency keys: made, written into a header, and read from one.

use http::Method;

use crate::units::to_hex;

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 255;

/// A key that nobody else has: random, 122 bits of it. Make it once for each intended effect, and
/// before whatever repeats.
pub fn new_key() -> String {
    let mut bytes = [0; 16];
    fill(&mut bytes);
    // A UUID of version 4, by RFC 9562.
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    [0..4, 4..6, 6..8, 8..10, 10..16].map(|part| to_hex(&bytes[part])).join("-")
}

/// Chance from the system.
///
/// # Panics
///
/// Where the system has none, as any process there does: a key that another has would be worse.
pub(crate) fn fill(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the system gives random bytes");
}

/// What is wrong with `key`, in words; nothing where it can be one.
fn wrong_with(key: &str) -> Option<&'static str> {
    let is_edge_blank = key.starts_with(' ') || key.ends_with(' ');
    if key.is_empty() {
        Some("the idempotency key cannot be used: it is empty")
    } else if key.len() > KEY_BYTES_MAX {
        Some("the idempotency key cannot be used: it is longer than 255 bytes")
    } else if is_edge_blank || !key.bytes().all(|letter| matches!(letter, b' '..=b'~')) {
        Some("the idempotency key cannot be used: it has other than visible letters of ASCII")
    } else {
        None
    }
}

/// `key` as a header carries it: bare, or quoted where bare it would be read as something else.
pub(crate) fn key_field(key: &str) -> Result<String, &'static str> {
    if let Some(wrong) = wrong_with(key) {
        return Err(wrong);
    }
    if !key.contains(['"', ',', '\\', ' ']) {
        return Ok(key.to_owned());
    }
    Ok(format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\"")))
}

/// The key that a header carries, or nothing where it is malformed: `"a"` and `a` are one key.
pub(crate) fn read_key(field: &str) -> Option<String> {
    let text = field.trim_matches([' ', '\t']);
    let key = match text.strip_prefix('"') {
        Some(quoted) => unquoted(quoted)?,
        None if text.contains(['"', ',', '\\', ' ', '\t']) => return None,
        None => text.to_owned(),
    };
    wrong_with(&key).is_none().then_some(key)
}

/// What stands before the closing quote; behind it only parameters may.
fn unquoted(text: &str) -> Option<String> {
    let mut key = String::new();
    let mut letters = text.chars();
    loop {
        match letters.next()? {
            '"' => break,
            '\\' => key.push(letters.next().filter(|letter| ['"', '\\'].contains(letter))?),
            letter => key.push(letter),
        }
    }
    let rest = letters.as_str().trim_start_matches([' ', '\t']);
    (rest.is_empty() || rest.starts_with(';')).then_some(key)
}

/// Whether a call by this method has no effect, so that it needs no key.
pub(crate) fn is_safe(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE].contains(method)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_so_that_it_is_read_again() {
        for key in ["a", "a \"b\" \\c", "a,b", "order/1", "\"", "\\"] {
            assert_eq!(read_key(&key_field(key).unwrap()).as_deref(), Some(key));
        }
        assert_eq!(read_key(" \"a\" ;x=1").as_deref(), Some("a"));
        assert_eq!(key_field("a b").unwrap(), "\"a b\"");
    }

    #[test]
    fn what_cannot_be_a_key_is_refused() {
        for field in ["", "\"a", "a\"b", "a b", "a, b", "é", &"x".repeat(256), "\"a\"b", "\"a\\b\""]
        {
            assert_eq!(read_key(field), None, "{field}");
        }
        for key in ["", " a", "a ", "é", "a\n", &"x".repeat(256)] {
            assert!(key_field(key).is_err(), "{key}");
        }
    }

    #[test]
    fn a_new_key_is_a_uuid_that_nobody_else_has() {
        let key = new_key();
        let lengths: Vec<_> = key.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert!(key.as_bytes()[14] == b'4' && b"89ab".contains(&key.as_bytes()[19]), "{key}");
        assert_ne!(key, new_key());
    }
}
