//! What a request asks of us, in its headers.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use onceward::core::id::OperationId;
use onceward::core::policy::Effects;
use onceward::core::time::Timestamp;
use onceward::sabotage::Sabotage;
use onceward::{CallOptions, Refusal};

use super::IDEMPOTENCY_KEY;
use crate::contract::Contract;
use crate::problem::Problem;
use crate::{shape, units};

const PREFER: HeaderName = HeaderName::from_static("prefer");
const HOP: HeaderName = HeaderName::from_static("onceward-hop");

/// Through how many gateways a request may go: more is a circle.
const HOPS_MAX: u64 = 5;

/// The longest label.
pub(crate) const LABEL_BYTES_MAX: usize = 200;

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
            "parent" => {
                let (parent, key) = parent_of(value).map_err(invalid)?;
                if key.is_some() && headers.contains_key(IDEMPOTENCY_KEY) {
                    return Err(invalid("a step makes a key, and there is another".to_owned()));
                }
                (options.parent, options.key) = (Some(parent), key);
            }
            // Heard where its caller was admitted; a row of an outbox may say it too.
            "contract" => _ = Contract::named(value).map_err(invalid)?,
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

/// What is asked in a document says there what it wants of us: an option of the request around it would be for
/// nobody, and is refused.
pub(crate) fn refuse_options(headers: &HeaderMap) -> Result<(), Problem> {
    let prefers = |value: &HeaderValue| {
        let mut said = CallOptions::default();
        heed_preferences(value, &mut said);
        said.respond_async || said.wait.is_some()
    };
    let option =
        headers.iter().find(|(name, value)| match name.as_str().strip_prefix("onceward-") {
            // Who asks, by which version, and what a gateway before us says of an operation of its own.
            Some("authorization" | "contract" | "operation" | "attempt" | "hop") => false,
            Some(_) => true,
            None => **name == PREFER && prefers(value),
        });
    let Some((name, _)) = option else { return Ok(()) };
    let why =
        format!("{name}: what is asked in a document says there what it wants; nothing was sent.");
    Err(Problem::new("option-invalid", why))
}

/// The operation that a call is part of, `op_…`, and the key that a step of it makes, `op_…; step=NAME`: the
/// same step of the same operation is the same call, whoever makes it again.
fn parent_of(value: &str) -> Result<(OperationId, Option<String>), String> {
    let (id, step) = match value.split_once(';') {
        None => (value, None),
        Some((id, parameter)) => {
            let step = parameter.trim().strip_prefix("step=").map(|step| step.trim_matches('"'));
            let wrong = || format!("{:?} is no parameter: write step=NAME", parameter.trim());
            (id.trim_end(), Some(step.ok_or_else(wrong)?))
        }
    };
    let parent: OperationId = id.parse().map_err(|why| format!("{id:?} is {why}"))?;
    let is_sign = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    match step {
        None => Ok((parent, None)),
        Some(step) if (1..=100).contains(&step.len()) && step.bytes().all(is_sign) => {
            Ok((parent, Some(format!("{parent}/{step}"))))
        }
        Some(_) => Err("a step is 1 to 100 letters, digits and `-`, `_`, `.`, `/`".to_owned()),
    }
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
    fn around_a_document_no_option_is_passed_over() {
        let refused = |lines: &[(&'static str, &'static str)]| {
            let line = |&(name, value): &(&'static str, &'static str)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            refuse_options(&lines.iter().map(line).collect()).err().map(|problem| problem.code)
        };
        for option in [
            ("onceward-callback", "https://a.example"),
            ("onceward-deadline", "2027-01-31T12:00:00Z"),
            ("onceward-nonsense", "1"),
            ("prefer", "respond-async"),
            ("prefer", "handling=strict, wait=5"),
        ] {
            assert_eq!(refused(&[option]), Some("option-invalid"), "{option:?}");
        }
        let others = [
            ("onceward-authorization", "Bearer ow_1"),
            ("onceward-contract", "2026-11"),
            ("onceward-operation", "op_01kb2n9f5nep3b8m6wq6r9t2vx"),
            ("onceward-attempt", "1"),
            ("onceward-hop", "1"),
            ("idempotency-key", "k"),
            ("prefer", "handling=strict"),
        ];
        assert_eq!(refused(&others), None);
    }

    #[test]
    fn a_step_of_a_parent_makes_a_key_and_what_is_no_step_is_refused() {
        let id = "op_01kb2n9f5nep3b8m6wq6r9t2vx";
        let read = |value: &str| parent_of(value).map(|(parent, key)| (parent.to_string(), key));
        assert_eq!(read(id), Ok((id.to_owned(), None)));
        for step in ["step=charge", "step=\"charge\""] {
            let key = Some(format!("{id}/charge"));
            assert_eq!(read(&format!("{id}; {step}")), Ok((id.to_owned(), key)));
        }
        for wrong in ["", "op_1", &format!("{id};"), &format!("{id}; step="), &format!("{id}; a=b")]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

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
