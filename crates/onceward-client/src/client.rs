//! The client: calls through the gateway, and what became of them.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Uri};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use crate::answer::Answer;
use crate::call::{Call, InvalidCall, KEY, Prepared};
use crate::claims::Claims;
use crate::error::{BoxError, Error, Refusal, in_doubt, problem, problem_in};
use crate::keys::{is_safe, new_key};
use crate::retry::{Repeat, RetryPolicy, retry_after, retrying, unheard};
use crate::shapes::{self, Advice, OperationStory, ProblemCode, State};
use crate::transport::{HttpTransport, Transport};

/// Where the gateway listens where nothing says otherwise.
const URL: &str = "http://127.0.0.1:7077";

/// How often an operation is looked at that is waited for: at first, and at the most.
const LOOK: Duration = Duration::from_millis(100);
const LOOK_MAX: Duration = Duration::from_secs(5);

/// How long the last look at it may take, where the time is over already.
const LOOK_LAST: Duration = Duration::from_secs(1);

/// The header of the gateway's own access key: `Authorization` is the upstream's.
const ACCESS: HeaderName = HeaderName::from_static("onceward-authorization");

const AGENT: &str = concat!("onceward-rust/", env!("CARGO_PKG_VERSION"));

/// A client of one gateway. It is cheap to clone, and its clones share their connections.
#[derive(Clone)]
pub struct Onceward {
    shared: Arc<Shared>,
}

struct Shared {
    url: String,
    access: Option<HeaderValue>,
    retry: RetryPolicy,
    transport: Arc<dyn Transport>,
}

impl fmt::Debug for Onceward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Onceward").field("url", &self.shared.url).finish_non_exhaustive()
    }
}

/// What a client is made of; nothing is required.
#[derive(Default)]
#[must_use = "it is no client before it is built"]
pub struct Builder {
    url: Option<String>,
    access_key: Option<String>,
    retry: RetryPolicy,
    transport: Option<Arc<dyn Transport>>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").finish_non_exhaustive()
    }
}

impl Builder {
    /// The gateway's address; `ONCEWARD_URL` of the environment, or else `http://127.0.0.1:7077`, where
    /// nothing is said.
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
        self
    }

    /// An access key (`ow_…`); `ONCEWARD_ACCESS_KEY` of the environment where nothing is said.
    pub fn access_key(mut self, key: impl Into<String>) -> Self {
        self.access_key = Some(key.into());
        self
    }

    /// How often and how long calls are made again.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Another way to the gateway than [`HttpTransport`]: a double, or one through a proxy.
    pub fn transport(mut self, transport: impl Transport) -> Self {
        self.transport = Some(Arc::new(transport));
        self
    }

    /// The client. It connects with its first call.
    pub fn build(self) -> Result<Onceward, InvalidCall> {
        let said = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let url = self.url.or_else(|| said("ONCEWARD_URL")).unwrap_or_else(|| URL.to_owned());
        let url = url.trim_end_matches('/').to_owned();
        if url
            .parse::<Uri>()
            .is_ok_and(|it| it.authority().is_some_and(|it| it.as_str().contains('@')))
        {
            let what = "the gateway's address has a name or a password in it, which nobody would send: \
                        give an access key";
            return Err(InvalidCall::new(what));
        }
        let is_address = url.parse::<Uri>().is_ok_and(|it| {
            matches!(it.scheme_str(), Some("http" | "https")) && it.host().is_some()
        });
        if !is_address {
            return Err(InvalidCall::new(format!(
                "{url:?} is no address of a gateway: write {URL}"
            )));
        }
        let key = self.access_key.or_else(|| said("ONCEWARD_ACCESS_KEY"));
        let bearer = |key: String| {
            let mut value = HeaderValue::try_from(format!("Bearer {key}"))
                .map_err(|_| InvalidCall::new("the access key is no header's value"))?;
            value.set_sensitive(true);
            Ok(value)
        };
        let access = key.map(bearer).transpose()?;
        let transport = self.transport.unwrap_or_else(|| Arc::new(HttpTransport::new()));
        let shared = Shared { url, access, retry: self.retry, transport };
        Ok(Onceward { shared: Arc::new(shared) })
    }
}

