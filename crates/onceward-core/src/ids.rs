//! What an answer says that it made: names of the route's choosing, read from its JSON by pointer.

use serde_json::Value;

/// How many names a route may have.
pub const IDS_MAX: usize = 8;

/// The longest id that is kept, in bytes: a longer one is left out.
const ID_BYTES_MAX: usize = 255;

/// The ids that `wanted` names (a name and a JSON pointer each) in the JSON of `body`. Texts and
/// whole numbers are ids; what is something else, or not there, is left out.
pub fn ids_of(wanted: &[(String, String)], body: &[u8]) -> Vec<(String, String)> {
    if wanted.is_empty() {
        return Vec::new();
    }
    let Ok(document) = serde_json::from_slice::<Value>(body) else { return Vec::new() };
    let id = |(name, pointer): &(String, String)| {
        let text = match document.pointer(pointer)? {
            Value::String(text) => text.clone(),
            Value::Number(number) if !number.is_f64() => number.to_string(),
            _ => return None,
        };
        let fits = !text.is_empty() && text.len() <= ID_BYTES_MAX;
        fits.then(|| (name.clone(), text))
    };
    wanted.iter().take(IDS_MAX).filter_map(id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wanted(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, pointer)| ((*name).into(), (*pointer).into())).collect()
    }

    #[test]
    fn ids_are_texts_and_whole_numbers_that_the_pointers_find() {
        let body = br#"{"id": "ord_1", "customer": {"id": 77}, "sum": 1.5, "x": null, "y": ""}"#;
        let all = wanted(&[
            ("order", "/id"),
            ("customer", "/customer/id"),
            ("sum", "/sum"),
            ("x", "/x"),
            ("y", "/y"),
            ("none", "/nowhere"),
        ]);
        assert_eq!(ids_of(&all, body), wanted(&[("order", "ord_1"), ("customer", "77")]));
        assert!(ids_of(&all, b"no JSON").is_empty());
    }

    proptest! {
        #[test]
        fn whatever_the_answer_no_more_is_kept_than_there_is_room_for(
            text in ".{0,400}", count in 0usize..20, junk in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let body = serde_json::to_vec(&serde_json::json!({"id": text})).unwrap();
            let pairs: Vec<_> = (0..count).map(|n| (format!("n{n}"), "/id".to_owned())).collect();
            let found = ids_of(&pairs, &body);
            prop_assert!(found.len() <= IDS_MAX);
            prop_assert!(found.iter().all(|(_, id)| !id.is_empty() && id.len() <= ID_BYTES_MAX));
            prop_assert!(ids_of(&pairs, &junk).len() <= IDS_MAX);
        }
    }
}
