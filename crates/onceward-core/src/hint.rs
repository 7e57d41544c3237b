//! What an upstream's answer says itself about asking again: heard before any table of statuses.
//!
//! A hint says whether asking again is worth while, and when. Only where it also says that nothing
//! was done may it let a request be sent again whose second arrival would be a second effect: else
//! what may follow an answer that leaves the effect open is for the route's effects to say.

use std::time::Duration;

use crate::backoff::{self, RETRY_AFTER_MAX};
use crate::exchange::Headers;
use crate::time::Timestamp;

/// A header in which some upstreams give hints. A route names the ones that it believes: what one
/// API means by a header, another may send for a reason of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HintHeader {
    /// `Stripe-Should-Retry: true | false`, which Stripe's SDKs obey before any status.
    StripeShouldRetry,
    /// `x-should-retry: true | false`, which the SDKs that Stainless generates obey likewise.
    XShouldRetry,
    /// `transient-error: true | false`. Adyen: whether the same key may be sent again; where it
    /// may, the error "has no side effects" (docs.adyen.com, API idempotency, error handling).
    TransientError,
    /// `webhook-delivery: abort-message | disable`, by which a receiver of Svix's webhooks wants
    /// no more of this message.
    WebhookDelivery,
    /// `x-amz-retry-after`, milliseconds: the AWS SDKs.
    XAmzRetryAfter,
    /// `retry-after-ms`, milliseconds: Azure, and the SDKs that Stainless generates.
    RetryAfterMs,
    /// `x-ms-retry-after-ms`, milliseconds: Azure.
    XMsRetryAfterMs,
    /// `grpc-retry-pushback-ms`, milliseconds; negative or unreadable means never (gRPC A6).
    GrpcRetryPushbackMs,
}

impl HintHeader {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::StripeShouldRetry,
        Self::XShouldRetry,
        Self::TransientError,
        Self::WebhookDelivery,
        Self::XAmzRetryAfter,
        Self::RetryAfterMs,
        Self::XMsRetryAfterMs,
        Self::GrpcRetryPushbackMs,
    ];

    /// The header's name in lower case, which is its word in configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::StripeShouldRetry => "stripe-should-retry",
            Self::XShouldRetry => "x-should-retry",
            Self::TransientError => "transient-error",
            Self::WebhookDelivery => "webhook-delivery",
            Self::XAmzRetryAfter => "x-amz-retry-after",
            Self::RetryAfterMs => "retry-after-ms",
            Self::XMsRetryAfterMs => "x-ms-retry-after-ms",
            Self::GrpcRetryPushbackMs => "grpc-retry-pushback-ms",
        }
    }

    /// Reads the word.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|header| header.name() == name)
    }

    /// What one line of this header says. What cannot be read says nothing.
    fn read(self, line: &str) -> Hint {
        let again = |again| Hint { again: Some(again), ..Hint::default() };
        match self {
            Self::StripeShouldRetry | Self::XShouldRetry | Self::TransientError => {
                match line.to_ascii_lowercase().as_str() {
                    "true" => Hint { nothing_done: self == Self::TransientError, ..again(true) },
                    "false" => again(false),
                    _ => Hint::default(),
                }
            }
            Self::WebhookDelivery => match line.to_ascii_lowercase().as_str() {
                "abort" | "abort-message" | "disable" => again(false),
                _ => Hint::default(),
            },
            Self::XAmzRetryAfter | Self::RetryAfterMs | Self::XMsRetryAfterMs => {
                Hint { wait: milliseconds(line), ..Hint::default() }
            }
            Self::GrpcRetryPushbackMs => match milliseconds(line) {
                None => again(false),
                wait => Hint { wait, ..Hint::default() },
            },
        }
    }
}

/// What an answer says about asking again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hint {
    /// Whether asking again may help; nothing where the answer does not say.
    pub again: Option<bool>,
    /// Whether the answer says that nothing was done.
    pub nothing_done: bool,
    /// How long to wait before it, at most [`RETRY_AFTER_MAX`].
    pub wait: Option<Duration>,
}

