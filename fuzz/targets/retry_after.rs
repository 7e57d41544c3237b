//! `Retry-After` and `RateLimit-Reset`: read or passed over, never longer than is believed, and
//! never cut short.

use std::time::Duration;

use bytes::Bytes;
use onceward::core::backoff::{RETRY_AFTER_MAX, delay, retry_after};
use onceward::core::exchange::Headers;
use onceward::core::id::OperationId;
use onceward::core::policy::Backoff;
use onceward::core::time::Timestamp;
use onceward_fuzz::Fuzz;

const WORDS: &[&str] = &[
    "retry-after: ",
    "ratelimit-reset: ",
    "date: ",
    "\n",
    "120",
    "1.5",
    "inf",
    "nan",
    "-0",
    "1e9",
    "Sun, 22 Nov 2026 00:02:00 GMT",
    "Sunday, 22-Nov-26 00:02:00 GMT",
    "Sun Nov 22 00:02:00 2026",
    "Mon, 01 Jan 0001 00:00:00 GMT",
    "Fri, 31 Dec 9999 23:59:59 GMT",
    "Thu, 29 Feb 2024 12:00:60 GMT",
];

/// 2026-11-22 00:00:00 UTC.
const NOW: Timestamp = Timestamp::from_micros(1_795_305_600_000_000);

/// Header lines, one a line of text.
fn headers(input: &[u8]) -> Headers {
    let line = |line: &[u8]| {
        let at = line.iter().position(|byte| *byte == b':')?;
        let name = String::from_utf8_lossy(&line[..at]).to_ascii_lowercase();
        Some((name, Bytes::copy_from_slice(line[at + 1..].trim_ascii())))
    };
    Headers(input.split(|byte| *byte == b'\n').filter_map(line).collect())
}

#[test]
fn what_an_answer_asks_is_waited_for_and_never_for_longer_than_is_believed() {
    Fuzz::new("retry_after", 20_000, WORDS).run(|input| {
        let headers = headers(input);
        let asked = retry_after(&headers, NOW);
        assert!(asked.is_none_or(|asked| asked <= RETRY_AFTER_MAX));
        let whole = |line: &Bytes| {
            let is_short = (1..=8).contains(&line.len()) && line.iter().all(u8::is_ascii_digit);
            is_short.then(|| std::str::from_utf8(line).ok()?.parse().ok()).flatten()
        };
        if let Some(seconds) = headers.all("retry-after").filter_map(whole).max() {
            let least = Duration::from_secs(seconds).min(RETRY_AFTER_MAX);
            assert!(asked.is_some_and(|asked| asked >= least), "the longest of several counts");
        }
        for backoff in [Backoff::held(), Backoff::accepted()] {
            let wait = delay(&backoff, OperationId::from_u128(7), 3, asked);
            assert!(asked.is_none_or(|asked| wait >= asked), "never earlier than asked");
        }
        let mut more = headers.clone();
        more.0.push(("retry-after".to_owned(), Bytes::from_static(b"0")));
        // Where no line can be read the other header counts, and then no more.
        if headers.get("retry-after").is_some() && headers.get("ratelimit-reset").is_none() {
            assert!(retry_after(&more, NOW) >= asked, "one line more never shortens it");
        }
        asked.map(|asked| asked.as_secs().checked_ilog2())
    });
}
