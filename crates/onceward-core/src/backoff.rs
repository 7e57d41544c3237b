//! When the next attempt is due.
//!
//! Full jitter with a floor: `max(floor, U(0, min(cap, base·factorⁿ)))` (the formula of the AWS
//! architecture blog, "Exponential backoff and jitter"). The draw is a hash of the operation's id
//! and the attempt's number, so that schedules are reproducible and the core needs no chance. The
//! instant is drawn once and stored.

use std::time::{Duration, SystemTime};

use crate::exchange::Headers;
use crate::id::OperationId;
use crate::policy::Backoff;
use crate::time::Timestamp;

/// The longest that a `Retry-After` is believed.
pub const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);

/// How long to wait after attempt `n` (from 1) of `id`; never less than `retry_after`.
pub fn delay(
    backoff: &Backoff,
    id: OperationId,
    n: u32,
    retry_after: Option<Duration>,
) -> Duration {
    let draw = draw(id, n);
    let delay =
        match backoff.table.get(n.saturating_sub(1) as usize).or_else(|| backoff.table.last()) {
            // A table is followed with a spread of ±20 %, so that what failed together does not return together.
            Some(fixed) => fixed.mul_f64(0.8 + 0.4 * draw),
            None => bound(backoff, n).mul_f64(draw).max(backoff.floor),
        };
    match retry_after {
        // Never earlier than asked, and a little later, so that all who were told the same do not come at once.
        Some(asked) => {
            let asked = asked.min(RETRY_AFTER_MAX);
            delay.max(asked + (asked.mul_f64(0.1)).min(Duration::from_secs(1)).mul_f64(draw))
        }
        None => delay,
    }
}

/// The longest that attempts take by these delays, from the first to the beginning of the last: what an
/// upstream asks for by itself may make it longer.
pub fn span(backoff: &Backoff) -> Duration {
    let longest = |n: u32| match backoff.table.get(n as usize - 1).or_else(|| backoff.table.last())
    {
        Some(fixed) => fixed.mul_f64(1.2),
        None => bound(backoff, n).max(backoff.floor),
    };
    let delays = (1..backoff.attempts_max).map(longest);
    delays.fold(Duration::ZERO, Duration::saturating_add).min(backoff.horizon)
}

fn bound(backoff: &Backoff, n: u32) -> Duration {
    let seconds =
        backoff.base.as_secs_f64() * backoff.factor.powi(n.saturating_sub(1).min(1000) as i32);
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX).min(backoff.cap)
}

/// A number in [0, 1) from an id and a count (splitmix64's finaliser).
pub fn draw(id: OperationId, n: u32) -> f64 {
    let uuid = id.as_u128();
    let mut x = (uuid >> 64) as u64
        ^ (uuid as u64).rotate_left(32)
        ^ u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^= x >> 31;
    (x >> 11) as f64 / (1u64 << 53) as f64
}

/// What an answer's headers ask: `Retry-After` in seconds (fractions too) or as one of the three
/// HTTP dates (RFC 9110, section 10.2.3), else `RateLimit-Reset` in seconds. The longest of
/// several lines counts; what cannot be read is ignored; what is past is zero.
pub fn retry_after(headers: &Headers, now: Timestamp) -> Option<Duration> {
    let date = headers
        .text("date")
        .and_then(|date| httpdate::parse_http_date(date).ok())
        .map(Timestamp::from);
    let lines = headers.all("retry-after").filter_map(|line| std::str::from_utf8(line).ok());
    let asked = lines.filter_map(|line| asked(line.trim(), date.unwrap_or(now))).max();
    asked
        .or_else(|| headers.text("ratelimit-reset").and_then(|line| seconds(line.trim())))
        .map(|asked| asked.min(RETRY_AFTER_MAX))
}

fn asked(value: &str, now: Timestamp) -> Option<Duration> {
    seconds(value).or_else(|| {
        let until: SystemTime = httpdate::parse_http_date(value).ok()?;
        Some(Timestamp::from(until).since(now))
    })
}

