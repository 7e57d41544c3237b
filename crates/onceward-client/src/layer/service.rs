//! The service before a handler: what has a key is claimed first, everything else passes by.

use std::fmt;
use std::future::Future;
use std::mem;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response};
use sha2::{Digest as _, Sha256};
use tokio::task::JoinError;
use tower_service::Service;

use super::body::Body;
use super::outcome::{Kept, Told, lost, not_begun, not_retained, refuse, refused, unknown};
use super::{Keyed, OnceLayer};
use crate::call::KEY;
use crate::claims::{BUSY, Begin, Claims, Granted, Hold, NotDone, busy, in_doubt};
use crate::client::in_path;
use crate::error::{BoxError, Error};
use crate::keys::{KEY_BYTES_MAX, is_safe, read_key};
use crate::meaning::{Meaning, meaning};
use crate::shapes::{Advice, Claim, ClaimStatus, Effects, ProblemCode};
use crate::units::to_hex;

/// A handler that has not answered by then is lost: its lease may end.
const HOLD_MAX: Duration = Duration::from_mins(15);

/// What went wrong with the ledger, among the extensions of the answer that says so in few words: for
/// the logs of whoever runs the handler.
#[derive(Debug, Clone)]
pub struct Trouble(pub Arc<Error>);

/// A service that an [`OnceLayer`] made of another.
#[derive(Clone)]
pub struct OnceService<S> {
    inner: S,
    layer: Arc<OnceLayer>,
}

impl<S: fmt::Debug> fmt::Debug for OnceService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnceService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S> OnceService<S> {
    pub(super) fn new(inner: S, layer: OnceLayer) -> Self {
        Self { inner, layer: Arc::new(layer) }
    }
}

/// What is answered, its body in memory or not.
type Answered<R> = Response<Body<R>>;

impl<S, B, R> Service<Request<B>> for OnceService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: http_body::Body<Data = Bytes> + From<Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Answered<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Answered<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that said that it is ready goes, another one stays.
        let next = self.inner.clone();
        let mut ready = mem::replace(&mut self.inner, next);
        let has_key = request.headers().contains_key(KEY);
        if is_safe(request.method()) || !(has_key || self.layer.is_key_required) {
            let passing = ready.call(request);
            return Box::pin(async move { Ok(passing.await?.map(Body::passing)) });
        }
        let layer = Arc::clone(&self.layer);
        Box::pin(layer.answer(ready, request))
    }
}

