//! A call as it goes to the gateway: its address, its headers and its bytes, all made once.

use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Uri};
use serde::Serialize;

use crate::keys::{is_safe, key_field, new_key};
use crate::shapes::Effects;
use crate::units::{duration, rfc3339};

/// The header of the key.
pub(crate) const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Why a call cannot be made. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct InvalidCall {
    what: String,
}

impl InvalidCall {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into() }
    }
}

/// A call through the gateway: its own builder. What is wrong with it, whoever makes it is told.
///
/// ```
/// use onceward_client::Call;
///
/// let call = Call::to("stripe/v1/charges")
///     .key("order-1/charge")
///     .bearer("sk_test_1")
///     .form([("amount", "100"), ("currency", "eur")]);
/// # drop(call);
/// ```
#[derive(Clone)]
#[must_use = "nothing is sent before it is given to a client"]
pub struct Call {
    to: String,
    path: String,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
    key: Option<String>,
    /// The first thing that is wrong with it.
    wrong: Option<InvalidCall>,
}

/// Without its body and headers, which nobody should read in a log.
impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Call");
        shown.field("to", &self.to).field("method", &self.method).field("key", &self.key);
        shown.field("bytes", &self.body.len()).finish_non_exhaustive()
    }
}

/// A call, made ready: whatever is drawn for it is drawn.
#[derive(Clone)]
pub(crate) struct Prepared {
    pub(crate) url: Uri,
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) key: Option<String>,
}

impl Prepared {
    /// The request of one attempt: each is like the others.
    pub(crate) fn request(&self) -> Request<Bytes> {
        let mut request = Request::new(self.body.clone());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

impl Call {
    /// A POST to a route, with or without a path, its query too (`demo`, `demo/orders?page=1`); or to a
    /// URL, where the gateway lets callers name one.
    pub fn to(to: impl Into<String>) -> Self {
        Self {
            to: to.into(),
            path: String::new(),
            method: Method::POST,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            key: None,
            wrong: None,
        }
    }

    /// Path and query at the upstream, percent-encoded, where they do not stand in [`to`](Self::to).
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Another method than POST.
    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// The idempotency key: the name of one intended effect, 1 to 255 visible letters of ASCII. Give
    /// one that you keep, so that it outlives this process too; without one, a key is made that
    /// protects the repeats of this call.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// A header for the upstream; several of one name are several lines, but of those that are one by
    /// their nature: the last of them counts.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            (Ok(name), Ok(mut value)) => {
                value.set_sensitive(name == AUTHORIZATION);
                if [AUTHORIZATION, CONTENT_TYPE, KEY].contains(&name) {
                    self.headers.insert(name, value);
                } else {
                    self.headers.append(name, value);
                }
            }
            // Its value may be a secret.
            _ => self.refuse(format!("the header {name:?} is none")),
        }
        self
    }

    /// The upstream's own access key, as `Authorization: Bearer`.
    pub fn bearer(self, token: &str) -> Self {
        self.header(AUTHORIZATION.as_str(), &format!("Bearer {token}"))
    }

    /// A body, its bytes as they stand; its type is a header of yours.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// A body as JSON, written once.
    pub fn json(mut self, body: &(impl Serialize + ?Sized)) -> Self {
        match serde_json::to_vec(body) {
            Ok(bytes) => self.typed(bytes, "application/json"),
            Err(error) => {
                self.refuse(format!("the body cannot be written as JSON: {error}"));
                self
            }
        }
    }

    /// A body as a form has it.
    pub fn form<N: AsRef<str>, V: AsRef<str>>(
        self,
        fields: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields);
        self.typed(form.finish().into_bytes(), "application/x-www-form-urlencoded")
    }

    /// A word for people and filters.
    pub fn label(self, label: &str) -> Self {
        self.option("onceward-label", label)
    }

    /// What it is about: those about the same take turns by their [`sequence`](Self::sequence).
    pub fn subject(self, subject: &str) -> Self {
        self.option("onceward-subject", subject)
    }

    /// Its place among those about the same.
    pub fn sequence(self, sequence: u64) -> Self {
        self.option("onceward-sequence", &sequence.to_string())
    }

    /// Calls of one flow take turns fairly with those of others.
    pub fn flow_key(self, key: &str) -> Self {
        self.option("onceward-flow-key", key)
    }

    /// No attempt begins before that much time is over.
    pub fn delay(self, delay: Duration) -> Self {
        self.option("onceward-delay", &duration(delay))
    }

    /// No attempt begins after.
    pub fn deadline(mut self, at: SystemTime) -> Self {
        if let Some(text) = rfc3339(at) {
            return self.option("onceward-deadline", &text);
        }
        self.refuse("the deadline is no time from 1970 to 9999");
        self
    }

    /// Who is told of its end: a route with a path, or a URL.
    pub fn callback(self, to: &str) -> Self {
        self.option("onceward-callback", to)
    }

    /// The operation that it follows from.
    pub fn parent(self, operation: &str) -> Self {
        self.option("onceward-parent", operation)
    }

    /// Of a URL: what a second arrival would do.
    pub fn effects(self, effects: &Effects) -> Self {
        self.option("onceward-effects", effects.as_str())
    }

    fn typed(mut self, bytes: Vec<u8>, kind: &'static str) -> Self {
        self.headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(kind));
        self.body(bytes)
    }

    fn option(mut self, name: &'static str, value: &str) -> Self {
        match HeaderValue::try_from(value) {
            Ok(value) => {
                self.headers.insert(HeaderName::from_static(name), value);
            }
            Err(_) => self.refuse(format!("{name} cannot be {value:?}")),
        }
        self
    }

    fn refuse(&mut self, what: impl Into<String>) {
        self.wrong.get_or_insert_with(|| InvalidCall::new(what));
    }

    /// The call with all that it is sent with each time; a key is drawn here, and nowhere later.
    pub(crate) fn prepare(mut self, base: &str) -> Result<Prepared, InvalidCall> {
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        let url = address(base, &self.to, &self.path)?;
        let given = self.headers.get(KEY).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let is_wanted = given.is_none() && !is_safe(&self.method);
        if let Some(key) = self.key.or_else(|| is_wanted.then(new_key)) {
            let field = key_field(&key).map_err(InvalidCall::new)?;
            let field = HeaderValue::try_from(field).map_err(|_| InvalidCall::new("no key"))?;
            self.headers.insert(KEY, field);
            self.key = Some(key);
        } else {
            self.key = given;
        }
        let Self { method, headers, body, key, .. } = self;
        Ok(Prepared { url, method, headers, body, key })
    }
}

