//! Keys for web pages: they send, from the origins that they name and from nowhere else, and a browser is
//! told so. What a key in a page may ask is marked in the table of endpoints.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use url::Url;

use super::endpoint::page_methods;
use super::{Access, Caller};
use crate::body::Body;
use crate::cors::{Asked, OURS, append_list, readable};
use crate::problem::Problem;

/// How long a browser keeps in mind what it may ask, in seconds. A key that is gone is refused at once.
const MAX_AGE: u32 = 600;

/// The longest list of headers that a preflight asks for, in bytes.
const WANTED_BYTES_MAX: usize = 1024;

/// What a page may say to us.
const SAYS: [&str; 19] = [
    "accept",
    "accept-language",
    "authorization",
    "content-type",
    "idempotency-key",
    "onceward-attempts-max",
    "onceward-authorization",
    "onceward-callback",
    "onceward-contract",
    "onceward-deadline",
    "onceward-delay",
    "onceward-effects",
    "onceward-flow-key",
    "onceward-label",
    "onceward-not-before",
    "onceward-sequence",
    "onceward-subject",
    "onceward-timeout",
    "prefer",
];

/// A request of a page whose origin some key names, for what such a key may ask.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    asked: Asked,
    methods: String,
    is_call: bool,
}

impl Page {
    pub(crate) fn of<B>(access: &Access, request: &Request<B>) -> Option<Self> {
        let asked = Asked::of(request)?;
        let path = request.uri().path();
        let methods = page_methods(path)?;
        let is_named = asked.origin.to_str().is_ok_and(|origin| access.is_of_a_page(origin));
        is_named.then(|| Self { asked, methods, is_call: path.starts_with("/to/") })
    }

    /// The answer to a preflight. It has no key, so it is answered for every origin that some key names.
    pub(crate) fn preflight(&self, wanted: &HeaderMap) -> Option<Response<Body>> {
        if !self.asked.is_preflight {
            return None;
        }
        let mut response = Response::new(Body::full(bytes::Bytes::new()));
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        self.asked.allow(headers, false);
        headers.append(
            header::VARY,
            HeaderValue::from_static(
                "Access-Control-Request-Method, Access-Control-Request-Headers",
            ),
        );
        append_list(
            headers,
            header::ACCESS_CONTROL_ALLOW_METHODS,
            std::slice::from_ref(&self.methods),
        );
        let mut names: BTreeSet<String> = SAYS.iter().map(|it| (*it).to_owned()).collect();
        if self.is_call {
            names.extend(requested(wanted));
        }
        let names: Vec<_> = names.into_iter().collect();
        append_list(headers, header::ACCESS_CONTROL_ALLOW_HEADERS, &names);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from(MAX_AGE));
        Some(response)
    }

    /// Lets the page read an answer: ours, whatever its upstream says of pages.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        headers.remove(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
        headers.remove(header::ACCESS_CONTROL_EXPOSE_HEADERS);
        self.asked.allow(headers, false);
        let mut names: BTreeSet<String> = OURS.iter().map(|it| (*it).to_owned()).collect();
        names.extend(readable(headers));
        let names: Vec<_> = names.into_iter().collect();
        append_list(headers, header::ACCESS_CONTROL_EXPOSE_HEADERS, &names);
    }
}

/// What a preflight asks to send: the upstream of a call reads headers that we do not know.
fn requested(headers: &HeaderMap) -> impl Iterator<Item = String> {
    let lines = headers.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS).iter();
    let lines = lines.filter(|line| line.len() <= WANTED_BYTES_MAX);
    let names = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    let read = names.filter_map(|name| name.trim().parse::<HeaderName>().ok());
    read.map(|name| name.as_str().to_owned())
}

/// An origin as browsers write it, or why it is none.
pub(crate) fn origin_of(text: &str) -> Result<String, String> {
    let wrong = || {
        format!(
            "{text:?} is no origin: write https://shop.example, without a path, or http://localhost:3000"
        )
    };
    let url = Url::parse(text).map_err(|_| wrong())?;
    let origin = url.origin().ascii_serialization();
    // A star would stand for itself, which nobody means.
    let is_whole = matches!(url.scheme(), "http" | "https")
        && !text.contains('*')
        && text.trim_end_matches('/').eq_ignore_ascii_case(&origin);
    if is_whole { Ok(origin) } else { Err(wrong()) }
}

impl Caller {
    /// Whether it is a page.
    pub(crate) fn is_page(&self) -> bool {
        self.origins.is_some()
    }

    /// Whether a key of a page comes from a page of its own.
    pub(super) fn check_origin(
        &self,
        origins: &Arc<[String]>,
        headers: &HeaderMap,
    ) -> Result<(), Problem> {
        let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
        if origin.is_some_and(|origin| origins.iter().any(|known| known == origin)) {
            return Ok(());
        }
        let comes = origin.map_or_else(|| "no page".to_owned(), |origin| format!("{origin:?}"));
        Err(Problem::new(
            "forbidden",
            format!(
                "The access key of {} is for pages of {}, and this comes from {comes}; `onceward access create NAME --browser --origin ORIGIN` makes one for another, and a program has a key without --browser.",
                self.who(),
                origins.join(", "),
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_read_as_browsers_write_it() {
        for (text, origin) in [
            ("https://shop.example", "https://shop.example"),
            ("https://Shop.Example/", "https://shop.example"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ] {
            assert_eq!(origin_of(text).as_deref(), Ok(origin), "{text}");
        }
        for text in [
            "",
            "*",
            "null",
            "shop.example",
            "https://",
            "https://shop.example/pay",
            "file:///a",
            "https://a@shop.example",
            "https://shop.example?x",
            "data:text/html,x",
            "https://*.example",
        ] {
            assert!(origin_of(text).is_err(), "{text}");
        }
    }
}
