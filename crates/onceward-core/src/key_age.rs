//! Keys that bear the time at which they were made, or come with it: an old one is known for a late
//! duplicate even after its mark is gone.

use std::time::{Duration, UNIX_EPOCH};

use crate::key::Key;
use crate::policy::{KeyTime, Policy};
use crate::time::Timestamp;

/// The time that a key bears: a `UUIDv7` (RFC 9562, section 5.7), with its hyphens or without, or a
/// ULID. Nothing where it bears none.
pub fn time_of(key: &Key) -> Option<Timestamp> {
    let text = key.as_str();
    let millis = uuid_v7(text).or_else(|| ulid(text))?;
    Some(Timestamp::from_micros(i64::try_from(millis).ok()? * 1000))
}

/// The time in `Repeatability-First-Sent`: an HTTP date (OASIS Repeatable Requests 1.0).
pub fn first_sent(value: &str) -> Option<Timestamp> {
    let at = httpdate::parse_http_date(value).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(Timestamp::from_micros(i64::try_from(at.as_micros()).ok()?))
}

/// Whether a call that was first made at `made_at`, and of whose key nothing is known at `now`, is a
/// late duplicate: whatever was done with the key then would be forgotten by now.
pub fn is_late(made_at: Timestamp, policy: &Policy, now: Timestamp) -> bool {
    let kept: Duration = policy.window.saturating_add(policy.tombstone);
    policy.key_time != KeyTime::Ignore && now >= made_at.plus(kept)
}

fn uuid_v7(text: &str) -> Option<u64> {
    let hyphens_fit = match text.len() {
        32 => true,
        36 => [8, 13, 18, 23].iter().all(|at| text.as_bytes()[*at] == b'-'),
        _ => false,
    };
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    if !hyphens_fit || digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let is_variant = matches!(digits[16], b'8' | b'9' | b'a' | b'b' | b'A' | b'B');
    if digits[12] != b'7' || !is_variant {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(&digits[..12]).ok()?, 16).ok()
}

/// 26 signs of Crockford's base 32, the first ten of them the time.
fn ulid(text: &str) -> Option<u64> {
    const SIGNS: &[u8] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    if text.len() != 26 {
        return None;
    }
    let mut values = text.bytes().map(|byte| {
        SIGNS.iter().position(|sign| *sign == byte.to_ascii_uppercase()).map(|at| at as u64)
    });
    let mut millis = 0;
    for _ in 0..10 {
        millis = millis << 5 | values.next()??;
    }
    let rest_fits = values.all(|value| value.is_some());
    (rest_fits && millis < 1 << 48).then_some(millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Option<i64> {
        time_of(&Key::new(text).unwrap()).map(Timestamp::as_micros)
    }

    #[test]
    fn a_key_bears_its_time_where_its_kind_has_one() {
        // The example of RFC 9562, appendix A.6: 2022-02-22T19:22:22Z.
        let made = Some(1_645_557_742_000_000);
        for (key, time) in [
            ("017F22E2-79B0-7CC3-98C4-DC0C0C07398F", made),
            ("017f22e279b07cc398c4dc0c0c07398f", made),
            ("017F22E2-79B0-4CC3-98C4-DC0C0C07398F", None),
            ("017F22E2-79B0-7CC3-08C4-DC0C0C07398F", None),
            ("017F22E279-B07CC3-98C4-DC0C0C-07398F", None),
            // The time of the ULID specification's example.
            ("01ARZ3NDEKTSV4RRFFQ69G5FAV", Some(1_469_922_850_259_000)),
            ("01arz3ndektsv4rrffq69g5fav", Some(1_469_922_850_259_000)),
            ("81ARZ3NDEKTSV4RRFFQ69G5FAV", None),
            ("01ARZ3NDEKTSV4RRFFQ69G5FAU", None),
            ("order-1", None),
        ] {
            assert_eq!(read(key), time, "{key}");
        }
        let sent = first_sent("Tue, 22 Feb 2022 19:22:22 GMT").map(Timestamp::as_micros);
        assert_eq!((sent, first_sent("yesterday")), (made, None));
    }

    proptest! {
        #[test]
        fn every_time_is_read_back(millis in 0u64..1 << 48, rest in any::<u64>()) {
            let uuid = format!(
                "{:08x}-{:04x}-7{:03x}-a{:03x}-{:012x}",
                millis >> 16, millis & 0xffff, rest & 0xfff, rest >> 12 & 0xfff, rest >> 16,
            );
            prop_assert_eq!(read(&uuid), Some(millis as i64 * 1000));
        }

        #[test]
        fn any_key_bears_a_time_or_none(text in "[!-~]{1,40}") {
            let _ = read(&text);
        }

        #[test]
        fn what_may_still_be_known_is_never_late(
            made in 0i64..1 << 50, window in 0u64..1 << 20, tombstone in 0u64..1 << 20, later in 0u64..1 << 22,
        ) {
            let policy = Policy {
                window: Duration::from_secs(window),
                tombstone: Duration::from_secs(tombstone),
                key_time: KeyTime::RefuseLate,
                ..Policy::default()
            };
            let made = Timestamp::from_micros(made);
            let now = made.plus(Duration::from_secs(later));
            // Whatever was made with the key ended no earlier than the key was made.
            prop_assert_eq!(is_late(made, &policy, now), later >= window + tombstone);
            let ignored = Policy { key_time: KeyTime::Ignore, ..policy };
            prop_assert!(!is_late(made, &ignored, now));
        }
    }
}