/// A call that is on disk: it goes on by itself.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Accepted {
    /// The operation's id.
    pub operation: String,
    /// The idempotency key that the call was made with.
    pub key: Option<String>,
    /// The outcome, where it was there in time.
    pub answer: Option<Answer>,
}

impl Onceward {
    /// A client by the environment: `ONCEWARD_URL` and `ONCEWARD_ACCESS_KEY`.
    pub fn new() -> Result<Self, InvalidCall> {
        Self::builder().build()
    }

    /// A client of which more is to be said.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The gateway's address, without a slash at its end.
    pub fn url(&self) -> &str {
        &self.shared.url
    }

    /// Makes a call and waits for the upstream's answer, whatever its status. It is made again, with
    /// the same key, as long as the gateway says that this helps.
    ///
    /// # Errors
    ///
    /// [`Error::OutcomeUnknown`] where nobody knows whether it was done, [`Error::Unreachable`] where no
    /// answer of the gateway's came (the same key is safe), else what its refusal says.
    pub async fn send(&self, call: Call) -> Result<Answer, Error> {
        let call = self.introduced(call.prepare(&self.shared.url)?);
        self.make(&call, Duration::ZERO).await
    }

    /// Has a call remembered, and made without anybody who waits. What comes back is on disk.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send); [`Error::Refused`] where no operation was remembered, because it is a
    /// call that reads and has no key.
    pub async fn accept(&self, call: Call) -> Result<Accepted, Error> {
        self.accept_by(call, "respond-async".to_owned(), Duration::ZERO).await
    }

    /// The same, and it waits so long for an outcome that comes soon.
    pub async fn accept_within(&self, call: Call, wait: Duration) -> Result<Accepted, Error> {
        // Whole seconds, and never fewer than were meant.
        let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
        self.accept_by(call, format!("respond-async, wait={seconds}"), wait).await
    }

    async fn accept_by(
        &self,
        call: Call,
        prefer: String,
        extra: Duration,
    ) -> Result<Accepted, Error> {
        let call = call.header("prefer", &prefer);
        let call = self.introduced(call.prepare(&self.shared.url)?);
        let answer = self.make(&call, extra).await?;
        let Some(operation) = answer.operation().map(str::to_owned) else {
            let (status, method) = (answer.status().as_u16(), &call.method);
            if call.key.is_some() {
                let source = format!("an answer {status} that is not the gateway's").into();
                return Err(Error::Unreachable { key: call.key, source });
            }
            let why = format!(
                "The upstream answered {status}, and no operation was remembered: a call by {method} \
                 passes without a record where it has no key."
            );
            let (code, advice) = (ProblemCode::RequestInvalid, Advice::FixRequest);
            let said = problem(code, 400, advice, "It was not accepted", why);
            return Err(Refusal::new(said, call.key).into_error());
        };
        let answer = Some(answer).filter(|answer| !answer.is_accepted());
        Ok(Accepted { operation, key: call.key, answer })
    }

    /// The story of an operation.
    pub async fn operation(&self, operation: &str) -> Result<OperationStory, Error> {
        let path = format!("/v1/operations/{}", in_path(operation));
        let story: OperationStory = self.ask(Method::GET, &path, None).await?;
        if story.id.is_empty() { Err(unreadable(None, "it is no operation")) } else { Ok(story) }
    }

    /// The answer that is kept of an operation.
    pub async fn response(&self, operation: &str) -> Result<shapes::Answer, Error> {
        let path = format!("/v1/operations/{}/response", in_path(operation));
        let kept: shapes::Answer = self.ask(Method::GET, &path, None).await?;
        if kept.status == 0 { Err(unreadable(None, "it is no answer")) } else { Ok(kept) }
    }

