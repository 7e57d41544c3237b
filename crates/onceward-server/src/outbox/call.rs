//! A row becomes a call, or a reason why it never can.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use onceward::core::exchange::{Headers, Request};
use onceward::core::policy::is_safe;
use onceward::relay::Row;
use onceward::route::Routes;
use onceward::{Call, CallOptions};
use serde_json::Value;

use crate::body::headers_of;
use crate::config::{Outbox, To};
use crate::gateway::{Gateway, check_sendable, options_of};
use crate::problem::Problem;
use crate::view::is_callable;

/// Reads `row` as a call; a refusal is for good.
pub(super) fn call_of(row: &Row, outbox: &Outbox, gateway: &Gateway) -> Result<Call, Problem> {
    let route = route_of(row, outbox, &gateway.engine.routes())?;
    let method = row.method.as_deref().unwrap_or(&outbox.method);
    let target = target_of(row, outbox);
    let parsed: Method = method.parse().map_err(|_| invalid(format!("{method:?} is no method")))?;
    check_sendable(&parsed, &target)?;
    if is_safe(method) {
        return Err(invalid(format!("{method} only reads, and leaves nothing to remember")));
    }
    let Some(body) = row.body.clone() else {
        return Err(Problem::new(
            "body-too-large",
            format!("Its body has {} bytes, and no route takes as many.", row.body_bytes),
        ));
    };
    let headers = headers(row)?;
    gateway.refuse_aliases(&route, &headers)?;
    let options = options(row, outbox, &headers, gateway)?;
    let mut headers = headers_of(&headers);
    headers.0.retain(|(name, _)| !name.starts_with("onceward-") && name != "prefer");
    Ok(Call {
        tenant: outbox.tenant.clone(),
        principal: outbox.via(),
        route,
        request: request(method, target, headers, body),
        options,
    })
}

fn request(method: &str, target: String, headers: Headers, body: Bytes) -> Request {
    Request { method: method.to_owned(), target, headers, body }
}

fn invalid(why: String) -> Problem {
    Problem::new("request-invalid", why)
}

/// Where `row` goes: never on the own route of a source or of another outbox, and never to an
/// address that a table names.
fn route_of(row: &Row, outbox: &Outbox, routes: &Routes) -> Result<String, Problem> {
    let unknown = |why: String| Problem::new("route-unknown", why);
    match &outbox.to {
        To::Route(route, _) if routes.named.contains_key(route) => Ok(route.clone()),
        To::Route(route, _) => Err(unknown(format!("No route is called {route:?}."))),
        To::Rows(allowed) => {
            let route = row.route.clone().unwrap_or_default();
            if !routes.named.contains_key(&route) || !is_callable(&route) {
                return Err(unknown(format!("No route is called {route:?}.")));
            }
            if !allowed.is_empty() && !allowed.contains(&route) {
                return Err(unknown(format!("The route {route:?} is none of outbox.routes.")));
            }
            Ok(route)
        }
    }
}

fn target_of(row: &Row, outbox: &Outbox) -> String {
    let path = row.path.as_deref().unwrap_or(&outbox.path);
    match &outbox.to {
        To::Route(_, before) if !before.is_empty() => match path {
            "/" => before.clone(),
            path => format!("{}{path}", before.strip_suffix('/').unwrap_or(before)),
        },
        _ => path.to_owned(),
    }
}

/// The headers that a row has: an object of texts, or of lists of them.
fn headers(row: &Row) -> Result<HeaderMap, Problem> {
    let mut headers = HeaderMap::new();
    let written = row.headers.as_deref().map(str::trim).filter(|text| !text.is_empty());
    let object = match written.map(serde_json::from_str) {
        None | Some(Ok(Value::Null)) => serde_json::Map::new(),
        Some(Ok(Value::Object(object))) => object,
        Some(_) => return Err(invalid("Its headers are no JSON object.".to_owned())),
    };
    for (name, value) in object {
        let parsed: HeaderName =
            name.parse().map_err(|_| invalid(format!("{name:?} is no header name")))?;
        let lines = match value {
            Value::Array(lines) => lines,
            one => vec![one],
        };
        for line in lines {
            let text = line.as_str().and_then(|text| HeaderValue::from_str(text).ok());
            let value = text
                .ok_or_else(|| invalid(format!("the value of {name} cannot stand in a header")))?;
            headers.append(parsed.clone(), value);
        }
    }
    if row.is_json && !headers.contains_key(header::CONTENT_TYPE) {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    Ok(headers)
}

/// What a row asks of us: in its headers, and over them in its columns.
fn options(
    row: &Row,
    outbox: &Outbox,
    headers: &HeaderMap,
    gateway: &Gateway,
) -> Result<CallOptions, Problem> {
    let mut headers = headers.clone();
    // Nobody waits for it, so that it may be put off.
    headers.insert("prefer", HeaderValue::from_static("respond-async"));
    let mut options = options_of(&headers)?;
    gateway.check_callback(&mut options)?;
    options.key = Some(row.key.clone().unwrap_or_else(|| row.id.clone()));
    options.via = Some(outbox.via());
    options.scope = Some(outbox.scope.clone());
    if let Some(subject) = row.subject.clone().filter(|subject| !subject.is_empty()) {
        if subject.len() > 255 {
            return Err(invalid("Its subject has more than 255 bytes.".to_owned()));
        }
        options.subject = Some(subject);
    }
    if let Some(sequence) = &row.sequence {
        let number = sequence.parse().ok().filter(|_| options.subject.is_some());
        options.sequence = Some(number.ok_or_else(|| {
            invalid(format!(
                "Its sequence {sequence:?} is no whole number from 0 within a subject."
            ))
        })?);
    }
    if let Some(seconds) = row.not_before.filter(|seconds| *seconds > 0.0) {
        let at = Row::instant(seconds);
        options.not_before = Some(at.ok_or_else(|| {
            invalid("It is not to be sent before a time that never comes.".to_owned())
        })?);
    }
    Ok(options)
}