impl Hint {
    /// Reads the headers that are `believed`, and `Retry-After` and `RateLimit-Reset`, which are
    /// for every upstream. Where hints disagree, the one that asks less of the upstream counts:
    /// not again, and the longest wait.
    pub fn of(headers: &Headers, believed: &[HintHeader], now: Timestamp) -> Self {
        let mut hint = Self { wait: backoff::retry_after(headers, now), ..Self::default() };
        for header in believed {
            let lines =
                headers.all(header.name()).filter_map(|line| std::str::from_utf8(line).ok());
            for said in lines.map(|line| header.read(line.trim())) {
                hint.again = match (hint.again, said.again) {
                    (Some(one), Some(other)) => Some(one && other),
                    (one, other) => one.or(other),
                };
                hint.nothing_done |= said.nothing_done;
                hint.wait = hint.wait.max(said.wait);
            }
        }
        hint.nothing_done &= hint.again == Some(true);
        hint
    }
}

/// A number of milliseconds, fractions too; nothing where it is negative or none.
fn milliseconds(line: &str) -> Option<Duration> {
    let number = line.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0)?;
    let wait = Duration::try_from_secs_f64(number / 1000.0).unwrap_or(RETRY_AFTER_MAX);
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn heard(lines: &[(&str, &str)], believed: &[HintHeader]) -> (Option<bool>, Option<u128>) {
        let lines =
            lines.iter().map(|(n, v)| ((*n).to_owned(), Bytes::copy_from_slice(v.as_bytes())));
        let hint = Hint::of(&Headers(lines.collect()), believed, Timestamp::default());
        (hint.again, hint.wait.map(|wait| wait.as_millis()))
    }

    #[test]
    fn every_hint_is_read_where_it_is_believed_and_only_there() {
        for (name, value, again, wait) in [
            ("stripe-should-retry", "true", Some(true), None),
            ("stripe-should-retry", "false", Some(false), None),
            ("stripe-should-retry", "perhaps", None, None),
            ("x-should-retry", " False ", Some(false), None),
            ("transient-error", "true", Some(true), None),
            ("webhook-delivery", "abort-message", Some(false), None),
            ("webhook-delivery", "disable", Some(false), None),
            ("webhook-delivery", "ok", None, None),
            ("x-amz-retry-after", "1500", None, Some(1500)),
            ("retry-after-ms", "20.5", None, Some(20)),
            ("x-ms-retry-after-ms", "-1", None, None),
            ("grpc-retry-pushback-ms", "0", None, Some(0)),
            ("grpc-retry-pushback-ms", "-1", Some(false), None),
            ("grpc-retry-pushback-ms", "soon", Some(false), None),
        ] {
            assert_eq!(heard(&[(name, value)], &HintHeader::ALL), (again, wait), "{name}: {value}");
            assert_eq!(heard(&[(name, value)], &[]), (None, None), "{name}: not believed");
        }
        assert_eq!(heard(&[("retry-after", "2")], &[]), (None, Some(2000)), "a standard is heard");
    }

    #[test]
    fn where_hints_disagree_the_careful_one_counts() {
        let all = &HintHeader::ALL;
        let stop = [("x-should-retry", "true"), ("stripe-should-retry", "false")];
        assert_eq!(heard(&stop, all).0, Some(false));
        let twice = [("x-should-retry", "false"), ("x-should-retry", "true")];
        assert_eq!(heard(&twice, all).0, Some(false));
        let waits = [("retry-after", "1"), ("retry-after-ms", "3000"), ("x-amz-retry-after", "5")];
        assert_eq!(heard(&waits, all).1, Some(3000));
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_ignored(which in 0..HintHeader::ALL.len(), value in proptest::collection::vec(any::<u8>(), 0..40)) {
            let headers = Headers(vec![(HintHeader::ALL[which].name().into(), value.into())]);
            let hint = Hint::of(&headers, &HintHeader::ALL, Timestamp::default());
            prop_assert!(hint.wait.is_none_or(|wait| wait <= RETRY_AFTER_MAX));
        }
    }
}
