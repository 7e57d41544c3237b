//! Bytes as hexadecimal digits, in lower case.

/// The digits, each at its value.
pub(crate) const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Two digits for each byte.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for half in bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]) {
        text.push(DIGITS[usize::from(half)].into());
    }
    text
}

/// The bytes that `text` has, in either case; nothing where it is anything else than pairs of digits.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let digit = |digit: &u8| (*digit as char).to_digit(16).map(|digit| digit as u8);
    let pair = |pair: &[u8]| Some(digit(pair.first()?)? << 4 | digit(pair.get(1)?)?);
    text.as_bytes().chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_pair_of_digits_is_nothing() {
        for text in ["0", "0g", " 00", "0\u{e9}", "+1"] {
            assert_eq!(decode(text), None, "{text:?}");
        }
        assert_eq!(decode("00fF"), Some(vec![0, 255]));
    }

    proptest! {
        #[test]
        fn bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }
    }
}
