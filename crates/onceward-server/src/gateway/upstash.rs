//! `Upstash-…`, as callers of QStash write what they ask for: taken for our own options where both mean the same,
//! and refused where not. Only where a route says `compatibility = ["upstash"]`: elsewhere they are the upstream's.

use http::{HeaderMap, HeaderName, Method};
use onceward::CallOptions;
use onceward::core::exchange;
use onceward::core::key::Key;
use onceward::core::time::Timestamp;

use super::{IDEMPOTENCY_KEY, LABEL_BYTES_MAX};
use crate::problem::Problem;
use crate::{shape, units};

const BEGIN: &str = "upstash-";

/// What QStash says of a message that it delivers: no option, and for whoever verifies it.
const OF_DELIVERIES: [&str; 4] = ["signature", "message-id", "retried", "caller-ip"];

/// The last second of the year 9999: times are written with four digits of it.
const SECONDS_MAX: i64 = 253_402_300_799;

/// What has no equal, by how it begins, and what there is.
const WITHOUT_EQUAL: [(&str, &str); 10] = [
    (
        "callback",
        "what a callback of ours tells is another document: say Onceward-Callback, and read it there",
    ),
    (
        "failure-callback",
        "Onceward-Callback is told of every end, a failure too, in a document of its own",
    ),
    (
        "content-based-deduplication",
        "a key of the content is a route's: key = { template = \"{json:/id}\" }",
    ),
    ("flow-control-value", "the limits of a flow are a route's: [routes.NAME.flow]"),
    ("retry-delay", "the delays between attempts are a route's: retry"),
    ("redact-fields", "what people do not see is a route's: redact"),
    ("cron", "there are no schedules"),
    ("schedule-id", "there are no schedules"),
    ("queue", "an order is a subject's: Onceward-Subject, and order = \"subject\" on the route"),
    ("url-group", "one event for several is published: POST /v1/events"),
];

/// Refuses what is asked for so where a document or a row has words of ours for all of it: it would go to
/// the upstream unheeded.
pub(super) fn refuse(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(name) = headers.keys().find(|name| option_of(name).is_some()) else { return Ok(()) };
    Err(Problem::new(
        "option-invalid",
        format!(
            "{name}: it is heeded at /to alone, and here a member or a column says the same; nothing was sent."
        ),
    ))
}

/// Takes what a caller asks for so out of `headers`, and into `options`. `keys` are the headers that carry
/// a key here.
pub(super) fn heed(
    headers: &mut HeaderMap,
    method: &Method,
    keys: &[String],
    options: &mut CallOptions,
) -> Result<(), Problem> {
    let names = headers.keys().filter(|name| option_of(name).is_some()).cloned();
    let names: Vec<HeaderName> = names.collect();
    // When, as far as it is said here.
    let mut at = None;
    for name in &names {
        let option = option_of(name).unwrap_or_default();
        let invalid =
            |why: &str| Problem::new("option-invalid", format!("{name}: {why}; nothing was sent."));
        let mut lines = headers.get_all(name).iter();
        let (Some(value), None) = (lines.next().cloned(), lines.next()) else {
            return Err(invalid("it is there more than once"));
        };
        if let Some(forwarded) = option.strip_prefix("forward-") {
            let forwarded = sendable(forwarded, keys).map_err(invalid)?;
            headers.remove(name);
            headers.insert(forwarded, value);
            continue;
        }
        let text = value.to_str().map_err(|_| invalid("it is not text"))?.trim().to_owned();
        let span = || units::duration(&text).map_err(|why| invalid(&why));
        let is_said = match option {
            "retries" => options.attempts_max.is_some(),
            "delay" | "not-before" => options.not_before.is_some() && at.is_none(),
            "timeout" => options.timeout.is_some(),
            "label" => options.label.is_some(),
            "flow-control-key" => options.flow.is_some(),
            "deduplication-id" => {
                let is_there = |name: &String| headers.contains_key(name.as_str());
                options.key.is_some()
                    || headers.contains_key(IDEMPOTENCY_KEY)
                    || keys.iter().any(is_there)
            }
            _ => false,
        };
        if is_said {
            return Err(invalid("an option of ours says the same beside it: keep one of them"));
        }
        match option {
            "retries" => {
                let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
                let read = if is_plain { text.parse().ok() } else { None };
                let retries = read.filter(|retries: &u32| *retries <= 99);
                let retries = retries.ok_or_else(|| invalid("write a number from 0 to 99"))?;
                // What they count comes after the first.
                options.attempts_max = Some(retries + 1);
            }
            "delay" => {
                // A time goes before a delay.
                at = at.or(Some(shape::now().plus(span()?)));
                options.not_before = at;
            }
            "not-before" => {
                let seconds = text.parse().ok().filter(|at| (0..=SECONDS_MAX).contains(at));
                let seconds: i64 = seconds.ok_or_else(|| invalid("write seconds since 1970"))?;
                at = Some(Timestamp::from_micros(seconds * 1_000_000));
                options.not_before = at;
            }
            "timeout" => options.timeout = Some(span()?),
            "label" if text.len() > LABEL_BYTES_MAX => {
                return Err(invalid(&format!("it is longer than {LABEL_BYTES_MAX} bytes")));
            }
            "label" => options.label = Some(text),
            "deduplication-id" => {
                let key = Key::new(&text).map_err(|why| invalid(&why.to_string()))?;
                options.key = Some(key.as_str().to_owned());
            }
            "flow-control-key" => {
                let is_visible = text.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
                if text.is_empty() || text.len() > 255 || !is_visible {
                    return Err(invalid("write 1 to 255 visible ASCII characters"));
                }
                options.flow = Some(text);
            }
            "method" if text.eq_ignore_ascii_case(method.as_str()) => {}
            "method" => {
                return Err(invalid("a request goes on by its own method: send it with that one"));
            }
            _ => {
                let known = WITHOUT_EQUAL.iter().find(|(begin, _)| option.starts_with(begin));
                return Err(invalid(known.map_or("there is no such option", |(_, why)| why)));
            }
        }
        headers.remove(name);
    }
    // Who asks so waits for nothing but that it is taken.
    options.respond_async |= !names.is_empty();
    Ok(())
}

