//! One listener: it takes connections, agrees on TLS where that is spoken, and hands each request to
//! whoever answers here.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tracing::warn;

use crate::body::Body;
use crate::connections::{Connected, Connections, HEAD_TIMEOUT, builder};
use crate::tls::Tls;

/// After a connection could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) is_secured: bool,
    /// The certificate that it proved to have, as it came.
    pub(crate) certificate: Option<Arc<[u8]>>,
}

/// A listener that takes connections; dropped, it takes no more, and those that stand end after the
/// answers that they are at.
#[derive(Debug)]
pub(crate) struct Listening {
    stop: oneshot::Sender<()>,
    accepting: JoinHandle<GracefulShutdown>,
}

/// A listener that takes no more connections.
#[derive(Debug)]
pub(crate) struct Closed(Option<GracefulShutdown>);

impl Listening {
    /// Takes connections on `socket` and answers what is asked on them.
    pub(crate) fn begin<F, A>(
        socket: Arc<TcpListener>,
        tls: Option<Arc<Tls>>,
        connections: Arc<Connections>,
        answer: F,
    ) -> Self
    where
        F: Fn(Request<Incoming>, Arc<Peer>) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Response<Body>> + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        let accepting = tokio::spawn(accept(socket, tls, connections, stopped, answer));
        Self { stop, accepting }
    }

    /// Takes no more connections; its socket is let go.
    pub(crate) async fn close(self) -> Closed {
        // It ends by itself only where the process does.
        let _ = self.stop.send(());
        Closed(self.accepting.await.ok())
    }
}

impl Closed {
    /// Waits until the connections that stand have ended, each after the answers that it is at.
    pub(crate) async fn end(self) {
        if let Some(graceful) = self.0 {
            graceful.shutdown().await;
        }
    }
}

async fn accept<F, A>(
    socket: Arc<TcpListener>,
    tls: Option<Arc<Tls>>,
    connections: Arc<Connections>,
    mut stopped: oneshot::Receiver<()>,
    answer: F,
) -> GracefulShutdown
where
    F: Fn(Request<Incoming>, Arc<Peer>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let graceful = GracefulShutdown::new();
    let builder = Arc::new(builder());
    // Dropped with this task: who has not agreed on TLS by then is not waited for.
    let (_open, is_open) = watch::channel(());
    loop {
        let (stream, address) = tokio::select! {
            biased;
            _ = &mut stopped => return graceful,
            accepted = socket.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors: those that are open go on, and end.
                    warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            },
        };
        let Some(connected) = connections.begin(address.ip()) else {
            // Too many: closed before it costs anything.
            continue;
        };
        // Small answers go out at once; where that cannot be set they go out a little later.
        let _ = stream.set_nodelay(true);
        let (watcher, builder, answer) = (graceful.watcher(), Arc::clone(&builder), answer.clone());
        match &tls {
            None => {
                let peer = Peer { address, is_secured: false, certificate: None };
                tokio::spawn(serve(stream, peer, builder, watcher, connected, answer));
            }
            Some(tls) => {
                let handshake = tls.acceptor().accept(stream);
                let mut is_open = is_open.clone();
                tokio::spawn(async move {
                    // Who does not agree in time, or at all, is no caller.
                    let secured = tokio::select! {
                        secured = tokio::time::timeout(HEAD_TIMEOUT, handshake) => secured,
                        _ = is_open.changed() => return,
                    };
                    let Ok(Ok(stream)) = secured else { return };
                    let shown = stream.get_ref().1.peer_certificates();
                    let certificate =
                        shown.and_then(<[_]>::first).map(|shown| Arc::from(shown.as_ref()));
                    let peer = Peer { address, is_secured: true, certificate };
                    Box::pin(serve(stream, peer, builder, watcher, connected, answer)).await;
                });
            }
        }
    }
}

async fn serve<S, F, A>(
    stream: S,
    peer: Peer,
    builder: Arc<auto::Builder<TokioExecutor>>,
    watcher: Watcher,
    connected: Connected,
    answer: F,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>, Arc<Peer>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let _connected = connected;
    let peer = Arc::new(peer);
    let has_asked = Arc::new(AtomicBool::new(false));
    let asks = Arc::clone(&has_asked);
    let service = service_fn(move |request| {
        asks.store(true, Ordering::Relaxed);
        let answered = answer(request, Arc::clone(&peer));
        async move { Ok::<_, Infallible>(answered.await) }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    let mut serving = std::pin::pin!(watcher.watch(connection));
    // A connection that ends badly ends alone. hyper times the head of HTTP/1.1, but not the bytes
    // that tell which HTTP it is, nor HTTP/2 before its first request.
    let first = tokio::time::timeout(HEAD_TIMEOUT, serving.as_mut()).await;
    if first.is_err() && has_asked.load(Ordering::Relaxed) {
        let _ = serving.await;
    }
}