    /// Waits until an operation has ended: `done`, or `dead`.
    ///
    /// # Errors
    ///
    /// [`Error::OutcomeUnknown`] where only a person can tell, [`Error::WaitTimeout`] where it has not
    /// ended in time; it goes on by itself.
    pub async fn wait(&self, operation: &str, timeout: Duration) -> Result<OperationStory, Error> {
        let begun = Instant::now();
        let mut look = LOOK;
        loop {
            let left = timeout.saturating_sub(begun.elapsed()).max(LOOK_LAST);
            let looked = tokio::time::timeout(left, self.operation(operation)).await;
            let story = looked.unwrap_or_else(|_| {
                let source = format!("no answer within {} ms", left.as_millis()).into();
                Err(Error::Unreachable { key: None, source })
            })?;
            // Where the upstream is asked what it knows, the doubt may end by itself.
            let is_looked_up = || story.looks.as_ref().is_some_and(|looks| looks.next.is_some());
            match &story.state {
                State::Done | State::Dead => return Ok(story),
                State::InDoubt if !is_looked_up() => {
                    return Err(in_doubt(Some(&story.id), Some(&story.key), None));
                }
                state => {
                    let left = timeout.saturating_sub(begun.elapsed());
                    if left.is_zero() {
                        let (operation, state) = (operation.to_owned(), state.clone());
                        return Err(Error::WaitTimeout { operation, state });
                    }
                    tokio::time::sleep(look.min(left)).await;
                    look = (2 * look).min(LOOK_MAX);
                }
            }
        }
    }

    /// The ledger as a service for one's own handlers, consumers and jobs: keys are unique within
    /// `scope`.
    pub fn claims(&self, scope: impl Into<String>) -> Claims {
        Claims::new(self.clone(), scope.into())
    }

    /// Asks the rest of the API, as `docs/api.md` has it, and gives the document that it answers.
    ///
    /// What makes something new under a key (events, operations, sagas, an operation sent again) gets
    /// an `Idempotency-Key` for its repeats where the body has no `key`; any other POST is not made
    /// again unless nothing was sent or the gateway advises it.
    ///
    /// # Errors
    ///
    /// [`Error::OutcomeUnknown`] where such a POST was sent and no answer of the gateway's came, else as
    /// [`send`](Self::send). [`Error::AnswerUnreadable`] where what came is no answer of the API's.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, Error> {
        let is_keyed = method == Method::POST && takes_key(path);
        let is_said = body.and_then(|body| body.get("key")).is_some_and(Value::is_string);
        let key = (is_keyed && !is_said).then(new_key);
        let repeat = if is_keyed || is_safe(&method) || method == Method::DELETE {
            Repeat::Safe
        } else {
            Repeat::Unsafe
        };
        let answer = self.ask_for(method, path, body, (key, repeat), Duration::ZERO).await?;
        answer.json().map_err(|error| unreadable(answer.key(), error))
    }

    /// The same, and its answer as it came; the gateway itself was asked to wait for `extra`.
    pub(crate) async fn ask_for(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        (key, repeat): (Option<String>, Repeat),
        extra: Duration,
    ) -> Result<Answer, Error> {
        let url = format!("{}{path}", self.shared.url);
        let url = url.parse().map_err(|_| InvalidCall::new(format!("{url:?} is no address")))?;
        let json = HeaderValue::from_static("application/json");
        let mut headers = HeaderMap::from_iter([(ACCEPT, json.clone())]);
        let mut bytes = Bytes::new();
        if let Some(body) = body {
            headers.insert(CONTENT_TYPE, json);
            bytes = body.to_string().into();
        }
        if let Some(field) = key.as_deref().and_then(|key| HeaderValue::try_from(key).ok()) {
            headers.insert(KEY, field);
        }
        let call = self.introduced(Prepared { url, method, headers, body: bytes, key, repeat });
        let answer = self.answer(&call, extra).await?;
        if answer.ok() {
            return Ok(answer);
        }
        // Refusals of the gateway's are problems: this is another's word.
        let said = format!("it has the status {}", answer.status());
        Err(match repeat {
            Repeat::Unsafe if answer.status().is_server_error() => unheard(&call, &said),
            _ => unreadable(call.key.as_deref(), said),
        })
    }

    async fn make(&self, call: &Prepared, extra: Duration) -> Result<Answer, Error> {
        let answer = self.answer(call, extra).await?;
        if answer.state() == Some(State::InDoubt) {
            let operation = answer.operation().map(str::to_owned);
            return Err(in_doubt(operation.as_deref(), call.key.as_deref(), Some(answer)));
        }
        Ok(answer)
    }

    /// An answer that is no refusal of the gateway's.
    async fn answer(&self, call: &Prepared, extra: Duration) -> Result<Answer, Error> {
        let Shared { transport, retry, .. } = &*self.shared;
        let response = retrying(&**transport, call, retry, extra).await?;
        let answer = Answer::new(response, call.key.clone());
        match problem_in(&answer) {
            Some(problem) => {
                let after = retry_after(answer.headers(), SystemTime::now());
                Err(Refusal::new(problem, call.key.clone()).after(after).into_error())
            }
            None => Ok(answer),
        }
    }

    /// Says who asks, where the call itself does not.
    fn introduced(&self, mut call: Prepared) -> Prepared {
        if let Some(access) = &self.shared.access {
            call.headers.entry(ACCESS).or_insert_with(|| access.clone());
        }
        call.headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
        call
    }
}