fn seconds(value: &str) -> Option<Duration> {
    let number = value.parse::<f64>().ok().filter(|number| number.is_finite())?;
    Some(Duration::try_from_secs_f64(number.max(0.0)).unwrap_or(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn asks(lines: &[(&str, &str)]) -> Option<u64> {
        let lines =
            lines.iter().map(|(n, v)| ((*n).to_owned(), Bytes::copy_from_slice(v.as_bytes())));
        // 2026-11-22 00:00:00 UTC
        retry_after(&Headers(lines.collect()), Timestamp::from_micros(1_795_305_600_000_000))
            .map(|wait| wait.as_secs())
    }

    #[test]
    fn attempts_span_their_longest_delays_and_no_more_than_the_horizon() {
        let two = |attempts_max, horizon| Backoff {
            attempts_max,
            horizon: Duration::from_secs(horizon),
            base: Duration::from_secs(1),
            factor: 2.0,
            ..Backoff::accepted()
        };
        assert_eq!(span(&two(1, 100)), Duration::ZERO);
        assert_eq!(span(&two(4, 100)), Duration::from_secs(1 + 2 + 4));
        assert_eq!(span(&two(40, 100)), Duration::from_secs(100));
        let table = vec![Duration::from_secs(5), Duration::from_secs(10)];
        assert_eq!(span(&Backoff { table, ..two(4, 100) }), Duration::from_secs(6 + 12 + 12));
    }

    #[test]
    fn retry_after_is_read_in_all_its_forms() {
        for (value, wait) in [
            ("120", Some(120)),
            ("1.5", Some(1)),
            ("-3", Some(0)),
            ("Sun, 22 Nov 2026 00:02:00 GMT", Some(120)),
            ("Sunday, 22-Nov-26 00:02:00 GMT", Some(120)),
            ("Sun Nov 22 00:02:00 2026", Some(120)),
            ("Sun, 22 Nov 2020 00:00:00 GMT", Some(0)),
            ("soon", None),
            ("99999999999", Some(24 * 3600)),
            ("NaN", None),
        ] {
            assert_eq!(asks(&[("retry-after", value)]), wait, "{value}");
        }
        assert_eq!(asks(&[("retry-after", "1"), ("retry-after", "9")]), Some(9));
        assert_eq!(asks(&[("ratelimit-reset", "7")]), Some(7));
        assert_eq!(
            asks(&[
                ("retry-after", "Sun, 22 Nov 2026 09:00:10 GMT"),
                ("date", "Sun, 22 Nov 2026 09:00:00 GMT")
            ]),
            Some(10),
            "by the upstream's own clock"
        );
    }

    proptest! {
        #[test]
        fn a_delay_lies_between_floor_and_cap(uuid in any::<u128>(), n in 1u32..200) {
            for backoff in [Backoff::held(), Backoff::accepted()] {
                let delay = delay(&backoff, OperationId::from_u128(uuid), n, None);
                prop_assert!(delay >= backoff.floor && delay <= backoff.cap);
            }
        }

        #[test]
        fn a_retry_after_is_never_cut_short(uuid in any::<u128>(), n in 1u32..20, asked in 0u64..90_000) {
            let asked = Duration::from_secs(asked).min(RETRY_AFTER_MAX);
            let delay = delay(&Backoff::held(), OperationId::from_u128(uuid), n, Some(asked));
            prop_assert!(delay >= asked);
        }

        #[test]
        fn any_header_is_read_or_ignored(value in proptest::collection::vec(any::<u8>(), 0..40)) {
            let headers = Headers(vec![("retry-after".into(), value.into())]);
            prop_assert!(retry_after(&headers, Timestamp::default()).is_none_or(|wait| wait <= RETRY_AFTER_MAX));
        }
    }

    #[test]
    fn delays_are_drawn_evenly_below_a_bound_that_grows() {
        let backoff = Backoff {
            base: Duration::from_secs(1),
            floor: Duration::from_millis(1),
            cap: Duration::from_secs(7),
            ..Backoff::held()
        };
        let ids: Vec<_> = (0..4000).map(|n| OperationId::new(n << 15, n * 0x9e37_79b9)).collect();
        for (n, bound) in [(1, 1000.0), (2, 2000.0), (3, 4000.0), (4, 7000.0), (5, 7000.0)] {
            let mut drawn: Vec<f64> =
                ids.iter().map(|id| delay(&backoff, *id, n, None).as_secs_f64() * 1000.0).collect();
            drawn.sort_by(f64::total_cmp);
            // Each tenth of the range has its tenth of the draws.
            for tenth in 0..10 {
                let range = bound * f64::from(tenth) / 10.0..bound * f64::from(tenth + 1) / 10.0;
                let share = drawn.iter().filter(|delay| range.contains(delay)).count();
                assert!((300..500).contains(&share), "attempt {n}, {tenth}: {share} of 4000");
            }
            drawn.dedup();
            assert!(drawn.len() > 3900, "attempt {n}: what failed together returns together");
        }
        let differs = ids.iter().filter(|id| {
            let at = |n| delay(&backoff, **id, n, None);
            at(4) != at(5)
        });
        assert!(differs.count() > 3900, "each attempt draws anew");
    }

    #[test]
    fn a_table_is_followed_and_its_last_delay_repeated() {
        let backoff = Backoff {
            table: vec![Duration::from_secs(10), Duration::from_secs(100)],
            ..Backoff::held()
        };
        let id = OperationId::from_u128(5);
        assert!((8..=12).contains(&delay(&backoff, id, 1, None).as_secs()));
        assert!((80..=120).contains(&delay(&backoff, id, 2, None).as_secs()));
        assert!((80..=120).contains(&delay(&backoff, id, 9, None).as_secs()));
    }
}