/// What is asked for, where it is something that is asked for.
fn option_of(name: &HeaderName) -> Option<&str> {
    let option = name.as_str().strip_prefix(BEGIN)?;
    (!OF_DELIVERIES.contains(&option)).then_some(option)
}

/// A header that a caller has sent on: one that goes on, and is no key.
fn sendable(name: &str, keys: &[String]) -> Result<HeaderName, &'static str> {
    let is_key = keys.iter().any(|key| key == name);
    let goes_on = exchange::is_forwarded(name) && !name.starts_with(BEGIN) && !is_key;
    let read = name.parse().ok().filter(|_| goes_on);
    read.ok_or("what a connection, a proxy or a key says is not for a caller to have sent on")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    type Lines<'a> = &'a [(&'static str, &'a str)];

    fn heeded(lines: Lines<'_>) -> Result<(HeaderMap, CallOptions), String> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        let mut options = CallOptions::default();
        let keys = ["idempotency-key".to_owned(), "paypal-request-id".to_owned()];
        heed(&mut headers, &Method::POST, &keys, &mut options).map_err(|problem| {
            assert_eq!(problem.code, "option-invalid");
            problem.detail.clone()
        })?;
        Ok((headers, options))
    }

    #[test]
    fn what_means_the_same_is_one_of_our_options_and_goes_no_further() {
        let before = shape::now();
        let (headers, options) = heeded(&[
            ("upstash-retries", "3"),
            ("upstash-delay", "1d2h"),
            ("upstash-deduplication-id", "order 7"),
            ("upstash-timeout", "30s"),
            ("upstash-label", "orders"),
            ("upstash-flow-control-key", "acme"),
            ("upstash-method", "POST"),
            ("upstash-forward-x-tenant", "acme"),
            ("upstash-signature", "eyJ"),
            ("content-type", "text/plain"),
        ])
        .unwrap();
        assert_eq!(options.attempts_max, Some(4));
        let late = options.not_before.unwrap().since(before);
        assert!(late >= Duration::from_hours(26) && late < Duration::from_hours(27));
        assert_eq!(options.key.as_deref(), Some("order 7"));
        assert_eq!(options.timeout, Some(Duration::from_secs(30)));
        assert_eq!(
            (options.label.as_deref(), options.flow.as_deref()),
            (Some("orders"), Some("acme"))
        );
        assert!(options.respond_async);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-type", "upstash-signature", "x-tenant"]);
        // Whose call has none of it stays as it is.
        let (_, options) = heeded(&[("upstash-signature", "eyJ"), ("x", "y")]).unwrap();
        assert!(!options.respond_async);
        // A time goes before a delay, whichever stands first.
        for lines in [
            [("upstash-delay", "1h"), ("upstash-not-before", "4000000000")],
            [("upstash-not-before", "4000000000"), ("upstash-delay", "1h")],
        ] {
            let (_, options) = heeded(&lines).unwrap();
            assert_eq!(options.not_before, Some(Timestamp::from_micros(4_000_000_000_000_000)));
        }
    }

    #[test]
    fn what_means_something_else_or_cannot_be_read_is_refused() {
        for (name, value, why) in [
            ("upstash-retries", "-1", "0 to 99"),
            ("upstash-retries", "100", "0 to 99"),
            ("upstash-delay", "soon", "duration"),
            ("upstash-not-before", "2026-01-31", "1970"),
            ("upstash-callback", "https://a.example", "Onceward-Callback"),
            ("upstash-callback-retries", "1", "Onceward-Callback"),
            ("upstash-failure-callback", "https://a.example", "Onceward-Callback"),
            ("upstash-content-based-deduplication", "true", "template"),
            ("upstash-flow-control-value", "rate=1", "flow"),
            ("upstash-cron", "* * * * *", "no schedules"),
            ("upstash-method", "PUT", "its own method"),
            ("upstash-deduplication-id", "", ""),
            ("upstash-forward-idempotency-key", "k", "not for a caller"),
            ("upstash-forward-onceward-delay", "1h", "not for a caller"),
            ("upstash-forward-host", "a", "not for a caller"),
            ("upstash-forward-x-forwarded-for", "a", "not for a caller"),
            ("upstash-forward-accept-encoding", "a", "not for a caller"),
            ("upstash-forward-a_b", "a", "not for a caller"),
            ("upstash-forward-paypal-request-id", "a", "not for a caller"),
            ("upstash-retries", "+3", "0 to 99"),
            ("upstash-what", "a", "no such option"),
        ] {
            let refused = heeded(&[(name, value)]).unwrap_err();
            assert!(refused.starts_with(name) && refused.contains(why), "{name}: {refused}");
            assert!(refused.ends_with("nothing was sent."), "{refused}");
        }
        let twice = heeded(&[("upstash-retries", "1"), ("upstash-retries", "2")]);
        assert!(twice.unwrap_err().contains("more than once"));
        for key in ["idempotency-key", "paypal-request-id"] {
            let both = heeded(&[("upstash-deduplication-id", "a"), (key, "b")]);
            assert!(both.unwrap_err().contains("keep one"), "{key}");
        }
    }
}