/// An answer that is none of the API's.
pub(crate) fn unreadable(key: Option<&str>, why: impl Into<BoxError>) -> Error {
    Error::AnswerUnreadable { key: key.map(str::to_owned), source: why.into() }
}

/// Whether what is posted there makes one thing for one key, whatever arrives twice.
fn takes_key(path: &str) -> bool {
    let way = path.split('?').next().unwrap_or_default();
    let is_resend = || {
        let id = way.strip_prefix("/v1/operations/").and_then(|way| way.strip_suffix("/resend"));
        id.is_some_and(|id| !id.contains('/'))
    };
    ["/v1/events", "/v1/operations", "/v1/sagas"].contains(&way) || is_resend()
}

/// A name as one part of a path.
pub(crate) fn in_path(name: &str) -> String {
    let coded: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
    coded.replace('+', "%20")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_none_is_refused_with_the_mend() {
        for wrong in ["gateway:7077", "ftp://gateway", "http://", "not an address"] {
            let said = Onceward::builder().url(wrong).build().unwrap_err().to_string();
            assert!(said.contains("write http://127.0.0.1:7077"), "{said}");
        }
    }

    #[test]
    fn an_address_with_a_password_is_refused_and_not_shown() {
        let builder = Onceward::builder().url("http://anna:s3cret@gateway");
        assert!(!format!("{builder:?}").contains("s3cret"));
        let said = builder.build().unwrap_err().to_string();
        assert!(said.contains("access key") && !said.contains("s3cret"), "{said}");
    }

    #[test]
    fn a_client_does_not_show_its_access_key() {
        let client = Onceward::builder().url("http://gateway/").access_key("ow_1").build().unwrap();
        assert_eq!(format!("{client:?}"), "Onceward { url: \"http://gateway\", .. }");
        assert!(!format!("{:?}", Onceward::builder().access_key("ow_1")).contains("ow_1"));
    }

    #[test]
    fn what_takes_a_key_is_what_the_document_of_the_api_says() {
        let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
        // The document is no part of the crate as it is packed.
        let Ok(text) = std::fs::read(document) else { return };
        let document: Value = serde_json::from_slice(&text).unwrap();
        let (mut keyed, mut others) = (0, 0);
        for (path, item) in document["paths"].as_object().unwrap() {
            let Some(post) = path.starts_with("/v1/").then(|| item.get("post")).flatten() else {
                continue;
            };
            let is_keyed = post["parameters"].to_string().contains("/idempotencyKey");
            assert_eq!(takes_key(&path.replace("{id}", "op_1")), is_keyed, "{path}");
            if is_keyed { keyed += 1 } else { others += 1 }
        }
        assert!(keyed >= 4 && others > 0);
    }

    #[test]
    fn a_name_is_one_part_of_a_path() {
        assert_eq!(in_path("order/1 a+b?é"), "order%2F1%20a%2Bb%3F%C3%A9");
    }
}
