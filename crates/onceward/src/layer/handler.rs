//! The inner service as an upstream: one attempt is one run of the handler.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, header, request};
use onceward_core::attempt::{Ending, Reached, Timings};
use onceward_core::exchange::Headers;
use onceward_core::key::Key;
use tower_service::Service;
use tracing::{Instrument as _, Span};

use super::Keyed;
use super::body::{BoxError, Coming};
use crate::edge::headers_of;
use crate::route::Route;
use crate::upstream::{Answer, Dispatch, Failure, Sent, Upstream};

/// The layer's name, on a request that is inside of it: a second one of that name, further in, lets it
/// pass, for else it would wait for itself.
#[derive(Clone)]
pub(super) struct Inside(pub(super) Arc<Route>);

/// What a call met: the service, ready for one request, and the request's head as it came.
pub(super) struct Handler<S, B> {
    met: Mutex<Met<S>>,
    span: Span,
    body: std::marker::PhantomData<fn() -> B>,
}

struct Met<S> {
    /// A service that said that it is ready, for the first run.
    ready: Option<S>,
    /// For those after it.
    next: S,
    head: request::Parts,
}

impl<S: Clone, B> Handler<S, B> {
    pub(super) fn new(ready: S, mut head: request::Parts, inside: Inside) -> Self {
        let next = ready.clone();
        head.extensions.insert(inside);
        Self {
            met: Mutex::new(Met { ready: Some(ready), next, head }),
            span: Span::current(),
            body: std::marker::PhantomData,
        }
    }

    /// A service for one run, and whether it has to be asked first whether it is ready.
    fn take(&self) -> (S, bool, request::Parts) {
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        let head = met.head.clone();
        match met.ready.take() {
            Some(ready) => (ready, true, head),
            None => (met.next.clone(), false, head),
        }
    }
}

impl<S, B, R> Upstream for Handler<S, B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: From<Bytes> + 'static,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    fn send(&self, dispatch: Dispatch) -> Pin<Box<dyn Future<Output = Sent> + Send + '_>> {
        let (mut service, is_ready, mut head) = self.take();
        let body = dispatch.request.body.clone();
        dress(&mut head, &dispatch.headers, body.len());
        // A task of its own: a panic ends it and nothing else.
        let run = async move {
            if !is_ready {
                poll_fn(|cx| service.poll_ready(cx)).await.map_err(unready)?;
            }
            let request = Request::from_parts(head, B::from(body));
            service.call(request).await.map_err(|error| {
                unanswered(format!("the handler gave no answer: {}", error.into()))
            })
        };
        let running = tokio::spawn(run.instrument(self.span.clone()));
        Box::pin(async move {
            match running.await {
                Ok(Ok(response)) => {
                    let (head, body) = response.into_parts();
                    Sent::Answered(Answer {
                        status: head.status.as_u16(),
                        headers: headers_of(&head.headers),
                        body: Box::new(Coming::new(body)),
                        note: None,
                    })
                }
                Ok(Err(failure)) => Sent::Failed(failure),
                Err(error) if error.is_panic() => {
                    Sent::Failed(unanswered("the handler panicked".to_owned()))
                }
                // The process ends: nobody hears of it.
                Err(_) => Sent::Failed(unanswered("the handler was cut off".to_owned())),
            }
        })
    }
}

/// The request's head with what is set at send: the key as the handler may rely on it, which
/// operation it is, and no content coding, so that a replay can be read by whoever asks later.
fn dress(head: &mut request::Parts, set: &Headers, length: usize) {
    for (name, value) in &set.0 {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_maybe_shared(value.clone()))
        {
            head.headers.insert(name, value);
        }
    }
    head.headers.remove(header::TRANSFER_ENCODING);
    if length > 0 || head.headers.contains_key(header::CONTENT_LENGTH) {
        head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if let Some(keyed) = keyed(set) {
        head.extensions.insert(keyed);
    }
}

fn keyed(set: &Headers) -> Option<Keyed> {
    let key = Key::from_field(set.all("idempotency-key").map(AsRef::as_ref)).ok()??;
    let operation = set.text("onceward-operation")?.parse().ok()?;
    let attempt = set.text("onceward-attempt")?.parse().ok()?;
    Some(Keyed { key, operation, attempt })
}

/// It never ran.
fn unready(error: impl Into<BoxError>) -> Failure {
    Failure {
        ending: Ending::Unsent,
        reached: Reached::Nothing,
        error: format!("the handler was not ready: {}", error.into()),
        permanent: false,
        timings: Timings::default(),
    }
}

/// It ran, and nobody knows how far.
fn unanswered(error: String) -> Failure {
    Failure {
        ending: Ending::Unanswered,
        reached: Reached::Sent,
        error,
        permanent: false,
        timings: Timings::default(),
    }
}
