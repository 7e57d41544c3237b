//! A call in one JSON document: the same pipeline, its answer in one document too.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use onceward::core::condition::Condition;
use onceward::core::exchange::{self, Headers};
use onceward::core::lookup::LookupRule;
use onceward::core::policy::{Effects, UpstreamKeyValue};
use onceward::core::trace::TRACEPARENT;
use onceward::edge::tell_aside;
use onceward::{Answer, Answered, Call};
use serde::Deserialize;
use serde_json::{Value, json};

use super::options::LABEL_BYTES_MAX;
use super::{Gateway, IDEMPOTENCY_KEY, check_sendable, key_of, options_of};
use crate::access::{Caller, check_route};
use crate::body::{Body, headers_of};
use crate::problem::Problem;
use crate::telemetry::traces::{self, Traced};
use crate::{shape, units};

/// A call in one document.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Document {
    /// A route, with or without a path, or an ad hoc URL.
    to: String,
    #[serde(default = "post")]
    method: String,
    path: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Text as it stands; anything else as JSON.
    body: Option<Value>,
    body_base64: Option<String>,
    key: Option<String>,
    /// `held` or `accepted`.
    mode: Option<String>,
    wait: Option<String>,
    label: Option<String>,
    subject: Option<String>,
    sequence: Option<u64>,
    flow_key: Option<String>,
}

impl Document {
    /// The key may stand in the document or in the request's own header.
    pub(crate) fn take_key(&mut self, headers: &HeaderMap) -> Result<(), Problem> {
        if self.key.is_some() {
            return Ok(());
        }
        self.key = key_of(headers)?;
        Ok(())
    }

    /// What it asks for goes on with the trace that it comes from, where it names none itself.
    pub(crate) fn take_trace(&mut self, headers: &HeaderMap) {
        if self.headers.keys().any(|name| name.eq_ignore_ascii_case(TRACEPARENT)) {
            return;
        }
        for name in [TRACEPARENT, "tracestate"] {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            self.headers.extend(value.map(|value| (name.to_owned(), value.to_owned())));
        }
    }
}

