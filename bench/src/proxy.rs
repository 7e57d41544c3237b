//! A reverse proxy without a ledger: the least that the same libraries can do.
//!
//! Streams both bodies, keeps connections to the sink, drops hop-by-hop headers. No limits, no
//! timeouts, no retries: it is the measure, not a product.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{Either, Empty};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::Outcome;

/// What concerns one connection only (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] =
    [CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

type Sender = SendRequest<Incoming>;
type Answer = Response<Either<Returning, Empty<Bytes>>>;

/// Serves until standard input ends.
pub(crate) fn run(sink: SocketAddr) -> Outcome<()> {
    let pool = Arc::new(Pool { sink, idle: Mutex::default() });
    serve(move |request, _| forward(request, Arc::clone(&pool)))
}

/// Answers all requests so, with whom each came from.
pub(crate) fn serve<A, F, B>(answer: A) -> Outcome<()>
where
    A: Fn(Request<Incoming>, IpAddr) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<B>, Infallible>> + Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = crate::sink::listen().await?;
        loop {
            let (stream, peer) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let answer = answer.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(request, peer.ip()));
                // A caller that goes away in the middle is its own affair.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    })
}

async fn forward(mut request: Request<Incoming>, pool: Arc<Pool>) -> Result<Answer, Infallible> {
    strip(request.headers_mut());
    let Ok((mut response, sender)) = ask(request, &pool).await else {
        let mut response = Response::new(Either::Right(Empty::new()));
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        return Ok(response);
    };
    strip(response.headers_mut());
    Ok(response.map(|body| Either::Left(Returning { body, sender: Some(sender), pool })))
}

async fn ask(request: Request<Incoming>, pool: &Pool) -> Outcome<(Response<Incoming>, Sender)> {
    let mut sender = pool.take().await?;
    let response = sender.send_request(request).await?;
    Ok((response, sender))
}

/// Takes away what concerns one connection only.
pub(crate) fn strip(headers: &mut HeaderMap) {
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Connections to the sink that nobody uses now; the latest used is taken first.
struct Pool {
    sink: SocketAddr,
    idle: Mutex<Vec<Sender>>,
}

impl Pool {
    async fn take(&self) -> Outcome<Sender> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(mut sender) = idle else { break };
            if sender.ready().await.is_ok() {
                return Ok(sender);
            }
        }
        let stream = TcpStream::connect(self.sink).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// A body that gives its connection back when it was read to its end.
struct Returning {
    body: Incoming,
    sender: Option<Sender>,
    pool: Arc<Pool>,
}

impl Body for Returning {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Returning {
    fn drop(&mut self) {
        // A half-read connection cannot serve another request.
        if self.body.is_end_stream()
            && let Some(sender) = self.sender.take()
        {
            self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        }
    }
}
