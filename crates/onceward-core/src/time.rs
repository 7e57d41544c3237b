//! Instants as the ledger keeps them: microseconds since 1970-01-01 UTC.

use std::time::{Duration, SystemTime};

const DAY_MICROS: i64 = 86_400_000_000;

/// The year 10000 in seconds, which four digits cannot say.
const HTTP_DATE_END: i64 = 253_402_300_800;

/// An instant, in microseconds since the Unix epoch. Arithmetic saturates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The instant `micros` microseconds after the epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Milliseconds since the epoch, never negative.
    pub const fn as_millis(self) -> u64 {
        if self.0 < 0 { 0 } else { (self.0 / 1000) as u64 }
    }

    /// This instant and `by` more.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(micros(by)))
    }

    /// This instant and `by` less.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(micros(by)))
    }

    /// How much later this is than `earlier`; zero where it is not later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0).max(0) as u64)
    }

    /// Its day in UTC, as `2026-01-31` (the civil calendar, by Howard Hinnant's algorithm).
    pub fn date(self) -> String {
        let days = self.0.div_euclid(DAY_MICROS) + 719_468;
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        format!("{year:04}-{month:02}-{day:02}")
    }

    /// RFC 3339, UTC, to the millisecond.
    pub fn rfc3339(self) -> String {
        let millis = self.0.rem_euclid(DAY_MICROS) / 1000;
        let (seconds, millis) = (millis / 1000, millis % 1000);
        let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        format!("{}T{hours:02}:{minutes:02}:{seconds:02}.{millis:03}Z", self.date())
    }

    /// The instant that [`Timestamp::rfc3339`] wrote; nothing of what is written otherwise.
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
        let [year, month, day] = fields(date, '-')?;
        let (time, millis) = time.split_once('.')?;
        let [hours, minutes, seconds] = fields(time, ':')?;
        let millis = i64::from(millis.parse::<u16>().ok()?);
        // The civil calendar, the other way.
        let year = year - i64::from(month <= 2);
        let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let month_from_march = if month > 2 { month - 3 } else { month + 9 };
        let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * 146_097 + day_of_era - 719_468;
        let seconds = (hours * 60 + minutes) * 60 + seconds;
        let read = Self(days * DAY_MICROS + (seconds * 1000 + millis) * 1000);
        (read.rfc3339() == text).then_some(read)
    }

    /// An HTTP date (RFC 9110, section 5.6.7); those that it cannot say are the epoch's.
    pub fn http_date(self) -> String {
        // What the format has no year for: the formatter would panic.
        let seconds = self.0.div_euclid(1_000_000);
        let known = if (0..HTTP_DATE_END).contains(&seconds) { self } else { Self(0) };
        httpdate::fmt_http_date(known.into())
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => Self(micros(after)),
            Err(before) => Self(-micros(before.duration())),
        }
    }
}

impl From<Timestamp> for SystemTime {
    fn from(at: Timestamp) -> Self {
        if at.0 >= 0 {
            Self::UNIX_EPOCH + Duration::from_micros(at.0 as u64)
        } else {
            Self::UNIX_EPOCH - Duration::from_micros(at.0.unsigned_abs())
        }
    }
}

/// Three numbers of at most four digits.
fn fields(text: &str, between: char) -> Option<[i64; 3]> {
    let mut fields = text.split(between).map(|field| field.parse::<u16>().map(i64::from));
    let read = [fields.next()?.ok()?, fields.next()?.ok()?, fields.next()?.ok()?];
    fields.next().is_none().then_some(read)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_written_as_answers_have_it() {
        let at = Timestamp::from_micros(1_769_903_999_123_456);
        assert_eq!(at.date(), "2026-01-31");
        assert_eq!(at.rfc3339(), "2026-01-31T23:59:59.123Z");
        assert_eq!(at.http_date(), "Sat, 31 Jan 2026 23:59:59 GMT");
        assert_eq!(Timestamp::from_micros(-1).rfc3339(), "1969-12-31T23:59:59.999Z");
        for written in
            ["2026-01-31T23:59:59.123Z", "1969-12-31T23:59:59.999Z", "2024-02-29T00:00:00.000Z"]
        {
            assert_eq!(Timestamp::from_rfc3339(written).unwrap().rfc3339(), written);
        }
        let wrong = [
            "2026-02-30T00:00:00.000Z",
            "2026-01-31T23:59:59Z",
            "2026-1-31T23:59:59.123Z",
            "",
            "TZ",
            "99999-01-01T00:00:00.000Z",
        ];
        for wrong in wrong {
            assert_eq!(Timestamp::from_rfc3339(wrong), None, "{wrong:?}");
        }
        for far in [i64::MIN, i64::MAX] {
            assert_eq!(Timestamp::from_micros(far).http_date(), "Thu, 01 Jan 1970 00:00:00 GMT");
        }
    }
}
