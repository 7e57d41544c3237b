//! What browsers are kept from: no page of another origin, and no name of the web's, reaches an open
//! listener.

use http::{HeaderMap, HeaderName, Method, header};

use crate::problem::Problem;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A browser says where a request comes from: what another site's page sends is refused.
pub(crate) fn refuse_web_pages(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let is_foreign = |origin: &str| {
        let origin = origin.split_once("://").map(|(_, origin)| origin);
        origin.is_none() || origin != text(header::HOST)
    };
    let foreign = text(header::ORIGIN).is_some_and(is_foreign);
    let changes = !matches!(*method, Method::GET | Method::HEAD);
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
pub(super) fn refuse_other_hosts(headers: &HeaderMap) -> Result<(), Problem> {
    match other_host(headers) {
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
pub(crate) fn other_host(headers: &HeaderMap) -> Option<&str> {
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok())?;
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
    use super::*;

    pub(crate) fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap()))
            .collect::<HeaderMap>()
    }

    #[test]
    fn a_page_of_another_origin_is_refused() {
        let refused = |method: Method, lines: &[(&'static str, &str)]| {
            refuse_web_pages(&method, &headers(lines)).is_err()
        };
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
            assert_eq!(refuse_other_hosts(&headers(&[("host", host)])).is_ok(), open, "{host}");
        }
    }
}
