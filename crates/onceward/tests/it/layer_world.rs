//! Servers and callers for handlers behind the layer.

use std::convert::Infallible;
use std::path::Path;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tower::ServiceExt as _;

/// A test that waits longer than this waits for what does not come.
const PATIENCE: Duration = Duration::from_mins(1);

/// A POST with a key.
pub(crate) fn keyed(key: &str, body: &'static str) -> Request<Body> {
    Request::post("/orders")
        .header("idempotency-key", key)
        .header("content-type", "application/json")
        .body(Body::from(body))
        .unwrap()
}

pub(crate) fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

pub(crate) async fn send(app: &Router, request: Request<Body>) -> Response<Body> {
    app.clone().oneshot(request).await.unwrap()
}

pub(crate) async fn text(response: Response<Body>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// Waits until `condition` holds.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        while !condition() {
            looks.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it never came");
}

/// A body of the pieces that are sent into it.
pub(crate) struct Piped(pub(crate) mpsc::Receiver<Bytes>);

impl http_body::Body for Piped {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What answered: status, headers, body.
pub(crate) type Heard = (u16, HeaderMap, Bytes);

/// A server on a socket.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    address: String,
}

impl Server {
    pub(crate) async fn start(app: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address }
    }

    /// Posts on a connection of its own, which ends with the future.
    pub(crate) fn post(
        &self,
        path: &'static str,
        headers: &[(&'static str, &'static str)],
        body: &'static str,
    ) -> impl Future<Output = Heard> + Send + 'static {
        let mut request =
            Request::post(path).header("host", &self.address).header("content-type", "text/plain");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body)).unwrap();
        let heard = hear(self.address.clone(), request);
        async move { heard.await.unwrap() }
    }

    /// Posts under `key`; fails where no answer comes.
    pub(crate) fn keyed(
        &self,
        path: &'static str,
        key: &str,
    ) -> impl Future<Output = Result<Heard, BoxError>> + Send + 'static {
        let request = Request::post(path).header("host", &self.address);
        let request = request.header("idempotency-key", key).body(Full::default()).unwrap();
        hear(self.address.clone(), request)
    }

    /// Posts what is sent into the channel, and reads the answer meanwhile.
    pub(crate) async fn upload(&self, path: &str) -> (mpsc::Sender<Bytes>, Incoming) {
        let (pieces, body) = mpsc::channel(1);
        let request = Request::post(path).header("host", &self.address).body(Piped(body)).unwrap();
        (pieces, ask(&self.address, request).await.unwrap().into_body())
    }
}

async fn hear(address: String, request: Request<Full<Bytes>>) -> Result<Heard, BoxError> {
    let (head, body) = ask(&address, request).await?.into_parts();
    Ok((head.status.as_u16(), head.headers, body.collect().await?.to_bytes()))
}

async fn ask<B>(address: &str, request: Request<B>) -> Result<Response<Incoming>, BoxError>
where
    B: http_body::Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends where its caller lets go of the answer.
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

/// A server in a process of its own: this very binary, as its test `a_process_to_kill`.
pub(crate) struct Process {
    pub(crate) server: Server,
    child: std::process::Child,
}

impl Process {
    pub(crate) async fn start(folder: &Path) -> Self {
        let address = folder.join("address");
        let _ = std::fs::remove_file(&address);
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "layer::a_process_to_kill"])
            .env("TEST_LAYER_FOLDER", folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until(|| address.exists()).await;
        Self { server: Server { address: std::fs::read_to_string(address).unwrap() }, child }
    }

    /// `kill -9`, and its ledger is free.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
