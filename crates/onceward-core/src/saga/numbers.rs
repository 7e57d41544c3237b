//! Numbers on their way through a saga: it keeps what it is told and what it takes as JSON that it reads and
//! writes again and again, and no number may become another by that.

use serde_json::{Number, Value};

use crate::fingerprint::{decimal, numbers};

/// What stands in a document in the place of a number that is not kept: no text that anybody writes.
const NOT_KEPT: &str = "\u{1}a number that is not kept\u{1}";

/// The first number of a JSON text that is not read and written as what it says. Whole ones of 64 bits are, and
/// fractions that a double holds to their last digit.
pub fn first_not_kept(text: &[u8]) -> Option<&str> {
    let mut words =
        numbers(text).map(|place| std::str::from_utf8(&text[place]).unwrap_or_default());
    words.find(|number| !is_number_kept(number))
}

/// Reads a document whose numbers may be others than are kept: [`is_kept`] tells of each part of it.
pub fn read_kept(text: &[u8]) -> Option<Value> {
    if first_not_kept(text).is_none() {
        return serde_json::from_slice(text).ok();
    }
    let (mut marked, mut end) = (Vec::with_capacity(text.len()), 0);
    for place in numbers(text) {
        if !std::str::from_utf8(&text[place.clone()]).is_ok_and(is_number_kept) {
            marked.extend_from_slice(&text[end..place.start]);
            marked.extend_from_slice(Value::from(NOT_KEPT).to_string().as_bytes());
            end = place.end;
        }
    }
    marked.extend_from_slice(&text[end..]);
    serde_json::from_slice(&marked).ok()
}

/// Whether a part of a document that was read so has no number that is not kept.
pub fn is_kept(value: &Value) -> bool {
    match value {
        Value::String(text) => text != NOT_KEPT,
        Value::Array(items) => items.iter().all(is_kept),
        Value::Object(members) => members.values().all(is_kept),
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    }
}

fn is_number_kept(number: &str) -> bool {
    let Ok(read) = serde_json::from_str::<Number>(number) else { return false };
    let written = read.to_string();
    let says = decimal(number);
    // Read again it is the same, however often.
    says.is_some()
        && says == decimal(&written)
        && serde_json::from_str::<Number>(&written).is_ok_and(|again| again == read)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn whole_numbers_of_64_bits_and_fractions_that_a_double_holds_are_kept() {
        for kept in ["0", "-7", "9007199254740993", "18446744073709551615", "0.1", "1e2", "-2.50"] {
            assert_eq!(first_not_kept(kept.as_bytes()), None);
        }
        for other in
            ["18446744073709551616", "0.10000000000000000001", "1e400", "3.14159265358979323846"]
        {
            assert_eq!(first_not_kept(other.as_bytes()), Some(other));
        }
    }

    #[test]
    fn a_number_that_is_not_kept_spoils_no_more_than_what_has_it() {
        let read = read_kept(br#"{"a":[1,{"b":18446744073709551616}],"id":"x","n":2.5}"#).unwrap();
        assert!(!is_kept(&read) && !is_kept(&read["a"]) && is_kept(&read["a"][0]));
        assert_eq!((&read["id"], &read["n"]), (&json!("x"), &json!(2.5)));
        assert!(is_kept(&read["id"]) && read_kept(b"{1").is_none());
    }

    proptest! {
        #[test]
        fn what_is_kept_is_written_as_it_was_said(number in "-?(0|[1-9][0-9]{0,21})(\\.[0-9]{1,20})?(e-?[0-9]{1,3})?") {
            if first_not_kept(number.as_bytes()).is_none() {
                let once = serde_json::from_str::<Value>(&number).unwrap().to_string();
                let twice = serde_json::from_str::<Value>(&once).unwrap().to_string();
                prop_assert_eq!(&once, &twice);
                prop_assert_eq!(decimal(&number), decimal(&once));
            }
        }
    }
}