impl OnceLayer {
    async fn answer<S, B, R>(
        self: Arc<Self>,
        ready: S,
        request: Request<B>,
    ) -> Result<Answered<R>, S::Error>
    where
        S: Service<Request<B>, Response = Response<R>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Send + 'static,
        B: http_body::Body<Data = Bytes> + From<Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
        R: http_body::Body<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        let (key, body) = match self.read(&head, body).await {
            Ok(read) => read,
            Err(refusal) => return Ok(refusal.map(Body::whole)),
        };
        // In a task of its own from its begin on: a caller that hangs up changes nothing.
        match tokio::spawn(self.run(ready, head, key, body)).await.and_then(|ended| ended) {
            Ok(answered) => answered,
            Err(broken) if broken.is_panic() => resume_unwind(broken.into_panic()),
            // The runtime ends, and its tasks with it.
            Err(_) => Ok(unknown("The handler was stopped.").map(Body::whole)),
        }
    }

    /// Begins a claim, and runs the handler where it is in hand; fails where the handler panics.
    async fn run<S, B, R>(
        self: Arc<Self>,
        mut ready: S,
        mut head: Parts,
        key: String,
        body: Bytes,
    ) -> Result<Result<Answered<R>, S::Error>, JoinError>
    where
        S: Service<Request<B>, Response = Response<R>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Send + 'static,
        B: From<Bytes> + Send + 'static,
        R: http_body::Body<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let name = self.name_of(&head, &key);
        let granted = match self.begin(&head, &name, &body).await {
            Ok(Granted { claim, .. }) if claim.status == ClaimStatus::Done => {
                return Ok(Ok(replayed(&key, claim).map(Body::whole)));
            }
            Ok(granted) => granted,
            Err(mut refusal) => {
                Told::of(&key).write(refusal.headers_mut());
                return Ok(Ok(refusal.map(Body::whole)));
            }
        };
        let run = Run {
            key: key.clone(),
            name,
            operation: granted.claim.operation.clone(),
            is_harmless: granted.claim.effects != Effects::NonIdempotent,
            response_bytes_max: self.response_bytes_max,
            hold: Hold::new(self.claims.clone(), granted, HOLD_MAX),
            claims: self.claims.clone(),
        };
        let fence = run.hold.held().fence;
        head.extensions.insert(Keyed { key, operation: run.operation.clone(), fence });
        let request = Request::from_parts(head, B::from(body));
        // Apart, so that a panic of it is met here.
        match tokio::spawn(async move { ready.call(request).await }).await {
            Ok(Ok(response)) => Ok(Ok(run.settle(response).await)),
            Ok(Err(error)) => {
                run.give_up("the handler failed").await;
                Ok(Err(error))
            }
            Err(broken) => {
                run.give_up("the handler panicked").await;
                Err(broken)
            }
        }
    }

    /// The key, and the whole body.
    async fn read<B>(&self, head: &Parts, body: B) -> Result<(String, Bytes), Response<Bytes>>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let wrong = |code, status, title: &str, detail: &str| {
            refuse(code, status, Advice::FixRequest, title, detail)
        };
        let mut fields = head.headers.get_all(KEY).iter();
        let Some(field) = fields.next() else {
            let title = "This route wants an Idempotency-Key";
            let detail = "Send one of your own making: it names one intended effect.";
            return Err(wrong(ProblemCode::KeyRequired, 400, title, detail));
        };
        let is_one = fields.next().is_none();
        let Some(key) = field.to_str().ok().filter(|_| is_one).and_then(read_key) else {
            let title = "The idempotency key cannot be read";
            let detail =
                "Write 1 to 255 visible letters, quoted or without spaces, commas and quotes.";
            return Err(wrong(ProblemCode::KeyInvalid, 400, title, detail));
        };
        match Body::read(body, self.body_bytes_max).await {
            Ok((Some(body), _)) => Ok((key, body)),
            Ok((None, _)) => {
                let detail = format!("It takes {} bytes; nothing was done.", self.body_bytes_max);
                let title = "The body is larger than is taken";
                Err(wrong(ProblemCode::BodyTooLarge, 413, title, &detail))
            }
            Err(_) => {
                let title = "The request cannot be read";
                Err(wrong(ProblemCode::RequestInvalid, 400, title, "Its body did not come whole."))
            }
        }
    }

    /// The claim's key: whose it is stands before it, written so that no other name can look like it.
    /// What is too long is a digest behind an `@`, which stands in no name that is written for a path.
    fn name_of(&self, head: &Parts, key: &str) -> String {
        let Some(principal) = &self.principal else { return key.to_owned() };
        let name = format!("{}/{key}", in_path(&principal(head)));
        if name.len() <= KEY_BYTES_MAX {
            name
        } else {
            format!("@sha256/{}", digest(&[name.as_bytes()]))
        }
    }

    /// A claim that is in hand, or done; else what is answered.
    async fn begin(
        &self,
        head: &Parts,
        name: &str,
        body: &Bytes,
    ) -> Result<Granted, Response<Bytes>> {
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let kind = head.headers.get("content-type").map_or(&b""[..], |kind| kind.as_bytes());
        let about = format!("{}\n{path}\n", head.method);
        let fingerprint = digest(&[about.as_bytes(), kind, b"\n", body]);
        let by_method = match head.method {
            Method::PUT | Method::DELETE => Effects::Idempotent,
            _ => Effects::NonIdempotent,
        };
        let effects = self.effects.clone().unwrap_or(by_method);
        let begin = Begin::new().fingerprint(fingerprint).effects(effects).wait(self.wait);
        let granted = self.claims.take(name, &begin).await.map_err(|error| {
            let mut answer = not_begun(&error);
            answer.extensions_mut().insert(Trouble(Arc::new(error)));
            answer
        })?;
        let claim = match granted.claim.status {
            ClaimStatus::Acquired | ClaimStatus::Done => return Ok(granted),
            _ => granted.claim,
        };
        let error = if claim.status == ClaimStatus::InDoubt {
            in_doubt(claim)
        } else {
            let wait = claim.retry_after_ms.map_or(BUSY, Duration::from_millis);
            busy(claim, wait)
        };
        Err(error.refusal().map_or_else(|| not_begun(&error), refused))
    }
}

