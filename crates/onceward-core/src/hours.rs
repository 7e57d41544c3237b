//! Opening hours: when attempts of accepted work may begin. A week of windows at a fixed offset
//! from UTC; what a clock on the wall does in spring and autumn is left to whoever writes it.

use std::time::Duration;

use crate::time::Timestamp;

const MINUTE: i64 = 60_000_000;
const DAY: i64 = 24 * 60;
const WEEK: i64 = 7 * DAY;

/// 1970-01-01 was a Thursday, the fourth day of its week.
const EPOCH_MINUTE: i64 = 3 * DAY;

/// Windows in a text, at most.
const WINDOWS_MAX: usize = 32;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// When attempts may begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hours {
    /// Minutes of the week from Monday 00:00, from and until; in order, apart from each other.
    windows: Vec<(i64, i64)>,
    /// Minutes that the local time is ahead of UTC.
    offset: i64,
    /// As it was written.
    text: String,
}

/// Why a text says no hours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}: write \"Mon-Fri 08:00-18:00 +01:00\"")]
pub struct NotHours(String);

impl Hours {
    /// Reads `Mon-Fri 08:00-18:00 +01:00`: days (a list of days and ranges; without any every day),
    /// a time of day from and until (until the next day where it is not later), several of them
    /// between `;`, and the offset from UTC at the end, UTC where there is none.
    pub fn read(text: &str) -> Result<Self, NotHours> {
        let wrong = |what: &str| NotHours(format!("{what:?} are no hours"));
        let mut rest = text.trim();
        let mut offset = 0;
        if let Some((before, last)) = rest.rsplit_once(' ')
            && let Some(read) = read_offset(last)
        {
            (rest, offset) = (before.trim_end(), read);
        }
        let mut windows = Vec::new();
        for part in rest.split(';') {
            if windows.len() > WINDOWS_MAX * DAYS.len() {
                return Err(wrong(text));
            }
            let part = part.trim();
            let (days, times) = part.rsplit_once(' ').unwrap_or(("", part));
            let (from, until) = times.split_once('-').ok_or_else(|| wrong(part))?;
            let from = minute_of(from).filter(|from| *from < DAY).ok_or_else(|| wrong(part))?;
            let until = minute_of(until).ok_or_else(|| wrong(part))?;
            let length = if until > from { until - from } else { until + DAY - from };
            for day in read_days(days).ok_or_else(|| wrong(part))? {
                windows.push((day * DAY + from, day * DAY + from + length));
            }
        }
        Ok(Self { windows: apart(windows), offset, text: text.trim().to_owned() })
    }

    /// Whether an attempt may begin at `now`.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.next_open(now) == now
    }

    /// The first instant from `now` on at which an attempt may begin: `now` itself where it may.
    pub fn next_open(&self, now: Timestamp) -> Timestamp {
        // A week holds every window, so the next opening is at most a week away.
        let local = now.as_micros().saturating_add((self.offset + EPOCH_MINUTE) * MINUTE);
        let in_week = local.rem_euclid(WEEK * MINUTE);
        let wait = self.windows.iter().flat_map(|(from, until)| {
            // A window that began last week may still be open.
            [-WEEK, 0, WEEK].map(|week| ((from + week) * MINUTE, (until + week) * MINUTE))
        });
        let wait = wait
            .filter(|(_, until)| *until > in_week)
            .map(|(from, _)| (from - in_week).max(0))
            .min()
            .unwrap_or_default();
        now.plus(Duration::from_micros(wait.unsigned_abs()))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Windows in order; those that touch are one.
fn apart(mut windows: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    windows.sort_unstable();
    let mut apart: Vec<(i64, i64)> = Vec::with_capacity(windows.len());
    for (from, until) in windows {
        match apart.last_mut().filter(|last| last.1 >= from) {
            Some(last) => last.1 = last.1.max(until),
            None => apart.push((from, until)),
        }
    }
    apart
}

/// `+01:00`, `-05:30`, `Z` or `UTC`.
fn read_offset(text: &str) -> Option<i64> {
    if matches!(text, "Z" | "UTC" | "utc") {
        return Some(0);
    }
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    minute_of(&text[1..]).filter(|minutes| *minutes <= 14 * 60).map(|minutes| sign * minutes)
}

/// `08:00`, up to `24:00`.
fn minute_of(text: &str) -> Option<i64> {
    let (hour, minute) = text.split_once(':')?;
    let number = |digits: &str| {
        let is_number = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| digits.parse::<i64>().ok())?
    };
    let (hour, minute) = (number(hour)?, number(minute)?);
    Some(hour * 60 + minute).filter(|at| minute < 60 && *at <= DAY)
}

