//! A request as it goes out, remembered or passing, and the head of an answer as it comes in.
//!
//! Framing is ours: the length of the body where it is known, chunks where it is not, and no line
//! that speaks of one connection is taken from anyone. The path and query travel as they are.

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue,
    InvalidHeaderName, TE, TRAILER, TRANSFER_ENCODING,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Uri};
use onceward_core::exchange::Headers;
use onceward_core::trace::TRACEPARENT;
use thiserror::Error;

use super::Dispatch;
use super::line::Outgoing;
use super::passage::Passage;
use super::upload::Load;

/// Why a request cannot be put on a wire at all.
#[derive(Debug, Error)]
pub(super) enum Unfit {
    #[error("the method `{0}` cannot be sent")]
    Method(String),
    #[error("the path or query cannot be sent as it is")]
    Target,
    #[error("the header `{0}` cannot be sent as it is")]
    Header(String),
    #[error("the body was taken by an attempt that failed")]
    Taken,
}

/// A request that is fit to be sent, for whichever protocol the connection speaks.
#[derive(Debug)]
pub(super) struct Message {
    method: Method,
    path: PathAndQuery,
    headers: HeaderMap,
    body: Load,
    /// The length of the body, where that is known.
    length: Option<u64>,
}

impl Message {
    /// Composes what goes out: what was remembered, with what is set at send in its place.
    pub(super) fn compose(dispatch: &Dispatch) -> Result<Self, Unfit> {
        let request = &*dispatch.request;
        let unfit = || Unfit::Method(request.method.clone());
        let method = Method::from_bytes(request.method.as_bytes()).map_err(|_| unfit())?;
        // A tunnel is no request that could be remembered.
        if method == Method::CONNECT {
            return Err(unfit());
        }
        let path = join(dispatch.target.base.path(), &request.target)?;
        let lines = request.headers.0.len() + dispatch.headers.0.len();
        let mut headers = HeaderMap::with_capacity(lines + 2);
        // First, as RFC 9110 recommends; its value is the connection's to say, unless an edge passes
        // on the host that its caller asked for.
        let host = request.headers.get("host").cloned().unwrap_or_default();
        let host = HeaderValue::from_maybe_shared(host);
        headers.insert(HOST, host.map_err(|_| Unfit::Header("host".to_owned()))?);
        let replaced = |name: &str| dispatch.headers.get(name).is_some();
        for (name, value) in &request.headers.0 {
            if !replaced(name) {
                append(&mut headers, name, value)?;
            }
        }
        for (name, value) in &dispatch.headers.0 {
            append(&mut headers, name, value)?;
        }
        if !request.body.is_empty() || expects_body(&method) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(request.body.len()));
        }
        let length = Some(request.body.len() as u64);
        Ok(Self { method, path, headers, body: Load::Whole(request.body.clone()), length })
    }

    /// What passes, as it came: its head was made fit for the next hop before.
    pub(super) fn pass(passage: &Passage) -> Result<Self, Unfit> {
        let Passage { target, method, path, headers, upload } = passage;
        if *method == Method::CONNECT {
            return Err(Unfit::Method(method.to_string()));
        }
        let path = match target.base.path() {
            "" | "/" if path.as_str().starts_with('/') => path.clone(),
            base => join(base, path.as_str())?,
        };
        let body = upload.load().ok_or(Unfit::Taken)?;
        let mut headers = headers.clone();
        let length = upload.length();
        if upload.is_over() {
            // Only a body that is still to come can have trailers.
            headers.remove(TRAILER);
        }
        match length {
            Some(0) if !expects_body(method) => {
                headers.remove(CONTENT_LENGTH);
            }
            Some(length) => {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
            None => {
                headers.remove(CONTENT_LENGTH);
            }
        }
        Ok(Self { method: method.clone(), path, headers, body, length })
    }

    /// The request as a connection of HTTP/1.1 takes it.
    pub(super) fn for_http1(mut self, host: &HeaderValue) -> Outgoing {
        if self.headers.get(HOST).is_none_or(HeaderValue::is_empty) {
            self.headers.insert(HOST, host.clone());
        }
        // Only chunks have trailers behind them.
        if self.length.is_none() || self.headers.contains_key(TRAILER) {
            self.headers.remove(CONTENT_LENGTH);
            self.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if self.headers.contains_key(TE) {
            self.headers.insert(CONNECTION, HeaderValue::from_static("te"));
        }
        join_cookies(&mut self.headers);
        self.into_request(None)
    }

    /// The request as a connection of HTTP/2 takes it: the authority stands in the URI.
    pub(super) fn for_http2(mut self, scheme: Scheme, authority: &Authority) -> Outgoing {
        let host =
            self.headers.remove(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
        self.into_request(Some((scheme, host.unwrap_or_else(|| authority.clone()))))
    }

    fn into_request(self, place: Option<(Scheme, Authority)>) -> Outgoing {
        let mut uri = http::uri::Parts::default();
        uri.path_and_query = Some(self.path);
        (uri.scheme, uri.authority) = place.unzip();
        let mut request = Request::new(self.body);
        *request.method_mut() = self.method;
        // A path alone, or all three: neither can fail.
        *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
        *request.headers_mut() = self.headers;
        request
    }
}

/// Every line of a head, values byte for byte, repeats apart.
pub(crate) fn lines(map: HeaderMap) -> Headers {
    let mut lines: Vec<(String, Bytes)> = Vec::with_capacity(map.len());
    for (name, value) in map {
        // A name comes once, with the first of its lines.
        let name = match (name, lines.last()) {
            (Some(name), _) => name.as_str().to_owned(),
            (None, Some((name, _))) => name.clone(),
            (None, None) => continue,
        };
        lines.push((name, Bytes::copy_from_slice(value.as_bytes())));
    }
    Headers(lines)
}

/// The base's path, without its last slash, before the target.
fn join(base: &str, target: &str) -> Result<PathAndQuery, Unfit> {
    // A parser would take a fragment off without a word, and send something else.
    if !target.starts_with('/') || target.contains('#') {
        return Err(Unfit::Target);
    }
    let base = base.strip_suffix('/').unwrap_or(base);
    let joined = if base.is_empty() {
        PathAndQuery::try_from(target)
    } else {
        PathAndQuery::try_from(format!("{base}{target}"))
    };
    joined.map_err(|_| Unfit::Target)
}

/// HTTP/2 may bring cookies apart; before HTTP/1.1 they are one line (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let lines: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&lines.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

/// Whether a request of this method without a body says so (RFC 9110, section 8.6).
fn expects_body(method: &Method) -> bool {
    !matches!(
        *method,
        Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS | Method::TRACE
    )
}

fn append(headers: &mut HeaderMap, name: &str, value: &Bytes) -> Result<(), Unfit> {
    if is_framing(name) {
        return Ok(());
    }
    let unfit = |_| Unfit::Header(name.to_owned());
    let parsed = name_of(name).map_err(|_| Unfit::Header(name.to_owned()))?;
    let value = HeaderValue::from_maybe_shared(value.clone()).map_err(unfit)?;
    headers.append(parsed, value);
    Ok(())
}

/// A header's name. Those that every attempt sets are not read, nor copied, for each.
fn name_of(name: &str) -> Result<HeaderName, InvalidHeaderName> {
    const KEY: HeaderName = HeaderName::from_static("idempotency-key");
    const OPERATION: HeaderName = HeaderName::from_static("onceward-operation");
    const ATTEMPT: HeaderName = HeaderName::from_static("onceward-attempt");
    const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
    const SPAN: HeaderName = HeaderName::from_static(TRACEPARENT);
    Ok(match name {
        "idempotency-key" => KEY,
        "onceward-operation" => OPERATION,
        "onceward-attempt" => ATTEMPT,
        "baggage" => BAGGAGE,
        TRACEPARENT => SPAN,
        _ => HeaderName::from_bytes(name.as_bytes())?,
    })
}

/// What belongs to one connection: ours to say, whoever else does.
fn is_framing(name: &str) -> bool {
    matches!(
        name,
        "host"
            | "content-length"
            | "transfer-encoding"
            | "connection"
            | "proxy-connection"
            | "keep-alive"
            | "te"
            | "trailer"
            | "upgrade"
            | "expect"
    )
}
