//! Durations ("30s", "1m 30s", "72h", "7d") and sizes ("1MiB") as people write them.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// The longest duration: what is longer is a slip of the pen, and sums of it would overflow.
const DURATION_MAX: Duration = Duration::from_hours(100 * 366 * 24);

/// Units of time, in seconds.
pub(crate) const UNITS: [(&str, f64); 6] =
    [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("min", 60.0), ("h", 3600.0), ("d", 86_400.0)];

/// Reads a duration: numbers with `ms`, `s`, `m`, `h` or `d`, added up.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "{text:?} is not a duration: write \"30s\", \"500ms\", \"1m 30s\", \"72h\" or \"7d\""
        )
    };
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
            .ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = UNITS.iter().find(|(name, _)| *name == &rest[..letters]);
        let (_, seconds) = unit.ok_or_else(wrong)?;
        total = Duration::try_from_secs_f64(number * seconds)
            .ok()
            .and_then(|piece| total.checked_add(piece))
            .filter(|total| *total <= DURATION_MAX)
            .ok_or_else(wrong)?;
        rest = rest[letters..].trim_start();
    }
    Ok(total)
}

/// A duration in the shortest of these forms.
pub(crate) fn show(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        if millis >= size && millis.is_multiple_of(size) {
            return format!("{}{unit}", millis / size);
        }
    }
    format!("{millis}ms")
}

fn size(text: &str) -> Result<usize, String> {
    let wrong =
        || format!("{text:?} is not a size: write \"512KiB\", \"1MiB\" or a number of bytes");
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let number: usize = text[..digits].parse().map_err(|_| wrong())?;
    let unit: usize = match text[digits..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "KB" | "kB" => 1000,
        "MB" => 1_000_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit).ok_or_else(wrong)
}

/// A duration in configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

/// A size in configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) usize);

struct Text<T>(fn(&str) -> Result<T, String>, &'static str);

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        self.0(text).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.0(&number.to_string()).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(Text(|text| duration(text).map(Self), "a duration such as \"30s\""))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Text(|text| size(text).map(Self), "a size such as \"1MiB\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_as_people_write_them() {
        for (text, millis) in [
            ("30s", 30_000),
            ("1m 30s", 90_000),
            ("1m30s", 90_000),
            ("72h", 259_200_000),
            ("7d", 604_800_000),
            ("500ms", 500),
            ("1.5s", 1500),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "30",
            "30 parsecs",
            "s",
            "-1s",
            "1e400s",
            "101000d 1000000h",
            "99999999999999999999999d",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!((size("1MiB"), size("512"), size("2 KiB")), (Ok(1 << 20), Ok(512), Ok(2048)));
        assert!(size("1XB").is_err());
    }

    #[test]
    fn a_duration_shows_as_it_reads() {
        for text in ["7d", "72m", "90s", "1500ms", "0ms"] {
            assert_eq!(show(duration(text).unwrap()), text);
        }
    }
}
