//! Requests and responses as the ledger keeps them, and which of their headers travel.
//!
//! Header values are bytes and lines stay apart: nothing is split on commas or forced into
//! UTF-8, because a replay has to be the same bytes.

use bytes::Bytes;

/// Header lines in order, names in lower case, repeats kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers(pub Vec<(String, Bytes)>);

impl Headers {
    /// The first line of `name` (lower case).
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        self.all(name).next()
    }

    /// The first line of `name` where it is visible ASCII or UTF-8.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Every line of `name` (lower case), in order.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Bytes> {
        self.0.iter().filter(move |(other, _)| other == name).map(|(_, value)| value)
    }

    /// Replaces every line of `name` by this one.
    pub fn set(&mut self, name: &str, value: impl Into<Bytes>) {
        self.remove(name);
        self.0.push((name.to_owned(), value.into()));
    }

    /// Removes every line of `name`.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(other, _)| other != name);
    }
}

/// A request as it was remembered: the same bytes for every attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method, as received.
    pub method: String,
    /// Path and query, beginning with `/`.
    pub target: String,
    /// The end-to-end headers that go upstream, without credentials that are set at send.
    pub headers: Headers,
    /// The body, whole.
    pub body: Bytes,
}

/// A response, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Header lines.
    pub headers: Headers,
    /// The body, whole, never decoded.
    pub body: Bytes,
    /// Trailer lines.
    pub trailers: Headers,
}

/// Whether a header belongs to one connection and never travels (RFC 9110, section 7.6.1).
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "proxy-connection"
            | "keep-alive"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "trailer"
    )
}

/// The names that `Connection` lines declare to be hop-by-hop, in lower case.
pub fn named_by_connection<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    lines
        .flat_map(|value| {
            let names = String::from_utf8_lossy(value);
            names.split(',').map(str::to_owned).collect::<Vec<_>>()
        })
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| !name.is_empty())
        .collect()
}

/// Headers that are ours to set on answers: a spoofed one is stripped in both directions.
fn is_ours(name: &str) -> bool {
    name.starts_with("onceward-")
        || matches!(name, "idempotent-replayed" | "idempotency-replayed" | "x-idempotent-replayed")
}

/// Whether a caller's header goes on to the upstream: end-to-end headers only. Framing is ours; names
/// with `_` are dropped (they spoof others at CGI-like upstreams), and so is what only a proxy
/// may say (`X-Forwarded-*`, `X-Real-IP`, `Proxy-*`). A replay has to be decodable by whoever asks later, so
/// no content coding is accepted.
pub fn is_forwarded(name: &str) -> bool {
    !(is_hop_by_hop(name)
        || is_ours(name)
        || name.contains('_')
        || name.starts_with("x-forwarded-")
        || name.starts_with("proxy-")
        || matches!(
            name,
            "host"
                | "content-length"
                | "expect"
                | "forwarded"
                | "x-real-ip"
                | "accept-encoding"
                | "idempotency-key"
        ))
}

/// Whether an upstream's header goes back to the caller whose request it answers.
pub fn is_returned(name: &str) -> bool {
    !(is_hop_by_hop(name)
        || is_ours(name)
        || name.starts_with("proxy-")
        || matches!(name, "content-length" | "alt-svc" | "idempotency-key"))
}

/// What a request carries on to the upstream.
pub fn forwarded(headers: Headers) -> Headers {
    only(headers, is_forwarded)
}

/// What an upstream's answer carries on to the caller whose request it answers.
pub fn returned(headers: Headers) -> Headers {
    only(headers, is_returned)
}

fn only(mut headers: Headers, travels: fn(&str) -> bool) -> Headers {
    let named = named_by_connection(headers.all("connection").map(AsRef::as_ref));
    headers.0.retain(|(name, _)| travels(name) && !named.contains(name));
    headers
}

/// Headers of an outcome that are kept and replayed; a route may name more. Everything that
/// belongs to one exchange, one session or one moment is not among them (no `Set-Cookie`).
pub fn is_kept(name: &str, more: &[String]) -> bool {
    matches!(
        name,
        "content-type"
            | "content-language"
            | "content-encoding"
            | "content-disposition"
            | "content-location"
            | "location"
            | "etag"
            | "last-modified"
            | "link"
            | "allow"
            | "deprecation"
            | "sunset"
    ) || (more.iter().any(|kept| kept == name) && !is_never_kept(name))
}

/// Headers that no route can have replayed: credentials and challenges.
fn is_never_kept(name: &str) -> bool {
    is_hop_by_hop(name)
        || matches!(
            name,
            "set-cookie"
                | "set-cookie2"
                | "www-authenticate"
                | "proxy-authenticate"
                | "authentication-info"
                | "clear-site-data"
        )
}

/// The part of `headers` that is kept with an outcome.
pub fn kept(headers: &Headers, more: &[String]) -> Headers {
    Headers(headers.0.iter().filter(|(name, _)| is_kept(name, more)).cloned().collect())
}

/// The part of a failed answer's headers that helps a person: what is kept, and what says when
/// to come back and which request of the upstream's it was.
pub fn kept_for_people(headers: &Headers) -> Headers {
    let helps = |name: &str| {
        is_kept(name, &[])
            || name.starts_with("ratelimit")
            || matches!(name, "retry-after" | "date" | "server" | "request-id" | "x-request-id")
    };
    Headers(headers.0.iter().filter(|(name, _)| helps(name)).cloned().collect())
}

/// Headers that carry a caller's credentials: sealed in the ledger, never shown or logged.
pub fn is_credential(name: &str, more: &[String]) -> bool {
    matches!(name, "authorization" | "cookie" | "x-api-key" | "api-key")
        || more.iter().any(|listed| listed == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> Headers {
        Headers(
            lines
                .iter()
                .map(|(n, v)| ((*n).to_owned(), Bytes::copy_from_slice(v.as_bytes())))
                .collect(),
        )
    }

    fn names(headers: &Headers) -> Vec<&str> {
        headers.0.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn hop_by_hop_and_spoofed_headers_do_not_travel() {
        let sent = forwarded(headers(&[
            ("connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("te", "trailers"),
            ("onceward-state", "done"),
            ("x_forwarded_for", "1"),
            ("x-forwarded-for", "1"),
            ("idempotent-replayed", "true"),
            ("stripe-version", "1"),
            ("content-type", "a/b"),
            ("host", "h"),
            ("content-length", "3"),
            ("expect", "100-continue"),
        ]));
        assert_eq!(names(&sent), ["stripe-version", "content-type"]);
    }

    #[test]
    fn an_answer_loses_its_framing_and_keeps_its_repeats() {
        let back = returned(headers(&[
            ("transfer-encoding", "chunked"),
            ("set-cookie", "a=1; Expires=Mon, 21 Oct"),
            ("set-cookie", "b=2"),
            ("onceward-state", "x"),
        ]));
        assert_eq!(names(&back), ["set-cookie", "set-cookie"]);
    }

    #[test]
    fn a_cookie_is_never_kept_even_where_a_route_lists_it() {
        let more = ["set-cookie".to_owned(), "x-total".to_owned()];
        let kept = kept(
            &headers(&[("set-cookie", "a"), ("x-total", "1"), ("date", "now"), ("location", "/1")]),
            &more,
        );
        assert_eq!(names(&kept), ["x-total", "location"]);
    }
}