impl Gateway {
    /// Answers `POST /v1/operations`: the same pipeline, its answer in one document.
    pub(crate) async fn send(
        &self,
        document: Document,
        caller: Caller,
        traced: Option<Traced>,
    ) -> Result<Response<Body>, Problem> {
        let (mut call, _) = self.call_of(document, caller)?;
        traces::watch(traced.as_ref(), &mut call.options);
        let aside = Arc::clone(&call.options.aside);
        let (status, shown, operation) = match self.engine.call(call).await? {
            Answer::Accepted(operation) => {
                (StatusCode::ACCEPTED, shape::operation(&operation, None, true), *operation)
            }
            Answer::Upstream(answered) => {
                let Answered { operation, response, rest, replayed } = *answered;
                let mut shown = shape::operation(&operation, None, true);
                shown["replayed"] = json!(replayed);
                shown["response"] =
                    response_document(response.status, &response.headers, &response.body);
                if rest.is_some() {
                    shown["response"]["cut"] = json!(true);
                }
                (StatusCode::OK, shown, operation)
            }
            Answer::Passed { .. } => {
                return Err(Problem::new(
                    "request-invalid",
                    "a method that only reads has no operation: send it through /to",
                ));
            }
        };
        let mut response =
            Response::new(Body::full(serde_json::to_vec(&shown).unwrap_or_default().into()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        shape::describe(headers, &operation);
        tell_aside(headers, &aside);
        if let Ok(location) = HeaderValue::from_str(&shape::url_of(operation.id)) {
            headers.insert(header::LOCATION, location);
        }
        Ok(response)
    }

    /// Answers `POST /v1/explain`: what the call would be; nothing is sent.
    pub(crate) fn explain(&self, document: Document, caller: Caller) -> Result<Value, Problem> {
        let (call, key_given) = self.call_of(document, caller)?;
        let route = call.route.clone();
        let arrival = match self.engine.explain(call)? {
            onceward::Received::Pass(request) => {
                return Ok(
                    json!({"route": route, "method": request.method, "record": false, "why": "it only reads, or its route lets it pass without a key"}),
                );
            }
            onceward::Received::Keyed(arrival) => arrival,
        };
        let retried = |unsafe_too: bool| match arrival.effects {
            Effects::NonIdempotent if unsafe_too => "in doubt, never sent again by itself",
            _ => "retried",
        };
        let parts =
            onceward::core::fingerprint::Part::ALL.map(onceward::core::fingerprint::Part::name);
        let hex = |digest: [u8; 16]| format!("{:032x}", u128::from_be_bytes(digest));
        let after = if arrival.mail.is_some() {
            json!({
                "unsent": "retried",
                "a reply of 4xx": "retried, for those who do not have it",
                "no reply after the last dot": retried(true),
                "a reply of 5xx": "returned, and the same key may run again",
            })
        } else {
            json!({
                "unsent": "retried",
                "408, 421, 425, 429": "retried",
                "no answer": retried(true),
                "500, 502, 503, 504, 507, 52x": retried(true),
                "401, 403 and other refusals": "returned, and the same key may run again",
                "other 4xx": "final, and replayed",
            })
        };
        let mail = arrival.mail.as_ref().map(|mail| {
            json!({"from": mail.from, "to": mail.to, "subject": mail.subject, "bytes": mail.bytes()})
        });
        Ok(json!({
            "route": route,
            "record": true,
            "mail": mail,
            "key": arrival.key.as_str(),
            "key_given": key_given,
            "mode": arrival.mode.name(),
            "flow": arrival.options.flow,
            "subject": shape::subject(arrival.options.subject.as_deref(), arrival.options.sequence),
            "in_order": arrival.is_in_order(),
            "effects": arrival.effects.name(),
            "effects_said": arrival.policy.effects.is_some() || arrival.options.effects.is_some(),
            "fingerprint": parts.iter().zip(arrival.fingerprint.parts).map(|(part, digest)| json!({"part": part, "digest": hex(digest)})).collect::<Vec<_>>(),
            "window": units::show(arrival.policy.window),
            "attempts_max": arrival.policy.backoff(arrival.mode).attempts_max,
            "after": after,
            "lookup": arrival.policy.lookup.as_ref().map(|rule| lookup(&arrival, rule)),
            "hours": arrival.policy.hours.as_ref().map(onceward::core::hours::Hours::as_str),
        }))
    }

    /// Reads a call from one JSON document.
    fn call_of(&self, document: Document, caller: Caller) -> Result<(Call, bool), Problem> {
        let invalid = |why: String| Problem::new("request-invalid", why);
        let mut place = self.place(&document.to)?;
        check_route(&caller, &place.route)?;
        if let Some(path) = document.path {
            if !path.starts_with('/') {
                return Err(invalid(format!("path {path:?} begins with no slash")));
            }
            place.target = path;
        }
        let method: Method = document
            .method
            .parse()
            .map_err(|_| invalid(format!("{:?} is no method", document.method)))?;
        check_sendable(&method, &place.target)?;
        let mut headers = HeaderMap::new();
        for (name, value) in document.headers {
            let name: HeaderName =
                name.parse().map_err(|_| invalid(format!("{name:?} is no header name")))?;
            headers.insert(
                name.clone(),
                value.parse().map_err(|_| {
                    invalid(format!("the value of {name} cannot stand in a header"))
                })?,
            );
        }
        let body = match (document.body, document.body_base64) {
            (Some(_), Some(_)) => {
                return Err(invalid("give body or body_base64, not both".to_owned()));
            }
            (None, Some(coded)) => STANDARD
                .decode(coded)
                .map_err(|error| invalid(format!("body_base64: {error}")))?
                .into(),
            (Some(Value::String(text)), None) => Bytes::from(text),
            (Some(value), None) => {
                headers
                    .entry(header::CONTENT_TYPE)
                    .or_insert(HeaderValue::from_static("application/json"));
                serde_json::to_vec(&value).map_err(|error| invalid(error.to_string()))?.into()
            }
            (None, None) => Bytes::new(),
        };
        for (name, value) in [
            ("onceward-subject", document.subject),
            ("onceward-sequence", document.sequence.map(|sequence| sequence.to_string())),
            ("onceward-flow-key", document.flow_key),
        ] {
            let Some(value) = value else { continue };
            let value = HeaderValue::from_str(&value)
                .map_err(|_| invalid(format!("{name} {value:?} cannot stand in a header")))?;
            headers.insert(name, value);
        }
        self.refuse_aliases(&place.route, &headers)?;
        let mut options = options_of(&headers)?;
        self.check_callback(&mut options)?;
        match document.mode.as_deref() {
            None | Some("held") => {}
            Some("accepted") => options.respond_async = true,
            Some(other) => return Err(invalid(format!("mode {other:?}: `held` or `accepted`"))),
        }
        if document.label.as_ref().is_some_and(|label| label.len() > LABEL_BYTES_MAX) {
            return Err(invalid(format!("label: at most {LABEL_BYTES_MAX} bytes")));
        }
        options.label = document.label.or(options.label);
        if document.key.is_some() && options.key.is_some() {
            return Err(invalid("key: a step makes a key, and there is another".to_owned()));
        }
        options.key = document.key.or(options.key);
        if let Some(wait) = document.wait {
            options.wait =
                Some(units::duration(&wait).map_err(|why| Problem::new("option-invalid", why))?);
        }
        let key_given = options.key.is_some() || headers.contains_key(IDEMPOTENCY_KEY);
        let mut headers = headers_of(&headers);
        headers.0.retain(|(name, _)| !name.starts_with("onceward-"));
        let request = exchange::Request {
            method: method.as_str().to_owned(),
            target: place.target,
            headers,
            body,
        };
        Ok((
            Call {
                tenant: caller.tenant,
                principal: caller.principal,
                route: place.route,
                request,
                options,
            },
            key_given,
        ))
    }
}

fn post() -> String {
    "POST".to_owned()
}

/// What would be asked of the upstream about an operation in doubt.
fn lookup(arrival: &onceward::Arrival, rule: &LookupRule) -> Value {
    let body: Option<Value> = serde_json::from_slice(&arrival.request.body).ok();
    let value = |name: &str| match name {
        // A derived key and the operation's id are known once it is remembered.
        "key" => Some(arrival.key.as_str()),
        "upstream_key" if arrival.policy.upstream_key.value == UpstreamKeyValue::Passthrough => {
            Some(arrival.key.as_str())
        }
        _ => None,
    };
    let asks = rule.get.fill(value, body.as_ref());
    json!({
        "get": rule.get.as_str(),
        "asks": asks.as_ref().ok(),
        "why_not": asks.as_ref().err().map(ToString::to_string),
        "found": rule.found.source(),
        "absent": rule.absent.as_ref().map(Condition::source),
        "settle": units::show(rule.settle),
        "when": rule.when.name(),
    })
}

/// A response in one document: text where it is text.
pub(crate) fn response_document(status: u16, headers: &Headers, body: &Bytes) -> Value {
    let (body, base64) = match std::str::from_utf8(body) {
        Ok(text) => (Some(text), None),
        Err(_) => (None, Some(STANDARD.encode(body))),
    };
    json!({"status": status, "headers": lines(headers), "body": body, "body_base64": base64})
}

/// Header lines as pairs, in order.
pub(crate) fn lines(headers: &Headers) -> Value {
    headers.0.iter().map(|(name, value)| json!([name, String::from_utf8_lossy(value)])).collect()
}
