//! 3\. One attempt: the request goes out once, and how far it got is told.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use onceward_core::attempt::{Ending, Phase, Reached, Timings};
use onceward_core::exchange::{self, Headers, Request, Response};
use onceward_core::operation::{Operation, UpstreamKey};
use onceward_core::policy::Effects;
use onceward_core::upstream_key::{KeyPlace, NoPlace, escaped};
use tokio::time::Instant;

use crate::delivered::Delivered;
use crate::mail::{SERVED, numbers, places};
use crate::route::Route;
use crate::sabotage::Sabotage;
use crate::upstream::{Answer, Dispatch, Doom, Failure, Sent, Target, Upstream};

/// Sends the request of `operation` once. Addresses, credentials and timeouts are the route's of
/// this moment; method, target, headers, body and key are what was remembered.
pub(crate) async fn deliver(
    upstream: &dyn Upstream,
    route: &Route,
    operation: &Operation,
    request: Arc<Request>,
    timeout: Option<Duration>,
    said: Headers,
) -> Delivered {
    let key = upstream_key(operation);
    let request = match &route.auth.address {
        None => request,
        Some(address) => Arc::new(address.lay_on(&request)),
    };
    let request = match key.as_ref().map(|key| with_key(&request, key)) {
        None => request,
        Some(Ok(keyed)) => keyed.map_or(request, Arc::new),
        Some(Err(error)) => return failed(no_place(error), None),
    };
    let mut headers = headers_at_send(operation, key, &request, route, said);
    let dispatch = |target, headers| Dispatch {
        target,
        headers,
        request: Arc::clone(&request),
        doom: route
            .chaos
            .as_ref()
            .map(|chaos| Box::new(Doom { chaos: Arc::clone(chaos), operation: operation.clone() })),
    };
    let Some(oauth2) = &route.auth.oauth2 else {
        return send(upstream, route, dispatch(target(route, timeout), headers)).await;
    };
    let begun = Instant::now();
    let total = route.target.timeouts.total.min(timeout.unwrap_or(Duration::MAX));
    // What a token took is time of the attempt's.
    let left = || target(route, Some(total.saturating_sub(begun.elapsed())));
    let token = match Box::pin(oauth2.token(upstream)).await {
        Ok(token) => token,
        Err(failure) => {
            let refused = Delivered { is_ours: true, ..failed(failure, None) };
            return after_token(begun.elapsed(), refused);
        }
    };
    token.lay_on(&mut headers);
    let took = begun.elapsed();
    let delivered = send(upstream, route, dispatch(left(), headers.clone())).await;
    let delivered = after_token(took, delivered);
    let is_refused = delivered.status == Some(401) && delivered.ending == Ending::Answered;
    // Even a request that was refused is sent again only where it may arrive twice.
    let is_harmless = matches!(operation.effects, Effects::Idempotent | Effects::Keyed);
    if !is_refused || !oauth2.refused(&token).await || !is_harmless {
        return delivered;
    }
    match Box::pin(oauth2.token(upstream)).await {
        Ok(token) => {
            token.lay_on(&mut headers);
            let took = begun.elapsed();
            after_token(took, send(upstream, route, dispatch(left(), headers)).await)
        }
        // It was sent, and this is what came of it.
        Err(_) => delivered,
    }
}

/// What was waited for before the request that counts, a refused one included.
fn after_token(took: Duration, mut delivered: Delivered) -> Delivered {
    delivered.timings.add(Phase::Token, took);
    delivered
}

async fn send(upstream: &dyn Upstream, route: &Route, dispatch: Dispatch) -> Delivered {
    match upstream.send(dispatch).await {
        Sent::Answered(answer) => {
            let served = match &route.target.mail {
                Some(_) => answer.headers.text(SERVED).map(places).unwrap_or_default(),
                None => Vec::new(),
            };
            Delivered { served, ..collect(answer, route.response_bytes_max).await }
        }
        Sent::Failed(failure) => failed(failure, None),
    }
}

fn target(route: &Route, timeout: Option<Duration>) -> Arc<Target> {
    match timeout {
        Some(timeout) if timeout < route.target.timeouts.total => {
            let mut target = (*route.target).clone();
            target.timeouts.total = timeout;
            Arc::new(target)
        }
        _ => Arc::clone(&route.target),
    }
}

