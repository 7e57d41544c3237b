//! What a page of another origin may ask and read (the Fetch standard's CORS protocol): what it asked, and
//! the headers that answer it. Who may is another's word: a guard's upstream (`guard/cors.rs`), or an
//! access key (`access/page.rs`).

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};

/// A longer origin is none.
const ORIGIN_BYTES_MAX: usize = 512;

/// What we say of a keyed call.
pub(crate) const OURS: [&str; 13] = [
    "idempotency-key",
    "idempotent-replayed",
    "onceward-operation",
    "onceward-state",
    "onceward-attempts",
    "onceward-contract",
    "onceward-key-expires",
    "onceward-key-made",
    "onceward-advice",
    "onceward-duplicate-of",
    "onceward-suspect-of",
    "onceward-superseded-by",
    "retry-after",
];

/// What a page asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) origin: HeaderValue,
    pub(crate) is_preflight: bool,
}

impl Asked {
    /// Nothing where no page did.
    pub(crate) fn of<B>(request: &Request<B>) -> Option<Self> {
        let headers = request.headers();
        let origin = headers.get(header::ORIGIN)?.clone();
        let is_preflight = request.method() == Method::OPTIONS
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        (origin.len() <= ORIGIN_BYTES_MAX).then_some(Self { origin, is_preflight })
    }

    /// Lets the page's origin read the answer, and no other.
    pub(crate) fn allow(&self, headers: &mut HeaderMap, with_credentials: bool) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, self.origin.clone());
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        if with_credentials {
            let yes = HeaderValue::from_static("true");
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
    }
}

/// The headers of an answer that a page wants to read beside what is always open to it.
pub(crate) fn readable(headers: &HeaderMap) -> impl Iterator<Item = String> {
    let of_answer = headers.keys().map(HeaderName::as_str);
    let others = of_answer.filter(|it| !it.starts_with("access-control-") && *it != "set-cookie");
    others.map(str::to_owned)
}

/// Adds a line with a list of names.
pub(crate) fn append_list(headers: &mut HeaderMap, name: HeaderName, list: &[String]) {
    if !list.is_empty()
        && let Ok(value) = HeaderValue::from_str(&list.join(", "))
    {
        headers.append(name, value);
    }
}
