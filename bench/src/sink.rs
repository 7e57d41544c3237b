//! The upstream of every subject: answers at once, and counts.

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::Outcome;

/// About what a payment API answers.
const ANSWER: &[u8] = br#"{"id":"pay_01jd8k2v9x4qm7r3","object":"payment","state":"captured","amount":1250,"currency":"EUR","created_at":"2025-01-01T12:00:00Z","customer":"cus_01jd8k2v9x4qm7r3","livemode":false}"#;

/// Serves until standard input ends.
///
/// Half of the cores: one would be the bound on a large machine, all would only add switches.
pub(crate) fn run() -> Outcome<()> {
    let threads = crate::load::half_of_the_cores();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    runtime.block_on(async {
        let listener = listen().await?;
        let count = Arc::new(AtomicU64::new(0));
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(request, Arc::clone(&count)));
                // A peer that goes away in the middle is its own affair: counts show what came.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    })
}

/// Binds a free port, tells the parent which, and ends this process when the parent is gone.
pub(crate) async fn listen() -> Outcome<TcpListener> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
    println!("{}", listener.local_addr()?);
    io::stdout().flush()?;
    std::thread::spawn(|| {
        // The parent holds the other end: it closes however the parent ends.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    Ok(listener)
}

async fn answer(
    request: Request<Incoming>,
    count: Arc<AtomicU64>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() == Method::GET && request.uri().path() != "/" {
        return Ok(answered(StatusCode::OK));
    }
    if request.method() == Method::GET {
        let count = count.load(Ordering::SeqCst).to_string();
        return Ok(Response::new(Full::new(Bytes::from(count))));
    }
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        if frame.is_err() {
            // Half a request has no effect.
            return Ok(plain(StatusCode::BAD_REQUEST));
        }
    }
    count.fetch_add(1, Ordering::SeqCst);
    Ok(answered(StatusCode::CREATED))
}

fn answered(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = plain(status);
    response.headers_mut().insert(
        hyper::header::CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("application/json"),
    );
    *response.body_mut() = Full::new(Bytes::from_static(ANSWER));
    response
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
