//! When the same call is made again: by what the gateway advises, never by guessing.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Response};
use tokio::time::Instant;

use crate::call::Prepared;
use crate::error::Error;
use crate::keys::fill;
use crate::transport::{Transport, TransportError};

/// How often and how long a call is made again. All of it with one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Calls, the first one counted.
    pub attempts_max: u32,
    /// No further call begins later than this after the first one.
    pub horizon: Duration,
    /// The first pause; each further one is twice as long, and up to half of it is left to chance.
    pub base: Duration,
    /// The longest pause that this side chooses.
    pub cap: Duration,
    /// How long one call may take. The gateway answers within a minute where nothing else is said.
    pub timeout: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts_max: 5,
            horizon: Duration::from_mins(2),
            base: Duration::from_millis(200),
            cap: Duration::from_secs(5),
            timeout: Duration::from_secs(75),
        }
    }
}

/// The statuses that whatever stands between us and the gateway says of itself.
const BETWEEN: [u16; 4] = [429, 502, 503, 504];

/// What is asked for in `Retry-After`: seconds, or a date.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get("retry-after")?.to_str().ok()?.trim();
    if (1..=9).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_digit()) {
        return text.parse().ok().map(Duration::from_secs);
    }
    let at = httpdate::parse_http_date(text).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}

/// Whether the same call may bring more than this answer.
fn may_help(answer: &Response<Bytes>, is_keyed: bool) -> bool {
    let status = answer.status().as_u16();
    if let Some(advice) = answer.headers().get("onceward-advice") {
        return status >= 400 && (advice == "same-key" || advice == "wait");
    }
    // Every keyed answer of the gateway's names its operation: this one is of a proxy before it.
    let is_foreign = !answer.headers().contains_key("onceward-operation");
    is_foreign && is_keyed && BETWEEN.contains(&status)
}

/// Makes a call until its answer cannot get better by making it again: with the key and the bytes
/// that it had the first time. It is given `extra` beyond the time that the policy gives each call.
pub(crate) async fn retrying(
    transport: &dyn Transport,
    call: &Prepared,
    policy: &RetryPolicy,
    extra: Duration,
) -> Result<Response<Bytes>, Error> {
    let begun = Instant::now();
    let mut attempt = 1;
    loop {
        let failure = match ask(transport, call, policy.timeout.saturating_add(extra)).await {
            Ok(answer) if !may_help(&answer, call.key.is_some()) => return Ok(answer),
            Ok(answer) => Ok(answer),
            Err(TransportError::NoAnswer(error)) => Err(error),
            Err(TransportError::TooLarge(bytes_max)) => {
                return Err(Error::AnswerTooLarge(bytes_max));
            }
        };
        let asked =
            failure.as_ref().ok().and_then(|it| retry_after(it.headers(), SystemTime::now()));
        let wait = drawn(policy, attempt).max(asked.unwrap_or_default());
        let is_late = begun.elapsed().saturating_add(wait) > policy.horizon;
        if attempt >= policy.attempts_max || is_late {
            return failure.map_err(|source| Error::Unreachable { key: call.key.clone(), source });
        }
        tokio::time::sleep(wait).await;
        attempt += 1;
    }
}

async fn ask(
    transport: &dyn Transport,
    call: &Prepared,
    timeout: Duration,
) -> Result<Response<Bytes>, TransportError> {
    let answered = tokio::time::timeout(timeout, transport.call(call.request())).await;
    let late = || format!("no answer within {} ms", timeout.as_millis());
    answered.unwrap_or_else(|_| Err(TransportError::NoAnswer(late().into())))
}

/// The pause after an attempt, where nothing longer is asked for: chance keeps many callers apart.
fn drawn(policy: &RetryPolicy, attempt: u32) -> Duration {
    let longest = policy.base.saturating_mul(1 << (attempt - 1).min(20)).min(policy.cap);
    let mut byte = [0];
    fill(&mut byte);
    longest.mul_f64(0.5 + f64::from(byte[0]) / 512.0)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_wait_is_read_in_seconds_or_as_a_date() {
        // 2026-01-01T00:00:00Z.
        let now = UNIX_EPOCH + Duration::from_hours(490_896);
        let asked = |text: &str| {
            let headers =
                HeaderMap::from_iter([(http::header::RETRY_AFTER, text.parse().unwrap())]);
            retry_after(&headers, now).map(|wait| wait.as_secs())
        };
        assert_eq!(asked("7"), Some(7));
        assert_eq!(asked("Thu, 01 Jan 2026 00:00:09 GMT"), Some(9));
        assert_eq!(asked("Wed, 31 Dec 2025 00:00:00 GMT"), Some(0));
        for wrong in ["soon", "", "-1", "1.5", "12345678901"] {
            assert_eq!(asked(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn pauses_grow_to_their_cap_and_no_further() {
        let policy = RetryPolicy::default();
        for (attempt, longest) in [(1, 200), (2, 400), (6, 5000), (4_000_000_000, 5000)] {
            let longest = Duration::from_millis(longest);
            let pause = drawn(&policy, attempt);
            assert!(longest / 2 <= pause && pause <= longest, "{attempt}: {pause:?}");
        }
    }
}
