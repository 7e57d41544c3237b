//! What an upstream is told of the way of a request: `Forwarded` (RFC 7239), `Via` (RFC 9110,
//! section 7.6.3) and the `X-Forwarded-…` that more servers read.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Version, header};
use onceward::core::exchange::Headers;

use crate::config::Guard;
use crate::config::guard::RESPOND_ASYNC;
use crate::listening::Peer;

use super::{host_of, joined};

/// Our name in `Via`.
const NAME: &str = "onceward";

/// What is said upstream in place of what the caller said. Of whom a request is from, only a proxy
/// that is believed has a say.
pub(super) fn said(guard: &Guard, head: &Parts, peer: &Peer) -> Headers {
    let address = peer.address.ip().to_canonical();
    let is_believed = guard.believes(address);
    let before = |name: &str| joined(&head.headers, name).filter(|_| is_believed);
    let then = |before: Option<Vec<u8>>, ours: String| match before {
        Some(mut list) => {
            list.extend_from_slice(b", ");
            list.extend_from_slice(ours.as_bytes());
            Bytes::from(list)
        }
        None => Bytes::from(ours),
    };
    let host = host_of(head.uri.authority(), &head.headers).filter(|host| is_plain(host));
    let scheme = if peer.is_secured { "https" } else { "http" };
    let node = match address {
        std::net::IpAddr::V4(address) => address.to_string(),
        std::net::IpAddr::V6(address) => format!("\"[{address}]\""),
    };
    let of_host = host.map(|host| format!(";host=\"{host}\"")).unwrap_or_default();
    let mut said = Headers::default();
    let mut say = |name: &str, value: Bytes| said.0.push((name.to_owned(), value));
    say("forwarded", then(before("forwarded"), format!("for={node}{of_host};proto={scheme}")));
    say("x-forwarded-for", then(before("x-forwarded-for"), address.to_string()));
    say(
        "x-forwarded-proto",
        before("x-forwarded-proto").map_or_else(|| scheme.into(), Bytes::from),
    );
    if let Some(host) = before("x-forwarded-host").or_else(|| host.map(|it| it.as_bytes().to_vec()))
    {
        say("x-forwarded-host", host.into());
    }
    for name in head.headers.keys().map(http::HeaderName::as_str) {
        match name {
            "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host" => {}
            "x-real-ip" if !is_believed => say(name, Bytes::from(address.to_string())),
            _ if name.starts_with("x-forwarded-") => {
                if let Some(value) = before(name) {
                    say(name, value.into());
                }
            }
            _ => {}
        }
    }
    say("via", then(joined(&head.headers, "via"), format!("{} {NAME}", version(head.version))));
    // What is kept is asked for without a coding; what passes is the caller's and the upstream's.
    if let Some(codings) = joined(&head.headers, "accept-encoding") {
        say("accept-encoding", codings.into());
    }
    if let Some(prefer) = joined(&head.headers, "prefer").filter(|_| !guard.allows(RESPOND_ASYNC)) {
        say("prefer", prefer.into());
    }
    if let Some(host) = host.filter(|_| guard.passes_host) {
        say("host", Bytes::copy_from_slice(host.as_bytes()));
    }
    said
}

/// What a caller is told of the way of its answer.
pub(super) fn tell_way(headers: &mut HeaderMap) {
    headers.append(header::VIA, HeaderValue::from_static("1.1 onceward"));
}

/// Whether it can stand in a header within quotes, and is a host at all.
fn is_plain(host: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:[]%".contains(&byte);
    !host.is_empty() && host.len() <= 255 && host.bytes().all(fits)
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::super::tests::{guard, peer};
    use super::*;

    fn said_of(lines: &str, from: &str, headers: &[(&str, &str)]) -> Headers {
        let mut request = Request::builder().uri("/a").header("host", "api.example:8080");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        said(&guard(lines), &head, &peer(from))
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
            said.text("forwarded"),
            Some("for=192.0.2.1;host=\"api.example:8080\";proto=http")
        );
        assert_eq!(said.text("x-forwarded-for"), Some("192.0.2.1"));
        assert_eq!(said.text("x-forwarded-proto"), Some("http"));
        assert_eq!(said.text("x-forwarded-host"), Some("api.example:8080"));
        assert_eq!(said.text("via"), Some("1.1 before, 1.1 onceward"));
        assert_eq!(
            (said.text("x-real-ip"), said.text("x-forwarded-port")),
            (Some("192.0.2.1"), None)
        );
        assert_eq!(said.text("host"), None);
    }

    #[test]
    fn a_proxy_that_is_believed_is_added_to() {
        let lines = "trust_forwarded = [\"192.0.2.0/24\"]\nupstream_host = \"caller\"";
        let said = said_of(lines, "192.0.2.1", &SPOOFED);
        assert_eq!(said.text("x-forwarded-for"), Some("1.2.3.4, 192.0.2.1"));
        assert_eq!(said.text("x-forwarded-proto"), Some("https"));
        assert!(said.text("forwarded").unwrap().starts_with("for=1.2.3.4, for=192.0.2.1;"));
        assert_eq!(said.text("host"), Some("api.example:8080"));
        assert_eq!((said.text("x-real-ip"), said.text("x-forwarded-port")), (None, Some("443")));
        let v6 = said_of(lines, "2001:db8::1", &SPOOFED);
        assert!(v6.text("forwarded").unwrap().starts_with("for=\"[2001:db8::1]\";"));
        assert_eq!(v6.text("x-forwarded-for"), Some("2001:db8::1"), "outside of the network");
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
        assert_eq!(said.text("forwarded"), Some("for=192.0.2.1;proto=http"));
        assert_eq!((said.text("x-forwarded-host"), said.text("host")), (None, None));
    }
}
