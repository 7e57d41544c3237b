//! How a request goes to the gateway and its answer comes back.

mod connect;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::error::BoxError;
use connect::Connector;

/// The largest answer that is read, in bytes.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How long a connection that nobody uses is kept: shorter than servers commonly do.
const IDLE: Duration = Duration::from_secs(30);

/// What a transport comes to.
pub type Answering<'a> =
    Pin<Box<dyn Future<Output = Result<Response<Bytes>, TransportError>> + Send + 'a>>;

/// The way to the gateway. [`HttpTransport`] is one, the [`FakeGateway`](crate::testing::FakeGateway)
/// another; one of your own can go through a proxy.
///
/// It makes one request, as it stands: it follows no redirect, and repeats nothing that may have
/// arrived.
pub trait Transport: Send + Sync + 'static {
    /// Makes a request, and reads its answer whole.
    fn call(&self, request: Request<Bytes>) -> Answering<'_>;
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// None came, or not all of it.
    #[error("{0}")]
    NoAnswer(#[source] BoxError),
    /// It is larger than so many bytes.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
}

/// HTTP/1.1 on connections that are kept, with TLS where the address says `https` (feature `tls`).
#[derive(Debug, Clone)]
pub struct HttpTransport {
    client: Client<Connector, Full<Bytes>>,
}

impl HttpTransport {
    /// With the certificates that the system trusts.
    pub fn new() -> Self {
        Self::through(Connector::new())
    }

    /// With what you trust, and who you are.
    #[cfg(feature = "tls")]
    pub fn with_tls(config: std::sync::Arc<rustls::ClientConfig>) -> Self {
        Self::through(Connector::with_tls(config))
    }

    fn through(connector: Connector) -> Self {
        let mut client = Client::builder(TokioExecutor::new());
        client.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE);
        Self { client: client.build(connector) }
    }
}

impl Default for HttpTransport {
    fn default() -> Self {
        Self::new()
    }
}

impl Transport for HttpTransport {
    fn call(&self, request: Request<Bytes>) -> Answering<'_> {
        Box::pin(async move {
            let none = |error: BoxError| TransportError::NoAnswer(told(&*error));
            let answer = self.client.request(request.map(Full::new)).await;
            let (head, body) = answer.map_err(|error| none(error.into()))?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| {
                let is_large = error.is::<LengthLimitError>();
                if is_large { TransportError::TooLarge(ANSWER_BYTES_MAX) } else { none(error) }
            })?;
            Ok(Response::from_parts(head, body.to_bytes()))
        })
    }
}

/// An error whose words say what happened, and not only where.
fn told(error: &(dyn std::error::Error + Send + Sync)) -> BoxError {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(deeper) = source {
        said = format!("{said}: {deeper}");
        source = deeper.source();
    }
    said.into()
}
