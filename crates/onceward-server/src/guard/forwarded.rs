//! What an upstream is told of the way of a request: `Forwarded` (RFC 7239), `Via` (RFC 9110,
//! section 7.6.3) and the `X-Forwarded-…` that more servers read.

use std::borrow::Cow;
use std::net::IpAddr;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Version, header};

use crate::config::Guard;
use crate::config::guard::RESPOND_ASYNC;
use crate::head::host_of;
use crate::listening::Peer;

use super::joined;

/// What we say of ourselves in `Via`, as who speaks HTTP/1.1.
const WAY: &str = "1.1 onceward";

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// How an upstream is told of a caller and of the host that it asks.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    /// The host as the caller wrote it, where it can stand in a header.
    host: Option<HeaderValue>,
    /// An element of `Forwarded`.
    element: HeaderValue,
    address: HeaderValue,
}

impl Way {
    fn of<'a>(peer: &'a Peer, host: Option<&str>) -> Cow<'a, Self> {
        let usual = peer.way.get_or_init(|| Self::new(peer, host));
        if usual.host.as_ref().map(HeaderValue::as_bytes) == host.map(str::as_bytes) {
            return Cow::Borrowed(usual);
        }
        Cow::Owned(Self::new(peer, host))
    }

    fn new(peer: &Peer, host: Option<&str>) -> Self {
        let scheme = scheme_of(peer);
        let address = peer.address.ip().to_canonical();
        let from = match address {
            IpAddr::V4(address) => format!("for={address}"),
            IpAddr::V6(address) => format!("for=\"[{address}]\""),
        };
        let element = match host {
            Some(host) => format!("{from};host=\"{host}\";proto={scheme}"),
            None => format!("{from};proto={scheme}"),
        };
        // What is made of plain hosts and addresses can stand in a header.
        let unknown = |_| HeaderValue::from_static("unknown");
        Self {
            host: host.and_then(|host| host.parse().ok()),
            element: element.try_into().unwrap_or_else(unknown),
            address: address.to_string().try_into().unwrap_or_else(unknown),
        }
    }
}

/// What is said upstream in place of what the caller said. Of whom a request is from, only a proxy
/// that is believed has a say.
pub(super) fn said(guard: &Guard, head: &Parts, peer: &Peer) -> HeaderMap {
    let address = peer.address.ip().to_canonical();
    let is_believed = guard.believes(address);
    let given = |name: &HeaderName| whole(&head.headers, name);
    let believed = |name: &HeaderName| given(name).filter(|_| is_believed);
    let host = host_of(head.uri.authority(), &head.headers).filter(|host| is_plain(host));
    let way = Way::of(peer, host);
    let mut said = HeaderMap::with_capacity(8);
    let mut say = |name: &HeaderName, value: Option<HeaderValue>| {
        if let Some(value) = value {
            said.insert(name, value);
        }
    };
    say(&header::FORWARDED, then(believed(&header::FORWARDED), &way.element));
    say(&FOR, then(believed(&FOR), &way.address));
    say(&PROTO, believed(&PROTO).or(Some(HeaderValue::from_static(scheme_of(peer)))));
    say(&HOST, believed(&HOST).or_else(|| way.host.clone()));
    for name in head.headers.keys() {
        match name.as_str() {
            "x-real-ip" => {
                say(name, believed(name).or_else(|| Some(way.address.clone())));
            }
            text if text.starts_with("x-forwarded-") && ![FOR, PROTO, HOST].contains(name) => {
                say(name, believed(name));
            }
            _ => {}
        }
    }
    let via = HeaderValue::from_static(via(head.version));
    say(&header::VIA, then(given(&header::VIA), &via));
    // What is kept is asked for without a coding; what passes is the caller's and the upstream's.
    say(&header::ACCEPT_ENCODING, given(&header::ACCEPT_ENCODING));
    say(&PREFER, given(&PREFER).filter(|_| !guard.allows(RESPOND_ASYNC)));
    say(&header::HOST, way.host.clone().filter(|_| guard.passes_host));
    said
}

/// All lines of a list, as one.
fn whole(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    match lines.next() {
        None => Some(first.clone()),
        Some(_) => HeaderValue::try_from(joined(headers, name.as_str())?).ok(),
    }
}