/// The key by which the upstream dedupes: the same at every attempt.
fn upstream_key(operation: &Operation) -> Option<UpstreamKey> {
    let mut key = operation.upstream_key.clone()?;
    if Sabotage::FreshUpstreamKey.is_on() {
        key.value.push_str(&operation.attempts_made().to_string());
    }
    Some(key)
}

/// The request with the key in its body or query; nothing where it goes in a header. What was
/// remembered is the caller's request: this lays the same key into the same bytes each time.
fn with_key(request: &Request, key: &UpstreamKey) -> Result<Option<Request>, NoPlace> {
    match &key.place {
        KeyPlace::Header(_) => Ok(None),
        place @ (KeyPlace::Json(_) | KeyPlace::Query(_)) => {
            place.put(request, &key.value).map(Some)
        }
    }
}

/// No arrival without a place for its key is remembered, so only another release could have.
fn no_place(error: NoPlace) -> Failure {
    Failure {
        ending: Ending::Unsent,
        reached: Reached::Nothing,
        error: format!("the upstream's key has no place in the request: {error}"),
        permanent: true,
        timings: Timings::default(),
    }
}

/// The key goes to the upstream on every route, and on as W3C baggage; credentials of ours are
/// laid on last.
fn headers_at_send(
    operation: &Operation,
    upstream_key: Option<UpstreamKey>,
    request: &Request,
    route: &Route,
    said: Headers,
) -> Headers {
    let mut headers = Headers(Vec::with_capacity(5 + route.set_headers.0.len()));
    let key = operation.key.as_str();
    headers.0.push(("idempotency-key".to_owned(), operation.key.to_field().into()));
    headers.0.push(("onceward-operation".to_owned(), operation.id.to_string().into()));
    headers.0.push(("onceward-attempt".to_owned(), operation.attempts_made().to_string().into()));
    headers.0.push(("accept-encoding".to_owned(), Bytes::from_static(b"identity")));
    // W3C Baggage, section 3.2.1.3: a value of baggage-octets.
    let member = format!("idempotency-key={}", escaped(key, b":/@+"));
    let baggage = match request.headers.text("baggage") {
        Some(baggage) => format!("{baggage},{member}"),
        None => member,
    };
    headers.0.push(("baggage".to_owned(), baggage.into()));
    if let Some(UpstreamKey { place: KeyPlace::Header(name), value }) = upstream_key {
        headers.set(&name, value);
    }
    if !operation.served.is_empty() {
        headers.set(SERVED, numbers(&operation.served));
    }
    for (name, value) in said.0 {
        headers.set(&name, value);
    }
    for (name, value) in &route.set_headers.0 {
        headers.set(name, value.clone());
    }
    headers
}

pub(crate) async fn collect(answer: Answer, bytes_max: usize) -> Delivered {
    let Answer { status, headers, mut body, note } = answer;
    let headers = exchange::returned(headers);
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    let response = |body: Bytes, trailers: Headers, headers: Headers| Response {
        status,
        headers,
        body,
        trailers,
    };
    loop {
        match body.chunk().await {
            Ok(None) => {
                // Most answers come in one piece, which is then not copied.
                let whole = if more.is_empty() { first } else { more.freeze() };
                let (trailers, timings) = (body.trailers(), body.timings());
                return Delivered::answered(
                    response(whole, trailers, headers),
                    note,
                    None,
                    timings,
                );
            }
            Ok(Some(piece)) if first.is_empty() && more.is_empty() => first = piece,
            Ok(Some(piece)) => {
                if more.is_empty() {
                    more.extend_from_slice(&first);
                }
                more.extend_from_slice(&piece);
            }
            Err(failure) => {
                let part = if more.is_empty() { first } else { more.freeze() };
                return failed(failure, Some(response(part, Headers::default(), headers)));
            }
        }
        if first.len().max(more.len()) > bytes_max && !Sabotage::UnboundedBody.is_on() {
            let part = if more.is_empty() { first } else { more.freeze() };
            let (part, timings) = (response(part, Headers::default(), headers), body.timings());
            return Delivered::answered(part, note, Some(body), timings);
        }
    }
}

fn failed(failure: Failure, response: Option<Response>) -> Delivered {
    let Failure { ending, reached, error, permanent, timings } = failure;
    // A status counts only where its head came: then the ending is "truncated".
    let status = response.as_ref().map(|response| response.status);
    Delivered {
        ending,
        reached,
        status,
        error: Some(error),
        permanent,
        is_ours: false,
        is_put_off: false,
        response,
        served: Vec::new(),
        rest: None,
        timings,
    }
}