/// `Mon-Fri,Sun`; none at all is every day.
fn read_days(text: &str) -> Option<Vec<i64>> {
    if text.trim().is_empty() {
        return Some((0..7).collect());
    }
    let day = |name: &str| {
        let name = name.trim().to_ascii_lowercase();
        DAYS.iter().position(|day| *day == name)
    };
    let mut days = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        // Fri-Mon goes over the end of the week.
        let length = (last + 7 - first) % 7;
        days.extend((0..=length).map(|more| ((first + more) % 7) as i64));
    }
    (days.len() <= WINDOWS_MAX).then_some(days)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2026-01-05 00:00:00 UTC, a Monday.
    const MONDAY: i64 = 1_767_571_200_000_000;

    fn at(day: i64, hour: i64, minute: i64) -> Timestamp {
        Timestamp::from_micros(MONDAY + (day * DAY + hour * 60 + minute) * MINUTE)
    }

    #[test]
    fn the_next_opening_is_told() {
        for (hours, now, open) in [
            ("Mon-Fri 08:00-18:00", at(0, 7, 59), at(0, 8, 0)),
            ("Mon-Fri 08:00-18:00", at(0, 8, 0), at(0, 8, 0)),
            ("Mon-Fri 08:00-18:00", at(0, 17, 59), at(0, 17, 59)),
            ("Mon-Fri 08:00-18:00", at(0, 18, 0), at(1, 8, 0)),
            ("Mon-Fri 08:00-18:00", at(4, 18, 0), at(7, 8, 0)),
            ("Mon-Fri 08:00-18:00 +01:00", at(0, 6, 30), at(0, 7, 0)),
            ("Mon-Fri 08:00-18:00 +01:00", at(0, 17, 0), at(1, 7, 0)),
            ("Mon 00:00-24:00 -05:00", at(0, 4, 0), at(0, 5, 0)),
            ("22:00-06:00", at(0, 3, 0), at(0, 3, 0)),
            ("22:00-06:00", at(0, 12, 0), at(0, 22, 0)),
            ("Sun 22:00-06:00", at(0, 5, 59), at(0, 5, 59)),
            ("Sun 22:00-06:00", at(0, 6, 0), at(6, 22, 0)),
            ("Sat,Sun 10:00-12:00; Wed 09:00-10:00 UTC", at(3, 0, 0), at(5, 10, 0)),
            ("Fri-Mon 01:00-02:00", at(1, 0, 0), at(4, 1, 0)),
            ("00:00-24:00", at(3, 3, 3), at(3, 3, 3)),
        ] {
            assert_eq!(Hours::read(hours).unwrap().next_open(now), open, "{hours}");
        }
    }

    #[test]
    fn what_says_no_hours_is_refused_with_an_example() {
        for text in [
            "",
            "Mon-Fri",
            "8:00-18:00",
            "08:00",
            "08:00-25:00",
            "24:00-08:00",
            "Mo 08:00-18:00",
            "08:00-18:00 Europe/Berlin",
            "08:00-18:00 +15:00",
            "Mon 08:60-09:00",
            ";",
        ] {
            let error = Hours::read(text).unwrap_err().to_string();
            assert!(error.contains("Mon-Fri 08:00-18:00 +01:00"), "{text}: {error}");
        }
    }

    fn some_hours() -> impl Strategy<Value = String> {
        let window =
            (0usize..7, 0usize..7, 0i64..1440, 0i64..1441).prop_map(|(a, b, from, until)| {
                let time = |at: i64| format!("{:02}:{:02}", at / 60, at % 60);
                format!("{}-{} {}-{}", DAYS[a], DAYS[b], time(from), time(until))
            });
        let offset = (-14i64 * 60..=14 * 60).prop_map(|minutes| {
            let sign = if minutes < 0 { '-' } else { '+' };
            format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)
        });
        (proptest::collection::vec(window, 1..4), offset)
            .prop_map(|(windows, offset)| format!("{} {offset}", windows.join("; ")))
    }

    proptest! {
        #[test]
        fn the_next_opening_is_open_soon_and_nothing_before_it_is(
            text in some_hours(),
            now in -10_000_000_000_000_000i64..10_000_000_000_000_000,
            part in 0.0f64..1.0,
        ) {
            let hours = Hours::read(&text).unwrap();
            let now = Timestamp::from_micros(now);
            let open = hours.next_open(now);
            prop_assert!(open >= now && hours.is_open(open));
            prop_assert!(open.since(now) <= Duration::from_hours(7 * 24));
            let before = now.plus(open.since(now).mul_f64(part));
            prop_assert!(before >= open || !hours.is_open(before), "{text} {before:?}");
            prop_assert_eq!(hours.next_open(open), open);
        }

        #[test]
        fn a_week_later_is_the_same(text in some_hours(), now in 0i64..10_000_000_000_000_000) {
            let hours = Hours::read(&text).unwrap();
            let now = Timestamp::from_micros(now);
            let week = Duration::from_hours(7 * 24);
            prop_assert_eq!(hours.next_open(now).plus(week), hours.next_open(now.plus(week)));
        }

        #[test]
        fn any_text_and_any_time_are_read_or_refused(text in "\\PC{0,40}", now in any::<i64>()) {
            if let Ok(hours) = Hours::read(&text) {
                let now = Timestamp::from_micros(now);
                prop_assert!(hours.next_open(now) >= now);
            }
        }
    }
}
