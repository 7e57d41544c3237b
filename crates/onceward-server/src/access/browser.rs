//! What browsers are kept from: no page of another origin, and no name of the web's, reaches an open
//! listener.

use http::request::Parts;
use http::{HeaderName, Method, header};

use crate::head::host_of;
use crate::problem::Problem;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A browser says where a request comes from: what another site's page sends is refused.
pub(crate) fn refuse_web_pages(head: &Parts) -> Result<(), Problem> {
    let text = |name: HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
    let host = host_of(head.uri.authority(), &head.headers);
    let is_foreign = |origin: &str| {
        let origin = origin.split_once("://").map(|(_, origin)| origin);
        origin.is_none() || origin != host
    };
    let foreign = text(header::ORIGIN).is_some_and(is_foreign);
    let changes = !matches!(head.method, Method::GET | Method::HEAD);
    let cross_site = changes && matches!(text(FETCH_SITE), Some("cross-site" | "same-site"));
    if foreign || cross_site {
        return Err(Problem::new(
            "forbidden",
            "The request comes from a page of another origin; nothing was sent.",
        ));
    }
    Ok(())
}

/// An open listener answers only to loopback names, so that no name of the web's can be pointed
/// at it (DNS rebinding).
pub(super) fn refuse_other_hosts(head: &Parts) -> Result<(), Problem> {
    match other_host(head) {
        None => Ok(()),
        Some(host) => Err(Problem::new(
            "forbidden",
            format!(
                "This listener is open, so it answers only to localhost, not to {host:?}. Make an access key first: `onceward access create`."
            ),
        )),
    }
}

/// The host that a request is for, where that is not this machine.
pub(crate) fn other_host(head: &Parts) -> Option<&str> {
    let host = host_of(head.uri.authority(), &head.headers)?;
    let name = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
        .map_or(host, |(name, _)| name);
    let is_loopback = name == "127.0.0.1"
        || name.eq_ignore_ascii_case("localhost")
        || name
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    (!is_loopback).then_some(host)
}

#[cfg(test)]
pub(super) mod tests {
    use http::{HeaderMap, Request};

    use super::*;

    pub(crate) fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap()))
            .collect::<HeaderMap>()
    }

    pub(crate) fn head(method: Method, uri: &str, lines: &[(&'static str, &str)]) -> Parts {
        let request = Request::builder().method(method).uri(uri).body(()).unwrap();
        let (mut head, ()) = request.into_parts();
        head.headers = headers(lines);
        head
    }

    #[test]
    fn a_page_of_another_origin_is_refused() {
        let refused = |method: Method, lines: &[(&'static str, &str)]| {
            refuse_web_pages(&head(method, "/", lines)).is_err()
        };
        // A browser that speaks HTTP/2 sends no Host.
        let by_http2 = |origin: &str| {
            let head = head(Method::POST, "https://gateway.example/login", &[("origin", origin)]);
            refuse_web_pages(&head).is_err()
        };
        assert!(by_http2("https://evil.example") && !by_http2("https://gateway.example"));
        assert!(refused(
            Method::POST,
            &[("origin", "http://evil.example"), ("host", "localhost:7077")]
        ));
        assert!(refused(Method::GET, &[("origin", "null"), ("host", "localhost:7077")]));
        assert!(refused(
            Method::POST,
            &[("sec-fetch-site", "cross-site"), ("host", "localhost:7077")]
        ));
        assert!(!refused(
            Method::POST,
            &[("origin", "http://localhost:7077"), ("host", "localhost:7077")]
        ));
        assert!(!refused(Method::POST, &[("host", "localhost:7077")]), "curl says nothing");
    }

    #[test]
    fn an_open_listener_answers_only_to_loopback_names() {
        for (host, open) in [
            ("localhost:1", true),
            ("127.0.0.1:7077", true),
            ("[::1]:7077", true),
            ("[::1]", true),
            ("evil.example:7077", false),
            ("127.0.0.1.evil.example", false),
        ] {
            let head = head(Method::GET, "/", &[("host", host)]);
            assert_eq!(refuse_other_hosts(&head).is_ok(), open, "{host}");
        }
    }
}
