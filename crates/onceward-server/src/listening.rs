//! One listener: it takes connections, agrees on TLS where that is spoken, and hands each request to
//! whoever answers here.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::body::Body;
use crate::connections::{Connected, Connections, HEAD_TIMEOUT, builder};
use crate::guard::Way;
use crate::tls::Tls;
use crate::traffic::{Counted, Found, LOOKS, Look, Timer, Traffic};

/// After a connection could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) is_secured: bool,
    /// The certificate that it proved to have, as it came.
    pub(crate) certificate: Option<Arc<[u8]>>,
    /// How upstreams are told of it: made for its first request, and hardly ever other for the next.
    pub(crate) way: OnceLock<Way>,
}

impl Peer {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, is_secured: false, certificate: None, way: OnceLock::new() }
    }
}

/// A listener that takes connections; dropped, it takes no more, and those that stand end after the
/// answers that they are at.
#[derive(Debug)]
pub(crate) struct Listening {
    stop: oneshot::Sender<()>,
    accepting: JoinHandle<watch::Sender<()>>,
}

/// A listener that takes no more connections; each of those that stand has a receiver.
#[derive(Debug)]
pub(crate) struct Closed(Option<watch::Sender<()>>);

impl Listening {
    /// Takes connections on `socket`; for each of them `meet` makes what answers its requests.
    pub(crate) fn begin<F, S, A>(
        socket: Arc<TcpListener>,
        tls: Option<Arc<Tls>>,
        connections: Arc<Connections>,
        meet: F,
    ) -> Self
    where
        F: Fn(Peer) -> S + Clone + Send + Sync + 'static,
        S: Fn(Request<Incoming>) -> A + Send + 'static,
        A: Future<Output = Response<Body>> + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        let accepting = tokio::spawn(accept(socket, tls, connections, stopped, meet));
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
    /// Waits until none stands any more, whoever ended them.
    pub(crate) async fn gone(&self) {
        if let Some(standing) = &self.0 {
            standing.closed().await;
        }
    }

    /// Has the connections that stand end, each after the answers that it is at.
    pub(crate) fn tell(&self) {
        if let Some(standing) = &self.0 {
            // Nobody is there to hear it where none stands.
            let _ = standing.send(());
        }
    }

    /// Waits until they have ended.
    pub(crate) async fn end(self) {
        self.tell();
        self.gone().await;
    }
}

async fn accept<F, S, A>(
    socket: Arc<TcpListener>,
    tls: Option<Arc<Tls>>,
    connections: Arc<Connections>,
    mut stopped: oneshot::Receiver<()>,
    meet: F,
) -> watch::Sender<()>
where
    F: Fn(Peer) -> S + Clone + Send + Sync + 'static,
    S: Fn(Request<Incoming>) -> A + Send + 'static,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let (standing, _) = watch::channel(());
    // Dropped with this task: who has not agreed on TLS by then is not waited for.
    let (_open, is_open) = watch::channel(());
    loop {
        let (stream, address) = tokio::select! {
            biased;
            _ = &mut stopped => return standing,
            accepted = socket.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors: those that are open go on, and end.
                    warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_AGAIN).await;
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
        // Whoever is told of its bytes from now on is the thread that moves them.
        let Ok(stream) = stream.into_std() else { continue };
        let (ending, meet) = (standing.subscribe(), meet.clone());
        let (tls, mut is_open) = (tls.clone(), is_open.clone());
        connected.event_loop().spawn(async move {
            let Ok(stream) = TcpStream::from_std(stream) else { return };
            let Some(tls) = tls else {
                let peer = Peer::new(address);
                return serve(stream, meet(peer), ending, connected).await;
            };
            // Who does not agree in time, or at all, is no caller.
            let handshake = tls.acceptor().accept(stream);
            let secured = tokio::select! {
                secured = timeout(HEAD_TIMEOUT, handshake) => secured,
                _ = is_open.changed() => return,
            };
            let Ok(Ok(stream)) = secured else { return };
            let shown = stream.get_ref().1.peer_certificates();
            let certificate = shown.and_then(<[_]>::first).map(|shown| Arc::from(shown.as_ref()));
            let peer = Peer { is_secured: true, certificate, ..Peer::new(address) };
            Box::pin(serve(stream, meet(peer), ending, connected)).await;
        });
    }
}

/// Answers what is asked on a connection, until its peer ends it or `ending` says that it is to end.
async fn serve<I, S, A>(stream: I, answer: S, ending: watch::Receiver<()>, connected: Connected)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Fn(Request<Incoming>) -> A + Send + 'static,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let traffic = Arc::<Traffic>::default();
    let asks = Arc::clone(&traffic);
    let service = service_fn(move |request| {
        let stream = asks.begin(request.version() == Version::HTTP_2);
        let answered = answer(request);
        async move {
            let mut response = answered.await;
            if let Some(stream) = stream {
                response.body_mut().stand_on(stream);
            }
            Ok::<_, Infallible>(response)
        }
    });
    let builder = builder();
    let stream = Counted::new(stream, Arc::clone(&traffic));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut told = ending.clone();
    let mut told = pin!(told.changed());
    let (mut is_heard, mut is_told) = (false, false);
    // hyper times the heads of HTTP/1.1, but neither the bytes that tell which HTTP it is nor HTTP/2, and
    // nobody who does not read.
    let idle_timeout = connected.idle_timeout();
    let mut next = Timer::new(HEAD_TIMEOUT.min(idle_timeout));
    let mut look = Look::new(traffic);
    poll_fn(|cx| {
        // It is told to this task, whenever that looked first: it need not look again before.
        let looks = !is_heard || !matches!(ending.has_changed(), Ok(false));
        is_heard = true;
        if !is_told && looks && told.as_mut().poll(cx).is_ready() {
            is_told = true;
            connection.as_mut().graceful_shutdown();
        }
        // A connection that ends badly ends alone.
        if connection.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        while next.is_over(cx) {
            match look.at_it() {
                Found::Traffic => next.reset(idle_timeout / LOOKS),
                Found::Idle => {
                    // Told so, whoever begins to ask just then asks elsewhere.
                    connection.as_mut().graceful_shutdown();
                    if connection.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(());
                    }
                    next.reset(HEAD_TIMEOUT);
                }
                Found::Nothing => return Poll::Ready(()),
            }
        }
        Poll::Pending
    })
    .await;
}
