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
use crate::call::{Call, InvalidCall, Prepared};
use crate::claims::Claims;
use crate::error::{Error, Refusal, in_doubt, problem, problem_in};
use crate::retry::{RetryPolicy, retry_after, retrying};
use crate::shapes::{self, Advice, OperationStory, ProblemCode, State};
use crate::transport::{HttpTransport, Transport};

/// Where the gateway listens where nothing says otherwise.
const URL: &str = "http://127.0.0.1:7077";

/// How often an operation is looked at that is waited for: at first, and at the most.
const LOOK: Duration = Duration::from_millis(100);
const LOOK_MAX: Duration = Duration::from_secs(5);

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
        f.debug_struct("Builder").field("url", &self.url).finish_non_exhaustive()
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
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
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
        self.ask(Method::GET, &format!("/v1/operations/{}", in_path(operation)), None).await
    }

    /// The answer that is kept of an operation.
    pub async fn response(&self, operation: &str) -> Result<shapes::Answer, Error> {
        self.ask(Method::GET, &format!("/v1/operations/{}/response", in_path(operation)), None)
            .await
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
            let story = self.operation(operation).await?;
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
    pub async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, Error> {
        self.ask_for(method, path, body, Duration::ZERO).await
    }

    /// The same, where the gateway itself was asked to wait for `extra`.
    pub(crate) async fn ask_for<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        extra: Duration,
    ) -> Result<T, Error> {
        let url = format!("{}{path}", self.shared.url);
        let url = url.parse().map_err(|_| InvalidCall::new(format!("{url:?} is no address")))?;
        let json = HeaderValue::from_static("application/json");
        let mut headers = HeaderMap::from_iter([(ACCEPT, json.clone())]);
        let mut bytes = Bytes::new();
        if let Some(body) = body {
            headers.insert(CONTENT_TYPE, json);
            bytes = body.to_string().into();
        }
        let call = Prepared { url, method, headers, body: bytes, key: None };
        let answer = self.answer(&self.introduced(call), extra).await?;
        answer.json().map_err(Error::AnswerUnreadable)
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
    fn a_client_does_not_show_its_access_key() {
        let client = Onceward::builder().url("http://gateway/").access_key("ow_1").build().unwrap();
        assert_eq!(format!("{client:?}"), "Onceward { url: \"http://gateway\", .. }");
        assert!(!format!("{:?}", Onceward::builder().access_key("ow_1")).contains("ow_1"));
    }

    #[test]
    fn a_name_is_one_part_of_a_path() {
        assert_eq!(in_path("order/1 a+b?é"), "order%2F1%20a%2Bb%3F%C3%A9");
    }
}