/// The address of what is called: what a URL's rules would change is refused, since it could lead
/// elsewhere.
fn address(base: &str, to: &str, path: &str) -> Result<Uri, InvalidCall> {
    if to.is_empty() {
        return Err(InvalidCall::new(
            "it goes nowhere: name a route, as in `demo` or `demo/orders`",
        ));
    }
    if !path.is_empty() && !path.starts_with(['/', '?']) {
        return Err(InvalidCall::new(format!("the path {path:?} does not begin with a slash")));
    }
    let to = if path.starts_with('/') { to.strip_suffix('/').unwrap_or(to) } else { to };
    let target = format!("{to}{path}");
    if target.contains(|letter: char| letter.is_whitespace() || ['\\', '#'].contains(&letter)) {
        let what = "an address has no space, backslash or `#`: percent-encode them";
        return Err(InvalidCall::new(what));
    }
    let way = target.split('?').next().unwrap_or_default();
    let is_dots = |part: &str| {
        let plain = part.to_ascii_lowercase().replace("%2e", ".");
        plain == "." || plain == ".."
    };
    if way.split('/').any(is_dots) {
        return Err(InvalidCall::new("an address has no `.` or `..` between its slashes"));
    }
    let target = target.strip_prefix('/').unwrap_or(&target);
    let url = format!("{base}/to/{target}");
    url.parse().map_err(|error| InvalidCall::new(format!("{url:?} is no address: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(to: &str, path: &str) -> Result<String, InvalidCall> {
        address("http://gateway/once", to, path).map(|url| url.to_string())
    }

    #[test]
    fn a_route_and_a_path_come_together_and_a_url_stands_in_the_place_of_a_route() {
        let at = |rest: &str| Ok(format!("http://gateway/once/to/{rest}"));
        assert_eq!(to("pay", ""), at("pay"));
        assert_eq!(to("/pay/", "/charges?a=1"), at("pay/charges?a=1"));
        assert_eq!(to("https://api.example/a", "?b=1"), at("https://api.example/a?b=1"));
    }

    #[test]
    fn an_address_that_a_urls_rules_would_change_is_refused() {
        for wrong in
            ["", "pay/../../v1/access", "pay/%2e%2E/x", "pay/.%2e", "pay/a#b", "pay\\x", "pay/a b"]
        {
            assert!(to(wrong, "").is_err(), "{wrong}");
        }
        assert!(to("pay", "charges").is_err());
    }

    #[test]
    fn a_key_is_drawn_once_and_only_for_what_has_an_effect() {
        let prepared = |call: Call| call.prepare("http://gateway").unwrap();
        let post = prepared(Call::to("pay"));
        assert_eq!(post.request().headers()[KEY], *post.key.as_deref().unwrap());
        assert_eq!(post.request().headers()[KEY], post.request().headers()[KEY]);
        assert_eq!(prepared(Call::to("pay").method(Method::GET)).key, None);
        assert_eq!(
            prepared(Call::to("pay").header("Idempotency-Key", "k")).key.as_deref(),
            Some("k")
        );
    }

    #[test]
    fn what_is_one_header_by_its_nature_stays_one_and_others_are_several() {
        let call =
            Call::to("pay").json(&1).header("Content-Type", "text/plain").header("Accept", "a");
        let headers = call.header("accept", "b").prepare("http://gateway").unwrap().headers;
        assert_eq!(headers.get_all("content-type").iter().collect::<Vec<_>>(), ["text/plain"]);
        assert_eq!(headers.get_all("accept").iter().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn a_call_does_not_show_what_is_in_it() {
        let shown =
            format!("{:?}", Call::to("pay").bearer("sk_1").header("x", "s3cret").body("pin"));
        assert!(["sk_1", "s3cret", "pin"].iter().all(|secret| !shown.contains(secret)), "{shown}");
    }

    #[test]
    fn what_is_wrong_with_a_call_is_told_by_its_first_fault_and_without_its_secrets() {
        let wrong = |call: Call| call.prepare("http://gateway").err().unwrap().to_string();
        assert!(wrong(Call::to("pay").key("")).contains("it is empty"));
        let said = wrong(Call::to("pay").header("x-secret", "s3\nret").bearer("\n").key(""));
        assert!(said.contains("x-secret") && !said.contains("s3"), "{said}");
    }
}
