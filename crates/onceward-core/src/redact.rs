//! What people do not see of a body.

use bytes::Bytes;
use serde_json::Value;

/// What stands in the place of a value.
const REDACTED: &str = "[redacted]";

/// `body` as people see it: without the values that the JSON pointers (RFC 6901) in `redact` lead to;
/// nothing where it is as it was. A body that cannot be read as JSON is withheld whole, because nobody
/// knows what is in it.
pub fn redacted(body: &Bytes, redact: &[String]) -> Option<Bytes> {
    if redact.is_empty() || body.is_empty() {
        return None;
    }
    let Ok(mut value) = serde_json::from_slice::<Value>(body) else {
        return Some(Bytes::from_static(REDACTED.as_bytes()));
    };
    let mut changed = false;
    for pointer in redact {
        if let Some(found) = value.pointer_mut(pointer) {
            *found = Value::String(REDACTED.to_owned());
            changed = true;
        }
    }
    changed.then(|| Bytes::from(value.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(body: &str, redact: &[&str]) -> Option<String> {
        let redact: Vec<String> = redact.iter().map(ToString::to_string).collect();
        let shown = redacted(&Bytes::copy_from_slice(body.as_bytes()), &redact)?;
        Some(String::from_utf8(shown.to_vec()).unwrap())
    }

    #[test]
    fn what_a_pointer_leads_to_is_not_seen() {
        let body = r#"{"card":{"number":"4242","cvc":1},"n":1}"#;
        let without = |shown: &str| Some(shown.to_owned());
        for (redact, expected) in [
            (
                &["/card/number", "/none"][..],
                without(r#"{"card":{"cvc":1,"number":"[redacted]"},"n":1}"#),
            ),
            (&["/card"], without(r#"{"card":"[redacted]","n":1}"#)),
            (&[""], without(r#""[redacted]""#)),
            (&["/none"], None),
            (&[], None),
        ] {
            assert_eq!(shown(body, redact), expected, "{redact:?}");
        }
        assert_eq!(shown("", &["/a"]), None);
        assert_eq!(shown("number=4242", &["/number"]), without("[redacted]"), "it cannot be read");
        assert_eq!(shown(r#"{"number":"42"#, &["/number"]), without("[redacted]"), "it is cut");
    }

    proptest! {
        #[test]
        fn a_value_that_is_redacted_is_nowhere_in_what_is_seen(secret in "[a-z]{12,20}", other in "[0-9]{0,9}") {
            let body = serde_json::json!({"deep": [{"it": secret}], "other": other}).to_string();
            let seen = shown(&body, &["/deep/0/it"]).unwrap();
            prop_assert!(!seen.contains(&secret) && seen.contains(&other));
        }
    }
}
