//! Durations, times and bytes as the API writes them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// A duration as the API writes one: `1m 30s`. Less than a millisecond is none.
pub(crate) fn duration(length: Duration) -> String {
    const UNITS: [(&str, u128); 5] =
        [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
    let mut rest = length.as_millis();
    let mut said = Vec::new();
    for (unit, millis) in UNITS {
        if rest >= millis {
            said.push(format!("{}{unit}", rest / millis));
            rest %= millis;
        }
    }
    if said.is_empty() { "0ms".to_owned() } else { said.join(" ") }
}

/// A time in RFC 3339, in UTC and to the millisecond; nothing where it is before 1970.
pub(crate) fn rfc3339(time: SystemTime) -> Option<String> {
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let (second, millis) = (second % 60, since.subsec_millis());
    (year <= 9999).then(|| {
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    })
}

/// The date of a day, counted from the first of 1970: years begin in March here, so that the leap day
/// is a year's last.
fn civil(days: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097;
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / ERA, shifted % ERA);
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

/// What base64 says, padded or not; nothing where it is none.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    let bare = text.strip_suffix("==").or_else(|| text.strip_suffix('=')).unwrap_or(text);
    STANDARD_NO_PAD.decode(bare).ok()
}

/// Bytes as hexadecimal digits.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    let digits =
        |byte: &u8| [byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]);
    bytes.iter().flat_map(digits).map(char::from).collect()
}

/// What hexadecimal digits say; nothing where they are none.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |letter: u8| char::from(letter).to_digit(16).map(|digit| digit as u8);
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let pairs = text.as_bytes().chunks_exact(2);
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_the_gateway_reads_them() {
        assert_eq!(duration(Duration::ZERO), "0ms");
        assert_eq!(duration(Duration::from_micros(90_500_999)), "1m 30s 500ms");
        assert_eq!(duration(Duration::from_millis(3 * 86_400_000 + 5)), "3d 5ms");
    }

    #[test]
    fn times_are_written_in_utc() {
        let at = |millis| rfc3339(UNIX_EPOCH + Duration::from_millis(millis)).unwrap();
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(at(1_893_455_999_999), "2029-12-31T23:59:59.999Z");
        assert_eq!(at(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
        assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_secs(1)), None);
    }

    #[test]
    fn bytes_are_read_as_providers_write_them() {
        assert_eq!(from_base64("aGk=").as_deref(), Some(&b"hi"[..]));
        assert_eq!(from_base64("aGk").as_deref(), Some(&b"hi"[..]));
        assert_eq!(from_hex("0aFF"), Some(vec![10, 255]));
        assert_eq!(to_hex(&[10, 255]), "0aff");
        for wrong in ["a", "+f", "zz", "0x"] {
            assert_eq!(from_hex(wrong), None, "{wrong}");
        }
        for wrong in ["!", "aG k=", "a==="] {
            assert_eq!(from_base64(wrong), None, "{wrong}");
        }
    }
}