fn digest(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    to_hex(&hash.finalize())
}

/// What somebody's run came to.
fn replayed(key: &str, claim: Claim) -> Response<Bytes> {
    let operation = Some(claim.operation.as_str());
    let kept = Kept::answer(claim.outcome.unwrap_or_default());
    let is_replay = kept.is_some();
    let mut answer = kept.unwrap_or_else(not_retained);
    let state = is_replay.then_some("done");
    let operation = operation.filter(|_| is_replay);
    Told { key, operation, state, advice: None, is_replay }.write(answer.headers_mut());
    answer
}

/// A handler that has a key in hand.
struct Run {
    key: String,
    name: String,
    operation: String,
    is_harmless: bool,
    response_bytes_max: usize,
    hold: Hold,
    claims: Claims,
}

impl Run {
    /// Says that it may have been done.
    async fn give_up(&self, why: &str) {
        let fence = self.hold.held().fence;
        // A lease that ends by itself says the same, later.
        let _ = self.claims.release_unknown(&self.name, fence, why).await;
    }

    /// Writes down how it ended, and gives what is to be answered.
    async fn settle<R>(self, response: Response<R>) -> Answered<R>
    where
        R: http_body::Body<Data = Bytes>,
        R::Error: Into<BoxError>,
    {
        let (mut head, body) = response.into_parts();
        let fence = self.hold.held().fence;
        let (state, advice, body) = match meaning(head.status, &head.headers) {
            Meaning::Final => {
                let Ok((whole, body)) = Body::read(body, self.response_bytes_max).await else {
                    self.give_up("the handler's answer broke off").await;
                    return self.told(unknown("The handler's answer broke off."), None);
                };
                let kept = Kept::of(head.status, &head.headers, whole.as_ref()).into_value();
                if let Err(error) = self.claims.complete(&self.name, fence, kept).await {
                    if matches!(error, Error::Refused(_)) {
                        self.give_up("its outcome cannot be written down").await;
                    }
                    return self.told(lost(&error), Some(error));
                }
                ("done", None, body)
            }
            Meaning::Refused => {
                let why =
                    format!("the handler answered {}: nothing was done", head.status.as_u16());
                // A lease that ends by itself leaves it open, later.
                let _ = self.claims.release(&self.name, fence, &NotDone::new(why)).await;
                ("dead", Some("same-key"), Body::passing(body))
            }
            Meaning::Ambiguous => {
                self.give_up(&format!("the handler answered {}", head.status.as_u16())).await;
                let (state, advice) =
                    if self.is_harmless { ("dead", "same-key") } else { ("in_doubt", "escalate") };
                (state, Some(advice), Body::passing(body))
            }
        };
        let (operation, state) = (Some(&*self.operation), Some(state));
        let told = Told { key: &self.key, operation, state, advice, is_replay: false };
        told.write(&mut head.headers);
        Response::from_parts(head, body)
    }

    fn told<R>(&self, mut answer: Response<Bytes>, error: Option<Error>) -> Answered<R> {
        Told::of(&self.key).write(answer.headers_mut());
        if let Some(error) = error {
            answer.extensions_mut().insert(Trouble(Arc::new(error)));
        }
        answer.map(Body::whole)
    }
}
