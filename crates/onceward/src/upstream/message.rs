//! A remembered request as it goes out, and the head of an answer as it comes in.
//!
//! Framing is ours: the body is whole, so its length is known, and no line that speaks of one
//! connection is taken from anyone. The path and query travel as they are.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Uri};
use http_body_util::Full;
use onceward_core::exchange::Headers;
use thiserror::Error;

use super::Dispatch;
use super::line::Outgoing;
use super::wire::Wire;

/// Why a request cannot be put on a wire at all.
#[derive(Debug, Error)]
pub(super) enum Unfit {
    #[error("the method `{0}` cannot be sent")]
    Method(String),
    #[error("the path or query cannot be sent as it is")]
    Target,
    #[error("the header `{0}` cannot be sent as it is")]
    Header(String),
}

/// A request that is fit to be sent, for whichever protocol the connection speaks.
#[derive(Debug)]
pub(super) struct Message {
    method: Method,
    path: PathAndQuery,
    headers: HeaderMap,
    body: Bytes,
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
        Ok(Self { method, path, headers, body: request.body.clone() })
    }

    /// The request as a connection of HTTP/1.1 takes it.
    pub(super) fn for_http1(mut self, wire: &Wire) -> Outgoing {
        if self.headers.get(HOST).is_none_or(HeaderValue::is_empty) {
            self.headers.insert(HOST, wire.host.clone());
        }
        self.into_request(None)
    }

    /// The request as a connection of HTTP/2 takes it: the authority stands in the URI.
    pub(super) fn for_http2(mut self, wire: &Wire) -> Outgoing {
        let host =
            self.headers.remove(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
        self.into_request(Some((wire, host)))
    }

    fn into_request(self, absolute: Option<(&Wire, Option<Authority>)>) -> Outgoing {
        let mut uri = http::uri::Parts::default();
        uri.path_and_query = Some(self.path);
        if let Some((wire, host)) = absolute {
            uri.scheme = Some(if wire.secured { Scheme::HTTPS } else { Scheme::HTTP });
            uri.authority = Some(host.unwrap_or_else(|| wire.authority.clone()));
        }
        let mut request = Request::new(Full::new(self.body));
        *request.method_mut() = self.method;
        // A path alone, or all three: neither can fail.
        *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
        *request.headers_mut() = self.headers;
        request
    }
}

/// Every line of a head, values byte for byte, repeats apart.
pub(super) fn lines(map: HeaderMap) -> Headers {
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
    let parsed =
        HeaderName::from_bytes(name.as_bytes()).map_err(|_| Unfit::Header(name.to_owned()))?;
    let value = HeaderValue::from_maybe_shared(value.clone()).map_err(unfit)?;
    headers.append(parsed, value);
    Ok(())
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