/// A list with one more at its end.
fn then(list: Option<HeaderValue>, more: &HeaderValue) -> Option<HeaderValue> {
    match list {
        Some(list) => [list.as_bytes(), b", ", more.as_bytes()].concat().try_into().ok(),
        None => Some(more.clone()),
    }
}

/// What a caller is told of the way of its answer.
pub(super) fn tell_way(headers: &mut HeaderMap) {
    headers.append(header::VIA, HeaderValue::from_static(WAY));
}

/// Whether it can stand in a header within quotes, and is a host at all.
fn is_plain(host: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:[]%".contains(&byte);
    !host.is_empty() && host.len() <= 255 && host.bytes().all(fits)
}

fn scheme_of(peer: &Peer) -> &'static str {
    if peer.is_secured { "https" } else { "http" }
}

/// What we say of ourselves in `Via`.
fn via(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "2 onceward",
        Version::HTTP_10 => "1.0 onceward",
        _ => WAY,
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::super::tests::{guard, peer};
    use super::*;

    fn said_of(lines: &str, from: &str, headers: &[(&str, &str)]) -> HeaderMap {
        let mut request = Request::builder().uri("/a").header("host", "api.example:8080");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        said(&guard(lines), &head, &peer(from))
    }

    fn text<'a>(said: &'a HeaderMap, name: &str) -> Option<&'a str> {
        said.get(name).map(|value| value.to_str().unwrap())
    }

    const SPOOFED: [(&str, &str); 6] = [
        ("x-forwarded-port", "443"),
        ("x-real-ip", "1.2.3.4"),
        ("forwarded", "for=1.2.3.4"),
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-proto", "https"),
        ("via", "1.1 before"),
    ];

    #[test]
    fn what_a_stranger_says_of_its_way_is_replaced() {
        let said = said_of("", "192.0.2.1", &SPOOFED);
        assert_eq!(
            text(&said, "forwarded"),
            Some("for=192.0.2.1;host=\"api.example:8080\";proto=http")
        );
        assert_eq!(text(&said, "x-forwarded-for"), Some("192.0.2.1"));
        assert_eq!(text(&said, "x-forwarded-proto"), Some("http"));
        assert_eq!(text(&said, "x-forwarded-host"), Some("api.example:8080"));
        assert_eq!(text(&said, "via"), Some("1.1 before, 1.1 onceward"));
        assert_eq!(
            (text(&said, "x-real-ip"), text(&said, "x-forwarded-port")),
            (Some("192.0.2.1"), None)
        );
        assert_eq!(text(&said, "host"), None);
    }

    #[test]
    fn a_proxy_that_is_believed_is_added_to() {
        let lines = "trust_forwarded = [\"192.0.2.0/24\"]\nupstream_host = \"caller\"";
        let said = said_of(lines, "192.0.2.1", &SPOOFED);
        assert_eq!(text(&said, "x-forwarded-for"), Some("1.2.3.4, 192.0.2.1"));
        assert_eq!(text(&said, "x-forwarded-proto"), Some("https"));
        assert!(
            text(&said, "forwarded")
                .is_some_and(|it| it.starts_with("for=1.2.3.4, for=192.0.2.1;"))
        );
        assert_eq!(text(&said, "host"), Some("api.example:8080"));
        assert_eq!(
            (text(&said, "x-real-ip"), text(&said, "x-forwarded-port")),
            (Some("1.2.3.4"), Some("443"))
        );
        let v6 = said_of(lines, "2001:db8::1", &SPOOFED);
        assert!(text(&v6, "forwarded").is_some_and(|it| it.starts_with("for=\"[2001:db8::1]\";")));
        assert_eq!(text(&v6, "x-forwarded-for"), Some("2001:db8::1"), "outside of the network");
    }

    #[test]
    fn a_host_that_would_break_out_of_its_quotes_is_left_out() {
        let (head, ()) = Request::builder()
            .uri("/")
            .header("host", "a\";for=1.2.3.4;x=\"")
            .body(())
            .unwrap()
            .into_parts();
        let said = said(&guard("upstream_host = \"caller\""), &head, &peer("192.0.2.1"));
        assert_eq!(text(&said, "forwarded"), Some("for=192.0.2.1;proto=http"));
        assert_eq!((text(&said, "x-forwarded-host"), text(&said, "host")), (None, None));
    }
}
