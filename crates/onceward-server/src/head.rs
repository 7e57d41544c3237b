//! What a request's head has to be before anybody looks at what it asks.
//!
//! The HTTP that callers speak is read by others, who let through what two readers may take for two
//! things. What is left of that is refused here, on every listener alike, and the connection goes with
//! it: nobody has to agree on where such a request ends.

use http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Request, Response, Version};

use crate::body::Body;
use crate::problem::Problem;

/// The longest path with its query.
const TARGET_BYTES_MAX: usize = 8 << 10;

/// How many header lines a request has at most. Over HTTP/1.1 as many are read.
const LINES_MAX: usize = 100;

/// The host that a request is for, as the caller wrote it; over HTTP/2 it stands in the URI.
pub(crate) fn host_of<'a>(
    authority: Option<&'a Authority>,
    headers: &'a HeaderMap,
) -> Option<&'a str> {
    match authority {
        Some(authority) => Some(authority.as_str()),
        None => headers.get(HOST)?.to_str().ok(),
    }
}

/// The refusal of a request that must not go on.
pub(crate) fn refuse<B>(request: &Request<B>) -> Option<Response<Body>> {
    let (status, why) = fault_of(request)?;
    let problem = Problem::new("request-invalid", format!("{why}; nothing was sent."));
    let mut problem = problem;
    problem.status = status;
    let mut response = problem.response();
    if request.version() < Version::HTTP_2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Some(response)
}

/// What is wrong with a head, and the status that says so.
fn fault_of<B>(request: &Request<B>) -> Option<(u16, &'static str)> {
    let headers = request.headers();
    if has_foreign_coding(headers) {
        return Some((400, "The body came in another transfer coding than chunked"));
    }
    if request.uri().path_and_query().is_some_and(|it| it.as_str().len() > TARGET_BYTES_MAX) {
        return Some((414, "The path and the query are longer than 8 KiB"));
    }
    if headers.len() > LINES_MAX {
        return Some((431, "There are more than 100 header lines"));
    }
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next(), request.uri().authority()) {
        (_, Some(_), _) => Some((400, "There is more than one Host")),
        // RFC 9113, section 8.3.1.
        (Some(host), None, Some(authority))
            if request.version() == Version::HTTP_2
                && !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) =>
        {
            Some((400, "Host is another than :authority"))
        }
        // RFC 9112, section 3.2.
        (None, None, None) if request.version() == Version::HTTP_11 => {
            Some((400, "There is no Host"))
        }
        _ => None,
    }
}

/// Whether a body came in another transfer coding than `chunked`, which was taken off already:
/// sent on, its bytes would mean something else (RFC 9112, section 6.1).
fn has_foreign_coding(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let is_chunked =
        |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    codings.next().is_some_and(|first| !is_chunked(first)) || codings.next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(version: Version, uri: &str, lines: &[(&str, &str)]) -> Option<u16> {
        let mut request = Request::builder().version(version).uri(uri);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        fault_of(&request.body(()).unwrap()).map(|(status, _)| status)
    }

    #[test]
    fn a_head_that_two_could_read_otherwise_is_refused() {
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);
        let host = ("host", "a");
        assert_eq!(status(one, "/", &[host]), None);
        assert_eq!(status(one, "/", &[host, ("transfer-encoding", " Chunked ")]), None);
        for coding in ["gzip, chunked", "identity", "", "chunked, chunked"] {
            assert_eq!(status(one, "/", &[host, ("transfer-encoding", coding)]), Some(400));
        }
        let twice = [host, ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
        assert_eq!(status(one, "/", &twice), Some(400));
        assert_eq!(status(one, "/", &[host, ("host", "b")]), Some(400));
        assert_eq!(status(one, "/", &[host, host]), Some(400));
        assert_eq!(status(one, "/", &[]), Some(400));
        assert_eq!(status(Version::HTTP_10, "/", &[]), None, "it need not say one");
        assert_eq!(status(one, "http://a/", &[("host", "b")]), None, "the URI is what counts");
        assert_eq!(status(two, "http://a/", &[]), None);
        assert_eq!(status(two, "http://a:1/", &[("host", "A:1")]), None);
        assert_eq!(status(two, "http://a/", &[("host", "b")]), Some(400));
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let (one, host) = (Version::HTTP_11, ("host", "a"));
        let of_length = |length: usize| format!("/{}", "x".repeat(length - 1));
        assert_eq!(status(one, &of_length(TARGET_BYTES_MAX), &[host]), None);
        assert_eq!(status(one, &of_length(TARGET_BYTES_MAX + 1), &[host]), Some(414));
        let lines = [[host].as_slice(), &[("x-a", "b"); LINES_MAX]].concat();
        assert_eq!(status(one, "/", &lines[..LINES_MAX]), None);
        assert_eq!(status(one, "/", &lines), Some(431));
    }
}
