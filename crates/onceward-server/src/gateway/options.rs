//! What a request asks of us, in its headers.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use onceward::core::policy::Effects;
use onceward::core::time::Timestamp;
use onceward::sabotage::Sabotage;
use onceward::{CallOptions, Refusal};

use super::IDEMPOTENCY_KEY;
use crate::problem::Problem;
use crate::{shape, units};

const PREFER: HeaderName = HeaderName::from_static("prefer");
const HOP: HeaderName = HeaderName::from_static("onceward-hop");

/// Through how many gateways a request may go: more is a circle.
const HOPS_MAX: u64 = 5;

/// The longest label.
pub(super) const LABEL_BYTES_MAX: usize = 200;

/// What a request asks of us.
pub(crate) fn options_of(headers: &HeaderMap) -> Result<CallOptions, Problem> {
    let mut options = CallOptions::default();
    let (mut hop, mut is_sent_on) = (None, false);
    for (name, value) in headers {
        if *name == PREFER {
            heed_preferences(value, &mut options);
            continue;
        }
        let Some(option) = name.as_str().strip_prefix("onceward-") else { continue };
        let invalid = |why: String| {
            Problem::new("option-invalid", format!("{name}: {why}; nothing was sent."))
        };
        let value = value.to_str().map_err(|_| invalid("it is not text".to_owned()))?.trim();
        let span = || units::duration(value).map_err(invalid);
        let instant = || {
            value
                .parse::<jiff::Timestamp>()
                .map_err(|_| invalid(format!("{value:?} is no time: write 2026-01-31T12:00:00Z")))
        };
        let micros = |at: jiff::Timestamp| Timestamp::from_micros(at.as_microsecond());
        match option {
            "delay" => options.not_before = Some(shape::now().plus(span()?)),
            "not-before" => options.not_before = Some(micros(instant()?)),
            "deadline" => options.deadline = Some(micros(instant()?)),
            "timeout" => options.timeout = Some(span()?),
            "attempts-max" => {
                let number = value.parse().ok().filter(|number| (1..=100).contains(number));
                options.attempts_max = Some(
                    number
                        .ok_or_else(|| invalid(format!("{value:?} is no number from 1 to 100")))?,
                );
            }
            "label" if value.len() > LABEL_BYTES_MAX => {
                return Err(invalid(format!("it is longer than {LABEL_BYTES_MAX} bytes")));
            }
            "label" => options.label = Some(value.to_owned()),
            "effects" => {
                let effects = Effects::from_name(value);
                options.effects = Some(effects.ok_or_else(|| {
                    invalid("write idempotent, keyed or non-idempotent".to_owned())
                })?);
            }
            "flow-key" => {
                let is_visible = value.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
                if value.is_empty() || value.len() > 255 || !is_visible {
                    return Err(invalid("write 1 to 255 visible ASCII characters".to_owned()));
                }
                options.flow = Some(value.to_owned());
            }
            "subject" if value.is_empty() || value.len() > 255 => {
                return Err(invalid("write 1 to 255 characters".to_owned()));
            }
            "subject" => options.subject = Some(value.to_owned()),
            "sequence" => {
                let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
                let number = value.parse().ok().filter(|_| is_number);
                options.sequence = Some(
                    number
                        .ok_or_else(|| invalid(format!("{value:?} is no whole number from 0")))?,
                );
            }
            "callback" => options.callback = Some(value.to_owned()),
            // Set by a gateway before us about its own operation.
            "attempt" => is_sent_on = true,
            "hop" => hop = Some(value),
            "operation" | "authorization" => {}
            _ => return Err(invalid("there is no such option".to_owned())),
        }
    }
    if options.sequence.is_some() && options.subject.is_none() {
        return Err(Problem::new(
            "option-invalid",
            "Onceward-Sequence counts within an Onceward-Subject, and there is none; nothing was sent.",
        ));
    }
    let waits = options.not_before.is_some_and(|at| at > shape::now());
    if waits && !options.respond_async {
        return Err(Problem::new(
            "option-invalid",
            "A call that is held cannot be delayed: send `Prefer: respond-async` with it; nothing was sent.",
        ));
    }
    if let Some(next) = next_hop(hop, is_sent_on)? {
        options.headers.insert(HOP, next);
    }
    Ok(options)
}

/// What the upstream is told of the gateways that a request came through: nothing where this is the
/// first. `hop` is what the one before said of those before it, and `is_sent_on` whether there is one,
/// which its attempt shows.
pub(crate) fn next_hop(
    hop: Option<&str>,
    is_sent_on: bool,
) -> Result<Option<HeaderValue>, Problem> {
    let hops = match hop {
        Some(hop) => hop.parse::<u64>().map_err(|_| {
            let why = format!("onceward-hop: {hop:?} is no number; nothing was sent.");
            Problem::new("option-invalid", why)
        })?,
        None => u64::from(is_sent_on),
    };
    if hops >= HOPS_MAX && !Sabotage::CircleUnended.is_on() {
        let why = format!(
            "It came through {hops} gateways and is sent no further: does an upstream lead back here?"
        );
        return Err(Problem::new("loop", why));
    }
    Ok((hops > 0).then(|| HeaderValue::from(hops.saturating_add(1))))
}

/// The key in a request's own header.
pub(crate) fn key_of(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let lines = headers.get_all(IDEMPOTENCY_KEY).iter().map(HeaderValue::as_bytes);
    let key = onceward::core::key::Key::from_field(lines)
        .map_err(|error| Problem::from(Refusal::KeyInvalid(error)))?;
    Ok(key.map(|key| key.as_str().to_owned()))
}

fn heed_preferences(prefer: &HeaderValue, options: &mut CallOptions) {
    for preference in prefer.to_str().unwrap_or_default().split(',').map(str::trim) {
        let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "respond-async" => options.respond_async = true,
            // An unreadable preference is passed over (RFC 7240, section 2).
            "wait" => {
                options.wait =
                    options.wait.or_else(|| value.trim().parse().ok().map(Duration::from_secs));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_goes_through_five_gateways_and_no_further() {
        let told = |lines: &[(&'static str, &str)]| {
            let lines =
                lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            let options = options_of(&lines.collect())?;
            Ok(options.headers.get(HOP).map(|hop| hop.to_str().unwrap().to_owned()))
        };
        let code = |told: Result<Option<String>, Problem>| told.unwrap_err().code;
        assert_eq!(told(&[]).unwrap(), None, "a caller's own");
        assert_eq!(told(&[("onceward-attempt", "1")]).unwrap().as_deref(), Some("2"));
        let hop = |hop| told(&[("onceward-attempt", "3"), ("onceward-hop", hop)]);
        assert_eq!(hop("2").unwrap().as_deref(), Some("3"));
        assert_eq!(hop("4").unwrap().as_deref(), Some("5"));
        for over in ["5", "6", "255", "18446744073709551615"] {
            assert_eq!(code(hop(over)), "loop", "{over}");
        }
        for other in ["", "-1", "two", "18446744073709551616"] {
            assert_eq!(code(hop(other)), "option-invalid", "{other}");
        }
    }
}
