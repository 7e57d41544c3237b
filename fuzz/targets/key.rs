//! The `Idempotency-Key` field: every line is one key or refused, and a key that is carried on
//! reads as the same key.

use onceward::core::key::{KEY_BYTES_MAX, Key, KeyError};
use onceward_fuzz::Fuzz;

const WORDS: &[&str] = &[
    "\"",
    "\\\"",
    "\\\\",
    ";a=1",
    "; b=\"x\"",
    ",",
    "abc",
    " ",
    "\t",
    "8e03978e-40d5-43dd-bc93-6894a57f9324",
];

/// The value of a structured-field string with nothing behind it, by RFC 9651, section 4.2.5,
/// read without a look at how the gateway does it.
fn strict(line: &[u8]) -> Option<String> {
    let inner = line.strip_prefix(b"\"")?;
    let mut value = String::new();
    let mut at = 0;
    loop {
        match *inner.get(at)? {
            b'"' => return (at + 1 == inner.len()).then_some(value),
            b'\\' => {
                let escaped = *inner.get(at + 1)?;
                if escaped != b'"' && escaped != b'\\' {
                    return None;
                }
                value.push(char::from(escaped));
                at += 2;
            }
            byte @ 0x20..=0x7e => {
                value.push(char::from(byte));
                at += 1;
            }
            _ => return None,
        }
    }
}

fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

fn read(line: &[u8]) -> Result<Option<Key>, KeyError> {
    Key::from_field([line])
}

#[test]
fn a_line_is_one_key_or_refused_and_a_key_reads_back_as_itself() {
    Fuzz::new("key", 20_000, WORDS).bytes_max(600).run(|line| {
        let key = read(line);
        assert_eq!(Key::from_field([line, line]), Err(KeyError::Several));
        if let Some(value) = strict(line) {
            let plain = Key::new(&value);
            assert_eq!(key, plain.map(Some), "a string's value is the key");
        }
        let is_token = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b'\\');
        if !line.is_empty() && line.len() <= KEY_BYTES_MAX && line.iter().all(is_token) {
            let text = key.as_ref().ok().and_then(|key| key.as_ref().map(Key::as_str));
            assert_eq!(text.map(str::as_bytes), Some(line), "a bare token is its own key");
        }
        if let Ok(Some(key)) = &key {
            let value = key.as_str();
            assert!((1..=KEY_BYTES_MAX).contains(&value.len()));
            assert!(value.bytes().all(|byte| (0x20..=0x7e).contains(&byte)));
            assert_eq!(read(quoted(value).as_bytes()), Ok(Some(key.clone())));
            assert_eq!(
                read(key.to_field().as_bytes()),
                Ok(Some(key.clone())),
                "as it is carried on"
            );
            let bare = line.trim_ascii();
            if !bare.starts_with(b"\"") {
                assert_eq!(bare, value.as_bytes(), "a bare key is what was written");
                assert!(bare.iter().all(is_token), "and every byte of it is visible");
            }
        }
        key.map(|key| key.map(|key| key.as_str().len() / 16)).map_err(|error| error.to_string())
    });
}
