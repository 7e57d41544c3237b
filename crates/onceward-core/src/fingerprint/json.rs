//! JSON compared by what it says: its canonical form where that is safe, and where two documents
//! differ.

use std::collections::BTreeSet;
use std::ops::Range;

use serde_json::Value;

/// The body in the canonical form of RFC 8785 without what `ignore` points at, or nothing where
/// that form is not safe: a repeated name, or a number that is not exactly the double it reads
/// as (9007199254740993 would equal 9007199254740992, which are two payments).
pub fn canonical_json(body: &[u8], ignore: &[String]) -> Option<Vec<u8>> {
    if !numbers_are_exact(body) || has_repeated_name(body) {
        return None;
    }
    let mut value: Value = serde_json::from_slice(body).ok()?;
    for pointer in ignore {
        remove(&mut value, pointer);
    }
    serde_json_canonicalizer::to_vec(&value).ok()
}

fn remove(value: &mut Value, pointer: &str) {
    let Some((parent, name)) = pointer.rsplit_once('/') else {
        return;
    };
    let name = name.replace("~1", "/").replace("~0", "~");
    match value.pointer_mut(parent) {
        Some(Value::Object(members)) => {
            members.remove(&name);
        }
        Some(Value::Array(items)) => {
            if let Some(item) = name.parse::<usize>().ok().and_then(|at| items.get_mut(at)) {
                *item = Value::Null;
            }
        }
        _ => {}
    }
}

/// Whether every number in this JSON text is a double to the last digit. Strings are skipped;
/// text that is not JSON is refused by the parser afterwards.
fn numbers_are_exact(text: &[u8]) -> bool {
    numbers(text).all(|place| std::str::from_utf8(&text[place]).is_ok_and(is_exact))
}

/// Where the numbers of a JSON text stand. Strings are skipped.
pub(crate) fn numbers(text: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < text.len() {
            match text[at] {
                b'"' => at = end_of_string(text, at),
                b'-' | b'0'..=b'9' => {
                    let is_of_number =
                        |byte: &u8| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
                    let length = text[at..].iter().position(|byte| !is_of_number(byte));
                    let place = at..length.map_or(text.len(), |length| at + length);
                    at = place.end;
                    return Some(place);
                }
                _ => at += 1,
            }
        }
        None
    })
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
pub(crate) fn decimal(number: &str) -> Option<(String, i64)> {
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
    let mut open: Vec<Option<BTreeSet<&[u8]>>> = Vec::new();
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'{' => open.push(Some(BTreeSet::new())),
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

fn compare(a: &Value, b: &Value, path: &mut String, paths: &mut Vec<String>, max: usize) {
    use Value::{Array, Object};
    if paths.len() >= max || a == b {
        return;
    }
    let mut descend = |name: &str, a: Option<&Value>, b: Option<&Value>, path: &mut String| {
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
    use proptest::prelude::*;

    use super::*;

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
    }
}
